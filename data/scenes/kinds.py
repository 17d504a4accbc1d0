"""Kinds of scenes that are read: one row each, with how they are known and which files they are made of.

A new kind is a row and a module; how a kind is opened is named, and imported when one is opened.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.data.objects import at_hand, is_address
from rsedge.data.scenes.envi import envi_files, is_envi
from rsedge.data.scenes.sentinel2 import described_by
from rsedge.data.scenes.stac import item_files, names_item

if TYPE_CHECKING:
    from rsedge.data.bands import InputSpec
    from rsedge.data.scenes.raster_file import RasterFile

_MOST_FILES = 1_000_000


def _itself(path: Path) -> list[Path]:
    return [path]


def _with_mask(path: Path) -> list[Path]:
    mask = path.with_name(f"{path.name}.msk")
    return [path, mask] if mask.is_file() else [path]


def _of_store(path: Path) -> list[Path]:
    """All files of a Zarr store, the metadata among them.

    Raises:
        RequestError: no such folder, or one of more files than a scene has.
    """
    if not path.is_dir():
        raise RequestError(f"{path}: no such Zarr store; it is a folder")
    found = sorted(one for one in path.rglob("*") if one.is_file())
    if len(found) > _MOST_FILES:
        raise RequestError(f"{path}: has more than {_MOST_FILES} files; write it in larger chunks")
    return found


@dataclass(frozen=True)
class SceneKind:
    """One row.

    Attributes:
        words: for people.
        opens: gives a :class:`rsedge.data.scenes.raster_file.RasterFile` of a path, contract and sensor; ``module:function``.
        suffixes: of its files, in lower case.
        files: what it is made of, the file named first.
        products: which of them a product's metadata may lie beside.
        applies: whether a path is of this kind, where its suffix alone does not say it.
        listed: whether one that lies in a folder counts as a scene of that folder.
        whole: whether an object is fetched to be opened; else what it names is.
    """

    name: str
    words: str
    opens: str
    suffixes: tuple[str, ...]
    files: Callable[[Path], Sequence[Path]] = _itself
    products: Callable[[Path], Sequence[Path]] = _itself
    applies: Callable[[Path], bool] = lambda path: False
    listed: bool = True
    whole: bool = True

    def is_of(self, path: Path) -> bool:
        """Whether a path is of this kind."""
        return path.suffix.lower() in self.suffixes or self.applies(path)

    def here(self, path: Path) -> Path:
        """What is opened: of an object its copy here."""
        return at_hand(path) if self.whole else path

    def open(self, path: Path, spec: InputSpec | None = None, sensor: str | None = None) -> RasterFile:
        """Opens one; imports what that needs.

        Raises:
            RequestError: it is none, or out of bounds. MissingCapability: an extra is not installed; of an object as
                :func:`rsedge.data.objects.at_hand`.
        """
        module, _, name = self.opens.partition(":")
        try:
            opener = getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            raise MissingCapability(
                f"{path}: {self.words} needs the Python module '{error.name}', which is not here; install it, or give "
                "ENVI or .npz files"
            ) from error
        found: RasterFile = opener(self.here(path), spec, sensor)
        return found


_HERE = __name__.rpartition(".")[0]

SCENE_KINDS: tuple[SceneKind, ...] = (
    SceneKind("geotiff", "GeoTIFF", f"{_HERE}.raster:open_scene", (".tif", ".tiff"), _with_mask),
    SceneKind("envi", "ENVI (BSQ, BIL, BIP)", f"{_HERE}.envi:open_envi", (".hdr",), envi_files, envi_files, is_envi),
    SceneKind("npz", "NumPy arrays", f"{_HERE}.array_files:open_npz", (".npz",)),
    SceneKind("zarr", "Zarr", f"{_HERE}.zarr_store:open_zarr", (".zarr",), _of_store),
    SceneKind(
        "stac",
        "STAC item",
        f"{_HERE}.stack:open_item",
        (),
        item_files,
        item_files,
        names_item,
        listed=False,
        whole=False,
    ),
)
"""All kinds there are; a file of no row is taken as a GeoTIFF, by its content."""


def kind_of(path: Path) -> SceneKind:
    """The row of a path: by its suffix, else by what it is."""
    suffix = path.suffix.lower()
    named = (row for row in SCENE_KINDS if suffix in row.suffixes)
    known = (row for row in SCENE_KINDS if row.applies(path))
    return next(named, None) or next(known, SCENE_KINDS[0])


def files_read(path: Path) -> list[Path]:
    """All files that a scene's values and their meaning come from: what it is made of, and product metadata beside it.

    Raises:
        RequestError: as the kind's ``files``.
    """
    return [at_hand(one) for one in _files_named(path)]


def files_here(path: Path) -> list[Path]:
    """Of :func:`files_read` those that are no objects; none is fetched.

    Raises:
        RequestError: as the kind's ``files``.
    """
    return [] if is_address(path) else [one for one in _files_named(path) if not is_address(one)]


def _files_named(path: Path) -> list[Path]:
    kind = kind_of(path)
    path = kind.here(path)
    about = (file for product in kind.products(path) for file in described_by(product))
    return list(dict.fromkeys([*kind.files(path), *about]))


def listed_suffixes() -> frozenset[str]:
    """Suffixes of what counts as a scene in a folder."""
    return frozenset(suffix for row in SCENE_KINDS if row.listed for suffix in row.suffixes)
