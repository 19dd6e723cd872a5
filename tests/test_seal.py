"""A file's own checksum: any damage is found, and no other reader is in its way."""

from __future__ import annotations

import hashlib
import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from sweeps.folder import seal, storage
from sweeps.folder.seal import Damaged

TABLE = pa.table({"run_id": ["a" * 16, "b" * 16], "auc": [0.5, None], "error": ["no", None]})
TENSORS = {"x/weight": np.arange(6, dtype=np.float32).reshape(2, 3), "x/bias": np.zeros(2)}
NOTES = {"spec": '{"a": 1}'}

PARQUET = storage.to_parquet(TABLE)
WEIGHTS = storage.to_safetensors(TENSORS, NOTES)
BOTH = pytest.mark.parametrize("data", [PARQUET, WEIGHTS], ids=["parquet", "safetensors"])


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def is_found(data: bytes) -> bool:
    try:
        seal.check(data)
    except Damaged:
        return True
    return False


@BOTH
def test_the_seal_is_the_digest_of_the_file_with_zeros_in_its_place(data: bytes) -> None:
    (own,) = re.findall(rb"seedsweep-sha256:([0-9a-f]{64})", data)
    assert hashlib.sha256(data.replace(own, b"0" * 64)).hexdigest().encode() == own
    seal.check(data)


