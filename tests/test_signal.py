"""Convolution and filters against SciPy on a photograph and a real signal; properties of systems against known ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from scipy import signal as scipy_signal

import pellucid as pl
from pellucid.errors import DataError, ParameterError, ShapeError
from pellucid.signal import (
    as_layer,
    convolve,
    correlate,
    filter_image,
    gaussian,
    impulse_response,
    is_linear,
    is_time_invariant,
    laplacian,
    prewitt,
    sobel,
)

MODES = ["full", "same", "valid"]


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    """A temple's roof, (3, 200, 240) bytes."""
    from sklearn.datasets import load_sample_image

    return load_sample_image("china.jpg")[100:300, 200:440].transpose(2, 0, 1)


@pytest.fixture(scope="module")
def scan_line(photograph) -> np.ndarray:
    """Brightness along a row of the photograph: a signal with edges and noise of its own."""
    return photograph[1, 90].astype(float)


# --- convolution ----------------------------------------------------------------------------------------------------


def test_by_hand():
    """Flip (0 1 2) to (2 1 0), shift it along (1 2 3), multiply, sum."""
    np.testing.assert_array_equal(convolve([1, 2, 3], [0, 1, 2]), [0, 1, 2 * 1 + 1 * 2, 2 * 2 + 1 * 3, 2 * 3])
    np.testing.assert_array_equal(convolve([1, 2, 3], [0, 1, 2], "same"), [1, 4, 7])
    np.testing.assert_array_equal(convolve([1, 2, 3], [0, 1, 2], "valid"), [4])
    np.testing.assert_array_equal(correlate([1, 2, 3], [0, 1, 2]), [2, 5, 8, 3, 0])
    np.testing.assert_array_equal(correlate([1, 2, 3], [0, 1, 2], "valid"), [1 * 0 + 2 * 1 + 3 * 2])


@given(st.data(), st.sampled_from(MODES), st.sampled_from([1, 2]))
def test_it_is_scipys(data, mode, axes):
    n = [data.draw(st.integers(1, 12)) for _ in range(axes)]
    k = [data.draw(st.integers(1, high if mode == "valid" else 7)) for high in n]
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x, h = rng.normal(size=n), rng.normal(size=k)
    np.testing.assert_allclose(convolve(x, h, mode), scipy_signal.convolve(x, h, mode, "direct"), atol=1e-12)
    np.testing.assert_allclose(correlate(x, h, mode), scipy_signal.correlate(x, h, mode, "direct"), atol=1e-12)
    if axes == 2:
        np.testing.assert_allclose(convolve(x, h, mode), scipy_signal.convolve2d(x, h, mode), atol=1e-12)
    np.testing.assert_allclose(correlate(x, h, mode), convolve(x, np.flip(h), mode), atol=1e-12)
    if mode != "same":
        np.testing.assert_allclose(convolve(h, x, mode), convolve(x, h, mode), atol=1e-12)


def test_correlation_does_not_commute_and_answers_an_impulse_backwards(rng):
    x, h = rng.normal(size=9), rng.normal(size=4)
    assert not np.allclose(correlate(h, x), correlate(x, h))
    np.testing.assert_array_equal(correlate(h, x), correlate(x, h)[::-1])
    np.testing.assert_array_equal(impulse_response(lambda x: convolve(x, h), 1), h)
    np.testing.assert_array_equal(impulse_response(lambda x: correlate(x, h), 1), h[::-1])


def test_where_convolution_and_correlation_agree(scan_line):
    smooth, slope = gaussian(2.0), [1.0, 0.0, -1.0]
    np.testing.assert_allclose(convolve(scan_line, smooth), correlate(scan_line, smooth), rtol=1e-13)
    np.testing.assert_array_equal(convolve(scan_line, slope), -correlate(scan_line, slope))


