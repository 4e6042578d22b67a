"""The native engine's threads and memory: forks, workers, several callers, limits, the end of the interpreter."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import pellucid as pl
from pellucid import engines

pytestmark = pytest.mark.skipif(
    engines.known().get("native") is not None, reason=f"native engine: {engines.known().get('native')}"
)
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
OPS = engines.get("native") if "native" in engines.available() else None

# In a process of its own, with warnings about forks of many threads off: the fork is what is tested.
BEFORE = """
import os, sys, threading, time
import numpy as np
from pellucid import engines
ops = engines.get("native")
kernels = ops.kernels
kernels.set_threads(4)
A = np.random.default_rng(0).normal(size=(150, 150)).astype("float32")
expected = ops.affine(A, A, None)
def right(): return bool((ops.affine(A, A, None) == expected).all())
def child(code):
    pid = os.fork()
    if pid == 0:
        try: os._exit(code())
        finally: os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def run(code: str, **environment: str) -> str:
    given = {key: text for key, text in os.environ.items() if key not in ("OMP_NUM_THREADS", "PELLUCID_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BEFORE + code],
        env={**given, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def threads():
    """A function that sets them; they are put back at the end."""
    before = OPS.kernels.threads()
    yield OPS.kernels.set_threads
    OPS.kernels.set_threads(before)


# --- the same numbers


def every_kernel(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Results large enough to be shared out among threads."""
    draw = lambda *shape: rng.normal(size=shape).astype("float32")  # noqa: E731
    W, A, dZ = draw(150, 210), draw(210, 200), draw(150, 200)
    F, image = draw(20, 6, 5, 5), draw(6, 14, 14, 33)
    window = ((5, 5), (1, 1), ((2, 2), (2, 2)), (1, 1))
    dF = draw(20, 14, 14, 33)
    tanh = pl.Tanh()
    return {
        "affine": OPS.affine(W, A, draw(150, 1)),
        "affine_dW": OPS.affine_dW(dZ, A),
        "affine_dA": OPS.affine_dA(W, dZ),
        "affine_db": OPS.affine_db(draw(300, 3000)),
        "convolution": OPS.convolution(F, image, draw(20, 1, 1, 1), window, 1),
        "convolution_dA": OPS.convolution_dA(F, dF, image.shape, window, 1),
        "convolution_dW": OPS.convolution_dW(dF, image, window, 1),
        "max_pool": OPS.max_pool(image, ((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)), (7, 7))[0],
        "sum_pool": OPS.sum_pool(image, ((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)), (7, 7)),
        "activation": OPS.activation(tanh, draw(300, 700)),
        "softmax": OPS.softmax(draw(30, 7000), 0),
        "normalize": OPS.normalize(draw(300, 700), (1,), 1e-5)[0],
        "normalize, columns": OPS.normalize(draw(300, 700), (0,), 1e-5)[0],
        "dropout": OPS.dropout((1, 2), draw(300, 700), 0.5)[0],
    }


SUMS_BY_THREAD = {"convolution_dW"}  # rows of places are shared out, and the parts' sums added: other roundings


def test_threads_give_the_same_bits(threads):
    """With as many threads always; with more or fewer too, but for the sums that each thread has its own of."""
    threads(2)
    first, again = (every_kernel(np.random.default_rng(0)) for _ in range(2))
    threads(1)
    alone = every_kernel(np.random.default_rng(0))
    for name, found in first.items():
        np.testing.assert_array_equal(found, again[name], err_msg=name)
        if name in SUMS_BY_THREAD:
            np.testing.assert_allclose(found, alone[name], rtol=1e-4, atol=1e-4, err_msg=name)
        else:
            np.testing.assert_array_equal(found, alone[name], err_msg=name)


def test_several_python_threads_at_once(threads):
    """Each gets its own results, while the number of threads changes under them."""
    threads(3)
    rng = np.random.default_rng(1)
    pairs = [
        (rng.normal(size=(90, 110)).astype("float32"), rng.normal(size=(110, 70)).astype("float32")) for _ in range(4)
    ]
    expected = [OPS.affine(W, A, None) for W, A in pairs]
    done = threading.Event()

    def compute(which):
        W, A = pairs[which]
        return all((OPS.affine(W, A, None) == expected[which]).all() for _ in range(200))

    def change():
        while not done.is_set():
            for n in (1, 2, 4, 3):
                OPS.kernels.set_threads(n)

    changing = threading.Thread(target=change)
    changing.start()
    try:
        with ThreadPoolExecutor(4) as executor:
            assert all(executor.map(compute, range(4)))
    finally:
        done.set()
        changing.join()


def test_the_interpreter_goes_on_while_a_kernel_runs():
    """A kernel of a tenth of a second gives up the lock: another thread counts meanwhile."""
    counted, stop = [0], threading.Event()

    def count():
        while not stop.is_set():
            counted[0] += 1
            time.sleep(0)

    A = np.ones((1500, 1500), "float32")
    OPS.affine(A, A, None)
    thread = threading.Thread(target=count)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000.0)  # nobody is made to give the lock up: only who wants to
    try:
        thread.start()
        while not counted[0]:
            time.sleep(0.001)
        before = counted[0]
        for _ in range(3):
            OPS.affine(A, A, None)
        assert counted[0] > before
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        thread.join()


# --- forks


@needs_fork
def test_a_child_computes_after_a_fork():
    run("""
assert child(lambda: 0 if right() and right() else 1) == 0      # the workers sleep or spin
time.sleep(0.05)
assert child(lambda: 0 if right() and right() else 1) == 0      # the workers sleep
assert child(lambda: child(lambda: 0 if right() else 1)) == 0   # a child's child
assert right()
""")


@needs_fork
def test_no_child_begins_while_a_step_is_written_down():
    """It would wait for ever to write one down itself, and its kernels would note what they are called with."""
    run("""
from pellucid.engines.native import replay
replay.AFTER = 0
def replayed(): return bool((ops.compile(lambda A: ops.affine(A, A, None), own=True)(A) == expected).all())
stop = False
def busy():
    while not stop: replayed()
other = threading.Thread(target=busy)
other.start()
codes = {child(lambda: 0 if ops.kernels is kernels and replayed() else 1) for _ in range(25)}
stop = True
other.join()
assert codes == {0}, codes
""")


@needs_fork
def test_forks_while_other_threads_compute():
    """Neither the pool's locks nor the memory's come to the child locked by a thread that it has not."""
    run("""
stop = False
def busy():
    while not stop: right()
def setting():
    while not stop: kernels.set_threads(3); kernels.set_threads(4)
others = [threading.Thread(target=f) for f in (busy, busy, setting)]
for each in others: each.start()
codes = {child(lambda: 0 if right() else 1) for _ in range(25)}
stop = True
for each in others: each.join()
assert codes == {0}, codes
""")


@needs_fork
def test_multiprocessing_fork_and_joblib():
    run("""
import multiprocessing
def work(seed):
    return float(ops.affine(A, A, None).sum()) + seed
with multiprocessing.get_context("fork").Pool(2) as workers:
    assert workers.map(work, range(4)) == [work(seed) for seed in range(4)]
try:
    import joblib
except ImportError:
    pass
else:
    import pickle
    for backend in ("threading", "loky"):
        made = joblib.Parallel(2, backend=backend)(joblib.delayed(ops.affine)(A, A, None) for _ in range(4))
        assert all((each == expected).all() for each in made), backend
    from joblib.externals.loky import get_reusable_executor
    get_reusable_executor().shutdown(wait=True)
""")


# --- how many


def test_limits_are_kept():
    count = "print(kernels.threads())"
    assert run("kernels.set_threads(0); " + count, OMP_NUM_THREADS="3") == "3"
    assert run("kernels.set_threads(0); " + count, OMP_NUM_THREADS="3,2") == "3"
    assert run("kernels.set_threads(0); " + count, OMP_NUM_THREADS="3", PELLUCID_NUM_THREADS="5") == "5"
    assert run("kernels.set_threads(0); " + count, OMP_NUM_THREADS="many") == run("kernels.set_threads(0); " + count)
    if hasattr(os, "sched_setaffinity"):
        only = "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); kernels.set_threads(0); "
        assert run(only + count) == "1"


def test_threadpoolctl_sees_and_limits():
    pytest.importorskip("threadpoolctl", reason="it is what is tested")
    for first in ("import threadpoolctl\nfrom pellucid import engines", ""):
        code = f"""
{first}
assert {bool(first)} or "threadpoolctl" not in sys.modules, "pellucid imports it"
import threadpoolctl
own = [each for each in threadpoolctl.threadpool_info() if each["user_api"] == "pellucid"]
assert [each["num_threads"] for each in own] == [4], own
assert own[0]["instruction_set"] == kernels.instruction_set()
with threadpoolctl.threadpool_limits(1):
    assert kernels.threads() == 1 and right()
with threadpoolctl.threadpool_limits(2, user_api="pellucid"):
    assert kernels.threads() == 2 and right()
assert kernels.threads() == 4
"""
        run(code)


def test_idle_workers_sleep():
    """Processor time, not the clock's: four workers that spun through half a second would burn two."""
    assert float(run("right(); began = time.process_time(); time.sleep(0.5); print(time.process_time() - began)")) < 0.1


# --- the end


def test_the_interpreter_ends_cleanly():
    run("""
kept = ops.affine(A, A, None)                # lives on in a module that is torn down late
sys.modules["kept"] = kept
import builtins; builtins.kept = kept
def forever():
    while True: ops.affine(A, A, None)
for _ in range(2): threading.Thread(target=forever, daemon=True).start()
time.sleep(0.05)
""")


def test_arrays_outlive_the_module():
    run("""
import gc
kept = ops.affine(A, A, None)
part = kept[3:7]
del sys.modules["pellucid.engines.native._kernels"], ops, kernels, kept, child, right
engines._made.cache_clear(); gc.collect()
assert (part == expected[3:7]).all()
""")


# --- memory


def test_no_array_is_handed_out_twice():
    """Arrays made and dropped by four threads at once: each keeps what was written into it."""

    def stress(seed):
        rng, kept = np.random.default_rng(seed), {}
        for step in range(1500):
            shape = (int(rng.integers(1, 60)), int(rng.integers(1, 60)))
            number = seed * 10000.0 + step
            made = OPS.kernels.activation(0, np.full(shape, number, "float64"), 0.0)
            kept[step] = (made, number)
            if len(kept) > 30:
                for chosen in rng.permutation(list(kept))[:15]:
                    one, expected = kept.pop(int(chosen))
                    if not (one == expected).all():
                        return False
        return True

    with ThreadPoolExecutor(4) as executor:
        assert all(executor.map(stress, range(4)))


def test_nothing_leaks():
    """What is in use after many steps is what was in use before, and what is kept for reuse stops growing."""
    layers = pl.Conv2D(4, 3, activation="relu"), pl.MaxPool2D(2), pl.Flatten(), pl.Dense(3)
    net = pl.Sequential(*layers, input_shape=(1, 8, 8), loss="softmax_cross_entropy", engine="native")
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(1, 8, 8, 16)).astype("float32"), rng.integers(3, size=16)

    def steps(count):
        for _ in range(count):
            net.gradients(X, Y)
        gc.collect()
        return OPS.kernels.used_bytes(), OPS.kernels.held_bytes()

    steps(20)
    before = steps(20)
    assert steps(300) == before


def test_failures_leave_nothing_behind():
    before = OPS.kernels.used_bytes()
    for _ in range(100):
        with pytest.raises(ValueError):
            OPS.kernels.softmax_cross_entropy(np.zeros((3, 4), "float32"), np.array([0, 1, 2, 3]), 0.0)
        with pytest.raises(MemoryError):
            OPS.kernels.sum_pool_backward(
                np.zeros((1, 1, 1, 1), "float32"), (1, 2**30, 2**30, 1), ((1, 1), (2**30, 2**30), ((0, 0),) * 2, (1, 1))
            )
    gc.collect()
    assert OPS.kernels.used_bytes() == before


def test_what_threads_keep_for_their_kernels_is_counted():
    code = """
import numpy as np
from pellucid import engines
from pellucid.engines.base import Window
ops = engines.get("native")
assert ops.kernels.scratch_bytes() == 0
W, A = np.ones((256, 256, 3, 3), "float32"), np.ones((256, 8, 8, 32), "float32")
ops.convolution(W, A, None, Window((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)), 1)
kept = ops.kernels.scratch_bytes()
assert kept >= W.nbytes, kept
ops.convolution(W, A, None, Window((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)), 1)
assert ops.kernels.scratch_bytes() >= kept
assert ops.peak_bytes() == ops.kernels.peak_bytes() + ops.kernels.scratch_bytes()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_peak_is_the_most_in_use():
    a = OPS.kernels.activation(0, np.ones(1 << 20, "float32"), 0.0)
    used, peak = OPS.kernels.used_bytes(), OPS.kernels.peak_bytes()
    assert peak >= used >= a.nbytes
    held = OPS.kernels.held_bytes()
    del a
    assert OPS.kernels.used_bytes() <= used - (1 << 22)
    assert OPS.kernels.held_bytes() >= held + (1 << 22)
    assert OPS.kernels.peak_bytes() == peak
    OPS.kernels.release()
    assert OPS.kernels.held_bytes() == 0
