"""The rows that docs/benchmarks.md is written from, by part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rsedge.data.files import atomic_path, read_json

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "peers.json"
DOCUMENT = ROOT / "docs" / "benchmarks.md"


def stored() -> dict[str, Any]:
    """All parts that there are."""
    return dict(read_json(RESULTS)) if RESULTS.exists() else {}


def keep(part: str, key: str, value: Any) -> None:
    """Takes one entry of a part in the place of an older one."""
    everything = stored()
    everything.setdefault(part, {})[key] = value
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(RESULTS) as temporary:
        temporary.write_text(json.dumps(everything, indent=1, sort_keys=True) + "\n", encoding="utf-8")
