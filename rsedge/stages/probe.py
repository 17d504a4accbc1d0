"""The stage of ``teacher.probe``: the head of an embedding teacher, fitted on labels of the training samples."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from rsedge.cache.stage import StageContext, StageResult
from rsedge.data.files import atomic_path
from rsedge.models.families.probe import pooled
from rsedge.models.probe import LinearHead, fit_head, probe_of, set_head
from rsedge.models.teachers import Teacher
from rsedge.results.records import Probe as ProbeRecord
from rsedge.stages.context import RunContext
from rsedge.stages.outputs import VECTORS
from rsedge.stages.teacher_model import teacher_key
from rsedge.tasks.base import Inputs

HEAD = "head.safetensors"
CHUNK = 256
"""Samples whose vectors are kept together: what an interruption loses."""


def probe_stage(context: StageContext, ctx: RunContext) -> ProbeRecord:
    """Writes :data:`HEAD` and, of all samples, :data:`VECTORS`; returns the record.

    Raises:
        RequestError: no labels, or labels that do not fit ``teacher.classes``.
        MissingCapability: scikit-learn is not installed.
    """
    given = ctx.task.probe_samples
    vectors = _vectors(context, ctx, given.inputs)
    with atomic_path(context.folder / VECTORS.name) as path, path.open("wb") as f:
        np.save(f, vectors)
    index = given.train
    head = _fitted(ctx, vectors, index)
    with atomic_path(context.folder / HEAD) as path:
        save_file({"weight": torch.from_numpy(head.weight), "bias": torch.from_numpy(head.bias)}, path)
    return ProbeRecord(samples=len(index), features=vectors.shape[1], penalties=head.penalties, scores=head.scores)


def try_labels(ctx: RunContext) -> None:
    """Looks whether labels fit the head, which gets weights of a fixed seed instead of being fitted: for a dry run.

    Raises:
        RequestError: as :func:`probe_stage`.
    """
    _ = ctx.task.probe_samples
    torch.manual_seed(0)
    nn.init.normal_(probe_of(ctx.teacher).head.weight, std=0.1)


def take_head(ctx: RunContext, result: StageResult[ProbeRecord]) -> None:
    """Fills the teacher's head with what the stage left."""
    probe_of(ctx.teacher).head.load_state_dict(load_file(result.path(HEAD)))
    ctx.teacher_key = teacher_key(ctx.teacher)


def refitted(ctx: RunContext, index: npt.NDArray[np.intp]) -> Teacher:
    """The teacher with a head that knows the samples numbered in ``index`` alone."""
    vectors: npt.NDArray[np.float32] = np.load(VECTORS.of(ctx.folders), allow_pickle=False)
    teacher = copy.deepcopy(ctx.teacher)
    set_head(teacher, _fitted(ctx, vectors, index))
    return teacher


def _fitted(ctx: RunContext, vectors: npt.NDArray[np.float32], index: npt.NDArray[np.intp]) -> LinearHead:
    task, given = ctx.task, ctx.task.probe_samples
    return fit_head(
        vectors[index], given.labels[index], task.kind, task.classes, given.groups[index],
        lambda done, total: ctx.reporter.step("fit the head", done, total),
    )  # fmt: skip


def _vectors(context: StageContext, ctx: RunContext, dn: Inputs) -> npt.NDArray[np.float32]:
    """The encoder's vectors of all samples (N, D); goes on behind the last chunk that is done."""
    encoder, count, parts = probe_of(ctx.teacher).encoder.to(ctx.recipe.device), len(dn), []
    for start in range(0, count, CHUNK):
        stored: Path = context.resume / f"vectors-{start}.npy"
        if not stored.is_file():
            x = ctx.seen_as(ctx.teacher.spec.input_spec).read(dn[start : start + CHUNK])
            with atomic_path(stored) as path, path.open("wb") as f:
                np.save(f, _encoded(encoder, x, ctx, start, count))
        parts.append(np.load(stored, allow_pickle=False))
    return np.concatenate(parts)


def _encoded(
    encoder: nn.Module, x: npt.NDArray[np.float32], ctx: RunContext, before: int, count: int, batch: int = 8
) -> npt.NDArray[np.float32]:
    found = []
    for i in range(0, len(x), batch):
        with torch.inference_mode():
            found.append(pooled(encoder(torch.from_numpy(x[i : i + batch]).to(ctx.recipe.device))).float().cpu())
        ctx.reporter.step("teacher's vectors", min(before + i + batch, count), count)
    return torch.cat(found).numpy()
