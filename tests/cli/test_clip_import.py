"""A person's own clip: a real video file goes in, and a trained dancer comes out; and what people get wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from vidcvae.own_clips import skeleton
from vidcvae.workflow.datasets import open_dataset

from .. import video_clips as clips
from .conftest import TINY, Cli

pytestmark = pytest.mark.usefixtures("workplace")

COUNT, SIZE = 64, (45, 81)


@pytest.fixture(scope="module")
def clip() -> clips.Clip:
    return clips.make_clip(COUNT, SIZE)


@pytest.fixture
def phone(clip: clips.Clip, workplace: Path) -> Path:
    """A video as a phone makes it: lying on its side, of odd size, at a wavering rate, with nobody in frames 20..29."""
    times = (np.arange(COUNT) + np.random.default_rng(0).uniform(-0.2, 0.2, COUNT)) / 25
    clips.write_video(Path("clip.mp4"), np.rot90(clip.frames, -1, axes=(1, 2)), times=times - times[0], turn=90)
    joints = clip.joints.copy()
    joints[20:30] = np.nan
    clips.write_openpose(Path("openpose"), joints)
    clips.write_coco(Path("coco.json"), joints)
    clips.write_mediapipe(Path("landmarks.csv"), joints, SIZE)
    return Path("clip.mp4")


def test_a_video_goes_in_and_a_trained_dancer_comes_out(cli: Cli, phone: Path, clip: clips.Clip) -> None:
    done = cli("dataset", "import", "video", phone, "--keypoints", "openpose", "-o", "mine", "--size", "16x32")
    assert done.code == 0, done.err
    assert "openpose: OpenPose BODY_25" in done.out
    assert "10 of 64 frames show nobody" in done.out
    assert "train 34 frames in 2 sequences; val 18 frames in 1 sequence; test 1 frame in" in done.out
    assert "Next: vidcvae dataset inspect mine --preview sheet.png\n" in done.err
    assert "Next: vidcvae train mine\n" in done.err
    inspected = cli("dataset", "inspect", "mine")
    assert inspected.code == 0, inspected.out + inspected.err

    done = cli("train", "mine", *TINY, "--size", "16x32", "--epochs", 1, "--run", "run")
    assert done.code == 0, done.err
    given = ("--first-frame", "mine/test/test_img/0/0.png", "--poses", "mine/test/test_label/0")
    done = cli("generate", "run", *given, "-o", "out.mp4", "--upscale", 4, "--fps", 12.5)
    assert done.code == 0, done.err
    with av.open("out.mp4") as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.pix_fmt, stream.average_rate) == ("yuv420p", 12.5)
        assert sum(1 for _ in container.decode(stream)) == 18
        assert (stream.height, stream.width) == (64, 128)


def test_every_format_draws_the_same_figure(cli: Cli, phone: Path, clip: clips.Clip) -> None:
    """Frames as they were before the camera turned them, and poses as they are drawn from the true joints."""
    for source, feet in (("openpose", True), ("coco.json", False), ("landmarks.csv", True)):
        out = Path(f"from-{source}")
        done = cli("dataset", "import", "video", phone, "--keypoints", source, "-o", out, "--packed",
                   "--val-fraction", 0, "--size", "40x72", "--fit", "stretch", "--crop", "none")  # fmt: skip
        assert done.code == 0, done.err
        data = open_dataset(out, (40, 72))
        first, second = data.split("train")
        assert (len(first), len(second)) == (20, 34)
        for sequence, start in ((first, 0), (second, 30)):
            for t in (0, 9, 19):
                true = np.asarray(Image.fromarray(clip.frames[start + t]).resize((72, 40), Image.Resampling.BILINEAR))
                apart = sequence.frames[t].astype(float) - true.transpose(2, 0, 1)
                assert 10 * np.log10(255**2 / (apart**2).mean()) > 30
                places = clip.joints[start + t] * [72 / 81, 40 / 45]
                if not feet:
                    places[19:] = np.nan
                if source == "landmarks.csv":  # which has one toe
                    places[[skeleton.JOINTS.index(n) for n in ("left_small_toe", "right_small_toe")]] = np.nan
                # neck and hips of the dancer are not exactly between shoulders and between hips
                drawn = skeleton.draw(places, (40, 72)).astype(float)
                assert np.corrcoef(drawn.ravel(), sequence.tracks["pose"][t].ravel())[0, 1] > 0.85


def test_frames_and_gif(cli: Cli, clip: clips.Clip) -> None:
    clips.write_images(Path("frames"), clip.frames[:30], "f{}.png", first=100)
    clips.write_coco(Path("k.json"), clip.joints[:30], first=100)
    images = [Image.fromarray(frame) for frame in clip.frames[:30]]
    images[0].save("a.gif", save_all=True, append_images=images[1:], duration=50)
    for kind, source, keypoints, fps in (("frames", "frames", "k.json", 12), ("gif", "a.gif", "zero.json", 20)):
        clips.write_coco(Path("zero.json"), clip.joints[:30])
        extra = ("--fps", 12) if kind == "frames" else ()
        done = cli(
            "dataset", "import", kind, source, "--keypoints", keypoints, "-o", kind + "-out", "--size", "32x64", *extra
        )
        assert done.code == 0, done.err
        data = open_dataset(kind + "-out")
        assert (sum(map(len, data.split("train"))), data.fps) == (19, fps)
        assert len(data.split("test")[0].tracks["pose"]) == len(data.split("val")[0]) == 10


def test_a_damaged_video_keeps_what_was_read_and_ends_with_4(cli: Cli, clip: clips.Clip) -> None:
    clips.write_video(Path("whole.mp4"), clip.frames, gop=10, muxer={"movflags": "faststart"})
    data = Path("whole.mp4").read_bytes()
    Path("cut.mp4").write_bytes(data[: len(data) * 2 // 3])
    clips.write_openpose(Path("k"), clip.joints)
    done = cli("dataset", "import", "video", "cut.mp4", "--keypoints", "k", "-o", "out")
    assert done.code == 4
    assert "cut.mp4 breaks off after 1." in done.err and "Everything read before that is in out" in done.err
    assert 20 < sum(map(len, open_dataset("out").split("train"))) < 60


def test_another_persons_poses_are_fitted(cli: Cli, tiny_dance: Path) -> None:
    """A large dancer low on the right; the model's is small. The preview shows before and after."""
    done = cli("train", tiny_dance, *TINY, "--epochs", 1, "--run", "run")
    assert done.code == 0, done.err
    large = clips.make_clip(6, (16, 16)).joints
    for t, joints in enumerate(large):
        Path("other").mkdir(exist_ok=True)
        pose = skeleton.draw((joints - 8) * 0.5 + [12, 12], (16, 16))
        Image.fromarray(pose.transpose(1, 2, 0)).save(f"other/{t}.png")
    first = tiny_dance / "test/test_img/0/0.png"
    given = ("run", "--first-frame", first, "--poses", "other")
    plain = cli("generate", *given, "-o", "plain")
    fitted = cli("generate", *given, "-o", "fitted", "--fit-poses")
    assert plain.code == fitted.code == 0, plain.err + fitted.err
    assert "fitted-poses.png: the poses before and after; scaled by" in fitted.out
    assert float(fitted.out.split("scaled by ")[1].split()[0]) > 1.5
    with Image.open("fitted-poses.png") as preview:
        assert preview.width > 6 * 64 and preview.height > 3 * 64
    assert Path("fitted/000005.png").read_bytes() != Path("plain/000005.png").read_bytes()
    own = tiny_dance / "test/test_label/0/0.png"
    done = cli(
        "generate", *given, "-o", "own.gif", "--fit-poses", "--target-poses", own, "--side-by-side", "--upscale", 2
    )
    assert done.code == 0, done.err
    with Image.open("own.gif") as gif, Image.open("own.png") as strip:
        assert gif.size == (2 * 32 + 6, 22 + 32) and getattr(gif, "n_frames", 1) == 6
        assert strip.width == 110 + 6 * (32 + 6)
    assert Path("own-poses.png").exists()


