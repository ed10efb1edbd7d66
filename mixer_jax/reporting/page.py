"""Self-contained HTML pages, which need no network, for dark and light mode and all screen widths.

The style and the scripts are in `assets` and become part of each page. uPlot (https://github.com/leeoniya/uPlot, MIT
licence) draws the charts.
"""

import base64
import functools
import html
import itertools
import json
import re
from collections.abc import Sequence
from importlib import resources
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

LOSSLESS = 64 * 64  # pixels; larger images are embedded as JPEG
QUALITY = 90  # of JPEG
MANY = 40  # rows; longer tables scroll on their own
CONTENTS = 4  # headings; pages with at least this many have links to them
HEADING = re.compile("<h2>(.*?)</h2>")
NUMBER = re.compile(r"([+-]?[\d,]*\.?\d+)%?(?: (s|min|h))?(?: (\d+) min)?(?: \u00b1.*)?(?: \(.*\))?")
EMPTY = ("", "-")  # cells without a value
ENLARGED = 512  # pixels; the longest side of an embedded image


@functools.cache
def _asset(name: str) -> str:
    return (resources.files("mixer_jax.reporting") / "assets" / name).read_text(encoding="utf-8")


def page(title: str, parts: Sequence[str]) -> str:
    """Return an HTML document with a title of plain text and parts from the other functions of this module."""
    body = _with_contents("\n".join(parts))
    # A page without charts does not need the library that draws them.
    charts = 'class="charts"' in body
    style = _asset("page.css") + (_asset("uPlot.min.css") if charts else "")
    script = (_asset("uPlot.iife.min.js") if charts else "") + _asset("page.js")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{style}</style></head>\n<body><main><h1>{html.escape(title)}</h1>\n{body}\n</main>\n"
        f"<script>{script}</script></body></html>\n"
    )


def _with_contents(body: str) -> str:
    """Return the body of a page, preceded by links to its headings if it has many."""
    names = HEADING.findall(body)
    if len(names) < CONTENTS:
        return body
    numbers = itertools.count()
    body = HEADING.sub(lambda found: f'<h2 id="section{next(numbers)}">{found[1]}</h2>', body)
    links = "".join(f'<a href="#section{i}">{name}</a>' for i, name in enumerate(names))
    return f'<nav aria-label="sections">{links}</nav>\n{body}'


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Return names and values of plain text as cards, of which the first is the largest."""
    cards = [
        f"<div{'' if i else ' class=first'}><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for i, (name, value) in enumerate(pairs)
    ]
    return f'<dl class="facts">{"".join(cards)}</dl>'


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], sortable: bool = False, cards: bool = False) -> str:
    """Return a table of plain-text cells that, on narrow screens, scrolls sideways within the page.

    Args:
      columns: the headings.
      rows: the cells. A column whose cells are all numbers, with or without "%", is aligned to the right.
      sortable: whether a click on a heading sorts the rows.
      cards: whether narrow screens show each row as a card.
    """
    numbers = [all(_number(row[i]) is not None for row in rows if row[i] not in EMPTY) for i in range(len(columns))]

    def heading(i: int) -> str:
        name = html.escape(columns[i])
        kind = ' class="number"' if numbers[i] else ""
        return f'<th scope="col"{kind}>{f"<button>{name}</button>" if sortable else name}</th>'

    def cell(i: int, text: str) -> str:
        value = f' data-value="{_number(text)}"' if numbers[i] and text not in EMPTY else ""
        kind = f' class="number"{value}' if numbers[i] else ""
        name = f' data-name="{html.escape(columns[i])}"' if cards else ""
        return f"<td{kind}{name}>{html.escape(text)}</td>"

    head = "".join(map(heading, range(len(columns))))
    body = "\n".join("<tr>" + "".join(cell(i, text) for i, text in enumerate(row)) + "</tr>" for row in rows)
    kinds = " ".join(name for name, wanted in (("sortable", sortable), ("cards", cards)) if wanted)
    scrolls = len(rows) > MANY
    return (
        f'<div class="wide{" tall" * scrolls}" tabindex="0" role="region" '
        f'aria-label="{html.escape(", ".join(columns))}">'
        f'<table class="{kinds}"><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'
        + (paragraph(f"{len(rows):,} rows; scroll the table for all of them.", "muted") if scrolls else "")
    )


def _number(text: str) -> float | None:
    """Return the number that a cell begins with, converted to seconds if it is a time; None for any other cell.

    The number may be followed by "%", a unit as in `summary.duration`, a deviation after "\u00b1", or a remark in
    brackets.
    """
    found = NUMBER.fullmatch(text)
    if not found:
        return None
    number, unit, minutes = found.groups()
    return float(number.replace(",", "")) * {"s": 1, "min": 60, "h": 3600}.get(unit, 1) + 60 * int(minutes or 0)


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph of plain text, possibly of the kind "muted" or "caution"."""
    return f'<p class="{kind}">{html.escape(text)}</p>' if kind else f"<p>{html.escape(text)}</p>"


