"""The table of teachers, as data: one YAML file per family in ``models/rows``, checked here. Imports no torch.

A row says what a published model is (architecture arguments, exact parameter count), what it takes (band contract), how its
authors' checkpoint is laid out, and under which licence. ``models/families/<family>.py`` builds it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources, util
from importlib.resources.abc import Traversable
from typing import Any, Literal, get_args

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from rsedge.data.band_names import WAVELENGTHS_NM
from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.document_check import nearest
from rsedge.data.errors import RequestError
from rsedge.data.record import Record, validated
from rsedge.data.sampler import Sampler
from rsedge.models.keymap import KeyMap
from rsedge.models.plugins import row_files

Task = Literal[
    "segmentation", "classification", "embedding", "regression", "detection", "instances", "generation", "captioning",
    "super-resolution", "features",
]  # fmt: skip
Published = Literal["weights", "code", "description"]
PIPELINE_TASKS: tuple[Task, ...] = (
    "segmentation", "classification", "embedding", "regression", "detection", "captioning", "super-resolution", "features",
)  # fmt: skip
"""Tasks that `rsedge run` knows."""

LOADER_NAMES = {
    "timm": "a timm model, e.g. `timm:vit_small_patch16_224`",
    "torchvision": "a torchvision classifier, e.g. `torchvision:swin_v2_b`",
    "torchgeo": "`resnet*`, `vit*`, `swin*`, DOFA, CROMA, Scale-MAE, Panopticon, Copernicus-FM; of two dates `fcsiamdiff/ENCODER`, "
    "`fcsiamconc/ENCODER`",
    "terratorch": "`finetuned`, or a backbone (Prithvi, TerraMind, Clay); in Python 3.12",
    "smp": "architecture/encoder of segmentation_models_pytorch, e.g. `smp:unet/resnet34`",
    "transformers": "a folder that `save_pretrained` wrote",
    "onnx": "an ONNX file as a black box",
}
"""Loaders of other libraries' networks (:mod:`rsedge.models.outside.loading`), and what stands behind the colon."""
FILE_LOADERS = ("onnx", "transformers")
"""Loaders of :mod:`rsedge.models.outside.loading` whose name is a file or folder, which brings its own weights."""
MEMORY = "python"
"""What stands before the colon where a network is a module in memory, handed to a call in Python."""
STUDENT = "student"
"""What stands before the colon where a network is a student of the catalogue: fitted on labels, or one that a run left."""
OUTPUT_MARK = "#"
"""Between an ONNX file's name and the output to take, where it has several: ``onnx:model.onnx#logits``; between the name of any
other teacher and the feature to take in place of its output: ``ukis-csmask-6b-l1c#net.encoder[4]``."""


def named_feature(name: str) -> tuple[str, str | None]:
    """A teacher's name without the feature to take of it, and that feature; None where its output is taken."""
    network, mark, feature = name.partition(OUTPUT_MARK)
    return (name, None) if not mark or network.partition(":")[0] in FILE_LOADERS else (network, feature)


_STATUS: dict[Published, str] = {
    "weights": "own copy",
    "code": "code only",
    "description": "described",
}
BAND_COLUMNS = (
    "wavelength_nm",
    "scale",
    "offset",
    "nodata",
    "valid_range",
    "stretch",
    "mean",
    "std",
    "gsd_m",
    "sensor",
)
"""Fields of bands that a contract may hold beside their names: one value for all, or one per band."""


class Packaged(Record):
    """Weights that a wheel brings: the module, the file in it and the extra of ours that installs it."""

    module: str
    file: str
    extra: str


class Preparation(Record):
    """What the authors do before the band contract and behind the network, which no number of the contract holds.

    Attributes:
        resize: how an image gets the tile's size when it is evaluated; None where no source says it, or where no image goes in.
        output: what of the network is taken.
        source: where in their code that stands.
    """

    resize: str | None = None
    output: str
    source: str


