"""Links between pages lead somewhere, and commands shown exist."""

from __future__ import annotations

import argparse
import re
import runpy
import shlex
from pathlib import Path

import pytest

from mdnet_ros.cli.main import COMMANDS, build_parser
from mdnet_ros.tracker.settings import SETTINGS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob('*.md'), *(ROOT / 'docs').rglob('*.md')])


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub names them."""
    headings = re.findall(r'^#+ (.+)$', page.read_text(), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', h.strip().lower()).replace(' ', '-') for h in headings}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links(page: Path) -> None:
    for target in re.findall(r'\]\(([^)\s]+)\)', page.read_text()):
        if re.match(r'[a-z]+:', target):
            continue
        path, _, anchor = target.partition('#')
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target


def test_readme_names_every_command() -> None:
    shown = set(re.findall(r'`mdnet ([a-z]+)', (ROOT / 'README.md').read_text()))
    assert shown == set(COMMANDS)


def test_makefile_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / 'Makefile').read_text()
    for page in ('README.md', 'CONTRIBUTING.md'):
        for target in re.findall(r'^make (\w+)', (ROOT / page).read_text(), re.MULTILINE):
            assert re.search(rf'^{target}:', makefile, re.MULTILINE), target


def shown_commands() -> list[str]:
    """The command lines of all pages, each on one line."""
    blocks = [
        block
        for page in PAGES
        for block in re.findall(r'```bash\n(.*?)```', page.read_text(), re.DOTALL)
    ]
    return [
        line.split(' #')[0]
        for block in blocks
        for line in re.sub(r' *\\\n *', ' ', block).splitlines()
    ]


def test_parameters_and_launch_arguments_shown_exist() -> None:
    arguments = runpy.run_path(str(ROOT / 'docs' / 'launch_page.py'))['declared_arguments']
    used = 0
    for line in shown_commands():
        for name in re.findall(r'-p (\w+):=', line):
            assert name in SETTINGS, line
            used += 1
        for file, rest in re.findall(r'ros2 launch mdnet_ros (\S+)(.*)', line):
            known = {name for name, _, _ in arguments(ROOT / 'launch' / file)}
            for name in re.findall(r' (\w+):=', rest):
                assert name in known, line
                used += 1
    assert used > 5


def test_options_shown_exist() -> None:
    used = 0
    for line in shown_commands():
        found = re.match(r'(?:ros2 run mdnet_ros )?mdnet ([a-z]+)(.*)', line)
        if not found or found[1] == 'evaluate':
            continue
        assert found[1] in COMMANDS, line
        parser = build_parser([found[1]])
        (commands,) = (
            a for a in parser._actions if isinstance(a, argparse._SubParsersAction)
        )
        known = set(commands.choices[found[1]]._option_string_actions)
        for word in shlex.split(found[2]):
            if word.startswith('--'):
                assert word in known, line
                used += 1
    assert used > 5


def test_the_page_of_the_launch_files_is_in_step() -> None:
    page = runpy.run_path(str(ROOT / 'docs' / 'launch_page.py'))['page']()
    assert (ROOT / 'docs' / 'launch.md').read_text() == page, 'run python docs/launch_page.py'


def test_the_accuracy_table_of_the_readme_is_in_step() -> None:
    page = runpy.run_path(str(ROOT / 'docs' / 'results_table.py'))['page']()
    assert (ROOT / 'README.md').read_text() == page, 'run python docs/results_table.py'
