# SPDX-License-Identifier: GPL-2.0-or-later
"""The command ``mmucheck``: its commands, its exit statuses, its one line for an error.

Exit status 0: all agreed. 1: a mismatch or a failing check. 2: bad usage or bad input, told in
one line on standard error. 130: interrupted (typer sees to that). ``run`` exits with its guest's
status. A defect of mmucheck itself is one line too, with status 70; ``MMUCHECK_TRACEBACK=1``
shows where it is.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, Final

import typer

from harness.commands.boot import boot
from harness.commands.conform import conform
from harness.commands.diff import diff
from harness.commands.doctor import doctor
from harness.commands.explain import explain
from harness.commands.help import Command, CommandGroup
from harness.commands.options import takes_groups
from harness.commands.replay import replay
from harness.commands.report import report
from harness.commands.run import run
from harness.cpu.watch import watch
from harness.elf_headers import printable
from kernel_model.errors import BadInput, MmucheckError

EXIT_FAILED: Final = 1
EXIT_BAD_INPUT: Final = 2
EXIT_DEFECT: Final = 70
EXIT_INTERRUPTED: Final = 130


class OneLineErrors(CommandGroup):
    """The command group that turns what a command returns or raises into an exit status."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line and exit; with ``standalone_mode`` off, raise and return."""
        command = partial(
            super().main,
            args=args,
            prog_name=prog_name or "mmucheck",
            complete_var=complete_var,
            standalone_mode=False,
            windows_expand_args=windows_expand_args,
            **extra,
        )
        if not standalone_mode:
            return command()
        sys.exit(_status(command))

    def make_context(self, *args: Any, **extra: Any) -> Any:
        """Read the command line. Typer would end the process silently at Ctrl-C."""
        try:
            return super().make_context(*args, **extra)
        except KeyboardInterrupt:
            raise Interrupted from None

    def invoke(self, ctx: Any) -> Any:
        """Run the command, and likewise."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted from None


class Interrupted(Exception):
    """Ctrl-C."""


def _status(command: Callable[[], Any]) -> int:
    """The exit status that ``command`` means by what it returns or raises."""
    try:
        return int(command() or 0)
    except Interrupted:
        return _fail(EXIT_INTERRUPTED, "interrupted")
    except typer.TyperException as error:
        return _fail(EXIT_BAD_INPUT, f"error: {error.format_message()}{_hint(error)}")
    except BadInput as error:
        return _fail(EXIT_BAD_INPUT, f"error: {error}")
    except MmucheckError as error:
        headline = getattr(error, "headline", "")
        if headline:
            print(*map(printable, str(error).splitlines()), sep="\n", file=sys.stderr)
        return _fail(EXIT_FAILED, f"{type(error).__name__}: {headline or error}")
    except OSError as error:
        return _fail(EXIT_BAD_INPUT, f"error: {error.filename or 'I/O'}: {error.strerror}")
    except Exception as error:
        if os.environ.get("MMUCHECK_TRACEBACK"):
            raise
        return _fail(EXIT_DEFECT, f"defect: {type(error).__name__}: {error}")


def _hint(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f" (see {context.command_path} --help)" if context else ""


def _fail(status: int, message: str) -> int:
    line = printable(" ".join(message.split()))
    print(f"mmucheck: {line}", file=sys.stderr)
    return status


app = typer.Typer(
    cls=OneLineErrors,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.")
    ] = False,
) -> None:
    """Does a virtual memory manager drive the MMU the way it believes it does?

    A model of the Linux i386 virtual memory manager builds its page tables in the RAM of an
    emulated CPU. What the kernel means, what the architecture says and what the CPU does are
    compared for every address.

    **Start with**

    - `mmucheck doctor`: what this machine offers
    - `mmucheck run hello`: a program under the model
    - `mmucheck diff`: every translation compared
    - `mmucheck --install-completion`: let your shell complete options and their values

    **Exit status**

    - 0: all agreed. 1: something differs, or a check failed
    - 2: bad usage or bad input, told in one line on standard error
    - 70: a defect of mmucheck itself; MMUCHECK_TRACEBACK=1 shows where
    - 130: interrupted
    - `run` ends with its program's status: 128 + n after signal n, 124 at a limit

    Colours go to a terminal only; NO_COLOR turns them off, FORCE_COLOR on.
    """
    logging.basicConfig(format="mmucheck: %(message)s", level=logging.WARNING)
    if show_version:
        print(f"mmucheck {_version()}")
        raise typer.Exit(0)
    if context.invoked_subcommand is None:
        print(context.get_help(), end="")
        raise BadInput("no command given: choose one of the above")


def _version() -> str:
    try:
        return version("mmucheck")
    except PackageNotFoundError:
        return "(not installed)"


app.command(cls=Command, context_settings={"allow_interspersed_args": False})(takes_groups(run))
app.command(cls=Command)(takes_groups(diff))
app.command(cls=Command)(takes_groups(explain))
app.command(cls=Command)(takes_groups(boot))
app.command(cls=Command)(takes_groups(conform))
app.command(cls=Command)(takes_groups(replay))
app.command(cls=Command)(takes_groups(report))
app.command(cls=Command)(takes_groups(doctor))


def main() -> None:
    """The console script."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # Closed by the caller: there is nobody to tell anything.
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    signal.signal(signal.SIGINT, watch.on_sigint)
    app(prog_name="mmucheck")


if __name__ == "__main__":
    main()
