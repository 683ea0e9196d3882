"""The plugin, by its front door, where something else than an API server answers, and where a name is none."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise

import plain_authority
import pytest

from winnow_plugin.follow import FIRST_WAIT_SECONDS


@pytest.fixture
def answering(tmp_path):
    """A server on loopback that answers a path with a status and a body: its kubeconfig, and the paths it was asked for."""
    servers = []

    def answer(reply):
        asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path.partition("?")[0])
                status, body = reply(self.path)
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_):
                """Of several requests the plugin awaits no more when one has failed."""

        server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        kubeconfig = {
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "demo"}}],
            "current-context": "x",
        }
        (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig))
        return tmp_path / "kubeconfig", asked

    yield answer
    for server in servers:
        server.shutdown()
        server.server_close()


def always(status, body):
    return lambda path: (status, body)


@pytest.mark.parametrize("command", [["datasets"], ["datasets", "mails"], ["status", "--no-watch"]], ids=" ".join)
@pytest.mark.parametrize(
    "body", [b"<html>Log in</html>", b"[]", b"{}", b"\xff"], ids=["HTML", "a list", "an object", "bytes"]
)
def test_what_is_no_api_server_is_said(plugin, answering, command, body):
    kubeconfig, _ = answering(always(200, body))
    code, out, err = plugin(*command, "--kubeconfig", kubeconfig)
    assert (code, out) == (1, "")
    assert "error: what answers at http://127.0.0.1:" in err
    assert "is no API server" in err


@pytest.mark.parametrize("command", [["datasets", ""], ["artifacts", ""], ["refit", "", "--same"]])
def test_an_empty_name_is_refused(plugin, answering, command):
    kubeconfig, asked = answering(always(404, b"{}"))
    code, out, err = plugin(*command, "--kubeconfig", kubeconfig)
    assert (code, out, asked) == (10, "", [])
    assert "is empty" in err


def test_a_name_stays_one_part_of_the_path(plugin, answering):
    kubeconfig, asked = answering(always(404, b'{"kind": "Status"}'))
    code, _, err = plugin("datasets", "../pods?x #1", "-n", "a/b", "--kubeconfig", kubeconfig)
    assert code == 1
    assert 'there is no Dataset "../pods?x #1"' in err
    assert asked == ["/apis/winnow.dev/v1alpha1/namespaces/a%2Fb/datasets/..%2Fpods%3Fx%20%231"]


@pytest.mark.parametrize("status", [200, 410], ids=["it ends at once", "it has expired"])
def test_where_watches_do_not_pass_it_lists_less_and_less_often(plugin, answering, monkeypatch, status):
    monkeypatch.setattr("winnow_plugin.follow.FIRST_WAIT_SECONDS", first := FIRST_WAIT_SECONDS / 10)
    page = {"apiVersion": "winnow.dev/v1alpha1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": []}
    listed = []

    def reply(path):
        if "watch=1" in path:
            return status, b""
        if "/datasets?" not in path:
            return 200, json.dumps(page).encode()
        listed.append(time.monotonic())
        return (200, json.dumps(page).encode()) if len(listed) < 5 else (403, b"{}")

    kubeconfig, _ = answering(reply)
    code, _, err = plugin("status", "--watch", "--kubeconfig", kubeconfig)
    assert (code, "you may not read datasets" in err) == (1, True)
    pauses = [later - earlier for earlier, later in pairwise(listed)]
    assert all(pause > first * 2**times for times, pause in enumerate(pauses)), pauses


def test_certificates_that_kubectl_takes_are_taken(plugin, tmp_path, monkeypatch):
    plain_authority.as_python_3_13(monkeypatch)
    with plain_authority.served(tmp_path) as kubeconfig:
        code, _, said = plugin("status", "--no-watch", "--kubeconfig", kubeconfig)
    assert (code, said) == (0, "There are no objects of Winnow in the namespace demo.\n")


@pytest.mark.parametrize(
    ("cluster", "user"),
    [
        pytest.param({"certificate-authority": "kubeconfig"}, {}, id="an authority that is none"),
        pytest.param({}, {"client-certificate": "crt", "client-key": "ca.key"}, id="the key of another certificate"),
    ],
)
def test_certificates_that_cannot_be_used_are_said(plugin, tmp_path, cluster, user):
    with plain_authority.served(tmp_path) as kubeconfig:
        changed = json.loads(kubeconfig.read_text())
        changed["clusters"][0]["cluster"] |= cluster
        changed["users"][0]["user"] |= user
        kubeconfig.write_text(json.dumps(changed))
        code, _, said = plugin("status", "--no-watch", "--kubeconfig", kubeconfig)
    assert code == 10
    assert said.startswith(f"error: the certificates or the key in the kubeconfig {kubeconfig} cannot be used: [")
    assert "Traceback" not in said


def test_a_token_is_read_from_its_file_without_the_newline(plugin, answering, tmp_path):
    """As `kubectl create token … > token` writes it, and as kubectl reads it."""
    kubeconfig, asked = answering(
        always(200, b'{"kind": "L", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}}')
    )
    changed = json.loads(kubeconfig.read_text())
    (tmp_path / "token").write_text("secret\n")
    changed["users"][0]["user"] = {"tokenFile": "token"}
    kubeconfig.write_text(json.dumps(changed))
    code, _, said = plugin("status", "--no-watch", "--kubeconfig", kubeconfig)
    assert (code, said) == (0, "There are no objects of Winnow in the namespace demo.\n")
    assert asked
