"""Where pods may run, beside which others, and how evenly: as in a pod, by label."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from .common import ObjectName, PodSettings, Spec

LabelValue = Annotated[str, StringConstraints(max_length=63)]
LabelKey = Annotated[str, StringConstraints(min_length=1, max_length=317)]
LabelValues = Annotated[tuple[LabelValue, ...], Field(max_length=64)]
Weight = Annotated[int, Field(ge=1, le=100)]
NamespaceName = Annotated[str, StringConstraints(min_length=1, max_length=63)]


class LabelRequirement(Spec):
    """One condition on a label."""

    key: LabelKey
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: LabelValues | None = None


class NodeRequirement(Spec):
    """One condition on a label of a node."""

    key: LabelKey
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    values: LabelValues | None = None


class LabelSelector(Spec):
    """Pods or namespaces, by their labels."""

    match_labels: Annotated[Mapping[str, LabelValue], Field(max_length=32)] | None = None
    match_expressions: Annotated[tuple[LabelRequirement, ...], Field(max_length=32)] | None = None


class NodeTerm(Spec):
    """A description of nodes."""

    match_expressions: Annotated[tuple[NodeRequirement, ...], Field(max_length=32)]


class NodeTerms(Spec):
    """Descriptions of nodes, one of which must fit."""

    node_selector_terms: Annotated[tuple[NodeTerm, ...], Field(min_length=1, max_length=16)]


class PreferredNodes(Spec):
    """A preference among nodes."""

    weight: Weight
    preference: NodeTerm


class NodeAffinity(Spec):
    """Nodes, by their labels."""

    required_during_scheduling_ignored_during_execution: NodeTerms | None = None
    preferred_during_scheduling_ignored_during_execution: (
        Annotated[tuple[PreferredNodes, ...], Field(max_length=16)] | None
    ) = None


class PodTerm(Spec):
    """Other pods, and what counts as the same place."""

    label_selector: LabelSelector
    namespaces: Annotated[tuple[NamespaceName, ...], Field(max_length=32)] | None = None
    topology_key: LabelKey


class PreferredPods(Spec):
    """A preference among neighbours."""

    weight: Weight
    pod_affinity_term: PodTerm


class PodAffinity(Spec):
    """Pods to be near to, or to keep away from."""

    required_during_scheduling_ignored_during_execution: Annotated[tuple[PodTerm, ...], Field(max_length=16)] | None = (
        None
    )
    preferred_during_scheduling_ignored_during_execution: (
        Annotated[tuple[PreferredPods, ...], Field(max_length=16)] | None
    ) = None


class Affinity(Spec):
    """As in a pod."""

    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAffinity | None = None


class TopologySpread(Spec):
    """As in a pod; the selector is ours."""

    max_skew: Annotated[int, Field(ge=1, le=1000)]
    topology_key: LabelKey
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"]


class PlacedPods(PodSettings):
    """The subset of a pod that TrainingJob and Deployment expose, whole."""

    affinity: Affinity | None = None
    service_account_name: ObjectName | None = None
