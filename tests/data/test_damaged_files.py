"""Image files that are damaged, equal or unusual: found before training, named, and counted."""

import json
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from image_folders import TEN, block, encoded, load, look, write
from mixer_jax import data
from mixer_jax.data import examine, folders, images
from mixer_jax.data.images import IMAGE_FORMATS, Fit, read_image
from mixer_jax.errors import UserError
from mixer_jax.messages import show_on_console


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


BOMB = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)) + chunk(
    b"IDAT", zlib.compress(b"")
)  # fmt: skip


DAMAGED = {  # the content of a file, None for a broken link, and what is said of it
    "empty.jpg": (b"", "it is empty"),
    "page.jpg": (b"\n <!DOCTYPE html><html>404", "it is a web page"),
    "cut.jpg": (encoded(1, ".jpg")[:-40], "image file is truncated"),
    "cut.png": (encoded(1)[:-40], ""),
    "text.png": (b"not an image", "it is not an image in a supported format"),
    "iphone.jpg": (b"\0\0\0\x20ftypheic\0\0\0\0mif1heic", "it is a HEIC file: convert it to JPEG"),
    "pointer.jpg": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "a Git LFS pointer, not the image",
    ),
    "document.gif": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "it is not an image in a supported format"),
    "link.png": (None, "no such file or directory"),
    "bomb.png": (BOMB, "exceeds limit"),
}


def damage(path, content):
    if content is None:
        path.symlink_to("nowhere.png")
    else:
        path.write_bytes(content)


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_stops_or_is_left_out_and_counted(name, tmp_path, capsys):
    write(tmp_path, f"cat/{TEN} dog/{TEN}")
    content, why = DAMAGED[name]
    damage(tmp_path / "cat" / name, content)
    with pytest.raises(
        UserError, match=rf"1 of 21 image files in {tmp_path} cannot be read \(cat/{name}: .*\): repair"
    ) as caught:
        load(tmp_path)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)
    capsys.readouterr()
    dataset = load(tmp_path, on_error="skip")
    assert f"left out: 1 damaged (cat/{name})" in dataset.cautions
    assert len(dataset.train) + len(dataset.val) + len(dataset.test) == 20
    said = capsys.readouterr()
    assert f"warning: cat/{name}: " in said.err
    assert f"left out: 1 damaged (cat/{name})" in said.out


def test_many_damaged_files_are_listed_to_some_length(tmp_path, capsys):
    write(tmp_path, f"{{cat,dog}}/{TEN}", {f"cat/x{i}.jpg": "" for i in range(30)})
    line = r"30 of 50 .*\(cat/x0.jpg: it is empty, .* and 27 more\): repair or delete them"
    with pytest.raises(UserError, match=line):
        load(tmp_path)
    *listed, last = capsys.readouterr().err.splitlines()
    assert len(listed) == 20
    assert last == "warning: 10 more files cannot be read"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_must_not_be_read(tmp_path):
    write(tmp_path, f"{{cat,dog}}/{TEN}")
    (tmp_path / "cat" / "a.png").chmod(0)
    with pytest.raises(UserError, match="1 of 20 .*cat/a.png: permission denied"):
        load(tmp_path)
    (tmp_path / "dog").chmod(0)
    with pytest.raises(UserError, match="cannot read image folder .*/dog: Permission denied"):
        load(tmp_path)
    (tmp_path / "dog").chmod(0o700)


def test_damage_elsewhere_does_not_stop_an_evaluation(tmp_path):
    write(tmp_path, "train/{cat,dog}/{a,b}.png test/{cat,dog}/c.png", {"train/cat/x.png": ""})
    with pytest.raises(UserError, match="1 of 7 image files"):
        load(tmp_path)
    split = data.open_split(block(tmp_path).dataset, "test")
    assert (len(split), split.source.label_names) == (2, ("cat", "dog"))
    with pytest.raises(UserError, match="1 of 7 image files"):
        data.open_split(block(tmp_path).dataset, "train")


def test_equal_files_are_named(tmp_path):
    write(tmp_path, f"train/cat/{TEN} train/dog/{TEN} test/{{cat,dog}}/{{x,y}}.png")
    copy = (tmp_path / "train/cat/a.png").read_bytes()
    (tmp_path / "test/cat/copy.png").write_bytes(copy)
    (tmp_path / "train/dog/copy.png").write_bytes(copy)
    folder = look(tmp_path)
    assert folder.cautions() == (
        "the same files, byte for byte, are test and training images: "
        "train/cat/a.png = train/dog/copy.png = test/cat/copy.png",
        "the same files, byte for byte, are in different classes: "
        "train/cat/a.png = train/dog/copy.png = test/cat/copy.png",
    )
    assert set(folder.cautions()) < set(load(tmp_path).cautions)
    left_out, *_ = cautions = look(tmp_path, test_split="train").cautions()
    assert left_out.startswith("left out: 5 outside the folders of the splits (test/cat/copy.png")
    assert not any("test and training" in caution for caution in cautions)  # as all are


