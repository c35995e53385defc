"""A live session: what it draws is what ``vidcvae generate`` makes, and what is recorded makes it again."""

from __future__ import annotations

import json
import shlex
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.conftest import Cli
from tests.live_runs import make_dance, make_push
from vidcvae.data import images
from vidcvae.errors import UsageError, VidcvaeError
from vidcvae.output import recording
from vidcvae.output.session import Session
from vidcvae.own_clips import recovery, skeleton
from vidcvae.workflow.play import open_session


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("place")
    make_dance(place)
    make_push(place, name="svg-lp", conditions="actions+positions")
    make_push(place, name="svg-fp", conditions="actions")
    return place


@pytest.fixture
def dance(place: Path, tmp_path: Path) -> Iterator[Session]:
    session = open_session(place / "runs/dance-001", tmp_path / "played", precision="float32")
    yield session
    session.close()


def ask(session: Session, message: str, **table: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    return unpack(session, session.answer(message, json.dumps(table).encode()))


def unpack(session: Session, answer: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    (length,) = struct.unpack("<I", answer[:4])
    about, (height, width) = json.loads(answer[4 : 4 + length]), session.size
    pictures = np.frombuffer(answer[4 + length :], np.uint8).reshape(-1, height, width, 3).transpose(0, 3, 1, 2)
    return about, dict(zip(about.get("pictures", ()), pictures, strict=True))


def made_by(cli: Cli, command: str, folder: Path) -> list[np.ndarray]:
    """The frames that a command makes, as PNGs without loss."""
    words = shlex.split(command)
    words[words.index("-o") + 1] = str(folder)
    found = cli(*words[1:])
    assert found.code == 0, found.err
    return [images.read_image(path, images.size_of(path)) for path in sorted(folder.iterdir())]  # type: ignore[arg-type]


def test_clips_without_a_table_of_actions_are_not_offered(place: Path, tmp_path: Path) -> None:
    session = open_session(place / "runs/push-svg-fp", tmp_path / "played", precision="float32")
    (split, first), *others = session.sequences
    splits = {**session.data.splits, split: (replace(first, tracks={}), *session.data.split(split)[1:])}
    again = Session(session.loaded, replace(session.data, splits=splits), tmp_path / "played")
    assert [s.name for _, s in again.sequences] == [s.name for _, s in others]
    for one in (session, again):
        one.close()


@pytest.mark.parametrize("run", ["dance-001", "push-svg-fp", "push-svg-lp"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_played_sequence_is_what_generate_makes(
    run: str, precision: Any, place: Path, tmp_path: Path, cli: Cli
) -> None:
    session = open_session(place / "runs" / run, tmp_path / "played", precision=precision)
    given, sequence = session.loaded.config.training.past, session.sequences[0][1]
    _, shown = ask(session, "start", sequence=0, frame=0)
    frames = [*sequence.frames[: given - 1], shown["model"]]
    ask(session, "record")
    for t in range(given, sequence.condition_length):
        about, shown = ask(session, "frame", play=t, truth=True)
        frames.append(shown["model"])
        assert np.array_equal(shown["truth"], sequence.frames[t])
        error = ((shown["model"] / 255 - sequence.frames[t] / 255) ** 2).mean()
        assert about["psnr"] == pytest.approx(-10 * np.log10(error), abs=0.01)
    split = session.sequences[0][0]
    kind = "dance" if session.dance else "push"
    if kind == "dance":
        source = place / "data" / split
        words = f"vidcvae generate {place / 'runs' / run} --first-frame {source / f'{split}_img/0.png'}"
        words += f" --poses {source / f'{split}_label'} --weights raw --precision {precision} -o x"
        again = made_by(cli, words, tmp_path / "again")
        assert np.array_equal(frames, again)
    told, _ = ask(session, "save", kind="gif")
    assert told["frames"] == len(frames) and told["exact"]
    recorded = made_by(cli, told["command"], tmp_path / "recorded")
    assert np.array_equal(frames, recorded), "what is written beside the recording makes it again"
    assert len(np.unique(np.stack(frames), axis=0)) > 2, "the model does something"
    session.close()


def test_a_moved_limb_is_drawn_as_the_training_poses_are(dance: Session, tmp_path: Path, cli: Cli) -> None:
    start, first = ask(dance, "start", sequence=0, frame=0)
    joints = start["joints"]
    ask(dance, "record")
    wrist, frames = skeleton.JOINTS.index("right_wrist"), [first["model"]]
    for step in range(6):
        joints[wrist] = [joints[wrist][0] - 0.7, joints[wrist][1] - 1.1]
        _, shown = ask(dance, "frame", pose=joints, latent=("zero", "prior")[step % 2], seed=step, scale=1.5)
        drawn = {name: p for name, p in zip(skeleton.JOINTS, joints, strict=True) if p}
        assert np.array_equal(shown["pose"], skeleton.draw(drawn, dance.size))
        found = recovery.joints_of(shown["pose"])
        assert found is not None and np.abs(found[wrist] - joints[wrist]).max() < 1.5
        frames.append(shown["model"])
    told, _ = ask(dance, "save", kind="mp4")
    assert told["exact"] and "--latents" in told["command"], "z was drawn in several ways"
    assert np.array_equal(frames, made_by(cli, told["command"], tmp_path / "again"))
    assert dance.made[told["video"]].stat().st_size > 500


def test_a_recording_in_the_middle_says_which_frames_it_is(dance: Session, tmp_path: Path, cli: Cli) -> None:
    ask(dance, "start", sequence=0, frame=3)
    for t in range(4, 9):
        ask(dance, "frame", play=t)
    ask(dance, "record")
    frames = [ask(dance, "frame", play=t, latent="prior", seed=7)[1]["model"] for t in range(9, 13)]
    told, _ = ask(dance, "save")
    assert (told["frames"], told["first"], told["last"]) == (4, 6, 9)
    assert np.array_equal(frames, made_by(cli, told["command"], tmp_path / "again")[6:10])
    with pytest.raises(VidcvaeError, match="this recording is empty"):
        ask(dance, "save")


def test_a_recording_that_cannot_be_saved_is_kept_until_it_is(dance: Session, tmp_path: Path, cli: Cli) -> None:
    dance.data = replace(dance.data, fps=200.0)  # too fast for a GIF
    _, first = ask(dance, "start", sequence=0, frame=0)
    ask(dance, "record")
    frames = [first["model"], *(ask(dance, "frame", play=t)[1]["model"] for t in range(1, 5))]
    for _ in range(2):
        with pytest.raises(UsageError, match="a GIF cannot show 200 frames a second"):
            ask(dance, "save", kind="gif")
    with pytest.raises(UsageError, match="the last recording is not saved yet"):
        ask(dance, "record")
    ask(dance, "start", sequence=0, frame=3)
    ask(dance, "frame", play=9, latent="prior", seed=4)
    told, _ = ask(dance, "save", kind="mp4")
    assert (told["frames"], told["first"], told["exact"]) == (5, 0, True)
    assert np.array_equal(frames, made_by(cli, told["command"], tmp_path / "again"))
    assert ask(dance, "record")[0]["recorded"] == 0, "the next recording"


def test_the_model_goes_on_while_a_recording_is_saved(dance: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, released, save = threading.Event(), threading.Event(), recording.save

    def slow(*arguments: Any) -> dict[str, Any]:
        begun.set()
        assert released.wait(20)
        return save(*arguments)

    monkeypatch.setattr(recording, "save", slow)
    told: list[dict[str, Any]] = []
    ask(dance, "start", sequence=0, frame=0)
    ask(dance, "record")
    ask(dance, "frame", play=1)
    saving = threading.Thread(target=lambda: told.append(ask(dance, "save", kind="gif")[0]))
    saving.start()
    assert begun.wait(20)
    assert ask(dance, "frame", play=2)[0]["recorded"] is None
    with pytest.raises(UsageError, match="the last recording is not saved yet"):
        ask(dance, "record")
    released.set()
    saving.join()
    assert told[0]["frames"] == 2
    ask(dance, "record")
    ask(dance, "frame", play=3)
    second = ask(dance, "save", kind="gif")[0]
    assert (second["frames"], second["first"]) == (1, 3)


def test_no_start_discards_a_recording(dance: Session) -> None:
    ask(dance, "start", sequence=0, frame=0)
    ask(dance, "record")
    for t in range(1, 4):
        ask(dance, "frame", play=t)
    picture = images.encode_png(dance.data.split("train")[0].frames[0])
    for kind, body in (("start", b'{"sequence": 1}'), ("picture", picture), ("record", b"{}")):
        with pytest.raises(UsageError, match="a recording is running"):
            dance.answer(kind, body)
    about, _ = ask(dance, "frame", play=4)
    assert (about["sequence"], about["frame"], about["recorded"]) == (0, 4, 5)
    assert ask(dance, "save")[0]["frames"] == 5
    assert ask(dance, "start", sequence=1)[0]["sequence"] == 1


def test_the_limits_are_numbers_of_frames(dance: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidcvae.output.session.MOST_STEPS", 3)
    monkeypatch.setattr("vidcvae.output.recording.MOST_FRAMES", 2)
    assert dance.about()["most_recorded"] == 2
    ask(dance, "start", sequence=0, frame=0)
    ask(dance, "record")
    assert [ask(dance, "frame", play=t)[0]["recorded"] for t in (1, 2, 3)] == [2, 2, 2]
    with pytest.raises(UsageError, match="this run has reached its limit of 3 frames"):
        ask(dance, "frame", play=4)


def test_beside_it_z_is_zero_and_the_nearest_training_frame_is_the_nearest(dance: Session) -> None:
    ask(dance, "start", sequence=0, frame=0)
    plain = [ask(dance, "frame", play=t)[1]["model"] for t in range(1, 6)]
    ask(dance, "start", sequence=0, frame=0)
    for t in range(1, 6):
        about, shown = ask(dance, "frame", play=t, latent="prior", seed=3, scale=3, beside=True, nearest=True)
        assert np.array_equal(shown["zero"], plain[t - 1]), "its own run, not this one's frames with another z"
        assert not np.array_equal(shown["model"], plain[t - 1])
        train = np.concatenate([s.frames for s in dance.data.split("train")]) / 255.0
        coarse = train.reshape(-1, 3, 16, 2, 32, 2).mean((3, 5))
        mine = (shown["model"] / 255.0).reshape(3, 16, 2, 32, 2).mean((2, 4))
        nearest = ((coarse - mine) ** 2).mean((1, 2, 3)).argmin()
        assert np.array_equal(shown["nearest"], np.rint(train[nearest] * 255)) and about["nearest"]


def test_a_sample_is_the_same_for_its_seed_alone(dance: Session) -> None:
    def run(seed: int, scale: float) -> np.ndarray:
        ask(dance, "start", sequence=0, frame=0)
        return np.stack(
            [ask(dance, "frame", play=t, latent="prior", seed=seed, scale=scale)[1]["model"] for t in (1, 2)]
        )

    assert np.array_equal(run(1, 1.0), run(1, 1.0)) and not np.array_equal(run(1, 1.0), run(2, 1.0))
    ask(dance, "start", sequence=0, frame=0)
    plain = [ask(dance, "frame", play=t)[1]["model"] for t in (1, 2)]
    assert np.array_equal(run(5, 0.0), plain), "nothing of the noise is left"


def test_a_picture_begins_a_run_with_the_pose_of_the_training_frame_most_like_it(
    dance: Session, tmp_path: Path
) -> None:
    train = dance.data.split("train")[0]
    png = images.encode_png(train.frames[11])
    about, shown = unpack(dance, dance.answer("picture", png))
    assert np.array_equal(shown["model"], train.frames[11]) and np.array_equal(shown["pose"], train.tracks["pose"][11])
    assert about["row"] is None and about["joints"]
    with pytest.raises(VidcvaeError, match=r"the picture is damaged or of another kind"):
        dance.answer("picture", b"no picture")
    _, after = ask(dance, "frame", pose=about["joints"])
    assert after["model"].shape == shown["model"].shape


def test_an_arm_that_is_led_by_hand_has_the_positions_its_actions_lead_to(place: Path, tmp_path: Path) -> None:
    session = open_session(place / "runs/push-svg-lp", tmp_path / "played", precision="float32")
    sequence = session.sequences[0][1]
    ask(session, "start", sequence=0, frame=0)
    assert session.steering
    for t in range(2, 8):  # the very actions of the clip, by hand: row t - 1 leads to frame t
        by_hand = ask(session, "frame", action=sequence.tracks["action"][t - 1].tolist())[1]["model"]
        played = list(session.take.conditions())[-1]
        assert played[:4] == pytest.approx(sequence.tracks["action"][t - 1], abs=1e-6)
        assert played[4:] == pytest.approx(sequence.tracks["position"][t - 1], abs=0.02), "it adds up"
        assert by_hand.shape == (3, 64, 64)
    session.close()


def test_a_newer_checkpoint_is_taken_between_two_frames(place: Path, tmp_path: Path) -> None:
    from vidcvae.storage import lock

    run = make_dance(tmp_path, step=1)
    with lock.holding(run.path):  # as a training does
        session = open_session(run.path, tmp_path / "played", precision="float32")
        ask(session, "start", sequence=0, frame=0)
        before, _ = ask(session, "frame", play=1)
        session.status()
        assert ask(session, "frame", play=2)[0]["step"] == 1, "there is nothing newer"
        make_dance(tmp_path, step=2)
        (run.checkpoints / "last.safetensors").write_bytes((run.checkpoints / "last.safetensors").read_bytes())
        session.status()
        after, _ = ask(session, "frame", play=3)
        assert (before["step"], after["step"]) == (1, 2)
        assert session.status() == {"step": 2, "trains": True, "unsaved": False}
        (run.checkpoints / "last.safetensors").write_bytes(b"half")
        session.status()
        assert ask(session, "frame", play=4)[0]["step"] == 2, "one that is damaged is left alone"
        session.close()
