"""Where data lie: under ``RSEDGE_DATA``, or in a wheel."""

from __future__ import annotations

import os
from importlib import util
from pathlib import Path

from rsedge.data.errors import missing_extra


def data_root() -> Path:
    """The folder of shared scenes: ``RSEDGE_DATA``, else ``../shared/data`` beside the working folder."""
    return Path(os.environ.get("RSEDGE_DATA", "../shared/data"))


def wheel_folder(package: str, extra: str, purpose: str) -> Path:
    """Where an installed package lies, without importing it.

    Raises:
        MissingCapability: it is not installed.
    """
    spec = util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise missing_extra(package, extra, purpose)
    return Path(next(iter(spec.submodule_search_locations)))
