"""The lines at the end of a run."""

import shlex

from made_rows import result
from mixer_jax.reporting.summary import summarize
from mixer_jax.run_directory import RunDirectory


def test_the_command_for_tensorboard_works_as_printed(tmp_path):
    run = RunDirectory(tmp_path / "My Drive" / "it's a run")
    lines = summarize(
        run, result(98.0, seed=3, last_val_accuracy=1.0, compile_seconds=1.0, images_per_second=10.0)
    ).splitlines()
    [line] = [line for line in lines if "--logdir" in line]
    assert shlex.split(line)[-2:] == ["--logdir", str(run.tensorboard)]
