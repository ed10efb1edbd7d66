"""The compare command on real run directories: its table, its page, and what it was given once more."""

import csv
import json
import re
import shutil

import pytest

from mixer_jax import compare, studies
from mixer_jax.errors import UserError
from mixer_jax.run_directory import RunDirectory
from mixer_jax.studies import rows
from runs import train_digits
from support import ROOT, make_config


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    train_digits(folder / "one")
    train_digits(folder / "three", "--config.num_seeds=3", "--config.epochs=4")
    return folder


def published(folder):
    """A file with an accuracy of digits that somebody published."""
    row = {"title": "theirs", "of_dataset": "digits", "num_params": 3000, "published": {"last": 90.0}, "notes": []}
    (folder / "published.json").write_text(json.dumps({"rows": [row | {"results": [], "val_accuracies": []}]}))
    return folder / "published.json"


def call(*arguments):
    return compare.main(["compare", *map(str, arguments)])


def test_two_runs_beside_each_other(runs, tmp_path, capsys):
    output = tmp_path / "out"
    assert call(runs / "one", runs / "three", f"--output={output}") == 0
    out = capsys.readouterr().out
    one, three = RunDirectory(runs / "one").read_results(), RunDirectory(runs / "three").read_results()
    lines = [line for line in (output / "comparison.md").read_text().splitlines() if line.startswith("|")]
    assert f"| one: digits, Pico/2 | {one.num_params:,} | 2 | 1 |" in lines[2]
    assert f"| {one.last_test_accuracy:.2f} |" in lines[2]
    assert "| three: digits, Pico/2 |" in lines[3]
    assert f"{three.last_test_accuracy:.2f} ± {three.std['last_test_accuracy']:.2f} [" in lines[3]
    assert re.search(rf"^one: digits, Pico/2 +{one.last_test_accuracy:.2f} +{one.test_accuracy:.2f}", out, re.M)
    assert max(map(len, out.partition("\nAccuracies in percent")[0].splitlines())) <= 80
    assert one.data_fingerprint in out
    for text in ((output / "comparison.md").read_text(), (output / "comparison.html").read_text()):
        assert re.search(r"three: digits, Pico/2.*epochs=4\.0", text)
    page = (output / "comparison.html").read_text()
    assert "three: digits, Pico/2" in page
    assert not re.search(r'(src|href)="(?!data:)', page)  # nothing from elsewhere
    first, second = csv.DictReader((output / "comparison.csv").read_text().splitlines())
    assert float(first["test_accuracy_last_mean"]) == one.last_test_accuracy
    assert float(second["test_accuracy_last_std"]) == pytest.approx(three.std["last_test_accuracy"])
    assert f"three: digits, Pico/2 & {three.num_params:,} & 4 & 3 & " in (output / "comparison.tex").read_text()
    assert (output / "curves.png").stat().st_size > 10_000


def test_the_curves_of_several_seeds_are_the_same_before_and_after_the_end(runs, tmp_path):
    shutil.copytree(runs / "three", tmp_path / "three")
    for results in tmp_path.rglob("results.json"):
        results.unlink()
    [finished], [unfinished] = (list(rows.read_rows(folder / "three")) for folder in (runs, tmp_path))
    assert not unfinished.results
    assert unfinished.curves == finished.curves


def test_runs_of_the_same_name_are_told_apart_by_their_paths(runs, tmp_path, monkeypatch):
    for folder in ("here", "there"):
        shutil.copytree(runs / "one", tmp_path / folder / "one")
    monkeypatch.chdir(tmp_path)
    assert call("here/one", "there/one", "--output=out") == 0
    titles = [row["title"] for row in json.loads((tmp_path / "out" / "comparison.json").read_text())["rows"]]
    assert titles == ["one: digits, Pico/2 (here/one)", "one: digits, Pico/2 (there/one)"]


def test_rows_can_be_chosen_by_their_titles(runs, tmp_path):
    studied = ROOT / "configs" / "results" / "cifar10_study" / "comparison.json"
    assert call(studied, f"--output={tmp_path / 'out'}", "--rows=^base(, AdamW)?$") == 0
    rows = json.loads((tmp_path / "out" / "comparison.json").read_text())["rows"]
    assert [row["title"] for row in rows] == ["base", "base, AdamW"]
    for pattern, line in (("nothing", "no row has a title that matches 'nothing'"), ("(", "not a regular expression")):
        with pytest.raises(UserError, match=line):
            call(studied, f"--output={tmp_path / 'none'}", f"--rows={pattern}")


def test_what_it_wrote_it_reads(runs, tmp_path, capsys):
    assert call(runs / "three", f"--output={tmp_path / 'a'}") == 0
    first = capsys.readouterr().out.partition(str(tmp_path))[0]
    assert call(tmp_path / "a" / "comparison.json", f"--output={tmp_path / 'b'}") == 0
    assert capsys.readouterr().out.partition(str(tmp_path))[0] == first
    written = [json.loads((tmp_path / name / "comparison.json").read_text()) for name in "ab"]
    assert written[0] == written[1]
    assert (tmp_path / "b" / "comparison.md").read_text().startswith("# a\n")


