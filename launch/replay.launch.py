"""A bag played into the tracker, its outputs recorded as another bag.

::

    ros2 launch mdnet_ros replay.launch.py bag:=drive out:=drive_tracked lockstep:=true
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    TimerAction,
)
from launch.event_handlers import OnProcessExit, OnProcessIO
from launch.events import Shutdown
from launch.events.process import ProcessIO
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

#: What is recorded, relative to the namespace.
OUTPUTS = ('keypoints', 'correspondences', 'tracks')
#: Seconds for the last outputs to arrive once the bag is at its end.
LINGER = 2.0


def replay(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Player, tracker and, if asked for, recorder."""
    # Here, so that --show-args works without the library that reads bags.
    from mdnet_ros.bags.reader import COMPRESSED_IMAGE, BagReader
    from mdnet_ros.nodes.recorder import SUBSCRIBED

    def argument(name: str) -> str:
        return LaunchConfiguration(name).perform(context).strip()

    with BagReader(argument('bag')) as bag:
        image = bag.image_topic(argument('image') or None)
        info = bag.camera_info_topic(image, argument('camera_info') or None)
        compressed = bag.topics[image] == COMPRESSED_IMAGE
    namespace = argument('namespace')
    lockstep = argument('lockstep').lower() in ('true', '1')
    player = Node(
        package='mdnet_ros',
        executable='player',
        namespace=namespace,
        arguments=[
            argument('bag'), '--rate', argument('rate'), *(['--lockstep'] if lockstep else [])
        ],
        output='screen',
    )
    tracker = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(
            str(Path(get_package_share_directory('mdnet_ros')) / 'launch' / 'tracker.launch.py')
        ),
        launch_arguments={
            'image': image.removesuffix('/compressed'),
            'camera_info': info or 'camera_info',
            'image_transport': 'compressed' if compressed else 'raw',
            'config': argument('config'),
            'namespace': namespace,
        }.items(),
    )
    recorder = Node(
        package='mdnet_ros',
        executable='recorder',
        namespace=namespace,
        arguments=[argument('out'), *OUTPUTS],
        output='screen',
    )
    # Whichever ends first, the bag or by accident another, ends all.
    end = RegisterEventHandler(
        OnProcessExit(
            on_exit=[
                TimerAction(
                    period=LINGER,
                    actions=[EmitEvent(event=Shutdown(reason='the replay is over'))],
                )
            ],
        )
    )
    if not argument('out'):
        return [tracker, player, end]

    def play(event: ProcessIO) -> list[Node]:
        return [player] if SUBSCRIBED in event.text.decode(errors='replace') else []

    ready = RegisterEventHandler(OnProcessIO(target_action=recorder, on_stdout=play))
    return [tracker, ready, recorder, end]


def generate_launch_description() -> LaunchDescription:
    """Arguments (``ros2 launch mdnet_ros replay.launch.py --show-args``) and nodes."""
    return LaunchDescription(
        [
            DeclareLaunchArgument('bag', description='rosbag2 folder or file to play'),
            DeclareLaunchArgument(
                'out', default_value='',
                description='folder to record keypoints, correspondences and tracks into; '
                'empty: do not record',
            ),
            DeclareLaunchArgument('rate', default_value='1.0', description='speed of the playback'),
            DeclareLaunchArgument(
                'lockstep', default_value='false',
                description='true: each image waits for the answer to the last one',
            ),
            DeclareLaunchArgument(
                'image', default_value='',
                description='image topic in the bag; empty: the only one there is',
            ),
            DeclareLaunchArgument(
                'camera_info', default_value='',
                description='calibration topic in the bag; empty: the one beside the images',
            ),
            DeclareLaunchArgument(
                'config', default_value='tracker',
                description='parameter file of the tracker: a path, or the name of one that ships',
            ),
            DeclareLaunchArgument(
                'namespace', default_value='', description='namespace of the outputs'
            ),
            OpaqueFunction(function=replay),
        ]
    )
