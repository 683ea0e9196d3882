"""What the API server makes of values that are out of bounds, and of those that are not given."""

from __future__ import annotations

import pytest
from integration_client import Object, RefusedError
from integration_cluster import Cluster
from integration_manifests import dataset, deployment, model_service, training_job

BUCKET = {"uri": "s3://winnow/spam", "secretRef": {"name": "keys"}}
WINDOW = {"start": "0 8 * * 1-5", "end": "0 18 * * MON-FRI", "minReplicas": 2}
BOUNDS = [
    pytest.param(training_job(parameters={"warmupRatio": 1}), "should be less than 1", id="warmupRatio stays below 1"),
    pytest.param(
        training_job(parameters={"warmupRatio": -0.1}), "greater than or equal to 0", id="warmupRatio is not negative"
    ),
    pytest.param(
        training_job(parameters={"learningRate": 0}), "should be greater than 0", id="a learning rate above 0"
    ),
    pytest.param(training_job(parameters={"emaDecay": 1}), "should be less than 1", id="an average of something"),
    pytest.param(training_job(parameters={"numTrainEpochs": 0}), "greater than or equal to 1", id="at least one epoch"),
    pytest.param(training_job(parameters={"numTrainEpochs": 2.5}), "must be of type integer", id="whole epochs"),
    pytest.param(training_job(metrics={"functions": ["f2"]}), 'Unsupported value: "f2"', id="a metric that exists"),
    pytest.param(training_job(method="DoRA"), 'Unsupported value: "DoRA"', id="a method that exists"),
    pytest.param(training_job(parameters={"headInit": "Zero"}), 'Unsupported value: "Zero"', id="a start that exists"),
    pytest.param(training_job(trainingDataset="Rows"), "should match", id="a reference that can exist"),
    pytest.param(
        model_service(baseModel={"image": {"reference": "docker.io/winnow/base:1\xa0"}}),
        "should match",
        id="no space that was pasted along, which the operator's types refuse",
    ),
    *(
        pytest.param(manifest, "should match", id=f"{where} is ASCII, as what reads it wants it")
        for space in ("\u3000", "\u2003", "\x0b")  # which only the operator's types would call spaces
        for where, manifest in (
            ("an image", dataset(source={"image": {"reference": f"docker.io/rows:1{space}", "path": "/rows"}})),
            ("a URL", dataset(source={"http": {"url": f"https://host/rows{space}", "sha256": "0" * 64}})),
            ("an endpoint", model_service(storage={"s3": {**BUCKET, "endpoint": f"https://s3{space}"}})),
            (
                "a tracker's URL",
                training_job(tracking={"mlflow": {"trackingUri": f"http://m{space}", "experiment": "e"}}),
            ),
        )
    ),
    pytest.param(dataset(labels=["ham", "ham"]), "Duplicate value", id="labels are unique"),
    pytest.param(dataset(format="XML"), 'Unsupported value: "XML"', id="a format that can be read"),
    pytest.param(deployment(follow="Best"), 'Unsupported value: "Best"', id="whom one can follow"),
    pytest.param(deployment(rollout={"strategy": "Canary"}), 'Unsupported value: "Canary"', id="a way to roll out"),
    pytest.param(deployment(rollout={"deadlineSeconds": 1}), "greater than or equal to 10", id="time to come up"),
    pytest.param(deployment(gate={}), "a gate needs floors", id="a gate is not empty"),
    pytest.param(deployment(replicas=-1), "greater than or equal to 0", id="replicas are not negative"),
    pytest.param(deployment(thresholds={"spam": 1.5}), "less than or equal to 1", id="a threshold is a probability"),
    pytest.param(deployment(access={"apiKeysSecretRef": {}}), "name", id="API keys lie in a Secret with a name"),
    pytest.param(
        deployment(autoscaling={}), "autoscaling.maxReplicas: Required value", id="an upper bound of replicas"
    ),
    pytest.param(
        deployment(autoscaling={"maxReplicas": 4, "schedule": [{**WINDOW, "start": "at 8 o'clock"}]}),
        "should match",
        id="a cron expression of five fields",
    ),
    pytest.param(deployment(disruptionBudget={"minAvailable": "half"}), "should match", id="a share in percent"),
    pytest.param(deployment(ingress={"path": "/spam/"}), "should match", id="a path without a slash at its end"),
    pytest.param(deployment(checkpoint={}), "spec.checkpoint.trainingJob: Required value", id="a checkpoint of a job"),
    pytest.param(
        deployment(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]),
        "Duplicate value",
        id="a variable once",
    ),
    pytest.param(
        model_service(baseModel={"huggingFace": {"repo": "a b"}}), "should match", id="a repository that can exist"
    ),
    pytest.param(
        model_service(baseModel={"s3": {"uri": "s3://models/a b"}}),
        "should match",
        id="a bucket's prefix that can exist",
    ),
    pytest.param(training_job(baseModel={"s3": {}}), "uri: Required value", id="a bucket has an address"),
]


@pytest.mark.parametrize(("manifest", "message"), BOUNDS)
async def test_a_value_out_of_bounds_is_refused(dry: Cluster, manifest: Object, message: str) -> None:
    with pytest.raises(RefusedError) as refused:
        await dry.client.create(dry.here(manifest), dry_run=True)
    assert message in refused.value.message


async def test_a_training_job_gets_the_usual_defaults(dry: Cluster) -> None:
    job = await dry.client.create(dry.here(training_job()), dry_run=True)
    assert job["spec"] == {
        "modelService": "spam",
        "trainingDataset": "rows",
        "taskType": "Classification",
        "method": "LoRA",
        "onOverlap": "Keep",
        "promptTemplate": "{text}",
        "suspend": False,
        "maxRestarts": 3,
        "nodes": 1,
        "processesPerNode": 1,
        "parameters": {
            "numTrainEpochs": 5,
            "lrSchedulerType": "linear",
            "warmupRatio": 0.03,
            "weightDecay": 0,
            "maxGradNorm": 0.3,
            "perDeviceTrainBatchSize": 4,
            "gradientAccumulationSteps": 4,
            "perDeviceEvalBatchSize": 4,
            "maxSeqLength": 512,
            "seed": 0,
        },
    }


async def test_the_other_kinds_get_their_defaults(dry: Cluster) -> None:
    rows = await dry.client.create(dry.here(dataset()), dry_run=True)
    assert {"format": "Auto", "taskDetail": "Auto", "onInvalidRows": "Fail"}.items() <= rows["spec"].items()
    web = await dry.client.create(dry.here(deployment()), dry_run=True)
    assert web["spec"]["checkpoint"] == {"trainingJob": "v1", "name": "best"}
    assert web["spec"]["rollout"] == {"strategy": "Rolling", "deadlineSeconds": 1200, "watchSeconds": 300}
    assert web["spec"]["replicas"] == 1
    hub = {"huggingFace": {"repo": "owner/model", "tokenSecretRef": {"name": "hf"}}}
    service = await dry.client.create(dry.here(model_service(baseModel=hub)), dry_run=True)
    assert service["spec"]["taskType"] == "Classification"
    assert service["spec"]["baseModel"]["huggingFace"] == {
        "repo": "owner/model",
        "revision": "main",
        "tokenSecretRef": {"name": "hf", "key": "token"},
    }
