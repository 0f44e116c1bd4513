"""A made-up place and its papers, for questions of which the answers are known. By hand: the sentences; by a seed: what
fills them. `TEST` is measured alone; `DEV` has other kinds, other sentences, other names, and set the thresholds."""

from __future__ import annotations

from typing import NamedTuple


class Fact(NamedTuple):
    """A thing to know: values, ways to state it, ways to ask for it in other words. {n} is the name, {v} the value."""

    values: list[str]
    said: list[str]
    asked: list[str]


class Kind(NamedTuple):
    """Papers of one kind: their format, title, names, facts, filling, and questions that they do not answer."""

    suffix: str
    title: str
    names: list[str]
    facts: list[Fact]
    filling: list[str]
    unanswered: list[str]


class Prose(NamedTuple):
    """A paper by hand, with questions and the words that answer them."""

    name: str
    title: str
    text: str
    asked: list[tuple[str, str]]


LIGHTS = Kind(
    "html", "The lighthouse at {n}",
    ["Gannet Point", "Sallow Ness", "Tern Rock", "Mewstone Bar", "Orrin Head", "Puffin Stack", "Kittle Sound"],
    [
        Fact(
            ["31 metres", "24 metres", "18 metres", "42 metres", "27 metres", "36 metres", "21 metres"],
            ["From its foundations to the vane the tower rises {v}.", "The tower stands {v} above the rock."],
            ["How tall is the lighthouse at {n}?", "What is the height of the {n} light?"],
        ),
        Fact(
            ["1811", "1836", "1858", "1874", "1829", "1902", "1847"],
            ["Masons finished the building in {v}, after three winters of work.", "It was first lit in the autumn of {v}."],
            ["When was the lighthouse at {n} built?", "In which year did the {n} light begin to shine?"],
        ),
        Fact(
            ["green", "white", "red", "amber", "blue", "violet", "orange"],
            ["Ships know it by its {v} beam.", "Its lamp shows {v} to the sea."],
            ["What colour does the lighthouse at {n} shine?", "Which colour is the lamp at {n}?"],
        ),
        Fact(
            ["Agnes Thorne", "Peter Loam", "Hedda Voss", "Silas Brook", "Ruth Quill", "Owen Darrow", "Mina Falk"],
            ["Its last keeper, {v}, left when the lamp was made automatic.", "{v} tended the lamp until the machines came."],
            ["Who was the last person to look after the lighthouse at {n}?", "Who kept the {n} light at the end?"],
        ),
        Fact(
            ["20 seconds", "45 seconds", "30 seconds", "90 seconds", "60 seconds", "75 seconds", "25 seconds"],
            ["In fog a horn sounds every {v}.", "When the mist comes down, the horn is blown every {v}."],
            ["How often is the foghorn heard at {n}?", "At what interval does the horn blow in mist at {n}?"],
        ),
    ],
    [
        "The path from the car park is steep and has no railing.",
        "Gulls nest on the ledges below, and visitors are asked to keep their dogs on a lead.",
        "The walls are whitewashed each spring by volunteers.",
    ],
    ["How many stairs are there inside the lighthouse at {n}?", "What does a ticket to climb the {n} light cost?"],
)  # fmt: skip

