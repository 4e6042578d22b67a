"""One iteration laid open: every value of every layer, by name, with its equation and its shape."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from pellucid import optimizers
from pellucid.errors import ParameterError, unknown
from pellucid.inspect.text import headline, matrix, number, table
from pellucid.layers.activations import Activation, Identity
from pellucid.losses import Loss
from pellucid.network.base import Iteration, Network, Observer, Step
from pellucid.optimizers import Optimizer
from pellucid.registry import config
from pellucid.regularizers import Regularizer
from pellucid.trees import Tree, at, flatten, leaves, tree_map

SYMBOLS = {"gamma": "γ", "beta": "β", "mean": "μ", "variance": "σ²"}
LARGEST_SLOPE = {"sigmoid": 0.25, "tanh": 1.0, "hard_sigmoid": 1 / 6}  # of the activations that go flat at both ends
SATURATED = 0.05  # saturated: a slope below this part of the largest


def trace(
    net: Network, X: Any, Y: Any, *, sample_weight: Any = None, mask: Any = None, train: bool = True, update: int = 0
) -> Trace:
    """One iteration (forward, loss, backward) with every value kept; the network is left as it is.

        t = pl.trace(net, X, Y)
        t[1].Z, t[1].A, t[1].dZ, t[1].dW      # layer 1, also t["dense_1"]; t[0] is the input
        print(t)                              # all of it, to read

    The values are copies of what the network's own pass made; dA[0] is among them.

    Arguments:
        net: a network with a loss.
        X: inputs (n[0], m), examples last; by name for several inputs.
        Y: targets, as for `Network.cost`.
        sample_weight: wᵢ of each example, (m,).
        mask: which steps of sequences count, as for `Network.forward`.
        train: False to run as in prediction: no dropout, running averages in BatchNorm.
        update: which update's random stream dropout draws from.

    Returns:
        The `Trace`.

    Raises:
        ShapeError, DataError: X or Y does not fit.
        ParameterError: the network has no loss.

    Source: the notes' S1 and S4.
    """
    seen = Recorder()
    done = net.checked_iteration(
        X,
        Y,
        sample_weight=sample_weight,
        mask=mask,
        train=train,
        update=update,
        input_gradient=True,
        observer=seen,
    )
    inputs = net.checked(X)
    masks = net.masks(net.checked_masks(mask, inputs))
    t = Trace(net, inputs, net.checked_targets(Y, masks=masks), seen, done, train)
    _Writer(net, t, weighted=sample_weight is not None).write()
    return t


class Recorder(Observer):
    """Keeps what it is shown."""

    def __init__(self) -> None:
        self.made: dict[int, tuple[Any, Any, Any]] = {}
        self.judged: dict[str, tuple[Any, Any]] = {}
        self.returned: dict[int, tuple[Any, Any, Tree]] = {}

    def forward(self, index, A_prev, A, cache):
        self.made[index] = (A_prev, A, cache)

    def loss(self, name, losses, dA):
        self.judged[name] = (losses, dA)

    def backward(self, index, dA, dA_prev, grads):
        self.returned[index] = (
            dA,
            dA_prev,
            tree_map(lambda leaf: leaf, grads),
        )  # the regularizers add to the tree itself


class Traced:
    """Values by name, each with its equation: one application of a layer, the input, or a loss.

    A layer has ``.A_prev``, ``.A``, ``.dA``, ``.dA_prev``, its parameters (``.W``, ``.b``), their gradients (``.dW``,
    ``.db``), and what lies between (``.Z``, ``.dZ``). ``dW`` is what this application's backward block returned. Where
    a regularizer adds to it there is ``dW_penalty`` too, and where the update sees more than ``dW`` (that penalty, or
    other uses of the same layer) ``dW_total``.

    Attributes:
        index: l, 1 for the first layer, 0 for the input.
        name: the layer's name; ``dense_1@2`` where the layer is used a second time.
        layer: the layer's specification, or the loss; None for the input.
        sources: names of what it reads.
        values: arrays by name, in the order they are made; tuples of arrays for several inputs or outputs.
        equations: the right side of each value's equation, ``"W[1] A[0] + b[1]"``, by name.
        titles: the left side, ``"Z[1]"``, by name.
    """

    def __init__(
        self,
        index: int,
        name: str,
        layer: Any,
        values: dict[str, Any],
        *,
        sources: tuple[str, ...] = (),
        of_layer: tuple[str, ...] = (),
    ) -> None:
        self.index, self.name, self.layer, self.sources, self.values = index, name, layer, sources, values
        self.equations: dict[str, str] = {}
        self.titles: dict[str, str] = {}
        self._of_layer = of_layer  # the values without an example axis

    def __getattr__(self, name: str) -> Any:
        values = self.__dict__.get("values", {})
        if name in values:
            return values[name]
        if name.startswith("_"):
            raise AttributeError(name)
        raise AttributeError(str(unknown("value", name, values, where=self.heading)))

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.values})

    @property
    def shapes(self) -> dict[str, Any]:
        """The values' shapes by name."""
        return {name: _map(lambda A: A.shape, value) for name, value in self.values.items()}

    @property
    def heading(self) -> str:
        """Number, name and specification."""
        if self.layer is None:
            return "layer 0 · input"
        if isinstance(self.layer, Loss):
            return f"{self.name}: {_call(self.layer)}"
        return f"layer {self.index} · {self.name} = {self.layer!r}"

    def __repr__(self) -> str:
        return f"<{self.heading}: {', '.join(self.values)}>"

    def __str__(self) -> str:
        return self.show()

    def show(self, example: int | None = None, *, precision: int = 4, max_items: int = 6) -> str:
        """Every value with its equation, shape and numbers. Arguments as in `Trace.show`."""
        return "\n".join([self.heading, *self._lines(list(self.values), example, precision, max_items)])

    def _lines(self, names: list[str], example: int | None, precision: int, max_items: int) -> list[str]:
        lines = []
        for name in names:
            title, formula = self.titles.get(name, name), self.equations.get(name)
            of_layer = name in self._of_layer
            values = self.values[name] if isinstance(self.values[name], tuple) else (self.values[name],)
            if example is not None and not of_layer:
                values = tuple(A[..., example : example + 1] for A in values)
            left = f"{title} = {formula}" if formula else title
            lines.append(f"  {left:<56}  {' '.join(str(A.shape) for A in values)}")
            for A in values:
                lines += [f"      {row}" for row in matrix(A, precision, max_items, examples=not of_layer)]
        return lines


