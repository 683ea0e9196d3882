"""Base models of the Hugging Face Hub, or of a mirror: what lies there, its files, and what is refused, in words."""

from __future__ import annotations

import contextlib
import glob
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from winnow_classifier.addresses import ALLOWING, Network, NotPublicError
from winnow_classifier.base_model import COMMIT, HUGGING_FACE, instead_of, lacking
from winnow_classifier.errors import BaseModelError, StorageError
from winnow_classifier.files import is_full

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TOKEN = re.compile(r"[!-~]+")
_ENDPOINT_HINT = "check huggingFace.endpoint (outside a cluster: HF_ENDPOINT)"


class HuggingFaceHub:
    """The Hub, or the mirror that HF_ENDPOINT names, which must have a public address or one in `networks` (ADR 97)."""

    def __init__(self, token: str | None, networks: Sequence[Network] = ()) -> None:
        self._token, self._networks = (token or "").strip() or None, networks

    @cached_property
    def _api(self) -> HfApi:
        """One client for all calls, so that they share a connection."""
        from winnow_classifier.hub_client import client

        if self._token and not TOKEN.fullmatch(self._token):  # an error of the client would quote it
            raise BaseModelError(
                "what tokenSecretRef (HF_TOKEN) holds is no token", hint="it should hold the token alone"
            )
        return client(self._token, self._networks)

    def commit(self, repository: str, revision: str) -> str:
        with _hub_errors(f"{HUGGING_FACE}{repository}@{revision}"):
            found = str(self._api.model_info(repository, revision=revision, timeout=30).sha)
            if not COMMIT.fullmatch(found):  # a folder is named after it
                raise LookupError("no commit")
        return found

    def files(self, repository: str, commit: str) -> Mapping[str, int]:
        from huggingface_hub.hf_api import RepoFile

        name = f"{HUGGING_FACE}{repository}@{commit}"
        with _hub_errors(name):
            found = self._api.list_repo_tree(repository, revision=commit)
            sizes = {entry.path: entry.size for entry in found if isinstance(entry, RepoFile)}
        missing = lacking(sizes)
        if missing is not None:
            raise BaseModelError(f"Base model {name} has no {missing}.", instead_of(sizes))
        return sizes

    def download(self, repository: str, commit: str, directory: Path, names: Collection[str]) -> None:
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()  # base_download.py tells how far it is, and bars would break the log's lines of JSON
        patterns = [glob.escape(name) for name in names]
        with _hub_errors(f"{HUGGING_FACE}{repository}@{commit}"):
            self._api.snapshot_download(repository, revision=commit, local_dir=directory, allow_patterns=patterns)
        shutil.rmtree(directory / ".cache", ignore_errors=True)


@contextlib.contextmanager
def _hub_errors(name: str) -> Iterator[None]:
    from httpx2 import HTTPError, InvalidURL  # huggingface_hub's HTTP client

    try:
        from huggingface_hub.constants import ENDPOINT
    except ValueError as error:
        raise BaseModelError(f"{name}: HF_ENDPOINT is no URL: {error}", hint=_ENDPOINT_HINT) from error
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except HFValidationError as error:
        raise BaseModelError(f"{name} can be no repository of the Hub: {error}") from error
    except NotPublicError as error:
        message = f"{name}: {error}, which is not public, and base models are fetched from public addresses only"
        raise BaseModelError(message, hint=ALLOWING) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise BaseModelError(
            f"{name} does not exist at {ENDPOINT}, or this token may not read it. Check repo, revision and tokenSecretRef."
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in (401, 403):
            raise BaseModelError(
                f"{name}: access refused by {ENDPOINT} ({status}). Accept its licence and check the token."
            ) from error
        raise StorageError(f"{name} could not be downloaded from {ENDPOINT}: {error}") from error
    except (LocalEntryNotFoundError, HTTPError, OSError) as error:
        if isinstance(error, OSError) and is_full(error):  # the caller says so, who knows which disk
            raise
        raise StorageError(f"{name} could not be downloaded from {ENDPOINT}: {error}") from error
    except RuntimeError as error:  # all that hf_xet raises, of proxies and certificates that it does not know, too
        raise StorageError(
            f"{name} could not be downloaded from the Hub's store of large files (Xet): {error}",
            hint="with HF_HUB_DISABLE_XET=1 in the environment they come from the Hub itself",
        ) from error
    except (InvalidURL, ValueError, LookupError, TypeError, AttributeError) as error:
        # A page in place of JSON, or JSON of another shape: the library looks at neither.
        message = f"{name}: {ENDPOINT} does not answer as the Hub does: {error!r}"
        raise BaseModelError(message, hint=_ENDPOINT_HINT) from error
