"""INT8 for LiteRT: integer layers that agree with f32 on real tiles, raw numbers left alone, settings that are heeded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rsedge.compress.quantize import litert
from rsedge.compress.quantize.litert import (
    COMPUTE,
    PLAIN,
    _mean_response,
    is_litert_transformer,
    litert_ladder,
    litert_layers,
    quantize_litert,
)
from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.errors import RequestError
from rsedge.export.onnx.graph import Deployable
from rsedge.export.targets.litert import export_litert, read_litert_metadata
from rsedge.models.students import build_student
from rsedge.runtimes.litert.flatbuffer import kind_of, read_model
from rsedge.runtimes.litert.session import LiteRtSession
from tests.compress.real_tiles import MEAN, STD, TILE, real_tiles, trained_student

SPEC = InputSpec(
    bands=tuple(BandSpec(name=f"b{i}", scale=1e-4, nodata=0.0, mean=MEAN, std=STD) for i in range(6)), tile=TILE
)
CLASSES = ("dark", "middle", "bright")
INT8 = 9


@pytest.fixture(scope="module")
def tiles() -> list[Any]:
    return real_tiles(16)


@pytest.fixture(scope="module")
def exported(tiles: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("litert") / "f32.tflite"
    return export_litert(Deployable(trained_student(tiles), SPEC), path, SPEC, CLASSES).path


@pytest.fixture(scope="module")
def quantized(exported: Path, tiles: list[Any]) -> Path:
    target = exported.with_name("int8.tflite")
    record = quantize_litert(exported, target, tiles[:12])
    assert record.quantized == record.layers == record.corrected == len(litert_layers(exported)) > 8
    assert record.calibration.tiles == 12
    return target


def classes(path: Path, tiles: list[Any]) -> Any:
    session = LiteRtSession(path, None, threads=1)
    return np.concatenate([session({"dn": t[None]})["logits"].argmax(1) for t in tiles])


def types(path: Path, *kinds: str) -> list[int]:
    """Types of what operations of some kinds read first."""
    model = read_model(path.read_bytes())
    graph = model.subgraphs[0]
    return [graph.tensors[o.inputs[0]].type for o in graph.operators if kind_of(model, o) in kinds]


def test_it_agrees_with_f32_on_tiles_it_was_not_calibrated_on(
    exported: Path, quantized: Path, tiles: list[Any]
) -> None:
    assert np.mean(classes(exported, tiles[12:]) == classes(quantized, tiles[12:])) > 0.97


def test_layers_are_int8_and_raw_numbers_are_not(quantized: Path) -> None:
    assert set(types(quantized, *COMPUTE)) == {INT8}
    assert INT8 not in types(quantized, "SLICE", "MAXIMUM", "GREATER", "SELECT_V2")
    session = LiteRtSession(quantized, None)
    assert session._dtype == np.float32  # type: ignore[attr-defined]


def test_it_is_about_a_quarter_of_the_size_and_keeps_the_contract(exported: Path, quantized: Path) -> None:
    assert quantized.stat().st_size < 0.5 * exported.stat().st_size  # a tiny network is half structure
    assert read_litert_metadata(quantized) == (SPEC, CLASSES)


def test_the_same_tiles_give_the_same_bytes(exported: Path, quantized: Path, tiles: list[Any]) -> None:
    again = exported.with_name("again.tflite")
    quantize_litert(exported, again, tiles[:12])
    assert again.read_bytes() == quantized.read_bytes()


def test_layers_stay_in_float_where_asked(exported: Path, tiles: list[Any]) -> None:
    names, target = litert_layers(exported), exported.with_name("float.tflite")
    for settings, rounded in (
        ({"float_layers": "first-last"}, len(names) - 2),
        ({"float_layers": "last"}, len(names) - 1),
        ({"float_names": names[2:5]}, len(names) - 3),
    ):
        record = quantize_litert(exported, target, tiles[:8], PLAIN.model_copy(update=settings))
        assert record.quantized == types(target, *COMPUTE).count(INT8) == rounded


def test_every_rung_of_the_ladder_is_a_graph_of_its_own(exported: Path, tiles: list[Any]) -> None:
    made = set()
    for number, rung in enumerate(litert_ladder(transformer=False)):
        path = exported.with_name(f"rung-{number}.tflite")
        quantize_litert(exported, path, tiles[:8], rung)
        made.add(path.read_bytes())
        assert np.mean(classes(exported, tiles[12:]) == classes(path, tiles[12:])) > 0.9
    assert len(made) == len(litert_ladder(transformer=False))


def test_what_it_does_not_have_is_refused(exported: Path, tiles: list[Any], tmp_path: Path) -> None:
    for settings, words in (
        ({"smooth_quant": 0.5}, "SmoothQuant"),
        ({"bias_correction": "full"}, "full bias correction"),
        ({"range_estimator": "histogram"}, "ranges by histogram"),
        ({"activations": "float"}, "weights alone"),
        ({"float_names": ("no/such",)}, "no layer 'no/such'"),
    ):
        with pytest.raises(RequestError, match=words):
            quantize_litert(exported, tmp_path / "x.tflite", tiles, PLAIN.model_copy(update=settings))
    with pytest.raises(RequestError, match="no calibration tiles"):
        quantize_litert(exported, tmp_path / "x.tflite", [])
    assert not list(tmp_path.iterdir())


def test_biases_take_back_the_mean_of_what_rounding_adds(
    tiles: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights beside a large one that all round to 0, on inputs that are never negative."""
    spec = InputSpec(
        bands=tuple(BandSpec(name=f"b{i}", scale=1e-4, nodata=0.0, mean=0.0, std=1.0) for i in range(6)), tile=TILE
    )
    net = nn.Conv2d(6, 3, 1)
    with torch.no_grad():
        net.weight.fill_(0.45 / 127)
        net.weight[:, 0] = 1.0
    source = export_litert(Deployable(net, spec), tmp_path / "f32.tflite", spec, CLASSES).path

    def shift() -> float:
        quantize_litert(source, tmp_path / "int8.tflite", tiles)
        f32, int8 = (LiteRtSession(path, None) for path in (source, tmp_path / "int8.tflite"))
        gaps = [int8({"dn": t[None]})["logits"] - f32({"dn": t[None]})["logits"] for t in tiles]
        return abs(float(np.mean(gaps)))

    corrected = shift()
    monkeypatch.setattr(litert, "_correct_biases", lambda *_: 0)
    assert corrected < 0.25 * shift()


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_mean_response_is_that_of_a_convolution(groups: int) -> None:
    """Of inputs that are the same at every pixel, in torch."""
    generator = torch.Generator().manual_seed(groups)
    weight, mean = torch.randn(8, 4 // groups, 3, 3, generator=generator), torch.randn(4, generator=generator)
    wanted = nn.functional.conv2d(mean[None, :, None, None].expand(1, 4, 3, 3), weight, groups=groups)[0, :, 0, 0]
    stored = weight[:, 0].permute(1, 2, 0)[None] if groups == 4 else weight.permute(0, 2, 3, 1)  # as LiteRT keeps them
    found = _mean_response(stored.numpy(), mean.numpy(), groups == 4)
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-5, atol=1e-5)


