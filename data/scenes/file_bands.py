"""What the bands of one file are: by the user's names, the file's descriptions, its colours, or a sensor's fixed order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path

from rsedge.data.band_names import (
    SENSORS,
    NamedBands,
    check_sensor,
    fixed_order,
    made_of_a_band,
    name_bands,
    sensor_key,
)
from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.scenes.raster_file import RasterFile, alpha_bands
from rsedge.data.wording import Wording

SKIP_BAND = "-"
_ALIKE = 0.5
_ALPHA = "alpha"
_COLOURS = ("red", "green", "blue")
_SENSOR_TAGS = (
    "sensor",
    "platform",
    "spacecraft",
    "satellite",
    "constellation",
    "mission",
    "instrument",
    "product_uri",
)


@dataclass(frozen=True)
class FileBands:
    """Bands of a file in its order.

    Attributes:
        names: common names where they are known, else as written in lower case, '' for none. written: as they stand there.
        alpha: 1-based alpha bands. sensor: whose numbers were read. unclear: index -> sensors that its number could be of.
        declared: the sensor is the user's or the file's word, no supposition. wavelengths_nm: by the bands' metadata.
    """

    names: tuple[str, ...]
    written: tuple[str, ...]
    alpha: tuple[int, ...]
    sensor: str | None = None
    unclear: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    declared: bool = False
    wavelengths_nm: tuple[float | None, ...] | None = None


def file_bands(
    dataset: RasterFile,
    path: Path,
    wording: Wording,
    *,
    given: Sequence[str] | None = None,
    sensor: str | None = None,
    spec: InputSpec | None = None,
) -> FileBands:
    """Names the bands of an open raster.

    Args:
        given: the user's names of all bands in the file's order, ``-`` for one to leave out; alpha bands may be left unmentioned.
        sensor: by the user; goes before the file's own tags.
        spec: the contract, whose sensor is taken where nothing else tells.

    Raises:
        RequestError: an unknown sensor, another number of names than bands, or nothing names the bands.
    """
    declared = file_sensor(dataset) if sensor is None else check_sensor(sensor, str(path))
    alpha = _alpha(dataset)
    if given is None:
        written, alpha = _written(dataset, path, wording, alpha, declared, spec)
    else:
        written = _given(dataset, path, wording, given, alpha)
        alpha = [a for a in alpha if not written[a - 1]]
    supposed = None if spec is None or _counted(written) else spec.sensor
    waves = _wavelengths(dataset)
    named = name_bands(written, declared, supposed, waves)
    names = list(named.names) if spec is None else as_wanted(named, spec.common_names)
    if spec is not None and given is not None:
        wanted = {n.lower(): n for n in spec.band_names}
        names = [wanted.get(w.lower(), n) for w, n in zip(written, names, strict=True)]
    return FileBands(
        tuple(names),
        tuple(written),
        tuple(alpha),
        named.sensor or declared,
        named.unclear,
        declared is not None,
        tuple(waves),
    )


def _counted(written: Sequence[str]) -> bool:
    """Whether the names do nothing but count the file's bands, ``Band 1`` to the last: what programs write that know no names."""
    counts = [re.fullmatch(r"band[ _-]?0*(\d+)", name.lower()) for name in written]
    return len(counts) > 1 and all(c and int(c[1]) == i for i, c in enumerate(counts, start=1))


def file_sensor(dataset: RasterFile) -> str | None:
    """A sensor of :data:`rsedge.data.band_names.SENSORS` that the file's tags name, or None."""
    tags = [str(v) for k, v in dataset.tags().items() if any(word in k.lower() for word in _SENSOR_TAGS)]
    found = {s for s in map(sensor_key, tags) if s}
    return found.pop() if len(found) == 1 else None


def choose_bands(bands: FileBands, spec: InputSpec, path: Path, wording: Wording) -> list[int]:
    """1-based bands of the file in the contract's order.

    Raises:
        RequestError: one is missing, twice there, or could be several; says what to write, if anything helps.
    """
    return [i + 1 for i in spec.select(bands.names, str(path), _advice(bands, spec, wording))]


def _advice(bands: FileBands, spec: InputSpec, wording: Wording) -> str:
    """What names the bands that the contract misses, given what the file has."""
    missing = spec.missing(bands.names)
    sensors = sorted({s for meanings in bands.unclear.values() for s in meanings})
    fits = [s for s in sensors if not spec.missing(_under(bands, s, spec))]
    if missing and fits:
        index = next(iter(bands.unclear))
        means = ", ".join(f"{m} on {s}" for s, m in bands.unclear[index].items())
        ways = " or ".join(wording.say("sensor", s) for s in fits)
        return f"; '{bands.written[index]}' is {means}: say which sensor it is with {ways}"
    possible = name_bands(bands.written, wavelengths_nm=bands.wavelengths_nm).fitting or tuple(SENSORS)
    others = [s for s in possible if s != bands.sensor and not spec.missing(_under(bands, s, spec))]
    if missing and others and not bands.declared:
        ways = " or ".join(wording.say("sensor", s) for s in others)
        if bands.sensor is None:
            return (
                f"; its names fit sensors on which they are what the model needs: if it is of one, say so with {ways}"
            )
        return f"; its numbers were read as of {bands.sensor}: if it is of another sensor, say so with {ways}"
    example = name_example(bands, spec)
    if not example:
        return "; the scene does not hold what the model needs"
    return f"; where the file's names are not what they are, name its bands in its order, e.g. {wording.bands(example)}"


