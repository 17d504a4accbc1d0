"""A metric of somebody else's package, as docs/own-metrics.md has it: gates ask for it, a run judges it, report and bundle tell."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rsedge.cli.main import run_app
from rsedge.data.metrics.table import METRICS, of_packages
from rsedge.recipe.json_schema import json_schema
from tests.documented_package import install

CLASSES = ["south", "tropics", "north"]


@pytest.fixture
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """As long as it is not undone, the package is installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(install("own-metrics.md", tmp_path_factory.mktemp("package")))
        of_packages.cache_clear()
        yield patch
    of_packages.cache_clear()


def test_a_metric_of_a_package_is_judged_reported_and_signed(
    package: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("geoclip")
    rng = np.random.default_rng(2)
    places = np.stack([rng.uniform(-70, 70, 300), rng.uniform(-170, 170, 300)], 1)
    rows = [f"{a:.4f},{b:.4f},{CLASSES[(a > -23.4) + int(a > 23.4)]}" for a, b in places]
    (tmp_path / "places.csv").write_text("\n".join(["lat,lon,zone", *rows]) + "\n")
    recipe = {
        "name": "zones", "threads": 1,
        "teacher": {"name": "geoclip-location", "classes": CLASSES, "probe": {}},
        "data": {"samples": {"source": "places.csv", "root": str(tmp_path), "options": {
                     "bands": {"latitude": "lat", "longitude": "lon"}, "label": "zone", "classes": CLASSES}},
                 "calibration": {"tiles": 16}, "augment": {"jitter_deg": [1.0], "uniform": 0.5}},
        "student": {"name": "place-mlp"},
        "steps": [{"distill": {"steps": 40, "views": 256, "batch": 64, "validate_every": 40}}],
        "targets": ["openvino-cpu-f32"],
        "gates": [{"metric": "specificity", "max_drop": 1.0}, {"metric": "specificity", "min": 0.01}],
    }  # fmt: skip
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    assert "specificity" in json_schema()["$defs"]["GateSection"]["properties"]["metric"]["enum"]
    words = ["run", str(tmp_path / "recipe.json"), "--run-dir", str(tmp_path / "run")]
    assert run_app(words) == 0
    report = json.loads((tmp_path / "run/report.json").read_text())
    (target,) = report["targets"]
    counts = np.array(target["metrics"]["confusion"])
    right, wrong = counts[:2, :2].sum(), counts[:2, 2].sum()
    value, teacher = target["metrics"]["specificity"], report["teacher"]["metrics"]["specificity"]
    assert value == pytest.approx(right / (right + wrong))
    drop, floor = target["gates"]
    assert (drop["value"], floor["value"]) == (pytest.approx(teacher - value), value)
    for gate in (drop, floor):
        assert gate["unit"] == "samples" and gate["n"] > 20 and gate["outcome"] == "passed"
        assert gate["interval"][0] < gate["value"] < gate["interval"][1]
    assert "specificity at least 0.010" in (tmp_path / "run/report.html").read_text()
    capsys.readouterr()

    # Where the package is not installed: bundles say what they were held to, recipes that there is no such metric.
    package.undo()
    of_packages.cache_clear()
    assert "specificity" not in METRICS
    assert run_app(["inspect", str(tmp_path / "run/bundles/openvino-cpu-f32"), "--json"]) == 0
    assert "specificity min 0.01" in capsys.readouterr().out
    assert run_app([*words, "--dry-run"]) == 2
    assert "'specificity' is not one of 'kappa'" in capsys.readouterr().err
