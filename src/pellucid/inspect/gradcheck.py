"""Gradients against finite differences, in float64: whether they agree, where not, and whose backward is to blame."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pellucid.errors import ParameterError, PellucidError
from pellucid.inspect.text import number, table
from pellucid.inspect.trace import Recorder
from pellucid.network.base import Network
from pellucid.trees import Tree, flatten, leaves, tree_map, unflatten

ROUNDING = 32 * np.finfo(np.float64).eps  # of one evaluation of J, relative to max(1, |J|)


def check_gradients(
    net: Network,
    X: Any,
    Y: Any,
    *,
    sample_weight: Any = None,
    mask: Any = None,
    train: bool = True,
    update: int = 0,
    epsilon: float = 1e-6,
    entries: int = 20,
    directions: int = 1,
    tolerance: float = 1e-6,
    seed: int = 0,
) -> GradientReport:
    """Gradients and dA[0] against (J(θ + εu) - J(θ - εu)) / 2ε, along random directions u and single entries.

    Runs in float64, on a copy: a float32 network is checked with its parameters and state widened, and is not changed.
    Dropout draws the same mask each time; BatchNorm uses the batch. dA[0] is checked as the gradient of J, dA[0]/m.
    Where J has a kink within ε (a ReLU at 0), the two one-sided slopes differ by an amount that does not shrink with
    ε; such a place is reported as a kink and fails nothing. After a failure each layer's backward block is checked
    against its own forward block, to name the layer at fault.

    Arguments:
        net: a network with a loss.
        X, Y, sample_weight, mask, train, update: as for `Network.gradients`. A few examples are enough.
        epsilon: ε, the step of the differences.
        entries: single entries of each array that are checked; all of a smaller array.
        directions: random unit directions in each array.
        tolerance: the largest relative error |a - n| / max(|a|, |n|, floor) that passes, where the floor keeps
            differences within J's own rounding below it.
        seed: of the directions and the choice of entries.

    Returns:
        The `GradientReport`.

    Raises:
        ShapeError, DataError: X or Y does not fit.
        ParameterError: the network has no loss, or an argument is out of range.

    Source: Chainer's ``gradient_check`` for the random direction; the differences are the definition.
    """
    for name, value in (("epsilon", epsilon), ("tolerance", tolerance)):
        if not 0 < value < 1:
            raise ParameterError(
                f"{name} is out of range", where="check_gradients", expected=f"0 < {name} < 1", got=value
            )
    if directions < 0 or entries < 0 or directions + entries == 0:
        raise ParameterError(
            "there is nothing to check", where="check_gradients", expected="directions or entries ≥ 1", got=entries
        )
    wide = _in_float64(net)
    seen = Recorder()
    options = {"sample_weight": sample_weight, "mask": mask, "train": train, "update": update}
    done = wide.checked_iteration(X, Y, **options, input_gradient=True, observer=seen)
    check = _Check(wide, X, Y, options, epsilon, tolerance, np.random.default_rng(seed))

    found: list[Entry] = []
    m = int(done.losses.shape[-1])
    analytic: dict[str, Any] = flatten(done.grads)
    shapes = {path: tuple(W.shape) for path, W in leaves(wide.parameters)}
    for path, W in leaves(wide.parameters):
        found += check.array(path, W, analytic.get(path), entries, directions)
    for name, A in check.inputs.items():
        dA = done.d_inputs[name]
        path = "X" if len(check.inputs) == 1 else f"X[{name}]"
        found += check.array(path, A, None if dA is None else wide.ops.to_numpy(dA) / m, entries, directions)
        shapes[path] = tuple(A.shape)
    blame = list(check.blame(seen, done)) if any(each.verdict == WRONG for each in found) else []
    return GradientReport(found, blame, shapes, float(done.cost), m, net.dtype, epsilon, tolerance)


OK, WRONG, KINK, NOT_CHECKED = "ok", "WRONG", "kink", "not checked"


@dataclass(frozen=True)
class Entry:
    """One comparison.

    Attributes:
        path: the parameter, ``"dense_1/W"``; ``"X"`` or ``"X[name]"`` for an input.
        index: the entry; None for a random direction.
        analytic: the backward pass's slope.
        numeric: the finite difference's.
        error: |analytic - numeric| / max(|analytic|, |numeric|, floor).
        verdict: ``"ok"``, ``"WRONG"``, ``"kink"`` or ``"not checked"``.
        note: what else there is to say.
    """

    path: str
    index: tuple[int, ...] | None
    analytic: float
    numeric: float
    error: float
    verdict: str
    note: str = ""

    @property
    def kink(self) -> bool:
        """J has a kink here."""
        return self.verdict == KINK


@dataclass(frozen=True)
class GradientReport:
    """What `check_gradients` found; prints as a table.

    Attributes:
        entries: every comparison.
        blame: after a failure, the backward blocks that do not follow from their forward blocks.
        cost: J where the gradients were taken.
    """

    entries: list[Entry]
    blame: list[str]
    shapes: dict[str, tuple[int, ...]]
    cost: float
    m: int
    dtype: str
    epsilon: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """No comparison is wrong. Kinks are not."""
        return not self.wrong

    @property
    def wrong(self) -> list[Entry]:
        """The comparisons that failed."""
        return [each for each in self.entries if each.verdict == WRONG]

    @property
    def worst(self) -> Entry:
        """The comparison with the largest relative error: a wrong one if there is one, single entries first."""
        return _worst(self.entries)

    def assert_passed(self) -> None:
        """Nothing if all passed.

        Raises:
            AssertionError: with the table.
        """
        if not self.passed:
            raise AssertionError(str(self))

    def __str__(self) -> str:
        rows = []
        for path in dict.fromkeys(each.path for each in self.entries):
            own = [each for each in self.entries if each.path == path]
            worst = _worst(own)
            kinks = sum(each.kink for each in own)
            single = sum(each.index is not None for each in own)
            checked = f"{single} of {math.prod(self.shapes[path])}"
            verdict = worst.verdict if not kinks or worst.verdict == WRONG else f"{kinks} of {len(own)} at a kink"
            place = "a direction" if worst.index is None else f"[{', '.join(map(str, worst.index))}]"
            values = ["–"] * 4 if worst.note else [f"{worst.error:.1e}", place, *_pair(worst.analytic, worst.numeric)]
            rows.append([path, str(self.shapes[path]), checked, *values, f"{verdict} {worst.note}".strip()])
        heads = ["gradient of", "shape", "entries", "error", "largest at", "analytic", "numeric", ""]
        copied = "" if self.dtype == "float64" else f", on a copy of the {self.dtype} network"
        failed = list(dict.fromkeys(each.path for each in self.wrong))
        agree = "all gradients agree" + " away from kinks" * any(each.kink for each in self.entries)
        title = agree if self.passed else f"WRONG: {', '.join(failed)}"
        settings = (
            f"  J = {self.cost:.6g}, m = {self.m}; float64{copied}; ε = {self.epsilon:g}, tolerance {self.tolerance:g}"
        )
        lines = [f"gradient check · {title}", settings, "", *table(heads, rows, left=(0, 1, 7))]
        if self.blame:
            lines += ["", "  does not follow from its forward block:", *(f"    {each}" for each in self.blame)]
        elif not self.passed:
            lines += ["", "  every backward block follows from its forward block: look at the regularizers"]
        return "\n".join(lines)


def _worst(entries: list[Entry]) -> Entry:
    rank = {WRONG: 2, OK: 1}
    return max(entries, key=lambda e: (rank.get(e.verdict, 0), e.verdict == OK or e.index is not None, e.error))


class _Check:
    """J and its slopes at one place."""

    def __init__(
        self,
        net: Network,
        X: Any,
        Y: Any,
        options: dict[str, Any],
        epsilon: float,
        tolerance: float,
        rng: np.random.Generator,
    ) -> None:
        self.net, self.epsilon, self.tolerance, self.rng = net, epsilon, tolerance, rng
        self.inputs = net.checked(X)
        weight = options["sample_weight"]
        self.weight = None if weight is None else net.ops.asarray(weight, "float64")
        masks = net.checked_masks(options["mask"], self.inputs)
        self.mode = net._mode(options["train"], options["update"], masks)
        self.targets = net.checked_targets(Y, masks=self.mode.mask)

    def array(self, path: str, W: Any, dW: Any, entries: int, directions: int) -> Iterator[Entry]:
        """The comparisons for one parameter or input."""
        shape = tuple(W.shape)
        if dW is None or tuple(dW.shape) != shape:
            note = "backward returned none" if dW is None else f"backward returned the shape {tuple(dW.shape)}"
            yield Entry(path, None, np.nan, np.nan, np.inf, WRONG, note)
            return
        dW = np.asarray(self.net.ops.to_numpy(dW))
        try:
            yield from self._compared(path, W, dW, entries, directions)
        except PellucidError as problem:  # an input that cannot be moved, such as an embedding's ids
            yield Entry(path, None, np.nan, np.nan, 0.0, NOT_CHECKED, f"({problem.problem})")

    def _compared(self, path: str, W: Any, dW: np.ndarray, entries: int, directions: int) -> list[Entry]:
        along = [self._along(path, W, dW, self._direction(dW.shape), None) for _ in range(directions)]
        chosen = range(dW.size) if dW.size <= entries else np.sort(self.rng.choice(dW.size, entries, replace=False))
        single = [self._entry(path, W, dW, int(flat)) for flat in chosen]
        if any(each.verdict == WRONG for each in along) and not any(each.verdict == WRONG for each in single):
            single.append(self._entry(path, W, dW, self._search(path, W, dW)))
        return along + single

    def _direction(self, shape: tuple[int, ...]) -> np.ndarray:
        u = self.rng.standard_normal(shape)
        return u / np.linalg.norm(u)

    def _entry(self, path: str, W: Any, dW: np.ndarray, flat: int) -> Entry:
        u = np.zeros(dW.shape)
        u.flat[flat] = 1.0
        return self._along(path, W, dW, u, tuple(int(i) for i in np.unravel_index(flat, dW.shape)))

    def _along(self, path: str, W: Any, dW: np.ndarray, u: np.ndarray, index: tuple[int, ...] | None) -> Entry:
        start = np.asarray(self.net.ops.to_numpy(W))
        return self.compare(path, index, float((dW * u).sum()), lambda h: self.cost(path, start + h * u))

    def _search(self, path: str, W: Any, dW: np.ndarray) -> int:
        """The entry with the largest error among all, found by halving: each half's slope along one direction."""
        u = self._direction(dW.shape).ravel()
        among = np.arange(dW.size)
        while among.size > 1:
            halves = np.array_split(among, 2)
            errors = []
            for half in halves:
                part = np.zeros(dW.size)
                part[half] = u[half]
                entry = self._along(path, W, dW, part.reshape(dW.shape), None)
                errors.append(abs(entry.analytic - entry.numeric))
            among = halves[int(np.argmax(errors))]
        return int(among[0])

    def cost(self, path: str, value: np.ndarray) -> float:
        """J with one parameter or input replaced."""
        net, params, inputs = self.net, self.net.parameters, self.inputs
        new = net.ops.asarray(value, "float64")
        if path == "X" or path.startswith("X["):
            inputs = {**inputs, (path[2:-1] or next(iter(inputs))): new}
        else:
            params = unflatten({**flatten(params), path: new})
        return float(net.objective(params, net.state, inputs, self.targets, weight=self.weight, mode=self.mode))

    def compare(
        self,
        path: str,
        index: tuple[int, ...] | None,
        analytic: float,
        at: Callable[[float], float],
        scale: float = 1.0,
    ) -> Entry:
        """A slope against the central difference of ``at``, a function of the step."""
        h = self.epsilon
        plus, minus = at(h), at(-h)
        numeric = (plus - minus) / (2 * h)
        noise = ROUNDING * max(scale, abs(plus)) / h
        floor = noise / self.tolerance
        gap = abs(analytic - numeric)
        error = gap / max(abs(analytic), abs(numeric), floor)
        verdict = OK if error <= self.tolerance else KINK if self._kinked(at, analytic, gap, noise) else WRONG
        return Entry(path, index, analytic, numeric, error, verdict)

    def _kinked(self, at: Callable[[float], float], analytic: float, gap: float, noise: float) -> bool:
        """Whether one-sided slopes differ by what no smooth function explains, and the analytic slope is one of them.

        For a smooth function the slopes to the right and to the left differ by h J'', so twice as much at h as at h/2.
        """
        here, steps = at(0.0), (self.epsilon, self.epsilon / 2, self.epsilon / 4)
        right = [(at(h) - here) / h for h in steps]
        left = [(here - at(-h)) / h for h in steps]
        jumps = np.subtract(right, left)
        bend = max(abs(jumps[0] - 2 * jumps[1]), abs(jumps[1] - 2 * jumps[2]))
        slack = 8 * noise + 1e-3 * gap
        return bool(bend > gap / 2 and min(*right, *left) - slack <= analytic <= max(*right, *left) + slack)

    # --- whose fault --------------------------------------------------------------------------------------------

    def blame(self, seen: Recorder, done: Any) -> Iterator[str]:
        """The blocks whose backward does not follow from their forward, each checked alone with the dA it was given."""
        ops, m = self.net.ops, int(done.losses.shape[-1])
        for name, loss in self.net.losses.items():
            A, Y = done.outputs[name], self.targets[name]
            mask = self.net.loss_mask(self.mode.mask, name)
            dA = loss.masked_backward(ops, loss.masked_forward(ops, A, Y, mask)[1], mask)

            def judged(A, loss=loss, Y=Y, mask=mask):
                return float(loss.masked_forward(ops, A, Y, mask)[0].mean())

            yield from self._blame(f"the loss {type(loss).__name__}", "dA", (A,), (dA,), lambda A: judged(A[0]), m)
        for index, step in enumerate(self.net.steps):
            layer, (dA, dA_prev, own) = step.layer, seen.returned[index]
            mode = self.net._own_mode(index, self.net.state, self.mode)
            params, A_prev = self.net.parameters.get(step.name, {}), seen.made[index][0]

            def made(params, A_prev, layer=layer, dA=dA, mode=mode):
                A, _ = layer.forward(ops, params, A_prev, mode=mode)
                return sum(float((a * d).sum()) for a, d in zip(_tuple(A), _tuple(dA), strict=True)) / m

            for path, W in leaves(params):

                def of_W(W, path=path, params=params, A_prev=A_prev, made=made):
                    return made(unflatten({**flatten(params), path: W[0]}), A_prev)

                dW = flatten(own).get(path)
                yield from self._blame(step.label, f"d{path}", (W,), (dW,), of_W, m, mean=False)

            def of_A_prev(A, params=params, A_prev=A_prev, made=made):
                return made(params, A if isinstance(A_prev, tuple) else A[0])

            yield from self._blame(step.label, "dA_prev", _tuple(A_prev), _tuple(dA_prev), of_A_prev, m)

    def _blame(
        self,
        where: str,
        what: str,
        values: tuple[Any, ...],
        gradients: tuple[Any, ...],
        of: Callable[[tuple[Any, ...]], float],
        m: int,
        *,
        mean: bool = True,
    ) -> Iterator[str]:
        to_numpy, ratios, worst = self.net.ops.to_numpy, [], 0.0
        arrays = [np.asarray(to_numpy(value)) for value in values]
        slopes = [None if d is None else np.asarray(to_numpy(d)) / (m if mean else 1) for d in gradients]
        for array, slope in zip(arrays, slopes, strict=True):
            if slope is None or slope.shape != array.shape:
                got = "none" if slope is None else f"the shape {slope.shape}"
                yield f"{where}: {what}: expected the shape {array.shape}, backward returned {got}"
                return
        for _ in range(3):
            along = [self._direction(array.shape) for array in arrays]
            analytic = sum(float((slope * u).sum()) for slope, u in zip(slopes, along, strict=True))

            def at(h, along=along):
                return of(tuple(self.net.ops.asarray(A + h * u, "float64") for A, u in zip(arrays, along, strict=True)))

            try:
                entry = self.compare(where, None, analytic, at)
            except PellucidError:
                return
            if entry.verdict == WRONG:
                ratios.append(entry.analytic / entry.numeric if entry.numeric else np.inf)
                worst = max(worst, entry.error)
        if ratios:
            yield f"{where}: {what}{_explained(ratios, m) or f', relative error {number(worst)} along a direction'}"


