"""The size that image folders are scaled to if the config leaves it to the images."""

import numpy as np
import pytest
from PIL import Image

from image_folders import load
from mixer_jax import data, models
from mixer_jax.data.size import choose_size
from mixer_jax.errors import UserError
from support import make_config


@pytest.mark.parametrize(
    ("sizes", "chosen"),
    [
        ([(28, 28)], (28, 28)),  # as MNIST
        ([(32, 32)] * 3, (32, 32)),
        ([(105, 105)] * 3, (105, 105)),  # 7x7 patches of 15 pixels
        ([(64, 48)] * 2, (64, 48)),
        ([(37, 37)], (32, 32)),  # which only single pixels and the whole image tile
        ([(3000, 4000)] * 3, (64, 64)),  # one camera
        ([(240, 320), (333, 500), (500, 333)], (64, 64)),
        ([(100, 100), (101, 100)], (64, 64)),
        ([(70, 70), (90, 80), (3000, 3000)], (64, 64)),
        ([(20, 20), (17, 16)], (32, 32)),
        ([(50, 60), (60, 50)], (48, 48)),
    ],
)
def test_the_size_suits_most_images(sizes, chosen):
    assert choose_size(sizes) == chosen


def test_a_folder_is_scaled_to_it_and_says_so(tmp_path, capsys):
    exif = Image.Exif()
    exif[0x0112] = 6  # rows become columns
    for label in "ab":
        (tmp_path / label).mkdir()
        for i in range(10):
            pixels = np.full((70 + i, 100, 3), 10 * i, np.uint8)
            Image.fromarray(pixels).save(tmp_path / label / f"{i}.png", exif=exif if i == 0 else None)
    dataset = load(tmp_path, image_size=(-1,))
    assert dataset.image_shape == (64, 64, 3)
    assert "  70 to 100 pixels wide, 71 to 100 high, scaled and cropped to 64x64\n" in capsys.readouterr().out
    config = make_config(model__variant="Nano", model__num_blocks=None).model
    assert models.create(config, num_classes=2, image_shape=dataset.image_shape).patch_size == 8
    split = data.open_split(
        make_config(dataset__name="folder", dataset__data_dir=str(tmp_path), dataset__image_size=(-1,)).dataset, "test"
    )
    assert split.image_shape == (64, 64, 3)


def test_digits_and_folders_as_older_releases_read_them_have_none(tmp_path):
    for name, what in (("digits", "digits are 8x8"), ("folder", "image_size=-1 cannot be combined with")):
        config = make_config(
            dataset__image_size=(-1,), dataset__data_dir=str(tmp_path), dataset__name=name, dataset__layout="splits"
        )
        with pytest.raises(UserError, match=what):
            data.load(config.dataset)


@pytest.mark.parametrize(
    ("image", "patch"), [((28, 28), 4), ((32, 32), 4), ((64, 64), 8), ((105, 105), 15), ((100, 100), 10), ((64, 48), 8)]
)
def test_a_size_without_patches_gets_about_64_of_them(image, patch):
    config = make_config(model__variant="Tiny", model__num_blocks=None).model
    model = models.create(config, num_classes=10, image_shape=(*image, 3))
    assert (model.patch_size, model.num_blocks) == (patch, 8)
