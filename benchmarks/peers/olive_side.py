"""Runs in Olive's own venv, without rsedge: one pass of static INT8 with its defaults.

Outputs that are constants (``valid`` of chips) are put aside meanwhile: Olive's calibration drops a model's outputs by the node
that makes them, and a constant has none.

.venv-olive/bin/python benchmarks/peers/olive_side.py MODEL.onnx TILES.npy OUTPUT.onnx
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from olive.data.config import DataComponentConfig, DataConfig
from olive.data.registry import Registry
from olive.model import ONNXModelHandler
from olive.passes.olive_pass import create_pass_from_dict
from olive.passes.onnx.quantization import OnnxStaticQuantization
from onnxruntime.quantization.calibrate import CalibrationDataReader

LOADER = "calibration_tiles"


class Tiles(CalibrationDataReader):
    """Tiles (N, C, T, T) one by one."""

    def __init__(self, tiles: np.ndarray) -> None:
        self._left: Iterator[np.ndarray] = iter(tiles)

    def get_next(self) -> dict[str, np.ndarray] | None:
        tile = next(self._left, None)
        return None if tile is None else {"dn": tile[None]}


def main(model: str, tiles: str, output: str) -> None:
    @Registry.register_dataloader(LOADER)
    def loader(dataset: Any, **_: Any) -> Tiles:
        return Tiles(np.load(tiles, allow_pickle=False))

    data = DataConfig(
        name="tiles",
        load_dataset_config=DataComponentConfig(type="simple_dataset"),
        dataloader_config=DataComponentConfig(type=LOADER),
    )
    olive = create_pass_from_dict(OnnxStaticQuantization, {"data_config": data}, disable_search=True)
    with tempfile.TemporaryDirectory() as folder:
        computed = Path(folder) / "computed.onnx"
        onnx.save(without_constants(onnx.load(model)), computed)
        made = olive.run(ONNXModelHandler(str(computed)), str(Path(folder) / "quantized"))
        onnx.save(with_constants(onnx.load(made.model_path), onnx.load(model)), output)


def constant_outputs(model: onnx.ModelProto) -> set[str]:
    """Names of outputs that no node computes."""
    return {one.name for one in model.graph.initializer} & {one.name for one in model.graph.output}


def without_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same object without its constant outputs."""
    constant, graph = constant_outputs(model), model.graph
    for kind in (graph.output, graph.initializer):
        kept = [one for one in kind if one.name not in constant]
        del kind[:]
        kind.extend(kept)
    return model


def with_constants(made: onnx.ModelProto, source: onnx.ModelProto) -> onnx.ModelProto:
    """``made`` with the constant outputs of the model that it was made of."""
    constant = constant_outputs(source)
    made.graph.output.extend(one for one in source.graph.output if one.name in constant)
    made.graph.initializer.extend(one for one in source.graph.initializer if one.name in constant)
    return made


if __name__ == "__main__":
    main(*sys.argv[1:])