def test_a_photograph_and_a_signal_as_scipy_filters_them(photograph, scan_line):
    grey, h = photograph.mean(axis=0), np.random.default_rng(0).normal(size=(6, 5))
    for mode in MODES:
        np.testing.assert_allclose(
            convolve(grey, h, mode), scipy_signal.convolve2d(grey, h, mode), rtol=1e-11, atol=1e-9
        )
        np.testing.assert_allclose(
            convolve(scan_line, h[0], mode), scipy_signal.convolve(scan_line, h[0], mode), rtol=1e-11, atol=1e-9
        )
    # bytes do not overflow
    white, ones = np.full((3, 3), 255, np.uint8), np.ones((3, 3), np.uint8)
    np.testing.assert_array_equal(convolve(white, ones, "valid"), [[9 * 255]])


def test_sunspots_smoothed_as_scipy_does():
    data = pytest.importorskip("statsmodels.datasets", reason="the sunspots come with statsmodels")
    yearly = data.sunspots.load_pandas().data["SUNACTIVITY"].to_numpy()
    weights = gaussian(3.0)
    np.testing.assert_allclose(
        convolve(yearly, weights, "same"),
        ndimage.gaussian_filter1d(yearly, 3.0, mode="constant"),
        rtol=1e-12,
        atol=1e-10,
    )
    # the cycle of about 11 years stands out in its correlation with itself
    centred = yearly - yearly.mean()
    alike = correlate(centred, centred)[len(yearly) - 1 :]
    assert 10 <= 6 + np.argmax(alike[6:17]) <= 12


def test_float32_stays_and_complex_is_conjugated_in_correlation(rng):
    x, h = rng.normal(size=(2, 8)).astype("float32")
    assert convolve(x, h, dt=0.5).dtype == correlate(x, h).dtype == np.float32
    assert filter_image(np.ones((4, 4), "float32"), np.ones((3, 3), "float32")).dtype == np.float32
    z, w = rng.normal(size=(2, 8)) + 1j * rng.normal(size=(2, 8))
    np.testing.assert_allclose(convolve(z, w), np.convolve(z, w))
    np.testing.assert_allclose(correlate(z, w), scipy_signal.correlate(z, w, method="direct"))


