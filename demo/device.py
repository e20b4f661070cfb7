"""One demo device: its directory, its server process, and what a client asks it."""

from __future__ import annotations

import csv
import http.client
import json
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """\
device:
  id: {name}
  labels: {{site: berlin, ring: {ring}}}
fleet: {fleet}
registry: oci-layout:../../registry
access: {{checkDirectory: true}}
state: state
trust: {{root: root.json}}
keys: [../../keys/cosign.pub]
facts: {{simulate: {profile}}}
samples: {{digits: samples/digits}}
"""
Answer = tuple[str, str, float]
"""Label, the model's answer, and its score."""


class Device:
    """A device whose `edgectl serve` runs for as long as the context is open."""

    def __init__(self, directory: Path, edgectl: str) -> None:
        self.name = directory.name
        self.config = directory / "device.yaml"
        self._directory = directory
        self._edgectl = edgectl

    @classmethod
    def create(cls, directory: Path, profile: str, ring: str, fleet: str, manifests: Path) -> None:
        """Make the directory: configuration, root of trust, labelled samples."""
        directory.mkdir(parents=True)
        shutil.copytree(manifests / "samples", directory / "samples")
        shutil.copy(directory.parent.parent / "trust" / "root.json", directory)
        text = CONFIG.format(name=directory.name, ring=ring, fleet=fleet, profile=profile)
        (directory / "device.yaml").write_text(text)

    def __enter__(self) -> Self:
        log = (self._directory / "serve.log").open("w")
        self._server = subprocess.Popen(
            [self._edgectl, "serve", "--state", str(self._directory / "state"), "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        log.close()
        line = self._server.stdout.readline() if self._server.stdout else ""
        match = re.search(r"http://([\d.]+):(\d+)", line)
        if match is None:
            raise SystemExit(f"{self.name}: the server did not start; see {log.name}")
        self.address = (match[1], int(match[2]))
        with self.config.open("a") as config:
            config.write(f"server: {{url: http://{match[1]}:{match[2]}}}\n")
        return self

    def __exit__(self, *_: object) -> None:
        self._server.terminate()
        self._server.wait(timeout=30)
        if self._server.stdout:
            self._server.stdout.close()

    def poll(self, *, expect_failure: bool = False) -> None:
        """Run the agent once, as a timer would, and tell its way through the states."""
        done = subprocess.run(
            [self._edgectl, "agent", "once", "--config", str(self.config)],
            capture_output=True,
            text=True,
            check=False,
        )
        with (self._directory / "agent.log").open("a") as log:
            log.write(done.stderr)
        states = re.findall(r" state=(\w+)(?: seconds=([\d.]+))?", done.stderr)
        way = "→".join(
            f"{state} {float(seconds):.1f}s" if float(seconds or 0) >= 1 else state
            for state, seconds in states
        )
        sys.stdout.write(f"\n[{self.name}] $ edgectl agent once\n  {way}\n")
        answer = done.stdout or done.stderr[done.stderr.find("Error:") :]
        sys.stdout.write("".join(f"  {line}\n" for line in answer.splitlines()))
        sys.stdout.flush()
        if (done.returncode != 0) is not expect_failure:
            raise SystemExit(f"{self.name}: the agent ended with {done.returncode}")

    def version(self) -> str:
        """The version of the digits model that is being served."""
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        connection.request("GET", "/v2/models/digits")
        value: dict[str, Any] = json.load(connection.getresponse())
        connection.close()
        return str(value["versions"][0])

    def samples(self) -> list[tuple[bytes, str]]:
        """The labelled images that the device holds."""
        directory = self._directory / "samples" / "digits"
        with (directory / "labels.csv").open(newline="") as file:
            return [
                ((directory / row["file"]).read_bytes(), row["label"])
                for row in csv.DictReader(file)
            ]

    def ask(self, count: int) -> list[Answer]:
        """Send images to the server and return its best answer to each."""
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        answers = []
        for image, label in self.samples()[:count]:
            answer, score = infer(connection, image)
            answers.append((label, answer, score))
        connection.close()
        return answers


def infer(connection: http.client.HTTPConnection, image: bytes) -> tuple[str, float]:
    """One request of the Open Inference Protocol, with the image as a binary BYTES tensor.

    The classification extension makes the answer `score:index:label`. Raises on anything but 200.
    """
    payload = len(image).to_bytes(4, "little") + image
    header = json.dumps({
        "inputs": [{
            "name": "image",
            "datatype": "BYTES",
            "shape": [1],
            "parameters": {"binary_data_size": len(payload)},
        }],
        "outputs": [{"name": "logits", "parameters": {"classification": 1}}],
    }).encode()  # fmt: skip
    connection.request(
        "POST",
        "/v2/models/digits/infer",
        header + payload,
        {"Inference-Header-Content-Length": str(len(header))},
    )
    response = connection.getresponse()
    body = response.read()
    if response.status != http.HTTPStatus.OK:
        raise RuntimeError(f"{response.status}: {body[:200]!r}")
    score, _, label = json.loads(body)["outputs"][0]["data"][0].split(":")
    return label, float(score)
