"""Run a study on a cluster of cluster.yaml.

    ray submit cluster.yaml cluster/run_study.py -- STUDY [--seeds N] [--out DIR] ...

takes what `sweeps run` takes, on the head, with `--launcher auto`. STUDY is the name of a shipped
study, or a file that is there: `ray rsync-up cluster.yaml my-study.yaml '~/my-study.yaml'`. The
study folder is runs/NAME in $SEEDSWEEP_SHARED, unless --out says otherwise. It ends with the exit
code of `sweeps run`; `ray submit` makes 1 of every one but 0.

Ray puts the arguments into a command of the head's shell without quotes: there a space divides
them, `*` is expanded, `;` ends the command and `$(...)` runs one. So plain words alone are taken as
they are; for others this script, on your own machine, makes a word of them that no shell changes:

    ray submit cluster.yaml cluster/run_study.py -- $(
      python cluster/run_study.py --encode '~/my study.yaml' --seeds 6)
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

PLAIN = re.compile(r"[\w./:=@%+,-]+", re.ASCII)  # what no shell changes
ENCODED = "--encoded="
HELP = (
    "write it with: ray submit cluster.yaml cluster/run_study.py -- "
    "$(python cluster/run_study.py --encode STUDY ...)"
)


def encode(words: Sequence[str]) -> str:
    """Return words as one that no shell changes."""
    text = json.dumps(list(words))
    return ENCODED + base64.urlsafe_b64encode(text.encode()).decode()


def decode(words: Sequence[str]) -> list[str]:
    """Return the arguments that were meant; end where they cannot be known."""
    if len(words) == 1 and words[0].startswith(ENCODED):
        try:
            meant = json.loads(
                base64.b64decode(words[0].removeprefix(ENCODED), b"-_", validate=True)
            )
        except (ValueError, binascii.Error):
            refuse(f"{ENCODED}...: it was cut off or changed on its way; {HELP}")
        if not isinstance(meant, list) or not all(isinstance(word, str) for word in meant):
            refuse(f"{ENCODED}...: expected a list of words; {HELP}")
        return meant
    for word in words:
        if not PLAIN.fullmatch(word):
            refuse(f"argument {word[:40]!r}: what the head's shell left of it; {HELP}")
    return list(words)


def refuse(mistake: str) -> NoReturn:
    """End with a message, as `sweeps` does."""
    sys.stderr.write(f"run_study.py: {mistake}\n")
    raise SystemExit(2)


def main(words: Sequence[str]) -> None:
    """Become `sweeps run` on the head, or encode its arguments on the way there."""
    if words[:1] == ["--encode"]:
        sys.stdout.write(encode(words[1:]) + "\n")
        return
    arguments = decode(words)
    if not arguments or arguments[0].startswith("-"):
        refuse(f"expected a study, then options of `sweeps run`; {HELP}")
    study, *options = arguments
    if any(option == "--launcher" or option.startswith("--launcher=") for option in options):
        refuse("--launcher: a study that is submitted trains on the cluster; leave it out")
    command = Path(sys.executable).parent / "sweeps"
    if not command.is_file():
        refuse(f"no seedsweep beside {sys.executable}; run: ray up cluster.yaml")
    file = Path(study).expanduser()
    shared = os.environ.get("SEEDSWEEP_SHARED")
    if shared:
        if file.is_file():
            file = file.resolve()
        try:
            os.chdir(shared)
        except OSError as failure:
            refuse(f"SEEDSWEEP_SHARED: {shared}: {failure.strerror}; correct it in cluster.yaml")
    what = str(file) if file.is_absolute() else study
    os.execv(command, [str(command), "run", what, *options, "--launcher", "auto"])  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
