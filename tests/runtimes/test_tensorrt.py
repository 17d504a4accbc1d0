"""TensorRT without a GPU: the compile gate for real, and clear refusals for what needs the device.

What runs an engine cannot be tested here; where a machine has a GPU and TensorRT, the last test does it.
"""

from __future__ import annotations

import ctypes
import enum
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny

from rsedge.data.errors import IntegrityError, MissingCapability, RequestError
from rsedge.data.files import sha256_file, write_json
from rsedge.runtimes import Bundle
from rsedge.runtimes.cuda_driver import Cuda
from rsedge.runtimes.tensorrt_build import build_engine, compile_gate
from rsedge.runtimes.tensorrt_engine import builder_flags, make_profiler, network_flags
from rsedge.runtimes.tensorrt_module import load_tensorrt
from rsedge.runtimes.tensorrt_session import check_engine, check_fits

TARGET = "tensorrt-jetson-orin-nano-8gb-fp16"
rtx = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed")


def has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


class Gpu:
    """Only the two facts that are compared."""

    name, sm = "Orin", "SM87"


@pytest.fixture
def with_engine(own_bundle: Callable[..., Path]) -> Callable[..., Path]:
    def make(**changes: Any) -> Path:
        folder = own_bundle(TARGET)
        engine = folder / "model.engine"
        engine.write_bytes(b"engine")
        record = {
            "module": "tensorrt",
            "version": "10.3.0",
            "gpu": "Orin",
            "sm": "SM87",
            "onnx_sha256": sha256_file(folder / "model.onnx"),
            "engine_sha256": sha256_file(engine),
            "input_spec": tiny.spec().model_dump(mode="json"),
        }
        write_json(folder / "engine.json", record | changes)
        return engine

    return make


@rtx
def test_compile_gate_on_a_good_and_a_broken_model(bundle: Callable[..., Path], tmp_path: Path) -> None:
    onnx = bundle(TARGET) / "model.onnx"
    good = compile_gate(onnx)
    assert good["ok"] and good["engine_bytes"] > 1000 and good["sm"] == "SM86" and good["module"] == "tensorrt_rtx"
    json.dumps(good)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(onnx.read_bytes()[:400])
    bad = compile_gate(broken)
    assert not bad["ok"] and bad["engine_bytes"] is None and "cannot parse" in bad["message"]
    with pytest.raises(RequestError, match="SM75"):
        compile_gate(onnx, "SM87")
    with pytest.raises(RequestError, match="no such ONNX"):
        compile_gate(tmp_path / "none.onnx")


@rtx
def test_compile_gate_refuses_what_tensorrt_does_not_know(tmp_path: Path) -> None:
    path = tiny.make_onnx(tmp_path / "u16.onnx", tiny.spec(), "uint16")
    outcome = compile_gate(path)
    assert not outcome["ok"] and str(path) in outcome["message"]


@rtx
def test_calls_of_the_engine_exist_in_the_binding() -> None:
    """What EngineRunner calls, by name, and a profiler that the binding accepts; running needs a GPU."""
    import tensorrt_rtx as trt

    names = {
        trt.ICudaEngine: (
            "num_io_tensors",
            "get_tensor_name",
            "get_tensor_mode",
            "get_tensor_shape",
            "get_tensor_dtype",
        ),
        trt.IExecutionContext: ("set_tensor_address", "execute_async_v3", "profiler"),
        trt.Runtime: ("deserialize_cuda_engine",),
        trt.Builder: ("create_network", "create_builder_config", "build_serialized_network"),
        trt.IBuilderConfig: ("set_flag",),
    }
    missing = [
        f"{kind.__name__}.{name}" for kind, wanted in names.items() for name in wanted if not hasattr(kind, name)
    ]
    assert not missing
    profiler = make_profiler(trt)
    assert isinstance(profiler, trt.IProfiler)
    for layer, ms in (("conv", 1.0), ("relu", 0.5), ("conv", 3.0)):
        profiler.report_layer_time(layer, ms)
    assert profiler.times == {"conv": [1.0, 3.0], "relu": [0.5]}


