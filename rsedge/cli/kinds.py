"""Kinds of files that ``rsedge inspect`` knows on the ground: what people write by hand, and checkpoints, which torch reads."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rsedge.data.errors import MissingCapability, RequestError, missing_extra
from rsedge.runtimes.inspecting import FileKind, Record, contract, first_member

if TYPE_CHECKING:
    from rsedge.recipe.parts import PartsRecipe
    from rsedge.recipe.schema import Recipe

_TORCH_MEMBERS = ("/data.pkl", "/.format_version", "/version", "/byteorder")
_PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def _document(path: Path) -> Record:
    """A recipe, a mission or a device profile, told by its fields."""
    from rsedge.data.documents import read_document
    from rsedge.devices.mission.description import KINDS as MISSIONS
    from rsedge.devices.mission.description import load_mission
    from rsedge.devices.profiles.profile import load_profile
    from rsedge.recipe.reading import load_recipe
    from rsedge.recipe.schema import Recipe

    fields = read_document(path, "recipe, mission or device profile").value
    head = {"path": str(path), "bytes": path.stat().st_size}
    if any(kind in fields for kind in MISSIONS):
        mission, _ = load_mission(path)
        return {"kind": "mission", **head, **mission.model_dump(mode="json")}
    if "peaks_tops" in fields:
        profile = load_profile(path)
        return {
            "kind": "device", **head, "name": profile.name, "title": profile.title, "targets": profile.possible_targets()
        }  # fmt: skip
    recipe = load_recipe(path)
    about = _recipe(recipe) if isinstance(recipe, Recipe) else _parts_recipe(recipe)
    return {"kind": "recipe", **head, **about}


def _parts_recipe(recipe: PartsRecipe) -> Record:
    from rsedge.stages.names import stage_names

    return {
        "name": recipe.name,
        "whole": recipe.whole.name,
        "parts": {name: recipe.teacher_of(name).name for name in recipe.parts},
        "data": recipe.data.model_dump(mode="json"),
        "stages": stage_names(recipe),
        "targets": list(recipe.targets),
        "gates": [gate.name for gate in recipe.gates],
    }


def _recipe(recipe: Recipe) -> Record:
    from rsedge.models.zoo import zoo
    from rsedge.stages.table import stage_names

    row = next((row for row in zoo() if row.name == recipe.teacher.name), None)
    spec = recipe.teacher.contract if recipe.teacher.is_outside else row.input if row else None
    data = recipe.data.model_dump(mode="json", exclude_defaults=True)
    return {
        "name": recipe.name,
        "teacher": recipe.teacher.name,
        "task": recipe.teacher.task or (row.task if row else None),
        "classes": list(recipe.teacher.classes or (row.classes if row else ())),
        "contract": contract(spec) if spec else None,
        "data": {key: data[key] for key in ("train", "test", "samples") if key in data},
        "student": recipe.student.name,
        "stages": stage_names(recipe),
        "targets": list(recipe.targets),
        "gates": [gate.name for gate in recipe.gates],
    }


def _checkpoint(path: Path) -> Record:
    try:
        from rsedge.models.checkpoint import read_checkpoint, tensors_in
        from rsedge.models.teachers import sniff
    except ModuleNotFoundError as error:
        raise missing_extra("torch", "compress", f"reading the checkpoint {path.name}") from error
    content = read_checkpoint(path)
    entries = list(map(str, content)) if isinstance(content, Mapping) else []
    # Where the weights lie under a name, the largest mapping is they.
    inner = {k: v for k, v in content.items() if isinstance(v, Mapping)} if isinstance(content, Mapping) else {}
    under = [max(inner, key=lambda k: len(inner[k]))] if inner else []
    tensors = tensors_in(content, under, path)
    try:
        known = sniff(path)
    except (RequestError, MissingCapability):
        known = []
    return {
        "kind": "checkpoint",
        "path": str(path),
        "bytes": path.stat().st_size,
        "weights_under": str(under[0]) if under else None,
        "entries": entries[:8] if under else [],
        "tensors": len(tensors),
        "values": sum(tensor.numel() for tensor in tensors.values()),
        "dtypes": sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()}),
        "parts": dict(Counter(re.split(r"[./]", name)[0] for name in tensors).most_common(8)),
        "teachers": known,
    }


def _keras_archive(path: Path) -> Record:
    raise RequestError(
        f"{path}: a Keras 3 archive, which is not read: export it to ONNX and give onnx:FILE as the teacher, or save the "
        "weights as Keras 2 did (.h5)"
    )


def _then_checkpoint(record: Record, path: str) -> str:
    if record["teachers"]:
        return f"rsedge init --teacher {record['teachers'][0]} --checkpoint {path}"
    return f"rsedge init --teacher LOADER:NAME --checkpoint {path} (`rsedge teachers` lists loaders)"


def _then_document(record: Record, path: str) -> str:
    if record["kind"] == "mission":
        return f"rsedge budget BUNDLE --device DEVICE --mission {path}"
    if record["kind"] == "device":
        return f"rsedge devices predict ONNX {record['targets'][0]} --profile {path}"
    return f"rsedge run {path} --dry-run"


def _member(head: bytes) -> str:
    return first_member(head) or ""


GROUND_KINDS = (
    FileKind("recipe, mission or device profile", (".yaml", ".yml"), lambda head: False, _document, _then_document),
    FileKind(
        "PyTorch checkpoint", (".pt", ".pth", ".ckpt", ".bin", ".tar"),
        lambda head: _member(head).endswith(_TORCH_MEMBERS) or head[:2] in _PICKLES, _checkpoint, _then_checkpoint,
    ),
    FileKind(
        "Keras weights", (".h5", ".hdf5"), lambda head: head.startswith(b"\x89HDF\r\n\x1a\n"), _checkpoint, _then_checkpoint
    ),
    FileKind("Keras 3 archive", (".keras",), lambda head: False, _keras_archive, lambda record, path: None),
)  # fmt: skip
