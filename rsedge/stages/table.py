"""The stages of a run, in order: when each applies, what it reads, what its key hashes of the recipe, and what makes it.

Everything that goes from stage to stage reads this table: the run, ``--until`` and ``--force``, the dry run, the report.
Imports no torch: bodies are named and imported when they run.
"""

from __future__ import annotations

import functools
import importlib
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rsedge.cache.stage import StageContext, StageResult, StageValue
from rsedge.data.files import sha256_file, sha256_of
from rsedge.devices.predict.efficiency import calibrations_of
from rsedge.devices.profiles import own
from rsedge.recipe.data import SampleDataSection
from rsedge.recipe.places import placeless, placeless_name, recipe_hash
from rsedge.recipe.reading import resolved
from rsedge.recipe.schema import Recipe, parse_target
from rsedge.recipe.steps import TRAINING
from rsedge.recipe.student_auto import AUTO
from rsedge.results.gates import accuracy_gates, gates_on_selection
from rsedge.stages.machine import machine

if TYPE_CHECKING:
    from rsedge.stages.context import RunContext

Settings = dict[str, Any]
Body = Callable[[StageContext, Any], StageValue]
"""A stage's own folder and what the stages of its kind of recipe share -> what it found."""
Taking = Callable[[Any, StageResult[Any]], None]


@dataclass(frozen=True)
class Stage:
    """One row.

    Attributes:
        record: class of what it finds, as ``module:name``; the class names the stage.
        body: ``(StageContext, RunContext) -> record``, as ``module:name``.
        trial: what a dry run does of it; or, where ``tried`` is false, why it leaves it out.
        applies: whether a recipe has it.
        after: stages whose outcome it reads, where the recipe has them.
        settings: what its outcome depends on, JSON-able, beside what all stages read.
        inputs: hashes of what else it reads, by name.
        taken: what the run takes over from it for the stages that follow, as ``module:name`` of a :data:`Taking`.
        together: what the other processes of a group do of it, as ``module:name`` of a function that takes what the body takes.
    """

    name: str
    record: str
    body: str
    trial: str
    applies: Callable[[Any], bool] = lambda recipe: True
    after: tuple[str, ...] = ()
    settings: Callable[[Any], Settings] = lambda ctx: {}
    inputs: Callable[[Any], Mapping[str, str]] = lambda ctx: {}
    taken: str | None = None
    tried: bool = True
    together: str | None = None

    def load(self) -> tuple[type[StageValue], Body]:
        """Record and body; imports what they need."""
        return _named(self.record), _named(self.body)

    def shared(self) -> Callable[[StageContext, Any], object]:
        """What other processes do of a stage that is made together."""
        assert self.together is not None
        return _named(self.together)  # type: ignore[no-any-return]

    def take(self, ctx: Any, result: StageResult[Any]) -> None:
        """Takes over what the stages that follow need of this one."""
        if self.taken is not None:
            taking: Taking = _named(self.taken)
            taking(ctx, result)


