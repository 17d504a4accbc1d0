"""What a student is trained by: the losses of its outputs beside the teacher's, and what labels add.

Distillation, pruning and training under rounding share it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rsedge.compress.distill.label_losses import label_loss
from rsedge.compress.distill.loss_table import LOSSES, OWN, LogitLoss
from rsedge.compress.distill.losses import Given, LossChoice, boxes, cosine, dist, dkd, kl, mse
from rsedge.compress.distill.map_losses import attention, cwd, relations, structure
from rsedge.compress.distill.statistics import OutputStatistics
from rsedge.compress.distill.taps import MAP_AXES
from rsedge.compress.distill.vector_losses import contrastive, rkd

FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "kl": kl,
    "dkd": dkd,
    "dist": dist,
    "cwd": cwd,
    "structure": structure,
    "mse": mse,
    "cosine": cosine,
    "attention": attention,
    "relations": relations,
    "rkd": rkd,
    "contrastive": contrastive,
    "boxes": boxes,
}
"""The losses of :data:`.loss_table.LOSSES`: ``(student, teacher, given, **options)``, both sides float32."""


def loss_of(choice: LossChoice, student: Tensor, teacher: Tensor, given: Given, shared: Mapping[str, float]) -> Tensor:
    """One loss, times its weight.

    Args:
        shared: options that the whole section has (``temperature``, ``balance``); the choice's own stand above them.
    """
    row = LOSSES[choice.name]
    options = {k: choice.options.get(k, shared.get(k, default)) for k, default in row.options.items()}
    return choice.weight * FUNCTIONS[choice.name](student.float(), teacher.float(), given, **options)


def scaled(choice: LossChoice, kind: LogitLoss | None, axes: int, balance: float = 0.0) -> bool:
    """Whether a loss of outputs of so many axes, or (None) of a tap, is scaled by what the teacher gives over the training set."""
    if choice.name == "kl":
        return kind == "classes" and axes == MAP_AXES and choice.options.get("balance", balance) > 0
    return choice.name == "mse"


@dataclass(frozen=True)
class Objective:
    """The loss of one output.

    Attributes:
        kind: what the outputs are.
        losses: added up; none: those that the kind has.
        temperature, balance: of losses that have such options and do not say otherwise.
        labels: share of the loss that labels make up.
    """

    kind: LogitLoss
    losses: Sequence[LossChoice] = ()
    temperature: float = 1.0
    balance: float = 0.0
    labels: float = 0.0

    @property
    def chosen(self) -> Sequence[LossChoice]:
        return self.losses or tuple(LossChoice(name) for name in OWN[self.kind])

    def scaled(self, axes: int) -> bool:
        """Whether it needs the teacher's statistics, of outputs of so many axes."""
        by_labels = self.labels > 0 and self.kind in ("values", "image")
        return by_labels or any(scaled(choice, self.kind, axes, self.balance) for choice in self.chosen)

    def __call__(
        self,
        found: Tensor,
        teacher: Tensor,
        labels: Tensor | None = None,
        statistics: OutputStatistics | None = None,
        grid: Tensor | None = None,
    ) -> Tensor:
        """The loss of a batch.

        Args:
            found, teacher: outputs, views first.
            labels: what is known of the views (:func:`.label_losses.label_loss`), where the objective has a share for them.
            statistics: of the teacher's output, where it is :meth:`scaled`.
            grid: a detector's cells.
        """
        given = Given(self.kind, statistics, grid)
        shared = {"temperature": self.temperature, "balance": self.balance}
        loss = torch.stack([loss_of(choice, found, teacher, given, shared) for choice in self.chosen]).sum()
        if not self.labels:
            return loss
        assert labels is not None
        return (1 - self.labels) * loss + self.labels * label_loss(found, labels, given)
