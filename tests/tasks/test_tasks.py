"""Which task data are for, what every task promises, and networks with memory fitted to examples."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from pellucid import tasks, zoo
from pellucid.data.dataset import Dataset
from pellucid.errors import ParameterError, ShapeError
from pellucid.layers import Bidirectional, Reshape
from pellucid.network import from_config
from pellucid.sequences import Sequences
from pellucid.tasks.building import OF_NETWORK, complete_network, layers_of
from pellucid.tasks.examples import Examples

FOUND = {
    "digits": "examples",
    "japanese-vowels": "examples",
    "fortunes": "examples",
    "co2": "forecast",
    "sunspots": "forecast",
    "moving-digits": "labelling",
    "table.csv": "examples",
}


@pytest.mark.parametrize("source", FOUND)
def test_data_say_what_they_are_for(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tasks.find(source).kind == FOUND[source]
    (tmp_path / source).write_text("a,b\n1,2\n")
    assert tasks.find(source).kind == "examples"  # a file of this name is no set of the catalog


def test_what_the_user_says_counts_more(tmp_path):
    assert tasks.find("co2", "regression").kind == "examples"
    assert tasks.find("fortunes", "text").kind == "text"
    assert tasks.find("fortunes", None, "char-rnn").kind == "text"  # a network that is made for one task
    assert tasks.find("fortunes", "classification", "char-rnn").kind == "examples"
    (tmp_path / "book.txt").write_text("once")
    assert tasks.find(str(tmp_path / "book.txt")).kind == "text"
    with pytest.raises(ParameterError, match=r"unknown task 'forcast'(?s:.*)did you mean 'forecast'"):
        tasks.find("co2", "forcast")


@pytest.mark.parametrize("kind", tasks.known())
def test_every_task_says_what_it_is(kind):
    task = tasks.known()[kind]
    assert task.kind == kind
    assert task.net in zoo.entries()
    assert task.title
    assert not inspect.isabstract(task)


def test_an_entry_for_one_task_names_one_that_there_is():
    for entry in zoo.entries().values():
        assert entry.task is None or entry.task in tasks.known()


def test_units_and_layers_say_what_hidden_says():
    assert layers_of("lstm", {"units": 32}) == {"hidden": [32]}
    assert layers_of("lstm", {"layers": 3}) == {"hidden": [128] * 3}
    assert layers_of("mlp", {"units": 9}) == {"hidden": [9, 9]}
    assert layers_of("frames", {"layers": 0}) == {"hidden": []}
    assert layers_of("lstm", {"hidden": [3]}) == {}
    with pytest.raises(ParameterError, match="--hidden says it all"):
        layers_of("lstm", {"hidden": [3], "units": 4})
    with pytest.raises(ParameterError, match="lenet5 has no units to choose"):
        layers_of("lenet5", {"units": 4})


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
def test_an_image_is_read_row_by_row(name):
    net = zoo.find(name).build((3, 4, 5), 2, hidden=(6,), dropout=0.0, loss="softmax_cross_entropy")
    assert isinstance(net.layers[0], Reshape)
    _, caches = net.forward(np.random.default_rng(0).normal(size=(3, 4, 5, 7)))
    X = caches[1].X
    assert X.shape == (12, 5, 7)
    image = np.zeros((3, 4, 5, 1))
    image[1, 2] = np.arange(5)[:, None]
    assert net.forward(image)[1][1].X[6, :, 0].tolist() == [0, 1, 2, 3, 4]


def test_the_hyperparameters_of_recurrent_networks_act():
    build = zoo.find("rnn").build
    net = build((None, 3), 2, hidden=(5, 4), bidirectional=True, activation="relu", initializer="zeros", dropout=0.4)
    both = [layer for layer in net.layers if isinstance(layer, Bidirectional)]
    assert [layer.layer.units for layer in both] == [5, 4]
    assert [layer.layer.return_sequences for layer in both] == [True, False]
    assert both[0].layer.activation == "relu"
    assert [layer.rate for layer in net.layers if hasattr(layer, "rate")] == [0.4, 0.4]
    assert not any(W.any() for name, W in net.parameters["bidirectional_1"].items() if name.startswith("W"))
    ids = zoo.find("gru").build((None,), 2, symbols=9, embedding=7)
    assert ids.parameters["embedding_1"]["W"].shape == (7, 9)
    with pytest.raises(ParameterError, match="activations of their own"):
        zoo.find("lstm").build((None, 3), 2, activation="relu")
    with pytest.raises(ShapeError, match=r"reads sequences(?s:.*)--net mlp"):
        zoo.find("lstm").build((13,), 2)


def test_a_sequence_of_any_length_survives_the_config():
    net = zoo.find("gru").build((None, 3), 2, loss="softmax_cross_entropy")
    again = from_config(complete_network(net))
    assert again.inputs == net.inputs == {"input": (None, 3)}


def test_flags_of_networks_are_known_to_the_networks():
    takes = {name for entry in zoo.entries().values() for name in inspect.signature(entry.build).parameters}
    assert set(OF_NETWORK) <= takes


@pytest.fixture
def examples(monkeypatch):
    """An `Examples` on a data set in memory."""

    def make(dataset: Dataset, task: dict | None = None) -> Examples:
        monkeypatch.setattr("pellucid.data.load", lambda source, **options: dataset)
        described = {"source": "x", "standardize": True, "categories_as": "one-hot"}
        split = {"validation": 0.2, "test": 0.2, "seed": 0}
        return Examples({"data": described, "split": split, "task": {"kind": "examples", **(task or {})}})

    return make


def test_sequences_of_different_lengths_are_told_apart(examples):
    rng = np.random.default_rng(0)
    y = np.arange(120) % 2
    x = Sequences([np.cumsum(rng.normal(0.6 * (2 * k - 1), 0.8, (rng.integers(8, 20), 2)), axis=0) for k in y])
    made = examples(Dataset(x, y, task="classification"))
    net, training = made.settled("gru", {"hidden": [8], "epochs": 15, "optimizer": "adam(2e-2)"})
    made.fit(net, training, progress=False)
    found = made.measure(net, made.rows("test"), ["accuracy"])
    assert found.values["accuracy"] > 0.9
    assert found.document["confusion"].sum() == 24
    assert "sequences of steps of 2 numbers, 2 classes" in made.described()


def test_texts_are_told_apart_by_words_or_characters(examples):
    texts = [
        f"{a} {b} {'yes' if i % 2 else 'no'} {c}"
        for i, (a, b, c) in enumerate(np.random.default_rng(0).choice(["tea", "cup", "sun"], (90, 3)))
    ]
    made = examples(Dataset(texts, np.arange(90) % 2, task="classification"))
    net, training = made.settled("lstm", {"hidden": [8], "epochs": 12, "optimizer": "adam(2e-2)"})
    made.fit(net, training, progress=False)
    assert made.measure(net, made.rows("test"), ["accuracy"]).values["accuracy"] == 1
    characters = examples(Dataset(texts, np.arange(90) % 2, task="classification"), {"symbols": "character"})
    assert characters.preprocessor.vocabulary.unit == "character"
    assert "texts, 2 classes" in made.described()


def test_networks_and_data_that_do_not_fit_say_so(examples):
    x = Sequences([np.zeros((3 + i % 2, 2)) + i for i in range(40)])
    sequences = examples(Dataset(x, np.arange(40) % 2, task="classification"))
    for net in ("cnn", "mlp"):
        with pytest.raises(ParameterError, match=rf"--net: {net} reads no sequences of different lengths(?s:.*)lstm"):
            sequences.settled(net, {})
    table = examples(Dataset(np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2, task="classification"))
    with pytest.raises(ShapeError, match=r"reads sequences(?s:.*)--net mlp"):
        table.settled("lstm", {})
    for net in ("lstm", "frames"):  # each answers once for a sequence
        assert sequences.settled(net, {})[0].predict(x.take([0, 1])).shape == (2, 2)
    net, training = sequences.settled("lstm", {"truncate": (2, 2)})
    with pytest.raises(ParameterError, match=r"truncate: dense_1 needs the whole sequence"):
        sequences.fit(net, training, progress=False)
    texts = examples(Dataset(["a b", "b a"] * 20, np.arange(40) % 2, task="classification"))
    with pytest.raises(ParameterError, match=r"cnn cannot read these data(?s:.*)lstm"):
        texts.settled("cnn", {})
    with pytest.raises(ParameterError, match="these are no texts"):
        examples(Dataset(np.zeros((40, 3)), np.arange(40) % 2, task="classification"), {"symbols": "character"})
