"""``rsedge init``: each answer is checked at once, and what it writes loads, and goes through a dry run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import timm
import torch
from rasterio.transform import from_origin
from torch import nn

from rsedge.cli.init import Answers, ask, write_recipe
from rsedge.cli.main import run_app
from rsedge.data.errors import RequestError
from rsedge.data.sets.sample_sources import load_samples
from rsedge.recipe.folders import find_scenes, label_values
from rsedge.recipe.reading import load_recipe

BANDS = ("blue", "green", "red", "nir")
HERE = from_origin(500_000, 4_600_000, 10, 10)
QUESTIONS = 7


def raster(path: Path, values: np.ndarray, names: tuple[str, ...] = (), **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = {"count": values.shape[0], "height": values.shape[1], "width": values.shape[2]}
    with rasterio.open(
        path, "w", driver="GTiff", dtype=values.dtype, crs="EPSG:32630", transform=HERE, **shape, **more
    ) as file:
        file.write(values)
        if names:
            file.descriptions = names
    return path


def scene(path: Path, names: tuple[str, ...] = BANDS, seed: int = 0) -> Path:
    values = np.random.default_rng(seed).integers(500, 4000, (4, 160, 160)).astype(np.uint16)
    values[:, :80] += 2000
    return raster(path, values, names, nodata=0)


def labels(path: Path, low: int = 0, high: int = 255) -> Path:
    values = np.full((1, 160, 160), low, np.uint8)
    values[:, :80] = high
    return raster(path, values)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two scenes, one of them with labels, and an ONNX file that knows nothing of rsedge."""
    scene(tmp_path / "set/images/a.tif")
    scene(tmp_path / "set/images/b.tif", seed=1)
    labels(tmp_path / "set/labels/a.tif")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1)).eval()
    torch.onnx.export(
        net, (torch.zeros(2, 4, 64, 64),), tmp_path / "net.onnx", dynamo=True, verbose=False,
        dynamic_shapes=({0: torch.export.Dim("n")},),
    )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_defaults_load(tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "recipe.yaml", ask(Answers(), interactive=False))
    recipe = load_recipe(path)
    assert recipe.name == "my-model"
    assert recipe.quantize is not None


def test_without_the_shared_scenes_it_names_what_wheels_bring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rsedge.recipe.scenes import section_scene
    from rsedge.stages.teacher_model import recipe_teacher

    monkeypatch.setenv("RSEDGE_DATA", str(tmp_path))
    recipe = load_recipe(write_recipe(tmp_path / "recipe.yaml", ask(Answers(), interactive=False)))
    spec = recipe_teacher(recipe.teacher).spec
    for section in recipe.scenes.train:
        assert set(spec.input_spec.band_names) <= set(section_scene(section, spec.input_spec, spec.classes).bands)


def test_answers_end_up_in_the_recipe(folder: Path) -> None:
    given = Answers(
        name="drone-7",
        teacher="ukis-csmask-4b-l2a",
        data="set/images/a.tif, spyndex-sentinel2",
        targets="openvino-cpu-f32",
    )
    (folder / "out").mkdir()
    recipe = load_recipe(write_recipe(Path("out/r.yaml"), ask(given, interactive=False)))
    assert recipe.teacher.name == "ukis-csmask-4b-l2a"
    paths = [section.path for section in recipe.scenes.train]
    assert [None if p is None else p.resolve() for p in paths] == [folder / "set/images/a.tif", None]
    assert recipe.scenes.train[1].source == "spyndex-sentinel2"
    assert recipe.quantize is None
    assert recipe.targets == ("openvino-cpu-f32",)


def test_an_onnx_file_and_a_folder_go_through_a_dry_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--teacher", "net.onnx", "--data", "set", "--classes", "land,water", "--targets", "openvino-cpu-f32"]
    assert run_app(["init", "--yes", *options, "--output", "mine.yaml"]) == 0
    recipe = load_recipe("mine.yaml")
    assert recipe.name == "mine"
    assert recipe.teacher.contract.band_names == BANDS and recipe.teacher.contract.tile == 64
    assert 0.2 < recipe.teacher.contract.bands[0].mean < 0.5, "reflectance, of the scenes"
    judge = recipe.scenes.test
    assert judge.path is not None and judge.path.name == "a.tif", "the one with labels judges"
    assert judge.label_file is not None and judge.label_file.map == {0: "land", 255: "water"}
    small = "student={name: slim-unet, stem: 8, encoder: [8, 8, 8, 8], blocks: [0, 0, 0, 0], decoder: [8, 8, 8, 8]}"
    capsys.readouterr()
    code = run_app(["run", "mine.yaml", "--dry-run", "--json", "--set", small, "--set", "steps.distill.batch=2"])
    told = json.loads(capsys.readouterr().out)
    assert code == 0, told


