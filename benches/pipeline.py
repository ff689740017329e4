"""Analyses videos at every frame with doorward and with OpenCV's loop, and compares them.

In: the built example `bench-pipeline`, the models, videos, for each the people with one photo.
Out: a table a video, and on the last line the ratios as JSON: those of the first video, and under
`videos` those of each. Both run in turns, so that a change of the machine's mood meets both; a
figure is the median of its rounds. Ends with status 1 when a person that OpenCV's loop finds is
not found, or one is found that it does not find.
Must not know: how doorward analyses.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

LOOP = Path(__file__).parent / "opencv_loop.py"
MODES = ["opencv", "every_face", "track_rate"]
NAMES = {"opencv": "OpenCV's loop, every face", "every_face": "doorward, every face", "track_rate": "doorward, at track rate"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--doorward", required=True, help="the built example bench-pipeline")
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument(
        "--video", nargs="+", action="append", required=True, metavar=("FILE", "NAME=PHOTO"), help="a video and who is enrolled; once for each video"
    )
    parser.add_argument("--detector-side", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()

    measured_of = [measure(arguments, video, people) for video, *people in arguments.video]
    figures = [figures for figures, _ in measured_of]
    print(json.dumps({"bench": "pipeline", **{key: value for key, value in figures[0].items() if key != "video"}, "videos": figures}))
    return 0 if all(is_same for _, is_same in measured_of) else 1


def measure(arguments: argparse.Namespace, video: str, people: list[str]) -> tuple[dict, bool]:
    """The figures of one video, and whether both found the same people."""
    commands = commands_for(arguments, video, people)
    runs = {mode: [] for mode in MODES}
    for round_number in range(1, arguments.rounds + 1):
        for mode in MODES:
            print(f"{Path(video).name}, round {round_number} of {arguments.rounds}: {NAMES[mode]}", file=sys.stderr, flush=True)
            runs[mode].append(measured(mode, commands[mode]))
    print(f"\n{video}: {runs['opencv'][0]['frames']} frames, detector side {arguments.detector_side}, median of {arguments.rounds} rounds\n")
    cpu = {mode: median(runs[mode], "cpu_ms_per_frame") for mode in MODES}
    overhead = {mode: cpu[mode] / (median(runs[mode], "decode_ms_per_frame") + median(runs[mode], "inference_ms_per_frame")) for mode in MODES[1:]}
    print_table(runs, cpu, overhead)
    is_same = all([compare(runs["opencv"][0], run) for mode in MODES[1:] for run in runs[mode]])
    figures = {
        "video": Path(video).name,
        "cpu_ms_per_frame": round(cpu["track_rate"], 2),
        "opencv_cpu_ms_per_frame": round(cpu["opencv"], 2),
        "ratio_every_face": round(cpu["opencv"] / cpu["every_face"], 2),
        "ratio": round(cpu["opencv"] / cpu["track_rate"], 2),
        "overhead": round(overhead["track_rate"], 3),
    }
    return figures, is_same


def commands_for(arguments: argparse.Namespace, video: str, people: list[str]) -> dict[str, list[str]]:
    shared = ["--video", video, "--detector-side", str(arguments.detector_side)]
    models = [
        f"--detector={arguments.models / 'face_detection_yunet_2023mar.onnx'}",
        f"--encoder={arguments.models / 'face_recognition_sface_2021dec.onnx'}",
    ]
    own = [arguments.doorward, f"--models={arguments.models}", *shared, *(f"--enrol={person}" for person in people)]
    return {
        "opencv": [sys.executable, str(LOOP), *models, *shared, *(f"--person={person}" for person in people)],
        "every_face": [*own, "--every-face"],
        "track_rate": own,
    }


def measured(mode: str, command: list[str]) -> dict:
    """The line that one run printed; what it complained of is shown only when it failed."""
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    if run.returncode != 0 or [line["mode"] for line in lines] != [mode]:
        raise SystemExit(f"{' '.join(command)}\nended with status {run.returncode}, wanted one line of {mode}:\n{run.stdout}{run.stderr}")
    return lines[0]


def median(runs: list[dict], key: str) -> float:
    return statistics.median(run[key] for run in runs)


def print_table(runs: dict, cpu: dict, overhead: dict) -> None:
    print(f"{'':26} {'CPU ms/frame':>12} {'least':>7} {'most':>7} {'decode':>7} {'infer':>7} {'whole/both':>10} {'faces':>6}  identities (frames; doorward: visits)")
    for mode in MODES:
        figures = [run["cpu_ms_per_frame"] for run in runs[mode]]
        first = runs[mode][0]
        inference = f"{median(runs[mode], 'inference_ms_per_frame'):7.2f}" if mode in overhead else f"{'':7}"
        whole = f"{overhead[mode]:10.3f}" if mode in overhead else f"{'':10}"
        identities = ", ".join(f"{name} {count}" for name, count in sorted(first["identities"].items())) or "none"
        row = f"{NAMES[mode]:26} {cpu[mode]:12.2f} {min(figures):7.2f} {max(figures):7.2f} {median(runs[mode], 'decode_ms_per_frame'):7.2f}"
        print(f"{row} {inference} {whole} {first['faces']:6}  {identities}")
    print()


def compare(peer: dict, own: dict) -> bool:
    """Whether both found the same people in as many frames; says what differs."""
    lost = sorted(set(peer["identities"]) - set(own["identities"]))
    added = sorted(set(own["identities"]) - set(peer["identities"]))
    if lost:
        print(f"{NAMES[own['mode']]}: not found although OpenCV's loop finds them: {', '.join(lost)}")
    if added:
        print(f"{NAMES[own['mode']]}: found although OpenCV's loop does not find them: {', '.join(added)}")
    if own["frames"] != peer["frames"]:
        print(f"{NAMES[own['mode']]}: {own['frames']} frames, OpenCV's loop saw {peer['frames']}")
    return not lost and not added and own["frames"] == peer["frames"]


if __name__ == "__main__":
    sys.exit(main())
