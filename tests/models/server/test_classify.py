"""What a client gets for its texts."""

import pytest
import tiny_server
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from winnow_classifier.labels import TaskDetail
from winnow_server.protocols.tei import PredictRequest
from winnow_server.schemas import ClassificationRequest, ClassifyRequest

TEXTS = [
    "win free money now",
    "meeting",
    "see you at the team lunch on monday",
    "prize",
    "claim cash offer to win a prize",
]
SEVERAL = ("joy", "anger", "surprise")
LONG = "meeting report team monday lunch project notes review agenda budget thanks"  # eleven words: 13 tokens


@pytest.fixture(scope="module")
def multilabel(tmp_path_factory):
    folder = tiny_server.publish(tmp_path_factory.mktemp("multilabel"), "bert", TaskDetail.MULTILABEL, SEVERAL)
    with tiny_server.running(folder) as server:
        yield server


@pytest.mark.parametrize(
    ("model_type", "task_detail", "labels", "activation"),
    [
        pytest.param("bert", TaskDetail.BINARY, ("ham", "spam"), nn.Softmax(dim=-1), id="binary"),
        pytest.param("llama", TaskDetail.BINARY, ("ham", "spam"), nn.Softmax(dim=-1), id="binary, a decoder"),
        pytest.param("bert", TaskDetail.MULTICLASS, SEVERAL, nn.Softmax(dim=-1), id="one of several"),
        pytest.param("bert", TaskDetail.MULTILABEL, SEVERAL, nn.Sigmoid(), id="several at once"),
    ],
)
def test_probabilities_are_those_of_plain_transformers(tmp_path, model_type, task_detail, labels, activation):
    folder = tiny_server.publish(tmp_path, model_type, task_detail, labels)
    plain = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        inputs = (tokenizer(text, return_tensors="pt", truncation=True, max_length=12) for text in [*TEXTS, LONG])
        logits = torch.cat([plain(input_ids=one["input_ids"]).logits for one in inputs])
    with tiny_server.running(folder) as server:
        served = torch.tensor(server.probabilities([*TEXTS, LONG]))
    assert served.std(dim=0).min() > 0.01, "the texts must differ for the comparison to say anything"
    torch.testing.assert_close(served, activation(logits), rtol=0, atol=1e-5)  # fp32, CPU


def test_probabilities_are_not_rounded(server, multilabel):
    """As float32 gives them for the logits in the same answer, to the last bit."""
    for asked, activation in ((server, nn.Softmax(dim=-1)), (multilabel, nn.Sigmoid())):
        data = asked.classify(TEXTS, return_logits=True)["data"]
        assert torch.tensor([item["probs"] for item in data]).equal(
            activation(torch.tensor([item["logits"] for item in data]))
        )


def test_a_text_gets_the_same_probabilities_alone_in_a_batch_and_in_any_order(server):
    together = server.probabilities(TEXTS)
    backwards = server.probabilities(TEXTS[::-1])[::-1]
    alone = [server.probabilities(text)[0] for text in TEXTS]
    torch.testing.assert_close(torch.tensor([alone, backwards]), torch.tensor([together] * 2), rtol=0, atol=1e-5)


def test_a_request_longer_than_a_batch_comes_back_whole_and_in_order(server):
    texts = TEXTS * 40
    data = server.classify(texts)["data"]
    assert [item["index"] for item in data] == list(range(200))
    expected = torch.tensor(server.probabilities(TEXTS)).repeat(40, 1)
    torch.testing.assert_close(torch.tensor([item["probs"] for item in data]), expected, rtol=0, atol=1e-5)


def test_the_answer_names_labels_model_and_checkpoint(server):
    answer = server.classify("win free money now")
    assert answer["labels"] == ["ham", "spam"]
    assert answer["model"] == "spam-detector"
    assert answer["model_version"].startswith("email-v1/epoch-2@sha256:")
    assert answer["problem_type"] == "single_label_classification"
    assert answer["usage"]["prompt_tokens"] == 6
    (item,) = answer["data"]
    assert item["num_classes"] == 2
    assert sum(item["probs"]) == pytest.approx(1, abs=1e-6)
    assert item["label"] == answer["labels"][item["probs"].index(max(item["probs"]))]
    assert item["predicted_labels"] == [item["label"]]
    assert (item["tokens"], item["truncated"], item["original_tokens"]) == (6, False, 6)


