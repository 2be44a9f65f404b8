"""The tracker node in this process: transitions and parameters, without images from outside."""

import cv2
import numpy as np
import pytest
import rclpy
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import PointField
from skimage import data

from mdnet_ros.features.backends.export import export
from mdnet_ros.features.detection import DetectionSettings
from mdnet_ros.nodes.executors import executors_of, spinning
from mdnet_ros.nodes.tracker_node import TrackerNode
from mdnet_ros.tracker.engine import Engine

WIDTH, HEIGHT = 160, 120
PICTURE = cv2.resize(data.camera(), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)


@pytest.fixture
def make_node(environment, weights):
    """make_node(namespace, **parameters) -> TrackerNode, unconfigured."""
    context = rclpy.Context()
    rclpy.init(context=context)
    nodes = []

    def make(namespace='', **parameters):
        values = {'weights': str(weights), 'device': 'cpu', 'max_keypoints': 256, **parameters}
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        nodes.append(
            TrackerNode(context=context, namespace=namespace, parameter_overrides=overrides)
        )
        return nodes[-1]

    yield make
    for node in nodes:
        node.close()
        node.destroy_node()
    rclpy.shutdown(context=context)


def configured(node):
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    return node


def set_all(node, **values):
    """Set parameters at once; returns the result."""
    return node.set_parameters_atomically([Parameter(n, value=v) for n, v in values.items()])


def count_keypoints(node):
    """How many keypoints the node's engine finds in a picture."""
    return len(node._engine.process(PICTURE, 1).frame.features)


def publishers(node):
    return [entity for entity in node._managed_entities if hasattr(entity, 'is_activated')]


def test_a_failed_activation_leaves_no_publisher_active(make_node):
    # rclpy refuses a subscription whose quality of service was set to what does not exist.
    node = configured(make_node(**{'qos_overrides./image.subscription.reliability': 'perhaps'}))
    assert node.trigger_activate() == TransitionCallbackReturn.FAILURE
    assert 'perhaps' in node.error
    assert publishers(node)
    assert not any(publisher.is_activated for publisher in publishers(node))
    working = configured(make_node())
    assert working.trigger_activate() == TransitionCallbackReturn.SUCCESS
    assert all(publisher.is_activated for publisher in publishers(working))


@pytest.fixture(scope='module')
def exported(weights, tmp_path_factory):
    """A file in which NMS and border are fixed."""
    out = tmp_path_factory.mktemp('exported') / 'network.torchscript'
    export(weights, out, 'torchscript', (HEIGHT, WIDTH), [PICTURE],
           settings=DetectionSettings(max_keypoints=256))
    return out


def test_a_refused_set_of_parameters_changes_nothing(make_node, exported):
    node = configured(make_node(weights=str(exported)))
    before, count = node.settings, count_keypoints(node)
    # Of these the first could be used; what the file cannot do is found last.
    result = set_all(node, max_keypoints=20, nms_radius=4)
    assert not result.successful
    assert 'was exported with 2, got 4' in result.reason
    assert node.settings == before
    assert node.get_parameter('max_keypoints').value == 256
    assert count_keypoints(node) == count
    # A mask that is none, beside a network that could be loaded.
    result = set_all(node, weights=str(exported), max_keypoints=20, mask='/nowhere.png')
    assert not result.successful
    assert 'no such file' in result.reason
    assert node.settings == before
    assert count_keypoints(node) == count
    # And it goes on as if nothing had been asked.
    assert set_all(node, max_keypoints=21, min_similarity=0.5).successful
    assert (node.settings.max_keypoints, node.settings.min_similarity) == (21, 0.5)
    assert count_keypoints(node) == 21


def test_parameters_set_before_the_network_is_loaded_hold_after_it(make_node):
    node = make_node()
    assert set_all(node, max_keypoints=31).successful
    configured(node)
    assert count_keypoints(node) == 31
    assert set_all(node, max_keypoints=33).successful
    assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    assert node.settings.max_keypoints == 33
    assert count_keypoints(configured(node)) == 33
    assert np.isfinite(node._engine.process(PICTURE, 2).frame.features.scores).all()


class ChangedMeanwhile(Engine):
    """Parameters are changed after each job was processed, before all of it is published."""

    def process_job(self, job):
        result = super().process_job(job)
        settings = self.configuration.settings
        encoding = 'int8' if settings.descriptor_encoding == 'float32' else 'float32'
        changed = settings.changed({'descriptor_encoding': encoding})
        self.apply(self.configuration.changed(changed))
        return result


def test_a_frame_is_published_with_the_settings_it_was_processed_with(make_node, connect):
    node = configured(make_node(namespace='meanwhile'))
    engine = node._engine = ChangedMeanwhile(node._engine.configuration)
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    client = connect(namespace='meanwhile')
    with spinning(*executors_of(node)):
        client.connect()
        for _ in range(4):
            before = engine.configuration.settings.descriptor_encoding
            datatype = client.exchange(topic='keypoints').fields[-1].datatype
            kinds = {PointField.FLOAT32: 'float32', PointField.INT8: 'int8'}
            assert kinds[datatype] == before
            assert engine.configuration.settings.descriptor_encoding != before
