"""``rsedge students`` lists the whole catalogue."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from rsedge.cli.main import app
from rsedge.models.students import CATALOGUE


def test_every_student_is_listed() -> None:
    runner = CliRunner()
    rows = json.loads(runner.invoke(app, ["students", "--json"]).stdout)["students"]
    assert [r["name"] for r in rows] == list(CATALOGUE)
    assert next(r for r in rows if r["name"] == "smp-unet")["needs"] == ["encoder"]
    text = runner.invoke(app, ["students"]).stdout
    assert all(name in text for name in CATALOGUE)
