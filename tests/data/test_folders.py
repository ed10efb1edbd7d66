"""Folders of photographs as people have them: what is said of them, and which images are used for what."""

import json
import os
import re
import unicodedata
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from image_folders import TEN, block, encoded, load, look, names, used, write
from mixer_jax import data
from mixer_jax.claim import claim, require_usable
from mixer_jax.data.images import Fit
from mixer_jax.data.sources import image_folder
from mixer_jax.errors import UserError
from mixer_jax.run_directory import RunDirectory
from support import make_config, shared


class Case(NamedTuple):
    """A folder, what is said of it, and which images are in each split and class, or how many, or the error."""

    images: str
    says: tuple = ()
    uses: dict = {}  # noqa: RUF012
    error: str = ""
    other: dict = {}  # noqa: RUF012
    fields: dict = {}  # noqa: RUF012


SPLITS = {"train cat": "train/cat/{a,b}.png", "train dog": "train/dog/{a,b}.png", "test cat": "test/cat/c.png"}


DRAWN = {"train cat": 8, "test cat": 2, "train dog": 8, "test dog": 2}


NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


NOTHING = "left out: nothing"


TABLE = "\n".join(["file,class", *(f"{letter}.png,{'cat' if letter < 'f' else 'dog'}" for letter in "abcdefghij")])


FIVES = {"train cat": 4, "test cat": 1, "train dog": 4, "test dog": 1}


