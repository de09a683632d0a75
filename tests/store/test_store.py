"""The store: names, versions, aliases, what is deleted when, and what a damaged one says."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import edgellm
from command_line import data_of, failure_of
from edgellm.cli.exits import Exit
from edgellm.edgefile import EdgeWriter
from edgellm.errors import EdgeError, FormatError
from edgellm.locate import find, resolve
from edgellm.store.index import read_index
from edgellm.store.names import Reference, parse_reference
from edgellm.store.sources import content_key, source_files
from edgellm.store.store import Store
from gguf_format.model import model_bytes
from store.in_process import CommandLine


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGELLM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture
def store(home: Path) -> Store:
    return Store.default()


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(capsys)


def put(store: Store, file: Path, text: str, key: str = "") -> Path:
    """A copy of `file` in the store, made from inputs of `key`."""
    reference = parse_reference(text)
    key = key or hashlib.sha256(text.encode()).hexdigest()
    return store.make(key, lambda out: shutil.copy(file, out), reference, "test").path


@pytest.fixture(scope="module")
def other_edge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole file that no model is in."""
    out = tmp_path_factory.mktemp("other") / "other.edge"
    with EdgeWriter(out, spec={"arch": "none"}) as writer:
        writer.append("report", "report", bytes(100_000))
    return out


def test_versions_aliases_and_bytes_counted_once(store, cli, tiny_edge, other_edge):
    put(store, tiny_edge, "me/model:1.0.0")
    put(store, other_edge, "me/model:1.1.0")
    for arguments in (
        ("tag", "me/model:1.0.0", "copy:good"),
        ("tag", "me/model", "fav"),
        ("tag", "fav", "second"),
    ):
        assert cli(*arguments).returncode == 0
    listed = data_of(cli("list", "--json"), "list")
    assert [one["reference"] for one in listed["names"]] == [
        *("copy:good", "me/model:1.0.0", "me/model:1.1.0"),
    ]
    assert listed["aliases"] == {"fav": "me/model", "second": "me/model"}
    total = tiny_edge.stat().st_size + other_edge.stat().st_size
    assert (listed["n_models"], listed["n_bytes"]) == (2, total)
    assert str(resolve("fav")) == data_of(cli("show", "me/model:1.1.0", "--json"), "show")["path"]
    assert resolve("second").read_bytes() == other_edge.read_bytes()
    put(store, tiny_edge, "me/model:1.2.0")
    assert resolve("fav").read_bytes() == tiny_edge.read_bytes()
    text = cli("list").stdout
    assert "fav -> me/model" in text
    assert "2 models" in text
    shown = cli("show", "fav").stdout
    assert "copy:good, me/model:1.0.0, fav, second" in shown


def test_a_version_never_moves_and_other_tags_do(store, cli, tiny_edge, other_edge):
    put(store, tiny_edge, "model:1.0.0")
    put(store, other_edge, "model:next")
    message = failure_of(cli("tag", "model:next", "model:1.0.0"), Exit.USAGE)
    assert "versions do not move" in message
    assert cli("tag", "model:1.0.0", "model:1.0.0").returncode == 0
    assert cli("tag", "model:1.0.0", "model:next").returncode == 0
    assert resolve("model:next").read_bytes() == tiny_edge.read_bytes()
    assert not store.path(other_edge.stem).exists()
    assert len(store.index().models) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("tag", "model", "model:latest"), Exit.USAGE, "latest is found, not set"),
        (("tag", "model", "demo"), Exit.USAGE, "take another name"),
        (("tag", "model", "demo:1.0.0"), Exit.USAGE, "the name demo is built in"),
        (("tag", "model", "fav:1.0.0"), Exit.USAGE, "the name fav is an alias"),
        (("tag", "nobody", "x:1.0.0"), Exit.BAD_INPUT, "the store has no nobody; it has model"),
        (("rm", "nobody"), Exit.BAD_INPUT, "the store has no nobody"),
        (("rm", "model:3"), Exit.BAD_INPUT, "the store has no model:3"),
        (("rm", "model"), Exit.USAGE, "write model:TAG, or --all"),
        (("rm",), Exit.USAGE, "NAME is missing"),
        (("show", "../x"), Exit.USAGE, "is no name of a model"),
    ],
)
def test_what_is_refused(arguments, code, message, store, cli, tiny_edge):
    put(store, tiny_edge, "model:1.0.0")
    put(store, tiny_edge, "model:1.1.0")
    store.alias("fav", Reference("model"))
    before = store.index()
    assert message in failure_of(cli(*arguments), code)
    assert store.index() == before


