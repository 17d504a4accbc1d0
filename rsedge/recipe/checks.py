"""Checks a recipe against what exists (teachers, scenes, devices, files), before any work and without torch."""

from __future__ import annotations

from pathlib import Path

from rsedge.data.document_check import nearest
from rsedge.data.errors import RequestError
from rsedge.data.metrics.table import METRICS
from rsedge.data.objects import is_address
from rsedge.data.samples.tables import SUFFIXES
from rsedge.data.sets.datasets import TORCHGEO
from rsedge.data.sets.sample_sources import SAMPLE_SOURCES
from rsedge.data.sets.scene_sources import CATALOGUE
from rsedge.devices.mission.description import load_mission
from rsedge.devices.predict.dla import check_dla, check_dla_core
from rsedge.devices.profiles.profile import DeviceProfile, check_target
from rsedge.export.signing import load_key
from rsedge.models.students import CATALOGUE as STUDENTS
from rsedge.models.zoo import FILE_LOADERS, MEMORY, OUTPUT_MARK, PIPELINE_TASKS, Task, zoo
from rsedge.recipe import survey as survey_scenes
from rsedge.recipe.caption_checks import caption_problems, need_language
from rsedge.recipe.contracts import contracts
from rsedge.recipe.data import SampleDataSection, SceneSection
from rsedge.recipe.schema import COPIES, TEACHER_ITSELF, GateSection, Recipe
from rsedge.recipe.student_auto import AUTO, auto_problems
from rsedge.recipe.track import need_tracker
from rsedge.runtimes.bundle.manifest import BoxSettings, Target

UNSAID: tuple[Task, ...] = ("segmentation", "classification", "embedding")
"""What another library's network may do where the recipe does not say; the others must be said under teacher.task."""


def preflight(recipe: Recipe) -> None:
    """Refuses a recipe that cannot work.

    Raises:
        RequestError: one line for everything that does not exist or does not fit together.
        MissingCapability: a Myriad target, and no environment with OpenVINO 2022.3.2; a LiteRT target, and no converter.
    """
    problems = [
        *_models(recipe),
        *_boxes_only(recipe),
        *_labels(recipe),
        *_data(recipe),
        *_targets(recipe),
        *_gates(recipe),
        *_mission(recipe),
    ]
    problems += caption_problems(recipe)
    if problems:
        count = "" if len(problems) == 1 else f" ({len(problems)} problems)"
        raise RequestError(f"recipe '{recipe.name}' cannot run{count}:\n  " + "\n  ".join(problems))
    for target in recipe.parsed_targets:
        target.backend.check(target.precision)
    if recipe.captions:
        need_language()
    need_tracker(recipe.track)


def measured_here(target: Target) -> bool:
    """Whether the target's latency is measured on this machine (its device is this machine's CPU)."""
    return target.backend.measured_here(target.device)


def _models(recipe: Recipe) -> list[str]:
    problems = []
    problems += _teacher(recipe)
    if recipe.student.name == AUTO:
        problems += auto_problems(recipe)
    elif recipe.student.name.startswith(f"{MEMORY}:"):
        if isinstance(recipe.data, SampleDataSection) and recipe.data.folds > 1:
            problems.append("data.folds: a student in memory cannot be built anew for every fold; leave folds out")
    elif recipe.student.name not in STUDENTS:
        hint = nearest(recipe.student.name, list(STUDENTS))
        problems.append(f"student.name: '{recipe.student.name}' is unknown{hint}; known: {', '.join(STUDENTS)}")
    problems += _student_sees(recipe)
    problems += [] if recipe.captions else _file("teacher.checkpoint", recipe.teacher.checkpoint)
    for i, other in enumerate(recipe.teachers):
        problems += _file(f"teachers[{i}].checkpoint", other.checkpoint)
    problems += signing_problems(recipe.signing.key)
    return problems


