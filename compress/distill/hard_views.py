"""Which views a student sees again: those on which it differs most from a teacher that can be relied on there.

A part of each batch is drawn by ``gap * trust`` of the views. The gap is how far student and teacher differed when the student last
saw the view; the trust is how far the teacher's answer on the view is its own on the same view without its change
(:mod:`rsedge.data.scenes.changes`), since where a change turns the teacher itself, its answer there is no more to be learned than
another. Views stay within the bounds that they were drawn from; what changes is how often each is read.

What is drawn from is taken anew every :data:`ROUND` steps and kept with the checkpoint, so that a run that goes on draws the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rsedge.compress.distill.loss_table import LogitLoss
from rsedge.compress.distill.teacher_outputs import AskTeacher, ProgressHook, TeacherOutputs
from rsedge.data.errors import RequestError
from rsedge.data.files import atomic_path

ROUND = 25
"""Steps that draw from the same figures."""
DIFFERING: tuple[LogitLoss, ...] = ("classes", "labels")
"""Kinds of outputs that are probabilities, of which there is a difference from 0 to 1."""
SAVE_EVERY = 32

Gaps = npt.NDArray[np.float32]
Unchanged = Callable[[int], npt.NDArray[np.generic] | None]


@torch.no_grad()
def differences(student: Tensor, teacher: Tensor, kind: LogitLoss) -> Tensor:
    """How far two networks' probabilities lie apart, by sample (N,): 0 alike to 1; total variation of classes (axis 1), mean over
    places, and of labels the mean difference."""
    if kind == "labels":
        apart = (student.float().sigmoid() - teacher.float().sigmoid()).abs()
    else:
        apart = (student.float().softmax(1) - teacher.float().softmax(1)).abs().sum(1) / 2
    return apart.flatten(1).mean(1) if apart.ndim > 1 else apart


class HardViews:
    """Draws views by their gaps; a view that was not seen yet counts as the mean of those that were.

    Args:
        trust: (N,) from 0 to 1; all alike where it is None.
    """

    def __init__(self, count: int, seed: int, trust: Gaps | None = None) -> None:
        self._seed = seed
        self._trust = np.ones(count, np.float32) if trust is None else trust
        self._gap = np.full(count, np.nan, np.float32)
        self._drawn_by = np.ones(count, np.float32)

    @staticmethod
    def begins(step: int) -> bool:
        """Whether a round begins: nothing of it may be drawn before the step before it is done."""
        return step % ROUND == 0

    def begin(self, step: int) -> None:
        """Takes what is drawn from anew, where a round begins."""
        seen = np.isfinite(self._gap)
        if not self.begins(step) or not seen.any():
            return
        self._drawn_by = self._trust * np.where(seen, self._gap, self._gap[seen].mean())

    def learn(self, views: Sequence[int], gaps: Tensor) -> None:
        """Keeps how far student and teacher differed on some views."""
        self._gap[np.asarray(views)] = gaps.detach().cpu().numpy()

    def draw(self, step: int, count: int) -> list[int]:
        """Numbers of ``count`` views, each at most once where so many have any weight."""
        weights = self._drawn_by.astype(np.float64)
        weights = weights / weights.sum() if weights.sum() > 0 else np.full(len(weights), 1 / len(weights))
        rng = np.random.default_rng([self._seed, 4, step])
        again = int((weights > 0).sum()) < count
        return [int(i) for i in rng.choice(len(weights), size=count, replace=again, p=weights)]

    def tensors(self) -> dict[str, Tensor]:
        """For the checkpoint."""
        return {"gap": torch.from_numpy(self._gap.copy()), "drawn_by": torch.from_numpy(self._drawn_by.copy())}

    def load(self, kept: Mapping[str, Tensor]) -> None:
        self._gap, self._drawn_by = kept["gap"].numpy().copy(), kept["drawn_by"].numpy().copy()


def hard_count(share: float, batch: int) -> int:
    """How many views of a batch are hard ones: at least one where any are asked for, and one comes in turn."""
    return min(max(1, round(share * batch)), batch - 1) if share else 0


def check_hard_views(share: float, kind: LogitLoss, batch: int) -> None:
    """
    Raises:
        RequestError: views are to be drawn by differences of outputs that have none from 0 to 1, or batches have no room for them.
    """
    if share and batch < 2:
        raise RequestError(
            f"steps.distill.hard_views: a batch of {batch} has no room for a hard view beside one that comes in turn; give "
            "steps.distill.batch: 2 or more, or leave hard_views out"
        )
    if share and kind not in DIFFERING:
        raise RequestError(
            f"steps.distill.hard_views: views are drawn by how far probabilities differ, these outputs are '{kind}'; leave it out"
        )


def trust_of(
    source: TeacherOutputs,
    unchanged: Unchanged,
    teacher: AskTeacher,
    kind: LogitLoss,
    file: Path,
    key: str,
    progress: ProgressHook | None = None,
) -> Gaps:
    """How far the teacher agrees with itself on each view (N,), 0 to 1; 1 where ``unchanged`` says that nothing was changed.

    Kept in ``file`` as it goes, under ``key``, which names views and teacher.
    """
    found = _kept(file, key, source.count)
    file.parent.mkdir(parents=True, exist_ok=True)
    for i in np.flatnonzero(np.isnan(found)).tolist():
        found[i] = _agreement(i, source, unchanged, teacher, kind)
        if (i + 1) % SAVE_EVERY == 0 or i + 1 == source.count:
            with atomic_path(file) as path, path.open("wb") as f:
                np.savez(f, key=np.array(key), trust=found)
        if progress:
            progress(i + 1, source.count)
    return found


def _agreement(view: int, source: TeacherOutputs, unchanged: Unchanged, teacher: AskTeacher, kind: LogitLoss) -> float:
    dn = unchanged(view)
    if dn is None:
        return 1.0
    plain = torch.from_numpy(teacher(dn[None])["logits"])
    changed = torch.from_numpy(np.asarray(source.batch([view])[1]["logits"], dtype=np.float32))
    return 1.0 - float(differences(changed, plain, kind)[0])


def _kept(file: Path, key: str, count: int) -> Gaps:
    if file.exists():
        with np.load(file, allow_pickle=False) as z:
            if str(z["key"]) == key and z["trust"].shape == (count,):
                return np.asarray(z["trust"], dtype=np.float32)
    return np.full(count, np.nan, np.float32)
