"""NNCF with accuracy control: layers go back to float until likeness to the teacher has fallen by no more than the recipe's
INT8 search is allowed, on the same selection tiles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import nncf
import numpy as np
from contender import Made
from material import Material

from rsedge.compress.quantize.ptq import compute_layers, preprocessing_names, quiet_nncf
from rsedge.export.targets.openvino import read_openvino, save_openvino
from rsedge.results.records import Teacher

RANKING_TILES = 4
"""On which NNCF ranks its layers; its default of 300 takes hours with these networks."""


def make(material: Material, folder: Path) -> Made:
    ctx, selection = material.ctx, material.held_out("selection")
    reference, section = ctx.teacher_on(selection), ctx.recipe.quantize
    assert section is not None
    model = read_openvino(material.teacher)

    def alike(compiled: Any, items: Iterable[tuple[int, np.ndarray]]) -> tuple[float, Sequence[float]]:
        shares = [_share(ctx.task.keep(_named(compiled, tile)), reference[number]) for number, tile in items]
        return float(np.mean(shares)), shares

    def entry(item: tuple[int, np.ndarray]) -> np.ndarray:
        return item[1][None]

    with quiet_nncf():
        quantized = nncf.quantize_with_accuracy_control(
            model,
            nncf.Dataset([tile[None] for tile in ctx.calibration]),
            nncf.Dataset(list(enumerate(selection.inputs)), entry),
            alike,
            max_drop=section.max_drop,
            subset_size=len(ctx.calibration),
            ignored_scope=nncf.IgnoredScope(names=preprocessing_names(model), validate=False),
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                ranking_subset_size=RANKING_TILES
            ),
        )
    path = folder / "model.xml"
    save_openvino(quantized, path, ctx.spec, ctx.classes)
    note = f"{_in_float(quantized)} of {len(compute_layers(quantized))} layers back in float"
    return Made(model=str(path), macs=material.line.stages.results.of(Teacher).macs, notes=(note,))


def _named(compiled: Any, tile: np.ndarray) -> dict[str, np.ndarray]:
    found = compiled({0: tile[None]})
    return {name: found[port] for port in compiled.outputs for name in port.names}


def _share(kept: np.ndarray, reference: np.ndarray) -> float:
    return float(np.mean(kept == reference))


def _in_float(model: Any) -> int:
    """Layers whose first input no quantizer rounds."""
    types = ("FakeQuantize",)
    layers = [op for op in model.get_ordered_ops() if op.get_friendly_name() in set(compute_layers(model))]
    return sum(op.input_value(0).get_node().get_type_name() not in types for op in layers)