def test_rm_says_what_it_frees_and_deletes_what_has_no_name(store, cli, tiny_edge, other_edge):
    kept = put(store, tiny_edge, "model:1.0.0")
    gone = put(store, other_edge, "model:main")
    store.tag(Reference("model", "1.0.0"), Reference("twin", "a"))
    store.alias("fav", Reference("model", "main"))
    size = other_edge.stat().st_size
    planned = data_of(cli("rm", "model", "--all", "--dry-run", "--json"), "rm")
    assert planned["freed_bytes"] == size
    assert gone.exists()
    removed = data_of(cli("rm", "model", "--all", "--json"), "rm")
    assert removed == {**planned, "dry_run": False}
    assert removed["aliases"] == ["fav"]
    assert (kept.exists(), gone.exists()) == (True, False)
    assert "removed twin:a" in cli("rm", "twin").stdout
    assert not kept.exists()


def test_an_alias_goes_without_its_model(store, cli, tiny_edge):
    path = put(store, tiny_edge, "model:main")
    store.alias("fav", Reference("model"))
    assert "alias fav; freed 0.0 MiB" in cli("rm", "fav").stdout
    assert path.exists()


def test_a_file_can_be_tagged_into_the_store(store, cli, tiny_edge, tmp_path):
    bad = bytearray(tiny_edge.read_bytes())
    bad[-5000] ^= 1
    (tmp_path / "bad.edge").write_bytes(bad)
    assert "damaged" in failure_of(cli("tag", "bad.edge", "bad:1.0.0"), Exit.INTEGRITY)
    assert cli("tag", tiny_edge, "mine:1.0.0").returncode == 0
    assert resolve("mine").read_bytes() == tiny_edge.read_bytes()
    assert cli("verify", "mine").returncode == 0
    assert "a file needs a name and a tag" in failure_of(cli("tag", tiny_edge, "x"), Exit.USAGE)
    assert [str(name) for name, _ in store.index().references()] == ["mine:1.0.0"]


def test_a_path_comes_before_a_name_and_a_name_before_the_cache(home, store, tiny_edge, tmp_path):
    put(store, tiny_edge, "here:main")
    assert find("here").path.parent.name == "objects"
    shutil.copy(tiny_edge, tmp_path / "here")
    assert find("here").path == Path("here")
    assert find(tmp_path / "nowhere").path == tmp_path / "nowhere"


def cached(root: Path, checkpoint: Path, name: str = "owner/tiny") -> Path:
    """A checkpoint as huggingface_hub stores it: blobs, links to them, and a commit."""
    folder = root / f"models--{name.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("ab" * 20)
    for directory in (snapshot, folder / "blobs", folder / "refs"):
        directory.mkdir(parents=True)
    (folder / "refs" / "main").write_text("ab" * 20)
    for at, file in enumerate(checkpoint.iterdir()):
        shutil.copy(file, folder / "blobs" / str(at))
        (snapshot / file.name).symlink_to(Path("..") / ".." / "blobs" / str(at))
    return snapshot


def test_a_checkpoint_of_the_cache_is_read_in_place_and_converted_once(
    home, cli, tiny_checkpoint, tiny_edge, tmp_path
):
    snapshot = cached(tmp_path / "hf", tiny_checkpoint)
    with pytest.raises(FormatError, match="in the Hugging Face cache, but not converted yet"):
        resolve("owner/tiny")
    planned = cli("convert", "owner/tiny", "--dry-run")
    assert f"owner/tiny is {snapshot}" in planned.stderr
    assert planned.returncode == 0
    first = cli("run", "owner/tiny", "hi", "-n", 2, "--json")
    assert f"{snapshot} is converted, once, into the store" in first.stderr
    assert "its name is owner/tiny:main" in first.stderr
    data = data_of(first, "run")
    again = cli("run", "owner/tiny", "hi", "-n", 2, "--json")
    assert "convert" not in again.stderr
    assert data_of(again, "run")["token_ids"] == data["token_ids"]
    assert resolve("owner/tiny").read_bytes() == tiny_edge.read_bytes()
    for path in sorted(snapshot.parents[1].rglob("*"), reverse=True):
        path.unlink() if path.is_file() or path.is_symlink() else path.rmdir()
    assert cli("run", "owner/tiny", "hi", "-n", 2).returncode == 0


