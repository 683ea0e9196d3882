"""Builders: complete objects, checked against the golden files that a review reads, Kubernetes' own schemas, and the programs that are started."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from operator_scene import DIGEST, NOW, OTHER_DIGEST, dataset, deployment, model_service, training_job

from winnow_operator import api
from winnow_operator.build import autoscaler, exposure, waker
from winnow_operator.build.collect_job import Left, collect_job
from winnow_operator.build.common import inside, note
from winnow_operator.build.compare_job import Measurement, compare_job
from winnow_operator.build.config_map import config_map
from winnow_operator.build.group import meeting_place
from winnow_operator.build.import_job import import_job
from winnow_operator.build.pvc import claim
from winnow_operator.build.rollout_memory import NOTHING, ROLLOUT, Memory
from winnow_operator.build.served import Served
from winnow_operator.build.server_deployment import server_deployment
from winnow_operator.build.service import service
from winnow_operator.build.training_job import training_job as training_job_of
from winnow_operator.plan import Config, FetchLimits
from winnow_operator.pods import CONTAINERS
from winnow_operator.resources import Object

GOLDEN = Path(__file__).parent / "golden"
KUBERNETES = "1.36"
TRAINER, SERVER = "docker.io/winnow/trainer:dev", "docker.io/winnow/server:dev"
CONFIG = Config(TRAINER, SERVER)
HUB = {
    "huggingFace": {
        "repo": "meta-llama/Llama-3.1-8B-Instruct",
        "revision": "main",
        "tokenSecretRef": {"name": "hf", "key": "token"},
    }
}
GPU: dict[str, Any] = {
    "resources": {"limits": {"nvidia.com/gpu": 1}},
    "nodeSelector": {"accelerator": "h100"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "priorityClassName": "batch",
    "runtimeClassName": "nvidia",
    "env": [{"name": "NCCL_DEBUG", "value": "WARN"}],
}
LEFT = (Left("mails", DIGEST, rows=True, problems=True), Left("others", OTHER_DIGEST, problems=True))
MANY = training_job(nodes=2, processesPerNode=4, **GPU | {"resources": {"limits": {"nvidia.com/gpu": 4}}})
BUCKET: dict[str, Any] = {
    "s3": {"uri": "s3://winnow/mail", "endpoint": "https://s3.ml.example", "region": "eu", "secretRef": {"name": "s3"}}
}
MODELS: dict[str, Any] = {
    "s3": {"uri": "s3://models/llama", "endpoint": "https://s3.example", "secretRef": {"name": "models"}}
}
MIRROR: dict[str, Any] = {"huggingFace": {**HUB["huggingFace"], "endpoint": "https://hub.corp.example/api/hf"}}
BOUNDED = replace(CONFIG, fetch=FetchLimits(allowed_networks=("10.20.0.0/16",)))
NETWORKS = BOUNDED.fetch.allowed_networks
SERVED = Served(
    "v1",
    "epoch-2",
    DIGEST,
    "v1-0a1b2c3d",
    api.AdapterBase.model_validate({"image": {"reference": "docker.io/winnow/base-minilm:dev", "path": "/model"}}),
)


PLACED: dict[str, Any] = {
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "gpu", "operator": "In", "values": ["h100", "h200"]}]}
                ]
            }
        },
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {
                    "weight": 10,
                    "podAffinityTerm": {
                        "labelSelector": {"matchLabels": {"app": "noisy"}},
                        "topologyKey": "kubernetes.io/hostname",
                    },
                }
            ]
        },
    },
    "tolerations": [{"key": "gpu", "value": "yes"}],
    "serviceAccountName": "spam",
    "env": [
        {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector.otel.svc:4318"},
        {"name": "OTEL_EXPORTER_OTLP_HEADERS", "valueFrom": {"secretKeyRef": {"name": "otel", "key": "headers"}}},
        {"name": "TEAM", "valueFrom": {"configMapKeyRef": {"name": "team", "key": "name", "optional": True}}},
    ],
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway"}
    ],
}
CHOSEN: dict[str, Any] = {"precision": "Float32", "truncation": "Refuse", "examples": "Hidden"}
AROUND: dict[str, Any] = {
    "autoscaling": {"minReplicas": 2, "maxReplicas": 6, "targetQueuedTokens": 1000},
    "disruptionBudget": {"minAvailable": "50%"},
    "networkPolicy": {
        "from": [
            {"podSelector": {}},
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}},
            {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
        ]
    },
    "monitoring": {"serviceMonitor": {"labels": {"release": "prometheus"}, "interval": "15s"}},
}
OUTSIDE: dict[str, Any] = {
    "ingress": {
        "className": "nginx",
        "host": "ml.example",
        "path": "/spam",
        "tlsSecretName": "ml-tls",
        "annotations": {"cert-manager.io/cluster-issuer": "ours"},
    },
    "httpRoute": {
        "parentRefs": [{"name": "public", "namespace": "gateways", "sectionName": "https"}],
        "hostnames": ["spam.example"],
    },
}


WOKEN: dict[str, Any] = {
    "autoscaling": {"minReplicas": 0, "maxReplicas": 6, "wakeOnRequest": True},
    "access": {"apiKeysSecretRef": {"name": "keys"}},
}


def waking(served: api.Deployment) -> list[Object]:
    """What a Deployment has while it sleeps: the Service leads to the waker."""
    assert served.spec.network_policy
    return [
        service(served, asleep=True),
        waker.pods_service(served),
        waker.waker(served, image=SERVER),
        exposure.network_policy(served, served.spec.network_policy),
    ]


def around(served: api.Deployment, *, guests: bool = False) -> list[Object]:
    """What lies around the pods: the kinds of Kubernetes itself, or those of other projects."""
    spec = served.spec
    assert spec.autoscaling
    assert spec.disruption_budget
    assert spec.network_policy
    assert spec.monitoring
    assert spec.monitoring.service_monitor
    assert spec.ingress
    assert spec.http_route
    if guests:
        window = {"start": "0 8 * * 1-5", "end": "0 18 * * 1-5", "minReplicas": 3, "timeZone": "Europe/Berlin"}
        scaled = deployment(autoscaling={"minReplicas": 0, "maxReplicas": 6, "schedule": [window]})
        assert scaled.spec.autoscaling
        return [
            autoscaler.scaled_object(scaled, scaled.spec.autoscaling),
            exposure.service_monitor(served, spec.monitoring.service_monitor),
            exposure.http_route(served, spec.http_route),
        ]
    return [
        exposure.disruption_budget(served, spec.disruption_budget),
        exposure.network_policy(served, spec.network_policy),
        autoscaler.autoscaler(served, spec.autoscaling),
        exposure.ingress(served, spec.ingress),
    ]


def both(pair: tuple[Object, Object]) -> list[Object]:
    return list(pair)


def trained(
    job: api.TrainingJob, base: api.ModelService, test: str | None = None, networks: tuple[str, ...] = ()
) -> list[Object]:
    return both(training_job_of(job, base, training_digest=DIGEST, test_digest=test, image=TRAINER, networks=networks))


def rows(source: Object, **spec: Any) -> list[Object]:
    return both(import_job(dataset(source=source, **spec), model_service(), CONFIG))


COMPARED = Measurement(
    SERVED,
    (("f1_macro", None), ("recall", "spam")),
    Served("v0", "epoch-3", OTHER_DIGEST, "v0-0a1b2c3d", None),
    "f1",
)
CUSTOM: dict[str, Any] = {
    "metrics": {
        "primary": "cost",
        "custom": [
            {"name": "cost", "configMap": {"name": "my-metrics", "key": "cost.py"}, "direction": "Minimize"},
            {"name": "length", "configMap": {"name": "my-metrics", "key": "length.py"}},
        ],
    }
}
TRACKING = {
    "mlflow": {
        "trackingUri": "http://mlflow.ml.svc:5000",
        "experiment": "Spam",
        "secretRef": {"name": "mlflow"},
    },
    "wandb": {"project": "spam", "entity": "mail-team", "secretRef": {"name": "wandb"}},
}


def served_on(base: Object) -> Object:
    """An adapter's server."""
    served = replace(SERVED, base_model=api.AdapterBase.model_validate(base))
    return server_deployment(deployment(), model_service(), served, image=SERVER, networks=NETWORKS)


