"""Weight averaging: the average by hand, batch normalisation's statistics made anew, resumed to the bit."""

from __future__ import annotations

import numpy as np
import pytest

import pellucid as pl
from pellucid.errors import ParameterError
from pellucid.layers.base import Mode
from pellucid.network.base import Observer
from pellucid.network.parameters import copied
from pellucid.runs import Run, environment
from pellucid.trees import flatten

RNG = np.random.default_rng(0)
X = (RNG.normal(size=(50, 4)) * [1, 2, 3, 4] + 1).astype(np.float32)
Y = (X[:, 0] > 1).astype(int)


def make(*extra, **options):
    layers = [pl.Dense(8, "tanh"), pl.BatchNorm(), *extra, pl.Dense(2)]
    return pl.Sequential(*layers, input_shape=4, loss="softmax_cross_entropy", seed=1, **options)


def fit(net, *callbacks, **options):
    return net.fit(X, Y, **{"epochs": 8, "batch_size": 16, "progress": False, "callbacks": callbacks, **options})


class Diary(pl.Callback):
    """Keeps the parameters after every update and every epoch."""

    def __init__(self):
        self.updates, self.epochs = [], []

    def on_update(self, training):
        self.updates.append(flatten(copied(training.params)))

    def on_epoch(self, training, record):
        self.epochs.append(flatten(copied(training.params)))


@pytest.mark.parametrize(("start", "first"), [(0.75, 6), (0.5, 4), (0.0, 0), (0, 0), (6, 6), (0.95, 7)])
def test_stochastic_weight_averaging_is_the_mean_of_the_epochs_after_start(start, first):
    diary, net = Diary(), make(dtype="float64")
    fit(net, diary, pl.WeightAveraging(start))
    for path, leaf in flatten(net.parameters).items():
        expected = np.mean([epoch[path] for epoch in diary.epochs[first:]], axis=0)
        np.testing.assert_allclose(leaf, expected, rtol=1e-12, atol=1e-14)
        assert first == 7 or not np.allclose(leaf, diary.epochs[-1][path])


def test_the_exponential_average_is_taken_at_every_update():
    diary, net = Diary(), make(dtype="float64")
    fit(net, diary, pl.WeightAveraging(2, decay=0.9))
    for path, leaf in flatten(net.parameters).items():
        mean = diary.updates[8][path]  # four updates an epoch
        for W in diary.updates[9:]:
            mean = 0.9 * mean + 0.1 * W[path]
        np.testing.assert_allclose(leaf, mean, rtol=1e-12, atol=1e-14)


def test_the_average_is_pytorchs():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    diary, net = Diary(), make(dtype="float64")
    fit(net, diary, pl.WeightAveraging(4))
    module = torch.nn.Linear(4, 8, dtype=torch.float64)
    averaged = torch.optim.swa_utils.AveragedModel(module)
    for epoch in diary.epochs[4:]:
        module.weight.data = torch.from_numpy(epoch["dense_1/W"].copy())
        averaged.update_parameters(module)
    np.testing.assert_allclose(net.parameters["dense_1"]["W"], averaged.module.weight.detach().numpy(), rtol=1e-12)


def test_the_statistics_of_batch_norm_are_those_of_the_averaged_network():
    net = make(dtype="float64")
    fit(net, pl.WeightAveraging(0.5), batch_size=50)
    A = np.tanh(net.parameters["dense_1"]["W"] @ X.T.astype(np.float64) + net.parameters["dense_1"]["b"])
    np.testing.assert_allclose(net.state["batch_norm_1"]["mean"], A.mean(axis=1, keepdims=True), rtol=1e-10)
    np.testing.assert_allclose(net.state["batch_norm_1"]["variance"], A.var(axis=1, keepdims=True, ddof=1), rtol=1e-10)
    # so that prediction on the training data is what training would see
    train, _ = net.forward(X.T.astype(np.float64), train=True)
    np.testing.assert_allclose(net.forward(X.T.astype(np.float64))[0], train, atol=0.05)


def test_statistics_are_means_over_the_batches_weighted_by_their_size():
    shared = pl.BatchNorm()
    net = make(pl.Dense(8, "tanh"), shared, pl.Dense(8), shared, dtype="float64")
    fit(net, pl.WeightAveraging(0.5), shuffle=False)

    class Moments(Observer):
        means = []  # noqa: RUF012

        def forward(self, index, A_prev, A, cache):
            if net.steps[index].layer is shared:
                self.means.append(A_prev.mean(axis=1, keepdims=True) * A_prev.shape[1])

    for start in range(0, 50, 16):
        inputs = {"input": X[start : start + 16].T.astype(np.float64)}
        net.forward_pass(net.parameters, net.state, inputs, Mode(True), observer=Moments())
    assert len(Moments.means) == 8
    np.testing.assert_allclose(net.state["batch_norm_2"]["mean"], sum(Moments.means) / 100, rtol=1e-10)


