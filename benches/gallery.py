"""Searches a gallery of random unit vectors with doorward and with FAISS, and compares them.

In: the built example `bench-gallery`. Out: a table, and on the last line the ratios as JSON.
One thread each, in turns; a figure is the median of its rounds, a ratio that of the same round's
figures. FAISS is `IndexFlatIP`, exact as doorward is, in whichever of its two ways to multiply is
faster here.
Must not know: how doorward searches.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

# Read when the library is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import faiss
import numpy

K = 10
TOGETHER = [1, 8, 32]
# From this many queries on FAISS multiplies matrices (BLAS); below, vector by vector.
BLAS_THRESHOLDS = [1, 1_000_000]


class Doorward:
    """A filled gallery in a process of its own."""

    def __init__(self, program: str, templates: int, dimension: int) -> None:
        command = [program, f"--templates={templates}", f"--dimension={dimension}"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.facts = self.answer()

    def ask(self, question: str) -> dict:
        print(question, file=self.process.stdin, flush=True)
        return self.answer()

    def answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"bench-gallery ended with status {self.process.wait()}")
        return json.loads(line)

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--doorward", required=True, help="the built example bench-gallery")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a fifth of the templates")
    arguments = parser.parse_args()
    faiss.omp_set_num_threads(1)
    templates = 200_000 if arguments.quick else 1_000_000

    print(f"{'templates':>10} {'numbers':>8} {'queries':>8} {'FAISS ms':>9} {'doorward ms':>12} {'ratio':>6}")
    result = {"bench": "gallery", "templates": templates}
    large = compared(arguments, templates, 512, TOGETHER, result)
    result |= {f"q{together}_ratio": large[together] for together in TOGETHER}
    result["d128_ratio"] = compared(arguments, templates, 128, [1], result)[1]
    result["n10k_ratio"] = compared(arguments, 10_000, 512, [1], result)[1]
    result["cost_4x_over_linear"] = cost_of_growth(arguments, templates)
    print(json.dumps(result))
    return 0 if result["identical"] else 1


def compared(arguments: argparse.Namespace, templates: int, dimension: int, batches: list[int], result: dict) -> dict[int, float]:
    """The ratio for each batch of queries. Notes in `result` what only the first and largest gallery tells."""
    told(f"filling {templates} x {dimension}")
    doorward, index = Doorward(arguments.doorward, templates, dimension), build(templates, dimension)
    rounds = {together: [] for together in batches}
    shares = []
    for number in range(1, arguments.rounds + 1):
        told(f"{templates} x {dimension}, round {number} of {arguments.rounds}")
        read = doorward.ask("bandwidth")["read_gb_per_s"]
        for together in batches:
            peer, own = query_ms(index, together), doorward.ask(f"search {together}")
            rounds[together].append((peer, own["query_ms"]))
            if together == 1:
                shares.append(own["scan_gb_per_s"] / read)
    ratios = {}
    for together, times in rounds.items():
        ratios[together] = round(statistics.median(peer / own for peer, own in times), 2)
        peer, own = (statistics.median(column) for column in zip(*times))
        print(f"{templates:10} {dimension:8} {together:8} {peer:9.3f} {own:12.4f} {ratios[together]:6.2f}", flush=True)
    result["identical"] = doorward.ask("compare")["identical"] and result.get("identical", True)
    if "bandwidth_share" not in result:
        note_once(doorward, shares, result)
    doorward.end()
    return ratios


def note_once(doorward: Doorward, shares: list[float], result: dict) -> None:
    single, many, publish, erase = (doorward.ask(question) for question in ("cores 1", "cores 32", "publish", "erase"))
    cores = "two" if many["cores"] == 2 else many["cores"]
    result |= {
        "bandwidth_share": round(statistics.median(shares), 3),
        # Many queries at once wait for the cores, a single one for memory, which is told beside it.
        f"{cores}_core_ratio": round(many["one_ms"] / many["all_ms"], 2),
        f"{cores}_core_ratio_q1": round(single["one_ms"] / single["all_ms"], 2),
        f"{cores}_core_memory_ratio": round(single["memory_ratio"], 2),
        "scanned_bytes_per_template": doorward.facts["scanned_bytes_per_template"],
        "publish_ms_p99": round(publish["publish_ms_p99"], 3),
        "erase_ms_p99": round(erase["erase_ms_p99"], 3),
        "search_while_published": round(publish["search_ms_while_published"] / publish["search_ms_quiet"], 3),
    }


def cost_of_growth(arguments: argparse.Namespace, templates: int) -> float:
    """What four times the templates cost, over four times the cost: 1 is linear."""
    told(f"filling {templates} and {4 * templates} x 128")
    small, large = (Doorward(arguments.doorward, count, 128) for count in (templates, 4 * templates))
    times = [(small.ask("search 1")["query_ms"], large.ask("search 1")["query_ms"]) for _ in range(arguments.rounds)]
    small.end()
    large.end()
    return round(statistics.median(of_large / of_small / 4 for of_small, of_large in times), 3)


def build(templates: int, dimension: int) -> faiss.IndexFlatIP:
    index, random = faiss.IndexFlatIP(dimension), numpy.random.default_rng(1)
    for first in range(0, templates, 100_000):
        rows = random.standard_normal((min(100_000, templates - first), dimension), dtype=numpy.float32)
        faiss.normalize_L2(rows)
        index.add(rows)
    return index


def query_ms(index: faiss.IndexFlatIP, together: int) -> float:
    """Milliseconds a query when `together` are asked at once, in the faster of FAISS's two ways."""
    probes = numpy.random.default_rng(2).standard_normal((64, index.d), dtype=numpy.float32)
    faiss.normalize_L2(probes)
    best = []
    for threshold in BLAS_THRESHOLDS:
        faiss.cvar.distance_compute_blas_threshold = threshold
        times = []
        for first in range(0, len(probes), together):
            begin = time.perf_counter()
            index.search(probes[first : first + together], K)
            times.append((time.perf_counter() - begin) * 1e3 / together)
        best.append(statistics.median(times))
    return min(best)


def told(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
