/* The page's end of worker.mjs. */

/** An object whose `call(method, ...args)` is answered by the worker; `tell(share)` hears how far loading is. */
export function start(tell) {
  const worker = new Worker(new URL('./worker.mjs', import.meta.url), { type: 'module' });
  const waiting = new Map();
  let last = 0;
  worker.addEventListener('message', ({ data: { id, value, error, told } }) => {
    if (told !== undefined) return tell(told);
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    return error === undefined ? resolve(value) : reject(new Error(error));
  });
  worker.addEventListener('error', (event) => {
    event.preventDefault();
    for (const { reject } of waiting.values()) reject(new Error(event.message || 'the worker could not start'));
    waiting.clear();
  });
  const call = (method, ...args) => new Promise((resolve, reject) => {
    last += 1;
    waiting.set(last, { resolve, reject });
    worker.postMessage({ id: last, method, args });
  });
  return { call };
}

/** The bytes at a URL; `tell(share)` hears how many have come. */
export async function download(url, tell) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${new URL(url).pathname} is missing; start the page with edgemeta serve BUNDLE`);
  const [total, parts] = [Number(answer.headers.get('Content-Length')), []];
  let come = 0;
  for (const reader = answer.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    come += value.length;
    if (total) tell(Math.min(1, come / total)); // a server that compresses counts otherwise
  }
  return new Blob(parts).arrayBuffer();
}
