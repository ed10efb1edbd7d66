"""Image folders as they lie on disk: the images of each split and class, and what is left out and why.

These arrangements are recognised, most telling first:

  a table        labels.csv, .tsv or .parquet, which names the file and the class of each image, and perhaps the split
  splits         a folder for each split (train, test, val and similar names, in any case), with a folder for each class
  classes        a folder for each class; the test images are drawn at random, the same fraction of each class
  names          files whose names carry the class, by the regular expression `config.dataset.class_pattern`

Folders below that of a class belong to the class.
"""

import csv
import dataclasses
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from mixer_jax.data.examine import examine
from mixer_jax.data.holdout import by_class
from mixer_jax.data.images import IMAGE_SUFFIXES, Fit
from mixer_jax.data.sources import FolderSource
from mixer_jax.errors import UserError, one_of
from mixer_jax.messages import warn

TEST_SEED = 2  # fixed, so that runs with different seeds use the same test images
SPLITS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
TABLES = ("labels", "metadata", "annotations")  # names of tables, without the suffix
COLUMNS = {
    "file": ("file", "filename", "file_name", "image", "image_path", "path", "filepath", "img", "id", "image_id"),
    "class": ("class", "label", "category", "class_name", "target", "species", "breed"),
    "split": ("split", "subset", "set", "partition"),
}
HIDDEN = {"__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir", "lost+found"}
REMEDIES = {
    **dict.fromkeys((".heic", ".heif"), "convert them to JPEG"),
    **dict.fromkeys((".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf"), "develop them to JPEG"),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv"), "extract their frames"),
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".rar", ".7z"), "unpack them"),
    **dict.fromkeys((".jp2", ".jxl", ".psd", ".svg", ".tga", ".exr"), "convert them to PNG or JPEG"),
}
ON_ERROR = ("stop", "skip")
MOST_EXAMINED = 50_000  # images; more are decoded before training only to skip the damaged ones
LISTED = 20  # damaged files that are listed
NAMED = 3  # the most files or classes that a line names


@dataclasses.dataclass(frozen=True)
class Image:
    """An image file, its class and its split; the split is "" until one is drawn."""

    path: Path
    label: str
    split: str = ""


