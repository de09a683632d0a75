"""`edgellm pull` against a hub on this machine that misbehaves in every way we know of."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import data_of, failure_of
from edgellm.cli.exits import Exit
from edgellm.errors import (
    DeviceError,
    EdgeError,
    FormatError,
    IntegrityError,
    UnsupportedError,
)
from edgellm.fleet.bundle import bundle_beside
from edgellm.store import hub as hub_module
from edgellm.store.hub import HubModel, fetch, look_up
from edgellm.store.names import HubName
from edgellm.store.pulls import choose
from edgellm.store.store import Store
from gguf_format.model import METADATA, model_bytes
from store.hub_server import COMMIT, FakeHub, described, running
from store.in_process import CommandLine

pytest.importorskip("huggingface_hub")
NAME = "owner/tiny"
WEIGHTS = "model.safetensors"


@pytest.fixture
def hub(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeHub]:
    with running() as server:
        server.add(NAME, tiny_checkpoint)
        server.repositories[NAME]["pytorch_model.bin"] = bytes(5000)
        server.repositories[NAME]["modeling_tiny.py"] = b"raise SystemExit"
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("EDGELLM_HOME", str(tmp_path / "home"))
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        # Of files this small a cut would leave nothing, read ten megabytes at a time.
        monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
        monkeypatch.setattr("time.sleep", lambda seconds: None)  # between tries
        yield server


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(capsys)


def pulled_weights(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    model = look_up(HubName(NAME))
    return fetch(model, file_of(model, WEIGHTS), folder, lambda n_bytes: None)


def file_of(model: HubModel, name: str) -> hub_module.HubFile:
    return next(file for file in model.files if file.name == name)


def test_a_pull_says_what_it_takes_fetches_no_pickle_and_can_be_run(
    hub, cli, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    run = cli("pull", NAME, "--json")
    data = data_of(run, "pull")
    assert data["reference"] == f"{NAME}:main"
    assert data["commit"] == COMMIT
    assert data["needs"]["fits_disk"]
    assert data["needs"]["fits_memory"]
    assert data["needs"]["to_fetch_bytes"] == len(hub.repositories[NAME][WEIGHTS])
    lines = run.stderr.splitlines()
    said = [next(i for i, line in enumerate(lines) if line.startswith(w)) for w in ("disk", "mem")]
    assert max(said) < next(i for i, line in enumerate(lines) if "digest checked" in line)
    fetched = {path.rpartition("/")[2] for path, _ in hub.requests if "/resolve/" in path}
    assert fetched == {"config.json", "tokenizer.json", WEIGHTS}
    assert set(hub.tokens) == {"Bearer hf_secret"}
    assert {path.split("/")[1] for path, _ in hub.requests} == {"api", "owner"}
    assert [path for path, _ in hub.requests if path.startswith("/api/")] == [
        f"/api/models/{NAME}/revision/main"
    ]
    assert not list((tmp_path / "home" / "store" / "pulls").iterdir())

    again = cli("pull", NAME, "--json")
    assert data_of(again, "pull")["needs"] is None
    assert len(hub.fetched(WEIGHTS)) == 1
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = cli("run", NAME, "hi", "-n", 2)
    assert said.returncode == 0, said.stderr


def test_a_dry_run_fetches_no_weight(hub, cli, tmp_path):
    data = data_of(cli("pull", NAME, "--dry-run", "--json"), "pull")
    assert data["model"] is None
    assert data["needs"]["made_bytes"] > 50_000
    assert hub.fetched(WEIGHTS) == []
    assert Store(tmp_path / "home" / "store").index().models == {}


def test_a_cut_connection_goes_on_where_it_was_cut(hub, tmp_path):
    hub.faults[WEIGHTS] = ["cut", "cut"]
    whole = hub.repositories[NAME][WEIGHTS]
    assert pulled_weights(tmp_path / "pull").read_bytes() == whole
    first, second, third = hub.fetched(WEIGHTS)
    assert first is None
    n_first, n_second = (int(str(span)[len("bytes=") : -1]) for span in (second, third))
    assert 0 <= len(whole) // 2 - n_first < 1000
    assert n_first < n_second < len(whole)


def test_what_came_before_the_hub_went_away_is_kept_for_the_next_pull(hub, tmp_path):
    whole = hub.repositories[NAME][WEIGHTS]
    folder = tmp_path / "pull"
    folder.mkdir()
    model = look_up(HubName(NAME))
    file = file_of(model, WEIGHTS)
    (folder / f"{WEIGHTS}.part").write_bytes(whole[:1000])
    hub.refusal = (503, "")
    with pytest.raises(DeviceError, match="status 503") as failure:
        fetch(model, file, folder, lambda n_bytes: None)
    assert failure.value.code == "hub_failed"
    assert (folder / f"{WEIGHTS}.part").stat().st_size == 1000
    hub.refusal, hub.requests = None, []
    seen: list[int] = []
    assert fetch(model, file, folder, seen.append).read_bytes() == whole
    assert hub.fetched(WEIGHTS) == ["bytes=1000-"]
    assert seen == sorted(seen)
    assert seen[-1] == len(whole)


@pytest.mark.parametrize("faults", [["416"], ["whole"], ["redirect"], []])
def test_a_range_that_the_hub_does_not_give_is_no_obstacle(faults, hub, tmp_path):
    whole = hub.repositories[NAME][WEIGHTS]
    (tmp_path / "pull").mkdir()
    (tmp_path / "pull" / f"{WEIGHTS}.part").write_bytes(whole[:1000])
    hub.faults[WEIGHTS] = faults
    assert pulled_weights(tmp_path / "pull").read_bytes() == whole


def test_the_token_stays_with_the_hub_when_it_sends_us_elsewhere(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.faults[WEIGHTS] = ["redirect"]
    pulled_weights(tmp_path / "pull")
    sent = dict(zip([path for path, _ in hub.requests], hub.tokens, strict=True))
    assert sent == {
        f"/api/models/{NAME}/revision/main": "Bearer hf_secret",
        f"/{NAME}/resolve/{COMMIT}/{WEIGHTS}": "Bearer hf_secret",
        f"/cdn/{NAME}/{WEIGHTS}": None,
    }


def test_without_the_extra_one_line_says_what_to_install(hub, cli, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "huggingface_hub"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    message = failure_of(cli("pull", NAME), Exit.UNSUPPORTED)
    assert "downloading needs huggingface_hub: pip install 'edgellm[hub]'" in message


def test_a_disk_that_is_too_small_is_said_before_a_weight_is_fetched(hub, cli, monkeypatch):
    usage = shutil.disk_usage(Path.cwd())._replace(free=1 << 20)
    monkeypatch.setattr("edgellm.cli.pull.shutil.disk_usage", lambda path: usage)
    run = cli("pull", NAME)
    assert run.returncode == Exit.BAD_INPUT
    assert "1.0 MiB free: does not fit" in run.stderr
    assert "no weight was fetched: free space" in run.stderr
    assert hub.fetched(WEIGHTS) == []


@pytest.mark.parametrize("start", [b"", b"x" * 1000, b"x" * 10_000_000])
def test_wrong_bytes_are_refused_and_deleted(start, hub, tmp_path):
    folder = tmp_path / "pull"
    folder.mkdir()
    if start:
        (folder / f"{WEIGHTS}.part").write_bytes(start)
    hub.faults[WEIGHTS] = ["garbage"]
    with pytest.raises(IntegrityError, match="digest differs") as failure:
        pulled_weights(folder)
    assert failure.value.code == "hub_digest"
    assert list(folder.iterdir()) == []
    pulled_weights(folder)


def test_small_files_have_digests_too(hub, tmp_path):
    model = look_up(HubName(NAME))
    hub.faults["config.json"] = ["garbage"]
    with pytest.raises(IntegrityError):
        fetch(model, file_of(model, "config.json"), tmp_path, lambda n_bytes: None)


def test_more_bytes_than_announced_are_not_taken(hub, tmp_path):
    hub.faults[WEIGHTS] = ["longer"]
    with pytest.raises(IntegrityError, match="more than the"):
        pulled_weights(tmp_path / "pull")
    assert [p.stat().st_size for p in (tmp_path / "pull").iterdir()] == [0]


@pytest.mark.parametrize(
    ("status", "code", "kind", "error_code", "advice"),
    [
        (401, "GatedRepo", UnsupportedError, "hub_gated", "accept its terms"),
        (403, "GatedRepo", UnsupportedError, "hub_gated", "set HF_TOKEN"),
        (404, "RepoNotFound", FormatError, "hub_not_found", "check the spelling"),
        (404, "RevisionNotFound", FormatError, "hub_not_found", "no such revision"),
        (401, "", UnsupportedError, "hub_refused", "set HF_TOKEN"),
        (500, "", DeviceError, "hub_failed", "status 500"),
    ],
)
def test_refusals_have_types_and_advice(status, code, kind, error_code, advice, hub):
    hub.refusal = (status, code)
    with pytest.raises(kind, match=advice) as failure:
        look_up(HubName(NAME))
    assert failure.value.code == error_code
    assert NAME in failure.value.message


def test_the_command_line_says_it_in_one_line(hub, cli, monkeypatch):
    hub.refusal = (401, "GatedRepo")
    assert "is gated" in failure_of(cli("pull", NAME), Exit.UNSUPPORTED)
    hub.requests = []
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    message = failure_of(cli("pull", NAME), Exit.UNSUPPORTED)
    assert hub.requests == []
    assert "HF_HUB_OFFLINE" in message
    wrong = cli("pull", "../../etc")
    assert "is no model of the hub" in failure_of(wrong, Exit.USAGE)


def test_no_hub_at_all(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DeviceError) as failure:
        look_up(HubName(NAME))
    assert failure.value.code == "hub_unreachable"


def test_what_a_hostile_hub_lists_is_left_out(hub):
    good = described("config.json", b"{}")
    hub.extra = [
        {**good, "rfilename": name}
        for name in (
            "../../evil.json",
            "/etc/evil.json",
            "../config.json",
            "a/b/config.json",
            ".hidden.json",
            "e\x1b.json",
        )
    ]
    hub.extra += [
        {**good, "rfilename": "negative.json", "size": -1},
        {**good, "rfilename": "huge.json", "size": 2**40},
        {**good, "rfilename": "digest.json", "blobId": "../../x"},
    ]
    names = {file.name for file in look_up(HubName(NAME)).files}
    assert names == {*hub.repositories[NAME], "huge.json"}
    with pytest.raises(UnsupportedError, match=r"huge\.json"):
        choose(look_up(HubName(NAME)), None)


def model_with(*names: str) -> HubModel:
    files = tuple(hub_module.HubFile(name, 10, "0" * 64, None) for name in names)
    return HubModel(HubName(NAME), COMMIT, files)


@pytest.mark.parametrize(
    ("names", "wanted", "kind", "fetched"),
    [
        (["a.edge", WEIGHTS, "config.json"], None, "edge", ["a.edge"]),
        ([WEIGHTS, "config.json", "a.gguf"], None, "checkpoint", ["config.json", WEIGHTS]),
        ([WEIGHTS, "config.json", "a.gguf"], "a.gguf", "gguf", ["a.gguf"]),
        (["a.gguf", "README.md"], None, "gguf", ["a.gguf"]),
        (
            [WEIGHTS, "consolidated.safetensors", "config.json", "chat_template.jinja"],
            None,
            "checkpoint",
            ["config.json", "chat_template.jinja", WEIGHTS],
        ),
        (
            [WEIGHTS, "config.json", "modules.json", "1_Pooling/config.json"],
            None,
            "checkpoint",
            ["config.json", "modules.json", "1_Pooling/config.json", WEIGHTS],
        ),
        (
            [WEIGHTS, "config.json", "onnx/config.json"],
            None,
            "checkpoint",
            ["config.json", WEIGHTS],
        ),
    ],
)
def test_which_files_are_fetched(names, wanted, kind, fetched):
    choice = choose(model_with(*names), wanted)
    assert choice.kind == kind
    assert [file.name for file in choice.files] == fetched


@pytest.mark.parametrize(
    ("names", "wanted", "message"),
    [
        (["a.gguf", "b.gguf"], None, r"choose with --file: a\.gguf \(0\.0 MiB\), b\.gguf"),
        (["a.gguf"], "c.gguf", r"'c\.gguf' is no"),
        (["pytorch_model.bin", "config.json"], None, "only pickled weights"),
        (["README.md"], None, "holds no model"),
    ],
)
def test_what_cannot_be_chosen(names, wanted, message):
    with pytest.raises(EdgeError, match=message):
        choose(model_with(*names), wanted)


def test_a_file_of_ours_is_taken_as_it_is_and_a_broken_one_is_not(hub, cli, tiny_edge):
    good = tiny_edge.read_bytes()
    hub.repositories["owner/edge"] = {"tiny.edge": good, "tiny.edge.sig": b"who", "x.sig": b""}
    bad = bytearray(good)
    bad[-5000] ^= 1
    hub.repositories["owner/bad"] = {"tiny.edge": bytes(bad)}
    asked = data_of(cli("pull", "owner/edge", "--dry-run", "--json"), "pull")["needs"]
    assert len(good) < asked["memory_bytes"] < 100 * len(good)
    assert asked["kept_bytes"] == len(good)
    assert asked["made_bytes"] == 0
    data = data_of(cli("pull", "owner/edge", "--json"), "pull")
    path = Path(data["model"]["path"])
    assert (path.read_bytes(), bundle_beside(path).read_bytes()) == (good, b"who")
    assert [span is None for span in hub.fetched("tiny.edge")][:1] == [True]
    failure_of_bad = cli("pull", "owner/bad")
    assert failure_of_bad.returncode == Exit.INTEGRITY
    assert "damaged" in failure_of_bad.stderr
    listed = data_of(cli("list", "--json"), "list")
    assert [one["reference"] for one in listed["names"]] == ["owner/edge:main"]
    freed = data_of(cli("rm", "--unfinished", "--json"), "rm")
    assert freed["freed_bytes"] == listed["unfinished_bytes"] == len(bad)


def test_a_gguf_file_says_what_it_needs_before_it_is_fetched(hub, cli):
    data = model_bytes() + bytes(4 << 20)
    hub.repositories["owner/gguf"] = {"small.gguf": data}
    needs = data_of(cli("pull", "owner/gguf", "--dry-run", "--json"), "pull")["needs"]
    assert needs["made_bytes"] == needs["kept_bytes"] > 10_000
    assert needs["kept_bytes"] < needs["memory_bytes"] < len(data)
    assert needs["to_fetch_bytes"] == len(data)
    assert data_of(cli("list", "--json"), "list")["unfinished_bytes"] < 2 << 20
    run = cli("pull", "owner/gguf", "--json")
    assert run.returncode == 0, run.stderr
    assert hub.fetched("small.gguf")[0] is None
    assert hub.fetched("small.gguf")[1] is not None  # goes on behind what the plan was made from
    other = model_bytes(metadata={**METADATA, "general.architecture": "mamba"})
    hub.repositories["owner/other"] = {"other.gguf": other}
    refused = cli("pull", "owner/other")
    assert "other.gguf: architecture 'mamba' is not supported" in refused.stderr


def test_what_the_hugging_face_cache_has_is_not_fetched(hub, cli, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    blobs = tmp_path / "cache" / f"models--{NAME.replace('/', '--')}" / "blobs"
    blobs.mkdir(parents=True)
    for name, content in hub.repositories[NAME].items():
        entry = described(name, content)
        digest = entry["lfs"]["sha256"] if "lfs" in entry else entry["blobId"]
        (blobs / digest).write_bytes(content if name == WEIGHTS else bytes(len(content)))
    data = data_of(cli("pull", NAME, "--json"), "pull")
    assert data["needs"]["to_fetch_bytes"] == 0
    assert hub.fetched(WEIGHTS) == []
    assert len(hub.fetched("config.json")) == 1  # the cache's is not what its name says
    assert (blobs / described(WEIGHTS, hub.repositories[NAME][WEIGHTS])["lfs"]["sha256"]).is_file()


def test_only_the_shards_that_the_index_names_are_fetched(hub, cli, tiny_checkpoint, tmp_path):
    shutil.copytree(tiny_checkpoint, tmp_path / "sharded")
    whole = tmp_path / "sharded" / WEIGHTS
    from safetensors import safe_open

    with safe_open(whole, "numpy") as file:
        names = list(file.keys())
    whole.rename(tmp_path / "sharded" / "shard-1.safetensors")
    (tmp_path / "sharded" / "consolidated.safetensors").write_bytes(bytes(5000))
    index = {"weight_map": dict.fromkeys(names, "shard-1.safetensors")}
    (tmp_path / "sharded" / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    hub.add("owner/sharded", tmp_path / "sharded")
    hub.repositories["owner/sharded"]["modules.json"] = b"[]"
    hub.repositories["owner/sharded"]["1_Pooling/config.json"] = b"{}"
    data = data_of(cli("pull", "owner/sharded@v2", "--dry-run", "--json"), "pull")
    assert data["reference"] == "owner/sharded:v2"
    shard = hub.repositories["owner/sharded"]["shard-1.safetensors"]
    assert data["needs"]["to_fetch_bytes"] == len(shard)
    assert hub.fetched("1_Pooling/config.json") == [None]
