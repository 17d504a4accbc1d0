"""The whole way on a real teacher and a real chip, with a student that hardly trains: killed once, resumed, then reused."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from rsedge.cli.main import run_app
from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.scenes.splits import HELD_OUT, SPLITS, BlockSplit
from rsedge.models.zoo import teacher_row
from rsedge.recipe.reading import load_recipe
from rsedge.recipe.schema import Recipe
from rsedge.runtimes.bundle.reading import Bundle
from tests.real_run import MISSED, Finished, use_small_tiles, words

pytest.importorskip("ukis_csmask")
pytest.importorskip("spyndex")

STAGES = ["data", "teacher", "distill", "prune", "export", "quantize", "verify", "bundle"]
ROOMS = ["", ".data", ".models", ".compress", ".export", ".runtimes", ".devices", ".reports"]


@dataclass(frozen=True)
class Ended:
    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Ended]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the recipe in a folder in this process: what reads a run again need not load the libraries again."""
    use_small_tiles(monkeypatch)

    def ended(folder: Path, *more: str) -> Ended:
        capsys.readouterr()
        code = run_app(words(folder, *more))
        return Ended(code, *capsys.readouterr())

    return ended


@pytest.fixture(scope="module")
def report(finished: Finished) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((finished.folder / "run/report.json").read_text())
    return content


def test_a_killed_run_resumes_and_a_failed_gate_is_exit_3(finished: Finished) -> None:
    folder, summary = finished.folder, finished.summary
    assert summary["exit_code"] == 3
    assert len(summary["failed_gates"]) == MISSED
    assert summary["failed_gates"][0].startswith("openvino-cpu-int8: latency min_speedup 1000")
    for name in ("report.html", "report.json", "recipe.resolved.yaml"):
        assert (folder / "run" / name).stat().st_size > 0
    record = json.loads((folder / "run/stages/distill/record.json").read_text())["value"]["record"]
    assert record["steps"] == 40
    assert not (folder / "run/stages/distill/resume").exists()


def test_a_stages_key_hashes_all_code_that_ran_in_it(finished: Finished) -> None:
    rooms = [Path(importlib.import_module(f"rsedge{room}").__path__[0]) for room in ROOMS]
    # The one line of it that runs inside a stage hands the stage its arguments.
    outside = {str(rooms[0] / f"{name}.py") for name in ("pipeline/run", "pipeline/line", "cli/heartbeat")}
    for name in STAGES:
        trace = json.loads((finished.folder / "trace" / f"{name}.json").read_text())
        ran = {file for file in trace["ran"] if any(Path(file).is_relative_to(room) for room in rooms)}
        assert len(ran) > 10, name
        assert ran - outside <= set(trace["hashed"]), name


def test_the_test_tiles_are_opened_by_judging_stages_alone(finished: Finished) -> None:
    opened = {
        stage: json.loads((finished.folder / "trace" / f"{stage}.json").read_text())["opened"] for stage in STAGES
    }
    readers = {
        role: [
            stage
            for stage, files in opened.items()
            for f in files
            if f == str(finished.run / f"stages/data/{role}.npz")
        ]
        for role in HELD_OUT
    }
    assert set(readers["test"]) == {"teacher", "verify"}
    assert readers["selection"] == ["teacher", "distill"], "each of the two processes reads it once"
    with np.load(finished.run / "stages/data/calibration.npz") as drawn:
        assert drawn.files == ["dn", "dn-1"] and not np.array_equal(drawn["dn"], drawn["dn-1"])
    assert "The selection set is small for its task" in (finished.run / "report.json").read_text()


