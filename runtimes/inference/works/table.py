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
    """

    name: str
    words: str
    applies: Callable[[Manifest, Path | None], bool]
    infers: str
    evaluates: str | None = None
    heeds: frozenset[str] = frozenset()
    dense: bool = True
    gives: str = ""

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
_MAP = _SCENE | {"overlap", "probabilities", "ignore", "label_map"}

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
        f"{_HERE}.objects:ObjectInference", f"{_HERE}.objects:ObjectEvaluation", _SCENE | {"overlap", "score"},
    ),
    Work(
        "images", "finer images of scenes", lambda manifest, source: manifest.finer is not None and _image(manifest),
        f"{_HERE}.images:ImageInference", f"{_HERE}.images:ImageEvaluation", _SCENE | {"overlap"},
    ),
    Work(
        "captions", "captions", lambda manifest, source: manifest.task == "captioning",
        f"{_HERE}.captions:CaptionInference", heeds=frozenset({"prompt"}), dense=False, gives="texts",
    ),
    Work(
        "prompted masks", "masks of what prompts on scenes point at",
        lambda manifest, source: _whole(manifest) == "prompted-masks" and _is_scene(source),
        f"{_HERE}.masks:MaskInference", heeds=(_SCENE | {"prompts"}) - {"hint"}, gives="masks",
    ),
    Work(
        "neighbours", "the nearest items to queries", lambda manifest, source: _whole(manifest) == "retrieval",
        f"{_HERE}.wholes:NeighbourInference", heeds=frozenset(), dense=False, gives="ranks",
    ),
    Work(
        "pictures", "sampled pictures", lambda manifest, source: _whole(manifest) == "sampled-picture",
        f"{_HERE}.wholes:PictureInference", heeds=frozenset(), dense=False, gives="pictures",
    ),
    Work(
        "parts", "what its parts give together for samples", lambda manifest, source: manifest.parts is not None,
        f"{_HERE}.wholes:WholeInference", heeds=frozenset(), dense=False, gives="arrays",
    ),
    Work(
        "chips", "one answer per chip of a scene", lambda manifest, source: _is_scene(source) and _image(manifest),
        f"{_HERE}.vectors:ChipInference", heeds=_SCENE, gives="one answer per chip or sample",
    ),
    Work(
        "samples", "one answer per sample", lambda manifest, source: True,
        f"{_HERE}.vectors:SampleInference", heeds=frozenset({"hint"}), dense=False, gives="one answer per chip or sample",
    ),
)  # fmt: skip
"""All works there are."""


def work_of(bundle: Bundle, source: Path | None) -> Work:
    """What a bundle does with a file, or with an array (None).

    Raises:
        RequestError: samples for a bundle that takes scenes.
    """
    work = next(row for row in WORKS if row.applies(bundle.manifest, source))
    if source is not None and work.dense and not _is_scene(source):
        raise RequestError(f"{source}: this bundle takes scenes; give a GeoTIFF")
    return work


def heeding(option: str) -> tuple[Work, ...]:
    """The works for which an option does something."""
    return tuple(row for row in WORKS if option in row.heeds) or WORKS


def heeded() -> set[str]:
    """Options that do something for some works alone."""
    return {option for row in WORKS for option in row.heeds}


def unheeded(work: Work, options: Iterable[str]) -> list[str]:
    """Those of the options that do nothing for a work."""
    return [option for option in options if work not in heeding(option)]
