"""Every form of cluster.yaml, against what `ray up` asks of one before it starts anything.

    python cluster/check_config.py [FILE]

A form stands between `# form: NAME` and `# end`, in comments but for one. Each is filled out and
validated by Ray's own functions, with the part that all share; then our own rules: what is mounted
is there, commands are shell, no node starts without a token. What a cloud makes of `node_config` is
the cloud's own: no one asks it here.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray.autoscaler._private.util import prepare_config, validate_config
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

HERE = Path(__file__).parents[1]
FORM = re.compile(r"^# form: (\w+)\n(.*?)^# end\n", re.MULTILINE | re.DOTALL)
FORMS = {"local", "aws", "gcp"}
COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)


def forms(text: str) -> dict[str, str]:
    """Return the file as it is with each of its forms in use, by name."""
    return {
        name: FORM.sub(lambda match, chosen=name: _shown(match, chosen), text)
        for name in dict(FORM.findall(text))
    }


def _shown(match: re.Match[str], chosen: str) -> str:
    """Return a form without its comment signs where it is chosen, nothing where it is not."""
    if match[1] != chosen:
        return ""
    if not all(line.startswith("#") for line in match[2].splitlines()):
        return match[2]
    return re.sub(r"^# ?", "", match[2], flags=re.MULTILINE)


def mistakes(text: str, folder: Path = HERE) -> Iterator[str]:
    """Say what is wrong with one form."""
    try:
        config = YAML(typ="safe").load(text)
    except YAMLError as failure:
        yield f"not YAML: {' '.join(str(failure).split())}"
        return
    try:
        # Ray warns of single files among the mounts, at length, on stdout.
        with contextlib.redirect_stdout(io.StringIO()):
            found = prepare_config(config)
            validate_config(found)
    except Exception as failure:  # noqa: BLE001 - jsonschema's, click's and Ray's own
        place = ".".join(map(str, getattr(failure, "absolute_path", ())))
        said = getattr(failure, "message", str(failure)).partition("\n")[0]
        yield f"{place}: {said}" if place else said
        return
    for there, here in found["file_mounts"].items():
        if not here.startswith("~") and not (folder / here).exists():
            yield f"file_mounts.{there}: there is no {here} here"
    for key in COMMANDS:
        for number, command in enumerate(config.get(key, [])):
            yield from (f"{key}[{number}]: {said}" for said in _wrong(command))


def _wrong(command: Any) -> Iterator[str]:
    if not isinstance(command, str):
        yield f"expected a command, found {command!r}; quote it"
        return
    # As the launcher runs it: in brackets, after others.
    call = subprocess.run(
        ["bash", "-n", "-c", f"true && ({command})"], capture_output=True, text=True, check=False
    )
    if call.returncode or call.stderr:
        yield f"not shell: {call.stderr.strip().partition(chr(10))[0]}"
    if "ray start" in command and "environment.sh" not in command:
        yield "starts a node without environment.sh, which turns authentication on"


def main(path: Path) -> int:
    """Check every form of a file; print a line for each mistake."""
    logging.disable(logging.INFO)  # what Ray fills out
    found = forms(path.read_text(encoding="utf-8"))
    wrong = [f"{path.name}: form {name}: missing" for name in sorted(FORMS - found.keys())]
    for name, text in found.items():
        wrong += [f"{path.name}: form {name}: {said}" for said in mistakes(text)]
    sys.stdout.writelines(f"{line}\n" for line in wrong)
    if not wrong:
        sys.stdout.write(f"{path.name}: Ray {_version()} takes {', '.join(found)}\n")
    return 1 if wrong else 0


def _version() -> str:
    import ray  # noqa: PLC0415

    return str(ray.__version__)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "cluster.yaml"))
