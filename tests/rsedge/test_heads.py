"""Heads on an encoder's bundle: fitted on what the bundle itself gives, signed, run once for all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import rsedge
from rsedge.data.errors import IntegrityError, RequestError
from rsedge.export.bundle import About, write_bundle
from rsedge.export.onnx.graph import Deployable
from rsedge.export.onnx.writing import export_onnx
from rsedge.export.signing import create_key, write_public
from rsedge.runtimes.bundle.head import Head, HeadRecord, encoded
from tests.runtimes import tiny_models as tiny

SPEC = tiny.spec(16)
FEATURES, COUNT, GROUPS = 8, 120, 12


class Encoder(nn.Module):
    """Means of random projections: enough to tell bright from dark, and how bright."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mix = nn.Conv2d(SPEC.channels, FEATURES, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mix(x).mean((2, 3))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    names = tuple(f"e{i}" for i in range(FEATURES))
    graph = export_onnx(Deployable(Encoder().eval(), SPEC, "vector"), SPEC, names, folder / "model.onnx").path
    about = About("chips", names, task="embedding")
    golden = [np.random.default_rng(1).integers(1, 9000, (1, *SPEC.shape)).astype(np.uint16)]
    return write_bundle(
        folder / "bundle", about, target="onnxruntime-cpu-f32", input_spec=SPEC, model_files={"model.onnx": graph},
        golden_dn=golden,
    )  # fmt: skip


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chips that are dark or bright, and how bright; some groups are brighter than others."""
    rng = np.random.default_rng(2)
    bright = rng.integers(0, 2, COUNT)
    level = 1000 + 2000 * bright + 50 * (np.arange(COUNT) % GROUPS)
    values = (level[:, None, None, None] + rng.normal(0, 300, (COUNT, *SPEC.shape))).clip(1, 9000) * 1e-4
    path = tmp_path_factory.mktemp("samples") / "chips.npz"
    groups = (np.arange(COUNT) % GROUPS).astype(str)
    np.savez(path, values=values.astype(np.float32), bright=bright, level=level / 1e4, group=groups)
    return path


OPTIONS = ["--set", f"bands=[{', '.join(tiny.NAMES)}]", "--set", "layout=CHW", "--set", "group=group"]
BRIGHT = [*OPTIONS, "--set", "label=bright", "--set", "classes=['0', '1']", "--classes", "dark,bright"]
LEVEL = [*OPTIONS, "--set", "label=level", "--set", "task=regression", "--classes", "level", "--regression"]
Cli = Callable[..., tuple[int, str, str]]


def scene_of(path: Path) -> Path:
    """Two chips by three; those of the first row are dark, the last one is nodata."""
    image = tiny.random_scene(SPEC, 32, 48)
    image[:, :16], image[:, 16:] = 1000, 3200
    image[:, 16:, 32:] = 0
    return Path(tiny.write_scene(path, image, tiny.NAMES))


def test_one_encoder_runs_once_for_two_heads(encoder: Path, samples: Path, cli: Cli, tmp_path: Path) -> None:
    for name, options in (("light", BRIGHT), ("level", LEVEL)):
        code, text, error = cli("head", encoder, samples, "-o", tmp_path / f"{name}.head", *options, "--json")
        assert code == 0, error + text
        made = json.loads(text)
        assert made["features"] == FEATURES and made["count"] == COUNT and made["bytes"] < 4000 and not made["signed"]
        assert "weight" not in made
    figure = made["figures"]["rmse"]
    assert figure["value"] < 0.02 and figure["interval"][0] <= figure["value"] <= figure["interval"][1]
    scene, output = scene_of(tmp_path / "scene.tif"), tmp_path / "vectors.tif"
    heads = f"{tmp_path / 'light.head'},{tmp_path / 'level.head'}"
    code, text, error = cli("infer", encoder, scene, "-o", output, "--heads", heads, "--json")
    assert code == 0, error + text
    record = json.loads(text)
    assert record["heads"]["light"]["pixels"] == {"dark": 3, "bright": 2} and record["nodata_pixels"] == 1
    assert record["heads"]["level"]["signature"] == "UNSIGNED"
    with rasterio.open(tmp_path / "vectors.light.tif") as light, rasterio.open(tmp_path / "vectors.level.tif") as level:
        assert light.read(1).tolist() == [[0, 0, 0], [1, 1, 255]]
        assert np.allclose(level.read(1)[:, :2], [[0.1, 0.1], [0.32, 0.32]], atol=0.03) and np.isnan(
            level.read(1)[1, 2]
        )
        assert level.crs is not None and level.descriptions == ("level",)
    with rasterio.open(output) as vectors, rsedge.load(encoder) as opened:
        grid = vectors.read()
        head = opened.head(tmp_path / "light.head")
        assert (head(grid[:, 0, 0][None]).argmax(1), head(grid[:, 1, 0][None]).argmax(1)) == (0, 1)


def test_samples_go_through_heads_too_and_done_scenes_know_theirs(
    encoder: Path, samples: Path, cli: Cli, tmp_path: Path
) -> None:
    assert cli("head", encoder, samples, "-o", tmp_path / "light.head", *BRIGHT)[0] == 0
    chips = np.full((3, *SPEC.shape), 3100, np.uint16)
    chips[0] = 1000
    np.savez(tmp_path / "chips.npz", dn=chips)
    with rsedge.load(encoder) as opened:
        for heads, status in (
            ((), "done"),
            ([tmp_path / "light.head"], "done"),
            ([tmp_path / "light.head"], "skipped"),
        ):
            found = opened.predict_all([tmp_path / "chips.npz"], tmp_path / "out", heads=heads)["scenes"][0]
            assert found["status"] == status
        (tmp_path / "out/chips.light.npz").unlink()
        assert (
            opened.predict_all([tmp_path / "chips.npz"], tmp_path / "out", heads=heads)["scenes"][0]["status"] == "done"
        )
        with pytest.raises(RequestError, match="two are called 'light'"):
            opened.predict(tmp_path / "chips.npz", tmp_path / "o.npz", heads=[tmp_path / "light.head"] * 2)
        with pytest.raises(RequestError, match="answers of heads are written beside output"):
            opened.predict(tmp_path / "chips.npz", heads=[tmp_path / "light.head"])
    with np.load(tmp_path / "out/chips.light.npz") as stored:
        assert stored["decided"].tolist() == ["dark", "bright", "bright"]


def test_a_head_is_believed_by_its_signature(encoder: Path, samples: Path, cli: Cli, tmp_path: Path) -> None:
    for name in ("ours", "theirs"):
        write_public(create_key(tmp_path / f"{name}.pem"), tmp_path / f"{name}.pub")
    place = tmp_path / "light.head"
    assert cli("head", encoder, samples, "-o", place, *BRIGHT, "--sign", tmp_path / "ours.pem")[0] == 0
    bundle = rsedge.load(encoder).opened
    from rsedge.runtimes.bundle.head import open_head

    assert open_head(place, bundle, tmp_path / "ours.pub").signature.trust == "trusted"
    assert open_head(place, bundle).signature.trust == "consistent"
    assert open_head(place, bundle).signature.name == "light.head"
    with pytest.raises(
        IntegrityError,
        match=r"light.head: the signature does not fit.*: the head was altered.*this head unless.*the head came",
    ):
        open_head(place, bundle, tmp_path / "theirs.pub")
    file = json.loads(place.read_text())
    file["head"] = file["head"].replace('"bright"', '"right"')
    place.write_text(json.dumps(file))
    with pytest.raises(IntegrityError, match="the head was altered or signed by someone else; do not use this head"):
        open_head(place, bundle)
    place.write_text(json.dumps(file | {"signature": None}))
    with pytest.raises(IntegrityError, match=r"UNSIGNED .it holds no signature.*get the signed head"):
        open_head(place, bundle, tmp_path / "ours.pub")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "a.json"], "a head's file ends in .head"),
        (["-o", "a.head", *OPTIONS], "have no labels"),
        (["-o", "a.head", *OPTIONS, "--set", "label"], "--set label: write FIELD=VALUE"),
    ],
)
def test_what_a_head_cannot_be_fitted_on(
    encoder: Path,
    samples: Path,
    cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, error = cli("head", encoder, samples, *arguments)
    assert code == 2 and message in error


def test_heads_go_on_encoders_and_only_on_their_own(
    encoder: Path, samples: Path, bundle: Callable[..., Path], cli: Cli, tmp_path: Path
) -> None:
    place = tmp_path / "light.head"
    assert cli("head", encoder, samples, "-o", place, *BRIGHT)[0] == 0
    assert cli("head", bundle(), samples, "-o", place, *BRIGHT)[0] == 2
    with rsedge.load(bundle()) as maps, pytest.raises(RequestError, match="for segmentation"):
        maps.head(place)
    file = json.loads(place.read_text())
    record = json.loads(file["head"]) | {"encoder_sha256": "0" * 64}
    place.write_text(json.dumps({"head": json.dumps(record)}))
    with rsedge.load(encoder) as opened, pytest.raises(RequestError, match=r"is another bundle.*fit it on this one"):
        opened.head(place)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 9), st.integers(0, 99))
def test_weights_come_back_as_they_were(outputs: int, features: int, seed: int) -> None:
    weight = np.random.default_rng(seed).normal(size=(outputs, features)).astype(np.float32)
    fields: dict[str, Any] = {
        "name": "a", "task": "classification", "classes": tuple(map(str, range(outputs))), "encoder": "e",
        "encoder_sha256": "0" * 64, "features": features, "weight": encoded(weight), "bias": encoded(weight[:, 0]),
        "samples": "s", "samples_sha256": "", "count": 1,
    }  # fmt: skip
    record = HeadRecord.model_validate_json(HeadRecord(**fields).model_dump_json())
    from rsedge.runtimes.bundle.head import _floats

    assert np.array_equal(_floats(record.weight, "weight").reshape(outputs, features), weight)
    with pytest.raises(ValueError, match="finite numbers are needed"):
        HeadRecord(**(fields | {"features": features + 1}))


def test_weights_too_large_are_an_error_and_missing_chips_none() -> None:
    weight = np.full((1, 2), 3e38, np.float32)
    head = Head(Path("a.head"), None, None, "", weight, np.zeros(1, np.float32))  # type: ignore[arg-type]
    assert np.isnan(head(np.full((1, 2), np.nan, np.float32))).all()
    with pytest.raises(IntegrityError, match="infinity"):
        head(np.array([[np.nan, 1], [9, 9]], np.float32))
