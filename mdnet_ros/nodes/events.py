"""Callbacks for events of publishers and subscriptions, wherever the distribution has them.

The executor asks each handler at each message that wakes it, in Python, and rclpy makes some for
every topic unless told not to: they cost more than the messages. So the nodes have none that they
do not need.
"""

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

__all__ = ['PublisherEventCallbacks', 'SubscriptionEventCallbacks']
