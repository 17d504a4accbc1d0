"""How far off predictions are (`make bench-predict`): public rows left out in turn, and this CPU after calibration.

Writes docs/prediction.md. Measured rows of this machine are kept in the git-ignored cache, so an interrupted run goes on;
delete the cache to measure again. `--prepare` exports and quantizes the networks beforehand, so that only measuring is
left; `--stored` writes the document from the rows there are. RSEDGE_BENCH_THREADS sets the
threads (default 1: processor time, which other work on the machine does not add to).
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cpu_networks
import numpy as np
import numpy.typing as npt
import public_fit
from public_rows import facts_folder, public_rows

from rsedge.data.errors import RequestError
from rsedge.data.files import atomic_path
from rsedge.devices.onboard.suite import ROUNDS, RUNS
from rsedge.devices.predict import calibrate as calibration
from rsedge.devices.predict.efficiency import write_calibration
from rsedge.devices.predict.latency import Prediction, predict_graph
from rsedge.devices.profiles.cpu import detect_cpu
from rsedge.devices.profiles.profile import load_profile
from rsedge.runtimes.precision import PrecisionName

DOCS = public_fit.ROOT / "docs" / "prediction.md"
Array = npt.NDArray[np.float64]

METHOD = """\
# How far off predictions are

Written by `make bench-predict`; do not edit. All latencies here that a device did not measure are **predicted**.

An ONNX graph is read as the kernels a runtime would launch. The time of a kernel is the larger of compute (operations over
the share of the dense peak its class and shape reach) and memory traffic (bytes over the reachable bandwidth), plus the cost
of starting it; kernels and the cost of the call add up. The shares are fitted to measured rows and held to priors
(`devices/predict/efficiencies.yaml` names the source of each). The interval is the factor that holds 90 % of the errors on rows the
fit had not seen; a kind of network or a device without rows widens it, and the prediction says so.