BUSES = Kind(
    "md", "Bus line {n}",
    ["K4", "K7", "K9", "K12", "K15", "K21", "K30"],
    [
        Fact(
            ["5:40", "6:05", "4:55", "6:30", "7:10", "5:15", "6:50"],
            ["On working days the first coach leaves the depot at {v}.", "Service begins at {v} from Monday to Friday."],
            ["What time does the earliest {n} bus set off on weekdays?", "When does {n} start running in the morning?"],
        ),
        Fact(
            ["2.40 crowns", "3.10 crowns", "1.90 crowns", "4.20 crowns", "2.75 crowns", "3.60 crowns", "5.05 crowns"],
            ["A single ride is {v}; children travel free.", "Passengers pay {v} for one journey."],
            ["How much is a ticket for the {n} bus?", "What does it cost to ride on {n}?"],
        ),
        Fact(
            ["Abbot's Wharf", "the Tannery", "Larkfield Cross", "Upper Quarry", "Mill Green", "the Observatory", "Cask Lane"],
            ["The line ends at {v}, where there is a shelter.", "All coaches turn around at {v}."],
            ["What is the last stop of {n}?", "Where does the {n} bus terminate?"],
        ),
        Fact(
            ["Hollin & Sons", "Merrow Coaches", "Redway Transit", "Bluebell Lines", "Castle Motors", "Pennant Travel",
             "Northgate Cars"],
            ["The route is operated by {v} under a contract with the county.", "{v} provide the coaches and the drivers."],
            ["Which company runs the {n} bus?", "Who is the operator of line {n}?"],
        ),
    ],
    [
        "Folding bicycles are carried if there is room beside the door.",
        "In snow the upper part of the valley is left out.",
        "Lost property is kept for a month at the depot.",
    ],
    ["How many seats does a {n} coach have?", "Is there wireless internet aboard {n}?"],
)  # fmt: skip

RECIPES = Kind(
    "docx", "{n}",
    ["Merrow plum cake", "Shepherd's rye loaf", "Harbour fish pie", "Walnut moon biscuits", "Smoked leek tart",
     "Miller's honey bread"],
    [
        Fact(
            ["170 degrees", "230 degrees", "190 degrees", "160 degrees", "200 degrees", "210 degrees"],
            ["Heat the oven to {v} before you begin.", "Set the oven to {v} and grease a tin."],
            ["How hot should the oven be for {n}?", "At what temperature do I bake {n}?"],
        ),
        Fact(
            ["50 minutes", "75 minutes", "35 minutes", "12 minutes", "40 minutes", "55 minutes"],
            ["Leave it in the oven for {v}, until the top is brown.", "It needs {v} in the heat and must not be disturbed."],
            ["How long does {n} bake?", "For what length of time does {n} stay in the oven?"],
        ),
        Fact(
            ["a pinch of saffron", "two spoons of treacle", "a handful of dill", "ground cardamom", "a glass of cider",
             "chopped rosemary"],
            ["Stir in {v}, which gives the dish its character.", "The secret is {v}: do not leave it out."],
            ["What is the special ingredient of {n}?", "Which flavouring makes {n} what it is?"],
        ),
        Fact(
            ["eight people", "twelve people", "four people", "twenty people", "six people", "ten people"],
            ["The amounts given here are enough for {v}.", "It feeds {v} with some left for the cat."],
            ["How many guests can be served with {n}?", "How many portions does {n} make?"],
        ),
    ],
    [
        "Use flour from this year's harvest if you can get it.",
        "My grandmother wrote this down on the back of a calendar.",
        "Let it cool on a rack with a cloth over it.",
    ],
    ["How many calories are in {n}?", "Which wine goes well with {n}?"],
)  # fmt: skip

MACHINES = Kind(
    "pdf", "Operating manual: {n}",
    ["Vexa 200 pump", "Torrin saw", "Aldo press", "Quern mixer", "Bristow lathe", "Halden drill"],
    [
        Fact(
            ["14 litres", "3 litres", "22 litres", "9 litres", "6 litres", "1.5 litres"],
            ["The oil reservoir holds {v} and is filled from above.", "Fill the reservoir with {v} of oil before the first use."],
            ["How much oil goes into the {n}?", "What is the capacity of the oil tank of the {n}?"],
        ),
        Fact(
            ["86 kilograms", "41 kilograms", "310 kilograms", "127 kilograms", "540 kilograms", "19 kilograms"],
            ["Two people must lift it: the machine weighs {v}.", "With its stand the machine weighs {v}; use a hoist."],
            ["How heavy is the {n}?", "What is the weight of the {n}?"],
        ),
        Fact(
            ["E17", "F03", "H22", "C08", "E41", "J11"],
            ["If the motor is too hot, the display shows {v} and the drive stops.", "Overheating of the motor is reported as {v}."],
            ["Which error code does the {n} give when it gets too warm?",
             "What does the screen of the {n} say if the motor overheats?"],
        ),
        Fact(
            ["400 hours", "150 hours", "1,000 hours", "250 hours", "600 hours", "80 hours"],
            ["Have the bearings inspected after every {v} of operation.", "Every {v} of operation a mechanic must inspect it."],
            ["How often must the {n} be serviced?", "After how much running time does the {n} need maintenance?"],
        ),
        Fact(
            ["five years", "two years", "eighteen months", "ten years", "three years", "one year"],
            ["Faults of material are covered for {v} from the day of purchase.", "The maker repairs defects free of charge for {v}."],
            ["How long is the guarantee on the {n}?", "What is the warranty period of the {n}?"],
        ),
    ],
    [
        "Never reach into the housing while the drive is turning.",
        "Wear goggles and tie back long hair.",
        "Keep this manual beside the machine.",
    ],
    ["How loud is the {n} in decibels?", "In which country is the {n} manufactured?"],
)  # fmt: skip

