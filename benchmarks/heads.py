"""One encoder with heads beside whole networks: how good, how fast, how large (`make bench-heads`). Writes docs/probes.md.

    python benchmarks/heads.py [--turns 3] [--only-document]

The encoders are features of the UKIS cloud mask, with its published weights, f32 on OpenVINO, one thread. Heads for cloud and its
shadow are fitted on the Sentinel-2 scene that comes with it, for water on half a flood scene (RSEDGE_DATA): on one half of each,
and judged on the other, then the other way round. Time is processor time of mapping the cloud scene nine times side by side, turn
by turn. Kept in benchmarks/results/heads.json.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import rasterio  # noqa: E402
import torch  # noqa: E402

import rsedge  # noqa: E402
from rsedge.data.files import read_json, write_bytes, write_json  # noqa: E402
from rsedge.data.metrics.figures import statistics_of  # noqa: E402
from rsedge.data.metrics.samples import LabelComparison  # noqa: E402
from rsedge.data.metrics.statistics import estimate, units_of  # noqa: E402
from rsedge.devices.profiles.cpu import detect_cpu  # noqa: E402
from rsedge.export.bundle import About, write_bundle  # noqa: E402
from rsedge.export.onnx.graph import Deployable  # noqa: E402
from rsedge.export.onnx.writing import export_onnx  # noqa: E402
from rsedge.export.targets.openvino import export_openvino  # noqa: E402
from rsedge.heads import write_head  # noqa: E402
from rsedge.map_heads import LabelledScene, Reading, fitted_map_head  # noqa: E402
from rsedge.models.tapped import tapped  # noqa: E402
from rsedge.models.teachers import Teacher, load_teacher  # noqa: E402
from rsedge.runtimes.inference.evaluate import block_edge  # noqa: E402

DATA = Path(os.environ.get("RSEDGE_DATA", "../shared/data"))
KEPT, PAGE = ROOT / "benchmarks/results/heads.json", ROOT / "docs/probes.md"
BEGIN, END = "<!-- benchmarks/heads.py: begin -->", "<!-- benchmarks/heads.py: end -->"
TEACHER, FEATURES, UNKNOWN = "ukis-csmask-6b-l1c", ("net.decoder", "net.encoder[3]"), 255
BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
FLOOD_BANDS = [2, 3, 4, 8, 12, 13]
NINE = 3
"""The scene that is timed is the cloud scene so many times side by side and one below the other."""
Heads = dict[str, tuple[str, np.ndarray]]


def written(path: Path, image: np.ndarray, bands: tuple[str, ...] = ()) -> Path:
    profile = {"count": len(image), "height": image.shape[1], "width": image.shape[2], "dtype": image.dtype}
    with rasterio.open(path, "w", driver="GTiff", nodata=0 if bands else None, **profile) as file:
        file.write(image)
        for index, name in enumerate(bands, 1):
            file.set_band_description(index, name)
        if bands:
            file.scales = (1e-4,) * len(bands)
    return path


def scenes(folder: Path) -> tuple[dict[str, np.ndarray], Heads]:
    """Digital numbers of both scenes, and what is known of them: head -> scene, labels (H, W) of 0, 1 and 255."""
    with np.load(DATA / "ukis_csmask/sentinel2.npz") as file:
        image, mask = np.moveaxis(np.squeeze(file["img"]), -1, 0), np.squeeze(file["msk"])
    with rasterio.open(DATA / "sen1floods11_spain/west_S2.tif") as file:
        flood = file.read(FLOOD_BANDS)
    with rasterio.open(DATA / "sen1floods11_spain/west_Label.tif") as file:
        water = file.read(1)
    found = {
        "clouds": (image * 1e4).round().clip(1, 20000).astype(np.uint16),
        "flood": flood.clip(1, 20000).astype(np.uint16),
    }
    for name, dn in (*found.items(), ("nine", np.tile(found["clouds"], (1, NINE, NINE)))):
        written(folder / f"{name}.tif", dn, BANDS)
    return found, {
        "cloud": ("clouds", (mask == 4).astype(np.uint8)),
        "shadow": ("clouds", (mask == 0).astype(np.uint8)),
        "water": ("flood", np.where(water < 0, UNKNOWN, water).astype(np.uint8)),
    }  # fmt: skip


def bundle(folder: Path, teacher: Teacher, name: str, dn: np.ndarray) -> Path:
    """A network on OpenVINO, f32."""
    spec, maps = teacher.spec.input_spec, teacher.spec.task == "features"
    with torch.inference_mode():
        outputs = teacher(torch.zeros(1, *spec.shape)).shape[1]
    names = tuple(f"output {i}" for i in range(outputs)) if maps else teacher.spec.classes
    graph = export_onnx(
        Deployable(teacher, spec, "features" if maps else "map"), spec, names, folder / f"{name}.onnx"
    ).path
    made = export_openvino(graph, folder / f"{name}.xml", spec, names)
    about = About(name, names, task=teacher.spec.task, stride=teacher.spec.stride if maps else None)
    return write_bundle(
        folder / name, about, target="openvino-cpu-f32", input_spec=spec, golden_dn=[dn[None, :, : spec.tile, : spec.tile]],
        model_files={"model.xml": made.xml, "model.bin": made.bin},
    )  # fmt: skip


def halves(shape: tuple[int, int]) -> Iterator[np.ndarray]:
    """(H, W) what is judged, the two halves of the longer axis (of a square, the columns) one after the other."""
    rows, columns = np.indices(shape)
    upper = rows < shape[0] // 2 if shape[0] > shape[1] else columns < shape[1] // 2
    yield from (upper, ~upper)


def judged(found: np.ndarray, known: np.ndarray) -> dict[str, Any]:
    """F1 and IoU of a class, with intervals over blocks."""
    edge = block_edge(*known.shape)
    rows, columns = np.indices(known.shape) // edge
    seen = (known != UNKNOWN) & (found != UNKNOWN)
    unit, units = units_of((rows * 1000 + columns)[seen])
    pair = (values[seen].astype(np.int64)[:, None] for values in (found, known))
    f1 = estimate(statistics_of(LabelComparison("labels", *pair, unit))["f1"])
    ends = [f1.value, *(f1.interval or ())]
    iou = [one / (2 - one) for one in ends if one is not None]
    return {
        "f1": ends[0],
        "f1_interval": ends[1:],
        "iou": iou[0],
        "iou_interval": iou[1:],
        "blocks": units,
        "block_pixels": edge,
    }


def head_figures(folder: Path, place: Path, head: str, scene: str, known: np.ndarray) -> dict[str, Any]:
    """A head fitted on each half and judged on the other, by what ``rsedge infer`` writes."""
    both, kilobytes = np.full(known.shape, UNKNOWN, np.uint8), 0.0
    with rsedge.load(place, threads=1) as opened:
        for number, out in enumerate(halves(known.shape)):
            labels = written(folder / "labels.tif", np.where(out, UNKNOWN, known)[None])
            made = folder / f"{head}{number}.head"
            pair = LabelledScene(folder / f"{scene}.tif", labels)
            write_head(fitted_map_head(opened, [pair], made.stem, (head,), reading=Reading({"any_gsd": True})), made)
            record = opened.predict(pair.scene, folder / "map.tif", heads=[made], any_gsd=True, warn=lambda text: None)
            with rasterio.open(record["heads"][made.stem]["output"]) as file:
                both[out] = file.read(1)[out]
            kilobytes = made.stat().st_size / 1e3
    return judged(both, known) | {"head_kilobytes": round(kilobytes, 1)}


def full_figures(folder: Path, place: Path, heads: Heads) -> dict[str, Any]:
    """The whole network's classes of the cloud scene, as they are: it was fitted on other scenes."""
    with rsedge.load(place, threads=1) as opened:
        classes = opened.predict(folder / "clouds.tif", any_gsd=True, warn=lambda text: None)
        numbers = {name: opened.classes.index(name) for name in ("cloud", "shadow")}
    return {name: judged((classes == number).astype(np.uint8), heads[name][1]) for name, number in numbers.items()}


