"""What all children have in common: names, labels, owner, the restricted pod, and the base model's place in it."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from winnow_operator import api
from winnow_operator.pods import FINAL_EXIT_CODES, STOPPED_EXIT_CODE
from winnow_operator.resources import API_VERSION, GROUP, MANAGED_BY, PART_OF, Object

T = TypeVar("T")

STORAGE = "/storage"
SETTINGS = "/etc/winnow"
BASE = "/base"
SOURCE = "/source"
BASE_KEYS = "BASE_"  # stands before the names of the base model's keys, which may differ from the storage's
AWS_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
TERMINATION_LOG = "/dev/termination-log"
USER = 65532  # "nonroot" of distroless images: not root, and no user of any node
PROGRESS_PORT = 8081

Owner = api.ModelService | api.Dataset | api.TrainingJob | api.Deployment


def labels(owner: Owner) -> dict[str, str]:
    """Our own fixed set: labels of the owner are never copied, because GitOps tools prune what carries theirs."""
    return {MANAGED_BY: "winnow", PART_OF: "winnow", **selector(owner)}


def selector(owner: Owner) -> dict[str, str]:
    return {f"{GROUP}/kind": owner.kind, f"{GROUP}/name": owner.metadata.name}


def metadata(owner: Owner, name: str) -> Object:
    return {
        "name": name,
        "namespace": owner.metadata.namespace,
        "labels": labels(owner),
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": owner.kind,
                "name": owner.metadata.name,
                "uid": owner.metadata.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }


def digest(obj: Object) -> str:
    """Eight hex digits of everything that the object says."""
    canonical = json.dumps(obj, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


def named_by_content(obj: Object) -> Object:
    """The object with its digest appended to its name: other content is another object, so neither is ever patched."""
    name = f"{obj['metadata']['name']}-{digest(obj)}"
    return {**obj, "metadata": {**obj["metadata"], "name": name}}


def batch_job(
    metadata: Object, pod_labels: dict[str, str], pod: Object, failure_policy: Object, **fields: Any
) -> Object:
    """`fields`: others of its spec, by Kubernetes' names."""
    spec = {
        **fields,
        # A new pod only when the old one is gone: two would write to the same place in storage.
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": failure_policy,
        "template": {"metadata": {"labels": pod_labels}, "spec": {"restartPolicy": "Never", **pod}},
    }
    return named_by_content({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec})


def failure_policy(
    container: str,
    *,
    final: tuple[int, ...] = FINAL_EXIT_CODES,
    ignored: tuple[int, ...] = (STOPPED_EXIT_CODE,),
) -> Object:
    """What the end of a Job's pod means: after a `final` exit code no other pod is made, an `ignored` one uses up no attempt.

    Nor does leaving a node: a pod may be stopped as often as nodes are drained and people delete it.
    """

    def on_exit(action: str, codes: tuple[int, ...]) -> Object:
        return {"action": action, "onExitCodes": {"containerName": container, "operator": "In", "values": list(codes)}}

    disrupted = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    return {"rules": [disrupted, on_exit("FailJob", final), on_exit("Ignore", ignored)]}


def to_yaml(document: Object) -> str:
    # libyaml's dumper: the pure one takes longer than all else that a new job costs.
    return str(yaml.dump(document, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True, width=1_000))


def inside(mount: str, path: str) -> str:
    """A path as the user gives it, from the root of a volume or image, as the container sees it."""
    relative = path.strip("/")
    return f"{mount}/{relative}" if relative else mount


@dataclass(frozen=True, slots=True)
class BaseModel:
    """How a container gets the base model: the reference it is told, and what must be mounted or set for it."""

    reference: str
    volumes: tuple[Object, ...] = ()
    mounts: tuple[Object, ...] = ()
    env: tuple[Object, ...] = ()
    arguments: tuple[str, ...] = ()
    names_a_server: bool = False  # whose address is to be public, or in an allowed network


