"""What people and models say twice: laughter, stammers, songs, poems, dialogues, self-corrections."""

from __future__ import annotations

from typing import Final

from .stream import PROVING, Negative, split, text

SPEECH: Final[tuple[Negative, ...]] = (
    split("laughter twice, apart", "equal neighbour", "ha|ha|!| I| said| ha|ha|!| again"),
    split("laughter that ends in a longer one", "prefix extension", "Oh| ha| ha| hahaha| stop"),
    split("two kinds of laughter", "doubled deltas", "Santa| says| ho| ho| ho|,| the| witch| he| he| he|."),
    split("two kinds of laughter, nothing between", "doubled deltas", "(|chorus|)| na| na| na| hey| hey| hey| goodbye"),
    split("laughter, interrupted each time", "equal to the delta before last", "ha|!|ha|!|ha|!"),
    split("stammer with dashes", "prefix extension", "I|-| I|-| I| don't| know"),
    split("very, very", "equal neighbour", "It| is| very| very| good|,| very| very| good| indeed"),
    split("had had", "equal neighbour", "James|,| while| John| had| had| had|,| had| had| had| had|;| had| had| had| had"),
    split("that that is", "equal neighbour", "That| that| is| is| that| that| is| not| is| not"),
    split("Buffalo", "equal neighbour", "Buffalo| buffalo| Buffalo| buffalo| buffalo| buffalo| Buffalo| buffalo"),
    split("bye bye", "equal neighbour", "Bye| bye|!| Bye| bye|,| dear|!"),
    split("knock knock", "equal neighbour", "Knock|,| knock|.|\n|Who|'s| there|?|\n|Knock|.|\n|Knock| who|?"),
    split("there, there", "equal neighbour", "There|,| there|.| There| is| no| need|."),
    split("no no no, yes yes yes", "doubled deltas", "He| said| no| no| no| but| meant| yes| yes| yes"),
    split("up up down down", "doubled deltas", " up| up| down| down| left| right| left| right| B| A"),
    split("Twinkle, twinkle in syllables", "doubled deltas", " do| do| sol| sol| la| la| sol|\n| fa| fa| mi| mi| re| re| do"),
    split("Twinkle, twinkle in letters", "doubled deltas", "Notes|:\n|C| C| G| G| A| A| G|\n|F| F| E| E| D| D| C|\n|."),
    split("each word twice, as asked", "doubled deltas", "the|the| cat|cat| sat|sat| down|down| here|here"),
    # Without a proof in the envelope this is, byte for byte, a stream in which every delta is sent twice (see twins.py).
    split(
        "each token twice, as asked", "doubled deltas", "Once|Once| there| there| lived| lived| nine| nine| kings| kings", styles=PROVING
    ),
    split("each word three times, as asked", "doubled deltas", "Go|Go|Go| slow| slow| slow| please| please| please| ok", styles=PROVING),
    text(
        "Frère Jacques, line by line",
        "doubled deltas",
        *("Frère Jacques,\n", "Frère Jacques,\n", "Dormez-vous ?\n", "Dormez-vous ?\n"),
        *("Sonnez les matines !\n", "Sonnez les matines !\n", "Din, dan, don.\n", "Din, dan, don."),
    ),
    split(
        "Frère Jacques in tokens",
        "doubled deltas",
        "Fr|ère| Jacques|,| Fr|ère| Jacques|,\n|Dor|mez|-vous|?| Dor|mez|-vous|?\n|Din|,| dan|,| don|.| Din|,| dan|,| don|.",
    ),
    split(
        "three blind mice", "doubled deltas", "Three blind mice,\n|Three blind mice,\n|See how they run,\n|See how they run,\n|They all ran"
    ),
    split("row, row", "cumulative from offset 0", "Row|,| row|,| row| your| boat|\n|Gently|\n|Row|,| row|,| row| your| raft"),
    split("a chorus between verses", "cumulative from offset 0", "[Chorus]\n|La la la\n|[Verse]\n|I walk\n|[Chorus]\n|La la la\n|[End]"),
    split("a chorus at both ends", "restart without marker", "We| will| rock| you|\n|Buddy| you|'re| a| boy|\n|We| will| rock| you|\n"),
    split("a chorus that comes back changed", "restart without marker", "Let| it| be|,|\nWhisper| words|\nLet| it| be|,| let| it| go"),
    split(
        "verse in two large chunks, then whole",
        "size outlier",
        "Row, row, row your boat, gently down the stream, |merrily, merrily, merrily, merrily, life is but a dream. |"
        "Row, row, row your boat, gently down the stream, merrily, merrily, merrily, merrily, life is but a dream. ",
    ),
    split(
        "verse in two large chunks, then whole, then more",
        "size outlier",
        "Twinkle, twinkle, little star, how I wonder what you are! |Up above the world so high, like a diamond in the sky. |"
        "Twinkle, twinkle, little star, how I wonder what you are! Up above the world so high, like a diamond in the sky. |The end.",
    ),
    split(
        "a mantra in one large chunk each",
        "equal neighbour",
        "I am calm and I am strong and nothing at all can disturb me today. |" * 3 + "Om.",
    ),
    split("repeat after me", "cumulative from offset 0", "Repeat| after| me|:| I| will|.| Repeat| after| me|:| I| won't|."),
    split("parrot", "equal neighbour", "Hello|.| Hello|.| Polly| wants| a| cracker|.| Polly| wants| a| cracker|."),
    split("echo shrinks by words", "older snapshot again", "who goes there|who goes|who|."),
    split("self-correction", "restart without marker", "The| answer| is| 4|.| Wait|,| no|.| The| answer| is| 5|."),
    split("the model begins again by itself", "restart without marker", "Sure|,| here| is|\n\n|Sure|,| here| is| the| poem|:\n"),
    split("the model begins again at once", "restart without marker", "I|'ll| help|I|'ll| help| you| now"),
    split("draft, then the same as final", "restart without marker", "Dear| Ann|,| hi|.|\n---\n|Final|:\n|Dear| Ann|,| hi|.|\n---\n"),
    split("question repeated before the answer", "overlap", "You| asked|: |Why|?| |Why|?| Because|."),
    split("yes and yes", "equal neighbour", '"Yes|."| "|Yes|?"| "|Yes|."'),
    split("dialogue in doubled lines", "doubled deltas", "A: Yes.\n|B: Yes.\n|A: Yes.\n|B: No.\n|A: No.\n|B: No.\n"),
    split("roll call", "equal to the delta before last", "Ann|?| Here|.| Bob|?| Here|.| Cid|?| Here|.| Ann| again|?| Here|."),
    split("counting sheep", "equal to the delta before last", "One| sheep|,| two| sheep|,| three| sheep|,| zzz|zzz|zzz"),
    split("la la land", "cumulative from offset 0", "la|la|land| is| a| film"),
    split("tut-tut, tick-tock", "overlap", "Tick|-|tock|,| tick|-|tock|,| said| the| clock|:| tick|-|tock|."),
    split("onomatopoeia, Japanese", "doubled deltas", "どき|どき|して|、|わく|わく|する"),
    split("drum beats", "equal to the delta before last", "boom| clap| boom| boom| clap| boom| clap| boom| boom| clap"),
    split("cheering", "doubled deltas", "Two|,| four|,| six|,| eight|!| Go| go| go|!| Win| win| win|!| Go|!"),
    split(
        "a rhyme that counts",
        "cumulative from offset 0",
        "Ten| green| bottles|\n|Ten| green| bottles|\n|And| if| one| fell|\n|Nine| green|",
    ),
    split("Who's on first", "equal neighbour", "Who|'s| on| first|.| Who| is| on| first|?| Who|.| Who|?| Who|.| Naturally|."),
    split("two languages, one greeting", "equal neighbour", "Hallo|!|\n|Hallo|!| (Dutch)|\n|Hallo|!"),
    split("spelling", "prefix extension", "bee|:| b|-|e|-|e|;| be|-|e"),
    split("spelled doubled letters", "doubled deltas", "b|o|o|k|k|e|e|p|e|r"),
    split("Mississippi", "equal to the delta before last", "M|i|s|s|i|s|s|i|p|p|i"),
    split("alphabet doubled, eight letters", "doubled deltas", "A|A|B|B|C|C|D|D|E|E|F|F|G|G|H|H|.", styles=PROVING),
    split("refrain with a count", "doubled deltas", "One more time|\n|One more time|\n|We|'re| gonna|\n|One more time|\n|One more time|\n"),
    split(
        "poem: first line is its last", "size outlier", "Nothing| gold| can| stay|.\n|Leaf| subsides| to| leaf|.\n|Nothing gold can stay."
    ),
    split("no no no yes", "doubled deltas", "No| no| no|,| yes| yes| yes|,| no| no| yes| yes|."),
    split("spelled out", "equal neighbour", "b|-|a|-|l|-|l|-|o|-|o|-|n|:| ball|oon"),
    split("laughter with vowels", "prefix extension", "Bwa|ha|ha|haha|ha|,| Mwa|ha|ha"),
    split("single characters", "equal neighbour", "b|o|o|k|k|e|e|p|e|r| |t|o|o| |a|l|l"),
    split(
        "litany",
        "doubled deltas",
        "Lord, have mercy.\n|Lord, have mercy.\n|Christ, have mercy.\n|Christ, have mercy.\n|Lord, have mercy.\n|Lord, have mercy.\n|Amen.",
    ),
    split(
        "old MacDonald",
        "doubled deltas",
        "E-I-E-I-O\n|With a moo moo here\n|And a moo moo there\n|Here a moo, there a moo\n|E-I-E-I-O\n|E-I-E-I-O\n",
    ),
    split("hey jude", "run", "Na na na| nananana| nananana|,| hey| Jude|.\n|Na na na| nananana| nananana|,| hey| Jude|."),
    split("barbara ann", "doubled deltas", "Ba|-|ba|-|ba|,| ba|-|Barbara| Ann|,| ba|-|ba|-|ba|,| ba|-|Barbara| Ann"),
    split(
        "dialogue stage",
        "equal to the delta before last",
        "HAMLET|:| Words|,| words|,| words|.\n|POLONIUS|:| What| matter|?\n|HAMLET|:| Words",
    ),
    split("stammer letters", "prefix extension", "W|W|We|W|We|ll| I| d|do| not"),
    split("restating the question", "restart without marker", "What| is| 2+2|?| |What| is| 2+2|?| It| is| 4|."),
    split(
        "two refusals", "restart without marker", "I|'m| sorry|,| but| I| can|'t|.\n\n|I|'m| sorry|,| but| I| can|'t| help| with| that|."
    ),
    split("step list", "restart without marker", "Step 1|:| open|.\n|Step 1|:| open|.\n|Step 2|:| close|."),
    split("hip hip hooray", "doubled deltas", " hip| hip| hooray| hip| hip| hooray| hip| hip| hooray"),
    split("three cheers, tripled tokens", "tripled deltas", "Hip| hip| hip| hooray| hooray| hooray|!| Again|!"),
)
