// A whole sequence through a recurrent cell. Examples do not see each other, so each thread takes panels of neighbouring
// columns through all steps by itself: a panel's state stays in the cache, U is packed once, and no step waits for another
// thread. Sums of U h go through their units' gates while they are near. Given X, a panel's own columns of it stand below
// its state, so that one product makes W X + U h + b, and dW, dU and db are summed while a step's dZ is near: neither Z nor
// dZ goes through the memory. Included by kernels.cpp after the activations.
#pragma once

namespace pellucid {
namespace {

constexpr int HEIGHT = 4;  // rows of a tile: widths are often a multiple of it, of 6 they are not

// Rows, N vectors each, that are soon needed: a tile fetches one vector for each k, so that it does not wait for them.
template <class T> struct Soon {
    const T* rows[128];
    long count;
    Soon() : count(0) {}
    void add(const T* row) {
        if (row) rows[count++] = row;
    }
};

// sums (M R, N vectors) = A B for M blocks of R rows of A, each packed k by k and `next` after the one before, and B of K
// rows, N vectors each; += where `add` says so. Not inlined: a loop alone keeps all its sums in registers.
template <class T, int R, int N, int M>
__attribute__((noinline)) void panel_tile(long K, const T* A, long next, const T* B, T* sums, bool add, const Soon<T>& soon) {
    constexpr int L = LANES<T>;
    V<T> c[M * R][N];
#pragma GCC unroll 32
    for (int i = 0; i < M * R; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < N; ++j) c[i][j] = add ? load(sums + (i * N + j) * L) : V<T>{};
    auto step = [&] {
        V<T> b[N];
#pragma GCC unroll 8
        for (int j = 0; j < N; ++j) b[j] = load(B + j * L);
#pragma GCC unroll 32
        for (int i = 0; i < M * R; ++i) {
            V<T> a = splat(A[i / R * next + i % R]);
#pragma GCC unroll 8
            for (int j = 0; j < N; ++j) c[i][j] += a * b[j];
        }
        A += R, B += N * L;
    };
    const long fetched = std::min(soon.count, K / N);
    for (long row = 0; row < fetched; ++row)
#pragma GCC unroll 1
        for (long j = 0; j < N; ++j) {
            __builtin_prefetch(soon.rows[row] + j * L);
            step();
        }
    for (long k = fetched * N; k < K; ++k) step();
#pragma GCC unroll 32
    for (int i = 0; i < M * R; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < N; ++j) store(sums + (i * N + j) * L, c[i][j]);
}

// So many blocks of rows at a time that there are sums enough: none then waits for its own last product.
template <int N> constexpr int BLOCKS = VECTORS / N;

// The same for one column, whose numbers `spread` holds R times each: a vector of A, some k of all R rows, is multiplied at
// once, where panel_tile would multiply a vector of columns for the sake of the first.
template <class T, int R, int M>
__attribute__((noinline)) void column_tile(long K, const T* A, long next, const T* spread, T* sums, bool add) {
    constexpr int L = LANES<T>;
    V<T> c[M][2] = {};
    long k = 0;
    for (; k + 2 * L <= K * R; k += 2 * L)
#pragma GCC unroll 8
        for (int half = 0; half < 2; ++half)
#pragma GCC unroll 8
            for (int i = 0; i < M; ++i) c[i][half] += load(A + i * next + k + half * L) * load(spread + k + half * L);
    for (; k < K * R; k += L) {
        const long count = std::min<long>(L, K * R - k);
#pragma GCC unroll 8
        for (int i = 0; i < M; ++i) c[i][0] += load_part(A + i * next + k, count) * load_part(spread + k, count);
    }
    for (int i = 0; i < M; ++i) {
        V<T> total = c[i][0] + c[i][1];
        for (int half = L / 2; half >= R; half /= 2) {
            I<T> other;
            for (int lane = 0; lane < L; ++lane) other[lane] = (lane + half) % L;
            total += __builtin_shuffle(total, other);
        }
        for (int row = 0; row < R; ++row) {
            T* sum = sums + (i * R + row) * L;
            store(sum, V<T>{total[row] + (add ? *sum : T(0))});
        }
    }
}

template <class T, int R, int N> constexpr bool SPREADS = N == 1 && LANES<T> % R == 0;  // whether there is a tile for a column

template <class T, int R> void spread_column(long K, const T* B, T* spread) {
    for (long k = 0; k < K; ++k) std::fill_n(spread + k * R, R, B[k * LANES<T>]);
}

// `spread` is null but for a single column.
template <class T, int R, int N>
void panel_tiles(long blocks, long K, const T* A, long next, const T* B, const T* spread, T* sums, bool add, const Soon<T>& soon) {
    if constexpr (SPREADS<T, R, N>)
        if (spread) {
            if (blocks == BLOCKS<N>) return column_tile<T, R, BLOCKS<N>>(K, A, next, spread, sums, add);
            for (long each = 0; each < blocks; ++each)
                column_tile<T, R, 1>(K, A + each * next, next, spread, sums + each * R * LANES<T>, add);
            return;
        }
    if (blocks == BLOCKS<N>) return panel_tile<T, R, N, BLOCKS<N>>(K, A, next, B, sums, add, soon);
    for (long each = 0; each < blocks; ++each)
        panel_tile<T, R, N, 1>(K, A + each * next, next, B, sums + each * R * N * LANES<T>, add, soon);
}

// One unit's vector of k columns: `row` is where it begins in an array (n, m), gates are `gate` apart in one of (G n, m).
template <class T> struct Place {
    long unit, row, gate, k;
    I<T> keep;  // where the mask is True
    V<T> load(const T* A) const { return load_part(A + row, k); }
    V<T> load(const T* A, int g) const { return load_part(A + g * gate + row, k); }
    void store(T* A, V<T> v) const { store_part(A + row, v, k); }
    void store(T* A, int g, V<T> v) const { store_part(A + g * gate + row, v, k); }
    V<T> plus(V<T> sum, const T* A, int g) const { return A ? sum + load(A, g) : sum; }
};

// A sequence's arrays at one step; `next` are the states after it, `given` what the sums lack, null where they have all.
template <class T, class Float> struct Step {
    Float *Z, *v;
    const T *H, *C;
    Float *H_next, *C_next;
    const T *c, *given;
};

// A cell's `forward` makes N vectors of one unit's A (all of them before the next function, none waits for another) from its
// sums of U h, `WIDTH` apart for each gate, and its h. Its `backward` turns the gradients d of A and dC of C into those of
// the gates' sums, dZ and (through U) dV, and returns what reaches h, but not through U.
template <class T, int KIND> struct SimpleCell {
    static constexpr int GATES = 1, UNITS = HEIGHT;
    template <int N> static void forward(const Place<T>* at, const Step<T, T>& step, const T* sums, const V<T>*, V<T>* a) {
        for (int j = 0; j < N; ++j) {
            V<T> z = at[j].plus(load(sums + j * LANES<T>), step.given, 0);
            if constexpr (KIND == TANH_CELL) a[j] = tanh<T>(z);
            else if constexpr (KIND == RELU_CELL) a[j] = max<T>(V<T>{}, z);
            else a[j] = sigmoid<T>(z);
        }
    }
    static V<T> backward(Place<T> at, Step<T, const T> step, V<T> d, V<T>&, V<T>* dZ, V<T>* dV) {
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
    template <int N> static void forward(const Place<T>* at, const Step<T, T>& step, const T* sums, const V<T>*, V<T>* a) {
        V<T> c[N], o[N];
        for (int j = 0; j < N; ++j) {
            auto z = [&](int gate) { return at[j].plus(load(sums + (gate * N + j) * LANES<T>), step.given, gate); };
            V<T> i = sigmoid<T>(z(0)), f = sigmoid<T>(z(1)), g = tanh<T>(z(2)), before = at[j].load(step.C);
            o[j] = sigmoid<T>(z(3));
            c[j] = f * before + i * g;
            at[j].store(step.Z, 0, i), at[j].store(step.Z, 1, f), at[j].store(step.Z, 2, g), at[j].store(step.Z, 3, o[j]);
            at[j].store(step.C_next, at[j].keep ? c[j] : before);
        }
        for (int j = 0; j < N; ++j) a[j] = o[j] * tanh<T>(c[j]);
    }
    static V<T> backward(Place<T> at, Step<T, const T> step, V<T> d, V<T>& dC, V<T>* dZ, V<T>* dV) {
        V<T> i = at.load(step.Z, 0), f = at.load(step.Z, 1), g = at.load(step.Z, 2), o = at.load(step.Z, 3);
        V<T> t = at.load(step.H_next) / o;  // tanh C
        t = o > 0 ? t : V<T>{};
        V<T> all = dC + d * o * (1 - t * t);
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
    template <int N> static void forward(const Place<T>* at, const Step<T, T>& step, const T* sums, const V<T>* h, V<T>* a) {
        V<T> z[N], n[N];
        for (int j = 0; j < N; ++j) {
            auto sum = [&](int gate) { return load(sums + (gate * N + j) * LANES<T>); };
            V<T> r = sigmoid<T>(at[j].load(step.Z, 0) + sum(0)), v = sum(2) + (step.c ? step.c[at[j].unit] : T(0));
            z[j] = sigmoid<T>(at[j].load(step.Z, 1) + sum(1));
            n[j] = at[j].load(step.Z, 2) + r * v;
            at[j].store(step.Z, 0, r), at[j].store(step.Z, 1, z[j]), at[j].store(step.v, v);
        }
        for (int j = 0; j < N; ++j) {
            n[j] = tanh<T>(n[j]);
            at[j].store(step.Z, 2, n[j]);
            a[j] = n[j] + z[j] * (h[j] - n[j]);
        }
    }
    static V<T> backward(Place<T> at, Step<T, const T> step, V<T> d, V<T>&, V<T>* dZ, V<T>* dV) {
        V<T> r = at.load(step.Z, 0), z = at.load(step.Z, 1), n = at.load(step.Z, 2);
        dZ[2] = d * (1 - z) * (1 - n * n);
        dV[0] = dZ[0] = dZ[2] * at.load(step.v) * r * (1 - r);
        dV[1] = dZ[1] = d * (at.load(step.H) - n) * z * (1 - z);
        dV[2] = dZ[2] * r;
        return d * z;
    }
};

constexpr long PART = 128 * VECTORS;  // vectors of a panel that stay in the first cache while all rows of U meet them

template <class T> inline I<T> kept(const uint8_t* mask, long first, long k) {
    I<T> keep{};
    for (long e = 0; e < k; ++e) keep[e] = !mask || mask[first + e] ? -1 : 0;
    return keep;
}

// A at step t of an array of so many numbers a step; null where there is none.
template <class P> inline P* of(P* A, long t, long size, long row = 0) { return A ? A + t * size + row : nullptr; }

// How many rows of [U W b] and of a panel of [h; X; 1] meet; of U and h alone where X is not given.
template <class Arrays> long meeting(const Arrays& s) { return s.X ? s.n + s.n_x + 1 : s.n; }

template <class T, class Cell, int N> void forward_panel(const Sequence<T>& s, const T* U, long first, long columns) {
    constexpr long L = LANES<T>, WIDTH = N * L, GATES = Cell::GATES, UNITS = Cell::UNITS, GROUP = BLOCKS<N> * UNITS;
    const long n = s.n, m = s.m, size = n * m, K = meeting(s);
    constexpr int ROWS_EACH = GATES * UNITS;
    T* panels = scratch<T, 8>(2 * K * WIDTH + K * ROWS_EACH);
    T* spread = SPREADS<T, ROWS_EACH, N> && columns == 1 ? panels + 2 * K * WIDTH : nullptr;
    alignas(64) T sums[GATES * GROUP * WIDTH];
    Place<T> at[N];
    for (int j = 0; j < N; ++j) at[j].gate = size, at[j].k = std::min(L, columns - j * L);
    auto take = [&](T* to, const T* from, long rows) {
        for (long u = 0; u < rows; ++u)
            for (int j = 0; j < N; ++j) store(to + u * WIDTH + j * L, load_part(from + u * m + first + j * L, at[j].k));
    };
    take(panels, s.H, n);
    for (long panel = 1; s.X && panel <= 2; ++panel) std::fill_n(panels + (panel * K - 1) * WIDTH, WIDTH, T(1));
    const bool zeros = std::all_of(panels, panels + n * WIDTH, [](T h) { return h == 0; });
    for (long t = 0; t < s.steps; ++t) {
        T *h = panels + t % 2 * K * WIDTH, *next = panels + (t + 1) % 2 * K * WIDTH;
        const long begin = t == 0 && zeros ? n : 0;
        if (s.X) take(h + n * WIDTH, s.X + t * s.n_x * m, s.n_x);
        if (spread) spread_column<T, ROWS_EACH>(K, h, spread);
        const Step<T, T> step{of(s.Z, t, GATES * size), of(s.v, t, size),     of(s.H, t, size),
                              of(s.C, t, size),         of(s.H, t + 1, size), of(s.C, t + 1, size),
                              s.c,                      s.X ? nullptr : of(s.Z, t, GATES * size)};
        for (int j = 0; j < N; ++j) at[j].keep = kept<T>(of(s.mask, t, m), first + j * L, at[j].k);
        for (long unit = 0; unit < n; unit += GROUP) {
            const long last = std::min(n, unit + GROUP);
            Soon<T> soon;
            for (long u = unit; u < last; ++u) {
                const long row = u * m + first;
                for (int g = 0; g < GATES; ++g) soon.add(of(step.Z, g, size, row));
                for (const T* A : {step.H_next, step.C_next}) soon.add(of(A, 0, 0, row));
                soon.add(of(step.C, 0, 0, row));
            }
            panel_tiles<T, ROWS_EACH, N>((last - unit + UNITS - 1) / UNITS, K - begin, U + unit * K * GATES + begin * ROWS_EACH,
                                         K * ROWS_EACH, h + begin * WIDTH, spread ? spread + begin * ROWS_EACH : nullptr, sums,
                                         false, soon);
            for (long u = unit; u < last; ++u) {
                V<T> before[N], a[N];
                for (int j = 0; j < N; ++j) {
                    at[j].unit = u, at[j].row = u * m + first + j * L;
                    before[j] = load(h + u * WIDTH + j * L);
                }
                Cell::template forward<N>(at, step, sums + (u - unit) * GATES * WIDTH, before, a);
                for (int j = 0; j < N; ++j) {
                    V<T> made = at[j].keep ? a[j] : before[j];
                    at[j].store(step.H_next, made);
                    store(next + u * WIDTH + j * L, made);
                }
            }
        }
    }
}

// sums (R, N vectors), rows `wide` apart, += dZ of R rows and so many steps, WIDTH columns a row, times `turned`, of each
// step so many columns' rows of N vectors; = where nothing was summed before.
template <class T, int R, int N, int WIDTH>
__attribute__((noinline)) void gradient_tile(long steps, long columns, const T* const* dZ, long first, const T* turned, T* sums,
                                             long wide, bool add) {
    constexpr int L = LANES<T>;
    V<T> c[R][N] = {};
    for (long step = 0; step < steps; ++step) {
        const T* A = dZ[step] + first * WIDTH;
        for (long k = 0; k < columns; ++k, turned += N * L) {
            V<T> b[N];
#pragma GCC unroll 8
            for (int j = 0; j < N; ++j) b[j] = load(turned + j * L);
#pragma GCC unroll 8
            for (int i = 0; i < R; ++i) {
                V<T> a = splat(A[i * WIDTH + k]);
#pragma GCC unroll 8
                for (int j = 0; j < N; ++j) c[i][j] += a * b[j];
            }
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < N; ++j) {
            T* to = sums + i * wide + j * L;
            store(to, add ? load(to) + c[i][j] : c[i][j]);
        }
}

template <class T, int R, int N, int WIDTH, class... Rest> void gradient_rows(long rows, Rest... rest) {
    if constexpr (R > 1)
        if (rows < R) return gradient_rows<T, R - 1, N, WIDTH>(rows, rest...);
    gradient_tile<T, R, N, WIDTH>(rest...);
}

// A thread's sums of dU, dW and db beside each other, (G n, wide), the last two from column `inputs` on. Of several steps
// the [h; X; 1] are gathered, turned, so that the sums are loaded and stored once for all of them.
template <class T> struct Gradient {
    static constexpr long L = LANES<T>, STRIP = VECTORS * L;
    const SequenceBackward<T>& s;
    const long inputs, wide, rows;
    Gradient(const SequenceBackward<T>& s)
        : s(s), inputs((s.n + L - 1) / L * L), wide(inputs + (s.n_x + L) / L * L), rows(GATES[s.cell] * s.n) {}

    // The panel's [h; X; 1]ᵀ of step t after those of `before` steps: strips of at most VECTORS vectors across, each of
    // them rows of `room` columns.
    void turn(long t, long first, long columns, long before, T* turned, long room) const {
        const T *h = s.H + t * s.n * s.m + first, *X = s.X + t * s.n_x * s.m + first;
        for (long i = 0; i < wide; i += L) {
            const long strip = i / STRIP * STRIP, across = std::min(STRIP, wide - strip);
            for (long j = 0; j < columns; j += L) {
                const long k = std::min(L, columns - j);
                auto row = [&](long r) {
                    const long input = i + r - inputs;
                    if (i + r < s.n) return load_part(h + (i + r) * s.m + j, k);
                    if (input >= 0 && input < s.n_x) return load_part(X + input * s.m + j, k);
                    return splat(T(input == s.n_x));
                };
                transpose_square<T>(row, turned + strip * room + (before * columns + j) * across + i - strip, across);
            }
        }
    }
    // += dZ of so many steps, each (G n, N vectors), times what was turned. A last step that starts from zeros adds nothing
    // to dU.
    template <int N> void add(long steps, bool zeros, long columns, const T* const* dZ, const T* turned, long room, T* sums, bool more) const {
        for (long strip = 0; strip < wide; strip += STRIP) {
            const long count = steps - (zeros && strip + STRIP <= inputs);
            for (long row = 0; row < rows; row += ROWS) {
                auto tile = [&](auto vectors) {
                    gradient_rows<T, ROWS, vectors(), N * L>(rows - row, count, columns, dZ, row, turned + strip * room,
                                                             sums + row * wide + strip, wide, more);
                };
                switch (std::min(STRIP, wide - strip) / L) {
                    case 1: tile(std::integral_constant<int, 1>()); break;
                    case 2: tile(std::integral_constant<int, 2>()); break;
#if defined(__AVX512F__)
                    case 3: tile(std::integral_constant<int, 3>()); break;
                    default: tile(std::integral_constant<int, 4>()); break;
#endif
                }
            }
        }
    }
    // Whether the panel's h is zero where the sequence starts.
    bool zeros(long t, long first, long columns) const {
        const T* h = s.H + first;
        bool all = t == 0;
        for (long u = 0; all && u < s.n; ++u) all = std::all_of(h + u * s.m, h + u * s.m + columns, [](T a) { return a == 0; });
        return all;
    }
};

// The tile of Uᵀ dV of one step is the gradient of the step before's A, and goes through its gates at once.
template <class T, class Cell, int N>
void backward_panel(const SequenceBackward<T>& s, const T* U, T* gradient, bool more, long first, long columns) {
    constexpr long L = LANES<T>, WIDTH = N * L, GATES = Cell::GATES, GROUP = BLOCKS<N> * HEIGHT;
    constexpr long GATHERED = std::max(2, 8 / N);  // steps whose dV is kept, and dZ then added to the gradient
    const long n = s.n, m = s.m, size = n * m, K = GATES * n;
    const long rounded = (n + HEIGHT - 1) / HEIGHT * HEIGHT, parts = (K * N + PART - 1) / PART;
    T* panels = scratch<T, 8>((GATHERED * K + 2 * n + rounded) * WIDTH + K * HEIGHT);
    T *passed = panels + GATHERED * K * WIDTH, *dC = passed + n * WIDTH, *sums = dC + n * WIDTH;
    T* spread = SPREADS<T, HEIGHT, N> && columns == 1 ? sums + rounded * WIDTH : nullptr;
    // Sums of Uᵀ dV, so much of dV at a time that it stays in the first cache for all units.
    auto tiles = [&](const T* panel, long part, long unit, const Soon<T>& soon) {
        long k = K * part / parts, end = K * (part + 1) / parts;
        panel_tiles<T, HEIGHT, N>((std::min(GROUP, n - unit) + HEIGHT - 1) / HEIGHT, end - k, U + unit * K + k * HEIGHT, K * HEIGHT,
                                  panel + k * WIDTH, spread ? spread + k * HEIGHT : nullptr, sums + unit * WIDTH, part > 0, soon);
    };
    auto product = [&](const T* panel, long part) {
        for (long unit = 0; unit < n; unit += GROUP) tiles(panel, part, unit, Soon<T>());
    };
    std::fill(passed, sums + rounded * WIDTH, T(0));
    const bool passes = GATES == 3 || s.mask;  // whether a gradient reaches h beside U
    long k[N];
    for (int j = 0; j < N; ++j) k[j] = std::min(L, columns - j * L);
    for (long u = 0; u < n; ++u)
        for (int j = 0; j < N; ++j) {
            store(sums + u * WIDTH + j * L, load_part(s.dh + u * m + first + j * L, k[j]));
            if (s.dC) store(dC + u * WIDTH + j * L, load_part(s.dC + u * m + first + j * L, k[j]));
        }
    const Gradient<T> of_parameters(s);
    const long room = GATHERED * columns + L;  // what is turned beyond the last column is overwritten, or never read
    T* turned = s.X ? scratch<T, 6>(of_parameters.wide * room) : nullptr;
    const T* dZ_of[GATHERED];
    for (long t = s.steps - 1; t >= 0; --t) {
        const long place = (s.steps - 1 - t) % GATHERED;
        const T* after = panels + (place + GATHERED - 1) % GATHERED * K * WIDTH;  // dV of the step after
        T* own = panels + place * K * WIDTH;
        const Step<T, const T> step{of(s.Z, t, K * m),    of(s.v, t, size),     of(s.H, t, size), of(s.C, t, size),
                                    of(s.H, t + 1, size), of(s.C, t + 1, size), nullptr,          nullptr};
        const T* dA = of(s.dA, t, size);
        T *dZ = of(s.dZ, t, K * m), *dV = s.dV == s.dZ ? nullptr : of(s.dV, t, K * m);
        I<T> keep[N];
        for (int j = 0; j < N; ++j) keep[j] = kept<T>(of(s.mask, t, m), first + j * L, k[j]);
        if (spread && t + 1 < s.steps) spread_column<T, HEIGHT>(K, after, spread);
        if (t + 1 < s.steps)
            for (long part = 0; part + 1 < parts; ++part) product(after, part);
        for (long unit = 0; unit < n; unit += GROUP) {
            const long last = std::min(n, unit + GROUP);
            const T* sum = sums + unit * WIDTH;
            if (t + 1 < s.steps) {
                Soon<T> soon;
                for (long u = unit; u < last; ++u) {  // what the gates touch comes while the last sums are made
                    const long row = u * m + first;
                    for (int g = 0; g < GATES; ++g) soon.add(of(step.Z, g, size, row));
                    for (const T* A : {step.C, step.v, step.H, dA}) soon.add(of(A, 0, 0, row));
                }
                tiles(after, parts - 1, unit, soon);
            }
            for (long u = unit; u < last; ++u)
                for (int j = 0; j < N; ++j) {
                    const Place<T> at{u, u * m + first + j * L, size, k[j], keep[j]};
                    T *on = passed + u * WIDTH + j * L, *c = dC + u * WIDTH + j * L;
                    V<T> d = load(sum + ((u - unit) * N + j) * L), d_cell = load(c), gates[GATES], through[GATES];
                    if (passes) d += load(on);
                    if (dA) d += at.load(dA);
                    V<T> direct = Cell::backward(at, step, d, d_cell, gates, through);
                    if (passes) store(on, at.keep ? direct : d);
                    store(c, d_cell);
                    for (int g = 0; g < GATES; ++g) {
                        V<T> goes = at.keep ? through[g] : V<T>{};
                        store(own + (g * n + u) * WIDTH + j * L, goes);
                        if (dZ) at.store(dZ, g, at.keep ? gates[g] : V<T>{});
                        if (dV) at.store(dV, g, goes);
                    }
                }
        }
        if (!s.X) continue;
        dZ_of[place] = own;
        of_parameters.turn(t, first, columns, place, turned, room);
        if (place + 1 < GATHERED && t > 0) continue;
        of_parameters.template add<N>(place + 1, of_parameters.zeros(t, first, columns), columns, dZ_of, turned, room, gradient, more);
        more = true;
    }
    if (!s.to_start) return;
    const T* first_dV = panels + std::max(0L, s.steps - 1) % GATHERED * K * WIDTH;
    if (spread && s.steps) spread_column<T, HEIGHT>(K, first_dV, spread);
    for (long part = 0; s.steps && part < parts; ++part) product(first_dV, part);
    for (long u = 0; u < n; ++u)
        for (int j = 0; j < N; ++j) {
            const long row = u * m + first + j * L;
            store_part(s.dh + row, load(passed + u * WIDTH + j * L) + load(sums + u * WIDTH + j * L), k[j]);
            if (s.dC) store_part(s.dC + row, load(dC + u * WIDTH + j * L), k[j]);
        }
}

// Panels of nearly equal width, as many as keep the threads busy, in as many shares as threads take part:
// f(share, integral N, first column, columns), and how many shares there can be.
inline long shares(double cost) { return cost < WORTH_A_THREAD ? 1 : threads(); }

template <class T, class F> void each_panel(long m, long workers, F f) {
    constexpr long L = LANES<T>;
    long vectors = (m + L - 1) / L, parts = (vectors + VECTORS - 1) / VECTORS;
    parts = std::min(vectors, (parts + workers - 1) / workers * workers);
    auto part = [&](long share, long p) {
        long first = vectors * p / parts * L, columns = std::min(m, vectors * (p + 1) / parts * L) - first;
        switch ((columns + L - 1) / L) {
            case 1: return f(share, std::integral_constant<int, 1>(), first, columns);
            case 2: return f(share, std::integral_constant<int, 2>(), first, columns);
#if defined(__AVX512F__)
            case 3: return f(share, std::integral_constant<int, 3>(), first, columns);
            default: return f(share, std::integral_constant<int, 4>(), first, columns);
#endif
        }
    };
    auto share = [&](long w) {
        for (long p = parts * w / workers; p < parts * (w + 1) / workers; ++p) part(w, p);
    };
    if (workers > 1) return parallel(workers, share);
    share(0);
}

// [U W b], (G n, K), in blocks of units, each k by k: the gates of the first unit, of the second, …; zeros beyond the last.
template <class T> const T* packed(const Sequence<T>& s, long gates, long units) {
    long blocks = (s.n + units - 1) / units, R = gates * units, K = meeting(s);
    T* to = scratch<T, 7>(blocks * K * R);
    split(blocks, 4.0 * blocks * K * R, 1, [=, &s](long begin, long end) {
        for (long each = begin * R; each < end * R; ++each) {
            const long b = each / R, r = each % R, unit = b * units + r / gates, row = r % gates * s.n + unit;
            T* k = to + b * K * R + r;
            auto put = [&](const T* from, long count) {
                for (long i = 0; i < count; ++i, k += R) *k = unit < s.n && from ? from[i] : T(0);
            };
            put(s.U + row * s.n, s.n);
            if (s.X) put(s.W + row * s.n_x, s.n_x), put(s.b ? s.b + row : nullptr, 1);
        }
    });
    return to;
}

// Uᵀ the same way: blocks of HEIGHT units, for each of them all gates of all units.
template <class T> const T* packed_transposed(long n, long gates, const T* U) {
    long blocks = (n + HEIGHT - 1) / HEIGHT, K = gates * n;
    T* packed = scratch<T, 7>(blocks * K * HEIGHT);
    split(blocks, 8.0 * blocks * K * HEIGHT, 1, [=](long begin, long end) {
        T* to = packed + begin * K * HEIGHT;
        for (long b = begin; b < end; ++b)
            for (long k = 0; k < K; ++k)
                for (long r = 0; r < HEIGHT; ++r) *to++ = b * HEIGHT + r < n ? U[k * n + b * HEIGHT + r] : T(0);
    });
    return packed;
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
        const T* U = packed<T>(s, Cell::GATES, Cell::UNITS);
        long workers = shares(2.0 * s.steps * Cell::GATES * s.n * s.n * s.m);
        each_panel<T>(s.m, workers, [&](long, auto N, long first, long columns) {
            forward_panel<T, Cell, N()>(s, U, first, columns);
        });
    });
}

template <class T> void recurrence_backward(const SequenceBackward<T>& s) {
    of_cell<T>(s.cell, [&](auto cell) {
        using Cell = decltype(cell);
        const T* U = packed_transposed<T>(s.n, Cell::GATES, s.U);
        const long rows = Cell::GATES * s.n, workers = shares(2.0 * s.steps * rows * s.n * s.m);
        const Gradient<T> each(s);
        const long inputs = each.inputs, wide = each.wide, size = s.X ? rows * wide : 0;
        T* gradients = scratch<T, 5>(workers * size);
        std::vector<char> made(workers);  // which of them has sums
        each_panel<T>(s.m, workers, [&](long share, auto N, long first, long columns) {
            backward_panel<T, Cell, N()>(s, U, gradients + share * size, made[share], first, columns);
            made[share] = s.steps > 0;
        });
        if (!s.X) return;
        split(rows, 4.0 * workers * size, 1, [=, &s, &made](long begin, long end) {
            auto mean = [&](long row, long column, long count, T* to) {
                std::fill_n(to, count, T(0));
                for (long w = 0; w < workers; ++w) {
                    const T* from = gradients + w * size + row * wide + column;
                    for (long k = 0; made[w] && k < count; ++k) to[k] += from[k];
                }
                for (long k = 0; k < count; ++k) to[k] /= T(s.m);
            };
            for (long row = begin; row < end; ++row) {
                mean(row, 0, s.n, s.dU + row * s.n);
                mean(row, inputs, s.n_x, s.dW + row * s.n_x);
                mean(row, inputs + s.n_x, 1, s.db + row);
            }
        });
    });
}

}  // namespace
}  // namespace pellucid
