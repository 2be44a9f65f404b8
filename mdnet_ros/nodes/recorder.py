"""``ros2 run mdnet_ros recorder``: live topics into a bag, byte for byte."""

from __future__ import annotations

import argparse
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.utilities import remove_ros_args

from mdnet_ros.bags.writer import STORAGES, BagWriter
from mdnet_ros.errors import DataError, MDNetError
from mdnet_ros.nodes.environment import ros_environment
from mdnet_ros.nodes.executors import executor_of, spinning
from mdnet_ros.nodes.raw import message_class, run_until_signal

#: Messages kept by the middleware for us, and by us for the disk.
_QUEUE = 100
_WAITING = 2000
#: How often new topics are looked for, seconds.
_LOOK_PERIOD = 0.1

#: Printed by the executable once nothing that is published can be missed.
SUBSCRIBED = 'recorder: subscribed to every topic'


class TopicRecorder:
    """Writes everything that comes on some topics to a bag, as a context manager.

    Topics may appear later. The node must be spun by somebody else. The bag is complete when
    the block ends; if it raises, no bag is left.

    Args:
        node: whose subscriptions are used.
        bag: not yet entered; it is opened, written and closed in a thread of its own.
        topics: to record; they are resolved as the node's own (namespace, remappings).
        on_message: told of each message as it arrives: topic as given, bytes, reading of
            ``time.perf_counter_ns``.
    """

    def __init__(
        self,
        node: Node,
        bag: BagWriter,
        topics: Iterable[str],
        on_message: Callable[[str, bytes, int], None] | None = None,
    ) -> None:
        self._node = node
        self._bag = bag
        self._on_message = on_message
        self._missing = {node.resolve_topic_name(topic): topic for topic in topics}
        self._subscribed = threading.Condition()
        self._opened = threading.Event()
        self._abandoned = False
        self._waiting: queue.Queue[tuple[str, str, int, bytes] | None] = queue.Queue(_WAITING)
        self._error: MDNetError | None = None
        self._ended = threading.Event()
        self.counts: dict[str, int] = dict.fromkeys(self._missing.values(), 0)
        self._writer = threading.Thread(target=self._write, name='bag writer', daemon=True)

    def __enter__(self) -> TopicRecorder:
        """Open the bag and begin.

        Raises:
            DataError: if the bag cannot be written.
        """
        self._writer.start()
        self._opened.wait()
        if self._error is not None:
            raise self._error
        self._timer = self._node.create_timer(_LOOK_PERIOD, self._look)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write what has arrived and finish the bag.

        Raises:
            DataError: if the bag could not be written.
        """
        self._node.destroy_timer(self._timer)
        self._ended.set()
        self._abandoned = kind is not None
        self._waiting.put(None)
        self._writer.join()
        if self._error is not None and kind is None:
            raise self._error

    @property
    def failed(self) -> bool:
        """Whether the bag cannot be written any more; the end of the block says why."""
        return self._error is not None

    @property
    def subscribed(self) -> bool:
        """Whether every topic has a publisher and is subscribed to."""
        return not self._missing

    def wait_until_subscribed(self, timeout: float) -> None:
        """Until every topic has a publisher and is subscribed to.

        Raises:
            DataError: if that takes longer than the timeout (seconds).
        """
        with self._subscribed:
            if not self._subscribed.wait_for(lambda: not self._missing, timeout):
                raise DataError(
                    f'nobody publishes {", ".join(self._missing.values())} '
                    f'after {timeout:g} s'
                )

    def _look(self) -> None:
        """Subscribe to topics that have a publisher now."""
        for name, given in list(self._missing.items()):
            publishers = self._node.get_publishers_info_by_topic(name)
            if not publishers:
                continue
            # Ask for no more than every publisher offers.
            reliable = all(
                p.qos_profile.reliability == ReliabilityPolicy.RELIABLE for p in publishers
            )
            profile = QoSProfile(
                depth=_QUEUE,
                reliability=ReliabilityPolicy.RELIABLE
                if reliable
                else ReliabilityPolicy.BEST_EFFORT,
            )
            type_name = publishers[0].topic_type
            try:
                kind = message_class(type_name)
            except DataError as error:
                self._fail(error)
                return
            self._node.create_subscription(
                kind, name, self._receiver(name, given, type_name), profile, raw=True
            )
            with self._subscribed:
                del self._missing[name]
                self._subscribed.notify_all()

    def _receiver(self, name: str, given: str, type_name: str) -> Callable[[bytes], None]:
        def receive(data: bytes) -> None:
            arrived = time.perf_counter_ns()
            if self._ended.is_set() or self._error is not None:
                return
            self.counts[given] += 1
            if self._on_message is not None:
                self._on_message(given, data, arrived)
            self._waiting.put((name, type_name, time.time_ns(), data))

        return receive

    def _write(self) -> None:
        # The whole life of the bag is in this thread: sqlite3 asks for that.
        try:
            self._bag.__enter__()
        except MDNetError as error:
            self._fail(error)
            return
        finally:
            self._opened.set()
        while (entry := self._waiting.get()) is not None:
            if self._error is not None:
                continue  # let those who wait for room go on
            try:
                self._bag.write(*entry)
            except MDNetError as error:
                self._fail(error)
        try:
            if self._error is not None or self._abandoned:
                self._bag.abort()
            else:
                self._bag.close()
        except MDNetError as error:
            self._fail(error)

    def _fail(self, error: MDNetError) -> None:
        self._error = error
        with self._subscribed:
            self._subscribed.notify_all()


def main(args: list[str] | None = None) -> int:
    """Record the topics named on the command line until a signal; returns the exit code."""
    parser = argparse.ArgumentParser(prog='recorder', description=__doc__)
    parser.add_argument('bag', help='folder to write; must not be there yet')
    parser.add_argument('topics', nargs='+', help='topics to record; they may appear later')
    parser.add_argument('--storage', choices=STORAGES, default='sqlite3')
    parser.add_argument(
        '--duration', type=float, default=0.0, metavar='S', help='stop after S seconds; 0: never'
    )
    argv = sys.argv if args is None else ['recorder', *args]
    options = parser.parse_args(remove_ros_args(argv)[1:])

    def work(stop: threading.Event) -> None:
        bag = BagWriter(options.bag, options.storage)
        node = Node('recorder')
        deadline = time.monotonic() + (options.duration or float('inf'))
        with (
            TopicRecorder(node, bag, options.topics) as recorder,
            spinning(executor_of(node), stop=stop),
        ):
            told = False
            while not recorder.failed and time.monotonic() < deadline and not stop.wait(0.05):
                if recorder.subscribed and not told:
                    told = True
                    print(SUBSCRIBED, flush=True)  # the replay launch file waits for it
        node.destroy_node()
        listing = ', '.join(f'{topic} {count}' for topic, count in recorder.counts.items())
        print(f'recorder: {listing}')

    os.environ.update(ros_environment(os.environ))
    return run_until_signal('recorder', work, argv)


if __name__ == '__main__':
    sys.exit(main())
