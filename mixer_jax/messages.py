"""Messages to the user, sent to the logger "mixer_jax", which the commands show on the console."""

import logging
import sys

from tqdm import tqdm

LOGGER = logging.getLogger("mixer_jax")


say = LOGGER.info  # logs a line of information
warn = LOGGER.warning  # logs a line about a problem that does not stop the command


def show_on_console() -> None:
    """Print information to stdout and warnings to stderr, without breaking progress bars.

    Further calls have no effect, so that no line is printed twice.
    """
    if not any(isinstance(handler, _Console) for handler in LOGGER.handlers):
        LOGGER.addHandler(_Console())
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False


class _Console(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Print a message to the current stdout or stderr, which may have been redirected since the start."""
        is_warning = record.levelno >= logging.WARNING
        stream = sys.stderr if is_warning else sys.stdout
        tqdm.write(f"{'warning: ' * is_warning}{record.getMessage()}", file=stream)
        stream.flush()
