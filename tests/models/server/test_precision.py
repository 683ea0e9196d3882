"""A faster form of the model is taken only where it gives the same answers, and leaves no trace where it is not."""

import dataclasses
import functools
from pathlib import Path

import pytest
import tiny_models
import tiny_server
import torch

from winnow_classifier import checkpoint
from winnow_classifier.architectures import ARCHITECTURES
from winnow_classifier.decision import Abstain, Calibration, Decision, replace_file
from winnow_classifier.labels import LabelSchema, TaskDetail
from winnow_classifier.mirror import VOLUME
from winnow_classifier.model import Classifier, classifier_config, load_network
from winnow_classifier.packing import pack
from winnow_server import examples, fast_linear, half, model, precision
from winnow_server.fast_linear import FastLinear, to_bfloat16, to_float32
from winnow_server.fused_layers import FusedLayers
from winnow_server.thresholds import NO_RULES, Rules

SCHEMA = LabelSchema(TaskDetail.BINARY, ("ham", "spam"))
# oneDNN's products of bfloat16 need AVX-512, which a server without it never asks for.
NO_BFLOAT16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this CPU has no AVX-512 for products of bfloat16"
)
BFLOAT16 = pytest.param(to_bfloat16, marks=NO_BFLOAT16)
TEXTS = [" ".join(tiny_models.WORDS[start : start + 1 + start % 6]) for start in range(20)]


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    return functools.cache(lambda model_type: tiny_server.publish(tmp_path_factory.mktemp("fast"), model_type))


@pytest.fixture(scope="module", params=sorted(ARCHITECTURES))
def loaded(request, published):
    return checkpoint.load(published(request.param))


def probabilities(loaded, texts=TEXTS):
    with torch.inference_mode():
        ids = [one.input_ids for one in loaded.encoder.encode(texts)]
        return loaded.schema.probabilities(loaded.model(pack(ids, loaded.model.position_start)))


@pytest.mark.parametrize(
    ("switch", "tolerance"),
    [pytest.param(to_float32, 1e-5, id="float32"), pytest.param(to_bfloat16, 0.1, id="bfloat16", marks=NO_BFLOAT16)],
)
def test_fast_layers_give_the_probabilities_of_plain_ones_and_can_be_taken_out_again(loaded, switch, tolerance):
    # The tiny models' weights are large on purpose, so bfloat16 is further off than in a trained model.
    plain = probabilities(loaded)
    undo = switch(loaded.model)
    assert any(isinstance(module, (FastLinear, FusedLayers)) for module in loaded.model.modules())
    torch.testing.assert_close(probabilities(loaded), plain, rtol=0, atol=tolerance)
    alone = torch.cat([probabilities(loaded, [text]) for text in TEXTS])
    torch.testing.assert_close(alone, plain, rtol=0, atol=tolerance)
    undo()
    assert not any(isinstance(module, (FastLinear, FusedLayers)) for module in loaded.model.modules())
    assert torch.equal(probabilities(loaded), plain)


@pytest.mark.parametrize("switch", [to_float32, BFLOAT16])
@pytest.mark.parametrize("activation", ["gelu_new", "relu", "silu"])
def test_a_layer_is_fused_with_the_activation_that_it_has_or_not_at_all(tmp_path, switch, activation):
    base = tiny_models.base_model(tmp_path, "bert", hidden_act=activation)
    torch.manual_seed(3)
    model = Classifier(load_network(base, classifier_config(base, SCHEMA, 0)), "mean").eval()
    pack_of_three = pack([[2, 5, 6, 7, 3], [2, 8, 3], [2, 9, 10, 3]])
    with torch.inference_mode():
        plain = model(pack_of_three)
        undo = switch(model)
        assert any(isinstance(module, FusedLayers) for module in model.modules()) == (activation != "silu")
        tolerance = 1e-5 if switch is to_float32 else 0.02
        torch.testing.assert_close(model(pack_of_three), plain, rtol=0, atol=tolerance)
        undo()
        assert torch.equal(model(pack_of_three), plain)


def a_run(probabilities=((0.9, 0.1), (0.3, 0.7)), seconds=1.0, alone=None, rules=NO_RULES, seconds_alone=None):
    rows = torch.tensor(probabilities)
    decided = precision.decided(rows, rules, SCHEMA)
    return precision.Run(
        rows, rows if alone is None else torch.tensor(alone), decided, (seconds_alone or seconds, seconds)
    )