def test_the_integral():
    """A step into a lag of time constant 1 is answered by 1 - e^-t; halving dt halves the error."""
    errors = []
    for dt in (0.02, 0.01):
        t = np.arange(0, 4, dt)
        y = convolve(np.ones_like(t), np.exp(-t), dt=dt)[: len(t)]
        errors.append(np.abs(y - (1 - np.exp(-t))).max())
    assert errors[0] < 0.021
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.05)
    # Two Gaussians give one whose variances add: smooth and vanishing at the ends, so exact to rounding.
    t = np.arange(-200, 201) * 0.1
    bell = [np.exp(-0.5 * (t / s) ** 2) / (s * math.sqrt(2 * math.pi)) for s in (0.6, 0.8, 1.0)]
    np.testing.assert_allclose(convolve(bell[0], bell[1], "same", dt=0.1), bell[2], atol=1e-14)
    x = np.exp(-0.5 * (t[:, None] ** 2 + t**2))[100:-100:4, 100:-100:4]
    np.testing.assert_allclose(
        convolve(x, x, dt=(0.4, 0.4)).sum() * 0.4**2, (2 * math.pi) ** 2, rtol=1e-9
    )  # the integral of a product of integrals


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: convolve([], [1]), ShapeError, r"convolve: takes two signals[^$]*\(0,\) and \(1,\)"),
        (lambda: convolve([[1]], [1]), ShapeError, r"\(1, 1\) and \(1,\)"),
        (lambda: correlate(np.ones((2, 2, 2)), np.ones((2, 2, 2))), ShapeError, "correlate: takes two signals"),
        (lambda: convolve([1, 2], [1], "sam"), ParameterError, "convolve: unknown mode 'sam'[^$]*did you mean 'same'"),
        (lambda: convolve(np.ones((2, 5)), np.ones((3, 2)), "valid"), ShapeError, "nowhere lies inside the signal"),
        (lambda: correlate([1, 2], [1, 2, 3], "valid"), ShapeError, r"correlate: .*nowhere[^$]*\(2,\)[^$]*\(3,\)"),
        (lambda: convolve([1, math.nan], [1]), DataError, "x: holds values that are not finite"),
        (lambda: convolve([1], ["a"]), DataError, "h: holds values that are not finite numbers"),
        (lambda: gaussian(0), ParameterError, "sigma is a number above 0"),
        (lambda: gaussian(math.inf), ParameterError, "sigma is a number above 0"),
        (lambda: gaussian(1.0, -1), ParameterError, "radius=-1"),
        (lambda: gaussian(1.0, axes=3), ParameterError, "axes=3"),
        (lambda: sobel(2), ParameterError, "sobel: an image has two axes"),
        (lambda: prewitt(-1), ParameterError, "prewitt: an image has two axes"),
        (lambda: filter_image(np.ones(3), np.ones(3)), ShapeError, r"filter_image: takes images[^$]*\(3,\) and \(3,\)"),
        (lambda: filter_image(np.ones((3, 3)), [1], "mirror"), ParameterError, "unknown border 'mirror'"),
        (lambda: as_layer(np.ones((3, 3)), (9,)), ShapeError, r"as_layer: takes a kernel[^$]*\(3, 3\) for \(9,\)"),
        (lambda: as_layer(np.ones(3), (1, 9, 9)), ShapeError, r"\(3,\) for \(1, 9, 9\)"),
        (lambda: as_layer(np.ones((3, 3)), (1, 2, 2), "valid"), ShapeError, "the kernel is larger than the image"),
        (lambda: as_layer(np.ones((3, 3)), (1, 2, 2), "fill"), ParameterError, "as_layer: unknown mode 'fill'"),
        (lambda: impulse_response(np.abs, 0), ParameterError, "impulse_response: a length is a whole number"),
        (lambda: impulse_response(np.abs, 3, at=3), ParameterError, "the impulse lies outside the signal"),
        (lambda: impulse_response(np.sum, 3), ShapeError, r"the system: makes no signal of[^$]*1 axes[^$]*\(\)"),
        (lambda: impulse_response(lambda x: x * math.inf, 3), DataError, "the system's output: holds values"),
        (lambda: is_time_invariant(np.abs, length=5), ParameterError, "expected: 6 or more"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_messages(call, error, message):
    with pytest.raises(error, match=message):
        call()


# --- systems --------------------------------------------------------------------------------------------------------


def recursive(x):
    """y[n] = 0.9 y[n - 1] + x[n]."""
    y = x.copy()
    for n in range(1, len(y)):
        y[n] += 0.9 * y[n - 1]
    return y


SYSTEMS = {
    "moving average": (lambda x: convolve(x, np.ones(5) / 5, "same"), True, True),
    "recursive": (recursive, True, True),
    "full convolution": (lambda x: convolve(x, [1.0, -2.0, 3.0]), True, True),
    "running sum": (np.cumsum, True, True),
    "correlation": (lambda x: correlate(x, [1.0, 2.0, 4.0], "same"), True, True),
    "square": (np.square, False, True),
    "offset": (lambda x: x + 1e-3, False, True),
    "median of three": (lambda x: ndimage.median_filter(x, 3), False, True),
    "clipped": (lambda x: np.clip(x, -1.5, 1.5), False, True),
    "modulated": (lambda x: x * np.cos(np.arange(len(x))), True, False),
    "backwards": (lambda x: x[::-1], True, False),
    "every second sample": (lambda x: x[::2], True, False),
    "every second sample silenced": (lambda x: x * (np.arange(len(x)) % 2), True, False),
    "less its mean over the window": (lambda x: x - x.mean() * np.arange(len(x)), True, False),
    "positive samples only": (lambda x: x[x > 0], False, False),
    "squared and modulated": (lambda x: x**2 * np.arange(len(x)), False, False),
}


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("seed", [0, 1])
def test_systems_that_are_known(name, seed):
    system, linear, invariant = SYSTEMS[name]
    for test, expected in ((is_linear, linear), (is_time_invariant, invariant)):
        found = test(system, seed=seed)
        assert bool(found) is expected, str(found)
        assert found.error < 1e-12 if expected else found.error > 1e-5
        assert str(found).startswith("yes: S(" if expected else "no: S(")


@pytest.mark.parametrize(
    "kernel", [gaussian(1.0, axes=2), sobel(0), laplacian()], ids=["gaussian", "sobel", "laplacian"]
)
def test_filters_of_images_are_systems_too(kernel):
    def system(image):
        return filter_image(image, kernel, "zero")

    assert is_linear(system, length=(24, 30))
    assert is_time_invariant(system, length=(30, 36))
    assert not is_time_invariant(lambda image: image * np.arange(36), length=(30, 36))
    middle = impulse_response(system, (21, 23), at=(10, 11))
    k = len(kernel) // 2
    np.testing.assert_allclose(middle[10 - k : 11 + k, 11 - k : 12 + k], kernel)
    assert np.count_nonzero(middle) == np.count_nonzero(kernel)


def test_a_linear_layer_is_a_system_and_relu_is_none():
    def system(activation):
        net = pl.Sequential(
            pl.Conv2D(1, 3, activation, padding="same", use_bias=False), input_shape=(1, 24, 24), dtype="float64"
        )
        return lambda image: net.forward(image[None, :, :, None])[0][0, :, :, 0]

    for activation, linear in (("identity", True), ("relu", False)):
        assert bool(is_linear(system(activation), length=(24, 24))) is linear
        assert is_time_invariant(system(activation), length=(24, 24))


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=9), st.integers(0, 99))
def test_the_impulse_response_says_the_answer_to_everything(h, seed):
    x = np.random.default_rng(seed).normal(size=20)

    def system(x):
        return scipy_signal.lfilter(h, [1.0, -0.5], x)

    np.testing.assert_allclose(convolve(x, impulse_response(system, 20))[:20], system(x), atol=1e-12)


