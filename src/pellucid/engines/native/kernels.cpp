// The kernels of one instruction set: this file is compiled once for each, with PELLUCID_ISA naming it.
#include "kernels.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <optional>
#include <type_traits>
#include <vector>

#include "gemm.h"
#include "memory.h"
#include "pool.h"

namespace pellucid {
namespace {

constexpr double WORTH_A_THREAD = 3e5;  // operations below which waking a thread costs more than it saves
constexpr long CHUNK = 1 << 14;         // elements an elementwise kernel hands to a thread at a time

template <class T> struct Scratch {
    std::vector<T> memory;
    void grow(size_t count) {
        const long before = memory.size();
        std::vector<T>(count).swap(memory);
        count_scratch((long(count) - before) * long(sizeof(T)));
    }
    ~Scratch() { count_scratch(-long(memory.size() * sizeof(T))); }
};

// Memory that a thread keeps for its next call.
template <class T, int WHICH> T* scratch(size_t count) {
    thread_local Scratch<T> kept;
    constexpr size_t LINE = 64 / sizeof(T);
    if (kept.memory.size() < count + LINE) kept.grow(count + LINE);
    return kept.memory.data() + (LINE - reinterpret_cast<uintptr_t>(kept.memory.data()) / sizeof(T) % LINE) % LINE;
}

template <class F> void split(long n, double cost, long unit, F f) {
    long parts = cost < WORTH_A_THREAD ? 1 : std::min<long>(threads(), n / unit);
    if (parts <= 1) return f(0, n);
    long units = n / unit;  // what is left over goes with the last, so that no part is shorter than a unit
    parallel(parts, [&](long part) {
        f(units * part / parts * unit, part + 1 == parts ? n : units * (part + 1) / parts * unit);
    });
}

// The parts into which rows are shared out where there are too few blocks of units and channels for the threads; each
// sums for itself, into `total` in turn at the end.
template <class T, class F> void summed_parts(long blocks, double cost, long rows, long n, T* total, F f) {
    long workers = cost < WORTH_A_THREAD ? 1 : threads();
    long parts = blocks >= 2 * workers ? 1 : std::max(1L, std::min(workers, rows));
    std::vector<T> sums(parts > 1 ? size_t(parts) * n : 0);
    parallel(blocks * parts, [&](long each) {
        long part = each % parts;
        f(each / parts, rows * part / parts, rows * (part + 1) / parts, parts > 1 ? sums.data() + part * n : total);
    });
    for (long i = 0; parts > 1 && i < n; ++i) {
        total[i] = 0;
        for (long part = 0; part < parts; ++part) total[i] += sums[part * n + i];
    }
}

template <class F> void elementwise(long n, F f, long chunk = CHUNK) {
    if (n <= chunk) return f(0, n);
    parallel((n + chunk - 1) / chunk, [&](long part) { f(part * chunk, std::min(n, (part + 1) * chunk)); });
}

}  // namespace
}  // namespace pellucid

#include "columns.h"
#include "pairs.h"

namespace pellucid {
namespace {

// --- matrix products ----------------------------------------------------------------------------------------------

// L rows of L numbers, turned: each of log2 L rounds deals two halves like cards.
template <class T, class Row> inline void transpose_square(Row row, T* B, long b_row) {
    constexpr int L = LANES<T>;
    V<T> rows[L], dealt[L];
    I<T> low, high;
    for (int i = 0; i < L; ++i) low[i] = i / 2 + i % 2 * L, high[i] = low[i] + L / 2;
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) rows[i] = row(i);
#pragma GCC unroll 4
    for (int round = 1; round < L; round *= 2) {
#pragma GCC unroll 8
        for (int i = 0; i < L / 2; ++i) {
            dealt[2 * i] = __builtin_shuffle(rows[i], rows[i + L / 2], low);
            dealt[2 * i + 1] = __builtin_shuffle(rows[i], rows[i + L / 2], high);
        }
#pragma GCC unroll 16
        for (int i = 0; i < L; ++i) rows[i] = dealt[i];
    }
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) store(B + i * b_row, rows[i]);
}

template <class T> void transpose(long rows, long columns, const T* A, long a_row, T* B, long b_row) {
    constexpr long L = LANES<T>;
    for (long i = 0; i < rows; i += L)
        for (long j = 0; j < columns; j += L) {
            if (i + L <= rows && j + L <= columns) {
                transpose_square<T>([=](long r) { return load(A + (i + r) * a_row + j); }, B + j * b_row + i, b_row);
                continue;
            }
            for (long jj = j; jj < std::min(columns, j + L); ++jj)
                for (long ii = i; ii < std::min(rows, i + L); ++ii) B[jj * b_row + ii] = A[ii * a_row + jj];
        }
}

// Dots of R rows of A with N rows of B, both contiguous over K.
template <class O, int R, int N>
inline void dots(long K, const O* A, long a_row, const O* B, const long* b_offset, V<Sum<O>> (&c)[R][N]) {
    constexpr int L = LANES<O>;
    auto step = [&](const V<O>(&a)[R], const V<O>(&b)[N]) {
#pragma GCC unroll 8
        for (int i = 0; i < R; ++i)
#pragma GCC unroll 8
            for (int j = 0; j < N; ++j) add_product<O>(c[i][j], a[i], b[j]);
    };
    long k = 0;
    for (; k + L <= K; k += L) {
        V<O> a[R], b[N];
#pragma GCC unroll 8
        for (int i = 0; i < R; ++i) a[i] = load(A + i * a_row + k);
#pragma GCC unroll 8
        for (int j = 0; j < N; ++j) b[j] = load(B + b_offset[j] + k);
        step(a, b);
    }
    if (k < K) {
        V<O> a[R], b[N];
#pragma GCC unroll 8
        for (int i = 0; i < R; ++i) a[i] = load_some(A + i * a_row + k, K - k);
#pragma GCC unroll 8
        for (int j = 0; j < N; ++j) b[j] = load_some(B + b_offset[j] + k, K - k);
        step(a, b);
    }
}

template <class O, class T = Sum<O>>
void matmul_transposed(long M, long N, long K, const O* A, const O* B, T* C, T scale) {
    split(M, 2.0 * M * N * K, 4, [=](long begin, long end) {
        for (long j = 0; j < N; j += 4)
            for (long i = begin; i < end; i += 4) {
                long rows = std::min(4L, end - i), columns = std::min(4L, N - j);
                if (rows == 4 && columns == 4) {
                    V<T> c[4][4] = {};
                    const long offset[4] = {0, K, 2 * K, 3 * K};
                    dots<O, 4, 4>(K, A + i * K, K, B + j * K, offset, c);
                    for (int r = 0; r < 4; ++r)
                        for (int s = 0; s < 4; ++s) C[(i + r) * N + j + s] = scale * sum<T>(c[r][s]);
                } else {
                    const long offset[1] = {0};
                    for (long s = 0; s < columns && rows == 4; ++s) {  // four sums at a time: none waits for itself
                        V<T> c[4][1] = {};
                        dots<O, 4, 1>(K, A + i * K, K, B + (j + s) * K, offset, c);
                        for (int r = 0; r < 4; ++r) C[(i + r) * N + j + s] = scale * sum<T>(c[r][0]);
                    }
                    for (long r = 0; r < rows && rows < 4; ++r)
                        for (long s = 0; s < columns; ++s) {
                            V<T> c[1][1] = {};
                            dots<O, 1, 1>(K, A + (i + r) * K, K, B + (j + s) * K, offset, c);
                            C[(i + r) * N + j + s] = scale * sum<T>(c[0][0]);
                        }
                }
            }
    });
}

