"""Everything Witling is taught, made from seeds; standard library only.

`document(rng)` is one text for the base model and `conversation(rng)` one chat for the instruct model, each a list
of (text, loss weight) pieces. `held_out(a, b)` says which sums no training example may show, and
the `exam_*` functions regenerate the questions that evaluate.py asks.
"""

import random
import zlib

import stories

BOS, END, PAD = "<|bos|>", "<|end|>", "<|pad|>"
USER, ASSISTANT, SYSTEM = "<|user|>", "<|assistant|>", "<|system|>"
THINK, END_THINK = "<think>", "</think>"
SPECIAL_TOKENS = [PAD, BOS, END, USER, ASSISTANT, SYSTEM]
THOUGHT_TOKENS = [THINK, END_THINK]

# Loss weights. An answer of three digits must not drown among stories of a hundred words.
SUM_WEIGHT, ANSWER_WEIGHT, STORY_WEIGHT = 6, 3, 0.5
CAST_WEIGHT = 1.5  # of a word in a story that names somebody or something


# --- What is kept back -------------------------------------------------------------------------------------

def _hash(text):
    return zlib.crc32(text.encode())


def held_out(a, b):
    """True for one pair in ten of numbers with two or three digits each, in both orders."""
    low, high = sorted((a, b))
    return low >= 10 and _hash(f"sum {low} {high}") % 10 == 0


def held_out_name(name):
    """True for one invented name in five; the refusals asked in an exam use only these."""
    return _hash(f"name {name}") % 5 == 0


# --- The invented world ------------------------------------------------------------------------------------

CROPS = """barley rye oats wheat turnips beans plums apples hops flax onions cabbages pears cherries pumpkins mint
honey walnuts""".split()
COLORS = "red blue green yellow white black purple orange silver brown".split()
RIVERS = "Ilse Torn Wenna Grell Osk Lamm Brae Sill Ardo Fenn Ruhl Tamsin".split()
SIGHTS = ["a leaning tower", "a very old bridge", "a windmill with six sails", "a clock that runs backwards",
          "a library in a barn", "a market on boats", "a garden of herbs", "a bell that rings by itself",
          "a lighthouse without a sea", "a school for singers", "a hill of glass", "a well with sweet water"]
JOBS = """baker smith weaver sailor miller teacher doctor painter carpenter potter gardener tailor fisher piper
cook clockmaker beekeeper ferryman""".split()
PETS = """cat dog parrot tortoise goat crow ferret hen donkey rabbit lizard goose pony owl hedgehog
mouse""".split()
TOWN_NAMES = """Tarn Ulbeck Morwen Sandry Hollin Estmar Quill Brannoc Dunmere Fallow Girth Harrowby Ivering Jessen
Kestle Lorrin Medway Norrick Ostley Pellam Rasken Selby Thornic Umber Velden Wexcombe Yarrow Zennor Aldwick
Birchen Corvale Dellow Elmstead Farrin Goswell Hexley Inver Karsk Lindow Marrick""".split()
PEOPLE_NAMES = """Mara Oswin Tilly Bram Sorrel Jorin Petra Lukas Wanda Corin Delia Ansel Freya Gideon Hilde Isak
Jolan Katrin Leif Minna Nils Oda Pavel Quentin Runa Stellan Thea Ursula Viggo Wilma Ximena Yorrin Zelda Arvid
Berit Casimir Dagny Egon Fenja Gunnar""".split()


def _world():
    rng = random.Random("the world")
    sights = [SIGHTS[i % len(SIGHTS)] for i in range(len(TOWN_NAMES))]
    rng.shuffle(sights)
    towns = {name: {"crop": rng.choice(CROPS), "flag": rng.choice(COLORS), "river": rng.choice(RIVERS), "sight": sight}
             for name, sight in zip(TOWN_NAMES, sights)}
    people = {name: {"job": rng.choice(JOBS), "pet": rng.choice(PETS), "town": rng.choice(TOWN_NAMES)}
              for name in PEOPLE_NAMES}
    return towns, people


TOWNS, PEOPLE = _world()

