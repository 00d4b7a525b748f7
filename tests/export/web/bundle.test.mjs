import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';

const { below, asFloat, load, pythonJson } = await import(`${process.env.PAGE}/bundle.mjs`);
const { bundles, numbers } = JSON.parse(fs.readFileSync(process.env.GOLDEN));
const FOLDER = bundles[0].folder;

const bytesOf = (file) => new Uint8Array(fs.readFileSync(file));
const read = async (name) => bytesOf(path.join(FOLDER, name));
/** A reader of the bundle with one file changed. */
const altered = (name, change) => async (asked) => (asked === name ? change(await read(name)) : read(asked));
const manifest = (change) => altered('manifest.json', (bytes) => {
  const record = JSON.parse(new TextDecoder().decode(bytes));
  return new TextEncoder().encode(JSON.stringify(change(record) ?? record));
});

for (const { folder } of bundles) {
  test(`the bundle in ${path.basename(folder)} is what its manifest says`, async () => {
    const { manifest: record, graphs } = await load(async (name) => bytesOf(path.join(folder, name)));
    const body = record.learner.on === 'features' ? ['body'] : [];
    assert.deepEqual(Object.keys(graphs), [...body, 'adapt', 'classify']);
  });
}

const half = (bytes) => bytes.slice(0, bytes.length >> 1);
const huge = () => new Uint8Array(2 ** 20 + 1).fill(32);
const body = (file) => (record) => { record.graphs.body.file = file; };
const flipped = (bytes) => bytes.map((byte, i) => (i === bytes.length >> 1 ? byte ^ 1 : byte));
const REFUSED = {
  'a changed byte': [altered('body.onnx', flipped), /body\.onnx is not the file/],
  'a graph cut short': [altered('adapt.onnx', (bytes) => bytes.slice(0, -1)), /adapt\.onnx is not the file/],
  'a missing graph': [altered('classify.onnx', () => null), /classify\.onnx is missing/],
  'no manifest': [altered('manifest.json', () => null), /no bundle here/],
  'a manifest cut in half': [altered('manifest.json', half), /manifest is damaged/],
  'a manifest that is huge': [altered('manifest.json', huge), /manifest is damaged/],
  'another format': [manifest((record) => { record.format = 'other'; }), /manifest is damaged/],
  'a newer format': [manifest((record) => { record.version = 3; }), /has format 3.*newer/],
  'an older format': [manifest((record) => { record.version = 1; }), /has format 1.*Export it again/],
  'a manifest that is a list': [manifest(() => []), /manifest is damaged/],
  'no learner': [manifest((record) => { delete record.learner; }), /manifest is damaged/],
  'endless steps': [manifest((record) => { record.learner.steps = 1e9; }), /manifest is damaged/],
  'a path that leaves the folder': [manifest(body('../body.onnx')), /names no file for body/],
  'a name that every object has': [manifest(body('constructor')), /names no file for body/],
  'no figures': [manifest((record) => { record.costs = { measured: {} }; }), /manifest is damaged/],
  'other steps': [manifest((record) => { record.learner.steps += 1; }), /changed after it was written/],
  'another scale': [manifest((record) => { record.normalisation.scale *= 2; }), /changed after it was written/],
};
for (const [what, [reader, says]] of Object.entries(REFUSED)) {
  test(`${what} is refused`, () => assert.rejects(load(reader), says));
}

test('without the means to check, nothing is used', async () => {
  const own = Object.getOwnPropertyDescriptor(globalThis, 'crypto');
  Object.defineProperty(globalThis, 'crypto', { value: {}, configurable: true });
  const restore = () => Object.defineProperty(globalThis, 'crypto', own);
  await assert.rejects(load(read), /only on localhost or over https/).finally(restore);
});

test('floats are written as Python writes them', () => {
  for (const [text, written] of numbers) assert.equal(pythonJson(asFloat(Number(text))), written);
  assert.equal(pythonJson({ b: [null, true, 'é"'], a: 1 }), '{"a":1,"b":[null,true,"\\u00e9\\""]}');
});

test('a file that a server does not have is missing', async () => {
  const answer = (url) => ({ ok: url.href.endsWith('/a'), arrayBuffer: async () => new ArrayBuffer(2) });
  const reader = below('http://localhost/bundle/', async (url) => answer(url));
  assert.equal((await reader('a')).length, 2);
  assert.equal(await reader('b'), null);
});
