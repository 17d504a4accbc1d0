"""A search over a small recipe on real pixels: what is tried and what is left, kills, two workers, chosen trials, bad input."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsedge.cache.shelf import Shelf
from rsedge.cache.stage import Stages
from rsedge.data.errors import NoRoom, RequestError
from rsedge.devices.measure.decide import Race, Turns
from rsedge.devices.measure.load import Load
from rsedge.pipeline.run import run_until
from rsedge.recipe.reading import load_recipe
from rsedge.search.figures import BASELINE, Clock, TeacherMs, measured, quiet_ms
from rsedge.search.front import Figure, beats, costs_of, front_of
from rsedge.search.study import DIED, Search, begin_search, open_search
from rsedge.search.telling import cells, chosen, head, view_of, write_page
from rsedge.search.trial import out_of_memory
from rsedge.search.worker import Job, go_through
from rsedge.stages.latency import TargetLatency
from tests.rsedge.search.searched import F32, JETSON, RECIPE, TOO_LARGE, begun, write

pytest.importorskip("optuna")
pytest.importorskip("spyndex")

Cli = Callable[..., tuple[int, str, str]]
ALL = 6
"""Points of the space, two of which are too large."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write(tmp_path_factory.mktemp("recipe"))


def made(folder: Path) -> Counter[str]:
    """How often each stage was begun in any run of a search, by its log; what was taken from the shelf was not."""
    found: Counter[str] = Counter()
    for log in folder.glob("trials/*/*/run.log"):
        found.update(re.findall(r"\] (\w+)$", log.read_text(), re.M))
    return found


def on_shelf(folder: Path) -> Counter[str]:
    return Counter(p.parent.name for p in folder.glob("shelf/*/*") if p.is_dir() and not p.name.startswith("."))


