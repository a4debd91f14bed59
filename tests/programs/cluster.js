// A cluster whose two workers serve what the first process asks for over TCP, and are told by it what to say.
// One line in "progress" per round; ends when there is a file "finish", with status 0 if everything was right.
'use strict';
const cluster = require('cluster'), fs = require('fs'), http = require('http');

if (cluster.isWorker) {
    let known = -1;
    process.on('message', (n) => { known = n; process.send({ known: n }); });
    http.createServer((request, response) => response.end(`${known} ${request.url}`)).listen(0, '127.0.0.1',
        function () { process.send({ port: this.address().port }); });
} else {
    main().catch((error) => { console.error(error); process.exit(1); });
}

function get(port, path) {
    return new Promise((resolve, reject) => http.get({ host: '127.0.0.1', port, path, agent: false }, (response) => {
        let text = '';
        response.on('data', (data) => { text += data; }).on('end', () => resolve(text));
    }).on('error', (error) => {
        // One that was not accepted yet is reset by a restart.
        if (error.code === 'ECONNRESET') get(port, path).then(resolve, reject);
        else reject(error);
    }));
}

function expect(got, want) {
    if (got !== want) throw new Error(`${got}, not ${want}`);
}

async function main() {
    const workers = [cluster.fork(), cluster.fork()];
    const message = (worker, what) => new Promise((resolve) => worker.once('message', (m) => resolve(m[what])));
    const [port] = await Promise.all(workers.map((worker) => message(worker, 'port')));
    for (let round = 1; round <= 3 || !fs.existsSync('finish'); round++) {
        for (const worker of workers) {
            const answer = message(worker, 'known');
            worker.send(round);
            expect(await answer, round);
        }
        for (let i = 0; i < 20; i++) expect(await get(port, `/${i}`), `${round} /${i}`);
        await new Promise((resolve) => setTimeout(resolve, 20));
        fs.appendFileSync('progress', `${round}\n`);
    }
    const codes = workers.map((worker) => new Promise((resolve) => worker.on('exit', resolve)));
    workers.forEach((worker) => worker.disconnect());
    for (const code of codes) expect(await code, 0);
}