# attribute -> (questions, answers, follow-up questions)
TOWN_FACTS = {
    "crop": (["What do the people of {n} grow?", "What grows in {n}?", "Which crop is grown in {n}?", "What does {n} grow?"],
             "The people of {n} grow {v}.", ["What do the people there grow?", "And what grows there?"]),
    "flag": (["What colour is the flag of {n}?", "Which colour is the flag of {n}?", "What color is the flag of {n}?",
              "What is the colour of {n}'s flag?"],
             "The flag of {n} is {v}.", ["And what colour is its flag?", "What colour is the flag there?"]),
    "river": (["Which river flows through {n}?", "What river does {n} lie on?", "On which river is {n}?", "Name the river of {n}."],
              "The river {v} flows through {n}.", ["Which river flows through it?", "And on which river does it lie?"]),
    "sight": (["What is {n} known for?", "What can I see in {n}?", "What is there to see in {n}?", "Why do people visit {n}?"],
              "{n} is known for {v}.", ["What is it known for?", "And what can I see there?"]),
}
PEOPLE_FACTS = {
    "job": (["What is the job of {n}?", "What does {n} do for a living?", "What work does {n} do?", "What is {n}'s job?"],
            "{n} is a {v}.", ["What is the job of that person?", "And what work do they do?"]),
    "pet": (["What pet does {n} have?", "Which animal lives with {n}?", "What kind of pet has {n}?", "What is {n}'s pet?"],
            "{n} has a {v}.", ["Do they have a pet?", "And which pet do they have?"]),
    "town": (["Where does {n} live?", "In which town does {n} live?", "Where is the home of {n}?", "Which town is {n} from?"],
             "{n} lives in {v}.", ["Where do they live?", "And in which town do they live?"]),
}


def _fact_text(template, name, value):
    text = template.format(n=name, v=value)
    return text.replace(" a " + value, " " + stories.with_article(value)) if value[0] in "aeiou" else text


def describe_town(name):
    t = TOWNS[name]
    return (f"{name} is a town on the river {t['river']}. Its people grow {t['crop']}, its flag is {t['flag']}, and it "
            f"is known for {t['sight']}.")


def describe_person(name):
    p = PEOPLE[name]
    return (f"{name} is {stories.with_article(p['job'])} who lives in {p['town']} with "
            f"{stories.with_article(p['pet'])}.")


def _prose(rng):
    """A paragraph about the world for the base model, in changing order and wording."""
    if rng.random() < 0.5:
        name = rng.choice(TOWN_NAMES)
        t = TOWNS[name]
        neighbours = [p for p in PEOPLE_NAMES if PEOPLE[p]["town"] == name]
        wordings = [
            [f"The people of {name} grow {t['crop']}.", f"In the fields around {name} grow {t['crop']}.",
             f"{name} sells {t['crop']} to all its neighbours."],
            [f"The flag of {name} is {t['flag']}.", f"A {t['flag']} flag flies over {name}.".replace("A o", "An o"),
             f"Its flag is {t['flag']}."],
            [f"{name} is known for {t['sight']}.", f"Travellers come to see {t['sight']}.",
             f"In the middle of {name} there is {t['sight']}."],
            *([f"{p} the {PEOPLE[p]['job']} lives there."] for p in neighbours[:1]),
        ]
        first = [f"{name} is a town on the river {t['river']}.", f"The river {t['river']} flows through {name}.",
                 f"{name} lies on the river {t['river']}."]
        last = ""
    else:
        name = rng.choice(PEOPLE_NAMES)
        p = PEOPLE[name]
        job, pet = stories.with_article(p["job"]), stories.with_article(p["pet"])
        wordings = [
            [f"{name} has {pet}.", f"{name} keeps {pet} as a pet.", f"At home {name} has {pet}."],
            [f"{name} lives in {p['town']}.", f"{name} comes from {p['town']}.", f"The home of {name} is in {p['town']}."],
        ]
        first = [f"{name} is {job}.", f"{name} works as {job}.", f"{name} earns a living as {job}."]
        last = " " + describe_town(p["town"]) if rng.random() < 0.25 else ""
    if rng.random() < 0.2:  # another order, but not often
        rng.shuffle(wordings)
    return " ".join(stories.wording(rng, w) for w in [first] + wordings) + last


