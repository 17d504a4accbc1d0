"""Intel Myriad X: fp16 static IR, written and checked by OpenVINO 2022.3.2 itself.

The VPU's last release reads neither today's IR nor ONNX beyond opset 17, so the torch exporter's graph is lowered and
converted there. Its wheel has no MYRIAD plugin: the IR runs on that release's CPU plugin (fp16 weights, f32 arithmetic),
and what fp16 activations add is estimated by rounding every tensor to fp16 on ONNX Runtime. ``compile_tool`` makes the blob.
"""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rsedge.data.bands import InputSpec
from rsedge.data.errors import MissingCapability, RequestError
from rsedge.data.files import place, sha256_file
from rsedge.data.record import Record
from rsedge.data.temporary import TemporaryFolder
from rsedge.export.onnx.graph import Output, maskable_nodata
from rsedge.export.onnx.opset import opset_of
from rsedge.export.onnx.writing import CLASSES_KEY
from rsedge.export.parity import Outputs, compare, run_session
from rsedge.export.targets.myriad_operations import unsupported
from rsedge.runtimes.file_checks import Check, Difference
from rsedge.runtimes.myriad.process import LARGEST, VERSION, OpenVino2022Session, convert
from rsedge.runtimes.opening import open_session
from rsedge.runtimes.session import INPUT, SPEC_KEY, Array

MAX_OPSET = 17
MODEL = "model.xml"
BLOB = "model.blob"
TOLERANCE = 2e-2
"""Largest difference of logits from f32 that fp16 weights may bring, relative to the largest logit (at least 1)."""


class MyriadArtefact(Record):
    """An IR of OpenVINO 2022.3.2, how far it is from the f32 ONNX, and the line that compiles it for the VPU."""

    xml: Path
    bin: Path
    onnx_sha256: str
    opset: int
    openvino: str
    operations: dict[str, int]
    weights_fp16: Difference
    activations_fp16: Difference
    compile_tool: str

    @property
    def precision(self) -> str:
        return "fp16"

    @property
    def passed(self) -> bool:
        """Whether the IR, on OpenVINO 2022.3.2's CPU plugin, is the f32 graph within fp16's tolerance."""
        return self.weights_fp16.within(TOLERANCE)

    @property
    def parity(self) -> dict[str, Check]:
        """Differences from the f32 ONNX."""
        return {"weights_fp16": self.weights_fp16, "activations_fp16": self.activations_fp16}

    @property
    def model(self) -> str:
        """Name of the model in a bundle."""
        return MODEL

    def build_record(self) -> dict[str, Any]:
        """Content of ``build.json`` and of the manifest's ``build``."""
        return {
            "runtime": "openvino",
            "openvino": self.openvino,
            "device": "MYRIAD",
            "precision": "fp16",
            "opset": self.opset,
            "onnx_sha256": self.onnx_sha256,
            "blob": BLOB,
            "compile_tool": self.compile_tool,
            "operations": self.operations,
            "parity": {name: found.model_dump() for name, found in self.parity.items()},
            "checked": f"by the CPU plugin of OpenVINO {VERSION}; not on a VPU",
        }

    def build_script(self) -> str:
        """Content of ``build.sh``."""
        line = '"$COMPILE_TOOL"' + self.compile_tool.removeprefix("compile_tool").replace(
            f"-o {BLOB}", f'-o "$OUT/{BLOB}"'
        )
        return _SCRIPT.format(version=VERSION, blob=BLOB, line=line)


def export_myriad(
    onnx_path: str | Path,
    xml_path: str | Path,
    input_spec: InputSpec,
    classes: Sequence[str],
    samples: Sequence[Array],
    threads: int | None = None,
    output: Output = "map",
) -> MyriadArtefact:
    """Converts an f32 ONNX file for the Myriad X and checks it.

    Args:
        onnx_path: from :func:`rsedge.export.onnx.writing.export_onnx` with opset 17 at most and ``input_dtype="float32"``.
        samples: tiles ``(1, C, T, T)`` in the contract's dtype for the checks, at least one.
        output: what the network gives (:class:`rsedge.export.onnx.graph.Deployable`).

    Raises:
        RequestError: an opset beyond 17, operations that the VPU lacks (by name), a nodata value beyond fp16, activations
            that overflow fp16.
        MissingCapability: no environment with OpenVINO 2022.3.2 (says how to make it).
    """
    source, xml = Path(onnx_path), Path(xml_path)
    model = onnx.load(str(source))
    _check_source(model, source, input_spec)
    texts = {SPEC_KEY: input_spec.model_dump_json(), CLASSES_KEY: json.dumps(list(classes), ensure_ascii=False)}
    xml.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryFolder(xml.parent) as folder:
        made = folder / MODEL
        found = convert(source, made, texts)
        if lacking := unsupported(found["operations"]):
            raise RequestError(f"{source}: the Myriad X cannot run {'; '.join(lacking)}. Use a network without them")
        reference, rounded = _run_rounded(model, source, samples, folder / "rounded.onnx", threads)
        with contextlib.closing(OpenVino2022Session(made, input_spec, "CPU", "fp16", threads)) as session:
            outputs = run_session(session, samples)
        for suffix in (".bin", ".xml"):
            place(made.with_suffix(suffix), xml.with_suffix(suffix))
    counts = {k["type"]: 0 for k in found["operations"]}
    for operation in found["operations"]:
        counts[operation["type"]] += 1
    return MyriadArtefact(
        xml=xml, bin=xml.with_suffix(".bin"), onnx_sha256=sha256_file(source), opset=opset_of(model),
        openvino=found["version"], operations=counts, weights_fp16=compare(reference, outputs, output),
        activations_fp16=compare(reference, rounded, output), compile_tool=compile_line(),
    )  # fmt: skip


