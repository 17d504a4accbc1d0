"""torch -> ONNX: one file, constants folded, nodes named after the network's modules, band contract in the metadata."""

from __future__ import annotations

import ast
import contextlib
import json
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
import torch
from torch import nn

from rsedge.data.bands import DType, InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.files import atomic_path, sha256_file
from rsedge.data.record import Record
from rsedge.export.onnx.graph import TORCH_DTYPES, Deployable
from rsedge.export.onnx.opset import EXPORTED, check_opset, drop_unused_initializers, lower, opset_of, set_versions
from rsedge.runtimes.session import INPUT, LOGITS, SPEC_KEY, VALID

CLASSES_KEY = "rsedge_classes"
PREPARE = "prepare"
"""First part of the names of all pre-processing nodes: quantization must leave ``prepare/*`` alone."""
LARGEST = (1 << 31) - (64 << 20)
"""Bytes of weights that one ONNX file can hold (protobuf's 2 GB, less room for the graph)."""


class OnnxArtefact(Record):
    """An ONNX file as written: opset, SHA-256 (hex) and size, with weights beside it (:mod:`rsedge.export.onnx.external`)."""

    path: Path
    opset: int
    sha256: str
    size_bytes: int


def export_onnx(
    net: nn.Module | Deployable,
    input_spec: InputSpec,
    classes: Sequence[str],
    path: str | Path,
    opset: int = EXPORTED,
    input_dtype: DType | None = None,
) -> OnnxArtefact:
    """Writes the deployable graph of ``net`` as ONNX.

    Args:
        net: normalised float32 ``(1, C, T, T)`` -> logits ``(1, K, T, T)``, or a :class:`Deployable` around it.
        input_spec: the band contract; goes into ``metadata_props["rsedge"]``.
        classes: K class names; go into ``metadata_props["rsedge_classes"]`` as a JSON list.
        path: the ``.onnx`` file; written whole or not at all.
        opset: 13 to 21: 17 for TensorRT 8.5-8.6 and OpenVINO 2022, 18 otherwise, 19 for int8 with fp16 on TensorRT 10+.
        input_dtype: type of ``dn``; None takes the contract's. TensorRT needs ``float32``.

    Raises:
        RequestError: the network cannot be exported to that opset, or is over 2 GB, or its classes do not fit.
    """
    check_opset(opset)
    graph = net if isinstance(net, Deployable) else Deployable(net, input_spec)
    if graph.classes != len(classes):
        raise RequestError(f"the network gives {graph.classes} classes, but {len(classes)} are named: {list(classes)}")
    if weight_bytes(graph) > LARGEST:
        raise RequestError("the network is over 2 GB, which one ONNX file cannot hold; distill it before exporting")
    sample = torch.zeros(1, *input_spec.shape, dtype=TORCH_DTYPES[input_dtype or input_spec.dtype])
    model = trace(graph, (sample,), (INPUT,), (LOGITS, VALID), opset)
    set_metadata(model, input_spec, classes)
    return save_onnx(model, path)


def weight_bytes(net: nn.Module) -> int:
    """Bytes of all parameters."""
    return sum(p.numel() * p.element_size() for p in net.parameters())


def save_onnx(model: onnx.ModelProto, path: str | Path) -> OnnxArtefact:
    """Checks ``model`` (schemas, types and shapes) and writes it atomically as one file.

    Raises:
        RequestError: the graph breaks its own opset.
    """
    path = Path(path)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise RequestError(f"{path}: the exported graph is not valid ONNX: {error}") from error
    with atomic_path(path) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
    return OnnxArtefact(path=path, opset=opset_of(model), sha256=sha256_file(path), size_bytes=path.stat().st_size)


def set_metadata(model: onnx.ModelProto, input_spec: InputSpec, classes: Sequence[str]) -> None:
    """Replaces the model's metadata by the band contract and the class names."""
    del model.metadata_props[:]
    onnx.helper.set_model_props(
        model, {SPEC_KEY: input_spec.model_dump_json(), CLASSES_KEY: json.dumps(list(classes), ensure_ascii=False)}
    )


