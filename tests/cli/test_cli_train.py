"""``pellucid train``: what it measures, what it keeps, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from pellucid import engines
from pellucid.network import load
from pellucid.runs import Run

QUICK = ("--epochs", 2, "--hidden", 8, "--quiet", "--no-plot")


def test_digits_are_learned_measured_and_kept(pellucid):
    said = pellucid("train", "digits", "--epochs", 8, "--hidden", "64", "--quiet", "--out", "run", "--json")
    assert (said.code, said.err) == (0, "\n" * said.err.count("\n"))
    answer = said.json
    assert answer["run"] == "run"
    assert answer["engine"] == engines.available()[0]
    assert answer["epochs"] == 8
    assert answer["seconds"] > 0
    assert set(answer["memory"]) <= {"process", "engine"}
    assert answer["memory"] == Run.open("run").history().memory
    assert answer["examples"] == {"train": 1437, "validation": 180, "test": 180}
    assert answer["test"]["accuracy"] > 0.93
    assert set(answer["train"]) == set(answer["validation"]) == set(answer["test"]) == {"loss", "accuracy"}
    confusion = np.array(answer["confusion"])
    assert confusion.sum() == 180
    assert confusion.trace() / 180 == pytest.approx(answer["test"]["accuracy"])
    run = Run.open("run")
    assert run.status == "finished"
    assert {each.name for each in run.path.iterdir()} >= {
        "config.toml", "environment.json", "metrics.jsonl", "vault.json",
        "model.pellucid", "curves.png", "confusion.png",
    }  # fmt: skip
    opening = json.loads((run.path / "vault.json").read_text())["openings"]
    assert len(opening) == 1
    assert opening[0]["metrics"] == answer["test"]
    assert not opening[0]["repeat"]


def test_the_config_holds_every_hyperparameter_defaults_included(pellucid, trained):
    config = tomllib.loads((trained / "config.toml").read_text())
    assert (
        config["training"].items()
        >= {
            "epochs": 2,
            "batch_size": 8,
            "optimizer": {
                "type": "adam",
                "learning_rate": {"type": "cosine", "initial": 2e-3, "final": 0.0},
                "beta1": 0.9,
                "beta2": 0.999,
                "epsilon": 1e-8,
            },
            "patience": 8,
            "class_weight": "none",
            "metrics": ["accuracy"],
            "seed": 0,
            "shuffle": True,
            "layer_statistics": False,
            "engine": engines.available()[0],
        }.items()
    )
    assert config["split"] == {"validation": 0.1, "test": 0.1, "seed": 0}
    dense, norm, relu, dropout, last = config["network"]["layers"]
    assert (dense["type"], dense["units"], dense["use_bias"]) == ("Dense", 8, False)
    assert norm.keys() >= {"type", "momentum", "epsilon"}
    assert relu["type"] == "relu"
    assert (dropout["rate"], last["units"]) == (0.3, 2)
    assert config["network"]["loss"] == {"type": "softmax_cross_entropy", "label_smoothing": 0.0}
    assert json.loads((trained / "environment.json").read_text())["data_fingerprint"]


def test_the_network_that_is_kept_is_the_one_that_was_measured(pellucid, trained):
    from pellucid.tasks.examples import Examples

    experiment = Examples(Run.open(trained).config)
    x, y = experiment.rows("validation").arrays()
    opened = json.loads((trained / "vault.json").read_text())["openings"][0]["metrics"]
    xt, yt = experiment.rows("test").arrays()
    net = load(trained / "model.pellucid")
    assert net.evaluate(xt, yt) == pytest.approx(opened)
    assert len(x) == len(y) == 6
    assert experiment.preprocessor.document() == net.preprocessing


def test_people_are_told_what_happened_and_what_to_try(pellucid, flowers):
    flowers()
    said = pellucid("train", "flowers.csv", "--epochs", 3, "--hidden", 8, "--out", "r")
    assert said.code == 0
    for part in ("Learning", "Test set", "Results", "test accuracy", "Kept in\n  r ", "pellucid predict r NEW.csv"):
        assert part in said.out
    assert "60 examples of 5 numbers, 2 classes (48 train, 6 validation, 6 test)" in said.err
    assert "'kind'" in said.err  # which column is the target was decided, and is said
    assert "epoch 3/3" in said.err


def test_statistics_for_the_inputs_come_from_training_rows_alone(pellucid, trained):
    from pellucid.tasks.examples import Examples

    experiment = Examples(Run.open(trained).config)
    raw, _ = experiment.dataset.take(experiment.split.train)
    assert experiment.preprocessor.mean[0] == pytest.approx(raw["length"].mean(), rel=1e-12)
    x, _ = experiment.rows("train").arrays()
    assert x[:, 0].mean() == pytest.approx(0, abs=1e-6)


def test_a_regression_speaks_in_the_unit_of_its_target(pellucid, flowers):
    flowers(m=200)
    said = pellucid("train", "flowers.csv", "--target", "weight", "--epochs", 30, "--dropout", 0, "--quiet", "--json")
    answer = said.json
    from pellucid.tasks.examples import Examples

    run = Run.open(answer["run"])
    experiment = Examples(run.config)
    x, _ = experiment.rows("test").arrays()
    _, weight = experiment.dataset.take(experiment.split.test)
    predicted = experiment.preprocessor.inverse_y(load(run.path / "model.pellucid").predict(x))[:, 0]
    assert answer["test"]["mean_absolute_error"] == pytest.approx(np.abs(predicted - weight).mean(), rel=1e-5)
    assert answer["test"]["r2"] > 0.8
    recorded = run.history()["validation_mean_absolute_error"]
    assert recorded[answer["best_epoch"] - 1] == pytest.approx(answer["validation"]["mean_absolute_error"], rel=1e-5)
    said = pellucid("train", "flowers.csv", "--target", "weight", *QUICK)
    assert "all else is in the unit of weight" in said.out


def test_a_precision_is_obeyed_kept_and_shown(pellucid, flowers):
    flowers()
    said = pellucid("train", "flowers.csv", "--precision", "bfloat16", "--epochs", 1, "--out", "half", "--no-plot")
    assert said.code == 0
    assert "engine, products in bfloat16" in said.err
    assert Run.open("half").config["network"]["precision"] == load("half/model.pellucid").precision == "bfloat16"
    shown = pellucid("show", "half").out
    assert "multiplied in bfloat16" in shown
    assert 'precision = "bfloat16"' in shown
    refused = pellucid("train", "flowers.csv", "--precision", "bfloat16", "--dtype", "float64", "--no-plot")
    assert refused.code == 1
    assert "float64 is multiplied as it is" in refused.err


def test_every_flag_of_the_network_and_the_training_is_obeyed(pellucid, flowers):
    flowers()
    said = pellucid(
        "train", "flowers.csv", "--hidden", "7,5", "--activation", "tanh", "--dropout", 0.25,
        "--regularizer", "l2(1e-3)", "--loss", "sigmoid_cross_entropy",
        "--epochs", 3, "--batch-size", 10, "--optimizer", "momentum(cosine(0.1))",
        "--learning-rate", 0.05, "--patience", 0, "--class-weight", "balanced", "--metrics", "accuracy,log_loss",
        "--validation", 10, "--test", 0.2, "--seed", 3, "--engine", "numpy", "--dtype", "float64", "--threads", 1,
        "--layer-statistics", "--drop", "colour", "weight", "--no-standardize",
        "--out", "all", "--no-plot", "--quiet", "--json",
    )  # fmt: skip
    assert said.code == 0, said.out
    config, net = Run.open("all").config, load("all/model.pellucid")
    assert config["network"]["dtype"] == net.dtype == "float64"
    assert [layer["units"] for layer in config["network"]["layers"] if layer["type"] == "Dense"] == [7, 5, 1]
    assert sum(layer["type"] == "tanh" for layer in config["network"]["layers"]) == 2
    assert {layer["rate"] for layer in config["network"]["layers"] if layer["type"] == "Dropout"} == {0.25}
    assert config["network"]["regularizer"] == {"type": "l2", "rate": 1e-3}
    assert net.inputs == {"input": (2,)}
    assert config["training"]["optimizer"]["learning_rate"] == {"type": "cosine", "initial": 0.05, "final": 0.0}
    assert config["training"]["batch_size"] == 10
    assert config["training"]["patience"] == 0
    assert config["split"] == {"validation": 10, "test": 0.2, "seed": 3}
    assert net.seed == config["training"]["seed"] == 3
    assert set(said.json["test"]) == {"loss", "accuracy", "log_loss"}
    assert said.json["examples"] == {"train": 38, "validation": 10, "test": 12}
    assert net.losses["output"].class_weight is not None
    assert not (np.array(net.preprocessing["mean"]) != 0).any()
    records = Run.open("all").metrics()
    assert set(records[0]["layers"]) >= {"dense_1", "dense_2", "dense_3"}
    assert os.environ["OPENBLAS_NUM_THREADS"] == "1"


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        ("0.5", {"type": "cosine", "initial": 0.5, "final": 0.0}),
        ("step(0.5)", {"type": "step", "initial": 0.5, "every": 10, "factor": 0.1}),
    ],
)
def test_a_learning_rate_keeps_the_schedule_or_replaces_it(rate, expected):
    from pellucid.tasks.building import complete, optimizer_of

    assert complete(optimizer_of("adam(cosine(1e-3), beta1=0.8)", rate))["learning_rate"] == expected
    assert optimizer_of("adam(cosine(1e-3), beta1=0.8)", rate).beta1 == 0.8


def test_balanced_weights_are_scikit_learns(pellucid, flowers):
    flowers(change=lambda rows: rows[:1] + [row for i, row in enumerate(rows[1:]) if i % 2 or i < 20])
    pellucid("train", "flowers.csv", "--class-weight", "balanced", "--out", "r", *QUICK)
    from sklearn.utils.class_weight import compute_class_weight

    from pellucid.tasks.examples import Examples

    experiment = Examples(Run.open("r").config)
    y = experiment.dataset.y[experiment.split.train]
    expected = compute_class_weight("balanced", classes=np.array([0, 1]), y=y)
    weights = dict(load("r/model.pellucid").losses["output"].class_weight)
    assert [weights[0], weights[1]] == pytest.approx(expected)


def test_categories_can_be_embedded(pellucid, flowers):
    flowers()
    said = pellucid("train", "flowers.csv", "--categorical", "embedding", "--out", "r", "--json", *QUICK)
    assert said.code == 0
    net = load("r/model.pellucid")
    assert any(type(layer).__name__ == "Embedding" for layer in net.names)
    assert pellucid("step", "r", "--batch", 4).code == 0


def test_one_example_is_never_left_over_for_normalisation():
    from pellucid.zoo import Recipe

    for m in range(2, 3000):
        size = Recipe(batch_size=64).batch_for(m)
        assert 2 <= size <= 64
        assert m % size != 1 or m == 3


def test_large_data_are_prepared_as_they_are_needed_with_the_same_result(pellucid, flowers, monkeypatch):
    flowers()
    small = pellucid("train", "flowers.csv", "--out", "small", "--json", *QUICK).json
    monkeypatch.setattr("pellucid.data.prepared.Prepared.arrays", lambda self, limit=0: (self, None))
    large = pellucid("train", "flowers.csv", "--out", "large", "--json", *QUICK).json
    assert Path("small/model.pellucid").read_bytes() == Path("large/model.pellucid").read_bytes()
    for part in ("train", "validation", "test"):
        assert large[part] == pytest.approx(small[part])
    assert large["confusion"] == small["confusion"]


def test_the_limit_of_prepared_arrays(pellucid, trained):
    from pellucid.tasks.examples import Examples

    rows = Examples(Run.open(trained).config).rows("train")
    x, y = rows.arrays()
    assert rows.arrays(limit=x.nbytes)[1] is not None
    assert rows.arrays(limit=x.nbytes - 1) == (rows, None)
    some = np.array([5, 2, 9])
    np.testing.assert_array_equal(rows.take(some)[0], x[some])
    np.testing.assert_array_equal(rows.take(some)[1], y[some])


# --- network files --------------------------------------------------------------------------------------------------


def test_a_network_file_gets_what_it_leaves_open_from_the_data(pellucid, flowers):
    flowers()
    Path("net.toml").write_text('seed = 4\nlayers = [{type = "dense", units = 6, activation = "tanh"}, "dense"]\n')
    assert pellucid("train", "flowers.csv", "--net", "net.toml", "--out", "r", "--epochs", 2, "--quiet").code == 0
    net = load("r/model.pellucid")
    assert (net.inputs, net.outputs, net.seed) == ({"input": (5,)}, {"output": (2,)}, 4)
    assert net.losses["output"].registered_name == "softmax_cross_entropy"
    assert (
        pellucid("train", "flowers.csv", "--net", "net.toml", "--target", "weight", "--out", "v", "--epochs", 2).code
        == 0
    )
    assert load("v/model.pellucid").outputs == {"output": (1,)}


def test_a_trained_activation_within_a_layer_counts(pellucid, flowers):
    flowers()
    Path("net.toml").write_text('layers = [{type = "dense", units = 6, activation = "prelu"}, "dense"]\n')
    answer = pellucid("train", "flowers.csv", "--net", "net.toml", "--epochs", 1, "--no-plot", "--json").json
    numbers = 6 * 5 + 6 + 6 + 2 * 6 + 2  # W, b and the slopes of the first layer, W and b of the second
    assert answer["parameters"] == numbers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('layerz = ["dense"]', "unknown key 'layerz'"),
        ('layers = [{type = "dense", unitz = 3}]', "unitz"),
        ('layers = [{type = "dens", units = 3}]', "did you mean 'Dense'"),
        ('layers = [{type = "dense", units = 7}]', "the network's output does not fit flowers.csv"),
        ('input_shape = [9]\nlayers = ["dense"]', "the network's input does not fit flowers.csv"),
        ('loss = "huber"\nlayers = ["dense"]', "huber does not fit classification"),
        ("layers = [", "not a TOML file"),
        ("", "'layers' is missing"),
    ],
)
def test_a_network_file_that_does_not_fit_is_refused(pellucid, flowers, text, message):
    flowers()
    Path("net.toml").write_text(text)
    refused(pellucid("train", "flowers.csv", "--net", "net.toml"), message)


# --- what is refused ------------------------------------------------------------------------------------------------


def refused(said, *messages):
    """Exit code 1, the message on standard error, and no trace of a run."""
    assert (said.code, said.out) == (1, "")
    for message in messages:
        assert message in said.err
    assert "Traceback" not in said.err
    assert not Path("runs").exists() or not list(Path("runs").iterdir())


@pytest.mark.parametrize(
    ("flags", "messages"),
    [
        (["--target", "kinds"], ["unknown column 'kinds'", "did you mean 'kind'"]),
        (["--drop", "wdth"], ["unknown column 'wdth'", "did you mean 'width'"]),
        (["--net", "mpl"], ["unknown net 'mpl'", "did you mean 'mlp'"]),
        (["--net", "no.toml"], ["no.toml: there is no such network file"]),
        (["--engine", "nunpy"], ["unknown engine 'nunpy'", "did you mean 'numpy'"]),
        (["--optimizer", "adan"], ["unknown optimizer 'adan'", "did you mean 'adam'"]),
        (["--optimizer", "adam(-1)"], ["out of range"]),
        (["--learning-rate", "cosin(1)"], ["unknown schedule", "'cosine'"]),
        (["--loss", "softmax_crossentropie"], ["unknown loss", "did you mean 'softmax_cross_entropy'"]),
        (["--loss", "mse"], ["mean_squared_error does not fit classification", "softmax_cross_entropy"]),
        (["--loss", "cross_entropy"], ["reads probabilities", "--loss softmax_cross_entropy"]),
        (["--loss", "bce"], ["reads probabilities", "--loss sigmoid_cross_entropy"]),
        (["--metrics", "r2"], ["r2 is for regression", "accuracy"]),
        (["--metrics", "acuracy"], ["unknown metric 'acuracy'", "did you mean 'accuracy'"]),
        (["--activation", "rellu"], ["unknown activation 'rellu'", "did you mean 'relu'"]),
        (["--dropout", "1.5"], ["rate"]),
        (["--regularizer", "l3"], ["unknown regularizer 'l3'"]),
        (["--validation", "0", "--patience", "3"], ["there are no validation examples"]),
        (["--validation", "50", "--test", "20"], ["nothing is left to train on"]),
        (["--batch-size", "47"], ["a batch would hold a single example"]),
        (["--target", "weight", "--class-weight", "balanced"], ["--class-weight is for classes"]),
        (["--target", "colour", "--task", "regression"], ["not numbers"]),
    ],
)
def test_a_setting_that_cannot_be_is_refused_before_anything_is_written(pellucid, flowers, flags, messages):
    flowers()
    refused(pellucid("train", "flowers.csv", *flags), *messages)


def test_three_classes_are_not_told_apart_by_one_output(pellucid, flowers):
    flowers(change=lambda rows: [row.replace("red", "blue", i % 3 == 0) for i, row in enumerate(rows)])
    refused(pellucid("train", "flowers.csv", "--target", "colour", "--loss", "logistic"), "the data have 3")


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (lambda rows: [], ["flowers.csv: "]),
        (lambda rows: rows[:1], ["there is a header but no data"]),
        (lambda rows: rows[:1] + rows[1::2], ["one class only", "'iris'"]),
        (lambda rows: [*rows[:3], "1,2", *rows[3:]], ["line 4", "2 (line 4)"]),
        (lambda rows: [*rows[:3], "nan,1,red,2,iris", *rows[3:]], ["line 4", "'length'", "--missing"]),
        (lambda rows: [*rows[:3], "inf,1,red,2,iris", *rows[3:]], ["line 4", "infinite"]),
    ],
)
def test_data_that_cannot_be_learned_from_are_refused(pellucid, flowers, change, messages):
    flowers(change=change)
    refused(pellucid("train", "flowers.csv"), *messages)


def test_data_that_are_not_there_are_refused(pellucid):
    refused(pellucid("train", "flowers.csv"), "flowers.csv: there is no such file or folder")
    refused(pellucid("train", "digitz"), "unknown data set 'digitz'", "did you mean 'digits'")
    refused(pellucid("train", "sunspots-of-mars"), "unknown data set")
    refused(pellucid("train", "mnist"), "pellucid data fetch mnist")
    Path("photos").mkdir()
    refused(
        pellucid("train", "photos"),
        "nothing in this folder can be read",
        "one folder of images for each class",
        ".wav files for each word",
    )


def test_flags_of_the_zoo_do_not_silently_miss_a_file(pellucid, flowers):
    flowers()
    Path("net.toml").write_text('layers = ["dense"]\n')
    refused(
        pellucid("train", "flowers.csv", "--net", "net.toml", "--hidden", "3"), "--hidden is for networks of the zoo"
    )


def test_an_official_test_set_is_the_test_set(pellucid):
    rng = np.random.default_rng(0)
    y = np.arange(90) % 2
    x = (rng.normal(size=(90, 3)) + y[:, None]).astype(np.float32)
    np.savez("pair.npz", x_train=x[:60], y_train=y[:60], x_test=x[60:], y_test=y[60:])
    said = pellucid("train", "pair.npz", "--json", *QUICK)
    assert said.json["examples"] == {"train": 54, "validation": 6, "test": 30}
    again = pellucid("train", "pair.npz", "--test", 0.5)
    assert again.code == 1
    assert "the data have a test set of their own" in again.err


def test_a_folder_in_use_is_left_alone(pellucid, flowers):
    flowers()
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("years of work")
    said = pellucid("train", "flowers.csv", "--out", "mine")
    assert said.code == 1
    assert "there is something here already" in said.err
    assert [each.name for each in Path("mine").iterdir()] == ["thesis.txt"]


def test_a_full_disk_is_said_and_leaves_nothing_half_written(pellucid, flowers, monkeypatch):
    import errno

    flowers()
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
    said = pellucid("train", "flowers.csv", "--out", "r", *QUICK)
    monkeypatch.setattr(os, "fsync", real)
    assert said.code == 1
    assert "the disk is full" in said.err
    assert not Path("r").exists() or not [each for each in Path("r").rglob("*") if "tmp" in each.name]


# --- interruption and resuming --------------------------------------------------------------------------------------


def test_an_interrupted_run_goes_on_to_the_same_bits(pellucid, flowers, tmp_path):
    flowers(m=400)
    flags = ("--epochs", "400", "--patience", "0", "--hidden", "16", "--no-plot")
    process = subprocess.Popen(
        [sys.executable, "-m", "pellucid", "train", "flowers.csv", *flags, "--out", "cut", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    for line in process.stderr:
        if line.startswith("epoch   3/400"):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "pellucid train --resume cut" in err
    assert json.loads(out)["error"]["hint"] == "pellucid train --resume cut"
    assert Run.open("cut").status == "interrupted"
    assert not Path("cut/vault.json").exists()
    config = Path("cut/config.toml")
    config.write_text(config.read_text().replace("epochs = 400", "epochs = 60"))
    resumed = pellucid("train", "--resume", "cut", "--quiet", "--no-plot", "--json")
    assert resumed.code == 0, resumed.err
    assert Run.open("cut").history().epochs == list(range(1, len(Run.open("cut").history()) + 1))
    assert resumed.json["test"]["accuracy"] > 0.9


def test_resuming_ends_at_the_same_bits_as_never_having_stopped(pellucid, flowers, monkeypatch):
    from pellucid.training.loop import Training

    flowers()
    flags = ("--epochs", 6, "--patience", 0, "--hidden", 8, "--no-plot", "--quiet", "--json")
    whole = pellucid("train", "flowers.csv", "--out", "whole", *flags)
    real = Training._run_batch

    def stopped(self, chosen):
        if self.t == 20:
            signal.raise_signal(signal.SIGINT)
        return real(self, chosen)

    monkeypatch.setattr(Training, "_run_batch", stopped)
    cut = pellucid("train", "flowers.csv", "--out", "cut", *flags)
    assert cut.code == 130
    assert cut.json["error"]["type"] == "Interrupted"
    monkeypatch.setattr(Training, "_run_batch", real)
    again = pellucid("train", "--resume", "cut", "--no-plot", "--quiet", "--json")
    assert Path("cut/model.pellucid").read_bytes() == Path("whole/model.pellucid").read_bytes()
    assert Path("cut/config.toml").read_text() == Path("whole/config.toml").read_text()
    for part in ("train", "validation", "test", "epochs", "confusion"):
        assert again.json[part] == whole.json[part]


def test_interrupted_before_anything_was_learned_nothing_is_left(pellucid, flowers, monkeypatch):
    from pellucid.training.loop import Training

    flowers()

    def stop(self, chosen):
        raise KeyboardInterrupt

    monkeypatch.setattr(Training, "_run_batch", stop)
    said = pellucid("train", "flowers.csv", "--out", "r", "--quiet")
    assert said.code == 130
    assert not Path("r").exists()


def test_a_cost_that_explodes_is_said_and_the_run_marked_failed(pellucid, flowers):
    flowers()
    Path("net.toml").write_text('layers = ["dense"]\n')
    said = pellucid(
        "train", "flowers.csv", "--target", "weight", "--net", "net.toml", "--optimizer", "gradient_descent(1e8)",
        "--out", "r", "--epochs", 20, "--quiet",
    )  # fmt: skip
    assert said.code == 1
    assert "the cost became" in said.err
    assert "a smaller learning rate" in said.err
    assert Run.open("r").status == "failed"
    assert not Path("r/model.pellucid").exists()


def test_averaging_ends_with_the_mean_of_the_epochs(pellucid, tmp_path):
    flags = ("--epochs", 3, "--hidden", 8, "--dropout", 0, "--optimizer", "adam(1e-2)", "--quiet", "--no-plot")
    ends = []
    for name, more in (("two", ("--epochs", 2)), ("three", ()), ("mean", ("--averaging", 1))):
        assert pellucid("train", "iris", *flags, *more, "--patience", 0, "--out", name).code == 0
        ends.append(load(tmp_path / name / "model.pellucid").parameters["dense_1"]["W"])
    np.testing.assert_allclose(ends[2], (ends[0] + ends[1]) / 2, rtol=1e-5, atol=1e-7)
    assert not np.allclose(ends[0], ends[1], rtol=1e-3)
    training = Run.open("mean").config["training"]
    assert (training["averaging"], training["patience"]) == (1, 0)
    assert "averaging" not in Run.open("three").config["training"]
    assert pellucid("train", "iris", *flags, "--averaging", "--out", "default").code == 0, "no early stopping with it"
    assert Run.open("default").config["training"]["averaging"] == 0.75


def test_averaging_goes_with_no_best_epoch_and_belongs_to_the_run(pellucid, trained):
    said = pellucid("train", "iris", "--averaging", "--patience", 3)
    assert (said.code, "give one of them" in said.err) == (2, True)
    said = pellucid("train", "--resume", "first", "--averaging", 0)
    assert (said.code, "--averaging cannot be another than the run's" in said.err) == (2, True)
    assert pellucid("train", "--resume", "first", "--patience", 0).code == 2


def test_a_run_only_grows_and_its_test_set_stays_seen_once(pellucid, trained):
    said = pellucid("train", "--resume", "first", "--epochs", 1)
    assert said.code == 1
    assert "a run can only grow" in said.err
    said = pellucid("train", "--resume", "first", "--epochs", 4, "--no-plot", "--quiet", "--json")
    assert said.json["epochs"] == 4
    assert said.json["test"] is None
    assert Run.open("first").config["training"]["epochs"] == 4
    assert len(json.loads((trained / "vault.json").read_text())["openings"]) == 1
    said = pellucid("train", "--resume", "first", "--seed", 3)
    assert said.code == 2
    assert "--seed cannot be another than the run's" in said.err
    assert pellucid("train", "--resume", "nosuch").code == 1


def test_a_run_is_not_resumed_on_other_data(pellucid, trained, flowers):
    flowers(change=lambda rows: [rows[0], *reversed(rows[1:])])
    said = pellucid("train", "--resume", "first", "--epochs", 4)
    assert said.code == 1
    assert "the data have changed since the run was made" in said.err


def test_class_names_that_cannot_be_drawn_are_told(pellucid, flowers, monkeypatch):
    from pellucid.inspect import curves

    monkeypatch.setattr(curves, "_fonts", lambda: ["DejaVu Sans"])
    flowers(change=lambda rows: [row.replace("rose", "장미") for row in rows])
    said = pellucid("train", "flowers.csv", "--epochs", 1, "--out", "r")
    assert said.code == 0, said.err
    assert "confusion.png numbers the classes from 0: no font here has '미장'" in said.err


def numbers(path: str, rows: list[str]) -> None:
    Path(path).write_text("\n".join(["a,b,kind", *rows]) + "\n")


@pytest.mark.parametrize(
    ("rows", "flags", "words"),
    [
        (["1,2,x", "2,3,y", "3,1,z"], [], ["x (1)", "z (1)", "--validation 0", "--test 0"]),
        (
            [f"{i % 7},{'1e300' if i == 3 else i},{'xy'[i % 2]}" for i in range(40)],
            ["--validation", "0", "--test", "0"],
            ["column 'b'", "--drop b"],
        ),
        (["inf,2,x", "2,3,y"] * 10, [], ["infinite", "--drop a"]),
        (["1,2,x"] * 10, [], ["one class only", "--target"]),
        ([], [], ["no data", "--header no"]),
        (["1,5,x", "2,3,y"] * 10, ["--validation", ".6", "--test", ".6"], ["together 1.2 of the data"]),
        (["1,5,x", "2,3,y"] * 10, ["--optimizer", "adam(lr=0.1)"], ["unknown argument 'lr'", "did you mean learn"]),
    ],
)
def test_what_cannot_be_trained_on_says_the_way_out(pellucid, rows, flags, words):
    numbers("t.csv", rows)
    said = pellucid("train", "t.csv", "--epochs", 1, "--no-plot", *flags)
    assert said.code == 1
    assert all(word in said.err for word in words), said.err


def test_a_tiny_file_can_be_trained_on_as_its_hint_says(pellucid):
    numbers("t.csv", ["1,2,x", "2,3,y", "3,1,z"])
    said = pellucid("train", "t.csv", "--epochs", 1, "--no-plot", "--validation", 0, "--test", 0)
    assert said.code == 0, said.err


def test_a_column_of_one_text_is_warned_of(pellucid):
    numbers("t.csv", [f"{i % 7},same,{'xy'[i % 2]}" for i in range(40)])
    said = pellucid("train", "t.csv", "--epochs", 1, "--no-plot")
    assert "column 'b' has one value in all training rows" in said.err
