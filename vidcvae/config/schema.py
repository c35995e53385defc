# ruff: noqa: RUF009 - setting() makes a dataclass field
"""Every setting with its meaning, range, default, unit and the paper's symbol.

A setting is declared once, here; ``vidcvae.config`` derives reading, checking, explaining and saving from it.
"""

import typing
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, assert_never

from vidcvae.errors import UsageError

# Each choice is declared here only, so that a type checker finds every place that forgets one.
PoseModelName = Literal["pose-cvae"]
AnchorModelName = Literal["anchor-cvae"]
SvgModelName = Literal["svg-fp", "svg-lp"]
ModelName = Literal[PoseModelName, AnchorModelName, SvgModelName]
BatchNorm = Literal["clip", "frame"]
Prior = Literal["fixed", "learned"]
Backbone = Literal["vgg64", "dcgan64"]
SvgConditions = Literal["none", "actions", "actions+positions"]
ConditionKind = Literal["pose", SvgConditions]
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
DrawnLatent = Literal["zero", "prior"]  # how z is chosen when there are no true frames
Latent = Literal["zero", "prior-mean", "prior", "posterior"]
FrameSize = tuple[int, int] | Literal["auto"]  # height and width, or the dataset's
LatentOrAll = Literal[Latent, "all"]  # one way to choose z, or all of them
Metric = Literal["psnr_zero", "psnr_prior", "ssim_zero", "ssim_prior"]
Weights = Literal["auto", "raw", "ema"]  # of a checkpoint

LAB_SIZE = (32, 64)  # default height and width of frames
SIDES = range(8, 4096 + 1, 8)  # valid heights and widths of frames


def choices(kind: Any) -> tuple[str, ...]:
    """The values of a ``Literal`` type; empty for any other type."""
    return typing.get_args(kind) if typing.get_origin(kind) is Literal else ()


def error_name(kind: Reconstruction) -> str:
    """The name of a frame's reconstruction error; pixels are in 0..1."""
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
        metadata={"doc": doc, "low": low, "high": high, "above": above, "unit": unit, "symbol": symbol},
    )


class ModelSettings:
    """Properties of a model class that are not settings.

    kind: the kind of dataset it is made for, "dance" or "push"; frame_size: the only size it accepts, or None for any;
    given_frames: the only number of given frames it accepts, or None for any; fewest_clips: the fewest clips that its
    BatchNorm accepts at once; recurrent: its posterior and prior remember earlier frames; told_noise: the level of the
    noise on its frames is an input; image_statistics: it can normalise each image by its own statistics, as the
    course's code does.
    """

    kind: ClassVar[str] = "dance"
    frame_size: ClassVar[tuple[int, int] | None] = None
    given_frames: ClassVar[int | None] = 1
    fewest_clips: ClassVar[int] = 1
    recurrent: ClassVar[bool] = False
    told_noise: ClassVar[bool] = False
    image_statistics: ClassVar[bool] = False

    @property
    def condition_kind(self) -> ConditionKind:
        return "pose"

    @property
    def condition_size(self) -> int:
        """Numbers in a row of conditions: 4 for the action, 3 for the position; 0 if conditions are images."""
        return {"actions": 4, "actions+positions": 4 + 3}.get(self.condition_kind, 0)

    @property
    def learned_prior(self) -> bool:
        """Whether the prior depends on earlier frames; otherwise it is N(0, I), whose mean is z = 0."""
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
        "frames that BatchNorm's training statistics cover: clip, all frames of a batch; frame, one time step at a "
        "time, as in the course's loop",
    )
    image_statistics: ClassVar[bool] = True


