"""The chart, rendered by helm: valid objects, a closed schema, restricted pods, and rights for what is used, no more."""

from __future__ import annotations

import ipaddress
import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from winnow_operator import resources, settings

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = "1.36"
PRODUCT_KINDS = {resource.plural for resource in resources.KINDS}


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "cluster" / "cluster"), "helm", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def render(*arguments: str) -> list[dict[str, Any]]:
    chart = ["template", "winnow", str(ROOT / "helm" / "winnow"), "--namespace", "winnow-system"]
    done = helm(*chart, "--kube-version", KUBERNETES, *arguments)
    assert done.returncode == 0, done.stderr
    return [rendered for rendered in yaml.safe_load_all(done.stdout) if rendered]


def one(objects: list[dict[str, Any]], kind: str, name: str = "winnow-operator") -> dict[str, Any]:
    (found,) = (obj for obj in objects if obj["kind"] == kind and obj["metadata"]["name"] == name)
    return found


def kinds(objects: list[dict[str, Any]]) -> list[str]:
    return [obj["kind"] for obj in objects]


def operator_rules() -> list[dict[str, Any]]:
    objects = render()
    return [*one(objects, "ClusterRole")["rules"], *one(objects, "Role", "winnow-leader")["rules"]]


EVERYTHING = (
    "--set=operator.replicas=2,operator.priorityClassName=high,operator.nodeSelector.disk=ssd",
    "--set=metrics.serviceMonitor.enabled=true,metrics.serviceMonitor.labels.team=ml",
    "--set=imagePullSecrets[0].name=registry,operator.tolerations[0].operator=Exists",
    "--set=operator.podAnnotations.note=here",
)


def test_helm_finds_nothing_to_complain_about() -> None:
    done = helm("lint", "--strict", str(ROOT / "helm" / "winnow"), "--kube-version", KUBERNETES)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [pytest.param((), id="defaults"), pytest.param(EVERYTHING, id="every value set")])
def test_every_object_is_valid(arguments: tuple[str, ...]) -> None:
    for obj in render(*arguments):
        if obj["kind"] != "ServiceMonitor":  # of another project
            kubernetes_validate.validate(obj, KUBERNETES, strict=True)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param("operator.replica=2", id="a misspelt value"),
        pytest.param("image.pullPolicy=Sometimes", id="a policy that does not exist"),
        pytest.param("operator.replicas=many", id="words for a number"),
        *(
            pytest.param(f"fetch.allowedNetworks={{{network}}}", id=f"the network {network}")
            for network in ("10.0.0.0", "10.0.0.0/99", "10.0.0.256/8", "fd00::/129", "fd00/8", "office")
        ),
    ],
)
def test_a_value_the_chart_does_not_know_is_refused(wrong: str) -> None:
    done = helm("template", "winnow", str(ROOT / "helm" / "winnow"), "--kube-version", KUBERNETES, f"--set={wrong}")
    assert done.returncode != 0
    assert wrong.split("=")[0].split(".")[-1] in done.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        *(f"{part}=null" for part in ("image", "crds", "operator", "fetch", "rbac", "metrics")),
        *(f"crds.{part}=null" for part in ("enabled", "keep")),
        *("image.registry=null", "fetch.maxBytes=null", "fetch.timeoutSeconds=null", "metrics.serviceMonitor=null"),
        *("operator.replicas=null", "operator.logLevel=null"),
        *("image.tag=sha256:0123", "image.tag=@sha256:0123", "image.registry=https://registry.example.com"),
        "image.registry=registry.example.com/ml/",
    ],
)
def test_what_would_become_a_broken_object_is_refused_by_the_schema(wrong: str) -> None:
    """A null, as a section without values in a file is one, takes the chart's default away: CRDs would no longer be kept."""
    done = helm("template", "winnow", str(ROOT / "helm" / "winnow"), "--kube-version", KUBERNETES, f"--set={wrong}")
    assert done.returncode != 0
    assert "values don't meet the specifications of the schema" in done.stderr
    assert wrong.split("=")[0].split(".")[-1] in done.stderr


