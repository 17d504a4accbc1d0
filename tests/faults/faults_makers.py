"""Bundles that nobody signed: whoever made them may have put any model there; it must not end our process."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import numpy as np

from rsedge.runtimes import Bundle
from tests.faults.kinds import Result, kind, told
from tests.faults.material import damaged, reworded
from tests.runtimes import tiny_models as tiny

CONTRACT = tiny.spec(32)
IR, ONNX = "openvino-cpu-f32", "onnxruntime-cpu-f32"


@kind("unsigned bundle: the graph of its IR reworded, the bundle opened and run", seconds=90.0, few=5)
def graph_reworded(rng: np.random.Generator, folder: Path) -> Result:
    bundle = Path(shutil.copytree(_made(IR), folder / "bundle"))
    file = bundle / "model.xml"
    file.write_text(reworded(file.read_text(), rng, int(rng.integers(1, 4))))
    return _run("model.xml reworded", bundle, IR, file)


@kind("unsigned bundle: its model damaged, the bundle opened and run", seconds=90.0, few=4)
def model_damaged(rng: np.random.Generator, folder: Path) -> Result:
    target = str(rng.choice([IR, ONNX]))
    bundle = Path(shutil.copytree(_made(ONNX), folder / "bundle"))
    file = bundle / "model.onnx"  # which OpenVINO reads, too
    if target == IR and rng.random() < 0.5:
        file.unlink()
        for name in ("model.xml", "model.bin"):
            shutil.copy(_made(IR) / name, bundle)
        file = bundle / "model.xml"
    content, how = damaged(file.read_bytes(), rng)
    file.write_bytes(content)
    return _run(f"{target}: {file.name} {how}", bundle, target, file)


@functools.cache
def _made(target: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="rsedge-makers-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return tiny.make_bundle(folder / "bundle", CONTRACT, target)


def _run(what: str, bundle: Path, target: str, model: Path) -> Result:
    """Lists the files as they are now, as who made them would; any answer will do."""
    tiny.write_manifest(bundle, CONTRACT, target, model.name)
    dn = np.random.default_rng(5).integers(1, 9000, (1, *CONTRACT.shape)).astype(np.uint16)

    def act() -> bool:
        with Bundle.open(bundle) as opened:
            opened.verify(1)
            session = opened.session(threads=1)
            try:
                return len(session({"dn": dn})["logits"]) == 1
            finally:
                session.close()

    return told(what, act)
