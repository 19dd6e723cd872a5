"""New images scored by trained members: the same bits, aligned without labels, named by them."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from studies import tiny, write
from test_run import Silent

from models.datasets.digits import Digits
from models.datasets.npz import Npz
from models.datasets.unseen import unseen
from models.joining import aligned_clusters, aligned_signs, share_below
from sweeps.cli import main
from sweeps.mistakes import Refused
from sweeps.predict import kept_code, predict
from sweeps.results import read_part, read_records, write_part
from sweeps.review import review
from sweeps.run import train_missing
from sweeps.study import load_study
from sweeps.sweep import Sweep, open_sweep

SEEDS = 7
SPEC = {
    "network": {"kind": "mlp", "hidden": [32, 16]},
    "training": {"steps": 250, "batch_size": 64, "learning_rate": 0.005},
}
WAE = {"objective": "wae", "prior": "bimodal"}


def trained(folder: Path, raw: dict[str, Any]) -> Sweep:
    folder.mkdir(parents=True, exist_ok=True)
    study, dataset = load_study(write(folder, raw))
    sweep = open_sweep(study, dataset, folder / "out")
    train_missing(sweep, launcher="inline", width=None, display=lambda *_: Silent())
    return sweep


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    raw = tiny(spec=SPEC, cells=[WAE], seeds=SEEDS)
    return trained(tmp_path_factory.mktemp("one"), raw)


@pytest.fixture
def copy(study: Sweep, tmp_path: Path) -> Sweep:
    """Return the study in a folder that a test may damage."""
    for path in study.folder.rglob("*"):
        if path.is_file():
            place = tmp_path / "out" / path.relative_to(study.folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
    return open_sweep(study.study, study.dataset, tmp_path / "out")


def column(sweep: Sweep, name: str, images: Any, **which: Any) -> list[Any]:
    values: list[Any] = predict(sweep, images, **which).table[name].to_pylist()
    return values


def refused(sweep: Sweep, images: Any, **which: Any) -> list[str]:
    with pytest.raises(Refused) as refusal:
        predict(sweep, images, **which)
    return refusal.value.mistakes


def files(sweep: Sweep) -> tuple[Path, ...]:
    return tuple(sorted((sweep.folder / "members").iterdir()))


def test_a_seed_gives_training_images_the_codes_that_were_kept(study: Sweep) -> None:
    for seed in range(SEEDS):
        kept = kept_code(study, None, seed)
        code = np.array(column(study, "score", study.dataset.images, seed=seed))
        assert code.astype(np.float32).tobytes() == kept[:, 0].tobytes()
        assert kept.shape == (len(study.dataset.images), 1)


def test_joined_orders_no_worse_than_the_median_member(study: Sweep) -> None:
    labels = study.dataset.labels
    areas = [roc_auc_score(labels, kept_code(study, None, s)[:, 0]) for s in range(SEEDS)]
    alone = sorted(max(area, 1 - area) for area in areas)
    joined = roc_auc_score(labels, column(study, "score", study.dataset.images))
    assert joined >= alone[SEEDS // 2]
    assert 0.5 < joined < 1


def test_classes_follow_the_score_and_spread_is_between_the_seeds(study: Sweep) -> None:
    done = predict(study, study.dataset.images)
    rows = done.table.to_pylist()
    assert list(rows[0]) == ["image", "score", "spread", "class"]
    assert done.naming == "named by the study's labels: a high score means '8'"
    names = [row["class"] for row in sorted(rows, key=lambda row: row["score"])]
    assert [name for name, _ in itertools.groupby(names)] == ["1", "8"], "one threshold"
    raw = np.array([kept_code(study, None, seed)[:, 0] for seed in range(SEEDS)])
    ranks = np.array([[(code < one).mean() for one in code] for code in raw])  # without ties
    signs = [np.sign(spearmanr(one, [row["score"] for row in rows])[0]) for one in raw]
    aligned = np.array([r if s > 0 else 1 - r for s, r in zip(signs, ranks, strict=True)])
    # Ties count half above: within the one image itself.
    half = 1 / len(rows)
    np.testing.assert_allclose([row["score"] for row in rows], aligned.mean(0), atol=half)
    np.testing.assert_allclose([row["spread"] for row in rows], aligned.std(0, ddof=1), atol=half)


def test_a_single_new_image_is_scored_as_among_others(study: Sweep) -> None:
    images = study.dataset.images
    alone = predict(study, images[5:6]).table.to_pylist()
    among = predict(study, images[:9]).table.to_pylist()
    assert alone == [{**among[5], "image": 0}]


def test_share_below_is_the_mid_distribution_function() -> None:
    training = np.array([3.0, 1.0, 1.0, 2.0])
    values = np.array([0.0, 1.0, 1.5, 3.0, 9.0, np.nan])
    expected = [0, 1 / 4, 1 / 2, 7 / 8, 1, np.nan]
    np.testing.assert_array_equal(share_below(training, values), expected)
    np.testing.assert_array_equal(share_below(-training, -values), 1 - np.array(expected))


def codes(count: int = 6, images: int = 400) -> list[Any]:
    draw = np.random.default_rng(0)
    truth = draw.standard_normal(images)
    flips = draw.choice([-1, 1], count)
    return [flip * truth + 0.7 * draw.standard_normal(images) for flip in flips]


def test_signs_agree_with_all_pairs_and_do_not_depend_on_how_codes_are_flipped() -> None:
    every = codes()
    signs = aligned_signs(every)
    for (a, one), (b, other) in itertools.combinations(zip(signs, every, strict=True), 2):
        assert spearmanr(a * one, b * other)[0] > 0
    for place in range(len(every)):
        flipped = [*every[:place], -every[place], *every[place + 1 :]]
        again = aligned_signs(flipped)
        same = [a * one for a, one in zip(signs, every, strict=True)]
        new = [a * one for a, one in zip(again, flipped, strict=True)]
        turn = np.sign(same[0] @ new[0])
        for left, right in zip(same, new, strict=True):
            np.testing.assert_array_equal(left, turn * right)


def flip(sweep: Sweep, seed: int) -> None:
    """Negate a member's code: its last layer, and the codes that were kept."""
    from safetensors.numpy import load_file, save_file  # noqa: PLC0415

    from sweeps.results import to_parquet  # noqa: PLC0415

    (run,) = (run for run in sweep.runs if run.seed == seed)
    pack = read_records(sweep.folder)[run.run_id]["pack"]
    path = sweep.folder / "members" / f"{pack}.safetensors"
    tensors = load_file(path)
    for name in ("code.mean.weight", "code.mean.bias"):
        tensors[f"{run.run_id}/{name}"] = -tensors[f"{run.run_id}/{name}"]
    save_file(tensors, path)
    table = pq.read_table(sweep.folder / "codes" / f"{pack}.parquet").to_pydict()
    place = table["run_id"].index(run.run_id)
    table["code"][place] = [-value for value in table["code"][place]]
    kept = pq.read_schema(sweep.folder / "codes" / f"{pack}.parquet")
    text = to_parquet(pa.Table.from_pydict(table, schema=kept))
    (sweep.folder / "codes" / f"{pack}.parquet").write_bytes(text)


