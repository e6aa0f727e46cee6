"""A detector's run, from top to bottom: images, state, steps, average precision, checkpoints, result."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from signal import Signals
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from orbax.checkpoint import CheckpointManager

from resjax.detection.annotations import AnnotatedImages
from resjax.detection.average_precision import average_precisions, mean_average_precision
from resjax.detection.coco_metric import check_installed, coco_precision
from resjax.detection.config import Detection
from resjax.detection.evaluate import TrainedDetector, find_all
from resjax.detection.images import Batch, Batches, open_annotated
from resjax.detection.initialize import Weights, initial_weights, start_from
from resjax.detection.log import DetectionLog, LossSums
from resjax.detection.networks import FasterRCNN
from resjax.detection.run_files import check_same_run, read_finished, write_detection
from resjax.detection.step import draw_onto, optimizer_of, train_step
from resjax.distributed import batch_sharding, replicated
from resjax.errors import Diverged, Interrupted, check
from resjax.files import write_json
from resjax.interrupt import requested, requests, stop_requests
from resjax.platform import keep_compiled_programs
from resjax.training.checkpoint import checkpoints, restore_latest, save
from resjax.training.log import Stopwatch, rewind_metrics
from resjax.training.run_directory import claimed, environment
from resjax.training.step import TrainState, state_digest


class Run(NamedTuple):
    """What does not change while a detector trains."""

    detection: Detection
    batches: Batches
    test: AnnotatedImages
    model: FasterRCNN
    optimizer: optax.GradientTransformationExtraArgs
    manager: CheckpointManager
    log: DetectionLog


def train_detector(detection: Detection, run_directory: str | Path,
                   devices: Sequence[jax.Device] | None = None) -> dict[str, Any]:
    """Train, or go on where the last process stopped; return what `result.json` holds.

    Raises BadInput for wrong data or a run directory that is not this run's, Diverged where the loss is no longer
    finite, Interrupted after Ctrl-C, SIGTERM or SIGHUP with the state saved, OSError where the disk is full.
    """
    devices, folder = devices or jax.devices(), Path(run_directory)
    check(detection.batch_size % len(devices) == 0,
          f"batch-size {detection.batch_size} does not divide over {len(devices)} devices")
    keep_compiled_programs()
    log = DetectionLog(folder, f"{detection.name} seed {detection.seed}", detection.steps, detection.batch_size)
    with log.doing("loading"), stop_requests(), claimed(folder, detection):  # type: ignore[arg-type]  # it compares only where both are Experiments
        check_same_run(folder, detection)
        if result := read_finished(folder):
            return result
        if detection.data.source.startswith("coco:"):
            check_installed()  # now, and not when the run is over
        images = open_annotated(detection.data, train=True)
        test = open_annotated(detection.data, train=False, classes=images.classes)
        for text in (*images.left_out, *test.left_out):
            log.tell(text)
        model, optimizer = FasterRCNN(detection.detector, len(images.classes)), optimizer_of(detection)
        with checkpoints(folder, clear=True) as manager:
            weights = initial_weights(detection, images)
            batches = Batches(images, detection.data, detection.batch_size, detection.seed, weights.mean.reshape(3))
            run = Run(detection, batches, test, model, optimizer, manager, log)
            with log.doing("initializing"):
                state, sums = restore_or_draw(run, devices, weights)
            with requests(held=True):
                state, sums = make_steps(run, state, sums, devices)
                keep(run, state, sums)
            with log.doing("saving"):
                manager.wait_until_finished()
            result = finish(run, state, sums) | environment(devices)
            write_json(folder / "result.json", result)
            return result


def restore_or_draw(run: Run, devices: Sequence[jax.Device], weights: Weights) -> tuple[TrainState, LossSums]:
    """Restore a run's newest state, or draw its first, with the weights it starts from."""
    detection, log = run.detection, run.log
    mean = weights.mean
    first = draw_onto(replicated(batch_sharding(devices)), run.model, run.optimizer, mean, detection.seed)
    restored = restore_latest(run.manager, first)
    state, meta = restored or (start_from(weights, first), {"sums": {}})
    write_detection(log.run_directory, detection, run.batches.images.classes, devices)
    rewind_metrics(log, int(state.step))
    if int(state.step):
        log.tell(f"goes on from step {int(state.step)}")
    return state, LossSums(**meta["sums"])


