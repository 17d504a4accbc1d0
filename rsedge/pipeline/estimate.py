"""What a run is going to take of time, memory and disk, from its run in miniature.

Time: the stage's own seconds in miniature, plus what the run has more of (views, steps, tiles, trials) at the price of one that
was timed. Early stops and searches that end sooner make it less; training under rounding, layers that go back to float and a
busier machine make it more. Memory: the peak that was seen, plus arrays that grow with the held-out and calibration tiles. Disk:
what the run in miniature wrote (models and bundles have their full size), plus the teacher's outputs on all views.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import psutil

from rsedge.cache.memory_watch import MemoryWatch
from rsedge.data.errors import MissingCapability
from rsedge.data.record import Record
from rsedge.data.scenes.splits import HELD_OUT
from rsedge.pipeline.run import Line
from rsedge.recipe.schema import Recipe
from rsedge.results.data import Data
from rsedge.stages.context import SELECTION_SAMPLES, SELECTION_VIEWS, TRIAL_INPUTS, logits_of, outputs_store
from rsedge.stages.makers.int8 import qat_steps
from rsedge.stages.outputs import weights_of
from rsedge.stages.table import crossvalidated, stages_of
from rsedge.stages.verify import MEASURE_SECONDS, TRIAL_SECONDS

CALIBRATION_PASSES = 2
"""Passes that NNCF makes over a calibration tile, in passes of plain inference; collecting statistics costs as much again."""


class Estimate(Record):
    """Estimated, not measured.

    Attributes:
        seconds: per stage; what is not estimated is not in it.
        memory_bytes: peak resident memory of the process; ``gpu_bytes`` on the GPU, where one trains.
        disk_bytes: of the run folder, by part.
        notes: what the figures leave out.
    """

    provenance: Literal["estimated"] = "estimated"
    seconds: dict[str, float]
    total_seconds: float
    memory_bytes: int
    memory_here_bytes: int
    gpu_bytes: int | None
    disk_bytes: dict[str, int]
    disk_free_bytes: int
    notes: list[str]

    def text(self) -> str:
        """A few lines for readers."""
        longest = sorted(self.seconds.items(), key=lambda item: -item[1])[:4]
        stages = ", ".join(f"{name} {_duration(s)}" for name, s in longest)
        parts = ", ".join(f"{name} {_size(b)}" for name, b in self.disk_bytes.items())
        gpu = "" if self.gpu_bytes is None else f"; GPU {_size(self.gpu_bytes)}"
        return "\n".join(
            [
                "estimated, for this machine as busy as it is now:",
                f"  time    {_duration(self.total_seconds)} ({stages})",
                f"  memory  {_size(self.memory_bytes)} of {_size(self.memory_here_bytes)}{gpu}",
                f"  disk    {_size(sum(self.disk_bytes.values()))} ({parts}), {_size(self.disk_free_bytes)} free",
                *(f"  note: {note}" for note in self.notes),
            ]
        )


@dataclass(frozen=True)
class _Prices:
    """Seconds for one view, one input of teacher and student, and one step of training; what a cache of outputs holds."""

    view_s: float
    teacher_s: float
    student_s: float
    step_s: float
    fit_step_s: float
    cached: bool
    missing: int
    cache_bytes: int


def estimate(
    recipe: Recipe, line: Line, timed: Callable[[str], float | None], memory: MemoryWatch, place: Path
) -> Estimate:
    """What the whole of ``recipe`` takes, after ``line`` ran it in miniature.

    Args:
        timed: shortest time between two steps of a work, by the beginning of its name.
        place: a folder on the disk of the run folder.

    Raises:
        MissingCapability: the disk has no room for it.
    """
    counts, prices = _counts(line), _prices(recipe, line, timed)
    seconds = _seconds(recipe, line, prices, counts)
    disk = _disk(recipe, line, prices, counts)
    free = shutil.disk_usage(place).free + sum(disk_of(line.run.root).values())
    away = disk["teacher outputs"] if _is_elsewhere(outputs := _outputs_folder(line).parent, place) else 0
    _check_room(place, sum(disk.values()) - away, free)
    if away:
        _check_room(outputs, away, shutil.disk_usage(outputs).free)
    here, needed = psutil.virtual_memory().total, memory.peak + _more_memory(line, counts)
    untried = [row.name for row in stages_of(recipe) if not row.tried]
    notes = [f"{name} is not estimated" for name in untried if name not in seconds]
    if more := on_top(recipe):
        notes.append(f"quantize: {' and '.join(more)}, where needed, come on top")
    if needed > psutil.virtual_memory().available:
        notes.append("memory: more than is free on this machine now")
    return Estimate(
        seconds={name: round(s, 1) for name, s in seconds.items()}, total_seconds=round(sum(seconds.values()), 1),
        memory_bytes=needed, memory_here_bytes=here, gpu_bytes=_gpu_bytes(recipe), disk_bytes=disk, disk_free_bytes=free,
        notes=notes,
    )  # fmt: skip


def _is_elsewhere(outputs: Path, place: Path) -> bool:
    """Whether teachers' outputs lie on another disk than the run."""
    return outputs.is_dir() and outputs.stat().st_dev != place.stat().st_dev


