"""Taps: features of any layout come out channels first and in their places, and connect in both directions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rsedge.compress.distill.connectors import connector
from rsedge.compress.distill.taps import TapRecorder
from rsedge.compress.distill.teacher_outputs import LiveOutputs
from rsedge.compress.distill.training import DistillSettings, Tap, distill
from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.errors import RequestError
from rsedge.models.families import family
from rsedge.models.features import Feature
from tests.models.small import random_net, small_row

TILE = 16


@st.composite
def placed(draw: st.DrawFn) -> Feature:
    """A feature with places on the image."""
    stride, channels = draw(st.sampled_from([1, 2, 4, 8])), draw(st.integers(1, 20))
    layout = draw(st.sampled_from(["NCHW", "NHWC", "NLC"]))
    if layout != "NLC":
        return Feature("x", channels, layout, stride)
    side = TILE // stride
    return Feature("x", channels, "NLC", stride, (side, side), draw(st.integers(0, 5)), draw(st.integers(1, 3)))


def features() -> st.SearchStrategy[Feature]:
    width = st.integers(1, 20)
    unplaced = st.builds(Feature, st.just("x"), width, st.sampled_from(["NLC", "NCL", "NC"]))
    return st.one_of(placed(), unplaced)


def marked(feature: Feature, row: float, column: float, behind: int = 0) -> tuple[Tensor, tuple[int, int]]:
    """A tensor of the feature, 1 in the cell at this share of the image's height and width and 0 in the others; and the cell."""
    side = TILE // feature.stride
    cell = int(row * side), int(column * side)
    image = torch.zeros(2, feature.channels, side, side)
    image[:, :, cell[0], cell[1]] = 1
    if feature.layout == "NCHW":
        return image, cell
    if feature.layout == "NHWC":
        return image.permute(0, 2, 3, 1), cell
    tokens = image.permute(0, 2, 3, 1).flatten(1, 2).repeat(1, feature.planes, 1)
    others = [torch.full((2, count, feature.channels), 9.0) for count in (feature.prefix, behind)]
    return torch.cat([others[0], tokens, others[1]], 1), cell


def some(feature: Feature) -> Tensor:
    if feature.layout == "NC":
        return torch.rand(2, feature.channels)
    if feature.layout == "NCL":
        return torch.rand(2, feature.channels, 6)
    return (
        torch.rand(2, 6, feature.channels) if feature.grid is None and not feature.stride else marked(feature, 0, 0)[0]
    )


shares = st.floats(0, 0.999)


@settings(deadline=None)
@given(placed(), shares, shares, st.integers(0, 3))
def test_a_marked_cell_is_where_it_was(feature: Feature, row: float, column: float, behind: int) -> None:
    tensor, (i, j) = marked(feature, row, column, behind)
    found = feature.channels_first(tensor)
    side = TILE // feature.stride
    assert found.shape == (2, feature.channels, side, side)
    expected = torch.zeros(side, side)
    expected[i, j] = 1
    torch.testing.assert_close(found, expected.expand_as(found))


