"""Short plain texts on everyday subjects, to measure what a training does to a model beside its task.

They were written for this package, stand under its licence and are the same everywhere. None is about
ratings, dialogues or instructions. Stage keys hold a hash of them: a changed word makes other results.
"""

DOCUMENTS = (
    "A river seldom keeps to one bed. Where it bends, the water on the outer side has farther to go and "
    "runs faster, so it eats into the bank, while on the inner side it slows down and drops its sand. "
    "Year by year the bend grows wider. In the end the river may cut through the narrow neck of land "
    "between two bends during a flood, and the old loop is left behind as a quiet lake. Farmers in flat "
    "country know such lakes well. They fill with reeds, then with mud, and after a few centuries only a "
    "curved line of darker soil in a field shows where the water once flowed.",
    "Bread needs little more than flour, water, salt and time. When flour is wetted, two of its proteins "
    "join into long elastic strands, and kneading lays these strands side by side until the dough can be "
    "stretched without tearing. Yeast feeds on the sugar in the dough and gives off gas, which the "
    "strands hold in small bubbles. A warm kitchen makes this fast, a cool cellar makes it slow, and slow "
    "dough usually tastes better, because other reactions have the time to finish. In the oven the "
    "bubbles swell once more before the crust sets, and the smell tells everyone in the house that supper "
    "is near.",
    "The first clocks in towers had no hands. They struck a bell, and people in the streets counted the "
    "strokes. A heavy stone hung from a rope that was wound around a drum, and as the stone sank it "
    "turned the wheels. The difficulty was to let it sink evenly. A bar with weights at both ends swung "
    "to and fro and stopped a toothed wheel twice in each swing, so that the stone moved down by one "
    "small step at a time. Such a clock could lose a quarter of an hour in a day. A keeper climbed the "
    "stairs each noon to set it right by the sun.",
    "Moss grows where larger plants cannot. It has no roots, only fine threads that hold it to a stone or "
    "a roof, and it drinks through its leaves whenever it rains. In a dry week it shrivels, turns brown "
    "and seems dead, yet a single shower brings it back within minutes. A cushion of moss keeps the "
    "ground below it damp, and in that dampness live mites, worms and beetles that are too small to be "
    "noticed. Gardeners scrape moss from their paths, while others plant it on purpose under old trees, "
    "where grass would never thrive because the light is too weak.",
    "When the railway reached the valley, the village changed more in ten years than it had in the two "
    "hundred before. Milk that had been made into cheese because it would not keep could now be sold "
    "fresh in the city the same morning. Coal became cheap, so the woods on the hillside were allowed to "
    "grow again. Young people left to learn a trade and came back at weekends with newspapers and new "
    "songs. The innkeeper, who had feared that nobody would stay overnight any more, built a second house "
    "for the walkers who arrived on Sundays and wanted to see the waterfall.",
    "A violin is mostly air. Its top is a thin plate of spruce, carved so that it is thickest in the "
    "middle, and its back is of maple. The strings themselves are nearly silent, for they are too thin to "
    "move much air. They shake the bridge, the bridge rocks the top, and a small post of wood that stands "
    "inside the body carries the movement to the back. Makers tap the plates while they carve them and "
    "listen to the note. If the post is shifted by the width of a hair, the instrument can sound like "
    "another one, and many players have theirs adjusted when the weather turns.",
    "Salt was once so valuable that roads were named after it. On the coast, sea water was led into "
    "shallow ponds and left to the sun and the wind. Inland it had to be dug out of the mountain, or "
    "brine was pumped up and boiled in broad iron pans, which took whole forests of firewood. Without "
    "salt there was no way to carry meat or fish through the winter. Towns that lay on the way raised a "
    "toll on every wagon, and their tall brick churches still show how much of it passed through. Today a "
    "bag of salt costs less than the paper in which it is wrapped.",
    "Glass does not melt at one temperature as ice does. It softens little by little, and a skilled "
    "worker uses each stage. At the end of a long iron pipe a glowing lump hangs like honey, and the pipe "
    "has to be turned without a pause, or the lump would fall to one side. A breath makes a bubble. "
    "Swinging the pipe makes it longer, and a wet wooden block makes it round. When the piece is finished "
    "it goes into a warm chamber and cools there through the night. Glass that cools too quickly keeps a "
    "strain inside and may break weeks later, when no one has touched it.",
    "Swallows leave in September. For several days they gather on the wires above the road, more of them "
    "each morning, and then one day the wires are empty. They fly by daylight and feed as they go, so "
    "they follow the rivers and coasts, where insects are plentiful. Crossing the desert takes them about "
    "four days. A bird that weighs less than a letter may return in April to the very barn in which it "
    "was hatched. Nobody knows exactly how it finds the way, though the sun, the stars and the pull of "
    "the earth's magnetic field all seem to play a part.",
    "The lighthouse stood on a rock that was covered twice a day by the tide. To build it, men could work "
    "for only a few hours at low water, and in the first summer they laid nothing but the lowest ring of "
    "stones. Each block was cut on land so that it gripped its neighbours like a piece of a puzzle. Later "
    "a boat brought oil, bread and letters when the sea allowed it. The keepers took turns at night to "
    "wind the machine that moved the lens. Now the light runs by itself, and a person visits twice a year "
    "to clean the windows and to paint the door.",
    "Every winter the lake freezes from the edge inwards. Cold water sinks until the whole lake has the "
    "same temperature of four degrees, and only then does the surface grow colder than the depths, "
    "because water near freezing is lighter again. On the first still night a thin sheet forms, clear as "
    "a window. Snow that falls on it keeps the ice from thickening, as a blanket would. Fish rest near "
    "the bottom and hardly move. In March the ice turns grey and breaks with long low sounds that can be "
    "heard in the houses, and the children are told to stay away from the shore.",
    "Paper is a felt of plant fibres. For many centuries it was made from worn linen, which was soaked, "
    "beaten to a pulp and scooped from a vat with a sieve. The papermaker shook the sieve once in each "
    "direction so that the fibres crossed, let the water drain, and turned the wet sheet out on a cloth. "
    "A good worker made two thousand sheets in a day. As more books were printed, rags became scarce, and "
    "people tried straw, nettles and even wasps' nests for a model. Wood was cheap and did the job, but "
    "the paper made from it in the early years has turned brown and breaks at a touch.",
    "The market opens before it is light. Vans stop with two wheels on the pavement, crates are passed "
    "from hand to hand, and someone hangs a lamp on a tent pole. By seven o'clock the apples are stacked "
    "in pyramids and the fish lie on crushed ice. The early customers are cooks, who say little and look "
    "closely. Families come later and stay longer, because there is coffee at the corner and the children "
    "want to see the rabbits. At one the prices fall. At two a machine sweeps up leaves and paper, and an "
    "hour afterwards nothing is left of the market but a smell of herbs.",
    "A sailor who wants to know how far north he is can measure how high the pole star stands. Knowing "
    "how far east or west he has come is harder, for the sky turns, and what he sees depends on the hour. "
    "He needs the time at home. Pendulums were useless on a rolling deck, so a carpenter spent most of "
    "his life on a clock with springs and balances that neither the motion nor the heat disturbed. His "
    "fourth model was no larger than a plate. After weeks at sea it was wrong by a few seconds, and "
    "captains who carried one could at last trust their charts.",
    "Wool from one sheep is enough for about three pullovers. After shearing it is washed to free it of "
    "grease, then combed until all hairs lie in one direction. Spinning twists them so that they hold "
    "each other by friction alone. A single thread would curl, so two are usually twisted together the "
    "opposite way. Colours came from plants: yellow from weld, red from the roots of madder, blue from "
    "woad leaves that had been left to rot for weeks in a barrel behind the house. The neighbours "
    "complained about the smell, but the cloth kept its blue for generations.",
    "In the attic they found a box of photographs without names. An old man on a bench held a dog. Two "
    "girls in white dresses stood in front of a car whose number plate had been scratched out. Most of "
    "the pictures had been taken at the sea, on the same stretch of beach, over what must have been "
    "twenty summers. The hats changed, and the bathing suits, and one by one the older faces were "
    "missing. On the back of the last one somebody had written in pencil that the water was cold this "
    "year and that the new tenants had cut down the pear tree.",
    "A bicycle stays upright because it steers itself. When it leans to the left, its front wheel turns "
    "to the left as well, and so the wheels come back under the rider. People long believed that the "
    "spinning wheels kept it up as a top stays up, but bicycles have been built in which this effect was "
    "cancelled, and they rolled along without a rider just as well. What matters is how the weight is "
    "spread and where the front wheel touches the road. Whoever learns to ride has to unlearn one thing: "
    "to turn right, one first steers a little to the left.",
    "The library had two doors. Through one came the readers, through the other, once a week, a cart with "
    "the books that the branch in the next town had lent out. The librarian knew most of her visitors by "
    "what they read. She put aside a new atlas for the retired pilot, and for the boy from the bakery "
    "everything about volcanoes. In summer the windows stood open, and the noise of the street came in "
    "together with the smell of lime blossom. In winter the radiator under the newspaper table was the "
    "warmest place in town, and nobody was ever asked to leave it.",
    "Tea and coffee both come from plants that defend themselves against insects. The substance that "
    "keeps people awake is bitter, and in large amounts it is a poison to whatever chews the leaves. A "
    "few flowers even put a trace of it into their nectar, and bees that have tasted it remember the "
    "flower better. People found out about the effect in different places and tell similar stories of how "
    "it happened, with goats that would not sleep or leaves that fell into a kettle. What is certain is "
    "that within a century of reaching the ports, the two drinks had changed at what hour whole cities "
    "got up.",
    "Concrete hardens because it drinks. The cement in it does not dry out, as many think, but binds "
    "water into crystals that grow into each other, and this works just as well below the surface of a "
    "harbour. The builders of antiquity mixed lime with volcanic ash and made piers that have stood in "
    "salt water for two thousand years and have become stronger meanwhile. Steel bars let modern concrete "
    "carry loads that would tear it apart by themselves. They are also its weakness, since rust takes up "
    "more room than steel, and where water has reached the bars the surface begins to flake.",
)