template <class O, class T = Sum<O>>
void matmul(long M, long N, long K, const O* A, long a_row, long a_col, const O* B, T* C, const Sum<O>* bias, T scale) {
    if (N < LANES<T>) {
        if (a_col == 1) {  // few examples: dots along the rows of W
            const O* columns = B;
            if (N > 1) {
                O* turned = scratch<O, 0>(size_t(N) * K);
                transpose(K, N, B, N, turned, K);
                columns = turned;
            }
            matmul_transposed<O>(M, N, K, A, columns, C, scale);
        } else {  // C = Aᵀ-strided: the same product with the roles of rows and columns exchanged
            T* turned = scratch<T, 0>(size_t(N) * M);
            // A here is Wᵀ: its k-th column is contiguous over the M rows, so it can stand as B.
            std::fill(turned, turned + N * M, T(0));
            for (long j = 0; j < N; ++j)
                for (long k = 0; k < K; ++k) {
                    V<O> w = splat(B[k * N + j]);
                    const O* row = A + k * a_col;
                    T* out = turned + j * M;
                    auto add = [w](V<T> sum, V<O> a) { return add_product<O>(sum, w, a), sum; };
                    sweep<T>(M, [&](long i) { store(out + i, add(load(out + i), load(row + i))); },
                             [&](long i, long n) { store_some(out + i, add(load_some(out + i, n), load_some(row + i, n)), n); });
                }
            transpose(N, M, turned, M, C, N);
            if (scale != 1)
                for (long i = 0; i < M * N; ++i) C[i] *= scale;
        }
        if (bias)
            for (long i = 0; i < M; ++i)
                for (long j = 0; j < N; ++j) C[i * N + j] += bias[i];
        return;
    }
    std::vector<long>& offset = [&]() -> std::vector<long>& {
        thread_local std::vector<long> rows;
        rows.resize(K);
        for (long k = 0; k < K; ++k) rows[k] = k * N;
        return rows;
    }();
    const long* rows = offset.data();
    double cost = 2.0 * M * N * K;
    constexpr long WIDTH = VECTORS * LANES<T>;
    if (N >= 2 * WIDTH * threads() || M < 2 * ROWS)
        split(N, cost, WIDTH, [=](long begin, long end) {
            block<O>(M, end - begin, K, A, a_row, a_col, B + begin, rows, C + begin, N, bias, scale);
        });
    else
        split(M, cost, ROWS, [=](long begin, long end) {
            block<O>(end - begin, N, K, A + begin * a_row, a_row, a_col, B, rows, C + begin * N, N,
                     bias ? bias + begin : nullptr, scale);
        });
}

// dW = scale dZ Aᵀ as an outer product: A is turned first, so that the long axis is contiguous.
template <class O, class T = Sum<O>>
void affine_dW(long n, long n_prev, long m, const O* dZ, const O* A_prev, T* dW, T scale) {
    O* turned = scratch<O, 6>(size_t(n_prev) * m);
    split(n_prev, 2.0 * n_prev * m, 16, [=](long begin, long end) {
        transpose(end - begin, m, A_prev + begin * m, m, turned + begin, n_prev);
    });
    matmul<O>(n, n_prev, m, dZ, m, 1, turned, dW, nullptr, scale);
}

template <class O, class T = Sum<O>>
void matmul_steps(long steps, long M, long N, long K, const O* A, long a_row, long a_col, const O* B, T* C, const T* bias) {
    auto step = [=](long t) { matmul<O>(M, N, K, A, a_row, a_col, B + t * K * N, C + t * M * N, bias, T(1)); };
    if (steps > 1 && 2.0 * steps * M * N * K >= WORTH_A_THREAD) return parallel(steps, step);
    for (long t = 0; t < steps; ++t) step(t);
}

template <class T> void row_means(long rows, long columns, const T* A, T divisor, T* mean) {
    split(rows, 1.0 * rows * columns, 1, [=](long begin, long end) {
        for (long r = begin; r < end; ++r) {
            const T* row = A + r * columns;
            V<T> s[4] = {};
            long i = 0;
            for (; i + 4 * LANES<T> <= columns; i += 4 * LANES<T>)
                for (int j = 0; j < 4; ++j) s[j] += load(row + i + j * LANES<T>);
            sweep<T>(columns - i, [&](long k) { s[0] += load(row + i + k); },
                     [&](long k, long n) { s[0] += load_some(row + i + k, n); });
            mean[r] = sum<T>(s[0] + s[1] + (s[2] + s[3])) / divisor;
        }
    });
}

// Σ_t rows of A (steps, rows, columns) / divisor.
template <class T> void affine_db(long steps, long n, long m, const T* dZ, T* db) {
    split(n, 1.0 * steps * n * m, 1, [=](long begin, long end) {
        for (long r = begin; r < end; ++r) {
            V<T> s[2] = {};
            for (long t = 0; t < steps; ++t) {
                const T* row = dZ + (t * n + r) * m;
                sweep<T>(m, [&](long i) { s[i / LANES<T> % 2] += load(row + i); },
                         [&](long i, long k) { s[0] += load_some(row + i, k); });
            }
            db[r] = sum<T>(s[0] + s[1]) / T(m);
        }
    });
}

// --- convolution --------------------------------------------------------------------------------------------------

// n numbers for each of so many columns, columns that lie `step` apart taken to or from columns beside each other.
template <class T> void spaced(long columns, long n, const T* from, long from_step, T* to, long to_step) {
    if (n == 1)
        for (long x = 0; x < columns; ++x) to[x * to_step] = from[x * from_step];
    else
        for (long x = 0; x < columns; ++x) std::memcpy(to + x * to_step * n, from + x * from_step * n, n * sizeof(T));
}

// The image with zeros left and right, and above and below if asked, in scratch memory; itself where there are none. Its
// columns by their remainder of the stride if asked: what a tap sees from all places of a row is then one piece.
template <class T> const T* padded(Geometry& g, const T* A, bool above_and_below = false, bool by_phase = false) {
    long top = above_and_below ? g.top : 0, bottom = above_and_below ? g.bottom : 0, phases = by_phase ? g.sw : 1;
    if (!(g.left | g.right | top | bottom) && phases == 1) return A;
    long each = (g.left + g.W + g.right + phases - 1) / phases, W = phases * each * g.m, H = top + g.H + bottom;
    long left = g.left, columns = g.W, m = g.m, rows = g.H;
    T* P = scratch<T, 1>(size_t(g.C) * H * W);
    split(g.C, 1.0 * g.C * H * W, 1, [=](long begin, long end) {
        for (long c = begin; c < end; ++c) {
            T* plane = P + c * H * W;
            std::fill(plane, plane + top * W, T(0));
            for (long y = 0; y < rows; ++y) {
                T* to = plane + (top + y) * W;
                const T* from = A + (c * rows + y) * columns * m;
                if (phases == 1) {
                    std::fill(to, to + left * m, T(0));
                    std::memcpy(to + left * m, from, columns * m * sizeof(T));
                    std::fill(to + (left + columns) * m, to + W, T(0));
                    continue;
                }
                std::fill(to, to + W, T(0));
                for (long x = 0; x < std::min(phases, columns); ++x) {
                    long place = (left + x) % phases * each + (left + x) / phases;
                    spaced((columns - x + phases - 1) / phases, m, from + x * m, phases, to + place * m, 1);
                }
            }
            std::fill(plane + (top + rows) * W, plane + H * W, T(0));
        }
    });
    g.W = phases * each, g.left = g.right = 0;
    g.H = H, g.top -= top, g.bottom -= bottom;
    if (by_phase) g.sw = 1, g.phases = phases;
    return P;
}

// How far the j-th tap of a row lies from the first.
inline long tap_column(const Geometry& g, long j) { return j * g.dw % g.phases * (g.W / g.phases) + j * g.dw / g.phases; }

// Which taps of a kernel lie on the image, for a window whose first tap lies at `at`.
inline Span seen(long at, long taps, long dilation, long size) {
    long begin = at < 0 ? (-at + dilation - 1) / dilation : 0;
    long end = size > at ? std::min(taps, (size - at + dilation - 1) / dilation) : 0;
    return {begin, std::max(begin, end)};
}

// W (units, channels, taps) as (units, taps, channels).
template <class T> const T* channels_last(long units, long channels, long taps, const T* W) {
    if (channels == 1 || taps == 1) return W;
    T* turned = scratch<T, 4>(size_t(units) * channels * taps);
    split(units, 2.0 * units * channels * taps, 1, [=](long begin, long end) {
        for (long o = begin; o < end; ++o)
            for (long t = 0; t < taps; ++t)
                for (long c = 0; c < channels; ++c) turned[(o * taps + t) * channels + c] = W[(o * channels + c) * taps + t];
    });
    return turned;
}

// Where each channel of each tap lies, from the window's first pixel.
inline void tap_offsets(const Geometry& g, long channels, long* offset) {
    for (long i = 0; i < g.kh; ++i)
        for (long j = 0; j < g.kw; ++j)
            for (long c = 0; c < channels; ++c) *offset++ = ((c * g.H + i * g.dh) * g.W + tap_column(g, j)) * g.m;
}

// An image whose channels are packed row by row, when the places come to them: each row once, and it is used while it is
// in the cache. Of a group's rows those that a window can see are kept.
template <class O> struct Unpacked {
    const Sum<O>* A;
    long channels;  // of a group
};
template <class O> struct Band {
    const Geometry& g;
    const Unpacked<O> image;
    const long deep = operands<O>(image.channels), row = g.W * g.m, window = (g.kh - 1) * g.dh + 1;
    O* rows = scratch<O, 1>(window * deep * row);
    std::vector<long> offset = std::vector<long>(g.kh * g.kw * deep);
    long group = -1, places = -1, end = 0;  // where it is, and the first row that was not met yet
    void move(long to_group, long y) {
        if (group == to_group && places == y) return;
        const long first = y * g.sh - g.top;
        if (group != to_group) end = 0;
        group = to_group, places = y;
        for (end = std::max({end, first, 0L}); end < std::min(g.H, first + window); ++end)
            for (long k = 0; k < deep; ++k) {
                const long c = k * EACH<O>;
                const Sum<O>* from = image.A + ((group * image.channels + c) * g.H + end) * row;
                const Sum<O>* next = c + 1 < image.channels ? from + g.H * row : nullptr;
                pack_across<O>(row, from, next, rows + (end % window * deep + k) * row);
            }
        long* to = offset.data();
        for (long i = 0; i < g.kh; ++i)
            for (long j = 0; j < g.kw; ++j)
                for (long k = 0; k < deep; ++k) *to++ = ((first + i * g.dh) % window * deep + k) * row + j * g.dw * g.m;
    }
};

