"""What is typed once a preset is trained: every command that concerns a run, with each of its options.

A command or option that the frozen command line has and this file neither gives nor excuses fails the net
(``surface.unexercised``). The first line of each command is typed for every preset; the others, for the sake of time,
for one preset of each model. Everything is typed in a folder that holds

    data/                 the dataset, in the course's layout
    long/                 another one, whose val has two clips of 16 frames to predict, as FVD wants; no test split
    runs/NAME, runs/TWIN  the run that was trained with the preset NAME, and another one beside it
    given/                networks.pt, noise.safetensors, settings.toml, first frames
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from tests.test_cli_surface import FROZEN
from vidcvae import config as settings

SURFACE: dict[str, list[str]] = {
    path.removeprefix("vidcvae").strip(): options for path, options in json.loads(FROZEN.read_text()).items()
}
PRESETS = settings.preset_names()
TWIN = "twin-001"
FRAMES = {"pose": 16, "actions+positions": 12}  # of a sequence that is scored
SIZES = {"pose": (16, 24), "actions+positions": (64, 64)}  # height, width
TINY = {  # a preset is trained with its own losses, schedules and switches, and a network of few channels
    "pose-cvae": ("frame_channels=8", "pose_channels=4", "latent_channels=4", "decoder_channels=8"),
    "anchor-cvae": ("channels=8", "latent_channels=2"),
    "svg-fp": ("backbone=dcgan64", "frame_dim=4", "latent_dim=2", "hidden_dim=8"),
    "svg-lp": ("backbone=dcgan64", "frame_dim=4", "latent_dim=2", "hidden_dim=8"),
}
# What means the same wherever it stands, with a value that is not the default
EVERYWHERE = {"--device": "cpu", "--seed": "3", "--weights": "raw", "--precision": "bf16"}


@dataclass(frozen=True)
class Preset:
    name: str

    @property
    def config(self) -> settings.Config:
        return settings.resolve(settings.read_preset(self.name))

    @property
    def in_full(self) -> bool:
        """Whether it stands for its model: the first one of it is typed with every option."""
        model = self.config.model.name
        return self.name == next(name for name in PRESETS if Preset(name).config.model.name == model)

    @property
    def run(self) -> str:
        return f"runs/{self.name}-001"

    @property
    def pushing(self) -> bool:
        return self.config.model.condition_kind != "pose"

    @property
    def frames(self) -> int:
        return FRAMES[self.config.model.condition_kind]

    @property
    def size(self) -> str:
        return "{}x{}".format(*SIZES[self.config.model.condition_kind])

    @property
    def tiny(self) -> str:
        """Settings, as TOML, under which a training takes no time."""
        sizes = [text.partition("=") for text in TINY[self.config.model.name]]
        model = "".join(f"{key} = {value if value.isdigit() else json.dumps(value)}\n" for key, _, value in sizes)
        size = list(SIZES[self.config.model.condition_kind])
        training = "batch_size = 2\nclip_length = 4\nsteps_per_epoch = 1\nlog_every = 1\n"
        training += "\n[validation]\nframes = 6\n"
        return f"[model]\n{model}\n[data]\nsize = {size}\n\n[training]\n{training}\n[checkpoint]\nkeep = 1\n"


@dataclass(frozen=True)
class Step:
    """A command line after ``vidcvae``. code: how it ends; makes: the files and folders it writes, each with what
    ``opened`` must find there; says: "json" for one document on standard output, "lines" for one a line."""

    arguments: tuple[str, ...]
    code: int = 0
    makes: dict[str, dict[str, Any]] = field(default_factory=dict)
    says: str = ""


def step(words: str, *more: str, code: int = 0, makes: dict[str, dict[str, Any]] | None = None, says: str = "") -> Step:
    return Step((*words.split(), *more), code, makes or {}, says)


def everywhere(command: str) -> tuple[str, ...]:
    """The options of ``EVERYWHERE`` that a command has."""
    return tuple(itertools.chain.from_iterable(pair for pair in EVERYWHERE.items() if pair[0] in SURFACE[command]))


# --- training --------------------------------------------------------------------------------------


def train_first(p: Preset) -> Step:
    """The training of a preset that all other commands build on: two steps, two epochs."""
    small = "--batch-size 2 --clip-length 4" if p.pushing else ""
    steps = "--epochs 2 --set training.steps_per_epoch=1 --set training.log_every=1 --set validation.frames=6"
    sizes = itertools.chain.from_iterable(("--set", f"model.{text}") for text in TINY[p.config.model.name])
    words = f"train data --preset {p.name} --run {p.run} --size {p.size} --device cpu --plain --tensorboard"
    return step(f"{words} {small} {steps}", *sizes)


def train(p: Preset) -> Iterator[Step]:
    words = (
        f"train --data data --preset {p.name} --config given/settings.toml --model {p.config.model.name} "
        f"--init {p.run} --size {p.size} --epochs 1 --max-minutes 9 --batch-size 3 --clip-length 8 --lr 0.0005 "
        "--partial 0.9 --seed 5 --device cpu --precision bf16 --fast-train --set data.fast_train_fraction=0.5 "
        "--set training.steps_per_epoch=0"
    )
    yield step(f"{words} --learning-rate 0.0005 --dry-run")
    made = {"runs/new/config.toml": {}, "runs/new/run.json": {}, "runs/new/checkpoints/last.safetensors": {}}
    yield step(f"{words} --run runs/new --json", says="lines", makes=made)
    clip = f"train given/me.mp4 --preset {p.name} --config given/settings.toml --size 16x32 --run runs/clip --crop none"
    made = {"runs/me-data/dataset.toml": {}, "runs/clip/checkpoints/last.safetensors": {}}
    options = "--keypoints given/me.json --device cpu --epochs 1 --set training.clip_length_start=0 --plain"
    yield step(f"{clip} {options}", code=2 if p.pushing else 0, makes={} if p.pushing else made)
    yield step(f"{clip} {options} --estimate --pose-model given/none.task", code=2)  # it has its keypoints


def resume(p: Preset) -> Iterator[Step]:
    yield step(f"resume {p.run} --plain")  # it is finished, and says so
    yield step(f"resume {p.run} --epochs 3 --max-minutes 9 --device cpu --data data --resume-from last --plain")
    yield step(f"resume {p.run} --more-epochs 1 --resume-from best --json", says="lines")
    yield step(f"resume {p.run} --more-minutes 1 --plain")  # its epochs are over
    yield step(f"checkpoint show {p.run}/checkpoints/last.safetensors --json", says="json")


def sweep(p: Preset) -> Iterator[Step]:
    words = (
        f"sweep --data data --preset {p.name} --config given/settings.toml --set optimizer.beta1=0.8 --epochs 1 "
        "--max-minutes 9 --seeds 2 --seed 3 --device cpu --jobs 1 -o runs/sweep --vary"
    )
    yield step(f"{words} optimizer.lr=0.001,0.0003 --dry-run")
    yield step(f"{words} optimizer.lr=0.0003 --json", says="json", makes={"runs/sweep/sweep.json": {}})


def ablate(p: Preset) -> Iterator[Step]:
    words = f"ablate --data data --preset {p.name} --config given/settings.toml --set optimizer.beta1=0.8 --jobs 1"
    words += " --seed 3 --device cpu"
    yield step(f"{words} --max-minutes 1 --seeds 1 --also optimizer.lr=0.0003 --dry-run")
    made: dict[str, dict[str, Any]] = {"runs/ablation/ablation.json": {}, "runs/ablation/ablation.md": {}}
    yield step(f"{words} --steps 1 -o runs/ablation --json", says="json", makes=made)


# --- after training --------------------------------------------------------------------------------


def evaluate(p: Preset) -> Iterator[Step]:
    yield step(f"evaluate {p.run}")
    yield step(f"-v evaluate {p.run} --frames 6 -o a.json", makes={"a.json": {}})
    yield step(f"-q evaluate {p.run} --future 2 --latent all --json -o all.json", says="json", makes={"all.json": {}})
    words = f"evaluate {p.run} --data long --split train --past {p.config.training.past} --future 3 --latent prior"
    every = "--samples 2 --elbo --importance-samples 2 --json -o b.json"
    yield step(f"{words} {every}", *everywhere("evaluate"), says="json", makes={"b.json": {}})
    yield step(f"evaluate {p.run} --data long --lpips-weights given/lpips.pt --fvd-weights given/fvd.pt")
    yield step(f"evaluate {p.run} --long 40", code=2 if p.pushing else 0)  # actions cannot be played backward
    yield step(f"evaluate {p.run} --future 2 --shuffle-actions", code=0 if p.pushing else 2)
    yield step(f"evaluate {p.run} --future 2 --batch-stats", code=_batch_stats(p))


def _batch_stats(p: Preset) -> int:
    """--batch-stats is for the course's model, and refused for the others."""
    return 0 if p.config.model.name == "pose-cvae" else 2


