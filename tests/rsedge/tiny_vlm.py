"""A tiny random LLaVA as its authors lay files out, with a tokenizer, pictures and captions: all that a captioning recipe reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch

from rsedge.models import zoo
from tests.export.targets.test_genai import lettered_llava, tokenizer
from tests.models.small_parts import small_row

EDGE, TOKENS = 56, 16
TEMPLATE = "<image>\n{prompt}"


def save_pretrained(folder: Path) -> Any:
    """The layout of transformers: GeoPix's, for one."""
    words = tokenizer()
    model = lettered_llava(words)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return model


def save_llava(folder: Path, adapter: Path, vision: Path) -> Any:
    """The layout of the LLaVA code base, in three folders as RS-LLaVA comes: language model, adapter with projector, tower.

    Gives the model that they make together.
    """
    from safetensors.torch import save_file

    words = tokenizer("<picture>")  # the language model's own tokenizer knows no image token
    model = lettered_llava(tokenizer())
    state = model.state_dict()
    for path in (folder, adapter, vision):
        path.mkdir(parents=True)
    words.save_pretrained(folder)
    language = {
        k.replace("model.language_model.", "model."): v.clone() for k, v in state.items() if "language_model" in k
    }
    language["lm_head.weight"] = state["lm_head.weight"].clone()
    config = model.config.text_config.to_dict() | {
        "model_type": "llava_llama",
        "architectures": ["LlavaLlamaForCausalLM"],
    }
    (folder / "config.json").write_text(json.dumps(config))
    _adapted(language, adapter)
    halves = sorted(language)[::2], sorted(language)[1::2]
    index = {}
    for number, names in enumerate(halves, start=1):
        file = f"pytorch_model-{number}-of-2.bin"
        torch.save({n: language[n].contiguous() for n in names}, folder / file)
        index |= dict.fromkeys(names, file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    named = {"linear_1": "0", "linear_2": "2"}
    projector = {
        f"base_model.model.model.mm_projector.{named[k.split('.')[-2]]}.{k.rpartition('.')[2]}": v.half().float()
        for k, v in state.items()
        if "multi_modal_projector" in k
    }
    torch.save(projector, adapter / "non_lora_trainables.bin")
    tower = {
        k.partition("vision_tower.")[2].removeprefix("vision_model."): v
        for k, v in state.items()
        if "vision_tower" in k
    }
    whole = {f"vision_model.{k}": v.contiguous() for k, v in tower.items()}
    save_file(
        whole | {"text_model.embeddings.position_embedding.weight": torch.ones(2, 2)}, vision / "model.safetensors"
    )
    return model


def _adapted(language: dict[str, torch.Tensor], adapter: Path) -> None:
    """Moves a product of rank 2 out of one weight of the language model into an adapter: only merged is it the model's again."""
    from safetensors.torch import save_file

    name = "model.layers.0.self_attn.q_proj"
    rng = torch.Generator().manual_seed(5)
    weight = language[f"{name}.weight"]
    down, up = (
        torch.randn(2, weight.shape[1], generator=rng) * 0.3,
        torch.randn(weight.shape[0], 2, generator=rng) * 0.3,
    )
    language[f"{name}.weight"] = weight - 2.0 * up @ down
    save_file(
        {f"base_model.model.{name}.lora_A.weight": down, f"base_model.model.{name}.lora_B.weight": up},
        adapter / "adapter_model.safetensors",
    )
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4}))


def use_tiny_rows(patch: pytest.MonkeyPatch) -> None:
    """The zoo's rows of vision-language models at reduced width; all else of them is as it is."""
    rows = [small_row(r.name) if r.family == "vlm" else r for r in zoo._read()]
    tiny = small_row("teochat").arch["image"]
    rows = [
        r.model_copy(
            update={
                "input": r.input.model_copy(update={"tile": tiny}),
                "arch": r.arch | {"image": tiny, "trained": None},
            }
        )
        if r.name in ("rs-llava", "geopix") and r.input is not None
        else r
        for r in rows
    ]
    patch.setattr(zoo, "_read", lambda: tuple(rows))


def pictures(root: Path, count: int) -> None:
    """Pictures of several sizes in RSICD's layout, each with two captions."""
    rng = np.random.default_rng(0)
    (root / "RSICD_images").mkdir(parents=True)
    records = []
    for i in range(count):
        height, width = (70, 64) if i % 2 else (EDGE, EDGE)
        small = rng.integers(0, 256, (3, 8, 8), dtype=np.uint8)
        pixels = np.kron(small, np.ones((9, 9), np.uint8))[:, :height, :width]
        with rasterio.open(
            root / "RSICD_images" / f"{i}.png", "w", driver="PNG", count=3, height=height, width=width, dtype="uint8"
        ) as f:
            f.write(pixels)
        texts = [{"raw": "a b c d e f"}, {"raw": f"Many planes {i}."}]
        records.append({"filename": f"{i}.png", "split": "test" if i % 4 == 3 else "train", "sentences": texts})
    (root / "dataset_rsicd.json").write_text(json.dumps({"images": records}))
