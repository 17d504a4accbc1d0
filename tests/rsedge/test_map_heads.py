"""Heads on an encoder that gives maps of features: fitted on labelled scenes, run once for all, written as masks of the scene."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.windows
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import rsedge
from rsedge.data.errors import IntegrityError, RequestError
from rsedge.export.bundle import About, write_bundle
from rsedge.export.onnx.graph import Deployable
from rsedge.export.onnx.writing import export_onnx
from rsedge.heads import write_head
from rsedge.map_heads import LabelledScene, at_pixels, fitted_map_head
from rsedge.runtimes.bundle.head import Head, HeadRecord, encoded
from rsedge.runtimes.bundle.manifest import Manifest
from rsedge.runtimes.inference.enlarging import enlarged
from rsedge.runtimes.inference.features import WholePlaces, feature_rows, heads_blending
from rsedge.runtimes.inference.mosaic import blend_rows
from rsedge.runtimes.inference.works.arrays import ArrayScene
from rsedge.runtimes.session import INPUT, LOGITS, VALID
from tests.runtimes import tiny_models as tiny

TILE, STRIDE, FEATURES = 32, 4, 8
SPEC = tiny.spec(TILE)
Cli = Callable[..., tuple[int, str, str]]


class Encoder(nn.Module):
    """Random projections of what is seen around each place, every fourth pixel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mix = nn.Conv2d(SPEC.channels, FEATURES, STRIDE, STRIDE)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.mix(x))


def bundle_of(folder: Path, net: nn.Module, stride: int, seed: int = 1) -> Path:
    with torch.inference_mode():
        features = net(torch.zeros(1, *SPEC.shape)).shape[1]
    names = tuple(f"output {i}" for i in range(features))
    graph = export_onnx(Deployable(net.eval(), SPEC, "features"), SPEC, names, folder / "model.onnx").path
    golden = [np.random.default_rng(seed).integers(1, 9000, (1, *SPEC.shape)).astype(np.uint16)]
    golden[0][..., :6, :9] = 0
    return write_bundle(
        folder / "bundle", About("ground", names, task="features", stride=stride), target="onnxruntime-cpu-f32", input_spec=SPEC,
        model_files={"model.onnx": graph}, golden_dn=golden,
    )  # fmt: skip


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle_of(tmp_path_factory.mktemp("maps"), Encoder(), STRIDE)


