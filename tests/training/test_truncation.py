"""Truncated back-propagation through time, and state that is carried from batch to batch."""

from __future__ import annotations

import numpy as np
import pytest

import pellucid as pl
from pellucid import files
from pellucid.errors import ParameterError, ShapeError, TrainingError
from pellucid.layers import Mode
from pellucid.runs import Run
from pellucid.sequences import Sequences
from pellucid.trees import flatten, leaves, tree_map

CELLS = [pl.SimpleRNN, pl.LSTM, pl.GRU]
cells = pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.__name__)
LOSSES = ["softmax_cross_entropy", "mse"]
QUIET = {"metrics": (), "progress": False, "shuffle": False}


def make_net(cell=pl.LSTM, loss="softmax_cross_entropy", *, stateful=False, dropout=0.0, **options):
    return pl.Sequential(
        cell(4, return_sequences=True, stateful=stateful),
        *([pl.Dropout(dropout)] if dropout else []),
        cell(3, return_sequences=True, stateful=stateful),
        pl.TimeDistributed(pl.Dense(3)),
        input_shape=(None, 2),
        loss=loss,
        **{"dtype": "float64", "seed": 5, **options},
    )


def examples(loss, lengths, rng):
    x = [rng.normal(size=(T, 2)) for T in lengths]
    y = [rng.integers(3, size=T) if loss == "softmax_cross_entropy" else rng.normal(size=(T, 3)) for T in lengths]
    return (Sequences(x), Sequences(y)) if len(set(lengths)) > 1 else (np.array(x), np.array(y))


def copied(net):
    return tree_map(lambda W: np.array(net.ops.to_numpy(W)), net.parameters)


def assert_close(tree, other, rtol=1e-9):
    for (name, one), (_, two) in zip(leaves(tree), leaves(other), strict=True):
        np.testing.assert_allclose(one, two, rtol=rtol, atol=1e-12, err_msg=name)


def assert_same(tree, other):
    one, two = flatten(tree), flatten(other)
    assert list(one) == list(two)
    for name, A in one.items():
        np.testing.assert_array_equal(A, two[name], err_msg=name)


# --- against full back-propagation and loops by hand ----------------------------------------------------------------


@cells
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("lengths", [[7, 7, 7], [3, 7, 1]], ids=["equal", "different"])
@pytest.mark.parametrize("k", [7, 50, (7, 9)])
def test_a_window_of_all_the_steps_is_full_back_propagation(cell, loss, lengths, k, rng):
    x, y = examples(loss, lengths, rng)
    one, other = (make_net(cell, loss) for _ in range(2))
    whole = one.fit(x, y, epochs=3, batch_size=2, **QUIET)
    parts = other.fit(x, y, epochs=3, batch_size=2, truncate=k, **QUIET)
    assert_same(other.parameters, one.parameters)
    assert parts["loss"] == whole["loss"]


def by_hand(net, batches, k1, k2, rate):
    """Windows spelled out with `forward_pass` and `backward_pass`: the state goes on, the gradient does not."""
    params, losses = net.parameters, []
    (loss,) = net.losses.values()
    for X, Y, mask in batches:
        T, m = mask.shape
        share = loss.shares(mask, np.float64)
        carry, begin, total = net.start(), 0, np.zeros(m)
        for counted in range(0, T, k1):
            end = min(counted + k1, T)
            inside = slice(begin, end)
            mode = Mode(True, mask=net.masks({"input": mask[inside]}))
            outputs, caches = net.forward_pass(params, carry, {"input": X[inside]}, mode)
            weight = share[inside] * (np.arange(begin, end)[:, None] >= counted)
            each, cache = loss.masked_forward(net.ops, outputs["output"], Y[inside], weight)
            dA = loss.masked_backward(net.ops, cache, weight)
            _, grads = net.backward_pass(params, caches, {"output": dA}, input_gradient=False)
            total += each
            params = tree_map(lambda W, dW: W - rate * dW, params, grads)
            following = min(end, max(0, min(end + k1, T) - k2))  # where the next window of k2 steps begins
            carry, begin = net.carried(caches, following - begin), following
        losses.append(total)
    return params, np.concatenate(losses).mean()


