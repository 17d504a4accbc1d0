"""Sentinel-2's offset: since processing baseline 04.00 products hold reflectance * 10000 + 1000.

Whether a file does is told by the product's metadata (``MTD_MSIL1C.xml``, ``MTD_MSIL2A.xml``) in its folder or above it in the
product's tree, by a STAC item beside it, or by its own tags. Where nothing tells, a floor of the values near 1000 shows it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.band_names import SENSORS, sensor_key
from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.json_text import read_json
from rsedge.data.scenes.units import Units, declared_units, unusable
from rsedge.data.wording import Wording

OFFSET_DN = -1000.0
QUANTIFICATION = 10000.0
# Reflectance that an offset of 1000 leaves nearly all pixels above, noise and overcorrected shadows included: without it one of a
# hundred is darker than that in some band wherever there is water, vegetation or shade.
_FLOOR, _FLOOR_QUANTILE, _FLOOR_SAMPLES = 0.075, 0.01, 1000
# No ground but snow and cloud; bare digital numbers of Landsat's Collection 2, read as reflectance * 10000, lie above it.
_BRIGHT_FLOOR, _BRIGHT_QUANTILE = 0.5, 0.001
_NEGATIVE, _NEGATIVE_SHARE = -0.02, 0.01
_LANDSAT = (("0.0000275", "-0.2", "surface"), ("0.00002", "-0.1", "top of atmosphere"))
_NUMBER = r"\d{1,12}(?:\.\d{1,12})?"
_FIRST_WITH_OFFSET = 4.0
_OWN_BASELINE = 99.0
"""What users' own processing writes, ``N9999``: it says nothing."""
_PRODUCT_FILES = ("MTD_MSIL1C.xml", "MTD_MSIL2A.xml")
_PRODUCT_DEPTH = 5
_MAX_ITEM_BYTES, _MAX_PRODUCT_BYTES = 4 << 20, 64 << 20
_MAX_ITEMS = 50
_LEAST_SCALE = 1e-9


@dataclass(frozen=True)
class Declared:
    """Reflectance = (DN + offset) / quantification, by the source's word."""

    source: str
    offset: float
    quantification: float = QUANTIFICATION


def declared(path: Path, tags: Mapping[str, str], sensor: str | None) -> Declared | None:
    """What is said of a file; None where nothing is. ``sensor`` is the file's, as far as it is known."""
    return _product(path) or _item(path) or _tags(tags, sensor)


def described_by(path: Path) -> list[Path]:
    """Files beside or above one that :func:`declared` looks at: with other ones it may say something else."""
    metadata = _product_file(path)
    return [*([] if metadata is None else [metadata]), *(file for file, _ in _own_items(path))]


def _product(path: Path) -> Declared | None:
    metadata = _product_file(path)
    return None if metadata is None else _product_says(metadata)


def _product_file(path: Path) -> Path | None:
    folders = [path.resolve().parent]
    for parent in path.resolve().parents[1:_PRODUCT_DEPTH]:
        if any(f.suffix.upper() == ".SAFE" or f.name == "GRANULE" for f in (*folders, parent)):
            folders.append(parent)
    places = (folder / name for folder in folders for name in _PRODUCT_FILES)
    return next((place for place in places if place.is_file()), None)


def _product_says(metadata: Path) -> Declared | None:
    if metadata.stat().st_size > _MAX_PRODUCT_BYTES:
        return None
    text = metadata.read_text(encoding="utf-8", errors="replace")
    offsets = {float(v) for v in re.findall(rf"<(?:RADIO|BOA)_ADD_OFFSET\b[^>]*>\s*(-?{_NUMBER})\s*<", text)}
    quantity = re.search(rf"<(?:BOA_)?QUANTIFICATION_VALUE\b[^>]*>\s*({_NUMBER})\s*<", text)
    baseline = re.search(r"<PROCESSING_BASELINE>\s*([\d.]+)\s*<", text)
    if len(offsets) > 1 or not (offsets or baseline):
        return None
    offset = offsets.pop() if offsets else _of_baseline(baseline[1] if baseline else None)
    if offset is None:
        return None
    found = float(quantity[1]) if quantity else QUANTIFICATION
    return None if unusable(1 / found if found else 0, offset) else Declared(metadata.name, offset, found)