def _student_sees(recipe: Recipe) -> list[str]:
    """A contract of the student's own, as far as it is known before the teacher is built."""
    student, row = recipe.student, next((r for r in zoo() if r.name == recipe.teacher.network), None)
    if student.sees_less and student.name in COPIES:
        return [
            f"student: '{student.name}' has the teacher's weights and takes all that it does; leave bands and dates out"
        ]
    says = student.model_fields_set & {"bands", "dates", "sensor", "resample"}
    if not says or (row is None and not recipe.teacher.is_outside):
        return []
    try:
        spec = recipe.teacher.contract if row is None else row.input_spec
        contracts(spec, student)
    except RequestError as error:
        return [str(error)]
    return []


def signing_problems(path: Path | None) -> list[str]:
    """The key is used by the last stage, so it is read before the first."""
    try:
        if path is not None:
            load_key(path)
    except RequestError as error:
        return [f"signing.key: {error}"]
    return []


def _teacher(recipe: Recipe) -> list[str]:
    rows = {row.name: row for row in zoo()}
    name = recipe.teacher.network
    if recipe.teacher.feature is not None and (recipe.teacher.probe or recipe.teacher.fit):
        return [f"teacher: '{recipe.teacher.name}' gives features as they are; leave probe and fit out"]
    if recipe.teacher.is_outside:
        return _outside(recipe)
    if name not in rows:
        return [f"teacher.name: '{name}' is unknown{nearest(name, list(rows))}; `rsedge teachers` lists all"]
    row = rows[name]
    if row.task not in PIPELINE_TASKS:
        known = ", ".join(PIPELINE_TASKS)
        return [
            f"teacher.name: '{name}' is a teacher for {row.task}; recipes run {known} teachers only; "
            "those that go in parts have recipes with `parts` (docs/parts.md)"
        ]
    if recipe.teacher.probe is not None and row.task != "embedding":
        return [f"teacher.probe: a probe goes on embeddings, '{name}' is a teacher for {row.task}"]
    if row.task != "detection" and not recipe.teacher.probe and (recipe.teacher.classes or recipe.teacher.fit):
        return [
            f"teacher: classes and fit are of detectors, '{name}' is a teacher for {row.task}; embeddings take probe"
        ]
    if row.weights is None and recipe.teacher.checkpoint is None and recipe.teacher.fit is None:
        return [f"teacher.checkpoint: '{name}' comes without weights; give the file of its authors (see: {row.source})"]
    return []


def _task(recipe: Recipe) -> Task | None:
    """What the teacher does, where that is known before it is built."""
    row = next((r for r in zoo() if r.name == recipe.teacher.network), None)
    if recipe.teacher.probe is not None:
        return recipe.teacher.probe.task
    if recipe.teacher.feature is not None:
        return "features"
    return recipe.teacher.task if row is None else row.task


def _boxes_only(recipe: Recipe) -> list[str]:
    """Settings that only detectors heed."""
    if _task(recipe) == "detection":
        return []
    return ["boxes: only detectors heed it; leave it out"] if recipe.boxes != BoxSettings() else []


def _labels(recipe: Recipe) -> list[str]:
    """Labels beside a teacher whose outputs have none."""
    does = _task(recipe)
    if recipe.distill.labels and does in ("embedding", "features", "captioning"):
        return [f"steps.distill.labels: outputs of a teacher for {does} have no labels; leave it out"]
    return []


