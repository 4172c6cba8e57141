"""Data sets against scikit-learn, against files written here, and against the real MNIST."""

import gzip
import hashlib
import os
import struct
from pathlib import Path

import jax.random as jr
import numpy as np
import pytest
from sklearn.datasets import load_digits

from ndekit.data import Batches, DataError, digits, mnist
from ndekit.data.digits import stratified_split


def rows_of(x):
    return sorted(map(bytes, x))


def test_digits_are_all_of_scikit_learns_once():
    data = digits()
    parts = (data.train_x, data.validation_x, data.test_x)
    assert [len(part) for part in parts] == [1297, 250, 250]
    expected = (load_digits().data / 16).astype(np.float32)
    assert rows_of(np.concatenate(parts)) == rows_of(expected)


def test_digits_keep_each_image_with_its_label():
    data = digits()
    bunch = load_digits()
    images = (bunch.data / 16).astype(np.float32)
    label_of = {bytes(x): y for x, y in zip(images, bunch.target, strict=True)}
    assert len(label_of) == 1797  # no image comes twice, so the look-up says something
    assert all(label_of[bytes(x)] == y for x, y in zip(data.test_x, data.test_y, strict=True))


def test_digits_are_stratified():
    data = digits()
    share = np.bincount(load_digits().target) / 1797
    for labels in (data.train_y, data.validation_y, data.test_y):
        assert np.all(np.abs(np.bincount(labels) - share * len(labels)) <= 2)


def test_split_is_disjoint_and_whole():
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    rest, first, second = stratified_split(labels, (20, 10), seed=3)
    assert sorted(np.concatenate([rest, first, second])) == list(range(100))
    assert np.bincount(labels[first]).tolist() == [10, 6, 4]


def write_idx(path, array, *, magic=None, cut=None):
    magic = bytes([0, 0, 8, array.ndim]) if magic is None else magic
    header = magic + struct.pack(f">{array.ndim}I", *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content[:cut]))


@pytest.fixture
def folder(tmp_path):
    """A folder as MNIST's, with three images to train on and two to test."""
    images = np.arange(5 * 784).reshape(5, 28, 28) % 256
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", images[:3])
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.array([7, 2, 9]))
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", images[3:])
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.array([0, 1]))
    return tmp_path


def test_mnist_reads_what_was_written(folder):
    data = mnist(folder)
    images = (np.arange(5 * 784).reshape(5, 784) % 256 / 255).astype(np.float32)
    assert np.array_equal(data.train_x, images[:3])
    assert np.array_equal(data.test_x, images[3:])
    assert data.train_y.tolist() == [7, 2, 9]
    assert data.test_y.tolist() == [0, 1]
    assert len(data.validation_x) == 0


def test_mnist_at_14_keeps_every_second_pixel(folder):
    small, full = mnist(folder, size=14), mnist(folder)
    pictures = full.train_x.reshape(-1, 28, 28)
    assert small.train_x.shape == (3, 196)
    assert small.train_x[1].reshape(14, 14)[3, 5] == pictures[1, 6, 10]


def test_mnist_holds_out_the_last_training_images(folder):
    data, full = mnist(folder, num_validation=1), mnist(folder)
    assert np.array_equal(data.validation_x, full.train_x[2:])
    assert np.array_equal(data.train_x, full.train_x[:2])


def damage_missing_file(folder):
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()


def damage_gzip_header(folder):
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"<html>not found</html>")


def damage_gzip_end(folder):
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])


def damage_gzip_middle(folder):
    path = folder / "train-images-idx3-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


def damage_empty(folder):
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(b"")


def damage_magic(folder):
    write_idx(
        folder / "train-labels-idx1-ubyte.gz", np.array([7, 2, 9]), magic=bytes([0, 0, 13, 1])
    )


def damage_swapped(folder):
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(
        (folder / "train-images-idx3-ubyte.gz").read_bytes()
    )


def damage_header_length(folder):
    write_idx(folder / "train-labels-idx1-ubyte.gz", np.array([7, 2, 9]), cut=6)


def damage_length(folder):
    write_idx(folder / "train-labels-idx1-ubyte.gz", np.array([7, 2, 9]), cut=-1)


