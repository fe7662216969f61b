"""The words on the rendered demo pages, written for this purpose; no passage is in both lists."""

TRAIN_TEXTS = (
    "The ferry leaves at a quarter past six and carries, besides its passengers, the mail, eleven crates "
    "of oranges and a piano that nobody has claimed. The captain keeps a list of such things in a small "
    "green book. He says that in forty years only two pianos were ever fetched, and one of them by "
    "mistake.",
    "To repair a wall of dry stone, take it down further than seems needed. Sort the stones by size along "
    "the grass, the largest nearest to the trench. Lay each across the joint of the two below it; never "
    "trust a stone that must be held by smaller ones. Fill the heart of the wall as you go, not "
    "afterwards.",
    "Sir, in reply to yours of the 14th we regret that the clock cannot be set right by post. The spring "
    "is sound, but the escapement has been oiled with something that was meant for a sewing machine. "
    "Please send the movement without its case, packed in dry linen, and mark the box with an arrow.",
    "Rainfall at the upper station came to 1,284 mm in the year, against a mean of 1,197 mm. June and "
    "October were wet; in April the gauge stood empty for 19 days. The observer, Mrs. Okafor, asks for a "
    "new funnel, the old one having been carried off by jackdaws on two occasions.",
    "Chapter VII. In which the surveyor quarrels with his chain. A chain is sixty-six feet, he told the "
    "boy, and a field does not care whether you are tired. They measured the long hedge three times and "
    "had three lengths for it: 412, 415 and 409 links. He wrote down the middle one and said no more "
    "until supper.",
    "Beat four eggs with a pinch of salt. Melt 30 g of butter until it stops singing, pour in the eggs "
    "and draw the edge towards the middle with a fork. Do not hurry, and do not walk away. When the top "
    "is still moist fold it once, turn it onto a warm plate and call the others.",
    "Als der Müller aufwachte, stand das Wasser schon in der Stube. Er zog die Stiefel an, öffnete beide "
    "Türen und ließ den Bach hindurch, wie sein Großvater es getan hätte. Gegen Mittag war alles vorüber; "
    "auf dem Tisch lag eine Forelle, und die Uhr ging zum ersten Mal seit Jahren richtig.",
    "Le jardinier compte ses poiriers avant l'hiver: douze contre le mur, sept près du puits, un dernier "
    "que le gel a fendu. Il a noté dans son cahier la date des premières fleurs, le prix du fumier et le "
    "nom du voisin qui n'a jamais rendu l'échelle. Où sera-t-elle en février? Là où elle était déjà.",
    "Minutes of the allotment society. Present: nine members and a dog. The treasurer reported a balance "
    "of £212.40, less £18.75 for the padlock. It was resolved (5 to 3) that the north gate be kept shut "
    "on Sundays; Mr. Finch wished his objection to be recorded and then recorded it himself.",
    "A lens does not see; it only bends. Light from one point of the flame goes through every part of the "
    "glass and meets again in one point of the screen. Cover half of the lens with your hand: the picture "
    "is whole, but half as bright. Most people bet against this, and it is a cheap way to win a cup of "
    "tea.",
    "El tren de las ocho llegó a las nueve y cuarto, sin luces y sin explicación. Bajaron tres viajeros: "
    "una maestra con dos maletas, un niño que contaba los postes y un señor que preguntó por el mar. ¿El "
    "mar? Está a cuatrocientos kilómetros, dijo el jefe de estación, pero hoy se oye muy bien.",
    "WARNING: switch off at the mains before you remove cover B. Screws 3 to 6 are longer than the others "
    "and must go back where they came from. If lamp L2 blinks twice, check fuse F1 (2.5 A, slow). If it "
    "blinks four times, write down the number on the plate and send for the engineer.",
    "The committee compared seven methods on 140 maps. Method C was first on 61 of them and last on 38, "
    "which the authors call a mixed result and the referee called a coin. Without the maps of the coast "
    "the order is reversed. We print both tables and leave the verdict to the reader.",
    "Dear Ilse, the parcel came, thank you; the jam had survived and the cup had not. I have glued it and "
    "it holds flowers now, if one is careful to fill only the lower third. The roof is done. At night I "
    "hear the new tiles settling, a small dry sound, like someone turning pages in the next room.",
    "Skridtene kan høres i hele huset, så børnene går på strømper. På øverste etage bor en mand, som "
    "stemmer klaverer; han sover om dagen og hører alt. Ærlig talt ved ingen, hvad han hedder, men på "
    "døren står der et stort Ø og under det et lille hul til posten.",
    "Article 12. Whoever finds a thing of value in the hall shall hand it to the porter, who enters the "
    "place and hour in the register. If after 90 days no owner is found, the thing is sold and the sum "
    "given to the school. Umbrellas are exempt from this article; see the appendix on umbrellas.",
)

VAL_TEXTS = (
    "The lighthouse keeper wrote one line a day. Wind north-west, fresh. Passed: four schooners, a tug, "
    "something low in the water with its lamps out. On the 9th he wrote only the word fog, and on the "
    "10th he drew a careful picture of the kettle, with each of its dents and the date of it.",
    "Before you prune a quince, look at it for as long as it takes to drink a glass of water. Cut what is "
    "dead, then what crosses, then nothing. A branch as thick as a thumb heals in two summers; one as "
    "thick as a wrist keeps the mark for life. Leave the ladder home if you can reach it from the ground.",
    "Invoice no. 20771. For tuning one harmonium: 14.50. For removing from the same a mouse nest, three "
    "pencils and a hymn sheet: no charge. Carriage by boat 6.20, by cart 3.80. Payment within 30 days to "
    "the address above; the workshop is closed from 23 December until the ice is off the canal.",
    "Über dem Dorf liegt seit gestern Schnee, und die Bücherei hat früher geschlossen. Zwei Kinder zählen "
    "die Fußspuren vor der Tür: vierzehn hinein, dreizehn heraus. Jemand muß noch drinnen sein, sagt das "
    "größere, und beide sehen zum Fenster hinauf, hinter dem eine Lampe langsam heller wird.",
    "Plate 31. Section through the pump house, looking east. The well (a) is lined with brick to a depth "
    "of 22 ft; below this it is cut in the chalk and needs no lining. The beam (f) was cast in 1861 and "
    "has been mended once, at the cost of a wet Easter. Scale: one inch to eight feet.",
    "À la poste, la dame du guichet pèse ma lettre deux fois. Vingt et un grammes, dit-elle, c'est un "
    "gramme de trop; enlevez une phrase. Je relis, j'hésite, je barre le mot «peut-être» en bas de la "
    "page. Elle sourit et repose l'enveloppe sur la balance: vingt grammes, comme quoi.",
)
