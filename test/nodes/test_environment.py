"""The environment of child processes."""

import pytest

from mdnet_ros.nodes.environment import FASTDDS_PROFILE, ros_environment


def test_profile_is_named_for_old_and_new_distributions():
    environment = ros_environment({'PATH': '/bin'})
    assert environment['FASTRTPS_DEFAULT_PROFILES_FILE'] == str(FASTDDS_PROFILE)
    assert environment['FASTDDS_DEFAULT_PROFILES_FILE'] == str(FASTDDS_PROFILE)
    assert environment['PATH'] == '/bin'
    assert FASTDDS_PROFILE.is_file()


def test_a_profile_of_the_user_is_kept():
    environment = ros_environment({'FASTRTPS_DEFAULT_PROFILES_FILE': '/mine.xml'})
    assert environment['FASTRTPS_DEFAULT_PROFILES_FILE'] == '/mine.xml'
    assert 'FASTDDS_DEFAULT_PROFILES_FILE' not in environment


def test_domain_discovery_and_logs(tmp_path):
    base = {'ROS_DOMAIN_ID': '3', 'ROS_DISTRO': 'humble'}
    environment = ros_environment(base, domain_id=7, localhost=True, log_dir=tmp_path)
    assert environment['ROS_DOMAIN_ID'] == '7'
    assert environment['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'LOCALHOST'
    assert environment['ROS_LOCALHOST_ONLY'] == '1'
    assert environment['ROS_LOG_DIR'] == str(tmp_path)
    assert base == {'ROS_DOMAIN_ID': '3', 'ROS_DISTRO': 'humble'}
    assert 'ROS_LOCALHOST_ONLY' not in ros_environment({}, localhost=True)
    with pytest.raises(ValueError, match='0 to 232'):
        ros_environment({}, domain_id=233)


def test_library_paths_of_this_python_do_not_reach_another_one():
    base = {'_ROS_WHEELS_BOOTSTRAP_COMPLETE': '1', 'LD_LIBRARY_PATH': '/venv/lib'}
    assert 'LD_LIBRARY_PATH' in ros_environment(base)
    other = ros_environment(base, python='/usr/bin/python3.99')
    assert '_ROS_WHEELS_BOOTSTRAP_COMPLETE' not in other
    assert 'LD_LIBRARY_PATH' not in other
