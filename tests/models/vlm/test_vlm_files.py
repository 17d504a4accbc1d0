"""Files of vision-language models: names of their layouts, and what is wrong with a folder, by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rsedge.data.errors import IntegrityError, RequestError
from rsedge.models.vlm.files import VlmFiles, language_name
from tests.models.small_parts import small_row

pytest.importorskip("transformers")


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        ("language_model.model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("model.language_model.norm.weight", "model.norm.weight"),
        ("model.embed_tokens.weight", "model.embed_tokens.weight"),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("model.vision_tower.vision_tower.vision_model.encoder.layers.0.layer_norm1.weight", None),
        ("model.mm_projector.0.weight", None),
        ("multi_modal_projector.linear_1.bias", None),
    ],
)
def test_the_language_models_names_in_each_layout(raw: str, named: str | None) -> None:
    assert language_name(raw) == named


def config(folder: Path, **fields: object) -> None:
    (folder / "config.json").write_text(json.dumps(fields))


def test_a_folder_that_is_none_is_told_by_name(tmp_path: Path) -> None:
    row = small_row("rs-llava")
    with pytest.raises(RequestError, match=r"no config\.json"):
        VlmFiles(tmp_path).language(row)
    config(tmp_path, model_type="phi3", hidden_size=48)
    with pytest.raises(RequestError, match=r"is 'phi3'; those that are built here: llama, mistral, qwen2"):
        VlmFiles(tmp_path).language(row)
    config(tmp_path, model_type="llava", text_config={"model_type": "llama", "hidden_size": 64})
    with pytest.raises(
        RequestError, match=r"64 wide, rs-llava's image tokens are 48; this folder belongs to another model"
    ):
        VlmFiles(tmp_path).language(row)
    with pytest.raises(RequestError, match=r"no weights \(model\.safetensors or pytorch_model\.bin"):
        VlmFiles(tmp_path).front(row)
    with pytest.raises(RequestError, match="no readable tokenizer"):
        VlmFiles(tmp_path).tokenizer("<image>")


@pytest.mark.parametrize(
    ("index", "why"),
    [
        ({"weight_map": {"a": "../weights.bin"}}, "names files outside of its folder"),
        ({"weight_map": {"a": "gone.bin"}}, r"names gone\.bin, which are not there"),
        ({}, "not an index of weight files"),
    ],
)
def test_a_broken_index_is_told(tmp_path: Path, index: object, why: str) -> None:
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(IntegrityError, match=why):
        VlmFiles(tmp_path).front(small_row("rs-llava"))


def test_a_tower_that_is_none_is_told(tmp_path: Path) -> None:
    torch.save({"x": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(RequestError, match="holds no vision tower"):
        VlmFiles(tmp_path, tower=tmp_path / "pytorch_model.bin").front(small_row("rs-llava"))
    with pytest.raises(RequestError, match="missing keys"):
        VlmFiles(tmp_path).front(small_row("rs-llava"))


def test_a_granularity_is_named_and_becomes_a_plain_model(tmp_path: Path) -> None:
    hf = pytest.importorskip("transformers")
    row = small_row("rsunivlm")
    fields = {"vocab_size": 31, "hidden_size": row.arch["width"], "intermediate_size": 24, "num_hidden_layers": 2,
              "num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True}  # fmt: skip
    config(tmp_path, model_type="llava_qwen", **fields)
    plain = [hf.Qwen2ForCausalLM(hf.Qwen2Config(**fields)).state_dict() for _ in range(3)]
    state = {k: v for k, v in plain[0].items() if ".mlp." not in k and k != "lm_head.weight"}
    state |= {k.replace(".mlp.", f".mlp.{i}."): v for i, e in enumerate(plain) for k, v in e.items() if ".mlp." in k}
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(RequestError, match=r"an MLP per granularity \(0, 1, 2\); name one with language\.expert"):
        VlmFiles(tmp_path).language(row)
    model = VlmFiles(tmp_path, expert=2).language(row)
    assert torch.equal(model.model.layers[1].mlp.up_proj.weight, plain[2]["model.layers.1.mlp.up_proj.weight"])
    assert torch.equal(model.lm_head.weight, plain[0]["model.embed_tokens.weight"])
