"""Waits until every enrolled person was identified and a stranger was reported as unknown.

In: the file that `doorward watch --json` writes to, who is enrolled, the processes that must live.
Out: one line an event; status 0 when everything was seen, else 1 with what was not and why.
Must not know: how the demo is put together.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

POLL_SECONDS = 0.1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("events", type=Path)
    parser.add_argument("--person", action="append", required=True, metavar="ID")
    parser.add_argument("--process", action="append", default=[], metavar="NAME=PID")
    parser.add_argument("--timeout", type=float, default=120.0, metavar="SECONDS")
    arguments = parser.parse_args()

    missing = {*arguments.person, "a stranger"}
    seen = 0
    begin = time.monotonic()
    with arguments.events.open() as events:
        text = ""
        while missing:
            text += events.read()
            *lines, text = text.split("\n")
            for line in lines:
                seen += 1
                missing -= told_by(json.loads(line))
            if missing and (reason := why_to_stop(arguments, begin)):
                print(f"FAILED: not seen: {', '.join(sorted(missing))}; {seen} events came; {reason}", file=sys.stderr)
                return 1
            time.sleep(POLL_SECONDS if missing else 0)
    print(f"OK: {', '.join(sorted(arguments.person))} identified and a stranger reported as unknown, within {time.monotonic() - begin:.1f} s")
    return 0


def told_by(event: dict) -> set[str]:
    """Prints the event and answers whom it shows."""
    kind = event["type"].removeprefix("EVENT_TYPE_")
    subject = (event.get("subject") or {}).get("id", "")
    similarity = (event.get("decision") or {}).get("similarity")
    words = [event["camera_id"], kind, subject, "" if similarity is None else f"similarity {similarity:.3f}", event.get("face_file") or ""]
    print("  " + " ".join(word for word in words if word), flush=True)
    return {"IDENTIFIED": {subject}, "UNIDENTIFIED": {"a stranger"}}.get(kind, set())


def why_to_stop(arguments, begin: float) -> str:
    for process in arguments.process:
        name, _, pid = process.partition("=")
        if not is_alive(int(pid)):
            return f"the {name} ended"
    return f"{arguments.timeout:.0f} s are over" if time.monotonic() - begin > arguments.timeout else ""


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        # A process that ended and was not waited for still answers; its state says so.
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


if __name__ == "__main__":
    sys.exit(main())
