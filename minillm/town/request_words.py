"""How a request is said: five wordings of every operation and every form, English and Chinese.

A request has three parts, and each has its own wording:

    Here is a list: plums, pears, buns.   Turn the list around.   One a line.
    the list                              the operation           the form of the answer

Wordings 0 to 3 are for training. Wording 4 is for evaluation alone, so that one can ask whether a
model follows a request that is said as it never heard it. Wording n of "all" and wording n of
"all but" differ in nothing but the exception.

Paper: none.
Differs: none.

Chapter: 20
"""

N_WORDINGS = 5
SEEN_WORDINGS = (0, 1, 2, 3)
UNSEEN_WORDING = 4
LISTS = {
    "en": (
        "The list: {items}.",
        "Here is a list: {items}.",
        "A list: {items}.",
        "On the list: {items}.",
        "Read this list: {items}.",
    ),
    "zh": (
        "单子：{items}。",
        "这是单子：{items}。",
        "有一张单子：{items}。",
        "单子上有：{items}。",
        "请看单子：{items}。",
    ),
}
_TAKE = {  # for "first", "last" and "nth"
    "en": (
        "Give me {x}.",
        "Name {x}.",
        "Say {x} of the list.",
        "Repeat {x} only.",
        "Write down {x} and no more.",
    ),
    "zh": ("给我{x}。", "说出{x}。", "说单子的{x}。", "只重复{x}。", "写下{x}，别的不要。"),
}
_LEAVE = {  # for "without" and "skip"
    "en": (
        "Leave out {x}.",
        "Skip {x}.",
        "Take away {x}.",
        "Drop {x} from the list.",
        "Write down what is left without {x}.",
    ),
    "zh": ("去掉{x}。", "跳过{x}。", "拿走{x}。", "从单子里删掉{x}。", "写下没有{x}的单子。"),
}
_ALL = {
    "en": (
        "Give me all of them.",
        "Say the whole list.",
        "Name them all.",
        "Repeat the list.",
        "Write down every one of them.",
    ),
    "zh": ("全部给我。", "说出整张单子。", "全部说出来。", "重复单子。", "一个不少地写下来。"),
}
_BUT = {  # nothing but the exception is different
    "en": tuple(way.replace(".", " but {x}.") for way in _ALL["en"]),
    "zh": tuple(f"除了{{x}}，{way}" for way in _ALL["zh"]),
}
# x, y: an item, an ordinal ("the third") or a number ("the first two").
OPERATIONS = {
    "en": {
        "all": _ALL["en"],
        "all-but": _BUT["en"],
        "reverse": (
            "Turn the list around.",
            "Say them backwards.",
            "Name them from last to first.",
            "Give me the list in reverse.",
            "Write them down from the end.",
        ),
        "count": (
            "How many are there?",
            "Count them.",
            "How long is the list?",
            "Say how many there are.",
            "Write down their number.",
        ),
        "first": _TAKE["en"],
        "last": _TAKE["en"],
        "nth": _TAKE["en"],
        "without": _LEAVE["en"],
        "skip": _LEAVE["en"],
        "replace": (
            "Replace {x} by {y}.",
            "Change {x} to {y}.",
            "Put {y} in place of {x}.",
            "Say {y} instead of {x}.",
            "Write {y} where {x} stands.",
        ),
        "swap": (
            "Swap {x} and {y}.",
            "Exchange {x} and {y}.",
            "Let {x} and {y} change places.",
            "Switch {x} with {y}.",
            "Write {x} and {y} the other way round.",
        ),
        "contains": (
            "Does the list have {x}?",
            "Yes or no: can you read {x}?",
            "Do you see {x} on the list?",
            "Do they include {x}?",
            "Say whether {x} stands there.",
        ),
        "append": (
            "Add {x} at the end.",
            "Put {x} last.",
            "Write {x} after the rest.",
            "Let {x} end the list.",
            "Make {x} the new end.",
        ),
        "prepend": (
            "Add {x} at the beginning.",
            "Put {x} first.",
            "Write {x} before the rest.",
            "Let {x} begin the list.",
            "Make {x} the new beginning.",
        ),
        "after": (
            "What comes after {x}?",
            "Name what stands after {x}.",
            "What do you read after {x}?",
            "Say what is next after {x}.",
            "Write down what follows after {x}.",
        ),
        "before": (
            "What comes before {x}?",
            "Name what stands before {x}.",
            "What do you read before {x}?",
            "Say what is next before {x}.",
            "Write down what is right before {x}.",
        ),
    },
    "zh": {
        "all": _ALL["zh"],
        "all-but": _BUT["zh"],
        "reverse": ("把单子倒过来。", "倒着说。", "从后往前说。", "反着给我。", "从末尾写起。"),
        "count": ("有几个？", "数一数。", "单子有多长？", "说出一共几个。", "写下个数。"),
        "first": _TAKE["zh"],
        "last": _TAKE["zh"],
        "nth": _TAKE["zh"],
        "without": _LEAVE["zh"],
        "skip": _LEAVE["zh"],
        "replace": (
            "用{y}代替{x}。",
            "把{x}换成{y}。",
            "把{y}放在{x}的位置。",
            "不说{x}，说{y}。",
            "在写{x}的地方写{y}。",
        ),
        "swap": (
            "把{x}和{y}对调。",
            "交换{x}和{y}。",
            "让{x}和{y}换位置。",
            "{x}跟{y}互换。",
            "把{x}和{y}反过来写。",
        ),
        "contains": (
            "单子上有{x}吗？",
            "是或否：读得到{x}吗？",
            "你在单子上看见{x}了吗？",
            "里面有没有{x}？",
            "说说{x}在不在上面。",
        ),
        "append": (
            "在末尾加上{x}。",
            "把{x}放在最后。",
            "在其余的后面写{x}。",
            "让{x}结束单子。",
            "新的末尾是{x}。",
        ),
        "prepend": (
            "在开头加上{x}。",
            "把{x}放在最前。",
            "在其余的前面写{x}。",
            "让{x}开始单子。",
            "新的开头是{x}。",
        ),
        "after": (
            "{x}后面是什么？",
            "说出{x}后面的。",
            "{x}后面你读到什么？",
            "说{x}后面的那个。",
            "写下紧跟在{x}后面的。",
        ),
        "before": (
            "{x}前面是什么？",
            "说出{x}前面的。",
            "{x}前面你读到什么？",
            "说{x}前面的那个。",
            "写下紧靠在{x}前面的。",
        ),
    },
}
# Commas are what one uses when nothing is asked for, so two of their wordings say nothing.
FORMS = {
    "en": {
        "commas": ("", "", "With commas.", "Put commas between.", "Part them with commas."),
        "lines": (
            "One a line.",
            "Each on a line.",
            "On lines.",
            "One on each line.",
            "Line by line.",
        ),
        "numbered": (
            "Number them.",
            "With numbers.",
            "As a numbered list.",
            "Put numbers in front.",
            "Each with its number.",
        ),
        "json": ("As JSON.", "In JSON.", "As a JSON list.", "Answer in JSON.", "Use JSON."),
        "brackets": (
            "In brackets.",
            "With brackets.",
            "Between brackets.",
            "Answer in brackets.",
            "Use brackets.",
        ),
        "translated": (
            "In Chinese.",
            "Say it in Chinese.",
            "With Chinese words.",
            "Answer in Chinese.",
            "Use Chinese.",
        ),
    },
    "zh": {
        "commas": ("", "", "用顿号。", "中间加顿号。", "用顿号隔开。"),
        "lines": ("一行一个。", "每个占一行。", "分行写。", "每行写一个。", "一行一行写。"),
        "numbered": ("编号。", "带编号。", "写成编号单子。", "前面加编号。", "每个都有编号。"),
        "json": ("写成JSON。", "按JSON写。", "写成JSON单子。", "用JSON回答。", "使用JSON。"),
        "brackets": ("写在括号里。", "带括号。", "放在括号中。", "用括号回答。", "使用括号。"),
        "translated": ("说英文。", "用英文说。", "写英文词。", "用英文回答。", "使用英文。"),
    },
}
ORDINALS = {
    "en": ("first", "second", "third", "fourth", "fifth", "sixth", "seventh"),
    "zh": ("一", "二", "三", "四", "五", "六", "七"),
}
NUMBERS = {
    "en": ("one", "two", "three", "four", "five", "six", "seven"),
    "zh": ("一", "两", "三", "四", "五", "六", "七"),
}
YES_NO = {"en": ("yes", "no"), "zh": ("是", "否")}


def nth(number: int, language: str) -> str:
    """An ordinal in words, from 1.

    Example:
        >>> nth(3, "en"), nth(3, "zh")
        ('the third', '第三个')
    """
    word = ORDINALS[language][number - 1]
    return f"第{word}个" if language == "zh" else f"the {word}"


def end(which: str, number: int | None, language: str) -> str:
    """The first or last of a list, or the first or last few.

    Example:
        >>> end("first", None, "en"), end("last", 2, "en"), end("last", 2, "zh")
        ('the first', 'the last two', '最后两个')
    """
    if language == "zh" and number is None:
        return "第一个" if which == "first" else "最后一个"
    if language == "zh":
        return f"{'前' if which == 'first' else '最后'}{NUMBERS['zh'][number - 1]}个"
    return f"the {which}" if number is None else f"the {which} {NUMBERS['en'][number - 1]}"