class Norms(NamedTuple):
    """How large a layer's values are: what shrinks or grows from layer to layer.

    Attributes:
        name: the layer's, as in `Trace`.
        A, dA: ‖A‖ and ‖dA‖ of a typical example, √(Σ A²/m).
        W, dW: ‖·‖ of all the layer's parameters together, and of their gradients; None without parameters.
        ratio: ‖dW‖ / ‖W‖.
        dead: the part of the units whose activation has slope 0 for every example; None without an activation.
        saturated: the part of the values at which a sigmoid-like activation has less than 5 % of its largest slope.
    """

    name: str
    A: float
    dA: float
    W: float | None
    dW: float | None
    ratio: float | None
    dead: float | None
    saturated: float | None


class Trace:
    """One iteration, as `trace` returns it: ``t[l]`` or ``t["dense_1"]`` is layer l, ``t[0]`` the input.

    Attributes:
        cost: J.
        penalty: the regularizers' part of J.
        loss: the losses by output name, each with its Y, L (weighted as it enters J) and dA.
        grads: the gradients the update uses, a tree of the parameters' shape.
        parameters: the parameters.
        m: the number of examples.
    """

    def __init__(
        self, net: Network, X: dict[str, Any], Y: dict[str, Any], seen: Recorder, done: Iteration, train: bool
    ) -> None:
        def keep(A: Any) -> np.ndarray:
            return np.array(net.ops.to_numpy(A))

        self.net, self.train = net, train
        self.cost, self.penalty = float(done.cost), float(net.penalty(net.parameters))
        self.grads, self.parameters = tree_map(keep, done.grads), tree_map(keep, net.parameters)
        self.m = int(done.losses.shape[-1])
        values: dict[str, Any] = {}
        for name, A in X.items():
            own = "" if len(X) == 1 else f"_{name}"
            values |= {f"A{own}": keep(A), f"dA{own}": keep(done.d_inputs[name])}
        self._layers = [Traced(0, "input", None, values)]
        uses = Counter(step.name for step in net.steps)
        for index, step in enumerate(net.steps):
            values, of_layer = _values(net, step, seen.made[index], seen.returned[index], train)
            if uses[step.name] > 1 or any(name.endswith("_penalty") for name in values):
                values = _with_totals(values, self.grads[step.name], shared=uses[step.name] > 1)
                of_layer += [name for name in values if name.endswith("_total")]
            values = {name: _map(keep, value) for name, value in values.items()}
            self._layers.append(
                Traced(index + 1, step.label, step.layer, values, sources=step.sources, of_layer=tuple(of_layer))
            )
        self.loss = {
            name: Traced(0, name, net.losses[name], {"Y": keep(Y[name]), "L": keep(L), "dA": keep(dA)})
            for name, (L, dA) in seen.judged.items()
        }
        self._by_name = {each.name: each for each in self._layers}

    def __getitem__(self, key: int | str) -> Traced:
        if isinstance(key, str):
            if key not in self._by_name:
                raise unknown("layer", key, self._by_name, where="trace")
            return self._by_name[key]
        if not -len(self) <= key <= len(self):
            raise ParameterError(
                "no such layer", where="trace", expected=f"0 (the input) … {len(self)}, or a name", got=key
            )
        return self._layers[key]

    def __iter__(self) -> Iterator[Traced]:
        """Layers 1 … L."""
        return iter(self._layers[1:])

    def __len__(self) -> int:
        return len(self._layers) - 1

    def __repr__(self) -> str:
        return f"<trace of {', '.join(each.name for each in self)}: J = {self.cost:.6g}, m = {self.m}>"

    def __str__(self) -> str:
        return self.show()

    # --- reading it ---------------------------------------------------------------------------------------------

    def show(self, example: int | None = None, *, precision: int = 4, max_items: int = 6) -> str:
        """The iteration as text: shapes, forward left to right, the loss, backward right to left, norms.

        Arguments:
            example: show this example's columns only, 0 … m-1; gradients of parameters stay means over the batch.
            precision: digits after the point.
            max_items: rows and columns of a matrix that are shown; the middle of larger ones is left out.

        Raises:
            ParameterError: there is no such example.
        """
        if example is not None and not 0 <= example < self.m:
            raise ParameterError("no such example", where="trace", expected=f"0 … {self.m - 1}", got=example)
        how = (example, precision, max_items)
        lines = [self._title(example), *self._path(), "", headline("forward, left to right"), "layer 0 · input"]
        lines += self._layers[0]._lines([name for name in self._layers[0].values if name[0] == "A"], *how)
        for each in self:
            lines += [each.heading, *each._lines(_forward_values(each), *how)]
        lines += ["", headline("loss")]
        for loss in self.loss.values():
            lines += [loss.heading, *loss._lines(["Y", "L"], *how)]
        lines += [f"  {self._cost_line()}"]
        for loss in self.loss.values():
            lines += loss._lines(["dA"], *how)
        lines += ["", headline("backward, right to left")]
        for each in reversed(self._layers[1:]):
            lines += [each.heading, *each._lines(self._backward_values(each), *how)]
        if sums := self._backward_values(self._layers[0]):
            lines += ["layer 0 · input", *self._layers[0]._lines(sums, *how)]
        return "\n".join([*lines, "", headline("norms"), *self._norms_table()])

    def _title(self, example: int | None) -> str:
        net, one = self.net, "1 example" if self.m == 1 else f"{self.m} examples"
        which = "" if example is None else f", example {example} shown; dW and its like are means over all {self.m}"
        mode = "" if self.train else " run as in prediction"
        return f"one iteration{mode} on {one} ({net.dtype}){which}"

    def _path(self) -> list[str]:
        shapes = [f"{each.name} {_shape(each.A)}" for each in self]
        if is_chain(self.net):
            return [f"  X {self._layers[0].A.shape} → {' → '.join(shapes)} = Ŷ"]
        inputs = [f"  {name} {(*shape, self.m)}" for name, shape in self.net.inputs.items()]
        ends = [f"  {name} = {label}" for name, label in self.net.ends.items()]
        return inputs + [f"  {', '.join(e.sources)} → {s}" for e, s in zip(self, shapes, strict=True)] + ends

    def _cost_line(self) -> str:
        losses = " + ".join("L" if len(self.loss) == 1 else f"L[{name}]" for name in self.loss)
        mean = f"(1/m) Σ {losses}" if len(self.loss) == 1 else f"(1/m) Σ ({losses})"
        rules = ", ".join(dict.fromkeys(repr(rule) for *_, rule in self.net.penalties))
        penalty = f" + {self.penalty:.6g} of {rules}" if rules else ""
        return f"J = {mean}{penalty} = {self.cost:.6g}"

    def _backward_values(self, each: Traced) -> list[str]:
        """What the backward half shows of a layer: not dA where the layer or loss behind it has just shown it."""
        names = list(each.values)
        if each.index == 0:
            return [name for name in names if name[0] == "d" and each.equations[name].startswith(("sum of", "0:"))]
        sums = each.equations.get("dA", "").startswith(("sum of", "0:"))
        later = [name for name in names[names.index("dA") :] if name != "dA" or sums]
        return [name for name in later if name != "dA_prev"] + ["dA_prev"] * ("dA_prev" in names)

    def norms(self) -> list[Norms]:
        """How large each layer's values are, from the first layer to the last, and which units no longer learn."""
        return [self._norms(each, step) for each, step in zip(self, self.net.steps, strict=True)]

    def _norms(self, each: Traced, step: Step) -> Norms:
        def typical(value: Any) -> float:
            parts = value if isinstance(value, tuple) else (value,)
            return float(np.sqrt(sum(np.square(A, dtype=np.float64).sum() for A in parts) / self.m))

        W = dW = ratio = None
        if step.name in self.parameters:
            W, dW = _norm(self.parameters[step.name]), _norm(self.grads[step.name])
            ratio = dW / W if W else None
        return Norms(each.name, typical(each.A), typical(each.dA), W, dW, ratio, *self._flat(each))

    def _flat(self, each: Traced) -> tuple[float | None, float | None]:
        g = each.layer if isinstance(each.layer, Activation) else getattr(each.layer, "activation", None)
        if not isinstance(g, Activation) or isinstance(g, Identity) or type(g).derivative is Activation.derivative:
            return None, None
        Z = each.A_prev if g is each.layer else each.values.get("Z")
        if Z is None:
            return None, None
        slope = np.abs(self.net.ops.to_numpy(g.derivative(self.net.ops, each.A if g.keeps == "A" else Z)))
        of_unit = slope.reshape(len(slope), -1).max(axis=1)
        largest = LARGEST_SLOPE.get(g.registered_name)
        return float((of_unit == 0).mean()), largest and float((slope < SATURATED * largest).mean())

    def _norms_table(self) -> list[str]:
        rows = []
        for each, name in zip(self.norms(), map(str, [e.name for e in self]), strict=True):
            percent = ["–" if part is None else f"{part:.0%}" for part in (each.dead, each.saturated)]
            rows.append([name, *map(number, (each.A, each.dA, each.W, each.dW, each.ratio)), *percent])
        return table(["layer", "‖A‖", "‖dA‖", "‖W‖", "‖dW‖", "‖dW‖/‖W‖", "dead", "saturated"], rows)

    def update(self, optimizer: Any) -> Update:
        """What an optimizer's first update would make of the parameters; nothing is changed.

        Arguments:
            optimizer: by name, such as ``"gradient_descent(0.1)"``, or an object.

        Returns:
            ``{"dense_1/W": {"before": W, "gradient": dW, "after": W}, …}``, which prints readably.

        Raises:
            ParameterError: an unknown optimizer.
        """
        net, rule = self.net, optimizers.get(optimizer)
        schedule = rule.schedule
        rate = schedule.rate(0.0, 1.0, schedule.initial_state())

        def given(tree: Tree) -> Tree:
            return tree_map(lambda A: net.ops.asarray(A.copy()), tree)

        slots = {name: given(tree) for name, tree in rule.init(self.parameters).items()}
        params, _ = rule.update(net.ops, given(self.parameters), given(self.grads), slots, learning_rate=rate, t=1)
        after = flatten(tree_map(net.ops.to_numpy, net.projected(params)))
        before, gradient = flatten(self.parameters), flatten(self.grads)
        places: dict[str, str] = {}
        for step in net.steps:
            places.setdefault(step.name, _place(net, step.label))
        titles = {}
        for path in before:
            name, _, leaf = path.partition("/")
            titles[path] = f"{_symbol(_short(leaf, self.parameters[name]))}[{places[name]}]"
        changes = {path: {"before": W, "gradient": gradient[path], "after": after[path]} for path, W in before.items()}
        return Update(changes, rule, rate, titles)

    def document(self) -> dict[str, Any]:
        """Everything as plain values that JSON can hold, arrays as lists."""

        def plain(each: Traced) -> dict[str, Any]:
            return {
                "name": each.name,
                "layer": "Input" if each.layer is None else config(each.layer),
                "sources": list(each.sources),
                "values": {
                    name: {
                        "title": each.titles.get(name, name),
                        "equation": each.equations.get(name),
                        "shape": _map(lambda A: list(A.shape), value),
                        "value": _map(_plain, value),
                    }
                    for name, value in each.values.items()
                },
            }

        return {
            "cost": self.cost,
            "penalty": self.penalty,
            "examples": self.m,
            "train": self.train,
            "layers": [plain(each) for each in self._layers],
            "losses": [plain(each) for each in self.loss.values()],
            "gradients": {path: _plain(leaf) for path, leaf in leaves(self.grads)},
            "norms": [each._asdict() for each in self.norms()],
        }


