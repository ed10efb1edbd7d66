"""Tables that name the file and the class of each image, and perhaps its split."""

import csv
import io
import posixpath
import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from mixer_jax.data.listing import entries, some
from mixer_jax.errors import UserError

NAMES = ("labels", "metadata", "annotations")  # of tables, without the suffix; the first one with the columns counts
COLUMNS = {
    "file": (
        "file", "filename", "file_name", "image", "image_name", "image_path", "path", "filepath", "file_path", "img",
        "image_id", "id",
    ),
    "class": (
        "class", "label", "labels", "category", "class_name", "class_id", "target", "species", "breed", "diagnosis",
    ),
    "split": ("split", "subset", "set", "partition"),
}  # fmt: skip
MOST = 20  # columns that an error lists


class Row(NamedTuple):
    """An image's entry in a table: the image's file, class and split, each "" if the table does not give it."""

    file: str
    label: str
    split: str


def read_labels(folder: Path) -> tuple[Path, list[Row]] | None:
    """Return the table in a folder, and its rows; None if there is none.

    A table that is called "labels" must have rows that name files and classes. A table of another name without such
    rows is ignored.

    Raises:
      UserError: if a table cannot be read, or "labels" has no rows or lacks a column.
    """
    files = (Path(entry.path) for entry in entries(folder))
    found = {(path.stem.lower(), path.suffix.lower()): path for path in files}
    for name in NAMES:
        for suffix, read in READERS.items():
            if table := found.get((name, suffix)):
                header, rows = read(table)
                columns = [_column(header, names) for names in COLUMNS.values()]
                if None not in columns[:2] and rows:
                    return table, [Row(*("" if i is None else _cell(row, i) for i in columns)) for row in rows]
                if name == NAMES[0]:
                    raise _useless(table, header, dict(zip(COLUMNS, columns, strict=True)))
    return None


def _column(header: Sequence[str], names: Sequence[str]) -> int | None:
    """Return the index in `header` of the first of `names` that occurs there; None if none does."""
    known = {name.strip().lower().replace(" ", "_"): i for i, name in reversed(list(enumerate(header)))}
    return next((known[name] for name in names if name in known), None)


def _cell(row: Sequence[str], index: int) -> str:
    return unicodedata.normalize("NFC", row[index].strip()) if index < len(row) else ""


def _useless(table: Path, header: Sequence[str], columns: dict[str, int | None]) -> UserError:
    for what in ("file", "class"):
        if columns[what] is None:
            return UserError(
                f"{table} has no column for the {what}: expected one of {', '.join(COLUMNS[what])}; it has "
                f"{some([name for name in header if name], MOST) or 'none'}"
            )
    return UserError(f"{table} has no rows")


Cells = tuple[list[str], list[list[str]]]  # the header and the rows


def _read_text(table: Path) -> Cells:
    try:
        text = table.read_text(encoding="utf-8-sig")
        if named := re.match(r"\s*sep=(.)\r?\n", text):  # a first line by which Excel names the delimiter
            delimiter, text = named[1], text[named.end() :]
        else:
            delimiter = max(",;\t", key=lambda delimiter: _fits(text, delimiter))
        header, *rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if any(row)] or [
            []
        ]
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {table}: it is not UTF-8; save it as CSV UTF-8") from error
    except (OSError, csv.Error) as error:
        raise UserError(f"cannot read {table}: {getattr(error, 'strerror', None) or error}") from error
    return header, rows


def _fits(text: str, delimiter: str) -> tuple[int, int]:
    """Return how many of `COLUMNS` a table has, and how many columns in all, if it is split at `delimiter`."""
    header = next(filter(None, csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)), [])
    return sum(_column(header, names) is not None for names in COLUMNS.values()), len(header)


def _read_parquet(table: Path) -> Cells:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(f"reading {table} needs pyarrow: pip install pyarrow, or save it as .csv") from error
    try:
        content = parquet.read_table(table)
        columns = [column.to_pylist() for column in content.columns]
    except Exception as error:  # each version raises its own exceptions
        raise UserError(f"cannot read {table}: {next(iter(str(error).splitlines()), 'damaged')}") from error
    rows = [["" if x is None else str(x) for x in row] for row in zip(*columns, strict=True)]
    return content.column_names, rows


READERS: dict[str, Callable[[Path], Cells]] = {".csv": _read_text, ".tsv": _read_text, ".parquet": _read_parquet}


class Files:
    """Image files, found by the names that tables give them."""

    def __init__(self, files: Sequence[Path], root: Path):
        """Index files by their paths below the folder `root` and by the last parts of these paths.

        Both are indexed with and without the suffix.
        """
        # By whole paths and by their ends, each with and without the suffix, the best match first.
        self._found: list[dict[str, list[Path]]] = [{}, {}, {}, {}]
        for path in files:
            whole = unicodedata.normalize("NFC", path.relative_to(root).as_posix())
            for without_suffix, name in enumerate((whole, whole.removesuffix(path.suffix))):
                parts = name.split("/")
                for i in range(len(parts)):
                    self._found[2 * (i > 0) + without_suffix].setdefault("/".join(parts[i:]), []).append(path)

    def find(self, name: str) -> list[Path]:
        """Return the files that a name could mean.

        Args:
          name: the file's path relative to the root, or only the last components of this path (b/c.png for a/b/c.png).
            Leading folders that do not exist below the root are ignored (x/b/c.png), and the suffix may be omitted.
        """
        parts = posixpath.normpath(name.replace("\\", "/")).split("/")
        for i in range(len(parts)):
            for of_match in self._found if i == 0 else self._found[:2]:
                if found := of_match.get("/".join(parts[i:])):
                    return found
        return []
