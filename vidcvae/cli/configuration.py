"""``vidcvae config show | check | init | explain``."""

from __future__ import annotations

from dataclasses import Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidcvae.cli import choice, command, completion, ui
from vidcvae.config import Config as Defaults
from vidcvae.config import preset_names
from vidcvae.config.schema import ModelName, choices
from vidcvae.errors import UsageError, counted, did_you_mean, typed

if TYPE_CHECKING:
    from vidcvae.config import Config

app = command.App(help="Show, check, start and explain the settings of a training.", no_args_is_help=True)

PROJECT_FILE = Path("vidcvae.toml")
WIDTH = 110  # of a comment in a starter file

PRESET_TEXT = "Built-in settings (see vidcvae presets)."
Preset = Annotated[
    str | None, choice.option(preset_names(), "--preset", help=PRESET_TEXT, autocompletion=completion.presets)
]
Model = Annotated[ModelName | None, choice.option(ModelName, "--model", help="Which model.")]
File = Annotated[Path | None, typer.Option("--config", help="Settings in a TOML file.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Any setting; may be repeated.",
        autocompletion=completion.overrides,
    ),
]


def usual(key: str) -> str:
    """What a setting is where neither a preset nor anything typed says otherwise, as --help tells it."""
    section, _, name = key.partition(".")
    value = getattr(getattr(Defaults(), section), name)
    if isinstance(value, tuple):
        value = "x".join(map(str, value))
    return f"{value:g}, or the preset's" if isinstance(value, float) else f"{value}, or the preset's"


def gather(
    preset: str | None, config: Path | None, set_: list[str] | None, options: dict[str, dict[str, Any]] | None = None
) -> Config:
    """The settings as every command takes them: preset, vidcvae.toml of this folder, --config, options, --set.

    Raises ``UsageError`` with all problems of the last stage that was reached.
    """
    from vidcvae import config as settings

    files = [path for path in (PROJECT_FILE if PROJECT_FILE.exists() else None, config) if path]
    layers = [settings.read_toml(path) for path in files]
    overrides, problems = [], []
    for text in set_ or []:
        try:
            overrides.append(settings.read_override(text))
        except UsageError as error:
            problems.append(error)
    if problems:
        raise UsageError("\n  ".join(error.message for error in problems), problems[0].hint)
    return settings.resolve_with_preset(preset, [*layers, options or {}, *overrides])


@app.command()
def show(
    run: Annotated[
        Path | None,
        typer.Argument(
            help="Settings of this run or checkpoint; else those that `train` would take.",
            show_default=False,
            autocompletion=completion.runs,
        ),
    ] = None,
    preset: Preset = None,
    config: File = None,
    set_: Set = None,
    json: command.Json = False,
) -> None:
    """Print every setting as it stands after preset, files and --set.

    Examples:
      vidcvae config show --preset anchor-cpu
      vidcvae config show runs/course-001
    """
    from vidcvae import config as settings

    resolved = _of_run(run) if run else gather(preset, config, set_)
    if run and (preset or config or set_):
        raise UsageError("RUN excludes --preset, --config and --set.", "Leave out RUN, or all of them.")
    if json:
        ui.emit(settings.to_table(resolved))
    else:
        ui.say(settings.to_toml(resolved).rstrip())


def _of_run(run: Path) -> Config:
    from vidcvae import config as settings
    from vidcvae.storage import checkpoint
    from vidcvae.storage.run import find_checkpoint, find_run

    if run.is_file() or run.suffix == ".safetensors":
        return settings.resolve(checkpoint.read(find_checkpoint(run)[0]).meta["config"])
    return settings.resolve(settings.read_toml(find_run(run).config))


