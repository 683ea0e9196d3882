"""What counts as a difference between what is wanted and what stands at the API server."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from winnow_operator.drift import differs, stamped, taken_over
from winnow_operator.quantities import quantity
from winnow_operator.resources import Object

WANTED: Object = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "labels": {"app.kubernetes.io/managed-by": "winnow"}},
    "spec": {
        "replicas": 2,
        "template": {
            "spec": {"containers": [{"name": "server", "resources": {"limits": {"cpu": "1000m", "memory": "1.5Gi"}}}]}
        },
    },
}


def as_kept() -> Object:
    """With the API server's defaults, other writers' fields and canonical quantities."""
    live = stamped(WANTED)
    live["metadata"].update(uid="u", resourceVersion="5", generation=3)
    live["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "2"
    live["spec"]["progressDeadlineSeconds"] = 600
    container = live["spec"]["template"]["spec"]["containers"][0]
    container["terminationMessagePolicy"] = "File"
    container["resources"]["limits"] = {"cpu": "1", "memory": "1536Mi"}
    return live


def test_what_was_applied_is_what_is_wanted() -> None:
    assert not differs(WANTED, as_kept())


def edit(path: list[Any], value: Any) -> Callable[[Object], None]:
    def change(obj: Object) -> None:
        for part in path[:-1]:
            obj = obj[part]
        if value is None:
            del obj[path[-1]]
        else:
            obj[path[-1]] = value

    return change


CONTAINERS = ["spec", "template", "spec", "containers"]
EDITS = [
    pytest.param(edit(["spec", "replicas"], 5), id="a value"),
    pytest.param(edit(["spec", "replicas"], None), id="a field removed"),
    pytest.param(edit(["metadata", "labels"], {}), id="a label removed"),
    pytest.param(edit([*CONTAINERS, 0, "resources", "limits", "cpu"], "2"), id="a quantity"),
    pytest.param(edit(CONTAINERS, [{}, {}]), id="a list grown"),
    pytest.param(edit(["metadata", "annotations"], None), id="our digest removed"),
]


@pytest.mark.parametrize("change", EDITS)
def test_what_others_changed_of_it_is_noticed(change: Callable[[Object], None]) -> None:
    live = as_kept()
    change(live)
    assert differs(WANTED, live)


def test_a_field_that_is_no_longer_wanted_is_noticed() -> None:
    less = copy.deepcopy(WANTED)
    del less["spec"]["replicas"]
    assert differs(less, as_kept())


EMPTY = [
    pytest.param(["env"], [{"name": "A", "value": ""}], [{"name": "A"}], id="a value"),
    pytest.param(["resources"], {"limits": {}}, {}, id="a map"),
    pytest.param(["args"], [], None, id="a list"),
]


@pytest.mark.parametrize(("path", "wanted", "kept"), EMPTY)
def test_what_the_api_server_drops_since_it_is_empty_is_no_difference(path: list[str], wanted: Any, kept: Any) -> None:
    asked = copy.deepcopy(WANTED)
    edit([*CONTAINERS, 0, *path], wanted)(asked)
    live = as_kept()
    live["metadata"]["annotations"].update(stamped(asked)["metadata"]["annotations"])
    live["spec"]["template"]["spec"]["containers"][0].pop(path[0], None)
    if kept is not None:
        edit([*CONTAINERS, 0, *path], kept)(live)
    assert not differs(asked, live)


def test_stamping_leaves_its_argument_alone() -> None:
    before = copy.deepcopy(WANTED)
    stamped(WANTED)
    assert before == WANTED


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("1", "1000m"),
        ("1.5Gi", "1536Mi"),
        ("2k", "2000"),
        ("0.5", "500m"),
        ("1Ki", "1024"),
        ("1E", "1000P"),
        ("0.0001", "100u"),
        ("1m", "1000000n"),
    ],
)
def test_quantities_are_compared_by_value(left: str, right: str) -> None:
    assert quantity(left) == quantity(right)


def test_what_others_specified_becomes_ours_but_for_their_metadata_and_subresources() -> None:
    def entry(manager: str, fields: Object, **more: Any) -> Object:
        return {"manager": manager, "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": fields, **more}

    probe: Object = {"f:template": {"f:readinessProbe": {"f:httpGet": {"f:port": {}}}}}
    other: Object = {"f:template": {"f:readinessProbe": {"f:tcpSocket": {"f:port": {}}}}}
    both: Object = {"f:template": {"f:readinessProbe": {"f:httpGet": {"f:port": {}}, "f:tcpSocket": {"f:port": {}}}}}
    note: Object = {"f:metadata": {"f:annotations": {"f:team": {}}}}
    ours = entry("winnow-deployment", {"f:spec": probe}, operation="Apply")
    scaled = entry("autoscaler", {"f:spec": {"f:replicas": {}}}, subresource="scale")
    noted = entry("kubectl-annotate", note)
    edited = entry("kubectl-edit", {"f:spec": other, **note})
    assert taken_over([noted, ours, scaled, edited], "winnow-deployment") == [
        {**ours, "fieldsV1": {"f:spec": both}},
        noted,
        scaled,
        {**edited, "fieldsV1": note},
    ]
    assert taken_over([noted, ours, scaled], "winnow-deployment") is None
    assert taken_over([edited], "winnow-deployment") is None
