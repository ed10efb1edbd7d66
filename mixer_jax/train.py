"""Trains a Mixer: python -m mixer_jax.train --config configs/digits.py [--config.field=value ...] [--workdir DIR]

The same command again goes on where the run stopped, or says that it is finished. Every field of a config, with its
meaning, is in mixer_jax/config.py.
"""

import contextlib
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags
from ml_collections import ConfigDict

from mixer_jax import cli, data, report
from mixer_jax.errors import UserError, warn
from mixer_jax.reporting import ConsoleProgress, TensorBoard, aggregate, plot_curves, summarize
from mixer_jax.run_directory import ENDING, RunDirectory, writing
from mixer_jax.training import Diverged, Interrupted, Trainer, check_ending, fit, processes
from mixer_jax.training.checkpoints import Checkpoints
from mixer_jax.training.platforms import unused_accelerator
from mixer_jax.training.pretrained import initial_params
from mixer_jax.training.processes import check_same, first_goes_first, on_first


def main(argv: list[str]) -> int:
    """Parses the command line and trains; returns the exit code."""
    values, config, name = cli.parse(argv, _define_flags, __doc__)
    workdir = Path(values.workdir or Path("runs") / name)
    processes.join(values)
    try:
        with processes.speaking_once():
            train(config, RunDirectory(workdir), overwrite=values.overwrite)
    except Diverged as error:
        print(f"stopped: {error}. A lower learning rate, a longer warmup or clip_norm may help", file=sys.stderr)
        return 1
    except Interrupted as error:
        if processes.is_first():
            print(error, file=sys.stderr)
        return 128 + error.signal
    return 0


def _define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "run directory; by default runs/<name of the config>", flag_values=values)
    flags.DEFINE_boolean(
        "overwrite", False, "start over in a workdir that holds a run, which is moved to DIR.old1", flag_values=values
    )
    processes.define_flags(values)


def train(
    config: ConfigDict,
    run: RunDirectory,
    *,
    overwrite: bool = False,
    devices: Sequence[jax.Device] | None = None,
    dataset: data.Dataset | None = None,
) -> dict[str, Any]:
    """Runs a checked config in a run directory from start, or checkpoint, to results.

    Args:
      config: from `mixer_jax.config.check` or `mixer_jax.cli.parse`.
      run: where the run is kept.
      overwrite: move a run that is there aside and start over.
      devices: to train on; all by default.
      dataset: what `data.load` made of `config.dataset`, where it is at hand.

    Returns:
      What is in results.json.

    Raises:
      UserError: before anything is compiled or written, if something does not fit.
      Diverged: if the loss is no longer finite.
      Interrupted: by SIGTERM or Ctrl-C; the same call goes on.
    """
    changes = on_first(lambda: run.check(config, overwrite))
    if not overwrite and (results := on_first(run.read_results)):
        if changes.keys().isdisjoint(ENDING):
            print(f"Finished already; --overwrite starts over\n{summarize(run, results)}")
            return results
        if config.num_seeds > 1:
            raise UserError(f"workdir {run.path} holds {config.num_seeds} seeds, finished: each goes on by itself only")
    for change in changes.values():
        print(f"Changed: {change}")
    if line := unused_accelerator():
        warn(line)
    dataset = dataset or first_goes_first(lambda: data.load(config.dataset))
    trainer = Trainer(config, dataset, devices)
    trainer.check_epochs()
    if not overwrite:
        on_first(lambda: check_ending(trainer, run, [one for one, _ in run.runs(config)]))
    if config.init_from and (overwrite or not on_first(Checkpoints(run.checkpoints).steps)):
        trainer.start_from(initial_params(config.init_from, trainer.model, trainer.steps.augment.input_shape))
    check_same(lambda: _told(trainer))
    with contextlib.ExitStack() as stack:
        on_first(lambda: _claim(trainer, run, overwrite, stack))
        return _train(trainer, run)


