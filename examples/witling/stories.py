"""The story grammar: who, where, with what, and fourteen plots.

A story is a pure function of a `random.Random`. Every plot is a list of beats, every beat a list of
wordings; one wording per beat is drawn and filled in from one cast, so names, pronouns, places and things
stay the same from the first sentence to the last. `read_back` is the judge: it parses a story again and says whether it kept
its cast.
"""

import functools
import re
import zlib

SHE = """Ada Bela Cora Dilly Edda Fern Greta Hazel Ida Juno Kira Lotte Mina Nella Olive Petra Rosa Senna Tilda
Una Vera Willa Yara Zora Anka Brida Clover Dotty Elsa Flora""".split()
HE = """Abel Boris Casper Dorin Emil Finn Gus Hugo Ivo Jasper Kip Linus Milo Nico Otto Piet Rufus Sander Tobin
Ulf Viktor Wendel Yorick Zeno Albin Bruno Conrad Edgar Felix Gregor""".split()
KINDS = """fox hare badger otter mouse owl hedgehog squirrel frog goose crow mole beaver bear wolf deer cat dog
robin heron duck goat toad rabbit miller baker sailor shepherd weaver gardener piper tailor""".split()
TRAITS = """small kind brave careful cheerful clever curious gentle patient quiet shy sleepy stubborn tidy young
busy merry proud""".split()
PLACES = [
    ("by", "the mill pond"), ("by", "the old bridge"), ("by", "the river"), ("by", "the harbour wall"),
    ("by", "the stone well"), ("by", "the waterfall"), ("by", "the lighthouse"), ("by", "the garden gate"),
    ("in", "the birch wood"), ("in", "the orchard"), ("in", "the reed marsh"), ("in", "the market square"),
    ("in", "the hollow oak"), ("in", "the quiet valley"), ("in", "the barn"), ("in", "the pine forest"),
    ("on", "the high meadow"), ("on", "the sandy shore"), ("on", "the windy hill"), ("on", "the island"),
    ("on", "the north road"), ("on", "the barley field"), ("at", "the watch tower"), ("at", "the ferry"),
    ("near", "the blue lake"), ("near", "the clock tower"), ("near", "the stepping stones"),
    ("behind", "the bakery"), ("under", "the willow tree"), ("under", "the great elm"),
]
THINGS = """lantern kite drum basket whistle scarf bell flute hammer kettle ladder mirror compass button ribbon
marble feather spoon blanket umbrella teapot candle wagon rope bucket cap needle jar spade brush map paddle
violin broom cushion shell key clock book box""".split()
LOOKS = """red blue green yellow silver golden wooden old new shiny striped tiny painted broken copper
round""".split()
FOODS = """plum_cake apple_pie warm_bread honey_cake pea_soup oat_porridge cherry_jam pumpkin_soup nut_bread
berry_tart roast_chestnuts potato_stew ginger_cake pear_juice mushroom_pie barley_soup blackberry_jam
carrot_cake""".split()
WHEN = [
    "One bright morning", "One cold morning", "On a rainy afternoon", "On the first day of spring",
    "One summer evening", "On a windy day", "Late in the autumn", "Early one morning", "On a quiet Sunday",
    "After a long winter", "One misty morning", "In the middle of summer", "On market day", "One frosty night",
    "Just after sunrise", "Shortly before noon", "On the last day of the harvest", "One golden afternoon",
]
SKILLS = ["swim", "whistle", "juggle", "skate", "dance", "row a boat", "bake bread", "play the flute", "fly a kite",
          "climb a tree", "sing", "tie a knot", "paint a picture", "count the stars"]
WORKS = ["a raft", "a bridge", "a little boat", "a cart", "a tree house", "a swing", "a bench", "a fence", "a bird house",
         "a windmill", "a table", "a sled"]
PLANTS = ["an apple tree", "a sunflower", "a pumpkin", "a rose bush", "a bean plant", "a cherry tree", "a row of peas",
          "a pear tree", "a lavender bush", "a strawberry plant"]
