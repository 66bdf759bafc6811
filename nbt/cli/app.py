"""The `nbt` command: selects the subcommand and maps every outcome to an exit code and an error to one line on stderr.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted with all finished work stored.
"""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import click

from nbt._version import __version__
from nbt.cli.display.output import Output, print_to_stderr
from nbt.errors import NbtError, nearest
from nbt.machine.cores import limit_spinning
from nbt.tuning.engines.interrupts import InterruptGuard
from nbt.uris import redact_uri

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130

COMMANDS = (
    *("search", "train", "predict", "evaluate", "export", "report", "sync", "studies"),
    *("fit", "record", "replay", "check", "cache", "datasets", "backbones", "spaces", "ui", "doctor"),
    *("pretrain", "inject", "continual"),
)


class _CommandGroup(click.Group):
    """Imports the module of a command when the command is requested; loses no Ctrl-C while it runs."""

    def invoke(self, ctx: click.Context) -> object:
        with InterruptGuard([signal.SIGINT]):
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"nbt.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and name not in COMMANDS:
            raise click.UsageError(f"unknown command {name!r}; {nearest(name, COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)


# The marker \b keeps click from rewrapping the lines that follow.
# Errors of a disk for which no part of nbt has a message of its own -> remedy.
_DISK_ERRORS = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EROFS: "make the folder writable",
    errno.EIO: "check the disk",
}
_EXAMPLES = """\b
Examples:
  nbt search --dataset numbers --shots 8 --budget 12   complete search, embedded images
  nbt search --dataset FOLDER --budget 2h              your images, one subfolder per class
"""


@click.group(
    cls=_CommandGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_EXAMPLES,
)
@click.version_option(__version__, message="%(version)s")
@click.pass_context
def nbt(ctx: click.Context) -> None:
    """Find out how much of a pretrained network to transfer to your images and how to fine-tune it."""
    if ctx.invoked_subcommand is None:
        raise click.UsageError(f"no command; expected one of {', '.join(COMMANDS)} (see nbt --help)", ctx)


def run(arguments: Sequence[str]) -> int:
    """Runs one command line.

    Args:
        arguments: The arguments without the name of the program.

    Returns:
        The exit code.
    """
    out = Output()
    limit_spinning()
    try:
        code = nbt.main(list(arguments), prog_name="nbt", standalone_mode=False, obj=out)
        sys.stdout.flush()
        return code if isinstance(code, int) else DONE
    except click.ClickException as error:
        return _fail(_usage_message(error), WRONG_USAGE)
    except NbtError as error:
        return _fail(error.command_line_text or str(error), error.exit_code, trace=out.verbose)
    except click.Abort as error:
        print_to_stderr(str(error.__cause__ or "") or "interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has closed the pipe, so the interpreter must not flush the rest of the output at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        return _fail(_disk_message(error) or _unexpected_message(error, out), FAILED, trace=out.verbose)
    except Exception as error:
        return _fail(_unexpected_message(error, out), FAILED, trace=out.verbose)


def _fail(message: str, code: int, *, trace: bool = False) -> int:
    if trace:
        print_to_stderr(redact_uri(traceback.format_exc().rstrip()))
    print_to_stderr("error:", redact_uri(" ".join(message.split())))
    return code


def _disk_message(error: OSError) -> str:
    """Returns what to do about a disk that takes no more files; "" for another error."""
    if error.errno not in _DISK_ERRORS or error.filename is None:
        return ""
    folder = Path(os.fsdecode(error.filename)).parent
    return f"{folder}: {os.strerror(error.errno)}; {_DISK_ERRORS[error.errno]} and run the same command again"


def _unexpected_message(error: Exception, out: Output) -> str:
    hint = "" if out.verbose else " (run again with -v for the traceback)"
    return f"{type(error).__name__}: {error}{hint}"


def _usage_message(error: click.ClickException) -> str:
    """Returns one line that states what is wrong with the arguments and, where possible, the remedy."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    hint = f"; see {context.command_path} --help" if context else ""
    if isinstance(error, click.NoSuchOption) and context is not None:
        options = [name for param in context.command.get_params(context) for name in param.opts if name[:1] == "-"]
        return f"unknown option {error.option_name}; {nearest(error.option_name, options, count=1)}"
    if isinstance(error, click.MissingParameter) and error.param is not None:
        return f"missing {_parameter_name(error.param)}{hint}"
    if isinstance(error, click.BadParameter) and error.param is not None:
        return f"{_parameter_name(error.param)}: {error.message.rstrip('.')}"
    message = error.message.rstrip(".")
    return message[:1].lower() + message[1:]


def _parameter_name(param: click.Parameter) -> str:
    return param.opts[0] if isinstance(param, click.Option) else param.make_metavar(click.Context(nbt)).rstrip(".")
