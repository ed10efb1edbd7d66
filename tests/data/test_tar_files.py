"""Images in tar files, as WebDataset and plain tar write them."""

import io
import json
import os
import tarfile

import numpy as np
import pytest
from PIL import Image

from image_folders import encoded, load, look, write
from mixer_jax.data import tar_files
from mixer_jax.errors import UserError


def pack(path, content):
    """Write a tar file of the given members, as (name, content) in order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, data in content:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))


def shards(root, number=12, label=lambda i: ("cls", str(i % 3).encode()), per_tar=4, names="{split}-{shard:05d}.tar"):
    """Write tar files of WebDataset: for each split `number` images, the i-th of class i % 3."""
    for j, split in enumerate(("train", "test")):
        for shard in range(0, number, per_tar):
            content = []
            for i in range(shard, shard + per_tar):
                suffix, text = label(i)
                content += [(f"{i:06d}.png", encoded(100 * j + i)), (f"{i:06d}.{suffix}", text)]
            pack(root / names.format(split=split, shard=shard // per_tar), content)


def pixels(number):
    return np.asarray(Image.open(io.BytesIO(encoded(number))))


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_names_of_members_may_begin_with_a_slash(tmp_path):
    for split in ("train", "test"):
        content = [(f"/data/{i}.{suffix}", text) for i in range(6) for suffix, text in
                   (("png", encoded(i)), ("cls", b"ab"[i % 2 : i % 2 + 1]))]  # fmt: skip
        pack(tmp_path / "set" / f"{split}.tar", content)
    dataset = load(tmp_path / "set", val_split="test")
    assert dataset.label_names == ("a", "b")
    assert len(dataset.train) == len(dataset.test) == 6


@pytest.mark.parametrize(
    ("names", "label", "classes"),
    [
        ("{split}-{shard:05d}.tar", lambda i: ("cls", str(i % 3).encode()), "012"),
        ("my-{split}-{shard}.tar", lambda i: ("cls", f"{'abc'[i % 3]}\n".encode()), "abc"),
        ("{split}/{shard}.TAR", lambda i: ("json", json.dumps({"width": 5, "label": i % 3}).encode()), "012"),
        ("{split}/{shard}.tar", lambda i: ("json", json.dumps({"class_name": "xyz"[i % 3]}).encode()), "xyz"),
    ],
)
def test_the_examples_of_webdataset_are_read(names, label, classes, tmp_path, capsys):
    shards(tmp_path / "set", names=names, label=label)
    dataset = load(tmp_path / "set", memory_budget_gib=0.0, val_split="test")
    assert dataset.label_names == tuple(classes)
    for j, split in enumerate((dataset.train, dataset.test)):
        images, labels = split.read(range(12))
        assert labels.tolist() == [i % 3 for i in range(12)]
        assert np.array_equal(images, [pixels(100 * j + i) for i in range(12)])
    first = names.format(split="train", shard=0)
    assert dataset.train.name(0) == f"{first}/000000.png"
    assert f"Images in {tmp_path}/set: images in 6 tar files\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("suffix", "text"), [("json", {"width": 5}), ("JSON", {"width": 5}), ("json", {"label": None, "cls": "json"})]
)
@pytest.mark.parametrize("first", [True, False])
def test_a_class_in_two_files_is_that_of_cls(first, suffix, text, tmp_path):
    for split in ("train", "test"):
        content = []
        for i in range(12):
            two = [(f"{i}.cls", b"ab"[i % 2 : i % 2 + 1]), (f"{i}.{suffix}", json.dumps(text).encode())]
            content += [(f"{i}.png", encoded(i)), *(two if first else two[::-1])]
        pack(tmp_path / "set" / f"{split}-0.tar", content)
    assert load(tmp_path / "set").label_names == ("a", "b")


def test_json_has_a_class_in_any_case_and_null_is_none(tmp_path):
    names = {0: {"label": "x"}, 1: {"label": None, "cls": " y\n"}, 2: {"cls": None}}
    content = [(f"{i}.png", encoded(i)) for i in range(12)]
    content += [(f"{i}.JSON", json.dumps(names[i % 3]).encode()) for i in range(12)]
    pack(tmp_path / "set" / "all.tar", content)
    folder = look(tmp_path / "set")
    assert {image.label for images in folder.splits.values() for image in images} == {"x", "y"}
    assert any("4 without a class" in line for line in folder.lines())


def test_folders_in_a_tar_file_are_classes_and_test_images_are_drawn(tmp_path):
    names = [f"{label}/{i}.png" for label in ("cat", "dog") for i in range(10)]
    pack(tmp_path / "set" / "all.tar", [(f"./{name}", encoded(i)) for i, name in enumerate(names)] + [("._x.png", b"")])
    write(tmp_path / "folder", " ".join(names))
    packed, unpacked = look(tmp_path / "set"), look(tmp_path / "folder")
    for split in ("train", "test"):
        tar, folder = ([(image.path.name, image.label) for image in x.splits[split]] for x in (packed, unpacked))
        assert tar == folder
    ours, theirs = load(tmp_path / "set"), load(tmp_path / "folder")
    assert np.array_equal(ours.train.images, theirs.train.images)
    assert (ours.mean, ours.std) == (theirs.mean, theirs.std)


def test_what_other_programs_left_in_a_tar_file_is_ignored_as_in_a_folder(tmp_path):
    names = [f"{label}/{i}.png" for label in ("cat", "dog") for i in range(6)]
    left = ["__MACOSX/cat/9.png", "cat/@eaDir/0.png", "cat/.thumbs/0.png", "dog/._1.png"]
    pack(tmp_path / "set" / "all.tar", [(name, encoded(i)) for i, name in enumerate(names + left)])
    folder = look(tmp_path / "set")
    assert folder.label_names == ("cat", "dog")
    assert sum(map(len, folder.splits.values())) == len(names)


def test_members_may_lie_above_the_folder_that_was_packed(tmp_path):
    pack(tmp_path / "set" / "all.tar", [(f"../{label}/{i}.png", encoded(i)) for label in "ab" for i in range(6)])
    assert look(tmp_path / "set").label_names == ("a", "b")


def test_links_in_a_tar_file_are_followed(tmp_path):
    write(tmp_path / "folder", f"cat/{{{','.join(map(str, range(8)))}}}.png dog/{{{','.join(map(str, range(6)))}}}.png")
    os.link(tmp_path / "folder" / "cat" / "0.png", tmp_path / "folder" / "dog" / "hard.png")
    os.symlink("../cat/1.png", tmp_path / "folder" / "dog" / "soft.png")
    os.symlink("soft.png", tmp_path / "folder" / "dog" / "twice.png")
    (tmp_path / "set").mkdir()
    with tarfile.open(tmp_path / "set" / "all.tar", "w") as file:
        file.add(tmp_path / "folder", ".")
    packed, unpacked = load(tmp_path / "set"), load(tmp_path / "folder")
    assert len(packed.train) + len(packed.val) + len(packed.test) == 8 + 6 + 3
    for split in ("train", "val", "test"):
        ours, theirs = getattr(packed, split), getattr(unpacked, split)
        assert np.array_equal(ours.images, theirs.images)
        assert np.array_equal(ours.labels, theirs.labels)


def test_damage_is_named_or_left_out(tmp_path):
    content = [(f"{label}/{i}.png", encoded(i)) for label in "ab" for i in range(10)]
    content[3] = ("a/3.png", encoded(3)[:50])
    pack(tmp_path / "set" / "all.tar", [*content, ("loose.png", encoded(99))])
    with pytest.raises(UserError, match=r"1 of 20 image files in .*set cannot be read \(all.tar/a/3.png: "):
        load(tmp_path / "set")
    folder = look(tmp_path / "set", on_error="skip")
    assert sum(map(len, folder.splits.values())) == 19
    [line] = [line for line in folder.lines() if "left out" in line]
    assert line == "  left out: 1 without a class in the tar file (all.tar/loose.png); 1 damaged (all.tar/a/3.png)"


def test_a_damaged_tar_file_gets_one_line(tmp_path):
    pack(tmp_path / "train.tar", [("a/1.png", encoded(1)), ("b/1.png", encoded(2))])
    (tmp_path / "test.tar").write_bytes(b"this is no tar file" * 100)
    with pytest.raises(UserError, match=r"^cannot read .*test.tar: "):
        look(tmp_path)


def test_a_tar_file_is_read_through_once_until_it_changes(tmp_path, monkeypatch):
    shards(tmp_path / "set")
    opened, real = [], tarfile.open
    monkeypatch.setattr(tar_files.tarfile, "open", lambda *args: opened.append(args[0]) or real(*args))
    for _ in range(2):
        assert len(look(tmp_path / "set").splits["train"]) == 12
        assert len(opened) == 6
    monkeypatch.undo()
    pack(tmp_path / "set" / "train-00000.tar", [("x.png", encoded(50)), ("x.cls", b"2")])
    monkeypatch.setattr(tar_files.tarfile, "open", lambda *args: opened.append(args[0]) or real(*args))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert len(look(tmp_path / "set").splits["train"]) == 9
    assert len(opened) == 7


def test_tar_files_beside_class_folders_are_left_out(tmp_path):
    write(tmp_path, "a/{1,2,3,4,5}.png b/{1,2,3,4,5}.png")
    pack(tmp_path / "b" / "more.tar", [("c/1.png", encoded(9))])
    folder = look(tmp_path)
    assert folder.label_names == ("a", "b")
    assert "left out: 1 .tar file, to be unpacked (b/more.tar)" in "\n".join(folder.lines())


def labels(root, **fields):
    """The class of each image that is used, by its name in the tar file without the folders there."""
    folder = look(root, **fields)
    return {image.path.name: image.label for images in folder.splits.values() for image in images}


@pytest.mark.parametrize(
    ("suffix", "text"), [("cls", "{}".format), ("json", lambda label: json.dumps({"label": label}))]
)
def test_names_may_have_dots(suffix, text, tmp_path):
    content = []
    for i in range(12):
        content += [(f"in/photo.{i:03d}.png", encoded(i)), (f"in/photo.{i:03d}.{suffix}", text("ab"[i % 2]).encode())]
    pack(tmp_path / "set" / "all.tar", content)
    assert labels(tmp_path / "set") == {f"photo.{i:03d}.png": "ab"[i % 2] for i in range(12)}


def test_several_images_of_an_example_have_its_class_and_other_json_is_ignored(tmp_path):
    content = []
    for i in range(12):
        content += [(f"in/{i}.{side}.png", encoded(100 * j + i)) for j, side in enumerate(("left", "right"))]
        content += [(f"in/{i}.cls", b"\xef\xbb\xbf" + b"ab"[i % 2 : i % 2 + 1]), (f"in/{i}.stats.json", b"{}")]
    pack(tmp_path / "set" / "all.tar", [*content, ("in/none.png", encoded(99))])
    expected = {f"{i}.{side}.png": "ab"[i % 2] for i in range(12) for side in ("left", "right")}
    assert labels(tmp_path / "set") == expected
    assert "1 without a class in the tar file (all.tar/in/none.png)" in "\n".join(look(tmp_path / "set").lines())


@pytest.mark.parametrize("suffix", ["meta.json", "label.cls"])
def test_the_name_of_a_file_with_the_class_may_have_more_parts(suffix, tmp_path):
    content = []
    for i in range(12):
        text = "ab"[i % 2] if suffix.endswith("cls") else json.dumps({"label": "ab"[i % 2]})
        content += [(f"in/{i:03d}.png", encoded(i)), (f"in/{i:03d}.{suffix}", text.encode())]
    pack(tmp_path / "set" / "all.tar", content)
    assert labels(tmp_path / "set") == {f"{i:03d}.png": "ab"[i % 2] for i in range(12)}


def test_folders_in_a_tar_file_may_be_splits(tmp_path):
    names = [f"data/{split}/{label}/{i}.png" for split in ("train", "val", "test") for label in "ab" for i in range(4)]
    pack(tmp_path / "set" / "data.tar", [(name, encoded(i)) for i, name in enumerate(names)])
    folder = look(tmp_path / "set")
    for split, name in {"train": "train", "validation": "val", "test": "test"}.items():
        assert [image.path.parts[-3] for image in folder.splits[split]] == [name] * 8
    names = [f"{split}/{i}.png" for split in ("train", "test") for i in range(4)]
    pack(tmp_path / "flat" / "data.tar", [(name, encoded(i)) for i, name in enumerate(names)])
    with pytest.raises(UserError, match=r"data.tar/test, .*data.tar/train: expected a folder for each class there"):
        look(tmp_path / "flat")


def test_folders_without_images_beside_tar_files_do_no_harm(tmp_path):
    shards(tmp_path / "set")
    (tmp_path / "set" / "empty").mkdir()
    write(tmp_path / "set", "", {"logs/x.txt": "a log"})
    assert len(look(tmp_path / "set").splits["train"]) == 12


def test_tar_files_beside_what_was_unpacked_from_them_are_left_out(tmp_path):
    write(tmp_path, "train/{a,b}/{1,2,3}.png test/{a,b}/4.png")
    pack(tmp_path / "train.tar", [("a/1.png", encoded(9))])
    folder = look(tmp_path)
    assert len(folder.splits["train"]) == 6
    assert "left out: 1 tar file beside folders of images (train.tar)" in "\n".join(folder.lines())


def test_a_tar_file_that_seems_to_end_early_is_not_taken_for_whole(tmp_path, caplog):
    """Python's tarfile takes a damaged header for the end; GNU tar reports it."""
    pack(tmp_path / "one.tar", [(f"{label}/{i}.png", encoded(i)) for label in "ab" for i in range(6)])
    whole = (tmp_path / "one.tar").read_bytes()
    (tmp_path / "one.tar").unlink()
    with tarfile.open(fileobj=io.BytesIO(whole)) as file:
        middle = file.getmembers()[6].offset
    for name, content in {
        "header": whole[:middle] + b"?" * 10 + whole[middle + 10 :],
        "cut": whole[: middle + 100],
        "two": whole + whole,
    }.items():
        write(tmp_path, "", {f"{name}/all.tar": content})
        with pytest.raises(UserError, match=r"cannot read .*all.tar: it is damaged or compressed \("):
            look(tmp_path / name)
    write(tmp_path, "", {"between/all.tar": whole[:middle]})
    assert sum(map(len, look(tmp_path / "between").splits.values())) == 6
    assert "all.tar may be cut off: it has no end mark after the 6 files in it" in caplog.text


def test_a_tar_file_is_read_again_if_another_of_the_same_size_and_time_replaces_it(tmp_path):
    file = tmp_path / "set" / "all.tar"
    pack(file, [(f"{label}/{label}{i}.png", encoded(i)) for label in "ab" for i in range(6)])
    before = file.stat()
    assert set(labels(tmp_path / "set").values()) == {"a", "b"}
    pack(tmp_path / "new.tar", [(f"{label}/{label}{i}.png", encoded(i)) for label in "cd" for i in range(6)])
    assert (tmp_path / "new.tar").stat().st_size == before.st_size
    os.utime(tmp_path / "new.tar", ns=(before.st_atime_ns, before.st_mtime_ns))
    (tmp_path / "new.tar").replace(file)
    assert set(labels(tmp_path / "set").values()) == {"c", "d"}
