"""Where a student's training batches come from: views and the teacher's outputs on them.

Teacher outputs are either cached to disk once per view set, or computed on the fly; :func:`choose_source` decides by a measured
rule. A cached set is made once, survives a kill (it goes on at the first missing view) and is read as memory maps.
"""

from __future__ import annotations

import hashlib
import itertools
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.data.files import read_json, write_json
from rsedge.models.parts import Arrays, Part, check_samples

Dn = npt.NDArray[np.generic]
Views = Callable[[int], Dn]
# Normalised float32 (N, C, H, W) -> {"logits": (N, K, H, W), tap name: (N, C), (N, C, L) or (N, C, H, W)}, all float32.
TeacherFunction = Callable[[npt.NDArray[np.float32]], dict[str, npt.NDArray[np.float32]]]
AskTeacher = Callable[[Dn], dict[str, npt.NDArray[np.float32]]]
"""As :data:`TeacherFunction`, of views in digital numbers: the teacher takes what its contract needs of them."""
Read = Callable[[Dn], npt.NDArray[np.float32]]
"""Views in digital numbers (N, ...) -> what the student takes, normalised: bands or dates of its own, where it has some."""
ProgressHook = Callable[[int, int], None]
LABELS = "labels"
"""Name of what is known of a view beside the teacher's outputs on it."""
_DTYPE = np.float16
CHUNK_VALUES = 1 << 16


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
    """Teacher outputs computed when asked for; nothing is kept."""

    views: Views
    teacher: AskTeacher
    read: Read
    count: int

    def batch(self, indices: Sequence[int]) -> tuple[npt.NDArray[np.float32], dict[str, npt.NDArray[np.floating]]]:
        dn = np.stack([self.views(i) for i in indices])
        return self.read(dn), dict(self.teacher(dn))


class CachedOutputs:
    """Views and teacher outputs in one folder: ``views.npy`` (DN) and one float16 ``.npy`` per output."""

    def __init__(self, folder: Path, read: Read) -> None:
        self.read = read
        meta = read_json(folder / "cache.json")
        self.count = int(meta["count"])
        self._views = np.load(folder / "views.npy", mmap_mode="r")
        self._outputs = {n: np.load(folder / f"{n}.npy", mmap_mode="r") for n in meta["outputs"]}

    def batch(self, indices: Sequence[int]) -> tuple[npt.NDArray[np.float32], dict[str, npt.NDArray[np.floating]]]:
        rows = np.asarray(indices)
        return self.read(self._views[rows]), {n: a[rows] for n, a in self._outputs.items()}


@dataclass
class WithLabels:
    """Another source, and what is known of each view: ``labels(i)``, all of one shape."""

    source: TeacherOutputs
    labels: Callable[[int], npt.NDArray[np.float32]]

    @property
    def count(self) -> int:
        return self.source.count

    def batch(self, indices: Sequence[int]) -> tuple[npt.NDArray[np.float32], dict[str, npt.NDArray[np.floating]]]:
        x, outputs = self.source.batch(indices)
        return x, {**outputs, LABELS: np.stack([self.labels(i) for i in indices])}


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