class Update(dict):
    """One update: ``{"dense_1/W": {"before": W, "gradient": dW, "after": W}, …}``.

    Attributes:
        optimizer: the rule.
        learning_rate: α.
    """

    def __init__(
        self, changes: dict[str, Any], optimizer: Optimizer, learning_rate: float, titles: dict[str, str]
    ) -> None:
        super().__init__(changes)
        self.optimizer, self.learning_rate, self._titles = optimizer, learning_rate, titles

    def __str__(self) -> str:
        return self.show()

    def show(self, *, precision: int = 4, max_items: int = 6) -> str:
        """Each parameter before, its gradient, and after. Arguments as in `Trace.show`."""
        rule = (inspect.getdoc(self.optimizer) or "").partition("\n")[0].rstrip(".")
        lines = [headline("update"), f"  {rule}   with α = {self.learning_rate:g}"]
        for path, change in self.items():
            W = self._titles[path]
            for title, A in zip((W, f"d{W}", f"{W} after the update"), change.values(), strict=True):
                lines.append(f"  {title:<56}  {A.shape}")
                lines += [f"      {row}" for row in matrix(A, precision, max_items, examples=False)]
        return "\n".join(lines)


class _Writer:
    """Writes the equations of a trace: each name with its layer's number in brackets, or its name in a graph."""

    def __init__(self, net: Network, t: Trace, *, weighted: bool) -> None:
        self.net, self.t, self.weighted = net, t, weighted
        self.readers = Counter(source for step in net.steps for source in step.sources)

    def write(self) -> None:
        for name in self.net.losses:
            self.write_loss(name)
        for step in reversed(self.net.steps):
            self.write_layer(step, self.t[step.label])
        traced, single = self.t[0], len(self.net.inputs) == 1
        for name in self.net.inputs:
            own = "" if single else f"_{name}"
            traced.titles |= {f"A{own}": f"A[{self.place(name)}]", f"dA{own}": f"dA[{self.place(name)}]"}
            traced.equations |= {f"A{own}": "X" + own.replace("_", "[", 1) + "]" * bool(own)}
            traced.equations |= {f"dA{own}": self.gradient_of(name)}

    def place(self, label: str) -> str:
        return _place(self.net, label)

    def write_loss(self, name: str) -> None:
        traced, loss, share = self.t.loss[name], self.net.losses[name], self.net.loss_weights[name]
        place, own = self.place(self.net.ends[name]), "" if len(self.net.losses) == 1 else f"[{name}]"
        factors = [f"{share:g}"] * (share != 1.0) + ["w"] * self.weighted
        factors += ["w_class"] * (getattr(loss, "class_weight", None) is not None)
        target = "Y_smooth" if getattr(loss, "label_smoothing", 0) else "Y"
        for value, formula in loss.equations().items():
            right = re.sub(r"(?<![A-Za-z])Y(?![A-Za-z])", target + own, formula)
            right = re.sub(r"(?<![A-Za-z])A(?![A-Za-z])", f"A[{place}]", right)
            traced.equations[value] = f"{' '.join(factors)} ({right})" if factors else right
        traced.titles |= {"Y": f"Y{own}", "L": f"L{own}", "dA": f"dA[{place}]"}

    def write_layer(self, step: Step, traced: Traced) -> None:
        symbols = {_symbol(name) for name in traced.values} | set(traced.values)
        names = "|".join(map(re.escape, sorted(symbols, key=len, reverse=True)))
        token = re.compile(rf"(?<![A-Za-z_])({names})(?![A-Za-z_(])")
        formulas = step.layer.equations(train=self.t.train)
        for name in traced.values:
            traced.titles[name] = self.title(step, name)
            if name.endswith("_penalty"):
                traced.equations[name] = self.penalty(step, name)
            elif name.endswith("_total"):
                traced.equations[name] = self.total(step, name, traced)
            elif name in formulas:
                traced.equations[name] = token.sub(lambda found: self.title(step, found[1]), formulas[name])
        if any(self.paths(source) > 1 for source in step.sources):
            traced.titles["dA_prev"] += f" through {step.label}"
        if len(step.outputs) == 1:
            traced.equations["dA"] = self.gradient_of(step.label)

    def title(self, step: Step, name: str) -> str:
        labels = {"A_prev": step.sources, "dA_prev": step.sources, "A": step.outputs, "dA": step.outputs}
        symbol = _symbol(name.removesuffix("_prev"))
        return ", ".join(f"{symbol}[{self.place(label)}]" for label in labels.get(name, (step.label,)))

    def paths(self, label: str) -> int:
        return self.readers[label] + list(self.net.ends.values()).count(label)

    def gradient_of(self, label: str) -> str:
        """The right side of dA: from the layer or loss that reads A, or the sum over the paths."""
        readers = [step.label for step in self.net.steps for source in step.sources if source == label]
        ends = [name for name, end in self.net.ends.items() if end == label]
        if len(readers) == 1 and not ends:
            return self.t[readers[0]].equations.get("dA_prev", f"dA_prev of {readers[0]}")
        if len(ends) == 1 and not readers:
            return self.t.loss[ends[0]].equations.get("dA", "the gradient of the loss")
        losses = [f"the loss of {name}" if len(self.net.ends) > 1 else "the loss" for name in ends]
        return (
            f"sum of the gradients through {', '.join(readers + losses)}" if readers or ends else "0: nothing reads it"
        )

    def penalty(self, step: Step, name: str) -> str:
        W = name.removesuffix("_penalty").removeprefix("d")
        params = self.net.parameters[step.name]
        rules = {_short(path, params): rule for owner, path, rule in self.net.penalties if owner == step.name}
        return f"gradient of {rules[W]!r}"

    def total(self, step: Step, name: str, traced: Traced) -> str:
        dW = name.removesuffix("_total")
        parts = [self.title(each, dW) for each in self.net.steps if each.name == step.name]
        return " + ".join(parts + [self.title(step, f"{dW}_penalty")] * (f"{dW}_penalty" in traced.values))


