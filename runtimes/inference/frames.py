"""Streams of frames: a video, or a folder of pictures with a table of where each was taken. Frames in, one line of JSON each out.

At a stated rate frames come as a camera gives them: one that is not taken by the time the next is there is dropped, and counted.
"""

from __future__ import annotations

import contextlib
import csv
import importlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError, RsedgeError, missing_extra
from rsedge.data.files import require_file
from rsedge.runtimes.bundle.self_test import SelfTestFailed
from rsedge.runtimes.inference.outputs import check_outputs, check_outside_bundles, check_outside_runs

Pixels = npt.NDArray[np.uint8]
Answer = Callable[["Frame"], dict[str, Any]]
_RGB = ("red", "green", "blue")
_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")
# Of FFmpeg, by suffix: what a file is called decides how it is read, so that none is taken for a list of addresses.
_CONTAINERS = {
    ".mp4": "mov", ".mov": "mov", ".m4v": "mov", ".mkv": "matroska", ".webm": "matroska", ".avi": "avi", ".ts": "mpegts",
    ".mpg": "mpeg", ".mpeg": "mpeg",
}  # fmt: skip
_KEYS = ("frame", "file", "image", "name")
_MOST_POSES = 10_000_000


@dataclass(frozen=True)
class Frame:
    """One frame: its number from 0, its file's name, when it was taken (s) where that is known, its table's row; ``pixels`` gives
    red, green and blue (3, H, W)."""

    number: int
    pixels: Callable[[], Pixels]
    name: str = ""
    time_s: float | None = None
    pose: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Kind:
    """One row: a kind of stream, which paths are of it, and what opens one, as ``function`` of this module."""

    words: str
    applies: Callable[[Path], bool]
    opens: str
    pictures: Callable[[Path], list[Path]] = lambda path: []


KINDS = (
    _Kind("a video", lambda path: path.suffix.lower() in _CONTAINERS, "_video"),
    _Kind("a folder of pictures", lambda path: path.is_dir(), "_folder", lambda path: _pictures(path)),
)


def frames_of(source: Path, poses: Path | None = None) -> Iterator[Frame]:
    """Frames in their order, read as they are asked for.

    Args:
        poses: a table (CSV) with a column ``frame`` (number from 0) or ``file`` (name), and any others.

    Raises:
        RequestError: neither a video nor a folder with pictures, or a table that names no frames.
        MissingCapability: the extra ``video`` is not installed.
    """
    kind = _kind_of(source)
    known = {} if poses is None else read_poses(poses)
    found: Iterator[Frame] = getattr(importlib.import_module(__name__), kind.opens)(source)
    for frame in found:
        pose = known.get(frame.name) or known.get(str(frame.number)) or {}
        yield Frame(frame.number, frame.pixels, frame.name, frame.time_s, pose)


def _kind_of(source: Path) -> _Kind:
    kind = next((row for row in KINDS if row.applies(source)), None)
    if kind is None:
        raise RequestError(
            f"{source}: neither a video ({', '.join(_CONTAINERS)}) nor a folder of pictures ({', '.join(_PICTURES)})"
        )
    return kind


def mask_of(folder: Path, number: int, name: str = "") -> Path:
    """Where the class map of a frame lies, by its file's name or else its number."""
    return folder / f"{Path(name).stem if name else f'{number:06d}'}.png"


def check_places(source: Path, output: Path | None, masks: Path | None, inputs: Sequence[Path | None] = ()) -> None:
    """Holds what would be written against what is read, before the first frame.

    Args:
        output: file of answers. masks: folder for class maps. inputs: what is read beside the source.

    Raises:
        RequestError: as :func:`frames_of` of the source; something would be written over what is read, into a bundle or over what
            is written; the masks' folder is the source or lies in it; two pictures would give one mask.
    """
    pictures = _kind_of(source).pictures(source)
    check_outputs([output], [*inputs, source, *pictures])
    if masks is None:
        return
    check_outside_bundles(masks)
    check_outside_runs(masks)
    real, aside = Path(os.path.realpath(source)), Path(os.path.realpath(masks))
    if real in (aside, *aside.parents):
        raise RequestError(f"--masks {masks}: lies in {source}, whose pictures are read; choose another folder")
    if output is not None and Path(os.path.realpath(output)).parent == aside and output.suffix.lower() == ".png":
        raise RequestError(f"{output}: may be the name of a mask; call it {output.with_suffix('.jsonl').name}")
    known: dict[Path, Path] = {}
    for number, picture in enumerate(pictures):
        other = known.setdefault(mask_of(masks, number, picture.name), picture)
        if other != picture:
            raise RequestError(
                f"{picture}: its mask would have the name of that of {other.name}; rename one, or leave --masks out"
            )


