"""Usage errors of Typer, turned into our own: what is wrong, and what to type."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer

from vidcvae.errors import UsageError, counted, did_you_mean, typed

MISTAKE: Any = typer.BadParameter.__base__  # Click's own UsageError, which Typer keeps to itself

# Example values for parameters without a default, by placeholder or option
_EXAMPLES = {"MINUTES": "10", "N": "10", "X": "0.5", "--lr": "0.001", "--fps": "25"}
_RANGE = re.compile(r"(greater|less) than or equal to (\S+)")


@contextmanager
def answered(command: Any, ctx: typer.Context, arguments: Sequence[str]) -> Iterator[None]:
    """Raise ``UsageError`` instead of the errors that Typer would print in a box."""
    try:
        yield
    except MISTAKE as error:
        raise of_value(error, arguments) or of_name(error, command, ctx) or error from None


def of_name(error: Any, command: Any, ctx: typer.Context) -> UsageError | None:
    """The error of an unknown option, one without its value, or a missing parameter; None for other errors."""
    path = ctx.command_path.split()[1:]
    shown = [p for p in command.get_params(ctx) if p.param_type_name == "option" and not p.hidden]
    options = {name: p for p in shown for name in p.opts}
    if (given := getattr(error, "option_name", None)) is None:
        if error.message or getattr(error, "param", None) is None:
            return None
        examples = [line.strip() for line in (command.epilog or "").splitlines()[1:]]
        hint = f"For example: {examples[0]}" if examples else f"To see what it takes: {typed(*path, '--help')}"
        return UsageError(f"{_title(error.param)} is missing.", hint)
    if given in options:
        metavar = options[given].metavar
        if not metavar:
            return UsageError(f"{given} takes no value.", f"Type it alone: {given}")
        hint = f"For example: {given} {_example(given, options[given])}" if metavar in _EXAMPLES else ""
        return UsageError(
            f"{given} needs a value: {given} {metavar}.", hint or f"To see what it is: {typed(*path, '--help')}"
        )
    known = [name.removeprefix("--") for name in options if name.startswith("--")]
    # Names are compared without the dashes that all options share
    meant = did_you_mean(given.lstrip("-"), known).replace("'", "'--", 1)
    return UsageError(f"there is no option {given}.{meant}", f"To list them: {typed(*path, '--help')}")


def of_command(group: Any, ctx: typer.Context, name: str) -> UsageError:
    """The error of an unknown command."""
    path = ctx.command_path.split()[1:]
    meant = did_you_mean(name, group.list_commands(ctx))
    return UsageError(f"there is no command {name!r}.{meant}", f"To list them: {typed(*path, '--help')}")


def of_value(error: typer.BadParameter, arguments: Sequence[str]) -> UsageError | None:
    """The error of a value that is not a number, is out of range, or is refused by Typer; None for other errors."""
    parameter: Any = getattr(error, "param", None)
    ranged, whole = _RANGE.search(error.message), "valid integer" in error.message
    if parameter is None:
        return None
    title = _title(parameter)
    if not (ranged or whole or "valid number" in error.message):
        known = isinstance(error, typer.BadParameter) and error.message
        return UsageError(f"{title}: {error.message.rstrip('.')}.") if known else None
    value = _value(parameter.opts, arguments)
    if ranged:
        must, example = f"at {'least' if ranged[1] == 'greater' else 'most'} {ranged[2]}", ranged[2]
    else:
        must, example = f"a {'whole ' if whole else ''}number", _example(title, parameter)
    shown = value if ranged else repr(value)
    message = f"{title} is {shown}, but it must be {must}." if value else f"{title} must be {must}."
    return UsageError(
        message, f"For example: {title} {example}" if title.startswith("-") else f"For example: {example}"
    )


def _title(parameter: Any) -> str:
    option = parameter.param_type_name == "option"
    return str(max(parameter.opts, key=len) if option else parameter.metavar.strip("[]{}."))


def _example(title: str, parameter: Any) -> str:
    if isinstance(parameter.default, int | float) and parameter.default:
        return f"{parameter.default:g}"
    return _EXAMPLES.get(title) or _EXAMPLES.get(parameter.metavar or "") or "10"


def _value(names: Sequence[str], arguments: Sequence[str]) -> str:
    for word, after in zip(arguments, [*arguments[1:], ""], strict=True):
        name, _, value = word.partition("=")
        if name in names:
            return value or after
    return ""


def of_extra(command: Any, ctx: typer.Context, extra: Sequence[str]) -> UsageError:
    """The error of more arguments than the command takes."""
    known = [p for p in command.params if p.param_type_name == "argument" and not p.hidden]
    takes = " and ".join(p.metavar.strip("[]{}.") for p in known) or "no argument"
    path = ctx.command_path.split()[1:]
    given = [ctx.params[p.name] for p in known if ctx.params.get(p.name) is not None]
    one = "one " if len(known) == 1 else ""
    too_many, leave = f"{extra[0]!r} is an argument too many", "Leave it out"
    if len(extra) > 1:
        too_many, leave = f"{' '.join(extra)} are {counted(len(extra), 'argument')} too many", "Leave them out"
    return UsageError(f"{too_many}: {' '.join(path)} takes {one}{takes}.", f"{leave}: {typed(*path, *given)}")
