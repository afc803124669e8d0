// The server under test: the real binary on a data directory of its own, and
// its API as a client types it.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import grpc from '@grpc/grpc-js';
import { loadFileDescriptorSetFromBuffer } from '@grpc/proto-loader';

export const root = new URL('../../../../', import.meta.url).pathname;

// start resolves once the server answers.
export async function start() {
  const dir = mkdtempSync(join(tmpdir(), 'assay-openfeature-'));
  const child = spawn(join(root, 'bin/assayd'), ['serve', '--listen', '127.0.0.1:0', '--data-dir', dir], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const ended = new Promise((resolve) => child.once('exit', (code, signal) => resolve(signal ?? code)));
  let log = '';
  const address = await new Promise((resolve, reject) => {
    child.stderr.setEncoding('utf8').on('data', (text) => {
      log += text;
      const serving = /serving address=(\S+)/.exec(log);
      if (serving) resolve(serving[1]);
    });
    ended.then((how) => reject(new Error(`assayd ended with ${how}:\n${log}`)));
  });
  const api = grpc.loadPackageDefinition(
    loadFileDescriptorSetFromBuffer(readFileSync(join(root, 'bin/api.binpb')), { longs: String, enums: String }),
  );
  const clients = [];
  const client = (Service) => {
    clients.push(new Service(address, grpc.credentials.createInsecure()));
    return clients.at(-1);
  };
  const metrics = client(api.assay.v1.MetricService);
  const experiments = client(api.assay.v1.ExperimentService);
  const holdouts = client(api.assay.v1.HoldoutService);
  const call = (service, method) => promisify(service[method]).bind(service);
  return {
    port: Number(address.split(':').at(-1)),
    flagdV1: client(api.flagd.evaluation.v1.Service),
    createMetric: (metric) => call(metrics, 'CreateMetric')({ metric }),
    // experiment makes a call such as ('Start', {key}).
    experiment: (verb, request) => call(experiments, `${verb}Experiment`)(request),
    createHoldout: (holdout) => call(holdouts, 'CreateHoldout')({ holdout }),
    setOverrides: (request) => call(experiments, 'SetOverrides')(request),
    // stop resolves with how the process ended.
    async stop() {
      child.kill('SIGTERM');
      const how = await ended;
      clients.forEach((c) => c.close());
      rmSync(dir, { recursive: true, force: true });
      return how;
    },
  };
}

// struct returns an object as a google.protobuf.Struct. Of a descriptor the
// loader makes maps as they travel, which is as lists of entries.
export function struct(object) {
  return { fields: Object.entries(object).map(([key, v]) => ({ key, value: value(v) })) };
}

function value(v) {
  if (v === null) return { null_value: 'NULL_VALUE' };
  if (Array.isArray(v)) return { list_value: { values: v.map(value) } };
  switch (typeof v) {
    case 'boolean':
      return { bool_value: v };
    case 'number':
      return { number_value: v };
    case 'string':
      return { string_value: v };
    default:
      return { struct_value: struct(v) };
  }
}
