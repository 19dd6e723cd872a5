"""cluster.yaml as Ray sees it, and what its script makes of the launcher's arguments."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "cluster" / "run_study.py"
TEXT = (ROOT / "cluster.yaml").read_text()
HELP = (
    "write it with: ray submit cluster.yaml cluster/run_study.py -- "
    "$(python cluster/run_study.py --encode STUDY ...)"
)


def check(path: Path) -> tuple[int, list[str]]:
    """Run what `make check` runs."""
    call = subprocess.run(
        [sys.executable, ROOT / "cluster" / "check_config.py", path],
        capture_output=True,
        text=True,
        check=False,
    )
    return call.returncode, call.stdout.splitlines()


def test_ray_takes_every_form_of_the_file() -> None:
    code, said = check(ROOT / "cluster.yaml")
    assert code == 0
    assert re.fullmatch(r"cluster\.yaml: Ray [\d.]+ takes local, aws, gcp", said[0])


def test_mistakes_in_each_form_and_in_what_they_share_are_named(tmp_path: Path) -> None:
    """All at once: a form is asked also where it stands in comments."""
    path = tmp_path / "cluster.yaml"
    changed = TEXT
    for before, after in (
        ("  head_ip: ", "  head: "),
        ("# max_workers: 8\n# idle_timeout_minutes: 10\n", "# max_workers: many\n"),
        ("#     resources: {CPU: 4, GPU: 1}\n", "#     resource: {CPU: 4, GPU: 1}\n"),
        ("    . ~/seedsweep/environment.sh; ulimit", "    ulimit"),
        ("models: models", "models: modells"),
        ("  - chmod 600", "  - (chmod 600"),
    ):
        assert before in changed
        changed = changed.replace(before, after, 1)
    path.write_text(changed)
    code, said = check(path)
    assert code == 1
    assert said == [
        "cluster.yaml: form local: Please supply a `head_ip` and list of `worker_ips`. "
        "Alternatively, supply a `coordinator_address`.",
        "cluster.yaml: form aws: available_node_types.gpu: 'resources' is a required property",
        "cluster.yaml: form gcp: max_workers: 'many' is not of type 'integer'",
    ]
    for form in ("aws", "gcp"):
        changed = re.sub(rf"# form: {form}\n.*?# end\n", "", changed, count=1, flags=re.DOTALL)
    path.write_text(changed.replace("  head: ", "  head_ip: "))
    code, said = check(path)
    assert code == 1
    assert [line.partition(": bash: ")[0] for line in said] == [
        "cluster.yaml: form aws: missing",
        "cluster.yaml: form gcp: missing",
        "cluster.yaml: form local: file_mounts.~/seedsweep/models: there is no modells here",
        "cluster.yaml: form local: setup_commands[0]: not shell",
        "cluster.yaml: form local: head_start_ray_commands[1]: starts a node without "
        "environment.sh, which turns authentication on",
    ]


def submitted(folder: Path, joined: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the script as the head's shell does: with words that nobody has quoted."""
    shell = shutil.which("bash")
    assert shell
    return subprocess.run(
        [shell, "-c", f"{sys.executable} {SCRIPT} {joined}"],
        cwd=folder,
        env={"HOME": str(folder), "PATH": "/usr/bin:/bin", "SEEDSWEEP_SHARED": str(folder)} | more,
        capture_output=True,
        text=True,
        check=False,
    )


def encoded(*words: str) -> str:
    call = subprocess.run(
        [sys.executable, SCRIPT, "--encode", *words], capture_output=True, text=True, check=True
    )
    return call.stdout.strip()


def test_encoded_words_arrive_as_they_were_written(tmp_path: Path) -> None:
    name = 'it\'s; touch gone $(touch gone) * "quoted" ä.yaml'
    (tmp_path / name).write_text("name: x\nseeds: many\n")
    word = encoded(f"~/{name}", "--seeds", "2")
    assert re.fullmatch(r"--encoded=[\w=-]+", word, re.ASCII)
    call = submitted(tmp_path, word)
    assert (call.returncode, call.stdout) == (2, "")
    assert f"{name}: seeds: " in call.stderr
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize(
    ("joined", "said"),
    [
        ("", f"expected a study, then options of `sweeps run`; {HELP}"),
        ("--seeds 3", f"expected a study, then options of `sweeps run`; {HELP}"),
        (r"smoke 'a b'", f"argument 'a b': what the head's shell left of it; {HELP}"),
        ("--encoded=WyJz", f"--encoded=...: it was cut off or changed on its way; {HELP}"),
        ("--encoded=e30=", f"--encoded=...: expected a list of words; {HELP}"),
        (
            "smoke --launcher local",
            "--launcher: a study that is submitted trains on the cluster; leave it out",
        ),
    ],
)
def test_what_cannot_have_been_meant_is_refused(joined: str, said: str, tmp_path: Path) -> None:
    call = submitted(tmp_path, joined)
    assert (call.returncode, call.stdout, call.stderr) == (2, "", f"run_study.py: {said}\n")


def test_words_that_the_shell_has_divided_are_no_study(tmp_path: Path) -> None:
    (tmp_path / "my study.yaml").write_text("name: x\n")
    call = submitted(tmp_path, "my study.yaml")
    assert call.returncode == 2
    assert call.stderr.endswith("unrecognized arguments: study.yaml\n")


def test_a_shared_folder_that_is_not_there(tmp_path: Path) -> None:
    place = tmp_path / "nowhere"
    call = submitted(tmp_path, "smoke", SEEDSWEEP_SHARED=str(place))
    assert (call.returncode, call.stdout) == (2, "")
    assert call.stderr == (
        f"run_study.py: SEEDSWEEP_SHARED: {place}: No such file or directory; "
        "correct it in cluster.yaml\n"
    )