CASES = {
    "train and test": Case(
        "train/{cat,dog}/{a,b}.png test/{cat,dog}/c.png",
        (
            "the folders train, test, each with a folder for each class",
            "2 classes: train 4 (cat 2, dog 2); test 2 (cat 1",
            "validation 10% of train",
            NOTHING,
        ),
        SPLITS | {"test dog": "test/dog/c.png"},
    ),
    "train and val": Case(
        "train/{cat,dog}/{a,b}.png val/{cat,dog}/c.png",
        (
            "the folders train, val,",
            "there are no test images, so the validation images are used for testing",
            "test 2 (cat 1, dog",
        ),
        {"train cat": 2, "train dog": 2, "test cat": "val/cat/c.png", "test dog": "val/dog/c.png"},
    ),
    "train, valid and test": Case(
        "train/{cat,dog}/{a,b}.png valid/{cat,dog}/c.png test/{cat,dog}/d.png",
        ("the folders train, valid, test,", "validation 2 (cat 1, dog 1); test 2"),
        {
            "train cat": 2,
            "train dog": 2,
            "validation cat": "valid/cat/c.png",
            "validation dog": "valid/dog/c.png",
            "test cat": "test/cat/d.png",
            "test dog": "test/dog/d.png",
        },
    ),
    "in any case": Case(
        "Train/{cat,dog}/{a,b}.png VAL/{cat,dog}/c.png Test/{cat,dog}/d.png",
        ("the folders Train, VAL, Test,", NOTHING),
        {"train cat": 2, "train dog": 2, "validation cat": 1, "validation dog": 1, "test cat": 1, "test dog": 1},
    ),
    "training, dev and testing": Case(
        "training/{cat,dog}/{a,b}.png dev/{cat,dog}/c.png testing/{cat,dog}/d.png",
        ("the folders training, dev, testing,",),
        {"train cat": 2, "train dog": 2, "validation cat": 1, "validation dog": 1, "test cat": 1, "test dog": 1},
    ),
    "training and validation": Case(
        "training/{cat,dog}/{a,b}.png validation/{cat,dog}/c.png",
        ("the folders training, validation,",),
        {"train cat": 2, "train dog": 2, "test cat": 1, "test dog": 1},
    ),
    "Kaggle's seg_train in seg_train": Case(
        "seg_train/seg_train/{cat,dog}/{a,b}.jpg seg_test/seg_test/{cat,dog}/c.jpg seg_pred/seg_pred/{1,2}.jpg",
        ("the folders seg_train, seg_test,", "2 outside the folders of the splits (seg_pred/seg_pred/1.jpg, "),
        {"train cat": "seg_train/seg_train/cat/{a,b}.jpg", "train dog": 2, "test cat": 1, "test dog": 1},
    ),
    "training_set and test_set": Case(
        "training_set/{cat,dog}/{a,b}.jpg test_set/{cat,dog}/c.jpg",
        ("the folders training_set, test_set,",),
        {"train cat": 2, "train dog": 2, "test cat": 1, "test dog": 1},
    ),
    "TrainImages and TestImages": Case(
        "TrainImages/{cat,dog}/{a,b}.jpg TestImages/{cat,dog}/c.jpg",
        (),
        {"train cat": 2, "train dog": 2, "test cat": 1, "test dog": 1},
    ),
    "classes that are called like splits": Case(
        f"bus/{TEN} train/{TEN} test_tube/{TEN}",
        ("a folder for each class;", "3 classes"),
        {"train bus": 8, "test bus": 2, "train train": 8, "test train": 2, "train test_tube": 8, "test test_tube": 2},
    ),
    "splits without classes": Case(
        "train/{a,b}.jpg test/{c,d}.jpg",
        error="/test, .*/train: expected a folder for each class there, or a table labels.csv, or names of files",
    ),
    "splits without classes, in part": Case(
        f"train/cat/{TEN} train/dog/{TEN} test/{{1,2,3}}.png",
        (
            "the folder train, with a folder for each class",
            "3 in no class's folder (test/1.png, test/2.png, ",
        ),
        DRAWN,
    ),
    "classes alone": Case(
        f"cat/{TEN} dog/{TEN}",
        (
            "a folder for each class; 20% of each class is drawn for testing, the same in every run",
            "train 16 (cat 8, dog 8)",
            "test 4 (cat 2, dog 2)",
            NOTHING,
        ),
        DRAWN,
    ),
    "images in images": Case(f"images/cat/{TEN} images/dog/{TEN}", ("a folder for each class;", NOTHING), DRAWN),
    "a folder in a folder in a folder": Case(
        f"data/images/cat/{TEN} data/images/dog/{TEN}",
        ("images: a folder for each class;", "1 .md file (data/README.md)"),
        DRAWN,
        other={"data/README.md": "x"},
    ),
    "splits in a folder": Case(
        "archive/train/{cat,dog}/{a,b}.png archive/test/{cat,dog}/c.png",
        ("archive: the folders train, test,",),
        {"train cat": 2, "train dog": 2, "test cat": 1, "test dog": 1},
    ),
    "Kaggle's copy of all beside it": Case(
        "train/{cat,dog}/{a,b}.png test/{cat,dog}/c.png copy/train/{cat,dog}/{a,b}.png",
        ("4 outside the folders of the splits (copy/train/cat/a.png, ",),
        {"train cat": "train/cat/{a,b}.png", "train dog": 2, "test cat": 1, "test dog": 1},
    ),
    "train alone": Case(
        f"train/cat/{TEN} train/dog/{TEN}", ("the folder train, with a folder for each class; 20% of each",), DRAWN
    ),
    "test alone": Case("test/{cat,dog}/{a,b}.png", ("the folder test,",), {"test cat": 2, "test dog": 2}),
    "splits in classes": Case(
        "{cat,dog}/{train,test}/{a,b}.png",
        ("a folder for each class, with a folder for each split inside", NOTHING),
        {"train cat": "cat/train/{a,b}.png", "train dog": 2, "test cat": "cat/test/{a,b}.png", "test dog": 2},
    ),
    "a name in the config": Case(
        "train/{cat,dog}/{a,b}.png test/{cat,dog}/c.png hold/{cat,dog}/{d,e}.png",
        ("the folders train, hold,", "2 outside the folders of the splits (test/cat/c.png, test/dog/c.png)"),
        {"train cat": 2, "train dog": 2, "test cat": "hold/cat/{d,e}.png", "test dog": 2},
        fields={"test_split": "hold"},
    ),
    "a path in the config": Case(
        "a/train/{cat,dog}/{a,b}.png b/test/{cat,dog}/c.png",
        ("the folders a/train, b/test,", NOTHING),
        {"train cat": 2, "train dog": 2, "test cat": 1, "test dog": 1},
        fields={"train_split": "a/train", "test_split": "b/test"},
    ),
    "val is for testing": Case(
        "train/{cat,dog}/{a,b}.png val/{cat,dog}/c.png",
        ("the folders train, val,", "validation 10% of train"),
        {"train cat": 2, "train dog": 2, "test cat": 1, "test dog": 1},
        fields={"test_split": "val"},
    ),
    "val is for choosing the epoch": Case(
        f"train/cat/{TEN} train/dog/{TEN} val/{{cat,dog}}/k.png",
        ("20% of each class is drawn for testing",),
        DRAWN | {"validation cat": 1, "validation dog": 1},
        fields={"val_split": "val"},
    ),
    "the epoch is chosen on the test images": Case(
        "train/{cat,dog}/{a,b}.png test/{cat,dog}/c.png val/{cat,dog}/d.png",
        ("2 outside the folders of the splits (val/cat/d.png, val/dog/d.png)",),
        {"train cat": 2, "train dog": 2, "test cat": 1, "test dog": 1},
        fields={"val_split": "test"},
    ),
    "training images for testing": Case(
        "train/{cat,dog}/{a,b}.png test/{cat,dog}/c.png",
        ("2 outside the folders of the splits (test/",),
        {"train cat": 2, "train dog": 2, "test cat": "train/cat/{a,b}.png", "test dog": 2},
        fields={"test_split": "train"},
    ),
    "the config names what is not there": Case(
        f"cat/{TEN} dog/{TEN}",
        error="no images in .*/trian, which config.dataset.train_split names",
        fields={"train_split": "trian"},
    ),
    "Train and training": Case(
        "Train/{cat,dog}/a.png training/{cat,dog}/a.png",
        error="/Train and .*/training could both be the train images: rename one",
    ),
    "images beside the classes": Case(
        f"cat/{TEN} dog/{TEN} {{x,y}}.png", ("left out: 2 in no class's folder (x.png, y.png)",), DRAWN
    ),
    "images beside the splits": Case(
        "train/{cat,dog}/{a,b}.png test/{cat,dog}/c.png x.png train/y.png",
        ("1 in no class's folder (train/y.png); 1 outside the folders of the splits (x.png)",),
        {"train cat": 2, "train dog": 2, "test cat": 1, "test dog": 1},
    ),
    "folders in a class": Case(
        "train/cat/{a,b}.png train/cat/big/{c,d}.png train/cat/big/old/e.png train/dog/a.png test/{cat,dog}/c.png",
        (NOTHING,),
        {
            "train cat": "train/cat/{a,b}.png train/cat/big/{c,d}.png train/cat/big/old/e.png",
            "train dog": 1,
            "test cat": 1,
            "test dog": 1,
        },
    ),
    "what systems leave": Case(
        f"cat/{TEN} dog/{TEN} cat/.hidden.png cat/._a.png __MACOSX/cat/a.png .ipynb_checkpoints/a.png .git/x/a.png",
        (NOTHING,),
        DRAWN,
        other={"cat/Thumbs.db": "x", "dog/desktop.ini": "x", ".DS_Store": "x", "dog/THUMBS.DB": "x"},
    ),
    "what telephones leave": Case(
        f"cat/{TEN} dog/{TEN}",
        (
            "2 .heic files, to be converted to JPEG or PNG (cat/1.HEIC, dog/2.heic)",
            "1 .mov file, to be split into frames (",
            "1 .dng file, to be developed to JPEG (cat/1.dng)",
            "1 .zip file, to be unpacked (all.zip)",
            "1 .mp4 file, to be split into frames (x.mp4)",
            "1 .icloud file, to be downloaded from iCloud (cat/.3.jpg.icloud)",
        ),
        DRAWN,
        other=dict.fromkeys(
            ("cat/1.HEIC", "dog/2.heic", "cat/1.MOV", "cat/1.dng", "all.zip", "x.mp4", "cat/.3.jpg.icloud"), "x"
        ),
    ),
    "texts beside": Case(
        f"cat/{TEN} dog/{TEN}",
        ("left out: 1 file without a suffix (LICENSE); 2 .txt files (README.txt, cat/notes.txt)",),
        DRAWN,
        other={"README.txt": "x", "cat/notes.txt": "x", "LICENSE": "x"},
    ),
    "an empty class": Case(
        f"cat/{TEN} dog/{TEN}",
        ("left out: 2 folders without an image (bird, fox); 1 .heic file,",),
        DRAWN,
        other={"bird": None, "fox/a.heic": "x"},
    ),
    "one class": Case(f"cat/{TEN}", error=r"no classes except cat in .*; expected .*/CLASS/\*.jpg, or"),
    "one class and photographs that are not read": Case(
        f"cat/{TEN}",
        error=r"no classes except cat in .* \(1 .heic file, to be .*; 1 folder without an image \(dog\)\)",
        other={"dog/a.heic": "x"},
    ),
    "images without classes": Case(
        "{a,b,c,d}.png", error=r"no images in .* \(4 in no class's folder \(a.png, b.png, c.pn"
    ),
    "only an archive": Case(
        "", error=r"no images in .* \(1 .zip file, to be unpacked \(a.zip\)\); exp", other={"a.zip": ""}
    ),
    "nothing": Case(
        "", error=r"no images in [^(]*; expected .*/CLASS/\*.jpg, or .*/train/CLASS/\*.jpg and .*labels.csv"
    ),
    "a class in test alone": Case(
        "train/{cat,dog}/{a,b}.png test/{cat,fox,owl}/c.png",
        error="fox, owl have no training image, only others: move some to the training images, or leave the class out",
    ),
    "a class in train alone": Case(
        "train/{cat,dog}/{a,b}.png test/cat/c.png", ("train 4 (cat 2, dog 2); test 1 (cat 1, dog 0)",), SPLITS
    ),
    "numbers": Case(
        "train/{2,10,9,007}/a.png test/{2,10,9,007}/b.png",
        ("4 classes: train 4 (2 1, 007 1, 9 1 and 1 more)",),
        {f"{split} {n}": 1 for split in ("train", "test") for n in ("2", "10", "9", "007")},
    ),
    "names in three scripts": Case(
        "train/{猫,कुत्ता,طائر}/{a,b}.png test/{猫,कुत्ता,طائر}/c.png",
        ("3 classes: train 6 (طائر 2, कुत्ता 2, 猫 2)",),
        {
            "train 猫": "train/猫/{a,b}.png",
            "train कुत्ता": 2,
            "train طائر": 2,
            "test 猫": 1,
            "test कुत्ता": 1,
            "test طائر": 1,
        },
    ),
    "one name in two forms of Unicode": Case(
        f"train/{NFC}/a.png train/{NFD}/b.png train/tea/c.png test/{NFD}/d.png test/tea/e.png",
        ("2 classes: train 3 (café 2, tea 1)",),
        {f"train {NFC}": f"train/{NFC}/a.png train/{NFD}/b.png", "train tea": 1, f"test {NFC}": 1, "test tea": 1},
    ),
    "a name that cannot be printed": Case(
        "train/{cat,d\x07g}/a.png test/cat/b.png", error=r"class d\\x07g cannot be printed"
    ),
    "a table": Case(TEN, ("files and classes of labels.csv; 20%", NOTHING), FIVES, other={"labels.csv": TABLE}),
    "a table of images in folders": Case(
        f"{TEN} x/{TEN}",
        ("10 not in labels.csv (x/a.png, x/b.png, x/c.png and 7 more)",),
        FIVES,
        other={"labels.csv": TABLE},
    ),
    "other names of columns": Case(
        TEN, (), FIVES, other={"Labels.CSV": TABLE.replace("file,class", ' Image Path ,"Label"')}
    ),
    "ids and breeds": Case(
        "x/" + TEN, (), FIVES, other={"labels.csv": TABLE.replace("file,class", "id,breed").replace(".png", "")}
    ),
    "semicolons": Case(TEN, (), FIVES, other={"labels.csv": TABLE.replace(",", ";")}),
    "a byte order mark": Case(TEN, (), FIVES, other={"labels.csv": b"\xef\xbb\xbf" + TABLE.encode()}),
    "tabs, and another column": Case(
        TEN,
        ("files and classes of metadata.tsv",),
        FIVES,
        other={"metadata.tsv": re.sub("^", "7\t", TABLE.replace(",", "\t"), flags=re.MULTILINE)},
    ),
    "a split column": Case(
        "{a,b,c,d,e,f}.png",
        ("1 in no split (e.png)",),
        {"train 1": "a.png", "train 2": "b.png", "test 1": "c.png", "validation 2": "d.png", "train 3": "f.png"},
        other={
            "labels.csv": "file,label,split\na.png,1,Train\nb.png,2,TRAIN\nc.png,1,test\nd.png,2,val\ne.png,3,\n"
            "f.png,3,training\n"
        },
    ),
    "a table of folders of splits": Case(
        "train/{a,b}.png test/{c,d}.png",
        ("files and classes of labels.csv", NOTHING),
        {"train 1": "train/a.png", "train 2": "train/b.png", "test 1": "test/c.png", "test 2": "test/d.png"},
        other={"labels.csv": "file,label\na.png,1\nb.png,2\nc.png,1\n./test/d.png,2\n"},
    ),
    "paths of another machine": Case(
        "train/{a,b}.png test/{c,d}.png",
        (NOTHING,),
        {"train 1": "train/a.png", "train 2": "train/b.png", "test 1": "test/c.png", "test 2": "test/d.png"},
        other={"labels.csv": "path,label\n/kaggle/input/train/a.png,1\nC:\\me\\train\\b.png,2\ntest/c.png,1\nd,2\n"},
    ),
    "a table in a folder": Case("images/" + TEN, (NOTHING,), FIVES, other={"images/labels.csv": TABLE}),
    "a table in the folder of each split": Case(
        "train/{a,b}.png train/x/c.png test/{a,b}.png",
        ("the folders train, test, each with a table", "1 named in metadata.csv but missing (test/gone.png)"),
        {
            "train 1": "train/a.png train/x/c.png",
            "train 2": "train/b.png",
            "test 1": "test/a.png",
            "test 2": "test/b.png",
        },
        other={
            "train/metadata.csv": "file_name,label\na.png,1\nb.png,2\nx/c.png,1\n",
            "test/metadata.csv": "file_name,label\na.png,1\nb.png,2\ngone.png,2\n",
        },
    ),
    "rows without files, and files without rows": Case(
        TEN + " k.png",
        (
            "2 named in labels.csv but missing (gone.png, x/gone.png)",
            "1 without a class in labels.csv (k.png)",
            "1 with different classes or splits in labels.csv (a.png)",
        ),
        FIVES | {"train cat": 3},
        other={"labels.csv": TABLE + "\ngone.png,cat\nx/gone.png,dog\nb.png,cat\na.png,dog\nk.png,\n"},
    ),
    "names that several files have": Case(
        "train/{1,2}.png test/{1,2}.png",
        error="labels.csv: 1.png can mean test/1.png or train/1.png: write paths with their folders",
        other={"labels.csv": "file,label\n1.png,a\n2.png,b\n"},
    ),
    "a table without a column for the class": Case(
        "{a,b}.png",
        error="labels.csv has no column for the class: expected one of class, .*; it has file, colour",
        other={"labels.csv": "file,colour\na.png,red\nb.png,blue\n"},
    ),
    "a table without a column for the file": Case(
        "{a,b}.png",
        error="labels.csv has no column for the file: .*; it has class$",
        other={"labels.csv": "class\nred\n"},
    ),
    "an empty table": Case(
        "{a,b}.png", error="labels.csv has no column for the file: .*it has none", other={"labels.csv": ""}
    ),
    "a table without rows": Case("{a,b}.png", error="labels.csv has no rows", other={"labels.csv": "file,class\n"}),
    "a table that is not UTF-8": Case(
        "{a,b}.png",
        error="cannot read .*labels.csv: it is not UTF-8; save it as",
        other={"labels.csv": b"file,class\n\xe9,1"},
    ),
    "a table of something else": Case(
        f"cat/{TEN} dog/{TEN}",
        ("a folder for each class;", "1 .csv file (metadata.csv)"),
        DRAWN,
        other={"metadata.csv": "name,size\ncat,3\n"},
    ),
    "a row that is too long, and one that is too short": Case(
        TEN, (), FIVES | {"train dog": 3}, other={"labels.csv": TABLE.replace("j.png,dog", "a.png,cat,x,y\nj.png")}
    ),
    "a pattern": Case(
        "{cat,dog}_{1,2,3,4,5}.png other.png",
        ("classes by the pattern ([a-z]+)_; 20%", "1 not matched by class_pattern (other.png)"),
        FIVES,
        fields={"class_pattern": "([a-z]+)_"},
    ),
    "a pattern and folders of splits": Case(
        "train/{cat,dog}.{1,2}.png test1/{8,9}.png test/{cat,dog}.7.png",
        ("2 not matched by class_pattern (test1/8.png, test1/9.png)",),
        {"train cat": 2, "train dog": 2, "test cat": 1, "test dog": 1},
        fields={"class_pattern": r"^([a-z]+)\."},
    ),
    "a pattern of paths": Case(
        "a/{cat,dog}/photos/{1,2,3,4,5}.png", (), FIVES, fields={"class_pattern": "a/(.*)/photos"}
    ),
    "a pattern with a name for the group": Case(
        "{1,2,3,4,5}-{cat,dog}.png", (), FIVES, fields={"class_pattern": r"(\d)-(?P<class>\w+)"}
    ),
    "a pattern of alternatives": Case("{1,2,3,4,5}{cat,dog}.png", (), FIVES, fields={"class_pattern": "(cat)|(dog)"}),
    "a pattern without a group": Case(
        "{a,b}.png",
        error=r"class_pattern=\[ab\]: put the part that is the class in parenth",
        fields={"class_pattern": "[ab]"},
    ),
    "an invalid pattern": Case(
        "{a,b}.png", error=r"class_pattern=\(a: missing \), unterminated", fields={"class_pattern": "(a"}
    ),
    "a pattern of nothing": Case(
        "{a,b}.png",
        error=r"no images in .* \(2 not matched by class_pattern \(a.png, b.png\)\)",
        fields={"class_pattern": "(x)"},
    ),
    "other formats": Case(
        "train/{cat,dog}/a.{png,jpg,jpeg,gif,bmp,webp,tif,tiff,JPG,jpe} test/{cat,dog}/b.png",
        (NOTHING,),
        {"train cat": 10, "train dog": 10, "test cat": 1, "test dog": 1},
    ),
    "all images for testing": Case(
        f"cat/{TEN} dog/{TEN}",
        error="test_fraction=1.0 of 20 images leaves no test or no training image: give another fract",
        fields={"test_fraction": 1.0},
    ),
    "no image for testing": Case(
        f"cat/{TEN} dog/{TEN}", error="test_fraction=0.0 of 20 images leaves", fields={"test_fraction": 0.0}
    ),
    "a negative number of images": Case(f"cat/{TEN} dog/{TEN}", error="leaves no", fields={"test_fraction": -0.1}),
    "too few images": Case(
        "{cat,dog}/a.png", error="test_fraction=0.2 of 2 images leaves no test or no training image"
    ),
    "half of the images": Case(
        f"cat/{TEN} dog/{TEN}", ("50% of each class",), dict.fromkeys(DRAWN, 5), fields={"test_fraction": 0.5}
    ),
}


