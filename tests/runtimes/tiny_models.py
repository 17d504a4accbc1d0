"""Tiny per-pixel models and scenes with the real graph contract, made in the test."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np

from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.files import sha256_file
from tests.runtimes import tiny_litert

CLASSES = ("background", "cloud", "shadow")
NAMES = ("blue", "green", "red", "nir")


def spec(tile: int = 32, names: tuple[str, ...] = NAMES, dtype: str = "uint16", **more: Any) -> InputSpec:
    """Reflectance contract: DN = reflectance * 10000, nodata 0."""
    bands = tuple(
        BandSpec(name=n, scale=1e-4, nodata=0.0, mean=0.2, std=0.1, sensor="sentinel-2", valid_range=(0.0, 1.6))
        for n in names
    )
    more.setdefault("gsd_range_m", (8.0, 70.0))
    return InputSpec(bands=bands, dtype=dtype, tile=tile, **more)


def weights(channels: int) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(len(CLASSES), channels, 1, 1)).astype(np.float32)


def reference(contract: InputSpec, dn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the tiny model computes, in NumPy: logits (K, H, W), valid (H, W)."""
    logits = np.einsum("kc,chw->khw", weights(contract.channels)[:, :, 0, 0], contract.normalise(dn))
    return logits.astype(np.float32), contract.valid(dn)


def make_onnx(path: Path, contract: InputSpec, graph_dtype: str | None = None, with_spec: bool = True) -> Path:
    """``dn`` -> ``logits``, ``valid``: normalisation, masking and a 1x1 convolution."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    c, t = contract.channels, contract.tile
    types = {"uint16": TensorProto.UINT16, "uint8": TensorProto.UINT8, "int16": TensorProto.INT16}
    dtype = types.get(graph_dtype or contract.dtype, TensorProto.FLOAT)
    scale = (contract.vector("scale") / contract.vector("std")).reshape(1, c, 1, 1)
    shift = ((contract.vector("offset") - contract.vector("mean")) / contract.vector("std")).reshape(1, c, 1, 1)
    values = {"scale": scale, "shift": shift, "w": weights(c), "zero": np.float32(contract.nodata or 0.0)}
    node = helper.make_node
    nodes = [
        node("Cast", ["dn"], ["x"], to=TensorProto.FLOAT),
        node("Equal", ["x", "zero"], ["missing"]),
        node("Not", ["missing"], ["seen"]),
        node("Cast", ["seen"], ["seen_f"], to=TensorProto.FLOAT),
        node("ReduceMax", ["seen_f"], ["mask"], axes=[1], keepdims=1),
        node("Mul", ["x", "scale"], ["scaled"]),
        node("Add", ["scaled", "shift"], ["normal"]),
        node("Mul", ["normal", "mask"], ["masked"]),
        node("Conv", ["masked", "w"], ["logits"]),
        node("Squeeze", ["mask", "one"], ["flat"]),
        node("Cast", ["flat"], ["valid"], to=TensorProto.UINT8),
    ]
    initial = [numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in values.items()]
    initial.append(numpy_helper.from_array(np.array([1], np.int64), "one"))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("dn", dtype, [1, c, t, t])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, len(CLASSES), t, t]),
            helper.make_tensor_value_info("valid", TensorProto.UINT8, [1, t, t]),
        ],
        initial,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if with_spec:
        helper.set_model_props(model, {"rsedge": contract.model_dump_json()})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def make_ir(folder: Path, contract: InputSpec) -> Path:
    """The same as OpenVINO IR."""
    import openvino as ov

    source = make_onnx(folder / "source.onnx", contract)
    model = ov.Core().read_model(source)
    model.set_rt_info(contract.model_dump_json(), ["rsedge"])
    ov.save_model(model, folder / "model.xml", compress_to_fp16=False)
    source.unlink()
    return folder / "model.xml"


def make_bundle(folder: Path, contract: InputSpec, target: str = "openvino-cpu-f32", key: Any = None) -> Path:
    """A whole bundle folder, signed when an Ed25519 private key is given."""
    folder.mkdir(parents=True)
    if target.startswith("openvino"):
        make_ir(folder, contract)
        model = "model.xml"
    elif target.startswith("litert"):
        model = tiny_litert.make_litert(folder / "model.tflite", contract, weights(contract.channels)).name
    else:
        make_onnx(folder / "model.onnx", contract, "float32" if target.startswith("tensorrt") else None)
        model = "model.onnx"
    rng = np.random.default_rng(0)
    dn = rng.integers(0, 9000, size=(1, contract.channels, contract.tile, contract.tile)).astype(contract.dtype)
    dn[..., :3, :3] = 0
    logits, valid = reference(contract, dn[0])
    np.savez(folder / "golden.npz", dn=dn, logits=logits[None], valid=valid[None].astype(np.uint8))
    write_manifest(folder, contract, target, model)
    if key is not None:
        sign(folder, key)
    return folder


def write_manifest(folder: Path, contract: InputSpec, target: str, model: str) -> None:
    from rsedge.runtimes.bundle.manifest import FileEntry, Golden, Manifest, Target

    files = {
        p.name: FileEntry(sha256=sha256_file(p), bytes=p.stat().st_size)
        for p in sorted(folder.iterdir())
        if p.name not in ("manifest.json", "manifest.sig", "signing.pub")
    }
    parsed = Target.parse(target)
    manifest = Manifest(
        name="tiny",
        classes=CLASSES,
        target=parsed,
        input_spec=contract,
        model_file=model,
        files=files,
        golden=Golden(atol=_tolerance(folder, parsed), agreement_min=0.99),
    )
    (folder / "manifest.json").write_bytes(manifest.to_bytes())


def _tolerance(folder: Path, target: Any) -> float:
    """In half precision that of the bundles' writer: a processor that computes in it (AMX, AVX512-FP16) differs by so much."""
    if target.precision != "fp16":
        return 1e-3
    with np.load(folder / "golden.npz") as stored:
        return float(target.backend.tolerance("fp16")[0] * max(1.0, np.abs(stored["logits"]).max()))


