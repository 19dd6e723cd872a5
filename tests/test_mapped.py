"""Images that are mapped from a file travel to a worker as its name, and train as in memory."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from models.scores import Scorer
from models.spec import Spec
from models.train import train
from sweeps.trial import Data


def mapped(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    images = np.random.default_rng(0).random((300, 1, 7, 7), dtype=np.float32)
    np.save(folder / "images.npy", images)
    return images, np.load(folder / "images.npy", mmap_mode="c", allow_pickle=False)


def test_mapped_images_are_pickled_as_the_name_of_their_file(tmp_path: Path) -> None:
    images, there = mapped(tmp_path)
    data = Data(there.reshape(300, -1), "0" * 64, Scorer(None, ""))
    sent = pickle.dumps(data)
    assert len(sent) < 2000 < images.nbytes
    arrived = pickle.loads(sent)  # noqa: S301 - written a line above
    assert isinstance(arrived.images, np.memmap)
    np.testing.assert_array_equal(arrived.images, images.reshape(300, -1))
    in_memory = Data(images.reshape(300, -1), "0" * 64, Scorer(None, ""))
    assert len(pickle.dumps(in_memory)) > images.nbytes
    (tmp_path / "images.npy").unlink()
    with pytest.raises(FileNotFoundError):
        pickle.loads(sent)  # noqa: S301 - written above


def test_mapped_images_train_to_the_bits_of_images_in_memory(tmp_path: Path) -> None:
    images, there = mapped(tmp_path)
    training = {"steps": 30, "batch_size": 16}
    spec = Spec.model_validate({"objective": "wae", "training": training})
    one, other = (train(spec, [3, 1], part.reshape(300, -1)) for part in (images, there))
    for mine, theirs in zip(one, other, strict=True):
        assert mine.code is not None
        assert theirs.code is not None
        assert mine.code.tobytes() == theirs.code.tobytes()
        assert mine.divergence_value == theirs.divergence_value
        for name, tensor in mine.tensors.items():
            assert tensor.tobytes() == theirs.tensors[name].tobytes()
