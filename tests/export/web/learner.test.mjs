import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';

const { load } = await import(`${process.env.PAGE}/bundle.mjs`);
const { create, probabilities } = await import(`${process.env.PAGE}/learner.mjs`);
const ort = await import(path.join(process.env.ORT, 'ort.wasm.min.mjs'));
const { bundles } = JSON.parse(fs.readFileSync(process.env.GOLDEN));
ort.env.wasm.numThreads = 1;
ort.env.logLevel = 'error';

for (const { folder, size, support, labels, queries, logits } of bundles) {
  test(`${path.basename(folder)} answers as in Python, and again after it has forgotten something`, async () => {
    const told = [];
    const bundle = await load(async (name) => new Uint8Array(fs.readFileSync(path.join(folder, name))));
    const learner = await create(ort, bundle, { tell: (share) => told.push(share) });
    const image = (flat, i) => Float32Array.from(flat.slice(i * size, (i + 1) * size));
    const images = (flat) => Array.from({ length: flat.length / size }, (_, i) => image(flat, i));
    const way = Math.max(...labels) + 1;
    const ids = labels.map((_, i) => i);
    await learner.keep(images(support).map((x, id) => ({ id, x })));
    await learner.keep([{ id: 'noise', x: new Float32Array(size).fill(0.5) }]);
    await learner.adapt([...ids, 'noise'], [...labels, way], way + 1);
    assert.equal((await learner.classify(images(queries)[0])).logits.length, way + 1);

    await learner.keep([], ['noise']);
    assert.ok((await learner.adapt(ids, labels, way)).ms > 0);
    for (const [i, x] of images(queries).entries()) {
      const { logits: got, ms } = await learner.classify(x);
      assert.ok(ms > 0);
      const scale = Math.max(1, ...logits[i].map(Math.abs));
      got.forEach((value, j) => assert.ok(Math.abs(value - logits[i][j]) < 1e-4 * scale, `${got} ${logits[i]}`));
    }
    assert.ok(told.length >= 2 && told.every((share, i) => share > (told[i - 1] ?? 0) && share < 1));
    assert.deepEqual(await learner.adapt([], [], 0), { ms: 0 });
  });
}

test('probabilities do not overflow', () => {
  assert.deepEqual(probabilities([1000, 1000]), [0.5, 0.5]);
  const [low, high] = probabilities([-1000, 1000]);
  assert.deepEqual([low, high], [0, 1]);
});
