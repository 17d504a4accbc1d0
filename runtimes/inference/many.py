"""Scenes into a folder: one record beside each output, by which a scene that is done already is known, and the sum of all.

A scene counts as done where its record says the same bundle, settings, version and source files (name, size, time of change) as are
given now, and its outputs are there in the size that they had.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rsedge.data.errors import GateFailed, MissingCapability, PartlyDone, RequestError, RsedgeError
from rsedge.data.files import no_room, require_file, write_json
from rsedge.data.json_text import read_object
from rsedge.data.objects import address_of
from rsedge.data.scenes.kinds import files_here, files_read
from rsedge.runtimes.bundle.self_test import SelfTestFailed
from rsedge.runtimes.inference.beside import STAC_SUFFIX, TABLE_SUFFIX
from rsedge.runtimes.inference.outputs import check_outputs
from rsedge.runtimes.inference.raster_out import RASTERS, made_of
from rsedge.runtimes.inference.sources import Source

DONE, SKIPPED, FAILED = "done", "skipped", "failed"
RECORD_SUFFIX = ".json"
_MOST_LISTED = 64
"""Files of a scene that its record lists; of more, as a Zarr store has, it holds the hash of the list."""
Record = dict[str, Any]


@dataclass(frozen=True)
class Places:
    """Where what is made of one scene lies: ``record`` beside ``output``; ``heads``: what each head of an encoder gives, by its
    name, in place of ``output`` where ``heads_instead``."""

    output: Path
    probabilities: Path | None
    heads: Mapping[str, Path] = field(default_factory=dict)
    heads_instead: bool = False

    @property
    def record(self) -> Path:
        return self.output.with_name(self.output.name + RECORD_SUFFIX)

    @property
    def assets(self) -> dict[str, Path]:
        """What was asked for, by what it is: ``result``, ``probabilities``, a head's name."""
        own = {} if self.heads and self.heads_instead else {"result": self.output}
        extra = {} if self.probabilities is None else {"probabilities": self.probabilities}
        return own | extra | dict(self.heads)

    @property
    def first(self) -> Path:
        """The first of them."""
        return next(iter(self.assets.values()))

    @property
    def outputs(self) -> list[Path]:
        """All files that these are made of."""
        return [file for path in self.assets.values() for file in made_of(path)]

    @property
    def every(self) -> list[Path]:
        """All that may be written: outputs, the record and what :mod:`rsedge.runtimes.inference.beside` writes."""
        tables = [path.with_name(f"{path.name}{TABLE_SUFFIX}") for path in self.assets.values()]
        return [*self.outputs, self.record, *tables, self.output.with_name(f"{self.output.stem}{STAC_SUFFIX}")]


def places(folder: Path, name: str, suffix: str, probabilities: Path | None) -> Places:
    """Places of a scene's outputs; ``probabilities`` is the folder of those, or None."""
    kind = suffix if suffix in RASTERS else ".tif"
    extra = None if probabilities is None else probabilities / f"{name}.probabilities{kind}"
    return Places(folder / f"{name}{suffix}", extra)


def check_apart(made: Sequence[tuple[Source, Places]]) -> None:
    """Holds what would be made of all scenes against each other, and against what they are made of.

    Raises:
        RequestError: what is made of one scene would lie where that of another does, or one of another's files.
    """
    taken = {os.path.realpath(file): (source, "is made of") for source, _ in made for file in _files(source.path)}
    for source, where in made:
        for path in where.every:
            other, what = taken.setdefault(os.path.realpath(path), (source, "would write too"))
            if other is not source:
                raise RequestError(
                    f"{source.path}: would write {path}, which {other.path} {what}; rename one, or run them into two folders"
                )


def _files(source: Path) -> Sequence[Path]:
    """What of a scene lies here; what cannot be read fails by itself, when it is its turn, and objects are fetched then."""
    try:
        return files_here(source)
    except (RequestError, OSError):
        return ()


def suffix_of(form: str | None, writes: Sequence[str], words: str) -> str:
    """The suffix of outputs: the usual one, or the one of a form such as ``csv``.

    Raises:
        RequestError: not written so.
    """
    if form is None:
        return writes[0]
    suffix = f".{form.lower().lstrip('.')}"
    if suffix not in writes:
        raise RequestError(f"--format {form}: {words} are written as {', '.join(s.lstrip('.') for s in writes)}")
    return suffix


