// OpenFeature's own client, in flagd's RPC mode, against the real server: each
// type, reason and error, and changes seen through the stream of events.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { FlagdProvider } from '@openfeature/flagd-provider';
import { OpenFeature, ProviderEvents } from '@openfeature/server-sdk';
import grpc from '@grpc/grpc-js';
import { root, start, struct } from './server.mjs';

const someone = { targetingKey: 'u-1' };
const quiet = { error() {}, warn() {}, info() {}, debug() {} };
let server, client;

before(async () => {
  server = await start();
  await server.createMetric({ key: 'purchase_rate', direction: 'DIRECTION_INCREASE', proportion: { outcome: 'purchase' } });
  OpenFeature.setLogger(quiet);
  await OpenFeature.setProviderAndWait(new FlagdProvider({ host: '127.0.0.1', port: server.port }, quiet));
  client = OpenFeature.getClient();
});

after(async () => {
  await OpenFeature.close();
  await server?.stop();
});

// create makes a draft of which everyone in the traffic gets the variant b.
async function create(key, payload, more = {}) {
  const b = { key: 'b', weight: 1 };
  if (payload !== undefined) b.payload = struct(payload);
  const metrics = [{ metric: 'purchase_rate', role: 'METRIC_ROLE_PRIMARY' }];
  await server.experiment('Create', { experiment: { key, variants: [{ key: 'a', control: true, weight: 0 }, b], metrics, ...more } });
}

async function run(key, payload, more) {
  await create(key, payload, more);
  await server.experiment('Start', { key });
}

// changed resolves when the client has been told that the flag changed.
function changed(key) {
  return new Promise((resolve) => {
    const handler = ({ flagsChanged }) => {
      if (!flagsChanged.includes(key)) return;
      client.removeHandler(ProviderEvents.ConfigurationChanged, handler);
      resolve();
    };
    client.addHandler(ProviderEvents.ConfigurationChanged, handler);
  });
}

function check(details, want) {
  const { value, reason, variant, errorCode } = details;
  assert.deepEqual({ value, reason, variant, errorCode }, { variant: undefined, errorCode: undefined, ...want });
}

describe('types', () => {
  before(async () => {
    await run('bool', { value: true });
    await run('string', { value: 'Pay now' });
    await run('bare');
    await run('float', { value: 1.5 });
    await run('int', { value: -42 });
    await run('object', { title: 'Pay now', sizes: [1, { x: null }] });
  });
  const split = (value) => ({ value, reason: 'SPLIT', variant: 'b' });
  test('boolean', async () => check(await client.getBooleanDetails('bool', false, someone), split(true)));
  test('string', async () => check(await client.getStringDetails('string', 'd', someone), split('Pay now')));
  test('string without payload', async () => check(await client.getStringDetails('bare', 'd', someone), split('b')));
  test('number', async () => check(await client.getNumberDetails('float', 0, someone), split(1.5)));
  test('whole number', async () => check(await client.getNumberDetails('int', 0, someone), split(-42)));
  test('object', async () =>
    check(await client.getObjectDetails('object', {}, someone), split({ title: 'Pay now', sizes: [1, { x: null }] })));
  test('mismatches', async () => {
    const mismatch = (value) => ({ value, reason: 'ERROR', errorCode: 'TYPE_MISMATCH' });
    check(await client.getBooleanDetails('string', true, someone), mismatch(true));
    check(await client.getStringDetails('bool', 'd', someone), mismatch('d'));
    check(await client.getNumberDetails('object', 7, someone), mismatch(7));
    check(await client.getObjectDetails('bare', { d: 1 }, someone), mismatch({ d: 1 }));
  });
});

