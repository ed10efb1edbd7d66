"""A run from its config to its results: checks, training, scoring and the report."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

from mixer_jax import data, models
from mixer_jax.checkpoints import Checkpoints
from mixer_jax.claim import ENDING, claim, require_same_data, require_usable
from mixer_jax.config import check
from mixer_jax.errors import UserError
from mixer_jax.messages import say, warn
from mixer_jax.records import Results
from mixer_jax.reporting import summarize
from mixer_jax.run_directory import RunDirectory
from mixer_jax.training.ending import check_ending, check_epochs
from mixer_jax.training.length import CHOSEN, scaled
from mixer_jax.training.platforms import unused_accelerator
from mixer_jax.training.pretrained import initial_params
from mixer_jax.training.processes import check_same, first_goes_first, is_first, on_first
from mixer_jax.training.schedule import warmup_epochs
from mixer_jax.training.setup import require_choices
from mixer_jax.training.stages import train_one, train_seeds
from mixer_jax.training.trainer import Trainer


def train(
    config: ConfigDict,
    run: RunDirectory | str | Path,
    *,
    overwrite: bool = False,
    devices: Sequence[jax.Device] | None = None,
    dataset: data.Dataset | None = None,
    show_progress: bool = True,
) -> Results:
    """Train a model as a config says, from the run's newest checkpoint if there is one, and return its results.

    At the end, JAX's caches are cleared, so that functions compiled by the caller compile again on their next call.

    Args:
      config: a config, such as `mixer_jax.get_config` returns; its fields are checked.
      run: the run directory, which need not exist.
      overwrite: set an earlier run in this directory aside, and start over.
      devices: the devices to train on; by default, all.
      dataset: the result of `data.load(config.dataset)`, if it is loaded already.
      show_progress: print a table of the epochs, and a progress bar on a terminal.

    Returns:
      The results, as in results.json. If the run is finished already, they are returned without training.

    Raises:
      UserError: before anything is compiled or written to the run directory, if config, data, devices and run directory
        do not fit together. Later, if no checkpoint is intact, if an image of a streamed dataset cannot be read, or if
        a file cannot be written.
      Diverged: if the loss is not finite.
      Interrupted: by SIGTERM, SIGHUP or Ctrl-C; the same call resumes.
      KeyboardInterrupt: by a second Ctrl-C, before the state is saved.
    """
    config, run = check(config), run if isinstance(run, RunDirectory) else RunDirectory(run)
    require_choices(config)
    if not overwrite:
        config.update_from_flattened_dict(on_first(run.newer_fields))
        if config.epochs == CHOSEN and (before := on_first(lambda: _length(run))):
            config = _as_long_as(config, *before)
    changes = on_first(lambda: require_usable(run, config, overwrite))
    content = None if overwrite else on_first(lambda: found.to_json() if (found := run.read_results()) else None)
    results = content and Results.from_json(content)
    finished = results if changes.keys().isdisjoint(ENDING) else None
    if results and not finished and config.num_seeds > 1:
        raise UserError(
            f"workdir {run.path}: all {config.num_seeds} seeds are finished; extend each in its own directory"
        )
    if not finished:
        for change in changes.values():
            say(f"Changed: {change}")
        if line := unused_accelerator():
            warn(line)
    dataset = dataset or first_goes_first(lambda: data.load(config.dataset))
    if finished:
        on_first(lambda: require_same_data(run, config, dataset.info(), finished=True))
        say(f"{_finished_already(run, finished)}; set overwrite to start over\n{summarize(run, finished)}")
        return finished
    for caution in dataset.cautions:
        warn(caution)
    trainer = Trainer(config, dataset, devices)
    _check(trainer, run, overwrite)
    if config.init_from and (overwrite or not on_first(lambda: _begun(run, config))):
        shape, normalization = trainer.functions.augment.input_shape, config.dataset.normalization
        trainer.initial = initial_params(config.init_from, trainer.model, shape, normalization)
    check_same(lambda: _shared(trainer))
    with contextlib.ExitStack() as stack:
        # JAX keeps every pmapped program; after some eighty runs, a process could not map the memory for another one.
        stack.callback(jax.clear_caches)
        on_first(lambda: _claim(trainer, run, overwrite, stack))
        say(_introduction(trainer, run))
        show = show_progress and is_first()
        return train_seeds(trainer, run, show) if config.num_seeds > 1 else train_one(trainer, run, show)


def _length(run: RunDirectory) -> tuple[float, int] | None:
    """Return the epochs and the patience of an earlier run in this directory; None without one."""
    if not run.begun:
        return None
    config = run.config()
    return config.epochs, config.early_stopping_patience


def _as_long_as(config: ConfigDict, epochs: float, patience: int) -> ConfigDict:
    """Use an earlier run's number of epochs, not one computed from the dataset; scale the patience accordingly."""
    longer = scaled(config, epochs)
    if patience == config.early_stopping_patience:  # the earlier epochs were given, or scaling changed nothing
        longer.early_stopping_patience = patience
    return longer


