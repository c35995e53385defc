"""What shell completion offers: run names, checkpoint files, presets and settings. Nothing here imports torch.

If nothing matches, nothing is offered, and the shell completes file names as usual.
"""

from __future__ import annotations

import json
from pathlib import Path


def runs(incomplete: str) -> list[str]:
    """Run folders under ``runs``, by name or by path; inside a run's path, its checkpoint files."""
    configs = [*Path("runs").glob("*/config.toml"), *Path("runs").glob("*/*/config.toml")]  # the latter in a sweep
    folders = sorted(path.parent for path in configs)
    names = [folder.relative_to("runs").as_posix() for folder in folders]
    inside = [folder for folder in folders if incomplete.startswith(f"{folder.as_posix()}/")]
    files = [file for folder in inside for file in sorted(folder.glob("checkpoints/*.safetensors"))]
    paths = [path.as_posix() for path in files or folders]
    return _matching(incomplete, names) or _matching(incomplete, paths)


def presets(incomplete: str) -> list[str]:
    from vidcvae.config import preset_names

    return _matching(incomplete, preset_names())


def keys(incomplete: str) -> list[str]:
    """Sections and keys of the configuration, as ``config explain`` takes them."""
    from vidcvae.config import describe

    return _matching(incomplete, sorted({*describe.sections(), *describe.known()}))


def overrides(incomplete: str) -> list[str]:
    """``section.key=value`` for --set, with each choice of a setting that has choices, else with its default."""
    from vidcvae.config import describe
    from vidcvae.config.schema import choices

    offers: list[str] = []
    for key, settings in sorted(describe.known().items()):
        declared = [setting.declared for setting in settings]
        value = declared[-1].default
        text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        values = ["true", "false"] if isinstance(value, bool) else [c for one in declared for c in choices(one.type)]
        offers += [f"{key}={choice}" for choice in dict.fromkeys(values or [text])]
    return _matching(incomplete, offers)


def _matching(incomplete: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
