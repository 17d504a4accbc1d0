"""Channel groups of networks with attention, read off their modules: whole heads, hidden units of MLPs, inner channels.

Generic tracing breaks such networks (head counts, position tables, window reshapes), so nothing is traced here. What goes of the
width between blocks is in :mod:`.widths`; here is what goes inside a block:

- a head: its rows of query, key and value, its columns of the output projection, and what the module keeps per head (Michel
  et al. 2019, "Are sixteen heads really better than one?");
- a dimension of all heads of an attention, of queries and keys together or of values with the projection that reads them, where the
  module runs so (:func:`.narrow_attention.takes_any_width`); scores stay scaled by the width that heads were trained with;
- a hidden unit between two linear layers with nothing between them but element-wise functions, norms and depthwise convolutions,
  gated or not;
- an inner channel of a convolutional block; with group normalisation a whole group, so that the others are normalised as
  before.

Networks whose memory is read in another order than their channels' (``traceable = False``) are pruned in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from torch import nn

from rsedge.compress.prune.groups import ChannelGroup, Member, Side
from rsedge.models.layers.narrow_attention import takes_any_width
from rsedge.models.structure import HEAD_COUNTS

_PROJECTIONS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("qkv",), "proj"),
    (("to_qkv",), "to_out"),
    (("q", "k", "v"), "proj"),
    (("q_proj", "k_proj", "v_proj"), "out_proj"),
    (("to_q", "to_k", "to_v"), "to_out.0"),
    (("to_q", "to_kv"), "proj"),
)
"""Layers that make queries, keys and values, head by head, and the one that reads all heads."""
_PAIRS = (("fc1", "fc2"), ("linear1", "linear2"), ("lin1", "lin2"), ("linear_1", "linear_2"))
_ELEMENTWISE = (nn.GELU, nn.ReLU, nn.SiLU, nn.Identity, nn.Dropout, nn.Tanh, nn.Sigmoid)
_NOT_PER_HEAD = ("norm", "gate")
"""Children of timm's attention that mix or scale all heads at once, where they are switched on."""


def pruned_by_block(module: nn.Module) -> bool:
    """Whether some layer is multi-head attention whose heads can be told apart, or says that it cannot be traced."""
    return any(attention_layout(m) is not None or getattr(m, "traceable", True) is False for m in module.modules())


def block_groups(module: nn.Module, keep: set[str]) -> list[ChannelGroup]:
    """All groups in the order of the modules; those that produce a layer in ``keep`` are blocked."""
    found: dict[str, ChannelGroup] = {}
    for name, layer in module.named_modules():
        prefix = f"{name}." if name else ""
        for group in (*_heads(layer, prefix, name), *_hidden(layer, prefix), *_inner(layer, prefix)):
            found.setdefault(group.name, group)
    return [unless_kept(group, keep) for group in found.values()]


def unless_kept(group: ChannelGroup, keep: set[str]) -> ChannelGroup:
    if not any(m.layer in keep and m.side in ("out", "both") for m in group.members):
        return group
    return replace(group, blocked="ignored by the recipe")


def _linear(layer: nn.Module, name: str) -> nn.Linear | None:
    """The linear layer at a dotted name below ``layer``, None where there is none."""
    found: object = layer
    for part in name.split("."):
        found = found._modules.get(part) if isinstance(found, nn.Module) else None
    return found if isinstance(found, nn.Linear) else None


# -- heads ------------------------------------------------------------------------------------------------------------


def attention_layout(layer: nn.Module) -> tuple[str, tuple[str, ...], str] | None:
    """Name of the head count, of the projections and of the output layer."""
    count = next((key for key in HEAD_COUNTS if type(getattr(layer, key, None)) is int), None)
    if count is None:
        return None
    for projections, out in _PROJECTIONS:
        if _linear(layer, out) is not None and all(_linear(layer, p) is not None for p in projections):
            return count, projections, out
    return None


def _heads(layer: nn.Module, prefix: str, name: str) -> Iterator[ChannelGroup]:
    layout = attention_layout(layer)
    if layout is None:
        return
    count, projections, out = layout
    heads: int = getattr(layer, count)
    last = _linear(layer, out)
    assert last is not None
    width = last.in_features // heads
    runs = _runs(layer, projections, heads, width)
    members = [_whole_heads(prefix + p, [r for r in runs if r.layer == p], heads) for p in projections]
    members.append(_per_head(prefix + out, "in", heads, width, last.in_features))
    members += _beside(layer, prefix, heads, width)
    members.append(Member(f"{prefix}{count}", "heads", tuple(range(heads)), tuple(range(heads))))
    first, stays = prefix + projections[0], _stays(layer)
    yield ChannelGroup(first, heads, tuple(members), ("attention heads",), stays, width, "heads")
    if takes_any_width(layer) and stays is None:
        query, key, value = runs
        scores = tuple(_dims(prefix + r.layer, "out", r.start, r.width, heads) for r in (query, key))
        yield ChannelGroup(
            f"{first} query width", query.width, scores, ("attention scores",), _normed(layer), 1, "head-dims"
        )
        read = _dims(prefix + value.layer, "out", value.start, width, heads), _dims(prefix + out, "in", 0, width, heads)
        yield ChannelGroup(f"{first} value width", width, read, ("values of attention",), None, 1, "head-dims")


