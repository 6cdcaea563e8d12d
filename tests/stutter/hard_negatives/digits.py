"""Numbers, encodings and data in rows: digits repeat more than any other text."""

from __future__ import annotations

from typing import Final

from .stream import PROVING, Negative, split, text

DIGITS: Final[tuple[Negative, ...]] = (
    text("a long number in single digits", "equal neighbour", *"6666666666", report="Kiro-Go 138"),
    split("1833", "equal neighbour", "1|8|3|3", report="Kiro-Go 138"),
    split(
        "2012, with its first digit again",
        "delta begins the text so far",
        "2|0|1|2| was| a| leap| year| like| 2|0|1|6",
        report="Kiro-Go 138",
    ),
    split("a number in groups of three, its rest a digit", "head of the delta before", "666|666|666|6", report="Kiro-Go 138"),
    split("1500 in two tokens", "overlap", "150|0| m|,| then| 1|500|0| m", report="jetbrains-cc-gui 1205"),
    split("abc, then a", "delta begins the text so far", "abc|a|b|c", report="kirocc 112"),
    split(
        "761 frames, all new, many alike", "equal to the delta before last", "0|,|1|,|0|,|1|,|1|,|0|,|1|,|1|,|0|,|0", report="kirocc 112"
    ),
    split("a phone number", "equal neighbour", "+|1|-|555|-|555|-|555|5"),
    split("an address of one octet", "equal to the delta before last", "ping| 10|.|10|.|10|.|10|:| ok|,| ok"),
    split("IPv6", "prefix extension", "fe80|:|::|1| is| not| ::|1"),
    split("binary", "equal to the delta before last", "0|1|0|1|0|0|1|1|0|1"),
    split("hex in pairs", "doubled deltas", "00|00|ff|ff|00|00|ff|fe"),
    split("hex dump", "equal to the delta before last", "0000|  |00| 00| 00| 00|  |00| 00| 00|  |....|\n|0008|  |00| 00"),
    split("colour", "equal neighbour", "color|:| #|ff|ff|ff|;|\n|background|:| #|00|00|00|;"),
    split("base64 zeros, its padding", "equal neighbour", "AAAA|AAAA|AAAA|AA|=|="),
    split("a hash that begins its list", "cumulative from offset 0", "e3b0|c442|98fc|\n|e3b0|c442|98fd|\n|e3b0|c443|00aa"),
    split("UUIDs that share a head", "equal to the delta before last", "0000|-|0000|-|4000|\n|0000|-|0000|-|4001|\n|0000|-|0001|-|4002"),
    split("counting up", "prefix extension", "1| 2| 3| 10| 100| 1000| 10000| 2"),
    split("counting, one digit a token", "delta begins the text so far", "9|,| |1|0|,| |1|1|,| |1|2|,| |1|1|1"),
    split("powers of two, digits apart", "equal neighbour", "2|,|4|,|8|,|1|6|,|3|2|,|6|4|,|1|2|8|,|2|5|6"),
    split("squares of elevens", "delta begins the text so far", "11|²| =| |121|,| |111|²| =| |123|21|,| |1|11|1|²"),
    split("repeating decimals", "equal neighbour", "1|/|7| =| |0|.|142857|142857|142857|…| and| |1|/|3| =| |0|.|333|333"),
    split("pi, then pi in full", "cumulative from offset 0", "3|.|14|; more| exactly| |3|.|14|159|; |3|.|14|159|265"),
    split("identity matrix", "doubled deltas", "1| 0| 0|\n|0| 1| 0|\n|0| 0| 1|\n"),
    split("truth table", "equal neighbour", "p| q|\n|T| T|\n|T| F|\n|F| T|\n|F| F|\n"),
    split("dice", "equal neighbour", "Rolls|:| 6|,| 6|,| 6|.| Then| 1|,| 6|,| 6"),
    split("football results", "equal to the delta before last", "2|:|2|,| 0|:|0|,| 2|:|2|,| 1|:|0"),
    split("dates", "equal to the delta before last", "11|.|11|.|2011|,| |11|:|11|:|11|.|11"),
    split("clock", "equal to the delta before last", "00|:|00|:|00|,|000| -->| |00|:|00|:|02|,|000"),
    split("roman numerals, nothing between, then four", "cumulative from offset 0", "I|II|III|IV|V"),
    split("ratings", "equal neighbour", "★|★|★|☆|☆| (3/5)|\n|★|★|☆|☆|☆| (2/5)"),
    split("tally marks", "prefix extension", "I|I|I| |I|I|I|I| makes| seven| I"),
    split("pH 7, 7.0, 7.00", "prefix extension", "7|7.0|\n| 7.0|\n| 7.00|\n| 7.000|\n"),
    split("CSV with empty fields", "equal neighbour", "id,a,b,c\n|1|,|,|,|\n|2|,|,|,|\n|3|,|x|,|,|\n"),
    split("sparse vector", "equal neighbour", "[|0|,| |0|,| |0|,| |1|,| |0|,| |0|]"),
    split("floats of an embedding", "equal to the delta before last", "[-|0|.|01|,| -|0|.|01|,| -|0|.|02|,| |0|.|01"),
    split("DNA", "doubled deltas", "A|A|C|C|G|T|T|G|A|A|T|C"),
    split("protein with a tag", "equal neighbour", "M|HH|HH|HH|GS|HH|TT|HH|HH|*"),
    split("Morse", "equal to the delta before last", ".|.|.| |-|-|-| |.|.|.| /| |.|-"),
    split("chess, moves repeated", "restart without marker", "1|.| Nf3| Nf6| |2|.| Ng1| Ng8| |3|.| Nf3| Nf6| ½|-½"),
    split("Sudoku row with blanks", "equal neighbour", "5| .| .| .|7| .| .| .| .|\n|6| .| .|1|9|5| .| .| ."),
    split("Game of Life", "equal neighbour", ".#.\n|.#.\n|.#.\n\n|...\n|###\n|...\n\n|.#.\n|.#.\n"),
    # A C1 injection into the digits 1 to 9 has the same bytes but for the proof.
    split("each digit twice, as asked", "doubled deltas", "1|1|2|2|3|3|4|4|5|5|6|6|7|7|8|8|9|9|0", styles=PROVING),
    split("a token counter's output", "prefix extension", "Tokens|:| |1|,| |1|2|,| |1|2|3|;| total| |6"),
    split("dna repeats", "doubled deltas", "ATG|ATG|CAG|CAG|CAG|CAG|TTA|TTA|GGC|GGC|TAA"),
    split("csv columns equal", "equal neighbour", "x|,|x|,|x|\n|x|,|x|,|x|\n|y|,|y|,|y"),
    split("uuid nil", "equal neighbour", "0000|0000|-|0000|-|0000|-|0000|-|0000|0000|0000"),
    split("counting one to five twice", "restart without marker", "1| 2| 3| 4| 5|\n|1| 2| 3| 4| 5|\n|done"),
    split("counting by growing lines", "cumulative from offset 0", "1|,| 1| 2|,| 1| 2| 3|,| 1| 2| 3| 4"),
    split("morse", "doubled deltas", "...| ---| ...| ...| ---| ...| -.-.| -.-."),
    split("music tab", "equal neighbour", "e¦|--0--|--0--|--3--|--3--|¦\n|B¦|--1--|--1--|--0--|--0--|¦\n"),
    split("scales", "doubled deltas", "C| C| G| G| A| A| G|,| F| F| E| E| D| D| C|."),
    split("ip zeros", "equal neighbour", "0|.|0|.|0|.|0|/|0|,| |0|.|0|.|0|.|1"),
    split("ipv6", "prefix extension", "::|::1|,| |fe80|::|1|,| |::"),
)
