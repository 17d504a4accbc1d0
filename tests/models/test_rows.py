"""Every row: its published size, the authors' names and shapes, their files loaded strictly and recognised."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
import torch

from rsedge.data.errors import RequestError
from rsedge.models import zoo
from rsedge.models.checkpoint import misfit
from rsedge.models.families import family
from rsedge.models.teachers import load_row, load_teacher, meta_net, sniff
from rsedge.models.zoo import TeacherRow, from_columns, teacher_row
from tests.conftest import Results
from tests.models.small import SMALL, authors_file, listing, random_net, small_row

ROWS = [row for row in zoo.zoo() if row.family in SMALL]
NAMES = [row.name for row in ROWS]

# Listings of the published models (keys/*.txt).
LISTINGS = [
    ("seco-resnet50", "seco"),
    ("satmae-ms-vitb", "satmae_group_b"),
    ("satmae-temporal-vitl", "satmae_temporal"),
    ("spectralgpt-plus-vitb", "spectralgpt"),
    ("spectralgpt-vitb", "spectralgpt_mae"),
    ("gfm-swinb", "gfm_swin"),
    ("ringmo-vitb", "vitb16"),
]


@functools.cache
def parameters(family_name: str, arch: str) -> int:
    return sum(p.numel() for p in meta_net(family_name, json.loads(arch)).parameters())


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_the_parameter_count_is_exact(row: TeacherRow, results: Results) -> None:
    assert parameters(row.family, json.dumps(row.arch)) == row.params
    results.setdefault(row.name, {})["size"] = "exact"


@pytest.mark.parametrize(("name", "published"), LISTINGS)
def test_names_and_shapes_are_the_published_ones(name: str, published: str, results: Results) -> None:
    row = teacher_row(name)
    shapes = row.checkpoint.apply(listing(published))
    net = meta_net(row.family, family(row.family).fit(row.arch, shapes))
    assert misfit(net.state_dict(), shapes) == ""
    results.setdefault(name, {})["names"] = "listing"


@pytest.mark.parametrize(
    ("name", "published"),
    [
        # torchvision.models: swin_v2_b, swin_v2_t without their 1000-class heads and the norm before them
        ("satlas-s2-rgb-swinv2b", 87_930_848 - 1024 * 1000 - 1000 - 2 * 1024),
        ("satlas-s2-rgb-swinv2t", 28_351_570 - 768 * 1000 - 1000 - 2 * 768),
        ("seco-resnet18", 11_689_512 - 512 * 1000 - 1000),
        ("satlas-s2-rgb-resnet152", 60_192_808 - 2048 * 1000 - 1000),
        ("ringmo-vitb", 86_567_656 - 768 * 1000 - 1000),
        ("satmae-rgb-vitl", 304_326_632 - 1024 * 1000 - 1000),
        ("ringmo-swinb", 87_768_224 - 1024 * 1000 - 1000),
    ],
)
def test_sizes_are_those_that_torchvision_states(name: str, published: int, results: Results) -> None:
    assert teacher_row(name).params == published
    if name not in dict(LISTINGS):
        results[name] = {"names": "torchvision's size"}


@pytest.mark.parametrize("name", NAMES)
def test_a_file_in_the_authors_layout_loads_strictly_and_is_recognised(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, results: Results
) -> None:
    row = small_row(name)
    net = random_net(row)
    path = authors_file(row, net, tmp_path)
    teacher = load_row(row, path)
    state = net.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in teacher.net.state_dict().items())
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())

    small = [small_row(n) for n in NAMES]
    monkeypatch.setattr(zoo, "zoo", lambda: small)
    if row.checkpoint.marks:
        found = sniff(path)
        assert name in found
        assert {r.family for r in small if r.name in found} == {row.family}
    else:
        assert row.published == "description" or name.endswith("-exact")
    results.setdefault(name, {})["file"] = "loads, recognised" if row.checkpoint.marks else "loads"


@pytest.mark.parametrize("name", ["satmae-ms-vitb", "spectralgpt-vitb", "ssl4eo-l-etm-sr-vits"])
def test_a_head_in_the_file_gives_a_classifier(name: str, tmp_path: Path) -> None:
    row = small_row(name)
    teacher = load_row(row, authors_file(row, random_net(row, classes=7), tmp_path))
    assert (teacher.spec.task, len(teacher.spec.classes)) == ("classification", 7)
    assert teacher(torch.zeros(1, *row.input_spec.shape)).shape == (1, 7)


def test_fine_tuned_files_bring_mean_pooling(tmp_path: Path) -> None:
    row = small_row("satmae-rgb-vitl")
    teacher = load_row(row, authors_file(row, random_net(row, pool="avg", classes=62), tmp_path))
    assert "fc_norm.weight" in teacher.net.state_dict()


def test_missing_and_left_over_names_are_said(tmp_path: Path) -> None:
    row = small_row("satmae-ms-vitb")
    net = random_net(row)
    state = {k: v for k, v in net.state_dict().items() if k != "channel_embed"} | {"extra": torch.ones(1)}
    torch.save({"model": state}, tmp_path / "x.pth")
    with pytest.raises(RequestError, match=r"x\.pth: .* 1 missing keys: channel_embed; 1 left-over keys: extra"):
        load_row(row, tmp_path / "x.pth")


def test_a_row_without_weights_says_where_they_are() -> None:
    with pytest.raises(
        RequestError, match=r"seco-resnet18' needs a checkpoint: give its authors' file.*Zenodo 4728033"
    ):
        load_teacher("seco-resnet18")
    with pytest.raises(RequestError, match="its authors released no weights"):
        load_teacher("ringmo-vitb")


def test_columns_must_have_one_value_per_band() -> None:
    with pytest.raises(ValueError, match=r"^mean: 2 values for 3 bands"):
        from_columns({"bands": ["red", "green", "blue"], "mean": [0.1, 0.2]})
    bands = from_columns({"bands": ["red", "x"], "stretch": [0.0, 1.0], "nodata": 0})["bands"]
    assert bands[0] == {"name": "red", "wavelength_nm": 665, "stretch": [0.0, 1.0], "nodata": 0}
    assert "wavelength_nm" not in bands[1]


@pytest.mark.parametrize("key", ["scale", "mean", "std"])
def test_a_scale_for_some_bands_only_is_refused(key: str) -> None:
    bands = [{"name": "red", key: 0.5}, {"name": "nir"}, {"name": "swir16"}]
    with pytest.raises(ValueError, match=f"some have a {key}, but nir, swir16 have none"):
        from_columns({"bands": bands})
    with pytest.raises(ValueError, match=r"^scale: 1 values for 3 bands"):
        from_columns({"bands": ["red", "nir", "swir16"], "scale": [1e-4]})
    whole = {"bands": [{**b, key: 0.5} for b in bands]}
    assert from_columns(whole) == whole


def test_names_are_unique_and_every_row_says_where_it_is_from() -> None:
    rows = zoo.zoo()
    assert len({row.name for row in rows}) == len(rows)
    assert all(row.source and row.licence for row in rows)


def test_every_published_row_says_how_its_authors_prepare_images_or_why_not() -> None:
    for row in zoo.zoo():
        if row.published != "description":
            assert (row.prepared is None) is not (row.unprepared is None), row.name
            assert row.prepared is None or (row.prepared.output and row.prepared.source), row.name
    with pytest.raises(ValueError, match="unprepared: says why prepared is missing"):
        TeacherRow.model_validate(teacher_row("seco-resnet18").model_dump(mode="json") | {"unprepared": "x"})
