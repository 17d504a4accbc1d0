"""``rsedge init``: at most seven questions, each checked at once, then a commented recipe that loads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import typer

from rsedge.data.document_check import nearest
from rsedge.data.documents import read_document
from rsedge.data.errors import IntegrityError, MissingCapability, RequestError
from rsedge.data.files import write_bytes
from rsedge.data.folders import user_path
from rsedge.data.samples.chips import chip_files, folder_classes
from rsedge.data.samples.tables import SUFFIXES as TABLES
from rsedge.data.sets.sample_sets import SAMPLE_SETS
from rsedge.data.sets.sample_sources import SAMPLE_SOURCES
from rsedge.data.sets.scene_sources import CATALOGUE as SCENES
from rsedge.data.sets.scene_sources import is_here
from rsedge.devices.profiles.profile import check_target
from rsedge.models.students import CATALOGUE, StudentEntry
from rsedge.models.zoo import FILE_LOADERS, LOADER_NAMES, TeacherRow, teacher_row, zoo
from rsedge.recipe.folders import (
    band_indices,
    band_names,
    edge,
    find_scenes,
    is_label,
    label_values,
    numbers,
    sensor_of,
)
from rsedge.recipe.reading import check_document
from rsedge.recipe.schema import TeacherSection
from rsedge.recipe.starting import Chips, Contract, Start, recipe_text
from rsedge.runtimes.inference.outputs import check_outputs
from rsedge.runtimes.inspecting import KINDS, describe, kind_of

DEFAULT_TARGETS = "openvino-cpu-f32, openvino-cpu-int8"
DEFAULT_TRAIN = ("ukis-sentinel2", "sen1floods11-spain", "landsat7-olinda")
IN_WHEELS = ("ukis-csmask-4b-l1c", ("spyndex-sentinel2",))
"""Teacher and scenes where those of :data:`DEFAULT_TRAIN` are not here: what is written runs on every machine."""
TASKS = ("segmentation", "classification", "regression", "embedding")
GUIDES = {
    "instances": "parts.md", "generation": "parts.md", "detection": "detection.md", "captioning": "captioning.md",
    "super-resolution": "super-resolution.md",
}  # fmt: skip
"""Documents on recipes of other tasks."""
DENSE = ("smp", "onnx")
"""Loaders whose networks may give maps; the others give an answer per image."""
UNLABELLED = 255
T = TypeVar("T")


@dataclass(frozen=True)
class Answers:
    """What was given on the command line; None where the question is still open."""

    name: str | None = None
    teacher: str | None = None
    checkpoint: str | None = None
    data: str | None = None
    bands: str | None = None
    classes: str | None = None
    student: str | None = None
    targets: str | None = None


@dataclass(frozen=True)
class Model:
    """A teacher as far as it is known before it is loaded; ``row`` of the zoo, sizes of ONNX files."""

    name: str
    row: TeacherRow | None = None
    checkpoint: Path | None = None
    wants_checkpoint: bool = False
    channels: int | None = None
    outputs: int | None = None
    tile: int | None = None
    maps: bool = True

    @property
    def task(self) -> str:
        return self.row.task if self.row else "segmentation" if self.maps else "classification"

    @property
    def layout(self) -> str:
        return self.row.input_spec.layout if self.row else "CHW"


@dataclass(frozen=True)
class Material:
    """The data: scenes with their labels, a set of samples, or the images of a folder."""

    scenes: tuple[str | Path, ...] = ()
    labels: Mapping[Path, Path] = field(default_factory=dict)
    samples: str | None = None
    chips: Path | None = None

    @property
    def files(self) -> list[Path]:
        return [scene for scene in self.scenes if isinstance(scene, Path)]


def ask(given: Answers, interactive: bool, name: str = "my-model") -> Start:
    """Fills what is open, by asking or with defaults. A wrong answer is asked for again.

    Args:
        name: of the recipe, where none is given.

    Raises:
        RequestError: an option names something that does not exist or does not fit the others, or has no default and is not given.
    """
    asking = _Asking(interactive)
    first, scenes = (None, DEFAULT_TRAIN) if all(map(is_here, DEFAULT_TRAIN)) else IN_WHEELS
    weighted = [row.name for row in zoo() if row.task == "segmentation" and row.weights]
    model = asking(
        given.teacher, "Teacher (`rsedge teachers`, LOADER:NAME such as smp:unet/resnet34, an ONNX file, a checkpoint)",
        first or weighted[0], _model,
    )  # fmt: skip
    weights = model.checkpoint
    if model.wants_checkpoint or given.checkpoint is not None:
        weights = asking(
            given.checkpoint, "Checkpoint with its weights", None, lambda text: _weights(text, model), "--checkpoint"
        )
        model = model if model.row is None else _of_zoo(model.name, weights)
    default = ", ".join(scenes) if model.task == "segmentation" else _fitting_set(model)
    material = asking(
        given.data, "Data (a folder of GeoTIFFs, files, or names that `rsedge sources` lists)", default,
        lambda text: _material(text, model), "--data",
    )  # fmt: skip
    contract, classes = (None, model.row.classes) if model.row else _described(asking, given, material, model)
    chips = _chips(material.chips, material, model, contract, classes) if material.chips else None
    fitting = [entry for entry in CATALOGUE.values() if _fits(entry, model)]
    student = asking(given.student, _listing(fitting), fitting[0].name, lambda text: _student(text, fitting))
    targets = asking(given.targets, "Targets (`rsedge devices`)", DEFAULT_TARGETS, _targets)
    labels = material.labels.get(material.files[-1]) if material.files else None
    return Start(
        name=given.name or name,
        teacher=model.name,
        student=student,
        targets=targets,
        task=model.task,
        checkpoint=weights,
        contract=contract,
        classes=classes if contract else (),
        scenes=() if chips else material.scenes,
        labels=labels,
        label_map=_label_map(labels, classes) if labels else {},
        file_bands=contract.bands if contract and not any(band_names(material.files[0])) else (),
        samples=material.samples,
        chips=chips,
        block=max(8, min(64, edge(material.files) // 4)) if material.files else 64,
    )


def _chips(folder: Path, material: Material, model: Model, contract: Contract | None, classes: Sequence[str]) -> Chips:
    """Images of a folder as samples: with labels where its sub-folders are the classes."""
    bands = contract.bands if contract else model.row.input_spec.band_names if model.row else ()
    found = contract.numbers if contract else numbers(material.files, bands)
    tile = contract.tile if contract else model.row.input_spec.tile if model.row else 0
    own = classes if set(classes) == set(folder_classes(folder, material.files)) else ()
    named = any(band_names(material.files[0]))
    return Chips(folder, tile, found, tuple(own), () if named else tuple(bands))


def _described(asking: _Asking, given: Answers, material: Material, model: Model) -> tuple[Contract, tuple[str, ...]]:
    """The band contract and the classes of another library's network, which says neither itself."""
    bands = asking(
        given.bands, "Bands in the model's order", _own_bands(material, model),
        lambda text: _bands(text, material, model), "--bands",
    )  # fmt: skip
    contract = _contract(material, model, bands)
    classes = asking(
        given.classes, "Classes, in the order of its outputs", _default_classes(material, model),
        lambda text: _classes(text, model), "--classes",
    )  # fmt: skip
    return contract, classes


