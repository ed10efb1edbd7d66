"""The benchmark command, over in a moment: what it writes, and that it overwrites nothing; and what it counts."""

import contextlib
import dataclasses
import importlib.util
import json
import os
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from mixer_jax import benchmark
from mixer_jax.benchmarks import flops, reading, rounds, scaling, steps
from mixer_jax.data.images import Fit
from mixer_jax.data.sources import FolderSource
from mixer_jax.errors import UserError
from mixer_jax.models import MlpMixer, variant
from mixer_jax.training import Trainer
from runs import SHRINK
from support import ROOT, make_config

DIGITS = ["--config", str(ROOT / "configs/digits.py"), *SHRINK, "--rounds=2", "--forward=1,4"]
POLICY = ["--config.augment.crop=pad", "--config.augment.crop_padding=1"]


@pytest.fixture(autouse=True)
def over_in_a_moment(monkeypatch):
    monkeypatch.setattr(benchmark, "SECONDS", 0.01)
    monkeypatch.setitem(flops.SIDES, "cpu", 64)


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on when it is told to: `clock(seconds)`."""
    now = [0.0]
    monkeypatch.setattr(rounds, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def main(*arguments):
    return benchmark.main(["benchmark", *arguments])


def test_a_table_and_json(tmp_path, capsys):
    path = tmp_path / "new" / "digits.json"
    assert main(*DIGITS, *POLICY, f"--output={path}") == 0
    report = json.loads(path.read_text())
    assert (report["config"], report["batch_size"], report["rounds"]) == ("digits", 8, 2)
    images = {
        steps.STEP,
        steps.STEP_WITH_POLICY,
        steps.END_TO_END,
        steps.POLICY,
        "forward, batch 1",
        "forward, batch 4",
    }
    assert set(report["images_per_second"]) == images
    assert set(report["milliseconds"]) == images | {"product of two matrices of side 64"}
    for block in (report["images_per_second"], report["milliseconds"], report["ratios"]):
        for measured in block.values():
            assert 0 < measured["min"] <= measured["median"] <= measured["max"]
    step, devices = steps.STEP, jax.local_device_count()
    product = report["milliseconds"][step]["min"] * report["images_per_second"][step]["max"] / 1e3  # of one round
    assert product == pytest.approx(8 / devices, rel=1e-3)
    assert report["compile_seconds"] > 0
    assert report["program_bytes"] > 3 * 4 * report["num_params"]
    out = capsys.readouterr().out
    assert f"{report['images_per_second'][steps.POLICY]['median']:,.1f}" in out
    assert "digits: Pico/2" in out
    with pytest.raises(UserError, match="already exists"):
        main(*DIGITS, f"--output={path}")


def test_random_pixels_without_a_config(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scaling, "FACTORS", (1, 3))
    path = tmp_path / "random.json"
    small = [flag for flag in SHRINK if "warmup" not in flag and "batch_size" not in flag] + ["--config.batch_size=16"]
    assert (
        main("--image_size=8", "--channels=1", *small, "--scaling", "--rounds=1", "--forward=2", f"--output={path}")
        == 0
    )
    report = json.loads(path.read_text())
    assert (report["image_shape"], report["config"]) == ([8, 8, 1], "default")
    assert steps.STEP_WITH_POLICY not in report["milliseconds"]
    batches, depths = report["scaling"]["batch_size"], report["scaling"]["num_blocks"]
    assert ([row["value"] for row in batches], [row["value"] for row in depths]) == ([4, 12], [1, 3])
    assert all(rows[1]["bytes"] > rows[0]["bytes"] > 0 for rows in (batches, depths))
    assert "num_blocks" in capsys.readouterr().out


def test_scaling_sees_what_is_and_what_is_not_a_line(clock, monkeypatch):
    class Fake:
        def __init__(self, trainer):
            self.size = trainer.config.batch_size * trainer.model.num_blocks

        def step(self):
            return rounds.Work(lambda times: clock(times * (1.0 + self.size)))

        def memory(self):
            return 100 + self.size**2

    monkeypatch.setattr(scaling, "Ours", Fake)
    config = make_config(batch_size=64, model__num_blocks=4)
    dataset = steps.random_dataset((8, 8, 1), 10, 64)
    grid = scaling.grid(Trainer(config, dataset))
    table = {name: scaling.scaling(trainers, 2, 1.0) for name, trainers in grid.items()}
    assert [row["value"] for row in table["batch_size"]] == [16, 32, 64, 128, 256]
    assert [row["value"] for row in table["num_blocks"]] == [1, 2, 4, 8, 16]
    for rows in table.values():
        assert [row["time_of_line"] for row in rows] == pytest.approx([1.0] * 5)
        assert max(abs(row["bytes_of_line"] - 1) for row in rows) > 0.3


@pytest.mark.parametrize(
    "options", [{}, {"token_mixing": False}, {"channel_mixing": False}], ids=["whole", "channels", "tokens"]
)
def test_floating_point_operations_are_xlas(options):
    model = MlpMixer(num_classes=100, **(variant("S/16") | {"num_blocks": 2}), **options)
    images = jax.ShapeDtypeStruct((2, 96, 64, 3), np.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), images)
    cost = jax.jit(model.apply).lower(params, images).cost_analysis()
    ours = 2 * flops.forward_flops(model, images.shape[1:])
    assert ours < cost["flops"] < 1.1 * ours  # XLA counts the rest, too


@pytest.mark.parametrize("changes", [{}, {"frozen_trunk": True}, {"optimizer__sam_rho": 0.1}])
def test_floating_point_operations_of_a_step_are_xlas(changes):
    fields = {"hidden_dim": 256, "tokens_mlp_dim": 8, "channels_mlp_dim": 8, "num_blocks": 1}
    config = make_config(
        batch_size=64, accumulation_steps=1, **{f"model__{key}": x for key, x in fields.items()}, **changes
    )
    trainer = Trainer(config, steps.random_dataset((16, 16, 3), 1000, 64))  # half is in the head
    cost = trainer.lower("train").cost_analysis()
    per_device = 64 // len(trainer.parallel.devices)
    ours = per_device * flops.training_flops(config, trainer.model, (16, 16, 3))
    assert ours < cost["flops"] < 1.3 * ours  # XLA counts the rest, too


def test_rounds_take_turns_and_last_long_enough(clock):
    calls = []

    def work(name, seconds):
        return rounds.Work(lambda times: (calls.append((name, times)), clock(times * seconds)))

    seconds = rounds.measure({"a": work("a", 0.25), "b": work("b", 0.5)}, 3, 2.0)
    assert [call for call in calls if call[1] > 1] == [("a", 8), ("b", 4)] * 3
    assert seconds == {"a": [0.25] * 3, "b": [0.5] * 3}
    calls.clear()
    rounds.measure({"a": dataclasses.replace(work("a", 0.25), fewest=9)}, 1, 2.0)
    assert calls[-1] == ("a", 9)
    assert rounds.ratio({"a": [1.0, 6.0], "b": [2.0, 3.0]}, "a", "b") == [0.5, 2.0]
    assert rounds.spread([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_on_one_core_what_else_holds_still_does():
    inside, before = [], os.sched_getaffinity(0)

    @contextlib.contextmanager
    def around():
        inside.append("in")
        yield
        inside.append("out")

    def run(times):
        inside.append(len(os.sched_getaffinity(0)))

    rounds.measure({"a": rounds.on_one_core(rounds.Work(run, around=around))}, 1, 0.0)
    assert inside[:4] == ["in", 1, 1, "out"]
    assert os.sched_getaffinity(0) == before


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, when it compiles
def test_against_torch(tmp_path):
    pytest.importorskip("torch", reason="needs torch")
    from mixer_jax.benchmarks import in_torch

    path = tmp_path / "torch.json"
    one_device = [jax.local_devices()[0]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "local_devices", lambda *_: one_device)
        assert main(*DIGITS, "--config.optimizer.name=adamw", "--against=torch", f"--output={path}") == 0
    report = json.loads(path.read_text())
    assert report["logit_difference"] < 1e-5
    for kind in (in_torch.EAGER, in_torch.COMPILED):
        assert report["ratios"][f"images/s, step / {kind}"]["median"] > 0
    assert report["images_per_second"][in_torch.AUTOCAST]["median"] > 0  # bfloat16, beside which float32 is no measure
    assert f"images/s, step / {in_torch.AUTOCAST}" not in report["ratios"]


@pytest.mark.torch
def test_a_twin_that_computes_something_else_is_found(monkeypatch):
    pytest.importorskip("torch", reason="needs torch")
    from mixer_jax.benchmarks import in_torch

    trainer = Trainer(make_config(), steps.random_dataset((8, 8, 1), 10, 64), jax.devices()[:1])
    assert in_torch.Theirs(steps.Ours(trainer)).difference < 1e-5
    ours = steps.Ours(trainer)
    logits = ours.logits
    monkeypatch.setattr(ours, "logits", lambda params, images: 1.01 * logits(params, images))
    with pytest.raises(RuntimeError, match="the logits of torch differ"):
        in_torch.Theirs(ours)


FOLDER = ["--config", str(ROOT / "configs/folder.py"), "--config.dataset.image_size=8,8", "--config.batch_size=8"]


def test_reading(write_folder, tmp_path, capsys):
    flags = [*FOLDER, f"--config.dataset.data_dir={write_folder(per_class=12)}", "--reading=20", "--rounds=2"]
    assert main(*flags, f"--output={tmp_path}/reading.json") == 0
    report = json.loads((tmp_path / "reading.json").read_text())
    assert (report["images"], report["rounds"], report["image_shape"]) == (20, 2, [8, 8, 3])
    [measured] = report["images_per_second"].values()
    assert 0 < measured["min"] <= measured["median"] <= measured["max"]
    assert "20 images to 8x8x3, batches of 8" in capsys.readouterr().out


@pytest.mark.torch
def test_reading_against_a_data_loader(write_folder, tmp_path):
    transforms = pytest.importorskip("torchvision.transforms", reason="needs torchvision")
    root = write_folder(sizes=((40, 30),), per_class=12)
    flags = [*FOLDER, f"--config.dataset.data_dir={root}", "--reading=16", "--rounds=1", "--against=torchvision"]
    assert main(*flags, f"--output={tmp_path}/reading.json") == 0
    report = json.loads((tmp_path / "reading.json").read_text())
    assert len(report["images_per_second"]) == 2
    theirs = report["images_per_second"][reading.DATA_LOADER]["median"]
    assert report["ratio"]["median"] == pytest.approx(report["images_per_second"][reading.PIPELINE]["median"] / theirs)
    files = [root / "train" / "cat" / "0.png", root / "train" / "dog" / "1.jpg"]
    source = FolderSource(tuple(files), np.array([0, 1]), ("cat", "dog"), Fit((8, 8)), root)
    for (image, label), path in zip(reading.TorchFolder(source, [0, 1], (8, 8)), files, strict=True):
        assert label == source.of_class[files.index(path)]
        resize = transforms.Compose([transforms.Resize(8), transforms.CenterCrop(8), transforms.PILToTensor()])
        assert np.array_equal(image, resize(Image.open(path).convert("RGB")))


def test_mistakes(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*file/x.json: .*file is not a folder"):
        main(*DIGITS, f"--output={tmp_path}/file/x.json")
    with pytest.raises(UserError, match="unknown --against 'keras'"):
        main(*DIGITS, "--against=keras")
    for flags in (["--reading=9", "--against=torch"], ["--reading=9", "--image_size=8"], ["--reading=9", "--scaling"]):
        with pytest.raises(UserError, match="--reading measures the files|--scaling measures training steps"):
            main(*DIGITS, *flags)
    with pytest.raises(UserError, match="give a config with --config, or a size of random images"):
        main()
    with pytest.raises(UserError, match="config.num_seeds=2: one run is measured at a time"):
        main(*DIGITS, "--config.num_seeds=2")
    with pytest.raises(UserError, match="--forward=1,two: give batch sizes"):
        main(*DIGITS, "--forward=1,two")
    with pytest.raises(UserError, match=r"config.batch_size=1 is not divisible by \d devices"):
        main(*DIGITS, "--scaling", "--config.batch_size=4")
    for name in benchmark.AGAINST:
        if importlib.util.find_spec(name) is None:
            with pytest.raises(UserError, match="pip install torch torchvision"):
                main(*DIGITS, f"--against={name}")
