"""Names of bands as people and products write them, as the common names of this project.

``B2``, ``B02``, ``Band 4``, ``SR_B4``, ``B04 (Red)``, ``R`` and ``665 nm`` all name a band. A number means another band on each
sensor, so it counts only where the sensor is known: said by the user, by the file's tags, by what only one sensor has (``B8A``,
``SR_B6``, a word or a wavelength beside the number), or by the model's contract. Where several sensors fit and they do not agree,
the band stays without a common name and the sensors are told. What is made of a band (``nir_std``, ``B04 mask``) is not that band.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rsedge.data.document_check import nearest
from rsedge.data.errors import RequestError

WAVELENGTHS_NM: Mapping[str, float] = {
    "coastal": 443, "blue": 490, "green": 560, "red": 665, "rededge1": 705, "rededge2": 740, "rededge3": 783,
    "nir": 842, "nir08": 865, "watervapour": 945, "cirrus": 1375, "swir16": 1610, "swir22": 2190,
}  # fmt: skip

_WORDS: Mapping[str, tuple[str, ...]] = {
    "coastal": ("aerosol", "coastal_aerosol", "coastal_blue", "ultra_blue"),
    "blue": ("b", "bl", "blu"),
    "green_i": ("greeni", "green_1", "green1"),
    "green": ("g", "gr", "grn", "green_ii", "greenii"),
    "yellow": (),
    "red": ("r",),
    "rededge1": ("rededge", "red_edge", "red_edge_1", "rededge_1", "red_edge1", "rededge705", "rededge071", "re", "re1"),
    "rededge2": ("red_edge_2", "rededge_2", "red_edge2", "rededge740", "rededge075", "re2"),
    "rededge3": ("red_edge_3", "rededge_3", "red_edge3", "rededge783", "rededge078", "re3"),
    "nir": ("n", "near_infrared", "nearinfrared", "near_ir", "nir08_broad", "nir1"),
    "nir08": ("narrow_nir", "nir_narrow", "nirn"),
    "watervapour": ("nir09", "water_vapor", "water_vapour", "watervapor"),
    "cirrus": (),
    "swir16": ("swir1", "swir_1", "swir_16", "shortwave_infrared_1", "short_wave_infrared_1"),
    "swir22": ("swir2", "swir_2", "swir_22", "shortwave_infrared_2", "short_wave_infrared_2"),
    "pan": ("panchromatic",),
    "lwir": ("thermal_infrared",),
    "lwir11": ("tirs1", "thermal1"),
    "lwir12": ("tirs2", "thermal2"),
}  # fmt: skip
_BY_WORD = {alias: common for common, aliases in _WORDS.items() for alias in (common, *aliases)}
_GENERAL = ("rededge", "red_edge", "nir", "near_infrared", "nearinfrared", "near_ir")
"""Words for any band of their kind, beside one that says which."""
_MADE = frozenset((
    "mean", "avg", "average", "median", "mode", "majority", "std", "stdev", "stddev", "sd", "sem", "var", "variance", "cv",
    "mad", "iqr", "min", "minimum", "max", "maximum", "sum", "total", "range", "percentile", "pctl", "quantile", "count",
    "num", "nobs", "obs", "observations", "skew", "skewness", "kurtosis", "rms", "rmse", "r2", "snr", "entropy", "contrast",
    "homogeneity", "texture", "glcm", "gradient", "slope", "trend", "intercept", "amplitude", "phase", "residual",
    "anomaly", "delta", "diff", "difference", "ratio", "index", "doy", "err", "error", "errors", "uncertainty", "unc",
    "sigma", "noise", "mask", "masks", "masked", "msk", "qa", "qc", "qf", "bqa", "dq", "quality", "flag", "flags", "valid",
    "invalid", "saturated", "saturation", "detfoo", "defect", "conf", "confidence", "prob", "probability", "likelihood",
    "class", "label", "labels", "angle", "azimuth", "zenith", "fraction", "weight", "weights",
))  # fmt: skip
"""Words that make of a band's name one of a statistic, a mask or another layer about the band."""
_MADE_SHORT = re.compile(r"[pq]\d{1,2}")
_OF_VALUES = re.compile(r"(?:wavelength|spectral|valid|value)s?[ _-]*range")