def times(folder: Path, places: dict[str, Path], turns: int) -> dict[str, float]:
    """Processor seconds of mapping the large scene, the least of some turns; the encoders with two heads."""
    best: dict[str, float] = {}
    for _ in range(turns):
        for name, place in places.items():
            two = [] if name == "full" else [folder / name / f"{head}.head" for head in ("cloud", "shadow")]
            with rsedge.load(place, threads=1) as opened:
                opened.predict(
                    folder / "clouds.tif", folder / "warm.tif", heads=two, any_gsd=True, warn=lambda text: None
                )
                began = time.process_time()
                opened.predict(
                    folder / "nine.tif", folder / "timed.tif", heads=two, any_gsd=True, warn=lambda text: None
                )
                best[name] = min(best.get(name, np.inf), time.process_time() - began)
    return {name: round(value, 2) for name, value in best.items()}


def model_bytes(place: Path) -> int:
    return sum(path.stat().st_size for path in place.iterdir() if path.name.startswith("model."))


def measured(turns: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="heads-") as made:
        folder = Path(made)
        images, heads = scenes(folder)
        teacher = load_teacher(TEACHER)
        places = {"full": bundle(folder, teacher, "full", images["clouds"])}
        found: dict[str, Any] = {"full": {"figures": full_figures(folder, places["full"], heads)}}
        for feature in FEATURES:
            name = feature.replace("[", "").replace("]", "").replace("net.", "")
            cut = tapped(load_teacher(TEACHER), feature)
            places[name] = bundle(folder, cut, f"{name}-bundle", images["clouds"])
            (folder / name).mkdir()
            figures = {}
            for head, (scene, known) in heads.items():
                figures[head] = head_figures(folder, places[name], head, scene, known)
                (folder / f"{head}0.head").rename(folder / name / f"{head}.head")
                print(name, head, figures[head], flush=True)
            found[name] = {"figures": figures, "stride": cut.spec.stride, "feature": feature,
                           "features": len(rsedge.load(places[name]).classes)}  # fmt: skip
        for name, seconds in times(folder, {**places}, turns).items():
            found[name] |= {"processor_s": seconds, "model_bytes": model_bytes(places[name])}
        return {
            "networks": found, "turns": turns, "pixels": int(np.prod(images["clouds"].shape[1:]) * NINE**2),
            "cpu": detect_cpu().model, "rsedge": rsedge.__version__,
            "measured": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        }  # fmt: skip


