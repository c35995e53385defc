"""Make the README's first picture: two models, trained equally long, get the same frame and skeletons.

Commands:
    export OMP_NUM_THREADS=1
    vidcvae dataset synth dance -o my-dance
    vidcvae train my-dance --preset course --precision bf16 --max-minutes 10 --set validation.every=0 --run course
    vidcvae train my-dance --preset anchor-cpu --precision bf16 --max-minutes 10 --set validation.every=0 --run anchor
    python docs/hero.py course anchor docs/images/hero.gif
"""

import sys
from itertools import islice
from pathlib import Path

import numpy as np
import torch

import vidcvae
from vidcvae.output import pictures, video

FRAMES, SCALE, FPS = 150, 5, 25


def main(course: str, anchor: str, target: str) -> None:
    titles = [("the lab's model", course), ("anchor-cvae", anchor)]
    models = {title: vidcvae.load_model(run) for title, run in titles}
    config = models["anchor-cvae"].config
    sequence = vidcvae.open_dataset(config.data.path, config.data.frame_size).split("val")[0]
    first, poses = torch.tensor(sequence.frames[:1])[None], torch.tensor(sequence.tracks["pose"])[None]
    panels = {"given: one frame and these skeletons": sequence.tracks["pose"], "the true video": sequence.frames}
    for title, loaded in models.items():
        run = [video.to_bytes(frame[0]) for frame in islice(vidcvae.rollout(loaded.model, first, poses), FRAMES - 1)]
        frames = np.stack([sequence.frames[0], *run])
        error = ((frames[1:] / 255.0 - sequence.frames[1:FRAMES] / 255.0) ** 2).mean(axis=(1, 2, 3))
        psnr = float(np.mean(-10 * np.log10(error)))
        panels[f"{title}, {loaded.meta.minutes or 0:.0f} minutes: {psnr:.1f} dB"] = frames
    with video.recording(Path(target), FPS) as add:
        for t in range(FRAMES):
            shown = [pictures.panel([frames[t]], [title], SCALE) for title, frames in panels.items()]
            rows = [np.concatenate([a, np.full((3, a.shape[1], pictures.GAP), 236, np.uint8), b], axis=2)
                    for a, b in (shown[:2], shown[2:])]  # fmt: skip
            add(np.concatenate([rows[0], np.full((3, pictures.GAP, rows[0].shape[2]), 236, np.uint8), rows[1]], axis=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
