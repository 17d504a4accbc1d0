"""Power modes: a device's profile as it is in another mode, with peaks and bandwidth scaled by what the mode changes."""

from __future__ import annotations

from rsedge.data.errors import RequestError
from rsedge.devices.profiles.profile import DeviceProfile, PowerMode, Sourced


def in_power_mode(profile: DeviceProfile, name: str | None = None) -> DeviceProfile:
    """The profile with the figures of power mode ``name``; None or the default mode leave it as it is.

    Peaks scale with the stated share of compute, else with the GPU's clock times the multiprocessors left on (or the
    CPU's clock times its cores); bandwidth scales with the memory clock where both modes state it.

    Raises:
        RequestError: unknown mode, or one whose clocks the profile does not state.
    """
    chosen, mode = profile.power_mode(name)
    own, reference = profile.power_mode()
    if mode is None or reference is None or chosen == own:
        return profile
    compute = _compute_share(profile, mode, reference)
    if compute is None:
        raise RequestError(
            f"device '{profile.name}': the profile does not state the clocks of power mode '{chosen}', so nothing can be "
            "predicted in it. Give a latency measured in that mode, or a profile of your own (.yaml) with its clocks"
        )
    memory = mode.emc_mhz / reference.emc_mhz if mode.emc_mhz and reference.emc_mhz else 1.0
    scaled = {
        "peaks_tops": {p: _scaled(peak, compute, str(chosen)) for p, peak in profile.peaks_tops.items()},
        "bandwidth_gb_s": _scaled(profile.bandwidth_gb_s, memory, str(chosen)),
        "default_power_mode": chosen,
    }
    return profile.model_copy(update=scaled)


def _compute_share(profile: DeviceProfile, mode: PowerMode, reference: PowerMode) -> float | None:
    if mode.compute_share is not None:
        return mode.compute_share / (reference.compute_share or 1.0)
    if profile.kind == "cpu":
        if mode.cpu_mhz and mode.cpu_cores and reference.cpu_mhz and reference.cpu_cores:
            return mode.cpu_mhz * mode.cpu_cores / (reference.cpu_mhz * reference.cpu_cores)
        return None
    if not mode.gpu_mhz or not reference.gpu_mhz:
        return None
    units = (mode.gpu_sm / (reference.gpu_sm or profile.sm_count)) if mode.gpu_sm and profile.sm_count else 1.0
    return mode.gpu_mhz / reference.gpu_mhz * units


def _scaled(figure: Sourced, share: float, mode: str) -> Sourced:
    if share == 1.0:
        return figure
    return Sourced(value=figure.value * share, source=f"{figure.source}; x {share:.3g} in power mode {mode}")
