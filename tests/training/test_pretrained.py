"""Training that starts from another run's parameters, or from a file's."""

import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixer_jax import convert, data, models
from mixer_jax.augment import Augment
from mixer_jax.config import default_config
from mixer_jax.errors import UserError
from mixer_jax.inference import Known, load
from mixer_jax.models.resolution import interpolated
from mixer_jax.run_directory import RunDirectory
from mixer_jax.training.pretrained import initial_params
from other_files import lucidrains, made
from runs import run
from support import make_dataset

STILL = {"optimizer__name": "sgd", "optimizer__learning_rate": 1e-20}  # trains, but moves nothing


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "run"
    with pytest.MonkeyPatch.context() as patch:
        run(path, make_dataset(), patch, epochs=3.0, optimizer__learning_rate=0.01)
    return path


def params(path):
    return load(path, "latest").params


@pytest.mark.parametrize("kind", ["run", "npz", "safetensors", "folder"])
def test_it_starts_where_the_other_ended(kind, source, tmp_path, monkeypatch, capsys):
    start = source
    if kind != "run":
        start = tmp_path / ("weights" if kind == "folder" else f"weights.{kind}")
        convert.main(["convert", str(source), str(start)])
    results, _ = run(tmp_path / "run", make_dataset(), monkeypatch, init_from=str(start), ema_decay=0.9, **STILL)
    assert "was trained with" not in capsys.readouterr().err  # a file tells how
    best = load(source, "best").params
    # Of an average of equal parameters the last bit is a rounding.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), params(tmp_path / "run"), best)
    assert results["test_loss"] == pytest.approx(RunDirectory(source).read_results().test_loss, rel=1e-6)


def test_another_number_of_classes_gets_a_head_of_zeros(source, tmp_path, monkeypatch, capsys):
    dataset = make_dataset(num_classes=5)
    results, _ = run(tmp_path / "run", dataset, monkeypatch, init_from=str(source), **STILL)
    assert "it has 10 classes and the data 5, so the head starts from zero" in capsys.readouterr().out
    assert results["test_loss"] == pytest.approx(np.log(5), rel=1e-5)
    ours, theirs = params(tmp_path / "run"), load(source).params
    assert ours["head"]["kernel"].shape == (8, 5)
    for block in ("stem", "MixerBlock_0", "pre_head_layer_norm"):
        jax.tree.map(np.testing.assert_array_equal, ours[block], theirs[block])


def test_each_of_several_seeds_starts_from_it(source, tmp_path, monkeypatch):
    run(tmp_path / "run", make_dataset(), monkeypatch, init_from=str(source), num_seeds=2, **STILL)
    best = load(source).params
    for seed in range(2):
        jax.tree.map(np.testing.assert_array_equal, params(tmp_path / "run" / f"seed_{seed}"), best)


def test_a_fine_tuned_run_resumes_without_what_it_started_from(source, tmp_path, monkeypatch):
    start = shutil.copytree(source, tmp_path / "start")
    fields = {"init_from": str(start), "epochs": 4.0, "checkpoint_steps": 5}
    whole = run(tmp_path / "run", make_dataset(), monkeypatch, **fields)
    shutil.rmtree(start)
    (tmp_path / "run" / "results.json").unlink()
    assert run(tmp_path / "run", make_dataset(), monkeypatch, **fields) == whole


def test_a_run_starts_from_interpolated_weights(source, tmp_path, monkeypatch, capsys):
    run(tmp_path / "run", make_dataset(size=12), monkeypatch, init_from=str(source), **STILL)
    assert f"{source}: token mixing for 2x2 patches interpolated" in capsys.readouterr().out
    expected = interpolated(load(source).params, (2, 2), (3, 3))
    ours = params(tmp_path / "run")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), ours, expected)


def of_lucidrains(path, **sizes):
    np.savez(path, **lucidrains(made(**sizes)))
    return str(path)


def model_of(path, **fields):
    return load(path, known=Known(**fields)).model


def test_a_shape_that_a_file_does_not_tell_is_asked_for(tmp_path, capsys):
    np.savez(tmp_path / "x.npz", **made(64, 16))
    model, source = model_of(tmp_path / "x.npz"), str(tmp_path / "x.npz")
    line = "does not record whether it is for images of 32x32 or 64x16: convert it with --image_size first"
    with pytest.raises(UserError, match=line):
        initial_params(source, model, (64, 16, 3))
    for size in ("64,16", "32"):
        convert.main(["convert", source, str(tmp_path / size), f"--image_size={size}"])
        capsys.readouterr()
        params = initial_params(str(tmp_path / size), model, (64, 16, 3))
        mixing = [of["MixerBlock_0"]["token_mixing"]["Dense_0"]["kernel"] for of in (params, load(source).params)]
        assert np.array_equal(*mixing) == (size == "64,16")
        assert ("token mixing for 4x4 patches interpolated" in capsys.readouterr().out) == (size == "32")


