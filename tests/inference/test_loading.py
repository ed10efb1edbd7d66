"""Loading and saving models: every file brings back label names, preprocessing and logits, bit for bit."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from made_models import made_classifier, some_images
from mixer_jax.errors import UserError
from mixer_jax.inference import load
from mixer_jax.inference.classifier import MODEL_FILE
from mixer_jax.inference.timm_config import read_config
from mixer_jax.run_directory import RunDirectory
from mixer_jax.weights import LAYOUTS, to_layout
from runs import train_digits
from support import GOLDEN

FILES = [("x.npz", "paper"), *((f"{name}.safetensors", name) for name in LAYOUTS), ("folder", "paper")]


def require_same(one, other, images):
    """Check that two classifiers are one model."""
    assert (one.label_names, one.preprocessing) == (other.label_names, other.preprocessing)
    assert (one.image_shape, one.input_shape) == (other.image_shape, other.input_shape)
    assert one.config.to_dict() == other.config.to_dict()
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)
    np.testing.assert_array_equal(one.logits(images), other.logits(images))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    scaled = ["--config.augment.input_size=12,12", "--config.augment.eval_crop=0.8", "--config.epochs=4"]
    return train_digits(tmp_path_factory.mktemp("loading") / "run", *scaled)


@pytest.mark.parametrize(("file", "layout"), FILES)
def test_a_run_comes_back_from_every_file(file, layout, run, tmp_path):
    of_run = load(run)
    assert of_run.input_shape == (12, 12, 1)
    written = of_run.save(tmp_path / file, layout)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(written)
    back = load(tmp_path / file)
    require_same(of_run, back, some_images(of_run))
    assert back.label_names == tuple("0123456789")
    assert back.origin.dataset is None
    assert of_run.origin.dataset.name == "digits"


@pytest.mark.parametrize(("file", "layout"), FILES)
@pytest.mark.parametrize("image_shape", [(8, 8, 3), (8, 16, 1), (8, 32, 3)])
def test_any_mixer_comes_back_from_every_file(file, layout, image_shape, tmp_path):
    other = {"gelu": "exact", "layer_norm_epsilon": 1e-3, "initialization": "torch", "dropout_rate": 0.1}
    for fields in ({}, other):
        classifier = made_classifier(image_shape, ("猫", "dog, or so", "c"), **fields)
        classifier.save(tmp_path / file, layout)  # the second time over the first
        require_same(classifier, load(tmp_path / file), some_images(classifier))


def test_all_of_the_preprocessing_comes_back(tmp_path):
    classifier = made_classifier((20, 24, 3), input_size=(8, 12))
    different = dataclasses.replace(
        classifier.preprocessing, mean=(0.1, 1 / 3, np.pi / 9), std=(0.2, 0.4, 0.7), eval_crop=0.7, resize="bicubic/0.9"
    )
    classifier = dataclasses.replace(classifier, preprocessing=different)
    for file in ("x.npz", "x.safetensors"):
        classifier.save(tmp_path / file)
        require_same(classifier, load(tmp_path / file), some_images(classifier))


ABLATED = [
    {"pre_head_norm": False},
    {"token_mixing": False},
    {"channel_mixing": False},
    {"token_mixing": False, "ablated_norm": True},
    {"channel_mixing": False, "ablated_norm": True},
]


@pytest.mark.parametrize("fields", [{"variant": "MLP"}, {"variant": "CNN"}, *ABLATED])
def test_baselines_and_ablated_mixers_go_through_the_papers_layout_alone(fields, tmp_path):
    classifier = made_classifier(**fields)
    for file in ("x.npz", "x.safetensors", "folder"):
        classifier.save(tmp_path / file, "paper")
        require_same(classifier, load(tmp_path / file), some_images(classifier))
    missing = fields.get("variant") or f"Mixer with config.model.{next(iter(fields))}=False"
    for layout in ("timm", "lucidrains"):
        with pytest.raises(UserError, match=f"{layout} has no {missing}"):
            classifier.save(tmp_path / "other.safetensors", layout)
    assert not (tmp_path / "other.safetensors").exists()


def test_features_are_those_of_the_model_that_was_saved(tmp_path):
    classifier = made_classifier()
    classifier.save(tmp_path)
    images = some_images(classifier)
    back = load(tmp_path)
    np.testing.assert_array_equal(back.features(images), classifier.features(images))
    head = classifier.params["head"]
    np.testing.assert_allclose(back.features(images) @ head["kernel"] + head["bias"], back.logits(images), atol=1e-4)


def test_a_file_holds_the_arrays_as_its_layout_names_them(tmp_path):
    assert made_classifier().save(tmp_path / "x.npz") == [tmp_path / "x.npz", tmp_path / "x.npz.json"]
    assert made_classifier().save(tmp_path / "new" / "folder") == [tmp_path / "new" / "folder" / MODEL_FILE]
    assert made_classifier().save(tmp_path / "x.safetensors", "timm") == [tmp_path / "x.safetensors"]
    both = [tmp_path / "timm" / MODEL_FILE, tmp_path / "timm" / "config.json"]
    assert made_classifier().save(tmp_path / "timm", "timm") == both
    assert "MixerBlock_1/token_mixing/Dense_0/kernel" in np.load(tmp_path / "x.npz")
    assert "MixerBlock_1/token_mixing/Dense_0/kernel" in load_file(tmp_path / "new" / "folder" / MODEL_FILE)
    assert "blocks.1.mlp_tokens.fc1.weight" in load_file(tmp_path / "x.safetensors")


@pytest.mark.parametrize("file", ["paper_mixer_tiny.npz", "timm_mixer_tiny.safetensors"])
def test_a_file_of_another_project_gives_its_logits(file):
    classifier = load(GOLDEN / file)
    layout = file.partition("_")[0]
    assert classifier.origin.found == f"{layout}, 3 blocks of 48, 41,074 parameters, 32x32x3, 10 classes"
    assert classifier.label_names == tuple(f"class {i}" for i in range(10))
    assert (classifier.preprocessing.mean, classifier.preprocessing.std) == ((0.5,) * 3, (0.5,) * 3)
    assert classifier.image_shape == classifier.input_shape == (32, 32, 3)
    io = np.load(GOLDEN / f"{layout}_mixer_tiny_io.npz")
    given = io["images"] if layout == "paper" else io["images_nchw"].transpose(0, 2, 3, 1)
    logits = jax.jit(classifier.model.apply)({"params": classifier.params}, given)
    np.testing.assert_allclose(logits, io["logits"], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "mean", "std", "resize"),
    [
        ("mixer_b16_224_miil-9229a591.pth", 0.0, 1.0, "bilinear"),  # timm's of Alibaba: pixels from 0 to 1
        ("jx_mixer_b16_224-76587d61.pth", 0.5, 0.5, "bicubic"),
    ],
)
def test_a_downloaded_file_of_timms_is_known_by_its_name(name, mean, std, resize, tmp_path):
    model = made_classifier((224, 224, 3), patch_size=16)
    save_file({key: np.ascontiguousarray(x) for key, x in to_layout(model.params, "timm").items()}, tmp_path / name)
    preprocessing = load(tmp_path / name).preprocessing
    assert (preprocessing.mean, preprocessing.std) == ((mean,) * 3, (std,) * 3)
    assert preprocessing.resize == f"{resize}/0.875"


def test_a_run_is_loaded_of_its_best_epoch_its_last_or_a_step(run):
    results, best, latest = RunDirectory(run).read_results(), load(run), load(run, "latest")
    step = latest.origin.step
    assert step == best.origin.step == results.steps  # both lie in the newest checkpoint
    jax.tree.map(np.testing.assert_array_equal, load(run, str(step)).params, latest.params)
    assert (best.origin.unfinished, best.num_params) == ("", results.num_params)
    assert best.origin.found.startswith("run directory, Pico/2, best parameters in the checkpoint of step ")
    for missing in ("7", "newest"):
        with pytest.raises(UserError, match=f"no checkpoint '{missing}' .*valid: best, latest, "):
            load(run, missing)


def test_classes_of_the_same_name_are_told_apart(tmp_path):
    file = tmp_path / "config.json"
    config = {"architecture": "mixer_b16_224", "pretrained_cfg": {"label_names": ["crane", "heron", "crane"]}}
    file.write_text(json.dumps(config))
    assert read_config(file).label_names == ("crane (0)", "heron", "crane (2)")


def test_a_name_too_long_for_a_file_gets_one_line():
    with pytest.raises(UserError, match="there is no run directory or file x"):
        load("x" * 300)


def described(path, **changes):
    """Write a model whose description has other fields."""
    made_classifier().save(path)
    with safe_open(path, "numpy") as file:
        description = json.loads(file.metadata()["mixer_jax"])
    save_file(load_file(path), path, {"mixer_jax": json.dumps(description | changes)})


PREPROCESSING = {"image_shape": [8, 8, 1], "mean": [0.4], "std": [0.3]}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"format": 99}, "was written by a newer release: install that"),
        ({"preprocessing": None}, "the description of the model cannot be read"),
        ({"preprocessing": {"colour": 1}}, "the description of the model cannot be read"),
        ({"preprocessing": PREPROCESSING | {"image_shape": [8, 8]}}, "the description of the model cannot be read"),
        ({"preprocessing": PREPROCESSING | {"mean": [0.4, 0.4]}}, "the description of the model cannot be read"),
        ({"preprocessing": PREPROCESSING | {"std": [0.0]}}, "the description of the model cannot be read"),
        ({"preprocessing": PREPROCESSING | {"input_size": "x"}}, "the description of the model cannot be read"),
        ({"label_names": 3}, "the description of the model cannot be read"),
        ({"label_names": ["a", "b"]}, r"does not match the model: \['head'\]"),
        ({"model": {"hiden_dim": 8}}, "hiden_dim"),
    ],
)
def test_a_description_that_does_not_fit_gets_one_line(changes, line, tmp_path):
    described(tmp_path / "x.safetensors", **changes)
    with pytest.raises(UserError, match=line) as caught:
        load(tmp_path / "x.safetensors")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("file", ["x.npz", "x.safetensors"])
def test_parameters_that_are_no_numbers_are_refused(file, number, tmp_path):
    classifier = made_classifier()
    classifier.params["MixerBlock_1"]["token_mixing"]["Dense_0"]["bias"][3] = number
    classifier.save(tmp_path / file)
    with pytest.raises(UserError, match=f"{file}: MixerBlock_1/token_mixing/Dense_0/bias holds NaN or infinity"):
        load(tmp_path / file)


def test_other_mistakes(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for source, line in (
        (tmp_path / "empty", "empty is not a run directory: it has no config.json, nor a model.safetensors$"),
        (tmp_path / "y.npz", "there is no run directory or file .*y.npz"),
        (tmp_path / "nowhere", "no .*file .*nowhere"),
        ("ftp://host/x.npz", "ftp://host/x.npz: only https:// and gs:// URLs can be downloaded"),
    ):
        with pytest.raises(UserError, match=line) as caught:
            load(source)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="cannot write .*file/x.npz"):
        made_classifier().save(tmp_path / "file" / "x.npz")
