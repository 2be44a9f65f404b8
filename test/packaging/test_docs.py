"""Links between pages lead somewhere, and commands shown exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mdnet_ros.cli.main import COMMANDS

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
