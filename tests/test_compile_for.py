# ruff: noqa: E501 - lines of a program are as long as XLA writes them
"""Programs for accelerators one does not have: what is read from them, and what they must and must not hold."""

import importlib.util
import json
import os
import subprocess
import sys

import jax.numpy as jnp
import pytest

from mixer_jax import benchmark
from mixer_jax.benchmarks import hlo, targets
from mixer_jax.benchmarks.compiled import stand_in
from mixer_jax.benchmarks.paper import require_paper
from mixer_jax.config_files import get_config
from mixer_jax.errors import UserError
from mixer_jax.models import from_variant
from support import ROOT, make_config

PROGRAM = """HloModule jit_train
%inner.body (p: (s32[])) -> (s32[]) {
  %a = f32[8]{0} fusion(%p), kind=kLoop, metadata={op_name="jit(f)/while/body/dot_1/mul"}, backend_config={"estimated_cycles":"10"}
}

%inner.condition (p: (s32[])) -> pred[] {
  %constant.1 = s32[]{:T(128)} constant(3)
  ROOT %lt = pred[] compare(%i, %constant.1), direction=LT
}

%open.condition (p: (s32[])) -> pred[] {
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

%open.body (p: (s32[])) -> (s32[]) {
  %b = f32[8]{0} fusion(%p), kind=kLoop, metadata={op_name="x/b"}, backend_config={"estimated_cycles":"7"}
}

%called (p: s32[]) -> s32[] {
  %c = f32[8]{0} fusion(%p), kind=kLoop, metadata={op_name="x/c"}, backend_config={"estimated_cycles":"100"}
}

%step (p: (s32[])) -> (s32[]) {
  %x = bf16[4,8]{1,0} parameter(0)
  %y = f32[16]{0} fusion(%x, %x), kind=kLoop, metadata={op_name="jit(f)/transpose(jvp(M))/MixerBlock_3/Dense_0/mul"}, backend_config={"estimated_cycles":"1000"}
  %w = (s32[]) while(%t), condition=%inner.condition, body=%inner.body
  %v = (s32[]) while(%t), condition=%open.condition, body=%open.body
  %u = s32[] call(%t), to_apply=%called
  %g = s32[128]{0} gather(%q, %r), offset_dims={}, collapsed_slice_dims={0}, start_index_map={0}, slice_sizes={1}
  %h = u8[128,3072]{1,0} gather(%q, %r), offset_dims={1}, collapsed_slice_dims={0}, slice_sizes={1,3072}
  %s = s32[128]{0} scatter(%q, %r, %r), to_apply=%called
}

%step.condition (p: (s32[])) -> pred[] {
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (p: s32[]) -> s32[] {
  %d = f32[8]{0} fusion(%p), kind=kLoop, metadata={op_name="x/d"}, backend_config={"estimated_cycles":"5"}
  %z = (s32[]) while(%d), condition=%step.condition, body=%step
}
"""


def test_cycles_count_loops_as_often_as_they_run():
    program = hlo.read(PROGRAM)
    assert program["step_cycles"] == 1000 + 3 * 10 + 7 + 100
    assert program["dispatch_cycles"] == 5
    assert next(iter(program["kinds"])) == "backward MixerBlock_*/Dense_*/mul"
    assert [program[key] for key in ("gathers", "single_gathers", "scatters", "sorts")] == [2, 1, 1, 0]
    assert (program["loops"], program["open_loops"]) == (2, 1)


def test_bytes_are_those_of_operands_and_results():
    program = hlo.read(PROGRAM.split("  %w =")[0] + PROGRAM.split("slice_sizes={1,3072}\n")[1])
    # The fusion reads the same 64 bytes twice and writes 64; the scatter writes 512 and reads what is not here.
    assert (program["kernels"], program["bytes_moved"]) == (2, 64 + 64 + 64 + 512)


class TestMistakes:
    def test_targets(self, monkeypatch):
        for target in ("v5e", "v5e:", "v5e:axb", "tpu:1x1"):
            with pytest.raises(UserError, match="give a target such as v5e:1x1"):
                targets.describe(target)
        with pytest.raises(UserError, match="unknown card in compile_for=cuda:CARD 'h10'.*did you mean 'h100'"):
            targets.describe("cuda:h10")
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(UserError, match=r'needs libtpu, which comes with pip install "jax\[tpu\]"'):
            targets.describe("v5e:1x1")
        with pytest.raises(UserError, match=r'needs pip install "jax\[cuda12\]"'):
            targets.describe("cuda:t4")

    def test_against_and_a_set_nobody_knows(self):
        with pytest.raises(UserError, match="unknown --against 'torch'.*valid: paper, plain"):
            benchmark.main(
                ["b", "--config", str(ROOT / "configs/digits.py"), "--compile_for=v5e:1x1", "--against=torch"]
            )
        for shape, num_images in ((None, None), ((32, 32, 3, 10), None), (None, 100)):
            with pytest.raises(UserError, match="config.dataset.name=svhn: .* give image_size, .* and num_images"):
                stand_in(make_config(dataset__name="svhn"), targets.TPUS["v5e"], shape, num_images)

    @pytest.mark.parametrize("fields", [{"pre_head_norm": False}, {"gelu": "exact"}, {"token_mixing": False}])
    def test_a_model_that_the_papers_code_does_not_have(self, fields):
        model = from_variant("Pico/4", 10, **fields)
        [(name, value)] = fields.items()
        with pytest.raises(UserError, match=f"config.model.{name}={value}: the paper's code has "):
            require_paper(model)
        require_paper(from_variant("Pico/4", 10, dropout_rate=0.1, dtype=jnp.bfloat16, zero_init_head=False))


