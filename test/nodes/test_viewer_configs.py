"""The configurations for RViz and Foxglove name what a running node publishes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

CONFIG = Path(__file__).resolve().parents[2] / 'config'
CLOUD, IMAGE = 'sensor_msgs/msg/PointCloud2', 'sensor_msgs/msg/Image'
RVIZ_TYPES = {
    'rviz_default_plugins/Image': IMAGE, 'rviz_default_plugins/PointCloud2': CLOUD,
}


def rviz_displays() -> list[dict]:
    document = yaml.safe_load((CONFIG / 'tracker.rviz').read_text())
    return document['Visualization Manager']['Displays']


def foxglove_layout() -> dict:
    return json.loads((CONFIG / 'foxglove_layout.json').read_text())


@pytest.fixture(scope='module')
def published(shared_tracker, connect):
    """Topic, relative to the node's namespace, to its type and the fields of its clouds."""
    client = connect().connect()
    client.spin_until(lambda: client.node.count_publishers('/diagnostics'), what='diagnostics')
    client.exchange(topic='keypoints')
    client.spin_for(0.2)
    types = {
        re.sub(r'^/cam/', '/', name): kinds
        for name, kinds in client.node.get_topic_names_and_types()
    }
    fields = {
        f'/{topic}': {field.name for field in client.received[topic][-1].fields}
        for topic in ('keypoints', 'correspondences')
    }
    return types, fields


def test_rviz_shows_the_overlay_and_the_clouds(published):
    types, fields = published
    shown = {display['Topic']['Value']: display for display in rviz_displays()}
    assert set(shown) == {'/overlay', '/keypoints', '/correspondences'}
    for topic, display in shown.items():
        assert types[topic] == [RVIZ_TYPES[display['Class']]]
        if 'Channel Name' in display:
            assert display['Channel Name'] in fields[topic]


def test_foxglove_shows_them_too(published):
    types, fields = published
    panels = foxglove_layout()['configById']
    assert types[panels['Image!overlay']['imageMode']['imageTopic']] == [IMAGE]
    diagnostics = panels['DiagnosticSummary!tracker']['topicToRender']
    assert types[diagnostics] == ['diagnostic_msgs/msg/DiagnosticArray']
    for topic, look in panels['3D!keypoints']['topics'].items():
        assert types[topic] == [CLOUD]
        assert look['colorField'] in fields[topic]
    for path in panels['Plot!counts']['paths']:
        topic, _, member = path['value'].partition('.')
        assert types[topic] == [CLOUD]
        assert member == 'width'


def test_foxglove_lays_out_each_panel_once():
    layout = foxglove_layout()

    def leaves(place):
        if isinstance(place, str):
            return [place]
        return leaves(place['first']) + leaves(place['second'])

    assert sorted(leaves(layout['layout'])) == sorted(layout['configById'])
