"""The So2Sat ResNet-20, read from its Keras file, against a forward pass in numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from rsedge.data.errors import IntegrityError, RequestError
from rsedge.data.root import data_root
from rsedge.models.checkpoint import read_tensors
from rsedge.models.families.keras_resnet import KerasResNet
from rsedge.models.teachers import load_teacher, sniff
from tests.conftest import Results

WEIGHTS = data_root() / "so2sat_resnet20" / "s2_resnet20.h5"
real = pytest.mark.skipif(not WEIGHTS.is_file(), reason="RSEDGE_DATA has no So2Sat ResNet-20")
Weights = dict[str, np.ndarray]


def conv(x: np.ndarray, w: Weights, number: int, stride: int = 1) -> np.ndarray:
    """Keras's ``same`` convolution of (H, W, in) in float64, as a sum over kernel positions."""
    kernel, bias = w[f"conv2d_{number}/kernel:0"], w[f"conv2d_{number}/bias:0"]
    size = kernel.shape[0]
    height, width = (-(-n // stride) for n in x.shape[:2])
    reach = max((height - 1) * stride + size - x.shape[0], 0)
    padded = np.pad(x, ((reach // 2, reach - reach // 2),) * 2 + ((0, 0),))
    out = np.zeros((height, width, kernel.shape[-1])) + bias
    for i in range(size):
        for j in range(size):
            part = padded[i : i + (height - 1) * stride + 1 : stride, j : j + (width - 1) * stride + 1 : stride]
            out += part @ kernel[i, j]
    return out


def norm_relu(x: np.ndarray, w: Weights, number: int) -> np.ndarray:
    gamma, beta, mean, variance = (
        w[f"batch_normalization_{number}/{n}:0"] for n in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    return np.maximum((x - mean) / np.sqrt(variance + 1e-3) * gamma + beta, 0)


def by_hand(x: np.ndarray, w: Weights) -> np.ndarray:
    """(32, 32, 10) -> logits, layer by layer as the published network lists them."""
    x = norm_relu(conv(x, w, 1), w, 1)
    y = conv(norm_relu(conv(norm_relu(conv(x, w, 2), w, 2), w, 3), w, 3), w, 4)
    x = y + conv(x, w, 5)
    y = conv(norm_relu(conv(norm_relu(conv(norm_relu(x, w, 4), w, 6), w, 5), w, 7), w, 6), w, 8)
    x = x + y
    for first_conv, first_norm in ((9, 7), (16, 13)):
        c, n = first_conv, first_norm
        y = conv(norm_relu(conv(norm_relu(conv(norm_relu(x, w, n), w, c, 2), w, n + 1), w, c + 1), w, n + 2), w, c + 2)
        x = y + conv(x, w, c + 3, 2)
        c, n = c + 4, n + 3
        y = conv(norm_relu(conv(norm_relu(conv(norm_relu(x, w, n), w, c), w, n + 1), w, c + 1), w, n + 2), w, c + 2)
        x = x + y
    return norm_relu(x, w, 19).mean((0, 1)) @ w["dense_1/kernel:0"] + w["dense_1/bias:0"]


@real
def test_predictions_equal_numpys_on_real_chips(results: Results) -> None:
    chips = sorted((WEIGHTS.parents[1] / "sentinel2_chips").glob("*.tif"))
    teacher = load_teacher("so2sat-resnet20", WEIGHTS)
    weights = {k: v.double().numpy() for k, v in read_tensors(WEIGHTS).items()}
    order = [1, 2, 3, 4, 5, 6, 7, 8, 10, 11]  # B2 to B8A, B11, B12 of 12 bands without B10
    tiles = []
    for chip in chips:
        with rasterio.open(chip) as file:
            dn = file.read()[order]
        tiles += [dn[:, i : i + 32, j : j + 32] for i, j in ((0, 0), (64, 96), (200, 30))]
    normalised = teacher.spec.input_spec.normalise(np.stack(tiles).astype(np.uint16))
    expected = np.stack([by_hand(tile.transpose(1, 2, 0).astype(np.float64), weights) for tile in normalised])
    with torch.inference_mode():
        found = teacher(torch.from_numpy(normalised)).numpy()
    assert len(set(expected.argmax(1))) > 1
    assert (found.argmax(1) == expected.argmax(1)).all()
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    results.setdefault("so2sat-resnet20", {}).update(formulas="numpy, real weights", file="real file loads, recognised")


@real
def test_the_keras_file_is_recognised_and_has_all_values(tmp_path: Path) -> None:
    assert sniff(WEIGHTS) == ["so2sat-resnet20"]
    assert sum(v.numel() for v in read_tensors(WEIGHTS).values()) == 576897
    (tmp_path / "cut.h5").write_bytes(WEIGHTS.read_bytes()[:100000])
    with pytest.raises(IntegrityError, match=r"cut\.h5: damaged HDF5 file"):
        load_teacher("so2sat-resnet20", tmp_path / "cut.h5")


def test_a_depth_that_cannot_be_is_refused() -> None:
    with pytest.raises(RequestError, match=r"9 \* blocks \+ 2 \(11, 20, 29 \.\.\.\), not 18"):
        KerasResNet(10, 17, 18)
