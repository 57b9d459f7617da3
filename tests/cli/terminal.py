"""`rekv` as somebody runs it in a terminal, and stops it with Ctrl-C."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Stopped:
    """What a command that was stopped left behind."""

    code: int
    told: bytes  # what the terminal showed
    said: dict[str, Any]  # its JSON


def stop(*args: object, when: bytes) -> Stopped:
    """Run `rekv` with these arguments, one of them --json, in a terminal; Ctrl-C once it shows this pattern."""
    terminal, its_end = pty.openpty()
    # Tests that run in the background may have been started with Ctrl-C ignored, which a new process would inherit.
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        running = subprocess.Popen(
            [sys.executable, "-m", "rekv", *map(str, args)],
            stdout=subprocess.PIPE,
            stderr=its_end,
            env=os.environ | {"TERM": "xterm", "COLUMNS": "100"},
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGINT, ours)
    os.close(its_end)
    assert running.stdout is not None
    told = b""
    while not re.search(when, told):
        told += os.read(terminal, 4096)
    running.send_signal(signal.SIGINT)
    with suppress(OSError):  # how a terminal says that nobody writes to it any more
        while True:
            told += os.read(terminal, 4096)
    os.close(terminal)
    said = json.loads(running.stdout.read())
    running.stdout.close()
    return Stopped(running.wait(60), told, said)
