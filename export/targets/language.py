"""The language model of a vision-language model as OpenVINO files: token embedding and one step with a key-value cache.

Names of files and tensors are those that OpenVINO GenAI reads in its `VLMPipeline` (:mod:`rsedge.export.targets.genai` writes the
rest of such a folder). The cache is a state of the model, so a step takes only what is new. Weights can be compressed to INT8, or
to INT4 with the embedding and the last projection at INT8, by NNCF, or be stored as fp16; arithmetic stays f32.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.export.parts import save_ir
from rsedge.runtimes.bundle.language_files import BEAMS, EMBEDDER, LANGUAGE, LOGITS_OUT, MASK, NEW, PLACES, TOKENS


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


Weights = Literal["f32", "fp16", "int8", "int4"]


@dataclasses.dataclass(frozen=True)
class WeightSettings:
    """How weights are stored.

    Attributes:
        weights: ``int4`` is symmetric, in groups along the rows; ``int8`` per row.
        group_size: weights that share a scale (INT4).
        ratio: share of the layers (by size) that INT4 gets, those it hurts least; the others get INT8.
    """

    weights: Weights = "f32"
    group_size: int = 128
    ratio: float = 1.0


AS_TRAINED = WeightSettings()


def export_language(
    model: nn.Module, folder: str | Path, settings: WeightSettings = AS_TRAINED, vocabulary: int = 0
) -> list[Path]:
    """Writes the token embedding and the language model (with their ``.bin``) of a causal model of ``transformers``.

    Args:
        model: e.g. ``LlamaForCausalLM``, ``Qwen2ForCausalLM``, adapters merged already.
        vocabulary: tokens that the tokenizer has; where these are more than the embedding's rows, rows of noughts are added, so
            that place-holders of images can be looked up.

    Raises:
        MissingCapability: ``transformers`` is not installed.
        RequestError: the model cannot be converted, or its layers cannot be cut into groups of that size.
    """
    import openvino as ov

    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingCapability("transformers is not installed; install rsedge[language]") from error
    folder = Path(folder)
    model = model.eval()
    _check_groups(model, settings)
    embeddings: Any = model.get_input_embeddings
    embedder = ov.convert_model(
        _Embedder(_padded(embeddings(), vocabulary)), example_input=torch.zeros(1, 2, dtype=torch.int64), input=[-1, -1]
    )
    _name(embedder.inputs, [TOKENS])
    _name(embedder.outputs, [NEW])
    with _fused_attention(model):
        language = _stateful(model)
    half = settings.weights == "fp16"
    for made, name in ((_eight_bits(embedder, settings), EMBEDDER), (_compressed(language, settings), LANGUAGE)):
        save_ir(made, folder / name, compress_to_fp16=half)
    return [folder / EMBEDDER, folder / LANGUAGE]


def _check_groups(model: Any, settings: WeightSettings) -> None:
    if settings.weights != "int4":
        return
    last = model.get_output_embeddings()
    widths = {m.in_features for m in model.modules() if isinstance(m, nn.Linear) and m is not last}
    uneven = sorted(w for w in widths if w % settings.group_size)
    if uneven:
        raise RequestError(
            f"the language model's layers are {', '.join(map(str, uneven))} wide, which groups of {settings.group_size} do not "
            f"divide; a group_size of {math.gcd(*widths)} or a divisor of it does"
        )


def _padded(embedding: nn.Module, vocabulary: int) -> nn.Module:
    rows: Tensor = embedding.weight  # type: ignore[assignment]
    if vocabulary <= len(rows):
        return embedding
    more = torch.zeros(vocabulary - len(rows), rows.shape[1], dtype=rows.dtype)
    return nn.Embedding.from_pretrained(torch.cat((rows.detach(), more)))


def _eight_bits(model: Any, settings: WeightSettings) -> Any:
    import nncf

    if settings.weights not in ("int8", "int4"):
        return model
    return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)


def _compressed(model: Any, settings: WeightSettings) -> Any:
    import nncf

    if settings.weights != "int4":
        return _eight_bits(model, settings)
    return nncf.compress_weights(
        model, mode=nncf.CompressWeightsMode.INT4_SYM, group_size=settings.group_size, ratio=settings.ratio
    )


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