class _Asking:
    """Asks, checks at once, and asks again; without someone to ask it takes the default, and says which option is missing."""

    def __init__(self, interactive: bool) -> None:
        self.interactive = interactive

    def __call__(
        self, given: str | None, question: str, default: str | None, check: Callable[[str], T], option: str = ""
    ) -> T:
        if given is not None:
            return check(given)
        if not self.interactive:
            if default is None:
                raise RequestError(f"{question}: there is no default here; give {option}")
            return check(default)
        while True:
            answer = str(typer.prompt(question, default=default, err=True))
            try:
                return check(answer)
            except (RequestError, MissingCapability) as error:
                typer.echo(f"  {error}", err=True)


def write_recipe(path: Path, start: Start) -> Path:
    """Writes the recipe.

    Raises:
        RequestError: the file exists already, the answers make no valid recipe, or the weights are another network's (nothing is
            left behind).
    """
    check_outputs([path], replace=False)
    write_bytes(path, recipe_text(start, path.parent).encode(), replace=False)
    try:
        _check_weights(check_document(read_document(path)).teacher)
    except (RequestError, IntegrityError):
        path.unlink()
        raise
    return path


def _check_weights(section: TeacherSection) -> None:
    """Loads a network of another library, whose layout nothing else tells; the zoo's were held against their rows when asked for.

    Raises:
        RequestError, IntegrityError: its weights do not fit.
    """
    if not section.is_outside or section.checkpoint is None:
        return
    from rsedge.stages.teacher_model import recipe_teacher

    try:
        recipe_teacher(section)
    except MissingCapability as error:
        typer.echo(f"not checked whether {section.checkpoint} fits '{section.name}': {error}", err=True)


