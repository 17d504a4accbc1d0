"""Label rasters: class numbers on a scene's grid, checked before they judge anything. One reader for recipes and ``evaluate``."""

from __future__ import annotations

import math
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window

from rsedge.data.document_check import nearest
from rsedge.data.errors import RequestError
from rsedge.data.scenes.grids import Grid, check_same_grid
from rsedge.data.scenes.raster import open_raster
from rsedge.data.wording import Wording

UNKNOWN = 255
"""Of label arrays, where a pixel has no label; and the value of files that says so unless a map does."""
IGNORE = "ignore"
_ROWS = 512
_NAMED_VALUES = 10
_SEEN_VALUES = 4096

LabelMap = Mapping[int, int | str]


class LabelReader:
    """Labels of a scene by rows.

    Args:
        path: one band of class numbers on the grid of ``scene``. Pixels with the file's nodata, masked ones and ``ignore`` do
            not count.
        classes: names in order.
        mapping: file value -> class name, class number or ``ignore``; values that it leaves out are refused.

    Raises:
        RequestError: another grid, more bands than one, a map to no class, values that are no class, a class number that
            is nodata too, or no label at all; names them and the fix.

    Attributes:
        warnings: for the user.
    """

    def __init__(
        self,
        path: str | Path,
        scene: Grid,
        classes: Sequence[str],
        *,
        mapping: LabelMap | None = None,
        ignore: int | None = UNKNOWN,
        wording: Wording = Wording.COMMAND,
    ) -> None:
        self.warnings: list[str] = []
        self.path, self.classes, self.wording = Path(path), tuple(classes), wording
        if len(self.classes) > UNKNOWN:
            raise RequestError(
                f"{path}: labels of {len(self.classes)} classes; rsedge takes label rasters of up to {UNKNOWN}"
            )
        self.ignore = ignore if mapping is None else None
        self._map = None if mapping is None else {v: self._class(c) for v, c in mapping.items()}
        self._file = open_raster(self.path)
        try:
            if self._file.count != 1:
                raise RequestError(self._many_bands())
            if not self._file.dtypes[0].startswith(("int", "uint", "float")):
                raise RequestError(f"{self.path}: holds {self._file.dtypes[0]} values, class numbers are whole numbers")
            check_same_grid(self._file, self.path, scene, "the labels")
            self._scaled = (self._file.scales[0], self._file.offsets[0]) != (1.0, 0.0)
            self._check_values()
        except RequestError:
            self._file.close()
            raise

    def read(self, row: int, rows: int) -> npt.NDArray[np.int64]:
        """Rows of class numbers, -1 where a pixel does not count."""
        values, skip = self._raw(row, rows)
        numbers = np.full(values.shape, -1, dtype=np.int64)
        if self._map is None:
            numbers[~skip] = values[~skip].astype(np.int64)
            return numbers
        for value, number in self._map.items():
            numbers[~skip & (values == value)] = number
        return numbers

    def whole(self) -> npt.NDArray[np.uint8]:
        """All of it, :data:`UNKNOWN` where a pixel does not count."""
        numbers = self.read(0, self._file.height)
        return np.where(numbers < 0, UNKNOWN, numbers).astype(np.uint8)

    def __enter__(self) -> LabelReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _raw(self, row: int, rows: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Values as they stand there, and those that do not count."""
        window = Window(0, row, self._file.width, rows)
        values = self._file.read([1], window)
        skip = self._file.missing([1], window, values, [])[0]
        if self._map is not None:
            # What a map names is meant, even where the file calls it nodata.
            skip &= ~np.isin(values[0], list(self._map))
        if self.ignore is not None:
            skip |= values[0] == self.ignore
        return values[0], skip

    def _class(self, target: int | str) -> int:
        if target == IGNORE:
            return -1
        if isinstance(target, int) and 0 <= target < len(self.classes):
            return target
        if target in self.classes:
            return self.classes.index(str(target))
        hint = nearest(str(target), self.classes)
        raise RequestError(
            f"{self.path}: map: '{target}' is no class{hint}; classes: {', '.join(self.classes)}, or {IGNORE}"
        )

    def _check_values(self) -> None:
        """Looks at all values once, so that nothing is found out late."""
        found: set[float] = set()
        ignored = empty = 0
        nodata = self._nodata_class()
        for row in range(0, self._file.height, _ROWS):
            values, skip = self._raw(row, min(_ROWS, self._file.height - row))
            ignored += int((values == self.ignore).sum())
            empty += 0 if nodata is None else int((values == nodata).sum())
            found |= set(np.unique(values[~skip]).tolist())
            if len(found) > _SEEN_VALUES:
                break
        known = set(self._map) if self._map is not None else set(range(len(self.classes)))
        strange = sorted((v for v in found if v not in known), key=lambda v: (v != v, v))
        if strange:
            raise RequestError(self._strange(strange, found, known, ignored > 0))
        if self._scaled and self._map is None:
            raise RequestError(
                f"{self.path}: carries a scale or an offset ({self._file.scales[0]:g}, {self._file.offsets[0]:g}), and class "
                f"numbers have neither; say what its values as they are stored mean: {self._map_example(found, ignored > 0)}"
            )
        if empty:
            assert nodata is not None
            # Of 0 and 255 alone, both mean something.
            two = {float(nodata), float(UNKNOWN)} if ignored and not found else {*found, float(nodata)}
            raise RequestError(
                f"{self.path}: {empty} pixels hold {nodata}, which is class '{self.classes[nodata]}' and the file's nodata "
                f"too; say which: {self._map_example(two, ignored > 0 and bool(found))}, or {nodata}{self._to}{IGNORE} there"
            )
        if not self._labelled(found):
            raise RequestError(
                f"{self.path}: holds no label of any class: all of it is nodata, masked or ignored; give the labels of this scene"
            )
        if ignored and self.ignore == UNKNOWN and found == {0.0} and len(self.classes) > 1:
            raise RequestError(
                f"{self.path}: holds 0 and {UNKNOWN} alone, and {UNKNOWN} counts as no label unless a map says so; say what "
                f"they are: {self._map_example({0, UNKNOWN})}"
            )

        if self._map is None and len(self.classes) > 1 and found and min(found) == 1:
            pairs = [(str(i), name) for i, name in enumerate(self.classes, start=1)]
            from_one = self._map_words([*pairs, *([(str(self.ignore), IGNORE)] if ignored else [])])
            self.warnings.append(
                f"{self.path}: no pixel holds 0, class '{self.classes[0]}'; if its numbers start at 1, say so: {from_one}"
            )

    def _nodata_class(self) -> int | None:
        """The file's nodata value, where it is the number of a class and no map says what is meant."""
        nodata = self._file.nodatavals[0]
        if self._map is not None or nodata is None or nodata == self.ignore or not math.isfinite(nodata):
            return None
        return int(nodata) if nodata == round(nodata) and 0 <= nodata < len(self.classes) else None

    def _labelled(self, found: set[float]) -> bool:
        """Whether one of the values is of a class."""
        return any(self._map.get(int(v), -1) >= 0 for v in found) if self._map is not None else bool(found)

    @property
    def _to(self) -> str:
        return "=" if self.wording is Wording.COMMAND else ": "

    def _strange(self, strange: Sequence[float], found: set[float], known: set[int], ignored: bool) -> str:
        named = ", ".join(map(_written, strange[:_NAMED_VALUES])) + (", ..." if len(strange) > _NAMED_VALUES else "")
        what = f"{self.path}: label values that are no class"
        if self._map is not None:
            return f"{what}: {named}, which the map leaves out; name them there too, with a class or {IGNORE}"
        what += f" (0 to {len(self.classes) - 1}): {named}"
        if not np.isfinite(strange).all() and all(v in known for v in found if np.isfinite(v)):
            value = f"{next(v for v in strange if not np.isfinite(v)):g}"
            return (
                f"{what}; where those are pixels without a label, declare it as nodata in the file (gdal_edit.py -a_nodata "
                f"{value}, or rio edit-info --nodata {value})"
            )
        if any(v != round(v) for v in strange if np.isfinite(v)) or not np.isfinite(strange).all():
            return f"{what}; they are fractions, round or threshold them to class numbers first"
        if len(found) > 4 * len(self.classes) + 16:
            return f"{what}; so many values are a picture or a measured quantity, not class numbers"
        leave = f", or leave one out with --ignore {_written(strange[0])}" if self.wording is Wording.COMMAND else ""
        return f"{what}; say what they are: {self._map_example(found, ignored)}{leave}"

    def _map_example(self, found: Collection[float], ignored: bool = False) -> str:
        """A map of few values to the classes in their order; of many, classes stay and the rest is ignored.

        Values below zero stand for no label where there are others. ``ignored``: so does :attr:`ignore`, which is there too.
        """
        below = sorted(v for v in found if v < 0) if any(v >= 0 for v in found) else []
        values = sorted(set(found).difference(below))
        pairs = [(_written(v), t) for v, t in zip(values, self.classes, strict=False)]
        if values == list(range(len(self.classes) + 1)):
            # One value more than there are classes, counted on: classes from 1 on, 0 around them.
            pairs = [("0", IGNORE), *((str(i), t) for i, t in enumerate(self.classes, start=1))]
        elif len(values) > len(self.classes):
            own = dict(enumerate(self.classes))
            pairs = [(_written(v), own.get(int(v), IGNORE)) for v in values]
        left_out = [*map(_written, below), *([str(self.ignore)] if ignored else [])]
        return self._map_words([*pairs, *((v, IGNORE) for v in left_out)])

    def _map_words(self, pairs: Sequence[tuple[str, str]]) -> str:
        if self.wording is Wording.COMMAND:
            return "--label-map " + shlex.quote(",".join(f"{v}={t}" for v, t in pairs))
        return f"labels: {{path: {self.path}, map: {{{', '.join(f'{v}: {t}' for v, t in pairs)}}}}}"

    def _many_bands(self) -> str:
        text = f"{self.path}: has {self._file.count} bands, labels have one"
        if self._file.count in (3, 4) and self._file.dtypes[0] == "uint8":
            text += (
                "; a picture of labels does not do, write the class numbers themselves (e.g. rio calc, gdal_calc.py)"
            )
        return text


def _written(value: float) -> str:
    """A value as a map takes it: whole numbers with all their digits."""
    return f"{value:.0f}" if float(value).is_integer() else f"{value:g}"


def parse_map(text: str) -> dict[int, int | str]:
    """``0=land,255=water`` as a map.

    Raises:
        RequestError: another form, or a value twice.
    """
    found: dict[int, int | str] = {}
    for part in text.split(","):
        value, equals, target = (p.strip() for p in part.partition("="))
        if not equals or not value.removeprefix("-").isdigit() or not target:
            raise RequestError(f"--label-map {text}: write it as VALUE=CLASS,VALUE=CLASS, e.g. 0=land,255=water")
        if int(value) in found:
            raise RequestError(f"--label-map {text}: says twice what {value} is")
        found[int(value)] = int(target) if target.isdigit() else target
    return found
