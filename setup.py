"""ament_python and pip packaging of mdnet_ros."""

from pathlib import Path

from setuptools import find_packages, setup

package_name = 'mdnet_ros'

# Jazzy's wheels: real rclpy, FastDDS and messages on a machine without a ROS install.
ROS = [
    'ros-rclpy[fastrtps]==7.1.6',
    'ros-sensor-msgs==5.3.6',
    'ros-std-msgs==5.3.6',
    'ros-geometry-msgs==5.3.6',
    'ros-nav-msgs==5.3.6',
    'ros-diagnostic-msgs==5.3.6',
    'ros-std-srvs==5.3.6',
    'ros-domain-coordinator==0.12.0',
]

EXTRAS = {
    'ros': ROS,
    'bags': ['rosbags>=0.10,<0.12', 'mcap>=1.1'],
    'demo': ['scikit-image>=0.22'],
    'train': ['tensorboard>=2.14', 'matplotlib>=3.7'],
    'evaluate': [
        'h5py>=3.8',
        'poselib>=2.0.4',
        'pycolmap>=3.11',
        'evo>=1.28',
        'matplotlib>=3.7',
        'mahotas>=1.4.13',
        # The baseline ALIKED came with 0.9, which needs Python 3.11.
        'kornia>=0.9; python_version >= "3.11"',
        'kornia>=0.7.2; python_version < "3.11"',
        'transformers>=4.45',
    ],
    'onnx': ['onnx>=1.16', 'onnxruntime>=1.18'],
    'openvino': ['openvino>=2025.0'],
}
EXTRAS['test'] = [
    'pytest>=7.4',
    'pytest-timeout>=2.2',
    'pytest-xdist>=3.2',
    'hypothesis>=6.90',
    'ruff>=0.5',
    'mypy>=1.10',
]
EXTRAS['all'] = sorted(
    {entry for name, entries in EXTRAS.items() if name not in ('ros', 'test') for entry in entries}
)



def shared(folder: str) -> list[tuple[str, list[str]]]:
    """A folder's files, at the same place below ``share/mdnet_ros``."""
    files = [path for path in sorted(Path(folder).rglob('*')) if path.is_file()]
    return [
        (f'share/{package_name}/{path.parent.as_posix()}', [path.as_posix()])
        for path in files
        if path.suffix != '.pyc'
    ]


setup(
    name=package_name,
    version='0.1.0',
    packages=find_packages(exclude=['test', 'test.*']),
    package_data={package_name: ['weights/*', 'nodes/*.xml', 'viewer/*.html', 'py.typed']},
    data_files=[
        ('share/ament_index/resource_index/packages', ['resource/' + package_name]),
        ('share/' + package_name, ['package.xml']),
        *shared('launch'),
        *shared('config'),
    ],
    python_requires='>=3.10',
    install_requires=[
        'setuptools',
        'numpy>=1.21',
        'torch>=2.1',
        'opencv-python-headless>=4.5.4',
        'safetensors>=0.4',
        'PyYAML>=5.4',
        'rich>=12',
        'tqdm>=4.57',
    ],
    extras_require=EXTRAS,
    zip_safe=False,
    maintainer='mdnet_ros maintainers',
    maintainer_email='mdnet-ros@example.org',
    description='Learned image features a robot can trust: keypoints, descriptors and tracks',
    long_description=Path(__file__).with_name('README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    keywords=['ROS', 'computer vision', 'features', 'tracking', 'visual odometry', 'SLAM'],
    entry_points={
        'console_scripts': [
            'mdnet = mdnet_ros.cli.main:main',
            'tracker = mdnet_ros.nodes.tracker:main',
            'player = mdnet_ros.nodes.player:main',
            'recorder = mdnet_ros.nodes.recorder:main',
        ],
    },
)
