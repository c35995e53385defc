"""The Kaggle file against the course's own way of writing it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from vidcvae.output import submission, video


def _course(frames: torch.Tensor, path: Path) -> None:
    """As the course does it: frames (N, 3, H, W) in 0..1, flattened, one table, an id column in front."""
    rows = [np.rint(255 * frame.flatten().numpy()).astype(int) for frame in frames]
    table = pd.DataFrame(rows)
    table.insert(0, "id", range(0, len(table)))
    table.to_csv(path, header=True, index=False)


def test_equals_pandas_byte_for_byte(tmp_path: Path) -> None:
    frames = torch.rand(12, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    frames[0, 0, 0, :6] = torch.tensor([0.0, 1.0, 0.5 / 255, 1.5 / 255, 2.5 / 255, 254.5 / 255])  # ties
    _course(frames, tmp_path / "course.csv")
    with submission.writing(tmp_path / "ours.csv") as add:
        for frame in frames:
            add(video.to_bytes(frame))
    assert (tmp_path / "ours.csv").read_bytes() == (tmp_path / "course.csv").read_bytes()


def test_a_pixel_is_where_the_course_puts_it(tmp_path: Path) -> None:
    frame = np.zeros((3, 32, 64), np.uint8)
    frame[1, 2, 3] = 7
    with submission.writing(tmp_path / "s.csv") as add:
        add(frame)
        add(frame)
    with (tmp_path / "s.csv").open() as file:
        header, first, second = csv.reader(file)
    assert header == ["id", *map(str, range(6144))]
    assert [first[0], second[0]] == ["0", "1"]
    assert {i - 1 for i, cell in enumerate(first) if cell != "0"} - {-1} == {1 * 32 * 64 + 2 * 64 + 3}


def test_a_submission_that_breaks_off_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("yesterday's")
    with pytest.raises(KeyboardInterrupt), submission.writing(tmp_path / "s.csv") as add:
        add(np.zeros((3, 32, 64), np.uint8))
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["s.csv"]
    assert (tmp_path / "s.csv").read_text() == "yesterday's"
