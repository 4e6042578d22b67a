// The kernels as Python functions: shapes are checked here, the interpreter's lock is given up, results are made.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "kernels.h"
#include "memory.h"
#include "pool.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace pellucid {
namespace {

template <class T> using In = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;
template <class T> using InOut = nb::ndarray<T, nb::c_contig, nb::device::cpu>;
template <class T> using Out = nb::ndarray<nb::numpy, T>;
using Shape = std::vector<size_t>;

struct Owned {
    void* memory;
    size_t bytes;
    explicit Owned(size_t bytes) : memory(take(bytes)), bytes(bytes) {}
    ~Owned() { give(memory, bytes); }
    Owned(const Owned&) = delete;
};

template <class T> Out<T> make(const Shape& shape) {
    size_t bytes = sizeof(T);
    for (size_t n : shape)
        if (__builtin_mul_overflow(bytes, n, &bytes)) throw std::bad_alloc();
    auto owned = std::make_unique<Owned>(bytes);
    nb::capsule owner(owned.get(), [](void* p) noexcept { delete static_cast<Owned*>(p); });
    return Out<T>(owned.release()->memory, shape.size(), shape.data(), owner);
}

void need(bool right, const char* what) {
    if (!right) throw std::invalid_argument(what);
}

template <class A> Shape shape_of(const A& a) {
    Shape shape(a.ndim());
    for (size_t i = 0; i < shape.size(); ++i) shape[i] = a.shape(i);
    return shape;
}

template <class F> void unlocked(F f) {
    PyThreadState* state = PyEval_SaveThread();
    std::exception_ptr thrown;
    try {
        f();
    } catch (...) {
        thrown = std::current_exception();
    }
    // When the interpreter has ended meanwhile, Python < 3.14 ends this thread by unwinding it, and frames above that do
    // not expect it would end the process: the thread waits for the process's end instead.
    try {
        PyEval_RestoreThread(state);
    } catch (...) {
        for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
    }
    if (thrown) std::rethrow_exception(thrown);
}

using Window = std::tuple<std::vector<long>, std::vector<long>, std::vector<std::tuple<long, long>>, std::vector<long>>;

// One spatial axis is an image of height 1. A convolution's window fits on its image; a pooling's last may reach beyond.
Geometry geometry(const Shape& image, const Window& window, bool fits = true) {
    const auto& [kernel, stride, pads, dilation] = window;
    size_t axes = kernel.size();
    need(axes == 1 || axes == 2, "one or two spatial axes");
    need(image.size() == axes + 2 && stride.size() == axes && pads.size() == axes && dilation.size() == axes,
         "the window has other axes than the image");
    constexpr long MOST = 1L << 30;  // far beyond any memory, and products of two stay whole numbers
    for (size_t n : image) need(n <= size_t(MOST), "an axis is too long");
    Geometry g{};
    bool flat = axes == 1;
    g.C = image[0];
    g.m = image.back();
    g.H = flat ? 1 : image[1];
    g.W = image[axes];
    g.kh = flat ? 1 : kernel[0];
    g.kw = kernel[axes - 1];
    g.sh = flat ? 1 : stride[0];
    g.sw = stride[axes - 1];
    g.dh = flat ? 1 : dilation[0];
    g.dw = dilation[axes - 1];
    if (!flat) std::tie(g.top, g.bottom) = pads[0];
    std::tie(g.left, g.right) = pads[axes - 1];
    need(std::min({g.kh, g.kw, g.sh, g.sw, g.dh, g.dw}) >= 1 && std::min({g.top, g.bottom, g.left, g.right}) >= 0,
         "a window is made of positive numbers");
    need(std::max({g.kh, g.kw, g.sh, g.sw, g.dh, g.dw, g.top, g.bottom, g.left, g.right}) <= MOST, "a window is too large");
    long reach_h = g.H + g.top + g.bottom - g.dh * (g.kh - 1) - 1, reach_w = g.W + g.left + g.right - g.dw * (g.kw - 1) - 1;
    need(!fits || (reach_h >= 0 && reach_w >= 0), "the window is larger than the image");
    g.out_h = reach_h / g.sh + 1;
    g.out_w = reach_w / g.sw + 1;
    return g;
}

Shape spatial(const Geometry& g, size_t axes, long channels) {
    if (axes == 1) return {size_t(channels), size_t(g.out_w), size_t(g.m)};
    return {size_t(channels), size_t(g.out_h), size_t(g.out_w), size_t(g.m)};
}

// How many filters W (units, channels / groups, *kernel) holds.
long filters(const char* what, const Geometry& g, const Shape& W, const Window& window, long groups) {
    const auto& kernel = std::get<0>(window);
    bool right = groups >= 1 && g.C % groups == 0 && W.size() == kernel.size() + 2 && long(W[0]) % groups == 0 &&
                 long(W[1]) == g.C / groups && std::equal(kernel.begin(), kernel.end(), W.begin() + 2, [](long k, size_t n) { return k == long(n); });
    if (!right) throw std::invalid_argument(std::string(what) + ": W (units, channels / groups, *kernel), groups dividing channels and units");
    return W[0];
}

// Pooling may count a last, incomplete place: it says how many there are.
Geometry pooling(const Shape& image, const Window& window, const std::vector<long>& places) {
    Geometry g = geometry(image, window, false);
    need(places.size() == std::get<0>(window).size(), "one number of places for each axis");
    g.out_h = places.size() == 1 ? 1 : places[0];
    g.out_w = places.back();
    need(g.out_h >= 1 && g.out_w >= 1 && std::max(g.out_h, g.out_w) <= 1L << 30 && (g.out_h - 1) * g.sh < g.H + g.top + g.bottom &&
             (g.out_w - 1) * g.sw < g.W + g.left + g.right,
         "a place lies outside the image");
    return g;
}

// A shape seen as (outer, n, inner), n being `count` axes from `axis` on; `kept` is the shape with 1 for each of them.
struct Along {
    long outer = 1, n = 1, inner = 1;
    Shape kept;
    Along(const Shape& shape, size_t axis, size_t count) : kept(shape) {
        need(count >= 1 && axis < shape.size() && count <= shape.size() - axis, "no such axis");
        for (size_t i = 0; i < shape.size(); ++i) (i < axis ? outer : i < axis + count ? n : inner) *= shape[i];
        std::fill_n(kept.begin() + axis, count, 1);
        need(n > 0, "the axis is empty");
    }
};

void classes(const char* what, const Shape& Z, const In<int64_t>& Y) {
    bool right = Z.size() == 2 && Y.ndim() == 1 && Y.shape(0) == Z[1] && Z[0] > 0;
    for (size_t i = 0; right && i < Y.size(); ++i) right = Y.data()[i] >= 0 && Y.data()[i] < int64_t(Z[0]);
    if (!right) throw std::invalid_argument(std::string(what) + ": Z (n, m), and Y (m,) of classes 0 … n - 1");
}

// The product of all but the last `others` axes.
long count(const Shape& shape, size_t others) {
    long n = 1;
    for (size_t i = 0; i + others < shape.size(); ++i) n *= shape[i];
    return n;
}

// A (steps …, ·, m) that a matrix meets along its given axis.
struct Steps {
    long steps, m;
    Shape shape;
    Steps(const char* what, const Shape& W, const Shape& A, size_t axis) : steps(0), m(0), shape(A) {
        need(W.size() == 2 && A.size() >= 2 && A[A.size() - 2] == W[axis], what);
        steps = count(A, 2), m = A.back();
    }
    Shape with(long n) const {
        Shape made = shape;
        made[made.size() - 2] = n;
        return made;
    }
};

// (T, n, m) of a sequence; U (G n, n) and the cell agree with what has T G n m numbers.
struct Recurrent {
    size_t T, n, m;
    int cell;
    Recurrent(int cell, const Shape& U, size_t T, size_t m) : T(T), n(U.size() == 2 ? U[1] : 0), m(m), cell(cell) {
        need(cell >= 0 && cell < CELLS, "recurrence: no cell has that number");
        need(U.size() == 2 && U[0] == GATES[cell] * U[1], "recurrence: U (G n, n)");
        need(T < size_t(1) << 40, "recurrence: too many steps");
    }
    Shape gates() const { return {T, GATES[cell] * n, m}; }
    Shape units() const { return {T, n, m}; }
    Shape states() const { return {T + 1, n, m}; }
    Shape state() const { return {n, m}; }
    template <class A> void given(const std::optional<A>& a, bool must, const Shape& shape, const char* what) const {
        need(a ? shape_of(*a) == shape : !must, what);
    }
};

// A seen as (steps, n, m), a parameter having one number for each of the n: its own axes are A's last, 1 after those of n.
struct PerRow {
    long steps = 1, n = 1, m = 1;
    PerRow(const char* what, const Shape& parameter, const Shape& A) {
        need(parameter.size() <= A.size() && !A.empty(), what);
        size_t begin = A.size() - parameter.size(), end = A.size();
        while (end > begin && parameter[end - 1 - begin] == 1) --end;
        for (size_t i = 0; i < A.size(); ++i) {
            (i < begin ? steps : i < end ? n : m) *= A[i];
            need(i < begin || i >= end || parameter[i - begin] == A[i], what);
        }
    }
};

void levels(const char* what, const In<int64_t>& ids, size_t count) {
    bool right = ids.ndim() == 2;
    for (size_t i = 0; right && i < ids.size(); ++i) right = ids.data()[i] >= 0 && ids.data()[i] < int64_t(count);
    need(right, what);
}

template <class A> auto data(const std::optional<A>& a) { return a ? a->data() : nullptr; }

}  // namespace
}  // namespace pellucid

