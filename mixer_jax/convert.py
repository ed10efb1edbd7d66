"""Convert Mixer weights: python -m mixer_jax.convert FROM TO [--layout timm]

FROM is a run directory; a file from the paper (.npz), from timm or lucidrains' mlp-mixer-pytorch (.safetensors, .pth),
or from this command; or the URL of such a file (https:// or gs://). TO is a .npz (the paper's layout), a
.safetensors (timm's, or --layout), or a folder for model.safetensors, which the other commands take as --workdir. The
file keeps the class names and the preprocessing. --image_size adapts the Mixer to images of another size: K times the
resolution as in the paper's appendix C, any other by interpolating the token mixing.

python -m mixer_jax.convert gs://mixer_models/imagenet1k/Mixer-B_16.npz mixer_b16
"""

from pathlib import Path

from absl import flags

from mixer_jax import cli
from mixer_jax.errors import UserError, one_of
from mixer_jax.inference import Classifier, at_image_size, load, require_mixer
from mixer_jax.messages import warn

LAYOUTS_OF = {
    ".npz": ("paper",),
    ".safetensors": ("timm", "lucidrains", "paper"),
    "": ("paper",),
}


def main(argv: list[str]) -> int:
    """Parse the command line, convert, and return the exit code."""
    values, paths = cli.parse_flags(argv, _define_flags, __doc__, num_paths=2)
    source, target = paths[0], Path(paths[1])
    layouts = LAYOUTS_OF[target.suffix if target.suffix in LAYOUTS_OF else ""]
    layout = values.layout or layouts[0]
    if layout not in layouts:
        raise one_of(f"layout of {target.suffix or 'a folder'}", layout, layouts)
    beside = [target.with_name(f"{target.name}.json")] if target.suffix == ".npz" else []
    for there in (target, *beside):
        if there.exists() and not (values.overwrite and there.is_file()):
            remedy = "--overwrite writes over it, or choose" if there.is_file() else "choose"
            raise UserError(f"{there} is there already: {remedy} another name")
    classifier = load(source, values.checkpoint)
    print(f"{source}: {classifier.origin.found}")
    if values.image_size:
        classifier = _resized(classifier, values.image_size, values.interpolate)
    for line in (
        classifier.computed_otherwise(layout) if target.suffix in LAYOUTS_OF and target.suffix else ()
    ):  # only this library reads a folder
        warn(line)
    written = classifier.save(target, layout)
    print(f"wrote {' and '.join(map(str, written))}, in the layout of {layout}")
    return 0


def _define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("layout", None, "of a .safetensors: timm, lucidrains or paper", flag_values=values)
    flags.DEFINE_string("checkpoint", "best", "of a run directory: best, latest, or a step", flag_values=values)
    flags.DEFINE_boolean("overwrite", False, "write over a file that is there already", flag_values=values)
    flags.DEFINE_list("image_size", [], "HEIGHT,WIDTH that TO is for, if another", flag_values=values)
    flags.DEFINE_boolean(
        "interpolate", False, "for another size interpolate the token mixing, not tile it", flag_values=values
    )


def _resized(classifier: Classifier, size: list[str], interpolate: bool) -> Classifier:
    model = require_mixer(classifier)
    patch = model.patch_size
    sides = [int(side) for side in size if side.isdecimal()]
    if len(sides) != len(size) or len(sides) > 2 or any(side < 1 or side % patch for side in sides):
        raise UserError(f"--image_size={','.join(size)}: give HEIGHT,WIDTH, multiples of the patches' {patch} pixels")
    classifier, done = at_image_size(classifier, (sides[0], sides[-1]), model.tokens_mlp_dim if interpolate else None)
    if done:
        print(done)
    return classifier


if __name__ == "__main__":
    cli.run(main)
