// Convolutions of 3×3 taps with stride 1 by Winograd's minimal filtering F(4×4, 3×3): for 16 places and each channel 36
// products instead of 144. Image and filters are seen as polynomials at the points 0, ±√½, ±√2 and infinity, which round
// least: errors are about twice those of the plain sums. Included by kernels.cpp before the convolutions.
// Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (2015), section 4.3.
#pragma once

namespace pellucid {
namespace {

constexpr long TILE = 4, POINTS = TILE + 2, PLANES = POINTS * POINTS;
constexpr float ROOT = 1.41421356237309505f;
constexpr long MOST_SUMS = 1 << 21;  // bytes, of one thread for dW: twice a core's own cache

// Each of these takes one axis there; numbers lie `step` apart, and those made `to_step`.
template <class T> inline void image_at_points(const V<T>* d, long step, V<T>* to, long to_step) {
    V<T> d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step];
    V<T> even = d4 - 2 * d2, odd = T(ROOT / 2) * d3 - T(ROOT) * d1;
    to[0] = d[0] - T(2.5) * d2 + d4;
    to[to_step] = even + odd, to[2 * to_step] = even - odd;
    even = d4 - T(0.5) * d2, odd = T(ROOT) * d3 - T(ROOT / 2) * d1;
    to[3 * to_step] = even + odd, to[4 * to_step] = even - odd;
    to[5 * to_step] = d1 - T(2.5) * d3 + d[5 * step];
}

template <class T> inline void filter_at_points(const V<T>* w, long step, V<T>* to, long to_step) {
    V<T> first = w[0], middle = w[step], last = w[2 * step], even = T(-2 / 3.0) * first - T(1 / 3.0) * last;
    to[0] = first;
    to[to_step] = even - T(ROOT / 3) * middle, to[2 * to_step] = even + T(ROOT / 3) * middle;
    even = T(1 / 6.0) * first + T(1 / 3.0) * last;
    to[3 * to_step] = even + T(ROOT / 6) * middle, to[4 * to_step] = even - T(ROOT / 6) * middle;
    to[5 * to_step] = last;
}

template <class T> inline void places_of_points(const V<T>* at, long step, V<T>* z, long z_step) {
    V<T> near = at[step] + at[2 * step], near_odd = T(ROOT / 2) * (at[step] - at[2 * step]);
    V<T> far = at[3 * step] + at[4 * step], far_odd = T(ROOT) * (at[3 * step] - at[4 * step]);
    z[0] = at[0] + near + far;
    z[z_step] = near_odd + far_odd;
    z[2 * z_step] = T(0.5) * near + 2 * far;
    z[3 * z_step] = T(0.5) * near_odd + 2 * far_odd + at[5 * step];
}

// The transposes of the last two, for dW.
template <class T> inline void points_of_places(const V<T>* z, long step, V<T>* to, long to_step) {
    V<T> z2 = z[2 * step], z3 = z[3 * step];
    to[0] = z[0];
    V<T> even = z[0] + T(0.5) * z2, odd = T(ROOT / 2) * z[step] + T(ROOT / 4) * z3;
    to[to_step] = even + odd, to[2 * to_step] = even - odd;
    even = z[0] + 2 * z2, odd = T(ROOT) * z[step] + T(2 * ROOT) * z3;
    to[3 * to_step] = even + odd, to[4 * to_step] = even - odd;
    to[5 * to_step] = z3;
}

template <class T> inline void filter_of_points(const V<T>* at, long step, V<T>* w, long w_step) {
    V<T> near = at[step] + at[2 * step], far = at[3 * step] + at[4 * step];
    w[0] = at[0] - T(2 / 3.0) * near + T(1 / 6.0) * far;
    w[w_step] = T(ROOT / 6) * (at[3 * step] - at[4 * step]) - T(ROOT / 3) * (at[step] - at[2 * step]);
    w[2 * w_step] = T(1 / 3.0) * (far - near) + at[5 * step];
}

// Whether it pays: enough channels and units for what making the points costs, and few places and examples that nobody asked
// for. Products of pairs are as fast where filters at the points leave the cache, or more than a little is lost.
template <class O> bool worth_points(const Geometry& g, long units, long groups, bool dW = false) {
    constexpr long L = LANES<float>;
    const long fewer = std::min(g.C, units) / groups, more = std::max(g.C, units) / groups;
    if (!std::is_same_v<Sum<O>, float> || g.kh != 3 || g.kw != 3 || g.sh * g.sw * g.dh * g.dw != 1 || g.m < L) return false;
    const double tiles = double((g.out_h + TILE - 1) / TILE) * double((g.out_w + TILE - 1) / TILE);
    const double places = TILE * TILE * tiles / (double(g.out_h) * double(g.out_w));  // for each that is asked for
    if (EACH<O> == 1) return fewer >= (dW ? 16 : 8) && places <= 1.5;
    return fewer >= (dW ? 16 : 32) && fewer * more <= 256 * 256 && places <= 1.15;
}

// n examples of one channel of the image, from a pixel on: planes `to_plane` apart. The next channel's pixels are asked for,
// as nothing foresees where they lie.
template <class T, class F>
void image_at_points(const Geometry& g, long top, long left, const T* image, T* to, long to_plane, long n, F prepare) {
    const long row = g.W * g.m;
    auto part = [=](long e, auto... some) {
        V<T> half[PLANES], d[POINTS], at[POINTS];
        for (long j = 0; j < POINTS; ++j) {
            for (long i = 0; i < POINTS; ++i) {
                bool on = top + i >= 0 && top + i < g.H && left + j >= 0 && left + j < g.W;
                const T* from = image + i * row + j * g.m + e;
                if (on) __builtin_prefetch(from + g.H * row);
                d[i] = on ? prepare(load(from, some...)) : V<T>{};
            }
            image_at_points<T>(d, 1, half + j, POINTS);
        }
        for (long i = 0; i < POINTS; ++i) {
            image_at_points<T>(half + i * POINTS, 1, at, 1);
            for (long j = 0; j < POINTS; ++j) store(to + (i * POINTS + j) * to_plane + e, at[j], some...);
        }
    };
    sweep<T>(n, part, part);
}

// Z = W ⋆ A + b for W (units, taps, channels); `prepare` is done to each vector of W and A.
template <class T, class F>
void convolve_at_points(const Geometry& g, long units, long groups, const T* W, const T* A, const T* b, T* Z, F prepare) {
    constexpr long L = LANES<T>;
    const long channels = g.C / groups, own = units / groups, row = g.W * g.m;
    const long high = (g.out_h + TILE - 1) / TILE, wide = (g.out_w + TILE - 1) / TILE;
    // A strip of about so many columns, tiles and their examples, takes at the points no more memory than the filters.
    const long most = std::max(VECTORS * L, channels * own / (channels + own));
    const long together = std::min(wide, std::max(1L, (most + g.m / 2) / g.m)), in_row = (wide + together - 1) / together;
    const long parts = std::max(1L, g.m / most), columns = together * ((g.m + parts - 1) / parts);
    // Planes lie a vector further apart than they are large, lest all of them meet in one place of a cache.
    const long u_plane = units * channels + L, v_plane = channels * columns + L, m_plane = own * columns + L;
    T* U = scratch<T, 10>(size_t(PLANES) * u_plane);
    split(units, 100.0 * units * channels, 1, [=](long begin, long end) {
        for (long o = begin; o < end; ++o) {
            auto part = [=](long c, auto... some) {
                V<T> w[9], half[3 * POINTS], at[PLANES];
                for (long t = 0; t < 9; ++t) w[t] = prepare(load(W + (o * 9 + t) * channels + c, some...));
                for (long j = 0; j < 3; ++j) filter_at_points<T>(w + j, 3, half + j, 3);
                for (long i = 0; i < POINTS; ++i) filter_at_points<T>(half + i * 3, 1, at + i * POINTS, 1);
                for (long k = 0; k < PLANES; ++k) store(U + k * u_plane + o * channels + c, at[k], some...);
            };
            sweep<T>(channels, part, part);
        }
    });
    std::vector<long> offsets(channels);
    for (long c = 0; c < channels; ++c) offsets[c] = c * columns;
    const long* offset = offsets.data();
    // One unit's places: the next one's are asked for, as nothing foresees where they lie.
    auto places_part = [=](long rows, long places, const T* from, T bias, T* z, long n) {
        auto part = [=](long e, auto... some) {
            V<T> half[TILE * POINTS], at[POINTS], made[TILE];
            for (long j = 0; j < POINTS; ++j) {
                for (long i = 0; i < POINTS; ++i) {
                    const T* sum = from + (i * POINTS + j) * m_plane + e;
                    __builtin_prefetch(sum + columns);
                    at[i] = load(sum, some...);
                }
                places_of_points<T>(at, 1, half + j, POINTS);
            }
            for (long i = 0; i < rows; ++i) {
                places_of_points<T>(half + i * POINTS, 1, made, 1);
                for (long j = 0; j < places; ++j) {
                    T* to = z + (i * g.out_w + j) * g.m + e;
                    __builtin_prefetch(to + g.out_h * g.out_w * g.m, 1);
                    store(to, made[j] + bias, some...);
                }
            }
        };
        sweep<T>(n, part, part);
    };
    const long strips = groups * high * in_row * parts;
    split(strips, 2.0 * units * channels * PLANES * high * wide * g.m, 1, [=](long begin, long end) {
        T *points = scratch<T, 11>(size_t(PLANES) * v_plane), *sums = scratch<T, 12>(size_t(PLANES) * m_plane);
        for (long each = begin; each < end; ++each) {
            const long group = each / (high * in_row * parts), y = each / (in_row * parts) % high * TILE;
            const long part = each % parts, start = g.m * part / parts, n = g.m * (part + 1) / parts - start;
            const long first = each / parts % in_row * together, tiles = std::min(together, wide - first);
            const long top = y - g.top, unit = group * own;
            for (long c = 0; c < channels; ++c)
                for (long t = 0; t < tiles; ++t) {
                    const long left = (first + t) * TILE - g.left;
                    const T* image = A + ((group * channels + c) * g.H + top) * row + left * g.m + start;
                    image_at_points(g, top, left, image, points + c * columns + t * n, v_plane, n, prepare);
                }
            for (long k = 0; k < PLANES; ++k)
                block<T>(own, tiles * n, channels, U + k * u_plane + unit * channels, channels, 1, points + k * v_plane, offset,
                         sums + k * m_plane, columns, nullptr, T(1));
            for (long o = 0; o < own; ++o)
                for (long t = 0; t < tiles; ++t) {
                    const long x = (first + t) * TILE;
                    places_part(std::min(TILE, g.out_h - y), std::min(TILE, g.out_w - x), sums + o * columns + t * n,
                                b ? b[unit + o] : T(0), Z + (((unit + o) * g.out_h + y) * g.out_w + x) * g.m + start, n);
                }
        }
    });
}

// The same with operands O, rounded where they are pairs.
template <class O, class T = Sum<O>>
void convolve_at_points(const Geometry& g, long units, long groups, const Sum<O>* W, const Sum<O>* A, const Sum<O>* b, T* Z) {
    convolve_at_points(g, units, groups, W, A, b, Z, [](V<T> a) {
        if constexpr (EACH<O> > 1) return rounded(a);
        else return a;
    });
}

// dW (units, channels, taps) = (1/m) Σ dZ Aᵀ: tiles of dZ and the image meet at the points, where their products are summed
// over tiles and examples; `prepare` is done to each vector of dZ and A.
template <class T, class F>
void convolution_dW_at_points(const Geometry& g, long units, long groups, const T* dZ, const T* A, T* dW, F prepare) {
    constexpr long L = LANES<T>, WIDTH = VECTORS * L, RUN = 8;
    const long channels = g.C / groups, own = units / groups, deep = (channels + L - 1) / L * L, row = g.W * g.m;
    const long high = (g.out_h + TILE - 1) / TILE, wide = (g.out_w + TILE - 1) / TILE;
    // A strip is as in forward; its points take no more memory than the sums.
    const long most = std::max(WIDTH, channels * own / (channels + own));
    const long together = std::min(wide, std::max(1L, (most + g.m / 2) / g.m)), in_row = (wide + together - 1) / together;
    const long parts = std::max(1L, g.m / most), columns = together * ((g.m + parts - 1) / parts);
    const long z_plane = own * columns + L, a_plane = deep * (columns + L) + L, plane = own * deep + L;
    const long strips = high * in_row * parts;
    std::vector<long> offsets(columns * VECTORS);
    for (long v = 0; v < VECTORS; ++v)
        for (long k = 0; k < columns; ++k) offsets[v * columns + k] = k * (v + 1) * L;
    const long* offset = offsets.data();
    auto places_part = [=](long rows, long places, const T* z, T* to, long n) {
        auto part = [=](long e, auto... some) {
            V<T> half[TILE * POINTS], d[TILE], at[POINTS];
            for (long j = 0; j < TILE; ++j) {
                for (long i = 0; i < TILE; ++i) {
                    const T* from = z + (i * g.out_w + j) * g.m + e;
                    bool on = i < rows && j < places;
                    if (on) __builtin_prefetch(from + g.out_h * g.out_w * g.m);
                    d[i] = on ? prepare(load(from, some...)) : V<T>{};
                }
                points_of_places<T>(d, 1, half + j, TILE);
            }
            for (long i = 0; i < POINTS; ++i) {
                points_of_places<T>(half + i * TILE, 1, at, 1);
                for (long j = 0; j < POINTS; ++j) store(to + (i * POINTS + j) * z_plane + e, at[j], some...);
            }
        };
        sweep<T>(n, part, part);
    };
    // Errors of sums at the points are enlarged on the way to the filters, so sums are not long there: RUN strips at a time.
    auto add_filters = [=](long unit, long count, const T* sums, T* out, bool first) {
        for (long o = 0; o < count; ++o)
            for (long c = 0; c < deep; c += L) {
                V<T> half[3 * POINTS], at[PLANES], w[9];
                for (long k = 0; k < PLANES; ++k) {
                    const T* sum = sums + k * plane + o * deep + c;
                    __builtin_prefetch(sum + 2 * L);
                    at[k] = load(sum);
                }
                for (long i = 0; i < POINTS; ++i) filter_of_points<T>(at + i * POINTS, 1, half + i * 3, 1);
                for (long j = 0; j < 3; ++j) filter_of_points<T>(half + j, 3, w + j, 3);
                for (V<T>& each : w) each /= T(g.m);
                T* to = out + ((unit + o) * channels + c) * 9;
                for (long i = 0; i < std::min(L, channels - c); ++i)
                    for (long t = 0; t < 9; ++t) to[i * 9 + t] = (first ? T(0) : to[i * 9 + t]) + w[t][i];
            }
    };
    // So many units of one group, over strips begin … end - 1.
    auto sum_strips = [=](long unit, long count, long begin, long end, T* out) {
        const long group = unit / own;
        T *z_points = scratch<T, 12>(size_t(PLANES) * z_plane), *a_points = scratch<T, 11>(size_t(PLANES) * a_plane);
        T *sums = scratch<T, 10>(size_t(PLANES) * plane), *squares = scratch<T, 5>(size_t(PLANES) * L * L);
        for (long each = begin; each < end; ++each) {
            const long y = each / (in_row * parts) * TILE, part = each % parts, start = g.m * part / parts;
            const long n = g.m * (part + 1) / parts - start, first = each / parts % in_row * together;
            const long tiles = std::min(together, wide - first), top = y - g.top;
            for (long o = 0; o < count; ++o)
                for (long t = 0; t < tiles; ++t) {
                    const long x = (first + t) * TILE;
                    places_part(std::min(TILE, g.out_h - y), std::min(TILE, g.out_w - x),
                                dZ + (((unit + o) * g.out_h + y) * g.out_w + x) * g.m + start,
                                z_points + o * columns + t * n, n);
                }
            // Channels beside each other: a square of them and examples is turned at each point.
            for (long c = 0; c < deep; c += L) {
                const long strip = c / WIDTH * WIDTH, beside = std::min(WIDTH, deep - strip);
                for (long t = 0; t < tiles; ++t)
                    for (long e = 0; e < n; e += L) {
                        const long left = (first + t) * TILE - g.left;
                        const T* image = A + ((group * channels + c) * g.H + top) * row + left * g.m + start + e;
                        for (long i = 0; i < std::min(L, channels - c); ++i)
                            image_at_points(g, top, left, image + i * g.H * row, squares + i * L, L * L, std::min(L, n - e), prepare);
                        T* to = a_points + strip * (columns + L) + (t * n + e) * beside + c - strip;
                        for (long k = 0; k < PLANES; ++k)
                            transpose_square<T>([=](long i) { return load(squares + (k * L + i) * L); }, to + k * a_plane, beside);
                    }
            }
            Span all{0, tiles * n};
            for (long k = 0; k < PLANES; ++k)
                for (long c = 0; c < deep; c += WIDTH) {
                    const long beside = std::min(WIDTH, deep - c);
                    block<T>(count, beside, &all, 1, z_points + k * z_plane, columns, 1, a_points + k * a_plane + c * (columns + L),
                             offset + (beside / L - 1) * columns, sums + k * plane + c, deep, nullptr, T(1), (each - begin) % RUN > 0);
                }
            if ((each - begin) % RUN == RUN - 1 || each + 1 == end) add_filters(unit, count, sums, out, each - begin < RUN);
        }
    };
    const double cost = 2.0 * units * channels * PLANES * high * wide * g.m;
    // Threads share out the strips, and each has sums of all units; or the units, where those sums are too many.
    if (PLANES * plane * long(sizeof(T)) <= MOST_SUMS)
        return summed_parts(groups, cost, strips, units * channels * 9, dW,
                            [=](long group, long begin, long end, T* out) { sum_strips(group * own, own, begin, end, out); });
    for (long group = 0; group < groups; ++group)
        split(own, cost / groups, ROWS, [=](long begin, long end) {
            sum_strips(group * own + begin, end - begin, 0, strips, dW);
        });
}

// The same with operands O, rounded where they are pairs.
template <class O, class T = Sum<O>>
void convolution_dW_at_points(const Geometry& g, long units, long groups, const Sum<O>* dZ, const Sum<O>* A, T* dW) {
    convolution_dW_at_points(g, units, groups, dZ, A, dW, [](V<T> a) {
        if constexpr (EACH<O> > 1) return rounded(a);
        else return a;
    });
}

}  // namespace
}  // namespace pellucid
