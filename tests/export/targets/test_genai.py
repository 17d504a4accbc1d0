"""A tiny random LLaVA through OpenVINO GenAI's own pipeline: the folder opens, and its text is that of the torch model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
import torch

from rsedge.data.errors import RequestError
from rsedge.export.targets.genai import export_llava
from rsedge.models.families import family
from rsedge.models.parts import Part
from rsedge.models.teachers import load_row
from rsedge.runtimes.bundle.language_files import IMAGE_TOKEN
from tests.export.targets.test_language import greedy, plain_language, tiny_llava
from tests.models.small_parts import small_row

hf = pytest.importorskip("transformers")
LENGTH, TOKENS, EDGE = 8, 16, 56
MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
QUESTION = "What is there?"


def tokenizer(image_token: str = IMAGE_TOKEN) -> Any:
    """Bytes, one merge, and the special tokens: real byte-pair encoding, without a downloaded vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: i for i, letter in enumerate([*letters, "er"])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[("e", "r")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>", extra_special_tokens=[image_token]
    )


@pytest.fixture(scope="module")
def words() -> Any:
    return tokenizer()


@pytest.fixture(scope="module")
def llava(words: Any) -> Any:
    return lettered_llava(words)


def lettered_llava(words: Any) -> Any:
    """Says nothing but single printable letters, so that its text tells its tokens."""
    model = tiny_llava(len(words), words.convert_tokens_to_ids(IMAGE_TOKEN))
    silent = [
        i for i in range(len(words)) if not (len(t := words.decode([i])) == 1 and t.isascii() and t.isprintable())
    ]
    with torch.no_grad():
        model.lm_head.weight[silent] = 0.0
    return model


def front_of(llava: Any, folder: Path) -> Part:
    torch.save(llava.state_dict(), folder / "llava.pth")
    row = small_row("teochat").model_copy(update={"checkpoint": small_row("rs-llava").checkpoint})
    parts = family("vlm").parts
    assert parts is not None
    return parts(load_row(row, folder / "llava.pth").net)["front"]


def test_text_of_the_pipeline_is_that_of_the_torch_model(llava: Any, words: Any, tmp_path: Path) -> None:
    genai = pytest.importorskip("openvino_genai")
    folder = export_llava(front_of(llava, tmp_path), plain_language(llava), words, tmp_path / "llava", 14, MEAN, STD)
    exact = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
    # With the cache in pages, GenAI's default, and as a state of the model.
    pipelines = [genai.VLMPipeline(folder, "CPU", ATTENTION_BACKEND=kind, **exact) for kind in ("PA", "SDPA")]
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    prompt = words.encode(IMAGE_TOKEN * TOKENS + "\n" + QUESTION, add_special_tokens=False)
    texts = set()
    for seed in range(3):
        image = np.random.default_rng(seed).integers(0, 256, (1, EDGE, EDGE, 3), dtype=np.uint8)
        pixels = (torch.from_numpy(image).permute(0, 3, 1, 2) / 255 - mean) / std
        expected = words.decode(greedy(llava, pixels, prompt, LENGTH))
        assert len(expected) == LENGTH
        for pipeline in pipelines:
            found = pipeline.generate(
                QUESTION, images=[ov.Tensor(image)], max_new_tokens=LENGTH, do_sample=False, apply_chat_template=False
            )
            assert found.texts == [expected]
        texts.add(expected)
    assert len(texts) > 1, "the image must matter"


def test_what_does_not_fit_is_refused(llava: Any, words: Any, tmp_path: Path) -> None:
    part = Part(torch.nn.Identity(), {"image": torch.zeros(1, 4, 8, 8)}, ("tokens",))
    with pytest.raises(RequestError, match="one square image of three bands"):
        export_llava(part, llava, words, tmp_path, 14, MEAN, STD)
    part = Part(torch.nn.Identity(), {"image": torch.zeros(1, 3, 8, 8)}, ("tokens",))
    plain = tokenizer("<picture>")
    with pytest.raises(RequestError, match="no token '<image>'"):
        export_llava(part, llava, plain, tmp_path, 14, MEAN, STD)
