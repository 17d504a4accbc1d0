"""The works that bundles do: one row each. Imports nothing heavy: how a work is done is named, and imported when it is done.

``rsedge infer``, ``rsedge evaluate`` and ``rsedge.load(...)`` read this table; a new work is a row and a module.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsedge.data.errors import RequestError
from rsedge.data.scenes.kinds import listed_suffixes

if TYPE_CHECKING:
    from rsedge.runtimes.bundle.manifest import Manifest
    from rsedge.runtimes.bundle.reading import Bundle
    from rsedge.runtimes.inference.works.base import Evaluation, Inference


@dataclass(frozen=True)
class Work:
    """One row.

    Attributes:
        words: what it gives.
        applies: whether a bundle does it with a file, or with an array (None); the first row that applies is taken.
        infers: the :class:`rsedge.runtimes.inference.works.base.Inference`, as ``module:class``.
        evaluates: the :class:`rsedge.runtimes.inference.works.base.Evaluation`, likewise; None where no labels lie on a grid.
        heeds: options that do something for it; one that no row lists does something for all.
        dense: whether it takes scenes alone.
        gives: what there is to compare, where no labels lie on a grid.
        writes: suffixes of what it writes, the usual one first.
        takes: suffixes of files that it is given, where it takes no scenes.
        heads_instead: whether what heads say is written in place of its own answer, not beside it.
    """

    name: str
    words: str
    applies: Callable[[Manifest, Path | None], bool]
    infers: str
    evaluates: str | None = None
    heeds: frozenset[str] = frozenset()
    dense: bool = True
    gives: str = ""
    writes: tuple[str, ...] = (".tif", ".img")
    takes: tuple[str, ...] = (".npz",)
    heads_instead: bool = False

    def inference(self) -> Inference:
        """What infers; imports what it needs."""
        found: Inference = _named(self.infers)()
        return found

    def evaluation(self, bundle: Bundle) -> Evaluation:
        """What compares with labels; imports what it needs.

        Raises:
            RequestError: it gives nothing that labels on a grid could be held against.
        """
        if self.evaluates is None:
            raise RequestError(
                f"{bundle.path}: gives {self.gives or self.words}, no labels on a grid; its recipe's report compares them"
            )
        found: Evaluation = _named(self.evaluates)()
        return found


def _named(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def _maps(layout: str) -> Callable[[Manifest, Path | None], bool]:
    return lambda manifest, source: manifest.task == "segmentation" and manifest.input_spec.layout == layout


def _is_scene(source: Path | None) -> bool:
    return source is not None and source.suffix != ".npz"


def _image(manifest: Manifest) -> bool:
    return manifest.input_spec.layout == "CHW"


def _whole(manifest: Manifest) -> str | None:
    """What runs between a bundle's parts."""
    return None if manifest.parts is None else manifest.parts.whole


_HERE = __name__.rpartition(".")[0]
_SCENE = frozenset({"bands", "sensor", "scale", "offset", "nodata", "nan_nodata", "any_gsd", "hint"})
"""Options of whatever reads scenes."""
_FILTER = frozenset({"filter", "filter_drops", "filter_least"})
_OBJECTS = (".geojson", ".gpkg", ".parquet", ".csv")
_TILED = _SCENE | _FILTER | {"overlap", "align_tiles"}
"""Of whatever cuts scenes into tiles that overlap."""
_MAP = _TILED | {"probabilities", "probability_type", "cog", "ignore", "label_map"}

