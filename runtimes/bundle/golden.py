"""The golden vector: stored inputs and outputs that an executable must give again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.boxes.candidates import BOX, certainties
from rsedge.data.boxes.geometry import Floats
from rsedge.data.errors import IntegrityError
from rsedge.runtimes.bundle.manifest import Manifest
from rsedge.runtimes.session import LOGITS, VALID, Array, Arrays


@dataclasses.dataclass(frozen=True)
class GoldenResult:
    """How the executable's output compares with the stored one, over valid pixels."""

    passed: bool
    max_abs_difference: float
    agreement: float
    valid_equal: bool
    atol: float
    agreement_min: float
    n: int

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def compare(manifest: Manifest, path: Path, stored: Arrays, logits: Array, valid: Array) -> GoldenResult:
    """Outputs of golden tiles against those stored, by the limits of the manifest; ``path`` is the bundle, for messages.

    Raises:
        IntegrityError: they have another shape.
    """
    golden = manifest.golden
    if logits.shape != stored[LOGITS].shape or valid.shape != stored[VALID].shape:
        raise IntegrityError(
            f"{path}: the model gives logits {logits.shape}, the golden vector has {stored[LOGITS].shape}"
        )
    mask = stored[VALID].astype(bool)
    keep = on_grid(mask, logits) if logits.ndim == 4 else np.ones(len(logits), dtype=bool)
    if manifest.boxes is not None:
        difference, same = (found.ravel() for found in candidate_gaps(stored[LOGITS], logits, manifest.boxes.oriented))
    else:
        difference = np.abs(logits - stored[LOGITS]).max(axis=1)[keep]
        same = (logits.argmax(1) == stored[LOGITS].argmax(1))[keep]
    worst = float(difference.max()) if difference.size else 0.0
    agreement = float(same.mean()) if same.size else 1.0
    equal = bool(np.array_equal(valid.astype(bool), mask))
    passed = equal and worst <= golden.atol and agreement >= golden.agreement_min
    return GoldenResult(passed, worst, agreement, equal, golden.atol, golden.agreement_min, int(difference.size))


def on_grid(mask: npt.NDArray[np.bool_], logits: Array) -> npt.NDArray[np.bool_]:
    """A mask (N, T, T) on the grid of logits (N, K, k T, k T), which may be finer, or coarser: what shows in part is seen."""
    count, edge = len(mask), logits.shape[-1]
    if edge < mask.shape[-1]:
        step = mask.shape[-1] // edge
        return np.asarray(mask.reshape(count, edge, step, edge, step).any((2, 4)))
    finer = edge // mask.shape[-1]
    return mask if finer == 1 else mask.repeat(finer, -2).repeat(finer, -1)


def candidate_gaps(reference: Floats, found: Floats, oriented: bool = False) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """How candidates (N, A, ...) differ, each (N, A): the largest difference, box columns as shares of the largest box
    figure of the reference (so that pixels and scores count alike); and whether both are boxes of the same class, or none.
    """
    unit = max(1.0, float(np.abs(reference[..., :BOX]).max(initial=0)))
    gap = np.abs(found.astype(np.float64) - reference)
    gap[..., :BOX] /= unit
    same = _classes_of(reference, oriented) == _classes_of(found, oriented)
    return gap.max(-1).astype(np.float32), same


def _classes_of(candidates: Floats, oriented: bool, score: float = 0.25) -> npt.NDArray[np.int64]:
    certain = certainties(candidates, oriented)
    return np.where(certain.max(-1) > score, certain.argmax(-1), -1)
