"""The front door in Python: whole recipes, and their steps one by one on a module in memory (docs/python.md).

Every call builds a recipe and runs its stages, so Python and the command line do the same: the same cache, the same resumption
after a kill, the same files in the run folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from rsedge.api_data import Data, data_section, plain
from rsedge.cache.run_folder import RunFolder
from rsedge.data.bands import InputSpec
from rsedge.data.document_check import set_value
from rsedge.data.documents import Document, Place
from rsedge.data.errors import RequestError
from rsedge.flight import Bundle, load
from rsedge.models.zoo import MEMORY, from_columns, teacher_row
from rsedge.pipeline.run import RunSummary, run_recipe, run_until
from rsedge.recipe.parts import PartsRecipe
from rsedge.recipe.reading import AnyRecipe, check_any, check_document, open_recipe, resolved
from rsedge.recipe.schema import TEACHER_ITSELF, Recipe

if TYPE_CHECKING:
    from torch import nn

    from rsedge.models.zoo import Task
    from rsedge.reports.schema import Report
    from rsedge.results.records import Distill, Prune
    from rsedge.results.records import Quantize as QuantizeFound

_UNTARGETED = "openvino-cpu-f32"
"""Stands in the recipe until :func:`quantize` or :func:`export` names a target."""


@dataclass(frozen=True)
class Run:
    """How a whole recipe ended: ``report``, ``bundles`` and ``passed``; its files lie in ``folder``."""

    summary: RunSummary

    @property
    def folder(self) -> Path:
        return self.summary.run_dir

    @property
    def passed(self) -> bool:
        """Whether the run came to its end and no gate failed (with ``strict``: all are decided too)."""
        return self.summary.verdict is not None and not self.summary.failed

    def raise_for_gates(self) -> None:
        """Raises :class:`rsedge.GateFailed` with a line for every gate that failed."""
        self.summary.raise_for_gates()

    @cached_property
    def report(self) -> Report:
        """The whole of ``report.json``.

        Raises:
            RequestError: the run ended before it was written.
        """
        from rsedge.reports.schema import load_report

        self._need_end("report")
        return load_report(self.folder / "report.json")

    @cached_property
    def bundles(self) -> dict[str, Bundle]:
        """The bundles by target, opened.

        Raises:
            RequestError: the run ended before they were written.
        """
        self._need_end("bundles")
        return {target.name: load(self.folder / "bundles" / target.name) for target in self.report.targets}

    def _need_end(self, what: str) -> None:
        if self.summary.stopped_after is not None:
            raise RequestError(
                f"{self.folder}: stopped after {self.summary.stopped_after}, so there is no {what} yet; run it without until"
            )


def run(
    recipe: str | Path | AnyRecipe | Mapping[str, Any],
    *,
    teacher: nn.Module | None = None,
    run_dir: str | Path | None = None,
    force: Sequence[str] = (),
    until: str | None = None,
    quiet: bool = False,
    allow_import: Sequence[str | Path] = (),
    **settings: Any,
) -> Run:
    """Runs a recipe as ``rsedge run`` does; gates that fail are no error here, see :attr:`Run.passed`.

    Args:
        recipe: a file, the name of a ready recipe, or a recipe built in Python: a :class:`rsedge.Recipe` or the same as a mapping;
            of one network, or of several parts (docs/parts.md).
        teacher: the teacher's network itself, where the recipe says ``teacher: {name: "python:NAME", input: ..., classes: ...}``.
        run_dir: where to work; ``runs/<recipe name>`` when not given. What is done there already is not done again.
        force: stages to do again.
        until: the stage to end with.
        quiet: no progress on stderr.
        allow_import: folders that a file may import from beside its own.
        settings: fields of the recipe to set, two underscores for a dot: ``steps__distill__steps=200``.

    Raises:
        RequestError: the recipe is wrong or cannot run.
        MissingCapability: this machine lacks something.
    """
    if not isinstance(recipe, str | Path | Recipe | PartsRecipe | Mapping):
        raise RequestError(f"recipe: give a file, a name, a mapping or an rsedge.Recipe, no {type(recipe).__name__}")
    given = plain(recipe) if isinstance(recipe, Mapping) else recipe
    document = open_recipe(given, [Path(folder) for folder in allow_import])
    for name, value in settings.items():
        set_value(document, name.replace("__", "."), plain(value), f"{name}=")
    loaded = check_any(document)
    if isinstance(loaded, Recipe):
        _check_memory(loaded, teacher)
    folder = Path("runs") / loaded.name if run_dir is None else Path(run_dir)
    return Run(run_recipe(loaded, folder, force, quiet, until, teacher))


def _check_memory(recipe: Recipe, teacher: nn.Module | None) -> None:
    named = recipe.teacher.name.startswith(f"{MEMORY}:")
    if teacher is not None and not named:
        raise RequestError(
            f"teacher.name: '{recipe.teacher.name}' is no module in memory, but one was handed over; name it {MEMORY}:NAME, or "
            "leave teacher= out"
        )
    if recipe.student.name.startswith(f"{MEMORY}:"):
        raise RequestError(
            f"student.name: '{recipe.student.name}' is a module in memory, which rsedge.distill(teacher, student=module) "
            "takes; name one of `rsedge students`"
        )
    if teacher is None and named:
        raise RequestError(f"teacher.name: '{recipe.teacher.name}' is a module in memory; hand it over with teacher=")


@dataclass(frozen=True)
class _Job:
    """A recipe that grows step by step, where it runs, and the modules that its teacher and student are."""

    recipe: Recipe
    folder: Path
    module: nn.Module | None
    quiet: bool
    student: nn.Module | None = None

    def with_step(self, step: str, settings: Mapping[str, Any]) -> _Job:
        """With one more step, or with other settings of it."""
        content = resolved(self.recipe)
        content["steps"] = [s for s in content["steps"] if step not in s] + [{step: dict(settings)}]
        return self._changed(content, step)

    def with_fields(self, what: str, **fields: Any) -> _Job:
        return self._changed(resolved(self.recipe) | fields, what)

    def _changed(self, content: dict[str, Any], what: str) -> _Job:
        return replace(self, recipe=_checked(content, what))


@dataclass(frozen=True)
class Student:
    """A network that was distilled, pruned, or taken as it is: ``module`` in torch, with its band contract.

    Attributes:
        module: on the CPU, in evaluation mode: normalised float32 -> logits. A copy: changing it changes no later step.
        stage: ``distill`` or ``prune``.
        record: what the stage found: sizes, scores on selection, for pruning every step with its figures.
        spec: the band contract; ``spec.normalise(dn)`` gives what ``module`` takes.
        classes: names of the outputs.
    """

    module: nn.Module
    stage: str
    record: Distill | Prune
    spec: InputSpec
    classes: tuple[str, ...]
    _job: _Job

    @property
    def folder(self) -> Path:
        """The run folder; ``stages/<stage>/model`` holds structure and weights."""
        return self._job.folder


@dataclass(frozen=True)
class Quantized:
    """An INT8 model of a student.

    Attributes:
        target: what it is for.
        record: what was tried, and what came of it, with figures on selection.
    """

    target: str
    record: QuantizeFound
    _job: _Job

    @property
    def accepted(self) -> bool:
        """Whether it holds what was asked on selection; a model that does not is delivered too, and says so."""
        return self.record.outcome != "rejected"

    @property
    def folder(self) -> Path:
        return self._job.folder


def distill(
    teacher: nn.Module | str | Mapping[str, Any],
    student: nn.Module | str | Mapping[str, Any] = "slim-unet",
    *,
    data: Data,
    spec: InputSpec | Mapping[str, Any] | None = None,
    classes: Sequence[str] = (),
    labels: Any = None,
    groups: Any = None,
    task: Task | None = None,
    checkpoint: str | Path | None = None,
    name: str | None = None,
    run_dir: str | Path | None = None,
    seed: int = 0,
    threads: int | None = None,
    device: str = "cpu",
    quiet: bool = False,
    **settings: Any,
) -> Student:
    """Teaches a student what a teacher gives; labels are not needed, where they are there later verdicts use them.

    Args:
        teacher: a module in memory, a name (``rsedge teachers``, ``timm:...``), or the recipe's section.
        student: a module in memory that gives logits of every class, a name that ``rsedge students`` lists, or the recipe's section
            with arguments of its builder.
        data: an array of tiles ``(N, *spec.shape)``: digital numbers, or physical values as float; one or several GeoTIFFs (the
            last one judges, by some of its blocks); or the recipe's ``data`` section.
        spec: the band contract, as :class:`rsedge.InputSpec` or as recipes write it; a named teacher of the zoo has its own.
        classes: names of the outputs, in their order; none for embeddings.
        labels: of an array: (N, T, T) class numbers, 255 for unknown, or (N,) or (N, K); of GeoTIFFs: the label raster of the last.
        groups: of an array: (N,) what is held out together, such as the scene a tile was cut from.
        task: what the teacher does, where its outputs do not say.
        checkpoint: weights of a named teacher.
        name: of the run folder and the bundle; the module's class when not given.
        run_dir: where to work; ``runs/<name>`` when not given. The same call again goes on there.
        threads: CPU threads; all when not given.
        device: where training runs, ``cpu`` or ``cuda``.
        settings: fields of the recipe's ``distill`` step, such as ``steps`` and ``lr``.

    Raises:
        RequestError: something does not fit together; says what and how to mend it.
        MissingCapability: this machine lacks something.
    """
    about = _about(teacher, spec, classes, task, checkpoint)
    title = _name(name, about["name"])
    folder = Path("runs") / title if run_dir is None else Path(run_dir)
    own, section = _student_section(student, _contract(about))
    content = {
        "name": title,
        "seed": seed,
        "threads": threads,
        "device": device,
        "teacher": about,
        "data": data_section(data, _contract(about), folder, labels, groups, classes),
        "student": section,
        "steps": [{"distill": plain(settings)}],
        "targets": [_UNTARGETED],
    }
    module = None if isinstance(teacher, str | Mapping) else teacher
    recipe = _checked({k: v for k, v in content.items() if v is not None}, "distill")
    return _student(_Job(recipe, folder, module, quiet, own), "distill")


def as_student(teacher: nn.Module | str | Mapping[str, Any], *, data: Data, **options: Any) -> Student:
    """Takes a module, or a named network, as it is: to be pruned, quantized and exported without distilling.

    ``data`` and ``options`` are those of :func:`distill`; raises as it does.
    """
    given = sorted({"student", "steps"} & set(options))
    if given:
        raise RequestError(
            f"as_student takes no {' and no '.join(given)}: the network is its own student, and nothing is trained"
        )
    return distill(teacher, TEACHER_ITSELF, data=data, steps=0, **options)


def prune(student: Student, *, quiet: bool | None = None, **settings: Any) -> Student:
    """Removes channels step by step, each cut recovered by distillation, measured, and kept or rolled back.

    Args:
        settings: fields of the recipe's ``prune`` step, such as ``target={"latency_ratio": 0.6}``, ``steps``, ``max_drop``.

    Raises:
        RequestError: settings are wrong, or nothing can be pruned.
    """
    return _student(_job_of(student, "prune", quiet).with_step("prune", plain(settings)), "prune")


def quantize(
    student: Student,
    target: str = "openvino-cpu-int8",
    *,
    gates: Sequence[Mapping[str, Any]] = (),
    quiet: bool | None = None,
    **settings: Any,
) -> Quantized:
    """Makes an INT8 model for a target, tried on its own executable.

    Settings of calibration are searched, then training under rounding follows, then layers left in float.

    Args:
        gates: as in a recipe; what is tried is held against them on selection, with a margin.
        settings: fields of the recipe's ``quantize`` step, such as ``max_drop``, ``qat``, ``weights_only``.

    Raises:
        RequestError: settings are wrong, or the calibration tiles cannot be used.
        GateFailed: nothing could quantize the student at all.
    """
    from rsedge.results.records import Quantize

    job = _job_of(student, "quantize", quiet).with_fields("quantize", targets=[_UNTARGETED], gates=[])
    content = resolved(job.recipe)
    steps = [s for s in content["steps"] if "quantize" not in s] + [{"quantize": plain(settings)}]
    job = job.with_fields("quantize", steps=steps, targets=[target], gates=plain(list(gates)))
    line = run_until(job.recipe, job.folder, "quantize", job.quiet, job.module, job.student)
    return Quantized(target, line.stages.results.of(Quantize), job)


def export(
    model: Student | Quantized,
    target: str | None = None,
    *,
    output: str | Path | None = None,
    gates: Sequence[Mapping[str, Any]] | None = None,
    key: str | Path | None = None,
    quiet: bool | None = None,
) -> Bundle:
    """Exports for a target, judges the artefact on test, and writes one signed bundle.

    Args:
        target: ``<runtime>-<device>-<precision>``; that of a quantized model when not given. A student exported for INT8 is
            quantized with the defaults first.
        output: the bundle's folder, or a ``.zip``; ``<run folder>/exported/<target>`` when not given.
        gates: as in a recipe; the bundle carries what became of them, see :attr:`Bundle.passed`.
        key: Ed25519 private key (PEM) that signs; without one a pair is made in the run folder.

    Raises:
        RequestError: no such target, or it does not fit.
        GateFailed: runtimes disagree at f32, or the bundle misses its own golden vector.
        MissingCapability: this machine lacks something.
    """
    job = _job_of(model, "export", quiet)
    name = target or (model.target if isinstance(model, Quantized) else None)
    if name is None:
        raise RequestError("export: name a target, such as target='openvino-cpu-int8'; `rsedge devices` lists devices")
    place = Path(output) if output else RunFolder(job.folder).exported / name
    _check_place(place)
    steps = resolved(job.recipe)["steps"]
    if name.endswith("-int8") and not any("quantize" in s for s in steps):
        steps = [*steps, {"quantize": {}}]
    if not name.endswith("-int8"):
        steps = [s for s in steps if "quantize" not in s]
    fields: dict[str, Any] = {"steps": steps, "targets": [name]}
    if gates is not None:
        fields["gates"] = plain(list(gates))
    if key is not None:
        fields["signing"] = {"key": str(Path(key).absolute())}
    job = job.with_fields("export", **fields)
    run_recipe(job.recipe, job.folder, quiet=job.quiet, module=job.module, student=job.student)
    return load(_delivered(job.folder / "bundles" / name, place))


def _check_place(output: Path) -> None:
    """Whether a bundle may be written there, before any work."""
    from rsedge.runtimes.bundle.manifest import MANIFEST

    if output.suffix != ".zip" and output.exists() and not (output / MANIFEST).is_file():
        raise RequestError(f"output: {output} is there already and is no bundle; choose another folder")


def _delivered(made: Path, output: Path) -> Path:
    from rsedge.data.files import copy_folder, make_folder, replace_folder
    from rsedge.data.temporary import TemporaryFolder
    from rsedge.export.bundle import zip_bundle

    _check_place(output)
    if output.suffix == ".zip":
        return zip_bundle(made, output)
    make_folder(output.parent)
    with TemporaryFolder(output.parent) as temporary:
        replace_folder(copy_folder(made, temporary / output.name), output)
    return output


def _student(job: _Job, stage: str) -> Student:
    from rsedge.results.records import Distill, Prune

    line = run_until(job.recipe, job.folder, stage, job.quiet, job.module, job.student)
    found = line.stages.results
    record = found.of(Prune) if stage == "prune" else found.of(Distill)
    return Student(line.ctx.student(stage), stage, record, line.ctx.spec, line.ctx.classes, job)


def _student_section(student: Any, spec: InputSpec) -> tuple[nn.Module | None, Any]:
    """A copy of a module in memory, or None, and the recipe's ``student`` section."""
    if isinstance(student, str | Mapping | BaseModel):
        return None, plain(student)
    from rsedge.models.outside.loading import own_student

    net, code = own_student(student, spec)
    return net, {"name": f"{MEMORY}:{type(net).__name__}", "code": code}


