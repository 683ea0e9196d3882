"""The command line, as values."""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from winnow_classifier.addresses import Network, network
from winnow_classifier.errors import ConfigError
from winnow_server.limits import Limits, Truncation

Precision = Literal["auto", "float32"]
DEFAULT = Limits()
# A larger batch computes no faster on a CPU and makes the others wait; a GPU needs a few thousand tokens to be busy.
CPU_BATCH_TOKENS, GPU_BATCH_TOKENS = 512, 4_096
QUEUED_BATCHES = 64  # the queue's default size
# What the server's own paths begin with: below such a prefix they could not be told from others. The CRD refuses the same ones.
OWN_PATHS = ("classify", "docs", "health", "info", "metrics", "openapi.json", "ping", "predict", "ui", "v1", "v2")


@dataclass(frozen=True, slots=True)
class Settings:
    checkpoint: str  # a folder, or s3://bucket/prefix
    digest: str | None
    base_model: str | None
    base_keys: str  # goes before the names of the variables for a base model in a bucket
    storage: Path | None
    mirror: Path | None
    allow_network: list[Network]
    name: str | None
    host: str
    port: int
    max_batch_tokens: int | None  # None: by device
    max_queue_tokens: int | None  # None: by max_batch_tokens
    max_body_bytes: int
    max_text_characters: int
    max_request_seconds: float
    truncation: Truncation
    precision: Precision
    require_gpu: bool
    examples: Literal["shown", "hidden"]
    api_keys: Path | None  # a folder, a file for each key
    thresholds: Path | None  # a JSON file
    path_prefix: list[str]
    drain_seconds: float
    termination_log: Path | None
    log_level: str


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """As argparse's own, which ends with 2."""
        self.print_usage(sys.stderr)
        self.exit(ConfigError.exit_code, f"{self.prog}: error: {message}\n")


def parse(arguments: Sequence[str] | None = None) -> Settings:
    """Ends the process with 10 and words on stderr if an argument is wrong."""
    parser = Parser(prog="python -m winnow_server", description="Serve a checkpoint over HTTP.")
    add = parser.add_argument
    where = "the checkpoint's folder, with checkpoint.json, or s3://… with keys, endpoint and region from AWS_…"
    add("--checkpoint", required=True, metavar="DIR", help=where)
    add("--digest", metavar="sha256:…", help="refuse to serve any other checkpoint than the one with this digest")
    add("--base-model", metavar="REF", help="where an adapter's base model is, if not where the checkpoint says")
    keys = "the names of the variables for a base model in s3:// begin with this (default: AWS_ACCESS_KEY_ID, …)"
    add("--base-keys", default="", metavar="PREFIX", help=keys)
    add("--storage", type=Path, metavar="DIR", help="where downloaded base models lie, of hf:// and s3://")
    add("--mirror", type=Path, metavar="DIR", help="where files of an s3:// checkpoint lie (default: temporary)")
    networks = "for s3:// and HF_ENDPOINT, connect to addresses in there too (repeatable); else to public ones only"
    add("--allow-network", type=network, action="append", default=[], metavar="CIDR", help=networks)
    add("--name", help="what clients call the model (default: the training job's outputModelName)")
    add("--host", default="", help="the address to listen on (default: every one, IPv6 too)")
    add("--port", type=port, default=8080, help="0 takes a free one and logs it (default: %(default)s)")
    batch = f"tokens that run together (default: {CPU_BATCH_TOKENS}, GPU {GPU_BATCH_TOKENS})"
    add("--max-batch-tokens", type=positive, metavar="N", help=batch)
    queue = f"tokens that may wait (default: {QUEUED_BATCHES} batches)"
    add("--max-queue-tokens", type=positive, metavar="N", help=queue)
    add("--max-body-bytes", type=positive, default=DEFAULT.body_bytes, metavar="N", help="(default: 2 MiB)")
    add("--max-text-characters", type=positive, default=DEFAULT.text_characters, metavar="N", help="(default: 262144)")
    add("--max-request-seconds", type=seconds, default=DEFAULT.request_seconds, metavar="S", help="(default: 60)")
    numbers = "auto: bfloat16 where it is faster and stored examples get the same answers (default: auto)"
    long = "what becomes of a text that is too long where a request does not say: cut at that end, or refused (default: right)"
    add("--truncation", choices=("right", "left", "error"), default="right", help=long)
    add("--precision", choices=("auto", "float32"), default="auto", help=numbers)
    add("--require-gpu", action="store_true", help="end where torch sees no GPU (default: serve on CPUs there)")
    rows = "whether the test page offers rows of the test set, to those who may classify (default: shown)"
    add("--examples", choices=("shown", "hidden"), default="shown", help=rows)
    add("--api-keys", type=Path, metavar="DIR", help="ask for one of these keys, a file for each; read again on change")
    add("--thresholds", type=Path, metavar="FILE", help='{"label": 0.7}, from which on it holds; read again on change')
    prefixes = "answer below this path too, where an Ingress leads one here as it is (repeatable)"
    add("--path-prefix", type=prefix, action="append", default=[], metavar="/PATH", help=prefixes)
    add("--drain-seconds", type=wait, default=5.0, metavar="S", help="to go on serving after SIGTERM (default: 5)")
    add("--termination-log", type=Path, metavar="FILE", help="where to say why the process failed, as JSON")
    add("--log-level", choices=("debug", "info", "warning"), default="info", help="debug logs each request")
    return Settings(**vars(parser.parse_args(arguments)))


def positive(value: str) -> int:
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def wait(value: str) -> float:
    number = float(value)
    if not (math.isfinite(number) and number >= 0):
        raise argparse.ArgumentTypeError("must be a number of seconds, 0 or more")
    return number


def seconds(value: str) -> float:
    number = wait(value)
    if number == 0:
        raise argparse.ArgumentTypeError("must be more than 0 s")
    return number


def port(value: str) -> int:
    number = int(value)
    if not 0 <= number <= 65_535:
        raise argparse.ArgumentTypeError("must be from 0 to 65535")
    return number


def prefix(value: str) -> str:
    if not value.startswith("/") or value.endswith("/"):
        raise argparse.ArgumentTypeError(f"{value!r} must begin with a slash and end without one")
    if value.split("/")[1] in OWN_PATHS:
        raise argparse.ArgumentTypeError(f"{value!r} begins like a path of the server itself; choose another")
    return value
