"""What a file is, by its first bytes: bundles, models, scenes, arrays and weights, described as plain records.

What can be said without torch is here; the front room adds the kinds of the ground (:mod:`rsedge.cli.kinds`).
"""

from __future__ import annotations

import importlib.util
import math
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rsedge.data.arrays import array_headers
from rsedge.data.bands import InputSpec
from rsedge.data.errors import MissingCapability, RequestError
from rsedge.data.files import require_file
from rsedge.data.json_text import parse_json, read_json
from rsedge.data.metrics.verdict import verdict_record
from rsedge.data.scenes.raster import CLASSES_TAG, ground_sampling_distance, open_raster
from rsedge.runtimes.bundle.manifest import MANIFEST, PartsRecord
from rsedge.runtimes.bundle.reading import Bundle
from rsedge.runtimes.child import Contents
from rsedge.runtimes.device_cache import RECORD as BUILT_RECORD
from rsedge.runtimes.device_cache import recorded
from rsedge.runtimes.graph_types import QUANTIZING, GraphTypes, weight_types
from rsedge.runtimes.rehearsal import ask_once
from rsedge.runtimes.session import SPEC_KEY, parse_spec

_STRUCTURE = "structure.json"
_MAX_HEADER = 100 << 20
_HEAD = 512
ONNX_STARTS = b'\x12\x1a"*2:B'
"""What may follow an ONNX file's version: the tags of its next field."""

Record = dict[str, Any]


@dataclass(frozen=True)
class FileKind:
    """A kind of file.

    Attributes:
        begins: whether a file's first bytes are those of one.
        suffixes: what it is called, where the bytes do not tell.
        read: a record of it, with ``kind``, ``path`` and ``bytes``.
        then: what one would do with it next, by its record and its name as a shell takes it.
    """

    name: str
    suffixes: tuple[str, ...]
    begins: Callable[[bytes], bool]
    read: Callable[[Path], Record]
    then: Callable[[Record, str], str | None]


def describe(path: str | Path, key: Path | None = None, more: Sequence[FileKind] = ()) -> Record:
    """A JSON-able record with at least ``kind``, ``path``, ``bytes`` and ``next``, what one would do with it.

    Args:
        key: as for :meth:`Bundle.open`.
        more: kinds besides those of :data:`KINDS`.

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
    kind = kind_of(path, (*KINDS, *more))
    if kind is not BUNDLE and key is not None:
        raise RequestError(f"{path}: --key is for bundles; leave it out")
    record = _bundle(path, key) if kind is BUNDLE else kind.read(path)
    return record | {"next": kind.then(record, shlex.quote(str(path)))}


def kind_of(path: Path, kinds: Sequence[FileKind]) -> FileKind:
    """The kind of a file: by its first bytes, else by its name.

    Raises:
        RequestError: no plain file, or of no kind that is known; says which are.
    """
    require_file(path)
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror or error})") from error
    found = next((kind for kind in kinds if kind.begins(head)), None)
    found = found or next((kind for kind in kinds if path.suffix.lower() in kind.suffixes), None)
    if path.name in (MANIFEST, _STRUCTURE):
        found = BUNDLE if path.name == MANIFEST else JSON
    if found is None:
        raise RequestError(
            f"{path}: no kind of file that is known here (it begins with {head[:8].hex(' ') or 'nothing: it is empty'}); known: "
            f"{', '.join(kind.name for kind in kinds)}"
        )
    return found


def first_member(head: bytes) -> str | None:
    """Name of the first file in a zip, by the zip's first bytes; None where it is no zip."""
    if not head.startswith(b"PK\x03\x04") or len(head) < 30:
        return None
    return head[30 : 30 + int.from_bytes(head[26:28], "little")].decode("utf-8", "replace")


def _folder(path: Path, key: Path | None) -> Record:
    kind, record = (BUNDLE, _bundle(path, key)) if (path / MANIFEST).is_file() else (JSON, _structure(path))
    return record | {"next": kind.then(record, shlex.quote(str(path)))}


def _structure(path: Path) -> Record:
    if (path / _STRUCTURE).is_file():
        return _json(path / _STRUCTURE)
    raise RequestError(f"{path}: neither a bundle ({MANIFEST}) nor a saved model ({_STRUCTURE})")


def _bundle(path: Path, key: Path | None) -> Record:
    with Bundle.open(path.parent if path.name == MANIFEST else path, key) as bundle:
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
            "parts": None if manifest.parts is None else _parts(manifest.parts),
            "language": None if manifest.language is None else manifest.language.model_dump(),
            "teacher": manifest.teacher,
            "created": manifest.created,
            "tool_versions": manifest.tool_versions,
            "build": manifest.build,
        }


