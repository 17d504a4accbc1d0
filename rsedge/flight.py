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
from rsedge.runtimes.bundle import reading
from rsedge.runtimes.bundle.manifest import Manifest
from rsedge.runtimes.bundle.self_test import EVERY, SelfTested, self_tested
from rsedge.runtimes.inference.outputs import check_outputs
from rsedge.runtimes.inference.pictures import caption, infer_caption
from rsedge.runtimes.inference.predict import Asked, answer_array, read_answer, write_answer
from rsedge.runtimes.inference.works import HEEDED, WORK_WORDS, WORKS, Work, work_of
from rsedge.runtimes.session import Hint

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]
Warn = Callable[[str], object]
ARRAY = ("after", "bands", "sensor", "scale", "offset", "nodata", "nan_nodata", "any_gsd", "probabilities", "prompt")
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
        later = [after] if isinstance(after, str | Path) else after
        asked = Asked(
            tuple(Path(one) for one in later), None if bands is None else tuple(bands), sensor, scale, offset, nodata, nan_nodata,
            any_gsd, overlap, None if probabilities is None else Path(probabilities), score, prompt,
        )  # fmt: skip
        if not isinstance(source, str | Path):
            return self._of_array(source, output, asked, progress)
        path = Path(source)
        work = work_of(self._opened, path)
        self._refuse_unheeded(asked.given, work)
        if output is None:
            if probabilities is not None:
                raise RequestError("predict: probabilities are written beside output; give both")
            if work == "captions":
                return self._caption(path, prompt)["caption"]
            return read_answer(self._opened, lambda: self._session, path, asked, progress, warn)
        written = Path(output)
        check_outputs([written, asked.probabilities], [self.path, path, *asked.after])
        if work == "captions":
            o = self._opening
            record = infer_caption(self._opened, path, written, prompt, o.threads, o.device, o.self_test)
            return record | {"verdict": verdict_record(self.verdict)}
        return write_answer(self._opened, lambda: self._session, path, written, asked, progress, warn)

    def _caption(self, picture: Path, prompt: str | None) -> dict[str, Any]:
        o = self._opening
        return caption(self._opened, picture, prompt, o.threads, o.device, o.self_test)

    def _of_array(self, values: Array, output: str | Path | None, asked: Asked, progress: Progress | None) -> Any:
        if output is not None:
            raise RequestError(
                "predict: an array lies nowhere on the earth, so no file is written of it; leave output out"
            )
        if self.task == "captioning":
            raise RequestError(f"{self.path}: captions are of pictures; give a file")
        works: Work = "maps" if self.task == "segmentation" else "samples"
        if self.manifest.boxes is not None or self.manifest.finer is not None:
            works = "objects" if self.manifest.finer is None else "images"
        self._refuse_unheeded(asked.given, works, ARRAY)
        return answer_array(self._opened, self._session, values, asked, progress)

    def _refuse_unheeded(self, given: Sequence[str], work: Work, unheeded: Sequence[str] = ()) -> None:
        idle = [name for name in given if work not in HEEDED.get(name, WORKS) or name in unheeded]
        if idle:
            raise RequestError(
                f"{self.path}: {', '.join(idle)} would be ignored, as this gives {WORK_WORDS[work]}"
                f"{' for an array' if unheeded else ''}; leave it out"
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
