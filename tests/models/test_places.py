"""Location encoders against independent implementations, and GeoCLIP with its real weights."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import math
import sys
import types
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import scipy.special
import sympy
import torch
from torch import Tensor, nn

from rsedge.data.errors import RequestError
from rsedge.export.onnx.graph import Deployable
from rsedge.export.onnx.precision import make_half
from rsedge.export.onnx.writing import export_onnx
from rsedge.models.families import family
from rsedge.models.families.csp import Grid
from rsedge.models.families.geoclip import LocationEncoder, equal_earth
from rsedge.models.families.retrieval import pack, read_database
from rsedge.models.families.satclip import SphericalHarmonics, printed
from rsedge.models.teachers import load_row, load_teacher, packaged_path, sniff
from rsedge.models.zoo import teacher_row
from tests.conftest import Results
from tests.models.small import random_net, small_row

TOLERANCE = 1e-5
geoclip = pytest.mark.skipif(importlib.util.find_spec("geoclip") is None, reason="geoclip is not installed")


def places(count: int, latitude_first: bool = False) -> Tensor:
    """Evenly over the sphere, with both poles and the date line."""
    rng = np.random.default_rng(0)
    latitude = np.degrees(np.arcsin(rng.uniform(-1, 1, count)))
    longitude = rng.uniform(-180, 180, count)
    latitude[:6], longitude[:6] = [90, -90, 89.9, -89.9, 0, 0], [0, 0, 10, 20, 180, -180]
    pair = (latitude, longitude) if latitude_first else (longitude, latitude)
    return torch.tensor(np.stack(pair, 1), dtype=torch.float32)


@pytest.fixture
def authors_encoder(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """The wheel's own module with its weights; the packages around it would load transformers, which it does not need."""
    found = importlib.util.find_spec("geoclip")
    if found is None or not found.submodule_search_locations:
        pytest.skip("geoclip is not installed")
    folder = Path(next(iter(found.submodule_search_locations)))
    for name, place in (("geoclip", folder), ("geoclip.model", folder / "model")):
        package = types.ModuleType(name)
        package.__path__ = [str(place)]
        package.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        package.__spec__.submodule_search_locations = [str(place)]
        monkeypatch.setitem(sys.modules, name, package)
    module = importlib.import_module("geoclip.model.location_encoder")
    encoder: nn.Module = module.LocationEncoder(from_pretrained=True).eval()
    return encoder


def test_geoclip_equals_its_authors_module_with_the_real_weights(authors_encoder: nn.Module, results: Results) -> None:
    theirs = authors_encoder
    ours, points = load_teacher("geoclip-location"), places(300, latitude_first=True)
    with torch.inference_mode():
        expected = theirs(points)
        assert expected.abs().max() > 0.05
        difference = float((ours(points) - expected).abs().max())
    assert difference <= TOLERANCE
    shown = f"{difference / float(expected.abs().max()):.0e}" if difference else "equal"
    results.setdefault("geoclip-location", {}).update(
        authors=f"{shown}, real weights", file="real file loads, recognised"
    )


def test_gair_is_geoclips_encoder_with_the_longitude_first(authors_encoder: nn.Module, results: Results) -> None:
    """GAIR's own weights are not in a wheel: its architecture with GeoCLIP's, whose last layer is narrower."""
    row, taught = teacher_row("gair-location"), load_teacher("geoclip-location")
    net = family(row.family).build(**row.arch | {"dim": 512}).eval()
    net.load_state_dict(taught.net.state_dict())
    points = places(300)
    with torch.inference_mode():
        assert (net(points) - authors_encoder(points.flip(1))).abs().max() <= TOLERANCE
    results.setdefault("gair-location", {})["library"] = "GeoCLIP's package"


@geoclip
def test_the_wheels_file_is_recognised() -> None:
    weights = teacher_row("geoclip-location").weights
    assert weights is not None
    assert sniff(packaged_path(weights, "GeoCLIP")) == ["geoclip-location"]


def test_the_projection_keeps_areas() -> None:
    """Equal Earth: the surface between parallels is the same share of the map as of the sphere."""
    latitude = torch.linspace(-90, 90, 2001, dtype=torch.float64)
    x, y = equal_earth(latitude, torch.full_like(latitude, 180.0))
    area = torch.cumulative_trapezoid(x, y)
    share = (torch.sin(torch.deg2rad(latitude[1:])) + 1) / 2
    assert (area / area[-1] - share).abs().max() < 1e-5


