"""Behind an Ingress that hands on its path: the same server below it, its pages with relative addresses."""

import re
from pathlib import Path

import httpx
import pytest
import tiny_server

from winnow_server import settings


@pytest.fixture(scope="module")
def server(checkpoint_folder):
    with tiny_server.running(checkpoint_folder, path_prefixes=["/teams", "/teams/spam", "/x"]) as server:
        yield server


@pytest.mark.parametrize("prefix", ["", "/x", "/teams", "/teams/spam"])
def test_api_and_pages_answer_below_each_prefix_and_at_the_root(server, prefix):
    with httpx.Client(base_url=server.client.base_url, follow_redirects=True, verify=False) as http:
        answer = http.post(f"{prefix}/v1/classify", json={"input": "prize"})
        assert answer.json()["data"][0]["label"] in answer.json()["labels"]
        for page in ("ui", "docs"):
            found = http.get(f"{prefix}/{page}")
            assert (found.status_code, found.url.path) == (200, f"{prefix}/{page}/")
        assert http.get(f"{prefix}/ui/app.js").status_code == 200
        assert http.get(f"{prefix}/openapi.json").json()["servers"] == [{"url": "./"}]
        assert http.get(f"{prefix}/nothing").status_code == 404


def test_the_bare_prefix_leads_to_the_page(server):
    with httpx.Client(base_url=server.client.base_url, follow_redirects=True, verify=False) as http:
        found = http.get("/teams/spam", headers={"accept": "text/html"})
    assert (found.status_code, found.url.path) == (200, "/teams/spam/ui/")


def test_a_path_that_only_begins_like_a_prefix_is_another(server):
    assert server.client.get("/xv1/model").status_code == 404


def test_requests_below_a_prefix_are_counted_like_the_others(server):
    server.client.post("/v1/classify", json={"input": "prize"})
    before = server.metric("clf_requests_total")
    server.client.post("/x/v1/classify", json={"input": "prize"})
    assert server.metric("clf_requests_total") == before + 1


@pytest.mark.parametrize("wrong", ["x", "/x/", "/"])
def test_a_prefix_that_cannot_be_one_is_refused(wrong, capsys):
    with pytest.raises(SystemExit):
        settings.parse(["--checkpoint", "c", "--path-prefix", wrong])
    assert "must begin with a slash and end without one" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["/v1", "/docs/spam"])
def test_a_prefix_that_begins_like_a_path_of_the_servers_is_refused(wrong, capsys):
    with pytest.raises(SystemExit):
        settings.parse(["--checkpoint", "c", "--path-prefix", wrong])
    assert "begins like a path of the server itself" in capsys.readouterr().err
    assert settings.parse(["--checkpoint", "c", "--path-prefix", "/v1x"]).path_prefix == ["/v1x"]


def test_the_api_refuses_routes_that_would_hide_a_path_of_the_servers(server):
    crd = (Path(__file__).parents[3] / "crds" / "deployments.yaml").read_text()
    rules = re.findall(r"""rule: "!self\.matches\('(.*?)'\)"\n +message: "(?:ingress|httpRoute)""", crd)
    paths = server.client.get("/openapi.json").json()["paths"].keys() - {"/"}
    assert rules == [rf"^/({'|'.join(settings.OWN_PATHS)})(/|$)"] * 2
    assert [path for path in paths for rule in rules if not re.search(rule, path)] == []
