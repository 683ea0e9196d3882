"""The batch Job that runs a TrainingJob."""

from __future__ import annotations

from winnow_operator import api, pods
from winnow_operator.build import common, group
from winnow_operator.build.config_map import config_map
from winnow_operator.resources import Object

CONTAINER = "trainer"
ADAPTERS = ("LoRA", "QLoRA")
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
GRACE_SECONDS = 120  # longer than one save of the resume point
# And divergence. 137 is not among them: it is SIGKILL, of whatever cause, and a rule cannot ask for the
# kubelet's reason. A kill for memory is told from the pod's status, and ends the run there (ADR 83).
FINAL_EXIT_CODES = (*pods.FINAL_EXIT_CODES, 13)


def run_name(job: api.TrainingJob) -> str:
    """The folder of the run in storage. The uid keeps a job that is made anew under an old name off the old one's files."""
    return f"{job.metadata.name}-{job.metadata.uid[:8]}"


def writes_to(pod: Object, job: api.TrainingJob) -> bool:
    """Whether it trains into the folder of the run."""
    return any(run_name(job) in container.get("command", ()) for container in pod["spec"]["containers"])


def dataset_path(digest: str) -> str:
    return f"{common.STORAGE}/datasets/{digest.removeprefix('sha256:')}"


def dataset_reference(digest: str, service: api.ModelService) -> str:
    """A folder of the volume; in a bucket the digest says it."""
    return digest if service.spec.storage.s3 else dataset_path(digest)


def base_model_source(job: api.TrainingJob, service: api.ModelService) -> api.BaseModelSource:
    """What a run began with stays, whatever the ModelService names by now: the run goes on with it, and its adapters stand on it."""
    return job.status.base_model or job.spec.base_model or service.spec.base_model


def adapter_base(job: api.TrainingJob, service: api.ModelService) -> api.AdapterBase | None:
    """The model that the adapters of the job's checkpoints stand on; None: its checkpoints hold the whole model."""
    if job.spec.method not in ADAPTERS:
        return None
    came = job.status.continued_from
    if came is None:
        source = api.to_raw(base_model_source(job, service))
        return api.AdapterBase.model_validate({name: value for name, value in source.items() if name != "checkpoint"})
    return came.adapter_base or api.AdapterBase(stored=api.StoredCheckpoint(run=came.run, checkpoint=came.checkpoint))


def training_job(
    job: api.TrainingJob,
    service: api.ModelService,
    *,
    training_digest: str,
    test_digest: str | None = None,
    validation_digest: str | None = None,
    continued: api.ContinuedFrom | None = None,
    image: str,
    networks: tuple[str, ...] = (),
) -> tuple[Object, Object]:
    """The ConfigMap and the Job that mounts it."""
    storage = common.storage(service, networks)
    source = continued.adapter_base if continued else base_model_source(job, service)
    base = common.base_model(source, storage.reference) if source else common.BaseModel("")
    digests = {"trainingDataset": training_digest, "testDataset": test_digest, "validationDataset": validation_digest}
    rows = {field: dataset_reference(digest, service) for field, digest in digests.items() if digest}
    document = _manifest(job, _checkpoint(continued, base) if continued else base.reference, rows)
    settings = config_map(job, {"job.yaml": common.to_yaml(document)})
    command = ["python", "-m", "winnow_trainer", "train"]
    command += ["--job", f"{common.SETTINGS}/job.yaml", "--storage", storage.reference, *storage.arguments]
    command += base.arguments
    if job.spec.tracking or base.names_a_server:
        command += common.allowing(networks, command)
    command += ["--run", run_name(job)]
    command += group.arguments(job)
    command += common.gpu_arguments(job.spec)
    command += ["--progress-port", str(common.PROGRESS_PORT), "--termination-log", common.TERMINATION_LOG]
    custom = (job.spec.metrics.custom if job.spec.metrics else None) or ()
    shared_volumes, shared_mounts = group.shared_memory(job)
    container = common.container(
        CONTAINER,
        image,
        command,
        env=[*base.env, *storage.env, *_tracking_keys(job.spec.tracking), *common.user_env(job.spec)],
        mounts=[storage.mount, common.settings_mount(), *_metric_mounts(custom), *base.mounts, *shared_mounts],
        ports=[{"name": "progress", "containerPort": common.PROGRESS_PORT}],
        resources=common.resources(job.spec),
    )
    volumes = [
        storage.volume,
        common.settings_volume(settings["metadata"]["name"]),
        *([common.metrics_volume(custom)] if custom else []),
        *base.volumes,
        *shared_volumes,
    ]
    metadata = common.metadata(job, job.metadata.name)
    if job.spec.queue_name:
        metadata["labels"][QUEUE_LABEL] = job.spec.queue_name
    followed = (pods.FOLLOWED_EXIT_CODE,) if job.spec.nodes > 1 else ()
    return settings, common.batch_job(
        metadata,
        common.labels(job),
        common.pod_spec(container, volumes, common.placement(job.spec), grace_seconds=GRACE_SECONDS),
        common.failure_policy(CONTAINER, final=FINAL_EXIT_CODES, ignored=(*followed, pods.STOPPED_EXIT_CODE)),
        **group.job_fields(job),
        backoffLimit=job.spec.max_restarts,
    )