def test_flipping_a_member_changes_nothing(copy: Sweep) -> None:
    images = copy.dataset.images
    before, raw = predict(copy, images).table, column(copy, "score", images, seed=3)
    names = column(copy, "class", images, seed=3)
    flip(copy, 3)
    assert column(copy, "score", images, seed=3) == [-value for value in raw]
    assert column(copy, "class", images, seed=3) == names
    assert predict(copy, images).table.equals(before)


def test_without_labels_the_sign_is_that_of_ink_and_clusters_have_numbers(study: Sweep) -> None:
    from dataclasses import replace  # noqa: PLC0415

    dataset = replace(study.dataset, labels=None, class_names=())
    blind = Sweep(study.study, dataset, study.runs, study.folder)
    done = predict(blind, dataset.images)
    assert done.table.column_names == ["image", "score", "spread", "cluster"]
    what = "a high score goes with a high mean pixel; cluster 1 has the high scores"
    assert done.naming == f"no labels: {what}"
    score = done.table["score"].to_numpy()
    assert np.corrcoef(score, dataset.covariates["ink"])[0, 1] > 0
    seen = np.array(column(study, "score", dataset.images))
    assert np.allclose(score, seen) or np.allclose(score, 1 - seen), "labels name, no more"


def test_clusters_of_several_seeds_are_aligned() -> None:
    draw = np.random.default_rng(1)
    truth = np.eye(3)[draw.integers(0, 3, 500)]
    orders = [draw.permutation(3) for _ in range(5)]
    noisy = [0.8 * truth[:, order] + 0.2 * draw.dirichlet(np.ones(3), 500) for order in orders]
    pairs = aligned_clusters(noisy)
    aligned = [one[:, pair].argmax(1) for one, pair in zip(noisy, pairs, strict=True)]
    for one, other in itertools.combinations(aligned, 2):
        assert (one == other).mean() > 0.99


