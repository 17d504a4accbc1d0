"""A language model whose MLPs are chosen by one number for the whole text, as that many dense models.

RSUniVLM (Liu & Lian 2024) has three MLPs in every layer, ``mlp.0`` to ``mlp.2``, one per granularity (image, region, pixel).
The choice never changes within a text, so each granularity is a plain Qwen2 with weights of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

from rsedge.data.errors import RequestError

T = TypeVar("T")
_EXPERT = re.compile(r"(?P<before>.*\.layers\.\d+\.mlp\.)(?P<number>\d+)\.(?P<after>.+)")


def experts(state: Mapping[str, T]) -> list[int]:
    """Numbers of the experts; empty for a plain language model."""
    return sorted({int(found["number"]) for name in state if (found := _EXPERT.match(name))})


def dense_of(state: Mapping[str, T], expert: int) -> dict[str, T]:
    """The entries of the dense model of one expert, under the names of the plain architecture.

    Raises:
        RequestError: there are no experts, or not that one.
    """
    numbers = experts(state)
    if expert not in numbers:
        raise RequestError(
            f"expert {expert} is not there; the checkpoint has {numbers or 'none (no layers.N.mlp.E names)'}"
        )
    dense = {}
    for name, value in state.items():
        found = _EXPERT.match(name)
        if found is None:
            dense[name] = value
        elif int(found["number"]) == expert:
            dense[found["before"] + found["after"]] = value
    return dense
