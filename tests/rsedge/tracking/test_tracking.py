"""A real run logged to MLflow and TensorBoard, read back through their libraries; a log that is not there changes nothing."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from rsedge.cli.main import run_app
from rsedge.recipe import track
from rsedge.recipe.places import recipe_hash
from rsedge.recipe.reading import load_recipe, resolved
from rsedge.recipe.schema import Recipe
from rsedge.tracking.base import Figures, Log, Outcome, Tracking
from tests.rsedge.search.searched import F32, write

mlflow = pytest.importorskip("mlflow")
pytest.importorskip("tensorboard")
pytest.importorskip("spyndex")
STEPS = 12


def run(folder: Path, *more: str) -> int:
    return run_app(["run", str(folder / "recipe.yaml"), "--run-dir", str(folder / "run"), *more])


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in MLflow, interrupted before its export and gone on with; then in TensorBoard, distilled anew."""
    folder = tmp_path_factory.mktemp("tracked")
    write(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setattr("rsedge.stages.export.export_stage", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            from rsedge.pipeline.run import run_recipe

            run_recipe(load_recipe(folder / "recipe.yaml", ["track=mlflow"]), folder / "run", quiet=True)
    first = runs(folder)
    assert [one.info.status for one in first] == ["KILLED"]
    assert run(folder, "--track", "mlflow") == 0
    assert [one.info.run_id for one in runs(folder)] == [first[0].info.run_id]
    shutil.copy(folder / "run/report.json", folder / "logged.json")
    assert run(folder, "--track", "tensorboard", "--force", "distill", "--until", "distill") == 0
    assert run(folder, "--track", "tensorboard") == 0
    return folder


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def store(folder: Path) -> str:
    return f"sqlite:///{folder / 'run/tracking/mlflow.db'}"


def runs(folder: Path) -> list[object]:
    client = mlflow.MlflowClient(store(folder))
    return list(client.search_runs([client.get_experiment_by_name("rsedge").experiment_id]))


def test_mlflow_has_parameters_curves_figures_gates_and_the_report(logged: Path) -> None:
    client = mlflow.MlflowClient(store(logged))
    (found,) = runs(logged)
    assert found.info.status == "FINISHED" and found.info.run_name == "small"
    data = found.data
    assert data.params["steps.0.distill.steps"] == str(STEPS) and data.params["teacher.classes"] == "['water']"
    loss = client.get_metric_history(found.info.run_id, "distill/loss")
    assert [one.step for one in loss] == list(range(1, STEPS + 1))
    record = json.loads((logged / "run/stages/distill/record.json").read_text())["value"]["record"]
    score = client.get_metric_history(found.info.run_id, "distill/selection score")
    assert [(one.step, one.value) for one in score] == [(row["step"], row["score"]) for row in record["validation"]]
    report = json.loads((logged / "logged.json").read_text())
    (target,) = report["targets"]
    assert data.metrics[f"{F32}/agreement"] == target["agreement"]
    assert data.metrics[f"{F32}/size_bytes"] == target["size_bytes"] and data.metrics[f"{F32}/latency_ms"] > 0
    assert data.tags[f"gate {F32} agreement min 0"].startswith("passed") and data.tags["verdict"]
    names = {one.path for one in client.list_artifacts(found.info.run_id)}
    assert {"report.html", "report.json", "report.md", "recipe.resolved.yaml"} <= names


def test_tensorboard_has_them_too(logged: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(logged / "run/tracking/tensorboard"))
    events.Reload()
    assert [one.step for one in events.Scalars("distill/loss")] == list(range(1, STEPS + 1))
    assert [one.step for one in events.Scalars("distill/selection score")] == [4, 8, 12]
    assert events.Scalars(f"{F32}/agreement")[0].step == 0
    assert {"recipe/text_summary", "verdict/text_summary", "report.md/text_summary"} <= set(events.Tags()["tensors"])


def test_a_server_that_is_not_there_is_said_once_and_ends_no_run(
    logged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(logged, tmp_path / "job")
    recipe = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(f"{recipe}track: {{to: mlflow, uri: 'http://127.0.0.1:9'}}\n")
    began = time.monotonic()
    assert run(folder) == 0 and time.monotonic() - began < 60
    told = capsys.readouterr().err
    assert told.count("takes no more of this run, which goes on without it") == 1 and "http://127.0.0.1:9" in told
    assert (folder / "run/report.html").is_file()


class Breaks(Log):
    """Takes so many calls."""

    where = "a log"

    def __init__(self, calls: int) -> None:
        self.left = calls

    def _call(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError("disk full\nand more")

    def begin(self, name: str, parameters: object) -> None:
        self._call()

    def figures(self, step: int, values: Figures) -> None:
        self._call()

    def tell(self, texts: object, files: object) -> None:
        self._call()

    def end(self, outcome: Outcome) -> None:
        self._call()


@pytest.mark.parametrize("calls", range(5))
def test_whenever_a_log_fails_it_is_said_once_and_asked_no_more(calls: int) -> None:
    log, said = Breaks(calls), list[str]()
    tracking = Tracking(log, said.append)
    tracking.begin("x", {})
    for step in range(2):
        tracking.figures("distill", step, {"loss": 1.0})
    tracking.tell({}, [])
    tracking.end("finished")
    warnings = [text for text in said if "warning" in text]
    assert len(warnings) == (calls < 5) and log.left == max(-1, calls - 5)
    assert all(text.endswith("disk full") for text in warnings)


def test_where_a_run_is_logged_says_nothing_about_its_result(logged: Path, tmp_path: Path) -> None:
    plain, named, whole = (
        load_recipe(logged / "recipe.yaml", more)
        for more in ([], ["track=tensorboard"], ["track={to: mlflow, experiment: clouds}"])
    )
    assert isinstance(plain, Recipe) and isinstance(whole, Recipe) and whole.track is not None
    assert whole.track.experiment == "clouds" and "track" not in resolved(plain)
    assert recipe_hash(resolved(plain)) == recipe_hash(resolved(named)) == recipe_hash(resolved(whole))
    folder = shutil.copytree(logged, tmp_path / "job")
    assert run(folder) == 0
    lines = (folder / "run/run.log").read_text().rsplit(" -> ", 1)[1].splitlines()
    stages = [line for line in lines if " [" in line]
    assert len(stages) == 6 and all(line.endswith(": reused") for line in stages)


def test_what_is_not_installed_or_not_known_is_refused_before_any_work(
    logged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = ["run", str(logged / "recipe.yaml"), "--run-dir", str(tmp_path / "run")]
    assert run_app([*fresh, "--track", "wandb"]) == 2 and "mlflow" in capsys.readouterr().err
    assert run_app([*fresh, "--set", "track={to: tensorboard, uri: x}"]) == 2
    assert "uri and experiment are mlflow's" in capsys.readouterr().err
    monkeypatch.setattr(track.util, "find_spec", lambda name: None)
    assert run_app([*fresh, "--track", "mlflow"]) == 4
    assert "pip install 'rsedge[tracking]'" in capsys.readouterr().err and not (tmp_path / "run").exists()
