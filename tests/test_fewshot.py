"""Few-shot linear regression against its definition in NumPy, on a run's own features."""

import json

import jax
import numpy as np
import pytest

from mixer_jax import data, fewshot
from mixer_jax.data import StreamedSplit
from mixer_jax.errors import UserError
from mixer_jax.inference import dataset_of, load, open_split
from runs import SHRINK, main, train_digits


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train_digits(tmp_path_factory.mktemp("fewshot") / "run", "--config.epochs=8")


def call(path, *flags):
    return fewshot.main(["fewshot", "--workdir", str(path), "--overwrite", *flags])


def test_it_writes_over_nothing_unasked(trained, tmp_path):
    (tmp_path / "mine.json").write_text("mine")
    with pytest.raises(UserError, match="mine.json already exists: --overwrite replaces it"):
        fewshot.main(["fewshot", "--workdir", str(trained), f"--output={tmp_path / 'mine.json'}"])


def ridge(features, labels, l2):
    """(X'X + l2 I)^-1 X'Y on standardised features, with targets -1 and 1 whose mean is taken off; a scorer."""
    mean, std = features.mean(0), features.std(0)
    x, y = (features - mean) / std, 2.0 * np.eye(10)[labels] - 1
    w = np.linalg.solve(x.T @ x + l2 * np.eye(x.shape[1]), x.T @ (y - y.mean(0)))
    return lambda some, its: np.mean(np.argmax((some - mean) / std @ w + y.mean(0), 1) == its)


def test_accuracies_are_those_of_the_definition(trained, capsys):
    assert call(trained, "--shots=1,5,25", "--seeds=2") == 0
    printed = capsys.readouterr().out
    result = json.loads((trained / "fewshot" / "digits_best.json").read_text())
    assert [row["shots"] for row in result["shots"]] == [1, 5, 25]
    classifier = load(trained)
    splits = {name: data.open_split(classifier.origin.dataset, name) for name in ("train", "validation", "test")}
    sets = {name: split.read(range(len(split))) for name, split in splits.items()}
    features = {name: classifier.features(images, 512).astype(np.float64) for name, (images, _) in sets.items()}
    labels = {name: of_split for name, (_, of_split) in sets.items()}
    for row in result["shots"]:
        for seed in range(2):
            order = np.random.default_rng(seed).permutation(len(labels["train"]))
            drawn = np.concatenate([order[labels["train"][order] == c][: row["shots"]] for c in range(10)])
            score = {l2: ridge(features["train"][drawn], labels["train"][drawn], l2) for l2 in fewshot.L2}
            valid = {l2: s(features["validation"], labels["validation"]) for l2, s in score.items()}
            assert row["l2"][seed] == max(fewshot.L2, key=valid.get)
            accuracy = 100 * score[row["l2"][seed]](features["test"], labels["test"])
            assert row["accuracies"][seed] == pytest.approx(accuracy, abs=0.3)  # one image of a tie
        assert row["mean"] == pytest.approx(np.mean(row["accuracies"]))
        assert row["std"] == pytest.approx(np.std(row["accuracies"], ddof=1))
        assert f"| {row['shots']} | {row['mean']:.2f} ± {row['std']:.2f}% |" in printed
    means = [row["mean"] for row in result["shots"]]
    assert means == sorted(means)


def test_only_the_images_that_are_drawn_are_read(trained, monkeypatch):
    """The same as those of a dataset whose labels are only known once its images are read."""
    classifier, read = load(trained), []
    split = open_split(classifier, dataset_of(classifier), "train")
    original = StreamedSplit.read
    monkeypatch.setattr(StreamedSplit, "read", lambda self, at: read.extend(at) or original(self, at))
    features, labels, ranks = fewshot._draw(classifier, split, split.source.label_names, 3, 5, 64)
    assert len(read) == 30
    monkeypatch.setattr(type(split.source), "labels", lambda self: None)
    others, other_labels, other_ranks = fewshot._draw(classifier, split, split.source.label_names, 3, 5, 64)
    assert len(read) > 60
    order, other_order = np.lexsort((ranks, labels)), np.lexsort((other_ranks, other_labels))
    np.testing.assert_array_equal(labels[order], other_labels[other_order])
    np.testing.assert_array_equal(ranks[order], other_ranks[other_order])
    np.testing.assert_allclose(features[order], others[other_order], atol=1e-5)


