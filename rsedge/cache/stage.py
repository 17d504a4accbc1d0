"""Stages and their cache: a stage whose inputs did not change is reused, a killed one is done again or resumed.

The key of a stage hashes its settings, the content of its inputs, the source code that it can reach and the versions of the
tools it calls. ``record.json`` is written last, atomically: a folder without it is unfinished work. When a stage is reused,
the hashes of its outputs are checked against the record, and the record against its own.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, cast

from pydantic import ValidationError

from rsedge.cache.code_closure import code_hash
from rsedge.cache.memory_watch import MemoryWatch
from rsedge.cache.run_folder import RunFolder
from rsedge.cache.shelf import Shelf
from rsedge.data.errors import IntegrityError, RequestError
from rsedge.data.files import read_json, sha256_file, sha256_of, write_bytes, write_json
from rsedge.data.record import Record

RECORD = "record.json"
RESUME = "resume"
KEY_FILE = "key"
TOOLS = ("torch", "torchvision", "timm", "segmentation-models-pytorch", "torch-pruning", "nncf", "onnx", "onnxscript",
         "onnxruntime", "ai-edge-litert", "litert-torch", "litert-converter", "ai-edge-quantizer", "openvino",
         "openvino-tokenizers", "numpy", "scipy", "scikit-learn", "rasterio", "transformers", "torchgeo",
         "terratorch", "ukis-csmask", "spyndex")  # fmt: skip

PLUGINS = ("rsedge.teachers", "rsedge.runtimes", "rsedge.makers", "rsedge.metrics")
"""Entry points by which other packages add to ours: their code is not hashed, their versions are."""


@dataclass(frozen=True)
class StageContext:
    """What a stage's body gets: its own folder, and a subfolder whose content outlives a kill."""

    name: str
    folder: Path
    resume: Path


class StagePart(Record):
    """A part of what a stage found."""


class StageValue(StagePart):
    """What a stage found, besides its files; :mod:`rsedge.results.records` has one kind per stage, which names the stage."""

    stage: ClassVar[str]

    @property
    def reached(self) -> dict[str, dict[str, float]]:
        """What a run that ends with it has to show: what was judged, and on which role -> its figures, none without labels."""
        return {}

    @property
    def remarks(self) -> list[str]:
        """What whoever runs it must be told at its end, and a reader of the report: one text each."""
        return []


Found = TypeVar("Found", bound=StageValue)
_Kept = TypeVar("_Kept", bound=StageValue, covariant=True)


@dataclass(frozen=True)
class StageResult(Generic[_Kept]):
    """A finished stage: its folder, what it returned, and whether it ran now.

    ``digest`` hashes all that a later stage can see of it; ``memory_bytes`` is the most that its process held meanwhile, pages of
    files left out.
    """

    name: str
    folder: Path
    value: _Kept
    digest: str
    seconds: float
    reused: bool
    memory_bytes: int | None = None

    def path(self, name: str) -> Path:
        """The path of one output."""
        return self.folder / name


class Results(dict[str, StageResult[StageValue]]):
    """The stages that are done, by name; what they found, by the kind of record."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the stages that are done warn of."""
        return tuple(text for result in self.values() for text in result.value.remarks)

    def of(self, record: type[Found]) -> Found:
        """What the stage of this record found; the stage is done."""
        return cast("Found", self[record.stage].value)

    def maybe(self, record: type[Found]) -> Found | None:
        """As :meth:`of`; None where the recipe has no such stage."""
        return self.of(record) if record.stage in self else None


@dataclass
class Stages:
    """Runs stages in a run folder, each at most once per key; with a ``shelf`` at most once for all runs that share it."""

    run: RunFolder
    force: frozenset[str] = frozenset()
    on_start: Callable[[str], None] = lambda name: None
    on_end: Callable[[StageResult[StageValue]], None] = lambda result: None
    results: Results = field(default_factory=Results)
    shelf: Shelf | None = None
    _forced: set[str] = field(default_factory=set)

    def stage(
        self,
        record: type[Found],
        body: Callable[[StageContext], Found],
        settings: Mapping[str, Any],
        code: Sequence[str],
        after: Sequence[str] = (),
        inputs: Mapping[str, str] | None = None,
    ) -> StageResult[Found]:
        """Runs ``body`` or reuses what it made before.

        Args:
            record: what the stage finds; names the stage and its folder ``stages/<name>``.
            body: writes files into ``context.folder`` and returns the record.
            settings: JSON-able values that the outcome depends on.
            code: modules that the outcome's code starts from; what they reach by imports counts too.
            after: earlier stages whose outcome this one reads.
            inputs: hashes of further inputs (data manifest, teacher weights), by name.
        """
        name = record.stage
        forced = name in self.force or any(n in self._forced for n in after)
        if forced:
            self._forced.add(name)
        key = self.key(name, settings, code, after, inputs)
        folder = self.run.stages / name
        result = None if forced else finished(record, folder, key)
        if result is None:
            result = self._made(record, folder, key, body, forced)
        elif self.shelf is not None and not self.shelf.place(name, key).is_dir():  # killed before it was put there
            with self.shelf.making(name, key):
                self.shelf.put(name, key, folder)
        self.results[name] = result
        self.on_end(result)
        return result

    def key(
        self,
        name: str,
        settings: Mapping[str, Any],
        code: Sequence[str],
        after: Sequence[str],
        inputs: Mapping[str, str] | None,
    ) -> str:
        """Hash of all that a stage's outcome depends on."""
        return sha256_of(
            {
                "stage": name,
                "settings": dict(settings),
                "upstream": {n: self.results[n].digest for n in after},
                "inputs": dict(inputs or {}),
                "code": code_hash(tuple(code)),
                "tools": tool_versions(),
            }
        )

    def _made(
        self, record: type[Found], folder: Path, key: str, body: Callable[[StageContext], Found], forced: bool
    ) -> StageResult[Found]:
        """The stage as another run of the shelf made it, or made now."""
        name, shelf = record.stage, self.shelf
        with contextlib.nullcontext() if shelf is None else shelf.making(name, key):
            if shelf is not None and not forced and shelf.take(name, key, folder):
                taken = finished(record, folder, key)
                if taken is not None:
                    return taken
            self.on_start(name)
            result = _execute(record, folder, key, body, keep_resume=not forced)
            if shelf is not None:
                shelf.put(name, key, folder)
        return result


