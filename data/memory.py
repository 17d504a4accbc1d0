"""Whether what a file asks for fits into this machine's memory, before it is allocated."""

from __future__ import annotations

import os
from pathlib import Path

from rsedge.data.errors import MissingCapability

_SHARE = 0.8


def check_memory(wanted: int, path: Path) -> None:
    """Raises:
    MissingCapability: ``wanted`` bytes are more than most of this machine's memory.
    """
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if wanted > _SHARE * whole:
        raise MissingCapability(
            f"{path}: {wanted / 1e9:.3g} GB would have to be read at once, this machine has {whole / 1e9:.3g} GB of memory; cut it "
            "into parts (a scene e.g. with gdal_translate -srcwin)"
        )
