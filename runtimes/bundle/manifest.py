"""The bundle's ``manifest.json``: what is in the bundle, what it takes, what it gives and how it was checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, JsonValue, field_validator, model_validator

from rsedge.data.bands import InputSpec
from rsedge.data.document_check import nearest
from rsedge.data.errors import IntegrityError, RequestError
from rsedge.data.json_text import parse_json
from rsedge.data.metrics.verdict import Verdict
from rsedge.data.moments import MaybeDateTime
from rsedge.data.printable import commanding, printable
from rsedge.data.record import Record, validated
from rsedge.data.zip_bounds import check_member_name
from rsedge.runtimes.backend import RuntimeBackend
from rsedge.runtimes.bundle.language_files import GOLDEN_ANSWER, IMAGE_TOKEN, LANGUAGE
from rsedge.runtimes.precision import PRECISIONS, PrecisionName
from rsedge.runtimes.registry import RuntimeName, backend_for, runtime_names

MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
PUBLIC_KEY = "signing.pub"
UNLISTED = frozenset({MANIFEST, SIGNATURE, PUBLIC_KEY})
"""What the manifest cannot list."""
BUILT_HERE = {"model.engine", "engine.json", "timing.cache", "timing.json", "model.blob", "blob.json"}
"""What earlier releases built into the bundle's folder."""
SCHEMA_VERSION: Literal[1] = 1
NODATA_CLASS = 255
MAX_TOKENS, MAX_LETTERS = 4096, 8192
"""Of a caption, and of what is asked: a model that never ends its text, or is asked a book, would run for hours."""


class Target(Record):
    """Where a bundle runs: ``<runtime>-<device>-<precision>``, e.g. ``tensorrt-jetson-orin-nano-8gb-fp16``."""

    name: str
    runtime: RuntimeName
    device: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    precision: PrecisionName

    @classmethod
    def parse(cls, name: str) -> Target:
        """Splits a target name into its three parts.

        Raises:
            RequestError: the name does not have them; says which runtimes and precisions exist.
        """
        runtime, _, rest = name.partition("-")
        device, _, precision = rest.rpartition("-")
        known = runtime_names()
        if runtime not in known or precision not in PRECISIONS or not device:
            near = "" if runtime in known else nearest(runtime, known)
            raise RequestError(
                f"target '{name}' is not <runtime>-<device>-<precision>, e.g. openvino-cpu-int8{near} "
                f"(runtimes: {', '.join(known)}; precisions: {', '.join(PRECISIONS)}; devices: rsedge devices)"
            )
        return validated(cls, {"name": name, "runtime": runtime, "device": device, "precision": precision}, name)

    @property
    def backend(self) -> RuntimeBackend:
        """The runtime of its device.

        Raises:
            MissingCapability: the package that brings it is broken.
        """
        return backend_for(self.runtime, self.device)

    @property
    def quantized(self) -> bool:
        """Whether it runs the student's quantized graph."""
        return PRECISIONS[self.precision].quantized

    @model_validator(mode="after")
    def _name_agrees(self) -> Target:
        if self.name != f"{self.runtime}-{self.device}-{self.precision}":
            raise ValueError(f"name '{self.name}' disagrees with {self.runtime}, {self.device}, {self.precision}")
        return self


