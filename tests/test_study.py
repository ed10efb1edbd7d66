"""A study: what is missing is trained, what is there is not, and its tables are those of the runs."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import jax
import pytest

from mixer_jax import compare, study
from mixer_jax.benchmarks.steps import has_policy
from mixer_jax.config import flat
from mixer_jax.errors import UserError
from mixer_jax.run_directory import RunDirectory
from mixer_jax.studies import jobs
from mixer_jax.training import Trainer, stages
from support import ROOT, make_dataset

CONFIG = """
from mixer_jax.studies.arms import Arm
from mixer_jax.config import default_config
from configs import digits

def get_config():
    config = digits.get_config()
    config.model.update(num_blocks=1, hidden_dim=8, tokens_mlp_dim=8, channels_mlp_dim=8)
    config.epochs, config.ema_decay = 3, 0.0
    config.augment = default_config().augment
    config.optimizer.update(name="adamw", learning_rate=3e-3)
    config.schedule.warmup_epochs = 2
    return config

def get_arms():
    return (
        Arm("mixer", "the Mixer", published={"last": 40.0}, num_seeds=2, notes=("one seed",)),
        Arm("wide", "a wider one", {"model.hidden_dim": 16}, num_seeds=1, protocols=("clean",)),
    )
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "small_study.py"
    path.write_text(CONFIG)
    return path


def main(config, workdir, *flags):
    return study.main(["study", "--config", str(config), "--workdir", str(workdir), *flags])


def without_seconds(table):
    return [line.rsplit("|", 2)[0] if line.startswith("|") else line for line in table.read_text().splitlines()]


