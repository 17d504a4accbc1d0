"""What tasks share of a report's pictures: which inputs are shown, how they are stored, and class maps beside labels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rsedge.data.bands import InputSpec
from rsedge.reports.assets import TileAsset
from rsedge.tasks.base import Arrays, HeldOut, Prediction
from rsedge.tasks.colours import input_rgb

COUNT = 4
"""Inputs of the test set that a report shows."""
LABEL = "label-"
"""Before the number of what is known of a shown input."""
Picks = npt.NDArray[np.intp]


def first(order: npt.NDArray[np.generic]) -> Picks:
    """Numbers of the least of ``order``, in the order of the set."""
    return np.sort(np.argsort(order, kind="stable")[:COUNT])


def named(
    index: Picks, test: HeldOut, teacher: Prediction, known: list[npt.NDArray[np.generic]]
) -> dict[str, Prediction]:
    """The arrays of :meth:`rsedge.tasks.base.Task.shown` for the inputs that ``index`` numbers, with what is known of each."""
    labels = {f"{LABEL}{n}": label for n, label in enumerate(known)}
    return {"index": index, "dn": test.inputs[index], "teacher": teacher[index], **labels}


def map_assets(spec: InputSpec, kept: Arrays, student: Prediction) -> list[TileAsset]:
    """Class maps beside their labels; of a tile, pixels of other roles are shown, but judged nowhere."""
    share, two = kept.get("share"), spec.layout == "TCHW"
    return [
        TileAsset(
            name=f"test {'sample' if share is None else 'tile'} {number + 1}",
            rgb=input_rgb(spec, dn[-1] if two else dn),
            teacher=kept["teacher"][i],
            student=student[i],
            label=kept.get(f"{LABEL}{i}"),
            caption="" if share is None else f"{share[i]:.0%} of it lies in test blocks",
            before=input_rgb(spec, dn[0]) if two else None,
        )
        for i, (number, dn) in enumerate(zip(kept["index"], kept["dn"], strict=True))
    ]
