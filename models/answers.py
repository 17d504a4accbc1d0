"""What a teacher's outputs are: logits, probabilities, class numbers, or one channel for two classes.

Distillation, metrics and bundles take logits, one channel per class. Probabilities are turned back (a softmax's by the logarithm,
a sigmoid's by the logit: both give the same classes and probabilities again), one channel becomes the two classes of a binary
map, and class numbers are refused, as nothing can be learned of how sure the network was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rsedge.data.boxes.candidates import BESIDE, BOX, width_of
from rsedge.data.errors import RequestError

LEAST = 1e-12
"""Smallest probability of a softmax that the logarithm sees."""
LEAST_SIGMOID = 1e-7
"""Distance from 0 and 1 that a sigmoid's probability keeps: float32 holds no less beside 1."""
BACKGROUND = "background"
DENSE = 4
"""Axes of maps: (N, C, H, W)."""
_SUM_SLACK = 1e-3
HALF_SLACK = 0.02
"""Of sums of half-precision probabilities."""
_LEAST_SCALED = 90.0
Inside = Literal["logits", "softmax", "sigmoid"]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Answer:
    """How raw outputs become logits of every class.

    Attributes:
        inside: the last function of the network: ``logits`` for none.
        binary: one channel z stands for two classes, whose logits are 0 and z: the second wins where sigmoid(z) > 0.5.
    """

    inside: Inside = "logits"
    binary: bool = False

    @property
    def changes(self) -> bool:
        return self.binary or self.inside != "logits"

    def logits(self, raw: Tensor) -> Tensor:
        """Raw outputs (N, C, ...) as logits (N, K, ...)."""
        if self.inside != "logits" and raw.element_size() < 4:
            raw = raw.float()  # Under autocast bfloat16 rounds the bounds below to 0 and 1.
        if self.inside == "softmax":
            raw = raw.clamp(min=LEAST).log()
        if self.inside == "sigmoid":
            shares = raw.clamp(LEAST_SIGMOID, 1 - LEAST_SIGMOID)
            raw = shares.log() - (1 - shares).log()
        return torch.cat([torch.zeros_like(raw), raw], 1) if self.binary else raw


class Answering(nn.Module):
    """A network whose outputs come out as logits of every class."""

    def __init__(self, net: nn.Module, answer: Answer) -> None:
        super().__init__()
        self.net, self.answer = net, answer

    def forward(self, x: Tensor) -> Tensor:
        return self.answer.logits(self.net(x))


def last_function(net: nn.Module) -> Inside:
    """What a network's last module is; ``logits`` where it is neither a softmax nor a sigmoid."""
    modules = [m for m in net.modules() if not list(m.children())]
    last = next((m for m in reversed(modules) if not isinstance(m, nn.Identity | nn.Dropout | nn.Flatten)), None)
    if isinstance(last, nn.Softmax | nn.Softmax2d):
        return "softmax"
    return "sigmoid" if isinstance(last, nn.Sigmoid) else "logits"


def seen_in(values: Floats, name: str) -> Inside:
    """What the values of outputs (N, C, ...) say they are.

    Raises:
        RequestError: class numbers, as of an ArgMax; probabilities in percent or bytes, or that add up over another axis than the
            classes'; or values that are not finite.
    """
    if not np.isfinite(values).all():
        raise RequestError(f"'{name}' gives NaN or infinity; its weights are broken or its input is not the contract's")
    if (top := _scaled_to(values)) is not None:
        raise RequestError(
            f"'{name}' gives probabilities times about {top:.0f} (that is what the classes add up to everywhere); export it "
            "without that factor, or better without its softmax"
        )
    if bool((values == 1).all()):
        raise RequestError(
            f"'{name}' gives 1 everywhere, as a softmax over one channel does; export it without its softmax"
        )
    _check_axis(values, name)
    whole = bool((values == np.round(values)).all())
    if whole and values.max() > 0 and values.min() >= 0:
        raise RequestError(class_numbers(name))
    if values.min() < 0 or values.max() > 1 or values.min() == values.max():
        return "logits"
    if over_classes(values):
        return "softmax"
    # A few logits may lie between 0 and 1 by chance; those of all pixels of several images do not.
    return "sigmoid" if values.ndim == DENSE else "logits"


def over_classes(values: Floats, slack: float = _SUM_SLACK) -> bool:
    """Whether outputs (N, C, ...) add up to 1 over several classes."""
    return values.shape[1] > 1 and _adds_up(values, (1,), slack)


