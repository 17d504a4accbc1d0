"""Where a student's training batches come from: views and the teacher's outputs on them.

Teacher outputs are kept on disk (:mod:`.teacher_cache`) or computed on the fly; :func:`choose_source` decides by a measured rule.
Either way they are rounded as they would be kept, so that the choice changes no number that a student learns.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from rsedge.compress.distill.codings import codings_for
from rsedge.compress.distill.teacher_cache import Record, TeacherCache, chunks, kept_in
from rsedge.data.errors import RequestError
from rsedge.data.kept_folders import room_in
from rsedge.models.parts import Arrays, Part, check_samples

Dn = npt.NDArray[np.generic]
Views = Callable[[int], Dn]
Change = Callable[[Dn, np.random.Generator], Dn]
"""One view in digital numbers as another sensor or light would show it; what it is of stays."""
# Normalised float32 (N, C, H, W) -> {"logits": (N, K, H, W), tap name: (N, C), (N, C, L) or (N, C, H, W)}, all float32.
TeacherFunction = Callable[[npt.NDArray[np.float32]], dict[str, npt.NDArray[np.float32]]]
AskTeacher = Callable[[Dn], dict[str, npt.NDArray[np.float32]]]
"""As :data:`TeacherFunction`, of views in digital numbers: the teacher takes what its contract needs of them."""
Read = Callable[[Dn], npt.NDArray[np.float32]]
"""Views in digital numbers (N, ...) -> what the student takes, normalised: bands or dates of its own, where it has some."""
ProgressHook = Callable[[int, int], None]
LABELS = "labels"
"""Name of what is known of a view beside the teacher's outputs on it."""
PROBES = 4
"""Views on which the teacher is timed, and its outputs' rounding is chosen."""


class TeacherOutputs(Protocol):
    """A set of views with the teacher's outputs."""

    @property
    def count(self) -> int:
        """Number of views."""
        ...

    def batch(self, indices: Sequence[int]) -> tuple[npt.NDArray[np.float32], dict[str, npt.NDArray[np.floating]]]:
        """Normalised views (N, C, H, W) and the teacher's outputs for these indices."""
        ...


@dataclass
class LiveOutputs:
    """Teacher outputs computed when asked for; nothing is kept. With a ``record`` they are rounded as it would keep them."""

    views: Views
    teacher: AskTeacher
    read: Read
    count: int
    record: Record | None = None

    def rows(self, indices: Sequence[int]) -> tuple[Dn, dict[str, npt.NDArray[np.floating]]]:
        """Views in digital numbers (N, ...) and the teacher's outputs on them."""
        dn = np.stack([self.views(i) for i in indices])
        outputs: dict[str, npt.NDArray[np.floating]] = dict(self.teacher(dn))
        if self.record is not None:
            outputs = self.record.unpack(self.record.pack(dn, outputs))[1]
        return dn, outputs

    def batch(self, indices: Sequence[int]) -> tuple[npt.NDArray[np.float32], dict[str, npt.NDArray[np.floating]]]:
        dn, outputs = self.rows(indices)
        return self.read(dn), outputs


@dataclass
class CachedOutputs:
    """Views and teacher outputs that are kept."""

    cache: TeacherCache
    read: Read
    count: int

    def rows(self, indices: Sequence[int]) -> tuple[Dn, dict[str, npt.NDArray[np.floating]]]:
        """Views in digital numbers (N, ...) and the teacher's outputs on them."""
        dn, outputs = self.cache.rows(indices)
        return dn, dict(outputs)

    def batch(self, indices: Sequence[int]) -> tuple[npt.NDArray[np.float32], dict[str, npt.NDArray[np.floating]]]:
        dn, outputs = self.rows(indices)
        return self.read(dn), outputs


@dataclass
class ChangedOutputs:
    """Another source whose views a training sees changed, by draws of its own in each step: a teacher's answer stands for all
    that a view may come to look like, and costs no more than one. Read as :meth:`batch`, views are as they are."""

    source: LiveOutputs | CachedOutputs
    change: Change
    seed: int

    @property
    def count(self) -> int:
        return self.source.count

    def batch(self, indices: Sequence[int]) -> tuple[npt.NDArray[np.float32], dict[str, npt.NDArray[np.floating]]]:
        return self.source.batch(indices)

    def in_step(
        self, indices: Sequence[int], step: int, first: int = 0
    ) -> tuple[npt.NDArray[np.float32], dict[str, npt.NDArray[np.floating]]]:
        """As :meth:`batch`, of the views that one step sees; ``first`` is the place of the first of them in the step."""
        dn, outputs = self.source.rows(indices)
        draws = (np.random.default_rng([self.seed, 5, step, first + at]) for at in range(len(dn)))
        return self.source.read(np.stack([self.change(one, rng) for one, rng in zip(dn, draws, strict=True)])), outputs