def _metric_mounts(custom: tuple[api.CustomMetric, ...]) -> list[Object]:
    return [{"name": "metrics", "mountPath": common.METRICS, "readOnly": True}] if custom else []


def _metrics(metrics: api.Metrics) -> Object:
    """With the files that are mounted beside the ConfigMaps that they come from."""
    raw = api.to_raw(metrics)
    for metric in raw.get("custom", ()):
        metric["file"] = f"{common.METRICS}/{metric['name']}.py"
    return raw


MLFLOW_KEYS = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
WANDB_KEYS = ("WANDB_API_KEY",)


def _tracking(tracking: api.Tracking) -> Object:
    """Without the Secrets' names: the pod gets their keys."""
    told: Object = api.to_raw(tracking)
    for server in told.values():
        server.pop("secretRef", None)
    return told


def _tracking_keys(tracking: api.Tracking | None) -> list[Object]:
    """Optional, so that a missing Secret never keeps a training from starting."""
    mlflow, wandb = (tracking.mlflow, tracking.wandb) if tracking else (None, None)
    wanted: list[tuple[str, tuple[str, ...]]] = (
        [(mlflow.secret_ref.name, MLFLOW_KEYS)] if mlflow and mlflow.secret_ref else []
    )
    wanted += [(wandb.secret_ref.name, WANDB_KEYS)] if wandb else []
    return [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": name, "optional": True}}}
        for secret, names in wanted
        for name in names
    ]


def _checkpoint(continued: api.ContinuedFrom, base: common.BaseModel) -> Object:
    return {
        "checkpoint": {
            "trainingJob": continued.training_job,
            "name": continued.checkpoint,
            "run": continued.run,
            "digest": continued.digest,
            **({"baseModel": base.reference} if base.reference else {}),
        }
    }


def _manifest(job: api.TrainingJob, base: str | Object, rows: dict[str, str]) -> Object:
    """What the trainer reads: the same manifest as on a laptop, with paths for names, and nothing of the cluster's."""
    spec = job.spec
    wanted: Object = {
        "modelService": spec.model_service,
        "taskType": spec.task_type,
        "outputModelName": spec.output_model_name,
        "baseModel": base,
        "trainingDataset": rows["trainingDataset"],
        "testDataset": rows.get("testDataset"),
        "testSplit": api.to_raw(spec.test_split) if spec.test_split else None,
        "validationDataset": rows.get("validationDataset"),
        "validationSplit": api.to_raw(spec.validation_split) if spec.validation_split else None,
        "onOverlap": "Drop" if spec.on_overlap == "Drop" else None,
        "rebalance": api.to_raw(spec.rebalance) if spec.rebalance else None,
        "method": spec.method,
        "parameters": api.to_raw(spec.parameters),
        "promptTemplate": spec.prompt_template,
        "metrics": _metrics(spec.metrics) if spec.metrics else None,
        "earlyStopping": api.to_raw(spec.early_stopping) if spec.early_stopping else None,
        "thresholds": api.to_raw(spec.thresholds) if spec.thresholds else None,
        "tracking": _tracking(spec.tracking) if spec.tracking else None,
        "nodes": spec.nodes if spec.nodes > 1 else None,
        "processesPerNode": spec.processes_per_node if spec.processes_per_node > 1 else None,
    }
    return {
        "apiVersion": job.api_version,
        "kind": job.kind,
        "metadata": {
            "name": job.metadata.name,
            "namespace": job.metadata.namespace,
            "uid": job.metadata.uid,
        },
        "spec": {name: value for name, value in wanted.items() if value is not None},
    }
