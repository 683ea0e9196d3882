"""What report.html tells of a decision: in words and tables, with labels that nobody can trust."""

import json

import numpy as np
import torch
from random_answers import rows_of

from winnow_classifier import decision as decisions
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.objectives import AbstainWhen, Thresholds
from winnow_trainer import decision_report, markup
from winnow_trainer.deciding import Judged, fit

EVIL = "<script>alert(1)</script>"


def told(detail, labels, asked, test=True):
    """The section of a decision that is fitted to rows of chance."""
    schema, p, y = rows_of(detail, len(labels))
    schema = LabelSchema(detail, labels)
    judged = Judged(torch.from_numpy(np.log(p / (1 - p))).float(), y)
    decision = fit(judged, judged if test else None, schema, asked, "sha256:" + "0" * 64)
    found = json.loads(decisions.content(decision))
    return found, decision_report.section(found, "f1_macro")


def test_every_label_has_its_slope_and_threshold_and_cannot_run():
    asked = Thresholds(objective="PrecisionAtLeast", value=0.9, abstain=AbstainWhen(band=0.05))
    found, page = told(TaskDetail.MULTILABEL, ("a", EVIL, "c"), asked)
    assert "<script" not in page and markup.text(EVIL) in page
    for number in (found["thresholds"]["a"], found["calibration"]["labels"]["a"]["slope"]):
        assert f">{number:.4f}<" in page
    share = 100 * found["measured"]["abstained"]
    assert f"nearer to its threshold than 0.0500: {share:.1f} % of the test rows" in page
    assert "a precision of at least 0.9" in page
    for name in ("f1_macro", "ece", "brier", "log_loss"):
        assert f"{found['measured']['before'][name]:.4f}" in page and f"{found['measured']['after'][name]:.4f}" in page


def test_what_was_measured_on_the_rows_that_it_was_fitted_on_is_said_to_flatter():
    _, page = told(TaskDetail.BINARY, ("ham", "spam"), None, test=False)
    assert "validation rows" in page and "these figures flatter" in page
    assert "none: the likeliest label counts" in page and "never" in page


def test_one_of_several_labels_has_no_thresholds():
    found, page = told(TaskDetail.MULTICLASS, ("a", "b", "c"), Thresholds(objective="PrecisionAtLeast", value=0.2))
    assert "where the likeliest label has less than" in page and "none: the likeliest label counts" in page
    never = decision_report.section(found | {"unfitted": {"*": "however likely a label is, it is wrong"}}, "f1_macro")
    assert "<p>however likely a label is, it is wrong.</p>" in never


def test_there_is_no_section_without_a_decision():
    assert decision_report.section(None, "f1") == ""


def test_a_small_number_is_not_rounded_to_nothing():
    assert "2e-05" in markup.tree({"parameters": {"learningRate": 2e-5}})


def test_control_characters_that_html_forbids_are_shown_as_such():
    forbidden = [*range(9), *range(0x0B, 0x20), *range(0x7F, 0xA0)]
    assert markup.text("".join(map(chr, forbidden))) == "\N{REPLACEMENT CHARACTER}" * len(forbidden)
    assert markup.text("a\tb\nc é") == "a\tb\nc é"
