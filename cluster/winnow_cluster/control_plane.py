"""The command lines of etcd, the API server, the controllers and the scheduler. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from winnow_cluster.certificates import Authority, KeyPair

Program = Callable[[str], Path]
LOOPBACK = "127.0.0.1"
DOMAIN = "cluster.local"
FRONT_PROXY = "front-proxy-client"  # as whom the API server passes requests on to others, for the user named in headers


@dataclass(frozen=True)
class Endpoint:
    """Where one API server is found, and what it hands out."""

    address: str
    port: int
    etcd_port: int
    service_range: str
    service_address: str  # the first of that range: `kubernetes.default`

    @property
    def url(self) -> str:
        return f"https://{self.address}:{self.port}"

    @property
    def etcd_url(self) -> str:
        return f"http://{LOOPBACK}:{self.etcd_port}"  # no TLS: only this machine's loopback reaches it


@dataclass(frozen=True)
class Keys:
    """Every certificate of a control plane."""

    authority: Path
    server: KeyPair
    admin: KeyPair
    controller_manager: KeyPair
    scheduler: KeyPair
    tokens: KeyPair
    front_proxy: KeyPair

    @classmethod
    def create(cls, authority: Authority, endpoint: Endpoint) -> "Keys":
        authority.create()
        names = [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            f"kubernetes.default.svc.{DOMAIN}",
        ]
        addresses = [endpoint.address, LOOPBACK, endpoint.service_address]
        return cls(
            authority=authority.certificate,
            server=authority.sign("apiserver", "kube-apiserver", addresses=addresses, names=names),
            admin=authority.sign("admin", "admin", group="system:masters"),
            controller_manager=authority.sign("controller-manager", "system:kube-controller-manager"),
            scheduler=authority.sign("scheduler", "system:kube-scheduler"),
            tokens=authority.token_key(),
            front_proxy=authority.sign("front-proxy", FRONT_PROXY),
        )


def etcd(program: Program, endpoint: Endpoint, peer_port: int, data: Path) -> list[str]:
    peer_url = f"http://{LOOPBACK}:{peer_port}"
    return [
        str(program("etcd")),
        f"--data-dir={data}",
        f"--listen-client-urls={endpoint.etcd_url}",
        f"--advertise-client-urls={endpoint.etcd_url}",
        f"--listen-peer-urls={peer_url}",
        f"--initial-advertise-peer-urls={peer_url}",
        f"--initial-cluster=default={peer_url}",
        # A power cut may lose this cluster; in exchange every write takes microseconds on any disk.
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def api_server(program: Program, endpoint: Endpoint, keys: Keys, with_nodes: bool) -> list[str]:
    """`with_nodes`: false where no kubelet and no proxy will ever come, as in the integration tests."""
    arguments = [
        str(program("kube-apiserver")),
        f"--etcd-servers={endpoint.etcd_url}",
        f"--bind-address={endpoint.address}",
        f"--secure-port={endpoint.port}",
        f"--tls-cert-file={keys.server.certificate}",
        f"--tls-private-key-file={keys.server.key}",
        f"--client-ca-file={keys.authority}",
        f"--service-cluster-ip-range={endpoint.service_range}",
        f"--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}",
        f"--service-account-key-file={keys.tokens.certificate}",
        f"--service-account-signing-key-file={keys.tokens.key}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",  # Pod Security decides, namespace by namespace
        "--profiling=false",
    ]
    if with_nodes:
        return [
            *arguments,
            f"--advertise-address={endpoint.address}",
            # APIs that others serve, such as KEDA's of metrics
            f"--requestheader-client-ca-file={keys.authority}",
            f"--requestheader-allowed-names={FRONT_PROXY}",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={keys.front_proxy.certificate}",
            f"--proxy-client-key-file={keys.front_proxy.key}",
            f"--kubelet-certificate-authority={keys.authority}",
            # logs, exec and port-forward: the API server calls the kubelet as an administrator
            f"--kubelet-client-certificate={keys.admin.certificate}",
            f"--kubelet-client-key={keys.admin.key}",
            "--kubelet-preferred-address-types=InternalIP",
        ]
    # It will not put a loopback address into the endpoints of `kubernetes.default`; nobody reads them there.
    return [*arguments, "--endpoint-reconciler-type=none"]


def controller_manager(program: Program, endpoint: Endpoint, keys: Keys, kubeconfig: Path, port: int) -> list[str]:
    return [
        str(program("kube-controller-manager")),
        *_client(endpoint, kubeconfig, port),
        f"--root-ca-file={keys.authority}",
        f"--service-account-private-key-file={keys.tokens.key}",
        f"--service-cluster-ip-range={endpoint.service_range}",
        "--use-service-account-credentials",
        f"--flex-volume-plugin-dir={kubeconfig.parent / 'volume-plugins'}",  # else it makes one under /usr
        # The defaults, 20 and 30, are the bottleneck when a test makes a hundred Jobs at once.
        "--kube-api-qps=300",
        "--kube-api-burst=600",
    ]


def scheduler(program: Program, endpoint: Endpoint, kubeconfig: Path, port: int) -> list[str]:
    return [str(program("kube-scheduler")), *_client(endpoint, kubeconfig, port)]


def _client(endpoint: Endpoint, kubeconfig: Path, port: int) -> list[str]:
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        f"--bind-address={endpoint.address}",
        f"--secure-port={port}",
        "--leader-elect=false",  # there is one of each; waiting for a lease costs 15 s after a crash
        "--profiling=false",
    ]
