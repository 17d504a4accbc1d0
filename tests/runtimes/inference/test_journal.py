"""A scene whose command is killed goes on at the row of tiles it lost, and its output is the same to the byte."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsedge.cli.main import GOES_ON, STARTS_OVER, _scene_is_kept
from rsedge.runtimes.inference import journal, scene, tiles
from rsedge.runtimes.inference.journal import Journal, Kept, journal_of, place_of, rows_left
from rsedge.runtimes.inference.works import maps
from rsedge.runtimes.inference.works.arrays import ArrayScene
from tests.runtimes import tiny_models as tiny

SPEC = tiny.spec()
CHILD = """
import os, sys, time
from rsedge.runtimes.inference import journal, scene, tiles
scene.FROM_PIXELS, tiles.PANEL_BYTES, scene.PANEL_BYTES = 0, 1, 1
add, left = journal.Journal.add, [int(sys.argv[1])]

def killing(self, rows, tests):
    add(self, rows, tests)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), int(sys.argv[2]))
        time.sleep(2)  # until the main thread has heard it

journal.Journal.add = killing
from rsedge.cli.main import run_app
sys.exit(run_app(sys.argv[3:]))
"""
Cli = Callable[..., tuple[int, str, str]]


class Noon(datetime):
    """Maps say when they were made."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return datetime(2026, 1, 1, 12, tzinfo=tz)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Journals of scenes of any size, which are cut into several panels and made at one time."""
    monkeypatch.setattr("rsedge.runtimes.inference.style.datetime", Noon)
    monkeypatch.setattr(scene, "FROM_PIXELS", 0)
    monkeypatch.setattr(tiles, "PANEL_BYTES", 1)
    monkeypatch.setattr(scene, "PANEL_BYTES", 1)


def signalled(number: int, after: int, *command: Any) -> tuple[int, str]:
    """Runs a command that gets a signal when so many rows of tiles are kept; its exit code and what it says."""
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(after), str(number), *map(str, command)], capture_output=True, text=True
    )
    return child.returncode, " ".join(child.stderr.split())


def killed(after: int, *command: Any) -> None:
    code, err = signalled(signal.SIGKILL, after, *command)
    assert code == -signal.SIGKILL, err


@pytest.mark.usefixtures("small")
def test_a_killed_scene_goes_on_and_is_the_same_to_the_byte(
    bundle: Callable[..., Path], cli: Cli, tmp_path: Path
) -> None:
    dn = tiny.random_scene(SPEC, 200, 400)
    dn[:, 90:125] = 0
    path = tiny.write_scene(tmp_path / "s.tif", dn, tiny.NAMES, tiled=True, blockxsize=64, blockysize=64)

    def command(name: str) -> list[Any]:
        shares = tmp_path / f"p{name}"
        return [
            "infer",
            bundle(),
            path,
            "--output",
            tmp_path / name,
            "--probabilities",
            shares,
            "--self-test",
            5,
            "--json",
        ]

    whole = json.loads(cli(*command("whole.tif"))[1])
    killed(12, *command("o.tif"))
    place = place_of(tmp_path / "o.tif")
    assert place.exists() and not (tmp_path / "o.tif").exists()
    code, out, _ = cli(*command("o.tif"))
    again = json.loads(out)
    # Rows of panels of 256 and 144 columns; those after the last self-test do not count.
    assert code == 0 and 8 <= again["run"]["kept_rows"] <= 11 and again["run"]["tiles"] < whole["run"]["tiles"]
    assert again["pixels"] == whole["pixels"] and whole["run"]["kept_rows"] == 0
    for name in ("", "p"):
        assert (tmp_path / f"{name}o.tif").read_bytes() == (tmp_path / f"{name}whole.tif").read_bytes()
    # The killed process's temporary folder goes with the next start of a process.
    names = sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith(".rsedge-"))
    assert names == ["o.tif", "po.tif", "pwhole.tif", "s.tif", "whole.tif"]

    killed(12, *command("o.tif"))
    os.utime(path, ns=(1, 1))
    assert json.loads(cli(*command("o.tif"))[1])["run"]["kept_rows"] == 0 and not place.exists()


@pytest.mark.usefixtures("small")
def test_an_interrupted_scene_says_truly_whether_it_goes_on(
    bundle: Callable[..., Path], cli: Cli, tmp_path: Path
) -> None:
    path = tiny.write_scene(
        tmp_path / "s.tif", tiny.random_scene(SPEC, 300, 300), tiny.NAMES, tiled=True, blockxsize=64, blockysize=64
    )
    command = ("infer", bundle(), path, "--output", tmp_path / "o.tif", "--self-test", 5)
    for after, message in ((1, STARTS_OVER), (9, GOES_ON)):
        code, err = signalled(signal.SIGTERM, after, *command)
        assert code == 143 and message in err, err
    code, out, _ = cli(*command, "--json")
    assert code == 0 and json.loads(out)["run"]["kept_rows"] > 0


def kept(number: int) -> Kept:
    values = np.full((3, 5), number, np.uint8)
    return Kept(3 * number, 0, (values, values[None].astype(np.float32)), [{"row": number, "col": 0, "why": "lost"}])


