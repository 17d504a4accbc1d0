"""Distillation on a CUDA GPU, where there is one: the losses of the CPU, and a student that comes back to it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rsedge.compress.distill.muon import OptimizerKind
from rsedge.compress.distill.teacher_outputs import LiveOutputs
from rsedge.compress.distill.training import DistillRecord, DistillSettings, Tap, distill
from rsedge.data.bands import BandSpec, InputSpec

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU")
SPEC = InputSpec(
    bands=tuple(BandSpec(name=n, scale=1e-4, nodata=0, mean=0.3, std=0.2) for n in ("red", "nir")), tile=32
)


def views(i: int) -> np.ndarray:
    return np.random.default_rng([9, i]).integers(1, 8000, (2, 32, 32)).astype(np.uint16)


def teacher(x: np.ndarray) -> dict[str, np.ndarray]:
    d = x[:, :1] - x[:, 1:]
    return {"logits": np.concatenate([2 * d, -2 * d, 0 * d], 1).astype(np.float32), "difference": d.astype(np.float32)}


def trained(
    folder: Path, device: str, optimizer: OptimizerKind, autocast: str = "off"
) -> tuple[nn.Module, DistillRecord]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 1))
    settings = DistillSettings(steps=60, batch=8, lr=1e-3, optimizer=optimizer, taps=(Tap("difference", "2"),),
                               device=device, autocast=autocast)  # type: ignore[arg-type]  # fmt: skip
    return distill(
        LiveOutputs(views, lambda dn: teacher(SPEC.normalise(dn)), SPEC.normalise, 64), net, settings, folder, seed=0
    )


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_losses_are_those_of_the_cpu(tmp_path: Path, optimizer: OptimizerKind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    (_, here), (_, there) = (trained(tmp_path / device, device, optimizer) for device in ("cpu", "cuda"))
    expected, found = ([row["loss"] for row in record.history] for record in (here, there))
    assert found == pytest.approx(expected, rel=1e-3)
    assert found[-1] < 0.9 * found[0]


def test_autocast_learns_as_well(tmp_path: Path) -> None:
    _, exact = trained(tmp_path / "f32", "cuda", "muon")
    net, rounded = trained(tmp_path / "bf16", "cuda", "muon", autocast="bf16")
    assert rounded.autocast == "bf16"
    assert rounded.history[-1]["loss"] == pytest.approx(exact.history[-1]["loss"], rel=0.05)
    assert torch.isfinite(net.cpu()(torch.zeros(1, 2, 32, 32))).all()
