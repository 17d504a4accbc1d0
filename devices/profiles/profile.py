"""Device profiles: what a target device is, from YAML data, each figure with where it comes from.

Peaks are dense and per precision; marketing TOPS (sparse, accelerators added up) are never used. A source ``facts A.1``
is a section of the project's collection of device facts, ``[S ...]`` what that collection read it in; ``measured rows``
is its table of public latencies. ``unverified`` marks a figure that no opened source states.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import psutil
import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from rsedge.data.document_check import checked, nearest
from rsedge.data.documents import Document, read_document
from rsedge.data.errors import RequestError
from rsedge.data.record import Record
from rsedge.devices.profiles.cpu import CpuInfo, detect_cpu
from rsedge.devices.profiles.own import keep, own_profiles
from rsedge.runtimes.bundle.manifest import Target
from rsedge.runtimes.precision import PrecisionName
from rsedge.runtimes.registry import RuntimeName, backends

PROFILES = Path(__file__).parent / "shipped"
Peak = Literal["f32", "tf32", "bf16", "fp16", "int8"]
# Wider than any device; what is worked out of figures beyond overflows.
LEAST, MOST = 1e-9, 1e12
Positive = Annotated[float, Field(ge=LEAST, le=MOST)]
Count = Annotated[int, Field(gt=0, le=10**9)]


class _Facts(Record):
    """Of a profile: a number is a number, neither a text nor true or false."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class Sourced(_Facts):
    """A figure and its provenance; in YAML ``[value, source]``."""

    value: float = Field(ge=0, le=MOST, description="in the unit of the field")
    source: str = Field(min_length=3, description="where it comes from; unverified where no opened source states it")

    @model_validator(mode="before")
    @classmethod
    def _from_pair(cls, given: Any) -> Any:
        if isinstance(given, list | tuple) and len(given) == 2:
            return {"value": given[0], "source": given[1]}
        if not isinstance(given, dict | Sourced):
            raise ValueError("a figure is [value, source], e.g. [102.4, datasheet] or [15, unverified]")
        return given

    @property
    def verified(self) -> bool:
        return not self.source.startswith("unverified")


class PowerMode(_Facts):
    """A power mode: clocks (MHz), what is switched on, and the cap (W). None: not stated.

    ``compute_share`` is the share of the default mode's peaks that is left, where that is stated and clocks are not.
    """

    cap_w: Positive | None = Field(default=None, description="most that is drawn (W)")
    compute_share: Positive | None = Field(default=None, description="of the default mode's peaks")
    gpu_mhz: Positive | None = Field(default=None, description="clock of the GPU (MHz)")
    gpu_sm: Count | None = Field(default=None, description="streaming multiprocessors left on; None: all")
    emc_mhz: Positive | None = Field(default=None, description="clock of the memory (MHz)")
    dla_mhz: Positive | None = Field(default=None, description="clock of the DLA (MHz)")
    cpu_cores: Count | None = Field(default=None, description="cores left on")
    cpu_mhz: Positive | None = Field(default=None, description="clock of the CPU (MHz)")
    source: str = Field(min_length=3, description="where it comes from")


class Dla(_Facts):
    """NVIDIA's deep-learning accelerator: convolutional networks only, fp16 and int8, static shapes."""

    cores: Count = Field(description="how many")
    version: Literal["v1", "v2"] = Field(description="generation")
    int8_tops: Sourced = Field(description="dense, all cores together")


class Software(_Facts):
    """One software release for the device and what it asks of an exported model."""

    release: str = Field(description="e.g. 'JetPack 6.2', 'OpenVINO 2022.3.2'")
    runtime: RuntimeName = Field(description="what it runs models with")
    runtime_version: str = Field(description="of it, in this release")
    dla: bool = Field(default=True, description="whether this release can use the device's DLA")
    python: str | None = Field(default=None, description="Python of the release")
    cuda: str | None = Field(default=None, description="CUDA of the release")
    opset: Count = Field(description="ONNX opset to export with")
    max_opset: Count = Field(description="highest opset the release reads")
    precision_mechanism: Literal["builder_flags", "strongly_typed", "ir"] = Field(
        description="how a precision is asked for: TensorRT's flags, types in the graph, or the IR"
    )
    source: str = Field(description="where it comes from")