// Z = W ⋆ A + b for W (units, taps, channels). Taps that lie on padding are left out. With stride 1 the places that see
// all taps of a row, and their examples, are one contiguous axis; with padding the others stand alone.
template <class O, class Image, class T = Sum<O>>
void convolve(const Geometry& g, long units, long groups, const O* W, Image A, const Sum<O>* b, T* Z) {
    long channels = g.C / groups, own = units / groups, K = channels * g.kh * g.kw;
    long row = g.W * g.m, plane = g.out_h * g.out_w * g.m;
    std::vector<long> offsets(K);
    tap_offsets(g, channels, offsets.data());
    const long* offset = offsets.data();

    struct Strip {
        long x, columns;
        Span taps;
    };
    std::vector<Strip> strips;
    long most = groups * g.out_h >= 4 * threads() ? plane : 1024;  // columns of a strip: few rows are cut up
    for (long x = 0; x < g.out_w;) {
        Span taps = seen(x * g.sw - g.left, g.kw, g.dw, g.W);
        long next = x + 1;
        if (g.sw == 1 && taps.begin == 0 && taps.end == g.kw)
            while (next < g.out_w && (next - x) * g.m < most && seen(next - g.left, g.kw, g.dw, g.W).end == g.kw) ++next;
        strips.push_back({x, (next - x) * g.m, taps});
        x = next;
    }
    long in_row = long(strips.size());
    const Strip* strip = strips.data();
    split(groups * g.out_h * in_row, 2.0 * units * K * plane, 1, [=, &g](long begin, long end) {
        std::vector<Span> spans;
        std::optional<Band<O>> band;
        if constexpr (std::is_same_v<Image, Unpacked<O>>) band.emplace(Band<O>{g, A});
        for (long each = begin; each < end; ++each) {
            long group = each / (g.out_h * in_row), y = each / in_row % g.out_h;
            auto [x, columns, across] = strip[each % in_row];
            Span down = seen(y * g.sh - g.top, g.kh, g.dh, g.H);
            spans.clear();
            if (across.begin == 0 && across.end == g.kw)
                spans.push_back({down.begin * g.kw * channels, down.end * g.kw * channels});
            else
                for (long i = down.begin; i < down.end; ++i)
                    spans.push_back({(i * g.kw + across.begin) * channels, (i * g.kw + across.end) * channels});
            const O* rows;
            if constexpr (std::is_same_v<Image, Unpacked<O>>) band->move(group, y), rows = band->rows;
            else rows = A + (group * channels * g.H + y * g.sh - g.top) * row;
            block<O>(own, columns, spans.data(), long(spans.size()), W + group * own * K, K, 1,
                     rows + (x * g.sw - g.left) * g.m, band ? band->offset.data() : offset,
                     Z + group * own * plane + (y * g.out_w + x) * g.m, plane, b ? b + group * own : nullptr, T(1), false,
                     own >= 4 * ROWS && !band);
        }
    });
}

// Where a row of places is shorter than a tile, the padded image as one axis, with stride 1: what is computed between the
// end of one row of places and the beginning of the next is thrown away.
template <class T> bool as_one_axis(const Geometry& g) {
    long W = g.left + g.W + g.right;
    return g.sh == 1 && g.sw == 1 && g.out_w * g.m < VECTORS * LANES<T> && ((g.out_h - 1) * W + g.out_w) * g.m >= LANES<T>;
}

template <class O, class T = Sum<O>>
void convolve_as_one_axis(const Geometry& g, long units, long groups, const O* W, const O* P, const Sum<O>* b, T* Z) {
    long channels = g.C / groups, own = units / groups, K = channels * g.kh * g.kw;
    long row = g.W * g.m, columns = (g.out_h - 1) * row + g.out_w * g.m, places = g.out_w * g.m;
    std::vector<long> offsets(K);
    tap_offsets(g, channels, offsets.data());
    const long* offset = offsets.data();
    T* made = scratch<T, 3>(size_t(units) * columns);
    split(columns, 2.0 * units * K * columns, VECTORS * LANES<T>, [=](long begin, long end) {
        for (long group = 0; group < groups; ++group)
            block<O>(own, end - begin, K, W + group * own * K, K, 1, P + group * channels * g.H * row + begin, offset,
                     made + group * own * columns + begin, columns, b ? b + group * own : nullptr, T(1));
    });
    for (long o = 0; o < units; ++o)
        for (long y = 0; y < g.out_h; ++y)
            std::memcpy(Z + (o * g.out_h + y) * places, made + o * columns + y * row, places * sizeof(T));
}

// From so many vectors of examples on, the places that see padding are computed alone; a padded image serves for fewer.
template <class T> bool alone(const Geometry& g) { return g.m >= 2 * LANES<T>; }

// The same for rows shorter than a vector: the examples are filled up with zeros.
template <class T> long widened(const Geometry& g, bool by_phase = false) {
    long row = g.sw == 1 || by_phase ? g.out_w : 1;
    return row * g.m >= LANES<T> ? g.m : (LANES<T> + row - 1) / row;
}

template <class T> void spread(long n, long m, long wide, const T* A, T* B) {
    for (long i = 0; i < n; ++i) {
        std::memcpy(B + i * wide, A + i * m, m * sizeof(T));
        std::fill(B + i * wide + m, B + (i + 1) * wide, T(0));
    }
}
template <class T> void narrow(long n, long m, long wide, const T* B, T* A) {
    for (long i = 0; i < n; ++i) std::memcpy(A + i * m, B + i * wide, m * sizeof(T));
}

}  // namespace
}  // namespace pellucid

#include "winograd.h"