def read_metadata(path: str | Path) -> tuple[InputSpec, tuple[str, ...]]:
    """Band contract and class names of an ONNX file written here.

    Raises:
        RequestError: it carries none.
    """
    model = onnx.load(str(path), load_external_data=False)
    stored = {p.key: p.value for p in model.metadata_props}
    if SPEC_KEY not in stored or CLASSES_KEY not in stored:
        raise RequestError(f"{path}: no band contract in its metadata, so rsedge did not write it")
    return InputSpec.model_validate_json(stored[SPEC_KEY]), tuple(json.loads(stored[CLASSES_KEY]))


def trace(
    net: nn.Module,
    samples: Sequence[torch.Tensor],
    inputs: Sequence[str],
    outputs: Sequence[str],
    opset: int = EXPORTED,
) -> onnx.ModelProto:
    """The graph of ``net(*samples)``, tidied and in the given opset; shapes are those of the samples.

    Raises:
        RequestError: the network cannot be exported to that opset.
    """
    check_opset(opset)
    model: onnx.ModelProto = run_exporter(net, tuple(samples), inputs, outputs, max(opset, EXPORTED)).model_proto
    tidy(model)
    if opset < EXPORTED:
        lower(model, opset)
    else:
        set_versions(model, opset)
    return model


def run_exporter(
    net: nn.Module, samples: tuple[torch.Tensor, ...], inputs: Sequence[str], outputs: Sequence[str], opset: int
) -> torch.onnx.ONNXProgram:
    """The exporter's own result, untidied.

    Raises:
        RequestError: the network cannot be exported to that opset.
    """
    try:
        with _quiet():
            program = torch.onnx.export(
                net,
                samples,
                dynamo=True,
                opset_version=opset,
                input_names=list(inputs),
                output_names=list(outputs),
                optimize=True,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise RequestError(f"the network cannot be exported to ONNX: {' '.join(lines[-3:])}") from error
    if program is None:
        raise RequestError("the network cannot be exported to ONNX: the exporter returned nothing")
    stopped = program.model.opset_imports.get("", 0)
    if stopped != opset:
        raise RequestError(f"the network cannot be written in opset {opset}; the exporter stopped at {stopped}")
    return program


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's progress notes off the terminal; errors still come as exceptions."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def tidy(model: onnx.ModelProto) -> None:
    """Names nodes by module path and removes stack traces, so that the same network gives the same bytes."""
    graph = model.graph
    made_by: dict[str, str] = {}
    used: set[str] = set()
    for node in graph.node:
        scope = _scope(node) or next((made_by[i] for i in node.input if i in made_by), PREPARE)
        made_by.update(dict.fromkeys(node.output, scope))
        node.name = _unique(f"{scope}/{node.op_type}", used)
        node.doc_string = ""
        del node.metadata_props[:]
    for value in [*graph.value_info, *graph.input, *graph.output, *graph.initializer]:
        value.doc_string = ""
        del value.metadata_props[:]
    del graph.metadata_props[:]
    graph.doc_string = model.doc_string = ""
    graph.name = "rsedge"
    drop_unused_initializers(graph)


def _scope(node: onnx.NodeProto) -> str | None:
    """Module path that made ``node``, from the exporter's notes: ``net/...``, or ``prepare`` outside the network."""
    notes = {p.key: p.value for p in node.metadata_props}
    text = notes.get("pkg.torch.onnx.name_scopes")
    if text is None:
        return None
    names = [n for n in ast.literal_eval(text)[:-1] if n]
    return re.sub(r"[^A-Za-z0-9_/]", "_", names[-1].replace(".", "/")) if names else PREPARE


def _unique(name: str, used: set[str]) -> str:
    number, candidate = 0, name
    while candidate in used:
        number += 1
        candidate = f"{name}_{number}"
    used.add(candidate)
    return candidate