@pytest.mark.parametrize(
    ("found", "tolerance", "words"),
    [
        pytest.param(a_run(seconds=0.4), 1e-5, None, id="the same and faster"),
        pytest.param(a_run(((0.902, 0.098), (0.3, 0.7)), 0.4), 0.01, None, id="within the tolerance and faster"),
        pytest.param(a_run(((0.902, 0.098), (0.3, 0.7)), 0.4), 1e-5, "differs by 0.002", id="beyond the tolerance"),
        pytest.param(
            a_run(seconds=0.4, alone=((0.88, 0.12), (0.3, 0.7))), 0.01, "differs by 0.02", id="beyond it when alone"
        ),
        pytest.param(a_run(((float("nan"),) * 2, (0.3, 0.7)), 0.4), 0.01, "differs by nan", id="not a number"),
        pytest.param(a_run(((0.9, 0.1), (0.6, 0.4)), 0.4), 0.5, "1 of 2 decisions differ", id="another decision"),
        pytest.param(a_run(seconds=0.95), 1e-5, "1.05 times as fast", id="hardly faster"),
        pytest.param(
            a_run(seconds=1.0, seconds_alone=0.5), 1e-5, None, id="twice as fast alone, and no slower in a batch"
        ),
        pytest.param(
            a_run(seconds=0.8, seconds_alone=1.2), 1e-5, "1.02 times", id="faster in a batch, and slower alone"
        ),
    ],
)
def test_what_speaks_against_another_form(found, tolerance, words):
    why = precision.objection(a_run(), found, tolerance)
    assert why is None if words is None else words in why


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        pytest.param(NO_RULES, None, id="by the likeliest label"),
        pytest.param(Rules(thresholds={"spam": 0.705}), "1 of 2 decisions differ", id="by a threshold"),
        pytest.param(Rules(thresholds={"spam": 0.9}), None, id="by one that is far away"),
        pytest.param(Rules(abstain=Abstain(min_probability=0.705)), "1 of 2 decisions differ", id="abstained"),
    ],
)
def test_decisions_are_those_of_the_rules_that_are_served(rules, words):
    found = a_run(((0.9, 0.1), (0.29, 0.71)), 0.4, rules=rules)
    why = precision.objection(a_run(rules=rules), found, 0.02)
    assert why is None if words is None else words in why


@pytest.mark.parametrize("loaded", ["bert"], indirect=True)
def test_probabilities_are_compared_calibrated(loaded):
    sharp = Rules(Calibration(method="Temperature", temperature=0.2))
    with torch.inference_mode():
        ids = [one.input_ids for one in loaded.encoder.encode(TEXTS)]
        logits = loaded.model(pack(ids, loaded.model.position_start))
    found = precision.run(loaded.model, loaded.schema, ids, sharp)
    torch.testing.assert_close(found.alone, (logits / 0.2).softmax(dim=-1)[:8], rtol=0, atol=1e-5)


def test_a_server_judges_by_the_decision_and_the_thresholds_that_stand(tmp_path, monkeypatch):
    judged = []
    monkeypatch.setattr(precision, "fastest", lambda *given: judged.append(given[-1]) or "float32")
    folder = tiny_server.publish(tmp_path)
    wanted = Decision(
        labels=SCHEMA.labels,
        task_detail=TaskDetail.BINARY,
        calibration=Calibration(method="Temperature", temperature=2),
        thresholds={"ham": 0.4, "spam": 0.6},
        abstain=Abstain(band=0.1),
    )
    replace_file(folder, wanted)
    (tmp_path / "thresholds.json").write_text('{"spam": 0.8}')
    with tiny_server.running(folder, thresholds=tmp_path / "thresholds.json"):
        pass
    assert judged == [Rules(wanted.calibration, {"ham": 0.4, "spam": 0.8}, wanted.abstain)]