CASES: dict[str, Callable[[], list[Object]]] = {
    "claim": lambda: [made for made in [claim(model_service())] if made],
    "claim-of-a-class": lambda: [
        made
        for made in [
            claim(
                model_service(
                    storage={
                        "persistentVolumeClaim": {
                            "size": "1Ti",
                            "storageClassName": "fast",
                            "accessModes": ["ReadWriteMany"],
                        }
                    }
                )
            )
        ]
        if made
    ],
    "import-inline": lambda: rows({"inline": '{"prompt": "Win", "completion": 1}\n'}),
    "import-config-map": lambda: rows({"configMap": {"name": "mail", "key": "rows.csv"}}, labels=["ham", "spam"]),
    "import-claim": lambda: rows({"persistentVolumeClaim": {"claimName": "data", "path": "/mail/rows.jsonl"}}),
    "import-http": lambda: rows({"http": {"url": "https://data.example/rows.csv", "sha256": "0" * 64}}),
    "import-s3": lambda: rows(
        {"s3": {"uri": "s3://mail/2026/*.jsonl", "endpoint": "https://s3.ml.example", "secretRef": {"name": "bucket"}}}
    ),
    "import-hub": lambda: rows({"huggingFace": {"repo": "stanfordnlp/imdb", "split": "train"}}),
    "import-hub-gated": lambda: both(
        import_job(
            dataset(source={"huggingFace": {"repo": "acme/mail", "config": "en", "tokenSecretRef": {"name": "hub"}}}),
            model_service(baseModel=HUB),
            CONFIG,
        )
    ),
    "import-upload": lambda: rows(
        {"upload": {"sizeBytes": 52_428_800, "sha256": "0" * 64, "fileName": "mail.jsonl"}}, labels=["ham", "spam"]
    ),
    "import-image": lambda: rows(
        {"image": {"reference": "docker.io/winnow/email-spam-rows:dev", "path": "/rows/train.jsonl"}}
    ),
    "collect": lambda: [collect_job(model_service(), LEFT, NOW, TRAINER)],
    "import-into-bucket": lambda: both(
        import_job(dataset(source={"s3": {"uri": "s3://rows/mail/"}}), model_service(storage=BUCKET), BOUNDED)
    ),
    "training-in-bucket": lambda: both(
        training_job_of(
            training_job(testDataset="test"),
            model_service(storage=BUCKET),
            training_digest=DIGEST,
            test_digest=OTHER_DIGEST,
            image=TRAINER,
            networks=NETWORKS,
        )
    ),
    "import-with-base-in-bucket": lambda: both(import_job(dataset(), model_service(baseModel=MODELS), BOUNDED)),
    "training-with-base-in-bucket": lambda: trained(
        training_job(), model_service(storage=BUCKET, baseModel=MODELS), networks=NETWORKS
    ),
    "import-with-base-of-a-mirror": lambda: both(
        import_job(
            dataset(
                source={
                    "huggingFace": {
                        "repo": "acme/mail",
                        "tokenSecretRef": {"name": "hub"},
                        "endpoint": "https://other.example",
                    }
                }
            ),
            model_service(baseModel=MIRROR),
            BOUNDED,
        )
    ),
    "training-with-base-of-a-mirror": lambda: trained(
        training_job(baseModel=MIRROR), model_service(), networks=NETWORKS
    ),
    "serving-with-base-of-a-mirror": lambda: [served_on(MIRROR)],
    "serving-with-base-in-bucket": lambda: [served_on(MODELS)],
    "serving-from-bucket": lambda: [
        server_deployment(deployment(), model_service(storage=BUCKET), SERVED, image=SERVER, networks=NETWORKS)
    ],
    "collect-bucket": lambda: [collect_job(model_service(storage=BUCKET), LEFT, NOW, TRAINER, NETWORKS)],
    "compare": lambda: [compare_job(deployment(), model_service(), COMPARED, CONFIG)],
    "compare-in-bucket": lambda: [
        compare_job(deployment(), model_service(storage=BUCKET), Measurement(SERVED, (("f1_macro", None),)), BOUNDED)
    ],
    "training": lambda: trained(training_job(testDataset="test", maxRestarts=5), model_service(), OTHER_DIGEST),
    "training-hub-gpu-queue": lambda: trained(
        training_job(method="Full", queueName="team-a", metrics={"primary": "accuracy"}, **GPU),
        model_service(baseModel=HUB),
    ),
    "training-custom-metrics": lambda: trained(training_job(**CUSTOM), model_service()),
    "training-tracked": lambda: trained(training_job(tracking=TRACKING), model_service(), networks=("10.0.0.0/8",)),
    "training-two-nodes-of-four-gpus": lambda: [meeting_place(MANY) or {}, *trained(MANY, model_service())],
    "training-own-base-model": lambda: trained(
        training_job(baseModel={"persistentVolumeClaim": {"claimName": "models", "path": "/llama"}}), model_service()
    ),
    "serving": lambda: [
        service(deployment()),
        server_deployment(deployment(replicas=2), model_service(), SERVED, image=SERVER),
    ],
    "serving-whole-model-gpu": lambda: [
        server_deployment(
            deployment(**GPU, rollout={"deadlineSeconds": 3_600}),
            model_service(),
            Served("v1", "epoch-1", DIGEST, "v1-0a1b2c3d", None),
            image=SERVER,
        )
    ],
    "serving-placed": lambda: [
        server_deployment(deployment(**PLACED, **OUTSIDE, **CHOSEN), model_service(), SERVED, image=SERVER),
    ],
    "training-placed": lambda: trained(
        training_job(**{name: value for name, value in PLACED.items() if not name.startswith("topology")}),
        model_service(),
    ),
    "around": lambda: around(deployment(**AROUND, **OUTSIDE)),
    "around-guests": lambda: around(deployment(**AROUND, **OUTSIDE), guests=True),
    "waking": lambda: waking(deployment(**AROUND | OUTSIDE | WOKEN)),
    "waking-guests": lambda: [
        autoscaler.scaled_object(woken := deployment(**WOKEN), woken.spec.autoscaling or pytest.fail("none"))
    ],
}


