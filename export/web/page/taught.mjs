/* What was taught, as values that are never changed: {threshold, classes: [{id, name}], examples: [{id, owner, x,
   thumb}]}. An example's `x` is what the network reads, `owner` the id of its class, `thumb` a small picture as a data
   URL. And the file that carries it from one browser to another. */

const [FORMAT, VERSION] = ['edgemeta-web-state', 1];
const THUMB = /^data:image\/(png|jpeg|webp);base64,[A-Za-z0-9+/=]+$/;
const [MAX_NAME, MAX_FILE_BYTES] = [40, 2 ** 28];
export const NOTHING = Object.freeze({ threshold: 0.6, classes: [], examples: [] });

export class TaughtError extends Error {}

let last = 0;
/** A number that no other class or example has, and that grows: later ones are sorted after earlier ones. */
const fresh = () => {
  last = Math.max(last + 1, Date.now() * 1000);
  return last;
};

/** [state, the new class]; a name that is empty or taken is refused. */
export function addClass(state, name) {
  const made = { id: fresh(), name: free(state, name) };
  return [{ ...state, classes: [...state.classes, made] }, made];
}

export function rename(state, id, name) {
  const given = free(state, name, id);
  return { ...state, classes: state.classes.map((one) => (one.id === id ? { id, name: given } : one)) };
}

function free(state, name, own = null) {
  const given = name.trim().replace(/\s+/g, ' ').slice(0, MAX_NAME);
  if (!given) throw new TaughtError('Give the class a name first.');
  if (state.classes.some((one) => one.id !== own && one.name === given)) {
    throw new TaughtError(`There is a class “${given}” already.`);
  }
  return given;
}

export function forget(state, id) {
  return {
    ...state,
    classes: state.classes.filter((one) => one.id !== id),
    examples: state.examples.filter((one) => one.owner !== id),
  };
}

/** Examples of a class, as [{x, thumb}], after those there are. */
export function addExamples(state, owner, examples) {
  return { ...state, examples: [...state.examples, ...examples.map((one) => ({ id: fresh(), owner, ...one }))] };
}

export function dropExample(state, id) {
  return { ...state, examples: state.examples.filter((one) => one.id !== id) };
}

export const examplesOf = (state, owner) => state.examples.filter((one) => one.owner === owner);

/** The classes that have examples, in order: the ways of the task. */
export const waysOf = (state) => state.classes.filter(({ id }) => state.examples.some((one) => one.owner === id));

/** What `adapt` takes: numbers of the examples and, for each, the position of its class among `waysOf`. */
export function taskOf(state) {
  const at = new Map(waysOf(state).map(({ id }, i) => [id, i]));
  const examples = state.examples.filter(({ owner }) => at.has(owner));
  return { ids: examples.map(({ id }) => id), labels: examples.map(({ owner }) => at.get(owner)), way: at.size };
}

/** The text of a file that holds a state. */
export function toFile(state, bundle) {
  const classes = state.classes.map(({ id, name }) => ({
    name,
    examples: examplesOf(state, id).map(({ x, thumb }) => ({ x: toBase64(x), thumb })),
  }));
  return JSON.stringify({ format: FORMAT, version: VERSION, bundle, threshold: state.threshold, classes });
}

/** The state in a file of this very bundle, whose examples have `size` numbers. */
export function fromFile(text, bundle, size) {
  const damaged = new TaughtError('This file is damaged, or was not saved by this page.');
  if (text.length > MAX_FILE_BYTES) throw damaged;
  let read;
  try {
    read = JSON.parse(text);
  } catch {
    throw damaged;
  }
  if (read?.format !== FORMAT || !Number.isInteger(read.version) || !Array.isArray(read.classes)) throw damaged;
  if (read.version > VERSION) throw new TaughtError('This file was saved by a newer page. Open it there.');
  if (read.bundle !== bundle) throw new TaughtError('This file was taught to another bundle. Open it with that one.');
  try {
    const start = { ...NOTHING, threshold: share(read.threshold) };
    return read.classes.reduce((state, one) => withClass(state, one, size), start);
  } catch (error) {
    throw error instanceof TaughtError ? error : damaged;
  }
}

function withClass(state, { name, examples }, size) {
  const [grown, made] = addClass(state, name);
  return addExamples(grown, made.id, examples.map(({ x, thumb }) => {
    const values = fromBase64(x);
    if (values.length !== size || !values.every(Number.isFinite)) throw new RangeError('not an example of this bundle');
    return { x: values, thumb: THUMB.test(thumb) ? thumb : '' };
  }));
}

export const share = (value) => (value >= 0 && value <= 1 ? Number(value) : NOTHING.threshold);

function toBase64(x) {
  const bytes = new Uint8Array(x.buffer, x.byteOffset, x.byteLength);
  let text = '';
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(text);
}

function fromBase64(text) {
  return new Float32Array(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
}
