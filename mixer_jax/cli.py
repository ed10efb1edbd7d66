"""What the commands share: configs with overrides, flags, output files, and one-line error messages."""

import contextlib
import functools
import gc
import io
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import jax
from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from mixer_jax.cache import keep_compiled, tidy
from mixer_jax.config import check, flat, unknown_field
from mixer_jax.config_files import get_config
from mixer_jax.errors import UserError, did_you_mean
from mixer_jax.inference import weights_in
from mixer_jax.messages import show_on_console
from mixer_jax.run_directory import RunDirectory


def run(main: Callable[[list[str]], int]) -> None:
    """Run a command's `main`, and exit the process with the code that `main` returns.

    The exit code is 2 after a user's mistake or a lack of memory, either of which is reported in one line; 130 after
    Ctrl-C; 141 if the reader of the output has closed the pipe; and 1 if one of several processes fails.

    Args:
      main: receives the command line, program name first; returns the exit code.
    """
    logging.set_verbosity(logging.ERROR)  # TFDS and Orbax log internal details as warnings
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # the terminal may support ASCII only
    show_on_console()
    warnings.filterwarnings("ignore", r"Image size \(.*\) exceeds limit")  # Pillow's, of large images, which are read
    keep_compiled()
    tidy()
    # Imported modules stay, and tracing leaves little garbage: the garbage collector can run less often.
    gc.freeze()
    gc.set_threshold(10_000)
    try:
        code = main(sys.argv)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python would report the pipe again at exit
        code = 128 + signal.SIGPIPE
        leave(code)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(130)  # a normal exit would wait for threads that compile or write a checkpoint
    except Exception as error:
        if lack := _lack_of_memory(error):
            print(f"error: too little memory: {lack}; smaller batches or images need less", file=sys.stderr)
            code = 2
        elif jax.distributed.is_initialized():
            traceback.print_exc()
            if isinstance(error, jax.errors.JaxRuntimeError):
                print("error: a process failed or ended: run the same commands again to resume", file=sys.stderr)
            code = 1
        else:
            raise
    if code in (1, 2):
        leave(code)
    gc.freeze()  # the last collections, at exit, would look through all modules
    sys.exit(code)


def _lack_of_memory(error: Exception) -> str:
    """Return the message of an error about too little memory on the host or a device; "" for any other error."""
    if isinstance(error, MemoryError):
        return str(error) or "this machine has no more"
    said = re.search(r"RESOURCE_EXHAUSTED: (.*)|(out of memory.*)", str(error), re.IGNORECASE)
    return (said[1] or said[2]).rstrip(". ") if said and isinstance(error, jax.errors.JaxRuntimeError) else ""


def leave(code: int) -> None:
    """Exit at once if there are several processes: a normal exit would wait for them, while they wait for this one."""
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        os._exit(code)


class Define:
    """Defines the flags of a command: `integer` is absl's `DEFINE_integer`, and so on.

    Attributes:
      boolean, integer, list, string: functions of the name, the default and the help text of a flag.
    """

    def __init__(self, values: flags.FlagValues):
        self.boolean = functools.partial(flags.DEFINE_boolean, flag_values=values)
        self.integer = functools.partial(flags.DEFINE_integer, flag_values=values)
        self.list = functools.partial(flags.DEFINE_list, flag_values=values)
        self.string = functools.partial(flags.DEFINE_string, flag_values=values)

    def dataset(self, what: str) -> None:
        """Define the flags that set the arguments of `inference.dataset_of`; `what` is the help text of --dataset."""
        self.string("dataset", None, what)
        self.string("data_dir", None, "where the data is, as config.dataset.data_dir; by default where the run had it")
        self.string("on_error", None, "stop at damaged images or skip them; by default as the run did, or else stop")

    def output(self, what: str) -> None:
        """Define --output, with the help text `what`, and --overwrite; see `require_new`."""
        self.string("output", None, what)
        self.boolean("overwrite", False, "replace existing files")


