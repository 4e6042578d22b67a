// Every kernel on random sizes, the pool and the memory from several threads at once, for the sanitizers to watch: see
// `sanitize` beside it. Arrays end where a sanitizer sees it; one thread and three must agree.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "kernels.h"
#include "memory.h"
#include "pool.h"

using namespace pellucid;

static void check(bool right, const char* what) {
    if (right) return;
    std::fprintf(stderr, "wrong: %s\n", what);
    std::exit(1);
}

static thread_local std::mt19937 rng(7);
static long draw(long from, long to) { return std::uniform_int_distribution<long>(from, to)(rng); }

template <class T> struct Block {  // of exactly n numbers
    std::unique_ptr<T[]> memory;
    size_t n;
    explicit Block(size_t n, double low = -2, double high = 2) : memory(new T[n]), n(n) {
        for (size_t i = 0; i < n; ++i) memory[i] = T(std::uniform_real_distribution<double>(low, high)(rng));
    }
    operator T*() { return memory.get(); }
    bool near(const Block& other) const {
        for (size_t i = 0; i < n; ++i)
            if (memory[i] != other.memory[i] &&
                !(std::abs(double(memory[i]) - double(other.memory[i])) <= 1e-3 * (1 + std::abs(double(memory[i])))))
                return false;
        return true;
    }
};

// f(result) twice, with one thread and with three.
template <class T, class F> void both(const char* what, size_t n, F f) {
    Block<T> one(n), other(n);
    set_threads(1);
    f((T*)one);
    set_threads(3);
    f((T*)other);
    check(one.near(other), what);
}

static Geometry geometry(bool pooling, bool at_points = false) {
    Geometry g{};
    g.kh = draw(1, 4), g.kw = draw(1, 4), g.sh = draw(1, 5), g.sw = draw(1, 5), g.dh = draw(1, 3), g.dw = draw(1, 3);
    if (at_points) g.kh = g.kw = 3, g.sh = g.sw = g.dh = g.dw = 1;
    g.top = draw(0, 4), g.left = draw(0, 4), g.bottom = draw(0, 4), g.right = draw(0, 4);
    long h = g.dh * (g.kh - 1) + 1, w = g.dw * (g.kw - 1) + 1;
    g.H = std::max(1L, h - g.top - g.bottom) + draw(0, 9), g.W = std::max(1L, w - g.left - g.right) + draw(0, 9);
    g.out_h = (g.H + g.top + g.bottom - h) / g.sh + 1, g.out_w = (g.W + g.left + g.right - w) / g.sw + 1;
    if (pooling) g.out_h += draw(0, 1), g.out_w += draw(0, 1);
    const long examples[] = {1, 2, 3, 7, 15, 16, 17, 33, 65};
    g.m = examples[draw(0, 8)];
    return g;
}

