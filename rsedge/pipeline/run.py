"""Runs a recipe: stage after stage in its run folder, each reused where nothing it reads has changed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsedge.cache.run_folder import RunFolder, open_run_folder
from rsedge.cache.stage import StageContext, StageResult, Stages, StageValue, check_stages
from rsedge.data.errors import GateFailed
from rsedge.data.metrics.verdict import Gate, Verdict, gate_line
from rsedge.progress import Reporter
from rsedge.recipe.checks import preflight
from rsedge.recipe.reading import write_resolved
from rsedge.recipe.schema import Recipe
from rsedge.recipe.student_auto import AUTO
from rsedge.results.records import Teacher
from rsedge.stages.table import Stage, base_settings, stage_names, stages_of

if TYPE_CHECKING:
    from torch import nn

    from rsedge.reports.schema import Report
    from rsedge.stages.context import RunContext


@dataclass(frozen=True)
class RunSummary:
    """How a run ended.

    Attributes:
        verdict: of all targets' gates together; None where the run ended before they were judged.
        strict: undecided gates count as failed.
        stopped_after: the stage that the run was to end with, before any report.
        warnings: what its stages warned of.
    """

    name: str
    run_dir: Path
    verdict: Verdict | None
    seconds: float
    strict: bool = False
    stopped_after: str | None = None
    warnings: tuple[str, ...] = ()

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


def _gate_text(gate: Gate) -> str:
    return f"{gate.target}: {gate.name}: {gate_line(gate)}"


def plan(recipe: Recipe) -> list[str]:
    """Checks the recipe against what exists and names its stages in order.

    Raises:
        RequestError: something it names does not exist or does not fit.
    """
    preflight(recipe)
    return stage_names(recipe)


def run_recipe(
    recipe: Recipe,
    folder: Path,
    force: Sequence[str] = (),
    quiet: bool = False,
    until: str | None = None,
    module: nn.Module | None = None,
    student: nn.Module | None = None,
) -> RunSummary:
    """Runs the recipe and writes ``report.json``, ``report.html``, ``recipe.resolved.yaml`` and ``bundles/``.

    Gates are not raised here: the summary says which failed, after everything is written. With ``until`` the stage of that
    name is the last: no report is written, and a later run goes on from there.

    Args:
        module, student: the teacher's and the student's network, where the recipe names them in memory.

    Raises:
        RequestError: the recipe cannot run, has no such stage, or another process works in the folder.
        MissingCapability: this machine lacks a module, a device or room on the disk.
    """
    names = plan(recipe)
    forced = check_stages("--force", force, names)
    check_stages("--until", [] if until is None else [until], names)
    from rsedge.stages.report import write_report

    started = time.perf_counter()
    with open_run_folder(folder) as run, Reporter(quiet) as reporter:
        write_resolved(recipe, run.resolved_recipe)
        reporter.note(f"{recipe.name} -> {run.root}")
        line = Line(recipe, run, reporter, forced, until, module=module, student=student)
        try:
            line.run_all()
        except _LastStage:
            summary = RunSummary(
                recipe.name,
                folder,
                None,
                time.perf_counter() - started,
                stopped_after=until,
                warnings=line.stages.results.remarks,
            )
            reporter.note(summary.headline)
            return summary
        report = write_report(run, recipe, line.ctx, line.stages.results, time.perf_counter() - started)
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
) -> Line:
    """Runs a recipe's stages up to one of them and gives what they found and share.

    Raises:
        RequestError, MissingCapability, GateFailed: as :func:`run_recipe`.
    """
    check_stages("until", [stage], plan(recipe))
    with open_run_folder(folder) as run, Reporter(quiet) as reporter:
        write_resolved(recipe, run.resolved_recipe)
        reporter.note(f"{recipe.name} -> {run.root}, up to {stage}")
        line = Line(recipe, run, reporter, until=stage, module=module, student=student)
        with contextlib.suppress(_LastStage):
            line.run_all()
    return line


class _LastStage(Exception):
    """The stage that was to be the last is done."""


class Line:
    """The stages of one run, in order, with what each reads; :class:`_LastStage` is raised after ``until``.

    A ``trial`` leaves out those that the table says are not tried.
    """

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

        self.recipe, self.run, self.reporter, self.until = recipe, run, reporter, until
        self.gates = recipe.gates
        self.rows = [row for row in stages_of(recipe) if row.tried or not trial]
        prepare_torch(recipe)
        teacher = recipe_teacher(recipe.teacher, module)
        for note in teacher.spec.notes if recipe.teacher.is_outside else ():
            reporter.note(f"  teacher: {note}")
        spec, classes = teacher.spec.input_spec, output_names(teacher)
        self.task = make_task(recipe, spec, classes, teacher.spec.task, teacher.spec.finer)
        self.ctx: RunContext = RunContext(
            recipe=recipe, spec=spec, classes=classes, task=self.task, folders={},
            run=run, teacher_key=teacher_key(teacher), reporter=reporter, trial=trial, own_student=student,
        )  # fmt: skip
        self.ctx.teacher = teacher
        if recipe.student.name != AUTO:
            check_student(self.ctx)
            check_for_targets(self.ctx)
        self.stages = Stages(run, force, self.started, self.ended, self.ctx.results)
        self.base = {
            "task": teacher.spec.task, "spec": spec.model_dump(mode="json"), "classes": list(classes), **base_settings(recipe),
            "own code": family_code(teacher),
        }  # fmt: skip

    def run_all(self) -> None:
        for row in self.rows:
            row.take(self.ctx, self._run(row))
            self.taken(row)
            if row.name == self.until:
                raise _LastStage

    def _run(self, row: Stage) -> StageResult[StageValue]:
        """Runs a stage; its code starts from its module, the task's and what stages share."""
        record, body = row.load()
        code = {body.__module__, type(self.task).__module__, type(self.ctx).__module__}
        after = [name for name in row.after if name in self.stages.results]

        def running(context: StageContext) -> StageValue:
            self.ctx.running = row.name
            try:
                return body(context, self.ctx)
            finally:
                self.ctx.running = None

        settings = self.base | row.settings(self.ctx)
        return self.stages.stage(record, running, settings, sorted(code), after, row.inputs(self.ctx))

    def taken(self, row: Stage) -> None:
        """Is called when a stage is done and taken over; a dry run looks around here.

        Raises:
            RequestError: a gate asks for a figure that there is not, or that the teacher does not have.
        """
        if row.name == Teacher.stage:
            from rsedge.stages.judge import check_gates

            check_gates(self.gates, self.ctx.results.of(Teacher), whole=not self.ctx.trial)

    def started(self, name: str) -> None:
        names = stage_names(self.recipe)
        self.reporter.note(f"[{names.index(name) + 1}/{len(names)}] {name}")

    def ended(self, result: StageResult[Any]) -> None:
        names = stage_names(self.recipe)
        self.ctx.folders[result.name] = result.folder
        self.reporter.clear()
        position = f"[{names.index(result.name) + 1}/{len(names)}] {result.name}"
        self.reporter.note(f"{position}: reused" if result.reused else f"  done in {result.seconds:.0f} s")
        for text in result.value.remarks:
            self.reporter.note(f"  warning: {text}")


def _closing_words(report: Report, run: RunFolder, reporter: Reporter, summary: RunSummary) -> None:
    for target in report.targets:
        word = target.judged.word
        reporter.note(f"  {word if target.judged.holds else word.upper()}  {target.name}")
    reporter.note(f"report:  {run.report_html}\nbundles: {run.bundles}")
    if not summary.failed:  # Else the error that follows ends with it.
        reporter.note(summary.headline)
