"""Heat, battery and memory pressure from a fake /sys: less duty, KV given back, the same tokens."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import edgellm
from edgellm import pacing, sysfs
from edgellm.errors import InvalidArgumentError
from edgellm.governor import Governor

PROMPT = "Once upon a time, there was a little"


class FakeSystem:
    """Writes what Linux would say."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, text: object) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n", encoding="utf-8")

    def zone(self, n: int, celsius: object, **trips: float) -> None:
        at = f"sys/class/thermal/thermal_zone{n}"
        milli = int(1000 * celsius) if isinstance(celsius, float) else celsius
        self.write(f"{at}/temp", milli)
        for i, (kind, limit) in enumerate(trips.items()):
            self.write(f"{at}/trip_point_{i}_type", kind)
            self.write(f"{at}/trip_point_{i}_temp", int(1000 * limit))

    def battery(self, percent: object, status: str = "Discharging", **more: str) -> None:
        at = "sys/class/power_supply/BAT0"
        for key, value in {
            "type": "Battery",
            "capacity": percent,
            "status": status,
            **more,
        }.items():
            self.write(f"{at}/{key}", value)

    def stall(self, percent: object, at: str = "proc/pressure/memory") -> None:
        rest = "avg60=0.00 avg300=0.00 total=7"
        self.write(at, f"some avg10={percent} {rest}\nfull avg10=0.00 {rest}")

    def cgroup(self, line: str) -> None:
        self.write("proc/self/cgroup", line)


@pytest.fixture
def system(tmp_path):
    return FakeSystem(tmp_path / "root")


@pytest.fixture
def model(demo_path):
    with edgellm.load(demo_path, threads=1, speculate=False) as loaded:
        yield loaded


def test_a_machine_that_says_nothing_runs_at_full_speed(system):
    governor = Governor(root=system.root)
    assert governor.poll() == edgellm.GovernorState()


@pytest.mark.parametrize(
    ("celsius", "duty"), [(50.0, 1.0), (80.0, 1.0), (85.0, 0.625), (90.0, 0.25), (97.0, 0.25)]
)
def test_heat_lowers_the_duty_towards_the_limit(system, celsius, duty):
    system.zone(0, 30.0, passive=200.0)
    system.zone(1, celsius, active=40.0, passive=90.0, critical=110.0)
    state = Governor(root=system.root).poll()
    assert state.duty == pytest.approx(duty)
    assert state.headroom_celsius == pytest.approx(90 - celsius)
    assert state.reason == ("heat" if duty < 1 else "")


def test_below_what_is_critical_ten_degrees_are_left(system):
    system.zone(0, 95.0, critical=110.0)
    assert sysfs.heat_headroom(system.root) == pytest.approx(5)


@pytest.mark.parametrize("value", ["", "hot", "-274000", "1e9", "nan", "inf"])
def test_sensors_that_talk_nonsense_are_left_out(system, value):
    system.zone(0, value, passive=90.0)
    system.battery(value)
    system.stall(value)
    assert Governor(root=system.root).poll() == edgellm.GovernorState()


def test_a_sensor_that_cannot_be_read_is_left_out(system):
    system.zone(0, 95.0, passive=90.0)
    (system.root / "sys/class/thermal/thermal_zone0/temp").unlink()
    (system.root / "sys/class/thermal/thermal_zone0/temp").mkdir()
    assert sysfs.heat_headroom(system.root) is None


def test_the_duty_falls_at_once_and_rises_step_by_step(system):
    system.zone(0, 95.0, passive=90.0)
    governor = Governor(root=system.root)
    assert governor.poll().duty == 0.25
    system.zone(0, 40.0, passive=90.0)
    duties = [governor.poll().duty for _ in range(10)]
    assert duties == pytest.approx([0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95, 1.0, 1.0, 1.0])
    assert governor.state.reason == ""


@pytest.mark.parametrize(
    ("percent", "status", "duty"),
    [
        (80, "Discharging", 1.0),
        (20, "Discharging", 0.5),
        (10, "Discharging", 0.25),
        (5, "Charging", 1.0),
        (5, "Full", 1.0),
    ],
)
def test_an_empty_battery_lowers_the_duty(system, percent, status, duty):
    system.battery(percent, status)
    state = Governor(root=system.root).poll()
    assert (state.duty, state.battery_percent) == (duty, percent)
    assert state.on_battery == (status == "Discharging")
    assert state.reason == ("battery" if duty < 1 else "")


def test_the_battery_of_a_mouse_is_none_of_ours(system):
    system.battery(3, scope="Device")
    assert sysfs.battery(system.root) is None


@pytest.mark.parametrize(
    ("files", "fill"),
    [
        ({"a/b/memory.current": 900, "a/b/memory.high": 1000, "a/b/memory.max": 2000}, 0.9),
        ({"a/b/memory.current": 900, "a/b/memory.high": "max", "a/b/memory.max": "max"}, None),
        (
            {
                "a/b/memory.current": 900,
                "a/b/memory.max": 1000,
                "a/b/memory.stat": "anon 500\ninactive_file 400",
            },
            0.5,
        ),
        ({"a/memory.current": 400, "a/memory.high": 500, "a/b/memory.current": 1}, 0.8),
        ({"c/memory.current": 900, "c/memory.high": 1000}, None),
    ],
)
def test_how_full_a_cgroup_is_version_2(system, files, fill):
    system.cgroup("3:cpu:/x\n0::/a/b")
    for name, text in files.items():
        system.write(f"sys/fs/cgroup/{name}", text)
    assert sysfs.memory_fill(system.root) == (None if fill is None else pytest.approx(fill))