def test_the_table_is_long_enough():
    assert len(CASES) >= 40


@pytest.mark.parametrize("name", CASES)
def test_a_folder(name, tmp_path):
    case = CASES[name]
    write(tmp_path, case.images, case.other)
    if case.error:
        with pytest.raises(UserError, match=case.error) as caught:
            look(tmp_path, **case.fields)
        assert "\n" not in str(caught.value)
        return
    folder = look(tmp_path, **case.fields)
    said = "\n".join(folder.lines())
    for words in case.says:
        assert words in said
    found = used(folder, tmp_path)
    for part, expected in case.uses.items():
        assert len(found[part]) == expected if isinstance(expected, int) else found[part] == set(names(expected))
    assert found.keys() == case.uses.keys()
    for split, images in folder.splits.items():
        source = folder.source(split, Fit((4, 4)))
        assert [folder.label_names[label] for label in source.labels()] == [image.label for image in images]


def test_a_table_in_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    write(tmp_path, TEN)
    table = {"id": [f"{letter}.png" for letter in "abcdefghij"] + [None], "target": [1] * 5 + [2] * 5 + [None]}
    parquet.write_table(pyarrow.table(table), tmp_path / "labels.parquet")
    folder = look(tmp_path)
    assert folder.label_names == ("1", "2")
    assert {part: len(files) for part, files in used(folder, tmp_path).items()} == {
        "train 1": 4, "test 1": 1, "train 2": 4, "test 2": 1,
    }  # fmt: skip
    (tmp_path / "labels.parquet").write_bytes(b"PAR1, or not")
    with pytest.raises(UserError, match=r"cannot read .*labels.parquet: ") as caught:
        look(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_split_that_is_wanted_must_be_there(tmp_path):
    write(tmp_path, "test/{cat,dog}/c.png")
    assert len(data.open_split(block(tmp_path).dataset, "test")) == 2
    with pytest.raises(UserError, match="no train images in "):
        load(tmp_path)
    for field in ("train_split", "val_split"):
        with pytest.raises(
            UserError, match=f"no (train )?images in .*, which config.dataset.{field} names|no train images"
        ):
            load(tmp_path, **{field: "gone"})
    write(tmp_path, "train/{cat,dog}/{a,b,d}.png")
    with pytest.raises(UserError, match="no images in .*/gone, which config.dataset.val_split names"):
        load(tmp_path, val_split="gone")
    with pytest.raises(UserError, match="no images in .*/gone, which config.dataset.test_split names"):
        load(tmp_path, test_split="gone")


def test_what_is_drawn_is_always_the_same(tmp_path):
    write(tmp_path, f"cat/{{1,2,3,4}}{TEN} dog/{{1,2}}{TEN} owl/{{1,2,3}}{TEN}")
    first = used(look(tmp_path), tmp_path)
    assert {part: len(files) for part, files in first.items()} == {
        "train cat": 32, "test cat": 8, "train dog": 16, "test dog": 4, "train owl": 24, "test owl": 6,
    }  # fmt: skip
    assert used(look(tmp_path), tmp_path) == first
    for seed in (0, 7):
        config = block(tmp_path, memory_budget_gib=0.0)
        config.seed = seed
        dataset = data.load(config.dataset)
        assert {path.relative_to(tmp_path).as_posix() for path in dataset.test.source.paths} == set.union(
            *(files for part, files in first.items() if part.startswith("test"))
        )
        split = data.open_split(config.dataset, "test")
        assert split.source.paths == dataset.test.source.paths
        assert split.source.label_names == dataset.label_names
    drawn = set.union(*(files for part, files in first.items() if part.startswith("test")))
    moved = tmp_path.rename(tmp_path.parent / "elsewhere")
    write(moved, "", {f"cat/new{i}.png": encoded(1000 + i) for i in range(10)})
    again = set.union(*(files for part, files in used(look(moved), moved).items() if part.startswith("test")))
    assert len(drawn - again) <= 2  # others move at the border alone


def test_in_memory_and_streamed_have_the_same_images(tmp_path):
    write(tmp_path, f"cat/{TEN} dog/{TEN}")
    resident, streamed = load(tmp_path), load(tmp_path, memory_budget_gib=0.0)
    for name in ("train", "val", "test"):
        split = getattr(streamed, name)
        images, labels = split.read(range(len(split)))
        assert np.array_equal(images, getattr(resident, name).images)
        assert np.array_equal(labels, getattr(resident, name).labels)


@pytest.mark.parametrize("budget", [None, 0.0])
def test_a_label_that_is_corrected_makes_other_data(budget, tmp_path):
    """Neither the cache of decoded images nor a fingerprint may overlook it."""
    write(tmp_path, TEN, {"labels.csv": TABLE})
    first = load(tmp_path, memory_budget_gib=budget)
    assert load(tmp_path, memory_budget_gib=budget).fingerprint == first.fingerprint
    (tmp_path / "labels.csv").write_text(TABLE.replace("a.png,cat", "a.png,dog"))
    second = load(tmp_path, memory_budget_gib=budget)
    assert second.fingerprint != first.fingerprint
    labels = np.concatenate([s.read(range(len(s)))[1] for s in (second.train, second.val, second.test)])
    assert labels.tolist().count(0) == 4


def test_links(tmp_path):
    write(tmp_path / "store", f"siamese/{TEN} dog/{TEN}")
    root = tmp_path / "images"
    root.mkdir()
    (root / "cat").symlink_to(tmp_path / "store" / "siamese")
    (root / "dog").symlink_to(tmp_path / "store" / "dog")
    (root / "all").symlink_to(root)
    (root / "self").symlink_to("self")
    (root / "gone").symlink_to("nowhere")
    (tmp_path / "store" / "dog" / "up").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "dog" / "again").symlink_to(tmp_path / "store" / "dog")
    folder = look(root)
    assert {part: len(files) for part, files in used(folder, root).items()} == DRAWN
    assert folder.cautions() == ("left out: 2 broken links (gone, self)",)


