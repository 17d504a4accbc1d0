"""Channels that can only be removed together, found by tracing (DepGraph) or by an adapter, and their removal.

A residual sum, a skip concatenation or a depthwise convolution ties the channels of several layers: removing one means
removing its partners. Convolutional networks are traced with torch-pruning's dependency graph (Fang et al., "DepGraph:
Towards Any Structural Pruning", CVPR 2023). Attention networks are not left to generic tracing: see
:mod:`rsedge.compress.prune.blocks`.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch
import torch_pruning as tp
from torch import Tensor, nn

from rsedge.data.errors import RequestError
from rsedge.models.layers.narrow_attention import follow_widths
from rsedge.models.structure import set_heads

Example: TypeAlias = "Tensor | tuple[Tensor, ...]"
"""The inputs of one forward pass: the only one, or all in order."""
Side = Literal["out", "in", "both", "param", "heads"]
Kind = Literal["channels", "heads", "head-dims", "units", "width"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""What a root channel is: a channel of convolutions, a head, a dimension of all heads of an attention, a hidden unit of an MLP, a
channel of the stream between blocks."""
Crossed = dict[tuple[str, ...], float]
"""Groups -> positions of one side of a layer for each product of their root channels: one group, or those that cross, as heads and
dimensions of heads do."""
Removal = dict[str, list[int]]
"""Group name -> root channels to remove."""

_Conv = nn.modules.conv._ConvNd
_BatchNorm = nn.modules.batchnorm._NormBase


@dataclass(frozen=True)
class Member:
    """One layer of a group: position ``index[i]`` of ``side`` of ``layer`` goes with root channel ``root[i]``.

    For ``param`` the layer is a bare parameter, for ``heads`` the attribute that counts a module's heads.
    """

    layer: str
    side: Side
    index: tuple[int, ...]
    root: tuple[int, ...]
    dim: int = 0


