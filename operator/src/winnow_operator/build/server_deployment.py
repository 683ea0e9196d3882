"""The apps/v1 Deployment that serves one checkpoint."""

from __future__ import annotations

from winnow_operator import api
from winnow_operator.build import common, thresholds
from winnow_operator.build.rollout_memory import NOTHING, ROLLOUT, Memory
from winnow_operator.build.served import SERVED, Served
from winnow_operator.resources import GROUP, Object

CONTAINER = "server"
PORT = 8080
KEYS = "/etc/winnow-keys"
# From the end of the image pull to the loaded model: 15 minutes suffice for 16 GiB at 20 MiB/s.
START_SECONDS = 900
PROBE_SECONDS = 2  # a rollover waits for it, once a pod
_STEPS = {
    # No pod leaves before its successor is ready: a checkpoint that does not load never takes anything down.
    "Rolling": {"maxUnavailable": 0, "maxSurge": 1},
    # Not apps/v1's Recreate, which takes all pods down at once: of several, the others go on.
    "Replace": {"maxUnavailable": 1, "maxSurge": 0},
}
_TRUNCATION = {"Left": "left", "Refuse": "error"}
DRAIN_SECONDS = 5  # the server answers on while kube-proxy and clients notice that it leaves
GRACE_SECONDS = 75  # longer than that and the longest request that it may have accepted by then


def server_deployment(
    deployment: api.Deployment,
    service: api.ModelService,
    served: Served,
    memory: Memory = NOTHING,
    *,
    image: str,
    networks: tuple[str, ...] = (),
) -> Object:
    storage = common.storage(service, networks, read_only=True)
    base = common.base_model(served.base_model, storage.reference) if served.base_model else None
    keys = api_keys(deployment)
    container = common.container(
        CONTAINER,
        image,
        _command(deployment, served, storage, base, networks),
        env=[*(base.env if base else ()), *storage.env, *common.user_env(deployment.spec)],
        mounts=[
            storage.mount,
            common.settings_mount(),
            *(base.mounts if base else ()),
            *([{"name": "api-keys", "mountPath": KEYS, "readOnly": True}] if keys else ()),
        ],
        ports=[{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        resources=common.resources(deployment.spec),
        startupProbe=_probe(
            "ready", PROBE_SECONDS, failures=-(-_start_seconds(deployment.spec.rollout) // PROBE_SECONDS)
        ),
        readinessProbe=_probe("ready", PROBE_SECONDS, failures=2),
        livenessProbe=_probe("live", 10, failures=6),
    )
    volumes = [
        storage.volume,
        common.settings_volume(thresholds.name(deployment)),
        *(base.volumes if base else ()),
        *keys,
    ]
    metadata = common.metadata(deployment, deployment.metadata.name)
    metadata["annotations"] = {
        SERVED: common.note(served),
        **({ROLLOUT: common.note(memory)} if memory != NOTHING else {}),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": deployment.spec.replicas,
            "selector": {"matchLabels": common.selector(deployment)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": _STEPS[deployment.spec.rollout.strategy]},
            "progressDeadlineSeconds": deployment.spec.rollout.deadline_seconds,
            "revisionHistoryLimit": 2,
            "template": _as_it_was(memory)
            or {
                "metadata": {
                    "labels": common.labels(deployment),
                    "annotations": {f"{GROUP}/checkpoint-digest": served.digest},
                },
                "spec": common.pod_spec(container, volumes, _placement(deployment), grace_seconds=GRACE_SECONDS),
            },
        },
    }


def _command(
    deployment: api.Deployment,
    served: Served,
    storage: common.Storage,
    base: common.BaseModel | None,
    networks: tuple[str, ...],
) -> list[str]:
    checkpoint = f"{storage.reference}/{served.folder}"
    command = ["python", "-m", "winnow_server", "--checkpoint", checkpoint, "--digest", served.digest]
    if base:
        command += ["--base-model", base.reference, *base.arguments]
    command += ["--storage", common.STORAGE, *storage.arguments]
    if base and base.names_a_server:
        command += common.allowing(networks, command)
    command += ["--name", deployment.metadata.name, "--port", str(PORT)]
    command += ["--drain-seconds", str(DRAIN_SECONDS), "--termination-log", common.TERMINATION_LOG]
    command += ["--thresholds", f"{common.SETTINGS}/{thresholds.FILE}"]
    command += [part for prefix in prefixes(deployment) for part in ("--path-prefix", prefix)]
    command += _chosen(deployment.spec)
    command += common.gpu_arguments(deployment.spec)
    return command + (["--api-keys", KEYS] if api_keys(deployment) else [])


def _start_seconds(rollout: api.Rollout) -> int:
    """How long a pod may load before it is restarted. Whoever lengthens the rollout's deadline has a model that takes long, so the
    deadline counts. The default deadline includes the pull of the image, and a shorter one must end no pod that still loads:
    pods that an autoscaler adds have no deadline at all. There it is START_SECONDS."""
    longer = rollout.deadline_seconds > api.Rollout().deadline_seconds
    return rollout.deadline_seconds if longer else START_SECONDS


def _chosen(spec: api.DeploymentSpec) -> list[str]:
    """Only what is not the server's default, so that an update of the operator replaces no pods of Deployments that set nothing."""
    precision = ["--precision", "float32"] if spec.precision == "Float32" else []
    truncation = ["--truncation", _TRUNCATION[spec.truncation]] if spec.truncation in _TRUNCATION else []
    return precision + truncation + (["--examples", "hidden"] if spec.examples == "Hidden" else [])


def _as_it_was(memory: Memory) -> Object | None:
    """The template that is taken back; its ReplicaSet is still there."""
    if not memory.template or memory.taken_back is None:
        return None
    return {**memory.template, "spec": {**common.service_account(None), **memory.template.get("spec", {})}}


def api_keys(deployment: api.Deployment) -> list[Object]:
    """The volume with the API keys. A Secret that is missing keeps the server closed, not the pod from starting: the
    server says what is wrong, and takes the keys up when they come."""
    ref = deployment.spec.access.api_keys_secret_ref if deployment.spec.access else None
    if ref is None:
        return []
    return [{"name": "api-keys", "secret": {"secretName": ref.name, "optional": True, "defaultMode": 0o440}}]


def prefixes(deployment: api.Deployment) -> list[str]:
    """The paths that requests from outside begin with, beside the root. Routes hand them on as they are: taking them off is
    no part of Ingress."""
    ways = (deployment.spec.ingress, deployment.spec.http_route)
    return sorted({way.path for way in ways if way is not None and way.path != "/"})


def _placement(deployment: api.Deployment) -> Object:
    """Spread by revision: else the old pods of a rollout would decide where the new ones go."""
    spreads = [
        {
            **api.to_raw(spread),
            "labelSelector": {"matchLabels": common.selector(deployment)},
            "matchLabelKeys": ["pod-template-hash"],
        }
        for spread in deployment.spec.topology_spread_constraints or ()
    ]
    placed = {**common.placement(deployment.spec), **common.service_account(deployment.spec.service_account_name)}
    return {**placed, "topologySpreadConstraints": spreads} if spreads else placed


def _probe(what: str, period_seconds: int, *, failures: int) -> Object:
    return {
        "httpGet": {"path": f"/v2/health/{what}", "port": "http"},
        "periodSeconds": period_seconds,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }
