"""How many times faster the bundles of a run are than a reference, measured in turns within one process.

    python benchmarks/latency_ratios.py runs/cloud-mask --reference path/to/teacher.xml --threads 2 --seconds 10

The reference is any model file with the graph contract of the project (`.xml` or `.onnx`), e.g. the teacher exported to
OpenVINO f32. Several may be given; the first is what ratios are against. Bundles whose runtime this machine lacks are
named and left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from rsedge.data.errors import MissingCapability, RsedgeError
from rsedge.data.files import write_json
from rsedge.devices.measure.protocol import Measurement, measure_interleaved, speedup
from rsedge.devices.profiles.cpu import detect_cpu
from rsedge.runtimes.bundle.manifest import MANIFEST, Manifest
from rsedge.runtimes.opening import open_session
from rsedge.runtimes.session import Session


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder with bundles/")
    parser.add_argument("--reference", type=Path, action="append", required=True, help="a model file; may be repeated")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0, help="timed seconds per artefact")
    parser.add_argument("--output", type=Path, help="also write the full record as JSON")
    return parser.parse_args()


def open_bundles(run: Path, threads: int) -> dict[str, Session]:
    """The run's bundles that this machine can open, by target name."""
    found: dict[str, Session] = {}
    for path in sorted((run / "bundles").glob(f"*/{MANIFEST}")):
        manifest = Manifest.from_bytes(path.read_bytes(), path)
        target = manifest.target
        if target.device != "cpu":
            print(f"left out: {target.name} is for another device", file=sys.stderr)
            continue
        try:
            found[target.name] = open_session(
                path.parent / manifest.model_file,
                target.runtime,
                input_spec=manifest.input_spec,
                precision=target.precision,
                threads=threads,
            )
        except MissingCapability as error:
            print(f"left out: {target.name}: {error}", file=sys.stderr)
    return found


def tile_for(session: Session, seed: int = 0) -> dict[str, Any]:
    """One tile of random digital numbers, shape (1, C, T, T)."""
    spec = session.input_spec
    values = np.random.default_rng(seed).integers(1, 5000, (1, spec.channels, spec.tile, spec.tile))
    return {"dn": values.astype(spec.dtype)}


def table(found: dict[str, Measurement], reference: str) -> str:
    """Markdown rows: latency percentiles, ratio against the reference with its 95 % interval."""
    lines = [f"| artefact | p50 ms | p90 ms | p99 ms | n | times faster than {reference} | note |", "|---" * 7 + "|"]
    for name, m in found.items():
        ratio = speedup(found[reference], m)
        note = "noisy" if m.noisy else ""
        times = f"{ratio.value:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"
        stats = m.latency_ms
        lines.append(f"| {name} | {stats.p50:.2f} | {stats.p90:.2f} | {stats.p99:.2f} | {m.n} | {times} | {note} |")
    return "\n".join(lines)


def main() -> int:
    given = arguments()
    try:
        sessions: dict[str, Session] = {
            path.stem: open_session(path, "openvino", threads=given.threads) for path in given.reference
        }
        sessions |= open_bundles(given.run, given.threads)
        feeds = {name: tile_for(session) for name, session in sessions.items()}
        found = measure_interleaved(sessions, feeds, seconds=given.seconds, threads=given.threads)
    except RsedgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    first = next(iter(sessions))
    print(table(found, first))
    load = found[first].load_average
    print(f"\n{detect_cpu().model}, {given.threads} threads, batch 1, load average {load:.2f} at the start")
    if given.output:
        write_json(given.output, {name: json.loads(m.model_dump_json()) for name, m in found.items()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
