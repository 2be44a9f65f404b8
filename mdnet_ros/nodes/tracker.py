"""``ros2 run mdnet_ros tracker``: the tracker node in a process of its own."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from types import FrameType

import rclpy
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.logging import get_logger
from rclpy.signals import SignalHandlerOptions

from mdnet_ros.allocator import tune_allocator
from mdnet_ros.nodes.environment import ros_environment
from mdnet_ros.nodes.executors import executors_of, spinning
from mdnet_ros.nodes.tracker_node import TrackerNode

#: Seconds that a thread may hold the interpreter's lock while others wait. The network needs it
#: after every layer and would wait for the executor's bookkeeping, by default up to 5 ms.
_SWITCH_INTERVAL = 5e-4


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; returns the exit code."""
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    tune_allocator()
    sys.setswitchinterval(_SWITCH_INTERVAL)
    os.environ.update(ros_environment(os.environ))
    # Our own handlers: the context must live until the last frame is published.
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    try:
        node = TrackerNode()
    except Exception as error:  # a parameter out of range, an impossible name
        get_logger('tracker').fatal(' '.join(str(error).split()))
        rclpy.try_shutdown()
        return 1
    try:
        if node.settings.autostart and not _start(node):
            node.get_logger().fatal(node.error)
            return 1
        with spinning(*executors_of(node), stop=stop):
            # In steps: a signal that another thread received does not wake an endless wait.
            while not stop.wait(0.1):
                pass
        return 0
    except Exception as error:  # raised by a callback
        node.get_logger().fatal(' '.join(f'{type(error).__name__}: {error}'.split()))
        return 1
    finally:
        node.close()
        node.destroy_node()
        rclpy.try_shutdown()
        # Otherwise Python would collect garbage among all that torch holds before it ends.
        gc.freeze()


def _start(node: TrackerNode) -> bool:
    return (
        node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        and node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    )


if __name__ == '__main__':
    sys.exit(main())
