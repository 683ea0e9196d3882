"""Rows from a bucket of a real S3 server (Versity's), by the import's command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from s3_server import KEYS, Server, running

FILES = {
    "rows.jsonl": 10,
    "mail/2026/part-1.jsonl": 20,
    "mail/2026/part-2.jsonl": 30,
    "mail/2026/_SUCCESS": 0,
    "mail/2025/part 1+ä.jsonl": 40,
    "mail/notes.txt": 1,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("s3")
    for name, rows in FILES.items():
        path = folder / "bucket" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            "".join(f'{{"prompt": "{name} {number}", "completion": {number % 2}}}\n' for number in range(rows))
        )
    with running(folder) as server:
        yield server


@dataclass(frozen=True)
class Said:
    code: int
    result: dict[str, Any]
    err: str


def imported(
    folder: Path,
    server: Server,
    uri: str,
    keys: dict[str, str],
    *,
    secret: str | None = "s3",
    networks: str = "127.0.0.0/8",
) -> Said:
    source = {"uri": uri, "endpoint": server.endpoint, **({"secretRef": {"name": secret}} if secret else {})}
    spec = {"modelService": "m", "source": {"s3": source}}
    (folder / "dataset.yaml").write_text(yaml.safe_dump({"kind": "Dataset", "spec": spec}))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "winnow_trainer", "import", "--dataset", folder / "dataset.yaml"),
            *("--storage", folder / "storage", "--allow-network", networks, "--json"),
        ],
        env={**os.environ, **dict.fromkeys(KEYS, ""), **keys},
        capture_output=True,
        text=True,
    )
    return Said(done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr)


@pytest.mark.parametrize(
    ("path", "rows"),
    [
        ("rows.jsonl", 10),
        ("mail/2026/", 50),
        ("mail/*/*.jsonl", 90),
        ("**/*.jsonl", 100),
        ("mail/2026/part-[2-9].jsonl", 30),
        ("mail/2025/part 1+ä.jsonl", 40),
    ],
)
def test_rows_of_a_bucket(server: Server, tmp_path: Path, path: str, rows: int) -> None:
    said = imported(tmp_path, server, f"s3://bucket/{path}", KEYS)
    assert (said.code, said.result.get("rows")) == (0, rows), said.err


@pytest.mark.parametrize(
    ("uri", "keys", "says"),
    [
        ("s3://bucket/none.jsonl", KEYS, "404 Not Found, NoSuchKey"),
        ("s3://bucket/mail/*.csv", KEYS, "holds 2025/part 1+ä.jsonl"),
        ("s3://no-such-bucket/", KEYS, "there is no such bucket"),
        (
            "s3://bucket/",
            {**KEYS, "AWS_SECRET_ACCESS_KEY": "wrong"},
            "AWS_SECRET_ACCESS_KEY of s3.secretRef does not belong",
        ),
        ("s3://bucket/", {**KEYS, "AWS_ACCESS_KEY_ID": "nobody"}, "does not know the AWS_ACCESS_KEY_ID"),
        ("s3://bucket/", {}, "Secret s3 has no AWS_ACCESS_KEY_ID"),
        ("bucket/rows", KEYS, "spec.source: s3.uri"),
    ],
)
def test_what_cannot_be_read_is_said(server: Server, tmp_path: Path, uri: str, keys: dict[str, str], says: str) -> None:
    said = imported(tmp_path, server, uri, keys)
    assert said.code == 10
    assert says in said.err
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in said.err
    assert "Traceback" not in said.err


def test_a_bucket_that_is_not_public_needs_keys(server: Server, tmp_path: Path) -> None:
    said = imported(tmp_path, server, "s3://bucket/rows.jsonl", {}, secret=None)
    assert said.code == 10
    assert "403 Forbidden" in said.err


def test_a_server_within_the_network_is_out_of_bounds(server: Server, tmp_path: Path) -> None:
    said = imported(tmp_path, server, "s3://bucket/rows.jsonl", KEYS, networks="10.0.0.0/8")
    assert said.code == 10
    assert "not public" in said.err