def test_a_classifier_and_a_folder_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, name in enumerate(("forest", "water")):
        for number in range(3):
            values = np.random.default_rng(number).integers(500, 900, (4, 64, 64)).astype(np.uint16) + 2000 * kind
            raster(tmp_path / f"set/{name}/{number}.tif", values.astype(np.uint16), BANDS, nodata=0)
    for classes, file in ((2, "w.pth"), (3, "w3.pth")):
        torch.save(timm.create_model("resnet10t", in_chans=4, num_classes=classes).state_dict(), tmp_path / file)
    monkeypatch.chdir(tmp_path)
    given = Answers(teacher="timm:resnet10t", checkpoint="w.pth", data="set")
    recipe = load_recipe(write_recipe(tmp_path / "r.yaml", ask(given, interactive=False)))
    assert recipe.teacher.classes == ("forest", "water") and recipe.teacher.contract.band_names == BANDS
    section = recipe.samples.samples
    found = load_samples(section.source, section.root, **section.options)
    assert found.classes == ("forest", "water") and len(found) == 6 and found.labels is not None
    assert 0.05 < found.values[0].mean() < 0.09, "reflectance"
    three = Answers(**{**vars(given), "classes": "a, b, c", "checkpoint": "w3.pth"})
    other = load_recipe(write_recipe(tmp_path / "o.yaml", ask(three, interactive=False)))
    assert other.samples.samples.options["labels"] == "none", "folders that are no classes of the model"


def test_weights_of_another_library_go_with_its_name(folder: Path) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    net = smp.Unet("resnet18", encoder_weights=None, in_channels=2, classes=2)
    torch.save(net.state_dict(), folder / "w.pth")
    given = Answers(teacher="smp:unet/resnet18", checkpoint="w.pth", data="set", bands="red, nir", classes="a, b, c")
    with pytest.raises(RequestError, match="holds the values 0, 255, but there are 3 classes"):
        ask(given, interactive=False)
    start = ask(Answers(**{**vars(given), "classes": "a, b"}), interactive=False)
    recipe = load_recipe(write_recipe(folder / "r.yaml", start))
    assert recipe.teacher.checkpoint == folder / "w.pth"
    assert recipe.teacher.contract.band_names == ("red", "nir")
    torch.save(net.encoder.state_dict(), folder / "w.pth")
    with pytest.raises(RequestError, match=r"w\.pth: checkpoint does not fit .*missing keys: encoder"):
        write_recipe(folder / "other.yaml", start)
    assert not (folder / "other.yaml").exists()


def test_weights_of_another_network_are_refused_at_once_and_named(tmp_path: Path) -> None:
    from rsedge.models.families import family
    from rsedge.models.zoo import teacher_row

    row = teacher_row("presto-worldcereal-crop")
    torch.save(family(row.family).build(**row.arch).state_dict(), tmp_path / "presto.pt")
    torch.save({"a.weight": torch.zeros(3)}, tmp_path / "odd.pt")
    for name, file, words in (
        ("so2sat-resnet20", "presto.pt", "It fits presto-worldcereal-crop, of the family presto: name that one"),
        ("galileo-nano-image", "presto.pt", r"missing keys: .* left-over keys: .* It fits presto-worldcereal-crop"),
        ("presto-worldcereal-crop", "odd.pt", "Nor any other: no teacher's checkpoint looks like this; families known"),
    ):
        with pytest.raises(RequestError, match=rf"{file}: does not fit '{name}': .*{words}"):
            ask(Answers(teacher=name, checkpoint=str(tmp_path / file)), interactive=False)


