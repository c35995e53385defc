"""How commands are declared, so that all of them share panels, placeholders and wording in --help.

A command is a function whose parameters are annotated with ``option`` or ``argument``. An option takes its name from
the parameter and its choices from a ``Literal`` type. The docstring is the help text; its last paragraph may begin with
``Examples:``. ``Also`` in an annotation declares a second way to give the same value.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

import typer
from typer.core import TyperCommand, TyperGroup
from typer.models import ArgumentInfo, OptionInfo, ParameterInfo

from vidcvae.cli import ui, usage
from vidcvae.config.schema import choices
from vidcvae.errors import UsageError, did_you_mean

Function = TypeVar("Function", bound=Callable[..., None])

PANELS = {
    "Data": (
        *("dataset", "data", "split", "size", "partial", "fast_train", "clips", "val", "test"),
        *("first_frame", "poses", "trajectory", "past_frames", "actions", "positions", "fill", "fit_poses"),
        *("target_poses", "shuffle_actions", "keypoints", "keypoint_format", "estimate", "pose_model", "people"),
        *("save_keypoints", "crop", "fit", "val_fraction", "min_score", "max_gap", "smooth", "no_steady", "style"),
        *("camera", "record"),
    ),
    "Model": (
        *("preset", "config", "set_", "model", "init", "weights", "latent", "latents", "samples", "batch_size"),
        *("clip_length", "lr", "vary", "also", "resume_from", "against"),
    ),
    "Time": (
        *("epochs", "more_epochs", "max_minutes", "more_minutes", "steps", "seeds", "jobs", "past", "future"),
        *("frames", "every", "frame", "long", "repeats"),
    ),
    "Output": (
        *("output", "run", "gifs", "csv", "preview", "sort", "markdown", "terminal", "upscale", "fps", "side_by_side"),
        *("videos", "packed", "dry_run", "yes", "play", "no_browser", "port", "wait", "plain", "json"),
        *("quiet", "verbose"),
    ),
}
ADVANCED = "Advanced"  # every other option
PANEL_OF = {name: panel for panel, names in PANELS.items() for name in names}

# Placeholders of values in help and usage lines, by parameter name, else by type
PLACEHOLDERS = {
    **dict.fromkeys(("max_minutes", "more_minutes"), "MINUTES"),
    **dict.fromkeys(("dataset", "data"), "DATASET"),
    **dict.fromkeys(("config", "csv", "file", "latents", "first_frame", "actions", "positions", "pose_model"), "FILE"),
    **dict.fromkeys(("lpips_weights", "fvd_weights", "save_keypoints"), "FILE"),
    **dict.fromkeys(("trajectory", "past_frames", "gifs"), "FOLDER"),
    **{"size": "HxW", "runs": "RUN", "split": "SPLIT", "init": "RUN"},
}
BY_TYPE: dict[Any, str] = {bool: "", int: "N", float: "X", str: "TEXT", Path: "PATH"}

LONGEST_METAVAR = 20  # letters; a longer list of choices goes into the help text, which wraps better

REPLACED = "An existing file is replaced."
NEW_FOLDER = "It must be new or empty."


def option(help: str, *names: str, **settings: Any) -> Any:
    """A Typer option, called ``--first-frame`` for the parameter ``first_frame`` unless ``names`` has a long name."""
    return typer.Option(*names, help=help, **settings)


def argument(help: str, **settings: Any) -> Any:
    """A Typer argument."""
    return typer.Argument(help=help, **{"show_default": False} | settings)


def output_file(help: str, **settings: Any) -> Any:
    """The option -o for a file that a command writes."""
    return option(f"{help} {REPLACED}", "-o", **settings)


def output_folder(help: str, **settings: Any) -> Any:
    """The option -o for a folder that a command makes."""
    return option(f"{help} {NEW_FOLDER}", "-o", **settings)


@dataclass(frozen=True)
class OneOf:
    """The choices of a parameter whose type does not list them."""

    names: Iterable[str]


@dataclass(frozen=True)
class Also:
    """A second way to give a parameter: the name of an option or of an argument.

    Without ``help`` it is an old name, which still works but is hidden.
    """

    name: str
    help: str = ""


Json = Annotated[bool, option("Print the result as one JSON document.")]
JsonEvents = Annotated[bool, option("Print one JSON event per line.")]
Plain = Annotated[bool, option("Print plain lines instead of a live display.")]
Quiet = Annotated[bool, option("Print only results, warnings and errors.", "--quiet", "-q")]
Verbose = Annotated[bool, option("Also print what was decided, and why.", "--verbose", "-v")]
Dataset = Annotated[
    str,
    argument("Dataset folder, packed dataset, or synthetic:dance."),
    Also("--data", "The dataset; the same as DATASET."),
]


class App(typer.Typer):
    """A Typer app whose commands are declared as described in this module."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(cls=_Group, **settings)

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Function], Function]:
        def register(function: Function) -> Function:
            text, examples = split_docstring(function.__doc__ or "")
            add = super(App, self).command(name, cls=_Command, help=text, epilog=examples, **settings)
            add(_for_typer(function))
            return function

        return register


