"""What VINS-Mono's and VINS-Fusion's estimators make of the node's messages.

The two readers below do what ``feature_callback`` and ``restart_callback`` of the estimators do
with a message (VINS-Mono: vins_estimator/src/estimator_node.cpp, VINS-Fusion:
vins_estimator/src/rosNodeTest.cpp) and what their feature managers rely on: that the observations
of an id are those of consecutive messages.
"""

from __future__ import annotations

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, PointCloud
from std_msgs.msg import Bool

from mdnet_ros.nodes.messages import stamp_nanoseconds

FOCAL, CENTRE = 100.0, (79.5, 59.5)
STEP_NS = 10**8
NUM_OF_CAM = 1


class Estimator:
    """Features by id; a feature is (first message, [x, y, z, u, v, vx, vy of each message])."""

    def __init__(self):
        self.clear()

    def clear(self):
        self.features: dict[int, tuple[int, list[np.ndarray]]] = {}
        self.count = 0
        self.last_seconds = None

    def restart_callback(self, message):
        if message.data:
            self.clear()

    def input(self, message, frame):
        seconds = message.header.stamp.sec + message.header.stamp.nanosec * 1e-9
        assert self.last_seconds is None or seconds > self.last_seconds
        for track, observations in frame.items():
            ((camera, values),) = observations  # one camera: one observation
            assert camera == 0
            start, seen = self.features.setdefault(track, (self.count, []))
            # endFrame() is taken for start_frame + size - 1.
            assert start + len(seen) == self.count, f'{track} was away and came back'
            seen.append(values)
        self.count += 1
        self.last_seconds = seconds


class VinsMono(Estimator):
    layout = 'mono'

    def __init__(self):
        super().__init__()
        self.init_feature = False

    def feature_callback(self, message):
        if not self.init_feature:
            self.init_feature = True
            return
        frame: dict[int, list] = {}
        channels = message.channels
        for i, point in enumerate(message.points):
            v = int(channels[0].values[i] + 0.5)
            assert point.z == 1
            values = [point.x, point.y, point.z, *(channels[n].values[i] for n in (1, 2, 3, 4))]
            frame.setdefault(v // NUM_OF_CAM, []).append((v % NUM_OF_CAM, np.array(values)))
        self.input(message, frame)


class VinsFusion(Estimator):
    layout = 'fusion'

    def feature_callback(self, message):
        frame: dict[int, list] = {}
        channels = message.channels
        for i, point in enumerate(message.points):
            track = int(channels[0].values[i])  # cut off, not rounded
            camera = int(channels[1].values[i])
            if len(channels) > 5:
                assert [channels[n].values[i] for n in (6, 7, 8)] == [0, 0, 0]
            assert point.z == 1
            values = [point.x, point.y, point.z, *(channels[n].values[i] for n in (2, 3, 4, 5))]
            frame.setdefault(track, []).append((camera, np.array(values)))
        self.input(message, frame)


@pytest.mark.parametrize('kind', [VinsMono, VinsFusion], ids=lambda kind: kind.layout)
def test_an_estimator_takes_what_the_node_publishes(kind, start_tracker, connect):
    name = f'vins_{kind.layout}'
    start_tracker(namespace=name, vins_layout=kind.layout, restart_after=5.0, max_gap=2)
    client = connect(namespace=name)
    client.listen('tracks', PointCloud)
    client.listen('restart', Bool)
    client.connect()
    client.infos.publish(
        CameraInfo(
            width=160, height=120, distortion_model='plumb_bob', d=[0.0] * 5,
            k=[FOCAL, 0.0, CENTRE[0], 0.0, FOCAL, CENTRE[1], 0.0, 0.0, 1.0],
        )
    )
    client.spin_for(0.5)
    client.clear()
    estimator = kind()
    taken = 0

    def feed(index, stamp, picture=None, awaited='tracks'):
        """Publish an image and give the estimator what comes of it, restarts first."""
        client.exchange(client.picture(index) if picture is None else picture, stamp_ns=stamp)
        client.spin_until(lambda: client.received[awaited], what=awaited)
        client.spin_for(0.2)
        heard = [m for m in client.received['tracks'] if stamp_nanoseconds(m.header) == stamp]
        for message in client.received['restart']:
            estimator.restart_callback(message)
        restarts = len(client.received['restart'])
        client.clear()
        for message in heard:
            estimator.feature_callback(message)
        return len(heard), restarts

    start = stamp_nanoseconds(client.header()) + 100 * 10**9  # a jump: all begins anew
    assert feed(0, start, awaited='restart') == (0, 1)  # the first frame is not published
    for index in range(1, 7):
        # One frame without anything to see: tracks are interrupted there and found again.
        blank = np.full_like(client.picture(0), 127) if index == 4 else None
        heard, restarts = feed(index, start + index * STEP_NS, blank)
        assert (heard, restarts) == (1, 0)
        taken += heard
    assert estimator.count == taken - (kind is VinsMono)  # which drops the first it hears
    lengths = [len(seen) for _, seen in estimator.features.values()]
    assert max(lengths) >= 2
    assert sum(first + len(seen) == estimator.count
               for first, seen in estimator.features.values()) > 20  # found again after the blank
    for _, seen in estimator.features.values():
        values = np.array(seen)
        np.testing.assert_allclose(
            values[:, :2], (values[:, 3:5] - CENTRE) / FOCAL, atol=1e-5
        )
        # The velocity is that from one message to the next.
        np.testing.assert_allclose(
            values[1:, 5:7], np.diff(values[:, :2], axis=0) / (STEP_NS * 1e-9), atol=1e-3
        )
    ids = set(estimator.features)
    # A pause longer than restart_after: the estimator is told, and no id goes on.
    assert feed(7, start + 60 * 10**9, awaited='restart') == (0, 1)
    assert not estimator.features
    assert feed(8, start + 60 * 10**9 + STEP_NS) == (1, 0)
    assert estimator.features
    assert not ids & set(estimator.features)