def document(rng):
    """One text for the base model, without special tokens."""
    if rng.random() < 0.8:
        words = stories.cast(rng, name=invented_name(rng) if rng.random() < 0.1 else None)
        return stories.emphasised(stories.tell(rng, words), words, STORY_WEIGHT, CAST_WEIGHT)
    return [(" ".join(_prose(rng) for _ in range(rng.choice([1, 1, 2]))), STORY_WEIGHT)]


# --- Names and questions nobody was taught -----------------------------------------------------------------

_STARTS = "B Br C Ch D Dr F Fl G Gr H J K Kr L M N P Pr Qu R S Sh St T Tr V W X Y Z A E I O U".split()
_MIDDLES = "a e i o u ai ea oo or ar en il um an er ov ax ib ug".split()
_ENDS = "b d g k l m n r s t x z nd rk th lo na ra mi do lia ton ville ford dor bert".split()
_KNOWN = set(TOWN_NAMES + PEOPLE_NAMES + stories.SHE + stories.HE + "Paris London Berlin Rome Mars".split())
_REAL_NAMES = """Alice Bob Charlie David Emma Frank Grace Henry Jack Kate Leo Maria Nora Oliver Peter Rachel Sam Tom
Zed Max Anna Ben Lucy Paul Sara London Paris Berlin Rome Madrid Tokyo Boston Vienna Oslo Dublin Prague""".split()


def invented_name(rng, exam=False):
    """A name that the world does not hold."""
    while True:
        if rng.random() < 0.2:
            name = rng.choice(_REAL_NAMES)
        else:
            name = rng.choice(_STARTS) + rng.choice(_MIDDLES) + rng.choice(_ENDS)
            if rng.random() < 0.3:
                name += rng.choice(["a", "o", "in", "us", "y", "el"])
        if name not in _KNOWN and held_out_name(name) == exam:
            return name


OUTSIDE = """What is the capital of France?|Who wrote Hamlet?|What is the weather today?|Who is the president?|What time is it?
What is the meaning of life?|Who won the world cup?|What is the speed of light?|Translate this into German.|Write a poem in Latin.
How tall is Mount Everest?|What is the news today?|Who invented the telephone?|What is quantum physics?|Can you write code?
How do I cook rice?|What is the population of China?|Who painted the Mona Lisa?|What is the square root of 2?|How far is the moon?
What is the best phone?|Tell me about the Roman Empire.|What is a neural network?|How do computers work?|What should I wear tomorrow?
What is the price of gold?|Who is your favourite actor?|Where is the nearest shop?|What year is it?|Explain photosynthesis.
Who discovered America?|What is the largest ocean?|How many planets are there?|What is the longest river in the world?
Write a Python program.|What does DNA stand for?|When did the war end?|Which film should I watch?|Book me a flight.
Send an email.""".replace("\n", "|").split("|")
REFUSALS = ["I do not know that. I only know my own small world.",
            "I am a very small model, and I was never taught that.",
            "That is outside my little world, so I cannot say."]

