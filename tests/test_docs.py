"""What the documents promise is executed: commands, counts, tables, links, trees.

Run as `python tests/test_docs.py DIR` it pastes the table of a finished quickstart into README.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import io
import json
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from models.baselines import BASELINES
from sweeps.baselines import score_baselines
from sweeps.cli import main
from sweeps.review import review
from sweeps.study import find_study, load_study
from sweeps.sweep import open_sweep

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [
    page
    for folder in (ROOT, ROOT / ".github", *(ROOT / "docs").rglob("*"), ROOT / "docs")
    for page in sorted(folder.glob("*.md"))
]
TABLE = re.compile(r"(?<=<!-- table -->\n).*?(?=<!-- /table -->)", re.DOTALL)
# Where a package is imported under another name than it is installed by, or by another's leave.
IMPORTED_AS = {"google-cloud-storage": "google", "pillow": "PIL", "scikit-learn": "sklearn"}
BROUGHT_BY = {"botocore": "boto3", "markupsafe": "jinja2", "pydantic_core": "pydantic"}
OURS = {"models", "sweeps"}


def sweeps(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a reader would."""
    return subprocess.run(
        [Path(sys.executable).parent / "sweeps", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def blocks(page: str, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def commands(page: str) -> list[list[str]]:
    """Return every command of the page's shell blocks, comments dropped."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@functools.cache
def planned(study: str) -> dict[str, Any]:
    """Return what `sweeps plan --json` says of a shipped study, asked where nothing is done."""
    answer = io.StringIO()
    with contextlib.redirect_stdout(answer):
        assert main(["plan", study, "--json", "--out", "/nonexistent"]) == 0
    content: dict[str, Any] = json.loads(answer.getvalue())
    return content


@pytest.mark.timeout(300)  # one of them starts Ray
def test_readme_commands_run_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for block in blocks(README, "yaml"):
        name = re.match(r"# (\S+\.yaml)\n", block)
        assert name, "a study in README starts with its file name"
        (tmp_path / name[1]).write_text(block)
    monkeypatch.chdir(tmp_path)
    ran = []
    for words in commands(README):
        if words[0] == "make":
            continue  # targets are compared below; quickstart's table is, with what the plan says
        assert words[0] == "sweeps", f"README shows a command that nobody runs: {words}"
        if words[1:] == ["run", "my-study.yaml"]:  # Ray, in a process of its own
            call = sweeps(tmp_path, *words[1:])
            assert call.returncode == 0, (words, call.stderr)
        else:
            assert main(words[1:]) == 0, (words, capfd.readouterr().err)
        printed = capfd.readouterr().out
        if "--json" in words:
            json.loads(printed)
        ran.append(words[1])
    known = set(re.findall(r"^\| `sweeps (\w+) ", README, re.MULTILINE))
    # The UI stays until Ctrl-C: tests/test_ui.py and tests/browser run it. Jobs need a cluster:
    # tests/cluster/test_submit.py.
    elsewhere = {"ui", "submit", "jobs", "logs", "stop"}
    assert set(ran) == known - elsewhere, "README shows every command that there is"
    for block in blocks(README, "python"):
        (tmp_path / "notebook.py").write_text(block)
        runpy.run_path(str(tmp_path / "notebook.py"))


def test_the_command_has_what_readme_says(tmp_path: Path) -> None:
    """README's table has every command and option of `--help`, and no other."""
    rows = re.findall(r"^\| `sweeps (\w+) ([^`]*)` \|", README, re.MULTILINE)
    listed = re.findall(r"^    (\w+) ", sweeps(tmp_path, "--help").stdout, re.MULTILINE)
    assert [name for name, _ in rows] == [name for name in listed if name != "COMMAND"]
    for name, usage in rows:
        text = sweeps(tmp_path, name, "--help").stdout
        options = set(re.findall(r"--[a-z-]+", text)) - {"--help"}
        assert set(re.findall(r"--[a-z-]+", usage)) == options, name


def test_readme_prints_the_counts_of_the_plan() -> None:
    found = re.findall(r"`(\w+)`\s+is\s+(\d+) cells x (\d+) seeds = (\d+) runs", README)
    assert {study for study, *_ in found} == {"quickstart", "smoke"}
    for study, *counts in found:
        plan = planned(study)
        assert [int(count) for count in counts] == [plan[k] for k in ("cells", "seeds", "runs")]


def test_readme_shows_the_table_of_quickstart(tmp_path: Path) -> None:
    """Every cell and baseline stands there, with its planned seeds; baselines have their values."""
    study, dataset = load_study(find_study("quickstart"))
    shown = TABLE.search(README)
    assert shown, "README has no table between its two marks"
    rows = [[cell.strip() for cell in row.split(" | ")] for row in shown[0].strip().split("\n")[2:]]
    cells = [row for row in rows if "baseline:" not in row[0]]
    names = [re.sub(r"\\(.)", r"\1", row[0].removeprefix("| ")) for row in cells]
    assert sorted(names) == sorted(cell.label for cell in study.cells)
    plan = planned("quickstart")
    assert (len(names), len(study.seeds)) == (plan["cells"], plan["seeds"])
    assert {row[1] for row in cells} == {f"{plan['seeds']}/{plan['seeds']}"}
    means = [float(row[2]) for row in cells]
    assert means == sorted(means, reverse=True)
    baselines = {
        re.sub(r"\\(.)", r"\1", match[1]): float(row[2])
        for row in rows
        if (match := re.match(r"\| \*baseline: (.*)\*$", row[0]))
    }
    assert set(baselines) == set(BASELINES)
    for name, scores in score_baselines(open_sweep(study, dataset, tmp_path)).items():
        # Three decimals are shown; another CPU's solver may move an image across a boundary.
        assert scores[study.metric] == pytest.approx(baselines[name], abs=0.005), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_local_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name} links to {target}"
        assert file.is_relative_to(ROOT), f"{page.name} links out of the project: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}
            assert anchor in slugs, f"{page.name} links to {target}"


def test_make_targets_that_are_named_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    others = (".ci/run", ".pre-commit-config.yaml", ".github/workflows/check.yml", "pyproject.toml")
    for page in [*PAGES, *(ROOT / name for name in others)]:
        named = re.findall(r"(?:^|`|: |step )make ([a-z][a-z-]*)", page.read_text(), re.MULTILINE)
        assert set(named) <= targets, page.name


def test_the_tree_names_every_file_and_no_other() -> None:
    (tree,) = blocks(README, "text")
    named, top = set(), ""
    for line in tree.splitlines():
        if found := re.match(r"(\w\S*/)(?:\s|$)", line):
            top = found[1]
            assert (ROOT / top).is_dir(), f"README's tree names {top}"
        elif found := re.match(r"  (\S+)\s", line):
            named.add(top + found[1])
    there = {
        str(path.relative_to(ROOT))
        for package in OURS
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.name != "py.typed" and "__pycache__" not in path.parts
    }
    packages = {name for name in there if name.endswith("__init__.py")}
    assert named <= there, "README's tree names what is not there"
    assert there - packages <= named, "README's tree leaves files out"


def test_files_that_pages_name_exist() -> None:
    """Paths in backquotes, below one of our folders or at the top."""
    for page in PAGES:
        prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        folders = r"(?:models|sweeps|tests|benchmarks|docs|docker)/[\w./-]+"
        for name in re.findall(rf"`({folders}|\w+\.(?:toml|txt))`", prose):
            assert (ROOT / name).exists(), f"{page.name} names {name}"


def test_contributing_names_what_is_there() -> None:
    """Each name in a row of the table stands in the file that the row names before it."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| (?:a|an) [^|]*\|[^|]*\|[^|]*\|$", text, re.MULTILINE)
    assert len(rows) >= 12
    for row in rows:
        content = ""
        for name in re.findall(r"`([^`]+)`", row):
            path = ROOT / name
            if path.is_file():
                content = path.read_text()
            elif not path.is_dir():
                assert re.search(rf"\b{re.escape(name)}\b", content), f"{name!r} in {row}"


def imports(path: Path) -> set[str]:
    """Return the top names of everything that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return found


def dependencies(section: str) -> list[tuple[str, str]]:
    """Return (requirement, comment) of each line of a list in pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text()
    (body,) = re.findall(rf"^{section} = \[\n(.*?)^\]", text, re.DOTALL | re.MULTILINE)
    lines = [re.fullmatch(r'  "([^"]+)",\s+# (.*)', line) for line in body.splitlines()]
    assert all(lines), f"{section}: a line without its reason"
    return [(line[1], line[2]) for line in lines if line]


def test_each_dependency_names_a_file_that_imports_it() -> None:
    for requirement, comment in dependencies("dependencies"):
        name = Requirement(requirement).name
        module = IMPORTED_AS.get(name, name)
        files = re.findall(r"[\w/]+\.py", comment)
        assert files, f"{name}: no file in '{comment}'"
        for file in files:
            found = imports(ROOT / file)
            assert any(f"{one}.".startswith(f"{module}.") for one in found), f"{file}: {name}"


@pytest.mark.parametrize("extra", ["test", "check", "cluster", "gs", "image", "s3", "test-s3"])
def test_each_tool_names_a_file_that_uses_it(extra: str) -> None:
    for requirement, comment in dependencies(extra):
        file = ROOT / comment.partition(":")[0]
        assert file.is_file(), f"{requirement}: no file in '{comment}'"


def test_nothing_is_imported_that_is_not_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *extras["s3"], *extras["gs"]]
    names = [Requirement(one).name for one in needed]
    declared = {IMPORTED_AS.get(name, name).partition(".")[0] for name in names}
    known = declared | OURS | set(sys.stdlib_module_names)
    for package in OURS:
        for path in (ROOT / package).rglob("*.py"):
            tops = {name.partition(".")[0] for name in imports(path)}
            found = {BROUGHT_BY.get(top, top) for top in tops}
            assert found <= known, f"{path.relative_to(ROOT)} imports {found - known}"


def test_constraints_pin_every_dependency_within_its_range() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.lower().split("==") for line in lines if line and not line.startswith("#"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    for text in [*project["dependencies"], *(one for extra in extras for one in extra)]:
        wanted = Requirement(text)
        if wanted.name != "setuptools":  # pip freeze leaves it out, and any recent one will do
            assert pins[wanted.name.lower()] in wanted.specifier, text


def paste(folder: Path) -> None:
    """Put the table of a finished quickstart between README's marks."""
    from sweeps.terminal import markdown_table  # noqa: PLC0415 - not for the tests

    study, dataset = load_study(find_study("quickstart"))
    done = review(open_sweep(study, dataset, folder))
    table = markdown_table(study, done.results, done.baselines)
    (ROOT / "README.md").write_text(TABLE.sub(lambda _: table, README, count=1))


if __name__ == "__main__":
    paste(Path(sys.argv[1]))
