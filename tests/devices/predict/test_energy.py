"""Predicted energy: the one public row, physics, and profiles that do not say enough."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsedge.data.errors import RequestError
from rsedge.devices.predict.energy import EnergyPrediction, predict_energy
from rsedge.devices.predict.onnx_graph import GraphCost, Kernel
from rsedge.devices.profiles.profile import DeviceProfile, load_profile, profile_names


def graph(macs: float, elements: float = 0) -> GraphCost:
    return GraphCost(
        [Kernel("c", "Conv", "conv", int(macs), int(elements), 0, 0)], False, {"Conv": 1}, int(elements), 0
    )


NX = load_profile("jetson-orin-nx-16gb")
# ResNet-50 at 224 x 224: 4.1 G multiply-accumulates, 25.6 M weights, about 22 M activations read and written.
RESNET50 = graph(4.1e9, 48e6)


def energy(cost: GraphCost, ms: float, profile: DeviceProfile = NX, mode: str | None = None) -> EnergyPrediction:
    return predict_energy(cost, profile, "int8", (ms, ms, ms), mode)


def test_the_public_row() -> None:
    """Orin NX 16GB, ResNet-50 int8, MLPerf MaxQ: 1.42 ms, 19.2 mJ at the wall, 11.7 mJ of it above idle."""
    found = energy(RESNET50, 1.42)
    assert found.dynamic_mj[1] == pytest.approx(11.7, rel=0.1)
    assert found.mid_mj == pytest.approx(19.2, rel=0.1)
    assert found.low_mj < 19.2 < found.high_mj
    assert str(found).startswith("predicted") and found.basis.startswith("predicted")


def test_the_cap_stretches_an_inference_that_asks_for_more() -> None:
    free, capped = energy(RESNET50, 1.42, mode="MAXN"), energy(RESNET50, 1.42, mode="10W")
    assert not free.capped and capped.capped
    assert capped.mid_mj / capped.latency_ms == pytest.approx(10)
    assert capped.latency_ms > 1.42


@settings(max_examples=50, deadline=None)
@given(st.floats(1e6, 1e12), st.floats(0, 1e9), st.floats(0.01, 1e4), st.floats(1, 10))
def test_more_work_never_takes_less_energy(macs: float, elements: float, ms: float, more: float) -> None:
    base = energy(graph(macs, elements), ms)
    assert energy(graph(macs * more, elements), ms).mid_mj >= base.mid_mj * (1 - 1e-9)
    assert energy(graph(macs, elements * more), ms).mid_mj >= base.mid_mj * (1 - 1e-9)
    assert energy(graph(macs, elements), ms * more).mid_mj >= base.mid_mj * (1 - 1e-9)
    assert base.low_mj <= base.mid_mj <= base.high_mj
    assert base.idle_mj + base.ops_mj + base.bytes_mj == pytest.approx(base.mid_mj)


@pytest.mark.parametrize("name", [n for n in profile_names() if n != "cpu"])
def test_every_profile_says_enough(name: str) -> None:
    profile = load_profile(name)
    precision = next(iter(profile.runtimes.values()))[-1]
    assert predict_energy(RESNET50, profile, precision, (1, 2, 3)).mid_mj > 0


def test_profiles_that_do_not_say_enough() -> None:
    with pytest.raises(RequestError, match="idle_w"):
        predict_energy(RESNET50, NX.model_copy(update={"idle_w": None}), "int8", (1, 1, 1))
    with pytest.raises(RequestError, match="cap_w"):
        predict_energy(
            RESNET50, NX.model_copy(update={"power_modes": {}, "default_power_mode": None}), "int8", (1, 1, 1)
        )
    with pytest.raises(RequestError, match="not under its cap"):
        predict_energy(RESNET50, NX, "int8", (1, 1, 1), idle_w=40)


@pytest.mark.slow
def test_resnet50_counted_from_its_graph(tmp_path: Path) -> None:
    """The operations and bytes assumed above are those of the exported network."""
    import timm
    import torch

    from rsedge.devices.predict.onnx_graph import graph_cost

    path = tmp_path / "resnet50.onnx"
    model = timm.create_model("resnet50").eval()
    torch.onnx.export(model, torch.zeros(1, 3, 224, 224), str(path), dynamo=False, opset_version=17)
    cost = graph_cost(path)
    moved = sum(k.read + k.weights + k.written for k in cost.kernels)
    assert cost.macs == pytest.approx(RESNET50.macs, rel=0.05)
    assert moved == pytest.approx(48e6, rel=0.25)
