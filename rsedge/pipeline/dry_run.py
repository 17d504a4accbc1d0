"""``rsedge run --dry-run``: the run in miniature, in a temporary folder, and what the whole of it is going to take.

The stages themselves run, on the recipe's own teacher, checkpoint, student, data and labels: every role is read, then a few
inputs go through distillation steps, one cut, one INT8 setting, every target's export, executable, report and signed bundle. What
fails there fails in a run too, hours later maybe; the error is the same, with the step that it came from. Figures of a student
that hardly trained say nothing, so none is shown and gates are not judged.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rsedge.cache.memory_watch import MemoryWatch
from rsedge.cache.run_folder import RunFolder, check_run_folder
from rsedge.data.errors import RequestError, RsedgeError
from rsedge.data.record import Record
from rsedge.data.temporary import TemporaryFolder
from rsedge.pipeline.estimate import Estimate, estimate
from rsedge.pipeline.estimate_parts import estimate_parts
from rsedge.pipeline.line import StageLine
from rsedge.pipeline.run import Line, PartsLine, plan
from rsedge.progress import Reporter
from rsedge.recipe.parts import PartsRecipe, PartStep
from rsedge.recipe.reading import AnyRecipe
from rsedge.recipe.schema import Recipe
from rsedge.recipe.steps import Step
from rsedge.recipe.student_auto import AUTO
from rsedge.results.data import Data
from rsedge.stages.names import rows_of
from rsedge.stages.table import STEPS, Stage

ANY_DROP = 10.0
BASELINE = {"teacher in INT8": "a baseline of reports alone, and slow to make of large teachers"}
TRIED = {
    "names": "everything that the recipe names exists and goes together",
    "run folder": "it is for runs, or new",
    "teacher and student": "checkpoint loaded, student built and given a tile",
    "language": "configuration, tokenizer and weight files are there",
    "probe": "labels fit the head",
    "report": "written",
    "estimate": "timed: views, teacher, student",
}
"""What is done of the steps that are no stages, and instead of stages that are not tried."""


class Tried(Record):
    """A step that went through."""

    step: str
    what: str
    seconds: float


class DryRun(Record):
    """What a dry run found; the object that ``rsedge run --dry-run --json`` prints."""

    recipe: str
    run_dir: str
    stages: list[str]
    targets: list[str]
    tried: list[Tried]
    not_tried: dict[str, str]
    warnings: list[str]
    estimate: Estimate

    def text(self) -> str:
        """The same for readers."""
        lines = [f"{self.recipe} -> {self.run_dir}", f"stages:  {', '.join(self.stages)}"]
        lines += [f"targets: {', '.join(self.targets)}", "tried, in a temporary folder that is gone:"]
        lines += [f"  {t.step:20} {t.seconds:6.1f} s  {t.what}" for t in self.tried]
        lines += [f"not tried: {name} ({why})" for name, why in self.not_tried.items()]
        lines += [f"warning: {text}" for text in self.warnings]
        return "\n".join([*lines, self.estimate.text()])


def dry_run(recipe: AnyRecipe, folder: Path, quiet: bool = False) -> DryRun:
    """Tries everything that a run of ``recipe`` in ``folder`` will do; leaves nothing behind.

    Raises:
        RequestError, MissingCapability, GateFailed: as the run would, with the step that failed.
    """
    reporter = Watch(quiet)
    with reporter, MemoryWatch() as memory:
        steps = _Steps(reporter, {row.name: row.trial for row in rows_of(recipe) if row.tried})
        with steps.step("names"):
            names = plan(recipe)
        with steps.step("run folder"):
            check_run_folder(folder)
            place = _writable(folder)
        with TemporaryFolder(place) as temporary:
            run = RunFolder(temporary / "run")
            run.root.mkdir()
            line, found = _tried_any(recipe, run, steps, memory, place)
    return DryRun(
        recipe=recipe.name, run_dir=str(folder), stages=names, targets=list(recipe.targets), tried=steps.done,
        not_tried={**_baseline(recipe), **{row.name: row.trial for row in rows_of(recipe) if not row.tried}},
        warnings=line.ctx.results.of(Data).remarks, estimate=found,
    )  # fmt: skip


def _writable(folder: Path) -> Path:
    """The folder on the run's disk that is there already."""
    place = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.is_dir())
    try:
        TemporaryFolder(place).cleanup()
    except OSError as error:
        raise RequestError(f"{place}: cannot be written ({error.strerror}); choose another --run-dir") from error
    return place


