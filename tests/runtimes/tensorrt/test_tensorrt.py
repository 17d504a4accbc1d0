"""TensorRT without a GPU: the compile gate for real, and clear refusals for what needs the device.

What runs an engine cannot be tested here; where a machine has a GPU and TensorRT, the last test does it.
"""

from __future__ import annotations

import ctypes
import enum
import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from rsedge.data.errors import IntegrityError, MissingCapability, RequestError
from rsedge.export.signing import write_public
from rsedge.runtimes import Bundle
from rsedge.runtimes.bundle.golden import GoldenResult
from rsedge.runtimes.device_cache import Built, Slot, drop, store
from rsedge.runtimes.file_checks import CompileCheck
from rsedge.runtimes.tensorrt import cuda_driver
from rsedge.runtimes.tensorrt import session as tensorrt_session
from rsedge.runtimes.tensorrt.build import (
    Build,
    best_of,
    build_engine,
    build_times,
    compile_gate,
    options_for,
    spread,
    write_engine,
)
from rsedge.runtimes.tensorrt.compile import BuildOptions, Compiled, compile_onnx, network_flags, precision_flags
from rsedge.runtimes.tensorrt.cuda_driver import Cuda
from rsedge.runtimes.tensorrt.dla import Placement, check_placement, check_precision, segments
from rsedge.runtimes.tensorrt.engine import make_profiler
from rsedge.runtimes.tensorrt.module import builder_flag, load_tensorrt, mechanism
from rsedge.runtimes.tensorrt.record import Machine, check_fits, engine_record
from rsedge.runtimes.tensorrt.timing import read_timing, write_timing
from tests.runtimes import stand_in_gpu
from tests.runtimes import tiny_models as tiny

TARGET = "tensorrt-jetson-orin-nano-8gb-fp16"
rtx = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed")


def has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


MACHINE = Machine(module="tensorrt", version="10.3.0", gpu="Orin", sm="SM87")


def engine(**changes: Any) -> Built:
    """An engine as the device's cache gives it."""
    about = {**MACHINE.model_dump(), "driver": 12060, "seconds": 1.0, "built": "2026-01-01", **changes}
    return Built(Path("model.engine"), about, b"engine", "build it anew: rsedge build BUNDLE")


@rtx
def test_compile_gate_on_a_good_and_a_broken_model(bundle: Callable[..., Path], tmp_path: Path) -> None:
    onnx = bundle(TARGET) / "model.onnx"
    good = compile_gate(onnx)
    assert good.ok and good.engine_bytes > 1000 and good.sm == "SM86" and good.module == "tensorrt_rtx"
    assert CompileCheck.model_validate_json(good.model_dump_json()) == good
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(onnx.read_bytes()[:400])
    bad = compile_gate(broken)
    assert not bad.ok and bad.engine_bytes is None and "cannot parse" in bad.message
    with pytest.raises(RequestError, match="SM75"):
        compile_gate(onnx, "SM87")
    with pytest.raises(RequestError, match="no such ONNX"):
        compile_gate(tmp_path / "none.onnx")


@rtx
def test_compile_gate_refuses_what_tensorrt_does_not_know(tmp_path: Path) -> None:
    path = tiny.make_onnx(tmp_path / "u16.onnx", tiny.spec(), "uint16")
    outcome = compile_gate(path)
    assert not outcome.ok and str(path) in outcome.message


@rtx
@pytest.mark.parametrize("said", ["no input", "shape"])
def test_what_a_model_makes_the_binding_say_is_ours(bundle: Callable[..., Path], tmp_path: Path, said: str) -> None:
    import onnx

    model = onnx.load(str(bundle(TARGET) / "model.onnx"))
    if said == "no input":
        model.Clear()
    else:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
        model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 2**31
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    trt = load_tensorrt("tensorrt_rtx")
    with pytest.raises(RequestError, match=rf"^{path}: "):
        compile_onnx(trt, path, BuildOptions(), trt.ComputeCapability.SM86)


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

    NetworkDefinitionCreationFlag, Builder = Flag, object

    def __init__(self, version: str, name: str = "tensorrt") -> None:
        self.__version__, self.__name__ = version, name


@pytest.mark.parametrize(
    ("version", "flags", "builder"),
    [("8.5.2.2", 1, ["FP16", "INT8"]), ("8.6.2", 1, ["FP16", "INT8"]), ("10.3.0", 2, []), ("11.4.1.5", 2, [])],
)
def test_what_decides_the_precision(version: str, flags: int, builder: list[str]) -> None:
    trt = Version(version)
    how = mechanism("tensorrt", version)
    assert network_flags(trt, how) == flags
    assert [f.name for f in precision_flags(trt, how, "int8")] == builder
    assert precision_flags(trt, how, "f32") == []


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


def test_only_tensorrt_bundles_are_built(bundle: Callable[..., Path]) -> None:
    with pytest.raises(RequestError, match="is ready to run"):
        opened = Bundle.open(bundle("onnxruntime-cpu-f32"))
        opened.backend.build(opened, {})


