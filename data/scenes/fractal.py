"""Fractal fields by spectral synthesis: the texture of clouds, haze and mixing masks.

Method: white noise filtered to a power spectrum ``f ** -beta`` (Voss 1985, "Random fractal forgeries"); cloud fields
have beta between about 2 and 4 in two dimensions. A bank of periodic fields is made once and then read at random
offsets, orientations and zooms, which is hundreds of times cheaper than one transform per field.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]


def fractal_field(size: int, beta: float, rng: np.random.Generator) -> Field:
    """A periodic field of shape (size, size), ranked to uniform values in (0, 1), power spectrum ``f ** -beta``."""
    fy = np.fft.fftfreq(size)[:, None]
    fx = np.fft.rfftfreq(size)[None, :]
    radius = np.hypot(fy, fx)
    radius[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) * radius ** (-beta / 2)
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, s=(size, size))
    ranks = np.empty(field.size, dtype=np.float32)
    ranks[np.argsort(field, axis=None)] = np.arange(field.size, dtype=np.float32)
    return ((ranks + np.float32(0.5)) / np.float32(field.size)).astype(np.float32).reshape((size, size))


def resize(image: npt.NDArray[np.floating], shape: tuple[int, int]) -> Field:
    """Resamples (..., H, W) to (..., *shape): area mean by whole factors when shrinking, then bilinear."""
    out = np.asarray(image, dtype=np.float32)
    for axis, size in ((-2, shape[0]), (-1, shape[1])):
        factor = out.shape[axis] // size
        if factor > 1:
            out = _block_mean(out, axis, factor)
        out = _linear(out, axis, size)
    return out


def _block_mean(image: Field, axis: int, factor: int) -> Field:
    moved = np.moveaxis(image, axis, -1)
    keep = moved.shape[-1] // factor * factor
    mean = moved[..., :keep].reshape(*moved.shape[:-1], keep // factor, factor).mean(-1, dtype=np.float32)
    return np.moveaxis(mean, -1, axis)


def _linear(image: Field, axis: int, size: int) -> Field:
    length = image.shape[axis]
    if length == size:
        return image
    at = np.clip((np.arange(size, dtype=np.float32) + 0.5) * (length / size) - 0.5, 0, length - 1)
    low = np.floor(at).astype(np.intp)
    high = np.minimum(low + 1, length - 1)
    weight = (at - low).astype(np.float32)
    weight = weight.reshape([-1 if a == image.ndim + axis else 1 for a in range(image.ndim)])
    return np.take(image, low, axis) * (1 - weight) + np.take(image, high, axis) * weight


class FractalBank:
    """Fractal fields to draw from: ``draw`` reads one at a random offset, orientation and zoom."""

    def __init__(self, seed: int, size: int = 512, count: int = 24, beta: tuple[float, float] = (2.8, 4.2)) -> None:
        rng = np.random.default_rng([seed, 0xF7AC])
        self._fields = [fractal_field(size, b, rng) for b in rng.uniform(*beta, size=count)]
        self._size = size

    def draw(self, rng: np.random.Generator, tile: int, zoom: float | None = None) -> Field:
        """A field of shape (tile, tile) with values in (0, 1); ``zoom`` > 1 gives larger structures."""
        zoom = float(np.exp(rng.uniform(np.log(0.5), np.log(4.0)))) if zoom is None else zoom
        span = int(np.clip(round(tile / zoom), 8, self._size))
        field = self._fields[rng.integers(len(self._fields))]
        y, x = rng.integers(0, self._size, size=2)
        rows, cols = (y + np.arange(span)) % self._size, (x + np.arange(span)) % self._size
        piece = field[np.ix_(rows, cols)]
        piece = np.rot90(piece, int(rng.integers(4)))
        return resize(piece[:, ::-1] if rng.random() < 0.5 else piece, (tile, tile))
