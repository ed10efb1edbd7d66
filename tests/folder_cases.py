"""Folders of images as people have them: what is said of each, and which images are used for what."""

import re
import unicodedata
from typing import NamedTuple

from image_folders import TEN


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
            "3 in no class folder (test/1.png, test/2.png, ",
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
        f"cat/{TEN} dog/{TEN} {{x,y}}.png", ("left out: 2 in no class folder (x.png, y.png)",), DRAWN
    ),
    "images beside the splits": Case(
        "train/{cat,dog}/{a,b}.png test/{cat,dog}/c.png x.png train/y.png",
        ("1 in no class folder (train/y.png); 1 outside the folders of the splits (x.png)",),
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
        "{a,b,c,d}.png", error=r"no images in .* \(4 in no class folder \(a.png, b.png, c.pn"
    ),
    "only an archive": Case(
        "", error=r"no images in .* \(1 .zip file, to be unpacked \(a.zip\)\); exp", other={"a.zip": ""}
    ),
    "nothing": Case(
        "", error=r"no images in [^(]*; expected .*/CLASS/\*.jpg, or .*/train/CLASS/\*.jpg and .*labels.csv"
    ),
    "a class in test alone": Case(
        "train/{cat,dog}/{a,b}.png test/{cat,fox,owl}/c.png",
        error="fox, owl have images, but none for training: move some to the training images, or leave the class out",
    ),
    "a class in train alone": Case(
        "train/{cat,dog}/{a,b}.png test/cat/c.png", ("train 4 (cat 2, dog 2); test 1 (cat 1, dog 0)",), SPLITS
    ),
    "a folder for each split in each class": Case(
        "{cat,dog}/train/{a,b}.png {cat,dog}/test/c.png dog/cover.png",
        ("with a folder for each split inside", "left out: 1 in no split (dog/cover.png)"),
        {"train cat": 2, "train dog": 2, "test cat": "cat/test/c.png", "test dog": "dog/test/c.png"},
    ),
    "a class without the folders of the splits": Case(
        f"{{cat,dog}}/train/{{a,b}}.png {{cat,dog}}/test/c.png emu/{TEN}",
        error=r"cat has a folder for each split, but .*emu has none: move its images",
    ),
    "classes with the word of a split": Case(
        f"{{freight train,passenger train}}/{TEN}".replace(" ", "_"),
        ("a folder for each class;",),
        {"train freight_train": 8, "test freight_train": 2, "train passenger_train": 8, "test passenger_train": 2},
    ),
    "folders that a NAS leaves": Case(f"cat/{TEN} dog/{TEN} #recycle/a.png @Recycle/b.png", (NOTHING,), DRAWN),
    "validation images that are the training images": Case(
        "train/{cat,dog}/{a,b}.png",
        error="val_split and train_split are both train: name other images",
        fields={"val_split": "train"},
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
    "a class called train, with a table": Case(
        f"bus/{TEN} train/{TEN}",
        ("files and classes of labels.csv; 20% of each class is drawn", NOTHING),
        {"train bus": 8, "test bus": 2, "train train": 8, "test train": 2},
        other={
            "labels.csv": "file,class\n" + "\n".join(f"{c}/{x}.png,{c}" for c in ("bus", "train") for x in "abcdefghij")
        },
    ),
    "a class called train in folders of the splits, with a table": Case(
        "{train,test}/{1,2}.png",
        ("files and classes of labels.csv", NOTHING),
        {"train bus": 1, "train train": 1, "test bus": 1, "test train": 1},
        other={"labels.csv": "file,class\ntrain/1.png,bus\ntrain/2.png,train\ntest/1.png,bus\ntest/2.png,train\n"},
    ),
    "a class called train, by a pattern": Case(
        f"bus/{TEN} train/{TEN}",
        (NOTHING,),
        {"train bus": 8, "test bus": 2, "train train": 8, "test train": 2},
        fields={"class_pattern": "^([a-z]+)/"},
    ),
    "semicolons in the quoted name of a column": Case(
        TEN, (), FIVES, other={"labels.csv": TABLE.replace("file,class", '"file","class","a; b; c; d"')}
    ),
    "a first line by which Excel names the delimiter": Case(
        TEN, (), FIVES, other={"labels.csv": "sep=|\n" + TABLE.replace(",", "|")}
    ),
    "lines without content, as spreadsheets leave them": Case(
        TEN, (NOTHING,), FIVES, other={"labels.csv": f"{TABLE}\n,\n,\n"}
    ),
    "paths that are not as short as they could be": Case(
        f"x/{TEN}",
        (NOTHING,),
        FIVES,
        other={"labels.csv": re.sub(r"^(?=\w\.)", "./y/../x//", TABLE, flags=re.MULTILINE)},
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
