"""Writing videos as GIF, MP4 or a folder of PNGs, and reading pose videos.

Frames are uint8 (3, H, W) throughout. A video is recorded frame by frame; its file appears, complete, after the last.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import os
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from vidcvae.data import images, numbered
from vidcvae.errors import DataError, UsageError
from vidcvae.progress import Progress, unreported
from vidcvae.storage import durable

if TYPE_CHECKING:
    from torch import Tensor

Frame = np.ndarray  # uint8 (3, H, W)
Add = Callable[[Frame], None]
Gaps = Literal["refuse", "fill", "skip"]

MAX_GIF_PIXELS = 4 << 30  # decoded from one GIF of poses, at its own size; a few kilobytes can declare terabytes
KEPT_COLOURS, KEPT_SHARE = 64, 1e-3  # colours of a GIF that stay exact: their number, and least share of the pixels
PALETTE_PIXELS = 400_000  # pixels, from all over the video, that determine a GIF's colours


def to_bytes(frames: Tensor) -> np.ndarray:
    """Float frames of any shape in 0..1 to uint8: rint(255 x), clipped; ties are rounded to even, as NumPy does."""
    scaled: np.ndarray = (frames.float() * 255).round().clamp(0, 255).byte().cpu().numpy()
    return scaled


def on_disk(shape: tuple[int, ...]) -> np.ndarray:
    """A uint8 array for any number of frames, in an unnamed temporary file that is deleted with the array."""
    size = math.prod(shape)
    with _room(size), tempfile.TemporaryFile() as file:
        if hasattr(os, "posix_fallocate"):  # writing to a mapped file on a full disk would kill the process
            os.posix_fallocate(file.fileno(), 0, size)
        frames = np.memmap(file, np.uint8, "w+", shape=shape)
    return frames


@contextlib.contextmanager
def _room(size: int) -> Iterator[None]:
    """Raise ``DataError`` if there is no space for ``size`` bytes of frames in a temporary file."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot keep {size / 1e6:,.0f} MB of frames in {tempfile.gettempdir()}: {error.strerror}.",
            "Free some space, or set the environment variable TMPDIR to another folder.",
        ) from None


# --- writing ---------------------------------------------------------------------------------------


def check_target(target: Path, fps: float) -> None:
    """Raise ``VidcvaeError`` if ``target`` cannot become a video, before time is spent on its frames."""
    if not 0 < fps < float("inf"):
        raise UsageError(f"a video cannot have {fps:g} frames a second.", "Choose --fps 25.")
    kind = _kind(target)
    if kind == "folder":
        if target.is_file():
            raise UsageError(f"{target} is a file; without .gif or .mp4, a video is a folder of PNGs.", _FORMS)
        durable.must_be_new(target)
    elif target.is_dir():
        raise UsageError(f"{target} is a folder, but a {kind.upper()} is a file.", "Choose another name.")
    if kind == "gif" and fps > 100:
        raise UsageError(f"a GIF cannot show {fps:g} frames a second, only 100.", "Choose a lower --fps, or .mp4.")
    durable.check_writable(target)


_FORMS = "Name a file that ends in .gif or .mp4, or a folder for lossless PNGs."


def is_folder(target: Path) -> bool:
    """Whether a video of this name is a folder of PNGs."""
    return _kind(target) == "folder"


def _kind(target: Path) -> str:
    """ "gif", "mp4" or "folder"."""
    suffix = target.suffix.lower()
    if suffix in (".gif", ".mp4"):
        return suffix[1:]
    if suffix and not target.is_dir():
        raise UsageError(f"{target} is not a GIF or MP4.", _FORMS)
    return "folder"


@contextlib.contextmanager
def recording(target: Path, fps: float) -> Iterator[Add]:
    """Record a video: yields ``add(frame)``. The file is written when the block ends, unless it raises.

    In a folder, ``000000.png``, ``000001.png`` .. are written as frames arrive, and deleted if the block raises.
    Raises like ``check_target``, and ``DataError`` if writing fails.
    """
    check_target(target, fps)
    record = {"gif": _record_gif, "mp4": _record_mp4, "folder": _record_folder}[_kind(target)]
    with record(target, fps) as add:
        yield add


def save(target: Path, frames: Iterable[Frame], fps: float) -> None:
    """Record all of ``frames``; see ``recording``."""
    with recording(target, fps) as add:
        for frame in frames:
            add(frame)


@contextlib.contextmanager
def _record_folder(target: Path, fps: float) -> Iterator[Add]:
    written: list[Path] = []

    def add(frame: Frame) -> None:
        path = target / f"{len(written):06d}.png"
        durable.write_bytes(path, images.encode_png(frame))
        written.append(path)

    try:
        yield add
    except BaseException:
        for path in written:
            durable.remove(path)
        with contextlib.suppress(OSError):
            target.rmdir()
        raise


