"""Names in a captioning bundle's ``language/`` folder: its files, and the tensors of its models."""

from __future__ import annotations

EMBEDDER, LANGUAGE = "openvino_text_embeddings_model.xml", "openvino_language_model.xml"
TOKENIZER, DETOKENIZER = "openvino_tokenizer.xml", "openvino_detokenizer.xml"
GOLDEN_ANSWER = "golden_answer.npz"
"""Ours; GenAI does not read it."""
TOKENS, NEW, MASK, PLACES, BEAMS = "input", "inputs_embeds", "attention_mask", "position_ids", "beam_idx"
LOGITS_OUT = "logits"
"""Files and tensors as OpenVINO GenAI names them."""
IMAGE_TOKEN = "<image>"
"""What a LLaVA's prompt has once for every image token."""
