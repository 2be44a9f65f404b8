"""``ros2 run mdnet_ros player``: a bag onto live topics, its messages byte for byte."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.utilities import remove_ros_args

from mdnet_ros.bags.reader import BagReader, RawMessage
from mdnet_ros.errors import DataError
from mdnet_ros.nodes.environment import ros_environment
from mdnet_ros.nodes.executors import executor_of, spinning
from mdnet_ros.nodes.raw import header_stamp, message_class, run_until_signal

#: Messages kept for a reliable subscriber that is slow.
_QUEUE = 10
#: Unanswered images in a row after which lockstep gives up.
_PATIENCE = 3


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
    """

    rate: float = 1.0
    loop: bool = False
    lockstep: str = ''
    lockstep_timeout: float = 10.0
    wait: float = 30.0
    topics: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.rate > 0:
            raise DataError(f'rate: expected more than 0, got {self.rate:g}')


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

    Args:
        node: whose publishers are used; its remappings hold.
        bag: open.
        settings: how to play.
        on_publish: told of each message just before it is published, with the reading of
            ``time.perf_counter_ns``.

    Raises:
        DataError: if a topic is not in the bag or its message type is not installed.
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
        names = settings.topics or tuple(types)
        for name in names:
            if name not in types:
                raise DataError(
                    f"bag '{bag.path}': no topic '{name}', it has {', '.join(types) or 'none'}"
                )
        if not names:
            raise DataError(f"bag '{bag.path}': has no topics to play")
        self._images = tuple(name for name in bag.image_topics() if name in names)
        self._publishers = {
            name: node.create_publisher(message_class(types[name]), name, QoSProfile(depth=_QUEUE))
            for name in names
        }
        self._answered = threading.Condition()
        self._answers: set[int] = set()
        if settings.lockstep:
            from sensor_msgs.msg import PointCloud2

            node.create_subscription(
                PointCloud2, settings.lockstep, self._on_answer, QoSProfile(depth=_QUEUE), raw=True
            )

    def play(self, stop: threading.Event | None = None) -> PlayReport:
        """Play until the end of the bag, or until stopped.

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
                    stop.wait(max(0.0, due - time.monotonic()))
                if stop.is_set():
                    break
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


def main(args: list[str] | None = None) -> int:
    """Play the bag named on the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog='player', description=__doc__)
    parser.add_argument('bag', help='rosbag2 folder, or a single .mcap or .db3 file')
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
    parser.add_argument('--topics', nargs='+', default=[], metavar='T', help='play these alone')
    argv = sys.argv if args is None else ['player', *args]
    options = parser.parse_args(remove_ros_args(argv)[1:])

    def work(stop: threading.Event) -> None:
        settings = PlaySettings(
            options.rate, options.loop, options.lockstep, wait=options.wait,
            topics=tuple(options.topics),
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
