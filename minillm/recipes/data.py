"""What a recipe reads: stories and facts of a town, its whole life, or files.

Chapter: app
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar, final

from minillm.town.facts import FactTable
from minillm.town.letters import LetterSource
from minillm.town.list_stories import ListSource
from minillm.town.market import MarketSource
from minillm.town.stories import StorySource
from minillm.town.story_words import words
from minillm.town.world import World

#: The token that ends a document; files may spell it on a line of its own, as TinyStories do.
END = "<|endoftext|>"
END_LINE = re.compile(rf"^[^\S\n]*{re.escape(END)}[^\S\n]*$", re.MULTILINE)
BETWEEN_DIGITS = re.compile(r"(?<=\d)(?=\d)")
BLANK_LINE = re.compile(r"\n\s*\n")


@final
@dataclass(frozen=True, kw_only=True)
class TownData:
    """Stories and facts of a town.

    Args:
        world: its seed; None for Tinytown.
        languages: of both.
        story_blocks: 64 stories each, in each language.
        fact_blocks: 64 sentences each, in all languages together.
        held_out_blocks: of stories in each language, and of facts, for evaluation.
    """

    kind: ClassVar[str] = "town"
    world: str | None = None
    languages: tuple[str, ...] = ("en", "zh")
    story_blocks: int = 100
    fact_blocks: int = 100
    held_out_blocks: int = 2

    def __post_init__(self):
        if self.story_blocks < 1 or self.held_out_blocks < 1:
            raise ValueError(
                "story_blocks and held_out_blocks must be at least 1; got "
                f"{self.story_blocks} and {self.held_out_blocks}"
            )
        if self.fact_blocks < 0:
            raise ValueError(f"fact_blocks must be at least 0; got {self.fact_blocks}")

    def documents(self, part: str) -> list[str]:
        """Texts to train on, or "held out"."""
        world = World() if self.world is None else World(seed=self.world)
        held_out = part == "held out"
        n_stories = self.held_out_blocks if held_out else self.story_blocks
        n_facts = min(self.fact_blocks, self.held_out_blocks) if held_out else self.fact_blocks
        texts = [
            story.text
            for language in self.languages
            for index in range(n_stories)
            for story in StorySource(world, language).block(index, seed=part)
        ]
        facts = FactTable(world)
        return texts + [
            sentence.text
            for index in range(n_facts)
            for sentence in facts.block(index, seed=part, languages=self.languages)
        ]

    def to_learn_tokens_from(self, text: str) -> str:
        """A document as a tokenizer is to learn from it: in Chinese a line for every word."""
        if text.isascii():
            return text
        world = World() if self.world is None else World(seed=self.world)
        return "\n".join(words(world, "zh").parted(text))


@final
@dataclass(frozen=True, kw_only=True)
class LifeData:
    """All texts of a town: stories, facts, shop arithmetic, lists and letters.

    There are no instructions among them. Shop arithmetic is there in two ways, with the answer
    alone and with the steps before it; these are different problems.

    Args:
        world: its seed; None for Tinytown.
        languages: of all.
        story_blocks, market_blocks, worked_blocks, list_blocks, letter_blocks: 64 texts each, in
            each language; a worked problem has its steps, one of the market only its answer.
        fact_blocks: 64 sentences each, in all languages together.
        held_out_blocks: of each, for evaluation; fewer of what has fewer to train on.
    """

    kind: ClassVar[str] = "life"
    world: str | None = None
    languages: tuple[str, ...] = ("en", "zh")
    story_blocks: int = 100
    fact_blocks: int = 100
    market_blocks: int = 100
    worked_blocks: int = 100
    list_blocks: int = 100
    letter_blocks: int = 100
    held_out_blocks: int = 2

    def __post_init__(self):
        self._stories()  # says what is wrong with stories, facts and what is held out
        for name in ("market_blocks", "worked_blocks", "list_blocks", "letter_blocks"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0; got {getattr(self, name)}")

    def documents(self, part: str) -> list[str]:
        """Texts to train on, or "held out"."""
        world = World() if self.world is None else World(seed=self.world)
        kinds = (
            (MarketSource, self.market_blocks, part, "direct"),
            (MarketSource, self.worked_blocks, f"{part}, worked", "worked"),
            (ListSource, self.list_blocks, part, "text"),
            (LetterSource, self.letter_blocks, part, "text"),
        )
        texts = self._stories().documents(part)
        for source, n_blocks, seed, form in kinds:
            n_blocks = min(n_blocks, self.held_out_blocks) if part == "held out" else n_blocks
            texts += [
                getattr(item, form)
                for language in self.languages
                for index in range(n_blocks)
                for item in source(world, language).block(index, seed)
            ]
        return texts

    def to_learn_tokens_from(self, text: str) -> str:
        """A document as a tokenizer is to learn from it: a line for every digit and every name.

        So every digit is a token of its own, and no two words grow together in Chinese, which has
        no spaces.
        """
        text = BETWEEN_DIGITS.sub("\n", text)
        return "\n".join(part for part in _chinese_names(self.world).split(text) if part)

    def _stories(self) -> TownData:
        return TownData(
            world=self.world,
            languages=self.languages,
            story_blocks=self.story_blocks,
            fact_blocks=self.fact_blocks,
            held_out_blocks=self.held_out_blocks,
        )


@cache
def _chinese_names(seed: str | None) -> re.Pattern[str]:
    """What is called by a Chinese name in a town: people, places, goods."""
    world = World() if seed is None else World(seed=seed)
    names = {thing.chinese for thing in (*world.people, *world.places, *world.goods)}
    longest_first = sorted(names, key=lambda name: (-len(name), name))
    return re.compile(f"({'|'.join(map(re.escape, longest_first))})")


@final
@dataclass(frozen=True, kw_only=True)
class TextData:
    """Your own files, UTF-8, or one from the net.

    Args:
        files: read one after the other.
        url: of one file, in place of `files`; downloaded once and kept.
        sha256: of that file.
        ends: what ends a document: "blank line", or "file" where all is one long text. In a file
            with lines that are "<|endoftext|>", these end its documents, and a blank line is text.
        held_out: the last share, of all documents or of the long text, for evaluation.
    """

    kind: ClassVar[str] = "text"
    files: tuple[str, ...] = ()
    url: str | None = None
    sha256: str | None = None
    ends: str = "blank line"
    held_out: float = 0.05

    def __post_init__(self):
        if isinstance(self.files, str) or bool(self.files) == bool(self.url):
            raise ValueError(
                'what to read must be files, a list such as ["letters.txt"], or one url; got '
                f"files = {self.files!r} and url = {self.url!r}"
            )
        if bool(self.url) != bool(self.sha256):
            raise ValueError("a url needs its file's sha256, and files need none")
        if self.ends not in ("blank line", "file"):
            raise ValueError(f'ends must be "blank line" or "file"; got {self.ends!r}')
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out must be a share between 0 and 1; got {self.held_out}")
        for file in self.files:
            if any(character < " " for character in file):
                raise ValueError(
                    f"files names {file!r}, which has a control character in it. In TOML, \\t "
                    "between double quotes is one; write a path with forward slashes, "
                    "\"C:/tales/a.txt\", or between single quotes, 'C:\\tales\\a.txt'"
                )

    def documents(self, part: str) -> list[str]:
        """Texts to train on, or "held out".

        Raises:
            ValueError: too little text for both parts; a text that spells the end token elsewhere
                than between its documents; what `minillm.data.corpus` refuses.
            ConnectionError: the url does not answer.
        """
        if self.ends == "file":
            whole = "".join(_without_end(name, text) for name, text in self._read())
            n_train = int(len(whole) * (1 - self.held_out))
            if not 0 < n_train < len(whole):
                raise ValueError(
                    f"a text of {len(whole)} letters leaves none for one of the parts, where "
                    f"held_out is {self.held_out}; {self._name()} needs more text"
                )
            return [whole[n_train:] if part == "held out" else whole[:n_train]]
        texts = [
            _without_end(name, document).strip()
            for name, text in self._read()
            for document in (END_LINE if END_LINE.search(text) else BLANK_LINE).split(text)
        ]
        texts = [text for text in texts if text]
        n_held_out = max(1, round(self.held_out * len(texts)))
        if len(texts) < 2:
            raise ValueError(
                "training needs at least 2 documents, one of them to be held out, with a blank "
                f"line between them; {self._name()} has {len(texts)}"
            )
        return texts[-n_held_out:] if part == "held out" else texts[:-n_held_out]

    def to_learn_tokens_from(self, text: str) -> str:
        """A document as a tokenizer is to learn from it: as it is."""
        return text

    def _name(self) -> str:
        return ", ".join(self.files) or str(self.url)

    def _read(self) -> Iterator[tuple[str, str]]:
        """Names and texts."""
        from minillm.data.corpus import fetch, read

        if self.url is not None:
            yield self.url, read(fetch(self.url, self.sha256))
        for file in self.files:
            yield file, read(Path(file))


def _without_end(name: str, text: str) -> str:
    """Refuse a text that spells the end token: it would be learned as letters, and end nothing."""
    if END in text:
        around = text[max(0, text.index(END) - 20) :][:60]
        raise ValueError(
            f"{name} spells {END}, the token that ends a document, within a text: {around!r}. Put "
            'it on lines of its own, with ends = "blank line", and documents end there; or take it '
            "out"
        )
    return text
