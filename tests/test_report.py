"""The report: made by every run, from its directory alone, in one file that needs nothing else."""

import re
import shutil
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax
from sklearn.metrics.pairwise import cosine_similarity
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from made_models import made_classifier
from mixer_jax import data, inference, report
from mixer_jax.errors import UserError
from mixer_jax.records import best_epoch
from mixer_jax.reporting import evidence as kept
from mixer_jax.reporting import sections
from mixer_jax.reporting.evidence import Evidence
from mixer_jax.reporting.weights import TITLE, draw_tiles, embedding_filters, token_maps, units_by_frequency
from mixer_jax.run_directory import RunDirectory
from mixer_jax.training import stages
from runs import run, train_digits
from support import make_dataset


@pytest.fixture(scope="module")
def trained(tmp_path_factory, with_pictures):
    return train_digits(tmp_path_factory.mktemp("report") / "run")


def test_a_run_ends_with_its_report_and_card(trained):
    directory = RunDirectory(trained)
    text, results = directory.report_file.read_text(), directory.read_results()
    for part in (
        "Curves", "Confusion", "Most confused", "Classes", "Most confident mistakes", "Hardest classes",
        "Right answers", "What each token adds", "Calibration", "What the token-mixing units look at",
        "Patch embedding",
    ):  # fmt: skip
        assert f">{part}</h2>" in text
        assert f">{part}</a>" in text  # among the links at the top
    for value in (
        f"{results.test_accuracy:.2f}%",
        f"{results.num_params:,} parameters",
        "optimizer.weight_decay",
        "muon, learning rate 0.01, cosine, weight decay 0.1, batches of 64",
    ):
        assert value in text
    assert not re.search(r'src="(?!data:)', text)  # nothing from elsewhere
    for link in re.findall(r'href="([^"]*)"', text):
        assert f'id="{link[1:]}"' in text if link.startswith("#") else (trained / link).is_file()
    assert len(text) < 2**21
    card = directory.card_file.read_text()
    assert f"{results.test_accuracy:.2f}% of 360 test images at epoch" in card
    assert 'optimizer.name = "adamw"' not in card  # the default
    assert "label_smoothing = 0.1" in card


def test_it_is_made_anew_from_the_directory_alone(trained, tmp_path):
    copy = shutil.copytree(trained, tmp_path / "copy")
    before = RunDirectory(copy).report_file.read_text()
    RunDirectory(copy).report_file.unlink()
    RunDirectory(copy).curves_file.write_bytes(b"of an older release")
    assert report.main(["report", str(copy)]) == 0
    after = RunDirectory(copy).report_file.read_text()
    without_images = [re.sub('src="[^"]*"', "", text) for text in (before, after)]
    assert without_images[0] == without_images[1]
    (copy / "predictions.npz").unlink()
    assert report.main(["report", str(copy)]) == 0
    assert "Most confident mistakes" not in RunDirectory(copy).report_file.read_text()


def test_damaged_files_get_one_line(trained, tmp_path):
    copy = shutil.copytree(trained, tmp_path / "copy")
    file = RunDirectory(copy).predictions_file
    for content in (b"", b"PK", file.read_bytes()[:-300]):
        file.write_bytes(content)
        with pytest.raises(UserError, match="predictions.npz is damaged: delete it to get a report without the"):
            report.main(["report", str(copy)])
    RunDirectory(copy).metrics_file.write_text("")
    with pytest.raises(UserError, match="has not finished its first epoch yet"):
        report.main(["report", str(copy)])


def test_a_run_that_is_not_finished_has_a_report_of_what_there_is(trained, tmp_path, capsys):
    copy = shutil.copytree(trained, tmp_path / "copy")
    for name in ("results.json", "report.html", "README.md", "predictions.npz"):
        (copy / name).unlink()
    assert report.main(["report", str(copy)]) == 0
    assert "report.html: epoch 2 of 2, not finished" in capsys.readouterr().out
    text = RunDirectory(copy).report_file.read_text()
    best = best_epoch(RunDirectory(copy).read_metrics())
    assert f"<h1>digits, Pico/2 (modified): {best.val_accuracy:.2f}% on validation</h1>" in text
    assert '<p class="caution">Epoch 2 of 2, not finished.</p>' in text
    metrics = RunDirectory(copy).metrics_file
    metrics.write_text(metrics.read_text().replace('"step": 36', '"step": 40'))  # the checkpoint is of an earlier epoch
    assert report.main(["report", str(copy)]) == 0
    assert "not finished; the weights shown are those of the newest checkpoint, of step 36" in capsys.readouterr().out
    assert "test accuracy" not in text
    assert not RunDirectory(copy).card_file.exists()


