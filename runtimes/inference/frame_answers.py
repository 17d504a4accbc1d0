"""What is said of one frame, by the form of a bundle's answer: shares of classes, objects in pixels, or a vector."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rsedge.data.bands import InputSpec
from rsedge.data.boxes.geometry import FOUND
from rsedge.data.errors import RequestError
from rsedge.data.files import write_bytes
from rsedge.runtimes.bundle.manifest import NODATA_CLASS
from rsedge.runtimes.inference.frames import Frame, as_input, mask_of
from rsedge.runtimes.inference.object_files import rows_of
from rsedge.runtimes.inference.raster_parts import palette

Array = npt.NDArray[Any]


class Predicts(Protocol):
    """An opened bundle; :class:`rsedge.Bundle` is one."""

    @property
    def spec(self) -> InputSpec: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def predict(self) -> Callable[..., Any]: ...


def answers(
    bundle: Predicts, source: Path, scale: float | None, offset: float | None, score: float | None, masks: Path | None
) -> Callable[[Frame], dict[str, Any]]:
    """What answers for a frame of ``source``.

    Args:
        scale, offset: as :func:`rsedge.runtimes.inference.frames.as_input`. masks: folder for class maps.

    Raises:
        RequestError: when a frame is asked for: the bundle takes other bands or sizes, or gives what has no form here.
    """
    options = {} if score is None else {"score": score}

    def answer(frame: Frame) -> dict[str, Any]:
        where = f"{source}: frame {frame.number}"
        warnings = list[str]()
        found = bundle.predict(
            as_input(frame.pixels(), bundle.spec, where, scale, offset), warn=warnings.append, **options
        )
        if masks is not None:
            if not _is_map(found):
                raise RequestError(f"{where}: --masks are of class maps, and this bundle gives none; leave it out")
            write_bytes(mask_of(masks, frame.number, frame.name), palette_png(found, bundle.classes))
        return said_of(found, bundle.classes, where) | ({"warnings": warnings} if warnings else {})

    return answer


def said_of(found: Any, classes: Sequence[str], where: str) -> dict[str, Any]:
    """An answer as JSON: ``classes`` (shares of the seen pixels) and ``nodata`` (share), ``objects``, or ``vector``.

    Raises:
        RequestError: another form.
    """
    if not isinstance(found, np.ndarray):
        raise RequestError(f"{where}: what this bundle gives has no form for frames")
    if _is_map(found):
        counts = np.bincount(found.ravel(), minlength=256)
        seen = max(int(counts[:NODATA_CLASS].sum()), 1)
        shares = {name: round(int(n) / seen, 6) for name, n in zip(classes, counts, strict=False)}
        return {"classes": shares, "nodata": round(int(counts[NODATA_CLASS]) / max(found.size, 1), 6)}
    if found.ndim == 2 and found.shape[1] in (FOUND, FOUND + 1):
        return {"objects": [_object(box, row, classes) for box, row in zip(found, rows_of(found), strict=True)]}
    if found.ndim == 1:
        return {"vector": [round(float(v), 6) for v in found]}
    raise RequestError(f"{where}: what this bundle gives ({found.ndim} axes) has no form for frames")


def _object(box: Array, place: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    return {"class": classes[int(box[5])], "score": round(float(box[4]), 4), **place}


def palette_png(classes: npt.NDArray[np.uint8], names: Sequence[str]) -> bytes:
    """A class map (H, W) as a PNG of bytes with the classes' colours; nodata is transparent."""
    height, width = classes.shape
    colours = palette(names)
    table = b"".join(bytes(colours.get(i, (0, 0, 0, 255))[:3]) for i in range(256))
    rows = np.concatenate([np.zeros((height, 1), np.uint8), classes], axis=1)
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)), (b"PLTE", table), (b"tRNS", b"\xff" * 255 + b"\0"),
        (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b""),
    )  # fmt: skip
    chunks = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _is_map(found: Any) -> bool:
    return isinstance(found, np.ndarray) and found.dtype == np.uint8 and found.ndim == 2
