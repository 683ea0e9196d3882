"""The Job that reads a Dataset's rows from their source, checks them and stores them."""

from __future__ import annotations

from dataclasses import dataclass

from winnow_operator import api
from winnow_operator.build import common
from winnow_operator.build.config_map import config_map
from winnow_operator.plan import Config, FetchLimits
from winnow_operator.resources import Object

CONTAINER = "importer"
INLINE_KEY = "rows"
SOURCE_KEYS = "SOURCE_"  # before the names of the source's keys, which may be others than the storage's
# Not HF_TOKEN, which is the base model's: its token must not go where a Dataset's author says.
HUB_TOKEN = "DATASET_HF_TOKEN"
UPLOAD_PORT = 8082
ATTEMPTS = 3  # for a network or a volume that fails for a moment, and for SIGKILL, of whatever cause (ADR 83); wrong rows are not tried again


@dataclass(frozen=True, slots=True)
class _Source:
    """What the importer is told of where the rows are, and what must be mounted or set for it."""

    arguments: tuple[str, ...]
    volume: Object | None = None
    env: tuple[Object, ...] = ()
    read_only: bool = True
    ready_once: str | None = None  # a file whose appearance makes the pod ready


def import_job(dataset: api.Dataset, service: api.ModelService, config: Config) -> tuple[Object, Object]:
    """The ConfigMap and the Job that mounts it."""
    settings = config_map(dataset, _settings(dataset))
    source = _source(dataset, settings["metadata"]["name"], config.fetch)
    base = common.base_model(service.spec.base_model)
    storage = common.storage(service, () if _is_fetched(dataset.spec.source) else config.fetch.allowed_networks)
    command = ["python", "-m", "winnow_trainer", "import"]
    command += ["--dataset", f"{common.SETTINGS}/dataset.yaml", *source.arguments]
    command += ["--storage", storage.reference, *storage.arguments]
    command += ["--base-model", base.reference, *base.arguments, "--termination-log", common.TERMINATION_LOG]
    if base.names_a_server:
        command += common.allowing(config.fetch.allowed_networks, command)
    container = common.container(
        CONTAINER,
        config.trainer_image,
        command,
        env=[*base.env, *storage.env, *source.env],
        mounts=[
            storage.mount,
            common.settings_mount(),
            *_mounts(source),
            *base.mounts,
        ],
        resources={"requests": {"cpu": "100m", "memory": "512Mi"}},
        readinessProbe=_readiness(source),
    )
    volumes = [
        storage.volume,
        common.settings_volume(settings["metadata"]["name"]),
        *([source.volume] if source.volume else []),
        *base.volumes,
    ]
    return settings, common.batch_job(
        common.metadata(dataset, dataset.metadata.name),
        common.labels(dataset),
        common.pod_spec(container, volumes, {}, grace_seconds=30),
        common.failure_policy(CONTAINER),
        backoffLimit=ATTEMPTS - 1,
    )


def _mounts(source: _Source) -> list[Object]:
    if source.volume is None:
        return []
    return [{"name": "source", "mountPath": common.SOURCE, **({"readOnly": True} if source.read_only else {})}]


def _readiness(source: _Source) -> Object | None:
    """How the operator learns that an upload has arrived: the receiver listens on the pod's loopback, so that only
    port-forward reaches it."""
    if source.ready_once is None:
        return None
    return {"exec": {"command": ["test", "-e", source.ready_once]}, "periodSeconds": 5}


def _settings(dataset: api.Dataset) -> dict[str, str]:
    spec = api.to_raw(dataset.spec)
    if not _is_fetched(dataset.spec.source) and dataset.spec.source.upload is None:
        del spec["source"]  # where the rows lie is the Job's business: it mounts them
    document = {
        "apiVersion": dataset.api_version,
        "kind": dataset.kind,
        "metadata": {"name": dataset.metadata.name, "namespace": dataset.metadata.namespace},
        "spec": spec,
    }
    data = {"dataset.yaml": common.to_yaml(document)}
    if dataset.spec.source.inline is not None:
        data[INLINE_KEY] = dataset.spec.source.inline
    return data


def _is_fetched(source: api.Source) -> bool:
    return source.http is not None or source.s3 is not None or source.hugging_face is not None


def _fetched(source: api.Source, limits: FetchLimits) -> _Source:
    arguments = ["--scratch", common.SOURCE, "--max-bytes", str(limits.max_bytes)]
    arguments += ["--timeout-seconds", str(limits.timeout_seconds)]
    arguments += common.allowing(limits.allowed_networks)
    env: tuple[Object, ...] = ()
    if source.s3:
        arguments += ["--source-keys", SOURCE_KEYS]
        env = common.aws_keys(source.s3.secret_ref.name, SOURCE_KEYS) if source.s3.secret_ref else ()
    if source.hugging_face:
        arguments += ["--hub-token-env", HUB_TOKEN]
        env = _hub_token(source.hugging_face)
    return _Source(tuple(arguments), {"name": "source", "emptyDir": {}}, env, read_only=False)


def _hub_token(hub: api.HuggingFaceSource) -> tuple[Object, ...]:
    if hub.token_secret_ref is None:
        return ()
    ref = {"name": hub.token_secret_ref.name, "key": hub.token_secret_ref.key, "optional": True}
    return ({"name": HUB_TOKEN, "valueFrom": {"secretKeyRef": ref}},)


def _uploaded(dataset: api.Dataset) -> _Source:
    folder = f"{common.STORAGE}/uploads/{dataset.metadata.name}-{dataset.metadata.uid[:8]}"
    return _Source(("--receive", folder, "--receive-port", str(UPLOAD_PORT)), ready_once=f"{folder}/rows")


def _source(dataset: api.Dataset, settings_name: str, limits: FetchLimits) -> _Source:
    source = dataset.spec.source
    if source.upload is not None:
        return _uploaded(dataset)
    if _is_fetched(source):
        return _fetched(source, limits)
    if source.inline is not None:
        items = [{"key": INLINE_KEY, "path": INLINE_KEY}]
        volume: Object = {"configMap": {"name": settings_name, "items": items}}
        path = INLINE_KEY
    elif source.config_map is not None:
        # Whole, so that of a missing key the importer can say which there are, in place of a pod that never starts.
        volume = {"configMap": {"name": source.config_map.name, "optional": True}}
        path = source.config_map.key
    elif source.persistent_volume_claim is not None:
        claim = source.persistent_volume_claim
        volume = {"persistentVolumeClaim": {"claimName": claim.claim_name, "readOnly": True}}
        path = claim.path
    elif source.image is not None:
        volume = {"image": {"reference": source.image.reference}}
        path = source.image.path
    else:
        raise ValueError("spec.source has no source, which the CRD rules out. This is a bug.")
    return _Source(("--file", common.inside(common.SOURCE, path)), {"name": "source", **volume})
