# ruff: noqa: RUF009 - setting() makes a dataclass field
"""What can be set: every setting with its meaning, range, default, unit and the paper's symbol.

Each is declared once; reading, checking, explaining and saving (``vidcvae.config``) follow from the declaration.
"""

import typing
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, assert_never

from vidcvae.errors import UsageError

# Choices, each declared here and nowhere else: a type checker sees every place that forgets one.
PoseModelName = Literal["pose-cvae"]
AnchorModelName = Literal["anchor-cvae"]
SvgModelName = Literal["svg-fp", "svg-lp"]
ModelName = Literal[PoseModelName, AnchorModelName, SvgModelName]
BatchNorm = Literal["clip", "frame"]
Prior = Literal["fixed", "learned"]
Backbone = Literal["vgg64", "dcgan64"]
SvgConditions = Literal["none", "actions", "actions+positions"]
Conditions = Literal["pose", SvgConditions]
Sampling = Literal["random", "windows"]
ConditionRow = Literal["source", "target"]
Reconstruction = Literal["mse", "l1+mse", "log-mse"]
KlType = Literal["cyclical", "monotonic", "none"]
KlPer = Literal["epoch", "iteration"]
Reduction = Literal["sum", "mean"]
ForcingDraw = Literal["epoch", "batch", "clip", "frame"]
ForcingReference = Literal["truth", "mix"]
OptimizerName = Literal["adam", "adamw"]
LrType = Literal["constant", "multistep", "cosine"]
Precision = Literal["float32", "bf16", "auto"]
RankStatistics = Literal["sync", "rank"]
CudaGraph = Literal["auto", "on", "off"]
Device = Literal["auto", "cpu", "cuda"]
DrawnLatent = Literal["zero", "prior"]  # how z is chosen where nobody knows the truth
Latent = Literal["zero", "prior-mean", "prior", "posterior"]
FrameSize = tuple[int, int] | Literal["auto"]  # height and width, or the dataset's own
LatentOrAll = Literal[Latent, "all"]  # one way to choose z, or each of them side by side
Metric = Literal["psnr_zero", "psnr_prior", "ssim_zero", "ssim_prior"]
Weights = Literal["auto", "raw", "ema"]  # of a checkpoint

LAB_SIZE = (32, 64)  # height and width of the frames where nobody says any
SIDES = range(8, 4096 + 1, 8)  # that a frame can have


def choices(kind: Any) -> tuple[str, ...]:
    """The values of a ``Literal`` type; none of any other type."""
    return typing.get_args(kind) if typing.get_origin(kind) is Literal else ()


def error_name(kind: Reconstruction) -> str:
    """The reconstruction error of a frame, its pixels in 0..1."""
    match kind:
        case "mse":
            return "MSE"
        case "l1+mse":
            return "½ L1 + ½ MSE"
        case "log-mse":
            return "ln MSE"
        case _:
            assert_never(kind)


def kl_unit(reduction: Reduction) -> str:
    match reduction:
        case "sum":
            return "nats"
        case "mean":
            return "nats per dimension"
        case _:
            assert_never(reduction)


def setting(
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    unit: str = "",
    symbol: str = "",
) -> Any:
    """Declare one setting: ``low`` and ``high`` are inclusive bounds, ``above`` an exclusive lower one."""
    return field(
        default=default,
        metadata={
            "doc": doc,
            "low": low,
            "high": high,
            "above": above,
            "unit": unit,
            "symbol": symbol,
        },
    )


class ModelSettings:
    """What others must know of a model, beside its settings.

    kind: the datasets it is made for, "dance" or "push"; frame_size: the only one it takes, if there is one;
    given_frames: the only number of given frames it takes; fewest_clips: that go through its BatchNorm at once;
    recurrent: its posterior and prior remember earlier frames; told_noise: the level of noise on its frames is an
    input; image_statistics: it can normalise each image by its own statistics, as the course's code does.
    """

    kind: ClassVar[str] = "dance"
    frame_size: ClassVar[tuple[int, int] | None] = None
    given_frames: ClassVar[int | None] = 1
    fewest_clips: ClassVar[int] = 1
    recurrent: ClassVar[bool] = False
    told_noise: ClassVar[bool] = False
    image_statistics: ClassVar[bool] = False

    @property
    def condition(self) -> Conditions:
        return "pose"

    @property
    def condition_size(self) -> int:
        """Numbers in a row of conditions, four of the action and three of the position; 0 where they are images."""
        return {"actions": 4, "actions+positions": 4 + 3}.get(self.condition, 0)

    @property
    def learned_prior(self) -> bool:
        """Whether the prior depends on the frames before; else it is N(0, I), whose mean is z = 0."""
        return False