def test_one_evaluator_gives_all_numbers(trained):
    """results.json, the report's confusion and title, and `evaluate` are of the same logits."""
    results, file = RunDirectory(trained).read_results(), np.load(RunDirectory(trained).predictions_file)
    classifier = inference.load(trained)
    images, labels = inference.open_split(classifier, inference.dataset_of(classifier), "test").read(range(360))
    logits = classifier.logits(images, 360)
    np.testing.assert_allclose(file["logits"], logits, atol=1e-5)
    assert np.array_equal(file["labels"], labels)
    assert results.test_accuracy == 100 * np.mean(file["logits"].argmax(1) == labels)
    log_softmax = file["logits"] - np.log(np.exp(file["logits"].astype(float)).sum(1, keepdims=True))
    assert results.test_loss == pytest.approx(-log_softmax[np.arange(360), labels].mean(), rel=1e-6)
    assert (
        f"<h1>digits, Pico/2 (modified): {results.test_accuracy:.2f}%</h1>"
        in RunDirectory(trained).report_file.read_text()
    )


def test_a_part_that_fails_costs_no_other(tmp_path, monkeypatch, with_pictures, capsys):
    def full(*args):
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(inference.Classifier, "features", full)
    run(tmp_path / "run", make_dataset(), monkeypatch)
    assert "warning: the report lacks the nearest training images: out of memory" in capsys.readouterr().err
    text = RunDirectory(tmp_path / "run").report_file.read_text()
    assert "What each token adds" in text
    assert "nearest features" not in text


def test_a_report_that_fails_leaves_the_results(tmp_path, monkeypatch, with_pictures, capsys):
    def full(*args):
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(sections, "embedding_filters", full)
    assert run(tmp_path / "run", make_dataset(), monkeypatch)[0]["steps"] == 7
    assert "warning: no report: out of memory" in capsys.readouterr().err
    with Image.open(tmp_path / "run" / "curves.png") as curves:
        assert curves.width > curves.height


def test_a_run_is_not_finished_before_it_has_one(tmp_path, monkeypatch):
    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stages, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run", make_dataset(), patch)
    assert RunDirectory(tmp_path / "run").read_results() is None
    assert run(tmp_path / "run", make_dataset(), monkeypatch)[0]["steps"] == 7


def test_what_is_shown_as_a_mistake_is_one(trained):
    with np.load(RunDirectory(trained).predictions_file) as file:
        logits, labels, chosen, images = (file[key] for key in ("logits", "labels", "chosen", "images"))
    assert logits.shape == (360, 10)
    wrong = logits.argmax(1) != labels
    assert 100 * (1 - wrong.mean()) == pytest.approx(RunDirectory(trained).read_results().test_accuracy)
    assert len(images) == len(chosen)
    confidence = softmax(logits.astype(np.float64), axis=1).max(1)
    worst = np.flatnonzero(wrong)[np.argsort(-confidence[wrong], kind="stable")][: kept.MISTAKES]
    assert set(worst) <= set(chosen)
    right = chosen[~wrong[chosen]]
    assert len(set(labels[right])) == len(right) > 5  # each of another class


def test_the_nearest_training_image_is_the_nearest(trained):
    classifier, evidence = inference.load(trained), Evidence.load(RunDirectory(trained).predictions_file)
    train = inference.open_split(classifier, inference.dataset_of(classifier), "train")
    images, labels = train.read(np.arange(len(train)))
    assert evidence.candidates == len(train)  # so few that all are searched
    assert evidence.candidates_right == (classifier.logits(images, 64).argmax(1) == labels).sum()
    ours, theirs = (classifier.features(x, 64).astype(float) for x in (evidence.images, images))
    cosines = cosine_similarity(ours, theirs)
    for i, cosine in enumerate(cosines):
        same = np.flatnonzero((images == evidence.nearest_images[i]).all((1, 2, 3)))
        assert cosine[same].max() == pytest.approx(cosine.max(), abs=1e-5)
        assert evidence.nearest_labels[i] in labels[same]


