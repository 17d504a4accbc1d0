"""Conversion to LiteRT: torch's numbers for several networks and contracts, the contract in the file, the same bytes each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rsedge.compress.quantize.litert import quantize_litert
from rsedge.data.bands import DType, InputSpec
from rsedge.data.errors import RequestError
from rsedge.export.onnx.graph import Deployable, Output
from rsedge.export.parity import compare, run_session, run_torch
from rsedge.export.targets.litert import export_litert, read_litert_metadata
from rsedge.models.students import CATALOGUE
from rsedge.runtimes.litert.flatbuffer import read_model
from rsedge.runtimes.litert.session import LiteRtSession
from tests.export.export_nets import CLASSES, contract, tiles, unet, vit
from tests.export.test_student_exports import BOXES, OWN, inputs, student
from tests.models.students.small_students import OUTPUTS, small_contract

BUILT = (*OWN, BOXES)
PLAIN = contract()
SPECS = {
    "uint16": PLAIN,
    "int16, no nodata": contract("int16", nodata=None),
    "float32": contract("float32", nodata=-9999.0),
    "stretched to levels": InputSpec(
        bands=tuple(b.model_copy(update={"stretch": (0.0, 0.4)}) for b in PLAIN.bands),
        tile=PLAIN.tile, normalisation="stretch", levels=255,
    ),
}  # fmt: skip


def difference(graph: Deployable, path: Path, samples: list[np.ndarray]) -> float:
    session = LiteRtSession(path, None, threads=1)
    found = compare(run_torch(graph, samples), run_session(session, samples))
    assert found.valid_equal and found.agreement > 0.999
    return found.max_abs / max(1.0, found.logit_scale)


@pytest.mark.parametrize(
    "name", [n if n in ("uint16", "stretched to levels") else pytest.param(n, marks=pytest.mark.slow) for n in SPECS]
)
def test_the_numbers_are_torchs(name: str, tmp_path: Path) -> None:
    spec = SPECS[name]
    graph = Deployable(unet(), spec)
    made = export_litert(graph, tmp_path / "m.tflite", spec, CLASSES)
    assert difference(graph, made.path, tiles(spec)) < 1e-4
    assert read_litert_metadata(made.path) == (spec, CLASSES)


def test_attention(tmp_path: Path) -> None:
    spec = contract()
    graph = Deployable(vit(), spec)
    assert difference(graph, export_litert(graph, tmp_path / "m.tflite", spec, CLASSES).path, tiles(spec)) < 1e-4


@pytest.mark.parametrize(
    "name",
    [n if n in ("slim-unet", "series-conv") else pytest.param(n, marks=pytest.mark.slow) for n in BUILT],
)
def test_students_give_torchs_numbers_and_have_an_int8_copy(name: str, tmp_path: Path) -> None:
    entry = CATALOGUE[name]
    spec = small_contract(name, entry.layouts[0])
    task = entry.tasks[0]
    named: dict[str, Output] = {
        "segmentation": "map",
        "detection": "boxes",
        "super-resolution": "image",
        "features": "features",
    }
    output = named.get(task, "vector")
    graph = Deployable(student(name, spec), spec, output)
    classes = [f"c{i}" for i in range(OUTPUTS)]
    made = export_litert(graph, tmp_path / "f32.tflite", spec, classes)
    assert difference(graph, made.path, inputs(spec, 3)) < 1e-4
    record = quantize_litert(made.path, tmp_path / "int8.tflite", [dn[0] for dn in inputs(spec, 8)])
    assert 0 < record.quantized <= record.layers
    outputs = LiteRtSession(tmp_path / "int8.tflite", None, precision="int8")({"dn": inputs(spec, 1)[0]})
    assert np.isfinite(outputs["logits"]).all()


def test_the_same_network_gives_the_same_bytes_and_names(tmp_path: Path) -> None:
    spec = contract()
    first, second = (export_litert(Deployable(unet(), spec), tmp_path / f"{i}.tflite", spec, CLASSES) for i in range(2))
    assert first.sha256 == second.sha256 and first.size_bytes == first.path.stat().st_size
    names = [t.name.decode() for t in read_model(first.path.read_bytes()).subgraphs[0].tensors]
    assert len(set(names)) == len(names) and "net/stem/0/CONV_2D" in names


def test_an_operation_that_litert_has_not_is_told(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.qr(x[:, :3]).Q

    spec = contract()
    with pytest.raises(RequestError, match="cannot be converted to LiteRT"):
        export_litert(Deployable(Odd(), spec), tmp_path / "m.tflite", spec, CLASSES)
    assert not list(tmp_path.iterdir())


def test_another_programs_model_has_no_contract(tmp_path: Path) -> None:
    from tests.runtimes import tiny_litert
    from tests.runtimes import tiny_models as tiny

    path = tiny_litert.make_litert(tmp_path / "m.tflite", tiny.spec(), tiny.weights(4))
    with pytest.raises(RequestError, match="rsedge did not write it"):
        read_litert_metadata(path)


def test_digital_numbers_arrive_exactly(tmp_path: Path) -> None:
    """All values of 16 bits, through a network that changes nothing."""
    dtype: DType = "uint16"
    spec = contract(dtype, nodata=None, tile=128, scale=1.0, offset=0.0, mean=0.0, std=1.0)

    class Same(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 1.0

    made = export_litert(Deployable(Same(), spec), tmp_path / "m.tflite", spec, [b.name for b in spec.bands])
    dn = np.arange(6 * 128 * 128, dtype=np.uint32).astype(np.uint16).reshape(1, 6, 128, 128)
    assert np.array_equal(LiteRtSession(made.path, None)({"dn": dn})["logits"], dn.astype(np.float32))
