"""Settings read strictly: from TOML, presets and ``--set``, into a checked ``Config``.

Unknown keys and wrong values are errors, reported all at once.
"""

from __future__ import annotations

import json
import sys
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from vidcvae import reading
from vidcvae.config.contradictions import contradictions
from vidcvae.config.presets import preset_names, read_preset
from vidcvae.config.schema import LAB_SIZE, MODELS, SECTION_CLASSES, Config, FrameSize, PoseCvaeConfig, choices
from vidcvae.errors import UsageError, did_you_mean

Table = dict[str, Any]
PROJECT_FILE = Path("vidcvae.toml")  # in the current folder; every command that takes settings reads it

# --- reading ---------------------------------------------------------------------------------------


def resolve(*layers: Mapping[str, Any]) -> Config:
    """Merge tables, later ones over earlier ones, into a checked ``Config``.

    Raises ``UsageError`` that lists every problem found: unknown keys (with the nearest right one), wrong
    types, values out of range, and settings that contradict each other.
    """
    merged: dict[str, Table] = {}
    problems: list[str] = []
    sections = {f.name: f for f in fields(Config)}
    for layer in layers:
        for section, table in layer.items():
            if section not in sections:
                problems.append(f"unknown section [{reading.label(section)}].{did_you_mean(section, sections)}")
            elif not isinstance(table, Mapping):
                problems.append(f"{section} is a section: write [{section}] and its keys below it.")
            else:
                merged.setdefault(section, {}).update(table)

    name = merged.get("model", {}).get("name", "pose-cvae")
    model_class = MODELS.get(name) if isinstance(name, str) else None
    if model_class is None:
        problems.append(
            f"model.name is {reading.shown(name)}, which is none of {', '.join(MODELS)}."
            f"{did_you_mean(name, MODELS) if isinstance(name, str) else ''}"
        )
        model_class = PoseCvaeConfig
        merged.pop("model", None)

    built: dict[str, Any] = {}
    for section in sections:
        cls = model_class if section == "model" else SECTION_CLASSES[section]
        built[section] = _read_section(section, cls, merged.get(section, {}), problems)
    if not problems:
        config = Config(**built)
        problems += contradictions(config)
    if problems:
        listed = [*problems[:_MOST_PROBLEMS], *([".."] if len(problems) > _MOST_PROBLEMS else [])]
        number = f"{len(problems)} problems" if len(problems) > 1 else "a problem"
        raise UsageError(
            "\n  - ".join([f"the configuration has {number}:", *listed]), "What each key means: vidcvae config explain"
        )
    size = config.model.frame_size if config.data.size == "auto" else None
    return replace(config, data=replace(config.data, size=size)) if size else config


_MOST_PROBLEMS = 50  # listed at once; nobody reads more


def _read_section(section: str, cls: Any, table: Mapping[str, Any], problems: list[str]) -> Any:
    types_of = typing.get_type_hints(cls)
    known = {f.name: f for f in fields(cls)}
    values: Table = {}
    for key, value in table.items():
        where = f"{section}.{key}"
        if key not in known:
            nearest = did_you_mean(key, known) or _elsewhere(key)
            problems.append(f"unknown key {reading.label(where)}.{nearest}")
            continue
        try:
            values[key] = _convert(value, types_of[key])
            _check_range(values[key], known[key].metadata)
        except ValueError as error:
            end = "" if str(error).endswith("?") else "."
            problems.append(f"{where} is {reading.shown(value)}, but it {error}{end}")
    return cls(**values) if not problems else None


def _elsewhere(key: str) -> str:
    """The hint for a key that belongs to another section, or the empty string."""
    sections = (name for name, cls in SECTION_CLASSES.items() if key in {f.name for f in fields(cls)})
    return next((f" Did you mean {section}.{key}?" for section in sections), "")


def _convert(value: Any, kind: Any) -> Any:
    """``value`` as ``kind``; raises ``ValueError`` whose text completes the sentence "it ..."."""
    if kind is bool:
        if isinstance(value, bool):
            return value
        raise ValueError("must be true or false")
    if kind is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise ValueError("must be a whole number")
    if kind is float:
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
            return float(value)
        raise ValueError("must be a finite number")
    if kind is str or choices(kind):
        if isinstance(value, str):
            return _choose(value, choices(kind))
        raise ValueError(
            "must be a string in quotes, which a shell removes unless they are quoted too: --set 'KEY=\"TEXT\"'"
        )
    if kind == FrameSize:
        try:
            return value if value == "auto" else _numbers(value, (int, int))
        except ValueError as error:
            raise ValueError(f"{error}, or auto") from None
    if typing.get_origin(kind) is tuple:
        return _numbers(value, typing.get_args(kind))
    raise TypeError(f"no reader for {kind}")  # a programming error, which the tests catch


