"""Who trains: one process by itself, or several that make each step together (:mod:`.fabric`).

Several share a step's views among them and see its loss as one process sees it: what the student gives is gathered before it is
compared, so that a loss that is defined over a batch has all of the batch. What is measured or judged, one of them finds for all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, TypeVar

from torch import Tensor, nn

Found = TypeVar("Found")
Device = Literal["cpu", "cuda"]
Launcher = Literal["local", "torchrun", "slurm"]


@dataclass(frozen=True)
class Member:
    """A process's place in its group, as whoever started it says.

    Attributes:
        rank, count: of all processes. local_rank, local_count: of those of one machine.
        port: where the leader listens, of a group on this machine alone.
    """

    launcher: Launcher
    rank: int
    count: int
    local_rank: int
    local_count: int
    port: int = 0


class Group:
    """One process by itself; the others' class overrides what is more than that.

    Attributes:
        count: processes of the group.
        rank: which of them this one is.
    """

    count, rank = 1, 0

    @property
    def leads(self) -> bool:
        """Whether this process is the one that measures, judges and writes."""
        return self.rank == 0

    def of_leader(self, find: Callable[[], Found]) -> Found:
        """What ``find`` gives in the process that leads; the others do not call it."""
        return find()

    def net(self, module: nn.Module) -> nn.Module:
        """The module whose gradients are those of the whole step's."""
        return module

    def share(self, count: int) -> slice:
        """Which of a step's ``count`` views are this process's."""
        return slice(0, count)

    def whole(self, values: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
        """Tensors of all views (count, ...) from those of this process's, in the order of the views; gradients go back."""
        return dict(values)

    def norms(self) -> AbstractContextManager[object]:
        """While a network runs within it, batch norms see the whole step."""
        return contextlib.nullcontext()

    def draws(self, seed: int) -> None:
        """Is called between the network and what compares: from here on all processes draw alike."""

    def backward(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def mean_gradients(self, module: nn.Module) -> None:
        """Makes the gradients of what every process works out alike the same to the last bit."""

    def cores(self, threads: int) -> AbstractContextManager[object]:
        """Within it torch takes this process's share of the machine's threads."""
        return contextlib.nullcontext()
