"""A set that was decoded once is read from the cache folder, as long as nothing about it has changed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixer_jax import data
from mixer_jax.data import decoded_cache, loading
from mixer_jax.errors import UserError
from support import ROOT, ArraySource, make_config


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder; returns where decoded sets go."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mixer_jax" / "decoded"


@pytest.fixture
def decoded(monkeypatch):
    """The names of the splits that are decoded, as they are."""
    names, decode = [], loading.decode
    monkeypatch.setattr(loading, "decode", lambda source, title: names.append(title) or decode(source, title))
    return names


def load(root, **fields):
    fields = {"name": "folder", "data_dir": str(root), **fields}
    return data.load(make_config(**{f"dataset__{key}": value for key, value in fields.items()}).dataset)


SPLITS = ["train images", "test images"]


def test_a_second_start_decodes_nothing(write_folder, cache, decoded):
    root = write_folder()
    first = load(root)
    assert decoded == SPLITS
    second = load(root)
    assert decoded == SPLITS
    assert first.fingerprint == second.fingerprint
    assert (second.mean, second.label_names) == (first.mean, first.label_names)
    assert len(list(cache.iterdir())) == 1
    load(root, val_fraction=0.2)  # the same set, of which more is held out
    assert decoded == SPLITS
    load(root, val_split="test")  # another set, with a place of its own
    assert decoded == 2 * SPLITS
    assert load(root).fingerprint == first.fingerprint
    assert decoded == 2 * SPLITS


def test_digits_are_read_without_scikit_learn_the_second_time(cache, monkeypatch):
    config = make_config().dataset
    first = data.load(config)
    monkeypatch.setattr(data.sources, "_digits", None)
    assert data.load(config).fingerprint == first.fingerprint


@pytest.mark.parametrize("change", ["pixels", "decoder", "program"])
def test_whatever_changes_is_decoded_again(write_folder, cache, decoded, monkeypatch, change):
    root = write_folder()
    load(root)
    if change == "pixels":
        path = root / "train" / "cat" / "0.png"
        Image.fromarray(np.asarray(Image.open(path))[::-1]).save(path)
    elif change == "decoder":
        monkeypatch.setattr(decoded_cache, "version", lambda package: f"{package} 99")
    else:
        ours = cache.parent / "data"
        shutil.copytree(Path(decoded_cache.__file__).parent, ours)
        monkeypatch.setattr(decoded_cache, "__file__", str(ours / "decoded_cache.py"))
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
    assert load(root).fingerprint != first.fingerprint


HARM = {
    "flip": lambda content: content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 1])
    + content[len(content) // 2 + 1 :],
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "other": lambda content: b"not a file of arrays",
}  # fmt: skip


@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_one_is_decoded_again(write_folder, cache, decoded, harm):
    root = write_folder(per_class=40)
    first = load(root)
    [file] = cache.iterdir()
    file.write_bytes(HARM[harm](file.read_bytes()))
    assert load(root).fingerprint == first.fingerprint
    assert decoded == 2 * SPLITS
    load(root)
    assert decoded == 2 * SPLITS


@pytest.mark.parametrize("lack", ["room", "folder"])
def test_without_room_it_goes_without(write_folder, cache, decoded, monkeypatch, lack):
    root = write_folder()
    if lack == "room":
        usage = shutil.disk_usage(root)._replace(free=10_000)
        monkeypatch.setattr(decoded_cache.shutil, "disk_usage", lambda path: usage)
    else:
        cache.parent.parent.write_text("no folder")
    load(root)
    load(root)
    assert decoded == 2 * SPLITS
    assert not cache.exists() or not list(cache.iterdir())


def test_a_full_disk_leaves_nothing_behind(write_folder, cache, decoded, monkeypatch):
    def full(file, **arrays):
        file.write_bytes(b"the beginning")
        raise OSError("no space left on the device")

    root = write_folder()
    with monkeypatch.context() as patch:
        patch.setattr(decoded_cache.np, "savez", full)
        load(root)
    assert list(cache.iterdir()) == []
    load(root)
    assert len(list(cache.iterdir())) == 1


def test_a_smaller_budget_streams_all_the_same_and_reads_nothing(write_folder, cache, monkeypatch):
    root = write_folder()
    assert not load(root).streamed
    monkeypatch.setattr(decoded_cache, "Split", None)
    assert load(root, memory_budget_gib=1e-9).streamed


def test_what_changes_no_pixel_is_not_decoded_again(write_folder, cache, decoded):
    root = write_folder()
    load(root)
    load(root, normalization="paper", memory_budget_gib=1.0, reader_threads=3)
    assert decoded == SPLITS


def test_images_that_change_places_are_noticed(write_folder, cache):
    root = write_folder()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 3), np.uint8)
    one, other = (root / "train" / name / "0.png" for name in ("cat", "dog"))
    for path, image in zip((one, other), pixels, strict=True):
        Image.fromarray(image).save(path, "bmp")
        os.utime(path, (1e9, 1e9))
    first = load(root)
    one.rename(aside := root / "aside")
    other.rename(one)
    aside.rename(other)
    assert load(root).fingerprint != first.fingerprint


def test_an_image_that_is_not_there_is_one_line(write_folder, cache):
    root = write_folder()
    (root / "train" / "cat" / "z.png").symlink_to(root / "nowhere.png")
    for layout, line in {"auto": "cannot be read .train/cat/z.png: no such file", "splits": r"image .*z\.png"}.items():
        with pytest.raises(UserError, match=line) as caught:
            load(root, layout=layout)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("with_opencv", [False, True])
def test_another_process_finds_it(cache, tmp_path, with_opencv):
    if with_opencv:
        (tmp_path / "cv2").mkdir()
        (tmp_path / "cv2" / "__init__.py").write_text("")
    program = "from mixer_jax import data; from mixer_jax.data import sources\n"
    program += "from configs.digits import get_config\n"
    program += "data.load(get_config().dataset); print('read' if sources._digits.cache_info().misses else 'found')"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    says = [subprocess.check_output([sys.executable, "-c", program], env=environment, text=True) for _ in range(2)]
    assert says == ["read\n", "found\n"]


def test_what_a_dead_process_left_is_removed(write_folder, cache):
    root = write_folder()
    load(root)
    [file] = cache.iterdir()
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        left = file.with_name(f".partial.{process.pid}.{file.name}")
    file.rename(left)
    load(root)
    assert list(cache.iterdir()) == [file]


def test_what_is_in_no_file_here_is_not_kept(cache):
    images, labels = np.zeros((3, 4, 4, 1), np.uint8), np.zeros(3, np.int32)
    place = decoded_cache.DecodedCache("somewhere", {"train": ArraySource("made", images, labels, ("a",))})
    place.write({"train": data.Split(images, labels)}, place.key())
    assert place.read(1e9) is None
    assert list(cache.iterdir()) == []
