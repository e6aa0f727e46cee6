"""Checks that the training step compiles in all precisions, with deterministic operations, and for up to 256 devices.

    pip install -e '.[cuda12,tpu]' && python experiments/benchmarks/compiles.py [--case "resnet20 h100 float32"]

Each compiled program makes one update per call. No batch-norm group spans two devices. Devices therefore exchange only
gradients and the sums from which the running statistics, the loss and the error are computed. In the results,
`parameter_bytes` is the size of all parameters in float32, which is also the size of their gradients. Each case runs in
a separate process, because XLA reads its flags only once. Results are written to experiments/results/compiles.json
after each case. A second run compiles only the missing cases.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro

RESULTS = Path(__file__).parents[1] / "results" / "compiles.json"
KEPT = ("kernels", "bytes", "macs", "collectives", "peak_bytes", "compile_seconds")


@dataclass(frozen=True)
class Case:
    """A network, its precision, and the devices that share its batch."""

    network: str
    device: str
    precision: str = "tensorfloat32"
    deterministic: bool = False
    devices: int = 1
    hosts: int = 1

    @property
    def name(self) -> str:
        """Return the case as text."""
        many = f" {self.hosts}x{self.devices // self.hosts}" * (self.devices > 1)
        return f"{self.network} {self.device}{many} {self.precision}{' deterministic' * self.deterministic}"


CASES = {case.name: case for case in [
    *(Case("resnet20", "h100", precision) for precision in ("float32", "tensorfloat32", "bfloat16")),
    Case("resnet20", "h100", deterministic=True), Case("resnet20", "h100", devices=8),
    Case("resnet20", "h100", devices=16, hosts=2), Case("resnet20", "h100", deterministic=True, devices=8),
    *(Case("resnet20", "v5e", precision) for precision in ("float32", "tensorfloat32", "bfloat16")),
    *(Case("resnet20", "v5e", "bfloat16", devices=chips) for chips in (8, 256)),
    *(Case("resnet50", "h100", precision) for precision in ("float32", "tensorfloat32", "bfloat16")),
    Case("resnet50", "h100", "bfloat16", deterministic=True), Case("resnet50", "h100", "bfloat16", devices=8),
    Case("resnet50", "h100", "bfloat16", devices=16, hosts=2),
]}
SIZES = {"resnet20": ("cifar10", 16), "resnet50": ("imagenet", 32)}  # experiment file, and images per device


def measure(case: Case) -> dict[str, Any]:
    """Compile the step of a case and analyse it."""
    import jax

    from resjax.experiment import image_shape
    from resjax.experiment_files import find
    from resjax.plan.classifier import programs_of_classifier
    from resjax.plan.compile import compile_program, hide_devices, target_devices
    from resjax.plan.devices import Machine, find_device
    from resjax.plan.figures import figures
    from resjax.plan.plan import installed

    hide_devices()
    file, images = SIZES[case.network]
    run = find(f"{file}:{case.network}")
    architecture = replace(run.architecture, precision=case.precision, ghost_batch_size=images)
    run = replace(run, architecture=architecture, batch_size=images * case.devices, log_steps=1)
    machine = Machine(find_device(case.device), case.devices, case.hosts)
    _, program = next(programs_of_classifier(run, target_devices(machine)))
    read = figures(program, compile_program(program), machine, case.precision)
    sample = jax.ShapeDtypeStruct((1, *image_shape(run.data)), "float32")
    shapes = jax.eval_shape(architecture.model(10 if file == "cifar10" else 1000).init, jax.random.key(0), sample)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    return {"batch": run.batch_size, "parameter_bytes": 4 * parameters, **{key: getattr(read, key) for key in KEPT},
            "versions": installed()}


def main(case: str | None = None) -> None:
    """Compile all missing cases.

    Args:
        case: A single case to run in this process. By default, all cases run, each in a separate process.
    """
    from resjax.system.files import write_json  # importing resjax sets XLA's flags from the environment

    found: dict[str, Any] = json.loads(RESULTS.read_text("utf-8")) if RESULTS.is_file() else {}
    if case is not None:
        found[case] = measure(CASES[case])
        write_json(RESULTS, found)
        sent = ", ".join(f"{times:g} {kind} of {size / 1e6:.3f} MB"
                         for kind, (times, size) in found[case]["collectives"].items())
        print(f"{case}: {found[case]['kernels']:.0f} kernels, {found[case]['bytes'] / 1e9:.3f} GB, {sent or 'alone'}, "
              f"compiled in {found[case]['compile_seconds']:.0f} s", flush=True)
        return
    for name, each in CASES.items():
        if name not in found:
            environment = os.environ | {"RESJAX_DETERMINISTIC": str(int(each.deterministic))}
            subprocess.run([sys.executable, __file__, "--case", name], env=environment, check=True)


if __name__ == "__main__":
    tyro.cli(main)