@pytest.mark.parametrize("channels", [1, 3, 4, 6])
def test_flat_patches_are_those_of_the_model(channels, tmp_path):
    source = of_lucidrains(tmp_path / "x.npz", channels=channels)
    model = model_of(source, channels=channels)
    params = initial_params(source, model, (32, 32, channels))
    jax.tree.map(np.testing.assert_array_equal, params, load(source, known=Known(channels=channels)).params)
    if channels == 1:  # and are adapted to colours
        assert initial_params(source, model, (32, 32, 3))["stem"]["kernel"].shape == (8, 8, 3, 12)
    with pytest.raises(UserError, match="x.npz .*patch"):
        initial_params(source, model.clone(patch_size=16), (32, 32, channels))


def test_mistakes(source, tmp_path, monkeypatch, capsys):
    for fields, line in (
        (
            {"init_from": "nowhere"},
            "config.init_from=nowhere: there is no run directory or file nowhere, and no published Mixer of that name",
        ),
        ({"init_from": str(tmp_path)}, "is not a run directory: it has no config.json"),
        (
            {"init_from": str(source), "model__hidden_dim": 12},
            r"is a Mixer of other sizes \(hidden_dim 8, not 12\): set config.model.hidden_dim=8$",
        ),
        (
            {"init_from": str(source), "model__patch_size": 2},
            r"a Mixer of other sizes \(patch_size 4, not 2\): set config.model.patch_size=4",
        ),
        (
            {"init_from": str(source), "model__tokens_mlp_dim": 9, "augment__input_size": (16, 16)},
            r"config.model.tokens_mlp_dim=9: use 32 \(tiled, .*\) or 8 \(interpolated\) to go from 2x2 to 4x4",
        ),
        (
            {"init_from": str(source), "model__tokens_mlp_dim": 9, "augment__input_size": (12, 12)},
            r"use 8 \(interpolated\) to go from 2x2 to 3x3 patches",
        ),
        ({"init_from": "ftp://host/x.npz"}, "ftp://host/x.npz: only https:// and gs:// URLs can be downloaded"),
    ):
        with pytest.raises(UserError, match=line) as caught:
            run(tmp_path / "run", make_dataset(), monkeypatch, **fields)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "run").exists()
    run(tmp_path / "run", make_dataset(), monkeypatch, init_from=str(source), model__gelu="exact", epochs=1.0)
    assert "was trained with gelu tanh, but config.model.gelu is exact" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
@pytest.mark.parametrize(
    "fields",
    [{"model.hidden_dim": 64}, {"model.variant": "S/10", "augment.input_size": (30, 30)}, {"model.num_blocks": 3}],
)
def test_what_an_error_says_of_another_mixer_is_all_that_is_needed(fields, name):
    config = default_config()
    config.update_from_flattened_dict(fields)
    dataset = data.load(config.dataset)

    def start():
        augment = Augment(config.augment, dataset, 10)
        model = models.create(config.model, num_classes=10, image_shape=augment.input_shape, dtype=jnp.float32)
        return initial_params(name, model, augment.input_shape)

    with pytest.raises(UserError, match="is a Mixer of other sizes .*: set ") as raised:
        start()
    if " without other sizes" in str(raised.value):
        config.model.update(num_blocks=None, hidden_dim=None)
    for field, value in re.findall(r"config\.(\w+\.\w+)=(\S+)", str(raised.value)):
        numbers = tuple(map(int, value.split(","))) if "variant" not in field else value
        config.update_from_flattened_dict({field: numbers[0] if len(numbers) == 1 else numbers})
    start()


@pytest.mark.parametrize(("normalization", "warned"), [("standard", True), ("unit", True), ("paper", False)])
def test_another_normalisation_than_that_of_the_weights_is_told(normalization, warned, tmp_path, capsys):
    np.savez(tmp_path / "x.npz", **made(32, 32))
    initial_params(str(tmp_path / "x.npz"), model_of(tmp_path / "x.npz"), (32, 32, 3), normalization)
    line = f"was trained with normalization paper, but config.dataset.normalization is {normalization}"
    assert (line in capsys.readouterr().err) == warned
