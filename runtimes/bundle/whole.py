"""Bundles of several parts: every part opened, and the golden sample run through all of them together.

What ran once must run on: the golden sample is run as parts are opened, and again by :meth:`OpenWhole.prove` when the work is
done, as damaged memory shows in no hash.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from rsedge.data.arrays import read_arrays
from rsedge.data.errors import IntegrityError, RequestError
from rsedge.runtimes.backend import Opening
from rsedge.runtimes.bundle.golden import GoldenResult
from rsedge.runtimes.bundle.manifest import MANIFEST, PartsRecord
from rsedge.runtimes.bundle.reading import Bundle, rehearsed_bundle
from rsedge.runtimes.bundle.self_test import DRIFT_SHARE, EVERY
from rsedge.runtimes.child import Contents
from rsedge.runtimes.parts import PartSession, Tensors, prepared
from rsedge.runtimes.registry import known_elsewhere
from rsedge.runtimes.session import Array, Arrays
from rsedge.runtimes.wholes.base import Whole
from rsedge.runtimes.wholes.table import whole_of

IN, OUT = "input.", "output."
"""Begin the names of the golden sample's arrays."""


class OpenWhole:
    """The parts of a bundle, open, with what runs between them; a context manager.

    Attributes:
        inputs: what one sample holds, batch axis left out.
    """

    def __init__(
        self, bundle: Bundle, whole: Whole[Any], sessions: Mapping[str, PartSession], every: int = EVERY
    ) -> None:
        """
        Args:
            every: samples after which the golden one is run again, and at the end; 0: at the start alone.
        """
        self.bundle, self.whole, self.sessions, self.every = bundle, whole, dict(sessions), every
        self.tests = self._since = 0
        self.inputs: Tensors = whole.inputs(sessions)
        stated = {n: (t.shape, t.dtype) for n, t in _record(bundle).inputs.items()}
        if stated != {n: (shape, str(dtype)) for n, (shape, dtype) in self.inputs.items()}:
            raise IntegrityError(f"{bundle.path}: its parts take {_named(self.inputs)}, its manifest says otherwise")
        self.start: Arrays = {}
        self.largest_difference = self.largest_drift = 0.0

    def __call__(self, sample: Mapping[str, Array]) -> Arrays:
        """What the parts give together for one sample.

        Raises:
            RequestError: an array is missing, unknown, or of another shape or type.
            IntegrityError: they give NaN or infinity.
        """
        found = self._run(sample)
        self.counted()
        return found

    def _run(self, sample: Mapping[str, Array]) -> Arrays:
        found = self.whole.run(self.sessions, prepared(self.bundle.path, self.inputs, sample))
        for name, value in found.items():
            if not np.isfinite(value).all():
                raise IntegrityError(
                    f"{self.bundle.path}: '{name}' holds NaN or infinity; see `rsedge verify {self.bundle.path}`"
                )
        return found

    @property
    def labels(self) -> dict[str, str]:
        """Device, runtime and its version."""
        one = next(iter(self.sessions.values()))
        return {"device": one.device, "runtime": one.runtime, "runtime_version": one.runtime_version}

    def counted(self) -> None:
        """Is told of work done by the parts alone, a sample at a time; the golden sample is run where it is due.

        Raises:
            IntegrityError: as :meth:`prove`.
        """
        self._since += 1
        if self.every and self._since >= self.every:
            self.prove()

    def prove(self) -> None:
        """Runs the golden sample again, where anything ran since, and holds it against what it gave at the start.

        Raises:
            IntegrityError: it gives other numbers now.
        """
        if not self.every or not self._since:
            return
        self._since, self.tests = 0, self.tests + 1
        found = self._run(golden_sample(self.bundle)[0])
        result = compared(_record(self.bundle), self.start, found, DRIFT_SHARE)
        self.largest_drift = max(self.largest_drift, result.max_abs_difference)
        if not result.passed:
            raise IntegrityError(
                f"{self.bundle.path}: self-test failed: the golden sample differs from its own outputs of the start by "
                f"{result.max_abs_difference:.3g} (limit {result.atol:.3g}). The memory or the model in it is damaged; run it again"
            )

    def self_test(self) -> dict[str, float]:
        """How often the golden sample ran and how far it went, for ``--json``."""
        return {
            "every": self.every,
            "tests": self.tests,
            "largest_difference": self.largest_difference,
            "largest_drift": self.largest_drift,
        }

    def close(self) -> None:
        """Lets go of all parts."""
        for session in self.sessions.values():
            session.close()

    def __enter__(self) -> OpenWhole:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_whole(bundle: Bundle, threads: int | None = None, device: str | None = None, every: int = EVERY) -> OpenWhole:
    """Opens every part of a bundle, and runs its golden sample.

    Args:
        device: another device of the same runtime, such as ``CPU`` for a bundle made for an NPU.
        every: as of :class:`OpenWhole`.

    Raises:
        RequestError: the bundle is of one network, or its parts do not go together.
        IntegrityError: bytes are not what the manifest says, or the golden sample comes out otherwise.
        MissingCapability: the runtime or the device is not on this machine.
    """
    backend = bundle.backend
    if not bundle.vouched_for and not backend.own_process and known_elsewhere(backend.name):
        bundle.rehearse_by(f"{__name__}:first_run", threads=threads, device=device)
    opened = _opened(bundle, threads, device, every)
    try:
        result = started(opened)
        if not result.passed:
            raise IntegrityError(
                f"{bundle.path}: self-test failed at the start: the golden sample differs by {result.max_abs_difference:.3g} "
                f"(limit {result.atol:.3g}). The model, the memory or the runtime gives other numbers here; copy the bundle again"
            )
    except BaseException:
        opened.close()
        raise
    return opened


