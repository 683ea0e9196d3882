"""The settings file of a Job's pod, in a ConfigMap named by its content."""

from __future__ import annotations

from winnow_operator.build import common
from winnow_operator.resources import Object


def config_map(owner: common.Owner, data: dict[str, str]) -> Object:
    return common.named_by_content(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": common.metadata(owner, owner.metadata.name),
            "immutable": True,
            "data": data,
        }
    )
