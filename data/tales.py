#!/usr/bin/env python3
"""Writes the default corpus: short original tales, played out in a small simulated world.

    python3 data/tales.py --out data/tales          # 6 MB to train, 300 KB to validate

The same seed gives the same bytes on every machine and under every Python 3.9+, so nothing here
depends on the random module, on hash() or on the order of a set. A line that reads <|endoftext|>
stands between two tales.

What the tales teach, and why. A bigram model sees one token back, and a corpus which it can predict
is no test of a transformer. So each tale is made of facts that are stated once and needed again
later, often a hundred tokens on, where only attention can fetch them:
  - the same folk live in every tale, each with a kind, a home, a trait and a friend: once the timid
    mouse by the river is met, it is Pip, his friend is Rosa, "the bear" is she, and nobody else;
  - two friends are always a he and a she, so each pronoun says who is meant, and a model that does
    not know which pronoun a name takes pays for it in almost every sentence;
  - a trait decides what somebody does: the forgetful one forgets, the proud one loses the race, the
    last paragraph cures the fault which the first one named, and a motto comes back word for word;
  - things keep their colour and change hands: the world records who holds what, and closing
    sentences are told from that record;
  - causes have effects: rain makes the path wet, so somebody slips; the rope packed in the morning
    crosses the stream in the afternoon; what was planted in spring is what is shared in autumn.
The words are few (so that a small vocabulary covers them) and the sentences plain (so that a small
model learns them within a minute), a tale fits into 256 tokens, and no two tales are the same.

How to read this file: first the tables, which hold the world; then the pen (a Tale), which fills in
sentences and keeps the record; then the plots, each a few lines that set the stage and a script
that is played on it; and last the writing of the two files.
"""

import argparse
import hashlib
import os
import re
import sys
import time

from files import Failure, atomic_open, parser, run, sha256_file

SEPARATOR = '<|endoftext|>\n'

# ---- the world in tables -------------------------------------------------------------------------
# In every text {A} is a name, {A.he} its pronoun and so on, and [this|that] means one of the two.


def script(text):
    """Cuts a text into lines; an indented line continues the one above."""
    return re.sub(r'\n +', ' ', text.strip()).split('\n')


def table(text):
    """Cuts a text into rows, one a line, and these at | into columns."""
    return [line.split(' | ') for line in script(text)]


def listed(text):
    """Cuts a text into what stands between its commas."""
    return text.strip().replace('\n', ' ').split(', ')


# The folk of the village, two good friends a row: the two main characters of a tale. Everybody has
# the same kind, trait and home in every tale: name | he or she | kind | trait | home.
FOLK = table('''
Pip | he | mouse | timid | by the river | Rosa | she | bear | brave | on the green hill
Mia | she | hedgehog | shy | under the old oak | Otto | he | badger | kind | near the mill
Tom | he | fox | proud | at the edge of the wood | Nell | she | tortoise | patient | beside the pond
Lily | she | rabbit | hasty | at the end of the lane | Max | he | mole | careful | behind the bakery
Ben | he | cat | lazy | next to the stone bridge | Ida | she | squirrel | cheerful | among the birch
  trees
Ruby | she | goat | greedy | at the foot of the mountain | Finn | he | otter | clever | by the sea
Hugo | he | donkey | grumpy | close to the market | Clara | she | lamb | gentle | in the valley
Daisy | she | goose | forgetful | above the harbour | Leo | he | dog | loyal | outside the city wall
Jack | he | wolf | proud | below the castle | Ivy | she | sparrow | brave | between two orchards
Poppy | she | hamster | timid | across from the windmill | Sam | he | hare | cheerful | at the
  crossroads
Oscar | he | camel | honest | near the ferry | Kate | she | beaver | kind | beside the dam
Toby | he | pony | loyal | at the top of the stairs | Hazel | she | deer | clever | in the deep
  forest
Ned | he | raccoon | hasty | over the old shop | Emma | she | ferret | patient | behind the school
Theo | he | panda | lazy | under the bamboo | Anna | she | koala | honest | by the lighthouse
''')
ELDERS = listed('''the old owl, the miller, the baker, the old toad, the postman, the shepherd, the
gardener, the teacher, the old crow, the blacksmith, the mayor, the tailor, the fisherman, the
potter, the doctor, the ferryman, the carpenter, the librarian, the weaver, the beekeeper''')
FAMILY = listed('''grandmother, grandfather, aunt, uncle, cousin, sister, brother, godmother,
nephew, niece''')
FOODS = listed('''plum cake, apple pie, onion soup, honey bread, pumpkin soup, cherry cake, pear
tart, ginger cookies, nut bread, carrot stew, barley soup, lemon cake, cheese buns, potato salad,
raisin rolls, vanilla pudding, berry muffins, oat porridge, walnut waffles, spinach noodles, peach
cobbler, almond biscuits, roasted chestnuts, cinnamon toast''')
CROPS = listed('''carrots, beans, sunflowers, pumpkins, onions, radishes, cabbages, melons,
potatoes, peas, cucumbers, tomatoes, beets, leeks, turnips, poppies, gooseberries, artichokes,
currants, herbs''')
ERRANDS = listed('''letter, bottle of medicine, warm loaf, birthday cake, pair of glasses, crate of
oranges, parcel of seeds, roll of cloth, cage with a canary, newspaper''')
GHOSTS = listed('''a ghost, a dragon, a giant, a monster, a witch, a robber, a pirate, an ogre, a
vampire, a goblin''')
DAYS = listed('''one morning, one day, one afternoon, one fine day, one spring day, one autumn day,
one misty morning, one Sunday, on market day, one bright Tuesday, early one Friday, one rosy
evening, at noon one Thursday, late one Saturday, on the first of May''')
NUMBERS = listed('''three, four, five, six, seven, nine, ten, twelve, twenty''')
# Where people look in vain (hiding places first), where secrets are, and where one keeps things.
INDOORS = listed('''under the bed, behind the stove, in the cellar, under the carpet, behind the
cupboard, inside the piano, in every drawer''')
ELSEWHERE = listed('''at the well, on the stairs, in the hay, at the market, in the laundry basket,
along the ditch, in the playground, around the fountain''')
SPOTS = listed('''behind the waterfall, under the big fern, in the old quarry, beyond the third
hill, near the ruined tower, beside the hollow log''')
KEEPS = listed('''by the window, near the fireplace, next to the bed, in the best room, beside the
front door, in a corner of the parlour, beneath an oil painting''')
SHEDS = listed('''in the shed, in the barn, on the porch, in the yard''')
FAR = listed('''behind the mountain, on the other side of the forest, by the lighthouse, at the end
of the world, on a distant island, beyond the marsh''')
DUES = listed('''the sun goes down, Sunday, the first snow, the end of the week''')