def test_features_are_what_the_head_takes(trained):
    classifier = load(trained)
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1)).astype(np.uint8)
    head = jax.tree.map(np.asarray, classifier.params["head"])
    logits = classifier.features(images, 4) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(classifier.logits(images, 4), logits, atol=1e-5)


def test_of_a_file_of_weights_it_is_the_same(tmp_path):
    run = train_digits(tmp_path / "run", "--config.dataset.val_fraction=0.1")  # the default, as a file has no other
    load(run).save(tmp_path / "weights.npz")
    flags = ["--shots=2,5", "--seeds=2", f"--output={tmp_path / 'found.json'}"]
    with pytest.raises(UserError, match="weights.npz does not come from a run.*: give one with --dataset"):
        call(tmp_path / "weights.npz", *flags)
    assert call(tmp_path / "weights.npz", "--dataset=digits", *flags) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert call(run, *flags) == 0
    assert found["shots"] == json.loads((tmp_path / "found.json").read_text())["shots"]


def test_another_dataset_is_fitted_to_the_runs_images(trained, write_folder, tmp_path):
    images = write_folder(per_class=20)
    run = tmp_path / "run"
    assert main("folder", run, f"--config.dataset.data_dir={images}", *SHRINK, "--config.dataset.image_size=16,16") == 0
    assert call(run, "--dataset=folder", f"--data_dir={images}", "--shots=2", "--seeds=1") == 0
    assert json.loads((run / "fewshot" / "folder_best.json").read_text())["classes"] == 2
    content = json.loads((run / "config.json").read_text())
    content["config"]["dataset"]["layout"] = "splits"
    (run / "config.json").write_text(json.dumps(content))
    (images / "test" / "dog").rename(images / "test" / "wolf")
    with pytest.raises(UserError, match="the classes of the test and the train split differ: dog, wolf"):
        call(run, "--shots=2", "--seeds=1", f"--output={tmp_path / 'x.json'}")
    with pytest.raises(UserError, match=r"the train images are \(8, 8, 1\), those of the model \(16, 16, 3\)"):
        call(run, "--dataset=digits")


def test_one_seed_has_no_deviation_and_test_images_choose_nothing(tmp_path, monkeypatch, capsys):
    run, opened, original = tmp_path / "run", {}, data.open_split

    def open_split(config, name, channels):
        opened[name] = original(config, name, channels)
        return opened[name]

    monkeypatch.setattr(fewshot.data, "open_split", open_split)
    train_digits(run, "--config.dataset.val_split=test")
    assert call(run, "--shots=2", "--seeds=1") == 0
    assert "±" not in capsys.readouterr().out.rpartition("| shots |")[2].partition("|---")[2]
    [row] = json.loads((run / "fewshot" / "digits_best.json").read_text())["shots"]
    assert row["std"] is None
    assert {name: len(split) for name, split in opened.items()} == {"train": 1150, "validation": 287, "test": 360}


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--shots=0"], "--shots=0: give numbers of images per class"),
        (["--shots=a,2"], "--shots=a,2: give numbers"),
        (["--shots=1000"], "class . has only .* training images, fewer than --shots=1000"),
        (["--seeds=0"], "--seeds=0: 0 is not a positive integer"),
        (["--dataset=digitz"], "digitz"),
        (["--checkpoint=7"], "no checkpoint '7'"),
    ],
)
def test_mistakes_get_one_line_and_write_nothing(flags, line, trained):
    before = sorted(trained.rglob("*"))
    with pytest.raises(UserError, match=line) as caught:
        call(trained, *flags)
    assert "\n" not in str(caught.value)
    assert sorted(trained.rglob("*")) == before