def test_names_that_are_not_unicode(tmp_path, capsys):
    tmp_path /= os.fsdecode(b"caf\xe9")
    write(tmp_path, f"cat/{TEN} dog/{TEN}")
    odd = os.fsdecode(b"caf\xe9.png")
    (tmp_path / "cat" / odd).write_bytes(encoded(99))
    (tmp_path / os.fsdecode(b"\xff.txt")).write_text("")
    assert len(load(tmp_path, memory_budget_gib=0.0).fingerprint) == 16
    assert len(load(tmp_path).fingerprint) == 16
    assert r"1 .txt file (\udcff.txt)" in capsys.readouterr().out
    (tmp_path / "cat" / odd).write_text("")
    with pytest.raises(UserError, match=r"caf\\udce9.png: it is empty"):
        load(tmp_path)


@pytest.mark.parametrize("layout", ["auto", "splits"])
def test_a_split_may_lie_elsewhere(layout, tmp_path):
    write(tmp_path, "set/train/{cat,dog}/{a,b}.png elsewhere/{cat,dog}/c.png")
    fields = {"layout": layout, "train_split": "train", "test_split": str(tmp_path / "elsewhere"), "val_fraction": 0.3}
    dataset = load(tmp_path / "set", **fields)
    assert dataset.train.name(0) == "train/cat/b.png"
    assert [dataset.test.name(i) for i in (0, 1)] == ["../elsewhere/cat/c.png", "../elsewhere/dog/c.png"]


