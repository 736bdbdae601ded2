"""Names from syllables: any number of people, each with an English and a Chinese form.

A name is a row of syllables, and each syllable has one spelling and one character:

    ya 雅 · nan 南      Yanan  雅南

Every syllable begins with one consonant, goes on with vowels and may end in n. So a name can be
cut in one way only (a consonant before a vowel opens a syllable), two rows of syllables never
share a form, and neither do their Chinese forms. With S syllables there are S² names of two
syllables, then S³ of three, and so on: numbers map to names one to one, without a list of names
already taken.

Chapter: 02
"""

import random
import re
from collections.abc import Collection
from functools import cache
from itertools import islice

SYLLABLES = {
    "ban": "班", "bei": "贝", "ben": "本", "bi": "碧", "bo": "波", "da": "达", "dai": "黛",
    "fan": "帆", "fei": "飞", "ge": "歌", "hai": "海", "han": "涵", "he": "禾", "hua": "华",
    "ji": "吉", "jia": "佳", "jin": "金", "la": "拉", "lai": "来", "le": "乐", "li": "丽",
    "lu": "露", "mai": "麦", "man": "曼", "mi": "米", "min": "敏", "mo": "墨", "mu": "木",
    "na": "娜", "nan": "南", "ni": "妮", "pan": "盼", "pei": "佩", "qi": "奇", "ran": "然",
    "ren": "仁", "ru": "如", "rui": "瑞", "sa": "萨", "sen": "森", "si": "思", "tao": "桃",
    "tian": "天", "wan": "婉", "wei": "薇", "wu": "梧", "xi": "希", "xia": "夏", "xin": "欣",
    "ya": "雅", "yan": "燕", "yu": "玉", "yun": "云",
}  # fmt: skip
#: Family names, which are one syllable and one character; the common ones come first.
FAMILIES = {
    "Wang": "王", "Zhang": "张", "Liu": "刘", "Chen": "陈", "Yang": "杨", "Zhao": "赵",
    "Huang": "黄", "Zhou": "周", "Xu": "徐", "Sun": "孙", "Ma": "马", "Zhu": "朱", "Guo": "郭",
    "Liang": "梁", "Song": "宋", "Zheng": "郑", "Xie": "谢", "Tang": "唐", "Feng": "冯",
    "Deng": "邓", "Cao": "曹", "Peng": "彭", "Zeng": "曾", "Xiao": "肖",
}  # fmt: skip
_SYLLABLE = re.compile(r"[bcdfghjklmnpqrstvwxyz][aeiou]+(?:n(?![aeiou]))?")

Name = tuple[str, str]


def name_of(number: int, seed: int | str = 0) -> Name:
    """The English and the Chinese form of one name.

    Names of two syllables come first, in an order that the seed shuffles, then those of three, and
    so on. Different numbers give different names, in both forms.

    Args:
        number: 0, 1, 2, …, without an upper end.
        seed: shuffles the order; the names of two syllables are the same ones for every seed.

    Raises:
        ValueError: the number is negative.

    Example:
        >>> name_of(0), name_of(1)
        (('Qiwan', '奇婉'), ('Mibei', '米贝'))
        >>> name_of(53**2)  # the first name of three syllables
        ('Mohuaya', '墨华雅')
    """
    if number < 0:
        raise ValueError(f"names are numbered from 0; there is no name {number}")
    spellings, n_syllables = tuple(SYLLABLES), 2
    while number >= (size := len(spellings) ** n_syllables):
        number -= size
        n_syllables += 1
    digits = []
    for _ in range(n_syllables):
        number, digit = divmod(number, len(spellings))
        digits.append(digit)
    for i, table in _rounds(str(seed), n_syllables):
        digits[i] = (digits[i] + table[digits[i - 1]]) % len(spellings)
    parts = [spellings[digit] for digit in digits]
    return "".join(parts).capitalize(), "".join(SYLLABLES[part] for part in parts)


@cache
def _rounds(seed: str, n_syllables: int) -> list[tuple[int, list[int]]]:
    """Each round moves one digit by a secret of its left neighbour, which can be undone: no two
    numbers meet. This is how a Feistel cipher shuffles."""
    rng = random.Random(f"names/{seed}/{n_syllables}")
    return [
        (i, [rng.randrange(len(SYLLABLES)) for _ in SYLLABLES])
        for _ in range(4)
        for i in range(n_syllables)
    ]


def names(n: int, seed: int | str = 0, *, taken: Collection[str] = ()) -> list[Name]:
    """The first n names of a seed, leaving out those whose English form is taken.

    Raises:
        ValueError: n is negative.

    Example:
        >>> names(2, taken={"Qiwan"})
        [('Mibei', '米贝'), ('Taoyun', '桃云')]
    """
    if n < 0:
        raise ValueError(f"the number of names must be at least 0; got {n}")
    taken, number = set(taken), iter(range(n + len(set(taken))))
    return list(islice((name for i in number if (name := name_of(i, seed))[0] not in taken), n))


def syllables(english: str) -> list[str]:
    """Cut a generated name into its syllables; there is one way to do it.

    Raises:
        ValueError: the word is not a name made by this module.

    Example:
        >>> syllables("Yanan"), syllables("Yannan")
        (['ya', 'nan'], ['yan', 'nan'])
    """
    parts = _SYLLABLE.findall(english.lower())
    if "".join(parts) != english.lower() or not all(part in SYLLABLES for part in parts):
        raise ValueError(
            f"{english!r} is not a row of syllables that this town's names are made of"
        )
    return parts
