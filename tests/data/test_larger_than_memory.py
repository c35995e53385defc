"""A pack of 4 GiB, almost all of it holes: opening reads nothing, and training maps only the clips it cuts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vidcvae.data import packed

GIB = 1 << 30
FRAME = 3 * 32 * 64
FRAMES = GIB // (2 * FRAME)  # of one sequence with its poses, in one file of 1 GiB
CLIP, CLIPS = 16, 400

# What one of two ranks does, and how much memory that takes, in bytes: /proc/self/status tells the process's own
# memory (RssAnon) and mapped pages of files (RssFile) apart.
WORK = f"""
import json, sys
from pathlib import Path
from vidcvae.config import DataConfig, TrainingConfig
from vidcvae.data import packed
from vidcvae.data.clips import cut
from vidcvae.data.sampler import epoch_order
from vidcvae.training.distributed import Ranks

def memory():
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return {{key: int(lines[key].split()[0]) * 1024 for key in ("RssAnon", "RssFile")}}

ranks = Ranks()
ranks.world = 2  # rank 0 of two, without the other
start = memory()
data = packed.open_packed(Path(sys.argv[1]))
opened = memory()
sequences = data.split("train")
order = epoch_order(sequences, DataConfig(), TrainingConfig(clip_length={CLIP}), 0)[:{CLIPS}]
ordered, ends = memory(), []
for step in range(0, {CLIPS}, 4):
    places = order[step : step + 4]
    cut(sequences, places[ranks.slice(4)], {CLIP}, "pose", "source")
    ends.append(memory())
ends = [ends[9], ends[-1]]
print(json.dumps({{"start": start, "opened": opened, "ordered": ordered, "ends": ends,
                  "sequences": len({{s for s, _ in order}})}}))
"""


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    """Four files of 1 GiB that take no room on the disk."""
    records = []
    for number in range(4):
        name = f"data-{number:05d}.bin"
        with (tmp_path / name).open("wb") as file:
            file.truncate(GIB)
        shape = {"shape": [FRAMES, 3, 32, 64], "dtype": "uint8", "sha256": "0" * 64}
        blocks = [{"file": name, "offset": offset, **shape} for offset in (0, FRAMES * FRAME // 64 * 64)]
        records.append({"name": str(number), "unknown_poses": [], "frames": blocks[0], "tracks": {"pose": blocks[1]}})
    head = {"format": packed.FORMAT, "version": packed.VERSION, "name": "holes", "kind": "dance", "fps": 25}
    manifest = {**head, "size": [32, 64], "splits": {"train": records}}
    (tmp_path / packed.MANIFEST).write_text(json.dumps(manifest))
    return tmp_path


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_flat_over_a_pack_of_4_gib(sparse: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WORK, str(sparse)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    at = json.loads(done.stdout)
    assert at["sequences"] == 4, "clips all over the pack"
    assert at["opened"]["RssAnon"] - at["start"]["RssAnon"] < 8e6
    assert at["opened"]["RssFile"] - at["start"]["RssFile"] < 8e6, "opening reads none of it"
    assert at["ordered"]["RssAnon"] - at["opened"]["RssAnon"] < 150 * 4 * FRAMES, "bytes for each of the starts"
    early, late = at["ends"]
    assert late["RssAnon"] - early["RssAnon"] < 4e6, "90 more steps leave nothing behind"
    # Pages of the file that were read stay mapped as long as the kernel has no better use for them: those of this
    # rank's clips, each with less than 64 KiB of what lies around its two ends (Linux maps so much at once).
    clip = 2 * CLIP * FRAME
    touched = late["RssFile"] - at["ordered"]["RssFile"]
    assert 0.9 * CLIPS / 2 * clip < touched < CLIPS / 2 * (clip + 4 * 65536), "not those of the other rank"
    assert all(file.stat().st_blocks * 512 < 1e6 for file in sparse.glob("*.bin"))