def check_stages(option: str, wanted: Iterable[str], names: Sequence[str]) -> frozenset[str]:
    """The stages that an option names.

    Raises:
        RequestError: no such stage.
    """
    unknown = sorted(set(wanted) - set(names))
    if unknown:
        raise RequestError(f"{option} {unknown[0]}: no such stage in this recipe; its stages are {', '.join(names)}")
    return frozenset(wanted)


def finished(record: type[Found], folder: Path, key: str) -> StageResult[Found] | None:
    """The stored result, or None when there is none for this key or its files are not what they were."""
    try:
        stored = read_json(folder / RECORD)
    except RequestError:
        return None
    if not isinstance(stored, dict) or stored.get("key") != key:
        return None
    outputs, digest, seconds, memory = (stored.get(name) for name in ("outputs", "digest", "seconds", "memory_bytes"))
    if (
        not isinstance(outputs, dict)
        or not isinstance(seconds, float)
        or not isinstance(memory, int | None)
        or digest != sha256_of([outputs, stored.get("value")])
    ):
        return None
    for relative, sha256 in outputs.items():
        path = folder / relative
        if not path.is_file() or sha256_file(path) != sha256:
            return None
    try:
        value = record.model_validate(stored["value"])
    except ValidationError:
        return None
    return StageResult(record.stage, folder, value, digest, seconds, reused=True, memory_bytes=memory)


def _execute(
    record: type[Found], folder: Path, key: str, body: Callable[[StageContext], Found], keep_resume: bool
) -> StageResult[Found]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)
    resume = _prepare_resume(folder, key, keep_resume)
    started = time.perf_counter()
    with MemoryWatch() as memory:
        value = body(StageContext(record.stage, folder, resume)).model_dump(mode="json")
    seconds = time.perf_counter() - started
    shutil.rmtree(resume, ignore_errors=True)
    outputs = {str(p.relative_to(folder)): sha256_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    value = json.loads(json.dumps(value))  # as it is read again: its digest is taken of that
    digest = sha256_of([outputs, value])
    content = {
        "stage": record.stage,
        "key": key,
        "seconds": seconds,
        "memory_bytes": memory.own,
        "outputs": outputs,
        "value": value,
        "digest": digest,
    }
    write_json(folder / RECORD, content)
    # Read back, so that a fresh result and a reused one are the same values (tuples are lists, keys are text).
    stored = read_json(folder / RECORD)
    if stored.get("key") != key:
        raise IntegrityError(f"{folder / RECORD}: is not what was just written; check the disk")
    found = record.model_validate(stored["value"])
    return StageResult(record.stage, folder, found, digest, seconds, reused=False, memory_bytes=memory.own)


def _prepare_resume(folder: Path, key: str, keep: bool) -> Path:
    """Empties the stage folder, but for work in progress under the same key."""
    resume = folder / RESUME
    key_file = resume / KEY_FILE
    same = keep and key_file.is_file() and key_file.read_text(encoding="utf-8") == key
    for path in folder.iterdir():
        if path == resume and same:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    resume.mkdir(exist_ok=True)
    write_bytes(key_file, key.encode())
    return resume


@cache
def tool_versions() -> dict[str, str]:
    """Versions of the tools that decide what a stage makes, and of packages that add to ours; absent ones are left out."""
    found = {}
    for tool in TOOLS:
        try:
            found[tool] = importlib.metadata.version(tool)
        except importlib.metadata.PackageNotFoundError:
            continue
    for group in PLUGINS:
        for entry in importlib.metadata.entry_points(group=group):
            if entry.dist is not None:
                found[entry.dist.name] = entry.dist.version
    return found
