"""What an entry of the zoo is: a network with its source, its deviations from it, and the recipe it is trained by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pellucid.errors import ShapeError
from pellucid.network.base import Network


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters of training that go with a network, unless the user says otherwise.

    Arguments:
        optimizer: by name with its arguments.
        batch_size: examples per update.
        epochs: at most.
        patience: of early stopping on validation loss, in epochs; None trains to the last epoch.
        loss: by name; None is the usual one of the task.
        regularizer: of the weights; None has none.
        augment: changes of the training images, in this order.
        standardize: False for a network that reads pixels from 0 to 1 and numbers as they are.
        truncate: (k1, k2) of truncated back-propagation through time; None goes back to the first step.
    """

    optimizer: str = "adam(1e-3)"
    batch_size: int = 64
    epochs: int = 30
    patience: int | None = 5
    loss: str | None = None
    regularizer: str | None = None
    augment: tuple[str, ...] = ()
    standardize: bool = True
    truncate: tuple[int, int] | None = None

    def batch_for(self, m: int) -> int:
        """Examples per update for m training examples: fewer where there are few, so that an epoch has 16 updates.

        Never one that leaves a single example for the last update, whose statistics would say nothing.
        """
        size = max(2, min(self.batch_size, max(8, m // 16), m))
        while size > 2 and m % size == 1:
            size -= 1
        return size


@dataclass(frozen=True)
class Entry:
    """A network of the zoo.

    Arguments:
        name: as in ``--net name``.
        title: one line.
        build: ``build(input_shape, outputs, *, loss, seed, engine, dtype, precision, **hyperparameters) -> Network``.
        source: the paper it follows.
        deviations: everything that differs from the paper.
        recipe: how it is trained.
        input_shape, outputs: what it is shown and checked for where no data say so.
        task: the kind of task it is made for, where it is made for one.
    """

    name: str
    title: str
    build: Callable[..., Network]
    source: str
    deviations: tuple[str, ...] = ()
    recipe: Recipe = field(default_factory=Recipe)
    input_shape: tuple[int | None, ...] = (1, 28, 28)
    outputs: int = 10
    task: str | None = None

    def example(self, **options: Any) -> Network:
        """The network for ``input_shape`` and ``outputs``, with the loss it is trained by."""
        options = {"loss": self.recipe.loss or "softmax_cross_entropy", **options}
        return self.build(self.input_shape, self.outputs, **options)

    def document(self) -> dict[str, Any]:
        """The entry as plain values."""
        return {
            "name": self.name,
            "title": self.title,
            "source": self.source,
            "deviations": list(self.deviations),
            "recipe": vars(self.recipe),
        }


def as_image(shape: Sequence[int], net: str) -> tuple[int, int, int]:
    """(channels, height, width) of an input, as numbers.

    Raises:
        ShapeError: it is no image, or its axes look swapped.
    """
    given = tuple(shape)
    if len(given) != 3:
        raise ShapeError(
            "reads images",
            where=net,
            expected="(channels, height, width)",
            got=given,
            hint=f"add the channel axis: {(1, *given)}" if len(given) == 2 else "for tables there is --net mlp",
        )
    channels, height, width = given
    if width <= 4 < min(channels, height):
        raise ShapeError(
            "the last axis looks like the channels",
            where=net,
            expected="(channels, height, width)",
            got=given,
            hint=f"channels come first: {(width, channels, height)}; move them by x.transpose(0, 3, 1, 2)",
        )
    return channels, height, width
