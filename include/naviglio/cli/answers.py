"""What every command shares: one answer, told to people or as JSON; errors; exit codes; logs."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import sys
import traceback as tracebacks
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec

import typer

from naviglio.errors import NaviglioError, StorageError

if TYPE_CHECKING:
    from rich.console import Console

INTERRUPTED = 130
P = ParamSpec("P")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead.")]
Verbose = Annotated[
    int,
    typer.Option(
        "--verbose", "-v", count=True, show_default=False, help="Log to stderr; twice: details."
    ),
]
Traceback = Annotated[bool, typer.Option("--traceback", help="Show where an error was raised.")]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command found: as data for machines, and how to show it to people.

    `errors` are told on stderr after it; the first one gives the exit code unless `exit_code` does.
    """

    data: object
    show: Callable[[Console], None]
    errors: Sequence[NaviglioError] = ()
    exit_code: int = 0


def answering(command: Callable[P, Answer]) -> Callable[..., None]:
    """Give a command `--json`, `-v` and `--traceback`; tell its answer and exit by it."""
    signature = inspect.signature(command, eval_str=True)
    shared = {"json": (Json, False), "verbose": (Verbose, 0), "traceback": (Traceback, False)}

    @functools.wraps(command)
    def told(*, json: bool, verbose: int, traceback: bool, **arguments: Any) -> None:
        _log_to_stderr(verbose)
        try:
            answer = command(**arguments)  # type: ignore[call-arg]  # what the signature said
        except (NaviglioError, OSError) as error:
            refusal = _refusal(error)
            answer = Answer(data=error_data(refusal), show=lambda _: None, errors=[refusal])
        except KeyboardInterrupt:
            complain("Interrupted. What was committed stays; the next run goes on from there.")
            raise typer.Exit(INTERRUPTED) from None
        _write(_as_json(answer.data) if json else _as_text(answer))
        if traceback:
            for wrong in answer.errors:
                tracebacks.print_exception(wrong)
        else:  # what several groups met alike is told once
            told_once = dict.fromkeys(f"{type(wrong).__name__}: {wrong}" for wrong in answer.errors)
            complain("\n".join(told_once))
        code = answer.exit_code or next((wrong.exit_code for wrong in answer.errors), 0)
        if code:
            raise typer.Exit(code)

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [p.replace(kind=keyword) for p in signature.parameters.values()]
    parameters += [
        inspect.Parameter(name, keyword, default=default, annotation=annotation)
        for name, (annotation, default) in shared.items()
    ]
    told.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # read by Typer
    told.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return told


def _refusal(error: NaviglioError | OSError) -> NaviglioError:
    """Return what to tell; of an OSError the place that can't be read or written."""
    if isinstance(error, NaviglioError):
        return error
    if error.filename is None:
        raise error
    unfit = StorageError(f"{error.filename}: {error.strerror}. Mend it, or name another place.")
    unfit.__cause__ = error
    return unfit


def error_data(error: NaviglioError) -> dict[str, dict[str, object]]:
    """Return an error as data."""
    told: dict[str, object] = {
        "kind": type(error).__name__,
        "message": str(error),
        "exit_code": error.exit_code,
    }
    return {"error": told}


def console(*, stderr: bool = False) -> Console:
    """Return a console; where nobody looks at it, lines are as wide as they need to be."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, highlight=False, width=None if stream.isatty() else 10_000)


def _log_to_stderr(verbose: int) -> None:
    """Set up logging, here and nowhere else: the core's lines go to stderr, or nowhere."""
    log = logging.getLogger("naviglio")
    log.handlers.clear()
    log.setLevel((logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)])
    if not verbose:
        log.addHandler(logging.NullHandler())  # errors are told by the command itself
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    log.addHandler(handler)


def _as_json(data: object) -> str:
    import msgspec

    return msgspec.json.format(msgspec.json.encode(data), indent=2).decode() + "\n"


def _as_text(answer: Answer) -> str:
    out = console()
    with out.capture() as captured:
        answer.show(out)
    return captured.get()


def _write(text: str) -> None:
    """Write to stdout; a reader who went away (`| head`) has seen enough."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would flush once more at exit, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(text: str) -> None:
    """Write a line to stderr, if there is one; nobody may be there to read it."""
    if not text:
        return
    with suppress(BrokenPipeError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
