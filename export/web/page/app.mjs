/* The page: what a user does becomes a new state, which is kept, learned and shown. */

import * as bundles from './bundle.mjs';
import { part, toast } from './dom.mjs';
import { preprocess, readsPictures } from './images.mjs';
import { probabilities } from './learner.mjs';
import * as pictures from './pictures.mjs';
import * as remote from './remote.mjs';
import { Stage } from './stage.mjs';
import * as store from './store.mjs';
import * as taught from './taught.mjs';
import * as view from './view.mjs';

const FRAME_MS = 66; // between two looks through the camera
const SPEAK_MS = 700; // an answer that stands so long is read out
const TIMINGS = 15; // of which the median is shown
const WASM = 'ort-wasm-simd-threaded.wasm';

const now = { state: taught.NOTHING, manifest: null, worker: null, store: null, stage: null, settled: () => changes };
const timings = { infer: [], adapt: [] };
let [asking, askAgain, learned, speaking, told] = [false, false, true, 0, ''];
let changes = Promise.resolve();

// Loading

export const ready = start().then(() => now, fail);

async function start() {
  part('late').hidden = true; // it is for those whose browser does not come here
  const wasm = new URL(`ort/${WASM}`, location.href);
  const [bundle, bytes] = await Promise.all([
    bundles.load(bundles.below(new URL('bundle/', location.href))).then(readable),
    remote.download(wasm.href, (share) => loading('Fetching the runtime', 0.7 * share)),
  ]);
  now.manifest = bundle.manifest;
  loading('Starting', 0.7);
  now.worker = remote.start((share) => loading('Starting', 0.7 + 0.3 * share));
  await now.worker.call('load', bundle, bytes).catch(({ message }) => {
    throw new bundles.BundleError(`The browser's runtime does not run this bundle: ${message}`);
  });
  await restore();
  wire();
  part('loading').hidden = true;
  part('desk').hidden = false;
  part('page').dataset.state = 'ready';
  view.facts(now.manifest);
  show();
}

function readable(bundle) {
  const { normalisation: rule } = bundle.manifest;
  if (readsPictures(rule)) return bundle;
  const reads = `${rule.channels} × ${rule.height} × ${rule.width} numbers`;
  const instead = 'Teach it through edgemeta_device.py.';
  throw new bundles.BundleError(`This bundle reads ${reads}, which no picture has. ${instead}`);
}

async function restore() {
  const { id, normalisation: rule } = now.manifest;
  try {
    now.store = await store.open(id, rule.channels * rule.height * rule.width);
    now.state = await now.store.load();
    now.store.changed(() => now.store.load().then((state) => take(state, { kept: true })));
  } catch {
    toast('This browser keeps nothing. Save a copy before you leave.', { bad: true });
  }
  await learn(taught.NOTHING, now.state);
}

function loading(text, share) {
  if (part('loading-text').textContent !== text) part('loading-text').textContent = text;
  part('loading-share').value = share;
}

function fail(error) {
  part('loading').hidden = true;
  part('failed').hidden = false;
  part('failed-text').textContent = error.message;
  part('page').dataset.state = 'failed';
}

// Changes

/** Make `state` the present one: show it, keep it, learn it. One after another. */
function take(state, { kept = false } = {}) {
  const before = now.state;
  now.state = state;
  learned = false;
  show();
  changes = changes.then(async () => {
    await learn(before, state);
    if (!kept) await keep(before, state);
  }).catch(({ message }) => {
    toast(`This could not be learned: ${message}`, { bad: true, action: 'Undo', act: () => take(before) });
  });
  return changes;
}

async function learn(before, after) {
  const old = new Set(before.examples.map(({ id }) => id));
  const there = new Set(after.examples.map(({ id }) => id));
  const come = after.examples.filter(({ id }) => !old.has(id)).map(({ id, x }) => ({ id, x }));
  await now.worker.call('keep', come, [...old].filter((id) => !there.has(id)));
  const { ids, labels, way } = taught.taskOf(after);
  const { ms } = await now.worker.call('adapt', ids, labels, way);
  if (ids.length) clocked('adapt', ms);
  learned = after === now.state;
  ask();
}

async function keep(before, after) {
  try {
    await now.store?.save(before, after);
  } catch {
    toast('The browser has no room for this. Save a copy, or forget a class.', { bad: true });
  }
}

/** Change the state, with a way back where `text` tells of it. */
function change(state, text = '') {
  const before = now.state;
  if (text) toast(text, { action: 'Undo', act: () => take(before) });
  return take(state);
}

/** What a change gives, or its complaint at the bottom. */
function attempt(act) {
  try {
    return act();
  } catch (error) {
    toast(error.message, { bad: true });
    return null;
  }
}

const nameOf = (id) => now.state.classes.find((one) => one.id === id)?.name;

