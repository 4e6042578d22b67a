"""Finding an engine: by name, the preferred one, and the ones that cannot run here."""

from __future__ import annotations

import importlib
import pickle

import pytest

import pellucid as pl
from pellucid import engines
from pellucid.engines import native, numpy
from pellucid.engines.base import Ops
from pellucid.errors import EngineError, ParameterError


def test_numpy_is_always_there():
    assert "numpy" in engines.available()
    assert engines.get("numpy").name == "numpy"
    assert set(engines.available()) <= set(engines.known())


@pytest.mark.parametrize("name", engines.available())
def test_every_engine_is_made_once_and_knows_its_name(name):
    ops = engines.get(name)
    assert isinstance(ops, Ops)
    assert ops.name == name
    assert engines.get(name) is ops


def test_auto_is_the_preferred_one():
    assert engines.get("auto").name == engines.available()[0]
    assert pl.Sequential(pl.Tanh(), input_shape=1).ops is engines.get("auto")


def test_unknown_engine():
    with pytest.raises(ParameterError, match="unknown engine 'numpi'") as caught:
        engines.get("numpi")
    assert "did you mean 'numpy'" in str(caught.value)
    assert "auto" in str(caught.value)


def test_an_engine_that_cannot_run_here_says_why(monkeypatch):
    monkeypatch.setattr(engines, "known", lambda: {"warp": "no such device", "numpy": None})
    assert engines.available() == ["numpy"]
    with pytest.raises(EngineError, match="the warp engine cannot run here") as caught:
        engines.get("warp")
    assert "no such device" in str(caught.value)
    assert "available: numpy" in str(caught.value)


@pytest.mark.parametrize("name", engines.available())
def test_a_precision_is_another_engine_of_the_same_name(name):
    ops = engines.get(name, "bfloat16")
    assert (ops.name, ops.precision, engines.get(name).precision) == (name, "bfloat16", None)
    assert pickle.loads(pickle.dumps(ops)) is ops is engines.get(name, "bfloat16")
    assert pickle.loads(pickle.dumps(engines.get(name))) is engines.get(name)


def test_unknown_precision():
    with pytest.raises(ParameterError, match="unknown precision 'bfloat61'") as caught:
        engines.get("numpy", "bfloat61")
    assert "the numpy engine" in str(caught.value)
    assert "bfloat16, float32" in str(caught.value)


def test_an_engine_without_it_refuses_a_precision(monkeypatch):
    monkeypatch.setattr(numpy, "PRECISIONS", ())
    engines._made.cache_clear()
    with pytest.raises(ParameterError, match=r"(?s)numpy engine does not multiply in bfloat16.*expected: float32\n"):
        engines.get("numpy", "bfloat16")
    engines._made.cache_clear()


def test_kernels_older_than_the_code_are_said_and_auto_does_without(monkeypatch):
    if "native" not in engines.available():
        pytest.skip("the native engine cannot run here")
    monkeypatch.setattr(native, "_interface", lambda: "of other sources")
    engines.known.cache_clear()
    try:
        with pytest.warns(UserWarning, match="kernels are older than the code: `pip install -e .`"):
            assert engines.get().name == "numpy"
        with pytest.raises(EngineError, match=r"(?s)native engine cannot run here.*older than the code"):
            engines.get("native")
    finally:
        engines.known.cache_clear()


def test_kernels_that_cannot_be_loaded_are_said_and_the_other_engines_run(monkeypatch):
    load = importlib.import_module

    def loaded(name, *more):
        if name.endswith("._kernels"):
            raise ImportError("libstdc++.so.6: version `GLIBCXX_3.4.99' not found")
        return load(name, *more)

    monkeypatch.setattr(native, "compiled", lambda: True)
    monkeypatch.setattr(importlib, "import_module", loaded)
    engines.known.cache_clear()
    try:
        with pytest.warns(UserWarning, match=r"kernels cannot be loaded, install pellucid again: libstdc.*GLIBCXX"):
            assert engines.get().name == "numpy"
    finally:
        engines.known.cache_clear()
