"""Runs a recipe: stage after stage in its run folder, each reused where nothing it reads has changed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsedge.cache.run_folder import RunFolder, open_run_folder
from rsedge.cache.shelf import Shelf
from rsedge.cache.stage import check_stages
from rsedge.data.errors import GateFailed, RequestError
from rsedge.data.metrics.verdict import Gate, Verdict, gate_line
from rsedge.pipeline.line import LastStage, StageLine
from rsedge.pipeline.together import ALONE, Company, led
from rsedge.progress import Reporter
from rsedge.recipe.checks import preflight
from rsedge.recipe.contracts import contracts
from rsedge.recipe.part_checks import preflight_parts
from rsedge.recipe.parts import PartsRecipe
from rsedge.recipe.reading import AnyRecipe, write_resolved
from rsedge.recipe.schema import Recipe
from rsedge.recipe.student_auto import AUTO
from rsedge.results.data import Data
from rsedge.results.records import Teacher
from rsedge.stages.names import rows_of, stage_names
from rsedge.stages.table import Stage, base_settings
from rsedge.tracking.tracked import log_report, tracked

if TYPE_CHECKING:
    from torch import nn

    from rsedge.reports.schema import Report
    from rsedge.stages.context import RunContext
    from rsedge.stages.parts.context import PartsContext


@dataclass(frozen=True)
class RunSummary:
    """How a run ended.

    Attributes:
        verdict: of all targets' gates together; None where the run ended before they were judged.
        strict: undecided gates count as failed.
        stopped_after: the stage that the run was to end with, before any report.
        warnings: what its stages warned of.
        reached: figures of what the last stage made, where it judges it.
    """

    name: str
    run_dir: Path
    verdict: Verdict | None
    seconds: float
    strict: bool = False
    stopped_after: str | None = None
    warnings: tuple[str, ...] = ()
    reached: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        return GateFailed.exit_code if self.failed else 0

    @property
    def failed(self) -> tuple[Gate, ...]:
        """Gates by which the run ends with exit code 3."""
        if self.verdict is None:
            return ()
        return tuple(g for g in self.verdict.gates if not g.passed or (self.strict and not g.decided))

    @property
    def reached_lines(self) -> list[str]:
        """A line for each that was judged."""
        return [f"  {what}: {_figures_text(found)}" for what, found in self.reached.items()]

    @property
    def headline(self) -> str:
        """The run's last line."""
        if self.verdict is None:
            return f"stopped after {self.stopped_after}; the same command without --until goes on"
        strict = "; strict asks for decided gates" if self.strict and self.verdict.undecided else ""
        return f"{self.verdict.headline}{strict}"

    def as_dict(self) -> dict[str, Any]:
        """The object that ``rsedge run --json`` prints."""
        made, gates = self.stopped_after is None, () if self.verdict is None else self.verdict.gates
        return {
            "name": self.name,
            "run_dir": str(self.run_dir),
            "stopped_after": self.stopped_after,
            "reached": {what: dict(found) for what, found in self.reached.items()},
            "report": str(self.run_dir / "report.html") if made else None,
            "report_json": str(self.run_dir / "report.json") if made else None,
            "bundles": str(self.run_dir / "bundles") if made else None,
            "verdict": "stopped" if self.verdict is None else self.verdict.outcome,
            "leans": None if self.verdict is None else self.verdict.leans,
            "headline": self.headline,
            "strict": self.strict,
            "failed_gates": [_gate_text(g) for g in self.failed],
            "undecided_gates": [_gate_text(g) for g in gates if g.outcome == "undecided"],
            "gates": [g.model_dump(mode="json") for g in gates],
            "warnings": list(self.warnings),
            "seconds": self.seconds,
            "exit_code": self.exit_code,
        }

    def raise_for_gates(self) -> None:
        """Raises :class:`GateFailed` with one line per gate that failed, the headline last."""
        if self.failed:
            lines = "\n  ".join(_gate_text(g) for g in self.failed)
            what = "gates are undecided" if all(g.passed for g in self.failed) else "gates do not hold"
            raise GateFailed(f"{what}, see {self.run_dir / 'report.html'}:\n  {lines}\n{self.headline}")


def _figures_text(found: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in found.items()) or "no labels, so no figures of its own"


def _gate_text(gate: Gate) -> str:
    return f"{gate.target}: {gate.name}: {gate_line(gate)}"


