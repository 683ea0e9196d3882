"""From rows to a served classifier on the real cluster: the demo's flow, LoRA on a Llama, what users script against."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from e2e_support import (
    BASE_TINY_LLAMA,
    KUBECTL,
    Cluster,
    condition,
    dataset,
    deployment,
    model_service,
    short_rows,
    training_job,
)

QUICK = {"numTrainEpochs": 2, "maxSeqLength": 64, "perDeviceTrainBatchSize": 16, "gradientAccumulationSteps": 1}

# Runs in a fresh interpreter that cannot import Winnow: what any user of transformers and peft would write.
PLAIN = """
import json, sys, torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
folder, base, texts, temperature = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), float(sys.argv[4])
assert not any(name.startswith("winnow") for name in sys.modules)
if base:
    from peft import PeftModel
    config = AutoConfig.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(base, config=config)
    model = PeftModel.from_pretrained(model, folder)
else:
    model = AutoModelForSequenceClassification.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
model.eval()
with torch.no_grad():
    rows = [torch.softmax(model(**tokenizer(t, return_tensors="pt", truncation=True, max_length=64)).logits.float() / temperature, -1)[0].tolist() for t in texts]
print(json.dumps(rows))
"""


def classify(address: str, texts: list[str]) -> list[dict[str, Any]]:
    body = json.dumps({"input": texts}).encode()
    request = urllib.request.Request(f"{address}/v1/classify", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        data: list[dict[str, Any]] = json.load(response)["data"]
        return data


def checkpoint_folder(cluster: Cluster, model: str, job: str, name: str, to: Path) -> Path:
    """A checkpoint copied out of the live server's pod, as a user would with kubectl cp."""
    pod = cluster.list("pods", f"winnow.dev/kind=Deployment,winnow.dev/name={model}")[0]["metadata"]["name"]
    found = cluster.run("exec", pod, "--", "sh", "-c", f"ls -d /storage/runs/{job}-*/checkpoints/{name}").strip()
    cluster.run("cp", f"{pod}:{found}", str(to), timeout=120)
    return to


