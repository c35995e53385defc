"""A trained model that a person moves live: the state of its free run, and the steps since it began.

A ``Session`` answers the messages of a page (``output.live``), one at a time on one thread. An answer contains one
frame at most, and none is made ahead: no queue grows if the model is slower than the hand.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ImageOps

from vidcvae import reading
from vidcvae.data import clips, images, numbered
from vidcvae.data.clips import VideoData
from vidcvae.errors import DataError, UsageError, VidcvaeError
from vidcvae.evaluation import metrics
from vidcvae.evaluation.free_run import sequence_noise
from vidcvae.models.interface import at
from vidcvae.models.loading import Loaded
from vidcvae.models.rollout import FreeRun
from vidcvae.output import message, recording
from vidcvae.output.generation import latent_shape
from vidcvae.output.message import FrameRequest
from vidcvae.output.recording import Take
from vidcvae.output.steering import Steering
from vidcvae.output.video import to_bytes
from vidcvae.own_clips import recovery, retarget, skeleton

MOST_STEPS = 100_000  # frames of a run: an hour at 30 frames a second
MOST_COMPARED = 64 << 20  # bytes of training frames that are searched for the nearest one

Renew = Callable[[], Loaded | None]  # returns a newer checkpoint of the run, if there is one


@dataclass
class Session:
    """A live run of one model.

    loaded: the model in the precision to compute in; threads: for computing. data: the sequences to choose from.
    recordings: the folder to write into. renew: called between frames for a newer checkpoint while the run trains.
    """

    loaded: Loaded
    data: VideoData
    recordings: Path
    threads: int = 1
    renew: Renew | None = None
    made: dict[str, Path] = field(default_factory=dict)  # videos that the page may download, by name

    def __post_init__(self) -> None:
        kind = self.loaded.config.model.condition_kind
        self.dance = kind == "pose"
        past, tracks = self.loaded.config.training.past, set(clips.condition_tracks(kind))
        self.sequences = [
            (split, s)
            for split in ("poses", "val", "validate", "test", "train")
            for s in self.data.splits.get(split, ())
            if len(s) >= past and s.condition_length > past and tracks <= s.tracks.keys()
        ]
        if not self.sequences:
            raise DataError(
                f"{self.data.source} has no sequence that is long enough and has what the model is given.",
                "Name other data: --data FOLDER",
            )
        self.size = self.loaded.config.data.frame_size
        self._run = FreeRun(self.loaded.model, self.loaded.dtype)
        self._beside: FreeRun | None = None
        self._joints: dict[tuple[int, int | None], list[Any]] = {}
        self._renewing, self._saving = False, threading.Lock()
        self._unsaved: tuple[Take, Loaded] | None = None  # a recording that has ended, until its files are written
        self._training_frames: tuple[np.ndarray, list[tuple[int, int]]] | None = None
        self._worker = ThreadPoolExecutor(1, "model", torch.set_num_threads, (self.threads,))
        self.strength = self._strength() if self.dance else 1.0
        self.steering = None if self.dance else Steering(self.data, self.loaded.config)
        self.sequence = 0
        self._worker.submit(self._start, {}).result()

    def close(self) -> None:
        self._worker.shutdown()

    # --- descriptions --------------------------------------------------------------------------------

    def about(self) -> dict[str, Any]:
        """A description of the model and the dataset for the page."""
        kind = self.loaded.config.model
        return {
            "kind": "dance" if self.dance else "push",
            "model": kind.name,
            "run": self.loaded.run.name if self.loaded.run else self.loaded.path.name,
            "data": self.data.name,
            "size": self.size,
            "fps": self.data.fps,
            "past": self.loaded.config.training.past,
            "sequences": [
                {"name": f"{split} {s.name}", "frames": len(s), "length": s.condition_length}
                for split, s in self.sequences
            ],
            "joints": [name.replace("_", " ") for name in skeleton.JOINTS],
            "limbs": [[skeleton.JOINTS.index(a), skeleton.JOINTS.index(b)] for a, b in skeleton.LIMBS],
            "colours": ["#{:02x}{:02x}{:02x}".format(*skeleton.COLOURS[b]) for _, b in skeleton.LIMBS],
            "actions": self.steering.limits if self.steering else [],
            "recorded": self._recorded(),
            "most_recorded": recording.MOST_FRAMES,
            **self.status(),
        }

    def status(self) -> dict[str, Any]:
        """The step of the checkpoint in use, and whether a recording is unsaved. Looks for a newer checkpoint."""
        if self.renew and not self._renewing:
            self._renewing = True
            self._worker.submit(self._take_newer)
        unsaved = self._unsaved is not None
        return {"step": self.loaded.meta.step, "trains": self.renew is not None, "unsaved": unsaved}

    def _take_newer(self) -> None:
        try:
            newer = self.renew() if self.renew else None
            if newer is not None:
                self._run, self.loaded = self._branch(newer), newer
                self._beside = None
                self.take.exact = False
        except VidcvaeError:  # it is being written, or was deleted; there will be another
            pass
        finally:
            self._renewing = False

    # --- messages ------------------------------------------------------------------------------------

    def answer(self, kind: str, body: bytes) -> bytes:
        """The answer to a message of this kind, as ``message.pack`` writes it.

        Raises ``VidcvaeError`` for an invalid message, which then changes nothing.
        """
        if kind == "picture":
            return self._worker.submit(self._unless_recording, self._start_from_picture, body).result()
        table = message.table(body)
        if kind == "save":
            return self._save(table)
        if kind == "frame":
            return self._worker.submit(self._frame, table).result()
        act = {"start": self._start, "record": self._record}.get(kind)
        if act is None:
            raise UsageError(f"there is no message {reading.shown(kind)}.")
        return self._worker.submit(self._unless_recording, act, table).result()

    def _unless_recording(self, act: Callable[[Any], bytes], given: Any) -> bytes:
        """``act(given)``, which would discard a recording. Raises ``UsageError`` if one is running."""
        if self.take.frames is not None:
            raise UsageError("a recording is running.", "Stop it first.")
        return act(given)

    # --- the start of a run --------------------------------------------------------------------------

    def _start(self, table: Mapping[str, Any]) -> bytes:
        index = message.whole(table.get("sequence", 0), "sequence", len(self.sequences) - 1)
        _, sequence = self.sequences[index]
        past = self.loaded.config.training.past
        frame = message.whole(table.get("frame", 0), "frame", sequence.known - past)
        self.sequence = index
        return self._begin(sequence.frames[frame : frame + past], self._rows(frame, past), frame + past - 1)

    def _start_from_picture(self, content: bytes) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "picture"
            path.write_bytes(content)
            try:
                picture = images.open_picture(path)
            except DataError as error:
                raise DataError(error.message.replace(str(path), "the picture")) from None
        height, width = self.size
        first = images.pixels(ImageOps.fit(picture.convert("RGB"), (width, height)), self.size)
        past, rows = np.repeat(first[None], self.loaded.config.training.past, axis=0), None
        if self.dance:
            rows = retarget.likely_pose(first, tuple(s for _, s in self.sequences))[None]
        elif self.steering:
            rows = np.repeat(self.steering.condition_at_rest()[None], len(past), axis=0)
        return self._begin(past, rows, None)

    def _rows(self, start: int, length: int) -> np.ndarray | None:
        """The conditions of some frames of the chosen sequence."""
        config = self.loaded.config
        _, sequence = self.sequences[self.sequence]
        return clips.condition_rows(sequence, start, length, *config.conditioning)

    def _begin(self, past: np.ndarray, rows: np.ndarray | None, row: int | None) -> bytes:
        past, rows = np.array(past), None if rows is None else np.array(rows)
        self._run.begin(torch.from_numpy(past)[None], None if rows is None else torch.from_numpy(rows)[None])
        self._beside = None
        self.take = Take(past, rows)
        if self.steering and rows is not None:
            self.steering.continue_from(rows[-1])
        pose = rows[-1] if self.dance and rows is not None else None
        about = {"row": row, "sequence": self.sequence, "joints": self._fitted(pose, row)}
        return self._answer(about, {"model": past[-1], **({} if pose is None else {"pose": pose})})

    # --- a frame -------------------------------------------------------------------------------------

    def _frame(self, table: Mapping[str, Any]) -> bytes:
        request = message.frame_request(table, self.dance, len(self.steering.limits) if self.steering else 0)
        began = time.perf_counter()
        _, sequence = self.sequences[self.sequence]
        about: dict[str, Any] = {"row": request.play, "sequence": self.sequence}
        condition = self._condition(request)
        if self.dance and request.play is not None:
            about["joints"] = self._fitted(condition, request.play)
        if request.beside and self._beside is None:
            self._beside = self._branch(self.loaded)
        frame = self._advance(self._run, condition, request)
        shown = {"model": frame}
        if self.dance and condition is not None:
            shown["pose"] = condition
        if request.beside and self._beside:
            shown["zero"] = self._advance(self._beside, condition, replace(request, latent="zero"))
        else:
            self._beside = None
        self.take.add(condition, request.latent, request.scale, request.seed, frame)
        if request.play is not None and request.play < len(sequence):
            about["psnr"] = _psnr(frame, sequence.frames[request.play])
            if request.truth:
                shown["truth"] = sequence.frames[request.play]
        if request.nearest:
            about["nearest"], shown["nearest"] = self._nearest(frame)
            about["nearest_psnr"] = _psnr(frame, shown["nearest"])
        about["ms"] = round(1000 * (time.perf_counter() - began), 2)
        return self._answer(about, shown)

    def _condition(self, request: FrameRequest) -> np.ndarray | None:
        """The condition of the requested step. Raises ``UsageError`` if there is none."""
        _, sequence = self.sequences[self.sequence]
        if len(self.take.steps) >= MOST_STEPS:
            raise UsageError(f"this run has reached its limit of {MOST_STEPS:,} frames.", "Start again.")
        if request.pose is not None:
            return recovery.draw_as(request.pose, self.size, self.strength)
        if request.action is not None:
            return self.steering.next_condition(request.action) if self.steering and self.steering.limits else None
        row = request.play or 0
        if row >= sequence.condition_length:
            raise UsageError(f"this sequence has no frame {row}.")
        rows = self._rows(row, 1)
        if self.steering and rows is not None:
            self.steering.continue_from(rows[0])
        return None if rows is None else rows[0]

    def _branch(self, loaded: Loaded) -> FreeRun:
        """Another run in the state of the first one."""
        run = FreeRun(loaded.model, loaded.dtype)
        run.follow(self._run)
        return run

    def _advance(self, run: FreeRun, condition: np.ndarray | None, request: FrameRequest) -> np.ndarray:
        """The next frame of a run, uint8 (3, H, W)."""
        rows = None if condition is None else torch.from_numpy(np.array(condition))[None, None]
        eps = torch.zeros(())
        if request.latent == "prior":
            eps = sequence_noise(latent_shape(self.loaded), request.seed, [0])(self.take.next) * request.scale
        frame: np.ndarray = to_bytes(run.step(at(run.codes(rows, 1), 0), request.latent, eps.to(run.device))[0])
        return frame

    def _strength(self) -> float:
        poses = np.concatenate([s.tracks["pose"][:: -(-s.condition_length // 8)] for _, s in self.sequences[-4:]])
        return recovery.strength(list(poses))

    def _fitted(self, pose: np.ndarray | None, row: int | None) -> list[Any] | None:
        """The joints in a pose image; those of a row of the chosen sequence are cached."""
        if pose is None:
            return None
        key = (self.sequence, row)
        points = self._joints.get(key)
        if points is None or row is None:
            joints = recovery.joints_of(pose)
            rounded = [] if joints is None else joints.round(2).tolist()
            points = self._joints[key] = [None if np.isnan(x) else [x, y] for x, y in rounded]
        return points

    def _nearest(self, frame: np.ndarray) -> tuple[str, np.ndarray]:
        """The name and the pixels of the training frame with the smallest squared error, at half the resolution."""
        train = self.data.splits.get("train") or tuple(s for _, s in self.sequences)
        if self._training_frames is None:
            places = [(k, t) for k, s in enumerate(train) for t in range(len(s))]
            places = places[:: -(-len(places) * frame.size // MOST_COMPARED)]
            self._training_frames = np.stack([_coarse(train[k].frames[t]) for k, t in places]), places
        known, places = self._training_frames
        k, t = places[int(((known**2).sum(1) - 2 * known @ _coarse(frame)).argmin())]
        return f"{t} of {train[k].name}", np.asarray(train[k].frames[t])

    def _answer(self, about: dict[str, Any], shown: Mapping[str, np.ndarray]) -> bytes:
        about |= {
            "frame": self.take.next - 1,
            "step": self.loaded.meta.step,
            "recorded": self._recorded(),
            "pictures": list(shown),
        }
        return message.pack(about, list(shown.values()))

    # --- recording -----------------------------------------------------------------------------------

    def _recorded(self) -> int | None:
        frames = self.take.frames
        return None if frames is None else len(frames)

    def _record(self, table: Mapping[str, Any]) -> bytes:
        if self._unsaved:
            raise UsageError("the last recording is not saved yet.", "Wait, or save it again.")
        self.take.record()
        return message.pack({"recorded": self._recorded()})

    def _stop(self) -> None:
        self._unsaved = self.take.cut(), self.loaded

    def _save(self, table: Mapping[str, Any]) -> bytes:
        """End the recording and write it; the model can go on meanwhile. If that fails, the next call tries again."""
        kind = message.one_of(table.get("kind", "gif"), "kind", ("gif", "mp4"))
        with self._saving:
            if not self._unsaved:
                self._worker.submit(self._stop).result()
            assert self._unsaved
            take, loaded = self._unsaved
            number = 1 + max((numbered.whole_number(path.name) or 0 for path in self.recordings.glob("*")), default=0)
            about = recording.save(take, loaded, kind, self.data.fps, self.recordings / f"{number:03d}")
            self._unsaved = None
        name = f"{number:03d}.{kind}"
        self.made[name] = Path(about.pop("path"))
        return message.pack({**about, "video": name})


def _coarse(frame: np.ndarray) -> np.ndarray:
    """A frame at half the resolution, in 0..1, as a vector."""
    _, height, width = frame.shape
    blocks = frame.reshape(3, height // 2, 2, width // 2, 2)
    return np.asarray(blocks.mean((2, 4), dtype=np.float32).ravel() / 255)


def _psnr(frame: np.ndarray, truth: np.ndarray) -> float:
    a, b = (clips.to_unit(torch.from_numpy(np.array(x))) for x in (frame, truth))
    return round(metrics.psnr(a, b).item(), 2)
