"""Do torch, ONNX Runtime and OpenVINO give the same numbers at f32? Stated per artefact."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from rsedge.data.errors import RequestError
from rsedge.export.onnx.graph import Deployable, Output
from rsedge.runtimes.bundle.golden import candidate_gaps, on_grid
from rsedge.runtimes.file_checks import Difference
from rsedge.runtimes.opening import open_session
from rsedge.runtimes.session import INPUT, LOGITS, VALID, Array, Session


@dataclasses.dataclass(frozen=True)
class Outputs:
    """Stacked results of several tiles.

    logits ``(N, K, T, T)``, ``(N, K)``, candidates ``(N, A, 5 + K)`` or tokens ``(N, K, D)`` float32, valid uint8
    ``(N, [frames,] T, T)``.
    """

    logits: npt.NDArray[np.float32]
    valid: npt.NDArray[np.uint8]


def parity(
    net: Deployable,
    onnx_path: str | Path,
    xml_path: str | Path | None,
    samples: Sequence[Array],
    threads: int | None = None,
) -> dict[str, Difference]:
    """Runs the same DN tiles through torch, ONNX Runtime and OpenVINO, all at f32 on the CPU: differences from torch, by runtime.

    Args:
        samples: tiles ``(1, C, T, T)`` in the contract's dtype, at least one; real imagery if the numbers are to mean
            anything.
    """
    if not samples:
        raise RequestError("parity needs at least one tile")
    reference = run_torch(net, samples)
    artefacts = {"onnxruntime": onnx_path, **({"openvino": xml_path} if xml_path is not None else {})}
    found = {}
    for runtime, path in artefacts.items():
        with contextlib.closing(open_session(path, runtime, precision="f32", threads=threads)) as session:
            found[runtime] = compare(reference, run_session(session, samples), net.output)
    return found


def run_torch(net: Deployable, samples: Iterable[Array]) -> Outputs:
    """The deployable graph in torch, tile by tile."""
    with torch.inference_mode():
        results = [net(torch.from_numpy(np.ascontiguousarray(dn))) for dn in samples]
    return Outputs(
        np.concatenate([logits.numpy() for logits, _ in results]),
        np.concatenate([valid.numpy() for _, valid in results]),
    )


def run_session(session: Session, samples: Iterable[Array]) -> Outputs:
    """Any session, tile by tile."""
    results = [session({INPUT: dn}) for dn in samples]
    return Outputs(np.concatenate([r[LOGITS] for r in results]), np.concatenate([r[VALID] for r in results]))


def compare(reference: Outputs, candidate: Outputs, output: Output = "map") -> Difference:
    """How ``candidate`` differs from ``reference``; both must hold the same tiles.

    Args:
        output: what outputs are, where they have three axes: ``tokens``, candidates of ``oriented`` boxes, or of others.
    """
    if reference.logits.shape != candidate.logits.shape:
        raise RequestError(f"logits differ in shape: {reference.logits.shape} and {candidate.logits.shape}")
    if reference.logits.ndim == 3 and output != "tokens":
        return _compare_boxes(reference, candidate, output == "oriented")
    vector = reference.logits.ndim < 4
    keep = np.ones(len(reference.logits), bool) if vector else on_grid(_valid_pixels(reference.valid), reference.logits)
    gap = np.abs(candidate.logits.astype(np.float64) - reference.logits)
    per_pixel = gap.max(axis=1)[keep]
    same = (candidate.logits.argmax(1) == reference.logits.argmax(1))[keep]
    return Difference(
        max_abs=float(per_pixel.max()) if per_pixel.size else 0.0,
        mean_abs=float(gap.mean(axis=1)[keep].mean()) if per_pixel.size else 0.0,
        agreement=float(same.mean()) if same.size else 1.0,
        valid_equal=bool(np.array_equal(reference.valid, candidate.valid)),
        logit_scale=float(np.abs(reference.logits).max()),
        tiles=len(reference.logits),
        pixels=int(keep.sum()),
    )


def _compare_boxes(reference: Outputs, candidate: Outputs, oriented: bool) -> Difference:
    """As :func:`compare`, for candidates: box figures as shares of the largest one, and agreement on what is a box."""
    gap, same = candidate_gaps(reference.logits, candidate.logits, oriented)
    return Difference(
        max_abs=float(gap.max()), mean_abs=float(gap.mean()), agreement=float(same.mean()),
        valid_equal=bool(np.array_equal(reference.valid, candidate.valid)), logit_scale=1.0, tiles=len(gap), pixels=gap.size,
    )  # fmt: skip


def _valid_pixels(valid: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Pixels (N, T, T) that are valid, of several frames (N, frames, T, T) in each of them."""
    pixels: npt.NDArray[np.bool_] = valid.astype(bool)
    return np.asarray(pixels.all(axis=1)) if pixels.ndim == 4 else pixels
