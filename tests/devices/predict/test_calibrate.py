"""The fit finds what made the rows; the suite is what it says; calibrations are kept, used and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from rsedge.cli.main import app
from rsedge.data.errors import RequestError
from rsedge.devices.predict.calibrate import calibrate, width
from rsedge.devices.predict.efficiency import (
    architecture_of,
    calibration_path,
    efficiencies_for,
    read_calibration,
    shipped_efficiencies,
    write_calibration,
)
from rsedge.devices.predict.fit import Observed, fit
from rsedge.devices.predict.latency import predict
from rsedge.devices.predict.onnx_graph import graph_cost
from rsedge.devices.predict.roofline import kernel_ms, stack, total_ms, work_of
from rsedge.devices.predict.suite import NETS, write_suite
from rsedge.devices.profiles.profile import load_profile, profile_names
from rsedge.runtimes.backend import GraphStyle

SMALL = (
    "conv3-512-7",
    "conv1-1024-7",
    "depthwise-768-7",
    "linear-64-512",
    "attention-49-384",
    "gated-112-14",
    "unet-16-128",
)


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_suite(tmp_path_factory.mktemp("suite"), names=SMALL)


@pytest.fixture(autouse=True)
def own_calibrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RSEDGE_CALIBRATIONS", str(tmp_path / "calibrations"))
    return tmp_path / "calibrations"


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_has_all_figures_it_needs(name: str, suite: dict[str, Path]) -> None:
    profile = load_profile(name)
    for runtime, precisions in profile.runtimes.items():
        for precision in precisions:
            found = predict(suite["unet-16-128"], profile, precision, runtime)
            assert 0 < found.low_ms < found.mid_ms < found.high_ms
            assert 0.999 < sum(found.share.values()) < 1.001


def test_shipped_figures_are_sourced_and_spreads_grow() -> None:
    for found in shipped_efficiencies().values():
        assert all(figure.value > 0 and figure.source for figure in found.figures.values())
        assert 1 < found.spread.known.value < found.spread.new_architecture.value
        assert found.spread.known.value < found.spread.new_device.value


def observed_with(figures: Mapping[str, float], suite: Mapping[str, Path]) -> list[Observed]:
    works = [work_of(graph_cost(path), load_profile("cpu"), "f32") for path in suite.values()]
    return [Observed(work, float(total_ms(work, figures)[0])) for work in works]


def test_the_fit_explains_rows_it_can_explain(suite: dict[str, Path]) -> None:
    prior = shipped_efficiencies()["openvino-cpu"].values()
    truth = prior | {"conv.f32": 0.45, "depthwise.f32": 0.1, "matmul.f32": 0.9, "kernel_us.f32": 8.0}
    rows = observed_with(truth, suite)
    found = fit(rows, prior)
    before, after = (
        np.abs(np.log(total_ms(stack([r.work for r in rows]), f) / [r.latency_ms for r in rows]))
        for f in (prior, found)
    )
    assert before.max() > 0.2
    assert after.max() < 0.05
    assert found["conv.int8"] == pytest.approx(prior["conv.int8"], rel=1e-3)  # no row says anything about it


def test_one_wild_row_does_not_decide(suite: dict[str, Path]) -> None:
    prior = shipped_efficiencies()["openvino-cpu"].values()
    rows = 2 * observed_with(prior, suite)  # two of each kind, so that the wild one has a witness against it
    rows[0] = Observed(rows[0].work, rows[0].latency_ms * 20)
    found = fit(rows, prior)
    others = stack([r.work for r in rows[1:]])
    assert np.abs(np.log(total_ms(others, found) / total_ms(others, prior))).max() < 0.25


def test_fit_refuses_what_is_no_measurement(suite: dict[str, Path]) -> None:
    prior = shipped_efficiencies()["openvino-cpu"].values()
    with pytest.raises(RequestError, match="above 0 ms"):
        fit([], prior)
    row = observed_with(prior, suite)[0]
    with pytest.raises(RequestError, match="above 0 ms"):
        fit([Observed(row.work, 0.0)], prior)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.05, 4), min_size=3, max_size=3), st.floats(1.01, 3))
def test_less_efficient_is_never_faster(suite: dict[str, Path], scales: list[float], worse: float) -> None:
    prior = dict(shipped_efficiencies()["openvino-cpu"].values())
    for name, scale in zip(("conv.f32", "bandwidth", "half_columns"), scales, strict=True):
        prior[name] *= scale
    work = work_of(graph_cost(suite["gated-112-14"]), load_profile("cpu"), "f32")
    for name in ("conv.f32", "depthwise.f32", "bandwidth", "move"):
        assert (kernel_ms(work, prior | {name: prior[name] / worse}) >= kernel_ms(work, prior) - 1e-12).all()
    for name in ("half_columns", "half_depth", "half_outputs"):
        assert (kernel_ms(work, prior | {name: prior[name] * worse}) >= kernel_ms(work, prior) - 1e-12).all()


def test_stacked_graphs_are_timed_as_each_alone(suite: dict[str, Path]) -> None:
    figures = shipped_efficiencies()["openvino-cpu"].values()
    works = [work_of(graph_cost(path), load_profile("cpu"), p) for path in suite.values() for p in ("f32", "int8")]
    alone = [float(total_ms(work, figures)[0]) for work in works]
    assert total_ms(stack(works), figures) == pytest.approx(alone)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=60))
def test_width_holds_at_least_nine_of_ten(residuals: list[float]) -> None:
    values = np.array(residuals)
    assert np.mean(np.abs(values) <= np.log(width(values)) + 1e-9) >= 0.9


def test_suite_covers_every_class_and_int8_is_quantized(tmp_path: Path) -> None:
    kinds: set[str] = set()
    for path in write_suite(tmp_path, GraphStyle(int8=True), SMALL).values():
        cost = graph_cost(path)
        kinds |= {k.kind for k in cost.kernels}
        assert all(k.quantized for k in cost.kernels if k.kind in ("conv", "depthwise", "matmul"))
    assert kinds == {"conv", "depthwise", "matmul", "attention", "memory", "move"}
    assert len(NETS) > 50


def test_architectures(suite: dict[str, Path], tmp_path: Path) -> None:
    found = {name: architecture_of(graph_cost(path)) for name, path in suite.items()}
    assert found["unet-16-128"] == "convolutional"
    assert found["gated-112-14"] == "depthwise"
    assert found["attention-49-384"] == "transformer"


def test_measured_suite_to_used_calibration(tmp_path: Path, suite: dict[str, Path], own_calibrations: Path) -> None:
    """Really measured on this machine; three networks, so only the way to the used file is held, not the errors."""
    few = ("conv3-512-7", "linear-64-512", "depthwise-768-7")
    profile = load_profile("cpu")
    before = predict(suite["conv3-512-7"], profile, "f32")
    found = calibrate(profile, "openvino", ["f32"], tmp_path / "nets", threads=1, networks=few)
    write_calibration(found.efficiencies, calibration_path("cpu", "openvino"))
    assert (own_calibrations / "cpu.openvino.yaml").is_file()
    after = predict(suite["conv3-512-7"], profile, "f32")
    assert "no measured" in before.basis and "calibration on" not in before.basis
    assert "calibration on" in after.basis and "predicted" in after.basis
    assert read_calibration(calibration_path("cpu", "openvino")) == efficiencies_for(profile, "openvino")


def test_a_calibration_without_a_newer_figure_still_works(suite: dict[str, Path]) -> None:
    shipped = shipped_efficiencies()["openvino-cpu"]
    older = {k: v for k, v in shipped.figures.items() if k != "special"}
    write_calibration(shipped.model_copy(update={"figures": older}), calibration_path("cpu", "openvino"))
    assert efficiencies_for(load_profile("cpu"), "openvino").figures["special"] == shipped.figures["special"]


def test_pointwise_work_of_cpus(tmp_path: Path) -> None:
    """Gates and swishes cost arithmetic, an int8 product followed by them a pass in f32; a GPU's kernels hide both."""
    files = {
        int8: write_suite(tmp_path / str(int8), GraphStyle(int8), ("gated-112-14",))["gated-112-14"]
        for int8 in (False, True)
    }
    f32, int8 = (work_of(graph_cost(files[q]), load_profile("cpu"), p) for q, p in ((False, "f32"), (True, "int8")))
    assert (f32.kinds == "special").sum() == (int8.kinds == "special").sum() > 0
    assert (int8.kinds == "memory").sum() > (f32.kinds == "memory").sum()
    assert "pointwise.f32" in f32.names and "depthwise.f32" in f32.names
    gpu = work_of(graph_cost(files[False]), load_profile("jetson-orin-nx-16gb"), "fp16")
    assert "special" not in gpu.kinds and not any("pointwise" in name for name in gpu.names)
    figures = shipped_efficiencies()["openvino-cpu"].values()
    assert total_ms(f32, figures) > total_ms(f32, {**figures, "special": 1e9})


