"""How a denoiser of latent diffusion is sampled: numbers that stand in its teacher's row and travel with its parts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rsedge.data.record import Record


class Sampler(Record):
    """Settings of deterministic DDIM (Song et al. 2021, eta = 0).

    Attributes:
        betas: how the noise grows over the times of training: evenly (``linear``), or its square root does (``scaled-linear``; the
            latent-diffusion code base calls this one "linear").
        beta_start: noise added at the first time.
        beta_end: noise added at the last time.
        times: how many times the network was trained on.
        offset: the least noisy time that is visited: 1 in the latent-diffusion code base, 0 in others.
        prediction: what the network gives: the noise, or the velocity of Salimans and Ho 2022 (noise and picture mixed).
        steps: how often the network is asked.
        guidance: of classifier-free guidance (Ho and Salimans 2022); at 1 the condition alone is asked.
    """

    betas: Literal["linear", "scaled-linear"]
    beta_start: float = Field(gt=0, lt=1)
    beta_end: float = Field(gt=0, lt=1)
    times: int = Field(default=1000, ge=1)
    offset: int = Field(default=1, ge=0)
    prediction: Literal["noise", "velocity"] = "noise"
    steps: int = Field(default=50, ge=1)
    guidance: float = Field(default=1.0, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> Sampler:
        if self.beta_end < self.beta_start:
            raise ValueError(f"beta_end {self.beta_end:g} is less than beta_start {self.beta_start:g}; swap them")
        if self.steps > self.times:
            raise ValueError(
                f"steps {self.steps} are more than the {self.times} times of training; ask for fewer steps"
            )
        last = self.offset + (self.steps - 1) * (self.times // self.steps)
        if last >= self.times:
            raise ValueError(
                f"offset {self.offset}: {self.steps} steps from there end at time {last}, training ended at {self.times - 1};"
                " ask for fewer steps or take offset 0"
            )
        return self
