"""Views of MariaDB: those that are translated have the same rows at both ends, the others are named with why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import sql

from jivs_pipeline_tests.fix_cli import Jivs
from jivs_pipeline_tests.fix_mysql import connected

Make = Callable[..., str]

_SAME = {
    "plain": "SELECT * FROM orders WHERE total > 20",
    "joined": "SELECT o.id, c.name, c.active FROM orders o JOIN customers c ON c.id = o.customer_id",
    "left_joined": "SELECT c.id, c.name, o.total FROM customers c LEFT JOIN orders o ON o.customer_id = c.id AND o.total > 30",
    "grouped": "SELECT customer_id, COUNT(*) n, SUM(total) s, MAX(placed) last FROM orders GROUP BY customer_id HAVING COUNT(*) > 1",
    "cased": "SELECT id, CASE WHEN total > 50 THEN 'big' WHEN total IS NULL THEN 'none' ELSE level END size FROM orders",
    "simple_case": "SELECT id, CASE level WHEN 'low' THEN 1 WHEN 'high' THEN 2 ELSE 0 END n FROM orders",
    "ifnulls": "SELECT id, IFNULL(total, 0) t, IF(paid, 'yes', 'no') p, COALESCE(note, 'nothing') n FROM orders",
    "concats": "SELECT id, CONCAT(name, ' #', id) label, CONCAT(name, nick) both_names, CHAR_LENGTH(name) n FROM customers",
    "dates": """SELECT id, YEAR(placed) y, MONTH(placed) m, DATE(placed) d, placed + INTERVAL 1 MONTH later,
        DATE_FORMAT(placed, '%Y-%m-%d %H:%i') f, DATEDIFF(placed, due) late, due - INTERVAL 3 DAY before_due FROM orders""",
    "limited": "SELECT id, total FROM orders ORDER BY id DESC LIMIT 5 OFFSET 2",
    "nested": "SELECT id FROM customers WHERE id IN (SELECT customer_id FROM orders WHERE total > 60)",
    "existing": "SELECT c.id FROM customers c WHERE NOT EXISTS (SELECT 1 FROM orders o WHERE o.customer_id = c.id)",
    "derived": "SELECT c.id, z.s FROM customers c JOIN (SELECT customer_id, SUM(total) s FROM orders GROUP BY customer_id) z ON z.customer_id = c.id",
    "scalar": "SELECT id, (SELECT MAX(total) FROM orders o WHERE o.customer_id = c.id) top FROM customers c",
    "united": "SELECT id, total FROM orders WHERE paid UNION ALL SELECT id, credit FROM customers WHERE NOT active",
    "in_dates": "SELECT id, due BETWEEN '2020-01-10' AND '2020-02-10' soon FROM orders WHERE placed >= '2020-01-05 12:00:00'",
    "of_a_view": "SELECT n, s FROM grouped WHERE s > 100",
    "enum_filter": "SELECT id FROM orders WHERE level IN ('low', 'high') AND level <> 'low'",
    "arithmetic": "SELECT id, total * 2 - 1 t, -id m, ABS(id - 20) a, ROUND(total, 1) r, total IS NULL x, id <=> 3 y FROM orders",
    "texts": "SELECT id, LEFT(name, 3) l, RIGHT(name, 2) r, SUBSTRING(name, 2, 3) s, TRIM(name) t, LENGTH(name) o FROM customers",
}  # fmt: skip
_REFUSED = {
    "divided": ("SELECT id, id / 2 h FROM orders", "division"),
    "half_grouped": ("SELECT customer_id, total FROM orders GROUP BY customer_id", "GROUP BY without"),
    "any_case": ("SELECT id FROM customers WHERE name = 'ANNA'", "collation"),
    "zero_date": ("SELECT id FROM orders WHERE due > '0000-00-00'", "no day of the calendar"),
    "piped": ("SELECT id, name || nick p FROM customers", "compares texts"),
    "averages": ("SELECT AVG(total) a FROM orders", "AVG"),
    "of_a_refused": ("SELECT h FROM divided", "divided, which is not carried"),
}
_SCRIPT = """
CREATE TABLE customers (id int PRIMARY KEY, name varchar(30), nick varchar(30), credit decimal(10,2), active tinyint(1) NOT NULL, grade tinyint(1));
CREATE TABLE orders (id int PRIMARY KEY, customer_id int, total decimal(10,2), placed datetime, due date, paid tinyint(1),
    level enum('low','mid','high'), note varchar(40), KEY (customer_id));
