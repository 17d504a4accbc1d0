"""Scripts of benchmarks/ as modules: they lie outside the package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]


def benchmark_module(script: str) -> ModuleType:
    """A script under benchmarks/, under a name of its own; what lies beside it can be imported meanwhile."""
    path, before = ROOT / "benchmarks" / script, list(sys.path)
    spec = importlib.util.spec_from_file_location(script.removesuffix(".py").replace("/", "_"), path)
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(found)
    finally:
        sys.path[:] = before
    return found
