"""Anyone's table of runs is reported like a study; the published one comes out to its digits."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from sweeps import cli, sheet, table
from sweeps.answer import answer
from sweeps.comparison import brown_forsythe_p
from sweeps.mistakes import Refused
from sweeps.sheet import read_sheet
from sweeps.stability import sd_interval, stability, t_interval
from sweeps.table import Columns

ROOT = Path(__file__).parents[1]
MSV = Columns(cell=("m",), seed="s", metric="v")
FLAGS = ("--cell", "m", "--seed", "s", "--metric", "v")


def write(folder: Path, text: str, name: str = "runs.csv") -> str:
    (folder / name).write_bytes(text.encode())
    return str(folder / name)


def report(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["report", *arguments])
    out, err = capfd.readouterr()
    return code, out, err


def refused(name: str, columns: Columns = MSV) -> list[str]:
    with pytest.raises(Refused) as failure:
        read_sheet(name, columns)
    return failure.value.mistakes


def many_runs(folder: Path) -> str:
    """Write two configurations in two columns, twelve seeds each; one run has no score."""
    rng = np.random.default_rng(0)
    lines = ["prior,width,seed,score,host"]
    for prior, mean in (("normal", 2.0), ("bimodal", 9.0)):
        lines += [f"{prior},{64},{seed},{mean + rng.normal():.4f},x" for seed in range(12)]
    lines[-1] = "bimodal,64,11,,x"
    return write(folder, "\n".join(lines) + "\n")


# The published example


def published() -> dict[str, list[float]]:
    """Return the scores of each measure, read without our reader."""
    rows = pacsv.read_csv(ROOT / "sweeps/examples/published.csv").to_pylist()
    return {
        kind: [row["value"] for row in rows if row["metric"] == kind]
        for kind in ("AUC", "accuracy")
    }


# mean, sd, min, max, median, IQM, to five digits; t interval, interval of the sd, worst quarter, to
# three; BCa interval, whose bounds are known to .001 of Monte Carlo noise.
FIGURES: dict[str, Any] = {
    "AUC": (
        (0.86604, 0.06066, 0.72418, 0.92492, 0.88654, 0.88564),
        (0.827, 0.905, 0.043, 0.103, 0.782),
        (0.819, 0.891),
    ),
    "accuracy": (
        (0.82281, 0.04941, 0.70146, 0.88962, 0.83231, 0.83279),
        (0.802, 0.844, 0.038, 0.069, 0.754),
        (0.800, 0.840),
    ),
}
LABELS = {
    "AUC": "bimodal prior with Wasserstein analogy, AUC",
    "accuracy": "single Gaussian prior, accuracy",
}


@pytest.mark.parametrize("kind", FIGURES)
def test_the_published_figures_follow_from_the_shipped_table(kind: str) -> None:
    values, (five, three, bca) = published()[kind], FIGURES[kind]
    _, found = read_sheet("published", Columns())
    (row,) = [row for row in found.summary.to_pylist() if row["cell"] == LABELS[kind]]
    own = {name: row[f"value_{name}"] for name in ("mean", "sd", "min", "median", "iqm")}
    shown = (own["mean"], own["sd"], own["min"], max(values), own["median"], own["iqm"])
    assert tuple(round(number, 5) for number in shown) == five
    t, sd = t_interval(values), sd_interval(values)
    assert t is not None
    assert sd is not None
    assert tuple(round(x, 3) for x in (*t, *sd, row["value_worst_quarter"])) == three
    # Half of the last digit on top: the printed bounds are rounded.
    assert (row["value_ci_low"], row["value_ci_high"]) == pytest.approx(bca, abs=0.0015)


def test_the_published_spreads_are_not_told_apart() -> None:
    values = published()
    p = brown_forsythe_p(values["AUC"], values["accuracy"])
    assert p == pytest.approx(0.91, abs=0.005)
    assert stability(values["accuracy"][:22]).mean == pytest.approx(0.82498, abs=5e-6)
    assert stability(sorted(values["AUC"])[2:]).sd == pytest.approx(0.019, abs=5e-4)


def test_the_published_table_is_reported_by_its_name(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, out, err = report(capfd, "published")
    assert (code, err) == (0, "")
    text = " ".join(out.split())
    assert text.startswith(
        "published: value, 2 cells, 12 to 24 seeds each AUC and accuracy are different measures "
        "and do not compare: give each its own table. There is no evidence that either is steadier "
        "(Brown-Forsythe p = 0.91)."
    )
    assert "single Gaussian prior: said to be 22 runs, 24 are listed" in text
    assert "12/12 0.866 0.819" in text
    assert "beats" not in text
    page = (folder / "runs" / "published" / "report.html").read_text()
    assert "said to be 22 runs, 24 are listed" in page
    assert "do not compare" in page
    code, out, _ = report(capfd, "published", "--out", "x", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["answer"]["verdict"] == "no comparison"
    assert [cell["n_scored"] for cell in found["cells"]] == [12, 24]


# Anyone's


def test_a_table_is_reported_like_a_study(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    name = many_runs(folder)
    flags = ("--cell", "prior,width", "--seed", "seed", "--metric", "score", "--low", "1.5")
    code, out, err = report(capfd, name, *flags, "--out", "o")
    assert (code, err) == (1, "")  # one run has no score
    text = " ".join(out.split())
    assert text.startswith("runs: score, 2 cells, 12 seeds each Best is bimodal 64: its mean score")
    assert "11 pairs of seeds, Holm p < 0.001)." in text
    assert "bimodal 64: of 12 runs 1 without a score" in text
    assert "below" in text
    assert (folder / "o" / "figures" / "seeds-score.svg").exists()
    page = (folder / "o" / "report.html").read_text()
    assert "Best is bimodal 64" in page
    assert "no score: empty" in page
    code, out, _ = report(capfd, name, *flags, "--out", "o", "--json")
    found = json.loads(out)
    assert code == 1
    assert set(found) == {"study", "metric", "answer", "cells", "baselines"}
    assert found["baselines"] == {}
    assert found["answer"]["verdict"] == "winner"
    first, second = found["cells"]
    assert first["axes"] == {"prior": "normal", "width": "64"}
    assert (second["n_planned"], second["n_scored"], second["n_failed"]) == (12, 11, 1)
    values = [row["score"] for row in pacsv.read_csv(name).to_pylist() if row["prior"] == "bimodal"]
    expected = stability([value for value in values if value is not None], low=1.5)
    assert set(second["metrics"]) == {"score"}
    assert second["metrics"]["score"]["mean"] == expected.mean
    assert second["metrics"]["score"]["low_basin_share"] == 0
    kept = pq.read_table(folder / "o" / "summary.parquet").to_pylist()
    assert [row["score_mean"] for row in kept][1] == expected.mean
    assert [row["prior"] for row in kept] == ["normal", "bimodal"]


def test_without_low_its_column_is_absent(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    name = many_runs(folder)
    _, out, _ = report(capfd, name, "--cell", "prior", "--seed", "seed", "--metric", "score")
    assert "below" not in out.replace("below 10 seeds", "").replace("below six", "")
    page = (folder / "runs" / "runs" / "report.html").read_text()
    assert "in the low basin" not in page
    assert "Wilson" not in page


def test_parquet_and_csv_say_the_same(tmp_path: Path) -> None:
    name = many_runs(tmp_path)
    pq.write_table(pacsv.read_csv(name), tmp_path / "runs.parquet")
    columns = Columns(cell=("prior", "width"), seed="seed", metric="score")
    csv, parquet = (read_sheet(str(tmp_path / f"runs.{k}"), columns) for k in ("csv", "parquet"))
    assert csv[1].summary == parquet[1].summary
    assert csv[1].runs["score"] == parquet[1].runs["score"]
    assert csv[0].seeds == parquet[0].seeds == tuple(range(12))


def test_a_studys_own_results_are_such_a_table(tmp_path: Path) -> None:
    """Dots in a column's name are part of it; the folder's name is no column."""
    (tmp_path / "a=1").mkdir()
    content = {"network.batch_norm": [True, False], "seed": [3.0, 3.0], "auc": [0.5, 0.7]}
    pq.write_table(pa.table(content), tmp_path / "a=1" / "r.parquet")
    columns = Columns(cell=("network.batch_norm",), seed="seed", metric="auc")
    found, _ = read_sheet(str(tmp_path / "a=1" / "r.parquet"), columns)
    assert [cell.label for cell in found.cells] == ["true", "false"]
    assert found.seeds == (3,)


@pytest.mark.parametrize(
    "value", ["", "NaN", "nan", "NA", "null", "inf", "-inf", "Infinity", "1e999"]
)
def test_a_run_without_a_score_is_counted_never_averaged(value: str, tmp_path: Path) -> None:
    name = write(tmp_path, f"m,s,v\na,1,0.5\na,2,{value}\na,3,0.7\n")
    _, found = read_sheet(name, MSV)
    (row,) = found.summary.to_pylist()
    assert (row["n_planned"], row["n_scored"], row["n_failed"]) == (3, 2, 1)
    assert row["v_mean"] == pytest.approx(0.6)
    errors = found.runs["error"].to_pylist()
    assert errors == [None, f"no score: {value or 'empty'}", None]
    assert not any(math.isnan(v) for v in found.runs["v"].to_pylist() if v is not None)


def test_no_run_with_a_score(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    name = write(folder, "m,s,v\na,1,\nb,x,nan\n")
    code, out, _ = report(capfd, name, *FLAGS)
    assert code == 1
    assert "Nothing is scored: not one of 2 runs has a value of v." in out


def test_seeds_may_be_text(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines = [f"{m},seed {s},{k + s}" for k, m in enumerate("ab") for s in range(8)]
    name = write(folder, "m,s,v\n" + "\n".join(lines) + "\nb,extra,\n")
    code, out, _ = report(capfd, name, *FLAGS)
    assert code == 1
    assert "8 pairs" in out
    page = (folder / "runs" / "runs" / "report.html").read_text()
    assert "<td>extra</td>" in page


def test_metrics_are_in_any_unit(tmp_path: Path) -> None:
    lines = [f"{m},{s},{k * 1e4 - 3e4 + s}" for k, m in enumerate("ab") for s in range(8)]
    found, tables = read_sheet(write(tmp_path, "m,s,v\n" + "\n".join(lines) + "\n"), MSV)
    assert answer(found, tables, {}).sentence.startswith(
        "Best is b: its mean v of -19996.500 is 10000.000 above the next, a ("
    )


def test_labels_tell_cells_apart(tmp_path: Path) -> None:
    columns = Columns(cell=("m", "k"), seed="s", metric="v")
    found, _ = read_sheet(write(tmp_path, "m,k,s,v\na,,1,1\nb,c,1,2\n"), columns)
    assert [cell.label for cell in found.cells] == ["a", "b c"]
    found, _ = read_sheet(write(tmp_path, "m,k,s,v\na,,1,1\n,a,1,2\n"), columns)
    assert [cell.label for cell in found.cells] == ["m=a k=", "m= k=a"]


def test_quotes_newlines_and_a_byte_order_mark(tmp_path: Path) -> None:
    name = write(tmp_path, '\ufeffm,s,v\n"a ""b"",\nc",1,2\n')
    found, _ = read_sheet(name, MSV)
    assert [cell.label for cell in found.cells] == ['a "b",\nc']


def test_words_of_the_table_stay_words(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bad = "<script>alert(1)</script> {{ 7 * 7 }}"
    name = write(folder, f"m,s,v\n{bad},1,2\n{bad},2,3\n=cmd(),1,\n")
    _, out, _ = report(capfd, name, *FLAGS)
    page = (folder / "runs" / "runs" / "report.html").read_text()
    assert page.count("<script") == 1  # ours
    assert "{{ 7 * 7 }}" in page
    assert "\x1b" not in out


def test_axes_never_hide_the_summarys_own_columns(tmp_path: Path) -> None:
    columns = Columns(cell=("v_mean", "cell"), seed="s", metric="v")
    found, tables = read_sheet(write(tmp_path, "cell,v_mean,s,v\nx,y,1,2\n"), columns)
    (row,) = tables.summary.to_pylist()
    assert (row["cell"], row["v_mean"]) == ("y x", 2.0)
    assert found.cells[0].axes == {"v_mean": "y", "cell": "x"}


def test_cells_of_one_measure_are_compared(tmp_path: Path) -> None:
    lines = [f"{m},{s},{k + s / 9},AUC" for k, m in enumerate("ab") for s in range(8)]
    name = write(tmp_path, "m,s,v,of\n" + "\n".join(lines) + "\n")
    columns = Columns(cell=("m",), seed="s", metric="v", measure="of")
    found, tables = read_sheet(name, columns)
    assert [cell.label for cell in found.cells] == ["a", "b"]
    assert answer(found, tables, {}).verdict == "winner"
    write(tmp_path, "m,s,v,of\na,1,2,AUC\na,2,2,accuracy\n")
    assert refused(name, columns) == [
        "runs.csv: --measure: 'a' has AUC and accuracy; expected one; add the column to --cell"
    ]


# Mistakes


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    name = write(tmp_path, "model,seed,auc\na,1,2\n")
    columns = Columns(cell=("modle",), seed="sed", metric="zzz", low=math.nan)
    known = "known: auc, model, seed"
    assert refused(name, columns) == [
        f"runs.csv: --cell: unknown column 'modle'; did you mean 'model'? {known}",
        f"runs.csv: --seed: unknown column 'sed'; did you mean 'seed'? {known}",
        f"runs.csv: --metric: unknown column 'zzz'; {known}",
        "--low: expected a finite number, got nan",
    ]
    assert refused(name, Columns(seed="seed")) == [
        "runs.csv: a table needs --cell, --metric as well; its columns: model, seed, auc"
    ]
    assert refused(name, Columns(cell=("model", "auc"), seed="seed", metric="auc")) == [
        "runs.csv: column 'auc' is named for two purposes"
    ]


def test_names_that_cannot_be_told_apart(tmp_path: Path) -> None:
    name = write(tmp_path, "m,m,s,v,error\na,b,1,2,3\n")
    assert refused(name) == ["runs.csv: --cell: 2 columns are called 'm'"]
    assert refused(name, Columns(cell=("s",), seed="v", metric="error")) == [
        "runs.csv: --metric: 'error' is a word of the report itself; rename the column"
    ]


def test_every_mistake_in_the_rows_at_once(tmp_path: Path) -> None:
    rows = "a,1,2\na,1,3\nb,,x\n,3,4\nc,2,1_0\n"
    assert refused(write(tmp_path, "m,s,v\n" + rows)) == [
        "runs.csv: row 3: no seed",
        "runs.csv: row 3: v: expected a number, got 'x'",
        "runs.csv: row 5: v: expected a number, got '1_0'",
        "runs.csv: row 2: 'a', seed 1 stands in row 1 already; expected a row a run; is a column "
        "missing in --cell?",
        "runs.csv: row 4: no value of m",
    ]
    many = "".join(f"a,{seed},x\n" for seed in range(20))
    told = refused(write(tmp_path, "m,s,v\n" + many))
    assert len(told) == 6
    assert told[-1] == "runs.csv: and 15 more rows like these"
    booleans = pa.table({"m": ["a"], "s": [1], "v": [True]})
    pq.write_table(booleans, tmp_path / "b.parquet")
    assert refused(str(tmp_path / "b.parquet")) == [
        "b.parquet: row 1: v: expected a number, got 'true'"
    ]


def test_one_seed_under_two_spellings_is_one_seed(tmp_path: Path) -> None:
    (told,) = refused(write(tmp_path, "m,s,v\na,1,2\na,01,3\n"))
    assert told.startswith("runs.csv: row 2: 'a', seed 1 stands in row 1 already")


FILES = {
    "empty": (b"", "runs.csv: cannot be read as csv: Empty CSV file"),
    "no rows": (b"m,s,v\n", "runs.csv: no rows; expected a row a run"),
    "semicolons": (
        b"m;s;v\na;1;2\n",
        "runs.csv: one column, 'm;s;v'; expected commas between columns",
    ),
    "ragged": (
        b"m,s,v\na,1\n",
        "runs.csv: cannot be read as csv: CSV parse error: Expected 3 columns, got 2: a,1",
    ),
    "latin": (b"m,s,v\na\xe9,1,2\n", "runs.csv: cannot be read as csv: "),
}


@pytest.mark.parametrize(("content", "sentence"), FILES.values(), ids=FILES.keys())
def test_files_that_are_no_tables(content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_bytes(content)
    (told,) = refused(str(tmp_path / "runs.csv"))
    assert told.startswith(sentence)
    (tmp_path / "runs.parquet").write_bytes(content)
    (told,) = refused(str(tmp_path / "runs.parquet"))
    assert told.startswith("runs.parquet: cannot be read as parquet: ")


def test_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = write(tmp_path, "m,s,v\n" + "".join(f"a{seed},1,{seed}\n" for seed in range(30)))
    pq.write_table(pacsv.read_csv(name), tmp_path / "runs.parquet")
    monkeypatch.setattr(table, "MOST_CELLS", 29)
    assert refused(name) == ["runs.csv: --cell: more than 29 cells; is each of m a setting?"]
    monkeypatch.setattr(table, "MOST_ROWS", 29)
    assert refused(name) == ["runs.csv: more than 29 rows; expected a row a run"]
    parquet = str(tmp_path / "runs.parquet")
    assert refused(parquet) == ["runs.parquet: more than 29 rows; expected a row a run"]


def test_the_command_refuses_in_a_sentence(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    name = write(folder, "m,s,v\na,1,2\n")
    (folder / "held").mkdir()
    (folder / "held" / "study.yaml").write_text("name: x\n")
    (folder / "blocked").write_text("")
    calls = {
        ("nix.csv", *FLAGS): "nix.csv: no such file; expected a table, .csv or .parquet\n",
        (name,): "runs.csv: a table needs --cell, --seed, --metric as well; its columns: m, s, v\n",
        ("smoke", "--cell", "m"): "smoke: --cell: only for a table, a .csv or .parquet file\n",
        (name, *FLAGS, "--out", "held"): (
            "held: holds a study, which has its own report; choose another --out\n"
        ),
        (name, *FLAGS, "--out", "blocked"): (
            "blocked: the report cannot be written: File exists; choose another with --out\n"
        ),
    }
    for arguments, sentence in calls.items():
        assert report(capfd, *arguments) == (2, "", sentence)


def test_a_shipped_tables_columns_can_be_named_too() -> None:
    assert set(sheet.SHIPPED) == {p.stem for p in (ROOT / "sweeps/examples").glob("*.csv")}
    _, found = read_sheet("published", Columns(low=0.8))
    shares = [row["value_low_basin_share"] for row in found.summary.to_pylist()]
    assert shares == pytest.approx([2 / 12, sum(v < 0.8 for v in published()["accuracy"]) / 24])
