"""Callbacks: when they are called, what they remember, what early stopping brings back."""

from __future__ import annotations

import numpy as np
import pytest

import pellucid as pl
from pellucid.errors import ParameterError
from pellucid.network.parameters import copied
from pellucid.runs import Run, environment
from pellucid.trees import flatten

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)


def make(**options):
    layers = [pl.Dense(8, "tanh"), pl.BatchNorm(), pl.Dense(2)]
    return pl.Sequential(*layers, input_shape=4, loss="softmax_cross_entropy", seed=1, **options)


def fit(net, **options):
    return net.fit(X, Y, **{"epochs": 3, "batch_size": 20, "progress": False, **options})


class Diary(pl.Callback):
    def __init__(self, name, pages):
        self.name, self.pages = name, pages

    def write(self, training, what):
        self.pages.append((self.name, what, training.epoch, training.t))

    def on_start(self, training):
        self.write(training, "start")

    def on_update(self, training):
        self.write(training, "update")

    def on_epoch(self, training, record):
        assert record["epoch"] == training.epoch == training.history.records[-1]["epoch"]
        self.write(training, "epoch")

    def on_end(self, training):
        self.write(training, "end")


def test_the_order_of_calls():
    pages = []
    fit(make(), epochs=2, callbacks=[Diary("a", pages), Diary("b", pages)])
    moments = [
        ("start", 0, 0),
        ("update", 0, 1),
        ("update", 0, 2),
        ("epoch", 1, 2),
        ("update", 1, 3),
        ("update", 1, 4),
        ("epoch", 2, 4),
        ("end", 2, 4),
    ]
    assert pages == [(name, *moment) for moment in moments for name in "ab"]


@pytest.mark.parametrize("moment", ["on_start", "on_update", "on_epoch", "on_end"])
def test_an_exception_in_a_callback_breaks_nothing(tmp_path, moment):
    class Fails(pl.Callback):
        armed = True

    def fail(self, training, *_):
        if self.armed and (training.t == 4 or moment in ("on_start", "on_end")):
            raise ZeroDivisionError("mine")

    setattr(Fails, moment, fail)
    with Run.create(tmp_path / "run", config={}, environment=environment(engine="numpy")):
        pass
    pages = []
    net, fails = make(), Fails()
    before = copied(net.parameters)
    options = {"run": tmp_path / "run", "checkpoint_seconds": 0}
    with pytest.raises(ZeroDivisionError, match="mine"):
        fit(net, callbacks=[fails, Diary("after", pages)], **options)
    if moment != "on_start":
        assert pages[-1][1] == "end"
        assert (net.parameters["dense_1"]["W"] != before["dense_1"]["W"]).any()
    assert Run.open(tmp_path / "run").status == "failed"
    fails.armed = False
    again, whole = make(), make()
    history = fit(again, callbacks=[fails], resume=True, **options)
    expected = fit(whole)
    assert history["loss"] == expected["loss"]
    for path, leaf in flatten(whole.parameters).items():
        np.testing.assert_array_equal(flatten(again.parameters)[path], leaf)


class Scripted(pl.Callback):
    """Replaces what was measured by a given curve, before early stopping looks."""

    def __init__(self, values, seen=None):
        self.values, self.seen = values, [] if seen is None else seen

    def on_epoch(self, training, record):
        training.history.records[-1]["validation"]["loss"] = self.values[record["epoch"] - 1]
        training.history.records[-1]["validation"]["accuracy"] = -self.values[record["epoch"] - 1]
        self.seen.append((copied(training.params), copied(training.state)))


NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "options", "epochs", "best"),
    [
        ([5, 4, 3, 2, 1, 0], {"patience": 1}, 6, 6),
        ([5, 4, 6, 3, 7, 8, 9, 1], {"patience": 2}, 6, 4),
        ([5, 5, 5, 5], {"patience": 3}, 4, 1),
        ([5, 4.9, 4.8, 4.7, 4.6], {"patience": 2, "min_delta": 0.15}, 5, 5),
        ([5, 4.9, 4.8, 4.7, 4.6], {"patience": 2, "min_delta": 0.5}, 3, 1),
        ([5, NAN, 4, NAN, NAN, 1], {"patience": 2}, 5, 3),
        ([NAN, 5, 6, 7], {"patience": 2}, 4, 2),
        ([5, 4, 6, 3, 7, 8, 9, 1], {"patience": 2, "monitor": "validation_accuracy"}, 6, 4),
    ],
)
def test_patience(values, options, epochs, best):
    scripted, stopping = Scripted(values), pl.EarlyStopping(**options)
    net = make()
    history = fit(net, epochs=len(values), validation=0.25, callbacks=[scripted, stopping])
    assert len(history) == epochs
    assert stopping.best_epoch == best
    name = options.get("monitor", "validation_loss")
    ended_early = epochs < len(values) or (epochs - best) >= options["patience"]
    assert history.stopped == (f"{name} has not improved since epoch {best}" if ended_early else None)
    assert history.restored_epoch == (None if best == epochs else best)
    params, state = scripted.seen[best - 1]
    for tree, kept in ((net.parameters, params), (net.state, state)):
        for path, leaf in flatten(kept).items():
            np.testing.assert_array_equal(flatten(tree)[path], leaf)


def test_the_last_parameters_are_kept_on_request():
    scripted = Scripted([1, 2, 3])
    net = make()
    history = fit(
        net, validation=0.25, callbacks=[scripted, pl.EarlyStopping(1, restore_best=False), pl.EarlyStopping(9)][:2]
    )
    assert (len(history), history.restored_epoch) == (2, None)
    np.testing.assert_array_equal(net.parameters["dense_1"]["W"], scripted.seen[-1][0]["dense_1"]["W"])


def test_one_object_serves_several_fits():
    stopping = pl.EarlyStopping(1)
    for _ in range(2):
        history = fit(make(), validation=0.25, callbacks=[Scripted([2, 1, 3]), stopping])
        assert (len(history), history.restored_epoch, stopping.best_value) == (3, 2, 1)


def test_training_loss_needs_no_validation():
    history = fit(make(), epochs=4, optimizer="sgd(0)", shuffle=False, callbacks=pl.EarlyStopping(2, monitor="loss"))
    assert len(history) == 3


def test_an_unknown_monitor_lists_the_known():
    with pytest.raises(ParameterError, match="unknown metric 'validation_acuracy'") as problem:
        fit(make(), validation=0.25, callbacks=pl.EarlyStopping(monitor="validation_acuracy"))
    assert "validation_accuracy" in str(problem.value)


def test_patience_may_be_a_number_of_numpy():
    stopping = pl.EarlyStopping(np.int64(3), min_delta=np.float32(0.5))
    assert type(stopping.patience) is int
    assert type(stopping.min_delta) is float


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 0}, "patience counts epochs"),
        ({"patience": 1.5}, "patience counts epochs"),
        ({"patience": True}, "patience counts epochs"),
        ({"min_delta": -1}, "min_delta must be ≥ 0"),
        ({"min_delta": NAN}, "min_delta must be ≥ 0"),
    ],
)
def test_early_stopping_refuses(options, message):
    with pytest.raises(ParameterError, match=message):
        pl.EarlyStopping(**options)


def test_stop_ends_after_the_epoch():
    class Stops(pl.Callback):
        def on_update(self, training):
            if training.t == 3:
                training.stop("enough")

    history = fit(make(), callbacks=Stops())
    assert (len(history), history.stopped, history.restored_epoch) == (2, "enough", None)
