"""Recipes of several parts from teacher to bundles, and the bundles on board: SAM, two towers with real weights, a sampler."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import safetensors.torch
import torch
import yaml
from affine import Affine

import rsedge
from rsedge.cli.main import run_app
from rsedge.data.errors import IntegrityError, RequestError
from rsedge.models.families import family
from rsedge.models.zoo import teacher_row
from rsedge.pipeline.dry_run import dry_run
from rsedge.recipe.reading import load_recipe
from rsedge.reports.schema import load_report
from rsedge.runtimes.bundle.reading import Bundle
from rsedge.runtimes.bundle.whole import open_whole
from rsedge.runtimes.inference.enlarging import enlarged

SAM = {"image": 64, "dim": 32, "depth": 3, "heads": 2, "whole": [1], "hidden": 32, "prompts": 3, "points": 2}


@pytest.fixture(scope="module")
def quick() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rsedge.stages.parts.verify.SECONDS", 0.1)
        patch.setattr("rsedge.stages.parts.quantize.RACE_SECONDS", 0.05)
        yield


def recipe_in(folder: Path, **fields: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"threads": 1, **fields}, sort_keys=False))
    return path


def ran(folder: Path) -> rsedge.Run:
    return rsedge.run(folder / "recipe.yaml", run_dir=folder / "run", quiet=True)


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory, quick: None) -> Path:
    """A SAM of random weights, its encoder taught, both parts in INT8."""
    folder = tmp_path_factory.mktemp("masks")
    torch.manual_seed(0)
    net = family("sam_points").build(**SAM)
    with torch.no_grad():
        for p in net.parameters():
            if p.ndim > 1:
                p.copy_(torch.randn_like(p) / p[0].numel() ** 0.5)
            else:
                p.add_(0.1 * torch.randn_like(p))
    state = {k.replace("no_mask_embed", "prompt_encoder.no_mask_embed"): v for k, v in net.state_dict().items()}
    safetensors.torch.save_file(state, folder / "sam.safetensors")
    rng = np.random.default_rng(0)
    points, labels = np.zeros((24, 3, 2, 2), np.float32), np.full((24, 3, 2), -1, np.float32)
    points[:, :, 0], labels[:, :, 0] = rng.uniform(0, 64, (24, 3, 2)), 1
    low = rng.uniform(0, 1, (24, 3, 8, 8)).repeat(8, 2).repeat(8, 3)
    dn = (255 * (0.8 * low + 0.2 * rng.uniform(0, 1, (24, 3, 64, 64)))).astype(np.uint8)
    np.savez(
        folder / "prompts.npz", dn=dn, points=points, labels=labels, group=np.array([f"s{i % 12}" for i in range(24)])
    )
    recipe_in(
        folder, name="masks", teacher={"name": "sam-base", "checkpoint": "sam.safetensors", "arch": {"prompts": 3}},
        whole="prompted-masks",
        parts={
            "encoder": {
                "student": {"arch": {"depth": 2}},
                "steps": [
                    {"distill": {"steps": 20, "batch": 2, "validate_every": 10}},
                    {"quantize": {"max_trials": 2, "max_reversions": 2, "max_drop": 0.2}},
                ],
                "gates": [{"metric": "agreement", "min": 0.05}],
            },
            "decoder": {"gates": [{"metric": "agreement", "min": 0.9}]},
        },
        data={"samples": "prompts.npz"}, targets=["openvino-cpu-f32", "openvino-cpu-int8"],
        gates=[{"metric": "agreement", "min": 0.1}, {"metric": "latency", "min_speedup": 0.01, "over": "teacher-openvino-f32"}],
    )  # fmt: skip
    assert ran(folder).summary.stopped_after is None
    return folder


def test_gates_stand_for_each_part_and_for_the_whole(masks: Path) -> None:
    report = load_report(masks / "run/report.json")
    for target in report.targets:
        assert [(g.part, g.metric) for g in target.gates] == [
            (None, "agreement"), (None, "latency"), ("encoder", "agreement"), ("decoder", "agreement"),
        ]  # fmt: skip
        assert all(gate.value is not None for gate in target.gates)
        assert [part.name for part in target.parts] == ["encoder", "decoder"]
        # One sample after the other, whatever the length of its first array.
        assert target.latency_ms is not None and target.latency_ms.mean is not None
        assert target.throughput_per_s == pytest.approx(1e3 / target.latency_ms.mean, rel=1e-6)
        # The decoder is the teacher's own: on what the teacher gave it, it gives the teacher's answers.
        decoder = target.parts[1]
        assert decoder.agreement is not None and decoder.agreement > 0.999 and decoder.precision == "f32"
    assert report.baselines[0].latency_ms is not None
    assert "encoder: agreement" in (masks / "run/report.html").read_text()


def test_the_same_run_again_reuses_every_stage(masks: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (masks / "run/stages").rglob("*") if p.is_file()}
    ran(masks)
    assert before == {p: p.stat().st_mtime_ns for p in (masks / "run/stages").rglob("*") if p.is_file()}


def test_bundles_prove_themselves_and_give_what_verify_judged(masks: Path, tmp_path: Path) -> None:
    bundle = masks / "run/bundles/openvino-cpu-f32"
    assert run_app(["verify", str(bundle), "--key", str(masks / "run/keys/signing.pub")]) == 0
    output = tmp_path / "answers.npz"
    assert run_app(["infer", str(bundle), str(masks / "prompts.npz"), "--output", str(output)]) == 0
    found = np.load(output)["masks"]
    assert found.shape == (24, 3, 16, 16)
    with rsedge.load(bundle) as loaded:
        assert np.array_equal(loaded.predict(masks / "prompts.npz")["masks"], found)
        with pytest.raises(RequestError, match="takes several arrays by name"):
            loaded.predict(np.zeros((3, 64, 64), np.uint8))


def test_prompts_on_a_scene_give_masks_on_its_grid(masks: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    image = (255 * rng.uniform(0, 1, (3, 20, 25)).repeat(8, 1).repeat(8, 2)).astype(np.uint8)
    scene = tmp_path / "scene.tif"
    place = Affine(10, 0, 500000, 0, -10, 4000000)
    profile = {
        "driver": "GTiff",
        "height": 160,
        "width": 200,
        "count": 3,
        "dtype": "uint8",
        "crs": "EPSG:32633",
        "transform": place,
    }
    with rasterio.open(scene, "w", **profile) as file:
        file.write(image)
        file.descriptions = ("red", "green", "blue")
    (tmp_path / "points.csv").write_text("x,y,prompt\n30,40,a\n38,44,b\n150.5,120.25,c\n")
    bundle = masks / "run/bundles/openvino-cpu-f32"
    with rsedge.load(bundle) as loaded:
        masks_of = loaded.predict(scene, prompts=tmp_path / "points.csv")
    assert masks_of.shape == (3, 160, 200) and masks_of.dtype == bool
    # A prompt's mask is that of its tile alone, as the bundle gives it for a sample.
    points, labels = np.zeros((1, 3, 2, 2), np.float32), np.full((1, 3, 2), -1, np.float32)
    corner = (88, 118)  # row and column of the tile around the third prompt
    points[0, 0, 0], labels[0, 0, 0] = (150.5 - corner[1], 120.25 - corner[0]), 1
    tile = image[:, corner[0] : corner[0] + 64, corner[1] : corner[1] + 64]
    np.savez(tmp_path / "one.npz", dn=tile[None], points=points, labels=labels)
    with rsedge.load(bundle) as loaded:
        logits = loaded.predict(tmp_path / "one.npz")["masks"][0, 0]
    seen = masks_of[2, corner[0] : corner[0] + 64, corner[1] : corner[1] + 64]
    assert np.array_equal(seen, enlarged(logits, 64) > 0)
    for output in ("masks.geojson", "masks.tif"):
        arguments = [str(scene), "--prompts", str(tmp_path / "points.csv"), "--output", str(tmp_path / output)]
        assert run_app(["infer", str(bundle), *arguments]) == 0
    features = json.loads((tmp_path / "masks.geojson").read_text())["features"]
    assert [f["properties"]["prompt"] for f in features] == ["a", "b", "c"]
    assert [f["properties"]["pixels"] for f in features] == [int(m.sum()) for m in masks_of]
    with rasterio.open(tmp_path / "masks.tif") as file:
        numbers = file.read(1)
        assert file.crs == "EPSG:32633" and file.transform == place
    assert np.array_equal(~np.isnan(numbers), masks_of.any(0))


def test_masks_are_enlarged_as_sam_does() -> None:
    mask = np.random.default_rng(0).normal(size=(7, 7)).astype(np.float32)
    wanted = torch.nn.functional.interpolate(torch.from_numpy(mask)[None, None], (28, 28), mode="bilinear")[0, 0]
    np.testing.assert_allclose(enlarged(mask, 28), wanted.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x,y\n300,40\n", "lies at 300.0"),
        ("x,y,label\n30,40,7\n", "1 says inside"),
        ("x,z\n30,40\n", "needs columns x and y"),
        ("x,y\nleft,40\n", "no number"),
        ("x,y,prompt\n30,40,a\n31,41,a\n", "takes 1 of each, or a box"),
        ("xmin,ymin,xmax,ymax\n0,0,100,20\n", "100 pixels large, a tile 64"),
        ("x,y\n", "holds no prompt"),
    ],
)
def test_prompts_that_cannot_be_are_named(text: str, words: str, masks: Path, tmp_path: Path) -> None:
    with rasterio.open(tmp_path / "s.tif", "w", driver="GTiff", height=160, width=200, count=3, dtype="uint8") as file:
        file.write(np.random.default_rng(0).integers(1, 255, (3, 160, 200), dtype=np.uint8))
        file.descriptions = ("red", "green", "blue")
    (tmp_path / "points.csv").write_text(text)
    with rsedge.load(masks / "run/bundles/openvino-cpu-f32") as loaded, pytest.raises(RequestError, match=words):
        loaded.predict(tmp_path / "s.tif", prompts=tmp_path / "points.csv", any_gsd=True)


def test_a_part_of_another_bundle_is_refused(masks: Path, tmp_path: Path) -> None:
    """Weights that were exchanged are seen by their hash, numbers that come out otherwise by the golden sample."""
    bundle = tmp_path / "bundle"
    shutil.copytree(masks / "run/bundles/openvino-cpu-f32", bundle)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["parts"]["limits"] = dict.fromkeys(manifest["parts"]["limits"], 1e-12)
    golden = dict(np.load(bundle / "golden.npz"))
    golden["output.masks"] = golden["output.masks"] + 1
    np.savez(bundle / "golden.npz", **golden)
    content = (bundle / "golden.npz").read_bytes()
    manifest["files"]["golden.npz"] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    (bundle / "manifest.sig").unlink()
    (bundle / "signing.pub").unlink()
    with Bundle.open(bundle) as opened, pytest.raises(IntegrityError, match="self-test failed at the start"):
        open_whole(opened)
    with pytest.raises(RequestError, match="is of several parts"), Bundle.open(bundle) as opened:
        opened.session()


def test_two_prompts_of_one_name_have_a_mask_each(masks: Path, tmp_path: Path) -> None:
    with rasterio.open(tmp_path / "s.tif", "w", driver="GTiff", height=160, width=200, count=3, dtype="uint8") as file:
        file.write(np.random.default_rng(0).integers(1, 255, (3, 160, 200), dtype=np.uint8))
        file.descriptions = ("red", "green", "blue")
    (tmp_path / "boxes.csv").write_text("xmin,ymin,xmax,ymax,prompt\n1,1,20,20,a\n160,120,190,150,a\n")
    bundle = masks / "run/bundles/openvino-cpu-f32"
    with rsedge.load(bundle) as loaded:
        found = loaded.predict(tmp_path / "s.tif", prompts=tmp_path / "boxes.csv", any_gsd=True)
    output = tmp_path / "map.tif"
    prompts = ["--prompts", str(tmp_path / "boxes.csv"), "--any-gsd"]
    assert run_app(["infer", str(bundle), str(tmp_path / "s.tif"), *prompts, "--output", str(output)]) == 0
    with rasterio.open(output) as file:
        numbers = file.read(1)
    for number, mask in enumerate(found, 1):
        assert mask.any() and np.array_equal(numbers == number, mask)


def test_other_commands_take_the_parts_or_say_that_they_do_not(masks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = str(masks / "run/bundles/openvino-cpu-f32")
    assert run_app(["bench", bundle, "--seconds", "0.1", "--threads", "1", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["of"], record["batch"]) == ("samples", 1) and record["peak_rss_bytes"] > 1e7
    for arguments in (["build", bundle], ["bench", bundle, "--layers"]):
        assert run_app(arguments) == 2
        assert "is of several parts" in capsys.readouterr().err


def test_what_a_manifest_says_of_its_parts_is_named_by_the_manifest(masks: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(masks / "run/bundles/openvino-cpu-f32", bundle)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["parts"]["whole"] = "magic"
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    (bundle / "manifest.sig").unlink()
    (bundle / "signing.pub").unlink()
    with (
        Bundle.open(bundle) as opened,
        pytest.raises(IntegrityError, match=r"manifest\.json: parts: whole 'magic' is unknown"),
    ):
        open_whole(opened)


def test_a_dry_run_tries_every_stage_and_leaves_nothing(masks: Path, tmp_path: Path) -> None:
    found = dry_run(load_recipe(masks / "recipe.yaml"), tmp_path / "run", quiet=True)
    assert {"data", "teacher", "distill", "export", "quantize", "verify", "bundle", "report"} <= {
        t.step for t in found.tried
    }
    assert found.estimate.total_seconds > 0 and not (tmp_path / "run").exists()


def test_towers_with_real_weights_find_the_place_that_belongs_to_each(tmp_path: Path, quick: None) -> None:
    """GeoCLIP's location encoder as both towers: a place, and one about 200 m beside it."""
    pytest.importorskip("geoclip")
    rng = np.random.default_rng(0)
    places = np.stack([rng.uniform(-60, 70, 60), rng.uniform(-180, 180, 60)], 1).astype(np.float32)
    row = teacher_row("geoclip-location")
    assert row.input is not None and row.input.shape == (2,)
    np.savez(tmp_path / "pairs.npz", here=places, beside=places + rng.normal(0, 0.002, places.shape).astype(np.float32))
    recipe_in(
        tmp_path, name="places", teacher={"name": "geoclip-location"}, whole="retrieval", parts={"here": None, "beside": None},
        data={"samples": "pairs.npz"}, targets=["openvino-cpu-f32", "onnxruntime-cpu-f32"],
        gates=[{"metric": "recall1", "max_drop": 0.0}, {"metric": "agreement", "min": 0.99}],
    )  # fmt: skip
    run = ran(tmp_path)
    report = run.report
    assert any("has no 'group': each sample counts as its own" in note for note in report.notes)
    assert report.teacher.metrics["recall1"] > 0.9
    for target in report.targets:
        assert target.metrics["recall1"] == report.teacher.metrics["recall1"] and target.agreement == 1
    table = tmp_path / "best.csv"
    bundle = run.folder / "bundles/onnxruntime-cpu-f32"
    assert run_app(["infer", str(bundle), str(tmp_path / "pairs.npz"), "--output", str(table)]) == 0
    rows = [line.split(",") for line in table.read_text().splitlines()[1:]]
    first = {int(query): int(item) for query, place, item, _ in rows if place == "1"}
    assert np.mean([query == item for query, item in first.items()]) > 0.9


