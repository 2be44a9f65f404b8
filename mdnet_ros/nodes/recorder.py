"""Record live topics into a bag, byte for byte: ``ros2 run mdnet_ros recorder``.

What was received is on disk within a second. A recording that was killed is completed by the next
recorder in the same folder, or by whatever reads it.
"""

from __future__ import annotations

import argparse
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo
from rclpy.utilities import remove_ros_args

from mdnet_ros.bags.qos import TopicQos
from mdnet_ros.bags.writer import COMMIT_PERIOD, STORAGES, BagWriter
from mdnet_ros.errors import DataError, MDNetError
from mdnet_ros.nodes.environment import ros_environment
from mdnet_ros.nodes.executors import executor_of, spinning
from mdnet_ros.nodes.raw import message_class, message_definition, run_until_signal

#: Messages kept by the middleware for us, and by us for the disk.
_QUEUE = 100
_WAITING = 2000
#: How often new topics are looked for, seconds.
_LOOK_PERIOD = 0.1
#: Every so many of these looks the publishers of subscribed topics are looked at too.
_LOOKS_BETWEEN_CHECKS = 10
#: Topic, type, stamp in nanoseconds, CDR bytes, what the publishers offer.
_Arrived = tuple[str, str, int, bytes, tuple[TopicQos, ...]]

_log = logging.getLogger(__name__)

#: Printed by the executable once nothing that is published can be missed.
SUBSCRIBED = 'recorder: subscribed to every topic'


@dataclass
class _Recorded:
    """A topic that is subscribed to.

    Attributes:
        given: its name as the user gave it.
        type: such as ``sensor_msgs/msg/Image``.
        reliable: asked of its publishers.
        transient_local: asked of its publishers.
        offered: what each of them offers, for the bag.
        subscription: rclpy's.
    """

    given: str
    type: str
    reliable: bool
    transient_local: bool
    offered: tuple[TopicQos, ...]
    subscription: Subscription


