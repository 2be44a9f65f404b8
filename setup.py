"""ament_python and pip packaging of mdnet_ros."""

from glob import glob

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
    'bags': ['rosbags>=0.10,<0.12'],
    'demo': ['scikit-image>=0.22'],
    'train': ['tensorboard>=2.14', 'matplotlib>=3.7'],
    'evaluate': [
        'h5py>=3.8',
        'poselib>=2.0.4',
        'pycolmap>=3.11',
        'evo>=1.28',
        'matplotlib>=3.7',
        'scipy>=1.10',
        'mahotas>=1.4.13',
        'kornia>=0.7.2',
    ],
    'onnx': ['onnx>=1.16', 'onnxruntime>=1.18'],
}
EXTRAS['test'] = ['pytest>=7.4', 'pytest-timeout>=2.2', 'hypothesis>=6.90', 'ruff>=0.5', 'mypy>=1.10']
EXTRAS['all'] = sorted({r for name, rs in EXTRAS.items() if name not in ('ros', 'test') for r in rs})

setup(
    name=package_name,
    version='0.1.0',
    packages=find_packages(exclude=['test', 'test.*']),
    package_data={package_name: ['weights/*', 'nodes/*.xml', 'py.typed']},
    data_files=[
        ('share/ament_index/resource_index/packages', ['resource/' + package_name]),
        ('share/' + package_name, ['package.xml']),
        ('share/' + package_name + '/launch', glob('launch/*.launch.py')),
        ('share/' + package_name + '/config', glob('config/*')),
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
    description='Learned image features a robot can trust: MD-Net keypoints, descriptors and tracks',
    license='Apache-2.0',
    tests_require=['pytest'],
    entry_points={
        'console_scripts': [
            'mdnet = mdnet_ros.cli.main:main',
            'tracker = mdnet_ros.nodes.tracker:main',
            'player = mdnet_ros.nodes.player:main',
            'recorder = mdnet_ros.nodes.recorder:main',
        ],
    },
)
