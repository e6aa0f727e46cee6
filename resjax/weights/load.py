"""Loads weights from a file, a folder, the package or the Hub, as a network for evaluation, fine-tuning and export."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

from resjax.experiment import Architecture
from resjax.models import VGG, ResNet
from resjax.models.families import Bare, StrideIn
from resjax.network import Network
from resjax.system.errors import BadInput, check
from resjax.system.files import expanded
from resjax.system.terminal import harmless, tell
from resjax.weights.configs import check_arch, read_config
from resjax.weights.convert import flip_colours, to_variables
from resjax.weights.files import INDEX, SUFFIXES, read_stored
from resjax.weights.hub import WEIGHTS, fetch, is_repository
from resjax.weights.infer_architecture import ends, head_kernel, infer_architecture
from resjax.weights.kinds import check_names, check_shapes, describe_folder
from resjax.weights.locate import Located, Tensors, canonical, find_prefixes, locate, without_wrappers
from resjax.weights.metadata import Metadata, PreprocessingEntry, data_of, known_classes, read_metadata, usual
from resjax.weights.model_card import resize_text
from resjax.weights.tensor_names import FAMILIES, Names
from resjax.weights.trained import find_trained, trained
from resjax.weights.vgg import canonical_vgg, describe_vgg, find_depth, to_vgg_variables

FILES = (*WEIGHTS, "model.keras", "model.weights.h5", "model.h5")  # the first of these that a folder contains is read


def load_weights(target: str | Path, *, stride_in: StrideIn | None = None, shortcut: Bare | None = None,
                 key: str | None = None) -> Network:
    """Load weights from a file, a folder or the Hugging Face Hub, or those of a named network that comes with resjax.

    `stride_in` and `shortcut` state facts that the tensors do not show. They are needed only if no description states
    these facts. `key` chooses one of several sets of weights in a file. A network without its last layer has 0 classes.
    Raises BadInput for anything that is missing, damaged, unknown or inconsistent.
    """
    for name, value, kind in (("stride_in", stride_in, StrideIn), ("shortcut", shortcut, Bare)):
        check(value in (None, *get_args(kind)), f"{name} is {value!r}; it must be one of {get_args(kind)}")
    path = expanded(target)
    if not path.exists():
        path = find_trained(str(target)) or path
    if not path.exists() and path.suffix not in SUFFIXES and is_repository(str(target)):
        path = fetch(str(target))
    check(not (path / "detector.json").is_file(), f"{target} is a detector; use resjax detect {target} IMAGE")
    file, known = find_weights(path)
    stored = read_stored(file, key)
    if known.architecture is None:
        known = replace(known, architecture=check_arch(stored.arch, str(file)))
    tensors = without_wrappers(stored.tensors, str(file))
    if not any(family.endswith("vgg") for family, _ in find_prefixes(tensors)):
        check_names(tensors, str(file))
    hints = Hints(stride_in, shortcut, stored.epsilons)
    return build_network(locate(tensors, str(file)), known, str(file), known.name or str(target), hints)


class Hints(NamedTuple):
    """Facts that tensors cannot show (see `load_weights`), and the epsilons of Keras's batch norms, by layer."""

    stride_in: StrideIn | None
    shortcut: Bare | None
    epsilons: Mapping[str, float]


def find_weights(path: Path) -> tuple[Path, Metadata]:
    """Find a weights file and its description, which is NAME.json, or config.json beside a repository's weights.

    Raises BadInput if the path contains neither a run nor weights.
    """
    file = path if not path.is_dir() else next((path / name for name in FILES if (path / name).is_file()), None)
    if file is None and (kind := describe_folder(path)):
        raise BadInput(f"{path}: {kind}")
    if file is None:
        raise BadInput(f"{path}: contains neither a run (experiment.json) nor weights ({' or '.join(FILES)})")
    if not file.is_file():
        raise BadInput(f"{path}: not found; a network is a run directory, a weights file or a folder with one, a name "
                       f"that comes with resjax ({', '.join(trained())}), or OWNER/NAME on the Hub, such as "
                       "timm/resnet50.a1_in1k")
    if beside(file).is_file() and beside(file) != file:
        return file, read_metadata(beside(file))
    is_described = file.name in FILES and (file.parent / "config.json").is_file()
    return file, read_config(file.parent) if is_described else Metadata()


def beside(file: Path) -> Path:
    """Return the path of the description of weights, which is NAME.json for NAME.safetensors and for its index."""
    return file.with_name(file.name.removesuffix(INDEX)).with_suffix(".json")


class Recognised(NamedTuple):
    """A network that matches the tensors, with its naming family, its image channels, and a function that fills it."""

    family: str
    architecture: Architecture
    model: ResNet | VGG
    channels: int
    fill: Callable[[], Any]


