"""What every test runs under: quiet services, no display, a folder of its own, steady examples."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import hypothesis
import pytest

# Before anything imports them; child processes inherit it.
os.environ |= {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MPLBACKEND": "Agg",
    "RAY_USAGE_STATS_ENABLED": "0",
}
# A developer's own tracking server or cluster is none of the tests' business.
for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
    os.environ.pop(name, None)

# A shell's background jobs ignore these, and what they start would too; tests send them.
for number, usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)

# The same examples everywhere, so that a red build is red again; `make test-all` searches further.
hypothesis.settings.register_profile("steady", derandomize=True, deadline=None)
hypothesis.settings.register_profile("search", deadline=None, max_examples=300, print_blob=True)
hypothesis.settings.load_profile("search" if os.environ.get("SEEDSWEEP_ALL") else "steady")

# pytest-xdist keeps a file's tests on one of its processes (`--dist loadfile`), since what they
# share (a trained study, a server, Ray) takes seconds. Long files come first, or one process would
# wait for the other at the end.
LONGEST = (
    "test_report_page.py",
    "test_docs.py",
    "test_bits.py",
    "test_oracle.py",
    "test_cli.py",
    "test_resume.py",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files; the others stay in their random order."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder, and work in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
