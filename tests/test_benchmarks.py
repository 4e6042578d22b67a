"""The benchmarks time the same work in every library, and their models of time are right where the answer is known."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = str(Path(__file__).parents[1] / "benchmarks")


@pytest.fixture
def programs(monkeypatch):
    """The programs of the folder as modules."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import gpu
    import steps

    yield {"gpu": gpu, "steps": steps}
    for name in ("gpu", "steps", "scaling"):
        sys.modules.pop(name, None)


def small(programs):
    return programs["gpu"].works("cpu", [4], ["float32"])


def test_alexnet_is_the_published_one(programs):
    steps, gpu = programs["steps"], programs["gpu"]
    torch = pytest.importorskip("torch", reason="the peer's network needs PyTorch")
    work = steps.Work("train", *gpu.ALEXNET, 1)
    assert [shape for shape in steps.shapes(work)][1:4] == [(96, 55, 55), (96, 55, 55), (96, 27, 27)]
    with torch.device("meta"):
        net = steps.torch_network(work)
    assert sum(each.numel() for each in net.parameters()) == 60_965_224
    forward = 105_415_200 + 223_948_800 + 149_520_384 + 112_140_288 + 74_760_192 + 37_748_736 + 16_777_216 + 4_096_000
    assert steps.multiply_adds(work) == 3 * forward - 105_415_200


def test_works_are_read_back_from_json(programs):
    import json

    for work in small(programs).values():
        assert programs["steps"].Work.read(json.loads(json.dumps(work))) == work


def test_all_libraries_train_the_same_network(programs):
    pytest.importorskip("jax", reason="the engine needs JAX")
    torch = pytest.importorskip("torch", reason="the peer needs PyTorch")
    steps = programs["steps"]
    for title, work in small(programs).items():
        net = steps.pellucid_network(work, "numpy")
        peer = steps.torch_network(work)
        own = sorted(W.size for layer in net.parameters.values() for W in layer.values())
        theirs = sum(each.numel() for each in peer.parameters())
        twice = sum(
            each[1] * {"rnn": 1, "lstm": 4}[each[0]] for each in work.layers if str(each)[1:4] in ("'rn", "'ls")
        )
        assert sum(own) == theirs - twice, title  # PyTorch's cells have two biases
        x, _ = steps.data(work)
        A = torch.from_numpy(x)
        assert tuple(peer(A.transpose(0, 1) if A.ndim == 3 else A).shape) == net.predict(x).shape == (4, 10)


def test_a_step_and_a_scan_of_the_jax_engine_learn(programs):
    jax = pytest.importorskip("jax", reason="the engine needs JAX")
    gpu, steps = programs["gpu"], programs["steps"]
    work = small(programs)["MLP 12-8-10, m=4, float32"]
    do = gpu.CONTENDERS["pellucid"](work)
    before = [np.asarray(leaf).copy() for leaf in jax.tree.leaves(do())]
    after = [np.asarray(leaf) for leaf in jax.tree.leaves(do())]
    assert all((old != new).any() for old, new in zip(before, after, strict=True))
    epoch = gpu.CONTENDERS["pellucid scan"](work)
    assert epoch.steps == 512
    history = epoch()
    assert history.epochs == [1]
    assert history["step"] == [512]
    steps.settle(None)


def test_a_gpu_is_never_replaced_in_silence(programs):
    jax = pytest.importorskip("jax", reason="the engine needs JAX")
    if jax.default_backend() == "gpu":
        pytest.skip("there is a GPU")
    work = small(programs)["MLP 12-8-10, m=4, float32"]._replace(device="cuda")
    with pytest.raises(NotImplementedError, match="JAX finds no GPU"):
        programs["gpu"].CONTENDERS["pellucid"](work)


def test_without_a_gpu_it_says_so(programs, monkeypatch, capsys):
    monkeypatch.setattr(programs["gpu"], "gpus", lambda pythons: {"torch": "", "jax": ""})
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    programs["gpu"].main()
    assert capsys.readouterr().out.startswith("no GPU: ")


def test_the_gpu_table(programs):
    gpu, steps = programs["gpu"], programs["steps"]
    work = steps.Work("train", (1000,), (1000,), 1000)  # one product each way: 4e9 operations
    taken = {"pellucid": [[0.004, 0.004]] * 3, "torch": [[0.008, 0.008]] * 3, "jax": [[0.005, 0.005]] * 3}
    row = steps.judged(taken) | {"absent": {}, "peak MB": {"pellucid": 12.0, "jax": 34.0}}
    assert row["pellucid / best peer"]["wall"] == {"peer": "jax", "ratio": 0.8}
    row["share of peak"] = gpu.share_of_peak(work, row, 2.0)
    assert math.isclose(row["share of peak"], 0.5)
    last = gpu.table({"one": row}).splitlines()[-1]
    assert last == "| one | 4 | – | 8 | – | – | – | 5 | 0.8 | – | 0.5 | 12 | 34 |"


