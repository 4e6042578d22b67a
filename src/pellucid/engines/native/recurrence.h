// A whole sequence through a recurrent cell. Examples do not see each other, so each thread takes panels of neighbouring
// columns through all steps by itself: a panel's state stays in the cache, U is packed once, and no step waits for another
// thread. Sums of U h go through their units' gates while they are near. Included by kernels.cpp after the activations.
#pragma once

namespace pellucid {
namespace {

// sums (R, N vectors) = A B for R rows of A, packed k by k, and B of K rows, N vectors each.
template <class T, int R, int N> inline void panel_tile(long K, const T* A, const T* B, T* sums) {
    constexpr int L = LANES<T>;
    V<T> c[R][N] = {};
    for (long k = 0; k < K; ++k, A += R, B += N * L) {
        V<T> b[N];
#pragma GCC unroll 8
        for (int j = 0; j < N; ++j) b[j] = load(B + j * L);
#pragma GCC unroll 8
        for (int i = 0; i < R; ++i) {
            V<T> a = splat(A[i]);
#pragma GCC unroll 8
            for (int j = 0; j < N; ++j) c[i][j] += a * b[j];
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < N; ++j) store(sums + (i * N + j) * L, c[i][j]);
}

// One unit's vector of k columns: `row` is where it begins in an array (n, m), gates are `gate` apart in one of (G n, m).
template <class T> struct Place {
    long unit, row, gate, k;
    I<T> keep;  // where the mask is True
    V<T> load(const T* A) const { return load_part(A + row, k); }
    V<T> load(const T* A, int g) const { return load_part(A + g * gate + row, k); }
    void store(T* A, V<T> v) const { store_part(A + row, v, k); }
    void store(T* A, int g, V<T> v) const { store_part(A + g * gate + row, v, k); }
};

// One step of a sequence: its arrays at that step.
template <class T> struct Step {
    const T *H, *C;         // the states before it
    const T *H_next, *C_next;
    const T *Z, *v;
};

// A cell's `forward` makes one unit's A from its sums of U h (`next` apart for each gate) and its h; its `backward` turns
// the gradients d of A and dC of C into those of the gates' sums, dZ and (through U) dV, and of h, not through U: returned.
template <class T, int KIND> struct SimpleCell {
    static constexpr int GATES = 1, UNITS = ROWS;
    static V<T> forward(const Sequence<T>&, const Place<T>& at, T* Z, T*, const T*, T*, const T* sums, long, V<T>) {
        V<T> z = at.load(Z) + load(sums);
        if constexpr (KIND == TANH_CELL) return tanh<T>(z);
        else if constexpr (KIND == RELU_CELL) return max<T>(V<T>{}, z);
        else return sigmoid<T>(z);
    }
    static V<T> backward(const Place<T>& at, const Step<T>& step, V<T> d, V<T>&, V<T>* dZ, V<T>* dV) {
        V<T> a = at.load(step.H_next);
        if constexpr (KIND == TANH_CELL) dZ[0] = d * (1 - a * a);
        else if constexpr (KIND == RELU_CELL) dZ[0] = a > 0 ? d : V<T>{};
        else dZ[0] = d * (a * (1 - a));
        dV[0] = dZ[0];
        return V<T>{};
    }
};

template <class T> struct LSTMCell {
    static constexpr int GATES = 4, UNITS = 1;
    static V<T> forward(const Sequence<T>&, const Place<T>& at, T* Z, T*, const T* C, T* C_next, const T* sums, long next, V<T>) {
        V<T> i = sigmoid<T>(at.load(Z, 0) + load(sums)), f = sigmoid<T>(at.load(Z, 1) + load(sums + next));
        V<T> g = tanh<T>(at.load(Z, 2) + load(sums + 2 * next)), o = sigmoid<T>(at.load(Z, 3) + load(sums + 3 * next));
        V<T> before = at.load(C), c = f * before + i * g;
        at.store(Z, 0, i), at.store(Z, 1, f), at.store(Z, 2, g), at.store(Z, 3, o);
        at.store(C_next, at.keep ? c : before);
        return o * tanh<T>(c);
    }
    static V<T> backward(const Place<T>& at, const Step<T>& step, V<T> d, V<T>& dC, V<T>* dZ, V<T>* dV) {
        V<T> i = at.load(step.Z, 0), f = at.load(step.Z, 1), g = at.load(step.Z, 2), o = at.load(step.Z, 3);
        V<T> t = tanh<T>(at.load(step.C_next)), all = dC + d * o * (1 - t * t);
        dV[0] = dZ[0] = all * g * i * (1 - i);
        dV[1] = dZ[1] = all * at.load(step.C) * f * (1 - f);
        dV[2] = dZ[2] = all * i * (1 - g * g);
        dV[3] = dZ[3] = d * t * o * (1 - o);
        dC = at.keep ? all * f : dC;
        return V<T>{};
    }
};

template <class T> struct GRUCell {
    static constexpr int GATES = 3, UNITS = REGISTERS == 32 ? 2 : 1;
    static V<T> forward(const Sequence<T>& s, const Place<T>& at, T* Z, T* v, const T*, T*, const T* sums, long next, V<T> h) {
        V<T> r = sigmoid<T>(at.load(Z, 0) + load(sums)), z = sigmoid<T>(at.load(Z, 1) + load(sums + next));
        V<T> u = load(sums + 2 * next) + (s.c ? s.c[at.unit] : T(0)), n = tanh<T>(at.load(Z, 2) + r * u);
        at.store(Z, 0, r), at.store(Z, 1, z), at.store(Z, 2, n), at.store(v, u);
        return n + z * (h - n);
    }
    static V<T> backward(const Place<T>& at, const Step<T>& step, V<T> d, V<T>&, V<T>* dZ, V<T>* dV) {
        V<T> r = at.load(step.Z, 0), z = at.load(step.Z, 1), n = at.load(step.Z, 2);
        dZ[2] = d * (1 - z) * (1 - n * n);
        dV[0] = dZ[0] = dZ[2] * at.load(step.v) * r * (1 - r);
        dV[1] = dZ[1] = d * (at.load(step.H) - n) * z * (1 - z);
        dV[2] = dZ[2] * r;
        return d * z;
    }
};

template <class T> inline I<T> kept(const uint8_t* mask, long k) {
    I<T> keep{};
    for (long e = 0; e < k; ++e) keep[e] = !mask || mask[e] ? -1 : 0;
    return keep;
}

template <class T, class Cell, int N> void forward_panel(const Sequence<T>& s, const T* U, long first, long columns) {
    constexpr long L = LANES<T>, WIDTH = N * L, GATES = Cell::GATES, UNITS = Cell::UNITS;
    const long n = s.n, m = s.m;
    T* panels = scratch<T, 8>(2 * n * WIDTH);
    alignas(64) T sums[GATES * UNITS * WIDTH];
    Place<T> at[N];
    for (int j = 0; j < N; ++j) at[j].gate = n * m, at[j].k = std::min(L, columns - j * L);
    for (long u = 0; u < n; ++u)
        for (int j = 0; j < N; ++j) store(panels + u * WIDTH + j * L, load_part(s.H + u * m + first + j * L, at[j].k));
    for (long t = 0; t < s.steps; ++t) {
        const T* h = panels + t % 2 * n * WIDTH;
        T* next = panels + (t + 1) % 2 * n * WIDTH;
        T *Z = s.Z + t * GATES * n * m, *H_next = s.H + (t + 1) * n * m, *v = s.v + (s.v ? t * n * m : 0);
        const T* C = s.C + (s.C ? t * n * m : 0);
        T* C_next = s.C + (s.C ? (t + 1) * n * m : 0);
        for (int j = 0; j < N; ++j) at[j].keep = kept<T>(s.mask ? s.mask + t * m + first + j * L : nullptr, at[j].k);
        for (long unit = 0; unit < n; unit += UNITS) {
            panel_tile<T, GATES * UNITS, N>(n, U + unit * GATES * n, h, sums);
            for (long u = unit; u < std::min(n, unit + UNITS); ++u)
                for (int j = 0; j < N; ++j) {
                    at[j].unit = u, at[j].row = u * m + first + j * L;
                    V<T> before = load(h + u * WIDTH + j * L);
                    V<T> a = Cell::forward(s, at[j], Z, v, C, C_next, sums + ((u - unit) * GATES * N + j) * L, WIDTH, before);
                    a = at[j].keep ? a : before;
                    at[j].store(H_next, a);
                    store(next + u * WIDTH + j * L, a);
                }
        }
    }
}

// The tile of Uᵀ dV of one step is the gradient of the step before's A, and goes through its gates at once.
template <class T, class Cell, int N>
void backward_panel(const SequenceBackward<T>& s, const T* U, long first, long columns) {
    constexpr long L = LANES<T>, WIDTH = N * L, GATES = Cell::GATES;
    const long n = s.n, m = s.m, K = GATES * n;
    T* panels = scratch<T, 8>((2 * K + 2 * n) * WIDTH);
    T *passed = panels + 2 * K * WIDTH, *dC = passed + n * WIDTH;
    alignas(64) T sums[ROWS * WIDTH];
    Place<T> at[N];
    for (int j = 0; j < N; ++j) at[j].gate = n * m, at[j].k = std::min(L, columns - j * L);
    for (long u = 0; u < n; ++u)
        for (int j = 0; j < N; ++j) {
            store(passed + u * WIDTH + j * L, load_part(s.dh + u * m + first + j * L, at[j].k));
            store(dC + u * WIDTH + j * L, s.dC ? load_part(s.dC + u * m + first + j * L, at[j].k) : V<T>{});
        }
    for (long t = s.steps - 1; t >= -1; --t) {
        const T* after = panels + (t + 2) % 2 * K * WIDTH;  // dV of the step after
        T* own = panels + (t + 1) % 2 * K * WIDTH;
        Step<T> step{};
        if (t >= 0) {
            step = {s.H + t * n * m, s.C + (s.C ? t * n * m : 0), s.H + (t + 1) * n * m, s.C + (s.C ? (t + 1) * n * m : 0),
                    s.Z + (s.Z ? t * K * m : 0), s.v + (s.v ? t * n * m : 0)};
            for (int j = 0; j < N; ++j) at[j].keep = kept<T>(s.mask ? s.mask + t * m + first + j * L : nullptr, at[j].k);
        }
        for (long unit = 0; unit < n; unit += ROWS) {
            if (t < s.steps - 1) panel_tile<T, ROWS, N>(K, U + unit * K, after, sums);
            else std::fill(sums, sums + ROWS * WIDTH, T(0));
            for (long u = unit; u < std::min(n, unit + ROWS); ++u)
                for (int j = 0; j < N; ++j) {
                    Place<T>& place = at[j];
                    place.unit = u, place.row = u * m + first + j * L;
                    T *on = passed + u * WIDTH + j * L, *c = dC + u * WIDTH + j * L;
                    V<T> d = load(sums + ((u - unit) * N + j) * L) + load(on), d_cell = load(c);
                    if (t < 0) {
                        place.store(s.dh, d);
                        if (s.dC) place.store(s.dC, d_cell);
                        continue;
                    }
                    if (s.dA) d += place.load(s.dA + t * n * m);
                    V<T> dZ[GATES], dV[GATES];
                    V<T> direct = Cell::backward(place, step, d, d_cell, dZ, dV);
                    store(on, place.keep ? direct : d);
                    store(c, d_cell);
                    for (int g = 0; g < GATES; ++g) {
                        V<T> through = place.keep ? dV[g] : V<T>{};
                        place.store(s.dZ + t * K * m, g, place.keep ? dZ[g] : V<T>{});
                        if (s.dV != s.dZ) place.store(s.dV + t * K * m, g, through);
                        store(own + (g * n + u) * WIDTH + j * L, through);
                    }
                }
        }
    }
}

// Panels of nearly equal width, as many as keep the threads busy; f(integral N, first column, columns).
template <class T, class F> void each_panel(long m, double cost, F f) {
    constexpr long L = LANES<T>;
    long vectors = (m + L - 1) / L, workers = cost < WORTH_A_THREAD ? 1 : threads();
    long parts = (vectors + VECTORS - 1) / VECTORS;
    parts = std::min(vectors, (parts + workers - 1) / workers * workers);
    auto part = [&](long p) {
        long first = vectors * p / parts * L, columns = std::min(m, vectors * (p + 1) / parts * L) - first;
        switch ((columns + L - 1) / L) {
            case 1: return f(std::integral_constant<int, 1>(), first, columns);
            case 2: return f(std::integral_constant<int, 2>(), first, columns);
#if defined(__AVX512F__)
            case 3: return f(std::integral_constant<int, 3>(), first, columns);
            default: return f(std::integral_constant<int, 4>(), first, columns);
#endif
        }
    };
    if (workers > 1) return parallel(parts, part);
    for (long p = 0; p < parts; ++p) part(p);
}

// U (G n, n) in blocks of units, each k by k: the gates of the first unit, of the second, …; zeros beyond the last unit.
template <class T> const T* packed(long n, long gates, long units, const T* U) {
    long blocks = (n + units - 1) / units, R = gates * units;
    T* to = scratch<T, 7>(blocks * n * R);
    for (long b = 0; b < blocks; ++b)
        for (long r = 0; r < R; ++r) {
            long unit = b * units + r / gates;
            const T* row = U + (r % gates * n + unit) * n;
            for (long k = 0; k < n; ++k) to[(b * n + k) * R + r] = unit < n ? row[k] : T(0);
        }
    return to;
}

// Uᵀ the same way: blocks of ROWS units, for each of them all gates of all units.
template <class T> const T* packed_transposed(long n, long gates, const T* U) {
    long blocks = (n + ROWS - 1) / ROWS, K = gates * n;
    T* to = scratch<T, 7>(blocks * K * ROWS);
    for (long b = 0; b < blocks; ++b)
        for (long k = 0; k < K; ++k)
            for (long r = 0; r < ROWS; ++r) *to++ = b * ROWS + r < n ? U[k * n + b * ROWS + r] : T(0);
    return to - blocks * K * ROWS;
}

template <class T, class F> void of_cell(int cell, F f) {
    switch (cell) {
        case TANH_CELL: return f(SimpleCell<T, TANH_CELL>());
        case RELU_CELL: return f(SimpleCell<T, RELU_CELL>());
        case SIGMOID_CELL: return f(SimpleCell<T, SIGMOID_CELL>());
        case LSTM_CELL: return f(LSTMCell<T>());
        default: return f(GRUCell<T>());
    }
}

template <class T> void recurrence(const Sequence<T>& s) {
    of_cell<T>(s.cell, [&](auto cell) {
        using Cell = decltype(cell);
        const T* U = packed<T>(s.n, Cell::GATES, Cell::UNITS, s.U);
        each_panel<T>(s.m, 2.0 * s.steps * Cell::GATES * s.n * s.n * s.m, [&](auto N, long first, long columns) {
            forward_panel<T, Cell, N()>(s, U, first, columns);
        });
    });
}

template <class T> void recurrence_backward(const SequenceBackward<T>& s) {
    of_cell<T>(s.cell, [&](auto cell) {
        using Cell = decltype(cell);
        const T* U = packed_transposed<T>(s.n, Cell::GATES, s.U);
        each_panel<T>(s.m, 2.0 * s.steps * Cell::GATES * s.n * s.n * s.m, [&](auto N, long first, long columns) {
            backward_panel<T, Cell, N()>(s, U, first, columns);
        });
    });
}

}  // namespace
}  // namespace pellucid
