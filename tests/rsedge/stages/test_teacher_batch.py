"""How many views a teacher is asked about at once, and whether bf16 serves it: by measured memory, error and time."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from torch import nn

from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.errors import MissingCapability
from rsedge.devices.measure.decide import Race
from rsedge.models.outside.loading import in_memory
from rsedge.models.teachers import Teacher
from rsedge.stages import teacher_batch
from rsedge.stages.teacher_batch import MOST, Meter, batch_for, bf16_serves, in_batches, meter_of
from rsedge.stages.teacher_model import torch_teacher

VIEW = np.zeros((2, 256, 256), np.uint16)
GIB = 1 << 30


def ask(dn: np.ndarray) -> dict[str, np.ndarray]:
    return {"logits": dn.astype(np.float32).mean((1, 2, 3))}


@pytest.mark.parametrize(
    ("taken", "free", "size"),
    [
        (GIB // 32, 4 * GIB, MOST), (GIB // 10, 4 * GIB, 16), (GIB, 4 * GIB, 2), (3 * GIB, 4 * GIB, 1), (None, 4 * GIB, 1),
        (GIB, None, 1),
    ],
)  # fmt: skip
def test_a_batch_fits_into_half_of_the_free_memory(taken: int | None, free: int | None, size: int) -> None:
    assert batch_for(ask, VIEW, Meter(lambda: free, lambda work: (work(), taken)[1])) == size


def test_a_teacher_that_does_not_fit_on_the_gpu_is_said_to() -> None:
    def full(dn: np.ndarray) -> dict[str, np.ndarray]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(MissingCapability, match="teacher_autocast: bf16 or device: cpu"):
        batch_for(full, VIEW, meter_of("cpu"))


def test_the_memory_of_a_call_here_is_measured() -> None:
    meter, kept = meter_of("cpu"), list[np.ndarray]()
    taken = meter.taken(lambda: np.ones(8 << 20, np.float64).sum())
    assert taken is None or 60 << 20 <= taken < 160 << 20
    again = meter.taken(lambda: kept.append(np.ones(1 << 20, np.float64)))
    assert again is None or 7 << 20 <= again < 60 << 20, "what came before is no part of it"
    free = meter.free()
    assert free is None or 0 < free <= 2 * GIB


def test_many_views_are_asked_about_in_batches() -> None:
    sizes: list[int] = []
    dn = np.arange(7 * 2 * 4 * 4, dtype=np.uint16).reshape(7, 2, 4, 4)
    found = in_batches(lambda x: (sizes.append(len(x)), ask(x))[1], 3)(dn)
    assert sizes == [3, 3, 1] and np.array_equal(found["logits"], ask(dn)["logits"])


@pytest.mark.parametrize(
    ("error", "seconds", "serves"), [(0.001, 0.0, True), (0.2, 0.0, False), (0.001, 0.005, False), (np.nan, 0.0, False)]
)
def test_bf16_serves_where_it_is_near_and_faster(
    error: float, seconds: float, serves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher_batch, "RACE_SECONDS", 0.3)  # most of it asleep
    monkeypatch.setattr(Race, "too_noisy", lambda _: None)
    x = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)

    def f32(x: np.ndarray) -> dict[str, np.ndarray]:
        time.sleep(0.003)
        return {"logits": x}

    def bf16(x: np.ndarray) -> dict[str, np.ndarray]:
        time.sleep(seconds)
        return {"logits": x + np.float32(error)}

    assert bf16_serves(f32, bf16, x) is serves


def test_bf16_does_not_serve_where_it_cannot_be_told_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.ones((2, 8), np.float32)
    monkeypatch.setattr(teacher_batch, "RACE_SECONDS", 0.05)
    monkeypatch.setattr(Race, "too_noisy", lambda _: "other processes took 90 % of the processors")

    def slow(x: np.ndarray) -> dict[str, np.ndarray]:
        time.sleep(0.003)
        return {"logits": x}

    assert not bf16_serves(slow, lambda x: {"logits": x}, x)


def test_bf16_serves_where_f32_does_not_fit() -> None:
    def full(x: np.ndarray) -> dict[str, np.ndarray]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    assert bf16_serves(full, lambda x: {"logits": x}, np.zeros((1, 2), np.float32))


def test_a_teacher_in_bf16_answers_nearly_the_same() -> None:
    spec = InputSpec(bands=(BandSpec(name="red"), BandSpec(name="nir")), tile=16)
    torch.manual_seed(0)
    net, row = in_memory(
        nn.Sequential(nn.Conv2d(2, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 2, 1)), spec, ("a", "b")
    )
    teacher, x = (
        Teacher(net, row, row.arch).eval(),
        np.random.default_rng(0).normal(size=(3, 2, 16, 16)).astype(np.float32),
    )
    whole, rounded = (torch_teacher(teacher, (), "cpu", bf16)(x)["logits"] for bf16 in (False, True))
    assert rounded.dtype == np.float32 and 0 < np.abs(rounded - whole).max() < 0.05 * whole.std()
