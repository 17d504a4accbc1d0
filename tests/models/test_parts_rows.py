"""Rows deployed as parts, or with windows that move: size, published names, authors' files, the sniffer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rsedge.data.errors import RequestError
from rsedge.models import zoo
from rsedge.models.checkpoint import misfit
from rsedge.models.families import family
from rsedge.models.teachers import load_row, meta_net, sniff
from rsedge.models.zoo import TeacherRow, teacher_row
from tests.conftest import Results
from tests.models.small import listing, random_net
from tests.models.small_parts import ROWS, authors_file, small_row

NAMES = [row.name for row in ROWS]
LISTINGS = [
    ("rvsa-vitb", "rvsa_vit"),
    ("rvsa-vitb-kvdiff", "rvsa_vit_kvdiff"),
    ("rvsa-vitaeb", "rvsa_vitae"),
    ("hypersigma-cls-b", "hypersigma_cls"),
    ("hypersigma-seg-b", "hypersigma_seg"),
]
ALSO = {"sam_points": ("sam",)}
"""SAM's own files hold the encoder and decoder of RSPrompter too."""
HEAVY = {"aquila"}  # timm initialises a large ConvNeXt even where nothing is stored


@pytest.mark.parametrize("row", [r for r in ROWS if r.name not in HEAVY], ids=lambda r: r.name)
def test_the_parameter_count_is_exact(row: TeacherRow, results: Results) -> None:
    assert sum(p.numel() for p in meta_net(row.family, row.arch).parameters()) == row.params
    results.setdefault(row.name, {})["size"] = "exact"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(HEAVY))
def test_the_parameter_count_is_exact_of_the_heavy_ones(name: str) -> None:
    row = teacher_row(name)
    assert sum(p.numel() for p in meta_net(row.family, row.arch).parameters()) == row.params


@pytest.mark.parametrize(("name", "published"), LISTINGS)
def test_names_and_shapes_are_the_published_ones(name: str, published: str, results: Results) -> None:
    row, shapes = teacher_row(name), listing(published)
    net = meta_net(row.family, family(row.family).fit(row.arch, shapes))
    assert misfit(net.state_dict(), shapes) == ""
    results.setdefault(name, {})["names"] = "listing"


@pytest.mark.parametrize(
    ("name", "published"),
    [
        # diffusers: UNet2DConditionModel of Stable Diffusion 1.5, and of 2 with an embedding of the resolution; the decoder
        ("crs-diff-unet", 859_520_964),
        ("text2earth-unet", 865_910_724 + (320 * 1280 + 1280) + (1280 * 1280 + 1280)),
        ("crs-diff-decoder", 49_490_179 + 20),
    ],
)
def test_sizes_are_those_that_diffusers_has(name: str, published: int, results: Results) -> None:
    assert teacher_row(name).params == published
    results[name] = {"names": "diffusers' size"}


@pytest.mark.parametrize("name", NAMES)
def test_a_file_in_the_authors_layout_loads_strictly_and_is_recognised(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, results: Results
) -> None:
    row = small_row(name)
    net = random_net(row)
    path = authors_file(row, net, tmp_path)
    state = net.state_dict()
    loaded = load_row(row, path).net.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in loaded.items())

    small = [small_row(n) for n in NAMES]  # before the patch: small_row reads the zoo
    monkeypatch.setattr(zoo, "zoo", lambda: small)
    if row.checkpoint.marks:
        found = sniff(path)
        assert name in found
        assert {r.family for r in ROWS if r.name in found} <= {row.family, *ALSO.get(row.family, ())}
    else:
        assert row.published == "description" or path.is_dir()
    results.setdefault(row.name, {})["file"] = "loads, recognised" if row.checkpoint.marks else "loads"


@pytest.mark.parametrize(("system", "others"), [("crs-diff", set()), ("hsigene", {"hsigene-control-unit"})])
def test_a_whole_system_in_one_file_is_the_rows_that_share_it(
    system: str, others: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [f"{system}-{share}" for share in ("unet", "control", "decoder")]
    nets = {name: random_net(small_row(name)) for name in rows}
    whole: dict[str, torch.Tensor] = {}
    for name, net in nets.items():
        written = torch.load(authors_file(small_row(name), net, tmp_path), weights_only=True)["state_dict"]
        whole |= {k: v for k, v in written.items() if v.shape != (2,)}
    torch.save({"state_dict": {**whole, "betas": torch.ones(1000)}}, tmp_path / "last.ckpt")
    for name, net in nets.items():
        loaded = load_row(small_row(name), tmp_path / "last.ckpt").net.state_dict()
        assert all(torch.equal(value, loaded[key]) for key, value in net.state_dict().items())
    small = [small_row(n) for n in NAMES]
    monkeypatch.setattr(zoo, "zoo", lambda: small)
    assert set(sniff(tmp_path / "last.ckpt")) == {*rows, *others}


@pytest.mark.parametrize("name", ["rvsa-vitb-kvdiff", "hypersigma-cls-b", "ffca-yolo", "earthdial", "hsigene-decoder"])
def test_a_missing_tensor_is_named(name: str, tmp_path: Path) -> None:
    row = small_row(name)
    net = random_net(row)
    state = dict(net.state_dict())
    gone = next(k for k in reversed(state) if k.endswith("weight"))
    del state[gone]
    torch.save(state, tmp_path / "cut.pth")
    plain = row.model_copy(update={"checkpoint": type(row.checkpoint)()})
    with pytest.raises(RequestError, match=rf"1 missing keys: {gone.replace('.', chr(92) + '.')}"):
        load_row(plain, tmp_path / "cut.pth")


def test_a_head_gives_a_classifier_and_a_cube_its_own_size(tmp_path: Path) -> None:
    row = small_row("rvsa-vitaeb")
    teacher = load_row(row, authors_file(row, random_net(row, classes=7), tmp_path))
    assert (teacher.spec.task, len(teacher.spec.classes)) == ("classification", 7)
    row = small_row("hypersigma-seg-b")
    teacher = load_row(row, authors_file(row, random_net(row, bands=9, image=48, classes=5), tmp_path))
    assert teacher(torch.rand(1, 9, 48, 48)).shape == (1, 5, 48, 48)


def test_arch_arguments_survive_json() -> None:
    for row in ROWS:
        assert json.loads(json.dumps(row.arch)) == row.arch
