"""API keys: who may ask, what is open, and keys that change while the server runs."""

import hmac
import json
import logging
import pickle
from contextlib import nullcontext

import pytest
import tiny_server

from winnow_server.access import ApiKeys
from winnow_server.errors import Unauthorized

KEY, OTHER = "k-3f9a81c2", "k-other-77"
CLOSED = [
    ("POST", "/v1/classify"),
    ("POST", "/classify"),
    ("POST", "/v1/classification"),
    ("POST", "/v1/classify/batch"),
    ("POST", "/predict"),
    ("POST", "/v1/models/spam-detector:predict"),
    ("POST", "/v2/models/spam-detector/infer"),
    ("GET", "/v2/models/spam-detector"),
    ("GET", "/v2"),
    ("GET", "/v1/models"),
    ("GET", "/v1/model"),
    ("GET", "/info"),
    ("GET", "/what/nobody/wrote/yet"),
]
OPEN = ["/health", "/ping", "/v2/health/live", "/v2/health/ready", "/metrics", "/ui/", "/docs/", "/openapi.json"]


def mount(folder, keys):
    """As the kubelet mounts a Secret: files are links into a folder of its own that is swapped as a whole."""
    folder.mkdir(exist_ok=True)
    generation = folder / f"..{len(list(folder.iterdir()))}"
    generation.mkdir()
    for name, key in keys.items():
        (generation / name).write_text(key)
    (folder / "..tmp").symlink_to(generation.name)
    (folder / "..tmp").replace(folder / "..data")
    for file in folder.iterdir():
        if not file.name.startswith("..") and file.name not in keys:
            file.unlink()
    for name in keys:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")


@pytest.fixture(scope="module")
def guarded(checkpoint_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    mount(folder, {"alice": KEY + "\n"})
    with tiny_server.running(checkpoint_folder, api_keys=folder) as server:
        yield server


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_what_is_not_open_needs_a_key(guarded, method, path):
    refused = guarded.client.request(method, path)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Bearer")
    error = refused.json()
    code = error["error"]["code"] if isinstance(error["error"], dict) else error["code"]
    assert code == "api_key_missing"


def test_probes_pages_and_metrics_are_open(guarded):
    assert [guarded.client.get(path).status_code for path in OPEN] == [200] * len(OPEN)
    assert [guarded.client.head(path).status_code for path in OPEN] == [200] * len(OPEN)
    assert guarded.client.post("/", json={"inputs": "prize"}).status_code == 401


@pytest.mark.parametrize("headers", [bearer(KEY), {"Authorization": f"bearer  {KEY}"}, {"X-API-Key": KEY}])
def test_a_key_opens_by_either_header(guarded, headers):
    assert guarded.client.post("/v1/classify", json={"input": "prize"}, headers=headers).status_code == 200


@pytest.mark.parametrize("key", ["k-3f9a81c", KEY + "x", "alice", ""])
def test_another_key_does_not(guarded, key):
    refused = guarded.client.get("/v1/model", headers={"X-API-Key": key})
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "api_key_invalid")


def test_keys_are_replaced_without_a_restart(checkpoint_folder, tmp_path):
    folder = tmp_path / "keys"
    mount(folder, {"alice": KEY + "\n"})
    with tiny_server.running(checkpoint_folder, api_keys=folder) as server:

        def status(key):
            return server.client.get("/v1/model", headers=bearer(key)).status_code

        assert status(KEY) == 200
        mount(folder, {"alice": KEY, "bob": OTHER})
        server.until(lambda: status(OTHER) == 200)
        assert status(KEY) == 200
        mount(folder, {"bob": OTHER})
        server.until(lambda: status(KEY) == 401)
        assert status(OTHER) == 200


@pytest.mark.parametrize("keys", [{}, {"empty": ""}, {"spaces": "two words"}, {"bytes": "schlüssel"}])
def test_without_a_usable_key_all_is_closed_and_says_so(checkpoint_folder, tmp_path, keys):
    mount(tmp_path / "keys", keys)
    with tiny_server.running(checkpoint_folder, api_keys=tmp_path / "keys") as server:
        for headers in ({}, bearer("x"), {"X-API-Key": ""}):
            refused = server.client.get("/v1/model", headers=headers)
            assert (refused.status_code, refused.json()["error"]["code"]) == (401, "api_keys_missing")
        assert "Secret" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("key", "opens"),
    [
        pytest.param("!", True, id="the first character that a header may have"),
        pytest.param("~", True, id="the last"),
        pytest.param("k\x7f", False, id="beyond it"),
        pytest.param("k" * 4_096 + "\r\n", True, id="the longest, with the line break of an editor"),
        pytest.param("k" * 4_097, False, id="a longer one, which is not cut to a shorter key"),
    ],
)
def test_which_keys_are_usable(tmp_path, key, opens):
    mount(tmp_path / "keys", {"alice": key})
    keys = ApiKeys()
    keys.read(tmp_path / "keys")
    presented = {"headers": [(b"x-api-key", key.strip().encode()), (b"x-api-key", key.encode()[:4_096])]}
    with nullcontext() if opens else pytest.raises(Unauthorized, match="no API key that it could accept"):
        keys.check(presented)


def test_a_folder_that_is_not_there_yet_is_closed_until_it_comes(checkpoint_folder, tmp_path):
    with tiny_server.running(checkpoint_folder, api_keys=tmp_path / "keys") as server:
        assert server.client.get("/v1/model", headers=bearer(KEY)).status_code == 401
        mount(tmp_path / "keys", {"alice": KEY})
        server.until(lambda: server.client.get("/v1/model", headers=bearer(KEY)).status_code == 200)


def test_keys_are_kept_and_compared_as_digests_only(tmp_path, monkeypatch):
    mount(tmp_path / "keys", {"alice": KEY, "bob": OTHER})
    keys = ApiKeys()
    keys.read(tmp_path / "keys")
    compare, compared = hmac.compare_digest, []
    monkeypatch.setattr(hmac, "compare_digest", lambda *pair: compared.append(pair) or compare(*pair))
    keys.check({"headers": [(b"x-api-key", KEY.encode())]})
    assert [len(digest) for pair in compared for digest in pair] == [32] * 4
    held = pickle.dumps((keys, compared))
    assert KEY.encode() not in held and OTHER.encode() not in held


def test_no_key_gets_into_logs_metrics_or_descriptions(guarded, caplog):
    caplog.set_level(logging.DEBUG)
    guarded.client.get("/v1/model", headers=bearer(KEY))
    guarded.client.post("/v1/classify", json={"input": "prize"}, headers={"X-API-Key": OTHER})
    guarded.until(lambda: any(record.getMessage() == "Request" for record in caplog.records))
    assert all(KEY not in str(vars(record)) and OTHER not in str(vars(record)) for record in caplog.records)
    assert KEY not in guarded.client.get("/metrics").text
    described = guarded.client.get("/openapi.json").json()
    assert set(described["components"]["securitySchemes"]) == {"bearer", "header"}
    assert described["paths"]["/v1/classify"]["post"]["security"]
    assert "security" not in described["paths"]["/health"]["get"]
    assert KEY not in json.dumps(described)
