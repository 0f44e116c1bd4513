"""A grammar of small stories, written for mini-llm: who, where, what was wrong, who helped, how it ended.

`{a|b|c}` is one of its parts, `$name` a slot. A small model learns from it what a beginning, a middle and an end are.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

CHILDREN = {
    "girl": [
        "Mia",
        "Anna",
        "Tara",
        "Lila",
        "Nandi",
        "Rosa",
        "Amina",
        "Ella",
        "Maya",
        "Zuri",
        "Lucy",
        "Priya",
        "Hana",
        "Grace",
        "Nora",
        "Ida",
    ],
    "boy": [
        "Tom",
        "Ben",
        "Ravi",
        "Kofi",
        "Sam",
        "Leo",
        "Juma",
        "Max",
        "Omar",
        "Finn",
        "Arun",
        "Peter",
        "Jack",
        "Tunde",
        "Noah",
        "Emil",
    ],
}
ANIMALS = [
    "fox",
    "rabbit",
    "bear",
    "mouse",
    "elephant",
    "lion",
    "monkey",
    "hen",
    "duck",
    "goat",
    "cat",
    "dog",
    "frog",
    "tortoise",
    "hedgehog",
    "squirrel",
    "owl",
    "pig",
    "horse",
    "donkey",
    "zebra",
    "sparrow",
    "cow",
    "kitten",
    "puppy",
    "bee",
    "snail",
    "penguin",
    "turtle",
    "hippo",
    "giraffe",
    "wolf",
]
ANIMAL_NAMES = [
    "Pip",
    "Momo",
    "Tiko",
    "Bella",
    "Bobo",
    "Fuzzy",
    "Nibbles",
    "Coco",
    "Dusty",
    "Hop",
    "Kiki",
    "Luma",
    "Misty",
    "Oscar",
    "Poppy",
    "Rusty",
    "Sunny",
    "Tilly",
    "Zaza",
]
PEOPLE = [
    "king",
    "queen",
    "prince",
    "princess",
    "farmer",
    "fisherman",
    "baker",
    "tailor",
    "shepherd",
    "teacher",
    "giant",
    "wizard",
    "gardener",
    "sailor",
    "miller",
]
WOMEN = {"queen", "princess"}
PLACES = {
    "forest": "in a {deep|quiet|green|dark} forest", "village": "in a {small|little|quiet} village",
    "sea": "by the {wide|blue|cold} sea", "river": "beside a {wide|clear|slow} river",
    "farm": "on a {little|busy|big} farm", "mountain": "at the foot of a {high|snowy|blue} mountain",
    "town": "in a {noisy|little|busy} town", "lake": "near a {still|deep|shining} lake",
    "hill": "on top of a {green|windy|round} hill", "garden": "in a garden {full of flowers|behind an old wall}",
}  # fmt: skip
THINGS = [
    "red ball",
    "little boat",
    "golden key",
    "blue kite",
    "silver bell",
    "warm hat",
    "wooden flute",
    "round drum",
    "shiny stone",
    "yellow umbrella",
    "small lamp",
    "green scarf",
    "story book",
    "paper bird",
    "tin box",
    "clay pot",
    "woollen coat",
    "music box",
    "old map",
    "toy train",
]
FOODS = [
    "bread",
    "soup",
    "an apple pie",
    "honey cakes",
    "a big mango",
    "a basket of berries",
    "rice and beans",
    "a pot of porridge",
]
TRAITS = {
    "brave": "shy", "kind": "selfish", "clever": "careless", "curious": "bored", "gentle": "rough", "patient": "hasty",
    "cheerful": "sad", "quick": "slow", "helpful": "lazy", "honest": "sly",
}  # fmt: skip

OPENINGS = (
    "Once upon a time, there {was|lived} $a_hero {named|called} $name. $He lived $place.",
    "Once upon a time, $place, there lived $a_hero. $His name was $name.",
    "There was once $a_hero who lived $place. {Everybody|Everyone} called $him $name.",
    "Long ago, $place, lived $a_hero {named|called} $name.",
    "$name was $a_hero. $He lived $place with $his {mother|grandmother|family|old father}.",
    "One {sunny|cold|bright|rainy|windy} {morning|day}, $a_hero named $name {went for a walk|sat $place|woke up very early}.",
    "In the old days, $place, there was $a_hero whose name was $name.",
)
TRAIT_LINES = (
    "$name was very $trait.", "$He was $trait, and everyone {knew it|liked $him for it}.",
    "$name was {small|young}, but $he was $trait.", "There was no $kind as $trait as $name.", "",
)  # fmt: skip
ENDINGS = (
    "From that day on, $name and $friend were {the best of friends|never apart|always together}.",
    "That {night|evening}, $name {fell asleep with a smile|slept very well|went to bed happy}.",
    "And so they all lived happily {ever after|together}.", "$name never forgot that day.",
    "And {whenever|every time} $name {saw|met} $friend, they {laughed|smiled} {about it|and remembered that day}.",
    "$name had learned that $moral.", "\"Now I know that $moral,\" said $name.", "And that is how $name learned that $moral.",
    "Everyone was {happy|glad}, and nobody was happier than $name.",
)  # fmt: skip

# Each plot: its moral(s), then its sentences. A line in [ ] may be left out.
PLOTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "lost": ("{good friends look together|it is good to ask for help|two see more than one}", (
        "$name had $a_thing. $He {loved it very much|took it everywhere|played with it every day}.",
        "{One day|One morning}, the $thing was gone. {$name began to cry.|$name looked everywhere.|\"Where is my $thing?\" cried $name.}",
        "[$He looked {under the bed|behind the door|in the grass}. It was not there. $He looked {in the well|under the big tree|on the roof}. It was not there.]",
        "Then $friend_the came by. \"Why are you {so sad|crying}?\" {asked $friend|$friend asked}.",
        "\"I have lost my $thing,\" said $name. \"Do not {cry|worry},\" said $friend. \"{I will help you.|We will look for it together.|Let us look for it.}\"",
        "They {looked and looked|walked a long way|asked everyone they met}. At last, $friend {saw something|found it} {behind a stone|in the tall grass|in a nest in the tree|beside the water}. It was the $thing!",
        "\"Thank you, $friend!\" {said|cried} $name, and $he {danced for joy|hugged $friend|laughed aloud}.",
    )),
    "share": ("{a meal is better when it is shared|sharing makes everything taste better|who shares is never alone}", (
        "One {day|evening}, $name had $food for {supper|dinner}. \"This is all mine,\" $he {said|thought}.",
        "{Just then|Soon}, there was a knock at the door. It was $friend_the. \"I am {so|very} hungry,\" said $friend. \"Could you give me {a little|something to eat}?\"",
        "$name {looked at $his food|thought about it}. {There was not very much.|$He was hungry too.}",
        "But $friend looked so {tired|thin|cold} that $name was sorry. \"Come in,\" $he said. \"{There is enough for two.|We will share it.}\"",
        "They sat {by the fire|at the table|under the stars} and ate together. [$friend told a funny story, and $name laughed until $he cried.]",
        "The next {day|week}, it was $name who had nothing to eat. Then $friend came with a {full basket|big bag of food}. \"{You shared with me.|You were kind to me.} Now I will share with you,\" said $friend.",
    )),
    "afraid": ("{even small ones can be brave|to be brave is to be afraid and to go on|the dark is not so bad}", (
        "$name was afraid of {the dark|the thunder|deep water|the old house on the hill|loud noises}.",
        "[The others laughed at $him. \"You are {a baby|not brave},\" they said. That made $name sad.]",
        "One {night|day}, $name heard a small voice. \"Help! Help!\" It was $friend_the, who {had fallen into a hole|was caught in a net|could not get out of the mud|was stuck in a tree}.",
        "$name's heart beat {fast|hard}. $He wanted to run home. But {nobody else was there|there was no time}.",
        "\"I am coming!\" {called|said} $name. $He {took a long rope|found a strong branch} and pulled and pulled, until $friend was {free|safe}.",
        "\"You saved me,\" said $friend. \"{You are very brave.|You were not afraid!}\"",
        "\"I was afraid,\" said $name, \"but I {came anyway|did not run away}.\"",
    )),
    "boast": ("{it is better to be kind than to be proud|pride comes before a fall|slow and steady wins the race}", (
        "$name could run {faster than anyone else|very fast}, and $he {told everybody so|was very proud of it}.",
        "\"Nobody can beat me!\" $he said {every day|again and again}.",
        "\"I will race you,\" said $friend_the. {Everybody laughed, because $friend was slow.|$name laughed. \"You? You are so slow!\"}",
        "{The next morning|On Sunday}, the race began. $name ran {like the wind|far ahead}. Soon $he was so far ahead that $he {lay down under a tree|stopped to eat|sat down to rest}. \"I have {plenty of|much} time,\" $he said, and $he fell asleep.",
        "$friend did not {stop|rest}. $friend went on, step by step, {past the tree|past the sleeping $kind}.",
        "When $name woke up, the sun was {low|going down}. $He ran as fast as $he could. But it was too late. $friend had won.",
        "\"I am sorry that I laughed at you,\" said $name.",
    )),
    "truth": ("{it is best to tell the truth|a lie makes a small thing big|the truth is never too late}", (
        "One day, $name was playing in the house. {Crash!|Oh no!} $He {broke|had broken} {his mother's|the} {best cup|big blue jar|window}.",
        "\"Who {did this|broke it}?\" asked $his mother. \"It was the {cat|wind},\" said $name.",
        "All day, $name felt {bad|sad|a stone in $his heart}. $He could not {eat|play|sleep}.",
        "[\"What is wrong?\" asked $friend_the. $name told $friend everything. \"Tell her the truth,\" said $friend. \"It will feel better.\"]",
        "In the evening, $name went to $his mother. \"It was not the {cat|wind},\" $he said {softly|in a small voice}. \"It was me. I am sorry.\"",
        "$His mother {smiled|was not angry}. \"Thank you for telling me,\" she said. \"We can {mend it|clean it up} together.\"",
    )),
    "wish": ("{the best things are near|home is the best place|a wish is better when it is for another}", (
        "One {night|morning}, $name {found an old lamp|saw a falling star|helped an old woman with her bag}. \"You may have one wish,\" said a {soft|strange|deep} voice.",
        "$name thought {for a long time|hard}. $He could wish for gold. $He could wish for {a castle|a ship|wings}.",
        "Then $he saw $friend_the, who was {ill|sad|cold and hungry}. [$friend had no {home|warm bed|one to play with}.]",
        "\"I wish that $friend may be {well|happy} again,\" said $name.",
        "{At once|In a moment}, $friend {jumped up and laughed|began to smile and sing}. \"{What happened?|How did you do that?}\" asked $friend. $name only smiled.",
        "{The voice said: \"That was a good wish.\" And|The next day,} $name found $a_thing before $his door. {It was a present.|Nobody knew where it came from.}",
    )),
    "storm": ("{together we are strong|many small hands can do a great thing|a friend is a roof in the rain}", (
        "One day, the sky grew {dark|black}. The wind {blew|howled}, and the rain {fell and fell|came down hard}.",
        "$name ran home. {But the wind had taken the roof of $his house!|But a tree had fallen on $his house!} \"What shall I do now?\" said $name.",
        "$friend_the was the first to come. \"You can {stay with me|sleep in my house} tonight,\" said $friend.",
        "When the storm was over, all the {neighbours|animals|others} came to help. One brought wood. One brought {nails|rope}. One brought {soup|cake} for everybody.",
        "[They sang while they worked.] {By evening|In three days}, the house {was ready|had a new roof}. It was {even better than before|strong and warm}.",
        "\"Thank you, all of you,\" said $name. {\"How can I repay you?\" \"You would do the same for us,\" said $friend.|And they had a {big|great} feast.}",
    )),
    "moon": ("{some things are beautiful because we cannot keep them|it is good to look up}", (
        "Every night, $name looked at the moon. \"I want to {touch it|have it|bring it home},\" $he said.",
        "$He climbed the highest {tree|hill|roof}. But the moon was still too far away.",
        "$He {built|made} a long ladder. But the ladder was too short.",
        "\"What are you doing?\" asked $friend_the. \"I want the moon,\" said $name.",
        "$friend {smiled|laughed softly} and brought a {bowl|bucket} of water. \"Look,\" said $friend. The moon was shining in the water, {round and bright|white and still}.",
        "$name put one finger in the water, and the moon {danced|laughed|broke into little pieces of light}. \"I have touched the moon!\" {cried|said} $name.",
    )),
    "seed": ("{good things take time|who waits with care is not disappointed|small seeds become great trees}", (
        "One spring, $friend_the gave $name a {tiny|small|little} seed. \"{Take good care of it|Plant it},\" said $friend.",
        "$name put the seed {in the earth|in a pot}. Every {day|morning}, $he gave it water. But nothing {happened|grew}.",
        "\"{When will it grow?|Why does it not grow?}\" asked $name. \"{Wait|Be patient},\" said $friend.",
        "$name waited. It rained. The sun shone. [Some laughed at $him, because $he watered a pot with nothing in it.]",
        "Then, one morning, there was a {little green leaf|green shoot}. {The plant grew and grew.|Day by day it grew.} In summer, it {had a big yellow flower|was taller than $name|was full of sweet fruit}.",
        "$name called everyone to {see|look at} it, and $he gave {each of them a seed|the first {flower|fruit} to $friend}.",
    )),
    "new": ("{a friend may look different|it is easy to make a friend: say hello|one should not judge by looks}", (
        "One day, somebody new came: $friend_the. $friend {was different from the others|had come from far away|did not know anyone}.",
        "Nobody {wanted to play|spoke} with $friend. {$friend sat alone under a tree.|$friend was very lonely.}",
        "$name saw this. $He {remembered how it was to be alone|felt sorry}. $He went over and said: \"{Hello. I am $name. Would you like to play?|Hello! Come and play with me.}\"",
        "$friend {smiled for the first time|looked up and smiled}. They played {all day|with $name's $thing|until the sun went down}.",
        "The others came to {look|watch}. $friend could {sing|tell jokes|jump high|make toys out of wood} better than anyone! \"May we play too?\" they asked.",
        "\"Of course,\" said $friend. {Soon they were all laughing.|And they all played together.}",
    )),
    "thief": ("{a clever head is better than a strong arm|the one who digs a pit falls into it}", (
        "One day, a {greedy|hungry|wicked} wolf came. He wanted to {eat $name|steal all the food}.",
        "\"{Now I have you|I am going to eat you},\" said the wolf. $name was {afraid|frightened}, but $he {thought quickly|had an idea}.",
        "\"I am {so|very} {small|thin},\" said $name. \"$friend_the has a big cheese {in the well|at the bottom of the lake}. It is round and {white|yellow}. Come, I will show you.\"",
        "They went there {at night|in the dark}. The wolf looked down and saw {the moon in the water|something round and bright}. \"What a {big|fine} cheese!\" he {cried|said}, and he jumped in.",
        "Splash! The water was {cold|deep}, and there was no cheese. It was only the moon.",
        "$name ran {home|to $friend} and told {everything|the story}. They laughed {for a long time|until their sides hurt}. The wolf never came back.",
    )),
    "work": ("{work is light when it is done together|play is sweeter after work}", (
        "There was {much|a lot of} work to do. The {corn|wood|water} had to be brought home before {winter|night|the rain}.",
        "$name worked {hard|all day}. But $friend_the {lay in the sun|only sang and danced}. \"{Come and play|Why do you work so hard?}\" said $friend.",
        "\"First I must finish my work,\" said $name. \"Soon it will be {cold|winter}.\"",
        "{Then winter came.|Soon the snow fell.} $name was warm and had enough to eat. But $friend had {nothing|no food and no fire}.",
        "$friend {knocked at the door|came to $name}. \"I was {foolish|lazy},\" said $friend. \"Please help me.\"",
        "$name {let $friend come in|opened the door wide}. \"{Tonight you shall eat with me.|Sit down and eat.} But next year we will work together,\" $he said. And {that is what they did|so they did}.",
    )),
}  # fmt: skip
TITLES = {
    "lost": "The Lost $Thing", "share": "Enough for Two", "afraid": "$name Is Brave", "boast": "The Race",
    "truth": "The Broken Cup", "wish": "One Wish", "storm": "The Storm", "moon": "$name and the Moon",
    "seed": "The Little Seed", "new": "A New Friend", "thief": "$name and the Wolf", "work": "Before Winter",
}  # fmt: skip
REQUESTS = (
    "Tell me a story about $a_kind.", "Tell me a story about $a_kind named $name.", "Write a short story about $a_kind.",
    "Can you tell me a story about $a_kind and $a_friend?", "Write a story about $a_kind who is $trait.",
    "Please tell me a story with $a_kind in it.", "I would like a story about $a_kind.", "A story about $a_kind, please.",
    "Tell me a bedtime story about $a_kind.", "tell me a story about $a_kind", "Tell me a story called \"$title\".",
    "Tell me a story.", "Tell me a short story.", "Write a story for a child.", "Please tell me a story.",
)  # fmt: skip
_CHOICE = re.compile(r"\{([^{}]*)\}")


def _article(words: str) -> str:
    return ("an " if words[0].lower() in "aeiou" else "a ") + words


def expand(text: str, slots: dict[str, str], rng: random.Random) -> str:
    """`text` with its choices made, innermost first, and its slots filled."""
    while match := _CHOICE.search(text):
        text = text[: match.start()] + rng.choice(match[1].split("|")) + text[match.end() :]
    for _ in range(3):
        text = re.sub(r"\$(\w+)", lambda m: slots.get(m[1], m[0]), text)
    assert "$" not in text, text
    return text


def _cast(rng: random.Random) -> dict[str, str]:
    """The slots of one story: hero, friend, thing, food, place."""
    sort = rng.choice(["child", "animal", "animal", "animal", "person"])
    if sort == "child":
        kind = rng.choice(list(CHILDREN))
        name, female = rng.choice(CHILDREN[kind]), kind == "girl"
    elif sort == "animal":
        kind, name, female = rng.choice(ANIMALS), rng.choice(ANIMAL_NAMES), rng.random() < 0.5
    else:
        kind = rng.choice(PEOPLE)
        female = kind in WOMEN
        name = rng.choice(CHILDREN["girl" if female else "boy"])
    friend_kind = rng.choice([a for a in ANIMALS if a not in (kind, "wolf")])
    friend = rng.choice([n for n in ANIMAL_NAMES if n != name])
    trait = rng.choice(list(TRAITS))
    looks = rng.choice(["little", "young", "small", trait, trait, "", ""])
    thing = rng.choice(THINGS)
    he, him, his = ("she", "her", "her") if female else ("he", "him", "his")
    return {
        "name": name, "kind": kind, "a_kind": _article(kind), "a_hero": _article(f"{looks} {kind}".strip()), "he": he,
        "him": him, "his": his, "He": he.title(), "His": his.title(), "trait": trait, "thing": thing, "Thing": thing.title(),
        "a_thing": _article(thing), "food": rng.choice(FOODS), "place": PLACES[rng.choice(list(PLACES))],
        "friend": friend, "friend_the": f"{friend} the {friend_kind}", "a_friend": _article(friend_kind),
    }  # fmt: skip


def story(rng: random.Random) -> tuple[str, str, str]:
    """One story: a request for it, its title, its text."""
    slots = _cast(rng)
    plot = rng.choice(list(PLOTS))
    moral, lines = PLOTS[plot]
    slots["moral"] = expand(moral, slots, rng)
    slots["place"] = expand(slots["place"], slots, rng)
    slots["title"] = expand(TITLES[plot], slots, rng)
    opening = expand(rng.choice(OPENINGS), slots, rng)
    paragraphs = [" ".join(filter(None, (opening, expand(rng.choice(TRAIT_LINES), slots, rng))))]
    for line in lines:
        if line.startswith("[") and line.endswith("]") and rng.random() < 0.5:
            continue
        line = re.sub(r"\[([^\]]*)\]", lambda m: m[1] if rng.random() < 0.5 else "", line)
        text = re.sub(r" +", " ", expand(line, slots, rng)).strip()
        if rng.random() < 0.4 and not text.startswith('"'):
            paragraphs[-1] += " " + text
        else:
            paragraphs.append(text)
    paragraphs.append(expand(rng.choice(ENDINGS), slots, rng))
    title = slots["title"]
    return expand(rng.choice(REQUESTS), slots, rng), title, "\n\n".join(paragraphs)


def stories(count: int, seed: int) -> Iterator[tuple[str, str, str]]:
    """`count` different stories."""
    rng, seen = random.Random(seed), set()
    while len(seen) < count:
        made = story(rng)
        if made[2] not in seen:
            seen.add(made[2])
            yield made


if __name__ == "__main__":
    for request, title, text in stories(3, 1):
        print(request, "\n#", title, "\n" + text + "\n")
