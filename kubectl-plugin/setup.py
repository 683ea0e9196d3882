"""The dependencies. winnow-classifier is taken from the clone that this folder stands in, by its path: no registry is
asked for a package of that name, and the plugin judges rows exactly as the clone's own trainer does."""

from pathlib import Path

from setuptools import setup  # type: ignore[import-untyped]

CLASSIFIER = Path(__file__).resolve().parent.parent / "classifier"

setup(
    install_requires=[
        f"winnow-classifier @ {CLASSIFIER.as_uri()}",
        # What reading rows needs of the classifier's libraries: not torch.
        "numpy",
        "orjson",
        "pyarrow",
        "pydantic>=2",
        "pyyaml",
        # The command line, and the cluster.
        "typer>=0.20",
        "rich",
        "kubernetes>=36",
        "aiohttp",
    ]
)