const on = {
  teach(id) {
    const example = shown();
    if (!example) return toast('Draw something or show a picture first.');
    change(taught.addExamples(now.state, id, [example]));
    return now.stage.live ? null : now.stage.clear();
  },
  rename(id, field) {
    attempt(() => change(taught.rename(now.state, id, field.value)));
    field.value = nameOf(id);
  },
  forget: (id) => change(taught.forget(now.state, id), `Forgot ${nameOf(id)}.`),
  drop: (id) => change(taught.dropExample(now.state, id), 'Removed an example.'),
  async add(id, files) {
    const examples = [];
    for (const file of files) {
      try {
        const bitmap = await pictures.decode(file);
        examples.push(example(bitmap));
        bitmap.close();
      } catch (error) {
        toast(error.message, { bad: true });
      }
    }
    if (!examples.length) return;
    const told = `Added ${view.count(examples.length, 'picture')} to ${nameOf(id)}.`;
    change(taught.addExamples(now.state, id, examples), told);
  },
};

/** A new class; what is shown, if anything, is its first example. */
function create(field) {
  attempt(() => {
    const [state, made] = taught.addClass(now.state, field.value);
    change(state);
    field.value = '';
    if (now.stage.source) on.teach(made.id);
  });
}

function example(source) {
  return { x: preprocess(pictures.pixels(source), now.manifest.normalisation), thumb: pictures.thumbnail(source) };
}

const shown = () => (now.stage.source ? attempt(() => example(now.stage.source)) : null);

// Answers

/** Ask about what is shown, and again afterwards if it has changed meanwhile. */
async function ask() {
  askAgain = true;
  if (asking) return;
  asking = true;
  while (askAgain) {
    askAgain = false;
    await answer();
  }
  asking = false;
}

async function answer() {
  const [state, source] = [now.state, now.stage?.source];
  let shares = null;
  if (source && learned && taught.waysOf(state).length > 1) {
    const x = preprocess(pictures.pixels(source), now.manifest.normalisation);
    const { logits, ms } = await now.worker.call('classify', x);
    clocked('infer', ms);
    if (state !== now.state) return;
    shares = probabilities(logits);
  }
  speak(view.answer(state, shares, { shown: Boolean(source) }));
}

/** Read an answer out once it stands still. */
function speak(text) {
  if (text === told) return;
  told = text;
  clearTimeout(speaking);
  speaking = setTimeout(() => { part('spoken').textContent = text; }, SPEAK_MS);
}

function clocked(kind, ms) {
  timings[kind] = [...timings[kind], ms].slice(-TIMINGS);
  const sorted = [...timings[kind]].sort((a, b) => a - b);
  part(kind).textContent = view.milliseconds(sorted[sorted.length >> 1]);
}

function show() {
  view.classes(now.state, on);
  ask();
}

function film() {
  if (now.stage.live && !document.hidden) ask();
}

// Wiring

function wire() {
  now.stage = new Stage(part('desk'), ask, (error) => toast(error.message, { bad: true }));
  setInterval(film, FRAME_MS);
  part('new-class').addEventListener('submit', (event) => {
    event.preventDefault();
    create(part('new-name'));
  });
  part('threshold').addEventListener('input', ({ target }) => {
    now.state = { ...now.state, threshold: target.value / 100 };
    ask();
  });
  part('threshold').addEventListener('change', () => keep(now.state, now.state));
  part('save').addEventListener('click', save);
  part('open').addEventListener('click', () => part('open-file').click());
  part('open-file').addEventListener('change', ({ target }) => {
    open(target.files[0]).finally(() => { target.value = ''; });
  });
  addEventListener('keydown', key);
  addEventListener('paste', ({ clipboardData }) => pick([...clipboardData.files]));
  addEventListener('dragover', drag);
  addEventListener('dragleave', (event) => event.relatedTarget ?? mark(null));
  addEventListener('drop', drop);
}

function key(event) {
  const typing = event.target.matches('input:not([type=radio]):not([type=range])');
  if (typing || (event.ctrlKey && event.key !== 'z') || event.altKey) return;
  const one = now.state.classes[Number(event.key) - 1];
  if (event.key === 'Escape') now.stage.clear();
  else if ((event.ctrlKey || event.metaKey) && event.key === 'z') now.stage.undo();
  else if (one && !event.metaKey && !event.repeat) on.teach(one.id);
}

function pick(files) {
  const first = files.find(({ type }) => type.startsWith('image/'));
  if (first) now.stage.take(first);
}

function drag(event) {
  if (!event.dataTransfer.types.includes('Files')) return;
  event.preventDefault();
  mark(event.target.closest?.('[data-drop]') ?? part('stage'));
}

function mark(target) {
  for (const old of document.querySelectorAll('.over')) old.classList.toggle('over', old === target);
  target?.classList.add('over');
}

/** On a class: its examples. Anywhere else: what is shown. */
function drop(event) {
  mark(null);
  if (!event.dataTransfer.files.length) return; // text, into a field
  event.preventDefault();
  const [files, target] = [[...event.dataTransfer.files], event.target.closest?.('[data-drop]')];
  if (target) on.add(Number(target.dataset.drop), files);
  else now.stage.take(files[0]);
}

function save() {
  const blob = new Blob([taught.toFile(now.state, now.manifest.id)], { type: 'application/json' });
  const link = Object.assign(document.createElement('a'), {
    href: URL.createObjectURL(blob), download: `taught-${now.manifest.id.slice(0, 8)}.json`,
  });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function open(file) {
  const { id, normalisation: rule } = now.manifest;
  const text = await file.text();
  const state = attempt(() => taught.fromFile(text, id, rule.channels * rule.height * rule.width));
  if (state) change(state, `Opened ${view.count(state.classes.length, 'class', 'classes')}.`);
}
