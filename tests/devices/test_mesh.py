"""Several devices: what one computes, two and four compute, to rounding; simulated on the CPU in their own process."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pellucid as pl
from pellucid.cli import main
from pellucid.engines.mesh import Mesh, Placement
from pellucid.errors import EngineError, ParameterError
from pellucid.inspect.exchanges import sent_by_scope

WORKER = Path(__file__).with_name("worker.py")
JOBS = (
    *("mlp:", "mlp:data=2,model=2", "resumed", "command:", "command:data=4,sharded"),
    *("convolutions:", "convolutions:data=4", "convolutions:data=2,model=2"),
    *("lstm:", "lstm:data=2,sharded", "alexnet:", "alexnet:model=2", "exchanged:model=2", "exchanged:data=2,sharded"),
    *("layers:", "layers:data=2,model=2,sharded"),
    *("spread:data=4,sharded", "spread:data=2,model=2", "step_bytes:data=4,sharded", "lies:data=2,model=2,sharded"),
    *("looped:", "looped:data=4", "looped:data=2,sharded", "refused"),
)
TRAINED = [job for job in JOBS if job.split(":")[0] in ("mlp", "convolutions", "lstm", "alexnet", "layers")]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    if importlib.util.find_spec("jax") is None:  # looked for, not imported: what forks later would be warned of it
        pytest.skip("JAX is not installed")
    found, workers = {}, []
    for jobs in (JOBS[::2], JOBS[1::2]):  # two at a time, as what takes long is one thread's compiling
        environment = {**os.environ, "RUN": str(tmp_path_factory.mktemp("runs") / "run")}
        command = [sys.executable, "-W", "error", str(WORKER), "4", *jobs]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        workers.append(subprocess.Popen(command, env=environment, **pipes))
    for worker in workers:
        said, errors = worker.communicate()
        assert worker.returncode == 0, errors
        found |= json.loads(said)
    return found


def assert_same(one, other):
    assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
    for tree in ("parameters", "state"):
        assert list(one[tree]) == list(other[tree])
        for path, values in one[tree].items():
            np.testing.assert_allclose(other[tree][path], values, rtol=1e-4, atol=2e-5, err_msg=path)


@pytest.mark.parametrize("job", [job for job in TRAINED if not job.endswith(":")])
def test_the_mesh_changes_nothing_but_rounding(results, job):
    alone = results[job.partition(":")[0] + ":"]
    assert_same(alone, results[job])
    assert alone["loss"] > 0.1


def test_a_run_of_two_devices_is_resumed_on_one_and_on_four(results):
    for resumed in results["resumed"]:
        assert_same(results["mlp:"], resumed)


def test_the_towers_exchange_only_where_the_paper_has_them_meet(results):
    rows = {name: (split, forward, backward) for name, split, forward, backward in results["exchanged:model=2"]["rows"]}
    meeting = {name for name, (_, forward, backward) in rows.items() if forward or backward}
    assert meeting - {"loss"} == {"conv3", "fc6", "fc7", "fc8"}
    # conv3 reads conv2's maps after the pooling: 8 of 3×3 for each of 8 examples, half of which are the other tower's.
    assert rows["conv3"][1:] == (8 * 3 * 3 * 8 * 4 // 2,) * 2
    assert rows["fc7"][1:] == (128 * 8 * 4 // 2,) * 2
    assert rows["loss"][1] == 3 * 8 * 4  # the largest logit, the sum of exponentials, the target's: all-reduced
    assert {split for name, (split, _, _) in rows.items() if name != "loss"} == {"units over model"}


def test_sharded_devices_hold_less_and_fetch_it(results):
    whole, split = results["exchanged:model=2"], results["exchanged:data=2,sharded"]
    rows = {row[0]: row for row in split["rows"]}
    assert rows["fc7"][1] == "sharded over data"
    assert rows["fc7"][2] + rows["fc7"][3] >= 3 * 128 * 128 * 4 // 2  # W fetched twice, dW summed, of each half
    everything = 3 * 4 * sum(len(values) for values in results["alexnet:"]["parameters"].values())
    assert split["parameter_bytes"] < 0.6 * everything
    assert split["step_bytes"] > split["parameter_bytes"]
    for part in ("each of 2 devices holds", "units over model"):
        assert part in whole["text"]


def test_where_a_parameter_lies_is_told_by_its_shape_alone(results):
    assert results["lies:data=2,model=2,sharded"] == [
        *(["model", "data"], ["model", "data"], [None, "model"], ["model", None], [None, None]),
        *(["model"], ["model", None], ["model", "data", None, None], [None, "model"], []),
    ]


@pytest.mark.parametrize("job", ["spread:data=4,sharded", "spread:data=2,model=2"])
def test_a_network_is_nowhere_whole(results, job):
    found, parts = results[job], 4 if "sharded" in job else 2
    tensor = 128 * 128 * 4
    assert found["same"]
    assert set(found["shares"].values()) == {1 / parts}
    assert len(found["shares"]) == 8
    small = 3 * 12 * 1024  # biases, the last layer, a batch, the slots of these
    assert found["made"] < found["whole"] / parts + small
    assert found["read"] < 2 * found["whole"] / parts + small  # what was drawn is let go at the end
    # Parameters of the network and of the training, and two slots; resuming, those that were drawn too.
    assert found["trained"] < 4 * found["whole"] / parts + 4 * small
    assert found["resumed"] < 4 * found["whole"] / parts + 5 * small
    assert found["saved"] < 3 * tensor < found["whole"] / 2
    assert max(found["apart"]) < 1e-5


def test_the_command_line_has_its_network_nowhere_whole(results):
    alone, found = results["command:"], results["command:data=4,sharded"]
    assert (alone["code"], found["code"]) == (0, 0)
    assert sorted(map(tuple, alone["whole"])) == [(96, 128), (128, 64)]  # it would have been seen
    assert found["whole"] == []
    for part in ("train", "validation", "test"):
        assert found["said"][part] == pytest.approx(alone["said"][part], rel=1e-9)


def test_a_step_needs_no_more_for_a_deeper_network(results):
    (held, needs, rows), (held_12, needs_12, _) = results["step_bytes:data=4,sharded"]
    layer = 128 * 128 * 4
    assert held_12 - held == pytest.approx(8 * 3 * layer / 4, rel=0.05)
    assert needs_12 - held_12 < needs - held + layer
    # W fetched in the forward block and in the backward block, of dW each device gets its own part: 3/4 of it each.
    assert [row[2] for row in rows[:4]] == [layer * 3 // 4] * 4
    assert rows[1][3] == pytest.approx(2 * layer * 3 / 4, rel=0.03)
    assert rows[0][3] == pytest.approx(layer * 3 / 4, rel=0.03)


@pytest.mark.parametrize("mesh", ["data=4", "data=2,sharded"])
def test_the_loop_over_resident_examples_runs_on_a_mesh_and_exchanges_no_examples(results, mesh):
    alone, found = results["looped:"], results[f"looped:{mesh}"]
    assert found["calls"] == alone["calls"] == 2  # one for each epoch's two whole batches
    assert_same(alone["own"], found["own"])
    assert_same(found["steps"], found["own"])
    assert alone["kinds"] == {}
    if mesh == "data=4":
        assert set(found["kinds"]) == {"all-reduce"}
    else:
        assert found["kinds"]["reduce-scatter"] == 1  # of W of dense_1, the only large leaf


def test_what_cannot_be_done_is_refused_with_what_can(results):
    many, batch, words, zero = results["refused"]
    for message, said in (
        (many, ("expected: 5 devices", "4 (cpu)", "JAX_NUM_CPU_DEVICES=5")),
        (batch, ("batch_size=4 or 8", "a multiple of 4")),
        (words, ("data=2,rows=3", "data=2,model=2")),
        (zero, ("data is a number of devices",)),
    ):
        assert [part for part in said if part not in message] == []


# --- in this process, on one device -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "mesh"),
    [
        ("data=4", Mesh(4)),
        (" data = 2 , model=3", Mesh(2, 3)),
        ("model=2", Mesh(1, 2)),
        ("data=4,sharded", Mesh(4, 1, True)),
        (Mesh(2), Mesh(2)),
        (None, None),
    ],
)
def test_a_mesh_is_read_and_written(text, mesh):
    assert Mesh.of(text) == mesh
    assert mesh is None or Mesh.of(str(mesh)) == mesh


@pytest.mark.parametrize("wrong", ["", "data", "data=2,data=2", "rows=2", "data=-1", 4, "data=2;model=2"])
def test_what_is_no_mesh_is_refused(wrong):
    with pytest.raises(ParameterError, match="not a mesh of devices"):
        Mesh.of(wrong)


def test_other_engines_have_one_device():
    net = pl.Sequential(pl.Dense(2), input_shape=3, loss="softmax_cross_entropy", engine="numpy")
    with pytest.raises(EngineError, match=r"numpy engine runs on one device[\s\S]*engine='jax'"):
        net.fit(np.zeros((4, 3)), [0, 1, 0, 1], mesh="data=2")
    assert type(net.ops.placement(None)) is Placement


def test_one_device_exchanges_nothing():
    net = pl.Sequential(pl.Dense(2), input_shape=3, loss="softmax_cross_entropy", engine="numpy")
    with pytest.raises(ParameterError, match="one device exchanges nothing"):
        pl.exchanged(net, mesh=None)


def test_bytes_are_counted_from_a_program():
    program = """
  %a = f32[8,4]{1,0} all-gather(%x), replica_groups={{0,1},{2,3}}, metadata={op_name="jit(f)/dense_1/forward/x"}
  %b = f32[2,4]{1,0} reduce-scatter(%x), replica_groups=[1,4]<=[4], metadata={op_name="jit(f)/dense_1@2/backward/x"}
  %c = (f32[3]{0}, bf16[4]{0}) all-reduce(%x, %y), replica_groups=mesh['a'=2,'b'=2], device_ids=(T(1,0)) {'b'}, \