def _item(path: Path) -> Declared | None:
    for file, item in _own_items(path):
        found = _item_says(file, item, _asset(item, path) or {})
        if found is not None:
            return found
    return None


def _own_items(path: Path) -> list[tuple[Path, Mapping[str, Any]]]:
    """Those that speak of the file; the only one there is does."""
    items = list(_items(path))
    own = [(file, item) for file, item in items if _asset(item, path) is not None or file.stem == path.stem]
    return own or (items if len(items) == 1 else [])


def _items(path: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """STAC items of Sentinel-2 in the file's folder."""
    for file in sorted(path.parent.glob("*.json"))[:_MAX_ITEMS]:
        if not file.is_file() or file.stat().st_size > _MAX_ITEM_BYTES:
            continue
        try:
            item = read_json(file)
        except RequestError:
            continue  # not JSON after all, so no item
        if isinstance(item, dict) and item.get("type") == "Feature" and isinstance(item.get("properties"), dict):
            named = " ".join(str(item["properties"].get(k, "")) for k in ("platform", "constellation"))
            if sensor_key(named) == "sentinel-2":
                yield file, item


def _asset(item: Mapping[str, Any], path: Path) -> Mapping[str, Any] | None:
    assets = item.get("assets")
    for asset in assets.values() if isinstance(assets, dict) else ():
        if isinstance(asset, dict) and Path(str(asset.get("href", ""))).name == path.name:
            return asset
    return None


def _item_says(file: Path, item: Mapping[str, Any], asset: Mapping[str, Any]) -> Declared | None:
    """The applied flag goes before the bands' offsets, which the same catalogue leaves in place."""
    properties = item["properties"]
    applied = properties.get("earthsearch:boa_offset_applied")
    baseline = _of_baseline(properties.get("s2:processing_baseline", properties.get("processing:version")))
    if applied is True:
        return Declared(f"{file.name} (offset applied)", 0.0)
    if applied is False:
        return Declared(file.name, OFFSET_DN if baseline is None else baseline)
    bands = asset.get("raster:bands") or asset.get("bands") or [asset]
    band = bands[0] if isinstance(bands, list) and bands and isinstance(bands[0], dict) else {}
    scale, offset = (band.get(k, band.get(f"raster:{k}")) for k in ("scale", "offset"))
    if (
        isinstance(scale, int | float)
        and isinstance(offset, int | float)
        and _LEAST_SCALE < scale < 1
        and abs(offset) < 1
    ):
        return Declared(file.name, round(offset / scale, 6), round(1 / scale, 6))
    return None if baseline is None else Declared(file.name, baseline)


def _tags(tags: Mapping[str, str], sensor: str | None) -> Declared | None:
    known = {k.lower().replace(":", "_"): str(v) for k, v in tags.items()}
    uri = known.get("product_uri", "")
    if sensor != "sentinel-2" and not re.match(r"S2[A-D]_", uri):
        return None
    if known.get("boa_offset_applied", known.get("earthsearch_boa_offset_applied", "")).lower() in ("true", "1", "yes"):
        return Declared("tags (offset applied)", 0.0)
    for key in ("boa_add_offset", "radio_add_offset"):
        if re.fullmatch(f"-?{_NUMBER}", known.get(key, "")):
            return Declared("tags", float(known[key]))
    named = re.search(r"_N(\d{4})_", uri)
    baseline = known.get("processing_baseline", known.get("s2_processing_baseline", named[1] if named else None))
    offset = _of_baseline(baseline)
    return None if offset is None else Declared("tags", offset)


def _of_baseline(baseline: Any) -> float | None:
    """The offset of a processing baseline such as ``04.00``; None where it says nothing."""
    try:
        number = float(str(baseline).lower().removeprefix("n"))
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    number = number / 100 if number >= 100 else number
    if number >= _OWN_BASELINE:
        return None
    return OFFSET_DN if number >= _FIRST_WITH_OFFSET else 0.0


def with_offset(units: Units, product: Declared | None, spec: InputSpec, dtype: str) -> Units:
    """Units of digital numbers that nothing else describes, by what the product says of its offset.

    Contracts of reflectance, and those whose models take DN as they were before the offset, are heeded.
    """
    if product is None or units.declared or not units.is_dn:
        return units
    if "reflectance" in spec.quantity:
        scale, offset = 1 / product.quantification, product.offset / product.quantification
    elif all((b.scale, b.offset) == (1.0, 0.0) for b in spec.bands):
        scale, offset = 1.0, product.offset
    else:
        return units
    n = spec.channels
    return replace(declared_units(product.source, (scale,) * n, (offset,) * n, dtype, spec), declared=False, fill=0.0)


class Floor:
    """The values' floor: whether an offset is still in them though nobody says so, or gone though somebody does."""

    def __init__(self, units: Units, product: Declared | None, spec: InputSpec, sensor: str | None) -> None:
        self.units, self.product, self.spec = units, product, spec
        self._like = _like_sentinel2(spec, sensor)
        bare = units.is_dn and not units.declared
        self._looked = "reflectance" in spec.quantity and (product is not None or self._like or bare)
        self._parts: list[npt.NDArray[np.float64]] = []

    def look(self, physical: npt.NDArray[Any]) -> None:
        """Adds physical values (C, N) of valid pixels."""
        if self._looked:
            self._parts.append(
                np.asarray(physical[:, :: max(1, physical.shape[1] // _FLOOR_SAMPLES)], dtype=np.float64)
            )

    def warnings(self, path: Path, wording: Wording) -> list[str]:
        """Raises:
        RequestError: the offset that is declared would make more than 1 % of the values negative by far.
        """
        if not self._parts:
            return []
        values = np.concatenate(self._parts, axis=1)
        as_it_is = wording.say("scale", "0.0001")
        shifted = f"{as_it_is} and {wording.say('offset', '-0.1')}"
        taken_off = any(o < 0 for o in self.units.offset) or any(b.offset < 0 for b in self.spec.bands)
        if self.product is None:
            low, lowest = np.quantile(values, (_FLOOR_QUANTILE, _BRIGHT_QUANTILE), axis=1).min(axis=1)
            if taken_off or low < _FLOOR:
                return []
            if lowest > _BRIGHT_FLOOR and not self.units.declared:
                return [self._bright(path, lowest, wording)]
            if not self._like:
                return []
            return [
                f"{path}: hardly any reflectance is below {low:.3f} in any band: since baseline 04.00 Sentinel-2 products "
                f"hold 1000 more than reflectance * 10000; if this is one, give {shifted}"
            ]
        shift = f"{self.product.source} says that {-self.product.offset:g} was added to the digital numbers"
        if self.product.offset >= 0 or (self.units.declared and taken_off):
            return []
        if not self.units.declared:
            below = float((values < _NEGATIVE).mean())
            if below <= _NEGATIVE_SHARE:
                return []
            raise RequestError(
                f"{path}: {shift}, but then {below:.0%} of the reflectance would be below {_NEGATIVE:g}: it is taken off "
                f"already; say so with {as_it_is}"
            )
        if float((values + self.product.offset / self.product.quantification < _NEGATIVE).mean()) > _NEGATIVE_SHARE:
            return []
        return [
            f"{path}: {shift} (Sentinel-2 since baseline 04.00), but the units given leave it in; if it is, give {shifted}"
        ]

    def _bright(self, path: Path, lowest: float, wording: Wording) -> str:
        ways = " or ".join(
            f"{wording.say('scale', scale)} and {wording.say('offset', offset)} ({level})"
            for scale, offset, level in _LANDSAT
        )
        return (
            f"{path}: no reflectance is below {lowest:.3f} in any band, read as {self.units.source}; unless all of it is cloud or "
            f"snow, its units are others: digital numbers of Landsat's Collection 2 take {ways}; to keep it as it is, give "
            f"{wording.say('scale', '0.0001')}"
        )


def _like_sentinel2(spec: InputSpec, sensor: str | None) -> bool:
    if "sentinel-2" in (spec.sensor, sensor):
        return True
    names = set(SENSORS["sentinel-2"].numbers.values())
    return sensor is None and set(spec.common_names) <= names and all(abs(b.scale - 1e-4) < 1e-9 for b in spec.bands)
