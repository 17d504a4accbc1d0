"""Profiles are whole and sourced; impossible targets are refused before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rsedge.data.errors import RequestError
from rsedge.devices.cpu import CpuInfo, detect_cpu
from rsedge.devices.profile import (
    PROFILES,
    check_target,
    load_priors,
    load_profile,
    profile_names,
    with_detected_cpu,
)


@pytest.mark.parametrize("name", profile_names())
def test_every_profile(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    for target in profile.possible_targets():
        assert check_target(target).name == name
    for runtime, precisions in profile.runtimes.items():
        prior = profile.prior(runtime)
        assert profile.software_for(runtime) is not None
        for precision in precisions:
            assert profile.peak_tops(precision) > 0
            assert prior.spread[precision].value > 1
            assert prior.kernel_us[precision].value > 0
            assert all(precision in table for table in prior.efficiency.values())


def test_int8_is_never_slower_than_fp16_on_paper() -> None:
    for name in profile_names():
        peaks = load_profile(name).peaks_tops
        if "int8" in peaks and "fp16" in peaks:
            assert peaks["int8"].value >= peaks["fp16"].value


def test_every_prior_is_used() -> None:
    used = {p for name in profile_names() for p in load_profile(name).priors.values()}
    assert used == set(load_priors())


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("openvino-myriad-x-int8", "openvino-myriad-x-fp16"),
        ("openvino-cpu-fp16", "openvino-cpu-f32"),
        ("tensorrt-jetson-nano-4gb-int8", "no fast int8"),
        ("tensorrt-cpu-int8", "does not run tensorrt"),
        ("openvino-jetson-orin-nano-8gb-int8", "does not run openvino"),
        ("tensorrt-jetson-orin-nao-8gb-int8", "nearest: 'jetson-orin-nano-8gb'"),
        ("openvino-int8", "is not <runtime>-<device>-<precision>"),
        ("openvino-cpu-int4", "precisions"),
    ],
)
def test_impossible_targets(target: str, words: str) -> None:
    with pytest.raises(RequestError) as error:
        check_target(target)
    assert words in str(error.value)


def test_opset_beyond_the_software() -> None:
    assert check_target("tensorrt-jetson-agx-xavier-32gb-fp16", opset=17)
    with pytest.raises(RequestError, match="opset 17 at most"):
        check_target("tensorrt-jetson-agx-xavier-32gb-fp16", opset=20)
    assert check_target("tensorrt-jetson-orin-nano-8gb-fp16", opset=20)
    with pytest.raises(RequestError, match="opset 17 at most"):
        check_target("tensorrt-jetson-orin-nano-8gb-fp16", opset=20, release="JetPack 6.0")
    with pytest.raises(RequestError, match=r"known: JetPack 6\.2"):
        check_target("tensorrt-jetson-orin-nano-8gb-fp16", release="JetPack 3")


def _cpu(isa: tuple[str, ...]) -> CpuInfo:
    return CpuInfo(
        model="Test", architecture="x86_64", cores=2, threads=2, usable_threads=2, mhz=2000.0, isa=isa, caches={}
    )


def test_cpu_without_bf16_and_vnni() -> None:
    profile = with_detected_cpu(load_profile("cpu"), _cpu(("avx2",)))
    assert profile.runtimes["openvino"] == ["f32", "int8"]
    assert "bf16" in profile.refused
    assert profile.peaks_tops["f32"].value == pytest.approx(0.128)
    assert any("no int8 dot product" in note for note in profile.notes)


def test_cpu_with_amx() -> None:
    isa = ("avx2", "avx512", "avx512-vnni", "avx512-bf16", "amx-int8", "amx-bf16")
    profile = with_detected_cpu(load_profile("cpu"), _cpu(isa))
    assert "bf16" in profile.runtimes["openvino"]
    assert profile.peaks_tops["int8"].value > profile.peaks_tops["bf16"].value > profile.peaks_tops["f32"].value


def test_detected_cpu() -> None:
    cpu = detect_cpu()
    assert cpu.cores >= 1
    assert cpu.usable_threads >= 1
    assert load_profile("cpu").title.startswith("This machine")


def test_own_profile_from_a_file(tmp_path: Path) -> None:
    value = yaml.safe_load((PROFILES / "jetson-orin-nx-16gb.yaml").read_text()) | {"name": "my-board"}
    path = tmp_path / "my-board.yaml"
    path.write_text(yaml.safe_dump(value))
    assert check_target("tensorrt-my-board-int8", profiles=[path]).name == "my-board"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"peaks_tops": {"f32": [1.0, "derived"]}}, "no such figure"),
        ({"bandwidth_gb_s": 5}, "bandwidth_gb_s"),
        ({"bandwith": [5, "derived"]}, "bandwith"),
        ({"memory_gb": [5]}, r"\[value, source\]"),
        ({"default_power_mode": "TURBO"}, "not one of power_modes"),
        ({"peaks_tops": {}}, "peaks_tops"),
    ],
)
def test_wrong_profiles_name_the_field(tmp_path: Path, change: dict, words: str) -> None:
    value = yaml.safe_load((PROFILES / "jetson-orin-nx-16gb.yaml").read_text()) | change
    path = tmp_path / "board.yaml"
    path.write_text(yaml.safe_dump(value))
    with pytest.raises(RequestError, match=words):
        load_profile(path)


def test_profile_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no such file"):
        load_profile(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    with pytest.raises(RequestError, match="mapping"):
        load_profile(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    with pytest.raises(RequestError, match="not valid YAML"):
        load_profile(tmp_path / "broken.yaml")