def ground(path: Path, seed: int = 0, height: int = 200, width: int = 260) -> tuple[Path, Path, Path]:
    """A scene of dark and bright fields, a corner of it missing; its classes, and how bright each pixel is."""
    rng = np.random.default_rng(seed)
    fields = rng.integers(0, 2, (-(-height // 20), -(-width // 20))).repeat(20, 0).repeat(20, 1)[:height, :width]
    level = 1500 + 2500 * fields + rng.normal(0, 150, (height, width))
    image = np.stack([level * (1 + 0.1 * band) for band in range(SPEC.channels)]).clip(1, 9000).astype(np.uint16)
    image[:, :30, :40] = 0
    scene = Path(tiny.write_scene(path / f"scene{seed}.tif", image, tiny.NAMES))
    made = []
    for name, values, nodata in (
        ("classes", fields.astype(np.uint8), 255),
        ("level", (level / 1e4).astype(np.float32), -1),
    ):
        made.append(path / f"{name}{seed}.tif")
        with rasterio.open(scene) as like, rasterio.open(
            made[-1], "w", driver="GTiff", height=height, width=width, count=1, dtype=values.dtype, crs=like.crs,
            transform=like.transform, nodata=nodata,
        ) as file:  # fmt: skip
            values = values.copy()
            values[-3:] = nodata
            file.write(values, 1)
    return scene, made[0], made[1]


@pytest.fixture(scope="module")
def heads(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two classes, a yes or no, and values, of the same ground."""
    folder = tmp_path_factory.mktemp("heads")
    scene, classes, level = ground(folder)
    made = []
    with rsedge.load(encoder) as opened:
        for name, labels, names, task in (
            ("fields", classes, ("dark", "bright"), "classification"),
            ("bright", classes, ("bright",), "classification"),
            ("level", level, ("level",), "regression"),
        ):
            made.append(folder / f"{name}.head")
            write_head(fitted_map_head(opened, [LabelledScene(scene, labels)], name, names, task), made[-1])
    return made


def test_one_encoder_runs_once_for_every_pixel_of_three_heads(
    encoder: Path, heads: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = json.loads(json.loads(heads[0].read_text())["head"])
    assert (record["features"], record["stride"], record["count"]) == (FEATURES, STRIDE, 7829)
    scene, classes, level = ground(tmp_path, seed=5)
    ran = []
    from rsedge.runtimes.onnxruntime.session import OnnxSession

    def counted(self: Any, dn: Any, once: Any = OnnxSession._run) -> Any:
        ran.append(1)
        return once(self, dn)

    monkeypatch.setattr(OnnxSession, "_run", counted)
    runs = {}
    for given_heads in (heads[:1], heads):
        ran.clear()
        with rsedge.load(encoder) as opened:
            found = opened.predict(scene, tmp_path / f"map{len(given_heads)}.tif", heads=given_heads)
        runs[len(given_heads)] = (len(ran), found["run"]["tiles"])
    assert runs[1] == runs[3] and not (tmp_path / "map3.tif").exists()
    with rasterio.open(classes) as file:
        truth = file.read(1)
    with rasterio.open(tmp_path / "map3.fields.tif") as fields, rasterio.open(tmp_path / "map3.bright.tif") as bright:
        found = fields.read(1)
        assert fields.colormap(1)[255] == (0, 0, 0, 0) and fields.tags()["class_1"] == "bright"
        assert fields.tags()["rsedge_head"] == "fields" and fields.shape == truth.shape
        assert json.loads(bright.tags()["rsedge_classes"]) == ["no bright", "bright"]
        seen = (truth != 255) & (found != 255)
        assert (found[seen] == truth[seen]).mean() > 0.93 and (found[:30, :40] == 255).all()
        assert (bright.read(1) == found).mean() > 0.97
    with rasterio.open(tmp_path / "map3.level.tif") as values, rasterio.open(level) as wanted:
        assert np.isnan(values.read(1)[:30, :40]).all() and values.descriptions == ("level",)
        assert np.nanstd((values.read(1) - wanted.read(1))[35:190]) < 0.05


class Dense:
    """An encoder in memory, as a session: what :class:`Encoder` does, without a runtime."""

    input_spec, runtime, device = SPEC, "memory", "CPU"

    def __init__(self) -> None:
        self.net = Encoder().eval()

    def __call__(self, inputs: Any) -> dict[str, Any]:
        dn = inputs[INPUT][0]
        with torch.inference_mode():
            found = self.net(torch.from_numpy(np.where(SPEC.valid(dn), SPEC.normalise(dn), 0).astype(np.float32))[None])
        return {LOGITS: found.numpy(), VALID: SPEC.valid(dn)[None].astype(np.uint8)}

    def stream(self, inputs: Any) -> Any:
        return map(self, inputs)


def head_of(name: str, outputs: int, seed: int, task: Any = "classification") -> Head:
    rng = np.random.default_rng(seed)
    weight, bias = rng.normal(size=(outputs, FEATURES)).astype(np.float32), rng.normal(size=outputs).astype(np.float32)
    record = HeadRecord(
        name=name, task=task, classes=tuple(f"{name}{i}" for i in range(outputs)), encoder="ground", encoder_sha256="0" * 64,
        features=FEATURES, stride=STRIDE, weight=encoded(weight), bias=encoded(bias), samples="s", samples_sha256="", count=1,
    )  # fmt: skip
    return Head(Path(f"{name}.head"), record, None, "0" * 64, weight, bias)  # type: ignore[arg-type]


def manifest_like() -> Any:
    class Like:
        stride, input_spec, classes = STRIDE, SPEC, tuple(f"output {i}" for i in range(FEATURES))

    return Like()


def array_scene(seed: int, height: int, width: int) -> ArrayScene:
    rng = np.random.default_rng(seed)
    image = rng.integers(1, 9000, (SPEC.channels, height, width)).astype(np.uint16)
    image[:, : height // 3, : width // 4] = 0
    return ArrayScene(image, SPEC)


def blended(heads: list[Head], scene: ArrayScene, overlap: int) -> np.ndarray:
    blending = heads_blending(heads, manifest_like(), "memory")
    strips = blend_rows(Dense(), scene, blending, overlap)  # type: ignore[arg-type]
    return np.concatenate([np.where(strip.seen, strip.values, np.nan) for strip in strips], axis=1)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from([(1, "classification"), (2, "classification"), (4, "classification"), (2, "regression")]),
             min_size=2, max_size=4),
    st.integers(20, 90), st.integers(20, 90), st.integers(0, TILE // 2), st.integers(0, 99),
)  # fmt: skip
def test_heads_together_say_what_they_say_alone_bit_for_bit(
    kinds: list[tuple[int, str]], height: int, width: int, overlap: int, seed: int
) -> None:
    heads = [head_of(f"h{i}", outputs, seed + i, task) for i, (outputs, task) in enumerate(kinds)]
    scene = array_scene(seed, height, width)
    together = blended(heads, scene, overlap)
    alone = np.concatenate([blended([head], scene, overlap) for head in heads])
    assert together.tobytes() == alone.tobytes()
    assert np.isnan(together[:, : height // 3, : width // 4]).all() and together.shape[1:] == (height, width)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 6), st.integers(0, 99))
def test_features_at_pixels_are_those_of_the_enlarged_map(edge: int, times: int, count: int, seed: int) -> None:
    rng, tile = np.random.default_rng(seed), edge * times
    features = rng.normal(size=(count, edge, edge)).astype(np.float32)
    row, col = np.divmod(rng.permutation(tile * tile)[:20], tile)
    np.testing.assert_allclose(at_pixels(features, row, col, tile), enlarged(features, tile)[:, row, col].T, atol=1e-5)
    wanted = torch.nn.functional.interpolate(torch.from_numpy(features)[None], size=tile, mode="bilinear")[0].numpy()
    np.testing.assert_allclose(enlarged(features, tile), wanted, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 90), st.integers(4, 90), st.integers(0, TILE // 2), st.integers(0, 99))
def test_a_scenes_own_map_is_the_encoders_on_a_coarser_grid(height: int, width: int, overlap: int, seed: int) -> None:
    """A convolution that sees its own place alone gives the same in every tile, so that blending changes nothing."""
    scene = array_scene(seed, height, width)
    dn = scene._dn[:, : height // STRIDE * STRIDE, : width // STRIDE * STRIDE]
    with torch.inference_mode():
        normal = np.where(SPEC.valid(dn), SPEC.normalise(dn), 0).astype(np.float32)
        wanted = Encoder().eval()(torch.from_numpy(normal)[None])[0].numpy()
    places = WholePlaces(scene, STRIDE)
    rows = list(feature_rows(Dense(), places, manifest_like(), overlap))  # type: ignore[arg-type]
    found = np.concatenate(rows, axis=1)
    assert found.shape == wanted.shape
    seen = SPEC.valid(dn).reshape(height // STRIDE, STRIDE, width // STRIDE, STRIDE).any((1, 3))
    np.testing.assert_allclose(found[:, seen], wanted[:, seen], atol=1e-4)
    assert np.isnan(found[:, ~seen]).all()


def test_the_encoders_own_map_is_written_where_no_heads_are_given(encoder: Path, cli: Cli, tmp_path: Path) -> None:
    scene, _, _ = ground(tmp_path)
    code, text, error = cli("infer", encoder, scene, "-o", tmp_path / "features.tif")
    assert code == 0, error + text
    assert f"{FEATURES} features, 65x50 places of {STRIDE}x{STRIDE} pixels" in text
    with rasterio.open(tmp_path / "features.tif") as file, rasterio.open(scene) as like:
        assert file.count == FEATURES and file.res == (STRIDE * like.res[0], STRIDE * like.res[1])
        assert np.isnan(file.read(1)[:7, :10]).all() and file.bounds.left == like.bounds.left
        stored = file.read()
    with rsedge.load(encoder) as opened:
        np.testing.assert_array_equal(opened.predict(scene), stored)
        image = np.random.default_rng(0).integers(1, 9000, (2, SPEC.channels, 40, 40)).astype(np.uint16)
        assert opened.predict(image).shape == (2, FEATURES, 10, 10)
        with pytest.raises(RequestError, match="3x40 pixels are less than a place of 4x4"):
            opened.predict(image[0, :, :3])


def test_a_window_on_the_maps_grid_has_the_features_of_the_whole(encoder: Path, tmp_path: Path) -> None:
    scene, _, _ = ground(tmp_path)
    with rasterio.open(scene) as file:
        window = rasterio.windows.Window(18, 39, 150, 130)
        tiny.write_scene(tmp_path / "part.tif", file.read(window=window), tiny.NAMES)
        profile = file.profile | {"width": 150, "height": 130, "transform": file.window_transform(window)}
        with rasterio.open(tmp_path / "part.tif", "w", **profile) as part:
            part.write(file.read(window=window))
            part.descriptions, part.scales = file.descriptions, file.scales
    found = {}
    with rsedge.load(encoder) as opened:
        for path in (scene, tmp_path / "part.tif"):
            opened.predict(path, tmp_path / f"{path.stem}_f.tif", align_tiles=True, any_gsd=True)
    with rasterio.open(tmp_path / "part_f.tif") as part, rasterio.open(tmp_path / "scene0_f.tif") as whole:
        column, row = ~whole.transform * (part.transform.c, part.transform.f)
        assert (column, row) == pytest.approx((round(column), round(row)))
        values, same = part.read(), whole.read(window=rasterio.windows.Window(column, row, part.width, part.height))
        found = values, same
    np.testing.assert_array_equal(np.isnan(found[0]), np.isnan(found[1]))
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


def test_many_scenes_keep_what_each_head_says_and_know_when_they_are_done(
    encoder: Path, heads: list[Path], cli: Cli, tmp_path: Path
) -> None:
    scenes = [ground(tmp_path, seed)[0] for seed in (1, 2)]
    names = ",".join(map(str, heads))
    for status in ("done", "skipped"):
        code, text, error = cli(
            "infer", encoder, *scenes, "--output-dir", tmp_path / "out", "--heads", names, "--cog", "--json"
        )
        assert code == 0, error
        assert {one["status"] for one in json.loads(text)["scenes"]} == {status}
    written = sorted(path.name for path in (tmp_path / "out").glob("scene1.*"))
    assert written == [
        "scene1.bright.tif", "scene1.bright.tif.aux.xml", "scene1.fields.tif", "scene1.fields.tif.aux.xml", "scene1.level.tif",
        "scene1.stac.json", "scene1.tif.json",
    ]  # fmt: skip
    assets = json.loads((tmp_path / "out/scene1.stac.json").read_text())["assets"]
    assert set(assets) == {"fields", "bright", "level"}
    assert [one["title"] for one in assets["fields"]["classification:classes"]] == ["dark", "bright"]
    with rasterio.open(tmp_path / "out/scene1.fields.tif") as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    (tmp_path / "out/scene1.level.tif").unlink()
    with rsedge.load(encoder) as opened:
        again = opened.predict_all(scenes, tmp_path / "out", heads=heads, cog=True)
    assert [one["status"] for one in again["scenes"]] == ["done", "skipped"]


def test_an_archive_and_a_watched_folder_take_heads_too(
    encoder: Path, heads: list[Path], cli: Cli, tmp_path: Path
) -> None:
    """Named as for `infer`, and of the same pixels; refused before any scene where two have one name."""
    folder, names = tmp_path / "scenes", ",".join(map(str, heads))
    folder.mkdir()
    scene = ground(tmp_path, 3)[0].rename(folder / "scene3.tif")
    with rsedge.load(encoder) as opened:
        opened.predict(scene, tmp_path / "scene3.tif", heads=heads)
    for command in (("archive", "--workers", 1), ("watch", "--once", "--settle", 0)):
        out = tmp_path / str(command[0])
        order = (command[0], encoder, folder, "--output-dir", out, *command[1:], "--heads")
        code, _, error = cli(*order, names)
        assert code == 0, error
        for name in ("fields", "bright", "level"):
            with rasterio.open(out / f"scene3.{name}.tif") as a, rasterio.open(tmp_path / f"scene3.{name}.tif") as b:
                assert np.array_equal(a.read(), b.read(), equal_nan=True)
        code, _, error = cli(*order, f"{heads[0]},{heads[0]}")
        assert code == 2 and "two are called 'fields'" in error


def test_a_head_of_other_features_is_refused(encoder: Path, heads: list[Path], tmp_path: Path) -> None:
    place = Path(shutil.copy(heads[0], tmp_path / "fields.head"))
    other = bundle_of(tmp_path / "other", Encoder(), STRIDE, seed=2)
    with rsedge.load(other) as opened, pytest.raises(RequestError, match="is another bundle"):
        opened.head(place)
    file = json.loads(place.read_text())
    record = json.loads(file["head"])
    for change, message in (
        ({"stride": 8}, f"takes {FEATURES} features at every 8x8 pixels.*gives {FEATURES} at every 4x4"),
        ({"stride": None}, "takes 8 features an input"),
        ({"features": 4, "weight": encoded(np.zeros((2, 4), np.float32))}, "takes 4 features"),
    ):
        place.write_text(json.dumps({"head": json.dumps(record | change)}))
        with rsedge.load(encoder) as opened, pytest.raises(RequestError, match=message):
            opened.head(place)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--labels: 0 for 1 scenes"),
        (["--labels", "classes0.tif"], "classes: name the outputs"),
        (["--labels", "classes0.tif", "--classes", "a"], None),
        (["--labels", "classes0.tif", "--classes", "a,b,c"], "no training sample of c"),
        (["--labels", "classes0.tif", "--classes", "a,a"], "classes: 'a' is there twice"),
        (["--labels", "scene0.tif", "--classes", "a,b"], "4 bands, labels have one"),
        (["--labels", "scene0.tif", "--classes", "a", "--regression"], "has 4 bands, values for a head have one"),
        (["--labels", "small.tif", "--classes", "a,b"], "the labels"),
        (["--labels", "classes0.tif", "--classes", "a,b", "--fill"], "--fill would be ignored without an encoder that gives"),
        (["--labels", "classes0.tif", "--classes", "a,b", "--ignore", "3", "--label-map", "0=a,1=b"], "--ignore would be ignored"),
    ],
)  # fmt: skip
def test_what_scenes_a_head_is_fitted_on(
    encoder: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str | None
) -> None:
    monkeypatch.setattr("rsedge.map_heads.PIXELS", 500)
    ground(tmp_path)
    with rasterio.open(tmp_path / "small.tif", "w", driver="GTiff", height=5, width=5, count=1, dtype="uint8") as file:
        file.write(np.zeros((1, 5, 5), np.uint8))
    monkeypatch.chdir(tmp_path)
    code, text, error = cli("head", encoder, "scene0.tif", *arguments, "-o", "a.head")
    assert (code, message is None or message in error) == (0 if message is None else 2, True), error + text
    assert message is not None or "fitted on" in text


def test_weights_that_give_infinity_end_the_scene_with_their_file() -> None:
    head = head_of("h", 2, 0)
    broken = Head(
        head.path, head.record, head.signature, head.sha256, np.full((2, FEATURES), 3e38, np.float32), head.bias
    )
    with pytest.raises(IntegrityError, match=r"h\.head: gives infinity or NaN"):
        blended([broken], array_scene(0, 40, 40), 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stride": None}, "and only they, say how coarse"),
        ({"task": "embedding"}, "and only they, say how coarse"),
        ({"stride": 5}, "a tile of 32 pixels holds no whole number of 5"),
    ],
)
def test_a_manifest_says_how_coarse_features_are(encoder: Path, change: dict[str, Any], message: str) -> None:
    content = json.loads((encoder / "manifest.json").read_text())
    with pytest.raises(RequestError, match=message):
        Manifest.from_bytes(json.dumps(content | change).encode(), "m")
    del content["stride"], content["task"]
    assert Manifest.from_bytes(json.dumps(content).encode(), "old").stride is None
