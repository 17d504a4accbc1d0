"""Fits a device's figures to measured latencies: robust on the rows, held to the priors where the rows say little.

Residuals are logarithms of predicted over measured, so that 10 % counts the same on fast and slow networks. A few odd
rows do not decide (soft L1), and every figure is pulled towards its prior with a width in logarithms, so that a figure
no row depends on stays where it was. The result is the posterior mode under log-normal priors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import RequestError, missing_extra
from rsedge.devices.predict.roofline import Figures, Work, stack, total_ms

ROW_NOISE = 0.10
"""Spread (log) that a row is trusted to: harness, clocks and tactics differ by about as much."""
# Width of the prior of a figure (log), by the part of its name before the precision.
PRIOR_WIDTH: dict[str, float] = {
    "conv": 0.5,
    "pointwise": 0.5,
    "depthwise": 0.7,
    "matmul": 0.5,
    "attention": 0.7,
    "bandwidth": 0.4,
    "move": 0.7,
    "special": 0.7,
    "kernel_us": 0.5,
    "half_columns": 0.7,
    "half_depth": 0.7,
    "half_outputs": 0.7,
    "call_ms": 0.7,
    "io_gb_s": 0.5,
}


@dataclass(frozen=True)
class Observed:
    """A measured latency (ms) of some work; ``with_call`` False where it is the device's time alone."""

    work: Work
    latency_ms: float
    with_call: bool = True


def fit(observed: Sequence[Observed], prior: Figures, start: Figures | None = None) -> dict[str, float]:
    """Figures that explain ``observed`` best, given ``prior``; names as in ``prior``, all positive.

    ``start`` is where the search begins (the prior unless given); it changes how fast, not what is found.

    Raises:
        RequestError: no rows, or a latency that is not positive.
        MissingCapability: scipy is not installed.
    """
    if not observed or any(not row.latency_ms > 0 for row in observed):
        raise RequestError("fitting needs at least one measured latency, all above 0 ms")
    names = sorted(prior)
    believed = np.log([prior[name] for name in names])
    width = np.array([PRIOR_WIDTH[name.partition(".")[0]] for name in names])
    measured = np.log([row.latency_ms for row in observed])

    work, calls = stack([row.work for row in observed]), np.array([row.with_call for row in observed])

    def residuals(theta: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        figures = dict(zip(names, np.exp(theta).tolist(), strict=True))
        predicted = total_ms(work, figures, calls)
        return np.concatenate([_soft((np.log(predicted) - measured) / ROW_NOISE), (theta - believed) / width])

    first = np.log([(start or prior)[name] for name in names])
    found = _least_squares()(
        residuals, first, method="trf", x_scale=width, diff_step=1e-4, max_nfev=25, ftol=1e-4, xtol=1e-4
    )
    return {name: math.exp(value) for name, value in zip(names, found.x, strict=True)}


def _soft(residual: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Residuals whose squares are the soft L1 loss ``2 (sqrt(1 + r^2) - 1)``."""
    return np.asarray(np.sign(residual) * np.sqrt(2 * (np.sqrt(1 + residual**2) - 1)), dtype=np.float64)


def _least_squares() -> Any:
    try:
        from scipy.optimize import least_squares
    except ModuleNotFoundError as error:
        raise missing_extra("scipy", "compress", "fitting a device's figures") from error
    return least_squares
