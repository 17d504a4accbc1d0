"""Models whose weights lie in other files are known by their bytes, wherever in the model they are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_models as tiny
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from rsedge.data.errors import RequestError
from rsedge.runtimes import Bundle
from rsedge.runtimes.onnx_parts import external_data

onnx = pytest.importorskip("onnx")


def outside(name: str, location: str = "w.bin") -> onnx.TensorProto:
    tensor = onnx.numpy_helper.from_array(np.ones(4, np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    return tensor


def places() -> dict[str, onnx.ModelProto]:
    """Everywhere that a tensor can lie."""
    found: dict[str, onnx.ModelProto] = {
        n: onnx.ModelProto() for n in ("initializer", "sparse", "node", "body", "function", "list")
    }
    found["initializer"].graph.initializer.append(outside("w"))
    found["sparse"].graph.sparse_initializer.add().values.CopyFrom(outside("w"))
    found["node"].graph.node.add().attribute.add().t.CopyFrom(outside("w"))
    found["list"].graph.node.add().attribute.add().tensors.append(outside("w"))
    found["body"].graph.node.add().attribute.add().g.initializer.append(outside("w"))
    found["function"].functions.add().node.add().attribute.add().t.CopyFrom(outside("w"))
    return found


@pytest.mark.parametrize("place", places())
def test_tensors_in_other_files_are_found(place: str) -> None:
    assert external_data(places()[place].SerializeToString())


def test_no_depth_hides_them() -> None:
    model = onnx.ModelProto()
    graph = model.graph
    for _ in range(30):  # 90 messages deep; protobuf itself reads 100
        graph = graph.node.add().attribute.add().g
    graph.initializer.append(outside("w"))
    assert external_data(onnx.ModelProto.FromString(model.SerializeToString()).SerializeToString())


def test_whole_models_have_none(tmp_path: Path) -> None:
    tiny.make_onnx(tmp_path / "model.onnx", tiny.spec(32))
    content = (tmp_path / "model.onnx").read_bytes()
    assert not external_data(content) and content


@given(st.binary(max_size=200))
def test_any_bytes_are_walked(content: bytes) -> None:
    assert external_data(content) in (True, False)


@pytest.mark.parametrize("target", ["openvino-cpu-f32", "onnxruntime-cpu-f32"])
def test_a_signed_bundle_runs_no_weights_from_elsewhere(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO would take them from where the process stands, or from any path."""
    key = Ed25519PrivateKey.generate()
    folder = tiny.make_bundle(tmp_path / "bundle", tiny.spec(32), "onnxruntime-cpu-f32", key)
    model = onnx.load(folder / "model.onnx")
    weights = b""
    monkeypatch.chdir(tmp_path)
    for tensor in model.graph.initializer:
        content = onnx.numpy_helper.to_array(tensor).tobytes()
        moved = outside(tensor.name, str(tmp_path / "w.bin"))
        moved.data_type = tensor.data_type
        del moved.dims[:]
        moved.dims.extend(tensor.dims)
        for name, value in (("offset", len(weights)), ("length", len(content))):
            entry = moved.external_data.add()
            entry.key, entry.value = name, str(value)
        tensor.CopyFrom(moved)
        weights += content
    (tmp_path / "w.bin").write_bytes(weights)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    for name in ("manifest.json", "manifest.sig", "signing.pub"):
        (folder / name).unlink()
    tiny.write_manifest(folder, tiny.spec(32), target, "model.onnx")
    tiny.sign(folder, key)
    with Bundle.open(folder) as bundle, pytest.raises(RequestError, match="keeps weights in other files"):
        bundle.verify(1)
