"""The same file into a pod of the local cluster: by `kubectl winnow upload`'s transfer, and by plain `kubectl cp`.

    eval "$(cluster/cluster env)"; python benchmarks/uploading.py [--size-mb 2000] [--rounds 3] [--json FILE]

Both write to the same volume, one after the other in each round, and both are timed from the start of kubectl until all bytes are there; medians count. The upload's time has its
SHA-256 in the pod and the sync to disk in it, which the peer does not do. The bar: 80 % of the peer's speed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from bars import verdict
from winnow_plugin.cluster import Place
from winnow_plugin.forward import forwarded, kubectl
from winnow_plugin.transfer import send
from winnow_plugin.upload import POD_PORT
from winnow_plugin.upload_spec import LocalFile

BAR = 0.8
MB = 1_000_000
NAMESPACE = "bench-uploading"
WAIT_SECONDS = 180
IMAGE = "docker.io/winnow/trainer:dev"
ROW = b'{"prompt": "Please send the minutes of the meeting to the project team before lunch", "completion": 0}\n'


def run(*arguments: str, stdin: str | None = None) -> str:
    command = [str(kubectl()), "-n", NAMESPACE, *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def apply(*manifests: Mapping[str, Any]) -> None:
    run("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)}))


def made(kind: str, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    version = "v1" if kind == "Pod" else "winnow.dev/v1alpha1"
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": dict(spec)}


def places(size_bytes: int) -> list[dict[str, Any]]:
    """A ModelService with room, and a pod that has its volume mounted."""
    base = {"image": {"reference": "docker.io/winnow/base-minilm:dev", "path": "/model"}}
    storage = {"persistentVolumeClaim": {"size": f"{3 * size_bytes // 2**30 + 2}Gi"}}
    container = {
        "name": "sink",
        "image": IMAGE,
        "command": ["sleep", "infinity"],
        "volumeMounts": [{"name": "storage", "mountPath": "/storage"}],
    }
    claim = {"name": "storage", "persistentVolumeClaim": {"claimName": "mail-storage"}}
    sink = {
        "terminationGracePeriodSeconds": 0,
        "securityContext": {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532},
        "containers": [container],
        "volumes": [claim],
    }
    return [made("ModelService", "mail", {"baseModel": base, "storage": storage}), made("Pod", "sink", sink)]


def seconds_of_upload(file: LocalFile, name: str) -> float:
    apply(made("Dataset", name, {"modelService": "mail", "source": file.source()}))
    pod = running_pod(name)
    started = time.perf_counter()
    while True:
        try:
            with forwarded(kubectl(), Place(), NAMESPACE, pod, POD_PORT) as port:
                send(port, file, lambda _: None)
            break
        except Exception as err:  # the pod's program is not up yet
            if time.perf_counter() - started > WAIT_SECONDS:
                raise SystemExit(f"no upload to {pod}: {err}") from err
            time.sleep(1)
            started = time.perf_counter()
    took = time.perf_counter() - started
    if peak := re.search(r"VmHWM:\s+(\d+) kB", run("exec", pod, "--", "cat", "/proc/1/status")):
        print(f"memory of the import pod's program at most {int(peak[1]) / 1_024:.0f} MiB", flush=True)
    run("delete", "wds", name)  # what the import makes of the rows is another benchmark
    return took


def running_pod(name: str) -> str:
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        for pod in json.loads(run("get", "pods", "-l", f"winnow.dev/name={name}", "-o", "json"))["items"]:
            if pod["status"].get("phase") == "Running":
                return str(pod["metadata"]["name"])
        time.sleep(0.5)
    raise SystemExit(f"the import pod of {name} did not start")


def seconds_of_copy(file: LocalFile) -> float:
    started = time.perf_counter()
    run("cp", str(file.path), "sink:/storage/copied")
    took = time.perf_counter() - started
    run("exec", "sink", "--", "rm", "/storage/copied")
    return took


def file_of(folder: Path, size_bytes: int) -> LocalFile:
    path, digest = folder / "rows.jsonl", hashlib.sha256()
    block = ROW * (MB // len(ROW))
    with path.open("wb") as stream:
        while stream.tell() < size_bytes:
            digest.update(block)
            stream.write(block)
        return LocalFile(path, stream.tell(), digest.hexdigest())


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--size-mb", type=int, default=500)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    taken: dict[str, list[float]] = {"kubectl winnow upload": [], "kubectl cp": []}
    with tempfile.TemporaryDirectory() as folder:
        file = file_of(Path(folder), given.size_mb * MB)
        subprocess.run([str(kubectl()), "create", "namespace", NAMESPACE], check=True, stdout=subprocess.DEVNULL)
        try:
            apply(*places(file.size_bytes))
            run("wait", "--for=condition=Ready", "pod/sink", f"--timeout={WAIT_SECONDS}s")
            for number in range(given.rounds):
                taken["kubectl winnow upload"].append(seconds_of_upload(file, f"rows-{number}"))
                taken["kubectl cp"].append(seconds_of_copy(file))
                said = ", ".join(f"{way} {seconds[-1]:.1f} s" for way, seconds in taken.items())
                print(f"round {number + 1}: {said}", flush=True)
        finally:
            subprocess.run([str(kubectl()), "delete", "namespace", NAMESPACE, "--wait=false"], check=False)
    speeds = {way: file.size_bytes / MB / median(seconds) for way, seconds in taken.items()}
    ratio = speeds["kubectl winnow upload"] / speeds["kubectl cp"]
    for way, speed in speeds.items():
        print(f"{way}: {speed:.0f} MB/s")
    print(f"ratio {ratio:.2f}")
    if given.json:
        result = {"at": datetime.now(UTC).isoformat(), "seconds": taken, "megabytesPerSecond": speeds, "ratio": ratio}
        given.json.write_text(json.dumps(result, indent=2) + "\n")
    return verdict([] if ratio >= BAR else [f"{ratio:.2f} times kubectl cp, of {BAR}"])


if __name__ == "__main__":
    sys.exit(main())