def _numbers(value: Any, items: tuple[Any, ...]) -> tuple[int, ...]:
    if isinstance(value, str):  # "32x64", as the command line writes sizes
        parts = value.lower().split("x")
        value = [int(p) if p.strip().isdecimal() and len(p) < 20 else p for p in parts]
    if not isinstance(value, list | tuple):
        raise ValueError("must be a list of whole numbers")
    if items[-1] is not Ellipsis and len(value) != len(items):
        raise ValueError(f"must have {len(items)} numbers, such as 32x64")
    return tuple(_convert(item, int) for item in value)


def _choose(value: str, known: Sequence[str]) -> str:
    if known and value not in known:
        near = did_you_mean(value, known)
        raise ValueError(f"must be one of {', '.join(known)}{'.' * bool(near)}{near}")
    return value


_TOO_LARGE = 2**53  # from here on, floats (and so other programs' JSON) skip whole numbers


def _check_range(value: Any, meta: Mapping[str, Any]) -> None:
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, str):
            continue
        if isinstance(number, int) and abs(number) >= _TOO_LARGE:
            raise ValueError(f"must be below {_TOO_LARGE}")
        if meta["low"] is not None and number < meta["low"]:
            raise ValueError(f"must be at least {meta['low']:g}")
        if meta["above"] is not None and number <= meta["above"]:
            raise ValueError(f"must be above {meta['above']:g}")
        if meta["high"] is not None and number > meta["high"]:
            raise ValueError(f"must be at most {meta['high']:g}")


def resolve_with_preset(preset: str | None, layers: Sequence[Mapping[str, Any]]) -> Config:
    """``resolve`` on top of a preset: ``preset``, or if it is None, the one that the model in ``layers`` needs."""
    if preset is None:
        names = [layer["model"].get("name") for layer in layers if isinstance(layer.get("model"), Mapping)]
        preset = _PRESET_OF_MODEL.get(next((name for name in reversed(names) if name and isinstance(name, str)), ""))
    return resolve(*([read_preset(preset)] if preset else []), *layers)


def files(config: Path | None) -> list[Path]:
    """The files to read settings from: vidcvae.toml in the current folder, if it exists, and ``config``."""
    return [path for path in (PROJECT_FILE if PROJECT_FILE.exists() else None, config) if path]


