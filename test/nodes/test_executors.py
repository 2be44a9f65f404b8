"""Quick callbacks have an executor to themselves, and executors end in good order."""

import random
import sys
import threading
import time

import pytest
import rclpy
from rclpy import executors
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from std_msgs.msg import Int32
from std_srvs.srv import Trigger

from mdnet_ros.nodes.executors import QuickGroup, executors_of, spinning


class Served:
    """A node with a quick subscription and a service that takes until it is let go."""

    def __init__(self, context):
        self.node = rclpy.create_node('served', namespace='executors', context=context)
        self.numbers, self.threads = [], set()
        self.busy, self.release = threading.Event(), threading.Event()
        self.node.create_service(
            Trigger, 'slow', self._slow, callback_group=MutuallyExclusiveCallbackGroup()
        )
        self.spinning = spinning(*executors_of(self.node))
        self.spinning.__enter__()

    def subscribe(self):
        return self.node.create_subscription(
            Int32, 'number', self._number, 10, callback_group=QuickGroup()
        )

    def _number(self, message):
        self.numbers.append(message.data)
        self.threads.add(threading.current_thread().name)

    def _slow(self, request, response):
        self.busy.set()
        response.success = self.release.wait(60.0)
        return response

    def close(self):
        self.release.set()
        self.spinning.__exit__(None, None, None)
        self.node.destroy_node()


@pytest.fixture
def served(connect):
    """Beside a client, which has a context of its own to spin."""
    client = connect(namespace='executors')
    made = Served(client.node.context)
    yield made, client
    made.close()


def test_a_slow_service_does_not_hold_quick_callbacks_up(served):
    node, client = served
    node.subscribe()  # while the executors spin: they learn of it
    numbers = client.node.create_publisher(Int32, 'number', 10)
    client.spin_until(lambda: numbers.get_subscription_count() == 1)
    slow = client.node.create_client(Trigger, 'slow')
    client.spin_until(slow.service_is_ready)
    answer = slow.call_async(Trigger.Request())
    client.spin_until(node.busy.is_set, what='the slow service')
    for number in range(5):
        numbers.publish(Int32(data=number))
        client.spin_until(lambda wanted=number + 1: len(node.numbers) == wanted)
    assert node.numbers == list(range(5))
    assert node.threads == {'executor 0'}
    assert not answer.done()
    node.release.set()
    client.spin_until(answer.done)
    assert answer.result().success


def test_subscriptions_come_and_go_while_they_spin(served):
    node, client = served
    numbers = client.node.create_publisher(Int32, 'number', 10)
    for number in range(3):
        subscription = node.subscribe()
        client.spin_until(lambda: numbers.get_subscription_count() == 1)
        numbers.publish(Int32(data=number))
        client.spin_until(lambda wanted=number: node.numbers[-1:] == [wanted])
        node.node.destroy_subscription(subscription)
        client.spin_until(lambda: numbers.get_subscription_count() == 0)


@pytest.fixture
def hesitant_rclpy():
    """Threads that now and then pause between two lines of rclpy's executors."""
    chance = random.Random(0)

    def hesitate(frame, event, argument):
        if event == 'line' and chance.random() < 0.03:
            time.sleep(0.01 * chance.random())
        return hesitate

    def trace(frame, event, argument):
        return hesitate if frame.f_code.co_filename == executors.__file__ else None

    before, before_all = sys.gettrace(), threading.gettrace()
    threading.settrace(trace)
    sys.settrace(trace)
    yield
    sys.settrace(before)
    threading.settrace(before_all)


def test_they_end_in_good_order_at_any_moment(connect, hesitant_rclpy):
    """By Executor.shutdown they would end with an AttributeError four times in ten."""
    context = connect(namespace='ending').node.context
    for number in range(20):
        node = rclpy.create_node(f'ending_{number}', context=context)
        node.create_timer(0.002, lambda: None)
        node.create_timer(0.002, lambda: None, callback_group=QuickGroup())
        with spinning(*executors_of(node)):
            time.sleep(0.003 * number)
        names = [thread.name for thread in threading.enumerate()]
        assert not any(name.startswith('executor') for name in names)
        node.destroy_node()


def test_what_a_callback_raises_ends_them_and_is_told(connect):
    node = rclpy.create_node('failing', context=connect(namespace='failing').node.context)

    def fail():
        raise ValueError('of the callback')

    node.create_timer(0.01, fail, callback_group=QuickGroup())
    stop = threading.Event()
    told = pytest.raises(ValueError, match='of the callback')
    with told, spinning(*executors_of(node), stop=stop):
        assert stop.wait(60.0)
    node.destroy_node()
