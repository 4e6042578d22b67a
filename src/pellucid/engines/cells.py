"""One step of each recurrent cell in NumPy, its backward beside it: what the reference engine goes through time with.

`forward` makes the states ``after`` a step from those ``before``, from the step's own Z and from V = U h, and leaves in
Z and V what `backward` reads. `backward` turns the gradients of the states after it into dZ and dV, and returns what
reaches the states before it directly; Uᵀ dV is added by the engine.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import numpy as np

Array = Any


class Cell(Protocol):
    """What a cell is.

    Attributes:
        gates: G, rows of Z for each unit.
        keeps_V: whether `backward` reads the last rows of V too.
    """

    gates: ClassVar[int]
    keeps_V: ClassVar[bool]

    def forward(self, Z: Array, V: Array, c: Array | None, before: list[Array], after: list[Array]) -> None:
        """One step; Z becomes its gates."""
        ...

    def backward(
        self,
        Z: Array,
        V: Array,
        before: list[Array],
        after: list[Array],
        d_after: list[Array],
        dZ: Array,
        dV: Array,
    ) -> list[Array]:
        """dZ and dV are written; the gradients of the states before that do not go through U come back."""
        ...


class Simple:
    """A = g(Z + U h)."""

    gates: ClassVar[int] = 1
    keeps_V: ClassVar[bool] = False

    def __init__(self, g, derivative):
        self.g, self.derivative = g, derivative  # g'(Z) from A

    def forward(self, Z, V, c, before, after):
        after[0][...] = self.g(Z + V)

    def backward(self, Z, V, before, after, d_after, dZ, dV):
        dZ[...] = d_after[0] * self.derivative(after[0])
        return [np.zeros_like(d_after[0])]


class LSTM:
    """(i, f, g, o) = (σ, σ, tanh, σ)(Z + U h);  C = f C_prev + i g;  A = o tanh C.

    Source: Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000.
    """

    gates: ClassVar[int] = 4
    keeps_V: ClassVar[bool] = False

    def forward(self, Z, V, c, before, after):
        Z += V
        i, f, g, o = np.split(Z, 4)
        for gate in (i, f, o):
            gate[...] = sigmoid(gate)
        g[...] = np.tanh(g)
        after[1][...] = f * before[1] + i * g
        after[0][...] = o * np.tanh(after[1])

    def backward(self, Z, V, before, after, d_after, dZ, dV):
        i, f, g, o = np.split(Z, 4)
        di, df, dg, do = np.split(dZ, 4)
        (dA, dC), tanh_C = d_after, np.tanh(after[1])
        dC = dC + dA * o * (1.0 - tanh_C * tanh_C)
        di[...] = dC * g * i * (1.0 - i)
        df[...] = dC * before[1] * f * (1.0 - f)
        dg[...] = dC * i * (1.0 - g * g)
        do[...] = dA * tanh_C * o * (1.0 - o)
        return [np.zeros_like(dA), dC * f]


class GRU:
    """r, z = σ(Z + U h);  v = U h + c, n = tanh(Z + r v);  A = (1 - z) n + z h.

    Source: Cho et al. 2014, with the reset gate after the product, as cuDNN and PyTorch have it.
    """

    gates: ClassVar[int] = 3
    keeps_V: ClassVar[bool] = True

    def forward(self, Z, V, c, before, after):
        (r, z, n), (Vr, Vz, v) = np.split(Z, 3), np.split(V, 3)
        if c is not None:
            v += c
        r[...] = sigmoid(r + Vr)
        z[...] = sigmoid(z + Vz)
        n[...] = np.tanh(n + r * v)
        after[0][...] = n + z * (before[0] - n)

    def backward(self, Z, V, before, after, d_after, dZ, dV):
        (r, z, n), v, dA = np.split(Z, 3), V, d_after[0]
        dr, dz, dn = np.split(dZ, 3)
        dn[...] = dA * (1.0 - z) * (1.0 - n * n)
        dr[...] = dn * v * r * (1.0 - r)
        dz[...] = dA * (before[0] - n) * z * (1.0 - z)
        dV[...] = dZ
        dV[2 * len(dA) :] *= r
        return [dA * z]


def sigmoid(Z):
    """The logistic function, without overflow."""
    return 0.5 * np.tanh(0.5 * Z) + 0.5


CELLS: dict[str, Cell] = {
    "tanh": Simple(np.tanh, lambda A: 1.0 - A * A),
    "relu": Simple(lambda Z: np.maximum(Z, 0.0), lambda A: A > 0),
    "sigmoid": Simple(sigmoid, lambda A: A * (1.0 - A)),
    "lstm": LSTM(),
    "gru": GRU(),
}
