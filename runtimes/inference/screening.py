"""A cascade: the class map of a small bundle (clouds, open sea, nothing here) says which tiles a larger one need not see.

The filter maps a scene first. What it calls one of the named classes is nodata in the larger bundle's answer, and a tile of which
too little is left is not run. Where no tile is left out for that, the answer is, bit for bit, the one without a filter with those
pixels hidden: a filter changes what is seen, never what the model sees.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.data.files import no_room
from rsedge.data.temporary import TemporaryFolder
from rsedge.runtimes.bundle.reading import Bundle
from rsedge.runtimes.bundle.self_test import SelfTested
from rsedge.runtimes.inference.scene import predict_rows
from rsedge.runtimes.inference.scene_run import SceneRun
from rsedge.runtimes.inference.tiles import Progress, Scene, panels

LEAST = 0.05
"""Of a tile that must be left for it to be run, where nobody says otherwise."""
_BITS = 8


@dataclass(frozen=True)
class Screening:
    """What a filter is asked.

    Attributes:
        bundle: gives class maps of single scenes.
        session: opens its model, or gives the one that is open.
        drops: its classes that the larger bundle need not see.
        least: share of a tile that must be left, from 0 (any pixel) up to 1.

    Raises:
        RequestError: another kind of bundle, a class that it does not have, or a share outside 0 .. 1.
    """

    bundle: Bundle
    session: Callable[[], SelfTested]
    drops: tuple[str, ...]
    least: float = LEAST

    def __post_init__(self) -> None:
        manifest = self.bundle.manifest
        if manifest.task != "segmentation" or manifest.input_spec.layout != "CHW":
            raise RequestError(
                f"--filter {self.bundle.path}: a filter gives class maps of single scenes, this one does not"
            )
        known = ", ".join(manifest.classes)
        if not self.drops:
            raise RequestError(f"--filter {self.bundle.path}: --filter-drops names what need not be seen, of {known}")
        for name in self.drops:
            if name not in manifest.classes:
                near = difflib.get_close_matches(name, manifest.classes, 1)
                hint = f"; did you mean '{near[0]}'?" if near else ""
                raise RequestError(f"--filter-drops {name}: no class of the filter, which has {known}{hint}")
        if not 0 <= self.least < 1:
            raise RequestError(f"--filter-least {self.least:g}: a share of a tile, from 0 up to but not 1")


@dataclass
class Screen:
    """What a filter found on a scene: a bit per pixel, in a file, and how many tiles were spared by it.

    Attributes:
        hidden_pixels: that the filter drops; of scenes of several dates, on any of them.
        spared: tiles that would have been run without a filter. run: those that were.
        failed_tiles: of the filter itself, on which nothing is hidden.
        seconds: wall and processor time of the filter itself, reading included.
    """

    screening: Screening
    width: int
    bits: npt.NDArray[np.uint8]
    hidden_pixels: int = 0
    spared: int = 0
    run: int = 0
    failed_tiles: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def hidden(self, row: int, col: int, height: int, width: int) -> npt.NDArray[np.bool_]:
        """Which pixels of a window are dropped, [height, width]; none beyond the scene."""
        found = np.zeros((height, width), bool)
        part = self.bits[row : row + height, col // _BITS : -(-min(col + width, self.width) // _BITS)]
        plain = np.unpackbits(part, axis=1).view(bool)[:, col % _BITS :][:, : min(width, self.width - col)]
        found[: plain.shape[0], : plain.shape[1]] = plain
        return found

    def spares(self, missing: npt.NDArray[np.bool_]) -> bool:
        """Whether too little of a tile is left for it to be run; counts it."""
        left = 1.0 - float(missing.mean())
        spared = left <= 0 or left < self.screening.least
        self.spared += spared
        self.run += not spared
        return spared

    def record(self, infer_s: float | None) -> dict[str, Any]:
        """``bundle``, ``target``, ``manifest_sha256``, ``drops``, ``least``, ``hidden_pixels``, ``tiles``, ``spared_tiles``,
        ``spared_share``, the filter's own ``failed_tiles_count``, ``wall_s`` and ``processor_s``, and ``saved_processor_s``: what
        the spared tiles would have taken, at ``infer_s`` for those that ran, less the filter's own; None where that is not known.
        """
        manifest, tiles = self.screening.bundle.manifest, self.run + self.spared
        saved = None
        if infer_s is not None and self.run:
            saved = round(infer_s / self.run * self.spared - self.seconds["processor_s"], 3)
        return {
            "bundle": str(self.screening.bundle.path),
            "target": manifest.target.name,
            "manifest_sha256": self.screening.bundle.manifest_sha256,
            "drops": list(self.screening.drops),
            "least": self.screening.least,
            "hidden_pixels": self.hidden_pixels,
            "tiles": tiles,
            "spared_tiles": self.spared,
            "spared_share": round(self.spared / tiles, 4) if tiles else None,
            "failed_tiles_count": self.failed_tiles,
            **{name: round(value, 3) for name, value in self.seconds.items()},
            "saved_processor_s": saved,
        }


@contextlib.contextmanager
def screened(screening: Screening, scenes: Sequence[Scene], progress: Progress | None = None) -> Iterator[Screen]:
    """What a filter finds on the dates of one place, as long as it is needed; the map lies in a temporary file.

    Raises:
        RequestError, IntegrityError: as :func:`rsedge.runtimes.inference.scene.predict_rows`.
        MissingCapability: no room for a bit per pixel in the temporary folder.
    """
    height, width = scenes[0].height, scenes[0].width
    with TemporaryFolder() as folder:
        bits = _bits(folder / "bits", height, -(-width // _BITS))
        screen = Screen(screening, width, bits)
        wall, processor = time.perf_counter(), time.process_time()
        for scene in scenes:
            _mark(screen, scene, progress)
        screen.hidden_pixels = sum(int(np.unpackbits(part).sum()) for part in _rows(bits))
        screen.seconds = {"wall_s": time.perf_counter() - wall, "processor_s": time.process_time() - processor}
        try:
            yield screen
        finally:
            del bits, screen.bits


def _bits(place: Path, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Zeros in a file, whose room is taken now: a full disk would end the process where they are written."""
    try:
        with place.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, height * width)
        return np.memmap(place, np.uint8, "r+", shape=(height, width))
    except OSError as error:
        raise no_room(place, error) or MissingCapability(f"{place}: {error}") from error