@settings(deadline=None)
@given(placed(), placed(), shares, shares)
def test_maps_are_compared_place_by_place(student: Feature, teacher: Feature, row: float, column: float) -> None:
    given_map = student.channels_first(marked(student, row, column)[0])
    taught = teacher.channels_first(marked(teacher, row, column)[0])
    joined = connector("linear", given_map, taught)
    with torch.no_grad():
        for parameter in joined.parameters():
            parameter.fill_(1.0 if parameter.ndim > 1 else 0.0)
    found, wanted = joined(given_map, taught)
    assert found.shape == wanted.shape == taught.shape
    side, (i, j) = found.shape[-1], divmod(int(found[0, 0].argmax()), found.shape[-1])
    # Within the cell that was marked, on the coarser of the two grids.
    coarse = min(side, given_map.shape[-1])
    assert (i * coarse // side, j * coarse // side) == (int(row * coarse), int(column * coarse))


@settings(deadline=None)
@given(features(), features())
def test_every_kind_connects_with_every_other(student: Feature, teacher: Feature) -> None:
    pair = student.channels_first(some(student)), teacher.channels_first(some(teacher))
    found, wanted = connector("linear", *pair)(*pair)
    assert found.shape == wanted.shape and found.shape[1] == teacher.channels
    both_maps = pair[0].ndim == pair[1].ndim == 4
    if not both_maps and pair[0].shape[2:] != pair[1].shape[2:]:
        torch.testing.assert_close(wanted, pair[1].flatten(2).mean(2) if pair[1].ndim > 2 else pair[1])
    assert found.requires_grad


@settings(deadline=None)
@given(features(), st.sampled_from(["channels", "axes", "tokens"]))
def test_what_is_not_as_published_is_refused(feature: Feature, wrong: str) -> None:
    tensor = some(feature)
    if wrong == "channels":
        tensor = tensor.repeat_interleave(2, feature.layout.index("C"))
    elif wrong == "axes":
        tensor = tensor[None]
    elif feature.grid:
        tensor = tensor[:, : feature.prefix + feature.tokens - 1]
    else:
        return
    with pytest.raises(RequestError, match=r"feature 'x' gives .*, but is published as"):
        feature.channels_first(tensor)


def test_taps_of_swin_and_vit_are_maps_and_are_removed_again() -> None:
    for name, feature, shape in (("gfm-swinb", "layers.1", (32, 8, 8)), ("ringmo-vitb", "blocks.1", (32, 2, 2))):
        row = small_row(name)
        net = random_net(row)
        published = {f.name: f for f in family(row.family).features_of(net, row.input_spec.shape)}
        with TapRecorder(net, [published[feature]]) as taps, torch.inference_mode():
            net(torch.randn(2, *row.input_spec.shape))
            assert taps.out[feature].shape == (2, *shape)
            taps.out.clear()
        net(torch.randn(1, *row.input_spec.shape))
        assert not taps.out


class _Tokens(nn.Module):
    """(N, 2, 16, 16) -> a token per 4 x 4 pixels behind a class token, from which the logits come."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.blocks, self.head = nn.Conv2d(2, 6, 4, 4), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = self.blocks(torch.cat([tokens.mean(1, keepdim=True), tokens], 1))
        return self.head(tokens[:, 0])  # type: ignore[no-any-return]


SPEC = InputSpec(bands=tuple(BandSpec(name=n, scale=1e-4, mean=0.3, std=0.2) for n in ("red", "nir")), tile=TILE)


def source(spec: InputSpec = SPEC, count: int = 32) -> LiveOutputs:
    """A teacher whose features are a map, tokens without places, and a vector."""

    def views(i: int) -> np.ndarray:
        return np.random.default_rng([9, i]).integers(1, 8000, spec.shape).astype(np.uint16)

    def outputs(x: np.ndarray) -> dict[str, np.ndarray]:
        means = x.mean((2, 3))
        lines = np.stack([means, -means, 2 * means], 2)
        coarse = x.reshape(len(x), 2, 4, 4, 4, 4).mean((3, 5))
        return {"logits": means @ np.ones((2, 3), np.float32), "map": coarse, "line": lines, "vector": means}

    return LiveOutputs(views, lambda dn: outputs(spec.normalise(dn)), spec.normalise, count)


@pytest.mark.parametrize("teacher", ["map", "line", "vector"])
@pytest.mark.parametrize("student", ["patches", "blocks", "head"])
def test_all_kinds_are_learned(teacher: str, student: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    asked = DistillSettings(steps=41, batch=16, lr=2e-2, taps=(Tap(teacher, student, 1.0),), autocast="off")
    _, record = distill(source(), _Tokens(), asked, tmp_path, 0)
    first, last = (record.history[i][f"tap:{student}"] for i in (0, -1))
    assert last < 0.95 * first


def test_unknown_taps_list_what_is_published(tmp_path: Path) -> None:
    said = (
        r"steps\.distill\.taps: 'block' is no feature of the student \(nearest: 'blocks'\); it has: "
        r"patches \(stride 4, 6 channels, NCHW\); blocks \(stride 4, 6 channels, NLC \(1 \+ 4x4 tokens\)\)"
    )
    with pytest.raises(RequestError, match=said):
        distill(source(), _Tokens(), DistillSettings(taps=(Tap("map", "block"),)), tmp_path, 0)
    with pytest.raises(RequestError, match="the teacher gives logits, map, line, vector, not maps"):
        distill(source(), _Tokens(), DistillSettings(taps=(Tap("maps", "blocks"),)), tmp_path, 0)
    with pytest.raises(RequestError, match="the student publishes no features, so 'blocks' cannot be tapped"):
        distill(source(), _Tokens(), DistillSettings(taps=(Tap("map", "blocks"),)), tmp_path, 0, features=())


class _Second(nn.Module):
    """(N, 2, C, H, W) -> the second date."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 1] * self.scale


def test_several_dates_are_turned_with_what_is_taught_of_them(tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"layout": "TCHW", "frames": 2})
    given = LiveOutputs(source(spec).views, lambda dn: {"logits": spec.normalise(dn)[:, 1]}, spec.normalise, 4)
    asked = DistillSettings(steps=61, batch=4, lr=1e-6, loss="image", autocast="off")
    _, record = distill(given, _Second(), asked, tmp_path, 0)
    assert max(step["loss"] for step in record.history) < 1e-6
