r"""The tracker on one or more cameras.

One camera::

    ros2 launch mdnet_ros tracker.launch.py image:=/camera/image_raw \
        camera_info:=/camera/camera_info

A stereo pair, one tracker each in /stereo/left and /stereo/right, reading image_raw there::

    ros2 launch mdnet_ros tracker.launch.py namespace:=stereo cameras:=left,right \
        image:=image_raw config:=stereo
"""

from pathlib import Path
from typing import Any

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
}


def config_file(name: str) -> str:
    """The path of a configuration: a file, or the name of one that ships."""
    if name in CONFIGS:
        return str(Path(get_package_share_directory('mdnet_ros')) / 'config' / f'{name}.yaml')
    path = Path(name).expanduser()
    if not path.is_file():
        raise RuntimeError(f"config '{name}': no such file; shipped: {', '.join(CONFIGS)}")
    return str(path.resolve())


def trackers(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """A tracker for each camera."""

    def argument(name: str) -> str:
        return LaunchConfiguration(name).perform(context).strip()

    overrides: dict[str, Any] = {name: argument(name) for name in OVERRIDES if argument(name)}
    overrides['use_sim_time'] = argument('use_sim_time').lower() in ('true', '1')
    namespace = argument('namespace').rstrip('/')
    cameras = [camera.strip('/ ') for camera in argument('cameras').split(',')]
    return [
        Node(
            package='mdnet_ros',
            executable='tracker',
            name='tracker',
            namespace='/'.join(part for part in (namespace, camera) if part),
            parameters=[config_file(argument('config')), overrides],
            remappings=[
                (topic, argument(topic)) for topic in ('image', 'camera_info')
                if argument(topic) != topic
            ],
            arguments=['--ros-args', '--log-level', argument('log_level')],
            output='screen',
        )
        for camera in cameras
    ]


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
                description='calibration topic, needed for the tracks topic alone',
            ),
            DeclareLaunchArgument(
                'config', default_value='tracker',
                description=f'parameter file: a path, or one of {", ".join(CONFIGS)}',
            ),
            DeclareLaunchArgument(
                'namespace', default_value='', description='namespace of the outputs'
            ),
            DeclareLaunchArgument(
                'cameras', default_value='',
                description='names of several cameras, separated by commas: one tracker each, '
                'in a namespace of that name below NAMESPACE',
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
            OpaqueFunction(function=trackers),
        ]
    )
