"""Digits and image folders, and what `data.load` makes of them."""

import itertools
import tracemalloc

import numpy as np
import pytest
from PIL import Image, ImageOps
from sklearn.datasets import load_digits, load_sample_image

from mixer_jax import data
from mixer_jax.data import dataset as dataset_module
from mixer_jax.data.dataset import count_levels, decode, pixel_statistics
from mixer_jax.data.images import RESIZES, Fit, read_image
from mixer_jax.data.sources import Digits, image_folder
from mixer_jax.errors import UserError
from support import ArraySource, make_config


def load(**fields):
    return data.load(make_config(**{f"dataset__{key}": value for key, value in fields.items()}).dataset)


def test_digits_are_scikit_learns_split_once():
    train, test = (decode(Digits(split), split) for split in ("train", "test"))
    images = np.concatenate([train.images, test.images]).reshape(1797, 64)
    original = load_digits()
    order = np.lexsort(images.T), np.lexsort(original.data.T)
    labels = np.concatenate([train.labels, test.labels])
    assert np.array_equal(np.round(images[order[0]] * (16 / 255)), original.data[order[1]])
    assert np.bincount(labels).tolist() == np.bincount(original.target).tolist()
    assert (len(train), len(test)) == (1437, 360)
    with pytest.raises(UserError, match="unknown split of digits 'tset' .did you mean 'test'"):
        Digits("tset")


def test_validation_is_held_out_of_train_and_test_stays_whole():
    whole, split = load(val_split="test"), load(val_fraction=0.25)
    assert (len(split.train), len(split.val), len(split.test)) == (1437 - 359, 359, 360)
    parts = np.concatenate([split.train.images, split.val.images]).reshape(1437, -1)
    train = whole.train.images.reshape(1437, -1)
    assert np.array_equal(parts[np.lexsort(parts.T)], train[np.lexsort(train.T)])
    assert np.array_equal(split.test.images, decode(Digits("test"), "").images)
    assert whole.val is whole.test


def test_fingerprint_tells_data_apart():
    dataset, again, other = load(), load(), load(val_fraction=0.2)
    assert dataset.fingerprint == again.fingerprint != other.fingerprint
    again = load()
    again.test.labels[0] += 1
    assert dataset.fingerprint != again.fingerprint


def test_normalization():
    images = np.random.default_rng(0).integers(0, 256, (9, 400, 400, 2), np.uint8)
    mean, std = pixel_statistics(count_levels(images))
    np.testing.assert_allclose(mean, images.mean((0, 1, 2)) / 255, rtol=1e-12)
    np.testing.assert_allclose(std, images.std((0, 1, 2)) / 255, rtol=1e-12)
    assert (load(normalization="paper").mean, load(normalization="paper").std) == ((0.5,), (0.5,))
    assert (load(normalization="unit").mean, load(normalization="unit").std) == ((0.0,), (1.0,))


def test_the_statistics_of_a_streamed_set_are_those_in_memory_and_take_a_part_of_its_memory(write_folder, monkeypatch):
    fields = {"name": "folder", "data_dir": str(write_folder()), "image_size": (1000,)}
    expected = load(**fields)
    monkeypatch.setattr(dataset_module, "CHUNK_BYTES", 2**20)
    tracemalloc.start()
    streamed = load(**fields, memory_budget_gib=0.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert streamed.streamed
    assert (streamed.mean, streamed.std) == (expected.mean, expected.std)
    assert peak < expected.train.images.nbytes / 2


def test_the_statistics_take_a_fraction_of_the_images_memory():
    images = np.zeros((300, 256, 256, 1), np.uint8)
    tracemalloc.start()
    count_levels(images)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < images.nbytes / 2


def test_folder_is_read_as_pil_reads_it(write_folder):
    root = write_folder()
    dataset = load(name="folder", data_dir=str(root), val_split="test")
    assert dataset.label_names == ("cat", "dog")
    assert dataset.train.labels.tolist() == [0] * 8 + [1] * 8
    for i, path in enumerate(sorted((root / "train" / "dog").iterdir())):
        assert np.array_equal(dataset.train.images[8 + i], np.asarray(Image.open(path)))


def test_folder_turns_modes_into_rgb_and_obeys_exif(tmp_path):
    folder = tmp_path / "train" / "a"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4), np.uint8)
    grey = Image.fromarray(pixels)
    grey.save(folder / "0.png")
    grey.convert("RGBA").save(folder / "1.png")
    grey.convert("P").save(folder / "2.PNG")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    grey.transpose(Image.Transpose.ROTATE_90).save(folder / "3.png", exif=exif)
    source = image_folder(str(tmp_path), "train")
    for image, label in source.__getitems__(range(4)):
        assert label == 0
        assert np.array_equal(image, pixels[..., None].repeat(3, -1))


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("size", [(32, 32), (50, 20)])
def test_large_jpegs_are_decoded_at_a_smaller_scale_and_look_the_same(size, orientation, tmp_path):
    photograph = Image.fromarray(load_sample_image("china.jpg"))  # 427x640
    if orientation == 6:
        photograph = photograph.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = orientation
    photograph.save(tmp_path / "a.jpg", quality=95, exif=exif)
    whole = read_image(tmp_path / "a.jpg", Fit(size))
    drafted = read_image(tmp_path / "a.jpg", Fit(size, draft=True))
    assert drafted.shape == whole.shape == (*size, 3)
    difference = np.abs(drafted.astype(int) - whole)
    assert 0 < difference.mean() < 2
    assert difference.max() < 16
    with Image.open(tmp_path / "a.jpg") as image:
        Fit(size, draft=True).reduce(image)
        assert image.width * image.height <= 107 * 160
        upright = ImageOps.exif_transpose(image)
        assert upright.height >= 2 * size[0]
        assert upright.width >= 2 * size[1]