def parse(
    argv: Sequence[str], define: Callable[[Define], None], usage: str, default: ConfigDict | None = None
) -> tuple[flags.FlagValues, ConfigDict, str]:
    """Parse the command line of a command that takes a config: a file, and overrides of its fields.

    Args:
      argv: the command line, program name first.
      define: defines the command's own flags.
      usage: printed before the list of flags on --help.
      default: the checked config to use without --config; None if --config is required.

    Returns:
      The command's own flags, the checked config, and the name of the config. The name is that of the config's file
      without .py, followed by "_" and the argument after the colon, if there is one (see `get_config`). Without
      --config, it is "default".

    Raises:
      UserError: if a flag or a config field is unknown or malformed, or if the config file cannot be loaded.
      SystemExit: after printing the help, if --help is given.
    """

    def define_all(own: Define) -> None:
        own.string("config", None, "config file, or name of a shipped one, such as cifar10[:arg]")
        define(own)

    values, rest = _parse_known(argv, define_all, usage)
    if files := [argument for argument in rest[1:] if argument.endswith(".py")]:
        raise UserError(f"unexpected argument {files[0]!r}: give the config as --config {files[0]}")
    if not values.config and default is None:
        raise UserError("no config: give one with --config, such as --config digits")
    path, _, argument = (values.config or "").partition(":")
    config = get_config(values.config) if values.config else default
    name = Path(path).stem + (f"_{re.sub(r'[^A-Za-z0-9.-]+', '_', argument)}" if argument else "")
    return values, _override(config, rest, list(values)), name or "default"


def parse_flags(
    argv: Sequence[str], define: Callable[[Define], None], usage: str, num_paths: int | None = 0
) -> tuple[flags.FlagValues, list[str]]:
    """Parse the command line of a command that takes paths and no config.

    Args:
      argv, define: as in `parse`.
      usage: as in `parse`; its first line must have the form "SUMMARY: SYNOPSIS". The synopsis, such as `python -m
        mixer_jax.convert FROM TO`, is quoted in an error about the number of paths.
      num_paths: the number of paths; None for one or more.

    Returns:
      The command's own flags, and the paths.

    Raises:
      UserError: if a flag is unknown or malformed, or if the number of paths is wrong.
    """
    values, (_, *rest) = _parse_known(argv, define, usage)
    if unknown := [argument for argument in rest if argument.startswith("-")]:
        name = unknown[0].lstrip("-").partition("=")[0]
        raise UserError(f"unknown flag --{name}{did_you_mean(name, list(values))}")
    if rest and num_paths == 0:
        why = ": this command takes no config" if rest[0].endswith(".py") else ": give a run or weights with --workdir"
        raise UserError(f"unexpected argument {rest[0]!r}{why}")
    if len(rest) != num_paths and (num_paths is not None or not rest):
        given = "1 path" if len(rest) == 1 else f"{len(rest) or 'no'} paths"
        expected = "at least one" if num_paths is None else num_paths
        command = usage.splitlines()[0].partition(": ")[2]
        raise UserError(f"{given} given, {expected} expected: {command}")
    return values, rest


@contextlib.contextmanager
def naming_flags() -> Iterator[None]:
    """Make errors about fields of `config.dataset` mention the flags of `Define.dataset` that set these fields.

    An error about another field says that this command has no flag for it.
    """
    try:
        yield
    except UserError as error:
        text = str(error).replace("unknown: give a dataset", "unknown: give one with --dataset")
        for name, flag in (("data_dir", "--data_dir"), ("name", "--dataset"), ("on_error", "--on_error")):
            text = text.replace(f"config.dataset.{name}", flag)
        if "config.dataset." in text:
            text += "; this command has no flag for it"
        raise UserError(text) from error


def parse_run(
    argv: Sequence[str],
    define: Callable[[Define], None],
    usage: str,
    num_paths: int | None = 0,
    workdir: str | None = None,
) -> tuple[flags.FlagValues, list[str]]:
    """Parse the command line of a command that uses a trained model, named by --workdir and --checkpoint.

    Args:
      argv, define, usage, num_paths: as in `parse_flags`.
      workdir: the default of --workdir; None if it must be given.

    Returns:
      The flags, with `workdir` and `checkpoint`, and the paths.

    Raises:
      UserError: as in `parse_flags`, or without a model.
    """

    def define_all(own: Define) -> None:
        own.string("workdir", workdir, "a run directory, or weights: a file, folder, URL or name")
        own.string("checkpoint", "best", "best, latest, or the step of a checkpoint")
        define(own)

    values, paths = parse_flags(argv, define_all, usage, num_paths)
    if not values.workdir:
        raise UserError("no model: give one with --workdir, such as --workdir runs/digits")
    return values, paths


