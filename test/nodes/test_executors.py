"""Quick callbacks have an executor to themselves."""

import threading

import pytest
import rclpy
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from std_msgs.msg import Int32
from std_srvs.srv import Trigger

from mdnet_ros.nodes.executors import QuickGroup, executors_of


class Served:
    """A node with a quick subscription and a service that takes until it is let go."""

    def __init__(self, context):
        self.node = rclpy.create_node('served', namespace='executors', context=context)
        self.numbers, self.threads = [], set()
        self.busy, self.release = threading.Event(), threading.Event()
        self.node.create_service(
            Trigger, 'slow', self._slow, callback_group=MutuallyExclusiveCallbackGroup()
        )
        self.executors = executors_of(self.node)
        self.running = [
            threading.Thread(target=executor.spin, daemon=True) for executor in self.executors
        ]
        for thread in self.running:
            thread.start()

    def subscribe(self):
        return self.node.create_subscription(
            Int32, 'number', self._number, 10, callback_group=QuickGroup()
        )

    def _number(self, message):
        self.numbers.append(message.data)
        self.threads.add(threading.current_thread())

    def _slow(self, request, response):
        self.busy.set()
        response.success = self.release.wait(60.0)
        return response

    def close(self):
        self.release.set()
        for executor in self.executors:
            executor.shutdown(timeout_sec=1.0)
        for thread in self.running:
            thread.join(5.0)
        assert not any(thread.is_alive() for thread in self.running)
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
    assert node.threads == {node.running[0]}
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