@dataclass(frozen=True)
class _Sensor:
    """What numbers mean on a sensor. ``padded``: its products write ``B02``; ``fixed``: unnamed bands stand in this order;
    ``family``: the sensor whose measurements its products hold."""

    numbers: Mapping[str, str]
    words: tuple[str, ...]
    padded: bool = False
    one_nir: bool = True
    fixed: tuple[str, ...] = ()
    surface: tuple[str, ...] = ()
    thermal: tuple[str, ...] = ()
    family: str | None = None


def _numbered(names: str, first: int = 1) -> dict[str, str]:
    return {str(i): name for i, name in enumerate(names.split(), start=first)}


_TM = _numbered("blue green red nir08 swir16 lwir swir22")
SENSORS: Mapping[str, _Sensor] = {
    "sentinel-2": _Sensor(
        _numbered("coastal blue green red rededge1 rededge2 rededge3 nir watervapour cirrus swir16 swir22") | {"8a": "nir08"},
        ("sentinel2", "s2a", "s2b", "s2c", "msi", "hlss30"), padded=True, one_nir=False,
    ),
    "landsat-8": _Sensor(
        _numbered("coastal blue green red nir08 swir16 swir22 pan cirrus lwir11 lwir12"),
        ("landsat8", "landsat9", "oli", "tirs", "lc08", "lc09"), surface=("1", "2", "3", "4", "5", "6", "7"), thermal=("10",),
    ),
    "landsat-7": _Sensor(_TM | {"8": "pan"}, ("landsat7", "etm", "le07"), surface=("1", "2", "3", "4", "5", "7"),
                         thermal=("6",)),
    "landsat-5": _Sensor(_TM, ("landsat5", "landsat4", "tm", "lt05", "lt04"), surface=("1", "2", "3", "4", "5", "7"),
                         thermal=("6",)),
    "hls-l30": _Sensor(
        _numbered("coastal blue green red nir08 swir16 swir22") | {"9": "cirrus", "10": "lwir11", "11": "lwir12"},
        ("hlsl30", "l30"), padded=True, family="landsat-8",
    ),
    "modis": _Sensor(_numbered("red nir blue green nir12 swir16 swir22"), ("modis", "terra", "aqua"), padded=True),
    "planetscope": _Sensor(_numbered("blue green red nir"), ("planetscope", "ps2", "doves")),
    "naip": _Sensor(_numbered("red green blue nir"), ("naip",), fixed=("red", "green", "blue", "nir")),
}  # fmt: skip
"""Sensors whose numbers are known. Landsat 4 counts as 5, Landsat 9 as 8."""

_NUMBER = re.compile(r"(?:^|[^a-z0-9])(sr_|st_)?(?:band[ _-]*|b)(0?)(\d{1,2}a?)(?![a-z0-9])")
_WAVELENGTH = re.compile(r"(\d+(?:\.\d+)?)\s*(nanomet\w*|nm|micromet\w*|microns?|\u00b5m|\u03bcm|um)\b")
_NEAR_NM = ((1000.0, 13.0), (1500.0, 25.0), (2600.0, 65.0))


