"""A bundle in Python: opened, and asked. What flies: needs a runtime and no torch (docs/python.md)."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy.typing as npt

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.metrics.verdict import Verdict, verdict_record
from rsedge.data.scenes.label_files import LabelMap
from rsedge.runtimes.bundle import reading
from rsedge.runtimes.bundle.manifest import NODATA_CLASS, Manifest
from rsedge.runtimes.bundle.self_test import EVERY, SelfTested, self_tested
from rsedge.runtimes.inference.options import Options
from rsedge.runtimes.inference.outputs import check_outputs
from rsedge.runtimes.inference.works.base import Call, Labels
from rsedge.runtimes.inference.works.table import Work, unheeded, work_of
from rsedge.runtimes.session import Hint

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
    "probabilities",
    "prompt",
    "prompts",
)
"""Options that say what a file does not: an array is in the contract's bands and units."""


def load(
    path: str | Path,
    key: str | Path | None = None,
    *,
    threads: int | None = None,
    device: str | None = None,
    hint: Hint = "latency",
    self_test: int = EVERY,
) -> Bundle:
    """Opens a bundle, a folder or a ``.zip``: its signature and hashes are checked now, its model is loaded when it is first asked.

    Args:
        key: PEM file of the public key that must have signed it; else one of those that this machine trusts.
        threads: CPU threads; all when not given.
        device: another device of the same runtime, such as ``CPU`` for a bundle made for an NPU.
        hint: ``throughput`` runs several tiles at once (OpenVINO).
        self_test: tiles after which a golden tile is run again; 0 tests at the start alone.

    Raises:
        RequestError: no bundle there.
        IntegrityError: it is not whole, was altered, or its signature is wrong.
    """
    return Bundle(reading.Bundle.open(path, key), _Opening(threads, device, hint, self_test))


@dataclasses.dataclass(frozen=True)
class _Opening:
    threads: int | None
    device: str | None
    hint: Hint
    self_test: int


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
        inner = self._opened.session(o.threads, o.device, o.hint)
        return self._open.enter_context(self_tested(inner, self._opened, o.self_test))

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
        probabilities: str | Path | None = None,
        score: float | None = None,
        prompt: str | None = None,
        prompts: str | Path | None = None,
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
            probabilities: a GeoTIFF to write class probabilities into, beside ``output``.
            score: certainty that an object needs; the bundle's own when not given.
            prompt: the question about a picture; the bundle's own when not given.
            prompts: points and boxes whose masks are wanted (GeoJSON, or CSV of pixels).
            progress: called with the number of tiles done and all.
            warn: called with what is odd about a scene.

        Returns:
            With ``output``, a record of what was written. Else class numbers (H, W) uint8, 255 where nothing is seen; boxes (n, 6)
            of x0, y0, x1, y1 (pixels), score and class number; vectors (K,); of several inputs one for each; of a picture, a text.

        Raises:
            RequestError: the source or an option does not go with this bundle, or the file cannot be written.
            IntegrityError: the golden vector is missed: the memory or the bundle is damaged.
            MissingCapability: this machine lacks the runtime or the device.
        """
        options = Options(
            _paths(after), None if bands is None else tuple(bands), sensor, scale, offset, nodata, nan_nodata,
            any_gsd, overlap, None if probabilities is None else Path(probabilities), score, prompt,
            None if prompts is None else Path(prompts),
        )  # fmt: skip
        call = self._call(options, progress, warn)
        if not isinstance(source, str | Path):
            return self._of_array(call, source, output)
        path = Path(source)
        work = work_of(self._opened, path)
        self._refuse(work, unheeded(work, options.given))
        if output is None:
            if probabilities is not None:
                raise RequestError("predict: probabilities are written beside output; give both")
            return work.inference().read(call, path)
        written = Path(output)
        check_outputs([written, options.probabilities], [self.path, path, options.prompts, *options.after])
        return work.inference().write(call, path, written) | {"verdict": verdict_record(self.verdict)}

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
        ignore: int | None = NODATA_CLASS,
        label_map: LabelMap | None = None,
        progress: Progress | None = None,
        warn: Warn = warnings.warn,
    ) -> dict[str, Any]:
        """How what the model gives for a scene compares with labels, as ``rsedge evaluate`` does it.

        Args:
            source: a GeoTIFF, read as :meth:`predict` reads it.
            labels: class numbers on the scene's grid or a finer scene (GeoTIFF), or a file of boxes (.xml, .json, .csv).
            ignore: label value that does not count, of class numbers.
            label_map: label value -> class name, number or ``ignore``, where the file holds other values than class numbers.

        Returns:
            Of a class map kappa, accuracy, IoU and the confusion matrix; of objects average precision; of a finer image PSNR and
            SSIM; beside what was read and by what.

        Raises:
            RequestError: the source, the labels or an option do not go with this bundle.
            IntegrityError, MissingCapability: as :meth:`predict`.
        """
        options = Options(
            _paths(after), None if bands is None else tuple(bands), sensor, scale, offset, nodata, nan_nodata, any_gsd, overlap
        )  # fmt: skip
        path = Path(source)
        work = work_of(self._opened, path)
        evaluation = work.evaluation(self._opened)
        given = [*options.given, *(["ignore"] if ignore != NODATA_CLASS else []), *(["label_map"] if label_map else [])]
        self._refuse(work, unheeded(work, given))
        call = self._call(options, progress, warn)
        return evaluation.evaluate(call, path, Labels(Path(labels), ignore, label_map))

    def _call(self, options: Options, progress: Progress | None, warn: Warn) -> Call:
        o = self._opening
        return Call(self._opened, options, lambda: self._session, o.threads, o.device, o.self_test, progress, warn)

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


def _paths(given: str | Path | Sequence[str | Path]) -> tuple[Path, ...]:
    return tuple(Path(one) for one in ([given] if isinstance(given, str | Path) else given))
