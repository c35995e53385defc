"""Small valid keypoint files, as ``keypoints`` says the formats are."""

from __future__ import annotations

import json

from tests import video_clips as clips
from vidcvae.own_clips.skeleton import JOINTS

Files = dict[str, bytes]


def coco() -> Files:
    person = {"image_id": 7, "keypoints": [5.0, 6.5, 0.9] * 17, "foot_kpts": [1.0, 2, 0.5] * 6}
    image = {"id": 7, "file_name": "000000.png", "width": 64, "height": 32}
    return {"k.json": json.dumps({"images": [image], "annotations": [person]}).encode()}


def openpose() -> Files:
    body = clips.make_clip(1, (64, 64)).joints[0]  # in whose shape the order of the 25 points is seen
    people = {"people": [{"pose_keypoints_2d": clips.triples(body, JOINTS)}]}
    return {f"k/a_{n:012d}_keypoints.json": json.dumps(people).encode() for n in range(2)}


def mediapipe() -> Files:
    frame = {"frame": 0, "landmarks": [{"x": 0.5, "y": 0.25, "visibility": 0.9}] * 33}
    return {"k.json": json.dumps({"frames": [frame, {**frame, "frame": 1}]}).encode()}


def mediapipe_csv() -> Files:
    header = ",".join(["frame", *(f"{axis}{n}" for n in range(33) for axis in "xyv")])
    rows = "".join(f"{n}" + ",0.5,0.25,0.9" * 33 + "\n" for n in range(3))
    return {"k.csv": f"{header}\n{rows}".encode()}


def mediapipe_long() -> Files:
    rows = "".join(f"0,{n},0.5,0.25,1\n" for n in range(33))
    return {"k.csv": f"frame,landmark,x,y,visibility\n{rows}".encode()}