def _told(trainer: Trainer) -> dict[str, str]:
    """What has to be the same on all processes; folders may have other names."""
    config = trainer.config.copy_and_resolve_references()
    config.init_from = config.dataset.data_dir = ""
    return {
        "config": config.to_json(sort_keys=True),
        "data": trainer.dataset.fingerprint(),
        "weights to start from": trainer.initial_fingerprint(),
        "packages": str(trainer.runs_on),
    }


def _claim(trainer: Trainer, run: RunDirectory, overwrite: bool, stack: contextlib.ExitStack) -> None:
    """Makes the run directory this run's; the stack gives it free."""
    if overwrite and (aside := run.set_aside()):
        print(f"Moved the earlier run to {aside}")
    config = trainer.config
    for one, its_config in {run: config, **dict(run.runs(config))}.items():
        stack.enter_context(one.held())
        one.claim(its_config, described(trainer.dataset))


def described(dataset: data.Dataset) -> dict[str, Any]:
    """What config.json tells of a dataset."""
    return {
        "label_names": dataset.label_names,
        "image_shape": dataset.image_shape,
        "mean": dataset.mean,
        "std": dataset.std,
        "streamed": dataset.streamed,
        "fingerprint": dataset.fingerprint(),
    }


def _train(trainer: Trainer, run: RunDirectory) -> dict[str, Any]:
    config, dataset = trainer.config, trainer.dataset
    directories = [one for one, _ in run.runs(config)]
    seeds = f" for each of {len(directories)} seeds" if len(directories) > 1 else ""
    height, width, channels = dataset.image_shape
    devices = f"{trainer.runs_on['devices']} x {trainer.runs_on['device_kind']}"
    print(
        f"{dataset.name}: {len(dataset.train):,} train, {len(dataset.val):,} validation and {len(dataset.test):,} test "
        f"images, {height}x{width}x{channels}, {dataset.num_classes} classes{', streamed' * dataset.streamed}\n"
        f"{config.model.variant}: {trainer.num_params:,} parameters; {devices}, {trainer.dtype}\n"
        f"{trainer.total_steps:,} steps of {config.batch_size}{seeds}; run directory {run.path}",
        flush=True,
    )
    observers = []
    if processes.is_first():
        batch_size = config.batch_size * len(directories)
        observers.append(ConsoleProgress(math.ceil(config.epochs), trainer.total_steps, batch_size))
        observers.append(TensorBoard([one.tensorboard for one in directories]))
    measured = fit(trainer, run, directories, observers)
    return on_first(lambda: _finish(trainer, run, directories, measured))


def _finish(
    trainer: Trainer, run: RunDirectory, directories: Sequence[RunDirectory], measured: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Writes and prints the results."""
    circumstances = _circumstances(trainer, run.described()["fingerprint"])
    every = [{"seed": seed, **of_one, **circumstances} for seed, of_one in zip(trainer.seeds, measured, strict=True)]
    report.finish(directories, every, trainer.dataset.test)
    for one, of_one in zip(directories, every, strict=True):
        one.write_results(of_one)
    results = every[0]
    if len(directories) > 1:
        results = aggregate(every)
        with writing(run.curves_file):
            title = f"{results['dataset']}, {results['model']}, {len(every)} seeds"
            plot_curves([one.read_metrics() for one in directories], run.curves_file, title)
        run.write_results(results)
        run.drop_checkpoints()
    print(summarize(run, results))
    return results


def _circumstances(trainer: Trainer, fingerprint: str) -> dict[str, Any]:
    """The part of results.json that is known before training, and the same for all seeds."""
    config = trainer.config
    return {
        "dataset": trainer.dataset.name,
        "model": config.model.variant,
        "num_params": trainer.num_params,
        "num_seeds": config.num_seeds,
        "selected_on": data.selected_on(config.dataset),
        **trainer.runs_on,
        "data_fingerprint": fingerprint,
    }


if __name__ == "__main__":
    cli.run(main)
