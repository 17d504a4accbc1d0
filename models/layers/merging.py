"""Token merging: in each block of a transformer a fixed number of tokens joins the ones that are most like them.

Source: Bolya et al. 2023, "Token Merging: Your ViT But Faster" (arXiv 2210.09461). Between attention and MLP the tokens are split
in two sets by turns; each of the first finds its most similar in the second by the cosine of their keys (mean over heads), and the
``count`` closest pairs become one token each, the mean weighted by how many first tokens they stand for. Attention adds the
logarithm of that number to the scores (proportional attention).

Counts are fixed, so all shapes of the graph are. Behind the last block every first token takes the value of the one it went
into: what comes out has the shape and order of what went in, so heads, dense ones too, and means over tokens stay as they are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from timm.models.vision_transformer import Attention as TimmAttention
from timm.models.vision_transformer import Block as TimmBlock
from torch import Tensor, nn

from rsedge.data.errors import RequestError
from rsedge.models.layers.attention import attend_by_products, parted, split
from rsedge.models.layers.masked_blocks import Attention as OwnAttention
from rsedge.models.layers.masked_blocks import Block as OwnBlock
from rsedge.models.layers.narrow_attention import NarrowAttention

APART = 4.0
"""Taken from the similarity (-1 to 1) of tokens that stay as they are."""
BLOCKS = (TimmBlock, OwnBlock)
"""Pre-norm blocks: attention, then an MLP, each added to its input."""
LONGEST = 1 << 20
"""Tokens that a row never has."""
Parts = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Merged:
    """Tokens (N, M, C) that stand for others.

    Attributes:
        sizes: (N, M, 1) how many first tokens each stands for.
        place: (N, L) where each first token lies now.
    """

    tokens: Tensor
    sizes: Tensor
    place: Tensor

    @classmethod
    def of(cls, tokens: Tensor) -> Merged:
        """Each for itself."""
        place = torch.arange(int(tokens.shape[1]), device=tokens.device).expand(int(tokens.shape[0]), -1)
        return cls(tokens, torch.ones_like(tokens[..., :1]), place)

    def unmerged(self) -> Tensor:
        """(N, L, C): every first token with the value of the one it went into."""
        return _taken(self.tokens, self.place)


def merge(now: Merged, keys: Tensor, count: int, kept: int) -> Merged:
    """Merges ``count`` tokens.

    Args:
        keys: (N, M, D) what likeness goes by.
        count: at most :func:`most`.
        kept: tokens at the head of the row that nothing joins and that join nothing, such as a class token.
    """
    first, second = keys[:, ::2], keys[:, 1::2]
    # Plain numbers: a traced graph then holds what follows from them as constants.
    joining, joined = int(first.shape[1]), int(second.shape[1])
    likeness = _unit(first) @ _unit(second).transpose(1, 2) - _held(joining, joined, kept).to(keys)
    best, to = likeness.max(-1)
    order = best.argsort(dim=-1, descending=True)
    gone, stays = order[:, :count], order[:, count:]

    one_of = torch.arange(joined, device=keys.device)[None, :, None] == to.gather(1, gone)[:, None]

    def summed(values: Tensor) -> Tensor:
        given, taking = values[:, ::2], values[:, 1::2]
        return torch.cat([_taken(given, stays), taking + one_of.to(values) @ _taken(given, gone)], 1)

    sizes = summed(now.sizes)
    tokens = summed(now.tokens * now.sizes)

    rank, staying = order.argsort(dim=-1), joining - count
    went = torch.where(rank < count, to + staying, rank - count)
    others = torch.arange(staying, staying + joined, device=keys.device).expand(int(keys.shape[0]), -1)
    new = torch.cat([went, others], 1)
    place = new.gather(1, now.place // 2 + now.place % 2 * joining)
    return Merged(tokens / sizes, sizes, place)


def most(length: int, kept: int) -> int:
    """Tokens that can be merged at once, of ``length``: each of the first set that is not kept, where the second has one left."""
    return max(0, (length + 1) // 2 - (kept + 1) // 2) if length // 2 > kept // 2 else 0


def _unit(keys: Tensor) -> Tensor:
    return keys / keys.norm(dim=-1, keepdim=True).clamp_min(1e-6)


def _held(joining: int, joined: int, kept: int) -> Tensor:
    """(joining, joined): what is taken from the likeness of pairs that must not be."""
    rows = torch.arange(joining)[:, None] * 2 < kept
    columns = torch.arange(joined)[None] * 2 + 1 < kept
    return (rows | columns) * APART


def _taken(tokens: Tensor, index: Tensor) -> Tensor:
    """Tokens (N, M, C) at ``index`` (N, K) -> (N, K, C)."""
    if int(tokens.shape[0]) == 1:  # as on board: whole rows are copied, without an index for each number
        return tokens.index_select(1, index[0])
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))


class MergedBlocks(nn.Sequential):
    """Blocks in a row, (N, L, C) -> the same, that merge tokens on the way.

    Args:
        blocks: by name; each of :data:`BLOCKS` whose count is not 0.
        counts: tokens that each of them merges.
        kept: see :func:`merge`.
    """

    def __init__(self, blocks: Mapping[str, nn.Module], counts: Sequence[int], kept: int = 1) -> None:
        super().__init__(OrderedDict(blocks))
        self.counts, self.kept = tuple(counts), kept

    def structure_entry(self) -> dict[str, Any]:
        """What ``structure.json`` says of it; :func:`merged_blocks` puts it in place again."""
        return {"kind": "merged", "counts": list(self.counts), "kept": self.kept}

    def forward(self, x: Tensor) -> Tensor:
        now: Merged | None = None
        for block, count in zip(self, self.counts, strict=True):
            if now is None and not count:
                x = block(x)
                continue
            now = _through(block, Merged.of(x) if now is None else now, count, self.kept)
        return x if now is None else now.unmerged()


def _through(block: Any, now: Merged, count: int, kept: int) -> Merged:
    """A block, with a merge between its halves; one that cannot merge takes the tokens as they are now."""
    if not can_merge(block):
        return Merged(block(now.tokens), now.sizes, now.place)
    attention = block.attn
    q, k, v = _PARTS[type(attention)](attention, block.norm1(now.tokens))
    # Written out: torch's exporter takes the result of its own attention for another layout where scores have a bias.
    bias = now.sizes.log().transpose(1, 2)[:, None]
    out = attention.proj(attend_by_products(q, k, v, attention.scale, bias))
    now = Merged(now.tokens + _scaled(block, 1, out), now.sizes, now.place)
    if count > (room := most(int(now.tokens.shape[1]), kept)):
        raise RequestError(
            f"structure: {count} tokens are to be merged in one block, where {room} can be; the counts are not its own"
        )
    if count:
        now = merge(now, k.mean(1), count, kept)
    return Merged(now.tokens + _scaled(block, 2, block.mlp(block.norm2(now.tokens))), now.sizes, now.place)


def _scaled(block: Any, number: int, out: Tensor) -> Tensor:
    """What a half of a block adds, with the layer scale and stochastic depth that timm's blocks have."""
    for name in (f"ls{number}", f"drop_path{number}"):
        layer = getattr(block, name, None)
        out = out if layer is None else layer(out)
    return out


