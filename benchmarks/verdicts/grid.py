"""Runs of a recipe as rows of a table: one process each, kept in a JSON file as they end, so that a second start goes on.

A row is told by its labels (seed, autocast, hosts, cap ...) and by the recipe's text. It is run again where that text is another
now, the code that judges, or the data as they are read. Rows keep the commit, the versions and the machine they were made with.
"""

from __future__ import annotations

import concurrent.futures
import datetime
import functools
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from rsedge.data.files import atomic_path, read_json, sha256_file, sha256_of
from rsedge.data.metrics.evidence import evidence
from rsedge.data.metrics.statistics import Statistics, ratio
from rsedge.data.metrics.verdict import Gate, gate_figure, statement
from rsedge.recipe.schema import GateSection
from rsedge.reports.schema import Environment, Report
from rsedge.results.gates import Facts, judge

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
Case = TypeVar("Case")
Cores = tuple[int, ...] | None
VERSIONS = ("torch", "openvino", "nncf", "onnxruntime", "numpy")
"""Tools whose versions the documents name; rows keep all of them."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Machine(_Record):
    """What a run was made on and with."""

    cpu: str
    cores: int
    instruction_sets: tuple[str, ...]
    platform: str
    python: str
    versions: dict[str, str]
    commit: str = Field(description="of the working tree; '+' behind it: with changes that are not committed")


class TargetRow(_Record):
    """What the teacher, a baseline or a target reached."""

    name: str
    provenance: str | None = None
    p50_ms: float | None = None
    predicted_ms: tuple[float, float] | None = None
    size_bytes: int | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = Field(default_factory=dict, description="95 %, of some metrics")


class Row(_Record):
    """One run."""

    labels: dict[str, str]
    recipe: str
    recipe_sha256: str
    data_sha256: str | None = Field(default=None, description="of the manifest of the data as they were read")
    judges_sha256: str | None = Field(default=None, description="of what its intervals and outcomes were made by")
    exit_code: int
    error: str | None = None
    verdict: str | None = None
    gates: tuple[Gate, ...] = ()
    teacher: TargetRow | None = None
    baselines: tuple[TargetRow, ...] = ()
    targets: tuple[TargetRow, ...] = ()
    seconds: float
    reused: bool = Field(description="stages were there already: its seconds are no run time")
    cores: int | None = Field(default=None, description="that it was held to, beside other runs; None: it had all")
    date: str
    machine: Machine | None = None

    @property
    def timed(self) -> bool:
        """Whether its seconds tell how long a run takes on this machine."""
        return not self.reused and self.cores is None and self.exit_code in (0, 3)

    @property
    def passed(self) -> bool:
        """Exit code 0, and every gate decided."""
        return self.exit_code == 0 and bool(self.gates) and all(g.outcome == "passed" for g in self.gates)

    @property
    def judged_as_now(self) -> bool:
        """Whether its intervals and verdicts are made as the code makes them now."""
        return self.judges_sha256 == judges_sha256()


class Grid:
    """The rows of one file; ``planned`` is how many there are to be."""

    def __init__(self, path: Path, planned: int | None = None) -> None:
        self.path, self._lock = path, threading.Lock()
        stored = read_json(path) if path.exists() else {"planned": 0, "rows": []}
        self.planned: int = stored["planned"] if planned is None else planned
        self.rows = [Row.model_validate(row) for row in stored["rows"]]

    def find(self, recipe: Path, labels: Mapping[str, str]) -> Row | None:
        """The row of these labels, where it was made with the recipe as it is now and is judged as now."""
        text = sha256_file(recipe)
        same = (r for r in self.rows if r.labels == labels and r.recipe_sha256 == text and r.judged_as_now)
        return next(same, None)

    def add(self, row: Row) -> None:
        """Takes the row in the place of an older one of the same labels and recipe, and writes the file."""
        with self._lock:
            self.rows = [r for r in self.rows if (r.recipe, r.labels) != (row.recipe, row.labels)] + [row]
            self.path.parent.mkdir(parents=True, exist_ok=True)
            rows = [r.model_dump(mode="json") for r in self.rows]
            with atomic_path(self.path) as temporary:
                temporary.write_text(
                    json.dumps({"planned": self.planned, "rows": rows}, indent=1) + "\n", encoding="utf-8"
                )


def side_by_side(groups: Sequence[Sequence[Case]], jobs: int, work: Callable[[Case, Cores], None]) -> None:
    """Calls ``work(case, cores)`` for every case, the cases of a group one after the other, ``jobs`` groups at a time.

    Each of several jobs is held to its own share of this machine's cores; one alone has them all (None).
    """
    have = sorted(os.sched_getaffinity(0))
    shares: queue.SimpleQueue[Cores] = queue.SimpleQueue()
    for job in range(jobs):
        shares.put(None if jobs == 1 else tuple(have[job::jobs]) or (have[job % len(have)],))

    def do(group: Sequence[Case]) -> None:
        cores = shares.get()
        try:
            for case in group:
                work(case, cores)
        finally:
            shares.put(cores)

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for done in [pool.submit(do, group) for group in groups]:
            done.result()


def run(
    recipe: Path,
    labels: Mapping[str, str],
    sets: Sequence[str],
    folder: Path,
    surroundings: Mapping[str, str] | None = None,
    cores: Cores = None,
) -> Row:
    """Runs a recipe in ``folder``, held to ``cores``, and reads its report. An interruption raises; a run that fails is a row."""
    reused = (folder / "stages").exists()
    command = [sys.executable, "-m", "rsedge.cli", "run", str(recipe), "--run-dir", str(folder), "--json"]
    command += [word for setting in sets for word in ("--set", setting)]
    started = time.perf_counter()
    if cores is not None:
        command = ["taskset", "-c", ",".join(map(str, cores)), *command]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **(surroundings or {})})
    seconds = time.perf_counter() - started
    if done.returncode in (130, -2):
        raise KeyboardInterrupt
    common = {
        "labels": dict(labels), "recipe": recipe.stem, "recipe_sha256": sha256_file(recipe), "reused": reused,
        "exit_code": done.returncode, "seconds": round(seconds, 1), "date": today(),
        "cores": None if cores is None else len(cores), "judges_sha256": judges_sha256(),
    }  # fmt: skip
    if done.returncode not in (0, 3):
        return Row(**common, error=_error(done.returncode, done.stdout))
    return Row(**common, **_found(Report.model_validate(read_json(folder / "report.json"))))


def _found(report: Report) -> dict[str, Any]:
    return {
        "verdict": report.verdict,
        "data_sha256": report.data.manifest_sha256,
        "gates": tuple(g for t in report.targets for g in t.gates),
        "teacher": _target(report.teacher.model_dump(mode="json")),
        "baselines": tuple(_target(b.model_dump(mode="json")) for b in report.baselines),
        "targets": tuple(_target(t.model_dump(mode="json")) for t in report.targets),
        "machine": machine(report.environment) if report.environment else None,
    }


def _target(record: Mapping[str, Any]) -> TargetRow:
    """Scalar metrics and their intervals; ``agreement`` is one of them."""
    metrics = dict(record.get("metrics") or {})
    if record.get("agreement") is not None:
        metrics["agreement"] = record["agreement"]
    numbers = {k: float(v) for k, v in metrics.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    ends = {k.removesuffix("_interval"): v for k, v in metrics.items() if k.endswith("_interval") and v}
    latency, predicted = record.get("latency_ms") or {}, record.get("interval")
    return TargetRow(
        name=record["name"], provenance=record.get("provenance"), p50_ms=latency.get("p50"),
        predicted_ms=(predicted["low_ms"], predicted["high_ms"]) if predicted else None,
        size_bytes=record.get("size_bytes"), metrics=numbers, intervals=ends,
    )  # fmt: skip


def machine(environment: Environment) -> Machine:
    """The machine and the tools of a report."""
    return Machine(**environment.model_dump(exclude={"threads"}), commit=commit())


def commit() -> str:
    """The commit of the working tree, with a plus where files that are tracked differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    changed = git(
        "status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results", ":!docs", ":!README.md"
    )
    return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")