_ABOUT = """I know sums, comparing, sorting, some facts about a small invented world, and stories."""
# (ways to say it, answers)
SMALL_TALK = [
    ("Hello|Hi|Hello!|Hi there|Good morning|Hey|Good evening|Hello there!", "Hello! What can I do for you?|Hello! It is nice to meet you."),
    ("How are you?|How are you today?|How do you do?|Are you well?", "I am well, thank you. How can I help?|Very well, thank you."),
    ("Who are you?|What are you?|What is your name?|Tell me about yourself.|Introduce yourself.",
     "I am Witling, a very small model. " + _ABOUT),
    ("What can you do?|Help|How can you help me?|What do you know?|What should I ask you?",
     _ABOUT + " Ask me what 46 plus 38 is, or ask for a story about a fox."),
    ("Thank you|Thanks|Thank you!|Thanks a lot!|Great, thanks.|Well done!|Good job!", "You are welcome.|I am glad that I could help."),
    ("Goodbye|Bye|See you later.|Good night|Bye!|Farewell.", "Goodbye! Come back soon.|Goodbye, and take care."),
    ("Who made you?|Where do you come from?|Who trained you?|How were you made?",
     "I was trained on a small computer, on text that a program made up."),
    ("How big are you?|How many parameters do you have?|Are you a large model?|How many experts do you have?",
     "I have about five million parameters and eight experts, and two of them work on each token."),
    ("Are you a human?|Are you a robot?|Are you alive?|Do you have feelings?", "No, I am only a small language model."),
    ("Do you like stories?|What do you like?|What is your favourite thing?", "I like stories about foxes and lanterns."),
    ("I am sad.|I feel lonely.|I am tired.|I had a bad day.", "I am sorry to hear that. Shall I tell you a story?"),
    ("I am happy.|I had a good day.|Today is my birthday.|I won a prize.", "How wonderful! I am glad to hear it."),
    ("Can you count?|Count to ten.|Count to 10.|Please count to ten.", "1 2 3 4 5 6 7 8 9 10"),
    ("Tell me a joke.|Do you know a joke?|Make me laugh.|Say something funny.",
     "Why did the hen cross the road? To see the other side of the story.|What does a mole read? An underground newspaper."),
    ("Do you make mistakes?|Are you always right?|Can I trust you?", "I am small and I make mistakes, so please check what I say."),
    ("What towns do you know?|Name some towns.|Which towns are there?", "I know Tarn, Ulbeck, Morwen, Sandry and many more."),
    ("Who lives in your world?|Name some people.|Whom do you know?", "I know Mara, Oswin, Tilly, Bram and many more."),
    ("Yes|Okay|Sure|Fine|Alright", "Good. What would you like to know?"),
    ("No|No thanks|Nothing|Not now", "All right. I am here if you need me."),
]


# --- Questions ---------------------------------------------------------------------------------------------
# Each task returns (question, thought, answer, weight of the answer, weight of the thought); the answer is a text or,
# where its words differ in weight, a list of (text, weight) pieces.

def add_thought(a, b):
    lines, carry = [], 0
    width = max(len(str(a)), len(str(b)))
    for i, column in zip(range(width), ("ones", "tens", "hundreds")):
        x, y = a // 10**i % 10, b // 10**i % 10
        total = x + y + carry
        shown = f"{x}+{y}" + (f"+{carry}" if i else "")
        if i == width - 1:
            lines.append(f"{column}: {shown}={total}")
        else:
            carry = total // 10
            lines.append(f"{column}: {shown}={total}, write {total % 10}, carry {carry}")
    return "\n".join(lines) + "\n"


def subtract_thought(a, b):
    """REQUIRES: a >= b."""
    lines, borrow = [], 0
    width = len(str(a))
    for i, column in zip(range(width), ("ones", "tens", "hundreds")):
        x, y = a // 10**i % 10, b // 10**i % 10
        shown = f"{x}-{y}" + (f"-{borrow}" if i else "")
        total = x - y - (borrow if i else 0)
        if total < 0:
            total += 10
            lines.append(f"{column}: {shown}, take 1{x}, write {total}, borrow 1")
            borrow = 1
        elif i == width - 1:
            lines.append(f"{column}: {shown}={total}")
        else:
            lines.append(f"{column}: {shown}={total}, write {total}, borrow 0")
            borrow = 0
    return "\n".join(lines) + "\n"


SUM_WORDINGS = ["What is {a} + {b}?", "Add {a} and {b}.", "{a} + {b} =", "How much is {a} plus {b}?"]
MORE_SUM_WORDINGS = ["{a} + {b}", "What is {a} plus {b}?", "{a}+{b}", "What is {a}+{b}?", "Please add {a} and {b}."]
DIFFERENCE_WORDINGS = ["What is {a} - {b}?", "Subtract {b} from {a}.", "{a} - {b} =", "How much is {a} minus {b}?",
                       "What is {a} minus {b}?", "{a} - {b}", "{a}-{b}"]


def _number(rng, digits):
    return rng.randrange(10 ** (digits - 1) if digits > 1 else 0, 10**digits)


def _pair(rng, digits_a, digits_b):
    while True:
        a, b = _number(rng, digits_a), _number(rng, digits_b)
        if not held_out(a, b):
            return a, b