class _Readable(yaml.SafeDumper):
    """Settings files as blocks, so that a review can read them."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Readable.add_representer(str, _text)


@pytest.mark.parametrize("name", CASES)
def test_a_builder_writes_what_was_reviewed(name: str) -> None:
    """WINNOW_WRITE_GOLDEN=1 writes the files anew; the difference is for the reviewer."""
    text = yaml.dump_all(CASES[name](), Dumper=_Readable, sort_keys=False, width=120)
    golden = GOLDEN / f"{name}.yaml"
    if os.environ.get("WINNOW_WRITE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize(
    "name", [name for name in CASES if name.startswith(("collect", "compare", "import", "training"))]
)
def test_a_pod_that_is_stopped_uses_up_none_of_its_jobs_attempts(name: str) -> None:
    (job,) = (obj for obj in CASES[name]() if obj["kind"] == "Job")
    disrupted, final, stopped = job["spec"]["podFailurePolicy"]["rules"]
    assert disrupted["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert (disrupted["action"], final["action"], stopped["action"]) == ("Ignore", "FailJob", "Ignore")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert {final["onExitCodes"]["containerName"], stopped["onExitCodes"]["containerName"]} == {container["name"]}
    assert 143 in stopped["onExitCodes"]["values"]
    assert {10, 11, 12} <= set(final["onExitCodes"]["values"])


@pytest.mark.parametrize("name", [name for name in CASES if not name.endswith("-guests")])
def test_what_a_builder_writes_is_valid_kubernetes(name: str) -> None:
    for made in CASES[name]():
        kubernetes_validate.validate(made, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("claim")])
def test_every_pod_meets_the_restricted_security_standard(name: str) -> None:
    for made in CASES[name]():
        if made["kind"] not in ("Job", "Deployment"):
            continue
        pod = made["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        assert container["name"] in CONTAINERS, "its end would not be seen"
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        allowed = {"configMap", "emptyDir", "image", "persistentVolumeClaim", "projected", "secret"}
        assert all(set(volume) - {"name"} <= allowed for volume in pod["volumes"])


def test_no_claim_is_made_for_a_bucket() -> None:
    assert claim(model_service(storage=BUCKET)) is None


def test_a_claim_that_the_user_brings_is_not_made() -> None:
    assert claim(model_service(storage={"persistentVolumeClaim": {"claimName": "mine"}})) is None


def test_other_content_has_another_name_and_the_same_content_the_same() -> None:
    def names(job: api.TrainingJob) -> list[str]:
        return [made["metadata"]["name"] for made in trained(job, model_service())]

    assert names(training_job()) == names(training_job())
    other = names(training_job(parameters={"seed": 1}))
    assert other[0] != names(training_job())[0]
    assert other[1] != names(training_job())[1]


def test_the_names_of_the_longest_name_fit_in_a_label() -> None:
    name = "n" * 52
    made = [
        *trained(training_job(name), model_service()),
        *both(import_job(dataset(name), model_service(), CONFIG)),
    ]
    volume = claim(model_service(name))
    assert volume is not None
    assert max(len(obj["metadata"]["name"]) for obj in [*made, volume]) <= 63


def test_labels_and_annotations_of_the_owner_are_not_copied() -> None:
    """Argo CD prunes what carries its tracking label."""
    job = training_job()
    tracked = job.model_copy(
        update={"metadata": job.metadata.model_copy(update={"labels": {"app.kubernetes.io/instance": "argo"}})}
    )
    assert trained(tracked, model_service()) == trained(job, model_service())


def test_suspending_or_new_limits_of_time_do_not_make_another_run() -> None:
    plain = trained(training_job(), model_service())
    assert (
        trained(training_job(suspend=True, activeDeadlineSeconds=60, ttlSecondsAfterFinished=5), model_service())
        == plain
    )


def test_a_deleted_config_map_of_rows_cannot_be_mistaken_for_another() -> None:
    """Rows and settings stand in one immutable ConfigMap: other rows, another ConfigMap, another Job."""
    first, second = rows({"inline": "a"}), rows({"inline": "b"})
    assert first[0]["metadata"]["name"] != second[0]["metadata"]["name"]
    assert first[1]["metadata"]["name"] != second[1]["metadata"]["name"]
    assert config_map(dataset(), {"a": "b"})["immutable"] is True


@pytest.mark.parametrize(
    ("path", "place"),
    [
        pytest.param("/", "/base", id="the root itself"),
        pytest.param("model", "/base/model", id="relative to the root"),
        pytest.param("/model/", "/base/model", id="a slash too many"),
    ],
)
def test_a_path_is_one_below_the_mount(path: str, place: str) -> None:
    assert inside("/base", path) == place


def test_no_text_of_the_users_stands_for_a_variable_of_the_pod() -> None:
    """The kubelet would put the bucket's key in its place, and the import would tell it as a path that is not there."""
    key, kept = "$(AWS_SECRET_ACCESS_KEY)", "$$(AWS_SECRET_ACCESS_KEY)"
    bucket = {"uri": "s3://winnow/mail", "endpoint": f"https://s3.example/{key}", "secretRef": {"name": "keys"}}
    base = {"persistentVolumeClaim": {"claimName": "models", "path": f"a/{key}"}}
    rows_there = dataset(source={"persistentVolumeClaim": {"claimName": "mail", "path": f"{key}/$5.csv"}})
    _, job = import_job(rows_there, model_service(baseModel=base, storage={"s3": bucket}), CONFIG)
    (only,) = job["spec"]["template"]["spec"]["containers"]
    assert f"/source/{kept}/$$5.csv" in only["command"]
    assert f"/base/a/{kept}" in only["command"]
    assert {"name": "AWS_ENDPOINT_URL_S3", "value": f"https://s3.example/{kept}"} in only["env"]


