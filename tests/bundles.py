"""Bundles made once per test run; tests that alter one copy it first."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rsedge.cli.main import run_app
from tests.runtimes import tiny_models as tiny


@pytest.fixture(scope="session")
def _bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture
def bundle(_bundles: Path) -> Callable[..., Path]:
    """``bundle(target)``: a shared bundle that must not be altered."""

    def get(target: str = "openvino-cpu-f32", tile: int = 32) -> Path:
        folder = _bundles / f"{target}-{tile}"
        return folder if folder.exists() else tiny.make_bundle(folder, tiny.spec(tile), target)

    return get


@pytest.fixture
def own_bundle(bundle: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """``own_bundle(target)``: a copy to alter."""

    def get(target: str = "openvino-cpu-f32") -> Path:
        return Path(shutil.copytree(bundle(target), tmp_path / "bundle"))

    return get


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """``cli(...)`` -> exit code, stdout, stderr."""

    def call(*arguments: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run_app([str(a) for a in arguments])
        return (code, *capsys.readouterr())

    return call


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The device's cache in a folder of the test's own; returns where entries lie."""
    monkeypatch.setenv("RSEDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "device"