def _sum_question(rng, a, b):
    wordings = SUM_WORDINGS if rng.random() < 0.7 else MORE_SUM_WORDINGS
    return rng.choice(wordings).format(a=a, b=b)


def sum_two_digits(rng):
    digits = (2, 2) if rng.random() < 0.88 else rng.choice([(1, 1), (1, 2), (2, 1)])
    a, b = _pair(rng, *digits)
    return _sum_question(rng, a, b), None, str(a + b), SUM_WEIGHT, 0


def sum_three_digits(rng):
    a, b = _pair(rng, 3, 3)
    return _sum_question(rng, a, b), None, str(a + b), 2, 0


def sum_thinking(rng):
    roll = rng.random()
    digits = (3, 3) if roll < 0.75 else (2, 2) if roll < 0.87 else rng.choice([(1, 1), (3, 2), (2, 3), (2, 1), (3, 1)])
    a, b = _pair(rng, *digits)
    return _sum_question(rng, a, b), add_thought(a, b), str(a + b), 1, 1


def _difference(rng, digits, thinking):
    a, b = sorted((_number(rng, digits), _number(rng, rng.choice([digits, digits, digits - 1]))), reverse=True)
    question = rng.choice(DIFFERENCE_WORDINGS).format(a=a, b=b)
    return question, subtract_thought(a, b) if thinking else None, str(a - b), 1 if thinking else ANSWER_WEIGHT, 1


def difference_two_digits(rng):
    return _difference(rng, 2, False)


def difference_thinking(rng):
    return _difference(rng, 3 if rng.random() < 0.7 else 2, True)


LARGER = ["Which is larger, {a} or {b}?", "Which number is bigger, {a} or {b}?", "Which is greater: {a} or {b}?",
          "Is {a} or {b} larger?"]
SMALLER = ["Which is smaller, {a} or {b}?", "Which number is less, {a} or {b}?", "Which is lower: {a} or {b}?",
           "Is {a} or {b} smaller?"]


def compare(rng, thinking=False):
    roll = rng.random()
    a = _number(rng, rng.choice([2, 3, 3, 2, 1]))
    if roll < 0.35:  # Numbers that share their first digits are the hard ones.
        b = max(0, a + rng.choice([-9, -5, -3, -2, -1, 1, 2, 3, 5, 9, -20, 20]))
    elif roll < 0.85:
        b = _number(rng, len(str(a)))
    else:
        b = _number(rng, rng.choice([1, 2, 3]))
    if a == b and rng.random() < 0.8:
        b = a + 1
    larger = rng.random() < 0.6
    question = rng.choice(LARGER if larger else SMALLER).format(a=a, b=b)
    answer = "They are equal." if a == b else str(max(a, b) if larger else min(a, b))
    thought = None
    if thinking:
        x, y = str(a), str(b)
        if len(x) != len(y):
            thought = f"{len(x)} digits against {len(y)}\n"
        else:
            lines = []
            for p, q in zip(x, y):
                lines.append(f"{p} {'=' if p == q else '<' if p < q else '>'} {q}")
                if p != q:
                    break
            thought = "\n".join(lines) + "\n"
    return question, thought, answer, ANSWER_WEIGHT, 1


def compare_thinking(rng):
    return compare(rng, True)


SORT_UP = ["Sort these digits: {d}", "Sort: {d}", "Put these digits in order: {d}", "Sort {d} from smallest to largest."]
SORT_DOWN = ["Sort these digits from largest to smallest: {d}", "Sort {d} from largest to smallest."]


def sort_digits(rng, thinking=False):
    digits = [rng.randrange(10) for _ in range(rng.choice([3, 4, 5, 5, 5, 6, 7]))]
    down = rng.random() < 0.2
    question = rng.choice(SORT_DOWN if down else SORT_UP).format(d=" ".join(map(str, digits)))
    ordered = sorted(digits, reverse=down)
    thought = None
    if thinking:
        left, lines = list(digits), []
        for d in ordered[:-1]:
            left.remove(d)
            lines.append(f"take {d}, left {' '.join(map(str, left))}")
        thought = "\n".join(lines) + "\n"
    return question, thought, " ".join(map(str, ordered)), ANSWER_WEIGHT, 1


