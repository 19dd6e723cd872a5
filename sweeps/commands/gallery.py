"""The command `gallery`: divergences of shapes drawn apart, as tables, JSON and figures."""

from __future__ import annotations

import argparse
import json

from rich.console import Console

from sweeps import gallery as room
from sweeps.commands import OK


def gallery(options: argparse.Namespace) -> int:
    """Show what divergences say of shapes drawn apart, and which way they pull."""
    room.make_room(options.out)
    shown = room.curves()
    files = [str(path) for path in room.write(shown, options.out)]
    if options.json:
        print(json.dumps({**room.as_json(shown), "files": files}, allow_nan=False))
        return OK
    room.print_gallery(shown, Console())
    print("".join(f"written: {path}\n" for path in files), end="")
    return OK
