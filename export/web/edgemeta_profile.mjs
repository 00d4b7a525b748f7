#!/usr/bin/env node
/* Time the networks of an edgemeta kit with onnxruntime-web's WebAssembly under Node 20 or later.

    node edgemeta_profile.mjs KIT --out timings.json --seconds 40

KIT is by default the folder this file lies in, and FILE is KIT/timings.json. onnxruntime-web is looked for in
node_modules of --modules DIR; without it, where this file lies, in ~/.cache/edgemeta/web and in the current folder. A
run that was cut off goes on where it stopped if it is started again within the hour.

What is timed when is as in edgemeta_profile.py, which says why; kit and timings are specified in export/README.md.
*/

import fs from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import v8 from 'node:v8';

const [FORMAT, RUNTIME, PINNED] = [1, 'onnxruntime-web', '1.30.0']; // the last as in package.json
const MODULES = '~/.cache/edgemeta/web';
const [SAVE_EVERY_S, TELL_EVERY_S, VALID_S] = [1.0, 0.2, 3600]; // a device an hour later is another device
const LOOK_S = 0.3; // how long the load of other processes is watched
const NEEDS = ['kit', 'threads', 'seed', 'input_shape', 'reference', 'models', 'head', 'passes', 'max_passes',
  'disagree', 'chunks', 'chunk_ms', 'chunk_runs', 'reference_runs', 'seconds'];
const BACK = 'bring it back: `edgemeta profile --kit KIT --from FILE`';
const [FAILED, INTERRUPTED] = [2, 130];
const HERE = path.dirname(fileURLToPath(import.meta.url));

class KitError extends Error {} // something the user can mend, in one line
class Interrupted extends Error {}
let stopped = false;

// The kit

function readPlan(kit) {
  const file = path.join(kit, 'plan.json');
  if (!fs.existsSync(file)) throw new KitError(`no kit in ${kit}: it lacks plan.json; give the folder of a kit`);
  let plan;
  try {
    plan = JSON.parse(readFile(file));
  } catch {
    throw new KitError(`${file} is damaged; copy the kit again`);
  }
  if (plan?.format !== FORMAT) {
    throw new KitError(`${file} is not a kit of format ${FORMAT}; write it with this version of edgemeta`);
  }
  const lacks = NEEDS.find((name) => !(name in plan));
  if (lacks) throw new KitError(`${file} lacks '${lacks}'; copy the kit again`);
  return plan;
}

function readFile(file) {
  try {
    return fs.readFileSync(file);
  } catch {
    throw new KitError(`${file} is missing; copy the kit again`);
  }
}

function find(folder) {
  try {
    return createRequire(path.join(path.resolve(folder), 'any.js')).resolve(RUNTIME);
  } catch {
    return null;
  }
}

/** onnxruntime-web from the first of the folders that has it. */
function loadRuntime(folders, threads) {
  const file = (folders ?? [HERE, MODULES.replace('~', os.homedir()), process.cwd()]).map(find).find(Boolean);
  if (!file) throw new KitError(`${RUNTIME} is missing here: npm install --prefix ${MODULES} ${RUNTIME}@${PINNED}`);
  // All machine code is optimised before the first run. Otherwise V8 swaps code in while networks are timed, and for
  // their first seconds they take up to three times as long.
  v8.setFlagsFromString('--no-liftoff');
  const ort = createRequire(file)(file);
  ort.env.wasm.numThreads = threads;
  ort.env.logLevel = 'fatal';
  return ort;
}

/** What opens and runs the models of a kit. */
class Kit {
  constructor(folder, plan, ort) {
    Object.assign(this, { folder, plan, ort, weights: readFile(path.join(folder, 'models', 'weights.bin')) });
    this.x = readInput(path.join(folder, 'models', 'input.bin'), plan.input_shape);
  }

  async open(name) {
    const file = path.join(this.folder, name);
    const externalData = [{ path: 'weights.bin', data: this.weights }];
    const options = { executionProviders: ['wasm'], externalData, logSeverityLevel: 4 };
    const model = readFile(file);
    try {
      return await this.ort.InferenceSession.create(model, options);
    } catch (error) {
      throw new KitError(`${RUNTIME} ${this.ort.env.versions.web} cannot load ${file}: ${oneLine(error)}`);
    }
  }
}