def _check_room(place: Path, need: int, free: int) -> None:
    """
    Raises:
        MissingCapability: it does not fit.
    """
    if need > free:
        raise MissingCapability(
            f"{place}: the run needs about {_size(need)}, {_size(free)} are free; free some, or lower steps.distill.views"
        )


def on_top(recipe: Recipe) -> list[str]:
    """What the INT8 search may do besides its settings of calibration: it is not estimated, since few runs need it."""
    section = recipe.quantize
    if section is None:
        return []
    reverts = section.max_reversions > 0 and not section.weights_only
    return [*(["training under rounding"] if qat_steps(recipe) else []), *(["layers back to float"] if reverts else [])]


def _counts(line: Line) -> dict[str, int]:
    """Inputs of each role."""
    return {role: split.tiles for role, split in line.ctx.results.of(Data).splits.items()}


def _prices(recipe: Recipe, line: Line, timed: Callable[[str], float | None]) -> _Prices:
    ctx = line.ctx
    choice = ctx.source_choice(recipe.distill, _outputs_folder(line))
    return _Prices(
        view_s=choice.view_s, teacher_s=choice.teacher_s, student_s=_student_s(line),
        missing=choice.missing, cache_bytes=choice.missing_bytes,
        step_s=timed("distill") or timed("prune step") or 0.0, fit_step_s=timed("fit the teacher") or 0.0,
        cached=choice.cached and recipe.distill.steps > 0,
    )  # fmt: skip


def _outputs_folder(line: Line) -> Path:
    """Where the run itself is going to look for the teacher's outputs."""
    return outputs_store(line.run.cache) / line.ctx.outputs_key[:32]


def _student_s(line: Line) -> float:
    """One input in torch, the second time."""
    student, x = line.ctx.student("distill"), line.ctx.spec.normalise(line.ctx.selection.inputs[:1])
    logits_of(student, x)
    begun = time.perf_counter()
    logits_of(student, x)
    return time.perf_counter() - begun


