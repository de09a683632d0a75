"""Hardware profiles: what comes with edgellm, and what is refused."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgellm.errors import FormatError, InvalidArgumentError
from edgellm.machine_profile import profile_of
from edgellm.profiles import find_profile, parse_profile, profile_names, profiles_directory
from edgellm.profiles.writer import profile_toml

FIGURE = '{ value = 4, basis = "vendor", source = "a data sheet" }'
HEAD = 'name = "a"\ntitle = "A"\nkind = "board"\n'


def cores(old: str, new: str) -> str:
    return "[cpu]\ncores = " + FIGURE.replace(old, new)


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_that_comes_with_edgellm_is_whole(name):
    profile = find_profile(name)
    assert profile.name == name
    assert profile.app_bytes is not None
    assert profile.memory.read_gb_per_s is not None
    figures = profile.figures()
    assert len(figures) >= 3
    assert all(len(figure.source) >= 6 for figure in figures.values())


@pytest.mark.parametrize("name", profile_names())
def test_what_is_measured_is_what_its_report_says(name):
    """Nothing to compare where nothing is measured: test_speed.py writes a profile that is."""
    profile = find_profile(name)
    measured = {at: one for at, one in profile.figures().items() if one.basis == "measured"}
    for report in {one.report for one in measured.values()}:
        text = (profiles_directory() / str(report)).read_text(encoding="utf-8")
        made = profile_of(json.loads(text)["reports"], name, profile.title, str(report))
        assert {at: made.figures()[at].value for at in measured} == {
            at: one.value for at, one in measured.items()
        }


def test_there_are_fourteen_classes_of_devices_and_a_generic_one():
    names = profile_names()
    assert "generic" in names
    assert len(names) >= 15
    assert {find_profile(name).kind for name in names} >= {"board", "phone", "laptop", "server"}


@pytest.mark.parametrize("name", profile_names())
def test_a_written_profile_is_read_as_the_same(name):
    profile = find_profile(name)
    assert parse_profile(profile_toml(profile).encode(), "again") == profile


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        (b"\xff", "json_syntax", "not TOML"),
        ("name = ", "json_syntax", "not TOML"),
        ('name = "a"', "json_missing_key", "title is missing"),
        (HEAD.replace("board", "toaster"), "json_type", "one of board, phone"),
        (HEAD.replace('"A"', '"A\\u001b[2J"'), "json_type", "printable"),
        (HEAD + "colour = 1", "json_unknown_key", "unknown key 'colour'"),
        (HEAD + f"[cpu]\ncore = {FIGURE}", "json_unknown_key", "did you mean cores"),
        (HEAD + "[cpu]\ncores = 4", "json_type", "cpu.cores must be {"),
        (HEAD + "cpu = 3", "json_type", "cpu must be a table"),
        (HEAD + "[cpu]\ncores = { value = 4 }", "json_missing_key", "cores.basis is missing"),
        (HEAD + cores("4", "4.5"), "json_type", "a whole number"),
        (HEAD + cores("4", "true"), "json_type", "a whole number"),
        (HEAD + cores("4", "0"), "json_type", "in 1..1024"),
        (HEAD + f"[cpu]\nisa = {FIGURE}", "json_type", "one of avx512vnni"),
        (HEAD + "[storage]\nread_gb_per_s = " + FIGURE.replace("4", "nan"), "json_type", "nan"),
        (HEAD + cores("vendor", "rumour"), "json_type", "measured,"),
        (
            HEAD + cores("vendor", "measured"),
            "json_missing_key",
            "report is missing",
        ),
        (
            HEAD + cores(" }", ', report = "x.json" }'),
            "json_type",
            "for what is measured",
        ),
        (
            HEAD + cores('"vendor"', '"measured", report = "../x.json"'),
            "json_type",
            "beside the profile",
        ),
        (HEAD + "[cpu]\ncores = " + "9" * 5000, "json_syntax", "not TOML"),
        (HEAD + cores("4", "0x" + "9" * 5000), "json_type", "too long"),
        (HEAD.replace('"board"', "0x" + "9" * 5000), "json_type", "too long"),
        (HEAD + "accelerators = 1", "json_type", "accelerators must be"),
        (HEAD + '[[accelerators]]\nkind = "gpu"', "json_missing_key", "name is missing"),
        (HEAD + '[defaults]\nbackends = ["cpu", "cpu"]', "json_type", "different names"),
        (HEAD + '[defaults]\nkv = "Q8"', "json_type", "F16, K8V8"),
        (HEAD + "[defaults]\nn_ctx = 1", "json_type", "in 16.."),
    ],
)
def test_what_is_wrong_is_refused_by_name(text, code, says):
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(FormatError) as caught:
        parse_profile(data, "x.toml")
    assert caught.value.code == code
    assert caught.value.message.startswith("x.toml")
    assert says in caught.value.message


@given(st.data())
def test_mutated_profiles_are_read_or_refused(data):
    text = bytearray((profiles_directory() / "jetson-orin-nano.toml").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 12))] = data.draw(
            st.sampled_from([b"", b"=", b'"', b"[", b"{", b"1", b"-1e400", b"\xff", b"\n", b"true"])
        )
    with contextlib.suppress(FormatError):
        assert parse_profile(bytes(text), "x").figures()


def test_a_name_that_is_none_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(InvalidArgumentError, match="did you mean raspberry-pi-5"):
        find_profile("raspbery-pi-5")
    with pytest.raises(InvalidArgumentError):
        find_profile("../hardware_profiles/generic")
    with pytest.raises(FormatError, match="no such file"):
        find_profile(str(tmp_path / "none.toml"))


def test_the_profile_in_the_docs_is_one():
    page = (Path(__file__).parents[2] / "docs" / "PLAN.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    profile = parse_profile(text.encode(), "docs")
    assert profile.app_bytes == int(0.7 * 2**31)
    assert len(profile.figures()) == 7


def test_a_minimal_profile_leaves_all_unknown():
    profile = parse_profile(HEAD.encode(), "x")
    assert profile.figures() == {}
    assert profile.app_bytes is None
    assert asdict(profile.cpu) == {"isa": None, "cores": None, "int8_gmac_per_s": None}
