"""The language model of a vision-language model as OpenVINO files: token embedding and one step with a key-value cache.

Names of files and tensors are those that OpenVINO GenAI reads in its `VLMPipeline` (:mod:`rsedge.export.genai` writes the rest of
such a folder). The cache is a state of the model, so a step takes only what is new. Weights can be compressed to INT4 by NNCF; the
embedding and the last projection are kept at INT8, its default.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.export.parts import save_ir
from rsedge.runtimes.language import BEAMS, EMBEDDER, LANGUAGE, LOGITS_OUT, MASK, NEW, PLACES, TOKENS


class _Step(nn.Module):
    """New embeddings (N, n, width), attended tokens (N, past + n), places (N, n), beams (N,), cache -> logits, cache."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, new: Tensor, attended: Tensor, places: Tensor, beams: Tensor, *past: Tensor
    ) -> tuple[Tensor, ...]:
        cache = _cache([kept.index_select(0, beams) for kept in past])
        found = self.model(
            inputs_embeds=new, attention_mask=_causal(attended, new), position_ids=places, past_key_values=cache,
            use_cache=True,
        )  # fmt: skip
        return (found.logits, *cache.kept)


def _causal(attended: Tensor, new: Tensor) -> Tensor:
    """Mask (N, 1, n, past + n) to be added: each new token sees the attended ones up to itself."""
    total = attended.shape[1]
    columns = torch.arange(total)
    rows = columns[total - new.shape[1] :]
    seen = (columns[None] <= rows[:, None]) & (attended[:, None, None] > 0)
    return torch.where(seen, 0.0, torch.finfo(torch.float32).min)


def _cache(past: Sequence[Tensor]) -> Any:
    """A cache that appends and nothing else. transformers' own starts empty, which a traced graph cannot express."""
    from transformers import DynamicCache

    class Appending(DynamicCache):
        def __init__(self) -> None:
            super().__init__()
            self.kept = list(past)

        def update(self, key: Tensor, value: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
            at = 2 * layer_idx
            self.kept[at : at + 2] = [torch.cat((self.kept[at], key), 2), torch.cat((self.kept[at + 1], value), 2)]
            return self.kept[at], self.kept[at + 1]

    return Appending()


def export_language(model: nn.Module, folder: str | Path, int4: bool = False, group_size: int = 128) -> list[Path]:
    """Writes the token embedding and the language model (with their ``.bin``) of a causal model of ``transformers``.

    Args:
        model: e.g. ``LlamaForCausalLM``, ``Qwen2ForCausalLM``, adapters merged already.
        int4: compress the weights to symmetric INT4 in groups of ``group_size`` along their rows.

    Raises:
        MissingCapability: ``transformers`` is not installed.
        RequestError: the model cannot be converted.
    """
    import nncf
    import openvino as ov

    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingCapability("transformers is not installed; install rsedge[language]") from error
    folder = Path(folder)
    model = model.eval()
    embeddings: Any = model.get_input_embeddings
    embedder = ov.convert_model(
        _Embedder(embeddings()), example_input=torch.zeros(1, 2, dtype=torch.int64), input=[-1, -1]
    )
    _name(embedder.inputs, [TOKENS])
    _name(embedder.outputs, [NEW])
    with _fused_attention(model):
        language = _stateful(model)
    if int4:
        language = nncf.compress_weights(
            language, mode=nncf.CompressWeightsMode.INT4_SYM, group_size=group_size, ratio=1.0
        )
    save_ir(embedder, folder / EMBEDDER)
    save_ir(language, folder / LANGUAGE)
    return [folder / EMBEDDER, folder / LANGUAGE]


@contextlib.contextmanager
def _fused_attention(model: Any) -> Iterator[None]:
    """One operation per attention, which OpenVINO joins with the cache."""
    before = model.config._attn_implementation
    model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


class _Embedder(nn.Module):
    def __init__(self, embedding: nn.Module) -> None:
        super().__init__()
        self.embedding = embedding

    def forward(self, tokens: Tensor) -> Tensor:
        return self.embedding(tokens)  # type: ignore[no-any-return]


def _stateful(model: Any) -> Any:
    import openvino as ov
    from openvino._offline_transformations import apply_make_stateful_transformation

    config = model.config
    layers, groups = config.num_hidden_layers, config.num_key_value_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    past = [torch.zeros(1, groups, 3, head) for _ in range(2 * layers)]
    example = (
        torch.zeros(1, 2, config.hidden_size), torch.ones(1, 5, dtype=torch.int64), torch.tensor([[3, 4]]),
        torch.zeros(1, dtype=torch.int32), *past,
    )  # fmt: skip
    shapes = [[-1, -1, config.hidden_size], [-1, -1], [-1, -1], [-1], *[[-1, groups, -1, head]] * len(past)]
    with torch.inference_mode():
        try:
            made = ov.convert_model(_Step(model), example_input=example, input=shapes)
        except (RuntimeError, ov.frontend.OpConversionFailure) as error:
            line = str(error).strip().splitlines()[-1]
            raise RequestError(f"the language model cannot be converted to OpenVINO: {line}") from error
    kept = [f"{i}.{kind}" for i in range(layers) for kind in ("key", "value")]
    _name(made.inputs, [NEW, MASK, PLACES, BEAMS, *(f"past_key_values.{k}" for k in kept)])
    for port in made.inputs:
        # OpenVINO's pass to paged attention, GenAI's default, looks for operations of these names.
        port.get_node().set_friendly_name(port.any_name)
    _name(made.outputs, [LOGITS_OUT, *(f"present.{k}" for k in kept)])
    apply_make_stateful_transformation(made, {f"past_key_values.{k}": f"present.{k}" for k in kept})
    _start_empty(made, groups, head)
    return made


def _start_empty(language: Any, groups: int, head: int) -> None:
    """Gives every state its first value, no tokens of as many sequences as come in: the CPU plugin wants it said."""
    from openvino import opset13 as ops

    new = next(p.get_node() for p in language.inputs if NEW in p.get_names())
    first, others = np.array([0], np.int64), np.array([groups, 0, head], np.int64)
    shape = ops.concat([ops.gather(ops.shape_of(new), first, np.int64(0)), others], 0)
    empty = ops.broadcast(np.float32(0.0), shape)
    for op in language.get_ops():
        if op.get_type_name() == "ReadValue":
            op.set_arguments([empty])
    language.validate_nodes_and_infer_types()


def _name(ports: Sequence[Any], names: Sequence[str]) -> None:
    for port, name in zip(ports, names, strict=True):
        port.get_tensor().set_names({name})
