"""The few calls of MLflow's REST API (2.0) that a run needs."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpcore

from winnow_classifier.addresses import Network
from winnow_classifier.errors import WinnowError
from winnow_trainer.fetch import MAY_PASS, CheckedBackend, shown
from winnow_trainer.teller import RefusedError, UnreachableError

SECONDS = 10.0  # for an answer
ANSWER_BYTES = 1_048_576
PARAMS = 100  # of one batch, as the server takes them
METRICS = 1_000
VALUE_CHARACTERS = 500
_NAME = re.compile(r"[^\w\-. /]")
Metric = tuple[str, float, int, int]  # name, value, milliseconds since the epoch, step


class MlflowApi:
    """Methods raise UnreachableError or RefusedError."""

    def __init__(self, uri: str, environ: Mapping[str, str], networks: Iterable[Network]) -> None:
        """Token, or name and password, are in the environment under the names that MLflow's own client reads."""
        self._uri = uri.rstrip("/")
        self._headers: dict[bytes | str, bytes | str] = {"content-type": "application/json", **_authorization(environ)}
        self._pool = httpcore.ConnectionPool(network_backend=CheckedBackend(networks, "MLflow is spoken with at"))

    def experiment(self, name: str) -> str:
        """Its id; it is made if it is not there."""
        query = f"experiments/get-by-name?experiment_name={quote(name, safe='')}"
        for _ in range(2):
            try:
                return str(self._call("GET", query)["experiment"]["experiment_id"])
            except RefusedError as error:
                if error.code != "RESOURCE_DOES_NOT_EXIST":
                    raise
            try:
                return str(self._call("POST", "experiments/create", {"name": name})["experiment_id"])
            except RefusedError as error:
                if error.code != "RESOURCE_ALREADY_EXISTS":  # another run was faster
                    raise
        raise UnreachableError(f"experiment {name} comes and goes")

    def start(self, experiment_id: str, name: str, params: Mapping[str, str], now: int) -> str:
        """The id of a new run."""
        wanted = {"experiment_id": experiment_id, "run_name": name, "start_time": now}
        run_id = str(self._call("POST", "runs/create", wanted)["run"]["info"]["run_id"])
        pairs = [{"key": key, "value": value[:VALUE_CHARACTERS]} for key, value in params.items()]
        for begin in range(0, len(pairs), PARAMS):
            self._call("POST", "runs/log-batch", {"run_id": run_id, "params": pairs[begin : begin + PARAMS]})
        return run_id

    def go_on(self, run_id: str) -> bool:
        """Whether the run is still there; it runs again."""
        try:
            self._call("POST", "runs/update", {"run_id": run_id, "status": "RUNNING"})
        except RefusedError as error:
            if error.code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # removed, or deleted
                return False
            raise
        return True

    def log(self, run_id: str, metrics: Sequence[Metric]) -> None:
        told = [
            {"key": _NAME.sub("_", name), "value": value, "timestamp": at, "step": step}
            for name, value, at, step in metrics
        ]
        for begin in range(0, len(told), METRICS):
            self._call("POST", "runs/log-batch", {"run_id": run_id, "metrics": told[begin : begin + METRICS]})

    def end(self, run_id: str, status: str, now: int) -> None:
        self._call("POST", "runs/update", {"run_id": run_id, "status": status, "end_time": now})

    def close(self) -> None:
        self._pool.close()

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        url = f"{self._uri}/api/2.0/mlflow/{path}"
        limits = dict.fromkeys(("connect", "read", "write", "pool"), SECONDS)
        content = json.dumps(body).encode() if body is not None else None
        try:
            with self._pool.stream(
                method, url, headers=self._headers, content=content, extensions={"timeout": limits}
            ) as answer:
                text = b""
                for chunk in answer.iter_stream():
                    text += chunk
                    if len(text) > ANSWER_BYTES:
                        raise RefusedError(f"{shown(url)} answers more than {ANSWER_BYTES} bytes")
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            raise UnreachableError(f"{shown(url)}: {error or type(error).__name__}") from error
        except WinnowError as error:
            raise RefusedError(f"{error}: {error.hint}") from error
        try:
            found = json.loads(text or b"{}")
        except ValueError:
            found = {"message": text[:200].decode(errors="replace")}
        if answer.status == 200 and isinstance(found, dict):
            return found
        said = found.get("message", "") if isinstance(found, dict) else ""
        message = f"{shown(url)} answers {answer.status}: {said}"
        if answer.status >= 500 or answer.status in MAY_PASS:
            raise UnreachableError(message)
        raise RefusedError(message, str(found.get("error_code", "")) if isinstance(found, dict) else "")


def _authorization(environ: Mapping[str, str]) -> dict[bytes | str, bytes | str]:
    if token := environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"authorization": f"Bearer {token}"}
    if user := environ.get("MLFLOW_TRACKING_USERNAME"):
        pair = f"{user}:{environ.get('MLFLOW_TRACKING_PASSWORD', '')}"
        return {"authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    return {}
