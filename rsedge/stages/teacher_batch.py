"""How many views a teacher is asked about at once, and whether it may answer in bfloat16: by what is measured on a few views."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from rsedge.compress.distill.teacher_outputs import AskTeacher, Dn, TeacherFunction
from rsedge.data.errors import MissingCapability
from rsedge.devices.measure.decide import race
from rsedge.devices.onboard.memory import available_bytes, high_water_bytes

MOST = 64
"""Views at once beyond which nothing is won."""
SHARE, MOST_ON_CPU = 0.5, 1 << 30
"""Part of the free memory that one question may take, and bytes beyond which a CPU's caches win nothing by larger ones."""
FARTHEST_BF16, FASTER = 0.02, 0.8
"""Root mean square distance of bf16's answers from f32's, in deviations of these, and part of the time, up to which bf16 serves."""
RACE_SECONDS = 0.5


@dataclass(frozen=True)
class Meter:
    """Memory of a device.

    Attributes:
        free: bytes that a question may take, None where the system does not tell.
        taken: bytes that a call takes beyond what is held before it; None where the system does not tell.
    """

    free: Callable[[], int | None]
    taken: Callable[[Callable[[], object]], int | None]


def meter_of(device: str) -> Meter:
    """The meter of a torch device."""
    return Meter(_free_on_cuda, _taken_on_cuda) if device == "cuda" else Meter(_free_here, _taken_here)


def batch_for(ask: AskTeacher, view: Dn, meter: Meter) -> int:
    """Views, a power of two, that fit at once into :data:`SHARE` of the free memory, by what one of them takes.

    Raises:
        MissingCapability: not even one fits on the GPU.
    """
    one = view[None]
    try:
        ask(one)  # what is set up once is no part of it
        taken, free = meter.taken(lambda: ask(one)), meter.free()
    except torch.OutOfMemoryError as error:
        raise MissingCapability(
            "the teacher does not fit into the GPU's memory with one view; set steps.distill.teacher_autocast: bf16 or device: cpu"
        ) from error
    if not taken or free is None:
        return 1
    fit = max(1, min(MOST, int(SHARE * free) // taken))
    return 1 << (fit.bit_length() - 1)


def in_batches(ask: AskTeacher, size: int) -> AskTeacher:
    """``ask``, of at most ``size`` views at once."""

    def asked(dn: Dn) -> dict[str, np.ndarray]:
        parts = [ask(dn[i : i + size]) for i in range(0, len(dn), size)]
        return parts[0] if len(parts) == 1 else {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

    return asked


def bf16_serves(f32: TeacherFunction, bf16: TeacherFunction, x: np.ndarray) -> bool:
    """Whether a teacher answers the same in bf16, near enough to be learned, and clearly faster; or in f32 not at all.

    Args:
        x: normalised views (N, ...).
    """
    try:
        whole = f32(x)
    except torch.OutOfMemoryError:
        return True
    rounded = bf16(x)
    if max(_distance(whole[name], rounded[name]) for name in whole) > FARTHEST_BF16:
        return False
    raced = race({"bf16": lambda: bf16(x), "f32": lambda: f32(x)}, seconds=RACE_SECONDS, on_processor=False)
    return raced.too_noisy() is None and raced.ratio("bf16", "f32").says(FASTER) is True


def _distance(whole: np.ndarray, rounded: np.ndarray) -> float:
    """Root mean square, in deviations; infinite where an answer is no number."""
    far = float(np.sqrt(np.square(whole.astype(np.float64) - rounded).mean()) / (whole.std() or 1.0))
    return far if np.isfinite(far) else np.inf


def _free_on_cuda() -> int:
    return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()


def _taken_on_cuda(work: Callable[[], object]) -> int:
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _free_here() -> int | None:
    free = available_bytes()
    return None if free is None else min(free, round(MOST_ON_CPU / SHARE))


def _taken_here(work: Callable[[], object]) -> int | None:
    """By the kernel's high-water mark of this process, which is set back first; memory that is free but kept is given back."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    before = high_water_bytes()
    work()
    return high_water_bytes() - before
