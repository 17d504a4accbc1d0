"""A tiny random LLaVA: image -> tokens -> text from exported parts gives the greedy tokens of transformers' own model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rsedge.data.errors import RequestError
from rsedge.export.parts import export_part, part_to_openvino, run_part_openvino
from rsedge.export.targets.language import WeightSettings, export_language
from rsedge.models.families import family
from rsedge.models.teachers import load_row
from rsedge.models.vlm.experts import dense_of
from rsedge.models.vlm.lora import merge_lora
from rsedge.runtimes.bundle.language_files import LANGUAGE
from rsedge.runtimes.inference.language import LanguageSession, models_in
from tests.models.small_parts import small_row

hf = pytest.importorskip("transformers")

IMAGE, TOKENS, LENGTH = 96, 16, 10
PROMPT = [1, 5, 9, *[IMAGE] * TOKENS, 7, 8]


def language_config(vocabulary: int = 97) -> Any:
    return hf.LlamaConfig(
        vocab_size=vocabulary, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def llava() -> Any:
    return tiny_llava(97, IMAGE)


def tiny_llava(vocabulary: int, image_token: int) -> Any:
    vision = hf.CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, image_size=56, patch_size=14
    )
    config = hf.LlavaConfig(
        vision_config=vision.to_dict(), text_config=language_config(vocabulary).to_dict(), image_token_index=image_token,
        vision_feature_layer=-2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = hf.LlavaForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Weights of normalisations lie around 1, or every image says the same.
            centre = 1.0 if parameter.ndim == 1 and name.endswith("weight") else 0.0
            parameter.copy_(centre + torch.randn_like(parameter) * (0.15 if parameter.ndim > 1 else 0.1))
    return model


def plain_language(llava: Any) -> Any:
    language = hf.LlamaForCausalLM(llava.config.text_config).eval()
    language.model.load_state_dict(llava.model.language_model.state_dict())
    language.lm_head.load_state_dict(llava.lm_head.state_dict())
    return language


def greedy(llava: Any, image: torch.Tensor, prompt: list[int], length: int) -> list[int]:
    ids = torch.tensor([prompt])
    found = llava.generate(
        input_ids=ids, pixel_values=image, attention_mask=torch.ones_like(ids), max_new_tokens=length, do_sample=False,
    )  # fmt: skip
    return [int(token) for token in found[0, len(prompt) :]]


def test_text_from_exported_parts_is_that_of_the_torch_model(llava: Any, tmp_path: Path) -> None:
    torch.save(llava.state_dict(), tmp_path / "llava.pth")
    row = small_row("teochat").model_copy(update={"checkpoint": small_row("rs-llava").checkpoint})
    front = load_row(row, tmp_path / "llava.pth").net
    parts = family("vlm").parts
    assert parts is not None
    export_part(parts(front)["front"], tmp_path / "front.onnx")
    part_to_openvino(tmp_path / "front.onnx", tmp_path / "front.xml")
    export_language(plain_language(llava), tmp_path / "f32")
    session = LanguageSession(models_in(tmp_path / "f32"), threads=1)
    texts = set()
    for seed in range(3):
        image = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(seed)) * 2
        tokens = run_part_openvino(tmp_path / "front.xml", {"image": image.numpy()})["tokens"]
        found = session.greedy(PROMPT, tokens, IMAGE, LENGTH, ends=[2])
        assert found == greedy(llava, image, PROMPT, LENGTH)
        texts.add(tuple(found))
    assert len(texts) > 1, "the image must matter"
    with pytest.raises(RequestError, match=r"prompt has 1 image tokens \(96\), the image 16"):
        session.greedy([1, IMAGE], tokens, IMAGE, 1)


def test_int4_weights_are_four_bits_and_give_the_text_of_the_same_weights_in_torch(llava: Any, tmp_path: Path) -> None:
    """Weights that symmetric INT4 in groups of 16 can hold exactly leave nothing to lose."""
    language = plain_language(llava)
    with torch.no_grad():
        for name, module in language.named_modules():
            if isinstance(module, nn.Linear) and name != "lm_head":
                groups = module.weight.reshape(module.out_features, -1, 16)
                step = groups.abs().amax(-1, keepdim=True) / 8
                whole = (groups / step).round().clamp(-8, 7)
                whole[..., 0] = -8  # the largest magnitude of every group, so that its scale is found again
                module.weight.copy_((whole * step).reshape(module.weight.shape))
    export_language(language, tmp_path / "int4", WeightSettings("int4", 16))
    import openvino as ov

    model = ov.Core().read_model(tmp_path / "int4" / LANGUAGE)
    kinds = [node.get_element_type().get_type_name() for node in model.get_ops() if node.get_type_name() == "Constant"]
    assert kinds.count("i4") == 2 * 7
    image = np.random.default_rng(0).normal(size=(1, TOKENS, 48)).astype(np.float32)
    found = LanguageSession(models_in(tmp_path / "int4"), threads=1).greedy(PROMPT, image, IMAGE, LENGTH, ends=[2])
    embeddings = language.get_input_embeddings()(torch.tensor([[0 if t == IMAGE else t for t in PROMPT]])).detach()
    embeddings[0, 3 : 3 + TOKENS] = torch.from_numpy(image[0])
    expected = language.generate(inputs_embeds=embeddings, max_new_tokens=LENGTH, do_sample=False)[0].tolist()
    assert found == expected


def test_merged_adapters_are_those_of_peft(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    base = hf.LlamaForCausalLM(language_config()).eval()
    state = {k: v.clone() for k, v in base.state_dict().items()}
    config = peft.LoraConfig(
        r=4, lora_alpha=16, target_modules=["q_proj", "down_proj"], use_rslora=True, alpha_pattern={"down_proj": 8}
    )
    adapted = peft.get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    adapted.save_pretrained(tmp_path / "adapter")
    expected = adapted.merge_and_unload().state_dict()
    merged = merge_lora(state, tmp_path / "adapter")
    changed = [k for k in state if not torch.equal(merged[k], state[k])]
    assert len(changed) == 2 * 2
    assert all(torch.allclose(merged[k], expected[k], atol=1e-6) for k in expected)
    with pytest.raises(RequestError, match=r"adapts 'model.layers.0.*which the model does not have"):
        merge_lora({"other.weight": torch.ones(2)}, tmp_path / "adapter")
    with pytest.raises(RequestError, match=r"no adapter_config\.json"):
        merge_lora(state, tmp_path)


def test_each_granularity_is_a_dense_model() -> None:
    plain = hf.Qwen2Config(
        vocab_size=31,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    experts = [hf.Qwen2ForCausalLM(plain).state_dict() for _ in range(3)]
    state = {k: v for k, v in experts[0].items() if ".mlp." not in k}
    state |= {k.replace(".mlp.", f".mlp.{i}."): v for i, e in enumerate(experts) for k, v in e.items() if ".mlp." in k}
    for i, expert in enumerate(experts):
        dense = hf.Qwen2ForCausalLM(plain)
        dense.load_state_dict(dense_of(state, i))
        assert torch.equal(dense.model.layers[1].mlp.up_proj.weight, expert["model.layers.1.mlp.up_proj.weight"])
    with pytest.raises(RequestError, match=r"expert 3 is not there; the checkpoint has \[0, 1, 2\]"):
        dense_of(state, 3)
    with pytest.raises(RequestError, match="none"):
        dense_of(experts[0], 0)