@dataclass
class WithLabels:
    """Another source, and what is known of each view: ``labels(i)``, all of one shape."""

    source: TeacherOutputs
    labels: Callable[[int], npt.NDArray[np.float32]]

    @property
    def count(self) -> int:
        return self.source.count

    def batch(self, indices: Sequence[int]) -> tuple[npt.NDArray[np.float32], dict[str, npt.NDArray[np.floating]]]:
        return self._labelled(self.source.batch(indices), indices)

    def in_step(
        self, indices: Sequence[int], step: int, first: int = 0
    ) -> tuple[npt.NDArray[np.float32], dict[str, npt.NDArray[np.floating]]]:
        """As :meth:`batch`, of the views that one step sees from its place ``first`` on."""
        return self._labelled(batch_in_step(self.source, indices, step, first), indices)

    def _labelled(
        self, found: tuple[npt.NDArray[np.float32], dict[str, npt.NDArray[np.floating]]], indices: Sequence[int]
    ) -> tuple[npt.NDArray[np.float32], dict[str, npt.NDArray[np.floating]]]:
        x, outputs = found
        return x, {**outputs, LABELS: np.stack([self.labels(i) for i in indices])}


def batch_in_step(
    source: TeacherOutputs, indices: Sequence[int], step: int, first: int = 0
) -> tuple[npt.NDArray[np.float32], dict[str, npt.NDArray[np.floating]]]:
    """What a training reads in one step, from its place ``first`` on: changed views where the source changes them, else
    :meth:`TeacherOutputs.batch`."""
    if isinstance(source, ChangedOutputs | WithLabels):
        return source.in_step(indices, step, first)
    return source.batch(indices)


@dataclass
class LabelledViews:
    """Views with their labels in the place of a teacher's outputs: what a teacher itself is fitted on."""

    views: Views
    labels: Callable[[int], npt.NDArray[np.float32]]
    read: Read
    count: int

    def batch(self, indices: Sequence[int]) -> tuple[npt.NDArray[np.float32], dict[str, npt.NDArray[np.floating]]]:
        x = self.read(np.stack([self.views(i) for i in indices]))
        return x, {"logits": np.stack([self.labels(i) for i in indices])}


@dataclass
class PartOutputs:
    """Samples of a part, as its user's pipeline gave them, and what the teacher makes of each.

    The teacher answers sample by sample, where its weights are. Samples never change, so answers are kept in memory once they
    are known; ``keep=False`` is for those that do not fit there.

    Raises:
        RequestError: no samples, or one that the part does not take.
    """

    teacher: Part
    samples: Sequence[Arrays]
    keep: bool = True
    _known: dict[int, dict[str, npt.NDArray[np.floating]]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.samples:
            raise RequestError("distill: no samples of the part; record them where it is used, they are never made up")
        check_samples(self.samples, self.teacher.signature, "distill")
        self.teacher.net.eval()

    @property
    def count(self) -> int:
        return len(self.samples)

    def digest(self) -> str:
        """Hex SHA-256 of all samples: others of the same number are another training."""
        found = hashlib.sha256()
        for sample in self.samples:
            for name in self.teacher.inputs:
                found.update(np.ascontiguousarray(sample[name]).data)
        return found.hexdigest()

    def batch(
        self, indices: Sequence[int]
    ) -> tuple[tuple[npt.NDArray[np.generic], ...], dict[str, npt.NDArray[np.floating]]]:
        """The part's inputs in its order, and its outputs by name, samples along the first axis.

        Raises:
            RequestError: several samples of an input whose first axis is no batch axis.
        """
        for name, (shape, _) in self.teacher.signature.items():
            if len(indices) > 1 and shape[:1] != (1,):
                raise RequestError(
                    f"steps.distill.batch: input '{name}' of the part is {shape}, without a batch axis of 1; use batch 1"
                )
        inputs = tuple(np.concatenate([self.samples[i][name] for i in indices]) for name in self.teacher.inputs)
        answers = [self._answer(i) for i in indices]
        return inputs, {name: np.concatenate([a[name] for a in answers]) for name in self.teacher.outputs}

    def _answer(self, index: int) -> dict[str, npt.NDArray[np.floating]]:
        if index in self._known:
            return self._known[index]
        answer = self.teacher.run(self.samples[index])
        if self.keep:
            self._known[index] = answer
        return answer


def cached_outputs(
    cache: TeacherCache,
    views: Views,
    teacher: AskTeacher,
    read: Read,
    count: int,
    batch: int = 1,
    progress: ProgressHook | None = None,
) -> CachedOutputs:
    """The first ``count`` views of a set; what is missing is made, the teacher asked for ``batch`` views at a time.

    Views are drawn in a second thread while the teacher runs.

    Raises:
        MissingCapability: the disk is full.
    """

    def draw(indices: Sequence[int]) -> Iterator[npt.NDArray[np.void]]:
        for chunk in chunks(_ahead(views, indices), batch):
            dn = np.stack(chunk)
            yield cache.record.pack(dn, dict(teacher(dn)))

    cache.fill(count, draw, progress)
    return CachedOutputs(cache, read, count)


def _ahead(views: Views, indices: Sequence[int], depth: int = 8) -> Iterator[npt.NDArray[np.generic]]:
    """Views in order, drawn up to ``depth`` ahead in a second thread."""
    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(views, i) for i in indices[:depth]]
        for i in range(len(indices)):
            yield waiting.pop(0).result()
            if i + depth < len(indices):
                waiting.append(pool.submit(views, indices[i + depth]))