def _error(code: int, output: str) -> str:
    if code < 0:
        return f"ended by {signal.Signals(-code).name}: see the run's output"
    try:
        return str(json.loads(output)["error"])
    except (ValueError, KeyError):
        return "no report and no error message: see the run's output"


def today() -> str:
    """The date, UTC."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def where_and_when(rows: Sequence[Row]) -> str:
    """A paragraph: machines, dates, commits and versions of rows."""
    made = [r for r in rows if r.machine is not None]
    lines = []
    for m in {
        (r.machine.cpu, r.machine.cores, _wide(r.machine), r.machine.platform): r.machine for r in made if r.machine
    }.values():
        sets = ", ".join(_wide(m))
        lines.append(f"Machine: {m.cpu}, {m.cores} cores ({sets}), {m.platform}, Python {m.python}.")
    dates, commits = sorted({r.date for r in made}), list(dict.fromkeys(r.machine.commit for r in made if r.machine))
    span = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}" if dates else "no run yet"
    versions = sorted(
        {f"{n} {r.machine.versions[n]}" for r in made if r.machine for n in VERSIONS if n in r.machine.versions}
    )
    lines.append(f"Date: {span}. Commits: {', '.join(commits) or 'none'}. Versions: {', '.join(versions) or 'none'}.")
    if how := held(made):
        lines.append(f"Runs: {how}; latencies are of that.")
    if how := older(rows):
        lines.append(how)
    return "\n".join(lines)


@functools.cache
def judges_sha256() -> str:
    """Hash of the intervals and outcomes that the code makes of some drawn figures: another where it judges otherwise."""
    draw, found = np.random.default_rng(0), []
    for units in (1, 4, 8, 20, 64):
        own, teacher = (
            Statistics("blocks", {"accuracy": ratio(draw.beta(a, 1, units), np.ones(units), 0.0, 1.0)})
            for a in (15, 30)
        )
        facts = Facts(evidence=evidence(own, teacher))
        asked = [{"max_drop": limit} for limit in (0.0, 0.02, 0.05)] + [{"max_relative_drop": 0.03}, {"min": 0.9}]
        found += [judge(GateSection.model_validate({"metric": "accuracy", **one}), "any", facts) for one in asked]
    return sha256_of([
        [g.outcome, g.leans, g.more_needed, *(f"{v:.6g}" for v in (g.value, *(g.interval or ())) if v is not None)]
        for g in found
    ])  # fmt: skip


def older(rows: Sequence[Row]) -> str:
    """A sentence on rows whose intervals are of earlier code; empty where there are none."""
    earlier = sum(not r.judged_as_now for r in rows)
    if not earlier:
        return ""
    which = "The intervals" if earlier == len(rows) else f"The intervals of {earlier} of {len(rows)} rows"
    return f"{which} were made by earlier code (marked *earlier*); the next start of the command runs those rows again."


def held(rows: Sequence[Row]) -> str:
    """How many cores runs were held to, beside others; empty where each had the machine to itself."""
    beside = [r.cores for r in rows if r.cores is not None]
    if not beside:
        return ""
    cores = " or ".join(str(n) for n in sorted(set(beside)))
    which = "all" if len(beside) == len(rows) else f"{len(beside)} of {len(rows)}"
    return f"{which} held to {cores} core{'' if cores == '1' else 's'}, beside other work"


def _wide(m: Machine) -> tuple[str, ...]:
    """The instruction sets that decide which kernels run."""
    wide = [
        s
        for s in m.instruction_sets
        if any(w in s.lower() for w in ("avx2", "avx512f", "vnni", "bf16", "amx", "dot", "asimd"))
    ]
    return tuple(wide) or ("no wide vectors",)


def figure(gate: Gate) -> str:
    """A gate's value with its interval, in the metric's unit."""
    value = gate_figure(gate, gate.value)
    if gate.interval is None:
        return value
    low, high = (gate_figure(gate, end) for end in gate.interval)
    return f"{value} ({low} to {high})"


def heading(gate: Gate) -> str:
    """What a gate asks and of which target."""
    return f"{statement(gate)}, {gate.target}"


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def between(text: str, name: str, inner: str) -> str:
    """A document with what stands between the markers of ``name`` replaced.

    Raises:
        ValueError: the document has no such markers.
    """
    start, end = f"<!-- {name}: written by a command -->", f"<!-- end of {name} -->"
    if start not in text or end not in text:
        raise ValueError(f"no markers '{start}' and '{end}'")
    head, rest = text.split(start, 1)
    return f"{head}{start}\n{inner.strip()}\n{end}{rest.split(end, 1)[1]}"


def write(path: Path, text: str) -> None:
    """Writes a document."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
