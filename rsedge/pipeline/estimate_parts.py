"""What a run of several parts is going to take, from its run in miniature."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil

from rsedge.cache.memory_watch import MemoryWatch
from rsedge.pipeline.estimate import Estimate, disk_of
from rsedge.pipeline.run import PartsLine
from rsedge.recipe.parts import PartsRecipe
from rsedge.stages.parts.context import ROLES, TRIAL_SAMPLES
from rsedge.stages.parts.data import role_sizes
from rsedge.stages.parts.quantize import CALIBRATION
from rsedge.stages.parts.verify import SECONDS, TRIAL_SECONDS
from rsedge.stages.table import STEPS


def estimate_parts(recipe: PartsRecipe, line: PartsLine, memory: MemoryWatch, place: Path) -> Estimate:
    """Each stage's seconds in miniature, times what the run has more of: samples, steps, settings of INT8."""
    seconds = {name: result.seconds * _more(recipe, line, name) for name, result in line.stages.results.items()}
    timed = (len(recipe.targets) + 1) * (1 + len(recipe.parts)) * (SECONDS - TRIAL_SECONDS)
    seconds["verify"] += timed
    disk = disk_of(line.run.root)
    disk["stages"] = round(disk.get("stages", 0) * _more(recipe, line, "teacher"))
    return Estimate(
        seconds=seconds, total_seconds=sum(seconds.values()), memory_bytes=memory.peak,
        memory_here_bytes=psutil.virtual_memory().total, gpu_bytes=None, disk_bytes=disk,
        disk_free_bytes=shutil.disk_usage(place).free,
        notes=["searches that end sooner make it less; parts that go back to float, and samples held in memory, make it more"],
    )  # fmt: skip


def _more(recipe: PartsRecipe, line: PartsLine, stage: str) -> float:
    """How many times more of the work there is than in miniature."""
    sizes = role_sizes(line.ctx)
    if stage == "teacher":
        return sum(sizes.values()) / sum(min(TRIAL_SAMPLES, sizes[role]) for role in ROLES)
    if stage == "distill":
        steps = [part.distill.steps for part in recipe.parts.values() if part.distill is not None]
        return sum(steps) / sum(min(STEPS, n) for n in steps)
    if stage == "quantize":
        trials = max(
            (part.quantize.max_trials for part in recipe.parts.values() if part.quantize is not None), default=1
        )
        return trials * min(CALIBRATION, sizes["train"]) / TRIAL_SAMPLES
    return sizes["test"] / min(TRIAL_SAMPLES, sizes["test"]) if stage == "verify" else 1.0
