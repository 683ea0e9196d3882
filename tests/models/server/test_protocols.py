"""Other servers' protocols, and clients that nobody here wrote, unchanged."""

import json
import re

import numpy as np
import pytest
import tiny_server
import tritonclient.http as triton
from huggingface_hub import InferenceClient
from tritonclient.utils import InferenceServerException

from winnow_server.limits import Limits

PREDICT, KSERVE, INFER = "/predict", "/v1/models/spam-detector:predict", "/v2/models/spam-detector/infer"
LONG = "win free money now prize claim cash offer click winner meeting"  # 13 tokens, of which 12 are read
TEXTS = ["win free money now", "meeting", "see you at the team lunch on monday"]


@pytest.fixture
def expected(server):
    return server.classify(TEXTS)["data"]


def ranked(item, labels=("ham", "spam"), field="probs"):
    pairs = [{"score": score, "label": label} for label, score in zip(labels, item[field], strict=True)]
    return sorted(pairs, key=lambda pair: -pair["score"])


def close(found, wanted):
    assert [pair["label"] for pair in found] == [pair["label"] for pair in wanted]
    assert [pair["score"] for pair in found] == pytest.approx([pair["score"] for pair in wanted], abs=1e-5)


def test_vllms_classify_request_as_its_client_sends_it(server, expected):
    """examples/pooling/classify/classification_online.py sends {"model", "input"} to /classify and reads data and probs."""
    answer = server.client.post("/classify", json={"model": "spam-detector", "input": TEXTS}).json()
    assert answer["object"] == "list"
    for item, wanted in zip(answer["data"], expected, strict=True):
        assert item["probs"] == pytest.approx(wanted["probs"], abs=1e-5)
        assert item["num_classes"] == 2


def test_hugging_faces_inference_client(server, expected):
    for address in (server.url, f"{server.url}/predict"):
        found = InferenceClient(model=address).text_classification(TEXTS[0])
        close([{"score": one.score, "label": one.label} for one in found], ranked(expected[0]))
    (best,) = InferenceClient(model=f"{server.url}/predict").text_classification(TEXTS[0], top_k=1)
    assert best.label == expected[0]["label"]
    raw = InferenceClient(model=server.url).text_classification(TEXTS[0], function_to_apply="none")
    assert {one.label for one in raw} == {"ham", "spam"}
    with pytest.raises(Exception, match="trained for softmax"):
        InferenceClient(model=server.url).text_classification(TEXTS[0], function_to_apply="sigmoid")


def test_hugging_faces_inference_client_asks_what_is_served(server):
    client = InferenceClient(model=server.url, provider="hf-inference")
    assert client.health_check()
    info = client.get_endpoint_info()
    card = server.client.get("/v1/model").json()
    assert (info["model_id"], info["model_sha"], info["model_dtype"]) == ("spam-detector", card["digest"], "float32")
    assert info["model_type"]["classifier"] == {
        "id2label": {"0": "ham", "1": "spam"},
        "label2id": {"ham": 0, "spam": 1},
    }
    assert info["served_model_name"] == info["model_id"]
    assert (info["max_input_length"], info["max_client_batch_size"]) == (tiny_server.MAX_TOKENS, 1_024)
    assert (info["max_batch_tokens"], info["max_concurrent_requests"]) == (64, 4_096)
    assert info["auto_truncate"]


@pytest.mark.parametrize(
    ("path", "one", "field"),
    [
        ("/v1/classify", lambda text: text, "input"),
        ("/v1/classification", lambda text: text, "input"),
        (PREDICT, lambda text: [text], "inputs"),
        (KSERVE, lambda text: text, "instances"),
    ],
)
def test_a_cut_is_said_beside_every_answer(server, path, one, field):
    texts = [LONG, "prize", f"{LONG} prize"]
    answer = server.client.post(path, json={field: [one(text) for text in texts]})
    assert answer.headers["x-winnow-truncated"] == "0:13/12,2:14/12"
    assert "x-winnow-truncated" not in server.client.post(path, json={field: [one("prize")]}).headers
    many = server.client.post(path, json={field: [one(LONG)] * 200}).headers["x-winnow-truncated"].split(",")
    assert (len(many), many[31:]) == (33, ["31:13/12", "+168"])
    all_named = server.client.post(path, json={field: [one(LONG)] * 32}).headers["x-winnow-truncated"].split(",")
    assert (len(all_named), all_named[-1]) == (32, "31:13/12")
    if path == KSERVE:
        found = [(p["tokens"], p["truncated"], p["original_tokens"]) for p in answer.json()["predictions"]]
        assert found == [(12, True, 13), (3, False, 3), (12, True, 14)]


