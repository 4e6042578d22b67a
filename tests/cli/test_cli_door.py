"""The door: help, usage, what is imported, how errors come out."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys

import numpy as np
import pytest

from pellucid.cli import VERBS, common
from pellucid.errors import ParameterError

HEAVY = ("numpy", "matplotlib", "sklearn", "rich", "scipy", "pandas")


def command(*arguments: str, **options) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", **options.pop("env", {})}
    return subprocess.run(
        [sys.executable, "-m", "pellucid", *arguments], capture_output=True, env=environment, timeout=60, **options
    )


def test_help_names_every_verb_and_imports_nothing_heavy():
    code = (
        "import sys\nfrom pellucid.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        f"print('heavy:', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("heavy: []\n")
    assert all(verb in done.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(pellucid, capsys, verb):
    with pytest.raises(SystemExit) as end:
        pellucid(verb, "--help")
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: pellucid {verb} ")


def test_without_a_verb_it_explains_itself(pellucid, capsys):
    with pytest.raises(SystemExit) as end:
        pellucid()
    assert end.value.code == 0
    assert "pellucid train digits" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian", "digits"], "unknown: 'trian'; did you mean train?"),
        (["train"], "give DATA to train on, or --resume RUN"),
        (["train", "digits", "--resume", "x"], "give DATA to train on, or --resume RUN"),
        (["train", "digits", "--epoch", "3"], "unknown option '--epoch', did you mean --epochs?"),
        (["train", "digits", "more"], "unknown argument 'more'"),
        (["train", "digits", "--epochs", "0"], "argument --epochs: expected a whole number from 1, got '0'"),
        (["train", "digits", "--seed", "-1"], "argument --seed: expected a whole number from 0, got '-1'"),
        (["train", "digits", "--test", "1.5"], "argument --test: expected a share such as 0.1, or a number"),
        (["train", "digits", "--image-size", "64"], "argument --image-size: expected height x width"),
        (["train", "digits", "--hidden", "12,no"], "--hidden: expected numbers of units such as 128,64, got '12,no'"),
        (["train", "digits", "--dtype", "float23"], "did you mean float32?"),
        (["show"], "give a RUN or a NET, or --engines"),
        (["show", "--engines", "--mesh", "data=2"], "--engines and --mesh do not go together"),
        (["show", "--engines", "--features"], "--engines and --features do not go together"),
        (["show", "--engines", "--batch-size", "8"], "--batch-size goes with --mesh"),
        (["show", "lenet5", "--mesh", "data=2", "--features"], "--mesh and --features do not go together"),
        (["step", "mlp"], "a network that was not trained yet needs DATA"),
        (["data", "lisst"], "did you mean list?"),
    ],
)
def test_usage_errors_end_with_2_and_say_what_is_wrong(pellucid, arguments, message):
    said = pellucid(*arguments)
    assert (said.code, said.out) == (2, "")
    assert message in said.err
    assert "usage: pellucid" in said.err
    as_json = pellucid(*arguments, "--json")
    assert as_json.code == 2
    if arguments[0] != "trian":  # an unknown verb takes no flags
        assert as_json.json["error"]["type"] == "UsageError"
        assert message in as_json.json["error"]["problem"]


def test_devices_are_simulated_while_they_are_shown_and_no_longer(pellucid, monkeypatch):
    seen = {}

    def exchanged(net, **options):
        seen.update(os.environ)
        raise ParameterError("seen enough")

    monkeypatch.setattr("pellucid.inspect.exchanges.exchanged", exchanged)
    monkeypatch.setattr("pellucid.network.saving.from_config", lambda config, engine: None)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES", raising=False)
    assert "seen enough" in pellucid("show", "lenet5", "--mesh", "data=2").err
    assert (seen["JAX_PLATFORMS"], seen["JAX_NUM_CPU_DEVICES"]) == ("cpu", "2")
    assert os.environ["JAX_PLATFORMS"] == "cuda"
    assert "JAX_NUM_CPU_DEVICES" not in os.environ


def test_an_error_is_text_or_one_object_and_names_flags(pellucid, flowers):
    flowers(change=lambda rows: [row + (",id" if i == 0 else f",r{i}") for i, row in enumerate(rows)])
    said = pellucid("train", "flowers.csv", "--target", "kind")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("error: ")
    assert "--drop id" in said.err
    error = pellucid("train", "flowers.csv", "--target", "kind", "--json").json["error"]
    assert error["type"] == "DataError"
    assert "--drop id" in error["hint"]


def test_a_bug_is_one_line_unless_asked(pellucid, monkeypatch):
    def broken():
        raise KeyError("gone")

    monkeypatch.setattr("pellucid.zoo.entries", broken)
    said = pellucid("zoo", "list")
    assert said.code == 1
    assert said.err == "error: KeyError: 'gone'\nthis is a bug; --debug shows where\n"
    assert pellucid("zoo", "list", "--json").json == {
        "error": {"type": "KeyError", "problem": "'gone'", "hint": "this is a bug; --debug shows where"}
    }
    with pytest.raises(KeyError, match="gone"):
        pellucid("zoo", "list", "--debug")


def test_json_holds_no_nan(pellucid):
    document = {"a": [float("nan"), 1.5], "b": {"c": float("inf")}}
    assert json.loads(common.dumps(document), parse_constant=pytest.fail) == {"a": [None, 1.5], "b": {"c": None}}


@pytest.mark.parametrize(
    ("text", "parts"),
    [("accuracy", ["accuracy"]), ("a, top_k(2),b", ["a", "top_k(2)", "b"]), ("f(1,2),g", ["f(1,2)", "g"]), ("", [])],
)
def test_names_between_commas(text, parts):
    assert common.items(text) == parts


def test_options_become_flags_but_data_stay_as_they_are():
    text = "x, drop=: no\n  expected: target='a'\n  got:      drop='q'\n  hint:     drop=['a', 'b']; fit(x)"
    flags = "x, --drop: no\n  expected: --target a\n  got:      drop='q'\n  hint:     --drop a b; fit(x)"
    assert common.with_flags(text) == flags
    assert common.with_flags("image_size=(H, W) to bring them to") == "--image-size HxW to bring them to"


@pytest.mark.parametrize(
    ("hint", "name", "value"),
    [
        ("take the column as categories: categorical=['a b', 'c']", "categories", ["a b", "c"]),
        ("categorical='embedding' in training", "categorical", "embedding"),
        ("rename one, or say header=False if line 1 is data", "header", "no"),
        ("one size, or image_size=(32, 48) to bring them to", "image_size", (32, 48)),
        ("decimal=',' reads them", "decimal", ","),
        ("delimiter=';'", "delimiter", ";"),
        ("one kind, or channels='grey' or 'rgb' to bring them to", "channels", "grey"),
        ("keys=('inputs', 'targets') names them", "keys", ["inputs", "targets"]),
        ("drop=['a,b', 'it\\'s'] leaves it out", "drop", ["a,b", "it's"]),
        ("missing='median' fills them in", "missing", "median"),
        ("task='regression' overrules", "task", "regression"),
        ("validation=0 and test=0 keep none", "validation", 0),
        ("encoding='utf-16'", "encoding", "utf-16"),
        ("standardize=False leaves them", "no_standardize", True),
    ],
)
def test_the_flag_of_a_hint_can_be_typed(hint, name, value):
    from pellucid.cli import train

    parser = common.Parser()
    train.arguments(parser)
    words = shlex.split(common.with_flags(hint))
    begin = next(i for i, word in enumerate(words) if word.startswith("--"))
    end = begin + 1 + (len(value) if isinstance(value, list) else value is not True)
    assert getattr(parser.parse_args(words[begin:end]), name) == value


def test_a_second_look_at_the_test_set_is_hinted_at_by_its_flag(pellucid, trained):
    said = pellucid("evaluate", trained)
    assert "hint:     --again opens it once more" in said.err
    assert "force" not in said.err
    assert pellucid("evaluate", trained, "--again").code == 0


def test_arrays_of_other_names_are_named_by_a_flag(pellucid):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), np.arange(40) % 2
    np.savez("odd.npz", inputs=x, targets=y)
    flags = ("--epochs", 1, "--no-plot", "--quiet", "--out", "r")
    assert "--keys inputs targets" in pellucid("train", "odd.npz", *flags).err
    keys = ("--keys", "inputs", "targets")
    assert pellucid("train", "odd.npz", *keys, *flags).code == 0
    assert pellucid("predict", "r", "odd.npz", *keys).out.count("\n") == 41
    assert pellucid("evaluate", "r", "odd.npz", *keys).code == 0


def test_a_terminal_without_unicode_gets_other_letters(tmp_path):
    done = command("data", "list", cwd=tmp_path, env={"PYTHONIOENCODING": "ascii", "PELLUCID_DATA_HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert b"8x8 grey" in done.stdout


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    script = f"{sys.executable} -m pellucid data list | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.stderr == ""
    assert done.stdout in ("0\n", "1\n")


def test_colour_only_on_a_terminal_and_without_no_color(monkeypatch):
    class Terminal:
        def isatty(self):
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert common.color("x", "bold", Terminal()) == "\033[1mx\033[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert common.color("x", "bold", Terminal()) == "x"
    assert common.color("x", "bold") == "x"