def plan(recipe: AnyRecipe) -> list[str]:
    """Checks the recipe against what exists and names its stages in order.

    Raises:
        RequestError: something it names does not exist or does not fit.
    """
    if isinstance(recipe, Recipe):
        preflight(recipe)
    else:
        preflight_parts(recipe)
    return stage_names(recipe)


def run_recipe(
    recipe: AnyRecipe,
    folder: Path,
    force: Sequence[str] = (),
    quiet: bool = False,
    until: str | None = None,
    module: nn.Module | None = None,
    student: nn.Module | None = None,
    company: Company = ALONE,
) -> RunSummary:
    """Runs the recipe and writes ``report.json``, ``report.html``, ``recipe.resolved.yaml``, ``run.log`` and ``bundles/``.

    Gates are not raised here: the summary says which failed, after everything is written. With ``until`` the stage of that
    name is the last: no report is written, and a later run goes on from there.

    Args:
        module, student: the teacher's and the student's network, where the recipe names them in memory.
        company: the processes that train the student together; this one leads them.

    Raises:
        RequestError: the recipe cannot run, has no such stage, or another process works in the folder.
        MissingCapability: this machine lacks a module, a device or room on the disk, or a process of the company ended.
    """
    names = plan(recipe)
    forced = check_stages("--force", force, names)
    check_stages("--until", [] if until is None else [until], names)
    started = time.perf_counter()
    with (
        open_run_folder(folder) as run,
        Reporter(quiet, run.log) as reporter,
        tracked(recipe, run, reporter) as tracking,
    ):
        write_resolved(recipe, run.resolved_recipe)
        reporter.note(f"{recipe.name} -> {run.root}")
        line = line_of(recipe, run, reporter, forced, until, module, student)
        try:
            with led(line, company):
                line.run_all()
        except LastStage:
            results = line.stages.results
            summary = RunSummary(
                recipe.name,
                folder,
                None,
                time.perf_counter() - started,
                stopped_after=until,
                warnings=results.remarks,
                reached=results[str(until)].value.reached,
            )
            for text in summary.reached_lines:
                reporter.note(text)
            reporter.note(summary.headline)
            return summary
        report = line.report(time.perf_counter() - started)
        log_report(tracking, report, run)
        seconds = time.perf_counter() - started
        summary = RunSummary(
            recipe.name, folder, report.judged, seconds, recipe.strict, warnings=line.stages.results.remarks
        )
        _closing_words(report, run, reporter, summary)
    return summary


def run_until(
    recipe: Recipe,
    folder: Path,
    stage: str,
    quiet: bool = False,
    module: nn.Module | None = None,
    student: nn.Module | None = None,
    shelf: Shelf | None = None,
) -> Line:
    """Runs a recipe's stages up to one of them and gives what they found and share.

    Args:
        shelf: finished stages that it shares with other runs.

    Raises:
        RequestError, MissingCapability, GateFailed: as :func:`run_recipe`.
    """
    check_stages("until", [stage], plan(recipe))
    with open_run_folder(folder) as run, Reporter(quiet, run.log) as reporter:
        write_resolved(recipe, run.resolved_recipe)
        reporter.note(f"{recipe.name} -> {run.root}, up to {stage}")
        line = Line(recipe, run, reporter, until=stage, module=module, student=student)
        line.stages.shelf = shelf
        with contextlib.suppress(LastStage):
            line.run_all()
    return line


