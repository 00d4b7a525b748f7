/* Time the graphs of a bundle and keep their answers, on onnxruntime-node or onnxruntime-web.

   node _time_bundle.mjs TASK.json ORT_MODULE       TASK as `_runtimes.task` writes it; prints the result as JSON

   Clocks of browsers are coarse, so runs are timed in blocks; the result is the median of the blocks. */

const BLOCKS = 15;
const BLOCK_MS = 20;

export async function time(ort, { graphs, feeds, provider }) {
  const answers = {};
  for (const [name, graph] of Object.entries(graphs)) {
    const session = await ort.InferenceSession.create(bytes(graph), { executionProviders: [provider], intraOpNumThreads: 1 });
    const known = { ...answers.adapt?.outputs, ...given(ort, feeds[name] ?? {}) };
    const asked = Object.fromEntries(session.inputNames.map((input) => [input, known[input]]));
    const outputs = await session.run(asked);
    answers[name] = { outputs, ms: await median(() => session.run(asked)) };
  }
  return Object.fromEntries(Object.entries(answers).map(([name, { outputs, ms }]) => [
    name,
    { ms, outputs: Object.fromEntries(Object.entries(outputs).map(([key, { data }]) => [key, Array.from(data, Number)])) },
  ]));
}

const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

function given(ort, feeds) {
  return Object.fromEntries(Object.entries(feeds).map(([name, { type, dims, data }]) => {
    const raw = bytes(data).buffer;
    return [name, new ort.Tensor(type, type === 'int64' ? new BigInt64Array(raw) : new Float32Array(raw), dims)];
  }));
}

async function median(run) {
  let repeats = 1;
  for (;;) {
    const ms = await block(run, repeats);
    if (ms >= BLOCK_MS || repeats > 1e5) break;
    repeats = Math.ceil(repeats * Math.min(10, 1.3 * BLOCK_MS / Math.max(ms, 0.1)));
  }
  const found = [];
  for (let i = 0; i < BLOCKS; i++) found.push((await block(run, repeats)) / repeats);
  return found.sort((a, b) => a - b)[BLOCKS >> 1];
}

async function block(run, repeats) {
  const begin = performance.now();
  for (let i = 0; i < repeats; i++) await run();
  return performance.now() - begin;
}

if (globalThis.process?.argv[2]) {
  const { readFileSync } = await import('node:fs');
  const module = await import(process.argv[3]);
  const ort = module.default ?? module;
  if (ort.env.wasm) ort.env.wasm.numThreads = 1;
  console.log(JSON.stringify(await time(ort, JSON.parse(readFileSync(process.argv[2], 'utf8')))));
}
