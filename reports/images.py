"""Tiles as small inline PNG images: RGB, class maps and where teacher and student differ."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.reports.assets import ClassMap

Rgb = npt.NDArray[np.uint8]
# Colours of the disagreement image: told apart by lightness as well as by hue.
STUDENT_RIGHT = (0, 114, 178)
TEACHER_RIGHT = (213, 94, 0)
NEITHER_RIGHT = (240, 228, 66)
NO_DATA = (128, 128, 128)


def png(image: Rgb) -> bytes:
    """A PNG file of a uint8 image (H, W, 3)."""
    height, width, _ = image.shape
    rows = np.zeros((height, 1 + 3 * width), dtype=np.uint8)
    rows[:, 1:] = np.ascontiguousarray(image).reshape(height, 3 * width)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, body) for kind, body in parts)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def data_uri(image: Rgb) -> str:
    """The image as a ``data:`` address for an inline picture."""
    return "data:image/png;base64," + base64.b64encode(png(image)).decode()


def thin_out(array: npt.NDArray[np.generic], longest: int = 256) -> npt.NDArray[np.generic]:
    """Every n-th pixel, so that no edge is longer than ``longest``; class maps keep whole classes that way."""
    step = max(1, -(-max(array.shape[:2]) // longest))
    return array[::step, ::step]


def paint(classes: ClassMap, colours: Sequence[str]) -> Rgb:
    """A class map (H, W) as an RGB image; values that are no class become grey."""
    table = np.full((256, 3), NO_DATA, dtype=np.uint8)
    for index, colour in enumerate(colours):
        table[index] = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return table[np.clip(classes, 0, 255).astype(np.uint8)]


def outlined(rgb: Rgb, boxes: npt.NDArray[np.floating[Any]], colours: Sequence[str]) -> Rgb:
    """The image with the edges of boxes (n, 5), corners (pixels) and class number, in the colours of their classes."""
    out, (height, width) = rgb.copy(), rgb.shape[:2]
    for x0, y0, x1, y1, number in boxes.round().astype(int):
        colour = colours[number % len(colours)]
        left, right = (int(np.clip(x, 0, width - 1)) for x in (x0, x1 - 1))
        top, bottom = (int(np.clip(y, 0, height - 1)) for y in (y0, y1 - 1))
        tone = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        out[[top, bottom], left : right + 1] = tone
        out[top : bottom + 1, [left, right]] = tone
    return out


def disagreement(rgb: Rgb, teacher: ClassMap, student: ClassMap, label: ClassMap | None) -> Rgb:
    """The scene in pale grey with the pixels coloured where teacher and student differ.

    With a label: blue where the student is right, vermilion where the teacher is, yellow where neither is. Without one,
    or where the label judges nothing (255), vermilion.
    """
    grey = rgb.astype(np.float32).mean(axis=2, keepdims=True)
    out = np.repeat((140 + grey * 0.45).clip(0, 255).astype(np.uint8), 3, axis=2)
    differ = (teacher != student) & (teacher != 255) & (student != 255)
    out[differ] = TEACHER_RIGHT
    if label is not None:
        judged = differ & (label != 255)
        out[judged & (student != label) & (teacher != label)] = NEITHER_RIGHT
        out[judged & (student == label)] = STUDENT_RIGHT
    return out


def differing_share(teacher: ClassMap, student: ClassMap) -> float:
    """Share of pixels, among those with data, where the two differ."""
    valid = (teacher != 255) & (student != 255)
    return float(((teacher != student) & valid).sum() / max(1, int(valid.sum())))
