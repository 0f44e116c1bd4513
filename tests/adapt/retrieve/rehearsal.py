"""The set on which thresholds and weights were chosen: other kinds of papers and other sentences than those of `world`."""

from __future__ import annotations

from tests.adapt.retrieve.world import Fact, Kind, Prose

FERRIES = Kind(
    "html", "The ferry {n}",
    ["Morning Star", "Black Swan", "Old Barnaby", "Silver Eel", "Queen Maud"],
    [
        Fact(
            ["240 passengers", "85 passengers", "40 passengers", "610 passengers", "150 passengers"],
            ["She may carry {v} and not one more.", "There is room for {v} on her two decks."],
            ["How many people fit on the {n}?", "What is the capacity of the ferry {n}?"],
        ),
        Fact(
            ["Captain Bligh Tomlin", "Captain Rosa Hertz", "Captain Elias Wynn", "Captain Joan Ferrer", "Captain Max Odell"],
            ["She has been commanded by {v} for many summers.", "{v} is at her wheel."],
            ["Who steers the {n}?", "Who is the skipper of the {n}?"],
        ),
        Fact(
            ["25 minutes", "70 minutes", "15 minutes", "3 hours", "45 minutes"],
            ["The crossing takes {v} in calm weather.", "She needs {v} from shore to shore."],
            ["How long does a trip on the {n} last?", "What is the duration of the journey with the {n}?"],
        ),
        Fact(
            ["Wednesday", "Tuesday", "Sunday", "Friday", "Monday"],
            ["She does not sail on a {v}, when the boiler is scrubbed.", "On {v} she stays in the dock."],
            ["On what day is there no service of the {n}?", "Which weekday does the {n} rest?"],
        ),
    ],
    ["Dogs travel free, goats do not.", "Hot drinks are sold near the funnel.", "Hold on to your hat at the bow."],
    ["How fast can the {n} go in knots?", "In which shipyard was the {n} built?"],
)  # fmt: skip

LIBRARIES = Kind(
    "md", "The library in {n}",
    ["Eastgate", "Parrow", "Dunmere", "Wexcombe", "Little Hale"],
    [
        Fact(
            ["9 in the evening", "6 in the evening", "noon", "8 in the evening", "4 in the afternoon"],
            ["The doors are locked at {v}.", "Readers must leave by {v}."],
            ["When does the library in {n} close?", "Until what time can I stay in the {n} library?"],
        ),
        Fact(
            ["31,000 volumes", "8,400 volumes", "12,500 volumes", "56,000 volumes", "2,900 volumes"],
            ["Its shelves hold {v}.", "The stock amounts to {v}, most of them novels."],
            ["How many books does the {n} library own?", "How large is the collection in {n}?"],
        ),
        Fact(
            ["20 pence", "5 pence", "50 pence", "10 pence", "35 pence"],
            ["For each day that a loan is late, {v} are due.", "Whoever is late pays {v} a day."],
            ["What is the fine for overdue books in {n}?", "How much do I owe per day for a late return in {n}?"],
        ),
        Fact(
            ["Gideon Marsh", "Alma Brody", "Yusuf Kaya", "Fenella Roe", "Caspar Dent"],
            ["Ask {v}, who has run the house for years.", "It is headed by {v}."],
            ["Who is the librarian of {n}?", "Who is in charge of the library in {n}?"],
        ),
    ],
    ["There is a reading corner for children.", "Bags go into the lockers.", "The newspapers lie by the window."],
    ["How many computers does the {n} library have?", "Who designed the building of the {n} library?"],
)  # fmt: skip

DOGS = Kind(
    "txt", "{n}, a dog who wants a home",
    ["Biscuit", "Thunder", "Pepper", "Hamlet", "Domino"],
    [
        Fact(
            ["seven years", "eleven months", "three years", "twelve years", "two years"],
            ["The vet guesses that this dog is {v} old.", "Born here, {v} ago."],
            ["What is the age of {n}?", "How old is {n}?"],
        ),
        Fact(
            ["thunderstorms", "bicycles", "men with hats", "the vacuum cleaner", "cats"],
            ["Nothing is feared more than {v}.", "There is trouble only with {v}."],
            ["What is {n} afraid of?", "What frightens {n}?"],
        ),
        Fact(
            ["boiled carrots", "cheese rinds", "sardines", "dry bread", "liver sausage"],
            ["For {v} this one will do anything.", "Treats: {v}, in small amounts."],
            ["What does {n} like to eat most?", "What is the favourite food of {n}?"],
        ),
    ],
    ["Vaccinated and chipped.", "Needs a garden and patience.", "Gets along with other dogs."],
    ["Which breed is {n}?", "What did the previous owner of {n} do for a living?"],
)  # fmt: skip

SERVICES = Kind(
    "py", "{n}",
    ["mailpigeon", "ledgerd", "thumbnailer", "geoindex", "paywall"],
    [
        Fact(
            ["8081", "9400", "7007", "5522", "6310"],
            ["The daemon listens on port {v}.", "Bind it to port {v}, which the firewall lets through."],
            ["On which port does {n} run?", "Which TCP port belongs to {n}?"],
        ),
        Fact(
            ["512 MB", "4 GB", "64 MB", "16 GB", "2 GB"],
            ["Do not give it less than {v} of memory.", "It is killed when it uses more than {v} of memory."],
            ["How much RAM does {n} require?", "What is the memory limit of {n}?"],
        ),
        Fact(
            ["the night team", "Olga Brandt", "team Falcon", "Rupert Shaw", "the data office"],
            ["At night, wake {v}.", "On call: {v}."],
            ["Who must be called if {n} fails at night?", "Whom do I alert when {n} goes down?"],
        ),
    ],
    ["Logs are written as JSON.", "Settings are read once, at the start.", "No state is kept on the disk."],
    ["Which cloud region hosts {n}?", "What test coverage does {n} have?"],
)  # fmt: skip

