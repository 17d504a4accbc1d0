"""No command writes over a run's own files, nor over a file that it did not write; each before any work."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rsedge.data.run_names import OWN_NAMES, SOAK
from tests.reports.test_runs import made

Call = Callable[..., tuple[int, str, str]]

COMMANDS: dict[str, tuple[str, ...]] = {
    "compare": ("compare", "RUN", "OTHER", "--html", "OUT"),
    "latency": ("latency", "BUNDLE", "--seconds", "0.1", "--html", "OUT"),
    "bench": ("bench", "BUNDLE", "--seconds", "0.1", "--layers", "--html", "OUT"),
    "soak page": ("soak", "BUNDLE", "--seconds", "0.1", "--html", "OUT"),
    "soak": ("soak", "BUNDLE", "--seconds", "0.1", "--output", "OUT"),
    "report": ("report", "RUN", "--markdown", "OUT"),
    "report as PDF": ("report", "RUN", "--pdf", "OUT"),
    "budget": ("budget", "--example", "orbit", "--output", "OUT"),
    "schema": ("schema", "--output", "OUT"),
    "init": ("init", "--yes", "--output", "OUT"),
}
"""Commands that write one file, OUT."""
PAGES = ("compare", "latency", "bench", "soak page", "soak")
"""Those that replace what they wrote before; the others never replace a file."""


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs, and a bundle that is none of theirs."""
    made(tmp_path / "run", "one", 2.0)
    made(tmp_path / "other", "two", 3.0)
    for name in ("report.html", "report.md", "run.log"):
        (tmp_path / "run" / name).write_text(f"the run's {name}")
    return tmp_path


def words(name: str, runs: Path, bundle: Path, out: Path) -> list[object]:
    places = {"RUN": runs / "run", "OTHER": runs / "other", "BUNDLE": bundle, "OUT": out}
    return [places.get(word, word) for word in COMMANDS[name]]


def contents(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


OWN = ["report.json", "report.html", "recipe.resolved.yaml", "run.log", "stages/export/record.json", "bundles/new.html",
       "model_card.md", "keys/key.pem"]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_a_runs_own_files_are_left_alone(command: str, runs: Path, bundle: Callable[..., Path], cli: Call) -> None:
    """By each command, whether the file is there already or not, in this run and in another, by a link to its folder too."""
    (runs / "link").symlink_to(runs / "run")
    before = contents(runs)
    for place in [*(runs / "run" / name for name in OWN), runs / "link/report.md", runs / "other/report.html"]:
        code, out, errors = cli(*words(command, runs, bundle("openvino-cpu-f32"), place))
        assert code == 2 and str(place) in errors, (place, out, errors)
        assert any(text in errors for text in ("'s own, which only", "exists already", "lies in the bundle")), errors
    assert contents(runs) == before


@pytest.mark.parametrize("command", PAGES)
def test_only_what_a_command_wrote_is_written_anew(
    command: str, runs: Path, bundle: Callable[..., Path], cli: Call
) -> None:
    out = runs / "mine.html"
    asked = words(command, runs, bundle("openvino-cpu-f32"), out)
    for content in (b"a thesis", b"", b"<!doctype html><title>mine</title>"):
        out.write_bytes(content)
        code, _, errors = cli(*asked)
        assert code == 2 and "did not write it" in errors and out.read_bytes() == content
    out.unlink()
    assert cli(*asked)[0] == 0 and cli(*asked)[0] == 0
    for other in (name for name in PAGES if name != command):
        code, _, errors = cli(*words(other, runs, bundle("openvino-cpu-f32"), out))
        assert code == 2 and "did not write it" in errors, (other, errors)


def test_soak_writes_where_the_run_looks_for_it(runs: Path, bundle: Callable[..., Path], cli: Call) -> None:
    place = runs / "run" / SOAK / "openvino-cpu-f32.json"
    asked = words("soak", runs, bundle("openvino-cpu-f32"), place)
    assert cli(*asked)[0] == 0 and place.is_file() and cli(*asked)[0] == 0
    code, _, errors = cli(*words("soak page", runs, bundle("openvino-cpu-f32"), place))
    assert code == 2 and "did not write it" in errors


@pytest.mark.parametrize("inside", ["stages", "stages/cards", "bundles", "keys"])
def test_cards_stay_outside_too(inside: str, runs: Path, bundle: Callable[..., Path], cli: Call) -> None:
    code, _, errors = cli("card", bundle("openvino-cpu-f32"), "-o", runs / "run" / inside)
    assert code == 2 and "'s own, which only" in errors


def test_a_folder_with_names_like_a_runs_is_no_run(runs: Path, cli: Call) -> None:
    """Other programs write report.json, too."""
    shutil.rmtree(runs / "run" / "stages")
    (runs / "mine").mkdir()
    (runs / "mine/report.json").write_text('{"tests": 3}')
    for name in OWN_NAMES:
        assert cli("compare", runs / "run", runs / "other", "--html", runs / "mine" / f"new-{name}")[0] == 0
    assert cli("compare", runs / "run", runs / "other", "--html", runs / "mine/report.html")[0] == 0
    code, _, errors = cli("compare", runs / "run", runs / "other", "--html", runs / "mine/report.json")
    assert code == 2 and "did not write it" in errors


def test_a_copy_of_a_recipe_makes_no_run_of_a_folder(runs: Path, cli: Call) -> None:
    """Whoever keeps one in a project writes there as before."""
    (runs / "project/exported").mkdir(parents=True)
    shutil.copy(runs / "run/recipe.resolved.yaml", runs / "project")
    assert cli("schema", "--output", runs / "project/exported/schema.json")[0] == 0
