"""ONNX of networks over 2 GB, which protobuf cannot hold: the graph in ``NAME.onnx``, the weights beside it in ``NAME.onnx.data``.

The weights go from torch to the disk one tensor at a time, so that memory holds them once. The two files belong together;
ONNX Runtime and OpenVINO read them by the name of the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
from torch import nn

from rsedge.data.files import sha256_file, write_bytes
from rsedge.data.temporary import TemporaryFolder
from rsedge.export.onnx.opset import EXPORTED, set_versions
from rsedge.export.onnx.writing import OnnxArtefact, run_exporter, tidy

DATA = ".data"
"""Ending of the file of weights, after the whole name of the graph's."""


def export_external(
    net: nn.Module, samples: Sequence[torch.Tensor], inputs: Sequence[str], outputs: Sequence[str], path: str | Path
) -> OnnxArtefact:
    """Writes ``net(*samples)`` as two files. The weights are in place before the graph that names them.

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
        data = path.with_name(path.name + DATA)
        made.with_name(data.name).replace(data)
    write_bytes(path, model.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(path))
    size = path.stat().st_size + data.stat().st_size
    return OnnxArtefact(path=path, opset=EXPORTED, sha256=sha256_file(path), size_bytes=size)