@dataclass(frozen=True)
class _Written:
    """What one name says: a number with its prefix, a word, a wavelength (nm)."""

    key: str
    number: str | None = None
    prefix: str = ""
    padded: bool | None = None
    word: str | None = None
    wavelength_nm: float | None = None

    @property
    def clue(self) -> str | None:
        """The common name without looking at the number."""
        return self.word or (None if self.wavelength_nm is None else band_at(self.wavelength_nm))

    def on(self, sensor: str) -> str | None:
        """The band that the number means on a sensor; None where it has none or the name says something else."""
        row = SENSORS[sensor]
        if self.number is None:
            return None
        allowed = {"sr_": row.surface, "st_": row.thermal}.get(self.prefix)
        found = row.numbers.get(self.number)
        if found is None or (allowed is not None and self.number not in allowed):
            return None
        return found if self.clue is None or _kind(self.clue) == _kind(found) else None


@dataclass(frozen=True)
class NamedBands:
    """Common names in the given order ('' where there was no name), and what could not be told.

    Attributes:
        sensor: whose numbers were read, if any. unclear: index -> sensors that the number could be of, with its meaning there.
        fitting: sensors that all numbers fit, where none was said.
    """

    names: tuple[str, ...]
    sensor: str | None = None
    unclear: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    fitting: tuple[str, ...] = ()

    @property
    def one_nir(self) -> bool:
        """Whether it is known that the sensor has no second near infrared, whichever of those that fit it is."""
        known = self.fitting if self.sensor is None else (self.sensor,)
        return bool(known) and all(SENSORS[s].one_nir for s in known)


def sensor_key(text: str) -> str | None:
    """A sensor of :data:`SENSORS` that a text names (``Sentinel-2A``, ``LANDSAT_8``, ``OLI_TIRS``), or None."""
    lower = text.lower()
    tokens = set(re.split(r"[^a-z0-9]+", lower))
    joined = re.sub(r"[^a-z0-9]", "", lower)
    for name, row in SENSORS.items():
        long = [w for w in (name.replace("-", ""), *row.words) if len(w) > 6]
        if name == lower or tokens & {*row.words, name} or any(w in joined for w in long):
            return name
    return None


def check_sensor(text: str, where: str) -> str:
    """The sensor that a user names.

    Raises:
        RequestError: none of :data:`SENSORS`.
    """
    found = sensor_key(text)
    if found is None:
        raise RequestError(
            f"{where}: sensor '{text}' is unknown{nearest(text, list(SENSORS))}; known: {', '.join(SENSORS)}"
        )
    return found


def band_at(wavelength_nm: float) -> str | None:
    """The common name of the band centred there, or None where none is near enough."""
    slack = next((s for end, s in _NEAR_NM if wavelength_nm < end), 0.0)
    name = min(WAVELENGTHS_NM, key=lambda n: abs(WAVELENGTHS_NM[n] - wavelength_nm))
    return name if abs(WAVELENGTHS_NM[name] - wavelength_nm) <= slack else None


def canonical_band(name: str, sensor: str | None = None) -> str:
    """The common name of one band, e.g. ``B02`` of ``sentinel-2`` -> ``blue``; the name in lower case where it is unknown."""
    return name_bands([name], declared=None if sensor is None else sensor_key(sensor)).names[0]


def name_bands(
    written: Sequence[str],
    declared: str | None = None,
    supposed: str | None = None,
    wavelengths_nm: Sequence[float | None] | None = None,
) -> NamedBands:
    """Common names for the bands of one file or contract.

    Args:
        written: names as they stand there, '' for none.
        declared: the sensor, by its user or its own tags.
        supposed: a sensor to take where nothing else tells and its numbers fit, such as the contract's.
        wavelengths_nm: of the bands, where metadata give them apart from the names.
    """
    parts = [_parse(w, wave) for w, wave in zip(written, wavelengths_nm or [None] * len(written), strict=True)]
    if declared is not None:
        return NamedBands(tuple(p.on(declared) or _plain(p) for p in parts), declared)
    numbered = [p for p in parts if p.number is not None]
    # A zero before some numbers and none before others is no product's way of writing: it chooses no sensor.
    padded = any(p.padded for p in numbered) and not any(p.padded is False for p in numbered)
    fitting = [s for s in SENSORS if numbered and all(p.on(s) for p in numbered) and (SENSORS[s].padded or not padded)]
    if supposed in fitting:
        fitting = [supposed]
    names, unclear = [], {}
    for index, part in enumerate(parts):
        meanings = {s: part.on(s) or "" for s in fitting} if part.number is not None else {}
        if len(set(meanings.values())) == 1:
            names.append(next(iter(meanings.values())))
            continue
        if meanings and part.clue is None:
            unclear[index] = meanings
        names.append(_plain(part))
    return NamedBands(tuple(names), _only(fitting), unclear, tuple(fitting))


