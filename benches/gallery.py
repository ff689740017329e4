"""Searches a gallery of random unit vectors with doorward and with FAISS, and compares them.

In: the built example `bench-gallery`. Out: a table, and on the last line the ratios as JSON.
One thread each, in turns; a figure is the median of its rounds. FAISS is `IndexFlatIP`, exact as
doorward is, in whichever of its two ways to multiply is faster here.
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
SIZES = [(1_000_000, 512), (1_000_000, 128), (10_000, 512)]
QUICK_SIZES = [(200_000, 512), (200_000, 128), (10_000, 512)]
# From this many queries on FAISS multiplies matrices (BLAS); below, vector by vector.
BLAS_THRESHOLDS = [1, 1_000_000]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--doorward", required=True, help="the built example bench-gallery")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a fifth of the templates")
    arguments = parser.parse_args()
    faiss.omp_set_num_threads(1)

    ratios, is_identical, last = {}, True, {}
    print(f"{'templates':>10} {'numbers':>8} {'FAISS ms':>9} {'doorward ms':>12} {'ratio':>6} {'GB/s':>6} {'of read':>8} {'publish p99 ms':>15}  identical")
    for templates, dimension in QUICK_SIZES if arguments.quick else SIZES:
        index = build(templates, dimension)
        peer, own = [], []
        for round_number in range(1, arguments.rounds + 1):
            print(f"{templates} x {dimension}, round {round_number} of {arguments.rounds}", file=sys.stderr, flush=True)
            peer.append(query_ms(index, dimension))
            own.append(measured(arguments.doorward, templates, dimension))
        del index
        ms, peer_ms = median(own, "query_ms"), statistics.median(peer)
        share, publish = median(own, "bandwidth_share"), median(own, "publish_ms_p99")
        identical = all(run["identical"] for run in own)
        is_identical &= identical
        ratios[(templates, dimension)] = peer_ms / ms
        last[(templates, dimension)] = (share, publish)
        print(f"{templates:10} {dimension:8} {peer_ms:9.2f} {ms:12.3f} {peer_ms / ms:6.2f} {median(own, 'scan_gb_per_s'):6.1f} {share:8.2f} {publish:15.3f}  {identical}")
    large, narrow, small = ratios
    print(
        json.dumps(
            {
                "bench": "gallery",
                "templates": large[0],
                "q1_ratio": round(ratios[large], 2),
                "d128_ratio": round(ratios[narrow], 2),
                "n10k_ratio": round(ratios[small], 2),
                "bandwidth_share": round(last[large][0], 3),
                "publish_ms_p99": round(last[large][1], 3),
                "identical": is_identical,
            }
        )
    )
    return 0 if is_identical else 1


def build(templates: int, dimension: int) -> faiss.IndexFlatIP:
    index, random = faiss.IndexFlatIP(dimension), numpy.random.default_rng(1)
    for first in range(0, templates, 100_000):
        rows = random.standard_normal((min(100_000, templates - first), dimension), dtype=numpy.float32)
        faiss.normalize_L2(rows)
        index.add(rows)
    return index


def query_ms(index: faiss.IndexFlatIP, dimension: int) -> float:
    """Milliseconds a query, one query at a time, in the faster of FAISS's two ways."""
    probes = numpy.random.default_rng(2).standard_normal((40, dimension), dtype=numpy.float32)
    faiss.normalize_L2(probes)
    best = []
    for threshold in BLAS_THRESHOLDS:
        faiss.cvar.distance_compute_blas_threshold = threshold
        times = []
        for probe in probes:
            begin = time.perf_counter()
            index.search(probe[None], K)
            times.append((time.perf_counter() - begin) * 1e3)
        best.append(statistics.median(times))
    return min(best)


def measured(doorward: str, templates: int, dimension: int) -> dict:
    command = [doorward, f"--templates={templates}", f"--dimension={dimension}"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with status {run.returncode}:\n{run.stdout}{run.stderr}")
    return json.loads(run.stdout)


def median(runs: list[dict], key: str) -> float:
    return statistics.median(run[key] for run in runs)


if __name__ == "__main__":
    sys.exit(main())