def test_until_ends_early_and_the_next_run_goes_on(tmp_path: Path, run: Run) -> None:
    done = run(tmp_path, "--until", "data", "--json")
    summary = json.loads(done.stdout)
    assert [w for w in summary["warnings"] if w.startswith("The selection set is small for its task")]
    assert (done.returncode, summary["verdict"], summary["stopped_after"], summary["report"]) == (
        0,
        "stopped",
        "data",
        None,
    )
    assert [p.name for p in (tmp_path / "run/stages").iterdir()] == ["data"]
    assert not (tmp_path / "run/report.html").exists()
    again = run(tmp_path, "--until", "data")
    assert "[1/8] data: reused" in again.stderr
    manifest = json.loads((tmp_path / "run/stages/data/manifest.json").read_text())
    told = [*manifest["warnings"], *(split["note"] for split in manifest["splits"].values() if split["note"])]
    assert told and all(f"warning: {text}" in again.stderr for text in told)
    wrong = run(tmp_path, "--until", "distil", "--json")
    assert wrong.returncode == 2 and "--until distil: no such stage" in json.loads(wrong.stdout)["error"]


def test_the_resolved_recipe_is_the_recipe(finished: Finished) -> None:
    folder = finished.folder
    assert load_recipe(folder / "run/recipe.resolved.yaml") == load_recipe(folder / "recipe.yaml")


def test_report_holds_the_contract(report: dict[str, Any]) -> None:
    assert {"params", "macs", "size_bytes", "latency_ms", "metrics"} <= set(report["teacher"])
    assert {"p50", "p90", "p99"} <= set(report["teacher"]["latency_ms"])
    assert [s["name"] for s in report["stages"]] == STAGES
    assert all({"name", "outcome", "before", "after", "seconds", "reason"} <= set(s) for s in report["stages"])
    int8, _, jetson, *_ = report["targets"]
    assert (int8["provenance"], jetson["provenance"]) == ("measured", "predicted")
    assert jetson["latency_ms"] is None
    assert jetson["interval"]["low_ms"] <= jetson["interval"]["high_ms"]
    assert int8["throughput_per_s"] > 0
    assert int8["peak_rss_bytes"] > 1e6
    assert 0 <= int8["agreement"] <= 1
    assert int8["metrics"]["iou"].keys() == {"clear", "cloud", "shadow"}
    assert {"name", "passed", "value", "limit"} <= set(int8["gates"][0])
    assert jetson["parity"]["compile_gate"]["ok"] is not False
    assert report["environment"]["versions"]["openvino"]
    assert [p["name"] for p in report["layers"]] == ["openvino-cpu-int8", "teacher-openvino-f32"]
    assert all(sum(layer["ms"] for layer in p["layers"]) > 0 for p in report["layers"])
    assert len(report["data"]["manifest_sha256"]) == 64
    assert {b["name"] for b in report["baselines"]} == {"teacher-openvino-f32", "teacher-openvino-int8"}


def test_the_mission_gives_a_budget_or_says_why_not(report: dict[str, Any], finished: Finished) -> None:
    (jetson,) = (b for b in report["budgets"] if b["target"] != "openvino-myriad-x-fp16")
    assert jetson["target"] == "tensorrt-jetson-orin-nano-8gb-fp16" and jetson["provenance"] == "predicted"
    assert jetson["result"]["low"] <= jetson["result"]["mid"] <= jetson["result"]["high"]
    note = next(n for n in report["notes"] if n.startswith("No mission budget for openvino-cpu-int8"))
    assert "compute.idle_w" in note
    page = (finished.folder / "run/report.html").read_text()
    assert 'id="budget"' in page and "Limits of the mission for tensorrt-jetson-orin-nano-8gb-fp16" in page


def test_a_myriad_target_gives_a_bundle_of_its_own_release(
    finished: Finished, report: dict[str, Any], openvino2022: Path | None
) -> None:
    if openvino2022 is None:
        pytest.skip("no Python 3.10 for OpenVINO 2022.3.2")
    run_folder = finished.folder / "run"
    record = report["targets"][3]
    assert record["name"] == "openvino-myriad-x-fp16" and record["provenance"] == "predicted"
    assert "not on the VPU" in record["reason"]
    assert record["parity"]["weights_fp16"]["agreement"] > 0.99 < record["parity"]["activations_fp16"]["agreement"]
    with Bundle.open(run_folder / "bundles/openvino-myriad-x-fp16", key=run_folder / "keys/signing.pub") as bundle:
        assert bundle.verify(1, "CPU").passed
        assert bundle.manifest.build is not None
        assert bundle.manifest.build["compile_tool"] == "compile_tool -m model.xml -d MYRIAD -o model.blob"