@cells
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("k1", "k2"), [(3, 3), (1, 1), (2, 5), (1, 4), (4, 6), (3, 20)])
def test_a_loop_by_hand(cell, loss, k1, k2, rng):
    x, y = examples(loss, [7, 2, 9, 9, 4], rng)
    net = make_net(cell, loss)
    batches = []
    for chosen in ([0, 1], [2, 3], [4]):
        (X, mask), (Y, _) = x.batch(np.array(chosen)), y.batch(np.array(chosen))
        batches.append((X, Y, np.ones((len(X), X.shape[-1]), bool) if mask is None else mask))
    params, mean = by_hand(net, batches, k1, k2, 0.3)
    options = {"optimizer": "gradient_descent(0.3)", **QUIET}
    history = net.fit(x, y, epochs=1, batch_size=2, truncate=(k1, k2), **options)
    assert_close(net.parameters, params)
    assert history["loss"][0] == pytest.approx(mean, rel=1e-12)


@cells
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("k1", "k2"), [(3, 3), (2, 5), (1, 4), (4, 10)])
def test_pytorch_with_detach(cell, loss, k1, k2, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here, and it is not installed")
    T, m, n, rate = 10, 3, 4, 0.2
    x, y = examples(loss, [T] * m, rng)
    net = pl.Sequential(
        cell(n, return_sequences=True),
        pl.TimeDistributed(pl.Dense(3)),
        input_shape=(T, 2),
        loss=loss,
        dtype="float64",
    )
    kinds = {pl.SimpleRNN: torch.nn.RNN, pl.LSTM: torch.nn.LSTM, pl.GRU: torch.nn.GRU}
    module = kinds[cell](2, n, bias=True, batch_first=True, dtype=torch.float64)
    head = torch.nn.Linear(n, 3, dtype=torch.float64)
    recurrent, dense = net.parameters.values()
    with torch.no_grad():
        module.weight_ih_l0.copy_(torch.tensor(recurrent["W"]))
        module.weight_hh_l0.copy_(torch.tensor(recurrent["U"]))
        module.bias_ih_l0.copy_(torch.tensor(recurrent["b"][:, 0]))
        module.bias_hh_l0.zero_()
        head.weight.copy_(torch.tensor(dense["W"]))
        head.bias.copy_(torch.tensor(dense["b"][:, 0]))
    trained = [module.weight_ih_l0, module.weight_hh_l0, module.bias_ih_l0, head.weight, head.bias]
    frozen = torch.ones(len(module.bias_hh_l0))
    frozen[: 2 * n] = 0
    if cell is pl.GRU:  # c alone
        trained.append(module.bias_hh_l0)
        module.bias_hh_l0.register_hook(lambda gradient: gradient * frozen)
    optimizer = torch.optim.SGD(trained, lr=rate)
    X, Y = torch.tensor(x), torch.tensor(y)
    state, begin, total = None, 0, 0.0
    for counted in range(0, T, k1):
        end = min(counted + k1, T)
        following = min(end, max(0, min(end + k1, T) - k2))
        states, outputs = state, []
        at_following = state if following == begin else None
        for t in range(begin, end):
            A, states = module(X[:, t : t + 1], states)
            outputs.append(head(A[:, 0]))
            if t + 1 == following:
                at_following = states
        said = torch.stack(outputs[counted - begin :], dim=1)
        if loss == "mse":
            cost = ((said - Y[:, counted:end]) ** 2).sum() / (3 * T * m)
        else:
            own = Y[:, counted:end].reshape(-1)
            cost = torch.nn.functional.cross_entropy(said.reshape(-1, 3), own, reduction="sum") / m
        total += cost.item()
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
        detached = at_following if at_following is None or cell is pl.LSTM else (at_following,)
        state = None if detached is None else tuple(each.detach() for each in detached)
        state = state if cell is pl.LSTM or state is None else state[0]
        begin = following
    options = {"optimizer": f"gradient_descent({rate})", **QUIET}
    history = net.fit(x, y, epochs=1, batch_size=None, truncate=(k1, k2), **options)
    recurrent, dense = net.parameters.values()
    for own, other in (
        (recurrent["W"], module.weight_ih_l0),
        (recurrent["U"], module.weight_hh_l0),
        (recurrent["b"][:, 0], module.bias_ih_l0),
        (dense["W"], head.weight),
        (dense["b"][:, 0], head.bias),
    ):
        np.testing.assert_allclose(own, other.detach().numpy(), rtol=1e-10, atol=1e-12)
    if cell is pl.GRU:
        np.testing.assert_allclose(recurrent["c"][:, 0], module.bias_hh_l0.detach().numpy()[-n:], rtol=1e-10)
    assert history["loss"][0] == pytest.approx(total, rel=1e-10)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("k", [1, 2, 3, (2, 3), (1, 7)])
def test_each_step_counts_once_as_much_as_in_the_whole_loss(loss, k, rng):
    """With a learning rate of 0 the windows' losses add up to the loss of the sequences, and metrics are theirs."""
    x, y = examples(loss, [5, 1, 8, 8], rng)
    net = make_net(loss=loss)
    w = np.array([1.0, 2.0, 0.5, 0.5])
    expected = net.evaluate(x, y, sample_weight=w)
    history = net.fit(
        x,
        y,
        sample_weight=w,
        epochs=1,
        batch_size=3,
        truncate=k,
        optimizer="gradient_descent(0.0)",
        shuffle=False,
        progress=False,
    )
    for name, value in expected.items():
        assert history[name][0] == pytest.approx(value, rel=1e-10), name


def test_updates_and_learning_rates(rng):
    """Every window is an update; the schedule goes by batches, however many windows each of them has."""
    x, y = examples("mse", [7, 7, 3, 3], rng)
    net = make_net(loss="mse")
    seen = []

    class Look(pl.Callback):
        def on_update(self, training):
            seen.append((training.t, training.batch, training.learning_rate))

    schedule = pl.GradientDescent(pl.schedules.get("cosine(0.4)"))
    net.fit(x, y, epochs=2, batch_size=2, truncate=3, optimizer=schedule, callbacks=[Look()], **QUIET)
    assert [(t, batch) for t, batch, _ in seen] == [(3, 1), (4, 2), (7, 1), (8, 2)]
    rates = [rate for *_, rate in seen]
    assert rates == sorted(rates, reverse=True)
    plain = make_net(loss="mse")
    plain_seen, seen[:] = list(seen), []
    plain.fit(x, y, epochs=2, batch_size=2, optimizer=schedule, callbacks=[Look()], **QUIET)
    assert [rate for *_, rate in seen] == [rate for *_, rate in plain_seen]


# --- state from batch to batch --------------------------------------------------------------------------------------


class Stream:
    """A long signal by parts: B streams side by side, of each k steps at a time, made as they are asked for."""

    def __init__(self, streams, parts, k):
        self.streams, self.parts, self.k, self.held = streams, parts, k, 0

    def __len__(self):
        return self.streams * self.parts

    def part(self, index):
        """Part i of a stream: examples i B … i B + B - 1 are the i-th parts of all of them."""
        t = np.arange(self.k) + self.k * (index // self.streams)
        phase = index % self.streams
        x = np.stack([np.sin(0.7 * t + phase), np.cos(1.3 * t)], axis=1)
        return x, (np.sin(0.7 * (t + 1) + phase) > 0).astype(int) + 0

    def take(self, indices):
        self.held = max(self.held, len(indices) * self.k)
        x, y = zip(*(self.part(int(i)) for i in indices), strict=True)
        return np.array(x), np.array(y)


@cells
def test_a_stream_that_is_never_held_whole(cell):
    """Stateful batches of parts from `Rows` are truncated back-propagation on the whole sequences."""
    stream = Stream(streams=3, parts=6, k=4)
    net, other = make_net(cell, stateful=True), make_net(cell)
    options = {"optimizer": "adam(0.01)", "epochs": 2, **QUIET}
    history = net.fit(stream, batch_size=3, **options)
    x, y = stream.take(np.arange(18))
    whole_x, whole_y = ([np.concatenate(a[b::3]) for b in range(3)] for a in (x, y))
    truncated = other.fit(np.array(whole_x), np.array(whole_y), batch_size=3, truncate=4, **options)
    assert_close(net.parameters, other.parameters, rtol=1e-12)
    np.testing.assert_allclose(np.array(history["loss"]) * 6, truncated["loss"], rtol=1e-12)


def test_a_stream_is_fetched_a_batch_at_a_time():
    stream = Stream(streams=2, parts=400, k=5)
    net = make_net(pl.GRU, stateful=True)
    net.fit(stream, batch_size=2, epochs=1, **QUIET)
    assert stream.held <= 1024 * 5, "no more than what is looked at of any data"


@cells
def test_stateful_batches_are_one_long_sequence(cell, rng):
    net = make_net(cell, loss=None, stateful=True)
    plain = make_net(cell, loss=None)
    plain.parameters = net.parameters
    x = rng.normal(size=(3, 12, 2))
    whole = plain.predict(x)
    for cuts in ([4, 8], [1, 2, 11], []):
        net.reset_state()
        parts = [net.predict(part) for part in np.split(x, cuts, axis=1)]
        np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, rtol=1e-12)
    assert not np.allclose(net.predict(x), whole), "it goes on where it was, until it is reset"
    net.reset_state()
    np.testing.assert_allclose(net.predict(x), whole, rtol=1e-12)


@cells
def test_masked_ends_carry_the_last_step_that_counted(cell, rng):
    net = make_net(cell, loss=None, stateful=True)
    x = [rng.normal(size=(T, 2)) for T in (2, 5)]
    net.predict(Sequences(x))
    kept = dict(flatten(net.state))
    for i, each in enumerate(x):
        net.reset_state()
        net.predict(each[None])
        for path, state in flatten(net.state).items():
            np.testing.assert_allclose(state[:, 0], kept[path][:, i], rtol=1e-12, err_msg=path)


def test_measuring_starts_anew_and_leaves_the_state_alone(rng):
    x, y = examples("mse", [6, 6], rng)
    net = make_net(loss="mse", stateful=True)
    fresh = net.evaluate(x, y, metrics=())
    net.predict(x)
    before = tree_map(np.array, net.state)
    assert net.evaluate(x, y, metrics=()) == fresh
    assert_same(net.state, before)
    history = net.fit(x, y, validation=(x, y), epochs=2, batch_size=2, optimizer="gradient_descent(0.0)", **QUIET)
    assert history["validation_loss"] == [fresh["loss"]] * 2
    np.testing.assert_allclose(history["loss"], fresh["loss"], rtol=1e-12)  # every epoch starts from zeros


def test_validation_goes_on_from_batch_to_batch_as_training_does(rng):
    (x, y), (held, targets) = (examples("mse", [6] * m, rng) for m in (4, 6))
    options = {"epochs": 1, "batch_size": 2, "optimizer": "gradient_descent(0.0)", **QUIET}
    net = make_net(loss="mse", stateful=True)
    history = net.fit(x, y, validation=(held, targets), **options)
    assert history["validation_loss"] == [net.evaluate(held, targets, metrics=(), batch_size=2)["loss"]]
    anew = net.evaluate(held, targets, metrics=())["loss"]
    assert abs(history["validation_loss"][0] - anew) > 1e-6  # all six at once start from zeros
    with pytest.raises(ParameterError, match=r"batches of one size(.|\n)*divides 5"):
        net.fit(x, y, validation=(held[:5], targets[:5]), **options)
    with pytest.raises(ParameterError, match=r"validation: stateful(.|\n)*\(x, y\)(.|\n)*0.5"):
        net.fit(x, y, validation=0.5, **options)


def test_layer_statistics_are_those_of_every_window(rng):
    """With a learning rate of 0 every window has the gradient that it has by itself."""
    x, y = examples("squared_error", [6] * 4, rng)
    options = {"optimizer": "gradient_descent(0.0)", "batch_size": 4, "layer_statistics": True, "epochs": 1, **QUIET}
    whole = make_net(loss="squared_error").fit(x, y, truncate=3, **options).records[0]["layers"]
    net, parts = make_net(loss="squared_error", stateful=True), []
    for begin in (0, 3):
        carry = {} if not begin else net.carried(net.forward(np.moveaxis(x[:, :3], 0, -1))[1])
        net.state = {**net.state, **carry}
        X, Y = (np.moveaxis(each[:, begin : begin + 3], 0, -1) for each in (x, y))
        parts.append(net.gradients(X, Y)[1])
    for name, own in whole.items():
        norms = [np.sqrt(sum((dW**2).sum() for _, dW in leaves(grads[name]))) for grads in parts]
        assert own["gradient_norm"] == pytest.approx(np.mean(norms), rel=1e-9), name


def test_a_cost_that_is_no_number_is_found_in_its_batch(rng):
    x, y = examples("mse", [6] * 8, rng)
    y[5, 4] = 1e200  # its square is inf
    with pytest.raises(TrainingError, match=r"became (inf|nan) at batch 3 \(epoch 1\)(.|\n)*one batch earlier"):
        make_net(loss="mse").fit(x, y, truncate=2, batch_size=2, optimizer="gradient_descent(1e-9)", **QUIET)


def test_a_layer_that_runs_backwards_carries_nothing(rng):
    net = pl.Sequential(pl.LSTM(3, reverse=True), input_shape=(None, 2))
    with pytest.raises(ParameterError, match=r"lstm_1(.|\n)*backwards"):
        net.carried(net.forward(rng.normal(size=(4, 2, 3)))[1], 2)


def test_stateful_and_truncated(rng):
    """Truncated windows inside stateful batches: still one long sequence."""
    x, y = examples("mse", [12, 12], rng)
    options = {"optimizer": "gradient_descent(0.1)", "epochs": 1, "batch_size": 2, **QUIET}
    net, other = make_net(loss="squared_error", stateful=True), make_net(loss="squared_error")
    halves = [np.concatenate([a[:, :6], a[:, 6:]]) for a in (x, y)]
    net.fit(*halves, truncate=3, **options)
    other.fit(x, y, truncate=3, **options)
    assert_close(net.parameters, other.parameters, rtol=1e-12)


def test_a_saved_stateful_network_goes_on_where_it_was(tmp_path, rng):
    net = make_net(loss=None, stateful=True)
    x = rng.normal(size=(3, 4, 2))
    net.predict(x)
    net.save(tmp_path / "net.pellucid")
    loaded = pl.load(tmp_path / "net.pellucid")
    assert_same(loaded.state, net.state)
    np.testing.assert_array_equal(loaded.predict(x), net.predict(x))


# --- resumed to the bit ---------------------------------------------------------------------------------------------


class Stop(pl.Callback):
    def __init__(self, after):
        self.after = after

    def on_update(self, training):
        if training.epoch * training.batches_per_epoch + training.batch == self.after:
            training.save()
            raise KeyboardInterrupt


@pytest.mark.parametrize("after", [1, 3, 4, 5])
@pytest.mark.parametrize(
    "options",
    [
        {"truncate": 3},
        {"truncate": (2, 5)},
        {"stateful": True, "shuffle": False},
        {"stateful": True, "shuffle": False, "truncate": (2, 3)},
    ],
    ids=str,
)
def test_resumed_as_if_never_interrupted(options, after, tmp_path, rng):
    options = dict(options)
    stateful = options.pop("stateful", False)
    lengths = [6] * 6 if stateful else [6, 2, 7, 7, 1, 5]
    x, y = examples("softmax_cross_entropy", lengths, rng)
    options = {
        "epochs": 3,
        "batch_size": 2,
        "optimizer": pl.Adam("cosine(0.05)"),
        "progress": False,
        "validation": (x, y),
        **options,
    }
    make = {"stateful": stateful, "dropout": 0.3}
    net = make_net(**make)
    for name in ("whole", "cut"):
        Run.create(tmp_path / name, config={}, environment={}).close()
    history = net.fit(x, y, run=tmp_path / "whole", **options)
    first = make_net(**make)
    with pytest.raises(KeyboardInterrupt):
        first.fit(x, y, run=tmp_path / "cut", callbacks=[Stop(after)], **options)
    again = make_net(**make)
    resumed = again.fit(x, y, run=tmp_path / "cut", resume=True, **options)
    assert_same(again.parameters, net.parameters)
    assert_same(again.state, net.state)
    for name in ("loss", "accuracy", "learning_rate"):
        assert resumed[name] == history[name]
    arrays, expected = (
        files.read_arrays(tmp_path / run / "checkpoints" / "latest.pellucid")[0] for run in ("cut", "whole")
    )
    assert_same(arrays, expected)
    with pytest.raises(ParameterError, match="another truncate"):
        make_net(**make).fit(x, y, run=tmp_path / "cut", resume=True, **{**options, "truncate": 1})


# --- what cannot be -------------------------------------------------------------------------------------------------


def net_of(*layers, input_shape=(6, 2), loss="mse"):
    return pl.Sequential(*layers, input_shape=input_shape, loss=loss)


@pytest.mark.parametrize(
    ("layers", "truncate", "said"),
    [
        ([pl.LSTM(3)], 2, r"needs an output at every step(.|\n)*return_sequences=True"),
        ([pl.LSTM(3, return_sequences=True)], 0, "truncate must be a whole number"),
        ([pl.LSTM(3, return_sequences=True)], 2.5, "truncate must be a whole number"),
        ([pl.LSTM(3, return_sequences=True)], (4, 2), r"k2, the steps that an update goes back(.|\n)*k1 ≤ k2"),
        ([pl.LSTM(3, return_sequences=True)], (1, 2, 3), "truncate must be a whole number"),
        ([pl.LSTM(3, return_sequences=True, reverse=True)], 2, r"lstm_1 needs the whole sequence"),
        ([pl.Bidirectional(pl.LSTM(3, return_sequences=True))], 2, r"bidirectional_1 needs the whole sequence"),
        ([pl.LSTM(3, return_sequences=True), pl.MeanOverTime(), pl.Repeat(6)], 2, "mean_over_time_1 needs the whole"),
        ([pl.Flatten(), pl.Dense(12), pl.Reshape((6, 2))], 2, "flatten_1 needs the whole sequence"),
    ],
)
def test_what_cannot_be_truncated(layers, truncate, said, rng):
    net = net_of(*layers)
    x = rng.normal(size=(4, 6, 2))
    y = rng.normal(size=(4, *net.outputs["output"]))
    with pytest.raises(ParameterError, match=said):
        net.fit(x, y, truncate=truncate, progress=False)


def test_a_layer_with_memory_at_two_places(rng):
    twice = pl.GRU(2, return_sequences=True)
    with pytest.raises(ParameterError, match="memory at two places"):
        net_of(twice, twice).fit(rng.normal(size=(4, 6, 2)), rng.normal(size=(4, 6, 2)), truncate=2, progress=False)
    twice = pl.GRU(2, return_sequences=True, stateful=True)
    with pytest.raises(ParameterError, match="a stateful layer at two places"):
        net_of(twice, twice)


def test_a_given_start_cannot_be_truncated(rng):
    x, h = pl.Input((None, 2)), pl.Input((3,))
    net = pl.Graph(inputs={"x": x, "h": h}, outputs=pl.GRU(3, return_sequences=True)(x, h), loss="mse")
    inputs = {"x": rng.normal(size=(4, 6, 2)), "h": rng.normal(size=(4, 3))}
    with pytest.raises(ParameterError, match="gru_1 is given the state that it starts from"):
        net.fit(inputs, rng.normal(size=(4, 6, 3)), truncate=2, progress=False)
    net.fit(inputs, rng.normal(size=(4, 6, 3)), epochs=1, progress=False)


def test_inputs_of_different_lengths(rng):
    a, b = pl.Input((None, 2)), pl.Input((None, 2))
    net = pl.Graph(
        inputs={"a": a, "b": b},
        outputs={"p": pl.GRU(3, return_sequences=True)(a), "q": pl.GRU(3, return_sequences=True)(b)},
        loss={"p": "mse", "q": "mse"},
    )
    x = {"a": rng.normal(size=(4, 6, 2)), "b": rng.normal(size=(4, 5, 2))}
    y = {"p": rng.normal(size=(4, 6, 3)), "q": rng.normal(size=(4, 5, 3))}
    net.fit(x, y, epochs=1, progress=False)
    with pytest.raises(ShapeError, match=r"step by step(.|\n)*a: 6, b: 5"):
        net.fit(x, y, epochs=1, truncate=2, progress=False)


def test_stateful_layers_need_their_sequences_in_place(rng):
    x, y = examples("mse", [6] * 5, rng)
    net = make_net(loss="mse", stateful=True)
    with pytest.raises(ParameterError, match=r"shuffling mixes the sequences(.|\n)*shuffle=False(.|\n)*lstm_1, lstm_2"):
        net.fit(x, y, progress=False)
    with pytest.raises(ParameterError, match=r"batches of one size(.|\n)*divides 5(.|\n)*batch_size=2"):
        net.fit(x, y, batch_size=2, **QUIET)
    net.predict(x[:3])
    with pytest.raises(ShapeError, match=r"of another batch(.|\n)*\(4, 2\)(.|\n)*\(4, 3\)(.|\n)*reset_state"):
        net.predict(x[:2])
    with pytest.raises(ShapeError, match="of another batch"):
        net.evaluate(x, y, batch_size=3)