def build_cache(
    folder: Path,
    views: Views,
    teacher: AskTeacher,
    read: Read,
    count: int,
    key: str,
    progress: ProgressHook | None = None,
) -> CachedOutputs:
    """Fills (or goes on filling, or just opens) the cache of ``count`` views in ``folder``.

    ``key`` names the view set and teacher; a folder with another key is made anew. Views are drawn in a second thread
    while the teacher runs.

    Raises:
        MissingCapability: not enough room on the disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    meta_path = folder / "cache.json"
    meta = read_json(meta_path) if meta_path.exists() else {}
    if meta.get("key") != key or meta.get("count") != count:
        meta = _create(folder, views, teacher, count, key)
    arrays = {n: np.load(folder / f"{n}.npy", mmap_mode="r+") for n in ("views", *meta["outputs"])}
    start = int(meta["done"])
    for chunk in _chunks(_ahead(views, range(start, count)), _chunk_size(arrays["views"][0])):
        dn = np.stack(chunk)
        end = start + len(dn)
        arrays["views"][start:end] = dn
        for name, value in teacher(dn).items():
            arrays[name][start:end] = np.clip(value, -6e4, 6e4)
        if end // 64 > start // 64 or end == count:
            for array in arrays.values():
                array.flush()
            write_json(meta_path, {**meta, "done": end})
        start = end
        if progress:
            progress(end, count)
    return CachedOutputs(folder, read)


def _chunk_size(view: Dn) -> int:
    """Views the teacher gets at once: many small ones, or one tile."""
    return max(1, min(64, CHUNK_VALUES // view.size))


def _chunks(items: Iterator[npt.NDArray[np.generic]], size: int) -> Iterator[list[npt.NDArray[np.generic]]]:
    while chunk := list(itertools.islice(items, size)):
        yield chunk


def _create(folder: Path, views: Views, teacher: AskTeacher, count: int, key: str) -> dict[str, object]:
    dn = views(0)
    outputs = teacher(dn[None])
    shapes = {"views": (dn.shape, dn.dtype), **{n: (v.shape[1:], _stored(n, v)) for n, v in outputs.items()}}
    need = count * sum(int(np.prod(s)) * d.itemsize for s, d in shapes.values())
    free = shutil.disk_usage(folder).free
    if need > 0.9 * free:
        raise MissingCapability(
            f"{folder}: the teacher cache needs {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; "
            "free some, or lower steps.distill.views"
        )
    (folder / "cache.json").unlink(missing_ok=True)
    for name, (shape, dtype) in shapes.items():
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, (count, *shape)).flush()
    meta: dict[str, object] = {"key": key, "count": count, "outputs": sorted(outputs), "done": 0}
    write_json(folder / "cache.json", meta)
    return meta


def _stored(name: str, value: npt.NDArray[np.float32]) -> np.dtype[Any]:
    """Tables of boxes (N, M, columns) are small, and half precision would move their corners by a quarter of a pixel."""
    return np.dtype(np.float32 if name == "logits" and value.ndim == 3 else _DTYPE)


def _ahead(views: Views, indices: range, depth: int = 8) -> Iterator[npt.NDArray[np.generic]]:
    """Views in order, drawn up to ``depth`` ahead in a second thread."""
    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(views, i) for i in indices[:depth]]
        for i in range(len(indices)):
            yield waiting.pop(0).result()
            if i + depth < len(indices):
                waiting.append(pool.submit(views, indices[i + depth]))


@dataclass(frozen=True)
class SourceChoice:
    """What :func:`choose_source` decided, on which measured figures (seconds per view), and the size of a cache."""

    cached: bool
    reason: str
    view_s: float
    teacher_s: float
    cache_bytes: int


def choose_source(views: Views, teacher: AskTeacher, count: int, draws: int, folder: Path) -> SourceChoice:
    """Cache or compute? Cached when each view is read more than once, the disk has room and it saves over 20 % of that time.

    Args:
        count: views in the set. draws: views read over the whole training (steps * batch).
    """
    start = time.perf_counter()
    dn = [views(i) for i in range(4)]
    view_s = (time.perf_counter() - start) / len(dn)
    size = _chunk_size(dn[0])
    asked = np.repeat(dn[0][None], size, axis=0)
    outputs = teacher(asked)
    start = time.perf_counter()
    teacher(asked)
    teacher_s = (time.perf_counter() - start) / size
    need = count * (dn[0].nbytes + sum(v.size * 2 // size for v in outputs.values()))
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    live, cached = draws * (view_s + teacher_s), count * (view_s + teacher_s)
    if need > 0.8 * free:
        return SourceChoice(
            False,
            f"on the fly: the cache needs {need / 1e9:.1f} GB of {free / 1e9:.1f} GB free",
            view_s,
            teacher_s,
            need,
        )
    if cached > 0.8 * live:
        return SourceChoice(
            False, f"on the fly: {draws} reads of {count} views, a cache would save little", view_s, teacher_s, need
        )
    reason = f"cached: {cached:.0f} s once instead of {live:.0f} s ({teacher_s * 1e3:.0f} ms teacher, {view_s * 1e3:.0f} ms view)"
    return SourceChoice(True, reason, view_s, teacher_s, need)
