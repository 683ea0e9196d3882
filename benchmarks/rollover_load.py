"""The load of benchmarks/rollover.py and of tests/e2e/test_rollover.py: clients that open a connection for each request, as long as there are requests left.

HOST REQUESTS CLIENTS PAUSE [SECONDS CHECKPOINTS]: with the last two it also ends after so many seconds, and ten seconds after it has seen so many checkpoints, in which
the old pod drains.

A kept connection would hide a Service that points at a pod that is gone. Prints a JSON object each second, with what was seen so far: requests, failed, the first
failures with their second, checkpoints by requests. Nothing but the standard library, so that it runs in the server's image.
"""

import http.client
import json
import sys
import threading
import time

DRAIN_SECONDS = 10

host, limit, clients, pause = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
seconds, wanted = (float(sys.argv[5]), int(sys.argv[6])) if len(sys.argv) > 5 else (float("inf"), 0)
body = json.dumps({"input": "You won a free prize, claim your cash reward now"})
lock = threading.Lock()
started = time.monotonic()
end = started + seconds
requests, answered, failed, longest = 0, 0, 0, 0.0
failures: list[str] = []
checkpoints: dict[str, int] = {}


def turn() -> bool:
    """Whether there is a request left."""
    global requests
    with lock:
        requests += 1
        return requests <= limit and time.monotonic() < end


def told(version: str | None, why: str, seconds: float) -> None:
    global answered, failed, longest, end
    with lock:
        answered += 1
        longest = max(longest, seconds)
        if version is not None:
            checkpoints[version] = checkpoints.get(version, 0) + 1
            if len(checkpoints) == wanted and checkpoints[version] == 1:
                end = min(end, time.monotonic() + DRAIN_SECONDS)
            return
        failed += 1
        if len(failures) < 5:
            failures.append(f"{time.monotonic() - started:.1f} s: {why}")


def client() -> None:
    while turn():
        version, why, began = None, "", time.monotonic()
        try:
            connection = http.client.HTTPConnection(host, 80, timeout=30)
            connection.request("POST", "/v1/classify", body, {"content-type": "application/json"})
            response = connection.getresponse()
            answer = json.loads(response.read())
            connection.close()
            if response.status == 200:
                version = answer["model_version"]
            else:
                why = f"{response.status} {answer}"
        except (OSError, http.client.HTTPException, ValueError) as err:
            why = repr(err)
        told(version, why, time.monotonic() - began)
        time.sleep(pause)


def report() -> None:
    with lock:
        seen = {"requests": answered, "failed": failed, "failures": failures, "checkpoints": checkpoints}
        times = {"seconds": round(time.monotonic() - started, 1), "longestSeconds": round(longest, 3)}
        print(json.dumps({**seen, **times}), flush=True)


threads = [threading.Thread(target=client) for _ in range(clients)]
for thread in threads:
    thread.start()
while any(thread.is_alive() for thread in threads):
    time.sleep(1)
    report()
report()