def test_damaged_calibration_is_named(own_calibrations: Path, suite: dict[str, Path]) -> None:
    own_calibrations.mkdir()
    path = own_calibrations / "cpu.openvino.yaml"
    for text, words in (("figures: [", "not a calibration file"), ("figures: {}", "spread")):
        path.write_text(text)
        with pytest.raises(RequestError, match=words) as error:
            predict(suite["conv3-512-7"], load_profile("cpu"), "f32", "openvino")
        assert "cpu.openvino.yaml" in str(error.value)


def test_refused_calibrations(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="does not run fp16"):
        calibrate(load_profile("cpu"), "openvino", ["fp16"], tmp_path, threads=1)
    done = CliRunner().invoke(app, ["devices", "calibrate", "--runtime", "tensorrt"])
    assert done.exit_code != 0


def test_outside_the_evidence_is_wider_and_said(suite: dict[str, Path]) -> None:
    conv, attention = (suite[name] for name in ("conv3-512-7", "attention-49-384"))
    known = predict(conv, load_profile("jetson-orin-nx-16gb"), "fp16")
    board = predict(conv, load_profile("jetson-agx-orin-32gb"), "fp16")
    kind = predict(attention, load_profile("jetson-orin-nx-16gb"), "int8")
    assert board.high_ms / board.mid_ms > known.high_ms / known.mid_ms or known.outside
    assert any("jetson-agx-orin-32gb" in reason for reason in board.outside)
    for found in (board, kind):
        assert found.outside == [reason for reason in found.outside if reason in found.basis]