@dataclass(frozen=True)
class ChannelGroup:
    """``channels`` root channels that are removed in all ``members`` at once; ``blocked`` says why they cannot be.

    ``name`` is the first layer that produces them (a second group of it says more), ``through`` the kinds of operations that tie
    the members, ``unit`` how many positions in a row one root channel stands for (64 where it is a head of width 64).
    """

    name: str
    channels: int
    members: tuple[Member, ...]
    through: tuple[str, ...] = ()
    blocked: str | None = None
    unit: int = 1
    kind: Kind = "channels"

    def rounding(self, round_to: int) -> int:
        """Root channels in which to prune, so that layers stay multiples of ``round_to`` positions or above."""
        return max(1, -(-round_to // self.unit))


_SHRINKS: Mapping[Side, tuple[Literal["in", "out"], ...]] = {
    "in": ("in",),
    "out": ("out",),
    "both": ("in", "out"),
    "param": ("out",),
}


def crossed_positions(groups: Iterable[ChannelGroup]) -> dict[tuple[str, Literal["in", "out"]], Crossed]:
    """Layer and side -> what of its positions goes with which groups; those that stay are left out."""
    owners: dict[tuple[str, Literal["in", "out"]], dict[int, tuple[str, ...]]] = defaultdict(dict)
    channels = {}
    for group in groups:
        channels[group.name] = group.channels
        for m in group.members:
            for side in _SHRINKS.get(m.side, ()):
                of = owners[m.layer, side]
                of.update({i: (*of.get(i, ()), group.name) for i in m.index})
    return {
        key: {names: count / math.prod(channels[n] for n in names) for names, count in Counter(of.values()).items()}
        for key, of in owners.items()
    }


def positions_left(crossed: Crossed, kept: Mapping[str, Any]) -> Any:
    """Positions that go with some groups, of which ``kept[group]`` root channels are left (numbers, or an array of one group's)."""
    return sum(share * math.prod(kept[n] for n in names) for names, share in crossed.items())


@dataclass(frozen=True)
class AttentionGroups:
    """What may go of one attention: heads of the module ``owner``, and dimensions of them where these can go.

    Widths are those of a head.
    """

    owner: str
    heads: ChannelGroup
    queries: ChannelGroup | None
    values: ChannelGroup | None

    @property
    def query_width(self) -> int:
        return self.queries.channels if self.queries else self.heads.unit

    @property
    def value_width(self) -> int:
        return self.values.channels if self.values else self.heads.unit


def attentions(groups: Sequence[ChannelGroup]) -> list[AttentionGroups]:
    """Every attention whose heads make a group, in their order."""
    dims: dict[tuple[str, bool], ChannelGroup] = {
        (g.members[0].layer, any(m.side == "in" for m in g.members)): g for g in groups if g.kind == "head-dims"
    }
    return [
        AttentionGroups(m.layer.rpartition(".")[0], g, dims.get((g.name, False)), dims.get((g.name, True)))
        for g in groups
        for m in g.members
        if m.side == "heads"
    ]


def is_attention_network(module: nn.Module) -> bool:
    """Whether some layer's class is an attention (timm ``Attention``, ``WindowAttention``...)."""
    return any("attention" in type(m).__name__.lower() and _has_linear(m) for m in module.modules())


def _has_linear(module: nn.Module) -> bool:
    return any(isinstance(m, nn.Linear) for m in module.modules())


def traced_groups(module: nn.Module, example: Example, keep: set[str]) -> list[ChannelGroup]:
    training = {m: m.training for m in module.modules()}
    frozen = [p for p in module.parameters() if not p.requires_grad]
    try:
        for p in frozen:  # the tracer follows grad_fn
            p.requires_grad_(True)
        with torch.enable_grad():
            graph = tp.DependencyGraph().build_dependency(
                module, example_inputs=example, forward_fn=_through_layers, verbose=False
            )
        found = list(graph.get_all_groups(root_module_types=[nn.modules.conv._ConvNd, nn.Linear]))
    except (RuntimeError, ValueError, KeyError, AttributeError, AssertionError, ArithmeticError) as error:
        raise RequestError(f"prune: the network cannot be traced for channel groups ({error})") from error
    finally:
        for p in frozen:
            p.requires_grad_(False)
        for m, mode in training.items():
            m.training = mode
    names = {m: n for n, m in module.named_modules()}
    parameters = {p: n for n, p in module.named_parameters()}
    groups = [_from_traced(group, graph, names, parameters, keep) for group in found]
    order = {n: i for i, n in enumerate(names.values())}
    return sorted(groups, key=lambda g: order.get(g.name, len(order)))


def _through_layers(module: nn.Module, example: Example) -> Any:
    """A forward pass, up to where its last layers stand.

    Decoding splits channels and joins places, and torch-pruning follows each index through all of it without end.
    """
    inputs = (example,) if isinstance(example, Tensor) else example
    return getattr(module, "undecoded", module)(*inputs)


def _from_traced(
    group: Any, graph: Any, names: Mapping[nn.Module, str], parameters: Mapping[nn.Parameter, str], keep: set[str]
) -> ChannelGroup:
    members: list[Member] = []
    through: list[str] = []
    problems: list[str] = []
    for item in group.items:
        target = item.dep.target.module
        is_out = graph.is_out_channel_pruning_fn(item.dep.handler)
        if isinstance(target, nn.Parameter):
            dim = next(u.pruning_dim for u in graph.unwrapped_parameters if u.parameters is target)
            members.append(Member(parameters[target], "param", tuple(item.idxs), tuple(item.root_idxs), dim))
        elif target in names:
            side, problem = _side(target, is_out)
            members.append(Member(names[target], side, tuple(item.idxs), tuple(item.root_idxs)))
            problems += [f"{names[target]}: {problem}"] if problem else []
            if names[target] in keep and side != "in":
                problems.append(f"{names[target]}: ignored by the recipe")
        else:
            through.append(str(item.dep.target.name).split("_", 2)[1].split("(")[0])
            if "OutputOp" in type(target).__name__:
                problems.append("its channels are the model's output")
    members = _merged(members)
    if not any(m.side == "in" for m in members):  # a last linear layer has no output operation of its own
        problems.append("no layer reads its channels, so they are the model's output")
    producers = [m.layer for m in members if m.side in ("out", "both")]
    order = {n: i for i, n in enumerate(names.values())}
    name = min(producers, key=lambda n: order.get(n, len(order)))
    channels = len({r for m in members for r in m.root if r is not None})
    problems += _index_problems(members, channels)
    unique = tuple(dict.fromkeys(through))
    return ChannelGroup(name, channels, tuple(members), unique, "; ".join(dict.fromkeys(problems)) or None)


def _side(layer: nn.Module, is_out: bool) -> tuple[Side, str | None]:
    """Which dimension of the layer shrinks, and what speaks against it."""
    if isinstance(layer, _Conv):
        if layer.groups == 1:
            return ("out" if is_out else "in"), None
        if layer.groups == layer.in_channels == layer.out_channels:
            return "both", None
        return ("out" if is_out else "in"), f"grouped convolution ({layer.groups} groups)"
    if isinstance(layer, nn.Linear):
        return ("out" if is_out else "in"), None
    if isinstance(layer, nn.GroupNorm):
        return "both", None if layer.num_groups == 1 else f"group norm ({layer.num_groups} groups)"
    if isinstance(layer, nn.LayerNorm):
        return "both", None if len(layer.normalized_shape) == 1 else "layer norm over several axes"
    if isinstance(layer, _BatchNorm):
        return "both", None
    return "both", f"layers of type {type(layer).__name__} are not known to the pruner"


def _merged(members: list[Member]) -> list[Member]:
    """One member per layer and side (tracing visits depthwise layers once per side)."""
    seen: dict[tuple[str, Side], dict[int, int]] = {}
    dims: dict[str, int] = {}
    for member in members:
        pairs = seen.setdefault((member.layer, member.side), {})
        for index, root in zip(member.index, member.root, strict=True):
            pairs.setdefault(index, root)
        dims[member.layer] = member.dim
    return [
        Member(layer, side, tuple(pairs), tuple(pairs.values()), dims[layer]) for (layer, side), pairs in seen.items()
    ]


def _index_problems(members: list[Member], channels: int) -> list[str]:
    for member in members:
        if any(r is None or not 0 <= r < channels for r in member.root):
            return [f"{member.layer}: its channels could not be followed to their root"]
        if len(member.index) % channels or len(set(member.root)) != channels:
            return [f"{member.layer}: only part of its channels belong to the group"]
    return []


def explain_groups(groups: Iterable[ChannelGroup]) -> str:
    """Why channels are coupled, as text for people: one paragraph per group."""
    lines = []
    for group in groups:
        state = f"stays: {group.blocked}" if group.blocked else "can be pruned"
        lines.append(f"{group.name}: {group.channels} channels, {state}")
        made = [m.layer for m in group.members if m.side == "out" or (m.side == "param")]
        follow = [m.layer for m in group.members if m.side == "both"]
        read = [m.layer for m in group.members if m.side == "in"]
        if len(made) > 1:
            lines.append(f"  made together by {', '.join(made)} (their outputs meet in {', '.join(group.through)})")
        if follow:
            lines.append(f"  channel by channel: {', '.join(follow)}")
        if read:
            lines.append(f"  read by {', '.join(read)}")
    return "\n".join(lines)


@torch.no_grad()
def remove_channels(module: nn.Module, groups: Iterable[ChannelGroup], removal: Mapping[str, Iterable[int]]) -> None:
    """Removes root channels from all members of their groups, in place; tensors are sliced, values are not changed.

    Raises:
        RequestError: a group is unknown or blocked, or nothing of it would be left.
    """
    by_name = {g.name: g for g in groups}
    gone: dict[tuple[str, Side, int], set[int]] = defaultdict(set)
    for name, channels in removal.items():
        roots = set(channels)
        if name not in by_name:
            raise RequestError(f"prune: there is no channel group '{name}'")
        group = by_name[name]
        if group.blocked or len(roots) >= group.channels or not roots <= set(range(group.channels)):
            raise RequestError(f"prune: group '{name}' cannot lose {len(roots)} of {group.channels} channels")
        for m in group.members:
            gone[m.layer, m.side, m.dim] |= {i for i, r in zip(m.index, m.root, strict=True) if r in roots}
    for (layer, side, dim), indices in gone.items():
        if indices:
            _slice(module, layer, side, dim, indices)
    follow_widths(module)


def _slice(module: nn.Module, name: str, side: Side, dim: int, gone: set[int]) -> None:
    owner, _, key = name.rpartition(".")
    if side == "heads":
        set_heads(module.get_submodule(owner), key, getattr(module.get_submodule(owner), key) - len(gone))
        return
    if side == "param":
        _keep(module.get_submodule(owner), key, dim, gone)
        return
    layer = module.get_submodule(name)
    if isinstance(layer, _Conv):
        _slice_conv(layer, side, gone)
    elif isinstance(layer, nn.Linear):
        _keep(layer, "weight", 1 if side == "in" else 0, gone)
        if side == "out":
            _keep(layer, "bias", 0, gone)
        layer.out_features, layer.in_features = layer.weight.shape
    else:
        for key in ("weight", "bias", "running_mean", "running_var"):
            _keep(layer, key, 0, gone)
        _shrink_norm(layer, len(gone))


def _slice_conv(layer: _Conv, side: Side, gone: set[int]) -> None:
    if side == "both":  # depthwise: one filter per channel
        layer.groups -= len(gone)
    in_dim, out_dim = (0, 1) if layer.transposed else (1, 0)
    if side == "in":
        _keep(layer, "weight", in_dim, gone)
    else:
        _keep(layer, "weight", 0 if side == "both" else out_dim, gone)
        _keep(layer, "bias", 0, gone)
    layer.in_channels -= len(gone) if side in ("in", "both") else 0
    layer.out_channels -= len(gone) if side in ("out", "both") else 0


def _shrink_norm(layer: nn.Module, count: int) -> None:
    if isinstance(layer, _BatchNorm):
        layer.num_features -= count
    elif isinstance(layer, nn.GroupNorm):
        if layer.num_groups > 1:  # whole groups go, those left keep their size
            layer.num_groups -= count // (layer.num_channels // layer.num_groups)
        layer.num_channels -= count
    elif isinstance(layer, nn.LayerNorm):
        layer.normalized_shape = (layer.normalized_shape[0] - count,)


def _keep(layer: nn.Module, key: str, dim: int, gone: set[int]) -> None:
    old = getattr(layer, key, None)
    if old is None:
        return
    kept = torch.tensor([i for i in range(old.shape[dim]) if i not in gone], dtype=torch.long, device=old.device)
    new = old.detach().index_select(dim, kept).clone()
    setattr(layer, key, nn.Parameter(new, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else new)
