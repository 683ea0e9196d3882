"""What an S3 server answers where it does not serve, as errors that say what a person can do about it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from winnow_classifier.bucket import Bucket, Refused, Unreachable
from winnow_classifier.errors import ConfigError, StorageAway, StorageError, StorageFull, StorageRefused

NOT_REACHED = "see whether the server runs and can be reached"
KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_LATER = ("ExpiredToken", "RequestTimeTooSkewed", "InvalidObjectState")
_UNKNOWN_KEYS = ("InvalidAccessKeyId", "XAdminUserNotFound", "SignatureDoesNotMatch", "InvalidToken", "Unauthorized")
_HINTS: Mapping[str, str] = {
    "NoSuchBucket": "there is no such bucket: make it, or check {field}.uri and endpoint",
    "InvalidAccessKeyId": "the server does not know the AWS_ACCESS_KEY_ID of {field}.secretRef",
    "XAdminUserNotFound": "the server does not know the AWS_ACCESS_KEY_ID of {field}.secretRef",  # Versity
    "SignatureDoesNotMatch": "the AWS_SECRET_ACCESS_KEY of {field}.secretRef does not belong to its key id",
    "ExpiredToken": "the AWS_SESSION_TOKEN of {field}.secretRef has run out",
    "RequestTimeTooSkewed": "the clocks of this machine and of the server differ",
    "0": "check {field}.endpoint",
    "301": "check {field}.region and endpoint",
    "307": "check {field}.region and endpoint",
}


@contextlib.contextmanager
def told(
    bucket: Bucket, uri: str, field: str, rights: str, refusal: type[ConfigError] = StorageRefused
) -> Iterator[None]:
    """`field` is where a manifest names the bucket, `rights` what its keys must be allowed. Raises `refusal` for what a
    person has to change, StorageAway, StorageFull, or StorageError where a later try may help."""
    try:
        yield
    except Unreachable as err:
        message = f"{uri}: {bucket.server} does not answer as it should; the last try: {err}"
        raise StorageAway(message, hint=out_of_reach(str(err))) from err
    except StorageRefused as err:
        raise refusal(f"{uri}: {err}", hint=err.hint) from err
    except Refused as err:
        if err.status == 507 or "QuotaExceeded" in err.code or "StorageFull" in err.code:
            message = f"{uri}: the bucket is full ({err})"
            raise StorageFull(message, hint="raise its quota or delete old runs") from err
        message, hint = f"{uri}: {bucket.server} answers {err}", _hint(bucket, err, field, rights)
        # Keys that were good before were replaced meanwhile: who is started anew has those that the Secret has by now.
        later = err.code in _LATER or (bucket.served and err.code in _UNKNOWN_KEYS)
        raise (StorageError if later else refusal)(message, hint=hint) from err


def out_of_reach(said: str) -> str:
    """What to do about a server that could not be spoken with."""
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return "its certificate must be valid today, name this host, and be signed by an authority that is known here"
    return NOT_REACHED


def _hint(bucket: Bucket, err: Refused, field: str, rights: str) -> str | None:
    if err.region:
        return f"the bucket lies in {err.region}: set {field}.region (AWS_REGION)"
    known = _HINTS.get(err.code) or _HINTS.get(str(err.status))
    if known or err.status not in (401, 403):
        return known.format(field=field) if known else None
    if not bucket.signs:
        return (
            f"it was asked without keys, since {KEYS} are not both there: give the Secret of {field}.secretRef both "
            "keys; outside a cluster, set them in the environment"
        )
    return f"the keys of {field}.secretRef need {rights}"
