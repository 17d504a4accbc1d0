"""One model on many targets: timed here, recorded, or predicted, and never one for the other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rsedge.data.errors import RequestError
from rsedge.devices.table.rows import LatencyTable, latency_table, open_model

JETSON, ORT = "tensorrt-jetson-orin-nano-8gb-fp16", "onnxruntime-cpu-f32"
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A convolution that somebody made, of no contract of ours."""
    import numpy as np

    weight = np.random.default_rng(0).normal(size=(8, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 30, 30])], [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    path = tmp_path_factory.mktemp("network") / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_what_can_be_timed_is_timed_and_the_rest_predicted(network: Path) -> None:
    with open_model(network) as model:
        table = latency_table(model, [ORT, JETSON, ORT, "openvino-cpu-int8"], 1, 0.1, baseline=ORT)
    found = {row.target: row for row in table.rows}
    assert set(found) == {ORT, JETSON, "openvino-cpu-int8"} and table.macs == 8 * 3 * 9 * 30 * 30
    here, there, rounded = found[ORT], found[JETSON], found["openvino-cpu-int8"]
    assert (
        here.provenance == "measured"
        and here.p99_ms is not None
        and here.p99_ms >= here.ms
        and "timed here" in here.basis
    )
    for row in (there, rounded):  # the file computes in float, so nothing here tells its time in INT8
        assert (
            row.provenance == "predicted" and row.words.startswith("predicted ") and row.low_ms < row.ms < row.high_ms
        )
        assert row.basis.startswith("predicted") and row.p90_ms is None
    assert there.energy is not None and there.energy.provenance == "predicted"
    assert table.over_baseline(here) == "1" and (table.over_baseline(there) or "").startswith("predicted ")
    assert [row.ms for row in table.rows] == sorted(row.ms for row in table.rows)
    assert LatencyTable.model_validate_json(table.model_dump_json()) == table


def test_a_bundle_of_its_own_target_is_timed_and_of_no_other(bundle: Callable[..., Path]) -> None:
    with open_model(bundle("openvino-cpu-f32")) as model:
        table = latency_table(model, ["openvino-cpu-f32", JETSON], 1, 0.1)
    assert [row.provenance for row in table.rows] == ["measured"] and table.kind == "bundle" and table.macs is None
    assert [one.target for one in table.left_out] == [JETSON] and "needs an ONNX graph" in table.left_out[0].why


def test_an_ir_is_timed_where_openvino_is_asked_for(network: Path, tmp_path: Path) -> None:
    import openvino as ov

    ov.save_model(ov.convert_model(network), tmp_path / "net.xml")
    with open_model(tmp_path / "net.xml") as model:
        table = latency_table(model, ["openvino-cpu-f32", ORT], 1, 0.1)
    assert [row.target for row in table.rows] == ["openvino-cpu-f32"] and [one.target for one in table.left_out] == [
        ORT
    ]


def test_the_command_says_so_in_words_json_and_a_page(network: Path, cli: Cli, tmp_path: Path) -> None:
    page = tmp_path / "latency.html"
    targets = f"{ORT},{JETSON}"
    code, text, error = cli("latency", network, "--on", targets, "--seconds", "0.1", "--threads", "1", "--html", page)
    assert code == 0, error
    assert "predicted" in text and "timed here" in text and JETSON in text
    html = page.read_text(encoding="utf-8")
    assert (
        html.count("predicted") >= 4
        and "<script" not in html
        and "http" not in html.replace("http-equiv", "").replace("http://www.w3.org", "")
    )
    code, text, _ = cli("latency", network, "--on", JETSON, "--json")
    assert code == 0 and json.loads(text)["rows"][0]["provenance"] == "predicted"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["timm:resnet5"], "timm has no network 'resnet5'", marks=pytest.mark.slow),  # imports timm
        (["none.onnx"], "none.onnx"),
        (["NET", "--on", "openvino-cpu"], "is not <runtime>-<device>-<precision>"),
        (["NET", "--on", ORT, "--baseline", JETSON], "none of the targets"),
        (["none.xml"], "none.xml: no such file"),
    ],
)
def test_what_cannot_be_asked(network: Path, cli: Cli, arguments: list[str], words: str) -> None:
    code, _, error = cli("latency", *(network if a == "NET" else a for a in arguments))
    assert code == 2 and words in error, error


def test_open_shapes_are_left_out_in_words(network: Path, tmp_path: Path) -> None:
    model = onnx.load(network)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    onnx.save(model, tmp_path / "open.onnx")
    with pytest.raises(RequestError, match=r"open\.onnx"), open_model(tmp_path / "open.onnx"):
        pass


def test_bench_times_a_model_file_by_the_protocol_of_bundles(network: Path, cli: Cli) -> None:
    code, text, _ = cli("bench", network, "--target", ORT, "--seconds", "0.1", "--threads", "1", "--json")
    found = json.loads(text)
    assert code == 0 and found["provenance"] == "measured" and found["target"] == ORT and found["bursty"] is not None
    assert found["n"] >= 20 and found["latency_ms"]["p50"] > 0 and found["size_bytes"] == network.stat().st_size
    for wrong, words in (
        (("--layers",), "--layers is for bundles"), (("--target", JETSON), "rsedge latency"), (("--target", "cpu"), "cpu"),
    ):  # fmt: skip
        code, _, error = cli("bench", network, *wrong)
        assert code == 2 and words in error
    code, _, error = cli("bench", network.with_name("none.onnx"))
    assert code == 2 and "no such file" in error


def test_bench_of_a_bundle_has_a_target_already(bundle: Callable[..., Path], cli: Cli) -> None:
    code, _, error = cli("bench", bundle("openvino-cpu-f32"), "--target", ORT)
    assert code == 2 and "a bundle has its own" in error
