"""Wanted files that would destroy something are refused before any work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rsedge.cache.run_folder import check_run_folder
from rsedge.data.errors import RequestError
from rsedge.runtimes.inference.outputs import check_outputs
from tests.runtimes import tiny_models as tiny


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    path = tmp_path / "scene.tif"
    path.write_bytes(b"scene")
    return path


@pytest.mark.parametrize("way", ["itself", "relative", "folder link", "hard link"])
def test_an_input_is_an_input_by_every_name(
    way: str, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "other").symlink_to(tmp_path)
    os.link(scene, tmp_path / "hard.tif")
    names = {"itself": scene, "relative": Path("sub/../scene.tif"), "folder link": tmp_path / "other" / "scene.tif",
             "hard link": Path("hard.tif")}  # fmt: skip
    with pytest.raises(RequestError, match="would overwrite"):
        check_outputs([None, names[way]], [None, scene])


def test_a_dash_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match="are not written to stdout; give the file a name"):
        check_outputs([Path("-")])
    check_outputs([tmp_path / "-"])


def test_two_outputs_are_two_files(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="the same file"):
        check_outputs([tmp_path / "a.tif", tmp_path / "." / "a.tif"])
    check_outputs([tmp_path / "a.tif", tmp_path / "b.tif"], [tmp_path])


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("inside", ["model.xml", "new.tif", "deep/er/new.tif"])
def test_bundles_are_left_alone(inside: str, damaged: bool, tmp_path: Path) -> None:
    bundle = tiny.make_bundle(tmp_path / "bundle", tiny.spec(32))
    if damaged:
        content = (bundle / "manifest.json").read_bytes()
        (bundle / "manifest.json").write_bytes(content[: len(content) - 20])
    (tmp_path / "link").symlink_to(bundle)
    for folder in (bundle, tmp_path / "link"):
        with pytest.raises(RequestError, match="lies in the bundle"):
            check_outputs([folder / inside])
        with pytest.raises(RequestError, match="lies in the bundle"):
            check_run_folder(folder / "runs")


def test_other_programs_manifests_are_no_bundles(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "a web page"}')
    check_outputs([tmp_path / "map.tif"])


def test_places_that_cannot_be_written(scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (scene / "map.tif", scene / "sub" / "map.tif", tmp_path / ("n" * 300)):
        with pytest.raises(RequestError, match="cannot be written"):
            check_outputs([path])
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # root may write everywhere
    with pytest.raises(RequestError, match="does not let you write"):
        check_outputs([tmp_path / "new" / "map.tif"])


@pytest.mark.parametrize("name", ["stages", "stages/data", "bundles", "bundles/x", "report.html"])
def test_a_run_folder_with_links_is_not_worked_in(name: str, tmp_path: Path) -> None:
    root, precious = tmp_path / "run", tmp_path / "precious"
    precious.mkdir()
    (root / name).parent.mkdir(parents=True)
    (root / ".lock").touch()
    (root / name).symlink_to(precious)
    with pytest.raises(RequestError, match=f"'{name}' is a link"):
        check_run_folder(root)


def test_anothers_folder_called_stages_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "stages").mkdir()
    with pytest.raises(RequestError, match=r"holds 'stages' and no recipe\.resolved\.yaml"):
        check_run_folder(tmp_path)


def test_an_output_whose_name_is_no_text_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no UTF-8"):
        check_outputs([tmp_path / os.fsdecode(b"out\xff.tif")])
