"""What a wheel and a source distribution carry, and that the metadata agree."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path

import pytest

import mdnet_ros

ROOT = Path(__file__).resolve().parents[2]
SHARE = 'share/mdnet_ros/'
ROS_IMPORT = (
    r'^\s*(?:from|import) '
    r'(\w+_msgs|\w+_interfaces|std_srvs|rclpy|cv_bridge|domain_coordinator)\b'
)


@pytest.fixture(scope='module')
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy to build in, so that the checkout stays clean."""
    copy = tmp_path_factory.mktemp('source') / 'mdnet_ros'
    ignored = shutil.ignore_patterns(
        '.*', '__pycache__', '*.egg-info', 'build', 'dist', 'install', 'log', 'out', 'runs'
    )
    shutil.copytree(ROOT, copy, ignore=ignored)
    return copy


def run(*arguments: str, cwd: Path) -> None:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope='module')
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp('wheel')
    run(
        '-m', 'pip', 'wheel', '.', '--no-deps', '--no-build-isolation', '--quiet',
        '--disable-pip-version-check', '--wheel-dir', str(folder), cwd=source,
    )
    (path,) = folder.glob('mdnet_ros-*.whl')
    return zipfile.ZipFile(path)


def files_of(folder: str) -> set[str]:
    """The folder's files, relative to the repository."""
    found = {path for path in (ROOT / folder).rglob('*') if path.is_file()}
    return {str(path.relative_to(ROOT)) for path in found if path.suffix != '.pyc'}


def test_wheel_carries_every_module_and_the_package_data(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    package = ROOT / 'mdnet_ros'
    for path in package.rglob('*.py'):
        assert str(path.relative_to(ROOT)) in names
    for name in ('md2net', 'md2net-light'):
        assert f'mdnet_ros/weights/{name}.safetensors' in names
    assert 'mdnet_ros/nodes/fastdds_profile.xml' in names
    assert 'mdnet_ros/viewer/page.html' in names
    assert 'mdnet_ros/py.typed' in names
    assert not any(name.startswith('test/') for name in names)


def test_wheel_carries_what_ros_looks_for(wheel: zipfile.ZipFile) -> None:
    data = {
        name.split('.data/data/')[1] for name in wheel.namelist() if '.data/data/' in name
    }
    assert 'share/ament_index/resource_index/packages/mdnet_ros' in data
    assert SHARE + 'package.xml' in data
    for folder in ('launch', 'config'):
        assert files_of(folder)
        assert {SHARE + name for name in files_of(folder)} <= data


def test_wheel_declares_the_executables(wheel: zipfile.ZipFile) -> None:
    (name,) = [n for n in wheel.namelist() if n.endswith('entry_points.txt')]
    declared = set(re.findall(r'^(\w+) = ', wheel.read(name).decode(), re.MULTILINE))
    assert declared == {'mdnet', 'tracker', 'player', 'recorder'}


def test_executables_go_where_ros2_run_looks(source: Path, tmp_path: Path) -> None:
    """colcon installs through setup.py; setup.cfg sends the scripts to lib/mdnet_ros."""
    run(
        'setup.py', '--quiet', 'install', '--root', str(tmp_path), '--prefix', '/prefix',
        '--single-version-externally-managed', '--record', str(tmp_path / 'record'), cwd=source,
    )
    scripts = tmp_path / 'prefix' / 'lib' / 'mdnet_ros'
    assert {path.name for path in scripts.iterdir()} == {'mdnet', 'tracker', 'player', 'recorder'}


def test_sdist_can_be_built_and_tested_from(source: Path, tmp_path: Path) -> None:
    run('setup.py', '--quiet', 'sdist', '--dist-dir', str(tmp_path), cwd=source)
    (path,) = tmp_path.glob('mdnet_ros-*.tar.gz')
    with tarfile.open(path) as archive:
        names = {name.partition('/')[2] for name in archive.getnames()}
    for expected in (
        'LICENSE', 'README.md', 'CHANGELOG.rst', 'Makefile', 'package.xml', 'setup.py',
        'setup.cfg', 'pyproject.toml', 'requirements/constraints.txt', 'resource/mdnet_ros',
        'mdnet_ros/weights/md2net.safetensors', 'mdnet_ros/nodes/fastdds_profile.xml',
        'test/packaging/test_distribution.py',
    ):
        assert expected in names
    for folder in ('launch', 'config', 'docs'):
        assert files_of(folder) <= names


def test_versions_and_licence_agree() -> None:
    manifest = ET.parse(ROOT / 'package.xml').getroot()
    version = mdnet_ros.__version__
    assert manifest.get('format') == '3'
    assert manifest.findtext('version') == version
    assert manifest.findtext('name') == 'mdnet_ros'
    assert manifest.findtext('license') == 'Apache-2.0'
    assert manifest.findtext('export/build_type') == 'ament_python'
    assert f"version='{version}'" in (ROOT / 'setup.py').read_text()
    assert re.search(rf'^{re.escape(version)} \(', (ROOT / 'CHANGELOG.rst').read_text(), re.M)
    assert 'Apache License' in (ROOT / 'LICENSE').read_text()


def test_every_ros_package_imported_is_declared() -> None:
    manifest = ET.parse(ROOT / 'package.xml').getroot()
    declared = {element.text for element in manifest.iter('exec_depend')}
    imported: set[str] = set()
    for path in (ROOT / 'mdnet_ros').rglob('*.py'):
        text = path.read_text()
        imported |= set(re.findall(ROS_IMPORT, text, re.MULTILINE))
    assert 'rclpy' in imported
    assert imported <= declared
