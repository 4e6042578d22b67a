"""The verbs that use what ``train`` made, and those that list what there is."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from pellucid.network import load


def rows_of(text: str) -> list[list[str]]:
    return list(csv.reader(text.splitlines()))


# --- predict --------------------------------------------------------------------------------------------------------


def test_new_data_are_read_by_column_name_and_classes_come_back(pellucid, trained):
    table = rows_of(Path("flowers.csv").read_text())
    shuffled = [[row[i] for i in (2, 0, 3, 1)] for row in table]  # another order, and no target
    Path("new.csv").write_text("\n".join(",".join(row) for row in shuffled) + "\n")
    said = pellucid("predict", "first", "new.csv", "--probabilities")
    head, *rows = rows_of(said.out)
    assert head == ["kind", "p(iris)", "p(rose)"]
    assert len(rows) == 60
    probabilities = np.array([[float(each) for each in row[1:]] for row in rows])
    assert probabilities.sum(1) == pytest.approx(np.ones(60), abs=1e-5)
    assert [row[0] for row in rows] == [["iris", "rose"][i] for i in probabilities.argmax(1)]
    net = load(trained / "model.pellucid")
    from pellucid.data import Preprocessor
    from pellucid.data import load as load_data

    preprocessor = Preprocessor.from_document(net.preprocessing)
    expected = net.predict(preprocessor.x(load_data("flowers.csv").take(slice(None))[0]))
    assert probabilities == pytest.approx(expected, abs=1e-5)


def test_predictions_go_to_a_file_or_into_one_object(pellucid, trained):
    said = pellucid("predict", "latest", "flowers.csv", "--out", "p.csv")
    assert said.out == "60 predictions written to p.csv\n"
    written = rows_of(Path("p.csv").read_text())
    answer = pellucid("predict", trained / "model.pellucid", "flowers.csv", "--json").json
    assert answer["predictions"] == [row[0] for row in written[1:]]
    assert written[0] == ["kind"]
    shares = pellucid("predict", "fir", "flowers.csv", "--json", "--probabilities").json["probabilities"]
    assert shares.keys() == {"iris", "rose"}


def test_predict_and_evaluate_take_an_engine(pellucid, trained):
    answer = pellucid("evaluate", "first", "flowers.csv", "--engine", "numpy", "--json").json
    assert answer["engine"] == "numpy"
    usual = pellucid("predict", "first", "flowers.csv").out
    assert pellucid("predict", "first", "flowers.csv", "--engine", "numpy").out == usual
    said = pellucid("predict", "first", "flowers.csv", "--engine", "jxa")
    assert said.code == 1
    assert "unknown engine 'jxa'" in said.err


def test_one_output_predicts_two_classes(pellucid, flowers):
    flowers()
    flags = ("--loss", "sigmoid_cross_entropy", "--epochs", 30, "--no-plot", "--quiet", "--out", "r", "--json")
    accuracy = pellucid("train", "flowers.csv", *flags).json["test"]["accuracy"]
    assert accuracy == 1.0
    answer = pellucid("predict", "r", "flowers.csv", "--json", "--probabilities").json
    assert answer["predictions"] == ["iris", "rose"] * 30
    assert np.array(answer["probabilities"]["rose"])[1::2].min() > 0.5


def test_values_come_back_in_their_own_unit(pellucid, flowers):
    flowers(m=200)
    flags = ("--target", "weight", "--epochs", 30, "--dropout", 0, "--no-plot", "--quiet", "--out", "r")
    assert pellucid("train", "flowers.csv", *flags).code == 0
    head, *rows = rows_of(pellucid("predict", "r", "flowers.csv").out)
    assert head == ["weight"]
    weight = np.array([float(row[3]) for row in rows_of(Path("flowers.csv").read_text())[1:]])
    assert np.corrcoef(weight, [float(row[0]) for row in rows])[0, 1] > 0.95
    said = pellucid("predict", "r", "flowers.csv", "--probabilities")
    assert said.code == 1
    assert "a regression has no probabilities" in said.err


def test_digits_are_predicted_from_the_catalog(pellucid):
    pellucid("train", "digits", "--epochs", 2, "--hidden", 16, "--no-plot", "--quiet", "--out", "r")
    assert len(pellucid("predict", "r", "digits", "--json").json["predictions"]) == 1797


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("width", "breadth"), "'width'"),
        (lambda text: text.replace("red", "purple"), "a category that was not there in training"),
    ],
)
def test_new_data_that_do_not_fit_are_refused(pellucid, trained, change, message):
    Path("new.csv").write_text(change(Path("flowers.csv").read_text()))
    said = pellucid("predict", "first", "new.csv")
    assert (said.code, said.out) == (1, "")
    assert message in said.err


@pytest.mark.parametrize("verb", ["predict", "evaluate", "show", "step", "check"])
def test_a_damaged_network_is_refused_by_every_verb(pellucid, trained, verb):
    path = trained / "model.pellucid"
    path.write_bytes(path.read_bytes()[:-7])
    said = pellucid(verb, "first", *(["flowers.csv"] if verb == "predict" else []))
    assert (said.code, said.out) == (1, "")
    assert f"{path}: the file is damaged" in said.err


@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_a_run_that_is_not_there_is_named(pellucid, trained, verb):
    said = pellucid(verb, "second", "flowers.csv")
    assert said.code == 1
    assert "no run 'second'" in said.err
    assert "first" in said.err


def test_an_unfinished_run_predicts_from_its_checkpoint_and_one_without_says_so(pellucid, trained):
    whole = pellucid("predict", "first", "flowers.csv").out
    (trained / "model.pellucid").unlink()
    assert len(pellucid("predict", "first", "flowers.csv").out) == len(whole)
    (trained / "checkpoints/latest.pellucid").unlink()
    said = pellucid("predict", "first", "flowers.csv")
    assert said.code == 1
    assert "this run has saved no network yet" in said.err
    assert "pellucid train --resume runs/first" in said.err


# --- evaluate -------------------------------------------------------------------------------------------------------


def test_the_test_set_is_shown_once_unless_asked_again(pellucid, trained):
    said = pellucid("evaluate", "first")
    assert (said.code, said.out) == (1, "")
    assert "the test set was already opened once" in said.err
    assert "--again" in said.err
    first = json.loads((trained / "vault.json").read_text())["openings"][0]["metrics"]
    again = pellucid("evaluate", "first", "--again", "--json").json
    assert again["test"] == pytest.approx(first)
    openings = json.loads((trained / "vault.json").read_text())["openings"]
    assert [each["repeat"] for each in openings] == [False, True]
    assert openings[1]["metrics"] == again["test"]


def test_any_labelled_data_can_be_measured(pellucid, trained):
    answer = pellucid("evaluate", "first", "flowers.csv", "--metrics", "accuracy,f1", "--json").json
    assert answer["examples"] == 60
    predicted = pellucid("predict", "first", "flowers.csv", "--json").json["predictions"]
    assert answer["metrics"]["accuracy"] == pytest.approx(
        np.mean(np.array(predicted) == np.array(["iris", "rose"] * 30))
    )
    assert set(answer["metrics"]) == {"loss", "accuracy", "f1"}
    assert np.sum(answer["confusion"]) == 60
    assert len(json.loads((trained / "vault.json").read_text())["openings"]) == 1
    text = pellucid("evaluate", "first", "flowers.csv").out
    assert "true \\ predicted" in text
    assert "flowers.csv" in text


def test_what_cannot_be_measured_is_said(pellucid, trained, flowers):
    unlabelled = [line.rpartition(",")[0] for line in Path("flowers.csv").read_text().splitlines()]
    Path("new.csv").write_text("\n".join(unlabelled) + "\n")
    assert "there are no labels to measure against" in pellucid("evaluate", "first", "new.csv").err
    assert "a saved network has no test set" in pellucid("evaluate", trained / "model.pellucid").err
    flowers(change=lambda rows: [rows[0], *reversed(rows[1:])])
    assert "the data have changed since the run was made" in pellucid("evaluate", "first", "--again").err


# --- show -----------------------------------------------------------------------------------------------------------


def test_a_run_is_shown_with_everything_in_its_place(pellucid, trained):
    text = pellucid("show", "first").out
    for part in (
        "Layers",
        "Parameters",
        "dense_1/W",
        "Hyperparameters",
        "batch_size = 8",
        "[network.loss]",
        "bias_initializer zeros",
        "Learning",
        "Test set",
        "Files",
    ):
        assert part in text
    answer = pellucid("show", "first", "--json").json
    net = load(trained / "model.pellucid")
    W = net.parameters["dense_1"]["W"]
    shown = answer["parameters_by_name"]["dense_1/W"]
    assert shown["mean"] == pytest.approx(float(W.mean()), abs=1e-6)
    assert shown["numbers"] == W.size
    assert answer["parameters"] == sum(leaf.size for tree in net.parameters.values() for leaf in tree.values())
    assert answer["config"]["training"]["epochs"] == 2
    assert len(answer["history"]) == 2
    assert answer["test_openings"] == 1
    assert "Layers" in pellucid("show", trained / "model.pellucid").out


def test_a_network_of_the_zoo_and_a_file_are_shown(pellucid):
    answer = pellucid("show", "mlp", "--json").json
    assert answer["recipe"]["optimizer"] == "adam(cosine(2e-3))"
    assert answer["parameters"] == 64 * 256 + 2 * 256 + 256 * 128 + 2 * 128 + 128 * 10 + 10
    assert "Ioffe" in pellucid("show", "mlp").out
    Path("net.toml").write_text('input_shape = [3]\nlayers = [{type = "dense", units = 2}]\n')
    assert pellucid("show", "net.toml", "--json").json["parameters"] == 8
    Path("open.toml").write_text('layers = [{type = "dense", units = 2}]\n')
    assert "leaves the input's shape open" in pellucid("show", "open.toml").err
    said = pellucid("show", "mpl")
    assert said.code == 1
    assert "did you mean 'mlp'" in said.err


def test_the_engines_are_shown_with_what_keeps_them_from_running(pellucid, monkeypatch):
    reasons = {"native": "no compiler was found", "numpy": None}
    monkeypatch.setattr("pellucid.engines.known", lambda: reasons)
    text = pellucid("show", "--engines").out
    assert "no compiler was found" in text
    answer = pellucid("show", "--engines", "--json").json
    assert answer["engines"]["native"] == {"available": False, "reason": "no compiler was found", "about": ""}
    assert answer["auto"] == "numpy"


# --- step and check -------------------------------------------------------------------------------------------------


def test_a_step_shows_the_numbers_of_the_iteration(pellucid, trained):
    answer = pellucid("step", "first", "--batch", 6, "--optimizer", "gradient_descent(0.5)", "--json").json
    net = load(trained / "model.pellucid")
    from pellucid.runs import Run
    from pellucid.tasks.examples import Examples

    x, y = Examples(Run.open("first").config).rows("train").take(np.arange(6))
    J, grads = net.gradients(x.T, y)
    assert answer["cost"] == pytest.approx(J)
    assert answer["target"] == y.tolist()
    assert np.array(answer["gradients"]["dense_1/W"]) == pytest.approx(grads["dense_1"]["W"])
    change = answer["update"]["dense_1/W"]
    expected = net.parameters["dense_1"]["W"] - 0.5 * grads["dense_1"]["W"]
    assert np.array(change["after"]) == pytest.approx(expected, abs=1e-6)
    text = pellucid("step", "first", "--batch", 6).out
    for part in ("forward, left to right", "loss", "backward, right to left", "update", "Adam"):
        assert part in text


def test_one_example_of_a_file_through_a_network_that_was_never_trained(pellucid, flowers):
    flowers()
    Path("net.toml").write_text('layers = [{type = "dense", units = 3, activation = "tanh"}, "dense"]\n')
    text = pellucid("step", "net.toml", "flowers.csv", "--example", 3).out
    assert "Z[1] = W[1] A[0] + b[1]" in text
    assert "1 example" in text
    said = pellucid("step", "net.toml", "flowers.csv", "--example", 60)
    assert said.code == 1
    assert "0 … 59" in said.err


def test_gradients_are_checked(pellucid, trained):
    for arguments in (["mlp", "--entries", 2], ["first"], ["first", "flowers.csv"], [trained / "model.pellucid"]):
        said = pellucid("check", *arguments, "--batch", 4)
        assert (said.code, said.err) == (0, "" if len(arguments) < 2 or arguments[0] == "mlp" else said.err)
        assert "all gradients agree" in said.out
    assert pellucid("check", "first", "--json").json["passed"] is True


def test_a_wrong_gradient_ends_with_1(pellucid, monkeypatch):
    from pellucid.layers import Dense

    real = Dense.backward

    def wrong(self, ops, params, cache, dA, *, input_gradient):
        dA_prev, grads = real(self, ops, params, cache, dA, input_gradient=input_gradient)
        return dA_prev, {name: 2 * grad if name == "W" else grad for name, grad in grads.items()}

    monkeypatch.setattr(Dense, "backward", wrong)
    said = pellucid("check", "mlp", "--entries", 2, "--json")
    assert said.code == 1
    assert said.json["passed"] is False
    assert said.json["worst"]["verdict"] == "WRONG"
    assert any("dW is 2 times" in each for each in said.json["blame"])


# --- data, runs, zoo ------------------------------------------------------------------------------------------------


def test_the_catalog_is_listed_with_what_is_here(pellucid):
    listed = {each["name"]: each for each in pellucid("data", "list", "--json").json["data"]}
    assert listed["digits"] == {
        "name": "digits",
        "title": listed["digits"]["title"],
        "task": "classification",
        "examples": 1797,
        "here": True,
    }
    assert listed["mnist"]["here"] is False
    assert "pellucid data fetch mnist" in pellucid("data", "list").out


def test_a_card_says_whose_data_they_are(pellucid):
    assert "CC BY 4.0" in pellucid("data", "card", "digits").out
    card = pellucid("data", "card", "digits", "--json").json
    assert (card["licence"], card["here"]) == ("CC BY 4.0", True)
    said = pellucid("data", "card", "digit")
    assert said.code == 1
    assert "did you mean 'digits'" in said.err


def test_fetching_what_is_here_fetches_nothing(pellucid):
    said = pellucid("data", "fetch", "digits")
    assert said.code == 0
    assert "licence: CC BY 4.0" in said.err
    assert "pellucid train digits" in said.out


def test_runs_are_listed_and_compared(pellucid, trained, capsys):
    flags = ("--epochs", 3, "--hidden", 8, "--seed", 1, "--out", "runs/second", "--no-plot", "--quiet")
    pellucid("train", "flowers.csv", *flags)
    listed = pellucid("runs", "list", "--json").json["runs"]
    assert [(each["run"], each["status"], each["epochs"]) for each in listed] == [
        ("first", "finished", 2),
        ("second", "finished", 3),
    ]
    text = pellucid("runs", "compare", "first", "second", "--png", "both.png").out
    assert "training.epochs" in text
    assert "training.optimizer" not in text  # only what differs
    assert Path("both.png").read_bytes()[:4] == b"\x89PNG"
    rows = pellucid("runs", "compare", "first", "second", "--json").json["runs"]
    assert [row["config"]["training.epochs"] for row in rows] == [2, 3]
    assert pellucid("runs", "list", "nowhere").out.startswith("no runs in nowhere")


def test_the_zoo_is_listed(pellucid):
    assert "mlp" in pellucid("zoo", "list").out
    (mlp,) = (each for each in pellucid("zoo", "list", "--json").json["nets"] if each["name"] == "mlp")
    assert mlp["recipe"]["batch_size"] == 64
