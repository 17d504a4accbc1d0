from __future__ import annotations

import numpy as np
import pytest

from rsedge.data.metrics.figures import record_of, statistics_of
from rsedge.data.metrics.images import HIGHEST_PSNR, ImageComparison, psnr, ssim


def images(count: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 2, 24, 20)).astype(np.float32)


def test_psnr_is_the_formula_and_equal_images_have_the_highest() -> None:
    truth = np.zeros((2, 1, 16, 16), np.float32)
    found = truth + np.array([0.1, 0.01], np.float32)[:, None, None, None]
    assert psnr(found, truth, 1.0) == pytest.approx([20, 40], abs=1e-4)
    assert psnr(255 * found, truth, 255.0) == pytest.approx([20, 40], abs=1e-4)
    assert psnr(truth, truth, 1.0).tolist() == [HIGHEST_PSNR] * 2


def test_ssim_is_the_published_formula_window_by_window() -> None:
    x, y = images(1)[0].astype(float), images(1, 1)[0].astype(float)
    at = np.arange(11) - 5
    window = np.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    found = []
    for a, b in zip(x, y, strict=True):
        for row in range(24 - 10):
            for col in range(20 - 10):
                p, q = a[row : row + 11, col : col + 11], b[row : row + 11, col : col + 11]
                mean = (window * p).sum(), (window * q).sum()
                spread = (window * (p - mean[0]) ** 2).sum(), (window * (q - mean[1]) ** 2).sum()
                both = (window * (p - mean[0]) * (q - mean[1])).sum()
                found.append(
                    (2 * mean[0] * mean[1] + 1e-4) * (2 * both + 9e-4)
                    / ((mean[0] ** 2 + mean[1] ** 2 + 1e-4) * (spread[0] + spread[1] + 9e-4))
                )  # fmt: skip
    assert ssim(x[None], y[None], 1.0)[0] == pytest.approx(np.mean(found), abs=1e-10)
    assert ssim(x[None], x[None], 1.0)[0] == pytest.approx(1)


def test_of_flat_images_only_the_means_are_left() -> None:
    a, b = np.full((1, 1, 16, 16), 0.5), np.full((1, 1, 16, 16), 0.7)
    assert ssim(a, b, 1.0)[0] == pytest.approx((2 * 0.35 + 1e-4) / (0.25 + 0.49 + 1e-4))


def test_missing_pixels_do_not_count() -> None:
    truth, found = images(), images(seed=1)
    whole = psnr(found[:, :, :12], truth[:, :, :12], 1.0), ssim(found[:, :, :12], truth[:, :, :12], 1.0)
    truth[:, :, 12:] = np.nan
    assert psnr(found, truth, 1.0) == pytest.approx(whole[0])
    assert ssim(found, truth, 1.0) == pytest.approx(whole[1])
    unknown = ImageComparison("image", found, np.full_like(truth, np.nan), 1.0, np.arange(len(found)))
    assert record_of(unknown) == {"psnr": None, "ssim": None, "n": len(found)}


def test_statistics_over_all_units_are_the_metrics() -> None:
    truth, found = images(6), images(6, seed=1)
    truth[2] = np.nan
    told = statistics_of(ImageComparison("image", found, truth, 1.0, np.array([0, 0, 1, 1, 2, 2])))
    means = {"psnr": np.nanmean(psnr(found, truth, 1.0)), "ssim": np.nanmean(ssim(found, truth, 1.0))}
    assert {n: s.value for n, s in told.items()} == pytest.approx(means)
