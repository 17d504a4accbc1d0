"""Teachers of the cloud-mask recipes: the UKIS cloud and shadow U-Nets of the ``ukis-csmask`` wheel.

Source: Wieland, Fichtner & Martinis (2022), "UKIS-CSMASK". The wheel holds ONNX graphs whose initialisers carry the names of
``segmentation_models_pytorch.Unet("efficientnet-b4")``; the band statistics are those of the wheel's JSON files.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.errors import RequestError, missing_extra
from rsedge.data.sources import SIX, WAVELENGTHS_NM
from rsedge.models.checkpoint import KeyMap, load_strict, read_tensors

CLASSES = ("clear", "cloud", "shadow")


@dataclass(frozen=True)
class TeacherSpec:
    """What a teacher is and takes; ``taps`` are names of submodules whose outputs a student may imitate."""

    name: str
    family: str
    task: str
    input_spec: InputSpec
    classes: tuple[str, ...]
    taps: tuple[str, ...]
    licence: str
    source: str


class Teacher(nn.Module):
    """A network with its spec: normalised x (N, C, H, W) float32 -> logits (N, K, H, W)."""

    def __init__(self, net: nn.Module, spec: TeacherSpec) -> None:
        super().__init__()
        self.net, self.spec = net, spec

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)  # type: ignore[no-any-return]


_UKIS_KEYS = KeyMap(strip=("model.",), absent=("encoder._conv_head", "encoder._bn1"))
_LEVELS = {"l1c": "toa_reflectance", "l2a": "boa_reflectance"}
UKIS = tuple(f"ukis-csmask-{n}b-{level}" for n in (6, 4) for level in _LEVELS)


def load_teacher(name: str, checkpoint: str | Path | None = None) -> Teacher:
    """A teacher of the zoo by name, in eval mode, its weights from the wheel or from ``checkpoint``.

    Raises:
        RequestError: unknown name, or a checkpoint that does not fit (keys are named).
        MissingCapability: the wheel is not installed.
    """
    if name not in UKIS:
        raise RequestError(f"teacher '{name}' is unknown; known: {', '.join(UKIS)}")
    import segmentation_models_pytorch as smp

    spec = ukis_spec(name)
    path = Path(checkpoint) if checkpoint else _ukis_folder() / f"{_ukis_stem(name)}.onnx"
    net = smp.Unet(
        "efficientnet-b4", encoder_weights=None, in_channels=spec.input_spec.channels, classes=len(spec.classes)
    )
    load_strict(net, read_tensors(path), _UKIS_KEYS, path)
    # Never called by the U-Net; dropping them makes the parameter count that of the published graph.
    net.encoder._conv_head, net.encoder._bn1 = nn.Identity(), nn.Identity()
    return Teacher(net, spec).eval().requires_grad_(False)


def ukis_spec(name: str) -> TeacherSpec:
    """The band contract of a UKIS teacher: reflectance as DN / 10000, statistics of its training set."""
    mean, std = _ukis_json(name)["dataset_statistics"]["img"]
    bands = SIX[: len(mean)]
    specs = tuple(
        BandSpec(name=b, wavelength_nm=WAVELENGTHS_NM[b], scale=1e-4, nodata=0, valid_range=(0.0, 2.0), mean=m, std=s)
        for b, m, s in zip(bands, mean, std, strict=True)
    )
    spec = InputSpec(bands=specs, tile=256, quantity=_LEVELS[name[-3:]], gsd_range_m=(8.0, 64.0))
    return TeacherSpec(
        name, "U-Net EfficientNet-B4", "segmentation", spec, CLASSES, ("net.encoder", "net.decoder"), "Apache-2.0",
        "ukis-csmask wheel",
    )  # fmt: skip


def _ukis_stem(name: str) -> str:
    return "model_" + name.removeprefix("ukis-csmask-").replace("-", "_")


def _ukis_folder() -> Path:
    found = util.find_spec("ukis_csmask")
    if found is None or not found.submodule_search_locations:
        raise missing_extra("ukis_csmask", "quickstart", "the UKIS teacher")
    return Path(next(iter(found.submodule_search_locations)))


def _ukis_json(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((_ukis_folder() / f"{_ukis_stem(name)}.json").read_text())["data"]
    return data