describe('reasons', () => {
  const poles = { eligibility: "attributes.country == 'PL'" };
  before(async () => {
    await run('eligible', { value: 'x' }, poles);
    await run('no-traffic', { value: 'x' }, { traffic: 0 });
    await server.setOverrides({ experiment: 'no-traffic', overrides: [{ subject_key: 'pinned', variant: 'b' }] });
    await run('shipped', { value: 'x' });
    await server.experiment('Conclude', { key: 'shipped', shipped_variant: 'b' });
    await run('shipped-to-some', { value: 'x' }, poles);
    await server.experiment('Conclude', { key: 'shipped-to-some', shipped_variant: 'b' });
    await run('paused', { value: 'x' });
    await server.experiment('Pause', { key: 'paused' });
    await run('concluded', { value: 'x' });
    await server.experiment('Conclude', { key: 'concluded' });
    await create('draft', { value: 'x' });
    // "42" is in bucket 81833 of this salt, and u-1 in bucket 404731. Maps travel as lists of entries.
    const labels = [{ key: 'team', value: 'held' }];
    await server.createHoldout({ key: 'global', salt: 'global-2026', share: 0.1, kind: 'KIND_NO_PERSONALISATION', labels });
    await run('held', undefined, { labels });
    await run('held-shipped', undefined, { labels });
    await server.experiment('Conclude', { key: 'held-shipped', shipped_variant: 'b' });
  });
  for (const flag of ['held', 'held-shipped']) {
    test(`SPLIT of ${flag}, as a holdout holds some out`, async () => {
      check(await client.getStringDetails(flag, 'd', { targetingKey: '42' }), { value: 'a', reason: 'SPLIT', variant: 'a' });
      check(await client.getStringDetails(flag, 'd', someone), { value: 'b', reason: 'SPLIT', variant: 'b' });
    });
  }
  const pole = { ...someone, country: 'PL' };
  for (const [flag, context, reason] of [
    ['eligible', pole, 'SPLIT'],
    ['no-traffic', { targetingKey: 'pinned' }, 'TARGETING_MATCH'],
    ['shipped-to-some', pole, 'TARGETING_MATCH'],
    ['shipped', someone, 'STATIC'],
  ]) {
    test(`${reason} of ${flag}`, async () =>
      check(await client.getStringDetails(flag, 'd', context), { value: 'x', reason, variant: 'b' }));
  }
  for (const [flag, reason] of [
    ['eligible', 'DEFAULT'],
    ['no-traffic', 'DEFAULT'],
    ['shipped-to-some', 'DEFAULT'],
    ['paused', 'DISABLED'],
    ['concluded', 'DISABLED'],
    ['draft', 'DISABLED'],
  ]) {
    test(`${reason} of ${flag} is the caller's default`, async () => {
      check(await client.getBooleanDetails(flag, true, someone), { value: true, reason });
      check(await client.getStringDetails(flag, 'd', someone), { value: 'd', reason });
      check(await client.getNumberDetails(flag, 7, someone), { value: 7, reason });
      check(await client.getObjectDetails(flag, { d: 1 }, someone), { value: { d: 1 }, reason });
    });
  }
});

// The provider has no code of its own for a bad context: it reports a general
// error, whose message tells the code.
describe('errors', () => {
  before(() => run('flag', { value: 'x' }));
  const many = Object.fromEntries(Array.from({ length: 10_000 }, (_, i) => [`a${i}`, i]));
  for (const [name, flag, context, errorCode, message] of [
    ['an unknown flag', 'nothing', someone, 'FLAG_NOT_FOUND', /there is no experiment "nothing"/],
    ['no targeting key', 'flag', {}, 'GENERAL', /^TARGETING_KEY_MISSING: /],
    ['a number as targeting key', 'flag', { targetingKey: 7 }, 'GENERAL', /^INVALID_CONTEXT: .*must be a string/],
    ['too many attributes', 'flag', { ...someone, ...many }, 'GENERAL', /^INVALID_CONTEXT: .*10001 fields/],
    ['a large attribute', 'flag', { ...someone, x: 'x'.repeat(1 << 20) }, 'GENERAL', /^INVALID_CONTEXT: .* bytes/],
  ]) {
    test(name, async () => {
      const details = await client.getStringDetails(flag, 'd', context);
      check(details, { value: 'd', reason: 'ERROR', errorCode });
      assert.match(details.errorMessage, message);
      check(await client.getStringDetails('flag', 'd', someone), { value: 'x', reason: 'SPLIT', variant: 'b' });
    });
  }
});

test('changes come through the stream of events', async () => {
  const step = async (verb, want, more) => {
    const told = changed('live');
    if (verb === 'Create') await create('live', { value: 'x' });
    else await server.experiment(verb, { key: 'live', ...more });
    await told;
    check(await client.getStringDetails('live', 'd', someone), want);
  };
  const disabled = { value: 'd', reason: 'DISABLED' };
  const split = { value: 'x', reason: 'SPLIT', variant: 'b' };
  await step('Create', disabled);
  await step('Start', split);
  await step('Pause', disabled);
  await step('Resume', split);
  // The provider keeps a static value until the stream tells it not to.
  await step('Conclude', { value: 'x', reason: 'STATIC', variant: 'b' }, { shipped_variant: 'b' });
  check(await client.getStringDetails('live', 'd', {}), { value: 'x', reason: 'CACHED', variant: 'b' });
  await step('Archive', disabled);
});

test('the example of the README', async () => {
  const example = /## OpenFeature\n.*?```js\n(.*?)```/s.exec(readFileSync(`${root}README.md`, 'utf8'))[1];
  await run('checkout-copy', { title: 'Pay now' });
  const file = new URL('readme.example.mjs', import.meta.url).pathname;
  try {
    writeFileSync(file, example.replace('8080', server.port));
    const { stdout } = await promisify(execFile)(process.execPath, [file]);
    assert.equal(stdout, 'Pay now SPLIT\n');
  } finally {
    rmSync(file, { force: true });
  }
});

test('a stopping server ends the streams of events', async () => {
  await OpenFeature.close(); // The provider would try to connect again for ever.
  const stream = server.flagdV1.EventStream({});
  const [ready] = await once(stream, 'data');
  assert.equal(ready.type, 'provider_ready');
  const failed = once(stream, 'error');
  const how = await server.stop();
  server = undefined;
  const [err] = await failed;
  assert.equal(err.code, grpc.status.UNAVAILABLE);
  assert.equal(err.details, 'the server is stopping');
  assert.equal(how, 0);
});
