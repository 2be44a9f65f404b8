"""Messages as their serialised bytes: no copy into Python objects and back."""

from __future__ import annotations

import importlib
import signal
import struct
import sys
import threading
from collections.abc import Callable
from types import FrameType

import rclpy

from mdnet_ros.errors import DataError, MDNetError


def message_class(type_name: str) -> type:
    """The class of a message type such as ``sensor_msgs/msg/Image``.

    Raises:
        DataError: if its package is not installed.
    """
    package, _, name = type_name.replace('/msg/', '/').partition('/')
    try:
        return getattr(importlib.import_module(f'{package}.msg'), name)
    except (ImportError, AttributeError, ValueError):
        raise DataError(
            f"message type '{type_name}': expected one whose ROS package is installed here"
        ) from None


def header_stamp(data: bytes) -> int:
    """The stamp in nanoseconds of a serialised message that begins with a header.

    CDR: four bytes say the byte order, then come the stamp's seconds and nanoseconds.
    """
    seconds, nanoseconds = struct.unpack_from('<iI' if data[1] & 1 else '>iI', data, 4)
    return seconds * 1_000_000_000 + nanoseconds


def run_until_signal(
    name: str, work: Callable[[threading.Event], None], args: list[str] | None
) -> int:
    """Initialise ROS, do some work, and end it in good order.

    Args:
        name: of the program, for its error line.
        work: ends soon after the event is set, which SIGINT and SIGTERM do.
        args: the command line with the ROS arguments.

    Returns:
        The exit code: 2 if the user's input was wrong.
    """
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    rclpy.init(args=args, signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    try:
        work(stop)
    except MDNetError as error:
        print(f'{name}: error: {error}', file=sys.stderr)
        return 2
    finally:
        rclpy.try_shutdown()
    return 0
