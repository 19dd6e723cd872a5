"""`make containers`: a study on a cluster of containers, one of which is killed in the middle.

Prints a line a step, with its seconds; ends with 1 at the first that is not as it should be, and
takes everything down in any case.

    BASE=IMAGE POSTGRES_IMAGE=IMAGE make containers     images of your own, where a registry is
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import engine
import page
from engine import Engine, Trouble

from sweeps import results

STUDY, PLACE, RUNS = "quickstart", "/study/quickstart", 120
WORKERS = 2
START = time.monotonic()


def say(text: str) -> None:
    """Print a line, with the seconds since the start."""
    print(f"{time.monotonic() - START:6.0f} s  {text}", flush=True)


def check(true: object, text: str) -> None:
    """Say what is so; raise Trouble where it is not."""
    if not true:
        msg = f"not so: {text}"
        raise Trouble(msg)
    say(text)


def wait_for(what: str, true: Callable[[], object], seconds: float) -> float:
    """Wait until something is true; return how long that took."""
    start = time.monotonic()
    while not true():
        if time.monotonic() - start > seconds:
            msg = f"waited {seconds:g} s in vain: {what}"
            raise Trouble(msg)
        time.sleep(1)
    return time.monotonic() - start


def ask(port: int, path: str, **headers: str) -> tuple[int, bytes]:
    """Return status and body of a published port's answer; 0 where there is none."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - loopback
            return answer.status, answer.read()
    except urllib.error.HTTPError as failure:
        return failure.code, failure.read()
    except OSError:
        return 0, b""


def nodes(cluster: Engine) -> int:
    """Return how many Ray nodes live."""
    bearer = {"Authorization": f"Bearer {cluster.secret('ray_token')}"}
    status, body = ask(cluster.dashboard, "/api/v0/nodes?detail=true", **bearer)
    if status != 200:
        return 0
    rows = json.loads(body)["data"]["result"]["result"]
    return sum(row["state"] == "ALIVE" for row in rows)


def basic(password: str) -> dict[str, str]:
    """Return the header of a log-in."""
    return {"Authorization": "Basic " + b64encode(f"admin:{password}".encode()).decode()}


def come_up(cluster: Engine) -> None:
    """Bring the compose file up; wait for head, workers and MLflow."""
    cluster.compose("up", "--detach", "--scale", f"worker={WORKERS}")
    say("compose file is up")
    took = wait_for("head and workers", lambda: nodes(cluster) == 1 + WORKERS, 240)
    say(f"head and {WORKERS} workers have found each other, {took:.0f} s after")
    took = wait_for("MLflow", lambda: ask(cluster.mlflow, "/health")[0] == 200, 240)
    say(f"MLflow answers, {took:.0f} s after that")
    for service in ("head", "worker", "mlflow", "postgres"):
        for name in cluster.containers(service):
            healthy = f"{name} is healthy"
            wait_for(healthy, lambda name=name: well(cluster, name), 120)
    say("every container's own health check says that it is well")


def well(cluster: Engine, container: str) -> bool:
    """Run a container's health check, as an engine with a timer would."""
    with contextlib.suppress(Trouble):
        cluster.podman("healthcheck", "run", container)
        return True
    return False


def doors(cluster: Engine) -> None:
    """See that nobody gets in without the secrets."""
    jobs, search = "/api/jobs/", "/api/2.0/mlflow/experiments/search?max_results=1"
    check(ask(cluster.dashboard, jobs)[0] == 401, "Jobs API without a token: 401")
    wrong = {"Authorization": "Bearer " + "0" * 64}
    check(ask(cluster.dashboard, jobs, **wrong)[0] == 403, "Jobs API with a wrong token: 403")
    check(ask(cluster.mlflow, search)[0] == 401, "MLflow without a password: 401")
    check(ask(cluster.mlflow, search, **basic("password"))[0] == 401, "a wrong password: 401")
    right = basic(cluster.secret("mlflow_password"))
    check(ask(cluster.mlflow, search, **right)[0] == 200, "MLflow with the password: 200")
    named = {**right, "Host": "evil.example"}
    check(ask(cluster.mlflow, search, **named)[0] == 403, "MLflow by an unknown name: 403")
    published = cluster.podman("ps", "--filter", f"label={engine.LABEL}={cluster.project}")
    ports = re.findall(r"(\S+):\d+->", published)
    check(set(ports) == {"127.0.0.1"}, f"{len(ports)} ports are published, all on loopback")


def submit(cluster: Engine) -> subprocess.Popen[str]:
    """Submit the study from this machine, and stay until it has ended."""
    address = ("--address", f"http://127.0.0.1:{cluster.dashboard}")
    line = (sys.executable, "-m", "sweeps.cli", "submit", STUDY, *address, "--out", PLACE)
    secret = {"RAY_AUTH_TOKEN_PATH": str(cluster.folder / "secrets" / "ray_token")}
    said = (cluster.folder / "submit.log").open("w")
    return subprocess.Popen(
        [*line, "--wait", "--json"],
        env={**os.environ, "RAY_AUTH_MODE": "token", **secret},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=said,
        text=True,
    )


