"""LiteRT models in bundles that nobody signed: what its verifier does not see must not end our process."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import numpy as np

from rsedge.compress.quantize.litert import quantize_litert
from rsedge.runtimes import Bundle
from tests.faults.kinds import Result, kind, told
from tests.faults.material import damaged
from tests.runtimes import tiny_models as tiny

CONTRACT = tiny.spec(32)
TARGET = "litert-cpu-f32"


@kind("unsigned bundle: its LiteRT model damaged, the bundle opened and run", seconds=90.0, few=4)
def litert_damaged(rng: np.random.Generator, folder: Path) -> Result:
    """The tiny models, f32 and int8, are nearly all structure: single bytes of it half of the time, else what happens to files."""
    bundle = Path(shutil.copytree(_made(bool(rng.integers(2))), folder / "bundle"))
    file = bundle / "model.tflite"
    content = bytearray(file.read_bytes())
    if rng.random() < 0.5:
        how = "bytes"
        for place in rng.integers(len(content), size=int(rng.integers(1, 5))):
            content[place] = (
                int(rng.integers(256)) if rng.random() < 0.5 else content[place] ^ (1 << int(rng.integers(8)))
            )
        changed = bytes(content)
    else:
        changed, how = damaged(bytes(content), rng)
    file.write_bytes(changed)
    tiny.write_manifest(bundle, CONTRACT, TARGET, file.name)
    dn = np.random.default_rng(5).integers(1, 9000, (1, *CONTRACT.shape)).astype(np.uint16)

    def act() -> bool:
        """Any answer will do."""
        with Bundle.open(bundle) as opened:
            opened.verify(1)
            session = opened.session(threads=1)
            try:
                return len(session({"dn": dn})["logits"]) == 1
            finally:
                session.close()

    return told(how, act)


@functools.cache
def _made(int8: bool) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="rsedge-litert-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    bundle = tiny.make_bundle(folder / "bundle", CONTRACT, TARGET)
    if int8:
        dn = np.random.default_rng(6).integers(1, 9000, (8, *CONTRACT.shape)).astype(np.uint16)
        quantize_litert(bundle / "model.tflite", bundle / "model.tflite", list(dn))
    return bundle
