import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';

const { Device, DeviceError, picture } = await import(process.env.DEVICE);
const { size, cases } = JSON.parse(fs.readFileSync(process.env.GOLDEN));
const place = fs.mkdtempSync(path.join(os.tmpdir(), 'edgemeta-node-'));
test.after(() => fs.rmSync(place, { recursive: true }));

/** A grey picture of base64 bytes. */
function grey(text) {
  const bytes = Buffer.from(text, 'base64');
  const data = new Uint8Array(4 * bytes.length).fill(255);
  bytes.forEach((value, i) => data.fill(value, 4 * i, 4 * i + 3));
  return { data, width: size, height: size };
}

/** Whether every query is answered as torch answers it. */
async function compare(device, { names, queries, logits, tolerance = 1e-4 }) {
  assert.deepEqual(device.names, names);
  for (const [i, query] of queries.entries()) {
    const { logits: got, name, probability } = await device.predict(grey(query));
    const scale = Math.max(1, ...logits[i].map(Math.abs));
    got.forEach((value, j) => assert.ok(Math.abs(value - logits[i][j]) < tolerance * scale, `${got} ${logits[i]}`));
    assert.ok(names.includes(name) && probability >= 1 / names.length && probability <= 1);
  }
}

for (const one of cases) {
  test(`${one.learner} answers as torch, again after it has forgotten a class, and after a restart`, async () => {
    const device = await Device.open(one.folder);
    await assert.rejects(device.predict(grey(one.queries[0])), DeviceError);
    for (const [name, image] of one.shots) await device.enroll(name, [grey(image)]);
    await compare(device, one);

    const file = path.join(place, `${one.learner}.json`);
    device.save(file);
    await device.enroll('other', [grey(one.queries[0])]);
    assert.equal((await device.predict(grey(one.queries[0]))).logits.length, one.names.length + 1);
    await device.forget('other');
    await compare(device, one);
    await assert.rejects(device.forget('other'), /no class other/);

    const again = await Device.open(one.folder);
    await again.load(file);
    await compare(again, one);
  });
}

test('a state of another bundle is refused, and so is half of one', async () => {
  const [first, second] = cases;
  const file = path.join(place, `${first.learner}.json`);
  const device = await Device.open(second.folder);
  await assert.rejects(device.load(file), /another bundle/);
  fs.writeFileSync(file, fs.readFileSync(file).subarray(0, 200));
  await assert.rejects((await Device.open(first.folder)).load(file), /damaged/);
});

test('what is no image is named', () => assert.rejects(picture(process.env.GOLDEN), /cannot read image .*golden/));