class ImageFolder:
    """The images of a folder, by split.

    Attributes:
      layout: one line that says how the images are arranged.
      splits: the images of "train", "test" and, if there is one, "validation".
      label_names: the class names, in order: as numbers if all are.
      left_out: the files that are not used, by the reason.
    """

    def __init__(self, config: ConfigDict):
        """Look through the folder `config.data_dir`.

        Args:
          config: the `dataset` block; see `mixer_jax.config`.

        Raises:
          UserError: if the folder cannot be read, or its arrangement is none of the above.
        """
        self.root = Path(config.data_dir).expanduser()
        self.left_out: dict[str, list[Path]] = {}
        self._noted: set[Path] = set()
        images, self.layout = self._found(config)
        images = self._readable(images, config.on_error)
        if not images:
            raise UserError(f"no images in {self.root}{self._reasons()}; expected {self._expected()}")
        self.splits = self._split(images, config)
        names = {image.label for image in images}
        self.label_names = tuple(sorted(names, key=int) if all(map(str.isdecimal, names)) else sorted(names))
        known = {image.label for image in self.splits["train"]}
        if odd := [name for name in self.label_names if name not in known]:
            raise UserError(
                f"{self.root}: {_some(odd)} {'has' if len(odd) == 1 else 'have'} no training image, only others: "
                "move some to the training images, or leave the class out"
            )

    def source(self, split: str, fit: Fit) -> FolderSource:
        """Return the source of a split, by its name in `splits`."""
        images = self.splits[split]
        numbers = {name: i for i, name in enumerate(self.label_names)}
        labels = np.array([numbers[image.label] for image in images])
        return FolderSource(tuple(image.path for image in images), labels, self.label_names, fit)

    def named(self, config: ConfigDict) -> ConfigDict:
        """Return a copy of the `dataset` block whose splits have the names in `splits`."""
        config = config.copy_and_resolve_references()
        on_test = config.val_split == config.test_split
        same = config.train_split == config.test_split
        config.train_split, config.test_split = "train", "train" if same else "test"
        config.val_split = config.test_split if on_test else "validation" if "validation" in self.splits else ""
        return config

    def cautions(self) -> tuple[str, ...]:
        """Return warnings about images that are left out, as opposed to other files, and about equal files."""
        left_out = (f"left out: {line}" for line in self.reasons() if not re.match(r"[\d,]+ (\.\w+ )?files ", line))
        return (*left_out, *self._equal())

    def lines(self) -> list[str]:
        """Return what was found: the arrangement, the classes and their images in each split, and what is left out."""
        counts = {split: Counter(image.label for image in images) for split, images in self.splits.items()}
        some = self.label_names[:NAMED]
        listed = "; ".join(
            f"{split} {sum(count.values()):,} ({', '.join(f'{name} {count[name]:,}' for name in some)}"
            f"{', ...' if len(self.label_names) > NAMED else ''})"
            for split, count in counts.items()
        )
        classes = "1 class" if len(self.label_names) == 1 else f"{len(self.label_names):,} classes"
        return [
            f"Images in {self.root}: {self.layout}",
            f"  {classes}: {listed}",
            f"  left out: {'; '.join(self.reasons()) or 'nothing'}",
        ]

    def reasons(self) -> list[str]:
        """Return, for each reason, how many files are left out for it, and the first of them."""
        return [
            f"{len(paths):,} {reason} ({_some([str(_below(path, self.root)) for path in paths])})"
            for reason, paths in self.left_out.items()
        ]

    def _reasons(self) -> str:
        return f" ({'; '.join(self.reasons())})" if self.left_out else ""

    def _expected(self) -> str:
        return (
            f"{self.root}/train/CLASS/*.jpg and {self.root}/test/CLASS/*.jpg, {self.root}/CLASS/*.jpg, a table "
            "labels.csv, or names that config.dataset.class_pattern matches"
        )

    def _leave_out(self, path: Path, reason: str) -> None:
        self.left_out.setdefault(reason, []).append(path)

    def _found(self, config: ConfigDict) -> tuple[list[Image], str]:
        if not self.root.is_dir():
            raise UserError(f"there is no folder {self.root}, the config.dataset.data_dir")
        if config.class_pattern:
            return list(self._by_name(config.class_pattern)), f"classes by the pattern {config.class_pattern}"
        tables = [p for p in sorted(self.root.iterdir()) if p.stem.lower() in TABLES and p.suffix.lower() in READERS]
        if tables:
            return list(self._by_table(tables[0])), f"files and classes of the table {tables[0].name}"
        folders = {name: self._folder(name, given) for name, given in self._names(config).items()}
        found = {split: folder for split, folder in folders.items() if folder}
        if "train" in found:
            images = [image for split, folder in found.items() for image in self._of_classes(folder, split)]
            for path in self._images_in(self.root, deep=False):
                self._leave_out(path, "beside the folders of the splits")
            names = ", ".join(folder.name for folder in found.values())
            return images, f"the folders {names}, each with a folder for each class"
        root = self.root
        while not self._images_in(root, deep=False) and len(inner := self._subfolders(root)) == 1:
            root = inner[0]  # a single folder, such as images/, that holds those of the classes
        return list(self._of_classes(root, "")), "a folder for each class"

    def _names(self, config: ConfigDict) -> dict[str, str]:
        """Return the names of the splits' folders that the config gives; "" for the usual ones."""
        given = {"train": config.train_split, "validation": config.val_split, "test": config.test_split}
        if given["validation"] == given["test"]:
            given["validation"] = ""
        if given["test"] == given["train"]:
            del given["test"]
        return {split: "" if name == split else name for split, name in given.items()}

    def _folder(self, split: str, given: str) -> Path | None:
        """Return the folder of a split, named in the config or by one of the usual names, in any case."""
        names = (given.lower(),) if given else SPLITS[split]
        found = [folder for folder in self._subfolders(self.root) if folder.name.lower() in names]
        if given and not found:
            raise UserError(f"there is no folder {self.root / given}, which the config names")
        if len(found) > 1:
            raise UserError(
                f"{found[0]} and {found[1]} could both be the {split} images: rename one, or name it in the config"
            )
        return found[0] if found else None

    def _of_classes(self, root: Path, split: str) -> Iterator[Image]:
        for path in self._images_in(root, deep=False):
            self._leave_out(path, "in no class's folder")
        for folder in self._subfolders(root):
            label = unicodedata.normalize("NFC", folder.name)
            images = self._images_in(folder, deep=True)
            yield from (Image(path, label, split) for path in images)
            if not images:
                self._leave_out(folder, "folders without an image")

    def _by_name(self, pattern: str) -> Iterator[Image]:
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise UserError(f"config.dataset.class_pattern={pattern}: {error}") from error
        if not expression.groups:
            raise UserError(f"config.dataset.class_pattern={pattern}: put the part that is the class in parentheses")
        for path in self._images_in(self.root, deep=True):
            if match := expression.search(_below(path, self.root).as_posix()):
                label = match["class"] if "class" in expression.groupindex else match[1]
                yield Image(path, unicodedata.normalize("NFC", label), _usual_split(path, self.root))
            else:
                self._leave_out(path, "not matched by class_pattern")

    def _by_table(self, table: Path) -> Iterator[Image]:
        rows = READERS[table.suffix.lower()](table)
        header = {name.strip().lower(): name for name in (rows[0] if rows else {})}
        columns = {what: next((header[n] for n in names if n in header), None) for what, names in COLUMNS.items()}
        for what in ("file", "class"):
            if columns[what] is None:
                raise UserError(
                    f"{table} has no column for the {what}: expected one of {', '.join(COLUMNS[what])}; it has "
                    f"{', '.join(header) or 'none'}"
                )
        files = self._images_in(self.root, deep=True)
        by_name: dict[str, Path] = {}
        for path in files:
            relative = _below(path, self.root)
            for name in (relative.as_posix(), relative.with_suffix("").as_posix(), path.name, path.stem):
                by_name.setdefault(unicodedata.normalize("NFC", name), path)
        used = set()
        for row in rows:
            name, label = (unicodedata.normalize("NFC", (row[columns[x]] or "").strip()) for x in ("file", "class"))
            path = by_name.get(name.replace("\\", "/").removeprefix("./"))
            if path is None:
                self._leave_out(self.root / name, f"in {table.name}, but not there")
            elif not label:
                self._leave_out(path, f"without a class in {table.name}")
            else:
                used.add(path)
                split = (row[columns["split"]] or "").strip().lower() if columns["split"] else ""
                yield Image(path, label, next((s for s, names in SPLITS.items() if split in names), ""))
        for path in files:
            if path not in used:
                self._leave_out(path, f"not in {table.name}")

    def _readable(self, images: list[Image], on_error: str) -> list[Image]:
        """Return the images whose files can be read.

        Raises:
          UserError: if there are others, unless `on_error` is "skip".
        """
        if on_error not in ON_ERROR:
            raise one_of("config.dataset.on_error", on_error, ON_ERROR)
        self._digests: dict[Path, str] = {}
        if len(images) > MOST_EXAMINED and on_error == "stop":
            return images
        found = examine([image.path for image in images], self.root)
        damaged = {path: x.problem for path, x in found.items() if x.problem}
        for path, problem in list(damaged.items())[:LISTED]:
            warn(f"{path}: {problem}")
        if damaged and on_error == "stop":
            raise UserError(
                f"{len(damaged):,} of {len(images):,} image files cannot be read, such as {next(iter(damaged))}: mend "
                "them, delete them, or train without them with config.dataset.on_error=skip"
            )
        for path in damaged:
            self._leave_out(path, "damaged")
        self._digests = {path: x.digest for path, x in found.items()}
        return [image for image in images if image.path not in damaged]

    def _equal(self) -> Iterator[str]:
        """Yield warnings about files that are the same, byte for byte, in two splits or in two classes."""
        splits = {id(images): split for split, images in self.splits.items()}  # the same list may be two splits
        places: dict[str, list[tuple[str, Image]]] = {}
        for split in splits.values():
            for image in self.splits[split]:
                if digest := self._digests.get(image.path):
                    places.setdefault(digest, []).append((split, image))
        several = [found for found in places.values() if len(found) > 1]
        for split in ("validation", "test"):
            both = [found for found in several if {"train", split} <= {s for s, _ in found}]
            if both:
                names = " and ".join(str(_below(image.path, self.root)) for _, image in both[0][:2])
                yield f"{len(both):,} {split} images are training images too, byte for byte, such as {names}"
        if torn := [found for found in several if len({image.label for _, image in found}) > 1]:
            names = " and ".join(str(_below(image.path, self.root)) for _, image in torn[0][:2])
            yield f"{len(torn):,} images are in two classes, such as {names}"

    def _split(self, images: list[Image], config: ConfigDict) -> dict[str, list[Image]]:
        """Return the images by split, with test images drawn at random if there are none."""
        splits = {split: [image for image in images if image.split == split] for split in SPLITS}
        undecided = [image for image in images if not image.split]
        if undecided and (splits["train"] or splits["test"]):
            for image in undecided:
                self._leave_out(image.path, "in no split")
            undecided = []
        splits["train"] += undecided
        if config.train_split == config.test_split:
            splits["test"] = splits["train"]
        if not splits["test"] and splits["validation"]:
            splits["test"], splits["validation"] = splits["validation"], []
            self.layout += "; without test images, those for validation are the test images"
        if not splits["test"]:
            splits["train"], splits["test"] = self._drawn(splits["train"], config.test_fraction)
            self.layout += f"; {config.test_fraction:.0%} of each class are drawn as test images, always the same"
        return {split: found for split, found in splits.items() if found}

    def _drawn(self, images: list[Image], fraction: float) -> tuple[list[Image], list[Image]]:
        names = {name: i for i, name in enumerate(sorted({image.label for image in images}))}
        labels = np.array([names[image.label] for image in images], int)
        drawn = set(by_class(labels, round(len(images) * fraction), TEST_SEED).tolist())
        if not 0 < len(drawn) < len(images):
            raise UserError(
                f"config.dataset.test_fraction={fraction} of {len(images)} images leaves no test or no training image: "
                "give another fraction, or more images"
            )
        parts: tuple[list[Image], list[Image]] = ([], [])
        for i, image in enumerate(images):
            parts[i in drawn].append(image)
        return parts

    def _subfolders(self, folder: Path) -> list[Path]:
        return [Path(entry.path) for entry in self._entries(folder) if entry.is_dir()]

    def _images_in(self, folder: Path, deep: bool) -> list[Path]:
        """Return the image files in a folder and, if `deep`, below it; note the other files as left out."""
        images, seen, stack = [], {os.path.realpath(folder)}, [folder]
        while stack:
            inner = []
            for entry in self._entries(stack.pop()):
                path = Path(entry.path)
                if entry.is_dir():
                    if deep and (real := os.path.realpath(path)) not in seen:  # a link may lead to a folder above
                        seen.add(real)
                        inner.append(path)
                elif path.suffix.lower() in IMAGE_SUFFIXES and entry.is_file():
                    images.append(path)
                elif path not in self._noted:
                    self._note(path, entry)
            stack += inner[::-1]
        return images

    def _note(self, path: Path, entry: os.DirEntry) -> None:
        self._noted.add(path)
        suffix = path.suffix.lower()
        if not entry.is_file():
            self._leave_out(path, "broken links" if entry.is_symlink() else "neither files nor folders")
        elif remedy := REMEDIES.get(suffix):
            self._leave_out(path, f"{suffix} files, which are not read: {remedy}")
        elif path.suffix.lower() not in READERS or path.stem.lower() not in TABLES:
            self._leave_out(path, f"{suffix} files" if suffix else "files without a suffix")

    def _entries(self, folder: Path) -> list[os.DirEntry]:
        """Return the entries of a folder, without hidden ones, sorted by name."""
        try:
            with os.scandir(folder) as entries:
                shown = [entry for entry in entries if not entry.name.startswith(".") and entry.name not in HIDDEN]
        except OSError as error:
            raise UserError(f"cannot read image folder {error.filename}: {error.strerror}") from error
        return sorted(shown, key=lambda entry: entry.name)


def _usual_split(path: Path, root: Path) -> str:
    """Return the split whose name one of the folders above a file has; "" if none has."""
    above = {part.lower() for part in _below(path, root).parts[:-1]}
    return next((split for split, names in SPLITS.items() if above & set(names)), "")


def _below(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def _read_text(table: Path, delimiter: str) -> list[dict[str, str]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file, delimiter=delimiter))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {table}: {error}") from error


def _read_csv(table: Path) -> list[dict[str, str]]:
    rows = _read_text(table, ",")
    return _read_text(table, ";") if rows and len(rows[0]) == 1 else rows


def _read_parquet(table: Path) -> list[dict[str, str]]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(f"reading {table} needs pyarrow: pip install pyarrow, or save it as .csv") from error
    try:
        rows = parquet.read_table(table).to_pylist()
    except Exception as error:  # each version raises its own exceptions
        raise UserError(f"cannot read {table}: {next(iter(str(error).splitlines()), 'damaged')}") from error
    return [{key: "" if x is None else str(x) for key, x in row.items()} for row in rows]


READERS: dict[str, Callable[[Path], list[dict[str, str]]]] = {
    ".csv": _read_csv,
    ".tsv": lambda table: _read_text(table, "\t"),
    ".parquet": _read_parquet,
}