# trait | a habit | another | a motto. {P} is whoever has the trait.
GOOD = {row[0]: row[1:] for row in table('''
patient | never hurried | could wait all day without a sigh | Slow steps still climb the hill
brave | was not afraid of the dark | had once chased a thief with a broom | A small light is enough
kind | always had time for a neighbour | kept an extra chair for guests | What we share grows
clever | could solve any riddle | found a way out of every trouble | Think first, then jump
honest | never told a lie | told the truth even when it was hard | A true word is worth more than
  gold
careful | looked at everything twice | counted {P.his} spoons every night | Look twice and step once
cheerful | sang even in the rain | laughed at the smallest joke | A song makes the road shorter
loyal | never broke a promise | never left a friend alone | A promise is a promise
gentle | spoke softly to every flower | carried each lost beetle back to the grass | A soft voice
  opens every door
''')}

# trait | a habit | another | how the fault is cured when the tale is over | another cure
FLAWS = {row[0]: row[1:] for row in table('''
forgetful | forgot everything except supper | never knew where {P.his} shoes were | {P} tied a knot
  in {P.his} handkerchief to remember things | {P} wrote every promise on the kitchen wall
hasty | did everything in a hurry | ran first and looked later | {P} looked first and ran later |
  {P} took {P.his} time and did things well
proud | told everyone how wonderful {P.he} was | thought that nobody else did anything right | {P}
  did not boast any more | {P} praised others more than {P.him}self
lazy | loved {P.his} bed more than anything | yawned from morning to night | {P} got up with the sun
  | {P} worked first and slept later
timid | jumped at every little noise | was afraid of {P.his} own shadow | {P} was a little braver
  every day | {P} was not so timid any more
shy | hid behind the door when guests came | hardly ever said a word | {P} opened the door to every
  guest | {P} was not so shy any more
greedy | always wanted the biggest piece | never had enough of anything | {P} gave away the bigger
  half of every cake | {P} knew that enough is enough
grumpy | grumbled about the weather | never smiled before lunch | {P} smiled even before breakfast |
  {P} did not grumble about the weather any more
''')}

# Small things that roll, and light things that fly: adjectives | noun
SMALL = [item.rsplit(' ', 1) for item in listed('''silver brass little bell, blue green glass
marble, silver golden ring, brass iron old key, tin wooden whistle, red pearl button, brass little
compass, silver little spoon, white pink shell, golden old coin, silver tiny thimble, amber polished
bead, lucky copper penny, ruby jade brooch, jingling tiny bracelet, bronze heavy buckle, shell
velvet purse, bone fine comb''')]
LIGHT = [item.rsplit(' ', 1) for item in listed('''red blue striped green scarf, yellow straw felt
hat, silk purple ribbon, paper red blue kite, woollen grey cap, white orange feather, lace checked
handkerchief, crimson linen apron, folded secret letter, violet satin veil, faded family
photograph''')]

# How the weather takes something away: what | the weather | what happened | where the thing went |
# where it is found | the days on which it is remembered
LOSSES = table('''
small | It had rained all night, and the path was wet. | {A} slipped on the wet stones, and {t.the}
  rolled | into the reeds | in the reeds | when it rained
small | It had rained for days, and the lane was full of mud. | {A} slid in the mud, and {t.the}
  fell | under a bench | under the bench | when it rained
small | Snow had fallen, and the whole village was white. | {A} threw snowballs, and {t.the} dropped
  out of {A.his} pocket | into the snow by the fence | in the snow by the fence | when it snowed
small | There was a thick fog, and nobody could see far. | {A} walked right into a tree, and {t.the}
  fell | between the roots | between the roots | on foggy days
small | It was hot, and the grass was soft and warm. | {A} lay down for a nap, and {t.the} slipped |
  into the clover | in the clover | on hot days
light | It was windy, and the clouds ran across the sky. | a gust tore {t.the} away and blew it |
  onto the roof of the barn | on the roof of the barn | when the wind blew
light | The wind had been strong since dawn. | the wind took {t.the} and carried it | into the
  tallest apple tree | in the tallest apple tree | when the wind blew
''')

# To lend: adjectives | noun | the task | the task done | the thanks | the damage | the mending
TOOLS = table('''
tall wooden | ladder | pick the apples in the tall tree | picked every apple | a basket of apples |
  a step cracked | carved a new step
iron good | spade | plant my beans | planted three rows of beans | a bag of beans | the handle
  snapped | cut a new handle
brass bright | lantern | look for mushrooms in the dark wood | found a hundred mushrooms | a bowl of
  mushrooms | the glass cracked | put in new glass
wooden red | cart | bring home my pumpkins | brought home every pumpkin | a fat pumpkin | a wheel
  came off | fitted a new wheel
little green | boat | row to the island for pears | filled a sack with pears | a sack of pears | a
  board split | nailed on a new board
big copper | kettle | make tea for my guests | made tea for eleven guests | a tin of mint tea | the
  spout bent | hammered the spout straight
sharp old | saw | cut wood for the winter | cut a great pile of wood | a bundle of firewood | the
  grip split | made a new grip
round deep | basket | gather blackberries | gathered blackberries until noon | a jar of blackberry
  jam | the bottom fell out | wove a new bottom
tin blue | bucket | carry water to my tulips | watered all the tulips | a bunch of tulips | the rim
  tore | soldered the rim
black heavy | pan | fry pancakes for the fair | fried pancakes for the whole fair | a stack of
  pancakes | the lid cracked | made a new lid
stout birch | wheelbarrow | move gravel to my pond | laid a neat gravel path | a water lily | an
  axle broke | forged a new axle
long light | rake | gather hay for my bed | raked a mountain of hay | a cushion of hay | three teeth
  broke | whittled three new teeth
''')

