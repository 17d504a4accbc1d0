"""Profiles are whole and sourced; impossible targets are refused before any work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from rsedge.data.errors import RequestError
from rsedge.devices.predict.efficiency import shipped_efficiencies
from rsedge.devices.profiles.cpu import CpuInfo, detect_cpu
from rsedge.devices.profiles.own import hashes, remove
from rsedge.devices.profiles.profile import (
    PowerMode,
    add_profile,
    check_target,
    load_profile,
    profile_names,
    shipped_names,
    with_detected_cpu,
)


@pytest.mark.parametrize("name", shipped_names())
def test_every_profile(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    for target in profile.possible_targets():
        assert check_target(target).name == name
    for runtime, precisions in profile.runtimes.items():
        assert profile.software_for(runtime) is not None
        for precision in precisions:
            assert profile.peak_tops(precision) > 0


def test_int8_is_never_slower_than_fp16_on_paper() -> None:
    for name in profile_names():
        peaks = load_profile(name).peaks_tops
        if "int8" in peaks and "fp16" in peaks:
            assert peaks["int8"].value >= peaks["fp16"].value


def test_every_set_of_figures_is_used() -> None:
    used = {p for name in shipped_names() for p in load_profile(name).priors.values()}
    assert used == set(shipped_efficiencies())


def test_the_devices_of_the_plan_are_there() -> None:
    jetsons = (
        "nano-4gb",
        "tx2-8gb",
        "xavier-nx-8gb",
        "agx-xavier-32gb",
        "orin-nano-4gb",
        "orin-nano-8gb",
        "orin-nano-8gb-super",
        "orin-nx-8gb",
        "orin-nx-16gb",
        "agx-orin-32gb",
        "agx-orin-64gb",
        "agx-thor",
    )
    others = (
        "myriad-2",
        "myriad-x",
        "npu-3720",
        "npu-4000",
        "npu-5010",
        "atom-x7425e",
        "atom-x6425e",
        "core-i7-1185gre",
        "xeon-d-1700",
        "raspberry-pi-4",
        "raspberry-pi-5",
        "cpu",
    )
    assert {*others, *(f"jetson-{name}" for name in jetsons)} <= set(profile_names())


@pytest.mark.parametrize("name", [n for n in profile_names() if n.startswith("jetson-") and "thor" not in n])
def test_gpu_peaks_follow_from_cores_and_clock(name: str) -> None:
    """f32 of the CUDA cores: cores x 2 x GHz, with 128 cores per multiprocessor (64 on Volta)."""
    profile = load_profile(name)
    mode = profile.power_mode()[1]
    assert mode is not None and mode.gpu_mhz is not None and profile.sm_count is not None
    cores = profile.sm_count * (64 if profile.compute_capability == "7.2" else 128)
    assert profile.peaks_tops["f32"].value == pytest.approx(cores * 2 * mode.gpu_mhz / 1e6, rel=0.03)
    if profile.compute_capability == "8.7":
        dense = profile.sm_count * 4 * 256 * 2 * mode.gpu_mhz / 1e6
        assert profile.peaks_tops["fp16"].value == pytest.approx(dense, rel=0.03)
        assert profile.peaks_tops["int8"].value == pytest.approx(2 * dense, rel=0.03)
        assert profile.peaks_tops["tf32"].value == pytest.approx(dense / 2, rel=0.03)


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
        ("openvino-myriad-2-int8", "openvino-myriad-2-fp16"),
        ("tensorrt-jetson-tx2-8gb-int8", "no fast int8"),
        ("openvino-atom-x7425e-bf16", "no bfloat16 arithmetic"),
        ("openvino-npu-4000-f32", "openvino-npu-4000-int8"),
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
    with pytest.raises(RequestError, match=r"JetPack 5\.1\.2 reads ONNX opset 17 at most"):
        check_target("tensorrt-jetson-orin-nano-8gb-fp16", opset=20, release="JetPack 5.1.2")
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


def write(path: Path, change: dict) -> Path:
    """A whole profile with some fields changed."""
    value = load_profile("jetson-orin-nx-16gb").model_dump(mode="json", exclude_none=True) | change
    path.write_text(yaml.safe_dump(value))
    return path


def test_own_profile_from_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "my-board.yaml", {"name": "my-board"})
    assert check_target("tensorrt-my-board-int8", profiles=[path]).name == "my-board"


def test_a_device_that_was_added_is_known_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all that its file imports; until it is removed, or its file altered behind our back."""
    monkeypatch.setenv("RSEDGE_CALIBRATIONS", str(tmp_path / "kept"))
    write(tmp_path / "base.yaml", {})
    path = tmp_path / "mine.yaml"
    path.write_text("$import: base.yaml\nname: our-board\nmemory_gb: [4, datasheet]\n")
    added, kept = add_profile(path)
    path.unlink()
    assert kept.parent == tmp_path / "kept" and profile_names()[-1] == "our-board"
    assert load_profile("our-board") == added == check_target("tensorrt-our-board-int8")
    before = hashes(["our-board", "cpu"])
    add_profile(write(tmp_path / "again.yaml", {"name": "our-board", "memory_gb": [8, "datasheet"]}))
    assert load_profile("our-board").memory_gb.value == 8
    assert list(before) == ["our-board"] and hashes(["our-board"]) != before
    with pytest.raises(RequestError, match=r"again\.yaml: name: 'cpu' is a device of rsedge"):
        add_profile(write(tmp_path / "again.yaml", {"name": "cpu"}))
    write(kept, {"name": "another"})
    with pytest.raises(RequestError, match=r"our-board\.profile\.yaml: name: is 'another'"):
        load_profile("our-board")
    remove("our-board")
    with pytest.raises(RequestError, match=r"unknown device 'our-board'.*rsedge devices add FILE"):
        load_profile("our-board")
    with pytest.raises(RequestError, match="no device 'our-board' was added here; added are: none"):
        remove("our-board")