namespace pellucid {
namespace {

// An image's channels as operands.
template <class O> const O* channels_of(long groups, long n, long columns, const Sum<O>* A) {
    if constexpr (std::is_same_v<O, Sum<O>>) return A;
    else return across<O, 8>(groups, n, columns, A);
}

// A convolution of an image whose places with padding stand alone.
template <class O, class T = Sum<O>>
void convolve_alone(const Geometry& g, long units, long groups, long channels, const O* W, const Sum<O>* A, const Sum<O>* b,
                    T* Z) {
    if constexpr (std::is_same_v<O, T>) convolve<O>(g, units, groups, W, A, b, Z);
    else convolve<O>(g, units, groups, W, Unpacked<O>{A, channels}, b, Z);
}

// W (units, channels, taps).
template <class O, class T = Sum<O>>
void convolution(const Geometry& given, long units, long groups, const Sum<O>* filters, const Sum<O>* A_prev, const Sum<O>* b,
                 T* Z) {
    bool by_phase = given.sw > 1 && given.m % (VECTORS * LANES<T>) != 0;
    long wide = widened<T>(given, by_phase), channels = given.C / groups, taps = given.kh * given.kw;
    if (worth_points<O>(given, units, groups))
        return convolve_at_points<O>(given, units, groups, channels_last(units, channels, taps, filters), A_prev, b, Z);
    const O* W = filters_of<O>(units * taps, channels, channels_last(units, channels, taps, filters));
    Geometry g = given;
    g.C = groups * operands<O>(channels);
    if (wide == given.m && alone<T>(g) && !by_phase && !as_one_axis<T>(g))
        return convolve_alone<O>(g, units, groups, channels, W, A_prev, b, Z);
    const O* A = channels_of<O>(groups, channels, g.H * g.W * g.m, A_prev);
    if (as_one_axis<T>(g)) {
        const O* P = padded<O>(g, A, true);
        convolve_as_one_axis<O>(g, units, groups, W, P, b, Z);
        return;
    }
    if (wide == given.m) {
        const O* P = padded<O>(g, A, false, by_phase);
        convolve<O>(g, units, groups, W, P, b, Z);
        return;
    }
    g.m = wide;
    O* image = scratch<O, 2>(size_t(g.C) * g.H * g.W * wide);
    T* made = scratch<T, 3>(size_t(units) * g.out_h * g.out_w * wide);
    spread(g.C * g.H * g.W, given.m, wide, A, image);
    const O* P = padded<O>(g, image, false, by_phase);
    convolve<O>(g, units, groups, W, P, b, made);
    narrow(units * g.out_h * g.out_w, given.m, wide, made, Z);
}

// A convolution with stride 1 of a framed image; its padding may be negative, which cuts the image.
template <class O, class T = Sum<O>>
void convolve_framed(Geometry g, long units, long groups, const O* W, const O* A, T* Z) {
    bool one_axis = as_one_axis<T>(g);
    long m = g.m, wide = one_axis ? m : widened<T>(g);
    long H = g.H + g.top + g.bottom, columns = g.W + g.left + g.right;
    O* frame = scratch<O, 1>(size_t(g.C) * H * columns * wide);
    split(g.C, 1.0 * g.C * H * columns * wide, 1, [&](long begin, long end) {
        for (long c = begin; c < end; ++c) {
            O* plane = frame + c * H * columns * wide;
            std::fill(plane, plane + H * columns * wide, O(0));
            for (long y = std::max(0L, -g.top); y < std::min(g.H, H - g.top); ++y) {
                const O* from = A + (c * g.H + y) * g.W * m;
                long x = std::max(0L, -g.left), end = std::min(g.W, columns - g.left);
                O* to = plane + ((g.top + y) * columns + g.left + x) * wide;
                if (wide == m && x < end) std::memcpy(to, from + x * m, (end - x) * m * sizeof(O));
                for (; wide != m && x < end; ++x, to += wide) std::memcpy(to, from + x * m, m * sizeof(O));
            }
        }
    });
    g.H = H, g.W = columns, g.top = g.left = g.bottom = g.right = 0, g.m = wide;
    if (one_axis) return convolve_as_one_axis<O>(g, units, groups, W, frame, nullptr, Z);
    if (wide == m) return convolve<O>(g, units, groups, W, frame, nullptr, Z);
    T* made = scratch<T, 3>(size_t(units) * g.out_h * g.out_w * wide);
    convolve<O>(g, units, groups, W, frame, nullptr, made);
    narrow(units * g.out_h * g.out_w, m, wide, made, Z);
}

// Pixels of one axis of an image, every `stride`-th of them: they see the taps first, first + step, …, and from one to the
// next the places they see are one further.
struct Phase {
    long first, step, taps, dilation;
    long pixel, pixels;  // the first of them and their number
    long before;         // zeros before the places, for the flipped taps
    Phase(long remainder, long kernel, long stride, long dilation, long pad, long size) {
        long common = std::gcd(dilation, stride);
        step = stride / common, this->dilation = dilation / common;
        for (first = 0; first < kernel && first * dilation % stride != remainder;) ++first;
        taps = (std::max(0L, kernel - first) + step - 1) / step;
        long skipped = (pad - remainder + stride - 1) / stride;
        pixel = skipped * stride + remainder - pad;
        pixels = pixel < size ? (size - pixel + stride - 1) / stride : 0;
        before = this->dilation * (taps - 1) + (first * dilation - remainder) / stride - skipped;
    }
    long after(long places) const { return pixels + dilation * (taps - 1) - places - before; }
};

// dA = dZ * W: for each phase of the stride a convolution of dZ with the flipped taps that its pixels see, inputs and
// outputs exchanged.
template <class O, class T = Sum<O>>
void convolution_dA(const Geometry& g, long units, long groups, const Sum<O>* W, const Sum<O>* dZ, T* dA) {
    long channels = g.C / groups, own = units / groups;
    bool dense = g.sh == 1 && g.sw == 1;
    const O* image = alone<T>(g) ? nullptr : channels_of<O>(groups, own, g.out_h * g.out_w * g.m, dZ);
    if (g.kh < g.sh || g.kw < g.sw || g.dh > 1 || g.dw > 1)  // some pixels may see no tap
        std::fill(dA, dA + g.C * g.H * g.W * g.m, T(0));
    for (long each = 0; each < g.sh * g.sw; ++each) {
        Phase down(each / g.sw, g.kh, g.sh, g.dh, g.top, g.H), across(each % g.sw, g.kw, g.sw, g.dw, g.left, g.W);
        long taps = down.taps * across.taps, pixels = down.pixels * across.pixels;
        if (!taps || !pixels) continue;
        T* turned = scratch<T, 4>(size_t(g.C) * own * taps);  // (channels, taps, units)
        split(g.C, 2.0 * g.C * own * taps, 1, [=](long begin, long end) {
            for (long c = begin; c < end; ++c)
                for (long t = 0; t < taps; ++t) {
                    long i = down.first + t / across.taps * down.step, j = across.first + t % across.taps * across.step;
                    const T* w = W + ((c / channels * own * channels + c % channels) * g.kh + i) * g.kw + j;
                    for (long o = 0; o < own; ++o) turned[(c * taps + taps - 1 - t) * own + o] = w[o * channels * g.kh * g.kw];
                }
        });
        Geometry b{groups * own, g.out_h, g.out_w, g.m, down.taps, across.taps, 1, 1, down.dilation, across.dilation,
                   down.before, across.before, down.after(g.out_h), across.after(g.out_w), down.pixels, across.pixels};
        T* made = dense ? dA : scratch<T, 2>(size_t(g.C) * pixels * g.m);
        if (worth_points<O>(b, g.C, groups)) {
            convolve_at_points<O>(b, g.C, groups, turned, dZ, nullptr, made);
        } else {
            b.C = groups * operands<O>(own);
            const O* filters = filters_of<O>(g.C * taps, own, turned);
            if (image) convolve_framed<O>(b, g.C, groups, filters, image, made);
            else convolve_alone<O>(b, g.C, groups, own, filters, dZ, nullptr, made);
        }
        if (!dense)
            split(g.C, 1.0 * g.C * pixels * g.m, 1, [=](long begin, long end) {
                for (long c = begin; c < end; ++c)
                    for (long y = 0; y < down.pixels; ++y)
                        spaced(across.pixels, g.m, made + (c * down.pixels + y) * across.pixels * g.m, 1,
                               dA + ((c * g.H + down.pixel + y * g.sh) * g.W + across.pixel) * g.m, g.sw);
            });
    }
}

// Sums of R rows of dZ with N taps of the image, kept a vector each.
template <class O, int R, int N, class T = Sum<O>>
inline void add_dots(long length, const O* dZ, long plane, const O* A, const long* offset, const long* which, T* sums, long K) {
    constexpr int L = LANES<T>;
    V<T> c[R][N];
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < N; ++j) c[i][j] = load(sums + (i * K + which[j]) * L);
    dots<O, R, N>(length, dZ, plane, A, offset, c);
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < N; ++j) store(sums + (i * K + which[j]) * L, c[i][j]);
}

template <class O, int N, class T = Sum<O>>
inline void add_dots_rows(long rows, long length, const O* dZ, long plane, const O* A, const long* offset, const long* which,
                          T* sums, long K) {
    switch (rows) {
        case 1: return add_dots<O, 1, N>(length, dZ, plane, A, offset, which, sums, K);
        case 2: return add_dots<O, 2, N>(length, dZ, plane, A, offset, which, sums, K);
        case 3: return add_dots<O, 3, N>(length, dZ, plane, A, offset, which, sums, K);
        case 4: return add_dots<O, 4, N>(length, dZ, plane, A, offset, which, sums, K);
        case 5: return add_dots<O, 5, N>(length, dZ, plane, A, offset, which, sums, K);
        default: return add_dots<O, 6, N>(length, dZ, plane, A, offset, which, sums, K);
    }
}

// dW = (1/m) Σ_t dZ Aᵀ, so many steps at a time that the product is worth the loading and storing of its sums.
template <class O, class T = Sum<O>>
void affine_dW_steps(long steps, long n, long n_prev, long m, const O* dZ, const O* A_prev, T* dW) {
    constexpr long L = LANES<O>;
    const long together = std::max(1L, 128 / m), wide = (n_prev + L - 1) / L * L, deep = together * m;
    std::vector<long> offsets(deep);
    for (long k = 0; k < deep; ++k) offsets[k] = k * wide;
    const long* offset = offsets.data();
    summed_parts(1, 2.0 * steps * n * n_prev * m, steps, n * n_prev, dW, [=](long, long first, long last, T* out) {
        T* sums = scratch<T, 5>(n * wide);
        O *turned = scratch<O, 6>(deep * wide), *beside = scratch<O, 1>(n * deep);
        std::fill(sums, sums + n * wide, T(0));
        for (long t = first; t < last; t += together) {
            long count = std::min(together, last - t), K = count * m;
            for (long s = 0; s < count; ++s) transpose(n_prev, m, A_prev + (t + s) * n_prev * m, m, turned + s * m * wide, wide);
            const O* z = dZ + t * n * m;
            for (long s = 0; count > 1 && s < count; ++s)
                for (long i = 0; i < n; ++i) std::memcpy(beside + i * K + s * m, z + (s * n + i) * m, m * sizeof(O));
            Span all{0, K};
            block<O>(n, wide, &all, 1, count > 1 ? beside : z, K, 1, turned, offset, sums, wide, nullptr, T(1), true);
        }
        for (long i = 0; i < n; ++i)
            for (long k = 0; k < n_prev; ++k) out[i * n_prev + k] = sums[i * wide + k] / T(m);
    });
}

