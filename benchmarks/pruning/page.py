"""The measured part of docs/pruning.md, from the rows that are kept; no figure is typed by hand."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import kept
from scipy.stats import t

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measured import MeasuredPage

PAGE = MeasuredPage("pruning.json", "pruning.md", "make bench-prune", ("realised", "kinds", "kept"))
GOAL, LEAST_SEEDS = 0.9, 2
Rows = Mapping[str, Mapping[str, Any]]


def lines(stored: Mapping[str, Rows]) -> list[str]:
    """The measured part, from its rows."""
    parts = (_realised(stored["realised"]), _kinds(stored["kinds"]), _kept(stored["kept"]))
    return [line for part in parts for line in (*part, "")]


REALISED = """\
## Speed that a cut realises

Random weights, 224 pixels, f32, OpenVINO on this machine's CPU, in turns. *Realised*: speed-up over MAC cut, with a 95 % interval;
{goal} is asked for. *Every width* is all of `kinds` but blocks, the same share of each; without attention that is `channels`.
Untrained blocks of ResNet and ConvNeXt hardly change what they are given, so they go first where blocks may: which ones should go,
trained networks say."""
KINDS = """\
## Which kinds may go

Real weights, real inputs, each list of `kinds` cut once to {ratio:g} of the network's latency, fitted anew and recovered as below.
*Kept*: share of the teacher's variance that is given again on inputs that taught nothing, seed by seed."""
KEPT = """\
## What is kept at equal latency

Real weights, real inputs. Every contender is cut once, to the latency that ours reached ({ratio:g} of the network's was
asked for; the others may be 2 % slower), and recovers {steps} steps of {batch} inputs, the same for all. Ours is fitted anew
by least squares before, which is part of it (`refit_batches`). *Kept*: share of the teacher's variance that is given again
on inputs that taught nothing; *under ours*: the difference of *{ours}* minus it, paired by seed. Means over seeds with a
95 % interval (Student's t). Torch-Pruning takes the same share of every layer, or ranks channels globally, whichever is
better on selection before recovery; of series it is shown the
blocks alone, since it cannot follow what lies around them."""


