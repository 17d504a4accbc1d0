"""Tiles as small inline PNG images: RGB, class maps and where teacher and student differ."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.boxes.geometry import CORNERS, TRUTH, outlines, places
from rsedge.reports.assets import ClassMap

Rgb = npt.NDArray[np.uint8]
# Colours of the disagreement image: told apart by lightness as well as by hue.
STUDENT_RIGHT = (0, 114, 178)
TEACHER_RIGHT = (213, 94, 0)
NEITHER_RIGHT = (240, 228, 66)
UNJUDGED = (204, 121, 167)
DIFFERENCES = tuple(
    (name, "#{:02x}{:02x}{:02x}".format(*colour))
    for name, colour in (
        ("student right, teacher wrong", STUDENT_RIGHT),
        ("teacher right, student wrong", TEACHER_RIGHT),
        ("they differ and neither is right", NEITHER_RIGHT),
        ("they differ where there is no label", UNJUDGED),
    )
)
"""What the colours of the disagreement image say."""
CASES = (
    ("both right", "#c8d5bb"),
    ("teacher right, student wrong", "#{:02x}{:02x}{:02x}".format(*TEACHER_RIGHT)),
    ("student right, teacher wrong", "#{:02x}{:02x}{:02x}".format(*STUDENT_RIGHT)),
    ("both wrong", "#{:02x}{:02x}{:02x}".format(*NEITHER_RIGHT)),
    ("they agree, no label", "#e4e4e4"),
    ("they differ, no label", "#{:02x}{:02x}{:02x}".format(*UNJUDGED)),
)
"""Of a pixel: what became of teacher and student there, with colours; their numbers are the values of :func:`cases`."""
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
    """The image with the edges of boxes, (n, 5) of corners (pixels) and class number or (n, 6) of turned ones
    (:mod:`rsedge.data.boxes.geometry`), in the colours of their classes."""
    out, most = rgb.copy(), np.array(rgb.shape[1::-1]) - 1
    # Edges are the outermost pixels inside.
    inner = boxes - np.array([0, 0, 1, 1] + [0] * (boxes.shape[1] - CORNERS))
    for ring, number in zip(outlines(places(inner, TRUTH)), boxes[:, CORNERS].astype(int), strict=True):
        colour = colours[number % len(colours)]
        steps = np.linspace(0, 1, 2 * int(np.abs(np.roll(ring, -1, 0) - ring).max()) + 2)[:, None, None]
        points = (ring + (np.roll(ring, -1, 0) - ring) * steps).reshape(-1, 2)
        x, y = points.round().astype(int).clip(0, most).T
        out[y, x] = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return out


def disagreement(rgb: Rgb, teacher: ClassMap, student: ClassMap, label: ClassMap | None) -> Rgb:
    """The scene in pale grey with the pixels coloured where teacher and student differ.

    With a label: blue where the student is right, vermilion where the teacher is, yellow where neither is. Without one,
    or where the label judges nothing (255), purple.
    """
    grey = rgb.astype(np.float32).mean(axis=2, keepdims=True)
    out = np.repeat((140 + grey * 0.45).clip(0, 255).astype(np.uint8), 3, axis=2)
    differ = (teacher != student) & (teacher != 255) & (student != 255)
    out[differ] = UNJUDGED
    if label is not None:
        judged = differ & (label != 255)
        out[judged & (student != label) & (teacher != label)] = NEITHER_RIGHT
        out[judged & (student == label)] = STUDENT_RIGHT
        out[judged & (teacher == label)] = TEACHER_RIGHT
    return out


def cases(teacher: ClassMap, student: ClassMap, label: ClassMap) -> npt.NDArray[np.uint8]:
    """The number in :data:`CASES` of each pixel of three class maps of one shape; 255 where one of the two has no answer."""
    right, alike = [found == label for found in (teacher, student)], teacher == student
    known = np.select([right[0] & right[1], right[0], right[1]], [0, 1, 2], 3)
    found = np.where(label == 255, np.where(alike, 4, 5), known)
    return np.where((teacher == 255) | (student == 255), 255, found).astype(np.uint8)


def differing_share(teacher: ClassMap, student: ClassMap) -> float:
    """Share of pixels, among those with data, where the two differ."""
    valid = (teacher != 255) & (student != 255)
    return float(((teacher != student) & valid).sum() / max(1, int(valid.sum())))
