"""What a file is: bundles, models, scenes and weights, described as plain records."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rsedge.data.bands import InputSpec
from rsedge.data.errors import MissingCapability, RequestError
from rsedge.data.json_text import parse_json, read_json
from rsedge.data.metrics.verdict import verdict_record
from rsedge.data.scenes.raster import ground_sampling_distance, open_raster
from rsedge.runtimes.bundle.manifest import MANIFEST
from rsedge.runtimes.bundle.reading import Bundle
from rsedge.runtimes.session import SPEC_KEY, parse_spec

_STRUCTURE = "structure.json"
_MAX_HEADER = 100 << 20

Record = dict[str, Any]


def describe(path: str | Path, key: Path | None = None) -> Record:
    """A JSON-able record with at least ``kind``, ``path`` and ``bytes``; ``key`` as for :meth:`Bundle.open`.

    Raises:
        RequestError: no such file, or nothing that rsedge knows.
        MissingCapability: no installed module can read it.
    """
    path = Path(path)
    try:
        there = path.exists()
    except OSError as error:
        raise RequestError(f"{path}: cannot be looked at ({error.strerror})") from error
    if not there:
        raise RequestError(f"{path}: no such file or folder")
    if path.is_dir():
        return _folder(path, key)
    if path.suffix.lower() == ".zip":
        return _bundle(path, key)
    if path.name == MANIFEST:
        return _bundle(path.parent, key)
    if key is not None:
        raise RequestError(f"{path}: --key is for bundles; leave it out")
    readers: dict[str, Callable[[Path], Record]] = {
        ".onnx": _onnx,
        ".xml": _ir,
        ".json": _json,
        ".safetensors": _safetensors,
    }
    return readers.get(path.suffix.lower(), _raster)(path)


def _folder(path: Path, key: Path | None) -> Record:
    if (path / MANIFEST).is_file():
        return _bundle(path, key)
    if (path / _STRUCTURE).is_file():
        return _json(path / _STRUCTURE)
    raise RequestError(f"{path}: neither a bundle ({MANIFEST}) nor a saved model ({_STRUCTURE})")


def _bundle(path: Path, key: Path | None) -> Record:
    with Bundle.open(path, key) as bundle:
        manifest = bundle.manifest
        files = [{"name": n, "bytes": e.bytes, "sha256": e.sha256[:12]} for n, e in manifest.files.items()]
        return {
            "kind": "bundle",
            "path": str(path),
            "bytes": bundle.size_bytes,
            "name": manifest.name,
            "task": manifest.task,
            "target": manifest.target.name,
            "classes": list(manifest.classes),
            **bundle.signature.record(),
            "signature_says": str(bundle.signature),
            "contract": contract(manifest.input_spec),
            "files": files,
            "golden": manifest.golden.model_dump(),
            "metrics": manifest.metrics,
            "latency": manifest.latency,
            "verdict": verdict_record(manifest.verdict),
            "language": None if manifest.language is None else manifest.language.model_dump(),
            "teacher": manifest.teacher,
            "created": manifest.created,
            "tool_versions": manifest.tool_versions,
            "build": manifest.build,
        }


def _onnx(path: Path) -> Record:
    try:
        return _onnx_by_onnx(path)
    except ModuleNotFoundError:
        pass
    try:
        return _onnx_by_runtime(path)
    except ModuleNotFoundError as error:
        raise MissingCapability(
            f"{path}: reading ONNX needs 'onnx' or 'onnxruntime'. Install one: pip install 'rsedge[onnxruntime]'"
        ) from error


def _onnx_by_onnx(path: Path) -> Record:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(str(path), load_external_data=False)
    except DecodeError as error:
        raise RequestError(f"{path}: truncated, altered or no ONNX file ({error})") from error
    stored = {_text(p.key): _text(p.value) for p in model.metadata_props}
    counts: dict[str, int] = {}
    for node in model.graph.node:
        counts[_text(node.op_type)] = counts.get(_text(node.op_type), 0) + 1
    return {
        **_model_head(path, "onnx", stored.get(SPEC_KEY)),
        "opset": {_text(o.domain or "ai.onnx"): o.version for o in model.opset_import},
        "producer": f"{_text(model.producer_name)} {_text(model.producer_version)}".strip(),
        "inputs": [_onnx_value(onnx, v) for v in model.graph.input],
        "outputs": [_onnx_value(onnx, v) for v in model.graph.output],
        "parameters": sum(math.prod(t.dims) for t in model.graph.initializer),
        "quantized": "QuantizeLinear" in counts,
        "operations": dict(sorted(counts.items(), key=lambda item: -item[1])),
    }


def _onnx_value(onnx: Any, value: Any) -> Record:
    tensor = value.type.tensor_type
    shape = [d.dim_value or _text(d.dim_param) or "any" for d in tensor.shape.dim]
    kinds = onnx.TensorProto.DataType
    known = tensor.elem_type in kinds.values()
    dtype = kinds.Name(tensor.elem_type).lower() if known else f"unknown type {tensor.elem_type}"
    return {"name": _text(value.name), "dtype": dtype, "shape": shape}


def _text(value: str | bytes) -> str:
    """Text of a protobuf, which comes as bytes where it is no UTF-8."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _onnx_by_runtime(path: Path) -> Record:
    import onnxruntime  # noqa: F401

    from rsedge.runtimes.onnxruntime.core import running
    from rsedge.runtimes.onnxruntime.session import load_onnx

    session = load_onnx(path)
    with running(path):
        stored = session.get_modelmeta().custom_metadata_map.get(SPEC_KEY)
        values = [
            [{"name": v.name, "dtype": v.type, "shape": list(v.shape)} for v in group]
            for group in (session.get_inputs(), session.get_outputs())
        ]
    return {**_model_head(path, "onnx", stored), "inputs": values[0], "outputs": values[1]}