MODULES = Kind(
    "py", "{n}",
    ["tidewatch", "lampqueue", "ferrybook", "grainstore", "snowgauge", "beaconlog"],
    [
        Fact(
            ["12 seconds", "90 seconds", "4 seconds", "300 seconds", "25 seconds", "7 seconds"],
            ["A request is given up after {v} without an answer.", "Without an answer a connection is dropped after {v}."],
            ["What is the timeout of {n}?", "How long does {n} wait for a reply?"],
        ),
        Fact(
            ["StaleReading", "QueueJammed", "BerthTaken", "SackMissing", "SensorFrozen", "LogTorn"],
            ["Raises {v} where the data cannot be trusted.", "Callers must be ready for {v}, which tells of bad data."],
            ["Which exception does {n} throw?", "What error does {n} raise for bad data?"],
        ),
        Fact(
            ["Ines Calder", "Tomas Reed", "Wilma Stone", "Jakob Lind", "Petra Moss", "Edwin Marsh"],
            ["Written and looked after by {v}.", "Maintainer: {v}; send patches there."],
            ["Who is responsible for the code of {n}?", "Who wrote the module {n}?"],
        ),
        Fact(
            ["six times", "twice", "ten times", "three times", "eight times", "five times"],
            ["A call that fails is tried again {v}, with growing pauses.", "Failed calls are repeated {v} before anyone is told."],
            ["How many retries does {n} make?", "How many attempts follow when a call of {n} does not succeed?"],
        ),
    ],
    [
        "Nothing here is safe to call from several threads.",
        "Times are kept in UTC throughout.",
        "The format of the files is that of the old harbour office.",
    ],
    ["Under which licence is {n} distributed?", "Which database does {n} store its records in?"],
)  # fmt: skip

OBJECTS = Kind(
    "html", "Catalogue: {n}",
    ["the Otter Bowl", "the Bishop's clock", "the Wicker Crown", "the Salt Ledger", "the Heron flute", "the Copper Map"],
    [
        Fact(
            ["Lucan Frey", "Dorothea Pell", "Amos Wray", "Benedict Sorrel", "Isolde Karr", "Matthias Orme"],
            ["It is the work of {v}, whose mark is on the base.", "A scratched signature shows that {v} made it."],
            ["Who made {n}?", "Which craftsman created {n}?"],
        ),
        Fact(
            ["walnut and silver", "pewter", "willow and horn", "vellum", "boxwood", "beaten copper and tin"],
            ["Material: {v}, cleaned in our own workshop.", "The piece consists of {v} and is in good condition."],
            ["What is {n} made of?", "Out of which material was {n} crafted?"],
        ),
        Fact(
            ["a ditch near Ashby", "the attic of the old school", "a barrow on Crane Hill", "the cellar of the Corn Exchange",
             "a peat bog at Lowmoor", "the wreck of the Verity"],
            ["It came to light in {v}.", "Workmen discovered it in {v}."],
            ["Where was {n} found?", "From what place was {n} recovered?"],
        ),
        Fact(
            ["1923", "1968", "1887", "1951", "1979", "1934"],
            ["The museum has owned it since {v}.", "It entered the collection in {v}."],
            ["In what year did the museum get {n}?", "Since when has {n} belonged to the museum?"],
        ),
    ],
    [
        "Photographs may be taken without a flash.",
        "The case stands in the second room, to the left of the stairs.",
        "A replica is shown to school classes.",
    ],
    ["For how much money is {n} insured?", "Which university has studied {n}?"],
)  # fmt: skip