class TeacherRow(Record):
    """One teacher: ``load_teacher(name).spec``.

    Attributes:
        title: the published name.
        family: module of ``models/families`` that builds it; of another package's own family its full name.
        params: every parameter of the network as built (encoder, without a head unless the task needs one).
        input: the authors' input as a band contract; None where the model takes no bands.
        prepared: how its authors prepare an image and what they take of the network.
        unprepared: why that is not said.
        arch: keyword arguments of the family's ``build``.
        finer: how many times finer the grid of an image that it gives is than that of its input.
        stride: pixels of its input that one place of a map of features is wide.
        head: name (after mapping) of the weight whose rows count the classes: a checkpoint that has it gives a classifier.
        checkpoint: the layout of the authors' file.
        weights: a wheel that brings them; None where the user gives a checkpoint.
        published: what its authors released: weights, code without weights, or a description.
        sampler: of a denoiser, how its authors' inference samples it (but for noise added on the way); None of others.
        notes: mistakes of the survey, what is not verified, quirks.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    title: str
    family: str = Field(pattern=r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$")
    task: Task
    params: int = Field(gt=0)
    input: InputSpec | None
    prepared: Preparation | None = None
    unprepared: str | None = None
    arch: dict[str, Any] = Field(default_factory=dict)
    classes: tuple[str, ...] = ()
    finer: int = Field(default=1, ge=1)
    stride: int = Field(default=1, ge=1)
    head: str | None = None
    taps: tuple[str, ...] = ()
    checkpoint: KeyMap = KeyMap()
    weights: Packaged | None = None
    licence: str
    source: str
    published: Published
    sampler: Sampler | None = None
    notes: tuple[str, ...] = ()

    @field_validator("input", mode="before")
    @classmethod
    def _columns(cls, value: Any) -> Any:
        return from_columns(value) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _one_of_both(self) -> TeacherRow:
        if self.prepared and self.unprepared:
            raise ValueError("unprepared: says why prepared is missing, which it is not; leave one out")
        return self

    @property
    def input_spec(self) -> InputSpec:
        """The band contract.

        Raises:
            RequestError: the model takes no bands.
        """
        if self.input is None:
            raise RequestError(f"teacher '{self.name}' takes no bands, so it has no band contract")
        return self.input

    @property
    def input_text(self) -> str:
        """The input in a few words, e.g. ``6 bands, 256x256``."""
        if self.input is None:
            return "-"
        spec, size = self.input, f"{self.input.tile}x{self.input.tile}"
        bands = f"{spec.channels} band" + "s" * (spec.channels != 1)
        return {
            "CHW": f"{bands}, {size}",
            "TCHW": f"{spec.frames}x{bands}, {size}",
            "TC": f"{spec.frames}x{spec.channels} values",
            "C": ", ".join(spec.band_names) if spec.channels < 4 else f"{spec.channels} values",
        }[spec.layout]

    @property
    def status(self) -> str:
        """Where weights come from: a wheel, the user's own copy of the published file, or nowhere (code or description)."""
        return "in a wheel" if self.weights else _STATUS[self.published]

    def as_dict(self) -> dict[str, Any]:
        """All of the row as JSON-able data; ``input`` in words, ``input_spec`` in full."""
        found = self.model_dump(mode="json")
        return found | {"input": self.input_text, "input_spec": found["input"], "status": self.status}


def from_columns(table: dict[str, Any]) -> dict[str, Any]:
    """A contract written as columns (``bands`` are names, the other band fields one value or one per band) as fields.

    Wavelengths of common-name bands are filled in.

    Raises:
        ValueError: bands that are no list, unknown fields, another number of values than bands, or a scale (mean, std) of some
            bands only: the others would be taken at 1 (0, 1) without a word.
    """
    names: Any = table.get("bands")
    named = _list_of(str, names)
    if not named and not _list_of(dict, names):
        raise ValueError(f"bands: needed is a list of names in the model's order, such as [red, nir], not {names!r}")
    _check_fields(table, InputSpec, BAND_COLUMNS if named else ())
    if not named:
        _check_whole(table["bands"])
        return table
    rest = {key: value for key, value in table.items() if key != "bands"}
    columns = {key: rest.pop(key) for key in BAND_COLUMNS if key in rest}
    bands: list[dict[str, Any]] = [
        {"name": n, **({"wavelength_nm": WAVELENGTHS_NM[n]} if n in WAVELENGTHS_NM else {})} for n in names
    ]
    for key, column in columns.items():
        pairs = key in ("stretch", "valid_range")
        one = not isinstance(column, list) or (pairs and bool(column) and not isinstance(column[0], list))
        values = [column] * len(names) if one else column
        if len(values) != len(names):
            raise ValueError(f"{key}: {len(values)} values for {len(names)} bands")
        for band, value in zip(bands, values, strict=True):
            band[key] = value
    return rest | {"bands": bands}