def files(text: str, names: Sequence[str]) -> str:
    """Return a paragraph of plain text, followed by links to files in the page's folder."""
    links = ", ".join(f'<a href="{html.escape(name)}">{html.escape(name)}</a>' for name in names)
    return f'<p class="muted">{html.escape(text)} {links}.</p>'


def without_scripts(png: bytes, description: str) -> str:
    """Return an embedded PNG for browsers that run no scripts, and so draw no charts."""
    return f"<noscript>{image(png, description)}</noscript>"


def heading(text: str, level: int = 2) -> str:
    """Return a heading of plain text."""
    return f"<h{level}>{html.escape(text)}</h{level}>"


def numbered(lines: Sequence[str]) -> str:
    """Return an ordered list of plain-text lines, such as footnotes."""
    return "<ol>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ol>"


def folded(title: str, part: str) -> str:
    """Return an HTML part that is hidden until its title is clicked."""
    return f"<details><summary>{html.escape(title)}</summary>{part}</details>"


def side_by_side(*parts: str) -> str:
    """Return HTML parts in columns, as many as the screen has room for."""
    return f'<div class="side">{"".join(f"<section>{part}</section>" for part in parts if part)}</div>'


def charts(specs: Sequence[dict[str, Any]], controls: str = "") -> str:
    """Return charts, as in `reporting.charts`, that show their values under the pointer and can be zoomed."""
    figures = "".join(
        f'<figure class="chart"><h3>{html.escape(spec["title"])}</h3><div class="plot" tabindex="0" role="application" '
        f'aria-label="{html.escape(spec["title"])}: the arrow keys show the values"></div>{_data(spec)}</figure>'
        for spec in specs
    )
    return f'<div class="charts">{controls}<div class="side">{figures}</div></div>'


def confusion(names: Sequence[str], counts: np.ndarray) -> str:
    """Return a confusion matrix that shows names and counts at the pointer, or at the cell chosen with the arrow keys.

    The rows of `counts` are true classes, the columns predicted ones.
    """
    present = [[int(row), int(column), int(counts[row, column])] for row, column in np.argwhere(counts)]
    data = _data({"names": list(names), "counts": present, "totals": counts.sum(1).tolist()})
    return (
        '<div class="confusion"><canvas tabindex="0" role="application" aria-label="confusion matrix: a row for each '
        'class, a column for each predicted class; the arrow keys show the counts"></canvas>'
        "<output>Rows are the true classes, columns the predicted ones. Point at a cell to see its classes.</output>"
        f"{data}"
        "</div>"
    )


def _data(content: Any) -> str:
    """Return JSON that a script of the page reads."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json">{text}</script>'


def image(png: bytes, description: str, narrow: bytes | None = None) -> str:
    """Return an embedded PNG with its alternative text; `narrow` is another PNG, for screens up to 700 pixels wide."""
    other = f'<source media="(max-width: 700px)" srcset="{_inside(narrow)}">' if narrow else ""
    picture = f'<picture>{other}<img alt="{html.escape(description)}" src="{_inside(png)}"></picture>'
    return f'<p class="paper">{picture}</p>'


def gallery(pictures: Sequence[Sequence[tuple[np.ndarray, str]]], captions: Sequence[str]) -> str:
    """Return a gallery whose images enlarge at a click.

    Args:
      pictures: for each entry, one or several images (height, width, 1 or 3) uint8 with their alternative texts.
      captions: the text below each entry.
    """
    figures = []
    for entry, caption in zip(pictures, captions, strict=True):
        images = "".join(f'<img alt="{html.escape(text)}" src="{picture(pixels)}">' for pixels, text in entry)
        figures.append(
            f'<figure><button title="enlarge">{images}</button><figcaption>{html.escape(caption)}</figcaption></figure>'
        )
    shape = pictures[0][0][0].shape if pictures else (1, 1)
    return f'<div class="gallery" style="--shape: {shape[1]}/{shape[0]}">{"".join(figures)}</div>'


def picture(pixels: np.ndarray) -> str:
    """Return an image (height, width, 1 or 3) uint8 as the content of an src attribute."""
    drawn, file = Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0]), BytesIO()
    if drawn.width * drawn.height <= LOSSLESS:
        drawn.save(file, "PNG")
        return _inside(file.getvalue())
    drawn.thumbnail((ENLARGED, ENLARGED))
    drawn.save(file, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _inside(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
