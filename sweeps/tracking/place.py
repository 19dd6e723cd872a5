"""Where a study's view lies, and what is said of it."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from sweeps.tracking.problems import without_credentials


@dataclass(frozen=True)
class Tracked:
    """Where a study's view lies, and whether it is there yet."""

    uri: str  # without credentials
    state: str  # written | pending
    problem: str | None  # one sentence when pending


def tracking_uri() -> str:
    """Return MLFLOW_TRACKING_URI where it is set, else a SQLite file in the working folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd().as_posix()}/mlflow.db"


def written(uri: str) -> Tracked:
    """Say that the view is there."""
    return Tracked(without_credentials(uri), "written", None)


def pending(uri: str, folder: str | Path, problem: str) -> Tracked:
    """Say why the view is not there, and how it gets there."""
    later = f"then: sweeps track {shlex.quote(str(folder))}"
    return Tracked(without_credentials(uri), "pending", f"{problem}; {later}")
