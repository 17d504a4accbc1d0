"""Exporting takes seconds, so each net and contract is exported once for all tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rsedge.data.bands import DType, InputSpec
from rsedge.export.onnx.graph import Deployable
from rsedge.export.onnx.opset import EXPORTED
from rsedge.export.onnx.writing import OnnxArtefact, export_onnx
from tests.export.export_nets import CLASSES, unet, vit

Exporter = Callable[..., tuple[Deployable, OnnxArtefact]]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exporter:
    """``exported(net, spec, opset, input_dtype)`` -> the deployable graph and its ONNX; treat both as read-only."""
    folder = tmp_path_factory.mktemp("exported")
    known: dict[object, tuple[Deployable, OnnxArtefact]] = {}

    def export(
        net: str, spec: InputSpec, opset: int = EXPORTED, dtype: DType | None = None
    ) -> tuple[Deployable, OnnxArtefact]:
        key = (net, spec, opset, dtype)
        if key not in known:
            graph = Deployable({"unet": unet, "vit": vit}[net](), spec)
            made = export_onnx(graph, spec, CLASSES, folder / f"{len(known)}.onnx", opset, dtype)
            known[key] = (graph, made)
        return known[key]

    return export