WORKS: tuple[Work, ...] = (
    Work(
        "maps", "class maps of scenes", _maps("CHW"), f"{_HERE}.maps:MapInference", f"{_HERE}.maps:MapEvaluation", _MAP
    ),
    Work(
        "dates", "class maps of several dates", _maps("TCHW"), f"{_HERE}.maps:MapInference", f"{_HERE}.maps:MapEvaluation",
        _MAP | {"after"},
    ),
    Work(
        "objects", "objects in scenes", lambda manifest, source: manifest.boxes is not None and _image(manifest),
        f"{_HERE}.objects:ObjectInference", f"{_HERE}.objects:ObjectEvaluation", _TILED | {"score"},
        writes=_OBJECTS,
    ),
    Work(
        "images", "finer images of scenes", lambda manifest, source: manifest.finer is not None and _image(manifest),
        f"{_HERE}.images:ImageInference", f"{_HERE}.images:ImageEvaluation", _TILED | {"cog"},
    ),
    Work(
        "features", "maps of features of scenes", lambda manifest, source: manifest.stride is not None and _image(manifest),
        f"{_HERE}.features:FeatureInference", heeds=_TILED | {"cog", "heads"}, heads_instead=True, gives="maps of features",
    ),
    Work(
        "captions", "captions", lambda manifest, source: manifest.task == "captioning",
        f"{_HERE}.captions:CaptionInference", heeds=frozenset({"prompt"}), dense=False, gives="texts",
        writes=(".txt",), takes=(".png", ".jpg", ".jpeg", ".tif", ".tiff"),
    ),
    Work(
        "prompted masks", "masks of what prompts on scenes point at",
        lambda manifest, source: _whole(manifest) == "prompted-masks" and _is_scene(source),
        f"{_HERE}.masks:MaskInference", heeds=(_SCENE | {"prompts"}) - {"hint"}, gives="masks",
        writes=(".geojson", ".tif"),
    ),
    Work(
        "neighbours", "the nearest items to queries", lambda manifest, source: _whole(manifest) == "retrieval",
        f"{_HERE}.wholes:NeighbourInference", heeds=frozenset(), dense=False, gives="ranks",
        writes=(".npz", ".csv"),
    ),
    Work(
        "pictures", "sampled pictures", lambda manifest, source: _whole(manifest) == "sampled-picture",
        f"{_HERE}.wholes:PictureInference", heeds=frozenset(), dense=False, gives="pictures",
        writes=(".npz", ".tif"),
    ),
    Work(
        "parts", "what its parts give together for samples", lambda manifest, source: manifest.parts is not None,
        f"{_HERE}.wholes:WholeInference", heeds=frozenset(), dense=False, gives="arrays",
        writes=(".npz",),
    ),
    Work(
        "chips", "one answer per chip of a scene", lambda manifest, source: _is_scene(source) and _image(manifest),
        f"{_HERE}.vectors:ChipInference", heeds=_SCENE | {"cog", "heads"}, gives="one answer per chip or sample",
        writes=(".tif", ".img", ".parquet"),
    ),
    Work(
        "samples", "one answer per sample", lambda manifest, source: True,
        f"{_HERE}.vectors:SampleInference", heeds=frozenset({"hint", "heads"}), dense=False, gives="one answer per chip or sample",
        writes=(".npz", ".csv"),
    ),
)  # fmt: skip
"""All works there are."""


def work_of(bundle: Bundle, source: Path | None) -> Work:
    """What a bundle does with a file, or with an array (None)."""
    return next(row for row in WORKS if row.applies(bundle.manifest, source))


def taken(manifest: Manifest) -> frozenset[str]:
    """Suffixes of the files that a bundle takes, in lower case: what counts in a folder."""
    scenes = listed_suffixes()
    others = {suffix for row in WORKS for suffix in row.takes}
    found = set()
    for suffix in scenes | others:
        work = next(row for row in WORKS if row.applies(manifest, Path(f"a{suffix}")))
        takes = scenes if work.dense else work.takes
        found |= {suffix} & set(takes)
    return frozenset(found)


def heeding(option: str) -> tuple[Work, ...]:
    """The works for which an option does something."""
    return tuple(row for row in WORKS if option in row.heeds) or WORKS


def heeded() -> set[str]:
    """Options that do something for some works alone."""
    return {option for row in WORKS for option in row.heeds}


def unheeded(work: Work, options: Iterable[str]) -> list[str]:
    """Those of the options that do nothing for a work."""
    return [option for option in options if work not in heeding(option)]