def _outside(recipe: Recipe) -> list[str]:
    """Another library's network: what can be said before it is built."""
    section, loader = recipe.teacher, recipe.teacher.name.partition(":")[0]
    if section.is_student and section.probe is not None:
        return ["teacher.probe: it goes on embeddings of the zoo or of other libraries; leave it out"]
    student = STUDENTS.get(recipe.student.name)
    if student is not None and student.copies and loader == "onnx":
        return [
            f"student.name: '{student.name}' is made from the teacher, but an ONNX file is a black box, without anything to "
            "train or prune; name a student of the catalogue (`rsedge students`)"
        ]
    if student is not None and student.copies and student.name != TEACHER_ITSELF:
        return [
            f"student.name: '{student.name}' is built from smaller arguments of the teacher's family, and '{section.name}' is "
            "of none here; take the teacher as it is (student: {name: teacher}) or a student of the catalogue (`rsedge students`)"
        ]
    if loader == "onnx" and recipe.distill.taps:
        return ["steps.distill.taps: an ONNX file is a black box, whose features cannot be tapped; leave taps out"]
    if loader == "onnx" and section.probe is not None:
        return ["teacher.probe: an ONNX file is a black box without a place for a head; probe its network"]
    if loader in FILE_LOADERS and not Path(section.name.partition(":")[2].partition(OUTPUT_MARK)[0]).exists():
        return [f"teacher.name: '{section.name}': no such file or folder"]
    if section.task is not None and section.task not in PIPELINE_TASKS:
        return [f"teacher.task: recipes run {', '.join(PIPELINE_TASKS)} teachers, not {section.task}"]
    return []


def _data(recipe: Recipe) -> list[str]:
    """What can be said of the data before the teacher is built; scenes go with teachers that give maps."""
    row = next((r for r in zoo() if r.name == recipe.teacher.network), None)
    if row is None and not recipe.teacher.is_outside:
        return []
    if isinstance(recipe.data, SampleDataSection):
        if recipe.teacher.fit is not None and recipe.data.folds > 1:
            return ["data.folds: the teacher is fitted once and would have seen samples of every fold; leave folds out"]
        return _samples(recipe)
    if recipe.teacher.feature is not None:
        return [
            f"data: '{recipe.teacher.name}' gives a map of features; name its samples under data.samples (`rsedge sources`)"
        ]
    if row is not None and row.task != "segmentation" and row.task in PIPELINE_TASKS:
        return [
            f"data: '{row.name}' gives {'boxes' if row.task == 'detection' else 'one vector per sample'}; name its samples "
            "under data.samples (`rsedge sources`)"
        ]
    return _scenes(recipe)


def _samples(recipe: Recipe) -> list[str]:
    source, known = recipe.samples.samples.source, [*SAMPLE_SOURCES]
    if source in known:
        return []
    if source.endswith(SUFFIXES):
        return _file("data.samples.source", (recipe.samples.samples.root or Path()) / source)
    words = f"known: {', '.join(known)}, or the path of a {', '.join(SUFFIXES)}"
    return [f"data.samples.source: '{source}' is unknown{nearest(source, known)}; {words}"]


def _scenes(recipe: Recipe) -> list[str]:
    problems = []
    for index, scene in enumerate(recipe.scenes.train):
        problems += _scene(f"data.train[{index}]", scene)
    for role, held_out in recipe.scenes.held_out.items():
        problems += _scene(f"data.{role}", held_out)
        if held_out.label_file is not None:
            if held_out.path is None:
                problems.append(f"data.{role}.labels: a label file goes with 'path'; a named source has its own labels")
            problems += _file(f"data.{role}.labels", held_out.label_file.path)
    return problems


def _scene(where: str, scene: SceneSection) -> list[str]:
    if scene.source is not None and scene.source.startswith(TORCHGEO):
        return survey_scenes.problems(where, scene)
    if scene.source is not None and scene.source not in CATALOGUE:
        hint = nearest(scene.source, list(CATALOGUE))
        return [f"{where}.source: '{scene.source}' is unknown{hint}; known: {', '.join(sorted(CATALOGUE))}"]
    return _file(f"{where}.path", scene.path)


def _file(where: str, path: Path | None) -> list[str]:
    return [] if path is None or is_address(path) or path.is_file() else [f"{where}: {path}: no such file"]


