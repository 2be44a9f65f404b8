"""The package's errors: each message names the input and what was expected, on one line."""

from __future__ import annotations


class MDNetError(Exception):
    """Base of every error a user can cause; commands print its message and exit with 2."""


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
