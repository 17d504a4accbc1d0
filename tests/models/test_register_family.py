"""A family that a program registers, as docs/own-teachers.md has it: teachers and recipes know it, a change of its code is seen."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import rsedge
from rsedge.data.errors import RequestError
from rsedge.models.families import Family, family, register_family, unregister_family
from rsedge.models.students.itself import rebuild
from rsedge.models.teachers import load_teacher, sniff
from rsedge.models.zoo import teacher_row

DOCUMENT = Path(__file__).parents[2] / "docs/own-teachers.md"
NAME = "our_places"
PLAIN = Family(build=nn.Identity)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The module of the document, imported."""
    (code,) = re.findall(r"```py\n(# our_places\.py\n.*?)```", DOCUMENT.read_text(), re.DOTALL)
    (tmp_path / "our_places.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # edits within a second are seen
    importlib.import_module(NAME)
    yield tmp_path
    forget()


def forget() -> None:
    unregister_family(NAME)
    sys.modules.pop(NAME, None)


def keys(folder: Path) -> dict[str, str]:
    return {p.parent.name: json.loads(p.read_text())["key"] for p in folder.glob("stages/*/record.json")}


def test_a_recipe_runs_on_it_and_sees_its_code_change(program: Path) -> None:
    places = np.random.default_rng(0).uniform((-60, -170), (60, 170), (120, 2))
    (program / "places.csv").write_text("\n".join(["lat,lon", *(f"{a:.3f},{b:.3f}" for a, b in places)]) + "\n")
    torch.manual_seed(0)
    net = family(NAME).build(**teacher_row("our-places").arch)
    weights = program / "our.safetensors"
    save_file(net.state_dict(), weights)
    teacher, x = load_teacher("our-places", weights), torch.tensor([[47.5, 19.0]])
    assert torch.equal(teacher(x), net(x)) and sniff(weights) == ["our-places"]
    assert [f.name for f in teacher.features] == ["net.0", "net.2"]
    assert sum(p.numel() for p in net.parameters()) == teacher.spec.params
    recipe = {
        "name": "places", "threads": 1, "teacher": {"name": "our-places", "checkpoint": str(weights)},
        "data": {"samples": {"source": "places.csv", "root": str(program), "options": {
                     "bands": {"latitude": "lat", "longitude": "lon"}}},
                 "calibration": {"tiles": 8}, "augment": {"jitter_deg": [1.0]}},
        "student": {"name": "teacher"}, "steps": [{"distill": {"steps": 0, "views": 16}}],
        "targets": ["openvino-cpu-f32"], "gates": [{"metric": "cosine", "min": 0.999}],
    }  # fmt: skip
    folder = program / "run"
    rsedge.run(recipe, run_dir=folder, quiet=True, until="distill")
    first, made = keys(folder), (folder / "stages/distill/record.json").stat().st_mtime_ns
    rsedge.run(recipe, run_dir=folder, quiet=True, until="distill")
    assert keys(folder) == first and (folder / "stages/distill/record.json").stat().st_mtime_ns == made

    forget()
    (program / "our_places.py").write_text((program / "our_places.py").read_text().replace("nn.ReLU", "nn.Tanh"))
    importlib.invalidate_caches()
    importlib.import_module(NAME)
    rsedge.run(
        recipe, run_dir=folder, quiet=True, until="data"
    )  # whose key shares with all others what tells of the code
    assert keys(folder)["data"] != first["data"]

    forget()
    structure = json.loads(next(folder.rglob("structure.json")).read_text())
    assert NAME in json.dumps(structure)
    with pytest.raises(RequestError, match="'our_places': rsedge has none of that name; register yours first"):
        rebuild(NAME, {})
    with pytest.raises(RequestError, match="teacher 'our-places' is unknown"):
        load_teacher("our-places", weights)


def test_what_lies_beside_its_module_is_part_of_its_code(program: Path) -> None:
    from rsedge.models.families import registered_code

    before = registered_code(NAME)
    (program / "our_layers.py").write_text("WIDTH = 8")
    assert registered_code(NAME) == before  # nobody loaded it
    importlib.import_module("our_layers")
    try:
        loaded = registered_code(NAME)
        (program / "our_layers.py").write_text("WIDTH = 16")
        assert len({before, loaded, registered_code(NAME)}) == 3
    finally:
        del sys.modules["our_layers"]
    assert registered_code("vit") is None


def local() -> Callable[..., nn.Module]:
    return lambda: nn.Identity()


@pytest.mark.parametrize(
    ("name", "own", "rows", "message"),
    [
        ("vit", PLAIN, [], "family 'vit' is there already"),
        ("timm", PLAIN, [], "family 'timm' is there already"),
        (NAME, PLAIN, [], f"family '{NAME}' is there already"),
        ("Our Net", PLAIN, [], "small letters"),
        ("mine", Family(build=local()), [], "no function or class at the top of a module"),
        ("mine", Family(build=partial(nn.Linear, 2)), [], "no function or class at the top of a module"),
        ("mine", PLAIN, [{"name": "mine"}], r"rows\[0\]: .*title: Field required"),
        ("mine", PLAIN, ["our-places"], r"rows\[0\]: 'our-places' is the name of a teacher already"),
        ("mine", PLAIN, ["vit"], r"rows\[0\]: family is 'vit'; leave it out"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_and_leaves_nothing(
    program: Path, name: str, own: Family, rows: list[Any], message: str
) -> None:
    known = teacher_row("our-places")
    family_of = {"our-places": "mine", "vit": "vit"}
    given = [known.model_copy(update={"family": family_of[r]}) if isinstance(r, str) else r for r in rows]
    with pytest.raises(RequestError, match=message):
        register_family(name, own, given)
    assert teacher_row("our-places") == known
    if name == "mine":
        with pytest.raises(RequestError, match="rsedge has none of that name"):
            family(name)
