"""Runs in Olive's own venv, without rsedge: one pass of static INT8 with its defaults.

.venv-olive/bin/python benchmarks/peers/olive_side.py MODEL.onnx TILES.npy OUTPUT.onnx
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
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
        made = olive.run(ONNXModelHandler(model), str(Path(folder) / "quantized"))
        shutil.copyfile(made.model_path, output)


if __name__ == "__main__":
    main(*sys.argv[1:])