metadata={op_name="jit(f)/(dense_1/backward/s:update/s)"}
  %d = f32[5]{0} collective-permute(%x), source_target_pairs={{0,1}}, metadata={op_name="jit(f)/slice"}
  %e = (f32[4]{0}, f32[8]{0}) all-gather-start(%x), replica_groups={{0,1}}, metadata={op_name="jit(f)/update/y"}
  %f = f32[8]{0} all-gather-done(%e), metadata={op_name="jit(f)/update/y"}
"""
    assert sent_by_scope(program) == {
        "dense_1/forward": 8 * 4 * 4 // 2,
        "dense_1@2/backward": 2 * 4 * 4 * 3,
        "dense_1/backward": 3 * 4,
        "update": 4 * 2 + 8 * 4 // 2,
        "other": 5 * 4,
    }


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_the_command_line_shows_what_would_be_exchanged(tmp_path):
    net = tmp_path / "net.toml"
    net.write_text(
        'input_shape = [8]\nloss = "softmax_cross_entropy"\n'
        'layers = [{type = "dense", units = 32}, {type = "dense", units = 5}]\n'
    )
    command = [sys.executable, "-m", "pellucid", "show", str(net), "--mesh", "data=2,model=2", "--batch-size", "16"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    rows = {row["name"]: row for row in document["exchanged"]}
    assert document["mesh"] == "data=2,model=2"
    assert rows["dense_1"]["split"] == "units over model"
    assert rows["dense_1"]["backward"] == (16 * 8 + 16) * 4  # its half of dW and db, averaged over two
    assert rows["dense_2"]["split"] == "whole"  # five units
    assert main(["show", str(net), "--batch-size", "16"]) == 2
    assert main(["show", str(net), "--mesh", "data=2,rows=1"]) == 1