# A need and the thing that ends it: adjectives | noun | the trouble | the end of the trouble
NEEDS = table('''
soft woollen | shawl | {P.he} was cold all winter | {P} was warm all winter
wide straw | hat | the sun burned {P.his} ears | the sun did not burn {P.s} ears any more
bright brass | lamp | {P.he} stumbled on the path at night | {P} walked safely at night
striped black | umbrella | {P.he} got wet whenever it rained | {P} stayed dry in the rain
thick patchwork | blanket | {P.he} shivered in bed | {P} slept warm until morning
strong wooden | stool | {P.he} could not reach the top shelf | {P} could reach the top shelf
loud round | clock | {P.he} was late for everything | {P} was never late
little bamboo | flute | the evenings were too quiet for {P.him} | {P} played music every evening
shiny copper | teapot | {P.he} had to drink cold tea | {P} drank hot tea every day
carved good | walking stick | the hill was too steep for {P.him} | {P} climbed the hill with ease
painted large | map | {P.he} got lost on every walk | {P} found the way everywhere
new stiff | broom | {P.his} floor was always dusty | {P.s} floor shone like a mirror
velvet dark | curtain | the moon kept {P.him} awake | {P} slept even at full moon
tall walnut | bookcase | {P.his} books lay in heaps | {P} found every book at once
sturdy leather | satchel | {P.he} dropped half of {P.his} shopping | {P} dropped nothing any more
polished oak | bench | {P.he} had no seat in {P.his} garden | {P} sat in {P.his} garden every
  evening
plump feather | pillow | {P.his} neck was stiff every morning | {P} woke up fresh and rested
''')

# Things that break: adjectives | noun | how they break | what mends them | what can be seen later
FRAGILE = table('''
blue painted | teacup | lost its handle | a drop of glue | a thin line
clay brown | jug | broke in three pieces | a pot of glue | two thin lines
flowered white | plate | broke in two | a pot of glue | a crooked line
wooden little | chair | lost a leg | a nail and a hammer | the head of the nail
toy spotted | horse | lost its tail | a piece of string | a small knot
paper green | lantern | tore from top to bottom | a strip of silk | the edge of the silk
round old | drum | got a hole | a patch of leather | the brown patch
tin red | rocket | lost its nose | a little wire | the end of the wire
ornate silver | mirror | cracked across the middle | a narrow frame | a tiny crack
clever wooden | puppet | lost both arms | two screws | the heads of the screws
porcelain tiny | elephant | lost an ear | a dab of plaster | a pale spot
''')

# The weather | the damage | the repair | the days on which it is remembered
STORMS = table('''
in the night a great wind came | the roof flew off {A.s} house | nailed new boards on the roof |
  when the wind blew
that night it rained and rained | the water ran into {A.s} kitchen | swept out the water | when it
  rained
in the evening it began to snow | the snow broke {A.s} window | put new glass in the window | when
  it snowed
at midnight there was thunder | a tree fell on {A.s} chimney | built the chimney again, brick by
  brick | when it thundered
after supper the river rose | the flood carried off {A.s} bridge | laid thick planks for a new
  bridge | when the river rose
suddenly it began to hail | the hail smashed {A.s} greenhouse | built a stronger greenhouse | when
  it hailed
''')

# Every fault loses every contest in its own way: the contest | how to win it | how the proud one
# loses it | the lazy one | the hasty one
CONTESTS = table('''
the race around the lake | {B} ran at an even pace and did not stop once | {A} stopped to bow to the
  crowd | {A} lay down under a willow and fell asleep | {A} missed the bend and ran into the mud
the kite contest | {B} tied every knot well, and {B.his} kite climbed higher and higher | {A}
  watched the crowd and not the string | {A} tied only one knot, and it came undone | {A} tied the
  knots too quickly, and they came undone
the cake contest | {B} stirred well and watched the oven, and the cake was light and golden | {A}
  talked about {A.his} cake until it burned | {A} did not stir the flour, and the cake was full of
  lumps | {A} put in salt and thought that it was sugar
the boat race | {B} rowed with long, quiet strokes, straight to the flag | {A} stood up to wave and
  fell into the water | {A} put down the oars and drifted into the reeds | {A} forgot to untie the
  rope, and pulled and pulled
the singing contest | {B} had practised every morning, and every note was clear | {A} had not
  practised, and the high note broke | {A} overslept and missed the first song | {A} sang so fast
  that nobody understood a word
the snowman contest | {B} rolled the snow slowly, and the snowman stood as tall as a tower | {A}
  built the nose first, and it was so big that the snowman fell over | {A} made a snowman as small
  as a turnip | {A} forgot the head
''')
PRIZES = [item.rsplit(' ', 1) for item in listed('''golden silver cup, silver shining medal,
glittering golden crown, purple red banner, crystal star, marble statue, embroidered cape, enormous
trophy''')]

# What is packed in the morning | what stands in the way | how the one helps against the other
HURDLES = table('''
rope | a stream without a bridge | tied the rope to a tree, and they swung across
torch | a cave as dark as night | lit the torch, and they saw every stone
horn | a fog so thick that they lost each other | blew the horn, and they found each other
ball of yarn | a maze of hedges | unrolled the yarn behind them, and they did not get lost
pot of honey | a troll that sat on the path | gave the troll the honey, and it let them pass
fiddle | a gate with a sad guard | played the fiddle until the guard smiled and opened the gate
sledge | a steep, icy slope | pulled out the sledge, and they flew down together
jar of pepper | a swarm of wasps | shook out the pepper, and the wasps sneezed and fled
compass | a desert without a track | read the compass and led the way north
shovel | a wall of sand | took the shovel and dug a tunnel
''')

# What is found | why nobody may know | how it ends
SECRETS = table('''
a nest with three blue eggs | The mother bird is afraid of noise | three young birds flew out of the
  nest and sang
a sleeping dragon | It must dream until spring | the dragon woke up and lit a fire for the whole
  village
a patch of wild strawberries | They are not ripe yet | the strawberries were red and sweet
a spring of warm water | Too many feet would spoil it | they built a bathhouse for old and young
a hedge full of glowworms | Bright torches scare them | a thousand lights danced over the meadow
a rose in the snow | A careless foot would crush it | there were a hundred roses for everyone to see
a fawn with white spots | It is weak and needs rest | the fawn was strong enough to run with the
  herd
a cocoon of golden threads | Nobody must touch it | a butterfly spread its wings and rose into the
  sky
''')

