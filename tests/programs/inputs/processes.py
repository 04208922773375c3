# Processes of all sorts: pools, programs, and forks while other threads allocate.
import hashlib
import multiprocessing
import os
import subprocess
import sys
import threading


def work(number):
    parts = [str(number * step) * (step % 50) for step in range(500)]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def churn(stop):
    while not stop.is_set():
        held = [bytearray(size) for size in range(1, 40000, 997)]
        table = {str(item): [item] for item in range(500)}
        del held, table


def fork_once(number):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, work(number).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        text = file.read()
    assert os.waitpid(pid, 0)[1] == 0
    return text


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    with multiprocessing.Pool(3) as pool:
        for line in pool.map(work, range(200)):
            print(line)
    sys.setswitchinterval(0.0005)
    stop = threading.Event()
    churners = [threading.Thread(target=churn, args=(stop,)) for _ in range(3)]
    for churner in churners:
        churner.start()
    for number in range(30):
        print(fork_once(number))
    for number in range(20):
        print(subprocess.run(["echo", str(number)], capture_output=True, check=True).stdout)
    stop.set()
    for churner in churners:
        churner.join()
    code = "import sys; print(len(sys.stdin.read()))"
    for size in (0, 1, 100_000, 10_000_000):
        child = subprocess.run([sys.executable, "-c", code], input="x" * size, text=True,
                               capture_output=True, check=True)
        print(child.stdout)
