"""STAC files of strangers: what is too much, or in a circle, is said and not cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rsedge.data.errors import RequestError
from rsedge.data.scenes import stac


def catalog(path: Path, *links: tuple[str, str]) -> Path:
    path.write_text(json.dumps({"type": "Catalog", "links": [{"rel": rel, "href": href} for rel, href in links]}))
    return path


def item(name: str) -> dict[str, Any]:
    return {"type": "Feature", "id": name, "properties": {}, "assets": {}}


def test_too_many_items_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one file or by links; they had been cut without a word."""
    monkeypatch.setattr(stac, "_MOST_ITEMS", 2)
    path = tmp_path / "items.json"
    for count in (2, 3):
        path.write_text(json.dumps({"type": "FeatureCollection", "features": [item(str(i)) for i in range(count)]}))
        for i in range(count):
            (tmp_path / f"{i}.json").write_text(json.dumps(item(str(i))))
        for file in (path, catalog(tmp_path / "c.json", *(("item", f"{i}.json") for i in range(count)))):
            if count == 2:
                assert len(stac.items_in(file)) == 2
                continue
            with pytest.raises(RequestError, match="holds more than 2 items"):
                stac.items_in(file)


def test_catalogs_in_a_circle_are_refused_at_once(tmp_path: Path) -> None:
    """Two that link to each other many times had been read 60^8 times."""
    catalog(tmp_path / "b.json", *[("child", "./a.json")] * 60)
    with pytest.raises(RequestError, match="twice, or in a circle"):
        stac.items_in(catalog(tmp_path / "a.json", *[("child", "b.json")] * 60))


def test_catalogs_too_deep_are_refused(tmp_path: Path) -> None:
    for depth in range(10):
        catalog(tmp_path / f"{depth}.json", ("child", f"{depth + 1}.json"))
    with pytest.raises(RequestError, match="deeper than 8 catalogs"):
        stac.items_in(tmp_path / "0.json")