@contextlib.contextmanager
def _record_gif(target: Path, fps: float) -> Iterator[Add]:
    # All frames share one palette, which needs the last frame; until then the frames are kept on the disk
    ends, shape = [0], (3, 0, 0)
    with tempfile.TemporaryFile() as waiting:

        def add(frame: Frame) -> None:
            nonlocal shape
            data, shape = zlib.compress(frame.tobytes(), 1), frame.shape
            ends.append(ends[-1] + len(data))
            with _room(ends[-1]):
                waiting.write(data)
                waiting.flush()

        yield add

        def frame_at(index: int) -> Frame:
            waiting.seek(ends[index])
            data = zlib.decompress(waiting.read(ends[index + 1] - ends[index]))
            return np.frombuffer(data, np.uint8).reshape(shape)

        count = len(ends) - 1
        palette = _palette(frame_at(i) for i in spread(count, max(1, PALETTE_PIXELS * 3 // math.prod(shape))))
        ticks = [round(index * 100 / fps) for index in range(count + 1)]
        with durable.writing(target) as file:
            for part in _gif_parts(map(frame_at, range(count)), ticks, palette):
                file.write(part)


def _gif_parts(frames: Iterable[Frame], ticks: list[int], palette: Image.Image) -> Iterator[bytes]:
    """A GIF, part by part. ``ticks``: when each frame begins and the last one ends, in 1/100 s; as they are absolute,
    rounding errors do not add up.

    imageio and Pillow merge equal neighbours, which changes the number of frames, and hold all frames in memory.
    FFmpeg's encoder writes each frame as it arrives, cropped to what changed, but imageio cannot give it a palette.
    """
    import av

    colours = np.full((256, 4), 255, np.uint8)  # alpha, red, green, blue
    known = np.frombuffer(bytes(palette.getpalette() or []), np.uint8).reshape(-1, 3)
    colours[: len(known), 1:] = known
    encoded = io.BytesIO()  # not the file itself: PyAV would hide the error of a full disk behind its own
    with av.open(encoded, "w", format="gif", options={"final_delay": str(ticks[-1] - ticks[-2])}) as container:
        stream = container.add_stream("gif", rate=100)
        stream.pix_fmt = "pal8"
        for tick, frame in zip(ticks, frames, strict=False):
            image = Image.fromarray(np.ascontiguousarray(frame.transpose(1, 2, 0)))
            indices = np.asarray(image.quantize(palette=palette, dither=Image.Dither.NONE))
            picture = av.VideoFrame.from_ndarray((indices, colours), format="pal8")  # type: ignore[arg-type]
            picture.pts, picture.time_base = tick, Fraction(1, 100)
            if not stream.codec_context.is_open:  # the first frame
                stream.width, stream.height = image.size
            container.mux(stream.encode(picture))
            yield encoded.getvalue()
            encoded.seek(0)
            encoded.truncate()
        container.mux(stream.encode(None))
    yield encoded.getvalue()


def spread(count: int, most: int) -> list[int]:
    """At most ``most`` of ``range(count)``, evenly spaced."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))})


def _palette(frames: Iterable[Frame]) -> Image.Image:
    """A palette image of up to 256 colours for all of ``frames``."""
    pixels = np.concatenate([frame.reshape(3, -1) for frame in frames], axis=1).T  # (pixels, 3)
    colours, counts = np.unique(pixels, axis=0, return_counts=True)
    if len(colours) > 256:
        # A drawing has few colours with many pixels each: kept exact, a pose's paper stays white and its limbs true
        share = counts / counts.sum()
        common = np.argsort(-share)[:KEPT_COLOURS]
        kept = common[share[common] > KEPT_SHARE]
        # A colour counts by the root of its share: otherwise a black background would take the colours of thin limbs
        weights = np.ceil(np.sqrt(share) * 1000).astype(int)
        weights[kept] = 0
        weighted = Image.fromarray(np.repeat(colours, weights, axis=0)[None])
        # The median cut alone mixes the limbs of a pose with greys; k-means then halves their error
        mixed = weighted.quantize(256 - len(kept), Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE)
        others = np.array(mixed.getpalette(), np.uint8).reshape(-1, 3)[: 256 - len(kept)]
        # Pillow looks colours up in cells of 4 x 4 x 4: a close neighbour could replace a colour that must stay exact
        apart = np.abs(others[:, None].astype(int) - colours[kept]).max(2).min(1, initial=255)
        colours = np.concatenate([colours[kept], others[apart >= 8]])
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours.astype(np.uint8).tobytes())
    return palette


@contextlib.contextmanager
def _record_mp4(target: Path, fps: float) -> Iterator[Add]:
    """H.264 in yuv420p, which every player supports. It needs even sides: odd ones repeat their last row or column."""
    import imageio.v3 as iio

    encoded = io.BytesIO()  # an MP4's index is written last, at the front of the file
    with iio.imopen(encoded, "w", plugin="pyav", extension=".mp4", container="mp4") as file:
        file.init_video_stream("libx264", fps=fps, pixel_format="yuv420p")
        # Tag the colours: PyAV converts by BT.601, but players assume BT.709 for large pictures
        colours = {"colorspace": "bt470bg", "color_range": "tv"}
        stream: Any = file._video_stream  # imageio has no public way to give an encoder options
        stream.options = {"crf": "16", "preset": "medium", **colours}

        def add(frame: Frame) -> None:
            even = np.pad(frame.transpose(1, 2, 0), [(0, side % 2) for side in frame.shape[1:]] + [(0, 0)], mode="edge")
            file.write_frame(even)

        yield add
    durable.write_bytes(target, encoded.getvalue())


# --- reading ---------------------------------------------------------------------------------------


def read_poses(
    path: Path, size: tuple[int, int], progress: Progress = unreported, *, gaps: Gaps = "refuse"
) -> np.ndarray:
    """Pose images, uint8 (T, 3, H, W), from a folder of numbered images or a GIF.

    gaps: what to do about a missing number: "refuse", "fill" (repeat the pose before it), or "skip" (if the poses'
        timing does not matter).
    Raises ``DataError`` that names the file if something is missing, damaged or in another format.
    """
    if path.is_dir():
        return _read_folder(path, size, progress, gaps)
    if not path.exists():
        raise DataError(f"{path} does not exist.", _POSES)
    if path.suffix.lower() in images.PICTURE_SUFFIXES and path.suffix.lower() != ".gif":
        raise DataError(f"{path} is a single image, but a video needs one pose for each frame.", _POSES)
    return _read_gif(path, size)


_TOLD_GAPS = 8
_POSES = "Give --poses a folder of numbered images, such as test/test_label/0, or a GIF."


def _read_folder(folder: Path, size: tuple[int, int], progress: Progress, gaps: Gaps) -> np.ndarray:
    pictures = numbered.sort(numbered.visible(folder), images.PICTURE_SUFFIXES)
    for path in pictures.unnumbered:
        raise DataError(f"{path} has a name that is not a number.", "Poses are ordered by number: 0.png, 1.png, ..")
    for path, other in pictures.duplicates:
        raise DataError(f"{path} has the same number as {other}.", "Keep one of them.")
    found = pictures.by_number
    if not found:
        raise DataError(f"{folder} has no images in it.", _POSES)
    numbers = list(found)
    between = [(a, b) for a, b in itertools.pairwise(numbers) if b > a + 1]
    missing = sum(b - a - 1 for a, b in between)
    too_many = missing > len(numbers)  # they are numbered in another way
    if missing and (gaps == "refuse" or (gaps == "fill" and too_many)):
        suffix = found[numbers[0]].suffix
        told = [f"{a + 1}{suffix}" + (f" to {b - 1}{suffix}" if b > a + 2 else "") for a, b in between]
        more = f" and {len(told) - _TOLD_GAPS} more gaps" if len(told) > _TOLD_GAPS else ""
        raise DataError(
            f"{folder} lacks {missing:,} of the poses {numbers[0]} to {numbers[-1]}: "
            f"{', '.join(told[:_TOLD_GAPS])}{more}; without them the video would be out of time.",
            "Put them there." if too_many else "Put them there, or repeat the pose before each gap: --fill",
        )
    times = range(numbers[0], numbers[-1] + 1) if gaps == "fill" else numbers
    poses = on_disk((len(times), 3, *size))
    for row, number in enumerate(times):
        poses[row] = images.pixels(images.open_picture(found[number]), size) if number in found else poses[row - 1]
        progress(row + 1, len(times))
    return poses


def _read_gif(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Frames of a GIF; one into which Pillow merged several equal frames is repeated."""
    frames: list[Frame] = []
    durations: list[int] = []
    seen = 0
    with images.opened(path, "GIF") as (image, _):
        for frame, milliseconds in images.gif_frames(image):
            seen += frame.width * frame.height
            if len(frames) == images.MAX_GIF_FRAMES or seen > MAX_GIF_PIXELS:
                raise DataError(f"{path} is too long: at its size, at most {len(frames):,} frames can be read.", _POSES)
            frames.append(images.pixels(frame, size))
            durations.append(milliseconds)
    unit = images.unit_of_time(durations)
    repeats = [duration // unit if unit else 1 for duration in durations]
    if sum(repeats) > images.MAX_GIF_FRAMES:
        raise DataError(f"{path} is too long: its durations amount to {sum(repeats):,} frames.", _POSES)
    return np.repeat(np.stack(frames), repeats, axis=0)
