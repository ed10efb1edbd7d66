"""Rows of a comparison: a file brings them back, those that were trained alike are merged, and no others."""

import dataclasses
import re

import pytest

from made_rows import result, row
from mixer_jax.errors import UserError
from mixer_jax.storage import write_json
from mixer_jax.studies.rows import Curve, Row, datasets, merged, read_rows, to_json
from mixer_jax.studies.tables import cells

CURVE = Curve([90.0, 95.1234], [0.5, 0.25], [30.0, 60.5], [500, 1000])


def seeds(title, *numbers, recipe="a", **fields):
    results = [result(97.0 + seed, seed=seed, test_loss=0.2, last_test_loss=0.3, **fields) for seed in numbers]
    return Row(title, results, [CURVE] * len(numbers), recipe=recipe)


def test_a_file_brings_them_back(tmp_path):
    rows = [
        seeds("trained", 0, 1),
        dataclasses.replace(
            seeds("with footnotes", 2), notes=("one", "two"), diverged=[4, 5], published={"last": 97.5}
        ),
        Row("published", [], published={"best": 88.0}, num_params=3000, epochs=5, of_dataset="cifar10"),
        dataclasses.replace(seeds("of an older release", 3), curves=[Curve([90.0])]),
        Row("not finished", [], [CURVE], epochs=2, selected_on="validation"),
        Row("diverged", [], diverged=[0, 1, 2], recipe="b"),
    ]
    write_json(tmp_path / "rows.json", {"rows": list(map(to_json, rows))})
    assert list(map(to_json, read_rows(tmp_path / "rows.json"))) == list(map(to_json, rows))
    for back, before in zip(read_rows(tmp_path / "rows.json"), rows, strict=True):
        assert (back.title, back.protocol, back.against) == (before.title, before.protocol, before.against)
        assert back.dataset == before.dataset
        for curve, its in zip(back.curves, before.curves, strict=True):
            assert [list(x) for x in dataclasses.astuple(curve)] == [list(x) for x in dataclasses.astuple(its)]
        assert [back.accuracies(which) for which in ("last", "best")] == [
            before.accuracies(which) for which in ("last", "best")
        ]
        assert (list(back.results), list(back.notes), list(back.diverged)) == (
            list(before.results), list(before.notes), list(before.diverged)
        )  # fmt: skip


def test_a_file_without_some_curves_is_refused(tmp_path):
    row = to_json(seeds("trained", 0, 1))
    write_json(tmp_path / "rows.json", {"rows": [row | {"val_losses": row["val_losses"][:1]}]})
    with pytest.raises(UserError, match=r"rows.json, row 1: a part of val_losses is missing"):
        list(read_rows(tmp_path / "rows.json"))


def test_a_row_tells_its_accuracies_and_the_time_of_its_fastest_run():
    of_two = Row("two", [result(97.0, 98.0, train_seconds=9.0), result(96.0, 97.5, train_seconds=7.0)])
    assert (of_two.accuracies("last"), of_two.accuracies("best")) == ([97.0, 96.0], [98.0, 97.5])
    assert of_two.seconds == 7.0
    assert of_two.protocol == "test"
    for published, against in (({}, "last"), ({"best": 1.0}, "best"), ({"best": 1.0, "last": 1.0}, "last")):
        assert row("one", [97.0], published=published).against == against


def test_folders_are_datasets_of_their_own():
    folders = [Row(name, [result(97.0, dataset="folder", data_fingerprint=name)]) for name in "ab"]
    rows = [*folders, row("mnist", [97.0]), Row("not finished", [], [CURVE], of_dataset="folder a")]
    assert datasets(rows) == ["folder a", "folder b", "mnist"]


