"""Image-text sets written in their publishers' layouts, and what is wrong with a record, by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from rsedge.data.captions.sets import caption_rows
from rsedge.data.errors import MissingCapability, RequestError
from rsedge.data.scenes.images import read_rgb
from rsedge.data.sets.sample_sources import load_samples, open_captions

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
TURNS = [{"from": "human", "value": "<image>\nHow many ships?"}, {"from": "gpt", "value": "Two."},
         {"from": "human", "value": "Where?"}, {"from": "gpt", "value": "In the harbour."}]  # fmt: skip


def picture(path: Path, value: int, size: tuple[int, int] = (40, 32), bands: int = 3, dtype: str = "uint8") -> None:
    """Bands ``value``, ``value + 1`` ...; the outer four pixels are nought."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((bands, *size), dtype)
    pixels[:, 4:-4, 4:-4] = np.arange(value, value + bands)[:, None, None]
    with rasterio.open(path, "w", driver="PNG", count=bands, height=size[0], width=size[1], dtype=dtype) as f:
        f.write(pixels)


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")


def rsicap(root: Path) -> None:
    write(
        root / "captions.json", {"annotations": [{"filename": f"{i}.png", "caption": f"Ship {i}."} for i in range(3)]}
    )
    for i in range(3):
        picture(root / "images" / f"{i}.png", 10 * i)


def skyscript(root: Path) -> None:
    write(
        root / caption_rows()["skyscript"].file,
        'filepath,title,title_multi_objects\nimages2/a.png,a dam,"a dam, a road"\n',
    )
    picture(root / "images2/a.png", 5)


def chatearthnet(root: Path) -> None:
    records = [{"image_id": "a.png", "caption": ["Water and wood."]}, {"image": "b.png", "caption": "Fields."}]
    write(root / caption_rows()["chatearthnet"].file, records)
    for name in "ab":
        picture(root / "s2_images" / f"{name}.png", 7)


def rs_gpt4v(root: Path) -> None:
    write(root / "train.json", [{"id": "1", "image": "x/a.png", "conversations": TURNS}])
    picture(root / "images/x/a.png", 9)


def rsicd(root: Path) -> None:
    sentences = [{"raw": "Many planes.", "tokens": ["many"]}, {"raw": "An airport.", "tokens": []}]
    write(root / "dataset_rsicd.json", {"images": [{"filename": "a.png", "split": "test", "sentences": sentences}]})
    picture(root / "RSICD_images/a.png", 3)


def satin(root: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    picture(root / "a.png", 50)
    table = pyarrow.table({"image": [{"bytes": (root / "a.png").read_bytes(), "path": "a.png"}] * 2, "label": [1, 0]})
    described = {"info": {"features": {"label": {"names": ["barren land", "trees"], "_type": "ClassLabel"}}}}
    parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps(described)}), root / "SAT_4.parquet")


WRITERS = {"rsicap": rsicap, "skyscript": skyscript, "chatearthnet": chatearthnet, "rs-gpt4v": rs_gpt4v, "rsicd": rsicd,
           "satin": satin}  # fmt: skip
EXPECTED = {
    "rsicap": [("Ship 0.",), ("Ship 1.",), ("Ship 2.",)],
    "skyscript": [("a dam, a road",)],
    "chatearthnet": [("Water and wood.",), ("Fields.",)],
    "rs-gpt4v": [("Two.", "In the harbour.")],
    "rsicd": [("Many planes.", "An airport.")],
    "satin": [("a satellite photo of trees.",), ("a satellite photo of barren land.",)],
}


