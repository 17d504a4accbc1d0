"""The whole flying path on Python 3.10 with nothing but the base install, OpenVINO and LiteRT, as JetPack 6 ships it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio

from rsedge.runtimes.myriad.process import find_python310
from tests.runtimes import tiny_models as tiny

ROOT = Path(__file__).parents[2]
LIMIT_BYTES = 700 << 20


def run(*command: str | Path, cwd: Path | None = None, timeout: float = 240) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(c) for c in command],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=timeout,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def install(folder: Path) -> Path:
    """A venv with the wheel of this tree and the extras openvino and litert; returns its Python."""
    if os.environ.get("RSEDGE_SKIP_PY310"):
        pytest.skip("RSEDGE_SKIP_PY310 is set")
    interpreter = find_python310()
    if interpreter is None:
        pytest.skip("no Python 3.10 on this machine (looked on the PATH and in ~/.pyenv/versions)")
    source = folder / "source"
    ignored = shutil.ignore_patterns(
        ".git", ".venv", "runs", ".*cache", ".typecheck", "*.egg-info", "build", "dist", "tests"
    )
    shutil.copytree(ROOT, source, ignore=ignored, symlinks=True)
    python = folder / "venv" / "bin" / "python"
    what = f"{source}[openvino,litert]"
    if uv := shutil.which("uv"):
        run(uv, "venv", "--quiet", "--python", interpreter, folder / "venv")
        run(uv, "pip", "install", "--quiet", "--python", python, what)
    else:
        run(interpreter, "-m", "venv", folder / "venv")
        run(python, "-m", "pip", "install", "--quiet", "--no-compile", what)
    return python


@pytest.fixture(scope="module")
def onboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("py310")
    try:
        yield install(folder)
    finally:
        shutil.rmtree(folder)


def test_size_of_what_flies(onboard: Path, record_property: Callable[[str, object], None]) -> None:
    """Everything but pip and setuptools, which nobody flies."""
    packages = next(onboard.parents[1].glob("lib/python3.10/site-packages"))
    sizes: dict[str, int] = {}
    for file in packages.rglob("*"):
        if file.is_file() and not file.is_symlink() and "__pycache__" not in file.parts:
            top = file.relative_to(packages).parts[0]
            sizes[top] = sizes.get(top, 0) + file.stat().st_size
    for tool in ("pip", "setuptools"):
        sizes.pop(tool, None)
    total = sum(sizes.values())
    largest = {k: f"{v / 2**20:.0f} MiB" for k, v in sorted(sizes.items(), key=lambda i: -i[1])[:5]}
    record_property("install_bytes", total)
    print(f"installed: {total / 2**20:.0f} MiB; largest: {largest}")
    assert total < LIMIT_BYTES
    assert not {"torch", "timm", "nncf", "onnx", "scipy"} & set(sizes)


def test_infer_evaluate_verify_inspect(onboard: Path, bundle: Callable[..., Path], tmp_path: Path) -> None:
    contract = tiny.spec()
    dn = tiny.random_scene(contract, 90, 70)
    logits, valid = tiny.reference(contract, dn)
    truth = np.where(valid, logits.argmax(0), 255).astype(np.uint8)
    scene = tiny.write_scene(tmp_path / "s.tif", dn[::-1], tiny.NAMES[::-1])
    labels = tiny.write_scene(tmp_path / "l.tif", truth[None], None)
    archive = shutil.make_archive(str(tmp_path / "b"), "zip", bundle())
    command = onboard.with_name("rsedge")
    assert json.loads(run(command, "verify", archive, "--json", cwd=tmp_path))["passed"]
    run(command, "infer", archive, scene, "--output", tmp_path / "o.tif", "--json", cwd=tmp_path)
    record = json.loads(run(command, "evaluate", archive, scene, labels, "--json", cwd=tmp_path))
    assert record["kappa"] > 0.999
    assert json.loads(run(command, "inspect", tmp_path / "o.tif", "--json", cwd=tmp_path))["kind"] == "raster"
    run(onboard, "-c", "import rsedge.cli.main, sys; sys.exit('torch' in sys.modules)", cwd=tmp_path)


def test_litert_flies_alone(onboard: Path, bundle: Callable[..., Path], tmp_path: Path) -> None:
    command = onboard.with_name("rsedge")
    found = json.loads(run(command, "verify", bundle("litert-cpu-f32"), "--json", cwd=tmp_path))
    assert found["passed"]
    scene = tiny.write_scene(tmp_path / "s.tif", tiny.random_scene(tiny.spec(), 90, 70), tiny.NAMES)
    run(command, "infer", bundle("litert-cpu-f32"), scene, "--output", tmp_path / "o.tif", "--json", cwd=tmp_path)
    run(command, "infer", bundle("openvino-cpu-f32"), scene, "--output", tmp_path / "v.tif", "--json", cwd=tmp_path)
    with rasterio.open(tmp_path / "o.tif") as one, rasterio.open(tmp_path / "v.tif") as other:
        assert np.array_equal(one.read(), other.read())