TRAPS = ["in the deep mud", "on the thin ice", "at the top of a tall tree", "on a rock in the stream",
         "in a thorn bush", "at the bottom of a ditch", "on a narrow ledge"]
NOISES = ["a scratching sound", "a low hum", "a tapping noise", "a soft rattle", "a strange whistle", "a slow creak"]

OPEN = [
    "Once there was a {trait} {k} named {H}, who lived {p}.",
    "{H} was a {trait} {k} who lived {p}.",
    "There was once a {trait} {k} called {H}, and {he} lived {p}.",
    "{H} the {k} lived {p}, and everyone knew how {trait} {he} was.",
    "Long ago a {trait} {k} named {H} lived {p}.",
    "A {trait} {k} named {H} had a little house {p}.",
]
FRIEND = [
    "{H} had a good friend, {F} the {fk}.",
    "{His} best friend was {F} the {fk}, who lived {q}.",
    "Not far away, {q}, lived {his} friend {F} the {fk}.",
    "Everyone there knew {F} the {fk} too, for {H} and {F} were always together.",
    "{F} the {fk} was {his} neighbour and {his} friend.",
]
CLOSE = [
    "From that day on, {H} and {F} were the best of friends.",
    "{H} went home with a warm heart and slept well.",
    "And that night the stars shone over {pn} a little brighter.",
    "{H} never forgot that day.",
    "They laughed about it all the way home.",
    "And if they have not moved away, {H} and {F} live there still.",
    "That evening they shared {food} and told the story to everyone.",
    "{F} smiled, and {H} smiled back.",
    "So the day ended well for both of them.",
    "It was the best day of the whole year.",
]

