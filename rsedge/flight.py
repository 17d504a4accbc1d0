"""A bundle in Python: opened, and asked. What flies: needs a runtime and no torch (docs/python.md)."""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.metrics.verdict import Verdict, verdict_record
from rsedge.data.objects import at_hand
from rsedge.data.scenes.kinds import files_read
from rsedge.devices.onboard.metering import metered
from rsedge.runtimes.bundle import reading
from rsedge.runtimes.bundle.head import Head, beside, open_head
from rsedge.runtimes.bundle.manifest import NODATA_CLASS, Manifest
from rsedge.runtimes.bundle.self_test import EVERY, SelfTested, self_tested
from rsedge.runtimes.inference import many
from rsedge.runtimes.inference.beside import Asset, write_beside
from rsedge.runtimes.inference.options import Options
from rsedge.runtimes.inference.outputs import check_outputs
from rsedge.runtimes.inference.raster_out import made_of
from rsedge.runtimes.inference.sources import Source
from rsedge.runtimes.inference.sources import sources as scene_sources
from rsedge.runtimes.inference.style import provenance_tags
from rsedge.runtimes.inference.works.base import Call, Labels
from rsedge.runtimes.inference.works.table import Work, taken, unheeded, work_of
from rsedge.runtimes.session import Hint
from rsedge.version import __version__

if TYPE_CHECKING:
    from rsedge.runtimes.inference.screening import Screening

if TYPE_CHECKING:
    from rsedge.data.scenes.label_files import LabelMap

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]
Warn = Callable[[str], object]
ARRAY = (
    "after",
    "bands",
    "sensor",
    "scale",
    "offset",
    "nodata",
    "nan_nodata",
    "any_gsd",
    "align_tiles",
    "probabilities",
    "prompt",
    "prompts",
    "cog",
    "probability_type",
    "heads",
    "filter",
)
"""Options that say what a file does not: an array is in the contract's bands and units."""


def load(
    path: str | Path,
    key: str | Path | None = None,
    *,
    threads: int | None = None,
    device: str | None = None,
    hint: Hint | None = None,
    self_test: int = EVERY,
) -> Bundle:
    """Opens a bundle, a folder or a ``.zip``: its signature and hashes are checked now, its model is loaded when it is first asked.

    Args:
        key: PEM file of the public key that must have signed it; else one of those that this machine trusts.
        threads: CPU threads; all when not given.
        device: another device of the same runtime, such as ``CPU`` for a bundle made for an NPU.
        hint: ``throughput`` runs several tiles at once (OpenVINO), ``latency``, the usual one, a tile as fast as can be.
        self_test: tiles after which a golden tile is run again; 0 tests at the start alone.

    Raises:
        RequestError: no bundle there.
        IntegrityError: it is not whole, was altered, or its signature is wrong.
    """
    return Bundle(
        reading.Bundle.open(path, key), _Opening(threads, device, hint, self_test, None if key is None else Path(key))
    )


@dataclasses.dataclass(frozen=True)
class _Opening:
    threads: int | None
    device: str | None
    hint: Hint | None
    self_test: int
    key: Path | None


