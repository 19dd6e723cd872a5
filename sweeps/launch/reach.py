"""Whether a Ray cluster answers at an address, and to our token: Ray itself would try for minutes.

The reasons are told apart here, since Ray says "failed to connect" of them all.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping
from pathlib import Path

from ray._private.services import find_bootstrap_address, find_gcs_addresses
from ray._raylet import GcsClient  # type: ignore[attr-defined] # compiled, without types
from ray.exceptions import AuthenticationError

from sweeps.launch.environment import TOKEN_FILE
from sweeps.mistakes import Refused

PATIENCE = 8.0  # seconds for what answers to speak as a cluster's head does
KNOCK = 5.0  # seconds for a port to answer at all
START = "start one with: ray start --head --port 6379"


def check_reachable(name: str) -> str:
    """Return the address of `auto` or HOST:PORT; `local` is its own.

    Raises Refused unless a cluster answers there and takes our token.
    """
    if name == "local":
        return name
    address = _found(name) if name == "auto" else name
    called = f"--launcher {name}" if name == address else f"--launcher {name}: {address}"
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), KNOCK).close()
    except (OSError, ValueError, OverflowError) as failure:
        reason = getattr(failure, "strerror", None) or str(failure)
        fix = f"correct the address, or {START}"
        raise Refused([f"{called}: nothing answers there: {reason}; {fix}"]) from None
    problem = token_problem(os.environ) or _asked(address)
    if problem:
        raise Refused([f"{called}: {problem}"])
    return address


def token_problem(environment: Mapping[str, str]) -> str | None:
    """Say why there is no token where one is announced: of that, Ray's process would die."""
    if environment.get("RAY_AUTH_MODE") != "token" or environment.get("RAY_AUTH_TOKEN"):
        return None
    named = environment.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else TOKEN_FILE
    try:
        found = bool(path.read_text(encoding="utf-8").strip())
    except (OSError, ValueError):
        found = False
    if found:
        return None
    if named:
        return f"RAY_AUTH_TOKEN_PATH: {named} holds no token that can be read; {_FIX}"
    return f"RAY_AUTH_MODE is token, and there is no token; {_FIX}"


_FIX = "set RAY_AUTH_TOKEN_PATH to the file that holds the cluster's"


def _found(name: str) -> str:
    """Return the address that RAY_ADDRESS, Ray's own note, or the machine's one cluster gives."""
    said = os.environ.get("RAY_ADDRESS") or find_bootstrap_address(None)
    running = [said] if said else sorted(find_gcs_addresses())  # type: ignore[no-untyped-call]
    if not running:
        fix = f"name its HOST:PORT, or {START}"
        raise Refused([f"--launcher {name}: no Ray cluster runs on this machine; {fix}"])
    if len(running) > 1:
        text = f"several Ray clusters run on this machine: {', '.join(running)}; name one"
        raise Refused([f"--launcher {name}: {text}"])
    return running[0]


def _source() -> str:
    """Return where Ray reads the token."""
    names = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    return next((name for name in names if os.environ.get(name)), str(TOKEN_FILE))


def _asked(address: str) -> str | None:
    """Ask for the cluster's identity; say what is wrong."""
    said: list[str | None] = []

    def ask() -> None:
        try:
            GcsClient(address=address)
        except AuthenticationError:
            if os.environ.get("RAY_AUTH_MODE") == "token":
                said.append(f"the cluster does not take the token of {_source()}; give its own")
            else:
                said.append(f"the cluster wants a token; set RAY_AUTH_MODE to token and {_FIX[4:]}")
        except Exception as failure:  # noqa: BLE001 - whatever it is, it is no cluster for us
            first = str(failure).strip().partition("\n")[0][:200]
            said.append(f"what answers there is no Ray cluster: {first}; {_PORT}")
        else:
            said.append(None)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return said[0] if said else f"what answers there is no Ray cluster; {_PORT}"


_PORT = "expected the port of `ray start --head --port`, 6379 unless it was named"
