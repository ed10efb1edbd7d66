"""Training that starts from another run's parameters, or from a file's."""

import shutil

import jax
import numpy as np
import pytest
from mixer_jax.training.inference import Classifier

from mixer_jax import convert
from mixer_jax.errors import UserError
from mixer_jax.models import MlpMixer
from mixer_jax.models.resolution import interpolated, tiled
from mixer_jax.run_directory import RunDirectory
from mixer_jax.training.pretrained import Weights, at_image_size, with_channels
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
    return Classifier(RunDirectory(path), "latest").params


@pytest.mark.parametrize("kind", ["run", "npz", "safetensors"])
def test_it_starts_where_the_other_ended(kind, source, tmp_path, monkeypatch):
    start = source
    if kind != "run":
        start = tmp_path / f"weights.{kind}"
        convert.main(["convert", str(source), str(start)])
    results, _ = run(tmp_path / "run", make_dataset(), monkeypatch, init_from=str(start), ema_decay=0.9, **STILL)
    best = Classifier(RunDirectory(source), "best").params
    # Of an average of equal parameters the last bit is a rounding.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), params(tmp_path / "run"), best)
    assert results["test_loss"] == pytest.approx(RunDirectory(source).read_results()["test_loss"], rel=1e-6)


def test_another_number_of_classes_gets_a_head_of_zeros(source, tmp_path, monkeypatch, capsys):
    dataset = make_dataset(num_classes=5)
    results, _ = run(tmp_path / "run", dataset, monkeypatch, init_from=str(source), **STILL)
    assert "10 classes there, 5 here: the head starts from zero" in capsys.readouterr().out
    assert results["test_loss"] == pytest.approx(np.log(5), rel=1e-5)
    ours, theirs = params(tmp_path / "run"), Classifier(RunDirectory(source)).params
    assert ours["head"]["kernel"].shape == (8, 5)
    for block in ("stem", "MixerBlock_0", "pre_head_layer_norm"):
        jax.tree.map(np.testing.assert_array_equal, ours[block], theirs[block])


def test_each_of_several_seeds_starts_from_it(source, tmp_path, monkeypatch):
    run(tmp_path / "run", make_dataset(), monkeypatch, init_from=str(source), num_seeds=2, **STILL)
    best = Classifier(RunDirectory(source)).params
    for seed in range(2):
        jax.tree.map(np.testing.assert_array_equal, params(tmp_path / "run" / f"seed_{seed}"), best)


def test_a_fine_tuned_run_goes_on_without_what_it_started_from(source, tmp_path, monkeypatch):
    start = shutil.copytree(source, tmp_path / "start")
    fields = {"init_from": str(start), "epochs": 4.0, "checkpoint_steps": 5}
    whole = run(tmp_path / "run", make_dataset(), monkeypatch, **fields)
    shutil.rmtree(start)
    (tmp_path / "run" / "results.json").unlink()
    assert run(tmp_path / "run", make_dataset(), monkeypatch, **fields) == whole


def weights(image_size, channels=1):
    """Of a small Mixer, with parameters that all matter."""
    model = MlpMixer(3, num_blocks=2, patch_size=4, hidden_dim=8, tokens_mlp_dim=6, channels_mlp_dim=8)
    params = model.init(jax.random.key(0), np.zeros((1, *image_size, channels)))["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: x + 0.3 * rng.standard_normal(x.shape, np.float32), params)
    fields = {"patch_size": 4, "tokens_mlp_dim": 6, "token_mixing": True}
    return model, Weights(params, fields, (*image_size, channels), ("a", "b", "c"), (0.5,), (0.5,), "made")


@pytest.mark.parametrize(
    ("image_size", "tokens_mlp_dim", "grid", "line"),
    [
        ((16, 16), 24, (2, 2), "token mixing for 2x2 patches repeated in 2x2 tiles (paper, app. C) for 4x4"),
        ((16, 8), None, (2, 1), "token mixing for 2x2 patches repeated in 2x1 tiles (paper, app. C) for 4x2"),
        ((16, 16), 6, (4, 4), "token mixing for 2x2 patches interpolated (not from the paper) for 4x4"),
        ((12, 20), None, (3, 5), "token mixing for 2x2 patches interpolated (not from the paper) for 3x5"),
        ((8, 8), None, None, ""),
    ],
)
def test_another_image_size(image_size, tokens_mlp_dim, grid, line):
    _, before = weights((8, 8))
    after, said = at_image_size(before, image_size, tokens_mlp_dim)
    assert said == line
    assert after.image_shape == (*image_size, 1)
    change = {"repeated": tiled, "interpolated": interpolated}
    made = next((change[word] for word in change if word in line), lambda params, *_: params)
    jax.tree.map(np.testing.assert_array_equal, after.params, made(before.params, (2, 2), grid))
    assert after.fields["tokens_mlp_dim"] == (6 * grid[0] * grid[1] if made is tiled else 6)


def test_a_run_starts_from_interpolated_weights(source, tmp_path, monkeypatch, capsys):
    run(tmp_path / "run", make_dataset(size=12), monkeypatch, init_from=str(source), **STILL)
    assert f"{source}: token mixing for 2x2 patches interpolated" in capsys.readouterr().out
    expected = interpolated(Classifier(RunDirectory(source)).params, (2, 2), (3, 3))
    ours = params(tmp_path / "run")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), ours, expected)


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1)])
def test_grey_and_colour(before, after):
    model, of_before = weights((8, 8), before)
    of_after, said = with_channels(of_before, after)
    assert said.startswith(f"{before} channels become {after}: the stem's kernel is")
    assert of_after.image_shape == (8, 8, after)
    grey = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)
    logits = [
        model.apply({"params": w.params}, np.repeat(grey, channels, 3))
        for w, channels in ((of_before, before), (of_after, after))
    ]
    np.testing.assert_allclose(*logits, atol=1e-5)


def test_mistakes(source, tmp_path, monkeypatch, capsys):
    for fields, line in (
        ({"init_from": "nowhere"}, "config.init_from=nowhere: there is no such run directory or file"),
        ({"init_from": str(tmp_path)}, "is no run directory: it has no config.json"),
        (
            {"init_from": str(source), "model__hidden_dim": 12},
            r"config.init_from=.* is another Mixer \(hidden_dim 8 there, 12 here\): give --config.model.variant=",
        ),
        ({"init_from": str(source), "model__patch_size": 2}, r"is another Mixer \(patch_size 4 there, 2 here\)"),
        (
            {"init_from": str(source), "model__tokens_mlp_dim": 9, "augment__input_size": (16, 16)},
            "config.model.tokens_mlp_dim=9: token mixing for 2x2 patches becomes one for 4x4 with 32, tiled as in the "
            "paper's appendix C, or 8, interpolated",
        ),
        (
            {"init_from": str(source), "model__tokens_mlp_dim": 9, "augment__input_size": (12, 12)},
            "token mixing for 2x2 patches becomes one for 3x3 with 8, interpolated",
        ),
        ({"init_from": "ftp://host/x.npz"}, "ftp://host/x.npz: only https:// and gs:// are downloaded from"),
    ):
        with pytest.raises(UserError, match=line) as caught:
            run(tmp_path / "run", make_dataset(), monkeypatch, **fields)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "run").exists()
    run(tmp_path / "run", make_dataset(), monkeypatch, init_from=str(source), model__gelu="exact", epochs=1.0)
    assert "computed with gelu tanh, config.model.gelu is exact" in capsys.readouterr().out
