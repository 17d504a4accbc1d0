"""Post-training quantization: real calibration or none, pre-processing untouched, gates decide."""

from __future__ import annotations

from typing import Any

import nncf
import numpy as np
import openvino as ov
import pytest
from pydantic import ValidationError

from rsedge.compress.quantize.acceptance import Acceptance, Limit
from rsedge.compress.quantize.ptq import (
    PtqSettings,
    check_calibration,
    compute_layers,
    constant_first,
    first_layers,
    is_transformer,
    last_layers,
    plain_ptq,
    preprocessing_names,
    quantize,
    quiet_nncf,
    saturation,
)
from rsedge.compress.quantize.search import (
    Fastest,
    Ground,
    SearchSettings,
    ladder,
    onnx_ladder,
    search,
    weights_ladder,
)
from rsedge.data.errors import RequestError
from rsedge.data.temporary import TemporaryFolder
from tests.compress.real_tiles import classes_of, compile_f32, openvino_model, real_tiles, trained_student

FAST = PtqSettings()
MIXED = PtqSettings(preset="mixed")


@pytest.fixture(scope="module")
def tiles() -> list[Any]:
    return real_tiles()


@pytest.fixture(scope="module")
def model(tiles: list[Any]) -> ov.Model:
    return openvino_model(trained_student(tiles))


def quantizers(model: ov.Model) -> list[Any]:
    return [op for op in model.get_ops() if op.get_type_name() == "FakeQuantize"]


def model_bytes(model: ov.Model) -> int:
    with TemporaryFolder() as folder:
        ov.save_model(model, folder / "model.xml", compress_to_fp16=False)
        return sum(file.stat().st_size for file in folder.iterdir())


def test_a_constant_on_the_left_of_a_product_stays_float() -> None:
    """Quantized, OpenVINO's CPU plugin refuses to compile it."""
    ops = ov.opset13
    rng = np.random.default_rng(0)
    dn = ops.parameter([1, 3, 8, 8], np.float32, name="dn")
    maps = ops.convolution(dn, rng.normal(size=(12, 3, 1, 1)).astype(np.float32), [1, 1], [0, 0], [0, 0], [1, 1])
    pooled = ops.matmul(
        rng.random((20, 12)).astype(np.float32), ops.reshape(maps, [1, 12, 64], False), False, False, name="pool"
    )
    logits = ops.matmul(pooled, rng.normal(size=(5, 64)).astype(np.float32), False, True)
    model = ov.Model([logits], [dn])
    assert constant_first(model) == ["pool"]
    tiles = [rng.normal(size=(3, 8, 8)).astype(np.float32) for _ in range(8)]
    small = quantize(model, tiles, FAST)
    assert len(quantizers(small)) >= 2
    found, expected = (compile_f32(m)(tiles[0][None])[0] for m in (small, model))
    assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


# -- calibration ----------------------------------------------------------------------------------------------------


def test_no_calibration_is_refused(model: ov.Model) -> None:
    with pytest.raises(RequestError, match="no calibration tiles"):
        quantize(model, [], FAST)
    with pytest.raises(RequestError, match="no calibration tiles"):
        plain_ptq(model, [])
    with pytest.raises(RequestError, match="no calibration tiles"):
        search(ground(model, lambda m: Acceptance(score=1.0)), [], ladder(False), limit(1.0, 0.1))


def test_bad_calibration_is_refused_by_name() -> None:
    good = np.arange(6 * 16 * 16, dtype=np.float32).reshape(6, 16, 16)
    broken = good.copy()
    broken[0, 0, 0] = np.nan
    with pytest.raises(RequestError, match="tile 1 holds NaN or infinity"):
        check_calibration([good, broken])
    with pytest.raises(RequestError, match="constant"):
        check_calibration([np.zeros((6, 16, 16), np.uint16)] * 9)
    with pytest.raises(RequestError, match="one shape"):
        check_calibration([good, good[:, :8]])


