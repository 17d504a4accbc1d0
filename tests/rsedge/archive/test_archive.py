"""An archive is mapped once by several processes, whatever is killed meanwhile; what fails is listed and left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsedge.archive.claims import FILE, claimed
from rsedge.archive.driver import DEAD_LETTERS, Sum, crew_of, run
from rsedge.archive.plan import LEAST, plan
from rsedge.archive.scene import map_scene
from rsedge.archive.worker import DIED, Job, one
from rsedge.crew import Ended
from rsedge.data.errors import MissingCapability, RequestError
from rsedge.flight import load
from rsedge.runtimes.inference.sources import Source
from tests.runtimes import tiny_models as tiny

SPEC = tiny.spec()
COUNT = 8
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    for number in range(COUNT):
        tiny.write_scene(folder / f"s{number}.tif", tiny.random_scene(SPEC, 200, 240, number), tiny.NAMES)
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_bundle(tmp_path_factory.mktemp("bundle") / "bundle", SPEC, "openvino-cpu-f32")


@pytest.fixture(scope="module")
def maps(scenes: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process alone gives."""
    folder = tmp_path_factory.mktemp("alone")
    with load(bundle, threads=1) as opened:
        opened.predict_all([scenes], folder)
    return pixels(folder)


def pixels(folder: Path) -> dict[str, bytes]:
    import rasterio

    found = {}
    for path in sorted(folder.glob("s?.tif")):
        with rasterio.open(path) as file:
            found[path.name] = file.read(1).tobytes()
    return found


def job(bundle: Path, scenes: Path, folder: Path, **more: Any) -> Job:
    sources = tuple(Source(path, path.stem) for path in sorted(scenes.glob("*.tif")))
    return Job(bundle, sources, folder, {"threads": 1}, **more)


