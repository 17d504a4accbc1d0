"""The budget's chart and section: every limit is drawn, the one that binds stands out, predicted ones say so."""

from __future__ import annotations

import re

from rsedge.devices.mission.budget import Budget, mission_budget
from rsedge.devices.mission.description import OrbitMission
from rsedge.devices.mission.load import Figure, TileCost, Workload
from rsedge.reports.html import render
from rsedge.reports.schema import Report
from rsedge.reports.svg_budget import limits
from tests.real_run import RealReport

WORK = Workload("tensorrt-x-int8", "tensorrt", "int8", "x", 256, 6, 2, 10.0, None, None, None)


def budget(low: float, high: float, memory_mb: float = 100) -> Budget:
    kind = "measured" if low == high else "predicted"
    latency = Figure(low=low, mid=(low + high) / 2, high=high, unit="ms", provenance=kind, source="test")
    cost = TileCost(
        device="x",
        power_mode="15W",
        latency=latency,
        idle_w=Figure.exact(4, "W", "given", "test"),
        dynamic=Figure.exact(100, "mJ", "given", "test"),
        memory=Figure.exact(memory_mb, "MB", "measured", "test"),
        usable_memory_mb=1000,
        cap_w=None,
    )
    given = {"orbit": {}, "downlink": {"rate_mbit_s": 500}, "power": {"eclipse_w": 20}}
    return mission_budget(OrbitMission.model_validate(given), [], WORK, cost)


def test_rows_and_the_one_that_binds() -> None:
    found = budget(200, 200)
    text = str(limits(found))
    assert all(f">{limit.name}</text>" in text for limit in found.limits)
    assert len(re.findall(r'class="limit binds', text)) == 1
    assert "predicted" not in text and "hollow" not in text


def test_predicted_limits_say_so() -> None:
    found = budget(100, 400)
    text = str(limits(found))
    uncertain = [x for x in found.limits if x.amount.low < x.amount.high]
    assert uncertain and text.count("predicted ") == text.count("hollow") == len(uncertain)


def test_no_room_at_all_is_drawn_as_zero() -> None:
    found = budget(20, 20, memory_mb=2000)
    assert found.bottleneck == "memory" and found.result.mid == 0
    assert re.search(r'class="limit binds"><text[^>]*>0</text>', str(limits(found)))


def test_section_in_the_page_and_back_from_json(ran: RealReport) -> None:
    report, assets = ran.report.model_copy(update={"budgets": []}), ran.assets
    with_budget = report.model_copy(update={"budgets": [budget(100, 400)]})
    page = render(with_budget, assets)
    section = page[page.index('id="budget"') :].split("</section>")[0]
    assert "predicted" in section and "Bottleneck: compute" in section and "power mode 15W" in section
    assert 'id="budget"' not in render(report, assets)
    assert Report.model_validate_json(with_budget.model_dump_json()).budgets == with_budget.budgets
