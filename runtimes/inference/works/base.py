"""What the works share: what is asked of a bundle, how a scene is opened, and the forms of inference and evaluation."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rsedge.data.errors import RequestError
from rsedge.data.objects import address_of
from rsedge.data.scenes.geotiff import SceneReader
from rsedge.data.scenes.geotiff_dates import DatesReader, one_date
from rsedge.data.scenes.whereabouts import footprint_of
from rsedge.runtimes.bundle.manifest import NODATA_CLASS
from rsedge.runtimes.bundle.reading import Bundle
from rsedge.runtimes.bundle.self_test import SelfTested
from rsedge.runtimes.inference.options import Options
from rsedge.runtimes.inference.scene_run import SceneRun, warning_of
from rsedge.runtimes.inference.screening import Screen, screened
from rsedge.runtimes.inference.style import PROBABILITY_TYPES, Style, provenance_tags
from rsedge.runtimes.inference.tiles import Progress, Scene
from rsedge.runtimes.inference.works.arrays import Array, ArrayScene, batch_of

if TYPE_CHECKING:
    from rsedge.data.scenes.label_files import LabelMap

Reader = SceneReader | DatesReader


@dataclass(frozen=True)
class Call:
    """What is asked of an opened bundle.

    Attributes:
        session: opens the bundle's model, or gives the one that is open; called when the source is known to be readable.
        threads, device, self_test: how a work opens models of its own, as :func:`rsedge.load` takes them.
        warn: is told what is odd about a scene.
        version: of rsedge, for what is written.
    """

    bundle: Bundle
    options: Options
    session: Callable[[], SelfTested]
    threads: int | None
    device: str | None
    self_test: int
    progress: Progress | None
    warn: Callable[[str], object]
    version: str = ""

    @property
    def style(self) -> Style:
        """How rasters are written.

        Raises:
            RequestError: probabilities in a type that they are not stored in.
        """
        kind = self.options.probability_type
        if kind not in PROBABILITY_TYPES:
            raise RequestError(f"--probability-type {kind}: choose {' or '.join(PROBABILITY_TYPES)}")
        return Style(provenance_tags(self.bundle, self.version), self.options.cog, kind)


@dataclass(frozen=True)
class Labels:
    """A file of what is known of a scene.

    Attributes:
        ignore: value that does not count, in a map of class numbers.
        mapping: file value -> class name, number or ``ignore``, where such a map holds other values.
    """

    path: Path
    ignore: int | None = NODATA_CLASS
    mapping: LabelMap | None = None


class Inference(ABC):
    """How bundles do one work."""

    @abstractmethod
    def write(self, call: Call, source: Path, output: Path) -> dict[str, Any]:
        """Writes what the bundle gives for a file; returns what was written and found, from what, by what, and how long it took.

        Raises:
            RequestError: the file cannot be read, an option does not fit, or the output cannot be written so.
            IntegrityError, MissingCapability: as the session and :func:`rsedge.data.files.atomic_path`.
        """

    @abstractmethod
    def read(self, call: Call, source: Path) -> Any:
        """As :meth:`write`, but the answer itself."""

    @abstractmethod
    def array(self, call: Call, values: Array) -> Any:
        """The answer to an array: one input of the contract, or several; of several an answer for each.

        Raises:
            RequestError: another shape or type; says what is needed.
        """

    @abstractmethod
    def text(self, record: dict[str, Any]) -> str:
        """What :meth:`write` did, in a line or two."""


class SceneInference(Inference):
    """Works that answer for scenes of any size, as files and as arrays."""

    def write(self, call: Call, source: Path, output: Path) -> dict[str, Any]:
        with contextlib.ExitStack() as stack:
            reader = stack.enter_context(open_scene(call, source))
            # Before a filter runs: that is a whole scene, too.
            self.check(call, reader, output)
            screen = stack.enter_context(screen_before(call, source, reader))
            session = call.session()
            found = self.write_scene(call, session, reader, output)
            filtered = {} if screen is None else {"filter": screen.record(infer_seconds(found))}
            return {**found, **filtered, **provenance(call.bundle, session, reader)}

    def read(self, call: Call, source: Path) -> Any:
        with open_scene(call, source) as reader, screen_before(call, source, reader):
            return self._answer(call, call.session(), reader)

    def array(self, call: Call, values: Array) -> Any:
        spec = call.bundle.manifest.input_spec
        batch, one = batch_of(values, spec, any_size=True)
        session = call.session()
        answers = [self._answer(call, session, ArrayScene(image, spec)) for image in batch]
        return answers[0] if one else self.several(answers)

    def _answer(self, call: Call, session: SelfTested, scene: Scene) -> Array:
        run = SceneRun()
        found = self.answer(call, session, scene, run)
        if (warning := warning_of(run)) is not None:
            call.warn(f"{scene.path}: {warning}")
        return found

    def several(self, answers: Sequence[Array]) -> Any:
        """The answers to several inputs as one."""
        return np.stack(answers)

    @abstractmethod
    def check(self, call: Call, reader: Reader, output: Path) -> None:
        """Before any work: whether :meth:`write_scene` can write there; raises as it does."""

    @abstractmethod
    def write_scene(self, call: Call, session: SelfTested, reader: Reader, output: Path) -> dict[str, Any]:
        """Writes the answer; returns what was written and found, and how long it took."""

    @abstractmethod
    def answer(self, call: Call, session: SelfTested, scene: Scene, run: SceneRun) -> Array:
        """The answer itself; ``run`` is told of tiles without one."""


class Evaluation(ABC):
    """How a bundle's answers are compared with labels."""

    def evaluate(self, call: Call, source: Path, labels: Labels) -> dict[str, Any]:
        """Figures of a scene's answers against labels, and from what and by what they come.

        Raises:
            RequestError: scene or labels cannot be read, or do not go together.
            IntegrityError, MissingCapability: as the session.
        """
        with open_scene(call, source) as reader:
            session = call.session()
            record = self.compare(call, session, reader, labels)
            return {**record, "labels": str(labels.path), **provenance(call.bundle, session, reader)}

    @abstractmethod
    def compare(self, call: Call, session: SelfTested, reader: Reader, labels: Labels) -> dict[str, Any]:
        """The figures; raises as :meth:`evaluate`."""

    @abstractmethod
    def text(self, record: dict[str, Any]) -> str:
        """The figures in words, for a terminal."""


