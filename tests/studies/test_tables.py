"""What a comparison claims: intervals and verdicts against SciPy and against what they promise."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from mixer_jax.reporting.comparison import (
    Row,
    against_one,
    against_others,
    cells,
    circumstances,
    differences,
    interval,
    markdown,
)
from mixer_jax.reporting.comparison_plots import plot_costs, plot_curves
from scipy import stats

SOME, OTHERS = [97.61, 97.9, 97.75, 97.83, 97.7], [97.2, 97.5, 97.1]


def test_intervals_are_scipys():
    half = interval(SOME)
    low, high = stats.t.interval(0.95, len(SOME) - 1, np.mean(SOME), stats.sem(SOME))
    np.testing.assert_allclose((np.mean(SOME) - half, np.mean(SOME) + half), (low, high))
    assert interval([97.0]) is None


def test_beside_others_it_is_welchs_test():
    difference, half, verdict = against_others(SOME, OTHERS)
    test = stats.ttest_ind(SOME, OTHERS, equal_var=False)
    low, high = test.confidence_interval(0.95)
    np.testing.assert_allclose((difference - half, difference + half), (low, high))
    assert verdict == "higher"
    assert test.pvalue < 0.05
    assert against_others(OTHERS, SOME)[2] == "lower"
    assert against_others(SOME, [*SOME[:3], 98.5])[2] == "not distinguishable"
    assert against_others(SOME, [97.0]) is None
    assert against_others([97.0, 97.0], [98.0, 98.0]) == (-1.0, 0.0, "lower")


def test_a_published_run_that_is_one_of_these_is_mostly_not_told_apart():
    rng = np.random.default_rng(0)
    verdicts = [against_one(list(x[:-1]), x[-1]) for x in rng.normal(97.8, 0.1, (4000, 6))]
    assert abs(np.mean([v == "not distinguishable" for v in verdicts]) - 0.95) < 0.012
    assert {"higher", "lower"} < set(verdicts)
    assert against_one(SOME, 97.79) == "not distinguishable"
    assert (against_one(SOME, 97.0), against_one(SOME, 98.6)) == ("higher", "lower")
    assert against_one([97.5], 97.79) == "one seed: no verdict"


def result(last, best=99.0, **fields):
    common = {"num_params": 1234, "epochs": 10, "selected_on": "test", "train_seconds": 1200.0, "dataset": "mnist"}
    common |= {
        "data_fingerprint": "abc",
        "devices": 1,
        "device_kind": "cpu",
        "dtype": "float32",
        "test_examples": 10_000,
    }
    return common | {"versions": {"jax": "0.10"}, "last_test_accuracy": last, "test_accuracy": best} | fields


def row(title, values, **fields):
    return Row(title, [result(value) for value in values], **fields)


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


@pytest.mark.parametrize("cell", ["a|b", "plain"])
def test_no_cell_breaks_the_table(cell):
    assert markdown(["x"], [[cell]]).splitlines()[-1].count("|") == 2


def test_every_row_has_a_line_and_an_arm_one_colour_in_both_protocols(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, dpi: figures.append(self))
    curve = [{"val_accuracy": accuracy} for accuracy in (90.0, 95.0)]

    def drawn(title, selected_on):
        return Row(title, [result(97.0, selected_on=selected_on)], [curve])

    rows = [drawn(title, "test") for title in ("torch", "mixer", "mixer")]
    rows += [drawn(title, "validation") for title in ("mixer", "mixer", "wide")]
    assert plot_curves(rows, tmp_path / "curves.png", "title")
    [figure] = figures
    test, validation = ([line.get_color() for line in panel.lines] for panel in figure.axes)
    assert len(set(test)) == len(set(validation)) == 3
    assert validation[:2] == test[1:]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["torch", "mixer", "mixer", "wide"]
    assert not plot_curves([Row("published", [], published={"last": 90.0})], tmp_path / "none.png", "title")


def test_accuracy_stands_beside_what_it_costs(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, dpi: figures.append(self))
    small = Row("small", [result(x, num_params=1000, train_seconds=60.0 * n) for n, x in ((1, 90.0), (3, 92.0))])
    large = [Row("large", [result(97.0, num_params=5000, selected_on=on)]) for on in ("test", "validation")]
    published = Row("theirs", [], published={"best": 88.0}, num_params=3000)
    unknown = Row("of no known size", [], published={"last": 80.0})
    assert plot_costs([small, *large, published, unknown], tmp_path / "costs.png", "title")
    [figure] = figures
    marks = [[line for line in panel.lines if line.get_marker() in ("o", "s", "D")] for panel in figure.axes]
    points = [sorted((*line.get_xdata(), *line.get_ydata()) for line in lines) for lines in marks]
    assert points[0] == [(1000.0, 91.0), (3000.0, 88.0), (5000.0, 97.0), (5000.0, 97.0)]
    assert points[1] == [(1.0, 91.0), (20.0, 97.0), (20.0, 97.0)]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["small", "large", "theirs"]
    assert not plot_costs([small, unknown], tmp_path / "none.png", "title")  # one size: nothing to set against
    assert not plot_costs([published, unknown], tmp_path / "none.png", "title")