def sensor_warnings(where: str, found: str | None, wanted: str | None) -> list[str]:
    """What is to be said where data are of another sensor (of :data:`SENSORS`) than a contract; nothing where either is unknown."""
    if found is None or wanted is None or (SENSORS[found].family or found) == (SENSORS[wanted].family or wanted):
        return []
    return [
        f"{where}: is of {found}, but the model's bands are those of {wanted}: bands of the same name differ between them in "
        "wavelength and width, so what was measured of the model may not hold here"
    ]


def made_of_a_band(name: str) -> bool:
    """Whether a name is that of a statistic, a mask or another layer about a band, as ``nir_std`` and ``B04 mask`` are."""
    tokens = re.split(r"[^a-z0-9]+", _OF_VALUES.sub(" ", name.lower()))
    return any(t in _MADE or _MADE_SHORT.fullmatch(t) for t in tokens)


def _only(fitting: Sequence[str]) -> str | None:
    """The one sensor of some, or the one whose measurements all of them hold."""
    families = {SENSORS[s].family or s for s in fitting}
    return fitting[0] if len(fitting) == 1 else families.pop() if len(families) == 1 else None


def fixed_order(sensor: str | None, count: int) -> tuple[str, ...]:
    """Names of unnamed bands on a sensor whose products always have this order; () for others."""
    fixed = () if sensor is None else SENSORS[sensor].fixed
    return fixed if len(fixed) == count else ()


def _plain(part: _Written) -> str:
    return part.clue or part.key


def _kind(common: str) -> str:
    """What words tell of a band: ``rededge2`` is a red edge, ``nir08`` a near infrared."""
    return re.sub(r"\d+$", "", common)


def _parse(text: str, wavelength_nm: float | None) -> _Written:
    lower = text.strip().lower()
    key = re.sub(r"[\s\-]+", "_", lower)
    if made_of_a_band(lower):
        return _Written(key)
    found = _WAVELENGTH.search(lower)
    if found:
        wavelength_nm = float(found[1]) * (1.0 if found[2].startswith("n") else 1000.0)
    if key in _BY_WORD:
        return _Written(key, word=_BY_WORD[key], wavelength_nm=wavelength_nm)
    number = _NUMBER.search(lower)
    if number is None:
        return _Written(key, word=_word(lower), wavelength_nm=wavelength_nm)
    padded = True if number[2] else (False if len(number[3]) == 1 else None)
    rest = lower[: number.start()] + " " + lower[number.end() :]
    return _Written(key, number[3], number[1] or "", padded, _word(rest), wavelength_nm)


def _word(lower: str) -> str | None:
    """The one band that words within a longer name tell; single letters count only alone."""
    tokens: list[str] = [t for t in re.split(r"[^a-z0-9]+", _WAVELENGTH.sub(" ", lower)) if t]
    hits: dict[str, str] = {}
    for size in (4, 3, 2, 1):
        for start in range(len(tokens) - size + 1):
            joined = "_".join(tokens[start : start + size])
            if len(joined) > 2 and joined in _BY_WORD:
                hits[joined] = _BY_WORD[joined]
                tokens[start : start + size] = [""] * size
    if len({_kind(h) for h in hits.values()}) != 1:
        return None
    told = {common for word, common in hits.items() if word not in _GENERAL} or set(hits.values())
    return told.pop() if len(told) == 1 else None