def test_predict_command(suite: dict[str, Path]) -> None:
    target = "tensorrt-jetson-orin-nano-8gb-fp16"
    done = CliRunner().invoke(app, ["devices", "predict", str(suite["conv3-512-7"]), target])
    assert done.exit_code == 0
    assert all("predicted" in line for line in done.output.splitlines() if " ms" in line)
    found = json.loads(
        CliRunner().invoke(app, ["devices", "predict", str(suite["conv3-512-7"]), target, "--json"]).output
    )
    (one,) = found["predictions"]
    assert (
        one["provenance"] == "predicted" and one["memory_mb"] > 0 and one["target"] == target and not found["left_out"]
    )


def test_several_targets_one_of_which_is_unknown(suite: dict[str, Path]) -> None:
    known, model = ["tensorrt-jetson-orin-nano-8gb-fp16", "openvino-atom-x7425e-int8"], str(suite["conv3-512-7"])
    done = CliRunner().invoke(app, ["devices", "predict", model, known[0], "openvino-nowhere-f32", known[1], "--json"])
    found = json.loads(done.stdout)
    assert done.exit_code == 5 and [one["target"] for one in found["predictions"]] == known
    assert list(found["left_out"]) == ["openvino-nowhere-f32"] and "nowhere: no" not in done.stdout
    assert "openvino-nowhere-f32: no prediction: " in done.stderr
    nothing = CliRunner().invoke(app, ["devices", "predict", model, "openvino-nowhere-f32"])
    assert nothing.exit_code != 0 and nothing.exit_code != 5