def _explained(ratios: list[float], m: int) -> str:
    """What a wrong gradient that is a constant times the right one suggests."""
    factor = ratios[0]
    if not np.allclose(ratios, factor, rtol=1e-4) or not np.isfinite(factor):
        return ""
    known = {-1.0: "has the wrong sign", float(m): f"is m = {m} times too large: is 1/m missing?"}
    known |= (
        {1.0 / m: f"is m = {m} times too small: is 1/m there twice?", 0.0: "is zero"} if m > 1 else {0.0: "is zero"}
    )
    for value, text in known.items():
        if abs(factor - value) < 1e-3 * max(1.0, abs(value)) * (abs(value) if value else 1):
            return f" {text}"
    return f" is {number(factor, 4)} times what it should be"


def _in_float64(net: Network) -> Network:
    """The network with its layers, and copies of its parameters and state in float64."""
    wide = copy.copy(net)
    wide.dtype = "float64"

    def widened(tree: Tree) -> Tree:
        return tree_map(lambda leaf: net.ops.asarray(np.array(net.ops.to_numpy(leaf), np.float64)), tree)

    wide.adopt(widened(net.parameters), widened(net.state))
    return wide


def _tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _pair(analytic: float, numeric: float) -> list[str]:
    """Two numbers with enough digits to see where they part."""
    for digits in range(4, 12):
        if f"{analytic:.{digits - 1}e}" != f"{numeric:.{digits - 1}e}" or digits == 7:
            return [f"{analytic:.{digits}g}", f"{numeric:.{digits}g}"]
    return []
