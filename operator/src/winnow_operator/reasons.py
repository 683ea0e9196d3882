"""The words that users script against: every reason that a condition or an event can carry."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Each with the sentence that the docs show."""

    sentence: str

    def __new__(cls, value: str, sentence: str) -> Reason:
        member = str.__new__(cls, value)
        member._value_ = value
        member.sentence = sentence
        return member

    # Any kind
    NAME_CONFLICT = "NameConflict", "An object of the name that is needed belongs to someone else; it is left alone."
    API_REFUSED = "ApiRefused", "The API server refused an object, for example because of a quota or an admission rule."
    NOT_UNDERSTOOD = (
        "NotUnderstood",
        "The operator's version does not know a field of the object, or refuses its value; nothing is done about it.",
    )
    MODEL_SERVICE_NOT_FOUND = "ModelServiceNotFound", "The ModelService does not exist in this namespace (yet)."

    # ModelService
    STORAGE_READY = "StorageReady", "The volume is bound, or storage is a bucket."
    WAITING_FOR_FIRST_CONSUMER = "WaitingForFirstConsumer", "The volume will be made for the first pod that uses it."
    STORAGE_PENDING = "StoragePending", "The volume is not bound yet."
    STORAGE_CLASS_NOT_FOUND = "StorageClassNotFound", "The claim names a storage class that does not exist."
    NO_DEFAULT_STORAGE_CLASS = "NoDefaultStorageClass", "No storage class is named and the cluster has no default one."
    CLAIM_NOT_FOUND = "ClaimNotFound", "The PersistentVolumeClaim that spec.storage names does not exist (yet)."
    STORAGE_LOST = "StorageLost", "The claim lost its volume."
    STORAGE_BEING_DELETED = (
        "StorageBeingDeleted",
        "The claim is being deleted and waits for the pods that use it; nothing new starts on it.",
    )
    COLLECTED = "Collected", "Rows of deleted datasets, or checkpoints beyond retention, were removed from storage."
    COLLECTION_FAILED = "CollectionFailed", "What nobody needs any more could not be removed from storage (yet)."

    # Dataset
    VERIFIED = "Verified", "All rows are valid and stored."
    IMPORTING = "Importing", "The rows are being read and checked."
    AWAITING_UPLOAD = "AwaitingUpload", "The import waits for the file that `kubectl winnow upload` sends."
    UPLOAD_ABANDONED = "UploadAbandoned", "No byte of the file came for an hour; upload it again."
    INVALID_ROWS = "InvalidRows", "Some rows are wrong; status.problems names their lines."
    EMPTY_DATASET = "EmptyDataset", "The source has no rows."
    SOURCE_UNREACHABLE = "SourceUnreachable", "The source does not exist or cannot be read (yet)."
    STORAGE_FULL = "StorageFull", "The storage of the ModelService has no room left."
    IMPORT_FAILED = "ImportFailed", "The import ended without saying why."
    IN_USE = "InUse", "A running training reads the rows; the Dataset goes once it ends, is suspended or deleted."

    # TrainingJob: acceptance
    ACCEPTED = "Accepted", "The spec fits its datasets."
    DATASET_NOT_FOUND = "DatasetNotFound", "A dataset does not exist in this namespace (yet)."
    DATASET_BEING_DELETED = "DatasetBeingDeleted", "A dataset is being deleted, so no training starts on it."
    DATASET_NOT_READY = "DatasetNotReady", "A dataset is not imported yet."
    DATASET_FAILED = "DatasetFailed", "A dataset could not be imported."
    DATASET_OF_ANOTHER_MODEL_SERVICE = "DatasetOfAnotherModelService", "A dataset belongs to another ModelService."
    SINGLE_CLASS = "SingleClass", "All training rows have the same label, so there is nothing to learn."
    LABELS_DIFFER = "LabelsDiffer", "The test or validation rows have labels that the training rows lack."
    STORAGE_OF_ONE_POD = "StorageOfOnePod", "The storage of the ModelService is for one pod, and the job has several."
    TOO_FEW_GPUS = "TooFewGpus", "resources.limits has fewer GPUs than processesPerNode."
    METRIC_DOES_NOT_FIT = "MetricDoesNotFit", "A metric is not defined for this kind of labels."
    PARAMETERS_DO_NOT_FIT = (
        "ParametersDoNotFit",
        "A parameter names a label that the rows lack, or does not fit their kind.",
    )
    THRESHOLDS_DO_NOT_FIT = (
        "ThresholdsDoNotFit",
        "What spec.thresholds asks for is not defined for this kind of labels.",
    )
    METRIC_SOURCE_NOT_FOUND = (
        "MetricSourceNotFound",
        "A ConfigMap of metrics.custom does not exist in this namespace (yet).",
    )

    # TrainingJob: the run
    NOT_SUSPENDED = "NotSuspended", "spec.suspend is false."
    SUSPENDED = "Suspended", "spec.suspend is true; the run goes on from its resume point when it is false again."
    STOPPING = "Stopping", "The pod writes its resume point before it ends."
    QUEUED = "Queued", "The batch Job waits in a queue."
    STARTING = "Starting", "The pod is being started."
    UNSCHEDULABLE = "Unschedulable", "No node has room for the pod, or a volume of it is missing."
    IMAGE_PULL_FAILED = "ImagePullFailed", "An image cannot be pulled."
    CONTAINER_NOT_CREATED = (
        "ContainerNotCreated",
        "The container cannot be created, for example because a Secret is missing.",
    )
    TRAINING = "Training", "The pod trains."
    RESTARTING = "Restarting", "The last pod ended early; the next one goes on from the last resume point."
    NOT_FINISHED = "NotFinished", "The job has not ended."
    TRAINING_COMPLETE = "TrainingComplete", "All epochs are done."
    STOPPED_EARLY = "StoppedEarly", "The primary metric stopped getting better, as earlyStopping asks; the job is done."
    NOT_FAILED = "NotFailed", "Nothing failed."
    OUT_OF_MEMORY = "OutOfMemory", "A smaller perDeviceTrainBatchSize or maxSeqLength, or a higher memory limit, helps."
    DIVERGED = "Diverged", "The loss became NaN or infinite; a lower learningRate helps."
    INVALID_CONFIGURATION = (
        "InvalidConfiguration",
        "The spec asks for something that does not work; the message says what.",
    )
    BASE_MODEL_INVALID = "BaseModelInvalid", "The base model does not exist or lacks a file."
    DATA_INVALID = "DataInvalid", "The stored rows cannot be used."
    STORAGE_UNAVAILABLE = "StorageUnavailable", "Storage or network failed, also when tried again."
    PEERS_UNREACHABLE = "PeersUnreachable", "The pods of a job with several nodes cannot reach each other."
    GPU_NOT_SEEN = "GpuNotSeen", "The pod was given a GPU that torch does not see, also when tried again."
    PEER_LOST = "PeerLost", "Another pod of the job ended, so this one did too; all go on from the resume point."
    DEADLINE_EXCEEDED = "DeadlineExceeded", "The run took longer than activeDeadlineSeconds."
    TOO_MANY_RESTARTS = "TooManyRestarts", "The pod failed more often than maxRestarts allows."
    JOB_FAILED = "JobFailed", "The batch Job failed."

    # Deployment
    TRAINING_JOB_NOT_FOUND = "TrainingJobNotFound", "The TrainingJob does not exist in this namespace (yet)."
    TRAINING_JOB_OF_ANOTHER_MODEL_SERVICE = (
        "TrainingJobOfAnotherModelService",
        "The TrainingJob belongs to another ModelService.",
    )
    CHECKPOINT_NOT_READY = "CheckpointNotReady", "The training has not written the checkpoint yet."
    CHECKPOINT_NOT_FOUND = "CheckpointNotFound", "The training ended without a checkpoint of that name."
    CHECKPOINT_REMOVED = (
        "CheckpointRemoved",
        "Retention has removed the checkpoint from storage; choose one that is there.",
    )
    CHECKPOINT_FAILED = "CheckpointFailed", "The server cannot load the checkpoint; what was live stays live."
    THRESHOLDS_DIFFER = (
        "ThresholdsDiffer",
        "spec.thresholds names labels that the checkpoint lacks; it is served with the others.",
    )
    LEADER_UNCLEAR = (
        "LeaderUnclear",
        "The ModelService's jobs have different primary metrics, so none of their checkpoints leads.",
    )
    JUDGING = "Judging", "The gate measures the checkpoint; what is live goes on serving."
    GATE_FAILED = "GateFailed", "The checkpoint does not pass spec.gate; what is live goes on serving."
    ROLLED_BACK = "RolledBack", "The checkpoint did not come up, or crashed; what was live before serves again."
    ROLLED_BACK_BY_HAND = "RolledBackByHand", "spec.checkpoint names a checkpoint that was live before."
    WATCHING = "Watching", "The checkpoint is live, and is taken back should its server crash in its first minutes."
    PROMOTED = "Promoted", "The checkpoint went live, passed the gate if there is one, and stays."
    ROLLING_OUT = "RollingOut", "New pods are being started; the old ones serve until the new ones are ready."
    PAUSED = "Paused", "Somebody has paused the apps/v1 Deployment; what is live goes on serving."
    LIVE = "Live", "The checkpoint that the spec asks for is served by all replicas."
    SERVING = "Serving", "Pods answer requests."
    NOT_SERVING = "NotServing", "No pod answers requests."
    SCALED_TO_ZERO = "ScaledToZero", "No replicas are asked for."
    ASLEEP = "Asleep", "No pod runs; requests are held by the waker until the autoscaler has started one."
    WAKER_STARTING = "WakerStarting", "No pod runs, and the waker, which holds requests meanwhile, is not ready."
    AUTOSCALING = "Autoscaling", "An autoscaler chooses the replicas."
    AUTOSCALER_STARTING = "AutoscalerStarting", "The autoscaler has said nothing yet."
    METRIC_UNAVAILABLE = (
        "MetricUnavailable",
        "The autoscaler cannot read how many tokens wait, or cannot scale; the replicas stay as they are.",
    )
    KIND_NOT_INSTALLED = (
        "KindNotInstalled",
        "A field needs a kind of another project that the cluster lacks (yet); serving goes on without it.",
    )
    NOT_MADE_YET = "NotMadeYet", "The object that is asked for is not there yet."
    MONITORED = "Monitored", "A ServiceMonitor points Prometheus to the pods."
    EXPOSED = "Exposed", "A way in from outside is made, and not refused."
    ROUTE_PENDING = "RoutePending", "No Gateway has taken up the HTTPRoute yet."
    ROUTE_NOT_ACCEPTED = "RouteNotAccepted", "A Gateway refuses the HTTPRoute; the message says why."


def known(text: str) -> Reason | None:
    """The reason of that name, if there is one: a pod may say anything."""
    return next((reason for reason in Reason if reason == text), None)
