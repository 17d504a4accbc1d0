"""Typed ONNX for TensorRT: close to f32, really compiled by TensorRT for RTX, refused where it would be wrong."""

from __future__ import annotations

import logging
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rsedge.data.errors import RequestError
from rsedge.export.onnx.precision import check_symmetric, make_half, make_signed, tensor_types
from rsedge.export.onnx.writing import OnnxArtefact
from rsedge.export.targets.tensorrt import (
    TensorRtArtefact,
    check_typed,
    compiles,
    opset_for,
    run_onnx,
    trtexec_line,
    type_for_tensorrt,
)
from tests.export.conftest import Exporter
from tests.export.export_nets import contract, tiles


def quantized(source: Path, target: Path) -> Path:
    """Symmetric Q/DQ by NNCF, as compress.quantize makes it for TensorRT; ``prepare/*`` stays as it is."""
    import nncf
    from nncf.quantization.advanced_parameters import QuantizationMode, QuantizationParameters

    logging.getLogger("nncf").setLevel(logging.ERROR)
    model = nncf.quantize(
        onnx.load(source),
        nncf.Dataset(tiles(contract()), lambda dn: {"dn": dn.astype(np.float32)}),
        ignored_scope=nncf.IgnoredScope(patterns=["prepare/.*"]),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            activations_quantization_params=QuantizationParameters(mode=QuantizationMode.SYMMETRIC)
        ),
    )
    onnx.save(model, target)
    return target


def sources(exported: Exporter, net: str, precision: str, opset: int, folder: Path) -> tuple[OnnxArtefact, Path]:
    made = exported(net, contract(), opset, "float32")[1]
    return made, quantized(made.path, folder / "q.onnx") if precision == "int8" else made.path


VERSIONS = [
    ("fp16", "10.3", 19, 5e-3),
    ("int8", "10.3", 19, 0.3),
    ("int8", "8.6.2", 17, 0.3),
    ("fp16", "8.2.1", 13, 5e-3),
]


@pytest.mark.parametrize(
    ("net", "precision", "version", "opset", "worst"),
    [  # each version and each network in each precision; the other pairings with `make test-slow`
        pytest.param(net, *version, marks=() if (i + j) % 2 == 0 else pytest.mark.slow)
        for i, version in enumerate(VERSIONS)
        for j, net in enumerate(("unet", "vit"))
    ],
)
def test_typed_graph_is_close_and_compiles(
    exported: Exporter, net: str, precision: str, version: str, opset: int, worst: float, tmp_path: Path
) -> None:
    reference, source = sources(exported, net, precision, opset, tmp_path)
    made = type_for_tensorrt(source, tmp_path / "typed.onnx", precision, version)  # type: ignore[arg-type]
    found = check_typed(reference.path, made.onnx.path, tiles(contract()))
    assert found.valid_equal and found.agreement >= (0.995 if precision == "fp16" else 0.9)
    assert found.max_abs <= worst * max(1, found.logit_scale)
    assert made.between == ("f32" if (precision, version) == ("int8", "8.6.2") else "fp16")
    pytest.importorskip("tensorrt_rtx")
    for sm in ("SM86", "SM89", "SM120") if version == "10.3" else ("SM86",):
        gate = compiles(made.onnx.path, sm)
        assert gate.ok, gate.message
        assert gate.engine_bytes > 10_000


@pytest.mark.parametrize(("precision", "opset"), [("fp16", 19), ("int8", 19)])
def test_a_dynamic_batch_gives_each_tile_its_own_numbers(
    exported: Exporter, precision: str, opset: int, tmp_path: Path
) -> None:
    _, source = sources(exported, "unet", precision, opset, tmp_path)
    one = type_for_tensorrt(source, tmp_path / "one.onnx", precision, "10.3")  # type: ignore[arg-type]
    many = type_for_tensorrt(source, tmp_path / "many.onnx", precision, "10.3", 4)  # type: ignore[arg-type]
    assert many.build_record()["max_batch"] == 4 and one.build_record()["max_batch"] == 1
    assert "--minShapes=dn:1x6x64x64 --optShapes=dn:4x6x64x64 --maxShapes=dn:4x6x64x64" in many.trtexec
    found = check_typed(one.onnx.path, many.onnx.path, tiles(contract()))
    assert found.max_abs < 1e-5 and found.valid_equal
    import onnxruntime as ort

    dn = np.concatenate(tiles(contract(), 3)).astype(np.float32)
    logits, valid = ort.InferenceSession(many.onnx.path).run(["logits", "valid"], {"dn": dn})
    alone = run_onnx(one.onnx.path, [t[None] for t in dn])
    np.testing.assert_allclose(logits, alone.logits, atol=2e-3 if precision == "fp16" else 0.1)
    assert np.array_equal(valid, alone.valid)
    pytest.importorskip("tensorrt_rtx")
    gate = compiles(many.onnx.path, max_batch=4)
    assert gate.ok, gate.message
    fixed = compiles(one.onnx.path, max_batch=4)
    assert not fixed.ok and "fixed batch of one" in fixed.message