class FileEntry(Record):
    """Content of one file of the bundle."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class Golden(Record):
    """The stored input and output that the executable must reproduce on the device."""

    file: str = Field("golden.npz", description="npz with arrays dn, logits and valid")
    atol: float = Field(ge=0, description="largest absolute difference of logits allowed")
    agreement_min: float = Field(0.99, ge=0, le=1, description="least share of valid pixels with the same class")


def checked_template(template: str) -> str:
    """A template that has its image and its prompt.

    Raises:
        ValueError: one of them is missing or there twice.
    """
    if template.count(IMAGE_TOKEN) != 1 or template.count("{prompt}") != 1:
        raise ValueError(f"write {IMAGE_TOKEN} once and {{prompt}} once")
    return template


class LanguageRecord(Record):
    """The language model that reads the tower's image tokens, and how it is asked."""

    folder: str = Field(
        default="language", description="in the bundle; laid out as OpenVINO GenAI's VLMPipeline opens it"
    )
    image_token: int = Field(ge=0, description="stands in the prompt once for every image token")
    ends: tuple[int, ...] = Field(description="tokens that end a text")
    template: str = Field(max_length=MAX_LETTERS, description="<image> and {prompt} are filled in, each once")
    prompt: str = Field(max_length=MAX_LETTERS)
    max_tokens: int = Field(ge=1, le=MAX_TOKENS)
    weights: Literal["f32", "fp16", "int8", "int4"]
    golden_atol: float | None = Field(
        default=None,
        ge=0,
        description=f"how far scores may lie from those in {GOLDEN_ANSWER}; None in bundles made before it was kept",
    )

    @field_validator("template")
    @classmethod
    def _fills_in_once(cls, template: str) -> str:
        return checked_template(template)

    def needed(self) -> tuple[str, ...]:
        """Files that must be listed."""
        names = (LANGUAGE,) if self.golden_atol is None else (LANGUAGE, GOLDEN_ANSWER)
        return tuple(f"{self.folder}/{name}" for name in names)

    def question(self, prompt: str | None, image_tokens: int) -> str:
        """The whole text that the language model gets; ``prompt`` None takes the bundle's own."""
        asked = self.template.replace("{prompt}", self.prompt if prompt is None else prompt)
        return asked.replace(IMAGE_TOKEN, IMAGE_TOKEN * image_tokens)