def test_what_the_tokens_add_is_centred_and_scaled_around_grey(trained):
    evidence = Evidence.load(RunDirectory(trained).predictions_file)
    np.testing.assert_allclose(evidence.maps.mean((2, 3)), 0, atol=1e-5)
    wrong = evidence.wrong[evidence.chosen[evidence.mapped]]
    assert wrong.any()
    assert not wrong.all()
    for row, maps, mistake in zip(token_maps(evidence), evidence.maps, wrong, strict=True):
        assert len(row) == (3 if mistake else 2)
        np.testing.assert_allclose(row[1][0][..., 0], 127.5 * (1 + maps[0] / np.abs(maps).max()), atol=0.51)


def test_a_report_of_an_older_release_has_what_that_kept(trained, tmp_path):
    copy = shutil.copytree(trained, tmp_path / "copy")
    with np.load(copy / "predictions.npz") as file:
        kept = {key: file[key] for key in ("logits", "labels", "chosen", "images")}
    np.savez(copy / "predictions.npz", **kept)
    (copy / "steps.jsonl").unlink()
    assert report.main(["report", str(copy)]) == 0
    text = RunDirectory(copy).report_file.read_text()
    assert "Most confident mistakes" in text
    assert "nearest features" not in text
    assert "What each token adds" not in text


def test_a_model_without_mistakes_or_token_mixing_has_one_too(tmp_path, monkeypatch, with_pictures):
    run(tmp_path / "run", make_dataset(num_classes=2), monkeypatch, model__token_mixing=False, epochs=20.0)
    text = RunDirectory(tmp_path / "run").report_file.read_text()
    assert "token-mixing units" not in text
    assert "Patch embedding" in text


def test_units_go_from_low_to_high_frequency_beside_their_opposites():
    rows, columns = np.mgrid[:8, :8]
    waves = {
        "low": np.cos(2 * np.pi * rows / 8),
        "low, opposite": -np.cos(2 * np.pi * rows / 8),
        "high": np.cos(2 * np.pi * 3 * columns / 8),
        "high, opposite": -np.cos(2 * np.pi * 3 * columns / 8),
        "flat": np.ones((8, 8)),
    }
    order = ["high", "low", "flat", "high, opposite", "low, opposite"]
    kernel = np.stack([2.5 * waves[name].reshape(-1) for name in order], axis=1)
    units = units_by_frequency(kernel, (8, 8))
    without_flat = [unit for unit in units if np.ptp(unit) > 0]
    for unit, name in zip(without_flat, ("low", "low, opposite", "high", "high, opposite"), strict=True):
        np.testing.assert_allclose(unit, waves[name], atol=1e-6)


def test_filters_are_sorted_by_size_around_grey():
    kernel = np.zeros((2, 2, 3, 3))
    kernel[0, 0, 0] = (1.0, -4.0, 0.0)
    filters = embedding_filters(kernel)
    assert filters.shape == (3, 2, 2, 3)
    assert [f[0, 0, 0] for f in filters] == [0.0, 1.0, 0.5]
    assert filters[0, 1, 1, 0] == 0.5


def test_mistakes_get_one_line(tmp_path, trained):
    begun = shutil.copytree(trained, tmp_path / "begun")
    (begun / "results.json").unlink()
    (begun / "metrics.jsonl").unlink()
    (tmp_path / "there.html").touch()
    for arguments, line in (
        ([tmp_path], "is not a run directory"),
        ([begun], "has not finished its first epoch yet"),
        ([trained, "--output=x.html"], "--output=x.html: the report of a run is always"),
        (["mnist", f"--output={tmp_path / 'there.html'}"], "already exists: --overwrite"),
        ([tmp_path / "w.npz"], "there is no run directory or file"),
    ):
        with pytest.raises(UserError, match=line):
            report.main(["report", *map(str, arguments)])


