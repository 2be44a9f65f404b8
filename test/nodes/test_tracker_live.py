"""One tracker process over DDS: outputs, order, faults and control while it runs."""

import cv2
import numpy as np
import pytest
import torch
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import DescribeParameters, SetParameters
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from mdnet_ros.features.network import MDNet, MDNetConfig
from mdnet_ros.features.weights import save_weights
from mdnet_ros.nodes.diagnostics import STEP
from mdnet_ros.nodes.messages import (
    read_correspondences,
    read_tracked,
    stamp_nanoseconds,
)


@pytest.fixture(scope='module')
def tracker(shared_tracker):
    return shared_tracker


@pytest.fixture(scope='module')
def client(tracker, connect):
    made = connect()
    made.listen('/diagnostics', DiagnosticArray)
    return made.connect()


def value_of(value):
    kinds = {
        bool: ('bool_value', ParameterType.PARAMETER_BOOL),
        int: ('integer_value', ParameterType.PARAMETER_INTEGER),
        float: ('double_value', ParameterType.PARAMETER_DOUBLE),
        str: ('string_value', ParameterType.PARAMETER_STRING),
    }
    field, kind = kinds[type(value)]
    return ParameterValue(type=kind, **{field: value})


def set_parameters(client, **values):
    """(successful, reason) of each."""
    request = SetParameters.Request(
        parameters=[Parameter(name=n, value=value_of(v)) for n, v in values.items()]
    )
    answer = client.call(SetParameters, 'tracker/set_parameters', request)
    return [(r.successful, r.reason) for r in answer.results]


def diagnostics(client):
    """(level, message, values) of a status of the tracker that knows what was answered before.

    A frame is counted a moment after it is answered, so the next status may come too early.
    """
    client.spin_for(0.5)
    client.received['/diagnostics'].clear()
    client.spin_until(lambda: client.received['/diagnostics'], what='diagnostics')
    status = client.received['/diagnostics'][-1].status[0]
    return status.level, status.message, {v.key: v.value for v in status.values}


def test_outputs_carry_the_stamp_and_frame_of_the_image(client):
    for nanoseconds in (1, 999_999_999, 123_456_789):
        stamp = stamp_nanoseconds(client.header()) // 10**9 * 10**9 + nanoseconds
        links = client.exchange(stamp_ns=stamp, frame_id='left_optical')
        keypoints = client.answer(stamp, 'keypoints')
        for message in (links, keypoints):
            assert stamp_nanoseconds(message.header) == stamp
            assert message.header.frame_id == 'left_optical'


def test_a_sliding_picture_is_tracked(client):
    client.call(Trigger, 'tracker/reset', Trigger.Request())
    frames, moves = [], []
    for index in range(5):
        stamp = client.send(client.picture(index))
        links = client.answer(stamp)
        frame = read_tracked(client.answer(stamp, 'keypoints'), links, (160, 120))
        frames.append(frame)
        moves.append(
            frame.features.keypoints[frame.correspondences.indices]
            - frame.correspondences.keypoints_prev
        )
        if index:
            assert (frame.correspondences.stamps_prev <= frames[-2].stamp_ns).all()
    assert len(frames[0].correspondences) == 0
    np.testing.assert_allclose(np.median(np.concatenate(moves[1:]), axis=0), [-2, 0], atol=0.3)
    assert frames[-1].ages.max() == 4
    np.testing.assert_allclose(
        np.linalg.norm(frames[-1].features.descriptors, axis=1), 1, atol=1e-5
    )


def test_a_burst_keeps_order_and_counts_what_it_drops(client):
    client.exchange()
    before = diagnostics(client)[2]
    client.clear()
    sent = [client.send() for _ in range(40)]
    client.answer(sent[-1])
    stamps = [stamp_nanoseconds(m.header) for m in client.received['correspondences']]
    assert stamps == sorted(stamps)
    assert set(stamps) <= set(sent)
    client.answer(sent[-1], 'keypoints')  # published beside the next frame, in the same order
    assert [stamp_nanoseconds(m.header) for m in client.received['keypoints']] == stamps
    after = diagnostics(client)[2]

    def difference(key):
        return int(after.get(key, 0)) - int(before.get(key, 0))

    assert difference('frames processed') == len(stamps)
    assert difference('frames received') == len(stamps) + difference('dropped: overload')
    assert difference('frames received') + difference('frames lost in transport') == 40


