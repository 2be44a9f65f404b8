"""A node that is given rectified images and the raw camera's distortion says so."""

import numpy as np
import pytest

pytest.importorskip('rclpy')

from sensor_msgs.msg import CameraInfo, Image  # noqa: E402

WIDTH, HEIGHT = 160, 120
K = np.array([[100.0, 0, WIDTH / 2], [0, 100.0, HEIGHT / 2], [0, 0, 1.0]])
SAID = r"/image_rect' holds rectified images by its name, .* set rectified to use P"


def calibration(d):
    return CameraInfo(
        width=WIDTH, height=HEIGHT, distortion_model='plumb_bob', d=d, k=K.ravel().tolist(),
        r=np.eye(3).ravel().tolist(), p=np.column_stack([K, np.zeros(3)]).ravel().tolist(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ('distortion', 'rectified', 'said'),
    [(-0.2, False, True), (0.0, False, False), (-0.2, True, False)],
    ids=['distorted', 'without distortion', 'P is used'],
)
def test_rectified_images_with_raw_calibration(
    start_tracker, connect, distortion, rectified, said
):
    client = connect(namespace='rectified')
    client.node.destroy_publisher(client.images)
    client.images = client.node.create_publisher(Image, 'image_rect', 10)
    tracker = start_tracker(
        '-r', 'image:=image_rect', namespace='rectified', rectified=rectified
    )
    client.connect()
    client.infos.publish(calibration([distortion, 0.0, 0.0, 0.0, 0.0]))
    if said:
        tracker.wait_for_log(SAID)
    else:
        # A calibration that cannot be used, sent later, is answered in the log.
        unusable = calibration([0.0] * 5)
        unusable.k[0] = unusable.p[0] = float('nan')
        client.infos.publish(unusable)
        tracker.wait_for_log('camera_info: expected')
        assert 'holds rectified images' not in tracker.log()