def test_several_units_give_clusters_that_labels_name(tmp_path: Path) -> None:
    dataset = {"name": "digits", "classes": [0, 1, 7]}
    prior = {"kind": "mixture", "means": [[-2, 0], [2, 0], [0, 2]], "scales": [0.4] * 3}
    cell = {"objective": "wae", "prior": prior, "code": {"class_units": 2}}
    raw = tiny(dataset=dataset, spec=SPEC, cells=[cell], seeds=3)
    sweep = trained(tmp_path, raw)
    images, labels = sweep.dataset.images, sweep.dataset.labels
    done = predict(sweep, images)
    rows = done.table.to_pylist()
    assert list(rows[0]) == ["image", "cluster", "share", "spread", "class"]
    assert re.match(r"named by the study's labels: cluster 0 is '\d', 1 is '\d'", done.naming)
    assert all(0 < row["share"] <= 1 for row in rows)
    own = [column(sweep, "class", images, seed=s) for s in range(3)]
    truth = [sweep.dataset.class_names[label] for label in labels]
    right = [np.mean([a == b for a, b in zip(one, truth, strict=True)]) for one in own]
    recorded = {r["seed"]: r["accuracy"] for r in read_records(sweep.folder).values()}
    assert right == pytest.approx([recorded[s] for s in range(3)]), "as the study scored it"
    joined = np.mean([row["class"] == name for row, name in zip(rows, truth, strict=True)])
    assert joined >= sorted(right)[1] - 0.02
    alone = predict(sweep, images[:4], seed=1).table
    assert alone.column_names == ["image", "code_0", "code_1", "cluster", "share", "class"]
    kept = kept_code(sweep, None, 1)
    assert alone["code_1"].to_pylist() == kept[:4, 1].astype(float).tolist()


def test_units_without_clusters_cannot_be_joined(tmp_path: Path) -> None:
    from dataclasses import replace  # noqa: PLC0415

    spec = {"network": {"hidden": [16]}, "training": {"steps": 40, "batch_size": 32}}
    cell = {"objective": "ae", "code": {"class_units": 2}}
    sweep = trained(tmp_path, tiny(spec=spec, cells=[cell], seeds=2))
    dataset = replace(sweep.dataset, labels=None, class_names=())
    blind = Sweep(sweep.study, dataset, sweep.runs, sweep.folder)
    assert refused(blind, dataset.images) == [
        "seeds cannot be joined: 2 class units without clusters: no prior with peaks, and no "
        "classes to look for; choose one with --seed"
    ]
    done = predict(blind, dataset.images[:2], seed=0)
    assert done.table.column_names == ["image", "code_0", "code_1"]


def test_with_a_split_ranks_are_among_the_images_trained_on(tmp_path: Path) -> None:
    raw = tiny(cells=[WAE], seeds=2, split=0.5)
    sweep = trained(tmp_path, raw)
    score = np.array(column(sweep, "score", sweep.dataset.images))
    steps = score * 2 * 2 * len(sweep.draws.own.rows)
    np.testing.assert_allclose(steps, steps.round(), atol=1e-6)
    assert len(sweep.draws.own.rows) < len(score)


def changed(sweep: Sweep, seed: int, **fields: Any) -> None:
    """Let a run's record say something else."""
    (run,) = (run for run in sweep.runs if run.seed == seed)
    path = sweep.folder / "records" / f"{read_records(sweep.folder)[run.run_id]['pack']}.parquet"
    records = read_part(path)
    for record in records:
        if record["run_id"] == run.run_id:
            record.update(fields)
    write_part(sweep.folder, path.stem, records)


def test_diverged_and_collapsed_seeds_are_left_out_and_counted(copy: Sweep) -> None:
    images = copy.dataset.images[:3]
    changed(copy, 2, status="diverged", error="the loss was not finite at step 9")
    changed(copy, 4, status="collapsed", error="one cluster")
    done = predict(copy, images)
    assert done.seeds == (0, 1, 3, 5, 6)
    assert done.left_out == {"collapsed": 1, "diverged": 1}
    label = copy.study.cells[0].label
    assert done.words()[:2] == [
        f"tiny, {label}: 3 images, 5 seeds",
        "left out: 1 collapsed, 1 diverged",
    ]
    assert predict(copy, images, seed=4).seeds == (4,), "a collapsed one can be named"
    (sentence,) = refused(copy, images, seed=2)
    assert sentence == (
        f"--seed: seed 2 of '{label}' diverged, so it has no weights: "
        "the loss was not finite at step 9"
    )
    for seed in range(SEEDS):
        changed(copy, seed, status="diverged", error="x")
    assert refused(copy, images) == [
        f"'{label}': none of its 7 seeds can be joined (7 diverged); first: sweeps run, or choose "
        "a collapsed one with --seed"
    ]


