"""Structured tables of the PointCloud2 outputs."""

from dataclasses import replace

import numpy as np
import pytest

from mdnet_ros.data.pointcloud import CloudField, cloud_fields, cloud_table
from mdnet_ros.errors import DataError
from mdnet_ros.features.types import Correspondences, Features, TrackedFrame
from mdnet_ros.tracker.clouds import (
    CORRESPONDENCE_DTYPE,
    correspondence_table,
    correspondences_of_table,
    features_of_table,
    keypoint_table,
    tracked_of_tables,
)

STAMP = 1_700_000_000_123_456_789


def frame(n=50, m=20, dim=64, seed=0):
    rng = np.random.default_rng(seed)
    descriptors = rng.normal(size=(n, dim)).astype(np.float32)
    return TrackedFrame(
        Features(
            rng.uniform(0, 640, (n, 2)).astype(np.float32),
            rng.uniform(0, 1, n).astype(np.float32),
            np.sort(rng.integers(0, 2, n)).astype(np.int32),
            descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True),
            (640, 480),
            2,
        ),
        rng.permutation(np.arange(2**25, 2**25 + n)),
        rng.integers(0, 9, n).astype(np.int32),
        Correspondences(
            rng.permutation(n)[:m],
            rng.permutation(n)[:m],
            rng.uniform(0, 640, (m, 2)).astype(np.float32),
            STAMP - rng.integers(1, 3 * 10**9, m),
            rng.uniform(-1, 1, m).astype(np.float32),
            rng.uniform(size=m) < 0.5,
        ),
        STAMP,
    )


def through_bytes(table):
    return cloud_table(
        cloud_fields(table.dtype), len(table), table.dtype.itemsize, table.tobytes()
    )


@pytest.mark.parametrize(('n', 'm'), [(50, 20), (0, 0), (1, 0)])
def test_a_frame_comes_back_as_it_was(n, m):
    sent = frame(n, m)
    got = tracked_of_tables(
        through_bytes(keypoint_table(sent)),
        through_bytes(correspondence_table(sent)),
        STAMP,
        (640, 480),
    )
    for name in ('keypoints', 'scores', 'sets', 'descriptors'):
        np.testing.assert_array_equal(getattr(got.features, name), getattr(sent.features, name))
        assert getattr(got.features, name).dtype == getattr(sent.features, name).dtype
    np.testing.assert_array_equal(got.track_ids, sent.track_ids)
    np.testing.assert_array_equal(got.ages, sent.ages)
    for name in vars(sent.correspondences):
        np.testing.assert_array_equal(
            getattr(got.correspondences, name), getattr(sent.correspondences, name)
        )


def test_int8_descriptors_keep_their_direction():
    sent = frame()
    table = through_bytes(keypoint_table(sent, 'int8'))
    assert table.dtype['descriptor'].base == np.int8
    got = features_of_table(table).descriptors
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-6)
    assert (got * sent.features.descriptors).sum(axis=1).min() > 0.9995


def test_descriptors_can_be_left_out():
    table = through_bytes(keypoint_table(frame(), 'none'))
    assert 'descriptor' not in table.dtype.names
    assert features_of_table(table).descriptors.shape == (50, 0)
    with pytest.raises(ValueError, match='float32, int8, none'):
        keypoint_table(frame(), 'float16')  # type: ignore[arg-type]


def test_track_ids_wrap_at_32_bits():
    sent = frame(3, 0)
    sent = replace(sent, track_ids=np.array([2**32 - 1, 2**32, 2**33 + 5]))
    np.testing.assert_array_equal(keypoint_table(sent)['track_id'], [2**32 - 1, 0, 5])


def test_stamps_before_1970_keep_their_nanoseconds():
    sent = frame(1, 1)
    early = replace(sent.correspondences, stamps_prev=np.array([-1]))
    table = correspondence_table(replace(sent, correspondences=early))
    assert (table['stamp_prev_sec'][0], table['stamp_prev_nanosec'][0]) == (-1, 999_999_999)
    assert correspondences_of_table(table).stamps_prev[0] == -1


def test_layout_is_the_documented_one():
    fields = {f.name: f for f in cloud_fields(keypoint_table(frame(dim=128)).dtype)}
    assert list(fields) == ['x', 'y', 'z', 'score', 'set', 'track_id', 'age', 'descriptor']
    assert fields['track_id'] == CloudField('track_id', 20, 6, 1)
    assert fields['descriptor'] == CloudField('descriptor', 28, 7, 128)
    assert {f.offset % 4 for f in cloud_fields(CORRESPONDENCE_DTYPE)} == {0}


def test_big_endian_clouds_are_read():
    data = np.array([(1.5, 7)], [('x', '>f4'), ('track_id', '>u4')])
    table = cloud_table(
        [CloudField('x', 0, 7, 1), CloudField('track_id', 4, 6, 1)], 1, 8, data.tobytes(), True
    )
    assert (table['x'][0], table['track_id'][0]) == (1.5, 7)


def test_broken_clouds_are_named():
    table = keypoint_table(frame())
    with pytest.raises(DataError, match='50 points'):
        cloud_table(cloud_fields(table.dtype), 50, table.dtype.itemsize, table.tobytes()[:-1])
    with pytest.raises(DataError, match='cannot be read'):
        cloud_table([CloudField('x', 0, 99, 1)], 1, 4, b'1234')
    with pytest.raises(DataError, match='cannot be read'):
        cloud_table([CloudField('x', 8, 7, 1)], 1, 4, b'1234')
    with pytest.raises(DataError, match='missing: age'):
        features_of_table(table[[name for name in table.dtype.names if name != 'age']])
    links = correspondence_table(frame())
    links['index'][3] = 99
    with pytest.raises(DataError, match='50 keypoints'):
        tracked_of_tables(table, links, 0)


def with_refinement(n=50, m=20):
    plain, rng = frame(n, m), np.random.default_rng(1)
    return replace(
        plain, refined=rng.uniform(size=n) < 0.5, missed=rng.integers(0, 3, n).astype(np.int32)
    )


@pytest.mark.parametrize('descriptors', ['float32', 'int8', 'none'])
def test_refinement_adds_fields_at_the_end(descriptors):
    sent = with_refinement()
    plain = replace(sent, refined=None, missed=None)
    for table, without in (
        (keypoint_table(sent, descriptors), keypoint_table(plain, descriptors)),
        (correspondence_table(sent), correspondence_table(plain)),
    ):
        names = without.dtype.names
        assert table.dtype.names == (*names, 'refined', 'missed')
        for name in names:  # at the same offset, with the same content
            assert table.dtype.fields[name] == without.dtype.fields[name]
            np.testing.assert_array_equal(table[name], without[name])
    links = correspondence_table(sent)
    np.testing.assert_array_equal(links['refined'], sent.refined[sent.correspondences.indices])
    np.testing.assert_array_equal(links['missed'], sent.missed[sent.correspondences.indices])


def test_refinement_comes_back_from_the_messages():
    for sent in (with_refinement(), frame()):
        got = tracked_of_tables(
            through_bytes(keypoint_table(sent)), through_bytes(correspondence_table(sent)), STAMP
        )
        if sent.refined is None:
            assert got.refined is None
            assert got.missed is None
        else:
            np.testing.assert_array_equal(got.refined, sent.refined)
            np.testing.assert_array_equal(got.missed, sent.missed)
            assert (got.refined.dtype, got.missed.dtype) == (bool, np.int32)