def test_an_image_that_is_not_scaled_is_not_drafted(tmp_path):
    Image.fromarray(load_sample_image("china.jpg")).save(tmp_path / "a.jpg")
    for size in ((), (427, 640), (220, 220)):
        whole = read_image(tmp_path / "a.jpg", Fit(size))
        assert np.array_equal(read_image(tmp_path / "a.jpg", Fit(size, draft=True)), whole)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_images_are_scaled_by_the_bits_they_use(suffix, tmp_path):
    levels = np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)
    for split, label in itertools.product(("train", "test"), ("a", "b")):
        folder = tmp_path / "images" / split / label
        folder.mkdir(parents=True)
        Image.fromarray(levels if label == "b" else levels // 2).save(folder / f"0.{suffix}")
    fields = {"name": "folder", "data_dir": str(tmp_path / "images"), "val_split": "test"}
    dataset = load(**fields)
    assert dataset.bits == dataset.info()["bits"] == 12
    expected = np.stack([levels // 2 // 16, levels // 16])[..., None].repeat(3, -1)
    assert np.array_equal(dataset.train.images, expected)
    assert np.array_equal(load(**fields, bits=16).train.images, expected // 16)
    if suffix == "png":  # which runs of older releases read, with all 16 bits
        assert np.array_equal(load(**fields, layout="splits").train.images, expected // 16)
        given = load(**fields, layout="splits", bits=12)
        assert given.bits == 12
        assert np.array_equal(given.train.images, expected)


def test_fit_covers_and_crops_the_centre():
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255
    for resize in RESIZES:
        assert np.array_equal(Fit((10, 10), resize)(Image.fromarray(wide)), np.full((10, 10, 3), 255))
        assert Fit((5, 15), resize)(Image.fromarray(wide)).size == (15, 5)
        assert Fit((), resize)(Image.fromarray(wide)).size == (30, 10)
    assert Fit((20, 20), "bilinear/0.5")(Image.fromarray(wide)).size == (20, 20)
    for resize in ("", "nearest", "bicubic/0", "bicubic/1.1", "bicubic/nan", "bicubic/x", "fit/0.5"):
        with pytest.raises(ValueError, match=r"resize|convert"):
            Fit((10, 10), resize)


@pytest.mark.torch
@pytest.mark.parametrize("size", [(64, 64), (63, 63), (64, 48), (33, 60)])
@pytest.mark.parametrize("resize", ["bilinear", "bicubic/0.875", "lanczos/0.95", "bicubic/0.9"])
def test_images_are_scaled_and_cropped_as_by_timm(size, resize):
    transforms = pytest.importorskip("timm.data.transforms_factory")
    name, _, crop = resize.partition("/")
    theirs = transforms.transforms_imagenet_eval(size, float(crop or 1), interpolation=name, normalize=False)
    rng = np.random.default_rng(0)
    for height, width in ((97, 130), (96, 131), (64, 64), (60, 33), (50, 41), *rng.integers(30, 150, (9, 2))):
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3)).astype(np.uint8))
        np.testing.assert_array_equal(Fit(size, resize)(image), theirs(image).numpy().transpose(1, 2, 0))


def test_sizes_that_differ_are_fitted_when_asked(write_folder):
    root = write_folder(sizes=[(12, 16), (20, 10)])
    with pytest.raises(
        UserError, match=r"images differ in shape: .*0.png is 12x16x3, .*1.jpg is 20x10x3; give the size"
    ):
        load(name="folder", data_dir=str(root), val_split="test")
    assert load(name="folder", data_dir=str(root), image_size=(8, 6)).image_shape == (8, 6, 3)
    assert load(name="folder", data_dir=str(root), image_size=(8,)).image_shape == (8, 8, 3)


class TestMistakes:
    def test_names(self):
        with pytest.raises(
            UserError, match="unknown dataset 'fashion_mnst' .did you mean 'fashion_mnist'.*digits, folder"
        ):
            load(name="fashion_mnst")
        with pytest.raises(UserError, match="unknown split of digits 'trian'"):
            load(train_split="trian")
        with pytest.raises(UserError, match="config.dataset.resize 'bicubi/0.9' .did you mean 'bicubic'.*valid: fit, "):
            load(resize="bicubi/0.9")
        with pytest.raises(UserError, match="config.dataset.test_split is empty: name a split"):
            load(test_split="")
        with pytest.raises(UserError, match="config.dataset.normalization 'stanard' .did you mean 'standard'"):
            load(normalization="stanard")

    @pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1e-9])
    def test_empty_validation_slice(self, fraction):
        with pytest.raises(UserError, match="leaves an empty split"):
            load(val_fraction=fraction)

    @pytest.mark.parametrize("size", [("a",), (0,), (1, 2, 3)])
    def test_image_size(self, size):
        with pytest.raises(UserError, match="config.dataset.image_size"):
            load(name="folder", data_dir="x", image_size=size)

    def test_folder_that_is_not_there(self, tmp_path):
        with pytest.raises(UserError, match="config.dataset.data_dir is not set"):
            load(name="folder")
        with pytest.raises(UserError, match="there is no folder .*/none: give the folder of the images with"):
            load(name="folder", data_dir=str(tmp_path / "none"))
        with pytest.raises(UserError, match=r"cannot read image folder .*train: No such file"):
            load(name="folder", data_dir=str(tmp_path), layout="splits")

    def test_empty_folders(self, tmp_path):
        (tmp_path / "train").mkdir()
        for layout, line in {"auto": "no images in .*1 folder without", "splits": "no class folders in"}.items():
            with pytest.raises(UserError, match=line):
                load(name="folder", data_dir=str(tmp_path), layout=layout)
        (tmp_path / "train" / "cat").mkdir()
        for layout in ("auto", "splits"):
            with pytest.raises(UserError, match="no images in .*cat"):
                load(name="folder", data_dir=str(tmp_path), layout=layout)

    @pytest.mark.parametrize("layout", ["auto", "splits"])
    @pytest.mark.parametrize("damage", ["truncate", "text", "empty"])
    def test_corrupt_image_is_named(self, write_folder, damage, layout):
        root = write_folder()
        victim = root / "train" / "dog" / "3.jpg"
        whole = victim.read_bytes()
        victim.write_bytes({"truncate": whole[: len(whole) // 2], "text": b"not an image", "empty": b""}[damage])
        line = "cannot be read .train/dog/3.jpg: " if layout == "auto" else "cannot read image .*train/dog/3.jpg: "
        with pytest.raises(UserError, match=line) as caught:
            load(name="folder", data_dir=str(root), layout=layout)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("layout", ["auto", "splits"])
    def test_a_file_that_vanishes_is_named(self, write_folder, layout):
        root = write_folder()
        dataset = load(name="folder", data_dir=str(root), layout=layout, memory_budget_gib=0.0, normalization="paper")
        (root / "train" / "dog" / "3.jpg").unlink()
        with pytest.raises(UserError, match=r"cannot read image .*train/dog/3.jpg: No such file"):
            dataset.info()

    def test_classes_that_differ_between_splits(self, write_folder):
        root = write_folder()
        (root / "test" / "dog").rename(root / "test" / "fox")
        with pytest.raises(UserError, match="fox has images, but none for training"):
            load(name="folder", data_dir=str(root))
        with pytest.raises(UserError, match="classes of the test and the train split differ: dog, fox"):
            load(name="folder", data_dir=str(root), layout="splits")

    def test_label_out_of_range(self):
        source = ArraySource("made train", np.zeros((3, 4, 4, 1), np.uint8), np.array([0, 1, 2]), ("a", "b"))
        with pytest.raises(UserError, match=r"image 2 of made train has label 2, outside 0..1"):
            decode(source, "train")
