"""Checkpoints as their authors' scripts save them: weights under the published names, in the script's wrapping.

Unlike :mod:`tests.models.small` nothing here starts from a network of ours.
"""

from __future__ import annotations

import argparse
import sys
import types
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

State = Mapping[str, Tensor]


def under(prefix: str, state: State) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in state.items()}


def flat(state: State) -> dict[str, Any]:
    """``torch.save(net.state_dict(), ...)``."""
    return dict(state)


def mae(state: State) -> dict[str, Any]:
    """MAE's ``save_model``: SatMAE, SatMAE++, SpectralGPT, RVSA's classification."""
    settings = argparse.Namespace(model="mae_vit_large_patch16", lr=1e-3, output_dir="out")
    optimizer = {"state": {0: {"step": 3, "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]}
    return {"model": dict(state), "optimizer": optimizer, "epoch": 49, "scaler": {"scale": 2.0}, "args": settings}


def mm(state: State) -> dict[str, Any]:
    """``save_checkpoint`` of mmcv's runner, for mmsegmentation and mmdetection."""
    meta = {"CLASSES": ("a", "b"), "PALETTE": [[0, 0, 0]], "config": "model = dict()", "iter": 160000, "hook_msgs": {}}
    return {"meta": meta, "state_dict": dict(state), "optimizer": {"state": {}, "param_groups": [{"lr": 6e-5}]}}


def gfm(state: State) -> dict[str, Any]:
    """The configuration among the entries is an object of yacs (:class:`CfgNode`)."""
    return mae(state) | {"config": settings_node("yacs.config"), "max_accuracy": 0.0, "lr_scheduler": {"last_epoch": 3}}


def settings_node(module: str) -> Any:
    """A configuration as yacs, fvcore and easydict pickle it: a dictionary of a class of theirs, with attributes beside it."""
    kind = {"yacs.config": "CfgNode", "fvcore.common.config": "CfgNode", "easydict": "EasyDict"}[module]
    parents = [module.rsplit(".", i)[0] for i in range(1, module.count(".") + 1)]
    fake = types.ModuleType(module)
    node = type(kind, (dict,), {"__module__": module, "__qualname__": kind})
    setattr(fake, kind, node)
    sys.modules.update({name: types.ModuleType(name) for name in parents if name not in sys.modules} | {module: fake})
    made = node(MODEL=node(TYPE="swin", SWIN=node(DEPTHS=[2, 2, 18, 2])), AMP_OPT_LEVEL="O1")
    made.__dict__.update({"__immutable__": True, "__deprecated_keys__": set(), "__renamed_keys__": {}})
    return made


def seco(state: State) -> dict[str, Any]:
    """Lightning: both encoders, the heads of all spaces, the queue."""
    both = {**under("encoder_q.", state), **under("encoder_k.", state)}
    heads = {f"heads_{x}.{i}.0.weight": torch.ones(2, 2) for x in "qk" for i in range(3)}
    queue = {"queue": torch.ones(3, 2, 4), "queue_ptr": torch.zeros(1, dtype=torch.long)}
    return {
        "epoch": 199, "global_step": 7, "pytorch-lightning_version": "1.1.4", "state_dict": both | heads | queue,
        "callbacks": {}, "optimizer_states": [{"state": {}}], "hyper_parameters": {"base_encoder": "resnet18"},
    }  # fmt: skip


def geokr(state: State) -> dict[str, Any]:
    """Numbers among the tensors, one of them misspelt."""
    return {**state, "epoch": 5, "gobal_step": 70}


def tov(state: State) -> dict[str, Any]:
    """Lightning's file of the fine-tuned classifier after the authors' ``checkpoint_standardize``."""
    return {"state_dict": dict(state), "epoch": 3}


def satlas(state: State) -> dict[str, Any]:
    beside = {"intermediates.0.fpn.inner_blocks.0.0.weight": torch.ones(2), "head.weight": torch.ones(2)}
    return {**under("backbone.", state), **beside}


def satclip(state: State) -> dict[str, Any]:
    """Lightning, in float64; the encoder twice, the image tower beside it."""
    wide = {name: value.double() for name, value in state.items()}
    twice = {**under("model.location.", wide), **under("model.", wide)}
    beside = {"model.visual.conv1.weight": torch.ones(2), "model.logit_scale": torch.ones([])}
    return {"state_dict": twice | beside, "hyper_parameters": {"legendre_polys": 40}, "epoch": 1}


def soundingearth(tower: str, other: str) -> Any:
    """One file of both towers and the loss."""

    def write(state: State) -> dict[str, Any]:
        beside = {f"{other}_encoder.module_list.0.conv1.weight": torch.ones(2), "loss_function.scale": torch.ones(1)}
        return under(f"{tower}_encoder.", state) | beside

    return write


def gair(state: State) -> dict[str, Any]:
    """All encoders of the training's network, behind data-parallel training's prefix."""
    beside = {
        "rs_encoder.s2_encoder.linear_input.weight": torch.ones(2), "sv_encoder.layernorm.weight": torch.ones(2),
        "location_encoder.LocEnc0.capsule.0.b": torch.ones(2), "imnet.weight": torch.ones(2), "logit_scale": torch.ones([]),
    }  # fmt: skip
    groups = {name.split(".")[0] for name in state}
    others = {name: value for name, value in beside.items() if name.split(".")[0] not in groups}
    return {"model": under("module.", {**state, **others}), "optimizer": {}, "epoch": 3}


def csp(settings: Mapping[str, Any]) -> Any:
    """The options of the command line beside the weights."""

    def write(state: State) -> dict[str, Any]:
        return {"state_dict": dict(state), "params": dict(settings), "epoch": 30, "optimizer": {}}

    return write


def latent_diffusion(*beside: str) -> Any:
    """Lightning's file of a whole system: schedules, text encoder, autoencoder; ``beside`` are names of parts left out here."""
    names = ("betas", "alphas_cumprod", "cond_stage_model.transformer.text_model.final_layer_norm.weight", *beside)

    def write(state: State) -> dict[str, Any]:
        others = {name: torch.ones(2) for name in names}
        return {"epoch": 3, "global_step": 7, "pytorch-lightning_version": "1.5.0", "state_dict": {**others, **state}}

    return write


def detector(state: State) -> dict[str, Any]:
    """What is asked for: training writes a pickled network, which is refused."""
    return {"model": dict(state), "epoch": 99}


def geopixel(state: State) -> dict[str, Any]:
    """The branch among the tensors of the whole system."""
    beside = (
        "model.layers.0.attention.wqkv.weight",
        "vit.vision_tower.vision_model.x",
        "vision_proj.0.weight",
        "output.weight",
    )
    return under("model.", state) | {name: torch.ones(2) for name in beside}


def mmengine(state: State) -> dict[str, Any]:
    """The whole detector beside what the runner keeps."""
    return {
        "meta": {"epoch": 12, "iter": 900},
        "state_dict": dict(state),
        "message_hub": {},
        "param_schedulers": [{"last_step": 9}],
    }


def geopix(state: State) -> dict[str, Any]:
    """The branch's files in one, each file's names behind its place; the language model beside the tower."""
    return {
        **state,
        "vlm/language_model.model.layers.0.x": torch.ones(2),
        "clm/memory_encoder.out_proj.weight": torch.ones(2),
    }
