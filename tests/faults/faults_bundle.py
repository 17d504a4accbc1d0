"""Files of a signed bundle, broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.faults.kinds import Result, kind, told
from tests.faults.material import damaged, material


@kind("bundle folder: a file damaged")
def file_damaged(rng: np.random.Generator, folder: Path) -> Result:
    made = material()
    bundle = made.copy(folder)
    files = sorted(p for p in bundle.rglob("*") if p.is_file())
    file = files[int(rng.integers(len(files)))]
    content, way = damaged(file.read_bytes(), rng)
    file.write_bytes(content)
    return told(f"{file.name} {way}", made.answers(bundle))
