"""SAM with points and boxes, against transformers with the same random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from rsedge.models.families import family
from rsedge.models.teachers import load_teacher, sniff
from tests.conftest import Results
from tests.models.test_parts_forward import close, noise


@pytest.fixture
def saved(tmp_path: Path) -> tuple[object, Path]:
    hf = pytest.importorskip("transformers")
    config = hf.SamConfig(
        vision_config=hf.SamVisionConfig(
            hidden_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=240, global_attn_indexes=[1], mlp_dim=128,
            output_channels=32, num_pos_feats=16,
        ).to_dict(),
        prompt_encoder_config=hf.SamPromptEncoderConfig(hidden_size=32, image_size=240).to_dict(),
        mask_decoder_config=hf.SamMaskDecoderConfig(hidden_size=32, mlp_dim=256, iou_head_hidden_dim=32).to_dict(),
    )  # fmt: skip
    torch.manual_seed(0)
    net = hf.SamModel(config).eval()
    with torch.no_grad():
        for p in net.parameters():
            if p.ndim > 1:
                p.copy_(torch.randn_like(p) / p[0].numel() ** 0.5)
    net.tie_weights()
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file({k: v.clone().contiguous() for k, v in net.state_dict().items()}, path)
    return net, path


def test_points_and_boxes_give_the_masks_of_transformers(saved: tuple[object, Path], results: Results) -> None:
    net, path = saved
    assert "sam-base" in sniff(path)
    ours = load_teacher("sam-base", path)
    assert ours.arch["image"] == 240 and ours.arch["depth"] == 3 and ours.arch["whole"] == [1]
    x = noise(1, 3, 240, 240)
    points = 240 * torch.rand(1, 16, 1, 2, generator=torch.Generator().manual_seed(2))
    boxes = torch.cat([points * 0.5, points * 0.5 + 60], 2)
    nothing = torch.zeros(1, 16, 1)
    inside = torch.ones(1, 16, 1)
    with torch.inference_mode():
        for given, (places, labels) in (
            ({"input_points": points, "input_labels": inside.long()},
             (torch.cat([points, 0 * points], 2), torch.cat([inside, nothing - 1], 2))),
            ({"input_points": points, "input_labels": nothing.long()},
             (torch.cat([points, 0 * points], 2), torch.cat([nothing, nothing - 1], 2))),
            ({"input_boxes": boxes.flatten(2)}, (boxes, torch.tensor([2.0, 3.0]).expand(1, 16, 2))),
        ):  # fmt: skip
            other = net(pixel_values=x, multimask_output=False, **given)  # type: ignore[operator]
            masks, quality = ours(x, places, labels)
            assert close(masks, other.pred_masks) and close(quality, other.iou_scores)
    results.setdefault("family sam_points", {})["forward"] = "transformers"


def test_its_parts_together_are_the_network(saved: tuple[object, Path]) -> None:
    ours = load_teacher("sam-base", saved[1])
    parts = family("sam_points").parts
    assert parts is not None
    both = parts(ours.net)
    image = noise(1, 3, 240, 240)
    places, labels = 240 * torch.rand(1, 16, 2, 2), torch.randint(-1, 4, (1, 16, 2)).float()
    with torch.inference_mode():
        embedding = both["encoder"].net(image)
        masks, quality = both["decoder"].net(embedding, places, labels)
        wanted = ours(image, places, labels)
    assert close(masks, wanted[0]) and close(quality, wanted[1])