def split_docstring(docstring: str) -> tuple[str, str]:
    """The help text, one line per paragraph, and the examples, one line each."""
    paragraphs = inspect.cleandoc(docstring).split("\n\n")
    examples = [p for p in paragraphs if p.startswith("Examples:")]
    return "\n\n".join(" ".join(p.split()) for p in paragraphs if p not in examples), "\n".join(examples)


class _Group(TyperGroup):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with usage.answered(self, ctx, list(args)):
            return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except usage.MISTAKE:
            raise usage.of_command(self, ctx, args[0]) from None


class _Command(TyperCommand):
    """Leaves hidden parameters out of the usage line and Python types out of the help, and puts --help into a panel."""

    def get_params(self, ctx: Any) -> list[Any]:
        parameters: list[Any] = super().get_params(ctx)
        for parameter in parameters:
            if parameter.param_type_name == "argument":
                parameter.display_type_rich = lambda ctx: ""
        return parameters

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        typed = list(args)
        ctx.allow_extra_args = True
        with usage.answered(self, ctx, typed):
            rest: list[str] = super().parse_args(ctx, args)
        if rest and not ctx.resilient_parsing:  # which is set while a shell completes a line
            raise usage.of_extra(self, ctx, rest)
        return rest

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        shown = [p for p in self.get_params(ctx) if not getattr(p, "hidden", False)]
        return [self.options_metavar or "", *(piece for p in shown for piece in p.get_usage_pieces(ctx))]

    def get_help_option(self, ctx: Any) -> Any:
        help_option: Any = super().get_help_option(ctx)
        if help_option is not None:
            help_option.rich_help_panel, help_option.metavar = ADVANCED, ""
        return help_option


def _for_typer(function: Callable[..., None]) -> Callable[..., None]:
    """The function with the signature that Typer reads: parameters by panel, their aliases, --quiet and --verbose."""
    parameters = inspect.signature(function, eval_str=True).parameters
    ways = {name: _declarations(parameter) for name, parameter in parameters.items()}
    for name, kind in (("quiet", Quiet), ("verbose", Verbose)):
        ways[name] = _declarations(_parameter(name, kind, False))
    example = split_docstring(function.__doc__ or "")[1].partition("\n")[2].partition("\n")[0].strip()
    hint = f"For example: {example}" if example else "To see what it means, add --help"

    def run(**values: Any) -> None:
        ui.choose_loudness(quiet=values.pop("quiet"), verbose=values.pop("verbose"))
        function(**{n: _one(p, [(way, values[way.name]) for way in ways[n]], hint) for n, p in parameters.items()})

    panels = [*PANELS, ADVANCED]
    declared = itertools.chain.from_iterable(ways.values())
    ordered = sorted(declared, key=lambda p: panels.index(_info(p).rich_help_panel or panels[0]))
    run.__signature__ = inspect.Signature(ordered)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in ordered}
    run.__name__, run.__doc__ = function.__name__, function.__doc__
    return run


