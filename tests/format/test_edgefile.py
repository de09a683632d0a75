"""The writer and the Python reader: what is written is read back, and nothing partial survives."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgellm.edgefile import FORMATS, EdgeWriter, read_header, read_tensor, tensor_bytes, verify
from edgellm.errors import EdgeError, FormatError, IntegrityError, InvalidArgumentError

ROOT = Path(__file__).parents[2]

matrices = st.builds(
    lambda format, rows, cols, act: (format, (rows, cols), act),
    st.sampled_from(sorted(FORMATS)),
    st.integers(1, 70),
    st.integers(1, 130),
    st.sampled_from(["a8", "f32"]),
)
vectors = st.builds(lambda n: ("F32", (n,), None), st.integers(1, 300))
blobs = st.builds(lambda n: ("U8", (n,), None), st.integers(1, 3000))
names = st.text("ABCXYZabcxyz0189._/-", min_size=1, max_size=30)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
files = st.fixed_dictionaries(
    {
        "tensors": st.dictionaries(names, matrices | vectors | blobs, min_size=1, max_size=6),
        "spec": st.dictionaries(st.text(max_size=8), json_values, max_size=4),
        "metadata": st.dictionaries(
            st.text(max_size=8).filter(lambda key: not key.startswith("edgellm.")),
            st.text(max_size=8),
            max_size=2,
        ),
        "source": st.none() | st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=2),
    }
)


def size_of(format: str, shape: tuple[int, ...]) -> int:
    return tensor_bytes(format, *(shape if len(shape) == 2 else (1, shape[0])))


def content(name: str, n_bytes: int) -> bytes:
    return (name.encode() * (n_bytes // len(name) + 1))[:n_bytes]


def write(path: Path, file: dict, *, n_chunk: int, header_bytes: int | None = None) -> None:
    """Plans all tensors but the last U8 one, which is appended; streams in chunks of n_chunk."""
    with EdgeWriter(
        path, spec=file["spec"], metadata=file["metadata"], header_bytes=header_bytes
    ) as writer:
        for name, (format, shape, act) in file["tensors"].items():
            writer.plan(name, "role", format=format, shape=shape, act=act)
        for name, (format, shape, _) in file["tensors"].items():
            data = content(name, size_of(format, shape))
            writer.add(name, (data[i : i + n_chunk] for i in range(0, len(data), n_chunk)))
        if file["source"] is not None:
            writer.set_source(file["source"])


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.edge"
    with EdgeWriter(path, spec={"arch": "x"}) as writer:
        writer.plan("w", "ffn_up", format="E4_16", shape=(16, 32), act="a8")
        writer.add("w", bytes(352))
        writer.append("note", "note", b"hello")
    return path


@settings(max_examples=20, deadline=None)
@given(file=files, n_chunk=st.integers(1, 5000))
def test_written_files_read_back_and_write_to_the_same_bytes(
    file: dict, n_chunk: int, tmp_path_factory: pytest.TempPathFactory
):
    folder = tmp_path_factory.mktemp("roundtrip")
    write(folder / "a.edge", file, n_chunk=n_chunk)
    header = verify(folder / "a.edge")
    assert header.spec == file["spec"]
    assert header.source == file["source"]
    assert list(header.tensors) == [*file["tensors"], "edgellm.hashes"]
    again = {**file, "tensors": {}}
    for name, info in header.tensors.items():
        if name == "edgellm.hashes":
            continue
        assert bytes(read_tensor(header, name)) == content(name, info.n_bytes)
        assert (header.data_start + info.offset) % 64 == 0
        again["tensors"][name] = (info.format, info.shape, info.act)
    again["spec"] = header.spec
    again["metadata"] = {k: v for k, v in header.metadata.items() if not k.startswith("edgellm.")}
    again["source"] = header.source
    write(folder / "b.edge", again, n_chunk=777, header_bytes=header.data_start)
    assert (folder / "a.edge").read_bytes() == (folder / "b.edge").read_bytes()


def test_the_safetensors_library_lists_and_loads_the_file(small: Path):
    safetensors = pytest.importorskip("safetensors", reason="the safetensors package is missing")
    with safetensors.safe_open(small, "numpy") as file:
        assert set(file.keys()) == {"w", "note", "edgellm.hashes"}
        assert file.get_tensor("note").tobytes() == b"hello".ljust(64, b"\0")
        assert file.metadata()["edgellm.version"] == "0"


def test_sizes_of_formats_are_those_of_the_native_table():
    listed = (ROOT / "native/src/tensor/formats.inc").read_text(encoding="ascii")
    rows = re.findall(r'^EDGE_FORMAT\(\w+, "(\w+)", (\d+), (\d+), (\d+)\)', listed, re.MULTILINE)
    assert {name: tuple(map(int, sizes)) for name, *sizes in rows} == FORMATS


def test_the_native_module_has_the_same_formats():
    native = pytest.importorskip("edgellm._native", reason="the native module is not built")
    assert {name: tuple(sizes) for name, *sizes in native.format_table()} == FORMATS


@pytest.mark.parametrize(
    ("format", "rows", "cols", "n_bytes"),
    [
        ("E4_16", 16, 32, 64 + 288),
        ("E4_32", 17, 33, 2 * (64 + 2 * 272)),
        ("E2_16", 1, 1, 64 + 160),
        ("E3_32", 1, 1, 64 + 208),
        ("E6_16", 1, 1, 64 + 416),
        ("E8_32", 32, 64, 2 * (64 + 2 * 528)),
        ("F16", 15, 31, 64 + 1024),
        ("F32", 1, 7, 28),
        ("U8", 1, 5, 5),
    ],
)
def test_tensor_bytes_counts_strips_and_tiles(format: str, rows: int, cols: int, n_bytes: int):
    assert tensor_bytes(format, rows, cols) == n_bytes


def test_memory_stays_bounded_while_writing_and_verifying(tmp_path: Path):
    n_bytes = 48 << 20

    def chunks() -> Iterator[bytes]:
        for i in range(n_bytes >> 18):
            yield bytes([i % 256]) * (1 << 18)

    tracemalloc.start()
    with EdgeWriter(tmp_path / "big.edge", spec={}) as writer:
        writer.plan("big", "blob", format="U8", shape=(n_bytes,))
        writer.add("big", chunks())
    verify(tmp_path / "big.edge")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_an_exception_leaves_the_old_file_and_no_temporary_one(small: Path):
    before = small.read_bytes()

    def fail_half_way() -> None:
        with EdgeWriter(small, spec={}) as writer:
            writer.append("x", "blob", b"x")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail_half_way()
    assert small.read_bytes() == before
    assert os.listdir(small.parent) == [small.name]


def test_a_full_disk_leaves_nothing(tmp_path: Path):
    """A file-size limit stands for the full disk: the write fails half-way with an OSError."""
    script = """
