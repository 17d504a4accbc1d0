"""Turned boxes of a detector in two parts: an image's maps and anchors, then its proposals (:mod:`rsedge.data.boxes.proposals`)."""

from __future__ import annotations

from collections.abc import Sequence

from rsedge.data.boxes.proposals import OrientedBoxes, OrientedSettings, proposals, reported
from rsedge.runtimes.session import Array, Arrays
from rsedge.runtimes.wholes.base import Parts


def detections(
    parts: Parts, names: Sequence[str], image: Array, settings: OrientedSettings | None = None
) -> OrientedBoxes:
    """Both parts on one normalised image (1, bands, edge, edge), down to what is reported.

    Args:
        names: of the first and the second part.
    """
    first, second = (parts[name] for name in names)
    known: Arrays = {"image": image, **first({"image": image})}
    count = second.inputs["boxes"][0][1]
    boxes, found = proposals(known["objectness"][0], known["offsets"][0], image.shape[-1], count, settings)
    known["boxes"] = boxes[None]
    answer = second({name: known[name] for name in second.inputs})
    return reported(answer["scores"][0, :found], answer["refined"][0, :found], settings)