def started(opened: OpenWhole) -> GoldenResult:
    """The golden sample of a fresh whole against the stored one; what it gave is kept."""
    sample, stored = golden_sample(opened.bundle)
    opened.start = opened._run(sample)
    opened.tests += 1
    result = compared(_record(opened.bundle), stored, opened.start)
    opened.largest_difference = result.max_abs_difference
    return result


def _opened(bundle: Bundle, threads: int | None, device: str | None, every: int = 0) -> OpenWhole:
    record, target = _record(bundle), bundle.target
    how = Opening(None, device or bundle.backend.device(target.device), target.precision, threads)
    try:
        whole = whole_of(record.whole, list(record.files), record.settings)
    except RequestError as error:
        raise IntegrityError(f"{bundle.path}/{MANIFEST}: parts: {error}") from error
    with contextlib.ExitStack() as stack:
        sessions = {}
        for name, file in record.files.items():
            sessions[name] = bundle.backend.open_part(bundle.model(file), how)
            stack.callback(sessions[name].close)
        found = OpenWhole(bundle, whole, sessions, every)
        stack.pop_all()
    return found


def _named(tensors: Tensors) -> str:
    return ", ".join(f"{name} {dtype} {shape}" for name, (shape, dtype) in tensors.items())


def _record(bundle: Bundle) -> PartsRecord:
    if bundle.manifest.parts is None:
        raise RequestError(f"{bundle.path}: is of one network, not of several parts")
    return bundle.manifest.parts


def golden_sample(bundle: Bundle) -> tuple[Arrays, Arrays]:
    """The stored sample and what the parts gave together for it.

    Raises:
        IntegrityError: the file holds something else.
    """
    name = bundle.manifest.golden.file
    place = bundle.folder / name
    try:
        arrays = read_arrays(place, None, bundle.read(name))
    except RequestError as error:
        raise IntegrityError(f"{place}: no golden sample ({error})") from error
    inputs, outputs = ({n.removeprefix(mark): a for n, a in arrays.items() if n.startswith(mark)} for mark in (IN, OUT))
    if not inputs or set(outputs) != set(_record(bundle).limits):
        raise IntegrityError(f"{place}: no golden sample: it holds {', '.join(sorted(arrays)) or 'nothing'}")
    return inputs, outputs


def compared(record: PartsRecord, stored: Arrays, found: Arrays, share: float = 1.0) -> GoldenResult:
    """Outputs of the golden sample against others, by ``share`` of the manifest's limits; the worst of them is told.

    Raises:
        IntegrityError: there are others, or of another shape.
    """
    shapes = ({n: a.shape for n, a in arrays.items()} for arrays in (stored, found))
    first, second = shapes
    if first != second:
        raise IntegrityError(f"the parts give {second}, the golden sample has {first}")
    gaps = {n: np.abs(found[n].astype(np.float64) - stored[n]) for n in stored}
    worst = max(gaps, key=lambda n: float(gaps[n].max(initial=0)) / max(record.limits[n], 1e-30))
    limits = {n: share * limit for n, limit in record.limits.items()}
    within = sum(int((gaps[n] <= limits[n]).sum()) for n in gaps)
    count = sum(gap.size for gap in gaps.values())
    return GoldenResult(
        passed=within == count, max_abs_difference=float(gaps[worst].max(initial=0)), agreement=within / max(count, 1),
        valid_equal=True, atol=limits[worst], agreement_min=1.0, n=count,
    )  # fmt: skip


def verify_bundle(bundle: Bundle, threads: int | None = None, device: str | None = None) -> GoldenResult:
    """The golden vector of any bundle on the actual executable of this machine; of several parts the golden sample.

    Raises:
        RequestError, IntegrityError, MissingCapability: as :meth:`Bundle.session`.
    """
    if bundle.manifest.parts is None:
        return bundle.verify(threads, device)
    with _opened(bundle, threads, device) as opened:
        return started(opened)


def first_run(question: dict[str, Any], contents: Contents) -> None:
    """The side of a child in which parts that nobody vouches for run first."""
    with _opened(rehearsed_bundle(question), question["threads"], question["device"]) as opened:
        started(opened)


def write_golden(path: Path, sample: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
    """Writes a golden sample as :func:`golden_sample` reads it."""
    arrays = {**{f"{IN}{n}": v for n, v in sample.items()}, **{f"{OUT}{n}": v for n, v in outputs.items()}}
    np.savez_compressed(path, allow_pickle=False, **arrays)