def test_a_system_may_overwrite_the_signal_it_gets():
    def destructive(x):
        x *= 2
        return x

    assert is_linear(destructive)
    assert is_time_invariant(destructive)


# --- filters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.3])
@pytest.mark.parametrize(("border", "mode"), [("reflect", "reflect"), ("zero", "constant")])
def test_gaussian_smoothing_is_scipys(photograph, sigma, border, mode):
    expected = np.stack([ndimage.gaussian_filter(channel.astype(float), sigma, mode=mode) for channel in photograph])
    separable = filter_image(photograph, gaussian(sigma), border)
    np.testing.assert_allclose(separable, expected, rtol=1e-12, atol=1e-10)
    np.testing.assert_allclose(filter_image(photograph, gaussian(sigma, axes=2), border), separable, rtol=1e-12)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
def test_borders_of_zeros_are_those_of_convolve(height, width, seed):
    rng = np.random.default_rng(seed)
    images, kernel = rng.normal(size=(2, 3, 5, 6)), rng.normal(size=(height, width))
    filtered = filter_image(images, kernel, "zero")
    np.testing.assert_allclose(filtered[1, 2], convolve(images[1, 2], kernel, "same"), atol=1e-12)
    assert filtered.shape == images.shape


def test_gaussian_weights():
    np.testing.assert_allclose(
        gaussian(1.5, 2), np.exp(-(np.arange(-2, 3) ** 2) / 4.5) / np.exp(-(np.arange(-2, 3) ** 2) / 4.5).sum()
    )
    assert len(gaussian(1.5)) == 13
    np.testing.assert_array_equal(gaussian(2.0, 0), [1.0])
    wide = gaussian(3.0, 30)
    assert np.average(np.arange(-30, 31) ** 2, weights=wide) == pytest.approx(9.0)
    np.testing.assert_allclose(gaussian(1.0, axes=2), np.outer(gaussian(1.0), gaussian(1.0)))