def _values(
    net: Network, step: Step, made: tuple[Any, Any, Any], returned: tuple[Any, Any, Tree], train: bool
) -> tuple[dict[str, Any], list[str]]:
    """One layer's values by name in the order they are made, and which of them have no example axis."""
    (A_prev, A, cache), (dA, dA_prev, own) = made, returned
    params, state = net.parameters.get(step.name, {}), net.state.get(step.name, {})
    between = step.layer.intermediates(net.ops, params, cache, dA)
    state = {_short(path, state): each for path, each in leaves(state)}
    if not train:
        between = {**state, **between}
    weights = {_short(path, params): leaf for path, leaf in leaves(params)}
    penalties = {
        path: rule.gradient(net.ops.xp, at(params, path))
        for owner, path, rule in net.penalties
        if owner == step.name and type(rule).gradient is not Regularizer.gradient
    }
    gradients = {}
    for path, leaf in leaves(own):
        dW = f"d{_short(path, params)}"
        gradients[dW] = leaf
        if path in penalties:
            gradients[f"{dW}_penalty"] = penalties[path]
    shares = [name for name in between if "_steps" in name]  # of each step in dW
    backward = {
        name: value for name, value in between.items() if name[0] == "d" and (name[1:] in between or name[1].isupper())
    }
    forward = {name: value for name, value in between.items() if name not in backward}
    values = {**weights, "A_prev": A_prev, **forward, "A": A, "dA": dA, **backward, **gradients, "dA_prev": dA_prev}
    return values, [*weights, *gradients, *state, *shares]