def identity(source: Path, made_by: Mapping[str, Any], also: Sequence[Path] = ()) -> Record:
    """What an answer depends on: ``made_by`` (bundle, settings, version), the files that the source is read from, and those that
    options name (``also``).

    Raises:
        RequestError: one of the files is not there.
    """
    files: Record = {"source": _stamps(files_read(source))}
    if also:
        files["also"] = _stamps(also)
    made: Record = json.loads(json.dumps({**made_by, **files}, default=str))
    return made


def _stamps(files: Sequence[Path]) -> list[Record] | Record:
    """Names, sizes and times of change, as a list or, of many files, as its hash."""
    found = []
    for path in files:
        now = require_file(path).stat()
        found.append({"file": path.name, "bytes": now.st_size, "modified_ns": now.st_mtime_ns})
    if len(found) <= _MOST_LISTED:
        return found
    return {"files": len(found), "sha256": hashlib.sha256(json.dumps(found).encode()).hexdigest()}


def finished(where: Places, wanted: Record) -> Record | None:
    """What a record says, where it is of the very same answer and the outputs are there; else None."""
    try:
        known = read_object(where.record)
        if known.get("made_from") != wanted:
            return None
        sizes = {Path(one["file"]).name: one["bytes"] for one in known["outputs"]}
        whole = all(path.stat().st_size == sizes.get(path.name) for path in where.outputs)
        return known["result"] if whole and isinstance(known["result"], dict) else None
    except (RequestError, OSError, LookupError, TypeError):
        return None  # no record, or none of ours: the scene is done anew


def into_folder(
    source: Path,
    where: Places,
    made_by: Mapping[str, Any],
    again: bool,
    run: Callable[[], Record],
    also: Sequence[Path] = (),
) -> Record:
    """Does one scene, unless it is done, and writes its record.

    Args:
        run: writes the outputs and returns what is to be kept of it.
        also: files beside the scene's that are read, as options name them.

    Returns:
        ``status`` (``done`` or ``skipped``), ``scene``, ``output``, ``record`` and what ``run`` gave.

    Raises:
        RsedgeError: as ``run``; or the outputs or the record cannot be written there.
    """
    wanted = identity(source, made_by, also)
    about: Record = {"scene": address_of(source), "output": str(where.first), "record": str(where.record)}
    known = None if again else finished(where, wanted)
    if known is not None:
        return {**known, **about, "status": SKIPPED}
    check_outputs(where.every, [*files_read(source), *also])
    where.record.unlink(missing_ok=True)  # of what is written over now
    result = run()
    sizes = [{"file": path.name, "bytes": path.stat().st_size} for path in where.outputs]
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    write_json(where.record, {"made_from": wanted, "made_at": now, "outputs": sizes, "result": result})
    return {**result, **about, "status": DONE}


def each_into_folder(
    sources: Sequence[Source], one: Callable[[int, Source], Record], on_scene: Callable[[Record], None]
) -> Iterable[Record]:
    """Runs ``one`` for every scene; what fails is a record of its own, and the others go on.

    Raises:
        SelfTestFailed: nothing that this model gives is worth anything.
    """
    for number, source in enumerate(sources):
        try:
            record = one(number, source)
        except SelfTestFailed:
            raise
        except (RsedgeError, OSError, MemoryError) as error:
            record = {"status": FAILED, "scene": address_of(source.path), **failure(error)}
        on_scene(record)
        yield record


def summary(records: Sequence[Record]) -> Record:
    """All scenes with how many are ``done``, ``skipped`` and ``failed``, the seconds, and the exit code."""
    counts = Counter(record["status"] for record in records)
    code = 0
    if counts[FAILED]:
        codes = {record["exit_code"] for record in records if record["status"] == FAILED}
        code = PartlyDone.exit_code if counts[FAILED] < len(records) or len(codes) > 1 else codes.pop()
    elif any(record.get("run", {}).get("failed_tiles_count") for record in records):
        code = GateFailed.exit_code
    seconds = sum(record.get("seconds", 0.0) for record in records if record["status"] == DONE)
    return {DONE: counts[DONE], SKIPPED: counts[SKIPPED], FAILED: counts[FAILED], "seconds": round(seconds, 3),
            "scenes": list(records), "exit_code": code}  # fmt: skip


def failure(error: Exception) -> Record:
    """What a scene's record says of its failure: ``error`` and ``exit_code``."""
    if isinstance(error, RsedgeError):
        return {"error": str(error), "exit_code": error.exit_code}
    if isinstance(error, MemoryError):
        return {"error": "needs more memory than there is", "exit_code": MissingCapability.exit_code}
    assert isinstance(error, OSError)
    full = no_room(error.filename or "the disk", error)
    return {"error": str(full or error), "exit_code": (full or RequestError()).exit_code}
