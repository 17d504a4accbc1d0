"""Presto and Galileo with their real weights, against forward passes that cut missing tokens off, and on labelled rows."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rsedge.data.errors import RequestError
from rsedge.data.root import data_root
from rsedge.data.sets.sample_sources import load_samples
from rsedge.models.families.galileo import PatchEmbed, resize_matrix
from rsedge.models.families.presto import GROUPS, Presto
from rsedge.models.teachers import load_teacher, sniff
from tests.conftest import Results
from tests.models.small import random_net, small_row

TOLERANCE = 1e-5
DATA = data_root()
PRESTO, CROP = DATA / "presto" / "default_model.pt", DATA / "worldcereal" / "presto_finetuned_crop.pt"
NANO = DATA / "galileo_nano" / "encoder.pt"
real = pytest.mark.skipif(not (PRESTO.is_file() and NANO.is_file()), reason="RSEDGE_DATA has no Presto and Galileo")


def block(x: Tensor, state: dict[str, Tensor], name: str, heads: int) -> Tensor:
    """A pre-norm transformer block from its weights alone; query, key and value in one matrix or in three."""

    def linear(y: Tensor, layer: str) -> Tensor:
        return y @ state[f"{name}.{layer}.weight"].T + state[f"{name}.{layer}.bias"]

    def norm(y: Tensor, layer: str) -> Tensor:
        centred = y - y.mean(-1, keepdim=True)
        unit = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-5)
        return unit * state[f"{name}.{layer}.weight"] + state[f"{name}.{layer}.bias"]

    y = norm(x, "norm1")
    if f"{name}.attn.qkv.weight" in state:
        q, k, v = linear(y, "attn.qkv").split(x.shape[-1], -1)
    else:
        q, k, v = (linear(y, f"attn.{n}") for n in "qkv")
    size = x.shape[-1] // heads
    mixed = []
    for head in range(heads):
        a, b, c = (part[:, head * size : (head + 1) * size] for part in (q, k, v))
        mixed.append(torch.softmax(a @ b.T / size**0.5, -1) @ c)
    x = x + linear(torch.cat(mixed, -1), "attn.proj")
    return x + linear(F.gelu(linear(norm(x, "norm2"), "mlp.fc1")), "mlp.fc2")


def unit_vector(latitude: Tensor, longitude: Tensor) -> Tensor:
    latitude, longitude = torch.deg2rad(latitude), torch.deg2rad(longitude)
    return torch.stack([latitude.cos() * longitude.cos(), latitude.cos() * longitude.sin(), latitude.sin()])


def presto_by_hand(series: Tensor, missing: Tensor, state: dict[str, Tensor]) -> Tensor:
    """One normalised series (T, 20) -> embedding; tokens of groups with a missing band are never made."""
    state = {k.removeprefix("encoder."): v for k, v in state.items()}
    bands, cover, month = series[:, :16], series[:, 16].long(), series[:, 17].long()
    red, nir = bands[:, 4], bands[:, 8]
    ndvi = torch.where(nir + red > 0, (nir - red) / (nir + red), 0.0)
    bands, gone = (
        torch.cat([bands, ndvi[:, None]], 1),
        torch.cat([missing, (missing[:, 4] | missing[:, 8])[:, None]], 1),
    )
    place = unit_vector(series[0, 18], series[0, 19]) @ state["latlon_embed.weight"].T + state["latlon_embed.bias"]
    tokens = [place]
    quarter = state["month_embed.weight"].shape[1]
    for channel, (name, columns) in enumerate(GROUPS.items()):
        for t in range(1 if name == "SRTM" else len(series)):
            if gone[t, columns].any():
                continue
            layer = f"eo_patch_embed.{name}"
            token = bands[t, columns] @ state[f"{layer}.weight"].T + state[f"{layer}.bias"]
            when, where = state["month_embed.weight"][month[t]], state["pos_embed"][0, t]
            if name == "SRTM":
                when, where = torch.zeros(quarter), torch.zeros(2 * quarter)
            tokens.append(token + torch.cat([when, state["channel_embed.weight"][channel], where]))
    for t in range(len(series)):
        if cover[t] != 9:
            code = [state["month_embed.weight"][month[t]], state["channel_embed.weight"][9], state["pos_embed"][0, t]]
            tokens.append(state["dw_embed.weight"][cover[t]] + torch.cat(code))
    x = torch.stack(tokens)
    depth = 1 + max(int(k.split(".")[1]) for k in state if k.startswith("blocks."))
    for index in range(depth):
        x = block(x, state, f"blocks.{index}", 8)
    return F.layer_norm(x.mean(0), (len(x[0]),), state["norm.weight"], state["norm.bias"])


def physical_series(count: int, months: int, seed: int = 0) -> np.ndarray:
    """Plausible raw values in the row's order (count, months, 20), land cover known and unknown, some bands missing."""
    rng = np.random.default_rng(seed)
    columns = [
        rng.uniform(-25, -5, (count, months, 2)), rng.uniform(100, 6000, (count, months, 10)),
        rng.uniform(255, 305, (count, months, 1)), rng.uniform(0, 0.2, (count, months, 1)),
        rng.uniform(0, 3000, (count, months, 1)), rng.uniform(0, 40, (count, months, 1)),
        rng.integers(0, 10, (count, months, 1)), np.arange(months)[None, :, None] % 12 + np.zeros((count, 1, 1)),
        rng.uniform(-60, 70, (count, 1, 1)).repeat(months, 1), rng.uniform(-180, 180, (count, 1, 1)).repeat(months, 1),
    ]  # fmt: skip
    series = np.concatenate(columns, 2).astype(np.float32)
    holes = rng.random((count, months, 16)) < 0.1
    series[..., :16][holes] = 65535
    return series


