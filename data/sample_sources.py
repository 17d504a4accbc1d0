"""The one door to sets of samples: real sets, survey sets through torchgeo, a user's own table. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from rsedge.data.datasets import dataset_row, datasets
from rsedge.data.document_check import nearest
from rsedge.data.documents import dotted
from rsedge.data.errors import RequestError
from rsedge.data.sample_sets import SAMPLE_SETS
from rsedge.data.samples import Samples
from rsedge.data.sources import data_root
from rsedge.data.tables import SUFFIXES, TableOptions, load_table

Options = TypeVar("Options", bound=BaseModel)
TORCHGEO = "torchgeo:"
SAMPLE_SOURCES: Mapping[str, str] = {
    **{name: found.about for name, found in SAMPLE_SETS.items()},
    **{TORCHGEO + name: row.title for name, row in datasets().items()},
}
"""Names that :func:`load_samples` takes, each with a line about it."""


def load_samples(source: str, root: Path | None = None, **options: Any) -> Samples:
    """Samples by name, or from a table (``.parquet``, ``.csv``, ``.npz``) by path.

    Args:
        source: a name of :data:`SAMPLE_SOURCES`, or the path of a table.
        root: the folder in which the set lies (default: ``RSEDGE_DATA``, or the wheel that brings it; for a survey set its
            name's folder there); for a table, the folder a relative path starts from.
        options: for a table, the fields of :class:`~rsedge.data.tables.TableOptions`; for a survey set, those of
            ``rsedge.data.torchgeo_sets.TorchgeoOptions``.

    Raises:
        RequestError: unknown name or option, or a file that is not what it should be; names file, field and fix.
        MissingCapability: the set is not on this machine.
    """
    if source in SAMPLE_SETS:
        _no_options(source, options)
        return SAMPLE_SETS[source].load(root)
    if source.startswith(TORCHGEO):
        from rsedge.data.torchgeo_sets import TorchgeoOptions, load_torchgeo

        name = dataset_row(source.removeprefix(TORCHGEO)).name
        return load_torchgeo(name, root or data_root() / name, checked_options(source, TorchgeoOptions, options))
    if source.endswith(SUFFIXES):
        return load_table((root or Path()) / source, checked_options(source, TableOptions, options))
    known = list(SAMPLE_SOURCES)
    raise RequestError(
        f"samples '{source}' are unknown{nearest(source, known)}; known: {', '.join(known)}, "
        f"or the path of a {', '.join(SUFFIXES)}"
    )


def _no_options(source: str, options: Mapping[str, Any]) -> None:
    if options:
        raise RequestError(f"samples '{source}' take no options, found {', '.join(options)}")


def checked_options(source: str, model: type[Options], options: Mapping[str, Any]) -> Options:
    """Keyword options as their model.

    Raises:
        RequestError: names the source and each wrong option.
    """
    try:
        return model.model_validate(options)
    except ValidationError as error:
        lines = [f"{dotted(tuple(e['loc'])) or 'options'}: {e['msg']}" for e in error.errors()]
        raise RequestError(f"samples '{source}': " + "; ".join(lines)) from error
