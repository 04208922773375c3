# The module sqlite3: a database in a file, one in memory per thread, and dumps of them.
import hashlib
import os
import sqlite3
import threading


def fill(path, rows):
    database = sqlite3.connect(path)
    database.execute("create table person (id integer primary key, name text, photo blob)")
    database.execute("create table visit (person integer, day integer, note text)")
    people = ((i, "name %d" % (i * 7919 % rows), bytes([i % 256]) * (i % 900)) for i in range(rows))
    database.executemany("insert into person values (?, ?, ?)", people)
    visits = ((i * 31 % rows, i % 365, "note " * (i % 20)) for i in range(rows * 3))
    database.executemany("insert into visit values (?, ?, ?)", visits)
    database.execute("create index visit_person on visit (person, day)")
    database.execute("create index person_name on person (name)")
    database.execute("delete from visit where day % 5 = 0")
    database.execute("update person set name = name || '!' where id % 3 = 0")
    database.commit()
    database.execute("vacuum")
    return database


def summary(database):
    digest = hashlib.sha256()
    for line in database.iterdump():
        digest.update(line.encode())
    query = """select p.name, count(*), sum(v.day), group_concat(v.day) from person p
               join visit v on v.person = p.id group by p.name order by 2 desc, 1"""
    for row in database.execute(query):
        digest.update(repr(row).encode())
    return digest.hexdigest()


def in_thread(rows, results):
    results[rows] = summary(fill(":memory:", rows))


if os.path.exists("people.db"):
    os.remove("people.db")
results = {"file": summary(fill("people.db", 8000))}
threads = [threading.Thread(target=in_thread, args=(n, results)) for n in (500, 1000, 1500, 2000)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
for name in sorted(results, key=str):
    print(name, results[name])