# theme of a request -> beats. Words in braces come from `cast` below.
PLOTS = {
    "a lost {o}": [
        ["{H} owned {a_o}, and {he} loved it more than anything.",
         "{His} greatest treasure was {a_o} that {his} grandmother had given {him}.",
         "{He} carried {a_o} wherever {he} went."],
        ["{when} the {o} was gone.", "{when} {H} reached for the {o} and found nothing.",
         "{when} {he} could not find the {o} anywhere."],
        ["{He} looked under the bed, behind the door and in every cupboard.",
         "{He} searched the whole house twice, but the {o} was not there.",
         "{He} turned out all the drawers and even looked up the chimney."],
        ["\"Have you seen my {o}?\" {he} asked {F}.", "\"My {o} is lost!\" {he} told {F}.",
         "{H} ran to {F} and asked for help."],
        ["\"Let us look {q},\" said {F}, and off they went.", "{F} thought for a moment. \"You were {q} yesterday,\" {fhe} said.",
         "\"Do not worry,\" said {F}. \"We will look for it together {q}.\""],
        ["There, {q}, something lay in the grass, and it was the {o}.",
         "They followed {his} own footprints, and there lay the {o}, wet but whole.",
         "A crow had carried it off, and now it lay {q}, just where {F} had said."],
        ["{H} hugged the {o} and thanked {F} again and again.", "\"Thank you, {F},\" said {H}. \"I would never have found my {o} alone.\"",
         "{H} was so happy that {he} danced with the {o} in {his} arms."],
    ],
    "a storm": [
        ["{when} dark clouds came over {pn}.", "{when} the wind began to howl around the roofs.",
         "{when} the sky turned as black as ink."],
        ["Rain beat on the windows, and thunder rolled over the hills.", "Soon the rain fell so hard that nobody could see the road.",
         "Lightning flashed, and the first branches broke."],
        ["{H} shut the door and lit a candle.", "{H} sat by the fire with a bowl of {food}.", "{H} pulled a blanket over {his} ears."],
        ["Then there was a knock at the door.", "Then {he} heard somebody calling for help.", "Suddenly somebody knocked three times."],
        ["It was {F}, wet from head to foot.", "Outside stood {F}, shaking with cold.", "There was {F}, and {fhis} roof had blown away."],
        ["\"Come in, come in!\" cried {H}.", "\"You may stay as long as you like,\" said {H}.", "{H} pulled {fhim} inside and gave {fhim} a dry blanket."],
        ["They ate {food} and listened to the storm together.", "All night they told each other stories, and the storm seemed far away.",
         "With two of them by the fire, the thunder was not frightening at all."],
        ["In the morning the sun shone, and together they mended what the storm had broken.",
         "By morning the storm had passed, and {pn} was quiet again.", "When they woke, a rainbow stood over {pn}."],
    ],
    "sharing": [
        ["{when} {H} made a large pot of {food}.", "{when} {H} found that {he} had more {food} than {he} could eat.",
         "{when} the smell of {food} came from {his} kitchen."],
        ["{F} was hungry, for {fhis} shelves were empty.", "{F} had eaten nothing since the day before.", "{F} had worked all day and had nothing for supper."],
        ["At first {H} wanted to keep everything for {himself}.", "\"This is all mine,\" {H} thought, and closed the window.",
         "{H} looked at the food and then at the door."],
        ["But eating alone was not much fun.", "But then {he} saw {F} sitting outside in the cold.", "But {he} remembered how {F} had once helped {him}."],
        ["\"Come and eat with me,\" {he} called.", "\"There is enough for two,\" said {H}, and set another place.",
         "{He} filled a second bowl and carried it to {F}."],
        ["{F} ate slowly and said that nothing had ever tasted so good.", "\"This is the best {food} in the world,\" said {F}.",
         "They ate until the pot was empty."],
        ["The next day {F} came back with {a_o} as a gift.", "In return {F} gave {H} {a_o}.", "A week later {a_o} stood at the door, and it was from {F}."],
    ],
    "building something": [
        ["{when} {H} decided to build {work}.", "{H} had always wanted to build {work}.", "{when} {H} had a plan: {he} would build {work}."],
        ["{He} gathered planks, nails and {a_o}.", "{He} carried wood {q} from sunrise to noon.", "{He} drew a picture of it in the sand first."],
        ["But the first try fell apart at once.", "But everything was crooked, and it broke before evening.", "But one pair of hands was not enough."],
        ["{H} sat down and sighed.", "\"I will never finish,\" said {H}.", "{H} almost gave up."],
        ["Then {F} came along and asked, \"May I help?\"", "{F} had watched from far away, and now {fhe} came closer.", "\"Four hands are better than two,\" said {F}."],
        ["{F} held the wood, and {H} hammered.", "{H} measured everything twice, and {F} tied the ropes.", "They worked side by side until the sun went down."],
        ["On the third day it was finished.", "When the last nail was in, they stepped back to look.", "At last it stood there, straight and strong."],
        ["All the neighbours came to see it.", "\"We built it together,\" said {H} proudly.", "They painted it {color} and gave it a name."],
    ],
    "a race": [
        ["{when} there was a great race from {pn} to {qn}.", "{when} everyone came to watch the race to {qn}.", "Every year there was a race from {pn} to {qn}."],
        ["The prize was {a_o}.", "The winner would get {a_o}.", "{H} wanted to win the prize, {a_o}."],
        ["{H} was fast, but {F} was faster.", "{H} and {F} ran side by side, and neither would slow down.", "{F} took the lead, and {H} ran close behind."],
        ["Half-way there, {F} stumbled and fell.", "Near the end, {F} slipped and hurt {fhis} foot.", "Then {F} tripped over a root."],
        ["{H} could have run on alone.", "Now nobody was in front of {H}.", "{H} saw the finish, and nobody stood in the way."],
        ["But {he} stopped and turned back.", "Instead {he} ran back and held out a hand.", "But {he} could not leave a friend behind."],
        ["\"Lean on me,\" said {H}, and they walked on together.", "\"We will finish together,\" {he} said.", "{He} helped {F} up, and step by step they went on."],
        ["They were the last to arrive, but everyone cheered.", "Somebody else won the race, but the loudest cheers were for {H} and {F}.",
         "The judge gave them both {a_o}, for kindness."],
    ],
    "learning to {skill}": [
        ["{H} wanted to learn to {skill}.", "More than anything, {H} wished to {skill}.", "Everyone {p} could {skill}, only {H} could not."],
        ["{when} {he} tried for the first time, and it went badly.", "{when} {he} tried, and everybody heard the crash.", "{when} {he} tried it alone and failed."],
        ["\"I am too {bad} for this,\" said {H}.", "\"I will never learn it,\" said {H} sadly.", "{H} wanted to hide {himself} {q}."],
        ["\"Nobody can do it on the first day,\" said {F}.", "{F} laughed kindly. \"I needed a whole year,\" {fhe} said.", "\"Try again tomorrow,\" said {F}, \"and I will come with you.\""],
        ["So they practised every day {q}.", "Day after day they met {q} and tried again.", "Each morning {F} showed {him} one small thing."],
        ["After a week it went a little better.", "On the tenth day something changed.", "Slowly, very slowly, it became easier."],
        ["And one day {H} could {skill} as well as anyone.", "Then, all at once, {H} could do it.", "At last {he} learned to {skill}, and {he} shouted for joy."],
        ["\"You see?\" said {F}.", "{F} clapped until {fhis} hands were sore.", "Now {H} teaches the little ones {q}."],
    ],
    "a noise in the night": [
        ["{when} {H} woke up and heard {noise}.", "In the middle of the night {H} heard {noise}.", "{H} was almost asleep when {he} heard {noise}."],
        ["It came from behind the door.", "It came from {qn}.", "It stopped, and then it began again."],
        ["{His} heart beat fast.", "{H} hid under the blanket and listened.", "\"Who is there?\" {he} whispered, but nobody answered."],
        ["At last {he} took {a_o} and crept outside.", "{He} picked up {a_o} and opened the door a little.", "Holding {a_o} tightly, {he} went to look."],
        ["Step by step {he} came closer.", "The moon was bright, and the grass was wet.", "The sound grew louder and louder."],
        ["And there sat {F}.", "It was only {F}.", "But it was no ghost. It was {F}."],
        ["\"I could not sleep,\" said {F}, \"so I was mending my {t}.\"", "\"I lost my {t} and did not want to wake you,\" said {F}.", "\"My {t} rolled away in the dark,\" said {F}, \"and I am looking for it.\""],
        ["{H} laughed so loudly that the owls flew up.", "\"You frightened me!\" said {H}, and then they both laughed.", "{H} sat down beside {F}, and they looked at the stars until morning."],
    ],
    "a gift": [
        ["{when} it was the birthday of {F}.", "The birthday of {F} was only one day away.", "{when} {H} remembered that it was the birthday of {F}."],
        ["{H} had no money for a gift.", "{H} looked for a gift {q}, but found nothing.", "\"What can I give {fhim}?\" {H} wondered."],
        ["{He} thought about it all day long.", "{He} walked up and down and thought.", "{He} asked everyone for advice."],
        ["Then {he} had an idea.", "Suddenly {he} knew what to do.", "In the evening {he} had a plan."],
        ["{He} took {his} own {o} and polished it until it shone.", "{He} made {a_o} with {his} own hands.", "All night {he} worked, and in the morning {a_o} lay on the table."],
        ["{F} opened the parcel with great care.", "{H} wrapped it in leaves and brought it to {F}.", "{H} put it in front of the door of {F} and hid behind a tree."],
        ["\"Nobody ever gave me such {an_x} {o},\" said {F}.", "\"It is the best gift of all, because you made it,\" said {F}.", "{F} held the {o} up to the light and could not speak for joy."],
        ["Then they ate {food} and sang.", "There was {food} for everyone, and they sang until late.", "They celebrated {q} until the moon came up."],
    ],
    "a quarrel": [
        ["{when} {H} and {F} found {a_o} {q}.", "{when} {H} and {F} both saw {a_o} lying {q}.", "{when} {a_o} lay {q}, and nobody knew whose it was."],
        ["\"I saw it first!\" said {H}.", "\"It is mine,\" said {H}.", "{H} took hold of one end."],
        ["\"No, I did!\" said {F}.", "\"No, it is mine,\" said {F}.", "{F} took hold of the other end."],
        ["They pulled and pulled, until the {o} fell to the ground.", "They shouted so loudly that the birds flew away.", "They were so angry that they went home without a word."],
        ["For three days they did not speak.", "The whole evening each of them sat alone.", "But at home {H} could not eat and could not sleep."],
        ["\"{An_o} is not worth a friend,\" thought {H}.", "\"I miss {F},\" thought {H}.", "In the end {H} was sorry."],
        ["{He} went to {F} and said, \"You may have it.\"", "{He} knocked at the door of {F}. \"I was wrong,\" {he} said.", "{He} took the {o} and laid it at the feet of {F}."],
        ["\"Let us share it,\" said {F}.", "\"I was wrong too,\" said {F}, and they shook hands.", "Now {H} has the {o} in summer, and {F} has it in winter."],
    ],
    "a rescue": [
        ["{when} {H} was walking {q} and heard a cry.", "{when} {H} heard somebody shout {q}.", "{when} a faint voice called from {qn}."],
        ["It was {F}, stuck {trap}.", "There was {F}, stuck {trap}.", "{F} was stuck {trap} and could not move."],
        ["\"Hold on!\" cried {H}.", "\"Do not move!\" called {H}.", "\"I am coming!\" shouted {H}."],
        ["{He} tried to reach {fhim}, but {his} arms were too short.", "{He} came as close as {he} dared, but it was not close enough.", "{He} pulled with all {his} strength, but it did not help."],
        ["Then {he} remembered {his} {o}.", "Then {he} thought of the {o} in {his} bag.", "Beside the path lay an old {o}, and that gave {him} an idea."],
        ["{He} held out the {o}, and {F} took hold of it.", "With the {o} {he} could just reach {F}.", "{F} held on to the {o} with both hands, and {H} pulled."],
        ["One, two, three, and {F} was free.", "Slowly, inch by inch, {F} came closer, and then {fhe} was safe.", "There was a loud crack, and then {F} was safe."],
        ["\"You saved me,\" said {F}.", "{F} was cold and muddy, but {fhe} laughed.", "At home {H} gave {fhim} hot {food}."],
    ],
    "the market": [
        ["{when} {H} went to the market with {a_o}.", "{when} {H} took {his} {o} to the market to sell it.", "{when} {H} carried {a_o} to the market."],
        ["{He} hoped to trade it for {a_t}.", "{He} needed {a_t} for the winter.", "{He} wanted to buy {a_t}."],
        ["But nobody wanted the {o}.", "All morning people walked past.", "A rich man laughed at the {o}."],
        ["At noon {F} came by with {a_t}.", "Then {H} saw {F}, and {F} was carrying {a_t}.", "In the next stall sat {F}, selling {a_t}."],
        ["\"I have been looking for {an_o} like that all year,\" said {F}.", "{F} looked at the {o} and smiled.", "\"What a fine {o}!\" said {F}."],
        ["\"Shall we trade?\" asked {H}.", "\"Then take it,\" said {H}, \"and give me the {t}.\"", "\"I will give you my {t} for it,\" said {F}."],
        ["So {H} got the {t}, and {F} got the {o}.", "They shook hands, and each had what they needed.", "They traded, and both thought they had the better part."],
        ["On the way home they bought {food} with their last coin.", "{H} sang all the way home.", "That evening {H} put the {t} beside the fire."],
    ],
    "a letter": [
        ["{when} a letter came for {F}, but it was left at the wrong house.", "{when} {H} found a letter on the doorstep, and it was for {F}.", "{when} {H} was asked to carry a letter to {F}."],
        ["{F} lived far away, {q}.", "The way to {F} was long, for {fhe} lived {q}.", "{H} had to walk all the way to {qn}, where {F} lived."],
        ["{H} packed some {food} and set out.", "{H} put the letter under {his} hat and began to walk.", "{H} took {a_o} and set off at once."],
        ["At the first crossing {he} lost the way.", "Soon it began to rain, and {he} kept the letter dry under {his} coat.", "The bridge was broken, so {he} had to wade."],
        ["But {he} did not turn back.", "\"A letter must arrive,\" {he} said to {himself}.", "{His} feet hurt, but {he} went on."],
        ["Late in the evening {he} knocked at the door of {F}.", "At last {he} saw a light, and there stood {F}.", "As the sun went down, {he} came to the house of {F}."],
        ["{F} read the letter, and {fhis} eyes grew bright.", "\"My sister is coming home!\" cried {F}.", "\"It is good news,\" said {F}. \"The best news of the year.\""],
        ["\"Stay for supper,\" said {F}.", "{H} forgot {his} sore feet at once.", "{F} gave {H} {food} and a bed for the night."],
    ],
    "a garden": [
        ["{when} {H} planted {plant} {q}.", "{when} {H} dug a hole {q} and planted {plant}.", "{H} had a garden {q}, and {when_low} {he} planted {plant} there."],
        ["Every day {he} gave it water.", "{He} watered it with {his} {o} every morning.", "{He} put a little fence around it."],
        ["But for weeks nothing happened.", "But nothing grew, not even a leaf.", "A whole month passed, and the earth stayed bare."],
        ["\"It is dead,\" said {H}.", "\"Perhaps I did something wrong,\" said {H}.", "{H} grew sad and wanted to dig it up."],
        ["\"Good things take time,\" said {F}.", "\"Wait a little longer,\" said {F}.", "{F} put an ear to the ground. \"I can hear it growing,\" {fhe} said."],
        ["So they waited together.", "So {H} waited, and {F} came every day to wait with {him}.", "They sat beside it in the evenings and talked."],
        ["Then one morning a small green tip came out of the earth.", "And then, after a warm rain, the first leaf appeared.", "At last something green showed itself."],
        ["By the end of summer it was taller than {F}.", "A year later everyone came to look at it.", "In autumn they made {food} and ate it in the garden."],
    ],
    "the fog": [
        ["{when} a thick fog came down on {pn}.", "{when} the fog was so thick that {H} could not see {his} own feet.", "{when} white fog covered everything."],
        ["{H} was on the way to {F} with some {food}.", "{H} was far from home, {q}.", "{H} had promised to visit {F}, so {he} went out anyway."],
        ["After a while {he} did not know where {he} was.", "Every tree looked like every other tree.", "{He} walked in a circle and came back to the same stone."],
        ["\"Hello?\" {he} called, but the fog swallowed the word.", "{He} sat down and tried not to cry.", "{He} listened, but it was silent."],
        ["At home, {F} began to worry.", "Meanwhile {F} waited and looked out of the window.", "{F} saw that {H} was late."],
        ["{fHe} took {a_o} and struck it again and again.", "{fHe} lit a big fire {q}.", "{fHe} climbed on the roof and began to sing."],
        ["Far away {H} noticed it and walked towards it.", "{H} turned {his} head. \"That must be {F}!\" {he} said.", "Through the fog {H} found the way, step by step."],
        ["When {he} arrived, they fell into each other's arms.", "\"I knew you would come,\" said {F}.", "Soon they sat in the warm kitchen, and the fog stayed outside."],
    ],
}
THEMES = list(PLOTS)