def read_poses(path: Path) -> dict[str, dict[str, Any]]:
    """Rows of a table by the frame's number or file name; what looks like a number is one.

    Raises:
        RequestError: no table in UTF-8, without a column that names frames, or one frame twice.
    """
    require_file(path)
    found: dict[str, dict[str, Any]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            names = [n.strip().lower() for n in table.fieldnames or ()]
            key = next((k for k in _KEYS if k in names), None)
            if key is None:
                raise RequestError(
                    f"{path}: a column 'frame' (number) or 'file' (name) is needed; it has {', '.join(names) or 'none'}"
                )
            for number, row in enumerate(table, 2):
                if number > _MOST_POSES:
                    raise RequestError(f"{path}: has more than {_MOST_POSES} rows")
                values = {str(k).strip().lower(): _value(v) for k, v in row.items() if k is not None}
                name = str(values.pop(key))
                if name in found:
                    raise RequestError(f"{path}: line {number}: frame '{name}' stands there twice")
                found[name] = values
    except (UnicodeDecodeError, csv.Error) as error:
        raise RequestError(f"{path}: is no table in UTF-8 ({error})") from error
    return found


def _value(text: Any) -> Any:
    plain = str(text or "").strip()
    try:
        number = float(plain)
    except ValueError:
        return plain
    return (int(plain) if plain.lstrip("+-").isdigit() else number) if math.isfinite(number) else plain


class Paced:
    """Frames as a camera gives them: at a rate (frames per second) each comes no sooner than its time, and those whose successor is
    there already are ``dropped``; without a rate all come in turn."""

    def __init__(
        self,
        frames: Iterator[Frame],
        rate: float | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._frames, self._rate, self._clock, self._sleep = frames, rate, clock, sleep
        self.dropped = 0

    def __iter__(self) -> Iterator[Frame]:
        began = self._clock()
        for count, frame in enumerate(self._frames):
            if self._rate is not None:
                due, now = began + count / self._rate, self._clock()
                if now >= due + 1 / self._rate:
                    self.dropped += 1
                    continue
                if now < due:
                    self._sleep(due - now)
            yield frame


def run_frames(
    frames: Iterator[Frame], answer: Answer, out: TextIO, rate: float | None = None, **timing: Any
) -> dict[str, Any]:
    """Writes a line of JSON for each frame, as soon as it is answered.

    Returns:
        ``frames`` answered, of them ``partly`` those with warnings, ``dropped``, ``failed``, ``seconds``, ``per_second``.

    Raises:
        SelfTestFailed: nothing that this model gives is worth anything.
    """
    done = partly = failed = 0
    began, coming = time.perf_counter(), Paced(frames, rate, **timing)
    for frame in coming:
        said: dict[str, Any] = {"frame": frame.number}
        said |= {"file": frame.name} if frame.name else {}
        said |= {} if frame.time_s is None else {"time_s": round(frame.time_s, 6)}
        said |= {"pose": dict(frame.pose)} if frame.pose else {}
        try:
            said |= answer(frame)
            done += 1
            partly += "warnings" in said
        except SelfTestFailed:
            raise
        except RsedgeError as error:
            said["error"], failed = str(error), failed + 1
        out.write(json.dumps(said, ensure_ascii=False, allow_nan=False) + "\n")
        out.flush()
    seconds = time.perf_counter() - began
    return {"frames": done, "partly": partly, "dropped": coming.dropped, "failed": failed, "seconds": round(seconds, 3),
            "per_second": round(done / max(seconds, 1e-9), 2)}  # fmt: skip


def as_input(
    pixels: Pixels, spec: InputSpec, where: str, scale: float | None, offset: float | None
) -> npt.NDArray[Any]:
    """Red, green and blue (3, H, W) as an array that the contract takes.

    Args:
        scale, offset: physical = value * scale + offset.

    Raises:
        RequestError: the model takes other bands, or nobody says what the bytes are.
    """
    bands = pixels[spec.select(_RGB, where)]
    if scale is not None or offset is not None:
        return (bands.astype(np.float32) * (1.0 if scale is None else scale) + (offset or 0.0)).astype(np.float32)
    if spec.dtype != "uint8":
        raise RequestError(
            f"{where}: holds bytes, and the model takes {spec.dtype} digital numbers of {spec.quantity}; say how bytes become "
            f"{spec.quantity} with --scale and --offset, e.g. --scale {1 / 255:.6f}"
        )
    return bands


def _pictures(source: Path) -> list[Path]:
    found = sorted(p for p in source.iterdir() if p.suffix.lower() in _PICTURES and not p.name.startswith("."))
    if not found:
        raise RequestError(f"{source}: holds no picture ({', '.join(_PICTURES)})")
    return found


def _folder(source: Path) -> Iterator[Frame]:
    from rsedge.data.scenes.images import read_rgb

    for number, path in enumerate(_pictures(source)):
        yield Frame(number, lambda path=path: read_rgb(path), path.name)  # type: ignore[misc]


def _video(source: Path) -> Iterator[Frame]:
    try:
        import av
    except ModuleNotFoundError as error:
        raise missing_extra("av", "video", f"{source}: reading videos") from error
    require_file(source)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(source.open("rb"))
        try:
            container = stack.enter_context(av.open(file, format=_CONTAINERS[source.suffix.lower()]))
            if not container.streams.video:
                raise RequestError(f"{source}: holds no video")
            for number, one in enumerate(container.decode(video=0)):
                yield Frame(number, lambda one=one: _rgb(one), time_s=one.time)  # type: ignore[misc]
        except av.FFmpegError as error:
            raise RequestError(f"{source}: is no whole video of its kind ({error})") from error


def _rgb(frame: Any) -> Pixels:
    return np.ascontiguousarray(np.moveaxis(frame.to_ndarray(format="rgb24"), -1, 0))
