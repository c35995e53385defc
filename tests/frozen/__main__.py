"""Write the frozen texts anew: ``python -m tests.frozen``. What is in made/ stays: it is of an earlier version."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from tests.frozen import errors, helps, place, shapes, texts

with tempfile.TemporaryDirectory() as folder:
    good, bad = Path(folder, "good").resolve(), Path(folder, "bad").resolve()
    good.mkdir()
    place.furnish(good)
    shutil.copytree(good, bad)
    place.spoil(bad)
    texts.write("help.txt", {f"vidcvae {command}".strip(): helps.help_of(command) for command in helps.COMMANDS})
    texts.write("errors.txt", {f"vidcvae {line}": errors.answer(line, bad) for line in errors.WRONG})
    texts.write("json.txt", shapes.all_shapes(good))