def _baseline(recipe: AnyRecipe) -> dict[str, str]:
    return BASELINE if isinstance(recipe, Recipe) else {}


def _tried_any(
    recipe: AnyRecipe, run: RunFolder, steps: _Steps, memory: MemoryWatch, place: Path
) -> tuple[StageLine, Estimate]:
    """The line in miniature, and what the whole of it is going to take."""
    if isinstance(recipe, Recipe):
        line = _tried(recipe, run, steps)
        with steps.step("estimate"):
            return line, estimate(recipe, line, steps.reporter.seconds, memory, place)
    parts = _tried_parts(recipe, run, steps)
    with steps.step("estimate"):
        return parts, estimate_parts(recipe, parts, memory, place)


def _tried_parts(recipe: PartsRecipe, run: RunFolder, steps: _Steps) -> PartsTrial:
    with steps.step("teacher and student"):
        line = PartsTrial(miniature_parts(recipe), run, steps)
    line.run_all()
    with steps.step("report"):
        line.report(0.0)
    return line


def _tried(recipe: Recipe, run: RunFolder, steps: _Steps) -> Trial:
    small = miniature(recipe)
    with steps.step("teacher and student"):
        line = Trial(small, run, steps)
        line.gates = recipe.gates
    if recipe.captions:
        with steps.step("language"):
            _look_at_language(recipe)
    line.run_all()
    if not recipe.captions:  # its report shows captions, which are not made
        with steps.step("report"):
            from rsedge.stages.report import write_report

            write_report(run, small, line.ctx, line.stages.results, 0.0)
    return line


def _look_at_language(recipe: Recipe) -> None:
    """What can be said at once of the language model behind a captioning teacher."""
    from rsedge.models.zoo import teacher_row
    from rsedge.runtimes.bundle.language_files import IMAGE_TOKEN
    from rsedge.stages.teacher_model import vlm_files

    files = vlm_files(recipe.teacher, recipe.texts.expert)
    files.language_config(teacher_row(recipe.teacher.name))
    files.tokenizer(IMAGE_TOKEN)


class _Tried(StageLine):
    """Stages in miniature; each is a step of the dry run."""

    _steps: _Steps

    def run_all(self) -> None:
        # Between stages something is read too, mostly for the next one: its inputs are hashed before it starts.
        with self._steps.step(self.rows[0].name):
            super().run_all()

    def started(self, name: str) -> None:
        self._steps.at(name)

    def taken(self, row: Stage) -> None:
        super().taken(row)
        names = [row.name for row in self.rows]
        if rest := names[names.index(row.name) + 1 :]:
            self._steps.at(rest[0])


class PartsTrial(_Tried, PartsLine):
    """Those of a recipe of several parts."""

    def __init__(self, recipe: PartsRecipe, run: RunFolder, steps: _Steps) -> None:
        self._steps = steps
        super().__init__(recipe, run, steps.reporter, trial=True)


class Trial(_Tried, Line):
    """Those of a recipe of one network."""

    def __init__(self, recipe: Recipe, run: RunFolder, steps: _Steps) -> None:
        self._steps = steps
        super().__init__(recipe, run, steps.reporter, trial=True)

    def taken(self, row: Stage) -> None:
        if row.name == "data" and self.recipe.teacher.probe is not None:
            from rsedge.stages.probe import try_labels

            self._steps.at("probe")
            try_labels(self.ctx)
        super().taken(row)