def wording(rng, wordings):
    """One of several ways to say it; the first is the usual one, so that a model can tell the likely from the possible."""
    usual = 0.65 if len(wordings) > 2 else 0.75
    return wordings[0] if len(wordings) == 1 or rng.random() < usual else rng.choice(wordings[1:])


def prefer(rng, choices, context):
    """One of `choices`; one in three times the favourite of `context`, as foxes have favourite places."""
    if rng.random() < 0.35:
        return choices[zlib.crc32(f"{context} {choices[0]}".encode()) % len(choices)]
    return rng.choice(choices)


def with_article(noun_phrase):
    return ("an " if noun_phrase[0] in "aeiou" else "a ") + noun_phrase


def capitalised(text):
    return text[0].upper() + text[1:]


def cast(rng, name=None, kind=None, theme=None, thing=None, place=None):
    """The words that fill one story; what the caller does not fix is drawn."""
    hero_kind = kind or prefer(rng, KINDS, "hero")
    hero = name or prefer(rng, SHE + HE, hero_kind)
    friend_kind = prefer(rng, [k for k in KINDS if k != hero_kind], hero_kind)
    friend = prefer(rng, [n for n in SHE + HE if n != hero], friend_kind)
    female = hero in SHE or hero not in HE and zlib.crc32(hero.encode()) % 2 == 0
    home = place or prefer(rng, PLACES, hero_kind)
    away = prefer(rng, [p for p in PLACES if p != home], friend_kind)
    obj = thing or prefer(rng, THINGS, hero_kind)
    other = prefer(rng, [t for t in THINGS if t != obj], obj)
    theme = theme or prefer(rng, THEMES, hero_kind)
    when = prefer(rng, WHEN, theme)
    look = prefer(rng, LOOKS, obj)
    words = {
        "H": hero, "k": hero_kind, "F": friend, "fk": friend_kind, "trait": prefer(rng, TRAITS, hero_kind),
        "p": " ".join(home), "pn": home[1], "q": " ".join(away), "qn": away[1],
        "o": obj, "a_o": with_article(f"{look} {obj}"), "t": other,
        "a_t": with_article(f"{prefer(rng, LOOKS, other)} {other}"),
        "an_x": with_article(look), "an_o": with_article(obj), "An_o": capitalised(with_article(obj)), "when": when, "when_low": when[0].lower() + when[1:],
        "food": prefer(rng, FOODS, friend_kind).replace("_", " "), "skill": prefer(rng, SKILLS, hero_kind),
        "work": prefer(rng, WORKS, hero_kind), "plant": prefer(rng, PLANTS, hero_kind), "trap": prefer(rng, TRAPS, friend_kind),
        "noise": prefer(rng, NOISES, hero_kind), "color": prefer(rng, LOOKS[:6], theme),
        "bad": prefer(rng, ["old", "slow", "small", "clumsy", "weak"], hero_kind), "theme": theme,
    }
    for prefix, is_female in (("", female), ("f", friend in SHE)):
        he, him, his = ("she", "her", "her") if is_female else ("he", "him", "his")
        words.update({prefix + "he": he, prefix + "him": him, prefix + "his": his, prefix + "himself": him + "self",
                      prefix + "He": capitalised(he), prefix + "His": capitalised(his)})
    return words