const product = (shape) => shape.reduce((a, b) => a * b);

function readInput(file, shape) {
  const bytes = readFile(file);
  if (bytes.length !== 4 * product(shape)) throw new KitError(`${file} is damaged; copy the kit again`);
  return new Float32Array(Uint8Array.from(bytes).buffer);
}

// Timing

/** Networks to time next: all in random order, again in another, then those whose timings disagree. */
function* order(count, visits, plan) {
  for (let turn = 0; turn < plan.max_passes; turn++) {
    const ratios = new Map();
    for (const [net, own, , other] of visits) ratios.set(net, [...(ratios.get(net) ?? []), own / other]);
    for (const net of shuffled(count, `${plan.seed}/${turn}`)) {
      const found = ratios.get(net) ?? [];
      const again = turn > 0 && found.length === turn && Math.max(...found) > plan.disagree * Math.min(...found);
      if (found.length <= turn && (turn < plan.passes || again)) yield net;
    }
  }
}

/** 0..count-1 in an order that follows from `seed` (Fisher-Yates on the mulberry32 generator). */
function shuffled(count, seed) {
  let state = [...seed].reduce((hash, letter) => Math.imul(hash ^ letter.charCodeAt(0), 16777619), 2166136261);
  const random = () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const items = Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [items[i], items[j]] = [items[j], items[i]];
  }
  return items;
}

/** Milliseconds of each of `count` runs. */
async function runs(session, feeds, count) {
  const taken = [];
  for (let i = 0; i < count; i++) {
    const begin = performance.now();
    await session.run(feeds);
    taken.push(performance.now() - begin);
  }
  return taken;
}

/** Run until two chunks in a row agree within 3 %, or time is up. */
async function warmUp(session, feeds, least, most) {
  const begin = performance.now();
  let before = median(await runs(session, feeds, 5));
  for (let passed = 0; passed < most; passed = (performance.now() - begin) / 1000) {
    const now = median(await runs(session, feeds, 5));
    if (passed >= least && Math.abs(now - before) <= 0.03 * now) return;
    before = now;
  }
}

/** Median and IQR of a network and median of the reference, run in turns; the first run of a turn is dropped. */
async function visit(session, reference, feeds, plan) {
  const typical = Math.min(...(await runs(session, feeds, 6)).slice(1));
  const count = Math.floor(Math.min(plan.chunk_runs[1], Math.max(plan.chunk_runs[0], plan.chunk_ms / typical)));
  const [own, others] = [[], []];
  for (let turn = 0; turn < plan.chunks; turn++) {
    others.push(...(await runs(reference, feeds, plan.reference_runs + 1)).slice(1));
    own.push(...(await runs(session, feeds, count + 1)).slice(1));
  }
  return [median(own), quantile(own, 0.75) - quantile(own, 0.25), median(others)];
}

/** Median time of the few-shot head. */
async function headMs(kit) {
  const session = await kit.open(kit.plan.head);
  const feeds = {};
  for (const { name, shape } of session.inputMetadata) {
    const numbers = Float32Array.from({ length: product(shape) }, () => 1 + Math.random());
    feeds[name] = new kit.ort.Tensor('float32', numbers, shape);
  }
  await warmUp(session, feeds, 0.05, 0.15);
  const [taken, until] = [await runs(session, feeds, 30), performance.now() + 150];
  while (taken.length < 1000 && performance.now() < until) taken.push(...(await runs(session, feeds, 5)));
  await session.release();
  return median(taken);
}

/** Between the neighbours in proportion, as numpy does it. */
function quantile(values, share) {
  const sorted = Float64Array.from(values).sort();
  const place = share * (sorted.length - 1);
  const [low, high] = [sorted[Math.floor(place)], sorted[Math.ceil(place)]];
  return low + (place % 1) * (high - low);
}

const median = (values) => quantile(values, 0.5);

// The device

function readText(file) {
  try {
    return fs.readFileSync(file, 'utf8').replace(/^[\0\s]+|[\0\s]+$/g, '');
  } catch {
    return '';
  }
}

