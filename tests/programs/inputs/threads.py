# Threads that build dictionaries, lists and strings, long-lived and short ones.
import hashlib
import re
import threading
from queue import Queue


def number(state):
    return (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)


def build(seed, rounds, results):
    state, table, digest = seed, {}, hashlib.sha256()
    for step in range(rounds):
        state = number(state)
        key = "key-%d" % (state >> 52)
        table.setdefault(key, []).append("x" * (state >> 40 & 255) + str(step))
        if step % 7 == 0 and table:
            digest.update("".join(table.pop(next(iter(table)))).encode())
        if step % 1000 == 0:
            buffer = bytearray()
            for size in range(64):
                buffer += bytes(size * 17)
            digest.update(buffer)
    for key in sorted(table):
        words = re.findall(r"\d+", " ".join(table[key]))
        digest.update(" ".join(words).encode())
    results[seed] = digest.hexdigest()


def hand_over(queue, results):
    digest = hashlib.sha256()
    while (item := queue.get()) is not None:
        digest.update(item[0])
        del item
    results["queue"] = digest.hexdigest()


results, queue = {}, Queue(100)
consumer = threading.Thread(target=hand_over, args=(queue, results))
consumer.start()
threads = [threading.Thread(target=build, args=(seed, 20000, results)) for seed in range(4)]
for thread in threads:
    thread.start()
for size in range(3000):
    queue.put([bytes([size % 256]) * (size * 13)])
queue.put(None)
for thread in threads + [consumer]:
    thread.join()
for first in range(100, 300, 10):
    threads = [threading.Thread(target=build, args=(first + i, 50, results)) for i in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
for name in sorted(results, key=str):
    print(name, results[name])