def test_seeds_that_are_not_there_are_named(study: Sweep) -> None:
    more = open_sweep(study.study.with_seeds(9), study.dataset, study.folder)
    images, label = study.dataset.images[:2], study.study.cells[0].label
    assert predict(more, images).left_out == {"missing": 2}
    assert refused(more, images, seed=8) == [
        f"--seed: seed 8 of '{label}' is not trained; first: sweeps run"
    ]
    assert refused(study, images, seed=8) == [
        "--seed: tiny has no seed 8; known: 0, 1, 2, 3, 4, 5, 6"
    ]


def test_a_cell_is_never_chosen_for_the_user(study: Sweep, tmp_path: Path) -> None:
    raw = tiny(spec=SPEC, cells=[WAE, {"objective": "ae"}], seeds=SEEDS)
    both, _ = load_study(write(tmp_path, raw))
    sweep = open_sweep(both, study.dataset, study.folder)
    images = study.dataset.images[:2]
    first, second = (cell.label for cell in both.cells)
    assert refused(sweep, images) == [
        "tiny: has 2 cells, and labels must not choose one; choose one with --cell: "
        f"'{first}', '{second}'"
    ]
    assert refused(sweep, images, cell="a") == [
        f"--cell: tiny has no cell 'a'; known: '{first}', '{second}'"
    ]
    own = predict(sweep, images, cell=first)
    assert predict(sweep, images, cell=own.cell_id).table.equals(own.table)
    assert own.table.equals(predict(study, images).table)


def test_missing_and_damaged_weights_are_one_sentence(copy: Sweep) -> None:
    images = copy.dataset.images[:2]
    path = files(copy)[0]
    fix = "and run the study again to train its runs anew"
    for damage in (path.read_bytes()[:-100], b"", b"\xff" * 64, b"\x00" * 8 + b"{}"):
        path.write_bytes(damage)
        (sentence,) = refused(copy, images)
        start = re.escape(f"{path}: the weights of seed ")
        assert re.match(rf"{start}\d cannot be read: \S.*; move records/", sentence)
        assert sentence.endswith(f"move records/{path.stem}.parquet away, {fix}")
        assert "\n" not in sentence
    path.unlink()
    (sentence,) = refused(copy, images)
    assert re.match(rf"{re.escape(str(path))}: no such file: the weights of seed \d are", sentence)


def test_codes_that_are_gone_are_one_sentence(copy: Sweep) -> None:
    path = min((copy.folder / "codes").iterdir())
    path.unlink()
    (sentence,) = refused(copy, copy.dataset.images[:2])
    assert sentence.startswith(f"{path}: ")
    assert sentence.endswith("run the study again to train its runs anew")


def save(path: Path, images: Any) -> Path:
    np.savez(path, images=images)
    return path


def test_images_of_another_kind_are_refused(study: Sweep, tmp_path: Path) -> None:
    wide = np.zeros((2, 8, 9))
    whole = "(channels x height x width), where the study's are 1 x 8 x 8"
    assert refused(study, wide) == [f"images: images of 1 x 8 x 9 {whole}"]
    path = save(tmp_path / "wide.npz", wide)
    assert refused(study, path) == [f"{path}: images of 1 x 8 x 9 {whole}"]
    assert refused(study, wide[:0]) == ["images: holds no images"]
    assert refused(study, wide[0]) == [
        "images: expected numbers N x H x W or N x C x H x W, got 8 x 9 of type float64"
    ]
    assert refused(study, tmp_path / "no.npz") == [f"no such file: {tmp_path / 'no.npz'}"]
    (tmp_path / "x.txt").write_text("images")
    (sentence,) = refused(study, tmp_path / "x.txt")
    assert sentence.startswith(f"{tmp_path / 'x.txt'}: its form is not known from its name;")
    holes = np.full((2, 8, 8), np.nan)
    (sentence,) = refused(study, holes)
    assert sentence.startswith("2 of 2 images hold NaN or infinite pixels")


def test_an_image_that_overflows_a_member_has_no_score(study: Sweep) -> None:
    images = np.concatenate([study.dataset.images[:1], np.full((1, 1, 8, 8), 3e38)])
    first, second = predict(study, images).table.to_pylist()
    assert first == predict(study, images[:1]).table.to_pylist()[0]
    assert second["score"] is None or 0 <= second["score"] <= 1


