"""How commands are declared, so that all speak one language: the same panels, placeholders and words in every help.

A docstring's last paragraph may begin with ``Examples:``; it stands below the options. ``Also`` in an annotation
declares another way to give the same value, such as the name that it had before.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

import typer
from typer.core import TyperCommand, TyperGroup
from typer.models import ArgumentInfo, OptionInfo, ParameterInfo

from vidcvae.cli import ui, usage
from vidcvae.errors import UsageError

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
        *(
            "videos",
            "packed",
            "dry_run",
            "yes",
            "play",
            "no_browser",
            "port",
            "wait",
            "plain",
            "json",
            "quiet",
            "verbose",
        ),
    ),
}
ADVANCED = "Advanced"  # whatever else there is
PANEL_OF = {name: panel for panel, names in PANELS.items() for name in names}

# What stands for a value in help and usage: capitals, N for a whole number
PLACEHOLDERS = {
    **dict.fromkeys(("max_minutes", "more_minutes"), "MINUTES"),
    **dict.fromkeys(("dataset", "data"), "DATASET"),
    **dict.fromkeys(("config", "csv", "file", "latents", "first_frame", "actions", "positions", "pose_model"), "FILE"),
    **dict.fromkeys(("lpips_weights", "fvd_weights", "save_keypoints"), "FILE"),
    **dict.fromkeys(("trajectory", "past_frames", "gifs"), "FOLDER"),
    **{"size": "HxW", "runs": "RUN", "split": "SPLIT", "init": "RUN"},
}
BY_TYPE: dict[Any, str] = {bool: "", int: "N", float: "X", str: "TEXT", Path: "PATH"}

Json = Annotated[bool, typer.Option("--json", help="The same as one JSON document on standard output.")]
JsonEvents = Annotated[bool, typer.Option("--json", help="One JSON event a line on standard output.")]
Plain = Annotated[bool, typer.Option("--plain", help="Plain lines instead of a live display.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Results, warnings and errors only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say also what was decided, and why.")]
REPLACED = "Replaced if it is there."  # the one rule for what was named with -o
NEW_FOLDER = "It must be new or empty."


@dataclass(frozen=True)
class Also:
    """Another way to give a parameter: an option's name, or that of an argument. Without ``help`` it is an old one,
    which goes on working and is hidden."""

    name: str
    help: str = ""

    @property
    def is_option(self) -> bool:
        return self.name.startswith("-")


Dataset = Annotated[
    str,
    typer.Argument(help="Dataset folder, packed dataset, or synthetic:dance.", show_default=False),
    Also("--data", "The dataset; the same as DATASET."),
]


class App(typer.Typer):
    """A Typer app whose commands are declared as this module says."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(cls=_Group, **settings)

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Function], Function]:
        def register(function: Function) -> Function:
            text, examples = described(function.__doc__ or "")
            add = super(App, self).command(name, cls=_Command, help=text, epilog=examples, **settings)
            add(_spoken(function))
            return function

        return register


def described(docstring: str) -> tuple[str, str]:
    """The text of a docstring, its paragraphs without line breaks, and its examples, a line each."""
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
    """Hides what is hidden from the usage line too, names arguments without Python's types, as options are, and puts
    --help beside the other rare options."""

    def get_params(self, ctx: Any) -> list[Any]:
        found: list[Any] = super().get_params(ctx)
        for parameter in found:
            if parameter.param_type_name == "argument":
                parameter.display_type_rich = lambda ctx: ""
        return found

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given = list(args)
        ctx.allow_extra_args = True
        with usage.answered(self, ctx, given):
            rest: list[str] = super().parse_args(ctx, args)
        if rest and not ctx.resilient_parsing:  # it is not while a shell completes a line
            raise usage.of_extra(self, ctx, rest)
        return rest

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        shown = [p for p in self.get_params(ctx) if not getattr(p, "hidden", False)]
        return [self.options_metavar or "", *(piece for p in shown for piece in p.get_usage_pieces(ctx))]

    def get_help_option(self, ctx: Any) -> Any:
        option: Any = super().get_help_option(ctx)
        if option is not None:
            option.rich_help_panel, option.metavar = ADVANCED, ""
        return option