@contextlib.contextmanager
def open_scene(call: Call, source: Path) -> Iterator[Reader]:
    """One scene, or several dates of it; what is odd about it is told."""
    spec, options = call.bundle.manifest.input_spec, call.options
    scenes = [source, *options.after]
    with contextlib.ExitStack() as stack:
        readers = [
            stack.enter_context(SceneReader(scene, one_date(spec), bands=options.bands, **options.reading))
            for scene in scenes
        ]
        reader = readers[0] if spec.layout == "CHW" and len(readers) == 1 else DatesReader(readers, spec)
        for warning in reader.warnings:
            call.warn(warning)
        if options.align_tiles:
            reader.first_pixel = _on_map(reader, call.warn)
        yield reader


def _on_map(reader: Reader, warn: Callable[[str], object]) -> tuple[int, int]:
    """The first pixel's place on the map's grid."""
    if reader.transform.is_identity:
        warn(f"{reader.path}: lies nowhere on a map, so that its tiles begin at its own edge")
        return 0, 0
    return reader.transform.first_pixel


@contextlib.contextmanager
def screen_before(call: Call, source: Path, reader: Reader) -> Iterator[Screen | None]:
    """Puts what a filter finds on a scene in front of its reader; None where none is asked for."""
    screening, options = call.options.filter, call.options
    if screening is None:
        yield None
        return
    spec = screening.bundle.manifest.input_spec
    with contextlib.ExitStack() as stack:
        dates = [
            stack.enter_context(SceneReader(scene, spec, bands=options.bands, **options.reading))
            for scene in [source, *options.after]
        ]
        for date in dates:
            date.first_pixel = reader.first_pixel
        reader.screen = stack.enter_context(screened(screening, dates, call.progress))
        yield reader.screen


def infer_seconds(found: dict[str, Any]) -> float | None:
    """Processor seconds of the model alone, where a record has them."""
    seconds: float | None = found.get("run", {}).get("seconds", {}).get("infer")
    return seconds


def provenance(bundle: Bundle, session: SelfTested, reader: Reader) -> dict[str, Any]:
    """What was read, by which bundle and runtime, and what was odd about it."""
    manifest = bundle.manifest
    return {
        "scene": address_of(reader.path),
        "units": reader.units.source,
        "gsd_m": reader.gsd_m,
        **place_of(reader),
        "bundle": str(bundle.path),
        "target": manifest.target.name,
        **bundle.signature.record(),
        "device": session.device,
        "runtime": session.runtime,
        "runtime_version": session.runtime_version,
        "self_test": session.record(),
        "warnings": reader.warnings,
    }


def place_of(reader: Reader) -> dict[str, Any]:
    """``crs`` (as text), ``transform`` (a, b, c, d, e, f) and ``footprint``, the corners' longitudes and latitudes, closed; None
    where the scene does not say."""
    if reader.crs is None:
        return {"crs": None, "transform": None, "footprint": None}
    footprint = footprint_of(reader.crs, reader.transform, reader.height, reader.width)
    return {"crs": str(reader.crs), "transform": list(reader.transform), "footprint": footprint}


def score_text(value: float | None) -> str:
    """A score with four decimals, or that there is none: one class alone has no kappa."""
    return "not defined" if value is None else f"{value:.4f}"
