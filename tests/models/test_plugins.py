"""Teachers of another package: a family and its rows, found by an entry point."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FAMILY = """
from torch import nn
from rsedge.models.families import Family
from rsedge.models.features import Feature


def build(bands, classes):
    return nn.Sequential(nn.Conv2d(bands, classes, 1), nn.Identity())


def features(net, shape):
    return (Feature("0", channels=net[0].out_channels, layout="NCHW", stride=1),)


FAMILY = Family(build=build, features=features)
"""
ROWS = """
family: toy
task: segmentation
classes: [land, water]
licence: MIT
source: a test
published: code
rows:
  - name: toy-water
    title: Toy water
    params: 6
    arch: {bands: 2, classes: 2}
    input: {tile: 32, bands: [green, nir], scale: 1.0e-4}
"""
ASK = """
import sys, torch
from safetensors.torch import save_file
from rsedge.cache.stage import tool_versions
from rsedge.models.structure import load_model, save_model
from rsedge.models.teachers import load_teacher, sniff
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Conv2d(2, 2, 1), torch.nn.Identity())
save_file(net.state_dict(), sys.argv[1] + "/toy.safetensors")
teacher = load_teacher("toy-water", sys.argv[1] + "/toy.safetensors")
x = torch.rand(1, 2, 8, 8)
assert torch.equal(teacher(x), net(x)) and teacher.spec.family == "toy_lab.teachers.toy"
assert tool_versions()["toy-lab"] == "2.1"
assert [(f.name, f.stride, f.channels) for f in teacher.features] == [("net.0", 1, 2)]
print("fine")
"""


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    package = tmp_path / "toy_lab/teachers"
    (package / "rows").mkdir(parents=True)
    (tmp_path / "toy_lab/__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    (package / "toy.py").write_text(FAMILY)
    (package / "rows/toy.yaml").write_text(ROWS)
    dist = tmp_path / "toy_lab-2.1.dist-info"
    dist.mkdir()
    (dist / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-lab\nVersion: 2.1\n")
    (dist / "entry_points.txt").write_text("[rsedge.teachers]\ntoy = toy_lab.teachers\n")
    return tmp_path


def run(lab: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(lab)}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, timeout=120)


def test_a_family_of_another_package_loads_its_checkpoint(lab: Path) -> None:
    done = run(lab, "-c", ASK, str(lab))
    assert done.stdout.strip() == "fine", done.stderr


def test_its_rows_stand_in_the_list(lab: Path) -> None:
    done = run(lab, "-m", "rsedge.cli", "teachers", "toy-water")
    assert done.returncode == 0 and "Toy water (toy-water): segmentation, family toy_lab.teachers.toy" in done.stdout, (
        done.stderr
    )
    assert "net.0: stride 1, 2 channels, NCHW" in done.stdout


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        (
            "toy_lab/teachers/rows/toy.yaml",
            ROWS.replace("toy-water", "ukis-csmask-4b-l2a"),
            "name of a teacher of rsedge already",
        ),
        ("toy_lab/teachers/rows/toy.yaml", "rows: [{name: x}]", "x: "),
        ("toy_lab/teachers/rows/toy.yaml", "[", "toy.yaml"),
        ("toy_lab/teachers/__init__.py", "import not_there", "cannot be imported: No module named 'not_there'"),
        ("toy_lab/teachers/__init__.py", "raise OSError('no disk')", "cannot be imported: no disk"),
        ("toy_lab/teachers/__init__.py", "def (", "cannot be imported: invalid syntax"),
    ],
)
def test_what_is_wrong_with_it_is_said_with_its_name(lab: Path, file: str, content: str, said: str) -> None:
    (lab / file).write_text(content)
    done = run(lab, "-m", "rsedge.cli", "teachers", "toy-water")
    assert done.returncode == 2 and "teachers' package 'toy_lab.teachers'" in done.stderr and said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_saved_model_imports_no_module_that_is_no_package_of_teachers(lab: Path) -> None:
    (lab / "planted.py").write_text("print('ran')")
    (lab / "planted_too").mkdir()
    (lab / "planted_too/__init__.py").write_text("print('ran')")
    ask = "from rsedge.models.families import family\nfamily('planted_too.toy')"
    done = run(lab, "-c", ask)
    assert "is no installed package of teachers" in done.stderr and "ran" not in done.stdout