def figure(one: dict[str, Any] | None) -> str:
    if one is None:
        return "-"
    (low, high), (low_iou, high_iou) = one["f1_interval"], one["iou_interval"]
    return f"{one['f1']:.3f} ({low:.3f} to {high:.3f}); {one['iou']:.3f} ({low_iou:.3f} to {high_iou:.3f})"


def document(kept: dict[str, Any]) -> str:
    """The tables of docs/probes.md."""
    nets = kept["networks"]
    rows = ["| F1; IoU on blocks not seen | cloud | shadow | water |", "|---|---|---|---|"]
    rows.append("| the whole network, as published | " + " | ".join(
        figure(nets["full"]["figures"].get(head)) for head in ("cloud", "shadow", "water")) + " |")  # fmt: skip
    parts = ["", "| processor seconds, MB of model files | time | size |", "|---|---|---|"]
    full = nets["full"]
    parts.append(f"| two whole networks | {2 * full['processor_s']:.1f} s | {2 * full['model_bytes'] / 1e6:.1f} |")
    for name, one in nets.items():
        if name == "full":
            continue
        what = f"`{one['feature']}`, {one['features']} features, stride {one['stride']}"
        rows.append(
            f"| heads on {what} | " + " | ".join(figure(one["figures"][h]) for h in ("cloud", "shadow", "water")) + " |"
        )
        kilobytes = 2 * max(f["head_kilobytes"] for f in one["figures"].values())
        size = f"{one['model_bytes'] / 1e6:.1f}, and {kilobytes:.1f} kB of heads"
        parts.append(f"| {what}, with two heads | {one['processor_s']:.1f} s | {size} |")
    blocks = nets["full"]["figures"]["cloud"]
    return "\n".join([
        *rows, "",
        f"95 % intervals over blocks of {blocks['block_pixels']} pixels. Heads are fitted on one half of a scene and judged on the "
        "other, both ways;",
        "the whole network was fitted on other scenes, and has no class water.",
        *parts, "",
        f"Mapping {kept['pixels'] / 1e6:.1f} megapixels of six bands, f32 on OpenVINO, one thread, processor time, the least of "
        f"{kept['turns']} turns; {kept['cpu']}.",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only-document", action="store_true", help="write the page from what is kept")
    asked = parser.parse_args()
    if not asked.only_document:
        write_json(KEPT, measured(asked.turns))
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    write_bytes(PAGE, f"{before}{BEGIN}\n{document(read_json(KEPT))}\n{END}{after}".encode())


if __name__ == "__main__":
    main()