@dataclass(frozen=True)
class AnchorCvaeConfig(ModelSettings):
    """Our own model, in which every step sees the first frame as an anchor (``anchor-cvae``)."""

    name: AnchorModelName = setting("anchor-cvae", "which model")
    channels: int = setting(72, "channels at the finest level, a multiple of 8", low=8, high=4096, symbol="C")
    latent_channels: int = setting(8, "channels of z, at the coarsest level", low=1, high=4096, symbol="N")
    patch: int = setting(
        2, "side of the pixel square that becomes one position at the finest level; 4 suits large frames", low=1, high=8
    )
    prior: Prior = setting("fixed", "prior of z: N(0, I), or learned from the previous frame and the pose")
    anchor: bool = setting(True, "show the first frame and its pose to the model in every step")
    scene: bool = setting(
        False,
        "use the empty scene, estimated from the training frames, as the anchor, and make each pixel a mixture of it "
        "and the drawn frame; needs a camera that does not move",
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
    conditions: SvgConditions = setting("actions+positions", "inputs of the frame predictor besides the frames")
    condition_embedding: int = setting(
        0, "size of a linear embedding of the condition; 0 concatenates the raw condition", low=0, high=16384
    )
    last_frame_skip: bool = setting(
        False, "take the decoder's skip connections from every previous frame, not only from the given frames"
    )
    batch_norm: BatchNorm = setting(
        "clip",
        "frames that BatchNorm's training statistics cover: clip, all frames of a batch; frame, one time step at a "
        "time, as in the original loop",
    )
    kind: ClassVar[str] = "push"
    frame_size: ClassVar[tuple[int, int] | None] = (64, 64)
    given_frames: ClassVar[int | None] = None
    fewest_clips: ClassVar[int] = 2
    recurrent: ClassVar[bool] = True

    @property
    def condition_kind(self) -> ConditionKind:
        return self.conditions

    @property
    def learned_prior(self) -> bool:
        return self.name == "svg-lp"


Model = PoseCvaeConfig | AnchorCvaeConfig | SvgConfig
MODELS: dict[str, type[Model]] = {
    "pose-cvae": PoseCvaeConfig,
    "anchor-cvae": AnchorCvaeConfig,
    "svg-fp": SvgConfig,
    "svg-lp": SvgConfig,
}


@dataclass(frozen=True)
class DataConfig:
    path: str = setting("", "dataset folder, packed dataset, synthetic:dance or synthetic:push")
    size: FrameSize = setting(
        "auto",
        "frame height and width, multiples of 8; auto: the dataset's size, or 32x64 if it does not give one",
        low=SIDES[0],
        high=SIDES[-1],
        unit="pixels",
    )
    sampling: Sampling = setting("random", "clips from every start position, or the course's non-overlapping windows")
    flip: bool = setting(False, "mirror half of the clips, with their poses and anchors")
    shift: int = setting(
        0, "largest random shift of clips, poses and anchors; edge pixels fill the gap", low=0, unit="pixels"
    )
    shuffle: bool = setting(True, "shuffle the clips each epoch; false keeps the file order, as the course does")
    partial: float = setting(1.0, "share of the training clips to use, counted from the first", above=0, high=1)
    fast_train: bool = setting(False, "use fewer clips in the first epochs (the course's --fast_train)")
    fast_train_epochs: int = setting(5, "number of epochs that fast_train lasts", low=0, unit="epochs")
    fast_train_fraction: float = setting(0.4, "share of the clips while fast_train lasts", above=0, high=1)
    condition: ConditionRow = setting(
        "source", "action row for the step into frame t: source, row t-1, which causes it; target, row t"
    )

    @property
    def frame_size(self) -> tuple[int, int]:
        """``size`` as numbers. Raises ``UsageError`` while it is "auto", that is, until the data are known."""
        if self.size == "auto":
            raise UsageError(
                "data.size is auto, but there is no dataset to take the size from.", "Set it: --set data.size=32x64"
            )
        return self.size


@dataclass(frozen=True)
class LossConfig:
    reconstruction: Reconstruction = setting(
        "mse",
        "squared error, half absolute and half squared error, or the logarithm of each frame's squared error (PSNR)",
    )
    motion: float = setting(0.0, "extra weight of pixels that differ from the previous true frame", low=0)
    smoothing: float = setting(
        0.3,
        "weight of the smoothing term: squared error of the predicted change (prediction minus the frame that the "
        "model was given) against the true change x_t - x_{t-1}",
        low=0,
    )


@dataclass(frozen=True)
class KlConfig:
    type: KlType = setting("cyclical", "schedule of beta")
    cycles: int = setting(4, "number of cycles (cyclical)", low=1, symbol="M")
    ratio: float = setting(0.5, "share of a cycle in which beta climbs", above=0, high=1, symbol="R")
    start: float = setting(0.01, "beta at the start of a cycle", low=0, symbol="beta")
    stop: float = setting(1.0, "beta at the end of the climb; the constant beta if type is none", low=0, symbol="beta")
    per: KlPer = setting("epoch", "how often beta is updated")
    free_bits: float = setting(0.0, "KL, averaged over the batch, that costs nothing", low=0, unit="nats per frame")
    reduction: Reduction = setting("sum", "KL summed over the elements of the latent, as in the course, or averaged")


@dataclass(frozen=True)
class TeacherForcingConfig:
    ratio: float = setting(0.0, "probability of teacher forcing at the start", low=0, high=1)
    decay_start: int = setting(10, "first epoch in which the ratio falls", low=0, unit="epochs")
    decay_step: float = setting(0.1, "decrease of the ratio per epoch", low=0, high=1)
    floor: float = setting(0.0, "lowest value of the ratio", low=0, high=1)
    draw: ForcingDraw = setting("epoch", "how often to draw at random whether to force")
    reference: ForcingReference = setting(
        "truth", "model input when forced: the true previous frame, or ratio x truth + (1 - ratio) x prediction"
    )


@dataclass(frozen=True)
class OptimizerConfig:
    name: OptimizerName = setting("adam", "Adam, or Adam with decoupled weight decay")
    lr: float = setting(1e-3, "learning rate", above=0)
    beta1: float = setting(0.9, "decay of Adam's first moment", low=0, high=0.9999)
    beta2: float = setting(0.999, "decay of Adam's second moment", low=0, high=0.99999)
    weight_decay: float = setting(0.0, "weight decay", low=0)
    gradient_clip: float = setting(1.0, "largest gradient norm; 0 turns clipping off", low=0)


@dataclass(frozen=True)
class LrScheduleConfig:
    type: LrType = setting("constant", "learning rate schedule")
    milestones: tuple[int, ...] = setting((2, 5), "epochs after which the rate falls (multistep)", low=0)
    factor: float = setting(0.1, "factor by which the rate is multiplied at each milestone", above=0, high=1)
    final: float = setting(1e-6, "learning rate at the end (cosine)", low=0)
    warmup: int = setting(0, "steps over which the rate climbs from 0", low=0, unit="steps")


@dataclass(frozen=True)
class TrainingConfig:
    epochs: int = setting(
        70, "epochs; each has as many clips as fit into the training videos side by side", low=1, unit="epochs"
    )
    steps_per_epoch: int = setting(0, "steps in an epoch; 0 means one pass over the clips", low=0)
    max_minutes: float = setting(0.0, "save everything and stop after this many minutes; 0 means never", low=0)
    batch_size: int = setting(2, "clips in a step", low=1, symbol="B")
    clip_length: int = setting(16, "frames in a clip, including the given ones", low=2, symbol="T")
    clip_length_start: int = setting(
        0, "initial clip length, which grows to clip_length over the first half of training; 0: no growth", low=0
    )
    past: int = setting(1, "number of given frames", low=1)
    replay: float = setting(
        0.0, "share of clips that continue an earlier clip from the model's own last frame", low=0, high=1
    )
    noise: float = setting(
        0.0, "largest standard deviation of noise on previous frames; the model is given its level", low=0, high=1
    )
    latent_dropout: float = setting(0.0, "share of clips trained with z at the prior's mean", low=0, high=1)
    ema: float = setting(0.0, "decay of the moving average of the weights; 0 turns it off", low=0, high=0.99999)
    precision: Precision = setting(
        "float32", "arithmetic of the networks; auto measures both before the first step and takes the faster one"
    )
    accumulate: int = setting(
        1,
        "number of parts to split a batch into, to save memory. The step stays the same, except that BatchNorm sees "
        "one part at a time; kl.free_bits adds a second pass, which measures the KL of the whole batch",
        low=1,
    )
    checkpoint_activations: bool = setting(
        False, "recompute each frame's activations in the backward pass: slower, but long clips need little memory"
    )
    batch_norm_ranks: RankStatistics = setting(
        "sync", "with several processes (torchrun), take BatchNorm statistics over all ranks or over each rank alone"
    )
    compile: bool = setting(
        False, "fuse small operations with torch.compile; needs a C++ compiler and some minutes at the start"
    )
    cuda_graph: CudaGraph = setting(
        "auto",
        "on a GPU, replay whole steps as CUDA graphs; if the settings rule graphs out, on is an error and auto runs "
        "without them",
    )
    deterministic: bool = setting(
        False,
        "use only reproducible operations, so that a resumed run equals an uninterrupted one bit for bit on a GPU too; "
        "slower there, and not needed on a CPU",
    )
    device: Device = setting("auto", "device to train on")
    seed: int = setting(0, "seed of every random stream", low=0)
    log_every: int = setting(10, "steps between two log lines", low=1, unit="steps")


@dataclass(frozen=True)
class ValidationConfig:
    every: int = setting(1, "epochs between two validations; 0 means never", low=0, unit="epochs")
    frames: int = setting(0, "frames of the free run; 0 means the whole sequence", low=0)
    metric: Metric = setting("psnr_zero", "score that chooses `best`: PSNR or SSIM, with z = 0 or z from the prior")


@dataclass(frozen=True)
class CheckpointConfig:
    every: int = setting(1, "epochs between two checkpoints", low=1, unit="epochs")
    every_steps: int = setting(0, "also save each time after this many steps; 0 means at epochs only", low=0)
    keep: int = setting(3, "number of newest checkpoints to keep besides last and best", low=0)


@dataclass(frozen=True)
class Config:
    """All settings of a run. ``resolve`` builds it, ``to_toml`` writes it, and a checkpoint stores it as JSON."""

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

    @property
    def conditioning(self) -> tuple[ConditionKind, ConditionRow]:
        """The two settings that decide what each step is given: the kind of condition, and the row it comes from."""
        return self.model.condition_kind, self.data.condition


# All sections but the model's, whose class depends on its name
SECTION_CLASSES: dict[str, Any] = {f.name: f.type for f in fields(Config) if f.name != "model"}