def generate(p: Preset) -> Iterator[Step]:
    dance = "--first-frame data/test/test_img/0/0.png --poses data/test/test_label/0"
    tables = "data/test/traj_0_to_1/0"
    pushing = f"--past-frames given/past --actions {tables}/actions.csv --positions {tables}/endeffector_positions.csv"
    height, width = SIZES[p.config.model.condition_kind]
    own = f"--trajectory {tables}" if p.pushing else dance
    larger = 128 // height  # small frames are enlarged in what is looked at, and as they are in PNGs
    gif = {"frames": p.frames, "size": (larger * width, larger * height)}
    yield step(f"generate {p.run} {own} -o a.gif", makes={"a.gif": gif})
    exact = {"frames": p.frames, "size": (width, height)}
    words = "--latent prior --samples 2 --side-by-side --upscale 2 --fps 12 -o b.mp4"
    if p.pushing:
        made: dict[str, dict[str, Any]] = {"b.mp4": {"frames": p.config.training.past + 3}, "b.png": {"frames": 1}}
        yield step(f"generate {p.run} {pushing} --future 3 {words}", *everywhere("generate"), makes=made)
    else:
        made = {"b.mp4": {"frames": p.frames}, "b.png": {"frames": 1}, "b-poses.png": {"frames": 1}}
        fit = "--fit-poses --fill --target-poses data/train/train_label"
        yield step(f"generate {p.run} {dance} {fit} {words}", *everywhere("generate"), makes=made)
    yield step(f"generate {p.run} {own} --latents given/noise.safetensors -o c --json", says="json", makes={"c": exact})
    yield step(f"generate {p.run} {own} --batch-stats -o d.gif", code=_batch_stats(p))
    theirs = "--first-frame data/test/test_img/0/0.png --poses given/me.mp4 --fit-poses --keypoints given/me.json"
    yield step(f"generate {p.run} {theirs} -o f.gif", code=2 if p.pushing else 0)
    yield step(f"generate {p.run} {theirs} --estimate --pose-model given/none.task -o g.gif", code=2)
    foreign = (
        f"{dance} --fill --fit-poses --target-poses data"
        if p.pushing
        else f"--trajectory {tables} {pushing} --future 3"
    )
    yield step(f"generate {p.run} {own} {foreign} -o e.gif", code=2)  # options of the other kind of model


