"""What every test runs under: quiet services, no display, a folder of its own, steady examples."""

from __future__ import annotations

import os
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

# The same examples everywhere, so that a red build is red again; `make test-all` searches further.
hypothesis.settings.register_profile("steady", derandomize=True, deadline=None)
hypothesis.settings.register_profile("search", deadline=None, max_examples=300, print_blob=True)
hypothesis.settings.load_profile("search" if os.environ.get("SEEDSWEEP_ALL") else "steady")

# Local Ray takes every core: two at once would only wait for each other, and run out of their time.
WITH_RAY = ("test_local.py", "test_readme_commands_run_in_their_order")


# What these train or start once for all of their tests takes seconds: once, not once a process.
SHARING = (
    *("test_api.py", "test_equal_numbers.py", "test_evidence.py", "test_predict.py"),
    *("test_report_page.py", "test_tracking.py", "test_tracking_server.py", "test_idx_studies.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep tests that share something on one of pytest-xdist's processes (`--dist loadgroup`).

    The longest group comes first, or one process would wait for it at the end.
    """
    for item in items:
        if item.path.name in WITH_RAY or item.name in WITH_RAY:
            item.add_marker(pytest.mark.xdist_group("ray"))
        elif item.path.name in SHARING:
            item.add_marker(pytest.mark.xdist_group(item.path.name))
    items.sort(key=lambda item: (item.path.name not in WITH_RAY, item.name not in WITH_RAY))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder, and work in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
