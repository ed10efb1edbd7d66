"""Train every arm of a study: python -m mixer_jax.study --config configs/mnist_study.py [--arms tuned,mlp]

Arms are trained in the order of the config file, first under the published protocol (best epoch chosen on the test
set), then under the clean one (on a validation set), each in run directories of its own in --workdir. The same command
trains what is missing, and resumes an interrupted run. A run whose loss became infinite or NaN is counted as diverged,
and not tried again while its diverged.json exists. At the end, and at any time with --report, the finished runs are
compared as by `mixer_jax.compare`.
"""

import dataclasses
import importlib.util
import sys
from pathlib import Path

from mixer_jax import cli
from mixer_jax.config_files import call_in
from mixer_jax.errors import UserError, one_of
from mixer_jax.storage import write_json, writing
from mixer_jax.studies import (
    PROTOCOLS,
    STUDY_FILE,
    Arm,
    compare,
    create_jobs,
    require_free,
    require_study,
    train_missing,
)
from mixer_jax.training import Interrupted

COMPARISON = "comparison"  # the folder beside those of the arms


def main(argv: list[str]) -> int:
    """Parse the command line, train what is missing, and return the exit code."""
    values, base, name = cli.parse(argv, _define_flags, __doc__)
    arms = call_in(values.config.partition(":")[0], "get_arms")
    if not arms or not all(isinstance(arm, Arm) for arm in arms):
        raise UserError(f"{values.config}: get_arms returns no arms")
    names = [arm.name for arm in arms]
    if again := [one for i, one in enumerate(names) if one in (COMPARISON, *names[:i])]:
        raise UserError(f"{values.config}: the name of the arm {again[0]!r} is taken")
    for wanted in values.arms:
        if wanted not in names:
            raise one_of("arm", wanted, names)
    if values.protocol not in (None, *PROTOCOLS):
        raise one_of("protocol", values.protocol, PROTOCOLS)
    chosen = [arm for arm in arms if not values.arms or arm.name in values.arms]
    if not importlib.util.find_spec("torch") and (skipped := [arm.name for arm in chosen if arm.in_torch]):
        print(f"PyTorch is not installed: skipping {', '.join(skipped)}")
        chosen = [arm for arm in chosen if not arm.in_torch]
    directory = Path(values.workdir or Path("runs") / name)
    require_study(directory, name, begun=values.report)
    jobs, comparison = create_jobs(chosen, base, directory, values.seeds, values.protocol), directory / COMPARISON
    if not jobs:
        raise UserError(f"no arm is trained under the protocol {values.protocol}")
    require_free(comparison)
    for job in jobs if not values.report else ():
        job.check()
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / STUDY_FILE, {"study": name, "arms": [_described(arm) for arm in arms]})
    if not values.report:
        try:
            train_missing(jobs)
        except Interrupted as error:
            print(error, file=sys.stderr)
            return 128 + error.signal
    print(compare([directory], comparison))
    return 0


def _define_flags(define: cli.Define) -> None:
    define.string("workdir", None, "directory of the study; by default runs/<name of the config>")
    define.list("arms", [], "train these arms only")
    define.string("protocol", None, "train under this protocol only: published or clean")
    define.integer("seeds", None, "the largest number of seeds per arm", lower_bound=1)
    define.boolean("report", False, "train nothing, and compare what there is")


def _described(arm: Arm) -> dict:
    return {key: value for key, value in dataclasses.asdict(arm).items() if key not in ("changes", "num_seeds")}


if __name__ == "__main__":
    cli.run(main)
