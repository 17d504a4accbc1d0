"""What can be said of a captioning recipe before any work and without torch."""

from __future__ import annotations

from importlib import util

from rsedge.data.errors import missing_extra
from rsedge.models.zoo import TeacherRow, teacher_row
from rsedge.recipe.data import SampleDataSection
from rsedge.recipe.schema import COPIES, Recipe


def caption_problems(recipe: Recipe) -> list[str]:
    """One line for everything that does not fit; for other recipes, what belongs to captioning alone."""
    if not recipe.captions:
        given = [f"teacher.{n}" for n in ("adapter", "vision") if getattr(recipe.teacher, n) is not None]
        given += ["language"] if recipe.language is not None else []
        return [f"{n}: goes with captioning teachers, '{recipe.teacher.name}' is none" for n in given]
    row = teacher_row(recipe.teacher.name)
    why = front_problem(row)
    problems = [] if why is None else [f"teacher.name: {why}"]
    if recipe.student.name not in COPIES:
        problems.append(
            f"student.name: the language model reads the tokens of its own tower; take {' or '.join(COPIES)}, not "
            f"'{recipe.student.name}'"
        )
    if isinstance(recipe.data, SampleDataSection) and recipe.data.folds > 1:
        problems.append("data.folds: captions are judged on held-out images alone; leave folds out")
    return problems + _folders(recipe)


def front_problem(row: TeacherRow) -> str | None:
    """Why recipes cannot run a captioning row; None where they can."""
    if row.family != "vlm":
        return f"'{row.name}' is no tower with a projector in front of a plain language model"
    if row.arch.get("projector", "mlp") != "mlp":
        return (
            f"'{row.name}' joins neighbouring image tokens ({row.arch['projector']}); recipes run LLaVA's layout, one token per "
            "patch"
        )
    return None


def _folders(recipe: Recipe) -> list[str]:
    teacher = recipe.teacher
    problems = []
    for name, path in (("checkpoint", teacher.checkpoint), ("adapter", teacher.adapter)):
        if path is not None and not path.is_dir():
            problems.append(f"teacher.{name}: {path}: no such folder")
    if teacher.vision is not None and not teacher.vision.exists():
        problems.append(f"teacher.vision: {teacher.vision}: no such file or folder")
    return problems


def need_language() -> None:
    """Raises :class:`MissingCapability` where what builds and converts language models is not installed."""
    for module in ("transformers", "openvino_tokenizers"):
        if util.find_spec(module) is None:
            raise missing_extra(module, "language", "captioning")
