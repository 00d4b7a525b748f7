import assert from 'node:assert/strict';
import fs from 'node:fs';
import { test } from 'node:test';

const { preprocess, readsPictures } = await import(`${process.env.PAGE}/images.mjs`);
const { pictures } = JSON.parse(fs.readFileSync(process.env.GOLDEN));

for (const { name, width, height, rgba, rule, x } of pictures) {
  test(`${name}: the same numbers as edgemeta_device.py`, () => {
    const got = preprocess({ data: Uint8ClampedArray.from(Buffer.from(rgba, 'base64')), width, height }, rule);
    const want = new Float32Array(Uint8Array.from(Buffer.from(x, 'base64')).buffer);
    assert.equal(got.length, want.length);
    got.forEach((value, i) => assert.ok(Math.abs(value - want[i]) < 1e-5, `${value} ${want[i]}`));
  });
}

test('what is no picture is refused', () => {
  const rule = { scale: 1, polarity: 'as-is', channels: 1, height: 2, width: 2 };
  assert.throws(() => preprocess({ data: [], width: 0, height: 3 }, rule), /empty/);
  const dot = { data: new Uint8ClampedArray(4), width: 1, height: 1 };
  assert.throws(() => preprocess(dot, { ...rule, channels: 6 }), /6 channels/);
  assert.deepEqual([1, 2, 3, 6].map((channels) => readsPictures({ channels })), [true, false, true, false]);
});