def tell(rng, words):
    """One story, as one paragraph."""
    beats = [OPEN, FRIEND] + PLOTS[words["theme"]] + ([CLOSE] if rng.random() < 0.85 else [])
    sentences = []
    for wordings in beats:
        text = wording(rng, wordings)
        # "One morning, the kettle was gone": the comma follows the time when a clause begins after it.
        text = text.replace("{when} ", "{when}, ") if rng.random() < 0.2 else text
        sentences.append(capitalised(text.format(**words)))
    return " ".join(sentences)


def emphasised(text, words, weight, cast_weight):
    """`text` as (piece, weight) pairs: names, kinds, things and pronouns of the cast weigh more than the rest.

    They are what a story must remember; everything between them is easily guessed from the last few words.
    """
    slots = ["H", "F", "k", "fk", "o", "t", "he", "him", "his", "He", "His", "fhe", "fhim", "fhis", "fHe", "fHis"]
    pattern = r"( ?\b(?:" + "|".join({re.escape(words[slot]) for slot in slots}) + r")\b)"
    pieces = re.split(pattern, text)
    return [(piece, cast_weight if i % 2 else weight) for i, piece in enumerate(pieces) if piece]


# --- Reading a story back ------------------------------------------------------------------------------------

_SLOT = re.compile(r"\{(\w+)\}")
_FEMALE = {"she": True, "her": True, "herself": True, "he": False, "him": False, "his": False, "himself": False}
_PLACE = "|".join(f"{preposition} {place}" for preposition, place in PLACES)
_PRONOUNS = {"he": "he|she", "him": "him|her", "his": "his|her", "himself": "himself|herself", "He": "He|She", "His": "His|Her"}
# What may stand in a slot: names may be any, so that a story about an unknown hero can be read.
_FILLERS = {
    "H": "[A-Z][a-z]+", "F": "[A-Z][a-z]+", "k": "|".join(KINDS), "fk": "|".join(KINDS), "trait": "|".join(TRAITS),
    "p": _PLACE, "q": _PLACE, "pn": "|".join(p for _, p in PLACES), "qn": "|".join(p for _, p in PLACES),
    "o": "|".join(THINGS), "t": "|".join(THINGS), "a_o": "an? [a-z]+ [a-z]+", "a_t": "an? [a-z]+ [a-z]+",
    "an_x": "an? [a-z]+", "an_o": "an? [a-z]+", "An_o": "An? [a-z]+", "when": "|".join(WHEN), "when_low": "|".join(w[0].lower() + w[1:] for w in WHEN),
    "food": "|".join(FOODS).replace("_", " "), "skill": "|".join(SKILLS), "work": "|".join(WORKS),
    "plant": "|".join(PLANTS), "trap": "|".join(TRAPS), "noise": "|".join(NOISES), "color": "|".join(LOOKS), "bad": "[a-z]+",
    **_PRONOUNS, **{"f" + slot: filler for slot, filler in _PRONOUNS.items()},
}


