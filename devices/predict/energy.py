"""Predicted energy of one inference: idle power while it runs, plus so much per operation and per byte moved.

``E = P_idle t + e_op ops + e_byte bytes``; where that asks for more power than the mode's cap, the inference is
stretched until it does not, as the device itself would do. The energy per operation comes from the profile:
``SUSTAINED (cap - idle) / dense peak``, with the largest cap that the profile states and the peak of its default mode.
``SUSTAINED`` is set by the one clean public measurement, Orin NX 16GB with ResNet-50 int8: 11.7 mJ above idle (facts B,
MLPerf MaxQ), of which 1.9 mJ are its 48 MB of traffic; 9.8 mJ over 8.2 G operations are 1.82 times (25 - 5.3) W over
30.1 TOPS. Published energies of other devices have not been compared, so the interval is wide.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from rsedge.data.errors import RequestError
from rsedge.data.record import Record
from rsedge.devices.predict.onnx_graph import GraphCost
from rsedge.devices.predict.roofline import BYTES
from rsedge.devices.profiles.profile import DeviceProfile
from rsedge.runtimes.precision import PrecisionName

SUSTAINED = 1.82
"""Energy per operation in practice over energy per operation at full rate under the cap."""
PJ_PER_BYTE = 40.0
"""Energy of moving a byte to or from LPDDR memory (pJ); unverified, about 5 pJ per bit."""
SPREAD = 2.0
"""The interval of the dynamic part is [mid / SPREAD, mid * SPREAD]; judged, one public row."""
METHOD = "energy v1: idle + per operation + per byte"


class EnergyPrediction(Record):
    """Predicted energy of one inference (mJ), split by where it goes; ``latency_ms`` is the latency under the cap."""

    provenance: Literal["predicted"] = "predicted"
    device: str
    power_mode: str | None
    precision: str
    low_mj: float
    mid_mj: float
    high_mj: float
    idle_mj: float = Field(description="part of mid_mj that the idle board would have drawn")
    ops_mj: float = Field(description="part of mid_mj for operations")
    bytes_mj: float = Field(description="part of mid_mj for memory traffic")
    latency_ms: float
    capped: bool = Field(description="True where the power mode's cap stretches the inference")
    basis: str

    @property
    def dynamic_mj(self) -> tuple[float, float, float]:
        """Energy above idle (mJ): low, mid, high."""
        return _spread(self.ops_mj + self.bytes_mj)

    def __str__(self) -> str:
        return f"predicted {self.low_mj:.3g}-{self.high_mj:.3g} mJ"


def predict_energy(
    graph: GraphCost,
    profile: DeviceProfile,
    precision: PrecisionName,
    latency_ms: tuple[float, float, float],
    power_mode: str | None = None,
    idle_w: float | None = None,
) -> EnergyPrediction:
    """Predicted energy of one inference of ``graph`` that takes ``latency_ms`` (low, mid, high) in ``power_mode``.

    ``idle_w`` is a measured idle power that goes before the profile's. The energy per operation does not change with the
    mode, although lower clocks need less: the prediction is on the safe side there.

    Raises:
        RequestError: the profile does not state what the prediction needs (idle power, a cap, or the peak).
    """
    idle = idle_power_w(profile) if idle_w is None else idle_w
    cap_w = _largest_cap_w(profile, idle)
    mode, settings = profile.power_mode(power_mode)
    pj = SUSTAINED * (cap_w - idle) / profile.peak_tops(precision)
    moved = sum(k.read + k.weights + k.written for k in graph.kernels) * BYTES[precision]
    ops_mj, bytes_mj = 2 * graph.macs * pj * 1e-9, moved * PJ_PER_BYTE * 1e-9
    spread = _spread(ops_mj + bytes_mj)
    limit = settings.cap_w if settings else None
    times = [paced_ms(t, d, idle, limit) for t, d in zip(latency_ms, spread, strict=True)]
    total = [idle * t + d for t, d in zip(times, spread, strict=True)]
    stated = "measured" if idle_w is not None or profile.idle_w is None else profile.idle_w.source
    return EnergyPrediction(
        device=profile.name,
        power_mode=mode,
        precision=precision,
        low_mj=total[0],
        mid_mj=total[1],
        high_mj=total[2],
        idle_mj=idle * times[1],
        ops_mj=ops_mj,
        bytes_mj=bytes_mj,
        latency_ms=times[1],
        capped=times[1] > latency_ms[1],
        basis=f"predicted, {METHOD}; {pj:.2g} pJ per operation from a cap of {cap_w:g} W and {idle:g} W idle ({stated}); "
        f"dynamic part x/÷ {SPREAD:g}, coverage not checked",
    )


def idle_power_w(profile: DeviceProfile) -> float:
    """What the board draws when nothing is computed (W).

    Raises:
        RequestError: the profile does not say.
    """
    if profile.idle_w is None:
        raise RequestError(
            f"device '{profile.name}': its profile has no idle_w, so its energy cannot be predicted. Give measured "
            "watts instead (compute.idle_w and compute.active_w of a mission), or a profile of your own"
        )
    return profile.idle_w.value


def _largest_cap_w(profile: DeviceProfile, idle_w: float) -> float:
    caps = [m.cap_w for m in profile.power_modes.values() if m.cap_w]
    if not caps:
        raise RequestError(
            f"device '{profile.name}': no power mode of its profile has a cap_w, so its energy cannot be predicted. "
            "Give measured watts instead (compute.idle_w and compute.active_w of a mission)"
        )
    if max(caps) <= idle_w:
        raise RequestError(f"device '{profile.name}': idle power {idle_w:g} W is not under its cap of {max(caps):g} W")
    return max(caps)


def _spread(value: float) -> tuple[float, float, float]:
    return value / SPREAD, value, value * SPREAD


def paced_ms(latency_ms: float, dynamic_mj: float, idle_w: float, limit_w: float | None) -> float:
    """Time per inference (ms) at which mean power stays under ``limit_w``; infinite where idling alone takes it all."""
    if limit_w is None:
        return latency_ms
    if limit_w <= idle_w:
        return math.inf
    return max(latency_ms, dynamic_mj / (limit_w - idle_w))