def _with_totals(values: dict[str, Any], totals: Tree, *, shared: bool) -> dict[str, Any]:
    """The values with ``dW_total`` after each dW that is not all of the gradient."""
    complete: dict[str, Any] = {}
    for name, value in values.items():
        complete[name] = value
        dW = name.removesuffix("_penalty")
        for path, total in leaves(totals):
            if f"d{_short(path, totals)}" == dW and (name != dW or (shared and f"{dW}_penalty" not in values)):
                complete[f"{dW}_total"] = total
    return complete


def _forward_values(each: Traced) -> list[str]:
    names = list(each.values)
    return [name for name in names[: names.index("dA")] if name != "A_prev"]


def is_chain(net: Network) -> bool:
    """Each step reads the one before it and nothing else, and the last is the only output."""
    labels = [*net.inputs, *(step.label for step in net.steps)]
    return list(net.ends.values()) == labels[-1:] and all(
        step.sources == (before,) and step.outputs == (step.label,)
        for step, before in zip(net.steps, labels, strict=False)
    )


def _place(net: Network, label: str) -> str:
    """What stands in the brackets of A[…]: the layer's number in a chain, its name in a graph."""
    if not is_chain(net):
        return label
    return next((str(index) for index, step in enumerate(net.steps, 1) if step.label == label), "0")


