"""One trial: what is predicted first, then few steps, then all of them; each as stages of a recipe, shared by a shelf."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rsedge.data.errors import NoRoom, RsedgeError
from rsedge.data.files import no_room
from rsedge.pipeline.run import run_until
from rsedge.recipe.schema import Recipe, parse_target
from rsedge.results.records import Distill
from rsedge.runtimes.inference.many import failure
from rsedge.runtimes.precision import precision
from rsedge.search.figures import Clock, Foreseen, TeacherMs, foreseen, hopeless, measured
from rsedge.search.front import Rung, goes_on
from rsedge.search.study import Trial

if TYPE_CHECKING:
    from rsedge.pipeline.run import Line

LEAST_STEPS = 1
Record = dict[str, Any]


@dataclass
class Stopped(Exception):
    """A candidate that cannot pay: why, and the gates that it is known to break."""

    words: str
    shortfalls: dict[str, float]


def run_trial(trial: Trial, teacher: TeacherMs, on_step: Callable[[str], None]) -> Record:
    """Takes a trial to its end, whatever that is, and keeps it in the storage.

    Args:
        teacher: its predicted latencies, kept from trial to trial.
        on_step: is told what is begun.

    Returns:
        ``status`` (``done``, ``stopped``, ``failed``), ``number``, ``words``.

    Raises:
        RequestError: the storage cannot be used. NoRoom: the disk is full, which is no fault of the trial: it stays under way.
    """
    search, began = trial.search, time.monotonic()

    def over(status: Any, words: str, shortfalls: dict[str, float] | None = None) -> Record:
        search.end(trial.number, status, words, shortfalls, round(time.monotonic() - began, 3))
        return {"status": status, "number": trial.number, "words": words}

    try:
        recipe = search.space.recipe_at(trial.point)
        _pay(trial, recipe, teacher, on_step)
        line = _staged(trial, recipe, precision(parse_target(trial.target).precision).made_by, "full", on_step)
        on_step("selection and latency")
        clock = Clock(search.reference_ms, search.trials, teacher)
        found = measured(line.ctx, trial.target, search.objectives, clock)
    except Stopped as stopped:
        return over("stopped", stopped.words, stopped.shortfalls)
    except NoRoom:
        raise
    except (RsedgeError, OSError, MemoryError) as error:
        if isinstance(error, OSError) and (full := no_room(error.filename or trial.folder, error)) is not None:
            raise full from error
        return over("failed", _line(failure(error)["error"]))
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        return over("failed", f"out of memory: {_line(str(error))}")
    search.done(trial, found.figures, found.shortfalls, found.words, round(time.monotonic() - began, 3))
    return {"status": "done", "number": trial.number, "words": found.words}


def out_of_memory(error: RuntimeError) -> bool:
    """Whether torch or a runtime had no room left; it is no error of its own kind on a processor."""
    words = str(error).lower()
    return type(error).__name__ == "OutOfMemoryError" or "allocate memory" in words or "out of memory" in words


def _line(words: str) -> str:
    return " ".join(words.split())


def _staged(trial: Trial, recipe: Recipe, stage: str, place: str, on_step: Callable[[str], None]) -> Line:
    on_step(stage if place == "full" else f"{stage}, {place}")
    return run_until(recipe, trial.folder / place, stage, quiet=True, shelf=trial.search.shelf)


def _pay(trial: Trial, recipe: Recipe, teacher: TeacherMs, on_step: Callable[[str], None]) -> None:
    """
    Raises:
        Stopped: the candidate breaks a gate by prediction, or is behind others with few steps.
    """
    line = _staged(trial, recipe, "teacher", "full", on_step)
    known = foreseen(line.ctx, trial.target, teacher)
    if known is None:
        return
    if broken := hopeless(recipe, trial.target, known):
        raise Stopped(f"not trained: {_predicted(known)} breaks {', '.join(broken)}", broken)
    done: list[Rung] = []
    for steps in rung_steps(recipe, trial.search.space.file.rungs.shares):
        short = _staged(trial, trial.search.space.recipe_at(trial.point, steps), "distill", f"steps-{steps}", on_step)
        mine = Rung(steps=steps, score=short.ctx.results.of(Distill).selection["score"], costs=known.costs)
        done.append(mine)
        trial.keep("rungs", [rung.model_dump() for rung in done])
        others = [r for row in trial.search.rows() if row.number != trial.number for r in row.rungs if r.steps == steps]
        keep = trial.search.space.file.rungs.keep
        if not goes_on(mine, others, keep):
            raise Stopped(
                f"after {steps} steps: likeness {mine.score:.3f} at {_predicted(known)} is not among the better {keep:.0%} of "
                f"{len(others) + 1}", {},
            )  # fmt: skip


def rung_steps(recipe: Recipe, shares: tuple[float, ...]) -> list[int]:
    """Distillation steps of the rungs below the whole."""
    whole = recipe.distill.steps
    steps = [max(LEAST_STEPS, round(share * whole)) for share in shares]
    return sorted({n for n in steps if n < whole})


def _predicted(known: Foreseen) -> str:
    """In words; the fast end of the latency, of what can be told."""
    ms = [] if known.fastest_ms is None else [f"{known.fastest_ms:.3g} ms or more"]
    size = known.costs[1] if known.size_bytes is None else known.size_bytes
    return f"predicted {', '.join([*ms, f'{size / 1e3:.0f} kB'])}"
