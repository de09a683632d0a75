"""load(require_signature=) and the verbs that have it: nothing is mapped that is not signed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

import edgellm
from command_line import data_of, failure_of
from edgellm import signature
from edgellm.cli.exits import Exit
from edgellm.edgefile import EdgeWriter, read_header, read_tensor
from edgellm.errors import FormatError, IntegrityError, InvalidArgumentError, UnsupportedError
from edgellm.fleet.bundle import bundle_beside
from edgellm.locate import find
from edgellm.store.names import Reference
from edgellm.store.store import Store
from fleet.signing import Key, bundle, new_key, statement
from store.in_process import CommandLine


def signed(file: Path, key: Key) -> Path:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    made = bundle(statement({file.name: digest}), key)
    bundle_beside(file).write_text(json.dumps(made), encoding="utf-8")
    return file


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
    check = signature.check_single

    def then_swap(*arguments: object) -> None:
        check(*arguments)  # type: ignore[arg-type]
        os.replace(other, model)

    monkeypatch.setattr(signature, "check_single", then_swap)
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
    words = {
        "run": ["run", model, "Once", "-n", "1"],
        "embed": ["embed", model, "Once"],
        "verify": ["verify", model],
    }
    for verb, line in words.items():
        done = cli(*line, "--require-signature", pem, "--json")
        assert data_of(done, verb), done.stderr
    stranger = tmp_path / "stranger.pub"
    stranger.write_text(new_key().pem, encoding="ascii")
    words["serve"] = ["serve", model, "--port", "0"]
    words["chat"] = ["chat", model, "--plain"]
    for verb, line in words.items():
        said = failure_of(cli(*line, "--require-signature", stranger), Exit.INTEGRITY)
        assert "signed by 0 of the 1 keys" in said, verb