def test_a_checkpoint_directory_is_converted_once_until_it_changes(
    home, cli, tiny_checkpoint, tmp_path
):
    shutil.copytree(tiny_checkpoint, tmp_path / "my model")
    notes = [cli("run", "my model", "hi", "-n", 1).stderr for _ in range(2)]
    assert ["is converted" in text for text in notes] == [True, False]
    (tmp_path / "my model" / "config.json").touch()
    assert "had been converted before" in cli("run", "my model", "hi", "-n", 1).stderr
    assert source_files(tmp_path / "my model")[-1].name == "tokenizer.json"
    names = [one["reference"] for one in data_of(cli("list", "--json"), "list")["names"]]
    assert [name.partition(":")[0] for name in names] == ["my-model"]
    with pytest.raises(FormatError, match="convert this checkpoint first"):
        edgellm.load("my model")


def test_a_gguf_file_is_converted_once(home, cli, tmp_path):
    (tmp_path / "small.gguf").write_bytes(model_bytes())
    runs = [cli("run", "small.gguf", "ab", "-n", 1) for _ in range(2)]
    assert [run.returncode for run in runs] == [0, 0]
    assert ["is converted" in run.stderr for run in runs] == [True, False]
    (tmp_path / "text.txt").write_text("ab" * 40)
    options = ("--text", "text.txt", "--n-ctx", 16, "--json")
    judged = cli("eval", "small.gguf", "--against", "small.gguf", *options)
    found = data_of(judged, "eval")
    assert found["model"] == found["reference"] == "small.gguf"


def test_every_input_is_in_the_key_also_those_in_folders(tiny_checkpoint, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(tiny_checkpoint, source)
    (source / "1_Pooling").mkdir()
    (source / "weights.bin").write_bytes(b"pickle")
    seen = set()
    for name in ("modules.json", "1_Pooling/config.json", "1_Pooling/config.json", "config.json"):
        path = source / name
        path.write_bytes(path.read_bytes() + b" " if path.exists() else b"{}")
        seen.add(content_key(source, {}, lambda what, n_done, n_total: None))
    seen.add(content_key(source, {"format": "F16"}, lambda what, n_done, n_total: None))
    assert len(seen) == 5
    assert source / "1_Pooling" / "config.json" in source_files(source)
    assert source / "weights.bin" not in source_files(source)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("owner/none", "edgellm pull owner/none gets it from the hub"),
        ("owner/tinny", "did you mean owner/tiny?"),
        ("my-modle", "did you mean my-model?"),
        ("owner/empty", "in the Hugging Face cache without its weights"),
    ],
)
def test_a_name_that_nothing_has(name, message, store, cli, tiny_edge, tiny_checkpoint, tmp_path):
    put(store, tiny_edge, "owner/tiny:main")
    put(store, tiny_edge, "my-model:main")
    snapshot = cached(tmp_path / "hf", tiny_checkpoint, "owner/empty")
    (snapshot / "model.safetensors").unlink()
    assert message in failure_of(cli("run", name, "hi"), Exit.BAD_INPUT)


@pytest.mark.parametrize("revision", ["../../../../etc", "x/../../y", "\x1b"])
def test_a_revision_cannot_leave_the_cache(revision, home, tmp_path):
    (tmp_path / "hf" / "models--owner--tiny" / "refs").mkdir(parents=True)
    assert not find(f"owner/tiny@{revision}").is_source


def test_a_failed_conversion_leaves_nothing(store, tiny_edge):
    def fails(out: Path) -> None:
        out.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        store.make("key", fails, Reference("model", "main"), "test")
    assert store.index().models == {}
    assert [*(store.directory / "work").iterdir(), *(store.directory / "objects").iterdir()] == []
    put(store, tiny_edge, "model:main", "key")


def test_one_makes_a_model_and_the_others_wait_for_it(store, tiny_edge):
    started, go, waits, made = threading.Event(), threading.Event(), [], []

    def slow(out: Path) -> None:
        started.set()
        assert go.wait(60)
        made.append(shutil.copy(tiny_edge, out))

    def make(name: str) -> None:
        reference = Reference(name, "main")
        store.make("key", slow, reference, "test", on_wait=lambda: (waits.append(name), go.set()))

    first = threading.Thread(target=make, args=("first",))
    first.start()
    assert started.wait(60)
    make("second")
    first.join()
    assert waits == ["second"]
    assert len(made) == 1
    assert [str(name) for name, _ in store.index().references()] == ["first:main", "second:main"]


