"""Recognise how the images of a folder are arranged in splits and classes.

These arrangements are recognised, the most specific first:

  names          files whose names carry the class, by the regular expression `config.dataset.class_pattern`
  tar files      each image has its class in a .cls or .json file beside it, as in WebDataset, or is in a folder named
                 after the class; the split is named by a word of the tar file's name, by the folder that holds the tar
                 file, or by a folder inside the tar file
  a table        labels.csv, .tsv or .parquet, which names the file and the class of each image, and perhaps the split
  splits         a folder for each split (train, test, val and similar names, in upper or lower case), which holds a
                 folder for each class, or a table
  classes        a folder for each class, with or without a folder for each split in it

Images in subfolders of a class's folder belong to that class.
"""

import os
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from mixer_jax.data.label_table import Files, Row, read_labels
from mixer_jax.data.listing import Listing, some
from mixer_jax.data.tar_files import DISK, Store, TarFiles
from mixer_jax.errors import UserError, printable

SPLITS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
USUAL = {"train": "train", "validation": "", "test": "test"}  # what the config calls them by default
OTHERWISE = "or a table labels.csv, or names of files that config.dataset.class_pattern matches"


class Image(NamedTuple):
    """An image file, its class and its split; the split is "" until one is drawn."""

    path: Path
    label: str
    split: str = ""


