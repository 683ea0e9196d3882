"""Manifests in examples/, the README and docs/ apply as they stand."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from integration_client import RefusedError
from integration_cluster import Cluster

from winnow_cluster.paths import Paths
from winnow_cluster.tools import Toolbox

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*/*.yaml"))
BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
SEPARATOR = re.compile(r"^---\n", re.MULTILINE)


def manifests() -> list[tuple[str, str]]:
    """(where it stands, its YAML) of every manifest for a cluster; a laptop's job.yaml has no apiVersion."""
    texts = [(path, path.read_text()) for path in EXAMPLES]
    texts += [(path, block) for path in PAGES for block in BLOCK.findall(path.read_text())]
    found = []
    for path, text in texts:
        for document in SEPARATOR.split(text):
            obj = yaml.safe_load(document) or {}
            if obj.get("apiVersion", "").startswith("winnow.dev/"):
                found.append((f"{path.relative_to(ROOT)}: {obj['kind']} {obj['metadata']['name']}", document))
    return found


MANIFESTS = manifests()


@pytest.mark.parametrize("manifest", [pytest.param(text, id=where) for where, text in MANIFESTS])
async def test_a_manifest_is_accepted_as_it_stands(dry: Cluster, manifest: str) -> None:
    await dry.client.check(manifest, dry.namespace)


@pytest.mark.parametrize("place", ["README.md", "examples/smallest", "examples/email-spam", "examples/llama-3.1-8b"])
def test_all_four_kinds_are_shown(place: str) -> None:
    shown = {where.split(": ")[1].split()[0] for where, _ in MANIFESTS if where.startswith(place)}
    assert shown == {"ModelService", "Dataset", "TrainingJob", "Deployment"}


async def test_a_misspelt_field_would_be_noticed(dry: Cluster) -> None:
    manifest = next(text for where, text in MANIFESTS if "Deployment" in where) + "\n  replica: 2\n"
    with pytest.raises(RefusedError, match="replica"):
        await dry.client.check(manifest, dry.namespace)


def test_kustomize_renames_what_is_named_too(tmp_path: Path) -> None:
    shutil.copy(ROOT / "examples" / "gitops" / "kustomizeconfig.yaml", tmp_path)
    shutil.copy(ROOT / "examples" / "smallest" / "winnow.yaml", tmp_path)
    (tmp_path / "kustomization.yaml").write_text(
        "namePrefix: team-\nresources: [winnow.yaml]\nconfigurations: [kustomizeconfig.yaml]\n"
    )
    kubectl = Toolbox(Paths.of_this_clone()).program("kubectl")
    built = subprocess.run([kubectl, "kustomize", tmp_path], check=True, capture_output=True, text=True).stdout
    objects = {obj["kind"]: obj for obj in yaml.safe_load_all(built)}
    assert objects["ModelService"]["metadata"]["name"] == "team-spam-filter"
    assert objects["Dataset"]["spec"]["modelService"] == "team-spam-filter"
    assert objects["TrainingJob"]["spec"]["trainingDataset"] == "team-spam-train"
    assert objects["Deployment"]["spec"]["checkpoint"]["trainingJob"] == "team-spam-v1"
