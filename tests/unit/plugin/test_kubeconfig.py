"""Kubeconfigs and proxies as kubectl reads them, by the plugin's front door: what arrives at which server."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

import pytest

from winnow_plugin.proxy import proxy_of

EMPTY = {"kind": "L", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}}
NONE = "There are no datasets in the namespace default.\n"
EXEC = {"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never"}


@pytest.fixture
def server():
    """Starts servers that answer all with an empty list: the port, and the path and headers of each request."""
    servers = []

    def start():
        asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append((self.path, self.headers))
                body = json.dumps(EMPTY).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        servers.append(started := ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=started.serve_forever, args=(0.01,), daemon=True).start()
        return started.server_port, asked

    yield start
    for each in servers:
        each.shutdown()
        each.server_close()


def in_a_process(*arguments):
    """Whose stderr a log-in program shares."""
    command = [sys.executable, "-m", "winnow_plugin.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)


@pytest.fixture
def kubeconfig(tmp_path):
    numbers = count()

    def write(server, user=None, **cluster):
        name = f"c{next(numbers)}"
        content = {
            "clusters": [{"name": name, "cluster": {"server": server, **cluster}}],
            "users": [{"name": name, "user": user or {}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        }
        (tmp_path / name).write_text(json.dumps(content))
        return tmp_path / name

    return write


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def test_of_several_kubeconfigs_the_first_one_names_the_context(plugin, server, kubeconfig, monkeypatch, tmp_path):
    (first, asked), (second, not_asked) = server(), server()
    (tmp_path / "empty").touch()
    files = [tmp_path / "empty", kubeconfig(f"http://127.0.0.1:{first}"), kubeconfig(f"http://127.0.0.1:{second}")]
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(map(str, files)))
    assert plugin("datasets") == (0, "", NONE)
    assert (len(asked), len(not_asked)) == (1, 0)
    plugin("datasets", "--context", "c1")
    assert (len(asked), len(not_asked)) == (1, 1)


def test_without_a_current_context_it_asks_for_one(plugin, kubeconfig):
    file = kubeconfig("http://127.0.0.1:1")
    file.write_text(json.dumps({**json.loads(file.read_text()), "current-context": ""}))
    code, _, said = plugin("datasets", "--kubeconfig", file)
    assert code == 10
    assert "none of its contexts is the current one" in said


def test_who_is_acted_for_is_told_to_the_cluster(plugin, server, kubeconfig):
    port, asked = server()
    user = {"token": "t", "as": "alice", "as-groups": ["a", "b"], "as-uid": "1", "as-user-extra": {"x/y": ["1", "2"]}}
    assert plugin("datasets", "--kubeconfig", kubeconfig(f"http://127.0.0.1:{port}", user))[0] == 0
    headers = asked[0][1]
    assert headers["Authorization"] == "Bearer t"
    assert headers["Impersonate-User"] == "alice"
    assert headers["Impersonate-Uid"] == "1"
    assert headers.get_all("Impersonate-Group") == ["a", "b"]
    assert headers.get_all("Impersonate-Extra-x%2Fy") == ["1", "2"]


def test_groups_without_a_user_are_refused(plugin, server, kubeconfig):
    port, asked = server()
    code, _, said = plugin("datasets", "--kubeconfig", kubeconfig(f"http://127.0.0.1:{port}", {"as-groups": ["a"]}))
    assert (code, asked) == (10, [])
    assert "names groups to act for, and no user" in said


def test_what_a_log_in_program_says_is_seen(server, kubeconfig, tmp_path):
    """One beside the kubeconfig, that asks to open a page and wants to know the cluster."""
    port, asked = server()
    (tmp_path / "login").write_text(f"""#!/bin/sh
