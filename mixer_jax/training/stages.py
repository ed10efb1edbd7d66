"""The stages of a run: training, scoring on the test set, and the report; of one seed or of several."""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mixer_jax.messages import say, warn
from mixer_jax.records import Results, aggregate
from mixer_jax.reporting import (
    ConsoleProgress,
    LiveCurves,
    Observer,
    SeedsProgress,
    StepLog,
    TensorBoard,
    chosen_steps,
    draw_curves,
    finish,
    optional,
    summarize,
)
from mixer_jax.run_directory import RunDirectory
from mixer_jax.training.ahead import CompileAhead
from mixer_jax.training.ending import OVER
from mixer_jax.training.epoch import Diverged
from mixer_jax.training.interruption import Interrupted, StopRequest, stopping_at_once
from mixer_jax.training.loop import Trained, train_epochs
from mixer_jax.training.processes import is_first, on_first
from mixer_jax.training.restore import split_checkpoints
from mixer_jax.training.results import Outcome, classifier, results, score
from mixer_jax.training.seeds import SeedGroup
from mixer_jax.training.trainer import Trainer


def train_one(trainer: Trainer, run: RunDirectory, show: bool) -> Results:
    """Train a single seed."""
    config = trainer.config
    observers: list[Observer] = []
    if show:
        observers.append(ConsoleProgress(math.ceil(config.epochs), trainer.total_steps, config.batch_size))
    if is_first():
        observers += _logs(trainer, run)
        observers.append(LiveCurves(run.curves_file, f"{_title(trainer)}, not finished").observer())
        observers.append(CompileAhead(trainer))
    with StopRequest() as stop:
        trained = train_epochs(trainer, run, stop, observers)
    with _scoring(trainer, stop):
        outcome = score(trainer, trained)
        return _on_first(lambda: _finish(trainer, run, outcome, num_seeds=1, show=True))


def train_seeds(trainer: Trainer, run: RunDirectory, show: bool) -> Results:
    """Train several seeds at the same time, each in a run directory of its own."""
    config, directories = trainer.config, [one for one, _ in run.runs(trainer.config)]
    seeds = range(config.seed, config.seed + config.num_seeds)
    split_checkpoints(run, directories, trainer, warn)
    group, curves = SeedGroup(trainer, seeds), LiveCurves(run.curves_file, f"{_title(trainer)}, not finished")
    batch_size = config.batch_size * config.num_seeds
    progress = SeedsProgress(math.ceil(config.epochs), trainer.total_steps, batch_size, seeds)
    with StopRequest() as stop:

        def function(i: int) -> Trained:
            observers: list[Observer] = [progress.observers[i]] if show else []
            if is_first():
                observers += [*_logs(trainer, directories[i]), curves.observer()]
            return train_epochs(group.trainers[i], directories[i], stop, observers, group.length)

        outcomes = group.run([functools.partial(function, i) for i in range(len(seeds))])
    _raise_errors(outcomes, seeds)
    with _scoring(trainer, stop):
        scored = [
            score(trainer.of_seed(seed), trained, f"seed {seed}: ")
            for seed, trained in zip(seeds, outcomes, strict=True)
        ]
        return _on_first(lambda: _finish_seeds(trainer, run, directories, seeds, scored))


def _raise_errors(outcomes: Sequence[Any], seeds: Sequence[int]) -> None:
    """Raise the worst of the exceptions that ended the training of seeds.

    A seed that diverges does not end the others. A request to stop outranks a divergence, which is not lost: the seed
    diverges again when the run resumes.
    """
    errors = [pair for pair in zip(seeds, outcomes, strict=True) if isinstance(pair[1], BaseException)]
    if not errors:
        return
    seed, worst = min(errors, key=lambda pair: (isinstance(pair[1], Diverged), isinstance(pair[1], Interrupted)))
    if isinstance(worst, Diverged):
        raise Diverged(f"seed {seed}: {worst}") from worst
    raise worst


@contextlib.contextmanager
def _scoring(trainer: Trainer, stop: StopRequest) -> Iterator[None]:
    """Announce the scoring. A signal ends it at once, because the trained state is already saved."""
    say(f"Scoring {len(trainer.dataset.test):,} test images")
    with stopping_at_once(OVER):
        if stop.signal:
            raise Interrupted(OVER, stop.signal, alone=True)
        yield


def _on_first(function: Callable[[], Results]) -> Results:
    """Return, on all processes, the results that a function returns on the first one."""
    return Results.from_json(on_first(lambda: function().to_json()))


def _finish(trainer: Trainer, run: RunDirectory, outcome: Outcome, num_seeds: int, show: bool) -> Results:
    """Write the report and the results of one seed."""
    measured = results(trainer, run, outcome, num_seeds)
    if show:
        say("Drawing the report")
    model = classifier(trainer, outcome.params, outcome.measured["steps"])
    finish(run, measured, model, outcome.logits, outcome.labels, trainer.dataset)
    run.write_results(measured)
    if show:
        say(summarize(run, measured))
    return measured


def _finish_seeds(
    trainer: Trainer,
    run: RunDirectory,
    directories: Sequence[RunDirectory],
    seeds: Sequence[int],
    outcomes: Sequence[Outcome],
) -> Results:
    """Write the report and the results of each seed, and those of all seeds together."""
    say("Drawing the reports")
    every = []
    for seed, directory, outcome in zip(seeds, directories, outcomes, strict=True):
        every.append(_finish(trainer.of_seed(seed), directory, outcome, len(seeds), show=False))
    together = aggregate(every)
    with optional("curves"):
        draw_curves(run, together, directories)
    run.write_results(together)
    say(summarize(run, together))
    return together


def _logs(trainer: Trainer, run: RunDirectory) -> list[Observer]:
    """Return the observers that write logs."""
    learning_rates = trainer.learning_rates(chosen_steps(trainer.total_steps))
    return [StepLog(run, learning_rates), TensorBoard(run.tensorboard, learning_rates)]


def _title(trainer: Trainer) -> str:
    return f"{trainer.dataset.name}, {trainer.config.model.variant}"
