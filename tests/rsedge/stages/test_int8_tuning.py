"""bf16 beside INT8 on OpenVINO: the same file, held to the golden vector's limits on hosts without it."""

from __future__ import annotations

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
from rsedge.runtimes.openvino.core import float_precision, has_bf16, shared_core
from rsedge.stages.context import RunContext
from rsedge.stages.makers.openvino_int8 import OpenVinoInt8
from tests.rsedge.results.test_gates import recipe

SPEC = InputSpec(bands=tuple(BandSpec(name=name, nodata=0) for name in ("red", "green")), tile=32)
GOOD = Acceptance(score=1.0, reason="kappa as good")
TILES = list(np.random.default_rng(0).integers(1, 4000, (4, 2, 32, 32)).astype(np.uint16))
pytestmark = pytest.mark.skipif(not has_bf16(shared_core()), reason="this processor has no bf16")


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ground[Path]:
    monkeypatch.setattr(OpenVinoInt8, "accept", lambda *_: GOOD)
    task: Any = SimpleNamespace(output="map", gives_tokens=False)
    task.held_out = lambda _role: SimpleNamespace(inputs=np.stack(TILES))
    ctx = RunContext(recipe(), SPEC, ("a", "b"), task, {}, None, "", None)  # type: ignore[arg-type]
    ctx.teacher = SimpleNamespace(spec=SimpleNamespace(task="segmentation"))  # type: ignore[assignment]
    net = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.Softmax(1), nn.Conv2d(8, 2, 1))
    net[2].bias.data[0] = 5.0  # no toss-up
    return OpenVinoInt8(ctx, ctx.recipe.parsed_targets[:1], tmp_path)(net)


def test_one_file_for_hosts_with_and_without_bf16(ground: Ground[Path]) -> None:
    assert ground.tuning is not None and ground.tuning.bf16 is not None
    plain = ground.make(TILES, PtqSettings())
    made = ground.tuning.bf16(plain)
    again = ground.make(TILES, PtqSettings(float_precision="bf16"))
    assert [float_precision(f, read_openvino(f)) for f in (plain, made, again)] == ["f32", "bf16", "bf16"]
    assert made.with_suffix(".bin").read_bytes() == plain.with_suffix(".bin").read_bytes()
    assert ground.accept(made) == GOOD
    speed = ground.tuning.race(made, plain)
    assert speed.low <= speed.ratio <= speed.high


def test_bf16_that_misses_the_golden_vector_elsewhere_does_not_pass(
    ground: Ground[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenVinoBackend, "tolerance", lambda *_: (1e-9, 0.98))
    made = ground.make(TILES, PtqSettings(float_precision="bf16"))
    found = ground.accept(made)
    assert not found.holds and "host without bf16 differs by" in found.reason and found.reason.startswith("kappa")
    assert ground.accept(ground.make(TILES, PtqSettings())) == GOOD