@geoclip
def test_projection_and_features_stay_in_float32_where_the_rest_is_half(tmp_path: Path) -> None:
    """Nothing in front of the first linear layer changes type, so fp16 costs a rounding of the MLPs and no more."""
    import onnx
    import onnxruntime as ort

    teacher = load_teacher("geoclip-location")
    graph = Deployable(teacher, teacher.spec.input_spec, "vector")
    names = [f"e{i}" for i in range(512)]
    made = export_onnx(graph, teacher.spec.input_spec, names, tmp_path / "m.onnx", opset=19)
    half = onnx.load(made.path)
    assert make_half(half).half > 0
    first = min(i for i, n in enumerate(half.graph.node) if n.op_type in ("Gemm", "MatMul"))
    waves = [i for i, n in enumerate(half.graph.node) if n.op_type in ("Sin", "Cos", "Asin")]
    assert len(waves) == 5
    assert not any(i > first and "f16" in "".join(half.graph.node[i].input) for i in waves)
    onnx.save(half, tmp_path / "h.onnx")
    full, typed = (ort.InferenceSession(tmp_path / f"{n}.onnx") for n in "mh")
    for point in places(24, latitude_first=True).numpy():
        a, b = (s.run(["logits"], {"dn": point[None]})[0][0] for s in (full, typed))
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.9999


def harmonics(points: Tensor, degrees: int) -> np.ndarray:
    """SatCLIP's published tables from scipy's complex harmonics, in float64."""
    longitude, latitude = points.double().numpy().T
    azimuth, polar = np.radians(longitude + 180), np.radians(latitude + 90)
    columns = []
    for degree in range(degrees):
        for order in range(-degree, degree + 1):
            y = scipy.special.sph_harm_y(degree, abs(order), polar, azimuth)
            real = y.imag if order < 0 else y.real
            columns.append(math.pi * real if order == 0 else (-1) ** order * math.sqrt(2) * real)
    return np.stack(columns, 1)


@pytest.mark.parametrize("degrees", [10, 40])
def test_harmonics_are_scipys(degrees: int) -> None:
    points = places(120)
    assert np.abs(SphericalHarmonics(degrees)(points).numpy() - harmonics(points, degrees)).max() <= TOLERANCE


def test_harmonics_are_the_published_numbers() -> None:
    """Constants and formulas of the published tables: order 0 carries a factor pi."""
    points = torch.tensor([[30.0, 40.0]])
    y = SphericalHarmonics(3)(points)[0].double()
    polar, azimuth = math.radians(130), math.radians(210)
    assert y[0].item() == pytest.approx(0.886226925452758, abs=1e-6)
    assert y[1].item() == pytest.approx(0.48860251190292 * math.sin(polar) * math.sin(azimuth), abs=1e-6)
    assert y[2].item() == pytest.approx(1.53499006191973 * math.cos(polar), abs=1e-6)


def test_satclip_is_harmonics_and_a_siren(results: Results) -> None:
    from rsedge.models.families.satclip import LocationEncoder as SatClip

    torch.manual_seed(0)
    ours, points = SatClip(40).eval(), places(60)
    layers = [*ours.nnet.layers, ours.nnet.last_layer]
    x = harmonics(points, 40)
    for index, layer in enumerate(layers):
        x = x @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
        x = np.sin((30 if index == 0 else 1) * x) if index < 2 else x
    with torch.inference_mode():
        found = ours(points).numpy()
    assert found.std() > 0.01
    assert np.abs(found - x).max() <= TOLERANCE
    results.setdefault("family satclip", {})["library"] = "scipy"


def test_grid_features_are_those_of_numpy() -> None:
    """Scales from 0.1 degrees: 1800 radians at the date line, where float32 phases would be wrong by 1e-4."""
    points = places(500)
    scales = 0.1 * np.exp(np.arange(32) * math.log(360 / 0.1) / 31)
    phase = points.double().numpy()[:, :, None] / scales
    expected = np.stack([np.sin(phase), np.cos(phase)], -1).reshape(500, -1)
    assert np.abs(Grid(32, 0.1, 360.0)(points).numpy() - expected).max() <= TOLERANCE


@pytest.mark.parametrize(("name", "act"), [("csp-fmow", nn.GELU()), ("csp-inat", nn.LeakyReLU(0.2))])
def test_csp_activates_its_last_layer_too(name: str, act: nn.Module, results: Results) -> None:
    row = small_row(name)
    ours, points = random_net(row, norm=True), places(50)
    first, last = ours.layers
    with torch.inference_mode():
        features = ours.grid(points)
        hidden = first.layernorm(act(features @ first.linear.weight.T + first.linear.bias))
        expected = act(hidden @ last.linear.weight.T + last.linear.bias)
        assert (ours(points) - expected).abs().max() <= TOLERANCE
    results.setdefault("family csp", {})["formulas"] = "numpy"


