PRAGMA cache_size = 200;
CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE line (number INTEGER, customer INTEGER, article TEXT, price REAL);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
  INSERT INTO customer SELECT i, 'customer ' || i FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)
  INSERT INTO line SELECT i, i * 7919 % 1000 + 1, 'article ' || (i * 104729 % 500), i % 97 FROM n;
CREATE INDEX line_customer ON line (customer);
SELECT count(*), total(price) FROM (SELECT article, group_concat(number) AS numbers, sum(price) AS price FROM line GROUP BY article);
SELECT count(*) FROM (SELECT name, json_group_array(json_object('number', number, 'article', article)) FROM line JOIN customer ON customer = id GROUP BY customer);
SELECT replace(name, 'customer', 'c'), printf('%08.2f', sum(price)) FROM line JOIN customer ON customer = id GROUP BY name ORDER BY 2 DESC LIMIT 3;
