r"""The tracker on one or more cameras.

One camera::

    ros2 launch mdnet_ros tracker.launch.py image:=/camera/image_raw \
        camera_info:=/camera/camera_info

A stereo pair in one process, reading /stereo/left/image_raw and /stereo/right/image_raw::

    ros2 launch mdnet_ros tracker.launch.py config:=stereo namespace:=stereo image:=image_raw
"""

from pathlib import Path
from typing import Any

import yaml
from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

#: Configurations that ship.
CONFIGS = ('tracker', 'mono', 'stereo', 'low_power')
#: Launch arguments that, unless empty, replace a parameter of the configuration file.
OVERRIDES = {
    'weights': 'network: md2net, md2net-light, or the path of a .safetensors file',
    'device': 'where the network runs: auto, cpu, cuda or cuda:N',
    'image_transport': 'raw (topic IMAGE) or compressed (topic IMAGE/compressed)',
    'vins_layout': 'layout of the tracks topic: none, mono or fusion',
    'cameras': 'names of several cameras, separated by commas: one process serves them all, '
               'each with its topics below its name',
    'stereo': 'true: match the first of two cameras, the left one, with the second',
    'max_stamp_difference': 'seconds by which the stamps of images taken together may differ',
    'rectified': 'true: the images are rectified already',
}
#: Topics in tracker.rviz.
SHOWN = ('overlay', 'keypoints', 'correspondences')


def config_file(name: str) -> str:
    """The path of a configuration: a file, or the name of one that ships."""
    if name in CONFIGS:
        return str(Path(get_package_share_directory('mdnet_ros')) / 'config' / f'{name}.yaml')
    path = Path(name).expanduser()
    if not path.is_file():
        raise RuntimeError(f"config '{name}': no such file; shipped: {', '.join(CONFIGS)}")
    return str(path.resolve())


def cameras_of(file: str) -> str:
    """The parameter ``cameras`` of a configuration for all nodes."""
    nodes = yaml.safe_load(Path(file).read_text(encoding='utf-8')) or {}
    return str(nodes.get('/**', {}).get('ros__parameters', {}).get('cameras', ''))


def typed(value: str) -> Any:
    """The value of a parameter that an argument holds."""
    if value.lower() in ('true', 'false'):
        return value.lower() == 'true'
    try:
        return float(value)
    except ValueError:
        return value


def remappings(cameras: str, topics: dict[str, str]) -> list[tuple[str, str]]:
    """From each camera's topics to those of the driver, which are relative to the camera."""
    found = []
    for camera in cameras.split(','):
        below = f'{camera.strip("/ ")}/' if camera.strip('/ ') else ''
        for topic, wanted in topics.items():
            if wanted != topic:
                found.append((below + topic, wanted if wanted[:1] == '/' else below + wanted))
    return found


def nodes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The tracker and, if asked for, RViz."""

    def argument(name: str) -> str:
        return LaunchConfiguration(name).perform(context).strip()

    def yes(name: str) -> bool:
        return argument(name).lower() in ('true', '1')

    overrides = {name: typed(argument(name)) for name in OVERRIDES if argument(name)}
    overrides['use_sim_time'] = yes('use_sim_time')
    config = config_file(argument('config'))
    namespace = argument('namespace').rstrip('/')
    cameras = argument('cameras') or cameras_of(config)
    found: list[LaunchDescriptionEntity] = [
        Node(
            package='mdnet_ros',
            executable='tracker',
            name='tracker',
            namespace=namespace,
            parameters=[config, overrides],
            remappings=remappings(
                cameras, {topic: argument(topic) for topic in ('image', 'camera_info', 'mask')}
            ),
            arguments=['--ros-args', '--log-level', argument('log_level')],
            output='screen',
        )
    ]
    if yes('rviz'):
        layout = Path(get_package_share_directory('mdnet_ros')) / 'config' / 'tracker.rviz'
        shown = '/'.join(p for p in (namespace.strip('/'), cameras.split(',')[0].strip('/ ')) if p)
        found.append(
            Node(
                package='rviz2',
                executable='rviz2',
                arguments=['-d', str(layout)],
                remappings=[(f'/{topic}', f'/{shown}/{topic}') for topic in SHOWN if shown],
            )
        )
    return found


def generate_launch_description() -> LaunchDescription:
    """Arguments (``ros2 launch mdnet_ros tracker.launch.py --show-args``) and nodes."""
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                'image', default_value='image',
                description='image topic, without /compressed; relative to the camera',
            ),
            DeclareLaunchArgument(
                'camera_info', default_value='camera_info',
                description='calibration topic, needed for tracks and for checked stereo matches; '
                'relative to the camera',
            ),
            DeclareLaunchArgument(
                'mask', default_value='mask',
                description='topic with the region of interest; relative to the camera',
            ),
            DeclareLaunchArgument(
                'config', default_value='tracker',
                description=f'parameter file: a path, or one of {", ".join(CONFIGS)}',
            ),
            DeclareLaunchArgument(
                'namespace', default_value='', description='namespace of the outputs'
            ),
            *(
                DeclareLaunchArgument(name, default_value='', description=f'{text}; '
                                      'empty: as in the configuration')
                for name, text in OVERRIDES.items()
            ),
            DeclareLaunchArgument(
                'use_sim_time', default_value='false', description='take time from /clock'
            ),
            DeclareLaunchArgument(
                'log_level', default_value='info', description='debug, info, warn or error'
            ),
            DeclareLaunchArgument(
                'rviz', default_value='false',
                description='true: show the topics in RViz, of several cameras those of the first',
            ),
            OpaqueFunction(function=nodes),
        ]
    )