def _spoken(function: Callable[..., None]) -> Callable[..., None]:
    """The function as Typer gets it: every parameter in its panel, other ways to give it, --quiet and --verbose."""
    given = inspect.signature(function, eval_str=True).parameters
    ways: dict[str, list[str]] = {}
    declared: dict[str, inspect.Parameter] = {}
    for name, parameter in given.items():
        own, others = _declarations(parameter)
        declared[name] = own
        ways[name] = [name, *(other.name for other in others)]
        declared |= {other.name: other for other in others}
    for name, kind in (("quiet", Quiet), ("verbose", Verbose)):
        own = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        declared[name] = _declarations(own)[0]

    example = described(function.__doc__ or "")[1].partition("\n")[2].partition("\n")[0].strip()

    def run(**values: Any) -> None:
        ui.choose_loudness(quiet=values.pop("quiet"), verbose=values.pop("verbose"))
        hint = f"Such as: {example}" if example else "What it means: add --help"
        chosen = {n: _one(given[n], [(declared[w], values[w]) for w in all_], hint) for n, all_ in ways.items()}
        function(**chosen)

    order = [*PANELS, ADVANCED]
    arranged = sorted(declared.values(), key=lambda p: order.index(_info(p).rich_help_panel or order[0]))
    run.__signature__ = inspect.Signature(arranged)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in arranged}
    run.__name__, run.__doc__ = function.__name__, function.__doc__
    return run


def _info(parameter: inspect.Parameter) -> Any:
    return next(it for it in get_args(parameter.annotation) if isinstance(it, ParameterInfo))


def _declarations(parameter: inspect.Parameter) -> tuple[inspect.Parameter, list[inspect.Parameter]]:
    """A parameter with its panel and placeholder, and one for each other way to give its value."""
    kind, *extras = get_args(parameter.annotation)
    info: Any = copy(_info(parameter))
    ways = [extra for extra in extras if isinstance(extra, Also)]
    if isinstance(info, OptionInfo):
        info.rich_help_panel = info.rich_help_panel or PANEL_OF.get(parameter.name, ADVANCED)
    if info.metavar is None:
        info.metavar = _placeholder(parameter.name, kind, isinstance(info, ArgumentInfo))
    if isinstance(info.show_default, str):  # Typer would put it into brackets of its own
        info.help, info.show_default = f"{info.help} [dim]\\[default: {info.show_default}][/dim]", False
    default = parameter.default
    if ways:  # None tells that it was not given
        needed = default is inspect.Parameter.empty
        if needed:
            info.help, info.show_default = f"{info.help} [red]\\[required][/red]", False
        elif default is not None and info.show_default is True:
            info.help, info.show_default = f"{info.help} [dim]\\[default: {default}][/dim]", False
        default, kind = None, kind | None
    own = inspect.Parameter(
        parameter.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info]
    )
    return own, [_way(parameter.name, kind, info, way) for way in ways]


def _way(name: str, kind: Any, info: Any, way: Also) -> inspect.Parameter:
    shared = {"parser": info.parser, "autocompletion": info.autocompletion, "metavar": info.metavar}
    shared |= {"hidden": not way.help, "show_default": False, "min": info.min, "max": info.max}
    text = way.help or f"Old name of {_title(name, info)}."
    if way.is_option:
        other: Any = typer.Option(way.name, help=text, rich_help_panel=PANEL_OF.get(name, ADVANCED), **shared)
    else:
        other = typer.Argument(help=text, **shared | {"metavar": way.name})
    own = f"also_{way.name.strip('-').replace('-', '_').lower()}"
    return inspect.Parameter(own, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, other])


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


def _title(name: str, info: Any) -> str:
    """How a parameter is named to people."""
    if isinstance(info, ArgumentInfo):
        return info.metavar or name.upper()
    names = [text for text in (info.default, *(info.param_decls or ())) if isinstance(text, str)]
    return max(names, key=len)


def _one(parameter: inspect.Parameter, ways: list[tuple[inspect.Parameter, Any]], hint: str) -> Any:
    """The value that was given, in whichever way; raises ``UsageError`` for two that differ, or none that is needed.

    hint: what to do where it is missing.
    """
    if len(ways) == 1:
        return ways[0][1]
    given = [(_title(way.name, _info(way)), value) for way, value in ways if value is not None]
    if any(value != given[0][1] for _, value in given):
        told = " and ".join(f"{title} {value}" for title, value in given)
        raise UsageError(f"{told} say the same thing, and differ.", f"Give {given[0][0]} alone.")
    if given:
        return given[0][1]
    if parameter.default is inspect.Parameter.empty:
        titles = " or ".join(_title(way.name, _info(way)) for way, _ in ways if not _info(way).hidden)
        raise UsageError(f"{titles} is missing.", hint)
    return parameter.default