def _check(trainer: Trainer, run: RunDirectory, overwrite: bool) -> None:
    """Raise `UserError` if the run cannot be trained to its end here."""
    config = trainer.config
    check_epochs(trainer)
    if config.num_seeds > 1 and trainer.dataset.streamed:
        raise UserError(
            f"config.num_seeds={config.num_seeds}: a streamed dataset feeds one run at a time; raise "
            "config.dataset.memory_budget_gib if it fits into memory, or train the seeds one after the other"
        )
    directories = [seed for seed, _ in run.runs(config)]

    def check_endings() -> None:
        for one in dict.fromkeys((run, *directories)):
            check_ending(trainer, one)

    if not overwrite:
        on_first(check_endings)  # once: a process with another number of seeds would wait for a call that never comes
    # For each seed, one to fall back on and one that is being written.
    shapes, copies = trainer.state_shapes, 2 * config.num_seeds
    replaced = [] if overwrite else [one.checkpoints for one in (run, *directories)]
    on_first(lambda: Checkpoints(run.checkpoints).require_room(shapes, shapes.evaluated, copies, replaced))


def _begun(run: RunDirectory, config: ConfigDict) -> bool:
    """Return whether the run, or each of its seeds, resumes from a checkpoint and so needs no initial weights."""
    seeds = [directory for directory, _ in run.runs(config)]
    return bool(Checkpoints(run.checkpoints).saved_steps()) or all(
        Checkpoints(seed.checkpoints).saved_steps() for seed in seeds
    )


def _shared(trainer: Trainer) -> dict[str, str]:
    """Return what has to be equal on all processes; the folders of data and weights may have different names."""
    config = trainer.config.copy_and_resolve_references()
    config.init_from = config.dataset.data_dir = ""
    return {
        "config": config.to_json(sort_keys=True),
        "data": trainer.dataset.fingerprint,
        "weights to start from": trainer.initial_fingerprint(),
        "devices or packages": str(trainer.runs_on),
    }


def _claim(trainer: Trainer, run: RunDirectory, overwrite: bool, stack: contextlib.ExitStack) -> None:
    """Lock the run directory until the stack is closed, and write its config; `overwrite` sets an earlier run aside."""
    if overwrite and (aside := run.set_aside()):
        say(f"Moved the earlier run to {aside}")
    config = trainer.config
    for one, its_config in {run: config, **dict(run.runs(config))}.items():
        stack.enter_context(one.locked())
        claim(one, its_config, trainer.dataset.info())


def _finished_already(run: RunDirectory, results: Results) -> str:
    """Return a line about the date, the model and the data of a finished run."""
    config, names = run.config(), run.dataset_info()["label_names"]
    folder = f" in {config.dataset.data_dir}" if config.dataset.data_dir else ""
    when = f" on {results.finished}" if results.finished else ""
    return (
        f"Finished already{when}: {results.model} on {results.dataset}{folder}, {len(names)} classes, data "
        f"fingerprint {results.data_fingerprint}"
    )


def _introduction(trainer: Trainer, run: RunDirectory) -> str:
    config, dataset = trainer.config, trainer.dataset
    seeds = f" for each of {config.num_seeds} seeds" if config.num_seeds > 1 else ""
    warmup = warmup_epochs(config)
    shorter = f", {warmup:g} epochs of warmup" if warmup != config.schedule.warmup_epochs else ""
    (height, width, channels), name = dataset.image_shape, models.name_of(config.model, trainer.model)
    devices = f"{trainer.runs_on['devices']} x {trainer.runs_on['device_kind']}"
    return (
        f"{dataset.name}: {len(dataset.train):,} train, {len(dataset.val):,} validation and {len(dataset.test):,} test "
        f"images, {height}x{width}x{channels}, {dataset.num_classes} classes{', streamed' * dataset.streamed}\n"
        f"{name}: {trainer.num_params:,} parameters; {devices}, {trainer.dtype}\n"
        f"{trainer.total_steps:,} steps of {config.batch_size} images, {config.epochs:g} epochs{seeds}{shorter}; "
        f"run directory {run.path}"
    )