def test_splits_do_not_share_pixels(report: dict[str, Any]) -> None:
    splits = report["data"]["splits"]
    assert splits["test"]["labelled"]
    assert all(splits[n]["pixels"] > 0 for n in SPLITS)
    places = [(b["scene"], b["row"], b["col"]) for b in report["data"]["blocks"]]
    assert len(places) == len(set(places))


def test_bundles_are_signed_and_reproduce_their_golden_vector(finished: Finished) -> None:
    run_folder = finished.folder / "run"
    for target in ("openvino-cpu-int8", "tensorrt-jetson-orin-nano-8gb-fp16"):
        with Bundle.open(run_folder / "bundles" / target, key=run_folder / "keys/signing.pub") as bundle:
            assert bundle.signature.trust == "trusted"
            if target.startswith("openvino"):
                assert bundle.verify().passed


def test_running_again_reuses_every_stage(finished: Finished, run: Run) -> None:
    folder = finished.folder
    bundle = folder / "run/bundles/openvino-cpu-int8"
    (bundle / "model.bin").write_bytes(b"tampered")
    done = run(folder)
    assert done.returncode == 3
    assert done.stderr.count("reused") == len(STAGES), done.stderr
    assert "gates do not hold" in done.stderr
    with Bundle.open(bundle):
        pass


def test_int8_is_searched_for_the_runtimes_of_the_targets_alone(finished: Finished, tmp_path: Path, run: Run) -> None:
    names = ["onnxruntime-cpu-int8", "tensorrt-jetson-orin-nano-8gb-int8"]
    shutil.copytree(finished.folder / "run", tmp_path / "run")
    # A student that hardly trained does not do all as its teacher does.
    gate = f"{{metric: agreement, min: 1, target: {names[0]}}}"
    asked = [f"targets=[{', '.join(names)}]", f"gates=[{gate}]", "steps.quantize.qat.steps=0"]
    done = run(tmp_path, *(word for one in asked for word in ("--set", one)), "--until", "quantize")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "run/stages/quantize"
    value = json.loads((folder / "record.json").read_text())["value"]
    assert list(value["records"]) == names and not list(folder.glob("*.xml"))
    assert {row["target"] for row in value["details"]} == set(names) == {*value["parity"], *value["own"]}
    assert (folder / "student-int8.onnx").is_file() and (folder / names[1] / "model.onnx").is_file()
    assert [value["records"][name]["outcome"] for name in names] == ["rejected", "applied"]
    warned = [line for line in done.stderr.splitlines() if "INT8 is rejected" in line]
    score = value["records"][names[0]]["found"]["score"]
    (told,) = warned
    assert told.startswith(
        f"  warning: INT8 is rejected for {names[0]}: the f32 student itself misses agreement at least 100.0 %"
    )
    assert f"likeness to the teacher {score:.4f}" in told and "drop " in told


def recipe(**changes: Any) -> Recipe:
    from rsedge.data.documents import Document, Place
    from rsedge.recipe.reading import check_document

    value = {
        "name": "t",
        "teacher": {"name": "ukis-csmask-4b-l2a"},
        "data": {"train": [{"source": "spyndex-sentinel2"}], "test": {"source": "spyndex-sentinel2"}} | changes,
        "steps": ["distill"],
        "targets": ["openvino-cpu-f32"],
    }
    return check_document(Document(value, {(): Place("test")}))


def contract() -> tuple[InputSpec, tuple[str, ...]]:
    row = teacher_row("ukis-csmask-4b-l2a")
    return row.input_spec, tuple(row.classes)


def test_an_empty_calibration_split_is_refused() -> None:
    from rsedge.tasks.scene_data import load_scenes

    with pytest.raises(RequestError, match="too few for 10% calibration"):
        load_scenes(recipe(block=150), *contract())


