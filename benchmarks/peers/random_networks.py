"""Networks that everybody has, with random weights: what cuts, exports and runs them, and how fast (`make bench-random`).

    python benchmarks/peers/random_networks.py [--only NETWORK]

All ways of one network are raced in one run on one thread. What is lost is told by the outputs alone: RMS difference from the f32
network's over their spread, on tiles that calibrated nothing; of cut networks with random weights nothing can be told.
"""

from __future__ import annotations

# ruff: isort: off
import rsedge  # first of all: it turns off what other tools would send home

# ruff: isort: on
import argparse
import contextlib
import copy
import functools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import page
import timm
import torch
import torch_pruning as tp
from here import stamp
from material import RUNS, THREADS
from results import keep, stored
from roofline import measured_peak, peak_runners, share_of_peak
from torch import nn

from rsedge.compress.prune.plan import count_macs
from rsedge.compress.quantize.ptq import is_transformer, plain_ptq, preprocessing_names, quiet_nncf
from rsedge.data.bands import InputSpec
from rsedge.data.errors import MissingCapability, RsedgeError
from rsedge.devices.measure.decide import race
from rsedge.devices.profiles.cpu import detect_cpu
from rsedge.export.onnx.graph import Deployable
from rsedge.export.onnx.writing import export_onnx
from rsedge.export.targets.openvino import export_openvino, read_openvino, save_openvino
from rsedge.runtimes.opening import open_session
from rsedge.runtimes.session import INPUT, LOGITS, Session
from rsedge.stages.outputs import ir_bytes

NETWORKS = {
    "ViT-S/16": "vit_small_patch16_224",
    "Swin-T": "swin_tiny_patch4_window7_224",
    "ConvNeXt-T": "convnext_tiny",
    "ResNet-50": "resnet50",
}
SPEC = InputSpec.model_validate(
    {"bands": [{"name": n, "scale": 1e-4, "mean": 0.2, "std": 0.1} for n in ("red", "green", "blue")], "tile": 224}
)
CLASSES = tuple(f"{number}" for number in range(1000))
CALIBRATION, JUDGED, TRIALS, HALF = 24, 8, 3, 0.5
RACE_SECONDS = 1.0
HOSTS = "vnni" if any("vnni" in s or "amx" in s for s in detect_cpu().isa) else "any"
F32, NNCF = "f32", "NNCF"
FAILURES = (RsedgeError, RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError, AssertionError)
"""What tools raise on networks that they do not take."""


@dataclass(frozen=True)
class Model:
    """A file that runs, and the MACs of its network."""

    path: Path
    runtime: str
    precision: str
    macs: int

    def opened(self) -> Session:
        return open_session(self.path, self.runtime, precision=self.precision, threads=THREADS)


def tiles(count: int) -> np.ndarray:
    """Smooth fields of digital numbers (count, 3, 224, 224) that differ in level and contrast, as scenes do."""
    draw = np.random.default_rng(0)
    coarse = torch.from_numpy(draw.normal(size=(count, 3, 14, 14)).astype(np.float32))
    fields = nn.functional.interpolate(coarse, size=(224, 224), mode="bicubic").numpy()
    level, contrast = draw.uniform(1000, 3000, (count, 3, 1, 1)), draw.uniform(300, 1200, (count, 1, 1, 1))
    fine = draw.normal(0, 100, fields.shape)
    return np.clip(level + contrast * fields + fine, 1, 10000).astype(np.uint16)