def test_a_network_with_padded_maxima(tmp_path: Path, tiles: list[Any]) -> None:
    """ResNet's first pooling pads with -infinity, which has no 8 bits."""
    torch.manual_seed(0)
    net = build_student("resnet18", {"bands": 6, "classes": 3}).eval()
    source = export_litert(Deployable(net, SPEC, "vector"), tmp_path / "f32.tflite", SPEC, CLASSES).path
    record = quantize_litert(source, tmp_path / "int8.tflite", tiles[:8])
    assert record.quantized == record.layers
    f32, int8 = (LiteRtSession(tmp_path / name, None) for name in ("f32.tflite", "int8.tflite"))
    for tile in tiles[12:]:
        wanted, found = (s({"dn": tile[None]})["logits"] for s in (f32, int8))
        assert np.abs(wanted - found).max() < 0.2 * max(1.0, np.abs(wanted).max())


def test_of_a_transformer_only_the_products_are_rounded(tmp_path: Path, tiles: list[Any]) -> None:
    torch.manual_seed(0)
    net = build_student("vit-tiny", {"bands": 6, "classes": 3, "tile": TILE, "depth": 2}).eval()
    source = export_litert(Deployable(net, SPEC, "vector"), tmp_path / "f32.tflite", SPEC, CLASSES).path
    assert is_litert_transformer(source)
    record = quantize_litert(source, tmp_path / "int8.tflite", tiles[:4])
    assert record.quantized == record.layers
    assert INT8 not in types(tmp_path / "int8.tflite", "SOFTMAX", "RSQRT", "GELU", "MEAN")