@pytest.mark.parametrize(
    ('fields', 'named'),
    [
        ({'encoding': 'jpeg2000'}, "encoding 'jpeg2000'"),
        ({'step': 12}, 'step'),
        ({'height': 0, 'width': 0}, '0x0'),
        ({'data': b'123'}, 'bytes of data'),
        ({'height': 20, 'width': 20, 'step': 60, 'data': bytes(1200)}, 'at least 32 px'),
    ],
    ids=['encoding', 'step', 'empty', 'truncated', 'small'],
)
def test_a_bad_frame_is_dropped_counted_and_named(client, tracker, fields, named):
    before = int(diagnostics(client)[2].get('dropped: bad image', 0))
    client.exchange()
    bad = client.send(**fields)
    values = {}

    def counted():
        values.update(diagnostics(client)[2])
        told = named in values.get('last bad image', '')
        return told and int(values.get('dropped: bad image', 0)) == before + 1

    client.spin_until(counted, what='the count of the bad frame')
    client.exchange()
    assert bad not in [stamp_nanoseconds(m.header) for m in client.received['correspondences']]
    assert 'frame dropped, bad image' in tracker.log()
    assert 'Traceback' not in tracker.log()


def test_a_stamp_going_back_begins_anew_and_is_served(client):
    now = stamp_nanoseconds(client.header())
    client.exchange(stamp_ns=now)
    assert len(read_correspondences(client.exchange(stamp_ns=now + 10**8)))
    assert len(read_correspondences(client.exchange(stamp_ns=now - 10**10))) == 0
    assert len(read_correspondences(client.exchange(stamp_ns=now - 10**10 + 10**8)))
    assert len(read_correspondences(client.exchange(stamp_ns=now + 10**11))) == 0
    values = diagnostics(client)[2]
    assert int(values['restarted: stamp went back']) >= 1
    assert int(values['restarted: stamp jumped']) >= 1


def test_repeated_stamps_are_served_and_counted(client):
    before = int(diagnostics(client)[2]['repeated stamps'])
    stamp = client.send()
    client.answer(stamp)
    client.clear()
    client.exchange(stamp_ns=stamp)
    assert int(diagnostics(client)[2]['repeated stamps']) == before + 1


def test_another_image_size_begins_anew(client):
    client.exchange()
    wide = np.tile(client.picture(), (2, 2, 1))
    assert len(read_correspondences(client.exchange(wide))) == 0
    assert len(read_correspondences(client.exchange(wide)))
    assert int(diagnostics(client)[2]['restarted: image size changed']) >= 1


def test_reset_forgets_tracks_but_not_ids(client):
    stamp = client.send()
    before = read_tracked(client.answer(stamp, 'keypoints'), client.answer(stamp))
    answer = client.call(Trigger, 'tracker/reset', Trigger.Request())
    assert answer.success
    stamp = client.send()
    after = read_tracked(client.answer(stamp, 'keypoints'), client.answer(stamp))
    assert not after.ages.any()
    assert after.track_ids.min() > before.track_ids.max()


def test_parameters_change_what_comes_out(client):
    assert set_parameters(
        client, max_keypoints=32, descriptor_encoding='int8', min_similarity=0.5
    ) == [(True, '')] * 3
    keypoints = client.exchange(topic='keypoints')
    assert 0 < keypoints.width <= 32
    descriptor = keypoints.fields[-1]
    assert (descriptor.name, descriptor.datatype, descriptor.count) == ('descriptor', 1, 32)
    assert set_parameters(client, descriptor_encoding='none')[0][0]
    assert client.exchange(topic='keypoints').fields[-1].name == 'age'
    assert all(
        done for done, _ in set_parameters(
            client, max_keypoints=256, descriptor_encoding='float32', min_similarity=0.0
        )
    )
    assert client.exchange(topic='keypoints').width > 32


def test_wrong_parameters_are_refused_with_a_reason(client, tmp_path):
    garbage = tmp_path / 'garbage.safetensors'
    garbage.write_bytes(b'\x00' * 1000)
    black = tmp_path / 'black.png'
    cv2.imwrite(str(black), np.zeros((10, 10), np.uint8))
    cases = {
        'max_keypoints': (0, 'max_keypoints'),
        'score_threshold': (1.5, 'score_threshold'),
        'max_side': (7, 'at least 32'),
        'descriptor_encoding': ('float64', 'float32, int8, none'),
        'device': ('tpu', 'tpu'),
        'weights': (str(garbage), 'not a valid weights file'),
        'mask': (str(black), 'black everywhere'),
        'qos_depth': (5, 'read-only'),
    }
    for name, (value, reason) in cases.items():
        ((done, why),) = set_parameters(client, **{name: value})
        assert not done, name
        assert reason in why, (name, why)
        assert '\n' not in why
    ((done, why),) = set_parameters(client, weights='/nowhere.safetensors')
    assert not done
    assert 'no such file' in why
    client.exchange()  # and goes on with what it had


def test_weights_are_reloaded_in_the_stream(client, weights, tmp_path):
    other = tmp_path / 'other.safetensors'
    torch.manual_seed(7)
    save_weights(MDNet(MDNetConfig(num_sets=3, dim=16, channels=(4, 8, 8, 8, 8))), other, {})
    stamp = client.send()
    before = read_tracked(client.answer(stamp, 'keypoints'), client.answer(stamp))
    assert set_parameters(client, weights=str(other)) == [(True, '')]
    stamp = client.send()
    after = read_tracked(client.answer(stamp, 'keypoints'), client.answer(stamp))
    assert after.features.descriptors.shape[1] == 16
    assert after.features.num_sets == 3
    assert after.track_ids.min() > before.track_ids.max()
    values = diagnostics(client)[2]
    assert values['weights'] == 'other'
    assert set_parameters(client, weights=str(weights)) == [(True, '')]
    assert len(values['weights sha256']) == 64


