"""The catalogue of students: what each is for, read without torch; builders are imported when one is built.

Networks that give a vector serve classes, several labels (a sigmoid per output), embeddings and numbers alike: the loss and
the reading of the outputs differ, not the network. Change detection is segmentation of two frames.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from rsedge.data.bands import InputSpec, Layout
from rsedge.data.document_check import nearest
from rsedge.data.errors import RequestError
from rsedge.models.zoo import MEMORY

if TYPE_CHECKING:
    from torch import nn

StudentTask = Literal[
    "segmentation", "classification", "embedding", "regression", "detection", "captioning", "super-resolution", "features"
]  # fmt: skip
Argument = Literal["bands", "classes", "frames", "tile", "missing", "angles", "finer", "oriented", "stride"]
VECTOR: tuple[StudentTask, ...] = ("classification", "embedding", "regression")
ANGLES: Mapping[str, float] = {"month": 12.0, "latitude": 360.0, "longitude": 360.0}
"""Columns that go round, and how much of them is one turn."""


@dataclass(frozen=True)
class StudentEntry:
    """One student.

    Attributes:
        layouts: of the input, batch axis left out.
        builder: ``module.function`` under ``rsedge.models.students``; keyword arguments -> a fresh network.
        arguments: what the builder takes of the teacher's contract (:func:`contract_arguments`).
        fixed: further arguments of the builder that make it this student; a recipe's options are laid over them.
        prunes: whether channel groups (hidden units, for attention) can be removed.
        multiple: edges of image tiles are a multiple of this many pixels, with the builder's defaults.
        needs: options that a recipe must give.
        copies: whether it is built and started from the teacher itself (:mod:`.narrow`), not from the contract.
    """

    name: str
    tasks: tuple[StudentTask, ...]
    layouts: tuple[Layout, ...]
    builder: str
    about: str
    prunes: bool = True
    arguments: tuple[Argument, ...] = ("bands", "classes")
    fixed: Mapping[str, Any] = field(default_factory=dict)
    multiple: int = 1
    needs: tuple[str, ...] = ()
    copies: bool = False


DENSE: tuple[StudentTask, ...] = ("segmentation",)


def _dense(name: str, builder: str, about: str, needs: tuple[str, ...] = (), **fixed: Any) -> StudentEntry:
    return StudentEntry(name, DENSE, ("CHW",), builder, about, fixed=fixed, multiple=32, needs=needs)


def _image(name: str, model: str, about: str) -> StudentEntry:
    return StudentEntry(name, VECTOR, ("CHW",), "images.vector", about, fixed={"model": model})


def _patches(name: str, model: str, about: str) -> StudentEntry:
    takes: tuple[Argument, ...] = ("bands", "classes", "tile")
    return StudentEntry(
        name, VECTOR, ("CHW",), "images.patches", about, arguments=takes, fixed={"model": model}, multiple=16
    )


def _series(name: str, builder: str, about: str) -> StudentEntry:
    takes: tuple[Argument, ...] = ("bands", "classes", "frames", "missing", "angles")
    return StudentEntry(name, VECTOR, ("TC",), f"series.{builder}", about, arguments=takes)


_ENTRIES: tuple[StudentEntry, ...] = (
    _dense("slim-unet", "slim_unet.SlimUNet", "U-Net of plain 3x3 convolutions, for integer kernels"),
    _dense("smp-unet", "smp.unet", "smp's U-Net over the timm encoder that `encoder` names", needs=("encoder",)),
    _dense(
        "unet-mobilenetv4", "smp.unet", "smp's U-Net over MobileNetV4 small",
        encoder="tu-mobilenetv4_conv_small", decoder=(64, 48, 32, 24, 16),
    ),
    _dense(
        "unet-resnet18", "smp.unet", "smp's U-Net over ResNet-18", encoder="resnet18", decoder=(128, 64, 48, 32, 16),
    ),
    _dense(
        "fpn-efficientnet-lite0", "smp.fpn", "smp's feature pyramid over EfficientNet-lite0",
        encoder="tu-tf_efficientnet_lite0",
    ),
    _dense(
        "deeplab-mobilenetv4", "smp.deeplab", "smp's DeepLabv3+ over MobileNetV4 small",
        encoder="tu-mobilenetv4_conv_small",
    ),
    StudentEntry(
        "siamese-unet", DENSE, ("TCHW",), "change.SiameseUNet", "change of two dates: slim-unet over feature differences",
        arguments=("bands", "classes", "frames"), multiple=32,
    ),
    StudentEntry(
        "slim-detector", ("detection",), ("CHW",), "detection.SlimDetector",
        "anchor-free boxes over slim-unet features, decoded in the graph; turned ones with boxes.oriented",
        arguments=("bands", "classes", "tile", "oriented"), multiple=32,
    ),
    StudentEntry(
        "slim-upscaler", ("super-resolution",), ("CHW",), "upscaling.SlimUpscaler",
        "finer images: plain 3x3 convolutions and a sub-pixel convolution over interpolation",
        arguments=("bands", "classes", "finer"),
    ),
    StudentEntry(
        "slim-encoder", ("features",), ("CHW",), "encoder.SlimEncoder",
        "maps of features: residual 3x3 convolutions down to the teacher's stride", arguments=("bands", "classes", "stride"),
    ),
    _image("mobilenetv4-small", "mobilenetv4_conv_small", "MobileNetV4 small, convolutions only"),
    _image("mobilenetv4-medium", "mobilenetv4_conv_medium", "MobileNetV4 medium, convolutions only"),
    _image("efficientnet-lite0", "tf_efficientnet_lite0", "EfficientNet-lite0: no squeeze-excite, ReLU6"),
    _image("resnet18", "resnet18", "ResNet-18: plain 3x3 convolutions, fast on integer kernels"),
    _image("repvit-m0.9", "repvit_m0_9", "RepViT M0.9: a CNN in a transformer's layout"),
    _image("fastvit-t8", "fastvit_t8", "FastViT T8: convolutional token mixing"),
    _image("efficientvit-b0", "efficientvit_b0", "EfficientViT B0: linear attention"),
    _image("tinyvit-5m", "tiny_vit_5m_224", "TinyViT 5M: windows of attention after convolutions"),
    _patches("vit-tiny", "vit_tiny_patch16_224", "ViT-Ti/16"),
    _patches("vit-small", "vit_small_patch16_224", "ViT-S/16"),
    _series("series-transformer", "SeriesTransformer", "a token per time; missing values masked, months and places as angles"),
    _series("series-conv", "SeriesConv", "1-D convolutions along time, for integer kernels"),
    StudentEntry(
        "place-mlp", VECTOR, ("C",), "place.PlaceMLP", "latitude and longitude: Fourier features on the sphere and an MLP",
        arguments=("bands", "classes", "angles"),
    ),
    StudentEntry(
        "narrow-copy", (*DENSE, *VECTOR, "captioning"), ("CHW", "TCHW", "TC", "C"), "itself.rebuild",
        "the teacher's own family with smaller arguments (`arch`), started from its strongest channels",
        arguments=(), needs=("arch",), copies=True,
    ),
    StudentEntry(
        "teacher", (*DENSE, *VECTOR, "captioning", "features"), ("CHW", "TCHW", "TC", "C"), "itself.rebuild",
        "the teacher as it is, to be pruned or quantized only", arguments=(), copies=True,
    ),
)  # fmt: skip
CATALOGUE: Mapping[str, StudentEntry] = {entry.name: entry for entry in _ENTRIES}


def student_entry(name: str) -> StudentEntry:
    """One entry.

    Raises:
        RequestError: unknown; names the nearest.
    """
    if name.startswith(f"{MEMORY}:"):
        raise RequestError(f"student '{name}' is a module in memory, which a file cannot hold: hand it over in Python")
    if name not in CATALOGUE:
        known = ", ".join(CATALOGUE)
        raise RequestError(f"student '{name}' is unknown{nearest(name, list(CATALOGUE))}; known: {known}")
    return CATALOGUE[name]


def contract_arguments(
    name: str, spec: InputSpec, outputs: int, finer: int = 1, oriented: bool = False, stride: int = 1
) -> dict[str, Any]:
    """What a student's builder takes of a teacher's contract, JSON-able.

    ``bands``, ``classes`` (number of outputs), ``frames``, ``tile`` (pixels); ``missing``: per band its nodata value as it
    arrives after normalisation, or None; ``angles``: ``[column, gain, offset]`` of months, latitudes and longitudes, where
    ``value * gain + offset`` is in radians; ``finer``: how many times finer the output's grid is than the input's;
    ``oriented``: whether boxes are turned; ``stride``: pixels that one place of a map of features is wide.

    Raises:
        RequestError: unknown student, or it does not take the contract's layout.
    """
    entry = student_entry(name)
    if spec.layout not in entry.layouts:
        fit = [e.name for e in _ENTRIES if spec.layout in e.layouts]
        hint = f"; these do: {', '.join(fit)}" if fit else ""
        taken = " or ".join(entry.layouts)
        raise RequestError(f"student '{name}' takes {taken}, the teacher's input is {spec.layout}{hint}")
    found: dict[Argument, Any] = {
        "bands": spec.channels,
        "classes": outputs,
        "frames": spec.frames,
        "tile": spec.tile,
        "missing": spec.normalised_nodata(),
        "angles": _angles(spec),
        "finer": finer,
        "oriented": oriented,
        "stride": stride,
    }
    return {argument: found[argument] for argument in entry.arguments}


def _angles(spec: InputSpec) -> list[list[float]]:
    """Columns whose normalised value is linear in an angle, in the order of :data:`ANGLES`."""
    found = []
    for name, turn in ANGLES.items():
        if name in spec.band_names and spec.normalisation == "linear":
            column = spec.band_names.index(name)
            band = spec.bands[column]
            found.append([column, 2 * math.pi / turn * band.std, 2 * math.pi / turn * band.mean])
    return found


def student_builder(entry: StudentEntry) -> Callable[..., nn.Module]:
    """What makes a student of keyword arguments: a class or a function."""
    module, _, function = entry.builder.partition(".")
    found: Callable[..., nn.Module] = getattr(importlib.import_module(f"{__name__}.{module}"), function)
    return found


def build_student(factory: str, kwargs: dict[str, Any]) -> nn.Module:
    """A freshly initialised student.

    Raises:
        RequestError: unknown factory, or arguments it does not take.
    """
    entry = student_entry(factory)
    try:
        return student_builder(entry)(**{**entry.fixed, **kwargs})
    except TypeError as error:
        raise RequestError(f"student '{factory}': {error}") from error