def sign(folder: Path, key: Any) -> None:
    from cryptography.hazmat.primitives import serialization

    content = (folder / "manifest.json").read_bytes()
    (folder / "manifest.sig").write_bytes(base64.b64encode(key.sign(content)) + b"\n")
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / "signing.pub").write_bytes(pem)


def edit_manifest(folder: Path, **changes: Any) -> None:
    place = folder / "manifest.json"
    value = json.loads(place.read_text())
    value.update(changes)
    place.write_text(json.dumps(value, indent=2))


def write_scene(path: Path, dn: np.ndarray, names: tuple[str | None, ...] | None, **profile: Any) -> Path:
    """A GeoTIFF of ``dn`` (C, H, W) in EPSG:32632 at 10 m with band descriptions."""
    import rasterio
    from rasterio.transform import from_origin

    scales, offsets = profile.pop("scales", None), profile.pop("offsets", None)
    profile = {"crs": "EPSG:32632", "transform": from_origin(500000, 5400000, 10, 10), **profile}
    count, height, width = dn.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=dn.dtype, **profile
    ) as f:
        f.write(dn)
        for i, name in enumerate(names or (), start=1):
            if name:
                f.set_band_description(i, name)
        if scales is not None:
            f.scales = scales
        if offsets is not None:
            f.offsets = offsets
    return path


def random_scene(contract: InputSpec, height: int, width: int, seed: int = 1, hole: bool = True) -> np.ndarray:
    dn = np.random.default_rng(seed).integers(1, 9000, size=(contract.channels, height, width)).astype(contract.dtype)
    if hole:
        dn[:, : min(2, height - 1), : min(3, width - 1)] = 0
    return dn
