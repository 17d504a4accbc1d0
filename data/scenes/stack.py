"""Several rasters on one grid as one: the assets of a STAC item that hold a contract's bands."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.band_names import name_bands, sensor_key
from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.objects import at_hand
from rsedge.data.scenes.file_bands import as_wanted
from rsedge.data.scenes.grids import check_same_grid
from rsedge.data.scenes.points import Points
from rsedge.data.scenes.raster import Raster, open_raster
from rsedge.data.scenes.raster_file import Array, Blocks, equals
from rsedge.data.scenes.stac import Asset, Item, item_of

_NO_JSON = ("nan", "inf", "-inf")
_SENSOR_FIELDS = ("constellation", "platform", "instruments", "mission")


class StackRaster:
    """The bands of some assets as one :class:`rsedge.data.scenes.raster_file.RasterFile`."""

    def __init__(self, item: Item, path: Path, assets: Sequence[Asset]) -> None:
        """Raises:
        RequestError: an asset cannot be opened, or lies on another grid than the first.
        """
        self.path, self.item = path, item
        self._files: list[Raster] = []
        try:
            self._files = [open_raster(at_hand(asset.path)) for asset in assets]
            first = self._files[0]
            for asset, file in zip(assets, self._files, strict=True):
                check_same_grid(file, asset.path, first, f"the assets of {item.id}")
                if len(asset.bands) not in (1, file.count):
                    raise RequestError(f"{asset.path}: has {file.count} bands, its item names {len(asset.bands)}")
        except BaseException:
            self.close()
            raise
        self._bands = [(file, band) for file in self._files for band in range(1, file.count + 1)]
        self._said = [
            asset.said_of(asset.bands[band - 1] if len(asset.bands) == file.count else {})
            for asset, file in zip(assets, self._files, strict=True)
            for band in range(1, file.count + 1)
        ]
        keys = [asset.key for asset, file in zip(assets, self._files, strict=True) for _ in range(file.count)]
        self.product, self.count = first.path, len(self._bands)
        self.height, self.width, self.crs, self.transform = first.height, first.width, first.crs, first.transform
        self.dtypes = tuple(file.dtypes[b - 1] for file, b in self._bands)
        self.colorinterp = tuple(file.colorinterp[b - 1] for file, b in self._bands)
        self.unread = first.unread
        self.descriptions: tuple[str | None, ...] = tuple(
            _name(said) or file.descriptions[b - 1] or key
            for said, (file, b), key in zip(self._said, self._bands, keys, strict=True)
        )
        self.nodatavals = tuple(_filled(file.nodatavals[b - 1], said.get("nodata")) for said, (file, b) in self._rows)
        bare = _sensor(item) != "sentinel-2"  # whose offsets catalogues leave in place once they are applied
        self.scales = tuple(self._unit(said, file.scales[b - 1], 1.0, "scale", bare) for said, (file, b) in self._rows)
        self.offsets = tuple(
            self._unit(said, file.offsets[b - 1], 0.0, "offset", bare) for said, (file, b) in self._rows
        )

    @property
    def _rows(self) -> list[tuple[Mapping[str, Any], tuple[Raster, int]]]:
        return list(zip(self._said, self._bands, strict=True))

    @staticmethod
    def _unit(said: Mapping[str, Any], own: float, usual: float, name: str, heeded: bool) -> float:
        """The file's own tag, else the item's."""
        value = said.get(name, said.get(f"raster:{name}"))
        return float(value) if heeded and own == usual and isinstance(value, int | float) else own

    def tags(self, band: int = 0, ns: str | None = None) -> dict[str, str]:
        """Of a band its file's and the item's wavelength; of all what the item says of the sensor."""
        if not band:
            said = {k: _text(self.item.properties[k]) for k in _SENSOR_FIELDS if k in self.item.properties}
            return said if ns is None else {}
        file, own = self._bands[band - 1]
        found, wave = file.tags(own, ns), _wavelength(self._said[band - 1])
        return found | ({"CENTRAL_WAVELENGTH_UM": f"{wave:g}"} if ns == "IMAGERY" and wave else {})

    def blocks(self, indices: Sequence[int]) -> Blocks:
        """As of the first file, with a pixel of every band."""
        stored = [self._bands[i - 1][0].blocks([self._bands[i - 1][1]]) for i in indices]
        return Blocks(stored[0].height, stored[0].width, sum(one.pixel_bytes for one in stored))

    def points(self) -> Points:
        """Those of the first."""
        return self._files[0].points()

    def gsd_m(self) -> float | None:
        """As of the first."""
        return self._files[0].gsd_m()

    def read(self, indices: Sequence[int], window: Any) -> Array:
        """Values [C, h, w] of 1-based bands; raises as :meth:`rsedge.data.scenes.raster.Raster.read`."""
        return np.concatenate([file.read([band], window) for file, band in (self._bands[i - 1] for i in indices)])

    def missing(
        self, indices: Sequence[int], window: Any, values: Array, alpha: Sequence[int]
    ) -> npt.NDArray[np.bool_]:
        """By each band's own file and its nodata value, which may be the item's, and alpha bands of 0."""
        together = np.stack([equals(v, self.nodatavals[i - 1]) for v, i in zip(values, indices, strict=True)])
        for k, (file, band) in enumerate(self._bands[i - 1] for i in indices):
            together[k] |= file.missing([band], window, values[k : k + 1], [])[0]
        if alpha:
            together |= (self.read(list(alpha), window) == 0).any(axis=0)
        return together

    def missing_anywhere(
        self, indices: Sequence[int], window: Any, values: Array, alpha: Sequence[int]
    ) -> npt.NDArray[np.bool_]:
        """As :meth:`missing`, of any of the bands, [h, w]."""
        return np.asarray(self.missing(indices, window, values, alpha).any(axis=0))

    def close(self) -> None:
        for file in self._files:
            file.close()


def open_item(path: Path, spec: InputSpec | None, sensor: str | None = None) -> StackRaster:
    """The assets of a STAC item that hold the contract's bands; all its assets without a contract.

    Raises:
        RequestError: no such item, a band that none of its assets holds, or assets on different grids.
    """
    item = item_of(path)
    assets = item.assets()
    if spec is None or (all(asset.bands == ({},) for asset in assets) and len(assets) == 1):
        return StackRaster(item, path, assets)
    said = [(asset.key, asset.said_of(band)) for asset in assets for band in asset.bands]
    written = [_name(band) or key for key, band in said]
    waves = [w and 1000 * w for w in (_wavelength(band) for _, band in said)]
    named = name_bands(written, sensor_key(sensor) if sensor else _sensor(item), spec.sensor, waves)
    names = iter(as_wanted(named, spec.common_names))
    held = [(asset, {next(names) for _ in asset.bands}) for asset in assets]
    wanted = {name.lower() for name in (*spec.common_names, *spec.band_names)}
    chosen = [asset for asset, own in held if own & wanted]
    if not chosen:
        shown = ", ".join(f"{asset.key} ({', '.join(sorted(own))})" for asset, own in held[:20])
        raise RequestError(
            f"{path}: no asset of item {item.id} holds a band of the model ({', '.join(spec.band_names)}); it has {shown}"
        )
    return StackRaster(item, path, chosen)


def _name(band: Mapping[str, Any]) -> str:
    """A band's name with the common one beside it, where that tells it from its neighbours."""
    name, common = (str(band.get(key) or "") for key in ("name", "common_name"))
    common = common or str(band.get("eo:common_name") or "")
    if not common or common.lower() == "rededge" or common.lower() == name.lower():
        return name or common
    return f"{name} ({common})" if name else common


def _wavelength(band: Mapping[str, Any]) -> float | None:
    """Micrometres."""
    value = band.get("center_wavelength", band.get("eo:center_wavelength"))
    return float(value) if isinstance(value, int | float) and 0.1 < value < 100 else None


def _sensor(item: Item) -> str | None:
    return sensor_key(" ".join(_text(item.properties.get(k, "")) for k in _SENSOR_FIELDS))


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _filled(own: float | None, said: Any) -> float | None:
    """The file's nodata value, else the item's: a number, or the text of one that JSON does not have."""
    if own is not None or said is None or isinstance(said, bool):
        return own
    if isinstance(said, str) and said.lower() not in _NO_JSON:
        return own
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        return float(said)
    return own
