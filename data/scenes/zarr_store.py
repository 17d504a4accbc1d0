"""Scenes in Zarr stores on this disk. Need no GDAL but the extra ``zarr``.

A store is an array, or a group with one array of three axes, its bands first or last by the names of its axes. Band names, place
and units go by attributes: ``band_names`` or ``long_name`` or a coordinate ``band``; ``transform``, ``spatial:transform``, a
``GeoTransform`` (of ``spatial_ref``) or coordinates ``x`` and ``y``; ``crs``, ``proj:code`` or ``spatial_ref`` (EPSG code or WKT);
``scale_factor`` and ``add_offset`` (one or one a band).

A store is a stranger's: of every array that is read, the codecs, the type and the bytes of a chunk are held against bounds before
any chunk is unpacked.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import lzma
import math
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rsedge.data.errors import IntegrityError, MissingCapability, RequestError, missing_extra
from rsedge.data.scenes.array_files import TYPES, each, slices, transform_of
from rsedge.data.scenes.crs_text import crs_text
from rsedge.data.scenes.raster_file import MOST_BLOCK_BYTES, MOST_EDGE, Array, Blocks, PlainRaster, Transform

# Others can run code of the store's choice, or need modules of their own.
_CODECS = {
    "blosc", "bytes", "crc32c", "gzip", "sharding_indexed", "transpose", "zstd", "zlib", "lz4", "shuffle", "delta", "bz2", "lzma",
}  # fmt: skip
_BANDS, _ROWS, _COLUMNS = (
    ("band", "bands", "channel", "wavelength", "c"),
    ("y", "lat", "latitude", "row"),
    ("x", "lon", "longitude", "col"),
)
_AXES_OF_XARRAY = "_ARRAY_DIMENSIONS"
_NUMBERS, _TEXTS = "iuf", "US"
_MOST_ARRAYS = 4096
_HOLDS_ARRAY = ("zarr.json", ".zarray")
_ERRORS = (
    OSError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, AttributeError, EOFError, AssertionError,
    BufferError, struct.error, zlib.error, lzma.LZMAError,
)  # fmt: skip
"""What zarr and its codecs raise of a store's content: they have no one class for it."""


