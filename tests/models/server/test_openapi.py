"""openapi.json and its page: valid, complete, and true to what the server answers."""

import json
import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

import winnow_server

DOCS = Path(winnow_server.__file__).parent / "docs"
TENSOR = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["prize"]}
CALLS = [
    (
        "post",
        "/v1/classify",
        "/v1/classify",
        {"input": [{"id": "a", "text": "prize"}], "return_logits": True, "top_k": 1},
    ),
    ("post", "/classify", "/classify", {"input": "prize"}),
    ("post", "/v1/classification", "/v1/classification", {"input": "prize", "data_format": "probs"}),
    ("post", "/predict", "/predict", {"inputs": [["prize"], ["meeting"]]}),
    ("post", "/", "/", {"inputs": "prize"}),
    ("get", "/info", "/info", None),
    ("get", "/ping", "/ping", None),
    ("post", "/v1/models/{model}:predict", "/v1/models/spam-detector:predict", {"instances": ["prize"]}),
    ("post", "/v2/models/{model}/infer", "/v2/models/spam-detector/infer", {"inputs": [TENSOR]}),
    ("get", "/v2/models/{model}", "/v2/models/spam-detector", None),
    ("get", "/v2/models/{model}/ready", "/v2/models/spam-detector/ready", None),
    ("get", "/v2", "/v2", None),
    ("get", "/v2/", "/v2/", None),
    ("get", "/v2/health/live", "/v2/health/live", None),
    ("get", "/v2/health/ready", "/v2/health/ready", None),
    ("get", "/v1/models", "/v1/models", None),
    ("get", "/v1/models/{model}", "/v1/models/spam-detector", None),
    ("get", "/v1/model", "/v1/model", None),
    ("get", "/v1/examples", "/v1/examples", None),
    ("get", "/", "/", None),
]


@pytest.fixture(scope="module")
def described(server):
    return server.client.get("/openapi.json").json()


def schema_of(described, content):
    return {**content["schema"], "components": described["components"]}


def nothing_else(schema):
    """The schema, by which an object has no fields but those that are described."""
    if isinstance(schema, list):
        return [nothing_else(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {"additionalProperties": False} if "properties" in schema and schema.get("type") == "object" else {}
    return {name: nothing_else(one) for name, one in schema.items()} | strict


def test_it_is_valid(described):
    OpenAPIV31SpecValidator(described).validate()
    assert described["openapi"] == "3.1.0"


def test_schemas_have_names_that_a_generated_client_can_bear(described):
    """Two protocols that name one class alike would get the paths of their modules."""
    assert [name for name in described["components"]["schemas"] if "__" in name] == []


@pytest.mark.parametrize(("method", "template", "path", "body"), CALLS, ids=[f"{one[0]} {one[1]}" for one in CALLS])
def test_answers_are_as_described(server, described, method, template, path, body):
    operation = described["paths"][template][method]
    if body is not None:
        request = operation["requestBody"]["content"]["application/json"]
        Draft202012Validator(schema_of(described, request)).validate(body)
    response = server.client.request(method, path, json=body)
    assert response.status_code == 200, response.text
    answer = operation["responses"]["200"]["content"]["application/json"]
    Draft202012Validator(nothing_else(schema_of(described, answer))).validate(response.json())


@pytest.mark.parametrize("path", ["/v1/classify", "/predict"])
def test_errors_are_as_described(server, described, path):
    refused = server.client.post(path, json={"nothing": 1})
    content = described["paths"][path]["post"]["responses"][str(refused.status_code)]["content"]["application/json"]
    Draft202012Validator(nothing_else(schema_of(described, content))).validate(refused.json())


@pytest.mark.parametrize(("method", "template", "path"), [one[:3] for one in CALLS])
def test_refusals_are_as_described(server, described, method, template, path):
    refused = server.client.delete(path)
    content = described["paths"][template][method]["responses"]["405"]["content"]["application/json"]
    Draft202012Validator(nothing_else(schema_of(described, content))).validate(refused.json())


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready", "/health", "/ping"])
def test_what_a_probe_is_told_of_a_server_that_is_not_well_is_described(described, path):
    answered = described["paths"][path]["get"]["responses"]
    assert answered["503"]["content"] == answered["200"]["content"]


def test_thresholds_in_a_query_are_json_as_the_server_reads_them(server, described):
    parameters = {one["name"]: one for one in described["paths"]["/v1/classify/batch"]["post"]["parameters"]}
    asked = {"spam": 0.0}
    Draft202012Validator(schema_of(described, parameters["thresholds"]["content"]["application/json"])).validate(asked)
    answer = server.client.post("/v1/classify/batch", params={"thresholds": json.dumps(asked)}, content=b'"meeting"')
    assert answer.json()["predicted_labels"] == ["spam"]


def test_what_is_documented_in_words_is_described(described):
    page = (Path(__file__).parents[3] / "docs" / "serving.md").read_text()
    documented = set(re.findall(r"`(?:GET|POST) (/[^`]*)`", page)) - {"/ui/", "/docs/", "/openapi.json"}
    assert documented
    assert sorted(documented - set(described["paths"])) == []
    assert "securitySchemes" not in described["components"]


def test_the_page_is_found_and_may_speak_to_its_own_host_only(server):
    assert server.client.get("/docs").headers["location"] == "docs/"
    page = server.client.get("/docs/")
    assert page.headers["content-security-policy"].startswith("default-src 'self';")
    for file in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert server.client.get(f"/docs/{file}").status_code == 200


@pytest.mark.parametrize("file", sorted(DOCS.iterdir()), ids=lambda file: file.name)
def test_no_file_of_the_page_names_another_host_or_an_absolute_path(file):
    text = file.read_text()
    assert not re.search(r"https?://|//[a-z0-9-]+\.[a-z]|[\"'(]/[a-z]", text)
    assert not re.search(r"innerHTML|eval\(|<script>| style=", text)
