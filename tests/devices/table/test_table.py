"""One model on many targets: timed here, recorded, or predicted, and never one for the other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from rsedge.data.errors import RequestError
from rsedge.devices.table.rows import LatencyTable, latency_table, open_model
from rsedge.runtimes.graph_types import GraphTypes

JETSON, ORT = "tensorrt-jetson-orin-nano-8gb-fp16", "onnxruntime-cpu-f32"
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A convolution that somebody made, of no contract of ours."""
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
    assert {row.target: row.provenance for row in table.rows} == {"openvino-cpu-f32": "measured", JETSON: "predicted"}
    assert table.kind == "bundle" and table.macs is not None and table.macs > 0 and not table.left_out


def test_a_bundle_without_a_graph_says_so(bundle: Callable[..., Path]) -> None:
    with open_model(bundle("litert-cpu-f32")) as model:
        table = latency_table(model, ["litert-cpu-f32", JETSON], 1, 0.1)
    assert [row.provenance for row in table.rows] == ["measured"] and table.macs is None
    assert [one.target for one in table.left_out] == [JETSON] and "nothing to predict from" in table.left_out[0].why


def test_an_ir_is_timed_where_openvino_is_asked_for(network: Path, tmp_path: Path) -> None:
    import openvino as ov

    ov.save_model(ov.convert_model(network), tmp_path / "net.xml")
    with open_model(tmp_path / "net.xml") as model:
        table = latency_table(model, ["openvino-cpu-f32", ORT], 1, 0.1)
    assert {row.target: row.provenance for row in table.rows} == {"openvino-cpu-f32": "measured", ORT: "predicted"}


def test_the_command_says_so_in_words_json_and_a_page(network: Path, cli: Cli, tmp_path: Path) -> None:
    page = tmp_path / "latency.html"
    targets = f"{ORT},{JETSON}"
    code, text, error = cli("latency", network, "--on", targets, "--seconds", "0.1", "--threads", "1", "--html", page)
    assert code == 0, error
    assert "predicted" in text and "timed here" in text and JETSON in text
    html = page.read_text(encoding="utf-8")
    assert (
        html.count("predicted") >= 4
        and html.count("<script") == 1
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
        (["NET", "--on", " , "], "--on: names no target"),
        (["NET", "--key", "team.pub"], "net.onnx: --key is for bundles"),
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


KINDS = ("f32", "fp16", "qdq", "qlinear", "integer", "weights")


def of_kind(kind: str, path: Path) -> Path:
    """A convolution on 3 x 32 x 32: in f32, fp16, between quantize/dequantize pairs, as QLinearConv or ConvInteger, or with its
    weights alone in INT8."""
    half = kind == "fp16"
    weight = np.random.default_rng(0).integers(-100, 100, (8, 3, 3, 3)).astype(np.int8)
    values = {"s": np.float32(0.02), "zx": np.uint8(128), "zw": np.int8(0), "w": weight}
    node = helper.make_node
    quantize, dequantize = (
        node("QuantizeLinear", ["x", "s", "zx"], ["q"]),
        node("DequantizeLinear", ["w", "s", "zw"], ["wd"]),
    )
    answer = node("DequantizeLinear", ["r", "s", "zx"], ["y"])
    nodes = {
        "qdq": [quantize, node("DequantizeLinear", ["q", "s", "zx"], ["d"]), dequantize, node("Conv", ["d", "wd"], ["c"]),
                node("QuantizeLinear", ["c", "s", "zx"], ["r"]), answer],
        "qlinear": [quantize, node("QLinearConv", ["q", "s", "zx", "w", "s", "zw", "s", "zx"], ["r"]), answer],
        "integer": [quantize, node("ConvInteger", ["q", "w", "zx"], ["i"]), node("Cast", ["i"], ["y"], to=TensorProto.FLOAT)],
        "weights": [dequantize, node("Conv", ["x", "wd"], ["y"])],
    }.get(kind, [node("Conv", ["x", "w"], ["y"])])  # fmt: skip
    if kind in ("f32", "fp16"):
        values = {"w": (0.02 * weight).astype(np.float16 if half else np.float32)}
    used = {name for one in nodes for name in one.input}
    kept = [numpy_helper.from_array(np.asarray(v), n) for n, v in values.items() if n in used]
    dtype = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    ends = [helper.make_tensor_value_info(n, dtype, s) for n, s in (("x", [1, 3, 32, 32]), ("y", [1, 8, 30, 30]))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], kept)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def as_ir(path: Path) -> Path:
    import openvino as ov

    ov.save_model(ov.convert_model(path), path.with_suffix(".xml"), compress_to_fp16=False)
    return path.with_suffix(".xml")


