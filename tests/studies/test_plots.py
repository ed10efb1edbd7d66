"""The pictures of a comparison: every row has a line, and a point beside what it costs."""

import itertools

import pytest
from matplotlib.figure import Figure

from made_rows import result
from mixer_jax.studies.plots import plot_costs, plot_curves
from mixer_jax.studies.rows import Curve, Row


def test_every_row_has_a_line_and_an_arm_one_colour_in_both_protocols(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, dpi: figures.append(self))
    curve = Curve([90.0, 95.0])

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


@pytest.mark.parametrize("sizes", [(1_066_634, 4_360_970), (26_506, 1_625_866), (1_000, 10_000_000)])
def test_the_numbers_of_parameters_do_not_overlap(sizes, tmp_path, monkeypatch):
    figures, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, path, dpi: (figures.append(self), save(self, path, dpi=dpi)))
    rows = [Row(str(n), [result(90.0, num_params=n, train_seconds=60.0)]) for n in sizes]
    assert plot_costs(rows, tmp_path / "costs.png", "title")
    panel = figures[0].axes[0]
    low, high = panel.get_xlim()
    shown = [label for label, x in zip(panel.get_xticklabels(), panel.get_xticks(), strict=True) if low <= x <= high]
    boxes = sorted((label.get_window_extent() for label in shown), key=lambda box: box.x0)
    assert len(boxes) >= 2
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


def test_accuracy_stands_beside_what_it_costs(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, dpi: figures.append(self))
    small = Row("small", [result(x, num_params=1000, train_seconds=60.0 * n) for n, x in ((1, 90.0), (3, 92.0))])
    large = [Row("large", [result(97.0, num_params=5000, selected_on=on)]) for on in ("test", "validation")]
    published = Row("theirs", [], published={"best": 88.0}, num_params=3000, of_dataset="mnist")
    timed = Row("of known time", [], published={"last": 94.0}, train_seconds=1800.0, of_dataset="mnist")
    unknown = Row("of no known size", [], published={"last": 80.0}, of_dataset="mnist")
    unfinished = Row("not finished", [], num_params=4000, of_dataset="mnist")
    assert plot_costs([small, *large, published, timed, unknown, unfinished], tmp_path / "costs.png", "title")
    [figure] = figures
    marks = [[line for line in panel.lines if line.get_marker() in ("o", "s", "D")] for panel in figure.axes]
    points = [sorted((*line.get_xdata(), *line.get_ydata()) for line in lines) for lines in marks]
    assert points[0] == [(1000.0, 91.0), (3000.0, 88.0), (5000.0, 97.0), (5000.0, 97.0)]
    assert points[1] == [(1.0, 91.0), (20.0, 97.0), (20.0, 97.0), (30.0, 94.0)]
    hollow = [line for lines in marks for line in lines if line.get_markerfacecolor() == "none"]
    assert [line.get_ydata().tolist() for line in hollow] == [[88.0], [94.0]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["small", "large", "theirs", "of known time"]
    assert not plot_costs([small, unknown], tmp_path / "none.png", "title")  # one size: nothing to set against
    assert not plot_costs([published, unknown], tmp_path / "none.png", "title")