def test_it_trains_what_is_missing_and_compares(config, tmp_path, capsys):
    path = tmp_path / "study"
    assert main(config, path, "--protocol=published", "--seeds=1") == 0
    assert sorted(p.name for p in (path / "mixer").rglob("seed_*")) == ["seed_0"]
    assert "one seed: no verdict" in (path / "comparison" / "comparison.md").read_text()
    capsys.readouterr()
    assert main(config, path) == 0
    out = capsys.readouterr().out
    assert "5 training jobs, 1 finished or diverged" in out
    assert "== wide, clean: 4 of 4, about" in out
    runs = {p.relative_to(path).as_posix(): RunDirectory(p) for p in path.rglob("seed_*")}
    assert sorted(runs) == [
        *(f"mixer/{protocol}/seed_{seed}" for protocol in ("clean", "published") for seed in range(2)),
        "wide/clean/seed_0",
    ]
    for name, run in runs.items():
        results, settings = run.read_results(), run.config()
        assert results.selected_on == ("test" if "published" in name else "validation")
        assert (settings.seed, settings.num_seeds) == (int(name[-1]), 1)
        assert settings.model.hidden_dim == (16 if "wide" in name else 8)
    rows = json.loads((path / "comparison" / "comparison.json").read_text())["rows"]
    assert [(row["title"], len(row["results"]), row["published"]) for row in rows] == [
        ("the Mixer", 2, {"last": 40.0}),
        ("the Mixer", 2, {}),
        ("a wider one", 1, {}),
    ]
    last = runs["mixer/published/seed_1"].read_results().last_test_accuracy
    assert rows[0]["results"][1]["last_test_accuracy"] == last
    before = (path / "comparison" / "comparison.md").read_text()
    assert main(config, path, "--report") == 0
    assert "training jobs" not in capsys.readouterr().out
    assert (path / "comparison" / "comparison.md").read_text() == before


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--arms=mixr"], r"unknown arm 'mixr' .did you mean 'mixer'"),
        (["--protocol=dirty"], "unknown protocol 'dirty'"),
        (["--seeds=0"], "seeds"),
        (["--report"], "there is no study in .*study"),
        (["--config.epochs=-2"], "config.epochs=-2.0: must be positive, or -1"),
    ],
)
def test_mistakes_get_one_line(flags, line, config, tmp_path):
    with pytest.raises(UserError, match=line):
        main(config, tmp_path / "study", *flags)
    assert not list(tmp_path.rglob("seed_*"))


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ('Arm("wide",', 'Arm("mixer",', "the name of the arm 'mixer' is taken"),
        ('Arm("wide",', 'Arm("comparison",', "the name of the arm 'comparison' is taken"),
        (
            'protocols=("clean",)',
            'protocols=("claen",)',
            "unknown protocol of the arm 'wide' 'claen' .did you mean 'clean'",
        ),
        ('{"last": 40.0}', '{"lst": 40.0}', "unknown published of the arm 'mixer' 'lst' .did you mean 'last'"),
    ],
)
def test_mistakes_in_arms_are_found_before_anything_is_trained(old, new, line, config, tmp_path):
    config.write_text(CONFIG.replace(old, new))
    with pytest.raises(UserError, match=line):
        main(config, tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_a_study_does_not_use_the_directory_of_a_run_or_of_another_study(config, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(UserError, match="run is a run directory: choose another workdir"):
        main(config, tmp_path / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "study.json").write_text('{"study": "older", "arms": []}')
    with pytest.raises(UserError, match="other holds the study older: choose another workdir"):
        main(config, tmp_path / "other", "--report")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]


def test_a_finished_study_is_not_passed_off_as_one_on_other_data(write_folder, tmp_path, capsys):
    config = tmp_path / "of_a_folder.py"
    folder = 'config.dataset.update(name="folder", image_size=(8, 8))\n    config.batch_size = 4\n    '
    config.write_text(CONFIG.replace("config.epochs, config", folder + "config.epochs, config"))
    first, path = write_folder(), tmp_path / "study"
    flags = ("--seeds=1", "--protocol=clean")
    assert main(config, path, *flags, f"--config.dataset.data_dir={first}") == 0
    moved = shutil.copytree(first, tmp_path / "moved")
    assert main(config, path, *flags, f"--config.dataset.data_dir={moved}") == 0
    assert "2 training jobs, 2 finished" in capsys.readouterr().out
    next(moved.rglob("*.png")).unlink()
    with pytest.raises(UserError, match="was trained on other data.*was .*images, now .*moved"):
        main(config, path, *flags, f"--config.dataset.data_dir={moved}")


def test_a_config_file_that_is_no_study(tmp_path, config):
    with pytest.raises(UserError, match=r"digits.py has no function get_arms\(\)"):
        main(ROOT / "configs" / "digits.py", tmp_path / "study")
    config.write_text(CONFIG.replace("model.hidden_dim", "model.hiden_dim"))
    with pytest.raises(UserError, match=r"unknown config field 'model.hiden_dim' .did you mean 'model.hidden_dim'"):
        main(config, tmp_path / "study")


def test_another_study_in_the_same_place_is_refused_before_anything_is_trained(config, tmp_path):
    assert main(config, tmp_path / "study", "--arms=wide", "--seeds=1") == 0
    with pytest.raises(UserError, match="holds a run with another config .*batch_size"):
        main(config, tmp_path / "study", "--config.batch_size=32")
    assert not list((tmp_path / "study").glob("mixer/*"))


def test_runs_that_end_elsewhere_are_not_of_the_study(config, tmp_path):
    assert main(config, tmp_path / "study", "--arms=wide", "--seeds=1") == 0
    for flag in ("--config.epochs=6", "--config.early_stopping_patience=2"):
        with pytest.raises(UserError, match="with other settings .* runs with equal settings are averaged: choose"):
            main(config, tmp_path / "study", flag)
    assert not list((tmp_path / "study").glob("mixer/*"))
    assert main(config, tmp_path / "study", "--config.epochs=6", "--report") == 0


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_a_seed_that_diverges_is_counted_and_costs_no_other(platform, config, tmp_path, monkeypatch, capsys):
    """On an accelerator all seeds are trained at once; where one diverges, the others come to their end with it."""
    train, trained, together = Trainer.train, [], []

    def diverging(self, state, step, num_steps, *message):
        state, metrics = train(self, state, step, num_steps, *message)
        if num_steps:  # none are taken to compile
            trained.append((self.config.seed, step))
        return state, metrics | ({"loss": metrics["loss"] * float("nan")} if self.config.seed == 1 else {})

    class Group(stages.SeedGroup):
        def __init__(self, trainer, seeds):
            together.append(tuple(seeds))
            super().__init__(trainer, seeds)

    monkeypatch.setattr(Trainer, "train", diverging)
    monkeypatch.setattr(stages, "SeedGroup", Group)
    monkeypatch.setattr(jobs, "jax", SimpleNamespace(devices=lambda: [SimpleNamespace(platform=platform)]))
    path = tmp_path / "study"
    assert main(config, path, "--protocol=published") == 0
    err = capsys.readouterr().err
    table = (path / "comparison" / "comparison.md").read_text()
    assert "| the Mixer [1] |" in table
    assert "| 1 (1 more diverged) |" in table
    assert "seed_1 diverged, and is left out: the loss became nan at step 1" in err
    assert together == ([(0, 1)] if platform == "gpu" else [])
    steps = [step for seed, step in trained if seed == 0]
    assert len(set(steps)) == len(steps) > 0  # none is trained twice
    assert RunDirectory(path / "mixer" / "published" / "seed_0").read_results().epochs == 3
    trained.clear()
    assert main(config, path, "--protocol=published") == 0
    assert trained == []
    assert "| 1 (1 more diverged) |" in (path / "comparison" / "comparison.md").read_text()
    assert compare.main(["compare", f"{path}/comparison/comparison.json", f"--output={tmp_path / 'again'}"]) == 0
    assert "| 1 (1 more diverged) |" in (tmp_path / "again" / "comparison.md").read_text()


def test_the_shipped_study_is_the_published_one():
    from configs import mnist_study
    from mixer_jax import models

    sizes = {}
    for arm in mnist_study.get_arms():
        config = arm.config(mnist_study.get_config(), "published")
        model = models.create(config.model, num_classes=10, image_shape=(28, 28, 1))
        grid = arm.name.startswith("grid") and arm.name != "grid_14_128_10"
        shapes = {} if grid else models.param_shapes(model, (28, 28, 1))
        sizes[arm.name] = sum(x.size for x in jax.tree.leaves(shapes))
    assert sizes["tuned"] == sizes["torch_tuned"] == sizes["grid_14_128_10"] == 373_426
    assert (sizes["mlp"], sizes["cnn"]) == (203_530, 1_625_866)
    assert len([name for name in sizes if name.startswith("grid_")]) == 27


def test_every_arm_of_the_cifar10_study_is_the_recipe_but_for_what_it_names():
    from configs import cifar10_fast, cifar10_study, mixer_nano_cifar10
    from mixer_jax import models

    base, arms = cifar10_study.get_config(), {arm.name: arm for arm in cifar10_study.get_arms()}
    configs = {name: arm.config(base, arm.protocols[0]) for name, arm in arms.items()}
    whole = {"fast": cifar10_fast.get_config()}
    whole |= {f"nano_{size}": mixer_nano_cifar10.get_config(size) for size in ("1.13M", "0.67M")}
    for name, config in configs.items():
        expected = flat(whole[name]) if name in whole else flat(base) | dict(arms[name].changes)
        on_test = arms[name].protocols[0] == "published"
        assert on_test == bool(arms[name].published)
        expected |= {"num_seeds": arms[name].num_seeds, "dataset.val_split": "test" if on_test else ""}
        assert flat(config) == expected
        Trainer(config.copy_and_resolve_references(), make_dataset(size=32, channels=3, num_train=500))
    assert len({json.dumps(flat(config), sort_keys=True) for config in configs.values()}) == len(arms) - 1
    assert not has_policy(configs["torch_plain"])
    for name, count in (("recipe", 1_132_170), ("torch_plain", 1_132_170), ("nano_0.67M", 673_418)):
        model = models.create(configs[name].model, num_classes=10, image_shape=(32, 32, 3))
        assert sum(x.size for x in jax.tree.leaves(models.param_shapes(model, (32, 32, 3)))) == count


@pytest.mark.slow
def test_a_study_that_is_killed_ends_with_the_same_tables(config, tmp_path):
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    settings = ["--config.epochs=100", "--config.checkpoint_minutes=0.004"]

    def start(path):
        command = [sys.executable, "-m", "mixer_jax.study", "--config", str(config), "--workdir", str(path)]
        with (tmp_path / "log").open("a") as log:
            return subprocess.Popen([*command, *settings], cwd=ROOT, env=environment, stdout=log, stderr=log)

    begun = time.monotonic()
    assert start(tmp_path / "whole").wait(600) == 0
    seconds, rng, killed = time.monotonic() - begun, random.Random(0), tmp_path / "killed"
    for _ in range(3):
        process = start(killed)
        time.sleep(seconds * rng.uniform(0.1, 0.25))
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start(killed).wait(600) == 0
    tables = [without_seconds(path / "comparison" / "comparison.md") for path in (tmp_path / "whole", killed)]
    assert tables[0][2:] == tables[1][2:]
    assert len(tables[0]) > 8


@pytest.mark.torch
def test_an_arm_in_pytorch_stands_beside_ours(config, tmp_path):
    pytest.importorskip("torch", reason="needs torch")
    arm = 'Arm("torch", "in PyTorch", {"model.stochastic_depth_rate": 0.0}, num_seeds=1, in_torch=True)'
    config.write_text(CONFIG.replace('        Arm("wide"', f'        {arm},\n        Arm("wide"'))
    path = tmp_path / "study"
    assert main(config, path, "--protocol=clean", "--seeds=1", "--config.epochs=15") == 0
    theirs, ours = (RunDirectory(path / name / "clean" / "seed_0") for name in ("torch", "mixer"))
    assert "torch" in theirs.read_results().versions
    assert (len(theirs.read_metrics()), len(ours.read_metrics())) == (15, 15)
    for run in (theirs, ours):
        assert run.read_results().test_accuracy > 60
    assert theirs.read_results().num_params == ours.read_results().num_params
    for flag, line in (
        ("--config.ema_decay=0.9", "config.ema_decay=0.9: the PyTorch side supports only the default, 0.0"),
        ("--config.optimizer.name=lion", "unknown config.optimizer.name on the PyTorch side 'lion'"),
        ("--config.augment.flip=random", "the PyTorch side does not augment images"),
        ("--config.dtype=bfloat16", "config.dtype=bfloat16: the PyTorch side supports only float32"),
    ):
        with pytest.raises(UserError, match=line):
            main(config, tmp_path / "other", "--protocol=clean", "--arms=torch", flag)


def test_a_study_of_an_older_release_goes_on_as_it_was_begun(config, tmp_path, capsys):
    path = tmp_path / "study"
    flags = "--protocol=clean", "--arms=mixer", "--config.dataset.hold_out=random"
    assert main(config, path, *flags, "--seeds=1") == 0
    file = path / "mixer" / "clean" / "seed_0" / "config.json"
    content = json.loads(file.read_text())
    del content["config"]["dataset"]["hold_out"]  # as it was before there was such a field
    file.write_text(json.dumps(content))
    assert main(config, path, "--protocol=clean", "--arms=mixer") == 0
    results = [RunDirectory(path / "mixer" / "clean" / f"seed_{i}").read_results() for i in range(2)]
    assert results[0].data_fingerprint == results[1].data_fingerprint
