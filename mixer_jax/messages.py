"""What the library tells its user: through the logger "mixer_jax", which the commands show on the console."""

import logging
import sys

from tqdm import tqdm

LOGGER = logging.getLogger("mixer_jax")


def say(line: str) -> None:
    """Log a line of information."""
    LOGGER.info(line)


def warn(line: str) -> None:
    """Log a line about a problem that stops nothing."""
    LOGGER.warning(line)


def show_on_console() -> None:
    """Print information to stdout and warnings to stderr, between progress bars and once per line."""
    if not any(isinstance(handler, _Console) for handler in LOGGER.handlers):
        LOGGER.addHandler(_Console())
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False


class _Console(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Print a message to the streams as they are now, which may have been redirected."""
        is_warning = record.levelno >= logging.WARNING
        stream = sys.stderr if is_warning else sys.stdout
        tqdm.write(f"{'warning: ' * is_warning}{record.getMessage()}", file=stream)
        stream.flush()
