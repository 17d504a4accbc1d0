"""The pre-processing inside the graph is the contract's own normalisation, for any contract."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rsedge.data.bands import BandSpec, DType, InputSpec, Layout
from rsedge.data.errors import RequestError
from rsedge.export.onnx.graph import Deployable, maskable_nodata
from tests.export.export_nets import contract, tiles, unet

TILE = 16


@st.composite
def contracts(draw: st.DrawFn) -> InputSpec:
    dtype: DType = draw(st.sampled_from(["uint8", "int16", "uint16", "float32"]))
    info = (-9999, 60000) if dtype == "float32" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    nodata = st.one_of(st.none(), st.sampled_from([0.0, float(info[0]), float(info[1]), -9999.0, 0.5]))
    same = draw(nodata)
    bands = tuple(
        BandSpec(
            name=f"b{i}",
            scale=draw(st.sampled_from([1e-4, 2.75e-5, 1.0, -0.01])),
            offset=draw(st.floats(-1, 1, width=32)),
            nodata=same if draw(st.booleans()) else draw(nodata),
            mean=draw(st.floats(-1, 1, width=32)),
            std=draw(st.floats(0.0625, 10, width=32)),
        )
        for i in range(draw(st.integers(1, 4)))
    )
    return InputSpec(bands=bands, dtype=dtype, tile=TILE)


@settings(max_examples=80, deadline=None)
@given(contracts(), st.integers(0, 2**31))
def test_graph_prepares_as_the_contract_says(spec: InputSpec, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (1, spec.channels, TILE, TILE)
    low, high = (-9999, 60000) if spec.dtype == "float32" else (np.iinfo(spec.dtype).min, np.iinfo(spec.dtype).max)
    dn = rng.integers(low, high, shape, endpoint=True).astype(spec.dtype)
    for i, band in enumerate(spec.bands):
        if band.nodata is not None and np.can_cast(np.min_scalar_type(band.nodata), spec.dtype, "unsafe"):
            hit = rng.random((TILE, TILE)) < 0.5
            value = np.clip(band.nodata, low, high)
            dn[0, i][hit] = np.asarray(value).astype(spec.dtype)
    graph = Deployable(nn.Identity(), spec)  # its logits are the normalised bands
    normalised, valid = graph(torch.from_numpy(dn))

    physical = np.abs(spec.to_physical(dn)).max() + np.abs(spec.vector("offset")).max() + 2
    tolerance = 1e-6 * physical / spec.vector("std").min()  # float32 rounding of the two orders of operations
    np.testing.assert_allclose(normalised.numpy(), spec.normalise(dn), rtol=2e-6, atol=float(tolerance))
    np.testing.assert_array_equal(valid.numpy(), spec.valid(dn).astype(np.uint8))


@settings(max_examples=40, deadline=None)
@given(
    contracts(), st.sampled_from(["stretch", "image_minmax"]), st.sampled_from([None, 10, 255]), st.integers(0, 2**31)
)
def test_graph_stretches_as_the_contract_says(spec: InputSpec, kind: str, levels: int | None, seed: int) -> None:
    rng = np.random.default_rng(seed)
    low, high = (-9999, 60000) if spec.dtype == "float32" else (np.iinfo(spec.dtype).min, np.iinfo(spec.dtype).max)
    dn = rng.integers(low, high, (1, spec.channels, TILE, TILE), endpoint=True).astype(spec.dtype)
    content = spec.model_dump() | {"normalisation": kind, "levels": levels if kind == "stretch" else None}
    for band in content["bands"] if kind == "stretch" else ():
        ends = sorted(band["scale"] * dn + band["offset"] for dn in (low / 3, high / 2))
        band["stretch"] = (ends[0], ends[1] + 1e-3)
    spec = InputSpec.model_validate(content)
    normalised, valid = Deployable(nn.Identity(), spec)(torch.from_numpy(dn))
    off = np.abs(normalised.numpy() - spec.normalise(dn)) * spec.vector("std")[:, None, None]
    # Two orders of rounding may end on two sides of a level's edge, rarely, and never further apart than that level.
    assert (off > 1e-4).mean() < (0.02 if spec.levels else 1e-9)
    assert off.max() < 1e-4 + 1 / (spec.levels or np.inf)
    np.testing.assert_array_equal(valid.numpy(), spec.valid(dn).astype(np.uint8))


@pytest.mark.parametrize(("layout", "frames"), [("TCHW", 3), ("TC", 12), ("C", 1)])
def test_other_layouts_are_prepared_as_the_contract_says(layout: Layout, frames: int) -> None:
    bands = tuple(BandSpec(name=n, nodata=0, scale=1e-2, mean=i, std=2) for i, n in enumerate("abc"))
    spec = InputSpec(bands=bands, layout=layout, frames=frames, tile=TILE)
    dn = np.random.default_rng(0).integers(0, 3, (1, *spec.shape)).astype(np.uint16) * 100
    graph = Deployable(nn.Flatten(), spec, "vector")
    normalised, valid = graph.prepare(torch.from_numpy(dn))
    np.testing.assert_allclose(normalised.numpy(), spec.normalise(dn), atol=1e-6)
    np.testing.assert_array_equal(valid.numpy(), spec.valid(dn).astype(np.uint8))
    assert graph.classes == np.prod(spec.shape)


def test_a_vector_network_is_refused_where_a_map_is_due_and_the_other_way_round() -> None:
    with pytest.raises(RequestError, match=r"must give a vector \(1, K\); it gave \(1, 3, 64, 64\)"):
        Deployable(unet(), contract(), "vector")


def test_dn_above_32767_are_not_negative() -> None:
    spec = contract()
    dn = np.full((1, 6, spec.tile, spec.tile), 65535, np.uint16)
    normalised, valid = Deployable(unet(), spec).prepare(torch.from_numpy(dn))
    assert normalised[0, 0, 0, 0].item() == pytest.approx((6.5535 - 0.1 - 0.1) / 0.2, rel=1e-5)
    assert valid.numpy().all()


def test_masked_pixels_enter_as_the_mean_and_one_band_does_not_mask() -> None:
    spec = contract(nodata=65535)
    dn = np.full((1, 6, spec.tile, spec.tile), 65535, np.uint16)
    dn[0, 5, 3, 4] = 0
    normalised, valid = Deployable(unet(), spec).prepare(torch.from_numpy(dn))
    assert valid.sum() == 1 and valid[0, 3, 4] == 1
    assert normalised.count_nonzero() == 6


def test_nan_in_a_nodata_pixel_of_a_float_scene_does_not_spread() -> None:
    spec = contract("float32", nodata=-9999)
    dn = np.full((1, 6, spec.tile, spec.tile), -9999, np.float32)
    normalised, valid = Deployable(unet(), spec).prepare(torch.from_numpy(dn))
    assert not valid.any() and not normalised.any()


@pytest.mark.parametrize(
    ("dtype", "nodata", "expected"),
    [
        ("uint16", -9999, None),
        ("uint8", 0.5, None),
        ("int16", -9999, -9999.0),
        ("float32", 0.5, 0.5),
        ("uint16", None, None),
    ],
)
def test_nodata_that_the_dtype_cannot_hold_masks_nothing(dtype: DType, nodata: float, expected: float | None) -> None:
    assert maskable_nodata(contract(dtype, nodata)) == (None if expected is None else (expected,) * 6)


def test_a_network_with_other_output_is_refused_by_name() -> None:
    class Global(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3))

    with pytest.raises(RequestError, match=r"must give logits \(1, K, 64, 64\).*it gave \(1, 6\)"):
        Deployable(Global(), contract())


def test_the_callers_network_stays_as_it_was() -> None:
    net = unet().train().double()
    graph = Deployable(net, contract())
    assert net.training and next(net.parameters()).dtype == torch.float64
    graph(torch.from_numpy(tiles(graph.spec, 1)[0]))
    assert net.training