import resource, signal, sys
from pathlib import Path
from edgellm.edgefile import EdgeWriter
from edgellm.errors import FormatError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    with EdgeWriter(Path(sys.argv[1]), spec={}) as writer:
        writer.append("big", "blob", bytes(4 << 20))
except FormatError as error:
    sys.exit(0 if error.code == "file_write_failed" else 1)
sys.exit(2)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "full.edge")], check=False)
    assert done.returncode == 0
    assert os.listdir(tmp_path) == []


def test_a_killed_writer_leaves_no_file_that_is_accepted(tmp_path: Path):
    script = """
import sys, time
from pathlib import Path
from edgellm.edgefile import EdgeWriter
def chunks():
    yield bytes(3 << 20)
    print("half", flush=True)
    time.sleep(60)
with EdgeWriter(Path(sys.argv[1]), spec={}) as writer:
    writer.plan("big", "blob", format="U8", shape=(4 << 20,))
    writer.add("big", chunks())
"""
    target = tmp_path / "killed.edge"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(target)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half\n"
        process.send_signal(signal.SIGKILL)
    assert not target.exists()
    left = list(tmp_path.iterdir())
    assert len(left) == 1
    with pytest.raises(FormatError) as caught:
        read_header(left[0])
    assert caught.value.code == "not_an_edge_file"


