-- Inserts, indices, joins, windows, full-text search, transactions, vacuum; then all contents.
pragma journal_mode = delete;
pragma synchronous = off;
create table customer (id integer primary key, name text, city text);
create table purchase (id integer primary key, customer integer, cents integer, note text);
begin;
with recursive n(i) as (select 1 union all select i + 1 from n where i < 4000)
insert into customer select i, 'name ' || (i * 7919 % 4001), 'city ' || (i % 97) from n;
with recursive n(i) as (select 1 union all select i + 1 from n where i < 40000)
insert into purchase
select i, i * 31 % 4000 + 1, i * 7919 % 100003, substr(hex(zeroblob(i % 300)), 1, i % 400) from n;
commit;
create index purchase_customer on purchase (customer, cents);
create unique index customer_name on customer (name, id);
select city, count(*), sum(cents), max(cents) from customer c
join purchase p on p.customer = c.id group by city order by 3 desc, 1;
select name, cents, rank() over (partition by city order by cents desc, p.id) as place
from customer c join purchase p on p.customer = c.id where city = 'city 7' order by place, name limit 200;
begin;
delete from purchase where cents % 3 = 0;
rollback;
delete from purchase where cents % 7 = 0;
update purchase set note = note || ' changed' where id % 10 = 0;
create view big as select * from purchase where cents > 50000;
select count(*), sum(length(note)), avg(cents) from big;
select group_concat(name, ';') from (select name from customer order by name limit 1000);
select json_group_array(json_object('id', id, 'name', name)) from customer where id < 500;
vacuum;
pragma integrity_check;
.dump
