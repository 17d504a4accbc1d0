"""Scenes in Zarr stores on this disk. Need no GDAL but the extra ``zarr``.

A store is an array, or a group with one array of three axes, or of four with a single time. They are in any order where their names
say it (:mod:`rsedge.data.scenes.axes`), else bands, rows, columns. Band names, place and units go by attributes: ``band_names`` or
``long_name`` or a coordinate ``band``; ``transform``, ``spatial:transform``, a ``GeoTransform`` (of ``spatial_ref``), all from the
corner of the first pixel, or coordinates of rows and columns (``y`` and ``x``), which are the middles of pixels; ``crs``,
``proj:code`` or ``spatial_ref`` (EPSG code or WKT); ``scale_factor`` and ``add_offset`` (one or one a band).

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
from rsedge.data.scenes.axes import NAMES, Axes, Coordinate, axes_of, place_of
from rsedge.data.scenes.crs_text import crs_text
from rsedge.data.scenes.raster_file import MOST_BLOCK_BYTES, MOST_EDGE, Array, Blocks, PlainRaster, Transform

# Others can run code of the store's choice, or need modules of their own.
_CODECS = {
    "blosc", "bytes", "crc32c", "gzip", "sharding_indexed", "transpose", "zstd", "zlib", "lz4", "shuffle", "delta", "bz2", "lzma",
}  # fmt: skip
_AXES_OF_XARRAY = "_ARRAY_DIMENSIONS"
_AXES = (3, 4)
_NEEDED = "three axes (bands, rows, columns), or four with a single time"
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
            called = _axis_names(array)
            self._array, self._axes = array, axes_of(called, array.shape, path)
            count, height, width = self._axes.sizes(array.shape)
            kind = str(np.dtype(array.dtype).newbyteorder("="))
            if kind not in TYPES:
                raise RequestError(f"{path}: holds {kind} values; rsedge reads {', '.join(TYPES)}")
            axis = called[self._axes.bands] if called and self._axes.bands is not None else None
            names = (
                about.get("band_names")
                or about.get("long_name")
                or _texts(others, (axis or "band", "band"), count, path)
            )
            transform, unplaced = _place(about, others, _along(self._axes, called, array.shape), path)
            super().__init__(
                path, (count, height, width), kind, names=[str(n) for n in names] if isinstance(names, list) else (),
                wavelengths_nm=[float(w) for w in about.get("wavelengths_nm", ())], nodata=_fill(array, about, path),
                scales=each(_floats(about, "scale_factor", path), count), offsets=each(_floats(about, "add_offset", path), count),
                crs=_crs(about, others, path), transform=transform, unread=unplaced,
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
            found = np.asarray(self._array.oindex[self._axes.window(bands, rows, columns)])
            return np.ascontiguousarray(self._axes.image(found), self.dtypes[0])

    def _chunk(self) -> tuple[int, int, int]:
        """Rows, columns and bands of a chunk."""
        bands, rows, columns = self._axes.sizes(_unpacked_at_once(self._array))
        return rows, columns, bands


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
        if len(store.shape) not in _AXES:
            raise RequestError(f"{path}: is an array of {len(store.shape)} axes; a scene has {_NEEDED}")
        return "", store, {}
    arrays = _arrays(store, path)
    images = [name for name, array in arrays.items() if _may_be_scene(array)]
    if len(images) != 1:
        shown = ", ".join(f"'{n}' {a.shape}" for n, a in list(arrays.items())[:10])
        raise RequestError(f"{path}: a scene is a group with one array of {_NEEDED}; it has {shown or 'none'}")
    return images[0], arrays[images[0]], {n: a for n, a in arrays.items() if n != images[0]}


def _may_be_scene(array: Any) -> bool:
    """Whether it has as many axes as a scene; of four the time, the first where no name says otherwise, has one value."""
    if len(array.shape) != max(_AXES):
        return len(array.shape) in _AXES
    names = _axis_names(array)
    at = next((n for n, name in enumerate(names) if name is not None and name.lower() in NAMES["time"]), 0)
    return int(array.shape[at]) == 1


def _arrays(group: Any, path: Path) -> dict[str, Any]:
    """Arrays of a group, one opened after the other: of all at once zarr leaves errors behind that are printed by themselves."""
    names = sorted(one.name for one in path.iterdir() if any((one / file).is_file() for file in _HOLDS_ARRAY))
    if len(names) > _MOST_ARRAYS:
        raise RequestError(f"{path}: has {len(names)} arrays; a scene's group has up to {_MOST_ARRAYS}")
    found = {name: group[name] for name in names}
    return {name: one for name, one in found.items() if hasattr(one, "shape")}


def _axis_names(array: Any) -> list[str | None]:
    """Names of an array's axes as Zarr 3 or xarray keeps them; [] where it has none."""
    named = getattr(array.metadata, "dimension_names", None) or array.attrs.get(_AXES_OF_XARRAY) or ()
    return [None if one is None else str(one) for one in named]


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


def _texts(arrays: Mapping[str, Any], names: Sequence[str], count: int, path: Path) -> list[str] | None:
    """Texts of the first coordinate of these names that has them."""
    for name in dict.fromkeys(names):
        found = _axis(arrays, name, count, _TEXTS, path)
        if found is not None:
            return [one.decode() if isinstance(one, bytes) else str(one) for one in found]
    return None


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


def _place(
    about: Mapping[str, Any], arrays: Mapping[str, Any], along: Sequence[tuple[Sequence[str], int]], path: Path
) -> tuple[Transform | None, tuple[str, ...]]:
    """The transform of attributes, else of coordinates; and in words why coordinates give none.

    Args:
        along: of rows and of columns what their coordinate may be called, and how many there are.
    """
    given = about.get("transform", about.get("spatial:transform"))
    if isinstance(given, list):
        return transform_of([float(v) for v in given], path), ()
    mapping = dict(arrays["spatial_ref"].attrs) if "spatial_ref" in arrays else {}
    if isinstance(text := mapping.get("GeoTransform"), str):
        c, a, b, f, d, e = (float(v) for v in text.split())
        return transform_of([a, b, c, d, e, f], path), ()
    rows, columns = (_coordinate(arrays, names, length, path) for names, length in along)
    if rows is not None and columns is not None:
        return place_of(rows, columns, path)
    others = [f"'{name}'" for names, _ in along for name in dict.fromkeys(names) if name in arrays]
    words = "are not a number for each row and one for each column, so it lies nowhere on the map; give its transform"
    return None, (f"its coordinates {', '.join(others)} {words}",) if others else ()


def _along(axes: Axes, called: Sequence[str | None], lengths: Sequence[int]) -> list[tuple[list[str], int]]:
    """What the coordinates of rows and columns may be called, first as their axis is, and how long they are."""
    found = []
    for axis, names in ((axes.rows, NAMES["rows"]), (axes.columns, NAMES["columns"])):
        own = called[axis] if called else None
        found.append(([*([own] if own else []), *names], lengths[axis]))
    return found


def _coordinate(arrays: Mapping[str, Any], names: Sequence[str], length: int, path: Path) -> Coordinate | None:
    """Middles of the pixels along an axis, unpacked, by the first name that has a number for each."""
    for name in names:
        found = _axis(arrays, name, length, _NUMBERS, path)
        if found is not None:
            about = dict(arrays[name].attrs)
            scale, offset = _floats(about, "scale_factor", path), _floats(about, "add_offset", path)
            return Coordinate(
                name, found if not (scale or offset) else found * (scale or [1.0])[0] + (offset or [0.0])[0]
            )
    return None