@pytest.mark.parametrize("name", caption_rows())
def test_a_known_layout_gives_images_and_texts(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    found = open_captions(f"captions:{name}", tmp_path)
    assert [pair.texts for pair in found.pairs] == EXPECTED[name]
    for pair in found.pairs:
        image = pair.read()
        assert image.shape == (3, 40, 32) and image.dtype == np.uint8
        assert np.diff(image[:, 20, 16]).tolist() == [1, 1]


def test_conversations_keep_their_questions(tmp_path: Path) -> None:
    rs_gpt4v(tmp_path)
    assert open_captions("captions:rs-gpt4v", tmp_path).pairs[0].prompts == ("How many ships?", "Where?")


def test_samples_are_the_middles_of_the_images_with_texts(tmp_path: Path) -> None:
    rsicap(tmp_path)
    picture(tmp_path / "images/2.png", 1, (16, 16))
    samples = load_samples("captions:rsicap", root=tmp_path, tile=24)
    assert samples.values.shape == (2, 3, 24, 24) and samples.bands == ("red", "green", "blue")
    # The nought frame of four pixels lies outside of the middle 24 of 32.
    assert np.allclose(samples.values, np.array([[0, 1, 2], [10, 11, 12]])[..., None, None] / 255)
    assert samples.texts == (("Ship 0.",), ("Ship 1.",)) and "1 image(s) smaller" in " ".join(samples.notes)
    assert samples.take(np.array([1])).texts == (("Ship 1.",),)
    assert len(load_samples("captions:rsicap", root=tmp_path, tile=24, limit=1)) == 1
    rsicd(tmp_path / "r")
    split = load_samples("captions:rsicd", root=tmp_path / "r", tile=16).split
    assert split is not None and split.tolist() == ["test"]
    with pytest.raises(RequestError, match="every image is smaller than 64"):
        load_samples("captions:rsicap", root=tmp_path, tile=64)


def test_a_set_of_ones_own_in_json_lines(tmp_path: Path) -> None:
    write(
        tmp_path / "mine.jsonl",
        '{"img": "a.png", "meta": {"say": ["one", "two"]}}\n\n{"img": "a.png", "meta": {"say": "three"}}\n',
    )
    picture(tmp_path / "a.png", 1)
    layout = {"file": "mine.jsonl", "image": ["img"], "texts": ["meta.say"], "template": "It shows {}."}
    found = open_captions("captions:file", tmp_path, **layout)
    assert [p.texts for p in found.pairs] == [("It shows one.", "It shows two."), ("It shows three.",)]
    assert len(open_captions("captions:file", tmp_path, limit=1, **layout).pairs) == 1
    assert len(load_samples("captions:file", root=tmp_path, layout=layout, tile=16)) == 2


@pytest.mark.parametrize(
    ("text", "layout", "message"),
    [
        ('{"x": []}', {}, r"the file is no list of records; give records; it has x"),
        ('{"x": []}', {"records": "y"}, r"'y' is no list of records"),
        ("[]", {}, "no record"),
        ("[1]", {}, "record 1: a record is a mapping"),
        ('[{"file": "a.png"}]', {}, "record 1: no field image; give image in layout"),
        ('[{"image": "a.png"}]', {}, "record 1: no field text; give "),
        ('[{"image": "a.png", "text": " "}]', {}, "record 1: no text in text"),
        ('[{"image": 3, "text": "x"}]', {}, "the image is no path, but int"),
        ('[{"image": "../a.png", "text": "x"}]', {}, r"image '\.\./a\.png' lies outside of"),
        ('[{"image": "a.png", "text": 3}]', {}, "class number 3 has no name; give classes"),
        ('[{"image": "a.png", "text": 1.5}]', {}, "a text is no float"),
        ('[{"image": "a.png", "text": 1}', {}, "not valid JSON"),
        ('[{"image": "a.png", "turns": "x"}]', {"turns": "turns"}, "'turns' is no list of turns"),
        ("[]", {"template": "none"}, "write one {} where the text goes"),
        ("[]", {"txets": ["a"]}, "txets: Extra inputs"),
    ],
)
def test_a_wrong_record_is_named(text: str, layout: dict[str, Any], message: str, tmp_path: Path) -> None:
    write(tmp_path / "t.json", text)
    picture(tmp_path / "a.png", 1)
    fields = {"file": "t.json", "image": ["image"]} | ({} if "turns" in layout else {"texts": ["text"]}) | layout
    with pytest.raises(RequestError, match=message):
        open_captions("captions:file", tmp_path, **fields)


def test_absent_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"'rsicab' are unknown \(nearest: 'rsicap'\)"):
        open_captions("captions:rsicab", tmp_path)
    with pytest.raises(MissingCapability, match=r"captions\.json does not exist"):
        open_captions("captions:rsicap", tmp_path)
    rsicap(tmp_path)
    (tmp_path / "images/1.png").unlink()
    with pytest.raises(MissingCapability, match=r"1 of 3 images do not exist, first .*1\.png"):
        open_captions("captions:rsicap", tmp_path)
    write(tmp_path / "t.jsonl", '{"image": "a"}\n{')
    with pytest.raises(RequestError, match=r"t\.jsonl:2: not valid JSON"):
        open_captions("captions:file", tmp_path, file="t.jsonl", image=["image"], texts=["image"])
    write(tmp_path / "t.txt", "x")
    with pytest.raises(RequestError, match=r"one of \.json, \.jsonl"):
        open_captions("captions:file", tmp_path, file="t.txt", image=["image"], texts=["text"])


def test_images_of_other_kinds(tmp_path: Path) -> None:
    picture(tmp_path / "grey.png", 4, bands=1)
    assert np.array_equal(read_rgb(tmp_path / "grey.png")[0], read_rgb(tmp_path / "grey.png")[2])
    picture(tmp_path / "alpha.png", 4, bands=4)
    assert read_rgb(tmp_path / "alpha.png")[:, 20, 16].tolist() == [4, 5, 6]
    picture(tmp_path / "deep.png", 4, dtype="uint16")
    with pytest.raises(RequestError, match=r"deep\.png: an 8-bit image .* not 3 of uint16"):
        read_rgb(tmp_path / "deep.png")
    write(tmp_path / "text.png", "no image")
    for broken in (tmp_path / "text.png", b"no image"):
        with pytest.raises(RequestError, match="not a raster that can be read as GeoTIFF, PNG, JPEG"):
            read_rgb(broken)
