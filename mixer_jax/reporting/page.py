"""Self-contained HTML pages without scripts or network access, for dark and light mode and all screen widths."""

import base64
import html
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from PIL import Image

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; padding: 0 1rem; max-width: 84rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { background: var(--soft); } td:first-child { min-width: min(11rem, 26vw); }
img { max-width: 100%; background: #fff; border-radius: 4px; }
.gallery { display: flex; flex-wrap: wrap; gap: .8rem; }
figure { margin: 0; width: 6.5rem; } figcaption { font-size: .8rem; overflow-wrap: anywhere; }
figure img { width: 100%; image-rendering: pixelated; }
summary { cursor: pointer; font-size: 1.15rem; font-weight: bold; margin: 1.5rem 0 .5rem; }
"""


def page(title: str, parts: Sequence[str]) -> str:
    """Return an HTML document.

    Args:
      title: plain text.
      parts: HTML, from the other functions of this module.
    """
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}</style></head>\n<body><h1>{html.escape(title)}</h1>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of plain-text cells that scrolls on its own on narrow screens; without `columns`, no header."""
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "\n".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    head = f"<thead><tr>{head}</tr></thead>\n" if columns else ""
    return f'<div class="wide"><table>{head}<tbody>{body}</tbody></table></div>'


def paragraph(text: str) -> str:
    """Return a paragraph of plain text."""
    return f"<p>{html.escape(text)}</p>"


def heading(text: str) -> str:
    """Return a second-level heading of plain text."""
    return f"<h2>{html.escape(text)}</h2>"


def numbered(lines: Sequence[str]) -> str:
    """Return an ordered list of plain-text lines, such as footnotes."""
    return "<ol>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ol>"


def folded(title: str, part: str) -> str:
    """Return an HTML part that is hidden until its title is clicked."""
    return f"<details><summary>{html.escape(title)}</summary>{part}</details>"


def image(png: bytes, description: str, narrow: bytes | None = None) -> str:
    """Return an embedded PNG.

    Args:
      png: the content of the file.
      description: the alternative text.
      narrow: another PNG for screens up to 700 pixels wide, if any.
    """
    other = f'<source media="(max-width: 700px)" srcset="{_inside(narrow)}">' if narrow else ""
    return f'<p><picture>{other}<img alt="{html.escape(description)}" src="{_inside(png)}"></picture></p>'


def gallery(images: Sequence[np.ndarray], captions: Sequence[str]) -> str:
    """Return a gallery of small images (height, width, 1 or 3) uint8, each with its caption below."""
    figures = []
    for pixels, caption in zip(images, captions, strict=True):
        file = BytesIO()
        Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0]).save(file, "PNG")
        text = html.escape(caption)
        picture = f'<img alt="{text}" src="{_inside(file.getvalue())}">'
        figures.append(f"<figure>{picture}<figcaption>{text}</figcaption></figure>")
    return f'<div class="gallery">{"".join(figures)}</div>'


def _inside(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