def test_a_picture_of_a_bundle_is_that_of_the_teacher_at_the_same_seed(tmp_path: Path, quick: None) -> None:
    unet = {"latent": 8, "widths": [32, 32], "heads": [2, 2], "context": 16, "tokens": 3}
    decoder = {"latent": 8, "widths": [32, 32]}
    torch.manual_seed(0)
    for name, arch in (("text2earth-unet", unet), ("text2earth-decoder", decoder)):
        row = teacher_row(name)
        torch.save(dict(family(row.family).build(**{**row.arch, **arch}).state_dict()), tmp_path / f"{name}.pth")
    rng = np.random.default_rng(0)
    text = rng.normal(size=(8, 3, 16)).astype(np.float32)
    conditions = {
        "text": text,
        "text_without": 0 * text,
        "resolution": np.full(8, 14, np.float32),
        "seed": np.arange(8),
    }
    np.savez(tmp_path / "texts.npz", **conditions)
    recipe_in(
        tmp_path, name="pictures", whole={"name": "sampled-picture", "sampler": {"steps": 3}},
        parts={
            "step": {"teacher": {"name": "text2earth-unet", "checkpoint": "text2earth-unet.pth", "arch": unet}},
            "decoder": {"teacher": {"name": "text2earth-decoder", "checkpoint": "text2earth-decoder.pth", "arch": decoder}},
        },
        data={"samples": "texts.npz", "calls": 2}, targets=["openvino-cpu-f32"],
        gates=[{"metric": "teacher_psnr", "min": 40}, {"metric": "agreement", "min": 0.99}],
    )  # fmt: skip
    run = ran(tmp_path)
    (target,) = run.report.targets
    assert target.metrics["teacher_psnr"] > 60 and target.agreement is not None and target.agreement > 0.999
    # Three steps, each asked with the text and without it.
    assert [part.calls for part in target.parts] == [6, 1]
    one = {name: value[:1] for name, value in conditions.items()}
    np.savez(tmp_path / "one.npz", **one)
    bundle = run.folder / "bundles/openvino-cpu-f32"
    assert run_app(["infer", str(bundle), str(tmp_path / "one.npz"), "--output", str(tmp_path / "picture.tif")]) == 0
    with rasterio.open(tmp_path / "picture.tif") as file:
        assert (file.count, file.height, file.width) == (3, 16, 16)
        assert np.isfinite(file.read()).all()
    np.savez(tmp_path / "below.npz", **{**one, "seed": np.array([-1])})
    with rsedge.load(bundle) as loaded, pytest.raises(RequestError, match=r"below\.npz: sample 0: 'seed' is -1"):
        loaded.predict(tmp_path / "below.npz")
