"""A user's own samples in a table: ``.parquet`` and ``.csv`` with a row per sample, ``.npz`` with an array per field.

Nothing is unpickled.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from rsedge.data.arrays import read_arrays
from rsedge.data.bands import Layout
from rsedge.data.errors import RequestError
from rsedge.data.files import require_file, sha256_file
from rsedge.data.record import Record
from rsedge.data.records import arrow_errors, fields_text, open_parquet
from rsedge.data.samples.samples import Samples
from rsedge.data.scenes.fills import absurd, absurd_warnings
from rsedge.data.scenes.units import unusable

Column = npt.NDArray[np.generic]
Columns = Mapping[str, Column]
SUFFIXES = (".parquet", ".csv", ".npz")
_AXES = {1: "a row of one number a sample", 2: "one row of numbers a sample", 3: "one map a sample", 4: "one image a sample",
         5: "one series of images a sample"}  # fmt: skip


_UNKNOWN = 255
"""Of class maps, where a pixel has no label."""
_NAMED_VALUES = 5


class TableOptions(Record):
    """What the columns of a table mean.

    ``bands`` maps each band to its column. In layout ``TC`` a column name holds ``{t}``, which counts from ``first_time`` for
    ``frames`` times; a name without it is one value for all times. In an ``.npz`` ``bands`` is the list of names along the
    band axis of the array ``values``, whose axes are (sample, *layout).
    """

    bands: dict[str, str] | list[str] = Field(min_length=1, description="band -> column; of an .npz the bands in order")
    layout: Layout = Field(default="C", description="axes of one sample")
    frames: int = Field(default=1, ge=1, description="times, in layouts with a T")
    first_time: int = Field(default=0, description="what {t} in a column's name counts from")
    values: str = Field(default="values", description="array of an .npz that holds the samples")
    missing: float | None = Field(default=None, description="stored value that marks a missing one")
    scale: dict[str, float] = Field(default_factory=dict, description="per band: physical = stored * scale + offset")
    offset: dict[str, float] = Field(default_factory=dict, description="per band, see scale")
    label: str | list[str] | None = Field(default=None, description="one column, or one per class or target")
    task: str = Field(
        default="classification",
        pattern="^(classification|multilabel|regression|segmentation)$",
        description="what labels are: classification, multilabel, regression or segmentation",
    )
    classes: list[str] = Field(
        default_factory=list,
        description="label values in the order of the class numbers; samples with others have no label",
    )
    group: str | None = Field(default=None, description="column of what is held out together")
    split: str | None = Field(default=None, description="column of the publisher's split")
    longitude: str | None = Field(default=None, description="column of the place (degrees)")
    latitude: str | None = Field(default=None, description="column of the place (degrees)")
    gsd_m: float | None = Field(default=None, gt=0, description="ground sampling distance of images (m)")

    @model_validator(mode="after")
    def _check(self) -> TableOptions:
        if (self.longitude is None) != (self.latitude is None):
            raise ValueError("longitude and latitude go together")
        if self.frames > 1 and "T" not in self.layout:
            raise ValueError(f"frames: layout {self.layout} has no times")
        for what in ("scale", "offset"):
            unknown = sorted(set(getattr(self, what)) - set(self.bands))
            if unknown:
                raise ValueError(f"{what}: no such band: {', '.join(unknown)}")
        for name in {*self.scale, *self.offset}:
            if problem := unusable(self.scale.get(name), self.offset.get(name)):
                raise ValueError(f"{name}: {problem}")
        return self


def read_columns(path: Path) -> dict[str, Column]:
    """Columns of a ``.parquet`` or ``.csv``, arrays of an ``.npz``; columns of a ``.csv`` are float64 where all are numbers.

    Raises:
        RequestError: unknown suffix, no such file or not readable.
        MissingCapability: pyarrow is not installed.
    """
    if path.suffix not in SUFFIXES:
        raise RequestError(f"{path}: a table is one of {', '.join(SUFFIXES)}")
    require_file(path)
    return {".parquet": _parquet, ".csv": _csv, ".npz": read_arrays}[path.suffix](path)


def load_table(path: Path, options: TableOptions) -> Samples:
    """Samples from a user's table.

    Raises:
        RequestError: a column is missing or not of its kind; names file, column and the nearest name.
    """
    table = _Table(path, read_columns(path))
    values = _array_values(table, options) if path.suffix == ".npz" else _column_values(table, options)
    names = tuple(options.bands)
    if options.missing is not None:
        values = np.where(values == np.float32(options.missing), np.float32(np.nan), values)
    odd = absurd(values)
    values = np.where(odd, np.float32(np.nan), values)
    notes = absurd_warnings(path, int(odd.reshape(len(odd), -1).any(axis=1).sum()) if odd.size else 0, "samples")
    shape = [1] * values.ndim
    shape[1 + options.layout.index("C")] = len(names)
    scale = np.array([options.scale.get(n, 1.0) for n in names], np.float32).reshape(shape)
    offset = np.array([options.offset.get(n, 0.0) for n in names], np.float32).reshape(shape)
    labels, classes = _labels(table, options, notes)
    places = None
    if options.longitude and options.latitude:
        longitude, latitude = table.numbers(options.longitude), table.numbers(options.latitude)
        if len(longitude) != len(latitude):
            raise RequestError(
                f"{path}: {len(longitude)} of '{options.longitude}', {len(latitude)} of '{options.latitude}'"
            )
        places = np.stack([longitude, latitude], 1)
    return Samples(
        path.stem, values * scale + offset, names, options.layout, sha256_file(path), labels=labels, classes=classes,
        group=table.text(options.group) if options.group else None,
        split=table.text(options.split) if options.split else None, places=places, gsd_m=options.gsd_m,
        notes=tuple(notes),
    )  # fmt: skip


class _Table:
    """Columns that name their file when one is missing or of another kind."""

    def __init__(self, path: Path, columns: Columns) -> None:
        self.path, self.columns = path, columns

    def __getitem__(self, name: str) -> Column:
        if name not in self.columns:
            raise RequestError(f"{self.path}: no column '{name}'{fields_text(name, list(self.columns))}")
        return self.columns[name]

    def numbers(self, name: str, axes: int | None = 1) -> npt.NDArray[np.float64]:
        """A column of numbers with so many axes (None: any)."""
        column = self[name]
        if axes is not None and column.ndim != axes:
            raise RequestError(f"{self.path}: '{name}' has the shape {column.shape}; {_AXES[axes]} is needed")
        if column.dtype.kind not in "biuf":
            raise RequestError(f"{self.path}: column '{name}' holds {column.dtype}, not numbers")
        return column.astype(np.float64)

    def text(self, name: str) -> npt.NDArray[np.str_]:
        column = self[name]
        if column.ndim != 1 or column.dtype.kind not in "biufUSOM":
            raise RequestError(
                f"{self.path}: '{name}' holds {column.dtype} {column.shape}, not one text or number a sample"
            )
        return _as_text(column)


def _column_values(table: _Table, options: TableOptions) -> npt.NDArray[np.float32]:
    if not isinstance(options.bands, dict):
        raise RequestError(f"{table.path}: bands: give each band's column, e.g. {{blue: B02}}, not a list")
    if options.layout not in ("C", "TC"):
        raise RequestError(f"{table.path}: layout: a table holds C or TC; images ({options.layout}) go into an .npz")
    times = [range(options.first_time, options.first_time + options.frames)] if options.layout == "TC" else []
    if not times:
        return np.stack([table.numbers(c) for c in options.bands.values()], 1).astype(np.float32)
    frames = [[table.numbers(c.replace("{t}", str(t))) for c in options.bands.values()] for t in times[0]]
    return np.stack([np.stack(f, 1) for f in frames], 1).astype(np.float32)


def _array_values(table: _Table, options: TableOptions) -> npt.NDArray[np.float32]:
    if not isinstance(options.bands, list):
        raise RequestError(f"{table.path}: bands: an .npz takes the list of names along the band axis, not a mapping")
    values = table.numbers(options.values, axes=1 + len(options.layout)).astype(np.float32)
    if values.shape[1 + options.layout.index("C")] != len(options.bands):
        raise RequestError(
            f"{table.path}: bands: names {len(options.bands)}, '{options.values}' of shape {values.shape} and layout "
            f"{options.layout} has {values.shape[1 + options.layout.index('C')]}"
        )
    return values


def _labels(table: _Table, options: TableOptions, notes: list[str]) -> tuple[Column | None, tuple[str, ...]]:
    """Labels and the names of their classes; what is to be said of them goes into ``notes``."""
    if options.label is None:
        return None, ()
    if isinstance(options.label, list):
        if options.task not in ("multilabel", "regression"):
            raise RequestError(
                f"{table.path}: label: several columns go with multilabel or regression, not {options.task}"
            )
        columns = np.stack([table.numbers(c) for c in options.label], 1).astype(np.float32)
        return columns, tuple(options.classes or options.label)
    if options.task == "regression":
        target = table.numbers(options.label, axes=None).astype(np.float32)
        if target.ndim not in (1, 2):
            raise RequestError(f"{table.path}: '{options.label}' has the shape {target.shape}; {_AXES[1]} is needed")
        return target.reshape(len(target), -1 if target.size else 1), tuple(options.classes or [options.label])
    if options.task == "multilabel":
        return table.numbers(options.label, axes=2).astype(np.float32), tuple(options.classes)
    if options.task == "segmentation":
        return _maps(table, options.label), tuple(options.classes)
    return _class_numbers(table, options.label, options.classes, notes)


def _maps(table: _Table, name: str) -> npt.NDArray[np.uint8]:
    maps = table.numbers(name, axes=3)
    if not np.isin(maps, np.arange(256)).all():
        raise RequestError(f"{table.path}: '{name}' holds more than whole numbers from 0 to 255 (255: unknown)")
    if set(np.unique(maps).tolist()) == {0, _UNKNOWN}:
        raise RequestError(
            f"{table.path}: '{name}' holds 0 and {_UNKNOWN} alone, and {_UNKNOWN} counts as no label; write class numbers (such as "
            f"1 for {_UNKNOWN})"
        )
    return maps.astype(np.uint8)


def _as_text(column: Column) -> npt.NDArray[np.str_]:
    """Bytes as UTF-8, everything else as it is written."""
    if column.dtype.kind in "SO":
        texts = [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in column.tolist()]
        return np.array(texts, np.str_)
    return column.astype(np.str_)


def _class_numbers(
    table: _Table, name: str, classes: Sequence[str], notes: list[str]
) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """Class numbers by the order of ``classes``, else of the sorted values; values that are not among them become -1, and are
    told of."""
    text = table.text(name)
    column = table[name]
    whole = column.dtype.kind == "f" and bool(np.equal(np.nan_to_num(column), np.rint(np.nan_to_num(column))).all())
    known = np.isfinite(column.astype(np.float64)) if column.dtype.kind == "f" else text != ""
    if whole:
        text = np.where(known, column, 0).astype(np.int64).astype(np.str_)
    order = list(classes) or sorted(set(text[known].tolist()))
    if not known.any() or not set(order) & set(text[known].tolist()):
        raise RequestError(
            f"{table.path}: column '{name}' holds none of the classes {', '.join(order) or '(none)'}; "
            "write in classes the values as the file has them"
        )
    number = {value: index for index, value in enumerate(order)}
    found = [number.get(t, -1) if k else -1 for t, k in zip(text.tolist(), known.tolist(), strict=True)]
    others = Counter(t for t, k in zip(text.tolist(), known.tolist(), strict=True) if k and t not in number)
    if others:
        named = ", ".join(f"'{value}' ({count:,})" for value, count in others.most_common(_NAMED_VALUES))
        more = ", ..." if len(others) > _NAMED_VALUES else ""
        notes.append(
            f"{others.total():,} of the samples have no label: '{name}' holds values that classes does not name: {named}{more}"
        )
    return np.array(found, np.int64), tuple(order)


def _parquet(path: Path) -> dict[str, Column]:
    file = open_parquet(path)
    with arrow_errors(path):
        table = file.read()
        return {name: np.asarray(table[name].to_numpy()) for name in table.column_names}


def _csv(path: Path) -> dict[str, Column]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as f:
            header, *rows = csv.reader(f)
    except (UnicodeDecodeError, csv.Error) as error:
        raise RequestError(f"{path}: not a readable CSV file ({error})") from error
    except ValueError as error:
        raise RequestError(f"{path}: empty; the first line names the columns") from error
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise RequestError(f"{path}: column '{twice}' occurs twice; give each its own name")
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise RequestError(f"{path}:{line}: {len(row)} fields, the header has {len(header)}")
    return {name: _parsed([row[i] for row in rows]) for i, name in enumerate(header)}


def _parsed(texts: list[str]) -> Column:
    try:
        return np.array([float(t) if t.strip() else np.nan for t in texts], np.float64)
    except ValueError:
        return np.array(texts, np.str_)
