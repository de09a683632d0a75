"""Signing: keys, roots, bundles of OpenSSF's own library, and the whole way on the command line."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from edgellm.converters.fleet import FleetManifest, build_fleet
from edgellm.converters.fleet import sign as sign_module
from edgellm.converters.fleet.sign import make_key, make_root, sign_fleet

from command_line import data_of, failure_of
from edgellm.cli.exits import Exit
from edgellm.errors import FormatError, InvalidArgumentError, UnsupportedError
from edgellm.fleet.bundle import bundle_beside, verify_bundle
from edgellm.fleet.signed import key_id
from edgellm.fleet.signed_bytes import SHARD_BYTES
from edgellm.fleet.trust import clock_now, first_root, next_root
from edgellm.locate import find
from edgellm.signature import Signers, signed_file
from fleet.kitchen import Inline, manifest_in, manifest_text, models_in, share_tokenizer
from fleet.signing import bundle, statement
from store.in_process import CommandLine

HAS_LIBRARY = importlib.util.find_spec("model_signing") is not None
needs_library = pytest.mark.skipif(
    not HAS_LIBRARY, reason="model-signing's bundles are not tested: pip install 'edgellm[sign]'"
)


@pytest.fixture(scope="module", autouse=True)
def _one_tokenizer() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        share_tokenizer(patch)
        yield


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, Path]:
    paths = {name: tmp_path / name for name in ("one", "two", "index", "models")}
    for path in paths.values():
        make_key(path)
    return paths


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(capsys)


def public(path: Path) -> Path:
    return path.with_name(f"{path.name}.pub")


def roles_of(keys: dict[str, Path]) -> dict[str, list[Path]]:
    named = {"root": ["one", "two"], "index": ["index"], "models": ["models"]}
    return {role: [public(keys[name]) for name in names] for role, names in named.items()}


def built(folder: Path, checkpoint: Path, **text: object) -> FleetManifest:
    models = models_in(folder, checkpoint, 1)
    # No speed is promised, so that none is asked for on a busy machine.
    plain = manifest_text(models, 2, 2, **text).replace("read_gb_per_s", "# read_gb_per_s")
    manifest = manifest_in(folder, plain)
    build_fleet(manifest, engine=lambda: Inline(manifest.work_dir))
    return manifest


def test_keys_are_their_owners_alone_and_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "key"
    make_key(path)
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    with pytest.raises(FormatError, match="cannot be written"):
        make_key(path)
    assert path.read_bytes() == before


def test_roots_follow_each_other(keys: dict[str, Path], tmp_path: Path) -> None:
    out, roles = tmp_path / "dist", roles_of(keys)
    both = [keys["one"], keys["two"]]
    with pytest.raises(InvalidArgumentError, match=r"would not be trusted.*signed by 1 of the 2"):
        make_root(out, 1, roles, {"root": 2}, both[:1])
    first = make_root(out, 1, roles, {"root": 2}, both)
    with pytest.raises(InvalidArgumentError, match="would not be trusted"):
        make_root(out, 2, roles, {"root": 1}, both[:1])
    second = make_root(out, 2, roles, {"root": 1}, both, "2099-01-01T00:00:00Z")
    root = first_root(first.read_bytes(), "first", None)
    after = next_root(second.read_bytes(), root, "second", clock_now())
    assert (after.version, after.roles["root"].threshold) == (2, 1)
    with pytest.raises(FormatError, match="no private key"):
        make_root(out, 3, roles, {}, [public(keys["one"])])
    with pytest.raises(InvalidArgumentError, match="at least one private key"):
        make_root(out, 3, roles, {}, [])


def test_without_the_library_files_cannot_be_signed(
    keys: dict[str, Path],
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manifest = built(tmp_path / "fleet", tiny_checkpoint)
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'edgellm\[sign\]'"):
        sign_fleet(manifest.out, keys["models"], [keys["index"]])


@pytest.mark.parametrize("layout", ["directory", "oci"])
def test_a_signed_fleet_from_build_to_roll_back(
    layout: str,
    keys: dict[str, Path],
    tiny_checkpoint: Path,
    tmp_path: Path,
    cli: CommandLine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With bundles as the library makes them; test_bundles_of_the_library has its own."""
    monkeypatch.setenv("EDGELLM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sign_module, "sign_file", our_bundle)
    manifest = built(tmp_path / "fleet", tiny_checkpoint, head=f'layout = "{layout}"')
    out = manifest.out
    make_root(out, 1, roles_of(keys), {"root": 2}, [keys["one"], keys["two"]])
    signing = ["--model-key", keys["models"], "--index-key", keys["index"]]
    assert cli("fleet", "sign", out, *signing).returncode == Exit.OK
    pull = ["pull", "model0", "--index", out, "--device", "device1", "--json"]
    done = cli(*pull, "--root", out / "roots" / "1.dsse.json")
    data = data_of(done, "fleet")
    assert (data["what"], data["name"], data["version"]) == ("new", "kitchen/model0", "1.0.0")
    assert data["health"]["failure"] == ""
    assert data["health"]["tokens_per_s"] > 0
    assert data_of(cli(*pull), "fleet")["what"] == "same"
    shown = cli("run", "kitchen/model0", "hello", "--max-tokens", "4")
    assert shown.returncode == Exit.OK, shown.stderr
    assert data_of(cli("fleet", "check", "kitchen/model0", "--json"), "fleet")["what"] == "same"
    back = failure_of(cli("fleet", "rollback", "kitchen/model0"), Exit.BAD_INPUT)
    assert "nothing to go back to" in back
    revoked = [one.sha256 for one in sign_module._models(index_in(out))]
    more = [word for one in revoked for word in ("--revoke", one)]
    assert cli("fleet", "sign", out, *signing, *more).returncode == Exit.OK
    assert "revoked, and nothing takes its place" in failure_of(cli(*pull), Exit.INTEGRITY)
    assert cli("run", "kitchen/model0", "hello").returncode == Exit.BAD_INPUT


def index_in(out: Path):
    from edgellm.fleet.index import parse_index
    from edgellm.fleet.source import Artefacts

    return parse_index(Artefacts(str(out)).index(), "index")


def our_bundle(file: Path, model_key: Path) -> bytes:
    from fleet.signing import Key

    key = Key(sign_module._private_key(model_key))
    return json.dumps(bundle(statement({".": file_digest(file)}), key)).encode()


def file_digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_options_that_would_have_no_effect_are_refused(cli: CommandLine) -> None:
    for words in (
        ["pull", "x", "--device", "pi5"],
        ["pull", "x", "--index", "dist", "--device", "pi5", "--format", "E4_16"],
        ["pull", "x", "--index", "dist"],
        ["fleet", "check", "alone"],
    ):
        assert cli(*words).returncode == Exit.USAGE, words


@needs_library
@pytest.mark.slow
def test_bundles_are_read_by_the_library_and_its_own_here(
    keys: dict[str, Path], tmp_path: Path, cli: CommandLine
) -> None:
    """Also by its command line, which reads the digest of the whole file."""
    from model_signing import signing

    file = Path(shutil.copyfile(find("demo").path, tmp_path / "demo.edge"))
    with file.open("r+b") as grown:  # to three shards: nothing here opens it as a model
        grown.truncate(2 * SHARD_BYTES + 12_345)
    theirs, beside = tmp_path / "theirs.sig", bundle_beside(file)
    pem = public(keys["models"]).read_text(encoding="ascii")
    signing.Config().use_elliptic_key_signer(private_key=keys["models"]).sign(file, theirs)
    done = cli("fleet", "sign", file, "--model-key", keys["models"], "--json")
    assert data_of(done, "fleet") == {"bundle": str(beside)}
    read = [verify_bundle(one.read_bytes(), {"": pem}, "it")["."] for one in (theirs, beside)]
    assert read[0].sha256 == read[1].sha256 == file_digest(file)
    assert read[0].shards is None
    assert read[1].shards is not None
    assert len(read[1].shards.sha256) == 3
    with file.open("rb", buffering=0) as opened:
        for signed in read:
            signed.check(opened, file, "it")
    assert json.loads(theirs.read_bytes()).keys() == json.loads(beside.read_bytes()).keys()
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(file)]
    command += ["--signature", str(beside), "--public_key", str(public(keys["models"]))]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    with file.open("r+b") as changed:
        changed.seek(SHARD_BYTES + 5)
        changed.write(b"x")
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


@needs_library
def test_a_lone_file_is_signed_beside_it(
    keys: dict[str, Path], tmp_path: Path, cli: CommandLine
) -> None:
    file = Path(shutil.copyfile(find("demo").path, tmp_path / "demo.edge"))
    sign = ["fleet", "sign", file, "--model-key", keys["models"]]
    assert cli(*sign).stdout == f"{bundle_beside(file)}\n"
    pem = public(keys["models"]).read_text(encoding="ascii")
    with signed_file(file, Signers({key_id(pem): pem})):
        pass
    assert cli(*sign, "--index-key", keys["index"]).returncode == Exit.USAGE
    assert cli("fleet", "sign", tmp_path, "--model-key", keys["models"]).returncode == Exit.USAGE
    file.write_bytes(b"")
    assert "it is empty" in failure_of(cli(*sign), Exit.BAD_INPUT)
    file.unlink()
    assert cli(*sign).returncode in (Exit.BAD_INPUT, Exit.USAGE)
