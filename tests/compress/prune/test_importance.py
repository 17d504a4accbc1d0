"""Taylor importance: the definition, torch-pruning's numbers, and whether it foretells what a cut really costs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torch_pruning as tp
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from torch import Tensor, nn

from rsedge.compress.prune.finding import find_groups
from rsedge.compress.prune.groups import ChannelGroup
from rsedge.compress.prune.importance import channel_scores, first_order_changes
from rsedge.models.students import build_student

Loss = Callable[[Tensor, Tensor], Tensor]
IMAGES, BATCH, BATCHES = 192, 24, 8


# -- the definition ---------------------------------------------------------------------------------------------------


class _Attention(nn.Module):
    """timm's layout: queries, keys and values of all heads in one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.qkv, self.proj = 2, nn.Linear(6, 18), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 3)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def test_of_a_head_all_rows_of_a_layer_are_summed_before_the_square_and_layers_averaged() -> None:
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(4, 6), _Attention(), nn.Linear(6, 2)), torch.randn(3, 5, 4)
    (group,) = [g for g in find_groups(net, x) if "heads" in g.through[0]]

    def gradients(module: nn.Module, batch: int) -> None:
        module((batch + 1) * x).square().mean().backward()

    scores = channel_scores(net, [group], "taylor", gradients=gradients, batches=2)[group.name]
    expected = np.zeros(2)
    for batch in range(2):
        net.zero_grad()
        gradients(net, batch)
        by_layer = []
        for name in ("qkv.weight", "proj.weight"):
            p = net[1].get_parameter(name)
            change = (p.detach() * p.grad).double().numpy()  # type: ignore[operator]
            if name == "qkv.weight":
                bias = net[1].get_parameter("qkv.bias")
                change = change.sum(1) + (bias.detach() * bias.grad).double().numpy()  # type: ignore[operator]
                by_layer.append(change.reshape(3, 2, 3).sum((0, 2)))
            else:
                by_layer.append(change.sum(0).reshape(2, 3).sum(1))
        expected += np.square(by_layer).mean(0) / 2
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-5)


def test_layers_have_torch_prunings_numbers() -> None:
    """Its ``GroupTaylorImportance`` over several variables, on layers without biases and with one place per channel (of
    several it adds up sizes, not changes)."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8, padding=1, bias=False),
        nn.ReLU(), nn.Conv2d(8, 12, 1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(12, 4, bias=False),
    )  # fmt: skip
    x = torch.randn(6, 3, 8, 8)
    graph = tp.DependencyGraph().build_dependency(net, example_inputs=x[:1])
    net.zero_grad()
    F.cross_entropy(net(x), torch.arange(6) % 4).backward()
    theirs = tp.importance.GroupTaylorImportance(multivariable=True, normalizer=None)
    for layer, name in ((net[0], "0"), (net[4], "4")):
        group = graph.get_pruning_group(layer, tp.prune_conv_out_channels, list(range(layer.out_channels)))
        (own,) = [g for g in find_groups(net, x[:1]) if g.name == name]
        changes = first_order_changes(net, own)
        conv = [i for i, m in enumerate(own.members) if m.side != "both"]  # it leaves depthwise layers out
        torch.testing.assert_close(changes[conv].abs().mean(0).float(), theirs(group), rtol=1e-4, atol=1e-7)


# -- what a cut really costs --------------------------------------------------------------------------------------------


def digits() -> tuple[Tensor, Tensor]:
    """1797 scanned digits (N, 1, 8, 8) from -1 to 1, and what they are."""
    found = load_digits()
    return torch.tensor(found.images, dtype=torch.float32)[:, None] / 8 - 1, torch.tensor(found.target)


def maps() -> tuple[Tensor, Tensor]:
    """Digits at twice their size under noise, and the ink of each pixel in four levels."""
    x, _ = digits()
    levels = ((x + 1) * 2).clamp(0, 3.99).floor()
    noisy = x + 0.4 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    return F.interpolate(noisy, scale_factor=2), F.interpolate(levels, scale_factor=2)[:, 0].long()


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(24, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


def vit() -> nn.Module:
    timm = pytest.importorskip("timm")
    net: nn.Module = timm.models.vision_transformer.VisionTransformer(
        img_size=8, patch_size=2, in_chans=1, num_classes=10, embed_dim=32, depth=2, num_heads=4, mlp_ratio=2
    )
    return net


def unet() -> nn.Module:
    arguments = {"bands": 1, "classes": 4, "stem": 8, "encoder": [16, 24], "blocks": [1, 1], "decoder": [16, 8]}
    return build_student("slim-unet", arguments)


def trained(net: nn.Module, x: Tensor, y: Tensor, steps: int, lr: float) -> nn.Module:
    optimizer, draw = torch.optim.AdamW(net.parameters(), lr=lr), torch.Generator().manual_seed(0)
    for _ in range(steps):
        picks = torch.randint(len(x), (64,), generator=draw)
        optimizer.zero_grad()
        F.cross_entropy(net.train()(x[picks]), y[picks]).backward()
        optimizer.step()
    return net.eval()


@torch.no_grad()
def ablated(net: nn.Module, group: ChannelGroup, root: int, loss: Callable[[], float]) -> float:
    """The loss when nothing reads the channel any more; the network is put back."""
    kept = []
    for member in group.members:
        if member.side == "in":
            layer = net.get_submodule(member.layer)
            weight: Tensor = layer.weight  # type: ignore[assignment]
            rows = [i for i, r in zip(member.index, member.root, strict=True) if r == root]
            kept.append((weight, weight.clone()))
            (weight if getattr(layer, "transposed", False) else weight.transpose(0, 1))[rows] = 0
    found = loss()
    for weight, before in kept:
        weight.copy_(before)
    return found


@pytest.mark.parametrize(
    ("build", "data", "steps", "lr"),
    [(cnn, digits, 150, 3e-3), (vit, digits, 250, 1e-3), (unet, maps, 120, 3e-3)],
    ids=["cnn", "vit", "unet"],
)
def test_the_ranking_foretells_the_loss_of_each_ablation(
    build: Callable[[], nn.Module], data: Callable[[], tuple[Tensor, Tensor]], steps: int, lr: float
) -> None:
    """Channels of all groups together; one in a thousand random orders comes as near."""
    torch.manual_seed(0)
    x, y = data()
    net = trained(build(), x, y, steps, lr)
    x, y = x[:IMAGES], y[:IMAGES]
    groups = [g for g in find_groups(net, x[:1]) if not g.blocked]

    def gradients(module: nn.Module, batch: int) -> None:
        picks = slice(batch * BATCH, (batch + 1) * BATCH)
        F.cross_entropy(module(x[picks]), y[picks]).backward()

    scores = channel_scores(net, groups, "taylor", gradients=gradients, batches=BATCHES)
    losses = [
        ablated(net, g, root, lambda: float(F.cross_entropy(net(x), y))) for g in groups for root in range(g.channels)
    ]
    order = np.concatenate([scores[g.name].numpy() for g in groups])
    found = spearmanr(order, losses).statistic
    rng = np.random.default_rng(0)
    by_chance = [spearmanr(rng.permutation(order), losses).statistic for _ in range(2000)]
    assert found > np.quantile(by_chance, 0.999), (found, max(by_chance))