def _named(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def stages_of(recipe: Recipe) -> list[Stage]:
    """The stages of a recipe, in the order they run."""
    return [stage for stage in STAGES if stage.applies(recipe)]


def stage_names(recipe: Recipe) -> list[str]:
    """Their names."""
    return [stage.name for stage in stages_of(recipe)]


def crossvalidated(recipe: Recipe) -> bool:
    """Whether the recipe asks for folds."""
    return isinstance(recipe.data, SampleDataSection) and recipe.data.folds > 1


def base_settings(recipe: Recipe) -> Settings:
    """What every stage may read of a recipe: later stages draw views and groups by ``data`` too, which the files that the
    data stage leaves do not tell. Where files lie is left out: the data stage says what lay there, ``teacher_key`` what weights."""
    return {
        "seed": recipe.seed,
        "teacher": placeless_name(recipe.teacher.name),
        "data": placeless(recipe.data),
        "boxes": recipe.boxes.model_dump(mode="json"),
    }


def _training(ctx: RunContext) -> Settings:
    """The contract is what is read of the bands stage: what it says of bands for the report trains nobody anew."""
    recipe = ctx.recipe
    student = recipe.student.model_dump(mode="json")
    return {
        "threads": ctx.threads,
        "device": recipe.device,
        "student": student,
        "sees": ctx.spec.model_dump(mode="json"),
    }


def _deploying(ctx: RunContext) -> Settings:
    recipe = ctx.recipe
    return {
        "threads": ctx.threads,
        "sees": ctx.spec.model_dump(mode="json"),
        "targets": list(recipe.targets),
        "profiles": own.hashes(target.device for target in recipe.parsed_targets),
        "tensorrt": recipe.tensorrt.model_dump(mode="json"),
    }


def _predicting(ctx: RunContext) -> Settings:
    """Hashes of this user's own devices and of what devices were calibrated to, as far as the recipe predicts latencies by it."""
    recipe = ctx.recipe
    wanted = [parse_target(t) for t in (*recipe.targets, *([recipe.prune.latency_on] if recipe.prune else []))]
    calibrations = calibrations_of((t.device, t.runtime) for t in wanted)
    return {"calibrations": calibrations, "profiles": own.hashes(t.device for t in wanted)}


def _gates(gates: Any) -> list[Settings]:
    return [gate.model_dump(mode="json") for gate in gates]


def _of_teacher(section: str) -> Callable[[RunContext], Settings]:
    def settings(ctx: RunContext) -> Settings:
        return {section: placeless(ctx.recipe.teacher), "device": ctx.recipe.device, "threads": ctx.threads}

    return settings


def _language(ctx: RunContext) -> Settings:
    recipe = ctx.recipe
    return {"threads": ctx.threads, "device": recipe.device, "language": recipe.texts.model_dump(mode="json")}


def _student(ctx: RunContext) -> Settings:
    recipe = ctx.recipe
    return _training(ctx) | _predicting(ctx) | {"targets": list(recipe.targets), "gates": _gates(recipe.gates)}


def _distill(ctx: RunContext) -> Settings:
    recipe = ctx.recipe
    others = [placeless(section) for section in recipe.teachers]
    return _training(ctx) | {"distill": recipe.distill.model_dump(mode="json"), "teachers": others}


def _prune(ctx: RunContext) -> Settings:
    assert ctx.recipe.prune is not None
    return _distill(ctx) | _predicting(ctx) | _asked(ctx) | {"prune": ctx.recipe.prune.model_dump(mode="json")}


def _replace(ctx: RunContext) -> Settings:
    assert ctx.recipe.replace is not None
    made = _distill(ctx) | _predicting(ctx) | _deploying(ctx) | _asked(ctx)
    return made | {"replace": ctx.recipe.replace.model_dump(mode="json")}


def _asked(ctx: RunContext) -> Settings:
    """What a changed student must not lose."""
    return {"gates": _gates(accuracy_gates(ctx.recipe))}


def _quantize(ctx: RunContext) -> Settings:
    recipe = ctx.recipe
    assert recipe.quantize is not None
    asked = {"quantize": recipe.quantize.model_dump(mode="json"), "gates": _gates(gates_on_selection(recipe))}
    return _distill(ctx) | _deploying(ctx) | _predicting(ctx) | asked


def _crossval(ctx: RunContext) -> Settings:
    """Folds are distilled, pruned and rounded anew: what the shipped student came out as does not tell all that made it."""
    made = (_prune, _replace)
    asked = [settings(ctx) for name, settings in zip(TRAINING[1:], made, strict=True) if name in ctx.recipe.trained]
    return functools.reduce(operator.or_, asked, _distill(ctx)) | _deploying(ctx)


def _verify(ctx: RunContext) -> Settings:
    from rsedge.stages.verify import weighed

    return _deploying(ctx) | _predicting(ctx) | {"machine": machine(), "weighed": weighed(ctx.recipe)}


def _bundle(ctx: RunContext) -> Settings:
    from rsedge.stages.judge import verdicts

    recipe = ctx.recipe
    return _deploying(ctx) | {
        "name": recipe.name,
        "key": sha256_file(recipe.signing.key) if recipe.signing.key else None,
        "recipe": recipe_hash(resolved(recipe)),
        "verdicts": {name: found.model_dump(mode="json") for name, found in verdicts(recipe, ctx.results).items()},
    }


def _weights(ctx: RunContext) -> dict[str, str]:
    others = {"other weights": sha256_of(ctx.other_keys)} if ctx.recipe.teachers else {}
    return {"weights": ctx.teacher_key} | others


def _language_files(ctx: RunContext) -> dict[str, str]:
    """A captioning teacher's language model is read in its own stage alone, so the teacher's weights do not tell of it."""
    from rsedge.stages.teacher_model import vlm_files

    return _weights(ctx) | {"language": vlm_files(ctx.recipe.teacher).sha256()}


def weighs_teacher(recipe: Recipe) -> bool:
    """Whether the teacher's bands are weighed: for the report, or because the student keeps the best."""
    asked = recipe.importance is not None and "teacher" in recipe.importance.of
    return asked or isinstance(recipe.student.bands, int)


def _as_it_is(ctx: RunContext) -> Settings:
    return {"threads": ctx.threads, "plain int8": ctx.recipe.plain_int8_asked}


def _importance(ctx: RunContext) -> Settings:
    recipe = ctx.recipe
    asked = None if recipe.importance is None else recipe.importance.model_dump(mode="json")
    count = recipe.student.bands if isinstance(recipe.student.bands, int) else None
    return {"importance": asked, "keep": count, "sees": ctx.spec.model_dump(mode="json"), "threads": ctx.threads}


_RECORDS = "rsedge.results.records"
STEPS = 3
"""Distillation steps of a dry run, of which the first is slow and the others are timed."""
_STUDENT = ("data", "teacher", *TRAINING, "export")
"""What a student as it is exported came from."""

STAGES = (
    Stage(
        "data", "rsedge.results.data:Data", "rsedge.stages.data:data_stage",
        "all scenes or samples opened, labels and bands checked, every role cut",
        inputs=lambda ctx: {"inputs": ctx.task.inputs_key}, taken="rsedge.stages.data:take_data",
    ),
    Stage(
        "language", f"{_RECORDS}:Language", "rsedge.stages.language:language_stage",
        "the language model's files are looked at, not converted",
        applies=lambda recipe: recipe.captions, after=("data",), settings=_language, inputs=_language_files, tried=False,
    ),
    Stage(
        "fit", f"{_RECORDS}:Fit", "rsedge.stages.fit:fit_stage",
        f"{STEPS} steps",
        applies=lambda recipe: recipe.teacher.fit is not None, after=("data",), settings=_of_teacher("fit"), inputs=_weights,
        taken="rsedge.stages.fit:take_weights",
    ),
    Stage(
        "probe", f"{_RECORDS}:Probe", "rsedge.stages.probe:probe_stage",
        "the head is not fitted, its labels are looked at",
        applies=lambda recipe: recipe.teacher.probe is not None, after=("data",), settings=_of_teacher("probe"), inputs=_weights,
        taken="rsedge.stages.probe:take_head", tried=False,
    ),
    Stage(
        "teacher", f"{_RECORDS}:Teacher", "rsedge.stages.teacher:teacher_stage",
        "exported, opened, judged on a few inputs",
        after=("data",), settings=_as_it_is, inputs=_weights,
    ),
    Stage(
        "bands", "rsedge.results.importance:BandsOfTeacher", "rsedge.stages.bands:bands_stage",
        "each band taken away once, on a few inputs",
        applies=weighs_teacher, after=("data", "teacher"), settings=_importance, inputs=_weights,
        taken="rsedge.stages.bands:take_bands",
    ),
    Stage(
        "student", f"{_RECORDS}:Student", "rsedge.stages.student:student_stage",
        "candidates built and timed",
        applies=lambda recipe: recipe.student.name == AUTO, after=("data", "teacher"), settings=_student, inputs=_weights,
        taken="rsedge.stages.student:take_student",
    ),
    Stage(
        "distill", f"{_RECORDS}:Distill", "rsedge.stages.distill:distill_stage",
        f"{STEPS} steps on real views, validated, checkpointed",
        after=("data", "teacher", "student"), settings=_distill, inputs=_weights, together="rsedge.stages.distill:distilled",
    ),
    Stage(
        "prune", f"{_RECORDS}:Prune", "rsedge.stages.prune:prune_stage",
        "one cut and its recovery",
        applies=lambda recipe: recipe.prune is not None, after=("data", "teacher", "distill"), settings=_prune, inputs=_weights,
    ),
    Stage(
        "replace", f"{_RECORDS}:Replace", "rsedge.stages.replace:replace_stage",
        "every replacement built, timed and judged, with its recovery",
        applies=lambda recipe: recipe.replace is not None, after=("data", "teacher", "distill", "prune"), settings=_replace,
        inputs=_weights,
    ),
    Stage(
        "importance", "rsedge.results.importance:BandsOfStudent", "rsedge.stages.importance:importance_stage",
        "each band taken away once, on a few inputs",
        applies=lambda recipe: recipe.importance is not None and "student" in recipe.importance.of,
        after=("data", "teacher", *TRAINING), settings=_importance,
    ),
    Stage(
        "export", f"{_RECORDS}:Export", "rsedge.stages.export:export_stage",
        "every runtime's file, held against torch",
        after=("data", *TRAINING), settings=_deploying,
    ),
    Stage(
        "quantize", f"{_RECORDS}:Quantize", "rsedge.stages.quantize:quantize_stage",
        "one setting on a few calibration tiles, for every INT8 target",
        applies=lambda recipe: recipe.quantize is not None, after=_STUDENT, settings=_quantize,
    ),
    Stage(
        "crossval", f"{_RECORDS}:Crossval", "rsedge.stages.crossval:crossval_stage",
        "what its folds do is tried once, by the other stages",
        applies=crossvalidated, after=(*_STUDENT, "quantize"), settings=_crossval, inputs=_weights, tried=False,
    ),
    Stage(
        "verify", f"{_RECORDS}:Verify", "rsedge.stages.verify:verify_stage",
        "every target's executable opened and judged on a few inputs",
        after=(*_STUDENT, "quantize"), settings=_verify,
    ),
    Stage(
        "captions", f"{_RECORDS}:Captions", "rsedge.stages.captions:captions_stage",
        "texts take seconds each",
        applies=lambda recipe: recipe.captions, after=(*_STUDENT, "quantize", "verify", "language"), settings=_deploying,
        tried=False,
    ),
    Stage(
        "bundle", f"{_RECORDS}:Bundles", "rsedge.stages.bundle:bundle_stage",
        "written, signed, opened again",
        after=(*_STUDENT, "quantize", "verify", "language", "captions"), settings=_bundle,
        taken="rsedge.stages.bundle:publish",
    ),
)  # fmt: skip
"""All stages there are; their order is that of a run."""