def export(p: Preset) -> Iterator[Step]:
    rows = {"rows": 2 * p.frames}
    yield step(f"export {p.run} -o a.csv", makes={"a.csv": rows})
    video = {"files": 2, "frames": 2}
    words = f"export {p.run} --data data --split test --latent prior --gifs gifs -o b.csv --json"
    yield step(words, *everywhere("export"), says="json", makes={"b.csv": rows, "gifs": video})
    yield step(f"export {p.run} --batch-stats -o c.csv", code=_batch_stats(p))


def compare(p: Preset) -> Iterator[Step]:
    both = f"{p.run} runs/{TWIN}"
    yield step(f"compare {both} --evaluate")
    yield step(f"compare {both} --markdown --sort minutes --anyway --csv a.csv", makes={"a.csv": {"rows": 1}})
    yield step(f"compare {both} --record val-prior --evaluate --json", says="json")


def report(p: Preset) -> Iterator[Step]:
    yield step(f"report {p.run} -o a.html", makes={"a.html": {}})
    words = f"report {p.run} runs/{TWIN} --data long --split train --drift --no-videos -o b.html --json"
    yield step(words, "--device", "cpu", says="json", makes={"b.html": {}})


def _plot(name: str, *suffixes: str) -> Callable[[Preset], Iterator[Step]]:
    """loss, psnr, lr and kl take the same options; a figure takes half a second, so not each is drawn in each form."""

    def steps(p: Preset) -> Iterator[Step]:
        if "png" in suffixes:
            yield step(f"plot {name} {p.run}", makes={f"{name}.png": {"frames": 1}})
        yield step(f"plot {name} {p.run} --terminal")
        for suffix in suffixes:
            if suffix != "png":
                words = f"plot {name} {p.run} runs/{TWIN} -o a.{suffix} --json"
                yield step(words, says="json", makes={f"a.{suffix}": {}})

    return steps


def plot_schedule(p: Preset) -> Iterator[Step]:
    yield step(f"plot schedule {p.run} -o a.pdf --json", says="json", makes={"a.pdf": {"frames": 1}})
    yield step(f"plot schedule --preset {p.name} --terminal")
    yield step(f"plot schedule --preset {p.name} --config given/settings.toml", makes={"schedule.png": {"frames": 1}})


def plot_drift(p: Preset) -> Iterator[Step]:
    yield step(f"plot drift {p.run} --terminal")
    words = f"plot drift {p.run} runs/{TWIN} --data long --split train --every 7 --latent prior --json -o a.svg"
    yield step(words, *everywhere("plot drift"), says="json", makes={"a.svg": {}})
    yield step(f"plot drift {p.run} --age-test --json", says="json")
    yield step(f"plot drift {p.run} --age-test --batch-stats", code=_batch_stats(p))


