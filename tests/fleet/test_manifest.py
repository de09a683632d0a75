"""fleet.toml: what is refused, and what a profile gives."""

from __future__ import annotations

from pathlib import Path

import pytest
from edgellm.converters.fleet import read_fleet

from edgellm.errors import FormatError, InvalidArgumentError
from fleet.kitchen import manifest_in, manifest_text


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ('name = "kitchen"', 'name = "../x"', InvalidArgumentError, "must be 1 to 64 of"),
        ('version = "1.0.0"', 'version = "1.0"', InvalidArgumentError, "no semantic version"),
        ("sequence = 1", "sequence = 0", InvalidArgumentError, "sequence is 1 to"),
        ("sequence = 1", "sequel = 1", FormatError, "'sequel' not known"),
        ("sequence = 1", 'layout = "zip"', InvalidArgumentError, "layout 'zip' is not known"),
        ("sequence = 1", 'expires = "soon"', InvalidArgumentError, "expires is a time of UTC"),
        ("sequence = 1", "canary_percent = 5", InvalidArgumentError, "name what `extends` has"),
        ("[[models]]", "[[modells]]", FormatError, "'modells' not known"),
        ("read_gb_per_s = 1.0", 'kv = "F8"', InvalidArgumentError, "kv 'F8' is not known"),
        ("read_gb_per_s = 1.0", "ram = 1", FormatError, "'ram' not known"),
        ("read_gb_per_s = 1.0", 'recipes = ["x"]', InvalidArgumentError, "'x' not known"),
        ('name = "device0"', 'name = "a b"', InvalidArgumentError, "devices: name 'a b'"),
        ('format = "E8_32"', 'frmat = "E8_32"', FormatError, "'frmat' not known"),
        ('format = "E8_32"', 'format = "E9_99"', InvalidArgumentError, "'E9_99' is not known"),
        ('format = "E8_32"', 'steps = "x"', FormatError, "'steps' must be tables"),
        ('name = "e8_32"', "", FormatError, r"\[\[recipes\]\] 1: needs a 'name'"),
    ],
)
def test_a_manifest_with_a_fault_says_where(
    old: str, new: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    text = manifest_text([Path("m")], 1, 1)
    assert old in text
    (tmp_path / "fleet.toml").write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(error, match=message) as caught:
        read_fleet(tmp_path / "fleet.toml")
    assert "fleet.toml" in str(caught.value)


def test_a_profile_gives_what_the_manifest_does_not(tmp_path: Path) -> None:
    from edgellm.profiles import find_profile

    plain = find_profile("raspberry-pi-5")
    text = manifest_text([Path("m")], 1, 1)
    named = text.replace("read_gb_per_s = 1.0", 'profile = "raspberry-pi-5"\ncontext = 64')
    (device,) = manifest_in(tmp_path, named).devices
    assert (device.context, device.kv) == (64, plain.defaults.kv)
    assert device.ram_mib == (plain.app_bytes or 0) >> 20 > 0
    assert device.read_gb_per_s == plain.memory.read_gb_per_s.value
    with pytest.raises(InvalidArgumentError, match=r"\[\[devices\]\] 1: .*raspberry-pie"):
        manifest_in(tmp_path, text.replace("read_gb_per_s = 1.0", 'profile = "raspberry-pie"'))
