"""What a network could be instead: cheap activations in place of smooth ones, tokens merged on the way through its blocks."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rsedge.models.layers.activations import smooth_activations
from rsedge.models.structure import replace_layers

Entries = Mapping[str, Mapping[str, Any]]
"""Layer -> what replaces it, as :func:`rsedge.models.structure.replace_layers` takes it."""
LEAST_BLOCKS = 2


@dataclass(frozen=True)
class Candidate:
    """Replacements that are tried together.

    Attributes:
        words: what they are, for the report.
    """

    words: str
    entries: Entries

    def of(self, net: nn.Module) -> nn.Module:
        """A copy of the network with them."""
        return replace_layers(copy.deepcopy(net), self.entries)


def with_activations(net: nn.Module, kinds: Sequence[str]) -> list[Candidate]:
    """A candidate per kind, all SiLU and GELU layers replaced by it; none where there are none."""
    names = smooth_activations(net)
    return [Candidate(f"{kind} in {len(names)} layers", {n: {"kind": kind} for n in names}) for kind in kinds if names]


def with_merged_tokens(net: nn.Module, example: Tensor, shares: Sequence[float]) -> list[Candidate]:
    """A candidate per share of the tokens that are gone behind the last block, as many in each block.

    Args:
        example: an input (1, ...) on the network's device.
    """
    rows = list(_rows(net, example))
    found: list[Candidate] = []
    for share in shares:
        entries = {row.name: row.entry(share) for row in rows}
        counts = [count for entry in entries.values() for count in entry["counts"]]
        if any(counts) and all(entries != one.entries for one in found):
            words = f"{sum(counts)} of {sum(row.length for row in rows)} tokens merged, {max(counts)} a block"
            found.append(Candidate(words, entries))
    return found


@dataclass(frozen=True)
class _Row:
    """Blocks in a row that can merge, tokens that go through them, and how many at the head of these stay apart."""

    name: str
    merge: tuple[bool, ...]
    length: int
    kept: int

    def entry(self, share: float) -> dict[str, Any]:
        """Tokens merged evenly, until ``1 - share`` of them are left, and in no block more than it can."""
        from rsedge.models.layers.merging import most

        wanted, left, counts, passed = share * (self.length - self.kept), self.length, [], 0
        for can in self.merge:
            passed += can
            due = round(wanted * passed / sum(self.merge)) - (self.length - left)
            counts.append(min(due, most(left, self.kept)) if can else 0)
            left -= counts[-1]
        return {"kind": "merged", "counts": counts, "kept": self.kept}


def _rows(net: nn.Module, example: Tensor) -> Iterator[_Row]:
    """Rows of blocks through which the network sends tokens as one; where it goes block by block on its own, merged tokens would be
    seen from outside."""
    from rsedge.models.layers.merging import can_merge

    chains = {n: m for n, m in net.named_modules() if type(m) is nn.Sequential and _chained(m)}
    lengths: dict[str, int] = {}
    handles = [chain.register_forward_hook(_listener(lengths, name)) for name, chain in chains.items()]
    try:
        with torch.no_grad():
            net(example)
    finally:
        for handle in handles:
            handle.remove()
    for name, length in lengths.items():
        merge = tuple(can_merge(block) for block in chains[name])
        owner = net.get_submodule(name.rpartition(".")[0])
        yield _Row(name, merge, length, int(getattr(owner, "num_prefix_tokens", 1)))


def _chained(blocks: nn.Sequential) -> bool:
    from rsedge.models.layers.merging import can_merge

    return sum(can_merge(block) for block in blocks) >= LEAST_BLOCKS


def _listener(lengths: dict[str, int], name: str) -> Any:
    def hook(_: nn.Module, given: tuple[Any, ...], out: Any) -> None:
        if len(given) == 1 and isinstance(out, Tensor) and out.ndim == 3:
            lengths[name] = out.shape[1]

    return hook
