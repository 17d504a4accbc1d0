"""docs/benchmarks.md from the rows that `make bench-peers` and its sisters keep; no figure is typed by hand.

python benchmarks/peers/page.py
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from contender import CONTENDERS, NNCF, OURS, TEACHER
from front import Point, words
from results import DOCUMENT, stored

Row = Mapping[str, Any]

HEAD = """\
# rsedge beside the tools that it stands on

Written by `make bench-peers`, `make bench-random` and `make bench-series`; do not edit. Times are processor time on one thread,
batch 1, of candidates that took turns in one run; ratios have the interval of a bootstrap over turns, figures that over test blocks
(both 95 %). *Share of peak*: multiply-accumulates a second over those of a large INT8 matrix product or convolution in OpenVINO in
the same run.
"""
REAL = """\
# Real weights, real scenes

Every contender is given the same teacher, training views, calibration and selection tiles, and is judged on the same test tiles
with the same draws of blocks. Whatever else trains has as many steps as ours or as much processor time as ours took, whichever is
less (by the time of one step of either network): what a tool brings in that time, no more. A tool's other settings are its
defaults. *Made in*: processor time. optimum-intel is left out: it takes networks by their Hugging Face configuration, which these
have not, and rounds them by NNCF's own functions. Where ours kept all MACs, its cut was undone, since it cost more than is allowed.
"""
RANDOM = """\
# Networks with random weights

224 pixels, three bands, 1000 outputs. *Lost*: RMS difference of the outputs from f32 over their spread, on tiles that calibrated
nothing; with random weights nothing can be said of what a cut network keeps. Cuts are by size of weights in both tools.
"""
SERIES = """\
# Crop series: which student keeps F1 in zones that taught nothing

`recipes/crop-series.yaml`'s teacher and folds of zones; every student is taught anew for each fold, {steps} steps on views of the
other zones, and answers for the fold; the answers of all folds are judged together. What answers and is raced against the
teacher's f32 graph is each student's OpenVINO graph in {precision}. Copies start from the teacher's weights and learn its embedding
beside its answers, by small steps of AdamW.
"""
QUALITY = ("kappa", "f1", "agreement")
"""By which the front is drawn: the first that a case has, and agreement with the teacher beside it."""
GOALS: dict[str, Sequence[tuple[str, float, Callable[[Row], Mapping[str, float] | None], bool]]] = {
    "cloud-mask": (
        ("times as fast as the teacher in f32", 30.0, lambda row: _times(row["time"].get(TEACHER)), True),
        ("times as fast as plain NNCF", 14.0, lambda row: _times(row["time"].get(NNCF)), True),
        ("MB", 0.6, lambda row: dict.fromkeys(("low", "value", "high"), row["size_bytes"] / 1e6), False),
        ("of kappa under the teacher's", 0.0, lambda row: row["drops"].get("kappa"), False),
        ("of the INT8 peak", 0.4, lambda row: row["peak_share"], True),
    ),
}  # fmt: skip
"""What is asked of ours, by recipe: unit, limit, figure with its interval, and whether it is a least."""
FASTER, SIZE, F1_DROP = 3.0, 1e6, 0.02
"""What is asked of a student of the crop series: times as fast, F1 under the teacher's."""


def document(kept: Mapping[str, Any]) -> str:
    """The page of all parts there are."""
    parts = [HEAD]
    for part, section in {"real": real, "random": random_networks, "series": series}.items():
        if kept.get(part):
            parts += ["", *section(kept[part])]
    if len(parts) == 1:
        parts.append("Nothing has been measured yet.")
    return "\n".join(parts).replace("\n# ", "\n## ") + "\n"


def write() -> None:
    """Writes the page."""
    DOCUMENT.write_text(document(stored()), encoding="utf-8")
    print(DOCUMENT)


