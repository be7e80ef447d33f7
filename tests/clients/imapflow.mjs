// imapflow (Node) led by a test: one JSON a line in, `[method, arguments…]`; one JSON a line out, `{answer}`, `{failed}` or
// `{event, …}` for what the server tells without being asked. Ends when its input does.

import { createInterface } from 'node:readline';
import { readFileSync } from 'node:fs';
import { ImapFlow } from 'imapflow';

const { port, user, pass, ca, qresync } = JSON.parse(process.argv[2]);
const client = new ImapFlow({
    host: 'localhost', port, secure: true, auth: { user, pass }, tls: { ca: readFileSync(ca) }, logger: false, qresync
});

const plain = value => JSON.stringify(value, (_, one) =>
    typeof one === 'bigint' ? Number(one)
    : one instanceof Set || one instanceof Map ? [...one.keys()]
    : one?.type === 'Buffer' ? Buffer.from(one.data).toString('latin1') : one);
const say = value => process.stdout.write(plain(value) + '\n');

for (const event of ['exists', 'expunge', 'flags', 'close']) {
    client.on(event, told => say({ event, uid: told?.uid, count: told?.count, vanished: told?.vanished, flags: told?.flags }));
}
client.on('error', error => say({ event: 'error', text: String(error) }));

const methods = {
    capabilities: async () => ({ capabilities: client.capabilities, enabled: client.enabled }),
    list: async () => (await client.list({ statusQuery: { messages: true } }))
        .map(({ path, specialUse, status }) => ({ path, specialUse, messages: status?.messages })),
    open: async (path, options) => {
        const { uidValidity, highestModseq, uidNext, exists, qresync } = await client.mailboxOpen(path, options);
        return { uidValidity, highestModseq, uidNext, exists, qresync };
    },
    fetch: async (range, query, options) => await client.fetchAll(range, query, options),
    download: async (uid, part) => {
        const { content } = await client.download(uid, part, { uid: true });
        const pieces = [];
        for await (const piece of content) pieces.push(piece);
        return Buffer.concat(pieces).toString('utf8');
    },
    search: async query => await client.search(query, { uid: true }),
    append: async (path, text, flags) => await client.append(path, Buffer.from(text, 'utf8'), flags),
    flag: async (uids, flags) => await client.messageFlagsAdd(uids, flags, { uid: true }),
    move: async (uids, path) => {
        const done = await client.messageMove(uids, path, { uid: true });
        return [...done.uidMap];
    },
    delete: async uids => await client.messageDelete(uids, { uid: true }),
    idle: async () => { void client.idle(); },  // it would by itself, after fifteen seconds without a command
    create: async path => (await client.mailboxCreate(path)).path,
    quit: async () => await client.logout()
};

await client.connect();
say({ answer: 'connected' });
for await (const line of createInterface({ input: process.stdin })) {
    const [method, ...given] = JSON.parse(line);
    try {
        say({ answer: await methods[method](...given) });
    } catch (error) {
        say({ failed: String(error), response: error.responseText });
    }
}
client.close();
