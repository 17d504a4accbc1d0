"""``rsedge run --dry-run`` on a small whole recipe: it leaves nothing, and finds now what a run would only find on its way."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin
from torch import nn

from rsedge.cli.main import run_app
from rsedge.data.errors import RequestError
from rsedge.data.metrics.table import METRICS, Metric
from rsedge.pipeline.dry_run import ANY_DROP, miniature
from rsedge.pipeline.estimate import disk_of, on_top
from rsedge.recipe.schema import Recipe

EDGE, TILE, BLOCK = 192, 32, 32
CONTENT: dict[str, Any] = {
    "name": "small",
    "threads": 1,
    "teacher": {
        "name": "onnx:teacher.onnx",
        "input": {"bands": ["red", "nir"], "tile": TILE, "quantity": "boa_reflectance", "scale": 1e-4, "nodata": 0,
                  "mean": 0.2, "std": 0.2},
        "classes": ["water", "land"],
    },
    "data": {
        "train": [{"path": "scene.tif", "bands": ["red", "nir"], "scale": 1e-4}],
        "test": {"path": "scene.tif", "bands": ["red", "nir"], "scale": 1e-4, "labels": "labels.tif"},
        "calibration": {"tiles": 6},
        "block": BLOCK, "guard": 0,
    },
    "student": {"name": "slim-unet", "stem": 4, "encoder": [8, 8], "blocks": [0, 0], "decoder": [8, 4]},
    "steps": [
        {"distill": {"steps": 5000, "views": 400, "batch": 4, "validate_every": 500}},
        {"prune": {"steps": 6, "round_to": 2, "target": {"macs_ratio": 0.5}}},
        {"quantize": {}},
    ],
    "targets": ["openvino-cpu-int8", "onnxruntime-cpu-int8"],
    "gates": [{"metric": "kappa", "max_drop": 0.0001}],
}  # fmt: skip


def write(path: Path, values: np.ndarray, left: int = 500_000, **more: Any) -> None:
    grid = {"driver": "GTiff", "height": EDGE, "width": EDGE, "crs": "EPSG:32633",
            "transform": from_origin(left, 5_000_000, 10, 10)}  # fmt: skip
    with rasterio.open(path, "w", count=len(values), dtype=values.dtype, **grid, **more) as f:
        f.write(values)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that tells land by its near infrared, a scene, and its labels."""
    folder = tmp_path_factory.mktemp("dry")
    rng = np.random.default_rng(0)
    land = np.kron(rng.random((EDGE // 8, EDGE // 8)) < 0.5, np.ones((8, 8))).astype(np.uint8)
    scene = np.stack([1000 + 200.0 * land, 500 + 2500.0 * land]) + rng.integers(0, 100, (2, EDGE, EDGE))
    write(folder / "scene.tif", scene.astype(np.uint16), nodata=0)
    write(folder / "labels.tif", land[None])
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1)).eval()
    batch = ({0: torch.export.Dim("n")},)
    example = (torch.zeros(2, 2, TILE, TILE),)
    torch.onnx.export(net, example, folder / "teacher.onnx", dynamo=True, verbose=False, dynamic_shapes=batch)
    return folder


def dry(
    folder: Path, content: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> tuple[int, dict[str, Any]]:
    monkeypatch.chdir(folder)
    Path("recipe.json.yaml").write_text(json.dumps(content))
    before = sorted(p.name for p in folder.iterdir())
    code = run_app(["run", "recipe.json.yaml", "--run-dir", "out/run", "--dry-run", "--json"])
    assert sorted(p.name for p in folder.iterdir()) == before
    return code, json.loads(capsys.readouterr().out)


def test_a_good_recipe_goes_through_every_stage_and_leaves_nothing(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, found = dry(files, CONTENT, capsys, monkeypatch)
    assert code == 0, found
    steps = [t["step"] for t in found["tried"]]
    assert steps == ["names", "run folder", "teacher and student", *found["stages"], "report", "estimate"]
    assert found["stages"] == ["data", "teacher", "distill", "prune", "export", "quantize", "verify", "bundle"]
    estimate = found["estimate"]
    assert estimate["provenance"] == "estimated"
    assert set(estimate["seconds"]) == set(found["stages"])
    assert estimate["total_seconds"] == pytest.approx(sum(estimate["seconds"].values()), abs=1)
    taken = {t["step"]: t["seconds"] for t in found["tried"]}
    # 5000 steps of which 3 were tried, 6 cuts of which one was.
    assert estimate["seconds"]["distill"] > taken["distill"] and estimate["seconds"]["prune"] > 3 * taken["prune"]
    assert estimate["memory_bytes"] > 1e8
    # Views of 16-bit numbers and two logits, in half precision or in single, as their measured error says.
    assert estimate["disk_bytes"]["teacher outputs"] in (0, *(400 * TILE * TILE * (2 * 2 + 2 * of) for of in (2, 4)))
    assert estimate["disk_bytes"]["bundles"] > 10_000
    assert any("layers back to float, where needed" in note for note in estimate["notes"])


def changed(**changes: Any) -> dict[str, Any]:
    """The recipe with fields changed, by their way with ``__`` between."""
    content = copy.deepcopy(CONTENT)
    for way, value in changes.items():
        *path, last = way.split("__")
        at = content
        for name in path:
            at = at[name]
        at[last] = value
    return content


def one_value_off(folder: Path) -> None:
    labels = np.ones((1, EDGE, EDGE), np.uint8)
    labels[0, 3, 3] = 7
    write(folder / "odd.tif", labels)


def shifted(folder: Path) -> None:
    write(folder / "odd.tif", np.ones((1, EDGE, EDGE), np.uint8), left=500_005)


def all_alike(folder: Path) -> None:
    write(folder / "odd.tif", np.full((2, EDGE, EDGE), 900, np.uint16), nodata=0)


def one_band(folder: Path) -> None:
    write(folder / "odd.tif", np.full((1, EDGE, EDGE), 900, np.uint16), nodata=0)


def no_model(folder: Path) -> None:
    (folder / "odd.onnx").write_bytes(b"not a model")


ODD = {"path": "odd.tif", "bands": ["red"], "scale": 1e-4}


@pytest.mark.parametrize(
    ("prepare", "changes", "step", "words"),
    [
        (one_value_off, {"data__test__labels": "odd.tif"}, "data", "7"),
        (shifted, {"data__test__labels": "odd.tif"}, "data", "odd.tif"),
        (one_band, {"data__train": [ODD]}, "data", "nir"),
        (all_alike, {"data__train": [{**ODD, "bands": ["red", "nir"]}]}, "teacher", "calibration tile is constant"),
        (no_model, {"teacher__name": "onnx:odd.onnx"}, "teacher and student", "odd.onnx"),
        (None, {"student": {"name": "slim-unet", "blocks": [1]}}, "teacher and student", "one entry per stage"),
        (None, {"teacher__classes": ["water", "land", "ice"]}, "teacher and student", "3"),
        (None, {"data__block": 512}, "data", "block"),
        (None, {"targets": ["openvino-cpu-int9"]}, None, "int9"),
        (None, {"student__name": "slim-net"}, "names", "slim-unet"),
    ],
)
def test_what_would_fail_later_fails_now_and_leaves_nothing(
    prepare: Any, changes: dict[str, Any], step: str | None, words: str, files: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if prepare is not None:
        prepare(files)
    code, found = dry(files, changed(**changes), capsys, monkeypatch)
    assert code == 2, found
    assert words in found["error"]
    if step is not None:
        assert found["error"].startswith(f"dry run: {step}: ")


def test_a_gate_on_a_figure_that_maps_do_not_have_is_found_with_the_teacher(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    of_samples = {"classes": "rsedge.data.metrics.confusion:accuracy_statistic"}
    METRICS.register(Metric("of_samples", "of samples", ("min",), computed=of_samples))
    try:
        gates = [{"metric": "kappa", "min": 0}, {"metric": "of_samples", "min": 0.1}]
        code, found = dry(files, changed(gates=gates), capsys, monkeypatch)
    finally:
        METRICS.unregister("of_samples")
    assert code == 2, found
    assert found["error"].startswith("dry run: teacher: gates[1]: of_samples is no figure")


def one_class(folder: Path) -> None:
    write(folder / "odd.tif", np.ones((1, EDGE, EDGE), np.uint8))


def test_labels_that_cannot_tell_a_gate_are_warned_of_and_stop_the_run_before_training(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one_class(files)
    content = changed(data__test__labels="odd.tif", targets=["openvino-cpu-f32"], steps=[{"distill": {"steps": 3}}])
    code, found = dry(files, content, capsys, monkeypatch)
    assert code == 0 and any("nothing of class water" in text for text in found["warnings"])
    assert run_app(["run", "recipe.json.yaml", "--run-dir", str(tmp_path / "run")]) == 2
    assert "gates[0]: the test set cannot tell kappa" in capsys.readouterr().err
    assert sorted(p.name for p in (tmp_path / "run/stages").iterdir()) == ["data", "teacher"]


def test_a_folder_that_is_not_for_runs_is_refused(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(files)
    (tmp_path / "mine.txt").write_text("mine")
    Path("recipe.json.yaml").write_text(json.dumps(CONTENT))
    assert run_app(["run", "recipe.json.yaml", "--run-dir", str(tmp_path), "--dry-run"]) == 2
    assert "dry run: run folder: " in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_the_miniature_is_the_recipe_but_for_how_long_it_trains_and_searches() -> None:
    recipe = Recipe.model_validate_json(json.dumps(CONTENT))
    small = miniature(recipe)
    assert (small.distill.steps, small.distill.views, small.gates) == (3, 4, ())
    assert small.prune is not None and (small.prune.steps, small.prune.max_drop) == (1, ANY_DROP)
    assert small.quantize is not None and small.quantize.max_trials == 1
    kept = {"name", "seed", "threads", "device", "teacher", "data", "student", "targets", "tensorrt", "boxes"}
    assert all(getattr(small, field) == getattr(recipe, field) for field in kept)


@pytest.mark.parametrize(
    ("quantize", "told"),
    [
        ({}, ["training under rounding", "layers back to float"]),
        ({"qat": {"steps": 0}}, ["layers back to float"]),
        ({"max_reversions": 0}, ["training under rounding"]),
        ({"qat": {"steps": 0}, "max_reversions": 0}, []),
        ({"weights_only": "int8"}, []),
    ],
)
def test_only_what_the_search_may_do_is_said_to_come_on_top(quantize: dict[str, Any], told: list[str]) -> None:
    content = changed(steps=[CONTENT["steps"][0], {"quantize": quantize}], targets=["openvino-cpu-int8"])
    assert on_top(Recipe.model_validate_json(json.dumps(content))) == told


def test_disk_is_counted_by_what_lies_at_the_top(tmp_path: Path) -> None:
    (tmp_path / "stages/data").mkdir(parents=True)
    (tmp_path / "stages/data/a").write_bytes(bytes(10))
    (tmp_path / "stages/b").write_bytes(bytes(5))
    (tmp_path / "report.html").write_bytes(bytes(3))
    assert disk_of(tmp_path) == {"stages": 15, "report.html": 3}


def test_a_full_disk_is_said_before_any_work(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = changed(steps=[{"distill": {"steps": 3, "views": 10**12, "batch": 4, "cache": "always"}}])
    content["targets"] = ["openvino-cpu-f32"]
    code, found = dry(files, content, capsys, monkeypatch)
    assert code == 4
    assert found["error"].startswith("dry run: estimate: ") and "lower steps.distill.views" in found["error"]


def test_errors_are_of_the_kind_that_a_run_gives(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rsedge.pipeline.dry_run import dry_run
    from rsedge.recipe.reading import load_recipe

    monkeypatch.chdir(files)
    Path("recipe.json.yaml").write_text(json.dumps(changed(data__block=512)))
    with pytest.raises(RequestError, match=r"^dry run: data: "):
        dry_run(load_recipe("recipe.json.yaml"), Path("out/run"), quiet=True)
