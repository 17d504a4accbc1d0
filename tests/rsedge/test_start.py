"""The first moments of a command, and streams that are missing or cannot be written."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

EARLY = """
import os, signal, sys
class Early:
    def find_spec(self, name, path, target=None):
        if name == "rsedge.cli.main":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Early())
import rsedge.start
rsedge.start.main()
"""


def shell(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", f"exec '{sys.executable}' -m rsedge.cli {command}"], capture_output=True, text=True, timeout=60
    )


def test_ctrl_c_while_the_command_is_still_imported_says_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", EARLY], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGINT and done.stderr == ""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_missing_stream_changes_nothing(closed: str, tmp_path: Path) -> None:
    """Daemons are started so; a file that got number 2 would hold what libraries print."""
    assert shell(f"trust list --json {closed}").returncode == 0
    assert shell(f"inspect {tmp_path / 'none.tif'} {closed}").returncode == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_stdout_is_told_on_stderr(tmp_path: Path) -> None:
    for more in ("", "--json"):
        done = shell(f"trust list {more} > /dev/full")
        assert done.returncode == 4 and "no space left" in done.stderr and "Traceback" not in done.stderr
    done = shell(f"inspect {tmp_path / 'none.tif'} --json > /dev/full")
    assert done.returncode == 2 and "none.tif" in done.stderr and "Traceback" not in done.stderr
    assert shell(f"inspect {tmp_path / 'none.tif'} 2> /dev/full").returncode == 2