def _parameter(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _info(parameter: inspect.Parameter) -> Any:
    return next(extra for extra in get_args(parameter.annotation) if isinstance(extra, ParameterInfo))


def _declarations(parameter: inspect.Parameter) -> list[inspect.Parameter]:
    """A parameter with its name, panel, choices and placeholder filled in, followed by its aliases."""
    kind, *extras = get_args(parameter.annotation)
    info: Any = copy(_info(parameter))
    if isinstance(info, OptionInfo):
        names = _names(info)
        if not any(name.startswith("--") for name in names):
            names.append(f"--{parameter.name.strip('_').replace('_', '-')}")
        info.default, info.param_decls = names[0], names[1:]
        info.rich_help_panel = info.rich_help_panel or PANEL_OF.get(parameter.name, ADVANCED)
    listed = [extra.names for extra in extras if isinstance(extra, OneOf)]
    if known := next(filter(None, [*map(tuple, listed), *map(choices, (kind, *get_args(kind)))]), ()):
        _restrict(info, _title(parameter.name, info), known)
    elif info.metavar is None:
        info.metavar = _placeholder(parameter.name, kind, isinstance(info, ArgumentInfo))
    aliases = [extra for extra in extras if isinstance(extra, Also)]
    default = parameter.default
    shown = info.show_default
    if aliases and shown is True and default not in (None, inspect.Parameter.empty):
        shown = str(default)
    if isinstance(shown, str):  # Typer would put it into a second pair of brackets
        info.help, info.show_default = f"{info.help} [dim]\\[default: {shown}][/dim]", False
    if aliases:  # None means that it was not given
        if default is inspect.Parameter.empty:
            info.help, info.show_default = f"{info.help} [red]\\[required][/red]", False
        default, kind = None, kind | None
    own = _parameter(parameter.name, Annotated[kind, info], default)
    return [own, *(_alias(parameter.name, kind, info, also) for also in aliases)]


def _alias(name: str, kind: Any, info: Any, also: Also) -> inspect.Parameter:
    shared = {key: getattr(info, key) for key in ("parser", "autocompletion", "metavar", "min", "max")}
    shared |= {"hidden": not also.help, "show_default": False}
    text = also.help or f"Old name of {_title(name, info)}."
    if also.name.startswith("-"):
        declared = option(text, also.name, rich_help_panel=PANEL_OF.get(name, ADVANCED), **shared)
    else:
        declared = argument(text, **shared | {"metavar": also.name})
    return _parameter(f"also_{also.name.strip('-').replace('-', '_').lower()}", Annotated[kind, declared])


def _restrict(info: Any, title: str, known: Sequence[str]) -> None:
    """Accept only the ``known`` values: list them in --help, offer them in completion, and refuse any other."""

    def parse(value: str) -> str:
        if value not in known:
            raise UsageError(
                f"{title} is {value!r}.{did_you_mean(value, known)}", f"It must be one of {', '.join(known)}."
            )
        return value

    metavar = "|".join(known)
    if isinstance(info, ArgumentInfo) or len(metavar) > LONGEST_METAVAR:
        metavar = title.rpartition("-")[2].upper()
        info.help = f"{info.help.removesuffix('.')}: {', '.join(known[:-1])} or {known[-1]}."
    info.metavar, info.parser = metavar, parse
    info.autocompletion = info.autocompletion or (lambda: list(known))


def _placeholder(name: str, kind: Any, is_argument: bool) -> str | None:
    if is_argument or name in PLACEHOLDERS:
        return PLACEHOLDERS.get(name, name.upper())
    types = {*_parts(kind)}
    return next((text for type_, text in BY_TYPE.items() if type_ in types), None)


def _parts(kind: Any) -> Iterator[Any]:
    if get_origin(kind) is None:
        yield kind
    for part in get_args(kind):
        yield from _parts(part)


def _names(info: OptionInfo) -> list[str]:
    return [name for name in (info.default, *(info.param_decls or ())) if isinstance(name, str)]


def _title(name: str, info: Any) -> str:
    """The name of a parameter in messages."""
    return info.metavar or name.upper() if isinstance(info, ArgumentInfo) else max(_names(info), key=len)


def _one(parameter: inspect.Parameter, ways: list[tuple[inspect.Parameter, Any]], hint: str) -> Any:
    """The value of a parameter, whichever way it was given.

    Raises ``UsageError`` if two ways contradict each other, or, with ``hint``, if a required value is missing.
    """
    if len(ways) == 1:
        return ways[0][1]
    given = [(_title(way.name, _info(way)), value) for way, value in ways if value is not None]
    if any(value != given[0][1] for _, value in given):
        both = " and ".join(f"{title} {value}" for title, value in given)
        raise UsageError(f"{both} set the same value, but differ.", f"Give {given[0][0]} alone.")
    if given:
        return given[0][1]
    if parameter.default is inspect.Parameter.empty:
        titles = " or ".join(_title(way.name, _info(way)) for way, _ in ways if not _info(way).hidden)
        raise UsageError(f"{titles} is missing.", hint)
    return parameter.default