def test_another_persons_clip_moves_the_figure(cli: Cli, tiny_dance: Path, phone: Path) -> None:
    """Frames 30 to 63 of a clip of 25 a second, the longest time that somebody is seen in it."""
    done = cli("train", tiny_dance, *TINY, "--epochs", 1, "--run", "run")
    assert done.code == 0, done.err
    given = ("generate", "run", "--first-frame", tiny_dance / "test/test_img/0/0.png", "--poses")
    done = cli(*given, phone, "--keypoints", "coco.json", "--fit-poses", "-o", "fitted")
    assert done.code == 0, done.err
    assert 33 <= len(list(Path("fitted").glob("*.png"))) <= 35
    assert "fitted-poses.png: the poses before and after; scaled by" in done.out
    done = cli(*given, tiny_dance, "-o", "whole")
    assert done.code == 0 and "the poses of its longest sequence, " in done.err
    for poses, options, words in (
        (phone, (), "the joints in each frame are missing"),
        ("nowhere.mp4", ("--keypoints", "coco.json"), "there is no video nowhere.mp4"),
        (tiny_dance, ("--estimate",), "is not a clip"),
        (tiny_dance / "test/test_label/0", ("--keypoints", "coco.json"), "is not a clip"),
    ):
        done = cli(*given, poses, *options, "-o", "wrong.gif")
        assert done.code in (2, 4) and words in done.err and "Traceback" not in done.err, (poses, done.err)
    assert not Path("wrong.gif").exists()


# --- what people get wrong -------------------------------------------------------------------------