TRAILS = Kind(
    "docx", "The {n} trail",
    ["Hawk Ridge", "Silverwater", "Monk's Way", "Foxglove", "Long Barrow"],
    [
        Fact(
            ["14 kilometres", "6 kilometres", "22 kilometres", "9 kilometres", "31 kilometres"],
            ["From gate to gate it measures {v}.", "Walkers cover {v} before they are back."],
            ["How long is the {n} trail?", "What distance is the {n} hike?"],
        ),
        Fact(
            ["yellow triangles", "white bars", "blue dots", "red arrows", "green crosses"],
            ["Follow the {v} on the trees.", "It is marked by {v}."],
            ["What signs show the way on the {n} trail?", "How is the {n} path waymarked?"],
        ),
        Fact(
            ["the Anchor", "the Shepherd's Rest", "the Three Bells", "the Otter", "the Mill House"],
            ["Halfway there is an inn, {v}, with good cider.", "Walkers rest at {v}, which serves soup."],
            ["Where can I have a meal on the {n} trail?", "Which pub is on the {n} route?"],
        ),
    ],
    ["Wear boots, for the ground is soft.", "There is no signal in the gorge.", "Take your litter home."],
    ["When was the {n} trail opened?", "Is the {n} trail suitable for wheelchairs?"],
)  # fmt: skip

SCHOOLS = Kind(
    "pdf", "{n} school",
    ["Brook Street", "Saint Odile", "Hillcrest", "Canal Row", "Ferncliff"],
    [
        Fact(
            ["418 pupils", "96 pupils", "1,250 pupils", "230 pupils", "57 pupils"],
            ["At present it has {v} in all years together.", "{v} attend it."],
            ["How many children go to {n} school?", "What is the number of students at {n}?"],
        ),
        Fact(
            ["Latin", "Welsh", "Portuguese", "Japanese", "Russian"],
            ["Besides English, {v} is taught from the third year.", "Everyone learns {v} in the upper school."],
            ["Which foreign language is offered at {n} school?", "What second language do pupils at {n} study?"],
        ),
        Fact(
            ["Mrs Pettigrew", "Mr Adeyemi", "Miss Lund", "Dr Castellan", "Mr Frost"],
            ["It is led by {v}, who also teaches chemistry.", "Head: {v}."],
            ["Who is the principal of {n} school?", "Who runs {n} school?"],
        ),
    ],
    ["The gym smells of floor polish.", "There is a pond behind the bicycle shed.", "Parents meet once a term."],
    ["What are the school fees of {n}?", "What colour is the uniform at {n} school?"],
)  # fmt: skip

PAPERS = [
    Prose(
        "press/bakery.md", "A bakery reopens",
        "# A bakery reopens\n\nAfter the fire in the spring, the bakery on Cooper Street sells bread again. The oven was saved by "
        "the apprentice, who threw wet flour sacks over it.\n\nThe new owner, Leonie Abt, wants to bake only four kinds of bread, "
        "and no cakes at all. Queues reached as far as the post office.",
        [
            ("Who is the proprietor of the reopened bakery?", "Leonie Abt"),
            ("How did the young baker protect the oven?", "wet flour sacks"),
            ("How many sorts of loaves will be made?", "four kinds"),
        ],
    ),
    Prose(
        "press/meteor.html", "A stone from the sky",
        "On Saturday a stone the size of a fist went through the roof of a henhouse. No hen was hurt, but one has laid no eggs "
        "since.\n\nScientists from the college in Arden weighed it at 2.3 kilograms and believe that it is four billion years "
        "old. The farmer, Otto Brill, has refused to sell it.",
        [
            ("How heavy is the meteorite?", "2.3 kilograms"),
            ("What is the age of the rock that fell?", "four billion years"),
            ("Who owns the stone?", "Otto Brill"),
        ],
    ),
    Prose(
        "house/boiler.docx", "The boiler in the cellar",
        "The pressure must lie between one and two bar. If it drops, open the tap under the white box until the needle reaches "
        "the green field.\n\nThe chimney sweep comes in November. His name is Arnold, and he wants coffee with three sugars.",
        [
            ("When is the chimney cleaned?", "November"),
            ("What pressure should the heating have?", "one and two bar"),
            ("How does the sweep take his coffee?", "three sugars"),
        ],
    ),
]  # fmt: skip

ELSEWHERE = [
    "How many people fit on the Crimson Tide?", "Who is the librarian of Osterley?", "What frightens Marmalade?",
    "On which port does cachewarden run?", "How long is the Badger's Loop trail?", "Who is the principal of Elmhurst school?",
    "What is the fine for overdue books in Tolworth?", "Which pub is on the Raven Tor route?",
    "How much RAM does spoolmaster require?", "Who steers the Golden Hind?", "How old is Caramel?",
    "Which foreign language is offered at Priory Lane school?",
]  # fmt: skip
NOWHERE = [
    "What is the population of Canada?", "Who discovered penicillin?", "How does a jet engine work?",
    "What is the speed of light?", "Who composed the Magic Flute?", "How do I treat a sunburn?",
    "What is the tallest mountain in Africa?", "When was the printing press invented?", "How are diamonds formed?",
    "Which team won the football world cup in 1998?", "What is the recipe for mayonnaise?", "How do I file a tax return?",
]  # fmt: skip

DEV = ([FERRIES, LIBRARIES, DOGS, SERVICES, TRAILS, SCHOOLS], PAPERS, ELSEWHERE, NOWHERE)
