"""Which option which work heeds: one that would change nothing is refused, so that nobody believes it did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import typer

from rsedge.data.errors import RequestError
from rsedge.runtimes.inference.works import HEEDED, WORK_WORDS, WORKS, Work

if TYPE_CHECKING:
    from rsedge.runtimes.bundle.reading import Bundle

Engine = Literal[
    "openvino-cpu", "openvino-blob", "openvino-device", "myriad", "myriad-cpu", "onnxruntime", "litert", "tensorrt"
]  # fmt: skip
ENGINES: tuple[Engine, ...] = get_args(Engine)

_ENGINE_WORDS: dict[Engine, str] = {
    "openvino-cpu": "OpenVINO on the CPU",
    "openvino-blob": "OpenVINO on a model that is compiled already",
    "openvino-device": "OpenVINO on a device of its own",
    "myriad": "OpenVINO 2022.3 on the VPU",
    "myriad-cpu": "OpenVINO 2022.3 on the CPU",
    "onnxruntime": "ONNX Runtime",
    "litert": "LiteRT",
    "tensorrt": "TensorRT",
}
_OPENVINO: tuple[Engine, ...] = ("openvino-cpu", "openvino-blob", "openvino-device")


@dataclass(frozen=True)
class Heed:
    """The works and the engines for which an option does something."""

    works: tuple[Work, ...] = WORKS
    engines: tuple[Engine, ...] = ENGINES


_ENGINES: dict[str, tuple[Engine, ...]] = {
    "threads": ("openvino-cpu", "openvino-blob", "myriad-cpu", "onnxruntime", "litert"),
    "hint": _OPENVINO,
}
HEED: dict[str, Heed] = {
    "ignore": Heed(("maps", "dates")),
    "label_map": Heed(("maps", "dates")),
    **{n: Heed(HEEDED.get(n, WORKS), _ENGINES.get(n, ENGINES)) for n in (*HEEDED, "threads", "self_test")},
}
"""By the command's parameter; what is not here is heeded always."""


def engine_of(bundle: Bundle, device: str | None = None) -> Engine:
    """What executes a bundle, on its own device or on another of its runtime."""
    from rsedge.runtimes.bundle.reading import runtime_device

    target = bundle.manifest.target
    if target.runtime != "openvino":
        return target.runtime
    own = runtime_device(target.runtime, target.device)
    on_cpu = (device or own).upper() == "CPU"
    if own == "MYRIAD":
        return "myriad-cpu" if on_cpu else "myriad"
    if bundle.blob(device) is not None:
        return "openvino-blob"
    return "openvino-cpu" if on_cpu else "openvino-device"


def refuse_unheeded(
    context: typer.Context, bundle: Bundle, work: Work | None = None, device: str | None = None
) -> None:
    """Refuses options on the command line that would be ignored.

    Args:
        work: None where the command does the same with every bundle, whatever it is for.

    Raises:
        RequestError: names the options, for what they are, and what this bundle is for.
    """
    given, engine = given_options(context), engine_of(bundle, device)
    if work is not None and (idle := [n for n in given if n in HEED and work not in HEED[n].works]):
        heeded = _listed([WORK_WORDS[w] for w in HEED[idle[0]].works])
        raise RequestError(
            f"{bundle.path}: {_options(idle)} would be ignored: {_options(idle[:1])} is for {heeded}, and this gives "
            f"{WORK_WORDS[work]}; leave {_it(idle)} out"
        )
    if idle := [n for n in given if n in HEED and engine not in HEED[n].engines]:
        heeded = _listed([_ENGINE_WORDS[e] for e in HEED[idle[0]].engines])
        raise RequestError(
            f"{bundle.path}: {_options(idle)} would be ignored: {_options(idle[:1])} is for {heeded}, and this bundle "
            f"runs with {_ENGINE_WORDS[engine]}; leave {_it(idle)} out"
        )


def refuse_without(context: typer.Context, names: Sequence[str], needed: str) -> None:
    """Refuses options that do something only together with another, which is not given.

    Raises:
        RequestError: names both.
    """
    if idle := [n for n in given_options(context) if n in names]:
        raise RequestError(f"{_options(idle)} would be ignored without {needed}: give it, or leave {_it(idle)} out")


def given_options(context: typer.Context) -> list[str]:
    """Parameters that stand on the command line, a default's value among them where it is written out."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]


def _options(names: Sequence[str]) -> str:
    return _listed(["--" + name.replace("_", "-") for name in names])


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + (" and " if len(words) > 1 else "") + words[-1]


def _it(names: Sequence[str]) -> str:
    return "it" if len(names) == 1 else "them"
