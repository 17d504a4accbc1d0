"""Rows that a benchmark keeps as they end, and the part of a page in docs/ that is written from them."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsedge.data.files import read_json, write_json
from rsedge.devices.profiles.cpu import detect_cpu

ROOT = Path(__file__).resolve().parents[1]
END = "<!-- end of measured -->"
Rows = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class MeasuredPage:
    """A page with a measured part.

    Attributes:
        rows: the file in benchmarks/results.
        page: the file in docs.
        command: that measures and writes it.
        parts: of the rows, each by name.
    """

    rows: str
    page: str
    command: str
    parts: tuple[str, ...]

    @property
    def document(self) -> Path:
        return ROOT / "docs" / self.page

    def stored(self) -> dict[str, Rows]:
        """All rows that there are."""
        path = ROOT / "benchmarks" / "results" / self.rows
        found = read_json(path) if path.exists() else {}
        return {part: found.get(part, {}) for part in self.parts}

    def keep(self, part: str, name: str, row: dict[str, Any]) -> None:
        """Takes a row in the place of an older one of its name, with the day, the commit and the processor."""
        print(f"{name}: {row}", flush=True)
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        commit = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], cwd=ROOT, capture_output=True, text=True)
        rows = self.stored()
        rows[part][name] = row | {"date": today, "commit": commit.stdout.strip(), "cpu": detect_cpu().model}
        write_json(ROOT / "benchmarks" / "results" / self.rows, rows)

    def put(self, text: str, lines: Iterable[str]) -> str:
        """The page with its measured part written anew.

        Raises:
            ValueError: it has no place for it.
        """
        start = f"<!-- measured: written by {self.command} -->"
        head, found, rest = text.partition(start)
        _, ended, tail = rest.partition(END)
        if not (found and ended):
            raise ValueError(f"no markers '{start}' and '{END}'")
        return "\n".join([head + start, "", *lines, END + tail])

    def write(self, lines: Iterable[str]) -> None:
        """Writes the measured part of the page and says where it is."""
        self.document.write_text(self.put(self.document.read_text(encoding="utf-8"), lines), encoding="utf-8")
        print(self.document)
