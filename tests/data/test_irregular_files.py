"""Loaders of irregular series: files written here, damaged ones, and the real ones."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from ndekit.data import DataError, hopper, nafld, pbcseq, ucr

HEADER = (
    "# a comment\n@problemName Toy\n@timeStamps false\n@dimensions 2\n@classLabel true up down\n"
)
TRAIN = HEADER + "@data\n1,2,?:4,NaN,6:up\n\n7:8,9:down\n"
TEST = HEADER + "@data\n1:2:down\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a small set of each kind, which nothing else can stand in for."""
    monkeypatch.delenv("NDEKIT_DATA", raising=False)
    (tmp_path / "Toy_TRAIN.ts").write_text(TRAIN)
    (tmp_path / "Toy_TEST.ts").write_text(TEST)
    np.savez(tmp_path / "nafld.npz", **NAFLD)
    np.savez(tmp_path / "pbcseq.npz", **PBCSEQ)
    np.savez(tmp_path / "hopper.npz", **HOPPER)
    return tmp_path


NAFLD = dict(
    patient=np.array([5, 5, 5, 5, 5, 2, 2, 2, 2]),
    day=np.array([3, 3, 1, 1, 9, 0, 0, 1, 2]),
    channel=np.array([0, 0, 1, 2, 0, 1, 1, 3, 0], np.int8),
    value=np.array([40.0, 60.0, 120.0, 1.0, 30.0, 13682.0, 59.0, 3.0, 50.0], np.float32),
    channels=np.array(["hdl", "sbp", "smoke", "fib4"]),
    base_id=np.array([5.0, 1.0, 2.0], np.float32),
    **{f"base_{name}": np.array([50.0, 10.0, 20.0]) for name in ("age", "male", "bmi", "futime")},
    base_status=np.array([1.0, 0.0, 0.0]),
)
LABS = ("bili", "chol", "albumin", "alk_phos", "ast", "platelet", "protime")
PBCSEQ = (
    dict(id=np.array([2.0, 1.0, 1.0]), day=np.array([0.0, 0.0, 80.0]))
    | {name: np.array([i, np.nan, i + 0.5]) for i, name in enumerate(LABS)}
    | {name: np.array([7.0, 3.0, 3.0]) for name in ("age", "sex", "trt", "futime", "status")}
)
HOPPER = dict(states=np.arange(84.0).reshape(2, 3, 14), dt=np.float32(0.25))


def test_ts_files_are_read_as_written(folder):
    toy = ucr("Toy", folder)
    assert toy.classes == ("up", "down")
    assert toy.train_y.tolist() == [0, 1] and toy.test_y.tolist() == [1]
    first, second = toy.train_x
    assert first.ts.tolist() == [0, 1, 2] and first.xs.tolist() == [[1, 4], [2, 0], [0, 6]]
    assert first.mask.tolist() == [[True, True], [True, False], [False, True]]
    assert second.xs.tolist() == [[7, 8], [0, 9]] and not second.mask[1, 0]


def test_times_of_a_ts_file_are_read(folder):
    text = HEADER.replace("false", "true") + "@data\n(0,1),(2.5,3):(1,4),(2.5,?):up\n"
    (folder / "Toy_TRAIN.ts").write_text(text)
    (series,) = ucr("Toy", folder).train_x
    assert series.ts.tolist() == [0, 1, 2.5] and series.xs.tolist() == [[1, 0], [0, 4], [3, 0]]


def test_ucr_looks_in_a_folder_of_the_name_and_in_the_data_folder(folder, monkeypatch):
    inner = folder / "ucr" / "Toy"
    inner.mkdir(parents=True)
    for part in ("TRAIN", "TEST"):
        (folder / f"Toy_{part}.ts").rename(inner / f"Toy_{part}.ts")
    assert len(ucr("Toy", folder / "ucr").train_x) == 2
    monkeypatch.setenv("NDEKIT_DATA", str(folder))
    assert len(ucr("Toy").train_x) == 2


def test_ucr_reads_what_the_package_aeon_carries_and_does_not_import_it(folder, monkeypatch):
    inner = folder / "site" / "aeon" / "datasets" / "data" / "Toy"
    inner.mkdir(parents=True)
    (folder / "site" / "aeon" / "__init__.py").write_text("raise SystemError('imported')")
    for part in ("TRAIN", "TEST"):
        (folder / f"Toy_{part}.ts").rename(inner / f"Toy_{part}.ts")
    monkeypatch.syspath_prepend(folder / "site")
    monkeypatch.delitem(sys.modules, "aeon", raising=False)
    assert len(ucr("Toy").train_x) == 2


