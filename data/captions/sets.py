"""Image-text sets: pairs of an image and its texts from a JSON, JSON Lines, CSV or Parquet file; images are read when asked for.

Layouts of known sets are data (``data/captions/captions.yaml``); any field of them can be given anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import yaml
from pydantic import Field, model_validator

from rsedge.data.document_check import nearest
from rsedge.data.errors import MissingCapability, RequestError
from rsedge.data.files import sha256_file
from rsedge.data.folders import is_file
from rsedge.data.record import Record
from rsedge.data.records import class_names, read_records
from rsedge.data.samples.samples import Samples
from rsedge.data.scenes.images import read_rgb
from rsedge.data.tiles import cut_maps

ASSISTANT = ("gpt", "assistant", "model")


class CaptionLayout(Record):
    """Where a set keeps its images and texts. Paths are relative to the set's root; fields are dotted paths into a record.

    Attributes:
        records: field of the file that holds the list of records; None where the file is the list.
        image: names of the field with the image's path (or, in Parquet, its bytes); the first that a record has counts.
        texts: likewise for the text, the list of texts or the class number.
        turns: field of a conversation, a list of {from, value}; the answers are the texts.
        template: puts a class name or a text into a sentence.
        classes: names for class numbers, where the file does not bring them.
        split: field of the publisher's split.
    """

    file: str
    images: str = "."
    records: str | None = None
    image: list[str] = Field(min_length=1)
    texts: list[str] = Field(default_factory=list)
    turns: str | None = None
    template: str = "{}"
    classes: list[str] = Field(default_factory=list)
    split: str | None = None

    @model_validator(mode="after")
    def _check(self) -> CaptionLayout:
        if bool(self.texts) == bool(self.turns):
            raise ValueError("give texts (a field of texts) or turns (a field of conversations)")
        if self.template.count("{}") != 1:
            raise ValueError("template: write one {} where the text goes")
        return self


class CaptionRow(CaptionLayout):
    """A known set."""

    name: str
    title: str
    licence: str
    where: str


class CaptionOptions(Record):
    """Fields of a layout given anew, and how much is read as samples."""

    layout: dict[str, Any] = Field(
        default_factory=dict, description="fields of the set's layout given anew (docs/data.md)"
    )
    limit: int | None = Field(default=None, ge=1, description="records to read, from the first")
    tile: int = Field(default=224, ge=16, description="edge of the middle of each image (pixels)")
    fit: Literal["crop", "resize"] = Field(
        default="crop", description="crop: that many pixels as they are; resize: the largest square, resampled to them"
    )


@dataclass(frozen=True)
class Pair:
    """An image (a path, or its encoded bytes) with its texts; ``prompts`` are what a person asked, in conversations."""

    image: Path | bytes
    texts: tuple[str, ...]
    prompts: tuple[str, ...] = ()
    split: str | None = None

    def read(self, edge: int | None = None) -> npt.NDArray[np.uint8]:
        """The image as (3, H, W) red, green, blue; with ``edge`` its middle square resampled to so many pixels.

        Raises:
            RequestError: no such file, not readable, or neither one nor three bands of 8 bits.
        """
        return read_rgb(self.image, edge)


@dataclass(frozen=True)
class Captions:
    """Pairs of one set; images are read by :meth:`Pair.read`."""

    name: str
    pairs: tuple[Pair, ...]
    sha256: str

    def samples(self, tile: int, resize: bool = False) -> Samples:
        """The middle ``tile`` pixels of every image as (N, 3, tile, tile) in 0..1 with texts; smaller images are left out.

        With ``resize`` the largest square in the middle of each, resampled to ``tile`` pixels; none is left out.
        """
        kept, values = [], []
        for pair in self.pairs:
            image = pair.read(tile if resize else None)
            y, x = ((edge - tile) // 2 for edge in image.shape[-2:])
            if min(y, x) >= 0:
                values.append(cut_maps(image, (y, x), tile).astype(np.float32) / 255)
                kept.append(pair)
        if not kept:
            raise RequestError(
                f"captions '{self.name}': every image is smaller than {tile} pixels; give a smaller tile"
            )
        left = len(self.pairs) - len(kept)
        splits = [pair.split or "" for pair in kept]
        return Samples(
            f"captions:{self.name}", np.stack(values), ("red", "green", "blue"), "CHW", self.sha256,
            texts=tuple(pair.texts for pair in kept), split=np.array(splits) if any(splits) else None,
            notes=(f"{left} image(s) smaller than the tile were left out",) if left else (),
        )  # fmt: skip


@cache
def caption_rows() -> dict[str, CaptionRow]:
    """Known sets by name."""
    text = resources.files("rsedge.data.captions").joinpath("captions.yaml").read_text(encoding="utf-8")
    return {row["name"]: CaptionRow.model_validate(row) for row in yaml.safe_load(text)}


def caption_row(name: str) -> CaptionRow:
    """A known set.

    Raises:
        RequestError: unknown; names the nearest.
    """
    rows = caption_rows()
    if name not in rows:
        raise RequestError(f"captions '{name}' are unknown{nearest(name, list(rows))}; known: {', '.join(rows)}")
    return rows[name]


def load_captions(name: str, layout: CaptionLayout, root: Path, limit: int | None = None) -> Captions:
    """Pairs of a set under ``root``; every image must be there.

    Raises:
        MissingCapability: the file of texts or an image is not there.
        RequestError: not readable, a record without image or text, or a class number without a name; names file and record.
    """
    path = root / layout.file
    if not path.is_file():
        raise MissingCapability(f"captions '{name}': {path} does not exist; give root, or file in layout")
    names = layout.classes or (class_names(path, layout.texts) if path.suffix == ".parquet" else [])
    records = islice(read_records(path, layout.records), limit)
    pairs = tuple(
        _pair(f"{path}: record {number}", record, layout, root, names) for number, record in enumerate(records, start=1)
    )
    if not pairs:
        raise RequestError(f"{path}: no record")
    absent = [str(p.image) for p in pairs if isinstance(p.image, Path) and not is_file(p.image)]
    if absent:
        raise MissingCapability(
            f"captions '{name}': {len(absent)} of {len(pairs)} images do not exist, first {absent[0]}; "
            "give images in layout, or limit"
        )
    return Captions(name, pairs, sha256_file(path))


def _pair(where: str, record: Any, layout: CaptionLayout, root: Path, names: list[str]) -> Pair:
    if not isinstance(record, dict):
        raise RequestError(f"{where}: a record is a mapping of fields, not {type(record).__name__}")
    image = _image(where, record, layout, root)
    split = record.get(layout.split) if layout.split else None
    prompts: tuple[str, ...] = ()
    if layout.turns:
        prompts, texts = _turns(where, record.get(layout.turns), layout.turns)
    else:
        texts = tuple(_text(where, value, names) for value in _first(where, record, layout.texts, "texts"))
    texts = tuple(layout.template.replace("{}", text.strip()) for text in texts if text.strip())
    if not texts:
        raise RequestError(f"{where}: no text in {', '.join(layout.texts) or layout.turns}")
    return Pair(image, texts, prompts, None if split is None else str(split))


def _image(where: str, record: Mapping[str, Any], layout: CaptionLayout, root: Path) -> Path | bytes:
    value = _first(where, record, layout.image, "image")[0]
    if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
        return bytes(value["bytes"])
    if not isinstance(value, str) or not value:
        raise RequestError(f"{where}: the image is no path, but {type(value).__name__}")
    folder = (root / layout.images).resolve()
    if "\0" in value:
        raise RequestError(f"{where}: image {value[:60]!r} is no name of a file")
    path = (folder / value).resolve()
    # A file of texts comes from others: it may not name files outside of the set.
    if not path.is_relative_to(folder):
        raise RequestError(f"{where}: image '{value}' lies outside of {folder}")
    return path


def _first(where: str, record: Mapping[str, Any], fields: list[str], what: str) -> list[Any]:
    """The values of the first field that the record has, as a list."""
    for name in fields:
        found = _values(record, name.split("."))
        if found:
            return found
    # What it has instead is not told: names in JSON may be anything, and a recipe may name any file of whoever runs it.
    raise RequestError(f"{where}: no field {' or '.join(fields)}; give {what} in layout")


def _values(value: Any, keys: list[str]) -> list[Any]:
    if isinstance(value, list):
        return [found for item in value for found in _values(item, keys)]
    if not keys:
        return [] if value is None or value == "" else [value]
    return _values(value.get(keys[0]), keys[1:]) if isinstance(value, dict) else []


def _text(where: str, value: Any, names: list[str]) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        if 0 <= value < len(names):
            return names[value]
        raise RequestError(f"{where}: class number {value} has no name; give classes in layout")
    raise RequestError(f"{where}: a text is no {type(value).__name__}")


def _turns(where: str, turns: Any, field: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if not isinstance(turns, list) or not all(isinstance(t, dict) and {"from", "value"} <= set(t) for t in turns):
        raise RequestError(f"{where}: '{field}' is no list of turns with from and value")
    asked = tuple(str(t["value"]).replace("<image>", "").strip() for t in turns if t["from"] not in ASSISTANT)
    return asked, tuple(str(t["value"]) for t in turns if t["from"] in ASSISTANT)
