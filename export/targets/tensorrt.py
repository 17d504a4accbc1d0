"""What goes to a Jetson: an ONNX file typed for that TensorRT version, the exact ``trtexec`` line, and a CPU check.

Engines are built on the device itself (same GPU, same TensorRT); nothing here needs a GPU.

- TensorRT 8.x: builder flags decide. fp16 is the typed graph and ``--fp16``; int8 is f32 with Q/DQ and both flags.
- TensorRT 10.x: the graph's types decide (``--stronglyTyped``). int8 has fp16 between the quantized layers.
- TensorRT 11.x: the same files; strongly typed is all there is, so no flag.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import onnx

from rsedge.data.errors import RequestError
from rsedge.data.record import Record
from rsedge.export.onnx.batch import make_batch_dynamic
from rsedge.export.onnx.graph import Output
from rsedge.export.onnx.opset import opset_of
from rsedge.export.onnx.precision import (
    QDQ_HALF_OPSET,
    TypedCounts,
    cast_constant_outputs,
    check_symmetric,
    make_half,
    make_signed,
    split_bool_casts,
)
from rsedge.export.onnx.writing import OnnxArtefact, save_onnx
from rsedge.export.parity import Outputs, compare, run_session
from rsedge.runtimes.file_checks import CompileCheck, Difference
from rsedge.runtimes.opening import open_session
from rsedge.runtimes.session import INPUT, Array
from rsedge.runtimes.tensorrt.module import mechanism

Precision = Literal["f32", "fp16", "int8"]
MODEL, ENGINE = "model.onnx", "model.engine"
_TENSORRT_INPUTS = (onnx.TensorProto.FLOAT, onnx.TensorProto.INT32, onnx.TensorProto.INT64)


class TensorRtArtefact(Record):
    """A typed ONNX file and how to build it."""

    onnx: OnnxArtefact
    precision: Precision
    trt_version: str
    between: Literal["f32", "fp16"]
    counts: dict[str, int]
    trtexec: str
    max_batch: int = 1
    dla: dict[str, Any] | None = None

    @property
    def model(self) -> str:
        """Name of the model in a bundle."""
        return MODEL

    def moved(self, path: Path) -> TensorRtArtefact:
        """The same file in another place."""
        return self.model_copy(update={"onnx": self.onnx.model_copy(update={"path": path})})

    def build_record(self) -> dict[str, Any]:
        """Content of ``build.json`` and of the manifest's ``build``."""
        return {
            "runtime": "tensorrt",
            "trt_version": self.trt_version,
            "precision": self.precision,
            "precision_mechanism": mechanism("tensorrt", self.trt_version, self.dla is not None),
            "dla": self.dla,
            "max_batch": self.max_batch,
            "types_between_quantized_layers": self.between,
            "opset": self.onnx.opset,
            "onnx": MODEL,
            "onnx_sha256": self.onnx.sha256,
            "engine": ENGINE,
            "trtexec": self.trtexec,
            "node_types": self.counts,
        }

    def build_script(self) -> str:
        """Content of ``build.sh``."""
        return _SCRIPT.format(version=self.trt_version, line=_script_line(self.trtexec))


def opset_for(precision: Precision, trt_version: str, opset: int, max_opset: int | None = None) -> int:
    """The opset to export with: the profile's, raised to 19 where int8 is to have fp16 between its layers.

    Args:
        trt_version: e.g. ``8.6.2``, ``10.3``, ``11.4.1``.
        opset: the device profile's opset for that version.
        max_opset: the newest opset that version parses; None for no limit.
    """
    wants = precision == "int8" and _major(trt_version) >= 10
    return QDQ_HALF_OPSET if wants and opset < QDQ_HALF_OPSET <= (max_opset or QDQ_HALF_OPSET) else opset


def type_for_tensorrt(
    source: str | Path,
    path: str | Path,
    precision: Precision,
    trt_version: str,
    max_batch: int = 1,
    dla: int | None = None,
) -> TensorRtArtefact:
    """Writes the ONNX file that a TensorRT version builds in the wanted precision.

    Args:
        source: f32 ONNX with float32 ``dn`` from :func:`rsedge.export.onnx.writing.export_onnx`, or a part's from
            :func:`rsedge.export.parts.export_part`; for int8 the same after symmetric quantization (explicit Q/DQ, zero-point 0).
        path: the typed ``.onnx``; metadata are kept.
        max_batch: tiles that the engine may run at once; above 1 the file gets a dynamic batch.
        dla: DLA core that the build is to prefer.

    Raises:
        RequestError: a graph whose batch is fixed inside or that has several inputs (``max_batch`` above 1), an input of a type
            that TensorRT lacks, int8 without Q/DQ or Q/DQ without int8, an asymmetric quantizer, bf16.
    """
    model = onnx.load(str(source))
    if max_batch > 1 and len(model.graph.input) > 1:
        raise RequestError(
            f"{source}: a part of {len(model.graph.input)} inputs is built for batch 1; leave max_batch out"
        )
    make_signed(model)
    _check_source(model, source, precision)
    between: Literal["f32", "fp16"] = "f32"
    cast_constant_outputs(model)
    split_bool_casts(model, has_uint8=_version(trt_version) >= (8, 5))
    quantizers = check_symmetric(model)
    counts = TypedCounts(0, len(model.graph.node) - quantizers, quantizers)
    # Before 10 the builder chooses; Q/DQ there take float32 only (opset 17), which --fp16 --int8 then narrows.
    if precision == "fp16" or (precision == "int8" and _major(trt_version) >= 10 and opset_of(model) >= QDQ_HALF_OPSET):
        counts, between = make_half(model), "fp16"
    tile = tuple(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim)[1:]
    if max_batch > 1:
        make_batch_dynamic(model)
    artefact = save_onnx(model, path)
    line = trtexec_line(MODEL, ENGINE, precision, trt_version, (max_batch, tile) if max_batch > 1 else None, dla)
    on_dla = None if dla is None else {"core": dla}
    return TensorRtArtefact(
        onnx=artefact, precision=precision, trt_version=trt_version, between=between, counts=dataclasses.asdict(counts),
        trtexec=line, max_batch=max_batch, dla=on_dla,
    )  # fmt: skip


