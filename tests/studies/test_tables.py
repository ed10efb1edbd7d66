"""The tables of a comparison: what a paper would show, and rows beside each other only where trained alike."""

import pytest
from tqdm.utils import disp_len

from made_rows import result, row
from mixer_jax.config import default_config
from mixer_jax.storage import write_json
from mixer_jax.studies.rows import Row, read_rows, to_json
from mixer_jax.studies.tables import (
    OF_DIFFERENCES,
    as_csv,
    cells,
    circumstances,
    differences,
    latex,
    markdown,
    plain,
    settings,
)

SOME, OTHERS = [97.61, 97.9, 97.75, 97.83, 97.7], [97.2, 97.5, 97.1]


def test_the_table_holds_what_a_paper_would():
    rows = [
        row("tuned", SOME, published={"last": 97.79, "best": 98.18}, notes=("chosen on test", "one seed")),
        row("grid", [97.0], published={"best": 98.12}, notes=("one seed",)),
        row("other", OTHERS),
    ]
    columns, table, notes = cells(rows)
    assert notes == ["chosen on test", "one seed"]
    first, second, third = (dict(zip(columns, line, strict=True)) for line in table)
    assert first["model"] == "tuned [1] [2]"
    assert (first["parameters"], first["seeds"], first["published"]) == ("1,234", "5", "97.79")
    assert first["test accuracy, last epoch"] == "97.76 ± 0.11 [97.62, 97.90]"
    assert (first["difference"], first["verdict"]) == ("-0.03", "not distinguishable")
    assert (second["model"], second["published"]) == ("grid [2]", "98.12 (best)")
    assert (second["difference"], second["verdict"]) == ("+0.88", "one seed: no verdict")
    assert (third["published"], third["difference"], third["verdict"]) == ("", "", "")
    lines = markdown(columns, table).splitlines()
    assert len(lines) == 5
    assert {line.count("|") for line in lines} == {len(columns) + 1}


def test_settings_are_those_that_most_rows_do_not_share(tmp_path):
    size, epochs = {"dataset.image_size": (28, 28)}, default_config().epochs
    rows = [row("a", [97.0], settings={}), row("b", [98.0], settings=size | {"epochs": 3.0})]
    rows += [row("c", [98.0], settings=size), row("unknown", [98.0])]
    write_json(tmp_path / "rows.json", {"rows": list(map(to_json, rows))})
    _, table = settings(list(read_rows(tmp_path / "rows.json")))
    assert table == settings(rows)[1] == [["a", "dataset.image_size="], ["b", "epochs=3.0"], ["c", ""]]
    both = [f"dataset.image_size=, epochs={epochs}", "dataset.image_size=28,28, epochs=3.0"]
    assert [line[1] for line in settings(rows[:2])[1]] == both
    assert not settings([rows[0], rows[0], rows[3]])[1]
    assert not settings([])[1]
    same = [row("x", [97.0], settings={"epochs": epochs}) for epochs in (3.0, 4.0)]
    assert settings(same)[1] == [["x", "epochs=3.0"], ["x", "epochs=4.0"]]


def test_rows_stand_beside_the_first_of_their_kind():
    clean = [result(value, selected_on="validation") for value in OTHERS]
    rows = [row("tuned", SOME), row("single", [97.0]), row("other", OTHERS), Row("clean", clean)]
    _, table = differences(rows)
    assert [line[:3] for line in table] == [["other", "tuned", "test"]]
    assert table[0][4] == "lower"


def test_circumstances_name_the_rows_only_where_they_differ():
    assert len(circumstances([row("a", SOME), row("b", OTHERS)])) == 1
    in_torch = Row("b", [result(97.0, versions={"torch": "2.13"})])
    ours, theirs = circumstances([row("a", SOME), in_torch])
    assert ours.endswith("jax 0.10: a")
    assert theirs.endswith("torch 2.13: b")


def test_no_cell_breaks_the_table_or_becomes_markup():
    """As in GitHub's Markdown, where a backslash escapes."""
    for cell, text in {
        "a|b": r"a\|b",
        "two\nlines": "two lines",
        "<b>*x*</b>": r"\<b>\*x\*\</b>",
        "[link](http:x)": r"[link]\(http:x)",
        "97.6 [97.1, 98.0]": "97.6 [97.1, 98.0]",
    }.items():
        assert markdown(["x"], [[cell]]).splitlines()[-1] == f"| {text} |"


def test_a_row_of_latex_that_begins_with_a_bracket_is_no_argument_of_the_row_before():
    lines = latex(["x", "y"], [["a<b|c", "1"], ["[x]", "2"]]).splitlines()
    assert lines[4:6] == [r"a\textless{}b\textbar{}c & 1 \\", r"{}[x] & 2 \\"]


def test_a_narrow_terminal_shows_what_a_comparison_found():
    found = differences([row("a long title of the first model", SOME), row("another long title", OTHERS)])
    text = plain(*found, 80, OF_DIFFERENCES)
    assert "verdict" in text
    assert "difference, 95% interval" in text


def test_a_row_of_one_seed_does_not_hide_the_comparison_of_others():
    _, table = differences([row("one seed", [97.0]), row("a", SOME), row("b", OTHERS)])
    assert [line[:2] for line in table] == [["b", "a"]]


def test_no_column_is_empty():
    columns, table, _ = cells([row("a", SOME), row("b", OTHERS)])
    assert not {"published", "difference", "verdict"} & set(columns)
    assert all(any(line[i] for line in table) for i in range(len(columns)))


@pytest.mark.parametrize("width", [40, 80, 120, 300])
def test_a_terminal_gets_the_columns_that_fit(width):
    columns, table, _ = cells([row("日本語 and a long title " * 3, SOME, published={"last": 97.79}), row("b", OTHERS)])
    lines = plain(columns, table, width).splitlines()
    assert max(map(disp_len, lines)) <= width
    head = " ".join(lines) if width == 40 else lines[0]
    shown = [column for column in columns if column in head]
    assert shown[0] == "model"
    if width >= 80:
        assert {"test accuracy, last epoch", "published"} <= set(shown)
    if width == 300:
        assert shown == columns


def test_csv_has_the_interval_of_equal_seeds_too():
    header, line = (text.split(",") for text in as_csv([row("equal", [97.0, 97.0])]).splitlines())
    named = dict(zip(header, line, strict=True))
    assert [named[f"test_accuracy_last_{what}"] for what in ("mean", "std", "half_interval")] == ["97.0", "0.0", "0.0"]


def test_a_latex_table_escapes_what_latex_reads():
    text = latex(["model", "accuracy"], [["50% of a_b & c", "97.76 ± 0.11"]])
    assert text.splitlines() == [
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"model & accuracy \\",
        r"\midrule",
        r"50\% of a\_b \& c & 97.76 $\pm$ 0.11 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