def database(path: Path, entries: int = 30, **changes: np.ndarray) -> Path:
    rng = np.random.default_rng(1)
    arrays = {
        "locs": np.stack([rng.uniform(-180, 180, entries), rng.uniform(-90, 90, entries)], 1),
        "satclip_embeddings": rng.normal(size=(entries, 256)),
        "image_embeddings": rng.normal(size=(entries, 1024)),
    }
    np.savez(path, **(arrays | changes))
    return path


@pytest.mark.parametrize(("degree", "order"), [(39, 0), (38, 0), (39, 1), (37, 3), (5, 0)])
def test_printed_harmonics_are_polynomials_of_15_digits(degree: int, order: int) -> None:
    """sympy's polynomials with cut coefficients less the exact ones, in fractions: what the mixing adds at longitude -180."""
    x = sympy.Symbol("x")
    terms = sympy.Poly(sympy.diff(sympy.legendre_poly(degree, x), x, order), x).terms()
    exact = {n: Fraction(c.p, c.q) for (n,), c in terms}
    scale = math.sqrt((2 * degree + 1) / 4) * math.sqrt(math.pi) if order == 0 else 1.0
    cut = {n: Fraction(f"{scale * float(c):.14e}") for n, c in exact.items()}
    ratio = Fraction(math.factorial(degree - order), math.factorial(degree + order))
    factor = 1.0 if order == 0 else math.sqrt(2 * (2 * degree + 1) / (4 * math.pi) * ratio)
    place = degree * degree + degree + order
    mixing = printed(40)[place] - np.eye(1600)[place]
    for latitude in (-85.0, -60.0, 20.0, 75.0):
        cosine = Fraction(math.cos(math.radians(latitude + 90)))
        off = float(sum((cut[n] - Fraction(scale) * c) * cosine**n for n, c in exact.items()))
        expected = off * factor * math.sqrt(1 - cosine**2) ** order
        harmonics = SphericalHarmonics(40)(torch.tensor([[-180.0, latitude]])).double().numpy()[0]
        assert mixing @ harmonics == pytest.approx(expected, abs=1e-7 + abs(expected) * 1e-3)


@pytest.mark.parametrize("name", ["range", "range-plus"])
def test_range_is_a_softmax_over_the_database(name: str, tmp_path: Path, results: Results) -> None:
    torch.manual_seed(0)
    from rsedge.models.families.satclip import LocationEncoder as SatClip

    encoder = SatClip(40).eval()
    with np.load(database(tmp_path / "db.npz")) as stored:
        locs, keys, images = (stored[k] for k in ("locs", "satclip_embeddings", "image_embeddings"))
    pack(encoder.state_dict(), tmp_path / "db.npz", tmp_path / "range.safetensors")
    row = teacher_row(name)
    row = row.model_copy(update={"arch": row.arch | {"encoder": {"degrees": 40, "harmonics": "exact"}}})
    ours, points = load_row(row, tmp_path / "range.safetensors"), places(20)
    with torch.inference_mode():
        own = encoder(points).double().numpy()
        found = ours(points).numpy()
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    keys = keys / np.linalg.norm(keys, axis=1, keepdims=True)

    def sphere(degrees: np.ndarray) -> np.ndarray:
        longitude, latitude = np.radians(degrees).T
        return np.stack(
            [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], 1
        )

    like = scipy.special.softmax(own @ keys.T * (15 if name == "range" else 12), axis=1) @ images
    if name == "range-plus":
        near = sphere(points.double().numpy()) @ sphere(locs).T
        like = 0.5 * like + 0.5 * scipy.special.softmax(near * 40, axis=1) @ images
    assert found.shape == (20, 1280)
    assert np.abs(found - np.concatenate([like, own], 1)).max() <= TOLERANCE
    results.setdefault("family retrieval", {})["formulas"] = "numpy"


def test_a_database_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"none\.npz: no such RANGE database"):
        read_database(tmp_path / "none.npz")
    with pytest.raises(RequestError, match=r"image_embeddings must be numbers \(places, 1024\), not float64 \(30, 8\)"):
        read_database(database(tmp_path / "a.npz", image_embeddings=np.ones((30, 8))))
    np.savez(tmp_path / "b.npz", locs=np.ones((2, 2)))
    with pytest.raises(RequestError, match="has no array 'satclip_embeddings'"):
        read_database(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", locs=np.array([{}], dtype=object), satclip_embeddings=1, image_embeddings=1)
    with pytest.raises(RequestError, match=r"c\.npz: array 'locs': holds object"):
        read_database(tmp_path / "c.npz")


def test_columns_go_by_the_rows_order() -> None:
    """GAIR's copy of the encoder takes longitude first."""
    torch.manual_seed(0)
    here, there = LocationEncoder(8, True, (1,), 16, 4), LocationEncoder(8, False, (1,), 16, 4)
    there.load_state_dict(here.state_dict())
    points = places(9)
    assert torch.equal(there(points), here(points.flip(1)))
