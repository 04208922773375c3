-- Generated tables; joins, sorts beyond work_mem, aggregates, JSON, functions, cursors, errors.
create table book (id integer primary key, title text, tags text[], data jsonb);
create table loan (id integer primary key, book integer references book, day date, note text);
insert into book
select i, 'title ' || md5(i::text), array['tag ' || i % 7, 'tag ' || i % 11],
       jsonb_build_object('pages', i * 7919 % 900, 'words', repeat('word ', i % 200))
from generate_series(1, 5000) as i;
insert into loan
select i, i * 31 % 5000 + 1, date '2020-01-01' + i % 1000, repeat('x', i % 500)
from generate_series(1, 30000) as i;
create index loan_book on loan (book, day);
create index book_data on book using gin (data);
create index book_title on book (lower(title));
analyze book;
analyze loan;
select b.title, count(*), max(l.day), sum(length(l.note)) from book b join loan l on l.book = b.id
group by b.id having count(*) > 5 order by 4 desc, 1 limit 300;
select tag, count(*), string_agg(md5(title), '' order by id) from book, unnest(tags) as tag
group by tag order by tag;
select md5(string_agg(note, ',' order by note, id)) from loan;
select id, data -> 'pages' from book where data @> '{"pages": 19}' order by id;
select day, avg(n) over (order by day rows 7 preceding)::numeric(10, 4)
from (select day, count(*) as n from loan group by day) as days order by day limit 400;
select count(*), count(distinct regexp_replace(title, '[0-9]+', '#', 'g')) from book;
create function collatz(n bigint) returns integer language plpgsql immutable as $$
declare steps integer := 0; path text := '';
begin
    while n <> 1 loop
        n := case when n % 2 = 0 then n / 2 else 3 * n + 1 end;
        path := path || n || ',';
        steps := steps + length(path) - length(path) + 1;
    end loop;
    return steps;
end $$;
select sum(collatz(i)) from generate_series(1, 1500) as i;
do $$
begin
    for i in 1 .. 500 loop
        begin
            execute 'select 1 / ' || i % 2;
        exception when division_by_zero then
            null;
        end;
    end loop;
end $$;
delete from loan where id % 3 = 0;
update book set title = upper(title), data = data || '{"new": [1, 2, 3]}' where id % 4 = 0;
begin;
declare books cursor for select id, title from book order by title;
fetch 50 from books;
move 1000 in books;
fetch 50 from books;
rollback;
vacuum full;
create table copy as select * from book order by title desc;
reindex table copy;
copy (select * from copy order by id limit 2000) to stdout;
