"""The chart on the real cluster: upgrade in place, uninstall, what stays, and install again over what stayed."""

from __future__ import annotations

import json

from e2e_support import CHART, ROOT, Cluster, helm, model_service


def test_uninstall_leaves_the_users_objects_and_an_install_takes_them_up_again(cluster: Cluster) -> None:
    """Objects and CRDs survive (crds.keep); the operator, its rights and its Lease do not; a new install reconciles."""
    cluster.apply(model_service("mail"))
    cluster.wait("modelservice", "mail", "Ready")
    system = Cluster("winnow-system")
    values = helm(cluster, "get", "values", "winnow", "--namespace", "winnow-system", "-o", "json")
    try:
        helm(cluster, "upgrade", *CHART, "--reuse-values", "--wait")
        helm(cluster, "uninstall", "winnow", "--namespace", "winnow-system", "--wait")
        ours = "deployments.apps,services,serviceaccounts,roles,rolebindings,pods"

        def left() -> list[str]:
            return [name for name in system.run("get", ours, "-o", "name").split() if "winnow" in name]

        system.until("the operator's pod to give its Lease back and end", lambda: not left(), seconds=60)
        cluster_wide = system.run("get", "clusterroles,clusterrolebindings", "-o", "name").split()
        assert not [name for name in cluster_wide if "winnow" in name], cluster_wide
        crds = [crd["metadata"]["name"] for crd in system.list("customresourcedefinitions")]
        assert sum(name.endswith(".winnow.dev") for name in crds) == 4
        assert cluster.get("modelservice", "mail")["spec"]["baseModel"]
    finally:
        given = json.loads(values) or {}
        file = ROOT / ".local" / "e2e-values.json"
        file.write_text(json.dumps(given))
        helm(cluster, "upgrade", "--install", *CHART, "--create-namespace", "--values", str(file), "--wait")
    cluster.apply(model_service("second"))
    cluster.wait("modelservice", "second", "Ready")
