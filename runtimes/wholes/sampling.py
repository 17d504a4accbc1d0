"""One picture from a denoiser and a decoder: deterministic DDIM (Song et al. 2021, eta = 0) in NumPy alone.

The networks are callables, so that a part on any runtime, or a network in torch behind a function, is sampled by the same numbers.
A decoder of ``latent_decoder`` divides by the latent's scale in its own graph; nothing is divided here.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import RequestError
from rsedge.data.sampler import Sampler

Array = npt.NDArray[np.float32]
Denoise = Callable[[Array, float], Array]
"""Latent and time -> what the network predicts of it, in the latent's shape."""


def sample(
    denoise: Denoise,
    settings: Sampler,
    shape: tuple[int, ...],
    seed: int,
    without: Denoise | None = None,
) -> Array:
    """The latent that ``settings`` reach from the noise of a seed.

    Args:
        denoise: the network with its conditions filled in.
        shape: of the latent, (1, channels, rows, columns).
        seed: the noise is ``numpy.random.default_rng(seed).standard_normal(shape, dtype=float32)``.
        without: the network without the condition, or under a negative one; guidance leads away from it.

    Returns:
        The latent (1, channels, rows, columns), float32, as the network was trained on it.

    Raises:
        RequestError: guidance other than 1 without ``without``, or a network gives another shape, NaN or infinity.
    """
    if settings.guidance != 1 and without is None:
        raise RequestError(
            f"sampler: guidance {settings.guidance:g} needs an answer without the condition too; give `without`, or take guidance 1"
        )
    latent = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    kept = signal(settings)
    visited = times(settings)
    # Behind the last time visited comes the first of training, as in the latent-diffusion code base.
    for time, after in pairwise([*visited, 0]):
        found = _asked(denoise, latent, time)
        if without is not None and settings.guidance != 1:
            base = _asked(without, latent, time)
            found = base + np.float32(settings.guidance) * (found - base)
        latent = _stepped(latent, found, kept[time], kept[after], settings)
    return latent


def picture(
    denoise: Denoise,
    decode: Callable[[Array], Array],
    settings: Sampler,
    shape: tuple[int, ...],
    seed: int,
    without: Denoise | None = None,
) -> Array:
    """The picture (1, bands, rows, columns) that a decoder makes of :func:`sample`'s latent.

    Raises:
        RequestError: as :func:`sample`; or the picture holds NaN or infinity.
    """
    found = np.asarray(decode(sample(denoise, settings, shape, seed, without)))
    if not np.isfinite(found).all():
        raise RequestError("sampler: the decoder gives NaN or infinity; check its precision against the f32 file")
    return found


def times(settings: Sampler) -> list[int]:
    """The times at which the network is asked, evenly apart, in their order: the noisiest first."""
    apart = settings.times // settings.steps
    return [settings.offset + apart * i for i in reversed(range(settings.steps))]


def signal(settings: Sampler) -> npt.NDArray[np.float64]:
    """The share of the picture's variance that is left at each time of training, (times,)."""
    power = 2 if settings.betas == "scaled-linear" else 1
    ends = settings.beta_start ** (1 / power), settings.beta_end ** (1 / power)
    return np.cumprod(1 - np.linspace(*ends, settings.times) ** power)


def _asked(network: Denoise, latent: Array, time: int) -> Array:
    found = np.asarray(network(latent, float(time)), dtype=np.float32)
    if found.shape != latent.shape:
        raise RequestError(
            f"sampler: the network gives {found.shape} for a latent {latent.shape}; it must give its shape"
        )
    if not np.isfinite(found).all():
        raise RequestError(f"sampler: the network gives NaN or infinity at time {time}; check its precision and inputs")
    return found


def _stepped(latent: Array, found: Array, now: float, after: float, settings: Sampler) -> Array:
    """The latent at the next time: the picture guessed from this one, noised again with the same noise."""
    clean, noisy = np.float32(now**0.5), np.float32((1 - now) ** 0.5)
    if settings.prediction == "velocity":
        guess, noise = clean * latent - noisy * found, clean * found + noisy * latent
    else:
        guess, noise = (latent - noisy * found) / clean, found
    return np.asarray(np.float32(after**0.5) * guess + np.float32((1 - after) ** 0.5) * noise)
