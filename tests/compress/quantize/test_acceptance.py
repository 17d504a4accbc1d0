"""What a quantized model must keep where the f32 network misses a gate itself."""

from __future__ import annotations

import pytest

from rsedge.compress.quantize.acceptance import Acceptance, Limit


@pytest.mark.parametrize(
    ("missed", "passes"), [((), True), (("kappa",), True), (("size",), False), (("kappa", "size"), False)]
)
def test_a_gate_that_f32_misses_excuses_no_other(missed: tuple[str, ...], passes: bool) -> None:
    limit = Limit(Acceptance(score=0.9, holds=False, missed=("kappa",), shortfall=0.1), max_drop=0.01)
    assert limit.passes(Acceptance(score=0.895, holds=not missed, missed=missed)) is passes
    assert not limit.passes(Acceptance(score=0.88))
    assert not Limit(Acceptance(score=0.9), 0.01).passes(Acceptance(score=0.9, holds=False, missed=("kappa",)))
