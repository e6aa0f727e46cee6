"""Files written by Keras, and Keras's logits after its documented preprocessing (`load_img`, `preprocess_input`)."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from peers import Case, Logits

Make = Callable[[Path], Case]


def seen_by(model: Any) -> Logits:
    def logits(files: Sequence[Path]) -> np.ndarray:
        pictures = np.stack([keras.utils.img_to_array(keras.utils.load_img(file, target_size=(224, 224)))
                             for file in files])
        return np.asarray(model(keras.applications.resnet50.preprocess_input(pictures), training=False))

    return logits


def randomized(model: Any) -> Any:
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            randomized(layer)
        elif type(layer).__name__ == "BatchNormalization":
            gamma, beta, mean, variance = layer.get_weights()
            layer.set_weights([random.uniform(0.5, 1, gamma.shape), random.normal(0, 0.2, beta.shape),
                               random.normal(0, 0.2, mean.shape), random.uniform(0.5, 1.5, variance.shape)])
    return model


def network(name: str = "ResNet50", **settings: Any) -> Any:
    keras.utils.set_random_seed(0)
    build = getattr(keras.applications, name)
    top = {} if settings.get("include_top") is False else {"classifier_activation": None}
    return randomized(build(weights=None, **top, **settings))


def whole(file: str, name: str = "ResNet50", **settings: Any) -> Make:
    def make(folder: Path) -> Case:
        model = network(name, **settings)
        (model.save_weights if ".weights." in file else model.save)(folder / file)
        return Case(folder / file, seen_by(model))

    return make


def based(file: str, nested: bool, name: str = "ResNet50", bias: bool = True, **beside: Any) -> Make:
    """Return a custom classifier on a network without top, which is nested as one layer or part of the same graph."""
    def make(folder: Path) -> Case:
        base = network(name, include_top=False, input_shape=(224, 224, 3))
        image = keras.Input((224, 224, 3))
        maps = base(image) if nested else base.output
        pooled = keras.layers.GlobalAveragePooling2D()(maps)
        scores = keras.layers.Dense(7, use_bias=bias, name="scores")(keras.layers.Dropout(0.2)(pooled))
        model = keras.Model(image if nested else base.input, scores)
        (model.save_weights if ".weights." in file else model.save)(folder / file)
        return Case(folder / file, seen_by(model))

    return make


def pooled(name: str, file: str) -> Make:
    def make(folder: Path) -> Case:
        model = network(name, include_top=False, pooling="avg", input_shape=(224, 224, 3))
        model.save(folder / file)
        return Case(folder / file, seen_by(model))

    return make


def cases() -> Iterator[tuple[str, Make]]:
    for file in ("a.keras", "a.weights.h5", "a.h5"):
        yield f"Keras, ResNet50, {file[1:]}", whole(file, classes=10)
        yield f"Keras, nested base, {file[1:]}", based(file, nested=True)
    yield "Keras, ResNet50 of 1000 classes", whole("a.keras")
    yield "Keras, ResNet101", whole("a.keras", "ResNet101", classes=10)
    yield "Keras, own Dense", based("a.keras", nested=False)
    yield "Keras, own Dense without bias", based("a.keras", nested=False, bias=False)
    yield "Keras, ResNet50 without top", pooled("ResNet50", "a.keras")
    yield "Keras, VGG16", whole("a.keras", "VGG16", classes=10)
    yield "Keras, VGG16 without top", pooled("VGG16", "a.keras")
    yield "Keras, VGG16 without top, nested, .h5", based("a.h5", nested=True, name="VGG16")