POLICIES = Kind(
    "md", "{n}",
    ["Rules for parental leave", "Rules for travel", "Rules for home working", "Rules for training courses",
     "Rules for company bicycles", "Rules for visitors"],
    [
        Fact(
            ["Form 12", "Form 31", "Form 7", "Form 22", "Form 45", "Form 18"],
            ["Apply with {v}, which lies at the reception.", "Requests are made on {v} and signed by hand."],
            ["Which paper do I fill in, according to the {l}?", "What form is needed under the {l}?"],
        ),
        Fact(
            ["Mrs Oakes", "Mr Tarn", "Ms Ivory", "Dr Selby", "Mr Rusk", "Mrs Lovell"],
            ["{v} decides within a week.", "The decision is made by {v} alone."],
            ["Who gives approval under the {l}?", "Whose permission is required by the {l}?"],
        ),
        Fact(
            ["three weeks", "ten days", "two months", "four days", "six weeks", "48 hours"],
            ["Hand it in at least {v} ahead.", "It must arrive no later than {v} beforehand."],
            ["How early must one apply under the {l}?", "What is the notice period in the {l}?"],
        ),
    ],
    [
        "These rules hold for all departments.",
        "Whoever has worked here for less than half a year should ask first.",
        "Older versions of this page are no longer valid.",
    ],
    ["What is the penalty for breaking the {l}?"],
)  # fmt: skip

PLANTS = Kind(
    "txt", "{n}",
    ["Lantern thistle", "Marsh bellwort", "Creeping sunwort", "Widow's fern", "Tall emberleaf", "Frost campion"],
    [
        Fact(
            ["June", "April", "August", "October", "May", "February"],
            ["It blossoms in {v} and smells of almonds.", "Its petals open in {v}."],
            ["In which month does {n} flower?", "When can I see {n} in bloom?"],
        ),
        Fact(
            ["80 centimetres", "15 centimetres", "5 centimetres", "120 centimetres", "2 metres", "30 centimetres"],
            ["A full-grown plant reaches {v}.", "It grows to {v} and then spreads sideways."],
            ["How high does {n} get?", "What size does {n} reach?"],
        ),
        Fact(
            ["chalk", "wet clay", "sand", "leaf mould", "gravel", "peat"],
            ["It thrives on {v} and dies on anything else.", "Plant it in {v}."],
            ["What soil does {n} need?", "Which ground suits {n}?"],
        ),
        Fact(
            ["the berries", "the root", "the sap", "the young shoots", "the seeds", "the leaves"],
            ["Be careful with {v}, for they are poisonous." , "Of this plant {v} can make cattle ill."],
            ["Which part of {n} is toxic?", "What part of {n} is dangerous to eat?"],
        ),
    ],
    [
        "Slugs leave it alone.",
        "It was first drawn by a travelling monk.",
        "Divide the clump every few years.",
    ],
    ["Which butterfly feeds on {n}?", "What does a packet of {n} seed cost?"],
)  # fmt: skip

MINUTES = Kind(
    "docx", "Minutes of the {n}",
    ["harbour committee", "allotment society", "bridge trust", "choir board", "flood council", "market guild"],
    [
        Fact(
            ["Clara Finch", "Hugo Brandt", "Nora Sykes", "Abel Winter", "Lotte Crane", "Ivan Pryce"],
            ["{v} took the chair and opened at half past seven.", "In the chair: {v}, who welcomed everybody."],
            ["Who presided over the {n}?", "Who led the session of the {n}?"],
        ),
        Fact(
            ["3,200 crowns", "450 crowns", "18,000 crowns", "975 crowns", "62,500 crowns", "1,340 crowns"],
            ["After some talk, {v} were granted for repairs.", "It was resolved to spend {v} on repairs."],
            ["How much money did the {n} approve for mending things?", "What sum was set aside for repairs by the {n}?"],
        ),
        Fact(
            ["14 March", "2 September", "30 November", "9 May", "21 January", "17 July"],
            ["We shall meet again on {v}.", "The following meeting takes place on {v}."],
            ["When does the {n} come together next?", "What is the date of the next gathering of the {n}?"],
        ),
        Fact(
            ["noise from the cooper's yard", "the broken gate", "rats under the pavilion", "the price of coal",
             "boats moored across the steps", "the smell of the tannery"],
            ["Several members complained about {v}.", "There were complaints about {v} again."],
            ["What were people unhappy about at the {n}?", "Which grievance was raised in the {n}?"],
        ),
    ],
    [
        "The minutes of the last meeting were read and accepted.",
        "Tea was served during the break.",
        "The treasurer thanked all who had paid on time.",
    ],
    ["How many members does the {n} have?", "What is the annual membership fee of the {n}?"],
)  # fmt: skip

