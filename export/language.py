"""The language model of a vision-language model as OpenVINO files: token embedding and one step with a key-value cache.

The cache is a state of the model (as OpenVINO GenAI has it), so a step takes only what is new. Masks come as an input: which
tokens may look at which is decided where the text is put together. Weights can be compressed to INT4 by NNCF; the embedding
and the last projection are kept at INT8, its default.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.export.parts import save_ir
from rsedge.runtimes.language import EMBEDDER, LANGUAGE, LOGITS_OUT, MASK, NEW, PLACES


class _Step(nn.Module):
    """New embeddings (1, n, width), additive mask (1, 1, n, past + n), places (1, n) and the cache -> logits, cache."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, new: Tensor, mask: Tensor, places: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        cache = _cache(past)
        found = self.model(
            inputs_embeds=new, attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True
        )
        return (found.logits, *cache.kept)


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
    """Writes ``embedder.xml`` and ``language.xml`` (with their ``.bin``) for a causal model of ``transformers``.

    Args:
        model: e.g. ``LlamaForCausalLM``, ``Qwen2ForCausalLM``, adapters merged already, attention ``eager``.
        int4: compress the weights to symmetric INT4 in groups of ``group_size`` along their rows.

    Raises:
        MissingCapability: ``transformers`` is not installed.
        RequestError: its attention is not ``eager``, or it cannot be converted.
    """
    import nncf
    import openvino as ov

    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingCapability("transformers is not installed; install rsedge[language]") from error
    config: Any = model.config
    if config._attn_implementation != "eager":
        raise RequestError("the language model must be loaded with attn_implementation='eager' to be exported")
    folder = Path(folder)
    model = model.eval()
    embeddings: Any = model.get_input_embeddings
    embedder = ov.convert_model(
        _Embedder(embeddings()), example_input=torch.zeros(1, 2, dtype=torch.int64), input=[-1, -1]
    )
    _name(embedder.inputs, ["tokens"])
    _name(embedder.outputs, [NEW])
    language = _stateful(model)
    if int4:
        language = nncf.compress_weights(
            language, mode=nncf.CompressWeightsMode.INT4_SYM, group_size=group_size, ratio=1.0
        )
    save_ir(embedder, folder / EMBEDDER)
    save_ir(language, folder / LANGUAGE)
    return [folder / EMBEDDER, folder / LANGUAGE]


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
    example = (torch.zeros(1, 2, config.hidden_size), torch.zeros(1, 1, 2, 5), torch.tensor([[3, 4]]), *past)
    shapes = [[1, -1, config.hidden_size], [1, 1, -1, -1], [1, -1], *[[1, groups, -1, head]] * len(past)]
    with torch.inference_mode():
        try:
            made = ov.convert_model(_Step(model), example_input=example, input=shapes)
        except (RuntimeError, ov.frontend.OpConversionFailure) as error:
            line = str(error).strip().splitlines()[-1]
            raise RequestError(f"the language model cannot be converted to OpenVINO: {line}") from error
    kept = [f"{kind}{i}" for i in range(layers) for kind in ("key", "value")]
    _name(made.inputs, [NEW, MASK, PLACES, *(f"past_{k}" for k in kept)])
    _name(made.outputs, [LOGITS_OUT, *(f"present_{k}" for k in kept)])
    apply_make_stateful_transformation(made, {f"past_{k}": f"present_{k}" for k in kept})
    return made


def _name(ports: Sequence[Any], names: Sequence[str]) -> None:
    for port, name in zip(ports, names, strict=True):
        port.get_tensor().set_names({name})
