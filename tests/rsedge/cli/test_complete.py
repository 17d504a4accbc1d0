"""What the shell completes, by the completion functions and by the shell's own protocol."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rsedge.cli import complete
from rsedge.cli.sources import source_names
from rsedge.recipe.reading import load_recipe
from rsedge.runtimes.bundle.manifest import Target
from rsedge.stages.table import stage_names


def names(found: complete.Found) -> list[str]:
    return [name for name, _ in found]


def test_teachers_students_sources_and_devices() -> None:
    assert "ukis-csmask-6b-l1c" in names(complete.teachers("ukis"))
    assert names(complete.teachers("tim")) == ["timm:"]
    assert "timm:" not in names(complete.zoo_teachers(""))
    assert names(complete.students("slim-u")) == ["slim-unet", "slim-upscaler"]
    assert "auto" in names(complete.students(""))
    assert "torchgeo:eurosat" in names(source_names("torchgeo:e"))
    assert names(complete.devices("raspberry-pi-5")) == ["raspberry-pi-5"]
    assert names(complete.schema_kinds("m")) == ["mission"]


def test_targets_are_targets_one_after_the_other() -> None:
    found = names(complete.targets(""))
    assert "openvino-cpu-int8" in found
    assert all(Target.parse(name) for name in found)
    assert "openvino-cpu-f32,tensorrt-jetson-orin-nano-8gb-fp16" in names(
        complete.targets("openvino-cpu-f32,tensorrt-j")
    )


def test_recipes_are_ready_ones_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/a.yaml").touch()
    (tmp_path / "mine/a.txt").touch()
    assert "quickstart" in names(complete.recipes(""))
    assert names(complete.recipes("mi")) == ["mine/"]
    assert names(complete.recipes("mine/")) == ["mine/a.yaml"]


def test_runs_are_folders_with_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("runs/a/report.json", "runs/half/recipe.resolved.yaml", "elsewhere/b/report.json"):
        Path(path).parent.mkdir(parents=True)
        Path(path).touch()
    assert names(complete.runs("")) == ["runs/a", "elsewhere/", "runs/"]
    assert names(complete.runs("runs/")) == ["runs/a", "runs/half/"]
    assert names(complete.runs("elsewhere/b/")) == ["elsewhere/b/report.json"]
    assert set(names(complete.runs("/"))) == {f"/{p.name}/" for p in Path("/").iterdir() if p.is_dir()}


@pytest.mark.parametrize("recipe", ["quickstart", "crop-series", "nothing.yaml"])
def test_stages_are_those_of_the_recipe(recipe: str) -> None:
    context = cast(Any, SimpleNamespace(params={"recipe": recipe}))
    found = names(complete.stages(context, ""))
    if recipe == "nothing.yaml":
        assert "captions" in found
    else:
        assert found == stage_names(load_recipe(recipe))
    assert names(complete.stages(context, "quan")) == ["quantize"]


def test_the_shell_gets_them(tmp_path: Path) -> None:
    words = {"COMP_WORDS": "rsedge run quickstart --until pru", "COMP_CWORD": "4", "_RSEDGE_COMPLETE": "complete_bash"}
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'rsedge'; from rsedge.cli.main import app; app(prog_name='rsedge')"],
        env={**os.environ, **words}, capture_output=True, text=True, timeout=60, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout.split() == ["prune"], done.stderr
