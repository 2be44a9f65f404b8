"""Serialised messages: their types, stamps and the programs that handle them unopened."""

from __future__ import annotations

import importlib
import os
import signal
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import rclpy

from mdnet_ros.errors import DataError, MDNetError


def message_class(type_name: str) -> Any:
    """Import the class of a message type such as ``sensor_msgs/msg/Image``.

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


def message_definition(type_name: str) -> str:
    """Read the definition of a message type as its ROS package installs it.

    Args:
        type_name: such as ``my_msgs/msg/Status``.

    Returns:
        The content of its ``.msg`` file.

    Raises:
        DataError: if there is no such file.
    """
    package, _, name = type_name.replace('/msg/', '/').partition('/')
    folders = [Path(prefix) for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(':')
               if prefix]
    # The wheels install below the environment's own prefix.
    for folder in (*folders, Path(sys.prefix)):
        file = folder / 'share' / package / 'msg' / f'{name}.msg'
        if file.is_file():
            return file.read_text(encoding='utf-8')
    raise DataError(
        f"message type '{type_name}': its definition is not installed: expected the file "
        f"share/{package}/msg/{name}.msg below AMENT_PREFIX_PATH"
    )


def header_stamp(data: bytes) -> int:
    """Read the stamp (ns) of a serialised message that begins with a header.

    The first four bytes of CDR say the byte order; the stamp's seconds and nanoseconds follow.
    """
    seconds, nanoseconds = struct.unpack_from('<iI' if data[1] & 1 else '>iI', data, 4)
    return seconds * 1_000_000_000 + nanoseconds


def run_until_signal(
    name: str, work: Callable[[threading.Event], None], args: list[str] | None
) -> int:
    """Initialise ROS, do some work, and shut ROS down.

    Args:
        name: the program's, for its error line.
        work: ends soon after the event is set, which SIGINT, SIGTERM and SIGHUP (a terminal
            that closes) do.
        args: the command line, with the ROS arguments.

    Returns:
        The exit code: 2 if the user's input was wrong.
    """
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    rclpy.init(args=args, signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    try:
        work(stop)
    except MDNetError as error:
        print(f'{name}: error: {error}', file=sys.stderr)
        return 2
    finally:
        rclpy.try_shutdown()
    return 0