def test_calibration_record_hashes_and_warns() -> None:
    rng = np.random.default_rng(0)
    tiles = [rng.integers(1, 5000, (2, 8, 8)).astype(np.uint16) for _ in range(9)]
    _, record = check_calibration(tiles)
    assert record.tiles == 9 and record.warnings == ()
    assert check_calibration(tiles[::-1])[1].sha256 != record.sha256
    kept, few = check_calibration([tiles[0], tiles[0], np.zeros_like(tiles[0])])
    assert len(kept) == 2
    assert "1 constant" in few.warnings[0] and "only 1 different" in few.warnings[1]


# -- graph ----------------------------------------------------------------------------------------------------------


def test_preprocessing_is_found_and_never_quantized(model: ov.Model, tiles: list[Any]) -> None:
    names = preprocessing_names(model)
    types = {op.get_type_name() for op in model.get_ops() if op.get_friendly_name() in names}
    assert {"Convert", "Multiply", "Select"} <= types and "Convolution" not in types
    assert len(first_layers(model)) == len(last_layers(model)) == 1
    made = quantize(model, tiles, FAST)
    assert len(quantizers(made)) > 5
    inside = set(names) - {"Select"}
    for op in quantizers(made):
        readers = {t.get_node().get_friendly_name() for t in op.output(0).get_target_inputs()}
        assert not readers & inside
    assert not quantizers(model)


@pytest.mark.parametrize("kept", ["first", "last", "first-last"])
def test_float_layers_stay_float(model: ov.Model, tiles: list[Any], kept: Any) -> None:
    made = quantize(model, tiles[:8], PtqSettings(float_layers=kept))
    wanted = (first_layers(model) if "first" in kept else []) + (last_layers(model) if "last" in kept else [])
    for op in made.get_ops():
        if op.get_friendly_name() in wanted:
            assert op.input_value(0).get_node().get_type_name() != "FakeQuantize"


@pytest.mark.parametrize(
    "settings",
    [
        FAST,
        MIXED,
        PtqSettings(bias_correction="full"),
        PtqSettings(preset="mixed", range_estimator="quantile"),
        PtqSettings(preset="mixed", range_estimator="histogram"),
    ],
    ids=PtqSettings.label,
)
def test_quantized_agrees_on_real_tiles(model: ov.Model, tiles: list[Any], settings: PtqSettings) -> None:
    made = quantize(model, tiles, settings)
    assert np.mean(classes_of(made, tiles) == classes_of(model, tiles)) > 0.95
    assert model_bytes(made) < model_bytes(model)
    valid = compile_f32(made)({0: tiles[0][None]})[1]
    assert valid.dtype == np.uint8 and valid.all()


def test_overflow_fix_removes_this_hosts_saturation(model: ov.Model, tiles: list[Any]) -> None:
    """With 7-bit weights the integer kernels give what the graph means, on hosts with and without VNNI."""
    safe = saturation(quantize(model, tiles, FAST), tiles)
    full = saturation(quantize(model, tiles, PtqSettings(overflow="disable")), tiles)
    assert safe.agreement > 0.98 and safe.error < 0.05
    assert safe.error <= full.error + 0.01


def test_plain_ptq_runs_and_is_quantized(model: ov.Model, tiles: list[Any], capsys: Any) -> None:
    made = plain_ptq(model, tiles)
    assert quantizers(made)
    assert capsys.readouterr().out == ""


def test_weights_only_is_smaller_and_nearly_equal(model: ov.Model, tiles: list[Any]) -> None:
    made = quantize(model, tiles, PtqSettings(activations="float"))
    assert not quantizers(made) and model_bytes(made) < 0.65 * model_bytes(model)  # the graph's own text is the rest
    both = [np.concatenate([compile_f32(m)(t[None])[0] for t in tiles]) for m in (model, made)]
    assert np.abs(both[0] - both[1]).max() < 0.05 * both[0].std()


def vectors(count: int) -> list[Any]:
    """Inputs whose sixteen numbers depend on four, as features do."""
    rng = np.random.default_rng(0)
    return list((rng.normal(size=(count, 4)) @ rng.normal(size=(4, 16)) + 1).astype(np.float32))


