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
from rsedge.runtimes.wholes.base import Parts, Whole, WholeSettings, chain_inputs, chained, with_batch

MASKS, QUALITY, LABELS = "masks", "quality", "labels"
NOTHING = -1
"""Labels a point that is none."""
EMPTY = -1.0
"""Logits of a mask of nothing."""


class PromptedMasks(Whole[WholeSettings]):
    """Parts one after the other, of which the last gives ``masks`` (1, P, 1, H, W) or (1, P, H, W), logits, and perhaps
    ``quality`` (1, P, 1) and more."""

    task = "instances"

    def inputs(self, parts: Parts) -> Tensors:
        last = self.parts[-1]
        if MASKS not in parts[last].outputs:
            raise RequestError(
                f"parts.{last}: gives {', '.join(parts[last].outputs)}; the last part must give '{MASKS}'"
            )
        return chain_inputs(parts, self.parts)

    def run(self, parts: Parts, sample: Mapping[str, Array]) -> Arrays:
        """``masks`` (P, H, W) and the other outputs of the last part; a prompt whose points are all none has an empty mask, so that
        what fills a sample up does not count as agreement."""
        embedded = chained(parts, self.parts[:-1], with_batch(sample))
        found = self.decoded(parts, embedded)
        if LABELS in sample:
            found[MASKS][(np.asarray(sample[LABELS]) == NOTHING).all(-1)] = EMPTY
        return found

    def decoded(self, parts: Parts, embedded: Mapping[str, Array]) -> Arrays:
        """As :meth:`run`, from what the parts before the last gave: an image is embedded once for all its prompts."""
        last = parts[self.parts[-1]]
        found = {name: value[0] for name, value in last({tensor: embedded[tensor] for tensor in last.inputs}).items()}
        masks = found[MASKS]
        return {**found, MASKS: masks.reshape(masks.shape[0], *masks.shape[-2:]).copy()}

    def comparisons(
        self, found: Sequence[Arrays], reference: Sequence[Arrays], groups: npt.NDArray[Any]
    ) -> tuple[Comparison, ...]:
        own, wanted = (np.stack([one[MASKS] for one in answers]) for answers in (found, reference))
        return (mask_comparison(own, wanted, groups),)
