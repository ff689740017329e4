"""How long a camera's events take while the enrolment folder is read, beside how long they take else.

In: the built daemon, test camera and clip maker; models; photos. Out: a table, and on the last line
the ratio of the medians as JSON. In turns: a while without a reload, then one of so many photos, all
of them new to the daemon. What is measured is the time from the capture of the picture that decided
to the arrival of the event at a subscriber, on one clock.
Must not know: how the daemon shares its cores.
"""

import argparse
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path

PATIENCE_S = 120


class Events(threading.Thread):
    """The times of identifications, as they arrive."""

    def __init__(self, command: list[str]) -> None:
        super().__init__(daemon=True)
        self.process = subprocess.Popen([*command, "watch", "--json"], stdout=subprocess.PIPE, text=True)
        self.times: list[tuple[float, float]] = []
        self.start()

    def run(self) -> None:
        for line in self.process.stdout:
            arrived = time.time()
            event = json.loads(line)
            if event.get("type") == "EVENT_TYPE_IDENTIFIED":
                captured = datetime.fromisoformat(event["capture_time"]).timestamp()
                self.times.append((arrived, (arrived - captured) * 1000))

    def between(self, begin: float, end: float) -> list[float]:
        return [took for arrived, took in self.times if begin <= arrived < end]


class Folder:
    """A folder of photos of people, which can all be made new."""

    def __init__(self, path: Path, photos: list[Path], count: int) -> None:
        self.path, self.photos, self.count, self.turn = path, photos, count, 0

    def renew(self) -> None:
        """The same faces in files of other contents: a PGM may hold a comment after its first line."""
        self.turn += 1
        for number in range(self.count):
            source = self.photos[number % len(self.photos)]
            kind, rest = source.read_bytes().split(b"\n", 1)
            subject = self.path / f"{source.parent.name}-{number // len(self.photos)}"
            subject.mkdir(parents=True, exist_ok=True)
            (subject / source.name).write_bytes(kind + b"\n# turn %d of %d\n" % (self.turn, number) + rest)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=Path, required=True, help="the folder of the built programs")
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--faces", type=Path, required=True, help="the AT&T faces")
    parser.add_argument("--person", type=Path, required=True, help="the photo that enrols who walks past")
    parser.add_argument("--shown", type=Path, nargs="+", required=True, help="the photos that cameras show")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--photos", type=int, default=500, help="photos of one reload")
    parser.add_argument("--cameras", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        processes: list[subprocess.Popen] = []
        try:
            return measured(arguments, Path(scratch), processes)
        finally:
            for process in reversed(processes):
                process.terminate()
            for process in processes:
                process.wait()


def measured(arguments: argparse.Namespace, scratch: Path, processes: list[subprocess.Popen]) -> int:
    folder = Folder(scratch / "people", sorted(arguments.faces.glob("s*/*.pgm")), arguments.photos)
    folder.path.mkdir()
    command = start(arguments, scratch, processes)
    run([*command, "subject", "add", "walker", arguments.person])
    events = Events(command)
    processes.append(events.process)
    wait_until("an identification", lambda: events.times)
    quiet, reloading, took = [], [], []
    for number in range(1, arguments.rounds + 1):
        print(f"round {number} of {arguments.rounds}", file=sys.stderr, flush=True)
        folder.renew()
        begin = time.time()
        report = json.loads(run([*command, "reload", "--json"]))
        end = time.time()
        encoded = arguments.photos - len(report.get("refused_files", []))
        reloading += events.between(begin, end)
        took.append(end - begin)
        # As long without.
        time.sleep(end - begin)
        quiet += events.between(end, time.time())
        print(f"  {encoded} photos in {end - begin:.0f} s", file=sys.stderr, flush=True)
    print(f"{'':20} {'events':>7} {'median ms':>10} {'90 % ms':>8} {'worst ms':>9}")
    for name, times in (("quiet", quiet), ("during a reload", reloading)):
        ninety = sorted(times)[int(0.9 * (len(times) - 1))]
        print(f"{name:20} {len(times):7} {statistics.median(times):10.0f} {ninety:8.0f} {max(times):9.0f}")
    ratio = statistics.median(reloading) / statistics.median(quiet)
    rate = arguments.photos / statistics.median(took)
    print(json.dumps({"bench": "reload", "photos": arguments.photos, "photos_per_s": round(rate, 1), "latency_ratio": round(ratio, 3)}))
    return 0


def start(arguments: argparse.Namespace, scratch: Path, processes: list[subprocess.Popen]) -> list[str]:
    """A daemon that watches cameras; the command that speaks with it."""
    clip, port = scratch / "clip.mp4", free_port()
    run([arguments.programs / "examples/make-clip", "--size=640x360", "--fps=15", "--seconds-per-photo=2", "--seconds-between=2", clip, *arguments.shown])
    server = f"http://127.0.0.1:{port}"
    settings = {
        "data_dir": scratch / "data",
        "models_dir": arguments.models,
        "people_dir": scratch / "people",
        "server.listen": f"127.0.0.1:{port}",
        "server.request_timeout_ms": 3_600_000,
        "recognition.visit_gap_ms": 1000,
        # Each showing is a visit of its own.
        "recognition.visit_resume_ms": 0,
        "log.filter": "warn",
    }
    daemon = [str(arguments.programs / "doorward"), "serve"]
    processes.append(subprocess.Popen([*daemon, *(part for key, value in settings.items() for part in ("--set", f"{key}={value}"))]))
    command = [str(arguments.programs / "doorward"), "--server", server]
    wait_until("the daemon", lambda: subprocess.run([*command, "status"], capture_output=True).returncode == 0)
    for number in range(arguments.cameras):
        port = free_port()
        processes.append(subprocess.Popen([arguments.programs / "examples/test-camera", "--port", str(port), "--file", clip], stdout=subprocess.DEVNULL))
        run([*command, "camera", "add", f"camera-{number}", f"rtsp://127.0.0.1:{port}/door", "--role", "entry"])
    return command


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(what: str, is_so) -> None:
    deadline = time.time() + PATIENCE_S
    while not is_so():
        if time.time() > deadline:
            raise SystemExit(f"{what} did not come within {PATIENCE_S} s")
        time.sleep(0.1)


def run(command: list) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: {done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
