"""Readers against values that hypothesis makes up: of the right form, and of any other."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.security.readers import checkpoint_file, dance, sealed, small_config, split_checkpoint
from vidcvae import config, reading
from vidcvae.config.schema import SECTION_CLASSES
from vidcvae.data import dataset_toml, packed, trajectories
from vidcvae.errors import DataError, VidcvaeError
from vidcvae.models import build_model
from vidcvae.models.loading import load_model
from vidcvae.own_clips import keypoints
from vidcvae.storage import checkpoint, history
from vidcvae.training import state

pytestmark = pytest.mark.reliability
EXAMPLES = 100
ONE_AFTER_THE_OTHER = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

number = st.one_of(st.integers(-2, 40), st.integers(), st.floats(), st.sampled_from([2**31, 2**48, 2**63, 10**400]))
value = st.recursive(
    st.one_of(st.none(), st.booleans(), number, st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=8,
)
section = st.one_of(st.sampled_from([*SECTION_CLASSES, "model"]), st.text(max_size=8))
key = st.one_of(
    st.sampled_from([name for cls in SECTION_CLASSES.values() for name in cls.__dataclass_fields__] + ["name"]),
    st.text(max_size=8),
)
row = st.lists(st.one_of(number.map(str), st.text(max_size=4)), max_size=5).map(",".join)
refused = contextlib.suppress(VidcvaeError)


@pytest.fixture(scope="module", autouse=True)
def counted(count: Callable[[str, int], None], request: pytest.FixtureRequest) -> Any:
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed == failed:
        count("made-up values that readers were given", EXAMPLES * 8)


@ONE_AFTER_THE_OTHER
@given(st.dictionaries(section, st.one_of(value, st.dictionaries(key, value, max_size=4)), max_size=3))
def test_tables_of_a_configuration(table: dict[str, Any]) -> None:
    with refused:
        config.to_toml(config.resolve_with_preset(None, [table]))


@ONE_AFTER_THE_OTHER
@given(st.text(), section, key, st.one_of(st.text(), value.map(json.dumps)))
def test_settings_on_the_command_line(text: str, section: str, key: str, value: str) -> None:
    for written in (text, f"{section}.{key}={value}"):
        with refused:
            config.resolve(config.read_override(written))


@ONE_AFTER_THE_OTHER
@given(st.dictionaries(st.sampled_from(["name", "fps", "train", "val", "test", "x"]), value))
def test_facts(tmp_path: Path, table: dict[str, Any]) -> None:
    lines = (f"{key} = {json.dumps(value)}" for key, value in table.items())
    (tmp_path / "dataset.toml").write_text("\n".join(lines), "utf-8")
    with refused:
        assert (dataset_toml.read_facts(tmp_path).fps or 1) > 0


parts = st.sampled_from(
    ["name", "kind", "fps", "size", "splits", "train", "test", "frames", "tracks", "pose", "shape", "file", "offset"]
)
places = st.lists(st.one_of(st.integers(0, 3), parts), min_size=1, max_size=6)


def put(tree: Any, path: list[Any], value: Any) -> None:
    """Follow ``path`` into a document as far as it goes, and put ``value`` there."""
    for step in path[:-1]:
        inside = tree.get(step) if isinstance(tree, dict) else tree[step] if _has(tree, step) else None
        if not isinstance(inside, dict | list):
            break
        tree = inside
    if isinstance(tree, dict):
        tree[str(path[-1])] = value
    elif _has(tree, path[-1]):
        tree[path[-1]] = value


def _has(tree: Any, step: Any) -> bool:
    return isinstance(tree, list) and isinstance(step, int) and step < len(tree)


@ONE_AFTER_THE_OTHER
@given(places, value)
def test_manifests(tmp_path: Path, path: list[Any], value: Any) -> None:
    pack = tmp_path / "pack"
    if not pack.exists():
        packed.write(dance(), pack)
        (tmp_path / "good").write_bytes((pack / "manifest.json").read_bytes())
    manifest = json.loads((tmp_path / "good").read_bytes())
    put(manifest, path, value)
    (pack / "manifest.json").write_text(json.dumps(manifest))
    with refused:
        data = packed.open_packed(pack)
        assert all(s.frames.shape[1:] == (3, *data.size) for found in data.splits.values() for s in found)


@ONE_AFTER_THE_OTHER
@given(st.lists(st.sampled_from(["config", "model", "scores", "step", "sha256", "x"]), min_size=1, max_size=4), value)
def test_metadata_of_a_checkpoint(tmp_path: Path, path: list[str], value: Any) -> None:
    header, data = split_checkpoint(checkpoint_file())
    meta = json.loads(header["__metadata__"]["vidcvae"])
    put(meta, path, value)
    header["__metadata__"]["vidcvae"] = json.dumps(meta)
    (tmp_path / "x.safetensors").write_bytes(sealed(header, data))
    with refused:
        load_model(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "alter",
    [
        lambda meta: meta.update(progress={"x": 1}),
        lambda meta: meta["progress"].pop("window"),
        lambda meta: meta["progress"].update(window=[]),
        lambda meta: meta["progress"].update(epoch={"sums": 1}),
        lambda meta: meta.update(progress=3),
    ],
)
def test_a_position_in_training_that_is_none(tmp_path: Path, alter: Callable[[Any], object]) -> None:
    header, data = split_checkpoint(checkpoint_file())
    meta = json.loads(header["__metadata__"]["vidcvae"])
    meta["progress"] = state.Position().to_json()
    alter(meta)
    header["__metadata__"]["vidcvae"] = json.dumps(meta)
    (tmp_path / "x.safetensors").write_bytes(sealed(header, data))
    fresh = state.new_state(build_model(small_config()), small_config())
    with pytest.raises(DataError, match=r"x\.safetensors"):
        fresh.restore(checkpoint.read(tmp_path / "x.safetensors"))


@ONE_AFTER_THE_OTHER
@given(st.one_of(st.text(), st.lists(row).map("\n".join)))
def test_tables_of_numbers(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text, "utf-8", errors="surrogatepass")
    with refused:
        assert trajectories.read_track(tmp_path / "a.csv", 4).shape[1] == 4
    with refused:
        keypoints.read_keypoints(tmp_path / "a.csv")


person = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("image_id", "keypoints", "landmarks", "frame", "x", "y", "id", "file_name"), value)
)


@ONE_AFTER_THE_OTHER
@given(st.one_of(value, st.lists(person, max_size=3), st.fixed_dictionaries(
    {}, optional={name: st.lists(person, max_size=3) for name in ("annotations", "images", "frames")}
)))  # fmt: skip
def test_documents_of_keypoints_and_histories(tmp_path: Path, document: Any) -> None:
    text = json.dumps(document)
    (tmp_path / "k.json").write_text(text)
    with refused:
        keypoints.read_keypoints(tmp_path / "k.json")
    (tmp_path / "history.jsonl").write_text(text + "\n")
    assert all(isinstance(line, dict) for line in history.read_history(tmp_path / "history.jsonl"))


@given(value)
def test_any_value_is_quoted_in_one_line(value: Any) -> None:
    assert reading.shown(value).isprintable() and len(reading.shown(value)) < 2000
