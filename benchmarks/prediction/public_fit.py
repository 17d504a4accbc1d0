"""Fit of the public rows per set of figures, cross-validated by network, family and device."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import inspect
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import public_networks
import yaml
from public_rows import Row

from rsedge.data.files import atomic_path
from rsedge.devices.predict import onnx_graph
from rsedge.devices.predict.calibrate import left_out, width
from rsedge.devices.predict.efficiency import Efficiencies, Evidence, Spread, architecture_of
from rsedge.devices.predict.fit import Observed, fit
from rsedge.devices.predict.onnx_graph import GraphCost, Kernel, graph_cost
from rsedge.devices.predict.roofline import stack, total_ms, work_of
from rsedge.devices.profiles.profile import Sourced, load_profile

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "bench-predict"
PRIORS = Path(__file__).parent / "efficiency_priors.yaml"
ENOUGH = 15
"""Rows from which on a spread is taken from residuals; below, the judged one stands."""
JUDGED = {"known": 1.6, "new_architecture": 2.0, "new_device": 2.0}
Residuals = npt.NDArray[np.float64]


def graph_of(name: str) -> GraphCost:
    """The kernels of a public network."""
    return cached_graph(name, public_networks, lambda path: export(public_networks.networks()[name], path))


def cached_graph(name: str, module: ModuleType, write_onnx: Callable[[Path], None]) -> GraphCost:
    """The kernels of a network; exported once, then read from the git-ignored cache until ``module`` or reader change."""
    sources = "".join(ast.dump(ast.parse(inspect.getsource(m))) for m in (onnx_graph, module)).encode()
    slug, key = name.replace("/", "_").replace(" ", "_"), hashlib.sha256(sources).hexdigest()[:12]
    path = CACHE / "graphs" / f"{slug}.{key}.json"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx = path.with_suffix(".onnx")
        write_onnx(onnx)
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(graph_cost(onnx))))
        onnx.unlink()
    stored = json.loads(path.read_text())
    return GraphCost(**stored | {"kernels": [Kernel(**k) for k in stored["kernels"]]})


def export(network: public_networks.Public, path: Path) -> None:
    """Writes a network as ONNX, opset 17, at its own input shape."""
    import torch

    torch.set_num_threads(1)
    net = network.build().eval()
    torch.onnx.export(net, (torch.zeros(network.shape),), str(path), opset_version=17, dynamo=False)


def priors() -> dict[str, dict[str, tuple[float, str]]]:
    """Set of figures -> figure -> (value, source), one figure per precision where the time depends on it."""
    found = {}
    for name, given in yaml.safe_load(PRIORS.read_text()).items():
        if name == "common":
            continue
        precisions = list(given["conv"])
        flat: dict[str, tuple[float, str]] = {}
        for key, value in given.items():
            if isinstance(value, dict):
                flat |= {f"{key}.{p}": tuple(v) for p, v in value.items() if p in precisions}
            elif key == "kernel_us":
                flat |= {f"{key}.{p}": tuple(value) for p in precisions}
            else:
                flat[key] = tuple(value)
        found[name] = flat
    return found


@dataclasses.dataclass(frozen=True)
class Case:
    """A row with its graph and what the fit sees of it."""

    row: Row
    graph: GraphCost
    observed: Observed


def cases_by_set(rows: Sequence[Row]) -> dict[str, list[Case]]:
    """Rows by the set of figures that their device's profile names."""
    found: dict[str, list[Case]] = {}
    for row in rows:
        profile, graph = load_profile(row.device), graph_of(row.network)
        observed = Observed(work_of(graph, profile, row.precision), row.latency_ms, row.with_call)
        found.setdefault(profile.priors[row.runtime], []).append(Case(row, graph, observed))
    return found


@dataclasses.dataclass(frozen=True)
class Validated:
    """A fit on all rows of a set, and log(predicted / measured) of each row when it, its family or its device is left out."""

    cases: list[Case]
    figures: dict[str, float]
    residuals: dict[str, Residuals]


LEFT_OUT: dict[str, Callable[[Row], str]] = {
    "network": lambda row: row.network,
    "family": lambda row: row.family,
    "device": lambda row: row.device,
}


def validate(cases: list[Case], prior: dict[str, float]) -> Validated:
    """Fits and cross-validates one set of figures."""
    figures = fit([c.observed for c in cases], prior)
    observed = [c.observed for c in cases]
    residuals = {"none": errors(cases, figures)}
    for by, group_of in LEFT_OUT.items():
        residuals[by] = left_out(observed, [group_of(c.row) for c in cases], prior, figures)
    return Validated(cases, figures, residuals)


def errors(cases: Sequence[Case], figures: dict[str, float]) -> Residuals:
    """log(predicted / measured) per case."""
    work = stack([c.observed.work for c in cases])
    predicted = total_ms(work, figures, np.array([c.observed.with_call for c in cases]))
    return np.asarray(np.log(predicted / np.array([c.row.latency_ms for c in cases])), dtype=np.float64)


def coverage(found: Validated, by: str, factor_by: str) -> float:
    """Share of rows inside an interval whose width comes from the rows of the other groups only."""
    group_of = LEFT_OUT[by]
    inside = []
    for group in sorted({group_of(c.row) for c in found.cases}):
        held = np.array([group_of(c.row) == group for c in found.cases])
        factor = width(found.residuals[factor_by][~held]) if (~held).sum() >= 5 else JUDGED["new_architecture"]
        inside.extend(np.abs(found.residuals[factor_by][held]) <= math.log(factor))
    return float(np.mean(inside))


def efficiencies(name: str, prior: dict[str, tuple[float, str]], found: Validated | None) -> Efficiencies:
    """The set of figures as it is shipped: fitted values with their prior and rows, spreads from left-out residuals."""
    figures = {}
    for key, (value, source) in prior.items():
        if key == "runtime_mb":
            continue
        if found is None:
            figures[key] = Sourced(value=value, source=f"prior: {source}")
        else:
            basis = f"fit to {len(found.cases)} public rows, prior {value:g} ({source})"
            figures[key] = Sourced(value=found.figures[key], source=basis)
    memory, source = prior["runtime_mb"]
    return Efficiencies(
        figures=figures,
        spread=_spread(found),
        evidence=[] if found is None else _evidence(found.cases),
        runtime_mb=Sourced(value=memory, source=source),
    )


def _spread(found: Validated | None) -> Spread:
    if found is None or len(found.cases) < ENOUGH:
        rows = 0 if found is None else len(found.cases)
        return Spread(**{k: Sourced(value=v, source=f"judged: {rows} rows are too few") for k, v in JUDGED.items()})
    known = width(found.residuals["network"])

    def wider(by: str) -> Sourced:
        value = max(width(found.residuals[by]), 1.15 * known)
        return Sourced(value=value, source=f"90 % of {len(found.cases)} rows, each {by} left out")

    basis = f"90 % of {len(found.cases)} rows, each network left out"
    return Spread(
        known=Sourced(value=known, source=basis), new_architecture=wider("family"), new_device=wider("device")
    )


def _evidence(cases: Sequence[Case]) -> list[Evidence]:
    groups: dict[tuple[str, str, str], list[float]] = {}
    for case in cases:
        key = (case.row.device, case.row.precision, architecture_of(case.graph))
        groups.setdefault(key, []).append(round(case.graph.macs / 1e9, 3))
    return [
        Evidence(device=d, precision=p, architecture=a, rows=len(g), gmacs=(min(g), max(g)))
        for (d, p, a), g in sorted(groups.items())
    ]
