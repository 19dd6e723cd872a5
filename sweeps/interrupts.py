"""SIGINT, SIGTERM and SIGHUP to the driver: the first ends it gently, the second at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 130
FIRST = "interrupted: what is finished is kept, the report follows; once more to end at once"
SECOND = "ended at once; what was finished is kept, run again to go on"


@contextlib.contextmanager
def gentle() -> Iterator[None]:
    """Turn the first such signal into KeyboardInterrupt in the main thread; a second ends all.

    The operating system ends Ray's and MLflow's processes with ours: their input ends.
    """
    caught = False

    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        nonlocal caught
        if caught:
            _say(SECOND)
            os._exit(INTERRUPTED)
        caught = True
        _say(FIRST)
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in ENDING}
    for number in ENDING:
        if before[number] is not signal.SIG_IGN:  # nohup: the user has said what SIGHUP means
            signal.signal(number, handle)
    try:
        yield
    finally:
        for number in ENDING:
            signal.signal(number, before[number])


def interrupted(failure: BaseException | None) -> bool:
    """Tell whether an exception is an interrupt, or what became of one.

    One that comes while a C extension is being imported arrives as an ImportError that it caused.
    """
    while failure is not None and not isinstance(failure, KeyboardInterrupt):
        failure = failure.__cause__ or failure.__context__
    return failure is not None


def _say(text: str) -> None:
    """Write without the locks of a stream that the signal may have come into the midst of."""
    with contextlib.suppress(OSError):
        os.write(sys.stderr.fileno(), f"\r{text}\n".encode())