def _model(text: str) -> Model:
    loader, colon, name = text.partition(":")
    if colon and loader in LOADER_NAMES:
        return _outside(loader, name, text)
    path = user_path(text)
    if not path.is_file():
        known = [row.name for row in zoo()]
        if text not in known:
            raise RequestError(
                f"teacher '{text}' is unknown{nearest(text, known)}: neither a file, nor a name that `rsedge teachers` lists, nor "
                f"LOADER:NAME ({', '.join(f'{loader}:' for loader in LOADER_NAMES)})"
            )
        return _of_zoo(text)
    from rsedge.cli.kinds import GROUND_KINDS

    kind = kind_of(path, (*KINDS, *GROUND_KINDS)).name
    if kind == "ONNX":
        return _outside("onnx", str(path), f"onnx:{path}")
    if kind not in ("PyTorch checkpoint", "safetensors", "Keras weights"):
        raise RequestError(f"{path}: a file of kind {kind}; a teacher is an ONNX file, a checkpoint or a name")
    from rsedge.models.teachers import sniff

    try:
        found = sniff(path)
    except RequestError as error:
        raise RequestError(
            f"{error}. Weights of another library's network go with its name: --teacher LOADER:NAME --checkpoint {path}"
        ) from error
    if len(found) > 1:
        raise RequestError(
            f"{path}: fits the teachers {', '.join(found)}; name the one it is: --teacher {found[0]} --checkpoint {path}"
        )
    return _of_zoo(found[0], path)


def _of_zoo(name: str, checkpoint: Path | None = None) -> Model:
    row = teacher_row(name)
    if checkpoint is not None:
        from rsedge.models.teachers import row_of_file

        row = row_of_file(row, checkpoint)
    if row.input is None or row.task not in TASKS:
        raise RequestError(
            f"teacher '{name}' is for {row.task}; write its recipe by hand (docs/{GUIDES.get(row.task, '')})"
        )
    return Model(
        name,
        row,
        checkpoint,
        wants_checkpoint=row.weights is None and checkpoint is None,
        maps=row.task == "segmentation",
    )


def _outside(loader: str, name: str, text: str) -> Model:
    if loader != "onnx":
        wants = loader not in FILE_LOADERS
        return Model(text, wants_checkpoint=wants, maps=loader in DENSE)
    file = user_path(name.partition("#")[0])
    record = describe(file)
    images = [v for v in record["inputs"] if len(v["shape"]) == 4]
    outputs = [v for v in record["outputs"] if len(v["shape"]) in (2, 4)]
    if len(images) != 1 or not outputs:
        raise RequestError(f"{file}: not one image (N, C, H, W) in and (N, K, H, W) or (N, K) out (docs/outside.md)")
    whole = [size if isinstance(size, int) else None for size in (*images[0]["shape"][1:3], outputs[0]["shape"][1])]
    return Model(
        f"onnx:{file}" if "#" not in name else text, channels=whole[0], tile=whole[1], outputs=whole[2],
        maps=len(outputs[0]["shape"]) == 4,
    )  # fmt: skip


def _weights(text: str, model: Model) -> Path:
    path = user_path(text)
    if model.name.partition(":")[0] in FILE_LOADERS:
        raise RequestError(f"'{model.name}' brings its own weights; leave --checkpoint out")
    if not path.exists():
        raise RequestError(f"{path}: no such file")
    if model.row is not None:
        from rsedge.models.teachers import check_fits

        check_fits(model.row, path)
    return path


def _material(text: str, model: Model) -> Material:
    """Data, and whether they are such as the teacher takes."""
    words = _listed(text)
    if not words:
        raise RequestError("data: name a folder, files or sources")
    if model.task != "segmentation" and model.layout == "CHW" and len(words) == 1 and user_path(words[0]).is_dir():
        return _images(user_path(words[0]), model)
    if len(words) == 1 and (words[0] in SAMPLE_SOURCES or words[0].endswith(TABLES)):
        if model.task == "segmentation" and model.layout == "CHW":
            raise RequestError(f"data: '{words[0]}' is a set of samples, '{model.name}' maps scenes: name those")
        if model.row is None:
            raise RequestError(
                f"data: bands of '{model.name}' are read from files; write its recipe by hand (docs/outside.md)"
            )
        return Material(samples=words[0])
    if model.task != "segmentation" or model.layout != "CHW":
        sets = ", ".join(SAMPLE_SETS)
        raise RequestError(
            f"data: '{model.name}' gives an answer per sample ({model.task}); name a folder of images, a set of samples: {sets}, "
            "torchgeo:..., or a table (`rsedge sources`)"
        )
    scenes: list[str | Path] = []
    labels: dict[Path, Path] = {}
    for word in words:
        path = user_path(word)
        if path.is_dir():
            found = find_scenes(path)
            scenes += found.scenes
            labels |= found.labels
        elif path.is_file():
            band_names(path)
            scenes.append(path)
        elif word in SCENES or word.startswith("torchgeo:"):
            scenes.append(word)
        else:
            raise RequestError(
                f"data: '{word}' is no folder, file or scene that `rsedge sources` lists{nearest(word, list(SCENES))}"
            )
    if model.row is None and not any(isinstance(scene, Path) for scene in scenes):
        raise RequestError(
            f"data: the bands of '{model.name}' are read from a file; name a GeoTIFF or a folder of them"
        )
    # One with labels judges, where there is one.
    scenes.sort(key=lambda scene: scene in labels)
    return Material(tuple(scenes), labels)