class BoxSettings(Record):
    """How a detector's candidates become the boxes that are reported (:func:`rsedge.runtimes.inference.boxes.boxes_of`)."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)
    renamed: ClassVar[Mapping[str, str]] = {
        "overlap": "write `nms_iou`",
        "most": "write `max_detections`",
    }

    score: float = Field(default=0.25, gt=0, le=1, description="objectness times class score that a box needs")
    nms_iou: float = Field(
        default=0.45,
        ge=0,
        le=1,
        description="of two boxes of a class whose intersection over union is larger, the less certain one goes",
    )
    max_detections: int = Field(default=300, ge=1, le=10_000, description="boxes per tile at most")
    oriented: bool = Field(
        default=False, description="boxes are turned (ships, aircraft): the student learns their angles"
    )


class TensorRecord(Record):
    """An array that a sample holds, batch axis left out."""

    shape: tuple[int, ...]
    dtype: str = Field(pattern=r"^[a-z]+[0-9]*$")

    @property
    def text(self) -> str:
        """In a few letters, e.g. ``uint8 (N, 3, 64, 64)`` of N samples."""
        return f"{self.dtype} ({', '.join(map(str, ('N', *self.shape)))})"


class PartsRecord(Record):
    """A network of several parts: what runs between them, and the file of each."""

    whole: str = Field(description="a row of rsedge.runtimes.wholes.table")
    settings: dict[str, JsonValue] = Field(default_factory=dict, description="of what runs between the parts")
    files: dict[str, str] = Field(min_length=1, description="part -> model file, in the order in which they run")
    inputs: dict[str, TensorRecord] = Field(description="what one sample of the whole holds, by name")
    limits: dict[str, float] = Field(
        description="output of the whole -> how far it may lie from the golden sample's, at the most"
    )


class Manifest(Record):
    """All that a device needs to know about a bundle; written by ``export``, read by ``runtimes``."""

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str = Field(min_length=1)
    task: str = "segmentation"
    classes: tuple[str, ...] = Field(min_length=1, description="names of the outputs; of class maps 2 to 254")
    boxes: BoxSettings | None = Field(None, description="of detectors: their graph gives candidates, decoded to pixels")
    finer: int | None = Field(None, ge=1, description="of images: how many times finer their grid is than the input's")
    stride: int | None = Field(
        None, ge=1, description="of maps of features: edge, in pixels of the input, of what one place stands for"
    )
    target: Target
    input_spec: InputSpec = Field(description="of sampled pictures that of the picture")
    model_file: str = Field(description="what the runtime opens, e.g. model.xml; of several parts the first one's")
    files: dict[str, FileEntry] = Field(description="every file but manifest.json, manifest.sig and signing.pub")
    golden: Golden
    metrics: dict[str, Any] = Field(default_factory=dict)
    latency: dict[str, Any] | None = None
    tool_versions: dict[str, str] = Field(default_factory=dict)
    build: dict[str, Any] | None = Field(
        None, description="how to build what the device runs: engine (tensorrt), blob (VPU)"
    )
    created: MaybeDateTime = Field("", description="date and time by RFC 3339, UTC; empty where it is not known")
    verdict: Verdict | None = Field(
        None, description="what became of the recipe's gates for this target; None in bundles made before it was kept"
    )
    parts: PartsRecord | None = Field(None, description="of networks of several parts; their golden vector is a sample")
    language: LanguageRecord | None = Field(None, description="captioning: None where the bundle holds the tower alone")
    teacher: str | None = None
    recipe_sha256: str | None = None

    @field_validator("boxes", mode="before")
    @classmethod
    def _names_of_old_bundles(cls, boxes: object) -> object:
        old = {"overlap": "nms_iou", "most": "max_detections"}
        return {old.get(name, name): value for name, value in boxes.items()} if isinstance(boxes, dict) else boxes

    @field_validator("files")
    @classmethod
    def _safe_names(cls, files: dict[str, FileEntry]) -> dict[str, FileEntry]:
        for name in files:
            check_member_name(name)
        return files

    @model_validator(mode="after")
    def _files_are_listed(self) -> Manifest:
        language = () if self.language is None else self.language.needed()
        models = (self.model_file,) if self.parts is None else tuple(self.parts.files.values())
        for name in (self.model_file, *models, self.golden.file, *language):
            if name not in self.files:
                raise ValueError(f"'{name}' is used but not listed under files")
        for name in dict.fromkeys((self.model_file, *models)):
            self._model_fits(name)
        if self.task == "segmentation" and not 2 <= len(self.classes) < NODATA_CLASS:
            raise ValueError(f"classes: a class map has 2 to {NODATA_CLASS - 1} classes, not {len(self.classes)}")
        if (self.task == "detection") != (self.boxes is not None):
            raise ValueError("boxes: detectors, and only they, say how candidates become boxes")
        if (self.task == "super-resolution") != (self.finer is not None):
            raise ValueError("finer: super-resolution, and only it, says how much finer its image is")
        if (self.task == "features") != (self.stride is not None):
            raise ValueError("stride: encoders that give maps of features, and only they, say how coarse these are")
        if self.stride is not None and self.input_spec.tile % self.stride:
            raise ValueError(f"stride: a tile of {self.input_spec.tile} pixels holds no whole number of {self.stride}")
        twice = sorted({c for c in self.classes if self.classes.count(c) > 1})
        if twice:
            raise ValueError(f"class names occur twice: {', '.join(twice)}")
        return self

    def _model_fits(self, name: str) -> None:
        suffixes = self.target.backend.suffixes
        if PurePosixPath(name).suffix not in suffixes:
            raise ValueError(f"model_file: '{name}' is neither {' nor '.join(suffixes)}")
        if name.endswith(".xml") and str(PurePosixPath(name).with_suffix(".bin")) not in self.files:
            raise ValueError(f"the weights of '{name}' are not listed under files")

    def to_bytes(self) -> bytes:
        """The exact content of ``manifest.json``; the signature is over these bytes."""
        return (self.model_dump_json(indent=2) + "\n").encode()

    @classmethod
    def from_bytes(cls, content: bytes, where: str | Path) -> Manifest:
        """Reads ``manifest.json``.

        Raises:
            RequestError: it is no JSON, or a field is missing, unknown or wrong, or holds what a terminal would obey; names
                ``where`` and the field.
        """
        value = parse_json(content, where)
        shown = (
            {name: inner for name, inner in value.items() if name != "language"} if isinstance(value, dict) else value
        )
        if place := next(commanding(shown), None):
            raise RequestError(f"{where}: {printable(place)} holds control characters, by which it could pass for what we say; get "
                               "the bundle again from those who made it")  # fmt: skip
        return validated(cls, value, where)


def unlisted(path: str | Path, names: Iterable[str]) -> IntegrityError:
    """What is said of files in a bundle that its manifest does not list: nobody signed them."""
    extra = sorted(names)
    more = ""
    if built := BUILT_HERE & {PurePosixPath(n).name for n in extra}:
        more = (
            f". What a device builds ({', '.join(sorted(built))}) is not part of a bundle: it lies in the device's own cache, "
            f"signed there; after removing it build it anew: rsedge build {path}"
        )
    shown = ", ".join(extra[:10]) + (f" and {len(extra) - 10} more" if len(extra) > 10 else "")
    return IntegrityError(f"{path}: files that {MANIFEST} does not list: {shown}; remove them{more}")