class DeviceProfile(_Facts):
    """A device: precisions it runs, dense peaks (TOPS), bandwidth (GB/s), memory (GB), software and power modes."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="as targets write it")
    title: str = Field(description="as reports write it")
    kind: Literal["cpu", "gpu", "vpu", "npu"] = Field(description="of what computes")
    summary: str = Field(default="", description="the device in a line")
    runtimes: dict[RuntimeName, list[PrecisionName]] = Field(min_length=1, description="runtime -> precisions it runs")
    refused: dict[PrecisionName, str] = Field(default_factory=dict, description="precision -> why it cannot run")
    peaks_tops: dict[Peak, Sourced] = Field(min_length=1, description="precision -> dense peak (TOPS)")
    bandwidth_gb_s: Sourced = Field(description="of its memory (GB/s)")
    memory_gb: Sourced = Field(description="in all (GB)")
    usable_memory_gb: Sourced | None = Field(default=None, description="left for a process (GB)")
    sm_count: Count | None = Field(default=None, description="streaming multiprocessors of an NVIDIA GPU")
    compute_capability: str | None = Field(default=None, description="of an NVIDIA GPU, e.g. 8.7")
    host_cpu: str | None = Field(default=None, description="the processor beside what computes")
    static_shapes: bool = Field(default=True, description="models are exported with fixed shapes")
    dla: Dla | None = Field(default=None, description="NVIDIA's accelerator, where there is one")
    idle_w: Sourced | None = Field(default=None, description="drawn by the board when nothing is computed (W)")
    power_modes: dict[str, PowerMode] = Field(default_factory=dict, description="name -> clocks and cap")
    default_power_mode: str | None = Field(default=None, description="the mode that the peaks are of")
    software: list[Software] = Field(default_factory=list, description="releases, the default first")
    priors: dict[RuntimeName, str] = Field(description="runtime -> set of figures in efficiencies.yaml")
    measurable: bool = Field(default=False, description="True for the machine we run on")
    isa: list[str] = Field(default_factory=list, description="instruction sets of a CPU")
    notes: list[str] = Field(default_factory=list, description="what a planner should know")

    @model_validator(mode="after")
    def _above_zero(self) -> DeviceProfile:
        """What latencies and memory are divided by."""
        figures = {f"peaks_tops.{name}": figure for name, figure in self.peaks_tops.items()}
        figures |= {"bandwidth_gb_s": self.bandwidth_gb_s, "memory_gb": self.memory_gb}
        for name, figure in figures.items():
            if figure.value < LEAST:
                raise ValueError(f"{name} must be at least {LEAST:g}, not {figure.value:g}")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> DeviceProfile:
        for runtime, precisions in self.runtimes.items():
            missing = [p for p in precisions if not self._has_peak(p)]
            if missing:
                raise ValueError(f"{runtime} offers {', '.join(missing)} but peaks_tops has no such figure")
            if runtime not in self.priors:
                raise ValueError(f"no prior for {runtime}")
        if self.default_power_mode and self.default_power_mode not in self.power_modes:
            raise ValueError(f"default_power_mode '{self.default_power_mode}' is not one of power_modes")
        return self

    def _has_peak(self, precision: str) -> bool:
        return precision in self.peaks_tops or (precision == "f32" and "tf32" in self.peaks_tops)

    def peak_tops(self, precision: PrecisionName) -> float:
        """Dense peak in tera-operations per second; f32 is TF32 where the device's runtime computes so.

        Raises:
            RequestError: the profile has no figure for it.
        """
        if precision == "f32" and "tf32" in self.peaks_tops:
            return self.peaks_tops["tf32"].value
        if precision not in self.peaks_tops:
            raise RequestError(f"device '{self.name}': no peak for {precision} in its profile")
        return self.peaks_tops[precision].value

    def software_for(self, runtime: RuntimeName, release: str | None = None) -> Software | None:
        """The named software release, or the first of the profile (its default); None where none is listed.

        Raises:
            RequestError: the release is not one of the profile's.
        """
        own = [s for s in self.software if s.runtime == runtime]
        if release is None:
            return own[0] if own else None
        for software in own:
            if software.release.lower() == release.lower():
                return software
        known = ", ".join(s.release for s in own) or "none"
        raise RequestError(f"device '{self.name}': no release '{release}' for {runtime} (known: {known})")

    def power_mode(self, name: str | None = None) -> tuple[str | None, PowerMode | None]:
        """Name and settings of a power mode, by default the one that the profile's figures are for.

        Raises:
            RequestError: the device has no such mode; names the nearest and all that there are.
        """
        if name is None:
            chosen = self.default_power_mode
            return chosen, self.power_modes[chosen] if chosen else None
        known = {n.lower(): n for n in self.power_modes}
        if name.lower() not in known:
            listed = ", ".join(self.power_modes) or "none; the device is used as it is"
            hint = nearest(name, list(self.power_modes))
            raise RequestError(f"device '{self.name}': no power mode '{name}'{hint}; known: {listed}")
        return known[name.lower()], self.power_modes[known[name.lower()]]

    def possible_targets(self) -> list[str]:
        """All target names this device can run."""
        return [f"{r}-{self.name}-{p}" for r, precisions in self.runtimes.items() for p in precisions]


def shipped_names() -> list[str]:
    """Names of the profiles that come with the package, ``cpu`` first."""
    names = sorted(p.stem for p in PROFILES.glob("*.yaml"))
    return ["cpu", *[n for n in names if n != "cpu"]]


def profile_names() -> list[str]:
    """Names that targets can have: of the profiles that come with the package, then of those that this user added."""
    shipped = shipped_names()
    return [*shipped, *(name for name in own_profiles() if name not in shipped)]


def load_profile(name: str | Path) -> DeviceProfile:
    """A profile by its name, of the package or added by this user (:func:`add_profile`), or from a path ending in .yaml.

    ``cpu`` is this machine: name, cores, instruction sets and peaks are detected.

    Raises:
        RequestError: unknown name (with the nearest), or a file that is missing or wrong (with the field).
    """
    text = str(name)
    if text.endswith((".yaml", ".yml")):
        return _read(Path(text))
    if text not in profile_names():
        raise RequestError(
            f"unknown device '{text}'{nearest(text, profile_names(), 0.4)}. `rsedge devices` lists all; "
            "`rsedge devices add FILE.yaml` adds your own"
        )
    if text not in shipped_names():
        return _kept(text)
    profile = _packaged(text)
    return with_detected_cpu(profile, detect_cpu()) if text == "cpu" else profile


def add_profile(path: str | Path) -> tuple[DeviceProfile, Path]:
    """Keeps a profile of the user's own, whole, so that its name stands for it in recipes and commands; and where it lies now.

    Raises:
        RequestError: the file is missing or wrong (with the field), or its name is that of a device of the package.
    """
    profile = _read(Path(path))
    if profile.name in shipped_names():
        raise RequestError(f"{path}: name: '{profile.name}' is a device of rsedge; give yours another name")
    return profile, keep_profile(profile)


def keep_profile(profile: DeviceProfile) -> Path:
    """Keeps a profile under its name, and says where."""
    text = yaml.safe_dump(profile.model_dump(mode="json", exclude_none=True), sort_keys=False, width=120)
    return keep(profile.name, text)


def check_target(
    target: str, *, opset: int | None = None, release: str | None = None, profiles: Iterable[str | Path] = ()
) -> DeviceProfile:
    """The profile of a target that can exist; refuses impossible combinations before any work starts.

    ``profiles`` are the user's own profile files, looked at first.

    Raises:
        RequestError: unknown device, runtime the device does not have, precision it cannot run, or an opset its
            software cannot read; each with the reason and what would be possible.
    """
    parsed = Target.parse(target)
    own = {p.name: p for p in map(load_profile, profiles)}
    profile = own.get(parsed.device) or load_profile(parsed.device)
    _check_runtime(parsed, profile)
    _check_precision(parsed, profile)
    software = profile.software_for(parsed.runtime, release)
    if opset is not None and software is not None and opset > software.max_opset:
        raise RequestError(
            f"target '{target}': {software.release} reads ONNX opset {software.max_opset} at most, the recipe asks for "
            f"{opset}. Leave opset out (it would be {software.opset}) or lower it"
        )
    return profile


def with_detected_cpu(
    profile: DeviceProfile, cpu: CpuInfo, name: str = "cpu", memory_gb: float | None = None
) -> DeviceProfile:
    """The ``cpu`` profile filled with a detected processor: title, instruction sets, peaks, precisions and memory (this
    machine's unless given). Under another ``name`` it is a processor elsewhere, and not measurable here."""
    cores = min(cpu.cores, cpu.usable_threads)
    source = f"derived: {cores} cores x {cpu.mhz or 2000:.0f} MHz x operations per cycle"
    ghz = (cpu.mhz or 2000.0) / 1e3
    peaks = {p: Sourced(value=round(cores * ghz * f / 1e3, 4), source=source) for p, f in cpu.flops_per_cycle.items()}
    refused, offered = dict(profile.refused), [b for b in backends() if b.cpu_precisions]
    if "bf16" not in peaks:
        refused["bf16"] = f"{cpu.model} has no bfloat16 arithmetic (needs avx512-bf16 or amx-bf16)"
    if not cpu.has("avx512-vnni", "avx-vnni", "amx-int8", "dotprod", "i8mm"):
        note = "no int8 dot product (VNNI): int8 brings about 1.3x in arithmetic, the rest is smaller tensors"
    else:
        note = "int8 dot product in hardware"
    found: dict[str, Any] = {
        "name": name,
        "title": f"{'This machine' if name == 'cpu' else 'Detected'}: {cpu.model}, {cores} cores",
        "measurable": name == "cpu",
        "runtimes": {b.runtime: [p for p in b.cpu_precisions if p in peaks] for b in offered},
        "priors": {b.runtime: b.cpu_prior for b in offered} | profile.priors,
        "refused": refused,
        "peaks_tops": peaks,
        "isa": list(cpu.isa),
        "notes": [*profile.notes, note],
        "memory_gb": Sourced(value=memory_gb or _memory_gb(), source="detected"),
    }
    return DeviceProfile.model_validate(profile.model_dump() | _plain(found))


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Sub-models as dicts, so that the whole is validated again."""

    def plain(value: Any) -> Any:
        if isinstance(value, BaseModel):
            return value.model_dump()
        return {k: plain(v) for k, v in value.items()} if isinstance(value, dict) else value

    return {key: plain(value) for key, value in values.items()}


def _memory_gb() -> float:
    return round(psutil.virtual_memory().total / 1e9, 1)


def _check_runtime(target: Target, profile: DeviceProfile) -> None:
    if target.runtime not in profile.runtimes:
        raise RequestError(
            f"target '{target.name}': {profile.title} does not run {target.runtime}. Possible: "
            + ", ".join(profile.possible_targets())
        )


def _check_precision(target: Target, profile: DeviceProfile) -> None:
    if target.precision in profile.runtimes[target.runtime]:
        return
    reason = profile.refused.get(target.precision, f"{target.runtime} does not offer it on this device")
    raise RequestError(
        f"target '{target.name}': {target.precision} cannot run on {profile.title}: {reason}. Possible: "
        + ", ".join(profile.possible_targets())
    )


def _kept(name: str) -> DeviceProfile:
    path = own_profiles()[name]
    profile = _read(path)
    if profile.name != name:
        raise RequestError(f"{path}: name: is '{profile.name}', but the file is that of '{name}'; add it again")
    return profile


@functools.cache
def _packaged(name: str) -> DeviceProfile:
    return _read(PROFILES / f"{name}.yaml")


def _read(path: Path) -> DeviceProfile:
    return checked(_document(path, "device profile"), DeviceProfile)


def _document(path: Path, what: str) -> Document:
    if not path.is_file():
        raise RequestError(f"{path}: no such file")
    return read_document(path, what)