def test_a_checkpoint_is_recognised(tmp_path: Path) -> None:
    from rsedge.models.families import family
    from rsedge.models.zoo import teacher_row

    for name in ("presto-worldcereal-crop", "galileo-nano-image"):
        row = teacher_row(name)
        torch.save(family(row.family).build(**row.arch).state_dict(), tmp_path / f"{name}.pt")
    mine = tmp_path / "presto-worldcereal-crop.pt"
    start = ask(Answers(teacher=str(mine), data="worldcereal-crop"), interactive=False)
    assert (start.teacher, start.checkpoint, start.samples) == ("presto-worldcereal-crop", mine, "worldcereal-crop")
    assert load_recipe(write_recipe(tmp_path / "r.yaml", start)).student.name == start.student
    with pytest.raises(RequestError, match="fits the teachers galileo-nano-series, galileo-nano-image; name the one"):
        ask(Answers(teacher=str(tmp_path / "galileo-nano-image.pt")), interactive=False)


def test_bands_that_a_file_does_not_name_are_asked_for(folder: Path) -> None:
    scene(folder / "bare.tif", names=())
    given = Answers(teacher="net.onnx", data="bare.tif", classes="a, b")
    with pytest.raises(RequestError, match="give --bands"):
        ask(given, interactive=False)
    start = ask(Answers(**{**vars(given), "bands": "red, green, blue, nir"}), interactive=False)
    recipe = load_recipe(write_recipe(folder / "r.yaml", start))
    assert recipe.scenes.train[0].bands == ("red", "green", "blue", "nir")


NUMBERED = ("B2", "B3", "B4", "B8")


@pytest.mark.parametrize(
    ("written", "tags", "given", "sensor"),
    [
        (NUMBERED, {}, None, None),
        (NUMBERED, {}, "B2, B3, B4, B8", None),
        (NUMBERED, {}, "blue, green, red, nir", "sentinel-2"),
        (NUMBERED, {}, "B02, B03, B04, B08", "sentinel-2"),
        (NUMBERED, {"SENSOR": "Sentinel-2A"}, None, None),
        (NUMBERED, {"SENSOR": "Sentinel-2A"}, "B02, B03, B04, B08", None),
        (("B02", "B03", "B04", "B08"), {}, "B02, B03, B04, B08", None),
        (("B2", "B3", "B4", "B5"), {}, "red, green, blue, nir", "landsat-8"),
        (("red", "green", "blue", "nir"), {}, "B4, B3, B2, B8", "sentinel-2"),
    ],
)
def test_bands_are_named_as_people_write_them(
    folder: Path, written: tuple[str, ...], tags: dict[str, str], given: str | None, sensor: str | None
) -> None:
    """What is written reads the very files that were named."""
    from rsedge.recipe.scenes import section_scene

    with rasterio.open(scene(folder / "own.tif", names=written), "r+") as file:
        file.update_tags(**tags)
    start = ask(Answers(teacher="net.onnx", data="own.tif", classes="a, b", bands=given), interactive=False)
    recipe = load_recipe(write_recipe(folder / "r.yaml", start))
    spec = recipe.teacher.contract
    assert spec.sensor == sensor
    assert section_scene(recipe.scenes.train[0], spec, ("a", "b")).bands == spec.band_names


def test_bands_of_several_sensors_are_named_as_the_file_does(folder: Path) -> None:
    """PlanetScope and MODIS have the four, in another order; the advice works."""
    scene(folder / "own.tif", names=("B1", "B2", "B3", "B4"))
    given = Answers(teacher="net.onnx", data="own.tif", classes="a, b")
    with pytest.raises(RequestError, match=r"the file has b1, b2, b3, b4; or name them as the file does"):
        ask(Answers(**{**vars(given), "bands": "blue, green, red, nir"}), interactive=False)
    start = ask(Answers(**{**vars(given), "bands": "b1, b2, b3, b4"}), interactive=False)
    assert start.contract is not None and start.contract.sensor is None


def answered(monkeypatch: pytest.MonkeyPatch, replies: list[str | None]) -> list[str]:
    """Replies to the questions, None for the default; the questions as they come."""
    asked: list[str] = []
    left: Iterator[str | None] = iter(replies)

    def prompt(question: str, default: str | None = None, err: bool = False) -> str:
        asked.append(question)
        reply = next(left)
        assert reply is not None or default is not None, question
        return default if reply is None else reply  # type: ignore[return-value]

    monkeypatch.setattr("rsedge.cli.init.typer.prompt", prompt)
    return asked


def test_questions_take_numbers_and_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answered(monkeypatch, ["ukis-csmask-6b-l2a", None, "2", None])
    start = ask(Answers(), interactive=True)
    assert start.teacher == "ukis-csmask-6b-l2a" and start.student == "unet-mobilenetv4"
    assert len(asked) == 4


