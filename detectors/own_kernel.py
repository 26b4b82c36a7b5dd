"""Kernels of a user's own: found by their name, checked when they are fitted, recognised when they are loaded."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from detectors.base import Array
from detectors.distances import project
from detectors.kernels import BUILT_IN
from govern import plugins
from govern.errors import ArtifactError, BadInput, ConfigError

Floats = npt.NDArray[np.float64]

#: Rows of the reference that a kernel is checked on: their eigenvalues take milliseconds.
_CHECKED: Final = 200
#: And those by which it is recognised when it is loaded.
_KNOWN: Final = 16
#: In units of the largest value or eigenvalue: what rounding explains, also in a kernel that computes in float32.
_ROUNDING: Final = 1e-6
#: Rows of the reference that an online detector describes others by, and the most of it that they may take.
_LANDMARKS: Final = 128
_LARGEST_SHARE: Final = 0.25
#: An eigenvalue so much smaller than the largest is rounding, and would be divided by.
_NEGLIGIBLE: Final = 1e-9


class OwnKernel:
    """A function k(x (n, D) float64, y (m, D) float64) -> (n, m) float64, which may not write to what it is given.

    Args:
        name: `package.module:function`.
        method: of the detector, for messages.

    Raises:
        ConfigError: there is no such function, or it is one of Python's own modules.
    """

    def __init__(self, name: str, *, method: str) -> None:
        where = f"{method}: kernel {name}"
        # An artifact names its kernel, and nothing that came with a file is to start a program.
        if name.partition(":")[0].partition(".")[0] in sys.stdlib_module_names:
            raise ConfigError(
                where, why="it is in one of Python's own modules, which hold no kernels", fix="correct it"
            )
        self._function = plugins.function(name, where=where)
        self._where = where

    def __call__(self, x: Floats, y: Floats) -> Floats:
        """(n, m).

        Raises:
            BadInput: the function fails, or gives something else.
        """
        try:
            found = self._function(_locked(x), _locked(y))
        except Exception as error:
            why = f"it raised {type(error).__name__}: {error}"
            raise self._refused(why, "correct the function") from error
        try:
            values = np.array(found, dtype=np.float64, order="C")
        except (TypeError, ValueError) as error:
            raise self._refused(f"it returned {type(found).__name__}", "return an array of numbers") from error
        if values.shape != (len(x), len(y)):
            why = f"of {len(x)} rows and {len(y)} rows it made an array of shape {values.shape}"
            raise self._refused(why, "return one number for each pair: (n, m)")
        if not np.isfinite(values).all():
            raise self._refused("it gave infinite or undefined numbers", "let it bear any finite rows")
        return values

    def beside(self, reference: Floats) -> Callable[[Floats], Floats]:
        return lambda points: self(points, reference)

    def check(self, points: Floats) -> None:
        """Whether tests of means can be made of it.

        Its matrix must be positive semidefinite on weights that sum to zero, which the difference of two means is: so
        minus a distance is a kernel, too (Sejdinovic, Sriperumbudur, Gretton, Fukumizu, 2013: Equivalence of
        distance-based and RKHS-based statistics in hypothesis testing. Ann. Statist. 41, 2263-2291).

        Args:
            points: (n, D), in random order.

        Raises:
            BadInput: it says another thing when called again, depends on the other rows of a call, is not symmetric,
                not positive semidefinite, or says the same of all.
        """
        few = points[:_CHECKED]
        whole = self(few, few)
        slack = _ROUNDING * float(np.abs(whole).max())
        if not np.array_equal(whole, self(few, few)):
            raise self._refused("called again with the same rows, it gave other numbers", "draw nothing at random")
        half = len(few) // 2
        if np.abs(self(few[:half], few[half:]) - whole[:half, half:]).max() > slack:
            why = "the number of a pair depends on which other rows are in the call"
            raise self._refused(why, "take widths and the like from constants: rows are standardised already")
        if np.abs(whole - whole.T).max() > slack:
            raise self._refused("k(x, y) is not k(y, x)", "make it symmetric")
        sizes = np.linalg.eigvalsh(_centred(whole, whole.mean(axis=0), float(whole.mean())))
        if sizes[-1] <= slack:
            raise self._refused("it gives all pairs of the reference's rows one number", "let it tell rows apart")
        if sizes[0] < -_ROUNDING * sizes[-1]:
            why = (
                f"over {len(few)} rows of the reference its matrix, centred, has an eigenvalue of {sizes[0]:.3g} "
                f"beside {sizes[-1]:.3g}, so a discrepancy might be less than that of equal samples"
            )
            raise self._refused(why, "use a positive semidefinite function, or minus a distance")

    def known_by(self, points: Floats) -> Floats:
        """(k, k) values on the first of these points."""
        few = points[:_KNOWN]
        return self(few, few)

    def recognise(self, points: Floats, known: Array) -> None:
        """Raise ArtifactError unless it is, up to rounding, the function that gave `known_by` of the same points."""
        found = self.known_by(points)
        scale = float(np.abs(found).max())
        if known.shape == found.shape and np.abs(found - known).max() <= _ROUNDING * scale:
            return
        raise ArtifactError(
            f"{self._where}: it is not the function that the artifact was fitted with",
            why=f"it gives other numbers for the first {len(found)} rows of the reference",
            fix="fit the step again with `govern fit`, or install the package's version of that time",
        )

    def _refused(self, why: str, fix: str) -> BadInput:
        return BadInput(self._where, why=why, fix=fix)


class LandmarkFeatures:
    """Coordinates whose products are a kernel's, exactly between landmarks, nearly elsewhere (Nyström).

    Rows are asked about one at a time: what a matrix product says of a row may depend, in its last bits, on how many
    others there are, and a stream may be cut anyhow.

    Args:
        kernel: checked.
        landmarks: (c, D).

    References:
        Williams, Seeger (2001): Using the Nyström method to speed up kernel machines. NeurIPS 13.
    """

    def __init__(self, kernel: OwnKernel, landmarks: Floats) -> None:
        self._kernel = kernel
        self._landmarks = landmarks
        among = self._beside(landmarks)
        self._means, self._mean = among.mean(axis=0), float(among.mean())
        # Centred, it is positive semidefinite where minus a distance is not, and tells means apart as before.
        centred = _centred(among, self._means, self._mean)
        sizes, axes = np.linalg.eigh((centred + centred.T) / 2)
        kept = sizes > _NEGLIGIBLE * sizes[-1]
        self._axes = np.ascontiguousarray(axes[:, kept] / np.sqrt(sizes[kept]))

    def of(self, points: Floats) -> Floats:
        """(n, D) -> (n, at most c)."""
        return project(_centred(self._beside(points), self._means, self._mean), self._axes)

    def _beside(self, points: Floats) -> Floats:
        if not len(points):
            return np.empty((0, len(self._landmarks)))
        return np.concatenate([self._kernel(points[row : row + 1], self._landmarks) for row in range(len(points))])


def landmarks_of(reference: Floats) -> int:
    """How many of its first rows become landmarks."""
    return min(_LANDMARKS, int(_LARGEST_SHARE * len(reference)))


def stored_of(kernel: str, points: Floats, *, method: str) -> dict[str, Array]:
    """What is kept of a kernel, checked on these points of the reference: of a built-in one, nothing.

    Raises:
        BadInput: it is no kernel.
        ConfigError: there is no such function.
    """
    if not is_own(kernel):
        return {}
    own = OwnKernel(kernel, method=method)
    own.check(points)
    return {"kernel": own.known_by(points)}


def recognised(kernel: str, points: Floats, stored: Mapping[str, Array], *, method: str) -> OwnKernel:
    """The user's kernel, of which `stored_of` the same points is `stored`.

    Raises:
        ArtifactError: it is another one.
        ConfigError: there is no such function.
    """
    own = OwnKernel(kernel, method=method)
    own.recognise(points, stored.get("kernel", np.empty(0)))
    return own


def is_own(kernel: str) -> bool:
    """Whether a parameter that `require_kernel` let pass names a function of the user's."""
    return kernel not in BUILT_IN


def _centred(values: Floats, means: Floats, mean: float) -> Floats:
    return np.asarray(values - values.mean(axis=1, keepdims=True) - means + mean)


def _locked(rows: Floats) -> Floats:
    seen = rows.view()
    seen.setflags(write=False)
    return seen
