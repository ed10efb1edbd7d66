"""The benchmark command, over in a moment: what it writes, and that it overwrites nothing."""

import importlib.util
import json

import pytest

from mixer_jax import benchmark
from mixer_jax.errors import UserError
from runs import SHRINK
from support import ROOT

FLAGS = [*SHRINK, "--config.augment.crop=pad", "--config.augment.crop_padding=1", "--rounds=2"]


def main(*flags):
    return benchmark.main(["benchmark", "--config", str(ROOT / "configs/digits.py"), *FLAGS, *flags])


def test_a_table_and_json(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "SECONDS", 0.01)
    path = tmp_path / "new" / "digits.json"
    assert main(f"--output={path}") == 0
    report = json.loads(path.read_text())
    assert (report["config"], report["batch_size"], report["rounds"]) == ("digits", 8, 2)
    assert set(report["images_per_second"]) == {benchmark.STEP, benchmark.STEP_WITH_POLICY, benchmark.POLICY}
    for measured in (*report["images_per_second"].values(), *report["ratios"].values()):
        assert 0 < measured["min"] <= measured["median"] <= measured["max"]
    out = capsys.readouterr().out
    assert f"{report['images_per_second'][benchmark.POLICY]['median']:,.0f} images/s" in out
    with pytest.raises(UserError, match="is there already"):
        main(f"--output={path}")


def test_what_it_cannot_compare_with():
    with pytest.raises(UserError, match="unknown --against 'keras'"):
        main("--against=keras")
    if importlib.util.find_spec("torchvision") is None:
        with pytest.raises(UserError, match="pip install torch torchvision"):
            main("--against=torchvision")
