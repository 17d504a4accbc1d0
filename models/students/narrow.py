"""Narrower and shallower copies of a teacher: its own family built with smaller arguments, started from its weights.

How the start is taken (after Xu et al. 2024, "Initializing Models with Larger Ones", with strength instead of even spacing):

- **Layers.** Where the copy has fewer blocks than the teacher, its blocks are the teacher's at even distances, first and last
  among them.
- **Channels.** Where an axis is shorter, the strongest positions stay, in their order. For every pair of lengths (say 768 to
  384) there is one choice, made of the sum of squares over all weights that have that axis: so layers that write to and read
  from the same features keep the same ones. Axes three times as long hold query, key and value, and keep three times that choice.
- Attention heads are not kept whole: where their number or width changes, a head of the copy mixes channels of several.

Tensors whose axes do not fit in this way stay as they were drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rsedge.data.errors import RequestError
from rsedge.models.teachers import Teacher

Lengths = tuple[int, int]


def narrow_arguments(teacher: Teacher, options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of :func:`.itself.rebuild`: the teacher's own under ``options["arch"]``.

    Raises:
        RequestError: ``arch`` is missing, or something else is given.
    """
    row = teacher.spec
    smaller = options.get("arch")
    if set(options) != {"arch"} or not isinstance(smaller, Mapping) or not smaller:
        raise RequestError(
            f"student narrow-copy takes arch alone, the arguments that are smaller than {row.name}'s, "
            f"e.g. arch: {{depth: 2}}; {row.name} has {dict(teacher.arch) or 'the defaults of its family'}"
        )
    return {"family_name": row.family, "arch": {**teacher.arch, **smaller}}


@torch.no_grad()
def start_from(net: nn.Module, teacher: nn.Module) -> dict[str, int]:
    """Fills ``net`` from ``teacher`` as far as shapes allow, in place; says how many tensors were taken how.

    Returns:
        ``{"whole", "narrowed", "drawn"}``: tensors copied as they are, cut to the strongest channels, left as drawn.
    """
    large, small = teacher.state_dict(), net.state_dict()
    origin = _origins(list(small), list(large))
    pairs = {name: (large[source], small[name]) for name, source in origin.items() if source in large}
    kept = _strongest(pairs)
    counts = {"whole": 0, "narrowed": 0, "drawn": len(small) - len(pairs)}
    for name, (big, own) in pairs.items():
        cut = _cut(big, own.shape, kept)
        if cut is None:
            counts["drawn"] += 1
            continue
        counts["whole" if big.shape == own.shape else "narrowed"] += 1
        small[name].copy_(cut)
    return counts


def _origins(small: Sequence[str], large: Sequence[str]) -> dict[str, str]:
    """Name in the copy -> name in the teacher; numbered blocks at even distances where there are fewer."""
    short, long = _counts(small), _counts(large)
    found = {}
    for name in small:
        own, parts = name.split("."), name.split(".")
        for i, part in enumerate(own):
            n, m = short.get(".".join(own[:i]), 0), long.get(".".join(parts[:i]), 0)
            if part.isdigit() and n < m:
                parts[i] = str(round(int(part) * (m - 1) / (n - 1)) if n > 1 else 0)
        found[name] = ".".join(parts)
    return found


def _counts(names: Sequence[str]) -> dict[str, int]:
    """Folder -> how many numbered entries it has."""
    last: dict[str, int] = {}
    for name in names:
        parts = name.split(".")
        for i, part in enumerate(parts):
            if part.isdigit():
                folder = ".".join(parts[:i])
                last[folder] = max(last.get(folder, -1), int(part))
    return {folder: number + 1 for folder, number in last.items()}


def _strongest(pairs: Mapping[str, tuple[Tensor, Tensor]]) -> dict[Lengths, Tensor]:
    """(Teacher's length, copy's length) of an axis -> the positions that stay, ascending."""
    strength: dict[Lengths, Tensor] = {}
    for big, own in pairs.values():
        if big.ndim != own.ndim or not big.is_floating_point():
            continue
        for axis, lengths in enumerate(zip(big.shape, own.shape, strict=True)):
            if lengths[0] > lengths[1]:
                found = big.double().square().movedim(axis, 0).flatten(1).sum(1) if big.ndim > 1 else big.double() ** 2
                strength[lengths] = strength[lengths] + found if lengths in strength else found
    parts = {k: (k[0] // 3, k[1] // 3) for k in strength if k[0] % 3 == k[1] % 3 == 0}
    kept = {k: _top(v, k[1]) for k, v in strength.items() if parts.get(k) not in strength}
    for lengths, part in parts.items():
        if part in kept and lengths not in kept:
            kept[lengths] = torch.cat([kept[part] + i * part[0] for i in range(3)])
    return kept


def _top(strength: Tensor, count: int) -> Tensor:
    # A stable sort, so that ties are broken alike everywhere.
    return strength.sort(descending=True, stable=True).indices[:count].sort().values


def _cut(big: Tensor, shape: Sequence[int], kept: Mapping[Lengths, Tensor]) -> Tensor | None:
    """A teacher's tensor at the copy's shape, or None where that cannot be."""
    if big.ndim != len(shape):
        return None
    for axis, lengths in enumerate(zip(big.shape, shape, strict=True)):
        if lengths[0] == lengths[1]:
            continue
        if lengths not in kept or axis > 2 or (big.ndim > 3 and axis > 1):  # kernels are not cut
            return None
        big = big.index_select(axis, kept[lengths])
    return big
