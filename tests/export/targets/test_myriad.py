"""Models for the Myriad X: written and run by OpenVINO 2022.3.2 for real (its CPU plugin), refused by operation."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from rsedge.data.errors import IntegrityError, MissingCapability, RequestError
from rsedge.export.bundle import About, write_bundle
from rsedge.export.onnx.writing import export_onnx
from rsedge.export.parity import run_session
from rsedge.export.targets.myriad import MyriadArtefact, check_release, export_myriad, round_activations
from rsedge.export.targets.myriad_operations import unsupported
from rsedge.export.targets.openvino import read_openvino_metadata
from rsedge.runtimes import Bundle
from rsedge.runtimes.myriad.process import OpenVino2022Session
from rsedge.runtimes.opening import open_session
from tests.export.conftest import Exporter
from tests.export.export_nets import CLASSES, contract, tiles

TARGET = "openvino-myriad-x-fp16"


Maker = Callable[[str], MyriadArtefact]


@pytest.fixture(scope="module")
def made(exported: Exporter, openvino2022: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """``made(net)``: the network for the Myriad X, converted once."""
    folder, known = tmp_path_factory.mktemp("myriad"), {}

    def get(net: str) -> MyriadArtefact:
        if openvino2022 is None:
            pytest.skip("no Python 3.10 for OpenVINO 2022.3.2")
        if net not in known:
            source = exported(net, contract(), 17, "float32")[1].path
            known[net] = export_myriad(source, folder / net / "model.xml", contract(), CLASSES, tiles(contract()), 1)
        return known[net]

    return get


@pytest.mark.parametrize("net", ["unet", "vit"])
def test_the_ir_is_the_network_within_fp16(exported: Exporter, made: Maker, net: str) -> None:
    artefact = made(net)
    assert artefact.passed and artefact.openvino.startswith("2022.3.2")
    for found in (artefact.weights_fp16, artefact.activations_fp16):
        assert found.valid_equal and found.agreement > 0.99
    assert 0 < artefact.weights_fp16.max_abs < artefact.activations_fp16.max_abs < 2e-2
    assert artefact.bin.stat().st_size < 0.6 * exported(net, contract(), 17, "float32")[1].size_bytes
    assert read_openvino_metadata(artefact.xml) == (contract(), CLASSES)
    assert sorted(p.name for p in artefact.xml.parent.iterdir()) == ["model.bin", "model.xml"]
    assert MyriadArtefact.model_validate_json(artefact.model_dump_json()) == artefact


def test_a_bundle_is_checked_by_its_own_release(made: Maker, tmp_path: Path) -> None:
    artefact = made("unet")
    folder = write_bundle(
        tmp_path / "bundle", About("clouds", CLASSES), target=TARGET, input_spec=contract(),
        model_files={"model.xml": artefact.xml, "model.bin": artefact.bin}, golden_dn=tiles(contract(), 2), build=artefact,
    )  # fmt: skip
    with Bundle.open(folder) as bundle:
        result = bundle.verify(1, "CPU")
        assert result.passed and result.max_abs_difference < 1e-4
        with pytest.raises(MissingCapability, match=r"finds no MYRIAD.*finds: CPU.*RSEDGE_OPENVINO2022"):
            bundle.session()
        with pytest.raises(MissingCapability, match="finds no MYRIAD"):
            open_session(bundle.folder / "model.xml", "openvino", device="MYRIAD")
    (folder / "model.blob").write_bytes(b"what compile_tool writes")
    with pytest.raises(IntegrityError, match=r"does not list: model\.blob; remove them.*device's own cache"):
        Bundle.open(folder)
    (folder / "model.blob").unlink()
    (folder / "model.bin").write_bytes(b"altered")
    with pytest.raises(IntegrityError, match=r"model\.bin"):
        Bundle.open(folder)


def test_the_build_script_runs_compile_tool_in_its_own_folder(made: Maker, tmp_path: Path) -> None:
    (tmp_path / "build.sh").write_text(made("unet").build_script())
    tool = tmp_path / "tool"
    tool.write_text('#!/bin/sh\necho "$PWD: $*"\n')
    tool.chmod(0o755)
    command = ["sh", str(tmp_path / "build.sh"), "/tmp"]
    environment = {"PATH": "/usr/bin:/bin", "COMPILE_TOOL": str(tool)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == f"{tmp_path}: -m model.xml -d MYRIAD -o /tmp/model.blob"
    missing = subprocess.run(command, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert missing.returncode == 4 and "set COMPILE_TOOL" in missing.stderr


def test_operations_that_the_vpu_lacks_are_named(tmp_path: Path, need_openvino2022: Path) -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            wide = nn.functional.interpolate(torch.sin(x), scale_factor=0.5, mode="bicubic")
            return nn.functional.interpolate(nn.functional.hardsigmoid(wide), scale_factor=2.0)[:, :3]

    source = export_onnx(Odd(), contract(), CLASSES, tmp_path / "odd.onnx", 17, "float32").path
    with pytest.raises(RequestError, match=r"cannot run Sin '.*Sin.*cubic.*HardSigmoid") as error:
        export_myriad(source, tmp_path / "model.xml", contract(), CLASSES, tiles(contract(), 1))
    assert "Split" not in str(error.value) and "Select" not in str(error.value)
    assert not (tmp_path / "model.xml").exists()


def operation(kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> dict[str, Any]:
    return {"type": kind, "name": "x", "inputs": inputs, "outputs": outputs, "attributes": attributes}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (operation("Convolution", ["f32", "f32"], ["f32"]), None),
        (operation("FakeQuantize", ["f32"], ["f32"]), "no such operation"),
        (operation("Parameter", [], ["u16"]), "not u16"),
        (operation("Greater", ["f32", "f32"], ["boolean"]), None),
        (operation("NotEqual", ["f32", "f32"], ["boolean"]), "not on f32"),
        (operation("LogicalOr", ["boolean", "boolean"], ["boolean"]), "not on boolean"),
        (operation("LogicalAnd", ["boolean", "boolean"], ["boolean"]), None),
        (operation("Power", ["i64", "i64"], ["i64"]), "not on i64"),
        (operation("Convert", ["boolean"], ["u8"]), None),
        (operation("Convert", ["f32"], ["u8"]), "from f32 to u8"),
        (operation("Interpolate", ["f32"], ["f32"], mode="cubic"), "cubic"),
        (operation("Interpolate", ["f32"], ["f32"], mode="nearest", pads_begin=[0, 1]), "padding"),
        (operation("Interpolate", ["f32"], ["f32"], mode="linear_onnx", pads_begin=[0, 0]), None),
    ],
)
def test_operations_by_type_and_element(given: dict[str, Any], reason: str | None) -> None:
    found = unsupported([given])
    assert found == [] if reason is None else reason in found[0]


def test_wrong_sources_are_refused(exported: Exporter, tmp_path: Path) -> None:
    def export(source: Path, spec: Any) -> None:
        export_myriad(source, tmp_path / "model.xml", spec, CLASSES, tiles(spec, 1))

    with pytest.raises(RequestError, match="opset 18"):
        export(exported("unet", contract())[1].path, contract())
    with pytest.raises(RequestError, match="takes no uint16"):
        export(exported("unet", contract(), 17)[1].path, contract())
    with pytest.raises(RequestError, match="nodata 65535 is beyond fp16"):
        far = contract(nodata=65535)
        export(exported("unet", far, 17, "float32")[1].path, far)
    with pytest.raises(MissingCapability, match=r"needs OpenVINO 2020\.3"):
        check_release("openvino-myriad-2-fp16", "2020.3")


def test_overflow_is_found_by_rounding(tmp_path: Path, need_openvino2022: Path) -> None:
    class Large(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x[:, :3] * 1e5) * 1e-5

    source = export_onnx(Large(), contract(), CLASSES, tmp_path / "large.onnx", 17, "float32").path
    with pytest.raises(RequestError, match="overflow fp16"):
        export_myriad(source, tmp_path / "model.xml", contract(), CLASSES, tiles(contract(), 1))


def test_rounding_rounds_every_tensor(exported: Exporter, tmp_path: Path) -> None:
    source = exported("unet", contract(), 17, "float32")[1].path
    onnx.save(round_activations(onnx.load(source)), tmp_path / "rounded.onnx")
    with open_session(tmp_path / "rounded.onnx", "onnxruntime", threads=1) as session:  # type: ignore[attr-defined]
        logits = run_session(session, tiles(contract(), 1)).logits
    assert np.array_equal(logits, logits.astype(np.float16).astype(np.float32))


def test_bright_dn_are_held_at_the_largest_fp16(made: Maker) -> None:
    artefact = made("unet")
    shape = (1, 6, 64, 64)
    with OpenVino2022Session(artefact.xml, None, "CPU", threads=1) as session:
        assert session.input_spec == contract() and session.runtime_version.startswith("2022.3.2")
        bright, largest = (session({"dn": np.full(shape, v, np.uint16)})["logits"] for v in (65535, 65504))
        assert np.isfinite(bright).all() and np.array_equal(bright, largest)
        streamed = list(session.stream({"dn": t} for t in tiles(contract())))
        assert len(streamed) == 3
    with pytest.raises(RequestError, match="closed"):
        session({"dn": np.zeros(shape, np.uint16)})
