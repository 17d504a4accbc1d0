"""One row at its published size: built with random weights, exported to ONNX, read into OpenVINO, deleted.

``python -m tests.export.full_size NAME FOLDER`` prints what it took as JSON; a process of its own gives all memory back.
"""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from rsedge.export.onnx.graph import Deployable
from rsedge.export.onnx.writing import LARGEST, export_onnx, weight_bytes
from rsedge.export.parts import export_part
from rsedge.export.targets.openvino import read_openvino
from rsedge.models.families import family
from rsedge.models.parts import Part
from rsedge.models.zoo import TeacherRow, teacher_row


def memory_needed(row: TeacherRow) -> int:
    """Bytes at the peak that the machine cannot take back, estimated: what the tools take, and the weights some times over.

    Up to 2 GB the exporter, protobuf and OpenVINO hold a copy each. Over 2 GB the weights stream from torch to the disk and
    OpenVINO maps the file; two copies meet in the exporter.
    """
    weights = 4 * row.params
    return (2 << 30) + weights * 5 if weights <= LARGEST else (1 << 30) + weights * 2


def graphs(row: TeacherRow) -> dict[str, Part | Deployable]:
    """What is deployed: the family's parts, or the one graph with the band contract around it."""
    torch.manual_seed(0)
    found = family(row.family)
    net: nn.Module = found.build(**row.arch).eval().requires_grad_(False)
    if found.parts is not None:
        return dict(found.parts(net))
    if weight_bytes(net) > LARGEST:
        return {"net": Part(net, {"image": torch.zeros(1, *row.input_spec.shape)}, ("features",))}
    return {"net": Deployable(net, row.input_spec, "map" if row.task == "segmentation" else "vector")}


def export_full(row: TeacherRow, folder: Path) -> dict[str, Any]:
    """Nodes and bytes over all graphs, seconds from building to OpenVINO's last, peak memory (bytes, with mapped files)."""
    start = time.perf_counter()
    nodes = size = operations = 0
    waiting = graphs(row)
    while waiting:
        label, graph = waiting.popitem()
        path = folder / f"{label}.onnx"
        if isinstance(graph, Part):
            made = export_part(graph, path)
        else:
            classes = [f"c{i}" for i in range(graph.classes)]
            made = export_onnx(graph, row.input_spec, classes, path, input_dtype="float32")
        del graph
        gc.collect()
        nodes += len(onnx.load(path, load_external_data=False).graph.node)
        size += made.size_bytes
        operations += len(read_openvino(path).get_ops())
        for file in folder.iterdir():
            file.unlink()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = time.perf_counter() - start
    return {"nodes": nodes, "operations": operations, "bytes": size, "seconds": seconds, "peak": peak}


if __name__ == "__main__":
    torch.set_num_threads(2)
    print(json.dumps(export_full(teacher_row(sys.argv[1]), Path(sys.argv[2]))))
