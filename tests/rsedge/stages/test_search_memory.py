"""The search over INT8 settings keeps files: of the graphs that it makes, memory holds one."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch import nn

from rsedge.compress.quantize.acceptance import Acceptance, Limit
from rsedge.compress.quantize.ptq import PtqSettings
from rsedge.compress.quantize.search import search
from rsedge.data.bands import BandSpec, InputSpec
from rsedge.stages.context import RunContext
from rsedge.stages.makers import openvino_int8 as openvino
from tests.rsedge.results.test_gates import recipe

SPEC = InputSpec(bands=tuple(BandSpec(name=name, nodata=0) for name in ("red", "green")), tile=32)
SETTINGS = [
    PtqSettings(preset=preset, bias_correction=kind) for preset in ("performance", "mixed") for kind in ("fast", "full")
]
GOOD = Acceptance(score=1.0, holds=True, missed=(), shortfall=0.0, reason="", gates={})


def test_a_graph_is_gone_before_the_next_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[Any]] = []
    quantize = openvino.quantize

    def counted(*given: Any) -> Any:
        gc.collect()
        assert not [one for one in made if one() is not None], "a graph that was judged is still there"
        model = quantize(*given)
        made.append(weakref.ref(model))
        return model

    monkeypatch.setattr(openvino, "quantize", counted)
    monkeypatch.setattr(openvino.OpenVinoInt8, "accept", lambda *_: GOOD)
    task: Any = SimpleNamespace(output="map")
    ctx = RunContext(recipe(), SPEC, ("a", "b"), task, {}, None, "", None)  # type: ignore[arg-type]
    tiles = list(np.random.default_rng(0).integers(1, 4000, (4, 2, 32, 32)).astype(np.uint16))
    ctx.task.held_out = lambda _role: SimpleNamespace(inputs=np.stack(tiles))  # what the race runs on
    net = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    ground = openvino.OpenVinoInt8(ctx, ctx.recipe.parsed_targets[:1], tmp_path)(net)
    found = search(ground, tiles, SETTINGS, Limit(GOOD, 0.01))
    gc.collect()
    assert found.passed and len(made) == len(SETTINGS) and not any(one() is not None for one in made)
    assert isinstance(found.model, Path) and found.model.is_file()
