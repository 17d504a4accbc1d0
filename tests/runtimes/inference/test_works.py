"""A new work is a row and a module: Python and the command line take it up, and nobody else asks which work it is."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rsedge
from rsedge.runtimes.bundle.self_test import SelfTested
from rsedge.runtimes.inference.outputs import check_outputs
from rsedge.runtimes.inference.scene_run import SceneRun
from rsedge.runtimes.inference.tiles import Scene
from rsedge.runtimes.inference.works import table
from rsedge.runtimes.inference.works.arrays import Array
from rsedge.runtimes.inference.works.base import Call, Evaluation, Labels, Reader, SceneInference
from rsedge.runtimes.inference.works.maps import MapInference
from rsedge.runtimes.inference.works.table import Work, heeding, unheeded
from tests.runtimes import tiny_models as tiny

ROOT = Path(__file__).parents[3]
SPEC = tiny.spec()


class ShareInference(SceneInference):
    """The share of a scene that is of each class, as JSON."""

    def check(self, call: Call, reader: Reader, output: Path) -> None:
        check_outputs([output])

    def write_scene(self, call: Call, session: SelfTested, reader: Reader, output: Path) -> dict[str, Any]:
        shares = self.answer(call, session, reader, SceneRun())
        output.write_text(json.dumps(shares.tolist()))
        return {"output": str(output), "shares": shares.tolist()}

    def answer(self, call: Call, session: SelfTested, scene: Scene, run: SceneRun) -> Array:
        classes = MapInference().answer(call, session, scene, run)
        return np.bincount(classes[classes != 255], minlength=len(call.bundle.manifest.classes)) / classes.size

    def text(self, record: dict[str, Any]) -> str:
        return f"{len(record['shares'])} shares"


class ShareEvaluation(Evaluation):
    """Largest difference from shares in a JSON file."""

    def compare(self, call: Call, session: SelfTested, reader: Reader, labels: Labels) -> dict[str, Any]:
        found = ShareInference().answer(call, session, reader, SceneRun(strict=True))
        return {"difference": float(np.abs(found - json.loads(labels.path.read_text())).max())}

    def text(self, record: dict[str, Any]) -> str:
        return f"differs by {record['difference']:.3f}"


SHARES = Work(
    "shares", "shares of classes", lambda manifest, source: manifest.task == "segmentation",
    f"{__name__}:{ShareInference.__name__}", f"{__name__}:{ShareEvaluation.__name__}", frozenset({"bands", "hint", "threads"}),
)  # fmt: skip


def test_a_row_and_a_module_are_a_new_work(
    monkeypatch: pytest.MonkeyPatch,
    bundle: Callable[..., Path],
    cli: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(table, "WORKS", (SHARES, *table.WORKS))
    image = tiny.random_scene(SPEC, 40, 40)
    scene, made = tiny.write_scene(tmp_path / "scene.tif", image, tiny.NAMES), bundle()
    with rsedge.load(made) as opened:
        found = opened.predict(image)
        assert found.shape == (len(opened.classes),) and 0.5 < found.sum() <= 1
        assert np.array_equal(opened.predict(np.stack([image, image]))[1], found)
        record = opened.predict(scene, output=tmp_path / "shares.json")
        assert record["shares"] == found.tolist() and record["self_test"] and "verdict" in record
        with pytest.raises(rsedge.RequestError, match="overlap would be ignored, as this gives shares of classes"):
            opened.predict(scene, overlap=4)
        assert opened.evaluate(scene, tmp_path / "shares.json")["difference"] == 0
    code, text, _ = cli("infer", made, scene, "-o", tmp_path / "again.json")
    assert (code, text.strip()) == (0, f"{len(found)} shares") and (tmp_path / "again.json").is_file()
    code, text, _ = cli("evaluate", made, scene, tmp_path / "again.json")
    assert (code, text.strip()) == (0, "differs by 0.000")
    code, text, _ = cli("infer", made, scene, "-o", tmp_path / "p.json", "--overlap", "4", "--json")
    assert code == 2 and "this gives shares of classes" in json.loads(text)["error"]


def test_every_row_names_what_there_is() -> None:
    for row in table.WORKS:
        assert isinstance(row.inference(), table._named(row.infers))
        assert row.evaluates is None or issubclass(table._named(row.evaluates), Evaluation)
        assert (row.evaluates is None) is bool(row.gives)


def test_an_option_that_no_row_lists_is_for_all() -> None:
    assert heeding("self_test") == table.WORKS
    maps = table.WORKS[0]
    assert unheeded(maps, ["overlap", "prompt", "self_test"]) == ["prompt"]


def names_of_works(path: Path) -> list[str]:
    """Where a module compares something with a work's name, or looks one up by it."""
    names, found = {work.name for work in table.WORKS}, []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Compare):
            texts = {inner.value for inner in ast.walk(node) if isinstance(inner, ast.Constant)}
            found += [f"{path.name}:{node.lineno}"] * bool(texts & names)
    return found


def test_nobody_asks_which_work_it_is() -> None:
    asking = [
        ROOT / "rsedge/flight.py",
        *(ROOT / "rsedge/cli").glob("*.py"),
        *(ROOT / "runtimes/inference").rglob("*.py"),
    ]
    assert len(asking) > 40
    assert not [place for path in sorted(asking) for place in names_of_works(path)]