@app.command()
def check(
    file: Annotated[
        Path | None, typer.Argument(help="A TOML file; else vidcvae.toml of this folder.", show_default=False)
    ] = None,
    preset: Preset = None,
    set_: Set = None,
    json: command.Json = False,
) -> None:
    """Check settings without training: all problems at once, and what is probably not meant.

    Examples:
      vidcvae config check
      vidcvae config check my.toml --preset course
    """
    from vidcvae.training import schedules

    resolved = gather(preset, file, set_)
    train = resolved.training
    length = schedules.Length(train.epochs, train.steps_per_epoch or 100)  # how many steps an epoch has is not known
    doubts = [*schedules.warnings(resolved, length)]
    path = resolved.data.path
    if path and not path.startswith("synthetic:") and not Path(path).exists():
        doubts.append(f"data.path is {path}, and nothing is there.")
    for text in doubts:
        ui.warn(text)
    sources = [text for text in (preset, PROJECT_FILE if PROJECT_FILE.exists() else None, file) if text]
    named = ", ".join(map(str, sources)) or "the defaults"
    if json:
        ui.emit({"ok": True, "sources": list(map(str, sources)), "model": resolved.model.name, "warnings": doubts})
    else:
        ui.say(f"good: {named} ({resolved.model.name}, {counted(train.epochs, 'epoch')})")


@app.command()
def init(
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help=f"The file to write. {command.REPLACED}",
            show_default=f"{PROJECT_FILE}, unless it is there",
        ),
        command.Also("PATH"),
    ] = None,
    preset: Preset = None,
    model: Model = None,
    json: command.Json = False,
) -> None:
    """Write a starter file: every setting with its meaning, as a comment, and what the preset sets as it stands.

    `vidcvae train` takes vidcvae.toml of the current folder by itself, before --config, options and --set.

    Examples:
      vidcvae config init --preset anchor-cpu
      vidcvae config init -o my.toml --model svg-lp
    """
    from vidcvae import config as settings
    from vidcvae.storage import durable

    path = output or PROJECT_FILE
    if path.exists():  # unlike a result, it is somebody's own work
        what = "is a folder" if path.is_dir() else "exists already; it is not overwritten"
        raise UsageError(f"{path} {what}.", f"Name a new file: {typed('config', 'init', '-o', 'FILE.toml')}")
    resolved = settings.resolve_with_preset(preset, [{"model": {"name": model}}] if model else [])
    durable.write_text(path, starter(resolved, f"vidcvae config init{f' --preset {preset}' if preset else ''}"))
    if json:
        ui.emit({"output": str(path)})
    else:
        ui.say(str(path))
    ui.note(f"Edit it, then: {typed('config', 'check', path)}")


def starter(config: Config, command: str) -> str:
    """A TOML file with every setting explained; those that differ from the defaults are set, the rest are comments."""
    import json
    import textwrap

    from vidcvae import config as settings

    lines = [
        f"# Settings of vidcvae ({command}).",
        "# Every key stands here with its default as a comment; remove the # to set it.",
        "# What stands in this file wins over --preset; options and --set win over this file.",
    ]
    table = settings.to_table(config)
    for section, cls in [("model", type(config.model)), *settings.SECTION_CLASSES.items()]:
        lines += ["", f"[{section}]"]
        for declared in fields(cls):
            value = table[section][declared.name]
            usual = json.loads(json.dumps(declared.default))
            lines += textwrap.wrap(describe(declared), WIDTH, initial_indent="# ", subsequent_indent="#   ")
            fixed = value != usual or (section == "model" and value in set(settings.MODELS) - {"pose-cvae"})
            lines.append(f"{'' if fixed else '# '}{declared.name} = {json.dumps(value)}")
    return "\n".join(lines) + "\n"


def describe(declared: Field[Any]) -> str:
    """Meaning, choices, range, unit, symbol and default of a setting, in one line."""
    return "; ".join([declared.metadata["doc"], *(f"{name} {value}" for name, value in _facts(declared).items())])


