"""A session that proves itself: the bundle's golden vector runs at the start, every so many tiles, and at the end.

Radiation and worn memory flip bits of weights while they are used, and no hash sees that. A golden tile among the others does: its
outputs are held at the start against the stored ones, by the bundle's own limits, and later against those of the start, by a
tenth of that, since the same input through the same session gives the same numbers. Results count only once the test after them
has passed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any

import numpy as np

from rsedge.data.bands import InputSpec
from rsedge.data.errors import IntegrityError
from rsedge.runtimes.bundle.golden import GoldenResult, compare
from rsedge.runtimes.bundle.reading import Bundle
from rsedge.runtimes.session import INPUT, LOGITS, VALID, Array, Arrays, Session

EVERY = 100
"""Tiles between two tests: one percent of the time."""
DRIFT_SHARE = 0.1
"""Of the golden limit: how far outputs may go from those of the start."""


class SelfTestFailed(IntegrityError):
    """The golden vector is missed: whatever else this model would give is worth nothing."""


class SelfTested:
    """A :class:`rsedge.runtimes.Session` around another one, with golden tiles among the inputs."""

    def __init__(self, session: Session, bundle: Bundle, every: int = EVERY) -> None:
        """Runs the whole golden vector once.

        Args:
            every: tiles after which one golden tile is run again, in turn; 0 tests at the start only.

        Raises:
            SelfTestFailed: the outputs are not the stored ones.
        """
        self._session, self._bundle, self._every = session, bundle, every
        self._stored = bundle.golden()
        self.tests = self.tiles = self._since = self._next = 0
        self.largest_difference = self.largest_drift = 0.0
        self._first: list[Arrays] = []
        for number in range(len(self._stored[INPUT])):
            outputs = session({INPUT: self._golden_tile(number)})
            self._check_start(number, outputs)
            self._first.append(outputs)

    @property
    def input_spec(self) -> InputSpec:
        return self._session.input_spec

    @property
    def device(self) -> str:
        return self._session.device

    @property
    def precision(self) -> str:
        return self._session.precision

    @property
    def runtime(self) -> str:
        return self._session.runtime

    @property
    def runtime_version(self) -> str:
        return self._session.runtime_version

    @property
    def passed(self) -> int | None:
        """Tests passed so far; None where none come after the start."""
        return self.tests if self._every else None

    def __call__(self, inputs: Mapping[str, Array]) -> Arrays:
        outputs = self._session(inputs)
        self._check_shapes(outputs)
        self._count()
        if self._due():
            self.prove()
        return outputs

    def stream(self, inputs: Iterable[Mapping[str, Array]]) -> Iterator[Arrays]:
        """As the session's own; a test that fails, the last one after the last input, raises :class:`SelfTestFailed`."""
        kinds: deque[int | None] = deque()

        def golden() -> dict[str, Array]:
            number = self._turn()
            kinds.append(number)
            return {INPUT: self._golden_tile(number)}

        def mixed() -> Iterator[Mapping[str, Array]]:
            for one in inputs:
                if self._due():
                    yield golden()
                self._count()
                kinds.append(None)
                yield one
            if self._every and self._since:
                yield golden()

        for outputs in self._session.stream(mixed()):
            number = kinds.popleft()
            if number is None:
                self._check_shapes(outputs)
                yield outputs
            else:
                self._check(number, outputs)

    def prove(self) -> None:
        """Runs the next golden tile now.

        Raises:
            IntegrityError: its outputs are not those of the start.
        """
        number = self._turn()
        self._check(number, self._session({INPUT: self._golden_tile(number)}))

    def close(self) -> None:
        self._session.close()

    def __enter__(self) -> SelfTested:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def record(self) -> dict[str, Any]:
        """How often it was tested and how far outputs went, for ``--json``."""
        limit = self._bundle.manifest.golden.atol
        return {
            "every": self._every,
            "tests": self.tests,
            "largest_difference": self.largest_difference,
            "limit": limit,
            "largest_drift": self.largest_drift,
            "drift_limit": DRIFT_SHARE * limit,
        }

    def _count(self) -> None:
        self.tiles += 1
        self._since += 1

    def _due(self) -> bool:
        return bool(self._every) and self._since >= self._every

    def _turn(self) -> int:
        """The number of the golden tile that is next."""
        number, self._since = self._next, 0
        self._next = (number + 1) % len(self._first)
        return number

    def _golden_tile(self, number: int) -> Array:
        return self._stored[INPUT][number : number + 1]

    def _check_start(self, number: int, outputs: Arrays) -> None:
        self.tests += 1
        stored = {name: array[number : number + 1] for name, array in self._stored.items()}
        found = self._compare(stored, outputs)
        self.largest_difference = max(self.largest_difference, found.max_abs_difference)
        if not found.passed:
            raise SelfTestFailed(self._failure(found, found.atol, "the golden vector"))

    def _check_shapes(self, outputs: Arrays) -> None:
        """Of every tile: what is done with the outputs before the next test counts on them."""
        for name in (LOGITS, VALID):
            shape, first = outputs[name].shape[1:], self._first[0][name].shape[1:]
            if shape != first:
                raise SelfTestFailed(self._failed(f"gives {name} of shape {shape}, at the start {first}"))

    def _check(self, number: int, outputs: Arrays) -> None:
        """Equal to the start, bit by bit, is what is expected, and quick to see; the limit is for runtimes that round by chance."""
        self.tests += 1
        first = self._first[number]
        if all(np.array_equal(first[name], outputs[name]) for name in (LOGITS, VALID)):
            return
        found = self._compare(first, outputs)
        limit = DRIFT_SHARE * found.atol
        self.largest_drift = max(self.largest_drift, found.max_abs_difference)
        if not (found.passed and found.max_abs_difference <= limit):
            raise SelfTestFailed(self._failure(found, limit, "its own outputs of the start"))

    def _compare(self, wanted: Arrays, outputs: Arrays) -> GoldenResult:
        return compare(self._bundle.manifest, self._bundle.path, wanted, outputs[LOGITS], outputs[VALID])

    def _failure(self, result: GoldenResult, limit: float, what: str) -> str:
        how = (
            f"differs from {what} by {result.max_abs_difference:.3g} (limit {limit:.3g}), {result.agreement:.2%} agree"
        )
        path = self._bundle.path
        if not self.tiles:
            return (
                f"{path}: self-test failed at the start: the model {how}. The model, the memory or the runtime gives other numbers "
                f"here; nothing was written. See `rsedge verify {path}`; copy the bundle again"
            )
        return self._failed(how)

    def _failed(self, how: str) -> str:
        path = self._bundle.path
        return (
            f"{path}: self-test failed after {self.tiles} tiles: the model {how}. The memory or the model in it is damaged; "
            f"nothing was written. Run it again, which reads the model anew; if it fails again, see `rsedge verify {path}`"
        )


def self_tested(session: Session, bundle: Bundle, every: int = EVERY) -> SelfTested:
    """A session with the bundle's golden vector among its inputs; one that fails at the start is closed.

    Raises:
        IntegrityError: as :class:`SelfTested`.
    """
    try:
        return SelfTested(session, bundle, every)
    except BaseException:
        session.close()
        raise