def _realised(rows: Rows) -> list[str]:
    lines = [
        REALISED.format(goal=GOAL), _made(rows.values()), "",
        "| network | cut | MACs left | time left | blocks gone | realised | |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, entry in rows.items():
        lines += [f"| {name} | {way} | {_realised_cells(row)} |" for way, row in entry["rows"].items()]
    where = [
        _keeping(name, way, row)
        for name, entry in rows.items()
        for way, row in entry["rows"].items()
        if row.get("keeps")
    ]
    return [*lines, "", "Where the time stays, by the table of layers:", "", *where] if where else lines


def _keeping(name: str, way: str, row: Mapping[str, Any]) -> str:
    layers = ", ".join(f"`{layer}` {after:.0%} (before {before:.0%})" for layer, after, before in row["keeps"])
    return f"- {name}, {way}: {layers};"


def _realised_cells(row: Mapping[str, Any]) -> str:
    if "error" in row:
        return f" | | | | refused: {row['error']}"
    (value, low, high), time = row["realised"], row["time"]
    said = "reached" if low >= GOAL else "missed" if high < GOAL else "cannot be told"
    if row["keeps"]:
        said = "by milliseconds"
    left = f"{time['value']:.3f} ({time['low']:.3f} to {time['high']:.3f})"
    return f"{row['macs']:.3f} | {left} | {row['blocks']} | {value:.2f} ({low:.2f} to {high:.2f}) | {said}"


def _kinds(rows: Rows) -> list[str]:
    lines = [KINDS.format(ratio=kept.RATIO), _made(rows.values())]
    lines += [
        "",
        "| network | kinds | time left | blocks gone | kept, cut | kept, recovered |",
        "|---|---|---|---|---|---|",
    ]
    for case in kept.CASES:
        seeds = [entry["rows"] for name, entry in rows.items() if name.rpartition(", seed ")[0] == case]
        for way in kept.MORE_KINDS if seeds else ():
            found = [seed[way] for seed in seeds]
            cells = [
                ", ".join(f"{value:.2f}" for value in (row["time"]["value"] for row in found)),
                ", ".join(str(row["blocks"]) for row in found),
                *(", ".join(f"{row[when]:.3f}" for row in found) for when in ("cut", "recovered")),
            ]
            lines.append(f"| {case} | {way} | {' | '.join(cells)} |")
    return lines


def _kept(rows: Rows) -> list[str]:
    text = KEPT.format(ratio=kept.RATIO, steps=kept.STEPS, batch=kept.BATCH, ours=kept.OURS)
    lines = [text, _made(rows.values())]
    for case in kept.CASES:
        seeds = [entry for name, entry in rows.items() if name.rpartition(", seed ")[0] == case]
        if seeds:
            lines += ["", f"### {case}", "", *_table(seeds)]
    return lines


def _table(seeds: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        f"{len(seeds)} seeds. {_verdict(seeds)}" if seeds[1:] else "One seed: what holds on another cannot be told.", "",
        "| contender | time over ours | MACs left | kept, cut | kept, recovered | under ours |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for way in _ways(seeds):
        rows = [row for entry in seeds if (row := _row(entry, way)) is not None]
        if len(rows) < len(seeds):
            errors = [
                r["error"] for entry in seeds for n, r in entry["rows"].items() if _plain(n) == way and "error" in r
            ]
            lines.append(f"| {way} | | | | | on {len(errors)} of {len(seeds)} seeds none: {errors[0]} |")
            continue
        behind = [o - r["recovered"] for o, r in zip(_recovered(seeds, kept.OURS), rows, strict=True)]
        lines.append(
            f"| {way} | {_mean([r['over_ours']['value'] for r in rows]):.2f} | {_mean([r['macs'] for r in rows]):.2f} | "
            f"{_mean([r['cut'] for r in rows]):.3f} | {_spread([r['recovered'] for r in rows])} | "
            f"{'' if way == kept.OURS else _spread(behind)} |"
        )
    return lines


def _verdict(seeds: Sequence[Mapping[str, Any]]) -> str:
    """How often ours is above, below, or cannot be told from Torch-Pruning's criteria."""
    counts = {"above": 0, "below": 0, "not to be told from": 0}
    best = _recovered(seeds, kept.OURS)
    for way in _ways(seeds):
        found = _recovered(seeds, way)
        if way.startswith("Torch-Pruning") and len(found) == len(best):
            low, high = _interval([o - f for o, f in zip(best, found, strict=True)])
            counts["above" if low > 0 else "below" if high < 0 else "not to be told from"] += 1
    said = ", ".join(f"{word} {n}" for word, n in counts.items() if n)
    return f"Ours is {said} of {sum(counts.values())} criteria." if said else ""


def _ways(seeds: Sequence[Mapping[str, Any]]) -> list[str]:
    names = {_plain(name) for entry in seeds for name in entry["rows"]}
    return sorted(names, key=lambda n: (not n.startswith("rsedge"), n != kept.OURS, n))


def _plain(name: str) -> str:
    return name.removesuffix(", alike").removesuffix(", global")


def _row(entry: Mapping[str, Any], way: str) -> Mapping[str, Any] | None:
    return next((r for n, r in entry["rows"].items() if _plain(n) == way and "error" not in r), None)


def _recovered(seeds: Sequence[Mapping[str, Any]], way: str) -> list[float]:
    return [row["recovered"] for entry in seeds if (row := _row(entry, way)) is not None]


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values)


def _interval(values: Sequence[float]) -> tuple[float, float]:
    if len(values) < LEAST_SEEDS:
        return -math.inf, math.inf
    half = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return _mean(values) - half, _mean(values) + half


def _spread(values: Sequence[float]) -> str:
    if len(values) < LEAST_SEEDS:
        return f"{_mean(values):.3f} (no interval)"
    low, high = _interval(values)
    return f"{_mean(values):.3f} ({low:.3f} to {high:.3f})"


def _made(entries: Any) -> str:
    entries = list(entries)
    if not entries:
        return "Nothing has been measured yet."
    parts = ("; ".join(sorted({e[key] for e in entries})) for key in ("cpu", "clock", "date", "commit"))
    loads = sorted({e["load"] for e in entries if e["load"]})
    threads = "; ".join(sorted({str(e["threads"]) for e in entries}))
    return (
        "Machine: {}, by {}. Date: {}. Commit: {}.".format(*parts)
        + f" Threads: {threads}."
        + (f" Meanwhile {'; '.join(loads)}." if loads else "")
    )
