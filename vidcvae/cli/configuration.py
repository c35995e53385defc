"""``vidcvae config show | check | init | explain``."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated

from vidcvae.cli import command, completion, options, trained, ui
from vidcvae.config import PROJECT_FILE
from vidcvae.errors import UsageError, counted, typed

app = command.App(help="Show, check and explain the settings of a training.", no_args_is_help=True)


@app.command()
def show(
    run: Annotated[
        Path | None,
        trained.runs_argument("Show the settings of this run or checkpoint; else those that `train` would use."),
    ] = None,
    preset: options.Preset = None,
    config: options.File = None,
    set_: options.Set = None,
    json: command.Json = False,
) -> None:
    """Print every setting, with preset, files and --set applied.

    Examples:
      vidcvae config show --preset anchor-cpu
      vidcvae config show runs/course-001
    """
    from vidcvae import config as settings
    from vidcvae.workflow import at_glance

    resolved = at_glance.settings_of(run) if run else settings.gather(preset, config, set_)
    if run and (preset or config or set_):
        raise UsageError("RUN excludes --preset, --config and --set.", "Leave out RUN, or all of them.")
    if json:
        ui.emit(settings.to_table(resolved))
    else:
        ui.say(settings.to_toml(resolved).rstrip())


@app.command()
def check(
    file: Annotated[Path | None, command.argument("A TOML file; else vidcvae.toml in this folder.")] = None,
    preset: options.Preset = None,
    set_: options.Set = None,
    json: command.Json = False,
) -> None:
    """Check settings without training: report all errors at once, and warn of likely mistakes.

    Examples:
      vidcvae config check
      vidcvae config check my.toml --preset course
    """
    from vidcvae import config as settings
    from vidcvae.training import schedules

    resolved = settings.gather(preset, file, set_)
    train = resolved.training
    length = schedules.Length(train.epochs, train.steps_per_epoch or 100)  # an epoch's steps are unknown here
    warnings = [*schedules.warnings(resolved, length)]
    path = resolved.data.path
    if path and not path.startswith("synthetic:") and not Path(path).exists():
        warnings.append(f"data.path is {path}, which does not exist.")
    for text in warnings:
        ui.warn(text)
    sources = [*([preset] if preset else []), *map(str, settings.files(file))]
    if json:
        ui.emit({"ok": True, "sources": sources, "model": resolved.model.name, "warnings": warnings})
    else:
        named = ", ".join(sources) or "the defaults"
        ui.say(f"good: {named} ({resolved.model.name}, {counted(train.epochs, 'epoch')})")


@app.command()
def init(
    output: Annotated[
        Path | None,
        command.option("The file to write. An existing file is an error.", "-o", show_default=str(PROJECT_FILE)),
        command.Also("PATH"),
    ] = None,
    preset: options.Preset = None,
    model: options.Model = None,
    json: command.Json = False,
) -> None:
    """Write a starter file: every setting with its meaning as a comment, and the preset's own settings uncommented.

    `vidcvae train` always reads vidcvae.toml in the current folder. --config, options and --set override it.

    Examples:
      vidcvae config init --preset anchor-cpu
      vidcvae config init -o my.toml --model svg-lp
    """
    from vidcvae import config as settings
    from vidcvae.config import describe
    from vidcvae.storage import durable

    path = output or PROJECT_FILE
    if path.exists():  # unlike a result, it may hold the user's own work
        what = "is a folder" if path.is_dir() else "already exists, and is not overwritten"
        raise UsageError(f"{path} {what}.", f"Name a new file: {typed('config', 'init', '-o', 'FILE.toml')}")
    resolved = settings.resolve_with_preset(preset, [{"model": {"name": model}}] if model else [])
    made_by = f"vidcvae config init{f' --preset {preset}' if preset else ''}"
    durable.write_text(path, describe.starter(resolved, made_by))
    if json:
        ui.emit({"output": str(path)})
    else:
        ui.say(str(path))
    ui.note(f"Edit it, then run: {typed('config', 'check', path)}")


@app.command()
def explain(
    key: Annotated[
        str | None,
        command.argument(
            "A key such as kl.ratio, or a section such as kl; if left out, list the sections.",
            autocompletion=completion.keys,
        ),
    ] = None,
    json: command.Json = False,
) -> None:
    """Explain a setting: unit, range, default, choices, the paper's symbol, and the presets that change it.

    Examples:
      vidcvae config explain kl
      vidcvae config explain kl.ratio
    """
    from vidcvae.config import describe

    if key is None:
        sections = describe.sections()
        if json:
            ui.emit(sections)
            return
        ui.table("", ("section", "keys"), [(section, ", ".join(names)) for section, names in sections.items()])
        ui.next_step(typed("config", "explain", "kl"), typed("config", "explain", "kl.ratio"))
        return
    matches = describe.find(key)
    if json:
        ui.emit({name: [setting.to_json() for setting in settings] for name, settings in matches.items()})
        return
    for setting in itertools.chain.from_iterable(matches.values()):
        ui.say(f"{setting.key}{setting.models and f' ({setting.models})'}: {setting.doc}")
        for title, value in {**setting.facts(), "presets:": setting.presets_text()}.items():
            if value:
                ui.say(f"  {title:<9} {value}")