@real
def test_presto_equals_a_forward_pass_without_missing_tokens(results: Results) -> None:
    teacher = load_teacher("presto", PRESTO)
    raw = physical_series(4, 12)
    series = torch.from_numpy(teacher.spec.input_spec.normalise(raw))
    state = teacher.net.state_dict()
    with torch.inference_mode():
        found = teacher(series)
        for one, expected_of in zip(found, range(4), strict=True):
            missing = torch.from_numpy(raw[expected_of, :, :16] == 65535)
            assert missing.any()
            expected = presto_by_hand(series[expected_of], missing, state)
            assert (one - expected).abs().max() <= TOLERANCE * max(1.0, float(expected.abs().max()))
    results.setdefault("family presto", {})["formulas"] = "written out, real weights"


def test_tokens_of_neighbouring_months_count_as_the_months_they_stand_for() -> None:
    """Of the same weights: months that repeat give the teacher's own answer, and one that is missing does not count."""
    torch.manual_seed(0)
    whole, paired = (Presto(dim=32, depth=1, heads=4, classes=2, months=m).eval() for m in (1, 2))
    paired.load_state_dict(whole.state_dict())
    for net in (whole, paired):
        torch.nn.init.zeros_(net.encoder.pos_embed)
    once = torch.from_numpy(physical_series(3, 6))
    twice = once.repeat_interleave(2, 1)
    with torch.inference_mode():
        assert (whole(twice) - paired(twice)).abs().max() < 1e-5 < (whole(once) - paired(twice)).abs().max()
        holes = twice.clone()
        holes[:, 1::2, :16] = 1e9
        assert (whole(holes) - paired(holes)).abs().max() < 1e-5 < (paired(holes) - paired(twice)).abs().max()
    with pytest.raises(RequestError, match="5 months do not divide into tokens of 2"):
        paired(twice[:, :5])


@real
def test_the_authors_files_are_recognised(tmp_path: Path, results: Results) -> None:
    assert sniff(PRESTO) == ["presto"]
    assert sniff(CROP) == ["presto-worldcereal-crop"]
    assert sniff(NANO) == ["galileo-nano-series", "galileo-nano-image"]
    for name in ("presto", "presto-worldcereal-crop", "galileo-nano-series", "galileo-nano-image"):
        results.setdefault(name, {})["file"] = "real file loads, recognised"
    state = torch.load(NANO, map_location="cpu", weights_only=True)
    torch.save({f"backbone.{k}": v for k, v in state.items()}, tmp_path / "b.pt")
    assert load_teacher("galileo-nano-series", tmp_path / "b.pt").net.norm.weight.equal(state["norm.weight"])
    torch.save({k: v for k, v in state.items() if k != "t_channel_embed"}, tmp_path / "cut.pt")
    with pytest.raises(RequestError, match=r"1 missing keys: t_channel_embed"):
        load_teacher("galileo-nano-series", tmp_path / "cut.pt")


@real
def test_the_fine_tuned_presto_finds_crops() -> None:
    pytest.importorskip("pyarrow")
    samples = load_samples("worldcereal-crop")
    assert samples.labels is not None
    crop = samples.labels == 1
    teacher = load_teacher("presto-worldcereal-crop", CROP)
    series = teacher.spec.input_spec.normalise(samples.dn(teacher.spec.input_spec))
    with torch.inference_mode():
        found = teacher(torch.from_numpy(series))[:, 0].numpy() > 0
    f1 = 2 * (found & crop).sum() / (found.sum() + crop.sum())
    # All rows called crop would give less; order of bands, groups or months mixed up does too.
    everything = 2 * crop.sum() / (len(crop) + crop.sum())
    assert f1 > everything + 0.1, (f1, everything)


