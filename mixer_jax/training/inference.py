"""A trained model, as a run directory has it: from images to logits."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from mixer_jax import data, models
from mixer_jax.augment import Augment
from mixer_jax.data import Split, StreamedSplit
from mixer_jax.errors import UserError, warn
from mixer_jax.interop.weights import require_same_shapes
from mixer_jax.models import MixerBlock
from mixer_jax.run_directory import RunDirectory
from mixer_jax.training.checkpoint_files import Damaged
from mixer_jax.training.checkpoints import Checkpoints


class Classifier:
    """The model of a run with the parameters of one of its checkpoints.

    Attributes:
      config: of the run.
      label_names: of the classes.
      image_shape: (height, width, channels) of the images that go in, uint8.
      input_shape: of those that the model sees, which the images are scaled to.
      mean, std: of the pixels of each channel as fractions of 255, which the model sees taken off and divided by.
      step: that the checkpoint is of; for the best epoch's parameters the step that knows them.
      unfinished: of a run that is not finished, how far the checkpoint is, in words; else "".
      ran_on: where the run trained, as results.json has it, as far as the checkpoint tells.
      model, params: the Flax module and its parameters, host arrays.
    """

    def __init__(self, run: RunDirectory, which: str = "best"):
        """Reads a run directory, whose damaged checkpoints are named and passed over; needs nothing else.

        Args:
          run: where.
          which: "best", for the best epoch's parameters, "latest", or the step of a checkpoint.

        Raises:
          UserError: if it is no run directory, or has no such checkpoint that is whole.
        """
        if not run.config_file.exists():
            raise UserError(f"{run.path} is no run directory: it has no {run.config_file.name}")
        self.config = run.config()
        if self.config.num_seeds > 1 and not run.checkpoints.exists():
            raise UserError(f"{run.path} holds {self.config.num_seeds} runs: give one, such as {run.path}/seed_0")
        described = run.described()
        try:
            self.label_names = tuple(map(str, described["label_names"]))
            self.image_shape = tuple(int(side) for side in described["image_shape"])
            mean, std = (tuple(float(x) for x in described[key]) for key in ("mean", "std"))
            sound = len(self.image_shape) == 3 and min(self.image_shape) > 0 and len(self.label_names) > 0
            if not sound or not len(mean) == len(std) == self.image_shape[-1] or min(std) <= 0:
                raise ValueError("the sizes do not fit together")
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"cannot read {run.config_file}: its dataset is not described as it should be") from error
        augment = Augment(
            self.config.augment, image_shape=self.image_shape, mean=mean, std=std, num_classes=len(self.label_names)
        )
        # float32 wherever it runs: what is scored here should not depend on the machine.
        model = models.create(
            self.config.model, num_classes=len(self.label_names), image_shape=augment.input_shape, dtype=jnp.float32
        )
        self.input_shape, self.mean, self.std = augment.input_shape, mean, std
        self.model, self._augment = model, augment
        self._expected = models.param_shapes(model, self.input_shape)
        self._read(run, which)

        def applied(model: models.Model, **settings: Any) -> Callable:
            def apply(params: Any, images: jax.Array) -> Any:
                with jax.default_matmul_precision("highest"):  # a TPU's default would be bfloat16
                    return model.apply({"params": params}, augment.evaluate(images), **settings)

            return jax.jit(apply)

        self._logits, self._pre_logits = applied(model), applied(model.clone(num_classes=0))
        self._tokens = applied(model, capture_intermediates=_after_block, mutable=["intermediates"])
        self._seen = jax.jit(lambda images: augment.denormalize(augment.evaluate(images)))

    def of_seed(self, run: RunDirectory) -> "Classifier":
        """The same, with the best epoch's parameters of a run whose seed alone is another: compiles nothing anew."""
        other = copy.copy(self)
        other._read(run, "best")
        return other

    def _read(self, run: RunDirectory, which: str) -> None:
        self.step, self.params, progress = _parameters(run.checkpoints, which)
        self.ran_on, histories = progress.get("ran_on", {}), progress.get("histories")
        done = max(map(len, histories)) if histories else None
        self.unfinished = ""
        if done is not None and not run.results_file.exists():
            self.unfinished = f"epoch {done} of {math.ceil(self.config.epochs)}, not finished"
        require_same_shapes(self.params, self._expected, f"checkpoint {run.checkpoints / str(self.step)}")
        self._on_device = jax.device_put(self.params)

    def logits(self, images: np.ndarray, batch_size: int) -> np.ndarray:
        """Maps images (n, height, width, channels) uint8 to logits (n, classes) float32."""
        return self._in_batches(self._logits, images, batch_size)

    def traceable(self, images: jax.Array) -> jax.Array:
        """The same for any number of images at once, to be traced, with the parameters as constants inside."""
        return self._logits(self.params, images)

    def pre_logits(self, images: np.ndarray, batch_size: int) -> np.ndarray:
        """Maps images (n, height, width, channels) uint8 to what the head sees of them, (n, features) float32."""
        return self._in_batches(self._pre_logits, images, batch_size)

    def scaling(self) -> tuple[np.ndarray, np.ndarray]:
        """Matrices (new, old) that scale the rows and the columns of an image to what the model sees."""
        return self._augment.scaling(self.image_shape)

    def seen(self, image: np.ndarray) -> np.ndarray:
        """What of an image (height, width, channels) uint8 the model sees, `input_shape` uint8."""
        return np.asarray(self._seen(image[None]))[0]

    def open_split(self, split: str, data_dir: str | None = None) -> Split | StreamedSplit:
        """Opens a split of the run's dataset, which lies in `data_dir` if it is not where it was.

        Raises:
          UserError: if it cannot be read, or is of other classes or images than the run's.
        """
        config = self.config.dataset
        if data_dir is not None:
            config.data_dir = data_dir
        try:
            images, label_names = data.open_split(config, split)
        except UserError as error:  # in the words of the commands that come here
            raise UserError(str(error).replace("--config.dataset.data_dir", "--data_dir")) from error
        if label_names != self.label_names:
            odd = sorted(set(label_names) ^ set(self.label_names))
            raise UserError(f"the classes of the {split} split are not those of the run: {', '.join(odd[:5])}")
        if images.image_shape != self.image_shape:
            raise UserError(f"the {split} images are {images.image_shape}, those of the run {self.image_shape}")
        return images

    def token_maps(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What becomes of each token of an image (height, width, channels) uint8, on the grid of patches; of a Mixer.

        Returns:
          (rows, columns, classes) the logits that the head gives each token alone, whose mean are the image's; and
          (blocks, rows, columns) the root mean square over the channels of each token after each block.
        """
        tokens = jax.device_get(self._tokens(self._on_device, image[None])[1]["intermediates"])
        grid = [side // self.model.patch_size for side in self.input_shape[:2]]
        blocks = [tokens[f"MixerBlock_{i}"]["__call__"][0] for i in range(self.model.num_blocks)]
        last = tokens["pre_head_layer_norm"]["__call__"][0] if self.model.pre_head_norm else blocks[-1]
        evidence = last[:, 0] @ self.params["head"]["kernel"] + self.params["head"]["bias"]
        sizes = [np.sqrt(np.mean(block[:, 0] ** 2, axis=-1)).reshape(grid) for block in blocks]
        return evidence.reshape(*grid, -1), np.stack(sizes)

    def _in_batches(self, apply: Callable, images: np.ndarray, batch_size: int) -> np.ndarray:
        outputs = []
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size]
            # Filled up, so that one compiled program serves all.
            filled = np.concatenate([batch, np.zeros((batch_size - len(batch), *batch.shape[1:]), batch.dtype)])
            outputs.append(np.asarray(apply(self._on_device, filled))[: len(batch)])
        return np.concatenate(outputs)


def over_split(
    apply: Callable[[np.ndarray, int], np.ndarray], split: Split | StreamedSplit, batch_size: int, title: str
) -> tuple[np.ndarray, np.ndarray]:
    """What a method of a `Classifier` makes of all images of a split, read in batches; and their labels, (n,) int32."""
    batch_size, outputs, labels = min(batch_size, len(split)), [], []
    for start in tqdm(range(0, len(split), batch_size), title, unit="batches", leave=False, disable=None):
        images, of_batch = split.read(range(start, min(start + batch_size, len(split))))
        outputs.append(apply(images, batch_size))
        labels.append(of_batch)
    return np.concatenate(outputs), np.concatenate(labels)


def _after_block(module: nn.Module, method: str) -> bool:
    """Whether a method's output are the tokens after a block, or as the head takes the mean of them."""
    return method == "__call__" and (isinstance(module, MixerBlock) or module.name == "pre_head_layer_norm")


def _parameters(directory: Path, which: str) -> tuple[int, Any, dict[str, Any]]:
    """Returns the step, the parameters and the progress of a checkpoint."""
    checkpoints = Checkpoints(directory)
    steps = checkpoints.steps()
    if not steps:
        raise UserError(f"there is no checkpoint in {directory}")
    newest = which in ("best", "latest")
    if not newest and not (which.isdecimal() and int(which) in steps):
        there = ", ".join(map(str, steps))
        raise UserError(f"no checkpoint {which!r} in {directory}; valid: best, latest, {there}")
    try:
        if newest:
            found, problems = checkpoints.newest(set_aside=False, best_alone=which == "best")
        else:
            found, problems = checkpoints.read(int(which)), []
    except Damaged as error:
        raise UserError(str(error)) from error
    for problem in problems:
        warn(f"{problem}; taking the one before")
    if which == "best":
        if not jax.tree.leaves(found.best):
            raise UserError(f"no epoch was over at {directory / str(found.step)}: there is no best one; take latest")
        return found.step, found.best, found.progress
    try:
        return found.step, found.state["ema_params"] or found.state["params"], found.progress
    except (KeyError, TypeError) as error:
        raise UserError(f"checkpoint {directory / str(found.step)} holds no parameters") from error