@pytest.fixture(scope="module")
def whole(files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Search:
    """Every point of the space, in this process."""
    folder = tmp_path_factory.mktemp("whole") / "search"
    search = begun(folder, *files)
    heard: list[dict[str, Any]] = []
    go_through(search, Job(folder, None, 20), heard.append)
    assert [r["status"] for r in heard if r["status"] != "step"] == [row.state for row in search.rows()]
    return search


def test_every_point_once_and_cheap_answers_first(whole: Search) -> None:
    rows = whole.rows()
    assert len(rows) == ALL and len({json.dumps(row.point) for row in rows}) == ALL, (
        "a space that is all tried ends the search"
    )
    assert rows[0].point == whole.space.base, "the recipe as it is comes first"
    for row in rows:
        if row.point["student.encoder"] == TOO_LARGE:
            assert row.state == "stopped" and "not trained" in row.words and "size max" in row.words
            assert row.shortfalls["size max 600000"] > 0 and not (whole.folder / row.folder / "steps-4").exists()
        else:
            assert row.rungs[0].steps == 4 and row.state in ("done", "stopped")
            assert row.state == "done" or "not among the better" in row.words
    done = [row for row in rows if row.state == "done"]
    assert done and whole.objectives == ("latency", "size", "agreement")
    for row in done:
        assert row.target == F32 and row.holds and set(row.figures) == set(whole.objectives)
        assert row.figures["size"].provenance == "measured" and 0 <= row.figures["agreement"].value <= 1
        assert (
            "in turns with the teacher" in row.figures["latency"].note
            or row.figures["latency"].provenance == "predicted"
        )


def test_trials_share_what_they_have_in_common_and_nothing_looks_at_the_verdicts_set(whole: Search) -> None:
    assert made(whole.folder)["data"] == made(whole.folder)["teacher"] == 1
    assert all(count == on_shelf(whole.folder)[stage] for stage, count in made(whole.folder).items())
    assert "verify" not in made(whole.folder) and "bundle" not in made(whole.folder)


def test_going_on_with_a_finished_search_does_nothing_twice(whole: Search) -> None:
    before, heard = made(whole.folder), []
    go_through(open_search(whole.folder), Job(whole.folder, None, 20), heard.append)
    assert heard == [] and made(whole.folder) == before


def test_the_chosen_trial_is_a_plain_recipe_that_takes_over_its_stages(
    whole: Search, files: tuple[Path, Path], cli: Cli
) -> None:
    row = next(row for row in whole.rows() if row.state == "done")
    output = whole.folder.parent / "chosen.yaml"
    command = ("search", files[0], "--search-dir", whole.folder, "--choose", row.number, "--output", output)
    code, text, _ = cli(*command)
    assert code == 0 and f"rsedge run {output} --run-dir" in text
    recipe = load_recipe(output)
    assert (
        recipe.name == f"small-trial-{row.number}"
        and list(recipe.student.options["encoder"]) == row.point["student.encoder"]
    )
    code, _, err = cli("run", output, "--run-dir", whole.folder / row.folder / "full")
    assert code == 0 and "export: reused" in err and "verify: reused" not in err
    code, _, err = cli(*command)
    assert code == 2 and "exists already" in err
    stopped = next(row for row in whole.rows() if row.state == "stopped")
    for number, words in ((stopped.number, "it is stopped"), (99, "there is no such trial")):
        code, _, err = cli(
            "search", files[0], "--search-dir", whole.folder, "--choose", number, "--output", output.with_name("x.yaml")
        )
        assert code == 2 and words in " ".join(err.split()) and "those that no other beats" in " ".join(err.split())


def test_the_command_tells_all_as_table_json_and_page(whole: Search, files: tuple[Path, Path], cli: Cli) -> None:
    command = ("search", files[0], "--space", files[1], "--search-dir", whole.folder)
    code, text, _ = cli(*command, "--json")
    record = json.loads(text)
    assert code == 0 and record["counts"]["done"] + record["counts"]["stopped"] == ALL
    rows = {row.number: row for row in whole.rows()}
    best = [costs_of(rows[n], whole.objectives) for n in record["front"]]
    assert best and not any(beats(a, b) for a in best for b in best)
    page = Path(record["page"]).read_text()
    assert 'http-equiv="refresh"' not in page and "<svg" in page and page.count('<th scope="row">') == ALL
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page
    code, text, _ = cli(*command)
    words = " ".join(text.split())
    assert code == 0 and "on selection" in words and "The test set was not looked at" in words and "--choose N" in words


def test_another_recipe_or_space_is_refused_in_the_same_folder(
    whole: Search, files: tuple[Path, Path], cli: Cli
) -> None:
    code, _, err = cli("search", files[0], "--space", files[1], "--search-dir", whole.folder, "--set", "seed=5")
    assert code == 2 and "holds a search over another recipe" in " ".join(err.split())


def command(files: tuple[Path, Path], folder: Path, *more: str) -> list[str]:
    """The command line in a process of its own, with short measurements."""
    start = (
        "import sys; from rsedge.cli.main import run_app\nif __name__ == '__main__': sys.exit(run_app(sys.argv[1:]))"
    )
    script = folder.parent / "start.py"
    script.write_text(start)
    words = ["search", str(files[0]), "--space", str(files[1]), "--search-dir", str(folder), *more]
    return [sys.executable, str(script), *words]


def children(process: int) -> list[int]:
    """Workers of a command."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = place.read_text()
            line = (place.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(text.rpartition(")")[2].split()[1]) == process and b"spawn_main" in line:
            found.append(int(place.parent.name))
    return found


def wait_for(what: Callable[[], Any], process: subprocess.Popen[str], seconds: float = 240.0) -> Any:
    until = time.monotonic() + seconds
    while not (found := what()):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    return found


def test_kills_of_a_worker_and_of_the_command_lose_nothing_that_was_finished(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    """SIGKILL of a worker in a training: another goes on. SIGKILL of the command: no worker stays, the next goes on."""
    folder = tmp_path / "search"
    short = ["--trials", "2", "--set", "steps.distill.steps=200"]
    with subprocess.Popen(
        command(files, folder, *short), text=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        checkpoint = "trials/0000/*/stages/distill/resume/resume.safetensors"
        wait_for(lambda: list(folder.glob(checkpoint)), process)
        os.kill(children(process.pid)[0], signal.SIGKILL)
        wait_for(lambda: list(folder.glob("trials/0000/full/stages/distill/resume/resume.safetensors")), process)
        workers = children(process.pid)
        process.kill()
        process.communicate()
    until = time.monotonic() + 60
    while any(
        Path(f"/proc/{worker}").exists() and "Z" not in Path(f"/proc/{worker}/stat").read_text() for worker in workers
    ):
        assert time.monotonic() < until, "a worker outlives its command"
        time.sleep(0.1)
    done = subprocess.run(command(files, folder, *short, "--json"), capture_output=True, text=True, timeout=400)
    record = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert [row["number"] for row in record["trials"]] == [0, 1] and record["trials"][0]["state"] == "done"
    begun_stages, kept = made(folder), on_shelf(folder)
    assert begun_stages["data"] == begun_stages["teacher"] == 1
    assert begun_stages["distill"] == kept["distill"] + 2, "only the two that were under way were begun again"


def test_two_workers_share_stages_and_spoil_none(files: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "search"
    done = subprocess.run(
        command(files, folder, "--workers", "2", "--json"), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["counts"]["done"] + record["counts"]["stopped"] == ALL and record["counts"]["failed"] == 0
    points = [json.dumps(row["point"], sort_keys=True) for row in record["trials"]]
    assert len(set(points)) == ALL
    assert made(folder)["data"] == made(folder)["teacher"] == 1
    assert all(count == on_shelf(folder)[stage] for stage, count in made(folder).items())


def test_a_signal_ends_the_command_and_its_workers_soon(files: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "search"
    arguments = command(files, folder, "--set", "steps.distill.steps=4000")
    with subprocess.Popen(arguments, text=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        wait_for(lambda: list(folder.glob("trials/0000/*/stages/distill/resume/resume.safetensors")), process)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 143 and "run the same command again to go on" in " ".join(err.split())
    assert [row.state for row in open_search(folder).rows()] == ["running"]


def test_a_trial_that_fails_is_kept_in_words_and_the_others_go_on(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full once, memory that is short once, in the middle of a stage."""
    errors = [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ]
    stage = Stages.stage

    def short(self: Stages, record: Any, *more: Any) -> Any:
        if record.stage == "distill" and errors:
            raise errors.pop()
        return stage(self, record, *more)

    monkeypatch.setattr(Stages, "stage", short)
    search = begun(tmp_path / "search", *files)
    go_through(search, Job(tmp_path / "search", None, 3), lambda record: None)
    rows = search.rows()
    failed = [row.words for row in rows if row.state == "failed"]
    assert (
        failed
        == [
            "out of memory: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes",
            "needs more memory than there is",
        ]
        or rows[0].state == rows[1].state == "failed"
    )
    assert len(rows) == 3 and rows[2].state != "failed"
    assert not out_of_memory(RuntimeError("sizes of tensors must match"))


def test_a_trial_whose_process_dies_again_and_again_has_failed(files: tuple[Path, Path], tmp_path: Path) -> None:
    search = begun(tmp_path / "search", *files)
    for _ in range(2):
        with search.next(3) as trial:
            assert trial is not None and trial.number == 0
        search.count_death(os.getpid())
    with search.next(3) as trial:
        assert trial is not None and trial.number == 1
        search.count_death(os.getpid())  # it is at it still
        with search.next(3) as other:
            assert other is not None and other.number == 2
    assert (search.rows()[0].state, search.rows()[0].words) == ("failed", DIED)
    assert open_search(tmp_path / "search").study.trials[1].user_attrs.get("deaths", 0) == 0


def test_the_plan_says_what_would_be_done_and_does_nothing(files: tuple[Path, Path], cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "search"
    code, text, _ = cli("search", files[0], "--space", files[1], "--search-dir", folder, "--plan")
    assert (
        code == 0
        and "student.encoder" in text
        and "first 4 of 12 distillation steps" in text
        and "on selection" in text
    )
    code, text, _ = cli("search", files[0], "--search-dir", folder, "--plan", "--json")
    about = json.loads(text)
    assert (
        code == 0
        and set(about["variables"]) == {"student", "steps.distill.lr"}
        and about["objectives"]["agreement"] == "higher"
    )
    derived = tmp_path / "derived.yaml"
    derived.write_text(about["file"])
    code, text, _ = cli("search", files[0], "--space", derived, "--search-dir", folder, "--plan", "--json")
    assert code == 0 and json.loads(text)["variables"] == about["variables"] and not folder.exists()
    code, text, _ = cli(
        "search", files[0], "--space", files[1], "--search-dir", folder, "--sbatch", "--workers", 4, "--trials", 9
    )
    assert (
        code == 0 and "--array=0-3" in text and "Not run here" in text and "--trials 9" in text and "journal:" in text
    )
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0 and not folder.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--storage", "nowhere"), "is no address of a storage"),
        (("--storage", "postgresql://me:secret@127.0.0.1:1/x"), "--storage postgresql://me:***@127.0.0.1:1/x"),
        (("--storage", "sqlite:////nowhere/at/all.db"), "cannot be reached or used"),
        (("--storage", "journal:/nowhere/at/all.log"), "there is no folder"),
        (("--storage", "odd://x/y"), "driver of this database is not installed"),
        (("--choose", "3"), "--choose and --output go together"),
        (("--choose", "3", "--output", "x.yaml"), "there is no search; begin one"),
        (("--space", "gone.yaml"), "gone.yaml"),
    ],
)  # fmt: skip
def test_bad_input_is_told_in_words(
    arguments: tuple[str, ...],
    words: str,
    files: tuple[Path, Path],
    cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = cli("search", files[0], *(() if "--space" in arguments else ("--space", files[1])), *arguments)
    assert code in (2, 4) and words in " ".join(err.split()) and "secret" not in err and "Traceback" not in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_is_told(files: tuple[Path, Path], cli: Cli, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    code, _, err = cli("search", files[0], "--space", files[1], "--search-dir", tmp_path / "search")
    tmp_path.chmod(0o700)
    assert code == 2 and "cannot be written" in err


def test_a_storage_that_cannot_be_written_is_told(files: tuple[Path, Path], cli: Cli, tmp_path: Path) -> None:
    begun(tmp_path / "other", *files)
    database = tmp_path / "other/search.db"
    url = f"sqlite:///file:{database}?mode=ro&uri=true"
    code, _, err = cli(
        "search",
        files[0],
        "--space",
        files[1],
        "--search-dir",
        tmp_path / "search",
        "--set",
        "seed=3",
        "--storage",
        url,
    )
    assert code == 2 and "cannot be written" in " ".join(err.split())


def test_without_optuna_the_extra_is_named(files: tuple[Path, Path], cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    code, _, err = cli("search", files[0], "--plan")
    assert code == 4 and "rsedge[scale]" in err


def test_a_full_disk_fails_no_trial_and_the_same_command_goes_on(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each trial that is begun on a full disk would fail at once, and the whole search with them."""
    full = OSError(errno.ENOSPC, "No space left on device")
    heard: list[dict[str, Any]] = []
    search, job = begun(tmp_path / "search", *files), Job(tmp_path / "search", None, 1)
    with monkeypatch.context() as patched, pytest.raises(NoRoom, match="no space left"):
        patched.setattr(Shelf, "put", lambda self, stage, key, folder: (_ for _ in ()).throw(full))
        go_through(search, job, heard.append)
    assert [row.state for row in search.rows()] == ["running"] and {r["status"] for r in heard} == {"step"}
    with search.next(1) as trial:
        assert trial is not None and trial.number == 0


def test_what_nobody_foresaw_is_kept_with_the_trial_that_it_ended(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def odd(self: Stages, *more: Any) -> Any:
        raise ValueError("an odd\nstudent")

    monkeypatch.setattr(Stages, "stage", odd)
    search = begun(tmp_path / "search", *files)
    for _ in range(2):
        with pytest.raises(ValueError, match="odd"):
            go_through(search, Job(search.folder, None, 1), lambda record: None)
        search.count_death(os.getpid())
    go_through(search, Job(search.folder, None, 1), lambda record: None)
    (row,) = search.rows()
    assert (row.state, row.words) == ("failed", "the process at it died: ValueError: an odd student")


@pytest.mark.parametrize("form", ["sqlite", "journal"])
def test_of_many_commands_at_once_one_begins_and_all_go_on(form: str, files: tuple[Path, Path], tmp_path: Path) -> None:
    """As the jobs of an array do that Slurm begins."""
    folder = tmp_path / "search"
    url = None if form == "sqlite" else f"journal:{folder}/search.log"
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: begun(folder, *files, url), range(4)))
    assert len({search.home for search in found}) == 1
    assert [row.state for row in found[0].rows()] == ["waiting"], "the recipe's own point, once"
    (folder / "search.json").unlink()  # a kill before it was written, with what the storage had put there
    assert begun(folder, *files, url).rows()[0].state == "waiting"


@pytest.mark.parametrize(
    "change", ["", "{", "[]", "{}", '{"recipe": 5}', '{"home": 5}', '{"objectives": 3}', '{"more": 1}']
)
def test_a_damaged_record_is_told(change: str, whole: Search, tmp_path: Path) -> None:
    kept = json.loads((whole.folder / "search.json").read_text())
    found = change if change in ("", "{", "[]", "{}") else json.dumps(kept | json.loads(change))
    (tmp_path / "search.json").write_text(found)
    with pytest.raises(RequestError, match=r"search\.json"):
        open_search(tmp_path)


def test_latencies_are_told_in_the_teachers_time_on_inputs_of_their_size(whole: Search, tmp_path: Path) -> None:
    search = begin_search(tmp_path / "search", whole.space, whole.objectives)
    assert [search.reference_ms(*one) for one in (((4, 64, 64), 8.0), ((4, 32, 32), 2.0), ((4, 64, 64), 9.0))] == [
        8.0,
        2.0,
        8.0,
    ]


def test_a_journal_serves_as_well(files: tuple[Path, Path], tmp_path: Path) -> None:
    url = f"journal:{tmp_path}/trials.log"
    search = begun(tmp_path / "search", *files, url)
    with search.next(1) as trial:
        assert trial is not None
        trial.keep("rungs", [])
    assert [row.number for row in open_search(tmp_path / "search", url).rows()] == [0]


def test_the_sampler_copes_with_every_end_and_no_point_comes_twice(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Beyond its first draws, with trials that were stopped, failed, or broke gates: what a search of days meets."""
    space = files[1].with_name("wide.yaml")
    space.write_text(
        "variables:\n  steps.distill.lr: {low: 1e-4, high: 1e-2, log: true}\n  student.stem: {low: 8, high: 32, step: 8}\n"
        "  steps.distill.batch: {low: 1, high: 4}\n  steps.distill.temperature: {low: 1.0, high: 2.0, step: 0.5}\n"
    )
    search = begun(tmp_path / "search", files[0], space)
    for number in range(24):
        with search.next(24) as trial:
            assert trial is not None and trial.number >= number
            search.space.recipe_at(trial.point)
            if number % 4 == 1:
                search.end(trial.number, "stopped", "too large", {"size max 600000": 0.5})
            elif number % 4 == 2:
                search.end(trial.number, "failed", "a full disk")
            else:
                stem = float(trial.point["student.stem"])
                figures = {
                    name: Figure(value=value, provenance="measured")
                    for name, value in (("latency", stem), ("size", 100 * stem), ("agreement", 1 - 1 / stem))
                }
                search.done(trial, figures, {"size max 600000": stem / 16 - 1.5}, "", 0.1)
    with search.next(24) as trial:
        assert trial is None
    rows = search.rows()
    assert Counter(row.state for row in rows) == {"done": 12, "stopped": 6, "failed": 6}
    assert len({json.dumps(row.point) for row in rows}) == 24
    assert front_of(rows, search.objectives) and all(row.holds for row in front_of(rows, search.objectives))
    view = view_of(search, running=True)
    assert len(view.trials) == 24 and dict(view.facts)["trials"] == "12 done, 6 stopped, 6 failed"


def test_a_device_that_is_not_here_has_predicted_latency_and_energy_that_say_so(tmp_path: Path) -> None:
    recipe = RECIPE.replace("targets: [openvino-cpu-f32]", f"targets: [openvino-cpu-f32, {JETSON}]")
    space = f"target: {JETSON}\nvariables: {{steps.distill.lr: [1e-3]}}\nrungs: {{shares: []}}\n"
    files = write(tmp_path / "recipe", recipe, space)
    search = begun(tmp_path / "search", *files)
    assert search.objectives == ("latency", "size", "energy", "agreement")
    go_through(search, Job(search.folder, None, 9), lambda record: None)
    (row,) = search.rows()
    assert row.state == "done" and row.target == JETSON and row.rungs == (), row.words
    assert {name: found.provenance for name, found in row.figures.items()} == {
        "latency": "predicted", "size": "measured", "energy": "predicted", "agreement": "measured"
    }  # fmt: skip
    shown = dict(zip(head(search), cells(search, row), strict=True))
    assert (
        shown["latency"].startswith("predicted ")
        and shown["energy"].startswith("predicted ")
        and "mJ" in shown["energy"]
    )
    assert chosen(search, row.number)[1].targets == (JETSON, F32)
    page = write_page(search, running=True).read_text()
    assert 'http-equiv="refresh"' in page and 'class="bubble target predicted"' in page


def test_where_turns_are_too_noisy_the_prediction_stands_in_and_says_so(
    whole: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = next(row for row in whole.rows() if row.state == "done")
    place = whole.folder / row.folder / "full"
    ctx = run_until(whole.space.recipe_at(row.point), place, "export", quiet=True, shelf=whole.shelf).ctx
    clock = Clock(lambda shape, now: 10.0, whole.trials, TeacherMs())
    with pytest.raises(RuntimeError, match="asks for the test set"):
        ctx.test  # noqa: B018
    quiet = measured(ctx, row.target, ("latency",), clock).figures["latency"]
    monkeypatch.setattr(Race, "too_noisy", lambda self: "too noisy to tell: others took all")
    noisy = measured(ctx, row.target, ("latency",), clock).figures["latency"]
    share = TargetLatency(ctx, row.target).predicted(ctx.student(ctx.shipped)).ms / clock.teacher(ctx, BASELINE)
    assert noisy.provenance == "predicted" and noisy.value == pytest.approx(10.0 * share, rel=0.05)
    assert "too noisy to tell: others took all" in noisy.note and quiet.provenance in ("measured", "predicted")


def test_the_teachers_time_is_that_of_a_quiet_machine_whatever_runs_beside_it() -> None:
    turns = {BASELINE: Turns(np.full(12, 80.0), np.full(12, 20.0))}
    assert quiet_ms(Race(turns, Load(others=0.0)), BASELINE, 1) == 80.0
    assert quiet_ms(Race(turns, Load(others=0.9)), BASELINE, 2) == 10.0
    assert quiet_ms(Race({BASELINE: Turns(np.full(12, 80.0))}, Load(others=0.9)), BASELINE, 1) == 80.0
