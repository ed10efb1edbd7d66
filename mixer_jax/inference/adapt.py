"""Adaptation of trained Mixers to images of another size or number of channels."""

import dataclasses
import math

import numpy as np

from mixer_jax.errors import UserError
from mixer_jax.inference.classifier import Classifier, require_mixer
from mixer_jax.models.resolution import interpolated, tiled


def at_image_size(
    classifier: Classifier, image_size: tuple[int, int], tokens_mlp_dim: int | None = None
) -> tuple[Classifier, str]:
    """Adapt a Mixer to images of another size, with the same patches.

    Args:
      classifier: the Mixer.
      image_size: (height, width), multiples of the patch size.
      tokens_mlp_dim: the hidden width of the new token-mixing MLPs, which selects how the weights are adapted. With the
        old width, they are interpolated, a method that is not from the paper. With K times the old width, where the new
        grid has K times as many patches, they are repeated in tiles (paper, appendix C); the new grid must then be a
        multiple of the old one. None selects tiles if the grid allows them, else interpolation. If the grid does not
        change, this argument is ignored.

    Returns:
      The new model, which takes images of `image_size` unscaled; and one line that says what was done, or "" if the
      parameters did not change.

    Raises:
      UserError: if `tokens_mlp_dim` is neither of the two widths.
    """
    model, channels = require_mixer(classifier), classifier.image_shape[2]
    patch, width = model.patch_size, model.tokens_mlp_dim
    grid = (classifier.input_shape[0] // patch, classifier.input_shape[1] // patch)
    new_grid = (image_size[0] // patch, image_size[1] // patch)
    config, params, done = classifier.config.copy_and_resolve_references(), classifier.params, ""
    config.patch_size = patch  # a variant without one, such as "Nano", would choose another for images of another size
    if new_grid != grid and model.token_mixing:
        old, new = ("x".join(map(str, g)) for g in (grid, new_grid))
        copies = (new_grid[0] // grid[0], new_grid[1] // grid[1])
        multiple = (copies[0] * grid[0], copies[1] * grid[1]) == new_grid
        tiled_width = width * math.prod(copies)
        if multiple and tokens_mlp_dim in (None, tiled_width):
            params, how = tiled(params, grid, copies), f"repeated in {copies[0]}x{copies[1]} tiles (paper, app. C)"
        elif tokens_mlp_dim in (None, width):
            params, how = interpolated(params, grid, new_grid), "interpolated (not from the paper)"
        else:
            tiling = f"{tiled_width} (tiled, paper's appendix C) or " if multiple else ""
            raise UserError(
                f"config.model.tokens_mlp_dim={tokens_mlp_dim}: use {tiling}{width} (interpolated) to go from {old} to "
                f"{new} patches"
            )
        config.tokens_mlp_dim = int(params["MixerBlock_0"]["token_mixing"]["Dense_0"]["bias"].size)
        done = f"token mixing for {old} patches {how} for {new}"
    preprocessing = dataclasses.replace(
        classifier.preprocessing, image_shape=(*image_size, channels), input_size=(), eval_crop=1.0
    )
    return dataclasses.replace(classifier, config=config, params=params, preprocessing=preprocessing), done


def with_channels(classifier: Classifier, channels: int) -> tuple[Classifier, str]:
    """Adapt a Mixer from grey to colour images, or from colour to grey, by changing its stem and normalisation.

    After a change from grey to colour, an image with equal channels gives the same logits as the grey image did.

    Returns:
      The new model, and one line that says what was done. If the number of channels is the same, or if neither number
      is 1, the model is unchanged and the line is "".
    """
    before = classifier.image_shape[2]
    if before == channels or 1 not in (before, channels):
        return classifier, ""
    stem, how = classifier.params["stem"], "summed" if channels == 1 else "divided equally"
    kernel = np.asarray(stem["kernel"])
    kernel = kernel.sum(2, keepdims=True) if channels == 1 else np.repeat(kernel / channels, channels, 2)
    old = classifier.preprocessing
    mean, std = ((float(np.mean(values)),) * channels for values in (old.mean, old.std))
    shape = (*old.image_shape[:2], channels)
    changed = dataclasses.replace(
        classifier,
        params=classifier.params | {"stem": stem | {"kernel": kernel}},
        preprocessing=dataclasses.replace(old, image_shape=shape, mean=mean, std=std),
    )
    return changed, f"{before} channels become {channels}: the stem's kernel is {how}"
