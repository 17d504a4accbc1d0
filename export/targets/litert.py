"""torch -> LiteRT: the deployable graph as a ``.tflite`` file with the band contract among its metadata.

``litert-torch`` converts it; layouts become channels-last inside the graph. Digital numbers arrive as float32, which holds those of
16 bits exactly: LiteRT has no arithmetic in uint16.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError, missing_extra
from rsedge.data.files import atomic_path, sha256_file
from rsedge.data.temporary import TemporaryFolder
from rsedge.export.onnx.graph import Deployable
from rsedge.export.onnx.writing import CLASSES_KEY
from rsedge.runtimes.litert.core import open_litert
from rsedge.runtimes.litert.flatbuffer import kind_of, read_model, set_metadata, write_model
from rsedge.runtimes.session import INPUT, LOGITS, SPEC_KEY, VALID

SIGNATURE = "rsedge"
_PROGRESS = "LITERT_TORCH_SHOW_PROGRESS"
PREPARE = "prepare"
_MODULE = re.compile(r"\.[A-Za-z0-9]+_(\w+)$")
"""What a converter's name of a module ends with: ``torch.nn.modules.conv.Conv2d_conv1``."""


@dataclasses.dataclass(frozen=True)
class LiteRtArtefact:
    """A LiteRT model as written."""

    path: Path
    sha256: str
    size_bytes: int


def export_litert(graph: Deployable, path: str | Path, input_spec: InputSpec, classes: Sequence[str]) -> LiteRtArtefact:
    """Converts a deployable graph; the file appears whole or not at all.

    Raises:
        RequestError: the network has an operation that LiteRT has not.
        MissingCapability: litert-torch is not installed, or the disk is full.
    """
    model = read_model(_converted(graph, str(path)))
    _name(model)
    about = {SPEC_KEY: input_spec.model_dump_json(), CLASSES_KEY: json.dumps(list(classes), ensure_ascii=False)}
    set_metadata(model, {name: text.encode() for name, text in about.items()})
    return save_litert(write_model(model), path)


def save_litert(content: bytes, path: str | Path) -> LiteRtArtefact:
    """Writes a model."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return LiteRtArtefact(Path(path), sha256_file(path), len(content))


def read_litert_metadata(path: str | Path) -> tuple[InputSpec, tuple[str, ...]]:
    """Band contract and class names of a model written here.

    Raises:
        RequestError: it carries none, or is no LiteRT model.
    """
    stored = open_litert(Path(path), threads=1).metadata
    if SPEC_KEY not in stored or CLASSES_KEY not in stored:
        raise RequestError(f"{path}: no band contract in its metadata, so rsedge did not write it")
    return InputSpec.model_validate_json(stored[SPEC_KEY]), tuple(json.loads(stored[CLASSES_KEY]))


def _litert_torch(what: str) -> Any:
    try:
        with _quiet():
            import litert_torch
    except ModuleNotFoundError as error:
        raise missing_extra(error.name or "litert_torch", "litert-convert", what) from error
    return litert_torch


def _converted(graph: Deployable, what: str) -> bytes:
    litert_torch = _litert_torch(what)
    sample = torch.zeros(1, *graph.spec.shape)
    try:
        with _quiet():
            made = litert_torch.signature(SIGNATURE, graph, (sample,)).convert()
            with TemporaryFolder() as folder:
                made.export(str(folder / "model.tflite"))
                return (folder / "model.tflite").read_bytes()
    except (RuntimeError, ValueError, TypeError, KeyError, NotImplementedError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise RequestError(f"{what}: the network cannot be converted to LiteRT: {lines[0]}") from error


def _name(model: Any) -> None:
    """Names inputs and outputs as the contract does, and every tensor by module path and operation, each name once."""
    graph = model.subgraphs[0]
    (signature,) = model.signatureDefs
    for entries, wanted in ((signature.inputs, (INPUT,)), (signature.outputs, (LOGITS, VALID))):
        for entry, name in zip(entries, wanted, strict=True):
            entry.name = name.encode()
    names = [f"constant/{number}" for number in range(len(graph.tensors))]
    for number in graph.inputs:
        names[number] = INPUT
    used: set[str] = set()
    for operator in graph.operators:
        scope = _scope(graph.tensors[operator.outputs[0]].name.decode("utf-8", "replace"))
        for number in operator.outputs:
            names[number] = _unique(f"{scope}/{kind_of(model, operator)}", used)
    for tensor, name in zip(graph.tensors, names, strict=True):
        tensor.name = name.encode()


def _scope(text: str) -> str:
    """Module path in a tensor's name as the converter gives it; ``prepare`` outside the network."""
    last = next((one for one in reversed(text.split(";")) if "/" in one), "")
    found = [match[1] for part in last.split("/") if (match := _MODULE.search(part))]
    return "/".join(found) or PREPARE


def _unique(name: str, used: set[str]) -> str:
    number, candidate = 0, name
    while candidate in used:
        number += 1
        candidate = f"{name}_{number}"
    used.add(candidate)
    return candidate


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps notes of the converter and of what it brings off the terminal; errors still come as exceptions."""
    names = ("jax", "absl", "torch.utils._pytree", "torchao", "litert_torch", "root")
    loggers = [logging.getLogger(None if name == "root" else name) for name in names]
    levels = [logger.level for logger in loggers]
    shown = os.environ.get(_PROGRESS)
    os.environ[_PROGRESS] = "n"
    for name, value in (("TF_CPP_MIN_LOG_LEVEL", "3"), ("TF_ENABLE_ONEDNN_OPTS", "0")):
        os.environ.setdefault(name, value)  # read once, as its libraries are loaded
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if shown is None:
            del os.environ[_PROGRESS]
        else:
            os.environ[_PROGRESS] = shown
