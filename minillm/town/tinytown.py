"""The default town as data: who lives there, where, what things cost, and who has what job.

Everything the bilingual reader (`course/reader`) says about the village holds here. Three columns
the passages leave open were filled in for the course, without contradicting them: ages, family
names other than Li, and birthplaces other than the ferryman's.

The language of all towns is here too: the twelve jobs, the goods, what people may like and own. A
town from another seed has other people, roads, prices and likes, and says them in the same words.

Chapter: 02
"""

#: job: (中文, where it is done)
JOBS = {
    "fruit seller": ("水果贩", "market square"),
    "baker": ("面包师", "bakery"),
    "miller": ("磨坊主", "mill"),
    "ferryman": ("船夫", "ferry"),
    "clock keeper": ("钟楼看守", "clock tower"),
    "librarian": ("图书管理员", "library"),
    "teacher": ("老师", "school"),
    "potter": ("陶匠", "pottery"),
    "tea house keeper": ("茶馆掌柜", "tea house"),
    "smith": ("铁匠", "forge"),
    "doctor": ("大夫", "clinic"),
    "clerk": ("文书", "town hall"),
}

#: name | 中文 | family | 中文 | pronoun | age | job | home | likes | owns | born in
CAST = """
Mei|小梅|Li|李|she|29|fruit seller | Plum Lane |thunder|donkey, orchard's trees|well
Bao | 大宝 | He | 何 | he | 36 | baker | bakery | singing | - | bakery
Joe | 阿乔 | Qiao | 乔 | he | 38 | miller | mill | sleep | - | clock tower
Hu | 老胡 | Hu | 胡 | he | 58 | ferryman | Duck Lane | riddles | boat | ferry
Ann | 安姐 | Qiao | 乔 | she | 54 | clock keeper | clock tower | peppermints | - | clock tower
Wen | 老文 | Wen | 文 | he | 66 | librarian | library | his pencil | - | Plum Lane
Lin | 林老师 | Lin | 林 | she | 31 | teacher | school | kites | - | well
Jun | 阿俊 | Gao | 高 | he | 34 | potter | pottery | a certain blue | - | pottery
Tan | 谭奶奶 | Tan | 谭 | she | 72 | tea house keeper | tea house | counting | - | well
Kai | 老凯 | Kong | 孔 | he | 42 | smith | forge | his three cats | three cats | tea house
Su | 苏大夫 | Su | 苏 | she | 45 | doctor | clinic | pickled radish | - | -
Dan | 阿丹 | Ding | 丁 | he | 33 | clerk | Duck Lane | lists | goose | Duck Lane
Ming | 小明 | Kong | 孔 | he | 11 | pupil | tea house | questions | - | forge
Lan | 阿兰 | Yu | 于 | she | 32 | - | mill | lanterns | - | Duck Lane
Bean | 豆豆 | Qiao | 乔 | she | 0 | - | mill | flour | - | mill
"""

#: How the passages also call some of the cast.
TITLES = {"Wen": "Old Wen", "Lin": "Miss Lin", "Tan": "Granny Tan", "Su": "Doctor Su"}
PARENTS = {"Kai": ("Tan",), "Ming": ("Kai",), "Bean": ("Joe", "Lan")}

#: the job that sells it: good | what people call it in general | 中文 | 量词 | coins
GOODS = """
fruit seller: plum | plums | 李子 | 个 | 2; pear | pears | 梨 | 个 | 3;
 apple | apples | 苹果 | 个 | 3; peach | peaches | 桃子 | 个 | 4;
 bag of dried plums | dried plums | 李子干 | 包 | 5;
 jar of plum jam | plum jam | 李子酱 | 罐 | 9
baker: bun | buns | 小圆面包 | 个 | 1; sesame cake | sesame cakes | 芝麻饼 | 个 | 2;
 loaf | loaves | 长面包 | 个 | 5; honey cake | honey cakes | 蜂蜜蛋糕 | 个 | 8
miller: bag of flour | flour | 面粉 | 袋 | 6; bag of bran | bran | 麸皮 | 袋 | 2
tea house keeper: egg | eggs | 茶叶蛋 | 个 | 1; pot of tea | tea | 茶 | 壶 | 2;
 dish of pickled radish | pickled radish | 腌萝卜 | 碟 | 3;
 bowl of noodles | noodles | 面条 | 碗 | 7
potter: tile | tiles | 瓦片 | 片 | 1; cup | cups | 杯子 | 个 | 4; bowl | bowls | 碗 | 个 | 5;
 jar | jars | 坛子 | 个 | 11; teapot | teapots | 茶壶 | 把 | 18
smith: dozen nails | nails | 钉子 | 打 | 3; hinge | hinges | 合页 | 个 | 6;
 knife | knives | 刀 | 把 | 20; iron pot | iron pots | 铁锅 | 口 | 25
doctor: ointment | ointment | 药膏 | 盒 | 7; cough syrup | cough syrup | 止咳糖浆 | 瓶 | 10
librarian: pencil | pencils | 铅笔 | 支 | 1; notebook | notebooks | 本子 | 个 | 6
teacher: kite | kites | 风筝 | 只 | 12
clerk: stamp | stamps | 邮票 | 张 | 1; form | forms | 表格 | 张 | 2
"""

