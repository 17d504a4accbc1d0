"""Writes docs/degradations.md from what degrade.py measured; `python benchmarks/views/degrade_page.py` writes it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rsedge.data.files import read_json, write_bytes

DOCUMENT = Path(__file__).parents[2] / "docs" / "degradations.md"
RESULTS = Path(__file__).parents[1] / "results" / "degrade.json"
FURTHER = 0.03
"""Kappa that a student may lose beside its teacher without being counted."""
HEAD = f"""# Students under product degradations

Written by `python benchmarks/views/degrade.py` (`make bench-degrade`) from `benchmarks/results/degrade.json`. The 37 conditions of
`rspdbench` {{version}} (plain tiles are one of them) judge students and their teacher; they are no training views. *Further* is how
much more kappa a student loses than its teacher from plain to degraded tiles; counted are conditions in which that is more than
{FURTHER}. `selection` and `test` are blocks of the labelled scene (others with each seed), where labels judge; scenes by
name took no part in training and lie under simulated clouds, where the teacher's answers on plain tiles judge.

`old views`, `changes` and so on are what `benchmarks/views/train.py` calls them. With `changes` the student learns what the teacher
answers on a changed view, and breaks where it breaks; with `steady changes` what the teacher answers without the changes. A student
that is better than its teacher on plain tiles has further to fall: to fall to its teacher's own figure counts. The student of
`steady changes`, seed 1, was trained by a forerunner of that script, with the same kinds and shares and other draws.
"""
KINDS = """
Kinds of change of training views (`data/scenes/changes.py`), in the upper third of their bounds: *further* as above, a mean over
seeds. A student whose name says nothing else was trained with all of them, `old views` with none, `steady changes` with all but
stripes, levels, dark and bright ground.
"""
Seeds = Mapping[str, Mapping[str, Mapping[str, Any]]]


def page(record: Mapping[str, Any]) -> str:
    """The text; ``record`` holds recipes by name, their seeds, students and grounds."""
    lines = [HEAD.format(version=record["rspdbench"])]
    for recipe, seeds in record.items():
        if recipe != "rspdbench":
            lines += [f"## {recipe}\n", *summary(seeds), *details(seeds)]
    return "\n".join(lines) + "\n"


def rows_of(seeds: Seeds) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    """Ground, student, seed and what was found, in this order."""
    found = [
        (ground, student, seed, one)
        for seed, students in seeds.items()
        for student, grounds in students.items()
        for ground, one in grounds.items()
    ]
    order = list(dict.fromkeys(student for _ground, student, _seed, _one in found))
    yield from sorted(found, key=lambda row: (row[0], order.index(row[1]), int(row[2])))


def summary(seeds: Seeds) -> list[str]:
    lines = [
        f"| ground | student | seed | teacher | student | over {FURTHER} further | worst | mean further |",
        "|" + "---|" * 8,
    ]
    for ground, student, seed, one in rows_of(seeds):
        plain, worst = one["rows"]["clean"], one["worst"]
        lines.append(
            f"| {ground} | {student} | {seed} | {plain['teacher']:.3f} | {plain['student']:.3f} | "
            f"{len(one['over'])} of {one['conditions']} | {worst['condition']} {worst['further']:+.3f} | {one['mean']:+.3f} |"
        )
    return lines


def details(seeds: Seeds) -> list[str]:
    """A table a ground: what each student loses further under each kind of change."""
    lines = [KINDS]
    rows = list(rows_of(seeds))
    for ground in dict.fromkeys(row[0] for row in rows):
        students = {student: [o for g, s, _seed, o in rows if (g, s) == (ground, student)] for student in
                    dict.fromkeys(s for g, s, _seed, _one in rows if g == ground)}  # fmt: skip
        kinds = list(next(iter(students.values()))[0]["kinds"])
        if not kinds:
            continue
        lines += [f"| {ground} | {' | '.join(kinds)} |", "|" + "---|" * (1 + len(kinds))]
        for student, found in students.items():
            means = (sum(one["kinds"][kind]["further"] for one in found) / len(found) for kind in kinds)
            lines.append(f"| {student} | {' | '.join(f'{mean:+.3f}' for mean in means)} |")
        lines.append("")
    return lines


if __name__ == "__main__":
    write_bytes(DOCUMENT, page(read_json(RESULTS)).encode())
