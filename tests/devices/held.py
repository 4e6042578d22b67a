"""The command line in this process, and which parameters a device had whole meanwhile."""

from __future__ import annotations

import contextlib
import io
import json

import jax
import pytest

from pellucid import files
from pellucid.cli import main
from pellucid.engines.jax.placement import OnMesh
from pellucid.network.base import Network

COMMAND = ["train", "digits", "--engine", "jax", "--hidden", "128,96", "--batch-size", "64", "--epochs", "1"]
COMMAND += ["--learning-rate", "0.002", "--dtype", "float64", "--no-plot", "--json", "--out"]
SHAPES = {(128, 64), (96, 128)}


def command(*given):
    """What a training said, and the shapes of SHAPES that lay whole on a device of this process: when they were
    placed, around what was predicted in and after training, and when a file was written."""
    whole = set()

    def looked(function):
        def call(*given, **options):
            answer = function(*given, **options)
            for A in jax.live_arrays():
                if A.shape in SHAPES and any(part.data.shape == A.shape for part in A.addressable_shards):
                    whole.add(A.shape)
            return answer

        return call

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as said:
        for owner, name in ((OnMesh, "placed"), (Network, "predicted"), (files, "write_arrays")):
            patch.setattr(owner, name, looked(getattr(owner, name)))
        code = main([*COMMAND, *given])
    return {"code": code, "said": json.loads(said.getvalue() or "null"), "whole": sorted(whole)}
