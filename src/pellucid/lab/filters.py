"""Noise removed and edges found on a photograph, by convolution alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.errors import need
from pellucid.inspect.pictures import new_figure, save, show_image
from pellucid.lab.base import Experiment, Finding, Result
from pellucid.signal import as_layer, convolve, filter_image, gaussian, sobel

NOISE = 0.1  # standard deviation, of brightness from 0 to 1
SIGMAS = (0.5, 0.7, 0.85, 1.0, 1.25, 1.5, 2.0, 3.0)
STRONG = 0.1  # the share of pixels that count as edges
_TITLE: dict[str, Any] = {"loc": "left", "fontsize": 10, "fontweight": "bold"}


def run(out: Path, *, seed: int = 0, quick: bool = False) -> Result:
    """Add noise to a photograph, smooth it with Gaussians of several widths, and look for edges before and after.

    Arguments:
        out: the folder for ``filters.png``.
        seed: of the noise.
        quick: True takes a small part of the photograph.

    Raises:
        EngineError: scikit-learn, Pillow or matplotlib is not installed.
    """
    clean = photograph()
    if quick:
        clean = clean[150:270, 220:380]
    noise = np.random.default_rng(seed).normal(0.0, NOISE, clean.shape)
    noisy = clean + noise

    smoothed = {sigma: filter_image(noisy, gaussian(sigma)) for sigma in SIGMAS}
    rows: list[tuple[str, float, float | None, float]] = [("none", psnr(clean, noisy), None, edges_kept(clean, noisy))]
    for sigma, image in smoothed.items():
        rows.append((f"σ = {sigma:g}", psnr(clean, image), foretold(clean, sigma), edges_kept(clean, image)))
    best = max(SIGMAS, key=lambda sigma: psnr(clean, smoothed[sigma]))

    inside = (slice(16, -16),) * 2  # where mirrored borders have no say
    both = convolve(gaussian(best, axes=2), sobel(1))
    net = as_layer(sobel(1), (1, *clean.shape), dtype="float64")
    by_layer = net.forward(noisy[None, ..., None])[0][0, ..., 0]
    findings = (
        Finding("PSNR of the noisy photograph, dB: -20 log₁₀ σ_noise", -20 * math.log10(NOISE), rows[0][1], 0.01),
        Finding(
            "noise left by the best Gaussian: σ_noise √Σh²",
            NOISE * norm(gaussian(best, axes=2)),
            float(filter_image(noise, gaussian(best))[inside].std()),
            0.05,
        ),
        Finding(
            "noise in Sobel's slope: σ_noise √12",
            NOISE * norm(sobel(1)),
            float(filter_image(noise, sobel(1))[inside].std()),
            0.05,
        ),
        Finding(
            "the same after smoothing: σ_noise √Σ(g * sobel)²",
            NOISE * norm(both),
            float(filter_image(noise, both)[inside].std()),
            0.05,
        ),
        Finding(
            "largest difference of the filter as a convolution layer",
            0.0,
            float(np.abs(by_layer - convolve(noisy, sobel(1), "same")).max()),
            1e-12,
        ),
    )
    picture = draw(clean, noisy, smoothed[best], rows, best, out / "filters.png")
    notes = (
        f"flower.jpg of scikit-learn, {clean.shape[1]} × {clean.shape[0]} pixels in grey from 0 to 1; "
        f"noise normal with σ = {NOISE:g}, seed {seed}",
        "foretold: noise left and detail lost, 10 log₁₀ 1 / (σ_noise² Σh² + mean (h * image - image)²)",
        f"edges kept: of the {STRONG:.0%} of pixels that are steepest in the clean photograph, the share that is again",
    )
    return Result(("smoothed by", "PSNR (dB)", "foretold (dB)", "edges kept"), tuple(rows), findings, picture, notes)


def photograph() -> np.ndarray:
    """A dahlia, (427, 640), brightness from 0 to 1."""
    need("PIL", extra="images")
    load = need("sklearn.datasets", extra="sklearn").load_sample_image
    return load("flower.jpg") @ np.array([0.299, 0.587, 0.114]) / 255.0  # Rec. 601: what the eye calls bright


def psnr(clean: np.ndarray, image: np.ndarray) -> float:
    """Peak signal-to-noise ratio, 10 log₁₀ 1 / mean squared error, in dB, of brightness from 0 to 1."""
    return -10.0 * math.log10(float(np.mean((image - clean) ** 2)))


def foretold(clean: np.ndarray, sigma: float) -> float:
    """The PSNR to expect after smoothing: of the noise left, and of the detail that is lost with it."""
    left = (NOISE * norm(gaussian(sigma, axes=2))) ** 2
    lost = float(np.mean((filter_image(clean, gaussian(sigma)) - clean) ** 2))
    return -10.0 * math.log10(left + lost)


def norm(kernel: np.ndarray) -> float:
    """√Σh²: what independent noise is multiplied by."""
    return float(np.sqrt(np.sum(kernel**2)))


def steepness(image: np.ndarray) -> np.ndarray:
    """The length of the gradient as Sobel's two filters see it."""
    return np.hypot(filter_image(image, sobel(0)), filter_image(image, sobel(1)))


