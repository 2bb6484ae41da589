"""MySQL databases of awkward values for tests, as scripts.

What belongs here: scripts. What does not: fixtures (`fix_mysql.py`) and what must come of them (the tests).
"""

from __future__ import annotations

__all__ = ["EVERY_TYPE", "SHOP"]

EVERY_TYPE = """
CREATE TABLE every (
    id bigint unsigned AUTO_INCREMENT PRIMARY KEY, yes tinyint(1), two tinyint(1), ti tinyint, tu tinyint unsigned,
    si smallint, su smallint unsigned, mi mediumint, mu mediumint unsigned, i int, iu int unsigned zerofill,
    bi bigint, bu bigint unsigned, big decimal(65,30), money decimal(10,2) unsigned zerofill, f float, d double,
    fixed double(10,2), bits bit(5), wide bit(64), y year, da date, dt datetime(6), d0 datetime, ts timestamp(6) NULL,
    t0 timestamp NULL, tm time(3), t1 time, c char(5), vc varchar(50), l1 varchar(20) CHARACTER SET latin1,
    u2 varchar(20) CHARACTER SET ucs2, tx longtext, bn binary(4), vb varbinary(50), bl longblob, e enum('a','it''s',''),
    st set('x','y'), j json, g geometry, p point
) COMMENT 'all of it''s types';
INSERT INTO every VALUES (1, 1, 2, -128, 255, -32768, 65535, -8388608, 16777215, -2147483648, 42, -9223372036854775808,
    18446744073709551615, -12345678901234567890123456789012345.123456789012345678901234567890, 7.50, 0.1,
    1.7976931348623157e308, 1.25, b'00101', b'1000000000000000000000000000000000000000000000000000000000000001', '0000',
    '0009-01-02', '0009-01-02 03:04:05.1234', '9999-12-31 23:59:59', '2038-01-19 03:14:07.5', '1970-01-01 00:00:01',
    '-838:59:59', '838:59:59', 'ab ', 'trail  ', _latin1 x'80e99f', _utf8mb4 'ž☃', 'tab\t"quote" \\\\ \n☃😀, \\\\N \r', x'0102',
    x'00ff00', x'', 'zzz', 'x,y', '{"a": 1, "a": 1e400}', ST_GeomFromText('POINT(1 2)', 4326), ST_GeomFromText('POINT(3 4)'));
INSERT INTO every (id, f, d, e, vc, tm, dt, st, tx) VALUES (3, 16777216, -2.5, 'it''s', '', '-00:00:00.5', '2020-02-29', '', '');
INSERT INTO every (id, f, d) VALUES (4, 3.4028234e38, 5e-324), (5, 1.17549435e-38, 2.2250738585072014e-308), (6, 0.3, 0.1);
INSERT INTO every (id, yes) VALUES (9, 0);
"""
"""A table of every type that MySQL and MariaDB share, with the ends of their ranges."""

SHOP = """
CREATE TABLE customers (
    id int unsigned AUTO_INCREMENT PRIMARY KEY, email varchar(80) NOT NULL, active tinyint(1) NOT NULL DEFAULT 1,
    credit decimal(10,2) NOT NULL DEFAULT 0.00, joined datetime NOT NULL DEFAULT CURRENT_TIMESTAMP,
    born date DEFAULT '2000-01-31', note varchar(20) DEFAULT 'it''s \\\\ new', level enum('low','high') NOT NULL DEFAULT 'low',
    changed timestamp NULL DEFAULT NULL ON UPDATE CURRENT_TIMESTAMP, double_credit decimal(11,2) AS (credit * 2) STORED,
    flags bit(4) DEFAULT b'101', token varchar(36) DEFAULT (uuid()), UNIQUE KEY email (email),
    KEY joined (joined, id DESC), KEY note (note(3)), CONSTRAINT credit_sane CHECK (credit >= 0 AND credit < 1000000),
    CONSTRAINT no_joke CHECK (note <> 'joke')
) COMMENT 'who buys';
CREATE TABLE orders (
    id bigint unsigned AUTO_INCREMENT PRIMARY KEY, customer_id int unsigned NOT NULL COMMENT 'who', total decimal(10,2),
    KEY note (total), FULLTEXT KEY words (memo), memo text,
    CONSTRAINT of_customer FOREIGN KEY (customer_id) REFERENCES customers (id) ON DELETE CASCADE ON UPDATE RESTRICT
);
CREATE TABLE items (
    order_id bigint unsigned NOT NULL, line smallint NOT NULL, sku varchar(20), PRIMARY KEY (order_id, line),
    FOREIGN KEY (order_id) REFERENCES orders (id)
);
CREATE TABLE doubled (a int, b varchar(10));
CREATE TABLE empty (id int PRIMARY KEY);
CREATE TABLE `Select ``it"s` (`Mixed Case` int PRIMARY KEY, `100%s` varchar(9));
CREATE TABLE codes (code varchar(20) PRIMARY KEY, n int);
INSERT INTO customers (id, email, active, credit, joined, level, flags)
    SELECT seq, concat('c', seq, '@example.org'), seq % 2, seq / 4, '2020-01-01' + INTERVAL seq HOUR, if(seq % 3, 'low', 'high'), seq % 16
    FROM (SELECT a.n + 10 * b.n + 1 AS seq FROM (SELECT 0 n UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION
    SELECT 5 UNION SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9) a, (SELECT 0 n UNION SELECT 1 UNION SELECT 2
    UNION SELECT 3 UNION SELECT 4) b) s;
INSERT INTO orders (id, customer_id, total, memo) SELECT id * 3, id, credit, concat('memo ', id) FROM customers;
INSERT INTO items SELECT o.id, c.id, concat('sku', c.id) FROM orders o JOIN customers c ON c.id <= 20;
INSERT INTO doubled VALUES (1, 'x'), (1, 'x'), (1, 'x'), (NULL, NULL), (NULL, NULL), (1, '');
INSERT INTO `Select ``it"s` VALUES (1, 'a'), (2, NULL);
INSERT INTO codes SELECT concat(if(id % 2, 'K', 'k'), id), id FROM customers;
CREATE VIEW rich AS SELECT * FROM customers WHERE credit > 5;
CREATE TRIGGER tr BEFORE INSERT ON doubled FOR EACH ROW SET NEW.b = NEW.b;
CREATE PROCEDURE pr() SELECT 1;
"""
"""Keys, references, defaults and objects that stay behind."""