def _parts(parts: PartsRecord) -> Record:
    takes = {name: tensor.text for name, tensor in parts.inputs.items()}
    return {"whole": parts.whole, "files": parts.files, "samples_hold": takes, "settings": parts.settings}


def _onnx(path: Path) -> Record:
    try:
        return _onnx_by_onnx(path)
    except ModuleNotFoundError:
        pass
    if importlib.util.find_spec("onnxruntime") is None:
        raise MissingCapability(
            f"{path}: reading ONNX needs 'onnx' or 'onnxruntime'. Install one: pip install 'rsedge[onnxruntime]'"
        )
    return _apart(_onnx_by_runtime, path)


def _apart(read: Callable[[Path], Record], path: Path) -> Record:
    """A record read in a process of its own, which the model may end: whoever made it may have put anything there."""
    found: Record = ask_once(path, f"{__name__}:answer", [read.__name__, str(path)])
    return found


def answer(question: list[str], contents: Contents) -> Record:
    """The child's side of what is read apart."""
    name, path = question
    return {read.__name__: read for read in (_ir_there, _litert_there, _onnx_by_runtime)}[name](Path(path))


def _onnx_by_onnx(path: Path) -> Record:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(str(path), "protobuf", load_external_data=False)
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
        "weight_types": weight_types(_onnx_tensors(onnx, model.graph)),
        "quantized": not QUANTIZING.isdisjoint(counts),
        "operations": dict(sorted(counts.items(), key=lambda item: -item[1])),
    }


def _onnx_tensors(onnx: Any, graph: Any) -> Iterator[tuple[str, int]]:
    """Type and elements of each constant of a graph."""
    inside = (a.t for node in graph.node if node.op_type == "Constant" for a in node.attribute if a.HasField("t"))
    for tensor in (*graph.initializer, *inside):
        yield _onnx_type(onnx, tensor.data_type), math.prod(tensor.dims)


def _onnx_type(onnx: Any, number: int) -> str:
    kinds = onnx.TensorProto.DataType
    return kinds.Name(number).lower() if number in kinds.values() else f"unknown type {number}"


def _onnx_value(onnx: Any, value: Any) -> Record:
    tensor = value.type.tensor_type
    shape = [d.dim_value or _text(d.dim_param) or "any" for d in tensor.shape.dim]
    return {"name": _text(value.name), "dtype": _onnx_type(onnx, tensor.elem_type), "shape": shape}