@pytest.mark.parametrize(("field", "word", "meant"), [("on_error", "skpi", "skip"), ("layout", "split", "splits")])
def test_misspelt(field, word, meant, tmp_path):
    write(tmp_path, f"cat/{TEN} dog/{TEN}")
    with pytest.raises(UserError, match=rf"unknown config.dataset.{field} '{word}' \(did you mean '{meant}'"):
        load(tmp_path, **{field: word})


def test_a_run_of_an_older_release_reads_as_it_did(tmp_path):
    images = tmp_path / "images"
    write(images, "train/{cat,dog,10,9}/{a,b,c}.png test/{cat,dog,10,9}/{d,e}.PNG train/cat/deep/x.png train/cat/y.gif")
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    claim(run, block(images), {})
    content = json.loads(run.config_file.read_text())
    for field in ("layout", "class_pattern", "test_fraction", "on_error"):
        del content["config"]["dataset"][field]
    run.config_file.write_text(json.dumps(content))
    config = run.adopted(block(images))
    assert require_usable(run, config) == {}
    for now in (run.config(), config):
        dataset = now.dataset
        assert dataset.layout == "splits"
        old, new = data.load(dataset), load(images)
        assert (len(old.train) + len(old.val), len(new.train) + len(new.val)) == (12, 14)  # not below, and not .gif
        assert old.label_names == new.label_names == ("10", "9", "cat", "dog")
        dataset.memory_budget_gib = 0.0
        test, before = data.load(dataset).test.source, image_folder(str(images), "test")
        assert (test.paths, test.labels().tolist()) == (before.paths, before.labels().tolist())
        for name in ("train", "validation", "test"):
            assert data.open_split(dataset, name).source.label_names == ("10", "9", "cat", "dog")


