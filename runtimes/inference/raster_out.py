"""Rasters that are written from top to bottom, appear whole under their names, and are read back before that: a form by its suffix.

A form is a module with ``check_grid``, ``sink``, ``atomic_raster``, ``finish`` and ``read_back``, imported when one is written:
ENVI needs no GDAL.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.data.scenes.kinds import files_read
from rsedge.runtimes.inference.outputs import check_outputs
from rsedge.runtimes.inference.raster_parts import Layer, RowWriter
from rsedge.runtimes.inference.style import PLAIN, Style
from rsedge.runtimes.inference.tiles import Grid, Scene
from rsedge.runtimes.session import Array

GEOTIFF = (".tif", ".tiff")
ENVI = (".img",)
RASTERS = (*GEOTIFF, *ENVI)


@dataclass(frozen=True)
class _Form:
    """One row: suffixes, the module that writes it, and the files that it writes beside."""

    suffixes: tuple[str, ...]
    module: str
    beside: Callable[[Path], list[Path]] = lambda path: []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            module = importlib.import_module(self.module)
        except ModuleNotFoundError as error:
            raise MissingCapability(
                f"{self.suffixes[0]} files need the Python module '{error.name}', which is not here; install it, or "
                "write ENVI (.img)"
            ) from error
        return getattr(module, name)


_HERE = __name__.rpartition(".")[0]
_FORMS = (
    _Form(GEOTIFF, f"{_HERE}.geotiff_out"),
    _Form(ENVI, f"{_HERE}.envi_out", lambda path: [path.with_suffix(".hdr")]),
)


def _form(path: Path) -> _Form:
    """By the suffix; a file without one is a GeoTIFF."""
    return next((form for form in _FORMS if path.suffix.lower() in form.suffixes), _FORMS[0])


def made_of(path: Path) -> list[Path]:
    """All files that an output is made of, itself first; one of no form here is made of itself."""
    return [path, *_form(path).beside(path)]


def sink(path: Path, reader: Grid, layer: Layer) -> AbstractContextManager[RowWriter]:
    """An open raster; it lies where the scene does, as far as its form can say so."""
    found: AbstractContextManager[RowWriter] = _form(path).sink(path, reader, layer)
    return found


def atomic_raster(target: Path) -> AbstractContextManager[Path]:
    """:func:`rsedge.data.files.atomic_path` for a raster and what lies beside it; raises as that."""
    found: AbstractContextManager[Path] = _form(target).atomic_raster(target)
    return found


def finish(temporary: Path, style: Style) -> None:
    """What a style asks of a finished file.

    Raises:
        RequestError: the form cannot do it.
    """
    _form(temporary).finish(temporary, style)


def read_back(temporary: Path, target: Path, wanted: tuple[npt.NDArray[np.int64], int] | None = None) -> None:
    """Reads a finished file before it gets its name.

    Args:
        wanted: what :func:`rsedge.runtimes.inference.raster_parts.count_classes` made of so many classes, in a file of one band.

    Raises:
        MissingCapability: it is not whole. IntegrityError: it holds other values.
    """
    _form(target).read_back(temporary, target, wanted)


@contextlib.contextmanager
def new_raster(path: Path, reader: Grid, layer: Layer) -> Iterator[RowWriter]:
    """A raster on a grid, row by row: it appears when the block ends well. Whether it may lie there is its caller's to ask.

    Raises:
        RequestError: it cannot be written there.
        MissingCapability: the disk is full.
    """
    with atomic_raster(path) as temporary:
        with sink(temporary, reader, layer) as rows:
            yield rows
        finish(temporary, layer.style)
        read_back(temporary, path)


@contextlib.contextmanager
def writing_rows(
    path: Path, reader: Scene, bands: Sequence[str], finer: int, style: Style = PLAIN, step: int = 1
) -> Iterator[RowWriter]:
    """A raster of float32 bands (NaN = nodata) on a grid ``finer`` times finer than a scene's, or of ``step`` x ``step`` of its
    pixels each, row by row, as :func:`infer_scene` writes: it appears when the block ends well.

    Raises:
        RequestError: it would overwrite the scene, or cannot be written there.
        MissingCapability: the disk is full.
    """
    check_rasters(reader, [path])
    with new_raster(path, reader, Layer(bands, "float32", bands, step, finer, style)) as rows:
        yield rows


def write_grid(
    path: Path,
    reader: Scene,
    bands: list[str],
    values: Array,
    classes: Sequence[str],
    step: int,
    style: Style = PLAIN,
) -> None:
    """Writes a grid of (B, rows, cols) values, each over ``step`` x ``step`` pixels of a scene, as :func:`infer_scene` does.

    Raises:
        RequestError: it would overwrite the scene, or cannot be written there.
        MissingCapability: the disk is full.
    """
    check_rasters(reader, [path])
    with new_raster(path, reader, Layer(bands, str(values.dtype), classes, step, style=style)) as rows:
        rows.add(values)


def check_grid(reader: Grid, path: Path) -> None:
    """Before any work: whether a raster's form can say where a scene lies.

    Raises:
        RequestError: it cannot. MissingCapability: the form needs a module that is not here.
    """
    _form(path).check_grid(reader)


def check_rasters(reader: Scene, wanted: list[Path]) -> None:
    """Holds wanted files against what is there and what rasters are called.

    Raises:
        RequestError: another suffix, as :func:`check_grid`, or :func:`rsedge.runtimes.inference.outputs.check_outputs`.
    """
    other = [p for p in wanted if p.suffix and p.suffix.lower() not in RASTERS]
    if other:
        raise RequestError(
            f"{other[0]}: what is written is a GeoTIFF (or ENVI, .img); call it {other[0].with_suffix('.tif').name}"
        )
    check_outputs([one for p in wanted for one in made_of(p)], files_read(reader.path))
    for path in wanted:
        check_grid(reader, path)