@dataclass(frozen=True)
class _Run:
    """Queries, keys or values: the layer that makes them, where they begin there, and how wide a head of them is."""

    layer: str
    start: int
    width: int


def _runs(layer: nn.Module, projections: tuple[str, ...], heads: int, values: int) -> list[_Run]:
    """Queries, keys and values, all heads of one after those of the other; the first two are alike."""
    made = sum(layer.get_submodule(p).get_parameter("weight").shape[0] for p in projections)
    queries = (made // heads - values) // 2
    owners = [projections[0], projections[len(projections) // 2], projections[-1]]
    widths = (queries, queries, values)
    return [
        _Run(owner, heads * sum(w for w, o in zip(widths[:i], owners[:i], strict=True) if o == owner), widths[i])
        for i, owner in enumerate(owners)
    ]


def _whole_heads(name: str, runs: Sequence[_Run], heads: int) -> Member:
    root = [i // run.width for run in runs for i in range(heads * run.width)]
    return Member(name, "out", tuple(range(len(root))), tuple(root))


def _dims(name: str, side: Side, start: int, width: int, heads: int) -> Member:
    """One dimension of every head is a root channel; heads lie one after the other from ``start``."""
    return Member(name, side, tuple(range(start, start + heads * width)), tuple(range(width)) * heads)


def _normed(layer: nn.Module) -> str | None:
    found = next(
        (n for n in ("q_norm", "k_norm") if not isinstance(getattr(layer, n, nn.Identity()), nn.Identity)), None
    )
    return f"its {found} runs over a head's dimensions" if found else None


def _per_head(name: str, side: Side, heads: int, width: int, size: int, dim: int = 0) -> Member:
    """``size`` entries are runs of all heads, ``width`` entries each."""
    return Member(name, side, tuple(range(size)), tuple(i // width % heads for i in range(size)), dim)


def _beside(layer: nn.Module, prefix: str, heads: int, width: int) -> Iterator[Member]:
    """What the module keeps per head beside its projections."""
    for key, _ in layer.named_parameters(recurse=False):
        if key in ("q_bias", "v_bias"):
            yield _per_head(prefix + key, "param", heads, width, heads * width)
        elif key == "relative_position_bias_table":
            yield _per_head(prefix + key, "param", heads, 1, heads, dim=1)
        elif key == "logit_scale":
            yield _per_head(prefix + key, "param", heads, 1, heads)
    for key, child in layer.named_children():
        named = [(n, m) for n, m in child.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        if not named or not (key == "cpb_mlp" or key.startswith("sampling_")):
            continue
        inner, final = named[-1]
        path = f"{prefix}{key}.{inner}" if inner else prefix + key
        made = final.out_features if isinstance(final, nn.Linear) else final.out_channels
        yield _per_head(path, "out", heads, made // heads, made)
        if final is child:  # it reads the queries themselves
            yield _per_head(path, "in", heads, width, heads * width)


def _stays(layer: nn.Module) -> str | None:
    """Why heads cannot go: the module says so (``heads_stay``), or something in it is not kept per head."""
    reason = getattr(layer, "heads_stay", None)
    if isinstance(reason, str):
        return reason
    mixed = [n for n in _NOT_PER_HEAD if isinstance(c := layer._modules.get(n), nn.Module) and [*c.parameters()]]
    # timm's SwinV2 keeps the bias of the keys as a buffer that is made with the module, not with the weights.
    mixed += ["k_bias"] if "k_bias" in layer._buffers else []
    return f"its {mixed[0]} is not kept head by head" if mixed else None


# -- hidden units and inner channels ------------------------------------------------------------------------------------


def _hidden(layer: nn.Module, prefix: str) -> Iterator[ChannelGroup]:
    for first, second in hidden_pairs(layer):
        made, read = _linear(layer, first), _linear(layer, second)
        assert made is not None and read is not None
        units = read.in_features
        whole = tuple(range(units))
        members = [
            _per_head(prefix + first, "out", units, 1, made.out_features),
            Member(prefix + second, "in", whole, whole),
        ]
        inside = _inside_pair(layer, first, second, units) if (first, second) in _PAIRS else {}
        members += [Member(prefix + name, "both", whole, whole) for name in inside]
        strange = next((name for name, child in inside.items() if not _per_unit(child, units)), None)
        blocked = f"{prefix}{strange} mixes its hidden units" if strange else None
        yield ChannelGroup(prefix + first, units, tuple(members), ("MLP hidden units",), blocked, kind="units")


def hidden_pairs(layer: nn.Module) -> list[tuple[str, str]]:
    """Linear layers of an MLP, the one that makes its hidden units and the one that reads them, for each MLP of a module."""
    found = []
    for first, second in dict.fromkeys([*_PAIRS, *_sequential_pairs(layer)]):
        made, read = _linear(layer, first), _linear(layer, second)
        if made is not None and read is not None:
            copies, rest = divmod(made.out_features, read.in_features)
            if not rest and copies == (2 if first.endswith(".proj") else 1):
                found.append((first, second))
    return found


def _inside_pair(layer: nn.Module, first: str, second: str, units: int) -> dict[str, nn.Module]:
    """What has weights of its own between two linear layers: children that are written between them, or a ``norm``."""
    names = list(layer._modules)
    norm = layer._modules.get("norm")
    own = ["norm"] if isinstance(norm, nn.LayerNorm) and norm.normalized_shape == (units,) else []
    between = [*names[names.index(first) + 1 : names.index(second)], *own]
    return {
        f"{name}.{path}" if path else name: child
        for name in dict.fromkeys(between)
        for path, child in layer.get_submodule(name).named_modules()
        if any(True for _ in child.parameters(recurse=False))
    }


def _per_unit(child: nn.Module, units: int) -> bool:
    """Whether a layer has weights for each hidden unit alone: a depthwise convolution, a norm."""
    if isinstance(child, nn.Conv1d | nn.Conv2d):
        return child.groups == child.in_channels == child.out_channels == units
    if isinstance(child, nn.LayerNorm):
        return child.normalized_shape == (units,)
    return isinstance(child, nn.modules.batchnorm._BatchNorm) and child.num_features == units


def _sequential_pairs(layer: nn.Module) -> list[tuple[str, str]]:
    """Neighbouring linear layers of a sequence with element-wise functions between; a gate in front counts as one."""
    if not isinstance(layer, nn.Sequential):
        return []
    steps: list[tuple[str, bool]] = []
    pairs = []
    for name, child in layer.named_children():
        if isinstance(child, _ELEMENTWISE):
            continue
        gate = not isinstance(child, nn.Linear) and list(child._modules) == ["proj"]
        steps.append((f"{name}.proj" if gate else name, gate or isinstance(child, nn.Linear)))
    for (first, linear), (second, also) in pairwise(steps):
        if linear and also and not second.endswith(".proj"):
            pairs.append((first, second))
    return pairs


def _inner(layer: nn.Module, prefix: str) -> Iterator[ChannelGroup]:
    """Between two convolutions of a block that nothing else reads."""
    first, norm, second = (layer._modules.get(n) for n in ("conv1", "norm2", "conv2"))
    if isinstance(first, nn.Conv2d) and isinstance(norm, nn.GroupNorm) and isinstance(second, nn.Conv2d):
        time = ("time_emb_proj",) if _linear(layer, "time_emb_proj") is not None else ()
        yield from _between(prefix, first, "conv1", "norm2", second, "conv2", norm.num_groups, time)
    pairs = list(pairwise(layer._modules)) if isinstance(layer, nn.Sequential) else []
    if list(layer._modules) == ["cv1", "cv2"]:
        pairs.append(("cv1", "cv2"))
    for a, b in pairs:
        made, reader = layer._modules[a], layer._modules[b]
        if not _is_unit(made):
            continue
        name, read = f"{a}.conv", f"{b}.conv" if _is_unit(reader) else b
        one, two = layer.get_submodule(name), layer.get_submodule(read)
        if isinstance(one, nn.Conv2d) and isinstance(two, nn.Conv2d):
            yield from _between(prefix, one, name, f"{a}.bn", two, read, one.out_channels)


def _is_unit(layer: nn.Module | None) -> bool:
    """A convolution with its batch normalisation, activation as a function."""
    return isinstance(layer, nn.Module) and list(layer._modules) == ["conv", "bn"]


def _between(
    prefix: str,
    first: nn.Conv2d,
    made: str,
    norm: str,
    second: nn.Conv2d,
    read: str,
    groups: int,
    also: tuple[str, ...] = (),
) -> Iterator[ChannelGroup]:
    channels = first.out_channels
    if channels != second.in_channels or first.groups > 1 or second.groups > 1:
        return
    sides: list[tuple[str, Side]] = [(made, "out"), (norm, "both"), (read, "in"), *((name, "out") for name in also)]
    unit = channels // groups
    members = tuple(_per_head(prefix + name, side, groups, unit, channels) for name, side in sides)
    yield ChannelGroup(prefix + made, groups, members, ("inner channels",), None, unit)