template <class T> void every_kernel(bool bfloat16 = false) {
    const auto& k = kernels<T>(bfloat16);
    long n = draw(1, 90), p = draw(1, 90), m = draw(1, 90);
    Block<T> W(n * p), A(p * m), dZ(n * m), b(n);
    both<T>("affine", n * m, [&](T* Z) { k.matmul(n, m, p, W, p, 1, A, Z, b, T(1)); });
    both<T>("affine_dA", p * m, [&](T* dA) { k.matmul(p, m, n, W, 1, p, dZ, dA, nullptr, T(1)); });
    both<T>("affine_dW", n * p, [&](T* dW) { k.affine_dW(n, p, m, dZ, A, dW); });
    both<T>("row_means", n, [&](T* mean) { k.row_means(n, m, dZ, T(m), mean); });
    {
        long steps = draw(1, 7);
        Block<T> X(steps * p * m), dZ(steps * n * m);
        both<T>("matmul_steps", steps * n * m, [&](T* Z) { k.matmul_steps(steps, n, m, p, W, p, 1, X, Z, b); });
        both<T>("affine_dW_steps", n * p, [&](T* dW) { k.affine_dW_steps(steps, n, p, m, dZ, X, dW); });
        both<T>("affine_db", n, [&](T* db) { k.affine_db(steps, n, m, dZ, db); });
    }
    {
        long steps = draw(0, 5), levels = draw(1, 40);
        Block<T> V(n * levels), dA(steps * n * m);
        std::vector<int64_t> ids(steps * m);
        for (auto& id : ids) id = draw(0, levels - 1);
        both<T>("embedding", dA.n, [&](T* Z) { k.embedding(steps, n, levels, m, V, ids.data(), Z); });
        both<T>("embedding_dW", V.n, [&](T* dV) { k.embedding_dW(steps, n, levels, m, dA, ids.data(), dV); });
    }
    for (int cell = 0; cell < CELLS; ++cell) {
        long steps = draw(0, 4), n = draw(1, 40), G = GATES[cell], state = n * m;
        bool lstm = cell == LSTM_CELL, gru = cell == GRU_CELL;
        Block<T> U(G * n * n, -0.2, 0.2), c(n), Z(steps * G * state), start(state), dA(steps * state);
        std::unique_ptr<uint8_t[]> bytes(new uint8_t[steps * m]);
        for (long i = 0; i < steps * m; ++i) bytes[i] = draw(0, 1);
        const uint8_t* mask = draw(0, 1) ? bytes.get() : nullptr;
        Block<T> gates(Z.n), H((steps + 1) * state), C((steps + 1) * state), v(steps * state);
        auto forward = [&](T* last) {
            std::copy_n((T*)Z, Z.n, (T*)gates);
            std::copy_n((T*)start, state, (T*)H), std::copy_n((T*)start, state, (T*)C);
            k.recurrence({cell, steps, n, m, U, c, mask, gates, H, lstm ? (T*)C : nullptr, gru ? (T*)v : nullptr});
            std::copy_n(H + steps * state, state, last);
        };
        both<T>("recurrence", state, forward);
        both<T>("recurrence_backward", Z.n + state, [&](T* d) {
            Block<T> dV(Z.n), dC(state, 1, 1);
            std::copy_n((T*)start, state, d + Z.n);
            k.recurrence_backward({cell, steps, n, m, U, mask, G > 1 ? (T*)gates : nullptr, H, lstm ? (T*)C : nullptr,
                                   gru ? (T*)v : nullptr, mask ? (T*)dA : nullptr, d, gru ? (T*)dV : d, d + Z.n,
                                   lstm ? (T*)dC : nullptr});
        });
        if (gru) continue;
        long n_x = draw(1, 40), inner = G * n * n, outer = G * n * n_x;
        Block<T> X(steps * n_x * m), W(outer, -0.2, 0.2), b(G * n);
        both<T>("recurrent", state, [&](T* last) {
            std::copy_n((T*)start, state, (T*)H), std::copy_n((T*)start, state, (T*)C);
            k.recurrence({cell, steps, n, m, U, nullptr, mask, lstm ? (T*)gates : nullptr, H, lstm ? (T*)C : nullptr, nullptr, n_x,
                          X, W, b});
            std::copy_n(H + steps * state, state, last);
        });
        both<T>("recurrent_backward", inner + outer + G * n, [&](T* d) {
            Block<T> dh(state), dC(state, 1, 1);
            std::copy_n((T*)start, state, (T*)dh);
            k.recurrence_backward({cell, steps, n, m, U, mask, lstm ? (T*)gates : nullptr, H, lstm ? (T*)C : nullptr, nullptr,
                                   mask ? (T*)dA : nullptr, nullptr, nullptr, dh, lstm ? (T*)dC : nullptr, n_x, X, d + inner, d,
                                   d + inner + outer, false});
        });
    }
    {
        bool at_points = draw(0, 2) == 0;
        Geometry g = geometry(false, at_points);
        bool large = at_points && draw(0, 3) == 0;  // sums of dW that threads share out by units
        long groups = large ? 1 : draw(1, 2), units = groups * (large ? draw(121, 140) : at_points ? draw(8, 60) : draw(1, 14));
        g.C = groups * (large ? draw(121, 140) : at_points ? draw(8, 60) : draw(1, 5));
        size_t filters = units * (g.C / groups) * g.kh * g.kw, places = units * g.out_h * g.out_w * g.m, image = g.C * g.H * g.W * g.m;
        Block<T> W(filters), A(image), dZ(places), b(units);
        both<T>("convolution", places, [&](T* Z) { k.convolution(g, units, groups, W, A, b, Z); });
        both<T>("convolution_dW", filters, [&](T* dW) { k.convolution_dW(g, units, groups, dZ, A, dW); });
        both<T>("convolution_dA", image, [&](T* dA) { k.convolution_dA(g, units, groups, W, dZ, dA); });
    }
    {
        Geometry g = geometry(true);
        g.C = draw(1, 4);
        size_t places = g.C * g.out_h * g.out_w * g.m, image = g.C * g.H * g.W * g.m;
        Block<T> A(image), dA(places);
        std::unique_ptr<int32_t[]> taps(new int32_t[places]);
        both<T>("max_pool", places, [&](T* Z) { k.max_pool(g, A, Z, taps.get()); });
        both<T>("max_pool_backward", image, [&](T* d) { k.max_pool_backward(g, dA, taps.get(), d); });
        both<T>("sum_pool", places, [&](T* Z) { k.sum_pool(g, A, Z); });
        both<T>("sum_pool_backward", image, [&](T* d) { k.sum_pool_backward(g, dA, d); });
    }
    for (int kind = 0; kind < KINDS; ++kind) {
        size_t size = draw(0, 3) ? draw(0, 200) : draw(16000, 60000);
        Block<T> Z(size), d(size);
        both<T>("activation", size, [&](T* A) { k.activation(kind, size, Z, A, T(0.3)); });
        both<T>("activation_backward", size, [&](T* dZ) { k.activation_backward(kind, size, d, Z, dZ, T(0.3)); });
    }
    {
        std::vector<int64_t> Y(m);
        for (auto& y : Y) y = draw(0, n - 1);
        Block<T> losses(m), variance(n, 0.5, 1), mean(n);
        both<T>("softmax_cross_entropy", n * m, [&](T* P) { k.softmax_cross_entropy(n, m, dZ, Y.data(), T(0.1), losses, P); });
        both<T>("normalize", n * m, [&](T* H) { k.normalize(n, m, dZ, T(1e-3), H, mean, variance); });
        both<T>("normalize_backward", n * m, [&](T* d) { k.normalize_backward(n, m, dZ, dZ, variance, T(1e-3), d); });
        long outer = draw(1, 3);
        Block<T> cube(outer * n * m), columns(outer * m, 0.5, 1), means(outer * m);
        both<T>("softmax", cube.n, [&](T* A) { k.softmax(outer, n, m, cube, A); });
        both<T>("softmax_backward", cube.n, [&](T* d) { k.softmax_backward(outer, n, m, cube, cube, d); });
        both<T>("normalize_columns", cube.n, [&](T* H) { k.normalize_columns(outer, n, m, cube, T(1e-3), H, means, columns); });
        both<T>("normalize_columns_backward", cube.n, [&](T* d) { k.normalize_columns_backward(outer, n, m, cube, cube, columns, T(1e-3), d); });
        both<T>("softmax_cross_entropy_backward", n * m, [&](T* d) { k.softmax_cross_entropy_backward(n, m, dZ, Y.data(), T(0.1), d); });
        std::unique_ptr<uint8_t[]> D(new uint8_t[n * m]);
        both<T>("dropout", n * m, [&](T* A) { k.dropout(n * m, 77, T(0.3), dZ, A, D.get()); });
        both<T>("dropout_backward", n * m, [&](T* d) { k.dropout_backward(n * m, dZ, D.get(), T(0.3), d); });
        both<T>("scale", cube.n, [&](T* A) { k.scale(outer, n, m, variance, cube, b, A); });
        both<T>("scale_backward", cube.n + 2 * n, [&](T* d) {
            k.scale_backward(outer, n, m, variance, cube, cube, T(m), d, d + cube.n, d + cube.n + n);
        });
        both<T>("prelu", n * m, [&](T* A) { k.prelu(n, m, b, dZ, A); });
        both<T>("prelu_backward", n * m + n, [&](T* d) { k.prelu_backward(n, m, b, dZ, dZ, T(m), d, d + n * m); });
        both<T>("erf", n * m, [&](T* A) { k.erf(n * m, dZ, A); });
        long inner = draw(0, 3) ? m : m * draw(1, 20), before = draw(0, n), after = draw(0, 3);
        Block<T> image(n * inner), d(n * inner), S(n * inner, 1, 3);
        both<T>("local_response", image.n, [&](T* A) { k.local_response(n, inner, before, after, T(0.1), T(0.75), T(2), image, A, S); });
        both<T>("local_response_backward", image.n, [&](T* out) {
            k.local_response_backward(n, inner, before, after, T(0.1), T(0.75), d, image, S, out);
        });
        for (int rule = 0; rule < RULES; ++rule) {
            const double constants[] = {0.01, 1, 0.9, 0.9, 1e-8, 0};
            both<T>("update", n * p, [&](T* V) {
                Block<T> s0(n * p, 0, 0), s1(n * p, 0, 0);
                T* slots[] = {SLOTS[rule] > 0 ? (T*)s0 : nullptr, SLOTS[rule] > 1 ? (T*)s1 : nullptr};
                std::memcpy(V, (T*)W, n * p * sizeof(T));
                k.update(rule, n * p, V, W, slots, constants);
            });
        }
        std::vector<int64_t> rows(draw(0, 70));
        for (auto& row : rows) row = draw(0, n - 1);
        both<T>("examples_last", p * rows.size(), [&](T* X) { k.examples_last(rows.size(), p, rows.data(), W, X); });
        std::unique_ptr<uint8_t[]> bytes(new uint8_t[n * p]);
        for (long i = 0; i < n * p; ++i) bytes[i] = draw(0, 255);
        both<T>("examples_last_of_bytes", p * rows.size(), [&](T* X) { k.examples_last_of_bytes(rows.size(), p, rows.data(), bytes.get(), X); });
    }
}