def plot_latents(p: Preset) -> Iterator[Step]:
    yield step(f"plot latents {p.run}", makes={"latents.png": {"frames": 1}, "latents-samples.png": {"frames": 1}})
    words = f"plot latents {p.run} --data long --split train --frame 3 -o a.svg --json"
    yield step(words, *everywhere("plot latents"), says="json", makes={"a.svg": {}, "a-samples.png": {"frames": 1}})
    yield step(f"plot latents {p.run} --batch-stats --terminal", code=_batch_stats(p))


# --- looking after runs and settings ---------------------------------------------------------------


def runs_list(p: Preset) -> Iterator[Step]:
    yield step("runs list")
    yield step(f"runs list {p.run} --json", says="json")


def runs_show(p: Preset) -> Iterator[Step]:
    yield step(f"runs show {p.run}")
    yield step(f"runs show {p.run} --json", says="json")


def runs_prune(p: Preset) -> Iterator[Step]:
    yield step(f"runs prune {p.run} --json", says="json")
    last = {f"{p.run}/checkpoints/last.safetensors": {}, f"{p.run}/checkpoints/best.safetensors": {}}
    yield step("runs prune --yes", makes=last)
    yield step(f"evaluate {p.run} --frames 4")


def runs_rm(p: Preset) -> Iterator[Step]:
    yield step(f"runs rm {p.run}", code=2, makes={f"{p.run}/config.toml": {}})  # there is nobody to ask
    yield step(f"runs rm {p.run} --yes --json", says="json")
    yield step(f"runs show {p.run}", code=4)  # it is gone


def checkpoint_show(p: Preset) -> Iterator[Step]:
    yield step(f"checkpoint show {p.run}")
    yield step(f"checkpoint show {p.run}/checkpoints/best.safetensors --json", says="json")


def checkpoint_verify(p: Preset) -> Iterator[Step]:
    yield step(f"checkpoint verify {p.run}")
    yield step(f"checkpoint verify {p.run}/checkpoints/last.safetensors --json", says="json")


def config_show(p: Preset) -> Iterator[Step]:
    yield step(f"config show {p.run} --json", says="json")
    yield step(f"config show {p.run}/checkpoints/last.safetensors --json", says="json")
    yield step(f"config show --preset {p.name} --config given/settings.toml --set training.epochs=3")


def config_check(p: Preset) -> Iterator[Step]:
    yield step(f"config check given/settings.toml --preset {p.name} --set training.epochs=3")
    yield step(f"config check given/settings.toml --preset {p.name} --json", says="json")


def config_init(p: Preset) -> Iterator[Step]:
    yield step(f"config init own.toml --preset {p.name} --model {p.config.model.name}", makes={"own.toml": {}})
    yield step("config check own.toml")
    yield step(f"config init -o other.toml --preset {p.name} --json", says="json", makes={"other.toml": {}})


def root(p: Preset) -> Iterator[Step]:
    yield step("--version")


def steps_of(p: Preset, command: str) -> list[Step]:
    """What is typed for a command: the first line with --verbose behind it, the others with --quiet."""
    steps = [*COMMANDS[command](p)]
    if command:
        loud = itertools.chain(["--verbose"], itertools.repeat("--quiet"))
        steps = [
            one if {"-v", "-q"} & {*one.arguments} else replace(one, arguments=(*one.arguments, word))
            for one, word in zip(steps, loud, strict=False)
        ]
    return steps if p.in_full else steps[:1]


COMMANDS: dict[str, Callable[[Preset], Iterator[Step]]] = {
    "": root,
    "train": train,
    "resume": resume,
    "sweep": sweep,
    "ablate": ablate,
    "evaluate": evaluate,
    "generate": generate,
    "export": export,
    "compare": compare,
    "report": report,
    "plot loss": _plot("loss", "svg"),
    "plot psnr": _plot("psnr", "svg"),
    "plot lr": _plot("lr", "svg"),
    "plot kl": _plot("kl", "png", "pdf"),
    "plot schedule": plot_schedule,
    "plot drift": plot_drift,
    "plot latents": plot_latents,
    "runs list": runs_list,
    "runs show": runs_show,
    "runs prune": runs_prune,
    "runs rm": runs_rm,
    "checkpoint show": checkpoint_show,
    "checkpoint verify": checkpoint_verify,
    "config show": config_show,
    "config check": config_check,
    "config init": config_init,
}