def _adds_up(values: Floats, axes: tuple[int, ...], slack: float = _SUM_SLACK) -> bool:
    return bool((np.abs(values.sum(axes) - 1) < slack).all())


def _check_axis(values: Floats, name: str) -> None:
    """Raises:
    RequestError: a softmax (or its logarithm) goes over images, rows, columns or places instead of classes.
    """
    if values.min() == values.max() or (values.min() < 0 and values.max() > 0):
        return
    shares = values if values.min() >= 0 else np.exp(values)
    if _adds_up(shares, (1,), HALF_SLACK):
        return
    ways = {"images": (0,)} if values.ndim != DENSE else {
        "images": (0,), "rows": (2,), "columns": (3,), "places": (2, 3), "classes and places alike": (1, 2, 3),
    }  # fmt: skip
    for what, axes in ways.items():
        if math.prod(values.shape[a] for a in axes) > 1 and _adds_up(shares, axes):
            raise RequestError(
                f"'{name}' gives probabilities that add up to 1 over {what}, not over classes: its softmax goes over another axis; "
                "export it with the softmax over axis 1, or better without it"
            )


def _scaled_to(values: Floats) -> float | None:
    """What probabilities are multiplied with, by what they add up to over the channels; None where they are not."""
    if values.ndim != DENSE or values.shape[1] < 2 or values.min() < 0:
        return None
    total, channels = values.sum(1), values.shape[1]
    top = float(np.median(total))
    # Bytes are rounded or cut, each by one at most.
    slack = float(channels) if (values == np.round(values)).all() else _SUM_SLACK * top
    return top if top > _LEAST_SCALED and bool((np.abs(total - top) <= slack).all()) else None


def check_logits(values: Floats, name: str) -> None:
    """Holds a teacher's outputs (N, K, ...) on real inputs against what distillation takes them for.

    Raises:
        RequestError: they are probabilities, class numbers, or not finite.
    """
    found = seen_in(values, name)
    if found != "logits":
        raise RequestError(
            f"'{name}' gives probabilities on the data (as of a {found}), where logits are learned from; export it without its "
            f"last {found}"
        )


def check_candidates(values: Floats, name: str, classes: int, oriented: bool = False) -> None:
    """Holds a detector's candidates (N, A, 5 + K), of turned boxes (N, A, 5 + K + 2), on real inputs against their form.

    Raises:
        RequestError: they are not finite, objectness and class scores lie outside 0 to 1, or boxes are turned where they shall not
            be or the other way round.
    """
    if not np.isfinite(values).all():
        raise RequestError(f"'{name}' gives NaN or infinity; its weights are broken or its input is not the contract's")
    if values.shape[-1] == width_of(classes, not oriented):
        gives, fix = ("no angles", "leave it out") if oriented else ("turned boxes", "set it")
        raise RequestError(
            f"boxes.oriented: '{name}' gives {gives} ({values.shape[-1]} columns of {classes} classes); {fix}"
        )
    scores = values[..., BOX : BESIDE + classes]
    if scores.size and (scores.min() < -_SUM_SLACK or scores.max() > 1 + _SUM_SLACK):
        raise RequestError(
            f"'{name}' gives objectness and class scores of {scores.min():.3g} to {scores.max():.3g} on the data; candidates take "
            "them from 0 to 1: export it behind its sigmoid"
        )


def class_numbers(name: str, before: str = "") -> str:
    """The refusal of a network that gives class numbers; ``before`` names the output ahead of its ArgMax."""
    fix = f"take the output before it: {before}" if before else "export it without its last ArgMax"
    return f"'{name}' gives class numbers (ArgMax inside), of which no student learns how sure it was; {fix}"


def named_classes(classes: tuple[str, ...], answer: Answer, name: str) -> tuple[str, ...]:
    """Names of all classes; where one channel stands for two, :data:`BACKGROUND` goes before a single name.

    Raises:
        RequestError: more than two names for one channel.
    """
    if not answer.binary or len(classes) == 2:
        return classes
    if len(classes) == 1:
        return (BACKGROUND, *classes)
    raise RequestError(
        f"'{name}' gives one channel, a binary map, but {len(classes)} classes are named; name the class it finds, or both with "
        "what is left first, e.g. classes: [land, water]"
    )
