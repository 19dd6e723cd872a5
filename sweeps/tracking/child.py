"""The process that writes MLflow's view while a sweep runs.

It is told of the study on its stdin, a line of JSON, then of the sweep's end, another line. Its
answers are lines on stdout: what goes wrong meanwhile, and at the end what became of the view.
Where stdin ends, the driver has died, and this process leaves at once.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeps.tracking.live import Live
    from sweeps.tracking.place import Tracked

KINDNESS = 10  # of nice(2), while others train
NAP = 0.1  # seconds between two questions whether the sweep has ended
PERSIST = 10  # seconds to try again at the end, where the store answered before

Told = queue.SimpleQueue[dict[str, Any]]


def main() -> None:
    """Follow the study, then write the whole view, and leave."""
    from sweeps.tracking.place import pending  # noqa: PLC0415 - after the path is set, below
    from sweeps.tracking.problems import sentence  # noqa: PLC0415

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whatever a library prints
    told: Told = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(told,), daemon=True).start()
    begin = told.get()
    try:
        tracked = _follow(begin, told, answers)
    except Exception as failure:  # noqa: BLE001 - MLflow may not even be importable
        tracked = pending(begin["uri"], begin["folder"], sentence(begin["uri"], failure))
    _say(answers, tracked=asdict(tracked))
    os._exit(0)  # the other thread still reads


def _listen(told: Told) -> None:
    for line in sys.stdin.buffer:
        told.put(json.loads(line))
    os._exit(0)


def _say(answers: IO[str], **content: Any) -> None:
    answers.write(json.dumps(content) + "\n")
    answers.flush()


def _follow(begin: dict[str, Any], told: Told, answers: IO[str]) -> Tracked:
    """Look at the records until the sweep's end is told, then write the whole view.

    The looks have a thread of their own: Linux counts niceness by thread, and it is never taken
    back. At the end somebody waits.
    """
    with ThreadPoolExecutor(1) as kind:
        live = kind.submit(_look, begin, told, answers).result()
    return _finish(live, told.get())


def _look(begin: dict[str, Any], told: Told, answers: IO[str]) -> Live:
    os.nice(KINDNESS)
    from sweeps.tracking.live import Live, pause  # noqa: PLC0415 - kind first: it takes seconds
    from sweeps.tracking.outline import Outline  # noqa: PLC0415

    live = Live(Outline.from_json(begin["outline"]), begin["uri"])
    failures, said = 0, None
    while told.empty():
        start = time.monotonic()
        live.look(stop=lambda: not told.empty())
        failures = failures + 1 if live.problem else 0
        if live.problem != said:
            said = live.problem
            _say(answers, problem=said)
        until = time.monotonic() + pause(time.monotonic() - start, failures, begin["pace"])
        while told.empty() and time.monotonic() < until:
            time.sleep(NAP)
    return live


def _finish(live: Live, end: dict[str, Any]) -> Tracked:
    """Write the whole view; again for some seconds where the store fails only now."""
    from sweeps.folder.storage import read_parquet  # noqa: PLC0415
    from sweeps.tracking.whole import bring_in_line  # noqa: PLC0415

    names = ("results", "summary")
    runs, cells = (read_parquet(live.folder / f"{name}.parquet").to_pylist() for name in names)
    until = time.monotonic() + (0 if live.problem else PERSIST)
    while True:
        tracked = bring_in_line(
            live.outline, live.uri, runs, cells, end["table"], running=end["running"]
        )
        if tracked.state == "written" or time.monotonic() > until:
            return tracked
        time.sleep(1)


if __name__ == "__main__":
    # Neither the working folder nor this file's is searched (`-P`): a user's own `models/` or
    # `sweeps/` there would be imported in place of ours.
    root = str(Path(__file__).resolve().parents[2])
    if root not in sys.path:
        sys.path.insert(0, root)
    main()