@pytest.fixture(scope="module")
def dense() -> ov.Model:
    """Scaling, then three products of 48 to 96 units; 48 is no multiple of a group."""
    ops, rng = ov.opset13, np.random.default_rng(1)
    dn = ops.parameter([1, 16], np.float32, name="dn")
    value: Any = ops.multiply(dn, np.float32(0.5))
    for size in ((96, 16), (96, 96), (48, 96), (8, 48)):
        weight = rng.normal(size=size).astype(np.float32) / np.float32(np.sqrt(size[1]))
        value = ops.relu(ops.matmul(value, weight, False, True))
    return ov.Model([value], [dn])


def spread_error(reference: ov.Model, model: ov.Model, inputs: list[Any]) -> float:
    both = [np.concatenate([compile_f32(m)(v[None])[0] for v in inputs]) for m in (reference, model)]
    return float(np.sqrt(np.mean((both[0] - both[1]) ** 2)) / both[0].std())


def weight_types(model: ov.Model) -> list[str]:
    constants = (op for op in model.get_ops() if op.get_type_name() == "Constant")
    return sorted(t for t in (op.get_element_type().get_type_name() for op in constants) if t in ("i4", "u8"))


def test_four_bits_for_the_share_that_bears_it(dense: ov.Model) -> None:
    inputs = vectors(80)
    half, full = (quantize(dense, inputs[:64], PtqSettings(activations="float", int4_share=s)) for s in (0.6, 1.0))
    assert weight_types(full) == ["i4"] * 4 and set(weight_types(half)) == {"i4", "u8"}
    assert model_bytes(full) < model_bytes(half) < model_bytes(dense)
    errors = [spread_error(dense, m, inputs[64:]) for m in (half, full)]
    assert errors[0] < errors[1] < 0.25


@pytest.mark.slow
def test_four_bits_are_fitted_to_the_inputs(dense: ov.Model) -> None:
    """Rounding as it comes costs more on inputs of this kind."""
    inputs = vectors(200)
    fitted = quantize(dense, inputs[:128], PtqSettings(activations="float", int4_share=1.0))
    with quiet_nncf():
        plain = nncf.compress_weights(
            dense.clone(), mode=nncf.CompressWeightsMode.INT4_SYM, ratio=1.0, all_layers=True, group_size=16
        )
    assert spread_error(dense, fitted, inputs[128:]) < 0.8 * spread_error(dense, plain, inputs[128:])


def test_four_bit_weights_go_with_float_activations() -> None:
    with pytest.raises(ValidationError, match="int4_share needs activations='float'"):
        PtqSettings(int4_share=0.5)
    assert PtqSettings(activations="float", int4_share=0.9).label() == "weights only, 90% INT4"


# -- layers ---------------------------------------------------------------------------------------------------------


def test_named_layers_stay_float(model: ov.Model, tiles: list[Any]) -> None:
    names = compute_layers(model)
    assert set(first_layers(model)) == {names[0]} and set(last_layers(model)) <= set(names)
    made = quantize(model, tiles[:8], PtqSettings(float_names=(names[1],)))
    assert weights_in_float(made) == weights_in_float(quantize(model, tiles[:8], FAST)) + 1
    with pytest.raises(RequestError, match="no layer 'nowhere'"):
        quantize(model, tiles[:8], PtqSettings(float_names=("nowhere",)))


def weights_in_float(model: ov.Model) -> int:
    """Convolutions whose input has no quantizer right before it."""
    layers = [op for op in model.get_ordered_ops() if op.get_type_name() == "Convolution"]
    return sum(op.input_value(1).get_node().get_type_name() == "Constant" for op in layers)


# -- search ---------------------------------------------------------------------------------------------------------


def agreement_with(model: ov.Model, tiles: list[Any]) -> Any:
    reference = classes_of(model, tiles)
    return lambda m: Acceptance(score=float(np.mean(classes_of(m, tiles) == reference)))


def ground(model: ov.Model, accept: Any) -> Ground[ov.Model]:
    def fastest(models: Any) -> Fastest:
        name = max(models, key=lambda n: models[n][1].score)
        return Fastest(name, "all equally fast; the best score", dict.fromkeys(models, 2.0))

    return Ground(lambda t, s: quantize(model, t, s), accept, model_bytes, fastest, compute_layers(model))


def limit(score: float, max_drop: float) -> Limit:
    return Limit(Acceptance(score=score), max_drop)