def test_what_a_killed_process_left_is_removed_by_the_next_writer(store, tiny_edge):
    put(store, tiny_edge, "model:main")
    directory = store.directory
    (directory / "work" / "dead").mkdir()
    (directory / "work" / "dead" / ".model.edge.tmp").write_bytes(bytes(1000))
    (directory / "objects" / f"{'0' * 64}.edge").write_bytes(b"half")
    (directory / ".index.tmp").write_bytes(b"{")
    store.alias("fav", Reference("model"))
    assert list((directory / "work").iterdir()) == []
    assert len(list((directory / "objects").iterdir())) == 1
    assert not (directory / ".index.tmp").exists()


DIGEST = "ab" * 32
GOOD = {
    "version": 1,
    "models": {DIGEST: {"n_bytes": 1, "added_ns": 1, "origins": [], "keys": []}},
    "tags": {"a": {"main": [DIGEST, 1]}},
    "aliases": {"b": "a"},
    "seen": {},
}


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"models": {"../../x": GOOD["models"][DIGEST]}},
        {"models": {}},
        {"models": {DIGEST: {"n_bytes": -1, "added_ns": 1, "origins": [], "keys": []}}},
        {"tags": {"../x": {"main": [DIGEST, 1]}}},
        {"tags": {"a": {"main": [DIGEST]}}},
        {"tags": []},
        {"aliases": {"b": "\x1b[2J"}},
        {"seen": {"x": 1}},
    ],
)
def test_a_damaged_index_is_refused_and_nothing_is_deleted(change, store, cli, tiny_edge):
    path = put(store, tiny_edge, "model:main")
    index = store.directory / "index.json"
    index.write_text(json.dumps(GOOD), encoding="utf-8")
    assert read_index(index).aliases == {"b": "a"}
    index.write_text(json.dumps({**GOOD, **change}), encoding="utf-8")
    assert "the index of the store is damaged" in failure_of(cli("list"), Exit.BAD_INPUT)
    with pytest.raises(EdgeError) as failure:
        store.alias("c", Reference("a"))
    assert failure.value.code == "store_index"
    assert path.exists()
    index.unlink()
    with pytest.raises(FormatError, match="has models but no index"):
        store.alias("c", Reference("a"))
    assert path.exists()


def test_bytes_that_are_no_index(tmp_path):
    for data in (b"", b"[]", b"\xff", b"{" * 100_000, b'{"version": 1}', b"null"):
        (tmp_path / "index.json").write_bytes(data)
        with pytest.raises(FormatError) as failure:
            read_index(tmp_path / "index.json")
        assert failure.value.code == "store_index"


def test_looking_makes_nothing(home, cli):
    assert cli("list").stdout.startswith("no models in")
    assert find("some-name").path == Path("some-name")
    assert not home.exists()


def test_a_store_that_cannot_be_written_says_so(cli, store, tiny_edge, home):
    home.write_bytes(b"a file")
    message = failure_of(cli("tag", tiny_edge, "model:1.0.0"), Exit.BAD_INPUT)
    assert "the store cannot be changed: Not a directory" in message
    assert failure_of(cli("run", "owner/none", "hi"), Exit.BAD_INPUT)


def kill_loop(folder: Path, n_kills: int, checkpoint: Path) -> dict[str, int]:
    script = Path(__file__).with_name("kill_loop.py")
    command = [sys.executable, str(script), str(folder), str(checkpoint), str(n_kills)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-4000:]
    counts: dict[str, int] = json.loads(run.stdout)
    return counts


def test_sixteen_kills_leave_no_half_model_and_lose_no_tag(tiny_checkpoint, tmp_path):
    counts = kill_loop(tmp_path, 16, tiny_checkpoint)
    assert counts["kills"] == 16
    assert counts["changes"] > 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_five_hundred_kills_leave_no_half_model_and_lose_no_tag(tiny_checkpoint, tmp_path):
    counts = kill_loop(tmp_path, 500, tiny_checkpoint)
    assert counts["kills"] == 500
    assert min(counts[verb] for verb in ("convert", "tag", "alias", "rm")) >= 20
