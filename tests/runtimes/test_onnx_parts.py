"""Models whose weights lie in other files are known by their bytes, wherever in the model they are named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from rsedge.data.errors import RequestError
from rsedge.runtimes import Bundle
from rsedge.runtimes.onnx_parts import external_data
from tests.runtimes import tiny_models as tiny

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


def long_tags(message: Any) -> bytes:
    """A message whose tags have bits beyond the 32 that protobuf keeps of them."""
    found = b""
    for field, value in message.ListFields():
        for one in value if hasattr(value, "append") else [value]:
            alone = type(message)()
            if field.message_type is not None:
                tag, body = field.number << 3 | 2, long_tags(one)
                found += varint(tag + (1 << 32)) + varint(len(body)) + body
                continue
            if hasattr(value, "append"):
                getattr(alone, field.name).append(one)
            else:
                setattr(alone, field.name, one)
            plain = alone.SerializeToString()
            length = next(i for i, byte in enumerate(plain) if byte < 0x80) + 1
            tag = sum((byte & 0x7F) << 7 * i for i, byte in enumerate(plain[:length]))
            found += varint(tag + (1 << 32)) + plain[length:]
    return found


def varint(value: int) -> bytes:
    low, high = value & 0x7F, value >> 7
    return bytes([low]) if not high else bytes([low | 0x80]) + varint(high)


@pytest.mark.parametrize("place", places())
def test_tags_that_are_written_too_long_hide_nothing(place: str) -> None:
    """ONNX Runtime reads them."""
    assert external_data(long_tags(places()[place]))


def test_whole_models_have_none(tmp_path: Path) -> None:
    tiny.make_onnx(tmp_path / "model.onnx", tiny.spec(32))
    content = (tmp_path / "model.onnx").read_bytes()
    assert not external_data(content) and content


@given(st.binary(max_size=200))
def test_any_bytes_are_walked(content: bytes) -> None:
    assert external_data(content) in (True, False)


@pytest.mark.parametrize("target", ["openvino-cpu-f32", "onnxruntime-cpu-f32"])
@pytest.mark.parametrize("written", [onnx.ModelProto.SerializeToString, long_tags])
def test_a_signed_bundle_runs_no_weights_from_elsewhere(
    written: Callable[[Any], bytes], target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    (folder / "model.onnx").write_bytes(written(model))
    for name in ("manifest.json", "manifest.sig", "signing.pub"):
        (folder / name).unlink()
    tiny.write_manifest(folder, tiny.spec(32), target, "model.onnx")
    tiny.sign(folder, key)
    with Bundle.open(folder) as bundle, pytest.raises(RequestError, match="keeps weights in other files"):
        bundle.verify(1)