WRONG: dict[str, tuple[tuple[str, ...], int, str]] = {
    "nothing about joints": (("clip.mp4",), 2, "the joints in each frame are missing"),
    "both": (("clip.mp4", "--keypoints", "coco.json", "--estimate"), 2, "exclude each other"),
    "no such clip": (("nowhere.mp4", "--keypoints", "coco.json"), 4, "there is no video nowhere.mp4"),
    "no such keypoints": (("clip.mp4", "--keypoints", "nowhere.json"), 4, "there are no keypoints nowhere.json"),
    "not keypoints": (("clip.mp4", "--keypoints", "clip.mp4"), 4, "clip.mp4 is not readable JSON"),
    "another format": (
        ("clip.mp4", "--keypoints", "coco.json", "--keypoint-format", "mediapipe33"), 4, "coco.json: frame 0"),
    "no such format": (("clip.mp4", "--keypoints", "coco.json", "--keypoint-format", "cocoa"), 2, "'cocoa'"),
    "too few frames": (("clip.mp4", "--keypoints", "short"), 4, "short describes 60 frames, but the clip has 64"),
    "too many frames": (("clip.mp4", "--keypoints", "long.json"), 4, "at least 69 frames, but the clip has 64"),
    "size": (("clip.mp4", "--keypoints", "coco.json", "--size", "30x64"), 2, "multiples of 8"),
    "fps": (("clip.mp4", "--keypoints", "coco.json", "--fps", "0"), 2, "0 frames a second"),
    "kept keypoints": (("clip.mp4", "--keypoints", "coco.json", "--save-keypoints", "k.json"), 2, "needs --estimate"),
    "crop": (("clip.mp4", "--keypoints", "coco.json", "--crop", "persona"), 2, "Did you mean 'person'"),
    "fit": (("clip.mp4", "--keypoints", "coco.json", "--fit", "padd"), 2, "Did you mean 'pad'"),
    "style": (("clip.mp4", "--keypoints", "coco.json", "--style", "cource"), 2, "Did you mean 'course'"),
    "fraction": (("clip.mp4", "--keypoints", "coco.json", "--val-fraction", "1"), 2, "--val-fraction"),
}  # fmt: skip


def test_wrong_input_is_one_sentence_and_makes_nothing(cli: Cli, phone: Path, clip: clips.Clip) -> None:
    clips.write_openpose(Path("short"), clip.joints[:60])
    clips.write_coco(Path("long.json"), clip.joints, first=5)
    for case, (arguments, code, words) in WRONG.items():
        done = cli("dataset", "import", "video", *arguments, "-o", "out")
        assert (done.code, words in done.err) == (code, True), (case, done)
        assert "Traceback" not in done.err and not Path("out").exists(), case
    done = cli("dataset", "import", "video", phone, "--keypoints", "coco.json", "-o", ".")
    assert done.code == 2 and "is not an empty folder" in done.err


def test_estimate_says_what_to_install_and_where_its_model_goes(
    cli: Cli, phone: Path, clip: clips.Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    done = cli("dataset", "import", "video", phone, "--estimate", "-o", "out")
    assert done.code == 2 and "pip install 'vidcvae[pose]'" in done.err
    for word in ("--keypoints FILE", "COCO JSON", "OpenPose", "CSV"):
        assert word in done.err
    clips.install_mediapipe(monkeypatch, [clips.landmarks(joints, SIZE) for joints in clip.joints])
    done = cli("dataset", "import", "video", phone, "--estimate", "-o", "out")
    assert done.code == 2 and "there is no pose_landmarker_full.task and no" in done.err
    Path("pose_landmarker_full.task").write_bytes(b"model")
    done = cli("dataset", "import", "video", phone, "--estimate", "-o", "out")
    assert done.code == 0, done.err


def test_estimate_runs_mediapipe_over_every_frame(
    cli: Cli, phone: Path, clip: clips.Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in with MediaPipe's interface, which knows the true joints."""
    stand_in = clips.install_mediapipe(monkeypatch, [clips.landmarks(joints, SIZE) for joints in clip.joints])
    Path("model.task").write_bytes(b"model")
    done = cli("dataset", "import", "video", phone, "--estimate", "--pose-model", "model.task", "-o", "out",
               "--save-keypoints", "found.json")  # fmt: skip
    assert done.code == 0, done.err
    assert len(stand_in.seen) == COUNT and all(image.shape == (*SIZE, 3) for image in stand_in.seen)
    assert (stand_in.most, stand_in.closed) == (4, 1) and "--people 1 finds the joints three times as fast" in done.out
    again = cli("dataset", "import", "video", phone, "--keypoints", "found.json", "-o", "again")
    assert again.code == 0
    written = [path.relative_to("again") for path in Path("again").rglob("*.png")]
    assert len(written) > 2 * 50
    for path in written:
        assert ("again" / path).read_bytes() == ("out" / path).read_bytes()
