"""Hidden matrices are told from stems, heads and tables by who reads whom, not by size or name."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rsedge.compress.distill.hidden import hidden_matrices
from rsedge.models.students import build_student


def names(net: nn.Module, *inputs: Tensor) -> set[str]:
    found = {id(p) for p in hidden_matrices(net, inputs)}
    return {n for n, p in net.named_parameters() if id(p) in found}


def test_a_stem_of_many_bands_and_a_head_of_many_classes_are_none_and_narrow_layers_between_are() -> None:
    net = nn.Sequential(
        nn.Conv2d(13, 16, 3), nn.BatchNorm2d(16), nn.ReLU(inplace=True), nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1),
        nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 12, 1),
    )  # fmt: skip
    assert names(net, torch.rand(1, 13, 9, 9)) == {"3.weight", "4.weight", "6.weight"}


def test_of_a_unet_all_but_stem_head_and_depthwise_kernels() -> None:
    arguments = {"bands": 8, "classes": 8, "stem": 16, "encoder": [24, 32], "blocks": [1, 1], "decoder": [32, 16]}
    net = build_student("slim-unet", arguments)
    matrices = {
        f"{n}.weight" for n, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d) and m.groups == 1
    }
    assert names(net, torch.rand(1, 8, 32, 32)) == matrices - {"stem.0.weight", "head.weight"}


def test_of_a_vit_the_layers_of_its_blocks() -> None:
    timm = pytest.importorskip("timm")
    net = timm.models.vision_transformer.VisionTransformer(
        img_size=16, patch_size=4, in_chans=12, num_classes=10, embed_dim=32, depth=2, num_heads=2
    )
    layers = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    expected = {f"blocks.{i}.{layer}.weight" for i in range(2) for layer in layers}
    assert names(net, torch.rand(1, 12, 16, 16)) == expected


class _Series(nn.Module):
    """(N, T, C) and months (N, T) -> (N, K): tables, attention and a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.bands, self.month = nn.Linear(12, 16), nn.Embedding(12, 16)
        self.position = nn.Parameter(torch.zeros(5, 16))
        self.mix = nn.MultiheadAttention(16, 2, batch_first=True)
        self.memory = nn.GRU(16, 16, batch_first=True)
        self.between, self.head = nn.Linear(16, 16), nn.Linear(16, 9)

    def forward(self, x: Tensor, month: Tensor) -> Tensor:
        x = self.bands(x) + self.month(month) + self.position
        x = x + self.mix(x, x, x)[0]
        return self.head(torch.relu(self.between(self.memory(x)[1][0])))  # type: ignore[no-any-return]


def test_tables_are_none_and_attention_and_recurrent_layers_are() -> None:
    found = names(_Series(), torch.rand(2, 5, 12), torch.arange(5).expand(2, 5))
    assert found == {
        "mix.in_proj_weight",
        "mix.out_proj.weight",
        "memory.weight_ih_l0",
        "memory.weight_hh_l0",
        "between.weight",
    }


class _Siamese(nn.Module):
    """Two dates through one stem: both of its calls read bands."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.joined, self.head = nn.Conv2d(8, 8, 1), nn.Conv2d(16, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.joined(torch.cat([self.stem(x[:, 0]), self.stem(x[:, 1])], 1)))  # type: ignore[no-any-return]


def test_a_layer_is_judged_by_all_its_calls() -> None:
    assert names(_Siamese(), torch.rand(1, 2, 8, 4, 4)) == {"joined.weight"}


def test_the_network_is_left_as_it_was() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1)
    ).train()
    before = {n: t.clone() for n, t in net.state_dict().items()}
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    hidden_matrices(net, [torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))])
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(before[n], t) for n, t in net.state_dict().items())
    assert all(m.training for m in net.modules()) and all(p.grad is None for p in net.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
