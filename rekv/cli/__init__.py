"""The `rekv` command. Each verb is a file of this package, imported when it is called."""

import logging
import sys
from collections.abc import Mapping
from errno import EPIPE
from importlib import import_module
from textwrap import shorten
from typing import Any, NamedTuple

import click

from rekv.errors import ConfigError, RekvError


class Verb(NamedTuple):
    """Where a command lives and its line in the help, which is shown without importing it."""

    target: str  # "module:attribute"
    summary: str


VERBS: Mapping[str, Verb] = {
    "ask": Verb("rekv.cli.ask:ask", "Ask questions of a video or of a session."),
    "data": Verb("rekv.cli.data:commands", "List, check, convert and generate benchmarks."),
    "demo": Verb("rekv.cli.demo:demo", "Play a generated video as a stream and ask questions as it goes."),
    "doctor": Verb("rekv.cli.doctor:doctor", "Say what this machine has, and what to do about what is missing."),
    "eval": Verb("rekv.cli.eval:eval_", "Ask models the questions of benchmarks, and report scores and costs."),
    "export": Verb("rekv.cli.archive:export", "Write a session to one file, to be kept or carried elsewhere."),
    "import": Verb("rekv.cli.archive:import_", "Add a session from a file that `rekv export` wrote."),
    "ingest": Verb("rekv.cli.ingest:ingest", "Read a video, or each of many, into a session on disk."),
    "ls": Verb("rekv.cli.sessions:ls", "List the sessions."),
    "models": Verb("rekv.cli.models:models", "List models, families, and what lies here."),
    "pin": Verb("rekv.cli.pin:pin", "Keep a time span of a session from being removed."),
    "prune": Verb("rekv.cli.prune:prune", "Remove the oldest frames of all sessions, to make room."),
    "report": Verb("rekv.cli.report:report", "Compare runs of `rekv eval` in tables and plots."),
    "rm": Verb("rekv.cli.sessions:rm", "Delete sessions."),
    "show": Verb("rekv.cli.sessions:show", "Say what is in a session."),
    "verify": Verb("rekv.cli.verify:verify", "Check a session's files, and mend what can be mended."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when called, and whose errors are messages, not tracebacks."""

    def __init__(self, *args: Any, verbs: Mapping[str, Verb], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.verbs = verbs

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.verbs:
            return None
        module, _, attribute = self.verbs[cmd_name].target.partition(":")
        try:
            command: click.Command = getattr(import_module(module), attribute)
        except ImportError as error:
            if ctx.params.get("debug"):
                raise
            raise click.ClickException(f"'{cmd_name}' cannot start: {error}. Run 'rekv doctor'.") from error
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.verbs[name].summary) for name in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except RekvError as error:
            if ctx.params["debug"]:
                raise
            # What is closed on the way out would tell the same once more.
            logging.getLogger("rekv").handlers = [logging.NullHandler()]
            kind = click.UsageError if isinstance(error, ConfigError) else click.ClickException
            raise kind(str(error)) from error
        except OSError as error:
            if ctx.params["debug"] or error.errno == EPIPE:  # click ends quietly when nobody reads on
                raise
            raise click.ClickException(str(error)) from error
        except (RuntimeError, MemoryError) as error:
            if ctx.params["debug"] or not _out_of_memory(error):
                raise
            reason = shorten(str(error) or "out of memory", 120, placeholder=" ...")
            raise click.ClickException(
                f"{reason.rstrip('.')}. --weights int4 packs weights, --device auto uses all GPUs, --dtype bfloat16 "
                f"takes half; `rekv models` tells what frames of a model take, `rekv doctor` what is here"
            ) from error
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(130)


def _out_of_memory(error: Exception) -> bool:
    """Whether it is Python's, RAM's or a GPU's: torch's class by its name, for it is slow to import."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "DefaultCPUAllocator: not enough memory" in str(error)
    )


class StderrHandler(logging.Handler):
    """Log records on whatever `sys.stderr` is at the time: a progress display replaces it while it runs."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


@click.group(
    cls=LazyGroup,
    verbs=VERBS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="rekv", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, envvar="REKV_DEBUG", help="Log more, and show errors with their traceback.")
def main(debug: bool) -> None:
    """Ask questions of live and recorded video.

    A Video-LLM reads every frame once; a question loads back only the frames that matter.
    """
    handler = StderrHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logger = logging.getLogger("rekv")
    logger.handlers = [handler]
    logger.setLevel(logging.DEBUG if debug else logging.WARNING)
    # torchao, where it is installed, tells at every start which of its kernels this machine does not have.
    for noisy in ("torchao", "torch.utils._pytree"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
