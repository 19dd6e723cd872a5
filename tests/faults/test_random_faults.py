"""A short run of the harness; `make faults` makes a long one."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from harness import harness
from kinds import KINDS
from verify import Lost, compare, reference_of

FAULTS, SEED = 8, 4


@pytest.mark.timeout(1800)  # 150 s on an idle machine of two cores
def test_a_few_random_faults_change_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tally = harness(FAULTS, SEED, tmp_path, steps=1000)
    assert tally.faults >= FAULTS
    printed = capsys.readouterr().out
    assert f"seed {SEED}" in printed
    counts = dict(re.findall(r"^(\S.*?) {2,}(\d+|skipped: not root)$", printed, re.MULTILINE))
    assert counts.keys() > KINDS.keys(), "each kind has its count, the one of the study too"
    assert sum(int(count) for count in counts.values() if count.isdigit()) == tally.faults
    assert "0 lost, 0 doubled, 0 left RUNNING" in printed
    _check_that_the_look_sees(tmp_path / "reference" / "study")


def _check_that_the_look_sees(folder: Path) -> None:
    """The comparison itself must be able to fail."""
    reference = reference_of(folder)
    compare(reference, reference_of(folder), folder, "reference")
    part = next((folder / "records").glob("*.parquet"))
    pq.write_table(pq.read_table(part), part.with_stem("copy"))
    with pytest.raises(Lost, match="doubled in records/"):
        compare(reference, reference_of(folder), folder, "reference")
    part.with_stem("copy").unlink()
    (folder / "records" / f".{part.name}.0123abcd").write_bytes(b"")
    table = pq.read_table(folder / "results.parquet")
    less = table.set_column(
        table.column_names.index("reconstruction"), "reconstruction", table["auc_split"]
    )
    pq.write_table(less, folder / "results.parquet")
    with pytest.raises(Lost, match=r"reconstruction is .*\n(.*\n)*left behind: "):
        compare(reference, reference_of(folder), folder, "reference")
