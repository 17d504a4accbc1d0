"""Images in a folder as samples: classes by sub-folders, what is cut, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin

from rsedge.data.errors import RequestError
from rsedge.data.samples.samples import Samples
from rsedge.data.sets.sample_sources import load_samples

TILE = 8


def image(path: Path, height: int, width: int, seed: int = 0, bands: int = 2, **more: Any) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(1, 250, (bands, height, width)).astype(more.pop("dtype", np.uint16))
    given = {"crs": "EPSG:32633", "transform": from_origin(5e5, 5e6, 10, 10), "nodata": 0, "driver": "GTiff", **more}
    with rasterio.open(
        path, "w", count=bands, height=height, width=width, dtype=values.dtype, **{k: v for k, v in given.items() if v is not None}
    ) as file:  # fmt: skip
        file.write(values)
    return values


def load(folder: Path, **options: Any) -> Samples:
    return load_samples(
        "chips", folder, **{"folder": "set", "tile": TILE, "bands": ["red", "nir"], "scale": 1e-4, **options}
    )


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.dictionaries(
        st.sampled_from(["a", "b c", "z"]), st.lists(st.tuples(st.integers(8, 20), st.integers(8, 20)), min_size=1, max_size=3),
        min_size=2,
    ),
    backwards=st.booleans(),
)  # fmt: skip
def test_every_tile_has_the_class_of_its_folder_and_the_pixels_of_its_image(
    tmp_path_factory: pytest.TempPathFactory, sizes: dict[str, list[tuple[int, int]]], backwards: bool
) -> None:
    folder = tmp_path_factory.mktemp("chips")
    expected = []
    for name in sorted(sizes):
        for n, (height, width) in enumerate(sizes[name]):
            values = image(folder / f"set/{name}/{n}.tif", height, width, seed=n)
            for row in range(0, height - TILE + 1, TILE):
                for col in range(0, width - TILE + 1, TILE):
                    expected.append((name, values[:, row : row + TILE, col : col + TILE] * 1e-4))
    classes = sorted(sizes, reverse=True) if backwards else None
    found = load(folder, labels="folders", classes=classes)
    assert found.classes == tuple(classes or sorted(sizes)) and found.layout == "CHW" and found.bands == ("red", "nir")
    assert found.labels is not None and found.group is not None
    assert [found.classes[int(label)] for label in found.labels] == [name for name, _ in expected]
    np.testing.assert_allclose(found.values, np.stack([tile for _, tile in expected]), rtol=1e-6)
    assert len(set(found.group.tolist())) == sum(len(images) for images in sizes.values()), "an image is held out whole"
    assert load(folder).labels is None


def test_the_same_images_in_folders_of_other_names_are_other_samples(tmp_path: Path) -> None:
    """Their digest is in the keys of a run, which knows nothing of where they lie."""
    found = {}
    for folder, names in {"one": "ab", "two": "bc", "far/away": "ab"}.items():
        for number, name in enumerate(names):
            image(tmp_path / folder / f"set/{name}/x.tif", TILE, TILE, seed=number)
        found[folder] = load(tmp_path / folder, labels="folders")
    assert found["one"].sha256 == found["two"].sha256 and found["one"].digest() != found["two"].digest()
    assert found["one"].digest() == found["far/away"].digest()


def test_a_single_image_is_held_out_by_blocks(tmp_path: Path) -> None:
    image(tmp_path / "set/one.tif", 64, 32)
    found = load(tmp_path)
    assert found.group is not None and sorted(set(found.group.tolist())) == ["image 0 0-0", "image 0 1-0"]
    assert found.cells is not None and found.cells.shape == (8 * 4, 3)


def test_pictures_are_colours_and_hidden_files_do_not_count(tmp_path: Path) -> None:
    values = image(
        tmp_path / "set/a.png", TILE, TILE, bands=3, dtype=np.uint8, driver="PNG", nodata=None, crs=None, transform=None
    )
    (tmp_path / "set/._b.png").write_bytes(b"no image")
    found = load(tmp_path, bands=["red", "green", "blue"], scale=None)
    np.testing.assert_allclose(found.values[0], values / 255, rtol=1e-6)


@pytest.mark.parametrize(
    ("files", "options", "words"),
    [
        ([], {}, "is no folder"),
        (["set/note.txt"], {}, "holds no image"),
        (["set/a.tif", "set/x/b.tif"], {"labels": "folders"}, "do not lie in two or more folders"),
        (["set/x/a.tif", "set/x/b.tif"], {"labels": "folders"}, "do not lie in two or more folders"),
        (["set/x/a.tif", "set/y/b.tif"], {"labels": "folders", "classes": ["x", "yy"]}, "no folder 'yy' (nearest: 'y')"),
        (["set/x/a.tif", "set/y/b.tif", "set/z/c.tif"], {"labels": "folders", "classes": ["x", "y"]}, "the folder 'z' is none"),
        (["set/a.tif"], {"tile": 32}, "smaller than the tile of 32"),
        (["set/a.tif"], {"tile": 4}, "tile"),
        (["set/a.tif"], {"scale": None}, "scale"),
    ],
)  # fmt: skip
def test_what_does_not_go_is_refused(tmp_path: Path, files: list[str], options: dict[str, Any], words: str) -> None:
    for name in files:
        if name.endswith(".tif"):
            image(tmp_path / name, 16, 16)
        else:
            (tmp_path / name).parent.mkdir()
            (tmp_path / name).write_text("no image")
    with pytest.raises(RequestError) as caught:
        load(tmp_path, **options)
    assert words in str(caught.value)


def test_images_of_other_bands_are_named(tmp_path: Path) -> None:
    for name, bands in (("a", ("red", "nir")), ("b", ("red", "green"))):
        image(tmp_path / f"set/{name}.tif", TILE, TILE)
        with rasterio.open(tmp_path / f"set/{name}.tif", "r+") as file:
            file.descriptions = bands
    with pytest.raises(RequestError, match=r"b\.tif has the bands red, green"):
        load(tmp_path, bands=None)
