"""The training jobs of a study: one per seed, or, on an accelerator, one per arm with all seeds at the same time."""

import dataclasses
import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from mixer_jax import data
from mixer_jax.claim import ENDING, claim, require_same_data, require_usable
from mixer_jax.errors import UserError
from mixer_jax.messages import say, warn
from mixer_jax.reporting.summary import duration
from mixer_jax.run_directory import RunDirectory
from mixer_jax.storage import write_json
from mixer_jax.studies.arms import PROTOCOLS, Arm
from mixer_jax.training import Diverged, Trainer, train


@dataclasses.dataclass(frozen=True)
class Job:
    """The training of one seed of an arm, or of all its seeds at the same time.

    Attributes:
      arm: the arm to train.
      protocol: a key of `PROTOCOLS`.
      run: the run directory.
      config: the config of the training.
    """

    arm: Arm
    protocol: str
    run: RunDirectory
    config: ConfigDict

    @property
    def over(self) -> bool:
        """Whether each of the job's runs is finished or has diverged."""
        return all(one.diverged or one.read_results() is not None for one, _ in self.run.runs(self.config))

    @property
    def epochs(self) -> float:
        """The number of epochs, summed over the job's seeds."""
        return self.config.epochs * self.config.num_seeds

    def check(self) -> None:
        """Raise `UserError` if the job cannot be trained in its run directory."""
        changes = require_usable(self.run, self.config)
        if other := [change for field, change in changes.items() if field in ENDING]:
            raise UserError(
                f"the run in {self.run.path} was trained with other settings ({'; '.join(other)}); only runs with "
                "equal settings are averaged: choose another workdir"
            )
        if self.arm.in_torch:
            from mixer_jax.benchmarks import torch_run

            torch_run.check(self.config)

    def train(self, dataset: data.Dataset) -> None:
        """Train to the end.

        If the training diverges, mark the run as diverged. If several seeds were trained at the same time, train all of
        them again, one after the other.
        """
        try:
            self._train(dataset)
            return
        except Diverged as error:
            why = str(error)  # keeping the error would keep its arrays on the device
        write_json(self.run.diverged_file, {"why": why})
        if self.config.num_seeds == 1:
            warn(f"{self.run.path} diverged, and is left out: {why}")
            return
        warn(f"{why}; now training one seed at a time")
        for run, config in self.run.seeds(self.config):
            dataclasses.replace(self, run=run, config=config).train(dataset)

    def _train(self, dataset: data.Dataset) -> None:
        if not self.arm.in_torch:
            train(self.config, self.run, dataset=dataset)
            return
        from mixer_jax.benchmarks import torch_run

        with self.run.locked():
            claim(self.run, self.config, dataset.info())
            torch_run.train_in_torch(Trainer(self.config, dataset), self.run)


def create_jobs(
    arms: Sequence[Arm], base: ConfigDict, directory: Path, num_seeds: int | None, only: str | None
) -> list[Job]:
    """Return the jobs of a study, in order of protocol, then arm, then seed.

    `num_seeds` is the maximum for each arm, and `only` is the one protocol to train under; None for all.
    """
    jobs = []
    together = jax.devices()[0].platform != "cpu"  # a single run does not fill an accelerator
    for protocol, arm in itertools.product((only,) if only else PROTOCOLS, arms):
        if protocol not in arm.protocols:
            continue
        run, config = RunDirectory(directory / arm.name / protocol), arm.config(base, protocol, num_seeds)
        begun = [one for one, _ in [(run, config), *run.seeds(config)] if one.exists]
        config = begun[0].adopted(config) if begun else config
        seeds = run.seeds(config)
        alone = run.diverged or (not run.exists and any(one.path.exists() for one, _ in seeds))
        if together and len(seeds) > 1 and not alone and not arm.in_torch:
            seeds = [(run, config)]
        jobs += [Job(arm, protocol, one, its_config) for one, its_config in seeds]
    return jobs


def train_missing(jobs: Sequence[Job]) -> None:
    """Train the jobs that are not over; consecutive jobs with the same dataset load it once.

    Raises:
      UserError: if a job that is over was trained on other data.
    """
    _check_data([job for job in jobs if job.over])
    missing = [job for job in jobs if not job.over]
    say(f"{len(jobs)} training jobs, {len(jobs) - len(missing)} finished or diverged")
    spent, done, loaded, dataset = 0.0, 0.0, None, None
    for i, job in enumerate(missing):
        left = sum(other.epochs for other in missing[i:])
        forecast = f", about {duration(left * spent / done)} left" if done else ""
        say(f"\n== {job.arm.name}, {job.protocol}: {i + 1} of {len(missing)}{forecast}")
        start = time.monotonic()
        if job.config.dataset != loaded:
            loaded, dataset = job.config.dataset, data.load(job.config.dataset)
        job.train(dataset)
        spent, done = spent + time.monotonic() - start, done + job.epochs


def _check_data(jobs: Sequence[Job]) -> None:
    """Raise `UserError` if a job was trained on other data; load data only if `data_dir` differs from the run's."""
    loaded: dict[str, dict[str, Any]] = {}
    for job in jobs:
        for run, config in job.run.runs(job.config):
            if run.exists and run.config().dataset.data_dir != config.dataset.data_dir:
                key = str(config.dataset)
                loaded[key] = loaded.get(key) or data.load(config.dataset).info()
                require_same_data(run, config, loaded[key], finished=True)