def _seconds(recipe: Recipe, line: Line, p: _Prices, counts: Mapping[str, int]) -> dict[str, float]:
    """By stage."""
    found = {name: result.seconds for name, result in line.stages.results.items()}
    views = SELECTION_SAMPLES if line.task.takes_many else SELECTION_VIEWS
    judged = (max(0, counts["selection"] - TRIAL_INPUTS) + max(0, views - TRIAL_INPUTS)) * p.student_s
    calibrated = CALIBRATION_PASSES * max(0, counts["calibration"] - TRIAL_INPUTS)
    if (fit := recipe.teacher.fit) is not None:
        found["fit"] += fit.steps * p.fit_step_s + fit.steps / fit.validate_every * counts["selection"] * p.teacher_s
    if recipe.teacher.probe is not None:
        found["probe"] = sum(counts.values()) * p.teacher_s
    held_out = sum(max(0, counts[role] - TRIAL_INPUTS) for role in HELD_OUT)
    # Its INT8 baseline is not tried; making it takes about as long as the export.
    found["teacher"] = 2 * found["teacher"] + (2 * held_out + calibrated) * p.teacher_s
    found["distill"] += _distill_s(recipe, p, judged)
    if (section := recipe.prune) is not None:
        steps = section.recovery_steps + section.taylor_batches + section.refit_batches
        found["prune"] = section.steps * (found["prune"] + steps * p.step_s + judged)
    if (replacing := recipe.replace) is not None:
        kinds = bool(replacing.activations) + bool(replacing.merge)
        found["replace"] += kinds * (replacing.recovery_steps * p.step_s + 2 * judged)
    if (chosen := recipe.quantize) is not None:
        one = found["quantize"] + calibrated * p.student_s + judged
        found["quantize"] = one + min((chosen.max_trials - 1) * one, chosen.seconds)
    if crossvalidated(recipe):
        assert recipe.samples.folds > 1
        found["crossval"] = recipe.samples.folds * sum(found[name] for name in recipe.trained)
    timed = len(recipe.targets) + 4  # two of the teacher, two steps
    more = max(0, counts["test"] - TRIAL_INPUTS) * p.student_s
    found["verify"] += timed * (MEASURE_SECONDS - TRIAL_SECONDS + more)
    return found


def _distill_s(recipe: Recipe, p: _Prices, judged: float) -> float:
    d = recipe.distill
    outputs = (p.missing if p.cached else d.steps * d.batch) + (d.hard_views > 0) * d.views
    return d.steps * p.step_s + (d.steps > 0) * outputs * (p.view_s + p.teacher_s) + d.steps / d.validate_every * judged


def _more_memory(line: Line, counts: Mapping[str, int]) -> int:
    """What grows with the number of tiles: selection normalised, with its outputs, and calibration (bytes)."""
    one = int(np.prod(line.ctx.spec.shape))
    outputs = line.ctx.ask_teacher(np.zeros((1, *line.task.spec.shape), line.task.spec.dtype))["logits"].size
    more = max(0, counts["selection"] - TRIAL_INPUTS) * (one + outputs)
    return 4 * (more + max(0, counts["calibration"] - TRIAL_INPUTS) * one)


def _gpu_bytes(recipe: Recipe) -> int | None:
    if recipe.device != "cuda":
        return None
    import torch

    return int(torch.cuda.max_memory_allocated())


def disk_of(root: Path) -> dict[str, int]:
    """Bytes of a run folder, by the name of what lies at its top."""
    found: dict[str, int] = {}
    for path in root.rglob("*"):
        if path.is_file():
            top = path.relative_to(root).parts[0]
            found[top] = found.get(top, 0) + path.stat().st_size
    return found


def _disk(recipe: Recipe, line: Line, p: _Prices, counts: Mapping[str, int]) -> dict[str, int]:
    written = disk_of(line.run.root)
    share = max(1.0, max(counts[role] for role in HELD_OUT) / TRIAL_INPUTS)
    kept = [f for name in ("teacher", "verify") for f in line.ctx.folders[name].glob("*.npz")]
    stages = written["stages"] + round((share - 1) * sum(f.stat().st_size for f in kept))
    weights = weights_of("distill").of(line.ctx.folders).rglob("*.safetensors")
    # Student, its mean, the best so far, and up to two moments of the optimizer: gone when the stage is done.
    checkpoint = 5 * sum(f.stat().st_size for f in weights) if recipe.distill.steps else 0
    return {
        "teacher outputs": p.cache_bytes if p.cached else 0,
        "models and held-out tiles": stages,
        "bundles": written.get("bundles", 0),
        "report": sum(size for name, size in written.items() if name.startswith("report")),
        "checkpoint, for a while": checkpoint,
    }


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _size(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(1, round(size / 1e6))} MB"