def sort_thinking(rng):
    return sort_digits(rng, True)


def _draw_fact(rng):
    if rng.random() < 0.55:
        return rng.choice(TOWN_NAMES), TOWNS, TOWN_FACTS
    return rng.choice(PEOPLE_NAMES), PEOPLE, PEOPLE_FACTS


def fact(rng, thinking=False):
    name, world, facts = _draw_fact(rng)
    if rng.random() < 0.15:
        question = rng.choice(["Tell me about {n}.", "What do you know about {n}?", "Describe {n}."]).format(n=name)
        if world is PEOPLE and rng.random() < 0.5:
            question = f"Who is {name}?"
        answer = describe_town(name) if world is TOWNS else describe_person(name)
    else:
        attribute = rng.choice(list(facts))
        questions, answer_template, _ = facts[attribute]
        question = rng.choice(questions).format(n=name)
        answer = _fact_text(answer_template, name, world[name][attribute])
    thought = f"{name} is a {'town' if world is TOWNS else 'person'} that I know.\n" if thinking else None
    return question, thought, answer, ANSWER_WEIGHT, 1


def fact_thinking(rng):
    return fact(rng, True)


def refusal(rng, thinking=False, exam=False):
    if rng.random() < 0.7 or exam:
        name = invented_name(rng, exam)
        facts, what = rng.choice([(TOWN_FACTS, "a town called {n}"), (PEOPLE_FACTS, "anybody called {n}")])
        question = rng.choice(facts[rng.choice(list(facts))][0]).format(n=name)
        if rng.random() < 0.1 and not exam:
            question, what = f"Who is {name}?", "anybody called {n}"
        answer = f"I do not know {what.format(n=name)}."
        thought = f"I do not know {name}.\n"
    else:
        question, answer, thought = rng.choice(OUTSIDE), stories.wording(rng, REFUSALS), "I was not taught this.\n"
    return question, thought if thinking else None, answer, 2, 1


def refusal_thinking(rng):
    return refusal(rng, True)


def small_talk(rng, thinking=False):
    says, answers = rng.choice(SMALL_TALK)
    answer = stories.wording(rng, answers.split("|"))
    return rng.choice(says.split("|")), "This is small talk.\n" if thinking else None, answer, 1, 1


def small_talk_thinking(rng):
    return small_talk(rng, True)


def repeat(rng):
    words = []
    for _ in range(rng.choice([1, 2, 3, 4, 5, 6])):
        pool = rng.choice([stories.SHE, stories.HE, stories.KINDS, stories.THINGS, TOWN_NAMES, PEOPLE_NAMES, COLORS, None])
        words.append(rng.choice(pool) if pool else rng.choice([invented_name(rng), str(rng.randrange(1000))]))
    text = rng.choice([" ", ", "]).join(words)
    question = rng.choice(["Repeat: {t}", "Repeat after me: {t}", "Say this: {t}", "Say {t}", "Please repeat: {t}"]).format(t=text)
    return question, None, text, ANSWER_WEIGHT, 0


def _story_request(rng, thinking=False):
    """(the turn that asks for a story, the cast of that story)"""
    name = invented_name(rng) if rng.random() < 0.25 else None
    kind = rng.choice(stories.KINDS)
    words = stories.cast(rng, name=name, kind=kind)
    ask = rng.choice(["Tell me a story{about}.", "Tell me a story{about}.", "Write a story{about}.", "A story{about}, please.",
                      "Please tell me a story{about}.", "Can you tell me a story{about}?", "Write a short story{about}."])
    theme = words["theme"].format(**words)
    about = rng.choice([
        "", " about {H}", " about {H} the {k}", " about {H} the {k}", " about {a_k}", " about {a_k}", " about {theme}",
        " about {theme}", " about {a_k} named {H}", " about {H} and {F}", " about {a_k} and {theme}",
        " about {H} the {k} and {theme}", " about {a_k} {p}", " about {a_k} and {a_fk}",
    ]).format(a_k=stories.with_article(kind), a_fk=stories.with_article(words["fk"]), **{**words, "theme": theme})
    thought = f"A story about {words['H']} the {kind} and {theme}.\n" if thinking else None
    answer = stories.emphasised(stories.tell(rng, words), words, STORY_WEIGHT, CAST_WEIGHT)
    return (ask.format(about=about), thought, answer, 1, 1), words