def filled(output: Path, tests: list[int | None]) -> Path:
    """A journal that a killed process left."""
    with pytest.raises(KeyboardInterrupt), journal_of(output, {"a": 1}) as held:
        assert held is not None
        for number, passed in enumerate(tests):
            held.add(kept(number), passed)
        raise KeyboardInterrupt
    return place_of(output)


def rows(output: Path, key: dict[str, Any] | None = None) -> list[int]:
    with pytest.raises(KeyboardInterrupt), journal_of(output, key or {"a": 1}) as held:
        assert held is not None
        found = list(held.kept())
        for number, one in enumerate(found):
            assert all(np.array_equal(a, b) for a, b in zip(one.arrays, kept(number).arrays, strict=True))
        assert held.rows == len(found) and all(one.failed == kept(n).failed for n, one in enumerate(found))
        raise KeyboardInterrupt
    return [one.start // 3 for one in found]


def test_rows_count_once_a_self_test_has_passed_after_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "o.tif"
    filled(output, [1, 1, 2, 2, 3, 3])
    assert rows(output) == [0, 1, 2, 3] == rows(output)
    with pytest.raises(KeyboardInterrupt), journal_of(output, {"a": 1}) as held:
        assert held is not None
        for number, tests in ((4, 1), (5, 2), (6, 2)):
            held.add(kept(number), tests)
        raise KeyboardInterrupt
    assert rows(output) == [0, 1, 2, 3, 4]
    filled(tmp_path / "n.tif", [None, None])
    assert rows(tmp_path / "n.tif") == [0, 1]
    filled(tmp_path / "m.tif", [1, 1])
    assert [rows_left(tmp_path / f"{name}.tif") for name in "onmx"] == [5, 2, 0, 0]
    for given in (["-o", "n.tif"], ["-on.tif"], ["--output=n.tif"], ["--output", "n.tif"]):
        monkeypatch.chdir(tmp_path)
        assert _scene_is_kept(["infer", "bundle", "s.tif", *given])


def test_of_a_cut_altered_or_foreign_journal_what_is_sound_counts(tmp_path: Path) -> None:
    output = tmp_path / "o.tif"
    content = filled(output, [None] * 4).read_bytes()
    rng, place = np.random.default_rng(0), place_of(output)
    for _ in range(60):
        damaged, at = bytearray(content), int(rng.integers(len(content)))
        damaged[at] ^= 1 << int(rng.integers(8))
        for broken in (bytes(damaged), content[:at]):
            place.write_bytes(broken)
            found = rows(output)
            assert found == list(range(len(found))) and len(found) < 4
    place.write_bytes(content)
    assert rows(output, {"a": 2}) == [] and len(place.read_bytes()) == 65


def test_a_key_of_any_length_is_known_again(tmp_path: Path) -> None:
    """As that of a store of very many files."""
    key = {"files": ["chunk"] * 300_000}
    with pytest.raises(KeyboardInterrupt), journal_of(tmp_path / "o.tif", key) as held:
        assert held is not None
        held.add(kept(0), None)
        raise KeyboardInterrupt
    assert rows(tmp_path / "o.tif", key) == [0]


def test_it_goes_with_the_work_and_belongs_to_one_process(tmp_path: Path) -> None:
    output = tmp_path / "o.tif"
    with journal_of(output, {}) as held:
        assert held is not None
        with journal_of(output, {}) as other:
            assert other is None
    assert not place_of(output).exists()
    with pytest.raises(ValueError, match="failed"), journal_of(output, {}):
        raise ValueError("failed")
    assert not place_of(output).exists()
    place_of(output).symlink_to(tmp_path / "elsewhere")
    with journal_of(output, {}) as held:
        assert held is None
    assert not (tmp_path / "elsewhere").exists()


def test_a_journal_that_cannot_be_written_is_given_up(tmp_path: Path) -> None:
    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, content: bytes) -> int:
            raise OSError("no space")

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    with journal_of(tmp_path / "o.tif", {}) as held:
        assert isinstance(held, Journal)
        held._file = Full(held._file)
        held.add(kept(0), None)
        held.add(kept(1), None)


def test_small_scenes_have_none(
    bundle: Callable[..., Path], cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny.write_scene(tmp_path / "s.tif", tiny.random_scene(SPEC, 40, 40), tiny.NAMES)
    monkeypatch.setattr(journal, "_locked", lambda place: pytest.fail("has one"))
    monkeypatch.setattr(maps, "identity", lambda *_: pytest.fail("looks at all files for its key"))
    assert cli("infer", bundle(), path, "--output", tmp_path / "o.tif")[0] == 0


@pytest.mark.usefixtures("small")
def test_rows_of_tiles_that_began_elsewhere_do_not_count() -> None:
    reader = ArrayScene(tiny.random_scene(SPEC, 80, 80), SPEC)
    here = scene._key(reader, dict, None, 1)
    reader.first_pixel = (0, 5)  # type: ignore[attr-defined]
    assert here is not None and scene._key(reader, dict, None, 1) != here
