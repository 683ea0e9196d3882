"""The command line, as values."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from winnow_server.limits import Limits

DEFAULT = Limits()


@dataclass(frozen=True, slots=True)
class Settings:
    checkpoint: Path
    digest: str | None
    base_model: str | None
    storage: Path | None
    name: str | None
    host: str
    port: int
    max_batch_tokens: int | None  # None: by device
    max_queue_tokens: int | None  # None: by max_batch_tokens
    max_body_bytes: int
    max_text_characters: int
    max_request_seconds: float
    api_keys: Path | None  # a folder, a file for each key
    thresholds: Path | None  # a JSON file
    drain_seconds: float
    termination_log: Path | None
    log_level: str


def parse(arguments: Sequence[str] | None = None) -> Settings:
    """Ends the process with 2 and words on stderr if an argument is wrong."""
    parser = argparse.ArgumentParser(prog="python -m winnow_server", description="Serve a checkpoint over HTTP.")
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, metavar="DIR", help="the checkpoint's folder, with checkpoint.json")
    add("--digest", metavar="sha256:…", help="refuse to serve any other checkpoint than the one with this digest")
    add("--base-model", metavar="REF", help="where an adapter's base model is, if not where the checkpoint says")
    add("--storage", type=Path, metavar="DIR", help="where downloaded base models lie, for hf:// references")
    add("--name", help="what clients call the model (default: the training job's outputModelName)")
    add("--host", default="0.0.0.0", help="the address to listen on (default: %(default)s)")
    add("--port", type=int, default=8080, help="0 takes a free one and logs it (default: %(default)s)")
    add("--max-batch-tokens", type=positive, metavar="N", help="tokens that run together (default: 1024, GPU 4096)")
    add("--max-queue-tokens", type=positive, metavar="N", help="tokens that may wait (default: 32 batches)")
    add("--max-body-bytes", type=positive, default=DEFAULT.body_bytes, metavar="N", help="(default: 2 MiB)")
    add("--max-text-characters", type=positive, default=DEFAULT.text_characters, metavar="N", help="(default: 262144)")
    add("--max-request-seconds", type=float, default=DEFAULT.request_seconds, metavar="S", help="(default: 60)")
    add("--api-keys", type=Path, metavar="DIR", help="ask for one of these keys, a file for each; read again on change")
    add("--thresholds", type=Path, metavar="FILE", help='{"label": 0.7}, from which on it holds; read again on change')
    add("--drain-seconds", type=float, default=5.0, metavar="S", help="to go on serving after SIGTERM (default: 5)")
    add("--termination-log", type=Path, metavar="FILE", help="where to say why the process failed, as JSON")
    add("--log-level", choices=("debug", "info", "warning"), default="info", help="debug logs each request")
    return Settings(**vars(parser.parse_args(arguments)))


def positive(value: str) -> int:
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number
