"""Tables of reports: which figures are marked as the best, and that nothing is cut."""

from __future__ import annotations

from mdnet_ros.evaluation.reports.tables import Column, Table, text_of


def test_plain_text_stars_the_best_of_each_column() -> None:
    table = Table(
        (Column('name'), Column('MMA', 3, 'max'), Column('error', 1, 'min'), Column('count', 0)),
        (
            ('ours', 0.5001, 2.0, 9),
            ('peer', 0.5004, 1.0, 7),
            ('third', 0.3, None, 8),
            ('printed elsewhere', 0.9, 0.1, 99),
        ),
        'accuracy',
        frozenset({3}),
    )
    lines = text_of([table, 'a line']).splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    # 0.5001 and 0.5004 are shown as the same figure, so both are the best.
    assert rows['ours'] == ['0.500*', '2.0', '9']
    assert rows['peer'] == ['0.500*', '1.0*', '7']
    assert rows['third'] == ['0.300', '–', '8']
    assert '*' not in ''.join(rows['printed'])
    assert lines[-1] == '* best of its column'


def test_a_table_without_a_best_has_no_stars() -> None:
    table = Table((Column('name'), Column('count', 0)), (('a', 1), ('b', 2)))
    assert '*' not in text_of([table])


def test_wide_tables_are_not_cut_in_a_file() -> None:
    names = [f'extractor-number-{i}' for i in range(40)]
    text = text_of([Table((Column('sequence'), *map(Column, names)), (('v_x', *range(40)),))])
    assert all(name in text for name in names)
    assert '…' not in text