def require_new(paths: Iterable[Path], overwrite: bool, otherwise: str = "another with --output") -> None:
    """Raise `UserError` if a path cannot be written, or exists and `overwrite` does not let it be replaced."""
    for path in paths:
        if os.path.exists(path) and not (overwrite and os.path.isfile(path)):
            remedy = "choose" if os.path.isdir(path) else "--overwrite replaces it, or choose"
            raise UserError(f"{path} already exists: {remedy} {otherwise}")
        there = next(folder for folder in path.absolute().parents if os.path.exists(folder))
        if not os.path.isdir(there) or not os.access(there, os.W_OK):
            why = "not writable" if os.path.isdir(there) else "not a folder"
            raise UserError(f"cannot write {path}: {there} is {why}")


def folder(output: str | None, workdir: str, name: str) -> Path:
    """Return the folder for the results of a command.

    Args:
      output: the value of --output, if given.
      workdir: the run directory, or a file or address of weights.
      name: the name of the default folder, such as "evaluation/test_best". It is in the directory of the run or the
        weights if that can be written to. Otherwise it is in the current directory, for example
        evaluation/MODEL/test_best.
    """
    if output:
        return Path(output)
    run = Path(os.path.expanduser(workdir))
    if (RunDirectory(run).exists or weights_in(run)) and os.access(run, os.W_OK):
        return run / name
    first, *rest = Path(name).parts
    model = run.resolve().name if os.path.exists(run) else re.sub(r"[^\w.-]+", "_", workdir)
    return Path(first, model, *rest)


def _parse_known(
    argv: Sequence[str], define: Callable[[Define], None], usage: str
) -> tuple[flags.FlagValues, list[str]]:
    values = flags.FlagValues()
    own = Define(values)
    own.boolean("help", False, "show this and exit", short_name="h")
    define(own)
    # A shell expands ~ only at the beginning of a word.
    argv = [re.sub(r"(?<==)~(?=/|$)", os.path.expanduser("~"), x) if re.match(r"--?\w+=~", x) else x for x in argv]
    try:
        rest = values(argv, known_only=True)
    except flags.Error as error:
        raise UserError(str(error)) from error
    if values.help:
        text, _, _ = values.get_help().partition("\n\nabsl.flags:")
        print(f"{usage.strip()}\n{text}", flush=True)
        sys.exit(0)
    return values, rest


def _override(config: ConfigDict, arguments: Sequence[str], flag_names: Sequence[str]) -> ConfigDict:
    """Return a checked config after applying `--config.a.b=v` arguments; any other argument is an error."""
    known = flat(config)
    for argument in arguments[1:]:
        match = re.match(r"--?(?:no)?config\.([^=]+)", argument)
        if match and match[1] not in known:
            raise unknown_field(match[1], known)
    values = flags.FlagValues()
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=list(arguments))
    try:
        extra = values(list(arguments))[1:]
    except flags.UnrecognizedFlagError as error:
        fields = [field for field in known if field.rpartition(".")[2] == error.flagname or field == error.flagname]
        hint = f" (did you mean --config.{fields[0]}?)" if fields else did_you_mean(error.flagname, flag_names)
        raise UserError(f"unknown flag --{error.flagname}{hint}") from error
    except flags.IllegalFlagValueError as error:
        match = re.match(r"flag --config\.([\w.]+)=(.*?): ", str(error), re.DOTALL)
        if not match:
            raise UserError(str(error)) from error
        section, _, key = match[1].rpartition(".")
        kind = (config[section] if section else config).get_type(key).__name__
        raise UserError(f"config.{match[1]}={match[2]!r}: expects {kind}") from error
    except flags.Error as error:
        raise UserError(str(error)) from error
    if extra:
        raise UserError(f"unexpected argument {extra[0]!r}: config fields are given as --config.field=value")
    return check(config)