def _images(folder: Path, model: Model) -> Material:
    files = chip_files(folder)
    if labels := next((path for path in files if is_label(path, folder)), None):
        raise RequestError(
            f"data: '{model.name}' gives an answer per image, and {labels} is a label raster by its name; name a folder of "
            "images alone"
        )
    band_names(files[0])
    return Material(tuple(files), chips=folder)


def _fitting_set(model: Model) -> str | None:
    return next((n for n, s in SAMPLE_SETS.items() if s.layout == model.layout and s.task == model.task), None)


def _own_bands(material: Material, model: Model) -> str | None:
    """All bands of the first file, where it names them and they are as many as the model takes."""
    names = band_names(material.files[0])
    return ", ".join(names) if all(names) and model.channels in (None, len(names)) else None


def _bands(text: str, material: Material, model: Model) -> tuple[str, ...]:
    bands = _listed(text)
    if model.channels not in (None, len(bands)):
        raise RequestError(f"bands: '{model.name}' takes {model.channels}, these are {len(bands)}")
    if len(set(bands)) < len(bands):
        raise RequestError("bands: a name stands there twice")
    sensor = sensor_of(material.files[0], bands)
    for path in material.files:
        band_indices(path, bands, sensor)
    return bands


def _contract(material: Material, model: Model, bands: tuple[str, ...]) -> Contract:
    tile = model.tile or max(32, min(256, edge(material.files) // 32 * 32))
    sensor = sensor_of(material.files[0], bands)
    return Contract(bands, tile, numbers(material.files, bands, sensor), sensor)


def _default_classes(material: Material, model: Model) -> str | None:
    if model.outputs == 1:
        return "background, object"
    if material.chips and (folders := folder_classes(material.chips, material.files)):
        return ", ".join(folders)
    labels = next(iter(material.labels.values()), None)
    count = model.outputs or (len([v for v in label_values(labels) if v != UNLABELLED]) if labels else None)
    return ", ".join(f"class{number}" for number in range(count)) if count else None


def _classes(text: str, model: Model) -> tuple[str, ...]:
    names = _listed(text)
    wanted = {None: (len(names),), 1: (1, 2)}.get(model.outputs, (model.outputs,))
    if not names or len(names) not in wanted:
        raise RequestError(
            f"classes: '{model.name}' has {model.outputs or 'some'} outputs, these are {len(names)} names"
        )
    if len(set(names)) < len(names):
        raise RequestError("classes: a name stands there twice")
    return names


def _label_map(labels: Path, classes: Sequence[str]) -> dict[int, str]:
    """What the values of labels are; nothing where they are class numbers already.

    Raises:
        RequestError: they are of another number than the classes.
    """
    values = label_values(labels)
    names = tuple(classes) if len(classes) > 1 else ("background", *classes)
    if {v for v in values if v != UNLABELLED} <= set(range(len(names))) and not (
        UNLABELLED in values and len(values) == 2
    ):
        return {}
    if len(values) != len(names):
        listed = ", ".join(map(str, values[:12]))
        raise RequestError(
            f"{labels}: holds the values {listed}, but there are {len(names)} classes ({', '.join(names)}): name as many with "
            "--classes, or write data.test.labels.map by hand"
        )
    return dict(zip(values, names, strict=True))


def _fits(entry: StudentEntry, model: Model) -> bool:
    return model.task in entry.tasks and model.layout in entry.layouts and not entry.copies and not entry.needs


def _listing(fitting: Sequence[StudentEntry]) -> str:
    return (
        "Student (name or number)\n"
        + "\n".join(f"  {n}. {e.name}: {e.about}" for n, e in enumerate(fitting, 1))
        + "\n "
    )


def _student(text: str, fitting: Sequence[StudentEntry]) -> str:
    names = [entry.name for entry in fitting]
    if text.isdigit() and 0 < int(text) <= len(names):
        return names[int(text) - 1]
    if text not in names:
        raise RequestError(f"student '{text}' is none for this{nearest(text, names)}; there are {', '.join(names)}")
    return text


def _targets(text: str) -> tuple[str, ...]:
    targets = _listed(text)
    if not targets:
        raise RequestError("targets: name at least one, such as openvino-cpu-int8")
    for target in targets:
        check_target(target)
    return targets


def _listed(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())
