"""One table as text, Markdown and HTML."""

from __future__ import annotations

from mdnet_ros.evaluation.reports.tables import Column, Table, markdown_of, text_of

TABLE = Table(
    (Column('name'), Column('error', 2, best='min'), Column('MMA|3', 3, best='max')),
    (
        ('a\n(second line)', 1.001, 0.5),
        ('<b>', 1.004, None),
        ('c', 2.0, 0.25),
        ('published', 0.1, 0.9),
    ),
    'Two & three',
    marked=frozenset({3}),
)


def test_best_is_what_is_shown_as_best_among_measured_rows() -> None:
    assert TABLE.best_rows(0) == set()
    assert TABLE.best_rows(1) == {0, 1}  # both are shown as 1.00
    assert TABLE.best_rows(2) == {0}
    alone = Table(TABLE.columns, TABLE.rows[:1])
    assert alone.best_rows(1) == set()


def test_text() -> None:
    lines = text_of([TABLE, 'left out: d']).splitlines()
    assert [line.split() for line in lines if line.strip() and '─' not in line] == [
        ['Two', '&', 'three'],
        ['name', 'error', 'MMA|3'],
        ['a', '1.00*', '0.500*'],
        ['(second', 'line)'],
        ['<b>', '1.00*', '–'],
        ['c', '2.00', '0.250'],
        ['published', '0.10', '0.900'],
        ['left', 'out:', 'd'],
        ['*', 'best', 'of', 'its', 'column'],
    ]


def test_text_without_a_best_has_no_stars() -> None:
    table = Table((Column('name'), Column('count', 0)), (('a', 1), ('b', 2)))
    assert '*' not in text_of([table])


def test_wide_tables_are_not_cut_in_text() -> None:
    names = [f'extractor-number-{i}' for i in range(40)]
    text = text_of([Table((Column('sequence'), *map(Column, names)), (('v_x', *range(40)),))])
    assert all(name in text for name in names)
    assert '…' not in text


def test_markdown() -> None:
    assert markdown_of([TABLE, 'left out: d']).splitlines() == [
        'Two & three',
        '',
        '| name | error | MMA\\|3 |',
        '|:---|---:|---:|',
        '| a<br>(second line) | **1.00** | **0.500** |',
        '| <b> | **1.00** | – |',
        '| c | 2.00 | 0.250 |',
        '| *published* | *0.10* | *0.900* |',
        '',
        'left out: d',
        '',
    ]


def test_html() -> None:
    html = TABLE.to_html()
    assert '<caption>Two &amp; three</caption>' in html
    assert '<tr><td>a<br>(second line)</td><td class=best>1.00</td><td class=best>0.500' in html
    assert '<td>&lt;b&gt;</td><td class=best>1.00</td><td>–</td>' in html
    assert '<tr class=marked><td>published</td><td>0.10</td><td>0.900</td></tr>' in html
