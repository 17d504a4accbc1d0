"""MACs are exact on graphs counted by hand; predictions are ordered as physics orders them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save_model

from rsedge.data.errors import RequestError
from rsedge.devices.predict.latency import predict, predict_target
from rsedge.devices.predict.onnx_graph import count_macs, graph_cost
from rsedge.devices.profiles.profile import load_profile

ORIN = "jetson-orin-nano-8gb"


def save(path: Path, nodes: list, shapes: dict, initial: dict[str, np.ndarray]) -> Path:
    def info(name: str) -> object:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name])

    tensors = [numpy_helper.from_array(v, k) for k, v in initial.items()]
    graph = helper.make_graph(nodes, "g", [info("x")], [info("y")], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    save_model(model, str(path))
    return path


def convs(path: Path, width: int, depth: int = 6, size: int = 64) -> Path:
    """``depth`` 3x3 convolutions with ReLU at ``width`` channels."""
    nodes, initial, name = [], {}, "x"
    for i in range(depth):
        initial[f"w{i}"] = np.zeros((width, width, 3, 3), np.float32)
        nodes.append(helper.make_node("Conv", [name, f"w{i}"], [f"c{i}"], pads=[1, 1, 1, 1]))
        name = "y" if i == depth - 1 else f"r{i}"
        nodes.append(helper.make_node("Relu", [f"c{i}"], [name]))
    return save(path, nodes, {"x": [1, width, size, size], "y": [1, width, size, size]}, initial)


def test_macs_of_convolutions(tmp_path: Path) -> None:
    path = convs(tmp_path / "m.onnx", 16, depth=2, size=8)
    assert count_macs(path) == 2 * 16 * 16 * 9 * 64
    cost = graph_cost(path)
    assert [k.kind for k in cost.kernels] == ["conv", "conv"]
    assert cost.kernels[0].fused == ["Relu"]


def test_macs_of_depthwise_transposed_and_matmul(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "d"], ["a"], group=8, pads=[1, 1, 1, 1]),
        helper.make_node("ConvTranspose", ["a", "t"], ["b"], strides=[2, 2]),
        helper.make_node("Reshape", ["b", "shape"], ["c"]),
        helper.make_node("MatMul", ["c", "m"], ["y"]),
    ]
    initial = {
        "d": np.zeros((8, 1, 3, 3), np.float32),
        "t": np.zeros((8, 4, 2, 2), np.float32),
        "shape": np.array([4, 64], np.int64),
        "m": np.zeros((64, 10), np.float32),
    }
    path = save(tmp_path / "m.onnx", nodes, {"x": [1, 8, 4, 4], "y": [4, 10]}, initial)
    cost = graph_cost(path)
    assert [(k.kind, k.macs) for k in cost.kernels] == [
        ("depthwise", 8 * 9 * 16),
        ("conv", 8 * 16 * 4 * 4),
        ("matmul", 4 * 64 * 10),
    ]


def test_attention_takes_its_softmax_in(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["k"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["x", "k"], ["s"]),
        helper.make_node("Softmax", ["s"], ["p"]),
        helper.make_node("MatMul", ["p", "x"], ["y"]),
    ]
    path = save(tmp_path / "m.onnx", nodes, {"x": [1, 16, 8], "y": [1, 16, 8]}, {})
    cost = graph_cost(path)
    assert [k.kind for k in cost.kernels] == ["move", "attention", "attention"]
    assert cost.macs == 2 * 16 * 16 * 8


def test_bigger_is_slower_and_always_an_interval(tmp_path: Path) -> None:
    small, big = convs(tmp_path / "s.onnx", 32), convs(tmp_path / "b.onnx", 128)
    for name, precision in ((ORIN, "fp16"), ("myriad-x", "fp16"), ("cpu", "f32")):
        a, b = (predict(p, load_profile(name), precision) for p in (small, big))
        assert a.mid_ms < b.mid_ms
        for p in (a, b):
            assert 0 < p.low_ms < p.mid_ms < p.high_ms
            assert p.provenance == "predicted"
            assert "predicted" in p.basis
            assert str(p).startswith("predicted")
            assert sum(p.share.values()) <= 1.0001


def test_int8_is_not_slower_where_convolutions_dominate(tmp_path: Path) -> None:
    path = convs(tmp_path / "b.onnx", 256)
    int8, fp16, f32 = (predict(path, load_profile(ORIN), p).mid_ms for p in ("int8", "fp16", "f32"))
    assert int8 <= fp16 <= f32


def test_faster_board_is_faster(tmp_path: Path) -> None:
    path = convs(tmp_path / "b.onnx", 128)
    agx = predict_target(path, "tensorrt-jetson-agx-orin-64gb-fp16")
    nano = predict_target(path, f"tensorrt-{ORIN}-fp16")
    assert agx.mid_ms < nano.mid_ms < predict_target(path, "tensorrt-jetson-nano-4gb-fp16").mid_ms


def test_quantize_pairs_give_the_precision(tmp_path: Path) -> None:
    def pair(name: str) -> list:
        return [
            helper.make_node("QuantizeLinear", [name, "s", "z"], [f"{name}q"]),
            helper.make_node("DequantizeLinear", [f"{name}q", "s", "z"], [f"{name}d"]),
        ]

    nodes = [
        *pair("x"),
        *pair("w"),
        helper.make_node("Conv", ["xd", "wd"], ["a"]),
        helper.make_node("Conv", ["a", "w"], ["y"]),
    ]
    initial = {
        "w": np.zeros((8, 8, 1, 1), np.float32),
        "s": np.array(0.1, np.float32),
        "z": np.array(0, np.int8),
    }
    cost = graph_cost(save(tmp_path / "q.onnx", nodes, {"x": [1, 8, 16, 16], "y": [1, 8, 16, 16]}, initial))
    assert cost.explicit_int8
    assert [k.quantized for k in cost.kernels if k.kind == "conv"] == [True, False]


def test_peak_live_activations(tmp_path: Path) -> None:
    """A chain needs two buffers at a time; a shortcut over it keeps a third."""
    chain = graph_cost(convs(tmp_path / "c.onnx", 8, depth=4, size=16))
    one = 8 * 16 * 16
    assert chain.peak_live == 2 * one
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Conv", ["a", "w"], ["b"]),
        helper.make_node("Conv", ["b", "w"], ["c"]),
        helper.make_node("Add", ["a", "c"], ["y"]),
    ]
    shapes = {"x": [1, 8, 16, 16], "y": [1, 8, 16, 16]}
    cost = graph_cost(save(tmp_path / "s.onnx", nodes, shapes, {"w": np.zeros((8, 8, 1, 1), np.float32)}))
    assert [k.fused for k in cost.kernels] == [[], [], ["Add"]]
    assert cost.peak_live == 3 * one
    assert cost.io == 2 * one
    assert cost.weights == 3 * 64


def test_a_gate_is_not_fused_over_what_makes_it(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("GlobalAveragePool", ["a"], ["p"]),
        helper.make_node("Conv", ["p", "w"], ["g"]),
        helper.make_node("Sigmoid", ["g"], ["s"]),
        helper.make_node("Mul", ["a", "s"], ["y"]),
    ]
    shapes = {"x": [1, 8, 16, 16], "y": [1, 8, 16, 16]}
    cost = graph_cost(save(tmp_path / "g.onnx", nodes, shapes, {"w": np.zeros((8, 8, 1, 1), np.float32)}))
    assert [(k.op, k.fused) for k in cost.kernels] == [
        ("Conv", []),
        ("GlobalAveragePool", []),
        ("Conv", ["Sigmoid"]),
        ("Mul", []),
    ]


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no such ONNX"):
        count_macs(tmp_path / "none.onnx")
    whole = convs(tmp_path / "m.onnx", 16).read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RequestError, match="ONNX"):
        count_macs(tmp_path / "cut.onnx")


def test_open_shapes_are_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    shapes = {"x": [1, 4, "height", "width"], "y": [1, 4, None, None]}
    path = save(tmp_path / "m.onnx", nodes, shapes, {"w": np.zeros((4, 4, 1, 1), np.float32)})
    with pytest.raises(RequestError, match="fixed input shape"):
        count_macs(path)


def test_precision_the_device_lacks(tmp_path: Path) -> None:
    path = convs(tmp_path / "m.onnx", 16)
    with pytest.raises(RequestError, match="does not run int8"):
        predict(path, load_profile("myriad-x"), "int8")
    with pytest.raises(RequestError, match="Possible"):
        predict_target(path, "openvino-myriad-x-int8")
