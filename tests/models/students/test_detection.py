"""The detector's candidates are boxes in pixels that runtimes/inference/boxes.py reads; the siamese net compares its dates."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rsedge.data.errors import RequestError
from rsedge.models.families import family
from rsedge.models.students import build_student
from rsedge.runtimes.inference.boxes import boxes_of
from tests.models.students.small_students import OUTPUTS, small_arguments, small_contract


def test_a_cell_that_is_sure_gives_its_box() -> None:
    kwargs = small_arguments("slim-detector", small_contract("slim-detector", "CHW"))
    torch.manual_seed(0)
    net = build_student("slim-detector", kwargs).eval()
    with torch.no_grad():
        for head in net.heads:  # type: ignore[union-attr]
            head[1].weight.zero_()  # type: ignore[index]
            head[1].bias.fill_(-20.0)  # type: ignore[index]
        finest = net.heads[0][1].bias  # type: ignore[index, union-attr]
        finest[:4] = torch.tensor([0.5, 0.5, np.log(2.0), np.log(3.0)])
        finest[4] = finest[5 + 2] = 20.0
        candidates = net(torch.rand(1, 4, 64, 64))[0].numpy()
    assert candidates[:, :4].max() < 80 and candidates[:, 4:].min() >= 0 and candidates[:, 4:].max() <= 1
    found = boxes_of(candidates, max_detections=1000)
    assert set(found.classes) == {2}
    # Stride 4, 16 x 16 cells: centres 2 pixels into each cell, boxes 8 x 12 pixels.
    assert {tuple(c) for c in found.corners[:, :2] % 4} == {(2.0, 0.0)}
    np.testing.assert_allclose(found.corners[:, 2:] - found.corners[:, :2], [[8, 12]] * len(found.corners), rtol=1e-5)


def test_wrong_tiles_and_levels_are_refused() -> None:
    with pytest.raises(RequestError, match="tile of 60 pixels is no multiple of 32"):
        build_student("slim-detector", {"bands": 3, "classes": 2, "tile": 60})
    with pytest.raises(RequestError, match=r"levels \[0\] must lie between 1 and 3"):
        build_student("slim-detector", {"bands": 3, "classes": 2, "tile": 64, "levels": [0]})


def test_change_does_not_ask_which_date_is_first_and_sees_a_change() -> None:
    torch.manual_seed(0)
    net = build_student("siamese-unet", {"bands": 3, "classes": OUTPUTS}).eval()
    x = torch.rand(1, 2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(net(x), net(x.flip(1)))
        same = net(x[:, :1].expand(-1, 2, -1, -1, -1))
        other = net(torch.rand(1, 1, 3, 64, 64).expand(-1, 2, -1, -1, -1))
        torch.testing.assert_close(same, other)
        assert not torch.allclose(net(x), same)
    with pytest.raises(RequestError, match="compares 2 frames, not 3"):
        build_student("siamese-unet", {"bands": 3, "classes": 2, "frames": 3})


def test_shuffled_pixels_stay_where_they_were_made() -> None:
    net = build_student("slim-unet", {"bands": 3, "classes": 2, "upsample": "shuffle"}).eval()
    with torch.inference_mode():
        made = net.head(net.decode(net.encode(torch.rand(1, 3, 64, 64)))[-1])  # type: ignore[operator, union-attr]
        full = net.logits(net.encode(torch.rand(1, 3, 64, 64)))  # type: ignore[operator, union-attr]
    assert (made.shape[1:], full.shape[1:]) == ((8, 32, 32), (2, 64, 64))
    with pytest.raises(RequestError, match="upsample is bilinear or shuffle, not 'nearest'"):
        build_student("slim-unet", {"bands": 3, "classes": 2, "upsample": "nearest"})


@pytest.mark.parametrize("name", ["slim-unet", "siamese-unet"])
def test_summed_skips_are_concatenated_ones_whose_weights_are_shared(name: str) -> None:
    """Where the coarse half of a decoder's weights is the fine half behind a 1x1 convolution, both give the same."""
    torch.manual_seed(0)
    sizes = {"bands": 3, "classes": 2, "stem": 4, "encoder": [6, 8], "blocks": [0, 1], "decoder": [8, 6]}
    summed, beside = (build_student(name, {**sizes, "skips": skips}).eval() for skips in ("sum", "concat"))
    weights = summed.state_dict()
    for number in range(2):
        key, fine = f"decoder.{number}.0.weight", weights[f"decoder.{number}.0.weight"]
        coarse = torch.einsum("oskl,sc->ockl", fine, weights.pop(f"laterals.{number}.weight")[..., 0, 0])
        weights[key] = torch.cat([coarse, fine], dim=1)
    beside.load_state_dict(weights)
    x = torch.rand(2, 3, 32, 32) if name == "slim-unet" else torch.rand(2, 2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(summed(x), beside(x))
    with pytest.raises(RequestError, match="skips is concat or sum, not 'add'"):
        build_student(name, {**sizes, "skips": "add"})


def untrained(name: str) -> torch.nn.Module:
    """Detectors of two classes for tiles of 64 pixels."""
    torch.manual_seed(0)
    if name == "slim-detector":
        return build_student(name, {"bands": 3, "classes": 2, "tile": 64}).eval()
    return family("ffca_yolo").build(classes=2, image=64, width=0.125, depth=0.1).eval()


@pytest.mark.parametrize("name", ["slim-detector", "ffca-yolo"])
def test_the_grid_is_that_of_the_candidates(name: str) -> None:
    """Each candidate's centre lies within a stride and a half of its cell's centre, whatever the network says."""
    net = untrained(name)
    with torch.inference_mode():
        candidates = net(torch.rand(1, 3, 64, 64))[0]
    grid = net.grid
    assert isinstance(grid, torch.Tensor) and grid.shape == (len(candidates), 3)
    apart = (candidates[:, :2] - grid[:, :2]).abs() / grid[:, 2:]
    assert apart.max() < 1.5 and apart.mean() < 0.6
    assert {int(s) for s in grid[:, 2]} == {4, 8, 16} and (candidates[:, 4] < 0.5).all()


def test_anchors_are_the_sizes_of_objects() -> None:
    net = untrained("ffca-yolo")
    sizes = torch.tensor([[8.0, 6.0]] * 30 + [[20.0, 24.0]] * 30 + [[50.0, 40.0]] * 30)
    net.set_anchors(sizes)  # type: ignore[operator]
    found = net.get_buffer("model.27.anchors") * torch.tensor([4.0, 8.0, 16.0])[:, None, None]
    torch.testing.assert_close(found, sizes[::30, None].expand(3, 3, 2))
    net.set_anchors(sizes[:2])  # type: ignore[operator]
    assert torch.isfinite(net.get_buffer("model.27.anchors")).all()
