"""Writers of tiny data sets in their publishers' layouts: every band of every image holds one number, ``VALUE[band]``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image

NAMES = ("coastal", "blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "watervapour", "cirrus",
         "swir16", "swir22", "vv", "vh", "pan", "lwir11", "lwir12", "lwir11_low_gain", "lwir11_high_gain")  # fmt: skip
VALUE = {name: 10 * (i + 1) for i, name in enumerate(NAMES)}
SENTINEL2 = {"B01": "coastal", "B02": "blue", "B03": "green", "B04": "red", "B05": "rededge1", "B06": "rededge2",
             "B07": "rededge3", "B08": "nir", "B8A": "nir08", "B09": "watervapour", "B10": "cirrus", "B11": "swir16",
             "B12": "swir22"}  # fmt: skip
RGB = ("red", "green", "blue")
SPLITS = ("train", "val", "test")
ISPRS = {"background": (255, 0, 0), "impervious": (255, 255, 255), "building": (0, 0, 255), "car": (255, 255, 0)}


def tif(path: Path, bands: Sequence[str], size: tuple[int, int], dtype: str = "uint16") -> None:
    stack(path, np.stack([np.full(size, VALUE[b], dtype) for b in bands]))


def stack(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = values.shape
    transform = rasterio.transform.from_origin(500_000, 5_000_000, 10, 10)
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=values.dtype, crs="EPSG:32632",
        transform=transform,
    ) as f:  # fmt: skip
        f.write(values)


def picture(path: Path, bands: Sequence[str] = RGB, size: tuple[int, int] = (32, 32)) -> None:
    image(path, np.stack([np.full(size, VALUE[b], np.uint8) for b in bands], axis=-1).squeeze())


def image(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def lines(path: Path, *text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(text) + "\n")


def eurosat(root: Path, prefix: str = "eurosat") -> None:
    for i, split in enumerate(SPLITS):
        lines(root / f"{prefix}-{split}.txt", f"Forest_{i}.jpg", f"River_{i}.jpg")
        for label in ("Forest", "River"):
            folder = root / "ds/images/remote_sensing/otherDatasets/sentinel_2/tif" / label
            order = [b for b in SENTINEL2 if b != "B8A"] + ["B8A"]
            tif(folder / f"{label}_{i}.tif", [SENTINEL2[b] for b in order], (64, 64))


def sentinel2_files(folder: Path, prefix: str, without: str = "B10") -> None:
    for band, name in SENTINEL2.items():
        edge = {"B02": 120, "B03": 120, "B04": 120, "B08": 120, "B01": 20, "B09": 20}.get(band, 60)
        if band != without:
            tif(folder / f"{prefix}_{band}.tif", [name], (edge, edge))


def bigearthnet(root: Path) -> None:
    labels = {"labels": ["Pastures", "Sea and ocean", "Burnt areas"]}
    for i, split in enumerate(SPLITS):
        s2, s1 = f"S2A_MSIL2A_2017_{i}", f"S1A_IW_2017_{i}"
        lines(root / f"bigearthnet-{split}.csv", f"{s2},{s1}")
        sentinel2_files(root / "BigEarthNet-v1.0" / s2, s2)
        for band in ("VV", "VH"):
            tif(root / "BigEarthNet-S1-v1.0" / s1 / f"{s1}_{band}.tif", [band.lower()], (120, 120), "float32")
        for folder in ("BigEarthNet-v1.0/" + s2, "BigEarthNet-S1-v1.0/" + s1):
            lines(root / folder / "labels_metadata.json", json.dumps(labels))


def bigearthnet_v2(root: Path) -> None:
    import pandas

    patches = [f"S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_{i}" for i in range(3)]
    table = {"patch_id": patches, "s1_name": patches, "labels": [["Pastures", "Marine waters"]] * 3,
             "split": ["train", "validation", "test"]}  # fmt: skip
    root.mkdir(parents=True, exist_ok=True)
    pandas.DataFrame(table).to_parquet(root / "metadata.parquet")
    (root / "BigEarthNet-S1").mkdir()
    for patch in patches:
        folder = Path(patch.rsplit("_", 2)[0]) / patch
        sentinel2_files(root / "BigEarthNet-S2" / folder, patch)
        stack(root / "Reference_Maps" / folder / f"{patch}_reference_map.tif", np.full((1, 120, 120), 231, np.uint16))


def so2sat(root: Path, folder: str = "", files: Sequence[str] = ("training", "validation", "testing")) -> None:
    import h5py

    bands = [n for b, n in SENTINEL2.items() if b not in ("B01", "B09", "B10")]
    (root / folder).mkdir(parents=True, exist_ok=True)
    for file in files:
        with h5py.File(root / folder / f"{file}.h5", "w") as f:
            f["sen1"] = np.zeros((2, 32, 32, 8))
            f["sen2"] = np.broadcast_to([VALUE[b] for b in bands], (2, 32, 32, 10))
            f["label"] = np.eye(17)[[16, 2]]


def sen12ms(root: Path) -> None:
    cover = np.zeros((4, 256, 256), np.uint16)
    cover[0, :, :128], cover[0, 0, 0] = 17, 0
    cover[0, :, 128:] = 1
    for season in ("1158_spring", "1868_summer", "1970_fall", "2017_winter"):
        (root / f"ROIs{season}").mkdir(parents=True)
    for i, split in enumerate(("train", "test")):
        lines(root / f"{split}_list.txt", f"ROIs1158_spring_s2_{i}_p30.tif")
        folder = root / "ROIs1158_spring"
        tif(folder / f"s1_{i}" / f"ROIs1158_spring_s1_{i}_p30.tif", ["vv", "vh"], (256, 256), "float32")
        tif(folder / f"s2_{i}" / f"ROIs1158_spring_s2_{i}_p30.tif", list(SENTINEL2.values()), (256, 256))
        stack(folder / f"lc_{i}" / f"ROIs1158_spring_lc_{i}_p30.tif", cover)


def ssl4eo_l(root: Path, product: str, bands: Sequence[str]) -> None:
    """Seasons written out of order; the first band holds the season."""
    for season in (3, 1, 4, 2):
        values = np.stack([np.full((264, 264), VALUE[b], np.uint8) for b in bands])
        values[0] = season
        stack(root / f"ssl4eo_l_{product}" / "0000001" / f"LX_044034_2021{3 * season:02}01" / "all_bands.tif", values)


def ssl4eo_s12(root: Path, product: str, bands: dict[str, str]) -> None:
    for season in (2, 4, 1, 3):
        date = f"2020{3 * season:02}06T155901"
        name = f"S1A_IW_GRDH_1SDV_{date}_x" if product == "s1" else f"{date}_20200606T1_T17RNJ"
        for i, (file, band) in enumerate(bands.items()):
            value = season if i == 0 else VALUE[band]
            edge = 264 if i % 2 else 132
            stack(root / product / "0000003" / name / f"{file}.tif", np.full((1, edge, edge), value, np.uint16))


def satlas(root: Path, image_set: str, files: dict[str, Sequence[str]]) -> None:
    for split in ("train", "test"):
        lines(root / "metadata" / f"{split}_lowres.json", json.dumps([[7, 9], [8, 9]]))
    images = ["one", "two"]
    lines(root / "metadata/good_images_lowres_all.json", json.dumps([[c, 9, d] for c in (7, 8) for d in images]))
    lines(
        root / "metadata/image_times.json",
        json.dumps({d: f"2022-0{i + 1}-01T00:00:00+00:00" for i, d in enumerate(images)}),
    )
    for directory in images:
        for file, bands in files.items():
            for col in (7, 8):
                picture(root / image_set / directory / file / f"{col}_9.png", bands)


def change(root: Path, plus: bool = False) -> None:
    mask = np.zeros((32, 32), np.uint8)
    mask[:4] = 255
    for split in ("train", "test") if plus else SPLITS:
        for i in range(2):
            base, name = (root / "LEVIR-CD+" / split, f"{i}.png") if plus else (root, f"{split}_{i}.png")
            picture(base / "A" / name)
            picture(base / "B" / name, RGB[::-1])
            image(base / "label" / name, mask)


def oscd(root: Path) -> None:
    for split, town, size in (("Train", "abudhabi", (40, 64)), ("Test", "dubai", (32, 36))):
        images = root / "Onera Satellite Change Detection dataset - Images" / town
        lines(images / "dates.txt", "date_1: 20160120", "date_2: 20180328")
        for time in (1, 2):
            for band, name in SENTINEL2.items():
                tif(images / f"imgs_{time}_rect" / f"{band}.tif", [name], size)
        mask = np.zeros(size, np.uint8)
        mask[:, :8] = 255
        image(root / f"Onera Satellite Change Detection dataset - {split} Labels" / town / "cm" / "cm.png", mask)


def isprs_labels(path: Path, size: tuple[int, int]) -> None:
    mask = np.zeros((*size, 3), np.uint8)
    mask[:] = ISPRS["impervious"]
    mask[0, 0], mask[0, 1] = ISPRS["car"], ISPRS["background"]
    image(path, mask)


def potsdam(root: Path) -> None:
    for name in ("top_potsdam_2_10", "top_potsdam_5_15"):
        tif(root / "4_Ortho_RGBIR" / f"{name}_RGBIR.tif", (*RGB, "nir"), (48, 48), "uint8")
        isprs_labels(root / f"{name}_label.tif", (48, 48))


def vaihingen(root: Path) -> None:
    for area, size in ((1, (48, 40)), (6, (32, 48))):
        name = f"top_mosaic_09cm_area{area}.tif"
        picture(root / "top" / name, ("nir", "red", "green"), size)
        isprs_labels(root / name, size)


def loveda(root: Path) -> None:
    mask = np.full((32, 32), 7, np.uint8)
    mask[0, 0], mask[0, 1] = 0, 1
    for split in ("Train", "Val"):
        for scene in ("Urban", "Rural"):
            picture(root / split / scene / "images_png" / "1.png")
            image(root / split / scene / "masks_png" / "1.png", mask)


def dota(root: Path, version: str) -> None:
    rows = ["image_path,annotation_path,split,version"]
    for split, size in (("train", (64, 64)), ("val", (32, 96))):
        picture(root / split / "images" / "P1.png", size=size)
        note = root / split / "annotations" / f"version{version}" / "P1.txt"
        lines(note, "imagesource:GoogleEarth", "gsd:0.3", "4 6 20 2 22 10 6 14 ship 0", "40 4 60 4 60 30 40 30 plane 0")
        rows.append(f"{split}/images/P1.png,{split}/annotations/version{version}/P1.txt,{split},{version}")
    lines(root / "samples.csv", *rows)


def dior(root: Path) -> None:
    box = "<bndbox><xmin>4</xmin><ymin>2</ymin><xmax>22</xmax><ymax>14</ymax></bndbox>"
    for split in ("train", "val"):
        picture(root / "images" / f"{split}.jpg")
        lines(root / "labels" / f"{split}.xml", f"<annotation><filename>{split}.jpg</filename><source><image/></source>"
              f"<size><width>32</width><height>32</height><depth>3</depth></size><object><name>ship</name>{box}</object>"
              "</annotation>")  # fmt: skip
    rows = [f"images/{s}.jpg,labels/{s}.xml,{s}" for s in ("train", "val")]
    lines(root / "sample_df.csv", "image_path,label_path,split", *rows)


def scenes(root: Path, folder: str, lists: str, suffix: str, classes: Sequence[str], edge: int = 256) -> None:
    for i, split in enumerate(SPLITS):
        names = [f"{c}_{i}.{suffix}" for c in classes]
        if lists:
            lines(root / f"{lists}-{split}.txt", *names)
        for label, name in zip(classes, names, strict=True):
            picture(root / folder / label / name, size=(edge, edge))


def _s12_bands(without: str = "") -> dict[str, str]:
    return {b.replace("B0", "B"): n for b, n in SENTINEL2.items() if b != without}


OLI = ("coastal", "blue", "green", "red", "nir08", "swir16", "swir22")
OLI_TIRS = (*OLI, "pan", "cirrus", "lwir11", "lwir12")
TM = ("blue", "green", "red", "nir", "swir16", "lwir11", "swir22")
ETM_TOA = (*TM[:5], "lwir11_low_gain", "lwir11_high_gain", "swir22", "pan")
SATLAS_S2 = {"tci": RGB, "b05": ["rededge1"], "b06": ["rededge2"], "b07": ["rededge3"], "b08": ["nir"], "b11": ["swir16"],
             "b12": ["swir22"]}  # fmt: skip

WRITERS: dict[str, Callable[[Path], None]] = {
    "eurosat": eurosat,
    "eurosat-spatial": lambda r: eurosat(r, "eurosat-spatial"),
    "bigearthnet": bigearthnet,
    "bigearthnet-s1": bigearthnet,
    "bigearthnet-v2": bigearthnet_v2,
    "so2sat": so2sat,
    "so2sat-culture-10": lambda r: so2sat(r, "culture_10", ("training", "testing")),
    "sen12ms": sen12ms,
    "ssl4eo-l-oli-sr": lambda r: ssl4eo_l(r, "oli_sr", OLI),
    "ssl4eo-l-oli-tirs-toa": lambda r: ssl4eo_l(r, "oli_tirs_toa", OLI_TIRS),
    "ssl4eo-l-etm-sr": lambda r: ssl4eo_l(r, "etm_sr", (*TM[:5], "swir22")),
    "ssl4eo-l-etm-toa": lambda r: ssl4eo_l(r, "etm_toa", ETM_TOA),
    "ssl4eo-l-tm-toa": lambda r: ssl4eo_l(r, "tm_toa", TM),
    "ssl4eo-s12-s2c": lambda r: ssl4eo_s12(r, "s2c", _s12_bands()),
    "ssl4eo-s12-s2a": lambda r: ssl4eo_s12(r, "s2a", _s12_bands("B10")),
    "ssl4eo-s12-s1": lambda r: ssl4eo_s12(r, "s1", {"VV": "vv", "VH": "vh"}),
    "satlas-sentinel2": lambda r: satlas(r, "sentinel2", SATLAS_S2),
    "satlas-sentinel1": lambda r: satlas(r, "sentinel1", {"vh": ["vh"], "vv": ["vv"]}),
    "satlas-landsat": lambda r: satlas(r, "landsat", {f"b{i}": [b] for i, b in enumerate(LANDSAT8, start=1)}),
    "levir-cd": change,
    "levir-cd-plus": lambda r: change(r, plus=True),
    "oscd": oscd,
    "potsdam": potsdam,
    "vaihingen": vaihingen,
    "loveda": loveda,
    "dota": lambda r: dota(r, "2.0"),
    "dota-1.0": lambda r: dota(r, "1.0"),
    "dior": dior,
    "resisc45": lambda r: scenes(r, "NWPU-RESISC45", "resisc45", "jpg", ("beach", "wetland")),
    "ucmerced": lambda r: scenes(r, "UCMerced_LandUse/Images", "uc_merced", "tif", ("beach", "river")),
    "patternnet": lambda r: scenes(r, "PatternNet/images", "", "jpg", ("beach", "wastewater_treatment_plant")),
}
LANDSAT8 = OLI_TIRS
