// The stock Twilio SDK for Node against our API, with only the base URL changed.
//
//     node sdk.js BASE_URL ACCOUNT TOKEN TO FROM URL
//
// TO answers and speaks. URL plays without end.
'use strict';
const assert = require('node:assert/strict');
const twilio = require('twilio');

class Rebase extends twilio.RequestClient {
  constructor(base, options) { super(options); this.base = new URL(base); }

  request(options) {
    const url = new URL(options.uri);
    url.protocol = this.base.protocol;
    url.host = this.base.host;
    return super.request({ ...options, uri: url.toString() });
  }
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function wait(what, ask) {
  for (const end = Date.now() + 12_000; Date.now() < end; await pause(50)) {
    const answer = await ask();
    if (answer) return answer;
  }
  throw new Error(`${what}: not in time`);
}

async function refused(promise, status, code) {
  const error = await promise.then(() => null, (error) => error);
  assert.deepEqual([error?.status, error?.code], [status, code], String(error));
}

async function calls(client, to, from, url) {
  const call = await client.calls.create({
    to, from, url, timeout: 20, timeLimit: 60, asyncAmd: 'true',
    statusCallback: new URL('/status', url).toString(),
    statusCallbackEvent: ['initiated', 'ringing', 'answered', 'completed'],
  });
  assert.match(call.sid, /^CA[0-9a-f]{32}$/);
  assert.equal(call.endTime, null);
  await wait('answer', async () => (await client.calls(call.sid).fetch()).status === 'in-progress');
  const listed = await client.calls.list({ to, status: 'in-progress', limit: 5 });
  assert.deepEqual(listed.map((row) => row.sid), [call.sid]);
  const twiml = '<Response><Pause length="30"/></Response>';
  assert.equal((await client.calls(call.sid).update({ twiml })).sid, call.sid);
  const recording = await client.calls(call.sid).recordings.create({ recordingChannels: 'dual' });
  await pause(600);
  await client.calls(call.sid).recordings('Twilio.CURRENT').update({ status: 'stopped' });
  await wait('recording', async () =>
    (await client.recordings(recording.sid).fetch()).status === 'completed');
  await client.calls(call.sid).update({ status: 'completed' });
  const done = await wait('end', async () => {
    const row = await client.calls(call.sid).fetch();
    return row.status === 'completed' && row;
  });
  assert.ok(done.startTime instanceof Date && done.endTime >= done.startTime);
  assert.equal(typeof done.duration, 'string');
  await refused(client.calls(call.sid).update({ status: 'completed' }), 400, 21220);
  assert.ok((await client.calls(call.sid).events.list()).length >= 1);
  assert.equal(await client.recordings(recording.sid).remove(), true);
  assert.equal(await client.calls(call.sid).remove(), true);
  await refused(client.calls(call.sid).fetch(), 404, 20404);
  await refused(client.calls.create({ to, from, url, machineDetection: 'Enable' }), 400, 20422);
}

async function resources(client, base, account, url) {
  const app = await client.applications.create({ friendlyName: 'node', voiceUrl: url });
  const numbers = client.incomingPhoneNumbers;
  for (const last of [1, 2, 3]) {
    await numbers.create({ phoneNumber: `+1555077${last}`, voiceApplicationSid: app.sid });
  }
  const found = await numbers.list({ phoneNumber: '+1555077', pageSize: 1 });
  assert.equal(found.length, 3, 'one a page');
  const seen = [];
  await numbers.each({ phoneNumber: '+1555077', pageSize: 2, limit: 2,
    callback: (row) => seen.push(row.sid) });
  await wait('each', async () => seen.length === 2);
  for (const row of found) assert.equal(await numbers(row.sid).remove(), true);
  const key = await client.newKeys.create({ friendlyName: 'node' });
  const byKey = twilio(key.sid, key.secret,
    { accountSid: account, httpClient: new Rebase(base) });
  assert.equal((await byKey.applications(app.sid).fetch()).friendlyName, 'node');
  await refused(byKey.keys(key.sid).fetch(), 403, 20006);
  assert.equal(await client.keys(key.sid).remove(), true);
  await refused(byKey.applications(app.sid).fetch(), 401, 20003);
  assert.equal(await client.applications(app.sid).remove(), true);
  assert.equal((await client.api.accounts(account).fetch()).status, 'active');
}

async function main() {
  const [base, account, token, to, from, url] = process.argv.slice(2);
  const client = twilio(account, token, { httpClient: new Rebase(base) });
  await resources(client, base, account, url);
  await calls(client, to, from, url);
  console.log('all right');
}

main().catch((error) => { console.error(error); process.exit(1); });
