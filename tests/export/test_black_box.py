"""ONNX files as black boxes: the graph with its band contract answers as the file does, real weights and odd files."""

from __future__ import annotations

from importlib import util
from pathlib import Path

import numpy as np
import onnx
import openvino as ov
import pytest
import torch
from torch import nn

from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.errors import RequestError
from rsedge.export.black_box import black_box_network, deployable_black_box
from rsedge.export.onnx.graph import Deployable
from rsedge.models.black_box import BlackBox

SPEC = InputSpec(
    bands=tuple(BandSpec(name=n, scale=1e-4, mean=0.3, std=0.2, nodata=0) for n in ("red", "green", "nir")), tile=32
)


class _Two(nn.Module):
    """Class scores per pixel as logits and as probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.body(x)
        return logits, logits.softmax(1)


def written(folder: Path, net: nn.Module, outputs: list[str], tile: int = 32, free: bool = False) -> Path:
    torch.manual_seed(0)
    path = folder / "teacher.onnx"
    shapes = ({0: torch.export.Dim("n")},) if free else None
    torch.onnx.export(
        net.eval(), (torch.zeros(2 if free else 1, 3, tile, tile),), path, dynamo=True, verbose=False, input_names=["x"],
        output_names=outputs, dynamic_shapes=shapes,
    )  # fmt: skip
    return path


def compiled(model: ov.Model) -> ov.CompiledModel:
    return ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})


def test_the_deployable_graph_is_the_contract_and_the_file(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    box = BlackBox(str(written(tmp_path, net, ["out"], free=True)), SPEC)
    graph = Deployable(box, SPEC)
    dn = np.random.default_rng(0).integers(1, 9000, (1, *SPEC.shape)).astype(np.uint16)
    dn[..., :5, :] = 0
    found = compiled(deployable_black_box(graph, box))({"dn": dn})
    logits, valid = Deployable(net, SPEC)(torch.from_numpy(dn))
    assert np.abs(found["logits"] - logits.detach().numpy()).max() < 1e-4
    assert np.array_equal(found["valid"], valid.numpy()) and not found["valid"][0, :5].any()
    assert box.weights == sum(p.numel() for p in net.parameters())


def test_the_output_that_is_named_is_taken_and_a_softmax_becomes_logits(tmp_path: Path) -> None:
    path = written(tmp_path, _Two(), ["logits", "shares"])
    with pytest.raises(
        RequestError, match=r"gives 2 outputs \(logits, shares\); name one: onnx:.*teacher\.onnx#logits"
    ):
        BlackBox(str(path), SPEC)
    with pytest.raises(RequestError, match="no output 'other'; it gives logits, shares"):
        BlackBox(f"{path}#other", SPEC)
    logits, shares = BlackBox(f"{path}#logits", SPEC), BlackBox(f"{path}#shares", SPEC)
    assert shares.answer.inside == "softmax" and logits.answer.inside == "logits"
    x = torch.randn(3, *SPEC.shape)
    assert torch.allclose(shares(x).softmax(1), logits(x).softmax(1), atol=1e-6)
    on_openvino = compiled(black_box_network(shares, SPEC))(x[:1].numpy())[0]
    assert np.abs(on_openvino - shares(x[:1]).numpy()).max() < 1e-4


def test_a_file_of_another_shape_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, nn.Conv2d(3, 4, 3, padding=1), ["out"], tile=64)
    with pytest.raises(
        RequestError, match=r"it takes \(1, 3, 64, 64\), the contract under input gives \(1, 3, 32, 32\)"
    ):
        BlackBox(str(path), SPEC)
    model = onnx.load(path)
    for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim, (1, 32, 32, 3), strict=True):
        dim.dim_value = size
    last = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [model.graph.input[0]],
            [onnx.helper.make_tensor_value_info("y", 1, (1, 32, 32, 3))],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10,
    )  # fmt: skip
    onnx.save(last, tmp_path / "last.onnx")
    with pytest.raises(RequestError, match="its bands come last: export it with bands first"):
        BlackBox(str(tmp_path / "last.onnx"), SPEC)


def test_the_digest_follows_the_file_and_the_weights_beside_it(tmp_path: Path) -> None:
    path = written(tmp_path, nn.Conv2d(3, 4, 3, padding=1), ["out"])
    first = BlackBox(str(path), SPEC).digest
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    apart = BlackBox(str(path), SPEC)
    raw = bytearray((tmp_path / "weights.bin").read_bytes())
    raw[0] ^= 1
    (tmp_path / "weights.bin").write_bytes(raw)
    digests = [first, apart.digest, BlackBox(str(path), SPEC).digest]
    assert len({bytes(d.numpy()) for d in digests}) == 3


def test_the_published_cloud_mask_graph_answers_as_its_weights_in_torch_do() -> None:
    pytest.importorskip("ukis_csmask")
    from rsedge.models.teachers import load_teacher

    found = util.find_spec("ukis_csmask")
    assert found is not None and found.submodule_search_locations
    teacher = load_teacher("ukis-csmask-4b-l2a")
    spec = teacher.spec.input_spec
    box = BlackBox(str(Path(next(iter(found.submodule_search_locations))) / "model_4b_l2a.onnx"), spec)
    x = torch.randn(1, *spec.shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        same = teacher(x).argmax(1) == box(x).argmax(1)
    # The published graph computes in half precision.
    assert same.float().mean() > 0.99
