// Timers, a worker thread, files written by the thread pool, garbage: one line in "progress" per round. It ends when there
// is a file "finish", with status 0 if everything was right.
'use strict';
const assert = require('assert');
const crypto = require('crypto');
const fs = require('fs');
const { Worker, isMainThread, parentPort } = require('worker_threads');

if (!isMainThread) {
    parentPort.on('message', (n) => {
        let a = 0n, b = 1n;
        for (let i = 0; i < n; i++)
            [a, b] = [b, a + b];
        parentPort.postMessage([n, a.toString()]);
    });
    return;
}

const digest = (text) => crypto.createHash('sha256').update(text).digest('hex');

function fibonacci(worker, n) {
    return new Promise((resolve) => {
        worker.once('message', resolve);
        worker.postMessage(n);
    });
}

async function main() {
    const worker = new Worker(__filename);
    let ticks = 0;
    const ticking = setInterval(() => ticks++, 5);
    const out = await fs.promises.open('digests', 'w+');
    const kept = [];
    let rounds = 0;
    while (rounds < 4 || !fs.existsSync('finish')) {
        rounds++;
        const before = ticks;
        const [n, text] = await fibonacci(worker, 500 + rounds);
        assert.strictEqual(n, 500 + rounds);
        kept.push({ text, garbage: Array.from({ length: 20000 }, (_, i) => i * rounds) });
        await out.write(digest(text) + '\n');
        const scrypt = await new Promise((done, failed) =>
            crypto.pbkdf2('crshim', String(rounds), 5000, 32, 'sha256', (err, key) => err ? failed(err) : done(key)));
        assert.deepStrictEqual(scrypt, crypto.pbkdf2Sync('crshim', String(rounds), 5000, 32, 'sha256'));
        while (ticks === before)
            await new Promise((wake) => setTimeout(wake, 3));
        fs.appendFileSync('progress', rounds + '\n');
    }
    clearInterval(ticking);
    await out.close();
    await worker.terminate();
    const lines = fs.readFileSync('digests', 'utf8').trim().split('\n');
    assert.strictEqual(lines.length, rounds);
    lines.forEach((line, i) => assert.strictEqual(line, digest(kept[i].text)));
    kept.forEach(({ garbage }, i) => assert(garbage.every((v, k) => v === k * (i + 1))));
    assert.deepStrictEqual(fs.readFileSync('progress', 'utf8').trim().split('\n').map(Number), kept.map((_, i) => i + 1));
    console.log('rounds: ' + rounds);
}

main();