def real(entries: Mapping[str, Row]) -> list[str]:
    """A section per case: all seeds in one table, then each seed's with intervals."""
    cases: dict[str, list[Row]] = {}
    for entry in sorted(entries.values(), key=lambda e: (e["case"], e["seed"])):
        cases.setdefault(entry["case"], []).append(entry)
    lines = [REAL]
    for case, seeds in cases.items():
        first = seeds[0]
        lines += ["", f"### {case}", ""]
        settings = "".join(f", `{s}`" for s in first["settings"])
        lines += [f"`recipes/{first['recipe']}.yaml`{settings}. {_training(seeds)}", "", *_over_seeds(seeds)]
        lines += _goals(first["recipe"], seeds)
        for entry in seeds:
            lines += [
                "",
                f"#### {case}, seed {entry['seed']}",
                "",
                made_on(entry),
                "",
                *_table(entry["rows"]),
                *_front(entry["rows"]),
            ]
    return lines


def _training(seeds: Sequence[Row]) -> str:
    made = [entry["rows"][OURS]["made"] for entry in seeds if entry["rows"].get(OURS, {}).get("made")]
    return f"Ours trained for {made[0]['steps']} steps." if made else ""


def _over_seeds(seeds: Sequence[Row]) -> list[str]:
    """One row per contender: middle of the seeds, least and most."""
    heads = [
        "",
        "seeds",
        "times faster than the teacher",
        "than NNCF",
        "MB",
        "kappa",
        "under the teacher's",
        "agreement",
        "share of peak",
    ]
    figures: list[tuple[Callable[[Row], float | None], str]] = [
        (lambda r: _inverse(r["time"].get(TEACHER)), "{:.3g}×"), (lambda r: _inverse(r["time"].get(NNCF)), "{:.3g}×"),
        (lambda r: r["size_bytes"] / 1e6, "{:.2f}"), (lambda r: _value(r["figures"].get("kappa")), "{:.3f}"),
        (lambda r: _value(r["drops"].get("kappa")), "{:+.3f}"), (lambda r: _value(r["figures"].get("agreement")), "{:.3f}"),
        (lambda r: _value(r["peak_share"]), "{:.0%}"),
    ]  # fmt: skip
    rows = []
    tried = [name for name in CONTENDERS if any(name in entry["rows"] for entry in seeds)]
    for name in tried:
        found = [e["rows"][name] for e in seeds if "figures" in e["rows"].get(name, {})]
        rows.append(
            [
                CONTENDERS[name].title,
                f"{len(found)} of {len(seeds)}",
                *(_middle([f(r) for r in found], form) for f, form in figures),
            ]
        )
    left = [one.title for name, one in CONTENDERS.items() if name not in tried]
    return [*table(heads, rows), *(["", f"Not run yet: {'; '.join(left)}."] if left else [])]


def _middle(values: Sequence[float | None], form: str) -> str:
    have = [v for v in values if v is not None]
    if not have:
        return ""
    middle, low, high = (form.format(v) for v in (statistics.median(have), min(have), max(have)))
    return middle if low == high else f"{middle} ({low} to {high})"


def _table(rows: Mapping[str, Row]) -> list[str]:
    heads = ["", "times faster than the teacher", "than NNCF", "kappa", "under the teacher's", "agreement", "MACs",
             "share of peak", "steps", "made in", ""]  # fmt: skip
    whole = (rows[TEACHER].get("made") or {}).get("macs")
    return table(heads, [[CONTENDERS[n].title, *_cells(rows[n], whole)] for n in CONTENDERS if n in rows])


def _cells(row: Row, whole: int | None) -> list[str]:
    made = row.get("made") or {}
    if "figures" not in row:
        return [*[""] * 8, clock(row["seconds"]), f"nothing made: {row['error']}"]
    return [
        faster(row["time"].get(TEACHER)), faster(row["time"].get(NNCF)), estimate(row["figures"].get("kappa")),
        estimate(row["drops"].get("kappa"), "{:+.3f}"), estimate(row["figures"].get("agreement")),
        f"{made['macs'] / whole:.0%}" if whole and made.get("macs") else "", estimate(row["peak_share"], "{:.0%}"),
        str(made.get("steps") or ""), clock(row["seconds"]), "; ".join(made.get("notes", ())),
    ]  # fmt: skip