Error is |predicted / measured - 1|. "Left out" means that no row of that group was in the fit.
"""


def summary(residuals: Array) -> str:
    """Cells of a table: rows, median and 90th percentile of the error, share within 10 % and 25 %, bias."""
    off = np.abs(np.exp(residuals) - 1)
    cells = [
        np.median(off),
        np.quantile(off, 0.9),
        np.mean(off <= 0.10),
        np.mean(off <= 0.25),
        np.exp(np.median(residuals)) - 1,
    ]
    return f"{residuals.size} | " + " | ".join(f"{c:.1%}" for c in cells[:4]) + f" | {cells[4]:+.1%}"


HEAD = (
    "| {} | rows | median error | 90th percentile | within 10 % | within 25 % | bias |\n|---|---|---|---|---|---|---|\n"
)


def public_part() -> str:
    """Tables of the public rows, per set of figures with enough of them."""
    rows, left_out = public_rows(facts_folder())
    by_set, priors = public_fit.cases_by_set(rows), public_fit.priors()
    text = f"\n## Public rows\n\n{len(rows)} rows are usable; left out: "
    text += "; ".join(f"{n} ({why})" for why, n in sorted(left_out.items(), key=lambda item: -item[1])) + ".\n"
    for name, cases in by_set.items():
        values = {key: value for key, (value, _) in priors[name].items() if key != "runtime_mb"}
        text += _set_part(name, public_fit.validate(cases, values))
    return text


def _set_part(name: str, found: public_fit.Validated) -> str:
    text = f"\n### {name}\n\n" + HEAD.format("left out")
    names = {"none": "nothing (in the fit)", "network": "each network (its family known)"}
    for by, residuals in found.residuals.items():
        text += f"| {names.get(by, f'each {by}')} | {summary(residuals)} |\n"
    if len(found.cases) < public_fit.ENOUGH:
        return text + "\nToo few rows to take an interval from; the judged one is used.\n"
    for by in ("family", "device"):
        group_of = public_fit.LEFT_OUT[by]
        groups = np.array([group_of(c.row) for c in found.cases])
        text += "\n" + HEAD.format(f"{by} left out")
        for group in sorted(set(groups.tolist())):
            text += f"| {group} | {summary(found.residuals[by][groups == group])} |\n"
    text += "\nShare of rows inside an interval whose width was taken from the other groups only: "
    text += ", ".join(f"{by} left out {public_fit.coverage(found, by, by):.0%}" for by in public_fit.LEFT_OUT) + ".\n"
    return text


class Store:
    """Measured rows of this machine, as JSON in the git-ignored cache, written after every row."""

    def __init__(self, threads: int) -> None:
        import openvino

        cpu = detect_cpu()
        self.conditions = {"cpu": cpu.model, "isa": list(cpu.isa), "threads": threads, "openvino": openvino.__version__}
        slug = f"{cpu.model}-{threads}".lower().replace(" ", "-").replace("/", "-")
        self.path = public_fit.CACHE / f"measured-{slug}.json"
        self.rows: dict[str, dict[str, float]] = {}
        if self.path.is_file():
            stored = json.loads(self.path.read_text())
            if stored["conditions"] != self.conditions:
                raise RequestError(f"{self.path}: rows of another machine or version; delete it to measure again")
            self.rows = stored["rows"]

    def put(self, name: str, latency_ms: float) -> None:
        self.rows[name] = {"ms": latency_ms, "load": os.getloadavg()[0]}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.path) as temporary:
            temporary.write_text(json.dumps({"conditions": self.conditions, "rows": self.rows}, indent=1))

    def measure(
        self, files: Mapping[str, Path], precision: PrecisionName, threads: int, progress: Any = None
    ) -> dict[str, float]:
        """As :class:`rsedge.devices.predict.calibrate.Measure`, but only what is not stored yet."""
        missing = {n: f for n, f in files.items() if f"{n}.{precision}" not in self.rows}
        for name, latency in (calibration.measure_here(missing, precision, threads) if missing else {}).items():
            self.put(f"{name}.{precision}", latency)
        return {name: self.rows[f"{name}.{precision}"]["ms"] for name in files}


def cpu_part(threads: int) -> str:
    """Calibrates this CPU, predicts and measures the networks of :mod:`cpu_networks`, and tells how far off it was."""
    store, profile = Store(threads), load_profile("cpu")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RSEDGE_CALIBRATIONS"] = folder
        precisions = profile.runtimes["openvino"]
        found = calibration.calibrate(
            profile, "openvino", precisions, Path(folder), threads=threads, measure=store.measure
        )
        write_calibration(found.efficiencies, Path(folder) / "cpu.openvino.yaml")
        rows = _networks(store, precisions, threads)
    text = f"\n## This CPU after calibration\n\n{_conditions(store, precisions)}\n\n"
    suite = np.array(list(found.residuals.values()))
    text += HEAD.format("networks") + f"| calibration suite, each left out | {summary(suite)} |\n"
    for label, chosen in _groups(rows).items():
        text += f"| {label} | {summary(np.array([np.log(p.mid_ms / ms) for _, _, p, ms in chosen]))} |\n"
    inside = np.array([p.low_ms <= ms <= p.high_ms for _, _, p, ms in rows])
    covered = np.array([not p.outside for _, _, p, _ in rows])
    text += f"\n{inside.mean():.0%} of the rows lie inside the predicted interval"
    if covered.any():
        text += f"; of the {covered.sum()} whose kind and size the suite covers, {inside[covered].mean():.0%}"
    text += ". The others' interval is wider, and their prediction says so.\n\n"
    wanted = len(cpu_networks.networks())
    if len(rows) < wanted * len(precisions):
        text += f"Measured so far: {len(rows) // len(precisions)} of {wanted} networks.\n\n"
    text += "| network | precision | predicted (ms) | measured (ms) | error |\n|---|---|---|---|---|\n"
    for name, precision, p, ms in rows:
        predicted = f"{p.low_ms:.1f}-{p.high_ms:.1f}, middle {p.mid_ms:.2f}"
        text += f"| {name} | {precision} | {predicted} | {ms:.2f} | {p.mid_ms / ms - 1:+.0%} |\n"
    return text


Measured = tuple[str, PrecisionName, Prediction, float]


def _networks(store: Store, precisions: Sequence[PrecisionName], threads: int) -> list[Measured]:
    """Measures and predicts each network; with ``--stored`` only those whose rows are stored."""
    profile, rows = load_profile("cpu"), []
    names = list(cpu_networks.networks())
    if "--stored" in sys.argv:
        names = [n for n in names if all(f"{n}.{p}" in store.rows for p in precisions)]
    for (
        precision
    ) in precisions:  # in turns over all networks, so that a slow minute of the machine falls on all of them
        store.measure({n: _file(n, precision) for n in names}, precision, threads)
    for name in names:
        graph = public_fit.cached_graph(name, cpu_networks, lambda path, name=name: _copy(_file(name, "f32"), path))
        for precision in precisions:
            ms = store.rows[f"{name}.{precision}"]["ms"]
            rows.append((name, precision, predict_graph(graph, profile, precision, "openvino"), ms))
            print(f"{name} {precision}: {rows[-1][2]}, measured {ms:.2f} ms", file=sys.stderr, flush=True)
    return rows


def _file(name: str, precision: PrecisionName) -> Path:
    """A network in the git-ignored cache: ONNX, or int8 IR quantized from it."""
    onnx = public_fit.CACHE / "networks" / f"{name}.onnx"
    onnx.parent.mkdir(parents=True, exist_ok=True)
    if not onnx.is_file():
        with atomic_path(onnx) as temporary:
            cpu_networks.export_f32(name, temporary)
    if precision != "int8":
        return onnx
    if not onnx.with_suffix(".bin").is_file():
        cpu_networks.export_int8(onnx, onnx.with_suffix(".xml"))
    return onnx.with_suffix(".xml")


def _copy(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes())


def _groups(rows: list[Measured]) -> dict[str, list[Measured]]:
    families = cpu_networks.networks()
    found = {"all": rows}
    for precision in dict.fromkeys(row[1] for row in rows):
        found[precision] = [row for row in rows if row[1] == precision]
    for family in dict.fromkeys(families.values()):
        found[family] = [row for row in rows if families[row[0]] == family]
    return found


def _conditions(store: Store, precisions: Sequence[PrecisionName]) -> str:
    cpu = detect_cpu()
    loads = [row["load"] for row in store.rows.values()]
    missing = "" if "bf16" in precisions else " bf16 is not in the tables: this CPU has no bfloat16 arithmetic."
    runs = ROUNDS * RUNS
    clock = "processor time of one thread" if store.conditions["threads"] == 1 else "wall time"
    return (
        f"{cpu.model} ({', '.join(cpu.isa)}), {store.conditions['threads']} thread(s), OpenVINO "
        f"{store.conditions['openvino'].split('-')[0]}; {clock}, fastest of {runs} runs; load average "
        f"while measuring {min(loads):.1f} to {max(loads):.1f}.{missing}"
    )


def main() -> None:
    if "--prepare" in sys.argv:
        for name in cpu_networks.networks():
            _file(name, "int8")
            print(f"prepared {name}", file=sys.stderr, flush=True)
        return
    here = cpu_part(int(os.environ.get("RSEDGE_BENCH_THREADS", "1")))
    text = METHOD + public_part() + here
    with atomic_path(DOCS) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"wrote {DOCS}")


if __name__ == "__main__":
    main()