def test_names_of_files_and_bytes_are_read_as_a_study_reads_them(
    study: Sweep, tmp_path: Path
) -> None:
    bytes_ = (study.dataset.images[:3, 0] * 255).round().astype(np.uint8)
    for name, image in zip("cab", bytes_, strict=True):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    table = predict(study, tmp_path).table
    assert table["image"].to_pylist() == ["a.png", "b.png", "c.png"]
    direct = predict(study, (bytes_ / np.float32(255))[[1, 2, 0]]).table
    assert table.drop("image").equals(direct.drop("image"))


def test_new_images_take_the_steps_of_the_study_and_its_standard() -> None:
    """`standardise` must not look at the new images; an oracle by hand."""
    steps = [{"kind": "asinh", "softening": 0.5}, "standardise"]
    settings = Digits.model_validate({"classes": [1, 8], "preprocess": steps})
    raw = Digits(classes=(1, 8)).load().images.astype(np.float64)
    bent = 0.5 * np.arcsinh(raw / 0.5)
    new = np.random.default_rng(0).random((1, 8, 8)).astype(np.float32)
    expected = (0.5 * np.arcsinh(new.astype(float) / 0.5) - bent.mean()) / bent.std()
    found = unseen(settings, new, (1, 8, 8)).images
    np.testing.assert_allclose(found[0], expected, rtol=1e-5, atol=1e-6)
    again = unseen(settings, raw.astype(np.float32), (1, 8, 8)).images
    assert again.tobytes() == settings.load().images.tobytes(), "the study's own, to the bit"


def test_a_file_is_read_with_the_settings_of_the_study(tmp_path: Path) -> None:
    from models.datasets.parquet import Parquet  # noqa: PLC0415

    flat = np.random.default_rng(0).random((5, 6))
    pq.write_table(pa.table({"cut": flat.tolist()}), tmp_path / "a.parquet")
    study = Parquet(path="elsewhere.parquet", image="cut", label="kind", shape=(2, 3))
    found = unseen(study, tmp_path / "a.parquet", (1, 2, 3))
    np.testing.assert_allclose(found.images.reshape(5, 6), flat, rtol=1e-6)
    one = save(tmp_path / "one.npz", flat[:1].reshape(1, 2, 3))
    other = unseen(Npz(path="elsewhere.npz", classes=("a", "b")), one, (1, 2, 3))
    assert other.images.shape == (1, 1, 2, 3), "no labels needed, one image is enough"


def call(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main([*arguments])
    captured = capfd.readouterr()
    return code, captured.out, captured.err


def test_the_command(study: Sweep, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    save(folder / "new.npz", study.dataset.images[:7])
    review(study)
    where = str(study.folder)
    expected = predict(study, study.dataset.images[:7])
    rows = expected.table.to_pylist()

    code, out, err = call(capfd, "predict", where, "new.npz")
    assert code == 0
    read = list(csv.DictReader(io.StringIO(out)))
    assert [float(row["score"]) for row in read] == [row["score"] for row in rows]
    assert err.splitlines() == expected.words(), "words beside the table go to stderr"

    code, out, _ = call(capfd, "predict", where, "new.npz", "--json")
    content = json.loads(out)
    assert (code, content["rows"], content["out"]) == (0, rows, None)
    assert content["seeds"] == list(range(SEEDS))
    assert sum(content["counts"].values()) == content["images"] == 7

    for name in ("x.csv", "x.parquet"):
        code, out, err = call(capfd, "predict", where, "new.npz", "--join", "--out", name)
        assert (code, err) == (0, "")
        assert out.splitlines() == expected.words()
    assert pq.read_table("x.parquet").to_pylist() == rows
    assert len((folder / "x.csv").read_text().splitlines()) == 8
    code, out, _ = call(
        capfd, "predict", where, "new.npz", "--seed", "2", "--out", "x.csv", "--json"
    )
    content = json.loads(out)
    assert (content["out"], content["seeds"], len(content["rows"])) == ("x.csv", [2], 5)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--out", "x.txt"], "--out: expected a file ending in .csv or .parquet, got x.txt"),
        (["--out", "new.npz/x.csv"], "new.npz/x.csv: cannot be written: "),
    ],
)
def test_a_table_that_cannot_be_written_is_refused(
    study: Sweep,
    folder: Path,
    capfd: pytest.CaptureFixture[str],
    arguments: Sequence[str],
    sentence: str,
) -> None:
    save(folder / "new.npz", study.dataset.images[:7])
    review(study)
    code, out, err = call(capfd, "predict", str(study.folder), "new.npz", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(sentence)
    assert err.count("\n") == 1


def test_without_records_the_command_says_what_comes_first(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(folder, tiny())
    code, _, err = call(capfd, "predict", "x.yaml", "new.npz")
    assert (code, err) == (2, "runs/tiny: no records; first: sweeps run x.yaml\n")
