"""load(require_signature=) and the verbs that have it: nothing is mapped that is not signed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any, BinaryIO

import pytest

pytest.importorskip("cryptography")

import edgellm
from command_line import data_of, failure_of
from edgellm import hashed_files, reading_ahead, signature
from edgellm.cli.exits import Exit
from edgellm.edgefile import EdgeWriter, read_header, read_tensor
from edgellm.errors import FormatError, IntegrityError, InvalidArgumentError, UnsupportedError
from edgellm.fleet.bundle import bundle_beside
from edgellm.fleet.signed_bytes import Shards, SignedBytes
from edgellm.locate import find
from edgellm.store.names import Reference
from edgellm.store.store import Store
from fleet.signing import Key, bundle, new_key, shards_of, statement
from store.in_process import CommandLine


def signed(file: Path, key: Key) -> Path:
    data = file.read_bytes()
    whole = hashlib.sha256(data).hexdigest()
    made = bundle(statement({file.name: whole}, shards_of(data, 1 << 20)), key)
    bundle_beside(file).write_text(json.dumps(made), encoding="utf-8")
    return file


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where is remembered what was hashed."""
    folder = tmp_path / "hashed"
    monkeypatch.setattr(hashed_files, "_folder", lambda: folder)
    return folder


@pytest.fixture
def hashings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were hashed. Those that tests have just written count as settled."""
    found: list[Path] = []
    check = SignedBytes.check

    def counted(self: SignedBytes, file: BinaryIO, path: Path, *arguments: Any) -> None:
        found.append(path)
        check(self, file, path, *arguments)

    monkeypatch.setattr(SignedBytes, "check", counted)
    monkeypatch.setattr(hashed_files, "_SETTLED_NS", -1_000_000_000_000)
    return found


@pytest.fixture
def key() -> Key:
    return new_key()


@pytest.fixture
def pem(key: Key, tmp_path: Path) -> Path:
    path = tmp_path / "models.pub"
    path.write_text(key.pem, encoding="ascii")
    return path


@pytest.fixture
def model(key: Key, tmp_path: Path) -> Path:
    return signed(Path(shutil.copyfile(find("demo").path, tmp_path / "demo.edge")), key)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(capsys)


def other_edge(path: Path) -> Path:
    """The demo, with another header and the same data."""
    header = read_header(find("demo").path)
    blobs = [one for one in header.tensors.values() if one.name != "edgellm.hashes"]
    with EdgeWriter.like(header, path) as writer:
        for one in blobs:
            data = read_tensor(header, one.name)
            writer.append(one.name, one.role, data, format=one.format, shape=one.shape, act=one.act)
        writer.set_source({"files": {"other": "0" * 64}})
    return path


def test_a_signed_model_answers_and_another_is_not_opened(model: Path, pem: Path) -> None:
    with edgellm.load(model, require_signature=pem) as loaded, edgellm.load("demo") as plain:
        assert loaded.generate("a", max_tokens=4).token_ids == (
            plain.generate("a", max_tokens=4).token_ids
        )
    data = bytearray(model.read_bytes())
    data[-100] ^= 1
    model.write_bytes(data)
    with pytest.raises(IntegrityError, match="signs another file") as caught:
        edgellm.load(model, require_signature=pem)
    assert caught.value.code == "signature_digest"
    bundle_beside(model).unlink()
    with pytest.raises(IntegrityError, match=r"no demo\.edge\.sig beside it") as caught:
        edgellm.load(model, require_signature=pem)
    assert caught.value.code == "signature_required"


def test_what_is_asked_for_must_be_a_key(model: Path, pem: Path, tmp_path: Path) -> None:
    pem.write_text("hello", encoding="ascii")
    with pytest.raises(FormatError, match="no public key"):
        edgellm.load(model, require_signature=pem)
    with pytest.raises(FormatError, match="no such file"):
        edgellm.load(model, require_signature=tmp_path / "none.pub")
    with pytest.raises(InvalidArgumentError, match="not a int"):
        edgellm.load(model, require_signature=7)  # type: ignore[arg-type]


def test_without_a_trusted_fleet_none_has_signed(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGELLM_HOME", str(tmp_path / "home"))
    for required in (True, "fleet"):
        with pytest.raises(IntegrityError, match="trusts no fleet's root") as caught:
            edgellm.load(model, require_signature=required)
        assert caught.value.code == "signature_required"


def test_without_cryptography_nothing_is_opened(
    model: Path, pem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        __import__("sys").modules, "cryptography.hazmat.primitives.asymmetric", None
    )
    with pytest.raises(UnsupportedError, match="pip install cryptography"):
        edgellm.load(model, require_signature=pem)


@pytest.mark.parametrize("has_names", [True, False])
def test_a_file_that_is_swapped_after_the_check(
    has_names: bool, model: Path, pem: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that was checked is loaded, or none where open files have no names of their own."""
    other = other_edge(tmp_path / "other.edge")
    root = read_header(model).root
    check = SignedBytes.check

    def then_swap(*arguments: Any) -> None:
        check(*arguments)
        os.replace(other, model)

    monkeypatch.setattr(SignedBytes, "check", then_swap)
    if not has_names:
        monkeypatch.setattr(signature, "_own_name", lambda file: None)
    elif not Path("/dev/fd").is_dir():
        pytest.skip("open files have no names here: the other half of this test is for that")
    if has_names:
        with edgellm.load(model, require_signature=pem) as loaded:
            assert loaded.info().root == root
        assert b"other" in model.read_bytes()[: 1 << 20]
    else:
        with pytest.raises(IntegrityError, match="another file than was signed"):
            edgellm.load(model, require_signature=pem)