def test_roles_that_overlap_are_refused() -> None:
    from rsedge.tasks.scene_data import SplitScene, check_disjoint, load_scenes

    scene = load_scenes(recipe(block=50), *contract())[0]
    check_disjoint([scene], contract()[0])
    codes = np.where(scene.split.codes == 3, 1, scene.split.codes).astype(np.uint8)
    again = SplitScene(scene.scene, BlockSplit(codes, 50), ("train",))
    with pytest.raises(RequestError, match="calibration pixels overlap test blocks"):
        check_disjoint([scene, again], contract()[0])


def test_the_same_file_under_two_names_is_one_scene(tmp_path: Path) -> None:
    from rsedge.tasks.scene_data import load_scenes

    twice = recipe(train=[{"source": "spyndex-sentinel2"}, {"source": "spyndex-sentinel2"}], block=50)
    assert len(load_scenes(twice, *contract())) == 1


def stored(
    path: Path, rows: slice = slice(None), cols: slice = slice(None), more: int = 0, scale: float = 1e-4, **profile: Any
) -> str:
    """The chip, or a part of it, as a GeoTIFF of its own; with ``more`` in all of its DN."""
    import rasterio

    from rsedge.data.sets.scene_sources import load_scene

    scene = load_scene("spyndex-sentinel2")
    dn = np.rint(scene.image[:, rows, cols] * 1e4).astype(np.uint16) + np.uint16(more)
    place = rasterio.transform.from_origin(500000, 5000000, 10, 10)
    path.parent.mkdir(exist_ok=True)
    shape = {"count": len(dn), "height": dn.shape[1], "width": dn.shape[2], "dtype": "uint16"}
    with rasterio.open(path, "w", driver="GTiff", crs="EPSG:32633", transform=place, **shape, **profile) as f:
        f.write(dn)
        f.scales, f.descriptions = [scale] * len(dn), scene.bands
    return str(path)


@pytest.mark.parametrize(
    ("kept", "how"),
    [
        ({"compress": "deflate"}, r"file\."),
        ({"rows": slice(60, 260), "cols": slice(41, 251)}, r"file\."),
        ({"more": 1000}, "file and other units"),
        ({"scale": 2e-4}, "file and other units"),
        ({"scale": 5e-5}, "file and other units"),
        ({"more": 1000, "scale": 7e-5, "rows": slice(60, 260), "cols": slice(41, 251)}, "file and other units"),
    ],
)
@pytest.mark.parametrize("role", ["test", "selection"])
def test_one_image_in_two_files_does_not_stand_on_two_sides(
    tmp_path: Path, kept: dict[str, Any], how: str, role: str
) -> None:
    from rsedge.tasks.scene_data import check_disjoint, load_scenes

    whole = stored(tmp_path / "whole.tif")
    other = stored(tmp_path / "other.tif", **kept)
    own = {"train": [{"path": other}, {"path": whole}]} if role == "test" else {"selection": {"path": other}}
    given = recipe(**({"train": [{"path": whole}], "test": {"path": whole}} | own), block=50)
    with pytest.raises(RequestError, match=rf"scene '(whole|other)' .* set: it is the same image in another {how}"):
        check_disjoint(load_scenes(given, *contract()), contract()[0])


@pytest.mark.parametrize(
    "options",
    [
        {"scale": 2e-4},
        {"offset": -0.005, "scale": 1e-4},
        {"nodata": 500},
        {"gsd_m": 20},
        {"bands": ["red", "green", "blue", "nir"]},
        {"bands": ["-", "green", "red", "nir"]},
    ],
)
@pytest.mark.parametrize("role", ["train", "test"])
def test_one_file_is_not_read_in_two_ways(tmp_path: Path, role: str, options: dict[str, Any]) -> None:
    from rsedge.tasks.scene_data import load_scenes

    path = stored(tmp_path / "x.tif")
    again: dict[str, Any] = {"path": path} | options
    test: dict[str, Any] = {"path": path} if role == "test" else {"source": "spyndex-sentinel2"}
    train = [{"path": path}, again] if role == "train" else [again]
    named = (
        r"data\.train\[1\].*x\.tif is the file of data\.train\[0\]"
        if role == "train"
        else r"data\.train\[0\].* data\.test"
    )
    with pytest.raises(RequestError, match=f"{named} and is read in another way"):
        load_scenes(recipe(train=train, test=test, block=50), *contract())
    said = {"path": path, "scale": 1e-4, "gsd_m": 10}
    assert len(load_scenes(recipe(train=[{"path": path}, said], test={"path": path}, block=50), *contract())) == 1