CacheWish = Literal["auto", "always", "never"]


@dataclass(frozen=True)
class SourceChoice:
    """What :func:`choose_source` decided, and on what.

    Attributes:
        cached: whether outputs are kept.
        reason: for people, with the size of what is kept.
        record: what is kept of a view, and how outputs are rounded.
        view_s, teacher_s: measured seconds per view.
        missing: views that are still to be made.
    """

    cached: bool
    reason: str
    record: Record
    view_s: float
    teacher_s: float
    missing: int

    @property
    def missing_bytes(self) -> int:
        """What they take."""
        return self.missing * self.record.of.itemsize


def choose_source(
    views: Views,
    teacher: AskTeacher,
    count: int,
    draws: int,
    folder: Path,
    wish: CacheWish = "auto",
    *,
    classes: bool = False,
    exact: bool = False,
) -> SourceChoice:
    """Keep or compute? Kept where the disk has room and it saves over 20 % of the time that outputs take; what is there counts.

    Args:
        count: views in the set. draws: views read over the whole training (steps * batch).
        folder: of the set, there or not.
        classes, exact: what counts of the outputs, as :func:`.codings.codings_for` takes it.
    """
    begun = time.perf_counter()
    dn = np.stack([views(i) for i in range(PROBES)])
    view_s = (time.perf_counter() - begun) / PROBES
    teacher(dn)
    begun = time.perf_counter()
    outputs = teacher(dn)
    teacher_s = (time.perf_counter() - begun) / PROBES
    known = kept_in(folder)
    record = known or Record(dn.shape[1:], dn.dtype.str, codings_for(outputs, classes, exact))
    missing = TeacherCache(folder, record).missing(count) if known else count
    live, made = draws * (view_s + teacher_s), missing * (view_s + teacher_s)
    need = missing * record.of.itemsize
    cached = wish == "always" or (wish == "auto" and made <= 0.8 * live and need <= room_in(folder.parent))
    what = _words(record, count, missing, folder) if cached else f"{draws} reads of {count} views"
    saves = f", about {made:.0f} s once instead of about {live:.0f} s" if wish == "auto" and cached else ""
    timed = f" ({teacher_s * 1e3:.0f} ms teacher, {view_s * 1e3:.0f} ms view)"
    reason = f"{'kept' if cached else 'on the fly'}: {what}{saves}{timed}"
    return SourceChoice(cached, reason, record, view_s, teacher_s, missing)


def _words(record: Record, count: int, missing: int, folder: Path) -> str:
    size, kept = record.of.itemsize, ", ".join(f"{n}: {c.words}" for n, c in record.codings.items())
    there = "all there" if not missing else f"{_size(missing * size)} to be made"
    return f"{count} views of {_size(size)}, {_size(count * size)} in {folder}, {there}; {kept}"


def _size(size: int) -> str:
    for unit, word in ((1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{size / unit:.{0 if size >= 100 * unit else 1}f} {word}"
    return f"{size / 1e3:.1f} kB"
