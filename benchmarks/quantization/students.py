"""A run's student in INT8 with its bands as they are and scaled to one range, its layers alone, and in simulated fp16."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import openvino as ov
import torch
from torch import Tensor, nn

from rsedge.compress.quantize import bands
from rsedge.compress.quantize.ptq import PtqSettings, first_layers, quantize
from rsedge.data.files import read_json
from rsedge.devices.measure.decide import race
from rsedge.export.targets.openvino import read_openvino
from rsedge.models.structure import load_model
from rsedge.models.students import build_student
from rsedge.runtimes.openvino.core import settings, shared_core
from rsedge.runtimes.session import LOGITS

Array = npt.NDArray[Any]
SETTINGS = {
    "performance": PtqSettings(),
    "mixed": PtqSettings(preset="mixed"),
    "8-bit weights": PtqSettings(overflow="disable"),
}
"""By the words of the page; `8-bit weights` is for processors with VNNI."""
ALIKE = 1e9
"""Times that bands' ranges would have to differ, so that none is scaled."""
ROLES = ("selection", "test")
SECONDS = 1.0


def measured(run: Path) -> dict[str, Any]:
    model = read_openvino(run / "stages/export/student-f32.xml")
    with np.load(run / "stages/data/calibration.npz") as z:
        tiles = list(z["dn"])
    held_out = {role: _tiles(run, role) for role in ROLES}
    return {"bands": _bands(model, tiles, held_out), "alone": _alone(run), "fp16": _fp16(run, model, held_out)}


def _tiles(run: Path, role: str) -> Array:
    with np.load(run / f"stages/data/{role}.npz") as z:
        return np.asarray(z["dn"])


def _compiled(model: ov.Model, precision: str) -> Any:
    return shared_core().compile_model(model, "CPU", settings("CPU", precision, 1))


def _classes(model: ov.Model, dn: Array, precision: str = "int8") -> Array:
    compiled = _compiled(model, precision)
    return np.concatenate([compiled({0: one[None]})[LOGITS].argmax(1) for one in dn])


def _bands(model: ov.Model, tiles: list[Array], held_out: dict[str, Array]) -> dict[str, Any]:
    """Share of pixels that INT8 gives another class than f32, without and with scaled bands, and the ratio of times."""
    plain = {role: _classes(model, dn, "f32") for role, dn in held_out.items()}
    found: dict[str, Any] = {}
    for name, chosen in SETTINGS.items():
        with patch.object(bands, "UNLIKE", ALIKE):  # the same code, with this step alone left out
            without = quantize(model, tiles, chosen)
        scaled = quantize(model, tiles, chosen)
        row: dict[str, Any] = {
            role: [float((_classes(one, dn) != plain[role]).mean()) for one in (without, scaled)]
            for role, dn in held_out.items()
        }
        feed = {0: held_out["selection"][:1]}
        runs = {n: _compiled(m, "int8").create_infer_request() for n, m in (("without", without), ("with", scaled))}
        ratio = race({n: functools.partial(r.infer, feed) for n, r in runs.items()}, seconds=SECONDS).ratio(
            "with", "without"
        )
        found[name] = row | {"time": [ratio.value, ratio.low, ratio.high]}
    return found


def _alone(run: Path) -> dict[str, Any]:
    """Damage of the worst layers alone, as the run's quantize stage measured it."""
    records = read_json(run / "stages/quantize/record.json")["value"]["records"]
    known = next(r["sensitivity"] for target, r in records.items() if target.startswith("openvino"))
    worst = sorted((part["damage"] for part in known["parts"]), reverse=True)
    return {"together": known["together"], "worst": worst[:2], "parts": len(worst), "inputs": known["inputs"]}


def _fp16(run: Path, model: ov.Model, held_out: dict[str, Array]) -> dict[str, float]:
    """Share of pixels of another class where weights and every layer's outputs are rounded to fp16, in torch."""
    net = load_model(_weights(run), lambda factory, kwargs: build_student(factory, kwargs)).eval()
    first = next(op for op in model.get_ops() if op.get_friendly_name() == first_layers(model)[0])
    before = _compiled(ov.Model([first.input_value(0)], model.get_parameters()).clone(), "f32")
    rounded = _rounded(net)
    found = {}
    for role, dn in held_out.items():
        x = torch.from_numpy(np.concatenate([before({0: one[None]})[0].copy() for one in dn]))
        found[role] = float((_argmax(rounded, x.half().float()) != _argmax(net, x)).float().mean())
    return found


def _weights(run: Path) -> Path:
    return next(p for stage in ("prune", "distill") if (p := run / f"stages/{stage}/model").is_dir())


def _rounded(net: nn.Module) -> nn.Module:
    rounded = copy.deepcopy(net)
    for values in (*rounded.parameters(), *rounded.buffers()):
        if values.is_floating_point():
            values.data = values.data.half().float()
    for layer in rounded.modules():
        if not list(layer.children()):
            layer.register_forward_hook(lambda _, args, out: out.half().float())
    return rounded


@torch.no_grad()
def _argmax(net: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([net(one[None]).argmax(1) for one in x])
