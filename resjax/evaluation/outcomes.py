"""The results of a network on images, such as errors, the confusion matrix, and the most confident mistakes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from resjax.system.files import expanded, write_csv

SHEET = 24  # number of mistakes in mistakes.png
NOTHING = -1  # the predicted class if probabilities are NaN


class ErrorRates(NamedTuple):
    """Top-1 and top-5 errors in percent, the mean cross-entropy, and the number of images."""

    top1_error: float
    top5_error: float
    loss: float
    images: int


class ClassErrors(NamedTuple):
    """The errors of one class: the number of images, the number of wrong predictions, the error in percent (None
    without images), the class most often predicted instead ("" without mistakes), and the number of such predictions.
    """

    name: str
    images: int
    wrong: int
    error: float | None
    taken_for: str
    times: int


class Mistake(NamedTuple):
    """A misclassified image: its index, true class, predicted class, and the probability of the prediction."""

    image: int
    true: int
    guessed: int
    probability: float


class Evaluation(NamedTuple):
    """Top-1 and top-5 errors in percent, the mean cross-entropy, the number of images, and the outputs for each image.

    `classes` are the class names. `log_probabilities` are `[images, classes]`, and `labels`, the true classes, are
    `[images]`. `pixels_of` returns the pixels of an image, given its index.
    """

    top1_error: float
    top5_error: float
    loss: float
    images: int
    classes: tuple[str, ...]
    log_probabilities: np.ndarray
    labels: np.ndarray
    pixels_of: Callable[[int], np.ndarray]

    def __repr__(self) -> str:
        return (f"Evaluation(top1_error={self.top1_error:.2f}, top5_error={self.top5_error:.2f}, loss={self.loss:.4f}, "
                f"images={self.images})")

    @property
    def rates(self) -> ErrorRates:
        """The errors, without the outputs for each image."""
        return ErrorRates(*self[:4])

    @property
    def guesses(self) -> np.ndarray:
        """The most likely class of each image, `[images]`, the first one for ties; -1 if probabilities are NaN."""
        broken = np.isnan(self.log_probabilities).any(1)
        return np.where(broken, NOTHING, self.log_probabilities.argmax(1))

    @property
    def confusion(self) -> np.ndarray:
        """The number of images of each true class (rows) per predicted class (columns): `[classes, classes]`.

        Images whose probabilities are NaN are left out here, although they count as errors.
        """
        counts = np.zeros((len(self.classes),) * 2, np.int64)
        guesses = self.guesses
        np.add.at(counts, (self.labels[guesses != NOTHING], guesses[guesses != NOTHING]), 1)
        return counts

    @property
    def class_errors(self) -> tuple[ClassErrors, ...]:
        """The errors of each class."""
        others, errors = self.confusion, []
        images = np.bincount(self.labels, minlength=len(self.classes))
        wrong = images - others.diagonal()
        np.fill_diagonal(others, 0)
        for place, name in enumerate(self.classes):
            most = int(others[place].argmax())
            times = int(others[place, most])
            error = 100 * int(wrong[place]) / int(images[place]) if images[place] else None
            errors.append(ClassErrors(name, int(images[place]), int(wrong[place]), error,
                                     self.classes[most] if times else "", times))
        return tuple(errors)

    def mistakes(self, most: int | None = None) -> list[Mistake]:
        """List the misclassified images, the most confident first, or only the first `most` of them."""
        guesses = self.guesses
        wrong = np.flatnonzero((guesses != self.labels) & (guesses != NOTHING))
        parts = np.exp(self.log_probabilities[wrong, guesses[wrong]])
        order = np.argsort(-parts, kind="stable")[:most]
        return [Mistake(int(wrong[i]), int(self.labels[wrong[i]]), int(guesses[wrong[i]]), float(parts[i]))
                for i in order]

    def save(self, folder: str | Path) -> list[Path]:
        """Write `confusion.csv`, `classes.csv`, `mistakes.csv` and the figures `confusion.png` and `mistakes.png`.

        Returns the paths of the files. `mistakes.png` is written only if there are mistakes.
        """
        from resjax.evaluation.drawings import cut_name, draw_confusion, draw_sheet  # imported on demand

        folder, mistakes = expanded(folder), self.mistakes()
        folder.mkdir(parents=True, exist_ok=True)
        names = ("confusion.csv", "classes.csv", "mistakes.csv", "confusion.png", "mistakes.png")
        files = [folder / name for name in names[:5 if mistakes else 4]]
        write_csv(files[0], ("true", *self.classes), (
            (name, *row) for name, row in zip(self.classes, self.confusion.tolist(), strict=True)))
        write_csv(files[1], ("class", *ClassErrors._fields[1:]), self.class_errors)
        write_csv(files[2], Mistake._fields, (
            (image, self.classes[true], self.classes[guessed], part) for image, true, guessed, part in mistakes))
        draw_confusion(self.confusion, self.classes, f"{self.top1_error:.2f} % of {self.images:,} images are wrong",
                       files[3])
        (folder / names[4]).unlink(missing_ok=True)  # left from another network
        if mistakes:
            draw_sheet([(self.pixels_of(image), f"{cut_name(self.classes[true])}, predicted as\n"
                         f"{cut_name(self.classes[guessed])}, {100 * part:.1f} %")
                        for image, true, guessed, part in mistakes[:SHEET]], files[4])
        return files


def evaluation(log_probabilities: np.ndarray, labels: Any, classes: Sequence[str],
               pixels_of: Callable[[int], np.ndarray]) -> Evaluation:
    """Evaluate log probabilities `[images, classes]` against the true classes `[images]`."""
    true = np.asarray(labels)
    return Evaluation(*error_rates(log_probabilities, true), tuple(classes), log_probabilities, true, pixels_of)


def error_rates(log_probabilities: np.ndarray, labels: np.ndarray) -> ErrorRates:
    """Compute the errors of log probabilities `[images, classes]` against the true classes `[images]`.

    A prediction is correct within the top k if fewer than k classes are more likely than the true class. Of equally
    likely classes, the earlier one ranks higher. With fewer than five classes, all of them are the "top 5". An image
    whose probabilities are NaN counts as wrong.
    """
    images, classes = log_probabilities.shape
    true = log_probabilities[np.arange(images), labels][:, None]
    earlier = np.arange(classes) < labels[:, None]
    likelier = ((log_probabilities > true) | ((log_probabilities == true) & earlier)).sum(1)
    likelier = np.where(np.isnan(log_probabilities).any(1), max(5, classes), likelier)
    return ErrorRates(100 * float((likelier >= 1).mean()), 100 * float((likelier >= 5).mean()),
                      float(-true.astype(np.float64).mean()), images)