def base_model(source: api.BaseModelSource, storage_reference: str = STORAGE) -> BaseModel:
    if isinstance(source, api.AdapterBase) and source.stored:
        return BaseModel(stored_checkpoint(storage_reference, source.stored.run, source.stored.checkpoint))
    mounts = ({"name": "base", "mountPath": BASE, "readOnly": True},)
    if source.image:
        volume: Object = {"name": "base", "image": {"reference": source.image.reference}}
        return BaseModel(inside(BASE, source.image.path), (volume,), mounts)
    if source.persistent_volume_claim:
        claim = source.persistent_volume_claim
        volume = {"name": "base", "persistentVolumeClaim": {"claimName": claim.claim_name, "readOnly": True}}
        return BaseModel(inside(BASE, claim.path), (volume,), mounts)
    if source.s3:
        return BaseModel(
            source.s3.uri.rstrip("/"),
            env=bucket_env(source.s3, source.s3.secret_ref, BASE_KEYS),
            arguments=("--base-keys", BASE_KEYS),
            names_a_server=True,
        )
    if source.hugging_face is None:
        raise ValueError("baseModel has no source, which the CRD rules out. This is a bug.")
    hub = source.hugging_face
    env: tuple[Object, ...] = ()
    if hub.token_secret_ref:
        ref = {"name": hub.token_secret_ref.name, "key": hub.token_secret_ref.key}
        env = ({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": ref}},)
    if hub.endpoint:
        env += ({"name": "HF_ENDPOINT", "value": literal(hub.endpoint)},)
    return BaseModel(f"hf://{hub.repo}@{hub.revision}", env=env, names_a_server=hub.endpoint is not None)


def base_in_words(source: api.BaseModelSource, message: str) -> str:
    """The programs know a mounted base model as a folder; the user knows it as what is mounted there."""
    if source.image:
        root = f"image {source.image.reference}, path /"
    elif source.persistent_volume_claim:
        root = f"PersistentVolumeClaim {source.persistent_volume_claim.claim_name}, path /"
    else:
        return message
    return re.sub(rf"(?<!\S){BASE}(?![\w-])/?", lambda _: root, message)


def stored_checkpoint(storage_reference: str, run: str, checkpoint: str) -> str:
    return f"{storage_reference}/runs/{run}/checkpoints/{checkpoint}"


def storage_claim(service: api.ModelService) -> str | None:
    """None where storage is a bucket."""
    claim = service.spec.storage.persistent_volume_claim
    return (claim.claim_name or f"{service.metadata.name}-storage") if claim else None


@dataclass(frozen=True, slots=True)
class Storage:
    """How a container gets at the ModelService's storage: where it is told it lies, and what must be mounted or set for it."""

    reference: str
    volume: Object
    mount: Object
    arguments: tuple[str, ...] = ()
    env: tuple[Object, ...] = ()


def storage(service: api.ModelService, networks: tuple[str, ...], *, read_only: bool = False) -> Storage:
    """A bucket's files come and go by way of a folder of the pod's own; `networks` may be connected to for them."""
    s3 = service.spec.storage.s3
    mount: Object = {"name": "storage", "mountPath": STORAGE}
    if s3 is None:
        only: Object = {"readOnly": True} if read_only else {}
        claim = {"claimName": storage_claim(service), **only}
        return Storage(STORAGE, {"name": "storage", "persistentVolumeClaim": claim}, {**mount, **only})
    arguments = ("--mirror", STORAGE, *allowing(networks))
    env = bucket_env(s3, s3.secret_ref)
    return Storage(s3.uri.rstrip("/"), {"name": "storage", "emptyDir": {}}, mount, arguments, env)


def allowing(networks: tuple[str, ...], command: list[str] | None = None) -> tuple[str, ...]:
    """--allow-network for each; nothing where `command` has the option already."""
    option = "--allow-network"
    return () if option in (command or ()) else tuple(part for network in networks for part in (option, network))


def bucket_env(s3: api.S3Prefix, secret: api.SecretRef | None, prefix: str = "") -> tuple[Object, ...]:
    """Keys, endpoint and region, under the names that every S3 tool reads."""
    where = {"AWS_ENDPOINT_URL_S3": s3.endpoint, "AWS_REGION": s3.region}
    return (
        *(aws_keys(secret.name, prefix) if secret else ()),
        *({"name": prefix + name, "value": literal(value)} for name, value in where.items() if value is not None),
    )


def aws_keys(secret: str, prefix: str) -> tuple[Object, ...]:
    """Optional, so that a missing Secret is said by the program in words instead of a pod that never starts."""
    return tuple(
        {"name": prefix + name, "valueFrom": {"secretKeyRef": {"name": secret, "key": name, "optional": True}}}
        for name in AWS_KEYS
    )


def settings_volume(config_map: str) -> Object:
    return {"name": "settings", "configMap": {"name": config_map}}


def settings_mount() -> Object:
    return {"name": "settings", "mountPath": SETTINGS, "readOnly": True}


METRICS = "/etc/winnow-metrics"


def metrics_volume(metrics: tuple[api.CustomMetric, ...]) -> Object:
    """One folder with a file for each function. Optional, so that a missing key is said by the trainer in words instead of a
    pod that never starts."""
    sources = [
        {
            "configMap": {
                "name": metric.config_map.name,
                "items": [{"key": metric.config_map.key, "path": f"{metric.name}.py"}],
                "optional": True,
            }
        }
        for metric in metrics
    ]
    return {"name": "metrics", "projected": {"sources": sources}}


POD_NUMBER = "$(JOB_COMPLETION_INDEX)"  # set by the Job controller


def literal(text: str) -> str:
    """What a container gets as `text`: the kubelet puts the container's variables, keys among them, in the place of $(NAME)."""
    return text.replace("$", "$$")


def container(name: str, image: str, command: list[str], **fields: Any) -> Object:
    """A container of the restricted pod security standard, with a read-only root."""
    mounts = [*fields.pop("mounts"), {"name": "tmp", "mountPath": "/tmp"}]
    # Libraries look for a home and caches: all of them may only write to /tmp.
    env = [{"name": "HOME", "value": "/tmp"}, {"name": "HF_HOME", "value": "/tmp/huggingface"}, *fields.pop("env", [])]
    return {
        "name": name,
        "image": image,
        "command": [part if part == POD_NUMBER else literal(part) for part in command],
        "env": env,
        **{key: value for key, value in fields.items() if value},
        "volumeMounts": mounts,
        "terminationMessagePath": TERMINATION_LOG,
        # A program that dies without a message, in Python itself for example, leaves its last lines instead.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def pod_spec(only: Object, volumes: list[Object], placement: Object, *, grace_seconds: int) -> Object:
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",  # a volume full of checkpoints is not walked at each start
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **placement,
        "containers": [only],
        "volumes": [*volumes, {"name": "tmp", "emptyDir": {}}],
    }


def placement(spec: api.TrainingJobSpec | api.DeploymentSpec) -> Object:
    """Where the pod may run, as the user says."""
    fields: Object = {
        "nodeSelector": dict(spec.node_selector or {}),
        "tolerations": [
            api.to_raw(toleration) | ({} if toleration.operator else {"operator": "Equal"})
            for toleration in spec.tolerations or ()
        ],
        "priorityClassName": spec.priority_class_name,
        "runtimeClassName": spec.runtime_class_name,
        "affinity": api.to_raw(spec.affinity) if spec.affinity else None,
        "serviceAccountName": spec.service_account_name,
    }
    return {name: value for name, value in fields.items() if value}


def service_account(name: str | None) -> Object:
    """The account's name under both fields of a pod template, also where it is empty: the API server fills an empty one from
    its deprecated twin, so a name that is only left out comes back. Not `default` for none: a template has no name by itself,
    and all pods would be replaced."""
    return {"serviceAccountName": name or "", "serviceAccount": name or ""}


def resources(spec: api.TrainingJobSpec | api.DeploymentSpec) -> Object:
    return api.to_raw(spec.resources) if spec.resources else {}


def gpu_arguments(spec: api.TrainingJobSpec | api.DeploymentSpec) -> list[str]:
    """For a container that was given a GPU: it ends where it cannot see that, instead of holding it while its CPUs work.
    Names count as in the CRD's rules for QLoRA."""
    limits = (spec.resources.limits if spec.resources else None) or {}
    given = any(("gpu" in name or "nvidia.com/" in name) and str(count) != "0" for name, count in limits.items())
    return ["--require-gpu"] if given else []


def user_env(spec: api.TrainingJobSpec | api.DeploymentSpec) -> list[Object]:
    return [api.to_raw(variable) for variable in spec.env or ()]


def note(value: Any) -> str:
    """A dataclass as an annotation holds it, for noted()."""
    return json.dumps(asdict(value), default=api.to_raw, sort_keys=True, separators=(",", ":"))


def noted(obj: Object, annotation: str, form: TypeAdapter[T], otherwise: T) -> T:
    """What note() wrote into the annotation; `otherwise` where it is not there or was edited into something else."""
    text = (obj["metadata"].get("annotations") or {}).get(annotation)
    try:
        return form.validate_json(text) if text else otherwise
    except ValidationError:
        return otherwise