# The noise | what it was | what they did about it
NOISES = table('''
tap, tap, tap | a branch that knocked at the window | cut the branch
scratch, scratch | a kitten that wanted to come in | gave the kitten some warm milk
hoo, hoo | the wind in an empty bottle | put a cork in the bottle
drip, drip, drip | a leak in the roof | put a bowl under the leak
thump, thump | a heap of apples that rolled down the roof | picked up the apples
squeak, squeak | the garden gate in the wind | put some oil on the gate
rustle, rustle | a lost duckling in the leaves | carried the duckling back to its pond
rattle, rattle | a loose shutter | fastened the shutter with a hook
croak, croak | a frog in the bathtub | set the frog free
buzz, buzz | a bumblebee in a jar | let the bumblebee out
''')

# The skill | the first failure | the danger | the rescue | who needs no lessons
SKILLS = table('''
swim | swallowed a lot of water | fell off the ferry | jumped in and swam to {B} | otter beaver
whistle | blew until {A.his} cheeks were red | was lost in the hills | whistled so loudly that {B}
  could follow the sound | nobody
climb | fell into a bush | was stuck in a high tree | climbed up and led {B} down | squirrel cat
  bear raccoon panda
skate | sat down hard on the ice | was alone on the cracking ice | skated across and pulled {B} to
  the shore | nobody
row | turned in circles | drifted away on a raft | rowed out and brought {B} back | nobody
read | mixed up all the letters | was about to drink from the wrong bottle | read the label and
  cried, "Stop!" just in time | nobody
juggle | dropped every ball | had to cheer up a gloomy queen | juggled until the queen laughed and
  thanked {B} | nobody
dig | got sand in {A.his} eyes | was buried under the snow | dug a tunnel and pulled {B} out | mole
  badger rabbit fox
''')

# ---- the pen -------------------------------------------------------------------------------------


