"""The error for problems that the user has to fix, and helpers for its message."""

import difflib
import unicodedata
from collections.abc import Iterable
from pathlib import Path


class UserError(Exception):
    """A problem that only the user can fix; the message is one line that says what is wrong, where, and what to do.

    Commands print the message without a traceback and exit with code 2. An unexpected exception of another type is a
    bug, and keeps its traceback.
    """


class Unreadable(UserError):
    """A file is damaged or incomplete; another copy of it may be readable."""


def printable(text: str | Path) -> str:
    """Return a name that this program did not choose, such as a file's, in a form that prints on one line."""
    if str(text).isprintable():
        return str(text)
    escaped = ("Cc", "Cs", "Zl", "Zp")  # control characters, surrogates, and line separators
    return "".join(repr(c)[1:-1] if unicodedata.category(c) in escaped else c for c in str(text))


def in_one_line(error: Exception) -> str:
    """Return the message of an exception in one line, or its type if it has no message."""
    return " ".join(str(error).split()) or type(error).__name__


def unreadable(path: Path, why: Exception | str) -> UserError:
    """Return the error for a file that cannot be read, with the reason in one line."""
    return Unreadable(f"cannot read {path}: {why if isinstance(why, str) else in_one_line(why)}")


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """Return " (did you mean 'X'?)" with the valid word closest to `word`, or "" if none is close."""
    near = difflib.get_close_matches(word, list(valid), n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""


def one_of(what: str, word: str, valid: Iterable[str]) -> UserError:
    """Return the error for a name that is not valid; it lists the valid names.

    Args:
      what: what the name stands for, such as "config.schedule.name".
      word: the name.
      valid: the valid names.
    """
    valid = list(valid)
    return UserError(f"unknown {what} {word!r}{did_you_mean(word, valid)}; valid: {', '.join(valid)}")
