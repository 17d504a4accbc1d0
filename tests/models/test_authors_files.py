"""Files as their authors' scripts save them, at reduced width: every form of them, and what a file says of itself.

Weights are drawn under the published names; the network of ours is built by the row alone.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rsedge.data.errors import RequestError
from rsedge.models import zoo
from rsedge.models.checkpoint import read_tensors
from rsedge.models.conformance import drawn
from rsedge.models.families import csp
from rsedge.models.families.temporal_vit import TemporalViT, parts
from rsedge.models.keymap import KeyMap
from rsedge.models.teachers import Teacher, load_row, meta_net, row_of_file, sniff
from rsedge.models.zoo import TeacherRow, teacher_row
from tests.models import authors
from tests.models.small import SMALL, small_row
from tests.models.small_parts import small_row as small_parts_row


def weights(row: TeacherRow, **arch: Any) -> dict[str, Tensor]:
    """Drawn tensors under the names of the row's network."""
    own = {k: v for k, v in meta_net(row.family, row.arch | arch).state_dict().items() if "num_batches" not in k}
    return {
        k: torch.from_numpy(drawn(k, tuple(v.shape))) if v.is_floating_point() else torch.zeros(v.shape, dtype=v.dtype)
        for k, v in own.items()
    }


def saved(content: Any, folder: Path) -> Path:
    torch.save(content, folder / "authors.pth")
    return folder / "authors.pth"


def same(teacher: Teacher, expected: dict[str, Tensor]) -> bool:
    state = teacher.net.state_dict()
    return all(torch.equal(state[name], value) for name, value in expected.items())


@pytest.mark.parametrize("name", ["satmae-ms-vitb", "satmaepp-ms-vitl"])
def test_pretraining_of_satmae_has_no_class_token_of_channels(name: str, tmp_path: Path) -> None:
    row = small_row(name)
    state = weights(row)
    del state["channel_cls_embed"]
    decoder = {
        "decoder_pred.0.weight": torch.ones(2),
        "mask_token": torch.ones(1),
        "decoder_channel_embed": torch.ones(1),
    }
    teacher = load_row(row, saved(authors.mae(state | decoder), tmp_path))
    assert same(teacher, state)
    assert torch.equal(teacher.net.get_parameter("channel_cls_embed"), torch.zeros(1, 1, 16))


