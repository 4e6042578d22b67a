"""Linear time-invariant systems: the impulse response, true convolution, and filters for signals and images.

A system is anything that makes a signal of a signal. If it is linear and time-invariant, its answer to one impulse,
h, says its answer to everything: x is a sum of shifted impulses, so the output is the same sum of shifted h,

    y[n] = Σ_k x[k] h[n - k] = (x * h)[n]        y(t) = ∫ x(τ) h(t - τ) dτ

Networks compute the cross-correlation Σ_k x[n + k] h[k] and call it convolution: the same without the flip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pellucid.errors import DataError, ParameterError, ShapeError, unknown

if TYPE_CHECKING:
    from pellucid.network.sequential import Sequential

System = Callable[[np.ndarray], np.ndarray]
Mode = Literal["full", "same", "valid"]
Border = Literal["zero", "reflect"]


@dataclass(frozen=True)
class Measured:
    """Whether a system has a property, as far as random signals can say; true or false by itself.

    Attributes:
        holds: the error is within the tolerance.
        error: the largest difference between the two sides, relative to the largest value among them.
        tolerance: the largest error that passes.
        said: the property as an equation, and what was tried.
    """

    holds: bool
    error: float
    tolerance: float
    said: str

    def __bool__(self) -> bool:
        return self.holds

    def __str__(self) -> str:
        return f"{'yes' if self.holds else 'no'}: {self.said}; largest relative error {self.error:.1e}"


def impulse_response(system: System, length: int | Sequence[int], *, at: int | Sequence[int] = 0) -> np.ndarray:
    """The system's answer h to the impulse: 1 at one place, 0 everywhere else.

    Arguments:
        system: takes a float64 array and returns one.
        length: samples of the signal; (height, width) for an image.
        at: where the impulse is. The first place suits systems that look only back; the middle shows the others whole.

    Returns:
        what the system makes of the impulse.

    Raises:
        ParameterError: a length below 1, or the impulse outside it.
        ShapeError, DataError: the system returned something that is no such signal.
    """
    shape = _shape(length, "impulse_response")
    place = (at,) * len(shape) if isinstance(at, (int, np.integer)) else tuple(at)
    if len(place) != len(shape) or not all(0 <= i < n for i, n in zip(place, shape, strict=True)):
        raise ParameterError("the impulse lies outside the signal", expected=f"at within {shape}", got=at)
    impulse = np.zeros(shape)
    impulse[place] = 1.0
    return _answer(system, impulse)


def is_linear(
    system: System, *, length: int | Sequence[int] = 60, trials: int = 8, tolerance: float = 1e-9, seed: int = 0
) -> Measured:
    """Whether S(a x + b z) = a S(x) + b S(z), tried on random signals and factors in float64.

    Arguments:
        system: takes a float64 array and returns one.
        length: samples of the signals; (height, width) for images.
        trials: pairs of signals.
        tolerance: the relative error that still passes.
        seed: of the signals.

    Returns:
        a `Measured`, true where it holds. One failure disproves; passing is evidence, not proof.

    Raises:
        ParameterError, ShapeError, DataError: as `impulse_response`.
    """
    shape, rng = _shape(length, "is_linear"), np.random.default_rng(seed)
    error = 0.0
    for _ in range(trials):
        x, z = rng.normal(size=(2, *shape))
        a, b = rng.normal(size=2)
        whole, of_x, of_z = (_answer(system, each) for each in (a * x + b * z, x, z))
        error = max(error, _difference(whole, a * of_x + b * of_z) if of_x.shape == of_z.shape else 1.0)
    said = f"S(a x + b z) = a S(x) + b S(z) on {trials} random pairs of shape {shape}"
    return Measured(error <= tolerance, error, tolerance, said)


def is_time_invariant(
    system: System, *, length: int | Sequence[int] = 60, trials: int = 8, tolerance: float = 1e-9, seed: int = 0
) -> Measured:
    """Whether a signal that comes k samples later is answered k samples later, tried on random signals in float64.

    The signals are zero in their outer thirds and are shifted by up to a sixth, so that nothing leaves the window; take
    a greater length for a system whose answer reaches further than a third of it before the signal.

    Arguments, Returns, Raises: as `is_linear`; a length is 6 or more.
    """
    shape, rng = _shape(length, "is_time_invariant", least=6), np.random.default_rng(seed)
    middle = tuple(slice(n // 3, n - n // 3) for n in shape)
    error = 0.0
    for trial in range(trials):
        x = np.zeros(shape)
        x[middle] = rng.normal(size=x[middle].shape)
        # Shifts of one first: a system that treats every second sample alike passes shifts of two.
        shifts = [1 if trial == 0 else int(rng.integers(1, n // 6 + 1)) for n in shape]
        later, now = _answer(system, np.roll(x, shifts, axis=tuple(range(x.ndim)))), _answer(system, x)
        behind = tuple(slice(k, None) for k in shifts)
        before = tuple(slice(None, n - k) for n, k in zip(now.shape, shifts, strict=True))
        error = max(error, _difference(later[behind], now[before]))
    said = f"S(x[n - k]) = S(x)[n - k] on {trials} random signals of shape {shape}"
    return Measured(error <= tolerance, error, tolerance, said)


def convolve(x: Any, h: Any, mode: Mode = "full", *, dt: float | Sequence[float] = 1.0) -> np.ndarray:
    """True convolution in one or two dimensions: flip, shift, multiply, sum.

        y[n] = Σ_k x[k] h[n - k] dt        y[i, j] = Σ_k,l x[k, l] h[i - k, j - l] dt

    With ``dt`` the sampling step, y approximates the integral y(t) = ∫ x(τ) h(t - τ) dτ; x sampled from t₀ and h from
    t₁ give y from t₀ + t₁. The error of this sum falls with dt, or faster where x and h are smooth and vanish at their
    ends. The sum is done tap by tap of h, so h should be the shorter of the two.

    Arguments:
        x: the signal (n,) or image (H, W).
        h: the impulse response (k,) or kernel (k, l), of as many dimensions.
        mode: ``"full"`` every place where they touch, n + k - 1; ``"same"`` the middle of it, of x's size;
            ``"valid"`` where one lies inside the other, n - k + 1.
        dt: sampling step, in the unit of t; one number or one for each axis.

    Returns:
        y, in float64 unless x and h are float32 (or complex).

    Raises:
        ShapeError: other than one or two dimensions, empty, or for ``"valid"`` neither inside the other.
        DataError: values that are not finite numbers.
        ParameterError: an unknown mode.
    """
    x, h = _pair(x, h, "convolve")
    if mode == "valid" and all(n <= k for n, k in zip(x.shape, h.shape, strict=True)):
        x, h = h, x  # x * h = h * x
    return _slide(x, np.flip(h), _reach(x, h, mode, "convolve")) * float(np.prod(dt))


def correlate(x: Any, h: Any, mode: Mode = "full") -> np.ndarray:
    """Cross-correlation, which networks call convolution: shift, multiply, sum, without the flip.

        y[n] = Σ_k x[n + k] h[k] = (x * flipped h)[n]          (of a complex h its conjugate)

    It says how much x looks like h at each place; it does not commute, and the impulse is answered by h backwards. The
    two agree where h is its own mirror image, such as a Gaussian; a Sobel filter's sign turns.

    Arguments, Returns, Raises: as `convolve`.
    """
    x, h = _pair(x, h, "correlate")
    return _slide(x, h.conj(), _reach(x, h, mode, "correlate"))


# --- filters --------------------------------------------------------------------------------------------------------


def gaussian(sigma: float, radius: int | None = None, *, axes: int = 1) -> np.ndarray:
    """Weights of a Gaussian e^(-n² / 2σ²), n = -radius … radius, that sum to 1.

    In two dimensions it is the product of two in one, so filtering rows and then columns does the same with 2 k
    multiplications for each pixel instead of k²: give `filter_image` the one-dimensional weights.

    Arguments:
        sigma: σ, in samples or pixels.
        radius: where it is cut off; 4 σ, rounded, when not given.
        axes: 1 for (k,), 2 for (k, k), with k = 2 radius + 1.

    Raises:
        ParameterError: σ not above 0, a negative radius, or other axes.
    """
    if not (isinstance(sigma, (int, float)) and 0 < sigma < math.inf):
        raise ParameterError("sigma is a number above 0", where="gaussian", got=repr(sigma))
    radius = int(4 * sigma + 0.5) if radius is None else radius
    if not isinstance(radius, (int, np.integer)) or radius < 0 or axes not in (1, 2):
        raise ParameterError("radius ≥ 0 and 1 or 2 axes", where="gaussian", got=f"radius={radius!r}, axes={axes!r}")
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    return weights if axes == 1 else np.outer(weights, weights)


def sobel(axis: int) -> np.ndarray:
    """The kernel (3, 3) whose convolution is 8 times the slope along an axis, smoothed across it by [1 2 1].

    Arguments:
        axis: 0 for the slope downwards (horizontal edges), 1 for the slope to the right (vertical edges).

    Raises:
        ParameterError: another axis.

    Source: Sobel and Feldman 1968. Positive where brightness grows; correlation would turn the sign.
    """
    return _slope([1.0, 2.0, 1.0], axis, "sobel")


def prewitt(axis: int) -> np.ndarray:
    """As `sobel`, smoothed across the axis by [1 1 1]: 6 times the slope.

    Source: Prewitt 1970.
    """
    return _slope([1.0, 1.0, 1.0], axis, "prewitt")


def laplacian(*, diagonal: bool = False) -> np.ndarray:
    """The kernel (3, 3) of ∂²/∂x² + ∂²/∂y²: the sum of a pixel's neighbours less as many times itself.

    Arguments:
        diagonal: True counts the four diagonal neighbours too.
    """
    kernel = np.ones((3, 3)) if diagonal else np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    kernel[1, 1] = -8.0 if diagonal else -4.0
    return kernel


def filter_image(image: Any, kernel: Any, border: Border = "reflect") -> np.ndarray:
    """True convolution of every channel with a kernel, the image's size kept.

    Arguments:
        image: (…, H, W): one image, or channels or images of them.
        kernel: (k, l); or (k,) for a separable filter, which is used along the columns and then along the rows.
        border: what lies outside: ``"zero"``, or ``"reflect"`` the image mirrored at its edge, d c b a | a b c d.

    Returns:
        the filtered image, of the same shape.

    Raises:
        ShapeError, DataError, ParameterError: as `convolve`; an unknown border.
    """
    pads = {"zero": "constant", "reflect": "symmetric"}
    if border not in pads:
        raise unknown("border", border, pads, where="filter_image")
    image, kernel = _numbers(image, "image"), _numbers(kernel, "kernel")
    if image.ndim < 2 or kernel.ndim not in (1, 2) or not image.size or not kernel.size:
        raise ShapeError(
            "takes images and a kernel",
            where="filter_image",
            expected="(…, H, W) and (k, l) or (k,)",
            got=f"{image.shape} and {kernel.shape}",
        )
    for each in [kernel] if kernel.ndim == 2 else [kernel[:, None], kernel[None, :]]:
        reach = [(0, 0)] * (image.ndim - 2) + [(k // 2, (k - 1) // 2) for k in each.shape]
        padded = np.pad(image, reach, mode=pads[border])  # type: ignore[call-overload]
        image = _slide(padded, np.flip(each), [(0, 0)] * image.ndim)
    return image


def as_layer(
    kernel: Any, input_shape: Sequence[int], mode: Mode = "same", *, engine: str = "auto", dtype: str = "float32"
) -> Sequential:
    """The filter as a network of one convolution layer, whose W is the kernel flipped: equal to `convolve`.

    Every channel is filtered by itself. The weights are set, not learned; `fit` would change them.

    Arguments:
        kernel: (k, l), or several (filters, k, l); for signals (k,) or (filters, k).
        input_shape: (channels, H, W), or (channels, T) for signals.
        mode: as in `convolve`.
        engine, dtype: of the network.

    Returns:
        the network: (channels, H, W) to (channels · filters, H', W'), the filters of one channel side by side.

    Raises:
        ShapeError: a kernel that does not fit the input.
        DataError: values that are not finite numbers.
        ParameterError: an unknown mode.
    """
    from pellucid.layers.conv import Conv1D, Conv2D
    from pellucid.network.sequential import Sequential

    kernel, axes = _numbers(kernel, "kernel"), len(input_shape) - 1
    if axes not in (1, 2) or kernel.ndim not in (axes, axes + 1) or not kernel.size:
        raise ShapeError(
            "takes a kernel with the image's axes, or several of them",
            where="as_layer",
            expected="(k, l) for (channels, H, W), (k,) for (channels, T)",
            got=f"{kernel.shape} for {tuple(input_shape)}",
        )
    filters = kernel if kernel.ndim > axes else kernel[None]
    channels, sizes = input_shape[0], filters.shape[1:]
    kind = Conv2D if axes == 2 else Conv1D
    units, padding = channels * len(filters), _pads(sizes, mode, "as_layer")
    layer = kind(units, sizes, padding=padding, groups=channels, use_bias=False, name="filter")
    net = Sequential(layer, input_shape=input_shape, engine=engine, dtype=dtype)
    flipped = np.flip(filters, axis=tuple(range(1, 1 + axes)))
    net.parameters = {"filter": {"W": np.tile(flipped[:, None], (channels, *(1,) * (axes + 1)))}}
    return net


# --- what they share ------------------------------------------------------------------------------------------------


def _slide(x: np.ndarray, taps: np.ndarray, reach: Sequence[tuple[int, int]]) -> np.ndarray:
    """Σ_k taps[k] x[n + k] over the last axes, x continued by zeros as far as ``reach`` says."""
    padded = np.pad(x, reach)
    leading = padded.shape[: padded.ndim - taps.ndim]
    places = [n - k + 1 for n, k in zip(padded.shape[len(leading) :], taps.shape, strict=True)]
    y = np.zeros((*leading, *places), np.result_type(x, taps))
    for k, weight in np.ndenumerate(taps):
        if weight:
            window = (slice(first, first + n) for first, n in zip(k, places, strict=True))
            y += weight * padded[(*(slice(None),) * len(leading), *window)]
    return y


def _pads(sizes: Sequence[int], mode: Mode, where: str) -> list[tuple[int, int]]:
    """Zeros before and after x along each axis; of a kernel of even size the middle is the later of the two."""
    if mode not in ("full", "same", "valid"):
        raise unknown("mode", mode, ("full", "same", "valid"), where=where)
    pads = {"full": lambda k: (k - 1, k - 1), "same": lambda k: (k // 2, (k - 1) // 2), "valid": lambda k: (0, 0)}
    return [pads[mode](k) for k in sizes]


def _reach(x: np.ndarray, h: np.ndarray, mode: Mode, where: str) -> list[tuple[int, int]]:
    reach = _pads(h.shape, mode, where)
    if mode == "valid" and any(k > n for n, k in zip(x.shape, h.shape, strict=True)):
        raise ShapeError(
            "the kernel nowhere lies inside the signal",
            where=where,
            expected=f"at most {x.shape}",
            got=h.shape,
            hint='mode="same" or mode="full" continue the signal by zeros',
        )
    return reach


def _pair(x: Any, h: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
    x, h = _numbers(x, "x"), _numbers(h, "h")
    if x.ndim != h.ndim or x.ndim not in (1, 2) or not x.size or not h.size:
        raise ShapeError(
            "takes two signals or two images, neither empty",
            where=where,
            expected="(n,) and (k,), or (H, W) and (k, l)",
            got=f"{x.shape} and {h.shape}",
        )
    return x, h


def _numbers(values: Any, name: str) -> np.ndarray:
    """As floating-point numbers: whole ones, such as the bytes of a photograph, would overflow."""
    array = np.asarray(values)
    if array.dtype.kind in "biu":
        array = array.astype(np.float64)
    if array.dtype.kind not in "fc" or not np.isfinite(array).all():
        raise DataError(
            "holds values that are not finite numbers", where=name, expected="numbers", got=f"an array of {array.dtype}"
        )
    return array


def _slope(across: list[float], axis: int, where: str) -> np.ndarray:
    if axis not in (0, 1):
        raise ParameterError("an image has two axes", where=where, expected="0 (down) or 1 (right)", got=repr(axis))
    kernel = np.outer(across, [1.0, 0.0, -1.0])
    return kernel if axis == 1 else kernel.T.copy()


def _shape(length: int | Sequence[int], where: str, least: int = 1) -> tuple[int, ...]:
    shape = (length,) if isinstance(length, (int, np.integer)) else tuple(length)
    if not shape or not all(isinstance(n, (int, np.integer)) and n >= least for n in shape):
        raise ParameterError("a length is a whole number", where=where, expected=f"{least} or more", got=repr(length))
    return tuple(int(n) for n in shape)


def _answer(system: System, x: np.ndarray) -> np.ndarray:
    """What the system makes of x, which it may overwrite."""
    y = _numbers(system(x), "the system's output")
    if y.ndim != x.ndim:
        raise ShapeError("makes no signal of a signal", where="the system", expected=f"{x.ndim} axes", got=y.shape)
    return y


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference, relative to the largest value; 1 where the sizes differ."""
    if a.shape != b.shape:
        return 1.0
    largest = max(np.abs(a).max(initial=0.0), np.abs(b).max(initial=0.0))
    return float(np.abs(a - b).max(initial=0.0) / largest) if largest else 0.0
