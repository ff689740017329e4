"""How long a daemon that knows very many people takes to start.

In: the built daemon and the example `bench-gallery`, models. Out: a table, and on the last line its
figures as JSON: seconds until it listens and says that it is starting, seconds until it answers, and
how much memory it then holds. The data directory has just been written, so it is read from the
page cache: a disk's own time comes on top.
Must not know: how the gallery is filled.
"""

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PATIENCE_S = 300


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=Path, required=True, help="the folder of the built programs")
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--people", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        data.mkdir(mode=0o700)
        print(f"storing {arguments.people} people", file=sys.stderr, flush=True)
        people = [f"--templates={arguments.people}", "--dimension=128", f"--store={data}", f"--models={arguments.models}"]
        subprocess.run([arguments.programs / "examples/bench-gallery", *people], check=True)
        size = sum(file.stat().st_size for file in data.iterdir()) / 1e6
        listening, ready, resident = started(arguments, data)
    print(f"{'people':>10} {'database MB':>12} {'listens, s':>11} {'answers, s':>11} {'resident MB':>12}")
    print(f"{arguments.people:10} {size:12.0f} {listening:11.2f} {ready:11.2f} {resident:12.0f}")
    figures = {"listening_s": round(listening, 2), "ready_s": round(ready, 2), "resident_mb": round(resident)}
    print(json.dumps({"bench": "start", "people": arguments.people, **figures}))
    return 0


def started(arguments: argparse.Namespace, data: Path) -> tuple[float, float, float]:
    """Seconds until it says that it is starting and until it answers, and megabytes in memory then."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    begin = time.monotonic()
    settings = [f"--set=data_dir={data}", f"--set=models_dir={arguments.models}", f"--set=server.listen=127.0.0.1:{port}"]
    daemon = subprocess.Popen([arguments.programs / "doorward", "serve", *settings])
    listening = None
    try:
        while True:
            status = subprocess.run(
                [arguments.programs / "doorward", "--server", f"http://127.0.0.1:{port}", "status"], capture_output=True, text=True
            )
            since = time.monotonic() - begin
            if "STARTING" in status.stderr:
                listening = listening or since
            if status.returncode == 0:
                resident = next(line for line in Path(f"/proc/{daemon.pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
                return listening or since, since, int(resident.split()[1]) / 1e3
            if daemon.poll() is not None or since > PATIENCE_S:
                raise SystemExit(f"the daemon does not answer: {status.stderr}")
            time.sleep(0.05)
    finally:
        daemon.terminate()
        daemon.wait()


if __name__ == "__main__":
    sys.exit(main())