def test_the_charts_version_may_be_that_of_a_commit_and_restarts_nothing(tmp_path: Path) -> None:
    """As Flux appends it (`reconcileStrategy: Revision`): a label cannot have its plus sign."""
    shutil.copytree(ROOT / "helm" / "winnow", tmp_path, dirs_exist_ok=True)
    chart = tmp_path / "Chart.yaml"
    chart.write_text(re.sub("(?m)^version: .*", "version: 0.1.0+1a2b3c4d5e6f", chart.read_text()))
    done = helm("template", "winnow", str(tmp_path), "--kube-version", KUBERNETES)
    assert done.returncode == 0, done.stderr
    deployment = one([obj for obj in yaml.safe_load_all(done.stdout) if obj], "Deployment")
    assert deployment["metadata"]["labels"]["helm.sh/chart"] == "winnow-0.1.0_1a2b3c4d5e6f"
    assert deployment["spec"]["template"] == one(render(), "Deployment")["spec"]["template"]


def test_it_can_be_a_part_of_another_chart_that_turns_it_on(tmp_path: Path) -> None:
    """Helm hands the value of a dependency's condition on to it, where the schema meets it."""
    shutil.copytree(ROOT / "helm" / "winnow", tmp_path / "charts" / "winnow")
    parts = [{"name": "winnow", "version": ">=0.0.0-0", "condition": "winnow.enabled"}]
    chart = {"apiVersion": "v2", "name": "platform", "version": "1.0.0", "dependencies": parts}
    (tmp_path / "Chart.yaml").write_text(yaml.safe_dump(chart))
    (tmp_path / "values.yaml").write_text(yaml.safe_dump({"winnow": {"enabled": True}}))
    done = helm("template", "platform", str(tmp_path), "--kube-version", KUBERNETES)
    assert done.returncode == 0, done.stderr
    assert "name: platform-operator" in done.stdout


def test_networks_of_both_kinds_reach_the_operator() -> None:
    networks = ["10.20.0.0/16", "192.168.7.1/32", "0.0.0.0/0", "fd00::/8", "::/0", "2001:db8:1:2:3:4:5:6/128"]
    networks += ["fd00:1:2:3:4:5:6::/112", "::2:3:4:5:6:7:8/128", "64:ff9b::10.0.0.0/104"]
    asked = f"--set=fetch.allowedNetworks={{{','.join(networks)}}}"
    (container,) = one(render(asked), "Deployment")["spec"]["template"]["spec"]["containers"]
    env = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert env["WINNOW_FETCH_ALLOWED_NETWORKS"] == " ".join(networks)
    read = settings.read({**env, "WINNOW_NAMESPACE": "winnow-system"})
    assert read.config.fetch.allowed_networks == tuple(str(ipaddress.ip_network(network)) for network in networks)


def test_an_old_cluster_is_refused_in_words() -> None:
    done = helm("template", "winnow", str(ROOT / "helm" / "winnow"), "--kube-version", "1.30.0")
    assert done.returncode != 0
    assert "requires kubeVersion" in done.stderr


