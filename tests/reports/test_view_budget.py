"""A mission's result is shown with what it rests on, and a predicted one never without the word."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsedge.devices.mission.budget import mission_budget
from rsedge.devices.mission.description import load_mission
from rsedge.devices.mission.load import Figure
from rsedge.reports.view_budget import budget_view
from tests.devices.mission.test_mission_budget import WORK, cost


@pytest.mark.parametrize("predicted", [False, True])
def test_assumptions_are_told_with_what_they_would_do(tmp_path: Path, predicted: bool) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("orbit: {}\n")
    latency = Figure(low=10, mid=20, high=30, unit="ms", provenance="predicted", source="test")
    own = cost(latency=latency) if predicted else cost()
    budget = mission_budget(*load_mission(path, ["sensor.gsd_m=10"]), WORK, own)
    shown = budget_view(budget)
    assumed = [(name, text) for name, text in shown.facts if name.startswith("assumed: ")]
    assert assumed[0][0] == "assumed: downlink.rate_mbit_s 5; if it were 1 to 25" and len(assumed) == 5
    together = dict(shown.facts)["all assumptions at their worse and better ends"]
    for text in (*(text for _, text in assumed), together, shown.result):
        assert text.startswith("predicted ") == predicted and "scenes per orbit" in text
    given = mission_budget(*load_mission(path, ["sensor.gsd_m=10", "downlink.rate_mbit_s=5"]), WORK, own)
    assert not any("rate_mbit_s" in name for name, _ in budget_view(given).facts)
