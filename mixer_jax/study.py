"""Trains every arm of a study: python -m mixer_jax.study --config configs/mnist_study.py [--arms tuned,mlp]

Arms are trained in the order that the config file lists them, first by the published protocol, then by the clean one,
each run in a run directory of its own under --workdir. The same command again trains what is missing, and goes on in
the midst of a run; one whose loss became infinite or no number is counted, and not tried again while its diverged.json
is there. At the end, and with --report at any time, `mixer_jax.compare` makes its table of what there is.
"""

import dataclasses
import importlib.util
import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import flags
from ml_collections import ConfigDict

from mixer_jax import cli, compare, data
from mixer_jax.arms import PROTOCOLS, Arm
from mixer_jax.errors import UserError, one_of, warn
from mixer_jax.run_directory import ENDING, RunDirectory
from mixer_jax.storage import write_json, writing
from mixer_jax.train import described, train
from mixer_jax.training import Diverged, Interrupted, Trainer


@dataclasses.dataclass(frozen=True)
class Piece:
    """A part of a study that is trained at once: one seed, or on an accelerator all seeds of an arm side by side."""

    arm: Arm
    protocol: str
    run: RunDirectory
    config: ConfigDict

    @property
    def over(self) -> bool:
        """Whether every run of it is finished, or was given up."""
        return all(one.diverged or one.read_results() is not None for one, _ in self.run.runs(self.config))

    @property
    def epochs(self) -> float:
        return self.config.epochs * self.config.num_seeds

    def check(self) -> None:
        """Raises `UserError` if it cannot be trained here."""
        changes = self.run.check(self.config)
        if other := [change for field, change in changes.items() if field in ENDING]:
            raise UserError(
                f"the run in {self.run.path} ends elsewhere ({'; '.join(other)}), and a mean is of runs that end alike:"
                " choose another --workdir"
            )
        if self.arm.in_torch:
            from mixer_jax.benchmarks import torch_run

            torch_run.check(self.config)

    def train(self, dataset: data.Dataset) -> None:
        """Trains it to the end, or until it diverges: of several seeds at once each goes on by itself then."""
        try:
            self._train(dataset)
            return
        except Diverged as error:
            why = str(error)  # and no more of it, which holds what was on the device
        write_json(self.run.diverged_file, {"why": why})
        if self.config.num_seeds == 1:
            warn(f"{self.run.path} diverged, and is left out: {why}")
            return
        warn(f"{why}; one seed at a time")
        for run, config in self.run.seeds(self.config):
            dataclasses.replace(self, run=run, config=config).train(dataset)

    def _train(self, dataset: data.Dataset) -> None:
        if not self.arm.in_torch:
            train(self.config, self.run, dataset=dataset)
            return
        from mixer_jax.benchmarks import torch_run

        with self.run.held():
            self.run.claim(self.config, described(dataset))
            torch_run.train_in_torch(Trainer(self.config, dataset), self.run)


def main(argv: list[str]) -> int:
    """Parses the command line and trains what is missing; returns the exit code."""
    values, base, name = cli.parse(argv, _define_flags, __doc__)
    arms = cli.call_in(values.config.partition(":")[0], "get_arms")
    if not arms or not all(isinstance(arm, Arm) for arm in arms):
        raise UserError(f"{values.config}: get_arms returns no arms")
    names = [arm.name for arm in arms]
    for wanted in values.arms:
        if wanted not in names:
            raise one_of("arm", wanted, names)
    if values.protocol not in (None, *PROTOCOLS):
        raise one_of("protocol", values.protocol, PROTOCOLS)
    chosen = [arm for arm in arms if not values.arms or arm.name in values.arms]
    if not importlib.util.find_spec("torch") and (skipped := [arm.name for arm in chosen if arm.in_torch]):
        print(f"PyTorch is not installed: without {', '.join(skipped)}")
        chosen = [arm for arm in chosen if not arm.in_torch]
    directory = Path(values.workdir or Path("runs") / name)
    pieces, comparison = _pieces(chosen, base, directory, values.seeds, values.protocol), directory / "comparison"
    compare.require_free(comparison)
    for piece in pieces if not values.report else ():
        piece.check()
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / compare.STUDY_FILE, {"study": name, "arms": [_described(arm) for arm in arms]})
    if not values.report:
        try:
            _train(pieces)
        except Interrupted as error:
            print(error, file=sys.stderr)
            return 128 + error.signal
    return compare.compare([directory], comparison, overwrite=True)


def _define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "workdir", None, "directory of the study; by default runs/<name of the config>", flag_values=values
    )
    flags.DEFINE_list("arms", [], "train these arms only", flag_values=values)
    flags.DEFINE_string("protocol", None, "train by this protocol only: published or clean", flag_values=values)
    flags.DEFINE_integer("seeds", None, "at most so many seeds an arm", lower_bound=1, flag_values=values)
    flags.DEFINE_boolean("report", False, "train nothing, and compare what there is", flag_values=values)


def _described(arm: Arm) -> dict:
    return {key: value for key, value in dataclasses.asdict(arm).items() if key not in ("changes", "num_seeds")}


def _pieces(
    arms: Sequence[Arm], base: ConfigDict, directory: Path, num_seeds: int | None, only: str | None
) -> list[Piece]:
    """All that the study consists of, in order."""
    pieces = []
    together = jax.devices()[0].platform != "cpu"  # which one run does not fill
    for protocol, arm in itertools.product((only,) if only else PROTOCOLS, arms):
        if protocol not in arm.protocols:
            continue
        run, config = RunDirectory(directory / arm.name / protocol), arm.config(base, protocol, num_seeds)
        begun = [one for one, _ in [(run, config), *run.seeds(config)] if one.config_file.exists()]
        config = begun[0].adopted(config) if begun else config
        seeds = run.seeds(config)
        alone = run.diverged or (not run.config_file.exists() and any(one.path.exists() for one, _ in seeds))
        if together and len(seeds) > 1 and not alone and not arm.in_torch:
            seeds = [(run, config)]
        pieces += [Piece(arm, protocol, one, its_config) for one, its_config in seeds]
    return pieces


def _train(pieces: Sequence[Piece]) -> None:
    """Trains what is missing; pieces on the same data one after the other load it once."""
    missing = [piece for piece in pieces if not piece.over]
    print(f"{len(pieces)} trainings, of which {len(pieces) - len(missing)} are finished", flush=True)
    spent, done, loaded, dataset = 0.0, 0.0, None, None
    for i, piece in enumerate(missing):
        left = sum(piece.epochs for piece in missing[i:])
        forecast = f", about {_hours(left * spent / done)} left" if done else ""
        print(f"\n== {piece.arm.name}, {piece.protocol}: {i + 1} of {len(missing)}{forecast}", flush=True)
        start = time.monotonic()
        if piece.config.dataset != loaded:
            loaded, dataset = piece.config.dataset, data.load(piece.config.dataset)
        piece.train(dataset)
        spent, done = spent + time.monotonic() - start, done + piece.epochs


def _hours(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


if __name__ == "__main__":
    cli.run(main)
