"""A teacher of 300 million parameters at its published size: in f32 and bf16, and its outputs from a cache instead of anew."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rsedge.compress.distill.teacher_cache import TeacherCache
from rsedge.compress.distill.teacher_outputs import cached_outputs, choose_source
from rsedge.data.bands import InputSpec
from rsedge.models.families import family
from rsedge.models.teachers import Teacher
from rsedge.models.zoo import teacher_row
from rsedge.stages.teacher_batch import batch_for, meter_of
from rsedge.stages.teacher_model import torch_teacher

if TYPE_CHECKING:
    from on_gpu import Setting

NAME, BATCHES, VIEWS = "satmae-rgb-vitl", (1, 8, 32), 192
SMALL = {"dim": 32, "depth": 1, "heads": 2}


def measure(setting: Setting) -> dict[str, Any]:
    """Images a second by precision and batch, peak memory, how far bf16 is off, and views a second with and without the cache."""
    teacher = drawn(setting)
    spec = teacher.spec.input_spec
    batches, views = ((1,), 2) if setting.small else (BATCHES, VIEWS)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(max(batches), *spec.shape)).astype(np.float32)).to(
        setting.device
    )
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    exact = _run(teacher, x[:1], None)
    off = float((_run(teacher, x[:1], torch.bfloat16) - exact).norm() / exact.norm())
    rows = [_speed(teacher, x[:batch], dtype) for dtype in (None, torch.bfloat16) for batch in batches]
    return {"name": teacher.spec.name, "params": sum(p.numel() for p in teacher.parameters()), "bf16_off": off, "speed": rows,
            "cache": _cached(teacher, spec, setting, views)}  # fmt: skip


def drawn(setting: Setting) -> Teacher:
    """The row's network with drawn weights; in a rehearsal a small one."""
    row = teacher_row(NAME)
    if setting.small:
        row = row.model_copy(update={"arch": {**row.arch, **SMALL}})
    torch.manual_seed(0)
    return Teacher(family(row.family).build(**row.arch), row, row.arch).eval().to(setting.device)


def _run(teacher: Teacher, x: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    with torch.inference_mode(), torch.autocast(x.device.type, dtype or torch.bfloat16, enabled=dtype is not None):
        return teacher(x).float()


def _speed(teacher: Teacher, x: torch.Tensor, dtype: torch.dtype | None) -> dict[str, Any]:
    cuda = x.is_cuda
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(3 if cuda else 1):
        _run(teacher, x, dtype)
    _wait(cuda)
    began, runs = time.perf_counter(), 0
    while runs < 1 or (cuda and time.perf_counter() - began < 2):
        _run(teacher, x, dtype)
        _wait(cuda)
        runs += 1
    seconds = time.perf_counter() - began
    return {"precision": "f32" if dtype is None else "bf16", "batch": len(x),
            "images_per_second": round(runs * len(x) / seconds, 1),
            "peak_gb": round(torch.cuda.max_memory_allocated() / 2**30, 2) if cuda else None}  # fmt: skip


def _wait(cuda: bool) -> None:
    if cuda:
        torch.cuda.synchronize()


def _cached(teacher: Teacher, spec: InputSpec, setting: Setting, count: int) -> dict[str, float]:
    """Views a second as the teacher answers them, and as they are read again."""
    draw = np.random.default_rng(1)
    pool = [draw.integers(1, 200, spec.shape).astype(spec.dtype) for _ in range(8)]
    answer = torch_teacher(teacher, (), setting.device)
    views, read, folder = (lambda number: pool[number % 8]), spec.normalise, setting.folder / "cache"

    def asked(dn: np.ndarray) -> dict[str, np.ndarray]:
        return answer(read(dn))

    choice = choose_source(views, asked, count, count, folder, "always")
    batch = batch_for(asked, pool[0], meter_of(setting.device))
    began = time.perf_counter()
    cached = cached_outputs(TeacherCache(folder, choice.record), views, asked, read, count, batch)
    made = time.perf_counter() - began
    began = time.perf_counter()
    for start in range(0, count, 8):
        cached.batch(np.arange(start, min(count, start + 8)))
    read = time.perf_counter() - began
    return {"views": count, "made_per_second": round(count / made, 1), "read_per_second": round(count / read, 1)}
