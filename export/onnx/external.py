"""ONNX of networks over 2 GB, which protobuf cannot hold: the graph in ``NAME.onnx``, the weights beside it in ``NAME.onnx.data``.

The weights go from torch to the disk one tensor at a time, so that memory holds them once. The two files belong together;
ONNX Runtime and OpenVINO read them by the name of the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import onnx
import torch
from torch import nn

from rsedge.data.bands import InputSpec
from rsedge.data.files import sha256_file, write_bytes
from rsedge.data.temporary import TemporaryFolder
from rsedge.export.onnx.graph import TORCH_DTYPES, Deployable
from rsedge.export.onnx.opset import EXPORTED, set_versions
from rsedge.export.onnx.writing import (
    LARGEST,
    OnnxArtefact,
    export_onnx,
    run_exporter,
    set_metadata,
    tidy,
    weight_bytes,
)
from rsedge.runtimes.session import INPUT, LOGITS, VALID

DATA = ".data"
"""Ending of the file of weights, after the whole name of the graph's."""
Finish = Callable[[onnx.ModelProto], None]


def export_whole(graph: Deployable, spec: InputSpec, classes: Sequence[str], path: str | Path) -> OnnxArtefact:
    """As :func:`rsedge.export.onnx.writing.export_onnx` in the exporter's own opset; over 2 GB with the weights beside it.

    Raises:
        RequestError: the network cannot be exported.
    """
    if weight_bytes(graph) <= LARGEST:
        return export_onnx(graph, spec, classes, path)
    sample = torch.zeros(1, *spec.shape, dtype=TORCH_DTYPES[spec.dtype])
    return export_external(
        graph, (sample,), (INPUT,), (LOGITS, VALID), path, lambda model: set_metadata(model, spec, classes)
    )


def export_external(
    net: nn.Module,
    samples: Sequence[torch.Tensor],
    inputs: Sequence[str],
    outputs: Sequence[str],
    path: str | Path,
    finish: Finish = lambda model: None,
) -> OnnxArtefact:
    """Writes ``net(*samples)`` as two files. The weights are in place before the graph that names them.

    Args:
        finish: changes the graph before it is written.

    Raises:
        RequestError: the network cannot be exported.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryFolder(path.parent) as folder:
        made = folder / path.name
        run_exporter(net, tuple(samples), inputs, outputs, EXPORTED).save(made, external_data=True)
        model = onnx.load(made, load_external_data=False)
        tidy(model)
        set_versions(model, EXPORTED)
        finish(model)
        data = path.with_name(path.name + DATA)
        made.with_name(data.name).replace(data)
    write_bytes(path, model.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(path))
    size = path.stat().st_size + data.stat().st_size
    return OnnxArtefact(path=path, opset=EXPORTED, sha256=sha256_file(path), size_bytes=size)
