/* What was taught, in the browser's database, by bundle. One transaction writes a change: a crash leaves the old state
   or the new one. */

import { NOTHING, share } from './taught.mjs';

const [NAME, VERSION] = ['edgemeta', 1];
const [HEADS, EXAMPLES] = ['heads', 'examples'];

/** {load, save, changed} of one bundle; `size` numbers are an example. */
export async function open(bundle, size) {
  const database = await connect();
  const line = 'BroadcastChannel' in globalThis ? new BroadcastChannel(`${NAME} ${bundle}`) : null;
  return {
    /** What is kept, examples in the order of their numbers; what does not fit is left out. */
    async load() {
      const transaction = database.transaction([HEADS, EXAMPLES], 'readonly');
      const [head, examples] = await Promise.all([
        settled(transaction.objectStore(HEADS).get(bundle)),
        settled(transaction.objectStore(EXAMPLES).getAll(range(bundle))),
      ]);
      if (!head) return NOTHING;
      const known = new Set(head.classes.map(({ id }) => id));
      const fits = ({ owner, x }) => known.has(owner) && x instanceof Float32Array && x.length === size;
      const kept = examples.filter(fits).map(({ id, owner, x, thumb }) => ({ id, owner, x, thumb }));
      return { threshold: share(head.threshold), classes: head.classes, examples: kept };
    },
    /** Write what differs between two states. */
    async save(before, after) {
      const transaction = database.transaction([HEADS, EXAMPLES], 'readwrite');
      const [heads, examples] = [HEADS, EXAMPLES].map((name) => transaction.objectStore(name));
      const [old, now] = [before, after].map((state) => new Set(state.examples.map(({ id }) => id)));
      heads.put({ bundle, threshold: after.threshold, classes: after.classes });
      for (const id of old) if (!now.has(id)) examples.delete([bundle, id]);
      for (const one of after.examples) if (!old.has(one.id)) examples.put({ bundle, ...one });
      await done(transaction);
      line?.postMessage('changed');
    },
    /** Call back when another tab has written. */
    changed(heard) {
      line?.addEventListener('message', heard);
    },
  };
}

function connect() {
  const request = indexedDB.open(NAME, VERSION);
  request.addEventListener('upgradeneeded', () => {
    request.result.createObjectStore(HEADS, { keyPath: 'bundle' });
    request.result.createObjectStore(EXAMPLES, { keyPath: ['bundle', 'id'] });
  });
  return settled(request);
}

const range = (bundle) => IDBKeyRange.bound([bundle], [bundle, []]);

function settled(request) {
  return new Promise((resolve, reject) => {
    request.addEventListener('success', () => resolve(request.result));
    request.addEventListener('error', () => reject(request.error));
    request.addEventListener('blocked', () => reject(new Error('the database is in use by an older page')));
  });
}

function done(transaction) {
  return new Promise((resolve, reject) => {
    transaction.addEventListener('complete', resolve);
    for (const name of ['error', 'abort']) transaction.addEventListener(name, () => reject(transaction.error));
  });
}