def train(cluster: Engine) -> None:
    """Run the study on the cluster, and kill a worker in the middle."""
    job = submit(cluster)
    try:
        kill_one(cluster, job)
        took = wait_for("sweeps submit ends", lambda: job.poll() is not None, 900)
    finally:
        job.kill()
    out, _ = job.communicate()
    if job.returncode:
        raise Trouble((cluster.folder / "submit.log").read_text()[-3000:])
    answer = json.loads(out)
    check(
        (answer["planned"], finished(cluster), answer["tracking"]) == (RUNS, RUNS, "written"),
        f"sweeps submit ends with 0, {took:.0f} s later: {RUNS} of {RUNS} runs",
    )
    wait_for("the worker joins again", lambda: nodes(cluster) == 1 + WORKERS, 120)
    say(f"head and {WORKERS} workers are there")


def kill_one(cluster: Engine, job: subprocess.Popen[str]) -> None:
    """Kill a worker's container when a third of the runs are finished."""
    say(f"sweeps submit {STUDY}")
    third = "a third of the runs"
    wait_for(third, lambda: finished(cluster) >= RUNS / 3 or job.poll() is not None, 600)
    before = finished(cluster)
    (victim, *_) = cluster.containers("worker")
    was = cluster.inspect(victim)
    os.kill(int(str(was["Pid"])), signal.SIGKILL)
    check(before < RUNS, f"{before} of {RUNS} runs are finished: {victim} is killed by signal 9")
    took = wait_for("its end", lambda: cluster.inspect(victim)["Pid"] != was["Pid"], 60)
    say(f"it is gone after {took:.0f} s")
    took = wait_for("it is back", lambda: cluster.inspect(victim)["Running"], 120)
    say(f"it is back {took:.0f} s later")


def finished(cluster: Engine) -> int:
    """Return how many runs are finished, as `sweeps status` says on the head."""
    (head,) = cluster.containers("head")
    line = ("podman", "exec", head, "sweeps", "status", PLACE, "--json")
    said = cluster.run(*line, fine=(0, 1, 2))  # 2 until there is a plan, 1 until all is there
    if not said:
        return 0
    status = json.loads(said)
    return int(status["planned"] - status["next"]["train"])


def fetch(cluster: Engine) -> list[str]:
    """Copy the study folder from the shared volume; return the names of its cells."""
    (head,) = cluster.containers("head")
    cluster.podman("cp", f"{head}:{PLACE}", cluster.folder / "there")
    cells: list[str] = results.read(cluster.folder / "there").summary["cell"].to_pylist()
    return cells


def same_as_here(cluster: Engine) -> None:
    """Train the study on this machine too, and compare every deterministic column."""
    folder = cluster.folder / "here"
    line = (sys.executable, "-m", "sweeps.cli", "run", STUDY, "--launcher", "inline")
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{cluster.folder}/mlflow.db"
    cluster.run(*line, "--out", str(folder), seconds=900)
    here, there = rows(folder), rows(cluster.folder / "there")
    check(len(here) == RUNS, f"{STUDY} is trained on this machine, without Ray")
    check(here == there, f"{RUNS} records of {len(here[0])} deterministic columns are equal")


def rows(folder: Path) -> list[dict[str, Any]]:
    """Return the deterministic columns of the records, by run."""
    table = results.read(folder).runs.drop_columns(list(results.NOT_DETERMINISTIC)).to_pylist()
    return sorted(table, key=lambda row: str(row["run_id"]))


def no_secret_shows(cluster: Engine) -> None:
    """Look for the secrets where others look: process lists, inspect, history, logs, results."""
    known = [cluster.secret(name) for name in engine.SECRETS]
    places = dict(shown(cluster))
    told = [place for place, text in places.items() if any(one in text for one in known)]
    check(not told, f"no secret in {len(places)} places {told or ''}".strip())


def shown(cluster: Engine) -> Iterator[tuple[str, str]]:
    """Yield what is shown of the cluster, by its place."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield str(path), path.read_text(errors="replace")
    yield "history", cluster.podman("history", "--no-trunc", engine.IMAGE)
    yield "image", cluster.podman("image", "inspect", engine.IMAGE)
    for service in ("head", "worker", "mlflow", "postgres"):
        for name in cluster.containers(service):
            yield f"inspect {name}", cluster.podman("inspect", name)
            yield f"logs {name}", cluster.podman("logs", name)
    for path in (cluster.folder / "there").rglob("*"):
        if path.is_file():
            yield str(path), path.read_bytes().decode(errors="replace")


def main() -> int:
    """Do all of it."""
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell's background job ignores it
        signal.signal(number, signal.default_int_handler)
    try:
        with engine.opened() as cluster:
            on = engine.base(cluster)
            say(f"base image: {on}")
            engine.build(cluster, on)
            size = int(cluster.podman("image", "inspect", "--format={{.Size}}", engine.IMAGE))
            say(f"image: {engine.IMAGE}, {size / 1e9:.2f} GB")
            come_up(cluster)
            doors(cluster)
            train(cluster)
            cells = fetch(cluster)
            seen = page.look(cluster.mlflow, cluster.secret("mlflow_password"), STUDY, cells)
            say(f"MLflow's page in Chromium: {seen}")
            same_as_here(cluster)
            no_secret_shows(cluster)
            cluster.down()
            left = [*cluster.left("volume"), *cluster.left("network")]
            left += [one for name in ("head", "worker") for one in cluster.containers(name)]
            check(not left, "everything is down: no container, network or volume is left")
    except Trouble as trouble:
        say(str(trouble))
        return 1
    except KeyboardInterrupt:
        say("interrupted; everything is down")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
