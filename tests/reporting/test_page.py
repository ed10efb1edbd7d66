"""The parts of a page: what a table's cells sort by."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from mixer_jax.reporting import page
from mixer_jax.reporting.summary import duration


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,625,866", 1625866), ("97.5%", 97.5), ("+0.30", 0.3), ("-0.15", -0.15),
        ("97.76 \u00b1 0.11 [97.62, 97.90]", 97.76),
        ("88.00 (best)", 88), ("0 (2 more diverged)", 0), *((duration(x), x) for x in (2.7, 45, 600, 7200, 5 * 3600)),
        (duration(3.35 * 3600), 3.35 * 3600),
    ],
)  # fmt: skip
def test_a_cell_sorts_by_its_number(text, value):
    html = page.table(["x"], [[text], ["-"], [""]], sortable=True)
    [found] = re.findall(r'data-value="([^"]+)"', html)
    assert float(found) == pytest.approx(value)
    assert html.count('class="number"') == 4


def test_other_cells_sort_as_text():
    assert "data-value" not in page.table(["x"], [["10 to 12"], ["3"]], sortable=True)
    assert "data-value" not in page.table(["x"], [["validation"], ["test"]], sortable=True)


@pytest.mark.parametrize("name", ["NaN", "<h2>", "<!--<script>", "</script>"])
def test_a_class_may_have_any_name(name):
    parts = [page.heading(str(i)) for i in range(4)]  # with these, the page has a list of its contents
    html = page.page("title", [*parts, page.confusion([name, "null"], np.eye(2, dtype=int))])
    [data] = re.findall(r'application/json">(.*?)</script>', html)
    assert json.loads(data)["names"] == [name, "null"]
    assert "<" not in data


def test_a_page_is_written_in_any_locale():
    command = "from mixer_jax.reporting import page; assert '\\u00b7' in page.page('a', ['\\u00b7'])"
    plain = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", command], env=plain, check=True)
