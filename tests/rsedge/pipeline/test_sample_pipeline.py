"""Recipes over samples, on real teachers: crop series and climate zones (RSEDGE_DATA)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsedge.cli.main import run_app
from rsedge.recipe.reading import load_recipe
from rsedge.recipe.schema import Recipe
from rsedge.runtimes.bundle.reading import Bundle
from tests import UNTUNED

DATA = Path(os.environ.get("RSEDGE_DATA", "../shared/data"))
with_data = pytest.mark.skipif(not (DATA / "worldcereal").is_dir(), reason=f"{DATA}: no shared data")


def run(text: str, folder: Path, *more: str) -> dict[str, Any]:
    recipe = folder / "recipe.yaml"
    recipe.write_text(text)
    assert run_app(["run", str(recipe), "--run-dir", str(folder / "run"), *more]) == 0
    found: dict[str, Any] = json.loads((folder / "run/report.json").read_text())
    return found


PLAIN = [f"steps.quantize.{name}={value}" for name, value in UNTUNED.items()]
STUDENTS: dict[str, tuple[dict[str, Any], list[str], float]] = {
    "narrowed": ({"name": "narrow-copy", "arch": {"months": 2}}, [], 0.8),
    "pruned": (
        {"name": "teacher"},
        ["prune.steps=1", "prune.taylor_batches=2", "prune.refit_batches=4", "prune.target.params_ratio=0.8"],
        0.8,
    ),
    "fresh": ({"name": "series-conv"}, ["distill.views=2048", "distill.steps=1000", "distill.batch=64"], 0.3),
}


@with_data
@pytest.mark.parametrize(
    "student", [s if s == "narrowed" else pytest.param(s, marks=pytest.mark.slow) for s in STUDENTS]
)
def test_series_cross_validated_by_region(student: str, tmp_path: Path) -> None:
    """Copies of the teacher keep their F1 in regions whose series nothing was fitted to; a student from scratch learns."""
    recipe = json.loads(load_recipe("crop-series").model_dump_json(exclude_none=True))
    network, steps, f1 = STUDENTS[student]
    recipe |= {
        "student": network,
        "gates": [{"metric": "f1_crossval", "min": f1}, {"metric": "agreement_crossval", "min": 0.5}],
    }
    if student != "pruned":
        recipe["steps"] = [step for step in recipe["steps"] if "prune" not in step]
    more = [
        "data.folds=2",
        "steps.distill.views=512",
        "steps.quantize.max_trials=1",
        "steps.quantize.max_drop=1.0",
        *PLAIN,
    ]
    more += [f"steps.{step}" for step in steps]
    report = run(json.dumps(recipe), tmp_path, *(word for s in more for word in ("--set", s)))
    rows = {
        row["network"]: row for stage in report["stages"] if stage["name"] == "crossval" for row in stage["details"]
    }
    assert set(rows) == {"teacher", "f32", "openvino-cpu-int8"}
    assert rows["teacher"]["f1"] > 0.85
    gates = {g["name"]: g["value"] for g in report["targets"][1]["gates"]}
    assert gates[f"f1_crossval min {f1}"] == pytest.approx(rows["openvino-cpu-int8"]["f1"])
    assert gates["agreement_crossval min 0.5"] == report["targets"][1]["metrics"]["agreement_crossval"]


@with_data
def test_the_teacher_itself_is_quantized_and_answers_for_chips(tmp_path: Path) -> None:
    recipe = load_recipe("local-climate-zones")
    text = json.dumps(json.loads(recipe.model_dump_json(exclude_none=True)) | {"gates": [
        {"metric": "agreement", "min": 0.999, "target": "openvino-cpu-f32"}]})  # fmt: skip
    small = ["steps.quantize.max_trials=1", "steps.quantize.max_reversions=0", "steps.quantize.qat.steps=0", *PLAIN]
    small += ["data.calibration.tiles=24", "threads=1"]
    report = run(text, tmp_path, *(word for s in small for word in ("--set", s)))
    assert report["targets"][0]["agreement"] == 1.0
    chip, out = DATA / "sentinel2_chips/patch_33188.tif", tmp_path / "zones.tif"
    names = "coastal,blue,green,red,rededge1,rededge2,rededge3,nir,nir08,watervapour,swir16,swir22"
    bundle = tmp_path / "run/bundles/openvino-cpu-f32"
    assert run_app(["infer", str(bundle), str(chip), "-o", str(out), "--bands", names]) == 0
    import rasterio

    with rasterio.open(chip) as scene, rasterio.open(out) as zones:
        assert (zones.height, zones.width) == (8, 8) and zones.crs == scene.crs
        assert zones.transform.a == pytest.approx(32 * scene.transform.a)
        assert zones.read(1).max() < 17


def test_only_copies_of_the_teacher_go_without_training() -> None:
    values = {"name": "t", "teacher": {"name": "geoclip-location"}, "data": {"samples": {"source": "geoclip-gallery"}},
              "steps": [{"quantize": {}}], "targets": ["openvino-cpu-int8"]}  # fmt: skip
    for copy in ({"name": "teacher"}, {"name": "narrow-copy", "arch": {"depth": 1}}):
        assert Recipe.model_validate_json(json.dumps(values | {"student": copy})).distill.steps == 0
    with pytest.raises(ValueError, match="steps must hold 'distill'"):
        Recipe.model_validate_json(json.dumps(values))
    trained = values | {"student": {"name": "teacher"}, "steps": [{"distill": {"steps": 5}}]}
    with pytest.raises(ValueError, match="teacher as it is"):
        Recipe.model_validate_json(json.dumps(trained))


@pytest.mark.slow  # test_own_metric.py runs such a recipe in every test run
def test_an_encoder_of_embeddings_becomes_a_classifier(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """GeoCLIP's encoder (weights in a wheel) and a table of labelled places: a probe is fitted, distilled, flown."""
    pytest.importorskip("geoclip")
    rng = np.random.default_rng(2)
    places = np.stack([rng.uniform(-70, 70, 300), rng.uniform(-170, 170, 300)], 1)
    zones = np.where(np.abs(places[:, 0]) < 23.4, "tropics", np.where(places[:, 0] > 0, "north", "south"))
    rows = [f"{a:.4f},{b:.4f},{zone}" for (a, b), zone in zip(places, zones, strict=True)]
    (tmp_path / "places.csv").write_text("\n".join(["lat,lon,zone", *rows]) + "\n")
    recipe = {
        "name": "zones", "threads": 1,
        "teacher": {"name": "geoclip-location", "classes": ["north", "south", "tropics"], "probe": {}},
        "data": {"samples": {"source": "places.csv", "root": str(tmp_path), "options": {
                     "bands": {"latitude": "lat", "longitude": "lon"}, "label": "zone", "classes": ["north", "south", "tropics"]}},
                 "calibration": {"tiles": 16}, "augment": {"jitter_deg": [1.0], "uniform": 0.5}},
        "student": {"name": "place-mlp"},
        "steps": [{"distill": {"steps": 60, "views": 512, "batch": 64, "validate_every": 30}}],
        "targets": ["openvino-cpu-f32"], "gates": [{"metric": "kappa", "min": 0.2}],
    }  # fmt: skip
    report = run(json.dumps(recipe), tmp_path)
    stages = {s["name"]: s for s in report["stages"]}
    assert (
        list(stages)[:3] == ["data", "probe", "teacher"] and "linear head on 512 features" in stages["probe"]["reason"]
    )
    assert report["teacher"]["metrics"]["kappa"] > 0.8  # of places that the head was not fitted to
    with Bundle.open(tmp_path / "run/bundles/openvino-cpu-f32") as opened:
        assert opened.manifest.task == "classification" and opened.manifest.classes == ("north", "south", "tropics")
    (tmp_path / "again.json").write_text(
        json.dumps(recipe | {"teacher": recipe["teacher"] | {"classes": ["tropics", "north", "south"]}})
    )
    assert run_app(["run", str(tmp_path / "again.json"), "--run-dir", str(tmp_path / "other"), "--until", "probe"]) == 2
    # Of two classes both are named, or the second, which is a yes or no.
    recipe["data"]["samples"]["options"]["classes"] = ["north", "south"]
    capsys.readouterr()
    for named, code in ((["north", "south"], 0), (["south"], 0), (["north"], 2)):
        (tmp_path / "two.json").write_text(json.dumps(recipe | {"teacher": recipe["teacher"] | {"classes": named}}))
        assert (
            run_app(["run", str(tmp_path / "two.json"), "--run-dir", str(tmp_path / "two"), "--until", "teacher"])
            == code
        )
        if code == 0:
            value = json.loads((tmp_path / "two/stages/teacher/record.json").read_text())["value"]
            assert value["metrics"]["f32"]["f1"] > 0.8
    assert "one class is the samples' class 1, which is 'south', not 'north'" in capsys.readouterr().err


@pytest.mark.slow
@with_data
def test_a_probe_is_fitted_anew_for_every_fold(tmp_path: Path) -> None:
    """Galileo's encoder (real weights) on labelled series: no head that answers for a region has seen it."""
    recipe = {
        "name": "probe", "threads": 1,
        "teacher": {"name": "galileo-nano-series", "checkpoint": "data:galileo_nano/encoder.pt", "classes": ["crop"], "probe": {}},
        "data": {"samples": {"source": "worldcereal-crop", "options": {"fill": "time"}}, "folds": 2, "calibration": {"tiles": 8}},
        "student": {"name": "teacher"}, "steps": [{"distill": {"steps": 0, "views": 16}}], "targets": ["openvino-cpu-f32"],
        "gates": [{"metric": "f1_crossval", "min": 0.5}, {"metric": "agreement", "min": 0.999}],
    }  # fmt: skip
    report = run(json.dumps(recipe), tmp_path)
    rows = {row["network"]: row for s in report["stages"] if s["name"] == "crossval" for row in s["details"]}
    assert rows["teacher"]["f1"] == pytest.approx(rows["f32"]["f1"]) and 0.5 < rows["teacher"]["f1"] < 0.8
    assert report["teacher"]["params"] == 1037856 + 129