def test_a_set_that_would_not_fit_is_streamed():
    config, chip = make_config(dataset__name="cifar10"), targets.TPUS["v5e"]
    inside = stand_in(config, chip, None, 1_200_000)
    assert (len(inside.train), inside.image_shape, inside.streamed) == (1_080_000, (32, 32, 3), False)
    assert stand_in(config, chip, None, 2_000_000).streamed
    assert stand_in(config, chip, (224, 224, 3, 1000), 100_000).num_classes == 1000
    flowers = make_config(dataset__name="oxford_flowers102", dataset__image_size=(64, 64))  # whose sizes are not known
    assert stand_in(flowers, chip, (32, 32, 3, 102), 1000).image_shape == (32, 32, 3)


def compiled(path, *arguments, target="v5e:1x1"):
    """The report of the command in a process of its own: it chooses JAX's platform."""
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip('needs pip install "jax[tpu]"; no TPU')
    command = [sys.executable, "-m", "mixer_jax.benchmark", f"--compile_for={target}", f"--output={path}", *arguments]
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert path.exists(), result.stderr[-2000:]
    return json.loads(path.read_text()), result


SMALL = ["--config.model.num_blocks=1", "--config.model.variant=Pico/4"]


@pytest.mark.tpu
class TestOnATpu:
    def test_augmentation_has_no_single_gather_scatter_or_open_loop(self, tmp_path):
        report, result = compiled(tmp_path / "r.json", "--config", "configs/cifar10.py", *SMALL, "--against=plain")
        assert result.returncode == 0
        for row in report["programs"].values():
            assert (row["single_gathers"], row["scatters"], row["sorts"], row["open_loops"]) == (0, 0, 0, 0)
        assert report["ratios"]["cycles, training / training, not augmented"] > 1
        assert "not a measurement" in result.stdout

    def test_a_set_in_memory_takes_little_more_than_its_bytes(self, tmp_path):
        report, _ = compiled(tmp_path / "r.json", "--image_size=32", "--num_images=1200000", *SMALL)
        row = report["programs"]["training"]
        assert report["set_bytes"] > 3.0 * 2**30
        assert row["device_bytes"] < 1.3 * report["set_bytes"]

    def test_a_second_start_compiles_again_and_warns_of_nothing(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
        for start in range(2):
            _, result = compiled(tmp_path / f"{start}.json", "--image_size=32", *SMALL)
            assert result.returncode == 0
            assert "Warning" not in result.stderr  # JAX cannot read a cached program without its device

    def test_what_does_not_fit_is_said_and_ends_with_1_but_fits_in_microbatches(self, tmp_path):
        arguments = [
            "--image_size=224",
            "--config.model.variant=L/16",
            "--config.batch_size=4096",
            "--config.model.num_blocks=2",
        ]
        report, result = compiled(tmp_path / "whole.json", *arguments, "--config.accumulation_steps=1")
        assert result.returncode == 1
        assert "does_not_fit" in report["programs"]["training"]
        assert "DOES NOT FIT" in result.stdout
        _, result = compiled(tmp_path / "parts.json", *arguments)
        assert result.returncode == 0
        assert "batch 4096 in 128 microbatches per device, bfloat16" in result.stdout


def programs():
    """The shipped configs, one of those that differ by their data and epochs alone."""
    different = {}
    for path in sorted((ROOT / "configs").glob("*.py")):
        config = get_config(str(path))
        config.dataset.name, config.epochs = "", 1.0
        different.setdefault(json.dumps(config.to_dict()), path.stem)
    return [*different.values(), "mixer_nano_cifar10:0.67M"]


@pytest.mark.tpu
@pytest.mark.parametrize("name", programs())
def test_every_shipped_config_fits_a_tpu_of_colab(name, tmp_path):
    path, _, argument = name.partition(":")
    config = f"configs/{path}.py" + (f":{argument}" if argument else "")
    report, result = compiled(tmp_path / "r.json", "--config", config)
    assert result.returncode == 0, result.stdout
    for row in report["programs"].values():
        assert row["device_bytes"] < report["chip"]["memory"]
        assert (row["single_gathers"], row["scatters"], row["open_loops"]) == (0, 0, 0)
        assert row["step_cycles"] > 0


@pytest.mark.tpu
@pytest.mark.parametrize("name", ["cifar10", "imagenet"])
def test_on_eight_chips(name, tmp_path):
    report, result = compiled(tmp_path / "r.json", "--config", f"configs/{name}.py", target="v5e:2x4")
    assert result.returncode == 0, result.stdout
    assert report["target"] == "8 x TPU v5e"
