"""STAC on this machine's disk: items, collections and item collections, and which file holds which band.

Nothing is fetched: an asset elsewhere is refused by its address. An item of several in one file is named ``items.json#ID``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from rsedge.data.errors import RequestError
from rsedge.data.json_text import read_object
from rsedge.data.objects import at_hand, is_address

SUFFIXES = (".json", ".geojson")
_MOST_DEPTH, _MOST_ITEMS = 8, 100_000
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_ROLES_ASIDE = {"thumbnail", "overview", "visual", "metadata"}
"""Assets of these roles show or describe a scene, and are not its measurements."""
_OF_ALL_BANDS = ("nodata", "raster:scale", "raster:offset", "eo:common_name", "eo:center_wavelength")
_SEVERAL = {"Collection", "Catalog", "FeatureCollection"}


@dataclass(frozen=True)
class Asset:
    """One file of an item: its key, its bands as the item describes them ({} where it does not), and all that is said of it."""

    key: str
    path: Path
    bands: tuple[Mapping[str, Any], ...]
    fields: Mapping[str, Any]

    def said_of(self, band: Mapping[str, Any]) -> Mapping[str, Any]:
        """What is said of a band: by itself, else of the whole asset (STAC 1.1)."""
        return {k: self.fields[k] for k in _OF_ALL_BANDS if k in self.fields} | dict(band)


@dataclass(frozen=True)
class Item:
    """One item: ``file`` holds it, ``content`` is all it says."""

    id: str
    file: Path
    content: Mapping[str, Any]

    @property
    def properties(self) -> Mapping[str, Any]:
        found = self.content.get("properties")
        return found if isinstance(found, dict) else {}

    def assets(self) -> list[Asset]:
        """The GeoTIFFs of its measurements.

        Raises:
            RequestError: none, or one that lies elsewhere.
        """
        known = self.content.get("assets")
        rows = {k: v for k, v in known.items() if isinstance(v, dict)} if isinstance(known, dict) else {}
        rasters = {k: v for k, v in rows.items() if _is_raster(v)}
        if not rasters:
            raise RequestError(
                f"{self.file}: item {self.id} has no asset that is a GeoTIFF; assets: {', '.join(rows) or 'none'}"
            )
        own = {k: v for k, v in rasters.items() if not _ROLES_ASIDE & set(_texts(v.get("roles")))} or rasters
        return [Asset(k, self._path(k, v), _bands(v), v) for k, v in own.items()]

    def _path(self, key: str, fields: Mapping[str, Any]) -> Path:
        href = str(fields.get("href", ""))
        return _local(href, self.file, f"asset '{key}' of item {self.id}")


def names_item(path: Path) -> bool:
    """Whether a path is one of a JSON file, or of an item in one."""
    return _split(path)[0].suffix.lower() in SUFFIXES


def items_in(path: Path) -> list[Item]:
    """Items of a file, in its order: an item itself, those of an item collection, or those that a collection or catalog links to.

    Raises:
        RequestError: it is no STAC, holds too many items, an id stands twice, or a link leads elsewhere or in a circle.
    """
    found = list(islice(_walk(path, _MOST_DEPTH, set()), _MOST_ITEMS + 1))
    if len(found) > _MOST_ITEMS:
        raise RequestError(f"{path}: holds more than {_MOST_ITEMS} items; give its parts one by one")
    twice = [one for one, count in Counter(item.id for item in found).items() if count > 1]
    if twice:
        raise RequestError(
            f"{path}: item id '{twice[0]}' stands there twice; ids name the outputs, so they must differ"
        )
    if not found:
        raise RequestError(f"{path}: holds no items")
    return found


def item_of(path: Path) -> Item:
    """The item that a path names: ``item.json``, or ``items.json#ID``.

    Raises:
        RequestError: as :func:`items_in`; there is none of that id, or there are several and none is named.
    """
    file, wanted = _split(path)
    found = items_in(file)
    if wanted is not None:
        found = [item for item in found if item.id == wanted]
        if not found:
            raise RequestError(f"{file}: has no item of the id '{wanted}'")
    if len(found) > 1:
        shown = ", ".join(item.id for item in found[:5])
        raise RequestError(f"{path}: holds {len(found)} items ({shown}, ...); name one, e.g. {path}#{found[0].id}")
    return found[0]


def item_files(path: Path) -> Sequence[Path]:
    """The item's own file, then its assets'."""
    item = item_of(path)
    return [item.file, *dict.fromkeys(asset.path for asset in item.assets())]


def _split(path: Path) -> tuple[Path, str | None]:
    text = str(path)
    if "#" not in text or path.exists():
        return path, None
    file, _, wanted = text.partition("#")
    return Path(file), wanted


def _walk(path: Path, depth: int, walked: set[Path]) -> Iterator[Item]:
    content = read_object(at_hand(path))
    kind = content.get("type")
    if kind == "Feature":
        yield _item(content, path)
        return
    if kind not in _SEVERAL:
        raise RequestError(f"{path}: is no STAC item, collection or item collection (its type is {kind!r})")
    features = content.get("features")
    if isinstance(features, list):
        yield from (_item(one, path) for one in features)
        return
    if path.resolve() in walked:
        raise RequestError(f"{path}: links lead there twice, or in a circle; name its parts instead")
    walked.add(path.resolve())
    for rel, href in _links(content):
        if rel not in ("item", "child"):
            continue
        if not depth:
            raise RequestError(f"{path}: links lead deeper than {_MOST_DEPTH} catalogs")
        yield from _walk(_local(href, path, f"a link to its {rel}"), depth - 1, walked)


def _links(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    links = content.get("links")
    for one in links if isinstance(links, list) else ():
        if isinstance(one, dict):
            yield str(one.get("rel", "")), str(one.get("href", ""))


def _item(content: Any, path: Path) -> Item:
    if not isinstance(content, dict) or not isinstance(content.get("id"), str) or not content["id"]:
        raise RequestError(f"{path}: a feature without an id is no STAC item; give each one")
    return Item(content["id"], path, content)


def _local(href: str, file: Path, what: str) -> Path:
    """The file or object of an address, relative to what it stands in."""
    text = href if is_address(href) else unquote(href.removeprefix("file://"))
    if is_address(text):
        return Path(text)
    if not text or _ADDRESS.match(text) or text.startswith("/vsi"):
        raise RequestError(
            f"{file}: {what} lies elsewhere ({href or 'no href'}); nothing is fetched by that: download it and write its path there"
        )
    return file.parent / text


def _is_raster(fields: Mapping[str, Any]) -> bool:
    media, href = str(fields.get("type", "")), str(fields.get("href", "")).lower()
    return media.startswith("image/tiff") or href.endswith((".tif", ".tiff"))


def _bands(fields: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """By STAC 1.1 (``bands``) or the extensions of 1.0 (``eo:bands``, ``raster:bands``), one dictionary a band."""
    lists = [fields.get(name) for name in ("bands", "eo:bands", "raster:bands")]
    known = [[b for b in rows if isinstance(b, dict)] for rows in lists if isinstance(rows, list)]
    count = max(map(len, known), default=1)
    merged: list[dict[str, Any]] = [{} for _ in range(count)]
    for rows in known:
        for band, row in zip(merged, rows, strict=False):
            band.update({k: v for k, v in row.items() if k not in band})
    return tuple(merged)


def _texts(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []
