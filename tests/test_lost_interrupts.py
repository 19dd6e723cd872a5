"""An interrupt that comes in the midst of somebody's C code arrives as another exception."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from sweeps import commands
from sweeps.cli import FILES, main
from sweeps.interrupts import FIRST, interrupted

ENDED = "interrupted; what was finished is kept, run again to go on"
# What pybind11 does with whatever is raised while its module is being made.
IMPORT = """
import signal, time
try:
    signal.raise_signal(signal.SIGINT)  # to this thread; a process's own may reach another first
    time.sleep(0.1)
except BaseException as failure:
    raise ImportError("initialization failed") from failure
"""


def chained(inner: BaseException, *, named: bool) -> ImportError:
    """Return an ImportError that came of another exception, as its cause or in its midst."""
    try:
        try:
            raise inner  # noqa: TRY301 - it is to be in the midst
        except BaseException as failure:
            if named:
                raise ImportError from failure
            raise ImportError  # noqa: B904 - the midst is meant
    except ImportError as failure:
        return failure


def test_what_became_of_an_interrupt_is_one() -> None:
    assert interrupted(KeyboardInterrupt())
    for named in (True, False):
        assert interrupted(chained(KeyboardInterrupt(), named=named))
        assert not interrupted(chained(OSError(), named=named))
    assert not interrupted(ValueError())
    assert not interrupted(SystemExit(1))


def test_the_command_ends_as_after_any_interrupt(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "broken.py").write_text(IMPORT)
    monkeypatch.setattr(commands, "__path__", [*commands.__path__, str(folder)])
    monkeypatch.setitem(FILES, "run", "broken")
    before = signal.getsignal(signal.SIGINT)
    assert main(["run", "smoke"]) == 130
    assert capfd.readouterr().err.strip().splitlines() == [FIRST, ENDED]
    assert signal.getsignal(signal.SIGINT) == before