class Version:
    """A TensorRT module's name, version and flags, as far as the precision is decided by them."""

    class Flag(enum.IntEnum):
        EXPLICIT_BATCH = 0
        STRONGLY_TYPED = 1

    class BuilderFlag(enum.Enum):
        FP16 = 0
        INT8 = 1

    NetworkDefinitionCreationFlag = Flag

    def __init__(self, version: str, name: str = "tensorrt") -> None:
        self.__version__, self.__name__ = version, name


@pytest.mark.parametrize(
    ("version", "flags", "builder"),
    [("8.5.2.2", 1, ["FP16", "INT8"]), ("8.6.2", 1, ["FP16", "INT8"]), ("10.3.0", 2, []), ("11.4.1.5", 2, [])],
)
def test_what_decides_the_precision(version: str, flags: int, builder: list[str]) -> None:
    trt = Version(version)
    assert network_flags(trt) == flags
    assert [f.name for f in builder_flags(trt, "int8")] == builder
    assert builder_flags(trt, "f32") == []


def test_too_old_a_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", Version("8.4.1"))  # type: ignore[arg-type]
    with pytest.raises(MissingCapability, match=r"8\.4\.1 is too old.*JetPack 5\.1"):
        load_tensorrt("tensorrt")


def test_missing_module_teaches() -> None:
    with pytest.raises(MissingCapability, match="system-site-packages"):
        load_tensorrt("tensorrt_that_is_not_there")


@pytest.mark.skipif(has_driver(), reason="this machine has an NVIDIA driver")
def test_no_driver(bundle: Callable[..., Path]) -> None:
    with pytest.raises(MissingCapability, match=r"libcuda\.so\.1"):
        Cuda()
    with pytest.raises(MissingCapability):
        build_engine(Bundle.open(bundle(TARGET)))


def test_only_tensorrt_folders_are_built(bundle: Callable[..., Path], tmp_path: Path) -> None:
    import shutil

    with pytest.raises(RequestError, match="only tensorrt bundles"):
        build_engine(Bundle.open(bundle()))
    archive = shutil.make_archive(str(tmp_path / "b"), "zip", bundle(TARGET))
    with Bundle.open(archive) as opened, pytest.raises(RequestError, match="unzip"):
        build_engine(opened)


def test_engines_are_held_against_their_record(with_engine: Callable[..., Path]) -> None:
    engine = with_engine()
    record = check_engine(engine)
    check_fits(engine, record, "10.3.0", Gpu())  # type: ignore[arg-type]
    with pytest.raises(MissingCapability, match=r"10\.3\.0 on Orin.*10\.7\.0.*rsedge build"):
        check_fits(engine, record, "10.7.0", Gpu())  # type: ignore[arg-type]
    engine.write_bytes(b"engin")
    with pytest.raises(IntegrityError, match="altered"):
        check_engine(engine)
    engine.with_name("engine.json").unlink()
    with pytest.raises(MissingCapability, match="is missing beside it"):
        check_engine(engine)


def test_an_engine_of_another_model_is_refused(with_engine: Callable[..., Path]) -> None:
    folder = with_engine(onnx_sha256="0" * 64).parent
    with pytest.raises(IntegrityError, match="built from another model"):
        Bundle.open(folder).session()


def test_a_record_cannot_name_another_module(with_engine: Callable[..., Path]) -> None:
    engine = with_engine(module="os")
    with pytest.raises(RequestError, match="unknown module"):
        check_engine(engine)


@pytest.mark.skipif(not has_driver(), reason="needs an NVIDIA GPU with its driver and TensorRT")
def test_build_and_verify_on_a_gpu(own_bundle: Callable[..., Path]) -> None:
    try:
        load_tensorrt()
    except MissingCapability as error:
        pytest.skip(str(error))
    folder = own_bundle(TARGET)
    build_engine(Bundle.open(folder))
    assert Bundle.open(folder).verify().passed
