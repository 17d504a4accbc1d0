"""The one door to sets of samples: real sets, survey sets, image-text sets, a user's own table. Nothing is downloaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from rsedge.data.boxes.sets import BOXES, BoxOptions, load_box_set
from rsedge.data.captions.sets import CaptionLayout, CaptionOptions, Captions, caption_row, caption_rows, load_captions
from rsedge.data.document_check import nearest
from rsedge.data.documents import dotted
from rsedge.data.errors import RequestError
from rsedge.data.root import data_root
from rsedge.data.samples.chips import CHIPS, ChipOptions, load_chips
from rsedge.data.samples.finer import FINER, FinerOptions, load_finer
from rsedge.data.samples.pairs import PAIRS, PairOptions, load_pairs
from rsedge.data.samples.samples import Samples
from rsedge.data.samples.tables import SUFFIXES, TableOptions, load_table
from rsedge.data.sets.datasets import TORCHGEO, TorchgeoOptions, dataset_row, datasets
from rsedge.data.sets.sample_sets import SAMPLE_SETS

Options = TypeVar("Options", bound=BaseModel)
CAPTIONS = "captions:"
SAMPLE_SOURCES: Mapping[str, str] = {
    **{name: found.about for name, found in SAMPLE_SETS.items()},
    **{TORCHGEO + name: row.title for name, row in datasets().items()},
    **{CAPTIONS + name: row.title for name, row in caption_rows().items()},
    f"{CAPTIONS}file": "image-text files of one's own, by their layout",
    CHIPS: "images of one's own in a folder, each of the class its sub-folder is called after, or without labels",
    PAIRS: "GeoTIFFs of two dates of one's own, with maps of what has changed",
    FINER: "GeoTIFFs of one's own for super-resolution, with finer ones of the same places where they are known",
    BOXES: "images of one's own with boxes: Pascal VOC, COCO or a table",
}
"""Names that :func:`load_samples` takes, each with a line about it."""


def load_samples(
    source: str, root: Path | None = None, *, fill: Literal["none", "time"] = "none", **options: Any
) -> Samples:
    """Samples by name, or from a table (``.parquet``, ``.csv``, ``.npz``) by path.

    Args:
        source: a name of :data:`SAMPLE_SOURCES`, or the path of a table.
        root: the folder in which the set lies (default: ``RSEDGE_DATA``, or the wheel that brings it; for a survey set its
            name's folder there); for a table, the folder a relative path starts from.
        fill: ``time`` fills gaps from the times before and after, for models without a nodata value.
        options: for a table, the fields of :class:`~rsedge.data.samples.tables.TableOptions`; for ``chips``, those of
            :class:`~rsedge.data.samples.chips.ChipOptions`; for ``pairs``, those of
            :class:`~rsedge.data.samples.pairs.PairOptions`; for ``finer``, those of
            :class:`~rsedge.data.samples.finer.FinerOptions`; for ``boxes``, those of
            :class:`~rsedge.data.boxes.sets.BoxOptions`; for a survey set, those of
            :class:`~rsedge.data.sets.datasets.TorchgeoOptions`; for an image-text set, those of
            :class:`~rsedge.data.captions.sets.CaptionOptions`.

    Raises:
        RequestError: unknown name or option, or a file that is not what it should be; names file, field and fix.
        MissingCapability: the set is not on this machine.
    """
    if fill not in ("none", "time"):
        raise RequestError(f"samples '{source}': fill: 'none' or 'time', not {fill!r}")
    samples = _load(source, root, options)
    return samples.filled() if fill == "time" else samples


def _load(source: str, root: Path | None, options: Mapping[str, Any]) -> Samples:
    if source in SAMPLE_SETS:
        _no_options(source, options)
        return SAMPLE_SETS[source].load(root)
    if source.startswith(TORCHGEO):
        from rsedge.data.sets.torchgeo import load_torchgeo

        name = dataset_row(source.removeprefix(TORCHGEO)).name
        return load_torchgeo(name, root or data_root() / name, checked_options(source, TorchgeoOptions, options))
    if source.startswith(CAPTIONS):
        given = checked_options(source, CaptionOptions, options)
        return open_captions(source, root, given.limit, **given.layout).samples(given.tile, given.fit == "resize")
    if source == CHIPS:
        return load_chips(root, checked_options(source, ChipOptions, options))
    if source == PAIRS:
        return load_pairs(root, checked_options(source, PairOptions, options))
    if source == FINER:
        return load_finer(root, checked_options(source, FinerOptions, options))
    if source == BOXES:
        return load_box_set(root, checked_options(source, BoxOptions, options))
    if source.endswith(SUFFIXES):
        return load_table((root or Path()) / source, checked_options(source, TableOptions, options))
    known = list(SAMPLE_SOURCES)
    raise RequestError(
        f"samples '{source}' are unknown{nearest(source, known)}; known: {', '.join(known)}, "
        f"or the path of a {', '.join(SUFFIXES)}"
    )


OPTION_MODELS: tuple[tuple[str, type[BaseModel]], ...] = (
    (f"^{CHIPS}$", ChipOptions),
    (f"^{PAIRS}$", PairOptions),
    (f"^{FINER}$", FinerOptions),
    (f"^{BOXES}$", BoxOptions),
    (f"^{TORCHGEO}", TorchgeoOptions),
    (f"^{CAPTIONS}", CaptionOptions),
    (rf"({'|'.join(re.escape(suffix) for suffix in SUFFIXES)})$", TableOptions),
)
"""What ``options`` may hold, by a regular expression for the source."""


def options_model(source: object) -> type[BaseModel] | None:
    """The options of a set of samples; None where it takes none, or where they name no files."""
    models: Mapping[str, type[BaseModel]] = {CHIPS: ChipOptions, PAIRS: PairOptions, FINER: FinerOptions}
    return models.get(str(source))


def open_captions(source: str, root: Path | None = None, limit: int | None = None, **layout: Any) -> Captions:
    """An image-text set, ``captions:<name>``, with fields of its layout given anew; ``captions:file`` is all ``layout``.

    Raises:
        RequestError: unknown name or field, or a record that is not what it should be.
        MissingCapability: the set is not under ``root`` (default: the folder of its name under ``RSEDGE_DATA``).
    """
    name = source.removeprefix(CAPTIONS)
    known = {} if name == "file" else caption_row(name).model_dump(include=set(CaptionLayout.model_fields))
    if "turns" in layout or "texts" in layout:
        known = {**known, "turns": None, "texts": []}
    made = checked_options(source, CaptionLayout, {**known, **layout})
    return load_captions(name, made, root or data_root() / name, limit)


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
