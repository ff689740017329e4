"""How long events take from the log to many subscribers, and how many come through.

In: the built programs; models; photos. Out: a table, and on the last line the figures as JSON. Subscribers
are processes of their own, each on a connection of its own, over loopback. What is compared is taken in
turns, and the medians of the rounds are compared. The peer, `plain`, is a tonic stream that encodes and
sends every event alone for each subscriber, from memory, with nothing on disk.
Must not know: how events are stored or sent.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import reload

# Subscribers that read, beside those that never do, in the comparison of the two.
READING, STALLED = 900, 100
STALLED_RATE = 25
ANALYSIS_FPS = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=Path, required=True, help="the folder of the built programs")
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--person", type=Path, required=True, help="the photo that enrols who walks past")
    parser.add_argument("--shown", type=Path, nargs="+", required=True, help="the photos that the camera shows")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--camera-seconds", type=int, default=180)
    arguments = parser.parse_args()
    program = [str(arguments.programs / "examples/bench-events")]

    def ask(what: str, *options) -> dict:
        facts = json.loads(reload.run([*program, what, *options]))
        print(f"  {what} {' '.join(map(str, options))}: {facts}", file=sys.stderr, flush=True)
        return facts

    models = ("--models", arguments.models)
    paced, alone, beside, log, plain, caught_up = [], [], [], [], [], []
    for number in range(1, arguments.rounds + 1):
        print(f"round {number} of {arguments.rounds}", file=sys.stderr, flush=True)
        paced.append(ask("paced", *models))
        plain.append(ask("saturated", "--plain"))
        log.append(ask("saturated", *models))
        crowd = ("--subscribers", READING, "--rate", STALLED_RATE, *models)
        alone.append(ask("paced", *crowd))
        beside.append(ask("paced", "--idle", STALLED, *crowd))
        caught_up.append(ask("catch-up", *models))
    camera = watched(arguments)
    median = lambda runs, name: statistics.median(run[name] for run in runs)
    commit_ms = median(paced, "commit_p99_ms")
    result = {
        "bench": "events",
        "paced_p99_ms": round(median(paced, "p99_ms"), 2),
        "from_commit_p99_ms": round(median(paced, "from_commit_p99_ms"), 2),
        "commit_p99_ms": round(commit_ms, 2),
        "saturated_ratio": round(median(log, "deliveries_per_s") / median(plain, "deliveries_per_s"), 2),
        "saturated_cpu_ratio": round(median(plain, "server_cpu_us_per_delivery") / median(log, "server_cpu_us_per_delivery"), 2),
        "stalled_ratio": round(median(beside, "p50_ms") / median(alone, "p50_ms"), 3),
        "stalled_kb_each": round(1000 * (median(beside, "server_mb_after") - median(alone, "server_mb_after")) / STALLED),
        "catch_up_per_s": round(median(caught_up, "events_per_s")),
        "capture_to_event_p99_ms": round(camera["p99_ms"], 1),
        "capture_to_event_budget_ms": round(1000 / ANALYSIS_FPS + 2 * camera["inference_p99_ms"] + commit_ms, 1),
        "camera_events": camera["events"],
    }
    for name, value in list(result.items())[1:]:
        print(f"{name:28} {value:>12}")
    print(json.dumps(result))
    return 0


def watched(arguments: argparse.Namespace) -> dict:
    """One live camera: from the capture of the picture that decided to the subscriber."""
    with tempfile.TemporaryDirectory() as scratch:
        processes: list[subprocess.Popen] = []
        arguments.cameras = 0
        try:
            (Path(scratch) / "people").mkdir()
            command = reload.start(arguments, Path(scratch), processes)
            clip, port = Path(scratch) / "walk.mp4", reload.free_port()
            reload.run([arguments.programs / "examples/make-clip", "--size=640x360", "--fps=15", "--seconds-per-photo=1", "--seconds-between=1.3", clip, *arguments.shown])
            camera = [arguments.programs / "examples/test-camera", "--port", str(port), "--file", clip]
            processes.append(subprocess.Popen(camera, stdout=subprocess.DEVNULL))
            reload.run([*command, "subject", "add", "walker", arguments.person])
            events = Decisions(command)
            processes.append(events.process)
            add = [*command, "camera", "add", "door", f"rtsp://127.0.0.1:{port}/door", "--role", "entry"]
            reload.run([*add, "--analysis-fps-max", ANALYSIS_FPS])
            time.sleep(arguments.camera_seconds)
            return {"events": len(events.times), "p99_ms": p99(events.times), "inference_p99_ms": p99(events.inference)}
        finally:
            for process in reversed(processes):
                process.terminate()
            for process in processes:
                process.wait()


class Decisions(reload.Events):
    """The times of identifications, and what inference took of them."""

    def __init__(self, command: list[str]) -> None:
        self.inference: list[float] = []
        super().__init__(command)

    def run(self) -> None:
        times = []
        for line in self.process.stdout:
            arrived = time.time()
            event = json.loads(line)
            if event.get("type") == "EVENT_TYPE_IDENTIFIED":
                captured = reload.datetime.fromisoformat(event["capture_time"]).timestamp()
                times.append((arrived - captured) * 1000)
                self.inference.append(event["stage_times"]["detect_ms"] + event["stage_times"]["encode_ms"])
                self.times = times


def p99(values: list[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]


if __name__ == "__main__":
    sys.exit(main())
