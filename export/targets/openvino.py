"""ONNX -> OpenVINO IR with the band contract in ``rt_info``; both files written whole or not at all."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openvino as ov
from openvino.tools.ovc.error import Error as ConversionError

from rsedge.data.bands import InputSpec
from rsedge.data.errors import MissingCapability, RequestError
from rsedge.data.files import place, sha256_file
from rsedge.data.temporary import TemporaryFolder
from rsedge.export.onnx.writing import CLASSES_KEY
from rsedge.runtimes.openvino.core import shared_core
from rsedge.runtimes.session import SPEC_KEY, check_contract


@dataclasses.dataclass(frozen=True)
class OpenVinoArtefact:
    """An IR as written: the ``.xml``, its ``.bin`` with its SHA-256 (hex), and their size together (bytes)."""

    xml: Path
    bin: Path
    bin_sha256: str
    size_bytes: int


def export_openvino(
    onnx_path: str | Path,
    xml_path: str | Path,
    input_spec: InputSpec,
    classes: Sequence[str],
    compress_to_fp16: bool = False,
) -> OpenVinoArtefact:
    """Converts an ONNX file written by :func:`rsedge.export.onnx.writing.export_onnx`.

    Args:
        compress_to_fp16: store weights in half precision (half the size; the plugin decides how it computes).

    Raises:
        RequestError: OpenVINO cannot read the file, or it is no ``dn`` -> ``logits``, ``valid`` graph.
    """
    return save_openvino(read_openvino(onnx_path), xml_path, input_spec, classes, compress_to_fp16)


def read_openvino(onnx_path: str | Path) -> Any:
    """The ``ov.Model`` of an ONNX file or IR, as compress.quantize takes it."""
    try:
        return (
            ov.convert_model(str(onnx_path))
            if Path(onnx_path).suffix == ".onnx"
            else shared_core().read_model(onnx_path)
        )
    except (RuntimeError, ConversionError, ov.frontend.OpConversionFailure) as error:
        raise RequestError(f"{onnx_path}: OpenVINO cannot read it: {str(error).strip().splitlines()[-1]}") from error


def save_openvino(
    model: Any,
    xml_path: str | Path,
    input_spec: InputSpec,
    classes: Sequence[str],
    compress_to_fp16: bool = False,
) -> OpenVinoArtefact:
    """Writes an ``ov.Model`` (f32 or quantized) as IR.

    The ``.bin`` is put in place before the ``.xml``: as long as the old ``.xml`` is there, a crash in between is caught
    by the hashes of whoever recorded them; a fresh export never leaves an ``.xml`` without its ``.bin``.

    Raises:
        RequestError: not a ``dn`` -> ``logits``, ``valid`` graph.
        MissingCapability: the disk is full.
    """
    xml = Path(xml_path)
    check_contract(xml, [p.any_name for p in model.inputs], [p.any_name for p in model.outputs])
    model.set_rt_info(input_spec.model_dump_json(), [SPEC_KEY])
    model.set_rt_info(json.dumps(list(classes), ensure_ascii=False), [CLASSES_KEY])
    xml.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryFolder(xml.parent) as folder:
        made = folder / "model.xml"
        try:
            ov.save_model(model, made, compress_to_fp16=compress_to_fp16)
        except RuntimeError as error:
            raise MissingCapability(f"{xml}: OpenVINO could not write it (is the disk full?): {error}") from error
        for suffix in (".bin", ".xml"):
            place(made.with_suffix(suffix), xml.with_suffix(suffix))
    weights = xml.with_suffix(".bin")
    size = xml.stat().st_size + weights.stat().st_size
    return OpenVinoArtefact(xml, weights, sha256_file(weights), size)


def read_openvino_metadata(xml_path: str | Path) -> tuple[InputSpec, tuple[str, ...]]:
    """Band contract and class names of an IR written here.

    Raises:
        RequestError: it carries none.
    """
    model = shared_core().read_model(xml_path)
    if not model.has_rt_info([SPEC_KEY]) or not model.has_rt_info([CLASSES_KEY]):
        raise RequestError(f"{xml_path}: no band contract in its rt_info, so rsedge did not write it")
    spec = InputSpec.model_validate_json(model.get_rt_info([SPEC_KEY]).astype(str))
    return spec, tuple(json.loads(model.get_rt_info([CLASSES_KEY]).astype(str)))
