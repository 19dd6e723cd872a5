"""The command `ui`: MLflow's own UI on the right store."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

from sweeps.commands import OK
from sweeps.mistakes import Refused
from sweeps.study import find_study, name_in
from sweeps.tracking import tracking_uri
from sweeps.tracking.problems import without_credentials
from sweeps.ui import LOOPBACK, SERVER, check_store, places_of, served


def ui(options: argparse.Namespace) -> int:
    """Serve the UI until Ctrl-C; of a server that has its own, print the address."""
    uri = tracking_uri()
    check_store(uri)
    study = name_in(find_study(options.study)) if options.study else None
    places = places_of(uri, study)
    if SERVER.match(uri):
        _print_links(without_credentials(uri).rstrip("/"), places)
        return OK
    if options.host not in LOOPBACK:
        what = "asks for no password: whoever reaches it can read and change every run"
        what = f"{what}; for others see docs/operations.md"
        print(f"--host {options.host}: the UI {what}", file=sys.stderr)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        with served(uri, options.host, options.port) as (address, process):
            _print_links(address, places)
            print("until Ctrl-C", file=sys.stderr)
            code = process.wait()
    except KeyboardInterrupt:
        return OK
    raise Refused([f"the MLflow UI ended by itself, with exit code {code}"])


def _print_links(address: str, places: Sequence[str]) -> None:
    for place in places[1:]:
        print(f"its seeds, grouped by cell: {address}{place}", file=sys.stderr, flush=True)
    print(f"{address}{places[0]}", flush=True)  # last: who waits for it finds the others there
