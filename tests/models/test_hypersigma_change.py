"""Change by patches: each pixel of a tile by its own, mirrored at the edge; the towers as those of classification."""

from __future__ import annotations

import pytest
import torch

from rsedge.models.families.hypersigma_change import SigmaChange
from rsedge.models.zoo import teacher_row
from tests.models.small import random_net
from tests.models.small_parts import small_row


def network(name: str = "hypersigma-cd-b-5") -> SigmaChange:
    net = random_net(small_row(name))
    assert isinstance(net, SigmaChange)
    return net


def test_patches_lie_around_their_pixels_and_are_mirrored_at_the_edges() -> None:
    net = network()
    x = torch.randn(2, 2, 12, 16, 16, generator=torch.Generator().manual_seed(0))
    patches = net.patches(x).reshape(2, 16, 16, 2, 12, 5, 5)
    assert torch.equal(patches[1, 6, 9], x[1, :, :, 4:9, 7:12])
    corner = patches[0, 0, 15]
    rows, columns = [1, 0, 0, 1, 2], [13, 14, 15, 15, 14]  # the edge counts twice, as numpy's "symmetric"
    assert torch.equal(corner, x[0][:, :, rows][:, :, :, columns])


def test_a_pixel_depends_on_its_patch_alone_and_equal_dates_are_all_alike() -> None:
    net = network()
    x = torch.randn(1, 2, 12, 16, 16, generator=torch.Generator().manual_seed(1))
    moved = x.clone()
    moved[0, 1, :, 4, 4] += 3
    with torch.no_grad():
        differs = (net(x) != net(moved)).any(1)[0]
        same = net(x[:, :1].expand(-1, 2, -1, -1, -1))
    felt = torch.zeros(16, 16, dtype=torch.bool)
    felt[2:7, 2:7] = True
    assert torch.equal(differs, felt)
    assert torch.allclose(same, same[:, :, :1, :1].expand_as(same), atol=1e-6)


def test_parts_of_a_batch_are_judged_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network("spatsigma-cd-b-15")
    x = torch.randn(2, 2, 12, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        whole = net(x)
        monkeypatch.setattr("rsedge.models.families.hypersigma_change.PATCHES", 100)
        assert torch.allclose(net(x), whole, atol=1e-5)


def test_rows_are_change_maps_of_two_dates() -> None:
    row = teacher_row("hypersigma-cd-b-15")
    assert (row.task, row.classes) == ("segmentation", ("change", "no change"))
    assert row.input_spec.shape == (2, 224, 32, 32)
