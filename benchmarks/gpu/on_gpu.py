"""What a CUDA GPU changes, in one command under ten minutes (`make on-gpu`). Writes docs/gpu.md.

    python benchmarks/gpu/on_gpu.py [--only PART] [--minutes M] [--rehearse]

Every part runs in a process of its own within what is left of the time; one that cannot run is told by its last line. Without a GPU
nothing is measured and the document stays as it is; ``--rehearse`` then runs the parts on the CPU, in miniature, and keeps nothing.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gpu_page

HERE = Path(__file__).resolve().parent
PARTS = {"training": "training", "teacher": "large_teacher", "students": "engines"}
"""Parts of the document -> modules of this folder, each with a ``measure(setting)``."""


@dataclass(frozen=True)
class Setting:
    """Where a part runs, and how much of it: ``device`` is ``cuda``, or ``cpu`` for a rehearsal in miniature."""

    device: str
    folder: Path

    @property
    def small(self) -> bool:
        return self.device == "cpu"


def main() -> int:
    given = arguments()
    if given.part:
        name, device, folder = given.part
        found = importlib.import_module(PARTS[name]).measure(Setting(device, Path(folder)))
        (Path(folder) / f"{name}.json").write_text(json.dumps(found), encoding="utf-8")
        return 0
    card = card_here()
    if card is None and not given.rehearse:
        print(
            "skipped: torch sees no CUDA GPU here; docs/gpu.md stays as it is (--rehearse runs the parts on the CPU, in miniature)"
        )
        return 0
    until = time.monotonic() + 60 * given.minutes
    with tempfile.TemporaryDirectory() as folder:
        device = "cuda" if card else "cpu"
        parts = {name: run(name, device, Path(folder), until) for name in given.only or PARTS}
    if card is None:
        print(json.dumps(parts, indent=1))
        return max(1 if "error" in found else 0 for found in parts.values())
    gpu_page.keep({"card": card, "parts": parts})
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(PARTS))
    parser.add_argument("--minutes", type=float, default=9.5, help="for all parts together (default 9.5)")
    parser.add_argument("--rehearse", action="store_true", help="without a GPU: all parts on the CPU, in miniature")
    parser.add_argument("--part", nargs=3, metavar=("NAME", "DEVICE", "FOLDER"), help=argparse.SUPPRESS)
    return parser.parse_args()


def card_here() -> dict[str, Any] | None:
    """Card, driver and versions; None without a GPU."""
    import torch

    if not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability()
    return {"name": torch.cuda.get_device_name(), "compute_capability": f"{major}.{minor}", "driver": _driver(),
            "memory_gb": round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1), **gpu_page.stamp()}  # fmt: skip


def _driver() -> str:
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"unknown ({error})"


def run(name: str, device: str, folder: Path, until: float) -> dict[str, Any]:
    """What a part found, or why it found nothing; with its seconds."""
    began, left = time.monotonic(), until - time.monotonic()
    if left < 10:
        return {"error": "no time was left for it"}
    log = folder / f"{name}.log"
    command = [sys.executable, str(HERE / "on_gpu.py"), "--part", name, device, str(folder)]
    try:
        with log.open("w", encoding="utf-8") as out:
            subprocess.run(command, stdout=out, stderr=out, timeout=left, check=True)
    except subprocess.TimeoutExpired:
        return {"error": f"not done within {left:.0f} s"}
    except subprocess.CalledProcessError as error:
        lines = [line.strip() for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
        return {"error": lines[-1][:500] if lines else f"exit code {error.returncode}"}
    found: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return found | {"seconds": round(time.monotonic() - began, 1)}


if __name__ == "__main__":
    sys.exit(main())