@pytest.mark.parametrize(
    ("kernel", "reference"), [(sobel, ndimage.sobel), (prewitt, ndimage.prewitt)], ids=["sobel", "prewitt"]
)
@pytest.mark.parametrize("axis", [0, 1])
def test_slopes_are_scipys(photograph, kernel, reference, axis):
    grey = photograph.mean(axis=0)
    np.testing.assert_allclose(filter_image(grey, kernel(axis)), reference(grey, axis=axis), atol=1e-10)
    ramp = np.zeros((9, 9)) + (np.arange(9.0) if axis else np.arange(9.0)[:, None])
    np.testing.assert_array_equal(convolve(ramp, kernel(axis), "valid"), 8.0 if kernel is sobel else 6.0)
    np.testing.assert_array_equal(convolve(ramp, kernel(1 - axis), "valid"), 0.0)


def test_the_laplacian(photograph):
    grey = photograph.mean(axis=0)
    np.testing.assert_allclose(filter_image(grey, laplacian()), ndimage.laplace(grey), atol=1e-10)
    y, x = np.mgrid[:7, :7].astype(float)
    np.testing.assert_allclose(convolve(x**2 + 3 * y**2 + x * y, laplacian(), "valid"), 2 + 6)
    np.testing.assert_allclose(convolve(x**2 + 3 * y**2 + x * y, laplacian(diagonal=True), "valid"), 3 * (2 + 6))


@given(st.data(), st.sampled_from(MODES), st.integers(1, 3), st.integers(1, 3))
def test_a_filter_as_a_layer_is_the_true_convolution(data, mode, channels, filters):
    size, k = [data.draw(st.integers(5, 9)) for _ in "hw"], [data.draw(st.integers(1, 5)) for _ in "hw"]
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    kernels, X = rng.normal(size=(filters, *k)), rng.normal(size=(channels, *size, 2))
    net = as_layer(kernels, X.shape[:-1], mode, dtype="float64")
    A, _ = net.forward(X)
    expected = [
        np.stack([convolve(X[c, :, :, i], kernel, mode) for i in range(2)], axis=-1)
        for c in range(channels)
        for kernel in kernels
    ]
    np.testing.assert_allclose(A, np.stack(expected), atol=1e-12)
    signals = as_layer(kernels[:, :, 0], (channels, size[0]), mode, dtype="float64")
    A, _ = signals.forward(X[:, :, 0])
    lines = [convolve(X[c, :, 0, 1], kernel[:, 0], mode) for c in range(channels) for kernel in kernels]
    np.testing.assert_allclose(A[..., 1], np.stack(lines), atol=1e-12)


def test_the_layer_on_a_photograph(photograph):
    edges = np.stack([sobel(0), sobel(1), laplacian()])
    net = as_layer(edges, photograph.shape)
    A, _ = net.forward(photograph[..., None].astype("float32"))
    assert A.dtype == np.float32
    expected = np.stack([convolve(channel, each, "same") for channel in photograph for each in edges])
    np.testing.assert_allclose(A[..., 0], expected, atol=1e-3)  # of values up to 2000, in float32
    # a layer that holds the filter as it is, not flipped, would turn the slopes' sign
    net.parameters["filter"]["W"][...] = np.flip(net.parameters["filter"]["W"], axis=(2, 3)).copy()
    turned, _ = net.forward(photograph[..., None].astype("float32"))
    np.testing.assert_allclose(turned[[0, 1]], -A[[0, 1]], atol=1e-3)