def test_the_crds_are_those_of_the_repository_and_survive_an_uninstall() -> None:
    rendered = {obj["spec"]["names"]["plural"]: obj for obj in render() if obj["kind"] == "CustomResourceDefinition"}
    for file in sorted((ROOT / "crds").glob("*.yaml")):
        crd = yaml.safe_load(file.read_text(encoding="utf-8"))
        found = rendered.pop(crd["spec"]["names"]["plural"])
        assert found["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
        assert found == crd
    assert not rendered


def test_the_crds_go_or_stay_out_when_asked() -> None:
    assert "CustomResourceDefinition" not in kinds(render("--set=crds.enabled=false"))
    gone = [obj for obj in render("--set=crds.keep=false") if obj["kind"] == "CustomResourceDefinition"]
    assert len(gone) == 4
    assert not any("annotations" in obj["metadata"] for obj in gone)


@pytest.mark.parametrize(
    ("values", "told", "crds_by_hand"),
    [
        pytest.param("crds.keep=true", "leaves the CRDs", True, id="kept"),
        pytest.param("crds.keep=false", "removes the CRDs, and with them all objects", False, id="not kept"),
        pytest.param("crds.enabled=false,crds.keep=false", "leaves the CRDs", True, id="installed by others"),
    ],
)
def test_the_notes_say_what_an_uninstall_takes_along(
    tmp_path: Path, values: str, told: str, crds_by_hand: bool
) -> None:
    chart = shutil.copytree(ROOT / "helm" / "winnow", tmp_path / "winnow")
    # Without a cluster helm renders notes only where a template includes them.
    (chart / "templates" / "shown.yaml").write_text(
        'notes: {{ include (print .Template.BasePath "/NOTES.txt") . | toJson }}'
    )
    only = ["--show-only", "templates/shown.yaml", "--kube-version", KUBERNETES, "--set", values]
    done = helm("template", "winnow", str(chart), *only)
    assert done.returncode == 0, done.stderr
    notes = yaml.safe_load(done.stdout)["notes"]
    assert told in notes
    assert "kubectl delete modelservices,datasets" in notes
    assert ("kubectl get crds" in notes) is crds_by_hand


def test_the_operator_may_do_what_it_does() -> None:
    """Each resource that the operator watches can be listed, watched and looked at (a fresh list is held against what is there),
    and nothing else is named but what it writes."""
    granted: dict[tuple[str, str], set[str]] = defaultdict(set)
    for rule in operator_rules():
        for group in rule["apiGroups"]:
            for name in rule["resources"]:
                granted[group, name] |= set(rule["verbs"])
    for resource in resources.WATCHED:
        assert granted[resource.group, resource.plural] >= {"get", "list", "watch"}, resource
    for plural in PRODUCT_KINDS:
        assert granted.pop((resources.GROUP, f"{plural}/status")) == {"patch"}
        assert granted.pop((resources.GROUP, f"{plural}/finalizers")) == {"update"}
        # Of the user's objects only a Dataset is written to, for its finalizer.
        more = {"patch"} if plural == "datasets" else set()
        assert granted[resources.GROUP, plural] == {"get", "list", "watch"} | more
    known = {(resource.group, resource.plural) for resource in resources.ALL}
    assert set(granted) == known


def test_the_operator_reads_no_secrets_and_has_no_wildcards() -> None:
    for rule in operator_rules():
        assert "secrets" not in rule["resources"]
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]


def test_the_operators_pod_meets_the_restricted_standard() -> None:
    pod = one(render(), "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {probe: container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")} == {
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
    }


def test_the_pods_of_a_registry_of_ones_own_come_from_there() -> None:
    (container,) = one(render("--set=image.registry=registry.example.com/ml,image.tag=1.2"), "Deployment")["spec"][
        "template"
    ]["spec"]["containers"]
    env = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert container["image"] == "registry.example.com/ml/operator:1.2"
    assert env["WINNOW_TRAINER_IMAGE"] == "registry.example.com/ml/trainer:1.2"
    assert env["WINNOW_SERVER_IMAGE"] == "registry.example.com/ml/server:1.2"


def test_a_disruption_budget_only_where_it_does_not_block_a_drain() -> None:
    assert "PodDisruptionBudget" not in kinds(render())
    assert one(render("--set=operator.replicas=2"), "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_a_service_monitor_whenever_it_is_asked_for_also_by_gitops_that_renders_without_a_cluster() -> None:
    assert "ServiceMonitor" not in kinds(render())
    monitor = one(render("--set=metrics.serviceMonitor.enabled=true"), "ServiceMonitor")
    service = one(render(), "Service")
    assert monitor["spec"]["endpoints"] == [{"port": service["spec"]["ports"][0]["name"], "path": "/metrics"}]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
