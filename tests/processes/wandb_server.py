"""A server that answers Weights & Biases' own client: what its GraphQL and file stream ask for while a run is told."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server:
    def __init__(self) -> None:
        self.url = ""
        self.runs: dict[str, dict[str, Any]] = {}  # by id
        self.keys: set[str] = set()
        self.paths: set[str] = set()
        self.status = 200

    def graphql(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(given.get("name", ""))
        match operation:
            case "RunResumeStatus":
                return {"model": {**self.project(given), "bucket": run and self.bucket(given["name"])}}
            case "UpsertBucket":
                run = self.runs.setdefault(given["name"], {"history": [], "words": [], "config": "{}"})
                run |= {"name": given["displayName"] or run.get("name"), "project": given["project"]}
                run["config"] = given["config"] or run["config"]
                bucket = {**self.bucket(given["name"]), "description": None, "sweepName": None}
                return {"upsertBucket": {"bucket": {**bucket, "project": self.project(given)}, "inserted": True}}
            case "CreateRunFiles":
                files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in given["files"]]
                return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}
        return {}

    @staticmethod
    def project(given: dict[str, Any]) -> dict[str, Any]:
        return {"id": "p1", "name": given["project"], "entity": {"id": "e1", "name": given["entity"] or "own"}}

    def bucket(self, run_id: str) -> dict[str, Any]:
        run = self.runs[run_id]
        counts = {"logLineCount": 0, "historyLineCount": len(run["history"]), "eventsLineCount": 0}
        tails = {"historyTail": json.dumps(run["history"][-1:]), "eventsTail": "[]", "summaryMetrics": "{}"}
        names = {"id": run_id, "name": run_id, "displayName": run["name"], "tags": [], "notes": ""}
        return {**names, **counts, **tails, "config": run["config"], "wandbConfig": None}

    def stream(self, run_id: str, told: dict[str, Any]) -> None:
        run = self.runs[run_id]
        if history := (told.pop("files", None) or {}).get("wandb-history.jsonl"):
            run["history"][history["offset"] :] = [json.loads(line) for line in history["content"]]
        run["words"].append(told)

    def answer(self, path: str, authorization: str | None, body: bytes) -> dict[str, Any]:
        self.paths.add(path)
        if authorization:
            self.keys.add(base64.b64decode(authorization.removeprefix("Basic ")).decode().removeprefix("api:"))
        if self.status != 200:
            return {"errors": [{"message": "no such user"}]}
        if path == "/graphql":
            asked = json.loads(body)
            return {"data": self.graphql(asked["operationName"], asked["variables"])}
        if path.endswith("/file_stream"):
            self.stream(path.split("/")[-2], json.loads(body))
        return {}

    def points(self, run_id: str, name: str) -> list[tuple[int, float]]:
        """Step and value, in the order of their coming."""
        return [(row["train/global_step"], row[name]) for row in self.runs[run_id]["history"] if name in row]

    def end(self, run_id: str) -> tuple[int | None, bool]:
        """Exit code, and whether it was interrupted."""
        codes = [told["exitcode"] for told in self.runs[run_id]["words"] if told.get("complete")]
        return (codes[-1] if codes else None), any(told.get("preempting") for told in self.runs[run_id]["words"])


@contextmanager
def served(server: Server, host: str = "127.0.0.1", port: int = 0) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            content = json.dumps(server.answer(self.path, self.headers.get("authorization"), body)).encode()
            self.send_response(server.status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = respond  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer((host, port), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_port}"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