INSERT INTO customers SELECT seq, concat(elt(1 + seq % 4, 'Anna', ' bob ', 'ÇİĞ', 'anna'), if(seq % 5, '', ' x')), if(seq % 3, 'N', NULL),
    seq / 3, seq % 2, if(seq % 2, 2, NULL) FROM seq_1_to_30;
INSERT INTO orders SELECT seq, if(seq % 9, 1 + seq % 20, NULL), if(seq % 7, seq * 1.37, NULL), '2020-01-01' + INTERVAL seq * 31 HOUR,
    '2020-01-31' + INTERVAL seq % 40 DAY, seq % 3 = 0, elt(1 + seq % 4, 'low', 'mid', 'high', NULL), if(seq % 2, NULL, 'n') FROM seq_1_to_80;
"""


def _plain(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    return Decimal(value).normalize() if isinstance(value, int | Decimal) else value


def _mysql(url: str, view: str) -> Counter[Any]:
    with connected(url) as db, db.cursor() as cursor:
        cursor.execute(f"SELECT * FROM `{view}`")
        return Counter(tuple(map(_plain, row)) for row in cursor.fetchall())


def test_translated_views_have_the_same_rows(jivs: Jivs, make_mysql: Make, target: str, key: str) -> None:
    source = make_mysql(_SCRIPT)
    with connected(source) as db, db.cursor() as cursor:
        cursor.execute("SET sql_mode = ''")
        for name, query in {**_SAME, **{n: q for n, (q, _) in _REFUSED.items()}}.items():
            cursor.execute(f"CREATE VIEW {name} AS {query}")
        # Boolean here, smallint there: only PostgreSQL can tell.
        cursor.execute("CREATE VIEW mixed AS SELECT id, IF(id > 3, active, grade) x FROM customers")
    spec = jivs.spec(key=key, source="legacy", target="warehouse")
    env = jivs.connections(legacy=source, warehouse=target)
    document = jivs("run", spec, "--json", code=0, env=env).document
    reasons = {
        w["table"].rpartition(".")[2]: w["reason"] for w in document["warnings"] if "view" in w["reason"][:5]
    }
    assert set(reasons) == {*_REFUSED, "mixed"}, reasons
    for name, (_, reason) in _REFUSED.items():
        assert reason in reasons[name]
    with psycopg.connect(target) as db:
        for name in _SAME:
            rows = db.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(name))).fetchall()
            assert Counter(tuple(map(_plain, row)) for row in rows) == _mysql(source, name), name
            assert rows, name
    again = jivs("run", spec, "--json", code=0, env=env).document
    assert "mixed" in {w["table"].rpartition(".")[2] for w in again["warnings"]}
    jivs("rollback", key, code=0, env=env)
    with psycopg.connect(target) as db:
        left = db.execute(
            "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v')"
        )
        assert left.fetchone() == (0,)


def test_a_view_of_a_column_that_is_renamed_stays_behind(
    jivs: Jivs, make_mysql: Make, target: str, key: str
) -> None:
    source = make_mysql("CREATE TABLE t (id int PRIMARY KEY, a int);\nCREATE VIEW v AS SELECT a FROM t")
    spec = jivs.spec(
        key=key, source="legacy", target="warehouse", rules={"t": {"columns": {"a": {"rename": "b"}}}}
    )
    env = jivs.connections(legacy=source, warehouse=target)
    document = jivs("run", spec, "--json", code=0, env=env).document
    assert any("t.a, which is renamed" in w["reason"] for w in document["warnings"])