def test_images_augmented_and_layers_with_chance():
    x = RNG.normal(size=(40, 1, 6, 6)).astype(np.float32)
    layers = [pl.Conv2D(3, 3), pl.BatchNorm(), pl.ReLU(), pl.Flatten(), pl.Dropout(0.5), pl.Dense(2)]
    nets = [pl.Sequential(*layers, input_shape=(1, 6, 6), loss="softmax_cross_entropy") for _ in range(2)]
    for net in nets:
        options = {"epochs": 3, "augment": ["shift(1)", "mixup"], "callbacks": [pl.WeightAveraging()]}
        net.fit(x, np.arange(40) % 2, progress=False, **options)
        assert net.parameters["conv2d_1"]["W"].dtype == net.state["batch_norm_1"]["mean"].dtype == np.float32
    np.testing.assert_array_equal(nets[0].state["batch_norm_1"]["mean"], nets[1].state["batch_norm_1"]["mean"])


class Dies(pl.Callback):
    def __init__(self, t):
        self.t = t

    def on_update(self, training):
        if training.t == self.t:
            raise ZeroDivisionError


@pytest.mark.parametrize("decay", [None, 0.9])
@pytest.mark.parametrize("t", [3, 18, 32])
def test_resumed_to_the_bit(tmp_path, decay, t):
    options = {"run": tmp_path / "run", "checkpoint_seconds": 0}
    with Run.create(tmp_path / "run", config={}, environment=environment(engine="numpy")):
        pass
    start = 0 if decay else 0.5
    straight, cut, resumed = make(), make(), make()
    fit(straight, pl.WeightAveraging(start, decay))
    with pytest.raises(ZeroDivisionError):
        fit(cut, Dies(t), pl.WeightAveraging(start, decay), **options)
    fit(resumed, pl.WeightAveraging(start, decay), resume=True, **options)
    for one, other in ((straight.parameters, resumed.parameters), (straight.state, resumed.state)):
        for path, leaf in flatten(one).items():
            np.testing.assert_array_equal(flatten(other)[path], leaf, err_msg=path)


def test_an_interrupted_training_keeps_what_it_last_had():
    diary, net = Diary(), make()
    with pytest.raises(ZeroDivisionError):
        fit(net, diary, pl.WeightAveraging(0), Dies(20))
    np.testing.assert_array_equal(net.parameters["dense_1"]["W"], diary.updates[-1]["dense_1/W"])


def test_a_stopped_training_gets_its_average():
    diary, net = Diary(), make(dtype="float64")
    stopping = pl.EarlyStopping(1, monitor="loss", min_delta=10.0, restore_best=False)
    history = fit(net, diary, stopping, pl.WeightAveraging(0))
    assert history.stopped
    expected = np.mean([epoch["dense_1/W"] for epoch in diary.epochs], axis=0)
    np.testing.assert_allclose(net.parameters["dense_1"]["W"], expected, rtol=1e-12)


def test_a_callback_used_again_begins_anew():
    averaging, one, other = pl.WeightAveraging(0.5), make(), make()
    fit(make(), averaging)
    fit(one, averaging)
    fit(other, pl.WeightAveraging(0.5))
    np.testing.assert_array_equal(one.parameters["dense_1"]["W"], other.parameters["dense_1"]["W"])


def test_it_averages_where_the_rate_keeps_moving_the_weights():
    """Izmailov's point on a noisy valley: the last iterate jumps about, the average lies at the bottom."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 10))
    y = x @ np.arange(10.0)[:, None] + rng.normal(size=(400, 1)) * 4

    def distance(*callbacks):
        net = pl.Sequential(pl.Dense(1), input_shape=10, loss="mean_squared_error", seed=0)
        options = {"optimizer": "gradient_descent(0.05)", "batch_size": 4, "epochs": 12, "progress": False}
        net.fit(x, y, callbacks=callbacks, **options)
        best = np.linalg.lstsq(np.c_[x, np.ones(400)], y, rcond=None)[0]
        return np.linalg.norm(net.parameters["dense_1"]["W"].ravel() - best[:-1, 0])

    plain = distance()
    assert distance(pl.WeightAveraging(0.25)) < 0.7 * plain
    assert distance(pl.WeightAveraging(0.25, decay=0.99)) < 0.7 * plain


@pytest.mark.parametrize("start", [-1, 1.0, -0.1, True, "half", float("nan")])
def test_start_is_checked(start):
    with pytest.raises(ParameterError, match=r"start says when[\s\S]*a share"):
        pl.WeightAveraging(start)


@pytest.mark.parametrize("decay", [0.0, 1.0, 2, True, float("nan"), "0.9"])
def test_decay_is_checked(decay):
    with pytest.raises(ParameterError, match="decay is out of range"):
        pl.WeightAveraging(0.5, decay)


def test_what_does_not_go_together():
    with pytest.raises(ParameterError, match=r"averaging never begins[\s\S]*start=8, 8 epochs"):
        fit(make(), pl.WeightAveraging(8))
    with pytest.raises(ParameterError, match=r"both the best and the average[\s\S]*restore_best=False"):
        fit(make(), pl.EarlyStopping(3), pl.WeightAveraging(), validation=0.2)