def edges_kept(clean: np.ndarray, image: np.ndarray) -> float:
    """Which share of the clean image's steepest pixels is among the steepest of this one."""
    edges, found = (each >= np.quantile(each, 1 - STRONG) for each in (steepness(clean), steepness(image)))
    return float(np.mean(found[edges]))


def draw(
    clean: np.ndarray, noisy: np.ndarray, smooth: np.ndarray, rows: Sequence[tuple], best: float, path: Path
) -> Path:
    """The photograph, its noise and what filters make of it."""
    figure = new_figure(13.0, 4.9)
    panels = figure.subplots(2, 4)
    steep = steepness(smooth)
    light: dict[str, Any] = {"vmin": 0.0, "vmax": 1.0}
    limit = float(np.quantile(steep, 0.99))
    signed: dict[str, Any] = {"vmin": -limit, "vmax": limit, "cmap": "RdBu_r"}
    length: dict[str, Any] = {"vmin": 0.0, "vmax": limit, "cmap": "magma"}
    images = [
        ("a photograph", clean, light),
        (f"with noise: {psnr(clean, noisy):.1f} dB", noisy, light),
        (f"Gaussian, σ = {best:g}: {psnr(clean, smooth):.1f} dB", smooth, light),
        ("steepness of the noisy one", steepness(noisy), {**length, "vmax": 2 * limit}),
        ("smoothed: slope to the right (Sobel)", filter_image(smooth, sobel(1)), signed),
        ("smoothed: slope downwards", filter_image(smooth, sobel(0)), signed),
        ("smoothed: steepness", steep, length),
    ]
    for axes, (title, image, options) in zip([*panels[0, :3], *panels[1]], images, strict=True):
        show_image(axes, image, **options)
        axes.set_title(title, **_TITLE)
    axes = panels[0, 3]
    axes.plot(SIGMAS, [row[2] for row in rows[1:]], color="#999999", linewidth=1.4, label="foretold")
    axes.plot(SIGMAS, [row[1] for row in rows[1:]], "o", color="#0072B2", markersize=5, label="measured")
    axes.axhline(rows[0][1], color="#D55E00", linewidth=1.2, linestyle="--", label="not smoothed")
    axes.set_title("PSNR (dB) by σ (pixels)", **_TITLE)
    axes.set_box_aspect(clean.shape[0] / clean.shape[1])
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.legend(frameon=False, fontsize=8, loc="center right")
    return save(figure, path)


EXPERIMENT = Experiment(
    "filters",
    "noise removed and edges found on a photograph, by convolution alone",
    "How much noise does a Gaussian remove before it removes the picture, and what does it do for finding edges?",
    run,
)
