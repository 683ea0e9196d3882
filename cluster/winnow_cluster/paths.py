"""Where everything lies: the clone, the cache that outlives it, and the sockets."""

import os
from dataclasses import dataclass
from pathlib import Path

# Unix socket paths end at 108 bytes, so sockets do not lie in the clone, whose path can be long. One cluster runs on a
# machine at a time, so one fixed place is enough; it is a tmpfs, so a reboot empties it.
RUNTIME = Path("/run/winnow")


@dataclass(frozen=True)
class Paths:
    """The folders of one clone. `cache` may be shared by many clones."""

    clone: Path
    cache: Path

    @classmethod
    def of_this_clone(cls) -> "Paths":
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        return cls(clone=Path(__file__).resolve().parents[2], cache=Path(base) / "winnow")

    @property
    def sources(self) -> Path:
        return self.clone / "cluster"

    @property
    def local(self) -> Path:
        return self.clone / ".local"

    @property
    def state(self) -> Path:
        """What a running cluster keeps: etcd's data, certificates, volumes, logs. `down` removes it."""
        return self.local / "cluster"

    @property
    def kubeconfig(self) -> Path:
        return self.local / "kubeconfig"

    @property
    def bin(self) -> Path:
        """Links to the built tools, for the user's PATH."""
        return self.local / "bin"

    @property
    def containerd_root(self) -> Path:
        """Images and unpacked layers: kept, so that they need not be built again."""
        return self.cache / "containerd"

    @property
    def buildkit_root(self) -> Path:
        return self.cache / "buildkit"
