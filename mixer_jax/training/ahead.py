"""The programs that a run needs later, compiled while XLA compiles the training program."""

import contextlib
import importlib
import threading
from collections.abc import Sequence

import jax

from mixer_jax.cache import keeps_compiled
from mixer_jax.records import Epoch
from mixer_jax.reporting.evidence import compile_parts
from mixer_jax.reporting.observer import Observer
from mixer_jax.training.results import classifier
from mixer_jax.training.trainer import Trainer

SECONDS = 2  # if training starts within this time, its program was in the cache on disk, and the others will be too


class CompileAhead(Observer):
    """An observer that compiles programs in its own thread; the run then finds them in JAX's cache on disk.

    XLA's compiler for CPUs uses little more than one core. Those for accelerators use all cores, so on accelerators,
    this observer does nothing. It also does nothing with several processes, which must all compile the same programs.
    """

    def __init__(self, trainer: Trainer):
        self._trainer, self._needed = trainer, True
        self._timer = threading.Timer(SECONDS, self._compile)
        self._timer.daemon = True  # it must not keep a process alive that has failed
        if trainer.platform == "cpu" and jax.process_count() == 1 and keeps_compiled():
            self._timer.start()

    def started(self, history: Sequence[Epoch], step: int, compile_seconds: float) -> None:
        """Compile nothing if the training program came from the cache: the others are in the cache, too."""
        self._timer.cancel()

    def closed(self) -> None:
        """Wait for the program that is being compiled, and compile no other."""
        self._timer.cancel()
        self._needed = False
        if self._timer.is_alive():
            self._timer.join()

    def _compile(self) -> None:
        with contextlib.suppress(Exception):  # raised again, and reported, where the programs are needed
            trainer = self._trainer
            importlib.import_module("matplotlib.figure")  # for the curves, which are drawn during the training
            for name in ("evaluate", "predict"):
                if self._needed:
                    trainer.lower(name).compile()
            if self._needed:
                model = classifier(trainer, trainer.state_shapes.evaluated, steps=0)
                compile_parts(model, trainer.dataset, trainer.config)
