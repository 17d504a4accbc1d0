"""Runs a recipe: stage after stage in its run folder, each reused where nothing it reads has changed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsedge.cache.code_closure import PACKAGE
from rsedge.cache.run_folder import RunFolder, open_run_folder
from rsedge.cache.stage import Found, StageContext, StageResult, Stages, check_stages
from rsedge.data.errors import GateFailed
from rsedge.data.files import sha256_file, sha256_of
from rsedge.data.metrics.verdict import Gate, Verdict, gate_line
from rsedge.devices.predict.efficiency import calibrations_of
from rsedge.devices.profiles.cpu import detect_cpu
from rsedge.progress import Reporter
from rsedge.recipe.checks import preflight
from rsedge.recipe.data import SampleDataSection
from rsedge.recipe.reading import resolved, write_resolved
from rsedge.recipe.schema import Recipe, parse_target
from rsedge.recipe.student_auto import AUTO
from rsedge.results.data import Data
from rsedge.results.gates import gates_on_selection

if TYPE_CHECKING:
    from rsedge.reports.schema import Report
    from rsedge.stages.context import RunContext


CAPS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")
"""What holds libraries to fewer instruction sets than the processor has."""
UNTRIED = {
    "language": "the language model's files are looked at, not converted",
    "probe": "the head is not fitted, its labels are looked at",
    "crossval": "what its folds do is tried once, by the other stages",
    "captions": "texts take seconds each",
}
"""Stages that a trial leaves out, and why."""


@dataclass(frozen=True)
class RunSummary:
    """How a run ended.

    Attributes:
        verdict: of all targets' gates together; None where the run ended before they were judged.
        strict: undecided gates count as failed.
        stopped_after: the stage that the run was to end with, before any report.
    """

    name: str
    run_dir: Path
    verdict: Verdict | None
    seconds: float
    strict: bool = False
    stopped_after: str | None = None

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
            "failed_gates": [_told(g) for g in self.failed],
            "undecided_gates": [_told(g) for g in gates if g.outcome == "undecided"],
            "gates": [g.model_dump(mode="json") for g in gates],
            "seconds": self.seconds,
            "exit_code": self.exit_code,
        }

    def raise_for_gates(self) -> None:
        """Raises :class:`GateFailed` with one line per gate that failed, the headline last."""
        if self.failed:
            lines = "\n  ".join(_told(g) for g in self.failed)
            what = "gates are undecided" if all(g.passed for g in self.failed) else "gates do not hold"
            raise GateFailed(f"{what}, see {self.run_dir / 'report.html'}:\n  {lines}\n{self.headline}")


def _told(gate: Gate) -> str:
    return f"{gate.target}: {gate.name}: {gate_line(gate)}"


def plan(recipe: Recipe) -> list[str]:
    """Checks the recipe against what exists and names its stages in order.

    Raises:
        RequestError: something it names does not exist or does not fit.
    """
    preflight(recipe)
    return stage_names(recipe)


def stage_names(recipe: Recipe) -> list[str]:
    """The stages of a recipe, in the order they run."""
    steps = [s.name for s in recipe.steps]
    middle = ["distill", *(["prune"] if "prune" in steps else []), "export"]
    last = [*(["quantize"] if "quantize" in steps else []), *(["crossval"] if crossvalidated(recipe) else [])]
    chosen = ["student"] if recipe.student.name == AUTO else []
    said, heard = (["language"], ["captions"]) if recipe.captions else ([], [])
    fitted = [name for name in ("fit", "probe") if getattr(recipe.teacher, name) is not None]
    return ["data", *fitted, *said, "teacher", *chosen, *middle, *last, "verify", *heard, "bundle"]


def crossvalidated(recipe: Recipe) -> bool:
    """Whether the recipe asks for folds."""
    return isinstance(recipe.data, SampleDataSection) and recipe.data.folds > 1


def run_recipe(
    recipe: Recipe, folder: Path, force: Sequence[str] = (), quiet: bool = False, until: str | None = None
) -> RunSummary:
    """Runs the recipe and writes ``report.json``, ``report.html``, ``recipe.resolved.yaml`` and ``bundles/``.

    Gates are not raised here: the summary says which failed, after everything is written. With ``until`` the stage of that
    name is the last: no report is written, and a later run goes on from there.

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
        line = Line(recipe, run, reporter, forced, until)
        try:
            line.run_all()
        except _LastStage:
            summary = RunSummary(recipe.name, folder, None, time.perf_counter() - started, stopped_after=until)
            reporter.note(summary.headline)
            return summary
        report = write_report(run, recipe, line.ctx, line.stages.results, time.perf_counter() - started)
        summary = RunSummary(recipe.name, folder, report.judged, time.perf_counter() - started, recipe.strict)
        _closing_words(report, run, reporter, summary)
    return summary


def base_settings(recipe: Recipe) -> dict[str, Any]:
    """What every stage may read of a recipe: later stages draw views and groups by ``data`` too, which the files that the
    data stage leaves do not tell."""
    return {
        "seed": recipe.seed,
        "teacher": recipe.teacher.name,
        "data": recipe.data.model_dump(mode="json"),
        "boxes": recipe.boxes.model_dump(mode="json"),
    }


