"""How near an image comes to another one: PSNR and SSIM, per image, and by units for their intervals.

PSNR is 10 log10(peak^2 / mean squared error); SSIM is that of Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from
error visibility to structural similarity" (2004): a Gaussian window of 11 x 11 with a sigma of 1.5 pixels, K1 = 0.01, K2 = 0.03,
each band by itself, windows that lie inside the image only. Pixels that are NaN in either image do not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.metrics.comparison import Comparison
from rsedge.data.metrics.statistics import Statistic, ratio, summed, units_of

Images = Sequence[npt.NDArray[np.floating]] | npt.NDArray[np.floating]
"""Images (K, H, W), of one size or several."""
Floats = npt.NDArray[np.float64]
HIGHEST_PSNR = 100.0
"""What equal images get (dB): float32 tells no less of an error, and reports have no infinity."""
WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03


def psnr(found: Images, truth: Images, peak: float) -> Floats:
    """Peak signal-to-noise ratio (dB) of each of N images, (N,); NaN where no pixel is known.

    Args:
        peak: the largest value that images can have.
    """
    errors = [(a.astype(np.float64) - b) ** 2 for a, b in zip(found, truth, strict=True)]
    mean = np.array([e[np.isfinite(e)].mean() if np.isfinite(e).any() else np.nan for e in errors], np.float64)
    least = peak**2 * 10 ** (-HIGHEST_PSNR / 10)
    return np.asarray(10 * np.log10(peak**2 / np.maximum(mean, least)))


def ssim(found: Images, truth: Images, peak: float) -> Floats:
    """Structural similarity of each of N images, mean over windows and bands, (N,); NaN where no window is known."""
    return np.array([_ssim_of(a, b, peak) for a, b in zip(found, truth, strict=True)], dtype=np.float64)


def _ssim_of(found: npt.NDArray[np.floating], truth: npt.NDArray[np.floating], peak: float) -> float:
    x, y = found.astype(np.float64), truth.astype(np.float64)
    mean_x, mean_y = _smooth(x), _smooth(y)
    var_x, var_y = _smooth(x * x) - mean_x**2, _smooth(y * y) - mean_y**2
    both = _smooth(x * y) - mean_x * mean_y
    c1, c2 = (K1 * peak) ** 2, (K2 * peak) ** 2
    alike = (2 * mean_x * mean_y + c1) * (2 * both + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    known = np.isfinite(alike)
    return float(alike[known].mean()) if known.any() else float("nan")


def _smooth(x: Floats) -> Floats:
    """Gaussian means (K, H - 10, W - 10) of (K, H, W); the window is as large as smaller images let it be."""
    for axis in (-2, -1):
        size = min(WINDOW, x.shape[axis])
        weights = np.exp(-0.5 * ((np.arange(size) - (size - 1) / 2) / SIGMA) ** 2)
        windows = np.lib.stride_tricks.sliding_window_view(x, size, axis=axis)
        x = np.asarray(windows @ (weights / weights.sum()))
    return x


@dataclass(frozen=True)
class ImageComparison(Comparison):
    """Images against the true ones, or the teacher's.

    Attributes:
        found, truth: N images each.
        peak: the largest value that they can have.
        groups: (N,) what each image belongs to, which the bootstrap draws.
    """

    found: Images
    truth: Images
    peak: float
    groups: npt.NDArray[Any]

    @property
    def details(self) -> dict[str, Any]:
        """``n`` (images)."""
        return {"n": len(self.found)}

    def mean_of(self, values: Floats, low: float, high: float) -> Statistic:
        """The mean of the values (N,) of images that have one, by units."""
        (unit, units), known = units_of(self.groups), np.isfinite(values)
        total, number = (summed(v, unit, units) for v in (np.where(known, values, 0), known))
        return ratio(total, number, low, high)


def psnr_statistic(images: ImageComparison) -> Statistic:
    """Mean PSNR (dB)."""
    return images.mean_of(psnr(images.found, images.truth, images.peak), -np.inf, HIGHEST_PSNR)


def ssim_statistic(images: ImageComparison) -> Statistic:
    """Mean SSIM."""
    return images.mean_of(ssim(images.found, images.truth, images.peak), -1.0, 1.0)


def agreement_of_images(images: ImageComparison) -> Statistic:
    """Mean SSIM, at least 0."""
    mean = ssim_statistic(images)
    return Statistic(mean.units, lambda counts: np.clip(mean.of(counts), 0, 1), 0.0, 1.0)
