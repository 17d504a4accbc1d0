"""ONNX and OpenVINO artefacts: same numbers as torch, contract in the metadata, whole or absent, reproducible."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import openvino as ov
import pytest
import torch
from torch import nn

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.export.onnx import external
from rsedge.export.onnx.external import export_whole
from rsedge.export.onnx.graph import Deployable
from rsedge.export.onnx.writing import export_onnx, read_metadata, save_onnx, weight_bytes
from rsedge.export.parity import Outputs, compare, parity
from rsedge.export.targets.openvino import export_openvino, read_openvino, read_openvino_metadata, save_openvino
from rsedge.runtimes.file_checks import agree
from rsedge.runtimes.opening import open_session
from tests.export.conftest import Exporter
from tests.export.export_nets import CLASSES, contract, tiles, unet


@pytest.mark.parametrize(("net", "opset"), [("unet", 13), ("unet", 18), ("vit", 13), ("vit", 17), ("vit", 20)])
def test_three_runtimes_agree_at_f32(exported: Exporter, net: str, opset: int, tmp_path: Path) -> None:
    spec = contract()
    graph, made = exported(net, spec, opset)
    ir = export_openvino(made.path, tmp_path / "m.xml", spec, CLASSES)
    record = parity(graph, made.path, ir.xml, tiles(spec))
    assert made.opset == opset and agree(record)
    for runtime in ("onnxruntime", "openvino"):
        assert record[runtime].max_abs <= 1e-4 * max(1, record[runtime].logit_scale)
        assert record[runtime].agreement >= 0.9999 and record[runtime].valid_equal
        assert 0 < record[runtime].pixels < 3 * 64 * 64


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [("uint16", None), ("uint8", 255), ("int16", -9999), ("float32", -9999)],
)
def test_every_dn_type_and_nodata_runs_everywhere(dtype: str, nodata: float | None, tmp_path: Path) -> None:
    spec = contract(dtype, nodata)  # type: ignore[arg-type]
    graph = Deployable(unet(), spec)
    made = export_onnx(graph, spec, CLASSES, tmp_path / "m.onnx")
    ir = export_openvino(made.path, tmp_path / "m.xml", spec, CLASSES)
    samples = tiles(spec)
    record = parity(graph, made.path, ir.xml, samples)
    assert agree(record), record
    with open_session(ir.xml, "openvino") as session:  # type: ignore[attr-defined]
        valid = session({"dn": samples[0]})["valid"]
    np.testing.assert_array_equal(valid[0], spec.valid(samples[0])[0])


def test_contract_and_classes_travel(tmp_path: Path) -> None:
    spec, classes = contract(), ("Erde", "Wasser", "Wölkchen \"&<'")
    made = export_onnx(unet(), spec, classes, tmp_path / "m.onnx")
    ir = export_openvino(made.path, tmp_path / "m.xml", spec, classes)
    assert read_metadata(made.path) == (spec, classes) == read_openvino_metadata(ir.xml)
    assert open_session(made.path, "onnxruntime").input_spec == spec
    assert open_session(ir.xml, "openvino").input_spec == spec


def test_the_graph_is_clean(exported: Exporter) -> None:
    model = onnx.load(exported("unet", contract())[1].path)
    ops = [n.op_type for n in model.graph.node]
    assert "BatchNormalization" not in ops and "Constant" not in ops
    assert all(n.name.startswith(("prepare/", "net/")) for n in model.graph.node)
    assert not any(n.metadata_props or n.doc_string for n in model.graph.node)
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [1, 6, 64, 64]
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT16
    types = {o.name: o.type.tensor_type.elem_type for o in model.graph.output}
    assert types == {"logits": onnx.TensorProto.FLOAT, "valid": onnx.TensorProto.UINT8}
    assert "export_nets.py" not in str(model)  # no stack traces


def test_the_same_network_gives_the_same_bytes(exported: Exporter, tmp_path: Path) -> None:
    _, first = exported("unet", contract())
    second = export_onnx(unet(), contract(), CLASSES, tmp_path / "b.onnx")
    assert first.sha256 == second.sha256
    weights = [
        export_openvino(m.path, tmp_path / f"{i}.xml", contract(), CLASSES) for i, m in enumerate((first, second))
    ]
    assert weights[0].bin_sha256 == weights[1].bin_sha256


def test_bad_requests_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="opset 9"):
        export_onnx(unet(), contract(), CLASSES, tmp_path / "m.onnx", 9)
    with pytest.raises(RequestError, match=r"gives 3 classes, but 2 are named"):
        export_onnx(unet(), contract(), CLASSES[:2], tmp_path / "m.onnx")

    class Shaky(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if float(x.sum()) > 0 else -x

    with pytest.raises(RequestError, match="cannot be exported"):
        export_onnx(Shaky(), contract(), ["a"] * 6, tmp_path / "m.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(RequestError, match=r"broken\.onnx: OpenVINO cannot read it"):
        export_openvino(tmp_path / "broken.onnx", tmp_path / "m.xml", contract(), CLASSES)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken.onnx"]


def test_an_operator_without_an_older_form_is_named(tmp_path: Path) -> None:
    class Grid(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            flow = torch.zeros(1, x.shape[2], x.shape[3], 2)
            return nn.functional.grid_sample(x, flow + x.mean(), align_corners=False)

    with pytest.raises(RequestError, match=r"opset 13 has no GridSample"):
        export_onnx(Grid(), contract(), ["a", "b", "c", "d", "e", "f"], tmp_path / "m.onnx", 13)


def test_an_invalid_graph_is_never_written(exported: Exporter, tmp_path: Path) -> None:
    _, made = exported("unet", contract())
    model = onnx.load(made.path)
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(RequestError, match="not valid ONNX"):
        save_onnx(model, tmp_path / "bad.onnx")
    assert not list(tmp_path.iterdir())


def test_a_failing_openvino_writer_leaves_the_old_ir(
    exported: Exporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, made = exported("unet", contract())
    before = export_openvino(made.path, tmp_path / "m.xml", contract(), CLASSES)

    def full(model: object, path: Path, **_: object) -> None:
        Path(path).with_suffix(".bin").write_bytes(b"half")
        raise RuntimeError("write failed")

    monkeypatch.setattr(ov, "save_model", full)
    with pytest.raises(MissingCapability, match="could not write"):
        save_openvino(read_openvino(made.path), tmp_path / "m.xml", contract(), CLASSES)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.bin", "m.xml"]
    assert before.size_bytes == sum((tmp_path / n).stat().st_size for n in ("m.bin", "m.xml"))


def test_half_weights_halve_the_file_and_keep_the_numbers(exported: Exporter, tmp_path: Path) -> None:
    spec = contract()
    graph, made = exported("unet", spec)
    full = export_openvino(made.path, tmp_path / "full.xml", spec, CLASSES)
    half = export_openvino(made.path, tmp_path / "half.xml", spec, CLASSES, compress_to_fp16=True)
    assert half.bin.stat().st_size < 0.6 * full.bin.stat().st_size
    record = parity(graph, made.path, half.xml, tiles(spec))
    assert record["openvino"].agreement > 0.99 and record["openvino"].max_abs < 2e-2


def test_compare_sees_what_differs() -> None:
    logits = np.zeros((1, 2, 4, 4), np.float32)
    logits[:, 0] = 1
    valid = np.ones((1, 4, 4), np.uint8)
    valid[0, 0] = 0
    other = logits.copy()
    other[0, :, 1, 1] = (0, 1)
    other[0, :, 0, 0] = 99  # nodata in the reference: does not count
    difference = compare(Outputs(logits, valid), Outputs(other, valid))
    assert difference.max_abs == 1 and difference.pixels == 12 and difference.agreement == pytest.approx(11 / 12)
    assert not difference.within() and compare(Outputs(logits, valid), Outputs(logits, valid)).within()
    flipped = compare(Outputs(logits, valid), Outputs(logits, 1 - valid))
    assert not flipped.valid_equal and not flipped.within()
    with pytest.raises(RequestError, match="shape"):
        compare(Outputs(logits, valid), Outputs(logits[:, :1], valid))


def test_over_the_limit_of_one_file_the_weights_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, net = contract(), unet()
    graph = Deployable(net, spec)
    whole = export_whole(graph, spec, CLASSES, tmp_path / "one.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["one.onnx"]
    monkeypatch.setattr(external, "LARGEST", weight_bytes(graph) - 1)
    apart = export_whole(graph, spec, CLASSES, tmp_path / "two.onnx")
    assert apart.path.stat().st_size < whole.size_bytes < apart.size_bytes + 1000
    assert read_metadata(apart.path) == (spec, CLASSES)
    ir = export_openvino(apart.path, tmp_path / "m.xml", spec, CLASSES)
    assert agree(parity(graph, apart.path, ir.xml, tiles(spec)))
