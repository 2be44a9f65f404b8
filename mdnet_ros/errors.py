"""The package's errors: each message names the input and what was expected, on one line."""

from __future__ import annotations

#: Longer messages are cut: what is quoted may come from a stranger's message or file.
_LONGEST = 2000


class MDNetError(Exception):
    """Base of every error a user can cause; commands print its message and exit with 2.

    The message becomes one line of printable characters, so that what it quotes can neither
    forge lines of a log nor steer a terminal.
    """

    def __init__(self, message: str) -> None:
        line = ''.join(c if c.isprintable() else ' ' for c in message[: _LONGEST + 1])
        super().__init__(line if len(line) <= _LONGEST else line[:_LONGEST] + ' …')


class ImageError(MDNetError):
    """An image that cannot be used: wrong shape, type, size or undecodable content."""


class WeightsError(MDNetError):
    """A weights file that is missing, corrupt, or does not fit the network."""


class DataError(MDNetError):
    """A data set, bag, pose file or folder that is missing or malformed."""


class SettingError(MDNetError, ValueError):
    """A setting out of its range or a name that is not known."""


class MissingDependencyError(MDNetError):
    """An optional library is not installed; the message says which extra brings it."""

    def __init__(self, library: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs '{library}', which is not installed: pip install 'mdnet_ros[{extra}]'"
        )