class Network:
    """One network with all ways from it to files; what several ways share is made once."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        self.net: nn.Module = timm.create_model(NETWORKS[name], pretrained=False).eval()
        self.folder = RUNS / "random" / name.replace("/", "-")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.calibration, self.judged = tiles(CALIBRATION), tiles(CALIBRATION + JUDGED)[CALIBRATION:]
        self.example = torch.zeros(1, *SPEC.shape)
        self.macs = count_macs(self.net, self.example)

    @functools.cached_property
    def onnx(self) -> Path:
        return self._onnx(self.net, "f32")

    @functools.cached_property
    def ir(self) -> Path:
        return export_openvino(self.onnx, self.folder / "f32.xml", SPEC, CLASSES).xml

    @functools.cached_property
    def plain(self) -> Path:
        return self._saved(plain_ptq(read_openvino(self.onnx), list(self.calibration)), "nncf")

    @functools.cached_property
    def student(self) -> rsedge.Student:
        """The network as its own student, for rsedge's steps."""
        return rsedge.as_student(
            self.net,
            data=self.calibration,
            spec=SPEC,
            task="embedding",
            run_dir=self.folder / "run",
            threads=THREADS,
            quiet=True,
        )

    @functools.cached_property
    def cut(self) -> rsedge.Student:
        """Half of its MACs, by size of weights."""
        return rsedge.prune(self.student, target={"macs_ratio": HALF}, steps=1, importance="magnitude", max_drop=10.0, min_gain=0.0,
                            recovery_steps=0, latency_on="openvino-cpu-f32")  # fmt: skip

    @functools.cached_property
    def cut_by_peer(self) -> nn.Module:
        """Half of its MACs by Torch-Pruning, asked as its documentation asks for each kind of attention."""
        net = copy.deepcopy(self.net)
        heads = {m.qkv: m.num_heads for m in net.modules() if hasattr(m, "qkv") and hasattr(m, "num_heads")}
        last = [m for m in net.modules() if isinstance(m, nn.Linear) and m.out_features == len(CLASSES)]
        pruner = tp.pruner.BasePruner(net, self.example, tp.importance.GroupMagnitudeImportance(), pruning_ratio=0.9, round_to=8,
                                      iterative_steps=60, num_heads=heads, prune_head_dims=True, ignored_layers=last)  # fmt: skip
        for _ in range(60):
            pruner.step()
            for module in net.modules():
                if getattr(module, "qkv", None) in pruner.num_heads:
                    module.head_dim = module.qkv.out_features // 3 // module.num_heads
            if count_macs(net, self.example) <= HALF * self.macs:
                break
        return net

    def ours(self, target: str, cut: bool = False) -> Path:
        """INT8 as rsedge searches it for a target."""
        made = rsedge.quantize(self.cut if cut else self.student, target, max_trials=TRIALS, hosts=HOSTS)
        return made.folder / "stages/quantize" / f"student-int8{'.xml' if target.startswith('openvino') else '.onnx'}"

    def _onnx(self, net: nn.Module, name: str) -> Path:
        return export_onnx(Deployable(net, SPEC, "vector"), SPEC, CLASSES, self.folder / f"{name}.onnx").path

    def _saved(self, model: Any, name: str) -> Path:
        return save_openvino(model, self.folder / f"{name}.xml", SPEC, CLASSES).xml


def _transformer(network: Network) -> Model:
    model = read_openvino(network.onnx)
    if not is_transformer(model):
        raise MissingCapability("no attention in it")
    with quiet_nncf():
        made = nncf.quantize(
            model, nncf.Dataset([t[None] for t in network.calibration]), subset_size=CALIBRATION,
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=preprocessing_names(model), validate=False),
        )  # fmt: skip
    return Model(network._saved(made, "nncf-transformer"), "openvino", "int8", network.macs)


def _cut(network: Network) -> Model:
    net = network.cut.module
    path = export_openvino(network._onnx(net, "cut"), network.folder / "cut.xml", SPEC, CLASSES).xml
    return Model(path, "openvino", "f32", count_macs(net, network.example))


def _cut_int8(network: Network) -> Model:
    return Model(
        network.ours("openvino-cpu-int8", cut=True), "openvino", "int8", count_macs(network.cut.module, network.example)
    )


