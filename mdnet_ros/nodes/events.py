"""rclpy's callbacks for events of publishers and subscriptions, in any ROS distribution.

The executor checks each event handler, in Python, whenever a message wakes it, and by default rclpy
creates some handlers for every topic. They would cost more than the messages, so the nodes create
only those that they need.
"""

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

__all__ = ['PublisherEventCallbacks', 'SubscriptionEventCallbacks']
