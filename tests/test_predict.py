"""Predictions on images of every kind: the same as the model's own, none lost, and the bad ones named."""

import csv
import dataclasses
import json
import re
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from mixer_jax import predict
from mixer_jax.checkpoints import Checkpoints
from mixer_jax.data import read_image
from mixer_jax.errors import UserError
from mixer_jax.inference import dataset_of, load, open_split
from runs import train_digits


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train_digits(tmp_path_factory.mktemp("predict") / "run", "--config.epochs=4")


def call(run, *arguments):
    return predict.main(["predict", "--workdir", str(run), *map(str, arguments)])


def some_pixels(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels)).astype(np.uint8)


def test_a_few_images_get_a_table_that_holds_the_models_own_numbers(run, tmp_path, capsys):
    path = tmp_path / "grey.png"
    pixels = some_pixels(8, 8, 1)
    Image.fromarray(pixels[..., 0]).save(path)
    assert call(run, path, "--top=3") == 0
    lines = capsys.readouterr().out.splitlines()
    probabilities = np.asarray(jax.nn.softmax(load(run).logits(pixels[None], 1)[0]))
    order = np.argsort(-probabilities)[:3]
    assert lines[0] == str(path)
    assert [line.split()[:2] for line in lines[1:]] == [[str(i), f"{100 * probabilities[i]:.2f}%"] for i in order]


def test_many_images_get_a_line_each(run, tmp_path, capsys):
    pixels = [some_pixels(8, 8, 1, seed) for seed in range(11)]
    for i, image in enumerate(pixels):
        Image.fromarray(image[..., 0]).save(tmp_path / f"{i:02}.png")
    assert call(run, tmp_path) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    probabilities = np.asarray(jax.nn.softmax(load(run).logits(np.stack(pixels), 11)))
    for i, (line, own) in enumerate(zip(lines, probabilities, strict=True)):
        assert line == [f"{100 * own.max():.2f}%", str(own.argmax()), str(tmp_path / f"{i:02}.png")]


