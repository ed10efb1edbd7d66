"""Scores of a trained model: against scikit-learn, and against what the run itself measured."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from sklearn import metrics
from sklearn.datasets import load_digits

from made_models import made_classifier
from mixer_jax import evaluate
from mixer_jax.checkpoints import Checkpoints
from mixer_jax.errors import UserError
from mixer_jax.inference import load
from mixer_jax.metrics import accuracy_interval, balanced_accuracy, classification_scores, hardest_first
from mixer_jax.reporting import describe
from runs import SHRINK, main


def test_scores_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 7, 500)
    logits = rng.normal(size=(500, 8)).astype(np.float32) + 2 * np.eye(8, dtype=np.float32)[labels]
    logits[:50] = np.round(logits[:50])  # ties
    found = classification_scores(logits, labels, list("abcdefgh"))
    probabilities = np.exp(logits - logits.max(1, keepdims=True), dtype=np.float64)
    probabilities /= probabilities.sum(1, keepdims=True)
    predicted = logits.argmax(1)
    assert found["accuracy"] == pytest.approx(100 * metrics.accuracy_score(labels, predicted))
    untied = metrics.top_k_accuracy_score(labels[50:], logits[50:], k=5, labels=range(8))
    assert classification_scores(logits[50:], labels[50:], list("abcdefgh"))["top5_accuracy"] == pytest.approx(
        100 * untied
    )
    assert found["loss"] == pytest.approx(metrics.log_loss(labels, probabilities, labels=range(8)))
    assert found["confusion"] == metrics.confusion_matrix(labels, predicted, labels=range(8)).tolist()
    theirs = metrics.precision_recall_fscore_support(labels, predicted, labels=range(7))
    for key, values in zip(("precision", "accuracy", "f1", "count"), theirs, strict=True):
        percent = 1 if key == "count" else 100
        assert [found["per_class"][name][key] for name in "abcdefg"] == pytest.approx(percent * values)
    assert found["balanced_accuracy"] == pytest.approx(100 * theirs[1].mean())
    assert balanced_accuracy(logits, labels) == pytest.approx(found["balanced_accuracy"])
    h = {"accuracy": None, "precision": 0.0, "f1": 0.0, "count": 0, "confused_with": None}
    assert found["per_class"]["h"] == h
    wrong = [predicted[(labels == 0) & (predicted == other)].size for other in range(1, 8)]
    assert found["per_class"]["a"]["confused_with"] == "bcdefgh"[int(np.argmax(wrong))]
    # The definition, bin by bin: (lower, upper], the share of the examples times the gap.
    confidence, error, bins = probabilities.max(1), 0.0, []
    for lower in np.arange(15) / 15:
        inside = (confidence > lower) & (confidence <= lower + 1 / 15)
        if inside.any():
            right, sure = (predicted == labels)[inside].mean(), confidence[inside].mean()
            error += inside.mean() * abs(right - sure)
            bins.append({"confidence": 100 * sure, "accuracy": 100 * right, "count": inside.sum()})
    assert [*map(pytest.approx, bins)] == found["calibration"]
    assert found["calibration_error"] == pytest.approx(100 * error)


@pytest.mark.parametrize(("right", "examples"), [(0, 10), (355, 360), (9066, 10000), (7, 7)])
def test_the_interval_of_an_accuracy_is_scipys(right, examples):
    theirs = stats.binomtest(right, examples).proportion_ci(method="wilson")
    found = accuracy_interval(100 * right / examples, examples)
    np.testing.assert_allclose(found, [100 * theirs.low, 100 * theirs.high], atol=1e-5)


def test_a_few_images_do_not_make_the_hardest_class():
    right, counts = np.array([0, 5, 30, 0, 8]), np.array([1, 30, 30, 0, 10])  # one mistake, 25, none, no image, two
    assert hardest_first(right, counts) == [1, 0, 4, 2]
    shares = [
        stats.binomtest(int(r), int(n)).proportion_ci(method="wilson").high
        for r, n in zip(right, counts, strict=True)
        if n
    ]
    assert np.argsort(shares).tolist() == [1, 0, 3, 2]  # of those with images


def test_a_tie_is_decided_as_argmax_does():
    found = classification_scores(np.zeros((10, 10), np.float32), np.arange(10), list("0123456789"))
    assert (found["accuracy"], found["top5_accuracy"]) == (10.0, 50.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("evaluate") / "run"
    flags = ["--config.batch_size=64", "--config.epochs=4", "--config.checkpoint_steps=30", "--config.ema_decay=0.9"]
    assert main("digits", path, *SHRINK, *flags) == 0
    return path


def call(*flags):
    return evaluate.main(["evaluate", "--overwrite", *map(str, flags)])


def test_it_writes_over_nothing_unasked(run, tmp_path):
    flags = "--workdir", run, "--output", tmp_path
    assert call(*flags) == 0
    with pytest.raises(UserError, match="evaluation.json already exists: --overwrite replaces it"):
        evaluate.main(["evaluate", *map(str, flags)])


def test_every_image_is_listed_with_its_file_and_prediction(write_folder, tmp_path, with_pictures):
    root, workdir, output = write_folder(), tmp_path / "run", tmp_path / "out"
    (root / "test" / "dog" / "0.png").rename(root / "test" / "dog" / "猫, 1.png")
    assert main("folder", workdir, *SHRINK, f"--config.dataset.data_dir={root}", "--config.epochs=1") == 0
    assert call("--workdir", workdir, "--output", output) == 0
    model = load(workdir)
    for table in (workdir / "predictions.csv", output / "predictions.csv"):
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert {row["image"] for row in rows} == {str(path.relative_to(root)) for path in (root / "test").glob("*/*")}
        for row in rows:
            assert row["class"] == row["image"].split("/")[1]
            [[(name, probability)]] = model.predict(root / row["image"], top=1)
            assert row["predicted"] == name
            assert float(row["probability"]) == pytest.approx(probability, abs=1e-5)
        order = [(row["class"] == row["predicted"], -float(row["probability"])) for row in rows]
        wrong = [mark for mark in order if not mark[0]]
        assert order[: len(wrong)] == sorted(wrong)
    with (output / "classes.csv").open(encoding="utf-8", newline="") as file:
        assert [(row["class"], row["images"]) for row in csv.DictReader(file)] == [("cat", "8"), ("dog", "8")]
    found = json.loads((output / "evaluation.json").read_text())
    results = json.loads((workdir / "results.json").read_text())
    assert results["test_balanced_accuracy"] == pytest.approx(found["balanced_accuracy"])


def test_names_in_three_scripts_stand_in_columns():
    labels, names = np.repeat(np.arange(3), [5, 4, 3]), ["Straße", "猫", "собака"]
    logits = np.eye(3, dtype=np.float32)[[0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0]]
    head, *lines = describe(classification_scores(logits, labels, names)).splitlines()[3:]
    assert [line.split() for line in lines] == [
        ["собака", "3", "0.0%", "-", "0.0%", "Straße"],
        ["猫", "4", "75.0%", "75.0%", "75.0%", "Straße"],
        ["Straße", "5", "80.0%", "50.0%", "61.5%", "猫"],
    ]
    wide = {line: line.replace("猫", "mm") for line in lines}  # as many columns on a terminal
    assert {wide[line].index(line.split()[2]) + len(line.split()[2]) for line in lines} == {head.index("recall") + 6}


def test_where_nothing_can_be_written_is_found_before_anything_is_computed(run, tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write .*file/out/.*: .*file is not a folder"):
        call("--workdir", run, "--output", tmp_path / "file" / "out")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("checkpoint", "prefix"), [("best", ""), ("latest", "last_")])
@pytest.mark.parametrize("split", ["test", "validation"])
def test_scores_are_those_of_the_run(split, checkpoint, prefix, run, tmp_path, capsys):
    assert call("--workdir", run, "--split", split, "--checkpoint", checkpoint, "--output", tmp_path / "out") == 0
    results = json.loads((run / "results.json").read_text())
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    key = prefix + {"test": "test", "validation": "val"}[split]
    assert found["accuracy"] == pytest.approx(results[f"{key}_accuracy"])
    assert found["loss"] == pytest.approx(results[f"{key}_loss"], rel=1e-5)
    assert f"{found['accuracy']:.2f}% top-1" in capsys.readouterr().out


def test_it_leaves_json_csv_and_a_picture_in_the_run_directory(run):
    step = Checkpoints(run / "checkpoints").saved_steps()[0]
    assert call("--workdir", run, "--checkpoint", step) == 0
    folder = run / "evaluation" / f"test_{step}"
    found = json.loads((folder / "evaluation.json").read_text())
    header, *rows = csv.reader((folder / "confusion.csv").read_text().splitlines())
    assert header[1:] == [row[0] for row in rows] == list("0123456789")
    assert [[int(x) for x in row[1:]] for row in rows] == found["confusion"]
    assert sum(map(sum, found["confusion"])) == found["examples"] == 360
    image = np.asarray(Image.open(folder / "confusion.png").convert("RGB"))
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 20
    assert call("--workdir", run) == 0  # a second evaluation, beside the first
    assert {p.name for p in (run / "evaluation").iterdir()} == {f"test_{step}", "test_best"}


def test_it_needs_no_data_but_the_splits_own(write_folder, tmp_path, capsys):
    images = write_folder()
    flags = [f"--config.dataset.data_dir={images}", *SHRINK]
    assert main("folder", tmp_path / "run", *flags) == 0
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (images / "test").rename(moved / "test")
    shutil.rmtree(images)
    assert call("--workdir", tmp_path / "run", "--data_dir", moved) == 0
    found = json.loads((tmp_path / "run" / "evaluation" / "test_best" / "evaluation.json").read_text())
    assert found["accuracy"] == json.loads((tmp_path / "run" / "results.json").read_text())["test_accuracy"]
    assert found["data_dir"] == str(moved)
    assert "the run had" not in capsys.readouterr().err
    next((moved / "test" / "dog").iterdir()).unlink()
    assert call("--workdir", tmp_path / "run", "--data_dir", moved, "--overwrite") == 0
    assert re.search(r"warning: the run had (\d+) test images, but .*elsewhere has \d+ now", capsys.readouterr().err)
    with pytest.raises(UserError, match="no train images in .*elsewhere; expected "):
        call("--workdir", tmp_path / "run", "--data_dir", moved, "--split", "validation")
    (moved / "test" / "dog").rename(moved / "test" / "wolf")
    with pytest.raises(UserError, match="the classes of the test split are not those of the model: dog, wolf"):
        call("--workdir", tmp_path / "run", "--data_dir", moved)


def test_a_file_of_weights_scores_what_the_run_does_on_a_dataset_that_is_named(run, tmp_path, capsys):
    load(run).save(tmp_path / "x.safetensors", "timm")
    flags = "--workdir", tmp_path / "x.safetensors", "--output", tmp_path / "out"
    with pytest.raises(UserError, match="x.safetensors does not come from a run.*: give one with --dataset"):
        call(*flags)
    assert not (tmp_path / "out").exists()
    assert call(*flags, "--dataset", "digits") == 0
    assert "digits, 360 test images" in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    results = json.loads((run / "results.json").read_text())
    assert found["accuracy"] == pytest.approx(results["test_accuracy"])
    assert found["loss"] == pytest.approx(results["test_loss"], rel=1e-5)


def test_a_grey_model_is_evaluated_on_a_folder_of_images(tmp_path, capsys, monkeypatch):
    digits = load_digits()
    for i in range(100):
        for number in (i, 100 + i):
            path = tmp_path / "digits" / str(digits.target[number]) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((digits.images[number] * 15.9).astype(np.uint8)).convert("RGB").save(path)
    monkeypatch.chdir(tmp_path)
    assert call("--workdir", "mnist", "--dataset", "folder", "--data_dir", "digits") == 0
    out = capsys.readouterr().out
    assert "digits: a folder for each class; 20% of each class is drawn for testing" in out
    found = json.loads((tmp_path / "evaluation" / "mnist" / "test_best" / "evaluation.json").read_text())
    assert found["examples"] == 40
    assert found["accuracy"] > 40


def test_damage_is_named_and_the_checkpoint_before_it_used(run, tmp_path, capsys):
    damaged = shutil.copytree(run, tmp_path / "run")
    old, new = Checkpoints(damaged / "checkpoints").saved_steps()
    (damaged / "checkpoints" / str(new) / "progress.json").write_text("{}")
    assert call("--workdir", damaged, "--checkpoint", "latest") == 0
    found = json.loads((damaged / "evaluation" / "test_latest" / "evaluation.json").read_text())
    assert found["step"] == old
    assert f"checkpoints/{new} is damaged: progress.json has 2 bytes" in capsys.readouterr().err
    with pytest.raises(UserError, match=rf"checkpoint .*{new} is damaged"):
        call("--workdir", damaged, "--checkpoint", new)
    assert (damaged / "checkpoints" / str(new)).exists()  # who only reads, moves nothing
    shutil.rmtree(damaged / "checkpoints" / str(old))
    with pytest.raises(UserError, match=rf"checkpoint .*{new} is damaged"):
        call("--workdir", damaged)


def test_a_checkpoint_of_another_model_is_refused(run, tmp_path):
    other = shutil.copytree(run, tmp_path / "run")
    config = json.loads((other / "config.json").read_text())
    for field, value, line in (
        ("hidden_dim", 9, r"\['MixerBlock_0'\]\['LayerNorm_0'\]\['bias'\] is float32\[8\], expected float32\[9\]"),
        ("num_blocks", 2, r"\['MixerBlock_1'\]\['LayerNorm_0'\]\['bias'\] is missing, expected float32\[8\]"),
        ("pre_head_norm", False, r"\['pre_head_layer_norm'\]\['bias'\] is unexpected"),
    ):
        changed = config | {"config": config["config"] | {"model": config["config"]["model"] | {field: value}}}
        (other / "config.json").write_text(json.dumps(changed))
        with pytest.raises(UserError, match=f"checkpoint .* does not match the model: {line}"):
            call("--workdir", other)


def test_a_model_without_a_head_is_refused(tmp_path):
    made_classifier(label_names=()).save(tmp_path / "headless.safetensors")
    with pytest.raises(UserError, match="has no head and so no classes: fine-tune it"):
        call("--workdir", tmp_path / "headless.safetensors", "--dataset=digits")


def test_several_seeds_are_evaluated_one_by_one(tmp_path):
    assert main("digits", tmp_path / "run", *SHRINK, "--config.num_seeds=2", "--config.batch_size=64") == 0
    with pytest.raises(UserError, match="holds 2 runs: give one, such as .*seed_0"):
        call("--workdir", tmp_path / "run")
    assert call("--workdir", tmp_path / "run" / "seed_1", "--checkpoint", "latest") == 0
    results = json.loads((tmp_path / "run" / "seed_1" / "results.json").read_text())
    found = tmp_path / "run" / "seed_1" / "evaluation" / "test_latest" / "evaluation.json"
    assert json.loads(found.read_text())["loss"] == pytest.approx(results["last_test_loss"], rel=1e-5)