def test_published_rows_are_of_the_last_or_the_best_epoch(tmp_path):
    row = to_json(Row("theirs", [], published={"last": 90.0}))
    write_json(tmp_path / "rows.json", {"rows": [row | {"published": {"test": 90.0}}]})
    with pytest.raises(UserError, match=r"row 1: published has neither last nor best"):
        list(read_rows(tmp_path / "rows.json"))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"title": 5}, "title cannot be 5"),
        ({"num_params": "1.1M"}, 'num_params cannot be "1.1M"'),
        ({"epochs": "300"}, 'epochs cannot be "300"'),
        ({"notes": "One seed"}, 'notes cannot be "One seed"'),
        ({"settings": "x"}, 'settings cannot be "x"'),
        ({"published": {"last": "90.83"}}, 'the published accuracy last is "90.83": give it in percent'),
        ({"published": {"last": float("nan")}}, "the published accuracy last is NaN"),
        ({"published": None}, "published is missing"),
        ({"val_accuracies": 5}, "cannot be read: "),
        ({"results": [1]}, "cannot be read: "),
        ({"published": {}}, "there are no results"),
        ({"results": [{}]}, "dataset is missing"),
    ],
)
def test_mistakes_in_a_file_written_by_hand_get_one_line(changes, why, tmp_path):
    row = to_json(Row("theirs", [], published={"last": 90.0}))
    write_json(tmp_path / "rows.json", {"rows": [row, row | changes]})
    with pytest.raises(UserError, match=f"rows.json, row 2:? {re.escape(why)}"):
        list(read_rows(tmp_path / "rows.json"))


def test_a_file_of_an_older_release_has_only_the_number_of_diverged_seeds(tmp_path):
    write_json(tmp_path / "rows.json", {"rows": [to_json(seeds("x", 0)) | {"diverged": 2}]})
    [row] = read_rows(tmp_path / "rows.json")
    assert row.diverged == [None, None]


def test_a_seed_that_diverged_is_counted_once():
    for rows in (
        [seeds("x", 0), Row("x", [], diverged=(0,), recipe="a")],
        [Row("x", [], diverged=(0, 1), recipe="a"), Row("x", [], diverged=(0,), recipe="a")],
    ):
        with pytest.raises(UserError, match=r"two rows of 'x' share seeds \[0\]"):
            merged(rows)


def test_published_numbers_and_notes_survive_a_merge():
    theirs = dataclasses.replace(seeds("x", 1), published={"last": 90.0}, notes=("one seed",))
    for rows in ([seeds("x", 0), theirs], [theirs, seeds("x", 0)]):
        [joined] = merged(rows)
        assert (joined.published, joined.notes) == ({"last": 90.0}, ("one seed",))
    with pytest.raises(UserError, match="two rows of 'x' differ in published numbers"):
        merged([theirs, dataclasses.replace(seeds("x", 0), published={"last": 91.0})])


def test_a_published_row_of_several_comparisons_appears_once():
    row = Row("theirs", [], published={"last": 90.0}, of_dataset="digits")
    assert merged([row, seeds("x", 0), Row(**vars(row))])[0] == row
    assert len(merged([row, seeds("x", 0), Row(**vars(row))])) == 2
    [joined] = merged([Row("x", [], diverged=(None,), recipe="a"), Row("x", [], diverged=(None, 3), recipe="a")])
    assert joined.diverged == [None, None, 3]  # of older releases: which seeds they were is not known
    with pytest.raises(UserError, match="two rows of 'theirs' differ in published numbers"):
        merged([row, Row("theirs", [], published={"last": 91.0}, of_dataset="digits")])


def test_rows_of_one_title_and_recipe_on_the_same_data_are_merged():
    diverged = Row("x", [], diverged=(3, 4), recipe="a")
    [joined, other] = merged([diverged, seeds("x", 0, 1), seeds("y", 0), seeds("x", 2)])
    assert ([run.seed for run in joined.results], len(joined.curves), joined.diverged) == ([0, 1, 2], 3, [3, 4])
    assert (other.title, len(other.results)) == ("y", 1)
    for apart in (
        {"recipe": "b"},
        {"data_fingerprint": "other"},
        {"dtype": "bfloat16"},
        {"versions": {"torch": "2.13"}},
    ):
        assert len(merged([seeds("x", 0), seeds("x", 1, **apart)])) == 2
    with pytest.raises(UserError, match=r"two rows of 'x' share seeds \[0\]"):
        merged([seeds("x", 0), seeds("x", 0)])
    with pytest.raises(UserError, match="merge: 'x' has no recipe: its seeds were trained by different recipes"):
        merged([seeds("x", 0, recipe="")])


def test_seeds_that_are_not_finished_are_counted_until_another_machine_has_finished_them():
    here = dataclasses.replace(seeds("x", 0), unfinished=[1, 2])
    there = dataclasses.replace(seeds("x", 1), unfinished=[0])
    assert cells([here])[1][0][cells([here])[0].index("seeds")] == "1 (2 more not finished)"
    [joined] = merged([here, there])
    assert joined.unfinished == [2]
