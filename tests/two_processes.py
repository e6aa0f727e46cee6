"""Two processes that train together, each with a device, as SLURM starts them."""

import os
import socket
import subprocess
import sys


def two_processes(target, folder):
    """Train what a command line names in two processes, into `folder / "run"`."""
    processes = start_two(target, folder)
    try:
        codes = [process.wait(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0, 0], "\n".join((folder / f"log{number}").read_text() for number in range(2))


def start_two(target, folder):
    """Begin to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    slurm = {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2",
             "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_CPU_DEVICES": "1",
             "RESJAX_CACHE": str(folder / "cache")}
    processes = []
    for number in range(2):
        with (folder / f"log{number}").open("w") as log:
            processes.append(subprocess.Popen(
                [sys.executable, "-m", "resjax", "train", target, "--workdir", str(folder / "run"),
                 "--distributed"], stdout=log, stderr=log,
                env=os.environ | slurm | {"SLURM_PROCID": str(number), "SLURM_LOCALID": str(number)}))
    return processes
