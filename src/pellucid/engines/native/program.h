// A prediction as one call: the kernels that a network's layers run, recorded once, and run on examples that come later.
// Part of module.cpp, with whose checks of shapes every step is recorded.
#pragma once

namespace pellucid {
namespace {

// Whether a dictionary still holds the very objects that it held.
bool holds(const nb::dict& now, const nb::dict& then) {
    PyObject *key, *value;
    for (Py_ssize_t at = 0; PyDict_Next(then.ptr(), &at, &key, &value);)
        if (PyDict_GetItemWithError(now.ptr(), key) != value) return false;
    return true;
}

template <class T> class Program {
public:
    Program(const Shape& input, nb::object dtype)
        : input(input), dtype(dtype), empty(nb::module_::import_("numpy").attr("empty")), numbers{numbers_in(input)} {}

    // Each step reads a value by its number, 0 being the input, seen in a shape; it makes a value of a number and a shape.
    // Shapes are those of one example, without its axis.
    using Made = std::tuple<size_t, Shape>;
    Made affine(size_t A_prev, const Shape& shape, In<T> W, std::optional<In<T>> b) {
        Steps s("affine: W (n, n_prev) and A_prev (…, n_prev, m)", shape_of(W), one(A_prev, shape), 1);
        need(!b || b->size() == W.shape(0), "affine: b (n, 1)");
        long n = W.shape(0), k = W.shape(1), steps = s.steps;
        return then(s.with(n), [=](long m, T* const* at, T* Z) {
            if (steps == 1) kernels<T>().matmul(n, m, k, W.data(), k, 1, at[A_prev], Z, data(b), T(1));
            else kernels<T>().matmul_steps(steps, n, m, k, W.data(), k, 1, at[A_prev], Z, data(b));
        });
    }
    Made convolution(size_t A_prev, const Shape& shape, In<T> W, std::optional<In<T>> b, const Window& window, long groups) {
        Geometry g = geometry(one(A_prev, shape), window);
        long units = filters("convolution", g, shape_of(W), window, groups);
        need(!b || b->size() == size_t(units), "convolution: b (units, 1, …)");
        return then(spatial(g, shape.size() - 1, units), [=](long m, T* const* at, T* Z) {
            kernels<T>().convolution(with(g, m), units, groups, W.data(), at[A_prev], data(b), Z);
        });
    }
    Made max_pool(size_t A_prev, const Shape& shape, const Window& window, const std::vector<long>& places) {
        static_assert(sizeof(T) >= sizeof(int32_t));
        Geometry g = pooling(one(A_prev, shape), window, places);
        size_t taps = value(g.C * g.out_h * g.out_w);
        return then(spatial(g, places.size(), g.C), [=](long m, T* const* at, T* A) {
            kernels<T>().max_pool(with(g, m), at[A_prev], A, reinterpret_cast<int32_t*>(at[taps]));
        });
    }
    Made activation(size_t Z, const Shape& shape, int kind, double constant, bool in_place) {
        need(kind >= 0 && kind < KINDS, "activation: no kernel has that number");
        Shape whole = one(Z, shape);
        long n = numbers[Z];
        auto run = [=](long m, T* const* at, T* A) { kernels<T>().activation(kind, n * m, at[Z], A, T(constant)); };
        if (!in_place || Z == 0) return then(whole, run);  // users' examples are never written to
        steps.push_back([=](long m, T* const* at) { run(m, at, at[Z]); });
        return {Z, shape};
    }
    Made softmax(size_t Z, const Shape& shape, size_t axis) {
        Along along(shape, axis, 1);
        return then(one(Z, shape), [=](long m, T* const* at, T* A) {
            kernels<T>().softmax(along.outer, along.n, along.inner * m, at[Z], A);
        });
    }
    void end(size_t value, const Shape& shape) {
        one(value, shape);
        need(value > 0, "program: nothing was recorded");
        last = value, output = shape;
    }

    // The outputs (m, …) for examples x (m, …); None where x is anything but 1 to `most` finite examples of the
    // network's own float type that lie one behind the other.
    nb::object operator()(nb::handle x, long most) const {
        Py_buffer given;
        if (PyObject_GetBuffer(x.ptr(), &given, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS)) {
            PyErr_Clear();
            return nb::none();
        }
        std::unique_ptr<Py_buffer, decltype(&PyBuffer_Release)> release(&given, &PyBuffer_Release);
        const char own[] = {sizeof(T) == 4 ? 'f' : 'd', 0};
        bool right = last > 0 && size_t(given.ndim) == input.size() + 1 && !std::strcmp(given.format, own) &&
                     uintptr_t(given.buf) % alignof(T) == 0 &&
                     std::equal(input.begin(), input.end(), given.shape + 1, [](size_t n, Py_ssize_t got) { return Py_ssize_t(n) == got; });
        long m = right ? given.shape[0] : 0;
        if (m < 1 || m > most) return nb::none();
        size_t all = 0;
        for (long n : numbers) all += places(n, m);
        Owned memory(all * sizeof(T));
        std::vector<T*> at;
        T* free = static_cast<T*>(memory.memory);
        for (long n : numbers) at.push_back(free), free += places(n, m);
        unlocked([&] {
            auto* X = static_cast<T*>(given.buf);
            right = finite(X, numbers[0] * m);
            if (!right) return;
            if (m == 1) {
                at[0] = X;
            } else {
                std::vector<int64_t> rows(m);
                std::iota(rows.begin(), rows.end(), 0);
                kernels<T>().examples_last(m, numbers[0], rows.data(), X, at[0]);
            }
            for (auto& step : steps) step(m, at.data());
        });
        if (!right) return nb::none();
        nb::object shape = nb::steal(PyTuple_New(output.size() + 1));
        PyTuple_SET_ITEM(shape.ptr(), 0, PyLong_FromLong(m));
        for (size_t i = 0; i < output.size(); ++i) PyTuple_SET_ITEM(shape.ptr(), i + 1, PyLong_FromSize_t(output[i]));
        nb::object made = empty(shape, dtype);
        Py_buffer out;
        if (PyObject_GetBuffer(made.ptr(), &out, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS)) throw nb::python_error();
        T* A = static_cast<T*>(out.buf);
        long n = numbers[last];
        for (long i = 0; i < m; ++i)
            for (long j = 0; j < n; ++j) A[i * n + j] = at[last][j * m + i];
        PyBuffer_Release(&out);
        return made;
    }

private:
    Shape input, output;
    nb::object dtype, empty;
    std::vector<long> numbers;  // of each value, for one example
    std::vector<std::function<void(long m, T* const* at)>> steps;
    size_t last = 0;

    static long numbers_in(const Shape& shape) {
        long n = 1;
        for (size_t each : shape) need(!__builtin_mul_overflow(n, long(each), &n), "program: too large");
        return n;
    }
    static size_t places(long n, long m) { return (size_t(n) * m + 15) / 16 * 16; }
    static Geometry with(Geometry g, long m) {
        g.m = m;
        return g;
    }
    static bool finite(const T* X, long n) {
        int bad = 0;
        for (long i = 0; i < n; ++i) bad |= !(std::abs(X[i]) <= std::numeric_limits<T>::max());
        return !bad;
    }
    Shape one(size_t value, const Shape& shape) const {  // the shape of a value for one example
        need(value < numbers.size() && numbers_in(shape) == numbers[value], "program: no value of that number has that shape");
        Shape whole = shape;
        whole.push_back(1);
        return whole;
    }
    size_t value(long n) {
        numbers.push_back(n);
        return numbers.size() - 1;
    }
    template <class F> Made then(Shape whole, F run) {
        whole.pop_back();
        size_t made = value(numbers_in(whole));
        steps.push_back([=](long m, T* const* at) { run(m, at, at[made]); });
        return {made, whole};
    }
};

template <class T> void define_program(nb::module_& m, const char* name) {
    using P = Program<T>;
    nb::class_<P>(m, name)
        .def(nb::init<const Shape&, nb::object>(), "input"_a, "dtype"_a)
        .def("affine", &P::affine, "A_prev"_a, "shape"_a, "W"_a.noconvert(), "b"_a.noconvert().none())
        .def("convolution", &P::convolution, "A_prev"_a, "shape"_a, "W"_a.noconvert(), "b"_a.noconvert().none(), "window"_a, "groups"_a)
        .def("max_pool", &P::max_pool, "A_prev"_a, "shape"_a, "window"_a, "places"_a)
        .def("activation", &P::activation, "Z"_a, "shape"_a, "kind"_a, "constant"_a, "in_place"_a)
        .def("softmax", &P::softmax, "Z"_a, "shape"_a, "axis"_a)
        .def("end", &P::end, "value"_a, "shape"_a)
        .def("__call__", &P::operator(), "x"_a.none(), "most"_a)
        .def_static("unchanged", [](const nb::dict& now, const nb::dict& then, const std::vector<std::tuple<nb::dict, nb::dict>>& trees) {
            return holds(now, then) && std::all_of(trees.begin(), trees.end(), [](auto& tree) {
                auto& [now, then] = tree;
                return now.size() == then.size() && holds(now, then);
            });
        }, "now"_a, "then"_a, "trees"_a);
}

}  // namespace
}  // namespace pellucid