def _short(path: str, params: Tree) -> str:
    """A parameter's name within its layer: ``g/a`` is ``a`` where no other is; of a member ``W_conv2d_1``."""
    member, _, rest = path.partition("/")
    if rest and all(isinstance(own, dict) for own in params.values()):
        return f"{_short(rest, params[member])}_{member}"
    last = path.rsplit("/", 1)[-1]
    alone = sum(other.rsplit("/", 1)[-1] == last for other, _ in leaves(params)) <= 1
    return last if alone else path.replace("/", "_")


def _symbol(name: str) -> str:
    d, base = ("d", name[1:]) if name[0] == "d" and name[1:].split("_")[0] in SYMBOLS else ("", name)
    first, *rest = base.split("_", 1)
    return d + "_".join([SYMBOLS.get(first, first), *rest])


def _map(function: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(None if each is None else function(each) for each in value)
    return None if value is None else function(value)


def _shape(value: Any) -> str:
    return " ".join(str(A.shape) for A in value) if isinstance(value, tuple) else str(value.shape)


def _call(loss: Loss) -> str:
    described = config(loss)
    arguments = {} if isinstance(described, str) else {k: v for k, v in described.items() if k != "type"}
    return f"{type(loss).__name__}({', '.join(f'{k}={v!r}' for k, v in arguments.items())})"


def _plain(A: np.ndarray) -> Any:
    return A.tolist()


def _norm(tree: Tree) -> float:
    return float(np.sqrt(sum(np.square(leaf, dtype=np.float64).sum() for _, leaf in leaves(tree))))