def _text(value: str | bytes) -> str:
    """Text of a protobuf, which comes as bytes where it is no UTF-8."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _onnx_by_runtime(path: Path) -> Record:
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
    return _apart(_ir_there, path)


def _ir_there(path: Path) -> Record:
    from rsedge.runtimes.openvino.core import port_name
    from rsedge.runtimes.openvino.session import read_ir

    model, stored = read_ir(path)
    weights = path.with_suffix(".bin")
    kinds: dict[str, int] = {}
    tensors = []
    for node in model.get_ops():
        kinds[node.get_type_name()] = kinds.get(node.get_type_name(), 0) + 1
        if node.get_type_name() == "Constant":
            tensors.append((node.get_element_type().get_type_name(), math.prod(node.get_output_shape(0))))
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
        "weight_types": weight_types(tensors),
        "quantized": not QUANTIZING.isdisjoint(kinds),
        "operations": dict(sorted(kinds.items(), key=lambda item: -item[1])),
    }


def graph_types(path: Path) -> GraphTypes | None:
    """What the graph of an ONNX file or an OpenVINO IR holds; None where what is installed does not tell.

    Raises:
        RequestError, MissingCapability: as :func:`describe`.
    """
    found = describe(path)
    return GraphTypes(found["weight_types"], found["quantized"]) if "weight_types" in found else None


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
            "transform": list(file.transform),
            "gsd_m": ground_sampling_distance(file),
            "unread": list(file.unread),
            "bands": bands,
            "tags": file.tags(),
        }


def _then_raster(record: Record, path: str) -> str:
    if CLASSES_TAG in record["tags"]:
        return "what rsedge infer made of a scene: rsedge evaluate BUNDLE SCENE LABELS tells how good its bundle is"
    return f"rsedge infer BUNDLE {path} --output OUT.tif; in a recipe data.train: [{{path: {path}}}]"


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


def _npz(path: Path) -> Record:
    arrays = [
        {"name": name, "dtype": str(dtype), "shape": list(shape)}
        for name, (shape, dtype) in array_headers(path).items()
    ]
    return {"kind": "npz", "path": str(path), "bytes": path.stat().st_size, "arrays": arrays}


def _built(kind: str, says: str) -> Callable[[Path], Record]:
    """A reader of what a device builds, whose format is its builder's own: what the device's record beside it says of it."""

    def read(path: Path) -> Record:
        beside = path.parent / BUILT_RECORD
        entry = recorded(beside) if beside.is_file() else None
        return {
            "kind": kind,
            "path": str(path),
            "bytes": path.stat().st_size,
            "format": says,
            "built": entry if entry is not None else "not known: no record of this device lies beside it",
        }

    return read


def _litert(path: Path) -> Record:
    """Without LiteRT no more than that it is one."""
    if importlib.util.find_spec("ai_edge_litert") is None:
        return {"kind": "litert", "path": str(path), "bytes": path.stat().st_size}
    return _apart(_litert_there, path)


def _litert_there(path: Path) -> Record:
    from rsedge.runtimes.litert.core import open_litert

    opened = open_litert(path, threads=1)
    stored = opened.metadata.get(SPEC_KEY)
    values = [
        [
            {"name": n, "dtype": np.dtype(v["dtype"]).name, "shape": [int(s) for s in v["shape"]]}
            for n, v in group.items()
        ]
        for group in (opened.inputs, opened.outputs)
    ]
    text = None if stored is None else stored.decode("utf-8", "replace")
    return {**_model_head(path, "litert", text), "inputs": values[0], "outputs": values[1]}


def _then_bundle(record: Record, path: str) -> str:
    if record["task"] == "captioning":
        return f"rsedge verify {path}; rsedge infer {path} PICTURE --output OUT.txt"
    return f"rsedge verify {path}; rsedge infer {path} SCENE --output OUT.tif"


def _then_onnx(record: Record, path: str) -> str:
    if record["contract"]:
        return f"rsedge devices predict {path} TARGET"
    return f"as a teacher: rsedge init --teacher onnx:{path}; its latency: rsedge devices predict {path} TARGET"


def _then_npz(record: Record, path: str) -> str:
    names = {array["name"] for array in record["arrays"]}
    if {"dn", "logits"} <= names:
        return "a golden vector: rsedge verify BUNDLE holds its bundle to it"
    return f"as samples: data.samples.source: {path} in a recipe (docs/data.md), or rsedge infer BUNDLE {path}"


def _is_safetensors(head: bytes) -> bool:
    return len(head) > 9 and head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= _MAX_HEADER


def _is_onnx(head: bytes) -> bool:
    return len(head) > 2 and head[0] == 8 and 0 < head[1] < 32 and head[2] in ONNX_STARTS


def _is_bundle_zip(head: bytes) -> bool:
    name = first_member(head)
    return name is not None and "/" not in name and not name.endswith(".npy")


TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PLAN = "a TensorRT plan: only the TensorRT and the GPU it was built with read it"
BLOB = "a model compiled by OpenVINO: only the OpenVINO and the processor it was built with read it"
BUNDLE = FileKind("bundle", (".zip",), _is_bundle_zip, lambda path: _bundle(path, None), _then_bundle)
JSON = FileKind(
    "JSON", (".json",), lambda head: head.lstrip()[:1] in (b"{", b"["), _json,
    lambda record, path: "a model of the run it lies in: rsedge run goes on with it" if record["kind"] == "model" else None,
)  # fmt: skip
KINDS = (
    FileKind(
        "scene", (".tif", ".tiff"), lambda head: head[:4] in TIFF_STARTS, lambda path: _raster(path),
        lambda record, path: _then_raster(record, path),
    ),
    FileKind("ONNX", (".onnx",), _is_onnx, _onnx, _then_onnx),
    FileKind(
        "OpenVINO IR", (".xml",), lambda head: b"<net" in head, _ir,
        lambda record, path: "with its .bin a bundle's model: rsedge bench BUNDLE times it",
    ),
    FileKind(
        "safetensors", (".safetensors",), _is_safetensors, _safetensors,
        lambda record, path: f"as weights: teacher: {{name: ..., checkpoint: {path}}} in a recipe",
    ),
    FileKind("npz", (".npz",), lambda head: (first_member(head) or "").endswith(".npy"), _npz, _then_npz),
    BUNDLE,
    FileKind(
        "LiteRT", (".tflite",), lambda head: head[4:8] == b"TFL3", _litert,
        lambda record, path: "a bundle's model: rsedge infer takes its bundle",
    ),
    FileKind(
        "TensorRT engine", (".engine", ".plan"), lambda head: head[:4] in (b"ftrt", b"ptrt"), _built("engine", PLAN),
        lambda record, path: "made anew on a device by rsedge build BUNDLE",
    ),
    FileKind(
        "OpenVINO blob", (".blob",), lambda head: False, _built("blob", BLOB),
        lambda record, path: "made anew on a device by rsedge build BUNDLE",
    ),
    JSON,
)  # fmt: skip
"""Kinds that are told without torch, in the order in which first bytes are held against them."""
