"""How a run ends: the exit code follows the values, strict asks for decided gates, and the last line says all of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from rsedge.data.errors import GateFailed, RequestError
from rsedge.data.metrics.verdict import Gate, Verdict
from rsedge.pipeline.run import RunSummary
from rsedge.recipe.schema import Recipe
from tests.rsedge.results.test_gates import recipe

FIRST, SECOND = "openvino-cpu-int8", "openvino-cpu-f32"
KAPPA = {"metric": "kappa", "max_drop": 0.04}


def gate(value: float, interval: tuple[float, float] | None) -> Gate:
    low, high = interval or (-9.0, 9.0)
    outcome = "passed" if high <= 0.04 else "failed" if low > 0.04 else "undecided"
    leans = ("passed" if value <= 0.04 else "failed") if outcome == "undecided" else None
    return Gate.model_validate({
        "metric": "kappa", "constraint": "max_drop", "limit": 0.04, "target": "openvino-cpu-int8", "value": value,
        "interval": interval, "n": 12, "unit": "blocks", "outcome": outcome, "leans": leans,
        "more_needed": 21 if leans else None,
    })  # fmt: skip


PASSED, FAILED = gate(0.01, (0.0, 0.02)), gate(0.09, (0.06, 0.12))
LEANING, SINKING = gate(0.03, (0.0, 0.06)), gate(0.05, (0.02, 0.08))


@pytest.mark.parametrize(
    ("gates", "code", "strict_code", "headline"),
    [
        ([PASSED], 0, 0, "the gate passed"),
        (
            [PASSED, LEANING],
            0,
            3,
            "undecided, leans to passed: 1 of 2 gates undecided; about 21 more blocks would decide",
        ),
        (
            [PASSED, SINKING],
            3,
            3,
            "undecided, leans to failed: 1 of 2 gates undecided; about 21 more blocks would decide",
        ),
        ([FAILED, LEANING], 3, 3, "failed: 1 of 2 gates; 1 of 2 gates undecided; about 21 more blocks would decide"),
        ([], 0, 0, "no gates: nothing was judged"),
    ],
)
def test_exit_code_and_last_line(gates: list[Gate], code: int, strict_code: int, headline: str) -> None:
    for strict, wanted in ((False, code), (True, strict_code)):
        summary = RunSummary("t", Path("run"), Verdict.of(gates), 1.0, strict)
        assert summary.exit_code == wanted and summary.headline.startswith(headline)
        told = json.loads(json.dumps(summary.as_dict()))
        assert (told["exit_code"], told["headline"], told["strict"]) == (wanted, summary.headline, strict)
        assert len(told["gates"]) == len(gates) and len(told["failed_gates"]) == len(summary.failed)
        assert len(told["undecided_gates"]) == sum(g.outcome == "undecided" for g in gates)
        if not wanted:
            summary.raise_for_gates()
            continue
        with pytest.raises(GateFailed) as error:
            summary.raise_for_gates()
        lines = str(error.value).splitlines()
        assert lines[0].startswith("gates do not hold" if code else "gates are undecided")
        assert lines[-1] == summary.headline and len(lines) == 2 + len(summary.failed)
        assert ("strict asks for decided gates" in lines[-1]) == (strict and any(not g.decided for g in gates))


def test_a_run_that_stopped_early_has_no_verdict() -> None:
    summary = RunSummary("t", Path("run"), None, 1.0, stopped_after="data")
    told = summary.as_dict()
    assert (summary.exit_code, told["verdict"], told["gates"], told["report"]) == (0, "stopped", [], None)
    assert "--until" in summary.headline


def test_strict_without_gates_is_refused_and_its_advice_works() -> None:
    assert recipe(KAPPA).strict is False
    for own, where in (([], "under gates"), ([{**KAPPA, "target": FIRST}], f"for target {SECOND}")):
        with pytest.raises(
            RequestError, match=rf"strict \(--strict\) asks for decided gates, .* none {where}"
        ) as refused:
            strict(recipe(*own))
        advised = yaml.safe_load(str(refused.value).partition("such as ")[2].partition(", or")[0])
        assert strict(recipe(*own, advised)).strict
    assert strict(recipe(KAPPA)).strict
    assert recipe({**KAPPA, "target": FIRST}).gates, "without strict a target may go unjudged"


def strict(given: Recipe) -> Recipe:
    from rsedge.data.documents import Document, Place
    from rsedge.recipe.reading import check_document

    value = json.loads(given.model_dump_json(exclude_none=True, exclude_defaults=True)) | {"strict": True}
    return check_document(Document(value, {(): Place("test")}))