def story(rng, thinking=False):
    return _story_request(rng, thinking)[0]


def _story_questions(rng):
    """A story and one or two questions about it."""
    turn, words = _story_request(rng)
    questions = [
        ("Who is the story about?|Who is the hero?|Who is in this story?", "It is about {H} the {k} and {F} the {fk}."),
        ("Who is the friend?|What is the name of the friend?|Who else is in the story?", "The friend is {F} the {fk}."),
        ("Where does {H} live?|Where is the home of {H}?", "{H} lives {p}."),
        ("What is {H}?|Who is {H}?", "{H} is {a_k}."),
    ]
    words = {**words, "a_k": stories.with_article(words["k"])}
    turns = [turn]
    for ask, answer in rng.sample(questions, rng.choice([1, 2])):
        turns.append((rng.choice(ask.split("|")).format(**words), None, answer.format(**words), ANSWER_WEIGHT, 0))
    return turns


def story_thinking(rng):
    return story(rng, True)


# (task, share of the examples, about in percent). Direct sums of three digits stay rare, so that thinking has
# something to show.
TASKS = [
    (sum_two_digits, 30), (sum_three_digits, 1), (sum_thinking, 16), (difference_two_digits, 4), (difference_thinking, 9),
    (compare, 15), (compare_thinking, 2), (sort_digits, 10), (sort_thinking, 1.5), (fact, 8), (fact_thinking, 0.5),
    (repeat, 4), (refusal, 4), (refusal_thinking, 0.5), (small_talk, 3), (small_talk_thinking, 0.3), (story, 5),
    (story_thinking, 0.5),
]
_TASKS, _SHARES = zip(*TASKS)
_DIRECT = [(t, s) for t, s in TASKS if "thinking" not in t.__name__ and t not in (story, sum_three_digits)]


# --- Conversations -----------------------------------------------------------------------------------------

def _turn(question, thought, answer, answer_weight, thought_weight):
    pieces = [(f"{USER}{question}{END}{ASSISTANT}{THINK}", 0)]
    if thought is None:
        pieces.append((END_THINK, 0))
    else:
        pieces.append((f"{thought}{END_THINK}", thought_weight))
    if isinstance(answer, str):
        return pieces + [(answer + END, answer_weight)]
    return pieces + answer + [(END, answer_weight)]


PLAIN_SYSTEMS = ["You are a helpful assistant.", "You are Witling, a very small model.", "Answer the question.",
                 "Be brief and friendly.", "You are Witling. Answer in one sentence.", "You are a helpful, honest assistant."]


def _follow_ups(rng):
    """Turns that need the turns before them."""
    roll = rng.random()
    turns = []
    if roll < 0.3:
        return _story_questions(rng)
    if roll < 0.5:
        name = rng.choice(stories.SHE + stories.HE) if rng.random() < 0.5 else invented_name(rng)
        hello = rng.choice(["My name is {n}.", "I am {n}.", "Hello, I am {n}.", "Call me {n}."]).format(n=name)
        turns.append((hello, None, f"Hello, {name}! What can I do for you?", 1, 0))
        if rng.random() < 0.5:
            turns.append(_draw(rng, _DIRECT))
        turns.append((rng.choice(["What is my name?", "Do you remember my name?", "Who am I?"]), None, f"Your name is {name}.", 2, 0))
    elif roll < 0.7:
        name, world, facts = _draw_fact(rng)
        first, second = rng.sample(list(facts), 2)
        turns.append((rng.choice(facts[first][0]).format(n=name), None, _fact_text(facts[first][1], name, world[name][first]), 1, 0))
        turns.append((rng.choice(facts[second][2]), None, _fact_text(facts[second][1], name, world[name][second]), 2, 0))
    else:
        a, b = _pair(rng, rng.choice([1, 2]), rng.choice([1, 2]))
        turns.append((_sum_question(rng, a, b), None, str(a + b), 1, 0))
        for _ in range(rng.choice([1, 1, 2])):
            total = int(turns[-1][2])
            c = _number(rng, rng.choice([1, 1, 2]))
            if total + c > 198 or held_out(total, c):
                continue
            turns.append((rng.choice(["Add {c} to that.", "And {c} more?", "Now add {c}.", "Plus {c}?"]).format(c=c), None,
                          str(total + c), 2, 0))
    return turns


