from __future__ import annotations

from pathlib import Path

import pytest

from edgectl.agent.config import load
from edgectl.errors import ConfigError

FULL = """
device: {id: nuc-01, labels: {site: berlin, ring: canary}}
fleet: shopfloor
registry: oci-layout:../registry
access: {insecure: true, caFile: ca.pem, username: me, passwordFile: password}
state: ./state
trust: {root: root.json}
keys: [cosign.pub]
facts: {simulate: raspberry-pi-5}
server: {url: "http://127.0.0.1:8080/"}
samples: {digits: samples/digits}
poll: {interval: 10m, jitter: 0.5}
threads: 2
limits: {warmup: 2m, switch: 30s, reserve: 1Gi}
"""
LEAST = """
device: {id: nuc-01}
fleet: shopfloor
registry: registry.example.com/edge
state: state
trust: {root: root.json}
keys: [cosign.pub]
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name in ("root.json", "cosign.pub", "ca.pem"):
        (tmp_path / name).write_text("x")
    (tmp_path / "password").write_text("secret\n")
    (tmp_path / "samples" / "digits").mkdir(parents=True)
    return tmp_path


def write(directory: Path, text: str) -> Path:
    path = directory / "device.yaml"
    path.write_text(text)
    return path


def test_everything(directory: Path) -> None:
    config = load(write(directory, FULL))
    assert config.device == "nuc-01"
    assert config.labels == {"site": "berlin", "ring": "canary"}
    assert config.registry.is_layout
    assert Path(config.registry.base) == directory / "../registry"
    assert config.access.insecure
    assert config.access.ca_file == directory / "ca.pem"
    assert config.access.password == "secret"
    assert config.state == directory / "state"
    assert config.keys == (directory / "cosign.pub",)
    assert config.simulate == "raspberry-pi-5"
    assert config.server == "http://127.0.0.1:8080"
    assert config.samples == {"digits": directory / "samples/digits"}
    assert (config.interval, config.jitter, config.threads) == (600, 0.5, 2)
    assert (config.warmup_timeout, config.switch_timeout) == (120, 30)
    assert config.reserve == 1 << 30


def test_the_least(directory: Path) -> None:
    config = load(write(directory, LEAST))
    assert config.interval == 1800
    assert config.simulate is None
    assert config.server is None
    assert not config.access.insecure
    assert str(config.registry) == "registry.example.com/edge"


def test_a_profile_file_is_relative_to_the_configuration(directory: Path) -> None:
    config = load(write(directory, LEAST + "facts: {simulate: mine.yaml}\n"))
    assert config.simulate == str(directory / "mine.yaml")


def test_every_problem_at_once(directory: Path) -> None:
    text = """
device: {id: 5, labels: {n: 3}, lables: {}}
flet: x
registry: http://foo
trust: {root: nope.json}
keys: []
server: {url: ftp://x}
poll: {interval: 3q, jitter: 3}
samples: {digits: nowhere}
threads: many
facts: {simulate: a, target: b}
"""
    with pytest.raises(ConfigError) as caught:
        load(write(directory, text))
    message = caught.value.message
    for part in (
        "device.id has to be a text, not 5",
        "device.labels.n has to be a text",
        "device.lables is not a known key: did you mean 'labels'?",
        "fleet is missing",
        "flet is not a known key: did you mean 'fleet'?",
        "URL scheme",
        "state is missing",
        "trust.root: there is no file",
        "keys has to be a list of at least one file",
        "server.url",
        "poll.interval: '3q'",
        "poll.jitter has to be from 0 to 1",
        "samples.digits: there is no directory",
        "threads has to be a number",
        "both simulate and target",
    ):
        assert part in message
    assert caught.value.hint


def test_only_a_directory_can_be_checked_whole(directory: Path) -> None:
    over_http = LEAST + "access: {checkDirectory: true}\n"
    with pytest.raises(
        ConfigError, match=r"access\.checkDirectory is for a registry that is a dir"
    ):
        load(write(directory, over_http))
    stick = over_http.replace("registry.example.com/edge", "oci-layout:stick")
    assert load(write(directory, stick)).check_directory
    assert not load(write(directory, LEAST)).check_directory


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999", "http://[::1", "http://a:b", "http://"])
def test_server_addresses_that_cannot_be(directory: Path, url: str) -> None:
    with pytest.raises(ConfigError, match=r"server\.url: .* is not like"):
        load(write(directory, f'{LEAST}server: {{url: "{url}"}}\n'))


def test_a_server_on_ipv6(directory: Path) -> None:
    config = load(write(directory, LEAST + 'server: {url: "http://[::1]:8080"}\n'))
    assert config.server == "http://[::1]:8080"


def test_a_number_without_end(directory: Path) -> None:
    with pytest.raises(ConfigError, match="threads has to be from 1 to 1024"):
        load(write(directory, f"{LEAST}threads: 1{'0' * 400}\n"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("fleet: a\nfleet: b\n", "'fleet' is given twice"),
        ("- a\n", "has to be a mapping"),
        ("a: [\n", "not YAML"),
        ("\x00", "not YAML"),
        ("[" * 10_000, "not YAML"),
        ("", "has to be a mapping"),
        ("!!python/object/apply:os.system [true]\n", "not YAML"),
        ("device: {id: 2024-13-01}\n", "not YAML: month must be in"),
        ("device: {id: 0x_}\n", "not YAML"),
        ("threads: !!timestamp soon\n", "not YAML"),
    ],
)
def test_what_is_no_configuration(directory: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        load(write(directory, text))


def test_a_billion_laughs_stay_short(directory: Path) -> None:
    bomb = "a: &a [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n" + "".join(
        f"{chr(ord('b') + n)}: &{chr(ord('b') + n)} [{', '.join(['*' + chr(ord('a') + n)] * 9)}]\n"
        for n in range(12)
    )
    with pytest.raises(ConfigError) as caught:
        load(write(directory, bomb + "fleet: *m\n"))
    assert len(caught.value.message) < 10_000


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load(tmp_path / "device.yaml")


def test_a_file_that_is_too_large(directory: Path) -> None:
    with pytest.raises(ConfigError, match="larger than"):
        load(write(directory, "#" * (1 << 20) + "\n"))
