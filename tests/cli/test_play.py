"""``vidcvae play`` and ``train --play`` as processes of their own: what they say, serve, and how they end."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli
from tests.live_runs import environment, make_dance, make_push, playing
from vidcvae.data import images
from vidcvae.output import video
from vidcvae.scenes import dancing
from vidcvae.workflow.play import open_session


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("place")
    make_dance(place)
    make_push(place)
    return place


def get(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=20) as answer:
        found: bytes = answer.read()
        return found


def about(address: str) -> dict[str, Any]:
    """What the page is told."""
    found = re.search(rb'id="about">(.*?)</script>', get(address))
    assert found
    table: dict[str, Any] = json.loads(found[1])
    return table


def test_without_a_run_it_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    monkeypatch.chdir(tmp_path)
    found = cli("play", "--no-browser")
    assert found.code == 4 and "there is no run yet" in found.err and "vidcvae play --yes" in found.err
    found = cli("play", "nowhere", "--no-browser")
    assert found.code == 4 and "there is no run nowhere" in found.err


def test_the_newest_run_is_played_until_ctrl_c(place: Path) -> None:
    with playing(place, "--port", 0) as (address, process):
        told = about(address)
        assert told["run"] == "push-svg-fp", "the one that was made last"
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[0-9a-f]{32}/", address)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0 and "Traceback" not in err and out == ""
        assert "no RUN given: playing the newest, runs/push-svg-fp" in err


def test_waiting_takes_the_name_of_a_run_or_a_checkpoint(place: Path) -> None:
    """As every other command does; what is there already is not waited for."""
    for run in ("push-svg-fp", "runs/push-svg-fp/checkpoints/last.safetensors"):
        with playing(place, run, "--wait", "--port", 0) as (address, _):
            assert about(address)["run"] == "push-svg-fp"


def test_a_port_that_is_taken_is_said_and_without_one_the_next_is_taken(
    place: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    monkeypatch.chdir(place)
    with playing(place, "runs/dance-001") as (address, _), playing(place, "runs/dance-001") as (other, _):
        assert address != other and about(address)["run"] == about(other)["run"]
        port = re.findall(r":(\d+)/", address)[0]
        found = cli("play", "runs/dance-001", "--port", port, "--no-browser")
        assert found.code == 4 and f"cannot serve on port {port}" in found.err and "--port 0" in found.err


def test_poses_of_another_dance_are_one_more_sequence(place: Path, tmp_path: Path) -> None:
    poses = dancing.dance(4, 0, 0, 9, (32, 64)).split("train")[0].tracks["pose"]
    video.save(tmp_path / "mine", poses, 25)
    session = open_session(place / "runs/dance-001", tmp_path / "played", poses=tmp_path / "mine", precision="float32")
    split, sequence = session.sequences[0]
    assert (split, sequence.name) == ("poses", "mine") and (sequence.tracks["pose"] == poses).all()
    assert (sequence.frames[0] == images.read_image(place / "data/val/val_img/0.png", (32, 64))).all()
    session.close()


def test_train_opens_the_page_which_shows_each_new_checkpoint(place: Path) -> None:
    words = (
        "train data --play --run runs/live --plain --device cpu --precision float32 --model anchor-cvae --epochs 40 "
    )
    words += "--clip-length 4 --batch-size 4 --set model.channels=8 --set training.clip_length_start=0 "
    words += "--set training.steps_per_epoch=2 --set checkpoint.every=1"
    process = subprocess.Popen(
        [sys.executable, "-m", "vidcvae", *words.split()],
        cwd=place,
        env=environment(place),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr and process.stdout
    lines = iter(process.stderr.readline, "")
    address = next(found[0] for line in lines if (found := re.findall(r"http://\S+", line)))
    seen: list[int] = []
    while process.poll() is None:
        with contextlib.suppress(OSError):
            seen.append(json.loads(get(f"{address}status"))["step"])
        time.sleep(0.1)
    assert process.returncode == 0, process.stderr.read()
    assert len(set(seen)) > 1 and seen == sorted(seen), f"it goes with the training: {seen}"
    with pytest.raises(OSError):
        get(address)


@pytest.mark.slow
def test_the_demo_is_trained_and_played_meanwhile(tmp_path: Path) -> None:
    with playing(tmp_path, "--yes", "--port", 0) as (address, process):
        begun = about(address)
        assert begun["trains"] and begun["run"] == "demo"
        time.sleep(30)
        assert json.loads(get(f"{address}status"))["step"] >= begun["step"]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 0