def test_own_profile_says_only_what_differs(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", {})
    path = tmp_path / "mine.yaml"
    path.write_text("$import: base.yaml\nname: mine\nmemory_gb: [4, datasheet]\n")
    assert load_profile(path).memory_gb.value == 4
    path.write_text("$import: base.yaml\nname: mine\nbandwith_gb_s: [4, datasheet]\n")
    with pytest.raises(RequestError, match=r"mine\.yaml:3: bandwith_gb_s: unknown field \(nearest: 'bandwidth_gb_s'\)"):
        load_profile(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"peaks_tops": {"f32": [1.0, "derived"]}}, "no such figure"),
        ({"bandwidth_gb_s": 5}, "bandwidth_gb_s"),
        ({"bandwith": [5, "derived"]}, "bandwith"),
        ({"memory_gb": [5]}, r"\[value, source\]"),
        ({"default_power_mode": "TURBO"}, "not one of power_modes"),
        ({"peaks_tops": {}}, "peaks_tops"),
        ({"idle_w": [5, ""]}, "idle_w.source"),
        ({"power_modes": {"15W": {"cap_w": -1, "source": "unverified"}}, "default_power_mode": "15W"}, "cap_w"),
        ({"dla": {"cores": 2, "version": "v3", "int8_tops": [20, "derived"]}}, "'v1' or 'v2'"),
    ],
)
def test_wrong_profiles_name_the_field(tmp_path: Path, change: dict, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        load_profile(write(tmp_path / "board.yaml", change))


MODE = {"source": "unverified"}
NUMBERS: dict[str, Callable[[object], dict]] = {
    "bandwidth_gb_s": lambda x: {"bandwidth_gb_s": [x, "derived"]},
    "memory_gb": lambda x: {"memory_gb": [x, "derived"]},
    "usable_memory_gb": lambda x: {"usable_memory_gb": [x, "derived"]},
    "peaks_tops.int8": lambda x: {
        "peaks_tops": {"f32": [1.0, "derived"], "fp16": [1.0, "derived"], "int8": [x, "derived"]}
    },
    "idle_w": lambda x: {"idle_w": [x, "derived"]},
    "sm_count": lambda x: {"sm_count": x},
    "int8_tops": lambda x: {"dla": {"cores": 2, "version": "v2", "int8_tops": [x, "derived"]}},
    "cores": lambda x: {"dla": {"cores": x, "version": "v2", "int8_tops": [20, "derived"]}},
    **{
        field: lambda x, field=field: {"power_modes": {"15W": MODE | {field: x}}, "default_power_mode": "15W"}
        for field in PowerMode.model_fields
        if field != "source"
    },
}


@pytest.mark.parametrize("field", NUMBERS)
@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -float("inf"), 1e300, -1, True, False, "5", "nan", 10**18]
)
def test_what_is_no_figure_is_refused(tmp_path: Path, field: str, value: object) -> None:
    with pytest.raises(RequestError, match=field):
        load_profile(write(tmp_path / "board.yaml", NUMBERS[field](value)))


@pytest.mark.parametrize("field", ["bandwidth_gb_s", "memory_gb", "peaks_tops.int8"])
@pytest.mark.parametrize("value", [0, -0.0, 1e-320])
def test_what_is_divided_by_is_above_zero(tmp_path: Path, field: str, value: float) -> None:
    with pytest.raises(RequestError, match=f"{field} must be at least"):
        load_profile(write(tmp_path / "board.yaml", NUMBERS[field](value)))


def test_profile_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no such file"):
        load_profile(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    with pytest.raises(RequestError, match="mapping"):
        load_profile(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    with pytest.raises(RequestError, match="not valid YAML"):
        load_profile(tmp_path / "broken.yaml")
