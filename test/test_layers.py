"""Which packages may import which; docs/design.md shows their layers in the same order."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

import mdnet_ros

PACKAGE = Path(mdnet_ros.__file__).parent
DESIGN = PACKAGE.parent / 'docs' / 'design.md'
#: Single files at the root, which every package may import and which import no package.
ROOT_FILES = ('errors', 'files', 'allocator', 'progress')
#: The packages from the bottom to the top. A package imports packages of lower layers only.
LAYERS = (
    ('data', 'features'),
    ('bags', 'baselines'),
    ('tracker', 'training', 'demo'),
    ('evaluation', 'integrations'),
    ('viewer', 'nodes'),
    ('cli',),
)
#: Packages that these packages do not import although the layers would allow it.
FORBIDDEN = {'features': {'data'}, 'data': {'features'}, 'tracker': {'baselines'}}
#: Folders inside ``evaluation/``, from the bottom to the top, and its single files.
EVALUATION = (
    ('essential', 'trajectory_errors', 'klt', 'extraction', 'reports'),
    ('pose', 'tracks'),
    ('odometry', 'benchmark'),
    ('homography', 'image_matching', 'replay'),
)
ROS = (
    'rclpy', 'rosbag2_py', 'cv_bridge', 'launch', 'launch_ros', 'ament_index_python',
    'sensor_msgs', 'std_msgs', 'std_srvs', 'geometry_msgs', 'nav_msgs', 'diagnostic_msgs',
    'builtin_interfaces', 'rcl_interfaces', 'lifecycle_msgs', 'message_filters',
)


def module_name(path: Path) -> str:
    """``data/camera.py`` → ``data.camera``; a folder's ``__init__.py`` has the folder's name."""
    parts = path.relative_to(PACKAGE).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob('*.py'))}


def imports(source: str) -> set[str]:
    """Modules that a source file names anywhere, in functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, 'imports are absolute'
            module = node.module or ''
            names |= {f'{module}.{alias.name}' for alias in node.names}
    return names


def own_imports(source: str) -> set[str]:
    """Modules of the package that a source file imports, without the leading ``mdnet_ros.``."""
    own = {name.removeprefix('mdnet_ros.') for name in imports(source) if 'mdnet_ros.' in name}
    return {name if name in MODULES else name.rpartition('.')[0] for name in own} - {''}


def wrong_arrows(sources: dict[str, str], layers: tuple[tuple[str, ...], ...]) -> list[str]:
    """Imports between packages that do not lead to a lower layer.

    Args:
        sources: module name, counted from the folder that has the layers, → source.
        layers: packages from the bottom to the top.
    """
    layer_of = {package: number for number, packages in enumerate(layers) for package in packages}
    wrong = []
    for module, source in sources.items():
        package = module.split('.')[0]
        for other in own_imports(source):
            target = other.split('.')[0]
            if package == '' or target == package or target in ROOT_FILES:
                continue
            leads_down = package not in ROOT_FILES and layer_of[target] < layer_of[package]
            if not leads_down or target in FORBIDDEN.get(package, ()):
                wrong.append(f'{module} imports {other}')
    return wrong


SOURCES = {name: path.read_text(encoding='utf-8') for name, path in MODULES.items()}


def test_every_package_is_listed_and_nothing_else_lies_at_the_root() -> None:
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == '.py' or path.is_dir()}
    listed = {package for layer in LAYERS for package in layer} | set(ROOT_FILES)
    assert there - listed <= {'__init__', '__pycache__', 'weights'}
    assert listed <= there


def test_imports_lead_down_only() -> None:
    assert not wrong_arrows(SOURCES, LAYERS)


def test_an_arrow_turned_round_is_found() -> None:
    turned = SOURCES | {'features.types': 'from mdnet_ros.tracker.engine import Engine\n'}
    assert wrong_arrows(turned, LAYERS) == ['features.types imports tracker.engine']


def test_imports_inside_evaluation_lead_down_only() -> None:
    layer_of = {part: number for number, parts in enumerate(EVALUATION) for part in parts}
    there = {p.stem for p in (PACKAGE / 'evaluation').iterdir() if not p.stem.startswith('__')}
    assert there == set(layer_of)
    assert len(there) <= 12
    for module, source in SOURCES.items():
        if not module.startswith('evaluation.'):
            continue
        part = module.split('.')[1]
        for other in own_imports(source):
            target = other.split('.')[1] if other.startswith('evaluation.') else part
            assert target == part or layer_of[target] < layer_of[part], f'{module}: {other}'


def test_no_two_modules_import_each_other() -> None:
    uses = {module: own_imports(source) - {module} for module, source in SOURCES.items()}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, f'circle: {" → ".join((*way[way.index(module):], module))}'
        if module in done:
            return
        for other in sorted(uses.get(module, ())):
            visit(other, (*way, module))
        done.add(module)

    for module in uses:
        visit(module, ())


def test_only_the_nodes_import_ros() -> None:
    for module, source in SOURCES.items():
        if module.split('.')[0] != 'nodes':
            assert not {name.split('.')[0] for name in imports(source)} & set(ROS), module


def test_the_page_on_design_shows_these_packages_in_this_order() -> None:
    page = DESIGN.read_text(encoding='utf-8')
    drawing = page[page.index('```') : page.index('```', page.index('```') + 3)]
    shown = re.findall(r'^  (\w+)(?:/| +\w)', drawing, re.MULTILINE)
    layer_of: dict[str, int] = defaultdict(lambda: -1)
    layer_of.update(
        {package: number for number, packages in enumerate(LAYERS) for package in packages}
    )
    packages = [package for package in shown if package in layer_of]
    assert sorted(packages) == sorted(package for layer in LAYERS for package in layer)
    layers = [layer_of[package] for package in packages]
    assert layers == sorted(layers)


@pytest.mark.parametrize('part', [part for layer in EVALUATION for part in layer])
def test_the_page_on_design_names_the_parts_of_evaluation(part: str) -> None:
    assert re.search(rf'^    .*\b{part}\b', DESIGN.read_text(encoding='utf-8'), re.MULTILINE)
