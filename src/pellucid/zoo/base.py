"""What an entry of the zoo is: a network with its source, its deviations from it, and the recipe it is trained by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pellucid.network.base import Network


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters of training that go with a network, unless the user says otherwise.

    Arguments:
        optimizer: by name with its arguments.
        batch_size: examples per update.
        epochs: at most.
        patience: of early stopping on validation loss, in epochs; None trains to the last epoch.
    """

    optimizer: str = "adam(1e-3)"
    batch_size: int = 64
    epochs: int = 30
    patience: int | None = 5

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
        build: ``build(input_shape, outputs, *, loss, seed, engine, dtype, **hyperparameters) -> Network``.
        source: the paper it follows.
        deviations: everything that differs from the paper.
        recipe: how it is trained.
    """

    name: str
    title: str
    build: Callable[..., Network]
    source: str
    deviations: tuple[str, ...] = ()
    recipe: Recipe = field(default_factory=Recipe)

    def document(self) -> dict[str, Any]:
        """The entry as plain values."""
        return {
            "name": self.name,
            "title": self.title,
            "source": self.source,
            "deviations": list(self.deviations),
            "recipe": vars(self.recipe),
        }
