"""Rows of a dataset repository of the Hugging Face Hub: its revision resolved to a commit, that commit's files fetched.

Over winnow_trainer.fetch and not over the Hub's own library, because that connects by itself, past the check of addresses
(ADR 51, ADR 55).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from winnow_classifier.class_labels import ClassNames
from winnow_classifier.errors import SourceError
from winnow_classifier.files import sha256_of_file
from winnow_classifier.manifest import Manifest
from winnow_classifier.profile import Warn
from winnow_classifier.row_paths import MAX_FILES, is_a_path
from winnow_trainer import hub_card, hub_files
from winnow_trainer.fetch import CONTENT, Answer, Fetcher, Limits, Token, shown, status_text
from winnow_trainer.fetched import Fetched
from winnow_trainer.hub_files import Choice, NothingReadable

log = logging.getLogger(__name__)

HUB = "https://huggingface.co"
TOKEN_VARIABLE = "HF_TOKEN"  # as the Hub's own tools read it
MAIN, CONVERTED = "main", "refs/convert/parquet"
LIST_BYTES = 32 * 1024 * 1024  # some 100,000 files with their digests
CARD_BYTES = 8 * 1024 * 1024
_COMMIT = re.compile(r"^[0-9a-f]{40}$")


class TokenRef(Manifest):
    name: str
    key: str = "token"


class HubSource(Manifest):
    repo: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?$")
    revision: str = Field(MAIN, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")
    config: str | None = None
    split: str | None = None
    text_column: str | None = None  # looked into where all columns are: dataset_manifest
    label_column: str | None = None
    token_secret_ref: TokenRef | None = None  # the pod has its value in the environment, as on a laptop
    endpoint: str | None = None


class _Answer(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class _Large(_Answer):
    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class _File(_Answer):
    rfilename: str = Field(min_length=1, max_length=1_024)
    size: int | None = Field(None, ge=0)
    lfs: _Large | None = None


class _Listing(_Answer):
    """A repository at one commit."""

    sha: str = Field(pattern=_COMMIT)
    siblings: list[_File] = []

    @cached_property
    def files(self) -> dict[str, _File]:
        return {file.rfilename: file for file in self.siblings}


class _NoRevisionError(SourceError):
    pass


def fetch(source: HubSource, folder: Path, limits: Limits, token: str | None) -> Fetched:
    """Raises SourceError (SourceUnavailable where a retry may help)."""
    proof = _proof(source, token)
    with Fetcher(limits, proof) as fetcher:
        return _Repository(source, fetcher, proof is not None).fetch(folder)


def _proof(source: HubSource, token: str | None) -> Token | None:
    given = (token or "").strip()
    ref = source.token_secret_ref
    if ref and not given:
        message = f"Secret {ref.name} has no key {ref.key} with content"
        raise SourceError(message, hint=f"put an access token there; outside a cluster, set {TOKEN_VARIABLE}")
    if not re.fullmatch(r"[!-~]*", given):
        where = f"the key {ref.key} of Secret {ref.name}" if ref else TOKEN_VARIABLE
        raise SourceError(f"{where} is no access token", hint="it should hold the token alone")
    # A token from a laptop's environment is the Hub's: another server gets one only where the manifest asks for that.
    if not given or (source.endpoint and not ref):
        return None
    return Token(given, source.endpoint or HUB)


class _Repository:
    def __init__(self, source: HubSource, fetcher: Fetcher, has_token: bool) -> None:
        self._source, self._fetcher, self._has_token = source, fetcher, has_token
        self._endpoint = (source.endpoint or HUB).rstrip("/")

    def fetch(self, folder: Path) -> Fetched:
        listing, choice, class_names, warnings = self._chosen(self._list(self._source.revision))
        if len(choice.files) > MAX_FILES:
            raise SourceError(f"{self._at(listing)}: split {choice.split} has more than {MAX_FILES:,} files")
        where = {"repo": self._source.repo, "commit": listing.sha, "config": choice.config, "split": choice.split}
        log.info("Dataset repository resolved", extra={**where, "files": len(choice.files)})
        files = [self._file(listing, path, folder) for path in choice.files]
        return Fetched(files, {"revision": listing.sha}, class_names, warnings)

    def _chosen(self, listing: _Listing) -> tuple[_Listing, Choice, Mapping[str, ClassNames], list[Warn]]:
        source = self._source
        if hub_files.is_conversion(listing.files):
            with self._said_of(listing):
                return listing, hub_files.choose_converted(listing.files, source.config, source.split), {}, []
        metadata = self._metadata(listing)
        try:
            with self._said_of(listing):
                card = hub_card.card_of(metadata)
                choice = hub_files.choose(listing.files, card, source.repo, source.config, source.split)
        except NothingReadable as err:
            converted = self._conversion(err)
            with self._said_of(converted):
                choice = hub_files.choose_converted(converted.files, source.config, source.split)
            message = f"{err}; the rows are those of the Hub's conversion to Parquet, {CONVERTED}"
            return converted, choice, {}, [Warn("ParquetConversion", message)]
        return listing, choice, card.configs[choice.config].class_names or self._old_names(listing, choice), []

    def _conversion(self, err: NothingReadable) -> _Listing:
        """The Hub keeps one of the main branch only."""
        if self._source.revision != MAIN:
            raise SourceError(
                str(err), f"the Hub's conversion of {MAIN} to Parquet may be there: revision: {CONVERTED}"
            )
        try:
            return self._list(CONVERTED)
        except _NoRevisionError:
            message = f"{err}; and the Hub has no conversion of it to Parquet"
            raise SourceError(message, "bring its rows in another way, as Parquet, JSON or CSV") from err

    def _list(self, revision: str) -> _Listing:
        repo = self._source.repo
        url = f"{self._endpoint}/api/datasets/{repo}/revision/{quote(revision, safe='')}?blobs=true"
        answer = self._fetcher.get(url, LIST_BYTES)
        if answer.status != 200:
            raise self._refused(answer, f"{repo} has no revision {revision}")
        try:
            listing = _Listing.model_validate_json(answer.body)
        except ValidationError as err:
            raise SourceError(f"{shown(url)} does not answer as the Hub does", "check huggingFace.endpoint") from err
        if _COMMIT.fullmatch(revision) and listing.sha != revision:
            raise SourceError(f"{shown(url)} answers with another commit, {listing.sha}", "check huggingFace.endpoint")
        return listing

    def _metadata(self, listing: _Listing) -> dict[str, Any]:
        found: dict[str, Any] = {}
        with self._said_of(listing):
            if (readme := self._small(listing, "README.md")) is not None:
                found = hub_card.metadata_of(readme.decode(errors="replace"))
            if (more := self._small(listing, ".huggingface.yaml")) is not None:
                found |= hub_card.yaml_of(more.decode(errors="replace"), ".huggingface.yaml")
        return found

    def _old_names(self, listing: _Listing, choice: Choice) -> Mapping[str, ClassNames]:
        """Parquet files have the names of their classes themselves."""
        if all(".parquet" in path for path in choice.files):
            return {}
        infos = self._small(listing, "dataset_infos.json")
        return hub_card.class_names_of_infos(infos, choice.config) if infos else {}

    def _small(self, listing: _Listing, path: str) -> bytes | None:
        if path not in listing.files:
            return None
        answer = self._fetcher.get(self._url(listing, path), CARD_BYTES)
        if answer.status != 200:
            raise self._refused(answer, f"{path} cannot be read")
        return answer.body

    def _file(self, listing: _Listing, path: str, folder: Path) -> Path:
        known = listing.files[path]
        if not is_a_path(path):
            raise SourceError(f"{self._at(listing)}: {path!r} is no name for a file", "rename it there")
        size = known.lfs.size if known.lfs else known.size
        answer = self._fetcher.file(self._url(listing, path), folder / path, size=size)
        if answer.status not in CONTENT:
            raise self._refused(answer, f"{self._at(listing)}: {path} cannot be read")
        if known.lfs and sha256_of_file(folder / path) != known.lfs.sha256:
            message = f"{self._at(listing)}: {path} came with other bytes than this commit has"
            raise SourceError(message, "import again; if it stays so, the mirror of huggingFace.endpoint is damaged")
        return folder / path

    def _url(self, listing: _Listing, path: str) -> str:
        return f"{self._endpoint}/datasets/{self._source.repo}/resolve/{listing.sha}/{quote(path)}"

    def _at(self, listing: _Listing) -> str:
        return f"{self._source.repo} at {listing.sha[:12]}"

    @contextmanager
    def _said_of(self, listing: _Listing) -> Iterator[None]:
        """Whose files a choice is about."""
        try:
            yield
        except (hub_card.CardError, hub_files.ChoiceError) as err:
            raise type(err)(f"{self._at(listing)}: {err}", err.hint) from err

    def _refused(self, answer: Answer, missing: str) -> SourceError:
        """`missing`: what to say where the repository is there, and something in it is not."""
        repo, page = self._source.repo, f"{self._endpoint}/datasets/{self._source.repo}"
        code, said = answer.headers.get("x-error-code", ""), status_text(answer.status)
        if code == "RevisionNotFound":
            return _NoRevisionError(missing, "name a branch, a tag, or a commit by its 40 hex digits")
        if code == "EntryNotFound":
            return SourceError(f"{missing}: {shown(self._endpoint)} answers {said}", "its mirror may be incomplete")
        if answer.status in (401, 403) and not self._has_token:
            what = "is gated" if code == "GatedRepo" else "is private or gated, or does not exist"
            hint = (
                f"check huggingFace.repo; for a gated one ask for access at {page}, and name a Secret with an access "
            )
            hint += f"token in huggingFace.tokenSecretRef (outside a cluster: set {TOKEN_VARIABLE})"
            return SourceError(
                f"{repo} {what}: {shown(self._endpoint)} answers {said} to requests without a token", hint
            )
        if answer.status == 401 and code != "RepoNotFound":
            return SourceError(f"{shown(self._endpoint)} does not accept the access token: {said}", _NEW_TOKEN)
        if answer.status == 403:
            hint = f"ask for access at {page} with the token's account, and let the token read gated repositories"
            return SourceError(f"the access token may not read {repo}: {shown(self._endpoint)} answers {said}", hint)
        if answer.status in (401, 404):
            hint = "check huggingFace.repo" + (", and whether the token may read it" if self._has_token else "")
            return SourceError(f"{shown(self._endpoint)} has no dataset repository {repo}: it answers {said}", hint)
        return SourceError(f"{repo} cannot be read: {shown(self._endpoint)} answers {said}", f"see {page}")


_NEW_TOKEN = "it may have run out: make a new one, and put it into the Secret of huggingFace.tokenSecretRef"