def test_seeds_of_several_machines_are_one_row(runs, tmp_path, capsys):
    assert call(runs / "three", f"--output={tmp_path / 'whole'}") == 0
    whole = capsys.readouterr().out.partition(str(tmp_path))[0]
    [row] = json.loads((tmp_path / "whole" / "comparison.json").read_text())["rows"]
    parts = []
    for name, seeds in (("first", slice(0, 1)), ("rest", slice(1, 3))):
        part = row | {key: row[key][seeds] for key in ("results", "val_accuracies", "val_losses", "seconds", "images")}
        parts.append(tmp_path / f"{name}.json")
        parts[-1].write_text(json.dumps({"rows": [part]}))
    assert call(*parts, "--merge", f"--output={tmp_path / 'merged'}") == 0
    assert capsys.readouterr().out.partition(str(tmp_path))[0] == whole
    assert call(*parts, f"--output={tmp_path / 'apart'}") == 0
    table = (tmp_path / "apart" / "comparison.md").read_text()
    for name in ("first", "rest"):
        assert table.count(f"| three: digits, Pico/2 ({name}.json) |") == 1
    with pytest.raises(UserError, match=r"'three: digits, Pico/2' share seeds \[0\]"):
        call(parts[0], tmp_path / "whole" / "comparison.json", "--merge", f"--output={tmp_path / 'twice'}")
    assert not (tmp_path / "twice").exists()
    none = {key: [[]] for key in ("val_losses", "seconds", "images")}
    ninth = none | {"results": [row["results"][0] | {"seed": 9, "epochs": 5}], "val_accuracies": [[1.0] * 5]}
    diverged = none | {"results": [], "val_accuracies": [], "diverged": 2}
    for number, (other, cells) in enumerate((
        (ninth, ["| 4 to 5 | 3 |"]),  # one may have stopped early
        (ninth | {"recipe": "another"}, ["| 4 | 2 |", "| 5 | 1 |"]),
        (diverged, ["| 4 | 2 (2 more diverged) |"]),
        (diverged | {"recipe": "another"}, ["| 4 | 2 |", "| 0 (2 more diverged) |"]),
    )):  # fmt: skip
        (tmp_path / "other.json").write_text(json.dumps({"rows": [row | other]}))
        capsys.readouterr()
        assert call(tmp_path / "other.json", parts[1], "--merge", f"--output={tmp_path / str(number)}") == 0
        table = (tmp_path / str(number) / "comparison.md").read_text()
        assert table.count("| three: digits, Pico/2 |") == len(cells)
        assert all(cell in table for cell in cells)
        assert "## " not in table  # one dataset, also for a row without results
    del row["recipe"]
    (tmp_path / "old.json").write_text(json.dumps({"rows": [row]}))
    assert call(tmp_path / "old.json", f"--output={tmp_path / 'old'}") == 0
    with pytest.raises(UserError, match="merge: 'three: digits, Pico/2' has no recipe"):
        call(tmp_path / "old.json", "--merge", f"--output={tmp_path / 'older'}")


def test_a_recipe_is_all_of_a_config_but_the_seed_and_the_machine():
    one = rows._recipe(make_config())
    for same in ({"seed": 3, "num_seeds": 2}, {"dataset__data_dir": "/data", "accumulation_steps": 2}):
        assert rows._recipe(make_config(**same)) == one
    for other in ({"epochs": 3.0}, {"early_stopping_patience": 2}, {"optimizer__learning_rate": 0.5}):
        assert rows._recipe(make_config(**other)) != one


def test_published_numbers_stand_beside_a_run(runs, tmp_path):
    theirs = ROOT / "configs" / "results" / "published_cifar10.json"
    for out, paths in (("first", [runs / "one", theirs]), ("again", [tmp_path / "first" / "comparison.json"])):
        studies.compare(paths, tmp_path / out)
        told = (tmp_path / out / "comparison.md").read_text()
        assert "| MLP-Mixer, PyTorch (kentaroy47/vision-transformers-cifar10) [2] | 1,819,530 | 500 |" in told
        for number in ("90.83", "88.00 (best)", "71.20", "3 h 35 min"):
            assert number in told
        assert "673,418" in told
        assert (tmp_path / out / "curves.png").exists()


def test_seeds_at_once_took_their_share_of_the_time(runs, tmp_path):
    assert call(runs / "three", f"--output={tmp_path / 'out'}") == 0
    [row] = json.loads((tmp_path / "out" / "comparison.json").read_text())["rows"]
    alone = [RunDirectory(runs / "three" / f"seed_{seed}").read_results().train_seconds for seed in range(3)]
    assert [result["train_seconds"] for result in row["results"]] == pytest.approx([each / 3 for each in alone])
    assert RunDirectory(runs / "three").read_results().train_seconds == max(alone)


