"""What is held out of the training images, by class; and what a dataset makes an accuracy worth."""

import dataclasses

import numpy as np
import pytest

from mixer_jax import data
from mixer_jax.data import memory
from mixer_jax.data.cautions import cautions
from mixer_jax.data.holdout import hold_out
from support import make_config, make_dataset, streamed


def held_out(labels, fraction=0.1, how="by_class"):
    config = make_config(dataset__val_fraction=fraction, dataset__hold_out=how).dataset
    rest, held = hold_out(config, len(labels), lambda: labels)
    assert sorted([*rest, *held]) == list(range(len(labels)))
    return rest, held


@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.37, 0.9])
def test_every_class_gives_its_share_to_within_one(fraction):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(7), [1, 2, 10, 30, 31, 100, 500]))
    rest, held = held_out(labels, fraction)
    counts, given = np.bincount(labels), np.bincount(labels[held], minlength=7)
    assert (np.abs(given - fraction * counts) < 1).all() or (counts - given == 1)[
        np.abs(given - fraction * counts) >= 1
    ].all()
    assert (np.bincount(labels[rest], minlength=7) > 0).all()  # no class loses its last
    assert abs(len(held) - round(fraction * len(labels))) <= 7 * (fraction > 0.5)


def test_classes_of_one_image_keep_it():
    labels = np.r_[np.arange(300), np.zeros(60, int)]
    rest, held = held_out(labels)
    assert set(labels[rest]) == set(range(300))
    assert set(labels[held]) == {0}


def test_the_images_of_a_class_are_drawn_at_random_and_always_the_same():
    labels = np.zeros(1000, int)
    _, held = held_out(labels)
    assert np.array_equal(held, held_out(labels)[1])
    assert len(held) == 100
    assert 350 < held.mean() < 650


def test_without_labels_it_says_that_classes_do_not_count(capsys):
    config = make_config().dataset
    _, held = hold_out(config, 300_000, lambda: None)
    assert len(held) == 30_000
    assert "regardless of class: reading 300,000 labels would take too long" in capsys.readouterr().out


def test_a_split_without_labels_is_held_out_regardless_of_them():
    rest, held = held_out(np.full(100, -1))  # as TFDS marks them
    assert (len(rest), len(held)) == (90, 10)


def test_an_earlier_run_holds_out_as_it_did(write_folder):
    """At random over all classes: the first images of the order in which one set was always shuffled."""
    from mixer_jax.data.sources import shuffled

    labels = np.repeat(np.arange(10), 20)
    _, held = held_out(labels, how="random")
    assert np.array_equal(held, np.sort(shuffled(200, 1)[:20]))


@pytest.mark.parametrize("budget", [None, 0.0])
def test_in_memory_and_streamed_hold_out_the_same(budget, write_folder):
    fields = {"name": "folder", "data_dir": str(write_folder(per_class=20)), "memory_budget_gib": budget}
    config = make_config(**{f"dataset__{key}": value for key, value in fields.items()}).dataset
    dataset = data.load(config)
    assert dataset.streamed == (budget == 0.0)
    val = data.open_split(config, "validation")
    assert val.source.label_names == ("cat", "dog")
    for split in (dataset.val, val):
        images, labels = split.read(range(4))
        assert labels.tolist() == [0, 0, 1, 1]
        assert np.array_equal(images, val.read(range(4))[0])


def warnings(dataset, same_split):
    return tuple(cautions(dataset, same_split))


def test_a_class_without_an_image_is_named():
    dataset = make_dataset(num_train=300, num_val=100, num_test=100)
    assert warnings(dataset, False) == ()
    test = dataset.test.subset(np.flatnonzero(dataset.test.labels != 3))
    assert warnings(dataclasses.replace(dataset, test=test), False) == ("a class has no test image: 3",)
    val = dataset.val.subset(np.flatnonzero(dataset.val.labels < 2))
    [line] = warnings(dataclasses.replace(dataset, val=val), False)
    assert line == "8 classes have no validation image: 2, 3, 4, 5, 6 and 3 more"