class Line(StageLine):
    """The stages of one run of one network; a ``trial`` leaves out those that the table says are not tried."""

    ctx: RunContext

    def __init__(
        self,
        recipe: Recipe,
        run: RunFolder,
        reporter: Reporter,
        force: frozenset[str] = frozenset(),
        until: str | None = None,
        trial: bool = False,
        module: nn.Module | None = None,
        student: nn.Module | None = None,
    ) -> None:
        from rsedge.stages.context import RunContext, prepare_torch
        from rsedge.stages.distill import check_student
        from rsedge.stages.export import check_for_targets
        from rsedge.stages.teacher_model import family_code, output_names, recipe_teacher, teacher_key
        from rsedge.tasks.registry import make_task

        self.recipe, self.gates = recipe, recipe.gates
        prepare_torch(recipe.device, recipe.threads)
        teacher = recipe_teacher(recipe.teacher, module)
        for note in teacher.spec.notes if recipe.teacher.is_outside else ():
            reporter.note(f"  teacher: {note}")
        spec, classes = teacher.spec.input_spec, output_names(teacher)
        found = contracts(spec, recipe.student)
        self.task = make_task(recipe, found.data, classes, teacher.spec.task, teacher.spec.finer, teacher.spec.stride)
        ctx = RunContext(
            recipe=recipe, spec=found.student.target, view=found.student, classes=classes, task=self.task, folders={},
            run=run, teacher_key=teacher_key(teacher), reporter=reporter, trial=trial, own_student=student,
        )  # fmt: skip
        ctx.teacher = teacher
        for other, section in zip(ctx.others, recipe.teachers, strict=True):
            reporter.note(f"  teacher {other.number}: {section.name}, weight {section.weight:g} beside the first's 1")
        if recipe.student.name != AUTO:  # with bands of its own that are not chosen yet, as if it had all
            check_student(ctx)
            check_for_targets(ctx)
        base = {
            "task": teacher.spec.task, "spec": found.data.model_dump(mode="json"), "classes": list(classes),
            "own code": family_code(teacher), **base_settings(recipe),
        }  # fmt: skip
        rows = [row for row in rows_of(recipe) if row.tried or not trial]
        code = (type(self.task).__module__, RunContext.__module__)
        super().__init__(ctx, rows, stage_names(recipe), base, code, force, until)

    def taken(self, row: Stage) -> None:
        """Is called when a stage is done and taken over; a dry run looks around here.

        Raises:
            RequestError: a gate asks for a figure that there is not, or that the teacher does not have.
        """
        self.ctx.let_teacher_go()
        if row.name == Data.stage:
            self.base["contents"] = self.task.inputs_key  # the files that the stage leaves do not hold what trains
        if row.name == Teacher.stage:
            from rsedge.stages.judge import check_gates

            check_gates(self.gates, self.ctx.results.of(Teacher), whole=not self.ctx.trial)

    def report(self, seconds: float) -> Report:
        from rsedge.stages.report import write_report

        return write_report(self.ctx.run, self.recipe, self.ctx, self.stages.results, seconds)


class PartsLine(StageLine):
    """The stages of one run of a network of several parts."""

    ctx: PartsContext

    def __init__(
        self,
        recipe: PartsRecipe,
        run: RunFolder,
        reporter: Reporter,
        force: frozenset[str] = frozenset(),
        until: str | None = None,
        trial: bool = False,
    ) -> None:
        from rsedge.stages.context import prepare_torch
        from rsedge.stages.parts.context import PartsContext
        from rsedge.stages.parts.table import base_settings as base_of_parts
        from rsedge.stages.parts.teachers import teacher_parts
        from rsedge.stages.parts.wholes import made_whole

        prepare_torch(recipe.device, recipe.threads)
        teachers = teacher_parts(recipe)
        ctx = PartsContext(recipe, made_whole(recipe, teachers), teachers, run, reporter, trial=trial)
        rows, code = rows_of(recipe), (PartsContext.__module__, type(ctx.whole).__module__)
        super().__init__(ctx, rows, [row.name for row in rows], base_of_parts(recipe), code, force, until)

    def report(self, seconds: float) -> Report:
        from rsedge.stages.parts.report import write_report

        return write_report(self.ctx.run, self.ctx, seconds)


def line_of(
    recipe: AnyRecipe,
    run: RunFolder,
    reporter: Reporter,
    force: frozenset[str] = frozenset(),
    until: str | None = None,
    module: nn.Module | None = None,
    student: nn.Module | None = None,
) -> Line | PartsLine:
    """The line of a recipe, of one network or of several parts.

    Raises:
        RequestError: a network in memory where there are several parts; else as the lines.
    """
    if isinstance(recipe, Recipe):
        return Line(recipe, run, reporter, force, until, module=module, student=student)
    if module is not None or student is not None:
        raise RequestError("a recipe of several parts takes no network in memory; name its teachers")
    return PartsLine(recipe, run, reporter, force, until)


def _closing_words(report: Report, run: RunFolder, reporter: Reporter, summary: RunSummary) -> None:
    for target in report.targets:
        word = target.judged.word
        reporter.note(f"  {word if target.judged.holds else word.upper()}  {target.name}")
    reporter.note(f"report:  {run.report_html}\nbundles: {run.bundles}")
    if not summary.failed:  # Else the error that follows ends with it.
        reporter.note(summary.headline)
