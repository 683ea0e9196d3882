"""The server's process: what it is made of, from the checkpoint to the socket."""

import gc
import logging
import os
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import prometheus_client
import torch

from winnow_classifier import base_model
from winnow_classifier.base_bucket import BaseBucket
from winnow_classifier.base_hub import HuggingFaceHub
from winnow_classifier.cpu import usable_cpus
from winnow_classifier.errors import CheckpointError, ConfigError
from winnow_classifier.files import DECISION, MANIFEST
from winnow_classifier.gpu import require_gpu
from winnow_classifier.mirror import Mirror, is_bucket, opened
from winnow_server import model, standing
from winnow_server.access import ApiKeys
from winnow_server.app import create_app
from winnow_server.engine import Threads, workers_on
from winnow_server.limits import Limits
from winnow_server.mirrored import following
from winnow_server.prefix import Prefixed
from winnow_server.process import Server, configuration, listen
from winnow_server.service import Service
from winnow_server.settings import CPU_BATCH_TOKENS, GPU_BATCH_TOKENS, QUEUED_BATCHES, Settings
from winnow_server.thresholds import Rules
from winnow_server.watched import Watched, look_first

if TYPE_CHECKING:
    from winnow_server.tracing import Tracing

log = logging.getLogger(__name__)


def serve(settings: Settings) -> None:
    """Returns after a clean stop. Raises WinnowError if the checkpoint cannot be served, the port is taken, or a GPU is missing."""
    if settings.require_gpu:
        require_gpu()
    with opened(settings.checkpoint, settings.mirror, settings.allow_network, os.environ) as (directory, mirror):
        serve_from(directory, mirror, settings)


def serve_from(directory: Path, mirror: Mirror, settings: Settings) -> None:
    mirror.fetch(directory / MANIFEST)
    if is_bucket(settings.checkpoint) and not (directory / MANIFEST).is_file():
        raise CheckpointError(f"There is no checkpoint in {settings.checkpoint}: {MANIFEST} is missing.")
    announced = model.announce(directory, settings.digest, settings.name)
    storage = settings.storage or (directory if is_bucket(settings.checkpoint) else None)
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, that no dashboard asks for
    cpus = usable_cpus()
    torch.set_num_threads(cpus)
    on_gpu = torch.cuda.is_available()
    batch_tokens = settings.max_batch_tokens or (GPU_BATCH_TOKENS if on_gpu else CPU_BATCH_TOKENS)
    service = Service(
        announced,
        lambda: loaded(directory, announced, storage, mirror, settings, service.rules),
        max_batch_tokens=batch_tokens,
        max_queue_tokens=settings.max_queue_tokens or QUEUED_BATCHES * batch_tokens,
        workers=[Threads(cpus, cpus)] if on_gpu else workers_on(cpus),
        limits=Limits(
            settings.max_body_bytes, settings.max_text_characters, settings.max_request_seconds, settings.truncation
        ),
        show_examples=settings.examples == "shown",
    )
    keys = ApiKeys() if settings.api_keys else None
    watched = [Watched(settings.api_keys, keys.read)] if keys and settings.api_keys else []
    stands = standing.Standing(service)
    mirror.refresh(directory / DECISION)
    watched.append(Watched(directory / DECISION, stands.take_decision))
    if settings.thresholds:
        watched.append(Watched(settings.thresholds, stands.take_override))
    look_first(watched)  # here, so that a file that cannot be used ends the process in words
    tracing = start_tracing(announced, os.environ)
    app = create_app(service, keys=keys, watched=watched, around=tracing.around if tracing else lambda app: app)
    if tracing:
        service.on_classified = tracing.stages
    server = Server(configuration(Prefixed(app, settings.path_prefix)), service.drain, settings.drain_seconds)

    def stop_on_failure() -> None:
        server.should_exit = True

    service.on_failure = stop_on_failure
    followed = following(mirror, directory / DECISION) if is_bucket(settings.checkpoint) else nullcontext()
    with followed, listen(settings.host, settings.port) as listener:
        host, port = listener.getsockname()[:2]
        log.info("Listening", extra={"host": host, "port": port, "cpus": cpus, "maxBatchTokens": batch_tokens})
        server.run(sockets=[listener])
    if tracing:
        tracing.close()
    if service.failure is not None:
        raise service.failure
    log.info("Stopped")


def start_tracing(announced: model.Announced, environ: Mapping[str, str]) -> "Tracing | None":
    """None unless OpenTelemetry's own variables name a collector, and do not switch it off. Raises ConfigError."""
    named = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none"
    if not named or off:
        return None
    from winnow_server.tracing import Tracing  # a dozen megabytes that nobody else needs

    log.info("Tracing", extra={"collector": named.rpartition("@")[2]})
    try:
        return Tracing(announced)
    except ValueError as err:
        raise ConfigError(f"OpenTelemetry cannot use its variables (OTEL_…): {err}") from err


def loaded(
    directory: Path,
    announced: model.Announced,
    storage: Path | None,
    mirror: Mirror,
    settings: Settings,
    rules: Rules,
) -> model.Served:
    """The model, ready to serve. All that exists then is kept out of later garbage collections, which would stop every
    request for some 200 ms."""
    hub = HuggingFaceHub(os.environ.get("HF_TOKEN"), settings.allow_network)
    bucket = BaseBucket(settings.allow_network, os.environ, settings.base_keys)
    resolve = partial(base_model.resolve, hub=hub, bucket=bucket)
    served = model.load(
        directory, announced, settings.base_model, storage, mirror, settings.precision, rules, resolve=resolve
    )
    gc.collect()
    gc.freeze()
    return served