def name_example(bands: FileBands, spec: InputSpec) -> list[str]:
    """Names for all bands that the contract would take: those it knows stay, others stand for what it misses; [] if too few."""
    wanted, used = list(spec.missing(bands.names)), set()
    like = _alike(bands, wanted, spec)
    wanted = [w for w in wanted if w not in like.values()]
    out = []
    for number, name in enumerate(bands.names, start=1):
        known = next((n for n, c in zip(spec.band_names, spec.common_names, strict=True) if name in (n, c)), None)
        if number in bands.alpha:
            out.append(SKIP_BAND)
        elif known is not None and known not in used:
            used.add(known)
            out.append(known)
        elif number in like:
            out.append(like[number])
        elif made_of_a_band(bands.written[number - 1]):
            out.append(SKIP_BAND)
        else:
            out.append(wanted.pop(0) if wanted else SKIP_BAND)
    return [] if wanted else out


def _alike(bands: FileBands, wanted: Sequence[str], spec: InputSpec) -> dict[int, str]:
    """1-based bands whose names are nearest to a wanted one, the closest pair first."""
    common = dict(zip(spec.band_names, spec.common_names, strict=True))
    pairs = [
        (SequenceMatcher(None, name, common[w]).ratio(), number, w)
        for number, name in enumerate(bands.names, start=1)
        if name and name not in spec.common_names and number not in bands.alpha and not made_of_a_band(name)
        for w in wanted
    ]
    found: dict[int, str] = {}
    for likeness, number, name in sorted(pairs, key=lambda p: -p[0]):
        if likeness > _ALIKE and number not in found and name not in found.values():
            found[number] = name
    return found


def _under(bands: FileBands, sensor: str, spec: InputSpec) -> list[str]:
    return as_wanted(name_bands(bands.written, sensor, wavelengths_nm=bands.wavelengths_nm), spec.common_names)


def as_wanted(named: NamedBands, wanted: Sequence[str]) -> list[str]:
    """Names of the bands; on a sensor with one near infrared, it answers to both of its names."""
    names = list(named.names)
    if not named.one_nir:
        return names
    for here, there in (("nir08", "nir"), ("nir", "nir08")):
        if here in names and there not in names and there in wanted and here not in wanted:
            return [there if n == here else n for n in names]
    return names


def _alpha(dataset: RasterFile) -> list[int]:
    """Bands that are called alpha, by colour or by name; one described as something else is data all the same."""
    described = [(d or "").strip().lower() for d in dataset.descriptions]
    coloured = [a for a in alpha_bands(dataset) if described[a - 1] in ("", _ALPHA)]
    return sorted({*coloured, *(i for i, d in enumerate(described, start=1) if d == _ALPHA)})


def _written(
    dataset: RasterFile, path: Path, wording: Wording, alpha: list[int], sensor: str | None, spec: InputSpec | None
) -> tuple[list[str], list[int]]:
    """Names that the file gives its bands ('' for none), and its alpha bands."""
    described = ["" if i in alpha else (d or "").strip() for i, d in enumerate(dataset.descriptions, start=1)]
    if any(described) or any(_wavelengths(dataset)):
        return described, alpha
    for count, left in ((dataset.count, []), (dataset.count - len(alpha), alpha)):
        fixed = iter(fixed_order(sensor, count))
        names = ["" if i in left else next(fixed, "") for i in range(1, dataset.count + 1)]
        if any(names):
            return names, left
    colours = [c if c in _COLOURS else "" for c in dataset.colorinterp]
    if {"red", "green", "blue"} <= set(colours):
        return colours, alpha
    bare = FileBands(("",) * dataset.count, ("",) * dataset.count, tuple(alpha))
    example = (name_example(bare, spec) if spec else []) or ["blue", "green", "red", "nir"]
    raise RequestError(
        f"{path}: its {dataset.count} bands have no descriptions, and rsedge does not guess their order; name them "
        f"in the file's order, e.g. {wording.bands(example)} ('{SKIP_BAND}' for one to leave out)"
    )


def _given(dataset: RasterFile, path: Path, wording: Wording, given: Sequence[str], alpha: list[int]) -> list[str]:
    names = [g.strip() for g in given]
    if alpha and len(names) == dataset.count - len(alpha):
        rest = iter(names)
        names = [SKIP_BAND if i in alpha else next(rest) for i in range(1, dataset.count + 1)]
    if len(names) != dataset.count:
        raise RequestError(
            f"{path}: {wording.bands(names)} names {len(names)} bands, the file has {dataset.count}; name "
            f"them all in the file's order, '{SKIP_BAND}' for one to leave out"
        )
    return ["" if n == SKIP_BAND else n for n in names]


def _wavelengths(dataset: RasterFile) -> list[float | None]:
    """Centre wavelengths (nm) by the bands' metadata."""
    return [_wavelength(dataset, i) for i in range(1, dataset.count + 1)]


def _wavelength(dataset: RasterFile, band: int) -> float | None:
    """As GDAL writes it (domain IMAGERY, micrometres), or as ENVI does (``wavelength``, ``wavelength_units``)."""
    micrometres = dataset.tags(band, ns="IMAGERY").get("CENTRAL_WAVELENGTH_UM")
    tags = {k.lower(): str(v) for k, v in dataset.tags(band).items()}
    value, unit = (micrometres, "um") if micrometres else (tags.get("wavelength"), tags.get("wavelength_units", ""))
    try:
        number = float(value) if value else 0.0
    except ValueError:
        return None
    factor = (
        1.0
        if unit.lower().startswith("n")
        else 1000.0
        if unit.lower().startswith(("u", "m", "\u00b5", "\u03bc"))
        else 0
    )
    return number * factor or None
