"""Kubeconfig files with everything in them, so that they work from any folder. JSON, which is YAML too."""

import base64
import json
from pathlib import Path

from winnow_cluster.certificates import KeyPair


def render(server: str, authority: bytes, certificate: bytes, key: bytes, name: str = "winnow") -> str:
    def text(data: bytes) -> str:
        return base64.b64encode(data).decode()

    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": text(authority)}}],
        "users": [{"name": name, "user": {"client-certificate-data": text(certificate), "client-key-data": text(key)}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    }
    return json.dumps(config, indent=1) + "\n"


def write(file: Path, server: str, authority: Path, client: KeyPair) -> Path:
    text = render(server, authority.read_bytes(), client.certificate.read_bytes(), client.key.read_bytes())
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)
    file.write_text(text)
    return file