def test_a_text_that_is_too_long_is_cut_and_says_so(server):
    answer = server.classify(["meeting", LONG])
    short, long = answer["data"]
    assert (short["truncated"], long["truncated"]) == (False, True)
    assert (long["tokens"], long["original_tokens"]) == (12, 13)
    assert answer["warnings"] == ["1 of 2 inputs truncated"]


@pytest.mark.parametrize("field", ["truncation", "truncation_side"])
def test_a_text_is_cut_on_the_left_where_that_is_asked_for(server, field):
    text = "prize " * 20 + "see you at the meeting " * 2
    (cut,) = server.classify(text, **{field: "left"})["data"]
    (end,) = server.classify(("see you at the meeting " * 2).strip())["data"]
    assert cut["probs"] == pytest.approx(end["probs"], abs=1e-5)
    assert (cut["tokens"], cut["truncated"], cut["original_tokens"]) == (12, True, 32)
    assert cut["probs"] != pytest.approx(server.classify(text)["data"][0]["probs"], abs=1e-5)


def test_two_sides_at_once_are_refused(server):
    fields = {"input": "a", "truncation": "right", "truncation_side": "left"}
    said = "The body names two sides, by truncation and by truncation_side: give one of them."
    assert server.refusal(422, json=fields)["message"] == said
    assert (
        server.refusal(422, json={"input": LONG, "truncation": "error", "truncation_side": "left"})["code"]
        == "text_too_long"
    )


def test_a_text_that_is_too_long_is_refused_by_name_where_no_cut_is_wanted(server):
    error = server.refusal(422, json={"input": ["meeting", LONG], "truncation": "error"})
    assert error["param"] == "input[1]"
    assert error["code"] == "text_too_long"
    assert "13 tokens" in error["message"]
    assert server.classify("meeting", truncation="error")["data"][0]["truncated"] is False


def test_ids_logits_and_the_most_probable_labels_on_request(server):
    answer = server.classify([{"id": "r1", "text": TEXTS[0]}, {"text": TEXTS[1]}], return_logits=True, top_k=1)
    first, second = answer["data"]
    assert first["id"] == "r1"
    assert "id" not in second
    probabilities = torch.tensor(first["logits"]).softmax(dim=0)
    torch.testing.assert_close(probabilities, torch.tensor(first["probs"]))
    assert first["top"] == [{"label": first["label"], "prob": max(first["probs"])}]


def test_vllm_clients_are_understood(server):
    fields = {"user": "me", "truncate_prompt_tokens": -1, "priority": 0, "request_id": "classify-mine"}
    response = server.client.post("/classify", json={"model": "spam-detector", "input": ["prize"], **fields})
    answer = response.json()
    assert (answer["id"], answer["object"]) == ("classify-mine", "list")
    raw = server.classify(["prize"], use_activation=False, return_logits=True)["data"][0]
    assert raw["probs"] == raw["logits"]


NULLS = [
    ("/v1/classify", "input", ClassifyRequest),
    ("/v1/classification", "input", ClassificationRequest),
    ("/predict", "inputs", PredictRequest),
]


@pytest.mark.parametrize(("path", "field", "body"), NULLS, ids=[one[0] for one in NULLS])
def test_an_optional_field_may_be_null(server, path, field, body):
    plain = server.client.post(path, json={field: "prize"})
    nulls = server.client.post(path, json={**dict.fromkeys(body.model_fields), field: "prize"})
    assert nulls.status_code == 200, nulls.text
    found, expected = nulls.json(), plain.json()
    if path == "/predict":
        assert found == expected
    else:
        assert found["data"] == expected["data"]


def test_of_a_field_that_stands_twice_the_last_one_counts(server):
    answer = server.client.post("/v1/classify", content=b'{"input": "meeting", "input": ["prize", "cash"]}')
    assert [item["probs"] for item in answer.json()["data"]] == server.probabilities(["prize", "cash"])


def test_what_vllms_clients_may_send_and_what_changes_nothing_here(server):
    fields = {
        "user": "me",
        "cache_salt": "x" * 43,
        "add_special_tokens": True,
        "priority": 0,
        "mm_processor_kwargs": None,
    }
    expected = server.probabilities("prize")
    for padding in (True, False, "max_length", "do_not_pad"):
        answer = server.classify("prize", padding=padding, truncate_prompt_tokens=-1, rid="r-1", **fields)
        assert [item["probs"] for item in answer["data"]] == expected
        assert answer["id"] == "r-1"