HOLDS = {"f32": "float graph, weights f32", "fp16": "float graph, weights fp16", "qdq": "quantized graph, weights int8",
         "qlinear": "quantized graph, weights int8", "integer": "quantized graph, weights int8",
         "weights": "float graph, weights int8"}  # fmt: skip


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime", "IR"])
@pytest.mark.parametrize("kind", KINDS)
def test_bench_says_what_a_file_holds_and_what_it_runs_in(kind: str, runtime: str, cli: Cli, tmp_path: Path) -> None:
    """Whatever the target is called: a file of floats has no INT8 time, and an INT8 file no time in f32."""
    path = of_kind(kind, tmp_path / "net.onnx")
    if runtime == "IR":
        path = as_ir(path)
    # OpenVINO keeps the weights of products of integers in f32 as it converts them.
    holds = "quantized graph, weights f32" if (kind, runtime) == ("integer", "IR") else HOLDS[kind]
    name = "onnxruntime" if runtime == "onnxruntime" else "openvino"
    rounded = kind in ("qdq", "qlinear", "integer")
    fits = [
        p for p in ("f32", "int8") if (p == "int8" and rounded) or (p == "f32" and not rounded) or kind == "weights"
    ]
    for precision in ("f32", "int8"):
        asked = ("bench", path, "--target", f"{name}-cpu-{precision}", "--seconds", "0.1", "--threads", "1", "--json")
        code, text, _ = cli(*asked)
        found = json.loads(text)
        if precision not in fits:
            assert code == 2 and holds in found["error"] and f"{name}-cpu-{fits[0]}" in found["error"], found
            continue
        assert code == 0, found
        assert found["holds"].startswith(holds), found["holds"]
        # OpenVINO has no products of integers as ConvInteger asks for them, and computes those in f32.
        runs_in = "f32" if not rounded or (kind == "integer" and name == "openvino") else "int8"
        assert found["precision"] == runs_in and found["target"].endswith(precision)
    if name == "openvino":
        code, text, _ = cli("bench", path, "--seconds", "0.1", "--threads", "1")
        assert code == 0 and f"the file holds: {holds}" in text and f"computed in: {runs_in}" in text
        assert text.startswith(f"openvino-cpu-{'int8' if rounded or kind == 'weights' else 'f32'} on ")


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_times_a_file_in_its_own_precision(kind: str, tmp_path: Path) -> None:
    with open_model(of_kind(kind, tmp_path / "net.onnx")) as model:
        table = latency_table(model, ["onnxruntime-cpu-f32", "onnxruntime-cpu-int8"], 1, 0.1)
    timed = {row.target: row.basis for row in table.rows if row.provenance == "measured"}
    rounded = kind in ("qdq", "qlinear", "integer")
    assert set(timed) == {
        f"onnxruntime-cpu-{p}" for p in ("f32", "int8") if (p == "int8") == rounded or kind == "weights"
    }
    assert all(basis.endswith(", in int8" if rounded else ", in f32") for basis in timed.values())


@given(st.dictionaries(st.sampled_from(["f32", "fp16", "bf16", "int8", "int4"]), st.integers(0, 10**9)), st.booleans())
def test_what_a_graph_holds_in_words(weights: dict[str, int], quantized: bool) -> None:
    """The most first, the shares whole; and each graph fits the precision that is called its own."""
    types = GraphTypes(weights, quantized)
    assert types.fits(types.precision) and types.words.startswith("quantized" if quantized else "float")
    present = [name for name, count in weights.items() if count]
    assert ("without weights" in types.words) == (not present)
    if present:
        first = types.words.split("weights ")[1].split(" ")[0].rstrip(",")
        assert weights[first] == max(weights.values())


def test_bench_of_a_bundle_has_a_target_already(bundle: Callable[..., Path], cli: Cli) -> None:
    code, _, error = cli("bench", bundle("openvino-cpu-f32"), "--target", ORT)
    assert code == 2 and "a bundle has its own" in error
