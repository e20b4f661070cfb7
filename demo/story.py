"""The main job, told on a terminal: from manifests to devices and back.

Runs the real command line, real agents and real servers, and leaves everything they made in
`.demo/`. Nothing here does edgectl's work: each step is a command that a person could type.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from device import Device
from traffic import Traffic

CHECKOUT = Path(__file__).resolve().parent.parent
STATE = Path(os.environ.get("EDGECTL_DEMO", CHECKOUT / ".demo"))
EDGECTL = str(Path(sys.executable).with_name("edgectl"))
REPO = STATE / "repo"
MODEL = REPO / "models" / "digits.yaml"
FLEET = "shopfloor"
PUBLIC = "../keys/cosign.pub"
"""Relative to the repository, where every command runs."""
PROJECT = """\
apiVersion: edgectl.dev/v1alpha1
kind: Project
metadata:
  name: demo
spec:
  registry: oci-layout:../registry
  signing:
    key: ../keys/cosign.key
    publicKeys: [../keys/cosign.pub]
    passwordFile: ../keys/password
  trust:
    directory: ../trust
"""
DEVICES = (
    ("nuc-01", "intel-nuc", "canary"),
    ("pi-01", "raspberry-pi-5", "stable"),
    ("jetson-01", "jetson-orin-nano", "stable"),
)


def main() -> None:
    """Tell the story; any command that does not end as told ends the demo with its exit code."""
    started = time.monotonic()
    chapter("A repository of manifests, keys, and an empty registry")
    prepare()

    chapter("1. What the manifests ask for")
    edgectl("validate")
    edgectl("plan")

    chapter("2. Build, measure, gate, sign, release")
    edgectl("apply")
    say("\nA second apply finds nothing to do:")
    edgectl("apply")
    edgectl("verify", "oci-layout:../registry/models/digits:1.0.0", "--key", PUBLIC)

    with ExitStack() as stack:
        devices = {
            name: stack.enter_context(Device(STATE / "devices" / name, EDGECTL))
            for name, _, _ in DEVICES
        }
        canary = devices["nuc-01"]
        tell(devices, stack, canary)
        port = canary.address[1]
    say(f"\nThe whole story took {time.monotonic() - started:.0f} seconds.")
    next_commands(port)


def tell(devices: dict[str, Device], stack: ExitStack, canary: Device) -> None:
    """The chapters that devices take part in."""
    chapter("3. Three devices in two rings poll, verify, warm up and serve")
    say("Each device's hardware is simulated: its facts are those of a profile, and so its")
    say("latencies are this machine's and count for nothing.")
    poll(devices)
    say("\nReal scans of handwritten digits, sent as PNG files over HTTP:")
    ask(devices)

    chapter("4. Version 1.1.0: to the canary ring first")
    change_version("1.0.0", "1.1.0")
    edgectl("plan")
    edgectl("apply")
    poll(devices)
    say("\nThe canary is healthy, so the rollout goes on:")
    edgectl("rollout", "advance", FLEET)
    poll(devices)
    ask(devices)

    chapter("5. Version 1.2.0: passes every gate, and fails on the device")
    say("It was trained on dark ink on white paper, and so was all data that it is gated with;")
    say("the manifest's pre-processing still gives bright ink on black. Tensors pass every gate.")
    say("Only the labelled images that a device holds show what is wrong.")
    change_version("1.1.0", "1.2.0")
    edgectl("apply")
    traffic = stack.enter_context(Traffic(list(devices.values())))
    say("\nThe canary soaks it against the labelled samples that it holds:")
    canary.poll(expect_failure=True)
    for name, device in devices.items():
        if device is not canary:
            say(f"\n{name} is in the other ring, which never sees 1.2.0:")
            device.poll()
    sent, failed = traffic.stop()
    say(f"\nRequests sent to all devices all along: {sent}; failed: {failed}.")
    if failed or not sent:
        sys.exit("the demo failed: requests were lost")
    edgectl("agent", "status", "--config", f"../devices/{canary.name}/device.yaml")

    chapter("6. The operator rolls back")
    edgectl("rollback", FLEET, "--to", "1")
    poll(devices)
    ask(devices)
    edgectl("status")
    edgectl("history", FLEET)


def prepare() -> None:
    """Fresh state: a copy of the manifests, keys, trust metadata, device directories."""
    shutil.rmtree(STATE, ignore_errors=True)
    (STATE / "keys").mkdir(parents=True)
    shutil.copytree(
        CHECKOUT / "manifests",
        REPO,
        ignore=shutil.ignore_patterns("training", "samples", "recipes"),
    )
    (REPO / "edgectl.yaml").write_text(PROJECT)
    password = STATE / "keys" / "password"
    password.touch(mode=0o600)
    password.write_text(secrets.token_urlsafe(24))
    edgectl("keys", "generate", "--output-key-prefix", PUBLIC.removesuffix(".pub"),
            "--key-password-file", "../keys/password")  # fmt: skip
    edgectl("trust", "init")
    for name, profile, ring in DEVICES:
        Device.create(STATE / "devices" / name, profile, ring, FLEET, CHECKOUT / "manifests")


def change_version(old: str, new: str) -> None:
    """What a pull request would change: the version, in the model's manifest."""
    MODEL.write_text(MODEL.read_text().replace(old, new))
    say(f"{MODEL.relative_to(STATE)}: {old} -> {new}")


def poll(devices: dict[str, Device]) -> None:
    """Each device polls once."""
    for device in devices.values():
        device.poll()


def ask(devices: dict[str, Device]) -> None:
    """Send real images to each device and show the answers."""
    for name, device in devices.items():
        answers = device.ask(5)
        right = sum(label == answer for label, answer, _ in answers)
        shown = "  ".join(f"{label}→{answer} {score:.0%}" for label, answer, score in answers)
        say(f"  {name:<10} digits {device.version():<6} {shown}   {right} of {len(answers)} right")


def edgectl(*arguments: str) -> None:
    """Run one command as a person would, from the repository of manifests."""
    say(f"\n$ edgectl {' '.join(arguments)}", bold=True)
    done = subprocess.run([EDGECTL, *arguments], cwd=REPO, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def chapter(title: str) -> None:
    """Announce a part of the story."""
    say(f"\n== {title} " + "=" * max(0, 76 - len(title)), bold=True)


def say(text: str, *, bold: bool = False) -> None:
    """Print; bold on a terminal."""
    if bold and sys.stdout.isatty():
        text = f"\033[1m{text}\033[0m"
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def next_commands(port: int) -> None:
    """What a person could try now; `port` is where the canary's device.yaml expects its server."""
    repo = os.path.relpath(REPO)
    say("\nEverything is in .demo/. To go on by hand:", bold=True)
    say(f"""\
  cd {repo}
  export PATH={os.path.relpath(Path(EDGECTL).parent, REPO)}:$PATH
  edgectl status
  edgectl explain digits --device ../devices/pi-01/device.yaml
  edgectl verify oci-layout:../registry/models/digits:1.1.0 --key ../keys/cosign.pub
  edgectl rollout resume {FLEET}
  edgectl serve --state ../devices/nuc-01/state --port {port} &
  edgectl agent once --config ../devices/nuc-01/device.yaml
""")


if __name__ == "__main__":
    main()
