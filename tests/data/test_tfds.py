"""Sets of TensorFlow Datasets: prepared from archives in the original format without TensorFlow, and read back."""

import errno
import os
import sys
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import downloader

import archives
from mixer_jax import data
from mixer_jax.data import prepare
from mixer_jax.data.images import Fit
from mixer_jax.data.prepare import prepared_builder
from mixer_jax.data.tfds_source import TfdsSource
from mixer_jax.errors import UserError
from support import make_config, shared


def contents(source):
    return sorted((image.tobytes(), label) for image, label in source.__getitems__(range(len(source))))


def expected(images, labels):
    return sorted((image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True))


@pytest.mark.parametrize("name", archives.NAMES)
def test_prepared_once_with_pixels_and_labels_unchanged(name, tmp_path, capsys):
    arrays = archives.made_images(name, num_train=12, num_test=5)
    with archives.served(name, archives.pack(name, arrays), tmp_path / "served", arrays) as requests:
        builder = prepared_builder(name, str(tmp_path / "sets"))
        assert capsys.readouterr().out.count("downloading and preparing") == 1
        done = len(requests)
        prepared_builder(name, str(tmp_path / "sets"))
        assert (capsys.readouterr().out, len(requests)) == ("", done)
    for split in ("train", "test"):
        assert contents(TfdsSource(builder, split)) == expected(*arrays[split])
    fitted, _ = TfdsSource(builder, "test", Fit((16, 20))).__getitems__([0])[0]
    assert fitted.shape == (16, 20, arrays["test"][0].shape[-1])
    block = make_config(dataset__name="folder", dataset__data_dir=str(builder.data_dir)).dataset  # as any folder
    split = data.open_split(block, "test")
    assert contents(split.source) == expected(*arrays["test"])
    assert split.source.label_names == tuple(builder.info.features["label"].names)
    block.image_size = (-1,)
    assert data.open_split(block, "test").image_shape == arrays["test"][0].shape[1:]  # all of one small size
    if name == "cifar100":
        assert TfdsSource(builder, "test").label_names[99] == "class 99"
    assert "tensorflow" not in sys.modules


def test_an_archive_cannot_write_outside_its_folder(tmp_path):
    arrays = archives.made_images("cifar10", num_train=12, num_test=5)
    paths = ["../evil", "../../../../evil", "cifar-10-batches-bin/../../evil", str(tmp_path / "evil")]
    with archives.served("cifar10", archives.pack("cifar10", arrays, paths), tmp_path / "served", arrays):
        builder = prepared_builder("cifar10", str(tmp_path / "a" / "b" / "sets"))
    assert len(TfdsSource(builder, "test")) == 5
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("name", archives.NAMES)
def test_no_network_is_said_in_one_line_within_15_seconds(monkeypatch, tmp_path, name):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # the discard port: nobody listens
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(
        UserError, match=rf"{name} has to be downloaded, but .* does not answer: check the network"
    ) as e:
        prepared_builder(name, str(tmp_path))
    assert time.monotonic() - start < 15
    assert "\n" not in str(e.value)


def test_a_host_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(prepare, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr(prepare.requests, "head", lambda *args, **kwargs: time.sleep(5))
    start = time.monotonic()
    assert not prepare._answers("http://example.invalid/")
    assert time.monotonic() - start < 2


def test_archives_put_there_by_hand_need_no_network(tmp_path):
    arrays = archives.made_images("mnist", 12, 5)
    files = archives.pack("mnist", arrays)
    manual = tmp_path / "sets" / "downloads" / "manual"
    manual.mkdir(parents=True)
    for name, content in files.items():
        (manual / name).write_bytes(content)
    with archives.served("mnist", files, tmp_path / "served", arrays) as requests:
        builder = prepared_builder("mnist", str(tmp_path / "sets"))
        assert requests == []
    assert contents(TfdsSource(builder, "test")) == expected(*arrays["test"])


def test_a_damaged_download_and_a_missing_file_get_one_line(tmp_path):
    arrays = archives.made_images("mnist", 12, 5)
    with archives.served("mnist", archives.pack("mnist", arrays), tmp_path / "served", arrays):
        victim = tmp_path / "served" / "train-images-idx3-ubyte.gz"
        victim.write_bytes(b"something else")
        with pytest.raises(UserError, match="the download of mnist is damaged: delete"):
            prepared_builder("mnist", str(tmp_path / "sets"))
        victim.unlink()
        with pytest.raises(UserError, match="downloading mnist failed .*: check the network"):
            prepared_builder("mnist", str(tmp_path / "other"))
    assert downloader.MAX_RETRIES == 10  # as it was


def test_a_damaged_prepared_set_gets_one_line(tmp_path):
    arrays = archives.made_images("mnist", 12, 5)
    with archives.served("mnist", archives.pack("mnist", arrays), tmp_path / "served", arrays):
        builder = prepared_builder("mnist", str(tmp_path / "sets"))
    [file] = builder.data_path.glob("*test*.array_record*")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"cannot read mnist test in .*: .*delete that folder"):
        contents(TfdsSource(prepared_builder("mnist", str(tmp_path / "sets")), "test"))
    file.unlink()
    with pytest.raises(UserError, match=r"cannot read mnist test in .*: .*delete that folder"):
        contents(TfdsSource(prepared_builder("mnist", str(tmp_path / "sets")), "test"))


