"""Whether the comparison was fair, and what the pre-flight check found."""

from ..blocks import BAD, WARNING, Cell, Section, Table, Text
from ..formatting import MISSING, plural
from .models import names

ORDER = ('unfair', 'allowed', 'equal')
SEVERITIES = ('error', 'warning', 'note')


def audit(results: dict) -> Section | None:
    items = results.get('audit') or []
    if not items:
        return None
    models = names(results)
    differing = sorted((item for item in items if item['verdict'] != 'equal'), key=lambda item: ORDER.index(item['verdict']))
    equal = [item for item in items if item['verdict'] == 'equal']
    blocks = []
    if not any(item['verdict'] == 'unfair' for item in items):
        blocks.append(Text('The models were compared under equal conditions: nothing differs that must not.'))
    elif results.get('allowed_unfair'):
        blocks.append(Text('Conditions differ that must not; the comparison was run all the same, with --allow.', BAD))
    if differing:
        rows = tuple(
            (
                *(item['item'], Cell(item['verdict'], BAD if item['verdict'] == 'unfair' else '')),
                *(item['values'].get(model, MISSING).replace('; ', ';\n') for model in models),  # a setting a line
                item.get('note') or MISSING,
            )
            for item in differing
        )
        blocks.append(Table('What differs', ('Condition', 'Verdict', *models, 'Note'), rows))
    if equal:
        rows = tuple((item['item'], next(iter(item['values'].values()), MISSING) or MISSING) for item in equal)
        blocks.append(Table(f'What is equal: {plural(len(equal), "condition")}', ('Condition', 'Value of all models'), rows, folded=True))
    reading = (
        'Equal conditions are the same for all models, allowed ones belong to the model, and unfair ones would be measured along with it; '
        'this does not tell whether each model got the settings that suit it best.'
    )
    return Section('audit', 'Fairness audit', reading, tuple(blocks))


def preflight(results: dict) -> Section:
    findings = sorted(results.get('preflight') or [], key=lambda finding: SEVERITIES.index(finding['severity']))
    reading = (
        'These are signs of trouble that were looked for before anything trained, each with what to do about it; '
        'what was not looked for is not here.'
    )
    if not findings:
        return Section('preflight', 'Pre-flight findings', reading, (Text('Nothing was found.'),))
    tones = {'error': BAD, 'warning': WARNING}
    rows = tuple(
        (Cell(finding['severity'], tones.get(finding['severity'], '')), finding['area'], finding['finding'], finding['advice'])
        for finding in findings
    )
    columns = ('Severity', 'Area', 'Finding', 'What to do')
    return Section('preflight', 'Pre-flight findings', reading, (Table('Findings before training', columns, rows),))