def _calibrations(recipe: Recipe) -> dict[str, str]:
    """Hashes of what this user's devices were calibrated to, as far as the recipe predicts latencies by it."""
    names = [*recipe.targets, *([recipe.prune.latency_on] if recipe.prune else [])]
    return calibrations_of((t.device, t.runtime) for t in map(parse_target, names))


class _LastStage(Exception):
    """The stage that was to be the last is done."""


class Line:
    """The stages of one run, in order, with what each reads; :class:`_LastStage` is raised after ``until``.

    A ``trial`` leaves out :data:`UNTRIED`.
    """

    def __init__(
        self,
        recipe: Recipe,
        run: RunFolder,
        reporter: Reporter,
        force: frozenset[str] = frozenset(),
        until: str | None = None,
        trial: bool = False,
    ) -> None:
        from rsedge.models.structure import tensors_digest
        from rsedge.stages.context import RunContext, prepare_torch
        from rsedge.stages.distill import check_student
        from rsedge.stages.export import check_dla_student
        from rsedge.stages.teacher_model import output_names, recipe_teacher
        from rsedge.tasks.registry import make_task

        self.recipe, self.run, self.reporter, self.until = recipe, run, reporter, until
        self.asked = [name for name in stage_names(recipe) if not (trial and name in UNTRIED)]
        prepare_torch(recipe)
        teacher = recipe_teacher(recipe.teacher)
        spec, classes = teacher.spec.input_spec, output_names(teacher)
        self.task = make_task(recipe, spec, classes, teacher.spec.task)
        self.ctx: RunContext = RunContext(
            recipe=recipe, spec=spec, classes=classes, task=self.task, folders={},
            cache=run.cache, teacher_key=tensors_digest(teacher), reporter=reporter, trial=trial,
        )  # fmt: skip
        self.ctx.teacher = teacher
        if recipe.student.name != AUTO:
            check_student(self.ctx)
            check_dla_student(self.ctx)
        self.stages = Stages(run, force, self.started, self.ended)
        self.base = {
            "task": teacher.spec.task, "spec": spec.model_dump(mode="json"), "classes": list(classes), **base_settings(recipe)
        }  # fmt: skip

    def run_all(self) -> None:
        from rsedge.results import records
        from rsedge.stages import bundle as stages_bundle
        from rsedge.stages import crossval as stages_crossval
        from rsedge.stages import distill as stages_distill
        from rsedge.stages import export as stages_export
        from rsedge.stages import prune as stages_prune
        from rsedge.stages import quantize as stages_quantize
        from rsedge.stages import teacher as stages_teacher
        from rsedge.stages import verify as stages_verify
        from rsedge.stages.judge import verdicts

        recipe, ctx = self.recipe, self.ctx
        training: dict[str, Any] = {
            "threads": ctx.threads,
            "device": recipe.device,
            "student": recipe.student.model_dump(mode="json"),
        }
        deploy: dict[str, Any] = {
            "threads": ctx.threads,
            "targets": list(recipe.targets),
            "tensorrt": recipe.tensorrt.model_dump(mode="json"),
        }
        weights = {"weights": ctx.teacher_key}
        predicting = {"calibrations": _calibrations(recipe)}
        self._stage(records.Data, self.task.data_stage, (), {}, inputs={"inputs": self.task.inputs_key})
        if "language" in self.asked:
            from rsedge.stages import language as stages_language

            settings = {
                "threads": ctx.threads,
                "device": recipe.device,
                "language": recipe.texts.model_dump(mode="json"),
            }
            said = weights | {"language": self._language_key()}
            self._stage(records.Language, stages_language.language_stage, (ctx,), settings, ("data",), said)
        if recipe.teacher.fit is not None:
            from rsedge.stages import fit as stages_fit

            settings = {"fit": recipe.teacher.model_dump(mode="json"), "device": recipe.device, "threads": ctx.threads}
            fitted = self._stage(records.Fit, stages_fit.fit_stage, (ctx,), settings, ("data",), weights)
            stages_fit.take_weights(ctx, fitted)
            weights = self._new_weights()
        if "probe" in self.asked:
            from rsedge.stages import probe as stages_probe

            settings = {
                "probe": recipe.teacher.model_dump(mode="json"),
                "device": recipe.device,
                "threads": ctx.threads,
            }
            probe = self._stage(records.Probe, stages_probe.probe_stage, (ctx,), settings, ("data",), weights)
            stages_probe.take_head(ctx, probe)
            weights = self._new_weights()
        self._stage(records.Teacher, stages_teacher.teacher_stage, (ctx,), {"threads": ctx.threads}, ("data",), weights)
        follows = ["data", "teacher"]
        if recipe.student.name == AUTO:
            from rsedge.stages import student as stages_student

            wanted = {"targets": list(recipe.targets), "gates": [g.model_dump(mode="json") for g in recipe.gates]}
            chosen = self._stage(
                records.Student, stages_student.student_stage, (ctx,), training | wanted | predicting, follows, weights
            )
            ctx.chosen = chosen.value.student
            stages_distill.check_student(ctx)
            stages_export.check_dla_student(ctx)
            follows.append("student")
        distill = training | {"distill": recipe.distill.model_dump(mode="json")}
        self._stage(records.Distill, stages_distill.distill_stage, (ctx,), distill, follows, weights)
        student = "distill"
        if recipe.prune is not None:
            settings = distill | predicting | {"prune": recipe.prune.model_dump(mode="json")}
            self._stage(
                records.Prune, stages_prune.prune_stage, (ctx,), settings, ("data", "teacher", "distill"), weights
            )
            student = "prune"
        self._stage(records.Export, stages_export.export_stage, (ctx, student), deploy, ("data", student))
        last = ["data", "teacher", student, "export"]
        if recipe.quantize is not None:
            asked = [g.model_dump(mode="json") for g in gates_on_selection(recipe)]
            asking = {"quantize": recipe.quantize.model_dump(mode="json"), "gates": asked}
            settings = distill | deploy | predicting | asking
            self._stage(records.Quantize, stages_quantize.quantize_stage, (ctx, student), settings, last)
            last.append("quantize")
        if "crossval" in self.asked:
            quantized = self.stages.results.get("quantize")
            self._stage(
                records.Crossval, stages_crossval.crossval_stage, (ctx, student, quantized), distill, last, weights
            )
        # What was measured on one machine says nothing of the next, though the folder moves there.
        cpu = detect_cpu()
        machine = {"cpu": cpu.model, "isa": list(cpu.isa), "caps": {name: os.environ.get(name) for name in CAPS}}
        here = deploy | predicting | {"machine": machine, "weighed": stages_verify.weighed(recipe)}
        self._stage(records.Verify, stages_verify.verify_stage, (ctx,), here, last)
        last.append("verify")
        if "captions" in self.asked:
            from rsedge.stages import captions as stages_captions

            heard = self.stages.results["language"]
            self._stage(records.Captions, stages_captions.captions_stage, (ctx, heard), deploy, ("language", *last))
            last += ["language", "captions"]
        judged = verdicts(recipe, self.stages.results)
        signing = {
            "name": recipe.name,
            "key": sha256_file(recipe.signing.key) if recipe.signing.key else None,
            "recipe": sha256_of(resolved(recipe)),
            "verdicts": {name: found.model_dump(mode="json") for name, found in judged.items()},
        }
        told = (ctx, self.run, self.stages.results, judged)
        bundle = self._stage(records.Bundles, stages_bundle.bundle_stage, told, deploy | signing, last)
        stages_bundle.publish(bundle.folder, self.run, recipe.targets)

    def _new_weights(self) -> dict[str, str]:
        """The inputs of stages that read the teacher, after a stage has filled it."""
        from rsedge.models.structure import tensors_digest

        self.ctx.teacher_key = tensors_digest(self.ctx.teacher)
        return {"weights": self.ctx.teacher_key}

    def _language_key(self) -> str:
        """Hash of the files behind a captioning teacher: its language model is read in its own stage alone."""
        from rsedge.stages.teacher_model import vlm_files

        return vlm_files(self.recipe.teacher).sha256()

    def _stage(
        self,
        record: type[Found],
        stage: Callable[..., Found],
        told: Sequence[object],
        settings: dict[str, Any],
        after: Sequence[str] = (),
        inputs: dict[str, str] | None = None,
    ) -> StageResult[Found]:
        """Runs ``stage(context, *told)``; the code of the stage starts from its module and those of what it is told."""
        started = {stage.__module__, *(type(x).__module__ for x in (self.task, *told))}
        code = sorted(module for module in started if module.partition(".")[0] == PACKAGE)

        def running(context: StageContext) -> Found:
            self.ctx.running = record.stage
            try:
                return stage(context, *told)
            finally:
                self.ctx.running = None

        result = self.stages.stage(record, running, self.base | settings, code, after, inputs)
        if record.stage == self.until:
            raise _LastStage
        return result

    def started(self, name: str) -> None:
        names = stage_names(self.recipe)
        self.reporter.note(f"[{names.index(name) + 1}/{len(names)}] {name}")

    def ended(self, result: StageResult[Any]) -> None:
        names = stage_names(self.recipe)
        self.ctx.folders[result.name] = result.folder
        if result.name == "data":
            self.task.load(result.folder)
        self.reporter.clear()
        position = f"[{names.index(result.name) + 1}/{len(names)}] {result.name}"
        self.reporter.note(f"{position}: reused" if result.reused else f"  done in {result.seconds:.0f} s")
        if isinstance(result.value, Data):
            for text in result.value.told:
                self.reporter.note(f"  warning: {text}")


def _closing_words(report: Report, run: RunFolder, reporter: Reporter, summary: RunSummary) -> None:
    for target in report.targets:
        word = target.judged.word
        reporter.note(f"  {word if target.judged.holds else word.upper()}  {target.name}")
    reporter.note(f"report:  {run.report_html}\nbundles: {run.bundles}")
    if not summary.failed:  # Else the error that follows ends with it.
        reporter.note(summary.headline)
