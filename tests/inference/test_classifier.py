"""Images of any kind as a classifier reads them, and what it predicts of them."""

import dataclasses
import re
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from made_models import made_classifier
from mixer_jax.errors import UserError


@pytest.fixture
def classifier():
    return made_classifier((8, 8, 3))


def test_predict_takes_a_path_an_image_an_array_and_lists_of_them(classifier, tmp_path):
    photos = np.random.default_rng(0).integers(0, 256, (3, 13, 9, 3)).astype(np.uint8)
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, photo in zip(paths, photos, strict=True):
        Image.fromarray(photo).save(path)
    images = [Image.open(path) for path in paths]
    expected = classifier.predict(paths)
    pixels = np.stack([classifier.read(path) for path in paths])
    assert expected == classifier.likeliest(classifier.logits(pixels, 3))
    assert len({str(prediction) for prediction in expected}) == 3
    assert all(sum(share for _, share in prediction) == pytest.approx(1) for prediction in expected)
    assert all({name for name, _ in prediction} == {"a", "b", "c"} for prediction in expected)
    for several in (list(map(str, paths)), images, list(photos), photos, iter(paths), (paths[0], images[1], photos[2])):
        assert classifier.predict(several) == expected
    for one in (paths[0], str(paths[0]), images[0], photos[0], [paths[0]], [images[0]], [photos[0]], photos[:1]):
        [found] = classifier.predict(one)
        assert [name for name, _ in found] == [name for name, _ in expected[0]]
        np.testing.assert_allclose([x for _, x in found], [x for _, x in expected[0]], rtol=1e-5)
    assert classifier.predict(paths, top=1) == [prediction[:1] for prediction in expected]
    batches = classifier.predict(paths, batch_size=2)  # the last one filled up
    assert [[name for name, _ in prediction] for prediction in batches] == [[n for n, _ in p] for p in expected]


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_any_kind_are_the_same_from_a_file_and_from_pillow(mode, channels, tmp_path):
    classifier, rng = made_classifier((8, 8, channels)), np.random.default_rng(0)
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 2**16, (13, 9)).astype(np.uint16))
    else:
        image = Image.fromarray(rng.integers(0, 256, (13, 9, 4)).astype(np.uint8)).convert(mode)
    image.save(tmp_path / "x.png")
    expected = classifier.predict(tmp_path / "x.png")
    assert classifier.predict(image) == expected
    if mode in ("L", "RGBA"):  # as arrays with one channel, with none, or with transparency
        assert classifier.predict(np.asarray(image)) == expected
    if mode == "L":
        assert classifier.predict(np.asarray(image)[..., None]) == expected


def test_a_model_of_other_channels_reads_arrays_alone(tmp_path):
    model = made_classifier((8, 8, 4))
    pixels = np.zeros((8, 8, 4), np.uint8)
    assert np.array_equal(model.read(pixels), pixels)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for image in (tmp_path / "a.png", Image.fromarray(pixels), pixels[..., :3]):
        with pytest.raises(UserError, match=r"the model reads 4 channels: give arrays of shape \(8, 8, 4\), uint8"):
            model.read(image)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((2, 7, 8, 3), np.uint8),
        np.zeros((2, 8, 8, 1), np.uint8),
        np.zeros((8, 8, 3), np.uint8),
    ],
)
def test_only_arrays_of_images_have_logits(images, classifier):
    for method in (classifier.logits, classifier.features):
        with pytest.raises(UserError, match=r"images are \w+ \(.*\): give uint8 \(n, 8, 8, 3\), stacked from `read`"):
            method(images)


def test_its_representation_is_one_line(classifier):
    assert re.fullmatch(r"<Classifier \S+, 8x8x3, \d+ classes, .*>", repr(classifier))


def test_no_images_have_no_logits(classifier):
    nothing = np.zeros((0, *classifier.image_shape), np.uint8)
    assert classifier.logits(nothing).shape == (0, len(classifier.label_names))
    assert classifier.predict([]) == []


def test_a_photo_is_turned_as_its_camera_says_from_a_file_and_from_pillow(classifier, tmp_path):
    pixels, exif = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8), Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    expected = classifier.predict(np.ascontiguousarray(np.rot90(pixels, -1)))
    assert classifier.predict(tmp_path / "x.png") == expected
    assert classifier.predict(Image.open(tmp_path / "x.png")) == expected


@pytest.fixture
def drafting(classifier):
    """The classifier, which decodes JPEG files at a smaller scale."""
    return dataclasses.replace(classifier, preprocessing=dataclasses.replace(classifier.preprocessing, draft=True))


def test_the_callers_image_stays_as_it_is(drafting, tmp_path):
    Image.new("RGB", (800, 800)).save(tmp_path / "x.jpg")
    image = Image.open(tmp_path / "x.jpg")  # which Pillow could decode at a smaller scale
    drafting.predict(image)
    assert image.size == (800, 800)


def test_an_orientation_that_is_no_number_is_ignored(drafting, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    number, text = b"\x01\x12\x00\x03", b"\x01\x12\x00\x02"  # the tag, and its type
    assert number in exif.tobytes()
    Image.new("RGB", (9, 8)).save(tmp_path / "x.png", exif=exif.tobytes().replace(number, text))
    assert drafting.predict(tmp_path / "x.png") == drafting.predict(Image.new("RGB", (9, 8)))


def test_images_that_cannot_be_read_get_one_line(classifier, tmp_path):
    (tmp_path / "x.png").write_bytes(b"no image")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 30, 3)).astype(np.uint8)).save(tmp_path / "y.png")
    truncated = Image.open(BytesIO((tmp_path / "y.png").read_bytes()[:500]))
    for images, line in (
        (tmp_path / "x.png", "cannot read image .*x.png"),
        ([tmp_path / "nowhere.png"], "cannot read image .*nowhere.png"),
        (truncated, "cannot read the image: image file is truncated"),
        (np.zeros((0, 8, 3), np.uint8), r"an image is an array of shape \(0, 8, 3\): give"),
        (np.zeros((8, 8, 3), np.float32), "an image is an array of float32: give uint8, from 0 to 255"),
        (np.zeros(8, np.uint8), r"an image is an array of shape \(8,\): give \(height, width, channels\)"),
        ([np.zeros((2, 8, 8, 3), np.uint8)], r"an image is an array of shape \(2, 8, 8, 3\): give"),
    ):
        with pytest.raises(UserError, match=line) as caught:
            classifier.predict(images)
        assert "\n" not in str(caught.value)