def test_other_images_pass_and_one_name_tells_two_of_them_apart(tmp_path: Path) -> None:
    from rsedge.tasks.scene_data import check_disjoint, load_scenes

    left, right = stored(tmp_path / "a/x.tif", cols=slice(0, 150)), stored(tmp_path / "b/x.tif", cols=slice(150, 300))
    scenes = load_scenes(recipe(train=[{"path": left}], test={"path": right}, block=25), *contract())
    check_disjoint(scenes, contract()[0])
    assert [s.scene.name for s in scenes] == ["x", "x (2)"]


def test_a_mask_beside_a_file_counts_to_what_was_read(tmp_path: Path) -> None:
    import rasterio

    from rsedge.tasks.scenes import SceneTask

    given = recipe(train=[{"path": stored(tmp_path / "x.tif")}], test={"path": str(tmp_path / "x.tif")}, block=50)
    before = SceneTask(given, *contract(), "segmentation").inputs_key
    assert SceneTask(given, *contract(), "segmentation").inputs_key == before
    mask = np.full((1, 300, 300), 255, np.uint8)
    mask[:, :, :20] = 0
    shape = {"count": 1, "height": 300, "width": 300, "dtype": "uint8"}
    with rasterio.open(tmp_path / "x.tif.msk", "w", driver="GTiff", **shape) as f:
        f.write(mask)
        f.update_tags(INTERNAL_MASK_FLAGS_1="2")
    assert SceneTask(given, *contract(), "segmentation").inputs_key != before


@pytest.mark.parametrize("role", HELD_OUT)
def test_held_out_pixels_are_counted_once(role: Literal["selection", "test"]) -> None:
    from rsedge.tasks.scene_data import judged_tiles, load_scenes

    scenes = load_scenes(recipe(block=50), *contract())
    tiles = judged_tiles(recipe(block=50), teacher_row("ukis-csmask-4b-l2a").input_spec, scenes, role)
    assert tiles.counted.sum() == (scenes[0].split.mask(role) & scenes[0].scene.valid).sum()


@pytest.mark.parametrize("fields", [1, 6])
def test_every_tile_comes_under_a_cloud_field_of_its_own(fields: int) -> None:
    from rsedge.tasks.scene_data import judged_tiles, load_scenes

    given, spec = recipe(block=50, test={"source": "spyndex-sentinel2", "simulated_clouds": fields}), contract()[0]
    scenes = load_scenes(given, *contract())
    test, selection = (judged_tiles(given, spec, scenes, role) for role in ("test", "selection"))
    there = set(np.unique(test.block[test.counted]))
    mask, blocks = scenes[0].split.mask("test"), np.arange(300) // 50
    assert there == set(np.unique((blocks[:, None] * 6 + blocks[None, :])[mask])), (
        "a block of the role is never looked at"
    )
    assert len(test.dn) >= fields
    assert len({tile.tobytes() for tile in (*test.dn, *selection.dn)}) == len(test.dn) + len(selection.dn)
    assert {0, 1, 255} <= set(np.unique(test.labels).tolist()) <= {0, 1, 2, 255}


def test_cuda_without_a_gpu_is_a_missing_capability(tmp_path: Path, run: Run) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = run(tmp_path, "--set", "device=cuda", "--json")
    assert done.returncode == 4
    assert "device=cpu" in json.loads(done.stdout)["error"]


def test_wrong_student_arguments_fail_before_any_stage(tmp_path: Path, run: Run) -> None:
    done = run(tmp_path, "--set", "student.blocks=[1]")
    assert done.returncode == 2
    assert "one entry per stage" in done.stderr
    assert not (tmp_path / "run/stages").exists()
