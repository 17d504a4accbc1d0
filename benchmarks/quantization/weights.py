"""Weights alone, rounded in every way that NNCF has for OpenVINO, on real weights: what is kept, how large, how fast."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import openvino as ov
import torch

from rsedge.compress.quantize.ptq import INT4_GROUP, INT4_LEAST_GROUP, quiet_nncf
from rsedge.devices.measure.decide import race
from rsedge.runtimes.openvino.core import settings, shared_core

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from real_networks import CASES

SEEDS, TAUGHT, JUDGED, SECONDS = (0, 1), 96, 128, 0.5
FAILURES = (RuntimeError, nncf.InternalError, nncf.ValidationError, KeyError)
"""What NNCF and OpenVINO's compiler raise on graphs that they do not take."""
Modes = nncf.CompressWeightsMode
Make = Callable[[ov.Model, list[Any]], ov.Model]


def four_bits(mode: Any = Modes.INT4_SYM, **options: bool) -> Make:
    """All weights in groups of 64 with 4 bits, fitted to inputs as the options say."""

    def make(model: ov.Model, inputs: list[Any]) -> ov.Model:
        data: dict[str, Any] = {}
        if options:
            data = {"dataset": nncf.Dataset(inputs), "subset_size": len(inputs),
                    "sensitivity_metric": nncf.SensitivityMetric.HESSIAN_INPUT_ACTIVATION}  # fmt: skip
        advanced = nncf.AdvancedCompressionParameters(
            group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST,
            min_adjusted_group_size=INT4_LEAST_GROUP,
            gptq_params=nncf.AdvancedGPTQParameters(subset_size=len(inputs)),
        )
        return nncf.compress_weights(
            model, mode=mode, ratio=1.0, group_size=INT4_GROUP, all_layers=True, advanced_parameters=advanced,
            **data, **options,
        )  # fmt: skip

    return make


def fp8_weights(model: ov.Model, inputs: list[Any]) -> ov.Model:
    """One scale per output channel, as INT8 has."""
    return nncf.compress_weights(
        model, mode=Modes.FP8_E4M3, ratio=1.0, group_size=-1, all_layers=True, dataset=nncf.Dataset(inputs),
        subset_size=len(inputs),
    )  # fmt: skip


def fp8(model: ov.Model, inputs: list[Any]) -> ov.Model:
    """Weights and activations."""
    mode = nncf.QuantizationMode.FP8_E4M3
    return nncf.quantize(model, nncf.Dataset(inputs), mode=mode, subset_size=len(inputs))


INT8 = "INT8"
WAYS: dict[str, Make] = {
    INT8: lambda model, _: nncf.compress_weights(model, mode=Modes.INT8_SYM),
    "FP8 (E4M3)": fp8_weights,
    "FP8, activations too": fp8,
    "INT4 as it comes": four_bits(),
    "INT4, AWQ": four_bits(awq=True),
    "INT4, scale estimation": four_bits(scale_estimation=True),
    "INT4, AWQ and scale estimation": four_bits(awq=True, scale_estimation=True),
    "INT4, LoRA correction": four_bits(lora_correction=True),
    "INT4, GPTQ": four_bits(gptq=True),
    "INT4, GPTQ and scale estimation": four_bits(gptq=True, scale_estimation=True),
    "INT4 with zero points, GPTQ": four_bits(Modes.INT4_ASYM, gptq=True),
}


def measured(name: str) -> dict[str, Any]:
    """Every way, by seed: share of the network's variance that is kept, bytes of all constants, time over that of INT8."""
    return {"seeds": {str(seed): _of_seed(name, seed) for seed in SEEDS}}


def _of_seed(name: str, seed: int) -> dict[str, Any]:
    net, x = CASES[name].make()
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))]
    half = len(x) // 2
    taught, judged = ([tile[None].numpy() for tile in part] for part in (x[:half][:TAUGHT], x[half:][:JUDGED]))
    with torch.no_grad():
        whole = ov.convert_model(net.eval(), example_input=x[:1], input=[[1, *x.shape[1:]]])
    wanted, requests, found = _outputs(_request(whole), judged), {}, {}
    for way, make in WAYS.items():
        try:
            with quiet_nncf():
                model = make(whole.clone(), taught)
            requests[way] = _request(model)
        except FAILURES as error:
            found[way] = {"refused": f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"}
            continue
        lost = np.square(_outputs(requests[way], judged) - wanted).sum()
        found[way] = {"kept": float(1 - lost / np.square(wanted - wanted.mean(0)).sum()), "bytes": _bytes(model)}
    runs = {way: functools.partial(request.infer, {0: judged[0]}) for way, request in requests.items()}
    raced = race(runs, seconds=SECONDS * len(runs))
    for way in (w for w in runs if w != INT8):
        ratio = raced.ratio(way, INT8)
        found[way]["time"] = [ratio.value, ratio.low, ratio.high]
    return found


def _request(model: ov.Model) -> Any:
    return shared_core().compile_model(model, "CPU", settings("CPU", "f32", 1)).create_infer_request()


def _outputs(request: Any, inputs: list[Any]) -> Any:
    return np.concatenate([request.infer({0: tile})[0].copy() for tile in inputs])


def _bytes(model: ov.Model) -> int:
    constants = (op.output(0) for op in model.get_ops() if op.get_type_name() == "Constant")
    return sum(-(-int(np.prod(port.shape)) * port.element_type.bitwidth // 8) for port in constants)