def _targets(recipe: Recipe) -> list[str]:
    problems = []
    for name in dict.fromkeys([*recipe.targets, *([recipe.prune.latency_on] if recipe.prune else [])]):
        try:
            profile = check_target(name)
            if recipe.tensorrt.dla is not None and name in recipe.targets:
                _check_dla(recipe, profile, Target.parse(name))
        except RequestError as error:
            problems.append(str(error))
    if recipe.tensorrt.dla is not None and not any(t.backend.dla for t in recipe.parsed_targets):
        problems.append("tensorrt.dla: none of the targets is for tensorrt; leave it out")
    return problems


def _check_dla(recipe: Recipe, profile: DeviceProfile, target: Target) -> None:
    """What can be said of the DLA before the student is built; its graph is checked before the first stage."""
    if not target.backend.dla:
        return
    core = recipe.tensorrt.dla
    assert core is not None
    try:
        check_dla(profile, target.precision)
        check_dla_core(profile, core)
    except RequestError as error:
        raise RequestError(f"tensorrt.dla: {target.name}: {error}") from error
    if recipe.tensorrt.max_batch > 1:
        raise RequestError(
            f"tensorrt.dla: {target.name}: the DLA takes fixed shapes only; set tensorrt.max_batch to 1, or leave dla out"
        )


def _gates(recipe: Recipe) -> list[str]:
    problems = []
    for index, gate in enumerate(recipe.gates):
        where = f"gates[{index}]"
        problems += metric_fits(where, gate.metric, recipe)
        problems += _measured_elsewhere(where, gate, recipe)
    return problems


def _measured_elsewhere(where: str, gate: GateSection, recipe: Recipe) -> list[str]:
    """What is measured on this machine alone cannot be asked of targets that are not this machine."""
    targets = [t for t in recipe.parsed_targets if gate.target in (None, t.name)]
    elsewhere = next((t.name for t in targets if not measured_here(t)), None)
    if elsewhere is None or (gate.min_speedup is None and "measurement" not in METRICS[gate.metric].needs):
        return []
    why = f"{gate.metric} is measured on this machine"
    if gate.min_speedup is not None:
        why = f"min_speedup compares with {gate.over}, measured on this machine"
    return [f"{where}: {why}; {elsewhere} is not measured here. Name a target that is, with `target:`"]


def metric_fits(where: str, metric: str, recipe: Recipe) -> list[str]:
    """Why a recipe's data and teacher cannot have a metric; none where they can, as far as is known before any work."""
    task, row = _task(recipe), METRICS[metric]
    problems = []
    if "labels" in row.needs and not has_labels(recipe):
        give = "" if isinstance(recipe.data, SampleDataSection) else "give a label raster under data.test.labels, or "
        problems.append(f"{where}: {metric} needs labels, and data.test has no labels; {give}use agreement")
    tasks = UNSAID if task is None else (task,)
    if row.tasks and not set(tasks) & set(row.tasks):
        does = " or ".join(tasks)
        of = " and ".join([", ".join(row.tasks[:-1]), row.tasks[-1]] if row.tasks[1:] else row.tasks)
        problems.append(f"{where}: {metric} is of {of}, '{recipe.teacher.name}' is a teacher for {does}")
    elif "folds" in row.needs and (not isinstance(recipe.data, SampleDataSection) or recipe.data.folds < 2):
        problems.append(f"{where}: {metric} needs data.folds of at least 2")
    return problems


def _mission(recipe: Recipe) -> list[str]:
    if recipe.mission is None:
        return []
    try:
        load_mission(recipe.mission)
    except RequestError as error:
        return [f"mission: {error}"]
    return []


def has_labels(recipe: Recipe) -> bool:
    """Whether the test scene has labels: the source's, a label file, or the masks of simulated clouds. Samples say so later."""
    if isinstance(recipe.data, SampleDataSection):
        return True
    test = recipe.scenes.test
    if test.simulated_clouds:
        return True
    if test.label_file is not None:
        return True
    if not test.labels or test.source is None:
        return False
    if test.source.startswith(TORCHGEO):
        return True
    source = CATALOGUE.get(test.source)
    return source is not None and source.labels is not None
