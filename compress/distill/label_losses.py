"""What is learned of labels beside the teacher. Unknown labels count for nothing: classes below 0 or above the last, and NaN."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rsedge.compress.distill.losses import Given, boxes


def label_loss(student: Tensor, labels: Tensor, given: Given) -> Tensor:
    """Mean over the known places of each view, then over the views of the batch; a view without any counts as 0.

    ``classes``: cross-entropy, logits (N, K, ...) beside (N, ...). ``labels``: binary cross-entropy of each, (N, K). ``values`` and
    ``image``: squared distance over the training set's variance of the teacher's, any shape. ``boxes``: see :func:`.losses.boxes`.
    """
    if given.kind == "boxes":
        return boxes(student.float(), labels.float(), given)
    found, wanted = student.float(), labels.float()
    if given.kind == "classes":
        known = torch.isfinite(wanted) & (wanted >= 0) & (wanted < found.shape[1])
        apart = F.cross_entropy(found, torch.where(known, wanted, 0).long(), reduction="none")
    else:
        known = torch.isfinite(wanted)
        wanted = torch.where(known, wanted, 0)
        if given.kind == "labels":
            known = known & (wanted >= 0)
            apart = F.binary_cross_entropy_with_logits(found, wanted.clamp(0, 1), reduction="none")
        else:
            scale = given.known.column_variance if given.kind == "values" else given.known.variance
            apart = (found - wanted) ** 2 / scale
    per_view = (apart * known).flatten(1).sum(1) / known.flatten(1).sum(1).clamp(min=1)
    return per_view.mean()
