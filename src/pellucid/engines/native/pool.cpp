#include "pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
static inline void relax() { _mm_pause(); }
#else
static inline void relax() { std::this_thread::yield(); }
#endif

namespace pellucid {
namespace {

constexpr int SPINS = 4000;  // about 50 µs: the next kernel of a training step comes sooner than that

struct Pool {
    std::vector<std::thread> workers;
    std::mutex busy;                // held by the one caller whose work the pool does
    std::mutex sleep;
    std::condition_variable wake;
    std::atomic<long> generation{0};
    std::atomic<long> next{0};
    std::atomic<long> finished{0};
    std::atomic<int> inside{0};
    std::atomic<bool> ended{false};
    long parts = 0;
    const std::function<void(long)>* work = nullptr;

    explicit Pool(int helpers) {
        for (int i = 0; i < helpers; ++i) workers.emplace_back([this] { serve(); });
    }
    ~Pool() {
        ended = true;
        {
            std::lock_guard<std::mutex> lock(sleep);
            ++generation;
        }
        wake.notify_all();
        for (auto& worker : workers) worker.join();
    }
    void take() {
        for (long part; (part = next.fetch_add(1)) < parts;) {
            (*work)(part);
            finished.fetch_add(1);
        }
    }
    void serve() {
        long seen = 0;
        for (;;) {
            for (int spin = 0; spin < SPINS && generation.load() == seen; ++spin) relax();
            if (generation.load() == seen) {
                std::unique_lock<std::mutex> lock(sleep);
                wake.wait(lock, [&] { return generation.load() != seen; });
            }
            inside.fetch_add(1);
            seen = generation.load();
            if (ended) return;
            take();
            inside.fetch_sub(1);
        }
    }
    void run(long count, const std::function<void(long)>& f) {
        while (inside.load() != 0) relax();  // no helper still looks at the last work
        work = &f;
        parts = count;
        finished = 0;
        next = 0;
        {
            std::lock_guard<std::mutex> lock(sleep);
            ++generation;
        }
        wake.notify_all();
        take();
        while (finished.load() != count) relax();
    }
};

std::mutex making;
Pool* pool = nullptr;
int wanted = 0;

int allowed() {
    for (const char* name : {"PELLUCID_NUM_THREADS", "OMP_NUM_THREADS"})
        if (const char* text = std::getenv(name))
            if (int n = std::atoi(text); n > 0) return n;
    int cores = std::max(1u, std::thread::hardware_concurrency());
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) cores = std::max(1, CPU_COUNT(&set));
    std::ifstream file("/sys/fs/cgroup/cpu.max");
    std::string quota;
    double period = 0;
    if (file >> quota >> period && quota != "max" && period > 0)
        cores = std::min(cores, std::max(1, int(std::stod(quota) / period + 0.5)));
#endif
    return cores;
}

// In the child of a fork only the forking thread lives: the old pool cannot be joined and is left behind.
void after_fork() {
    pool = nullptr;
    new (&making) std::mutex;
}

Pool* ready() {
    std::lock_guard<std::mutex> lock(making);
    if (!pool) {
        static bool registered = false;
        if (!registered) pthread_atfork(nullptr, nullptr, after_fork);
        registered = true;
        if (wanted == 0) wanted = allowed();
        pool = new Pool(wanted - 1);
    }
    return pool;
}

}  // namespace

int threads() {
    std::lock_guard<std::mutex> lock(making);
    if (wanted == 0) wanted = allowed();
    return wanted;
}

void set_threads(int n) {
    std::lock_guard<std::mutex> lock(making);
    int now = n > 0 ? n : allowed();
    if (now == wanted) return;
    wanted = now;
    if (pool) {
        pool->busy.lock();
        pool->busy.unlock();
        delete pool;
        pool = nullptr;
    }
}

void parallel(long parts, const std::function<void(long)>& f) {
    if (parts > 1 && threads() > 1) {
        Pool* p = ready();
        if (p->busy.try_lock()) {
            p->run(parts, f);
            p->busy.unlock();
            return;
        }
    }
    for (long part = 0; part < parts; ++part) f(part);
}

}  // namespace pellucid
