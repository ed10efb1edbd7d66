"""Train a Mixer: python -m mixer_jax.train --config configs/digits.py [--config.field=value ...] [--workdir DIR]

The same command resumes a run, or shows the results of a finished one. mixer_jax/config.py explains the config fields.
"""

import sys
from pathlib import Path

from mixer_jax import cli
from mixer_jax.run_directory import RunDirectory
from mixer_jax.training import Diverged, Interrupted, processes, train


def main(argv: list[str]) -> int:
    """Parse the command line, train, and return the exit code."""
    values, config, name = cli.parse(argv, _define_flags, __doc__)
    workdir = Path(values.workdir or Path("runs") / name)
    processes.join(values.distributed, values.coordinator_address, values.num_processes, values.process_id)
    try:
        with processes.speaking_once():
            train(config, RunDirectory(workdir), overwrite=values.overwrite)
    except Diverged as error:
        if processes.is_first():
            print(f"stopped: {error}. A lower learning rate, a longer warmup or clip_norm may help", file=sys.stderr)
        return 1
    except Interrupted as error:
        if processes.is_first() or error.alone:
            print(error, file=sys.stderr)
        if error.alone:
            cli.leave(128 + error.signal)
        return 128 + error.signal
    return 0


def _define_flags(define: cli.Define) -> None:
    define.string("workdir", None, "run directory; by default runs/<name of the config>")
    define.boolean("overwrite", False, "start over; an earlier run in the workdir is moved to DIR.old1, DIR.old2, ...")
    define.boolean("distributed", False, "train with several processes, detected by JAX (Cloud TPU, Slurm)")
    define.string("coordinator_address", None, "with several processes: HOST:PORT of the first")
    define.integer("num_processes", None, "the number of processes")
    define.integer("process_id", None, "the number of this process, from 0")


if __name__ == "__main__":
    cli.run(main)