def make_pick(seed):
    """Returns pick(choices), which draws from a sequence. Its numbers are splitmix64's (Steele, Lea
    and Flood 2014): four lines that give the same sequence wherever integers are integers."""
    state = seed

    def pick(choices):
        nonlocal state
        state = (state + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        return choices[(z ^ (z >> 31)) % len(choices)]

    return pick


def with_article(phrase):
    """'proud fox' -> 'a proud fox', 'old key' -> 'an old key', 'honest fox' -> 'an honest fox'."""
    return ('an ' if phrase[0] in 'aeiou' or phrase.startswith('honest') else 'a ') + phrase


class Person:
    """Somebody in a tale. In a script {A} is the name, {A.he} the pronoun, {A.a} 'a proud fox'."""

    def __init__(self, name, he, kind, trait, home):
        self.name, self.kind, self.trait, self.home = name, kind, trait, home
        self.he, self.his, self.him, self.hers = {
            'he': ('he', 'his', 'him', 'his'), 'she': ('she', 'her', 'her', 'hers')}[he]
        self.s = name + "'s"
        self.a = with_article(f'{trait} {kind}')

    def __str__(self):
        return self.name


class Thing:
    """A thing and who holds it. In a script {t.a} is 'a red kite', {t.short} 'the kite'."""

    def __init__(self, adjective, noun, holder):
        self.noun, self.holder = noun, holder
        self.a = with_article(f'{adjective} {noun}')
        self.the, self.short = f'the {adjective} {noun}', f'the {noun}'


class Tale:
    """One tale in the making: its luck (pick), what sentences may name (words), and its text."""

    def __init__(self, pick):
        self.pick, self.words, self.paragraphs = pick, {}, [[]]

    def usual(self, choices):
        """Draws from a table: nine times of ten the row that goes with A, so that a tale's things
        belong to its folk as their homes do; else any row, for there are always surprises."""
        return self.pick(choices) if self.pick(range(10)) == 0 else choices[self.own % len(choices)]

    def fill(self, text, person=None):
        """Settles each [this|that] in the text, and then fills in each {word}."""
        text = re.sub(r'\[([^]]*)\]', lambda choice: self.pick(choice[1].split('|')), text)
        return text.format(P=person, **self.words)

    def know(self, names, values, person=None):
        """Names some values: know('trouble cure', row, A) tells of A's trouble and its cure."""
        for name, value in zip(names.split(), values):
            self.words[name] = self.fill(value, person)

    def thing(self, role, row, holder, names='', person=None):
        """Makes {role} of a row that opens with adjectives and a noun; `names` name the rest."""
        self.words[role] = Thing(self.usual(row[0].split()), row[1], holder)
        self.know(names, row[2:], person)

    def cast(self, traits_a, traits_b):
        """Chooses {A} and {B}: two friends with two of these traits. Also chooses what every
        plot may need."""
        pick = self.pick
        couples = [(row[:5], row[5:]) for row in FOLK] + [(row[5:], row[:5]) for row in FOLK]
        couple = pick([(a, b) for a, b in couples if a[3] in traits_a.split()
                       and b[3] in traits_b.split()])
        self.own = couples.index(couple)
        for role, row in zip('AB', couple):
            person = self.words[role] = Person(*row)
            traits = GOOD.get(person.trait) or FLAWS[person.trait]
            person.habit = self.fill(pick(traits[:2]), person)
            person.motto = traits[2] if person.trait in GOOD else None
        self.know('day number', (pick(DAYS), pick(NUMBERS)))
        self.know('food elder', (self.usual(FOODS), self.usual(ELDERS)))
        return self.words['A'], self.words['B']

    def say(self, variants):
        """Adds one of the variants, and gives every sentence in it its capital. A sentence ends at
        .!? before a space and at ." (after ?" and !" it goes on: "Why?" he asked)."""
        text = self.fill(self.pick(variants))
        text = re.sub(r'(^"?|[.!?] "?|\." "?)([a-z])', lambda m: m[1] + m[2].upper(), text)
        self.paragraphs[-1].append(text)

    def lesson(self, person):
        """Tells how a fault was cured, or repeats the motto of somebody who has none."""
        self.know('name motto he', (person.name, person.motto or '', person.he))
        if person.motto:
            self.say(('"{motto}," {name} always said.',
                      'And {name} said what {he} always said: "{motto}."'))
        else:
            self.know('cure', [self.pick(FLAWS[person.trait][2:])], person)
            self.say(('From that day on, {cure}.', 'After that, {cure}.'))

    def keep(self, thing):
        """Tells where a thing is now, from the record of who holds it, whatever has happened."""
        self.know('name the where', (thing.holder.name, thing.the, self.usual(KEEPS)))
        self.say(('{name} kept {the} {where}.', 'And {the}? {name} has it still, {where}.'))

    def play(self, script):
        """Plays a script line by line. A blank line opens a paragraph. '(B shy lazy) ...' is played
        if B is shy or lazy, '(maybe) ...' now and then, and '(else) ...' if no condition in the
        lines just above held. '@give t B' and its like tell the world; the rest is told to the
        reader, in one of the variants between slashes."""
        held = False
        for line in script:
            condition = re.match(r'\((\w+)([a-z ]*)\) ', line)
            if condition:
                who, traits = condition[1], condition[2].split()
                if who == 'else':
                    wanted = not held
                elif who == 'maybe':
                    wanted = self.pick((True, False))
                else:
                    wanted = self.words[who].trait in traits
                held = held or wanted
                if not wanted:
                    continue
                line = line[condition.end():]
            else:
                held = False
            if not line:
                self.paragraphs.append([])
            elif line[0] == '@':
                command, *roles = line[1:].split()
                things = [self.words[role] for role in roles]
                if command == 'give':
                    things[0].holder = things[1]
                elif command == 'lesson':
                    self.lesson(self.pick(things))
                else:
                    self.keep(self.pick(things))
            else:
                self.say(line.split(' / '))

    def text(self):
        return '\n\n'.join(' '.join(paragraph) for paragraph in self.paragraphs) + '\n'


# ---- the plots -----------------------------------------------------------------------------------
# First the lines that the tales of many plots share: to introduce A, and to introduce B.

OPEN = '''
Once there was {A.a} named {A}, who lived {A.home}. / {A} was {A.a} who lived {A.home}. / Long ago,
  {A.a} named {A} lived {A.home}. / Once upon a time {A}, {A.a}, lived {A.home}.
{A.he} {A.habit}.'''
MEET = '''
{A.his} best friend was {B}, {B.a} who {B.habit}. / {A.his} neighbour was {B}, {B.a} who {B.habit}.
  / {B}, {B.a} who {B.habit}, was {A.his} friend. / Next door lived {B}, {B.a} who {B.habit}.
'''
ANY_GOOD = ' '.join(GOOD)


def loan(s):
    A, _ = s.cast(ANY_GOOD, 'loyal honest forgetful hasty')
    s.thing('t', s.usual(TOOLS), A, 'task done thanks breaks mends')
    s.know('place due', (s.usual(SHEDS), s.usual(DUES)))


LOAN = OPEN + '''
{A.he} had {t.a}, which stood {place}. / {place} {A.he} kept {t.a}.

{day} {B}, {B.a}, knocked at the door. / {day} {A} had a guest: it was {B}, {B.a}.
"May I borrow {t.short}?" {B.he} asked. "I want to {task}." / "Please lend me {t.the}," said {B}. "I
  must {task}."
"Yes," said {A}, "but bring it back before {due}." "I promise," said {B}. / "Take it," said the
  {A.kind}, "and bring it back before {due}." {B} promised it.
@give t B

So {B} took {t.the} home and {done}. / {B} went to work with {t.the} and {done}.
(B forgetful) But {B} was so forgetful that {t.short} stayed {B.home}. At last {A} asked for it. "I
  forgot!" cried {B}. / But {B.he} forgot {B.his} promise. "Where is {t.short}?" asked {A} at last.
  "I forgot it!" cried {B}.
(B hasty) But {B} was in such a hurry that {breaks}. "Oh no!" cried {B}, and {mends}. / But {B} was
  hasty, and {breaks}. {B} was very sorry, sat up all night and {mends}.
(else) Then it began to rain, but {B} had made a promise, and {B.he} put on {B.his} coat and went
  out. / In the evening {B.he} was tired, but {B.he} remembered {B.his} promise to the {A.kind}.
@give t A

{B} brought {t.the} back to {A}. "Here it is," {B.he} said, "and here is {thanks} for you." / "Here
  is {t.the}," said {B}, and gave it back to {A}. "I brought you {thanks} too."
{A} put {t.short} {place} again. / The {A.kind} smiled, and {t.short} stood {place} once more.
@lesson B
'''


def lost(s):
    A, _ = s.cast('forgetful hasty proud cheerful shy lazy',
                  'patient careful clever kind brave gentle')
    size, *rest = s.usual(LOSSES)
    s.thing('t', s.usual(SMALL if size == 'small' else LIGHT), A)
    s.know('weather loss into at later', rest)
    s.know('one two giver', (s.usual(INDOORS), s.usual(ELSEWHERE), s.usual(FAMILY)))


LOST = OPEN + '''
{A.his} {giver} had given {A.him} {t.a}, and {A} took it everywhere. / {A.he} had {t.a} from {A.his}
  {giver}, and nothing was dearer to {A.him}.

{day} it happened. {weather} {loss} {into}. / {day} {A} went for a walk. {weather} {loss} {into}.
"{t.the} is gone!" cried {A}, and looked {one} and {two}. / {A} looked for it {one} and {two}, but
  it was not there.

{A} went to {B}, {B.a}. "I have lost {t.the}," {A.he} said. / {B}, {B.a}, saw {A} cry. "{t.the} is
  lost," said {A}.
"Do not cry," said {B}. "{B.motto}." / "{B.motto}," said the {B.kind}. "Come with me."
(B patient) {B} walked the whole way back, step by step.
(B careful) {B} looked at every spot twice.
(B clever) "Where were you last?" asked {B}, and {B.he} thought for a while.
(B kind gentle) {B} searched until dark.
(B brave) It was getting dark, but {B} took a lantern and went first.
And there, {at}, was {t.the}! / At last {B.he} found {t.the} {at}.
@give t A

"Here it is," said {B}. "Thank you!" said {A}, and hugged the {B.kind}. / {A} was so happy that
  {A.he} danced.
(maybe) {later}, {A} held {t.the} tight and thought of {B}. / {later}, {A} now left {t.the} at home.
(else) @lesson A B
'''


def trade(s):
    A, B = s.cast(ANY_GOOD, 'kind honest clever greedy shy cheerful gentle')
    need = s.usual(NEEDS)
    s.thing('x', need, B, 'trouble relief', A)
    s.thing('y', s.usual([n for n in NEEDS if n is not need]), A, 'trouble2 relief2', B)


TRADE = OPEN + '''
{A} had {y.a}, but {A.he} had no use for it. And {trouble}. / {A.he} had only one trouble:
  {trouble}. {y.a} was all that {A.he} owned.

Not far away lived {B}, {B.a}. {B} had {x.a}, but {trouble2}. / {B}, {B.a} who lived {B.home}, had
  {x.a}, but {B.he} was not happy, for {trouble2}.
{day} the two met at the well. "What {x.a}!" said {A}. "Just what I need!" / {day} they met in the
  street, and {A} looked at {x.the} for a long time.

(B greedy) "Give me {y.the} and all your {food}, and you can have it," said {B}, and {A} agreed. But
  {B} ate alone, and was not happy. The next morning {B.he} brought back half of the {food}.
(B shy) {B} was too shy to speak. So {elder} said, "Why do you two not trade?" / {elder} saw it and
  laughed. "Trade!" said {elder}. "{B} is only too shy to ask."
(else) "Shall we trade?" asked {B}. "You take {x.the}, and I take {y.the}." {A} agreed, and they
  shook hands. / "I know what to do," said the {B.kind}. "{x.the} for {y.the}!" "Done!" said {A},
  and they laughed.
(B shy) So they traded.
@give x A
@give y B

Now {A} had {x.the}, and {relief}. {B} had {y.the}, and {relief2}. / So {x.the} went to {A}, and
  {relief}. And {y.the} went to {B}, and {relief2}.
(B greedy shy) @lesson B
(else) @keep x y
'''


def storm(s):
    s.cast('proud timid grumpy shy', 'kind brave cheerful loyal patient gentle')
    s.know('weather damage repair later', s.usual(STORMS))


STORM = OPEN + MEET + '''
{weather}, and {damage}. / {weather}, and before anybody could [blink|stir], {damage}.
(A proud) "I need no help," said {A}, and sat in the cold. But soon {A.his} teeth began to chatter.
(A timid) {A} was so afraid that {A.he} crept under the bed and could not move.
(A grumpy) "This always happens to me!" said {A}, and stamped {A.his} foot.
(A shy) {A} was cold and wet, but too shy to ask for help.

(B kind gentle) Then there was a knock. It was {B}. "I have a warm bed for you," {B.he} said.
(B brave) Then {B} came through the dark. "Take my hand," {B.he} said. "I am here."
(B cheerful) Then {A} heard a song. It was {B}! "Come to my house," {B.he} sang.
(B loyal) Then {B} stood at the door. "I will not leave you alone," {B.he} said.
(B patient) Then {B} came and sat down beside {A}. "Come when you like," {B.he} said.
They ate {food} in the house {B.home}, and in the morning they {repair}. / So the {A.kind} went home
  with the {B.kind}, and when the sun came up, they {repair}.

"How can I thank you?" asked {A}. "Eat {food} with me again," said {B}. / "Thank you, {B}," said the
  {A.kind}. "{B.motto}," said the {B.kind}.
(maybe) {later}, the two always sat together by the fire. / {later}, {A} thought of {B} and was
  glad.
@lesson A
'''


def contest(s):
    A, _ = s.cast('proud lazy hasty', 'patient careful cheerful kind clever gentle')
    name, win, proud, lazy, hasty = s.usual(CONTESTS)
    loss = {'proud': proud, 'lazy': lazy, 'hasty': hasty}[A.trait]
    s.know('name win loss', (name, win, loss))
    s.thing('t', s.usual(PRIZES), None)


CONTEST = OPEN + MEET + '''
Every year there was {name}, and the prize was {t.a}. / {day} {elder} called everyone to {name}. The
  prize was {t.a}.
"{t.the} is as good as mine," said {A}. "We shall see," said {B}. / "I will win {t.the}," said the
  {A.kind}. "{B.motto}," said the {B.kind}.

The great day came, and {loss}. / Everybody came to watch, and {loss}.
But {win}. / Meanwhile {win}.
@give t B
So {B} won, and {elder} gave {B.him} {t.the}. / "{B} is the winner!" cried {elder}, and {t.the} was
  {B.hers}.

{A} hung {A.his} head. "You were better than I was," {A.he} said. / "Well done, {B}!" said {A}. "I
  was a fool." / "Come," said {B} to {A}, "let us eat {food} to cheer you up."
@lesson A
@keep t
'''


def mended(s):
    _, B = s.cast('honest timid hasty cheerful loyal', 'kind patient clever grumpy proud gentle')
    s.thing('t', s.usual(FRAGILE), B, 'breaks glue trace')
    s.know('spot', [s.usual(INDOORS)])


MENDED = OPEN + '''
{A} often visited {B}, {B.a} who had {t.a} and loved it dearly. / {A.his} friend {B} was {B.a}, and
  the best thing that {B.he} had was {t.a}.

{day} {A} [danced around the room|played ball in the kitchen|chased a fly]. {t.the} fell down and
  {breaks}. / {day} {A} bumped into the table. Down fell {t.the}, and it {breaks}.
(A timid hasty) {A} [was frightened and|quickly] hid it {spot}. But that night {A.he} could not
  sleep, and the next day {A.he} went to {B}. "I broke {t.short}," {A.he} said, "and hid it {spot}."
(else) {A} went to {B} at once. "I broke {t.the}," {A.he} said. "I am so sorry." / "{B}," said {A},
  "I have to tell you something. I broke {t.the}."

(B grumpy proud) {B} was angry and turned away. But {A} took {t.short} to {elder}. / "How could
  you!" said {B}. So {A} carried {t.short} to {elder}.
(B grumpy proud) With {glue} and the help of {elder}, {A} mended it. "Forgive me," said {A}, and {B}
  forgave {A.him}.
(else) {B} was sad, but {B.he} said, "{B.motto}. Let us mend it together." They took {glue} and
  worked until evening. / "Thank you for telling me," said {B}. "We can mend it." With {glue} they
  made it whole again.
@give t B

{t.the} was almost like new. If you looked closely, you could see {trace}.
"I like it even more now," said {B}, "because it makes me think of you." / {B} thought of {A}
  whenever {B.he} saw it.
(B grumpy proud) And {B} was not so {B.trait} any more.
(A timid hasty) @lesson A
(else) @keep t
'''


def secret(s):
    s.cast('careful kind clever brave patient gentle', 'loyal honest proud hasty')
    s.know('what why end', s.usual(SECRETS))
    s.know('spot', [s.usual(SPOTS)])


SECRET = OPEN + '''
{day} {A} found {what} {spot}. / {day} {A} went for a walk, and there, {spot}, {A.he} found {what}.

{A.he} told only {B}, {B.a} who {B.habit}. / {A.he} ran to {A.his} friend {B}, {B.a}, and told
  {B.him} about it.
"Tell nobody," said {A}. "{why}." "Not a word," said {B}. / "It is a secret," {A.he} said. "{why}."
  "I will keep it," promised the {B.kind}.

The next day {elder} asked {B}, "Why do you smile?" / At the market {elder} asked {B}, "What is new
  in the woods?"
(B loyal honest) "{B.motto}," said {B}, "and so I cannot tell you." / "I know something," said {B},
  "but I promised the {A.kind} to keep it."
(B proud hasty) {B} almost told it. "Well," {B.he} began, but {B.he} thought of {A} and bit {B.his}
  tongue.
{number} weeks went by, and every day {A} and {B} went {spot} on quiet feet. / {number} weeks
  passed, and the secret was safe.

Then one morning {end}.
"You kept my secret," said {A}. "You are a true friend." / {A} took {B.s} hand. "Thank you for your
  silence," said the {A.kind}.
@lesson B
'''


def journey(s):
    s.cast(ANY_GOOD, ANY_GOOD)
    first = s.usual(HURDLES)
    s.know('p wall over', first)
    s.know('q wall2 over2', s.usual([h for h in HURDLES if h is not first]))
    s.know('errand family far', (s.usual(ERRANDS), s.usual(FAMILY), s.usual(FAR)))


JOURNEY = OPEN + '''
{day} {A} had to take a {errand} to {A.his} {family}, who lived {far}.

{A} also packed a {p}. On the way {A.he} met {B}, {B.a}, who carried a {q}. / {A} took a {p} along.
  "I will come too," said {B}, {B.a}, and packed a {q}.
"{B.motto}," said {B}. / "Two are better than one," said the {B.kind}.

Soon they came to {wall}. But {A} {over}. / First there was {wall}. {A} {over}.
Then they came to {wall2}. This time {B} {over2}. / Next came {wall2}. "My turn," said {B}, who
  {over2}.

In the evening {A} stood before the house {far} and gave {A.his} {family} the {errand}. / At last
  {A} knocked at the door {far}, and {A.his} {family} was very glad of the {errand}.
They all ate {food}, and {A} told about the {p} and the {q}. / They ate {food}, and {B} told how the
  {p} and the {q} had helped them.
(maybe) @lesson A B
'''


def gift(s):
    A, B = s.cast(ANY_GOOD, 'grumpy shy cheerful honest brave')
    s.thing('t', s.usual(NEEDS), A, 'trouble relief', B)


GIFT = OPEN + MEET + '''But {B} had one trouble: {trouble}. / {B} was often sad, because {trouble}.

So {A} worked behind a closed door for {number} days. / For {number} days {A} worked on something in
  the attic.
"Come out and play!" called {B}. "I have no time," said {A}. / "What are you doing in there?" asked
  {B}. "Nothing," said {A}, and hid something under a cloth.
(B grumpy shy) "{A} does not like me any more," thought the {B.kind}, and went home [slowly|alone].

On the last day {A} came to the house {B.home}. "This is for you," {A.he} said. / Then {A} knocked
  at {B.s} door with a big parcel. "Open it," {A.he} said.
It was {t.a}! / {B} pulled off the paper, and there was {t.a}.
@give t B
"Did you make it for me?" asked {B}. "Yes," said {A}. / "So that is what you made for {number}
  days!" said {B}, and hugged the {A.kind}.

Now {relief}. / What a gift it was! Now {relief}.
(B grumpy shy) @lesson B
(maybe) {B} made {food} for {A}, to say thank you. / When {A.s} birthday came, {B} made {food} for
  {A.him}.
(else) @keep t
'''


def garden(s):
    s.cast('lazy hasty forgetful proud', 'patient careful cheerful loyal kind gentle')
    s.know('crop', [s.usual(CROPS)])


GARDEN = OPEN + MEET + '''
In spring {A} and {B} each planted a row of {crop}. / "Let us grow {crop}," said {B} in spring, and
  each of them dug a bed.
Then the weather turned dry, and no rain fell for weeks. / But the summer was hot, and the ground
  was dry.
Every [morning|evening] {B} carried water from the well to {B.his} {crop}. / {B} watered {B.his}
  {crop} every day and sang to them.
(A lazy) {A} only turned over in bed. "I will do it tomorrow," {A.he} said.
(A hasty) {A} could not wait, and dug up the seeds every day to see if they were growing.
(A forgetful) {A} meant to water {A.his} row, but each day {A.he} forgot.
(A proud) "My {crop} need no water," said {A}. "They are the best in the land."

When autumn came, {B} had a cart full of {crop}. {A} had nothing but dust. / In autumn the {crop} of
  the {B.kind} stood tall. In the bed of the {A.kind} there was nothing.
"Do not be sad," said {B}. "Take half of my {crop}." / "Take half of mine," said {B}, and filled a
  basket.

{A} thanked {B.him}. The next spring {A.he} [planted|sowed] {crop} again. / All winter they ate the
  {crop} together.
@lesson A
(maybe) And in autumn both of them had a cart full of {crop}. / That year there were so many {crop}
  that {elder} got some too.
'''


def night(s):
    s.cast('timid shy proud', 'brave clever patient loyal cheerful')
    s.know('noise was fix', s.usual(NOISES))
    s.know('ghost', [s.usual(GHOSTS)])


NIGHT = OPEN + MEET + '''
One night {A} heard a noise. "{noise}," it went. / "{noise}," it went one [stormy|dark|cold] night.
"It is {ghost}!" thought {A}, and pulled the blanket over {A.his} head. / {A} trembled. "That must
  be {ghost}," {A.he} whispered.
"{noise}," it went again. {A} jumped out of bed and ran to {B}.

"There is {ghost} at my house," said {A}. "Then let us look at it," said {B}. / "Help!" cried {A}.
  "There is {ghost}!" "{B.motto}," said {B}, and took a lamp.
(A proud) "Of course I am not afraid," said {A}, but {A.his} knees shook.
(else) They went on tiptoe, hand in hand. / {B} went first, and {A} held on to {B.him}.
And what was it? It was only {was}! / Then they saw it. It was not {ghost}. It was {was}.

{A} had to smile. Then they {fix}. / They {fix}, and all was quiet.
"{ghost} indeed!" said {B}, and {A} laughed too. / "Thank you for coming with me," said the
  {A.kind}. / Then the {A.kind} and the {B.kind} ate {food} in the kitchen.
@lesson A
'''


def taught(s):
    A, _ = s.cast('shy hasty timid cheerful lazy', 'patient kind careful brave clever gentle')
    skill, *rest, _ = s.usual([row for row in SKILLS if A.kind not in row[-1].split()])
    s.know('skill fail danger rescue', (skill, *rest))
    cold = skill in ('skate', 'dig')
    s.know('season', ['the next winter' if cold else 'the next [spring|summer]'])


TAUGHT = OPEN + '''
There was one thing {A.he} could not do: {A.he} could not {skill}. / {A} could do many things, but
  {A.he} could not {skill}.

"I will teach you to {skill}," said {B}, {B.a} who {B.habit}. / {B}, {B.a} who lived {B.home}, said,
  "Come with me, and I will teach you to {skill}."
The first time, {A} {fail}. "I will never learn it," {A.he} said. / {A} tried it and {fail}.
  Everybody laughed but {B}.
"{B.motto}," said {B}. "Try again." / "Once more," said the {B.kind}.
{A} tried {number} times, and at last {A.he} could {skill}. / They practised for {number} days,
  until {A} could {skill} as well as {B}.

{season}, {B} {danger}. / Then, {season}, {B} {danger}.
"Oh no!" cried {elder}. But {A} did not think twice. {A.he} {rescue}. / {elder} shouted and ran
  about, but {A} knew what to do. {A.he} {rescue}.

"You saved me," said {B}. "You taught me," said {A}. / "How lucky that you can {skill}!" said {B}.
  "I had a good teacher," said {A}.
(maybe) That evening the {A.kind} and the {B.kind} ate {food}. / They went home and ate {food}.
@lesson A B
'''

PLOTS = [(stage, script(text)) for stage, text in (
    (loan, LOAN), (lost, LOST), (trade, TRADE), (storm, STORM), (contest, CONTEST),
    (mended, MENDED), (secret, SECRET), (journey, JOURNEY), (gift, GIFT), (garden, GARDEN),
    (night, NIGHT), (taught, TAUGHT))]

# ---- the corpus ----------------------------------------------------------------------------------


def make_tales(path, wanted, pick, seen, vocabulary):
    """The bytes for path: tales until there are `wanted` bytes, none that is in `seen`, where they
    are added, as their words are to `vocabulary`."""
    tales, words, size = [], 0, 0
    while size < wanted:
        tale = Tale(pick)
        stage, lines = pick(PLOTS)
        stage(tale)
        tale.play(lines)
        text = tale.text()
        if text in seen:
            continue
        seen.add(text)
        text_words = re.findall('[a-z]+', text.lower())
        vocabulary.update(text_words)
        words, size = words + len(text_words), size + len(SEPARATOR) * bool(tales) + len(text)
        tales.append(text)
        if len(tales) % 500 == 0:
            print(f'\r{path}: {size / 1e6:.1f} of {wanted / 1e6:.1f} MB', end='', file=sys.stderr)
    print(f'\r{path}: {len(tales)} tales, {words} words, {size} bytes', file=sys.stderr)
    return SEPARATOR.join(tales).encode('ascii')


def check_free(path, content):
    """What is there stays: it may be what equal flags wrote, but a user's own file is an error."""
    if os.path.lexists(path) and sha256_file(path) != hashlib.sha256(content).hexdigest():
        raise Failure(f'{path}: is there, and holds something else than the tales to be written'
                      ' (move it, or choose another --out)')


def integer(text, least):
    """Parses a flag's value: an integer from `least` to 2^64 - 1."""
    if not text.isascii() or not text.isdigit() or not least <= int(text) < 1 << 64:
        raise argparse.ArgumentTypeError(f'{text!r}: expected an integer from {least} to 2^64 - 1')
    return int(text)


def main():
    p = parser('Write the default corpus: short original tales.')
    p.add_argument('--out', default='data/tales',
                   help='folder for train.txt and val.txt (%(default)s)')
    p.add_argument('--seed', type=lambda text: integer(text, 0), default=1,
                   help='equal seeds give equal bytes (%(default)s)')
    p.add_argument('--train-bytes', type=lambda text: integer(text, 1), default=6000000,
                   help='train.txt ends with the tale that reaches this size (%(default)s)')
    p.add_argument('--val-bytes', type=lambda text: integer(text, 1), default=300000,
                   help='likewise for val.txt (%(default)s)')
    args = p.parse_args()

    start = time.monotonic()
    pick, seen, vocabulary = make_pick(args.seed), set(), set()
    os.makedirs(args.out, exist_ok=True)
    made = {}
    for name, wanted in (('val.txt', args.val_bytes), ('train.txt', args.train_bytes)):
        path = os.path.join(args.out, name)
        made[path] = make_tales(path, wanted, pick, seen, vocabulary)
    for path, content in made.items():   # nothing is written before both have been looked at
        check_free(path, content)
    for path, content in made.items():
        if not os.path.lexists(path):
            with atomic_open(path) as file:
                file.write(content)
    print(f'{len(seen)} different tales of {len(vocabulary)} different words in '
          f'{time.monotonic() - start:.1f} s', file=sys.stderr)


if __name__ == '__main__':
    run(main)