def test_how_full_a_cgroup_is_version_1(system):
    system.cgroup("4:memory:/app\n0::/")
    system.write("sys/fs/cgroup/memory/app/memory.usage_in_bytes", 990)
    system.write("sys/fs/cgroup/memory/app/memory.limit_in_bytes", 1000)
    system.write("sys/fs/cgroup/memory/app/memory.stat", "cache 90\ntotal_inactive_file 30")
    assert sysfs.memory_fill(system.root) == pytest.approx(0.96)


def test_a_cgroup_cannot_lead_out_of_its_place(system):
    system.cgroup("0::/../../etc/a")
    system.write("etc/a/memory.pressure", "some avg10=99.0")
    assert sysfs.memory_stall(system.root) is None


def make_idle_kv(model: edgellm.Model) -> int:
    model.generate(PROMPT, max_tokens=40)
    idle = model.kv_figures()["idle_bytes"]
    assert idle > 0
    return idle


@pytest.mark.parametrize("sign", ["stall", "cgroup_stall", "fill"])
def test_memory_pressure_gives_idle_kv_back(system, model, sign):
    idle = make_idle_kv(model)
    system.cgroup("0::/app")
    system.stall("9.99")
    governor = Governor(model, root=system.root)
    assert governor.poll().trimmed_bytes == 0
    if sign == "stall":
        system.stall("10.00")
    elif sign == "cgroup_stall":
        system.stall("55.5", "sys/fs/cgroup/app/memory.pressure")
    else:
        system.write("sys/fs/cgroup/app/memory.current", 96)
        system.write("sys/fs/cgroup/app/memory.high", 100)
    assert governor.poll().trimmed_bytes == idle
    assert model.kv_figures()["idle_bytes"] == 0
    assert governor.poll().trimmed_bytes == idle
    assert governor.state.duty == 1


def test_a_server_gives_back_what_its_models_can(system, demo_path):
    pytest.importorskip("starlette")
    from edgellm.server.engine import Engine
    from edgellm.server.settings import ServerSettings

    async def work() -> None:
        engine = Engine(ServerSettings(models=(str(demo_path),), govern=True))
        async with engine.running():
            (governor,) = pacing._paces
            assert isinstance(governor, Governor)
            (loaded,) = engine.pool.loaded.values()
            idle = make_idle_kv(loaded.view.model)
            system.stall("80")
            assert Governor(engine.pool, root=system.root).poll().trimmed_bytes == idle
        assert pacing._paces == []

    asyncio.run(work())


def test_a_model_that_was_closed_does_no_harm(system, demo_path):
    system.stall("80")
    closed = edgellm.load(demo_path, threads=1)
    closed.close()
    assert Governor(closed, root=system.root).poll().trimmed_bytes == 0


def test_no_token_changes(system, model, monkeypatch):
    """Hot, on an empty battery and short of memory, against neither."""
    rests: list[float] = []
    monkeypatch.setattr(pacing, "sleep", rests.append)
    monkeypatch.setattr(pacing, "_rest", lambda rest_s, _: rests.append(rest_s))
    options = {"max_tokens": 24, "temperature": 0.8, "seed": 5}
    prompts = [PROMPT, "The cat"]

    def texts():
        model.trim()
        one = model.generate(PROMPT, **options)
        several = model.generate_batch(prompts, **options)
        return [(text.token_ids, text.logprobs) for text in (one, *several)]

    plain = texts()
    vector = model.embed(PROMPT).tolist()
    assert rests == []
    system.zone(0, 95.0, passive=90.0)
    system.battery(4)
    system.stall("90")
    with Governor(model, poll_s=0.001, root=system.root) as governor:
        assert texts() == plain
        n_rests = len(rests)
        assert model.embed(PROMPT).tolist() == vector
        assert governor.state.duty == 0.25
    assert n_rests >= 2 * 24
    assert len(rests) > n_rests
    assert all(rest > 0 for rest in rests)
    n_rests = len(rests)
    assert texts() == plain
    assert len(rests) == n_rests


def test_rests_take_the_rest_of_the_time(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(pacing, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(pacing, "sleep", lambda s: clock.__setitem__(0, clock[0] + s))

    def run(slice_ms: float) -> float:
        clock[0] += slice_ms / 1000
        return slice_ms

    class Quarter:
        duty = 0.25

    pace = Quarter()
    assert pacing.paced(run, 80.0) == 80.0
    pacing.follow(pace)
    try:
        started = clock[0]
        assert pacing.paced(run, 80.0) == 20.0
        assert clock[0] - started == pytest.approx(0.08)  # a slice and its rest: as before
        started = clock[0]
        pacing.paced(run, 80.0, lambda: True)
        assert clock[0] - started == pytest.approx(0.02)  # who ends a text does not wait
    finally:
        pacing.unfollow(pace)


def test_it_looks_by_itself_until_it_is_closed(system):
    """No time is measured: the test waits for as long as it takes."""
    with Governor(poll_s=0.001, root=system.root) as governor:
        assert governor.duty == 1
        system.zone(0, 95.0, passive=90.0)
        while governor.duty == 1:
            pass
        assert pacing._paces == [governor]
        thread = governor._thread
    assert pacing._paces == []
    assert thread is not None
    assert not thread.is_alive()
    governor.close()


@pytest.mark.parametrize("poll_s", [0, -1, float("nan"), float("inf")])
def test_times_that_make_no_sense_are_refused(poll_s):
    with pytest.raises(InvalidArgumentError, match="poll_s"):
        Governor(poll_s=poll_s)
