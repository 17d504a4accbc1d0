"""What logs a run: the interface of each kind, and what keeps its failures from the run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

Outcome = Literal["finished", "failed", "interrupted"]
Figures = Mapping[str, float]


class Log(ABC):
    """One run in one log.

    Attributes:
        failures: what its library raises where the log cannot be written.
        where: what it is called in messages.
    """

    failures: ClassVar[tuple[type[Exception], ...]] = (OSError,)
    where: str

    @abstractmethod
    def begin(self, name: str, parameters: Mapping[str, str]) -> None:
        """Begins, or goes on where a run of the same folder was interrupted."""

    @abstractmethod
    def figures(self, step: int, values: Figures) -> None:
        """Figures of a step, by names with ``/`` between parts."""

    @abstractmethod
    def tell(self, texts: Mapping[str, str], files: Sequence[Path]) -> None:
        """Texts by name, and files that belong to the run."""

    @abstractmethod
    def end(self, outcome: Outcome) -> None:
        """What is still held back is written."""


class Tracking:
    """Hands what a run tells on to its log; after the first failure, which is said, nothing more."""

    def __init__(self, log: Log | None, say: Callable[[str], None]) -> None:
        self._log, self._say = log, say

    def begin(self, name: str, parameters: Mapping[str, str]) -> None:
        """See :meth:`Log.begin`."""
        if self._log is not None and self._done(self._log.begin, name, parameters):
            self._say(f"  logged to {self._log.where}")

    def figures(self, name: str, step: int, values: Figures) -> None:
        """Figures of a step of what is called ``name``."""
        if self._log is not None:
            self._done(self._log.figures, step, {f"{name}/{key}": value for key, value in values.items()})

    def tell(self, texts: Mapping[str, str], files: Sequence[Path]) -> None:
        """See :meth:`Log.tell`."""
        if self._log is not None:
            self._done(self._log.tell, texts, files)

    def end(self, outcome: Outcome) -> None:
        """See :meth:`Log.end`."""
        if self._log is not None:
            self._done(self._log.end, outcome)

    def _done(self, work: Callable[..., None], *given: object) -> bool:
        assert self._log is not None
        try:
            work(*given)
        except self._log.failures as error:
            why = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            self._say(f"  warning: {self._log.where} takes no more of this run, which goes on without it: {why}")
            self._log = None
            return False
        return True
