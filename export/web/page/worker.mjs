/* The thread that computes, so that the page never waits. A message {id, method, args} is answered with {id, value} or
   {id, error}; {told} says how far loading is, from 0 to 1. */

import * as ort from './ort/ort.wasm.min.mjs';
import { create } from './learner.mjs';

let learner = null;
let queue = Promise.resolve();

const methods = {
  async load(bundle, wasm) {
    // One thread: networks for small devices are done before a second one has woken up.
    const wasmPaths = new URL('./ort/', import.meta.url).href;
    Object.assign(ort.env.wasm, { numThreads: 1, wasmBinary: wasm, wasmPaths });
    ort.env.logLevel = 'error';
    learner = await create(ort, bundle, { tell: (told) => postMessage({ told }) });
    return ort.env.versions.web;
  },
  keep: (...args) => learner.keep(...args),
  adapt: (...args) => learner.adapt(...args),
  classify: (...args) => learner.classify(...args),
};

async function answer({ id, method, args }) {
  try {
    postMessage({ id, value: await methods[method](...args) });
  } catch (error) {
    postMessage({ id, error: String(error?.message ?? error).split('\n')[0].slice(0, 200) });
  }
}

addEventListener('message', ({ data }) => {
  queue = queue.then(() => answer(data));
});