def test_engines_are_held_against_their_record() -> None:
    def check(built: Built, version: str) -> None:
        check_fits(built, engine_record(built), version, "Orin", "SM87")

    check(engine(), "10.3.0")
    with pytest.raises(MissingCapability, match=r"10\.3\.0 on Orin.*10\.7\.0.*rsedge build"):
        check(engine(), "10.7.0")
    compatible = engine(version_compatible=True)
    check(compatible, "10.7.0")
    for version in ("10.2.0", "11.4.1"):
        with pytest.raises(MissingCapability, match="do not carry over"):
            check(compatible, version)


def test_a_record_cannot_name_another_module() -> None:
    with pytest.raises(RequestError, match=r"model\.engine: build it anew.*module"):
        engine_record(engine(module="os"))


def test_an_engine_is_found_for_its_gpu_alone(
    own_bundle: Callable[..., Path], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, private = own_bundle(TARGET), Ed25519PrivateKey.generate()
    tiny.sign(folder, private)  # a bundle that nobody signed is rehearsed by a process which has no such GPU
    key = write_public(private, folder.parent / "key.pub")
    driver = stand_in_gpu.Driver()
    monkeypatch.setattr(cuda_driver, "_library", lambda: driver)
    monkeypatch.setattr(tensorrt_session, "load_tensorrt", lambda name: stand_in_gpu.tensorrt(driver, tiny.spec(), 1))
    with Bundle.open(folder, key) as opened:
        store(Slot("engine", opened.manifest_sha256, "Xavier (SM72)", folder), b"engine", engine().about)
        with pytest.raises(MissingCapability, match=r"built for other GPUs than Orin \(SM87\).*rsedge build"):
            opened.session()
        compiled = Compiled(b"engine", b"", [])
        path = write_engine(opened, compiled, BuildOptions(version_compatible=True), MACHINE, 12060, 1.0)
        assert path.parent.parent == own_cache
        tile = {"dn": tiny.random_scene(tiny.spec(), 32, 32)[None]}
        with opened.session() as session:  # type: ignore[attr-defined]
            np.testing.assert_allclose(
                session(tile)["logits"][0], tiny.reference(tiny.spec(), tile["dn"][0])[0], atol=1e-5
            )
        path.write_bytes(b"engin?")
        with pytest.raises(IntegrityError, match=r"altered.*rsedge build"):
            opened.session()


@pytest.mark.parametrize(
    ("module", "version", "dla", "expected"),
    [
        ("tensorrt", "8.5.2", False, "builder_flags"),
        ("tensorrt", "8.6.2", False, "builder_flags"),
        ("tensorrt", "10.3.0", False, "strongly_typed"),
        ("tensorrt", "10.3.0", True, "builder_flags"),
        ("tensorrt", "11.4.1", False, "strongly_typed"),
        ("tensorrt", "11.4.1", True, "strongly_typed"),
        ("tensorrt_rtx", "1.7.1", False, "strongly_typed"),
    ],
)
def test_what_decides_precision(module: str, version: str, dla: bool, expected: str) -> None:
    assert mechanism(module, version, dla) == expected


class Flags:
    """Creation flags as versions have them."""

    def __init__(self, **members: int) -> None:
        self.NetworkDefinitionCreationFlag = self
        self.__members__ = members


def test_network_flags_by_version() -> None:
    assert network_flags(Flags(EXPLICIT_BATCH=0, EXPLICIT_PRECISION=1), "builder_flags") == 1
    ten = Flags(EXPLICIT_BATCH=0, STRONGLY_TYPED=1)
    assert network_flags(ten, "strongly_typed") == 2 and network_flags(ten, "builder_flags") == 1
    assert network_flags(Flags(), "strongly_typed") == 0


@rtx
def test_what_tensorrt_lacks_is_said(bundle: Callable[..., Path]) -> None:
    trt = load_tensorrt("tensorrt_rtx")
    onnx = bundle(TARGET) / "model.onnx"
    with pytest.raises(MissingCapability, match=r"tensorrt_rtx .* has no builder flag FP16"):
        builder_flag(trt, "FP16")
    capability = trt.ComputeCapability.SM86
    with pytest.raises(MissingCapability, match="0 DLA cores"):
        compile_onnx(trt, onnx, BuildOptions(dla=0), capability)
    plain = compile_onnx(trt, onnx, None, capability)
    assert len(plain.engine) > 1000 and plain.timing == b"" and plain.placement == []
    with pytest.raises(RequestError, match=r"cannot compile it.*libnvinfer_lean"):  # the wheel has no lean runtime
        compile_onnx(trt, onnx, BuildOptions(version_compatible=True), capability)


def test_int8_of_another_mechanism_is_refused(own_bundle: Callable[..., Path]) -> None:
    eight = types.SimpleNamespace(__name__="tensorrt", __version__="8.6.2")
    folder = own_bundle("tensorrt-jetson-orin-nano-8gb-int8")
    made = {"precision_mechanism": "strongly_typed", "trt_version": "10.3", "max_batch": 4}
    tiny.edit_manifest(folder, build=made)
    with pytest.raises(MissingCapability, match=r"exported for TensorRT 10\.3.*here is tensorrt 8\.6\.2"):
        options_for(Bundle.open(folder), eight, None, False)
    tiny.edit_manifest(folder, build=made | {"precision_mechanism": "builder_flags"})
    assert options_for(Bundle.open(folder), eight, 1, True) == BuildOptions("int8", 1, 4, True)


def placed(devices: str) -> list[Placement]:
    return [
        Placement(f"layer{i}", "CONV" if d == "D" else "SOFTMAX", "DLA" if d == "D" else "GPU")
        for i, d in enumerate(devices)
    ]


def test_dla_placement_and_fallback_storms() -> None:
    assert [segments(placed(d)) for d in ("GGDDDG", "DGDGD", "GGG", "")] == [1, 3, 0, 0]
    check_placement(placed("GDDGDDDG"))
    with pytest.raises(RequestError, match=r"5 times, more than 4.*layer1 \(SOFTMAX\), layer3"):
        check_placement(placed("DGDGDGDGD"))
    with pytest.raises(RequestError, match=r"no layer .* DLA \(SOFTMAX\)"):
        check_placement(placed("GGG"))


def test_precisions_that_do_not_reach_the_dla() -> None:
    check_precision("builder_flags", "fp16", "10.3")
    check_precision("strongly_typed", "int8", "11.4.1")
    with pytest.raises(MissingCapability, match="fp16 and int8 only"):
        check_precision("strongly_typed", "f32", "11.4.1")
    with pytest.raises(MissingCapability, match="no quantize/dequantize layers on DLA"):
        check_precision("builder_flags", "int8", "10.3")


def test_kernel_times_are_pinned(own_cache: Path) -> None:
    slot = Slot("timing", "0" * 64, MACHINE.hardware, Path("BUNDLE"))
    assert read_timing(slot, MACHINE) == b""
    write_timing(slot, b"times", MACHINE)
    assert read_timing(slot, MACHINE) == b"times"
    with pytest.raises(MissingCapability, match=r"by tensorrt 10\.3\.0 on Orin.*has tensorrt 10\.7\.0.*--rebuild"):
        read_timing(slot, MACHINE.model_copy(update={"version": "10.7.0"}))
    next(slot.folder.glob("*.cache")).write_bytes(b"other")
    with pytest.raises(IntegrityError, match=r"altered.*--rebuild"):
        read_timing(slot, MACHINE)
    drop(slot)
    assert read_timing(slot, MACHINE) == b""


@pytest.mark.parametrize("name", ["model.engine", "engine.json", "timing.cache", "timing.json"])
def test_what_a_device_builds_is_refused_in_a_bundle(own_bundle: Callable[..., Path], name: str) -> None:
    folder = own_bundle(TARGET)
    (folder / name).write_bytes(b"{}")
    with pytest.raises(IntegrityError, match=rf"does not list: {name}; remove them.*own cache"):
        Bundle.open(folder)


def test_the_best_of_several_builds_is_kept() -> None:
    def one(agreement: float, difference: float, passed: bool = True) -> Build:
        return Build(1.5, f"{agreement}{difference}", GoldenResult(passed, difference, agreement, True, 0.1, 0.99, 100))

    builds = [one(0.99, 0.02), one(0.999, 0.03), one(0.999, 0.01), one(0.98, 0.2, False)]
    assert best_of(builds) == 2
    assert spread(builds) == {
        "builds": 4,
        "distinct_engines": 4,
        "agreement": [0.98, 0.999],
        "max_abs_difference": [0.01, 0.2],
        "passed": 3,
        "build_seconds": 1.5,
        "kept": 2,
    }
    with pytest.raises(RequestError, match="at least 1"):
        build_times(None, 0)  # type: ignore[arg-type]


def test_options_of_the_other_runtime_are_refused(bundle: Callable[..., Path]) -> None:
    from typer.testing import CliRunner

    from rsedge.cli.main import app

    cpu = str(bundle())
    for arguments, words in (
        ([cpu, "--times", "3"], "for bundles of TensorRT"),
        ([cpu, "--dla", "0"], "for bundles of TensorRT"),
    ):
        done = CliRunner().invoke(app, ["build", *arguments])
        assert isinstance(done.exception, RequestError) and words in str(done.exception)


@pytest.mark.skipif(not has_driver(), reason="needs an NVIDIA GPU with its driver and TensorRT")
def test_build_and_verify_on_a_gpu(own_bundle: Callable[..., Path], own_cache: Path) -> None:
    try:
        load_tensorrt()
    except MissingCapability as error:
        pytest.skip(str(error))
    folder = own_bundle(TARGET)
    _, builds = build_times(Bundle.open(folder), 2)
    assert all(b.golden.passed for b in builds)
    build_engine(Bundle.open(folder))
    with Bundle.open(folder) as opened:
        assert opened.verify().passed
        with opened.session() as session:  # type: ignore[attr-defined]
            dn = opened.golden()["dn"]
            first, *more = (session({"dn": dn})["logits"] for _ in range(4))
            assert all((first == m).all() for m in more), session.execution