def test_test_images_that_were_trained_on_are_counted():
    dataset = make_dataset(num_train=300, num_val=100, num_test=100)
    images = dataset.test.images.copy()
    images[[4, 7, 9]] = dataset.train.images[[1, 1, 50]]
    copied = dataclasses.replace(dataset, test=data.Split(images, dataset.test.labels))
    assert warnings(copied, False) == ("3 of 100 test images are training images too, pixel for pixel",)
    val = data.Split(dataset.train.images[:100], dataset.val.labels)
    assert warnings(dataclasses.replace(dataset, val=val), False) == (
        "100 of 100 validation images are training images too, pixel for pixel",
    )
    assert warnings(streamed(copied), False) == ()  # whose pixels are not at hand
    assert warnings(dataset, True) == (
        "the test images are the training images: the accuracy says nothing about images that the model has not seen",
    )


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([10, 99], ()),
        ([9, 12], ("a class has fewer than 10 training images: 0 9",)),
        (
            [12, 400, 40],
            (
                "the classes differ in size, from 12 training images (0) to 400 (1): the balanced accuracy gives every "
                "class the same weight",
            ),
        ),
        ([1, 2, 3, 4, 5, 6, 7], ("7 classes have fewer than 10 training images: 0 1, 1 2, 2 3, 3 4, 4 5 and 2 more",)),
    ],
)
def test_small_and_unequal_classes_are_named(counts, expected):
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 4, 4, 1)).astype(np.uint8)
    dataset = make_dataset(num_classes=len(counts), num_val=100, num_test=100)
    dataset = dataclasses.replace(dataset, train=data.Split(images, labels))
    assert warnings(dataset, False) == expected


def test_one_class_alone_is_no_accuracy():
    [line] = warnings(make_dataset(num_classes=1), False)
    assert line == "there is only one class, 0: any model gets 100%"


def test_a_run_says_so_everywhere(tmp_path, capsys):
    from runs import train_digits

    train_digits(tmp_path / "run", "--config.dataset.test_split=train", "--config.epochs=1")
    out = capsys.readouterr()
    assert "warning: the test images are the training images" in out.err
    assert "  caution         the test images are the training images" in out.out


MOUNTS = {  # files below /, and the limit in them
    "version 2": ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/memory.max": "1000\n"}, 1000),
    "version 2, unlimited": ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n"}, None),
    "version 2, in a container": ({"proc/self/cgroup": "0::/x/y\n", "sys/fs/cgroup/memory.max": "2000\n"}, 2000),
    "version 1": (
        {
            "proc/self/cgroup": "5:cpu,cpuacct:/\n4:memory:/docker/1\n",
            "sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes": "3000\n",
        },
        3000,
    ),
    "none": ({}, None),
}


@pytest.mark.parametrize("files", MOUNTS)
def test_a_containers_memory_is_what_it_is_given(files, tmp_path):
    files, limit = MOUNTS[files]
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    physical = memory.host_memory(tmp_path / "nothing")
    assert memory.host_memory(tmp_path) == (limit or physical)


def test_processes_of_one_machine_share_its_memory(monkeypatch):
    alone = memory.budget(None)
    monkeypatch.setattr(memory, "processes_here", 4)
    assert memory.budget(None) == alone / 4
    assert memory.budget(1.0) == 2**30


def test_each_image_of_a_folder_is_read_once_for_all_seeds(write_folder, tmp_path, monkeypatch):
    """Fingerprints and orders are computed once, however many seeds there are."""
    from mixer_jax.data import dataset as module
    from mixer_jax.data import sampler
    from runs import main

    counted = []
    original = module.Split.identity
    monkeypatch.setattr(module.Split, "identity", lambda self: counted.append(self) or original(self))
    orders, shuffled = [], sampler.shuffled
    monkeypatch.setattr(sampler, "shuffled", lambda *key: orders.append(key) or shuffled(*key))
    sampler._orders.cache_clear()
    flags = ["--config.num_seeds=3", "--config.epochs=3", "--config.model.num_blocks=1", "--config.model.hidden_dim=8"]
    assert main("digits", tmp_path / "run", *flags) == 0
    assert len(counted) == 3  # train, validation and test
    assert len(orders) == len(set(orders))