// dW[o, c, tap] = (1/m) Σ dZ[o] A[c, shifted by tap] for few channels or units: dots along rows of places and examples.
// Blocks of units and channels are chosen so that what a block reads and its running sums stay in the cache.
template <class O, class T = Sum<O>>
void convolution_dW_dots(Geometry g, long units, long groups, const O* dZ, const O* A, T* dW) {
    constexpr int L = LANES<O>, R = 6, N = REGISTERS == 32 ? 4 : 1;
    const O* P = padded<O>(g, A, false, g.sw > 1);
    long channels = g.C / groups, own = units / groups, taps = g.kh * g.kw;
    long row = g.W * g.m, plane = g.out_h * g.out_w * g.m;
    long length = g.out_w * g.m;
    long unit_block = std::min(own, 24L), channel_block = std::max(1L, std::min(channels, 72 / taps));
    long unit_blocks = (own + unit_block - 1) / unit_block, channel_blocks = (channels + channel_block - 1) / channel_block;
    auto sum_block = [&](long index, long first, long last, T* out) {
        long group = index / (unit_blocks * channel_blocks);
        long o0 = index / channel_blocks % unit_blocks * unit_block, c0 = index % channel_blocks * channel_block;
        long os = std::min(unit_block, own - o0), cs = std::min(channel_block, channels - c0), K = cs * taps;
        T* sums = scratch<T, 5>(size_t(unit_block) * channel_block * taps * L);
        std::fill(sums, sums + os * K * L, T(0));
        std::vector<long> offset(K), which(K);
        for (long y = first; y < last; ++y) {
            Span down = seen(y * g.sh - g.top, g.kh, g.dh, g.H);
            long n = 0;
            for (long c = 0; c < cs; ++c)
                for (long i = down.begin; i < down.end; ++i)
                    for (long j = 0; j < g.kw; ++j, ++n) {
                        offset[n] = (c * g.H + y * g.sh - g.top + i * g.dh) * row + tap_column(g, j) * g.m;
                        which[n] = (c * g.kh + i) * g.kw + j;
                    }
            const O* z = dZ + (group * own + o0) * plane + y * length;
            const O* a = P + (group * channels + c0) * g.H * row;
            for (long k = 0; k < n; k += n - k >= N ? N : 1)
                for (long o = 0; o < os; o += R) {
                    const O* zs = z + o * plane;
                    T* to = sums + o * K * L;
                    if (n - k >= N) add_dots_rows<O, N>(os - o, length, zs, plane, a, &offset[k], &which[k], to, K);
                    else add_dots_rows<O, 1>(os - o, length, zs, plane, a, &offset[k], &which[k], to, K);
                }
        }
        for (long o = 0; o < os; ++o)
            for (long k = 0; k < K; ++k)
                out[(group * own + o0 + o) * channels * taps + c0 * taps + k] = sum<T>(load(sums + (o * K + k) * L)) / g.m;
    };
    summed_parts(groups * unit_blocks * channel_blocks, 2.0 * units * channels * taps * plane, g.out_h,
                 units * channels * taps, dW, sum_block);
}

// The same for many: an outer product over the image turned to channels last, a block of channels at a time.
template <class O, class T = Sum<O>>
void convolution_dW_outer(const Geometry& g, long units, long groups, const O* dZ, const O* A, T* dW) {
    constexpr long L = LANES<O>, CHANNELS = 64, UNITS = 66, LONG = 256;
    long channels = g.C / groups, own = units / groups, taps = g.kh * g.kw;
    long row = g.W * g.m, plane = g.out_h * g.out_w * g.m, pixels = g.H * row;
    long channel_blocks = (channels + CHANNELS - 1) / CHANNELS, unit_blocks = (own + UNITS - 1) / UNITS;
    long wide = ((channels + channel_blocks - 1) / channel_blocks + L - 1) / L * L;  // channels of a block, whole vectors
    long unit_block = (own + unit_blocks - 1) / unit_blocks;
    O* turned = scratch<O, 1>(size_t(groups) * channel_blocks * pixels * wide);
    split(groups * channel_blocks * g.H, 4.0 * g.C * pixels, 1, [=](long begin, long end) {
        for (long each = begin; each < end; ++each) {
            long index = each / g.H, y = each % g.H, c0 = index % channel_blocks * wide;
            long cs = std::max(0L, std::min(wide, channels - c0));
            O* to = turned + (index * pixels + y * row) * wide;
            if (cs < wide) std::fill(to, to + row * wide, O(0));
            transpose(cs, row, A + ((index / channel_blocks * channels + c0) * g.H + y) * row, pixels, to, wide);
        }
    });
    std::vector<long> place(g.out_w * g.m);
    for (long x = 0; x < g.out_w; ++x)
        for (long e = 0; e < g.m; ++e) place[x * g.m + e] = (x * g.sw * g.m + e) * wide;
    auto sum_block = [&](long index, long first, long last, T* out) {
        long group = index / (unit_blocks * channel_blocks), c_block = index % channel_blocks;
        long o0 = index / channel_blocks % unit_blocks * unit_block, c0 = c_block * wide;
        long os = std::max(0L, std::min(unit_block, own - o0)), cs = std::max(0L, std::min(wide, channels - c0));
        T* sums = scratch<T, 5>(size_t(taps) * os * wide);
        std::fill(sums, sums + taps * os * wide, T(0));
        const O* z = dZ + (group * own + o0) * plane;
        const O* a = turned + (group * channel_blocks + c_block) * pixels * wide;
        for (long y = first; y < last; ++y) {
            Span down = seen(y * g.sh - g.top, g.kh, g.dh, g.H);
            for (long p = 0; p < g.out_w * g.m; p += LONG)
                for (long i = down.begin; i < down.end; ++i)
                    for (long j = 0; j < g.kw; ++j) {
                        Span across = seen(j * g.dw - g.left, g.out_w, g.sw, g.W);
                        Span span{std::max(p, across.begin * g.m), std::min(p + LONG, across.end * g.m)};
                        if (span.begin >= span.end) continue;
                        block<O>(os, wide, &span, 1, z + y * g.out_w * g.m, plane, 1,
                                 a + ((y * g.sh - g.top + i * g.dh) * row + (j * g.dw - g.left) * g.m) * wide, place.data(),
                                 sums + (i * g.kw + j) * os * wide, wide, nullptr, T(1), true);
                    }
        }
        for (long o = 0; o < os; ++o)
            for (long c = 0; c < cs; ++c)
                for (long t = 0; t < taps; ++t)
                    out[((group * own + o0 + o) * channels + c0 + c) * taps + t] = sums[(t * os + o) * wide + c] / T(g.m);
    };
    summed_parts(groups * unit_blocks * channel_blocks, 2.0 * units * channels * taps * plane, g.out_h,
                 units * channels * taps, dW, sum_block);
}

template <class O, class T = Sum<O>>
void convolution_dW(const Geometry& g, long units, long groups, const O* dZ, const O* A, T* dW) {
    if constexpr (EACH<O> == 1)  // pairs were made because it does not pay
        if (worth_points<O>(g, units, groups, true)) return convolution_dW_at_points<O>(g, units, groups, dZ, A, dW);
    if (g.C / groups >= LANES<T> && units / groups >= 2 * ROWS) convolution_dW_outer<O>(g, units, groups, dZ, A, dW);
    else convolution_dW_dots<O>(g, units, groups, dZ, A, dW);
}

}  // namespace
}  // namespace pellucid

#include "bfloat16.h"