@pytest.mark.parametrize(
    ("form", "tolerance"),
    [
        pytest.param(precision.FLOAT32, 1e-5, id="float32"),
        pytest.param(precision.BFLOAT16, 0.02, id="bfloat16", marks=NO_BFLOAT16),
    ],
)
def test_a_served_text_gets_the_same_answer_alone_in_a_batch_and_in_any_order(published, form, tolerance, monkeypatch):
    """Within what docs/serving.md promises: twice what each may be off from plain float32."""

    def switched(model, *_):
        form.switch(model)
        return form.dtype

    monkeypatch.setattr(precision, "fastest", switched)
    with tiny_server.running(published("bert")) as server:
        assert server.client.get("/v1/model").json()["precision"] == form.dtype
        together = server.probabilities(TEXTS)
        backwards = server.probabilities(TEXTS[::-1])[::-1]
        alone = [server.probabilities(text)[0] for text in TEXTS]
    torch.testing.assert_close(torch.tensor([alone, backwards]), torch.tensor([together] * 2), rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("form", "multiple"),
    [
        pytest.param(precision.FLOAT32, 8, id="float32"),
        pytest.param(precision.BFLOAT16, 10, id="bfloat16", marks=NO_BFLOAT16),
        pytest.param(None, 1, id="plain torch"),
    ],
)
def test_onednn_meets_few_sizes_for_it_keeps_a_program_for_each(tmp_path, form, multiple, monkeypatch):
    """A server that met each number of tokens up to 512 held a gigabyte of them."""

    def switched(plain, *_):
        if form:
            form.switch(plain)
        return form.dtype if form else "float32"

    monkeypatch.setattr(precision, "fastest", switched)
    monkeypatch.setattr(model, "SHORT_TOKENS", 20)
    monkeypatch.setitem(model.FILLED, "bfloat16", 10)  # the tiny model takes no 32 tokens
    folder = tiny_server.publish(tmp_path)
    served = model.load(folder, model.announce(folder, None, None), None, None, VOLUME)
    sizes = []
    served.model.register_forward_pre_hook(lambda _, batch: sizes.append(len(batch[0].input_ids)))
    texts = [[7] * length for length in (3, 5, 12, 20, 29)]
    with torch.inference_mode():
        together, _ = served.logits(texts)
        alone = [served.logits([text])[0] for text in texts]
    tokens = [sum(map(len, texts)), *map(len, texts)]
    filled = [-(-count // multiple) * multiple for count in tokens]
    assert sizes == [filled[0], *tokens[1:-1], filled[-1]]  # short texts alone are few sizes by themselves
    tolerance = 0.1 if form is precision.BFLOAT16 else 1e-4  # of logits; the tiny model's weights are large on purpose
    torch.testing.assert_close(torch.cat(alone), together, rtol=0, atol=tolerance)


@pytest.mark.parametrize("loaded", ["bert"], indirect=True)  # the same for every body, and each would take seconds
def test_a_form_that_cannot_run_or_gives_other_answers_is_taken_back(loaded, monkeypatch):
    def cannot(_classifier):
        raise NotImplementedError("mkldnn")

    monkeypatch.setattr(precision, "FLOAT32", precision.Form("float32, elsewhere", "float32", cannot))
    plain = probabilities(loaded)
    filler = loaded.encoder.encode([TEXTS[3]])[0].input_ids
    assert precision.fastest(loaded.model, loaded.schema, [], filler, "auto") == "float32"
    assert torch.equal(probabilities(loaded), plain)


@pytest.mark.parametrize("switch", [to_float32, BFLOAT16])
@pytest.mark.parametrize("loaded", ["llama", "modernbert"], indirect=True)
def test_a_form_that_fails_midway_leaves_the_model_as_it_was(loaded, switch, monkeypatch):
    plain, made = probabilities(loaded), []

    class Fails(FastLinear):
        def __init__(self, *arguments):
            if len(made) == 3:
                raise RuntimeError("out of memory")
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(fast_linear, "FastLinear", Fails)
    with pytest.raises(RuntimeError):
        switch(loaded.model)
    assert len(made) == 3
    assert torch.equal(probabilities(loaded), plain)


@pytest.mark.parametrize("switch", [to_float32, BFLOAT16])
@pytest.mark.parametrize("loaded", ["bert"], indirect=True)
def test_fused_layers_that_fail_midway_leave_the_model_as_it_was(loaded, switch, monkeypatch):
    plain, made, reorder = probabilities(loaded), [], torch.ops.mkldnn._reorder_linear_weight

    def fails(*arguments):
        if len(made) == 3:
            raise RuntimeError("out of memory")
        made.append(arguments)
        return reorder(*arguments)

    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", fails)
    with pytest.raises(RuntimeError):
        switch(loaded.model)
    assert len(made) == 3
    assert torch.equal(probabilities(loaded), plain)


@pytest.mark.parametrize("loaded", ["bert"], indirect=True)  # the same for every body, and each would take seconds
def test_bfloat16_is_for_cpus_that_have_it_and_checkpoints_with_examples(loaded, monkeypatch):
    tried = []

    def note(name):
        return lambda _classifier: tried.append(name) or (lambda: None)

    monkeypatch.setattr(precision, "FLOAT32", precision.Form("float32", "float32", note("float32")))
    monkeypatch.setattr(precision, "BFLOAT16", precision.Form("bfloat16", "bfloat16", note("bfloat16")))
    monkeypatch.setattr(precision, "FASTER", 1e9)  # none is taken
    examples = [one.input_ids for one in loaded.encoder.encode(TEXTS)]
    for has_it, rows, asked, expected in (
        (True, (examples * 4)[:16], "auto", ["bfloat16", "float32"]),
        (True, examples, "float32", ["float32"]),
        (True, (examples * 4)[:15], "auto", ["float32"]),
        (False, examples, "auto", ["float32"]),
    ):
        tried.clear()
        monkeypatch.setattr(precision, "multiplies_bfloat16", lambda has_it=has_it: has_it)
        precision.fastest(loaded.model, loaded.schema, rows, examples[0], asked)
        assert tried == expected


# What a GPU does, as far as a CPU can show it: the same casts and the same choice.


PACKED = sorted(name for name, kind in ARCHITECTURES.items() if kind.packs)


@pytest.mark.parametrize("loaded", PACKED, indirect=True)
def test_a_body_in_bfloat16_gives_like_probabilities_and_can_be_taken_back(loaded):
    plain = probabilities(loaded)
    buffers = {name: buffer.dtype for name, buffer in loaded.model.named_buffers()}
    undo = half.to_bfloat16(loaded.model)
    head = {id(parameter) for parameter in loaded.model.head_parameters()}
    types = {parameter.dtype for parameter in loaded.model.parameters() if id(parameter) not in head}
    assert types == {torch.bfloat16}
    assert {parameter.dtype for parameter in loaded.model.head_parameters()} == {torch.float32}
    assert {name: buffer.dtype for name, buffer in loaded.model.named_buffers()} == buffers
    torch.testing.assert_close(probabilities(loaded), plain, rtol=0, atol=0.1)
    undo()
    assert torch.equal(probabilities(loaded), plain)


@pytest.mark.parametrize(
    ("faster", "tolerance", "expected"),
    [
        pytest.param(True, 1.0, "bfloat16", id="faster and alike, whatever is decided"),
        pytest.param(True, 1e-9, "float32", id="too far off"),
        pytest.param(False, 1.0, "float32", id="no faster"),
    ],
)
def test_a_gpu_takes_bfloat16_where_it_is_faster_and_gives_like_probabilities(
    published, monkeypatch, faster, tolerance, expected
):
    loaded = checkpoint.load(published("llama"))
    plain = probabilities(loaded)
    form = dataclasses.replace(precision.ON_A_GPU, tolerance=tolerance)
    monkeypatch.setattr(precision, "to_try", lambda *_: [form])
    seconds = iter([1.0, 1.0, *[0.4 if faster else 1.0] * 2])
    monkeypatch.setattr(precision, "measured", lambda *_: next(seconds))
    ids = [one.input_ids for one in loaded.encoder.encode(TEXTS)]
    assert precision.fastest(loaded.model, loaded.schema, ids, ids[0], "auto") == expected
    assert torch.equal(probabilities(loaded), plain) == (expected == "float32")


@pytest.mark.parametrize("loaded", ["llama"], indirect=True)
def test_float32_is_given_up_uncompared_only_where_it_has_no_room(loaded):
    weights = sum(parameter.numel() for parameter in loaded.model.parameters())
    assert precision.only_half_fits(loaded.model, 6 * weights)
    assert not precision.only_half_fits(loaded.model, 7 * weights)
    assert not precision.may_be_half(loaded.model, "float32")


def test_what_the_documents_promise_of_bfloat16_is_what_is_asked_of_it():
    page = (Path(__file__).parents[3] / "docs" / "serving.md").read_text()
    assert f"(up to {examples.JUDGED}, at least {precision.FEWEST_EXAMPLES}) every probability stays within" in page
    assert f"stays within {precision.TOLERANCE['bfloat16']} and every decision the same" in page
    assert f"every probability on those rows stays within {precision.GPU_TOLERANCE} of float32's" in page
