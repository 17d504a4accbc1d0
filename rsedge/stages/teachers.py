"""Other teachers beside the one that the student is judged against, and what is learned of all of them together.

Where outputs mean the same (the same classes, labels, values), the student learns their weighted mean: of classes the mixture of
the teachers' distributions, whose divergence has the gradient of the weighted sum of every teacher's own. Embeddings of two
networks have no axis in common; each other teacher is tapped instead, by a connector of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rsedge.compress.distill.teacher_outputs import TeacherFunction
from rsedge.data.contract_view import ContractView
from rsedge.data.errors import RequestError
from rsedge.data.metrics.samples import Kind
from rsedge.models.teachers import Teacher

Images = npt.NDArray[np.float32]
FIRST_OTHER = 2
"""Number of the first of the other teachers: `2:output` is what it gives."""
OUTPUT = "output"
LEAST = 1e-12


@dataclass(frozen=True)
class Other:
    """A teacher beside the first.

    Attributes:
        number: from :data:`FIRST_OTHER` on.
        weight: beside the first's, which is 1.
        order: by class of the first teacher, the number of this one's.
        view: what it sees of the data.
        run: normalised inputs -> ``logits`` and its tapped features.
        tapped: whether its output is tapped too.
    """

    number: int
    teacher: Teacher
    weight: float
    order: tuple[int, ...]
    view: ContractView
    run: TeacherFunction
    tapped: bool = False

    def outputs(self, dn: npt.NDArray[np.generic]) -> dict[str, Images]:
        """On the data (N, ...): ``logits`` in the first teacher's order, and every tensor by its name in taps, ``2:...``."""
        found = self.run(self.view.target.normalise(self.view(dn)))
        logits = found.pop("logits")
        ordered = logits[:, list(self.order)] if self.order else logits
        own = {OUTPUT: logits, **found} if self.tapped else found
        return {"logits": ordered} | {f"{self.number}:{name}": values for name, values in own.items()}


def _distributions(shares: Sequence[float], logits: Sequence[Images]) -> Images:
    """Classes along axis 1."""
    total: npt.NDArray[np.float64] = np.zeros(logits[0].shape)
    for share, values in zip(shares, logits, strict=True):
        lifted = np.exp(values.astype(np.float64) - values.max(1, keepdims=True))
        total += share * lifted / lifted.sum(1, keepdims=True)
    return np.log(np.maximum(total, LEAST)).astype(np.float32)


def _labels(shares: Sequence[float], logits: Sequence[Images]) -> Images:
    pairs = zip(shares, logits, strict=True)
    p = np.clip(sum(s / (1 + np.exp(-v.astype(np.float64))) for s, v in pairs), LEAST, 1 - LEAST)
    return np.asarray(np.log(p / (1 - p)), dtype=np.float32)


def _means(shares: Sequence[float], logits: Sequence[Images]) -> Images:
    return np.asarray(sum(s * v for s, v in zip(shares, logits, strict=True)), dtype=np.float32)


def _first(shares: Sequence[float], logits: Sequence[Images]) -> Images:
    return logits[0]


TOGETHER: Mapping[Kind, Callable[[Sequence[float], Sequence[Images]], Images]] = {
    "classes": _distributions, "labels": _labels, "values": _means, "image": _means, "embedding": _first,
}  # fmt: skip
"""What is learned of the teachers' outputs, by their kind; boxes of several teachers have no mean."""


def together(
    kind: Kind, first: dict[str, Images], others: Sequence[Other], dn: npt.NDArray[np.generic]
) -> dict[str, Images]:
    """The first teacher's outputs with those of the others: ``logits`` of all, tapped tensors each by its name."""
    if not others:
        return first
    given = [other.outputs(dn) for other in others]
    weights = np.array([1.0, *(other.weight for other in others)])
    logits = TOGETHER[kind](list(weights / weights.sum()), [first["logits"], *(g.pop("logits") for g in given)])
    tapped = {name: values for one in given for name, values in one.items()}
    return {**first, **tapped, "logits": logits}


def own_taps(names: Sequence[str], number: int) -> list[str]:
    """Of the names of tapped tensors those of one teacher, as it calls them; the first teacher's have no number."""
    if number < FIRST_OTHER:
        return [n for n in names if not n.partition(":")[0].isdigit()]
    return [n.partition(":")[2] for n in names if n.startswith(f"{number}:") and n != f"{number}:{OUTPUT}"]


def order_of(kind: Kind, classes: Sequence[str], other: Teacher, number: int, taps: Sequence[str]) -> tuple[int, ...]:
    """By class of the first teacher, the number of the other's; none for embeddings.

    Raises:
        RequestError: the two give nothing that means the same, and it is not tapped.
    """
    where = f"teachers[{number - FIRST_OTHER}]"
    if kind == "embedding":
        if not any(n.startswith(f"{number}:") for n in taps):
            raise RequestError(
                f"{where}: embeddings of two networks have no axis in common; learn its own by a tap: "
                f"steps.distill.taps: [{{teacher: '{number}:{OUTPUT}', student: ..., loss: cosine}}]"
            )
        return ()
    if kind not in TOGETHER:
        raise RequestError(f"{where}: boxes of several teachers have no mean; name one teacher")
    if sorted(other.spec.classes) != sorted(classes):
        raise RequestError(
            f"{where}: it gives {', '.join(other.spec.classes) or 'no named outputs'}, the teacher {', '.join(classes)}: "
            "they share no meaning; take teachers of the same outputs, or name them alike under classes"
        )
    return tuple(other.spec.classes.index(c) for c in classes)


def check_contract(other: Teacher, first: Teacher, where: str) -> None:
    """
    Raises:
        RequestError: the other does something else, or cannot be shown the same inputs.
    """
    mine, its = first.spec, other.spec
    for what, one, two in (
        ("does", mine.task, its.task), ("gives images on a grid finer by", mine.finer, its.finer),
        ("gives features at a stride of", mine.stride, its.stride),
        *((f"takes inputs of another {name}:", getattr(mine.input_spec, name), getattr(its.input_spec, name))
          for name in ("tile", "layout", "frames", "quantity")),
    ):  # fmt: skip
        if one != two:
            raise RequestError(f"{where}: it {what} {two}, the teacher {one}; both are shown the same views")