def _job_of(model: Student | Quantized, call: str, quiet: bool | None) -> _Job:
    if not isinstance(model, Student | Quantized):
        raise RequestError(
            f"{call}: takes what rsedge.distill, as_student or an earlier step gave, no {type(model).__name__}; "
            "rsedge.as_student(module, data=..., spec=...) takes a module as it is"
        )
    return model._job if quiet is None else replace(model._job, quiet=quiet)


def _about(
    teacher: nn.Module | str | Mapping[str, Any],
    spec: InputSpec | Mapping[str, Any] | None,
    classes: Sequence[str],
    task: Task | None,
    checkpoint: str | Path | None,
) -> dict[str, Any]:
    """The recipe's ``teacher`` section."""
    if isinstance(classes, str):
        raise RequestError(f"classes: a list of names is needed, such as ['{classes}'], not a text")
    if isinstance(teacher, str | Mapping):
        about = {"name": teacher} if isinstance(teacher, str) else dict(plain(teacher))
    else:
        if spec is None:
            raise RequestError(
                "spec: a module in memory does not say what its bands are; give the band contract, e.g. spec={'bands': ['red', "
                "'nir'], 'tile': 128, 'scale': 1e-4, 'mean': 0.2, 'std': 0.2}"
            )
        if checkpoint is not None:
            raise RequestError("checkpoint: a module in memory has its weights; load them into it, or name the network")
        about = {"name": f"{MEMORY}:{type(teacher).__name__}"}
    given = {"input": plain(spec), "classes": list(classes) or None, "task": task,
             "checkpoint": None if checkpoint is None else str(checkpoint)}  # fmt: skip
    return about | {k: v for k, v in given.items() if v is not None}


def _contract(about: Mapping[str, Any]) -> InputSpec:
    """The band contract that data are given under.

    Raises:
        RequestError: another library's network without one, a teacher that takes no bands, or a contract that is wrong.
    """
    from pydantic import ValidationError

    if ":" not in about["name"]:
        return teacher_row(about["name"]).input_spec
    try:
        return InputSpec.model_validate(from_columns(dict(about.get("input") or {})))
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'it'}: {e['msg']}" for e in error.errors()]
        raise RequestError("spec: is no band contract: " + "; ".join(lines)) from error
    except ValueError as error:
        raise RequestError(f"spec: {error}") from error


def _name(given: str | None, teacher: str) -> str:
    """The run's name; of a teacher's name what a folder may be called."""
    if given is not None:
        return given
    text = re.sub(r"[^A-Za-z0-9._-]+", "-", teacher.rpartition(":")[2]).strip("-._").lower()
    return text or "student"


def _checked(content: Mapping[str, Any], what: str) -> Recipe:
    return check_document(Document(json.loads(json.dumps(content)), {(): Place(f"rsedge.{what}")}, "call"))
