"""Play a bag onto live topics, byte for byte: ``ros2 run mdnet_ros player``.

Messages of ROS 1 bags are converted to ROS 2's serialisation.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from builtin_interfaces.msg import Time
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSPolicyKind, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.utilities import remove_ros_args
from rosgraph_msgs.msg import Clock

from mdnet_ros.bags.qos import TopicQos
from mdnet_ros.bags.reader import BagReader, RawMessage
from mdnet_ros.errors import DataError
from mdnet_ros.nodes.environment import ros_environment
from mdnet_ros.nodes.executors import executor_of, spinning
from mdnet_ros.nodes.raw import header_stamp, message_class, run_until_signal

#: Messages kept for a reliable subscriber that is slow.
_QUEUE = 10
#: Unanswered images in a row after which lockstep gives up.
_PATIENCE = 3
#: Policies that ``qos_overrides`` parameters may change.
_OVERRIDABLE = (
    QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY,
    QoSPolicyKind.DURABILITY,
)
_FASTEST_CLOCK = 10_000.0
#: Rate of the clock where none is given, Hz, as that of ``ros2 bag play --clock``.
_CLOCK_RATE = 40.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlaySettings:
    """How a bag is played.

    Attributes:
        rate: speed; 2 is twice as fast as it was recorded.
        loop: start again at the end, until stopped.
        lockstep: topic whose messages answer the images: the next image goes out when the
            answer to the last one, with the same stamp, has come. Empty: play by the clock.
        lockstep_timeout: how long to wait for an answer, seconds.
        wait: how long to wait for a subscriber to an image topic before the first message,
            seconds; 0: do not wait.
        topics: play these alone; empty: all.
        clock: how often the bag's time is published on ``/clock``, Hz; 0: not at all. Nodes with
            ``use_sim_time`` follow it.
    """

    rate: float = 1.0
    loop: bool = False
    lockstep: str = ''
    lockstep_timeout: float = 10.0
    wait: float = 30.0
    topics: tuple[str, ...] = ()
    clock: float = 0.0

    def __post_init__(self) -> None:
        if not self.rate > 0:
            raise DataError(f'rate: expected more than 0, got {self.rate:g}')
        if not 0 <= self.clock <= _FASTEST_CLOCK:
            raise DataError(
                f'clock: expected 0 to {_FASTEST_CLOCK:g} Hz, got {self.clock:g}'
            )


@dataclass(frozen=True)
class PlayReport:
    """What was played.

    Attributes:
        messages: published.
        images: of these, images.
        unanswered: images without an answer in time (lockstep).
    """

    messages: int
    images: int
    unanswered: int


class BagPlayer:
    """Publishes the messages of a bag. The node must be spun by somebody else.

    Topics that were latched (transient local) when they were recorded are latched again; a
    ``qos_overrides`` parameter of the node changes that. Topics whose message type is not
    installed, or is another one in ROS 1, are left out with a warning.

    Args:
        node: whose publishers are used; its remappings hold.
        bag: open.
        settings: how to play.
        on_publish: called with each message just before it is published, with the reading of
            ``time.perf_counter_ns``.

    Raises:
        DataError: if a topic that is asked for is not in the bag or cannot be played, or none can.
    """

    def __init__(
        self,
        node: Node,
        bag: BagReader,
        settings: PlaySettings,
        on_publish: Callable[[RawMessage, int], None] | None = None,
    ) -> None:
        self._bag = bag
        self._settings = settings
        self._on_publish = on_publish
        types = bag.topics
        for name in settings.topics:
            if name not in types:
                raise DataError(
                    f"bag '{bag.path}': no topic '{name}', it has {', '.join(types) or 'none'}"
                )
        classes = self._classes(settings.topics or tuple(types), types)
        if not classes:
            raise DataError(f"bag '{bag.path}': has no topics to play")
        self._images = tuple(name for name in bag.image_topics() if name in classes)
        self._publishers = {
            name: node.create_publisher(
                kind, name, _profile(bag.qos(name)),
                qos_overriding_options=QoSOverridingOptions(_OVERRIDABLE),
            )
            for name, kind in classes.items()
        }
        self._clock = (
            node.create_publisher(Clock, '/clock', QoSProfile(depth=1)) if settings.clock else None
        )
        self._next_clock = 0.0
        self._answered = threading.Condition()
        self._answers: set[int] = set()
        if settings.lockstep:
            from sensor_msgs.msg import PointCloud2

            node.create_subscription(
                PointCloud2, settings.lockstep, self._on_answer, QoSProfile(depth=_QUEUE), raw=True
            )

    def _classes(self, names: Sequence[str], types: Mapping[str, str]) -> dict[str, type]:
        """The message classes of the topics that can be played."""
        classes, problem = {}, ''
        for name in names:
            if name == '/clock' and self._settings.clock:
                continue  # two clocks would jump to and fro
            try:
                kind = message_class(types[name])
                if self._bag.is_ros1:
                    _check_fields(self._bag, types[name])
                classes[name] = kind
            except DataError as error:
                if name in self._settings.topics:
                    raise
                problem = problem or str(error)
                _log.warning("topic '%s' is not played: %s", name, error)
        if problem and not classes:
            raise DataError(problem)
        return classes

    def play(self, stop: threading.Event | None = None) -> PlayReport:
        """Play until the end of the bag, or until stopped.

        Args:
            stop: ends the playing when it is set.

        Raises:
            DataError: if nobody subscribes, nobody answers, or the bag is damaged.
        """
        stop = stop or threading.Event()
        self._wait_for_subscribers(stop)
        messages = images = unanswered = in_a_row = 0
        while not stop.is_set():
            begin, first = time.monotonic(), None
            for message in self._bag.raw(list(self._publishers)):
                first = message.stamp_ns if first is None else first
                if not self._settings.lockstep:
                    due = begin + (message.stamp_ns - first) * 1e-9 / self._settings.rate
                    self._wait_until(due, message.stamp_ns, stop)
                if stop.is_set():
                    break
                self._publish_clock(message.stamp_ns)
                if self._on_publish is not None:
                    self._on_publish(message, time.perf_counter_ns())
                self._publishers[message.topic].publish(message.data)
                messages += 1
                if message.topic not in self._images:
                    continue
                images += 1
                if self._settings.lockstep and self._heard(message.topic):
                    came = self._wait_for_answer(header_stamp(message.data), stop)
                    unanswered += not came
                    in_a_row = 0 if came else in_a_row + 1
                    if in_a_row == _PATIENCE and not stop.is_set():
                        raise DataError(
                            f"lockstep: no answer on '{self._settings.lockstep}' to "
                            f'{_PATIENCE} images in a row, each within '
                            f'{self._settings.lockstep_timeout:g} s'
                        )
            if not self._settings.loop or first is None:
                break
        return PlayReport(messages, images, unanswered)

    def _wait_until(self, due: float, stamp_ns: int, stop: threading.Event) -> None:
        """Wait until a message is due, and keep the clock going until then.

        Args:
            due: monotonic seconds.
            stamp_ns: the bag's time then.
            stop: ends the waiting.
        """
        while not stop.is_set():
            now = time.monotonic()
            if now >= due:
                return
            if self._clock is None:
                stop.wait(due - now)
                continue
            if now >= self._next_clock:
                self._publish_clock(stamp_ns - int((due - now) * 1e9 * self._settings.rate))
            stop.wait(max(0.0, min(due, self._next_clock) - now))

    def _publish_clock(self, stamp_ns: int) -> None:
        if self._clock is None:
            return
        seconds, nanoseconds = divmod(max(0, stamp_ns), 1_000_000_000)
        self._clock.publish(Clock(clock=Time(sec=seconds, nanosec=nanoseconds)))
        self._next_clock = time.monotonic() + 1.0 / self._settings.clock

    def _heard(self, topic: str) -> bool:
        """Whether somebody subscribes to a topic."""
        return self._publishers[topic].get_subscription_count() > 0

    def _wait_for_subscribers(self, stop: threading.Event) -> None:
        """Until an image topic (or any topic if there is none) has a subscriber, bounded."""
        if not self._settings.wait:
            return
        deadline = time.monotonic() + self._settings.wait
        wanted = self._images or tuple(self._publishers)
        while not any(self._heard(topic) for topic in wanted):
            if time.monotonic() > deadline:
                raise DataError(
                    f"nobody subscribed to {', '.join(wanted)} within {self._settings.wait:g} s"
                )
            if stop.wait(0.05):
                return

    def _on_answer(self, data: bytes) -> None:
        with self._answered:
            self._answers.add(header_stamp(data))
            self._answered.notify_all()

    def _wait_for_answer(self, stamp: int, stop: threading.Event) -> bool:
        deadline = time.monotonic() + self._settings.lockstep_timeout
        with self._answered:
            while stamp not in self._answers:
                left = deadline - time.monotonic()
                if left <= 0 or stop.is_set():
                    return False
                self._answered.wait(min(left, 0.1))
            self._answers.clear()
            return True


def _profile(qos: TopicQos | None) -> QoSProfile:
    """A publisher's quality of service: reliable, and latched if it was when recorded.

    Reliable publishers reach every subscriber, best effort too. What a publisher keeps for
    subscribers to come is what was kept when it was recorded.
    """
    if qos is None or not qos.transient_local:
        return QoSProfile(depth=_QUEUE)
    return QoSProfile(depth=qos.depth, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def _check_fields(bag: BagReader, type_name: str) -> None:
    """Check that a message type of ROS 1 has the same fields in ROS 2, and its parts too.

    Raises:
        DataError: if it has others, so that its bytes would be read wrongly.
    """
    waiting, seen = [type_name], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        fields = bag.fields(name) or {}
        installed = message_class(name).get_fields_and_field_types()
        if list(fields.items()) != list(installed.items()):
            raise DataError(f"message type '{name}': has other fields in ROS 1 than in ROS 2")
        for spelled in fields.values():
            inner = re.sub(r'sequence<|\[\d+\]|[,>].*', '', spelled)
            if '/' in inner:
                waiting.append(inner.replace('/', '/msg/'))


def main(args: list[str] | None = None) -> int:
    """Play the bag named on the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog='player', description=__doc__)
    parser.add_argument(
        'bag', help='rosbag2 folder, a single .mcap or .db3 file, or a ROS 1 .bag'
    )
    defaults = PlaySettings()
    parser.add_argument('--rate', type=float, default=defaults.rate, help='speed, 1: as recorded')
    parser.add_argument('--loop', action='store_true', help='start again at the end')
    parser.add_argument(
        '--lockstep', metavar='TOPIC', nargs='?', const='correspondences', default='',
        help='send the next image when TOPIC (PointCloud2) has answered the last one',
    )
    parser.add_argument(
        '--wait', type=float, default=defaults.wait, metavar='S',
        help='seconds to wait for subscribers to the images; 0: do not wait',
    )
    parser.add_argument(
        '--clock', type=float, metavar='HZ', nargs='?', const=_CLOCK_RATE, default=defaults.clock,
        help="publish the bag's time on /clock so many times a second "
        f'(without a number {_CLOCK_RATE:g}), for nodes with use_sim_time',
    )
    parser.add_argument('--topics', nargs='+', default=[], metavar='T', help='play these alone')
    argv = sys.argv if args is None else ['player', *args]
    options = parser.parse_args(remove_ros_args(argv)[1:])

    def work(stop: threading.Event) -> None:
        settings = PlaySettings(
            options.rate, options.loop, options.lockstep, wait=options.wait,
            topics=tuple(options.topics), clock=options.clock,
        )
        with BagReader(options.bag) as bag:
            node = Node('player')
            player = BagPlayer(node, bag, settings)
            with spinning(executor_of(node), stop=stop):
                report = player.play(stop)
                # Give the last messages time to leave.
                time.sleep(0.2)
            node.destroy_node()
        print(f'player: {report.messages} messages, {report.images} images')

    os.environ.update(ros_environment(os.environ))
    return run_until_signal('player', work, argv)


if __name__ == '__main__':
    sys.exit(main())