/** The board's name where there is a device tree (Raspberry Pi and its like), else the processor's. */
function cpu() {
  const found = readText('/proc/cpuinfo').match(/^(?:model name|Hardware)\s*:\s*(.+)$/m)?.[1].trim();
  return readText('/proc/device-tree/model') || found || os.cpus()[0]?.model.trim() || os.machine() || 'unknown';
}

/** Cores this process may run on, e.g. from "0-3,6"; [] where the system does not tell. */
function affinity() {
  const found = readText('/proc/self/status').match(/^Cpus_allowed_list:\s*(.+)$/m);
  return (found?.[1].split(',') ?? []).flatMap((part) => {
    const [low, high = low] = part.split('-').map(Number);
    return Array.from({ length: high - low + 1 }, (_, i) => low + i);
  });
}

/** Frequency governors of the cores, "unknown" where the kernel shows none. */
function governor(cores) {
  const found = cores.map((core) => readText(`/sys/devices/system/cpu/cpu${core}/cpufreq/scaling_governor`));
  return [...new Set(found.filter(Boolean))].sort().join('+') || 'unknown';
}

/** Milliseconds that each of the cores has been idle; null where the system does not tell. */
function idleMs(cores) {
  const rows = readText('/proc/stat').split('\n').map((line) => line.split(/\s+/));
  const own = rows.filter(([name]) => cores.some((core) => name === `cpu${core}`));
  return own.length ? own.map((row) => 10 * (Number(row[4]) + Number(row[5]))) : null; // ticks of Linux: 10 ms
}

/** How many of the cores other processes keep busy while this one sleeps. */
async function othersLoad(cores) {
  const [before, begin] = [idleMs(cores), performance.now()];
  await new Promise((wake) => setTimeout(wake, 1000 * LOOK_S));
  const [after, passed] = [idleMs(cores), performance.now() - begin];
  if (!before || !after) return null;
  return before.reduce((busy, idle, i) => busy + Math.max(0, 1 - (after[i] - idle) / passed), 0);
}

/** What stands in timings.json beside the timings. */
async function facts(plan, ort) {
  const [cores, now] = [affinity(), Date.now()];
  return {
    format: FORMAT,
    kit: plan.kit,
    runtime: RUNTIME,
    versions: { [RUNTIME]: ort.env.versions.web, node: process.versions.node },
    cpu: cpu(),
    governor: governor(cores),
    affinity: cores,
    cores: os.cpus().length || 1,
    load: await othersLoad(cores),
    system: `${os.type()} ${os.machine()}`,
    measured_on: new Date(now - 60000 * new Date(now).getTimezoneOffset()).toISOString().slice(0, 10),
  };
}

// Timings on disk

/** The timings so far, and the file that keeps them. */
class Record {
  constructor(out, about) {
    Object.assign(this, { out, about, visits: [], spent: 0, head: null, finished: false });
    try {
      this.resume(JSON.parse(fs.readFileSync(out, 'utf8')));
    } catch {} // not ours or not whole: timed anew
  }

  resume(kept) {
    const equal = (name) => JSON.stringify(kept[name]) === JSON.stringify(this.about[name]);
    const same = ['format', 'kit', 'runtime', 'versions', 'cpu'].every(equal);
    const age = Date.now() / 1000 - kept.saved_at;
    const whole = kept.visits.every((row) => row.length === 5 && row.every(Number.isFinite));
    if (!same || !whole || !(age >= 0 && age < VALID_S) || !Number.isFinite(kept.spent_s)) return;
    Object.assign(this, { visits: kept.visits, spent: kept.spent_s, head: kept.head_ms, finished: kept.finished });
  }

  /** Write the file whole or not at all. */
  save() {
    const timed = { spent_s: this.spent, visits: this.visits, head_ms: this.head, finished: this.finished };
    const temporary = path.join(path.dirname(this.out), `.${path.basename(this.out)}.${process.pid}.tmp`);
    try {
      fs.writeFileSync(temporary, JSON.stringify({ ...this.about, saved_at: Date.now() / 1000, ...timed }));
      fs.renameSync(temporary, this.out);
    } finally {
      fs.rmSync(temporary, { force: true });
    }
  }
}