def _list_of(kind: type, value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, kind) for one in value)


def _check_fields(table: dict[str, Any], of: type[Record], more: Iterable[str] = ()) -> None:
    known = [*of.model_fields, *more]
    for name in table:
        if name not in known:
            raise ValueError(f"{name}: unknown field{nearest(str(name), known)}; valid: {', '.join(known)}")


def _check_whole(bands: list[dict[str, Any]]) -> None:
    for band in bands:
        _check_fields(band, BandSpec)
    for key in ("scale", "mean", "std"):
        without = [str(b.get("name")) for b in bands if key not in b]
        if 0 < len(without) < len(bands):
            raise ValueError(f"bands: some have a {key}, but {', '.join(without)} have none; give every band its {key}")


@cache
def _read() -> tuple[TeacherRow, ...]:
    folder = resources.files("rsedge.models") / "rows"
    ours = sorted((p for p in folder.iterdir() if p.name.endswith(".yaml")), key=lambda p: p.name)
    rows = [row for path in ours for row in _rows_of(path)]
    seen = {row.name: "rsedge" for row in rows}
    for package, path in row_files():
        try:
            theirs = _rows_of(path, package)
        except (ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
            raise RequestError(f"teachers' package '{package}', {path.name}: {error}") from error
        for row in theirs:
            if row.name in seen:
                raise RequestError(
                    f"teachers' package '{package}', {path.name}: '{row.name}' is the name of a teacher of {seen[row.name]} already"
                )
            seen[row.name] = package
        rows += theirs
    return tuple(rows)


def _rows_of(path: Traversable, package: str | None = None) -> list[TeacherRow]:
    """The rows of a file; families of another ``package`` by their full names, where it has a module of that name."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    shared = {key: value for key, value in content.items() if key != "rows"}
    rows = []
    for entry in content["rows"]:
        try:
            row = TeacherRow.model_validate(_merge(shared, entry))
            own = f"{package}.{row.family}"
            rows.append(row.model_copy(update={"family": own}) if package and util.find_spec(own) else row)
        except ValidationError as error:
            raise ValueError(f"{path.name}: {entry.get('name')}: {error}") from error
    return rows


def _merge(shared: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    """What a file says of all its rows under what the row says; mappings are laid over each other one level deep."""
    merged = dict(shared)
    for key, value in entry.items():
        both = isinstance(value, dict) and isinstance(shared.get(key), dict)
        merged[key] = {**shared[key], **value} if both else value
    return merged


_registered: dict[str, tuple[TeacherRow, ...]] = {}
"""Rows of families that the program registered, by family."""


def register_rows(family: str, rows: Iterable[TeacherRow | Mapping[str, Any]]) -> None:
    """Adds the rows of a family for this process; :func:`rsedge.models.families.register_family` calls it.

    Raises:
        RequestError: a row is wrong, is of another family, or its name is taken.
    """
    made: dict[str, TeacherRow] = {}
    taken = {row.name for row in zoo()}
    for number, given in enumerate(rows):
        where = f"register_family: '{family}', rows[{number}]"
        row = given if isinstance(given, TeacherRow) else validated(TeacherRow, {"family": family, **given}, where)
        if row.family != family:
            raise RequestError(f"{where}: family is '{row.family}'; leave it out")
        if row.name in taken or row.name in made:
            raise RequestError(f"{where}: '{row.name}' is the name of a teacher already; give yours another name")
        made[row.name] = row
    _registered[family] = tuple(made.values())


def unregister_rows(family: str) -> None:
    """Takes away what :func:`register_rows` added."""
    _registered.pop(family, None)


def zoo() -> list[TeacherRow]:
    """All rows, the files in the order of their names, then those that the program registered."""
    return [*_read(), *(row for rows in _registered.values() for row in rows)]


def teacher_row(name: str) -> TeacherRow:
    """One row.

    Raises:
        RequestError: unknown; names the nearest.
    """
    rows = {row.name: row for row in zoo()}
    if name not in rows:
        near = difflib.get_close_matches(name, rows, n=3, cutoff=0.4)
        hint = f" (nearest: {', '.join(near)})" if near else ""
        raise RequestError(f"teacher '{name}' is unknown{hint}; `rsedge teachers` lists all")
    return rows[name]


assert set(_STATUS) == set(get_args(Published))