echo "To sign in, open a page" >&2
echo "$KUBERNETES_EXEC_INFO" > {tmp_path}/info
echo '{json.dumps({**EXEC, "kind": "ExecCredential", "status": {"token": "fresh"}})}'
""")
    (tmp_path / "login").chmod(0o755)
    extension = {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "here"}}
    url = f"http://127.0.0.1:{port}"
    user = {"exec": {**EXEC, "command": "./login", "provideClusterInfo": True}}
    done = in_a_process("datasets", "--kubeconfig", kubeconfig(url, user, extensions=[extension]))
    assert done.stderr == f"To sign in, open a page\n{NONE}"
    assert asked[0][1]["Authorization"] == "Bearer fresh"
    told = json.loads((tmp_path / "info").read_text())["spec"]
    assert told == {"interactive": False, "cluster": {"server": url, "config": {"audience": "here"}}}


@pytest.mark.parametrize(
    ("program", "says"),
    [
        pytest.param(
            {"command": "no-such", "installHint": "Get it"}, "No such file or directory\nhint: Get it\n", id="no"
        ),
        pytest.param({"command": "sh", "args": ["-c", "echo Expired >&2; exit 1"]}, "exit code 1\n", id="signed out"),
        pytest.param({"command": "echo", "args": ["hello"]}, "what it prints is no ExecCredential\n", id="garbage"),
        pytest.param({"command": "echo", "args": ['{"status": {}}']}, "has no token, nor a certificate", id="nothing"),
        pytest.param({"command": "sh", "interactiveMode": "Always"}, "is not a terminal", id="wants to ask"),
    ],
)
def test_a_log_in_that_fails_is_told(kubeconfig, program, says):
    user = {"exec": {**EXEC, **program}}
    done = in_a_process("datasets", "--kubeconfig", kubeconfig("https://127.0.0.1:1", user))
    assert (done.returncode, done.stdout) == (10, "")
    assert f"error: {program['command']}, which the kubeconfig names to log in with, failed: " in done.stderr
    assert says in done.stderr
    assert done.stderr.startswith("Expired\n") == (program["command"] == "sh" and "args" in program)


def test_a_netrc_is_not_ours(plugin, server, kubeconfig, monkeypatch, tmp_path):
    port, asked = server()
    (tmp_path / "netrc").write_text("default login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    file = kubeconfig(f"http://127.0.0.1:{port}", {"token": "t"})
    assert plugin("datasets", "--kubeconfig", file) == (0, "", NONE)
    assert asked[0][1]["Authorization"] == "Bearer t"


def test_a_server_without_a_scheme_is_asked_by_http(plugin, server, kubeconfig):
    port, asked = server()
    assert plugin("datasets", "--kubeconfig", kubeconfig(f"127.0.0.1:{port}")) == (0, "", NONE)
    assert len(asked) == 1


@pytest.mark.parametrize("server", ["", "ftp://cluster", "https://cluster:port"])
def test_a_server_that_is_no_address_is_said(plugin, kubeconfig, server):
    code, _, said = plugin("datasets", "--kubeconfig", kubeconfig(server))
    assert code == 10
    assert f"names a server that cannot be asked: '{server}'" in said


def test_the_environments_proxy_is_gone_through_but_where_no_proxy_says_otherwise(
    plugin, server, kubeconfig, monkeypatch
):
    port, asked = server()
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
    file = kubeconfig("http://192.0.2.7:8080")
    assert plugin("datasets", "--kubeconfig", file)[0] == 0
    assert asked[0][0].startswith("http://192.0.2.7:8080/apis/winnow.dev/")


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "127.0.0.1:1"])
def test_a_proxy_that_it_cannot_go_through_is_said(plugin, kubeconfig, proxy):
    code, _, said = plugin("datasets", "--kubeconfig", kubeconfig("http://127.0.0.1:1", **{"proxy-url": proxy}))
    assert code == 10
    assert f"cannot go through the proxy {proxy}" in said


@pytest.mark.parametrize(
    ("server", "no_proxy", "straight"),
    [
        pytest.param("https://10.1.2.3:6443", "10.0.0.0/8", True, id="within a network"),
        pytest.param("https://11.1.2.3:6443", "10.0.0.0/8", False, id="outside of it"),
        pytest.param("https://[fd00::1]:6443", "fd00::/8", True, id="within a network of IPv6"),
        pytest.param("https://10.1.2.3", "a, 10.1.2.3", True, id="an address among others"),
        pytest.param("https://10.1.2.3:6443", "10.1.2.3:443", False, id="an address with another port"),
        pytest.param("https://[fd00::1]:6443", "[fd00::1]:6443", True, id="an address of IPv6 with the port"),
        pytest.param("https://k8s.example.com", "example.com", True, id="below a domain"),
        pytest.param("https://example.com", "example.com", True, id="the domain itself"),
        pytest.param("https://k8s.example.com", ".example.com", True, id="below one with a dot"),
        pytest.param("https://k8s.example.com", "*.example.com", True, id="below one with a star"),
        pytest.param("https://example.com", ".example.com", False, id="itself is not below it"),
        pytest.param("https://badexample.com", "example.com", False, id="a name that ends alike"),
        pytest.param("https://k8s.example.com", "example.com:443", True, id="the port that a scheme stands for"),
        pytest.param("https://k8s.example.com", "EXAMPLE.com", True, id="in capitals"),
        pytest.param("https://k8s.example.com", "*", True, id="everything"),
        pytest.param("https://k8s.example.com", "", False, id="nothing"),
        pytest.param("https://localhost:6443", "", True, id="this machine"),
        pytest.param("https://127.0.0.2:6443", "", True, id="its loopback"),
    ],
)
def test_no_proxy_is_read_as_go_reads_it(server, no_proxy, straight):
    environment = {"HTTPS_PROXY": "proxy:3128", "no_proxy": no_proxy}
    assert proxy_of(server, environment) == (None if straight else "http://proxy:3128")
