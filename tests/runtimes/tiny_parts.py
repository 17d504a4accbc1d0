"""Bundles of several parts, made of a few ONNX nodes each; no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rsedge.data.bands import InputSpec
from rsedge.export.bundle import About
from rsedge.export.parts_bundle import write_parts_bundle
from rsedge.runtimes.bundle.manifest import Target

F32, U16 = TensorProto.FLOAT, TensorProto.UINT16
Port = tuple[str, int, Sequence[int]]


def graph(path: Path, inputs: Sequence[Port], outputs: Sequence[Port], nodes: Sequence[Any], **constants: Any) -> Path:
    """Writes a graph of fixed shapes."""
    made = helper.make_graph(
        list(nodes), path.stem, [helper.make_tensor_value_info(*port) for port in inputs],
        [helper.make_tensor_value_info(*port) for port in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


def _masks(folder: Path, spec: InputSpec) -> tuple[dict[str, Path], dict[str, Any]]:
    node, (bands, edge, _) = helper.make_node, spec.shape
    encoder = graph(
        folder / "encoder.onnx", [("dn", U16, [1, bands, edge, edge])], [("embedding", F32, [1, 1, edge, edge])],
        [node("Cast", ["dn"], ["x"], to=F32), node("Conv", ["x", "w"], ["embedding"])],
        w=np.full((1, bands, 1, 1), 1e-4, np.float32),
    )  # fmt: skip
    decoder = graph(
        folder / "decoder.onnx",
        [("embedding", F32, [1, 1, edge, edge]), ("points", F32, [1, 2, 2, 2]), ("labels", F32, [1, 2, 2])],
        [("masks", F32, [1, 2, 1, edge, edge]), ("quality", F32, [1, 2, 1])],
        [
            node("ReduceSum", ["labels", "last"], ["quality"]), node("ReduceSum", ["points", "both"], ["far"]),
            node("Reshape", ["far", "form"], ["scale"]), node("Reshape", ["embedding", "wide"], ["image"]),
            node("Mul", ["image", "scale"], ["product"]), node("Sub", ["product", "half"], ["masks"]),
        ],
        last=np.array([2]), both=np.array([2, 3]), form=np.array([1, 2, 1, 1, 1]), wide=np.array([1, 1, 1, edge, edge]),
        half=np.float32(0.5),
    )  # fmt: skip
    sample = {
        "dn": np.ones(spec.shape, np.uint16),
        "points": np.ones((2, 2, 2), np.float32),
        "labels": np.ones((2, 2), np.float32),
    }
    return {"encoder": encoder, "decoder": decoder}, sample


def _towers(folder: Path, spec: InputSpec) -> tuple[dict[str, Path], dict[str, Any]]:
    node, paths = helper.make_node, {}
    for name in ("query", "item"):
        paths[name] = graph(
            folder / f"{name}.onnx",
            [("dn", U16, [1, 2])],
            [("vector", F32, [1, 2])],
            [node("Cast", ["dn"], ["vector"], to=F32)],
        )
    return paths, {"query": np.array([1, 2], np.uint16), "item": np.array([1, 2], np.uint16)}


def _sampler(folder: Path, spec: InputSpec) -> tuple[dict[str, Path], dict[str, Any]]:
    node, (bands, edge, _) = helper.make_node, spec.shape
    step = graph(
        folder / "step.onnx", [("latent", F32, [1, 1, edge, edge]), ("time", F32, [1])], [("noise", F32, [1, 1, edge, edge])],
        [node("Mul", ["time", "small"], ["t"]), node("Add", ["latent", "t"], ["noise"])], small=np.float32(1e-4),
    )  # fmt: skip
    decoder = graph(
        folder / "decoder.onnx", [("latent", F32, [1, 1, edge, edge])], [("image", F32, [1, bands, edge, edge])],
        [node("Conv", ["latent", "w"], ["image"])], w=np.ones((bands, 1, 1, 1), np.float32),
    )  # fmt: skip
    return {"step": step, "decoder": decoder}, {"seed": np.array(0, np.int64)}


WHOLES = {"prompted-masks": _masks, "retrieval": _towers, "sampled-picture": _sampler}
SAMPLER = {"betas": "linear", "beta_start": 1e-3, "beta_end": 2e-2, "times": 10, "steps": 2}


def make_parts_bundle(folder: Path, whole: str, spec: InputSpec, made: Path) -> tuple[Path, dict[str, Any]]:
    """A bundle for ONNX Runtime, its graphs written in ``made``, and its golden sample."""
    made.mkdir(parents=True)
    paths, sample = WHOLES[whole](made, spec)
    settings = {"sampler": SAMPLER} if whole == "sampled-picture" else {}
    write_parts_bundle(
        folder, About(name=whole, classes=("a", "b"), task="instances"), target=Target.parse("onnxruntime-cpu-f32"),
        whole=whole, settings=settings, input_spec=spec, part_files={n: [p] for n, p in paths.items()}, golden=sample, threads=1,
    )  # fmt: skip
    return folder, sample