def statuses(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_every_scene_is_mapped_once_and_the_same_command_does_nothing_twice(
    scenes: Path, maps: dict[str, bytes], bundle: Path, cli: Cli, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ("archive", bundle, scenes, "--output-dir", out, "--workers", 2, "--json")
    first, again = (json.loads(cli(*command)[1]) for _ in range(2))
    assert (first["done"], first["skipped"], first["failed"], first["workers"]) == (COUNT, 0, 0, 2)
    assert (again["done"], again["skipped"], again["exit_code"]) == (0, COUNT, 0) and again["scenes_per_hour"] is None
    assert first["scenes_per_hour"] > 0 and pixels(out) == maps
    assert len(list(out.glob("*.stac.json"))) == COUNT and not list(out.glob("*.under-way"))
    record = map_scene(str(bundle), str(scenes / "s0.tif"), str(out))
    assert record["status"] == "skipped"
    with claimed(out, "s0") as mine:
        assert mine and map_scene(str(bundle), str(scenes / "s0.tif"), str(out))["status"] == "busy"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_is_ended_loses_nothing(
    workers: int, number: signal.Signals, scenes: Path, maps: dict[str, bytes], bundle: Path, tmp_path: Path
) -> None:
    """Also where it is the only one, and where it ends well: the command is not through before all scenes are."""
    found, left = Sum(), 2
    with crew_of(job(bundle, scenes, tmp_path), workers) as crew:
        for record in crew.records():
            found.take(record)
            if record["status"] == "done" and left:
                left -= 1
                os.kill(crew.processes[0], number)
    # One that ended between a scene's last byte and its record: the next finds the scene done, and says skipped.
    assert found.count("done") + found.count("skipped") == COUNT and found.count("done") >= 2
    assert pixels(tmp_path) == maps
    assert not list(tmp_path.glob("*.under-way")) and not list(tmp_path.glob("*.failed.json"))


def test_a_command_that_is_killed_leaves_no_process_and_the_next_goes_on(
    scenes: Path, maps: dict[str, bytes], bundle: Path, cli: Cli, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ["archive", str(bundle), str(scenes), "--output-dir", str(out), "--workers", "2"]
    start = (
        "import sys; from rsedge.cli.main import run_app\nif __name__ == '__main__': sys.exit(run_app(sys.argv[1:]))"
    )
    script = tmp_path / "start.py"
    script.write_text(start)
    with subprocess.Popen(
        [sys.executable, script, *arguments], start_new_session=True, stderr=subprocess.PIPE
    ) as process:
        while not list(out.glob("*.tif.json")):
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
        process.wait()
        until = time.monotonic() + 60
        while _alive(process.pid) and time.monotonic() < until:
            time.sleep(0.1)
        assert not _alive(process.pid)
    record = json.loads(cli(*arguments, "--json")[1])
    assert record["done"] + record["skipped"] == COUNT and record["skipped"] >= 1 and pixels(out) == maps


def _alive(session: int) -> list[int]:
    """Processes of a session."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = place.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(place.parent.name))
    return found


def test_two_commands_at_once_share_the_work(
    scenes: Path, maps: dict[str, bytes], bundle: Path, tmp_path: Path
) -> None:
    with crew_of(job(bundle, scenes, tmp_path), 1) as one_crew, crew_of(job(bundle, scenes, tmp_path), 1) as other:
        found = [*one_crew.records(), *other.records()]
    done = [record["name"] for record in found if record["status"] == "done"]
    assert sorted(done) == [f"s{number}" for number in range(COUNT)] and pixels(tmp_path) == maps


def test_a_scene_that_fails_is_listed_with_the_reason_and_tried_anew_where_that_may_help(
    scenes: Path, bundle: Path, cli: Cli, tmp_path: Path
) -> None:
    given_scenes, out = tmp_path / "in", tmp_path / "out"
    given_scenes.mkdir()
    for name in ("s0", "s1"):
        (given_scenes / f"{name}.tif").write_bytes((scenes / f"{name}.tif").read_bytes())
    (given_scenes / "bad.tif").write_bytes(b"II*\0 no scene")
    code, text, err = cli("archive", bundle, given_scenes, "--output-dir", out, "--workers", 2, "--tries", 2)
    assert code == 5 and "2 done, 0 skipped, 1 failed" in text and "left alone after 2 tries" in " ".join(err.split())
    listed = (out / DEAD_LETTERS).read_text().splitlines()
    assert listed[0].startswith("# ") and "(2 tries)" in listed[0] and listed[1:] == [str(given_scenes / "bad.tif")]
    command = ("archive", bundle, given_scenes, "--output-dir", out, "--workers", 1, "--tries", 2)
    code, text, err = cli(*command, "--json")
    assert (
        code == 5 and json.loads(text)["failures"][0]["tries"] == 2 and err.count("failed") == 1
    )  # not tried as it is
    code, _, err = cli(*command, "--retry-failed")
    assert code == 5 and "tried again later" in err and "left alone after 2 tries" in " ".join(err.split())
    (given_scenes / "bad.tif").write_bytes((scenes / "s2.tif").read_bytes())
    code, text, _ = cli(*command)
    assert code == 0 and "1 done, 2 skipped" in text and not (out / DEAD_LETTERS).exists()


def test_a_scene_that_kills_its_process_is_tried_so_often_and_no_more(
    scenes: Path, bundle: Path, tmp_path: Path
) -> None:
    made = job(bundle, scenes, tmp_path, tries=2)
    with load(bundle, threads=1) as opened:
        found = []
        for _ in range(2):
            (tmp_path / "s0.under-way").touch()
            found.append(one(made, opened, made.sources[0], lambda: False))
        assert [(r["status"], r["tries"], r["retry"], r["error"]) for r in found if r] == [
            ("failed", 1, True, DIED), ("failed", 2, False, DIED)
        ]  # fmt: skip
        record = one(made, opened, made.sources[0], lambda: False)
        assert record is not None and record["retry"] is False and not (tmp_path / "s0.tif").exists()
        with pytest.raises(Ended):
            one(made, opened, made.sources[1], lambda: True)
        assert not (tmp_path / "s1.under-way").exists() and not (tmp_path / "s1.tif").exists()


def test_what_no_scene_would_survive_ends_the_command(scenes: Path, bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="gone"):
        run(job(tmp_path / "gone", scenes, tmp_path), 1, lambda record, found: None)
    broken = Job(bundle, (Source(scenes / "s0.tif", "s0"),), tmp_path, {"nothing": 1})
    with pytest.raises(MissingCapability, match="3 times in a row"):
        run(broken, 1, lambda record, found: None)


@given(st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=4, unique=True))
def test_claims_of_names_are_apart_and_one_name_is_one_holders(names: list[str]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        with claimed(folder, names[0]) as mine, claimed(folder, names[1]) as other:
            assert mine and other
            with claimed(folder, names[0]) as twice:
                assert not twice
        with claimed(folder, names[0]) as mine:
            assert mine
        assert [p.name for p in folder.iterdir()] == [FILE]


@given(st.lists(st.floats(0.01, 100), min_size=LEAST, max_size=30), st.integers(1, 64), st.integers(1, 10**7))
def test_a_plan_is_a_prediction_with_its_interval(seconds: list[float], workers: int, count: int) -> None:
    found = plan(seconds, workers, count, price=2.0)
    assert found.hours[0] <= found.hours[1] * (1 + 1e-9) and found.hours[1] <= found.hours[2] * (1 + 1e-9)
    assert found.hours[1] == pytest.approx(count * sum(seconds) / len(seconds) / workers / 3600)
    assert found.words.count("predicted") == 2 and found.cost is not None
    assert found.cost[1] == pytest.approx(2 * found.hours[1])


def test_bad_input(scenes: Path, bundle: Path, cli: Cli, tmp_path: Path) -> None:
    for arguments, words in (
        ((scenes / "nothing*.tif",), "nothing"),
        ((scenes, "--price", 2), "--plan"),
    ):
        code, _, err = cli("archive", bundle, *arguments, "--output-dir", tmp_path / "o")
        assert code == 2 and words in err, err
    # Too few for a prediction: what was mapped is told all the same.
    command = ("archive", bundle, scenes, "--output-dir", tmp_path / "o", "--plan", 100, "--price", 2)
    code, text, _ = cli(*command)
    assert code == 0 and f"{COUNT} done" in text and "rests on 10 or more" in text
    code, text, _ = cli(*command, "--json")
    assert code == 0 and "0 scenes were mapped now" in json.loads(text)["plan"]["words"]