@functools.cache
def _pattern(wording):
    """The wording as (regular expression, names of its slots)."""
    pieces = _SLOT.split(wording)
    text = "".join(re.escape(p) if i % 2 == 0 else f"({_FILLERS[p]})" for i, p in enumerate(pieces))
    if wording.startswith("{when} "):
        text = text.replace(r")\ ", r"),?\ ", 1)
    return re.compile(text + r"(?: |$)"), pieces[1::2]


def _read(text, start, beats):
    """The (slot, value) pairs of text[start:] told along `beats`, or None."""
    if not beats:
        return [] if start >= len(text) else None
    for wording in beats[0]:
        pattern, slots = _pattern(wording)
        match = pattern.match(text, start)
        rest = _read(text, match.end(), beats[1:]) if match else None
        if rest is not None:
            return list(zip(slots, match.groups())) + rest
    return None


def read_back(text):
    """(theme, whether one cast was kept from beginning to end), or (None, False) for what the grammar cannot tell."""
    for theme, beats in PLOTS.items():
        told = None
        for end in ([CLOSE], []):
            told = told or _read(text, 0, [OPEN, FRIEND] + beats + end)
        if told:
            return theme, _one_cast(told)
    return None, False


def _one_cast(told):
    seen = {}
    for slot, value in told:
        value = value.lower()
        base = slot.lower().removeprefix("f") if slot not in ("food", "fk") else slot
        if base in ("he", "him", "his", "himself"):
            slot, value = ("friend is female" if slot[0] == "f" else "hero is female"), _FEMALE.get(value)
        seen.setdefault(slot, set()).add(value)
    if any(len(values) > 1 for values in seen.values()):
        return False
    one = {slot: next(iter(values)) for slot, values in seen.items()}

    def agree(whole, part):
        return whole not in one or part not in one or one[whole].endswith(one[part])

    return agree("a_o", "o") and agree("an_o", "o") and agree("a_t", "t") and agree("p", "pn") and agree("q", "qn")
