"""One intersection by SecretFlow's `spu` over elliptic curves, for `psi.py --spu`: run by the interpreter that has it.

    python benchmarks/psi_spu.py N

spu needs another NumPy than fednb, hence an environment of its own. Two processes, linked over the loopback interface,
read and write CSV files, as spu does. The last line is a JSON object: seconds, processor seconds, matches and MB.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import resource
import socket
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    n = int(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        for rank in (0, 1):
            order = random.Random(rank).sample(range(n), n)
            lines = [f"ZZ-{7919 * (i + rank * (n // 2)) % 10**9:09d}\n" for i in order]
            (Path(folder) / f"in{rank}.csv").write_text("id\n" + "".join(lines))
        addresses = [f"127.0.0.1:{free_port()}" for _ in (0, 1)]
        context = multiprocessing.get_context("spawn")
        answers: multiprocessing.SimpleQueue = context.SimpleQueue()
        ranks = [context.Process(target=play, args=(rank, addresses, folder, answers)) for rank in (0, 1)]
        for process in ranks:
            process.start()
        results = [answers.get() for _ in ranks]
        for process in ranks:
            process.join()
    print(
        json.dumps(
            {
                "seconds": max(r["seconds"] for r in results),
                "processor": sum(r["processor"] for r in results),
                "megabytes": sum(r["megabytes"] for r in results),
                "matched": results[0]["matched"],
            }
        )
    )


def play(rank: int, addresses: list[str], folder: str, answers: multiprocessing.SimpleQueue) -> None:
    import spu.libspu as libspu
    import spu.psi as psi

    description = libspu.link.Desc()
    for each, address in enumerate(addresses):
        description.add_party(f"rank{each}", address)
    link = libspu.link.create_brpc(description, rank)
    csv = psi.SourceType.SOURCE_TYPE_FILE_CSV
    curve = psi.EllipticCurveType.CURVE_25519
    config = psi.PsiExecuteConfig(
        protocol_conf=psi.PsiProtocolConfig(
            protocol=psi.PsiProtocol.PROTOCOL_ECDH,
            receiver_rank=0,
            broadcast_result=True,
            ecdh_params=psi.EcdhParams(curve=curve),
        ),
        input_params=psi.InputParams(type=csv, path=f"{folder}/in{rank}.csv", selected_keys=["id"], keys_unique=True),
        output_params=psi.OutputParams(type=csv, path=f"{folder}/out{rank}.csv"),
    )
    before, wall, processor = peak(), time.perf_counter(), time.process_time()
    report = psi.psi_execute(config, link)
    answers.put(
        {
            "seconds": time.perf_counter() - wall,
            "processor": time.process_time() - processor,
            "megabytes": peak() - before,
            "matched": report.intersection_count,
        }
    )
    link.stop_link()


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