@pytest.mark.parametrize("binary", [True, False])
def test_tritons_client_reads_what_was_cut(triton_client, binary):
    names = ("truncated", "tokens", "original_tokens")
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in names]
    found = triton_client.infer("spam-detector", [tensor([LONG, "prize"])], outputs=outputs)
    assert [found.as_numpy(name).tolist() for name in names] == [[True, False], [12, 3], [13, 3]]
    assert found.get_response()["outputs"][1]["datatype"] == "INT32"


def test_text_embeddings_inference_clients(server, expected):
    one = server.client.post("/predict", json={"inputs": TEXTS[0]}).json()
    close(one, ranked(expected[0]))
    close(server.client.post("/predict", json={"inputs": [TEXTS[0]]}).json(), one)
    many = server.client.post("/predict", json={"inputs": [[text] for text in TEXTS], "truncate": True}).json()
    for found, wanted in zip(many, expected, strict=True):
        close(found, ranked(wanted))
    long = {"inputs": "prize " * 20 + "meeting " * 10, "truncation_direction": "Left"}
    close(server.client.post("/predict", json=long).json(), ranked(server.classify("meeting " * 10)["data"][0]))
    raw = server.client.post("/predict", json={"inputs": TEXTS[0], "raw_scores": True}).json()
    close(raw, ranked(server.classify(TEXTS[0], return_logits=True)["data"][0], field="logits"))


@pytest.mark.parametrize(
    ("body", "status", "code", "words"),
    [
        pytest.param({"inputs": ["a", "b"]}, 422, "pairs_unsupported", '[["first"], ["second"]]', id="a pair"),
        pytest.param({"inputs": [["a", "b"]]}, 422, "pairs_unsupported", "inputs[0] is a pair", id="a pair in a batch"),
        pytest.param({"inputs": ["a", "b", "c"]}, 422, "inputs_type", "one text each", id="three texts"),
        pytest.param({"inputs": []}, 422, "inputs_type", "one text each", id="nothing"),
        pytest.param({"inputs": [["a"], [" "]]}, 422, "text_empty", "inputs[1]", id="an empty text"),
        pytest.param({"inputs": "meeting " * 40, "truncate": False}, 422, "text_too_long", "tokens", id="too long"),
        pytest.param({"inputs": "a", "truncation_direction": "Up"}, 422, "literal_error", "Right", id="cut above"),
    ],
)
def test_text_embeddings_inference_clients_are_refused_in_their_own_shape(server, body, status, code, words):
    refused = server.client.post("/predict", json=body)
    assert refused.status_code == status
    error = refused.json()
    assert (error["error_type"], error["code"]) == ("Validation", code)
    assert words in error["error"]


def tensor(texts, shape=None, *, binary=True):
    values = np.array(texts, dtype=np.object_).reshape(shape or [len(texts)])
    made = triton.InferInput("text", list(values.shape), "BYTES")
    made.set_data_from_numpy(values, binary_data=binary)
    return made


@pytest.fixture
def triton_client(server):
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
        yield client


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("shape", [[3], [3, 1]])
def test_tritons_client(triton_client, server, expected, binary, shape):
    outputs = (
        None
        if binary
        else [triton.InferRequestedOutput(name, binary_data=False) for name in ("probabilities", "label")]
    )
    version = server.classify("meeting")["model_version"]
    for asked in ("", version):
        found = triton_client.infer(
            "spam-detector",
            [tensor(TEXTS, shape, binary=binary)],
            model_version=asked,
            outputs=outputs,
            request_id="r1",
        )
        probabilities = found.as_numpy("probabilities")
        assert (probabilities.shape, probabilities.dtype) == ((3, 2), np.float32)
        np.testing.assert_allclose(probabilities, [item["probs"] for item in expected], rtol=0, atol=1e-5)
        labels = [one.decode() if isinstance(one, bytes) else one for one in found.as_numpy("label")]
        assert labels == [item["label"] for item in expected]
        answer = found.get_response()
        assert (answer["id"], answer["model_version"]) == ("r1", version)
        assert json.loads(answer["parameters"]["labels"]) == ["ham", "spam"]
    if binary:
        decided = [json.loads(one) for one in found.as_numpy("predicted_labels")]
        assert decided == [item["predicted_labels"] for item in expected]
        assert found.as_numpy("predicted").tolist() == [[label in one for label in ("ham", "spam")] for one in decided]
        assert found.as_numpy("truncated").tolist() == [False] * 3