function tell(record, total) {
  const done = Math.min(record.visits.length, total);
  process.stdout.write(process.stdout.isTTY ? `\rtimed ${done} of ${total}` : `progress ${done} ${total}\n`);
}

/** Let signals in, which wait for as long as nothing else does. */
async function breathe() {
  await new Promise(setImmediate);
  if (stopped) throw new Interrupted();
}

/** Time the kit for `seconds` in all, earlier runs included; whatever ends this, the file at `out` is current. */
async function profile({ folder, out, seconds, modules }) {
  const plan = readPlan(folder);
  fs.mkdirSync(path.dirname(path.resolve(out)), { recursive: true });
  const kit = new Kit(folder, plan, loadRuntime(modules, plan.threads));
  const record = new Record(out, await facts(plan, kit.ort));
  const limit = seconds ?? plan.seconds;
  const complete = order(plan.models.length, record.visits, plan).next().done;
  if (record.finished && (record.spent >= limit || complete)) return record;
  Object.assign(record, { finished: false, head: null });
  const reference = await kit.open(plan.reference);
  if (kit.ort.env.wasm.numThreads !== plan.threads) {
    throw new KitError(`${RUNTIME} runs on one thread here, not on the kit's ${plan.threads}; update Node`);
  }
  const feeds = { [reference.inputNames[0]]: new kit.ort.Tensor('float32', kit.x, plan.input_shape) };
  await warmUp(reference, feeds, Math.min(2, 0.05 * limit), Math.min(4, 0.1 * limit)); // from rest it is slow
  await timeAll(kit, record, reference, feeds, limit);
  return record;
}

async function timeAll(kit, record, reference, feeds, limit) {
  const [plan, before, begin] = [kit.plan, record.spent, performance.now() / 1000];
  const total = plan.models.length * plan.passes;
  let [saved, told] = [begin, begin];
  try {
    for (const net of order(plan.models.length, record.visits, plan)) {
      await breathe();
      const session = await kit.open(plan.models[net]);
      const timed = await visit(session, reference, feeds, plan);
      await session.release();
      const now = performance.now() / 1000;
      record.spent = before + now - begin;
      record.visits.push([net, ...timed, record.spent]);
      if (now - told >= TELL_EVERY_S) told = (tell(record, total), now);
      if (now - saved >= SAVE_EVERY_S) saved = (record.save(), now);
      if (record.spent > limit) break;
    }
    record.head = await headMs(kit);
    record.finished = true;
    tell(record, total);
  } finally {
    record.save();
  }
}

// The command

const oneLine = (error) => String(error?.message ?? error).split(/\s+/).join(' ').trim().slice(0, 300);

/** Ask the run to end; the second time, end it. */
function stop() {
  if (stopped) process.exit(INTERRUPTED);
  stopped = true;
}

function leave(code, line) {
  if (line) fs.writeSync(2, `${line}\n`); // at once: what follows would cut a stream short
  process.exit(code); // the runtime's threads would keep Node alive
}

function settings() {
  const text = { type: 'string' };
  const options = { out: text, seconds: text, modules: text };
  const { values, positionals } = parseArgs({ options, allowPositionals: true });
  const seconds = values.seconds && Number(values.seconds);
  if (Number.isNaN(seconds)) throw new KitError(`--seconds ${values.seconds} is not a number`);
  if (positionals.length > 1) throw new KitError(`one kit at a time, not ${positionals.length}`);
  const folder = positionals[0] ?? HERE;
  const out = values.out ?? path.join(folder, 'timings.json');
  return { folder, out, seconds, modules: values.modules && [values.modules] };
}

async function main() {
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, stop);
  process.stdout.on('error', stop); // nobody listens any more: the timings are kept
  let out;
  try {
    const given = settings();
    out = given.out;
    const record = await profile(given);
    if (process.stdout.isTTY) process.stdout.write(`\n${record.visits.length} timings are in ${out}; ${BACK}\n`);
    leave(0);
  } catch (error) {
    if (error instanceof Interrupted) leave(INTERRUPTED, `interrupted; ${out} has what was timed: start again`);
    leave(FAILED, error instanceof KitError ? oneLine(error) : `timing failed: ${oneLine(error)}`);
  }
}

await main();
