"""An epoch of distillation with the teacher's outputs kept, against one with the teacher asked anew, in turns within one run.

    python benchmarks/teacher_cache.py recipes/quickstart.yaml --views 24 --rounds 3

Of each way: reading the batches of an epoch alone, and the whole epoch with the student's steps. Figures are processor seconds of
this process, one thread, and the wall clock's, which other processes move. Writes benchmarks/results/teacher_cache.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rsedge.cache.run_folder import RunFolder
from rsedge.compress.distill.teacher_cache import TeacherCache
from rsedge.compress.distill.teacher_outputs import LiveOutputs, TeacherOutputs, cached_outputs
from rsedge.compress.distill.training import distill
from rsedge.data.files import write_json
from rsedge.data.temporary import TemporaryFolder
from rsedge.devices.profiles.cpu import detect_cpu
from rsedge.pipeline.run import Line
from rsedge.progress import Reporter
from rsedge.recipe.reading import load_recipe
from rsedge.stages.context import RunContext, prepare_torch
from rsedge.stages.distill import distill_settings

RESULTS = Path(__file__).parent / "results" / "teacher_cache.json"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--views", type=int, default=24, help="of one epoch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def timed(work: Callable[[], object]) -> dict[str, float]:
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return {"wall_s": time.perf_counter() - wall, "processor_s": time.process_time() - processor}


def read_all(source: TeacherOutputs, batch: int) -> None:
    for start in range(0, source.count, batch):
        source.batch(range(start, min(start + batch, source.count)))


def epoch(source: TeacherOutputs, ctx: RunContext, folder: Path) -> None:
    """The student's steps over all views once, without validation."""
    settings = distill_settings(ctx)
    steps = max(1, source.count // settings.batch)
    settings = dataclasses.replace(settings, steps=steps, validate_every=10**9, autocast="off")
    distill(source, ctx.build()[0], settings, folder, seed=0)


def measured(ctx: RunContext, folder: Path, views: int, rounds: int) -> dict[str, Any]:
    section = ctx.recipe.distill.model_copy(update={"views": views, "cache": "always"})
    choice = ctx.source_choice(section, folder / "set")
    cache = TeacherCache(folder / "set", choice.record)

    def fill() -> None:
        cached_outputs(cache, ctx.views, ctx.training_targets, ctx.read, views)

    made = timed(fill)
    sources: dict[str, TeacherOutputs] = {
        "kept": cached_outputs(cache, ctx.views, ctx.training_targets, ctx.read, views),
        "online": LiveOutputs(ctx.views, ctx.training_targets, ctx.read, views, choice.record),
    }
    found: dict[str, list[dict[str, float]]] = {}
    for number in range(rounds):
        for name, source in sources.items():
            found.setdefault(f"reading, {name}", []).append(timed(lambda s=source: read_all(s, section.batch)))
            place = folder / f"{number}-{name}"
            found.setdefault(f"epoch, {name}", []).append(timed(lambda s=source, p=place: epoch(s, ctx, p)))
    return {
        "record": {name: coding.words for name, coding in choice.record.codings.items()},
        "bytes_a_view": choice.record.of.itemsize, "making": made, "turns": found,
        "ratio": {
            what: {
                unit: statistics.median(one[unit] / kept[unit] for one, kept in
                                        zip(found[f"{what}, online"], found[f"{what}, kept"], strict=True))
                for unit in made
            }
            for what in ("reading", "epoch")
        },
    }  # fmt: skip


def main() -> None:
    asked = arguments()
    recipe = load_recipe(asked.recipe).model_copy(update={"threads": asked.threads})
    prepare_torch("cpu", asked.threads)
    with TemporaryFolder() as folder:
        run = RunFolder(folder / "run")
        run.root.mkdir()
        line = Line(recipe, run, Reporter(quiet=True))
        found = measured(line.ctx, folder, asked.views, asked.rounds)
    about = {
        "recipe": recipe.name, "views": asked.views, "rounds": asked.rounds, "threads": asked.threads,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(), "machine": detect_cpu().model,
    }  # fmt: skip
    write_json(RESULTS, about | found)
    print(found["ratio"], found["making"], found["bytes_a_view"])


if __name__ == "__main__":
    main()