# --- the model of many devices ---

STEP = 0.020  # seconds: the layers' 0.017 and 0.003 of loss and update


@pytest.fixture
def model(programs):
    import scaling

    costs = [scaling.Cost("a", 0.002, 0.004, 8_000_000), scaling.Cost("pool", 0.001, 0.001, 0)]
    return scaling, [*costs, scaling.Cost("b", 0.003, 0.006, 4_000_000)]


@pytest.mark.parametrize("overlap", [False, True])
def test_one_device_takes_what_was_measured(model, overlap):
    scaling, costs = model
    for link in scaling.LINKS.values():
        assert math.isclose(scaling.modelled(costs, STEP, 1, link, overlap=overlap), STEP)
        slow = [cost._replace(forward=cost.forward * 9) for cost in costs]  # longer apart than together
        assert math.isclose(scaling.modelled(slow, STEP, 1, link, overlap=overlap), STEP)


@pytest.mark.parametrize("overlap", [False, True])
def test_a_link_without_limits_scales_perfectly(model, overlap):
    scaling, costs = model
    for p in (2, 64, 256):
        assert math.isclose(scaling.modelled(costs, STEP, p, scaling.Link(math.inf, 0.0), overlap=overlap), STEP)


def test_a_ring_sends_each_byte_twice(model):
    scaling, _ = model
    assert scaling.ring(1e9, 1, scaling.Link(1e9, 1.0)) == 0.0
    assert scaling.ring(1e9, 2, scaling.Link(1e9, 0.0)) == 1.0
    assert math.isclose(scaling.ring(1e9, 1000, scaling.Link(1e9, 0.0)), 2.0, rel_tol=2e-3)
    assert scaling.ring(0.0, 4, scaling.Link(1e9, 0.5)) == 3.0


def test_sums_beside_the_backward_half_by_hand(model):
    scaling, costs = model
    link = scaling.Link(1e9, 0.0)  # two devices: 4 ms for b, 8 ms for a
    assert math.isclose(scaling.modelled(costs, STEP, 2, link, overlap=False), STEP + 0.012)
    # b backward until 12 ms, its sum until 16; pool until 13, a until 17, its sum until 25; then loss and update.
    assert math.isclose(scaling.modelled(costs, STEP, 2, link, overlap=True), 0.025 + 0.003)
    # Ten times slower, a waits for b's sum: 12 + 40 + 80.
    assert math.isclose(scaling.modelled(costs, STEP, 2, scaling.Link(1e8, 0.0), overlap=True), 0.132 + 0.003)


def test_two_towers_send_while_nothing_else_is_done(model):
    scaling, _ = model
    assert math.isclose(scaling.towers(0.1, [1_000, 0, 2_000], scaling.Link(1e6, 0.001)), 0.05 + 0.003 + 0.002)


def test_the_scaling_tables(model, monkeypatch):
    scaling, costs = model
    pytest.importorskip("jax", reason="the engine needs JAX")
    import jax

    monkeypatch.setattr(jax, "device_count", lambda: 2)
    asked = []
    monkeypatch.setattr(scaling, "measured", lambda work, rounds: asked.append(work.m) or (costs, STEP * work.m / 8))
    monkeypatch.setattr(scaling, "on_devices", lambda work, p, rounds: work.m / 1000)
    monkeypatch.setattr(scaling, "LINKS", {"none": scaling.Link(math.inf, 0.0)})
    work = scaling.steps.Work("train", (12,), (8, 10), 8)
    strong, weak = (scaling.scaling(work, 4, 1, strong=strong) for strong in (True, False))
    assert asked == [8, 4, 2, 8]
    rows = [line.split(" | ") for line in scaling.table(strong).splitlines()[2:]]
    assert rows[0] == ["| 1", "8", "20", "–", "as measured |"]
    assert rows[1] == ["| 2", "4", "10", "8", "10; 10 (100%) |"]
    assert rows[2] == ["| 4", "2", "5", "–", "5; 5 (100%) |"]
    last = [line.split(" | ") for line in scaling.table(weak).splitlines()[2:]][1]
    assert last == ["| 2", "8", "20", "16", "20; 20 (100%) |"]


def test_layers_are_measured_one_by_one(model):
    pytest.importorskip("jax", reason="the engine needs JAX")
    scaling, _ = model
    costs, step = scaling.measured(scaling.steps.Work("train", *scaling.gpu.SMALL["LeNet-5 of 12×12"], 4), 1)
    assert step > 0
    assert [cost.size for cost in costs if cost.size] == [4 * n for n in (2 * 26, 3 * 51, 8 * 13, 90)]
    assert len(costs) == 6
    assert all(cost.forward > 0 for cost in costs)
