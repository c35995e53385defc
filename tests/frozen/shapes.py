"""The keys of what programs read, with the type of each value: JSON on standard output, and the files of a run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from tests.frozen import texts
from tests.nets.commands import SURFACE
from tests.nets.in_process import studies_in_this_process

LINES = (  # typed in this order in the folder that ``place`` furnishes: some make what others read
    "dataset inspect data --size 16x16",
    "dataset inspect packed",
    "dataset inspect push",
    "dataset pack data -o repacked --size 16x16",
    "dataset synth dance -o drawn --frames 4 --val 4 --test 1 --size 16x16",
    "dataset synth push -o pushed --clips 1 --val 1 --test 1 --frames 3",
    "dataset import frames pictures --keypoints coco.json -o mine --size 16x32",
    "train data --config tiny.toml --dry-run",
    "train data --config tiny.toml --set training.ema=0.5 --set kl.ratio=1.0 --run runs/new",
    "resume runs/new",
    "resume runs/new --more-epochs 1",
    "sweep packed --config tiny.toml --vary kl.type=none -o runs/sweep --dry-run",
    "sweep packed --config tiny.toml --vary kl.type=none -o runs/sweep",
    "ablate packed --config tiny.toml --set data.flip=false --set kl.free_bits=0 --set training.latent_dropout=0 "
    "--set training.ema=0 --steps 1 -o runs/ablation",
    "evaluate runs/tiny",
    "evaluate runs/tiny --latent all --elbo --importance-samples 1 --long 40",
    "evaluate runs/tiny --samples 2 --future 3",
    "evaluate runs/arm",
    "compare runs/tiny",
    "compare runs/tiny runs/new --evaluate",
    "generate runs/tiny --first-frame data/val/val_img/0.png --poses data/val/val_label",
    "generate runs/arm --trajectory push/test/traj_0_to_0/0 --samples 2",
    "export runs/tiny --split val",
    "report runs/tiny --no-videos",
    "plot loss runs/tiny",
    "plot psnr runs/tiny",
    "plot lr runs/tiny",
    "plot kl runs/tiny",
    "plot schedule runs/tiny",
    "plot drift runs/tiny",
    "plot drift runs/tiny --age-test",
    "plot latents runs/tiny",
    "checkpoint show runs/new",
    "checkpoint verify runs/new",
    "config show runs/tiny",
    "config show --preset svg-bair",
    "config check tiny.toml",
    "config init -o own.toml",
    "config explain",
    "config explain kl.ratio",
    "presets",
    "doctor",
    "bench train --model anchor-cvae --batch-size 1 --frames 2 --repeats 1 --size 16x16 --device cpu",
    "bench generate --model anchor-cvae --batch-size 1 --frames 6 --repeats 1 --size 16x16 --device cpu --latency",
    "runs list",
    "runs show runs/tiny",
    "runs prune runs/new --yes",
    "runs rm runs/arm --yes",
)
EVENTS = ("train", "resume")  # one document a line, told apart by their kind
LEFT_OUT = {  # why no line of a command with --json is typed here
    "demo": "draws and trains for long; what it tells is a score record, with output and seconds",
    "dataset import video": "tells what dataset import frames does",
    "dataset import gif": "tells what dataset import frames does",
    "dataset import bair": "tells what dataset pack does",
    "checkpoint import": "takes a checkpoint of the course; tests/cli/test_train.py",
    "play": "serves a page until Ctrl-C; tests/cli/test_play.py reads its address, run and recordings",
}
FILES = (
    "packed/manifest.json",
    "runs/.cache/synthetic-dance-*/cache.json",
    "runs/tiny/run.json",
    "runs/new/run.json",
    "runs/new/scores/*.json",
    "runs/new/history.jsonl",
    "runs/new/checkpoints/last.safetensors",
    "runs/sweep/sweep.json",
    "runs/ablation/ablation.json",
)


def without_a_line() -> list[str]:
    """Commands with --json that neither ``LINES`` nor ``LEFT_OUT`` has."""
    able = [command for command, options in SURFACE.items() if "--json" in options]
    return [c for c in able if c not in LEFT_OUT and not any(f"{line} ".startswith(f"{c} ") for line in LINES)]


def all_shapes(place: Path) -> dict[str, str]:
    """The keys of every document, by the line or the file that it comes from."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        studies_in_this_process(patch)
        for line in LINES:
            result = texts.run(f"{line} --json", place)
            assert result.code == 0, f"{line}: {result.err}{result.fault}"
            found |= _told(line, result.out)
    for pattern in FILES:
        paths = sorted(place.glob(pattern))
        assert len(paths) == 1, f"{pattern}: {paths}"
        (path,) = paths
        found |= _kept(pattern, path)
    return found


def _told(line: str, text: str) -> dict[str, str]:
    if line.split(maxsplit=1)[0] in EVENTS:
        return _by_kind(line, map(json.loads, text.splitlines()))
    return {line: shape(json.loads(text))}


def _kept(pattern: str, path: Path) -> dict[str, str]:
    if path.suffix == ".jsonl":
        return _by_kind(pattern, map(json.loads, path.read_text("utf-8").splitlines()))
    if path.suffix == ".safetensors":
        with safe_open(path, "numpy") as file:
            header = file.metadata()
        meta = json.loads(header["vidcvae"])
        meta["sha256"] = {"TENSOR": next(iter(meta["sha256"].values()))}
        return {pattern: shape(header), f"{pattern}, vidcvae": shape(meta)}
    return {pattern: shape(json.loads(path.read_text("utf-8")))}


def _by_kind(title: str, documents: Iterable[dict[str, Any]]) -> dict[str, str]:
    kinds: dict[str, list[Any]] = {}
    for document in documents:
        kinds.setdefault(document["kind"], []).append(document)
    return {f"{title}, {kind}": shape(*kinds[kind]) for kind in sorted(kinds)}


def shape(*documents: Any) -> str:
    """The paths to all values, a line each, with the types that stand there in any of the documents."""
    found: dict[str, set[str]] = {}
    for document in documents:
        for path, kind in _leaves(document, ""):
            found.setdefault(path, set()).add(kind)
    return "\n".join(f"{path}: {' or '.join(sorted(kinds))}" for path, kinds in sorted(found.items()))


_KINDS = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from _leaves(part, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value:
        for part in value:
            yield from _leaves(part, f"{path}[]")
    else:
        yield path, {dict: "object", list: "array", **_KINDS}[type(value)]