// Several callers, nested calls, failures, and a changing number of threads.
static void pool() {
    std::vector<std::thread> callers;
    std::atomic<bool> done{false};
    std::thread changing([&] {
        for (int n = 0; !done; n = (n + 1) % 4) set_threads(n + 1);
    });
    for (int c = 0; c < 4; ++c)
        callers.emplace_back([c] {
            for (int i = 0; i < 1500; ++i) {
                std::vector<long> seen(1 + (c + i) % 9);
                parallel(seen.size(), [&](long part) {
                    parallel(2, [](long) {});
                    seen[part] += part + 1;
                });
                for (size_t part = 0; part < seen.size(); ++part) check(seen[part] == long(part + 1), "a part is done once");
                try {
                    parallel(5, [](long part) { if (part == 3) throw std::runtime_error("a part fails"); });
                    check(false, "a failure is told");
                } catch (const std::runtime_error&) {
                }
                if (i % 50 == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));  // workers fall asleep
            }
        });
    for (auto& caller : callers) caller.join();
    done = true;
    changing.join();
}

static void memory() {
    std::vector<std::thread> users;
    for (int u = 0; u < 4; ++u)
        users.emplace_back([u] {
            rng.seed(u);
            std::vector<std::pair<unsigned char*, size_t>> mine;
            for (int i = 0; i < 4000; ++i) {
                size_t bytes = draw(0, 3000);
                auto* p = static_cast<unsigned char*>(take(bytes));
                std::memset(p, u + 1, bytes);
                mine.emplace_back(p, bytes);
                if (mine.size() > 20 || i % 7 == 0) {
                    size_t chosen = draw(0, mine.size() - 1);
                    auto [q, size] = mine[chosen];
                    for (size_t at = 0; at < size; ++at) check(q[at] == u + 1, "memory belongs to one array");
                    give(q, size);
                    mine.erase(mine.begin() + chosen);
                }
            }
            for (auto [q, size] : mine) give(q, size);
        });
    for (auto& user : users) user.join();
    check(used() == 0, "all was given back");
    release();
    size_t large = MOST_HELD / 16;
    std::vector<void*> many;
    for (int i = 0; i < 20; ++i) many.push_back(take(large));
    for (void* each : many) give(each, large);
    check(held() <= MOST_HELD && held() >= MOST_HELD / 2, "what is kept has a bound");
    release();
    check(held() == 0, "what was kept is given back");
}

static void forks() {
    for (int i = 0; i < 10; ++i) {
        pid_t pid = fork();
        if (pid == 0) {
            std::atomic<long> total{0};
            parallel(10, [&](long part) { total += part; });
            give(take(1000), 1000);
            _exit(total == 45 ? 0 : 1);
        }
        int status = 0;
        waitpid(pid, &status, 0);
        check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a child computes");
    }
}

int main(int count, char** arguments) {
    int rounds = count > 1 ? std::atoi(arguments[1]) : 40;
    set_threads(3);
    parallel(3, [](long) {});
    forks();
    pool();
    memory();
    for (int i = 0; i < rounds; ++i) every_kernel<float>(), every_kernel<double>(), every_kernel<float>(true);
    std::printf("%s: clean\n", kernels<float>(true).name);
}
