"""Signals to the command: the first keeps what is done, the second ends at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from processes import COMMAND
from studies import tiny, write

from sweeps.interrupts import FIRST, SECOND

pytestmark = pytest.mark.timeout(300)  # a report is drawn, perhaps beside other work

LONG = {"objective": "wae", "training": {"steps": 3_000_000}}


@contextmanager
def training(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a study whose first pack is quick and whose second is long; wait for the second."""
    write(folder, tiny(cells=[{"objective": "ae"}, LONG]))
    call = subprocess.Popen(
        [COMMAND, "run", "x.yaml", "--json", "--launcher", "inline"],
        cwd=folder,
        env={**os.environ, "SEEDSWEEP_CHECKPOINT_SECONDS": "0.2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        checkpoints = folder / "runs" / "tiny" / "checkpoints"
        end = time.monotonic() + 90
        while not (checkpoints.is_dir() and any(checkpoints.glob("*.safetensors"))):
            assert time.monotonic() < end, "the second pack never began"
            assert call.poll() is None, call.communicate()
            time.sleep(0.05)
        yield call
    finally:
        call.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_keeps_what_is_done_and_writes_the_report(
    tmp_path: Path, number: signal.Signals
) -> None:
    with training(tmp_path) as call:
        call.send_signal(number)
        out, err = call.communicate(timeout=200)
    assert call.returncode == 130, err
    content = json.loads(out)
    assert (content["trained"], content["planned"]) == (3, 6)
    assert FIRST in err
    assert err.rstrip().endswith("interrupted; what was finished is kept, run again to go on")
    assert "Traceback" not in err
    folder = tmp_path / "runs" / "tiny"
    assert (folder / "report.html").is_file()
    assert pq.read_table(folder / "results.parquet").num_rows == 3
    assert json.loads((folder / "progress.json").read_text())["ended"] == "interrupted"
    assert list((folder / "checkpoints").glob("*.safetensors")), "the other pack can go on"


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    with training(tmp_path) as call:
        call.send_signal(signal.SIGINT)
        assert call.stderr is not None
        said = ""
        while FIRST not in said:
            said += call.stderr.readline()
        start = time.monotonic()
        call.send_signal(signal.SIGINT)
        _, err = call.communicate(timeout=200)
    assert time.monotonic() - start < 5
    assert call.returncode == 130
    assert err.rstrip().endswith(SECOND)
    assert pq.read_table(tmp_path / "runs" / "tiny" / "records").num_rows == 3


def test_an_ignored_hangup_stays_ignored() -> None:
    """As under nohup: the user has said what it means."""
    text = (
        "import os, signal\n"
        "from sweeps.interrupts import gentle\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "with gentle():\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    print('goes on')\n"
    )
    python = COMMAND.parent / "python"
    done = subprocess.run([python, "-c", text], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("goes on\n", "")


def test_handlers_are_given_back() -> None:
    from sweeps.interrupts import ENDING, gentle  # noqa: PLC0415

    before = [signal.getsignal(number) for number in ENDING]
    with gentle():
        assert [signal.getsignal(number) for number in ENDING] != before
    assert [signal.getsignal(number) for number in ENDING] == before
