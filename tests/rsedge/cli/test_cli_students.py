"""``rsedge students`` lists the whole catalogue and shows what each can be set to."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from rsedge.cli.main import app
from rsedge.data.errors import RequestError
from rsedge.models.students import CATALOGUE, build_student
from rsedge.models.students.options import student_options


def test_every_student_is_listed() -> None:
    runner = CliRunner()
    rows = json.loads(runner.invoke(app, ["students", "--json"]).stdout)["students"]
    assert [r["name"] for r in rows] == list(CATALOGUE)
    assert next(r for r in rows if r["name"] == "smp-unet")["needs"] == ["encoder"]
    text = runner.invoke(app, ["students"]).stdout
    assert all(name in text for name in CATALOGUE)


def test_options_are_those_of_the_builder_and_build_the_student() -> None:
    options = {o.name: o for o in student_options("slim-unet")}
    assert options["upsample"].takes == "bilinear or shuffle" and options["encoder"].default == [32, 48, 64, 96]
    assert [o.name for o in student_options("smp-unet") if o.needed] == ["encoder"]
    assert [o.name for o in student_options("narrow-copy")] == ["arch"] and not student_options("teacher")
    defaults = {name: option.default for name, option in options.items()}
    build_student("slim-unet", {"bands": 3, "classes": 2, **defaults})
    for entry in CATALOGUE.values():
        found = student_options(entry.name)
        assert {o.name for o in found if o.needed} == set(entry.needs)
        assert not {o.name for o in found} & set(entry.arguments)


def test_one_student_is_shown_with_its_options() -> None:
    runner = CliRunner()
    text = runner.invoke(app, ["students", "slim-unet"]).stdout
    assert "upsample" in text and "student: {name: slim-unet, stem: 16" in text and "Raises" not in text
    shown = json.loads(runner.invoke(app, ["students", "smp-unet", "--json"]).stdout)
    assert shown["options"][0] == {"name": "encoder", "takes": "text", "default": None, "needed": True}
    with pytest.raises(RequestError, match="nearest: 'slim-unet'"):
        runner.invoke(app, ["students", "slim-unit"], catch_exceptions=False)