def test_a_damaged_set_of_the_user_is_not_to_be_deleted(tmp_path):
    """TFDS has no builder for it, so it could not be prepared again."""
    arrays = archives.made_images("mnist", 12, 5)
    with archives.served("mnist", archives.pack("mnist", arrays), tmp_path / "served", arrays):
        folder = prepared_builder("mnist", str(tmp_path / "sets")).data_path
    for name in ("features.json", "dataset_info.json"):
        (folder / name).write_text((folder / name).read_text().replace('"mnist"', '"our_own"'))
    for file in folder.glob("mnist-*"):
        file.rename(folder / file.name.replace("mnist", "our_own"))
    config = make_config(dataset__name="folder", dataset__data_dir=str(folder.parent)).dataset
    with pytest.raises(UserError, match=f"holds a prepared dataset: give its version with .*data_dir={folder}"):
        data.load(config)
    config.data_dir = str(folder)
    assert len(data.load(config).test) == 5
    [file] = folder.glob("*test*.array_record*")
    file.write_bytes(file.read_bytes()[:-100])
    for budget in (0.0, 1.0):
        config.memory_budget_gib = budget
        with pytest.raises(UserError, match=r"cannot read our_own .* in .*; copy it there again"):
            data.load(config)
        with pytest.raises(UserError, match=r"cannot read our_own .* in .*; copy it there again"):
            data.open_split(config, "test").source.labels()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.ENOTDIR])
def test_a_drive_that_cannot_hold_a_set_gets_one_line(number, tmp_path, monkeypatch):
    def fails(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    arrays = archives.made_images("mnist", 12, 5)
    with archives.served("mnist", archives.pack("mnist", arrays), tmp_path / "served", arrays):
        monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fails)
        with pytest.raises(UserError, match=rf"cannot prepare mnist in .* \({os.strerror(number)}\): make room"):
            prepared_builder("mnist", str(tmp_path / "sets"))


def test_sets_of_another_kind_are_refused(tmp_path):
    with pytest.raises(UserError, match="dataset 'imdb_reviews' is not an image-classification set"):
        prepared_builder("imdb_reviews", str(tmp_path))
    with pytest.raises(UserError, match="dataset 'coco' needs packages that TFDS does not install: No module named"):
        prepared_builder("coco", str(tmp_path))


def test_a_set_prepared_for_tensorflow_alone_is_refused(monkeypatch, tmp_path):
    arrays = archives.made_images("mnist", 12, 5)
    with archives.served("mnist", archives.pack("mnist", arrays), tmp_path / "served", arrays):
        builder = prepared_builder("mnist", str(tmp_path / "sets"))
    info = builder.data_path / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(UserError, match="is prepared as tfrecord, which only TensorFlow reads: give another folder"):
        TfdsSource(prepared_builder("mnist", str(tmp_path / "sets")), "train")


def test_real_sets_are_read_without_tensorflow():
    config = make_config(dataset__name="mnist", dataset__data_dir=str(shared("data/tfds"))).dataset
    config.train_split, config.test_split, config.val_split = "train[:300]", "test[:100]", "train[300:350]"
    dataset = data.load(config)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (300, 50, 100)
    assert dataset.image_shape == (28, 28, 1)
    theirs = tfds.data_source("mnist", split="train[:300]", data_dir=shared("data/tfds"))
    for i in (0, 150, 299):
        assert np.array_equal(dataset.train.images[i], theirs[i]["image"])
        assert dataset.train.labels[i] == theirs[i]["label"]
    config.test_split = "tets"
    with pytest.raises(UserError, match=r"unknown split of mnist 'tets' .did you mean 'test'.*train, test"):
        data.load(config)
    assert "tensorflow" not in sys.modules
