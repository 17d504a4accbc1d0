"""Pictures of a network: every layer has its bar, as high as it is wide or hurt, and what is in float is hatched."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rsedge.reports.schema import LayerDamage, LayerWidth
from rsedge.reports.svg_model import sensitivity, widths
from rsedge.stages.rows import layer_widths


def heights(text: str, kind: str) -> list[float]:
    return [float(h) for h in re.findall(rf'class="layer {kind}"[^>]*height="([\d.]+)"', text)]


def test_widths_before_and_after() -> None:
    layers = [LayerWidth(layer="<a>", before=16, after=8), LayerWidth(layer="b", before=8, after=None)]
    text = str(widths(layers, "widths"))
    before, after = heights(text, "before"), heights(text, "after")
    assert after[0] == pytest.approx(before[0] / 2, abs=0.1) and before[1] == pytest.approx(after[0], abs=0.1)
    assert after[1] == 0 and "b: 8 before, none after" in text and "&lt;a&gt;" in text
    assert str(widths([], "widths")) == ""


def test_damage_and_bits() -> None:
    layers = [LayerDamage(layer="a", damage=0.4, in_float=True), LayerDamage(layer="b", damage=0.1)]
    text = str(sensitivity(layers, "damage"))
    assert heights(text, "after")[0] == pytest.approx(heights(text, "float")[0] / 4, abs=0.1)
    assert "a: 0.4000, float" in text and "b: 0.1000, INT8" in text
    assert str(sensitivity([LayerDamage(layer="a", damage=0.0)], "damage")) == ""


def test_widths_are_read_from_both_structures(tmp_path: Path) -> None:
    for name, out in (("distill", 16), ("prune", 12)):
        (tmp_path / name / "model").mkdir(parents=True)
        layers = {"conv": {"kind": "conv", "in": 3, "out": out}, "norm": {"kind": "batchnorm", "out": out}}
        extra = {"gone": {"kind": "linear", "in": 4, "out": 4}} if name == "distill" else {}
        (tmp_path / name / "model" / "structure.json").write_text(json.dumps({"widths": layers | extra}))
    assert layer_widths(tmp_path / "distill", tmp_path / "prune") == [
        LayerWidth(layer="conv", before=16, after=12), LayerWidth(layer="gone", before=4, after=None)
    ]  # fmt: skip
    assert layer_widths(tmp_path / "distill", tmp_path / "other") == []