#include "program.h"

namespace pellucid {
namespace {

template <class T> void define(nb::module_& m) {
    m.def("affine", [](In<T> W, In<T> A, std::optional<In<T>> b, bool bfloat16) {
        Steps s("affine: W (n, n_prev) and A_prev (…, n_prev, m)", shape_of(W), shape_of(A), 1);
        need(!b || b->size() == W.shape(0), "affine: b (n, 1)");
        long n = W.shape(0), k = W.shape(1);
        auto Z = make<T>(s.with(n));
        unlocked([&] {
            const T* bias = b ? b->data() : nullptr;
            if (s.steps == 1) kernels<T>(bfloat16).matmul(n, s.m, k, W.data(), k, 1, A.data(), Z.data(), bias, T(1));
            else kernels<T>(bfloat16).matmul_steps(s.steps, n, s.m, k, W.data(), k, 1, A.data(), Z.data(), bias);
        });
        return Z;
    }, "W"_a.noconvert(), "A_prev"_a.noconvert(), "b"_a.noconvert().none(), "bfloat16"_a = false);
    m.def("affine_dW", [](In<T> dZ, In<T> A, bool bfloat16) {
        Shape z = shape_of(dZ), a = shape_of(A);
        need(z.size() >= 2 && z.size() == a.size() && z.back() == a.back() && std::equal(z.begin(), z.end() - 2, a.begin()),
             "affine_dW: dZ (…, n, m) and A_prev (…, n_prev, m)");
        need(z.back() > 0, "affine_dW: there are no examples to take the mean of");
        long m = z.back(), n = z[z.size() - 2], k = a[a.size() - 2], steps = count(z, 2);
        auto dW = make<T>({size_t(n), size_t(k)});
        unlocked([&] {
            if (steps == 1) kernels<T>(bfloat16).affine_dW(n, k, m, dZ.data(), A.data(), dW.data());
            else kernels<T>(bfloat16).affine_dW_steps(steps, n, k, m, dZ.data(), A.data(), dW.data());
        });
        return dW;
    }, "dZ"_a.noconvert(), "A_prev"_a.noconvert(), "bfloat16"_a = false);
    m.def("affine_db", [](In<T> dZ) {
        Shape z = shape_of(dZ);
        need(z.size() >= 2 && z.back() > 0, "affine_db: dZ (…, n, m), and there are examples to take the mean of");
        long n = z[z.size() - 2];
        auto db = make<T>({size_t(n), 1});
        unlocked([&] { kernels<T>().affine_db(count(z, 2), n, z.back(), dZ.data(), db.data()); });
        return db;
    }, "dZ"_a.noconvert());
    m.def("affine_dA", [](In<T> W, In<T> dZ, bool bfloat16) {
        Steps s("affine_dA: W (n, n_prev) and dZ (…, n, m)", shape_of(W), shape_of(dZ), 0);
        long n = W.shape(0), k = W.shape(1);
        auto dA = make<T>(s.with(k));
        unlocked([&] {
            if (s.steps == 1) kernels<T>(bfloat16).matmul(k, s.m, n, W.data(), 1, k, dZ.data(), dA.data(), nullptr, T(1));
            else kernels<T>(bfloat16).matmul_steps(s.steps, k, s.m, n, W.data(), 1, k, dZ.data(), dA.data(), nullptr);
        });
        return dA;
    }, "W"_a.noconvert(), "dZ"_a.noconvert(), "bfloat16"_a = false);
    m.def("row_sums", [](In<T> A, double divisor) {  // over all axes but the first, as a column
        need(A.ndim() >= 1 && (A.size() > 0 || A.shape(0) == 0), "row_sums: there are no examples to take the mean of");
        Shape column(A.ndim(), 1);
        column[0] = A.shape(0);
        auto sums = make<T>(column);
        long n = A.shape(0);
        unlocked([&] { kernels<T>().row_means(n, n ? A.size() / n : 0, A.data(), T(divisor), sums.data()); });
        return sums;
    }, "A"_a.noconvert(), "divisor"_a);

    m.def("convolution", [](In<T> W, In<T> A, std::optional<In<T>> b, const Window& window, long groups, bool bfloat16) {
        Shape image = shape_of(A);
        Geometry g = geometry(image, window);
        long units = filters("convolution", g, shape_of(W), window, groups);
        need(!b || b->size() == size_t(units), "convolution: b (units, 1, …)");
        auto Z = make<T>(spatial(g, image.size() - 2, units));
        if (!Z.size()) return Z;
        unlocked([&] { kernels<T>(bfloat16).convolution(g, units, groups, W.data(), A.data(), data(b), Z.data()); });
        return Z;
    }, "W"_a.noconvert(), "A_prev"_a.noconvert(), "b"_a.noconvert().none(), "window"_a, "groups"_a, "bfloat16"_a = false);
    m.def("convolution_dW", [](In<T> dZ, In<T> A, const Window& window, long groups, bool bfloat16) {
        Shape image = shape_of(A);
        Geometry g = geometry(image, window);
        long units = dZ.ndim() ? dZ.shape(0) : 0;
        need(g.m > 0, "convolution_dW: there are no examples to take the mean of");
        need(groups >= 1 && g.C % groups == 0 && units % groups == 0, "convolution_dW: groups divide channels and units");
        need(shape_of(dZ) == spatial(g, image.size() - 2, units), "convolution_dW: dZ (units, *places, m)");
        Shape shape{size_t(units), size_t(g.C / groups)};
        for (long k : std::get<0>(window)) shape.push_back(k);
        auto dW = make<T>(shape);
        if (!dW.size()) return dW;
        unlocked([&] { kernels<T>(bfloat16).convolution_dW(g, units, groups, dZ.data(), A.data(), dW.data()); });
        return dW;
    }, "dZ"_a.noconvert(), "A_prev"_a.noconvert(), "window"_a, "groups"_a, "bfloat16"_a = false);
    m.def("convolution_dA", [](In<T> W, In<T> dZ, const Shape& image, const Window& window, long groups, bool bfloat16) {
        Geometry g = geometry(image, window);
        long units = filters("convolution_dA", g, shape_of(W), window, groups);
        need(shape_of(dZ) == spatial(g, image.size() - 2, units), "convolution_dA: dZ (units, *places, m)");
        auto dA = make<T>(image);
        if (!dA.size()) return dA;
        unlocked([&] { kernels<T>(bfloat16).convolution_dA(g, units, groups, W.data(), dZ.data(), dA.data()); });
        return dA;
    }, "W"_a.noconvert(), "dZ"_a.noconvert(), "shape"_a, "window"_a, "groups"_a, "bfloat16"_a = false);

    m.def("max_pool", [](In<T> A_prev, const Window& window, const std::vector<long>& places) {
        Geometry g = pooling(shape_of(A_prev), window, places);
        Shape shape = spatial(g, places.size(), g.C);
        auto A = make<T>(shape);
        auto taps = make<int32_t>(shape);
        unlocked([&] { kernels<T>().max_pool(g, A_prev.data(), A.data(), taps.data()); });
        return std::make_tuple(A, taps);
    }, "A_prev"_a.noconvert(), "window"_a, "places"_a);
    m.def("max_pool_backward", [](In<T> dA, In<int32_t> taps, const Shape& image, const Window& window) {
        Shape places = shape_of(dA);
        need(places == shape_of(taps) && places.size() == image.size(), "max_pool_backward: dA and taps of one shape");
        Geometry g = pooling(image, window, std::vector<long>(places.begin() + 1, places.end() - 1));
        need(places[0] == image[0] && places.back() == image.back(), "max_pool_backward: channels and examples");
        auto dA_prev = make<T>(image);
        unlocked([&] { kernels<T>().max_pool_backward(g, dA.data(), taps.data(), dA_prev.data()); });
        return dA_prev;
    }, "dA"_a.noconvert(), "taps"_a.noconvert(), "shape"_a, "window"_a);
    m.def("sum_pool", [](In<T> A_prev, const Window& window, const std::vector<long>& places) {
        Geometry g = pooling(shape_of(A_prev), window, places);
        auto A = make<T>(spatial(g, places.size(), g.C));
        unlocked([&] { kernels<T>().sum_pool(g, A_prev.data(), A.data()); });
        return A;
    }, "A_prev"_a.noconvert(), "window"_a, "places"_a);
    m.def("sum_pool_backward", [](In<T> dA, const Shape& image, const Window& window) {
        Shape places = shape_of(dA);
        need(places.size() == image.size() && places[0] == image[0] && places.back() == image.back(),
             "sum_pool_backward: channels and examples");
        Geometry g = pooling(image, window, std::vector<long>(places.begin() + 1, places.end() - 1));
        auto dA_prev = make<T>(image);
        unlocked([&] { kernels<T>().sum_pool_backward(g, dA.data(), dA_prev.data()); });
        return dA_prev;
    }, "dA"_a.noconvert(), "shape"_a, "window"_a);

    m.def("activation", [](int kind, In<T> Z, double constant) {
        need(kind >= 0 && kind < KINDS, "activation: no kernel has that number");
        auto A = make<T>(shape_of(Z));
        unlocked([&] { kernels<T>().activation(kind, Z.size(), Z.data(), A.data(), T(constant)); });
        return A;
    }, "kind"_a, "Z"_a.noconvert(), "constant"_a);
    m.def("activation_in_place", [](int kind, InOut<T> Z, double constant) {
        need(kind >= 0 && kind < KINDS, "activation: no kernel has that number");
        unlocked([&] { kernels<T>().activation(kind, Z.size(), Z.data(), Z.data(), T(constant)); });
    }, "kind"_a, "Z"_a.noconvert(), "constant"_a);
    m.def("activation_backward", [](int kind, In<T> dA, In<T> kept, double constant) {
        need(kind >= 0 && kind < KINDS, "activation_backward: no kernel has that number");
        need(shape_of(dA) == shape_of(kept), "activation_backward: dA and what was kept have one shape");
        auto dZ = make<T>(shape_of(dA));
        unlocked([&] { kernels<T>().activation_backward(kind, dA.size(), dA.data(), kept.data(), dZ.data(), T(constant)); });
        return dZ;
    }, "kind"_a, "dA"_a.noconvert(), "kept"_a.noconvert(), "constant"_a);

    m.def("erf", [](In<T> Z) {
        auto A = make<T>(shape_of(Z));
        unlocked([&] { kernels<T>().erf(Z.size(), Z.data(), A.data()); });
        return A;
    }, "Z"_a.noconvert());
    m.def("prelu", [](In<T> a, In<T> Z) {
        PerRow s("prelu: a (n, 1, …) and Z (n, …, m)", shape_of(a), shape_of(Z));
        need(s.steps == 1, "prelu: a (n, 1, …) and Z (n, …, m)");
        auto A = make<T>(shape_of(Z));
        unlocked([&] { kernels<T>().prelu(s.n, s.m, a.data(), Z.data(), A.data()); });
        return A;
    }, "a"_a.noconvert(), "Z"_a.noconvert());
    m.def("prelu_backward", [](In<T> a, In<T> dA, In<T> Z) {
        PerRow s("prelu_backward: a (n, 1, …), dA and Z (n, …, m)", shape_of(a), shape_of(Z));
        need(s.steps == 1 && shape_of(dA) == shape_of(Z), "prelu_backward: a (n, 1, …), dA and Z (n, …, m)");
        need(Z.size() > 0, "prelu_backward: there are no examples to take the mean of");
        auto dZ = make<T>(shape_of(Z)), da = make<T>(shape_of(a));
        unlocked([&] {
            kernels<T>().prelu_backward(s.n, s.m, a.data(), dA.data(), Z.data(), T(Z.shape(Z.ndim() - 1)), dZ.data(), da.data());
        });
        return std::make_tuple(dZ, da);
    }, "a"_a.noconvert(), "dA"_a.noconvert(), "Z"_a.noconvert());
    m.def("scale", [](In<T> gamma, In<T> A_hat, In<T> beta) {
        PerRow s("scale: gamma and beta like the last axes of A_hat, or 1", shape_of(gamma), shape_of(A_hat));
        need(shape_of(gamma) == shape_of(beta), "scale: gamma and beta of one shape");
        auto A = make<T>(shape_of(A_hat));
        unlocked([&] { kernels<T>().scale(s.steps, s.n, s.m, gamma.data(), A_hat.data(), beta.data(), A.data()); });
        return A;
    }, "gamma"_a.noconvert(), "A_hat"_a.noconvert(), "beta"_a.noconvert());
    m.def("scale_backward", [](In<T> gamma, In<T> dA, In<T> A_hat) {
        PerRow s("scale_backward: gamma like the last axes of A_hat, or 1", shape_of(gamma), shape_of(A_hat));
        need(shape_of(dA) == shape_of(A_hat), "scale_backward: dA and A_hat of one shape");
        need(dA.size() > 0, "scale_backward: there are no examples to take the mean of");
        auto dA_hat = make<T>(shape_of(dA)), dgamma = make<T>(shape_of(gamma)), dbeta = make<T>(shape_of(gamma));
        unlocked([&] {
            kernels<T>().scale_backward(s.steps, s.n, s.m, gamma.data(), dA.data(), A_hat.data(), T(dA.shape(dA.ndim() - 1)),
                                        dA_hat.data(), dgamma.data(), dbeta.data());
        });
        return std::make_tuple(dA_hat, dgamma, dbeta);
    }, "gamma"_a.noconvert(), "dA"_a.noconvert(), "A_hat"_a.noconvert());
    m.def("local_response", [](In<T> A_prev, size_t before, size_t after, double alpha, double beta, double k) {
        Along at(shape_of(A_prev), 0, 1);
        auto A = make<T>(shape_of(A_prev)), S = make<T>(shape_of(A_prev));
        unlocked([&] {
            kernels<T>().local_response(at.n, at.inner, std::min<long>(before, at.n), std::min<long>(after, at.n), T(alpha), T(beta), T(k),
                                        A_prev.data(), A.data(), S.data());
        });
        return std::make_tuple(A, S);
    }, "A_prev"_a.noconvert(), "before"_a, "after"_a, "alpha"_a, "beta"_a, "k"_a);
    m.def("local_response_backward", [](In<T> dA, In<T> A_prev, In<T> S, size_t before, size_t after, double alpha, double beta) {
        Along at(shape_of(A_prev), 0, 1);
        need(shape_of(dA) == shape_of(A_prev) && shape_of(S) == shape_of(A_prev), "local_response_backward: arrays of one shape");
        auto dA_prev = make<T>(shape_of(A_prev));
        unlocked([&] {
            kernels<T>().local_response_backward(at.n, at.inner, std::min<long>(before, at.n), std::min<long>(after, at.n), T(alpha), T(beta),
                                                 dA.data(), A_prev.data(), S.data(), dA_prev.data());
        });
        return dA_prev;
    }, "dA"_a.noconvert(), "A_prev"_a.noconvert(), "S"_a.noconvert(), "before"_a, "after"_a, "alpha"_a, "beta"_a);

    m.def("softmax_cross_entropy", [](In<T> Z, In<int64_t> Y, double smoothing) {
        classes("softmax_cross_entropy", shape_of(Z), Y);
        long n = Z.shape(0), m = Z.shape(1);
        auto losses = make<T>({size_t(m)});
        auto P = make<T>({size_t(n), size_t(m)});
        unlocked([&] { kernels<T>().softmax_cross_entropy(n, m, Z.data(), Y.data(), T(smoothing), losses.data(), P.data()); });
        return std::make_tuple(losses, P);
    }, "Z"_a.noconvert(), "Y"_a.noconvert(), "smoothing"_a);

    m.def("normalize", [](In<T> A, double epsilon) {  // each row: over all axes but the first
        need(A.ndim() >= 2 && A.size() > 0, "normalize: (n, …, m), not empty");
        Shape column(A.ndim(), 1);
        column[0] = A.shape(0);
        auto A_hat = make<T>(shape_of(A));
        auto mean = make<T>(column), variance = make<T>(column);
        unlocked([&] {
            kernels<T>().normalize(A.shape(0), A.size() / A.shape(0), A.data(), T(epsilon), A_hat.data(), mean.data(), variance.data());
        });
        return std::make_tuple(A_hat, mean, variance);
    }, "A_prev"_a.noconvert(), "epsilon"_a);
    m.def("normalize_backward", [](In<T> dA_hat, In<T> A_hat, In<T> variance, double epsilon) {
        need(dA_hat.ndim() >= 2 && shape_of(dA_hat) == shape_of(A_hat) && variance.size() == dA_hat.shape(0) && A_hat.size() > 0,
             "normalize_backward: dA_hat and A_hat (n, …, m), variance (n, 1, …)");
        auto dA = make<T>(shape_of(A_hat));
        unlocked([&] {
            kernels<T>().normalize_backward(A_hat.shape(0), A_hat.size() / A_hat.shape(0), dA_hat.data(), A_hat.data(),
                                            variance.data(), T(epsilon), dA.data());
        });
        return dA;
    }, "dA_hat"_a.noconvert(), "A_hat"_a.noconvert(), "variance"_a.noconvert(), "epsilon"_a);

    m.def("softmax_cross_entropy_backward", [](In<T> P, In<int64_t> Y, double smoothing) {
        classes("softmax_cross_entropy_backward", shape_of(P), Y);
        auto dZ = make<T>(shape_of(P));
        unlocked([&] { kernels<T>().softmax_cross_entropy_backward(P.shape(0), P.shape(1), P.data(), Y.data(), T(smoothing), dZ.data()); });
        return dZ;
    }, "P"_a.noconvert(), "Y"_a.noconvert(), "smoothing"_a);

    m.def("softmax", [](In<T> Z, size_t axis) {
        Along at(shape_of(Z), axis, 1);
        auto A = make<T>(shape_of(Z));
        unlocked([&] { kernels<T>().softmax(at.outer, at.n, at.inner, Z.data(), A.data()); });
        return A;
    }, "Z"_a.noconvert(), "axis"_a);
    m.def("softmax_backward", [](In<T> dA, In<T> A, size_t axis) {
        need(shape_of(dA) == shape_of(A), "softmax_backward: dA and A of one shape");
        Along at(shape_of(A), axis, 1);
        auto dZ = make<T>(shape_of(A));
        unlocked([&] { kernels<T>().softmax_backward(at.outer, at.n, at.inner, dA.data(), A.data(), dZ.data()); });
        return dZ;
    }, "dA"_a.noconvert(), "A"_a.noconvert(), "axis"_a);
    m.def("normalize_columns", [](In<T> A, size_t axis, size_t count, double epsilon) {  // over `count` axes from `axis` on
        Along at(shape_of(A), axis, count);
        auto A_hat = make<T>(shape_of(A));
        auto mean = make<T>(at.kept), variance = make<T>(at.kept);
        unlocked([&] {
            kernels<T>().normalize_columns(at.outer, at.n, at.inner, A.data(), T(epsilon), A_hat.data(), mean.data(), variance.data());
        });
        return std::make_tuple(A_hat, mean, variance);
    }, "A_prev"_a.noconvert(), "axis"_a, "count"_a, "epsilon"_a);
    m.def("normalize_columns_backward", [](In<T> dA_hat, In<T> A_hat, In<T> variance, size_t axis, size_t count, double epsilon) {
        Along at(shape_of(A_hat), axis, count);
        need(shape_of(dA_hat) == shape_of(A_hat) && shape_of(variance) == at.kept,
             "normalize_columns_backward: dA_hat and A_hat of one shape, variance with 1 along the axes");
        auto dA = make<T>(shape_of(A_hat));
        unlocked([&] {
            kernels<T>().normalize_columns_backward(at.outer, at.n, at.inner, dA_hat.data(), A_hat.data(), variance.data(), T(epsilon), dA.data());
        });
        return dA;
    }, "dA_hat"_a.noconvert(), "A_hat"_a.noconvert(), "variance"_a.noconvert(), "axis"_a, "count"_a, "epsilon"_a);

    m.def("dropout_backward", [](In<T> dA, In<uint8_t> D, double rate) {
        need(shape_of(dA) == shape_of(D) && rate >= 0 && T(rate) < 1, "dropout_backward: dA and D of one shape, a rate in [0, 1)");
        auto dA_prev = make<T>(shape_of(dA));
        unlocked([&] { kernels<T>().dropout_backward(dA.size(), dA.data(), D.data(), T(rate), dA_prev.data()); });
        return dA_prev;
    }, "dA"_a.noconvert(), "D"_a.noconvert(), "rate"_a);
    m.def("dropout", [](uint64_t key, In<T> A_prev, double rate) {
        need(rate >= 0 && T(rate) < 1, "dropout: a rate in [0, 1)");
        auto A = make<T>(shape_of(A_prev));
        auto D = make<uint8_t>(shape_of(A_prev));
        unlocked([&] { kernels<T>().dropout(A_prev.size(), key, T(rate), A_prev.data(), A.data(), D.data()); });
        return std::make_tuple(A, D);
    }, "key"_a, "A_prev"_a.noconvert(), "rate"_a);

    m.def("recurrence", [](int cell, InOut<T> Z, In<T> U, std::optional<In<T>> c, In<T> h, std::optional<In<T>> C,
                           std::optional<In<uint8_t>> mask) {
        need(Z.ndim() == 3, "recurrence: Z (T, G n, m)");
        Recurrent s(cell, shape_of(U), Z.shape(0), Z.shape(2));
        need(shape_of(Z) == s.gates(), "recurrence: Z (T, G n, m) and U (G n, n)");
        need(shape_of(h) == s.state(), "recurrence: a state is (n, m)");
        s.given(C, cell == LSTM_CELL, s.state(), "recurrence: a state is (n, m)");
        s.given(mask, false, {s.T, s.m}, "recurrence: the mask is (T, m)");
        need(!c || c->size() == s.n, "recurrence: c (n, 1)");
        auto H = make<T>(s.states());
        std::optional<Out<T>> cells, v;
        if (cell == LSTM_CELL) cells = make<T>(s.states());
        if (cell == GRU_CELL) v = make<T>(s.units());
        std::copy_n(h.data(), h.size(), H.data());
        if (cells) std::copy_n(C->data(), C->size(), cells->data());
        unlocked([&] {
            kernels<T>().recurrence({cell, long(s.T), long(s.n), long(s.m), U.data(), data(c), data(mask), Z.data(), H.data(), data(cells), data(v)});
        });
        return std::make_tuple(H, cells, v);
    }, "cell"_a, "Z"_a.noconvert(), "U"_a.noconvert(), "c"_a.noconvert().none(), "h"_a.noconvert(), "C"_a.noconvert().none(),
       "mask"_a.noconvert().none());
    m.def("recurrence_backward", [](int cell, In<T> U, In<T> H, std::optional<In<T>> C, std::optional<In<T>> Z, std::optional<In<T>> v,
                                    std::optional<In<uint8_t>> mask, std::optional<In<T>> dA, std::optional<In<T>> d_h,
                                    std::optional<In<T>> d_C, std::optional<In<T>> X, bool to_inputs) {
        need(H.ndim() == 3 && H.shape(0) > 0, "recurrence_backward: the states are (T + 1, n, m)");
        Recurrent s(cell, shape_of(U), H.shape(0) - 1, H.shape(2));
        need(shape_of(H) == s.states(), "recurrence_backward: the states are (T + 1, n, m), U (G n, n)");
        bool lstm = cell == LSTM_CELL, gru = cell == GRU_CELL;
        s.given(C, lstm, s.states(), "recurrence_backward: the states are (T + 1, n, m)");
        s.given(Z, lstm || gru, s.gates(), "recurrence_backward: the gates are (T, G n, m)");
        s.given(v, gru, s.units(), "recurrence_backward: v (T, n, m)");
        s.given(mask, false, {s.T, s.m}, "recurrence_backward: the mask is (T, m)");
        s.given(dA, false, s.units(), "recurrence_backward: dA (T, n, m)");
        s.given(d_h, false, s.state(), "recurrence_backward: a state's gradient is (n, m)");
        s.given(d_C, false, s.state(), "recurrence_backward: a state's gradient is (n, m)");
        auto start = [&](const std::optional<In<T>>& given) {
            auto d = make<T>(s.state());
            if (given) std::copy_n(given->data(), given->size(), d.data());
            else std::fill_n(d.data(), d.size(), T(0));
            return d;
        };
        std::optional<Out<T>> dZ, dV, dC, dW, dU, db;
        if (to_inputs) dZ = make<T>(s.gates());
        dV = gru ? make<T>(s.gates()) : dZ;
        auto dh = start(d_h);
        if (lstm) dC = start(d_C);
        long n_x = X && X->ndim() == 3 ? X->shape(1) : 0;
        need(X ? !gru : to_inputs, "recurrence_backward: dW, dU and db are made from X, but not for a GRU");
        s.given(X, false, {s.T, size_t(n_x), s.m}, "recurrence_backward: X (T, n_x, m)");
        if (X) {
            need(s.m > 0, "recurrence_backward: there are no examples to take the mean of");
            dW = make<T>({U.shape(0), size_t(n_x)}), dU = make<T>(shape_of(U)), db = make<T>({U.shape(0), 1});
        }
        unlocked([&] {
            kernels<T>().recurrence_backward({cell, long(s.T), long(s.n), long(s.m), U.data(), data(mask), data(Z), H.data(), data(C), data(v),
                                              data(dA), data(dZ), data(dV), dh.data(), data(dC), n_x, data(X), data(dW), data(dU),
                                              data(db), to_inputs});
        });
        return std::make_tuple(dZ, dV, dh, dC, dW, dU, db);
    }, "cell"_a, "U"_a.noconvert(), "H"_a.noconvert(), "C"_a.noconvert().none(), "Z"_a.noconvert().none(), "v"_a.noconvert().none(),
       "mask"_a.noconvert().none(), "dA"_a.noconvert().none(), "d_h"_a.noconvert().none(), "d_C"_a.noconvert().none(),
       "X"_a.noconvert().none() = nb::none(), "to_inputs"_a = true);

    m.def("recurrent", [](int cell, In<T> X, In<T> W, In<T> U, std::optional<In<T>> b, In<T> h, std::optional<In<T>> C,
                          std::optional<In<uint8_t>> mask) {
        need(X.ndim() == 3, "recurrent: X (T, n_x, m)");
        Recurrent s(cell, shape_of(U), X.shape(0), X.shape(2));
        bool lstm = cell == LSTM_CELL;
        need(cell != GRU_CELL, "recurrent: a GRU adds its two products elsewhere");
        need(shape_of(W) == Shape{U.shape(0), X.shape(1)}, "recurrent: W (G n, n_x) and U (G n, n)");
        need(!b || b->size() == U.shape(0), "recurrent: b (G n, 1)");
        need(shape_of(h) == s.state(), "recurrent: a state is (n, m)");
        s.given(C, lstm, s.state(), "recurrent: a state is (n, m)");
        s.given(mask, false, {s.T, s.m}, "recurrent: the mask is (T, m)");
        auto H = make<T>(s.states());
        std::optional<Out<T>> cells, Z;
        if (lstm) cells = make<T>(s.states()), Z = make<T>(s.gates());
        std::copy_n(h.data(), h.size(), H.data());
        if (lstm) std::copy_n(C->data(), C->size(), cells->data());
        unlocked([&] {
            kernels<T>().recurrence({cell, long(s.T), long(s.n), long(s.m), U.data(), nullptr, data(mask), data(Z), H.data(), data(cells),
                                     nullptr, long(X.shape(1)), X.data(), W.data(), data(b)});
        });
        return std::make_tuple(H, cells, Z);
    }, "cell"_a, "X"_a.noconvert(), "W"_a.noconvert(), "U"_a.noconvert(), "b"_a.noconvert().none(), "h"_a.noconvert(),
       "C"_a.noconvert().none(), "mask"_a.noconvert().none());

    m.def("embedding", [](In<T> W, In<int64_t> ids) {
        need(W.ndim() == 2, "embedding: W (n, levels)");
        levels("embedding: ids (T, m) of 0 … levels - 1", ids, W.shape(1));
        long steps = ids.shape(0), n = W.shape(0), m = ids.shape(1);
        auto A = make<T>({size_t(steps), size_t(n), size_t(m)});
        unlocked([&] { kernels<T>().embedding(steps, n, W.shape(1), m, W.data(), ids.data(), A.data()); });
        return A;
    }, "W"_a.noconvert(), "ids"_a.noconvert());
    m.def("embedding_dW", [](In<T> dA, In<int64_t> ids, size_t count) {
        levels("embedding_dW: ids (T, m) of 0 … levels - 1", ids, count);
        need(dA.ndim() == 3 && dA.shape(0) == ids.shape(0) && dA.shape(2) == ids.shape(1), "embedding_dW: dA (T, n, m) and ids (T, m)");
        need(ids.shape(1) > 0, "embedding_dW: there are no examples to take the mean of");
        auto dW = make<T>({dA.shape(1), count});
        unlocked([&] { kernels<T>().embedding_dW(ids.shape(0), dA.shape(1), count, ids.shape(1), dA.data(), ids.data(), dW.data()); });
        return dW;
    }, "dA"_a.noconvert(), "ids"_a.noconvert(), "levels"_a);

    m.def("update", [](int rule, InOut<T> W, In<T> dW, const std::vector<InOut<T>>& slots, const std::vector<double>& constants) {
        need(rule >= 0 && rule < RULES && SLOTS[rule] == long(slots.size()), "update: no rule has that number and as many slots");
        need(shape_of(W) == shape_of(dW) && constants.size() == 6, "update: W and dW of one shape, six constants");
        T* memory[2] = {nullptr, nullptr};
        for (size_t i = 0; i < slots.size(); ++i) {
            need(shape_of(slots[i]) == shape_of(W), "update: slots of W's shape");
            memory[i] = slots[i].data();
        }
        unlocked([&] { kernels<T>().update(rule, W.size(), W.data(), dW.data(), memory, constants.data()); });
    }, "rule"_a, "W"_a.noconvert(), "dW"_a.noconvert(), "slots"_a, "constants"_a);

    auto examples_last = [](const auto& x, In<int64_t> rows, auto kernel) {
        need(x.ndim() >= 2 && rows.ndim() == 1, "examples_last: x (m, …) and the rows to take");
        long n = x.shape(0) ? x.size() / x.shape(0) : 0;
        for (size_t i = 0; i < rows.size(); ++i) need(rows.data()[i] >= 0 && size_t(rows.data()[i]) < x.shape(0), "examples_last: no such row");
        Shape shape = shape_of(x);
        shape.erase(shape.begin());
        shape.push_back(rows.shape(0));
        auto X = make<T>(shape);
        unlocked([&] { kernel(rows.shape(0), n, rows.data(), x.data(), X.data()); });
        return X;
    };
    m.def("examples_last", [=](In<T> x, In<int64_t> rows) {
        return examples_last(x, rows, kernels<T>().examples_last);
    }, "x"_a.noconvert(), "rows"_a.noconvert());
    m.def(sizeof(T) == 4 ? "float32_examples_last" : "float64_examples_last", [=](In<uint8_t> x, In<int64_t> rows) {
        return examples_last(x, rows, kernels<T>().examples_last_of_bytes);
    }, "x"_a.noconvert(), "rows"_a.noconvert());
}

}  // namespace
}  // namespace pellucid

// What threadpoolctl calls: see _threadpoolctl in __init__.py.
#define PELLUCID_SEEN extern "C" __attribute__((visibility("default")))
PELLUCID_SEEN int pellucid_get_num_threads() { return pellucid::threads(); }
PELLUCID_SEEN void pellucid_set_num_threads(int n) { pellucid::set_threads(n); }

NB_MODULE(_kernels, m) {
    using namespace pellucid;
    m.doc() = "Kernels of pellucid's native engine; arrays are contiguous, examples last.";
    define<float>(m);
    define<double>(m);
    define_program<float>(m, "Program_float32");
    define_program<double>(m, "Program_float64");
    m.def("instruction_set", [](bool bfloat16) { return std::string(kernels<float>(bfloat16).name); }, "bfloat16"_a = false);
    m.attr("interface") = PELLUCID_INTERFACE;
    m.def("threads", &threads);
    m.def("set_threads", [](int n) { unlocked([=] { set_threads(n); }); }, "n"_a);  // waits for the old workers' end
    m.def("held_bytes", &held);
    m.def("used_bytes", &used);
    m.def("peak_bytes", &peak);
    m.def("scratch_bytes", &scratch_bytes);
    m.def("reset_peak", &reset_peak);
    m.def("release", &release);
}