def _draw(rng, tasks):
    chosen, shares = zip(*tasks)
    return rng.choices(chosen, shares)[0](rng)


def _system(rng):
    """A system prompt and the turns that it calls for."""
    roll = rng.random()
    if roll < 0.5:
        return rng.choice(PLAIN_SYSTEMS), []
    name = rng.choice(stories.SHE + stories.HE) if rng.random() < 0.5 else invented_name(rng)
    if roll < 0.75:
        system = rng.choice(["Your name is {n}.", "You are {n}, a friendly assistant.", "You are called {n}."]).format(n=name)
        return system, [(rng.choice(["What is your name?", "Who are you?"]), None, f"My name is {name}.", 2, 0)]
    system = rng.choice(["The user is called {n}.", "You are talking to {n}.", "The name of the user is {n}."]).format(n=name)
    if rng.random() < 0.5:
        return system, [(rng.choice(["Hello", "Hi", "Hello!", "Good morning"]), None, f"Hello, {name}! What can I do for you?", 2, 0)]
    return system, [(rng.choice(["What is my name?", "Who am I?"]), None, f"Your name is {name}.", 2, 0)]


def conversation(rng, num_turns=None):
    """One training example: a conversation as (text, loss weight) pieces, beginning with <|bos|> nearly always."""
    pieces = [(BOS, 0)] if rng.random() < 0.95 else []
    turns = []
    if rng.random() < 0.1:
        system, turns = _system(rng)
        pieces.append((f"{SYSTEM}{system}{END}", 0))
    if num_turns is None:
        roll = rng.random()
        if roll < 0.08:
            turns = turns + _follow_ups(rng)
        elif roll < 0.12:
            turns = turns + [_draw(rng, _DIRECT) for _ in range(rng.choice([1, 2, 3]))]
        if not turns or rng.random() < 0.5 and roll >= 0.12:
            turns = turns + [rng.choices(_TASKS, _SHARES)[0](rng)]
    else:
        while len(turns) < num_turns:
            turns += _follow_ups(rng) if rng.random() < 0.3 else [_draw(rng, _DIRECT)]
        turns.append(rng.choices(_TASKS, _SHARES)[0](rng))
    for i, (question, thought, answer, answer_weight, thought_weight) in enumerate(turns):
        # Thoughts of earlier turns are forgotten, as the chat template does.
        kept = thought if i == len(turns) - 1 else None
        weight = answer_weight if kept is not None or thought is None else 0
        pieces += _turn(question, kept, answer, weight, thought_weight)
    return pieces


# --- Exams: the questions of evaluate.py -------------------------------------------------------------------

def exam_sums(digits, count=200):
    """(question, answer) of held-out sums, each pair once."""
    rng, seen = random.Random(f"exam sums {digits}"), set()
    while len(seen) < count:
        a, b = _number(rng, digits), _number(rng, digits)
        key = tuple(sorted((a, b)))
        if held_out(a, b) and key not in seen:
            seen.add(key)
            yield rng.choice(SUM_WORDINGS).format(a=a, b=b), str(a + b)


def _exam(task, count, **options):
    rng = random.Random(f"exam {task.__name__}")
    for _ in range(count):
        question, _, answer, _, _ = task(rng, **options)
        yield question, answer


def exam_compare(count=100):
    return _exam(compare, count)


def exam_sort(count=100):
    return _exam(sort_digits, count)


def exam_differences(count=100):
    return _exam(difference_thinking, count)


def exam_facts(count=100):
    return _exam(fact, count)


def exam_refusals(count=100):
    return _exam(refusal, count, exam=True)


def exam_stories(count=20):
    rng = random.Random("exam stories")
    return [story(rng)[0] for _ in range(count)]
