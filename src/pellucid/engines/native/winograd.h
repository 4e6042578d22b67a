// Convolutions of 3×3 taps with stride 1 by Winograd's minimal filtering F(4×4, 3×3): for 16 places and each channel 36
// products instead of 144. Image and filters are seen as polynomials at the points 0, ±√½, ±√2 and infinity, which round
// least: errors are about twice those of the plain sums. Included by kernels.cpp before the convolutions.
// Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (2015), section 4.3.
#pragma once

namespace pellucid {
namespace {

constexpr long TILE = 4, POINTS = TILE + 2, PLANES = POINTS * POINTS;
constexpr float ROOT = 1.41421356237309505f;

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

// Whether it pays: enough channels and units for what making the points costs, and few places and examples that nobody asked
// for. Products of pairs are as fast where filters at the points leave the cache, or more than a little is lost.
template <class O> bool worth_points(const Geometry& g, long units, long groups) {
    constexpr long L = LANES<float>;
    const long fewer = std::min(g.C, units) / groups, more = std::max(g.C, units) / groups;
    if (!std::is_same_v<Sum<O>, float> || g.kh != 3 || g.kw != 3 || g.sh * g.sw * g.dh * g.dw != 1 || g.m < L) return false;
    const double tiles = double((g.out_h + TILE - 1) / TILE) * double((g.out_w + TILE - 1) / TILE);
    const double places = TILE * TILE * tiles / (double(g.out_h) * double(g.out_w));  // for each that is asked for
    if (EACH<O> == 1) return fewer >= 8 && places <= 1.5;
    return fewer >= 48 && fewer * more <= 128 * 256 && places * double((g.m + L - 1) / L * L) <= 1.15 * double(g.m);
}

// Z = W ⋆ A + b for W (units, taps, channels); `prepare` is done to each vector of W and A.
template <class T, class F>
void convolve_at_points(const Geometry& g, long units, long groups, const T* W, const T* A, const T* b, T* Z, F prepare) {
    constexpr long L = LANES<T>;
    const long channels = g.C / groups, own = units / groups, row = g.W * g.m;
    const long high = (g.out_h + TILE - 1) / TILE, wide = (g.out_w + TILE - 1) / TILE;
    // A strip of so many columns, tiles and their examples, takes at the points no more memory than the filters.
    const long most = std::max(VECTORS * L, channels * own / (channels + own));
    const long together = std::min(wide, std::max(1L, most / g.m)), in_row = (wide + together - 1) / together;
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
    // One channel of the image, or one unit's places: the next one's is asked for, as nothing foresees where it lies.
    auto image_part = [=](long top, long left, const T* image, T* to, long n) {
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
                for (long j = 0; j < POINTS; ++j) store(to + (i * POINTS + j) * v_plane + e, at[j], some...);
            }
        };
        sweep<T>(n, part, part);
    };
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
                    image_part(top, left, image, points + c * columns + t * n, n);
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

}  // namespace
}  // namespace pellucid