def plain_probabilities(folder: Path, base: str, texts: list[str], temperature: float = 1.0) -> list[list[float]]:
    command = [sys.executable, "-I", "-c", PLAIN, str(folder), base, json.dumps(texts), str(temperature)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    rows: list[list[float]] = json.loads(done.stdout.strip().splitlines()[-1])
    return rows


def test_four_manifests_in_any_order_become_an_endpoint(cluster: Cluster, tmp_path: Path) -> None:
    """Deployment first, ModelService last: everything waits in words, then converges, serves, and is gone when deleted."""
    cluster.apply(deployment("mail", "mail", "v1", precision="Float32"))  # as plain transformers compute
    assert cluster.says("wdep", "mail", "Ready", status="False")["message"]
    cluster.apply(
        training_job(
            "v1",
            "mail",
            method="Full",
            parameters={**QUICK, "learningRate": 3e-4},
            metrics={"primary": "f1"},
            validationSplit={"percent": 10},
        ),
        dataset("test", "mail", short_rows(60, start=1000), labels=["ham", "spam"]),
        dataset("train", "mail", short_rows(240), labels=["ham", "spam"]),
        model_service("mail"),
    )
    train = cluster.wait("wds", "train", "Ready")["status"]
    assert (train["rows"], train["taskDetail"]) == (240, "Binary")
    assert {label["name"]: label["positives"] for label in train["labels"]} == {"ham": 120, "spam": 120}
    assert train["tokens"]["max"] > train["tokens"]["p50"] > 5

    job = cluster.wait("trainingjob", "v1", "Complete", seconds=400)["status"]
    assert [epoch["checkpoint"] for epoch in job["epochs"]] == ["epoch-1", "epoch-2"]
    assert job["epochs"][-1]["metrics"]["f1"] > 0.95
    assert job["bestCheckpoint"] in {"epoch-1", "epoch-2"}
    assert job["datasets"]["training"]["digest"] == train["digest"]
    assert job["selectedOn"] == "Validation"
    assert all(epoch["validationMetrics"]["f1"] > 0.5 for epoch in job["epochs"])
    assert job["datasets"]["trainingRows"] + job["datasets"]["validationRows"] == 240

    live = cluster.wait("deployments.winnow.dev", "mail", "Ready", seconds=240)["status"]
    assert live["url"] == f"http://mail.{cluster.namespace}.svc"
    assert live["live"]["checkpoint"] == job["bestCheckpoint"]
    texts = ["You won a free prize, claim your cash now", "Minutes of the meeting for the project team"]
    served = classify(cluster.service_address("mail"), texts)
    assert [row["label"] for row in served] == ["spam", "ham"]
    model = cluster.until("the ModelService to count", lambda: cluster.get("ms", "mail")["status"])
    assert (model["datasets"], model["trainingJobs"], model["deployments"]) == (2, 1, 1)
    dashboard = cluster.run("get", "winnow")
    assert all(word in dashboard for word in ("mail", "v1", "240", "Binary", live["url"])), dashboard

    folder = checkpoint_folder(cluster, "mail", "v1", job["bestCheckpoint"], tmp_path / "checkpoint")
    temperature = json.loads((folder / "decision.json").read_text())["calibration"]["temperature"]
    plain = plain_probabilities(folder, "", texts, temperature)
    for mine, theirs in zip([row["probs"] for row in served], plain, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4)
    predictions = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert len(predictions) == 60 and set(predictions[0]["probabilities"]) == {"ham", "spam"}
    fitted_anew(cluster, texts, tmp_path)

    cluster.run("delete", "winnow", "--all", timeout=120)
    left = "jobs,pods,deployments.apps,services,configmaps,persistentvolumeclaims"
    gone = ["get", left, "-l", "app.kubernetes.io/managed-by=winnow", "-o", "name"]
    cluster.until("all children to be collected", lambda: not cluster.run(*gone).strip(), seconds=180)


def fitted_anew(cluster: Cluster, texts: list[str], folder: Path) -> None:
    """By somebody who has the role edit and nothing else; the pod that served goes on, and decides otherwise."""
    pods = "winnow.dev/kind=Deployment,winnow.dev/name=mail"
    address, before = cluster.service_address("mail"), cluster.list("pods", pods)
    assert card(address)["thresholds"] == {}
    assert not any(row["abstained"] for row in classify(address, texts))
    costs = ("--false-positive-cost", "20", "--false-negative-cost", "1")
    rules = ("--objective", "Cost", *costs, "--abstain-min-probability", "1")
    editor = ("--kubeconfig", str(kubeconfig_of_an_editor(cluster, folder / "editor")))
    said = winnow(cluster, "refit", "v1", *rules, *editor)
    assert "thresholds for: Cost falsePositive 20, falseNegative 1 (nothing before)" in said
    assert "ON 60 TEST ROWS" in said
    assert "served by mail: taken within seconds, without a restart" in said
    cluster.until("the new rules", lambda: card(address)["abstain"] == {"min_probability": 1.0}, seconds=30)
    (threshold,) = card(address)["thresholds"].values()
    assert f"{threshold:.4f}" in said
    assert all(row["abstained"] for row in classify(address, texts))
    after = cluster.list("pods", pods)
    assert [pod["metadata"]["uid"] for pod in after] == [pod["metadata"]["uid"] for pod in before]
    assert all(status["restartCount"] == 0 for pod in after for status in pod["status"]["containerStatuses"])
    assert cluster.list("pods", "winnow.dev/refit-of=v1") == []


def card(address: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{address}/v1/model", timeout=30) as response:
        found: dict[str, Any] = json.load(response)
        return found


def winnow(cluster: Cluster, *arguments: str) -> str:
    env = {**cluster.env, "PATH": f"{Path(KUBECTL).parent}:{os.environ['PATH']}"}
    command = [str(Path(sys.executable).parent / "kubectl-winnow"), *arguments, "-n", cluster.namespace]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def kubeconfig_of_an_editor(cluster: Cluster, file: Path) -> Path:
    cluster.run("create", "serviceaccount", "editor")
    account = f"--serviceaccount={cluster.namespace}:editor"
    cluster.run("create", "rolebinding", "editor", "--clusterrole=edit", account)
    config = json.loads(cluster.run("config", "view", "--raw", "--flatten", "--minify", "-o", "json"))
    config["users"][0]["user"] = {"token": cluster.run("create", "token", "editor").strip()}
    file.write_text(json.dumps(config))
    return file


def test_lora_on_a_llama_with_three_labels(cluster: Cluster, tmp_path: Path) -> None:
    """A decoder body, an adapter as checkpoint, label maps as rows; peft alone loads it to the same probabilities."""
    words = {
        "sports": "the team won the match by two goals",
        "money": "the bank raised its interest rate",
        "food": "boil the rice and add salt",
    }
    rows = [
        {"prompt": f"{text} number {i}", "completion": {label: int(label == wanted) for label in words}}
        for i in range(40)
        for wanted, text in words.items()
    ]
    cluster.apply(
        model_service("topics", BASE_TINY_LLAMA),
        dataset("train", "topics", rows),
        dataset("test", "topics", rows[:30]),
        training_job("v1", "topics", method="LoRA", parameters={**QUICK, "loraRank": 4, "learningRate": 5e-3}),
        deployment("topics", "topics", "v1", "epoch-2", precision="Float32"),
    )
    assert cluster.wait("wds", "train", "Ready")["status"]["taskDetail"] == "Multiclass"
    job = cluster.wait("trainingjob", "v1", "Complete", seconds=400)["status"]
    assert job["datasets"]["overlap"] == 30
    cluster.wait("deployments.winnow.dev", "topics", "Ready", seconds=240)
    texts = ["the team won the match by two goals number 3", "boil the rice"]
    served = classify(cluster.service_address("topics"), texts)
    folder = checkpoint_folder(cluster, "topics", "v1", "epoch-2", tmp_path / "checkpoint")
    pod = cluster.list("pods", "winnow.dev/kind=Deployment,winnow.dev/name=topics")[0]["metadata"]["name"]
    cluster.run("cp", f"{pod}:/base/model", str(tmp_path / "base"), timeout=120)
    assert (folder / "adapter_model.safetensors").exists()
    for mine, theirs in zip(
        [row["probs"] for row in served], plain_probabilities(folder, str(tmp_path / "base"), texts), strict=True
    ):
        assert mine == pytest.approx(theirs, abs=1e-4)


def test_a_stopped_job_goes_on_where_it_was(cluster: Cluster) -> None:
    """Suspend, resume, and a pod deleted under it: the run ends Complete, with every epoch told once."""
    cluster.apply(
        model_service("mail"),
        dataset("train", "mail", short_rows(400)),
        dataset("test", "mail", short_rows(40, start=1000)),
        training_job("v1", "mail", method="Full", parameters={**QUICK, "numTrainEpochs": 8}),
    )

    def epochs() -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = cluster.get("tj", "v1").get("status", {}).get("epochs", [])
        return told

    cluster.until("the first epoch", epochs, seconds=300)
    cluster.run("patch", "tj", "v1", "--type=merge", "-p", '{"spec":{"suspend":true}}')
    cluster.wait("trainingjob", "v1", "Suspended")
    pods = "winnow.dev/kind=TrainingJob,winnow.dev/name=v1"
    cluster.until("its pod to be gone", lambda: not cluster.list("pods", pods), seconds=150)
    before = len(epochs())
    cluster.run("patch", "tj", "v1", "--type=merge", "-p", '{"spec":{"suspend":false}}')
    running = cluster.until("a new pod", lambda: cluster.list("pods", pods), seconds=60)
    cluster.until("more epochs", lambda: len(epochs()) > before, seconds=200)
    if cluster.get("tj", "v1")["status"]["conditions"] and not condition(cluster.get("tj", "v1"), "Complete"):
        cluster.run("delete", "pod", running[0]["metadata"]["name"], "--wait=false")
    done = cluster.wait("trainingjob", "v1", "Complete", seconds=400)["status"]
    assert [epoch["epoch"] for epoch in done["epochs"]] == list(range(1, 9))
