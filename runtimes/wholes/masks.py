"""Masks of what prompts point at: an encoder, run once an image, and a decoder, run on its embedding with prompts (SAM)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import RequestError
from rsedge.data.metrics.comparison import Comparison
from rsedge.data.metrics.parts import mask_comparison
from rsedge.runtimes.parts import Tensors
from rsedge.runtimes.session import Array, Arrays
from rsedge.runtimes.wholes.base import Chain, PartTensors, RunPart, WholeSettings

MASKS, QUALITY = "masks", "quality"


class PromptedMasks(Chain[WholeSettings]):
    """The last part gives ``masks`` (1, P, 1, H, W) or (1, P, H, W), logits, and perhaps ``quality`` (1, P, 1)."""

    task = "instances"

    def inputs(self, parts: Mapping[str, PartTensors]) -> Tensors:
        last = self.parts[-1]
        if MASKS not in parts[last].outputs:
            raise RequestError(f"parts.{last}: gives {', '.join(parts[last].outputs)}; the last part must give '{MASKS}'")
        return super().inputs(parts)

    def run(self, part: RunPart, sample: Mapping[str, Array]) -> Arrays:
        """``masks`` (P, H, W) and the other outputs of the last part."""
        found = super().run(part, sample)
        masks = found[MASKS]
        return {**found, MASKS: masks.reshape(masks.shape[0], *masks.shape[-2:])}

    def comparisons(
        self, found: Sequence[Arrays], reference: Sequence[Arrays], groups: npt.NDArray[Any]
    ) -> tuple[Comparison, ...]:
        own, wanted = (np.stack([one[MASKS] for one in answers]) for answers in (found, reference))
        return (mask_comparison(own, wanted, groups),)