def swin_file(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of the original code: a stage's downsampling at its end, masks and indices among the weights."""
    names = {f"layers.{i}.downsample.": f"layers.{i - 1}.downsample." for i in (1, 2, 3)} | {"head.fc.": "head."}
    found = {}
    for key, value in state.items():
        old = next((old for old in names if key.startswith(old)), "")
        found[names.get(old, "") + key.removeprefix(old)] = value
    return found | {"layers.0.blocks.1.attn_mask": torch.zeros(4, 4, 4)}


def test_gfm_is_read_as_saved_with_its_configuration(tmp_path: Path) -> None:
    row = small_row("gfm-swinb")
    state = weights(row)
    beside = {
        "teacher.norm.weight": torch.ones(2),
        "projector.weight": torch.ones(2),
        "decoder.0.weight": torch.ones(2),
    }
    content = authors.gfm(
        {**authors.under("encoder.", swin_file(state)), "encoder.mask_token": torch.ones(1), **beside}
    )
    path = saved(content, tmp_path)
    before = set(sys.modules)
    teacher = load_row(row, path)
    assert same(teacher, state) and teacher.spec.task == "embedding"
    assert set(sys.modules) == before


@pytest.mark.parametrize("window", [4, 8])
def test_fine_tuned_gfm_brings_its_window_and_its_classes(window: int, tmp_path: Path) -> None:
    row = teacher_row("gfm-swinb")
    row = row.model_copy(update={"arch": row.arch | {"dim": 16, "heads": [1, 2, 4, 8], "depths": [2, 2, 2, 2]}})
    state = weights(row, window=window, tile=32 * window, classes=19)
    teacher = load_row(row, saved(authors.gfm(swin_file(state)), tmp_path))
    assert same(teacher, state)
    assert (teacher.spec.task, len(teacher.spec.classes)) == ("classification", 19)
    assert teacher.spec.input_spec.tile == 32 * window
    assert teacher(torch.zeros(1, *teacher.spec.input_spec.shape)).shape == (1, 19)


@pytest.mark.parametrize("module", ["yacs.config", "fvcore.common.config", "easydict"])
def test_configurations_are_read_without_their_library(module: str, tmp_path: Path) -> None:
    path = saved({"model": {"w": torch.ones(2)}, "config": authors.settings_node(module)}, tmp_path)
    del sys.modules[module]
    assert read_tensors(path, ("model",)).keys() == {"w"}
    assert module not in sys.modules


def test_glcnet_of_every_kind(tmp_path: Path) -> None:
    row = small_row("glcnet-rgb")
    state = weights(row)
    from_encoder = {k.replace("decoder.", "decoder_ft."): v for k, v in state.items()}
    from_decoder = {
        k.replace("conv3.", "conv3t.").replace("bn3.", "bn3t.") if k.startswith("decoder.") else k: v
        for k, v in state.items()
    }
    from_backbone = {k.replace("encoder.", "encoder_ft."): v for k, v in from_encoder.items()}
    for file in (state, from_backbone, from_encoder, from_decoder):
        teacher = load_row(row, saved(authors.flat(file), tmp_path))
        assert same(teacher, state)
        assert teacher.spec.task == "segmentation" and len(teacher.spec.classes) == 6


def test_pretraining_of_glcnet_is_no_segmenter(tmp_path: Path) -> None:
    row = small_row("glcnet-rgb")
    body = {k: v for k, v in weights(row).items() if "conv4." not in k}
    head = {"decoder.conv41.weight": torch.ones(64, 16, 1, 1), "decoder.conv41.bias": torch.ones(64)}
    teacher = load_row(
        row, saved(body | head | {"proj.0.weight": torch.ones(2), "proj1.0.weight": torch.ones(2)}, tmp_path)
    )
    assert (teacher.spec.task, teacher.spec.classes) == ("embedding", ())
    assert row_of_file(row, tmp_path / "authors.pth") == teacher.spec
    assert teacher(torch.zeros(1, 3, 64, 64)).shape == (1, 16)
    assert [f.channels for f in teacher.features if f.name == "net.decoder"] == [16]


def test_pretraining_of_glcnet_without_a_decoder(tmp_path: Path) -> None:
    row = small_row("glcnet-rgb")
    body = {k: v for k, v in weights(row).items() if not k.startswith("decoder.")}
    teacher = load_row(row, saved({**body, "proj.0.weight": torch.ones(2), "proj1.0.weight": torch.ones(2)}, tmp_path))
    assert same(teacher, body) and teacher.spec.task == "embedding"
    assert teacher(torch.zeros(1, 3, 64, 64)).shape == (1, 16)
    assert [f.name for f in teacher.features][-1] == "net.encoder"


def test_glcnet_on_a_resnet101(tmp_path: Path) -> None:
    row = teacher_row("glcnet-rgb")
    row = row.model_copy(update={"arch": row.arch | {"width": 4, "pyramid": 8}})
    state = weights(row, depth=101)
    assert same(load_row(row, saved(authors.flat(state), tmp_path)), state)


@pytest.mark.parametrize("name", ["satlas-s2-rgb-swinv2b", "satlas-s2-rgb-resnet50"])
def test_a_file_for_several_images_is_not_taken_for_one(name: str, tmp_path: Path) -> None:
    row = small_row(name)
    state = weights(row)
    inside = authors.under("resnet." if "resnet" in name else "backbone.", state)
    assert same(load_row(row, saved(authors.satlas(inside), tmp_path)), state)
    assert same(load_row(row, saved(authors.flat(state), tmp_path)), state)
    several = saved(authors.satlas(authors.under("backbone.", inside)), tmp_path)
    with pytest.raises(RequestError, match="checkpoint does not fit"):
        load_row(row, several)
    assert same(load_row(small_row(name.replace("rgb", "rgb-mi")), several), state)


def tov_files(state: dict[str, Tensor]) -> dict[str, Any]:
    """MoCo's training file, the same standardised, and a fine-tuned network before and after that."""
    classes = {"classifier.weight": torch.ones(30, 256), "classifier.bias": torch.ones(30)}
    query = {**authors.under("encoder_q.features.", state), "encoder_q.classifier.weight": torch.ones(128, 256)}
    others = {"encoder_k.features.conv1.weight": torch.ones(2), "queue": torch.ones(2)}
    tuned = {**authors.under("features.", state), **classes}
    return {
        "training": {"state_dict": query | others, "epoch": 800},
        "standardised": {"state_dict": {**state, "encoder_q.classifier.weight": torch.ones(128, 256)}},
        "tuned": {"state_dict": tuned},
        "tuning": {"state_dict": authors.under("model.", tuned), "epoch": 3, "hyper_parameters": {}},
        "tuned, standardised": {"state_dict": {**state, **authors.under("model.", classes)}},
    }


@pytest.mark.parametrize("form", ["training", "standardised", "tuned", "tuning", "tuned, standardised"])
def test_tov_in_every_form(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = small_row("tov-resnet50")
    state = weights(row)
    path = saved(tov_files(state)[form], tmp_path)
    teacher = load_row(row, path)
    assert same(teacher, state)
    assert teacher.spec.task == ("classification" if "tun" in form else "embedding")
    rows = [small_row(r.name) for r in zoo.zoo() if r.family == "resnet"]
    monkeypatch.setattr(zoo, "zoo", lambda: rows)
    assert sniff(path) == ["tov-resnet50"]


CSP_FORMS = ["loc_enc.spa_enc.ffn.", "spa_enc.ffn.", "ffn."]


@pytest.mark.parametrize("prefix", CSP_FORMS)
@pytest.mark.parametrize(("activation", "named"), [("gelu", "csp-fmow"), ("leakyrelu", "csp-inat"), ("relu", None)])
def test_the_settings_of_csp_decide(
    prefix: str, activation: str, named: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = small_row("csp-fmow")
    state = weights(row)
    file = authors.under(prefix, state)
    if prefix == CSP_FORMS[0]:  # the image's side shares the encoder
        file |= authors.under(CSP_FORMS[1], state) | {
            "loc_enc.class_emb.weight": torch.ones(2),
            "img_dec.weight": torch.ones(2),
        }
    params = {"spa_f_act": activation, "frequency_num": 32, "min_radius": 0.1, "max_radius": 360.0}
    path = saved(authors.csp(params)(file), tmp_path)
    teacher = load_row(row, path)
    layer = teacher.net.get_submodule("layers.0")
    assert same(teacher, state) and isinstance(layer, csp.Layer)
    assert layer.act is csp.ACTIVATIONS[activation]
    rows = [small_row("csp-fmow"), small_row("csp-inat")]
    monkeypatch.setattr(zoo, "zoo", lambda: rows)
    assert sniff(path) == ([named] if named else ["csp-fmow", "csp-inat"])


def test_scales_of_csp_come_from_the_file(tmp_path: Path) -> None:
    row = small_row("csp-fmow")
    path = saved(authors.csp({"min_radius": 0.01})(authors.under("ffn.", weights(row))), tmp_path)
    assert load_row(row, path).arch["shortest"] == 0.01
    path = saved(authors.csp({"spa_f_act": "swish"})(authors.under("ffn.", weights(row))), tmp_path)
    with pytest.raises(RequestError, match="activation 'swish' is unknown; known: gelu"):
        load_row(row, path)


@pytest.mark.parametrize("radius", [0, -1.0, float("nan"), float("inf"), "0.1", True])
def test_settings_of_csp_that_are_no_scales_are_named(radius: Any, tmp_path: Path) -> None:
    row = small_row("csp-fmow")
    path = saved(authors.csp({"min_radius": radius})(authors.under("ffn.", weights(row))), tmp_path)
    with pytest.raises(RequestError, match="are no scales"):
        load_row(row, path)


@pytest.mark.parametrize("name", ["rvsa-vitb", "rvsa-vitb-kvdiff", "rvsa-vitaeb", "rvsa-vitaeb-kvdiff"])
def test_rvsa_has_biases_where_its_file_has(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = small_parts_row(name)
    rows = [small_parts_row(r.name) for r in zoo.zoo() if r.family == "rvsa"]
    monkeypatch.setattr(zoo, "zoo", lambda: rows)
    for bias in (False, True):
        state = weights(row, bias=bias, classes=5)
        path = saved(authors.mae(state), tmp_path)
        teacher = load_row(row, path)
        assert same(teacher, state)
        assert any(k.endswith(("qkv.bias", "q_bias")) for k in teacher.net.state_dict()) is bias
        # Which angles values are turned by is not in the file.
        assert sniff(path) == ([f"{name}-2022", name] if "kvdiff" in name else [name])


@pytest.mark.parametrize("kind", ["vitb", "vitb-kvdiff", "vitaeb", "vitaeb-kvdiff"])
def test_segmenters_of_rvsa_bring_their_size_their_classes_and_their_biases(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {r.name: small_parts_row(r.name) for r in zoo.zoo() if r.family == "rvsa_upernet"}
    row = rows[f"rvsa-{kind}-upernet-isaid"]
    without = weights(row, image=128, bias=False)
    assert same(load_row(row, saved(authors.mm(without), tmp_path)), without)
    state = weights(row, image=128, classes=7)
    beside = {"auxiliary_head.conv_seg.weight": torch.ones(7, 2, 1, 1)}
    path = saved(authors.mm(authors.under("module.", state | beside)), tmp_path)
    teacher = load_row(row, path)
    assert same(teacher, state) and row_of_file(row, path) == teacher.spec
    assert teacher.spec.classes == tuple(f"class {i}" for i in range(7))
    assert teacher(torch.zeros(1, *teacher.spec.input_spec.shape)).shape == (1, 7, 128, 128)
    known = [r.model_copy(update={"arch": r.arch | {"image": 128}}) for r in rows.values()]
    monkeypatch.setattr(zoo, "zoo", lambda: known)
    assert sniff(path) == [f"rvsa-{kind}-upernet-loveda"]  # the one of seven classes


def test_the_contract_of_hypersigma_follows_the_file(tmp_path: Path) -> None:
    row = small_parts_row("hypersigma-cls-b")
    state = weights(row, image=9, bands=10, classes=17)
    path = saved(authors.flat(state), tmp_path)
    spec = load_row(row, path).spec
    assert row_of_file(row, path) == spec
    assert spec.input_spec.shape == (10, 9, 9)
    assert spec.input_spec.band_names == tuple(f"pc{i}" for i in range(1, 11))
    assert spec.classes[:2] == ("unlabelled", "alfalfa") and len(spec.classes) == 17


@pytest.mark.parametrize("kind", ["vitb", "vitb-kvdiff", "vitaeb", "vitaeb-kvdiff"])
def test_detectors_of_rvsa_bring_their_size_their_classes_and_their_biases(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {r.name: small_parts_row(r.name) for r in zoo.zoo() if r.family == "rvsa_oriented"}
    row = rows[f"rvsa-{kind}-oriented-dota"]
    apart = weights(row, joint=False)  # as segmenters of ViTAE have them
    assert same(load_row(row, saved(authors.mm(apart), tmp_path)), apart)
    state = weights(row, image=128, classes=20)
    biases = [name for name in state if name.endswith(("qkv.bias", "q_bias"))]
    assert len(biases) == 3 and sum(name.endswith("qkv.bias") for name in biases) == (2 if "vitae" in kind else 3)
    path = saved(authors.mm(authors.under("module.", state)), tmp_path)
    teacher = load_row(row, path)
    assert same(teacher, state) and row_of_file(row, path) == teacher.spec
    assert teacher(torch.zeros(1, *teacher.spec.input_spec.shape)).shape == (1, 12, 25)
    known = [r.model_copy(update={"arch": r.arch | {"image": 128}}) for r in rows.values()]
    monkeypatch.setattr(zoo, "zoo", lambda: known)
    assert sniff(path) == [f"rvsa-{kind}-oriented-dior"]


@pytest.mark.parametrize(
    ("name", "image", "patch"),
    [
        ("hypersigma-cd-b-5", 5, 1),
        ("hypersigma-cd-b-5", 15, 2),
        ("spatsigma-cd-b-15", 15, 2),
        ("spatsigma-cd-b-15", 5, 1),
        ("spatsigma-cd-b-5", 14, 2),
    ],
)
def test_change_of_hypersigma_brings_its_bands_and_patches(name: str, image: int, patch: int, tmp_path: Path) -> None:
    row = small_parts_row(name)
    state = weights(row, image=image, patch=patch, bands=9)
    named = {k.replace("spat_", "") if "spat" in name and k.startswith("spat_enc") else k: v for k, v in state.items()}
    path = saved(authors.flat(named if name.startswith("spatsigma") else state), tmp_path)
    teacher = load_row(row, path)
    assert same(teacher, state) and row_of_file(row, path) == teacher.spec
    assert (teacher.arch["image"], teacher.arch["patch"]) == (image, patch)
    spec = teacher.spec.input_spec
    assert spec.shape == (2, 9, 16, 16) and spec.band_names[-1] == "channel9"
    assert teacher(torch.zeros(1, *spec.shape)).shape == (1, 2, 16, 16)


def test_spectralgpt_brings_its_tile_and_is_known_by_its_classes(tmp_path: Path) -> None:
    row = teacher_row("spectralgpt-vitb")
    small = {"dim": 32, "depth": 2, "heads": 2}
    for positions in ("separate", "joint"):
        state = weights(row, **small, tile=128, positions=positions, classes=10)
        shrunk = row.model_copy(update={"arch": row.arch | small})
        spec = load_row(shrunk, saved(authors.mae(state), tmp_path)).spec
        assert (spec.input_spec.tile, len(spec.classes)) == (128, 10)


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        (10, ["spectralgpt-vitb-eurosat", "spectralgpt-vitb"]),
        (19, ["spectralgpt-vitb-bigearthnet", "spectralgpt-vitb"]),
        (5, ["spectralgpt-vitb"]),
    ],
)
def test_rows_of_as_many_classes_are_named_first(
    classes: int, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [small_row(r.name) for r in zoo.zoo() if r.name.startswith("spectralgpt-vitb")]
    monkeypatch.setattr(zoo, "zoo", lambda: rows)
    assert sniff(saved(authors.mae(weights(rows[0], classes=classes)), tmp_path)) == names


def test_spectralgpt_on_eurosat_and_bigearthnet_has_their_statistics() -> None:
    """Plain mean and deviation, and 8 bits between the mean less and plus twice the deviation."""
    dn = np.arange(12) * 200.0 + 500
    plain = normalised("spectralgpt-vitb-eurosat", dn)
    assert plain[[0, 11]] == pytest.approx([(500 - 752.40087) / 1108.02887, (2700 - 1805.06846) / 1343.48380], abs=1e-5)
    eight = normalised("spectralgpt-vitb-bigearthnet", dn)
    low, high = 1370.19152 - 2 * 633.15170, 1370.19152 + 2 * 633.15170
    assert eight[0] == pytest.approx(np.floor((500 - low) / (high - low) * 255) / 255, abs=1e-6)


def normalised(name: str, dn: Any) -> np.ndarray:
    """A contract's normalised values (bands,) of one DN per band."""
    spec = teacher_row(name).input_spec
    values = np.asarray(dn, dtype=spec.dtype)
    flat = np.broadcast_to(values if values.ndim else values[None], (spec.channels,))
    return spec.normalise(np.broadcast_to(flat[:, None, None], (spec.channels, 16, 16)))[:, 0, 0]


def test_glcnet_normalises_as_its_authors_do() -> None:
    for name in ("glcnet-rgb", "glcnet-rgbnir"):
        assert normalised(name, 200) == pytest.approx(200 / 255 * 3.2 - 1.6, abs=1e-6)


@pytest.mark.parametrize(
    "name", ["satlas-s2-ms-swinv2b", "satlas-s2-ms-swinv2t", "satlas-s2-ms-resnet50", "satlas-s2-ms-resnet152"]
)
def test_satlas_clips_what_it_has_divided(name: str) -> None:
    assert normalised(name, [51, 255, 300, 4080, 8160, 9000, 0, 816, 60000]) == pytest.approx(
        [0.2, 1, 1, 0.5, 1, 1, 0, 0.1, 1], abs=1e-6
    )


def test_satlas_landsat_and_sentinel1_are_clipped_too() -> None:
    landsat = normalised("satlas-landsat-swinv2b", [0, 4000, 12160, 20320, 60000, *[4000] * 6])
    assert landsat == pytest.approx([0, 0, 0.5, 1, 1, *[0] * 6], abs=1e-6)
    assert teacher_row("satlas-s1-swinv2b").input_spec.band_names == ("vh", "vv")
    assert normalised("satlas-s1-swinv2b", [51, 1000]) == pytest.approx([0.2, 1], abs=1e-6)


def test_seco_stretches_reflectance_and_leaves_imagenet_out() -> None:
    """Red, green, blue as 8-bit reflectance; (x - min) / (max - min) * 255, cut to 8 bits, over 255."""
    for name in ("seco-resnet18", "seco-resnet50"):
        low, high = np.array([0, 2, 3]), np.array([129, 103, 88])
        for dn in ([60, 50, 40], [0, 0, 0], [200, 200, 200], [17, 33, 61]):
            cut = np.clip((np.array(dn) - low) / (high - low) * 255, 0, 255).astype(np.uint8)
            assert normalised(name, dn) == pytest.approx(cut / 255, abs=1e-6)
        assert teacher_row(name).input_spec.to_physical(np.full((3, 1, 1), 255, np.uint8)) == pytest.approx(1)


@pytest.mark.parametrize(
    "name", ["av-resnet18-sound", "av-resnet50-sound", "av-resnet1d18-sound", "av-resnet1d50-sound"]
)
def test_spectrograms_are_scaled_as_they_were_trained(name: str) -> None:
    spec = teacher_row(name).input_spec
    ends = [spec.normalise(np.full(spec.shape, value, np.uint8)).ravel()[0] for value in (0, 255)]
    assert ends == pytest.approx([0.223, 1.649], abs=1e-5)


def test_dates_of_satmae_count_from_2002_and_january() -> None:
    row = small_row("satmae-temporal-vitl")
    net = TemporalViT(**(row.arch | SMALL["temporal_vit"]))
    times = parts(net)["encoder"].inputs["times"]
    assert times[0].tolist() == [[13.0, 5.0, 12.0], [14.0, 5.0, 12.0], [15.0, 5.0, 12.0]]


def test_the_first_root_that_a_file_has_is_taken() -> None:
    layout = KeyMap(roots=("a.b.", "b.", ""))
    assert layout.apply({"a.b.w": 1, "b.w": 2, "c": 3}) == {"w": 1}
    assert layout.apply({"module.b.w": 2, "c": 3}) == {"w": 2}
    assert layout.apply({"w": 4}) == {"w": 4}
