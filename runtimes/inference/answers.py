"""Tiles through a session, one after the other though several are in flight; a tile that fails alone does not end the others."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import IntegrityError, RequestError
from rsedge.runtimes.inference.scene_run import SceneRun
from rsedge.runtimes.inference.tiles import Scene
from rsedge.runtimes.session import INPUT, LOGITS, Array, Arrays, Session

_HOPELESS = 8
"""Tiles that fail before any has an answer: then it is not the tiles."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a tile belongs: number of its panel, of its row and column of tiles, and its first pixel; what is missing of it."""

    panel: int
    i: int
    j: int
    row: int
    col: int
    missing: npt.NDArray[np.bool_]


class _Tiles:
    """What is still to be run, and what is on its way."""

    def __init__(self, tiles: Iterator[tuple[Place, Array]], run: SceneRun) -> None:
        self._tiles, self._run = tiles, run
        self.waiting: collections.deque[tuple[Place, Array]] = collections.deque()
        self.broken = False

    def feeds(self) -> Iterator[dict[str, Array]]:
        while True:
            try:
                found = next(self._tiles, None)
            except BaseException:
                self.broken = True
                raise
            if found is None:
                return
            self.waiting.append(found)
            self._run.tiles += 1
            yield {INPUT: found[1]}


def answers(
    session: Session, tiles: Iterator[tuple[Place, Array]], run: SceneRun
) -> Iterator[tuple[Place, Arrays | None]]:
    """Each tile's outputs in the order of the tiles, None of one that fails, which ``run`` is told.

    When a run of several tiles fails, those that were on their way run once more, one by one, so that only those fail that do so
    alone.

    Raises:
        IntegrityError: a self-test fails. RsedgeError: the model fails on the first tiles, all of them.
        What making the tiles raises.
    """
    left, answered = _Tiles(tiles, run), run.kept_rows > 0  # rows are kept once the model has proved itself on them
    while True:
        try:
            for outputs in session.stream(left.feeds()):
                answered = True
                yield left.waiting.popleft()[0], outputs
            return
        except IntegrityError:
            raise
        except (RequestError, RuntimeError, ValueError):
            if left.broken or not left.waiting:
                raise
        while left.waiting:
            place, dn = left.waiting.popleft()
            answer = _alone(session, place, dn, run, answered)
            answered = answered or answer is not None
            yield place, answer


def _alone(session: Session, place: Place, dn: Array, run: SceneRun, answered: bool) -> Arrays | None:
    try:
        return session({INPUT: dn})
    except IntegrityError:
        raise
    except (RequestError, RuntimeError, ValueError) as error:
        failed = run.fail(place.row, place.col, error)
    if not answered and len(run.failed) >= _HOPELESS:
        raise failed
    return None


def finite(outputs: Arrays | None, place: Place, reader: Scene, run: SceneRun) -> Array | None:
    """The logits of a tile; None of one without an answer, and of one with NaN or infinity, which ``run`` is told."""
    if outputs is None:
        return None
    logits: Array = outputs[LOGITS][0]
    if np.isfinite(logits).all():
        return logits
    run.fail(place.row, place.col, no_number(reader, place))
    return None


def no_number(reader: Scene, place: Place) -> IntegrityError:
    """That a model gives NaN or infinity in a tile."""
    return IntegrityError(
        f"{reader.path}: the model gives NaN or infinity in the tile at row {place.row}, column {place.col}; check the bundle "
        "with `rsedge verify`"
    )
