"""A watched folder: complete scenes are mapped once, restarts do nothing twice, failures are listed and not tried for ever."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rsedge.flight import Bundle, load
from rsedge.serving.watch import FolderWatch, Rules
from tests.runtimes import tiny_models as tiny

SPEC = tiny.spec()


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundle]:
    folder = tiny.make_bundle(tmp_path_factory.mktemp("watched") / "bundle", SPEC)
    with load(folder, threads=1) as found:
        yield found


class Watched:
    """A watch on a clock of the test's own, and the records it gave."""

    def __init__(self, bundle: Bundle, root: Path) -> None:
        self.now, self.records = 1000.0, list[dict[str, Any]]()
        self.folder, self.outputs, self.bundle = root / "in", root / "out", bundle
        self.folder.mkdir(exist_ok=True)
        self.anew()

    def anew(self) -> None:
        """As after a restart."""
        self.watch = FolderWatch(
            self.bundle,
            self.folder,
            self.outputs,
            Rules(2.0, 2.0, 2),
            on_scene=self.records.append,
            clock=lambda: self.now,
        )

    def go(self, seconds: float = 3.0) -> list[str]:
        """Looks at once and after so long, and does all that is complete; statuses since."""
        before = len(self.records)
        for wait in (0.0, seconds):
            self.now += wait
            while not self.watch.step():
                pass
        return [one["status"] for one in self.records[before:]]

    def scene(self, name: str, seed: int = 1) -> Path:
        place = self.folder / name
        place.parent.mkdir(exist_ok=True)
        return tiny.write_scene(place, tiny.random_scene(SPEC, 40, 50, seed), tiny.NAMES)


def test_complete_scenes_are_mapped_once(loaded: Bundle, tmp_path: Path) -> None:
    w = Watched(loaded, tmp_path)
    assert w.go() == ["waiting"] and w.go() == []
    scene = w.scene("a.tif")
    w.scene("sub/b.tif", 2)
    content = w.scene("c.part.tif").read_bytes()
    (w.folder / "d.tif.part").write_bytes(content)
    (w.folder / "e.tif").touch()
    assert w.watch.step() and not w.outputs.exists()  # still settling
    assert w.go() == ["done", "done"]
    assert sorted(p.relative_to(w.outputs).as_posix() for p in w.outputs.rglob("*.tif")) == ["a.tif", "sub/b.tif"]
    (w.folder / "c.part.tif").rename(w.folder / "c.tif")
    assert w.go() == ["done"] and w.go() == []
    w.anew()
    assert w.go() == ["skipped"] * 3
    scene.write_bytes(w.scene("x.tif", 3).read_bytes())
    (w.folder / "x.tif").unlink()
    assert w.go() == ["done"]


def test_what_grows_is_not_complete(loaded: Bundle, tmp_path: Path) -> None:
    w = Watched(loaded, tmp_path)
    content = w.scene("a.tif").read_bytes()
    for size in (1000, 3000, 5000):
        (w.folder / "a.tif").write_bytes(content[:size])
        assert w.go(1.0) == []
    (w.folder / "a.tif").write_bytes(content)
    assert w.go() == ["done"]


def test_failures_are_listed_and_end(loaded: Bundle, tmp_path: Path) -> None:
    w = Watched(loaded, tmp_path)
    (w.folder / "bad.tif").write_bytes(b"no GeoTIFF")
    w.scene("good.tif")
    assert w.go() == ["failed", "done"] and w.records[-2]["retry"]
    assert w.go() == [] and w.watch.settling()
    assert w.go(60.0) == ["failed"] and not w.records[-1]["retry"] and not w.watch.settling()
    listed = json.loads((w.outputs / "bad.failed.json").read_text())
    assert listed["tries"] == 2 and "bad.tif" in listed["error"]
    assert w.go(100_000.0) == []
    w.anew()
    assert w.go() == ["failed", "skipped"] and not w.records[-2]["retry"] and w.records[-2]["tries"] == 2
    w.scene("bad.tif")
    assert w.go() == ["done"] and not (w.outputs / "bad.failed.json").exists()


def test_watch_once(cli: Callable[..., Any], loaded: Bundle, tmp_path: Path) -> None:
    w = Watched(loaded, tmp_path)
    w.scene("a.tif")
    (w.folder / "bad.tif").write_bytes(b"no GeoTIFF")
    options = ("--output-dir", w.outputs, "--once", "--settle", 0, "--every", 0.1, "--tries", 1, "--threads", 1)
    code, text, errors = cli("watch", loaded.path, w.folder, *options)
    assert code == 5 and "a.tif: done" in text and "left alone after 1 tries" in text, errors
    (w.folder / "bad.tif").unlink()
    code, text, _ = cli("watch", loaded.path, w.folder, *options)
    assert code == 0 and "a.tif: skipped" in text
    assert cli("watch", loaded.path, tmp_path / "none", *options)[0] == 2


def test_two_scenes_of_one_name_wait_and_the_others_go_on(loaded: Bundle, tmp_path: Path) -> None:
    w = Watched(loaded, tmp_path)
    w.scene("a.tif")
    twin = w.scene("a.tiff")
    w.scene("b.tif", 2)
    assert sorted(w.go()) == ["done", "waiting"] and (w.outputs / "b.tif").exists() and w.go() == []
    twin.unlink()
    assert w.go() == ["done"]


def test_where_a_failure_cannot_be_kept_the_scene_is_tried_later(loaded: Bundle, tmp_path: Path) -> None:
    w = Watched(loaded, tmp_path)
    (w.folder / "a.tif").write_text("no scene")
    (w.outputs / "a.failed.json").mkdir(parents=True)
    for _ in range(3):
        assert w.go(40.0) == ["failed"] and w.records[-1]["retry"]
