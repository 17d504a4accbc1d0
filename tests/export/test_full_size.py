"""Every row at its published size, small ones first: ONNX is written and OpenVINO reads it (``make teachers-full``; hours)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from rsedge.models.zoo import TeacherRow, zoo
from tests.conftest import Results
from tests.export.full_size import memory_needed

LIMIT = 20 << 30
"""Bytes of memory that a row may take."""
ROWS = sorted(zoo(), key=lambda row: row.params)


@pytest.mark.slow
@pytest.mark.full_size
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_published_size_exports(row: TeacherRow, tmp_path: Path, results: Results) -> None:
    needed = memory_needed(row)
    if needed > LIMIT:
        results[row.name] = {"full": f"not run: needs about {needed / 1e9:.0f} GB of memory"}
        pytest.skip(f"{row.name} needs about {needed / 1e9:.0f} GB, more than {LIMIT / 1e9:.0f} GB")
    free = psutil.virtual_memory().available
    if needed > free:
        pytest.skip(f"{row.name} needs about {needed / 1e9:.0f} GB, only {free / 1e9:.0f} GB are free now")
    command = [sys.executable, "-m", "tests.export.full_size", row.name, str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["nodes"] > 0 and found["operations"] > 0
    # Buffers and folded constants come on top; parameters that a graph never reads (decoders, old heads) are left out.
    assert found["bytes"] > 0
    nodes, size = f"{found['nodes']:,} nodes", f"{found['bytes'] / 1e6:,.0f} MB"
    results[row.name] = {"full": f"{nodes}, {size}, {found['seconds']:.0f} s, {found['peak'] / 1e9:.1f} GB"}