def _front(rows: Mapping[str, Row]) -> list[str]:
    """Whether ours is on the Pareto front of time, size and each figure of quality, in words."""
    judged = {name: row for name, row in rows.items() if "figures" in row}
    titles, lines = {name: one.title for name, one in CONTENDERS.items()}, []
    have = [q for q in QUALITY if any(row["figures"].get(q) for row in judged.values())]
    for quality in dict.fromkeys([*have[:1], *have[-1:]]):
        points = {n: _point(row, quality) for n, row in judged.items() if row["figures"].get(quality)}
        lines += ["", f"By time, size and {quality}: {words(OURS, points, titles)}"]
    return lines


def _point(row: Row, quality: str) -> Point:
    return row["time"][TEACHER]["value"], float(row["size_bytes"]), -row["figures"][quality]["value"]


def _goals(recipe: str, seeds: Sequence[Row]) -> list[str]:
    found = [e["rows"][OURS] for e in seeds if "figures" in e["rows"].get(OURS, {})]
    if recipe not in GOALS or not found:
        return []
    rows = []
    for unit, limit, figure, least in GOALS[recipe]:
        values = [value for row in found if (value := figure(row)) is not None]
        if values:
            asked = f"{'at least' if least else 'at most'} {limit:g} {unit}"
            reached = "; ".join(estimate(value, "{:.3g}") for value in values)
            rows.append([asked, reached, _verdict(values, limit, least)])
    return ["", *table(["asked of ours", "reached, seed by seed", "on all seeds"], rows)]


def _verdict(values: Sequence[Mapping[str, float]], limit: float, least: bool) -> str:
    """Whether all seeds hold a goal, by their whole intervals."""
    sides = [(v["low"] - limit, v["high"] - limit) if least else (limit - v["high"], limit - v["low"]) for v in values]
    if all(worst >= 0 for worst, _ in sides):
        return "held"
    return "**not held**" if any(best < 0 for _, best in sides) else "cannot be told"


def random_networks(entries: Mapping[str, Row]) -> list[str]:
    lines = [RANDOM]
    for name, entry in entries.items():
        lines += ["", f"### {name}, {entry['macs'] / 1e9:.2f} billion MACs", "", made_on(entry), ""]
        lines += table(["", "ms", "times faster than f32", "than NNCF", "MACs", "MB", "lost", "share of INT8 peak"],
                       [[way, *_random_cells(row, entry["macs"])] for way, row in entry["rows"].items()])  # fmt: skip
        whole = {way: row for way, row in entry["rows"].items() if row.get("loss") is not None}
        points = {
            way: (row["time"]["f32"]["value"], float(row["size_bytes"]), row["loss"]) for way, row in whole.items()
        }
        lines += ["", f"By time, size and loss: {words('rsedge INT8', points, {way: way for way in entry['rows']})}"]
    return lines


def _random_cells(row: Row, whole: int) -> list[str]:
    if "error" in row:
        return [row["error"], *[""] * 6]
    loss = "" if row["loss"] is None else f"{row['loss']:.3f}"
    return [f"{row['ms']:.1f}", faster(row["time"].get("f32")), faster(row["time"].get("NNCF")), f"{row['macs'] / whole:.0%}",
            f"{row['size_bytes'] / 1e6:.1f}", loss, estimate(row["peak_share"], "{:.0%}")]  # fmt: skip


def series(entries: Mapping[str, Row]) -> list[str]:
    """The log of tried students, the fastest that holds F1 first."""
    by_name: dict[str, list[Row]] = {}
    for row in entries.values():
        by_name.setdefault(row["name"], []).append(row)
    holding = [n for n, rows in by_name.items() if all(_holds(r) for r in rows)]
    rows = [
        [n, f"{len(r)}", *_series_cells(r), "yes" if n in holding else ""]
        for n, r in sorted(by_name.items(), key=_speed)
    ]
    heads = [
        "student",
        "seeds",
        "times faster",
        "F1 in unseen zones",
        "under the teacher's",
        "agreement",
        "MB",
        "held on all its seeds",
    ]
    verdict = f"{', '.join(holding)}." if holding else f"none of the {len(by_name)} tried."
    first = next(iter(entries.values()))
    steps = max(row["settings"]["steps"] for row in entries.values())
    asked = f"At least {FASTER:g} times faster, F1 at most {F1_DROP:g} under the teacher's: {verdict}"
    return [
        SERIES.format(steps=steps, precision=first["precision"]),
        "",
        made_on(first),
        "",
        asked,
        "",
        *table(heads, rows),
    ]


