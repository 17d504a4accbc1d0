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
from rsedge.data.errors import RequestError
from rsedge.data.files import atomic_path
from rsedge.models.families.probe import Probe, pooled
from rsedge.models.probe import LinearHead, fit_head, set_head
from rsedge.models.teachers import Teacher
from rsedge.results.records import Probe as ProbeRecord
from rsedge.stages.context import RunContext
from rsedge.stages.teacher_model import teacher_key
from rsedge.tasks.samples import SampleTask

HEAD, VECTORS = "head.safetensors", "vectors.npy"
CHUNK = 256
"""Samples whose vectors are kept together: what an interruption loses."""


def probe_stage(context: StageContext, ctx: RunContext) -> ProbeRecord:
    """Writes :data:`HEAD` and, of all samples, :data:`VECTORS`; returns the record.

    Raises:
        RequestError: no labels, or labels that do not fit ``teacher.classes``.
        MissingCapability: scikit-learn is not installed.
    """
    task = probe_task(ctx)
    vectors = _vectors(context, ctx, task)
    with atomic_path(context.folder / VECTORS) as path, path.open("wb") as f:
        np.save(f, vectors)
    index = task.roles["train"]
    head = _fitted(ctx, task, vectors, index)
    with atomic_path(context.folder / HEAD) as path:
        save_file({"weight": torch.from_numpy(head.weight), "bias": torch.from_numpy(head.bias)}, path)
    return ProbeRecord(samples=len(index), features=vectors.shape[1], penalties=head.penalties, scores=head.scores)


def probe_task(ctx: RunContext) -> SampleTask:
    """The task, with labels that a head can be fitted to.

    Raises:
        RequestError: there are none, or they do not fit ``teacher.classes``.
    """
    task = ctx.task
    if not isinstance(task, SampleTask) or task.samples.labels is None or task.samples.labels.ndim > 2:
        raise RequestError("teacher.probe: data.samples has no labels of whole samples to fit the head to")
    own = task.samples.classes
    if own != task.classes and sorted(own) == sorted(task.classes):
        raise RequestError(
            f"teacher.classes: the samples number their classes in the order {', '.join(own)}; name them so"
        )
    return task


def take_head(ctx: RunContext, result: StageResult[ProbeRecord]) -> None:
    """Fills the teacher's head with what the stage left."""
    assert isinstance(ctx.teacher.net, Probe)
    ctx.teacher.net.head.load_state_dict(load_file(result.path(HEAD)))
    ctx.teacher_key = teacher_key(ctx.teacher)


def refitted(ctx: RunContext, index: npt.NDArray[np.intp]) -> Teacher:
    """The teacher with a head that knows the samples numbered in ``index`` alone."""
    assert isinstance(ctx.task, SampleTask)
    vectors: npt.NDArray[np.float32] = np.load(ctx.folders["probe"] / VECTORS, allow_pickle=False)
    teacher = copy.deepcopy(ctx.teacher)
    set_head(teacher, _fitted(ctx, ctx.task, vectors, index))
    return teacher


def _fitted(
    ctx: RunContext, task: SampleTask, vectors: npt.NDArray[np.float32], index: npt.NDArray[np.intp]
) -> LinearHead:
    assert task.samples.labels is not None
    return fit_head(
        vectors[index], task.samples.labels[index], task.kind, task.classes, task.groups[index],
        lambda done, total: ctx.reporter.step("fit the head", done, total),
    )  # fmt: skip


def _vectors(context: StageContext, ctx: RunContext, task: SampleTask) -> npt.NDArray[np.float32]:
    """The encoder's vectors of all samples (N, D); goes on behind the last chunk that is done."""
    assert isinstance(ctx.teacher.net, Probe)
    encoder, count, parts = ctx.teacher.net.encoder.to(ctx.recipe.device), len(task.dn), []
    for start in range(0, count, CHUNK):
        stored: Path = context.resume / f"vectors-{start}.npy"
        if not stored.is_file():
            x = ctx.spec.normalise(task.dn[start : start + CHUNK])
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