def trtexec_line(
    onnx_path: str,
    engine_path: str,
    precision: Precision,
    trt_version: str,
    batch: tuple[int, tuple[int, ...]] | None = None,
    dla: int | None = None,
) -> str:
    """The exact ``trtexec`` command, for a POSIX shell, that builds the engine and times nothing.

    Args:
        batch: largest batch and the shape of one tile, for a dynamic batch.
        dla: DLA core to prefer; what it cannot run falls back to the GPU. Before 11 it needs the builder flags.
    """
    version = _version(trt_version)
    flags = mechanism("tensorrt", trt_version, dla is not None) == "builder_flags"
    parts = ["trtexec", f"--onnx={onnx_path}", f"--saveEngine={engine_path}"]
    if flags:
        parts += {"f32": [], "fp16": ["--fp16"], "int8": ["--fp16", "--int8"]}[precision]
    elif version < (11, 0):
        parts.append("--stronglyTyped")
    if dla is not None:
        parts += [f"--useDLACore={dla}", "--allowGPUFallback"]
    if batch is not None:
        most, tile = batch
        for name, count in (("min", 1), ("opt", most), ("max", most)):
            parts.append(f"--{name}Shapes={INPUT}:{'x'.join(map(str, (count, *tile)))}")
    parts.append("--skipInference" if version >= (8, 6) else "--buildOnly")
    return shlex.join(parts)


def check_typed(
    reference: str | Path,
    typed: str | Path,
    samples: Sequence[Array],
    threads: int | None = None,
    output: Output = "map",
) -> Difference:
    """The typed file against the f32 one it came from, both as written on ONNX Runtime's CPU.

    ONNX Runtime computes most fp16 layers in f32 and rounds their results: rounding of weights and activations is seen,
    fp16 accumulation on the GPU is not.
    """
    return compare(run_onnx(reference, samples, threads), run_onnx(typed, samples, threads), output)


def run_onnx(path: str | Path, samples: Sequence[Array], threads: int | None = None) -> Outputs:
    """Tiles ``(1, C, T, T)`` through an ONNX file as written, on ONNX Runtime's CPU."""
    with contextlib.closing(open_session(path, "onnxruntime", threads=threads, as_written=True)) as session:
        return run_session(session, samples)


def compiles(onnx_path: str | Path, sm: str = "SM86", max_batch: int = 1) -> CompileCheck:
    """The GPU-free compile gate (TensorRT for RTX).

    Raises:
        MissingCapability: ``tensorrt_rtx`` is not installed.
    """
    from rsedge.runtimes.tensorrt.build import compile_gate

    return compile_gate(onnx_path, sm, max_batch)


def _check_source(model: onnx.ModelProto, source: str | Path, precision: Precision) -> None:
    if precision not in ("f32", "fp16", "int8"):
        raise RequestError(f"TensorRT precision '{precision}' is not supported; choose f32, fp16 or int8")
    for entry in model.graph.input:
        if entry.type.tensor_type.elem_type not in _TENSORRT_INPUTS:
            kind = onnx.TensorProto.DataType.Name(entry.type.tensor_type.elem_type).lower()
            raise RequestError(f"{source}: TensorRT has no {kind}; export '{entry.name}' with input_dtype='float32'")
    pairs = check_symmetric(model)
    if precision == "int8" and not pairs:
        raise RequestError(f"{source}: int8 asked for, but the graph has no Q/DQ; quantize it first")
    if precision != "int8" and pairs:
        raise RequestError(f"{source}: {precision} asked for, but the graph is quantized; give the f32 graph")


def _version(text: str) -> tuple[int, ...]:
    try:
        parts = tuple(int(p) for p in text.split(".")[:3])
    except ValueError as error:
        raise RequestError(f"TensorRT version '{text}' is not like 8.6.2 or 10.3") from error
    if parts < (8, 2):
        raise RequestError(f"TensorRT {text} is too old; 8.2 is the oldest supported")
    return (*parts, 0)[:3] if len(parts) == 1 else parts


def _major(text: str) -> int:
    return _version(text)[0]


def _script_line(line: str) -> str:
    """The line with ``$TRTEXEC`` for the program, so that the device's own path can be given, and the engine in ``$OUT``."""
    return '"$TRTEXEC"' + line.removeprefix("trtexec").replace(
        f"--saveEngine={ENGINE}", f'--saveEngine="$OUT/{ENGINE}"'
    )


_SCRIPT = """#!/bin/sh
# sh build.sh FOLDER: builds model.engine on this device, into FOLDER, for programs of your own. Made for TensorRT {version}.
# The bundle stays as it was signed. rsedge itself takes only what it built: rsedge build . && rsedge verify .
set -eu
[ $# = 1 ] || {{ echo "usage: sh build.sh FOLDER (outside the bundle, which stays as it was signed)" >&2; exit 2; }}
OUT="$(cd "$1" && pwd)"
cd "$(dirname "$0")"
TRTEXEC="${{TRTEXEC:-$(command -v trtexec || echo /usr/src/tensorrt/bin/trtexec)}}"
[ -x "$TRTEXEC" ] || {{ echo "no trtexec at $TRTEXEC: install libnvinfer-bin, or set TRTEXEC" >&2; exit 4; }}
{line}
"""