class Watch(Reporter):
    """Shows progress alone: notes of stages speak of figures that mean nothing here. Keeps when each step was told."""

    def __init__(self, quiet: bool = False) -> None:
        super().__init__(quiet)
        self._marks: dict[str, list[float]] = {}

    def note(self, text: str) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """One line that stays."""
        super().note(text)

    def step(self, name: str, done: int, total: int, info: str = "") -> None:
        self._marks.setdefault(name, []).append(time.perf_counter())
        super().step(name, done, total)

    def seconds(self, name: str) -> float | None:
        """The shortest time between two steps of the work whose name begins so; None where there were not two."""
        for known, times in self._marks.items():
            if known.startswith(name) and len(times) > 1:
                return min(b - a for a, b in itertools.pairwise(times))
        return None


@dataclass
class _Steps:
    """The steps of a dry run: which is under way, and which went through."""

    reporter: Watch
    trials: dict[str, str]
    done: list[Tried] = field(default_factory=list)
    _now: str = ""
    _since: float = 0.0

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Raises what a run would, with the step under way in front."""
        self._now, self._since = name, time.perf_counter()
        self.reporter.say(f"dry run: {name}")
        try:
            yield
        except RsedgeError as error:
            raise type(error)(f"dry run: {self._now}: {error}") from error
        self._finish()

    def at(self, name: str) -> None:
        """The step under way is done; or, of the same name, goes on."""
        if name == self._now:
            return
        self._finish()
        self._now, self._since = name, time.perf_counter()
        self.reporter.say(f"dry run: {name}")

    def _finish(self) -> None:
        self.reporter.clear()
        seconds = time.perf_counter() - self._since
        self.done.append(
            Tried(step=self._now, what=TRIED.get(self._now) or self.trials[self._now], seconds=round(seconds, 2))
        )


def miniature_parts(recipe: PartsRecipe) -> PartsRecipe:
    """The recipe with next to no training and search, and without gates."""
    parts = {name: part.model_copy(update={"steps": tuple(map(_small_part, part.steps)), "gates": ()})
             for name, part in recipe.parts.items()}  # fmt: skip
    return recipe.model_copy(update={"parts": parts, "gates": (), "strict": False})


def _small_part(step: PartStep) -> PartStep:
    section = getattr(step, step.name)
    few = (
        {"steps": min(STEPS, section.steps), "validate_every": STEPS}
        if step.name == "distill"
        else {"max_trials": 1, "max_reversions": 0}
    )
    return step.model_copy(update={step.name: section.model_copy(update=few)})


def miniature(recipe: Recipe) -> Recipe:
    """The recipe with next to no training and search. Gates are not judged; one that chooses the student stays."""
    gates = tuple(g for g in recipe.gates if g.metric == "latency" and recipe.student.name == AUTO)
    teacher = recipe.teacher
    if teacher.fit is not None:
        fit = teacher.fit.model_copy(update=_few_steps(teacher.fit))
        teacher = teacher.model_copy(update={"fit": fit})
    changes = {"steps": tuple(_small(s) for s in recipe.steps), "gates": gates, "strict": False, "teacher": teacher}
    return recipe.model_copy(update=changes)


def _few_steps(section: Any) -> dict[str, Any]:
    """For a section of training: one batch, read from a cache, so that steps are timed without the teacher."""
    return {"steps": min(STEPS, section.steps), "views": min(section.batch, section.views), "validate_every": STEPS,
            "checkpoint_every": STEPS - 1}  # fmt: skip


def _small(step: Step) -> Step:
    section = getattr(step, step.name)
    changes: dict[str, Any] = {"max_trials": 1, "max_probes": 0, "max_tunings": 0, "max_drop": ANY_DROP}
    if step.name == "distill":
        changes = {**_few_steps(section), "cache": "always"}
    elif step.name == "prune":
        changes = {"steps": 1, "recovery_steps": min(STEPS, section.recovery_steps), "taylor_batches": 1, "damage_batches": 1,
                   "refit_batches": min(1, section.refit_batches), "max_drop": ANY_DROP}  # fmt: skip
    elif step.name == "replace":
        changes = {"recovery_steps": min(STEPS, section.recovery_steps)}
    return step.model_copy(update={step.name: section.model_copy(update=changes)})