namespace pellucid {
namespace {

// --- pooling ------------------------------------------------------------------------------------------------------

// Calls f(c, y, x, i, j) for each tap that lies on the image, of every place.
template <class F> inline void each_tap(const Geometry& g, long y, long x, F f) {
    for (long i = 0; i < g.kh; ++i) {
        long row = y * g.sh + i * g.dh - g.top;
        if (row < 0 || row >= g.H) continue;
        for (long j = 0; j < g.kw; ++j) {
            long column = x * g.sw + j * g.dw - g.left;
            if (column >= 0 && column < g.W) f(i * g.kw + j, (row * g.W + column) * g.m);
        }
    }
}

template <class F> void each_place(const Geometry& g, F f) {
    split(g.C, 2.0 * g.C * g.H * g.W * g.m * g.kh, 1, [=](long begin, long end) {
        for (long c = begin; c < end; ++c)
            for (long y = 0; y < g.out_h; ++y)
                for (long x = 0; x < g.out_w; ++x) f(c, y, x, ((c * g.out_h + y) * g.out_w + x) * g.m);
    });
}

template <class T> void max_pool_of_one(const Geometry& g, const T* A_prev, T* A, int32_t* taps) {
    each_place(g, [=](long c, long y, long x, long at) {
        const T* image = A_prev + c * g.H * g.W;
        T best = -std::numeric_limits<T>::infinity();
        int32_t which = -1;
        each_tap(g, y, x, [&](int32_t tap, long from) {
            T value = image[from];
            bool larger = (which < 0) | (value > best);
            best = larger | (value != value) ? value : best;
            which = larger ? tap : which;
        });
        A[at] = best;
        taps[at] = std::max(which, 0);
    });
}

template <class T> void max_pool(const Geometry& g, const T* A_prev, T* A, int32_t* taps) {
    if (g.m == 1) return max_pool_of_one(g, A_prev, A, taps);
    each_place(g, [=](long c, long y, long x, long at) {
        const T* image = A_prev + c * g.H * g.W * g.m;
        T* best = A + at;
        int32_t* which = taps + at;
        bool first = true;
        each_tap(g, y, x, [&](int32_t tap, long from) {
            const T* seen = image + from;
            if (first) {
                for (long e = 0; e < g.m; ++e) best[e] = seen[e], which[e] = tap;
                first = false;
            } else {
                for (long e = 0; e < g.m; ++e) {
                    bool larger = seen[e] > best[e];
                    best[e] = larger | (seen[e] != seen[e]) ? seen[e] : best[e];
                    which[e] = larger ? tap : which[e];
                }
            }
        });
        if (first) {  // a place that lies on padding alone
            std::fill(best, best + g.m, -std::numeric_limits<T>::infinity());
            std::fill(which, which + g.m, 0);
        }
    });
}

// Taps, kept as 32 bits, as the vectors that a comparison of T makes.
template <class T> inline I<T> load_taps(const int32_t* from, long n) {
    I<T> which{};
    for (long e = 0; e < n; ++e) which[e] = from[e];
    return which;
}
template <> inline I<float> load_taps<float>(const int32_t* from, long n) {
    I<float> which{};
    std::memcpy(&which, from, n * sizeof(int32_t));
    return which;
}

// Whether every pixel lies under exactly one window.
inline bool tiled(const Geometry& g) {
    return g.sh == g.kh && g.sw == g.kw && g.dh == 1 && g.dw == 1 && g.top == 0 && g.left == 0 &&
           g.out_h * g.sh >= g.H && g.out_w * g.sw >= g.W;
}

template <class T> void max_pool_backward(const Geometry& g, const T* dA, const int32_t* taps, T* dA_prev) {
    constexpr long L = LANES<T>;
    bool alone = tiled(g);
    if (!alone)
        split(g.C, 1.0 * g.C * g.H * g.W * g.m, 1, [=](long begin, long end) {
            std::fill(dA_prev + begin * g.H * g.W * g.m, dA_prev + end * g.H * g.W * g.m, T(0));
        });
    each_place(g, [=](long c, long y, long x, long at) {
        T* image = dA_prev + c * g.H * g.W * g.m;
        auto share = [&](long e, auto width) {
            V<T> d = width == L ? load(dA + at + e) : load_some(dA + at + e, width);
            I<T> which = load_taps<T>(taps + at + e, width);
            each_tap(g, y, x, [&](int32_t tap, long to) {
                T* out = image + to + e;
                V<T> own = which == tap ? d : V<T>{};
                if (!alone) own += width == L ? load(out) : load_some(out, width);
                if (width == L) store(out, own);
                else store_some(out, own, width);
            });
        };
        if (g.m == 1) return share(0, std::integral_constant<long, 1>());
        long e = 0;
        for (; e + L <= g.m; e += L) share(e, std::integral_constant<long, L>());
        if (e < g.m) share(e, g.m - e);
    });
}

template <class T> void sum_pool(const Geometry& g, const T* A_prev, T* A) {
    each_place(g, [=](long c, long y, long x, long at) {
        const T* image = A_prev + c * g.H * g.W * g.m;
        T* total = A + at;
        std::fill(total, total + g.m, T(0));
        each_tap(g, y, x, [&](int32_t, long from) {
            for (long e = 0; e < g.m; ++e) total[e] += image[from + e];
        });
    });
}

template <class T> void sum_pool_backward(const Geometry& g, const T* dA, T* dA_prev) {
    split(g.C, 1.0 * g.C * g.H * g.W * g.m, 1, [=](long begin, long end) {
        std::fill(dA_prev + begin * g.H * g.W * g.m, dA_prev + end * g.H * g.W * g.m, T(0));
    });
    each_place(g, [=](long c, long y, long x, long at) {
        T* image = dA_prev + c * g.H * g.W * g.m;
        each_tap(g, y, x, [&](int32_t, long to) {
            for (long e = 0; e < g.m; ++e) image[to + e] += dA[at + e];
        });
    });
}

// --- activations --------------------------------------------------------------------------------------------------

template <class T, class F> void apply(long n, const T* Z, T* A, F f) {
    elementwise(n, [=](long begin, long end) {
        sweep<T>(end - begin, [&](long i) { store(A + begin + i, f(load(Z + begin + i))); },
                 [&](long i, long k) { store_some(A + begin + i, f(load_some(Z + begin + i, k)), k); });
    });
}

constexpr double SELU_SCALE = 1.0507009873554804934193349852946, SELU_ALPHA = 1.6732632423543772848170429916717;
constexpr double SQUASH = 1.7159, SQUASH_SLOPE = 2.0 / 3.0;

// e^x - 1 for x ≤ 0: its series where the difference would lose digits.
template <class T> inline V<T> expm1(V<T> x) {
    V<T> series = x + x * x * (T(1.0 / 2) + x * (T(1.0 / 6) + x * (T(1.0 / 24) + x * (T(1.0 / 120) + x * T(1.0 / 720)))));
    return x > T(-0.2) ? series : exp<T>(x) - 1;
}
template <> inline V<double> expm1<double>(V<double> x) {
    for (int i = 0; i < LANES<double>; ++i) x[i] = std::expm1(x[i]);
    return x;
}

// ½ (1 + tanh u) is the logistic function of 2 u; u = √(2/π) (z + 0.044715 z³).
constexpr double GELU_SLOPE = 0.79788456080286536, GELU_CUBE = 0.044715;
template <class T> inline V<T> gelu_sigmoid(V<T> z) { return sigmoid<T>(T(2 * GELU_SLOPE) * (z + T(GELU_CUBE) * z * z * z)); }

template <class T> void activation(int kind, long n, const T* Z, T* A, T constant) {
    const V<T> zero{};
    switch (kind) {
        case RELU: return apply<T>(n, Z, A, [=](V<T> z) { return max<T>(zero, z); });
        case LEAKY_RELU: return apply<T>(n, Z, A, [=](V<T> z) { return z > 0 ? z : constant * z; });
        case SIGMOID: return apply<T>(n, Z, A, [](V<T> z) { return sigmoid<T>(z); });
        case TANH: return apply<T>(n, Z, A, [](V<T> z) { return tanh<T>(z); });
        case ELU: return apply<T>(n, Z, A, [=](V<T> z) { return z > 0 ? z : constant * expm1<T>(min<T>(zero, z)); });
        case SELU:
            return apply<T>(n, Z, A, [=](V<T> z) {
                return T(SELU_SCALE) * (z > 0 ? z : T(SELU_ALPHA) * expm1<T>(min<T>(zero, z)));
            });
        case SILU: return apply<T>(n, Z, A, [](V<T> z) { return z * sigmoid<T>(z); });
        case SCALED_TANH: return apply<T>(n, Z, A, [](V<T> z) { return T(SQUASH) * tanh<T>(T(SQUASH_SLOPE) * z); });
        case GELU: return apply<T>(n, Z, A, [](V<T> z) { V<T> bell; return z * normal<T>(z, bell); });
        case GELU_TANH: return apply<T>(n, Z, A, [](V<T> z) { return z * gelu_sigmoid<T>(z); });
        case SOFTPLUS: return apply<T>(n, Z, A, [=](V<T> z) { return max<T>(zero, z) + log1p<T>(exp<T>(-abs<T>(z))); });
        case HARD_SIGMOID:
            return apply<T>(n, Z, A, [=](V<T> z) { return min<T>(zero + 1, max<T>(zero, z * T(1.0 / 6) + T(0.5))); });
    }
}

template <class T, class F> void chain(long n, const T* dA, const T* kept, T* dZ, F f) {
    elementwise(n, [=](long begin, long end) {
        sweep<T>(end - begin,
                 [&](long i) { store(dZ + begin + i, f(load(dA + begin + i), load(kept + begin + i))); },
                 [&](long i, long k) {
                     store_some(dZ + begin + i, f(load_some(dA + begin + i, k), load_some(kept + begin + i, k)), k);
                 });
    });
}

template <class T>
void activation_backward(int kind, long n, const T* dA, const T* kept, T* dZ, T constant) {
    const V<T> zero{};
    switch (kind) {
        case RELU: return chain<T>(n, dA, kept, dZ, [=](V<T> d, V<T> a) { return a > 0 ? d : zero; });
        case LEAKY_RELU: return chain<T>(n, dA, kept, dZ, [=](V<T> d, V<T> a) { return a > 0 ? d : constant * d; });
        case SIGMOID: return chain<T>(n, dA, kept, dZ, [](V<T> d, V<T> a) { return d * (a * (1 - a)); });
        case TANH: return chain<T>(n, dA, kept, dZ, [](V<T> d, V<T> a) { return d * (1 - a * a); });
        case ELU: return chain<T>(n, dA, kept, dZ, [=](V<T> d, V<T> a) { return a > 0 ? d : d * (a + constant); });
        case SELU:
            return chain<T>(n, dA, kept, dZ, [](V<T> d, V<T> a) {
                return a > 0 ? d * T(SELU_SCALE) : d * (a + T(SELU_SCALE * SELU_ALPHA));
            });
        case SILU:
            return chain<T>(n, dA, kept, dZ, [](V<T> d, V<T> z) {
                V<T> s = sigmoid<T>(z);
                return d * (s * (1 + z * (1 - s)));
            });
        case SCALED_TANH:
            return chain<T>(n, dA, kept, dZ, [](V<T> d, V<T> a) {
                return d * (T(SQUASH_SLOPE * SQUASH) - a * a * T(SQUASH_SLOPE / SQUASH));
            });
        case GELU:
            return chain<T>(n, dA, kept, dZ, [](V<T> d, V<T> z) {
                V<T> bell, share = normal<T>(z, bell);
                return d * (share + z * bell * T(0.39894228040143268));
            });
        case GELU_TANH:
            return chain<T>(n, dA, kept, dZ, [](V<T> d, V<T> z) {
                V<T> s = gelu_sigmoid<T>(z);
                return d * (s + z * (2 * s * (1 - s)) * (T(GELU_SLOPE) * (1 + T(3 * GELU_CUBE) * z * z)));
            });
        case SOFTPLUS: return chain<T>(n, dA, kept, dZ, [](V<T> d, V<T> a) { return -d * expm1<T>(-a); });
        case HARD_SIGMOID:
            return chain<T>(n, dA, kept, dZ, [=](V<T> d, V<T> a) {
                V<T> inside = a < 1 ? d * T(1.0 / 6) : zero;
                return a > 0 ? inside : zero;
            });
    }
}

template <class T> void erf(long n, const T* Z, T* A) { apply<T>(n, Z, A, [](V<T> z) { return erf<T>(z); }); }

// --- a parameter for each of the n rows of (steps, n, m) ----------------------------------------------------------

template <class T> void scale(long steps, long n, long m, const T* gamma, const T* A_hat, const T* beta, T* A) {
    split(n, 2.0 * steps * n * m, 1, [=](long begin, long end) {
        for (long t = 0; t < steps; ++t)
            for (long r = begin; r < end; ++r) {
                long at = (t * n + r) * m;
                T g = gamma[r], b = beta[r];
                auto part = [=](long i, auto... k) { store(A + at + i, g * load(A_hat + at + i, k...) + b, k...); };
                sweep<T>(m, part, part);
            }
    });
}

template <class T>
void scale_backward(long steps, long n, long m, const T* gamma, const T* dA, const T* A_hat, T divisor, T* dA_hat, T* dgamma,
                    T* dbeta) {
    split(n, 5.0 * steps * n * m, 1, [=](long begin, long end) {
        for (long r = begin; r < end; ++r) {
            V<T> s{}, along{};
            for (long t = 0; t < steps; ++t) {
                long at = (t * n + r) * m;
                auto part = [&](long i, auto... k) {
                    V<T> d = load(dA + at + i, k...);
                    s += d, along += d * load(A_hat + at + i, k...);
                    store(dA_hat + at + i, gamma[r] * d, k...);
                };
                sweep<T>(m, part, part);
            }
            dgamma[r] = sum<T>(along) / divisor, dbeta[r] = sum<T>(s) / divisor;
        }
    });
}

template <class T> void prelu(long n, long m, const T* a, const T* Z, T* A) {
    split(n, 2.0 * n * m, 1, [=](long begin, long end) {
        for (long r = begin; r < end; ++r) {
            const T* row = Z + r * m;
            auto part = [=](long i, auto... k) {
                V<T> z = load(row + i, k...);
                store(A + r * m + i, z > 0 ? z : a[r] * z, k...);
            };
            sweep<T>(m, part, part);
        }
    });
}

template <class T> void prelu_backward(long n, long m, const T* a, const T* dA, const T* Z, T divisor, T* dZ, T* da) {
    split(n, 5.0 * n * m, 1, [=](long begin, long end) {
        for (long r = begin; r < end; ++r) {
            V<T> along{};
            auto part = [&](long i, auto... k) {
                V<T> d = load(dA + r * m + i, k...), z = load(Z + r * m + i, k...);
                along += d * min<T>(V<T>{}, z);
                store(dZ + r * m + i, z > 0 ? d : a[r] * d, k...);
            };
            sweep<T>(m, part, part);
            da[r] = sum<T>(along) / divisor;
        }
    });
}

// --- loss ---------------------------------------------------------------------------------------------------------

// For class indices. Columns are taken a vector at a time, what is left over one by one.
template <class T>
void softmax_cross_entropy(long n, long m, const T* Z, const int64_t* Y, T smoothing, T* losses, T* P) {
    constexpr int L = LANES<T>;
    split(m, 20.0 * n * m, L, [=](long begin, long end) {
        for (long i = begin; i < end; i += L) {
            long k = std::min<long>(L, end - i);
            auto column = [&](const T* row) { return k == L ? load(row + i) : load_some(row + i, k); };
            V<T> top = column(Z);
            for (long c = 1; c < n; ++c) top = max<T>(top, column(Z + c * m));
            V<T> total{}, all{};
            for (long c = 0; c < n; ++c) {
                V<T> shifted = column(Z + c * m) - top;
                V<T> e = exp<T>(shifted);
                total += e;
                all += shifted;
                if (k == L) store(P + c * m + i, e);
                else store_some(P + c * m + i, e, k);
            }
            V<T> log_total = log<T>(total);
            V<T> inverse = 1 / total;
            for (long c = 0; c < n; ++c) {
                T* p = P + c * m + i;
                if (k == L) store(p, load(p) * inverse);
                else store_some(p, load_some(p, k) * inverse, k);
            }
            for (long j = 0; j < k; ++j) {
                T fit = Z[Y[i + j] * m + i + j] - top[j] - log_total[j];
                if (smoothing) fit = (1 - smoothing) * fit + smoothing * (all[j] / T(n) - log_total[j]);
                losses[i + j] = -fit;
            }
        }
    });
}

// --- normalisation over rows --------------------------------------------------------------------------------------

template <class T>
void normalize(long rows, long columns, const T* A, T epsilon, T* A_hat, T* mean, T* variance) {
    row_means<T>(rows, columns, A, T(columns), mean);
    split(rows, 4.0 * rows * columns, 1, [=](long begin, long end) {
        for (long r = begin; r < end; ++r) {
            const T* a = A + r * columns;
            T* h = A_hat + r * columns;
            V<T> mu = splat(mean[r]), s{};
            sweep<T>(columns, [&](long i) { V<T> d = load(a + i) - mu; s += d * d; },
                     [&](long i, long k) { for (long e = i; e < i + k; ++e) s[0] += (a[e] - mu[0]) * (a[e] - mu[0]); });
            variance[r] = sum<T>(s) / T(columns);
            T scale = 1 / std::sqrt(variance[r] + epsilon);
            for (long i = 0; i < columns; ++i) h[i] = (a[i] - mean[r]) * scale;
        }
    });
}

template <class T>
void normalize_backward(long rows, long columns, const T* dA_hat, const T* A_hat, const T* variance, T epsilon, T* dA) {
    split(rows, 4.0 * rows * columns, 1, [=](long begin, long end) {
        for (long r = begin; r < end; ++r) {
            const T *d = dA_hat + r * columns, *h = A_hat + r * columns;
            T* out = dA + r * columns;
            V<T> s{}, t{};
            sweep<T>(columns, [&](long i) { V<T> v = load(d + i); s += v; t += v * load(h + i); },
                     [&](long i, long k) { V<T> v = load_some(d + i, k); s += v; t += v * load_some(h + i, k); });
            T mean = sum<T>(s) / T(columns), along = sum<T>(t) / T(columns);
            T scale = 1 / std::sqrt(variance[r] + epsilon);
            for (long i = 0; i < columns; ++i) out[i] = (d[i] - mean - h[i] * along) * scale;
        }
    });
}

// --- dropout: the draw of an element is a hash of the key and its place, whatever the threads ------------------------

inline uint32_t mixed(uint32_t x) {  // Wellons' lowbias32
    x ^= x >> 16;
    x *= 0x7feb352dU;
    x ^= x >> 15;
    x *= 0x846ca68bU;
    return x ^ (x >> 16);
}

template <class T> void dropout(long n, uint64_t key, T rate, const T* A_prev, T* A, uint8_t* D) {
    uint32_t low = uint32_t(key), high = uint32_t(key >> 32);
    uint32_t limit = uint32_t(double(rate) * 4294967296.0);
    T scale = T(1) / (T(1) - rate);
    elementwise(n, [=](long begin, long end) {
        constexpr long SIDE = 64;  // loops over one type each, so that each is vectors
        for (long start = begin; start < end; start += SIDE) {
            long k = std::min(SIDE, end - start);
            uint32_t draws[SIDE], salt = high + uint32_t(uint64_t(start) >> 32);
            for (uint32_t e = 0; e < SIDE; ++e) draws[e] = mixed(mixed(uint32_t(start) + e + low) ^ salt);
            for (long e = 0; e < k; ++e) D[start + e] = draws[e] >= limit;
            for (long e = 0; e < k; ++e) A[start + e] = A_prev[start + e] * T(D[start + e]) * scale;
        }
    });
}

template <class T> void dropout_backward(long n, const T* dA, const uint8_t* D, T rate, T* dA_prev) {
    T scale = T(1) / (T(1) - rate);
    elementwise(n, [=](long begin, long end) {
        for (long i = begin; i < end; ++i) dA_prev[i] = dA[i] * T(D[i]) * scale;
    });
}

// --- updates ------------------------------------------------------------------------------------------------------

// constants: learning rate, t, then the rule's own, in the order of its fields.
template <class T>
void update(int rule, long n, T* W, const T* dW, T* const* slots, const double* constants) {
    const T rate = T(constants[0]);
    const double t = constants[1];
    T *s0 = slots ? slots[0] : nullptr, *s1 = slots ? slots[1] : nullptr;
    auto all = [&](auto f) {
        auto part = [=](long begin, long end) {
            for (long i = begin; i < end; ++i) f(i);
        };
        elementwise(n, part, CHUNK / 4);  // of each element four numbers come, and three go
    };
    const T p0 = T(constants[2]), p1 = T(constants[3]), p2 = T(constants[4]), p3 = T(constants[5]);
    switch (rule) {
        case GRADIENT_DESCENT: return all([=](long i) { W[i] -= rate * dW[i]; });
        case MOMENTUM:
            return all([=](long i) {
                T v = p0 * s0[i] - rate * dW[i];
                s0[i] = v;
                W[i] += v;
            });
        case NESTEROV:
            return all([=](long i) {
                T v = p0 * s0[i] - rate * dW[i];
                s0[i] = v;
                W[i] += p0 * v - rate * dW[i];
            });
        case ADAGRAD:
            return all([=](long i) {
                T s = s0[i] + dW[i] * dW[i];
                s0[i] = s;
                W[i] -= rate * dW[i] / (std::sqrt(s) + p0);
            });
        case ADADELTA: {
            const T q0 = T(1 - constants[2]);
            return all([=](long i) {
                T g = dW[i], s = p0 * s0[i] + q0 * g * g;
                T step = -std::sqrt(s1[i] + p1) / std::sqrt(s + p1) * g;
                s0[i] = s;
                s1[i] = p0 * s1[i] + q0 * step * step;
                W[i] += rate * step;
            });
        }
        case RMSPROP: {
            const T q0 = T(1 - constants[2]);
            return all([=](long i) {
                T s = p0 * s0[i] + q0 * dW[i] * dW[i];
                s0[i] = s;
                W[i] -= rate * dW[i] / (std::sqrt(s) + p1);
            });
        }
        case ADAM:
        case ADAMW: {
            const T q0 = T(1 - constants[2]), q1 = T(1 - constants[3]);
            const T step = T(constants[0] / (1 - std::pow(constants[2], t)));
            const T unbias = T(1 / std::sqrt(1 - std::pow(constants[3], t)));
            const T keep = T(1 - constants[0] * constants[5]);
            return all([=](long i) {
                T g = dW[i], a = p0 * s0[i] + q0 * g, v = p1 * s1[i] + q1 * g * g;
                s0[i] = a;
                s1[i] = v;
                W[i] = keep * W[i] - step * a / (std::sqrt(v) * unbias + p2);
            });
        }
        case LION: {
            const T q0 = T(1 - constants[2]), q1 = T(1 - constants[3]);
            return all([=](long i) {
                T g = dW[i], c = p0 * s0[i] + q0 * g;
                T sign = T((c > 0) - (c < 0));
                s0[i] = p1 * s0[i] + q1 * g;
                W[i] -= rate * (sign + p2 * W[i]);
            });
        }
    }
    (void)p3;
}

}  // namespace
}  // namespace pellucid

