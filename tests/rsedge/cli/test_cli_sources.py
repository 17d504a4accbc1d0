"""``rsedge sources``: every source that a loader takes is listed, with what a user needs to find its files."""

from __future__ import annotations

import json

import pytest

from rsedge.cli import main as cli
from rsedge.cli.sources import entries
from rsedge.data.sets.sample_sources import SAMPLE_SOURCES
from rsedge.data.sets.scene_sources import CATALOGUE


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = cli.run_app(arguments)
    out, err = capsys.readouterr()
    return code, out, err


def test_all_that_loaders_take_is_listed_once(capsys: pytest.CaptureFixture[str]) -> None:
    names = [entry.name for entry in entries()]
    assert sorted(names) == sorted([*CATALOGUE, *SAMPLE_SOURCES])
    code, out, _ = run(["sources"], capsys)
    assert code == 0 and all(name in out for name in names)
    code, out, _ = run(["sources", "--json"], capsys)
    rows = json.loads(out)["sources"]
    assert code == 0 and [row["name"] for row in rows] == names
    assert all(row["bands"] and row["licence"] and row["where"] for row in rows)


def test_one_source_is_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(["sources", "torchgeo:oscd"], capsys)
    assert code == 0
    for part in ("TCHW", "10 m", "nir08", "no change; change", "Daudt", "Labels", "give tile", "CC BY-NC-SA"):
        assert part in out
    code, out, _ = run(["sources", "worldcereal-crop", "--json"], capsys)
    assert json.loads(out)["where"].startswith("under RSEDGE_DATA: worldcereal/")
    code, _, err = run(["sources", "torchgeo:eurosta"], capsys)
    assert code == 2 and "nearest: 'torchgeo:eurosat'" in err
