"""Run by an interpreter that has OpenVINO 2022.3 and NumPy: converts and runs models there. Not used by rsedge itself.

That release is the last that knows the Myriad X. It needs NumPy below 1.24 and Python 3.10 or older, so it lives in an
environment of its own (:mod:`rsedge.runtimes.myriad.process`). Uses only the standard library, NumPy and OpenVINO.

``convert MODEL.onnx OUT.xml META.json``: fp16 weights, static shapes; one JSON line with every operation on stdout.
``serve DEVICE THREADS``: takes an IR's graph and its weights from stdin, answers one JSON line, then for each array read from stdin
two arrays on stdout, logits and valid. Each content comes after eight bytes with its length, big-endian; an array's is .npy.
"""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np


def answer(sink: BinaryIO, fields: dict[str, Any]) -> None:
    sink.write((json.dumps(fields) + "\n").encode())
    sink.flush()


def send(sink: BinaryIO, array: Any) -> None:
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    sink.write(len(content.getbuffer()).to_bytes(8, "big"))
    sink.write(content.getbuffer())


def receive_bytes(source: BinaryIO) -> Any:
    """The next content; None at the end."""
    length = source.read(8)
    if len(length) < 8:
        return None
    return source.read(int.from_bytes(length, "big"))


def receive(source: BinaryIO) -> Any:
    """The next array; None at the end."""
    content = receive_bytes(source)
    return None if content is None else np.load(io.BytesIO(content), allow_pickle=False)


def describe(node: Any) -> dict[str, Any]:
    attributes = node.get_attributes()
    return {
        "type": node.get_type_name(),
        "name": node.get_friendly_name(),
        "inputs": [i.get_element_type().get_type_name() for i in node.inputs()],
        "outputs": [o.get_element_type().get_type_name() for o in node.outputs()],
        "attributes": {k: attributes[k] for k in ("mode", "pads_begin", "pads_end") if k in attributes},
    }


def convert(source: str, target: str, metadata: str) -> dict[str, Any]:
    from openvino.offline_transformations import apply_moc_transformations, compress_model_transformation
    from openvino.runtime import Core, get_version
    from openvino.runtime.passes import Manager

    model = Core().read_model(source)
    if model.is_dynamic():
        return {"error": "the graph has dynamic shapes"}
    apply_moc_transformations(model, True)
    operations = [describe(n) for n in model.get_ordered_ops() if n.get_type_name() not in ("Constant", "Result")]
    compress_model_transformation(model)
    for key, value in json.loads(Path(metadata).read_text(encoding="utf-8")).items():
        model.set_rt_info(value, [key])
    passes = Manager()
    passes.register_pass("Serialize", xml_path=target, bin_path=os.path.splitext(target)[0] + ".bin")  # noqa: PTH122
    passes.run_passes(model)
    return {"operations": operations, "version": get_version()}


def name_of(port: Any) -> str:
    """The contract's name, where a tensor has several."""
    return next((n for n in ("dn", "logits", "valid") if n in port.get_names()), port.get_any_name())


def load(core: Any, source: BinaryIO, device: str, threads: str) -> Any:
    graph, weights = receive_bytes(source), receive_bytes(source)
    # Where the CPU has bf16 this release computes in it unasked; it stands in for a VPU, which computes in fp16.
    settings = {"INFERENCE_NUM_THREADS": threads, "ENFORCE_BF16": "NO"} if device == "CPU" else {}
    return core.compile_model(core.read_model(graph, weights), device, settings)


def serve(device: str, threads: str, sink: BinaryIO) -> None:
    from openvino.runtime import Core, get_version

    core = Core()
    if device not in {d.partition(".")[0] for d in core.available_devices}:
        answer(sink, {"missing": device, "found": list(core.available_devices), "version": get_version()})
        return
    compiled = load(core, sys.stdin.buffer, device, threads)
    request = compiled.create_infer_request()
    inputs = {name_of(i): [list(i.shape), i.get_element_type().get_type_name()] for i in compiled.inputs}
    answer(sink, {"version": get_version(), "inputs": inputs, "outputs": [name_of(o) for o in compiled.outputs]})
    while (dn := receive(sys.stdin.buffer)) is not None:
        request.infer([dn])
        for name in ("logits", "valid"):
            send(sink, request.get_tensor(name).data)
        sink.flush()


def main(command: str, *arguments: str) -> None:
    # Plugins print to stdout at will: answers keep the real one, the rest goes to stderr.
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        if command == "convert":
            answer(sink, convert(*arguments))
        else:
            device, threads = arguments
            serve(device, threads, sink)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        answer(sink, {"error": " ".join(lines[-3:])})


if __name__ == "__main__":
    main(*sys.argv[1:])