def test_a_draft_model_must_be_signed_as_well(model: Path, pem: Path, tmp_path: Path) -> None:
    draft = Path(shutil.copyfile(model, tmp_path / "draft.edge"))
    with pytest.raises(IntegrityError, match=r"no draft\.edge\.sig"):
        edgellm.load(model, draft_model=draft, require_signature=pem)
    shutil.copyfile(bundle_beside(model), bundle_beside(draft))
    edgellm.load(model, draft_model=draft, require_signature=pem).close()


def test_an_adapter_must_be_signed_as_well(model: Path, pem: Path, tmp_path: Path) -> None:
    (tmp_path / "peft").mkdir()
    adapter = tmp_path / "adapter.edge"
    adapter.write_bytes(b"no adapter at all")
    with edgellm.load(model, require_signature=pem) as loaded:
        with pytest.raises(IntegrityError, match="a directory cannot be"):
            loaded.load_adapter(tmp_path / "peft")
        with pytest.raises(IntegrityError, match=r"no adapter\.edge\.sig"):
            loaded.load_adapter(adapter)


def test_graphs_beside_a_model_are_not_signed(model: Path, pem: Path) -> None:
    with pytest.raises(UnsupportedError, match="opens graphs beside the model") as caught:
        edgellm.load(model, backend="npu:ort", require_signature=pem)
    assert caught.value.code == "backend_unsupported"


