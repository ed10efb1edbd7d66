"""A trained model with its preprocessing and class names, which maps images to logits, features and classes."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from mixer_jax import models
from mixer_jax.augment import Augment
from mixer_jax.data import as_pixels, read_image
from mixer_jax.errors import UserError, in_one_line
from mixer_jax.inference.preprocessing import Origin, Preprocessing
from mixer_jax.inference.timm_config import CONFIG_FILE, config_of
from mixer_jax.metrics import probabilities
from mixer_jax.models import MixerBlock, MlpMixer
from mixer_jax.run_directory import RunDirectory
from mixer_jax.storage import write_json, writing
from mixer_jax.weights import COMPUTED_WITH, LAYOUTS, require_same_shapes, to_layout, write_file

MODEL_FILE = "model.safetensors"  # in the folder of a model that is not a run directory
FORMAT = 2  # version of the description in a file
ImageLike = str | Path | Image.Image | np.ndarray


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Classifier:
    """A trained image classifier.

    It computes in float32 on every device, so that predictions do not depend on the device.

    Attributes:
      config: the `model` section of a config.
      params: the parameters of the model, as host arrays.
      preprocessing: how images become the model's input.
      label_names: the class names, in the order of the logits.
      origin: where the model comes from.
    """

    config: ConfigDict
    params: Any
    preprocessing: Preprocessing
    label_names: tuple[str, ...]
    origin: Origin = dataclasses.field(default_factory=Origin)

    def __post_init__(self):
        """Raise `UserError` if the parameters do not fit the model."""
        name = self.origin.name or "the model"
        require_same_shapes(self.params, models.param_shapes(self.model, self.input_shape), name)

    def __repr__(self) -> str:
        shape, model = "x".join(map(str, self.image_shape)), models.name_of(self.config, self.model) or "Mixer"
        return f"<Classifier {model}, {shape}, {len(self.label_names)} classes, {self.origin.name or 'not saved'}>"

    @functools.cached_property
    def model(self) -> models.Model:
        """The Flax module, which computes in float32."""
        classes = len(self.label_names)
        return models.create(self.config, num_classes=classes, image_shape=self.input_shape, dtype=jnp.float32)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the uint8 images that `read` returns and `logits` takes."""
        return self.preprocessing.image_shape

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the model's input, to which images are scaled."""
        return self._augment.input_shape

    @property
    def num_params(self) -> int:
        """The number of parameters."""
        return sum(x.size for x in jax.tree.leaves(self.params))

    def predict(
        self, images: ImageLike | Iterable[ImageLike], top: int | None = 5, batch_size: int = 64
    ) -> list[list[tuple[str, float]]]:
        """Classify images of any size.

        Args:
          images: one image or several: paths, PIL images, or arrays (height, width, channels) uint8.
          top: the number of classes for each image; None for all.
          batch_size: images per call of the model.

        Returns:
          For each image, the most probable classes with their probabilities, in descending order.

        Raises:
          UserError: if an image cannot be read, or `top` or `batch_size` is not positive.
        """
        if batch_size < 1 or (top is not None and top < 1):
            raise UserError(f"top={top}, batch_size={batch_size}: give positive numbers")
        if isinstance(images, str | Path | Image.Image) or getattr(images, "ndim", 4) < 4:
            images = [cast(ImageLike, images)]
        if not (images := list(images)):
            return []
        pixels = np.stack([self.read(image) for image in images])
        return self.likeliest(self.logits(pixels, min(batch_size, len(pixels))), top)

    def likeliest(self, logits: np.ndarray, top: int | None = 5) -> list[list[tuple[str, float]]]:
        """Return the `top` most probable classes of each row of logits (n, classes), in the format of `predict`."""
        return [
            [(self.label_names[i], float(row[i])) for i in np.argsort(-row, kind="stable")[:top]]
            for row in probabilities(logits)
        ]

    def read(self, image: ImageLike) -> np.ndarray:
        """Read an image of any size and convert it to the model's `image_shape`, uint8.

        Raises:
          UserError: if the image cannot be read, or is an array of a wrong shape, dtype or number of channels.
        """
        fit, channels = self.preprocessing.fit, self.image_shape[2]
        if not isinstance(image, str | Path | Image.Image | np.ndarray):
            if not hasattr(image, "__array__"):
                raise UserError(f"an image is a {type(image).__name__}: give a path, a PIL image or an array")
            try:
                image = np.asarray(image)  # of JAX or PyTorch
            except Exception as error:
                raise UserError(f"cannot read the image: {in_one_line(error)}") from error
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8:
                raise UserError(f"an image is an array of {image.dtype}: give uint8, from 0 to 255")
            if image.shape == self.image_shape and (fit.crop == 1 or channels not in (1, 3)):
                return image
        if channels not in (1, 3):
            raise UserError(f"the model reads {channels} channels: give arrays of shape {self.image_shape}, uint8")
        if isinstance(image, str | Path):
            return read_image(Path(image), fit, channels)
        if isinstance(image, np.ndarray):
            if not image.size or (image.ndim != 2 and not (image.ndim == 3 and 1 <= image.shape[-1] <= 4)):
                raise UserError(f"an image is an array of shape {image.shape}: give (height, width, channels)")
            image = Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image)
        try:
            return as_pixels(image, fit, channels)
        except Exception as error:  # Pillow's, of an image that is cut short or has a rare mode
            raise UserError(f"cannot read the image: {in_one_line(error)}") from error

    def logits(self, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """Return the logits (n, classes) float32 for images (n, *image_shape) uint8."""
        return self._in_batches(self._apply, images, batch_size)

    def features(self, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """Return the head's input (n, features) float32 for images (n, *image_shape) uint8."""
        return self._in_batches(self._features, images, batch_size)

    def lower(self, batch_size: int) -> list[jax.stages.Lowered]:
        """Lower `features` for batches of this size and, if the model is a Mixer, `token_maps`."""
        programs: list[tuple[Any, int]] = [(self._features, batch_size)]
        if isinstance(self.model, MlpMixer):
            programs.append((self._tokens, 1))
        return [
            program.lower(self.params, jax.ShapeDtypeStruct((n, *self.image_shape), np.uint8))
            for program, n in programs
        ]

    def traceable(self, images: jax.Array) -> jax.Array:
        """Return the logits (n, classes) of images (n, *image_shape); in a trace, the parameters are constants."""
        return self._apply(self.params, images)

    def scaling(self) -> tuple[np.ndarray, np.ndarray]:
        """Return two matrices, each (new size, old size), that scale an image's rows and columns to the input size."""
        return self._augment.scaling()

    def seen(self, image: np.ndarray) -> np.ndarray:
        """Return what the model sees of an image (height, width, channels) uint8, as uint8 of shape `input_shape`."""
        return np.asarray(self._seen(image[None]))[0]

    def token_maps(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return per-token logits and activation magnitudes of a Mixer, for an image (height, width, channels) uint8.

        Returns:
          A tuple: the head's logits for each token, (rows, columns, classes), whose mean over the tokens gives the
          logits of the image; and, after each block, the root mean square of each token over its channels, (blocks,
          rows, columns).
        """
        tokens = jax.device_get(self._tokens(self._on_device, image[None])[1]["intermediates"])
        grid = [side // self.model.patch_size for side in self.input_shape[:2]]
        blocks = [tokens[f"MixerBlock_{i}"]["__call__"][0] for i in range(self.model.num_blocks)]
        last = tokens["pre_head_layer_norm"]["__call__"][0] if self.model.pre_head_norm else blocks[-1]
        evidence = last[:, 0] @ self.params["head"]["kernel"] + self.params["head"]["bias"]
        sizes = [np.sqrt(np.mean(block[:, 0] ** 2, axis=-1)).reshape(grid) for block in blocks]
        return evidence.reshape(*grid, -1), np.stack(sizes)

    def save(self, path: str | Path, layout: str = "paper") -> list[Path]:
        """Write the model to a file, from which `load` restores it unchanged.

        Args:
          path: the file to write, if it ends in .safetensors or .npz; otherwise a folder for model.safetensors.
          layout: the array names and shapes, a key of `mixer_jax.weights.LAYOUTS`; only "paper" can store every model.

        Returns:
          The files written, as `files` lists them. Earlier files of these names are replaced.

        Raises:
          UserError: if the layout cannot store a part of the model, if the config.json to be written would replace that
            of a run, or if the file cannot be written.
        """
        path, *_ = written = self.files(path, layout)
        if layout != "paper" and (missing := self._unusual()):
            raise UserError(f"{layout} has no {missing}: give the layout paper, which keeps it")
        if (config := path.with_name(CONFIG_FILE)) in written and RunDirectory(path.parent).checkpoints.exists():
            raise UserError(f"{path.parent} is a run, whose {CONFIG_FILE} would be lost: choose another folder")
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, to_layout(self.params, layout), self._description(layout))
            if config in written:
                write_json(config, config_of(require_mixer(self), self.preprocessing, self.label_names))
        return written

    @staticmethod
    def files(path: str | Path, layout: str = "paper") -> list[Path]:
        """Return the files that `save` writes: the weights, and the files in the same folder that describe the model.

        A .npz file has its description in a .json file; a folder in the layout of timm has a config.json for timm.
        """
        path = Path(path)
        path = path if path.suffix in (".safetensors", ".npz") else path / MODEL_FILE
        if path.suffix == ".npz":
            return [path, path.with_name(f"{path.name}.json")]
        return [path, path.with_name(CONFIG_FILE)] if layout == "timm" and path.name == MODEL_FILE else [path]

    def _unusual(self) -> str:
        """Name the part of the model that no other project's layout can store; "" for a complete Mixer."""
        if not isinstance(self.model, MlpMixer):
            return self.config.variant
        parts = ("token_mixing", "channel_mixing", "pre_head_norm")
        return next((f"Mixer with config.model.{part}=False" for part in parts if not getattr(self.model, part)), "")

    def _description(self, layout: str) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "layout": layout,
            "model": self.config.to_dict(),
            "preprocessing": dataclasses.asdict(self.preprocessing),
            "label_names": list(self.label_names),
        }

    def computed_otherwise(self, layout: str, normalised: bool = False) -> list[str]:
        """List what this model computes differently from the project that a layout comes from, one line each.

        Args:
          layout: a key of `mixer_jax.weights.LAYOUTS`.
          normalised: whether the project reads the normalisation of the pixels from a file beside the weights, such as
            timm's config.json.
        """
        theirs, model, prepared = LAYOUTS[layout], self.model, self.preprocessing
        remedy = ", unless the model is created there with act_layer=timm.layers.GELUTanh" if layout == "timm" else ""
        lines = [
            f"{layout} computes with {field} {getattr(theirs, field)}, this model with {getattr(model, field)}: "
            f"{layout}'s logits differ a little{remedy if field == 'gelu' else ''}"
            for field in COMPUTED_WITH
            if isinstance(model, MlpMixer) and getattr(theirs, field) != getattr(model, field)
        ]
        if not normalised and {*prepared.mean, *prepared.std} != {0.5}:
            mean, std = (", ".join(f"{x:.4g}" for x in values) for values in (prepared.mean, prepared.std))
            lines += [
                f"{layout} does not read the normalisation in the file: pass it mean {mean} and std {std} yourself"
            ]
        return lines

    @functools.cached_property
    def _augment(self) -> Augment:
        return self.preprocessing.augment(len(self.label_names))

    @functools.cached_property
    def _on_device(self) -> Any:
        return jax.device_put(self.params)

    @functools.cached_property
    def _apply(self) -> Callable:
        require_head(self)
        return self._compiled(self.model)

    @functools.cached_property
    def _features(self) -> Callable:
        return self._compiled(self.model.clone(num_classes=0))

    @functools.cached_property
    def _tokens(self) -> Callable:
        return self._compiled(self.model, capture_intermediates=_after_block, mutable=["intermediates"])

    @functools.cached_property
    def _seen(self) -> Callable:
        augment = self._augment
        return jax.jit(lambda images: augment.denormalize(augment.evaluate(images)))

    def _compiled(self, model: models.Model, **settings: Any) -> Callable:
        augment = self._augment

        def apply(params: Any, images: jax.Array) -> Any:
            with jax.default_matmul_precision("highest"):  # a TPU's default would be bfloat16
                return model.apply({"params": params}, augment.evaluate(images), **settings)

        return jax.jit(apply)

    def _in_batches(self, apply: Callable, images: np.ndarray, batch_size: int) -> np.ndarray:
        if images.dtype != np.uint8 or images.shape[1:] != self.image_shape:
            shape = ", ".join(map(str, self.image_shape))
            raise UserError(f"images are {images.dtype} {images.shape}: give uint8 (n, {shape}), stacked from `read`")
        outputs = []
        for start in range(0, max(len(images), 1), batch_size):
            batch = images[start : start + batch_size]
            # Padded, so that one compiled program serves all batches.
            padded = np.concatenate([batch, np.zeros((batch_size - len(batch), *batch.shape[1:]), batch.dtype)])
            outputs.append(np.asarray(apply(self._on_device, padded))[: len(batch)])
        return np.concatenate(outputs)


def _after_block(module: nn.Module, method: str) -> bool:
    """Return whether a module's method returns the tokens after a block, or after the LayerNorm before the head."""
    return method == "__call__" and (isinstance(module, MixerBlock) or module.name == "pre_head_layer_norm")


def require_head(classifier: Classifier) -> None:
    """Raise `UserError` if the model has no head."""
    if not classifier.label_names:
        raise UserError(f"{classifier.origin.name} has no head and so no classes: fine-tune it with config.init_from")


def require_mixer(classifier: Classifier) -> MlpMixer:
    """Return the classifier's model, or raise `UserError` if the model is not a Mixer."""
    if not isinstance(classifier.model, MlpMixer):
        raise UserError(f"{classifier.origin.name} holds a {classifier.config.variant}, not a Mixer")
    return classifier.model