def test_nafld_is_cleaned(folder):
    panel = nafld(folder, min_visits=3)
    assert panel.ids.tolist() == [5] and panel.channels == ("hdl", "sbp")
    (series,) = panel.series
    assert series.ts.tolist() == [1, 3, 9]
    assert series.xs.tolist() == [[0, 120], [50, 0], [30, 0]]  # two readings of a day averaged
    assert panel.others["age"].tolist() == [50] and panel.others["status"].tolist() == [1]
    both = nafld(folder, min_visits=1)  # without the typing errors of blood pressure
    assert both.ids.tolist() == [2, 5] and both.others["age"].tolist() == [20, 50]
    assert both.series[0].xs.tolist() == [[50, 0]]


def test_pbcseq_has_a_row_for_each_visit(folder):
    panel = pbcseq(folder)
    assert panel.ids.tolist() == [1, 2] and panel.channels == LABS
    assert panel.series[0].ts.tolist() == [80] and panel.series[1].ts.tolist() == [0]
    assert panel.series[0].xs[0].tolist() == [i + 0.5 for i in range(7)]
    assert panel.others["futime"].tolist() == [3, 7]


def test_hopper_is_a_batch_in_seconds(folder):
    batch = hopper(folder)
    assert batch.ts.tolist() == [[0, 0.25, 0.5]] * 2 and batch.mask.all()
    assert np.array_equal(batch.xs, HOPPER["states"])


def rewrite(name, **changes):
    """Damage to an archive: arrays changed, or taken out where `None`."""

    def damage(folder):
        arrays = {"nafld": NAFLD, "pbcseq": PBCSEQ, "hopper": HOPPER}[name] | changes
        kept = {key: array for key, array in arrays.items() if array is not None}
        np.savez(folder / f"{name}.npz", **kept)

    return damage


def cut_in_half(folder):
    path = folder / "hopper.npz"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def one_array(folder):
    with (folder / "hopper.npz").open("wb") as file:
        np.save(file, np.ones(3))


def flipped(folder):
    path = folder / "nafld.npz"
    content = bytearray(path.read_bytes())
    content[200] ^= 0xFF
    path.write_bytes(bytes(content))


