"""A set that was decoded once is read from the cache folder, as long as nothing about it has changed."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixer_jax import data
from mixer_jax.data import kept
from support import make_config


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder; returns where decoded sets go."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mixer_jax" / "decoded"


@pytest.fixture
def decoded(monkeypatch):
    """The names of the splits that are decoded, as they are."""
    names, decode = [], data.decode
    monkeypatch.setattr(data, "decode", lambda source, title: names.append(title) or decode(source, title))
    return names


def load(root, **fields):
    fields = {"name": "folder", "data_dir": str(root), **fields}
    return data.load(make_config(**{f"dataset__{key}": value for key, value in fields.items()}).dataset)


SPLITS = ["train images", "test images", "validation images"]


def test_a_second_start_decodes_nothing(write_folder, cache, decoded):
    root = write_folder()
    first = load(root)
    assert decoded == SPLITS
    second = load(root)
    assert decoded == SPLITS
    assert first.fingerprint() == second.fingerprint()
    assert (second.mean, second.label_names) == (first.mean, first.label_names)
    assert len(list(cache.iterdir())) == 1
    load(root, val_split="test")  # another set, with a place of its own
    assert decoded == [*SPLITS, *SPLITS[:2]]
    assert load(root).fingerprint() == first.fingerprint()
    assert len(decoded) == 5


def test_digits_are_read_without_scikit_learn_the_second_time(cache, monkeypatch):
    config = make_config().dataset
    first = data.load(config)
    monkeypatch.setattr(data.sources, "_digits", None)
    assert data.load(config).fingerprint() == first.fingerprint()


@pytest.mark.parametrize("change", ["pixels", "decoder", "program"])
def test_whatever_changes_is_decoded_again(write_folder, cache, decoded, monkeypatch, change):
    root = write_folder()
    load(root)
    if change == "pixels":
        path = root / "train" / "cat" / "0.png"
        Image.fromarray(np.asarray(Image.open(path))[::-1]).save(path)
    elif change == "decoder":
        monkeypatch.setattr(kept, "version", lambda package: f"{package} 99")
    else:
        ours = cache.parent / "data"
        shutil.copytree(Path(kept.__file__).parent, ours)
        monkeypatch.setattr(kept, "__file__", str(ours / "kept.py"))
    load(root)
    assert decoded == 2 * SPLITS
    assert len(list(cache.iterdir())) == 1  # the old one has gone


def test_another_image_of_the_same_size_in_bytes_is_noticed(write_folder, cache):
    root = write_folder()
    path = root / "train" / "cat" / "0.bmp.png"
    pixels = np.asarray(Image.open(root / "train" / "cat" / "0.png"))
    Image.fromarray(pixels).save(path, "bmp")
    first, size = load(root), path.stat().st_size
    Image.fromarray(pixels[::-1]).save(path, "bmp")
    assert path.stat().st_size == size
    assert load(root).fingerprint() != first.fingerprint()


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "other"])
def test_a_damaged_one_is_decoded_again(write_folder, cache, decoded, harm):
    root = write_folder(per_class=40)
    first = load(root)
    [file] = cache.iterdir()
    content = bytearray(file.read_bytes())
    if harm == "flip":
        content[len(content) // 2] ^= 1
    elif harm == "other":
        content = b"not a file of arrays"
    file.write_bytes(content[: {"flip": None, "cut": len(content) // 2, "empty": 0, "other": None}[harm]])
    assert load(root).fingerprint() == first.fingerprint()
    assert decoded == 2 * SPLITS
    load(root)
    assert decoded == 2 * SPLITS


@pytest.mark.parametrize("lack", ["room", "folder"])
def test_without_room_it_goes_without(write_folder, cache, decoded, monkeypatch, lack):
    root = write_folder()
    if lack == "room":
        usage = shutil.disk_usage(root)._replace(free=10_000)
        monkeypatch.setattr(kept.shutil, "disk_usage", lambda path: usage)
    else:
        cache.parent.parent.write_text("no folder")
    load(root)
    load(root)
    assert decoded == 2 * SPLITS
    assert not cache.exists() or not list(cache.iterdir())


def test_a_full_disk_leaves_nothing_behind(write_folder, cache, decoded, monkeypatch):
    def full(file, **arrays):
        file.write(b"the beginning")
        raise OSError("no space left on the device")

    root = write_folder()
    with monkeypatch.context() as patch:
        patch.setattr(kept.np, "savez", full)
        load(root)
    assert list(cache.iterdir()) == []
    load(root)
    assert len(list(cache.iterdir())) == 1


def test_a_smaller_budget_streams_all_the_same(write_folder, cache):
    root = write_folder()
    assert not load(root).streamed
    assert load(root, memory_budget_gib=1e-9).streamed