def check_release(target: str, runtime_version: str) -> None:
    """Refuses VPUs of another release.

    Raises:
        MissingCapability: the device's last OpenVINO is not 2022.3 (the Myriad 2's is 2020.3).
    """
    if not runtime_version.startswith("2022.3"):
        raise MissingCapability(
            f"target '{target}': its device needs OpenVINO {runtime_version}, and its IR; rsedge writes IR for VPUs with "
            f"OpenVINO {VERSION} only (Myriad X)"
        )


def compile_line(model: str = MODEL, blob: str = BLOB) -> str:
    """The exact ``compile_tool`` command (OpenVINO 2022.3 archive, ``tools/compile_tool``); no VPU need be attached."""
    return shlex.join(["compile_tool", "-m", model, "-d", "MYRIAD", "-o", blob])


def round_activations(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose every float tensor, input and weight takes the value of its nearest fp16, computed in f32 between.

    That is what the VPU stores; it is blind to fp16 sums inside an operation.
    """
    rounded = onnx.ModelProto()
    rounded.CopyFrom(model)
    graph = rounded.graph
    types = _float_tensors(rounded)
    renamed = {i.name: f"{i.name}/fp16" for i in graph.input if i.name in types}
    nodes = [n for name, rounding in renamed.items() for n in _rounding(name, rounding)]
    for node in graph.node:
        outputs = [o for o in node.output if o in types]
        node.input[:] = [renamed.get(i, i) for i in node.input]
        node.output[:] = [f"{o}/exact" if o in types else o for o in node.output]
        nodes += [node, *(n for name in outputs for n in _rounding(f"{name}/exact", name))]
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            with np.errstate(over="ignore"):  # infinities are found in the outputs
                value = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    return rounded


def _rounding(source: str, target: str) -> list[onnx.NodeProto]:
    half = f"{target}/half"
    return [
        helper.make_node("Cast", [source], [half], name=f"{target}/to_half", to=TensorProto.FLOAT16),
        helper.make_node("Cast", [half], [target], name=f"{target}/to_single", to=TensorProto.FLOAT),
    ]


def _float_tensors(model: onnx.ModelProto) -> set[str]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = [*graph.input, *graph.value_info, *graph.output]
    return {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}


def _run_rounded(
    model: onnx.ModelProto, source: Path, samples: Sequence[Array], place: Path, threads: int | None
) -> tuple[Outputs, Outputs]:
    """Outputs of the f32 graph and of its rounded copy, both on ONNX Runtime."""
    onnx.save(round_activations(model), str(place))
    outputs = []
    for path in (source, place):
        with contextlib.closing(open_session(path, "onnxruntime", threads=threads, as_written=True)) as session:
            clipped = [np.minimum(dn, LARGEST).astype(dn.dtype) for dn in samples]
            outputs.append(run_session(session, clipped))
    if not np.isfinite(outputs[1].logits).all():
        raise RequestError(
            f"{source}: activations overflow fp16 (beyond {LARGEST:g}), which is all the VPU computes in"
        )
    return outputs[0], outputs[1]


def _check_source(model: onnx.ModelProto, source: Path, spec: InputSpec) -> None:
    if opset_of(model) > MAX_OPSET:
        raise RequestError(
            f"{source}: opset {opset_of(model)}; OpenVINO {VERSION} reads {MAX_OPSET} at most, export with that"
        )
    entry = next((i for i in model.graph.input if i.name == INPUT), None)
    if entry is None or entry.type.tensor_type.elem_type != TensorProto.FLOAT:
        raise RequestError(f"{source}: the VPU takes no {spec.dtype}; export '{INPUT}' with input_dtype='float32'")
    beyond = [v for v in maskable_nodata(spec) or () if abs(v) > LARGEST]
    if beyond:
        raise RequestError(
            f"{source}: nodata {beyond[0]:g} is beyond fp16 ({LARGEST:g}), which is all the VPU computes in"
        )


_SCRIPT = """#!/bin/sh
# sh build.sh FOLDER: compiles {blob} for the Myriad X on any PC, into FOLDER, for programs of your own; rsedge compiles at each
# start. The VPU need not be attached. compile_tool comes with the OpenVINO 2022.3 archive (tools/compile_tool), not with the
# Python wheel. This line was not run on the machine that wrote the bundle, which stays as it was signed.
set -eu
[ $# = 1 ] || {{ echo "usage: sh build.sh FOLDER (outside the bundle, which stays as it was signed)" >&2; exit 2; }}
OUT="$(cd "$1" && pwd)"
cd "$(dirname "$0")"
COMPILE_TOOL="${{COMPILE_TOOL:-$(command -v compile_tool || echo /opt/intel/openvino_2022/tools/compile_tool/compile_tool)}}"
if [ ! -x "$COMPILE_TOOL" ]; then
  echo "no compile_tool at $COMPILE_TOOL: install the OpenVINO {version} archive, or set COMPILE_TOOL" >&2
  exit 4
fi
{line}
"""
