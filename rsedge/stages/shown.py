"""What a report shows of the test set: the few inputs that verify picks, with their labels and the teacher's outputs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rsedge.tasks.base import Arrays, HeldOut, Prediction, Task
from rsedge.tasks.boxes import BoxTask
from rsedge.tasks.judging import NODATA_CLASS
from rsedge.tasks.maps import MapTask
from rsedge.tasks.samples import SampleHeldOut
from rsedge.tasks.scenes import SceneHeldOut

SHOWN = "shown.npz"
COUNT = 4
LABEL = "label-"
Picks = npt.NDArray[np.intp]


def shown(task: Task, test: HeldOut, teacher: Prediction) -> Arrays:
    """Arrays by name; none of tasks without pictures.

    ``index`` (n,) numbers the inputs in the test set, ``dn`` are they, ``teacher`` what is kept of the teacher's outputs;
    ``label-0`` and so on are what is known of each, and ``share`` (n,) how much of it is judged, where that is not all.
    """
    if isinstance(test, SceneHeldOut):
        tiles = test.tiles
        index = _first(-tiles.counted.sum((1, 2)))
        known = [np.where(tiles.counted[i], tiles.labels[i], NODATA_CLASS) for i in index] if tiles.labelled else []
        return _named(index, test, teacher, known) | {"share": tiles.counted[index].mean((1, 2))}
    if not isinstance(test, SampleHeldOut):
        return {}
    if isinstance(task, MapTask):
        truth = None if task.truth is None else task.truth[test.index]
        judged = teacher if truth is None else truth
        counts = np.stack([(judged == k).sum((1, 2)) for k in range(len(task.classes))], 1)
        index = _first(counts.max(1) - counts.sum(1))
        return _named(index, test, teacher, [] if truth is None else [truth[i] for i in index])
    if isinstance(task, BoxTask):
        boxes = task.reported(teacher) if task.truth is None else [task.truth[i] for i in test.index]
        index = _first(-np.array([len(b) for b in boxes]))
        return _named(index, test, teacher, [] if task.truth is None else [boxes[i] for i in index])
    return {}


def _first(order: npt.NDArray[np.generic]) -> Picks:
    """Numbers of the least of ``order``, in the order of the set."""
    return np.sort(np.argsort(order, kind="stable")[:COUNT])


def _named(
    index: Picks, test: HeldOut, teacher: Prediction, known: list[npt.NDArray[np.generic]]
) -> dict[str, Prediction]:
    labels = {f"{LABEL}{n}": label for n, label in enumerate(known)}
    return {"index": index, "dn": test.inputs[index], "teacher": teacher[index], **labels}