def _speed(item: tuple[str, Sequence[Row]]) -> float:
    return statistics.median(row["time"]["value"] for row in item[1])


def _series_cells(rows: Sequence[Row]) -> list[str]:
    if len(rows) == 1:
        (row,) = rows
        return [faster(row["time"]), f"{row['f1']:.3f}", estimate(row["drop"], "{:+.3f}"), estimate(row["agreement"]),
                f"{row['size_bytes'] / 1e6:.2f}"]  # fmt: skip
    values: Iterable[tuple[list[float], str]] = (
        ([1 / r["time"]["value"] for r in rows], "{:.3g}×"), ([r["f1"] for r in rows], "{:.3f}"),
        ([r["drop"]["value"] for r in rows], "{:+.3f}"), ([r["agreement"]["value"] for r in rows], "{:.3f}"),
        ([r["size_bytes"] / 1e6 for r in rows], "{:.2f}"),
    )  # fmt: skip
    return [_middle(found, form) for found, form in values]


def _holds(row: Row) -> bool:
    return bool(1 / row["time"]["value"] >= FASTER and row["drop"]["value"] <= F1_DROP)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table; columns in which no row says anything are left out."""
    body = [[cell.replace("|", "/") for cell in row] for row in rows]
    shown = [at for at in range(len(heads)) if any(row[at] for row in body)]
    lines = ["| " + " | ".join(heads[at] for at in shown) + " |", "|" + "---|" * len(shown)]
    return lines + ["| " + " | ".join(row[at] for at in shown) + " |" for row in body]


def faster(ratio: Mapping[str, float] | None) -> str:
    """A share of another's time as how many times faster, with its interval."""
    if ratio is None:
        return ""
    return f"{1 / ratio['value']:.3g}× ({1 / ratio['high']:.3g} to {1 / ratio['low']:.3g})"


def estimate(found: Mapping[str, Any] | None, form: str = "{:.3f}") -> str:
    """A figure with its interval, where it has one."""
    if found is None or found["value"] is None:
        return ""
    low, high = found["interval"] if found.get("interval") else (found.get("low"), found.get("high"))
    value = form.format(found["value"])
    return value if low is None or low == high else f"{value} ({form.format(low)} to {form.format(high)})"


def clock(seconds: float | None) -> str:
    """Minutes and seconds; nothing where they were not taken."""
    if seconds is None:
        return ""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def made_on(entry: Row) -> str:
    """Machine, date, commit, tools, the INT8 peak, and what else the machine did."""
    on = entry["made_on"]
    wide = [s for s in on["instruction_sets"] if "vnni" in s or "amx" in s or s == "avx512-bf16"]
    versions = ", ".join(f"{n} {v}" for n, v in sorted(on["versions"].items()))
    words = [f"{on['cpu']} ({', '.join(wide) or 'no VNNI'}), {on['date']}, commit {on['commit']}; {versions}."]
    if peak := entry.get("peak"):
        words.append(f"INT8 peak of one core: {peak['gmacs']:.0f} billion MACs a second ({peak['by']}).")
    words += [f"Meanwhile {entry['load']}."] if entry.get("load") else []
    words += [f"**{entry['noise']}.**"] if entry.get("noise") else []
    return " ".join(words)


def _value(found: Mapping[str, float] | None) -> float | None:
    return None if found is None else found["value"]


def _times(ratio: Mapping[str, float] | None) -> dict[str, float] | None:
    """A share of another's time as how many times faster."""
    if ratio is None:
        return None
    return {"value": 1 / ratio["value"], "low": 1 / ratio["high"], "high": 1 / ratio["low"]}


def _inverse(ratio: Mapping[str, float] | None) -> float | None:
    return None if ratio is None else 1 / ratio["value"]


if __name__ == "__main__":
    write()
