"""bf16 beside INT8 on OpenVINO: the same file, held to the golden vector's limits on hosts without it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch import nn

from rsedge.compress.quantize.acceptance import Acceptance
from rsedge.compress.quantize.ptq import PtqSettings
from rsedge.compress.quantize.search import Ground
from rsedge.data.bands import BandSpec, InputSpec
from rsedge.export.targets.openvino import read_openvino
from rsedge.runtimes.openvino.backend import OpenVinoBackend
from rsedge.runtimes.openvino.core import float_options, float_precision, has_bf16, shared_core
from rsedge.stages.context import RunContext
from rsedge.stages.makers import openvino_int8
from rsedge.stages.makers.openvino_int8 import OpenVinoInt8
from tests.rsedge.results.test_gates import recipe

SPEC = InputSpec(bands=tuple(BandSpec(name=name, nodata=0) for name in ("red", "green")), tile=32)
GOOD = Acceptance(score=1.0, reason="kappa as good")
TILES = list(np.random.default_rng(0).integers(1, 4000, (4, 2, 32, 32)).astype(np.uint16))
pytestmark = pytest.mark.skipif(not has_bf16(shared_core()), reason="this processor has no bf16")


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground[Path]]:
    task: Any = SimpleNamespace(output="map")
    task.held_out = lambda _role: SimpleNamespace(inputs=np.stack(TILES))
    ctx = RunContext(recipe(), SPEC, ("a", "b"), task, {}, None, "", None)  # type: ignore[arg-type]
    ctx.teacher = SimpleNamespace(spec=SimpleNamespace(task="segmentation"))  # type: ignore[assignment]
    net = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.Softmax(1), nn.Conv2d(8, 2, 1))
    net[2].bias.data[0] = 5.0  # no toss-up
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OpenVinoInt8, "accept", lambda *_: GOOD)
        patch.setattr(openvino_int8, "RACE_SECONDS", 0.05)
        yield OpenVinoInt8(ctx, ctx.recipe.parsed_targets[:1], tmp_path_factory.mktemp("int8"))(net)


@pytest.fixture(scope="module")
def plain(ground: Ground[Path]) -> Path:
    return ground.make(TILES, PtqSettings())


@pytest.fixture(scope="module")
def asking(ground: Ground[Path]) -> Path:
    return ground.make(TILES, PtqSettings(float_precision="bf16"))


def test_one_file_for_hosts_with_and_without_bf16(ground: Ground[Path], plain: Path, asking: Path) -> None:
    assert ground.tuning is not None and ground.tuning.bf16 is not None
    made = ground.tuning.bf16(plain)
    assert [float_precision(f, read_openvino(f)) for f in (plain, made, asking)] == ["f32", "bf16", "bf16"]
    assert made.with_suffix(".bin").read_bytes() == plain.with_suffix(".bin").read_bytes()
    assert ground.accept(made) == GOOD
    speed = ground.tuning.race(made, plain)
    assert speed.low <= speed.ratio <= speed.high


def test_bf16_that_misses_the_golden_vector_elsewhere_does_not_pass(
    ground: Ground[Path], plain: Path, asking: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenVinoBackend, "tolerance", lambda *_: (1e-9, 0.98))
    found = ground.accept(asking)
    assert not found.holds and "host without bf16 differs by" in found.reason and found.reason.startswith("kappa")
    assert ground.accept(plain) == GOOD


def test_layers_are_timed_side_by_side(ground: Ground[Path], plain: Path) -> None:
    assert ground.tuning is not None and ground.tuning.layer_times is not None
    found = ground.tuning.layer_times(plain)
    assert [name for t in found for name in t.layers] == list(ground.layers)
    assert all(t.int8_ms > 0 and t.float_ms > 0 for t in found)


def test_f32_is_never_changed_by_the_file(plain: Path, asking: Path) -> None:
    core = shared_core()
    options = [float_options(core, f, read_openvino(f), "CPU", how) for f in (plain, asking) for how in ("f32", "int8")]
    assert options == [{}, {}, {}, {"INFERENCE_PRECISION_HINT": "bf16"}]