def test_search_picks_a_passing_setting_and_records_all(model: ov.Model, tiles: list[Any]) -> None:
    seen: list[tuple[int, int]] = []
    found = search(
        ground(model, agreement_with(model, tiles)),
        tiles,
        ladder(False),
        limit(1.0, 0.05),
        SearchSettings(max_trials=3),
        on_trial=lambda done, planned, trial: seen.append((done, planned)),
    )
    assert found.model is not None and quantizers(found.model)
    assert found.passed and found.best is not None
    assert [t.outcome for t in found.trials] == ["passed"] * 3
    assert found.trials[found.best].score == max(t.score or 0 for t in found.trials)
    assert [t.latency_ms for t in found.trials] == [2.0] * 3
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_setting_whose_model_does_not_run_is_a_failed_trial(model: ov.Model, tiles: list[Any]) -> None:
    judge, calls = agreement_with(model, tiles), iter(range(9))

    def accept(made: ov.Model) -> Acceptance:
        if next(calls) == 0:
            raise RequestError("model.tflite: a divisor is 0")
        return judge(made)  # type: ignore[no-any-return]

    found = search(ground(model, accept), tiles, ladder(False), limit(1.0, 0.05), SearchSettings(max_trials=2))
    assert [t.outcome for t in found.trials] == ["failed", "passed"] and found.best == 1
    assert found.trials[0].reason == "does not run: model.tflite: a divisor is 0"


def test_ladder_knows_transformers_and_hosts() -> None:
    assert all(s.smooth_quant is None for s in ladder(False))
    assert {0.95, 0.15} <= {s.smooth_quant for s in ladder(True)}
    assert all(s.overflow == "enable" for s in ladder(False))
    assert all(s.overflow == "disable" for s in ladder(False, "vnni"))
    with pytest.raises(ValidationError):
        PtqSettings(preset="int4")  # type: ignore[arg-type]
    assert all(s.overflow == "enable" for s in onnx_ladder(True, saturates=True))
    assert all(s.overflow == "disable" and s.preset == "performance" for s in onnx_ladder(False, saturates=False))


def test_transformer_goes_through_smoothquant() -> None:
    timm = pytest.importorskip("timm")
    import torch

    torch.manual_seed(0)
    net = timm.create_model(
        "vit_tiny_patch16_224", img_size=64, in_chans=6, num_classes=3, depth=1, embed_dim=48, num_heads=3
    ).eval()
    model = openvino_model(net)
    assert is_transformer(model)
    made = quantize(model, real_tiles(8), PtqSettings(preset="mixed", smooth_quant=0.5))
    assert quantizers(made)
    assert not is_transformer(openvino_model(trained_student(real_tiles(4), steps=1)))


def test_weights_alone_end_at_the_smallest_that_passes(dense: ov.Model) -> None:
    inputs = vectors(80)
    edge = spread_error(dense, quantize(dense, inputs[:64], weights_ladder("int4")[2]), inputs[64:])
    found = search(
        ground(dense, lambda m: Acceptance(score=1 - spread_error(dense, m, inputs[64:]))), inputs[:64],
        weights_ladder("int4"), limit(1.0, edge + 1e-4), SearchSettings(weights_only="int4"),
    )  # fmt: skip
    shares = [t.settings.int4_share for t in found.trials]
    assert shares == [s.int4_share for s in weights_ladder("int4")][: len(shares)] and len(shares) <= 3
    assert found.model is not None and found.passed and found.best == len(shares) - 1
    assert "smallest" in found.reason and weights_ladder("int8") == weights_ladder("int4")[-3:]


def test_of_weights_alone_the_layers_at_the_ends_may_stay_in_float() -> None:
    import torch

    torch.manual_seed(0)
    tiles = real_tiles(8)
    model = openvino_model(trained_student(tiles, steps=1))
    rounded = [
        sum(op.get_output_element_type(0) == ov.Type.i8 for op in quantize(model, tiles, settings).get_ops())
        for settings in weights_ladder("int8")
    ]
    assert rounded[0] == len(compute_layers(model)) and rounded[0] > rounded[1] > rounded[2] > 0
    assert [s.label() for s in weights_ladder("int8")] == [
        "weights only", "weights only, first layer in float", "weights only, first-last layer in float",
    ]  # fmt: skip
