"""The demo's verdict: it is good only once everyone was seen, and says what was not seen and why.

In: script/demo_verdict.py, files of events as `doorward watch --json` writes them. Out: unittest's report.
Must not know: how the demo is put together.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

VERDICT = Path(__file__).resolve().parents[2] / "script/demo_verdict.py"
COMMAND = [sys.executable, VERDICT, "--person", "obama", "--person", "visitor"]
EVERYONE = [("CAMERA_ONLINE", ""), ("IDENTIFIED", "obama"), ("UNIDENTIFIED", ""), ("IDENTIFIED", "visitor")]


def lines(events):
    told = ({"type": f"EVENT_TYPE_{kind}", "camera_id": "door", **({"subject": {"id": who}} if who else {})} for kind, who in events)
    return "".join(json.dumps(event) + "\n" for event in told)


@contextlib.contextmanager
def ended_process():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    yield ended.pid
    ended.wait()


def verdict(written, timeout, process=""):
    """Status and last words about what was written so far."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write(written)
        file.flush()
        arguments = [file.name, "--timeout", str(timeout), *(["--process", process] if process else [])]
        run = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)
        return run.returncode, run.stderr


class TheVerdict(unittest.TestCase):
    def test_is_good_once_everyone_was_seen(self):
        self.assertEqual(verdict(lines(EVERYONE), timeout=120), (0, ""))

    def test_names_whoever_was_not_seen_in_time(self):
        for index, missing in ((1, "obama"), (2, "a stranger"), (3, "visitor")):
            status, words = verdict(lines(EVERYONE[:index] + EVERYONE[index + 1 :]), timeout=0.2)
            self.assertEqual((status, f"not seen: {missing}; 3 events came; 0 s are over" in words), (1, True), words)

    def test_counts_nobody_twice(self):
        status, words = verdict(lines([("IDENTIFIED", "obama")] * 3), timeout=0.2)
        self.assertEqual((status, "a stranger, visitor" in words), (1, True), words)

    def test_takes_a_line_once_it_is_whole(self):
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
            written = lines(EVERYONE)
            file.write(written[:-9])
            file.flush()
            run = subprocess.Popen([*COMMAND, file.name, "--timeout", "120"], stdout=subprocess.PIPE, text=True)
            # Everything before it was read once the event before it is told.
            self.assertIn("UNIDENTIFIED", next(line for line in run.stdout if " IDENTIFIED" not in line and "ONLINE" not in line))
            file.write(written[-9:])
            file.flush()
            self.assertIn("OK: obama, visitor identified", run.communicate()[0])
            self.assertEqual(run.returncode, 0)

    def test_does_not_wait_for_a_process_that_has_ended(self):
        # Nobody has waited for it yet, so that its number is not given to another.
        with ended_process() as daemon:
            status, words = verdict(lines(EVERYONE[:2]), timeout=120, process=f"daemon={daemon}")
            self.assertEqual((status, "the daemon ended" in words), (1, True), words)
            self.assertEqual(verdict(lines(EVERYONE), timeout=120, process=f"daemon={daemon}"), (0, ""), "everyone was seen before it ended")


if __name__ == "__main__":
    unittest.main()
