"""Asking git for the commit changes nothing in the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from rsedge.stages import origin


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not here")
def test_a_repository_is_only_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """git status writes its index where files were touched, which a run must not: it may be someone else's."""
    file = tmp_path / "origin.py"
    file.write_text("a = 1\n")
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first"],
    ):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    os.utime(file, ns=(1, 1))
    index = tmp_path / ".git/index"
    os.utime(index, ns=(10**18, 10**18))
    before = (index.read_bytes(), index.stat().st_mtime_ns)
    monkeypatch.setattr(origin, "__file__", str(file))
    monkeypatch.setattr(
        origin.importlib.metadata, "distribution", lambda name: type("D", (), {"read_text": lambda s, n: None})()
    )
    found = origin.commit()
    assert found is not None and len(found) == 40
    assert (index.read_bytes(), index.stat().st_mtime_ns) == before
    file.write_text("a = 2\n")
    assert origin.commit() == f"{found} with changes"