class Arrangement:
    """The images of a folder, with their classes and splits.

    Attributes:
      images: the images.
      layout: one line that says how they are arranged.
      given: the names that the config gives to splits, by split; default names are left out.
      store: what the images are read from.
    """

    def __init__(self, config: ConfigDict, listing: Listing):
        """Find the images.

        Args:
          config: the `dataset` section; see `mixer_jax.config`.
          listing: the listing of the folder. Files that are left out are noted in it, and its `root` is set to the
            subfolder that holds the images.

        Raises:
          UserError: if a folder cannot be read, or no arrangement is recognised.
        """
        self._listing = listing
        self.store: Store = DISK
        self._names, self.given = _names(config)
        self.images, self.layout = self._found(config.class_pattern)

    def missing(self, split: str) -> UserError:
        """Return the error for a split without images."""
        if split not in self.given:
            return self.nothing(f"{split} images")
        field = "val_split" if split == "validation" else f"{split}_split"
        return UserError(f"no images in {self._root / self.given[split]}, which config.dataset.{field} names")

    def nothing(self, what: str) -> UserError:
        """Return the error for a folder that holds no `what`."""
        root, reasons = self._root, self._listing.reasons()
        found = f" ({'; '.join(reasons)})" if reasons else ""
        return UserError(
            f"no {what} in {root}{found}; expected {root}/CLASS/*.jpg, or {root}/train/CLASS/*.jpg and "
            f"{root}/test/CLASS/*.jpg, {OTHERWISE}"
        )

    @property
    def _root(self) -> Path:
        return self._listing.root

    def _found(self, pattern: str) -> tuple[list[Image], str]:
        """Return all images, and how they are arranged."""
        if pattern:
            return self._all_given(list(self._by_name(pattern))), f"classes by the pattern {pattern}"
        if tars := self._tar_files():
            number = f"{len(tars):,} tar file{'s' * (len(tars) > 1)}"
            return self._all_given(list(self._by_tar_file(tars))), f"images in {number}"
        while True:
            if labelled := read_labels(self._root):
                return self._all_given(list(self._by_table(*labelled))), f"files and classes of {labelled[0].name}"
            if folders := self._split_folders():
                return self._by_split(folders)
            inside = self._listing.folders(self._root)
            if len(inside) != 1 or not self._parted(inside[0]) or self._listing.images(self._root):
                break
            [self._listing.root] = inside  # a single folder, such as images/, that holds the others
        if self.given:
            raise self.missing(next(iter(self.given)))
        return self._by_class()

    def _all_given(self, images: list[Image]) -> list[Image]:
        """Return the images; raise `UserError` if the config names a split that has no images."""
        for split in self.given:
            if not any(image.split == split for image in images):
                raise self.missing(split)
        return images

    def _by_name(self, pattern: str) -> Iterator[Image]:
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise UserError(f"config.dataset.class_pattern={pattern}: {error}") from error
        if not expression.groups:
            raise UserError(f"config.dataset.class_pattern={pattern}: put the part that is the class in parentheses")
        named = "class" in expression.groupindex
        labels = dict[Path, str]()
        for path in self._listing.images(self._root, deep=True):
            match = expression.search(path.relative_to(self._root).as_posix() if "/" in pattern else path.name)
            groups = (match.group("class"),) if match and named else match.groups() if match else ()
            if label := next((group.strip() for group in groups if group and group.strip()), ""):
                labels[path] = unicodedata.normalize("NFC", label)
            else:
                self._listing.leave_out(path, "not matched by class_pattern")
        of_classes = self._class_folders(labels)
        for path, label in labels.items():
            yield Image(path, label, self._split_of(path, of_classes))

    def _by_table(self, table: Path, rows: Sequence[Row], whole: str = "") -> Iterator[Image]:
        """Yield the images of a table; `whole` is the split of all of them, or "" if rows or folders name it."""
        self._listing.use(table)
        paths = self._listing.images(table.parent, deep=True)
        files, said = Files(paths, table.parent), dict[Path, set[tuple[str, str]]]()
        for row in rows:
            found = files.find(row.file)
            if len(found) > 1:
                names = " or ".join(self._listing.below(path) for path in found[:2])
                raise UserError(
                    f"{table}: {row.file} can mean {names}: write paths with their folders into the table, or move the "
                    "table to the folder of its images"
                )
            if not found:
                self._listing.leave_out(table.parent / row.file, f"named in {table.name} but missing")
            else:
                said.setdefault(found[0], set()).add((row.label, row.split))
        of_classes = self._class_folders({path: label for path, entries in said.items() for label, _ in entries})
        for path in paths:
            if path not in said:
                self._listing.leave_out(path, f"not in {table.name}")
            elif len(said[path]) > 1:
                self._listing.leave_out(path, f"with different classes or splits in {table.name}")
            else:
                [(label, split)] = said[path]
                if label:
                    yield Image(path, label, whole or self._split_called(split) or self._split_of(path, of_classes))
                else:
                    self._listing.leave_out(path, f"without a class in {table.name}")

    def _tar_files(self) -> dict[Path, str]:
        """Return the tar files in the root and in folders named after splits, and the split of each.

        Tar files next to folders with images are left out.
        """
        folders = self._listing.folders(self._root)
        tars = {tar: self._split_within(tar.stem) for tar in self._listing.tar_files(self._root)}
        for folder in folders:
            if split := self._split_called(folder.name):
                tars |= dict.fromkeys(self._listing.tar_files(folder), split)
        for tar in tars:
            self._listing.use(tar)
        if tars and any(self._listing.images(folder, deep=True) for folder in folders):
            for tar in tars:
                self._listing.leave_out(tar, "tar files beside folders of images")
            return {}
        return tars

    def _by_tar_file(self, tars: Mapping[Path, str]) -> Iterator[Image]:
        self.store = store = TarFiles(list(tars))
        for path in self._listing.images(self._root, deep=True):
            self._listing.leave_out(path, "beside the tar files")
        found = {path: (tar, unicodedata.normalize("NFC", label)) for path, tar, label in store.images()}
        self._require_classes({label for _, label in found.values()}, next(iter(tars)))
        of_classes = self._class_folders({path: label for path, (_, label) in found.items()})
        for path, (tar, label) in found.items():
            if label:
                yield Image(path, label, tars[tar] or self._split_of(path, of_classes))
            else:
                self._listing.leave_out(path, "without a class in the tar file")

    def _by_split(self, folders: Mapping[str, Path]) -> tuple[list[Image], str]:
        images, tables = list[Image](), 0
        for split, folder in folders.items():
            if labelled := read_labels(folder):
                images += self._by_table(*labelled, split)
                tables += 1
            else:
                images += self._of_classes(self._inner(folder), split)
        for path in self._listing.images(self._root, deep=True, without=folders.values()):
            within = self._split_called(path.relative_to(self._root).parts[0])  # a split that has no classes
            self._listing.leave_out(path, "in no class folder" if within else "outside the folders of the splits")
        used = {image.split for image in images}
        names = [printable(os.path.relpath(folder, self._root)) for split, folder in folders.items() if split in used]
        which = f"the folders {', '.join(names)}, each" if len(names) > 1 else f"the folder {''.join(names)},"
        return images, f"{which} with {'a table' if tables == len(folders) else 'a folder for each class'}"

    def _by_class(self) -> tuple[list[Image], str]:
        images = list(self._of_classes(self._root, ""))
        self._require_classes({image.label for image in images}, self._root)
        if len({image.label for image in images}) == 1:
            raise self.nothing(f"classes except {images[0].label}")
        parted = [image._replace(split=self._split_of(image.path)) for image in images]
        splits: dict[str, set[str]] = {}
        for image in parted:
            splits.setdefault(image.label, set()).add(image.split)
        if not (both := [label for label, found in splits.items() if len(found - {""}) > 1]):
            return images, "a folder for each class"
        if whole := [label for label, found in splits.items() if found == {""}]:
            raise UserError(
                f"{self._root / both[0]} has a folder for each split, but {self._root / whole[0]} has none: "
                "move its images into such folders"
            )
        return parted, "a folder for each class, with a folder for each split inside"

    def _require_classes(self, names: Collection[str], folder: Path) -> None:
        """Raise `UserError` if the folders taken for classes are in fact splits, with no class folders inside."""
        splits = [{self._split_called(word) for word in _words(name)} for name in names]
        named = set.union(set(), *splits) - {""}
        if named and all(found - {""} for found in splits) and (len(named) > 1 or not any("" in x for x in splits)):
            raise UserError(
                f"{some([str(folder / name) for name in sorted(names)])}: expected a folder for each class there, "
                f"{OTHERWISE}"
            )

    def _of_classes(self, folder: Path, split: str) -> Iterator[Image]:
        for path in self._listing.images(folder):
            self._listing.leave_out(path, "in no class folder")
        for inside in self._listing.folders(folder):
            images = self._listing.images(inside, deep=True)
            yield from (Image(path, unicodedata.normalize("NFC", inside.name), split) for path in images)
            if not images:
                self._listing.leave_out(inside, "folders without an image")

    def _split_folders(self) -> dict[str, Path]:
        """Return the folders of the splits: those that the config names, or that have one of the usual names."""
        found, inside = {}, self._listing.folders(self._root)
        for split, names in self._names.items():
            if split in self.given and (self._root / self.given[split]).is_dir():
                found[split] = self._root / self.given[split]
                continue
            several = [folder for folder in inside if folder.name.lower() in names and self._parted(folder)]
            if len(several) > 1:
                raise UserError(f"{several[0]} and {several[1]} could both be the {split} images: rename one")
            if several:
                found[split] = several[0]
        return found or self._alike(inside)

    def _alike(self, folders: Sequence[Path]) -> dict[str, Path]:
        """Return the folders named like splits, such as seg_train and test_set, if all have a class in common."""
        named = [(split, folder) for split in SPLITS for folder in folders if self._split_within(folder.name) == split]
        alone = dict(named)
        if not 1 < len(alone) == len(named):
            return {}
        classes = [{inside.name for inside in self._listing.folders(self._inner(folder))} for folder in alone.values()]
        return alone if set.intersection(*classes) else {}

    def _parted(self, folder: Path) -> bool:
        """Return whether a folder holds subfolders, or a table, so that its images may have several classes."""
        return bool(self._listing.folders(folder) or read_labels(folder))

    def _inner(self, folder: Path) -> Path:
        """Return the folder that holds the class folders: this one, or its only subfolder if that holds folders."""
        while len(inside := self._listing.folders(folder)) == 1 and self._listing.folders(inside[0]):
            if self._listing.images(folder) or self._listing.images(inside[0]):
                break
            [folder] = inside
        return folder

    def _split_called(self, name: str) -> str:
        """Return the split that is called `name`; "" if there is none."""
        return next((split for split, names in self._names.items() if name.lower() in names), "")

    def _split_within(self, name: str) -> str:
        """Return the split that a word of `name` stands for; "" if the words stand for none, or for several."""
        splits = {self._split_called(word) for word in _words(name)} - {""}
        return splits.pop() if len(splits) == 1 else ""

    def _split_of(self, path: Path, of_classes: Collection[Path] = ()) -> str:
        """Return the split named by a folder above a file, ignoring folders in `of_classes`; "" if there is none."""
        folders = path.relative_to(self._root).parts[:-1]
        for i, name in enumerate(folders, 1):
            if (split := self._split_called(name)) and self._root.joinpath(*folders[:i]) not in of_classes:
                return split
        return ""

    def _class_folders(self, labels: Mapping[Path, str]) -> set[Path]:
        """Return the class folders among those named like a split.

        In a class folder, every image has the folder's name as its label.
        """
        inside: dict[Path, set[str]] = {}
        for path, label in labels.items():
            for folder in path.parents:
                if self._split_called(folder.name):
                    inside.setdefault(folder, set()).add(label.lower())
        return {folder for folder, found in inside.items() if found == {folder.name.lower()}}


def _names(config: ConfigDict) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Return the names that each split may have, in lower case, and the names that the config gives, unchanged."""
    fields = {"train": config.train_split, "validation": config.val_split, "test": config.test_split}
    if fields["validation"] == fields["train"] != fields["test"]:
        raise UserError(
            f"config.dataset.val_split and train_split are both {config.val_split}: name other images for validation, "
            "or none to hold some out"
        )
    for split, other in (("validation", "test"), ("test", "train")):
        if fields[split] == fields[other]:
            fields[split] = None  # no split of its own
    given = {split: name for split, name in fields.items() if name and name != USUAL[split]}
    taken = {name.lower() for name in given.values()}
    usual = {split: tuple(name for name in names if name not in taken) for split, names in SPLITS.items()}
    names = {split: (given[split].lower(),) if split in given else usual[split] for split in SPLITS}
    return names | {split: () for split, name in fields.items() if name is None}, given


def _words(name: str) -> list[str]:
    """Return the words of a name such as seg_train, TRAIN-1 or TestImages."""
    return re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)