def test_a_batch_that_is_fixed_inside_is_refused_by_name(exported: Exporter, tmp_path: Path) -> None:
    source = exported("vit", contract(), 19, "float32")[1].path
    with pytest.raises(RequestError, match=r"dynamic because of net/body.*leave max_batch at 1"):
        type_for_tensorrt(source, tmp_path / "t.onnx", "fp16", "10.3", 4)
    assert not (tmp_path / "t.onnx").exists()


def test_what_stays_f32_in_a_half_graph(exported: Exporter, tmp_path: Path) -> None:
    made = type_for_tensorrt(exported("vit", contract(), 19, "float32")[1].path, tmp_path / "t.onnx", "fp16", "10.3")
    model = onnx.load(made.onnx.path)
    types = tensor_types(model)
    for node in model.graph.node:
        if node.name.startswith("prepare/") or node.op_type in ("LayerNormalization", "Softmax"):
            assert TensorProto.FLOAT16 not in [types[n] for n in (*node.input, *node.output)], node.name
        if node.op_type in ("Conv", "MatMul"):
            assert {types[n] for n in node.input} == {TensorProto.FLOAT16}, node.name
    assert {o.name: o.type.tensor_type.elem_type for o in model.graph.output} == {
        "logits": TensorProto.FLOAT,
        "valid": TensorProto.UINT8,
    }
    assert made.counts["half"] > made.counts["single"] > 0
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert {p.key for p in model.metadata_props} == {"rsedge", "rsedge_classes"}


def test_dn_beyond_fp16_survive_typing(exported: Exporter, tmp_path: Path) -> None:
    """65535 is infinite in fp16; the scaling has to come before the cast."""
    reference = exported("unet", contract(), 19, "float32")[1]
    made = type_for_tensorrt(reference.path, tmp_path / "t.onnx", "fp16", "10.3")
    bright = [np.full((1, 6, 64, 64), 65535, np.uint16)]
    outputs = run_onnx(made.onnx.path, bright)
    assert np.isfinite(outputs.logits).all()
    assert check_typed(reference.path, made.onnx.path, bright).agreement > 0.99


def test_old_tensorrt_gets_no_uint8(exported: Exporter, tmp_path: Path) -> None:
    source = exported("unet", contract(), 13, "float32")[1].path
    made = type_for_tensorrt(source, tmp_path / "t.onnx", "f32", "8.2.1")
    types = {o.name: o.type.tensor_type.elem_type for o in onnx.load(made.onnx.path).graph.output}
    assert types["valid"] == TensorProto.INT32
    found = check_typed(source, made.onnx.path, tiles(contract(), 1))
    assert found.max_abs == 0 and found.valid_equal


def test_wrong_sources_are_refused(exported: Exporter, tmp_path: Path) -> None:
    plain = exported("unet", contract(), 19, "float32")[1].path
    target = tmp_path / "t.onnx"
    with pytest.raises(RequestError, match="input_dtype='float32'"):
        type_for_tensorrt(exported("unet", contract())[1].path, target, "fp16", "10.3")
    with pytest.raises(RequestError, match="no Q/DQ; quantize it first"):
        type_for_tensorrt(plain, target, "int8", "10.3")
    with pytest.raises(RequestError, match="bf16"):
        type_for_tensorrt(plain, target, "bf16", "10.3")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="too old"):
        type_for_tensorrt(plain, target, "fp16", "7.1")
    with pytest.raises(RequestError, match=r"not like 8\.6\.2"):
        type_for_tensorrt(plain, target, "fp16", "ten")
    assert not target.exists()


def _one_quantizer(zero: np.ndarray, scale: float = 0.02, opset: int = 19) -> onnx.ModelProto:
    """dn -> Q -> DQ -> Mul by two -> logits."""
    nodes = [
        helper.make_node("QuantizeLinear", ["dn", "scale", "zero"], ["q"], name="quantize"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"], name="dequantize"),
        helper.make_node("Mul", ["d", "two"], ["logits"], name="double"),
    ]
    stored = [
        numpy_helper.from_array(np.array(scale, np.float32), "scale"),
        numpy_helper.from_array(zero, "zero"),
        numpy_helper.from_array(np.array(2, np.float32), "two"),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 8]) for n in ("dn", "logits")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def _run(model: onnx.ModelProto, values: np.ndarray) -> np.ndarray:
    import onnxruntime as ort

    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, {"dn": values})[0]
    return result


def test_unsigned_quantizers_become_signed_over_the_same_range() -> None:
    model = _one_quantizer(np.array(0, np.uint8))
    values = np.linspace(0, 5.1, 8, dtype=np.float32)[None]
    with pytest.raises(RequestError, match="uint8 with zero-point 0"):
        check_symmetric(model)
    assert make_signed(model) == 2 and check_symmetric(model) == 2
    np.testing.assert_allclose(_run(model, values), 2 * values, atol=2 * 0.5 * 0.02 * 255 / 127 + 1e-6)
    assert make_signed(model) == 0


