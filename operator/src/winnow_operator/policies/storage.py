"""Can the storage of a ModelService be used? Of a volume in words, with the storage class's name; of a bucket the pods say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from winnow_operator import api, conditions, pods
from winnow_operator.build.common import storage_claim
from winnow_operator.observed import ModelServiceSeen
from winnow_operator.reasons import Reason
from winnow_operator.resources import GROUP, Object, being_deleted, controller_of, name_of, owned_by, status_of

SHOWN = 5
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


@dataclass(frozen=True, slots=True)
class Verdict:
    ready: bool
    reason: Reason
    message: str
    final: bool = False  # nothing will change without a person


def leaving(claim: Object, service: api.ModelService | None) -> bool:
    """Whether the claim is being deleted, or about to be since an earlier ModelService of the name owns it."""
    return being_deleted(claim) or (service is not None and _of_an_earlier(claim, service))


def _of_an_earlier(claim: Object, service: api.ModelService) -> bool:
    owner = controller_of(claim) or {}
    same = (owner.get("kind"), owner.get("name")) == (service.kind, service.metadata.name)
    return same and not owned_by(claim, service.metadata.uid)


def holders(claim: Object, around: Iterable[Object]) -> tuple[Object, ...]:
    """The pods that keep the claim from going, by name: also pods that ended, but none that has no node yet."""
    return tuple(sorted((pod for pod in around if pod["spec"].get("nodeName") and _mounts(pod, claim)), key=name_of))


def _mounts(pod: Object, claim: Object) -> bool:
    volumes = pod["spec"].get("volumes") or []
    return any((volume.get("persistentVolumeClaim") or {}).get("claimName") == name_of(claim) for volume in volumes)


def judge(seen: ModelServiceSeen) -> Verdict:
    storage = seen.obj.spec.storage
    if storage.s3:
        message = f"Rows and checkpoints go to {storage.s3.uri}; imports and trainings say whether it can be reached"
        return Verdict(True, Reason.STORAGE_READY, message)
    claim, name = storage.persistent_volume_claim, storage_claim(seen.obj)
    if claim is None or name is None:
        raise ValueError("spec.storage has neither volume nor bucket, which the CRD rules out. This is a bug.")
    brought = claim.claim_name is not None
    if seen.claim is None:
        if brought:
            return Verdict(
                False, Reason.CLAIM_NOT_FOUND, f"PersistentVolumeClaim {name} does not exist in this namespace"
            )
        return Verdict(False, Reason.STORAGE_PENDING, f"PersistentVolumeClaim {name} is being created")
    if leaving(seen.claim, seen.obj):
        return _leaving(seen, seen.claim)
    phase = status_of(seen.claim).get("phase", "Pending")
    if phase == "Bound":
        return Verdict(True, Reason.STORAGE_READY, f"PersistentVolumeClaim {name} is bound")
    if phase == "Lost":
        volume = seen.claim["spec"].get("volumeName", "")
        message = f"PersistentVolumeClaim {name} lost its volume {volume}; restore that, or make the ModelService anew"
        return Verdict(False, Reason.STORAGE_LOST, message, final=True)
    return _pending(name, seen.claim, seen.storage_classes)


def _leaving(seen: ModelServiceSeen, claim: Object) -> Verdict:
    """Says what the claim waits for. Imports, measurements and what ended are cleared away by us; people have to stop what
    serves or trains."""
    earlier = " of an earlier ModelService" if _of_an_earlier(claim, seen.obj) else ""
    message = f"PersistentVolumeClaim {name_of(claim)}{earlier} is being deleted, with all that lies in it"
    if not seen.holders:
        message += f". Should it stay, `kubectl describe pvc {name_of(claim)}` tells which pods use it"
        return Verdict(False, Reason.STORAGE_BEING_DELETED, message)
    serving, training = _run_by(seen.holders, "Deployment"), _run_by(seen.holders, "TrainingJob")
    advice = [f"delete Deployment {serving} or scale it to 0"] if serving else []
    advice += [f"suspend or delete TrainingJob {training}"] if training else []
    waits = f"{message}, and waits for pods {conditions.some([name_of(pod) for pod in seen.holders], SHOWN)}"
    message = f"{waits}. To let it go: {'; '.join(advice)}" if advice else waits
    return Verdict(False, Reason.STORAGE_BEING_DELETED, message, final=bool(serving))


def _run_by(holders: Iterable[Object], kind: str) -> str:
    """Names of the objects of this kind whose pods these are, without pods that are ending or have ended."""
    running = [pod for pod in holders if not being_deleted(pod) and not pods.over(pod)]
    labels = [pod["metadata"].get("labels") or {} for pod in running]
    names = sorted({own.get(f"{GROUP}/name", "") for own in labels if own.get(f"{GROUP}/kind") == kind})
    return conditions.some(names, SHOWN)


def _pending(name: str, claim: Object, classes: tuple[Object, ...]) -> Verdict:
    wanted = claim["spec"].get("storageClassName")
    if wanted == "":
        message = f"PersistentVolumeClaim {name} names no storage class and waits for a PersistentVolume that fits it"
        return Verdict(False, Reason.STORAGE_PENDING, message)
    if wanted is None:
        default = next((found for found in classes if _is_default(found)), None)
        if default is None:
            message = (
                f"PersistentVolumeClaim {name} cannot be bound: the cluster has no default storage class. Mark one as the"
                " default, or make the ModelService anew with storage.persistentVolumeClaim.storageClassName"
            )
            return Verdict(False, Reason.NO_DEFAULT_STORAGE_CLASS, message, final=True)
        wanted = name_of(default)
    found = next((found for found in classes if name_of(found) == wanted), None)
    if found is None:
        known = ", ".join(sorted(name_of(known) for known in classes)) or "none"
        message = f"PersistentVolumeClaim {name} cannot be bound: storage class {wanted} does not exist; the cluster has: {known}"
        return Verdict(False, Reason.STORAGE_CLASS_NOT_FOUND, message, final=True)
    if found.get("volumeBindingMode") == "WaitForFirstConsumer":
        message = f"Storage class {wanted} makes the volume of {name} with the first pod that uses it"
        return Verdict(True, Reason.WAITING_FOR_FIRST_CONSUMER, message)
    message = (
        f"PersistentVolumeClaim {name} is not bound yet: storage class {wanted} (provisioner {found.get('provisioner')}) should"
        f" have made a volume at once. `kubectl describe pvc {name}` shows its events"
    )
    return Verdict(False, Reason.STORAGE_PENDING, message)


def _is_default(storage_class: Object) -> bool:
    return (storage_class["metadata"].get("annotations") or {}).get(_DEFAULT_CLASS) == "true"
