"""What can go wrong with a cluster, each with the plugin's exit code.

WinnowError
├── ConfigError          10   the command line, the kubeconfig
└── ClusterError          1   the cluster refused, or has no such thing
    ├── SignedOut         1   the credentials are not valid, or no longer
    ├── UploadRefused     1   the import pod does not take the file
    └── Unreachable      20   nothing answers: worth a retry
"""

from __future__ import annotations

from winnow_classifier.errors import WinnowError


class ClusterError(WinnowError):
    exit_code = 1
    reason = "ClusterRefused"


class SignedOut(ClusterError):  # noqa: N818 - named as the state that users meet
    pass


class UploadRefused(ClusterError):  # noqa: N818 - named as the state that users meet
    reason = "UploadRefused"


class Unreachable(ClusterError):  # noqa: N818 - named as the state that users meet
    exit_code = 20
    reason = "ClusterUnreachable"