class TopicRecorder:
    """Writes everything that arrives on some topics to a bag, as a context manager.

    Topics may appear later. The quality of service of their publishers is followed, so that
    latched messages (transient local) that were sent earlier are recorded too, and is kept in the
    bag. The node must be spun by somebody else. However the block ends, the bag is completed with
    what has arrived.

    Args:
        node: whose subscriptions are used.
        bag: not yet entered; it is opened, written and closed in a thread of its own.
        topics: to record; they are resolved as the node's own (namespace, remappings).
        on_message: called with each message as it arrives: topic as given, bytes, reading of
            ``time.perf_counter_ns``.

    Attributes:
        counts: messages by topic as given.
        skipped: topics as given that cannot be recorded, and why.
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
        self._recorded: dict[str, _Recorded] = {}
        self._changed = threading.Condition()
        self._opened = threading.Event()
        self._waiting: queue.Queue[_Arrived | None] = queue.Queue(_WAITING)
        self._error: MDNetError | None = None
        self._ended = threading.Event()
        self._looks = 0
        self.counts: dict[str, int] = dict.fromkeys(self._missing.values(), 0)
        self.skipped: dict[str, str] = {}
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
        """Write what has arrived and complete the bag.

        Raises:
            DataError: if the bag could not be written; what was written before is kept.
        """
        self._node.destroy_timer(self._timer)
        self._ended.set()
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
        """Whether every topic has a publisher and is subscribed to, or is skipped."""
        return not self._missing

    def wait_until_subscribed(self, timeout: float) -> None:
        """Wait until :attr:`subscribed`.

        Raises:
            DataError: if that takes longer than the timeout (seconds).
        """
        with self._changed:
            if not self._changed.wait_for(lambda: not self._missing, timeout):
                raise DataError(
                    f'nobody publishes {", ".join(self._missing.values())} '
                    f'after {timeout:g} s'
                )

    def _look(self) -> None:
        """Subscribe to topics that have a publisher now, and follow publishers that change."""
        for name, given in list(self._missing.items()):
            publishers = self._node.get_publishers_info_by_topic(name)
            if publishers:
                self._begin(name, given, publishers)
                with self._changed:
                    del self._missing[name]
                    self._changed.notify_all()
        self._looks += 1
        if self._looks % _LOOKS_BETWEEN_CHECKS:
            return
        for name, recorded in list(self._recorded.items()):
            publishers = self._node.get_publishers_info_by_topic(name)
            if not publishers:
                continue
            reliable, transient_local = _common(publishers)
            # Asking for less than before lets a publisher in that offers less. Asking for more
            # would let one go.
            if (recorded.reliable and not reliable) or (
                recorded.transient_local and not transient_local
            ):
                _log.warning(
                    "topic '%s': a publisher offers less than those before; subscribing again",
                    recorded.given,
                )
                self._node.destroy_subscription(recorded.subscription)
                self._subscribe(name, recorded.given, recorded.type, publishers)

    def _begin(self, name: str, given: str, publishers: Sequence[TopicEndpointInfo]) -> None:
        """Subscribe to a topic, or skip it if its type is not known here."""
        type_name = publishers[0].topic_type
        try:
            message_class(type_name)
            _define(self._bag, type_name)
        except DataError as error:
            self.skipped[given] = str(error)
            _log.warning("topic '%s' is not recorded: %s", given, error)
            if len(self.skipped) == len(self.counts):
                self._fail(error)
            return
        self._subscribe(name, given, type_name, publishers)

    def _subscribe(
        self, name: str, given: str, type_name: str, publishers: Sequence[TopicEndpointInfo]
    ) -> None:
        reliable, transient_local = _common(publishers)
        latched = [p for p in publishers if _is_transient_local(p)]
        if latched and not transient_local:
            _log.warning(
                "topic '%s': only %d of %d publishers are transient local (latched); what they "
                'sent before is not recorded', given, len(latched), len(publishers),
            )
        profile = QoSProfile(
            depth=_QUEUE,
            reliability=(
                ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
            ),
            durability=(
                DurabilityPolicy.TRANSIENT_LOCAL if transient_local else DurabilityPolicy.VOLATILE
            ),
        )
        offered = tuple(qos_of_profile(p.qos_profile) for p in publishers)
        subscription = self._node.create_subscription(
            message_class(type_name), name, self._receiver(name, given, type_name, offered),
            profile, raw=True,
        )
        self._recorded[name] = _Recorded(
            given, type_name, reliable, transient_local, offered, subscription
        )

    def _receiver(
        self, name: str, given: str, type_name: str, offered: tuple[TopicQos, ...]
    ) -> Callable[[bytes], None]:
        def receive(data: bytes) -> None:
            arrived = time.perf_counter_ns()
            if self._ended.is_set() or self._error is not None:
                return
            self.counts[given] += 1
            if self._on_message is not None:
                self._on_message(given, data, arrived)
            self._waiting.put((name, type_name, time.time_ns(), data, offered))

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
        try:
            self._write_until_the_end()
        except MDNetError as error:
            self._fail(self._salvaged(error))
            while self._waiting.get() is not None:
                pass  # let those who wait for room go on
            return
        try:
            self._bag.close()
        except MDNetError as error:
            self._fail(error)

    def _write_until_the_end(self) -> None:
        while True:
            try:
                entry = self._waiting.get(timeout=COMMIT_PERIOD / 2)
            except queue.Empty:
                self._bag.commit_if_due()
                continue
            if entry is None:
                return
            self._bag.write(*entry)

    def _salvaged(self, error: MDNetError) -> MDNetError:
        """Complete the bag with what was written before an error; says where it is."""
        try:
            if not self._bag.salvage():
                return error
        except MDNetError as failure:
            return failure
        return DataError(f"{error}; what was recorded before is in '{self._bag.path}'")

    def _fail(self, error: MDNetError) -> None:
        self._error = error
        with self._changed:
            self._changed.notify_all()


def qos_of_profile(profile: QoSProfile) -> TopicQos:
    """The part of rclpy's profile that is kept in a bag."""
    return TopicQos(
        reliable=profile.reliability != ReliabilityPolicy.BEST_EFFORT,
        transient_local=profile.durability == DurabilityPolicy.TRANSIENT_LOCAL,
        # Discovery does not report the depth on every middleware: 0 then.
        depth=max(1, profile.depth),
    )


def _common(publishers: Sequence[TopicEndpointInfo]) -> tuple[bool, bool]:
    """Whether all publishers are reliable, and whether all are transient local.

    A subscription that asks for more than a publisher offers receives nothing of it.
    """
    return (
        all(p.qos_profile.reliability == ReliabilityPolicy.RELIABLE for p in publishers),
        all(_is_transient_local(p) for p in publishers),
    )


def _is_transient_local(publisher: TopicEndpointInfo) -> bool:
    return bool(publisher.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL)


def _define(bag: BagWriter, type_name: str) -> None:
    """Give a bag the definition of a message type, and of those in it, if it lacks them.

    Raises:
        DataError: if the definition is not installed here.
    """
    if type_name not in bag.types:
        for part in bag.define(type_name, message_definition(type_name)):
            _define(bag, part)


def main(args: list[str] | None = None) -> int:
    """Record the topics named on the command line until a signal; return the exit code."""
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
            announced = False
            while not recorder.failed and time.monotonic() < deadline and not stop.wait(0.05):
                if recorder.subscribed and not announced:
                    announced = True
                    print(SUBSCRIBED, flush=True)  # the replay launch file waits for it
        node.destroy_node()
        listing = ', '.join(f'{topic} {count}' for topic, count in recorder.counts.items())
        print(f'recorder: {listing}')

    os.environ.update(ros_environment(os.environ))
    return run_until_signal('recorder', work, argv)


if __name__ == '__main__':
    sys.exit(main())
