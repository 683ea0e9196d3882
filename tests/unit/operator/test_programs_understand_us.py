"""The contract between the operator and the programs of its pods, held from both sides: command lines and manifests."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from operator_scene import CONFIG, DIGEST, NOW, OTHER_DIGEST, dataset, deployment, model_service, training_job

import winnow_operator
from winnow_classifier import errors
from winnow_classifier.dataset_manifest import options_of, read_dataset
from winnow_classifier.errors import WinnowError
from winnow_operator import api
from winnow_operator.build import waker
from winnow_operator.build.collect_job import Left, checkpoints_of, collect_job
from winnow_operator.build.common import AWS_KEYS
from winnow_operator.build.compare_job import Measurement, compare_job
from winnow_operator.build.import_job import HUB_TOKEN, UPLOAD_PORT, import_job
from winnow_operator.build.served import Served
from winnow_operator.build.server_deployment import server_deployment
from winnow_operator.build.training_job import adapter_base, run_name
from winnow_operator.build.training_job import training_job as training_job_of
from winnow_operator.kinds.dataset import MAY_PASS
from winnow_operator.plan import FetchLimits
from winnow_operator.reasons import Reason
from winnow_operator.resources import Object
from winnow_plugin import upload as plugin
from winnow_plugin import upload_spec
from winnow_server.process import FINISH_SECONDS
from winnow_server.settings import parse
from winnow_server.waking import wake
from winnow_server.waking.upstream import ANSWER_SECONDS
from winnow_trainer import reception
from winnow_trainer.arguments import parser
from winnow_trainer.compare import Value
from winnow_trainer.job import load_job
from winnow_trainer.sources import source_of

S3_STORAGE = {"uri": "s3://winnow/mail/", "endpoint": "https://s3.example", "secretRef": {"name": "bucket"}}
TOKEN = {"name": "hf", "key": "token"}
VOLUME_STORAGE = {"persistentVolumeClaim": {"size": "1Gi"}}


def command(made: Object, module: str) -> list[str]:
    """The arguments after `python -m module`."""
    (container,) = made["spec"]["template"]["spec"]["containers"]
    assert container["command"][:3] == ["python", "-m", module]
    return [str(argument) for argument in container["command"][3:]]


def test_the_trainer_understands_a_training(tmp_path: Path) -> None:
    job = training_job(testDataset="test", outputModelName="detector", metrics={"primary": "f1"})
    settings, made = training_job_of(
        job, model_service(), training_digest=DIGEST, test_digest=OTHER_DIGEST, image="trainer"
    )
    options = parser().parse_args(command(made, "winnow_trainer"))
    assert (str(options.job), options.run) == ("/etc/winnow/job.yaml", run_name(job))
    (tmp_path / "job.yaml").write_text(settings["data"]["job.yaml"])
    understood = load_job(tmp_path / "job.yaml")
    assert understood.metadata.uid == job.metadata.uid
    assert understood.spec.base_model == "/base/model"
    assert understood.spec.training_dataset == f"/storage/datasets/{'a' * 64}"
    assert understood.spec.test_dataset == f"/storage/datasets/{'b' * 64}"
    assert understood.spec.metrics.primary == "f1"
    split = training_job(
        testSplit={"percent": 20, "seed": 7},
        validationSplit={"percent": 10, "seed": 8},
        onOverlap="Drop",
        rebalance={"counts": {"spam": 5}},
        tracking={
            "mlflow": {"trackingUri": "http://mlflow:5000", "experiment": "Spam", "secretRef": {"name": "keys"}},
            "wandb": {"project": "spam", "baseUrl": "http://wandb:8080", "secretRef": {"name": "keys"}},
        },
    )
    settings, made = training_job_of(
        split, model_service(), training_digest=DIGEST, image="trainer", networks=("10.0.0.0/8",)
    )
    assert parser().parse_args(command(made, "winnow_trainer")).allow_network == [ip_network("10.0.0.0/8")]
    (tmp_path / "job.yaml").write_text(settings["data"]["job.yaml"])
    understood = load_job(tmp_path / "job.yaml")
    assert understood.spec.tracking is not None
    assert understood.spec.tracking.mlflow is not None
    assert understood.spec.tracking.mlflow.experiment == "Spam"
    assert understood.spec.tracking.wandb is not None
    assert understood.spec.tracking.wandb.base_url == "http://wandb:8080"
    assert understood.spec.rebalance is not None
    assert understood.spec.rebalance.counts == {"spam": 5}
    assert understood.spec.test_split is not None
    assert (understood.spec.test_split.percent, understood.spec.test_split.seed) == (20, 7)
    assert understood.spec.validation_split is not None
    assert (understood.spec.validation_split.percent, understood.spec.validation_split.seed) == (10, 8)
    assert understood.spec.on_overlap == "Drop"
    settings, _ = training_job_of(
        training_job(validationDataset="dev"),
        model_service(),
        training_digest=DIGEST,
        validation_digest=OTHER_DIGEST,
        image="trainer",
    )
    (tmp_path / "job.yaml").write_text(settings["data"]["job.yaml"])
    assert load_job(tmp_path / "job.yaml").spec.validation_dataset == f"/storage/datasets/{'b' * 64}"


def test_the_trainer_understands_an_import(tmp_path: Path) -> None:
    rows = dataset(
        source={"configMap": {"name": "mail", "key": "rows.csv"}}, labels=["ham", "spam"], onInvalidRows="Skip"
    )
    settings, made = import_job(rows, model_service(), CONFIG)
    options = parser().parse_args(command(made, "winnow_trainer"))
    assert (options.file, options.base_model) == ([Path("/source/rows.csv")], "/base/model")
    (tmp_path / "dataset.yaml").write_text(settings["data"]["dataset.yaml"])
    understood = options_of(read_dataset(tmp_path / "dataset.yaml"))
    assert (understood.labels, understood.on_invalid_rows) == (("ham", "spam"), "Skip")


def test_the_trainer_understands_what_to_fetch(tmp_path: Path) -> None:
    bounded = replace(CONFIG, fetch=FetchLimits(1_000, 60, ("10.0.0.0/8",)))
    secret = {"name": "hub", "key": "token"}
    given = {
        "huggingFace": {
            "repo": "a/b",
            "revision": "v1",
            "split": "train",
            "labelColumn": "l",
            "tokenSecretRef": secret,
        },
        "http": {"url": "https://data.example/rows.csv", "sha256": "0" * 64},
        "s3": {"uri": "s3://mail/", "endpoint": "https://s3.example", "region": "eu", "secretRef": {"name": "bucket"}},
    }
    for kind, fields in given.items():
        settings, made = import_job(dataset(source={kind: fields}), model_service(), bounded)
        options = parser().parse_args(command(made, "winnow_trainer"))
        assert (options.file, str(options.scratch)) == (None, "/source")
        assert (options.max_bytes, options.timeout_seconds) == (1_000, 60)
        assert options.allow_network == [ip_network("10.0.0.0/8")]
        (tmp_path / "dataset.yaml").write_text(settings["data"]["dataset.yaml"])
        source = source_of(read_dataset(tmp_path / "dataset.yaml").spec.source)
        assert source.model_dump(by_alias=True, exclude_none=True) == {kind: fields}
        (container,) = made["spec"]["template"]["spec"]["containers"]
        secrets = {each["name"] for each in container["env"] if "valueFrom" in each}
        expected = {"s3": {options.source_keys + key for key in AWS_KEYS}, "huggingFace": {options.hub_token_env}}
        assert secrets == expected.get(kind, set())


def test_the_base_models_token_is_not_the_datasets() -> None:
    base = {"huggingFace": {"repo": "meta-llama/Llama-3.1-8B", "revision": "main", "tokenSecretRef": {"name": "llama"}}}
    source = {"huggingFace": {"repo": "a/b", "endpoint": "https://elsewhere.example"}}
    _, made = import_job(dataset(source=source), model_service(baseModel=base), CONFIG)
    (container,) = made["spec"]["template"]["spec"]["containers"]
    assert {each["name"] for each in container["env"] if "valueFrom" in each} == {"HF_TOKEN"}
    assert parser().parse_args(command(made, "winnow_trainer")).hub_token_env == HUB_TOKEN != "HF_TOKEN"


def test_the_trainer_reads_thresholds_and_patience_as_they_were_asked_for(tmp_path: Path) -> None:
    spec: dict[str, Any] = {
        "validationSplit": {"percent": 10.0, "seed": 0},
        "earlyStopping": {"patience": 2, "minDelta": 0.01},
        "thresholds": {
            "objective": "Cost",
            "costs": {"falsePositive": 1.0, "falseNegative": 5.0},
            "abstain": {"band": 0.1},
        },
    }
    settings, _ = training_job_of(
        training_job(**spec), model_service(), training_digest=DIGEST, test_digest=None, image="trainer"
    )
    (tmp_path / "job.yaml").write_text(settings["data"]["job.yaml"])
    read = load_job(tmp_path / "job.yaml").spec.model_dump(by_alias=True, exclude_none=True)
    assert {name: read[name] for name in spec} == spec


def test_the_trainer_understands_what_to_remove() -> None:
    left = (Left("mails", DIGEST, rows=True, problems=True), Left("others", OTHER_DIGEST, problems=True))
    made = collect_job(model_service(), left, NOW, "trainer", checkpoints=("v1-0a1b2c3d/epoch-1",))
    assert checkpoints_of(made) == ("v1-0a1b2c3d/epoch-1",)
    options = parser().parse_args(command(made, "winnow_trainer"))
    assert (options.command, str(options.storage), options.before) == ("collect", "/storage", NOW)
    assert options.remove_checkpoint == ["v1-0a1b2c3d/epoch-1"]
    assert (options.remove, options.remove_problems_of) == ([DIGEST], ["mails", "others"])


def test_the_trainer_understands_what_to_compare() -> None:
    new = Served("v2", "epoch-2", DIGEST, "v2-0a1b2c3d", None)
    old = Served("v1", "epoch-1", OTHER_DIGEST, "v1-0a1b2c3d", None)
    wanted = Measurement(new, (("f1_macro", None), ("recall", "not [spam]")), old, "accuracy")
    options = parser().parse_args(command(compare_job(deployment(), model_service(), wanted, CONFIG), "winnow_trainer"))
    assert (options.command, options.candidate, options.live, options.metric) == (
        "compare",
        "runs/v2-0a1b2c3d/checkpoints/epoch-2",
        "runs/v1-0a1b2c3d/checkpoints/epoch-1",
        "accuracy",
    )
    assert (options.candidate_digest, options.live_digest) == (DIGEST, OTHER_DIGEST)
    values = [Value.of(text) for text in options.value]
    assert [(value.metric, value.label) for value in values] == list(wanted.values)


def test_the_trainer_understands_what_to_receive(tmp_path: Path) -> None:
    upload = {"sizeBytes": 10, "sha256": "0" * 64, "fileName": "mail.jsonl"}
    settings, made = import_job(dataset(source={"upload": upload}), model_service(), CONFIG)
    options = parser().parse_args(command(made, "winnow_trainer"))
    assert (options.file, options.receive_port) == (None, UPLOAD_PORT)
    assert UPLOAD_PORT == plugin.POD_PORT
    (tmp_path / "dataset.yaml").write_text(settings["data"]["dataset.yaml"])
    source = source_of(read_dataset(tmp_path / "dataset.yaml").spec.source)
    assert source.model_dump(by_alias=True, exclude_none=True) == {"upload": upload}
    (container,) = made["spec"]["template"]["spec"]["containers"]
    assert options.receive.parent == Path(options.storage) / reception.FOLDER
    assert container["readinessProbe"]["exec"]["command"] == ["test", "-e", str(options.receive / reception.FILE)]


def test_the_plugin_tries_again_what_the_operator_says_may_pass() -> None:
    assert {str(reason) for reason in MAY_PASS} == upload_spec.WORTH_ANOTHER_TRY
    assert str(Reason.AWAITING_UPLOAD) == upload_spec.AWAITING_UPLOAD


def test_every_reason_is_given_by_the_operator_or_said_by_a_program() -> None:
    """What the docs explain can be met."""
    source = "".join(path.read_text() for path in Path(winnow_operator.__file__).parent.rglob("*.py"))
    given = {Reason[name] for name in re.findall(r"\bReason\.([A-Z_]+)\b", source)}
    said = {
        error.reason for error in vars(errors).values() if isinstance(error, type) and issubclass(error, WinnowError)
    }
    assert set(Reason) - given - said == set()


def test_the_programs_understand_storage_in_a_bucket(tmp_path: Path) -> None:
    service, networks = model_service(storage={"s3": S3_STORAGE}), ("10.0.0.0/8",)
    bounded = replace(CONFIG, fetch=FetchLimits(allowed_networks=networks))
    settings, training = training_job_of(
        training_job(), service, training_digest=DIGEST, test_digest=None, image="trainer", networks=networks
    )
    base = {"image": {"reference": "models:1", "path": "/model"}}
    served = Served("v1", "epoch-2", DIGEST, "v1-0a1b2c3d", api.AdapterBase.model_validate(base))
    serving = server_deployment(deployment(), service, served, image="server", networks=networks)
    left = (Left("mails", DIGEST, rows=True),)
    collecting = collect_job(service, left, NOW, "trainer", networks)
    for made in (training, import_job(dataset(), service, bounded)[1], collecting):
        options = parser().parse_args(command(made, "winnow_trainer"))
        assert (options.storage, str(options.mirror)) == ("s3://winnow/mail", "/storage")
        assert options.allow_network == [ip_network("10.0.0.0/8")]
    (tmp_path / "job.yaml").write_text(settings["data"]["job.yaml"])
    assert load_job(tmp_path / "job.yaml").spec.training_dataset == DIGEST
    said = parse(command(serving, "winnow_server"))
    assert said.checkpoint == "s3://winnow/mail/runs/v1-0a1b2c3d/checkpoints/epoch-2"
    assert (str(said.mirror), said.allow_network) == ("/storage", [ip_network("10.0.0.0/8")])


@pytest.mark.parametrize("storage", [VOLUME_STORAGE, {"s3": S3_STORAGE}], ids=["on a volume", "in a bucket"])
@pytest.mark.parametrize("public", [False, True], ids=["with keys", "public"])
def test_the_programs_understand_a_base_model_in_a_bucket(tmp_path: Path, storage: Object, public: bool) -> None:
    s3: Object = {"uri": "s3://models/llama/", "endpoint": "https://models.example", "region": "eu"}
    base = {"s3": s3 if public else {**s3, "secretRef": {"name": "models"}}}
    service, networks = model_service(storage=storage, baseModel=base), ("10.0.0.0/8",)
    bounded = replace(CONFIG, fetch=FetchLimits(allowed_networks=networks))
    settings, training = training_job_of(
        training_job(), service, training_digest=DIGEST, test_digest=None, image="trainer", networks=networks
    )
    served = Served("v1", "epoch-2", DIGEST, "v1-0a1b2c3d", api.AdapterBase.model_validate(base))
    serving = server_deployment(deployment(), service, served, image="server", networks=networks)
    fetched = dataset(source={"s3": {"uri": "s3://mail/", "secretRef": {"name": "rows"}}})
    imports = [import_job(rows, service, bounded)[1] for rows in (dataset(), fetched)]
    (tmp_path / "job.yaml").write_text(settings["data"]["job.yaml"])
    references = {load_job(tmp_path / "job.yaml").spec.base_model}
    for made in (training, *imports, serving):
        told = command(made, "winnow_server" if made is serving else "winnow_trainer")
        options: Any = parse(told) if made is serving else parser().parse_args(told)
        assert options.allow_network == [ip_network("10.0.0.0/8")]
        references |= set() if made is training else {options.base_model}
        (container,) = made["spec"]["template"]["spec"]["containers"]
        env = {each["name"]: each for each in container["env"]}
        assert env[f"{options.base_keys}AWS_ENDPOINT_URL_S3"]["value"] == "https://models.example"
        assert env[f"{options.base_keys}AWS_REGION"]["value"] == "eu"
        keys = [env[f"{options.base_keys}{key}"]["valueFrom"] for key in AWS_KEYS if f"{options.base_keys}{key}" in env]
        named = [{"name": "models", "key": key, "optional": True} for key in AWS_KEYS]
        assert [key["secretKeyRef"] for key in keys] == ([] if public else named)
        assert ("AWS_ACCESS_KEY_ID" in env) == ("s3" in storage)
    assert references == {"s3://models/llama"}


@pytest.mark.parametrize("storage", [VOLUME_STORAGE, {"s3": S3_STORAGE}], ids=["on a volume", "in a bucket"])
def test_the_programs_understand_a_base_model_of_a_mirror(storage: Object) -> None:
    """And so does the server of an adapter that goes on from one that stands on it."""
    hub = {"repo": "acme/llama", "revision": "main", "endpoint": "https://hub.example", "tokenSecretRef": TOKEN}
    service, networks = model_service(storage=storage, baseModel={"huggingFace": hub}), ("10.0.0.0/8",)
    bounded = replace(CONFIG, fetch=FetchLimits(allowed_networks=networks))
    came = {"trainingJob": "v1", "checkpoint": "epoch-1", "digest": DIGEST, "run": "v1-0a1b2c3d"}
    child = training_job("v2", status={"continuedFrom": {**came, "adapterBase": {"huggingFace": hub}}})
    served = Served("v2", "epoch-2", DIGEST, run_name(child), adapter_base(child, service))
    _, training = training_job_of(
        training_job(), service, training_digest=DIGEST, test_digest=None, image="trainer", networks=networks
    )
    serving = server_deployment(deployment(), service, served, image="server", networks=networks)
    elsewhere = dataset(source={"huggingFace": {"repo": "a/b", "endpoint": "https://elsewhere.example"}})
    imports = [import_job(rows, service, bounded)[1] for rows in (dataset(), elsewhere)]
    for made in (training, *imports, serving):
        told = command(made, "winnow_server" if made is serving else "winnow_trainer")
        options: Any = parse(told) if made is serving else parser().parse_args(told)
        assert options.allow_network == [ip_network("10.0.0.0/8")]
        (container,) = made["spec"]["template"]["spec"]["containers"]
        env = {each["name"]: each for each in container["env"]}
        assert env["HF_ENDPOINT"]["value"] == "https://hub.example"
        assert env["HF_TOKEN"]["valueFrom"]["secretKeyRef"] == TOKEN


def test_an_adapter_on_a_stored_checkpoint_is_asked_for_with_the_storages_keys() -> None:
    service = model_service(storage={"s3": S3_STORAGE}, baseModel={"s3": {"uri": "s3://models/llama"}})
    stored: Object = {"stored": {"run": "v0-0a1b2c3d", "checkpoint": "epoch-1"}}
    served = Served("v1", "epoch-2", DIGEST, "v1-0a1b2c3d", api.AdapterBase.model_validate(stored))
    said = parse(command(server_deployment(deployment(), service, served, image="server"), "winnow_server"))
    assert (said.base_model, said.base_keys) == ("s3://winnow/mail/runs/v0-0a1b2c3d/checkpoints/epoch-1", "")


def test_the_server_understands_a_deployment() -> None:
    base = {"huggingFace": {"repo": "meta-llama/Llama-3.1-8B-Instruct", "revision": "main"}}
    served = Served("v1", "epoch-2", DIGEST, "v1-0a1b2c3d", api.AdapterBase.model_validate(base))
    options = parse(command(server_deployment(deployment(), model_service(), served, image="server"), "winnow_server"))
    assert str(options.checkpoint) == "/storage/runs/v1-0a1b2c3d/checkpoints/epoch-2"
    assert options.base_model == "hf://meta-llama/Llama-3.1-8B-Instruct@main"
    assert (options.digest, options.name, options.port, str(options.storage)) == (DIGEST, "web", 8080, "/storage")
    outside = deployment(ingress={"path": "/spam"}, httpRoute={"parentRefs": [{"name": "public"}], "path": "/a/b"})
    options = parse(command(server_deployment(outside, model_service(), served, image="server"), "winnow_server"))
    assert options.path_prefix == ["/a/b", "/spam"]


def test_a_servers_pod_may_finish_what_it_has_accepted() -> None:
    served = Served("v1", "epoch-2", DIGEST, "v1-0a1b2c3d", None)
    made = server_deployment(deployment(), model_service(), served, image="server")
    options = parse(command(made, "winnow_server"))
    grace = made["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert options.drain_seconds + max(FINISH_SECONDS, options.max_request_seconds) < grace


def test_the_waker_understands_a_deployment() -> None:
    keys: dict[str, Any] = {"access": {"apiKeysSecretRef": {"name": "keys"}}}
    made = waker.waker(deployment(ingress={"path": "/spam"}, **keys), image="server")
    verb, *arguments = command(made, "winnow_server")
    options = wake.parse(arguments)
    assert verb == "wake"
    assert (options.name, options.upstream, options.port) == ("web", "http://web-pods.ml.svc", 8080)
    assert (str(options.api_keys), options.path_prefix) == ("/etc/winnow-keys", ["/spam"])
    # A pod that is replaced answers what it has been holding before it goes.
    grace = made["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert options.hold_seconds + options.drain_seconds + ANSWER_SECONDS < grace
    bare = wake.parse(command(waker.waker(deployment(), image="server"), "winnow_server")[1:])
    assert (bare.api_keys, bare.path_prefix) == (None, [])