ARCHIVES = {
    "absent": (lambda f: (f / "nafld.npz").unlink(), nafld, "does not exist. Name the folder"),
    "a web page": (
        lambda f: (f / "pbcseq.npz").write_text("<html>not found</html>"), pbcseq, "a NumPy archive"
    ),
    "empty": (lambda f: (f / "pbcseq.npz").write_bytes(b""), pbcseq, "a NumPy archive"),
    "half": (cut_in_half, hopper, "a NumPy archive"),
    "a single array": (one_array, hopper, "it is a single array"),
    "a flipped bit": (flipped, nafld, "a NumPy archive"),
    "pickled": (rewrite("hopper", dt=np.array(None)), hopper, "a NumPy archive"),
    "another file": (rewrite("hopper", states=None), hopper, "the array `states`, but holds dt"),
    "axes": (rewrite("hopper", states=np.ones((2, 14))), hopper, "3 axes, but has the shape"),
    "numbers": (rewrite("hopper", states=np.ones((2, 3, 9))), hopper, "finite states of 14"),
    "NaN": (rewrite("hopper", states=np.full((2, 3, 14), np.nan)), hopper, "finite states of 14"),
    "no time": (rewrite("hopper", dt=np.float32(0)), hopper, "a positive `dt`"),
    "columns": (rewrite("nafld", day=np.zeros(3)), nafld, "columns .* one length, but have"),
    "no lines": (
        rewrite("nafld", **dict.fromkeys(list(NAFLD)[:4], np.zeros(0, int))), nafld, "one length"
    ),
    "channels": (rewrite("nafld", channels=np.array(["a", "b", "c", "d"])), nafld, "hdl and sbp"),
    "number": (rewrite("nafld", channel=np.full(9, 4)), nafld, "hdl and sbp .* numbers to 4"),
    "strangers": (rewrite("nafld", base_id=np.array([1.0, 2.0, 3.0])), nafld, "who patient 5 is"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_damaged_archive_is_one_clear_error(name, folder):
    damage, load, message = ARCHIVES[name]
    damage(folder)
    with pytest.raises(DataError, match=message):
        load(folder, min_visits=1) if load is nafld else load(folder)


TEXTS = {
    "a web page": ("<html>not found</html>", "header ends in a line `@data`.* another kind"),
    "empty": ("", "header ends in a line `@data`"),
    "no data": (HEADER + "@data\n", "should hold series after `@data`"),
    "regression": ("@targetlabel true\n@data\n1:2:0.5\n", "for regression are not read"),
    "unknown class": (HEADER + "@data\n1:2:left\n", "Line 7 .* class 'left' is not in the header"),
    "no colon": (HEADER + "@data\n1,2\n", "Line 7 .* no colon"),
    "words": (HEADER + "@data\n1:2:up\na,b:2:up\n", "Line 8 .* could not convert"),
    "infinite": (HEADER + "@data\n1,inf:2,3:up\n", r"Line 7 .* `xs\[1, 0\]` .* is inf"),
    "cut": (HEADER + "@data\n1:2:up\n1:2:do", "Line 8 .* class 'do' is not"),
    "channels differ": (HEADER + "@data\n1:2:up\n1:up\n", "Line 8 .* has 1 channels, where the"),
    "not as said": (HEADER + "@data\n1:up\n2:up\n", "should have 2 channels .* but have 1"),
    "nothing read": (HEADER + "@data\n?:?:up\n", "Line 7 .* at least one reading"),
    "dates": (
        HEADER.replace("false", "true") + "@data\n(2007-01-01 00:00:00,1):(0,1):up\n",
        "its time '2007-01-01 00:00:00' is not a number",
    ),
    "no pairs": (HEADER.replace("false", "true") + "@data\n1,2:3,4:up\n", "no list of pairs"),
    "time twice": (
        HEADER.replace("false", "true") + "@data\n(0,1),(0,2):(0,1):up\n",
        "time comes twice",
    ),
    "other classes": (TRAIN.replace("up", "left"), "same classes and channels"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_damaged_ts_file_is_one_clear_error(name, folder):
    text, message = TEXTS[name]
    (folder / "Toy_TRAIN.ts").write_text(text)
    with pytest.raises(DataError, match=message):
        ucr("Toy", folder)


def test_a_binary_file_is_no_ts_file(folder):
    (folder / "Toy_TRAIN.ts").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(DataError, match="should be a text file"):
        ucr("Toy", folder)


def test_what_is_nowhere_says_where_it_was_looked_for(folder, monkeypatch):
    with pytest.raises(DataError, match="`Nothing_TRAIN.ts` and .* looked in .* Name their folder"):
        ucr("Nothing", folder)
    for load in (nafld, pbcseq, hopper):
        with pytest.raises(DataError, match="No folder with .* is known. Name it"):
            load()


REAL = Path(os.environ.get("NDEKIT_DATA", "/nowhere"))


@pytest.mark.skipif(not (REAL / "ucr").is_dir(), reason="$NDEKIT_DATA/ucr is absent")
def test_real_ucr_sets_have_their_published_sizes():
    vowels, motions, gestures = (
        ucr(name) for name in ("JapaneseVowels", "BasicMotions", "PickupGestureWiimoteZ")
    )
    assert len(vowels.train_x) == 270 and len(vowels.test_x) == 370
    lengths = [len(one.ts) for one in (*vowels.train_x, *vowels.test_x)]
    assert (min(lengths), max(lengths)) == (7, 29) and vowels.train_x[0].num_channels == 12
    assert np.bincount(vowels.train_y).tolist() == [30] * 9
    assert {one.xs.shape for one in motions.train_x} == {(100, 6)} and len(motions.test_x) == 40
    assert len(gestures.classes) == 10 and len(gestures.train_x) == len(gestures.test_x) == 50


@pytest.mark.skipif(not (REAL / "nafld.npz").is_file(), reason="$NDEKIT_DATA/nafld.npz is absent")
def test_real_nafld_has_as_many_people_and_readings_as_counted_otherwise():
    panel = nafld()
    with np.load(REAL / "nafld.npz") as raw:
        who, day, what, value = (raw[name] for name in ("patient", "day", "channel", "value"))
    kept = (what == 0) | ((what == 1) & (value >= 60) & (value <= 260))
    visits = {}
    for line in zip(who[kept].tolist(), day[kept].tolist(), what[kept].tolist(), strict=True):
        visits.setdefault(line[0], {}).setdefault(line[1], set()).add(line[2])
    often = {who: days for who, days in visits.items() if len(days) >= 4}
    readings = sum(len(found) for days in often.values() for found in days.values())
    assert len(panel.series) == len(often) == 11_880
    assert sum(int(one.mask.sum()) for one in panel.series) == readings == 185_941
    assert all(np.all(one.xs[one.mask[:, 1], 1] <= 260) for one in panel.series)


@pytest.mark.skipif(not (REAL / "pbcseq.npz").is_file(), reason="$NDEKIT_DATA/pbcseq.npz is absent")
def test_real_pbcseq_has_its_published_sizes():
    panel = pbcseq()
    assert len(panel.series) == 312 and sum(len(one.ts) for one in panel.series) == 1945
    mask = np.concatenate([one.mask for one in panel.series])
    assert abs(1 - mask[:, panel.channels.index("chol")].mean() - 821 / 1945) < 1e-9


@pytest.mark.skipif(not (REAL / "hopper.npz").is_file(), reason="$NDEKIT_DATA/hopper.npz is absent")
def test_real_hopper_moves_as_its_velocities_say():
    batch = hopper()
    assert batch.xs.shape == (2000, 200, 14)
    moved = np.diff(batch.xs[..., :7], axis=1)
    speed = batch.xs[:, 1:, 7:]  # MuJoCo's integrator steps positions with the new velocities
    assert np.corrcoef((moved / np.diff(batch.ts)[..., None]).ravel(), speed.ravel())[0, 1] > 0.9
