"""Data: readers for what people have, a catalog of sets that can be had, and preprocessing fitted on training rows."""

from pellucid.data.catalog import Card, card, names
from pellucid.data.dataset import Dataset
from pellucid.data.fetching import fetch
from pellucid.data.loading import load
from pellucid.data.pairs import Pairs, chat, english_korean, pronunciations
from pellucid.data.preprocessor import Preprocessor
from pellucid.data.running_text import prose, text_windows
from pellucid.data.series import Series, Windows, time_series, windows
from pellucid.data.speech import Sounds, read_wav, recordings, speak
from pellucid.data.storage import data_home
from pellucid.data.text import Vocabulary
from pellucid.data.video import MovingDigits, moving_digits

__all__ = [
    "Card",
    "Dataset",
    "MovingDigits",
    "Pairs",
    "Preprocessor",
    "Series",
    "Sounds",
    "Vocabulary",
    "Windows",
    "card",
    "chat",
    "data_home",
    "english_korean",
    "fetch",
    "load",
    "moving_digits",
    "names",
    "pronunciations",
    "prose",
    "read_wav",
    "recordings",
    "speak",
    "text_windows",
    "time_series",
    "windows",
]
