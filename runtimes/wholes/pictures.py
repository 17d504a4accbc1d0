"""One picture by the shipped sampler: a denoiser asked step by step, a decoder, and perhaps parts that prepare conditions first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from rsedge.data.errors import RequestError
from rsedge.data.metrics.comparison import Comparison
from rsedge.data.metrics.images import ImageComparison
from rsedge.data.sampler import Sampler
from rsedge.runtimes.parts import Tensors
from rsedge.runtimes.session import Array, Arrays
from rsedge.runtimes.wholes.base import Parts, Whole, WholeSettings, chain_inputs, chained, with_batch
from rsedge.runtimes.wholes.sampling import Denoise, picture

LATENT, TIME, SEED, IMAGE = "latent", "time", "seed", "image"
WITHOUT = "_without"
"""Ends the names of what guidance leads away from."""


class SampledSettings(WholeSettings):
    """How pictures are sampled; ``without`` names the conditions that guidance leaves out."""

    sampler: Sampler = Field(description="schedule, steps and guidance; those of the denoiser's row where left out")
    without: tuple[str, ...] = Field(default=("text",), description="conditions that guidance leads away from")


class SampledPicture(Whole[SampledSettings]):
    """The last part decodes, the one before it denoises; those before them prepare conditions, once a picture, or before every step
    where they take the latent, the time or what such a part gives (control networks).

    A sample holds the conditions and ``seed``, a whole number that the noise is drawn by; with guidance also ``NAME_without`` of
    each condition that it leads away from. ``image`` (bands, rows, columns) comes out.
    """

    task = "generation"
    settings_of = SampledSettings

    def __init__(self, parts: Sequence[str], settings: Mapping[str, Any]) -> None:
        super().__init__(parts, settings)
        if len(self.parts) < 2:
            raise RequestError(
                f"parts: a sampled picture needs a denoiser, then a decoder; found {', '.join(self.parts)}"
            )

    def inputs(self, parts: Parts) -> Tensors:
        denoiser, decoder = self.parts[-2:]
        if not {LATENT, TIME} <= set(parts[denoiser].inputs) or len(parts[denoiser].outputs) != 1:
            raise RequestError(f"parts.{denoiser}: a denoiser takes '{LATENT}' and '{TIME}' and gives one tensor")
        if set(parts[decoder].inputs) != {LATENT} or len(parts[decoder].outputs) != 1:
            raise RequestError(f"parts.{decoder}: a decoder takes '{LATENT}' alone and gives one tensor")
        found = dict(chain_inputs(parts, self.parts[:-1], (LATENT, TIME)))
        found |= {f"{name}{WITHOUT}": found[name] for name in self._left_out(found)}
        return {**found, SEED: ((), np.dtype(np.int64))}

    def _left_out(self, conditions: Mapping[str, Any]) -> tuple[str, ...]:
        """Conditions that guidance leads away from; none without guidance.

        Raises:
            RequestError: the parts take none of them.
        """
        if self.settings.sampler.guidance == 1:
            return ()
        if missing := [name for name in self.settings.without if name not in conditions]:
            raise RequestError(
                f"whole.without: guidance {self.settings.sampler.guidance:g} leads away from '{missing[0]}', which no part takes; "
                f"name one of {', '.join(conditions) or 'none'}, or take guidance 1"
            )
        return self.settings.without

    def run(self, parts: Parts, sample: Mapping[str, Array]) -> Arrays:
        if (seed := int(sample[SEED])) < 0:
            raise RequestError(f"'{SEED}' is {seed}; it must be 0 or more")
        known = with_batch({name: value for name, value in sample.items() if name != SEED})
        swapped = {name.removesuffix(WITHOUT): value for name, value in known.items() if name.endswith(WITHOUT)}
        once = [name for name in self.parts[:-2] if name not in self._every_step(parts)]
        held = chained(parts, once, known)
        without = self._denoise(parts, chained(parts, once, known | swapped)) if swapped else None
        (decoded,) = parts[self.parts[-1]].outputs
        found = picture(
            self._denoise(parts, held),
            lambda latent: parts[self.parts[-1]]({LATENT: latent})[decoded],
            self.settings.sampler,
            parts[self.parts[-2]].inputs[LATENT][0],
            seed,
            without,
        )
        return {IMAGE: np.asarray(found[0], dtype=np.float32)}

    def _every_step(self, parts: Parts) -> list[str]:
        """Parts that run before every step, and the denoiser."""
        changing, found = {LATENT, TIME}, []
        for name in self.parts[:-1]:
            if changing & set(parts[name].inputs):
                changing |= set(parts[name].outputs)
                found.append(name)
        return found

    def _denoise(self, parts: Parts, held: Mapping[str, Array]) -> Denoise:
        denoiser = parts[self.parts[-2]]
        (output,), shape, names = denoiser.outputs, denoiser.inputs[TIME][0], self._every_step(parts)

        def run(latent: Array, time: float) -> Array:
            return chained(parts, names, {**held, LATENT: latent, TIME: np.full(shape, time, np.float32)})[output]

        return run

    def comparisons(
        self, found: Sequence[Arrays], reference: Sequence[Arrays], groups: npt.NDArray[Any]
    ) -> tuple[Comparison, ...]:
        own, wanted = ([one[IMAGE] for one in answers] for answers in (found, reference))
        peak = max(float(max(i.max() for i in wanted) - min(i.min() for i in wanted)), 1e-6)
        return (ImageComparison("teacher image", own, wanted, peak, groups),)