class Bundle:
    """An opened bundle; a context manager, as its model stays loaded until it is closed."""

    def __init__(self, opened: reading.Bundle, opening: _Opening) -> None:
        self._opened, self._opening, self._open = opened, opening, ExitStack()
        self._open.callback(opened.close)

    @property
    def opened(self) -> reading.Bundle:
        """What lies behind it: files, golden vector, signature."""
        return self._opened

    @property
    def path(self) -> Path:
        return self._opened.path

    @property
    def manifest(self) -> Manifest:
        return self._opened.manifest

    @property
    def spec(self) -> InputSpec:
        """The band contract: what one input is."""
        return self.manifest.input_spec

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.manifest.classes)

    @property
    def task(self) -> str:
        return self.manifest.task

    @property
    def target(self) -> str:
        return self.manifest.target.name

    @property
    def verdict(self) -> Verdict | None:
        """What became of the gates of the recipe that made it; worth as much as the signature."""
        return self.manifest.verdict

    @property
    def passed(self) -> bool:
        """Whether there were gates, and none of them failed."""
        return self.verdict is not None and bool(self.verdict.gates) and all(g.passed for g in self.verdict.gates)

    @cached_property
    def _session(self) -> SelfTested:
        o = self._opening
        inner = self._opened.session(o.threads, o.device, o.hint or "latency")
        return self._open.enter_context(self_tested(inner, self._opened, o.self_test))

    def tune_for_many(self, source: Path) -> None:
        """Many tiles of such files are to come: a model that is not loaded yet is tuned for throughput, where :func:`load` was not
        told, the work keeps several tiles in flight and the engine knows how."""
        o, opened = self._opening, self._opened
        engine = opened.backend.engine(opened.target.device, o.device, opened.built(o.device) is not None)
        if o.hint is None and "hint" in engine.heeds & work_of(opened, source).heeds:
            self._opening = dataclasses.replace(o, hint="throughput")

    @property
    def session(self) -> SelfTested:
        """The loaded model, which proves itself by the golden vector; for one thread at a time."""
        return self._session

    def head(self, path: str | Path) -> Head:
        """A head of this encoder: called with vectors (N, D) it gives its outputs (N, K).

        Raises:
            RequestError, IntegrityError: as :func:`rsedge.runtimes.bundle.head.open_head`.
        """
        return open_head(path, self._opened, self._opening.key)

    def heads(self, given: Sequence[str | Path | Head]) -> tuple[Head, ...]:
        """Several heads of this encoder, whose answers can lie beside one another.

        Raises:
            RequestError, IntegrityError: as :meth:`head`; two have one name.
        """
        heads = tuple(one if isinstance(one, Head) else self.head(one) for one in given)
        names = [head.record.name for head in heads]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise RequestError(
                f"heads: two are called '{twice[0]}', and their answers would have one name; give one of them"
            )
        return heads

    def predict(
        self,
        source: str | Path | Array,
        output: str | Path | None = None,
        *,
        after: str | Path | Sequence[str | Path] = (),
        bands: Sequence[str] | None = None,
        sensor: str | None = None,
        scale: float | None = None,
        offset: float | None = None,
        nodata: float | None = None,
        nan_nodata: bool = False,
        any_gsd: bool = False,
        overlap: int | None = None,
        align_tiles: bool = False,
        probabilities: str | Path | None = None,
        score: float | None = None,
        prompt: str | None = None,
        prompts: str | Path | None = None,
        heads: Sequence[str | Path | Head] = (),
        filter: Bundle | None = None,
        filter_drops: Sequence[str] = (),
        filter_least: float | None = None,
        cog: bool = False,
        probability_type: str = "float32",
        progress: Progress | None = None,
        warn: Warn = warnings.warn,
    ) -> Any:
        """What the model gives for a scene, samples, a picture or an array.

        Args:
            source: a GeoTIFF of any size, an ``.npz`` of samples, a picture (captions), or an array: one image (C, H, W) of any
                size or several, samples of the contract's shape or one; whole numbers are digital numbers, floats physical values.
            output: the file to write, as ``rsedge infer`` does; then the answer is its record.
            after: later dates on the same grid, where the model compares dates.
            bands: names of all the scene's bands in their order, where it does not name them.
            sensor, scale, offset, nodata, nan_nodata, any_gsd: what the scene's numbers are, where it does not say.
            overlap: of neighbouring tiles (pixels).
            align_tiles: tiles begin on a grid of the map and not of the scene, so that, a tile away from its edges, the answer does
                not depend on where the scene was cut; up to a row and a column of tiles more are run.
            probabilities: a GeoTIFF to write class probabilities into, beside ``output``.
            score: certainty that an object needs; the bundle's own when not given.
            prompt: the question about a picture; the bundle's own when not given.
            prompts: points and boxes whose masks are wanted (GeoJSON, or CSV of pixels).
            heads: heads of this encoder (:mod:`rsedge.runtimes.bundle.head`), whose answers are written beside ``output`` as
                ``NAME.HEAD.tif``, or in place of a map of features; the encoder runs once for all.
            filter: a smaller bundle that maps the scene first; what it calls one of ``filter_drops`` is nodata here, and tiles of
                which less than ``filter_least`` (a share; a twentieth when not given) is left are not run.
            cog: write rasters as cloud-optimised GeoTIFFs, with overviews.
            probability_type: ``float32``, or ``uint8`` with scale tags, a quarter of the size.
            progress: called with the number of tiles done and all.
            warn: called with what is odd about a scene; without ``output`` also with how many of its tiles have no answer.

        Returns:
            With ``output``, a record of what was written. Else class numbers (H, W) uint8, 255 where nothing is seen; boxes (n, 6)
            of x0, y0, x1, y1 (pixels), score and class number, turned ones (n, 7) with the angle (radians) last; vectors (K,); of
            several inputs one for each; of a picture, a text.

        Raises:
            RequestError: the source or an option does not go with this bundle, or the file cannot be written.
            IntegrityError: the golden vector is missed: the memory or the bundle is damaged.
            MissingCapability: this machine lacks the runtime or the device.
        """
        options = Options(
            _paths(after), None if bands is None else tuple(bands), sensor, scale, offset, nodata, nan_nodata,
            any_gsd, overlap, None if probabilities is None else Path(probabilities), score, prompt,
            None if prompts is None else Path(prompts), heads=self.heads(heads),
            filter=_screening(filter, filter_drops, filter_least), cog=cog, probability_type=probability_type,
            align_tiles=align_tiles,
        )  # fmt: skip
        call = self._call(options, progress, warn)
        if not isinstance(source, str | Path):
            return self._of_array(call, source, output)
        path = Path(source)
        work = work_of(self._opened, path)
        self._refuse(work, unheeded(work, options.given))
        if output is None:
            if probabilities is not None or options.heads:
                what = "probabilities" if probabilities is not None else "answers of heads"
                raise RequestError(f"predict: {what} are written beside output; give both")
            return work.inference().read(call, path)
        written = Path(output)
        own = [] if work.heads_instead and options.heads else [written]
        named = [*own, options.probabilities, *(beside(written, head) for head in options.heads)]
        bundles = [self.path, self._opening.key, *([] if filter is None else [filter.path])]
        check_outputs(
            [file for one in named if one is not None for file in made_of(one)],
            [*bundles, *files_read(path), *options.files, *(head.path for head in options.heads)],
        )
        with metered() as since:
            found = work.inference().write(call, path, written)
            _add_energy(found, since)
        return found | {"verdict": verdict_record(self.verdict)}

    def predict_into(
        self,
        source: str | Path,
        folder: str | Path,
        *,
        name: str | None = None,
        form: str | None = None,
        again: bool = False,
        probabilities: str | Path | None = None,
        progress: Progress | None = None,
        warn: Warn = warnings.warn,
        **options: Any,
    ) -> dict[str, Any]:
        """What the model gives for one scene, into a folder, with a record beside it; a scene that is done already is left alone.

        Args:
            folder: where outputs lie; made where it is not there.
            name: of the outputs, without a suffix; the scene's own when not given. May have folders in it.
            form: of the outputs, such as ``csv`` for objects; the usual one when not given.
            again: do it anew, whatever its record says.
            probabilities: a folder for class probabilities, as ``NAME.probabilities.tif``.
            options: as :meth:`predict` takes them.

        Returns:
            ``status`` (``done`` or ``skipped``), ``scene``, ``output``, ``record`` (beside the output, JSON) and what
            :meth:`predict` says.

        Raises:
            RequestError, IntegrityError, MissingCapability: as :meth:`predict`.
        """
        path = Path(source)
        options["heads"] = heads = self.heads(options.get("heads", ()))
        where = self._places(Source(path, name or path.stem), Path(folder), form, probabilities, heads)

        def run() -> dict[str, Any]:
            found: dict[str, Any] = self.predict(
                path, where.output, probabilities=where.probabilities, progress=progress, warn=warn, **options
            )
            about = {"version": __version__, "tags": provenance_tags(self._opened, __version__)}
            made = write_beside(_assets(where, found), name or path.stem, path, found, about)
            return found | {"beside": [str(one) for one in made]}

        prompts = options.get("prompts")
        also = Options(_paths(options.get("after", ())), prompts=None if prompts is None else Path(prompts)).files
        return many.into_folder(path, where, self._made_by(options), again, run, also)

    def _places(
        self,
        source: Source,
        folder: Path,
        form: str | None = None,
        probabilities: str | Path | None = None,
        heads: Sequence[Head] = (),
    ) -> many.Places:
        """Where what is made of a scene lies; raises as :func:`rsedge.runtimes.inference.many.suffix_of`."""
        work = work_of(self._opened, source.path)
        extra = None if probabilities is None else Path(probabilities)
        where = many.places(folder, source.name, many.suffix_of(form, work.writes, work.words), extra)
        apart = {head.record.name: beside(where.output, head) for head in heads}
        return dataclasses.replace(where, heads=apart, heads_instead=work.heads_instead)

    def predict_all(
        self,
        sources: Sequence[str | Path],
        folder: str | Path,
        *,
        on_scene: Callable[[dict[str, Any]], None] = lambda record: None,
        progress: Callable[[int, int, Source, int, int], None] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Many scenes into a folder, by one model opened once; one that fails is listed, and the others go on.

        Args:
            sources: files, folders, patterns, lists of paths (``.txt``), STAC items and collections on this disk.
            on_scene: called with each scene's record once it is done, skipped or failed.
            progress: called with the scene's number (from 0), how many there are, the scene, its tiles done and all.
            options: as :meth:`predict_into` takes them.

        Returns:
            ``done``, ``skipped``, ``failed`` (numbers), ``seconds``, ``scenes`` (their records; of one that failed ``error``),
            ``exit_code`` (0; 5 where some failed; that of the failure where all did; 3 where single tiles of
            scenes did).

        Raises:
            RequestError: nothing there, or two scenes whose outputs would have one name or would write over the other scene.
            IntegrityError: the golden vector is missed: the memory or the bundle is damaged.
        """
        options["heads"] = heads = self.heads(options.get("heads", ()))
        found = self.scenes(sources, folder, options.get("form"), options.get("probabilities"), heads)

        def one(number: int, source: Source) -> dict[str, Any]:
            def step(done: int, total: int) -> None:
                if progress is not None:
                    progress(number, len(found), source, done, total)

            return self.predict_into(source.path, folder, name=source.name, progress=step, **options)

        return many.summary(list(many.each_into_folder(found, one, on_scene)))

    def scenes(
        self,
        sources: Sequence[str | Path],
        folder: str | Path,
        form: str | None = None,
        probabilities: str | Path | None = None,
        heads: Sequence[str | Path | Head] = (),
    ) -> list[Source]:
        """What arguments name for this bundle, each scene with the name of its outputs in ``folder``; raises as
        :meth:`predict_all`."""
        found = scene_sources(sources, taken(self.manifest), [Path(one) for one in (folder, probabilities) if one])
        placing = (Path(folder), form, probabilities, self.heads(heads))
        many.check_apart([(source, self._places(source, *placing)) for source in found])
        return found

    def _made_by(self, options: dict[str, Any]) -> dict[str, Any]:
        """What an answer depends on beside its source; options that are left as they are do not count, whoever writes them out."""
        plain = {name: one.default for name, one in inspect.signature(self.predict).parameters.items()}
        settings = {name: _identity(value) for name, value in options.items() if value != plain.get(name)}
        bundle = {"name": self.manifest.name, "target": self.target, "manifest_sha256": self._opened.manifest_sha256}
        return {"bundle": bundle, "settings": settings, "device": self._opening.device, "rsedge": __version__}

    def evaluate(
        self,
        source: str | Path,
        labels: str | Path,
        *,
        after: str | Path | Sequence[str | Path] = (),
        bands: Sequence[str] | None = None,
        sensor: str | None = None,
        scale: float | None = None,
        offset: float | None = None,
        nodata: float | None = None,
        nan_nodata: bool = False,
        any_gsd: bool = False,
        overlap: int | None = None,
        align_tiles: bool = False,
        ignore: int | None = NODATA_CLASS,
        label_map: LabelMap | None = None,
        progress: Progress | None = None,
        warn: Warn = warnings.warn,
    ) -> dict[str, Any]:
        """How what the model gives for a scene compares with labels, as ``rsedge evaluate`` does it.

        Args:
            source: a GeoTIFF, read as :meth:`predict` reads it.
            labels: class numbers on the scene's grid or a finer scene (GeoTIFF), or a file of boxes (.xml, .json, .csv,
                .txt, .geojson, .gpkg).
            ignore: label value that does not count, of class numbers.
            label_map: label value -> class name, number or ``ignore``, where the file holds other values than class numbers.

        Returns:
            Of a class map kappa, accuracy, IoU and the confusion matrix; of objects average precision; of a finer image PSNR and
            SSIM; beside what was read and by what.

        Raises:
            RequestError: the source, the labels or an option do not go with this bundle.
            IntegrityError, MissingCapability: as :meth:`predict`. A tile without an answer raises what became of it.
        """
        options = Options(
            _paths(after), None if bands is None else tuple(bands), sensor, scale, offset, nodata, nan_nodata, any_gsd, overlap,
            align_tiles=align_tiles,
        )  # fmt: skip
        path = Path(source)
        work = work_of(self._opened, path)
        evaluation = work.evaluation(self._opened)
        given = [*options.given, *(["ignore"] if ignore != NODATA_CLASS else []), *(["label_map"] if label_map else [])]
        self._refuse(work, unheeded(work, given))
        call = self._call(options, progress, warn)
        return evaluation.evaluate(call, path, Labels(at_hand(Path(labels)), ignore, label_map))

    def _call(self, options: Options, progress: Progress | None, warn: Warn) -> Call:
        o = self._opening
        return Call(
            self._opened, options, lambda: self._session, o.threads, o.device, o.self_test, progress, warn, __version__
        )

    def _of_array(self, call: Call, values: Array, output: str | Path | None) -> Any:
        if output is not None:
            raise RequestError(
                "predict: an array lies nowhere on the earth, so no file is written of it; leave output out"
            )
        work, given = work_of(self._opened, None), call.options.given
        idle = unheeded(work, given)
        self._refuse(work, [name for name in given if name in idle or name in ARRAY], " for an array")
        return work.inference().array(call, values)

    def _refuse(self, work: Work, idle: Sequence[str], where: str = "") -> None:
        if idle:
            raise RequestError(
                f"{self.path}: {', '.join(idle)} would be ignored, as this gives {work.words}{where}; leave it out"
            )

    def close(self) -> None:
        """Lets go of the model and of what was unpacked."""
        self._open.close()

    def __enter__(self) -> Bundle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<rsedge.Bundle {self.manifest.name}, {self.task} for {self.target}, {self._opened.signature}>"


def _assets(where: many.Places, found: dict[str, Any]) -> list[Asset]:
    """What was written of a scene, with the names of the classes that a map counts."""
    of = {"result": found, **found.get("heads", {})}
    return [Asset(key, place, tuple(of.get(key, {}).get("pixels", ()))) for key, place in where.assets.items()]


def _identity(value: Any) -> Any:
    """What stands for an option in a record by which a finished scene is known."""
    if isinstance(value, Bundle):
        return value._opened.manifest_sha256
    if isinstance(value, Head):
        return value.sha256
    return [_identity(one) for one in value] if isinstance(value, tuple | list) else value


def _add_energy(found: dict[str, Any], since: Callable[[], dict[str, Any]]) -> None:
    """What a scene took of the machine, and (predicted) what its filter saved, into the record.

    What is saved goes by the joules for each processor second of this process, both over all of the stretch that was metered:
    opening the model, the self-test and the filter too, which the run's own ``processor_s`` leaves out.
    """
    if "run" not in found:
        return
    run = found["run"]
    run |= since()
    screen = found.get("filter")
    if screen is not None:
        saved, energy = screen["saved_processor_s"], run["energy"]
        known = saved is not None and energy is not None and energy["processor_s"]
        screen["predicted_saved_joules"] = round(saved * energy["joules"] / energy["processor_s"], 3) if known else None


def _screening(bundle: Bundle | None, drops: Sequence[str], least: float | None) -> Screening | None:
    if bundle is None:
        if drops or least is not None:
            raise RequestError("filter_drops and filter_least are about a filter: give filter as well")
        return None
    from rsedge.runtimes.inference.screening import LEAST, Screening

    return Screening(bundle.opened, lambda: bundle._session, tuple(drops), LEAST if least is None else least)


def _paths(given: str | Path | Sequence[str | Path]) -> tuple[Path, ...]:
    return tuple(Path(one) for one in ([given] if isinstance(given, str | Path) else given))