def test_any_other_reader_reads_sealed_files(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(PARQUET)
    (tmp_path / "x.safetensors").write_bytes(WEIGHTS)
    table = pq.read_table(tmp_path / "x.parquet")
    assert table.equals(TABLE)
    assert b"whole-file seal" in pq.read_metadata(tmp_path / "x.parquet").metadata
    with safetensors.safe_open(tmp_path / "x.safetensors", framework="numpy") as kept:
        assert kept.metadata()["spec"] == NOTES["spec"]
    for tensors in (
        safetensors.numpy.load_file(tmp_path / "x.safetensors"),
        storage.read_safetensors(tmp_path / "x.safetensors"),
    ):
        assert tensors.keys() == TENSORS.keys()
        assert all(np.array_equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert storage.read_parquet(tmp_path / "x.parquet").equals(TABLE, check_metadata=True)


@BOTH
def test_every_byte_counts_the_marks_own_as_well(data: bytes) -> None:
    """Flipped in four ways, at every position: found every time, so never parsed."""
    for place, change in itertools.product(range(len(data)), (1, 32, 128, 255)):
        damaged = bytearray(data)
        damaged[place] ^= change
        assert is_found(bytes(damaged)), (place, change)


@BOTH
@pytest.mark.parametrize("fill", [b"\0", b"\xff", b"0", b"a"])
@pytest.mark.parametrize("width", [2, 8, 16, 64, 100, 512])
def test_what_is_written_over_gives_no_wrong_data(
    data: bytes, fill: bytes, width: int, tmp_path: Path
) -> None:
    """A window may cover the whole mark: then what stays is no file of its kind."""
    path = tmp_path / ("x.parquet" if data is PARQUET else "x.safetensors")
    for place in range(0, len(data) - 1, max(1, width // 4)):
        end = min(place + width, len(data))
        damaged = data[:place] + fill * (end - place) + data[end:]
        if damaged != data and not is_found(damaged):
            path.write_bytes(damaged)
            assert read(path) is None or is_harmless(path), (place, width)


def is_harmless(path: Path) -> bool:
    """Return whether a file without a trace of a seal still gives the very data."""
    if path.suffix == ".parquet":
        return bool(storage.read_parquet(path).equals(TABLE))
    found = storage.read_safetensors(path)
    same = all(np.array_equal(found[name], TENSORS[name]) for name in TENSORS)
    return found.keys() == TENSORS.keys() and same


def read(path: Path) -> Any:
    """Return what a file holds, None where that is refused."""
    try:
        if path.suffix == ".parquet":
            return storage.read_parquet(path)
        return storage.read_safetensors(path)
    except Damaged:
        return None


@BOTH
def test_no_part_of_a_file_passes_for_it_nor_more_than_it(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / ("x.parquet" if data is PARQUET else "x.safetensors")
    cuts = [data[:place] for place in range(0, len(data), 9)] + [
        data[place:] for place in (1, 8, 99)
    ]
    for damaged in (*cuts, data + b"\0", b"\0" + data, data + data, bytes(len(data)), b""):
        if not is_found(damaged):
            path.write_bytes(damaged)
            assert read(path) is None, len(damaged)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=3))
def test_a_few_bytes_together_are_found(changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(PARQUET)
    for place, change in changes:
        damaged[place % len(damaged)] ^= change
    assert bytes(damaged) == PARQUET or is_found(bytes(damaged))


def test_what_is_older_than_seals_passes(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "old.parquet", compression="zstd")
    safetensors.numpy.save_file(TENSORS, tmp_path / "old.safetensors", NOTES)
    assert storage.read_parquet(tmp_path / "old.parquet").equals(TABLE)
    assert storage.read_safetensors(tmp_path / "old.safetensors").keys() == TENSORS.keys()


def test_a_table_that_was_read_is_sealed_anew(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(PARQUET)
    again = storage.to_parquet(pq.ParquetFile(tmp_path / "x.parquet").read().slice(0, 1))
    seal.check(again)
    assert again.count(b"seedsweep-sha256:") == 1


def test_what_another_tool_wrote_again_is_no_longer_what_was_sealed(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(PARQUET)
    table = pq.ParquetFile(tmp_path / "x.parquet").read()  # takes the seal along as metadata
    pq.write_table(table.slice(0, 1), tmp_path / "x.parquet")
    with pytest.raises(Damaged, match=r"^its checksum differs$"):
        storage.read_whole(tmp_path / "x.parquet")


def test_text_may_quote_a_seal() -> None:
    quoted = PARQUET[PARQUET.index(b"seedsweep-sha256:") :][:81].decode()
    data = storage.to_parquet(pa.table({"traceback": [quoted]}))
    seal.check(data)
    assert is_found(flipped(data, 30))


@pytest.mark.parametrize("count", [0, 2])
def test_one_placeholder_is_expected(count: int) -> None:
    expected = f"^expected one placeholder for the seal, found {count}$"
    with pytest.raises(ValueError, match=expected):
        seal.stamp(b"x" + seal.PLACEHOLDER * count)


def test_a_placeholder_that_was_never_filled_is_damage() -> None:
    assert is_found(b"x" + seal.PLACEHOLDER)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"torn", "it is cut off, or no Parquet at all"),
        (b"PAR1" * 9, "it cannot be read as Parquet: "),
        (flipped(PARQUET, 30), "its checksum differs"),
        (None, "it is a folder"),
    ],
)
def test_damage_is_said_in_a_sentence(content: bytes | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(Damaged) as damaged:
        storage.read_parquet(path)
    assert str(damaged.value).startswith(said)
    assert "\n" not in str(damaged.value)


def test_text_that_is_none_is_found_in_older_files_too(tmp_path: Path) -> None:
    wrong = pa.array([b"\xff\xfe"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"run_id": wrong}), tmp_path / "x.parquet")
    with pytest.raises(Damaged, match=r"^it cannot be read as Parquet: "):
        storage.read_parquet(tmp_path / "x.parquet")


def test_a_full_disk_leaves_the_file_before_and_nothing_else(tmp_path: Path) -> None:
    """A real limit of the kernel's, in a process of its own."""
    storage.write_whole(tmp_path / "x.json", b"before")
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from sweeps.folder.storage import write_whole\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_whole(Path(sys.argv[1]), b'1' * 5000)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "x.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "OSError: [Errno 27] File too large"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"x.json": b"before"}


def test_a_file_cannot_take_a_folders_place(tmp_path: Path) -> None:
    (tmp_path / "x.json" / "inside").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        storage.write_whole(tmp_path / "x.json", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_a_rename_is_brought_to_the_disk(tmp_path: Path) -> None:
    """Seen from the kernel: the folder is synced, and after the rename."""
    code = "import sys; from pathlib import Path; from sweeps.folder.storage import write_whole\n"
    code += "import os\nseen = []\n"
    code += "sys.addaudithook(lambda name, args: seen.append((name, str(args[0]))))\n"
    code += "write_whole(Path(sys.argv[1]), b'x')\n"
    code += "print([n for n, a in seen if n in ('os.rename',) or (n, a) == ('open', sys.argv[2])])"
    command = [sys.executable, "-c", code, str(tmp_path / "x"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['os.rename', 'open']"
