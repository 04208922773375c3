// Workers that allocate buffers, parse JSON and hash; buffers that move between them.
const { Worker, isMainThread, parentPort, workerData } = require('node:worker_threads');
const { createHash } = require('node:crypto');
const zlib = require('node:zlib');

function work(seed) {
    const hash = createHash('sha256');
    let state = seed + 1;
    const number = (bound) => {
        state = (Math.imul(state, 1103515245) + 12345) >>> 0;
        return (state >>> 8) % bound;
    };
    let held = [];
    for (let step = 0; step < 3000; step++) {
        held.push(Buffer.alloc(number(20000), step % 256));
        if (held.length > 50) hash.update(held.splice(number(50), 1)[0]);
        if (step % 50 === 0) {
            const rows = Array.from({ length: 200 }, (_, i) => ({ i, name: 'x'.repeat(number(50)) }));
            hash.update(JSON.stringify(JSON.parse(JSON.stringify(rows))));
        }
        if (step % 300 === 0) {
            const packed = zlib.deflateSync(Buffer.concat(held));
            hash.update(String(zlib.inflateSync(packed).length));
        }
    }
    const table = new Map();
    for (let i = 0; i < 20000; i++) table.set('key' + number(5000), i);
    hash.update(JSON.stringify([...table].sort()));
    return hash.digest('hex');
}

if (isMainThread) {
    const results = [];
    const start = (seed) => new Promise((resolve, reject) => {
        const worker = new Worker(__filename, { workerData: seed });
        worker.once('error', reject);
        worker.once('message', ({ text, buffer }) => {
            const sum = new Uint8Array(buffer).reduce((sum, byte) => sum + byte, 0);
            results[seed] = `${seed} ${text} ${sum}`;
        });
        worker.once('exit', resolve);
    });
    const round = (first) => Promise.all([0, 1, 2, 3].map((i) => start(first + i)));
    round(0).then(() => round(4)).then(() => {
        console.log(results.join('\n'));
        console.log(work(100));
    });
} else {
    const buffer = new ArrayBuffer(1 << 20);
    new Uint8Array(buffer).fill(workerData + 1);
    parentPort.postMessage({ text: work(workerData), buffer }, [buffer]);
}