def test_tritons_client_reads_labels_in_any_script(tmp_path):
    """As bytes each is led by its length in bytes, not in characters."""
    labels = ("größer", "日本語")
    with tiny_server.running(tiny_server.publish(tmp_path, labels=labels)) as server:
        client = triton.InferenceServerClient(server.url.removeprefix("http://"))
        found = client.infer("spam-detector", [tensor(TEXTS)])
        client.close()
        wanted = server.classify(TEXTS)["data"]
    assert [one.decode() for one in found.as_numpy("label")] == [item["label"] for item in wanted]
    decided = [json.loads(one) for one in found.as_numpy("predicted_labels")]
    assert decided == [item["predicted_labels"] for item in wanted]


def test_tritons_client_asks_what_is_there(triton_client, server):
    assert triton_client.is_server_live()
    assert triton_client.is_server_ready()
    assert triton_client.is_model_ready("spam-detector")
    assert not triton_client.is_model_ready("other")
    assert triton_client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    metadata = triton_client.get_model_metadata("spam-detector")
    assert metadata["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]} in metadata["outputs"]
    assert triton_client.is_model_ready("spam-detector", metadata["versions"][0])


def test_tritons_client_reads_why_it_was_refused(triton_client):
    with pytest.raises(InferenceServerException, match=r"inputs\[0\]\.data\[1\] is empty"):
        triton_client.infer("spam-detector", [tensor(["a", ""])])
    with pytest.raises(InferenceServerException, match="does not serve 'other'"):
        triton_client.infer("other", [tensor(["a"])])
    with pytest.raises(InferenceServerException, match="does not serve version '7'"):
        triton_client.infer("spam-detector", [tensor(["a"])], model_version="7")
    with pytest.raises(InferenceServerException, match="no 'score'"):
        triton_client.infer("spam-detector", [tensor(["a"])], outputs=[triton.InferRequestedOutput("score")])
    numbers = triton.InferInput("text", [1], "INT64")
    numbers.set_data_from_numpy(np.array([1]))
    with pytest.raises(InferenceServerException):
        triton_client.infer("spam-detector", [numbers])


@pytest.mark.parametrize(
    ("input_", "words"),
    [
        pytest.param({"datatype": "FP32", "data": [1.0]}, "reads texts", id="numbers"),
        pytest.param({"shape": [2]}, "its shape says 2", id="fewer than its shape"),
        pytest.param({"shape": [1, 2]}, "[N, 1]", id="two columns"),
        pytest.param({"data": None}, "neither data", id="nothing"),
        pytest.param({"data": [3]}, "texts only", id="a number among texts"),
    ],
)
def test_tensors_that_are_no_column_of_texts_are_refused_in_words(server, input_, words):
    body = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"], **input_}]}
    refused = server.client.post("/v2/models/spam-detector/infer", json=body)
    assert refused.status_code == 422
    assert words in refused.json()["error"]


def infer(outputs=None, **fields):
    return {"inputs": [{"name": "t", "shape": [1], "datatype": "BYTES", "data": ["a"], **fields}], "outputs": outputs}


def named(*outputs):
    return infer(outputs=[{"name": output} for output in outputs])


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "param"),
    [
        pytest.param(PREDICT, {"inputs": [["a"]] * 1025}, 422, "too_long", "inputs", id="too many texts"),
        pytest.param(
            PREDICT, {"inputs": LONG, "truncate": False}, 422, "text_too_long", "inputs[0]", id="not to be cut"
        ),
        pytest.param(PREDICT, {"inputs": [[LONG]] * 500}, 413, "request_too_large", "inputs", id="too many tokens"),
        pytest.param(KSERVE, {"instances": [LONG] * 500}, 413, "request_too_large", "instances", id="of KServe's too"),
        pytest.param(KSERVE, {"instances": ["a", 3]}, 422, "input_type", "instances", id="a number among texts"),
        pytest.param(KSERVE, {"inputs": ["a", " "]}, 422, "text_empty", "inputs[1]", id="KServe's other name"),
        pytest.param(KSERVE, {}, 422, "instances_missing", None, id="neither of KServe's names"),
        pytest.param(
            INFER,
            infer(shape=[500], data=[LONG] * 500),
            413,
            "request_too_large",
            "inputs[0].data",
            id="and of tensors",
        ),
        pytest.param(
            INFER, infer(parameters={"x": {}}), 422, "parameters_type", "inputs[0].parameters", id="a nested parameter"
        ),
        pytest.param(INFER, {**infer(), "parameters": [1]}, 422, "parameters_type", "parameters", id="no parameters"),
        pytest.param(KSERVE, {"instances": ["a"] * 1025}, 422, "too_long", "instances", id="too many instances"),
        pytest.param(KSERVE, {"inputs": ["a"] * 1025}, 422, "too_long", "inputs", id="by their other name too"),
        pytest.param(
            INFER, infer(shape=[1025], data=["a"] * 1025), 422, "too_long", "inputs[0].data", id="too many elements"
        ),
        pytest.param(INFER, named("logits", "logits"), 422, "output_repeated", "outputs", id="an output twice"),
        pytest.param(INFER, named(*["logits"] * 8_000), 422, "too_long", "outputs", id="more outputs than there are"),
    ],
)
def test_an_error_names_the_field_that_its_own_protocol_has(server, path, body, status, code, param):
    refused = server.client.post(path, json=body)
    error = refused.json()
    assert (refused.status_code, error["code"], error["param"]) == (status, code, param)
    assert not re.search(r"\binput\b|\.(str|float|int)\b|truncation\b", error["error"])