def _facts(declared: Field[Any]) -> dict[str, str]:
    import json

    meta, found = declared.metadata, {}
    bounds = [
        *([f"at least {meta['low']:g}"] if meta["low"] is not None else []),
        *([f"above {meta['above']:g}"] if meta["above"] is not None else []),
        *([f"at most {meta['high']:g}"] if meta["high"] is not None else []),
    ]
    if names := choices(declared.type):
        found["choices:"] = ", ".join(names)
    if bounds:
        found["range:"] = ", ".join(bounds)
    if meta["unit"]:
        found["unit:"] = meta["unit"]
    if meta["symbol"]:
        found["symbol:"] = meta["symbol"]
    return found | {"default:": json.dumps(declared.default)}


@app.command()
def explain(
    key: Annotated[
        str | None,
        typer.Argument(
            help="A key such as kl.ratio, or a section such as kl; the sections if left out.",
            show_default=False,
            autocompletion=completion.keys,
        ),
    ] = None,
    json: command.Json = False,
) -> None:
    """What a setting means: unit, range, default, choices, the paper's symbol, and the presets that change it.

    Examples:
      vidcvae config explain kl
      vidcvae config explain kl.ratio
    """
    known = _known()
    if key is None:
        sections: dict[str, list[str]] = {}
        for name in known:
            sections.setdefault(name.partition(".")[0], []).append(name.partition(".")[2])
        if json:
            ui.emit(sections)
            return
        ui.table("", ("section", "keys"), [(section, ", ".join(names)) for section, names in sections.items()])
        ui.note("One of them: vidcvae config explain kl   or   vidcvae config explain kl.ratio")
        return
    chosen = [name for name in known if key in (name, name.partition(".")[0])]
    chosen = chosen or [name for name in known if name.partition(".")[2] == key]
    if not chosen:
        sections_and_keys = [*{name.partition(".")[0] for name in known}, *known]
        near = did_you_mean(key, sections_and_keys) or did_you_mean(key, [n.partition(".")[2] for n in known])
        raise UsageError(f"there is no setting {key!r}.{near}", "All of them: vidcvae config explain")
    if json:
        ui.emit({name: [_as_table(name, owner, declared) for owner, declared in known[name]] for name in chosen})
        return
    for name in chosen:
        for owner, declared in known[name]:
            ui.say(f"{name}{f' ({owner})' if owner else ''}: {declared.metadata['doc']}")
            rows = {**_facts(declared), "presets:": ", ".join(f"{p} {v}" for p, v in _presets(name, owner).items())}
            for title, value in rows.items():
                if value:
                    ui.say(f"  {title:<9} {value}")


def _known() -> dict[str, list[tuple[str, Field[Any]]]]:
    """``{"kl.ratio": [("", field)]}``; a model's keys carry the model's name, and may be there for several."""
    from vidcvae.config import MODELS, SECTION_CLASSES

    found: dict[str, list[tuple[str, Field[Any]]]] = {}
    for cls in dict.fromkeys(MODELS.values()):
        owner = ", ".join(name for name, other in MODELS.items() if other is cls)
        for declared in fields(cls):
            found.setdefault(f"model.{declared.name}", []).append((owner, declared))
    for section, other in SECTION_CLASSES.items():
        found |= {f"{section}.{declared.name}": [("", declared)] for declared in fields(other)}
    return found


def _presets(name: str, owner: str) -> dict[str, str]:
    """The presets in which a setting is not the default, with its value there."""
    import json

    from vidcvae import config as settings

    section, _, key = name.partition(".")
    found = {}
    for preset in settings.preset_names():
        config = settings.resolve(settings.read_preset(preset))
        part = getattr(config, section)
        if owner and config.model.name not in owner.split(", "):
            continue
        usual = next(declared.default for declared in fields(part) if declared.name == key)
        if getattr(part, key) != usual:
            found[preset] = json.dumps(getattr(part, key))
    return found


def _as_table(name: str, owner: str, declared: Field[Any]) -> dict[str, Any]:
    import json

    presets = {preset: json.loads(text) for preset, text in _presets(name, owner).items()}
    found = {**declared.metadata, "choices": choices(declared.type), "default": declared.default, "presets": presets}
    return {"model": owner or None, **found}
