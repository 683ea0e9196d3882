"""A certificate authority of our own and the certificates it signs, made with openssl."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from winnow_cluster.errors import ClusterError

DAYS = "3650"


@dataclass(frozen=True)
class KeyPair:
    certificate: Path
    key: Path


def subject_names(addresses: Sequence[str], names: Sequence[str]) -> str:
    """A subjectAltName; an address must stand there as an IP name, or Go clients refuse it."""
    return ",".join([*(f"IP:{address}" for address in addresses), *(f"DNS:{name}" for name in names)])


@dataclass(frozen=True)
class Authority:
    """Keeps everything in one folder and makes only what is not there yet."""

    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def key(self) -> Path:
        return self.folder / "ca.key"

    def create(self) -> None:
        if self.certificate.exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _openssl(
            "req", "-x509", *_new_key(self.key), "-days", DAYS, "-subj", "/CN=winnow-local-cluster",
            "-addext", "keyUsage=critical,keyCertSign,digitalSignature", "-out", f"{self.certificate}.new",
        )  # fmt: skip
        Path(f"{self.certificate}.new").rename(self.certificate)

    def sign(
        self, file: str, common_name: str, group: str = "", addresses: Sequence[str] = (), names: Sequence[str] = ()
    ) -> KeyPair:
        """A certificate for a client (user and group) and, where addresses are given, for a server too."""
        pair = KeyPair(self.folder / f"{file}.crt", self.folder / f"{file}.key")
        if pair.certificate.exists():
            return pair
        subject = (f"/O={group}" if group else "") + f"/CN={common_name}"
        extensions = [
            "-addext",
            "keyUsage=critical,digitalSignature",
            "-addext",
            "extendedKeyUsage=clientAuth,serverAuth",
        ]
        if addresses or names:
            extensions += ["-addext", f"subjectAltName={subject_names(addresses, names)}"]
        _openssl(
            "req", "-x509", *_new_key(pair.key), "-days", DAYS, "-subj", subject, "-CA", str(self.certificate),
            "-CAkey", str(self.key), "-addext", "basicConstraints=critical,CA:FALSE", *extensions,
            "-out", f"{pair.certificate}.new",
        )  # fmt: skip
        Path(f"{pair.certificate}.new").rename(pair.certificate)
        return pair

    def token_key(self) -> KeyPair:
        """The RSA pair that signs ServiceAccount tokens; `certificate` is its public half."""
        pair = KeyPair(self.folder / "service-accounts.pub", self.folder / "service-accounts.key")
        if not pair.certificate.exists():
            _openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", str(pair.key))
            _openssl("pkey", "-in", str(pair.key), "-pubout", "-out", f"{pair.certificate}.new")
            Path(f"{pair.certificate}.new").rename(pair.certificate)
        return pair


def _new_key(key: Path) -> list[str]:
    return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(key)]


def _openssl(*arguments: str) -> None:
    try:
        done = subprocess.run(["openssl", *arguments], capture_output=True, text=True)
    except FileNotFoundError:
        raise ClusterError("openssl is not installed: run `cluster/cluster deps`") from None
    if done.returncode:
        raise ClusterError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")