@pytest.mark.parametrize("tail", [b"", b"\x05\x00\x00", b"\x06\x00\x00\x00short", b"\x01\x00\x00\x00\xff"])
def test_bytes_that_are_no_tensor_are_refused(server, tail):
    parameters = {"binary_data_size": max(1, len(tail))}
    head = json.dumps({"inputs": [{"name": "t", "shape": [1], "datatype": "BYTES", "parameters": parameters}]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    refused = server.client.post("/v2/models/spam-detector/infer", content=head + tail, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (400, "binary_invalid")


def test_more_texts_in_bytes_than_a_request_may_have_are_refused(triton_client):
    with pytest.raises(InferenceServerException, match=r"inputs\[0\] has more than 1024 texts"):
        triton_client.infer("spam-detector", [tensor(["a"] * 1025)])
    assert len(triton_client.infer("spam-detector", [tensor(["a"] * 1024)]).as_numpy("label")) == 1024


def test_an_output_that_is_named_twice_is_named_in_the_refusal(server):
    body = {**named("label", "logits", "label"), "parameters": {"binary_data_output": True}}
    refused = server.client.post(INFER, json=body)
    assert (refused.status_code, refused.json()["error"]) == (
        422,
        "outputs: 'label' is named twice; ask for each once.",
    )


@pytest.mark.parametrize("length", ["9" * 5_000, "999", "-1", "", "\u0663".encode("utf-8")])
def test_a_length_of_the_json_that_is_none_is_refused(server, length):
    headers = {"Inference-Header-Content-Length": length}
    refused = server.client.post(INFER, content=json.dumps(infer()).encode(), headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (400, "binary_invalid")


def test_bytes_that_nothing_tells_of_are_refused(server):
    head = json.dumps(infer()).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    assert server.client.post(INFER, content=head, headers=headers).status_code == 200
    refused = server.client.post(INFER, content=head + b"\x01\x00\x00\x00a", headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (400, "binary_invalid")
    assert "binary_data_size is missing, 5 bytes follow" in refused.json()["error"]


def test_kserves_v1_client_as_it_sends_its_requests(server, expected):
    """The client itself runs in tests/processes/test_kserve_client.py: it needs an environment of its own.

    InferenceRESTClient.infer with protocol v1 posts orjson of its dict as application/json and returns the answer;
    is_model_ready wants 200 and `ready`, or 503.
    """
    headers = {"content-type": "application/json"}
    body = json.dumps({"instances": TEXTS}, separators=(",", ":"))
    answer = server.client.post("/v1/models/spam-detector:predict", content=body, headers=headers).json()
    assert server.client.post(KSERVE, json={"inputs": TEXTS}).json() == answer
    for found, wanted in zip(answer["predictions"], expected, strict=True):
        assert (found["label"], found["predicted_labels"]) == (wanted["label"], wanted["predicted_labels"])
        assert list(found["scores"]) == ["ham", "spam"]
        assert list(found["scores"].values()) == pytest.approx(wanted["probs"], abs=1e-5)
    assert server.client.get("/v1/models").json()["models"] == ["spam-detector"]
    assert server.client.get("/v1/models/spam-detector").json()["ready"] is True
    assert server.client.get("/", headers={"accept": "*/*"}).json() == {"status": "alive"}
    refused = server.client.post("/v1/models/other:predict", json={"instances": ["a"]})
    assert (refused.status_code, "does not serve" in refused.json()["error"]) == (404, True)


def test_kserves_v2_client_as_it_sends_its_requests(server, expected):
    """InferRequest.to_rest() of kserve 0.21: id, model_name and inputs; raw data follows the JSON as with Triton."""
    body = {
        "id": "6b3f",
        "model_name": "spam-detector",
        "inputs": [{"name": "input-0", "shape": [3], "datatype": "BYTES", "data": TEXTS}],
    }
    answer = server.client.post("/v2/models/spam-detector/infer", json=body).json()
    probabilities = next(one for one in answer["outputs"] if one["name"] == "probabilities")
    assert (probabilities["shape"], len(probabilities["data"])) == ([3, 2], 6)
    assert probabilities["data"][:2] == pytest.approx(expected[0]["probs"], abs=1e-5)
    assert server.client.get("/v2/models/spam-detector/ready").status_code == 200
    none_named = server.client.post("/v2/models/spam-detector/infer", json={**body, "outputs": []}).json()
    assert [one["name"] for one in none_named["outputs"]] == [one["name"] for one in answer["outputs"]]
    other = server.client.post("/v2/models/spam-detector/infer", json={**body, "model_name": "other"})
    assert (other.status_code, other.json()["code"], other.json()["param"]) == (404, "model_not_found", "model_name")


def test_work_is_counted_by_endpoint_whatever_the_model_is_called(checkpoint_folder):
    with tiny_server.running(checkpoint_folder) as server:
        server.client.post("/v1/models/spam-detector:predict", json={"instances": ["prize"]})
        server.client.post("/v1/models/made-up-by-a-client:predict", json={"instances": ["prize"]})
        exposed = server.client.get("/metrics").text
        assert 'endpoint="/v1/models/{model}:predict"' in exposed
        assert "made-up" not in exposed


def test_a_text_far_too_long_and_a_request_that_takes_too_long_are_refused(checkpoint_folder):
    gate = tiny_server.Gate()
    limits = Limits(text_characters=50, request_seconds=0.3)
    with tiny_server.running(checkpoint_folder, prepare=gate.guard, limits=limits) as server:
        error = server.refusal(422, json={"input": ["prize", "x" * 51]})
        assert (error["code"], error["param"]) == ("text_too_many_characters", "input[1]")
        assert server.probabilities("x" * 50)
        gate.close()
        assert server.refusal(504, json={"input": "prize"})["code"] == "deadline_exceeded"
        server.until(lambda: server.metric("clf_queue_tokens") == 0)
        gate.open()
        assert server.probabilities("prize")


def test_what_becomes_of_a_long_text_is_the_servers_choice_where_a_request_makes_none(checkpoint_folder):
    long = "meeting " * 20
    silent = {
        "/v1/classify": {"input": long},
        "/classify": {"input": long},
        "/v1/classification": {"input": long},
        "/predict": {"inputs": long},
        "/v1/models/spam:predict": {"instances": [long]},
    }
    with tiny_server.running(checkpoint_folder, limits=Limits(truncation="error")) as server:
        name = server.client.get("/v1/model").json()["id"]
        for path, body in silent.items():
            answer = server.client.post(path.replace("spam", name), json=body)
            assert answer.status_code == 422, path
            assert "tokens" in answer.text, path
        (line,) = server.client.post("/v1/classify/batch", content=json.dumps(long)).text.splitlines()
        assert json.loads(line)["error"]["code"] == "text_too_long"
        assert server.classify(long, truncation="right")["data"][0]["truncated"] is True
        assert server.client.post("/predict", json={"inputs": long, "truncate": True}).status_code == 200
        (cut,) = server.classify(long, truncate_prompt_tokens=5)["data"]
        assert (cut["tokens"], cut["truncated"]) == (5, True)
    with tiny_server.running(checkpoint_folder, limits=Limits(truncation="left")) as server:
        texts = ["prize " * 20 + "meeting", "meeting"]
        (cut, _), (asked, _) = (server.classify(texts, **said)["data"] for said in ({}, {"truncation": "left"}))
        assert cut["probs"] == asked["probs"]
