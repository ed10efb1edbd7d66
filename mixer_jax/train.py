"""Trains a Mixer: python -m mixer_jax.train --config configs/digits.py [--config.field=value ...] [--workdir DIR]

The same command again goes on where the run stopped, or says that it is finished. Every field of a config, with its
meaning, is in mixer_jax/config.py.
"""

import contextlib
import datetime
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
from mixer_jax.reporting import ConsoleProgress, LiveCurves, TensorBoard, aggregate, plot_curves, summarize
from mixer_jax.run_directory import ENDING, RunDirectory
from mixer_jax.storage import writing
from mixer_jax.training import (
    OVER,
    Diverged,
    Interrupted,
    Outcome,
    Trainer,
    check_ending,
    check_epochs,
    fit,
    processes,
    stopping_at_once,
)  # fmt: skip
from mixer_jax.training.checkpoints import Checkpoints
from mixer_jax.training.platforms import unused_accelerator
from mixer_jax.training.pretrained import initial_params
from mixer_jax.training.processes import check_same, first_goes_first, on_first
from mixer_jax.training.schedule import warmup_epochs


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
      Interrupted: by SIGTERM, SIGHUP or Ctrl-C; the same call goes on.
    """
    if not overwrite:
        config = config.copy_and_resolve_references()
        config.update_from_flattened_dict(on_first(run.newer_fields))
    changes = on_first(lambda: run.check(config, overwrite))
    results = None if overwrite else on_first(run.read_results)
    finished = results is not None and changes.keys().isdisjoint(ENDING)
    if results and not finished and config.num_seeds > 1:
        raise UserError(f"workdir {run.path} holds {config.num_seeds} seeds, finished: each goes on by itself only")
    if not finished:
        for change in changes.values():
            print(f"Changed: {change}")
        if line := unused_accelerator():
            warn(line)
    dataset = dataset or first_goes_first(lambda: data.load(config.dataset))
    if finished:
        on_first(lambda: run.check_data(config, described(dataset), finished=True))
        print(f"{_finished_already(run, results)}; --overwrite starts over\n{summarize(run, results)}")
        return results
    for caution in dataset.cautions:
        warn(caution)
    trainer = Trainer(config, dataset, devices)
    check_epochs(trainer)
    if not overwrite:
        on_first(lambda: check_ending(trainer, run, [one for one, _ in run.runs(config)]))
    # One to fall back on, one that is being written, and at the end each seed's own.
    shapes, copies = trainer.state_shapes, 2 + (config.num_seeds > 1)
    on_first(lambda: Checkpoints(run.checkpoints).require_room(shapes, shapes.evaluated, copies))
    if config.init_from and (overwrite or not on_first(Checkpoints(run.checkpoints).steps)):
        trainer.start_from(initial_params(config.init_from, trainer.model, trainer.steps.augment.input_shape))
    check_same(lambda: _told(trainer))
    with contextlib.ExitStack() as stack:
        on_first(lambda: _claim(trainer, run, overwrite, stack))
        return _train(trainer, run)


def _finished_already(run: RunDirectory, results: dict[str, Any]) -> str:
    """Says what was trained here on what and when."""
    config, names = run.config(), run.described()["label_names"]
    folder = f" in {config.dataset.data_dir}" if config.dataset.data_dir else ""
    when = f" on {results['finished']}" if "finished" in results else ""
    return (
        f"Finished already{when}: {results['model']} on {results['dataset']}{folder}, {len(names)} classes, data "
        f"fingerprint {results['data_fingerprint']}"
    )


def _told(trainer: Trainer) -> dict[str, str]:
    """What has to be the same on all processes; folders may have other names."""
    config = trainer.config.copy_and_resolve_references()
    config.init_from = config.dataset.data_dir = ""
    return {
        "config": config.to_json(sort_keys=True),
        "data": trainer.dataset.fingerprint,
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
        "fingerprint": dataset.fingerprint,
    }


def _train(trainer: Trainer, run: RunDirectory) -> dict[str, Any]:
    config, dataset = trainer.config, trainer.dataset
    directories = [one for one, _ in run.runs(config)]
    seeds = f" for each of {len(directories)} seeds" if len(directories) > 1 else ""
    warmup = warmup_epochs(config)
    shorter = f", {warmup:g} epochs of warmup" if warmup != config.schedule.warmup_epochs else ""
    height, width, channels = dataset.image_shape
    devices = f"{trainer.runs_on['devices']} x {trainer.runs_on['device_kind']}"
    print(
        f"{dataset.name}: {len(dataset.train):,} train, {len(dataset.val):,} validation and {len(dataset.test):,} test "
        f"images, {height}x{width}x{channels}, {dataset.num_classes} classes{', streamed' * dataset.streamed}\n"
        f"{config.model.variant}: {trainer.num_params:,} parameters; {devices}, {trainer.dtype}\n"
        f"{trainer.total_steps:,} steps of {config.batch_size}{seeds}{shorter}; run directory {run.path}",
        flush=True,
    )
    observers = []
    if processes.is_first():
        batch_size, title = config.batch_size * len(directories), f"{dataset.name}, {config.model.variant}"
        observers.append(ConsoleProgress(math.ceil(config.epochs), trainer.total_steps, batch_size))
        observers.append(TensorBoard([one.tensorboard for one in directories]))
        observers.append(LiveCurves(run.curves_file, f"{title}, not finished"))
    outcomes = fit(trainer, run, directories, observers)
    with stopping_at_once(OVER):
        return on_first(lambda: _finish(trainer, run, directories, outcomes))


def _finish(
    trainer: Trainer, run: RunDirectory, directories: Sequence[RunDirectory], outcomes: Sequence[Outcome]
) -> dict[str, Any]:
    """Writes and prints the results."""
    circumstances = _circumstances(trainer, run)
    every = [{"seed": seed, **one.measured, **circumstances} for seed, one in zip(trainer.seeds, outcomes, strict=True)]
    print("Drawing the report", flush=True)
    report.finish(directories, every, outcomes, trainer.dataset.test)
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


def _circumstances(trainer: Trainer, run: RunDirectory) -> dict[str, Any]:
    """The part of results.json that is the same for all seeds."""
    config = trainer.config
    extended = [
        f"the first {of['step']:,} steps were of a run of {of['epochs']:g} epochs, which got more"
        for of in run.extended
    ]
    return {
        "dataset": trainer.dataset.name,
        "model": config.model.variant,
        "num_params": trainer.num_params,
        "num_seeds": config.num_seeds,
        "selected_on": data.selected_on(config.dataset),
        **trainer.runs_on,
        "data_fingerprint": run.described()["fingerprint"],
        "cautions": [*trainer.dataset.cautions, *extended],
        "finished": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


if __name__ == "__main__":
    cli.run(main)
