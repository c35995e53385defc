"""What to type after a training, for data whose folder has changed since."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from vidcvae.data import pose_folder
from vidcvae.scenes import dancing
from vidcvae.storage.run import RunFolder
from vidcvae.workflow.at_glance import next_commands


def test_the_video_begins_with_the_lowest_number_whatever_else_lies_beside_it(tmp_path: Path) -> None:
    data = replace(dancing.dance(4, 4, 1, 0), source=tmp_path / "data")
    data = replace(data, splits={**data.splits, "test": data.splits["train"]})  # test_img/0/0.png to 3.png
    pose_folder.write_folder(data, data.source)
    frames = data.source / "test" / "test_img" / "0"
    for number in range(2):
        (frames / f"{number}.png").unlink()
    (frames / "3.png").rename(frames / "10.png")
    (frames / "0a.png").touch()
    data = replace(data, splits={"test": (replace(data.splits["test"][0], name="0"),)})
    *_, video = next_commands(RunFolder(tmp_path / "run"), data)
    words = shlex.split(video)
    assert words[words.index("--first-frame") + 1] == str(frames / "2.png")