#include "recurrence.h"

namespace pellucid {
namespace {

template <class T> inline V<T> load_as(const T* p) { return load(p); }
template <class T> inline V<T> load_as(const uint8_t* p) {
    V<T> v;
    for (int i = 0; i < LANES<T>; ++i) v[i] = T(p[i]);
    return v;
}
#if defined(__AVX512F__)  // one instruction that the compiler does not find
template <> inline V<float> load_as<float>(const uint8_t* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
#elif defined(__AVX2__)
template <> inline V<float> load_as<float>(const uint8_t* p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
#endif

// X (n, m) from the given rows of x (·, n): examples first to examples last, gathered, converted and turned in one pass.
template <class T, class From> void examples_last(long m, long n, const int64_t* rows, const From* x, T* X) {
    constexpr long L = LANES<T>;
    split(n, 4.0 * m * n, L, [=](long begin, long end) {
        for (long i = 0; i < m; i += L)
            for (long j = begin; j < end; j += L) {
                if (i + L <= m && j + L <= end) {
                    transpose_square<T>([=](long e) { return load_as<T>(x + rows[i + e] * n + j); }, X + j * m + i, m);
                    continue;
                }
                for (long jj = j; jj < std::min(end, j + L); ++jj)
                    for (long e = i; e < std::min(m, i + L); ++e) X[jj * m + e] = T(x[rows[e] * n + jj]);
            }
    });
}

// A unit's row of W is looked up for every id, and its row of dW is added to, by one thread.
template <class T> void embedding(long steps, long n, long levels, long m, const T* W, const int64_t* ids, T* A) {
    split(n, 8.0 * steps * n * m, 1, [=](long begin, long end) {
        for (long t = 0; t < steps; ++t)
            for (long u = begin; u < end; ++u)
                for (long i = 0; i < m; ++i) A[(t * n + u) * m + i] = W[u * levels + ids[t * m + i]];
    });
}

template <class T> void embedding_dW(long steps, long n, long levels, long m, const T* dA, const int64_t* ids, T* dW) {
    split(n, 8.0 * steps * n * m + 1.0 * n * levels, 1, [=](long begin, long end) {
        for (long u = begin; u < end; ++u) {
            T* row = dW + u * levels;
            std::fill(row, row + levels, T(0));
            for (long t = 0; t < steps; ++t)
                for (long i = 0; i < m; ++i) row[ids[t * m + i]] += dA[(t * n + u) * m + i];
            for (long k = 0; k < levels; ++k) row[k] /= T(m);
        }
    });
}

template <class T> Kernels<T> table() {
    return {PELLUCID_ISA_NAME,
            matmul<T>,
            [](long n, long n_prev, long m, const T* dZ, const T* A_prev, T* dW) {
                affine_dW<T>(n, n_prev, m, dZ, A_prev, dW, T(1) / T(m));
            },
            row_means<T>,
            convolution<T>,
            convolution_dW<T>,
            convolution_dA<T>,
            max_pool<T>,
            max_pool_backward<T>,
            sum_pool<T>,
            sum_pool_backward<T>,
            activation<T>,
            activation_backward<T>,
            softmax_cross_entropy<T>,
            normalize<T>,
            normalize_backward<T>,
            dropout<T>,
            update<T>,
            softmax<T>,
            softmax_backward<T>,
            softmax_cross_entropy_backward<T>,
            normalize_columns<T>,
            normalize_columns_backward<T>,
            dropout_backward<T>,
            examples_last<T, T>,
            recurrence<T>,
            recurrence_backward<T>,
            matmul_steps<T>,
            affine_dW_steps<T>,
            embedding<T>,
            embedding_dW<T>,
            affine_db<T>,
            erf<T>,
            prelu<T>,
            prelu_backward<T>,
            scale<T>,
            scale_backward<T>,
            local_response<T>,
            local_response_backward<T>,
            examples_last<T, uint8_t>};
}

}  // namespace

Kernels<float> PELLUCID_TABLE(float*, bool bfloat16) { return bfloat16 ? rounding(table<float>()) : table<float>(); }
Kernels<double> PELLUCID_TABLE(double*, bool) { return table<double>(); }

}  // namespace pellucid