def galileo_by_hand(series: Tensor, state: dict[str, Tensor], red_nir: list[list[float]]) -> Tensor:
    """One normalised series (T, 19) -> embedding: kernels at one pixel are the pseudo-inverse's row for a constant patch."""
    red, nir = (series[:, c] * std + mean for c, (mean, std) in zip((4, 8), red_nir, strict=True))
    ndvi = (nir - red) / (nir + red)
    month = series[:, 18].long()
    x, quarter = [], state["pos_embed"].shape[1]
    spatial = torch.cat([torch.zeros(quarter // 4), torch.ones(quarter // 4)]).repeat(2)
    groups = {"S1": [0, 1], "S2_RGB": [2, 3, 4], "S2_Red_Edge": [5, 6, 7], "S2_NIR_10m": [8], "S2_NIR_20m": [9],
              "S2_SWIR": [10, 11], "NDVI": None}  # fmt: skip
    # A one-pixel image resized from 8x8 weighs the 64 pixels; its pseudo-inverse is that row over its squared length.
    unit = torch.eye(64).unflatten(1, (8, 8))[:, None]
    weights = F.interpolate(unit, (1, 1), mode="bicubic", antialias=True).flatten()
    weights = weights / (weights @ weights)
    for index, (name, columns) in enumerate(groups.items()):
        for t in range(len(series)):
            values = ndvi[t : t + 1] if columns is None else series[t, columns]
            kernel = state[f"space_time_embed.{name}.proj.weight"].flatten(2) @ weights
            token = kernel @ values + state[f"space_time_embed.{name}.proj.bias"]
            code = [state["s_t_channel_embed"][index], state["pos_embed"][t], state["month_embed.weight"][month[t]]]
            x.append(token + torch.cat([*code, spatial]))
    none = torch.zeros(quarter)
    for t in range(len(series)):
        token = state["time_embed.ERA5.weight"] @ series[t, 12:14] + state["time_embed.ERA5.bias"]
        code = [state["t_channel_embed"][0], state["pos_embed"][t], state["month_embed.weight"][month[t]], none]
        x.append(token + torch.cat(code))
    kernel = state["space_embed.SRTM.proj.weight"].flatten(2) @ weights
    token = kernel @ series[0, 14:16] + state["space_embed.SRTM.proj.bias"]
    x.append(token + torch.cat([state["sp_channel_embed"][0], none, none, spatial]))
    place = unit_vector(series[0, 16], series[0, 17])
    token = state["static_embed.location.weight"] @ place + state["static_embed.location.bias"]
    x.append(token + torch.cat([state["st_channel_embed"][1], none, none, none]))
    tokens = torch.stack(x)
    for index in range(4):
        tokens = block(tokens, state, f"blocks.{index}", 8)
    return F.layer_norm(tokens, tokens.shape[-1:], state["norm.weight"], state["norm.bias"]).mean(0)


@real
def test_galileo_equals_a_forward_pass_token_by_token(results: Results) -> None:
    teacher = load_teacher("galileo-nano-series", NANO)
    raw = physical_series(3, 12)[..., [*range(16), 18, 19, 17]]
    raw[raw == 65535] = 1000
    series = torch.from_numpy(teacher.spec.input_spec.normalise(raw))
    with torch.inference_mode():
        found = teacher(series)
        for one, values in zip(found, series, strict=True):
            expected = galileo_by_hand(values, teacher.net.state_dict(), teacher.spec.arch["red_nir"])
            assert (one - expected).abs().max() <= TOLERANCE
    results.setdefault("galileo-nano-series", {})["formulas"] = "written out, real weights"


def enlarged(patch: Tensor) -> Tensor:
    """(C, p, p) -> (C, 64): of all 8x8 patches that shrink to it the smallest, from the normal equations."""
    units = torch.eye(64, dtype=torch.float64).unflatten(1, (8, 8))[:, None]
    shrink = F.interpolate(units, patch.shape[-2:], mode="bicubic", antialias=True).flatten(1).T
    return (shrink.T @ torch.linalg.solve(shrink @ shrink.T, patch.flatten(1).double().T)).T.float()


def waves(pixels: int, width: int) -> list[float]:
    """Sines, then cosines of a place; the frequencies fall by a factor of 10000 over ``2 * width``, as published."""
    angles = [pixels / 10000 ** (k / width / 2) for k in range(width // 2)]
    return [*map(math.sin, angles), *map(math.cos, angles)]


def galileo_image_by_hand(image: Tensor, state: dict[str, Tensor], red_nir: list[list[float]], patch: int) -> Tensor:
    """One normalised image series (T, 11, H, W) -> embedding, patch by patch with the stored 8x8 kernels."""
    red, nir = (image[:, c] * std + mean for c, (mean, std) in zip((2, 6), red_nir, strict=True))
    ndvi = ((nir - red) / (nir + red))[:, None]
    groups = {"S2_RGB": (1, image[:, :3]), "S2_Red_Edge": (2, image[:, 3:6]), "S2_NIR_10m": (3, image[:, 6:7]),
              "S2_NIR_20m": (4, image[:, 7:8]), "S2_SWIR": (5, image[:, 8:10]), "NDVI": (6, ndvi)}  # fmt: skip
    half, x = state["pos_embed"].shape[1] // 2, []
    for name, (index, bands) in groups.items():
        kernel, bias = (state[f"space_time_embed.{name}.proj.{n}"] for n in ("weight", "bias"))
        for t in range(len(image)):
            month = state["month_embed.weight"][int(image[t, 10, 0, 0])]
            for top in range(0, image.shape[-2], patch):
                for left in range(0, image.shape[-1], patch):
                    seen = enlarged(bands[t, :, top : top + patch, left : left + patch])
                    place = torch.tensor([*waves(left, half), *waves(top, half)])
                    code = [state["s_t_channel_embed"][index], state["pos_embed"][t], month, place]
                    x.append((kernel.flatten(2) * seen).sum((1, 2)) + bias + torch.cat(code))
    tokens = torch.stack(x)
    for index in range(4):
        tokens = block(tokens, state, f"blocks.{index}", 8)
    return F.layer_norm(tokens, tokens.shape[-1:], state["norm.weight"], state["norm.bias"]).mean(0)


@real
def test_galileo_on_images_equals_a_forward_pass_patch_by_patch(results: Results) -> None:
    teacher = load_teacher("galileo-nano-image", NANO)
    spec = teacher.spec.input_spec
    raw = np.random.default_rng(0).uniform(200, 4000, (2, *spec.shape)).astype(np.float32)
    raw[:, :, 10] = np.array([0, 4, 11], np.float32)[:, None, None]
    images = torch.from_numpy(spec.normalise(raw))
    with torch.inference_mode():
        found = teacher(images)
        for one, values in zip(found, images, strict=True):
            expected = galileo_image_by_hand(values, teacher.net.state_dict(), teacher.spec.arch["red_nir"], 4)
            assert (one - expected).abs().max() <= TOLERANCE
    results.setdefault("galileo-nano-image", {})["formulas"] = "written out, real weights"


def test_kernels_of_the_stored_size_stay_and_follow_new_weights() -> None:
    embed = PatchEmbed(2, 4, 8, 8)
    embed.load_state_dict({k: torch.randn_like(v) for k, v in embed.state_dict().items()})
    x = torch.randn(1, 2, 16, 16)
    assert torch.allclose(embed(x), embed.proj(x).permute(0, 2, 3, 1), atol=1e-5)
    assert set(embed.state_dict()) == {"proj.weight", "proj.bias"}


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_a_resized_kernel_answers_as_the_stored_one_on_the_enlarged_patch(patch: int) -> None:
    """FlexiViT's property, exact where the patch can be enlarged without loss."""
    matrix = resize_matrix(8, patch)
    small = torch.randn(1, 1, patch, patch, dtype=torch.float64)
    # The minimum-norm patch of 8x8 pixels that shrinks to the small one.
    large = (small.flatten() @ matrix.double()).unflatten(0, (8, 8))
    shrunk = F.interpolate(large[None, None], (patch, patch), mode="bicubic", antialias=True)
    assert torch.allclose(shrunk, small, atol=1e-4)


def test_images_give_a_token_per_patch_month_and_group() -> None:
    row = small_row("galileo-nano-image")
    net = random_net(row)
    x = torch.rand(2, *row.input_spec.shape)
    x[:, :, -1] = 3
    patches = (row.input_spec.tile // row.arch["patch"]) ** 2
    assert net.tokens(x).shape == (2, patches * row.input_spec.frames * len(row.arch["groups"]), 16)
    moved = x.clone()
    moved[:, :, :-1, :4, :4] += 1  # the last band is the month, which is no patch's own
    with torch.inference_mode():
        changed = (net.tokens(moved) - net.tokens(x)).abs().amax((0, 2)) > 1e-6
    assert changed.sum() == row.input_spec.frames * len(row.arch["groups"])
