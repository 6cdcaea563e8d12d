"""Writing systems: reduplication, combining marks, scripts without blanks, surrogates in halves."""

from __future__ import annotations

from typing import Final

from .stream import PROVING, Negative, split

SCRIPTS: Final[tuple[Negative, ...]] = (
    split("everybody", "prefix extension", "人|人都|有| 人|人", report="qwen-code 3896"),
    split("good, fine", "prefix extension", "好|好的|，|好|好|学|习"),
    split("AABB, one", "doubled deltas", "高|高|兴|兴|地|回|家|，|高|兴"),
    split("AABB, four in a row", "doubled deltas", "祝|大家|高|高|兴|兴|快|快|乐|乐|平|平|安|安|健|健|康|康|。"),
    split("ABAB verbs", "doubled deltas", "我们|研究|研究|讨论|讨论|考虑|考虑|吧"),
    split("verb, a bit", "equal neighbour", "看|看|，|试|试|，|想|想|，|再|说|说"),
    split("one by one", "equal to the delta before last", "一|个|一|个|地|数|，|一|天|一|天|过"),
    split("more and more", "equal to the delta before last", "越|来|越|好|，|越|来|越|快"),
    split("Chinese stars", "equal neighbour", "星|星|点|点|，|星|星|之|火"),
    split("Chinese poem with doubled heads", "doubled deltas", "寻|寻|觅|觅|，|冷|冷|清|清|，|凄|凄|惨|惨|戚|戚"),
    split("classical parallel", "equal to the delta before last", "道|可|道|，|非|常|道|；|名|可|名|，|非|常|名"),
    split("Chinese definition by itself", "cumulative from offset 0", "知|之|为|知|之|，|不|知|为|不|知"),
    split("a name, then the name with its title", "cumulative from offset 0", "王|王老师|说|：|王|老|师|好"),
    split("Chinese list signs", "equal to the delta before last", "第一|章|、|第二|章|、|第一|章"),
    split("Japanese iteration", "equal neighbour", "時|々|、|人|々|、|々|々"),
    split("Japanese onomatopoeia in halves", "equal to the delta before last", "ド|キ|ド|キ|、|ワ|ク|ワ|ク|、|ド|キ"),
    split("Korean laughter", "prefix extension", "ㅋ|ㅋㅋ|ㅋㅋㅋ| 재밌다| ㅋㅋ"),
    split("Korean, gradually", "equal neighbour", "점점| 더| 점점|점점| 커|진다"),
    split("Thai repetition mark", "equal to the delta before last", "มาก|ๆ| |เร็ว|ๆ| |ช้า|ๆ| |มาก|ๆ"),
    split("Thai vowels apart", "equal to the delta before last", "ก|า|ก|า|บ|า|ก|า"),
    split("Arabic no, no", "equal neighbour", "لا|،| لا|،| لا|،| لا| نعم|،| نعم"),
    split("Arabic stretched", "equal neighbour", "مـ|ـ|ـ|ـ|ـرحبا| مـ|ـرحبا"),
    split("Arabic article", "prefix extension", "ال|الله| ال|كتاب| ال|الكتاب"),
    split("Hebrew yes", "equal neighbour", "כן|,| כן|,| כן|.| לא|.| לא|,| לא"),
    split("Devanagari, slowly", "equal neighbour", "धीरे|-|धीरे| चलो|,| धीरे|-|धीरे"),
    split("Devanagari joined", "prefix extension", "क्षमा| और| क|क्|क्ष| तथा| क|क्षा"),
    split("Tamil echo", "equal neighbour", "கட|கட|வென| மட|மட|வென| கட"),
    split("Indonesian plurals", "equal to the delta before last", "anak|-|anak| dan| buku|-|buku| serta| anak|-|anak"),
    split("Turkish doubling", "equal neighbour", "yavaş| yavaş| gel|,| güle| güle| git|,| yavaş"),
    split("Hawaiian", "equal to the delta before last", "hu|mu|hu|mu|nu|ku|nu|ku|ā|pu|a|ʻ|a"),
    split("Māori", "equal neighbour", "pai| pai| rawa|,| kia| ora|,| kia| ora"),
    split("German spelling", "equal neighbour", "Schiff|f|ahrt|,| Bett|t|uch|,| Schnee|ee|!"),
    split("German article again", "equal to the delta before last", "die|,| die| die|,| die| die| Blumen| gießen|,| kennen"),
    split("Vietnamese", "equal neighbour", "xanh| xanh|,| đo| đỏ|,| xanh| lơ"),
    split("Russian, barely", "equal to the delta before last", "еле|-|еле|,| чуть|-|чуть|,| еле|-|еле"),
    split("emoji run", "equal neighbour", "😀|😀|😀| 😎|😎|😀"),
    split("emoji between words", "equal to the delta before last", "this|👏|is|👏|it|👏|👏|👏"),
    split("family joined", "equal to the delta before last", "👩|\u200d|👩|\u200d|👧|\u200d|👧| yes"),
    split("flags from regional letters", "equal neighbour", "🇧|🇧| is| Barbados|;| 🇦|🇦|🇺"),
    split("keycaps", "equal to the delta before last", "1|️⃣| 2|️⃣| 1|️⃣|1|️⃣"),
    split("surrogates in halves", "equal to the delta before last", "\ud83d|\ude3f|\ud83d|\ude3f| x|\ud83d|\ude00"),
    split("combining accents apart", "equal to the delta before last", "e|\u0301|e|\u0301|e|\u0300|e"),
    split("zero width blanks", "equal neighbour", "a|\u200b|\u200b|b|\u200b|c|\u200b|\u200b"),
    # Two tokens an idea and each twice: without proof the bytes of a C1 injection.
    split("each Chinese word twice, as asked", "doubled deltas", "今天|今天|天气|天气|非常|非常|不错|不错|。", styles=PROVING),
)