def test_equal_files_of_validation_and_test_are_named(tmp_path):
    write(tmp_path, f"train/{{cat,dog}}/{TEN} val/{{cat,dog}}/x.png", {"test/dog/y.png": encoded(1)})
    (tmp_path / "test" / "cat").mkdir()
    (tmp_path / "test/cat/copy.png").write_bytes((tmp_path / "val/cat/x.png").read_bytes())
    both = "the same files, byte for byte, are test and validation images: val/cat/x.png = test/cat/copy.png"
    assert both in look(tmp_path).cautions()


def test_a_file_that_is_repaired_is_examined_again(tmp_path):
    """The size and the time of modification may be those of the damaged file, as after `rsync --times`."""
    write(tmp_path / "images", f"cat/{TEN} dog/{TEN}")
    path = tmp_path / "images" / "cat" / "a.png"
    good, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    path.write_bytes(bytes(len(good)))
    os.utime(path, ns=times)
    with pytest.raises(UserError, match=r"cat/a.png: it is not an image"):
        load(tmp_path / "images")
    path.write_bytes(good)
    os.utime(path, ns=times)
    assert len(load(tmp_path / "images").test) == 4


def test_an_interrupted_examination_is_continued(tmp_path, monkeypatch):
    write(tmp_path / "images", f"cat/{TEN} dog/{TEN}")
    look_at, seen = examine._properties, []

    def interrupted(content):
        if len(seen) == 12:
            raise KeyboardInterrupt
        seen.append(content)
        return look_at(content)

    monkeypatch.setattr(examine, "cores", lambda: 1)
    monkeypatch.setattr(examine, "_properties", interrupted)
    with pytest.raises(KeyboardInterrupt):
        look(tmp_path / "images")
    monkeypatch.setattr(examine, "_properties", lambda content: seen.append(content) or look_at(content))
    look(tmp_path / "images")
    assert len(seen) == 20


def test_copies_are_drawn_together(tmp_path):
    for i in range(60):
        for number, label in enumerate(("cat", "dog")):
            write(tmp_path, "", {f"{label}/{name}{i}.png": encoded(2 * i + number) for name in ("", "copy of ")})
    [caution] = look(tmp_path).cautions() or [""]
    assert caution.count("=") <= 2  # of 60 in each class, one at most at the border of the parts


def test_a_pipe_is_not_read(tmp_path):
    write(tmp_path, f"cat/{TEN} dog/{TEN}")
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    assert look(tmp_path).cautions() == ("left out: 1 special file (cat/pipe.png)",)


def test_deep_images(tmp_path, capsys):
    show_on_console()
    deep = np.random.default_rng(0).integers(0, 2**16, (6, 5)).astype(np.uint16)
    write(tmp_path, f"cat/{TEN} dog/{TEN}")
    Image.fromarray(deep).save(tmp_path / "cat" / "deep.png")
    Image.fromarray(deep).save(tmp_path / "dog" / "deep.tif")
    assert "left out: nothing" in look(tmp_path).lines()[3]
    for path in (tmp_path / "cat" / "deep.png", tmp_path / "dog" / "deep.tif"):
        np.testing.assert_array_equal(read_image(path, channels=1)[..., 0], deep >> 8)
    signed = np.array([[-1000, 0, 1000, 2047]], np.int32)  # as of computed tomography
    Image.fromarray(signed).save(tmp_path / "signed.tif")
    assert read_image(tmp_path / "signed.tif", Fit(bits=11), 1)[0, :, 0].tolist() == [0, 0, 125, 255]
    assert not capsys.readouterr().err
    images._warn_of_levels.cache_clear()  # it is said once in a process
    assert read_image(tmp_path / "signed.tif", Fit(bits=10), 1)[0, :, 0].tolist() == [0, 0, 250, 255]
    line = "warning: an image has levels above 1023, which become white: all 16-bit images are read as 10 bits\n"
    assert capsys.readouterr().err == line
    Image.fromarray(deep.astype(np.float32) / 2**16).save(tmp_path / "cat" / "float.tif")
    with pytest.raises(UserError, match="cat/float.tif: the image has floating-point levels: convert it"):
        load(tmp_path)


