"""What training waits for: nothing of MLflow's, and under two percent for its checkpoints.

The same study is run with MLflow down and up in turns, one pack on a core of its own through Ray;
each worker measures its own time (timeline/). The first figure is the worker's CPU seconds a step,
down over up, pair by pair; the second the share of a pack's time, of at least a minute and with
three checkpoints, that went into copying and writing them. Exit code 1: a goal is missed.

    python benchmarks/waiting.py [--json] [--pairs N] [--steps N]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SWEEPS = Path(sys.executable).parent / "sweeps"
LOADED, TRAINED = "load", "train"
KNOWN = {LOADED, TRAINED, "checkpoint", "report", "score", "write"}
RATIO, SHARE = (0.9, 1.1), 0.02
LEAST_SECONDS, LEAST_CHECKPOINTS = 60.0, 3
STUDY = """
name: waiting
dataset: {name: digits, classes: [1, 8]}
seeds: 8
spec:
  network: {hidden: [64, 32]}
  training: {steps: STEPS, batch_size: 128, learning_rate: 0.002}
cells:
  - {objective: wae, prior: bimodal}
"""


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str]:
    """Serve MLflow on a SQLite file; give its address."""
    port = free_port()
    options = {"backend-store-uri": f"sqlite:///{folder}/server.db", "host": "127.0.0.1"}
    options |= {"artifacts-destination": str(folder / "artifacts"), "port": str(port)}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", *words]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **quiet}, stdout=log, stderr=log
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{address}/health", timeout=5):
                    break
            except OSError:
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait()


def run(folder: Path, name: str, uri: str, steps: int) -> list[dict[str, Any]]:
    """Run the study in a folder of its own; return its packs' timelines."""
    (folder / "x.yaml").write_text(STUDY.replace("STEPS", str(steps)))
    call = subprocess.run(
        [SWEEPS, "run", "x.yaml", "--json", "--pack-width", "8", "--out", name],
        cwd=folder,
        env={**os.environ, "MLFLOW_TRACKING_URI": uri},
        capture_output=True,
        text=True,
        check=True,
    )
    print(f"{name}: {json.loads(call.stdout)['tracking']}", file=sys.stderr)
    return [json.loads(path.read_text()) for path in (folder / name / "timeline").glob("*.json")]


def cpu_a_step(timelines: list[dict[str, Any]], steps: int) -> float:
    """Return the CPU seconds that training took, a step."""
    spans = [span for one in timelines for span in one["spans"] if span["what"] == TRAINED]
    return sum(span["cpu_seconds"] for span in spans) / (steps * len(spans))


def idle_share(timelines: list[dict[str, Any]]) -> float:
    """Return the share of the packs' time that is in none of their spans: it would be waiting."""
    outer = {LOADED, TRAINED, "score", "write"}
    inside = sum(s["seconds"] for t in timelines for s in t["spans"] if s["what"] in outer)
    assert {s["what"] for t in timelines for s in t["spans"]} <= KNOWN
    return 1 - inside / sum(t["seconds"] for t in timelines)


def checkpoint_share(timeline: dict[str, Any]) -> tuple[int, float]:
    """Return how many checkpoints a pack wrote, and the share of its time that took."""
    spans = [span for span in timeline["spans"] if span["what"] == "checkpoint"]
    return len(spans), sum(s["seconds"] + s["copied"] for s in spans) / timeline["seconds"]


def main() -> int:
    """Measure, print, and judge."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4000, help="of each short run")
    parser.add_argument("--long", type=int, default=32000, help="steps of the one long run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, server(Path(name)) as up:
        folder, down = Path(name), f"http://127.0.0.1:{free_port()}"
        ratios, idle = [], []
        for pair in range(options.pairs):
            found = {}
            order = [("down", down), ("up", up)][:: 1 if pair % 2 else -1]
            for state, uri in order:
                timelines = run(folder, f"{state}-{pair}", uri, options.steps)
                found[state] = cpu_a_step(timelines, options.steps)
                idle.append(idle_share(timelines))
            ratios.append(found["down"] / found["up"])
        (long,) = run(folder, "long", up, options.long)
    count, share = checkpoint_share(long)
    content = {
        "ratio_down_to_up": statistics.median(ratios),
        "ratios": ratios,
        "most_time_outside_spans": max(idle),
        "long_seconds": long["seconds"],
        "checkpoints": count,
        "checkpoint_share": share,
    }
    if options.json:
        print(json.dumps(content))
    else:
        print(f"CPU seconds a step, MLflow down / up: {content['ratio_down_to_up']:.3f} (median)")
        print(f"  of {options.pairs} pairs: {min(ratios):.3f} to {max(ratios):.3f}")
        print(f"time outside the worker's own spans: at most {max(idle):.2%}")
        print(
            f"a pack of {long['seconds']:.0f} s wrote {count} checkpoints: {share:.2%} of its time"
        )
    met = RATIO[0] <= content["ratio_down_to_up"] <= RATIO[1] and share < SHARE
    long_enough = long["seconds"] >= LEAST_SECONDS and count >= LEAST_CHECKPOINTS
    return 0 if met and long_enough else 1


if __name__ == "__main__":
    sys.exit(main())
