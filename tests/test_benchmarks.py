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
    assert epoch.steps == 64
    history = epoch()
    assert history.epochs == [1]
    assert history["step"] == [64]
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
