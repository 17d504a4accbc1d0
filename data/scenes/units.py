"""How the values of a file become physical ones: declared, never guessed. In this order:

1. ``scale`` / ``offset`` given by the user: ``physical = value * scale + offset``.
2. GDAL scale/offset tags on the bands: the same formula.
3. 16- and 32-bit integers without tags are the contract's digital numbers (DN). Other integers are DN only when the contract has
   the very same type: an 8-bit file is refused by a 16-bit contract. Without a contract no bare integers are taken.
4. Floats without tags are physical values (e.g. reflectance).

Scale and offset that are the contract's own, in its own type, say that the values are its DN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.scenes.raster_file import RasterFile
from rsedge.data.wording import Wording

# Far beyond any unit; a negative scale is a picture's negative or a mistake.
_LEAST_SCALE, _MOST = 1e-12, 1e12
WIDE_INTEGERS = ("uint16", "int16", "uint32", "int32")


@dataclass(frozen=True)
class Units:
    """How a file's values become DN: as they are, or as physical values by ``value * scale + offset`` per band.

    Attributes:
        source: who says so, in words. declared: it was said outright, not read off the type of the values. fill: a file value
            that is missing where all bands have it.
    """

    source: str
    scale: tuple[float, ...] = ()
    offset: tuple[float, ...] = ()
    declared: bool = False
    fill: float | None = None

    @property
    def is_dn(self) -> bool:
        return not self.scale


def common_dtype(dataset: RasterFile, indices: Sequence[int], path: Path) -> str:
    """The one type of the bands.

    Raises:
        RequestError: they differ, or hold no radiometry.
    """
    found = {str(dataset.dtypes[i - 1]) for i in indices}
    if len(found) > 1:
        raise RequestError(
            f"{path}: the model's bands differ in type ({', '.join(sorted(found))}); store them in one type"
        )
    dtype = found.pop()
    if dtype not in (*WIDE_INTEGERS, "uint8", "float32", "float64"):
        raise RequestError(
            f"{path}: holds {dtype} values; rsedge reads uint8, {', '.join(WIDE_INTEGERS)}, float32 and float64"
        )
    return dtype


def units_of(
    dataset: RasterFile,
    path: Path,
    indices: Sequence[int],
    spec: InputSpec | None,
    scale: float | None,
    offset: float | None,
    wording: Wording,
) -> Units:
    """What the values of some bands are.

    Raises:
        RequestError: scale or offset make no sense, tags on some bands only, or nothing says it.
    """
    n, dtype = len(indices), common_dtype(dataset, indices, path)
    if scale is not None or offset is not None:
        if problem := unusable(scale, offset):
            raise RequestError(f"{path}: {problem}")
        return declared_units("given", (1.0 if scale is None else scale,) * n, (offset or 0.0,) * n, dtype, spec)
    scales = tuple(float(dataset.scales[i - 1]) for i in indices)
    offsets = tuple(float(dataset.offsets[i - 1]) for i in indices)
    tagged = [s != 1.0 or o != 0.0 for s, o in zip(scales, offsets, strict=True)]
    if any(unusable(s, o) for s, o in zip(scales, offsets, strict=True)):
        raise RequestError(
            f"{path}: its scale/offset tags make no values (scales {_listed(scales)}, offsets {_listed(offsets)}); give both "
            f"with {_both(wording)}"
        )
    if all(tagged):
        return declared_units("tags", scales, offsets, dtype, spec)
    if any(tagged):
        names = spec.band_names if spec else [str(i) for i in indices]
        bare = [b for b, t in zip(names, tagged, strict=True) if not t]
        raise RequestError(
            f"{path}: some bands carry scale/offset tags, but {', '.join(bare)} do not; "
            f"give both for all with {_both(wording)}"
        )
    return _untagged(path, n, dtype, spec, wording)


def unusable(scale: float | None, offset: float | None) -> str:
    """Why a scale and an offset make no physical values; empty where they do."""
    if (scale is None or _LEAST_SCALE <= scale <= _MOST) and (offset is None or abs(offset) <= _MOST):
        return ""
    return (
        f"the scale must be positive, from {_LEAST_SCALE:g} to {_MOST:g}, and the offset at most {_MOST:g} to either side; "
        f"not scale {1 if scale is None else scale:g}, offset {offset or 0:g}"
    )


def declared_units(
    source: str, scales: tuple[float, ...], offsets: tuple[float, ...], dtype: str, spec: InputSpec | None
) -> Units:
    """Units that somebody declares; the contract's DN where they are its own, in its own type."""
    if spec is not None and dtype == spec.dtype:
        own = all(s == b.scale and o == b.offset for s, o, b in zip(scales, offsets, spec.bands, strict=True))
        if own:
            return Units(f"{source}, equal to the contract's", declared=True)
    return Units(source, scales, offsets, declared=True)


def _untagged(path: Path, n: int, dtype: str, spec: InputSpec | None, wording: Wording) -> Units:
    if dtype.startswith("float"):
        return Units(f"{dtype} without tags: physical values", (1.0,) * n, (0.0,) * n)
    if spec is None:
        raise RequestError(
            f"{path}: holds {dtype} values, and does not say how they become physical ones; say so with "
            f"{_both(wording)} (physical = value * scale + offset)"
        )
    if dtype == spec.dtype or (dtype in WIDE_INTEGERS and spec.dtype != "uint8"):
        return Units(f"{dtype} without tags: digital numbers of the contract")
    raise RequestError(
        f"{path}: holds {dtype} values, the model takes {spec.dtype} digital numbers "
        f"({spec.quantity} = DN * {spec.bands[0].scale:g} + {spec.bands[0].offset:g}), and the file "
        f"does not say how its values become {spec.quantity}; say so with {_both(wording)}"
    )


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{v:g}" for v in dict.fromkeys(values))


def _both(wording: Wording) -> str:
    return "--scale and --offset" if wording is Wording.COMMAND else "scale: and offset:"