PAPERS = [
    Prose(
        "history/flood.txt", "The night of the great flood",
        "The night of the great flood\n\nNobody in Merrow had expected the river to come over the wall. It had rained for "
        "nine days, and on the tenth the dam above Carrick gave way shortly before midnight.\n\nThe miller's daughter, Elin "
        "Hargrave, ran from door to door with a kettle and a spoon and woke the lower town. Because of her only two lives "
        "were lost, though forty houses were swept away.\n\nAfterwards the town was rebuilt on the slope. The new market "
        "hall was paid for by a brewer who would not give his name; later it was learnt that it had been Josiah Pike.",
        [
            ("Who warned the inhabitants on the night the river burst its banks?", "Elin Hargrave"),
            ("How many people died in the flood?", "two lives"),
            ("Which anonymous benefactor financed the market building?", "Josiah Pike"),
            ("How many homes did the flood destroy?", "forty houses"),
        ],
    ),
    Prose(
        "history/railway.pdf", "How the railway came",
        "The engineers wanted to lead the track along the river, but the abbot refused to sell the meadow. So a tunnel had to "
        "be cut through Crane Hill, which took four years and doubled the cost.\n\nThe first train was drawn by an engine "
        "called Marigold. It carried nothing but turnips, for the company did not yet trust the bridge with passengers.\n\n"
        "The line was closed in the year of the long strike, and its embankment is now a path for cyclists.",
        [
            ("Why was a tunnel needed for the railway?", "the abbot refused"),
            ("What was the name of the first locomotive?", "Marigold"),
            ("What cargo did the first train transport?", "turnips"),
            ("What is the old railway embankment used for today?", "path for cyclists"),
        ],
    ),
    Prose(
        "office/network.md", "The office network",
        "# The office network\n\n## Guests\n\nGuests join the network `merrow-open`. The password changes every Monday and "
        "hangs beside the coffee machine.\n\n## Printers\n\nThe colour printer stands on the second floor. If paper jams, open "
        "the left flap and pull gently; do not use the tweezers.\n\n## Backups\n\nAll shared drives are copied each night at "
        "02:30 to a vault in Larkfield. Restoring a file takes a day: write to Soren Kvist.\n",
        [
            ("Where can visitors find the wifi password?", "beside the coffee machine"),
            ("What should I do when the printer is stuck?", "open the left flap"),
            ("Whom do I contact to get a deleted file back?", "Soren Kvist"),
            ("At what hour are the drives backed up?", "02:30"),
        ],
    ),
    Prose(
        "office/kitchen.html", "The canteen",
        "Lunch is served between half past eleven and two. On Thursdays there is always soup with dumplings.\n\nWhoever cannot "
        "eat nuts should speak to Bettina at the counter, who keeps a list of what is in each dish.\n\nMugs left in the sink "
        "over the weekend are given to the jumble sale.",
        [
            ("What is on the menu every Thursday?", "soup with dumplings"),
            ("Who knows about allergies in the canteen?", "Bettina"),
            ("What happens to dirty cups that stay behind on Friday?", "jumble sale"),
        ],
    ),
    Prose(
        "letters/ada.txt", "A letter from Ada",
        "A letter from Ada\n\nDear Finn,\n\nwe have moved into the house by the weir at last. The roof leaks in one place only, "
        "and I have put the copper basin under it.\n\nYour bicycle is in the shed behind the chapel; the key hangs under the "
        "third flowerpot. Please bring it back with air in the tyres this time.\n\nFather has sold the violin to a gentleman "
        "from Tarrant for ninety crowns, and regrets it already.\n\nYours, Ada",
        [
            ("Where is the key to the shed hidden?", "third flowerpot"),
            ("Who bought the fiddle?", "a gentleman from Tarrant"),
            ("What did she put below the hole in the roof?", "copper basin"),
        ],
    ),
    Prose(
        "nature/herons.md", "Counting herons",
        "# Counting herons\n\nSince the reeds were left uncut, the number of breeding pairs on Sedge Lake has risen from six to "
        "thirty-one. The birds arrive in the second week of February and quarrel over last year's nests.\n\nThe warden counts "
        "them from a punt, at dawn, when they are too sleepy to mind. Drones were tried once and frightened every bird away for "
        "a week.\n\nThe greatest danger is not the fox but fishing line: four of the five dead birds found last year were "
        "tangled in it.",
        [
            ("How many heron couples nest on the lake now?", "thirty-one"),
            ("What kills most of the herons?", "fishing line"),
            ("Why are unmanned aircraft no longer used for counting birds?", "frightened every bird away"),
            ("At what time of day does the warden do the count?", "at dawn"),
        ],
    ),
    Prose(
        "clinic/advice.docx", "After the operation",
        "Keep the bandage dry for five days. A little redness is normal; a fever is not, and you should ring the night nurse at "
        "once.\n\nDo not lift anything heavier than a full kettle until the stitches are out, which is usually on the twelfth "
        "day.\n\nYou may drive again as soon as you can stamp your foot without pain.",
        [
            ("When are the stitches removed?", "twelfth"),
            ("How long must the dressing not get wet?", "five days"),
            ("When is a patient allowed behind the wheel again?", "stamp your foot"),
        ],
    ),
    Prose(
        "sport/regatta.pdf", "The regatta",
        "Boats must be entered by the first of June; late entries are charged double. The course leads twice around Otter Island, "
        "and whoever touches the red buoy begins again.\n\nLast year the cup went to the schoolteachers' crew, who had borrowed "
        "their boat from the fire brigade. The prize for the most beautiful boat was a ham.\n\nIn a storm the race is "
        "postponed until the following Sunday.",
        [
            ("What happens if a crew hits the red marker?", "begins again"),
            ("Who won the trophy a year ago?", "schoolteachers' crew"),
            ("By which date do I have to register my boat?", "first of June"),
            ("What could one win for the prettiest vessel?", "a ham"),
        ],
    ),
]  # fmt: skip