def _mark(screen: Screen, scene: Scene, progress: Progress | None) -> None:
    screening = screen.screening
    classes = screening.bundle.manifest.classes
    dropped = np.zeros(256, bool)
    dropped[[classes.index(name) for name in screening.drops]] = True
    run = SceneRun()
    found = predict_rows(screening.session(), scene, progress=progress, classes=classes, panels=panels, run=run)
    with contextlib.closing(found):
        for rows in found:
            packed = np.packbits(dropped[rows.classes], axis=1)  # panels begin at multiples of more than 8
            here = slice(rows.col // _BITS, rows.col // _BITS + packed.shape[1])
            screen.bits[rows.start : rows.start + len(packed), here] |= packed
    screen.failed_tiles += len(run.failed)


def _rows(bits: npt.NDArray[np.uint8], at_once: int = 1024) -> Iterator[npt.NDArray[np.uint8]]:
    for row in range(0, len(bits), at_once):
        yield bits[row : row + at_once]


def filter_text(record: dict[str, Any]) -> str:
    """What a filter spared, in a line, for a terminal."""
    share = "" if record["spared_share"] is None else f" ({record['spared_share']:.0%})"
    saved = record["saved_processor_s"]
    worth = ""
    if saved is not None:
        worth = (
            f"; predicted {abs(saved):.1f} processor seconds {'saved' if saved >= 0 else 'MORE than without a filter'}"
        )
    failed = record["failed_tiles_count"]
    lost = f"; {failed} tiles of the filter FAILED and hide nothing" if failed else ""
    return (
        f"filter {record['target']}: {', '.join(record['drops'])} on {record['hidden_pixels']:,} pixels; "
        f"{record['spared_tiles']:,} of {record['tiles']:,} tiles spared{share} "
        f"in {record['processor_s']:.1f} processor seconds{worth}{lost}"
    )
