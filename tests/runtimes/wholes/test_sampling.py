"""The sampler against diffusers' DDIM, against formulas, and its refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from rsedge.data.errors import RequestError
from rsedge.data.sampler import Sampler
from rsedge.runtimes.wholes.sampling import Array, picture, sample, signal, times

SHAPE = (1, 4, 6, 5)
CRS = Sampler(betas="scaled-linear", beta_start=0.00085, beta_end=0.012)


def network(latent: Array, time: float) -> Array:
    """Bends its input, and differently at each time."""
    return np.tanh(latent * np.float32(0.7) + np.float32(time / 1000)) + np.float32(0.1) * latent[:, ::-1]


def empty(latent: Array, time: float) -> Array:
    return np.sin(latent - np.float32(time / 500))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"prediction": "velocity"},
        {"betas": "linear", "beta_start": 1e-4, "beta_end": 2e-2},
        {"beta_start": 1e-4, "beta_end": 2e-2, "steps": 7},
        {"offset": 0, "steps": 30, "guidance": 7.5},
        {"prediction": "velocity", "guidance": 3.0, "steps": 20},
        {"guidance": 0.0, "steps": 5},
    ],
)
def test_it_is_the_ddim_of_diffusers(changes: dict[str, Any]) -> None:
    diffusers, torch = pytest.importorskip("diffusers"), pytest.importorskip("torch")
    settings = CRS.model_copy(update=changes)
    other = diffusers.DDIMScheduler(
        num_train_timesteps=settings.times, beta_start=settings.beta_start, beta_end=settings.beta_end,
        beta_schedule=settings.betas.replace("-", "_"), clip_sample=False, set_alpha_to_one=False,
        steps_offset=settings.offset, timestep_spacing="leading",
        prediction_type={"noise": "epsilon", "velocity": "v_prediction"}[settings.prediction],
    )  # fmt: skip
    other.set_timesteps(settings.steps)
    assert other.timesteps.tolist() == times(settings)
    latent = torch.from_numpy(np.random.default_rng(3).standard_normal(SHAPE, dtype=np.float32))
    for time in other.timesteps:
        base, found = (torch.from_numpy(ask(latent.numpy(), float(time))) for ask in (empty, network))
        guided = base + settings.guidance * (found - base)
        latent = other.step(guided, time, latent, eta=0.0).prev_sample
    found = sample(network, settings, SHAPE, 3, empty)
    assert np.abs(found).max() > 0.1
    assert np.abs(found - latent.numpy()).max() <= 2e-5 * np.abs(found).max()


def test_the_signal_falls_as_the_latent_diffusion_code_has_it() -> None:
    """Its "linear" is even in the square root of beta; 0.00085 to 0.012 leaves 0.0047 of the variance."""
    assert signal(CRS)[-1] == pytest.approx(0.0046601, abs=2e-6)
    assert signal(CRS)[:2] == pytest.approx([1 - 0.00085, (1 - 0.00085) * (1 - 0.00085470)], abs=1e-8)


def test_it_finds_a_picture_whose_noise_the_network_knows() -> None:
    """A network that tells the noise of one latent exactly leads to that latent, but for the noise of the first time."""
    goal = np.random.default_rng(9).standard_normal(SHAPE, dtype=np.float32)
    kept = signal(CRS)

    def knows(latent: Array, time: float) -> Array:
        share = kept[int(time)]
        return np.asarray((latent - share**0.5 * goal) / (1 - share) ** 0.5, dtype=np.float32)

    noise = np.random.default_rng(1).standard_normal(SHAPE, dtype=np.float32)
    start = times(CRS)[0]
    first = (noise - kept[start] ** 0.5 * goal) / (1 - kept[start]) ** 0.5
    expected = kept[0] ** 0.5 * goal + (1 - kept[0]) ** 0.5 * first
    assert sample(knows, CRS, SHAPE, 1) == pytest.approx(expected, abs=1e-4)


def test_one_seed_gives_one_latent_and_another_another() -> None:
    first, again, other = (sample(network, CRS, SHAPE, seed) for seed in (0, 0, 1))
    assert first.dtype == np.float32 and first.shape == SHAPE
    assert np.array_equal(first, again) and not np.allclose(first, other)


def test_at_guidance_one_the_other_network_is_not_asked() -> None:
    def never(latent: Array, time: float) -> Array:
        raise AssertionError("asked")

    assert np.array_equal(sample(network, CRS, SHAPE, 0, never), sample(network, CRS, SHAPE, 0))


def test_the_picture_is_the_decoders() -> None:
    found = picture(network, lambda latent: latent[:, :3].repeat(8, 2).repeat(8, 3), CRS, SHAPE, 0)
    assert np.array_equal(found[:, :, ::8, ::8], sample(network, CRS, SHAPE, 0)[:, :3])


def test_what_networks_must_not_give_is_refused() -> None:
    with pytest.raises(RequestError, match=r"guidance 7\.5 needs an answer without the condition"):
        sample(network, CRS.model_copy(update={"guidance": 7.5}), SHAPE, 0)
    with pytest.raises(RequestError, match=r"gives \(1, 4, 6\) for a latent \(1, 4, 6, 5\)"):
        sample(lambda latent, time: latent[..., 0], CRS, SHAPE, 0)
    with pytest.raises(RequestError, match="NaN or infinity at time 981"):
        sample(lambda latent, time: latent * np.float32("nan"), CRS, SHAPE, 0)
    with pytest.raises(RequestError, match="the decoder gives NaN"):
        picture(network, lambda latent: np.full_like(latent, np.inf), CRS, SHAPE, 0)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"beta_end": 1e-5}, "beta_end 1e-05 is less than beta_start"),
        ({"steps": 1001}, "steps 1001 are more than the 1000 times"),
        ({"steps": 1000}, "offset 1: 1000 steps from there end at time 1000"),
        ({"eta": 0.2}, "Extra inputs are not permitted"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        Sampler.model_validate(CRS.model_dump() | changes)
