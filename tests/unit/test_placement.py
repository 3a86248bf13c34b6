"""Rules of placement: learnt from rows of any runtime, an operator named, and what `nas predict` says of it."""

import pytest

from nas import api
from nas.devices.placement import MOST, Placed, kinds_of, learn, placement, placement_by
from nas.graphs import workloads


def rows() -> list[Placed]:
    """Two boards, of which one lacks layer norms and the other runs nothing; four lineages."""
    made = []
    for lineage, kinds in {
        "vit": {"Gemm", "LayerNormalization"},
        "swin": {"Gemm", "LayerNormalization", "Roll"},
        "resnet": {"Conv"},
        "vgg": {"Conv", "Gemm"},
    }.items():
        for precision in ("w8a8", "fp16"):
            norm = "LayerNormalization" in kinds
            made += [Placed(frozenset(kinds), lineage, "good", "accelerated", precision, norm, False)] * 3
            made.append(Placed(frozenset(kinds), lineage, "bad", "none", precision, True, True))
    return made


def test_an_operator_and_a_board_are_rules() -> None:
    rules = learn(rows())
    assert rules["operators"] == {"accelerated": {"LayerNormalization": 1.0}}
    share, operator = placement_by(rules, frozenset({"LayerNormalization", "Conv"}), "good", "accelerated", "w8a8")
    assert (share, operator) == (1.0, "LayerNormalization")
    share, operator = placement_by(rules, frozenset({"Conv"}), "good", "accelerated", "w8a8")
    assert share < rules["limit"]
    assert operator == ""
    share, operator = placement_by(rules, frozenset({"Conv"}), "bad", "none", "w8a8")
    assert share >= rules["limit"]
    assert operator == ""


def test_one_lineage_alone_makes_no_rule() -> None:
    rules = learn([row for row in rows() if row.lineage != "swin"])
    assert rules["operators"] == {}


def test_an_operator_more_never_makes_placement_better() -> None:
    rules = learn(rows())
    for board, group in (("good", "accelerated"), ("bad", "none")):
        alone = placement_by(rules, frozenset({"Conv"}), board, group, "w8a8")[0]
        assert placement_by(rules, frozenset({"Conv", "LayerNormalization"}), board, group, "w8a8")[0] >= alone


def test_what_is_shipped_names_the_norms_of_boards_without_float() -> None:
    device, precision = "dragonwing-q-6690-mtp-tflite", "w8a8"
    bad = placement(device, "tflite", workloads.load("vit_base_patch16_224"), precision)
    good = placement(device, "tflite", workloads.load("resnet50"), precision)
    assert bad is not None
    assert good is not None
    assert (bad.operator, bad.wholly_on_npu) == ("LayerNormalization", False)
    assert bad.off_npu > MOST > good.off_npu
    assert placement("sa8295p", "qnn", workloads.load("resnet50"), "fp16") is None
    assert "Conv3d" in kinds_of(workloads.load("r3d_18"))


def test_what_falls_back_on_rz_v_is_named() -> None:
    grouped = placement("rz-v2l", "drp-ai-tvm", workloads.load("regnety_008"), "fp16")
    plain = placement("rz-v2l", "drp-ai-tvm", workloads.load("resnet50"), "fp16")
    assert grouped is not None
    assert plain is not None
    assert (grouped.operator, grouped.wholly_on_npu, plain.wholly_on_npu) == ("GroupedConv", False, True)
    assert grouped.slower is not None
    assert grouped.slower > 10
    assert "DepthwiseConv>3" in kinds_of(workloads.load("convnext_tiny"))


def test_predict_says_it() -> None:
    said = api.predict("vit_base_patch16_224", "dragonwing-q-6690-mtp-tflite", precision="w8a8").placement
    assert said is not None
    assert said.operator == "LayerNormalization"
    assert said.off_npu_pct == pytest.approx(100, abs=5)
    assert api.predict("resnet50", "sa8295p").placement is None
    board = api.predict("resnet50", "samsung-galaxy-s24", precision="w8a8")
    assert board.placement is None  # QNN hardly ever falls back
    assert board.placement_onnx is not None
    assert board.placement_onnx.wholly_on_npu
    assert 0 < board.placement_onnx.off_npu_pct < 20