@dataclass(frozen=True)
class PoseCvaeConfig(ModelSettings):
    """The course's five modules (``pose-cvae``)."""

    name: PoseModelName = setting("pose-cvae", "which model")
    frame_channels: int = setting(128, "channels of the frame encoder's output", low=8, high=4096, symbol="F")
    pose_channels: int = setting(32, "channels of the pose encoder's output", low=2, high=4096, symbol="L")
    latent_channels: int = setting(12, "channels of z, at full resolution", low=4, high=4096, symbol="N")
    decoder_channels: int = setting(192, "channels between fusion and generator", low=8, high=4096, symbol="D")
    batch_norm: BatchNorm = setting(
        "clip",
        "the frames over which BatchNorm takes its statistics in training: all of a batch of clips, or "
        "those of one time step as the course's loop does",
    )
    image_statistics: ClassVar[bool] = True


@dataclass(frozen=True)
class AnchorCvaeConfig(ModelSettings):
    """Our own model: the first frame stays at hand as an anchor (``anchor-cvae``)."""

    name: AnchorModelName = setting("anchor-cvae", "which model")
    channels: int = setting(72, "channels at the finest level, a multiple of 8", low=8, high=4096, symbol="C")
    latent_channels: int = setting(8, "channels of z, at the coarsest level", low=1, high=4096, symbol="N")
    patch: int = setting(
        2, "side of the square of pixels that is one at the network's finest level; 4 for large frames", low=1, high=8
    )
    prior: Prior = setting("fixed", "the prior of z: N(0, I), or learned from frame before and pose")
    anchor: bool = setting(True, "keep the first frame and its pose in sight; false hides both")
    scene: bool = setting(
        False,
        "the anchor is the empty scene, found in the training frames, and each pixel is a mixture of it and of what is "
        "drawn; for a camera that stands still",
    )
    told_noise: ClassVar[bool] = True

    @property
    def learned_prior(self) -> bool:
        return self.prior == "learned"


@dataclass(frozen=True)
class SvgConfig(ModelSettings):
    """Stochastic video generation with a fixed (``svg-fp``) or learned (``svg-lp``) prior."""

    name: SvgModelName = setting("svg-fp", "which model")
    backbone: Backbone = setting("vgg64", "frame encoder and decoder")
    frame_dim: int = setting(128, "size of a frame's code", low=1, high=16384, symbol="g")
    latent_dim: int = setting(64, "size of the latent", low=1, high=16384, symbol="z")
    hidden_dim: int = setting(256, "size of the LSTM cells", low=1, high=16384)
    predictor_layers: int = setting(2, "LSTM layers of the frame predictor", low=1, high=64)
    posterior_layers: int = setting(1, "LSTM layers of the posterior", low=1, high=64)
    prior_layers: int = setting(1, "LSTM layers of the learned prior (svg-lp)", low=1, high=64)
    conditions: SvgConditions = setting("actions+positions", "what the frame predictor sees beside the frames")
    condition_embedding: int = setting(
        0, "size of a linear embedding of the condition; 0 concatenates it raw", low=0, high=16384
    )
    last_frame_skip: bool = setting(
        False, "take the decoder's skips from every previous frame, not only from the given ones"
    )
    batch_norm: BatchNorm = setting(
        "clip",
        "the frames over which BatchNorm takes its statistics in training: all of a batch of clips, or "
        "those of one time step as the original loop does",
    )
    kind: ClassVar[str] = "push"
    frame_size: ClassVar[tuple[int, int] | None] = (64, 64)
    given_frames: ClassVar[int | None] = None
    fewest_clips: ClassVar[int] = 2
    recurrent: ClassVar[bool] = True

    @property
    def condition(self) -> Conditions:
        return self.conditions

    @property
    def learned_prior(self) -> bool:
        return self.name == "svg-lp"


Model = PoseCvaeConfig | AnchorCvaeConfig | SvgConfig
MODELS: dict[str, type[PoseCvaeConfig] | type[AnchorCvaeConfig] | type[SvgConfig]] = {
    "pose-cvae": PoseCvaeConfig,
    "anchor-cvae": AnchorCvaeConfig,
    "svg-fp": SvgConfig,
    "svg-lp": SvgConfig,
}