def test_a_copy_in_the_store_keeps_its_bundle(
    model: Path, pem: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGELLM_HOME", str(tmp_path / "home"))
    store = Store.default()
    stored = store.copy_in(model, Reference("mine", "1.0.0"))
    edgellm.load("mine", require_signature=pem).close()
    store.remove([Reference("mine")])
    assert list(stored.path.parent.iterdir()) == []


def test_verbs_open_nothing_that_is_not_signed(
    model: Path, pem: Path, tmp_path: Path, cli: CommandLine
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Once upon a time there was a little girl. " * 20, encoding="utf-8")
    words = {
        "run": ["run", model, "Once", "-n", "1"],
        "embed": ["embed", model, "Once"],
        "verify": ["verify", model],
        "doctor": ["doctor", model],
        "bench": ["bench", model, "--prefill", "8", "--decode", "4", "--rounds", "1"],
        "eval": ["eval", model, "--text", text, "--n-ctx", "32", "--max-tokens-scored", "32"],
    }
    for verb, line in words.items():
        done = cli(*line, "--require-signature", pem, "--json")
        assert data_of(done, verb), done.stderr
    stranger = tmp_path / "stranger.pub"
    stranger.write_text(new_key().pem, encoding="ascii")
    words["serve"] = ["serve", model, "--port", "0"]
    words["chat"] = ["chat", model, "--plain"]
    for verb, line in words.items():
        done = cli(*line, "--require-signature", stranger)
        if verb == "doctor":  # whose findings are its answer
            assert done.returncode == Exit.INTEGRITY
            assert "ok       structure" not in done.stdout
            said = done.stdout
        else:
            said = failure_of(done, Exit.INTEGRITY)
        assert "signed by 0 of the 1 keys" in said, verb


needs_ctime = pytest.mark.skipif(sys.platform == "win32", reason="nothing is remembered there")


@needs_ctime
def test_what_was_hashed_is_remembered_until_it_is_written(
    model: Path, pem: Path, hashings: list[Path]
) -> None:
    def load(verify: Any = "once") -> None:
        edgellm.load(model, verify=verify, require_signature=pem).close()

    load()
    load()
    assert len(hashings) == 1
    load("never")
    assert len(hashings) == 1
    load("always")
    assert len(hashings) == 2
    before = model.stat()
    data = bytearray(model.read_bytes())
    data[-100] ^= 1
    model.write_bytes(data)  # the same file, as large as before, and as old by its mtime
    os.utime(model, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(IntegrityError, match="signs another file"):
        load()
    data[-100] ^= 1
    model.write_bytes(data)
    load()
    assert len(hashings) == 4
    bundle_beside(model).write_text("{}", encoding="ascii")
    with pytest.raises(FormatError, match="no Sigstore bundle"):
        load()


@needs_ctime
def test_a_key_that_is_asked_for_counts_for_what_is_remembered(
    model: Path, pem: Path, hashings: list[Path]
) -> None:
    edgellm.load(model, require_signature=pem).close()
    pem.write_text(new_key().pem, encoding="ascii")
    with pytest.raises(IntegrityError, match="signed by 0 of the 1 keys"):
        edgellm.load(model, require_signature=pem)
    assert len(hashings) == 1


@needs_ctime
@pytest.mark.parametrize("how", ["planted", "writable", "folder", "link", "damaged"])
def test_a_memory_that_somebody_else_made(
    how: str, model: Path, pem: Path, memory: Path, key: Key, tmp_path: Path, hashings: list[Path]
) -> None:
    """Of another file under this one's name, or where others may write: the file is hashed."""
    other = signed(other_edge(tmp_path / "other.edge"), key)
    for one in (model, other):
        edgellm.load(one, require_signature=pem).close()
    names = {}
    for path in memory.iterdir():
        names["inode " + path.read_text().split("inode ")[1].split()[0]] = path
    mine = names[f"inode {model.stat().st_ino}"]
    if how == "planted":
        shutil.copyfile(names[f"inode {other.stat().st_ino}"], mine)
    elif how == "writable":
        mine.chmod(0o666)
    elif how == "folder":
        memory.chmod(0o777)
    elif how == "link":
        mine.rename(tmp_path / "elsewhere")
        mine.symlink_to(tmp_path / "elsewhere")
    else:
        mine.write_bytes(b"\xff" * 99_999)
    hashings.clear()
    edgellm.load(model, require_signature=pem).close()
    assert hashings == [model]


@needs_ctime
def test_what_was_just_written_is_not_remembered(
    model: Path, pem: Path, memory: Path, hashings: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two writes may have one time; nor is what was written while it was hashed."""
    monkeypatch.setattr(hashed_files, "_SETTLED_NS", 3_600_000_000_000)
    edgellm.load(model, require_signature=pem).close()
    assert not memory.exists()
    monkeypatch.setattr(hashed_files, "_SETTLED_NS", -1_000_000_000_000)
    check = SignedBytes.check

    def then_touch(*arguments: Any) -> None:
        check(*arguments)
        os.utime(model)

    with monkeypatch.context() as patch:
        patch.setattr(SignedBytes, "check", then_touch)
        edgellm.load(model, require_signature=pem).close()
    assert not memory.exists()
    memory.write_bytes(b"no folder")  # where nothing can be kept every load hashes
    edgellm.load(model, require_signature=pem).close()
    edgellm.load(model, require_signature=pem).close()
    assert len(hashings) == 4


@pytest.mark.parametrize("n_threads", [1, 2, 64])
def test_shards_are_checked_by_any_number_of_threads(n_threads: int, model: Path) -> None:
    listed = shards_of(model.read_bytes(), 4096)
    digests = tuple(listed.pop("sha256"))
    with model.open("rb", buffering=0) as file:
        SignedBytes("", Shards(**listed, sha256=digests)).check(file, model, "bundle", n_threads)
        for at in (0, len(digests) // 2, len(digests) - 1):
            wrong = Shards(**listed, sha256=(*digests[:at], "0" * 64, *digests[at + 1 :]))
            with pytest.raises(IntegrityError, match=f"other bytes from {at * 4096} to"):
                SignedBytes("", wrong).check(file, model, "bundle", n_threads)


@pytest.mark.skipif(sys.platform != "linux", reason="files are read ahead on Linux alone")
def test_reading_ahead_takes_files_only_and_leaves_nothing_open(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    send = os.sendfile

    def counted(*arguments: Any) -> int:
        sent.append(send(*arguments))
        return sent[-1]

    monkeypatch.setattr(os, "sendfile", counted)
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(model)
    os.mkfifo(pipe)
    before = sorted(os.listdir("/proc/self/fd"))
    for path in (model, link, pipe, tmp_path, tmp_path / "nowhere"):
        reading_ahead._read(path)
    assert sent == [model.stat().st_size]
    assert sorted(os.listdir("/proc/self/fd")) == before