class ZarrRaster(PlainRaster):
    """A scene of a Zarr store on this disk, read by windows."""

    def __init__(self, path: Path) -> None:
        """Raises:
        RequestError: no store, no one array of three axes, a field that makes no sense, or what is read of it is out of bounds;
            says what is there.
        MissingCapability: the extra is not installed, or has an older zarr.
        """
        zarr = _zarr(path)
        with _zarr_errors(path):
            store = zarr.open(str(path.absolute()), mode="r")
            name, array, others = _image_of(store, path)
            _check_stored(array, name, path)
            about = {**(dict(store.attrs) if name else {}), **dict(array.attrs)}
            self._array, self._bands_last = array, _has_bands_last(array)
            count, height, width = array.shape[-1:] + array.shape[:2] if self._bands_last else array.shape
            kind = str(np.dtype(array.dtype).newbyteorder("="))
            if kind not in TYPES:
                raise RequestError(f"{path}: holds {kind} values; rsedge reads {', '.join(TYPES)}")
            names = about.get("band_names") or about.get("long_name") or _texts(others, "band", count, path)
            super().__init__(
                path, (count, height, width), kind, names=[str(n) for n in names] if isinstance(names, list) else (),
                wavelengths_nm=[float(w) for w in about.get("wavelengths_nm", ())], nodata=_fill(array, about, path),
                scales=each(_floats(about, "scale_factor", path), count), offsets=each(_floats(about, "add_offset", path), count),
                crs=_crs(about, others, path), transform=_place(about, others, (height, width), path),
                tags={k: str(v) for k, v in about.items() if k in ("sensor", "platform", "constellation", "mission", "instrument")},
            )  # fmt: skip

    def blocks(self, indices: Sequence[int]) -> Blocks:
        """The chunks, with all bands of those that hold one of the bands."""
        height, width, bands = self._chunk()
        taken = len({(i - 1) // bands for i in indices}) * bands
        return Blocks(min(height, self.height), min(width, self.width), taken * np.dtype(self.dtypes[0]).itemsize)

    def values(self, indices: Sequence[int], window: Any) -> Array:
        rows, columns = slices(window)
        wanted = [i - 1 for i in indices]
        # A run of bands as a slice takes half the time of a list of them.
        run = wanted == list(range(wanted[0], wanted[0] + len(wanted)))
        bands = slice(wanted[0], wanted[0] + len(wanted)) if run else wanted
        with _zarr_errors(self.path, IntegrityError):
            if self._bands_last:
                found = np.moveaxis(np.asarray(self._array.oindex[rows, columns, bands]), -1, 0)
            else:
                found = np.asarray(self._array.oindex[bands, rows, columns])
            return np.ascontiguousarray(found, self.dtypes[0])

    def _chunk(self) -> tuple[int, int, int]:
        """Rows, columns and bands of a chunk."""
        sizes = _unpacked_at_once(self._array)
        return (sizes[0], sizes[1], sizes[2]) if self._bands_last else (sizes[1], sizes[2], sizes[0])


def open_zarr(path: Path, *_: Any) -> ZarrRaster:
    """Raises as :class:`ZarrRaster`."""
    return ZarrRaster(path)


def _zarr(path: Path) -> Any:
    try:
        import zarr
    except ModuleNotFoundError as error:
        raise missing_extra("zarr", "zarr", f"{path}: reading Zarr") from error
    version = str(zarr.__version__)
    if version.startswith(("0.", "1.", "2.", "3.0.")):
        raise MissingCapability(
            f"{path}: reading Zarr needs zarr 3.1 (Python 3.11 or newer), here is {version}. Install it: pip install 'rsedge[zarr]'"
        )
    return zarr


@contextlib.contextmanager
def _zarr_errors(path: Path, kind: type[RequestError] = RequestError) -> Iterator[None]:
    """What zarr raises of a store's content as ours."""
    try:
        yield
    except _ERRORS as error:
        raise kind(f"{path}: cannot be read as a Zarr store ({' '.join(str(error).split())[:300]})") from error


def _image_of(store: Any, path: Path) -> tuple[str, Any, Mapping[str, Any]]:
    """Name and array of the scene ('' where the store is that array), and the other arrays of its group."""
    if hasattr(store, "shape"):
        if len(store.shape) != 3:
            raise RequestError(
                f"{path}: is an array of {len(store.shape)} axes; a scene has three (bands, rows, columns)"
            )
        return "", store, {}
    arrays = _arrays(store, path)
    images = [name for name, array in arrays.items() if len(array.shape) == 3]
    if len(images) != 1:
        shown = ", ".join(f"'{n}' {a.shape}" for n, a in list(arrays.items())[:10])
        raise RequestError(f"{path}: a scene is a group with one array of three axes; it has {shown or 'none'}")
    return images[0], arrays[images[0]], {n: a for n, a in arrays.items() if n != images[0]}


def _arrays(group: Any, path: Path) -> dict[str, Any]:
    """Arrays of a group, one opened after the other: of all at once zarr leaves errors behind that are printed by themselves."""
    names = sorted(one.name for one in path.iterdir() if any((one / file).is_file() for file in _HOLDS_ARRAY))
    if len(names) > _MOST_ARRAYS:
        raise RequestError(f"{path}: has {len(names)} arrays; a scene's group has up to {_MOST_ARRAYS}")
    found = {name: group[name] for name in names}
    return {name: one for name, one in found.items() if hasattr(one, "shape")}


def _has_bands_last(array: Any) -> bool:
    named: Sequence[Any] = getattr(array.metadata, "dimension_names", None) or array.attrs.get(_AXES_OF_XARRAY) or ()
    return len(named) == 3 and str(named[2]).lower() in _BANDS


def _check_stored(array: Any, name: str, path: Path) -> None:
    """Holds how an array is stored against what is read, before any of its chunks is.

    Raises:
        RequestError: a codec that is not of the usual ones, or chunks out of bounds.
    """
    what = f"{path}: its array '{name}'" if name else str(path)
    for codec in _codec_names(array.metadata.to_dict()):
        if codec.lower() not in _CODECS:
            raise RequestError(
                f"{what} is stored with the codec '{codec}', which is not read; rsedge reads {', '.join(sorted(_CODECS))}"
            )
    size = math.prod(_unpacked_at_once(array)) * np.dtype(array.dtype).itemsize
    if size > MOST_BLOCK_BYTES:
        raise RequestError(
            f"{what} is stored in chunks of {size / 2**20:.0f} MiB, rsedge takes up to {MOST_BLOCK_BYTES >> 20}; store it in "
            "smaller ones"
        )


def _unpacked_at_once(array: Any) -> tuple[int, ...]:
    """Edges of what zarr unpacks for one value: a chunk, or the whole shard where that itself is packed once more."""
    whole = array.shards is not None and len(array.metadata.to_dict()["codecs"]) > 1
    return tuple(map(int, array.shards if whole else array.chunks))


def _codec_names(metadata: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    rows = [*(metadata.get("codecs") or ()), *(metadata.get("filters") or ()), metadata.get("compressor")]
    for row in rows:
        config = row if isinstance(row, Mapping) else getattr(row, "get_config", dict)()
        if name := config.get("name", config.get("id")):
            found.append(str(name).removeprefix("numcodecs."))
        inner = config.get("configuration")
        if isinstance(inner, Mapping):
            found += _codec_names({"codecs": [*(inner.get("codecs") or ()), *(inner.get("index_codecs") or ())]})
    return found


def _axis(arrays: Mapping[str, Any], name: str, length: int, kinds: str, path: Path) -> Array | None:
    """Values of a coordinate; None where there is none of one axis and these kinds of values.

    Raises:
        RequestError: it has another length than the scene's axis, or as :func:`_check_stored`.
    """
    array = arrays.get(name)
    if array is None or len(array.shape) != 1 or np.dtype(array.dtype).kind not in kinds:
        return None
    if array.shape[0] != length or length > MOST_EDGE:
        raise RequestError(f"{path}: its coordinate '{name}' has {array.shape[0]} values for {length} of the scene")
    if length * np.dtype(array.dtype).itemsize > MOST_BLOCK_BYTES:
        raise RequestError(
            f"{path}: its coordinate '{name}' holds more than {MOST_BLOCK_BYTES >> 20} MiB; write shorter texts"
        )
    _check_stored(array, name, path)
    return np.asarray(array[:])


def _texts(arrays: Mapping[str, Any], name: str, count: int, path: Path) -> list[str] | None:
    """A coordinate's texts, where it has them."""
    found = _axis(arrays, name, count, _TEXTS, path)
    return None if found is None else [one.decode() if isinstance(one, bytes) else str(one) for one in found]


def _floats(about: Mapping[str, Any], name: str, path: Path) -> list[float]:
    """One number of an attribute, or a list of them; none where there is no such attribute."""
    value = about.get(name)
    if value is None:
        return []
    rows = value if isinstance(value, list) else [value]
    if not all(isinstance(one, int | float) and math.isfinite(one) for one in rows):
        raise RequestError(f"{path}: its attribute '{name}' is {str(value)[:60]}; numbers are needed")
    return [float(one) for one in rows]


def _fill(array: Any, about: Mapping[str, Any], path: Path) -> float | None:
    """The nodata value, as xarray writes it: of floats as base64 of eight bytes, and in Zarr 2 as what empty chunks hold."""
    value = about.get("_FillValue", about.get("nodata"))
    if value is None and _AXES_OF_XARRAY in array.attrs and array.metadata.zarr_format == 2:
        value = array.metadata.fill_value
    if value is None:
        return None
    with contextlib.suppress(TypeError, ValueError):
        return float(value)
    with contextlib.suppress(TypeError, binascii.Error, struct.error):
        return float(struct.unpack("<d", base64.b64decode(value, validate=True))[0])
    raise RequestError(f"{path}: its nodata value is {str(value)[:60]}; a number is needed")


def _crs(about: Mapping[str, Any], arrays: Mapping[str, Any], path: Path) -> str | None:
    """The first system that is given."""
    mapping = dict(arrays["spatial_ref"].attrs) if "spatial_ref" in arrays else {}
    given = {name: about.get(name) for name in ("crs", "proj:code", "proj:epsg")}
    given |= {f"spatial_ref {name}": mapping.get(name) for name in ("epsg_code", "crs_wkt", "spatial_ref")}
    name, value = next(((n, v) for n, v in given.items() if v), ("", None))
    return None if value is None else crs_text(value, f"{path}: its attribute '{name}'")


def _place(about: Mapping[str, Any], arrays: Mapping[str, Any], shape: tuple[int, int], path: Path) -> Transform | None:
    given = about.get("transform", about.get("spatial:transform"))
    if isinstance(given, list):
        return transform_of([float(v) for v in given], path)
    mapping = dict(arrays["spatial_ref"].attrs) if "spatial_ref" in arrays else {}
    if isinstance(text := mapping.get("GeoTransform"), str):
        c, a, b, f, d, e = (float(v) for v in text.split())
        return transform_of([a, b, c, d, e, f], path)
    y, x = (_coordinate(arrays, names, n, path) for names, n in zip((_ROWS, _COLUMNS), shape, strict=True))
    if x is None or y is None:
        return None
    dx, dy = (float(axis[-1] - axis[0]) / (len(axis) - 1) for axis in (x, y))
    return transform_of([dx, 0.0, float(x[0]) - dx / 2, 0.0, dy, float(y[0]) - dy / 2], path)


def _coordinate(arrays: Mapping[str, Any], names: Sequence[str], length: int, path: Path) -> Array | None:
    """Middles of the pixels along an axis, where there are at least two."""
    name = next((one for one in names if one in arrays), None)
    found = None if name is None else _axis(arrays, name, length, _NUMBERS, path)
    return found if found is not None and len(found) > 1 else None