@dataclass(frozen=True)
class DataConfig:
    path: str = setting("", "dataset folder, packed dataset, or synthetic:dance")
    size: FrameSize = setting(
        "auto",
        "frame height and width, multiples of 8; auto: the dataset's own, or 32x64 where it says none",
        low=SIDES[0],
        high=SIDES[-1],
        unit="pixels",
    )
    sampling: Sampling = setting("random", "clips from every start position, or the course's non-overlapping windows")
    flip: bool = setting(False, "mirror half of the clips, poses and anchors with them")
    shift: int = setting(
        0, "move clips, poses and anchors by up to so much, the edge repeated behind them", low=0, unit="pixels"
    )
    shuffle: bool = setting(True, "a new order of clips each epoch; false keeps the file order of the course")
    partial: float = setting(1.0, "share of the training clips that is used, from the start", above=0, high=1)
    fast_train: bool = setting(False, "use fewer clips in the first epochs (the course's --fast_train)")
    fast_train_epochs: int = setting(5, "how many epochs fast_train lasts", low=0, unit="epochs")
    fast_train_fraction: float = setting(0.4, "share of the clips while fast_train lasts", above=0, high=1)
    condition: ConditionRow = setting(
        "source", "the row of actions that goes with the step into frame t: t-1, which causes it, or t"
    )

    @property
    def frame_size(self) -> tuple[int, int]:
        """``size`` as numbers, which it is once the data are known. Raises ``UsageError`` before."""
        if self.size == "auto":
            raise UsageError("data.size is auto, and there are no data to say it.", "Set it: --set data.size=32x64")
        return self.size


@dataclass(frozen=True)
class LossConfig:
    reconstruction: Reconstruction = setting(
        "mse",
        "squared error, half absolute and half squared error, or the logarithm of each frame's squared error (PSNR)",
    )
    motion: float = setting(0.0, "extra weight of pixels that differ from the true frame before", low=0)
    smoothing: float = setting(0.3, "rate of the time-smoothing term mse(prediction - reference, x_t - x_{t-1})", low=0)


@dataclass(frozen=True)
class KlConfig:
    type: KlType = setting("cyclical", "how beta moves")
    cycles: int = setting(4, "number of cycles (cyclical)", low=1, symbol="M")
    ratio: float = setting(0.5, "share of a cycle in which beta climbs", above=0, high=1, symbol="R")
    start: float = setting(0.01, "beta at the start of a cycle", low=0, symbol="beta")
    stop: float = setting(1.0, "beta at the end of the climb, and throughout with type none", low=0, symbol="beta")
    per: KlPer = setting("epoch", "beta moves once an epoch or every iteration")
    free_bits: float = setting(0.0, "KL that costs nothing, mean over the batch", low=0, unit="nats per frame")
    reduction: Reduction = setting("sum", "KL summed over the latent's elements (the course) or averaged")


@dataclass(frozen=True)
class TeacherForcingConfig:
    ratio: float = setting(0.0, "probability of teacher forcing at the start", low=0, high=1)
    decay_start: int = setting(10, "first epoch in which the ratio falls", low=0, unit="epochs")
    decay_step: float = setting(0.1, "by how much the ratio falls each epoch", low=0, high=1)
    floor: float = setting(0.0, "the ratio falls no further", low=0, high=1)
    draw: ForcingDraw = setting("epoch", "one coin for each epoch, batch, clip or frame")
    reference: ForcingReference = setting(
        "truth", "what the model sees when forced: the true previous frame, or ratio x truth + (1 - ratio) x prediction"
    )


@dataclass(frozen=True)
class OptimizerConfig:
    name: OptimizerName = setting("adam", "Adam, or Adam with decoupled weight decay")
    lr: float = setting(1e-3, "learning rate", above=0)
    beta1: float = setting(0.9, "decay of Adam's first moment", low=0, high=0.9999)
    beta2: float = setting(0.999, "decay of Adam's second moment", low=0, high=0.99999)
    weight_decay: float = setting(0.0, "weight decay", low=0)
    gradient_clip: float = setting(1.0, "largest norm of the gradient; 0 does not clip", low=0)


@dataclass(frozen=True)
class LrScheduleConfig:
    type: LrType = setting("constant", "how the learning rate moves")
    milestones: tuple[int, ...] = setting((2, 5), "epochs after which the rate falls (multistep)", low=0)
    factor: float = setting(0.1, "what the rate is multiplied with at a milestone", above=0, high=1)
    final: float = setting(1e-6, "learning rate at the end (cosine)", low=0)
    warmup: int = setting(0, "steps in which the rate climbs from 0", low=0, unit="steps")


