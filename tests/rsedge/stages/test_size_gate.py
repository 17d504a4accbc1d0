"""The search and verify weigh the same bytes, those of a bundle's model files, to the last one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch import nn

from rsedge.compress.quantize.ptq import PtqSettings
from rsedge.data.bands import BandSpec, InputSpec
from rsedge.export.targets.openvino import read_openvino, save_openvino
from rsedge.results.gates import Facts, check_on_selection, judge
from rsedge.stages.context import RunContext
from rsedge.stages.makers.openvino_int8 import OpenVinoInt8
from rsedge.stages.makers.registry import find_artefact
from tests.rsedge.results.test_gates import recipe

SPEC = InputSpec(bands=tuple(BandSpec(name=name, nodata=0) for name in ("red", "green", "blue")), tile=32)
CLASSES = ("clear sky", "thick cloud", "a class whose long name is kept in the file")


@pytest.mark.parametrize("off", [-1, 0, 1])
def test_at_the_limit_the_search_and_verify_say_the_same(made: tuple[int, RunContext], off: int) -> None:
    in_search, ctx = made
    target = ctx.recipe.parsed_targets[0]
    artefact = find_artefact(ctx, target)
    limited = recipe({"metric": "size", "max": artefact.size_bytes + off})
    searched = check_on_selection(limited, target.name, {}, size_bytes=in_search)
    verified = judge(limited.gates[0], target.name, Facts(size_bytes=artefact.size_bytes))
    assert searched.holds == (verified.outcome == "passed") == (off >= 0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, RunContext]:
    """What the search takes a quantized network to weigh, and a run whose quantize stage delivered it."""
    folder = tmp_path_factory.mktemp("size")
    task: Any = SimpleNamespace(output="map")
    given: Any = SimpleNamespace(run=None, reporter=None)
    ctx = RunContext(recipe(), SPEC, CLASSES, task, {"quantize": folder}, given.run, "", given.reporter)
    tiles = list(np.random.default_rng(0).integers(1, 4000, (4, 3, 32, 32)).astype(np.uint16))
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, len(CLASSES), 1))
    ground = OpenVinoInt8(ctx, ctx.recipe.parsed_targets[:1], folder)(net)
    file = ground.make(tiles, PtqSettings())
    size = ground.size(file)
    save_openvino(read_openvino(file), folder / "student-int8.xml", SPEC, CLASSES)
    assert ground.size(folder / "student-int8.xml") == size, "saving changes nothing"
    return size, ctx
