"""Files of true poses as people write them, and the times they belong to."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from evo.tools import file_interface

from mdnet_ros.data.poses import Pose, Trajectory, quaternion_of_rotation, rotation_of_quaternion
from mdnet_ros.errors import DataError
from mdnet_ros.evaluation.replay.ground_truth import load_ground_truth, read_extrinsics
from mdnet_ros.evaluation.tracks.truth import GroundTruthError

START = 1_403_636_579_763_555_527
STAMPS = [START + i * 50_000_000 for i in range(12)]


def track():
    rng = np.random.default_rng(1)
    quaternions = rng.normal(size=(len(STAMPS), 4))
    return Trajectory(
        np.array(STAMPS), np.stack([rotation_of_quaternion(*q) for q in quaternions]),
        rng.normal(size=(len(STAMPS), 3)),
    )


TRUTH = track()


def seconds(stamp):
    return f'{stamp // 10**9}.{stamp % 10**9:09d}'


def tum(stamp=seconds, separator=' ', w_first=False):
    lines = []
    for stamp_ns, r, t in zip(STAMPS, TRUTH.rotations, TRUTH.translations, strict=True):
        x, y, z, w = quaternion_of_rotation(r)
        numbers = [*t, *((w, x, y, z) if w_first else (x, y, z, w))]
        lines.append(separator.join([stamp(stamp_ns), *(f'{v:.12f}' for v in numbers)]))
    return lines


def kitti(last_row=False):
    return [
        ' '.join(f'{v:.12e}' for v in [*np.c_[r, t].ravel(), *([0, 0, 0, 1] if last_row else [])])
        for r, t in zip(TRUTH.rotations, TRUTH.translations, strict=True)
    ]


FILES = {
    'as_it_should_be': '\n'.join(tum()) + '\n',
    'blank_line_at_end': '\n'.join(tum()) + '\n\n',
    'blank_lines_between': '\n\n'.join(tum()),
    'two_spaces': '\n'.join(tum(separator='  ')),
    'tabs': '\n'.join(tum(separator='\t')),
    'space_at_line_end': ' \n'.join(tum()) + ' \n',
    'spaces_before': '\n'.join(f'   {line}' for line in tum()),
    'windows': '\r\n'.join(tum()) + '\r\n',
    'byte_order_mark': '\ufeff' + '\n'.join(tum()),
    'header_line': 'timestamp tx ty tz qx qy qz qw\n' + '\n'.join(tum()),
    'comments': '# written by hand\n% and by Matlab\n' + '\n# in between\n'.join(tum()),
    'commas_and_seconds': '\n'.join(tum(separator=', ')),
    'scalar_first_by_its_header': '#timestamp tx ty tz qw qx qy qz\n' + '\n'.join(
        tum(w_first=True)
    ),
    'scalar_first_by_the_names_of_ros': ','.join([
        'time', *(f'position.{n}' for n in 'xyz'), *(f'orientation.{n}' for n in 'wxyz')
    ]) + '\n' + '\n'.join(tum(separator=',', w_first=True)),
    'euroc_scalar_last_by_its_header': 't,x,y,z,rot_x,rot_y,rot_z,rot_w\n' + '\n'.join(
        tum(stamp=str, separator=',')
    ),
    'nanoseconds': '\n'.join(tum(stamp=str)),
    'microseconds': '\n'.join(tum(stamp=lambda s: f'{s // 1000}.{s % 1000:03d}')),
    'milliseconds': '\n'.join(tum(stamp=lambda s: f'{s / 10**6:.6f}')),
    'not_sorted': '\n'.join(tum()[::-1]),
    'stamps_twice': '\n'.join(line for line in tum() for _ in range(2)),
    'kitti': '\n'.join(kitti()) + '\n',
    'kitti_blank_line_at_end': '\n'.join(kitti()) + '\n\n',
    'kitti_4x4': '\n'.join(kitti(last_row=True)),
    'euroc': '\n'.join([
        '#timestamp [ns],p_x [m],p_y [m],p_z [m],q_w [],q_x [],q_y [],q_z [],v_x',
        *(f'{line},0.5' for line in tum(stamp=str, separator=',', w_first=True)),
    ]),
    'euroc_without_header': '\n'.join(tum(stamp=str, separator=',', w_first=True)),
}  # fmt: skip


@pytest.mark.parametrize('name', FILES)
def test_files_as_people_write_them(name, tmp_path):
    path = tmp_path / f'{name}.txt'
    path.write_text(FILES[name], encoding='utf-8', newline='')
    found = load_ground_truth(path, STAMPS)
    assert found.skipped == 0
    # Milliseconds were written by way of a float.
    assert np.abs(found.stamps_ns - STAMPS).max() <= (1000 if name == 'milliseconds' else 0)
    np.testing.assert_allclose(found.rotations, TRUTH.rotations, atol=1e-9)
    np.testing.assert_allclose(found.translations, TRUTH.translations, atol=1e-9)
    assert found.body_frame == ('body' if name.startswith('euroc') else '')


def test_a_utf16_file_of_powershell(tmp_path):
    path = tmp_path / 'poses.txt'
    path.write_text('\n'.join(tum()), encoding='utf-16')
    assert load_ground_truth(path, STAMPS).stamps_ns.tolist() == STAMPS


@pytest.mark.parametrize('lost', ['nan ' * 7, 'inf 0 0 0 0 0 1', '1 2 3 0 0 0 0'])
def test_lost_poses_are_left_out_and_counted(tmp_path, lost):
    lines = tum()
    lines[3] = f'{seconds(STAMPS[3])} {lost}'
    (tmp_path / 'poses.txt').write_text('\n'.join(lines))
    found = load_ground_truth(tmp_path / 'poses.txt', STAMPS)
    assert (len(found), found.skipped) == (11, 1)
    assert STAMPS[3] not in found.stamps_ns


def test_lost_poses_of_kitti_keep_the_others_in_their_place(tmp_path):
    lines = kitti()
    lines[3] = ' '.join(['nan'] * 12)
    (tmp_path / 'poses.txt').write_text('\n'.join(lines))
    found = load_ground_truth(tmp_path / 'poses.txt', STAMPS)
    assert found.stamps_ns.tolist() == STAMPS[:3] + STAMPS[4:]
    np.testing.assert_allclose(found.translations[3:], TRUTH.translations[4:])


MIRRORED = ' '.join(map(str, [-1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0]))


@pytest.mark.parametrize(
    ('content', 'complaint'),
    [
        ('', 'expected lines of 8'),
        ('# only a comment\n', 'expected lines of 8'),
        ('1 2 3\n', 'line 1: expected lines of 8'),
        ('a b c d e f g h\n', 'expected lines of 8'),
        ('1 0 0 0 0 0 0 1\n\n# c\n2 0 0 0 0 0 one 1\n', "line 4: could not convert .*'one'"),
        ('1 0 0 0 0 0 0 1\n2 0 0\n', 'line 2: expected 8 numbers as in the lines before, got 3'),
        ('1 0 0 0 0 0 0 1\nx 0 0 0 0 0 0 1\n', 'line 2: expected numbers'),
        ('1 0 0 0 0 0 0 1\nnan 0 0 0 0 0 0 1\n', 'line 2: expected a time'),
        ('1e99 0 0 0 0 0 0 1\n', 'line 1: expected a time'),
        ('1e999999999 0 0 0 0 0 0 1\n', 'line 1: expected a time'),
        ('1 0 0 0 0 0 0 1\n2 0 0 0 5 6 7 8\n', 'line 2: expected a quaternion of length 1'),
        (f'{MIRRORED}\n', 'line 1: expected a rotation'),
        (' '.join(['0.5'] * 12), 'line 1: expected a rotation'),
        ('1 nan 0 0 0 0 0 1\n', 'expected finite poses'),
        ('\n'.join(kitti()[:3]), 'as many poses as the bag has images, 12, got 3'),
        ('\x00\xff\n', 'expected lines of 8'),
    ],
)
def test_the_line_that_cannot_be_read_is_named(tmp_path, content, complaint):
    path = tmp_path / 'poses.txt'
    path.write_text(content)
    with pytest.raises(GroundTruthError, match=complaint) as error:
        load_ground_truth(path, STAMPS)
    assert '\n' not in str(error.value)
    assert 'poses.txt' in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(GroundTruthError, match='nowhere.txt.*No such file'):
        load_ground_truth(tmp_path / 'nowhere.txt', STAMPS)


@pytest.mark.parametrize('unit', [1, 10**3, 10**6, 10**9])
def test_the_unit_is_that_of_the_images_even_from_zero_on(tmp_path, unit):
    # A simulator's clock starts at 0, so that the size of a stamp tells nothing.
    images = [i * 100_000_000 for i in range(50)]
    (tmp_path / 'poses.txt').write_text('\n'.join(
        f'{stamp / unit} 0 0 0 0 0 0 1' for stamp in images[10:40]
    ))
    found = load_ground_truth(tmp_path / 'poses.txt', images)
    assert found.stamps_ns.tolist() == images[10:40]


@pytest.mark.parametrize('name', ['as_it_should_be', 'kitti', 'euroc'])
def test_well_written_files_give_what_evo_reads(tmp_path, name):
    path = tmp_path / 'poses.txt'
    path.write_text(FILES[name])
    read = {
        'kitti': file_interface.read_kitti_poses_file,
        'euroc': file_interface.read_euroc_csv_trajectory,
    }.get(name, file_interface.read_tum_trajectory_file)
    expected = np.array(read(str(path)).poses_se3)
    found = load_ground_truth(path, STAMPS)
    np.testing.assert_allclose(found.rotations, expected[:, :3, :3], atol=1e-9)
    np.testing.assert_allclose(found.translations, expected[:, :3, 3], atol=1e-9)


def test_where_times_overlap_is_told():
    some = [START + i * 100_000_000 for i in range(20)]
    poses = Trajectory(np.array(some), np.stack([np.eye(3)] * 20), np.zeros((20, 3)))
    assert poses.overlap_problem(some) == ''
    later = [stamp + 3_000_000_000 for stamp in some]
    assert poses.overlap_problem(later) == (
        'no image has a true pose: the poses are from 1403636579.764 to 1403636581.664 s, '
        'the images from 1403636582.764 to 1403636584.664 s'
    )
    half = [stamp + 1_000_000_000 for stamp in some]
    assert poses.overlap_problem(half).startswith('only 10 of 20 images have a true pose')
    rare = Trajectory(poses.stamps_ns[::10], poses.rotations[::10], poses.translations[::10])
    assert 'more than 0.5 s apart are not interpolated' in rare.overlap_problem(some[:10])


def test_extrinsics_of_kalibr_go_the_other_way(tmp_path):
    turn = rotation_of_quaternion(0.1, -0.4, 0.3, 0.8)
    camera_to_body = Pose(turn, np.array([0.1, 0.2, 0.3]))
    for name, pose in (('T_BS', camera_to_body), ('T_cam_imu', camera_to_body.inverse())):
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = pose.rotation, pose.translation
        text = f'{name}: {matrix.tolist()}'
        (tmp_path / 'a.yaml').write_text(f'cam0: {{{text}}}' if name != 'T_BS' else text)
        found = read_extrinsics(tmp_path / 'a.yaml')
        np.testing.assert_allclose(found.rotation, camera_to_body.rotation)
        np.testing.assert_allclose(found.translation, camera_to_body.translation)
    (tmp_path / 'a.yaml').write_text('just text')
    with pytest.raises(DataError, match='expected T_BS'):
        read_extrinsics(tmp_path / 'a.yaml')


def test_the_camera_of_a_chain_is_that_of_the_images(tmp_path):
    path = tmp_path / 'chain.yaml'
    chain = {}
    for number in range(2):
        matrix = np.eye(4)
        matrix[0, 3] = -(number + 1)
        topic = '/left/image' if number else '/right/image'
        chain[f'cam{number}'] = {'T_cam_imu': matrix.tolist(), 'rostopic': topic}
    path.write_text(yaml.safe_dump(chain))
    for topic, x in (
        ('/right/image', 1), ('/left/image', 2), ('/left/image/compressed', 2),
        ('/cam1/image_raw', 2), ('/cam0/image_raw', 1),
    ):
        assert read_extrinsics(path, topic).translation[0] == x
    with pytest.raises(DataError, match="cam0, cam1: expected one with the rostopic '/third'"):
        read_extrinsics(path, '/third')


def test_a_transposed_matrix_is_refused(tmp_path):
    matrix = np.eye(4)
    matrix[3, :3] = 0.1
    (tmp_path / 'a.yaml').write_text(f'T_BS: {matrix.tolist()}')
    with pytest.raises(DataError, match='is it transposed'):
        read_extrinsics(tmp_path / 'a.yaml')


def test_two_values_at_one_time_are_counted(tmp_path):
    lines = tum()
    path = tmp_path / 'truth.txt'
    path.write_text('\n'.join([*lines, f'{lines[3].split()[0]} 9 9 9 0 0 0 1', lines[4]]))
    found = load_ground_truth(path, STAMPS)
    np.testing.assert_allclose(found.translations, TRUTH.translations)
    assert (found.conflicting, found.skipped) == (1, 0)
    assert found.left_out == (
        '1 poses have the stamp of an earlier one and another value and are left out'
    )


def test_seconds_with_commas_that_begin_at_zero_are_not_those_of_euroc(tmp_path):
    path = tmp_path / 'truth.csv'
    lines = tum(stamp=lambda s: f'{(s - START) / 1e9:g}', separator=',')
    assert lines[0].startswith('0,')
    path.write_text('\n'.join(lines))
    found = load_ground_truth(path, np.array(STAMPS) - START)
    assert found.body_frame == ''
    np.testing.assert_allclose(found.rotations, TRUTH.rotations, atol=1e-9)
