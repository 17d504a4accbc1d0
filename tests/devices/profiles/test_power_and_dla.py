"""What power modes change, and what a DLA refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from rsedge.data.errors import RequestError
from rsedge.devices.predict.dla import check_dla, check_dla_core, expected_placement
from rsedge.devices.profiles.power import in_power_mode
from rsedge.devices.profiles.profile import load_profile, profile_names
from tests.devices.predict.test_predict import convs, save

AGX = load_profile("jetson-agx-orin-64gb")
XAVIER = load_profile("jetson-agx-xavier-32gb")


def test_modes_scale_peaks_and_bandwidth() -> None:
    low = in_power_mode(XAVIER, "10W")
    # 520 of 1377 MHz on 4 of 8 multiprocessors; memory at 1065.6 of 2133 MHz.
    assert low.peak_tops("int8") == pytest.approx(22.6 * 520 / 1377 / 2)
    assert low.bandwidth_gb_s.value == pytest.approx(136.5 * 1065.6 / 2133)
    assert "power mode 10W" in low.bandwidth_gb_s.source and low.default_power_mode == "10W"
    assert in_power_mode(AGX, "30W").peak_tops("int8") == pytest.approx(85.2 * 0.24)
    assert in_power_mode(AGX, "30w").default_power_mode == "30W"
    assert in_power_mode(AGX) is AGX is in_power_mode(AGX, "MAXN")


def test_super_and_plain_orin_nano_agree_at_15_w() -> None:
    super_15, plain = (
        in_power_mode(load_profile("jetson-orin-nano-8gb-super"), "15W"),
        load_profile("jetson-orin-nano-8gb"),
    )
    assert super_15.peak_tops("fp16") == pytest.approx(plain.peak_tops("fp16"), rel=0.03)
    assert super_15.bandwidth_gb_s.value == pytest.approx(plain.bandwidth_gb_s.value, rel=0.03)


@pytest.mark.parametrize("name", profile_names())
def test_no_mode_is_faster_than_the_figures(name: str) -> None:
    profile = load_profile(name)
    for mode in profile.power_modes:
        try:
            scaled = in_power_mode(profile, mode)
        except RequestError as error:
            assert "does not state the clocks" in str(error)
            continue
        assert all(scaled.peaks_tops[p].value <= peak.value * 1.001 for p, peak in profile.peaks_tops.items())


def test_unknown_power_modes() -> None:
    with pytest.raises(RequestError, match=r"no power mode '16W' \(nearest: '15W'\); known: MAXN, 50W, 30W, 15W"):
        in_power_mode(AGX, "16W")
    with pytest.raises(RequestError, match="known: none"):
        in_power_mode(load_profile("cpu"), "15W")
    with pytest.raises(RequestError, match="does not state the clocks"):
        in_power_mode(load_profile("jetson-agx-orin-32gb"), "15W")


def test_dla_takes_convolutions(tmp_path: Path) -> None:
    check_dla(AGX, "fp16", onnx_path=convs(tmp_path / "c.onnx", 16))


def test_dla_refuses_attention(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["x", "t"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["weights"]),
        helper.make_node("MatMul", ["weights", "x"], ["y"]),
    ]
    path = save(tmp_path / "a.onnx", nodes, {"x": [1, 16, 8], "y": [1, 16, 8]}, {})
    with pytest.raises(RequestError, match=r"attention.*convolutional student"):
        check_dla(AGX, "fp16", onnx_path=path)


def test_dla_refuses_what_it_has_no_layer_for(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Where", ["mask", "x", "zero"], ["clean"]),
        helper.make_node("Conv", ["clean", "w"], ["a"]),
        helper.make_node("HardSwish", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w"], ["c"]),
        helper.make_node("Softmax", ["c"], ["y"], axis=1),
    ]
    shapes = {"x": [1, 8, 16, 16], "y": [1, 8, 16, 16]}
    weights = {"w": np.zeros((8, 8, 1, 1), np.float32), "zero": np.zeros(1, np.float32), "mask": np.ones(1, np.bool_)}
    path = save(tmp_path / "h.onnx", nodes, shapes, weights)
    with pytest.raises(RequestError, match="no native HardSwish;") as error:
        check_dla(AGX, "fp16", onnx_path=path)
    assert "Where" not in str(error.value) and "Softmax" not in str(error.value)
    placed = [(p["kind"], p["device"]) for p in expected_placement(path)]
    inner = [("Conv", "DLA"), ("HardSwish", "GPU"), ("Conv", "DLA")]
    assert placed == [("Where", "GPU"), *inner, ("Softmax", "GPU")]


def test_dla_refuses_precision_release_and_device() -> None:
    with pytest.raises(RequestError, match="fp16 and int8, not f32"):
        check_dla(AGX, "f32")
    with pytest.raises(RequestError, match=r"JetPack 7\.2 cannot use the DLA.*possible: JetPack 6\.2"):
        check_dla(AGX, "int8", "JetPack 7.2")
    with pytest.raises(RequestError, match=r"TensorRT 10\.3 takes no quantize.*possible: fp16 on the DLA"):
        check_dla(AGX, "int8")
    with pytest.raises(RequestError, match=r"no DLA core 2; known: 0, 1"):
        check_dla_core(AGX, 2)
    with pytest.raises(RequestError, match="has no DLA"):
        check_dla(load_profile("jetson-orin-nano-8gb"), "int8")