def test_asymmetric_quantizers_are_refused_by_name() -> None:
    for zero in (np.array(3, np.uint8), np.array(-5, np.int8)):
        model = _one_quantizer(zero)
        make_signed(model)
        with pytest.raises(RequestError, match="quantize: TensorRT needs int8 with zero-point 0"):
            check_symmetric(model)


def test_half_between_quantizers_needs_opset_19() -> None:
    with pytest.raises(RequestError, match="needs ONNX opset 19"):
        make_half(_one_quantizer(np.array(0, np.int8), opset=17))


def test_a_step_too_small_for_fp16_keeps_its_readers_in_f32() -> None:
    values = np.linspace(-2e-5, 2e-5, 8, dtype=np.float32)[None]
    model = _one_quantizer(np.array(0, np.int8), scale=2e-7)
    before = _run(model, values)
    make_half(model)
    types = tensor_types(model)
    assert types["d"] == TensorProto.FLOAT and types["logits"] == TensorProto.FLOAT
    np.testing.assert_array_equal(_run(model, values), before)


def test_opset_is_raised_only_for_int8_with_half_between() -> None:
    assert opset_for("int8", "10.3", 18, 20) == 19
    assert opset_for("int8", "10.3", 20, 20) == 20
    assert opset_for("int8", "10.3", 18, 18) == 18
    assert opset_for("fp16", "10.3", 18, 20) == 18
    assert opset_for("int8", "8.6.2", 17, 17) == 17


@pytest.mark.parametrize(
    ("precision", "version", "flags"),
    [
        ("fp16", "8.6.2", ["--fp16", "--skipInference"]),
        ("int8", "8.6.2", ["--fp16", "--int8", "--skipInference"]),
        ("int8", "8.5.2", ["--fp16", "--int8", "--buildOnly"]),
        ("f32", "8.6.2", ["--skipInference"]),
        ("fp16", "10.3", ["--stronglyTyped", "--skipInference"]),
        ("int8", "10.16.2", ["--stronglyTyped", "--skipInference"]),
        ("int8", "11.4.1", ["--skipInference"]),
    ],
)
def test_trtexec_line(precision: str, version: str, flags: list[str]) -> None:
    line = trtexec_line("model.onnx", "model.engine", precision, version)  # type: ignore[arg-type]
    assert line.split() == ["trtexec", "--onnx=model.onnx", "--saveEngine=model.engine", *flags]


@pytest.mark.parametrize(
    ("version", "flags"), [("10.3", ["--fp16"]), ("8.5.2", ["--fp16"]), ("11.4.1", [])], ids=["10", "8", "11"]
)
def test_a_dla_takes_builder_flags_before_11(version: str, flags: list[str]) -> None:
    words = trtexec_line("model.onnx", "model.engine", "fp16", version, dla=1).split()
    assert [w for w in words if w in ("--fp16", "--stronglyTyped")] == flags
    assert "--useDLACore=1" in words and "--allowGPUFallback" in words


def test_the_build_script_runs_the_line_in_its_own_folder(tmp_path: Path) -> None:
    line = trtexec_line("model.onnx", "model.engine", "fp16", "10.3")
    made = TensorRtArtefact(
        onnx=OnnxArtefact(path=tmp_path / "m", opset=18, sha256="0" * 64, size_bytes=1), precision="fp16", trt_version="10.3",
        between="fp16", counts={}, trtexec=line,
    )  # fmt: skip
    bundle = tmp_path / "a bundle"
    bundle.mkdir()
    (bundle / "build.sh").write_text(made.build_script())
    fake = tmp_path / "trtexec"
    fake.write_text('#!/bin/sh\necho "$PWD: $*"\n')
    fake.chmod(0o755)
    done = subprocess.run(
        ["sh", str(bundle / "build.sh"), str(tmp_path)],
        env={"PATH": "/usr/bin:/bin", "TRTEXEC": str(fake)},
        capture_output=True,
        text=True,
    )
    words = line.removeprefix("trtexec ").replace("model.engine", f"{tmp_path}/model.engine")
    assert done.stdout.strip() == f"{bundle}: {words}"
    missing = subprocess.run(
        ["sh", str(bundle / "build.sh"), str(tmp_path)], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True
    )
    assert missing.returncode == 4 and "set TRTEXEC" in missing.stderr
    nowhere = subprocess.run(["sh", str(bundle / "build.sh")], capture_output=True, text=True)
    assert nowhere.returncode == 2 and "outside the bundle" in nowhere.stderr


def test_zeros_of_no_stated_type_become_half_too() -> None:
    """``ConstantOfShape`` without a value means float32 zeros."""
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"], name="zeros"),
        helper.make_node("MatMul", ["dn", "weights"], ["found"], name="found"),
        helper.make_node("Concat", ["found", "zeros"], ["logits"], axis=1, name="join"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("dn", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 4])],
        [
            numpy_helper.from_array(np.array([1, 2]), "shape"),
            numpy_helper.from_array(np.eye(2, dtype=np.float32), "weights"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    make_half(model)
    onnx.checker.check_model(model, full_check=True)
    assert tensor_types(model)["zeros"] == TensorProto.FLOAT16
