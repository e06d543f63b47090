"""A headless Chromium over its DevTools pipe: real clicks and keys, every request and every console message, and no further dependency.

Commands are JSON, ended by a zero byte, on file descriptor 3 of the browser; answers and events come from its descriptor 4.
https://chromedevtools.github.io/devtools-protocol/
"""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAMES = ('chromium', 'chromium-browser', 'google-chrome')
OPTIONS = (
    *('--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-dev-shm-usage', '--no-first-run', '--disable-sync'),
    *('--disable-background-networking', '--disable-component-update', '--no-default-browser-check', '--remote-debugging-pipe'),
)


def find_browser() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One tab. ``requests`` holds the address of everything it asked for, ``complaints`` what its console and the browser said about it."""

    def __init__(self, write_to: int, read_from: int) -> None:
        self.write_to, self.read_from = write_to, read_from
        self.buffer, self.number, self.session = b'', 0, None
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.loaded = False
        target = self.send('Target.createTarget', url='about:blank')['targetId']
        self.session = self.send('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        for domain in ('Page', 'Network', 'Runtime', 'Log'):
            self.send(f'{domain}.enable')

    def open(self, path: Path) -> None:
        self.loaded = False
        self.send('Page.navigate', url=path.resolve().as_uri())
        self._listen(lambda: self.loaded)

    def resize(self, width: int, height: int) -> None:
        self.send('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1, mobile=False)

    def colour_scheme(self, scheme: str) -> None:
        self.send('Emulation.setEmulatedMedia', features=[{'name': 'prefers-color-scheme', 'value': scheme}])

    def evaluate(self, expression: str):
        """The value of JavaScript, as JSON has it."""
        answer = self.send('Runtime.evaluate', expression=expression, returnByValue=True)
        if 'exceptionDetails' in answer:
            raise RuntimeError(f'{expression}: {answer["exceptionDetails"]}')
        return answer['result'].get('value')

    def click(self, selector: str) -> None:
        """The mouse's left button in the middle of the first such element."""
        place = self.evaluate(
            f'(() => {{ const e = document.querySelector({json.dumps(selector)});'
            'e.scrollIntoView({block: "center", behavior: "instant"});'
            'const r = e.getBoundingClientRect(); return {x: r.x + r.width / 2, y: r.y + r.height / 2}; })()'
        )
        for kind in ('mousePressed', 'mouseReleased'):
            self.send('Input.dispatchMouseEvent', type=kind, **place, button='left', clickCount=1)

    def press(self, key: str, code: int, text: str = '') -> None:
        for kind in ('keyDown', 'keyUp'):
            extra = dict(text=text) if text and kind == 'keyDown' else {}
            self.send('Input.dispatchKeyEvent', type=kind, key=key, code=key, windowsVirtualKeyCode=code, **extra)

    def screenshot(self, path: Path, whole: bool = True) -> None:
        data = self.send('Page.captureScreenshot', format='png', captureBeyondViewport=whole)['data']
        path.write_bytes(base64.b64decode(data))

    def send(self, method: str, **parameters) -> dict:
        self.number += 1
        message = dict(id=self.number, method=method, params=parameters) | (dict(sessionId=self.session) if self.session else {})
        content = json.dumps(message).encode() + b'\0'
        while content:
            content = content[os.write(self.write_to, content) :]
        answers = []
        self._listen(lambda: bool(answers), number=self.number, answers=answers)
        if 'error' in answers[0]:
            raise RuntimeError(f'{method}: {answers[0]["error"]}')
        return answers[0]['result']

    def _listen(self, enough, number: int | None = None, answers: list | None = None, seconds: float = 60) -> None:
        limit = time.monotonic() + seconds
        while not enough():
            message = self._message(limit)
            if answers is not None and message.get('id') == number:
                answers.append(message)
            self._note(message.get('method'), message.get('params') or {})

    def _message(self, limit: float) -> dict:
        while b'\0' not in self.buffer:
            ready, _, _ = select.select([self.read_from], [], [], max(0.0, limit - time.monotonic()))
            content = os.read(self.read_from, 1 << 20) if ready else b''
            if not content:
                raise TimeoutError('the browser does not answer')
            self.buffer += content
        message, _, self.buffer = self.buffer.partition(b'\0')
        return json.loads(message)

    def _note(self, method: str | None, parameters: dict) -> None:
        if method == 'Page.loadEventFired':
            self.loaded = True
        elif method == 'Network.requestWillBeSent':
            self.requests.append(parameters['request']['url'])
        elif method in ('Runtime.consoleAPICalled', 'Runtime.exceptionThrown', 'Log.entryAdded'):
            self.complaints.append(json.dumps(parameters))


@contextmanager
def opened(profile: Path) -> Iterator[Page]:
    """A new browser with a new profile; it is gone afterwards."""
    its_input, write_to = os.pipe()
    read_from, its_output = os.pipe()
    # bash puts the pipes where the browser expects them
    command = ['bash', '-c', f'exec "$@" 3<&{its_input} 4>&{its_output}', 'bash', find_browser(), *OPTIONS, f'--user-data-dir={profile}']
    with open(profile.with_suffix('.log'), 'wb') as log:
        browser = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(its_input, its_output))
    os.close(its_input)
    os.close(its_output)
    try:
        yield Page(write_to, read_from)
    finally:
        os.close(write_to)  # it ends with its pipe
        try:
            browser.wait(10)
        except subprocess.TimeoutExpired:
            browser.kill()
            browser.wait()
        os.close(read_from)
