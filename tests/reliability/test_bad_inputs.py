"""Every row of the table of bad inputs: what the user reads, and that nothing was lost or half-written."""

import subprocess
import sys

import pytest

from ..conftest import ROOT
from .bad_input import REFUSED, Project, Row, parts_in_order, what_happens
from .bad_inputs import ROWS, identity, table

COMMANDS = [row for row in ROWS if row.is_command]


def check(row: Row, project: Project, happens) -> None:
    row.plant(project)
    before = project.snapshot(row.writes)
    outcome, text = happens(row, project)
    text = project.readable(text)
    assert outcome == row.outcome, text[-2000:]
    assert parts_in_order(row.reads, text), text[-2000:]
    assert project.snapshot(row.writes) == before
    half_written = [path for path in project.root.rglob('*') if path.suffix == '.tmp' or (row.outcome == REFUSED and path.suffix == '.pth')]
    assert [path for path in half_written if path.relative_to(project.root).as_posix() not in before] == []


@pytest.mark.parametrize('row', ROWS, ids=identity)
def test_bad_input_is_read_about_and_loses_nothing(row, tmp_path):
    check(row, Project(tmp_path), what_happens)


@pytest.mark.slow
@pytest.mark.parametrize('row', COMMANDS, ids=identity)
def test_command_in_a_process_of_its_own(row, tmp_path):
    def happens(row: Row, project: Project) -> tuple[str, str]:
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', *row.meets(project)], capture_output=True, text=True, timeout=300, cwd=tmp_path
        )
        return REFUSED if done.returncode else 'status 0', done.stdout + done.stderr

    check(row, Project(tmp_path), happens)


def test_table_holds_every_kind_and_no_row_twice():
    assert len({row.goes_in for row in ROWS}) == len(ROWS) >= 75


def test_table_for_people_is_up_to_date():
    assert (ROOT / 'docs' / 'bad_input.md').read_text() == table(), 'python -m tests.reliability.bad_inputs > docs/bad_input.md'


def test_a_message_in_another_order_or_without_a_part_is_seen():
    assert parts_in_order('a ... c', 'a b c') and not parts_in_order('c ... a', 'a b c') and not parts_in_order('a ... d', 'a b c')
