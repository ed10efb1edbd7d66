"""Training is PyTorch's, step after step; and what the command says where it cannot compare."""

import importlib.util
import json

import numpy as np
import pytest

from mixer_jax import parity
from mixer_jax.errors import UserError
from runs import SHRINK
from support import ROOT

DIGITS = ("--config", str(ROOT / "configs/digits.py"), "--config.epochs=40")
with_torch = pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="needs torch")


def main(*arguments):
    return parity.main(["parity", *arguments])


@pytest.mark.torch
@with_torch
def test_200_steps_of_adam_and_sgd_are_pytorchs(tmp_path, capsys):
    assert main(*DIGITS, f"--output={tmp_path / 'out'}") == 0
    report = json.loads((tmp_path / "out" / "parity.json").read_text())
    for name in ("adam", "sgd"):
        ours, theirs = (np.array(report["optimizers"][name][side]) for side in ("ours", "torch"))
        assert len(ours) == len(theirs) == 200
        assert theirs[-20:].mean() < 0.8 < 2.3 < theirs[0]
        assert np.max(np.abs(ours - theirs) / theirs) < 1e-3
        assert report["optimizers"][name]["largest_relative_difference"] < 1e-3
    assert "adam: loss 2.3026 at first" in capsys.readouterr().out
    assert (tmp_path / "out" / "parity.png").stat().st_size > 10_000


@pytest.mark.torch
@with_torch
def test_a_difference_is_seen(tmp_path, monkeypatch):
    """Of two programs that are not the same, the losses part."""
    from mixer_jax.benchmarks import trajectory

    original = trajectory.our_losses
    monkeypatch.setattr(trajectory, "our_losses", lambda trainer, n: original(trainer, n) * (1 + 2e-3))
    assert main(*DIGITS, *SHRINK, "--steps=3", f"--output={tmp_path / 'out'}") == 0
    report = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert report["optimizers"]["adam"]["largest_relative_difference"] == pytest.approx(2e-3, rel=1e-2)


@pytest.mark.torch
@with_torch
def test_a_run_of_fewer_steps_is_compared_to_its_end(tmp_path):
    assert main(*DIGITS, *SHRINK, "--config.batch_size=500", f"--output={tmp_path / 'out'}") == 0
    report = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert report["steps"] == 5  # 2 epochs of 1,149 images


@with_torch
@pytest.mark.torch
@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--steps=100000",), "--steps=100000: the config has 8.."),
        (("--config.num_seeds=2",), "config.num_seeds=2: one run is compared at a time"),
        (("--output=WORK",), "parity.json already exists: --overwrite replaces it"),
        (("--config.dataset.memory_budget_gib=0",), "a streamed dataset cannot be compared"),
        (
            ("--config.optimizer.sam_rho=0.1",),
            "optimizer.sam_rho=0.1: the PyTorch side supports only the default, 0.0",
        ),
        (("--config.frozen_trunk",), "config.frozen_trunk=True: the PyTorch side supports only"),
        (("--config.model.variant=CNN",), "config.model.variant=CNN: its dropout cannot be left out"),
    ],
)
def test_mistakes_get_one_line(flags, line, tmp_path):
    (tmp_path / "parity.json").touch()
    flags = [flag.replace("WORK", str(tmp_path)) for flag in flags]
    with pytest.raises(UserError, match=line) as caught:
        main(*DIGITS, f"--output={tmp_path / 'out'}", *flags)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(bool(importlib.util.find_spec("torch")), reason="torch is installed")
def test_without_torch_a_line_says_what_is_missing():
    with pytest.raises(UserError, match="No module named 'torch'; pip install torch"):
        main(*DIGITS)