@pytest.mark.parametrize(
    "fields",
    [
        {"input": [[1, 2]]},
        {"input": [1, 2]},
        {"messages": [{"role": "user", "content": "prize"}], "input": "prize"},
        {"input": "prize", "add_special_tokens": False},
        {"input": "prize", "priority": 1},
        {"input": "prize", "truncate_prompt_tokens": -2},
        {"input": "prize", "padding": "longest"},
        {"input": "prize", "mm_processor_kwargs": {"size": 1}},
    ],
    ids=lambda fields: next(reversed(fields)) + repr(list(fields.values())[-1])[:12],
)
def test_what_would_change_an_answer_is_refused_in_words(server, fields):
    error = server.refusal(422, json=fields)
    assert error["param"] in fields
    assert error["param"] in error["message"]


@pytest.mark.parametrize(("side", "kept"), [("right", "win free money"), ("left", "prize claim cash")])
def test_a_text_is_cut_to_the_tokens_that_the_request_names(server, side, kept):
    text = "win free money now prize claim cash"
    (cut,) = server.classify(text, truncate_prompt_tokens=5, truncation_side=side)["data"]
    assert cut["probs"] == pytest.approx(server.probabilities(kept)[0], abs=1e-5)
    assert (cut["tokens"], cut["truncated"], cut["original_tokens"]) == (5, True, 9)
    (whole,) = server.classify(text, truncate_prompt_tokens=9)["data"]
    assert (whole["tokens"], whole["truncated"]) == (9, False)
    (longest,) = server.classify(LONG, truncate_prompt_tokens=1_000)["data"]
    assert (longest["tokens"], longest["original_tokens"]) == (12, 13)
    error = server.refusal(422, json={"input": text, "truncate_prompt_tokens": 5, "truncation": "error"})
    assert (error["code"], "5 are read" in error["message"]) == ("text_too_long", True)


@pytest.mark.parametrize("tokens", [0, 1, 2])
def test_a_cut_that_leaves_no_room_for_a_text_is_refused(server, tokens):
    error = server.refusal(422, json={"input": "prize", "truncate_prompt_tokens": tokens})
    assert (error["code"], error["param"]) == ("truncation_too_short", "truncate_prompt_tokens")
    assert "Send 3 or more" in error["message"]
    assert server.classify("prize meeting", truncate_prompt_tokens=3)["data"][0]["tokens"] == 3


def test_several_labels_may_hold_or_none(multilabel):
    answer = multilabel.classify(TEXTS, return_logits=True)
    assert answer["problem_type"] == "multi_label_classification"
    for item in answer["data"]:
        above = [label for label, p in zip(answer["labels"], item["probs"], strict=True) if p >= 0.5]
        assert item["predicted_labels"] == above
    probabilities = torch.tensor([item["probs"] for item in answer["data"]])
    logits = torch.tensor([item["logits"] for item in answer["data"]])
    torch.testing.assert_close(probabilities, logits.sigmoid())


def test_emissary_clients_get_logits_unless_they_ask_for_probabilities(server):
    logits = server.client.post("/v1/classification", json={"model": "spam-detector", "input": "prize"}).json()
    probs = server.client.post("/v1/classification", json={"input": "prize", "data_format": "probs"}).json()
    expected = server.classify("prize", return_logits=True)["data"][0]
    assert logits["data"] == [{"index": 0, "logits": dict(zip(("ham", "spam"), expected["logits"], strict=True))}]
    assert probs["data"][0]["probs"] == pytest.approx(dict(zip(("ham", "spam"), expected["probs"], strict=True)))
    assert set(probs) == {"id", "model", "data", "created", "usage"}


def test_the_checkpoints_prompt_template_is_applied(tmp_path):
    plain = tiny_server.publish(tmp_path / "plain")
    templated = tiny_server.publish(tmp_path / "templated", prompt_template="review : {text}")
    with tiny_server.running(plain) as one, tiny_server.running(templated) as other:
        assert other.probabilities("prize")[0] == pytest.approx(one.probabilities("review : prize")[0], abs=1e-5)
        assert other.classify("prize")["usage"]["prompt_tokens"] == 5