def test_transparent_levels_of_16_bits_become_white_and_negative_levels_black(tmp_path):
    levels = np.array([[0, 100 << 8, 200 << 8]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "clear.png", transparency=100 << 8)
    assert read_image(tmp_path / "clear.png", channels=1)[0, :, 0].tolist() == [0, 255, 200]
    Image.fromarray(np.array([[-1, 0, 100 << 8]], np.int32)).save(tmp_path / "signed.tif")
    assert read_image(tmp_path / "signed.tif", channels=1)[0, :, 0].tolist() == [0, 0, 100]


def test_an_image_with_damaged_exif_data_is_read(tmp_path):
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "the maker of the camera"
    of_text = b"\x01\x0f\x00\x02\x00\x00\x00\x18"
    assert of_text in exif.tobytes()
    damaged = exif.tobytes().replace(of_text, b"\x01\x0f\x00\x0c\x00\x00\x00\x01")  # a number, not text
    image.save(tmp_path / "turned.png", exif=damaged)
    with pytest.raises(AttributeError), Image.open(tmp_path / "turned.png") as opened:
        ImageOps.exif_transpose(opened)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png"), np.rot90(np.asarray(image), -1))
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        image.save(tmp_path / "turned.png", exif=exif)
        with Image.open(tmp_path / "turned.png") as opened:
            theirs = np.asarray(ImageOps.exif_transpose(opened))
        np.testing.assert_array_equal(read_image(tmp_path / "turned.png"), theirs)


@pytest.mark.skipif("AVIF" not in IMAGE_FORMATS, reason="Pillow without AVIF")
def test_avif(tmp_path):
    write(tmp_path, f"cat/{TEN} dog/{TEN}")
    Image.new("RGB", (6, 5), "red").save(tmp_path / "cat" / "new.avif")
    assert len(look(tmp_path, test_split="train").splits["train"]) == 21
    content = (tmp_path / "cat" / "new.avif").read_bytes()
    (tmp_path / "cat" / "new.avif").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="1 of 21 image files .*cat/new.avif: "):
        load(tmp_path)


@pytest.fixture
def decoded(tmp_path, monkeypatch):
    """The number of files that are decoded to examine them, with an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    calls, look = [], examine._properties
    monkeypatch.setattr(examine, "_properties", lambda content: calls.append(1) or look(content))
    return calls


def test_a_file_is_examined_once_until_it_changes(tmp_path, decoded, monkeypatch):
    root = tmp_path / "images"
    write(root, f"cat/{TEN} dog/{TEN}", {"cat/x.jpg": ""})
    for layout in ({}, {"test_fraction": 0.5}, {"on_error": "skip"}):
        look(root, **layout)
        assert len(decoded) == 21
    monkeypatch.chdir(tmp_path)
    look("images")  # the same folder, named in another way
    assert len(decoded) == 21
    (root / "cat" / "a.png").write_bytes(encoded(99))
    os.utime(root / "cat" / "a.png", (1, 1))
    assert "1 damaged" not in look(root).lines()[3]
    assert len(decoded) == 22
    [kept] = (tmp_path / "cache" / "mixer_jax" / "examined").iterdir()
    kept.write_text(json.dumps({"format": "another", "files": {}}))  # as of another release of Pillow
    look(root)
    kept.write_text("{")
    look(root)
    assert len(decoded) == 22 + 2 * 21
    monkeypatch.setenv("XDG_CACHE_HOME", str(root / "cat" / "a.png"))  # where none can be kept
    look(root)
    assert len(decoded) == 22 + 3 * 21


def test_of_very_many_a_sample_is_examined_and_that_is_said(tmp_path, decoded, monkeypatch):
    monkeypatch.setattr(folders, "MOST_EXAMINED", 20)
    monkeypatch.setattr(folders, "SAMPLE", 5)
    root = tmp_path / "images"
    write(root, f"cat/{TEN} dog/{TEN}", {"cat/x.jpg": ""})
    folder = look(root)
    assert len(decoded) == 6
    assert folder.lines()[-1].startswith("  only 6 images were examined for damaged and equal files: ")
    assert folder.cautions() == ()
    assert sum(map(len, folder.splits.values())) == 21
    with pytest.raises(UserError, match=r"cannot read image .*cat/x.jpg: "):
        load(root)
    assert "1 damaged (cat/x.jpg)" in look(root, on_error="skip").lines()[3]
    assert len(decoded) == 21
