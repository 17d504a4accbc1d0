"""Many scenes into a folder: what arguments name, what is skipped, what fails alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
import rasterio.warp
from hypothesis import given, settings
from hypothesis import strategies as st

import rsedge
from rsedge.data.errors import IntegrityError, RequestError
from rsedge.data.scenes.envi import write_header
from rsedge.data.scenes.envi_place import place_fields
from rsedge.data.scenes.geotiff import SceneReader
from rsedge.data.scenes.raster_file import Transform
from rsedge.runtimes.bundle.self_test import SelfTestFailed
from rsedge.runtimes.inference.many import finished, identity, into_folder, places
from rsedge.runtimes.inference.raster_out import check_rasters
from rsedge.runtimes.inference.sources import sources
from rsedge.runtimes.inference.works.table import taken
from tests.runtimes import tiny_models as tiny

SPEC = tiny.spec()
TIF = (".tif", ".tiff")
PLACE = Transform(10.0, 0.0, 5e5, 0.0, -10.0, 5.4e6)


def scene(path: Path, seed: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return tiny.write_scene(path, tiny.random_scene(SPEC, 40, 50, seed), tiny.NAMES)


def item(path: Path, name: str, assets: dict[str, str], **properties: str) -> dict[str, object]:
    """A STAC item of one-band GeoTIFFs: key -> href."""
    found = {
        "type": "Feature", "stac_version": "1.1.0", "id": name, "geometry": None, "properties": properties, "links": [],
        "assets": {k: {"href": v, "type": "image/tiff; application=geotiff", "roles": ["data"]} for k, v in assets.items()},
    }  # fmt: skip
    path.write_text(json.dumps(found))
    return found


def names(found: list[object]) -> list[str]:
    return [one.name for one in found]  # type: ignore[attr-defined]


def test_folders_patterns_lists_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.tif", "sub/a.tif", "sub/b.TIF", ".hidden/c.tif", "out/d.tif", "note.json"):
        place = tmp_path / "in" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    folder, out = tmp_path / "in", tmp_path / "in" / "out"
    assert names(sources([folder], TIF, [out])) == ["a", "sub/a", "sub/b"]
    assert names(sources([folder / "sub" / "*"], TIF, [out])) == ["a", "b"]
    (tmp_path / "list.txt").write_text("# mine\nin/a.tif\n\nin/sub/b.TIF\n")
    assert names(sources([tmp_path / "list.txt"], TIF, [out])) == ["a", "b"]
    assert names(sources([folder / "a.tif", folder / "a.tif"], TIF, [out])) == ["a"]
    (tmp_path / "in.hdr").write_text("ENVI\n")  # of another file: the folder is none
    monkeypatch.chdir(folder)
    for here in (".", "../in", "", folder):
        assert names(sources([here], TIF, [out])) == ["a", "sub/a", "sub/b"]


def test_two_of_one_name_and_what_is_not_there_are_refused(tmp_path: Path) -> None:
    for name in ("x/a.tif", "y/a.tif"):
        scene(tmp_path / name)
    with pytest.raises(RequestError, match=r"y/a\.tif: its outputs would have the name of those of .*x/a\.tif"):
        sources([tmp_path / "x/a.tif", tmp_path / "y/a.tif"], TIF, [tmp_path / "o"])
    assert names(sources([tmp_path], TIF, [tmp_path / "o"])) == ["x/a", "y/a"]
    (tmp_path / "list.txt").write_text("x/a.tif\nz/*.tif\n")
    (tmp_path / "empty").mkdir()
    for argument, words in (
        ("list.txt", r"list\.txt: line 2: .*no file matches"),
        ("empty", "holds no scene"),
        ("no*.tif", "no file matches"),
    ):
        with pytest.raises(RequestError, match=words):
            sources([tmp_path / argument], TIF, [tmp_path / "o"])


def test_items_of_collections_are_scenes(tmp_path: Path) -> None:
    first = item(tmp_path / "one.json", "one", {"data": "a.tif"})
    second = item(tmp_path / "two.json", "t/wo", {"data": "b.tif"})
    (tmp_path / "all.json").write_text(json.dumps({"type": "FeatureCollection", "features": [first, second]}))
    links = [{"rel": "item", "href": "./one.json"}, {"rel": "item", "href": "two.json"}, {"rel": "self", "href": "x"}]
    (tmp_path / "collection.json").write_text(json.dumps({"type": "Collection", "id": "c", "links": links}))
    for name in ("all.json", "collection.json"):
        assert names(sources([tmp_path / name], TIF, [tmp_path / "o"])) == ["one", "t_wo"]
    assert names(sources([f"{tmp_path}/all.json#one"], TIF, [tmp_path / "o"])) == ["one"]
    for text, words in (
        ('{"type": "Feature"}', "without an id"),
        ('{"type": "Polygon"}', "no STAC item"),
        ('{"type": "Catalog", "links": [{"rel": "child", "href": "bad.json"}]}', "in a circle"),
        ('{"type": "Catalog", "links": [{"rel": "item", "href": "ftp://e.org/i.json"}]}', "nothing is fetched"),
        ('{"type": "FeatureCollection", "features": []}', "holds no items"),
    ):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(RequestError, match=words):
            sources([tmp_path / "bad.json"], TIF, [tmp_path / "o"])


@settings(max_examples=15, deadline=None)
@given(
    change=st.sampled_from(["bundle", "setting", "bytes", "time", "output", "record", "none"]), size=st.integers(1, 9)
)
def test_only_the_very_same_answer_counts_as_done(
    tmp_path_factory: pytest.TempPathFactory, change: str, size: int
) -> None:
    folder = tmp_path_factory.mktemp("done")
    source, where = folder / "s.tif", places(folder, "out", ".tif", None)
    source.write_bytes(b"x" * size)
    where.output.write_bytes(b"y" * size)
    made = {"bundle": "b", "settings": {"overlap": size}}
    kept = {
        "made_from": identity(source, made),
        "outputs": [{"file": "out.tif", "bytes": size}],
        "result": {"seconds": 1},
    }
    where.record.write_text(json.dumps(kept))
    if change == "bytes":
        source.write_bytes(b"x" * (size + 1))
    elif change == "time":
        os.utime(source, ns=(1, 1))
    elif change == "output":
        where.output.unlink()
    elif change == "record":
        where.record.write_text("[")
    now = made | {"bundle": {"bundle": "c"}, "setting": {"settings": {}}}.get(change, {})
    assert (finished(where, identity(source, now)) is not None) is (change == "none")


def test_a_list_is_not_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rsedge.runtimes.inference.sources._MOST_LINES", 2)
    (tmp_path / "list.txt").write_text("a.tif\nb.tif\n")
    assert names(sources([tmp_path / "list.txt"], TIF, [tmp_path / "out"])) == ["a", "b"]
    (tmp_path / "list.txt").write_text("a.tif\nb.tif\nc.tif\n")
    with pytest.raises(RequestError, match="has 3 lines, a list has up to 2"):
        sources([tmp_path / "list.txt"], TIF, [tmp_path / "out"])


def test_one_that_fails_is_listed_and_the_others_go_on(
    bundle: Callable[..., Path], cli: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    for seed, name in enumerate(("a", "deep/b")):
        scene(tmp_path / "in" / f"{name}.tif", seed)
    (tmp_path / "in" / "broken.tif").write_bytes(b"II*\0nothing")
    out, call = tmp_path / "out", ("infer", bundle(), tmp_path / "in", "--output-dir", tmp_path / "out")
    code, text, _ = cli(*call, "--json")
    found = json.loads(text)
    assert (code, found["done"], found["skipped"], found["failed"]) == (5, 2, 0, 1)
    assert [one["status"] for one in found["scenes"]] == ["done", "failed", "done"]
    assert "broken.tif" in found["scenes"][1]["error"]
    with rasterio.open(out / "deep/b.tif") as made, rsedge.load(bundle()) as opened:
        assert np.array_equal(made.read(1), opened.predict(tmp_path / "in/deep/b.tif"))
    record = json.loads((out / "a.tif.json").read_text())
    assert record["result"]["pixels"] and record["made_from"]["bundle"]["manifest_sha256"]
    (tmp_path / "in" / "broken.tif").unlink()
    code, text, err = cli(*call)
    assert code == 0 and "0 done, 2 skipped, 0 failed" in text and "--again does it anew" in err
    before = (out / "a.tif").stat().st_mtime_ns
    assert cli(*call, "--again")[0] == 0 and (out / "a.tif").stat().st_mtime_ns > before
    code, text, _ = cli(*call, "--overlap", "4", "--probabilities", out, "--json")
    assert json.loads(text)["done"] == 2 and (out / "deep/b.probabilities.tif").is_file()


def test_what_does_not_go_together_is_refused(
    bundle: Callable[..., Path], cli: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    one = scene(tmp_path / "a.tif")
    for more, words in (
        ((), "give --output FILE for one scene"),
        (("-o", tmp_path / "o.tif", "--output-dir", tmp_path), "not both"),
        (("-o", tmp_path / "o.tif", "--again"), "--again would be ignored without --output-dir"),
        ((one, "-o", tmp_path / "o.tif"), "is for one scene, and 2 are given"),
        (("--output-dir", tmp_path / "o", "--format", "csv"), "written as tif"),
        (("--output-dir", tmp_path / "o", "--after", one), "run their scenes one by one"),
        (("--output-dir", tmp_path / "o", "--score", "0.5"), "--score would be ignored"),
    ):
        code, text, _ = cli("infer", bundle(), one, *more, "--json")
        assert code == 2 and words in text, text


def test_a_missed_golden_vector_ends_all(
    bundle: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        scene(tmp_path / f"{name}.tif")

    def fails(*_: object, **__: object) -> None:
        raise SelfTestFailed("damaged memory")

    with rsedge.load(bundle()) as opened:
        monkeypatch.setattr(opened, "predict", fails)
        with pytest.raises(IntegrityError, match="damaged memory"):
            opened.predict_all([tmp_path], tmp_path / "out")


def test_a_bundle_says_which_files_count(bundle: Callable[..., Path]) -> None:
    with rsedge.load(bundle()) as opened:
        assert {".tif", ".tiff"} <= taken(opened.manifest)


def test_what_lies_beside_says_what_and_where_it_is(bundle: Callable[..., Path], tmp_path: Path) -> None:
    scene(tmp_path / "in/a.tif")
    with rsedge.load(bundle()) as opened:
        found = opened.predict_all([tmp_path / "in"], tmp_path / "out", probabilities=tmp_path / "out")
    (record,) = found["scenes"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a.probabilities.tif", "a.stac.json", "a.tif", "a.tif.aux.xml", "a.tif.json",
    ]  # fmt: skip
    said = json.loads((tmp_path / "out/a.stac.json").read_text())
    assert set(said) >= {"type", "stac_version", "id", "geometry", "bbox", "properties", "links", "assets"}
    with rasterio.open(tmp_path / "out/a.tif") as file:
        bounds = rasterio.warp.transform_bounds(file.crs, "EPSG:4326", *file.bounds)
        assert (
            said["properties"]["proj:transform"] == list(file.transform)
            and said["properties"]["proj:code"] == "EPSG:32632"
        )
        assert said["properties"]["proj:shape"] == [file.height, file.width]
    assert np.allclose(said["bbox"], bounds, atol=1e-5) and said["properties"]["rsedge:verdict"] == "no gates"
    asset = said["assets"]["result"]
    assert [c["name"] for c in asset["classification:classes"]] == list(tiny.CLASSES)
    assert (tmp_path / "out" / asset["href"]).stat().st_size == asset["file:size"]
    assert (tmp_path / "out" / said["links"][0]["href"]).resolve() == tmp_path / "in/a.tif"
    table = ElementTree.parse(tmp_path / "out/a.tif.aux.xml").getroot()
    assert [one.text for one in table.iter("Category")] == list(tiny.CLASSES)
    assert [one.text for one in table.iter("F")][:2] == ["0", "background"]
    assert sorted(record["beside"]) == [str(tmp_path / "out" / n) for n in ("a.stac.json", "a.tif.aux.xml")]


def test_a_list_names_folders_beside_itself_and_a_link_that_leads_nowhere_ends_nothing(tmp_path: Path) -> None:
    for name in ("in/sub/a.tif", "in/sub/b.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "in/sub/c.tif").symlink_to("c.tif")
    (tmp_path / "in/list.txt").write_text("sub\n")
    assert names(sources([tmp_path / "in/list.txt"], TIF, [tmp_path / "out"])) == ["a", "b", "c"]
    (tmp_path / "empty.txt").write_text("# nothing yet\n")
    with pytest.raises(RequestError, match="names no scene"):
        sources([tmp_path / "empty.txt"], TIF, [tmp_path / "out"])


def test_nothing_that_is_made_of_one_scene_lies_over_another_or_what_is_made_of_it(
    bundle: Callable[..., Path], tmp_path: Path
) -> None:
    scene(tmp_path / "in/out/x.tif")
    read = scene(tmp_path / "out/out/x.tif", 2)
    before = read.read_bytes()
    scene(tmp_path / "p/a.tif")
    scene(tmp_path / "p/a.probabilities.tif")
    with rsedge.load(bundle()) as model:
        with pytest.raises(RequestError, match=r"would write .*which .* is made of"):
            model.predict_all([tmp_path / "in", read], tmp_path / "out")
        with pytest.raises(RequestError, match=r"would write .*which .* would write too"):
            model.predict_all([tmp_path / "p"], tmp_path / "op", probabilities=tmp_path / "op")
        stac = tmp_path / "p/mine.stac.json"
        item(stac, "mine", {"data": "a.tif"})
        text = stac.read_text()
        found = model.predict_all([stac], tmp_path / "p")
        assert found["failed"] == 1 and "would overwrite" in found["scenes"][0]["error"]
    assert read.read_bytes() == before and not (tmp_path / "op").exists() and stac.read_text() == text


def test_what_was_written_below_the_scenes_is_no_scene_the_second_time(tmp_path: Path) -> None:
    for name in ("in/a.tif", "in/sub/b.tif", "in/out/a.tif", "in/shares/a.probabilities.tif"):
        scene(tmp_path / name)
    (tmp_path / "list.txt").write_text("in/**/*.tif\n")
    folders = [tmp_path / "in/out", tmp_path / "in/shares"]
    for argument in (tmp_path / "in", tmp_path / "in/**/*.tif", tmp_path / "i*", tmp_path / "list.txt"):
        assert [one.path.name for one in sources([argument], TIF, folders)] == ["a.tif", "b.tif"], argument
    with pytest.raises(RequestError, match="no file matches outside of the folder of outputs"):
        sources([tmp_path / "i*/out/*.tif"], TIF, folders)
    # Named, or with the outputs in the same place or above, they are what is asked for.
    for argument in (tmp_path / "in/out/a.tif", tmp_path / "in/out/*.tif"):
        assert names(sources([argument], TIF, folders)) == ["a"]
    assert names(sources([tmp_path / "in/sub"], TIF, [tmp_path])) == ["b"]


def test_all_that_an_answer_is_made_of_makes_another_one(bundle: Callable[..., Path], tmp_path: Path) -> None:
    """Later dates, prompts, and what says which offset a product has."""
    source = scene(tmp_path / "S2A.SAFE/GRANULE/G/IMG_DATA/a.tif")
    product, later = tmp_path / "S2A.SAFE/MTD_MSIL1C.xml", scene(tmp_path / "b.tif")
    product.write_text("<a><PROCESSING_BASELINE>05.00</PROCESSING_BASELINE></a>")
    where = places(tmp_path / "out", "a", ".tif", None)
    calls = []

    def run() -> dict[str, object]:
        calls.append(1)
        where.output.parent.mkdir(exist_ok=True)
        where.output.write_bytes(b"map")
        return {}

    def status() -> str:
        return str(into_folder(source, where, {}, False, run, [later])["status"])

    assert [status(), status()] == ["done", "skipped"]
    for changed in (product, later):
        os.utime(changed, ns=(1, 1))
        assert [status(), status()] == ["done", "skipped"]
    with rsedge.load(bundle()) as opened, pytest.raises(RequestError, match=r"would overwrite .*MTD_MSIL1C\.xml"):
        opened.predict(source, product)
    with rsedge.load(bundle()) as opened, pytest.raises(RequestError, match=r"none\.csv: no such file"):
        opened.predict_into(source, tmp_path / "p", prompts=tmp_path / "none.csv")


def test_a_store_of_many_files_is_known_by_the_hash_of_their_list(tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    store.mkdir()
    for number in range(100):
        (store / f"chunk.{number:04}").touch()
    found = identity(store, {})
    assert len(json.dumps(found)) < 200 and found == identity(store, {})
    os.utime(store / "chunk.0099", ns=(1, 1))
    assert identity(store, {}) != found


def test_an_output_is_whole_with_all_its_files_and_writes_over_none_that_is_read(
    bundle: Callable[..., Path], tmp_path: Path
) -> None:
    image = tiny.random_scene(SPEC, 40, 50)
    for name in ("a.dat", "b.raw"):
        (tmp_path / name).write_bytes(image.tobytes())
        placed = place_fields(PLACE, "EPSG:32632", tmp_path)
        header = write_header(tmp_path / name, image.shape, "uint16", tiny.NAMES, 0, placed)
        (tmp_path / name).with_suffix(".hdr").write_bytes(header)
    before = (tmp_path / "a.hdr").read_bytes()
    with rsedge.load(bundle()) as opened:
        with pytest.raises(RequestError, match=r"a\.hdr: would overwrite .*a\.hdr, which this command reads"):
            opened.predict(tmp_path / "a.dat", tmp_path / "a.img")
        with SceneReader(tmp_path / "a.dat", SPEC) as reader, pytest.raises(RequestError, match="would overwrite"):
            check_rasters(reader, [tmp_path / "a.img"])
        with pytest.raises(RequestError, match=r"a\.hdr: is the header of .*a\.dat"):
            opened.predict(tmp_path / "b.raw", tmp_path / "a.img")
        found = opened.predict_all([tmp_path / "a.dat"], tmp_path, form="img")
        assert found["failed"] == 1 and "would overwrite" in found["scenes"][0]["error"]
        other = scene(tmp_path / "in" / tmp_path.name / "a.tif").parents[1]
        with pytest.raises(RequestError, match=r"would write .*a\.hdr, which .*a\.dat is made of"):
            opened.predict_all([other, tmp_path / "a.dat"], tmp_path.parent, form="img")
        assert (tmp_path / "a.hdr").read_bytes() == before
        (record,) = opened.predict_all([tmp_path / "a.dat"], tmp_path / "o", form="img")["scenes"]
        assert opened.predict_all([tmp_path / "a.dat"], tmp_path / "o", form="img")["skipped"] == 1
        (tmp_path / "o/a.hdr").unlink()
        assert (
            record["status"] == "done" and opened.predict_all([tmp_path / "a.dat"], tmp_path / "o", form="img")["done"]
        )
