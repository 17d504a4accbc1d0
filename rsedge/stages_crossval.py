"""Cross-validation over folds of groups: what the shipped student would do in regions it has not seen.

For each fold a student of the shipped architecture learns from the other folds alone, is quantized with the shipped settings, and
answers for the fold; the answers of all folds are judged together, beside the teacher's on the same samples. The shipped student
itself is the one that has not seen fold 0.
"""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rsedge.compress.distill import distill
from rsedge.compress.quantize import PtqSettings, quantize
from rsedge.compress.teacher_outputs import build_cache
from rsedge.data.files import atomic_path
from rsedge.export.graph import Deployable
from rsedge.export.onnx import export_onnx
from rsedge.export.openvino import read_openvino
from rsedge.runtimes.session import LOGITS
from rsedge.stage import StageContext, StageResult
from rsedge.stages_quantize import CODE as QUANTIZE_CODE
from rsedge.stages_quantize import compiled
from rsedge.stages_train import DISTILL_CODE, Workshop, distill_settings, logits_of, told
from rsedge.task_samples import SampleTask
from rsedge.tasks import Inputs, Kept

CODE = (*QUANTIZE_CODE, *DISTILL_CODE, "rsedge.stages_crossval")
Answers = dict[str, Kept]


def crossval_stage(
    context: StageContext, shop: Workshop, student: str, quantized: StageResult | None
) -> dict[str, Any]:
    """Metrics over all folds for ``teacher``, ``f32`` and, where the recipe quantizes, ``int8``."""
    task = shop.task
    assert isinstance(task, SampleTask)
    x = shop.spec.normalise(task.dn)
    teacher = task.keep_logits(shop.teacher_function(x)[LOGITS])
    pooled = {name: np.zeros_like(teacher) for name in ("f32", *(["int8"] if quantized else []))}
    for fold in range(task.folds):
        shop.reporter.note(f"  fold {fold + 1} of {task.folds}")
        answers = _fold(context, shop, task, student, fold, quantized)
        for name, values in answers.items():
            pooled[name][task.fold_of == fold] = values
    everything = np.arange(len(task.dn))
    found = {name: task.metrics_of(everything, kept, teacher) for name, kept in {"teacher": teacher, **pooled}.items()}
    return {"folds": task.folds, "metrics": found}


def _fold(
    context: StageContext, shop: Workshop, task: SampleTask, student: str, fold: int, quantized: StageResult | None
) -> Answers:
    """Answers for the samples of one fold; those of a fold that was done before a kill are read."""
    stored = context.resume / f"fold-{fold}.npz"
    if stored.is_file():
        with np.load(stored, allow_pickle=False) as z:
            return {name: z[name] for name in z.files}
    net = _trained(context, shop, task, student, fold)
    inputs = task.dn[task.fold_of == fold]
    answers = {"f32": task.keep_logits(logits_of(net, shop.spec.normalise(inputs)))}
    if quantized is not None:
        answers["int8"] = _int8(net, shop, task, fold, inputs, quantized)
    with atomic_path(stored) as temporary, temporary.open("wb") as f:
        np.savez_compressed(f, allow_pickle=False, **answers)
    return answers


def _trained(context: StageContext, shop: Workshop, task: SampleTask, student: str, fold: int) -> nn.Module:
    seed, section = shop.recipe.seed + 100 * (fold + 1), shop.recipe.distill
    views = task.views_of(np.flatnonzero(task.fold_of != fold), seed)
    work = context.resume / f"fold-{fold}"
    work.mkdir(exist_ok=True)
    name = f"fold {fold + 1}"
    source = build_cache(
        work / "cache", views, shop.taught, shop.spec, section.views, name,
        lambda done, total: shop.reporter.step(f"{name}: teacher on views", done, total),
    )  # fmt: skip
    settings = dataclasses.replace(distill_settings(shop), taps=())
    net = _fresh(shop, student, seed)
    trained, _ = distill(source, net, settings, work, seed, None, told(shop, f"{name}: distill"))
    return trained.cpu().eval()


def _fresh(shop: Workshop, student: str, seed: int) -> nn.Module:
    """The shipped architecture with new weights."""
    torch.manual_seed(seed)
    net = copy.deepcopy(shop.student(student)).requires_grad_(True)
    for layer in net.modules():
        reset: Any = getattr(layer, "reset_parameters", None)
        if reset is not None:
            reset()
    return net


def _int8(net: nn.Module, shop: Workshop, task: SampleTask, fold: int, inputs: Inputs, quantized: StageResult) -> Kept:
    record = quantized.value["record"]
    settings = PtqSettings.model_validate(record["trials"][record["best"]]["settings"])
    views = task.views_of(np.flatnonzero(task.fold_of != fold), shop.recipe.seed + 1)
    tiles = [views(i) for i in range(shop.recipe.data.calibration.tiles)]
    with tempfile.TemporaryDirectory() as folder:
        graph = Deployable(net, shop.spec, task.output)
        made = export_onnx(graph, shop.spec, shop.classes, Path(folder) / "net.onnx")
        executable = compiled(quantize(read_openvino(made.path), tiles, settings), shop)
    return task.keep_logits(np.concatenate([executable({0: one[None]})[LOGITS] for one in inputs]))