def test_nothing_is_found_outside_the_mask(client, tmp_path):
    mask = np.zeros((60, 80), np.uint8)
    mask[:, 40:] = 255
    path = tmp_path / 'mask.png'
    cv2.imwrite(str(path), mask)
    assert set_parameters(client, mask=str(path)) == [(True, '')]
    stamp = client.send()
    inside = read_tracked(client.answer(stamp, 'keypoints'), client.answer(stamp)).features
    assert len(inside)
    assert inside.keypoints[:, 0].min() > 76  # sub-pixel refinement may cross the edge a little
    assert set_parameters(client, mask='') == [(True, '')]
    stamp = client.send()
    anywhere = read_tracked(client.answer(stamp, 'keypoints'), client.answer(stamp)).features
    assert anywhere.keypoints[:, 0].min() < 70


def test_overlays_come_at_their_own_rate(client):
    assert set_parameters(client, overlay_max_rate=0.001) == [(True, '')]
    subscription = client.listen('overlay', Image)

    def drawn():
        client.exchange()
        return client.received['overlay']

    client.spin_until(drawn, what='an overlay')
    for _ in range(5):
        client.exchange()
    client.spin_for(0.3)
    assert len(client.received['overlay']) == 1
    assert set_parameters(client, overlay_max_rate=0.0) == [(True, '')]
    stamps = [client.send()]
    for _ in range(3):
        client.answer(stamps[-1], 'overlay')
        stamps.append(client.send())
    client.answer(stamps[-1], 'overlay')
    assert [stamp_nanoseconds(m.header) for m in client.received['overlay'][1:]] == stamps
    client.node.destroy_subscription(subscription)


def test_parameters_describe_themselves(client):
    answer = client.call(
        DescribeParameters, 'tracker/describe_parameters',
        DescribeParameters.Request(names=['score_threshold', 'max_gap', 'qos_depth', 'precision']),
    )
    threshold, gap, depth, precision = answer.descriptors
    assert (threshold.floating_point_range[0].from_value,
            threshold.floating_point_range[0].to_value) == (0.0, 1.0)
    assert gap.integer_range[0].to_value == 100
    assert depth.read_only
    assert not gap.read_only
    assert 'bf16' in precision.additional_constraints
    assert all(d.description for d in answer.descriptors)


def test_diagnostics_tell_rate_latency_counts_and_model(client, tracker):
    for _ in range(5):
        client.exchange()
    level, message, values = diagnostics(client)
    assert values['state'] == 'active'
    assert values['device'] == 'cpu'
    assert values['weights'] == 'random'
    assert values['image backend'] in ('opencv', 'cv_bridge')
    assert values['image topic'] == '/cam/image'
    assert int(values['keypoints']) > 0
    assert int(values['matches']) >= int(values['inliers'])
    p50, p95, p99 = (float(v) for v in values['latency p50/p95/p99 (ms)'].split('/'))
    assert 0 < p50 <= p95 <= p99
    assert 0 < float(values[STEP].split('/')[0]) < p99  # a part of the latency
    assert float(values['output rate (Hz)']) > 0
    counted = int(values['frames processed']) + int(values['frames dropped'])
    assert counted == int(values['frames received'])
    assert 'images are converted by' in tracker.log()


def test_refinement_is_switched_live_and_its_fields_are_published(client):
    assert set_parameters(client, refinement='affine')[0][0] is False
    assert set_parameters(client, refinement='flow', max_gap=3) == [(True, ''), (True, '')]
    client.call(Trigger, 'tracker/reset', Trigger.Request())
    try:
        frames = []
        for index in range(6):
            stamp = client.send(client.picture(index))
            links, keypoints = client.answer(stamp), client.answer(stamp, 'keypoints')
            for message in (links, keypoints):
                assert [f.name for f in message.fields][-2:] == ['refined', 'missed']
            frames.append(read_tracked(keypoints, links, (160, 120)))
        last = frames[-1]
        rows = last.correspondences.indices
        moves = last.features.keypoints[rows] - last.correspondences.keypoints_prev
        good = last.refined[rows]
        assert good.any()
        assert not frames[0].refined.any()
        np.testing.assert_allclose(np.median(moves[good], axis=0), [-2, 0], atol=0.05)
        assert any((frame.missed > 0).any() for frame in frames)
    finally:
        assert all(ok for ok, _ in set_parameters(client, refinement='none', max_gap=2))
    links = client.exchange()
    assert 'refined' not in [field.name for field in links.fields]
