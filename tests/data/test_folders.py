"""Paths as people write them: whoever's home they begin with."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsedge.data.errors import RequestError
from rsedge.data.folders import user_path

ROOT = Path(__file__).parents[2]
ROOMS = ("rsedge", "reports", "devices", "export", "compress", "models", "runtimes", "data")


def test_home_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/a.tif") == tmp_path / "a.tif" and user_path("a/~b") == Path("a/~b")


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_a_home_of_nobody_is_refused_or_a_path(name: str) -> None:
    try:
        assert isinstance(user_path(f"~{name}/x"), Path)
    except RequestError as error:
        assert f"~{name}" in str(error) and "write the path out" in str(error)


def test_nobody_else_looks_for_homes() -> None:
    found = [f for room in ROOMS for f in (ROOT / room).rglob("*.py") if "expanduser(" in f.read_text(encoding="utf-8")]
    assert found == [ROOT / "data/folders.py"]