ELSEWHERE = [  # asked of names that are not there
    "How tall is the lighthouse at Corbel Skerry?", "What is the last stop of K88?", "Who made the Ivory Lantern?",
    "In which month does Ghost heather flower?", "How hot should the oven be for Sailor's almond torte?",
    "How heavy is the Marlin compressor?", "Which exception does wharfclock throw?", "Who presided over the theatre league?",
    "What is the warranty period of the Osric grinder?", "How much is a ticket for the K63 bus?",
    "Where was the Amber Saddle found?", "What soil does Brackish loosestrife need?",
    "What form is needed under the rules for sabbaticals?", "Who kept the Dunlin Reef light at the end?",
]  # fmt: skip
NOWHERE = [  # asked of what no paper is about
    "What is the capital of Australia?", "How does photosynthesis work?", "Who painted the Mona Lisa?",
    "What is the boiling point of mercury?", "How do I renew my passport?", "When did the Second World War end?",
    "Which planet has the most moons?", "How many players are in a basketball team?", "What causes earthquakes?",
    "Who wrote Hamlet?", "How do vaccines protect against measles?", "What is the exchange rate of the dollar to the yen?",
    "How do I install a graphics driver?", "Explain the rules of chess.",
]  # fmt: skip

TEST = ([LIGHTS, BUSES, RECIPES, MACHINES, MODULES, OBJECTS, POLICIES, PLANTS, MINUTES], PAPERS, ELSEWHERE, NOWHERE)