def test_the_old_reader_and_the_new_one_agree_on_what_both_know(write_folder):
    root = write_folder()
    old, new = (load(root, layout=layout) for layout in ("splits", "auto"))
    assert old.fingerprint == new.fingerprint
    assert (old.label_names, old.mean, old.std) == (new.label_names, new.mean, new.std)
    streamed = [load(root, layout=layout, memory_budget_gib=0.0).fingerprint for layout in ("splits", "auto")]
    assert streamed[0] == streamed[1]


def test_what_is_found_is_said_once_at_the_start(tmp_path, capsys):
    write(tmp_path, f"cat/{TEN} dog/{TEN}", {"a.heic": "x"})
    dataset = load(tmp_path)
    assert capsys.readouterr().out.splitlines() == [
        f"Images in {tmp_path}: a folder for each class; 20% of each class is drawn for testing, the same in every run",
        "  2 classes: train 16 (cat 8, dog 8); test 4 (cat 2, dog 2); validation 10% of train",
        "  5x6 pixels, unchanged",
        "  left out: 1 .heic file, to be converted to JPEG or PNG (a.heic)",
    ]
    assert dataset.cautions == (
        "2 classes have fewer than 10 training images: cat 7, dog 7",
        "left out: 1 .heic file, to be converted to JPEG or PNG (a.heic)",
    )
    data.open_split(block(tmp_path).dataset, "test")
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_mnist_as_png_files_has_the_pixels_of_tfds(tmp_path):
    where = str(shared("data/tfds"))
    tfds = data.load(make_config(dataset__name="mnist", dataset__data_dir=where, dataset__val_split="test").dataset)
    for split, images in {"train": tfds.train, "test": tfds.test}.items():
        for label in range(10):
            (tmp_path / split / str(label)).mkdir(parents=True)
        for i, (image, label) in enumerate(zip(images.images, images.labels, strict=True)):
            Image.fromarray(image[..., 0]).save(tmp_path / split / str(label) / f"{i:05d}.png", compress_level=1)
    folder = load(tmp_path, image_size=(-1,), val_split="test")
    assert folder.label_names == tuple("0123456789")
    for ours, theirs in ((folder.train, tfds.train), (folder.test, tfds.test)):
        order = np.argsort(theirs.labels, kind="stable")  # the folder has class after class, each by the names of files
        assert np.array_equal(ours.labels, theirs.labels[order])
        assert np.array_equal(ours.images, theirs.images[order].repeat(3, -1))
    assert folder.mean == tfds.mean * 3
    assert folder.std == tfds.std * 3
