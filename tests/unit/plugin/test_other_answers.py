"""The plugin, by its front door, where something else than an API server answers, and where a name is none."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@pytest.fixture
def answering(tmp_path):
    """A server on loopback that gives this answer to everything: its kubeconfig, and the paths that it was asked for."""
    servers = []

    def answer(status, body):
        asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path.partition("?")[0])
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


@pytest.mark.parametrize("command", [["datasets"], ["datasets", "mails"], ["status", "--no-watch"]], ids=" ".join)
@pytest.mark.parametrize(
    "body", [b"<html>Log in</html>", b"[]", b"{}", b"\xff"], ids=["HTML", "a list", "an object", "bytes"]
)
def test_what_is_no_api_server_is_said(plugin, answering, command, body):
    kubeconfig, _ = answering(200, body)
    code, out, err = plugin(*command, "--kubeconfig", kubeconfig)
    assert (code, out) == (1, "")
    assert "error: what answers at http://127.0.0.1:" in err
    assert "is no API server" in err


@pytest.mark.parametrize("command", [["datasets", ""], ["artifacts", ""], ["refit", "", "--same"]])
def test_an_empty_name_is_refused(plugin, answering, command):
    kubeconfig, asked = answering(404, b"{}")
    code, out, err = plugin(*command, "--kubeconfig", kubeconfig)
    assert (code, out, asked) == (10, "", [])
    assert "is empty" in err


def test_a_name_stays_one_part_of_the_path(plugin, answering):
    kubeconfig, asked = answering(404, b'{"kind": "Status"}')
    code, _, err = plugin("datasets", "../pods?x #1", "-n", "a/b", "--kubeconfig", kubeconfig)
    assert code == 1
    assert 'there is no Dataset "../pods?x #1"' in err
    assert asked == ["/apis/winnow.dev/v1alpha1/namespaces/a%2Fb/datasets/..%2Fpods%3Fx%20%231"]
