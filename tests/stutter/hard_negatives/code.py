"""Programs, logs, shells, diffs."""

from __future__ import annotations

from typing import Final

from .stream import PROVING, Negative, split, text

CODE: Final[tuple[Negative, ...]] = (
    split("C, then C++", "prefix extension", "C|C++| and| Rust|,|C|#|,|C", report="qwen-code 3896"),
    split("closing brackets", "equal neighbour", "f|(|g|(|h|(|x|)|)|)|;"),
    split("closing braces on lines", "head of the delta before", "if (a) {\n|    }\n|  }\n|}\n|}\n"),
    split("import, import", "delta begins the text so far", "import| os|\n|import| os|.path|\n|import| sys"),
    split("assignments alike", "doubled deltas", "x = 1\n|x = 1\n|y = 2\n|y = 3\n|x = 1\n"),
    split("comparison operators", "cumulative from offset 0", "=|==|===| differ|:| =| ==| ==="),
    split("scope", "prefix extension", "std|:|::|vector|<|std|:|::|string|>|>"),
    split("pointer to pointer", "equal neighbour", "char| *|*|argv|,| int| *|*|*|p"),
    split("getters", "equal to the delta before last", "get|Name|();\n|get|Age|();\n|get|Name|();\n|set|Name|()"),
    split("names that extend each other", "prefix extension", "user|username|,| user|_id|,| user|_ids|,| user|name"),
    split("names that extend each other, in a list", "prefix extension", "'SUB|-AVE|',\n|'SUB-|'SUB-AVER|'SUB-AVERAGE|'SUB-AVERAGES',\n"),
    split("pre, prefix, prefixes", "prefix extension", "in| in| inner|:| in| insert| inserted"),
    split("camel case of one word", "overlap", "foo|Foo|foo|Bar|fooFoo|Bar"),
    split("path of parents", "equal to the delta before last", "cd| ..|/|..|/|..|/|lib|/|..|/"),
    split("shell prompt", "delta begins the text so far", "$ |ls|\n|$ |pwd|\n|$ |ls|\n|$ "),
    split("command, its output the same", "equal to the delta before last", "echo| hi|\n|hi|\n|echo| hi|\n|hi|\n"),
    split("echo of a program", "cumulative from offset 0", 'print("a")\n|a\n|print("a")\n|a\n|a\n'),
    split("diff of one line", "equal to the delta before last", "-|foo(|1|)\n|+|foo(|2|)\n| |foo(|3|)\n"),
    split("merge markers", "equal neighbour", "<<<<|<<<| HEAD\n|a\n|====|===|\n|b\n|>>>>|>>>| br\n"),
    text(
        "log with two handlers, quoted in a fence",
        "doubled deltas",
        *("Your log:\n", "```\n", "INFO Starting\n", "INFO Starting\n", "INFO Loading\n", "INFO Loading\n"),
        *("WARN Slow disk\n", "WARN Slow disk\n", "```\n", "The root logger has two handlers."),
    ),
    # Six doubled lines and no proof: the bytes of a C1 injection into the log (see twins.py).
    split("longer log with two handlers", "doubled deltas", "|".join(f"{n} step\n|{n} step\n" for n in "abcdefg") + "|end", styles=PROVING),
    split("test output", "equal neighbour", "....|....|..F.|....|\n|1 failed|\n|....|...."),
    split("assembler", "equal neighbour", "start:\n|nop\n|nop\n|nop\n|jmp start\n|nop\n|nop\n"),
    split("brainfuck", "equal neighbour", "+|+|+|[|>|+|+|<|-|]|>|.|."),
    split("regular expression", "equal neighbour", "^|\\d|\\d|-|\\d|\\d|$| or| ^|\\d|{2}"),
    split("SQL placeholders", "equal neighbour", "VALUES (|?, |?, |?, |?),\n(|?, |?, |?, |?)"),
    split("SQL written step by step", "restart without marker", "SELECT| a|\n|FROM| t|;\n\n|SELECT| a|,| b|\n|FROM| t|;\n"),
    split("SELECT grows, one chunk each", "cumulative from offset 0", "SELECT a|SELECT a FROM t| is| how"),
    split("CSS", "equal to the delta before last", "margin|:| |0| |0| |0| |0|;\n|padding|:| |0|;\n"),
    split("CSS selectors", "prefix extension", ".a|.a .b| {}\n|.a|.a .b|.a .b .c| {}\n"),
    split("arrow functions", "equal neighbour", "a|=>|b|=>|c|=>|a|(|b|)|(|c|)|(|)|(|)"),
    split("Lisp", "equal neighbour", "(a (b (c (d|)|)|)|)\n|(a|)\n"),
    split("Python string of quotes", "prefix extension", "'|''|'''|doc|'''| and| ''"),
    split("URLs alike", "equal neighbour", "https://|https://|a.b| is| wrong|,| https://|a.b| right"),
    split("URL that goes on", "prefix extension", "/api|/api/v1|/users|/api|/api/v2"),
    split("ASCII escape codes", "equal to the delta before last", "\x1b[|31m|x|\x1b[|0m|y|\x1b[|31m|z|\x1b[|0m"),
    split(
        "variant of a long line",
        "prefix extension",
        "First:\n|result = model.generate(prompt, temperature=0.2, max_tokens=256|)\n|or\n|"
        "result = model.generate(prompt, temperature=0.2, max_tokens=256|, stream=True)\n",
    ),
    split("loops nested alike", "equal neighbour", "for i in n:\n|  |for j in n:\n|  |  |for k in n:\n|  |  |  |pass"),
    split("docker layers", "equal to the delta before last", "RUN| apt-get| update|\n|RUN| apt-get| install|\n|RUN| apt-get| clean|\n"),
    split("requirements", "equal to the delta before last", "a|==|1.0|\n|b|==|1.0|\n|c|==|1.0|.0|\n"),
    split("lisp opens", "cumulative from offset 0", "(|((|(((|lambda| (x)|)|))|)))"),
    split("python docstring", "equal head then longer", '"|"|"Docs.|"|"|"'),
    split("dots of pytest", "run", "....|....|.F..|....|....|.F..|...."),
    split("diff, its hunk again in one", "size outlier", "-a\n|+a\n|-a|\n|+|a|\n|-b|\n|+b|\n|-a\n+a\n-a\n+a\n-b\n+b\n|@@"),
    split("version list", "prefix extension", "1.2|\n1.2.3|\n1.2.3-rc1|\n1.3|\n1.3.1"),
    split("regex", "equal neighbour", "^|(|(|[|a-z|]|+|)|)|(|(|[|a-z|]|+|)|)|$"),
    split("brainf", "doubled deltas", "++|++|>>|>>|--|--|<<|<<|[.]|[.]|,"),
    split("whitespace code", "equal neighbour", " | |\t|\t|\n|\n| | |\t|x"),
)
