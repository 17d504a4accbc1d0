"""What the tests of teachers measured, kept for ``docs/teachers.md`` where ``RSEDGE_TEACHER_RESULTS`` names a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

Results = dict[str, dict[str, str]]


@pytest.fixture(scope="session")
def results() -> Iterator[Results]:
    """Row name, or ``family NAME``, -> point -> outcome; a test writes into it as its last statement."""
    found: Results = {}
    yield found
    if os.environ.get("RSEDGE_TEACHER_RESULTS"):
        path = Path(os.environ["RSEDGE_TEACHER_RESULTS"])
        known: Results = json.loads(path.read_text()) if path.exists() else {}
        for name, points in found.items():
            known[name] = known.get(name, {}) | points
        path.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
