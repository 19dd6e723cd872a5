"""The image's packages: what pyproject.toml asks for, and whether constraints.txt names them all.

`locked.py needed EXTRA ...` prints the requirements of seedsweep and of these extras, without
seedsweep itself; `locked.py check` fails where this interpreter has what is not pinned.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

# torch's own metadata pins these, for each kind of CUDA others.
TORCH = re.compile(r"(nvidia|cuda)-.*|triton")


def plain(name: str) -> str:
    """Return a package's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(project: Mapping[str, dict[str, list[str]]], extras: Iterable[str]) -> list[str]:
    """Return the requirements of a project's table and of some of its extras."""
    extra = [one for name in extras for one in project["optional-dependencies"][name]]
    return [*project["dependencies"], *extra]


def unpinned(installed: Mapping[str, str], constraints: str) -> list[str]:
    """Return what is installed in a version that no constraint names.

    A version's build, as `+cpu` in torch's, is free.
    """
    pins = dict(line.split("==") for line in constraints.splitlines() if "==" in line)
    versions = {plain(name): version for name, version in pins.items()}
    return [
        f"{name}=={version}"
        for name, version in sorted(installed.items())
        if versions.get(plain(name)) != version.partition("+")[0] and not TORCH.fullmatch(name)
    ]


def main(words: list[str]) -> str | None:
    """Print what is needed, or return what is wrong."""
    here = Path(__file__).parent
    match words:
        case ["needed", *extras]:
            project = tomllib.loads((here / "pyproject.toml").read_text())["project"]
            sys.stdout.write("\n".join(needed(project, extras)) + "\n")
            return None
        case ["check"]:
            found = {one.name: one.version for one in importlib.metadata.distributions()}
            wrong = unpinned(found, (here / "constraints.txt").read_text())
            return (wrong and f"not pinned in constraints.txt: {', '.join(wrong)}") or None
        case _:
            return __doc__


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
