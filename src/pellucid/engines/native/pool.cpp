#include "pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <signal.h>
#define PELLUCID_POSIX
#endif
#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace pellucid {
namespace {

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

using Clock = std::chrono::steady_clock;
constexpr std::chrono::microseconds BETWEEN_KERNELS(50), BETWEEN_STEPS(1000);

// Whether it came soon: before the next kernel of a step would, with its core kept; before the next step's first, with its
// core left to any other thread that wants it.
template <class F> bool spin(F come) {
    const auto begin = Clock::now();
    for (auto past = begin - begin; !come(); past = Clock::now() - begin) {
        if (past > BETWEEN_STEPS) return false;
        if (past > BETWEEN_KERNELS) std::this_thread::yield();
        else
            for (int i = 0; i < 16 && !come(); ++i) relax();
    }
    return true;
}

// For what is certain to come.
template <class F> void await(F come) {
    if (!spin(come))
        while (!come()) std::this_thread::yield();
}

// Signals are for the interpreter's threads: a worker is born with all of them blocked.
struct Unsignalled {
#if defined(PELLUCID_POSIX)
    sigset_t before;
    Unsignalled() {
        sigset_t all;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
    }
    ~Unsignalled() { pthread_sigmask(SIG_SETMASK, &before, nullptr); }
#else
    Unsignalled() {}
#endif
};

class Pool {
  public:
    const int threads;  // the caller among them

    explicit Pool(int threads) : threads(threads) {
        Unsignalled now;
        for (int i = 1; i < threads; ++i) workers.emplace_back([this] { serve(); });
    }
    ~Pool() {
        ended = true;
        { std::lock_guard<std::mutex> lock(sleep); }
        wake.notify_all();
        for (auto& worker : workers) worker.join();
    }

    // False when the pool is at another caller's work.
    bool run(long count, const std::function<void(long)>& f) {
        if (busy.exchange(true)) return false;
        await([this] { return inside == 0; });  // no worker still looks at the last work
        work = &f;
        parts = count;
        next = 0;
        finished = 0;
        failure = nullptr;
        failed = false;
        ++turn;
        if (sleeping > 0) {
            { std::lock_guard<std::mutex> lock(sleep); }
            wake.notify_all();
        }
        take();
        await([this, count] { return finished == count; });
        ++turn;
        std::exception_ptr thrown = failure;
        busy = false;
        if (thrown) std::rethrow_exception(thrown);
        return true;
    }

  private:
    std::vector<std::thread> workers;
    std::mutex sleep;
    std::condition_variable wake;
    std::atomic<bool> busy{false}, ended{false}, failed{false};
    std::atomic<int> inside{0}, sleeping{0};
    // Odd while there is work. A worker counts itself inside before it looks at turn, and the caller makes turn even
    // before it waits for inside to be 0: one of the two sees the other, so no worker reads work that is being written.
    std::atomic<long> turn{0};
    std::atomic<long> next{0}, finished{0};
    long parts = 0;
    const std::function<void(long)>* work = nullptr;
    std::exception_ptr failure;

    void take() {
        for (long part; (part = next.fetch_add(1)) < parts; ++finished) {
            try {
                if (!failed) (*work)(part);
            } catch (...) {
                if (!failed.exchange(true)) failure = std::current_exception();
            }
        }
    }
    void serve() {
        long seen = 0;
        auto called = [&] {
            long now = turn;
            return ended || (now % 2 && now != seen);
        };
        while (!ended) {
            if (!spin(called)) {
                std::unique_lock<std::mutex> lock(sleep);
                ++sleeping;
                wake.wait(lock, called);
                --sleeping;
            }
            ++inside;
            long now = turn;
            if (!ended && now % 2) {
                seen = now;
                take();
            }
            --inside;
        }
    }
};

std::mutex making;
auto& pool = *new std::shared_ptr<Pool>;  // never destroyed: threads may compute until the process is gone
std::atomic<int> wanted{0};

#if defined(__linux__)
// The processors a control group may keep busy, in both versions of the kernel's files; 0 where there is no limit.
int quota() {
    double least = 0;
    auto limit = [&](double quota, double period) {
        if (quota > 0 && period > 0 && (least == 0 || quota / period < least)) least = quota / period;
    };
    std::ifstream groups("/proc/self/cgroup");
    for (std::string line; std::getline(groups, line);) {
        size_t first = line.find(':'), second = line.find(':', first + 1);
        if (second == std::string::npos) continue;
        std::string controllers = ":" + line.substr(first + 1, second - first - 1) + ",", path = line.substr(second + 1);
        bool unified = controllers == ":,";
        if (!unified && controllers.find(":cpu,") == std::string::npos && controllers.find(",cpu,") == std::string::npos) continue;
        for (;; path.resize(path.rfind('/'))) {  // a limit of any group above holds too
            if (path == "/") path.clear();
            double quota = 0, period = 0;
            std::string text;
            if (unified) {
                std::ifstream file("/sys/fs/cgroup" + path + "/cpu.max");
                if (file >> text >> period) limit(std::strtod(text.c_str(), nullptr), period);  // "max" reads as 0
            } else {
                std::ifstream a("/sys/fs/cgroup/cpu" + path + "/cpu.cfs_quota_us"), b("/sys/fs/cgroup/cpu" + path + "/cpu.cfs_period_us");
                if (a >> quota && b >> period) limit(quota, period);
            }
            if (path.find('/') == std::string::npos) break;
        }
    }
    return least > 0 ? std::max(1, int(least + 0.5)) : 0;
}
#endif

int allowed() {
    for (const char* name : {"PELLUCID_NUM_THREADS", "OMP_NUM_THREADS"})
        if (const char* text = std::getenv(name))
            if (int n = std::atoi(text); n > 0) return std::min(n, 1024);
    int cores = std::max(1u, std::thread::hardware_concurrency());
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) cores = std::max(1, CPU_COUNT(&set));
    if (int limit = quota()) cores = std::min(cores, limit);
#endif
    return cores;
}

#if defined(PELLUCID_POSIX)
// In the child of a fork only the forking thread lives: the old pool cannot be joined and is left behind.
const int at_fork = pthread_atfork([] { making.lock(); }, [] { making.unlock(); }, [] {
    new (&pool) std::shared_ptr<Pool>;
    making.unlock();
});
#endif

std::shared_ptr<Pool> ready() {
    int n = threads();
    std::lock_guard<std::mutex> lock(making);
    if (!pool || pool->threads != n) pool = std::make_shared<Pool>(n);
    return pool;
}

}  // namespace

int threads() {
    int n = wanted;
    if (n == 0) {
        n = allowed();
        int unset = 0;
        if (!wanted.compare_exchange_strong(unset, n)) n = unset;
    }
    return n;
}

void set_threads(int n) {
    wanted = n > 0 ? std::min(n, 1024) : allowed();
    std::shared_ptr<Pool> old;  // its workers end when the last kernel that runs on it has ended
    std::lock_guard<std::mutex> lock(making);
    old.swap(pool);
}

void parallel(long parts, const std::function<void(long)>& f) {
    if (parts > 1 && threads() > 1 && ready()->run(parts, f)) return;
    for (long part = 0; part < parts; ++part) f(part);
}

}  // namespace pellucid
