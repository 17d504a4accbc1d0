"""Does other work on the machine change what a recipe decides (`make busy`)? Writes benchmarks/results/busy.json.

A small real recipe (a cloud-mask student on data from installed wheels, pruned towards a measured latency, INT8 searched) runs up
to `quantize` on a few seeds, each time alone and beside processes that keep processors busy. What was decided is held against each
other: which pruning steps were kept, what they removed, which INT8 setting was taken. `docs/reproducibility.md` shows it. Exit code
1 where decisions differ. Wants a machine that is quiet but for its own neighbours.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grid
from pydantic import BaseModel, ConfigDict

from rsedge.data.files import read_json
from rsedge.results.records import Prune, Quantize
from rsedge.stages.report import environment

STORE = grid.RESULTS / "busy.json"
RECIPE = """\
name: busy
threads: 2
teacher: {name: ukis-csmask-4b-l2a}
data:
  train: [{source: spyndex-sentinel2}]
  test: {source: spyndex-sentinel2, simulated_clouds: 1}
  calibration: {tiles: 8}
  block: 50
student: {name: slim-unet, stem: 16, encoder: [16, 32], blocks: [1, 1], decoder: [32, 16]}
steps:
  - distill: {steps: 60, views: 32, batch: 4, validate_every: 60, autocast: "off"}
  - prune: {steps: 2, recovery_steps: 10, taylor_batches: 2, max_drop: 1.0, target: {latency_ratio: 0.7}}
  - quantize: {max_trials: 4, max_drop: 1.0, qat: {steps: 0}}
targets: [openvino-cpu-int8]
"""
NEIGHBOUR = "while True: pass"


class Decided(BaseModel):
    """What pruning and the INT8 search decided, and by what."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pruning: tuple[str, ...]
    removed: tuple[dict[str, int], ...]
    params: int
    int8: str
    reasons: tuple[str, ...]

    def differences(self, other: Decided) -> list[str]:
        """Names of the decisions that are not the same; reasons hold figures and may differ."""
        return [
            name for name in ("pruning", "removed", "params", "int8") if getattr(self, name) != getattr(other, name)
        ]


class Pair(BaseModel):
    """One seed: alone and beside ``neighbours`` busy processes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int
    neighbours: int
    alone: Decided
    beside: Decided
    date: str
    machine: grid.Machine


def decided(run: Path) -> Decided:
    """What a run up to ``quantize`` decided."""
    pruned = Prune.model_validate(_value(run, "prune")).record
    quantized = Quantize.model_validate(_value(run, "quantize"))
    chosen = quantized.chosen
    return Decided(
        pruning=tuple(f"{step.outcome}, {sum(step.removed.values())} channels" for step in pruned.steps),
        removed=tuple(step.removed for step in pruned.steps), params=pruned.after.params,
        int8="none" if chosen is None else chosen.label(),
        reasons=(*(step.reason for step in pruned.steps), quantized.reason),
    )  # fmt: skip


def _value(run: Path, stage: str) -> Any:
    return read_json(run / "stages" / stage / "record.json")["value"]


def run_recipe(folder: Path, seed: int, neighbours: int) -> Decided:
    """Runs up to ``quantize`` beside busy processes."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE, encoding="utf-8")
    run = folder / f"{seed}-{neighbours}"
    busy = [subprocess.Popen([sys.executable, "-c", NEIGHBOUR]) for _ in range(neighbours)]
    try:
        command = [sys.executable, "-m", "rsedge.cli", "run", str(recipe), "--run-dir", str(run), "--until", "quantize"]
        subprocess.run([*command, "--set", f"seed={seed}"], check=True)
    finally:
        for neighbour in busy:
            neighbour.kill()
            neighbour.wait()
    return decided(run)


def pairs() -> list[Pair]:
    """What was measured."""
    return [Pair.model_validate(row) for row in read_json(STORE)] if STORE.exists() else []


def section() -> list[str]:
    """Lines for docs/reproducibility.md; none where nothing was measured."""
    found = pairs()
    if not found:
        return []
    same = sum(not pair.alone.differences(pair.beside) for pair in found)
    lines = [
        "", "## What a busy machine changes", "",
        f"Written by `make busy`: a student is pruned towards a measured latency and its INT8 searched, alone and beside "
        f"processes that keep processors busy. {same} of {len(found)} runs decided the same beside them.", "",
        "| seed | busy processes | alone: pruning | INT8 | beside them: pruning | INT8 | |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for p in found:
        apart = p.alone.differences(p.beside)
        cells = (str(p.seed), str(p.neighbours), *_cells(p.alone), *_cells(p.beside), ", ".join(apart) or "the same")
        lines.append("| " + " | ".join(cells) + " |")
    machine = found[-1].machine
    return [*lines, "", f"Machine: {machine.cpu}, {machine.cores} cores; {found[-1].date}; commit {machine.commit}."]


def _cells(one: Decided) -> tuple[str, str]:
    return f"{'; '.join(one.pruning)}; {one.params:,} parameters left", one.int8


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds (default 3)")
    parser.add_argument("--busy", type=int, default=1, help="busy processes beside the second run (default 1)")
    options = parser.parse_args(arguments)
    found: list[Pair] = []
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as name:
            alone, beside = (run_recipe(Path(name), seed, count) for count in (0, options.busy))
        found.append(Pair(seed=seed, neighbours=options.busy, alone=alone, beside=beside, date=grid.today(),
                          machine=grid.machine(environment(2))))  # fmt: skip
        grid.write(STORE, json.dumps([pair.model_dump(mode="json") for pair in found], indent=1) + "\n")
        apart = alone.differences(beside)
        print(f"seed {seed}: " + (f"decided differently: {', '.join(apart)}" if apart else "the same decisions"))
        for words, one in (("alone", alone), (f"beside {options.busy} busy", beside)):
            for reason in one.reasons:
                print(f"  {words}: {reason}")
    return 1 if any(pair.alone.differences(pair.beside) for pair in found) else 0


if __name__ == "__main__":
    raise SystemExit(main())