def gather(
    preset: str | None,
    config: Path | None,
    overrides: Sequence[str] | None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Config:
    """Merge the settings of a command line: preset, ``files``, ``options`` that are not None, ``overrides`` (--set).

    Raises ``UsageError`` with all problems of the first stage that fails.
    """
    layers = {path: read_toml(path) for path in files(config)}
    set_options = {
        section: values
        for section, table in (options or {}).items()
        if (values := {key: value for key, value in table.items() if value is not None})
    }
    parsed, problems = [], []
    for text in overrides or ():
        try:
            parsed.append(read_override(text))
        except UsageError as error:
            problems.append(error)
    if problems:
        raise UsageError("\n  ".join(error.message for error in problems), problems[0].hint)
    try:
        return resolve_with_preset(preset, [*layers.values(), set_options, *parsed])
    except UsageError as error:
        for path, table in layers.items():
            error.message = _with_place(error.message, path, table)
        raise


def _with_place(message: str, path: Path, table: Mapping[str, Any]) -> str:
    """``message`` with ``path`` added to each of its problems that the file has by itself."""
    try:
        resolve(table)
    except UsageError as alone:
        for line in alone.message.splitlines()[1:]:
            message = message.replace(line, f"{line} (in {path})")
    return message


# Models that need other defaults than those for dance
_PRESET_OF_MODEL = {"svg-fp": "svg-bair", "svg-lp": "svg-bair"}


def with_values(config: Config, table: Mapping[str, Any]) -> Config:
    """A copy of ``config`` with the settings in ``table`` changed, checked again."""
    return resolve(to_table(config), table)


def with_size(config: Config, own: tuple[int, int] = LAB_SIZE) -> Config:
    """A copy of ``config`` with a frame size in numbers: ``own`` replaces "auto"."""
    return with_values(config, {"data": {"size": own}}) if config.data.size == "auto" else config


def resolve_saved(table: Mapping[str, Any]) -> Config:
    """``resolve`` for the settings stored in a run or checkpoint; a frame size of "auto" becomes ``LAB_SIZE``."""
    return with_size(resolve(table))


# Settings that may change on resume: how long, where and how to compute, what to log and keep; not what is learned
CHANGEABLE = (
    *("training.epochs", "training.max_minutes", "training.device", "training.log_every", "data.path"),
    *("training.accumulate", "training.checkpoint_activations", "training.cuda_graph", "training.compile"),
    *("training.deterministic", "checkpoint.every", "checkpoint.every_steps", "checkpoint.keep"),
)


def continued(before: Config, wanted: Config) -> tuple[Config, dict[str, tuple[Any, Any]]]:
    """The config of a resumed run: ``before`` with the ``CHANGEABLE`` settings of ``wanted``.

    Also returns the other differences between the two, as ``differences`` does.
    """
    changes = differences(before, wanted)
    table = to_table(before)
    for key in CHANGEABLE:
        if key in changes:
            section, name = key.split(".")
            table[section][name] = changes.pop(key)[1]
    return resolve(table), changes


def builtin_data(config: Config) -> str:
    """The name of the synthetic dataset that suits the model of ``config``."""
    return f"synthetic:{config.model.kind}"


# --- sources ---------------------------------------------------------------------------------------


def read_toml(path: Path) -> Table:
    """The table of a TOML file; raises ``UsageError``, which names the line of a syntax error."""
    try:
        return reading.read_toml(path)
    except FileNotFoundError:
        raise UsageError(
            f"there is no config file {path}.", f"Presets need no file: {', '.join(preset_names())}."
        ) from None
    except ValueError as error:
        raise UsageError(f"{path} is not valid TOML: {error}.", "Fix that line and try again.") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}.", "Start one: vidcvae config init") from None


def read_override(text: str) -> Table:
    """Parse ``section.key=value`` into a table; a value that is not valid TOML is taken as a string."""
    key, equals, value = text.partition("=")
    section, dot, name = key.strip().partition(".")
    if not (equals and dot and section and name):
        raise UsageError(
            f"cannot read the setting {reading.shown(text)}.",
            "Write --set section.key=value, such as --set kl.ratio=0.5",
        )
    try:
        parsed = reading.parse_toml(f"value = {value.strip()}")["value"]
    except ValueError:
        parsed = value.strip()
    return {section: {name: parsed}}


def read_values(text: str) -> tuple[str, list[str]]:
    """Parse ``section.key=a,b`` into the key and its values; commas in brackets or quotes belong to a value."""
    key, equals, rest = text.partition("=")
    values, depth, quote = [""], 0, ""
    for letter in rest:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        else:
            depth += (letter == "[") - (letter == "]")
        if letter == "," and not depth and not quote:
            values.append("")
        else:
            values[-1] += letter
    values = [value.strip() for value in values]
    if not equals or "." not in key or not all(values):
        raise UsageError(
            f"cannot read --vary {text!r}.", "Write --vary section.key=V1,V2, such as kl.type=none,cyclical"
        )
    return key.strip(), values


# --- writing ---------------------------------------------------------------------------------------


def to_table(config: Config) -> dict[str, Table]:
    """The settings by section, as plain values for TOML and JSON."""
    return json.loads(json.dumps(asdict(config)))  # type: ignore[no-any-return]  # tuples become lists


def toml_value(value: Any) -> str:
    """A setting's value in TOML: its JSON, but without surrogate pairs, which TOML forbids, and with DEL escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def to_toml(config: Config) -> str:
    """The text of a file that ``read_toml`` and ``resolve`` turn back into ``config``."""
    lines = []
    for section, table in to_table(config).items():
        lines += [f"[{section}]", *(f"{key} = {toml_value(value)}" for key, value in table.items()), ""]
    return "\n".join(lines)


def differences(a: Config, b: Config) -> dict[str, tuple[Any, Any]]:
    """The settings in which two configs differ, as ``{"kl.type": (value in a, value in b)}``."""
    left, right = to_table(a), to_table(b)
    return {
        f"{section}.{key}": (left[section].get(key), right[section].get(key))
        for section in left
        for key in left[section] | right[section]
        if left[section].get(key) != right[section].get(key)
    }
