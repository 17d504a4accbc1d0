"""The public latency rows that a prediction can be tried on, read from the facts beside the data; never copied here."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path

from public_networks import networks

from rsedge.data.errors import RequestError
from rsedge.devices.profiles.profile import shipped_names

FILE = "measured_latencies.csv"
# Device as the rows name it -> profile. An unqualified AGX Orin is the 64 GB one.
DEVICES = {
    "Jetson AGX Orin 64GB": "jetson-agx-orin-64gb",
    "Jetson AGX Orin": "jetson-agx-orin-64gb",
    "Jetson Orin NX 16GB": "jetson-orin-nx-16gb",
    "Jetson Orin Nano 8GB Super": "jetson-orin-nano-8gb-super",
    "Jetson Orin Nano 8GB": "jetson-orin-nano-8gb",
    "Jetson Xavier NX 8GB": "jetson-xavier-nx-8gb",
    "Jetson Nano 4GB": "jetson-nano-4gb",
    "Raspberry Pi 5 8GB": "raspberry-pi-5",
    "Intel Myriad X (Luxonis RVC2 OAK-D)": "myriad-x",
    "Intel Atom x7425E CPU (Alder Lake-N, 4 E-cores)": "atom-x7425e",
    "Intel Core i7-1185GRE CPU": "core-i7-1185gre",
    "Intel Core Ultra 7-165H NPU (NPU 3720)": "npu-3720",
}
MODELS = {
    "ResNet-50 v1.5": "ResNet-50",
    "resnet-50": "ResNet-50",
    "mobilenet-v2": "MobileNet-v2",
    "bert-base-cased": "BERT-base",
    "bert-large-uncased-wwm-squad": "BERT-large",
}
SEQUENCES = {"seq<=384 (variable)": "177", "seq 384": "384", "seq 128 (OMZ default)": "128"}
PRECISIONS = {"fp32": "f32", "fp16": "fp16", "int8": "int8"}
RUNTIMES = {"TensorRT": "tensorrt", "OpenVINO": "openvino", "ONNX Runtime": "onnxruntime"}
# What a source's latency leaves out: the call and its copies (trtexec's GPU compute time, MLPerf's data on the device,
# latencies derived from throughput).
DEVICE_ONLY = ("GPU compute", "MLPerf", "JetPack 4.4")


@dataclass(frozen=True)
class Row:
    """One usable public row: ``latency_ms`` per call of ``network``; ``with_call`` False where it is device time only."""

    line: int
    device: str
    network: str
    family: str
    precision: str
    runtime: str
    latency_ms: float
    with_call: bool
    source: str


def facts_folder() -> Path:
    """The folder of facts: ``$RSEDGE_FACTS``, or ``facts`` beside ``$RSEDGE_DATA``.

    Raises:
        RequestError: neither variable leads to the file of rows.
    """
    given = os.environ.get("RSEDGE_FACTS")
    data = os.environ.get("RSEDGE_DATA")
    folder = Path(given) if given else Path(data).parent / "facts" if data else None
    if folder is None or not (folder / FILE).is_file():
        raise RequestError(f"no {FILE}: set RSEDGE_FACTS to the folder that holds it (looked in {folder})")
    return folder


def public_rows(folder: Path) -> tuple[list[Row], dict[str, int]]:
    """Usable rows, and how many were left out for which reason."""
    nets, known = networks(), set(shipped_names())
    rows: list[Row] = []
    left_out: dict[str, int] = {}
    with (folder / FILE).open(newline="", encoding="utf-8") as file:
        for line, cells in enumerate(csv.DictReader(file), start=2):
            found = _row(line, cells, nets, known)
            if isinstance(found, str):
                left_out[found] = left_out.get(found, 0) + 1
            else:
                rows.append(found)
    return rows, left_out


def _row(line: int, cells: dict[str, str], nets: dict, known: set[str]) -> Row | str:
    device = DEVICES.get(cells["device"])
    if device is None or device not in known:
        return "device without a profile"
    runtime = next((r for name, r in RUNTIMES.items() if cells["runtime"].startswith(name)), None)
    if runtime is None:
        return "runtime that rsedge does not use"
    precision = PRECISIONS.get(cells["precision"])
    if precision is None:
        return "precision not stated or mixed"
    model, size = MODELS.get(cells["model"], cells["model"]), cells["input"].split("x")[0]
    name = f"{model}@{SEQUENCES.get(cells['input'], size)}"
    if name not in nets:
        return "network whose shapes are not published with the row"
    latency = _latency_ms(cells, nets[name].shape[0])
    if latency is None:
        return "throughput of several engines or batches at once"
    device_only = any(mark in cells["runtime"] + cells["power_mode"] for mark in DEVICE_ONLY)
    return Row(
        line, device, name, nets[name].family, precision, runtime, latency, not device_only, cells["source"][:80]
    )


def _latency_ms(cells: dict[str, str], batch: int) -> float | None:
    if cells["latency_ms"]:
        return float(cells["latency_ms"])
    if cells["batch"] in ("1", "GPU 1", f"GPU {batch}") and "DLA" not in cells["power_mode"] + cells["device"]:
        return 1e3 * batch / float(cells["throughput"])
    return None
