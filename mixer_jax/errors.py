"""The one error a user can cause, and the help it offers."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something only the user can mend: one line that says what, where and what to do.

    Commands print it without a traceback and exit with code 2; everything else is a bug and keeps its traceback.
    """


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """Returns `" (did you mean X?)"` with the valid word nearest to `word`, or an empty string."""
    near = difflib.get_close_matches(word, list(valid), n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""


def one_of(what: str, word: str, valid: Iterable[str]) -> UserError:
    """An error for a name that is not among the valid ones, listing them."""
    valid = list(valid)
    return UserError(f"unknown {what} {word!r}{did_you_mean(word, valid)}; valid: {', '.join(valid)}")