def test_only_a_comparison_is_written_over(runs, tmp_path):
    output = tmp_path / "out"
    assert call(runs / "one", published(tmp_path), f"--output={output}") == 0
    assert (output / "costs.png").exists()
    with pytest.raises(UserError, match="already exists: --overwrite replaces it"):
        call(runs / "one", f"--output={output}")
    assert call(runs / "one", f"--output={output}", "--overwrite") == 0
    assert not (output / "costs.png").exists()
    (output / ".partial.comparison.json").touch()  # of one that was killed
    assert call(runs / "one", f"--output={output}", "--overwrite") == 0
    with pytest.raises(UserError, match="out contains one of the paths to compare: choose another output"):
        call(output / "comparison.json", f"--output={output}")
    before = (runs / "three" / "curves.png").read_bytes()
    with pytest.raises(UserError, match=r"one holds other files \(.*, ...\): choose another output"):
        call(runs / "three", f"--output={runs / 'one'}")
    assert (runs / "three" / "curves.png").read_bytes() == before


def test_a_run_that_got_more_epochs_is_not_one_of_those_that_had_them(tmp_path, capsys):
    """The cosine went down twice: another recipe, and a footnote says so."""
    train_digits(tmp_path / "whole", "--config.epochs=4", "--config.seed=1")
    train_digits(tmp_path / "run" / "x", "--config.epochs=2")
    train_digits(tmp_path / "run" / "x", "--config.epochs=4")
    (tmp_path / "whole").rename(tmp_path / "x")
    assert call(tmp_path / "x", tmp_path / "run" / "x", "--merge", f"--output={tmp_path / 'out'}") == 0
    out = capsys.readouterr().out
    assert "x: digits, Pico/2 [1]" in out
    out = (tmp_path / "out" / "comparison.md").read_text()
    written = json.loads((tmp_path / "out" / "comparison.json").read_text())["rows"]
    assert [len(row["results"]) for row in written] == [1, 1]
    assert "| x: digits, Pico/2 [1] |" in out
    assert "started for 2 epochs, later changed, so the schedule is not that of a run of that length" in out
    cautions = RunDirectory(tmp_path / "run" / "x").read_results().cautions
    assert "the first 36 steps used a schedule for 2 epochs; later steps did not" in cautions


def test_a_run_that_is_not_finished_has_a_curve_and_says_so(runs, tmp_path, capsys):
    half = shutil.copytree(runs / "one", tmp_path / "half")
    (half / "results.json").unlink()
    RunDirectory(half).write_metrics(RunDirectory(half).read_metrics()[:1])
    assert call(half, runs / "one", f"--output={tmp_path / 'out'}") == 0
    assert "half: digits, Pico/2, epoch 1 of\n2, not finished" in re.sub(" {2,}.*", "", capsys.readouterr().out)
    out = (tmp_path / "out" / "comparison.md").read_text()
    assert "| half: digits, Pico/2, epoch 1 of 2, not finished |" in out
    again = tmp_path / "out" / "comparison.json"
    assert call(again, f"--output={tmp_path / 'again'}") == 0
    assert json.loads((tmp_path / "again" / "comparison.json").read_text()) == json.loads(again.read_text())


def test_odd_names_and_damaged_runs(runs, tmp_path, capsys):
    names = [tmp_path / "_x", tmp_path / "a $b_$ c"]
    for name in names:
        shutil.copytree(runs / "one", name)
    assert call(*names, published(tmp_path), f"--output={tmp_path / 'out'}") == 0
    assert (tmp_path / "out" / "costs.png").exists()
    (names[0] / "metrics.jsonl").unlink()
    assert call(names[0], f"--output={tmp_path / 'without'}") == 0
    assert not (tmp_path / "without" / "curves.png").exists()
    (runs / "three" / "seed_0.old1").mkdir()
    assert call(runs / "three", f"--output={tmp_path / 'three'}") == 0
    (names[0] / "results.json").write_text("{}")
    with pytest.raises(UserError, match=r"cannot read .*results.json: dataset is missing"):
        call(names[0], f"--output={tmp_path / 'empty'}")
    for text, why in (("{}", "was not written by a study"), ("[]", "holds no JSON object")):
        (tmp_path / "study.json").write_text(text)
        with pytest.raises(UserError, match=rf"study.json.* {why}"):
            call(tmp_path, f"--output={tmp_path / 'empty'}")


def test_mistakes_get_one_line_and_write_nothing(runs, tmp_path):
    (tmp_path / "other.json").write_text('{"rows": [{"title": "x"}]}')
    (tmp_path / "broken.json").write_text("{")
    for arguments, line in (
        ([], "no paths given, at least one expected: python -m mixer_jax.compare RUN_OR_STUDY"),
        ([tmp_path / "nowhere"], "nowhere is not a run directory, study or .json file"),
        ([tmp_path / "other.json"], "other.json, row 1: results is missing"),
        ([tmp_path / "broken.json"], "cannot read .*broken.json"),
        (["--outptu=x", runs / "one"], r"unknown flag --outptu .did you mean 'output'"),
    ):
        with pytest.raises(UserError, match=line) as caught:
            call(*arguments, f"--output={tmp_path / 'out'}")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
