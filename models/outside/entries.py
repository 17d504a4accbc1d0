"""Modules that give a dictionary: torchvision's segmenters (``out``, ``aux``), transformers' networks (``logits``, ...)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from rsedge.data.errors import RequestError

KNOWN = ("logits", "out")
"""What libraries call the scores of the classes."""


class Entry(nn.Module):
    """One entry of what a module gives; networks with auxiliary heads give a tensor when these rest, in evaluation."""

    def __init__(self, net: nn.Module, key: str) -> None:
        super().__init__()
        self.net, self.key = net, key

    def forward(self, x: Tensor) -> Tensor:
        found: Any = self.net(x)
        logits: Tensor = found if isinstance(found, Tensor) else found[self.key]
        return logits


def giving_logits(net: nn.Module, found: Any, name: str) -> nn.Module:
    """``net``, or its entry of logits where ``found``, what it gives, is a dictionary that has one.

    Raises:
        RequestError: it gives something else than a tensor, without such an entry; says what to wrap it in.
    """
    if isinstance(found, Tensor):
        return net
    if isinstance(found, Mapping) and (key := next((k for k in KNOWN if isinstance(found.get(k), Tensor)), None)):
        return Entry(net, key)
    entries = f" of {', '.join(map(repr, found)) or 'nothing'}" if isinstance(found, Mapping) else ""
    raise RequestError(
        f"'{name}' gives a {type(found).__name__}{entries}; rsedge takes a tensor, or a dictionary with "
        f"{' or '.join(repr(k) for k in KNOWN)}: wrap it in a module whose forward gives the tensor of its logits"
    )
