"""How many cases the fuzzing runs, and how valid input becomes nearly valid input.

Every run of the tests tries ``IN_EVERY_RUN`` cases, always the same. Outside of continuous integration, with other cases each time::

    FUZZ_CASES=100000 python -m pytest tests/reliability -k fuzzed -n 2 --hypothesis-show-statistics
"""

import copy
import json
import os
from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

CASES = int(os.environ.get('FUZZ_CASES', '0'))
IN_EVERY_RUN = 1000

# tokens that JSON cannot be made to write from Python's values
RAW = {'@huge@': '1e400', '@digits@': '9' * 5000, '@many@': '1' + '0' * 400, '@deep@': '[' * 3000 + ']' * 3000}
HOSTILE = ['..', '../../etc/passwd', '/etc/passwd', 'http://host/a.png', 'a\0b', 'x' * 5000, '\ud800', '{{x}}', '=1+1', '\x1b[2J']
NAMES = st.sampled_from([*RAW, *HOSTILE, '', 'a.png'])
NUMBERS = st.sampled_from([0, -1, 1, 2, 7, 0.5, -0.0, 1e308, -1e308, 1e-320, 2**31, 2**63, 10**400, float('nan'), float('inf'), True])
SCALARS = st.none() | NUMBERS | NAMES | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3), max_leaves=6
)


def fuzz(share: float) -> Callable:
    """Settings of a test that gets this share of all cases."""
    return settings(
        max_examples=max(10, round(share * (CASES or IN_EVERY_RUN))),
        deadline=None,
        derandomize=not CASES,  # or a run that has passed could fail the next time
        database=None,
        print_blob=bool(CASES),
        suppress_health_check=list(HealthCheck),
    )


@st.composite
def mutated(draw, valid: object, most: int = 3) -> object:
    """A copy with up to so many entries dropped, doubled, exchanged or replaced."""
    content = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, most))):
        entries = list(_entries(content))
        if not entries:
            break
        container, key = draw(st.sampled_from(entries))
        action = draw(st.sampled_from(['drop', 'replace', 'replace', 'rename', 'move']))
        if action == 'drop':
            del container[key]
        elif action == 'replace':
            container[key] = draw(VALUES)
        elif action == 'move':
            container[key] = copy.deepcopy(draw(st.sampled_from([box[name] for box, name in entries])))
        elif isinstance(container, dict):
            container[draw(st.text(max_size=4))] = container.pop(key)
        else:
            container.append(copy.deepcopy(container[key]))
    return content


def _entries(content: object):
    """(container, key) of everything inside."""
    if isinstance(content, (dict, list)):
        for key in list(content) if isinstance(content, dict) else range(len(content)):
            yield content, key
            yield from _entries(content[key])


@st.composite
def damaged(draw, valid: bytes, most: int = 4) -> bytes:
    """Bytes flipped, cut out, put in, or everything from a place on lost."""
    content = bytearray(valid)
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        action = draw(st.sampled_from(['flip', 'cut', 'insert', 'repeat', 'truncate']))
        if action == 'flip' and content:
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif action == 'cut':
            del content[at : at + draw(st.integers(1, 20))]
        elif action == 'insert':
            content[at:at] = draw(st.binary(min_size=1, max_size=6))
        elif action == 'repeat':
            content[at:at] = content[at : at + draw(st.integers(1, 40))] * draw(st.integers(1, 3))
        elif action == 'truncate':
            del content[at:]
    return bytes(content)


def json_text(content: object) -> str:
    """JSON with what Python's ``json`` reads beyond the standard: NaN, infinities, and numbers of any length."""
    text = json.dumps(_writable(content))
    for token, raw in RAW.items():
        text = text.replace(f'"{token}"', raw)
    return text


def _writable(content: object) -> object:
    if isinstance(content, dict):
        return {str(key): _writable(value) for key, value in content.items()}
    return [_writable(value) for value in content] if isinstance(content, list) else content


def refused_or(call: Callable, *names: str):
    """What a call returns; None where it refuses in words that name the file."""
    try:
        return call()
    except (ValueError, OSError) as error:
        assert any(name in str(error) for name in names), f'the message names none of {names}: {error!r}'
        return None