def _cut_by_peer(network: Network) -> Model:
    net = network.cut_by_peer
    path = export_openvino(network._onnx(net, "peer-cut"), network.folder / "peer-cut.xml", SPEC, CLASSES).xml
    return Model(path, "openvino", "f32", count_macs(net, network.example))


def _cut_by_peer_int8(network: Network) -> Model:
    made = plain_ptq(read_openvino(network._onnx(network.cut_by_peer, "peer-cut")), list(network.calibration))
    return Model(
        network._saved(made, "peer-cut-int8"), "openvino", "int8", count_macs(network.cut_by_peer, network.example)
    )


WAYS: dict[str, Callable[[Network], Model]] = {
    F32: lambda n: Model(n.ir, "openvino", "f32", n.macs),
    "bf16": lambda n: Model(n.ir, "openvino", "bf16", n.macs),
    NNCF: lambda n: Model(n.plain, "openvino", "int8", n.macs),
    "NNCF, the rest in bf16": lambda n: Model(n.plain, "openvino", "bf16", n.macs),
    "NNCF told that it is a transformer": _transformer,
    "rsedge INT8": lambda n: Model(n.ours("openvino-cpu-int8"), "openvino", "int8", n.macs),
    "half the MACs, rsedge, f32": _cut,
    "half the MACs, rsedge, INT8": _cut_int8,
    "half the MACs, Torch-Pruning, f32": _cut_by_peer,
    "half the MACs, Torch-Pruning, NNCF": _cut_by_peer_int8,
    "ONNX Runtime, f32": lambda n: Model(n.onnx, "onnxruntime", "f32", n.macs),
    "ONNX Runtime, rsedge INT8": lambda n: Model(n.ours("onnxruntime-cpu-int8"), "onnxruntime", "int8", n.macs),
}


def measured(network: Network) -> dict[str, Any]:
    """A row per way: why there is no file, or time, size and loss."""
    rows: dict[str, dict[str, Any]] = {}
    models: dict[str, Model] = {}
    for way, make in WAYS.items():
        print(f"  {way}", flush=True)
        try:
            models[way] = make(network)
        except FAILURES as error:
            rows[way] = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
    found = _raced(network, models)
    return found | {"rows": rows | found["rows"], "macs": network.macs}


def _raced(network: Network, models: Mapping[str, Model]) -> dict[str, Any]:
    with contextlib.ExitStack() as stack:
        sessions = {w: stack.enter_context(contextlib.closing(m.opened())) for w, m in models.items()}
        answers = {
            w: np.concatenate([s({INPUT: t[None]})[LOGITS].copy() for t in network.judged]) for w, s in sessions.items()
        }
        feed = {INPUT: network.judged[:1]}
        raced = race(
            {**{w: functools.partial(s, feed) for w, s in sessions.items()}, **peak_runners()}, seconds=RACE_SECONDS
        )
    wanted, found = answers[F32], {}
    for way, model in models.items():
        whole = model.macs == network.macs
        found[way] = {
            "ms": raced.ms(way), "macs": model.macs, "size_bytes": _size(model.path),
            "time": {over: raced.ratio(way, over).model_dump() for over in (F32, NNCF) if over in models},
            "loss": float(np.sqrt(np.mean((answers[way] - wanted) ** 2)) / wanted.std(0).mean()) if whole else None,
            "peak_share": share_of_peak(raced, way, model.macs),
        }  # fmt: skip
    return {"rows": found, "peak": measured_peak(raced), "load": raced.load.words(), "noise": raced.too_noisy()}


def _size(path: Path) -> int:
    return ir_bytes(path) if path.suffix == ".xml" else path.stat().st_size


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", action="append", choices=list(NETWORKS), help="only these networks, again where they are done"
    )
    given = parser.parse_args()
    torch.set_num_threads(THREADS)
    for name in given.only or [n for n in NETWORKS if n not in stored().get("random", {})]:
        print(f"== {name}", flush=True)
        keep("random", name, measured(Network(name)) | {"made_on": stamp()})
    page.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