def test_hidden_files_are_left_out_and_links_followed(run, tmp_path, capsys):
    Image.fromarray(some_pixels(8, 8)).save(tmp_path / "a.png")
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("._a.png", "__MACOSX/a.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"of macOS")
    (folder / "link").symlink_to(tmp_path, target_is_directory=True)
    (folder / "other").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    Image.fromarray(some_pixels(8, 8)).save(tmp_path / "elsewhere" / "b.png")
    assert call(run, folder, "--top=1") == 0
    assert capsys.readouterr().out.splitlines()[0] == str(folder / "other" / "b.png")


def test_a_file_and_a_folder_of_weights_predict_what_the_run_does(run, tmp_path, capsys):
    Image.fromarray(some_pixels(20, 13)).save(tmp_path / "a.png")
    load(run).save(tmp_path / "weights.npz")
    load(run).save(tmp_path / "folder")
    told = []
    for source in (run, tmp_path / "weights.npz", tmp_path / "folder"):
        assert call(source, tmp_path / "a.png", "--top=10") == 0
        told.append(capsys.readouterr())
    assert len(told[0].out.splitlines()) == 11
    assert told[1] == told[2] == told[0]


def test_of_1000_images_of_every_kind_none_is_lost(run, tmp_path, capsys):
    folder, kinds = tmp_path / "images", ("L", "RGB", "RGBA", "P", "LA", "1", "I;16", "CMYK")
    rng = np.random.default_rng(0)
    for i in range(1000):
        mode = kinds[i % len(kinds)]
        suffix = "jpg" if mode == "CMYK" else ("png", "webp", "bmp", "gif")[i // 8 % 4] if mode == "RGB" else "png"
        height, width = rng.integers(1, 40, 2)
        if mode == "I;16":
            image = Image.fromarray(rng.integers(0, 2**16, (height, width)).astype(np.uint16))
        else:
            image = Image.fromarray(some_pixels(height, width, seed=i)).convert(mode)
        path = folder / str(i % 7) / f"{i}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    (folder / "notes.txt").write_text("no image")
    for output in (tmp_path / "out.csv", tmp_path / "out.json"):
        assert call(run, folder, f"--output={output}") == 0
        assert f"1,000 of 1,000 images, written to {output}" in capsys.readouterr().out
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    entries = json.loads((tmp_path / "out.json").read_text())
    assert sorted(row["file"] for row in rows) == sorted(str(p) for p in folder.rglob("*.*") if p.suffix != ".txt")
    for row, entry in zip(rows, entries, strict=True):
        assert list(entry["classes"]) == [row[f"class_{i}"] for i in range(1, 6)]
        assert list(entry["classes"].values()) == pytest.approx(
            [float(row[f"probability_{i}"]) for i in range(1, 6)], 1e-4
        )


def test_50_damaged_files_give_50_named_lines(run, tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(50):
        path = folder / f"bad_{i}.{('png', 'jpg')[i % 2]}"
        Image.fromarray(some_pixels(30, 30)).save(path)
        content = path.read_bytes()
        damaged = (b"", content[: len(content) // 2], b"not an image", content[:10])[i % 4]
        path.write_bytes(damaged)
    Image.fromarray(some_pixels(30, 30)).save(folder / "good.png")
    assert call(run, folder, f"--output={tmp_path / 'out.csv'}") == 1
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 50
    assert {re.search(r"bad_\d+", line)[0] for line in lines} == {f"bad_{i}" for i in range(50)}
    assert all(line.startswith("skipped: cannot read image ") for line in lines)
    assert "1 of 51 images" in captured.out
    assert call(run, folder / "bad_0.png") == 1


def test_images_are_turned_flattened_on_white_and_kept_at_16_bits(tmp_path):
    pixels = some_pixels(4, 6)
    turned = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(pixels).save(turned, exif=exif)
    np.testing.assert_array_equal(read_image(turned), np.rot90(pixels, -1))
    clear = np.dstack([pixels, np.full((4, 6), 0, np.uint8)])
    clear[0, 0, 3] = 255
    Image.fromarray(clear).save(tmp_path / "clear.png")
    expected = np.full((4, 6, 3), 255, np.uint8)
    expected[0, 0] = pixels[0, 0]
    np.testing.assert_array_equal(read_image(tmp_path / "clear.png"), expected)
    deep = np.random.default_rng(0).integers(0, 2**16, (4, 6)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png", channels=1)[..., 0], deep >> 8)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "no paths given, at least one expected"),
        (["nowhere.png"], "there is no image or folder nowhere.png"),
        (["EMPTY"], "no images in .*: looked for .png, .jpg"),
        (["IMAGE", "--output=x.txt"], "--output=x.txt: give a name that ends in .csv or .json"),
        (["IMAGE", "--output=IMAGE.csv"], "already exists"),
        (["IMAGE", "--batch_size=0"], "--batch_size=0: 0 is not a positive integer"),
        (["IMAGE", "--checkpoint=3"], "no checkpoint '3'"),
    ],
)
def test_mistakes_get_one_line(arguments, line, run, tmp_path):
    (tmp_path / "empty").mkdir()
    Image.fromarray(some_pixels(4, 4)).save(tmp_path / "a.png")
    (tmp_path / "a.png.csv").touch()
    names = {"EMPTY": str(tmp_path / "empty"), "IMAGE": str(tmp_path / "a.png")}
    arguments = [re.sub("EMPTY|IMAGE", lambda m: names[m[0]], a) for a in arguments]
    with pytest.raises(UserError, match=line) as caught:
        call(run, *arguments)
    assert "\n" not in str(caught.value)


def test_the_logits_of_the_tokens_have_the_images_as_their_mean(run):
    classifier = load(run)
    images, _ = open_split(classifier, dataset_of(classifier), "test").read(range(3))
    mean, std = classifier.preprocessing.mean[0], classifier.preprocessing.std[0]
    for image, logits in zip(images, classifier.logits(images, 3), strict=True):
        evidence, sizes = classifier.token_maps(image)
        np.testing.assert_allclose(evidence.mean((0, 1)), logits, atol=1e-5)
        assert evidence.shape == (4, 4, 10)
        assert sizes.shape == (1, 4, 4)
        prepared = (classifier.seen(image)[None] / 255.0 - mean) / std
        _, layers = classifier.model.apply({"params": classifier.params}, prepared, capture_intermediates=True)
        [tokens] = layers["intermediates"]["MixerBlock_0"]["__call__"]
        np.testing.assert_allclose(sizes[0].ravel(), np.sqrt(np.square(tokens[:, 0]).mean(-1)), rtol=1e-4)
    # A bias of the head is in each token's logits, and nothing else changes.
    classifier.params["head"]["bias"] = classifier.params["head"]["bias"] + 1
    np.testing.assert_allclose(classifier.token_maps(images[2])[0], evidence + 1, atol=1e-5)


@pytest.mark.parametrize("num_images", [None, [], {"test": "many"}])
def test_a_config_that_counts_no_images_gets_one_line(num_images, run, tmp_path):
    odd = shutil.copytree(run, tmp_path / "odd")
    content = json.loads((odd / "config.json").read_text())
    content["dataset"]["num_images"] = num_images
    (odd / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="cannot read .*config.json: its description of the dataset is invalid"):
        load(odd)


def test_of_a_run_that_is_not_finished_it_says_so(run, tmp_path, capsys):
    half = shutil.copytree(run, tmp_path / "half")
    (half / "results.json").unlink()
    Image.fromarray(some_pixels(8, 8, 1)[..., 0]).save(tmp_path / "a.png")
    assert call(half, tmp_path / "a.png") == 0
    assert re.search(r"warning: .*half: epoch (\d+) of \1, not finished", capsys.readouterr().err)
    checkpoints = Checkpoints(half / "checkpoints")
    found = checkpoints.read(checkpoints.saved_steps()[-1])
    shutil.rmtree(half / "checkpoints" / str(found.step))
    checkpoints.save(dataclasses.replace(found, progress=found.progress | {"history": []}))
    assert not checkpoints.wait()
    checkpoints.close()
    assert call(half, tmp_path / "a.png", "--checkpoint=latest") == 0
    assert re.search(r"warning: .*half: epoch 0 of \d+, not finished", capsys.readouterr().err)
