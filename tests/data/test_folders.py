"""Folders of photographs as people have them: what is said of them, and which images are used for what."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from folder_cases import CASES, DRAWN, TABLE
from image_folders import TEN, block, encoded, load, look, names, used, write
from mixer_jax import data
from mixer_jax.claim import claim, require_usable
from mixer_jax.data.images import Fit
from mixer_jax.data.sources import image_folder
from mixer_jax.errors import UserError
from mixer_jax.run_directory import RunDirectory
from support import make_config, shared


def test_the_table_is_long_enough():
    assert len(CASES) >= 40


@pytest.mark.parametrize("name", CASES)
def test_a_folder(name, tmp_path):
    case = CASES[name]
    write(tmp_path, case.images, case.other)
    if case.error:
        with pytest.raises(UserError, match=case.error) as caught:
            look(tmp_path, **case.fields)
        assert "\n" not in str(caught.value)
        return
    folder = look(tmp_path, **case.fields)
    said = "\n".join(folder.lines())
    for words in case.says:
        assert words in said
    found = used(folder, tmp_path)
    for part, expected in case.uses.items():
        assert len(found[part]) == expected if isinstance(expected, int) else found[part] == set(names(expected))
    assert found.keys() == case.uses.keys()
    for split, images in folder.splits.items():
        source = folder.source(split, Fit((4, 4)))
        assert [folder.label_names[label] for label in source.labels()] == [image.label for image in images]


def test_a_table_in_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    write(tmp_path, TEN)
    table = {"id": [f"{letter}.png" for letter in "abcdefghij"] + [None], "target": [1] * 5 + [2] * 5 + [None]}
    parquet.write_table(pyarrow.table(table), tmp_path / "labels.parquet")
    folder = look(tmp_path)
    assert folder.label_names == ("1", "2")
    assert {part: len(files) for part, files in used(folder, tmp_path).items()} == {
        "train 1": 4, "test 1": 1, "train 2": 4, "test 2": 1,
    }  # fmt: skip
    (tmp_path / "labels.parquet").write_bytes(b"PAR1, or not")
    with pytest.raises(UserError, match=r"cannot read .*labels.parquet: ") as caught:
        look(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_split_that_is_wanted_must_be_there(tmp_path):
    write(tmp_path, "test/{cat,dog}/c.png")
    assert len(data.open_split(block(tmp_path).dataset, "test")) == 2
    with pytest.raises(UserError, match="no train images in "):
        load(tmp_path)
    write(tmp_path, "train/{cat,dog}/{a,b,d}.png")
    for field in ("train_split", "val_split", "test_split"):
        with pytest.raises(UserError, match=f"no images in .*/gone, which config.dataset.{field} names"):
            load(tmp_path, **{field: "gone"})


def test_what_is_drawn_is_always_the_same(tmp_path):
    write(tmp_path, f"cat/{{1,2,3,4}}{TEN} dog/{{1,2}}{TEN} owl/{{1,2,3}}{TEN}")
    first = used(look(tmp_path), tmp_path)
    assert {part: len(files) for part, files in first.items()} == {
        "train cat": 32, "test cat": 8, "train dog": 16, "test dog": 4, "train owl": 24, "test owl": 6,
    }  # fmt: skip
    assert used(look(tmp_path), tmp_path) == first
    drawn = set.union(*(files for part, files in first.items() if part.startswith("test")))
    config = block(tmp_path, memory_budget_gib=0.0)
    dataset, split = data.load(config.dataset), data.open_split(config.dataset, "test")
    assert {path.relative_to(tmp_path).as_posix() for path in dataset.test.source.paths} == drawn
    assert split.source.paths == dataset.test.source.paths
    assert split.source.label_names == dataset.label_names
    moved = tmp_path.rename(tmp_path.parent / "elsewhere")
    write(moved, "", {f"cat/new{i}.png": encoded(1000 + i) for i in range(10)})
    again = set.union(*(files for part, files in used(look(moved), moved).items() if part.startswith("test")))
    assert len(drawn - again) <= 2  # others move at the border alone


@pytest.mark.parametrize("budget", [None, 0.0])
def test_a_label_that_is_corrected_makes_other_data(budget, tmp_path):
    """Neither the cache of decoded images nor a fingerprint may overlook it."""
    write(tmp_path, TEN, {"labels.csv": TABLE})
    first = load(tmp_path, memory_budget_gib=budget)
    assert load(tmp_path, memory_budget_gib=budget).fingerprint == first.fingerprint
    (tmp_path / "labels.csv").write_text(TABLE.replace("a.png,cat", "a.png,dog"))
    second = load(tmp_path, memory_budget_gib=budget)
    assert second.fingerprint != first.fingerprint
    labels = np.concatenate([s.read(range(len(s)))[1] for s in (second.train, second.val, second.test)])
    assert labels.tolist().count(0) == 4


def test_links(tmp_path):
    write(tmp_path / "store", f"siamese/{TEN} dog/{TEN}")
    root = tmp_path / "images"
    root.mkdir()
    (root / "cat").symlink_to(tmp_path / "store" / "siamese")
    (root / "dog").symlink_to(tmp_path / "store" / "dog")
    (root / "all").symlink_to(root)
    (root / "self").symlink_to("self")
    (root / "gone").symlink_to("nowhere")
    (tmp_path / "store" / "dog" / "up").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "dog" / "again").symlink_to(tmp_path / "store" / "dog")
    folder = look(root)
    assert {part: len(files) for part, files in used(folder, root).items()} == DRAWN
    assert folder.cautions() == ("left out: 2 broken links (gone, self)",)


def test_names_that_are_not_unicode(tmp_path, capsys):
    tmp_path /= os.fsdecode(b"caf\xe9")
    write(tmp_path, f"cat/{TEN} dog/{TEN}")
    odd = os.fsdecode(b"caf\xe9.png")
    (tmp_path / "cat" / odd).write_bytes(encoded(99))
    (tmp_path / os.fsdecode(b"\xff.txt")).write_text("")
    assert len(load(tmp_path, memory_budget_gib=0.0).fingerprint) == 16
    assert len(load(tmp_path).fingerprint) == 16
    assert r"1 .txt file (\udcff.txt)" in capsys.readouterr().out
    (tmp_path / "cat" / odd).write_text("")
    with pytest.raises(UserError, match=r"caf\\udce9.png: it is empty"):
        load(tmp_path)


@pytest.mark.parametrize("layout", ["auto", "splits"])
def test_a_split_may_lie_elsewhere(layout, tmp_path):
    write(tmp_path, "set/train/{cat,dog}/{a,b}.png elsewhere/{cat,dog}/c.png")
    fields = {"layout": layout, "train_split": "train", "test_split": str(tmp_path / "elsewhere"), "val_fraction": 0.3}
    dataset = load(tmp_path / "set", **fields)
    assert dataset.train.name(0) == "train/cat/b.png"
    assert [dataset.test.name(i) for i in (0, 1)] == ["../elsewhere/cat/c.png", "../elsewhere/dog/c.png"]


@pytest.mark.parametrize(("field", "word", "meant"), [("on_error", "skpi", "skip"), ("layout", "split", "splits")])
def test_misspelt(field, word, meant, tmp_path):
    write(tmp_path, f"cat/{TEN} dog/{TEN}")
    with pytest.raises(UserError, match=rf"unknown config.dataset.{field} '{word}' \(did you mean '{meant}'"):
        load(tmp_path, **{field: word})


def test_a_run_of_an_older_release_reads_as_it_did(tmp_path):
    images = tmp_path / "images"
    write(images, "train/{cat,dog,10,9}/{a,b,c}.png test/{cat,dog,10,9}/{d,e}.PNG train/cat/deep/x.png train/cat/y.gif")
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    claim(run, block(images), {})
    content = json.loads(run.config_file.read_text())
    for field in ("layout", "class_pattern", "test_fraction", "on_error"):
        del content["config"]["dataset"][field]
    run.config_file.write_text(json.dumps(content))
    config = run.adopted(block(images))
    assert require_usable(run, config) == {}
    for now in (run.config(), config):
        dataset = now.dataset
        assert dataset.layout == "splits"
        old, new = data.load(dataset), load(images)
        assert (len(old.train) + len(old.val), len(new.train) + len(new.val)) == (12, 14)  # not below, and not .gif
        assert old.label_names == new.label_names == ("10", "9", "cat", "dog")
        dataset.memory_budget_gib = 0.0
        test, before = data.load(dataset).test.source, image_folder(str(images), "test")
        assert (test.paths, test.labels().tolist()) == (before.paths, before.labels().tolist())
        for name in ("train", "validation", "test"):
            assert data.open_split(dataset, name).source.label_names == ("10", "9", "cat", "dog")


def test_the_old_reader_and_the_new_one_agree_on_what_both_know(write_folder):
    root = write_folder()
    old, new = (load(root, layout=layout) for layout in ("splits", "auto"))
    assert old.fingerprint == new.fingerprint
    assert (old.label_names, old.mean, old.std) == (new.label_names, new.mean, new.std)
    streamed = [load(root, layout=layout, memory_budget_gib=0.0).fingerprint for layout in ("splits", "auto")]
    assert streamed[0] == streamed[1]


def test_what_is_found_is_said_once_at_the_start(tmp_path, capsys):
    write(tmp_path, f"cat/{TEN} dog/{TEN}", {"a.heic": "x"})
    dataset = load(tmp_path)
    assert capsys.readouterr().out.splitlines() == [
        f"Images in {tmp_path}: a folder for each class; 20% of each class is drawn for testing, the same in every run",
        "  2 classes: train 16 (cat 8, dog 8); test 4 (cat 2, dog 2); validation 10% of train",
        "  5x6 pixels, unchanged",
        "  left out: 1 .heic file, to be converted to JPEG or PNG (a.heic)",
    ]
    assert dataset.cautions == (
        "2 classes have fewer than 10 training images: cat 7, dog 7",
        "left out: 1 .heic file, to be converted to JPEG or PNG (a.heic)",
    )
    data.open_split(block(tmp_path).dataset, "test")
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_mnist_as_png_files_has_the_pixels_of_tfds(tmp_path):
    where = str(shared("data/tfds"))
    tfds = data.load(make_config(dataset__name="mnist", dataset__data_dir=where, dataset__val_split="test").dataset)
    for split, images in {"train": tfds.train, "test": tfds.test}.items():
        for label in range(10):
            (tmp_path / split / str(label)).mkdir(parents=True)
        for i, (image, label) in enumerate(zip(images.images, images.labels, strict=True)):
            Image.fromarray(image[..., 0]).save(tmp_path / split / str(label) / f"{i:05d}.png", compress_level=1)
    folder = load(tmp_path, image_size=(-1,), val_split="test")
    assert folder.label_names == tuple("0123456789")
    for ours, theirs in ((folder.train, tfds.train), (folder.test, tfds.test)):
        order = np.argsort(theirs.labels, kind="stable")  # the folder has class after class, each by the names of files
        assert np.array_equal(ours.labels, theirs.labels[order])
        assert np.array_equal(ours.images, theirs.images[order].repeat(3, -1))
    assert folder.mean == tfds.mean * 3
    assert folder.std == tfds.std * 3