def _ir(path: Path) -> Record:
    from rsedge.runtimes.openvino.core import port_name
    from rsedge.runtimes.openvino.session import read_ir

    model, stored = read_ir(path)
    weights = path.with_suffix(".bin")
    kinds: dict[str, int] = {}
    for node in model.get_ops():
        kinds[node.get_type_name()] = kinds.get(node.get_type_name(), 0) + 1
    values = [
        [
            {"name": port_name(p), "dtype": p.get_element_type().get_type_name(), "shape": str(p.get_partial_shape())}
            for p in g
        ]
        for g in (model.inputs, model.outputs)
    ]
    return {
        **_model_head(path, "openvino-ir", stored),
        "weights_bytes": weights.stat().st_size if weights.is_file() else None,
        "inputs": values[0],
        "outputs": values[1],
        "quantized": "FakeQuantize" in kinds,
        "operations": dict(sorted(kinds.items(), key=lambda item: -item[1])),
    }


def _model_head(path: Path, kind: str, stored: str | None) -> Record:
    spec = parse_spec(stored, path) if stored else None
    return {
        "kind": kind,
        "path": str(path),
        "bytes": path.stat().st_size,
        "contract": contract(spec) if spec else None,
    }


def _json(path: Path) -> Record:
    value = read_json(path)
    if not isinstance(value, dict):
        raise RequestError(f"{path}: a JSON {type(value).__name__}, not a record that rsedge writes")
    weights = path.parent / "model.safetensors"
    record: Record = {
        "kind": "model" if path.name == _STRUCTURE else "json",
        "path": str(path),
        "bytes": path.stat().st_size,
    }
    if path.name == _STRUCTURE and weights.is_file():
        record["weights"] = {k: v for k, v in _safetensors(weights).items() if k != "kind"}
    return {**record, "content": value}


def _safetensors(path: Path) -> Record:
    """Header of a safetensors file: 8 bytes of length (little endian), then JSON."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(_MAX_HEADER, size - 8):
            raise RequestError(f"{path}: truncated or no safetensors file")
        header = parse_json(file.read(length), f"{path}: header", _MAX_HEADER)
    if not isinstance(header, dict):
        raise RequestError(f"{path}: truncated or no safetensors file (its header is no JSON object)")
    metadata = header.pop("__metadata__", {})
    try:
        ends = [int(entry["data_offsets"][1]) for entry in header.values()]
        values = sum(math.prod(int(n) for n in entry["shape"]) for entry in header.values())
        dtypes = sorted({str(entry["dtype"]) for entry in header.values()})
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise RequestError(f"{path}: no safetensors file (its header does not describe tensors: {error!r})") from error
    if 8 + length + max(ends, default=0) != size:
        raise RequestError(f"{path}: truncated: {size} bytes, its header promises {8 + length + max(ends, default=0)}")
    return {
        "kind": "safetensors",
        "path": str(path),
        "bytes": size,
        "tensors": len(header),
        "values": values,
        "dtypes": dtypes,
        "metadata": metadata,
    }


def _raster(path: Path) -> Record:
    with open_raster(path) as file:
        bands = [
            {"name": d, "dtype": t, "nodata": n, "scale": s, "offset": o}
            for d, t, n, s, o in zip(
                file.descriptions, file.dtypes, file.nodatavals, file.scales, file.offsets, strict=True
            )
        ]
        return {
            "kind": "raster",
            "path": str(path),
            "bytes": path.stat().st_size,
            "driver": file.driver,
            "height": file.height,
            "width": file.width,
            "crs": str(file.crs) if file.crs else None,
            "transform": list(file.transform)[:6],
            "gsd_m": ground_sampling_distance(file),
            "bands": bands,
            "tags": file.tags(),
        }


def contract(spec: InputSpec) -> Record:
    """The band contract for reading: one record per band, then what holds for all."""
    rows = [
        {
            "name": b.name,
            "wavelength_nm": b.wavelength_nm,
            "scale": b.scale,
            "offset": b.offset,
            "nodata": b.nodata,
            "mean": b.mean,
            "std": b.std,
            "sensor": b.sensor,
        }
        for b in spec.bands
    ]
    gsd = list(spec.gsd_range_m) if spec.gsd_range_m else None
    return {"bands": rows, "dtype": spec.dtype, "tile": spec.tile, "quantity": spec.quantity, "gsd_range_m": gsd}