def test_a_wrong_answer_is_asked_for_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = ["nobody", "smp:unet/resnet18", "none.pth", "w.pth", "nowhere", "set", "red, bluu", None, "a", "land, water",
             "slim-net", None, "openvino-cpuu-int8", None]  # fmt: skip
    (folder / "w.pth").write_bytes(b"PK\x03\x04")
    asked = answered(monkeypatch, wrong)
    start = ask(Answers(), interactive=True)
    assert start.classes == ("a",) or start.classes == ("land", "water")
    assert len(set(asked)) <= QUESTIONS
    said = capsys.readouterr().err
    for hint in ("'nobody' is unknown", "none.pth: no such file", "'nowhere' is no folder", "nearest: 'blue'"):
        assert hint in said
    assert "nearest: 'slim-unet'" in said and "nearest: 'cpu'" in said


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (Answers(teacher="ukis-csmask-6b-l1d"), r"nearest: 'ukis-csmask-6b-l1c'"),
        (Answers(teacher="onnx:none.onnx"), "no such file"),
        (Answers(teacher="l-ffca-yolo"), r"for detection; write its recipe by hand \(docs/detection\.md\)"),
        (Answers(teacher="geopix-masks"), r"for instances; write its recipe by hand \(docs/parts\.md\)"),
        (Answers(teacher="smp:unet/resnet18"), "give --checkpoint"),
        (Answers(teacher="net.onnx", checkpoint="net.onnx"), "brings its own weights"),
        (Answers(teacher="net.onnx", data="set", bands="red"), "takes 4, these are 1"),
        (Answers(teacher="net.onnx", data="set", classes="a, b, c"), "has 2 outputs, these are 3"),
        (Answers(teacher="net.onnx", data="set", classes="a, a"), "stands there twice"),
        (Answers(teacher="net.onnx", data="ukis-sentinel2"), "read from a file"),
        (Answers(teacher="set/images/a.tif"), "a file of kind scene"),
        (Answers(teacher="timm:resnet18", checkpoint="net.onnx", data="set"), "is a label raster"),
        (Answers(data="worldcereal-crop"), "is a set of samples"),
        (Answers(data="set/labels"), "none|labels|scene"),
        (Answers(data=" , "), "name a folder"),
        (Answers(student="slim-net"), r"nearest: 'slim-unet'"),
        (Answers(targets="openvino-cpuu-int8"), r"nearest: 'cpu'"),
        (Answers(targets=""), "at least one"),
    ],
    ids=str,
)
def test_unknown_answers_are_refused(folder: Path, given: Answers, expected: str) -> None:
    if given.data == "set/labels":
        (folder / "set/labels/a.tif").rename(folder / "set/labels/a_labels.tif")
    with pytest.raises(RequestError, match=expected):
        ask(given, interactive=False)


def test_labels_are_found_beside_and_in_folders_of_their_own(tmp_path: Path) -> None:
    for name in ("x/s1_image.tif", "x/s2.tif", "y/t.TIF"):
        scene(tmp_path / name)
    beside, own = labels(tmp_path / "x/s1_mask.tif"), labels(tmp_path / "y/masks/t.tif", 0, 1)
    found = find_scenes(tmp_path)
    assert [p.name for p in found.scenes] == ["s1_image.tif", "s2.tif", "t.TIF"]
    assert {k.name: v for k, v in found.labels.items()} == {"s1_image.tif": beside, "t.TIF": own}
    assert label_values(own) == (0, 1)


def test_labels_of_nothing_and_folders_without_scenes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no GeoTIFF"):
        find_scenes(tmp_path)
    (tmp_path / "forest").mkdir()
    (tmp_path / "forest/1.png").touch()
    with pytest.raises(RequestError, match="chips go into"):
        find_scenes(tmp_path)
    scene(tmp_path / "a.tif")
    scene(tmp_path / "b.tif")
    labels(tmp_path / "c_labels.tif")
    with pytest.raises(RequestError, match="labels of no scene"):
        find_scenes(tmp_path)


def test_an_existing_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("mine")
    with pytest.raises(RequestError, match="exists already"):
        write_recipe(path, ask(Answers(), interactive=False))
    assert path.read_text() == "mine"


def test_answers_that_make_no_recipe_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="must start with a letter"):
        write_recipe(tmp_path / "r.yaml", ask(Answers(name="../up"), interactive=False))
    assert not (tmp_path / "r.yaml").exists()