def build_network(located: Located, known: Metadata, source: str, name: str, unsaid: Hints) -> Network:
    """Build a network from tensors and their description."""
    recognised = (recognise_vgg(located, source) if located.family.endswith("vgg") else
                  recognise_resnet(located, known.architecture, source, unsaid))
    architecture, count = recognised.architecture, recognised.model.classes
    if known.architecture is not None and architecture.title() != known.architecture.title():
        raise BadInput(f"{source}: contains {architecture.title()}, but the description beside it says "
                       f"{known.architecture.title()}")
    variables = recognised.fill()  # filled first, so that inconsistent networks are refused before their preprocessing
    entry = known.preprocessing or presumed(recognised, source)
    preprocessing = entry.read(Path(source).parent, recognised.channels)
    if entry.channel_order == "BGR":
        variables = flip_colours(variables)
    classes = known_classes(known.classes, count)
    if classes and len(classes) != count and count:
        raise BadInput(f"{source}: its last layer has {count} classes, but the description beside it names "
                       f"{len(classes)}")
    return Network(name, architecture, data_of(architecture, preprocessing), classes if count else (), recognised.model,
                   variables, preprocessing)


def presumed(recognised: Recognised, source: str) -> PreprocessingEntry:
    """Return the usual preprocessing for such weights, and report it. Raises BadInput if none is known."""
    family, architecture = recognised.family, recognised.architecture
    if (known := usual(family, architecture.family, recognised.model.classes)) is None:
        raise BadInput(f"{source}: {FAMILIES[family].title} has no network like {architecture.title()}, so its "
                       f"preprocessing is unknown; describe it in {beside(Path(source))}, under \"preprocessing\"")
    whose, entry = known
    if len(entry.mean) != (channels := recognised.channels):
        raise BadInput(f"{source}: the number of image channels is {channels}, and no file states the preprocessing; "
                       f"write {beside(Path(source))}: {{\"preprocessing\": {{\"mean\": [{channels} numbers], "
                       "\"std\": [...], \"value_range\": 1.0, \"shorter_side\": 256}}")
    divided = f", std {entry.std}" if entry.std else ""
    tell(harmless(f"{source}: no file states the preprocessing; using that of {whose}: "
                  f"{entry.channel_order} from 0 to {entry.value_range:g}, mean {entry.mean}{divided}, "
                  f"{resize_text(entry)}"))
    return entry


def recognise_vgg(located: Located, source: str) -> Recognised:
    """Recognise a VGG network by its tensors."""
    family, tensors = canonical_vgg(located, source)
    depth = find_depth(family, tensors, source)
    architecture, model, channels = describe_vgg(tensors, family, depth, source)
    return Recognised(family, architecture, model, channels, partial(to_vgg_variables, tensors, family, model, source))


def recognise_resnet(located: Located, known: Architecture | None, source: str, unsaid: Hints) -> Recognised:
    """Recognise a plain or residual network by its tensors, description and hints."""
    check_shapes(located.own, source)
    names, stride_in, shortcut = FAMILIES[located.family], unsaid.stride_in, unsaid.shortcut
    tensors = canonical(located, source)
    if known is not None:
        stride_in = known.stride_in
        shortcut = "plain" if known.shortcut == "plain" else "A"
    elif located.family.startswith("keras"):
        stride_in = "1x1"  # v1 like the authors' networks, from which Keras's ResNet50, 101 and 152 derive
    epsilons = {value for layer, value in unsaid.epsilons.items() if f"{layer}/gamma" in located.own}
    check(len(epsilons) < 2, f"{source}: its batch norms have different epsilons, {sorted(epsilons)}; resjax needs a "
                             "single one")
    names = names._replace(epsilon=next(iter(epsilons), names.epsilon))
    architecture = infer_architecture(tensors, names, source, stride_in, shortcut)
    channels, count = ends(tensors, names, source)
    model = architecture.model(count)
    assert isinstance(model, ResNet)
    check_head(tensors, names, model, source)
    return Recognised(located.family, architecture, model, channels,
                      partial(to_variables, tensors, names, model, channels, source))


def check_head(tensors: Tensors, names: Names, model: ResNet, source: str) -> None:
    """Raise BadInput unless the last layer fits the last maps. The check precedes the allocation of a large layer."""
    features = model.filters * 2**(len(model.blocks) - 1) * (4 if model.block == "bottleneck" else 1)
    if (last := tensors.get(head_kernel(names))) is not None and last.size != features * model.classes:
        raise BadInput(f"{source}: {head_kernel(names)} has shape {last.shape}, but the last maps have {features} "
                       "channels")