def make_steps(run: Run, state: TrainState, sums: LossSums,
               devices: Sequence[jax.Device]) -> tuple[TrainState, LossSums]:
    """Make the steps that are left; log, measure, save and stop on the way.

    The losses of a step are fetched when the next one is under way, so that the devices never wait for the host.
    """
    detection, step, pending, compiled, watch = run.detection, int(state.step), None, {}, Stopwatch()
    with placed_batches(run, range(step, detection.steps), devices) as batches, run.log.training():
        for batch in watch.waits(batches):
            if (size := batch.images.shape[1:3]) not in compiled:
                with watch.stopped():
                    compiled[size] = compile_step(run, step, state, batch)
            state, losses = compiled[size](state, batch)
            if pending is not None:
                sums = add_losses(run, step, sums, pending, watch)
            step, pending = step + 1, losses
            stop = requested()
            if stop or any(step % steps == 0 for steps in (detection.evaluate_steps, detection.checkpoint_steps)):
                sums, pending = add_losses(run, step, sums, pending, watch), None
                if step < detection.steps:
                    with watch.stopped():
                        pause(run, state, sums, stop)
    return state, sums if pending is None else add_losses(run, step, sums, pending, watch)


def compile_step(run: Run, step: int, state: TrainState, batch: Batch) -> Any:
    """Compile the step for images of one padded size, and tell how long it took; the state stays where it lies."""
    watch = Stopwatch()
    update = partial(train_step, run.model, run.optimizer, run.detection)
    with run.log.doing("compiling"):
        compiled = jax.jit(update, donate_argnums=0, out_shardings=state.step.sharding).lower(state, batch).compile()
    run.log.record({"step": step, "kind": "compile", "seconds": watch.lap()[0]})
    return compiled


@contextmanager
def placed_batches(run: Run, steps: range, devices: Sequence[jax.Device]) -> Iterator[Iterator[Batch]]:
    """Open the batches of some steps, each copied to the devices while they are busy with the step before it."""
    sharding = batch_sharding(devices)
    with closing(run.batches.steps(steps)) as batches:
        yield (jax.device_put(batch, sharding) for batch in batches)


def add_losses(run: Run, step: int, sums: LossSums, losses: Any, watch: Stopwatch) -> LossSums:
    """Add the losses of the step that ended at `step`, and tell them. Raises Diverged where they are not finite."""
    losses = jax.device_get(losses)
    if not np.isfinite(losses.total):
        raise Diverged(f"the loss is {losses.total} at step {step}; the checkpoints before it are kept in "
                       f"{run.log.run_directory}")
    sums = sums.plus(losses, *watch.lap())
    line = sums.line(step, float(losses.learning_rate), run.detection.batch_size)
    if step % run.detection.log_steps == 0 or step == run.detection.steps:
        run.log.record(line)
        return sums.emptied()
    run.log.glance(line)
    return sums


def pause(run: Run, state: TrainState, sums: LossSums, stop: int) -> None:
    """Measure and save between two steps where it is time to. Raises Interrupted where somebody asked to stop."""
    detection, step = run.detection, int(state.step)
    if step % detection.evaluate_steps == 0 and not stop:
        try:
            with requests(held=False):
                measure(run, state)
        except Interrupted as request:
            stop = request.signal
    if stop:
        if run.manager.latest_step() != step:
            keep(run, state, sums)
            run.manager.wait_until_finished()
        raise Interrupted(f"{Signals(stop).name}: saved step {step} of {detection.steps} in {run.log.run_directory}; "
                          "the same command goes on from there", stop)
    if step % detection.checkpoint_steps == 0:
        keep(run, state, sums)


def keep(run: Run, state: TrainState, sums: LossSums) -> None:
    """Begin to save the state and what belongs to it."""
    save(run.manager, state, {"sums": vars(sums)})


def measure(run: Run, state: TrainState) -> dict[str, Any]:
    """Measure the average precision on the test images, record and return it: by area, and by 11 points."""
    classes, detection = run.test.classes, run.detection
    variables, mean = jax.device_get((state.variables, state.mean))
    found = find_all(TrainedDetector(detection, classes, run.model, variables, mean), run.test, detection.batch_size)
    by_area, by_points = (average_precisions(run.test.records, found, len(classes), rule)
                          for rule in ("area", "11-point"))
    line = {"step": int(state.step), "kind": "detection", "mean_average_precision": mean_average_precision(by_area),
            "eleven_point": mean_average_precision(by_points),
            "average_precision": {name: None if np.isnan(value) else float(value)
                                  for name, value in zip(classes, by_area, strict=True)}}
    if detection.data.source.startswith("coco:"):
        measured = coco_precision(run.test.records, found, classes)._asdict()
        line |= {f"coco_{key}": None if np.isnan(value) else value for key, value in measured.items()}
    run.log.record(line)
    return line


def finish(run: Run, state: TrainState, sums: LossSums) -> dict[str, Any]:
    """Measure the last state and gather what the run came to."""
    detection = run.detection
    measured = {key: value for key, value in measure(run, state).items() if key not in ("step", "kind")}
    return {"name": detection.name, "seed": detection.seed, "steps": detection.steps,
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)), **measured,
            "train_seconds": sums.total_seconds,
            "images_per_second": detection.steps * detection.batch_size / max(sums.total_seconds, 1e-9),
            "state_digest": state_digest(state)}