@dataclass(frozen=True)
class TrainingConfig:
    epochs: int = setting(70, "passes over the training clips", low=1, unit="epochs")
    steps_per_epoch: int = setting(0, "steps in an epoch; 0 means one pass over the clips", low=0)
    max_minutes: float = setting(0.0, "stop, with everything saved, after this long; 0 means never", low=0)
    batch_size: int = setting(2, "clips in a step", low=1, symbol="B")
    clip_length: int = setting(16, "frames in a clip, the given ones included", low=2, symbol="T")
    clip_length_start: int = setting(
        0, "frames in a clip at the start, growing to clip_length over the first half of training; 0: no growth", low=0
    )
    past: int = setting(1, "frames that are given", low=1)
    replay: float = setting(
        0.0, "share of clips that go on where an earlier one ended, from the model's own last frame", low=0, high=1
    )
    noise: float = setting(
        0.0, "largest standard deviation of the noise on previous frames, whose level the model is told", low=0, high=1
    )
    latent_dropout: float = setting(0.0, "share of clips trained with z at the prior's mean", low=0, high=1)
    ema: float = setting(0.0, "decay of the moving average of the weights; 0 keeps none", low=0, high=0.99999)
    precision: Precision = setting(
        "float32", "arithmetic of the networks; auto measures before the first step, and takes the faster"
    )
    accumulate: int = setting(
        1,
        "parts of a batch that go through the networks one after the other, to save memory: the same step, but that "
        "BatchNorm sees one part at a time; with kl.free_bits each goes through them once more, for the KL of them all",
        low=1,
    )
    checkpoint_activations: bool = setting(
        False, "compute each frame's activations again in the backward pass: long clips in little memory, slower"
    )
    batch_norm_ranks: RankStatistics = setting(
        "sync", "with several processes (torchrun), BatchNorm's statistics over the clips of all, or of each rank alone"
    )
    compile: bool = setting(
        False, "let torch.compile fuse the networks' small operations; needs a C++ compiler and minutes at the start"
    )
    cuda_graph: CudaGraph = setting(
        "auto",
        "on a GPU, replay whole steps as CUDA graphs; on refuses settings that a graph cannot carry, auto does without",
    )
    deterministic: bool = setting(
        False,
        "only operations that give the same numbers each time, so that a resumed run equals an uninterrupted one bit "
        "for bit on a GPU too, where it is slower; on a CPU it does so anyway",
    )
    device: Device = setting("auto", "where to train")
    seed: int = setting(0, "seed of every random stream", low=0)
    log_every: int = setting(10, "steps between two log lines", low=1, unit="steps")


@dataclass(frozen=True)
class ValidationConfig:
    every: int = setting(1, "epochs between two validations; 0 means never", low=0, unit="epochs")
    frames: int = setting(0, "frames of the free run; 0 means the whole sequence", low=0)
    metric: Metric = setting(
        "psnr_zero", "the score by which `best` is chosen: PSNR or SSIM with z = 0 or z from the prior"
    )


@dataclass(frozen=True)
class CheckpointConfig:
    every: int = setting(1, "epochs between two checkpoints", low=1, unit="epochs")
    every_steps: int = setting(0, "also save after this many steps; 0 means at epochs only", low=0)
    keep: int = setting(3, "how many of the newest to keep, beside last and best", low=0)


@dataclass(frozen=True)
class Config:
    """A whole run. ``resolve`` builds it; ``to_toml`` writes it; a checkpoint carries it as JSON."""

    model: Model = PoseCvaeConfig()
    data: DataConfig = DataConfig()
    loss: LossConfig = LossConfig()
    kl: KlConfig = KlConfig()
    teacher_forcing: TeacherForcingConfig = TeacherForcingConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    lr_schedule: LrScheduleConfig = LrScheduleConfig()
    training: TrainingConfig = TrainingConfig()
    validation: ValidationConfig = ValidationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()


SECTION_CLASSES: dict[str, Any] = {
    "data": DataConfig,
    "loss": LossConfig,
    "kl": KlConfig,
    "teacher_forcing": TeacherForcingConfig,
    "optimizer": OptimizerConfig,
    "lr_schedule": LrScheduleConfig,
    "training": TrainingConfig,
    "validation": ValidationConfig,
    "checkpoint": CheckpointConfig,
}
