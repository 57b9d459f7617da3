"""The `rekv` command itself: help, version, errors, signals."""

import logging
import subprocess
import sys
from importlib.metadata import entry_points, version

import click
import pytest
from click.testing import CliRunner

from rekv.cli import VERBS, Verb, main
from rekv.errors import RekvError


@click.command()
def fails() -> None:
    raise RekvError("the lens cap is on; take it off")


@click.command()
def interrupted() -> None:
    raise KeyboardInterrupt


@click.command()
@click.option("--kind", type=click.Choice(["gpu", "ram", "python", "other"]))
def fills(kind: str) -> None:
    import torch

    raise {
        "gpu": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ..."),
        "ram": RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: not enough memory"),
        "python": MemoryError(),
        "other": RuntimeError("shapes differ"),
    }[kind]


@click.command()
def warns() -> None:
    logging.getLogger("rekv.somewhere").warning("the file ends after %d s", 3)
    logging.getLogger("rekv.somewhere").info("not of interest")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """A runner of `main` whose verbs are those of this file, and one that does not exist."""
    verbs = {name: Verb(f"{__name__}:{name}", "") for name in ("fails", "fills", "interrupted", "warns")}
    monkeypatch.setattr(main, "verbs", verbs | {"gone": Verb("rekv.no_such_module:gone", "")})
    return CliRunner()


def python(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, timeout=60, check=False)


def test_help_names_every_verb() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    for name, verb in VERBS.items():
        assert name in result.output
        assert verb.summary in result.output


@pytest.mark.parametrize("name", sorted(VERBS))
def test_the_help_line_is_what_the_command_says_of_itself(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.get_short_help_str(limit=200) == VERBS[name].summary


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from rekv.cli import main; main(['--help'], standalone_mode=False); "
        "print({'torch', 'transformers', 'av', 'numpy'} & set(sys.modules))"
    )
    result = python("-c", code)
    assert result.stdout.splitlines()[-1] == "set()", result


def test_python_m_rekv_is_rekv() -> None:
    assert python("-m", "rekv", "--version").stdout == f"rekv {version('rekv')}\n"
    assert python("-m", "rekv", "--help").stdout.startswith("Usage: rekv ")


def test_the_installed_command_is_main() -> None:
    (script,) = entry_points(group="console_scripts", name="rekv")
    assert script.load() is main


def test_an_error_of_ours_is_a_message(run: CliRunner) -> None:
    result = run.invoke(main, ["fails"])
    assert result.exit_code == 1
    assert result.stderr == "Error: the lens cap is on; take it off\n"


@pytest.mark.parametrize(
    ("kind", "told"), [("gpu", "CUDA out of memory."), ("ram", "memory"), ("python", "out of memory.")]
)
def test_a_full_memory_is_told_with_what_takes_less(run: CliRunner, kind: str, told: str) -> None:
    result = run.invoke(main, ["fills", "--kind", kind])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert told in result.stderr
    assert "--weights int4" in result.stderr
    debug = run.invoke(main, ["--debug", "fills", "--kind", kind])
    assert isinstance(debug.exception, RuntimeError | MemoryError)


def test_other_faults_keep_their_traceback(run: CliRunner) -> None:
    result = run.invoke(main, ["fills", "--kind", "other"])
    assert isinstance(result.exception, RuntimeError)


@pytest.mark.parametrize(("args", "env"), [(["--debug"], {}), ([], {"REKV_DEBUG": "1"})])
def test_debug_shows_the_traceback(run: CliRunner, args: list[str], env: dict[str, str]) -> None:
    result = run.invoke(main, [*args, "fails"], env=env)
    assert isinstance(result.exception, RekvError)


def test_an_interrupt_ends_with_130(run: CliRunner) -> None:
    result = run.invoke(main, ["interrupted"])
    assert result.exit_code == 130
    assert "Traceback" not in result.output


def test_a_verb_that_cannot_be_imported_fails_only_when_called(run: CliRunner) -> None:
    assert run.invoke(main, ["--help"]).exit_code == 0
    result = run.invoke(main, ["gone"])
    assert result.exit_code == 1
    assert "rekv.no_such_module" in result.stderr
    assert "rekv doctor" in result.stderr


def test_an_unknown_verb_is_a_usage_error() -> None:
    result = CliRunner().invoke(main, ["answer"])
    assert result.exit_code == 2
    assert "answer" in result.stderr


def test_warnings_of_the_library_reach_stderr_once(run: CliRunner) -> None:
    run.invoke(main, ["warns"])
    result = run.invoke(main, ["warns"])
    assert result.stderr == "WARNING: the file ends after 3 s\n"
    assert result.stdout == ""


def test_a_reader_that_goes_away_is_no_error_message() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "rekv", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    process.wait(timeout=60)
