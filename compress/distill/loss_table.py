"""The losses and connectors that recipes name: one row each, with what it fits, its options and where it is from. Imports no torch.

``steps.distill.loss`` adds losses of the outputs, ``steps.distill.taps`` pairs features, each by a loss and a connector of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from rsedge.data.document_check import nearest

LogitLoss = Literal["classes", "labels", "values", "embedding", "boxes", "image", "outputs"]
"""What outputs are, which says by which losses they can be learned."""
Shape = Literal["any", "places", "vectors"]


@dataclass(frozen=True)
class LossRow:
    """A loss.

    Attributes:
        outputs: kinds of outputs that it takes; none: it is of taps alone.
        taps: whether it compares features.
        shape: what it takes: ``places`` are maps and lines, ``vectors`` have none.
        aligned: whether channels are compared one by one; else the two sides may have other numbers of them.
        options: with their defaults. ``temperature`` and ``balance`` are the section's where they are not given.
        words: for people.
        source: the paper.
    """

    outputs: tuple[LogitLoss, ...]
    taps: bool
    words: str
    source: str
    shape: Shape = "any"
    aligned: bool = True
    options: Mapping[str, float] = field(default_factory=dict)


DIVISORS = ("temperature", "tau")
"""Options by which something is divided: above 0."""

LOSSES: dict[str, LossRow] = {
    "kl": LossRow(
        ("classes", "labels"), False, "softened distributions, yes or no for each of several labels",
        "Hinton, Vinyals & Dean 2015", options={"temperature": 1.0, "balance": 0.25},
    ),
    "dkd": LossRow(
        ("classes",), False, "the teacher's first class apart from the order of the others", "Zhao et al. 2022",
        options={"temperature": 1.0, "alpha": 1.0, "beta": 8.0},
    ),
    "dist": LossRow(
        ("classes",), False, "correlation of classes within an answer, and of answers within a class",
        "Huang et al. 2022", options={"temperature": 1.0, "beta": 1.0, "gamma": 1.0},
    ),
    "cwd": LossRow(
        ("classes", "image"), True, "where each channel looks: distributions over places", "Shu et al. 2021",
        "places", options={"tau": 4.0},
    ),
    "structure": LossRow(
        ("classes", "image"), True, "likeness of each part of the map to each other", "Liu et al. 2019",
        "places", aligned=False, options={"nodes": 8.0},
    ),
    "mse": LossRow(
        ("values", "embedding", "image", "outputs"), True,
        "squared distance, in the teacher's deviations over the training set", "Romero et al. 2015",
    ),
    "cosine": LossRow(("embedding",), True, "angle between vectors, at every place", "Sanh et al. 2019"),
    "attention": LossRow(
        (), True, "where activations are large", "Zagoruyko & Komodakis 2017", "places", aligned=False
    ),
    "relations": LossRow(
        (), True, "which tokens or places each one is like", "Wang et al. 2021", "places", aligned=False
    ),
    "rkd": LossRow(
        ("embedding",), True, "distances and angles between the vectors of a batch", "Park et al. 2019",
        "vectors", aligned=False, options={"distance": 1.0, "angle": 2.0},
    ),
    "contrastive": LossRow(
        ("embedding",), True, "each vector nearer to its teacher's than to those of other inputs",
        "van den Oord et al. 2018; Tian et al. 2020", "vectors", options={"tau": 0.07},
    ),
    "boxes": LossRow(
        ("boxes",), False, "boxes assigned to the student's own cells; turned ones by their Gaussians",
        "Ge et al. 2021; Mehta & Ozturk 2018; Llerena et al. 2021",
    ),
}  # fmt: skip
OWN: dict[LogitLoss, tuple[str, ...]] = {
    "classes": ("kl",),
    "labels": ("kl",),
    "values": ("mse",),
    "embedding": ("cosine", "mse"),
    "boxes": ("boxes",),
    "image": ("mse",),
    "outputs": ("mse",),
}
"""Losses of outputs where none is named."""

CONNECTORS: dict[str, str] = {
    "linear": "the student's channels become the teacher's by one matrix; maps meet on the teacher's grid, other pairs as means",
    "mlp": "two matrices and an activation between them in place of one",
    "masked": "half of the places are hidden, and two 3x3 convolutions give the teacher's there (Yang et al. 2022)",
    "pooled": "means over all places, and one matrix",
    "none": "as they are, on the teacher's grid; for losses that do not compare channel by channel, or equal channels",
}


def problem(name: str, options: Mapping[str, float], kind: LogitLoss | None = None) -> str | None:
    """What is wrong with a loss of these options, of outputs of a kind or (None) of a tap; None where nothing is."""
    wrong = unknown(name, options)
    if wrong is None and name not in fitting(kind):
        what = "a tap" if kind is None else f"outputs that are {kind}"
        wrong = f"{name} is no loss of {what}; those are {', '.join(fitting(kind))}"
    return wrong


def unknown(name: str, options: Mapping[str, float]) -> str | None:
    """What is wrong with a name and its options alone; None where nothing is."""
    row = LOSSES.get(name)
    if row is None:
        return f"'{name}' is no loss{nearest(name, list(LOSSES))}; there are {', '.join(LOSSES)}"
    for option, value in options.items():
        if option not in row.options:
            has = f"has {', '.join(row.options)}" if row.options else "has none"
            return f"'{option}' is no option of {name}{nearest(option, list(row.options))}; it {has}"
        if value < 0 or (value == 0 and option in (*DIVISORS, "nodes")):
            return f"{name}: {option} is {value:g}; it must be {'above' if option in (*DIVISORS, 'nodes') else 'at least'} 0"
    return None


def fitting(kind: LogitLoss | None) -> list[str]:
    """Losses of outputs of a kind, or (None) of taps."""
    return [name for name, row in LOSSES.items() if (row.taps if kind is None else kind in row.outputs)]
