"""Runs a benchmark as its command line does, in this process: importing torch once more takes longer than many runs."""

import io
import runpy
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess
from unittest.mock import patch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def script(name: str, *words: object) -> "CompletedProcess[str]":
    """Run `python benchmarks/NAME WORDS`; what it raises is the caller's."""
    command = [str(BENCHMARKS / name), *map(str, words)]
    out, err, code = io.StringIO(), io.StringIO(), 0
    places = [str(BENCHMARKS), *sys.path]
    with (
        redirect_stdout(out),
        redirect_stderr(err),
        patch.object(sys, "argv", command),
        patch.object(sys, "path", places),
    ):
        try:
            runpy.run_path(command[0], run_name="__main__")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
            if isinstance(end.code, str):
                err.write(end.code)
    return CompletedProcess(command, code, out.getvalue(), err.getvalue())
