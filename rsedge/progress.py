"""What a run tells while it works: a bar with the time left on a terminal, now and then a line elsewhere, all of it in its log."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import ClassVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_EVERY_S = 30.0
Listener = Callable[[str, int, Mapping[str, float]], None]
"""Is told the name of what goes on, a step of it, and its figures there."""


class Reporter:
    """Progress of one run on stderr; ``quiet`` says nothing there. Every line goes to ``log`` too, with its time (UTC)."""

    at: ClassVar[str] = ""
    """What the run of this process is at, for whoever gives a sign of life."""

    def __init__(self, quiet: bool = False, log: Path | None = None) -> None:
        self._log = log
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self.live = self.console.is_terminal and not quiet
        self._bar = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[info]}"),
            console=self.console,
            transient=True,
            disable=not self.live,
        )
        self.listen: Listener | None = None
        self._steps: dict[str, int] = {}
        self._task: TaskID | None = None
        self._name = ""
        self._began = self._reported = 0.0
        self._first = 0

    def __enter__(self) -> Reporter:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        Reporter.at = ""
        if error is not None and kind is not None:
            self._write(f"ended by {kind.__name__}: {error}")

    def note(self, text: str) -> None:
        """One line that stays."""
        self.console.print(text, soft_wrap=True, markup=False)
        self._write(text)
        Reporter.at = text.strip()

    def _write(self, text: str) -> None:
        """Adds lines to the log; a log that cannot be written ends no run."""
        if self._log is None:
            return
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        with contextlib.suppress(OSError), self._log.open("a", encoding="utf-8") as log:
            log.writelines(f"{now} {line}\n" for line in text.splitlines())

    def step(self, name: str, done: int, total: int, info: str = "") -> None:
        """Part ``done`` of ``total`` of the work called ``name``."""
        now = time.monotonic()
        if name != self._name or self._task is None:
            self.clear()
            # A resumed part begins in the middle: the rate counts only what is done from here on.
            self._name, self._began, self._reported, self._first = name, now, now, done
            self._task = self._bar.add_task(name, total=total, info=info)
        self._bar.update(self._task, completed=done, total=total, info=info)
        Reporter.at = f"{name} {done}/{total}"
        if now - self._reported > LINE_EVERY_S:
            self._reported = now
            left = (now - self._began) / max(done - self._first, 1) * (total - done)
            text = f"  {name}: {done}/{total}, about {left:.0f} s left {info}".rstrip()
            if self.live:  # the bar shows it
                self._write(text)
            else:
                self.note(text)
        if done >= total:
            self.clear()

    def figures(self, name: str, values: Mapping[str, float], step: int | None = None) -> None:
        """Figures of a step of what is called ``name``, for whoever listens; without ``step`` of the one that was told last."""
        self._steps[name] = self._steps.get(name, 0) if step is None else step
        if self.listen is not None:
            self.listen(name, self._steps[name], values)

    def clear(self) -> None:
        """Takes the bar away."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task, self._name = None, ""
