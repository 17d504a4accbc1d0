"""An OpenVINO IR is the ONNX file's graph: the same products and weights, and nearly the same prediction."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rsedge.data.errors import RequestError
from rsedge.devices.predict.latency import predict
from rsedge.devices.predict.onnx_graph import graph_cost
from rsedge.devices.profiles.profile import load_profile


class Mixed(nn.Module):
    """Plain, depthwise, grouped and transposed convolutions, attention and a matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Hardswish(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1, groups=4), nn.MaxPool2d(2), nn.ConvTranspose2d(32, 16, 2, stride=2),
            nn.ConvTranspose2d(16, 16, 2, stride=2, groups=4),
        )  # fmt: skip
        self.to_three, self.head = nn.Linear(16, 48), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = nn.functional.avg_pool2d(self.maps(x), 4).flatten(2).transpose(1, 2)
        q, k, v = self.to_three(tokens)[:, None].chunk(3, dim=-1)
        return self.head(nn.functional.scaled_dot_product_attention(q, k, v)[:, 0].mean(1))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``net.onnx``, ``net.xml`` and ``int8.xml``, rounded by NNCF."""
    import openvino as ov

    nncf = pytest.importorskip("nncf")
    folder = tmp_path_factory.mktemp("ir")
    torch.manual_seed(0)
    example = torch.rand(1, 3, 64, 64)
    torch.onnx.export(Mixed().eval(), (example,), str(folder / "net.onnx"), dynamo=True, verbose=False)
    model = ov.convert_model(folder / "net.onnx")
    ov.save_model(model, folder / "net.xml")
    ov.save_model(nncf.quantize(model, nncf.Dataset([example.numpy()]), subset_size=1), folder / "int8.xml")
    return folder


def test_products_weights_and_prediction_are_those_of_the_onnx_file(files: Path) -> None:
    first, second, rounded = (graph_cost(files / name) for name in ("net.onnx", "net.xml", "int8.xml"))
    assert first.macs == second.macs == rounded.macs > 1e6
    assert first.weights == second.weights == rounded.weights
    kinds = [sorted(k.kind for k in cost.kernels if k.macs) for cost in (first, second, rounded)]
    assert kinds[0] == kinds[1] == kinds[2] and {"depthwise", "conv", "matmul", "attention"} == set(kinds[0])
    assert not second.explicit_int8 and rounded.explicit_int8
    assert sum(k.quantized for k in rounded.kernels) >= 4
    profile = load_profile("atom-x7425e")
    for precision in ("f32", "int8"):
        of_onnx, of_ir = (predict(files / name, profile, precision, "openvino") for name in ("net.onnx", "net.xml"))
        assert of_ir.mid_ms == pytest.approx(of_onnx.mid_ms, rel=0.15)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text[: len(text) // 2], "no OpenVINO IR, or cut short"),
        (lambda text: "<net></net>", "no layers"),
        (lambda text: text.replace("<net", '<!DOCTYPE net [<!ENTITY a "b">]><net', 1), "document type"),
        (lambda text: text.replace("<dim>64</dim>", "<dim>-1</dim>", 1), "is not fixed"),
        (lambda text: text.replace('type="MaxPool"', 'type="Loop"', 1), "products inside its Loop"),
        (lambda text: text.replace('from-layer="0"', 'from-layer="99999"', 1), "nothing goes into layer"),
    ],
)
def test_what_is_no_such_file_is_refused(files: Path, tmp_path: Path, change: object, words: str) -> None:
    assert callable(change)
    (tmp_path / "bad.xml").write_text(change((files / "net.xml").read_text()))
    with pytest.raises(RequestError, match=f"bad.xml: .*{words}"):
        graph_cost(tmp_path / "bad.xml")


def test_layers_of_any_order_and_a_circle_come_to_an_end(files: Path, tmp_path: Path) -> None:
    text = (files / "net.xml").read_text()
    layers = text.split("\t\t<layer ")
    head, body = layers[0], layers[1:]
    last, end = body[-1].split("\t</layers>")
    shuffled = [*body[:-1], last]
    np.random.default_rng(0).shuffle(shuffled)
    (tmp_path / "mixed.xml").write_text(head + "".join(f"\t\t<layer {one}" for one in shuffled) + "\t</layers>" + end)
    assert graph_cost(tmp_path / "mixed.xml").macs == graph_cost(files / "net.xml").macs
    (edge,) = [
        line
        for line in text.splitlines()
        if "<edge " in line and line.endswith(f'to-layer="{pool(text)}" to-port="0" />')
    ]
    own = re.sub(r'from-layer="\d+"', f'from-layer="{pool(text)}"', edge)
    (tmp_path / "circle.xml").write_text(text.replace(edge, own))
    with pytest.raises(RequestError, match="circle"):
        graph_cost(tmp_path / "circle.xml")


def pool(text: str) -> str:
    """The number of its only pooling of maxima."""
    return re.findall(r'<layer id="(\d+)" name="[^"]*" type="MaxPool"', text)[0]
