"""Make the synthetic clips of docs/own-clip.md, and their joints.

One clip has a dancer in a part of the picture, with black borders and a caption. The other has a smaller
dancer with longer legs.

Commands:
    python docs/own_clip.py                      # clip.mp4, keypoints.json, other.mp4, other.json
    vidcvae train clip.mp4 --keypoints keypoints.json --max-minutes 1
    vidcvae generate --first-frame runs/clip-data/train/train_img/0.png --poses other.mp4 --keypoints other.json \
        --fit-poses -o me.gif
The pictures are runs/clip-data-preview.png and me-poses.png.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from vidcvae.output import video
from vidcvae.own_clips import recovery, skeleton
from vidcvae.scenes import dancing

FPS, HEIGHT, WIDTH = 25, 360, 640
BORDER = 32  # rows of black above and below
LEGS = [row for row, name in enumerate(skeleton.JOINTS) if name.endswith(("knee", "ankle", "heel", "toe"))]


def main() -> None:
    dance = dancing.dance(200, 2, 0, 4, (HEIGHT - 2 * BORDER, WIDTH)).split("train")[0]
    joints = np.array([recovery.joints_of(pose) for pose in dance.tracks["pose"]])
    joints[..., 1] += BORDER
    with video.recording(Path("clip.mp4"), FPS) as add:
        for frame in dance.frames:
            image = Image.new("RGB", (WIDTH, HEIGHT))
            image.paste(Image.fromarray(frame.transpose(1, 2, 0)), (0, BORDER))
            ImageDraw.Draw(image).text((20, HEIGHT - 64), "HOLIDAY 2026", fill="white", font_size=18)
            add(np.asarray(image).transpose(2, 0, 1))
    write("keypoints.json", joints)

    other = dancing.dance(200, 2, 0, 8, (HEIGHT, WIDTH)).split("train")[0]
    joints = np.array([recovery.joints_of(pose) for pose in other.tracks["pose"]])
    hips = joints[:, [skeleton.JOINTS.index("mid_hip")]]
    joints[:, LEGS] = hips + 1.3 * (joints[:, LEGS] - hips)
    joints = [WIDTH / 2, HEIGHT] + 0.6 * (joints - [WIDTH / 2, HEIGHT])
    with video.recording(Path("other.mp4"), FPS) as add:
        for points in joints:
            add(skeleton.draw(points, (HEIGHT, WIDTH)))
    write("other.json", joints)


def write(name: str, joints: np.ndarray) -> None:
    """Write joints (T, 25, 2), in pixels, as COCO JSON in the order of BODY_25."""
    rows = np.concatenate([joints, np.isfinite(joints[..., :1])], axis=2)
    people = [{"image_id": t, "keypoints": np.nan_to_num(row).ravel().tolist()} for t, row in enumerate(rows)]
    Path(name).write_text(json.dumps(people))


if __name__ == "__main__":
    main()
