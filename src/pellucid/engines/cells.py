"""One step of each recurrent cell, its backward beside it: what the engines go through time with.

`forward` makes the states after a step from those before, from the step's own Z and from V = U h, and the gates that
`backward` reads. `backward` turns the gradients of the states after it into dZ and dV, and returns what reaches the
states before it directly; Uᵀ dV is added by the engine. Both are pure, of the arrays of either namespace ``xp``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

Array = Any
States = tuple[Array, ...]


class Cell(Protocol):
    """What a cell is.

    Attributes:
        gates: G, rows of Z for each unit.
        keeps_V: whether `backward` reads the last rows of V too.
    """

    gates: ClassVar[int]
    keeps_V: ClassVar[bool]

    def forward(self, xp: Any, Z: Array, V: Array, c: Array | None, before: Sequence[Array]) -> tuple[States, Array]:
        """One step: the states after it, and the gates after their functions."""
        ...

    def backward(
        self, xp: Any, gates: Array, v: Array, before: Sequence[Array], after: Sequence[Array], d_after: Sequence[Array]
    ) -> tuple[Array, Array, States]:
        """dZ, dV, and the gradients of the states before that do not go through U."""
        ...


class Simple:
    """A = g(Z + U h)."""

    gates: ClassVar[int] = 1
    keeps_V: ClassVar[bool] = False

    def __init__(self, g: Callable, derivative: Callable) -> None:
        self.g, self.derivative = g, derivative  # g'(Z) from A

    def forward(self, xp, Z, V, c, before):
        A = self.g(xp, Z + V)
        return (A,), A

    def backward(self, xp, gates, v, before, after, d_after):
        dZ = d_after[0] * self.derivative(after[0])
        return dZ, dZ, (xp.zeros_like(dZ),)


class LSTM:
    """(i, f, g, o) = (σ, σ, tanh, σ)(Z + U h);  C = f C_prev + i g;  A = o tanh C.

    Source: Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000.
    """

    gates: ClassVar[int] = 4
    keeps_V: ClassVar[bool] = False

    def forward(self, xp, Z, V, c, before):
        i, f, g, o = xp.split(Z + V, 4)
        i, f, g, o = sigmoid(xp, i), sigmoid(xp, f), xp.tanh(g), sigmoid(xp, o)
        C = f * before[1] + i * g
        return (o * xp.tanh(C), C), xp.concatenate([i, f, g, o])

    def backward(self, xp, gates, v, before, after, d_after):
        i, f, g, o = xp.split(gates, 4)
        (dA, dC), tanh_C = d_after, xp.tanh(after[1])
        dC = dC + dA * o * (1.0 - tanh_C * tanh_C)
        di = dC * g * i * (1.0 - i)
        df = dC * before[1] * f * (1.0 - f)
        dg = dC * i * (1.0 - g * g)
        do = dA * tanh_C * o * (1.0 - o)
        dZ = xp.concatenate([di, df, dg, do])
        return dZ, dZ, (xp.zeros_like(dA), dC * f)


class GRU:
    """r, z = σ(Z + U h);  v = U h + c, n = tanh(Z + r v);  A = (1 - z) n + z h.

    Source: Cho et al. 2014, with the reset gate after the product, as cuDNN and PyTorch have it.
    """

    gates: ClassVar[int] = 3
    keeps_V: ClassVar[bool] = True

    def forward(self, xp, Z, V, c, before):
        (r, z, n), (Vr, Vz, v) = xp.split(Z, 3), xp.split(V, 3)
        v = v if c is None else v + c
        r, z = sigmoid(xp, r + Vr), sigmoid(xp, z + Vz)
        n = xp.tanh(n + r * v)
        return (n + z * (before[0] - n),), xp.concatenate([r, z, n])

    def backward(self, xp, gates, v, before, after, d_after):
        (r, z, n), dA = xp.split(gates, 3), d_after[0]
        dn = dA * (1.0 - z) * (1.0 - n * n)
        dr = dn * v * r * (1.0 - r)
        dz = dA * (before[0] - n) * z * (1.0 - z)
        return xp.concatenate([dr, dz, dn]), xp.concatenate([dr, dz, dn * r]), (dA * z,)


def sigmoid(xp, Z):
    """The logistic function, without overflow."""
    return 0.5 * xp.tanh(0.5 * Z) + 0.5


CELLS: dict[str, Cell] = {
    "tanh": Simple(lambda xp, Z: xp.tanh(Z), lambda A: 1.0 - A * A),
    "relu": Simple(lambda xp, Z: xp.maximum(Z, 0.0), lambda A: A > 0),
    "sigmoid": Simple(sigmoid, lambda A: A * (1.0 - A)),
    "lstm": LSTM(),
    "gru": GRU(),
}