#: name | 中文 | bank | x | y, the last two in minutes on the map, for drawing
PLACES = """
market square | 集市 | west | 6.4 | 5.0
town hall | 镇公所 | west | 7.4 | 6.3
clock tower | 钟楼 | west | 5.6 | 7.0
tea house | 茶馆 | west | 7.6 | 3.9
bakery | 面包房 | west | 5.4 | 3.6
well | 水井 | west | 3.6 | 5.0
stone bridge | 石桥 | river | 9.0 | 5.2
library | 图书馆 | west | 4.4 | 8.6
school | 学校 | west | 1.6 | 8.3
Plum Lane | 李子巷 | west | 2.1 | 6.3
clinic | 诊所 | west | 2.4 | 3.8
forge | 铁匠铺 | west | 3.7 | 2.3
Duck Lane | 鸭子巷 | west | 6.2 | 2.2
ferry | 渡口 | west | 7.7 | 1.2
pottery | 陶坊 | east | 11.0 | 1.5
mill | 磨坊 | east | 12.1 | 4.9
orchard | 果园 | east | 13.4 | 7.1
hill | 后山 | east | 15.0 | 9.2
"""

ROADS = """
market square: town hall 1, tea house 1, bakery 1, clock tower 2, well 2, stone bridge 3
library: clock tower 2, school 3
Plum Lane: school 2, well 2
clinic: well 2, forge 3
bakery: forge 2, Duck Lane 2
ferry: Duck Lane 2, pottery 5
mill: pottery 6, stone bridge 4, orchard 5
orchard: hill 8
"""

#: Where a town from another seed takes the names of its two lanes.
LANES = {
    "Plum Lane": "李子巷", "Duck Lane": "鸭子巷", "Willow Lane": "柳树巷", "Cat Lane": "猫儿巷",
    "Moon Lane": "月亮巷", "Bamboo Lane": "竹子巷", "Lantern Lane": "灯笼巷",
    "Goat Lane": "山羊巷",
}  # fmt: skip
#: In the default town nobody but the cast lives anywhere else (and nobody on the east bank).
OTHER_HOMES = ("Plum Lane", "Duck Lane", "market square", "well", "forge", "ferry")

LIKES = {
    "thunder": "打雷", "singing": "唱歌", "sleep": "睡觉", "riddles": "谜语",
    "peppermints": "薄荷糖", "his pencil": "他的铅笔", "kites": "风筝",
    "a certain blue": "一种蓝色", "counting": "数数", "his three cats": "他的三只猫",
    "pickled radish": "腌萝卜", "lists": "单子", "questions": "提问", "lanterns": "灯笼",
    "flour": "面粉", "rain": "下雨", "snow": "下雪", "stories": "故事", "chess": "下棋",
    "dancing": "跳舞", "fishing": "钓鱼", "gossip": "闲话", "soup": "汤", "plums": "李子",
    "honey": "蜂蜜", "books": "书", "old songs": "老歌", "the river": "河", "mornings": "早晨",
    "whistling": "吹口哨", "mushrooms": "蘑菇", "frogs": "青蛙",
}  # fmt: skip
OWNS = {
    "donkey": "毛驴", "orchard's trees": "果园的树", "boat": "船", "goose": "鹅",
    "three cats": "三只猫", "dog": "狗", "goat": "山羊", "ladder": "梯子", "umbrella": "雨伞",
    "drum": "鼓", "fiddle": "胡琴", "lantern": "灯笼", "hen": "母鸡", "duck": "鸭子",
    "wheelbarrow": "手推车", "mirror": "镜子", "blanket": "毯子", "beehive": "蜂箱",
    "spyglass": "望远镜", "chessboard": "棋盘", "stove": "炉子", "parrot": "鹦鹉", "clock": "钟",
    "basket": "篮子", "rabbit": "兔子",
}  # fmt: skip
#: The village has no other: nobody else owns one.
ONE_OF_A_KIND = ("donkey", "orchard's trees", "boat", "goose", "three cats")
