"""The preparation of text for matplotlib's pictures: escaped, and in fonts that are installed on this machine."""

import contextlib
import functools
import re
import threading
from collections.abc import Iterator, Sequence

# Widespread fonts, of which matplotlib takes each character from the first that is installed and has it.
FONTS = (
    "DejaVu Sans", "Noto Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK KR", "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei", "Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo", "Microsoft YaHei", "Yu Gothic",
    "Malgun Gothic", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Sans Arabic", "Noto Sans Hebrew", "Segoe UI",
    "Arial Unicode MS",
)  # fmt: skip
_DRAWING = threading.RLock()  # matplotlib's settings are those of the process
MISSING = "\u25a1"  # a box, in place of a character that no font has


def plain(text: str) -> str:
    """Escape text for matplotlib, so that "$" starts no formula and a leading "_" does not hide a label.

    A character that is in no font becomes a box, without matplotlib's warning.
    """
    drawn = "".join(c if c.isspace() or _has_glyph(c) else MISSING for c in text)
    return (f" {drawn}" if drawn.startswith("_") else drawn).replace("$", r"\$")


def markdown_text(text: str) -> str:
    """Escape text for a line of Markdown, or a cell of a table there."""
    return re.sub(r"[\\`*<|]|(?<=\])(?=\()", r"\\\g<0>", " ".join(text.split()))


def labels(names: Sequence[str]) -> list[str]:
    """Return names as the labels of an axis; "#3" stands for the third name if one of its characters is in no font."""
    return [f"#{i}" if MISSING in (drawn := plain(name)) else drawn for i, name in enumerate(names, 1)]


@contextlib.contextmanager
def fonts() -> Iterator[None]:
    """Make matplotlib use the fonts of `FONTS` that are installed; a decorator for functions that draw."""
    import matplotlib  # here, because it is slow to import

    with _DRAWING, matplotlib.rc_context({"font.family": _families()}):
        yield


@functools.cache
def _families() -> list[str]:
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    return [name for name in FONTS if name in installed]


@functools.cache
def _has_glyph(character: str) -> bool:
    return any(font.get_char_index(ord(character)) for font in _fonts())


@functools.cache
def _fonts() -> list:
    from matplotlib import font_manager

    return [font_manager.get_font(font_manager.findfont(name)) for name in _families()]