def damage_count(folder):
    write_idx(folder / "train-labels-idx1-ubyte.gz", np.array([7, 2]))


def damage_label(folder):
    write_idx(folder / "train-labels-idx1-ubyte.gz", np.array([7, 2, 10]))


def damage_image_size(folder):
    write_idx(folder / "t10k-images-idx3-ubyte.gz", np.zeros((2, 32, 32)))


DAMAGE = {
    damage_missing_file: "is missing. Put",
    damage_gzip_header: "could not be unzipped",
    damage_gzip_end: "could not be unzipped",
    damage_gzip_middle: "could not be unzipped",
    damage_empty: "begins with nothing",
    damage_magic: "should begin with the IDX header 00000801",
    damage_swapped: "should begin with the IDX header 00000801",
    damage_header_length: "ends inside its IDX header, after 6 of 8 bytes",
    damage_length: r"should hold 3 values for its shape \(3,\), but holds 2",
    damage_count: "holds 3 images, but",
    damage_label: "labels from 0 to 9, but has 10",
    damage_image_size: "images of 28x28 pixels, but holds 32x32",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_damaged_mnist_is_one_clear_error(damage, folder):
    damage(folder)
    with pytest.raises(DataError, match=DAMAGE[damage]):
        mnist(folder)


def test_missing_folder_says_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="does not exist. Name the folder"):
        mnist(tmp_path / "nowhere")
    monkeypatch.delenv("NDEKIT_DATA", raising=False)
    with pytest.raises(DataError, match="set `.NDEKIT_DATA`"):
        mnist()


def test_mnist_options_are_checked(folder):
    with pytest.raises(ValueError, match="`num_validation` must lie from 0 to 2, got 3."):
        mnist(folder, num_validation=3)


REAL = Path(os.environ.get("NDEKIT_DATA", "/nowhere")) / "mnist"


@pytest.mark.skipif(not REAL.is_dir(), reason="$NDEKIT_DATA/mnist is absent")
def test_real_mnist_has_its_known_checksum():
    data = mnist()
    assert data.train_x.shape == (60000, 784) and data.test_x.shape == (10000, 784)
    pixels = np.rint(data.train_x * 255).astype(np.uint8).tobytes()
    header = bytes([0, 0, 8, 3]) + struct.pack(">3I", 60000, 28, 28)
    # The md5 that everybody's copy of the unpacked training images has.
    assert hashlib.md5(header + pixels).hexdigest() == "6bbc9ace898e44ae57da46a324031adb"
    assert data.train_y[:5].tolist() == [5, 0, 4, 1, 9]


def test_an_epoch_sees_each_example_once():
    batches = Batches(np.arange(12), batch_size=3, key=jr.key(0))
    assert batches.num_per_epoch == 4
    seen = np.concatenate([batches(step) for step in range(4)])
    assert sorted(seen) == list(range(12))


def test_batches_depend_on_key_and_step_alone():
    batches = Batches(np.arange(50), batch_size=8, key=jr.key(1))
    steps = [0, 13, 2, 100, 2, 13]
    again = Batches(np.arange(50), batch_size=8, key=jr.key(1))
    assert all(np.array_equal(batches(step), again(step)) for step in reversed(steps))
    assert [batches(step).tolist() for step in steps] == [again(step).tolist() for step in steps]


def test_epochs_and_keys_shuffle_differently():
    batches = Batches(np.arange(50), batch_size=50, key=jr.key(1))
    other = Batches(np.arange(50), batch_size=50, key=jr.key(2))
    assert not np.array_equal(batches(0), batches(1))
    assert not np.array_equal(batches(0), other(0))


def test_what_is_left_over_is_not_a_batch():
    batches = Batches(np.arange(10), batch_size=4, key=jr.key(0))
    assert all(len(batches(step)) == 4 for step in range(5))


def test_bad_batches_are_refused():
    with pytest.raises(ValueError, match="from 1 to the 10 examples there are, got 11"):
        Batches(np.arange(10), batch_size=11, key=jr.key(0))
    with pytest.raises(ValueError, match=r"got lengths \[3, 4\]"):
        Batches((np.arange(3), np.arange(4)), batch_size=1, key=jr.key(0))