def _timm(attention: Any, x: Tensor) -> Parts:
    parts = parted(attention.qkv(x), attention.qkv, attention.proj.in_features)
    q, k, v = (split(part, attention.num_heads) for part in parts)
    return attention.q_norm(q), attention.k_norm(k), v


def _own(attention: Any, x: Tensor) -> Parts:
    values = attention.proj.in_features
    parts = (
        parted(attention.qkv(x), attention.qkv, values)
        if attention.fused
        else (attention.q(x), attention.k(x), attention.v(x))
    )
    q, k, v = (split(part, attention.heads) for part in parts)
    return q, k, v


_PARTS: Mapping[type[nn.Module], Callable[[Any, Tensor], Parts]] = {
    TimmAttention: _timm,
    NarrowAttention: _timm,
    OwnAttention: _own,
}
"""How query, key and value (N, heads, L, C / heads) are read of each kind of attention, all of which have a ``scale``."""


def can_merge(block: nn.Module) -> bool:
    """Whether :class:`MergedBlocks` computes what a block does, dropout apart."""
    if type(block) not in BLOCKS or type(block.attn) not in _PARTS:
        return False
    attention: Any = block.attn
    normed = not isinstance(getattr(attention, "norm", nn.Identity()), nn.Identity)
    return not normed and getattr(attention, "gate", None) is None


def merged_blocks(blocks: nn.Module, entry: Mapping[str, Any]) -> MergedBlocks:
    """What an entry of ``structure.json`` says, of blocks in a row.

    Raises:
        ValueError: they are no such blocks, or the counts are not theirs.
    """
    counts, kept = entry["counts"], entry["kept"]
    numbers = [kept, *counts] if isinstance(counts, list) else []
    if not numbers or not all(type(n) is int and 0 <= n < LONGEST for n in numbers):
        raise ValueError(f"counts and kept must be whole numbers from 0 on, not {counts} and {kept}")
    named = dict(blocks.named_children())
    if not isinstance(blocks, nn.Sequential) or len(named) != len(counts):
        raise ValueError(f"{len(counts)} counts are for as many blocks in a row, not for {type(blocks).__name__}")
    if wrong := [
        name for (name, block), count in zip(named.items(), counts, strict=True) if count and not can_merge(block)
    ]:
        raise ValueError(f"blocks {wrong} are none that merge tokens")
    return MergedBlocks(named, counts, kept)