def test_a_written_file_obeys_the_umask(tmp_path: Path):
    old = os.umask(0o027)
    try:
        with EdgeWriter(tmp_path / "mode.edge", spec={}) as writer:
            writer.append("x", "blob", b"x")
    finally:
        os.umask(old)
    assert (tmp_path / "mode.edge").stat().st_mode & 0o777 == 0o640


def test_misuse_of_the_writer_is_an_invalid_argument(tmp_path: Path):
    def refused(steps, **options) -> str:
        path = tmp_path / "misuse.edge"
        with (
            pytest.raises(InvalidArgumentError) as caught,
            EdgeWriter(path, spec={}, **options) as writer,
        ):
            steps(writer)
        assert os.listdir(tmp_path) == []
        return str(caught.value)

    def plan(writer: EdgeWriter) -> None:
        writer.plan("a", "blob", format="U8", shape=(4,))

    assert "never added" in refused(plan)
    assert "at least one" in refused(lambda w: None)
    assert "3 bytes instead of 4" in refused(lambda w: (plan(w), w.add("a", b"abc")))
    assert "more than 4" in refused(lambda w: (plan(w), w.add("a", b"abcde")))
    assert "next planned" in refused(lambda w: (plan(w), w.add("b", b"abcd")))
    assert "before" in refused(lambda w: (plan(w), w.append("b", "blob", b"x")))
    assert "there already" in refused(lambda w: (plan(w), plan(w)))
    assert "there already" in refused(lambda w: w.append("edgellm.hashes", "hashes", b"x"))
    assert "after data" in refused(lambda w: (w.append("b", "blob", b"x"), plan(w)))
    assert "unknown format" in refused(lambda w: w.plan("a", "b", format="E5", shape=(1, 1)))
    assert "need an act" in refused(lambda w: w.plan("a", "b", format="F16", shape=(1, 1)))
    assert "role" in refused(lambda w: w.append("a", "Role", b"x"))
    assert "names" in refused(lambda w: w.append("a b", "blob", b"x"))
    assert "dimensions" in refused(lambda w: w.append("a", "blob", b""))
    assert "multiple" in refused(lambda w: None, header_bytes=100)
    assert "metadata" in refused(lambda w: None, metadata={"edgellm.x": "y"})


def test_a_header_beyond_its_reserve_says_what_to_do(tmp_path: Path):

    def outgrow() -> None:
        with EdgeWriter(tmp_path / "reserve.edge", spec={}) as writer:
            writer.append("x", "blob", b"x")
            writer.set_source({"k": "v" * 20000})

    with pytest.raises(FormatError, match="reserve_bytes") as caught:
        outgrow()
    assert caught.value.code == "header_too_large"
    assert os.listdir(tmp_path) == []


def test_a_missing_tensor_file_or_directory_is_named(small: Path, tmp_path: Path):
    for path, code in ((tmp_path / "none.edge", "file_not_found"), (tmp_path, "file_unreadable")):
        with pytest.raises(EdgeError, match=re.escape(str(path))) as caught:
            read_header(path)
        assert caught.value.code == code
    with pytest.raises(FormatError, match="'nothing'") as caught:
        read_tensor(small, "nothing")
    assert caught.value.code == "tensor_missing"


def test_damage_in_the_data_is_found_by_verify_and_names_the_tensor(small: Path):
    header = read_header(small)
    raw = bytearray(small.read_bytes())
    raw[header.data_start + 7] ^= 1
    small.write_bytes(raw)
    read_header(small)  # does not read the data
    with pytest.raises(IntegrityError, match="'w'") as caught:
        verify(small)
    assert caught.value.code == "leaf_hash"


def test_reading_a_header_does_not_depend_on_the_size_of_the_data(tmp_path: Path):
    path = tmp_path / "sparse.edge"
    with EdgeWriter(path, spec={}) as writer:
        writer.plan("big", "blob", format="U8", shape=(64 << 20,))
        writer.add("big", (bytes(1 << 20) for _ in range(64)))
    start = time.perf_counter()
    tracemalloc.start()
    read_header(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
    assert time.perf_counter() - start < 5.0