def test_what_a_deployment_serves_can_be_read_back_from_its_child() -> None:
    child = CASES["serving"]()[1]
    assert Served.of(child) == SERVED


@pytest.mark.parametrize(
    ("deadline", "seconds"),
    [
        pytest.param(10, 900, id="pods that an autoscaler adds have no deadline"),
        pytest.param(1_200, 900, id="by default the rest is for the pull"),
        pytest.param(1_201, 1_202, id="whole probes"),
        pytest.param(86_400, 86_400, id="a day"),
    ],
)
def test_a_server_has_as_long_to_load_as_a_long_rollout_has(deadline: int, seconds: int) -> None:
    served = server_deployment(deployment(rollout={"deadlineSeconds": deadline}), model_service(), SERVED, image=SERVER)
    (server,) = served["spec"]["template"]["spec"]["containers"]
    probe = server["startupProbe"]
    assert probe["failureThreshold"] * probe["periodSeconds"] == seconds


@pytest.mark.parametrize("since", ["then", "2026-11-23", "2026-11-23T12:00:00"])
def test_a_rollout_of_no_moment_is_not_remembered(since: str) -> None:
    """It is compared with the times of pods, which have a zone."""
    annotations = {ROLLOUT: note(Memory(since))}
    assert Memory.of({"metadata": {"annotations": annotations}}) == NOTHING