def test_weights_have_a_page_of_what_they_look_at(trained, tmp_path):
    inference.load(trained).save(tmp_path / "weights.npz")
    page = tmp_path / "page.html"
    assert report.main(["report", str(tmp_path / "weights.npz"), f"--output={page}"]) == 0
    text = page.read_text()
    for part in ("What the token-mixing units look at", "Patch embedding", "8x8x1"):
        assert part in text
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert len(text) < 400_000  # it has no charts, so not the library that draws them


def test_a_folder_as_on_the_hugging_face_hub_has_a_page(tmp_path):
    """Its config.json has the name of that of a run."""
    made_classifier((8, 8, 3)).save(tmp_path / "folder", "timm")
    assert (tmp_path / "folder" / "config.json").exists()
    page = tmp_path / "new" / "page.html"
    assert report.main(["report", str(tmp_path / "folder"), f"--output={page}"]) == 0
    assert "What the token-mixing units look at" in page.read_text()


def test_each_of_several_seeds_has_its_report(tmp_path, with_pictures):
    train_digits(tmp_path / "run", "--config.num_seeds=2")
    for seed in range(2):
        (tmp_path / "run" / f"seed_{seed}" / "report.html").unlink()
    assert report.main(["report", str(tmp_path / "run")]) == 0
    assert all((tmp_path / "run" / f"seed_{seed}" / "report.html").exists() for seed in range(2))


def test_the_first_batch_is_that_of_the_training(trained):
    """Without augmentation, it is the images themselves; `test_preview` has those of every augmentation."""
    run = RunDirectory(trained)
    evidence, config = Evidence.load(run.predictions_file), run.config()
    assert (config.augment.crop, config.augment.flip, config.augment.automatic) == ("none", "none", "none")
    train = data.load(config.dataset).train
    indices = data.TrainSampler(len(train), config.batch_size, config.seed).batches(0, 1)["indices"][0, :12]
    assert np.array_equal(evidence.batch_images, train.read(indices)[0])
    assert evidence.batch_captions.tolist() == [str(label) for label in train.read(indices)[1]]


def test_tensorboard_has_the_confusion_and_the_first_batch(trained):
    events = EventAccumulator(str(trained / "tensorboard"), {"images": 0, "histograms": 0})
    events.Reload()
    assert set(events.Tags()["images"]) == {"test/confusion", "train/first batch"}
    [image] = events.Images("test/confusion")
    assert image.encoded_image_string == (trained / "confusion.png").read_bytes()
    kernel = inference.load(trained).params["head"]["kernel"]
    [histogram] = events.Histograms("parameters/head/kernel")
    assert histogram.histogram_value.num == kernel.size
    assert histogram.histogram_value.max == pytest.approx(float(kernel.max()))


def test_tiles_stand_line_by_line_under_their_titles():
    shades = np.linspace(-1.0, 1.0, 5)
    greys = np.broadcast_to(shades[:, None, None], (5, 4, 8))  # twice as wide as high
    colored = np.broadcast_to((1.0, 0.0, 0.5), (1, 3, 3, 3))
    with Image.open(BytesIO(draw_tiles([("five", greys), ("one", colored)], columns=3))) as image:
        pixels = np.asarray(image)
    lines, columns = 2 * 34, 3 * 62
    assert pixels.shape == (2 * TITLE + lines + 62, columns, 3)
    for i, shade in enumerate(shades):
        line, column = divmod(i, 3)
        np.testing.assert_allclose(pixels[TITLE + 34 * line + 10, 62 * column + 30], 127.5 + 127.5 * shade, atol=0.5)
    np.testing.assert_allclose(pixels[2 * TITLE + lines + 30, 30], (255, 0, 127.5), atol=0.5)
    assert (pixels[2 * TITLE + lines + 30, 70:] == 255).all()
    for top in (0, TITLE + lines):
        assert pixels[top : top + TITLE, :, 0].min() < 50 < 250 < pixels[top : top + TITLE, [0, -1]].min()
