"""Converts Mixer weights: python -m mixer_jax.convert FROM TO [--layout timm]

FROM is a file of the paper's (.npz), of timm or lucidrains' mlp-mixer-pytorch (.safetensors, .pth), the address of one
(https:// or gs://), or a run directory. TO is a .npz (the paper's layout), a .safetensors (timm's, or --layout
lucidrains), or a new run directory, which loads as any other. With --image_size the Mixer becomes one for images of
another size: K times the resolution as in the paper's appendix C, any other by interpolating the token mixing.

python -m mixer_jax.convert gs://mixer_models/imagenet1k/Mixer-B_16.npz runs/mixer_b16
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

from mixer_jax import cli
from mixer_jax.config import default_config
from mixer_jax.errors import UserError, one_of
from mixer_jax.interop.weights import COMPUTED_WITH, LAYOUTS, to_layout, write_file
from mixer_jax.run_directory import RunDirectory
from mixer_jax.storage import writing
from mixer_jax.training.checkpoints import Checkpoint, Checkpoints
from mixer_jax.training.pretrained import PARTS, Weights, at_image_size, read_weights

SUFFIXES = {".npz": ("paper",), ".safetensors": ("timm", "lucidrains")}


def main(argv: list[str]) -> int:
    """Parses the command line and converts; returns the exit code."""
    values, paths = cli.parse_flags(argv, _define_flags, __doc__, num_paths=2)
    source, target = paths[0], Path(paths[1])
    if target.suffix not in SUFFIXES and values.layout:
        raise UserError(f"--layout={values.layout}: a run directory has no layout")
    layout = values.layout or SUFFIXES.get(target.suffix, ("",))[0]
    if target.suffix in SUFFIXES and layout not in SUFFIXES[target.suffix]:
        raise one_of(f"layout of {target.suffix}", layout, SUFFIXES[target.suffix])
    if target.exists() and not (values.overwrite and layout and target.is_file()):
        remedy = "--overwrite writes over it, or choose" if layout and target.is_file() else "choose"
        raise UserError(f"{target} is there already: {remedy} another name")
    weights = read_weights(source, values.checkpoint)
    print(f"{source}: {weights.found}")
    if values.image_size:
        weights = _resized(weights, values.image_size, values.interpolate)
    if layout:
        _write_file(weights, target, layout)
    else:
        _write_run(weights, target)
    print(f"wrote {target}{f', as {layout} keeps it' if layout else ', a run directory'}")
    return 0


def _define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("layout", None, "of a .safetensors: timm, the default, or lucidrains", flag_values=values)
    flags.DEFINE_string("checkpoint", "best", "of a run directory: best, latest, or a step", flag_values=values)
    flags.DEFINE_boolean("overwrite", False, "write over a file that is there already", flag_values=values)
    flags.DEFINE_list("image_size", [], "HEIGHT,WIDTH that TO is for, if another", flag_values=values)
    flags.DEFINE_boolean(
        "interpolate", False, "for another size interpolate the token mixing, not tile it", flag_values=values
    )


def _resized(weights: Weights, size: list[str], interpolate: bool) -> Weights:
    patch = weights.fields["patch_size"]
    sides = [int(side) for side in size if side.isdecimal()]
    if len(sides) != len(size) or len(sides) > 2 or any(side < 1 or side % patch for side in sides):
        raise UserError(f"--image_size={','.join(size)}: give HEIGHT,WIDTH, multiples of the patches' {patch} pixels")
    width = weights.fields["tokens_mlp_dim"] if interpolate else None
    weights, done = at_image_size(weights, (sides[0], sides[-1]), width)
    if done:
        print(done)
    return weights


def _write_file(weights: Weights, target: Path, layout: str) -> None:
    for part in PARTS:
        if not weights.fields[part]:
            raise UserError(f"a Mixer with config.model.{part}=False is nobody else's: only a run directory keeps it")
    height, width, _ = weights.image_shape
    if height != width:
        raise UserError(f"images of {height}x{width}: files do not tell, and pass for square; give a run directory")
    for field in COMPUTED_WITH:
        here, there = weights.fields[field], getattr(LAYOUTS[layout], field)
        if here != there:
            print(f"warning: {layout} computes with {field} {there}, this model with {here}: logits differ a little")
    if {*weights.mean, *weights.std} != {0.5}:
        print(
            "warning: files do not tell how pixels are normalised, and pass for -1 to 1; this model takes them from 0 "
            f"to 1, less {_rounded(weights.mean)}, over {_rounded(weights.std)}: whoever reads the file has to do so"
        )
    partial = target.with_name(f".{target.name}.partial{target.suffix}")
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        write_file(partial, to_layout(weights.params, layout))
        partial.replace(target)


def _rounded(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _write_run(weights: Weights, target: Path) -> None:
    config = default_config()
    config.dataset.name, config.dataset.normalization = "folder", "paper"
    config.model.variant = f"S/{weights.fields['patch_size']}"
    config.model.update({k: v for k, v in weights.fields.items() if k in config.model and v is not None})
    described = {name: getattr(weights, name) for name in ("label_names", "image_shape", "mean", "std")}
    described |= {"streamed": False, "fingerprint": ""}
    run, checkpoints = RunDirectory(target), Checkpoints(target / "checkpoints")
    state = {"seed": np.int32(0), "step": np.int32(0), "params": weights.params, "opt_state": (), "ema_params": ()}
    with run.held():
        run.claim(config, described)
        try:
            checkpoints.save(Checkpoint(0, state, weights.params, {"step": 0, "converted": weights.found}))
            checkpoints.wait()
        except OSError as error:
            raise UserError(str(error)) from error
        finally:
            checkpoints.close()


if __name__ == "__main__":
    cli.run(main)
